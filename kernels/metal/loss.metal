// Cross entropy of rows of logits.
#include "common.h"

struct LossParams {
    uint vocabulary;
    uint stride;
    uint lossStride;
    uint gradients; // 1: logits are turned into the gradient by them
    float scale;
    float cap; // 0: none
};

// Lowest start for maxima: a finite number, so that differences stay finite.
constant float kLowest = -3.0e38f;

// The scaled and capped logit, and its derivative by x.
inline float2 capped(float x, constant LossParams& p)
{
    const float z = p.scale * x;
    if (p.cap == 0.0f) {
        return float2(z, p.scale);
    }
    const float t = tanh(clamp(z / p.cap, -20.0f, 20.0f));
    return float2(p.cap * t, p.scale * (1.0f - t * t));
}

// loss = log of the sum of e^z - z[target]. One threadgroup a row. The target is
// kept out of the sum: its gradient, p - 1, is minus the sum of the other
// probabilities, without cancellation however sure the model is.
kernel void cross_entropy(
    device float* logits [[buffer(0)]],
    device const int* targets [[buffer(1)]],
    device float* loss [[buffer(2)]],
    constant LossParams& p [[buffer(3)]],
    uint row [[threadgroup_position_in_grid]],
    uint tid [[thread_position_in_threadgroup]],
    uint threads [[threads_per_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint simd [[simdgroup_index_in_threadgroup]],
    uint simds [[simdgroups_per_threadgroup]])
{
    threadgroup float part[32];
    device float* x = logits + ulong(row) * p.stride;
    const uint target = uint(targets[row]);
    const float2 aim = capped(x[target], p);

    float top = kLowest;
    float sum = 0.0f;
    for (uint c = tid; c < p.vocabulary; c += threads) {
        const float z = capped(x[c], p).x;
        const float m = max(top, z);
        sum = sum * exp(top - m) + (c == target ? 0.0f : exp(z - m));
        top = m;
    }
    const float m = group_max(top, part, lane, simd, simds);
    const float others = group_sum(sum * exp(top - m), part, lane, simd, simds);
    const float mine = exp(aim.x - m);
    const float all = others + mine;
    if (tid == 0) {
        // With the target on top, log(1 + others): where others are few, by its
        // series, as 1 + others would round them.
        const float series = others * (1.0f - others * (0.5f - others * (1.0f / 3.0f - others * (0.25f - others * 0.2f))));
        loss[ulong(row) * p.lossStride] = aim.x == m && others < 0.03125f ? series : m - aim.x + log(all);
    }
    if (p.gradients == 0) {
        return;
    }
    threadgroup_barrier(mem_flags::mem_device); // every thread has read the target's logit
    for (uint c = tid; c < p.vocabulary; c += threads) {
        const float2 z = capped(x[c], p);
        x[c] = z.y * (c == target ? -others / all : exp(z.x - m) / all);
    }
}
