// The plain scatter of a transposed convolution, by atomic additions: the baseline that the other kernels are measured
// against. Which addition comes first is chance, and so are the last bits of a sum.
//
// Three kernels of one Problem: zeros for the sums, the scatter, and the epilogue. `sums` is a contiguous array of
// Numbers in the result's layout; to the scatter, the steps of y are its steps.
#include "common.cuh"

__device__ __forceinline__ void atomic_add(Number* place, Number v) {
#if GPUCONV_TYPE >= 4
    atomicAdd(&place->re, v.re);
    atomicAdd(&place->im, v.im);
#else
    atomicAdd(place, v);
#endif
}

extern "C" __global__ void atomic_zero(Number* __restrict__ sums, const long long count) {
    for (Index i = Index(blockIdx.x) * blockDim.x + threadIdx.x; i < Index(count); i += Index(gridDim.x) * blockDim.x)
        sums[i] = zero();
}

// The output sample that a tap of an input sample falls on; it may be outside of the output.
__device__ __forceinline__ Index target_of(const Axis& a, Index row, Index tap) {
    return row * a.stride + tap * a.dilation - a.crop_left;
}

__device__ __forceinline__ bool is_inside(const Axis& a, Index target) { return target >= 0 && target < a.out_length; }

// One thread per input sample (its position on every axis) and filter: the sum over the channels stays in a register,
// so that there is one atomic addition for each tap, where a thread per channel would make one for each product.
extern "C" __global__ void atomic_scatter(const Element* __restrict__ x, const Element* __restrict__ w,
                                          Number* __restrict__ sums, const Problem p, const long long count) {
    for (Index i = Index(blockIdx.x) * blockDim.x + threadIdx.x; i < Index(count); i += Index(gridDim.x) * blockDim.x) {
        Place at = place_of(i, p.groups * p.width, p.axis[0].in_length, p.axis[1].in_length, p.axis[2].in_length);
        Index group = at.channel / Index(p.width);
        const Element* xp = x + at.sample * p.x_sample + group * p.depth * p.x_channel +
                            at.position[0] * p.axis[0].x_step + at.position[1] * p.axis[1].x_step +
                            at.position[2] * p.axis[2].x_step;
        const Element* ws = w + at.channel % Index(p.width) * p.w_filter + group * p.depth * p.w_channel;
        Number* ys = sums + at.sample * p.y_sample + at.channel * p.y_channel;
        for (Index j0 = 0; j0 < p.axis[0].kernel; j0++) {
            Index o0 = target_of(p.axis[0], at.position[0], j0);
            if (!is_inside(p.axis[0], o0)) continue;
            for (Index j1 = 0; j1 < p.axis[1].kernel; j1++) {
                Index o1 = target_of(p.axis[1], at.position[1], j1);
                if (!is_inside(p.axis[1], o1)) continue;
                for (Index j2 = 0; j2 < p.axis[2].kernel; j2++) {
                    Index o2 = target_of(p.axis[2], at.position[2], j2);
                    if (!is_inside(p.axis[2], o2)) continue;
                    const Element* wp = ws + j0 * p.axis[0].w_step + j1 * p.axis[1].w_step + j2 * p.axis[2].w_step;
                    Number sum = zero();
                    for (Index c = 0; c < p.depth; c++)
                        sum = multiply_add(widen(xp[c * p.x_channel]), widen(wp[c * p.w_channel]), sum);
                    atomic_add(ys + o0 * p.axis[0].y_step + o1 * p.axis[1].y_step + o2 * p.axis[2].y_step, sum);
                }
            }
        }
    }
}

extern "C" __global__ void atomic_finish(const Number* __restrict__ sums, const Element* __restrict__ bias,
                                         Element* __restrict__ y, const Problem p, const long long count) {
    for (Index i = Index(blockIdx.x) * blockDim.x + threadIdx.x; i < Index(count); i += Index(gridDim.x) * blockDim.x) {
        Place at = place_of(i, p.groups * p.width, p.axis[0].out_length, p.axis[1].out_length, p.axis[2].out_length);
        finish(y + at.sample * p.y_sample + at.channel * p.y_channel + at.position[0] * p.axis[0].y_step +
                   at.position[1] * p.axis[1].y_step + at.position[2] * p.axis[2].y_step,
               sums[i], bias, at.channel);
    }
}
