// Causal attention within sequences, forward and backward (Dao et al., 2022):
// scores and probabilities exist a tile at a time, tiles that no query of a
// block looks at are left out, and query heads read their key and value head
// where it is.
//
// A threadgroup has four SIMD-groups. Each owns eight rows of a block of 32
// (queries, or keys in the gradient by keys and values) and keeps them in
// registers; tiles of kRows rows of the other side go through threadgroup
// memory. kDim is the head dimension, rounded up: what is beyond it is zero.
#include "common.h"

struct AttentionParams {
    uint tokens;
    uint sequences;
    uint headDim;
    uint shared; // query heads of a key and value head
    uint qStride;
    uint kStride;
    uint vStride;
    uint outStride;
    uint lseStride;
    uint doutStride;
    uint dqStride;
    uint dkStride;
    uint dvStride;
    uint deltaStride;
    uint window; // 0: none
    uint aligned; // rows of heads start at multiples of four elements
    float scale;
    float cap; // 0: none
};

constant uint kThreads = 128;
constant uint kBlock = 32; // rows of a threadgroup
constant float kLowest = -3.0e38f;

// The sequence that token is in: the last that starts at it or before.
inline uint sequence_of(uint token, device const int* bounds, constant AttentionParams& p)
{
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
    return low;
}

// The first key that the query of a token looks at; the last is its own.
inline uint first_key(uint token, device const int* bounds, constant AttentionParams& p)
{
    const uint start = uint(bounds[sequence_of(token, bounds, p)]);
    return p.window > 0 && token + 1 > start + p.window ? token + 1 - p.window : start;
}

// The scaled and capped score, and its derivative by the product of q and k.
inline float2 score(float x, constant AttentionParams& p)
{
    const float z = p.scale * x;
    if (p.cap == 0.0f) {
        return float2(z, p.scale);
    }
    const float t = tanh(clamp(z / p.cap, -20.0f, 20.0f));
    return float2(p.cap * t, p.scale * (1.0f - t * t));
}

// Stages rows of a head, zeros beyond end and beyond the head dimension.
template <typename T, uint kDim>
inline void stage(threadgroup T* tile, uint count, device const T* head, uint stride, uint row, uint end, constant AttentionParams& p, uint tid)
{
    using T4 = vec<T, 4>;
    for (uint i = tid; i < count * (kDim / 4); i += kThreads) {
        const uint r = i / (kDim / 4);
        const uint c = i % (kDim / 4) * 4;
        T4 v = T4(T(0.0f));
        if (row + r < end) {
            device const T* from = head + ulong(row + r) * stride + c;
            if (p.aligned != 0 && c + 4 <= p.headDim) {
                v = *(device const T4*)from;
            } else {
                for (uint e = 0; e < 4; ++e) {
                    v[e] = c + e < p.headDim ? from[e] : T(0.0f);
                }
            }
        }
        *(threadgroup T4*)(tile + r * (kDim + 4) + c) = v;
    }
}

// Eight rows of a head in registers.
template <typename T, uint kDim>
struct Rows {
    simdgroup_matrix<T, 8, 8> part[kDim / 8];
};

template <uint kDim>
struct Sums {
    simdgroup_float8x8 part[kDim / 8];
};

// Loads the eight rows of each SIMD-group by way of a tile, one SIMD-group after
// the other.
template <typename T, uint kDim>
inline void load_rows(thread Rows<T, kDim>& rows, threadgroup T* tile, device const T* head, uint stride, uint row, constant AttentionParams& p, uint tid, uint simd)
{
    for (uint s = 0; s < kThreads / 32; ++s) {
        threadgroup_barrier(mem_flags::mem_threadgroup);
        stage<T, kDim>(tile, 8, head, stride, row + 8 * s, p.tokens, p, tid);
        threadgroup_barrier(mem_flags::mem_threadgroup);
        if (s == simd) {
            for (uint d = 0; d < kDim / 8; ++d) {
                simdgroup_load(rows.part[d], tile + 8 * d, kDim + 4);
            }
        }
    }
}

template <uint kDim>
inline void clear(thread Sums<kDim>& sums)
{
    for (uint d = 0; d < kDim / 8; ++d) {
        sums.part[d] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
    }
}

// to[8, kRows] = rows * tile'.
template <typename T, uint kDim, uint kRows>
inline void products(threadgroup float* to, thread Rows<T, kDim>& rows, threadgroup const T* tile, uint dim)
{
    for (uint j = 0; j < kRows / 8; ++j) {
        simdgroup_float8x8 sum = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
        for (uint d = 0; d < kDim / 8; ++d) {
            if (8 * d < dim) {
                simdgroup_matrix<T, 8, 8> other;
                simdgroup_load(other, tile + 8 * j * (kDim + 4) + 8 * d, kDim + 4, ulong2(0, 0), true);
                simdgroup_multiply_accumulate(sum, rows.part[d], other, sum);
            }
        }
        simdgroup_store(sum, to + 8 * j, kRows);
    }
}

// sums += weights[8, kRows] * tile.
template <typename T, uint kDim, uint kRows>
inline void accumulate(thread Sums<kDim>& sums, threadgroup const T* weights, threadgroup const T* tile, uint dim)
{
    for (uint j = 0; j < kRows / 8; ++j) {
        simdgroup_matrix<T, 8, 8> w;
        simdgroup_load(w, weights + 8 * j, kRows);
        for (uint d = 0; d < kDim / 8; ++d) {
            if (8 * d < dim) {
                simdgroup_matrix<T, 8, 8> other;
                simdgroup_load(other, tile + 8 * j * (kDim + 4) + 8 * d, kDim + 4);
                simdgroup_multiply_accumulate(sums.part[d], w, other, sums.part[d]);
            }
        }
    }
}

// Multiplies row r of sums by the factor that lanes 4r to 4r + 3 give.
template <uint kDim>
inline void scale_rows(thread Sums<kDim>& sums, float factor, threadgroup float* scratch, uint lane, uint dim)
{
    simdgroup_barrier(mem_flags::mem_threadgroup);
    for (uint e = lane; e < 64; e += 32) {
        const float f = simd_shuffle(factor, ushort(e / 8 * 4));
        scratch[e] = e / 8 == e % 8 ? f : 0.0f;
    }
    simdgroup_barrier(mem_flags::mem_threadgroup);
    simdgroup_float8x8 diagonal;
    simdgroup_load(diagonal, scratch, 8);
    for (uint d = 0; d < kDim / 8; ++d) {
        if (8 * d < dim) {
            simdgroup_multiply(sums.part[d], diagonal, sums.part[d]);
        }
    }
    simdgroup_barrier(mem_flags::mem_threadgroup);
}

// Writes the eight rows of a SIMD-group.
template <typename T, uint kDim>
inline void store_rows(thread Sums<kDim>& sums, device T* head, uint stride, uint row, threadgroup float* scratch, uint lane, constant AttentionParams& p)
{
    for (uint d = 0; d < kDim / 8; ++d) {
        if (8 * d < p.headDim) {
            simdgroup_barrier(mem_flags::mem_threadgroup);
            simdgroup_store(sums.part[d], scratch, 8);
            simdgroup_barrier(mem_flags::mem_threadgroup);
            for (uint e = lane; e < 64; e += 32) {
                const uint c = 8 * d + e % 8;
                if (row + e / 8 < p.tokens && c < p.headDim) {
                    head[ulong(row + e / 8) * stride + c] = T(scratch[e]);
                }
            }
        }
    }
}

// A threadgroup computes 32 queries of one head.
template <typename T, uint kDim, uint kRows>
kernel void attention(
    device const T* q [[buffer(0)]],
    device const T* k [[buffer(1)]],
    device const T* v [[buffer(2)]],
    device const int* bounds [[buffer(3)]],
    device T* out [[buffer(4)]],
    device float* lse [[buffer(5)]],
    constant AttentionParams& p [[buffer(6)]],
    uint2 place [[threadgroup_position_in_grid]],
    uint2 position [[thread_position_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint simd [[simdgroup_index_in_threadgroup]])
{
    alignas(16) threadgroup T keys[kRows * (kDim + 4)];
    alignas(16) threadgroup T values[kRows * (kDim + 4)];
    alignas(16) threadgroup float scores[kThreads / 32 * 8 * kRows];
    threadgroup float scratches[kThreads / 32 * 64];
    const uint tid = position.x;
    const uint head = place.y * p.headDim;
    const uint kvHead = place.y / p.shared * p.headDim;
    const uint first = place.x * kBlock;
    const uint row = first + 8 * simd;  // of this SIMD-group
    const uint token = row + lane / 4;  // of this lane, with three others
    threadgroup float* s = scores + simd * 8 * kRows;
    threadgroup T* weights = (threadgroup T*)s; // take the place of scores
    threadgroup float* scratch = scratches + simd * 64;

    Rows<T, kDim> queries;
    load_rows<T, kDim>(queries, keys, q + head, p.qStride, first, p, tid, simd);
    Sums<kDim> sums;
    clear<kDim>(sums);
    float top = kLowest;
    float sum = 0.0f;
    const bool real = token < p.tokens;
    const uint from = real ? first_key(token, bounds, p) : 1;
    const uint last = real ? token : 0;
    const uint end = min(first + kBlock, p.tokens);
    for (uint key = first_key(first, bounds, p); key < end; key += kRows) {
        threadgroup_barrier(mem_flags::mem_threadgroup);
        stage<T, kDim>(keys, kRows, k + kvHead, p.kStride, key, end, p, tid);
        stage<T, kDim>(values, kRows, v + kvHead, p.vStride, key, end, p, tid);
        threadgroup_barrier(mem_flags::mem_threadgroup);
        if (key > row + 7) {
            continue; // above the diagonal of this SIMD-group
        }
        products<T, kDim, kRows>(s, queries, keys, p.headDim);
        simdgroup_barrier(mem_flags::mem_threadgroup);
        float z[kRows / 4];
        float m = top;
        for (uint i = 0; i < kRows / 4; ++i) {
            const uint c = lane % 4 + 4 * i;
            const bool seen = key + c >= from && key + c <= last;
            z[i] = seen ? score(s[lane / 4 * kRows + c], p).x : kLowest;
            m = max(m, z[i]);
        }
        m = max(m, simd_shuffle_xor(m, ushort(1)));
        m = max(m, simd_shuffle_xor(m, ushort(2)));
        const float shrink = exp(top - m);
        if (simd_any(m > top)) {
            scale_rows<kDim>(sums, shrink, scratch, lane, p.headDim);
        }
        simdgroup_barrier(mem_flags::mem_threadgroup); // all scores are read
        sum *= shrink;
        for (uint i = 0; i < kRows / 4; ++i) {
            const float w = z[i] > kLowest ? exp(z[i] - m) : 0.0f;
            sum += w;
            weights[lane / 4 * kRows + lane % 4 + 4 * i] = T(w);
        }
        top = m;
        simdgroup_barrier(mem_flags::mem_threadgroup);
        accumulate<T, kDim, kRows>(sums, weights, values, p.headDim);
    }
    sum += simd_shuffle_xor(sum, ushort(1));
    sum += simd_shuffle_xor(sum, ushort(2));
    scale_rows<kDim>(sums, real ? 1.0f / sum : 0.0f, scratch, lane, p.headDim);
    store_rows<T, kDim>(sums, out + head, p.outStride, row, scratch, lane, p);
    if (real && lane % 4 == 0) {
        lse[ulong(token) * p.lseStride + place.y] = top + log(sum);
    }
}

// The gradient by 32 queries of one head, and delta = the sum of dout * out over
// a head, which the gradient by keys needs too.
template <typename T, uint kDim, uint kRows>
kernel void attention_grad_queries(
    device const T* q [[buffer(0)]],
    device const T* k [[buffer(1)]],
    device const T* v [[buffer(2)]],
    device const int* bounds [[buffer(3)]],
    device const T* out [[buffer(4)]],
    device const float* lse [[buffer(5)]],
    device const T* dout [[buffer(6)]],
    device T* dq [[buffer(7)]],
    device float* delta [[buffer(8)]],
    constant AttentionParams& p [[buffer(9)]],
    uint2 place [[threadgroup_position_in_grid]],
    uint2 position [[thread_position_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint simd [[simdgroup_index_in_threadgroup]])
{
    alignas(16) threadgroup T keys[kRows * (kDim + 4)];
    alignas(16) threadgroup T values[kRows * (kDim + 4)];
    alignas(16) threadgroup float scores[kThreads / 32 * 8 * kRows];
    alignas(16) threadgroup float slopes[kThreads / 32 * 8 * kRows];
    const uint tid = position.x;
    const uint head = place.y * p.headDim;
    const uint kvHead = place.y / p.shared * p.headDim;
    const uint first = place.x * kBlock;
    const uint row = first + 8 * simd;
    const uint token = row + lane / 4;
    threadgroup float* s = scores + simd * 8 * kRows;
    threadgroup float* dp = slopes + simd * 8 * kRows;
    threadgroup T* weights = (threadgroup T*)s;

    Rows<T, kDim> queries;
    load_rows<T, kDim>(queries, keys, q + head, p.qStride, first, p, tid, simd);
    Rows<T, kDim> douts;
    load_rows<T, kDim>(douts, keys, dout + head, p.doutStride, first, p, tid, simd);
    Sums<kDim> sums;
    clear<kDim>(sums);
    const bool real = token < p.tokens;
    const uint from = real ? first_key(token, bounds, p) : 1;
    const uint last = real ? token : 0;
    const uint end = min(first + kBlock, p.tokens);
    const float log_sum = real ? lse[ulong(token) * p.lseStride + place.y] : 0.0f;
    float d = 0.0f;
    if (real) {
        for (uint c = lane % 4; c < p.headDim; c += 4) {
            d = fma(float(dout[ulong(token) * p.doutStride + head + c]), float(out[ulong(token) * p.outStride + head + c]), d);
        }
    }
    d += simd_shuffle_xor(d, ushort(1));
    d += simd_shuffle_xor(d, ushort(2));
    if (real && lane % 4 == 0) {
        delta[ulong(token) * p.deltaStride + place.y] = d;
    }
    for (uint key = first_key(first, bounds, p); key < end; key += kRows) {
        threadgroup_barrier(mem_flags::mem_threadgroup);
        stage<T, kDim>(keys, kRows, k + kvHead, p.kStride, key, end, p, tid);
        stage<T, kDim>(values, kRows, v + kvHead, p.vStride, key, end, p, tid);
        threadgroup_barrier(mem_flags::mem_threadgroup);
        if (key > row + 7) {
            continue;
        }
        products<T, kDim, kRows>(s, queries, keys, p.headDim);
        products<T, kDim, kRows>(dp, douts, values, p.headDim);
        simdgroup_barrier(mem_flags::mem_threadgroup);
        float ds[kRows / 4];
        for (uint i = 0; i < kRows / 4; ++i) {
            const uint c = lane % 4 + 4 * i;
            const bool seen = key + c >= from && key + c <= last;
            const float2 z = score(s[lane / 4 * kRows + c], p);
            ds[i] = seen ? exp(z.x - log_sum) * (dp[lane / 4 * kRows + c] - d) * z.y : 0.0f;
        }
        simdgroup_barrier(mem_flags::mem_threadgroup); // all scores are read
        for (uint i = 0; i < kRows / 4; ++i) {
            weights[lane / 4 * kRows + lane % 4 + 4 * i] = T(ds[i]);
        }
        simdgroup_barrier(mem_flags::mem_threadgroup);
        accumulate<T, kDim, kRows>(sums, weights, keys, p.headDim);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    store_rows<T, kDim>(sums, dq + head, p.dqStride, row, s, lane, p);
}

// The gradients by 32 keys and values of one head, over all queries that look at
// them and all query heads that share them, in order.
template <typename T, uint kDim, uint kRows>
kernel void attention_grad_keys(
    device const T* q [[buffer(0)]],
    device const T* k [[buffer(1)]],
    device const T* v [[buffer(2)]],
    device const int* bounds [[buffer(3)]],
    device const float* lse [[buffer(4)]],
    device const T* dout [[buffer(5)]],
    device const float* delta [[buffer(6)]],
    device T* dk [[buffer(7)]],
    device T* dv [[buffer(8)]],
    constant AttentionParams& p [[buffer(9)]],
    uint2 place [[threadgroup_position_in_grid]],
    uint2 position [[thread_position_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint simd [[simdgroup_index_in_threadgroup]])
{
    alignas(16) threadgroup T queries[kRows * (kDim + 4)];
    alignas(16) threadgroup T douts[kRows * (kDim + 4)];
    alignas(16) threadgroup float scores[kThreads / 32 * 8 * kRows];
    alignas(16) threadgroup float slopes[kThreads / 32 * 8 * kRows];
    threadgroup uint firsts[kRows]; // of the queries of a tile
    threadgroup float log_sums[kRows];
    threadgroup float deltas[kRows];
    const uint tid = position.x;
    const uint kvHead = place.y * p.headDim;
    const uint first = place.x * kBlock;
    const uint row = first + 8 * simd;
    const uint key = row + lane / 4;
    threadgroup float* s = scores + simd * 8 * kRows;
    threadgroup float* dp = slopes + simd * 8 * kRows;
    threadgroup T* weights = (threadgroup T*)s;
    threadgroup T* changes = (threadgroup T*)dp;

    Rows<T, kDim> keys;
    load_rows<T, kDim>(keys, queries, k + kvHead, p.kStride, first, p, tid, simd);
    Rows<T, kDim> values;
    load_rows<T, kDim>(values, queries, v + kvHead, p.vStride, first, p, tid, simd);
    Sums<kDim> dkeys;
    clear<kDim>(dkeys);
    Sums<kDim> dvalues;
    clear<kDim>(dvalues);

    const uint newest = min(first + kBlock, p.tokens) - 1;
    uint end = uint(bounds[sequence_of(newest, bounds, p) + 1]); // of the queries that see any of these keys
    if (p.window > 0) {
        end = min(end, newest + p.window);
    }
    for (uint h = place.y * p.shared; h < (place.y + 1) * p.shared; ++h) {
        for (uint query = first; query < end; query += kRows) {
            threadgroup_barrier(mem_flags::mem_threadgroup);
            stage<T, kDim>(queries, kRows, q + h * p.headDim, p.qStride, query, end, p, tid);
            stage<T, kDim>(douts, kRows, dout + h * p.headDim, p.doutStride, query, end, p, tid);
            if (tid < kRows) {
                const uint token = query + tid;
                firsts[tid] = token < end ? first_key(token, bounds, p) : p.tokens;
                log_sums[tid] = token < end ? lse[ulong(token) * p.lseStride + h] : 0.0f;
                deltas[tid] = token < end ? delta[ulong(token) * p.deltaStride + h] : 0.0f;
            }
            threadgroup_barrier(mem_flags::mem_threadgroup);
            products<T, kDim, kRows>(s, keys, queries, p.headDim);
            products<T, kDim, kRows>(dp, values, douts, p.headDim);
            simdgroup_barrier(mem_flags::mem_threadgroup);
            float w[kRows / 4];
            float ds[kRows / 4];
            for (uint i = 0; i < kRows / 4; ++i) {
                const uint c = lane % 4 + 4 * i;
                const bool seen = key >= firsts[c] && key <= query + c;
                const float2 z = score(s[lane / 4 * kRows + c], p);
                w[i] = seen ? exp(z.x - log_sums[c]) : 0.0f;
                ds[i] = seen ? w[i] * (dp[lane / 4 * kRows + c] - deltas[c]) * z.y : 0.0f;
            }
            simdgroup_barrier(mem_flags::mem_threadgroup); // all scores are read
            for (uint i = 0; i < kRows / 4; ++i) {
                const uint at = lane / 4 * kRows + lane % 4 + 4 * i;
                weights[at] = T(w[i]);
                changes[at] = T(ds[i]);
            }
            simdgroup_barrier(mem_flags::mem_threadgroup);
            accumulate<T, kDim, kRows>(dvalues, weights, douts, p.headDim);
            accumulate<T, kDim, kRows>(dkeys, changes, queries, p.headDim);
        }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    store_rows<T, kDim>(dkeys, dk + kvHead, p.dkStride, row, s, lane, p);
    store_rows<T, kDim>(dvalues, dv + kvHead, p.dvStride, row, s, lane, p);
}

template [[host_name("attention_32_f32")]] kernel decltype(attention<float, 32, 32>) attention<float, 32, 32>;
template [[host_name("attention_32_f16")]] kernel decltype(attention<half, 32, 32>) attention<half, 32, 32>;
template [[host_name("attention_32_bf16")]] kernel decltype(attention<bfloat, 32, 32>) attention<bfloat, 32, 32>;
template [[host_name("attention_64_f32")]] kernel decltype(attention<float, 64, 32>) attention<float, 64, 32>;
template [[host_name("attention_64_f16")]] kernel decltype(attention<half, 64, 32>) attention<half, 64, 32>;
template [[host_name("attention_64_bf16")]] kernel decltype(attention<bfloat, 64, 32>) attention<bfloat, 64, 32>;
template [[host_name("attention_128_f32")]] kernel decltype(attention<float, 128, 16>) attention<float, 128, 16>;
template [[host_name("attention_128_f16")]] kernel decltype(attention<half, 128, 16>) attention<half, 128, 16>;
template [[host_name("attention_128_bf16")]] kernel decltype(attention<bfloat, 128, 16>) attention<bfloat, 128, 16>;
template [[host_name("attention_256_f32")]] kernel decltype(attention<float, 256, 8>) attention<float, 256, 8>;
template [[host_name("attention_256_f16")]] kernel decltype(attention<half, 256, 8>) attention<half, 256, 8>;
template [[host_name("attention_256_bf16")]] kernel decltype(attention<bfloat, 256, 8>) attention<bfloat, 256, 8>;
template [[host_name("attention_grad_queries_32_f32")]] kernel decltype(attention_grad_queries<float, 32, 32>) attention_grad_queries<float, 32, 32>;
template [[host_name("attention_grad_queries_32_f16")]] kernel decltype(attention_grad_queries<half, 32, 32>) attention_grad_queries<half, 32, 32>;
template [[host_name("attention_grad_queries_32_bf16")]] kernel decltype(attention_grad_queries<bfloat, 32, 32>) attention_grad_queries<bfloat, 32, 32>;
template [[host_name("attention_grad_queries_64_f32")]] kernel decltype(attention_grad_queries<float, 64, 32>) attention_grad_queries<float, 64, 32>;
template [[host_name("attention_grad_queries_64_f16")]] kernel decltype(attention_grad_queries<half, 64, 32>) attention_grad_queries<half, 64, 32>;
template [[host_name("attention_grad_queries_64_bf16")]] kernel decltype(attention_grad_queries<bfloat, 64, 32>) attention_grad_queries<bfloat, 64, 32>;
template [[host_name("attention_grad_queries_128_f32")]] kernel decltype(attention_grad_queries<float, 128, 16>) attention_grad_queries<float, 128, 16>;
template [[host_name("attention_grad_queries_128_f16")]] kernel decltype(attention_grad_queries<half, 128, 16>) attention_grad_queries<half, 128, 16>;
template [[host_name("attention_grad_queries_128_bf16")]] kernel decltype(attention_grad_queries<bfloat, 128, 16>) attention_grad_queries<bfloat, 128, 16>;
template [[host_name("attention_grad_queries_256_f32")]] kernel decltype(attention_grad_queries<float, 256, 8>) attention_grad_queries<float, 256, 8>;
template [[host_name("attention_grad_queries_256_f16")]] kernel decltype(attention_grad_queries<half, 256, 8>) attention_grad_queries<half, 256, 8>;
template [[host_name("attention_grad_queries_256_bf16")]] kernel decltype(attention_grad_queries<bfloat, 256, 8>) attention_grad_queries<bfloat, 256, 8>;
template [[host_name("attention_grad_keys_32_f32")]] kernel decltype(attention_grad_keys<float, 32, 32>) attention_grad_keys<float, 32, 32>;
template [[host_name("attention_grad_keys_32_f16")]] kernel decltype(attention_grad_keys<half, 32, 32>) attention_grad_keys<half, 32, 32>;
template [[host_name("attention_grad_keys_32_bf16")]] kernel decltype(attention_grad_keys<bfloat, 32, 32>) attention_grad_keys<bfloat, 32, 32>;
template [[host_name("attention_grad_keys_64_f32")]] kernel decltype(attention_grad_keys<float, 64, 32>) attention_grad_keys<float, 64, 32>;
template [[host_name("attention_grad_keys_64_f16")]] kernel decltype(attention_grad_keys<half, 64, 32>) attention_grad_keys<half, 64, 32>;
template [[host_name("attention_grad_keys_64_bf16")]] kernel decltype(attention_grad_keys<bfloat, 64, 32>) attention_grad_keys<bfloat, 64, 32>;
template [[host_name("attention_grad_keys_128_f32")]] kernel decltype(attention_grad_keys<float, 128, 16>) attention_grad_keys<float, 128, 16>;
template [[host_name("attention_grad_keys_128_f16")]] kernel decltype(attention_grad_keys<half, 128, 16>) attention_grad_keys<half, 128, 16>;
template [[host_name("attention_grad_keys_128_bf16")]] kernel decltype(attention_grad_keys<bfloat, 128, 16>) attention_grad_keys<bfloat, 128, 16>;
template [[host_name("attention_grad_keys_256_f32")]] kernel decltype(attention_grad_keys<float, 256, 8>) attention_grad_keys<float, 256, 8>;
template [[host_name("attention_grad_keys_256_f16")]] kernel decltype(attention_grad_keys<half, 256, 8>) attention_grad_keys<half, 256, 8>;
template [[host_name("attention_grad_keys_256_bf16")]] kernel decltype(attention_grad_keys<bfloat, 256, 8>) attention_grad_keys<bfloat, 256, 8>;
