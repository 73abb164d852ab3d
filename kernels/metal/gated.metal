// The gated activation of an MLP, act(gate) * up, and its gradients.
#include "common.h"

struct GatedParams {
    uint rows;
    uint cols;
    uint gateStride;
    uint upStride;
    uint outStride;
    uint doutStride;
    uint dgateStride;
    uint dupStride;
    uint act; // 0: SiLU, 1: GELU, 2: its tanh approximation
    uint out; // 1: the gradients' kernel is asked for it
};

// 1 / (1 + e^-x), and what it lacks to 1: as a difference that would lose its
// digits. Beyond 110 it lacks nothing that is a float.
inline float2 sigmoid(float x)
{
    const float e = exp(-min(fabs(x), 110.0f));
    const float large = 1.0f / (1.0f + e);
    const float small = e * large;
    return x < 0.0f ? float2(small, large) : float2(large, small);
}

// The standard normal distribution at x, from the fit of erfc in Numerical
// Recipes (Press et al.), good to 1.2e-7. The square of x is a float.
inline float normal_below(float x)
{
    const float z = fabs(x) * 0.70710678f;
    const float t = 1.0f / (1.0f + 0.5f * z);
    float q = 0.17087277f;
    q = fma(q, t, -0.82215223f);
    q = fma(q, t, 1.48851587f);
    q = fma(q, t, -1.13520398f);
    q = fma(q, t, 0.27886807f);
    q = fma(q, t, -0.18628806f);
    q = fma(q, t, 0.09678418f);
    q = fma(q, t, 0.37409196f);
    q = fma(q, t, 1.00002368f);
    q = fma(q, t, -1.26551223f);
    const float tail = 0.5f * t * exp(fma(-z, z, q));
    return x < 0.0f ? tail : 1.0f - tail;
}

// act(x) and its derivative. Where squares of x would overflow, it is bounded: the
// derivative is 0 or 1 there.
inline float2 activation(uint act, float x)
{
    if (act == 0) {
        const float2 s = sigmoid(x);
        return float2(x * s.x, s.x * fma(x, s.y, 1.0f));
    }
    const float near = clamp(x, -20.0f, 20.0f);
    if (act == 1) {
        const float below = normal_below(near);
        return float2(x * below, below + near * exp(-0.5f * near * near) * 0.39894228f);
    }
    const float linear = 1.5957691216f; // 2 * sqrt(2 / pi): tanh by way of the sigmoid
    const float cubic = linear * 0.044715f;
    const float2 s = sigmoid(near * fma(near * near, cubic, linear));
    return float2(x * s.x, s.x * fma(near * s.y, fma(near * near, 3.0f * cubic, linear), 1.0f));
}

template <typename T>
kernel void gated(
    device const T* gate [[buffer(0)]],
    device const T* up [[buffer(1)]],
    device T* out [[buffer(2)]],
    constant GatedParams& p [[buffer(3)]],
    uint2 place [[thread_position_in_grid]])
{
    if (place.x >= p.cols || place.y >= p.rows) {
        return;
    }
    const ulong row = place.y;
    const float2 a = activation(p.act, float(gate[row * p.gateStride + place.x]));
    out[row * p.outStride + place.x] = T(a.x * float(up[row * p.upStride + place.x]));
}

template <typename T>
kernel void gated_grad(
    device const T* gate [[buffer(0)]],
    device const T* up [[buffer(1)]],
    device const T* dout [[buffer(2)]],
    device T* dgate [[buffer(3)]],
    device T* dup [[buffer(4)]],
    device T* out [[buffer(5)]],
    constant GatedParams& p [[buffer(6)]],
    uint2 place [[thread_position_in_grid]])
{
    if (place.x >= p.cols || place.y >= p.rows) {
        return;
    }
    const ulong row = place.y;
    const float2 a = activation(p.act, float(gate[row * p.gateStride + place.x]));
    const float d = float(dout[row * p.doutStride + place.x]);
    const float other = float(up[row * p.upStride + place.x]);
    dgate[row * p.dgateStride + place.x] = T(d * other * a.y);
    dup[row * p.dupStride + place.x] = T(d * a.x);
    if (p.out != 0) {
        out[row * p.outStride + place.x] = T(a.x * other);
    }
}

template [[host_name("gated_f32")]] kernel decltype(gated<float>) gated<float>;
template [[host_name("gated_f16")]] kernel decltype(gated<half>) gated<half>;
template [[host_name("gated_bf16")]] kernel decltype(gated<bfloat>) gated<bfloat>;
template [[host_name("gated_grad_f32")]] kernel decltype(gated_grad<float>) gated_grad<float>;
template [[host_name("gated_grad_f16")]] kernel decltype(gated_grad<half>) gated_grad<half>;
template [[host_name("gated_grad_bf16")]] kernel decltype(gated_grad<bfloat>) gated_grad<bfloat>;
