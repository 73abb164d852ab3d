//go:build darwin && cgo

#import <Foundation/Foundation.h>
#import <Metal/Metal.h>
#include <string.h>
#include "driver.h"

static char *text(NSError *e)
{
    const char *s = e.localizedDescription.UTF8String;
    return strdup(s ? s : "unknown Metal error");
}

void *gm_device(void)
{
    @autoreleasepool {
        return (__bridge_retained void *)MTLCreateSystemDefaultDevice();
    }
}

int gm_family(void *device, int64_t family)
{
    @autoreleasepool {
        return [(__bridge id<MTLDevice>)device supportsFamily:(MTLGPUFamily)family];
    }
}

uint64_t gm_max_threads(void *device)
{
    @autoreleasepool {
        return ((__bridge id<MTLDevice>)device).maxThreadsPerThreadgroup.width;
    }
}

void *gm_queue(void *device)
{
    @autoreleasepool {
        return (__bridge_retained void *)[(__bridge id<MTLDevice>)device newCommandQueue];
    }
}

// Options under which every operation is rounded as IEEE 754 says.
static MTLCompileOptions *precise(void)
{
    MTLCompileOptions *options = [MTLCompileOptions new];
#ifdef __MAC_15_0
    if (@available(macOS 15.0, *)) {
        options.mathMode = MTLMathModeSafe;
        return options;
    }
#endif
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wdeprecated-declarations"
    options.fastMathEnabled = NO;
#pragma clang diagnostic pop
    return options;
}

void *gm_library(void *device, const char *source, char **error)
{
    @autoreleasepool {
        NSError *e = nil;
        id<MTLLibrary> library = [(__bridge id<MTLDevice>)device newLibraryWithSource:@(source) options:precise() error:&e];
        if (!library) {
            *error = text(e); // a library may come with warnings in e
        }
        return (__bridge_retained void *)library;
    }
}

void *gm_archive(void *device, const char *path)
{
    @autoreleasepool {
        id<MTLDevice> d = (__bridge id<MTLDevice>)device;
        MTLBinaryArchiveDescriptor *descriptor = [MTLBinaryArchiveDescriptor new];
        descriptor.url = [NSURL fileURLWithPath:@(path)];
        id<MTLBinaryArchive> archive = [d newBinaryArchiveWithDescriptor:descriptor error:nil];
        if (!archive) {
            descriptor.url = nil;
            archive = [d newBinaryArchiveWithDescriptor:descriptor error:nil];
        }
        return (__bridge_retained void *)archive;
    }
}

int gm_archive_write(void *archive, const char *path)
{
    @autoreleasepool {
        return [(__bridge id<MTLBinaryArchive>)archive serializeToURL:[NSURL fileURLWithPath:@(path)] error:nil];
    }
}

// The pipeline out of the archive, or nil.
static id<MTLComputePipelineState> kept(id<MTLDevice> device, MTLComputePipelineDescriptor *descriptor)
{
    return [device newComputePipelineStateWithDescriptor:descriptor
                                                 options:MTLPipelineOptionFailOnBinaryArchiveMiss
                                              reflection:nil
                                                   error:nil];
}

void *gm_pipeline(void *device, void *library, const char *kernel, void *archive, gm_limits *limits, int *added, char **error)
{
    @autoreleasepool {
        NSError *e = nil;
        id<MTLDevice> d = (__bridge id<MTLDevice>)device;
        id<MTLBinaryArchive> a = (__bridge id<MTLBinaryArchive>)archive;
        MTLComputePipelineDescriptor *descriptor = [MTLComputePipelineDescriptor new];
        descriptor.computeFunction = [(__bridge id<MTLLibrary>)library newFunctionWithName:@(kernel)];
        if (!descriptor.computeFunction) {
            *error = strdup("the library has no such kernel");
            return NULL;
        }
        id<MTLComputePipelineState> pipeline = nil;
        if (a) {
            descriptor.binaryArchives = @[ a ];
            pipeline = kept(d, descriptor);
        }
        if (!pipeline) {
            descriptor.binaryArchives = nil;
            pipeline = [d newComputePipelineStateWithDescriptor:descriptor options:MTLPipelineOptionNone reflection:nil error:&e];
            if (!pipeline) {
                *error = text(e);
                return NULL;
            }
            *added = a && [a addComputePipelineFunctionsWithDescriptor:descriptor error:nil];
        }
        limits->threads = (uint32_t)pipeline.maxTotalThreadsPerThreadgroup;
        limits->static_shared = (uint32_t)pipeline.staticThreadgroupMemoryLength;
        return (__bridge_retained void *)pipeline;
    }
}

void *gm_alloc(void *device, uint64_t n, void **contents)
{
    @autoreleasepool {
        // Metal clears new buffers.
        id<MTLBuffer> buffer = [(__bridge id<MTLDevice>)device newBufferWithLength:n options:MTLResourceStorageModeShared];
        *contents = buffer.contents;
        return (__bridge_retained void *)buffer;
    }
}

void *gm_wrap(void *device, uintptr_t pages, uint64_t n)
{
    @autoreleasepool {
        return (__bridge_retained void *)[(__bridge id<MTLDevice>)device newBufferWithBytesNoCopy:(void *)pages
                                                                                          length:n
                                                                                         options:MTLResourceStorageModeShared
                                                                                     deallocator:nil];
    }
}

void *gm_submit(void *queue, const gm_launch *launches, uint32_t n, const gm_binding *bindings, const uint8_t *params,
                const uint32_t *shared, char **error)
{
    @autoreleasepool {
        // Buffers and pipelines live until the device is closed: retaining them
        // for each command buffer would only cost time.
        id<MTLCommandBuffer> commands = [(__bridge id<MTLCommandQueue>)queue commandBufferWithUnretainedReferences];
        id<MTLComputeCommandEncoder> encoder = [commands computeCommandEncoderWithDispatchType:MTLDispatchTypeSerial];
        if (!encoder) {
            *error = strdup("no command buffer to be had");
            return NULL;
        }
        for (uint32_t i = 0; i < n; i++) {
            const gm_launch *l = &launches[i];
            [encoder setComputePipelineState:(__bridge id<MTLComputePipelineState>)l->pipeline];
            for (uint32_t j = 0; j < l->bindings; j++) {
                const gm_binding *b = &bindings[l->binding + j];
                [encoder setBuffer:(__bridge id<MTLBuffer>)b->buffer offset:b->offset atIndex:j];
            }
            if (l->params_size) {
                [encoder setBytes:params + l->params length:l->params_size atIndex:l->bindings];
            }
            for (uint32_t j = 0; j < l->shareds; j++) {
                [encoder setThreadgroupMemoryLength:shared[l->shared + j] atIndex:j];
            }
            [encoder dispatchThreadgroups:MTLSizeMake(l->groups[0], l->groups[1], l->groups[2])
                    threadsPerThreadgroup:MTLSizeMake(l->threads[0], l->threads[1], l->threads[2])];
        }
        [encoder endEncoding];
        [commands commit];
        return (__bridge_retained void *)commands;
    }
}

int gm_wait(void *commands, double *seconds, char **error)
{
    @autoreleasepool {
        id<MTLCommandBuffer> c = (__bridge_transfer id<MTLCommandBuffer>)commands;
        [c waitUntilCompleted];
        if (c.status == MTLCommandBufferStatusCompleted) {
            *seconds = c.GPUEndTime - c.GPUStartTime;
            return 0;
        }
        *error = text(c.error);
        return [c.error.domain isEqualToString:MTLCommandBufferErrorDomain] && c.error.code > 0 ? (int)c.error.code : -1;
    }
}

void gm_release(void *object)
{
    @autoreleasepool {
        id gone = (__bridge_transfer id)object;
        (void)gone;
    }
}
