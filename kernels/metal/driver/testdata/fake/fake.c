// A GPU that computes nothing, in the place of driver.m: it writes down what it
// is asked for.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "driver.h"

static char seen[1 << 16]; // commands
int fake_objects;          // that are not released

typedef struct {
    char kind;
    void *memory;
    char text[64];
} object;

static void *make(char kind, const char *text)
{
    object *o = calloc(1, sizeof *o);
    o->kind = kind;
    snprintf(o->text, sizeof o->text, "%s", text);
    fake_objects++;
    return o;
}

static void see(const char *text)
{
    strncat(seen, text, sizeof seen - strlen(seen) - 1);
}

// What was seen since the last call; the caller's to free.
char *fake_seen(void)
{
    char *s = strdup(seen);
    seen[0] = 0;
    return s;
}

void *gm_device(void) { return make('d', ""); }
int gm_family(void *device, int64_t family) { return device && family <= 1008; }
uint64_t gm_max_threads(void *device) { return device ? 1024 : 0; }
void *gm_queue(void *device) { return device ? make('q', "") : NULL; }

void *gm_library(void *device, const char *source, char **error)
{
    if (!device || !strstr(source, "kernel void")) {
        *error = strdup("no kernels");
        return NULL;
    }
    return make('l', strstr(source, "kernel void softmax(") ? "softmax" : "other");
}

void *gm_archive(void *device, const char *path) { return device && path[0] ? make('a', path) : NULL; }

int gm_archive_write(void *archive, const char *path)
{
    FILE *f = fopen(path, "w");
    return archive && f && fputs("pipelines", f) >= 0 && fclose(f) == 0;
}

void *gm_pipeline(void *device, void *library, const char *kernel, void *archive, gm_limits *limits, int *added, char **error)
{
    if (!device || ((object *)library)->kind != 'l') {
        *error = strdup("no library");
        return NULL;
    }
    if (!strncmp(kernel, "softmax_grad", 12)) {
        *error = strdup("out of registers");
        return NULL;
    }
    *added = archive != NULL;
    *limits = (gm_limits){256, 128};
    return make('p', kernel);
}

void *gm_alloc(void *device, uint64_t n, void **contents)
{
    object *o = device ? make('b', "") : NULL;
    o->memory = *contents = aligned_alloc(4096, n);
    memset(*contents, 0, n);
    return o;
}

void *gm_wrap(void *device, uintptr_t pages, uint64_t n)
{
    return device && pages % 4096 == 0 && n % 4096 == 0 ? make('w', "") : NULL;
}

void *gm_submit(void *queue, const gm_launch *launches, uint32_t n, const gm_binding *bindings, const uint8_t *params,
                const uint32_t *shared, char **error)
{
    char line[256];
    if (((object *)queue)->kind != 'q') {
        *error = strdup("no queue");
        return NULL;
    }
    for (uint32_t i = 0; i < n; i++) {
        const gm_launch *l = &launches[i];
        snprintf(line, sizeof line, "%s %u,%u,%u x %u,%u,%u", ((object *)l->pipeline)->text, l->groups[0], l->groups[1], l->groups[2],
                 l->threads[0], l->threads[1], l->threads[2]);
        see(line);
        for (uint32_t j = 0; j < l->bindings; j++) {
            const gm_binding *b = &bindings[l->binding + j];
            snprintf(line, sizeof line, " %c+%u", ((object *)b->buffer)->kind, (unsigned)b->offset);
            see(line);
        }
        for (uint32_t j = 0; j < l->params_size; j++) {
            snprintf(line, sizeof line, "%s%02x", j ? "" : " params ", params[l->params + j]);
            see(line);
        }
        for (uint32_t j = 0; j < l->shareds; j++) {
            snprintf(line, sizeof line, " shared %u", shared[l->shared + j]);
            see(line);
        }
        see("\n");
    }
    return make('c', n && launches[0].groups[0] == 666 ? "bad" : "");
}

int gm_wait(void *commands, double *seconds, char **error)
{
    int bad = ((object *)commands)->text[0] != 0;
    see("wait\n");
    gm_release(commands);
    *seconds = 1e-3;
    if (bad) {
        *error = strdup("Caused GPU Timeout Error");
    }
    return bad ? 2 : 0;
}

void gm_release(void *p)
{
    object *o = p;
    if (o) {
        if (o->kind == 'b') {
            free(o->memory);
        }
        free(o);
        fake_objects--;
    }
}
