// The gathered product of gather.cuh with plain multiply-adds, for every type.
#include "gather.cuh"

const int TILE = 64, STEP = 16, SIDE = 16, EACH = TILE / SIDE;  // SIDE * SIDE threads, EACH * EACH elements each

// One block a multiprocessor is enough to ask for: asked for more, ptxas spills sums to get there.
extern "C" __global__ void __launch_bounds__(SIDE * SIDE, 1)
    tile_gather(const Element* __restrict__ x, const Element* __restrict__ w, const Element* __restrict__ bias,
                Element* __restrict__ y, const Gather g) {
    __shared__ Number rows[STEP][TILE + 1], columns[STEP][TILE + 1];  // one more: neighbours in different banks
    const int tx = threadIdx.x % SIDE, ty = threadIdx.x / SIDE;
    const Index row0 = Index(blockIdx.x) * TILE, column0 = Index(blockIdx.y) * TILE;
    const Index all_terms = g.terms * g.depth, all_columns = g.phases * g.width;
    for (Index z = blockIdx.z; z < g.samples * g.groups; z += gridDim.z) {
        const Index sample = z / g.groups, group = z % g.groups;
        const Element* xs = input_of(g, x, sample, group);
        const Element* ws = kernel_of(g, w, group);
        Number sums[EACH][EACH];
        for (int a = 0; a < EACH; a++)
            for (int b = 0; b < EACH; b++) sums[a][b] = zero();
        for (Index term0 = 0; term0 < all_terms; term0 += STEP) {
            for (int i = threadIdx.x; i < STEP * TILE; i += SIDE * SIDE) {
#if GPUCONV_CHANNELS_LAST
                const int k = i % STEP, r = i / STEP;
#else
                const int k = i / TILE, r = i % TILE;
#endif
                const Index term = term0 + k, row = row0 + r;
                Number v = zero();
                if (term < all_terms && row < g.rows) {
                    const Term t = term_of(g, term);
                    const Index at = position_of(g, row, t.m);
                    if (at >= 0 && at < g.in_length) v = widen(xs[at * g.x_row + t.channel * g.x_channel]);
                }
                rows[k][r] = v;
            }
            for (int i = threadIdx.x; i < STEP * TILE; i += SIDE * SIDE) {
#if GPUCONV_TRANSPOSED
                const int k = i % STEP, n = i / STEP;
#else
                const int k = i / TILE, n = i % TILE;
#endif
                const Index term = term0 + k, column = column0 + n;
                Number v = zero();
                if (term < all_terms && column < all_columns) {
                    const Term t = term_of(g, term);
                    const Index tap = tap_of(g, column / Index(g.width), t.m);
                    v = widen(ws[tap * g.w_tap + column % Index(g.width) * g.w_column + t.channel * g.w_depth]);
                }
                columns[k][n] = v;
            }
            __syncthreads();
#pragma unroll
            for (int k = 0; k < STEP; k++)
#pragma unroll
                for (int a = 0; a < EACH; a++)
#pragma unroll
                    for (int b = 0; b < EACH; b++)
                        sums[a][b] = multiply_add(rows[k][ty + a * SIDE], columns[k][tx + b * SIDE], sums[a][b]);
            __syncthreads();
        }
#pragma unroll
        for (int a = 0; a < EACH; a++)
#pragma unroll
            for (int b = 0; b < EACH; b++) {
                const Index row = row0 + ty + a * SIDE, column = column0 + tx + b * SIDE;
                if (row >= g.rows || column >= all_columns) continue;
                const Index channel = group * g.width + column % Index(g.width);
                finish(y + sample * g.y_sample + row * g.y_row + column / Index(g.width) * g.y_phase + channel * g.y_channel,
                       sums[a][b], bias, channel);
            }
    }
}
