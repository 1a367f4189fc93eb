// Tensor cores and asynchronous copies. The names in `ptx` are what translate.py makes of an asm statement:
// one function per instruction, its operands in the instruction's own order. Fragment layouts are those of
// the PTX ISA.
#pragma once

namespace emulator {

template <int Rows, int Columns>
using Tile = float[Rows][Columns];

typedef short Shorts __attribute__((vector_size(16)));

// Number `which` of a register that holds two halves or one tf32 number, of which the low 13 bits are not
// read.
template <class E>
inline float element(unsigned r, int which) {
  if constexpr (sizeof(E) == 4) return bits<float>(r & 0xffffe000u);
  unsigned short u = which ? r >> 16 : r & 0xffff;
  if constexpr (std::is_same_v<E, __nv_bfloat16>) return bits<float>(unsigned(u) << 16);
#ifdef __F16C__  // one instruction, where the header's own conversion takes the bits apart
  return __builtin_ia32_vcvtph2ps(Shorts{short(u)})[0];
#else
  return __half2float(bits<__half>(u));
#endif
}

// What a lane brings to D = A B + C, the m16n8kK product of a warp.
template <class E, int K>
struct Product {
  static constexpr int per_register = sizeof(E) == 2 ? 2 : 1;
  static constexpr int na = K / (2 * per_register), nb = K / (4 * per_register);
  float c[4];
  unsigned a[na], b[nb];
};

// Element i (of two, or one) of register r of lane l is A[row][k]; of B it is B[k][l / 4].
template <class E, int K>
inline void multiply(void** records, unsigned) {
  using P = Product<E, K>;
  constexpr int n = P::per_register;
  Tile<16, K> a;
  Tile<K, 8> b;
  for (int l = 0; l < 32; l++) {
    auto* p = static_cast<P*>(records[l]);
    for (int r = 0; r < P::na; r++)
      for (int i = 0; i < n; i++)
        a[l / 4 + r % 2 * 8][l % 4 * n + i + r / 2 * 4 * n] = element<E>(p->a[r], i);
    for (int r = 0; r < P::nb; r++)
      for (int i = 0; i < n; i++) b[l % 4 * n + i + r * 4 * n][l / 4] = element<E>(p->b[r], i);
  }
  for (int row = 0; row < 16; row++) {
    float d[8];
    for (int i = 0; i < 8; i++) d[i] = static_cast<P*>(records[row % 8 * 4 + i / 2])->c[row / 8 * 2 + i % 2];
    for (int k = 0; k < K; k++)
      for (int i = 0; i < 8; i++) d[i] += a[row][k] * b[k][i];
    for (int i = 0; i < 8; i++) static_cast<P*>(records[row % 8 * 4 + i / 2])->c[row / 8 * 2 + i % 2] = d[i];
  }
}

template <class E, int K>
inline void product(Product<E, K>& p, int capability, int needed, int line) {
  if (capability < needed) emulator_fault("mma.sync of this shape needs sm_%d (line %d)", needed, line);
  emulator_collective(0xffffffffu, &p, multiply<E, K>, line);
}

struct MatrixLoad {
  const void* row;
  unsigned result[4];
};

// Matrix m of N: its eight rows, of 16 bytes, are where lanes 8 m to 8 m + 7 point.
template <int N, bool Transposed>
inline void load_matrices(void** records, unsigned) {
  for (int m = 0; m < N; m++)
    for (int l = 0; l < 32; l++)
      for (int i = 0; i < 2; i++) {
        int row = Transposed ? l % 4 * 2 + i : l / 4, column = Transposed ? l / 4 : l % 4 * 2 + i;
        unsigned short v =
            static_cast<const unsigned short*>(static_cast<MatrixLoad*>(records[8 * m + row])->row)[column];
        unsigned& r = static_cast<MatrixLoad*>(records[l])->result[m];
        r = i ? r | unsigned(v) << 16 : v;
      }
}

namespace ptx {

template <class E>
inline void mma_k16(int arch, int line, float& d0, float& d1, float& d2, float& d3, unsigned a0, unsigned a1,
                    unsigned a2, unsigned a3, unsigned b0, unsigned b1, float c0, float c1, float c2,
                    float c3) {
  Product<E, 16> p{{c0, c1, c2, c3}, {a0, a1, a2, a3}, {b0, b1}};
  product(p, arch, 80, line);
  d0 = p.c[0], d1 = p.c[1], d2 = p.c[2], d3 = p.c[3];
}

template <class E>
inline void mma_k8(int arch, int line, float& d0, float& d1, float& d2, float& d3, unsigned a0, unsigned a1,
                   unsigned b0, float c0, float c1, float c2, float c3) {
  Product<E, 8> p{{c0, c1, c2, c3}, {a0, a1}, {b0}};
  product(p, arch, std::is_same_v<E, __half> ? 75 : 80, line);
  d0 = p.c[0], d1 = p.c[1], d2 = p.c[2], d3 = p.c[3];
}

inline void mma_tf32(int arch, int line, float& d0, float& d1, float& d2, float& d3, unsigned a0, unsigned a1,
                     unsigned a2, unsigned a3, unsigned b0, unsigned b1, float c0, float c1, float c2,
                     float c3) {
  Product<float, 8> p{{c0, c1, c2, c3}, {a0, a1, a2, a3}, {b0, b1}};
  product(p, arch, 80, line);
  d0 = p.c[0], d1 = p.c[1], d2 = p.c[2], d3 = p.c[3];
}

template <int N, bool Transposed, class... R>
inline void ldmatrix_to(int line, unsigned long long address, R&... results) {
  MatrixLoad load{emulator_lane() < 8 * N ? emulator_shared_pointer(address) : nullptr, {}};
  if (uintptr_t(load.row) % 16) emulator_fault("ldmatrix: a row that is not 16-byte aligned (line %d)", line);
  emulator_collective(0xffffffffu, &load, load_matrices<N, Transposed>, line);
  int i = 0;
  ((results = load.result[i++]), ...);
}

// The instruction names its results before the address.
inline void ldmatrix_x1(int, int line, unsigned& r0, unsigned long long at) {
  ldmatrix_to<1, false>(line, at, r0);
}
inline void ldmatrix_x1_trans(int, int line, unsigned& r0, unsigned long long at) {
  ldmatrix_to<1, true>(line, at, r0);
}
inline void ldmatrix_x2(int, int line, unsigned& r0, unsigned& r1, unsigned long long at) {
  ldmatrix_to<2, false>(line, at, r0, r1);
}
inline void ldmatrix_x2_trans(int, int line, unsigned& r0, unsigned& r1, unsigned long long at) {
  ldmatrix_to<2, true>(line, at, r0, r1);
}
inline void ldmatrix_x4(int, int line, unsigned& r0, unsigned& r1, unsigned& r2, unsigned& r3,
                        unsigned long long at) {
  ldmatrix_to<4, false>(line, at, r0, r1, r2, r3);
}
inline void ldmatrix_x4_trans(int, int line, unsigned& r0, unsigned& r1, unsigned& r2, unsigned& r3,
                              unsigned long long at) {
  ldmatrix_to<4, true>(line, at, r0, r1, r2, r3);
}

template <class R>
inline void cvt_tf32(int arch, int line, R& to, float from) {  // to nearest, ties away from zero
  if (arch < 80) emulator_fault("cvt.rna.tf32 needs sm_80 (line %d)", line);
  unsigned u = bits<unsigned>(from);
  to = isfinite(from) ? (u + 0x1000u) & 0xffffe000u : u;
}

template <class P>
inline void copy_async(int arch, int line, unsigned long long to, P from, unsigned bytes,
                       unsigned valid = 16) {
  if (arch < 80) emulator_fault("cp.async needs sm_80 (line %d)", line);
  emulator_copy_async(emulator_shared_pointer(to), (const void*)from, bytes, valid);
}
template <class P>
inline void copy_async_16(int arch, int line, unsigned long long to, P from, unsigned bytes,
                          unsigned valid = 16) {
  if (bytes != 16) emulator_fault("cp.async.cg copies 16 bytes, not %u (line %d)", bytes, line);
  copy_async(arch, line, to, from, bytes, valid);
}
inline void copy_commit(int, int) { emulator_copy_commit(); }
inline void copy_wait(int, int, unsigned groups_left_open) { emulator_copy_wait(groups_left_open); }
inline void copy_wait_all(int, int) {
  emulator_copy_commit();
  emulator_copy_wait(0);
}

}  // namespace ptx
}  // namespace emulator

inline void __pipeline_memcpy_async(void* to, const void* from, size_t bytes, size_t zero_filled = 0) {
  emulator_copy_async(emulator_shared_pointer(emulator_shared_address(to)), from, bytes,
                      unsigned(bytes - zero_filled));
}
inline void __pipeline_commit() { emulator_copy_commit(); }
inline void __pipeline_wait_prior(unsigned groups_left_open) { emulator_copy_wait(groups_left_open); }
