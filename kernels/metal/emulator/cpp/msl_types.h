// The parts of metal_stdlib that need no GPU: half, bfloat, vectors, math.
// msl_host.h defines the conversions (msl_h2f and so on) and the functions on
// float (msl_m_exp and so on) first.
#pragma once

namespace metal {

template <typename T> struct msl_same { typedef T type; };
template <bool B, typename T = void> struct msl_if {};
template <typename T> struct msl_if<true, T> { typedef T type; };
template <typename A, typename B> struct msl_eq { static constexpr bool v = false; };
template <typename A> struct msl_eq<A, A> { static constexpr bool v = true; };

// A 16-bit float that computes in float and rounds after each operation. As
// in Metal, half converts to and from float by itself; bfloat only when asked.
struct half {
    unsigned short bits;
    half() = default;
    inline half(float f) : bits(msl_f2h(f)) {}
    inline operator float() const { return msl_h2f(bits); }
};
struct bfloat {
    unsigned short bits;
    bfloat() = default;
    inline explicit bfloat(float f) : bits(msl_f2b(f)) {}
    inline explicit bfloat(half h) : bits(msl_f2b(msl_h2f(h.bits))) {}
    inline explicit operator float() const { return msl_b2f(bits); }
    inline explicit operator half() const { return half(msl_b2f(bits)); }
};
template <typename T> struct msl_small { static constexpr bool v = false; };
template <> struct msl_small<half> { static constexpr bool v = true; };
template <> struct msl_small<bfloat> { static constexpr bool v = true; };

#define MSL_OP(op)                                                                      \
    template <typename A, typename B>                                                   \
    inline typename msl_if<msl_eq<A, B>::v && msl_small<A>::v, A>::type operator op(A a, B b) \
    {                                                                                   \
        return A(float(a) op float(b));                                                 \
    }                                                                                   \
    template <typename A, typename B>                                                   \
    inline typename msl_if<msl_eq<A, B>::v && msl_small<A>::v, A&>::type operator op##=(A& a, B b) \
    {                                                                                   \
        return a = A(float(a) op float(b));                                             \
    }
MSL_OP(+) MSL_OP(-) MSL_OP(*) MSL_OP(/)
#undef MSL_OP
inline half operator-(half a) { return half(-float(a)); }
inline bfloat operator-(bfloat a) { return bfloat(-float(a)); }

// Vectors, with x y z w or r g b a, and []; no other swizzles.
template <typename T, int N> struct vec;
#ifdef MSL_CHECK // copies by member: -fsanitize=alignment looks at no others
#define MSL_COPY2 vec(const vec& o) : x(o.x), y(o.y) {} vec& operator=(const vec& o) { x = o.x; y = o.y; return *this; }
#define MSL_COPY3 vec(const vec& o) : x(o.x), y(o.y), z(o.z) {} vec& operator=(const vec& o) { x = o.x; y = o.y; z = o.z; return *this; }
#define MSL_COPY4 vec(const vec& o) : x(o.x), y(o.y), z(o.z), w(o.w) {} vec& operator=(const vec& o) { x = o.x; y = o.y; z = o.z; w = o.w; return *this; }
#else
#define MSL_COPY2
#define MSL_COPY3
#define MSL_COPY4
#endif
template <typename T> struct alignas(2 * sizeof(T)) vec<T, 2> {
    union { struct { T x, y; }; struct { T r, g; }; T e[2]; };
    vec() = default;
    inline vec(T s) : x(s), y(s) {}
    MSL_COPY2
    inline vec(T a, T b) : x(a), y(b) {}
    template <typename U> inline explicit vec(vec<U, 2> v) : x(T(v.x)), y(T(v.y)) {}
    inline T& operator[](int i) { return e[i]; }
    inline const T& operator[](int i) const { return e[i]; }
};
template <typename T> struct alignas(4 * sizeof(T)) vec<T, 3> {
    union { struct { T x, y, z; }; struct { T r, g, b; }; T e[3]; };
    vec() = default;
    inline vec(T s) : x(s), y(s), z(s) {}
    MSL_COPY3
    inline vec(T a, T b, T c) : x(a), y(b), z(c) {}
    inline vec(vec<T, 2> a, T b) : x(a.x), y(a.y), z(b) {}
    template <typename U> inline explicit vec(vec<U, 3> v) : x(T(v.x)), y(T(v.y)), z(T(v.z)) {}
    inline T& operator[](int i) { return e[i]; }
    inline const T& operator[](int i) const { return e[i]; }
};
template <typename T> struct alignas(4 * sizeof(T)) vec<T, 4> {
    union { struct { T x, y, z, w; }; struct { T r, g, b, a; }; T e[4]; };
    vec() = default;
    inline vec(T s) : x(s), y(s), z(s), w(s) {}
    MSL_COPY4
    inline vec(T a, T b, T c, T d) : x(a), y(b), z(c), w(d) {}
    inline vec(vec<T, 2> a, vec<T, 2> b) : x(a.x), y(a.y), z(b.x), w(b.y) {}
    inline vec(vec<T, 3> a, T b) : x(a.x), y(a.y), z(a.z), w(b) {}
    template <typename U> inline explicit vec(vec<U, 4> v) : x(T(v.x)), y(T(v.y)), z(T(v.z)), w(T(v.w)) {}
    inline T& operator[](int i) { return e[i]; }
    inline const T& operator[](int i) const { return e[i]; }
};

#define MSL_OP(op)                                                                      \
    template <typename T, int N> inline vec<T, N> operator op(vec<T, N> a, vec<T, N> b) \
    {                                                                                   \
        for (int i = 0; i < N; ++i) a.e[i] = a.e[i] op b.e[i];                          \
        return a;                                                                       \
    }                                                                                   \
    template <typename T, int N>                                                        \
    inline vec<T, N> operator op(vec<T, N> a, typename msl_same<T>::type b)             \
    {                                                                                   \
        return a op vec<T, N>(b);                                                       \
    }                                                                                   \
    template <typename T, int N>                                                        \
    inline vec<T, N> operator op(typename msl_same<T>::type a, vec<T, N> b)             \
    {                                                                                   \
        return vec<T, N>(a) op b;                                                       \
    }                                                                                   \
    template <typename T, int N> inline vec<T, N>& operator op##=(vec<T, N>& a, vec<T, N> b) \
    {                                                                                   \
        return a = a op b;                                                              \
    }                                                                                   \
    template <typename T, int N>                                                        \
    inline vec<T, N>& operator op##=(vec<T, N>& a, typename msl_same<T>::type b)        \
    {                                                                                   \
        return a = a op b;                                                              \
    }
MSL_OP(+) MSL_OP(-) MSL_OP(*) MSL_OP(/)
#undef MSL_OP
template <typename T, int N> inline vec<T, N> operator-(vec<T, N> a) { return vec<T, N>(T(0.0f)) - a; }

#define MSL_VEC(t, n) typedef vec<t, 2> n##2; typedef vec<t, 3> n##3; typedef vec<t, 4> n##4;
MSL_VEC(float, float) MSL_VEC(half, half) MSL_VEC(bfloat, bfloat)
MSL_VEC(int, int) MSL_VEC(unsigned, uint) MSL_VEC(short, short) MSL_VEC(unsigned short, ushort)
MSL_VEC(signed char, char) MSL_VEC(unsigned char, uchar) MSL_VEC(bool, bool)
MSL_VEC(long, long) MSL_VEC(unsigned long, ulong)
#undef MSL_VEC
template <typename T, int N> struct packed_vec { T e[N]; inline operator vec<T, N>() const { vec<T, N> v; for (int i = 0; i < N; ++i) v.e[i] = e[i]; return v; } };
typedef packed_vec<float, 2> packed_float2;
typedef packed_vec<float, 3> packed_float3;
typedef packed_vec<float, 4> packed_float4;
typedef packed_vec<half, 4> packed_half4;

// One-argument functions on float, on half by way of float, on vectors by
// component.
#define MSL_F1(f)                                                                       \
    inline float f(float a) { return msl_m_##f(a); }                                     \
    inline half f(half a) { return half(msl_m_##f(float(a))); }                          \
    template <typename T, int N> inline vec<T, N> f(vec<T, N> a)                        \
    {                                                                                   \
        for (int i = 0; i < N; ++i) a.e[i] = T(msl_m_##f(float(a.e[i])));                \
        return a;                                                                       \
    }
MSL_F1(exp) MSL_F1(exp2) MSL_F1(log) MSL_F1(log2) MSL_F1(sqrt) MSL_F1(rsqrt) MSL_F1(tanh)
MSL_F1(sin) MSL_F1(cos) MSL_F1(floor) MSL_F1(ceil) MSL_F1(rint) MSL_F1(trunc) MSL_F1(fabs)
#undef MSL_F1
inline float fma(float a, float b, float c) { return msl_m_fma(a, b, c); }
inline float pow(float a, float b) { return msl_m_pow(a, b); }

#define MSL_MM(T)                                                                       \
    inline T min(T a, T b) { return b < a ? b : a; }                                    \
    inline T max(T a, T b) { return a < b ? b : a; }                                    \
    inline T clamp(T v, T lo, T hi) { return min(max(v, lo), hi); }
MSL_MM(int) MSL_MM(unsigned) MSL_MM(long) MSL_MM(unsigned long) MSL_MM(short) MSL_MM(unsigned short)
#undef MSL_MM
inline float min(float a, float b) { return msl_m_fmin(a, b); }
inline float max(float a, float b) { return msl_m_fmax(a, b); }
inline float clamp(float v, float lo, float hi) { return min(max(v, lo), hi); }
inline half min(half a, half b) { return half(min(float(a), float(b))); }
inline half max(half a, half b) { return half(max(float(a), float(b))); }
inline int abs(int a) { return a < 0 ? -a : a; }
inline float abs(float a) { return msl_m_fabs(a); }
template <typename T, int N> inline vec<T, N> max(vec<T, N> a, vec<T, N> b) { for (int i = 0; i < N; ++i) a.e[i] = max(a.e[i], b.e[i]); return a; }
template <typename T, int N> inline vec<T, N> min(vec<T, N> a, vec<T, N> b) { for (int i = 0; i < N; ++i) a.e[i] = min(a.e[i], b.e[i]); return a; }
template <typename T, int N> inline T dot(vec<T, N> a, vec<T, N> b) { T s = a.e[0] * b.e[0]; for (int i = 1; i < N; ++i) s = s + a.e[i] * b.e[i]; return s; }
template <typename T> inline T select(T a, T b, bool c) { return c ? b : a; }
template <typename T, typename U> inline T as_type(U u)
{
    static_assert(sizeof(T) == sizeof(U), "as_type needs equal sizes");
    union V { U u; T t; inline V() {} } v;
    v.u = u;
    return v.t;
}
namespace precise { using metal::exp; using metal::log; using metal::sqrt; using metal::rsqrt; using metal::tanh; using metal::pow; using metal::sin; using metal::cos; }
namespace fast { using namespace precise; }

enum class mem_flags { mem_none = 0, mem_device = 1, mem_threadgroup = 2, mem_texture = 4 };
inline constexpr mem_flags operator|(mem_flags a, mem_flags b) { return mem_flags(int(a) | int(b)); }
enum memory_order { memory_order_relaxed };

} // namespace metal
