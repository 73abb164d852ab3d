// Declarations of the part of Metal that driver.m calls, as in Apple's headers,
// for checking it off macOS. SDK=15 has what came with macOS 15.
#pragma once
#include <Foundation/Foundation.h>

typedef struct {
    NSUInteger width, height, depth;
} MTLSize;
static inline MTLSize MTLSizeMake(NSUInteger w, NSUInteger h, NSUInteger d) { return (MTLSize){w, h, d}; }

typedef enum : NSUInteger { MTLResourceStorageModeShared = 0 } MTLResourceOptions;
typedef enum : NSUInteger { MTLDispatchTypeSerial, MTLDispatchTypeConcurrent } MTLDispatchType;
typedef enum : NSUInteger { MTLCommandBufferStatusCompleted = 4, MTLCommandBufferStatusError = 5 } MTLCommandBufferStatus;
typedef enum : NSUInteger { MTLPipelineOptionNone = 0, MTLPipelineOptionFailOnBinaryArchiveMiss = 4 } MTLPipelineOption;
typedef enum : NSInteger { MTLGPUFamilyApple7 = 1007 } MTLGPUFamily;
extern NSErrorDomain const MTLCommandBufferErrorDomain;

#if SDK >= 15
#define __MAC_15_0 150000
typedef enum : NSInteger { MTLMathModeSafe = 0 } MTLMathMode API_AVAILABLE_MACOS(15.0);
#endif

@interface MTLCompileOptions : NSObject
#if SDK >= 15
@property BOOL fastMathEnabled __attribute__((availability(macos, introduced = 10.11, deprecated = 15.0)));
@property MTLMathMode mathMode API_AVAILABLE_MACOS(15.0);
#else
@property BOOL fastMathEnabled;
#endif
@end

@protocol MTLFunction
@end

@protocol MTLBinaryArchive;
@interface MTLBinaryArchiveDescriptor : NSObject
@property(copy) NSURL *url;
@end

@interface MTLComputePipelineDescriptor : NSObject
@property(strong) id<MTLFunction> computeFunction;
@property(copy) NSArray<id<MTLBinaryArchive>> *binaryArchives;
@end

@protocol MTLBinaryArchive
- (BOOL)addComputePipelineFunctionsWithDescriptor:(MTLComputePipelineDescriptor *)d error:(NSError *__autoreleasing *)e;
- (BOOL)serializeToURL:(NSURL *)url error:(NSError *__autoreleasing *)e;
@end

@protocol MTLComputePipelineState
@property(readonly) NSUInteger maxTotalThreadsPerThreadgroup, staticThreadgroupMemoryLength;
@end

@protocol MTLBuffer
- (void *)contents __attribute__((objc_returns_inner_pointer));
@end

@protocol MTLLibrary
- (id<MTLFunction>)newFunctionWithName:(NSString *)n;
@end

@protocol MTLComputeCommandEncoder
- (void)setComputePipelineState:(id<MTLComputePipelineState>)p;
- (void)setBuffer:(id<MTLBuffer>)b offset:(NSUInteger)o atIndex:(NSUInteger)i;
- (void)setBytes:(const void *)p length:(NSUInteger)n atIndex:(NSUInteger)i;
- (void)setThreadgroupMemoryLength:(NSUInteger)n atIndex:(NSUInteger)i;
- (void)dispatchThreadgroups:(MTLSize)g threadsPerThreadgroup:(MTLSize)t;
- (void)endEncoding;
@end

@protocol MTLCommandBuffer
- (id<MTLComputeCommandEncoder>)computeCommandEncoderWithDispatchType:(MTLDispatchType)t;
- (void)commit;
- (void)waitUntilCompleted;
@property(readonly) MTLCommandBufferStatus status;
@property(readonly) NSError *error;
@property(readonly) double GPUStartTime, GPUEndTime;
@end

@protocol MTLCommandQueue
- (id<MTLCommandBuffer>)commandBufferWithUnretainedReferences;
@end

@class MTLComputePipelineReflection;
@protocol MTLDevice
@property(readonly) MTLSize maxThreadsPerThreadgroup;
- (BOOL)supportsFamily:(MTLGPUFamily)f;
- (id<MTLCommandQueue>)newCommandQueue;
- (id<MTLLibrary>)newLibraryWithSource:(NSString *)s options:(MTLCompileOptions *)o error:(NSError *__autoreleasing *)e;
- (id<MTLBinaryArchive>)newBinaryArchiveWithDescriptor:(MTLBinaryArchiveDescriptor *)d error:(NSError *__autoreleasing *)e;
- (id<MTLComputePipelineState>)newComputePipelineStateWithDescriptor:(MTLComputePipelineDescriptor *)d
                                                             options:(MTLPipelineOption)o
                                                          reflection:(MTLComputePipelineReflection *__autoreleasing *)r
                                                               error:(NSError *__autoreleasing *)e;
- (id<MTLBuffer>)newBufferWithLength:(NSUInteger)n options:(MTLResourceOptions)o;
- (id<MTLBuffer>)newBufferWithBytesNoCopy:(void *)p
                                   length:(NSUInteger)n
                                  options:(MTLResourceOptions)o
                              deallocator:(void (^)(void *pointer, NSUInteger length))d;
@end

id<MTLDevice> MTLCreateSystemDefaultDevice(void);
