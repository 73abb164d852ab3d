// Sums of matrix products, out = add + bias + sum of scale * X * W', several
// outputs in one launch. A linear layer with a low-rank adapter is one output of
// two terms, (X, W) and (U, B): the loop over the depth goes on from one pair
// to the next, so the adapter costs no pass of its own.
#include "operands.h"

struct ProductTerm {
    uint x; // number of the input that holds X
    uint w;
    uint xType;
    uint wType;
    uint xStride;
    uint wStride;
    uint depth;
    uint xAcross; // X is stored [depth, rows], else [rows, depth]
    uint wAcross; // W is stored [depth, cols], else [cols, depth]
    uint xAligned; // rows start at multiples of 16 bytes
    uint wAligned;
    float scale;
};

struct ProductOutput {
    uint rows;
    uint cols;
    uint firstTile;
    uint tilesAcross;
    uint firstTerm;
    uint terms;
    uint outType;
    uint outStride;
    uint add; // 0: none, 1: out itself, else 2 + the number of an input
    uint addType;
    uint addStride;
    uint bias; // 0: none, else 1 + the number of an input
    uint biasType;
};

struct ProductsParams {
    uint outputs;
    ProductOutput output[8];
    ProductTerm term[8];
};

// Threads of a threadgroup: four SIMD-groups, each with a quarter of the tile.
constant uint kThreads = 128;
// Elements of a staged tile: kSide rows of kDepth columns or the other way
// round, rows 4 elements further apart so that they start in different banks.
constant uint kTile = 1280;

// Stages the height x width patch of a stored matrix at (row, col), zeros
// outside of rows x cols, height * width being 8 elements a thread.
template <typename T>
inline void stage(
    threadgroup T* tile, uint width, device const uchar* from, uint type, bool aligned, uint stride,
    uint row, uint rows, uint col, uint cols, float scale, uint tid)
{
    using T4 = vec<T, 4>;
    const uint r = tid / (width / 8);
    const uint c = tid % (width / 8) * 8;
    float v[8];
    const ulong at = ulong(row + r) * stride + col + c;
    if (row + r < rows && col + c + 8 <= cols) {
        load8(v, from, type, aligned, at);
    } else {
        for (uint i = 0; i < 8; ++i) {
            v[i] = row + r < rows && col + c + i < cols ? load1(from, type, at + i) : 0.0f;
        }
    }
    threadgroup T4* to = (threadgroup T4*)(tile + r * (width + 4) + c);
    to[0] = T4(scale * float4(v[0], v[1], v[2], v[3]));
    to[1] = T4(scale * float4(v[4], v[5], v[6], v[7]));
}

// One fragment of a staged tile: 8 of its kSide lines from line on, at depth d.
template <typename T, uint kSide, uint kDepth>
inline void load_fragment(thread simdgroup_matrix<T, 8, 8>& f, threadgroup const T* tile, bool across, bool transposed, uint line, uint d)
{
    threadgroup const T* at = across ? tile + d * (kSide + 4) + line : tile + line * (kDepth + 4) + d;
    const ulong pitch = across ? kSide + 4 : kDepth + 4;
    if (across != transposed) {
        simdgroup_load(f, at, pitch, ulong2(0, 0), true);
    } else {
        simdgroup_load(f, at, pitch, ulong2(0, 0), false);
    }
}

inline uint output_of(uint tile, constant ProductsParams& p)
{
    uint o = 0;
    while (o + 1 < p.outputs && tile >= p.output[o + 1].firstTile) {
        ++o;
    }
    return o;
}

// A threadgroup computes a kSide x kSide tile of one output, kDepth deep at a
// time; kSide * kDepth is 8 elements a thread.
template <typename T, uint kSide, uint kDepth>
kernel void products(
    device const uchar* in0 [[buffer(0)]],
    device const uchar* in1 [[buffer(1)]],
    device const uchar* in2 [[buffer(2)]],
    device const uchar* in3 [[buffer(3)]],
    device const uchar* in4 [[buffer(4)]],
    device const uchar* in5 [[buffer(5)]],
    device const uchar* in6 [[buffer(6)]],
    device const uchar* in7 [[buffer(7)]],
    device const uchar* in8 [[buffer(8)]],
    device const uchar* in9 [[buffer(9)]],
    device const uchar* in10 [[buffer(10)]],
    device const uchar* in11 [[buffer(11)]],
    device const uchar* in12 [[buffer(12)]],
    device const uchar* in13 [[buffer(13)]],
    device const uchar* in14 [[buffer(14)]],
    device const uchar* in15 [[buffer(15)]],
    device const uchar* in16 [[buffer(16)]],
    device const uchar* in17 [[buffer(17)]],
    device uchar* out0 [[buffer(18)]],
    device uchar* out1 [[buffer(19)]],
    device uchar* out2 [[buffer(20)]],
    device uchar* out3 [[buffer(21)]],
    device uchar* out4 [[buffer(22)]],
    device uchar* out5 [[buffer(23)]],
    device uchar* out6 [[buffer(24)]],
    device uchar* out7 [[buffer(25)]],
    constant ProductsParams& p [[buffer(26)]],
    uint tile [[threadgroup_position_in_grid]],
    uint tid [[thread_position_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint simd [[simdgroup_index_in_threadgroup]])
{
    static_assert(kSide * kDepth == 8 * kThreads && kSide * (kDepth + 4) <= kTile && kDepth * (kSide + 4) <= kTile, "tiles do not fit");
    alignas(16) threadgroup T xs[kTile];
    alignas(16) threadgroup T ws[kTile];
    threadgroup float parts[kThreads / 32 * 64];
    device const uchar* const ins[18] = {in0, in1, in2, in3, in4, in5, in6, in7, in8, in9, in10, in11, in12, in13, in14, in15, in16, in17};
    device uchar* const outs[8] = {out0, out1, out2, out3, out4, out5, out6, out7};
    constexpr uint kFragments = kSide / 16; // of a SIMD-group, along each side

    const uint index = output_of(tile, p);
    constant ProductOutput& o = p.output[index];
    const uint row = (tile - o.firstTile) / o.tilesAcross * kSide;
    const uint col = (tile - o.firstTile) % o.tilesAcross * kSide;
    const uint partRow = simd / 2 * (kSide / 2);
    const uint partCol = simd % 2 * (kSide / 2);

    simdgroup_float8x8 sums[kFragments][kFragments];
    for (uint i = 0; i < kFragments; ++i) {
        for (uint j = 0; j < kFragments; ++j) {
            sums[i][j] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
        }
    }
    for (uint n = 0; n < o.terms; ++n) {
        constant ProductTerm& t = p.term[o.firstTerm + n];
        const bool xAcross = t.xAcross != 0;
        const bool wAcross = t.wAcross != 0;
        for (uint k = 0; k < t.depth; k += kDepth) {
            if (xAcross) {
                stage<T>(xs, kSide, ins[t.x], t.xType, t.xAligned != 0, t.xStride, k, t.depth, row, o.rows, t.scale, tid);
            } else {
                stage<T>(xs, kDepth, ins[t.x], t.xType, t.xAligned != 0, t.xStride, row, o.rows, k, t.depth, t.scale, tid);
            }
            if (wAcross) {
                stage<T>(ws, kSide, ins[t.w], t.wType, t.wAligned != 0, t.wStride, k, t.depth, col, o.cols, 1.0f, tid);
            } else {
                stage<T>(ws, kDepth, ins[t.w], t.wType, t.wAligned != 0, t.wStride, col, o.cols, k, t.depth, 1.0f, tid);
            }
            threadgroup_barrier(mem_flags::mem_threadgroup);
            for (uint d = 0; d < kDepth; d += 8) {
                simdgroup_matrix<T, 8, 8> x[kFragments];
                simdgroup_matrix<T, 8, 8> w[kFragments];
                for (uint i = 0; i < kFragments; ++i) {
                    load_fragment<T, kSide, kDepth>(x[i], xs, xAcross, false, partRow + 8 * i, d);
                    load_fragment<T, kSide, kDepth>(w[i], ws, wAcross, true, partCol + 8 * i, d);
                }
                for (uint i = 0; i < kFragments; ++i) {
                    for (uint j = 0; j < kFragments; ++j) {
                        simdgroup_multiply_accumulate(sums[i][j], x[i], w[j], sums[i][j]);
                    }
                }
            }
            threadgroup_barrier(mem_flags::mem_threadgroup);
        }
    }

    threadgroup float* part = parts + simd * 64;
    device uchar* out = outs[index];
    for (uint i = 0; i < kFragments; ++i) {
        for (uint j = 0; j < kFragments; ++j) {
            simdgroup_store(sums[i][j], part, 8);
            simdgroup_barrier(mem_flags::mem_threadgroup);
            for (uint e = lane; e < 64; e += 32) {
                const uint r = row + partRow + 8 * i + e / 8;
                const uint c = col + partCol + 8 * j + e % 8;
                if (r >= o.rows || c >= o.cols) {
                    continue;
                }
                float v = part[e];
                if (o.add == 1) {
                    v += load1((device const uchar*)out, o.addType, ulong(r) * o.addStride + c);
                } else if (o.add > 1) {
                    v += load1(ins[o.add - 2], o.addType, ulong(r) * o.addStride + c);
                }
                if (o.bias > 0) {
                    v += load1(ins[o.bias - 1], o.biasType, c);
                }
                store1(out, o.outType, ulong(r) * o.outStride + c, v);
            }
            simdgroup_barrier(mem_flags::mem_threadgroup);
        }
    }
}

template [[host_name("products_64_f32")]] kernel decltype(products<float, 64, 16>) products<float, 64, 16>;
template [[host_name("products_64_f16")]] kernel decltype(products<half, 64, 16>) products<half, 64, 16>;
template [[host_name("products_64_bf16")]] kernel decltype(products<bfloat, 64, 16>) products<bfloat, 64, 16>;
template [[host_name("products_32_f32")]] kernel decltype(products<float, 32, 32>) products<float, 32, 32>;
template [[host_name("products_32_f16")]] kernel decltype(products<half, 32, 32>) products<half, 32, 32>;
template [[host_name("products_32_bf16")]] kernel decltype(products<bfloat, 32, 32>) products<bfloat, 32, 32>;
