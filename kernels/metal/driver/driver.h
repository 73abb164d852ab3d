// The part of Metal that graft calls, as C. Objects are opaque; each is the
// caller's to gm_release. Texts of errors are the caller's to free.
#pragma once
#include <stdint.h>

typedef struct {
    void *buffer;
    uint64_t offset;
} gm_binding;

// A launch; its bindings, parameters and sizes of threadgroup memory are runs of
// the arrays that gm_submit is given.
typedef struct {
    void *pipeline;
    uint32_t binding, bindings;
    uint32_t params, params_size;
    uint32_t shared, shareds;
    uint32_t groups[3], threads[3];
} gm_launch;

typedef struct {
    uint32_t threads;   // of a threadgroup, at most
    uint32_t static_shared; // bytes of threadgroup memory that the kernel declares
} gm_limits;

// The system's GPU, or NULL.
void *gm_device(void);
// Whether a device is of an MTLGPUFamily. macdriver's method for this writes
// eight bytes into a Go bool.
int gm_family(void *device, int64_t family);
// The most threads of a threadgroup in x. (macdriver's MTLSize is empty.)
uint64_t gm_max_threads(void *device);

void *gm_queue(void *device);
// Compiles a source; NULL with an error where it does not compile.
void *gm_library(void *device, const char *source, char **error);
// The pipelines kept in a file, or an empty archive where there is none or it
// cannot be read; NULL where the device keeps none.
void *gm_archive(void *device, const char *path);
// Writes an archive to a file and returns whether it could.
int gm_archive_write(void *archive, const char *path);
// A kernel's pipeline, out of the archive (which may be NULL) or compiled and
// added to it; *added then becomes 1.
void *gm_pipeline(void *device, void *library, const char *kernel, void *archive, gm_limits *limits, int *added, char **error);

// n bytes of zeroed memory that both sides see, or NULL.
void *gm_alloc(void *device, uint64_t n, void **contents);
// Memory of the process, whole pages that stay where they are, as a buffer, or
// NULL where the GPU cannot use them.
void *gm_wrap(void *device, uintptr_t pages, uint64_t n);

// Starts a command buffer with n launches, in order. NULL with an error where
// none can be had.
void *gm_submit(void *queue, const gm_launch *launches, uint32_t n, const gm_binding *bindings, const uint8_t *params,
                const uint32_t *shared, char **error);
// Waits for a command buffer. Returns 0 and its seconds on the GPU, or the
// MTLCommandBufferError (-1: another error) with its text.
int gm_wait(void *commands, double *seconds, char **error);

void gm_release(void *object);
