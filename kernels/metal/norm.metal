// RMS norm, y = x / sqrt(mean(x^2) + eps) * w, and its gradients.
#include "common.h"
#include "operands.h"

struct NormParams {
    uint groups; // of a row, each normalised by itself
    uint width;
    uint xStride;
    uint residualStride;
    uint sumStride;
    uint outStride;
    uint inverseStride;
    uint weightType;
    uint residual; // 1: x + residual is normalised, and kept in sum
    float eps;
    float offset; // added to the weight
};

// One threadgroup a group of a row.
template <typename T>
kernel void rms_norm(
    device const T* x [[buffer(0)]],
    device const T* residual [[buffer(1)]],
    device const uchar* weight [[buffer(2)]],
    device T* sum [[buffer(3)]],
    device T* out [[buffer(4)]],
    device float* inverse [[buffer(5)]],
    constant NormParams& p [[buffer(6)]],
    uint2 place [[threadgroup_position_in_grid]],
    uint2 position [[thread_position_in_threadgroup]],
    uint2 size [[threads_per_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint simd [[simdgroup_index_in_threadgroup]],
    uint simds [[simdgroups_per_threadgroup]])
{
    threadgroup float part[32];
    const uint tid = position.x;
    const uint threads = size.x;
    const ulong row = place.y;
    const uint first = place.x * p.width;
    device const T* from = x + row * p.xStride + first;
    device const T* other = residual + row * p.residualStride + first;
    device T* kept = sum + row * p.sumStride + first;
    device T* to = out + row * p.outStride + first;

    float squares = 0.0f;
    for (uint c = tid; c < p.width; c += threads) {
        float v = float(from[c]);
        if (p.residual != 0) {
            const T rounded = T(v + float(other[c]));
            kept[c] = rounded;
            v = float(rounded); // as the gradient will see it
        }
        squares = fma(v, v, squares);
    }
    squares = group_sum(squares, part, lane, simd, simds);
    const float r = rsqrt(squares / float(p.width) + p.eps);
    if (tid == 0) {
        inverse[row * p.inverseStride + place.x] = r;
    }
    for (uint c = tid; c < p.width; c += threads) {
        // Each thread reads what it has written itself.
        const float v = p.residual != 0 ? float(kept[c]) : float(from[c]);
        to[c] = T(v * r * (load1(weight, p.weightType, c) + p.offset));
    }
}

struct NormGradParams {
    uint rows;
    uint groups;
    uint width;
    uint xStride;
    uint inverseStride;
    uint doutStride;
    uint addStride;
    uint dxStride;
    uint outStride;
    uint weightType;
    uint add; // 1: there is one
    uint out; // 1: it is asked for
    float offset;
    uint rowsEach; // of a part of the weight's gradient
    uint parts;
};

// dx = add + inverse * (g - xhat * mean(g * xhat)) with xhat = x * inverse and
// g = dout * weight. One threadgroup a group of a row. dx may lie in the memory of
// dout or add: a thread reads an element before it writes that one, and no other.
template <typename T>
kernel void rms_norm_grad(
    device const T* x [[buffer(0)]],
    device const float* inverse [[buffer(1)]],
    device const uchar* weight [[buffer(2)]],
    device const T* dout [[buffer(3)]],
    device const T* add [[buffer(4)]],
    device T* dx [[buffer(5)]],
    device T* out [[buffer(6)]],
    constant NormGradParams& p [[buffer(7)]],
    uint2 place [[threadgroup_position_in_grid]],
    uint2 position [[thread_position_in_threadgroup]],
    uint2 size [[threads_per_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint simd [[simdgroup_index_in_threadgroup]],
    uint simds [[simdgroups_per_threadgroup]])
{
    threadgroup float part[32];
    const uint tid = position.x;
    const uint threads = size.x;
    const ulong row = place.y;
    const uint first = place.x * p.width;
    device const T* from = x + row * p.xStride + first;
    device const T* d = dout + row * p.doutStride + first;
    device const T* more = add + row * p.addStride + first;
    device T* to = dx + row * p.dxStride + first;
    device T* again = out + row * p.outStride + first;
    const float r = inverse[row * p.inverseStride + place.x];

    float sum = 0.0f;
    for (uint c = tid; c < p.width; c += threads) {
        const float g = float(d[c]) * (load1(weight, p.weightType, c) + p.offset);
        sum = fma(g, float(from[c]) * r, sum);
    }
    const float mean = group_sum(sum, part, lane, simd, simds) / float(p.width);
    for (uint c = tid; c < p.width; c += threads) {
        const float w = load1(weight, p.weightType, c) + p.offset;
        const float xhat = float(from[c]) * r;
        float v = r * (float(d[c]) * w - xhat * mean);
        if (p.add != 0) {
            v += float(more[c]);
        }
        to[c] = T(v);
        if (p.out != 0) {
            again[c] = T(xhat * w);
        }
    }
}

// The weight's gradient over some of the rows, one thread a column:
// parts[part, c] = sum over rows and groups of dout * x * inverse.
template <typename T>
kernel void rms_norm_weight_parts(
    device const T* x [[buffer(0)]],
    device const float* inverse [[buffer(1)]],
    device const T* dout [[buffer(2)]],
    device float* parts [[buffer(3)]],
    constant NormGradParams& p [[buffer(4)]],
    uint2 place [[threadgroup_position_in_grid]],
    uint2 position [[thread_position_in_threadgroup]],
    uint2 size [[threads_per_threadgroup]])
{
    const uint c = place.x * size.x + position.x;
    if (c >= p.width) {
        return;
    }
    float sum = 0.0f;
    for (uint row = place.y * p.rowsEach; row < min((place.y + 1) * p.rowsEach, p.rows); ++row) {
        for (uint g = 0; g < p.groups; ++g) {
            const float xhat = float(x[ulong(row) * p.xStride + g * p.width + c]) * inverse[ulong(row) * p.inverseStride + g];
            sum = fma(float(dout[ulong(row) * p.doutStride + g * p.width + c]), xhat, sum);
        }
    }
    parts[ulong(place.y) * p.width + c] = sum;
}

// dweight += the sum of the parts.
kernel void rms_norm_weight(
    device const float* parts [[buffer(0)]],
    device float* dweight [[buffer(1)]],
    constant NormGradParams& p [[buffer(2)]],
    uint c [[thread_position_in_grid]])
{
    if (c >= p.width) {
        return;
    }
    float sum = 0.0f;
    for (uint i = 0; i < p.parts; ++i) {
        sum += parts[ulong(i) * p.width + c];
    }
    dweight[c] += sum;
}

template [[host_name("rms_norm_f32")]] kernel decltype(rms_norm<float>) rms_norm<float>;
template [[host_name("rms_norm_f16")]] kernel decltype(rms_norm<half>) rms_norm<half>;
template [[host_name("rms_norm_bf16")]] kernel decltype(rms_norm<bfloat>) rms_norm<bfloat>;
template [[host_name("rms_norm_grad_f32")]] kernel decltype(rms_norm_grad<float>) rms_norm_grad<float>;
template [[host_name("rms_norm_grad_f16")]] kernel decltype(rms_norm_grad<half>) rms_norm_grad<half>;
template [[host_name("rms_norm_grad_bf16")]] kernel decltype(rms_norm_grad<bfloat>) rms_norm_grad<bfloat>;
template [[host_name("rms_norm_weight_parts_f32")]] kernel decltype(rms_norm_weight_parts<float>) rms_norm_weight_parts<float>;
template [[host_name("rms_norm_weight_parts_f16")]] kernel decltype(rms_norm_weight_parts<half>) rms_norm_weight_parts<half>;
template [[host_name("rms_norm_weight_parts_bf16")]] kernel decltype(rms_norm_weight_parts<bfloat>) rms_norm_weight_parts<bfloat>;
