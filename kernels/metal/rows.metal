// Looking up, picking and putting back rows.
#include "common.h"
#include "operands.h"

struct RowsParams {
    uint rows; // of the result
    uint cols;
    uint count; // indices
    uint tableType;
    uint fromStride;
    uint toStride;
    float scale;
};

// out[t] = scale * table[tokens[t]].
template <typename T>
kernel void embed(
    device const int* tokens [[buffer(0)]],
    device const uchar* table [[buffer(1)]],
    device T* out [[buffer(2)]],
    constant RowsParams& p [[buffer(3)]],
    uint2 place [[thread_position_in_grid]])
{
    if (place.x < p.cols && place.y < p.rows) {
        const ulong at = ulong(tokens[place.y]) * p.fromStride + place.x;
        out[ulong(place.y) * p.toStride + place.x] = T(p.scale * load1(table, p.tableType, at));
    }
}

// dtable[tokens[t]] += scale * dout[t]. A token's first place adds up all of its
// places, in order; the others do nothing. One threadgroup a place.
template <typename T>
kernel void embed_grad(
    device const int* tokens [[buffer(0)]],
    device const T* dout [[buffer(1)]],
    device float* dtable [[buffer(2)]],
    constant RowsParams& p [[buffer(3)]],
    uint first [[threadgroup_position_in_grid]],
    uint tid [[thread_position_in_threadgroup]],
    uint threads [[threads_per_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint simd [[simdgroup_index_in_threadgroup]],
    uint simds [[simdgroups_per_threadgroup]])
{
    threadgroup float part[32];
    const int token = tokens[first];
    float earlier = 0.0f;
    for (uint t = tid; t < first; t += threads) {
        earlier = tokens[t] == token ? 1.0f : earlier;
    }
    if (group_max(earlier, part, lane, simd, simds) > 0.0f) {
        return;
    }
    for (uint c = tid; c < p.cols; c += threads) {
        float sum = 0.0f;
        for (uint t = first; t < p.count; ++t) {
            if (tokens[t] == token) {
                sum += float(dout[ulong(t) * p.fromStride + c]);
            }
        }
        dtable[ulong(token) * p.toStride + c] += p.scale * sum;
    }
}

// Two operations in one launch: the grid's third dimension says which.
struct RowsPair {
    RowsParams part[2];
};

template <typename T>
inline void pick(device const int* rows, device const T* x, device T* out, constant RowsParams& p, uint row, uint col)
{
    if (col < p.cols && row < p.rows) {
        out[ulong(row) * p.toStride + col] = x[ulong(rows[row]) * p.fromStride + col];
    }
}

// out[n] = x[rows[n]].
template <typename T>
kernel void gather(
    device const int* rows0 [[buffer(0)]],
    device const T* x0 [[buffer(1)]],
    device T* out0 [[buffer(2)]],
    device const int* rows1 [[buffer(3)]],
    device const T* x1 [[buffer(4)]],
    device T* out1 [[buffer(5)]],
    constant RowsPair& p [[buffer(6)]],
    uint3 place [[thread_position_in_grid]])
{
    if (place.z == 0) {
        pick<T>(rows0, x0, out0, p.part[0], place.y, place.x);
    } else {
        pick<T>(rows1, x1, out1, p.part[1], place.y, place.x);
    }
}

// The row of out looks for itself among the indices.
template <typename T>
inline void put_back(device const int* rows, device const T* x, device T* out, constant RowsParams& p, threadgroup uint* found, uint row, uint tid, uint threads, uint lane, uint simd, uint simds)
{
    uint at = 0; // 1 + the index
    for (uint n = tid; n < p.count; n += threads) {
        at = uint(rows[n]) == row ? n + 1 : at;
    }
    at = simd_max(at);
    if (lane == 0) {
        found[simd] = at;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    at = simd_max(lane < simds ? found[lane] : 0u);
    device const T* from = x + ulong(max(at, 1u) - 1) * p.fromStride;
    for (uint c = tid; c < p.cols && row < p.rows; c += threads) {
        out[ulong(row) * p.toStride + c] = at > 0 ? from[c] : T(0.0f);
    }
}

// out[rows[n]] = x[n], and 0 in all other rows. One threadgroup a row of out.
template <typename T>
kernel void scatter(
    device const int* rows0 [[buffer(0)]],
    device const T* x0 [[buffer(1)]],
    device T* out0 [[buffer(2)]],
    device const int* rows1 [[buffer(3)]],
    device const T* x1 [[buffer(4)]],
    device T* out1 [[buffer(5)]],
    constant RowsPair& p [[buffer(6)]],
    uint3 place [[threadgroup_position_in_grid]],
    uint3 position [[thread_position_in_threadgroup]],
    uint3 size [[threads_per_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint simd [[simdgroup_index_in_threadgroup]],
    uint simds [[simdgroups_per_threadgroup]])
{
    threadgroup uint found[32];
    if (place.z == 0) {
        put_back<T>(rows0, x0, out0, p.part[0], found, place.y, position.x, size.x, lane, simd, simds);
    } else {
        put_back<T>(rows1, x1, out1, p.part[1], found, place.y, position.x, size.x, lane, simd, simds);
    }
}

template [[host_name("embed_f32")]] kernel decltype(embed<float>) embed<float>;
template [[host_name("embed_f16")]] kernel decltype(embed<half>) embed<half>;
template [[host_name("embed_bf16")]] kernel decltype(embed<bfloat>) embed<bfloat>;
template [[host_name("embed_grad_f32")]] kernel decltype(embed_grad<float>) embed_grad<float>;
template [[host_name("embed_grad_f16")]] kernel decltype(embed_grad<half>) embed_grad<half>;
template [[host_name("embed_grad_bf16")]] kernel decltype(embed_grad<bfloat>) embed_grad<bfloat>;
template [[host_name("gather_f32")]] kernel decltype(gather<float>) gather<float>;
template [[host_name("gather_f16")]] kernel decltype(gather<half>) gather<half>;
template [[host_name("gather_bf16")]] kernel decltype(gather<bfloat>) gather<bfloat>;
template [[host_name("scatter_f32")]] kernel decltype(scatter<float>) scatter<float>;
template [[host_name("scatter_f16")]] kernel decltype(scatter<half>) scatter<half>;
template [[host_name("scatter_bf16")]] kernel decltype(scatter<bfloat>) scatter<bfloat>;
