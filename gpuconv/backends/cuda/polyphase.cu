// Few channels, or each on its own: what memory moves takes longer than what is computed. 1 axis, all phases at once.
//
// A line of the output is what lies side by side: all channels of all samples, or the samples of one channel. A lane
// makes CHUNKS chunks of up to 16 bytes of a line that are whole periods apart, after which phases and channels repeat:
// the weights that it reads serve all of them, and neighbouring lanes write neighbouring chunks.
//
// Macro: GPUCONV_TOGETHER, whether a chunk is of one sample of neighbouring channels that do not mix, all of it 16
// aligned bytes in x and in the kernel.
#include "common.cuh"

// Elements of a chunk, and chunks: as many as registers hold. Halves that lie apart take a register each for an address.
const int SIZE = sizeof(Element) == 2 && !GPUCONV_TOGETHER ? 4 : 16 / sizeof(Element), CHUNKS = SIZE > 4 ? 2 : 4;

struct alignas(SIZE * sizeof(Element)) Chunk {
    Element element[SIZE];
};

struct Lines {
    long long planes, filters, length, channels;  // lines, and so many samples of so many channels in each
    long long apart, tiles;                       // chunks from one of a lane's to its next; lanes' turns in a line
    // Output sample o has F = o*row_step + shift, phase F % phases, and reads rows F / phases + q*hop at taps
    // phase + q*phases; `rows` is how much further a lane's next chunk reads.
    long long row_step, shift, phases, hop, terms, rows, in_length, kernel;
    long long width, depth;
    long long x_sample, x_row, x_channel, w_tap, w_filter, w_channel, y_sample, y_row, y_channel;
    long long contiguous;  // whether a line of y is
};

// What a lane must know of an element of its chunks, which is the same for all of them but for the row.
struct Origin {
    Index row, tap, x, w, channel;
};

__device__ __forceinline__ Origin origin_of(const Lines& g, Index plane, Index index) {
    const Index o = index / Index(g.channels);
    const Index sample = GPUCONV_CHANNELS_LAST ? plane : plane / Index(g.filters);
    const Index channel = GPUCONV_CHANNELS_LAST ? index % Index(g.channels) : plane % Index(g.filters);
    const Index group = channel / Index(g.width), full = o * Index(g.row_step) + Index(g.shift);
    // Rows before the input are negative only in the forward convolution, which has one phase.
    const Index row = g.phases == 1 ? full : full / Index(g.phases);
#if GPUCONV_TRANSPOSED
    const Index w = channel % Index(g.width) * g.w_filter + group * g.depth * g.w_channel;
#else
    const Index w = channel * g.w_filter;
#endif
    return {row, full - row * Index(g.phases), Index(sample * g.x_sample + group * g.depth * g.x_channel), w, channel};
}

// One element, or a chunk of them at once.
struct Loaded {
    Chunk chunk;
    __device__ __forceinline__ explicit Loaded(const Element* place) {
#if GPUCONV_TOGETHER
        chunk = *reinterpret_cast<const Chunk*>(place);
#else
        chunk.element[0] = *place;
#endif
    }
};

const int EACH = GPUCONV_TOGETHER ? 1 : SIZE;   // loads for a chunk
const int WIDE = GPUCONV_TOGETHER ? SIZE : 1;   // elements of a load

// One block a multiprocessor is enough to ask for: asked for more, ptxas spills to get there.
extern "C" __global__ void __launch_bounds__(256, 1)
    polyphase(const Element* __restrict__ x, const Element* __restrict__ w, const Element* __restrict__ bias,
              Element* __restrict__ y, const Lines g, const long long lanes) {
    const Index all = g.length * g.channels;
    for (Index lane = Index(blockIdx.x) * blockDim.x + threadIdx.x; lane < Index(lanes);
         lane += Index(gridDim.x) * blockDim.x) {
        const Index turn = lane / Index(g.apart), plane = turn / Index(g.tiles);
        const Index first = (turn % Index(g.tiles) * CHUNKS * g.apart + lane % Index(g.apart)) * SIZE;
        if (first >= all) continue;
        Origin origin[EACH];
#pragma unroll
        for (int e = 0; e < EACH; e++) origin[e] = origin_of(g, plane, min(first + e, all - 1));
        Number sums[CHUNKS][SIZE];
#pragma unroll
        for (int u = 0; u < CHUNKS; u++)
#pragma unroll
            for (int e = 0; e < SIZE; e++) sums[u][e] = zero();
        for (Index q = g.terms - 1; q >= 0; q--)
            for (Index c = 0; c < g.depth; c++)
#pragma unroll
                for (int e = 0; e < EACH; e++) {
                    const Index tap = origin[e].tap + q * Index(g.phases);
                    if (tap >= g.kernel) continue;
                    const Loaded weights(w + (tap * g.w_tap + origin[e].w + c * g.w_channel));
#pragma unroll
                    for (int u = 0; u < CHUNKS; u++) {
                        const Index row = origin[e].row + q * Index(g.hop) + u * Index(g.rows);
                        if (row < 0 || row >= g.in_length) continue;
                        const Loaded values(x + (row * g.x_row + origin[e].x + c * g.x_channel));
#pragma unroll
                        for (int i = 0; i < WIDE; i++)
                            sums[u][e + i] = multiply_add(widen(values.chunk.element[i]),
                                                          widen(weights.chunk.element[i]), sums[u][e + i]);
                    }
                }
        const Index sample = GPUCONV_CHANNELS_LAST ? plane : plane / Index(g.filters);
        Element* line = y + sample * g.y_sample + (GPUCONV_CHANNELS_LAST ? 0 : origin[0].channel * g.y_channel);
#pragma unroll
        for (int u = 0; u < CHUNKS; u++) {
            const Index begin = first + u * Index(g.apart) * SIZE;
            Chunk made;
#pragma unroll
            for (int e = 0; e < SIZE; e++)
                made.element[e] = finished(sums[u][e], bias, origin[e / WIDE].channel + e % WIDE);
            if (g.contiguous && begin + SIZE <= all && (unsigned long long)(line + begin) % sizeof(Chunk) == 0) {
                *reinterpret_cast<Chunk*>(line + begin) = made;
                continue;
            }
#pragma unroll
            for (int e = 0; e < SIZE; e++) {
                const Index index = begin + e;
                if (index < all)
                    line[index / Index(g.channels) * g.y_row + index % Index(g.channels) * g.y_channel] = made.element[e];
            }
        }
    }
}
