// What the kernels share: sums over a threadgroup.
#pragma once
#include <metal_stdlib>
using namespace metal;

// Sum of v over the threadgroup of at most 1024 threads, the same in every
// thread. part holds one float a SIMD-group; it may be used again at once.
inline float group_sum(float v, threadgroup float* part, uint lane, uint simd, uint simds)
{
    v = simd_sum(v);
    threadgroup_barrier(mem_flags::mem_threadgroup); // part may still be in use
    if (lane == 0) {
        part[simd] = v;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    return simd_sum(lane < simds ? part[lane] : 0.0f);
}

// Largest v of the threadgroup, as group_sum.
inline float group_max(float v, threadgroup float* part, uint lane, uint simd, uint simds)
{
    v = simd_max(v);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (lane == 0) {
        part[simd] = v;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    return simd_max(lane < simds ? part[lane] : part[0]);
}
