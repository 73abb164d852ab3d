// Elements whose type is known only when a kernel runs: frozen weights, which
// keep the type of their file, and the results of products. A type is the
// number that weightType in operands.go gives it.
#pragma once
#include <metal_stdlib>
using namespace metal;

constant uint kF32 = 0;
constant uint kF16 = 1;
constant uint kBF16 = 2;
constant uint kF64 = 3;
constant uint kQ8_0 = 4;
constant uint kQ4_0 = 5;
constant uint kQ4_1 = 6;
constant uint kQ5_0 = 7;
constant uint kQ5_1 = 8;
constant uint kQ4_K = 9;
constant uint kQ5_K = 10;
constant uint kQ6_K = 11;
constant uint kAffine4 = 12;
constant uint kAffine8 = 13;

// The float nearest to the float64 with these bits, ties to even: GPUs have no
// float64.
inline float narrow(ulong bits)
{
    const uint sign = uint(bits >> 32) & 0x80000000u;
    const int exponent = int(bits >> 52 & 0x7ffu) - 1023 + 127;
    ulong fraction = bits & 0xfffffffffffffu;
    if (exponent >= 255) {
        const bool nan = exponent == 2047 - 1023 + 127 && fraction != 0;
        return as_type<float>(sign | 0x7f800000u | (nan ? 0x400000u : 0u));
    }
    uint dropped = 29;
    ulong kept = ulong(max(exponent, 0)) << 23;
    if (exponent <= 0) { // below the normal floats
        fraction |= ulong(1) << 52;
        dropped = uint(min(30 - exponent, 60));
    }
    kept += fraction >> dropped;
    const ulong rest = fraction & ((ulong(1) << dropped) - 1);
    const ulong tie = ulong(1) << (dropped - 1);
    if (rest > tie || (rest == tie && (kept & 1) != 0)) {
        ++kept; // a carry goes into the exponent, as it should
    }
    return as_type<float>(sign | uint(kept));
}

// Element index of F64, by words: it may begin at any multiple of four bytes.
inline float narrow_at(device const uchar* from, ulong index)
{
    device const uint* words = (device const uint*)from + 2 * index;
    return narrow(ulong(words[1]) << 32 | ulong(words[0]));
}

inline float half_at(device const uchar* p) { return float(*(device const half*)p); }
inline float signed_byte(uchar b) { return float(as_type<char>(b)); }

// Scale and offset of a group of 32 elements of Q4_K and Q5_K: six bits each,
// packed into twelve bytes behind the scale and the offset of the block.
inline float2 scale_of_k(device const uchar* block, uint group)
{
    device const uchar* packed = block + 4;
    uint scale = packed[group] & 63u;
    uint least = packed[group + 4] & 63u;
    if (group >= 4) {
        scale = (packed[group + 4] & 15u) | uint(packed[group - 4] >> 6) << 4;
        least = uint(packed[group + 4] >> 4) | uint(packed[group] >> 6) << 4;
    }
    return float2(half_at(block) * float(scale), half_at(block + 2) * float(least));
}

// Eight elements of a block of 32: scale * q + offset, with q four bits of
// nibbles and, where there are fifth bits, one of high.
inline void load8_nibbles(thread float* v, device const uchar* nibbles, uint high, uint at, float scale, float offset)
{
    for (uint i = 0; i < 8; ++i) {
        const uint b = nibbles[(at + i) % 16];
        const uint q = (at < 16 ? b & 15u : b >> 4) | (high >> (at + i) & 1u) << 4;
        v[i] = scale * float(q) + offset;
    }
}

inline uint word_at(device const uchar* p) { return uint(p[0]) | uint(p[1]) << 8 | uint(p[2]) << 16 | uint(p[3]) << 24; }

// Elements index to index + 7 of a quantised matrix; index is a multiple of 8.
inline void load8_blocks(thread float* v, device const uchar* from, uint type, ulong index)
{
    const uint at = uint(index % 32); // in a block of the small types, or a group of the others
    const ulong small = index / 32;
    const uint group = uint(small % 8);
    if (type == kQ8_0) {
        device const uchar* block = from + small * 34;
        const float scale = half_at(block);
        for (uint i = 0; i < 8; ++i) {
            v[i] = scale * signed_byte(block[2 + at + i]);
        }
    } else if (type == kQ4_0) {
        device const uchar* block = from + small * 18;
        load8_nibbles(v, block + 2, 0, at, half_at(block), -8.0f * half_at(block));
    } else if (type == kQ4_1) {
        device const uchar* block = from + small * 20;
        load8_nibbles(v, block + 4, 0, at, half_at(block), half_at(block + 2));
    } else if (type == kQ5_0) {
        device const uchar* block = from + small * 22;
        load8_nibbles(v, block + 6, word_at(block + 2), at, half_at(block), -16.0f * half_at(block));
    } else if (type == kQ5_1) {
        device const uchar* block = from + small * 24;
        load8_nibbles(v, block + 8, word_at(block + 4), at, half_at(block), half_at(block + 2));
    } else if (type == kAffine4 || type == kAffine8) {
        const bool four = type == kAffine4;
        device const uchar* block = from + small * (four ? 24 : 40);
        const float scale = ((device const float*)block)[0];
        const float offset = ((device const float*)block)[1];
        for (uint i = 0; i < 8; ++i) {
            const uint b = block[8 + (four ? (at + i) / 2 : at + i)];
            v[i] = scale * float(four ? b >> ((at + i) % 2 * 4) & 15u : b) + offset;
        }
    } else if (type == kQ6_K) {
        device const uchar* block = from + index / 256 * 210;
        const uint part = group / 4; // of 128 elements
        const uint quarter = group % 4;
        const float scale = half_at(block + 208) * signed_byte(block[192 + part * 8 + quarter * 2 + at / 16]);
        for (uint i = 0; i < 8; ++i) {
            const uint low = uint(block[part * 64 + quarter % 2 * 32 + at + i]) >> (quarter / 2 * 4) & 15u;
            const uint high = uint(block[128 + part * 32 + at + i]) >> (quarter * 2) & 3u;
            v[i] = scale * (float(low | high << 4) - 32.0f);
        }
    } else {
        const bool five = type == kQ5_K;
        device const uchar* block = from + index / 256 * (five ? 176 : 144);
        device const uchar* low = block + (five ? 48 : 16) + group / 2 * 32;
        const float2 scale = scale_of_k(block, group);
        for (uint i = 0; i < 8; ++i) {
            uint q = uint(low[at + i]) >> (group % 2 * 4) & 15u;
            if (five) {
                q |= (uint(block[16 + at + i]) >> group & 1u) << 4;
            }
            v[i] = scale.x * float(q) - scale.y;
        }
    }
}

// Elements index to index + 7. aligned: they start at a multiple of 16 bytes;
// of a quantised matrix index is a multiple of 8.
inline void load8(thread float* v, device const uchar* from, uint type, bool aligned, ulong index)
{
    if (type == kF32) {
        device const float* p = (device const float*)from + index;
        if (aligned) {
            const float4 a = *(device const float4*)p;
            const float4 b = *(device const float4*)(p + 4);
            for (uint i = 0; i < 4; ++i) {
                v[i] = a[i];
                v[4 + i] = b[i];
            }
        } else {
            for (uint i = 0; i < 8; ++i) {
                v[i] = p[i];
            }
        }
    } else if (type == kF16) {
        device const half* p = (device const half*)from + index;
        if (aligned) {
            const half4 a = *(device const half4*)p;
            const half4 b = *(device const half4*)(p + 4);
            for (uint i = 0; i < 4; ++i) {
                v[i] = float(a[i]);
                v[4 + i] = float(b[i]);
            }
        } else {
            for (uint i = 0; i < 8; ++i) {
                v[i] = float(p[i]);
            }
        }
    } else if (type == kBF16) { // by their bits, which load as vectors everywhere
        device const ushort* p = (device const ushort*)from + index;
        if (aligned) {
            const ushort4 a = *(device const ushort4*)p;
            const ushort4 b = *(device const ushort4*)(p + 4);
            for (uint i = 0; i < 4; ++i) {
                v[i] = as_type<float>(uint(a[i]) << 16);
                v[4 + i] = as_type<float>(uint(b[i]) << 16);
            }
        } else {
            for (uint i = 0; i < 8; ++i) {
                v[i] = as_type<float>(uint(p[i]) << 16);
            }
        }
    } else if (type == kF64) {
        for (uint i = 0; i < 8; ++i) {
            v[i] = narrow_at(from, index + i);
        }
    } else {
        load8_blocks(v, from, type, index);
    }
}

// Element index.
inline float load1(device const uchar* from, uint type, ulong index)
{
    if (type == kF32) {
        return ((device const float*)from)[index];
    }
    if (type == kF16) {
        return float(((device const half*)from)[index]);
    }
    if (type == kBF16) {
        return as_type<float>(uint(((device const ushort*)from)[index]) << 16);
    }
    if (type == kF64) {
        return narrow_at(from, index);
    }
    float v[8];
    load8_blocks(v, from, type, index / 8 * 8);
    return v[index % 8];
}

// Stores element index of a matrix of F32, F16 or BF16.
inline void store1(device uchar* to, uint type, ulong index, float v)
{
    if (type == kF32) {
        ((device float*)to)[index] = v;
    } else if (type == kF16) {
        ((device half*)to)[index] = half(v);
    } else {
        ((device bfloat*)to)[index] = bfloat(v);
    }
}
