// Metal on the CPU: kernels compiled as C++, threads as fibers (runtime.cpp).
// With MSL_CHECK every access to memory is seen by the runtime.
#pragma once
#include <stddef.h>
#include <stdint.h>

#define MSL_M1(f, g) static inline float msl_m_##f(float a) { return g(a); }
MSL_M1(exp, __builtin_expf) MSL_M1(exp2, __builtin_exp2f) MSL_M1(log, __builtin_logf)
MSL_M1(log2, __builtin_log2f) MSL_M1(sqrt, __builtin_sqrtf) MSL_M1(rsqrt, 1.0f / __builtin_sqrtf)
MSL_M1(tanh, __builtin_tanhf) MSL_M1(sin, __builtin_sinf) MSL_M1(cos, __builtin_cosf)
MSL_M1(floor, __builtin_floorf) MSL_M1(ceil, __builtin_ceilf) MSL_M1(rint, __builtin_rintf)
MSL_M1(trunc, __builtin_truncf) MSL_M1(fabs, __builtin_fabsf)
#undef MSL_M1
static inline float msl_m_pow(float a, float b) { return __builtin_powf(a, b); }
static inline float msl_m_fmin(float a, float b) { return __builtin_fminf(a, b); }
static inline float msl_m_fmax(float a, float b) { return __builtin_fmaxf(a, b); }
static inline float msl_m_fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }

static inline float msl_h2f(unsigned short h)
{
    _Float16 v;
    __builtin_memcpy(&v, &h, 2);
    return float(v);
}
static inline unsigned short msl_f2h(float f)
{
    _Float16 v = _Float16(f);
    unsigned short h;
    __builtin_memcpy(&h, &v, 2);
    return h;
}
static inline float msl_b2f(unsigned short b)
{
    unsigned u = unsigned(b) << 16;
    float f;
    __builtin_memcpy(&f, &u, 4);
    return f;
}
static inline unsigned short msl_f2b(float f) // round to nearest even
{
    unsigned u;
    __builtin_memcpy(&u, &f, 4);
    if ((u & 0x7fffffff) > 0x7f800000) return (unsigned short)(u >> 16 | 0x40);
    return (unsigned short)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;
typedef unsigned long ulong;

#include "msl_types.h"
#include "msl_runtime.h"

// The emulator's own memory is not the kernel's: no checks there.
#define MSL_RAW __attribute__((no_sanitize("thread")))
#define MSL_IN __attribute__((always_inline)) // so that errors name the kernel's line
#define MSL_HERE msl_place here = msl_here() // a default argument: where the call is
constexpr msl_place msl_here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) { return msl_place{file, line}; }

namespace metal {

inline void threadgroup_barrier(mem_flags f, MSL_HERE) { msl_rt_barrier(int(f), here); }
inline void simdgroup_barrier(mem_flags f, MSL_HERE) { msl_rt_simd_barrier(int(f), here); }

template <typename T> MSL_RAW inline T msl_slot(const unsigned char* slots, unsigned lane)
{
    static_assert(sizeof(T) <= MSL_SLOT, "too large for a SIMD-group operation");
    T v;
    __builtin_memcpy(&v, slots + lane * MSL_SLOT, sizeof(T));
    return v;
}

// Reductions run as a butterfly over the lanes. The last lane to come does it
// for all, and leaves the result in slot 0.
template <typename Op, typename T> MSL_RAW inline void msl_fold(unsigned char* slots, unsigned lanes)
{
    T r[32];
    for (unsigned i = 0; i < lanes; ++i) r[i] = msl_slot<T>(slots, i);
    for (unsigned d = 16; d; d /= 2)
        for (unsigned i = 0; i < d && i + d < lanes; ++i) r[i] = Op::of(r[i], r[i + d]);
    __builtin_memcpy(slots, r, sizeof(T));
}
#define MSL_RED(name, kind, expr)                                                       \
    struct msl_op_##name { template <typename T> static inline T of(T a, T b) { return expr; } }; \
    template <typename T> inline T name(T v, MSL_HERE)                                  \
    {                                                                                   \
        return msl_slot<T>(msl_rt_simd(&v, sizeof v, kind, here, msl_fold<msl_op_##name, T>), 0); \
    }
MSL_RED(simd_sum, MSL_SUM, a + b)
MSL_RED(simd_product, MSL_PRODUCT, a * b)
MSL_RED(simd_max, MSL_MAX, max(a, b))
MSL_RED(simd_min, MSL_MIN, min(a, b))
#undef MSL_RED
inline bool simd_any(bool b, MSL_HERE) { return simd_max(int(b), here) != 0; }
inline bool simd_all(bool b, MSL_HERE) { return simd_min(int(b), here) != 0; }

// What lane from gave; one's own where there is no such lane.
template <typename T> MSL_RAW inline T msl_take(T v, unsigned from, int kind, msl_place here)
{
    const unsigned char* slots = msl_rt_simd(&v, sizeof v, kind, here, nullptr);
    return from < msl_rt_lanes() ? msl_slot<T>(slots, from) : v;
}
template <typename T> inline T simd_shuffle_xor(T v, ushort m, MSL_HERE) { return msl_take(v, msl_rt_self()->lane ^ m, MSL_XOR, here); }
template <typename T> inline T simd_shuffle(T v, ushort l, MSL_HERE) { return msl_take(v, l, MSL_SHUFFLE, here); }
template <typename T> inline T simd_shuffle_down(T v, ushort d, MSL_HERE) { return msl_take(v, msl_rt_self()->lane + d, MSL_DOWN, here); }
template <typename T> inline T simd_shuffle_up(T v, ushort d, MSL_HERE) { return msl_take(v, msl_rt_self()->lane - d, MSL_UP, here); }
template <typename T> inline T simd_broadcast(T v, ushort l, MSL_HERE) { return msl_take(v, l, MSL_BROADCAST, here); }
template <typename T> inline T simd_broadcast_first(T v, MSL_HERE) { return msl_take(v, 0, MSL_BROADCAST, here); }
template <typename T> MSL_RAW inline T simd_prefix_exclusive_sum(T v, MSL_HERE)
{
    const unsigned char* slots = msl_rt_simd(&v, sizeof v, MSL_PREFIX, here, nullptr);
    T r = T(0);
    for (unsigned i = 0; i < msl_rt_self()->lane; ++i) r = r + msl_slot<T>(slots, i);
    return r;
}

// 8x8 matrices. The checked build spreads one over the 32 lanes, each with
// columns c and c+1 of row r, so that every access is some lane's and a product
// needs all lanes. The fast builds give lane 0 the whole of it, in float: the
// same sums in the same order, and no lane waits for another.
#ifdef MSL_CHECK
template <typename T, int C = 8, int R = 8> struct simdgroup_matrix {
    static_assert(C == 8 && R == 8, "simdgroup matrices are 8x8");
    T msl_e[2];
    simdgroup_matrix() = default;
    explicit simdgroup_matrix(T v) : msl_e{v, v} {}
};
inline ulong msl_row() { return msl_rt_self()->lane / 4; }
inline ulong msl_col() { return msl_rt_self()->lane % 4 * 2; }
template <typename T> MSL_IN inline void simdgroup_load(simdgroup_matrix<T>& m, const T* p, ulong ld = 8, ulong2 at = ulong2(0), bool trans = false)
{
    const ulong r = msl_row(), c = msl_col();
    for (ulong i = 0; i < 2; ++i) m.msl_e[i] = trans ? p[(at.y + c + i) * ld + at.x + r] : p[(at.y + r) * ld + at.x + c + i];
}
template <typename T> MSL_IN inline void simdgroup_store(simdgroup_matrix<T> m, T* p, ulong ld = 8, ulong2 at = ulong2(0), bool trans = false)
{
    const ulong r = msl_row(), c = msl_col();
    for (ulong i = 0; i < 2; ++i) (trans ? p[(at.y + c + i) * ld + at.x + r] : p[(at.y + r) * ld + at.x + c + i]) = m.msl_e[i];
}
template <typename D, typename A, typename B, typename E>
inline void simdgroup_multiply_accumulate(simdgroup_matrix<D>& d, simdgroup_matrix<A> a, simdgroup_matrix<B> b, simdgroup_matrix<E> c, MSL_HERE)
{
    const float in[6] = {float(a.msl_e[0]), float(a.msl_e[1]), float(b.msl_e[0]), float(b.msl_e[1]), float(c.msl_e[0]), float(c.msl_e[1])};
    const unsigned char* slots = msl_rt_simd(in, sizeof in, MSL_PRODUCT_8X8, here, msl_rt_product);
    for (unsigned i = 0; i < 2; ++i) d.msl_e[i] = D(msl_slot<float>(slots + 4 * i, msl_rt_self()->lane));
}
#else
template <typename T, int C = 8, int R = 8> struct simdgroup_matrix {
    static_assert(C == 8 && R == 8, "simdgroup matrices are 8x8");
    float msl_e[64];
    simdgroup_matrix() = default;
    explicit simdgroup_matrix(T v)
    {
        if (msl_rt_self()->lane == 0)
            for (float& e : msl_e) e = float(v);
    }
};
template <typename T> inline void simdgroup_load(simdgroup_matrix<T>& m, const T* p, ulong ld = 8, ulong2 at = ulong2(0), bool trans = false)
{
    if (msl_rt_self()->lane != 0) return;
    p += at.y * ld + at.x;
    const ulong row = trans ? 1 : ld, col = trans ? ld : 1;
    for (ulong r = 0; r < 8; ++r)
        for (ulong c = 0; c < 8; ++c) m.msl_e[r * 8 + c] = float(p[r * row + c * col]);
}
template <typename T> inline void simdgroup_store(const simdgroup_matrix<T>& m, T* p, ulong ld = 8, ulong2 at = ulong2(0), bool trans = false)
{
    if (msl_rt_self()->lane != 0) return;
    p += at.y * ld + at.x;
    const ulong row = trans ? 1 : ld, col = trans ? ld : 1;
    for (ulong r = 0; r < 8; ++r)
        for (ulong c = 0; c < 8; ++c) p[r * row + c * col] = T(m.msl_e[r * 8 + c]);
}
template <typename D, typename A, typename B, typename E>
inline void simdgroup_multiply_accumulate(simdgroup_matrix<D>& d, const simdgroup_matrix<A>& a, const simdgroup_matrix<B>& b, const simdgroup_matrix<E>& c)
{
    typedef float row __attribute__((vector_size(32)));
    if (msl_rt_self()->lane != 0) return;
    row br[8];
    __builtin_memcpy(br, b.msl_e, sizeof br);
    for (unsigned i = 0; i < 8; ++i) {
        row sum;
        __builtin_memcpy(&sum, c.msl_e + i * 8, sizeof sum);
        for (unsigned k = 0; k < 8; ++k) sum += a.msl_e[i * 8 + k] * br[k];
        for (unsigned j = 0; j < 8; ++j) d.msl_e[i * 8 + j] = float(D(sum[j]));
    }
}
#endif
template <typename D, typename A, typename B>
inline void simdgroup_multiply(simdgroup_matrix<D>& d, simdgroup_matrix<A> a, simdgroup_matrix<B> b)
{
    simdgroup_multiply_accumulate(d, a, b, simdgroup_matrix<D>(D(0.0f)));
}
typedef simdgroup_matrix<float> simdgroup_float8x8;
typedef simdgroup_matrix<half> simdgroup_half8x8;
typedef simdgroup_matrix<bfloat> simdgroup_bfloat8x8;
template <typename T, int C, int R> inline simdgroup_matrix<T, C, R> make_filled_simdgroup_matrix(T v) { return simdgroup_matrix<T, C, R>(v); }

// Atomics: relaxed only, as Metal has them, of 4 bytes.
template <typename T> struct atomic { T msl_v; };
typedef atomic<int> atomic_int;
typedef atomic<uint> atomic_uint;
#define MSL_AT(name, expr)                                                              \
    template <typename T> MSL_IN inline T name(volatile atomic<T>* p, typename msl_same<T>::type b, memory_order) \
    {                                                                                   \
        T a = as_type<T>(msl_rt_atomic_load((const void*)p));                           \
        for (;;) {                                                                      \
            const T was = as_type<T>(msl_rt_atomic_swap((void*)p, as_type<uint>(a), as_type<uint>(T(expr)))); \
            if (was == a) return a;                                                     \
            a = was;                                                                    \
        }                                                                               \
    }
MSL_AT(atomic_fetch_add_explicit, a + b)
MSL_AT(atomic_fetch_max_explicit, max(a, b))
MSL_AT(atomic_exchange_explicit, b)
#undef MSL_AT
template <typename T> MSL_IN inline void atomic_store_explicit(volatile atomic<T>* p, typename msl_same<T>::type b, memory_order o) { atomic_exchange_explicit(p, b, o); }
template <typename T> MSL_IN inline T atomic_load_explicit(const volatile atomic<T>* p, memory_order) { return as_type<T>(msl_rt_atomic_load((const void*)p)); }

} // namespace metal

// ---- keywords and what the translator writes ----------------------------
#define MSL_BEGIN namespace { // on a GPU each file is a library of its own
#define MSL_END }
#define MSL_DEVICE
#define MSL_CONSTANT const
#define MSL_THREADGROUP
#define MSL_THREAD
#define MSL_KERNEL
#define MSL_INLINE inline
#define MSL_CONST static const
#define MSL_INST(...) // the entries instantiate
#define MSL_STRIP(...) __VA_ARGS__
#define MSL_TG(id, align, type, name, dims)                                             \
    typedef MSL_STRIP type msl_t_##name dims;                                           \
    msl_t_##name& name = *static_cast<msl_t_##name*>(                                   \
        msl_rt_variable(id, #name, sizeof(msl_t_##name), align > alignof(msl_t_##name) ? align : alignof(msl_t_##name)))
#define MSL_ENTRY(name, args, call)                                                     \
    static void msl_run_##name() { call; }                                              \
    struct msl_e_##name { msl_e_##name() { msl_rt_register(#name, args, msl_run_##name); } } msl_ei_##name;
struct msl_ptr { // a buffer, as whatever pointer the parameter is
    void* p;
    template <typename T> operator T*() const { return static_cast<T*>(p); }
};
struct msl_ref { // likewise a reference
    void* p;
    template <typename T> operator T&() const { return *static_cast<T*>(p); }
};
struct msl_pos { // an attribute, as uint, ushort, uint2, ...
    const uint32_t* v;
    operator uint() const { return v[0]; }
    operator ushort() const { return ushort(v[0]); }
    operator metal::uint2() const { return metal::uint2(v[0], v[1]); }
    operator metal::uint3() const { return metal::uint3(v[0], v[1], v[2]); }
    operator metal::ushort2() const { return metal::ushort2(ushort(v[0]), ushort(v[1])); }
    operator metal::ushort3() const { return metal::ushort3(ushort(v[0]), ushort(v[1]), ushort(v[2])); }
};
static const uint32_t msl_32 = 32;
#define MSL_BUF(i) (msl_ptr{msl_rt_buffer(i)})
#define MSL_REF(i) (msl_ref{msl_rt_buffer(i)})
#define MSL_TGM(i) (msl_ptr{msl_rt_shared(i)})
#define MSL_AT_thread_position_in_grid (msl_pos{msl_rt_self()->position})
#define MSL_AT_thread_position_in_threadgroup (msl_pos{msl_rt_self()->in_group})
#define MSL_AT_threadgroup_position_in_grid (msl_pos{msl_rt_grid()->group})
#define MSL_AT_threads_per_threadgroup (msl_pos{msl_rt_grid()->threads})
#define MSL_AT_threadgroups_per_grid (msl_pos{msl_rt_grid()->groups})
#define MSL_AT_threads_per_grid (msl_pos{msl_rt_grid()->total})
#define MSL_AT_thread_index_in_threadgroup (msl_pos{&msl_rt_self()->index})
#define MSL_AT_thread_index_in_simdgroup (msl_pos{&msl_rt_self()->lane})
#define MSL_AT_simdgroup_index_in_threadgroup (msl_pos{&msl_rt_self()->simd})
#define MSL_AT_simdgroups_per_threadgroup (msl_pos{&msl_rt_grid()->simds})
#define MSL_AT_threads_per_simdgroup (msl_pos{&msl_32})
