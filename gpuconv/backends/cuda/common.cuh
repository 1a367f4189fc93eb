// What all kernels share: element types, the geometry as it travels, the epilogue.
//
// Macros, all set by cupy_.py:
//   GPUCONV_TYPE        float16 0, bfloat16 1, float32 2, float64 3, complex64 4, complex128 5
//   GPUCONV_ACTIVATION  the number in activate() below
//   GPUCONV_INDEX       int, or long long where an array is too long for it
//   GPUCONV_CHANNELS_LAST, GPUCONV_TRANSPOSED  0 or 1: the layout and the direction
#include <cuda_bf16.h>
#include <cuda_fp16.h>

typedef GPUCONV_INDEX Index;

// --- numbers: `Element` is what memory holds, `Number` what is computed in -----------------------

template <typename Real>
struct alignas(2 * sizeof(Real)) Complex {
    Real re, im;
};

#if GPUCONV_TYPE == 0
typedef __half Element;
typedef float Number;
#elif GPUCONV_TYPE == 1
typedef __nv_bfloat16 Element;
typedef float Number;
#elif GPUCONV_TYPE == 2
typedef float Element;
typedef float Number;
#elif GPUCONV_TYPE == 3
typedef double Element;
typedef double Number;
#elif GPUCONV_TYPE == 4
typedef Complex<float> Element;
typedef Complex<float> Number;
#else
typedef Complex<double> Element;
typedef Complex<double> Number;
#endif

#if GPUCONV_TYPE == 0
__device__ __forceinline__ Number widen(Element v) { return __half2float(v); }
__device__ __forceinline__ Element narrow(Number v) { return __float2half_rn(v); }
#elif GPUCONV_TYPE == 1
__device__ __forceinline__ Number widen(Element v) { return __bfloat162float(v); }
__device__ __forceinline__ Element narrow(Number v) { return __float2bfloat16_rn(v); }
#else
__device__ __forceinline__ Number widen(Element v) { return v; }
__device__ __forceinline__ Element narrow(Number v) { return v; }
#endif

// The kernels that planner.py calls alike take the terms in one order, down the taps and up the channels: which of them
// runs never shows in the bits.
#if GPUCONV_TYPE >= 4
__device__ __forceinline__ Number zero() { return {0, 0}; }
__device__ __forceinline__ Number conjugate(Number v) { return {v.re, -v.im}; }
__device__ __forceinline__ Number add(Number a, Number b) { return {a.re + b.re, a.im + b.im}; }
__device__ __forceinline__ Number multiply_add(Number a, Number b, Number sum) {
    return {fma(-a.im, b.im, fma(a.re, b.re, sum.re)), fma(a.im, b.re, fma(a.re, b.im, sum.im))};
}
#else
__device__ __forceinline__ Number zero() { return 0; }
__device__ __forceinline__ Number conjugate(Number v) { return v; }
__device__ __forceinline__ Number add(Number a, Number b) { return a + b; }
__device__ __forceinline__ Number multiply_add(Number a, Number b, Number sum) { return fma(a, b, sum); }
#endif

// --- the geometry --------------------------------------------------------------------------------

// One spatial axis of the transposed convolution x -> y; the steps are in elements.
struct Axis {
    long long kernel, stride, dilation, crop_left, in_length, out_length;
    long long common, period, inverse;  // gcd(stride, dilation); stride / common; of dilation / common modulo period
    long long x_step, y_step, w_step;
};

// The forward convolution y -> x has the same problem, read backwards.
struct Problem {
    long long samples, groups, width, depth;  // a group has `depth` channels of x and `width` of y
    long long x_sample, x_channel, y_sample, y_channel, w_filter, w_channel;
    Axis axis[3];
};

struct Place {
    Index sample, position[3], channel;
};

// The element that thread `i` makes of an array with these lengths: neighbours in memory for neighbouring threads.
__device__ __forceinline__ Place place_of(Index i, Index channels, Index length0, Index length1, Index length2) {
    Place at;
#if GPUCONV_CHANNELS_LAST
    at.channel = i % channels;
    i /= channels;
#endif
    at.position[2] = i % length2;
    i /= length2;
    at.position[1] = i % length1;
    i /= length1;
    at.position[0] = i % length0;
    i /= length0;
#if !GPUCONV_CHANNELS_LAST
    at.channel = i % channels;
    i /= channels;
#endif
    at.sample = i;
    return at;
}

// --- the epilogue --------------------------------------------------------------------------------

__device__ __forceinline__ Number activate(Number v) {
#if GPUCONV_ACTIVATION == 1  // relu
    return v > 0 ? v : v != v ? v : 0;
#elif GPUCONV_ACTIVATION == 2  // relu6
    return v > 6 ? 6 : v > 0 ? v : v != v ? v : 0;
#elif GPUCONV_ACTIVATION == 3  // leaky_relu
    return v >= 0 ? v : v * Number(0.2);
#elif GPUCONV_ACTIVATION == 4  // elu
    return v >= 0 ? v : expm1(v);
#elif GPUCONV_ACTIVATION == 5  // tanh
    return tanh(v);
#elif GPUCONV_ACTIVATION == 6  // sigmoid
    return 1 / (1 + exp(-v));
#elif GPUCONV_ACTIVATION == 7  // silu
    return v / (1 + exp(-v));
#elif GPUCONV_ACTIVATION == 8  // exponential
    return exp(v);
#else
    return v;
#endif
}

// A sum with its bias, which may be null, and its activation.
__device__ __forceinline__ Element finished(Number sum, const Element* bias, long long channel) {
    if (bias) sum = add(sum, widen(bias[channel]));
    return narrow(activate(sum));
}

__device__ __forceinline__ void finish(Element* place, Number sum, const Element* bias, long long channel) {
    *place = finished(sum, bias, channel);
}
