// One output element per thread: any type, 1 to 3 axes, dilation with stride, groups, any strides in memory.
// Every element is summed in one order that depends on nothing but its own place, so bits repeat and do not
// change with the batch.
//
// Macros: GPUCONV_CHANNELS_LAST decides which neighbours in the output neighbouring threads make.
#include "common.cuh"

// The last tap that falls on output sample `o`, and the input sample that it weighs; a negative tap if there is none.
// Others come every `period` before, each reading `dilation / common` samples further on.
struct Last {
    Index tap, row;
};

__device__ __forceinline__ Last last_tap(const Axis& a, Index o) {
    Index full = o + Index(a.crop_left);
    if (full % Index(a.common)) return {-1, 0};
    Index first = (full / Index(a.common)) % Index(a.period) * Index(a.inverse) % Index(a.period);
    if (first >= Index(a.kernel)) return {-1, 0};
    Index tap = Index(a.kernel) - 1 - (Index(a.kernel) - 1 - first) % Index(a.period);
    return {tap, (full - tap * Index(a.dilation)) / Index(a.stride)};
}

extern "C" __global__ void direct_conv_transpose(const Element* __restrict__ x, const Element* __restrict__ w,
                                                 const Element* __restrict__ bias, Element* __restrict__ y,
                                                 const Problem p, const long long count) {
    for (Index i = Index(blockIdx.x) * blockDim.x + threadIdx.x; i < Index(count); i += Index(gridDim.x) * blockDim.x) {
        Place at = place_of(i, p.groups * p.width, p.axis[0].out_length, p.axis[1].out_length, p.axis[2].out_length);
        Index group = at.channel / Index(p.width);
        const Element* xs = x + at.sample * p.x_sample + group * p.depth * p.x_channel;
        const Element* ws = w + at.channel % Index(p.width) * p.w_filter + group * p.depth * p.w_channel;
        Last l0 = last_tap(p.axis[0], at.position[0]);
        Last l1 = last_tap(p.axis[1], at.position[1]);
        Last l2 = last_tap(p.axis[2], at.position[2]);
        Number sum = zero();
        for (Index j0 = l0.tap, i0 = l0.row; j0 >= 0 && i0 < p.axis[0].in_length; j0 -= p.axis[0].period, i0 += p.axis[0].dilation / p.axis[0].common) {
            if (i0 < 0) continue;
            for (Index j1 = l1.tap, i1 = l1.row; j1 >= 0 && i1 < p.axis[1].in_length; j1 -= p.axis[1].period, i1 += p.axis[1].dilation / p.axis[1].common) {
                if (i1 < 0) continue;
                for (Index j2 = l2.tap, i2 = l2.row; j2 >= 0 && i2 < p.axis[2].in_length; j2 -= p.axis[2].period, i2 += p.axis[2].dilation / p.axis[2].common) {
                    if (i2 < 0) continue;
                    const Element* xp = xs + i0 * p.axis[0].x_step + i1 * p.axis[1].x_step + i2 * p.axis[2].x_step;
                    const Element* wp = ws + j0 * p.axis[0].w_step + j1 * p.axis[1].w_step + j2 * p.axis[2].w_step;
                    for (Index c = 0; c < p.depth; c++)
                        sum = multiply_add(widen(xp[c * p.x_channel]), widen(wp[c * p.w_channel]), sum);
                }
            }
        }
        finish(y + at.sample * p.y_sample + at.channel * p.y_channel + at.position[0] * p.axis[0].y_step +
                   at.position[1] * p.axis[1].y_step + at.position[2] * p.axis[2].y_step,
               sum, bias, at.channel);
    }
}

extern "C" __global__ void direct_conv(const Element* __restrict__ y, const Element* __restrict__ w,
                                       const Element* __restrict__ bias, Element* __restrict__ x, const Problem p,
                                       const long long count) {
    for (Index i = Index(blockIdx.x) * blockDim.x + threadIdx.x; i < Index(count); i += Index(gridDim.x) * blockDim.x) {
        Place at = place_of(i, p.groups * p.depth, p.axis[0].in_length, p.axis[1].in_length, p.axis[2].in_length);
        Index group = at.channel / Index(p.depth);
        const Element* ys = y + at.sample * p.y_sample + group * p.width * p.y_channel;
        const Element* ws = w + at.channel * p.w_channel;
        Number sum = zero();
        for (Index j0 = p.axis[0].kernel - 1; j0 >= 0; j0--) {
            Index o0 = at.position[0] * p.axis[0].stride + j0 * p.axis[0].dilation - p.axis[0].crop_left;
            if (o0 < 0 || o0 >= p.axis[0].out_length) continue;
            for (Index j1 = p.axis[1].kernel - 1; j1 >= 0; j1--) {
                Index o1 = at.position[1] * p.axis[1].stride + j1 * p.axis[1].dilation - p.axis[1].crop_left;
                if (o1 < 0 || o1 >= p.axis[1].out_length) continue;
                for (Index j2 = p.axis[2].kernel - 1; j2 >= 0; j2--) {
                    Index o2 = at.position[2] * p.axis[2].stride + j2 * p.axis[2].dilation - p.axis[2].crop_left;
                    if (o2 < 0 || o2 >= p.axis[2].out_length) continue;
                    const Element* yp = ys + o0 * p.axis[0].y_step + o1 * p.axis[1].y_step + o2 * p.axis[2].y_step;
                    const Element* wp = ws + j0 * p.axis[0].w_step + j1 * p.axis[1].w_step + j2 * p.axis[2].w_step;
                    for (Index f = 0; f < p.width; f++)
                        sum = multiply_add(widen(yp[f * p.y_channel]), widen(wp[f * p.w_filter]), sum);
                }
            }
        }
        finish(x + at.sample * p.x_sample + at.channel * p.x_channel + at.position[0] * p.axis[0].x_step +
                   at.position[1] * p.axis[1].x_step + at.position[2] * p.axis[2].x_step,
               sum, bias, at.channel);
    }
}
