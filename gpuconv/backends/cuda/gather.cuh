// A 1-D convolution as a product of matrices that are never stored: a block makes a tile of output rows and columns,
// gathering the input rows that it needs into shared memory as it goes. One launch makes one group of phases,
//
//     y[first + p + t*out_step, f] = sum over m, c of x[offset + t*row_step + m*hop, c] * w[tap(p, m), f, c]
//
// with rows t, columns (p, f) and terms (m, c). Sums run over the terms in ascending order, whatever the batch.
//
// Macros: GPUCONV_CHANNELS_LAST, which index of the input is contiguous; GPUCONV_TRANSPOSED, which of the kernel.
#include "common.cuh"

struct Gather {
    long long samples, groups, rows, phases, width, terms, depth;
    long long row_step, offset, hop, in_length;
    long long tap, tap_step, period;  // see tap_of()
    long long x_sample, x_row, x_channel;
    long long w_tap, w_column, w_depth;
    long long y_sample, y_row, y_phase, y_channel;
};

struct Term {
    Index m, channel;
};

__device__ __forceinline__ Term term_of(const Gather& g, Index term) {
    return {term / Index(g.depth), term % Index(g.depth)};
}

// The input sample that a row reads in the m-th place; it may be outside of the input, where there are zeros.
__device__ __forceinline__ Index position_of(const Gather& g, Index row, Index m) {
    return g.offset + row * g.row_step + m * g.hop;
}

// The tap of a phase that weighs what the m-th place reads.
__device__ __forceinline__ Index tap_of(const Gather& g, Index phase, Index m) {
    return (g.tap + phase * g.tap_step) % g.period + (g.terms - 1 - m) * g.period;
}

__device__ __forceinline__ const Element* input_of(const Gather& g, const Element* x, Index sample, Index group) {
    return x + sample * g.x_sample + group * g.depth * g.x_channel;
}

// Kernel of the transposed convolution: (k, width, groups * depth); of the forward one: (k, depth, groups * width).
__device__ __forceinline__ const Element* kernel_of(const Gather& g, const Element* w, Index group) {
#if GPUCONV_TRANSPOSED
    return w + group * g.depth * g.w_depth;
#else
    return w + group * g.width * g.w_column;
#endif
}
