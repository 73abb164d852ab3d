// Metal as C++ for OpenCL, to be type-checked and never run: address spaces
// are real here, an unqualified pointer, reference or this is thread's, and
// what both languages lack (new, virtual, exceptions, function pointers, ...)
// is an error. Compile with
//   clang -fsyntax-only --target=spir64 -x cl -cl-std=clc++2021 -cl-no-stdinc
//     -Xclang -cl-ext=-__opencl_c_generic_address_space,-__opencl_c_pipes,-__opencl_c_device_enqueue
#pragma once
#pragma OPENCL EXTENSION cl_khr_fp16 : enable
#pragma clang diagnostic ignored "-Wunused-parameter"

#define MSL_DEVICE __global
#define MSL_CONSTANT __constant
#define MSL_THREADGROUP __local
#define MSL_THREAD // private is the default: generic is off
#define MSL_KERNEL
#define MSL_INLINE inline
#define MSL_CONST __constant
// Locals of template functions cannot be __local, so they refer to one.
#define MSL_TG(id, align, type, name, dims)                                             \
    typedef MSL_STRIP type msl_t_##name dims;                                           \
    __local msl_t_##name& name = *(__local msl_t_##name*)msl_local
#define MSL_STRIP(...) __VA_ARGS__
#define MSL_BEGIN
#define MSL_END
#define MSL_INST(...) template __VA_ARGS__;
#define MSL_ENTRY(name, args, call)
__local void* msl_local();
#define msl_local msl_local()

typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;
typedef unsigned long ulong;
typedef __SIZE_TYPE__ size_t;
#define MSL_VEC(t) typedef t t##2 __attribute__((ext_vector_type(2))); typedef t t##3 __attribute__((ext_vector_type(3))); typedef t t##4 __attribute__((ext_vector_type(4)));
MSL_VEC(float) MSL_VEC(half) MSL_VEC(int) MSL_VEC(uint) MSL_VEC(short) MSL_VEC(ushort) MSL_VEC(char) MSL_VEC(uchar) MSL_VEC(long) MSL_VEC(ulong)
#undef MSL_VEC

namespace metal {

// bfloat: nothing becomes one implicitly. (That it becomes nothing else
// implicitly is for msl_host.h to find: vectors have no scoped enumerations.)
enum bfloat : ushort {};
bfloat operator+(bfloat, bfloat);
bfloat operator-(bfloat, bfloat);
bfloat operator*(bfloat, bfloat);
bfloat operator/(bfloat, bfloat);

// Vectors are clang's own, so that they load and store in every space.
template <typename T, int N> struct msl_vec { typedef T type __attribute__((ext_vector_type(N))); };
typedef bfloat bfloat2 __attribute__((ext_vector_type(2)));
typedef bfloat bfloat3 __attribute__((ext_vector_type(3)));
typedef bfloat bfloat4 __attribute__((ext_vector_type(4)));
template <typename T, int N> using vec = typename msl_vec<T, N>::type;
typedef float2 packed_float2; // types only: sizes differ
typedef float3 packed_float3;
typedef float4 packed_float4;
typedef half4 packed_half4;

// float4(a, b, c, d), float4(v), T4(v): a call, wherever a type is not.
template <typename T> struct msl_make;
#define MSL_VEC(t)                                                                      \
    template <> struct msl_make<t##2> {                                                 \
        static t##2 of(t a) { return (t##2)(a); }                                       \
        static t##2 of(t a, t b) { return (t##2)(a, b); }                               \
        template <typename U> static t##2 of(U v) { return __builtin_convertvector(v, t##2); } \
    };                                                                                  \
    template <> struct msl_make<t##3> {                                                 \
        static t##3 of(t a) { return (t##3)(a); }                                       \
        static t##3 of(t a, t b, t c) { return (t##3)(a, b, c); }                       \
        template <typename U> static t##3 of(U v) { return __builtin_convertvector(v, t##3); } \
    };                                                                                  \
    template <> struct msl_make<t##4> {                                                 \
        static t##4 of(t a) { return (t##4)(a); }                                       \
        static t##4 of(t a, t b, t c, t d) { return (t##4)(a, b, c, d); }               \
        static t##4 of(t##2 a, t##2 b) { return (t##4)(a, b); }                         \
        template <typename U> static t##4 of(U v) { return __builtin_convertvector(v, t##4); } \
    };
MSL_VEC(float) MSL_VEC(half) MSL_VEC(int) MSL_VEC(uint) MSL_VEC(short) MSL_VEC(ushort) MSL_VEC(long) MSL_VEC(ulong) MSL_VEC(char) MSL_VEC(uchar) MSL_VEC(bfloat)
#undef MSL_VEC

enum class mem_flags { mem_none = 0, mem_device = 1, mem_threadgroup = 2, mem_texture = 4 };
mem_flags operator|(mem_flags a, mem_flags b);
void threadgroup_barrier(mem_flags);
void simdgroup_barrier(mem_flags);

#define MSL_T template <typename T>
MSL_T T simd_sum(T);
MSL_T T simd_product(T);
MSL_T T simd_max(T);
MSL_T T simd_min(T);
MSL_T T simd_shuffle(T, ushort);
MSL_T T simd_shuffle_xor(T, ushort);
MSL_T T simd_shuffle_down(T, ushort);
MSL_T T simd_shuffle_up(T, ushort);
MSL_T T simd_broadcast(T, ushort);
MSL_T T simd_broadcast_first(T);
MSL_T T simd_prefix_exclusive_sum(T);
bool simd_any(bool);
bool simd_all(bool);

#define MSL_F1(f) float f(float); half f(half); float2 f(float2); float4 f(float4); half4 f(half4);
MSL_F1(exp) MSL_F1(exp2) MSL_F1(log) MSL_F1(log2) MSL_F1(sqrt) MSL_F1(rsqrt) MSL_F1(tanh)
MSL_F1(sin) MSL_F1(cos) MSL_F1(floor) MSL_F1(ceil) MSL_F1(rint) MSL_F1(trunc) MSL_F1(fabs) MSL_F1(abs)
#undef MSL_F1
namespace precise { using metal::exp; using metal::log; using metal::sqrt; using metal::rsqrt; using metal::tanh; }
namespace fast { using namespace precise; }
#define MSL_F2(T) T min(T, T); T max(T, T); T clamp(T, T, T);
MSL_F2(float) MSL_F2(half) MSL_F2(int) MSL_F2(uint) MSL_F2(long) MSL_F2(ulong) MSL_F2(short) MSL_F2(ushort)
MSL_F2(float2) MSL_F2(float4) MSL_F2(half4)
#undef MSL_F2
float fma(float, float, float);
half fma(half, half, half);
float pow(float, float);
float dot(float4, float4);
float dot(float2, float2);
MSL_T T select(T, T, bool);
template <typename T, typename U> T as_type(U);

// So are matrices: a class here could not be a field.
template <typename T, int C, int R> using simdgroup_matrix = typename msl_vec<T, C * R>::type;
typedef simdgroup_matrix<float, 8, 8> simdgroup_float8x8;
typedef simdgroup_matrix<half, 8, 8> simdgroup_half8x8;
typedef simdgroup_matrix<bfloat, 8, 8> simdgroup_bfloat8x8;
template <typename T, int C, int R> simdgroup_matrix<T, C, R> make_filled_simdgroup_matrix(T);
#define MSL_LS(T, AS)                                                                   \
    void simdgroup_load(simdgroup_matrix<T, 8, 8>&, const AS T*, ulong = 8, ulong2 = (ulong2)(0), bool = false); \
    void simdgroup_store(simdgroup_matrix<T, 8, 8>, AS T*, ulong = 8, ulong2 = (ulong2)(0), bool = false);
MSL_LS(float, __global) MSL_LS(half, __global) MSL_LS(bfloat, __global)
MSL_LS(float, __local) MSL_LS(half, __local) MSL_LS(bfloat, __local)
#undef MSL_LS
template <typename D, typename A, typename B, typename E> void simdgroup_multiply_accumulate(D&, A, B, E);
template <typename D, typename A, typename B> void simdgroup_multiply(D&, A, B);

// atomic_uint and the like are built in here.
enum memory_order { memory_order_relaxed };
#define MSL_AT(A, T, AS)                                                                \
    T atomic_fetch_add_explicit(volatile AS A*, T, memory_order);                       \
    T atomic_fetch_max_explicit(volatile AS A*, T, memory_order);                       \
    T atomic_exchange_explicit(volatile AS A*, T, memory_order);                        \
    T atomic_load_explicit(const volatile AS A*, memory_order);                         \
    void atomic_store_explicit(volatile AS A*, T, memory_order);
MSL_AT(atomic_uint, uint, __global) MSL_AT(atomic_int, int, __global) MSL_AT(atomic_float, float, __global)
MSL_AT(atomic_uint, uint, __local) MSL_AT(atomic_int, int, __local) MSL_AT(atomic_float, float, __local)
#undef MSL_AT
#undef MSL_T

} // namespace metal

#define float2(...) metal::msl_make<float2>::of(__VA_ARGS__)
#define float3(...) metal::msl_make<float3>::of(__VA_ARGS__)
#define float4(...) metal::msl_make<float4>::of(__VA_ARGS__)
#define half2(...) metal::msl_make<half2>::of(__VA_ARGS__)
#define half3(...) metal::msl_make<half3>::of(__VA_ARGS__)
#define half4(...) metal::msl_make<half4>::of(__VA_ARGS__)
#define uint2(...) metal::msl_make<uint2>::of(__VA_ARGS__)
#define ulong2(...) metal::msl_make<ulong2>::of(__VA_ARGS__)
#define int2(...) metal::msl_make<int2>::of(__VA_ARGS__)
#define int3(...) metal::msl_make<int3>::of(__VA_ARGS__)
#define int4(...) metal::msl_make<int4>::of(__VA_ARGS__)
#define uint3(...) metal::msl_make<uint3>::of(__VA_ARGS__)
#define uint4(...) metal::msl_make<uint4>::of(__VA_ARGS__)
#define short2(...) metal::msl_make<short2>::of(__VA_ARGS__)
#define short3(...) metal::msl_make<short3>::of(__VA_ARGS__)
#define short4(...) metal::msl_make<short4>::of(__VA_ARGS__)
#define ushort2(...) metal::msl_make<ushort2>::of(__VA_ARGS__)
#define ushort3(...) metal::msl_make<ushort3>::of(__VA_ARGS__)
#define ushort4(...) metal::msl_make<ushort4>::of(__VA_ARGS__)
#define long2(...) metal::msl_make<long2>::of(__VA_ARGS__)
#define long3(...) metal::msl_make<long3>::of(__VA_ARGS__)
#define long4(...) metal::msl_make<long4>::of(__VA_ARGS__)
#define char2(...) metal::msl_make<char2>::of(__VA_ARGS__)
#define char3(...) metal::msl_make<char3>::of(__VA_ARGS__)
#define char4(...) metal::msl_make<char4>::of(__VA_ARGS__)
#define uchar2(...) metal::msl_make<uchar2>::of(__VA_ARGS__)
#define uchar3(...) metal::msl_make<uchar3>::of(__VA_ARGS__)
#define uchar4(...) metal::msl_make<uchar4>::of(__VA_ARGS__)
#define ulong3(...) metal::msl_make<ulong3>::of(__VA_ARGS__)
#define ulong4(...) metal::msl_make<ulong4>::of(__VA_ARGS__)
// The dialect's names for vectors of a template's T.
#define T2(...) metal::msl_make<T2>::of(__VA_ARGS__)
#define T4(...) metal::msl_make<T4>::of(__VA_ARGS__)
