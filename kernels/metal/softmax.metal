// Softmax of rows of any length, and its gradient.
#include "common.h"

struct SoftmaxParams {
    uint rows;
    uint cols;
    uint xStride;
    uint outStride;
    uint sequences; // 0: every row looks at all columns
    float scale;
};

// Lowest start for maxima: a finite number, so that differences stay finite.
constant float kLowest = -3.0e38f;

// First and one-past-last column that row may look at: with sequences, those of
// its token's sequence up to the token itself.
inline uint2 visible(uint row, device const int* bounds, constant SoftmaxParams& p)
{
    if (p.sequences == 0) {
        return uint2(0, p.cols);
    }
    const uint token = row % p.cols;
    uint low = 0;
    uint high = p.sequences; // bounds[low] <= token < bounds[high]
    while (high - low > 1) {
        const uint middle = (low + high) / 2;
        if (uint(bounds[middle]) <= token) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return uint2(uint(bounds[low]), token + 1);
}

// One threadgroup a row; the sum is taken online, beside the maximum.
template <typename T>
kernel void softmax(
    device const T* x [[buffer(0)]],
    device const int* bounds [[buffer(1)]],
    device T* out [[buffer(2)]],
    constant SoftmaxParams& p [[buffer(3)]],
    uint row [[threadgroup_position_in_grid]],
    uint tid [[thread_position_in_threadgroup]],
    uint threads [[threads_per_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint simd [[simdgroup_index_in_threadgroup]],
    uint simds [[simdgroups_per_threadgroup]])
{
    threadgroup float part[32];
    device const T* from = x + ulong(row) * p.xStride;
    device T* to = out + ulong(row) * p.outStride;
    const uint2 seen = visible(row, bounds, p);

    // e^(scale * (x - top)): the difference is exact where it matters, and no
    // compiler can fuse what must be rounded alike.
    float top = kLowest;
    float sum = 0.0f;
    for (uint c = seen.x + tid; c < seen.y; c += threads) {
        const float v = float(from[c]);
        const float m = max(top, v);
        sum = sum * exp(p.scale * (top - m)) + exp(p.scale * (v - m));
        top = m;
    }
    const float m = group_max(top, part, lane, simd, simds);
    const float inverse = 1.0f / group_sum(sum * exp(p.scale * (top - m)), part, lane, simd, simds);
    for (uint c = tid; c < p.cols; c += threads) {
        const bool in = c >= seen.x && c < seen.y;
        to[c] = in ? T(exp(p.scale * (float(from[c]) - m)) * inverse) : T(0.0f);
    }
}

struct SoftmaxGradParams {
    uint cols;
    uint outStride;
    uint doutStride;
    uint dxStride;
    float scale;
};

// dx = scale * out * (dout - sum of dout * out); dx may lie where dout does.
template <typename T>
kernel void softmax_grad(
    device const T* out [[buffer(0)]],
    device const T* dout [[buffer(1)]],
    device T* dx [[buffer(2)]],
    constant SoftmaxGradParams& p [[buffer(3)]],
    uint row [[threadgroup_position_in_grid]],
    uint tid [[thread_position_in_threadgroup]],
    uint threads [[threads_per_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint simd [[simdgroup_index_in_threadgroup]],
    uint simds [[simdgroups_per_threadgroup]])
{
    threadgroup float part[32];
    device const T* y = out + ulong(row) * p.outStride;
    device const T* d = dout + ulong(row) * p.doutStride;
    device T* to = dx + ulong(row) * p.dxStride;
    float sum = 0.0f;
    for (uint c = tid; c < p.cols; c += threads) {
        sum = fma(float(y[c]), float(d[c]), sum);
    }
    sum = group_sum(sum, part, lane, simd, simds);
    for (uint c = tid; c < p.cols; c += threads) {
        to[c] = T(p.scale * float(y[c]) * (float(d[c]) - sum));
    }
}

template [[host_name("softmax_f32")]] kernel decltype(softmax<float>) softmax<float>;
template [[host_name("softmax_f16")]] kernel decltype(softmax<half>) softmax<half>;
template [[host_name("softmax_bf16")]] kernel decltype(softmax<bfloat>) softmax<bfloat>;
template [[host_name("softmax_grad_f32")]] kernel decltype(softmax_grad<float>) softmax_grad<float>;
template [[host_name("softmax_grad_f16")]] kernel decltype(softmax_grad<half>) softmax_grad<half>;
template [[host_name("softmax_grad_bf16")]] kernel decltype(softmax_grad<bfloat>) softmax_grad<bfloat>;
