// The gradient with respect to the kernel of a convolution, from what it read and the gradient of what it made:
//
//     dw[j, f, c] = sum over samples n and positions i of y[n, i*stride + j*dilation - crop_left, f] * x[n, i, c]
//
// for every group of channels. x and y are those of the transposed convolution x -> y of a Problem: y is a gradient and
// x was read; of the forward convolution y -> x, x is one and y was read. What was read is conjugated.
//
// Terms (n, i) are summed in an order that depends on the shapes alone: bits repeat on every device.
#include "common.cuh"

const int THREADS = 256;

// An element of dw, in the order of a contiguous one.
struct Weight {
    Index tap[3], filter, channel;
};

__device__ __forceinline__ Weight weight_of(const Problem& p, Index i) {
    Weight w;
    w.channel = i % Index(p.groups * p.depth);
    i /= Index(p.groups * p.depth);
    w.filter = i % Index(p.width);
    i /= Index(p.width);
#pragma unroll
    for (int a = 2; a >= 0; a--) {
        w.tap[a] = i % Index(p.axis[a].kernel);
        i /= Index(p.axis[a].kernel);
    }
    return w;
}

__device__ __forceinline__ Element* element_of(const Problem& p, Element* dw, const Weight& w) {
    return dw + w.tap[0] * p.axis[0].w_step + w.tap[1] * p.axis[1].w_step + w.tap[2] * p.axis[2].w_step +
           w.filter * p.w_filter + w.channel * p.w_channel;
}

__device__ __forceinline__ Number x_factor(Element v) { return GPUCONV_TRANSPOSED ? conjugate(widen(v)) : widen(v); }
__device__ __forceinline__ Number y_factor(Element v) { return GPUCONV_TRANSPOSED ? widen(v) : conjugate(widen(v)); }

// --- a block for each element of dw --------------------------------------------------------------

struct Pair {
    const Element *x, *y;
};

// The factors of a term, or null pointers where the tap of that position lies outside of y.
__device__ __forceinline__ Pair factors_of(const Problem& p, const Element* xs, const Element* ys, const Weight& w,
                                           Index term) {
#pragma unroll
    for (int a = 2; a >= 0; a--) {
        const Axis& axis = p.axis[a];
        const Index position = term % Index(axis.in_length);
        const Index target = position * axis.stride + w.tap[a] * axis.dilation - axis.crop_left;
        if (target < 0 || target >= axis.out_length) return {nullptr, nullptr};
        term /= Index(axis.in_length);
        xs += position * axis.x_step;
        ys += target * axis.y_step;
    }
    return {xs + term * p.x_sample, ys + term * p.y_sample};
}

extern "C" __global__ void __launch_bounds__(THREADS)
    direct_kernel_gradient(const Element* __restrict__ x, const Element* __restrict__ y, Element* __restrict__ dw,
                           const Problem p, const long long count) {
    __shared__ Number sums[THREADS];
    const Index terms = p.samples * p.axis[0].in_length * p.axis[1].in_length * p.axis[2].in_length;
    for (Index i = blockIdx.x; i < Index(count); i += gridDim.x) {
        const Weight w = weight_of(p, i);
        const Element* xs = x + w.channel * p.x_channel;
        const Element* ys = y + (w.channel / Index(p.depth) * p.width + w.filter) * p.y_channel;
        Number sum = zero();
        for (Index term = threadIdx.x; term < terms; term += THREADS) {
            const Pair at = factors_of(p, xs, ys, w, term);
            if (at.x) sum = multiply_add(y_factor(*at.y), x_factor(*at.x), sum);
        }
        sums[threadIdx.x] = sum;
        __syncthreads();
        for (int half = THREADS / 2; half; half /= 2) {
            if (threadIdx.x < half) sums[threadIdx.x] = add(sums[threadIdx.x], sums[threadIdx.x + half]);
            __syncthreads();
        }
        // No other thread touches this sum before the next one is ready.
        if (threadIdx.x == 0) *element_of(p, dw, w) = narrow(sums[0]);
    }
}

// --- tiles of a matrix product, 1 axis -----------------------------------------------------------

// Rows are taps and filters, columns channels. A block sums one slice of the terms for one tile.
const int TILE = 64, STEP = 16, SIDE = 16, EACH = TILE / SIDE;  // SIDE * SIDE threads, EACH * EACH elements each
// Lines of shared memory, one for each term, begin at multiples of 16 bytes and in different banks.
const int PITCH = TILE + 16 / sizeof(Number);

// What a thread brings of a step: so many terms of so many rows and columns. Neighbours in memory, channels or positions,
// go to neighbouring threads. With a stride, positions are no neighbours in y: what lies between is read for the next
// taps, and soon where those are the next rows.
#if GPUCONV_CHANNELS_LAST
const int TERMS = STEP * TILE / THREADS, LINES = 1, NEXT_TERM = THREADS / TILE, NEXT_LINE = TILE;
__device__ __forceinline__ int first_term() { return threadIdx.x / TILE; }
__device__ __forceinline__ int first_line() { return threadIdx.x % TILE; }
__device__ __forceinline__ Index tap_of(const Problem& p, Index row) { return row / Index(p.width); }
__device__ __forceinline__ Index filter_of(const Problem& p, Index row) { return row % Index(p.width); }
#else
const int TERMS = 1, LINES = STEP * TILE / THREADS, NEXT_TERM = STEP, NEXT_LINE = THREADS / STEP;
__device__ __forceinline__ int first_term() { return threadIdx.x % STEP; }
__device__ __forceinline__ int first_line() { return threadIdx.x / STEP; }
__device__ __forceinline__ Index tap_of(const Problem& p, Index row) { return row % Index(p.axis[2].kernel); }
__device__ __forceinline__ Index filter_of(const Problem& p, Index row) { return row / Index(p.axis[2].kernel); }
#endif

struct Term {
    Index sample, position;
};

__device__ __forceinline__ Term after(Term term, Index more, Index length) {
    term.position += more;
    if (term.position >= length) {
        term.sample += term.position / length;
        term.position %= length;
    }
    return term;
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    tile_kernel_gradient(const Element* __restrict__ x, const Element* __restrict__ y, Element* __restrict__ dw,
                         Number* __restrict__ partials, const Problem p, const long long slices,
                         const long long slice_terms) {
    __shared__ alignas(16) Number rows[STEP][PITCH], columns[STEP][PITCH];
    const Axis& axis = p.axis[2];
    const int tx = threadIdx.x % SIDE, ty = threadIdx.x / SIDE;
    const Index row0 = Index(blockIdx.x) * TILE, column0 = Index(blockIdx.y) * TILE;
    const Index all_rows = axis.kernel * p.width, all_columns = p.depth, all_terms = p.samples * axis.in_length;
    Index shift[LINES], row_at[LINES], column_at[LINES];
#pragma unroll
    for (int l = 0; l < LINES; l++) {
        // Lines past the last one bring what it does: what is made of them is not stored.
        const Index row = min(row0 + first_line() + l * NEXT_LINE, all_rows - 1);
        const Index column = min(column0 + first_line() + l * NEXT_LINE, all_columns - 1);
        shift[l] = tap_of(p, row) * Index(axis.dilation) - Index(axis.crop_left);
        row_at[l] = filter_of(p, row) * Index(p.y_channel);
        column_at[l] = column * Index(p.x_channel);
    }
    for (Index z = blockIdx.z; z < p.groups * slices; z += gridDim.z) {
        const Index group = z / Index(slices), slice = z % Index(slices);
        const Element* xs = x + group * p.depth * p.x_channel;
        const Element* ys = y + group * p.width * p.y_channel;
        const Index end = min((slice + 1) * slice_terms, (long long)all_terms);
        Term next = after({0, 0}, slice * slice_terms + first_term(), axis.in_length);
        Number sums[EACH][EACH];
        for (int a = 0; a < EACH; a++)
            for (int b = 0; b < EACH; b++) sums[a][b] = zero();
        for (Index term0 = slice * slice_terms; term0 < end; term0 += STEP) {
            Term term = next;
#pragma unroll
            for (int t = 0; t < TERMS; t++, term = after(term, NEXT_TERM, axis.in_length)) {
                const int k = first_term() + t * NEXT_TERM;
                const bool counts = term0 + k < end;
                const Element* xt = xs + term.sample * p.x_sample + term.position * Index(axis.x_step);
                const Element* yt = ys + term.sample * p.y_sample;
#pragma unroll
                for (int l = 0; l < LINES; l++) {
                    const Index target = term.position * Index(axis.stride) + shift[l];
                    const bool inside = counts && target >= 0 && target < Index(axis.out_length);
                    rows[k][first_line() + l * NEXT_LINE] =
                        inside ? y_factor(yt[target * Index(axis.y_step) + row_at[l]]) : zero();
                    columns[k][first_line() + l * NEXT_LINE] = counts ? x_factor(xt[column_at[l]]) : zero();
                }
            }
            next = after(next, STEP, axis.in_length);
            __syncthreads();
#pragma unroll
            for (int k = 0; k < STEP; k++)
#pragma unroll
                for (int a = 0; a < EACH; a++)
#pragma unroll
                    for (int b = 0; b < EACH; b++)
                        sums[a][b] = multiply_add(rows[k][ty * EACH + a], columns[k][tx * EACH + b], sums[a][b]);
            __syncthreads();
        }
#pragma unroll
        for (int a = 0; a < EACH; a++)
#pragma unroll
            for (int b = 0; b < EACH; b++) {
                const Index row = row0 + ty * EACH + a, column = column0 + tx * EACH + b;
                if (row >= all_rows || column >= all_columns) continue;
                const Weight w = {{0, 0, tap_of(p, row)}, filter_of(p, row), group * all_columns + column};
                if (slices == 1)
                    *element_of(p, dw, w) = narrow(sums[a][b]);
                else
                    partials[((slice * axis.kernel + w.tap[2]) * p.width + w.filter) * p.groups * p.depth + w.channel] =
                        sums[a][b];
            }
    }
}

// One thread for each of the `count` elements of dw adds the sums of its slices, first to last.
extern "C" __global__ void add_kernel_gradient(const Number* __restrict__ partials, Element* __restrict__ dw,
                                               const Problem p, const long long slices, const long long count) {
    for (Index i = Index(blockIdx.x) * blockDim.x + threadIdx.x; i < Index(count); i += Index(gridDim.x) * blockDim.x) {
        Number sum = zero();
#pragma unroll 8  // loads that do not wait for each other
        for (Index slice = 0; slice < slices; slice++) sum = add(sum, partials[slice * count + i]);
        *element_of(p, dw, weight_of(p, i)) = narrow(sum);
    }
}
