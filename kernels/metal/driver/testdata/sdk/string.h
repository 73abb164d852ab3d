#pragma once
#include <stddef.h>
char *strdup(const char *);
