// The gathered product of gather.cuh on tensor cores, for half types and float32; sums are of float32.
//
// Macro: GPUCONV_TF32, for float32 only. 1 rounds the operands to TF32's 10 bits of fraction. 3 splits each operand in
// two such numbers and sums three products, which is as accurate as float32; but an infinity becomes a NaN.
#include "gather.cuh"

#if __CUDA_ARCH__ < 800
#error "mma.cu needs a device of compute capability 8.0 or later"
#endif

// Operands travel in chunks of 16 bytes and lie in shared memory in lines, one for each row and each column, of a
// step's terms. A word is what a register of a fragment holds, two halves or one float32: one layout for all types.
const int CHUNK = 16 / sizeof(Element), CHUNKS = 4, STEP = CHUNKS * CHUNK, WORDS = CHUNKS * 4;
// Four words more: any eight neighbouring lines' chunks are in different banks, to write and for ldmatrix.
const int PITCH = WORDS + 4;
// 8 warps, 4 by 2, each with 32 rows (2 fragments of 16) and 32 columns (4 fragments of 8).
const int ROWS = 128, COLUMNS = 64, THREADS = 256, SIDE = 32;

struct alignas(16) Chunk {
    unsigned word[4];
};

// Which chunk of which line a thread brings in its turn: neighbours in memory go to neighbouring threads.
template <int LINES, bool TERMS_ARE_CONTIGUOUS>
struct Turn {
    static const int COUNT = LINES * CHUNKS / THREADS;
    int line, chunk;
    __device__ __forceinline__ explicit Turn(int turn) {
        const int i = threadIdx.x + turn * THREADS;
        line = TERMS_ARE_CONTIGUOUS ? i / CHUNKS : i % LINES;
        chunk = TERMS_ARE_CONTIGUOUS ? i % CHUNKS : i / LINES;
    }
};
typedef Turn<ROWS, GPUCONV_CHANNELS_LAST> RowTurn;
typedef Turn<COLUMNS, GPUCONV_TRANSPOSED> ColumnTurn;

// --- from memory to registers --------------------------------------------------------------------

__device__ __forceinline__ unsigned bits_of(Element v) {
#if GPUCONV_TYPE == 0
    return __half_as_ushort(v);
#elif GPUCONV_TYPE == 1
    return __bfloat16_as_ushort(v);
#else
    return __float_as_uint(v);
#endif
}

// Element `e` of a chunk that is zero there.
__device__ __forceinline__ void put(Chunk& chunk, int e, Element v) {
    const int place = e * sizeof(Element);
    chunk.word[place / 4] |= bits_of(v) << place % 4 * 8;
}

__device__ __forceinline__ Term next(const Gather& g, Term term) {
    const bool last = term.channel + 1 == g.depth;
    return {term.m + last, last ? 0 : term.channel + 1};
}

// Whether every chunk of terms is 16 aligned bytes of one sample or tap: then it is one load.
__device__ __forceinline__ bool is_whole(const Element* base, Index depth, Index step, Index a, Index b) {
    return step == 1 && depth % CHUNK == 0 && a % CHUNK == 0 && b % CHUNK == 0 && (unsigned long long)base % 16 == 0;
}

// Rows past the last one are read as if they were there: what is made of them is not stored.
__device__ __forceinline__ Chunk row_chunk(const Gather& g, const Element* xs, Index row, Index number, Index all_terms,
                                           bool whole) {
    Chunk chunk = {};
    if (number >= all_terms) return chunk;
    Term term = term_of(g, number);
    if (whole) {
        const Index at = position_of(g, row, term.m);
        if (at >= 0 && at < g.in_length) chunk = *reinterpret_cast<const Chunk*>(xs + at * g.x_row + term.channel);
        return chunk;
    }
#pragma unroll
    for (int e = 0; e < CHUNK; e++, term = next(g, term)) {
        const Index at = position_of(g, row, term.m);
        if (number + e < all_terms && at >= 0 && at < g.in_length)
            put(chunk, e, xs[at * g.x_row + term.channel * g.x_channel]);
    }
    return chunk;
}

// A weight lies at the sum of what its column and what its term add; `wc` is where those of the column begin.
__device__ __forceinline__ Index column_of(const Gather& g, Index column) {
    return tap_of(g, column / Index(g.width), g.terms - 1) * g.w_tap + column % Index(g.width) * g.w_column;
}
__device__ __forceinline__ Index weight_of(const Gather& g, Term term) {
    return (g.terms - 1 - term.m) * g.period * g.w_tap + term.channel * g.w_depth;
}

__device__ __forceinline__ Chunk column_chunk(const Gather& g, const Element* wc, Index number, Index all_terms,
                                              bool whole) {
    Chunk chunk = {};
    if (number >= all_terms) return chunk;
    Term term = term_of(g, number);
    if (whole) return *reinterpret_cast<const Chunk*>(wc + weight_of(g, term));
#pragma unroll
    for (int e = 0; e < CHUNK; e++, term = next(g, term))
        if (number + e < all_terms) put(chunk, e, wc[weight_of(g, term)]);
    return chunk;
}

// --- to shared memory and from there to the tensor cores -----------------------------------------

#if GPUCONV_TYPE == 2
__device__ __forceinline__ unsigned to_tf32(float v) {
    unsigned r;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(v));
    return r;
}
#endif

__device__ __forceinline__ void write(unsigned* place, Chunk chunk) {
#if GPUCONV_TYPE == 2 && GPUCONV_TF32 == 1
#pragma unroll
    for (int i = 0; i < 4; i++) chunk.word[i] = to_tf32(__uint_as_float(chunk.word[i]));
#endif
    *reinterpret_cast<Chunk*>(place) = chunk;
}

// Sixteen lines by eight words, from line `line` and word `word` on: a fragment of 16 rows, or of twice 8 columns, the
// first of which has registers 0 and 2, the second 1 and 3.
__device__ __forceinline__ void read(unsigned (&r)[4], const unsigned (*lines)[PITCH], int line, int word) {
    const int lane = threadIdx.x % 32;
    const unsigned at = __cvta_generic_to_shared(&lines[line + lane % 16][word + lane / 16 * 4]);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}

// sum += a * b for 16 rows, 8 columns and the terms of 8 words.
__device__ __forceinline__ void multiply(float (&sum)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
#if GPUCONV_TYPE == 0
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#elif GPUCONV_TYPE == 1
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}

__device__ __forceinline__ void multiply_all(float (&sums)[2][4][4], const unsigned (&a)[2][4],
                                             const unsigned (&b)[2][4]) {
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) multiply(sums[i][j], a[i], b[j / 2][j % 2], b[j / 2][j % 2 + 2]);
}

#if GPUCONV_TF32 == 3
// v = large + small but for 2**-22 of it: what remains beside the large part is exact.
__device__ __forceinline__ void split(unsigned (&large)[2][4], unsigned (&small)[2][4]) {
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int r = 0; r < 4; r++) {
            const float v = __uint_as_float(large[i][r]);
            large[i][r] = to_tf32(v);
            small[i][r] = to_tf32(v - __uint_as_float(large[i][r]));
        }
}
#endif

// --- the kernel ----------------------------------------------------------------------------------

// Where a column's results go: which filter, and how far from the row's first one.
struct Target {
    Index channel, at;
};

__device__ __forceinline__ Target target_of(const Gather& g, Index group, Index column) {
    const Index channel = group * g.width + column % Index(g.width);
    return {channel, Index(column / Index(g.width) * g.y_phase + channel * g.y_channel)};
}

// Two blocks on a multiprocessor: one computes while the other waits for its operands. Indices of 64 bits would spill.
const int BLOCKS = sizeof(Index) == 4 ? 2 : 1;

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
    mma_gather(const Element* __restrict__ x, const Element* __restrict__ w, const Element* __restrict__ bias,
               Element* __restrict__ y, const Gather g) {
    // Two of each, in turns: who writes the next step is not in the way of who still reads this one. The barrier of the
    // step between keeps anyone from being two steps ahead.
    __shared__ __align__(16) unsigned rows[2][ROWS][PITCH], columns[2][COLUMNS][PITCH];
    int buffer = 0;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int warp_row = warp / 2 * SIDE, warp_column = warp % 2 * SIDE;
    const Index row0 = Index(blockIdx.x) * ROWS, column0 = Index(blockIdx.y) * COLUMNS;
    const Index all_terms = g.terms * g.depth, all_columns = g.phases * g.width;
    // A thread brings chunks of one column only, whose place costs divisions: once.
    static_assert(ColumnTurn::COUNT == 1, "one chunk of a column a thread");
    const ColumnTurn column_turn(0);
    const Index brought = column0 + column_turn.line;
    const Index brought_at = brought < all_columns ? column_of(g, brought) : 0;
    for (Index z = blockIdx.z; z < g.samples * g.groups; z += gridDim.z) {
        const Index sample = z / g.groups, group = z % g.groups;
        const Element* xs = input_of(g, x, sample, group);
        const Element* ws = kernel_of(g, w, group);
        const bool whole_rows = is_whole(xs, g.depth, g.x_channel, g.x_row, 0);
        const bool whole_columns = is_whole(ws, g.depth, g.w_depth, g.w_column, g.w_tap);
        Chunk from_x[RowTurn::COUNT], from_w;
        const auto fetch = [&](Index term0) {
#pragma unroll
            for (int i = 0; i < RowTurn::COUNT; i++) {
                const RowTurn turn(i);
                from_x[i] = row_chunk(g, xs, row0 + turn.line, term0 + turn.chunk * CHUNK, all_terms, whole_rows);
            }
            // There is nothing to read for columns past the last one.
            const Index terms = brought < all_columns ? all_terms : 0;
            from_w = column_chunk(g, ws + brought_at, term0 + column_turn.chunk * CHUNK, terms, whole_columns);
        };
        float sums[2][4][4] = {};
        fetch(0);
        for (Index term0 = 0; term0 < all_terms; term0 += STEP, buffer ^= 1) {
#pragma unroll
            for (int i = 0; i < RowTurn::COUNT; i++) {
                const RowTurn turn(i);
                write(&rows[buffer][turn.line][turn.chunk * 4], from_x[i]);
            }
            write(&columns[buffer][column_turn.line][column_turn.chunk * 4], from_w);
            __syncthreads();
            fetch(term0 + STEP);  // on its way while this step is multiplied; past the last step nothing is read
#pragma unroll
            for (int word = 0; word < WORDS; word += 8) {
                unsigned a[2][4], b[2][4];
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    read(a[i], rows[buffer], warp_row + i * 16, word);
                    read(b[i], columns[buffer], warp_column + i * 16, word);
                }
#if GPUCONV_TF32 == 3
                unsigned small_a[2][4], small_b[2][4];
                split(a, small_a);
                split(b, small_b);
                // Small ones first, before the sums have grown by the large one; small times small is below rounding.
                multiply_all(sums, small_a, b);
                multiply_all(sums, a, small_b);
#endif
                multiply_all(sums, a, b);
            }
        }
        // A fragment's registers are of two neighbouring columns, first in row lane / 4, then in the row 8 below it.
#pragma unroll
        for (int j = 0; j < 8; j++) {
            const Index column = column0 + warp_column + j / 2 * 8 + lane % 4 * 2 + j % 2;
            if (column >= all_columns) continue;
            const Target to = target_of(g, group, column);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const Index row = row0 + warp_row + i * 8 + lane / 4;
                if (row >= g.rows) continue;
                finish(y + sample * g.y_sample + row * g.y_row + to.at, sums[i / 2][j / 2][i % 2 * 2 + j % 2], bias,
                       to.channel);
            }
        }
    }
}
