// Rotary position embeddings.
#include "common.h"
#include "operands.h"

struct RotaryTableParams {
    uint pairs;
    uint tokens;
    uint outStride;
    float scale;
};

// Cosine and sine of an angle of up to some millions of radians. The angle is
// brought to [-pi/4, pi/4] by multiples of pi/2 in three parts (Cody and Waite,
// 1980), whose products with the count are exact but for the last; the
// polynomials are those of Cephes' sinf and cosf (Moshier).
inline float2 cosine_sine(float angle)
{
    const float turns = rint(angle * 0.636619772f);
    float r = fma(-turns, 1.5703125f, angle);
    r = fma(-turns, 4.837512969970703125e-4f, r);
    r = fma(-turns, 7.549789948768648e-8f, r);
    const float r2 = r * r;
    const float s = fma(r * r2, fma(r2, fma(r2, -1.9515295891e-4f, 8.3321608736e-3f), -1.6666654611e-1f), r);
    const float c = fma(r2 * r2, fma(r2, fma(r2, 2.443315711809948e-5f, -1.388731625493765e-3f), 4.166664568298827e-2f), fma(r2, -0.5f, 1.0f));
    const uint quarter = uint(int(turns)) & 3u;
    const float cosine = (quarter & 1u) != 0 ? s : c;
    const float sine = (quarter & 1u) != 0 ? c : s;
    return float2(quarter == 1 || quarter == 2 ? -cosine : cosine, quarter >= 2 ? -sine : sine);
}

// out[t] = scale * [cos, sin] of position * frequency, both rounded to float.
kernel void rotary_table(
    device const int* positions [[buffer(0)]],
    device const uchar* frequencies [[buffer(1)]], // F64
    device float* out [[buffer(2)]],
    constant RotaryTableParams& p [[buffer(3)]],
    uint2 place [[thread_position_in_grid]])
{
    if (place.x >= p.pairs || place.y >= p.tokens) {
        return;
    }
    const float2 a = cosine_sine(float(positions[place.y]) * load1(frequencies, kF64, place.x));
    device float* row = out + ulong(place.y) * p.outStride;
    row[place.x] = p.scale * a.x;
    row[p.pairs + place.x] = p.scale * a.y;
}

struct RotaryPart {
    uint rows;
    uint heads;
    uint xStride;
    uint outStride;
    uint tableStride;
    uint headDim;
    uint pairs;
    float sign; // -1 turns backwards
};

struct RotaryParams {
    RotaryPart part[2];
};

// Turns the heads of one row of x: element i of a head with element i + pairs.
template <typename T>
inline void rotate(device const T* x, device const float* table, device T* out, constant RotaryPart& p, uint row, uint index)
{
    const uint each = p.headDim - p.pairs; // pairs, then what is copied
    if (row >= p.rows || index >= p.heads * each) {
        return;
    }
    const uint first = index / each * p.headDim;
    const uint i = index % each;
    device const T* from = x + ulong(row) * p.xStride + first;
    device T* to = out + ulong(row) * p.outStride + first;
    if (i >= p.pairs) {
        to[p.pairs + i] = from[p.pairs + i];
        return;
    }
    const float cosine = table[ulong(row) * p.tableStride + i];
    const float sine = p.sign * table[ulong(row) * p.tableStride + p.pairs + i];
    const float a = float(from[i]);
    const float b = float(from[p.pairs + i]);
    to[i] = T(a * cosine - b * sine);
    to[p.pairs + i] = T(b * cosine + a * sine);
}

// Two operations in one launch, as a layer's queries and keys: the grid's third
// dimension says which.
template <typename T>
kernel void rotary(
    device const T* x0 [[buffer(0)]],
    device const float* table0 [[buffer(1)]],
    device T* out0 [[buffer(2)]],
    device const T* x1 [[buffer(3)]],
    device const float* table1 [[buffer(4)]],
    device T* out1 [[buffer(5)]],
    constant RotaryParams& p [[buffer(6)]],
    uint3 place [[thread_position_in_grid]])
{
    if (place.z == 0) {
        rotate<T>(x0, table0, out0, p.part[0], place.y, place.x);
    } else {
        rotate<T>(x1, table1, out1, p.part[1], place.y, place.x);
    }
}

template [[host_name("rotary_f32")]] kernel decltype(rotary<float>) rotary<float>;
template [[host_name("rotary_f16")]] kernel decltype(rotary<half>) rotary<half>;
template [[host_name("rotary_bf16")]] kernel decltype(rotary<bfloat>) rotary<bfloat>;
