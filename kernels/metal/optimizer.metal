// The norm of a gradient and AdamW, over flat buffers of all parameters.
#include "common.h"

struct ClipParams {
    uint count;
    uint each; // elements of a part
    uint parts;
    float divisor;
    float most; // 0 does not clip
};

// parts[i] = sum of the squares of part i, one threadgroup a part.
kernel void norm_parts(
    device const float* grad [[buffer(0)]],
    device float* parts [[buffer(1)]],
    constant ClipParams& p [[buffer(2)]],
    uint group [[threadgroup_position_in_grid]],
    uint tid [[thread_position_in_threadgroup]],
    uint threads [[threads_per_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint simd [[simdgroup_index_in_threadgroup]],
    uint simds [[simdgroups_per_threadgroup]])
{
    threadgroup float part[32];
    float sum = 0.0f;
    for (uint i = group * p.each + tid; i < min((group + 1) * p.each, p.count); i += threads) {
        sum = fma(grad[i], grad[i], sum);
    }
    sum = group_sum(sum, part, lane, simd, simds);
    if (tid == 0) {
        parts[group] = sum;
    }
}

// out = [norm / divisor, the factor that gradients are multiplied by]. One
// threadgroup.
kernel void clip_norm(
    device const float* parts [[buffer(0)]],
    device float* out [[buffer(1)]],
    constant ClipParams& p [[buffer(2)]],
    uint tid [[thread_position_in_threadgroup]],
    uint threads [[threads_per_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint simd [[simdgroup_index_in_threadgroup]],
    uint simds [[simdgroups_per_threadgroup]])
{
    threadgroup float part[32];
    float sum = 0.0f;
    for (uint i = tid; i < p.parts; i += threads) {
        sum += parts[i];
    }
    sum = group_sum(sum, part, lane, simd, simds);
    if (tid == 0) {
        const float norm = sqrt(sum) / p.divisor;
        out[0] = norm;
        out[1] = (p.most > 0.0f ? min(1.0f, p.most / (norm + 1e-6f)) : 1.0f) / p.divisor;
    }
}

struct AdamParams {
    uint count;
    float keep; // 1 - LR * weight decay
    float beta1;
    float rest1; // 1 - beta1
    float beta2;
    float rest2;
    float rate; // LR / (1 - beta1^step)
    float correction; // 1 / (1 - beta2^step)
    float epsilon;
};

kernel void adamw(
    device const float* grad [[buffer(0)]],
    device const float* clip [[buffer(1)]],
    device float* parameters [[buffer(2)]],
    device float* first [[buffer(3)]],
    device float* second [[buffer(4)]],
    constant AdamParams& p [[buffer(5)]],
    uint i [[thread_position_in_grid]])
{
    if (i >= p.count) {
        return;
    }
    const float g = clip[1] * grad[i];
    const float m = p.beta1 * first[i] + p.rest1 * g;
    const float v = p.beta2 * second[i] + p.rest2 * g * g;
    first[i] = m;
    second[i] = v;
    parameters[i] = p.keep * parameters[i] - p.rate * m / (sqrt(v * p.correction) + p.epsilon);
}
