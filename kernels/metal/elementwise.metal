// Sums, zeros, dropout, and the column sums of a bias.
#include "common.h"

struct ElementParams {
    uint rows;
    uint cols;
    uint aStride;
    uint bStride;
    uint outStride;
};

// out = a + b; out may be either.
template <typename T>
kernel void sum(
    device const T* a [[buffer(0)]],
    device const T* b [[buffer(1)]],
    device T* out [[buffer(2)]],
    constant ElementParams& p [[buffer(3)]],
    uint2 place [[thread_position_in_grid]])
{
    if (place.x < p.cols && place.y < p.rows) {
        const ulong row = place.y;
        out[row * p.outStride + place.x] = T(float(a[row * p.aStride + place.x]) + float(b[row * p.bStride + place.x]));
    }
}

template <typename T>
kernel void zero(
    device T* out [[buffer(0)]],
    constant ElementParams& p [[buffer(1)]],
    uint2 place [[thread_position_in_grid]])
{
    if (place.x < p.cols && place.y < p.rows) {
        out[ulong(place.y) * p.outStride + place.x] = T(0.0f);
    }
}

struct DropoutParams {
    uint rows;
    uint cols;
    uint xStride;
    uint outStride;
    uint seedLow;
    uint seedHigh;
    uint stream;
    uint purpose;
    uint startLow; // position of the first row
    uint startHigh;
    uint least; // words below are dropped
    float factor;
};

// The four words at a position of a stream: Philox 4x32-10 (Salmon et al., 2011),
// as package random has it.
inline uint4 random_words(ulong position, constant DropoutParams& p)
{
    uint c0 = uint(position);
    uint c1 = uint(position >> 32);
    uint c2 = p.stream;
    uint c3 = p.purpose;
    uint k0 = p.seedLow;
    uint k1 = p.seedHigh;
    for (uint round = 0; round < 10; ++round) {
        const ulong a = ulong(c0) * 0xD2511F53u;
        const ulong b = ulong(c2) * 0xCD9E8D57u;
        c0 = uint(b >> 32) ^ c1 ^ k0;
        c1 = uint(b);
        c2 = uint(a >> 32) ^ c3 ^ k1;
        c3 = uint(a);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return uint4(c0, c1, c2, c3);
}

// Four elements a thread, those of one position.
template <typename T>
kernel void dropout(
    device const T* x [[buffer(0)]],
    device T* out [[buffer(1)]],
    constant DropoutParams& p [[buffer(2)]],
    uint2 place [[thread_position_in_grid]])
{
    const uint fours = (p.cols + 3) / 4;
    if (place.x >= fours || place.y >= p.rows) {
        return;
    }
    const ulong start = ulong(p.startHigh) << 32 | ulong(p.startLow);
    const uint4 words = random_words(start + ulong(place.y) * fours + place.x, p);
    for (uint i = 0; i < 4 && 4 * place.x + i < p.cols; ++i) {
        const uint c = 4 * place.x + i;
        const float v = float(x[ulong(place.y) * p.xStride + c]);
        out[ulong(place.y) * p.outStride + c] = words[i] < p.least ? T(0.0f) : T(v * p.factor);
    }
}

// dbias += column sums of dy. The SIMD-groups of a threadgroup share the rows of
// 32 columns, a lane a column.
template <typename T>
kernel void bias_grad(
    device const T* dy [[buffer(0)]],
    device float* dbias [[buffer(1)]],
    constant ElementParams& p [[buffer(2)]],
    uint group [[threadgroup_position_in_grid]],
    uint lane [[thread_index_in_simdgroup]],
    uint simd [[simdgroup_index_in_threadgroup]],
    uint simds [[simdgroups_per_threadgroup]])
{
    threadgroup float part[32 * 32];
    const uint c = group * 32 + lane;
    float sum = 0.0f;
    if (c < p.cols) {
        for (uint row = simd; row < p.rows; row += simds) {
            sum += float(dy[ulong(row) * p.aStride + c]);
        }
    }
    part[simd * 32 + lane] = sum;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (simd == 0 && c < p.cols) {
        for (uint i = 1; i < simds; ++i) {
            sum += part[i * 32 + lane];
        }
        dbias[c] += sum;
    }
}

template [[host_name("sum_f32")]] kernel decltype(sum<float>) sum<float>;
template [[host_name("sum_f16")]] kernel decltype(sum<half>) sum<half>;
template [[host_name("sum_bf16")]] kernel decltype(sum<bfloat>) sum<bfloat>;
template [[host_name("zero_f32")]] kernel decltype(zero<float>) zero<float>;
template [[host_name("zero_f16")]] kernel decltype(zero<half>) zero<half>;
template [[host_name("zero_bf16")]] kernel decltype(zero<bfloat>) zero<bfloat>;
template [[host_name("dropout_f32")]] kernel decltype(dropout<float>) dropout<float>;
template [[host_name("dropout_f16")]] kernel decltype(dropout<half>) dropout<half>;
template [[host_name("dropout_bf16")]] kernel decltype(dropout<bfloat>) dropout<bfloat>;
template [[host_name("bias_grad_f32")]] kernel decltype(bias_grad<float>) bias_grad<float>;
template [[host_name("bias_grad_f16")]] kernel decltype(bias_grad<half>) bias_grad<half>;
template [[host_name("bias_grad_bf16")]] kernel decltype(bias_grad<bfloat>) bias_grad<bfloat>;
