// CUDA C++ for g++: keywords, built-in variables and intrinsics. A translated kernel is compiled after this
// header, inside an unnamed namespace. cuda_mma.h holds the tensor-core and asynchronous-copy instructions.
#pragma once
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <type_traits>
#include <utility>

#include <vector_types.h>
#include <vector_functions.h>
#include <cuda_fp16.h>
#include <cuda_bf16.h>

#include "runtime.h"

// ---- keywords ---------------------------------------------------------------------------------------------
#undef __global__
#undef __device__
#undef __host__
#undef __shared__
#undef __constant__
#undef __forceinline__
#undef __noinline__
#undef __launch_bounds__
#undef __grid_constant__
#undef __align__
#define __global__
#define __device__
#define __host__
// One copy for the block, in a section of its own: the linker tells where it begins and ends, so it can be
// poisoned.
#define __shared__ static __attribute__((section("emulated_shared")))
#define __constant__ static
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)  // read by translate.py
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))
#define alignas(n) __attribute__((aligned(n)))  // g++ takes alignas only in front of `static`
#define assert(condition) \
  ((condition) ? void() : emulator_fault("assertion of line %d failed: %s", __LINE__, #condition))
#define __trap() emulator_fault("__trap() of line %d", __LINE__)
#define __CUDACC__ 1
#define __CUDACC_RTC__ 1
#define GPUCONV_EMULATOR 1
#define _CUDA_PIPELINE_H_  // cuda_mma.h has the functions of these
#define _CUDA_PIPELINE_PRIMITIVES_H_

static uint3 threadIdx, blockIdx;
static dim3 blockDim, gridDim;
static const int warpSize = 32;

// Without any __shared__ array the linker would not know the section.
__attribute__((section("emulated_shared"), used, aligned(16))) static char emulated_anchor[emulator::ANCHOR];
extern "C" char __start_emulated_shared[] __attribute__((visibility("hidden")));
extern "C" char __stop_emulated_shared[] __attribute__((visibility("hidden")));

namespace emulator {

template <class To, class From>
inline To bits(From value) {
  static_assert(sizeof(To) == sizeof(From), "a reinterpretation keeps the size");
  To to;
  memcpy(static_cast<void*>(&to), &value, sizeof to);
  return to;
}

template <class T>
struct Same {  // keeps an argument out of type deduction, as CUDA's overloads convert it
  using type = T;
};

// The compiler fuses a * b + c as NVRTC does; the _rn intrinsics promise that it is not.
template <class T>
inline T unfused(T value) {
  asm("" : "+m"(value));
  return value;
}

// ---- how a kernel is entered ------------------------------------------------------------------------------
template <auto K>
struct Entry;

template <class... P, void (*K)(P...)>
struct Entry<K> {
  template <size_t... I>
  static void call(void** a, std::index_sequence<I...>) {
    K(*static_cast<std::remove_cv_t<std::remove_reference_t<P>>*>(a[I])...);
  }
  static void body(void** arguments) { call(arguments, std::index_sequence_for<P...>{}); }

  static const char* run(const Launch* launch, const unsigned* sizes, unsigned count, unsigned bound) {
    static char text[128];
    const size_t wanted[] = {sizeof(P)..., 0};
    if (count != sizeof...(P)) {
      snprintf(text, sizeof text, "the kernel takes %zu arguments, got %u", sizeof...(P), count);
      return text;
    }
    for (unsigned i = 0; i < count; i++)
      if (sizes[i] != wanted[i]) {
        snprintf(text, sizeof text, "argument %u: the kernel wants %zu bytes, got %u", i, wanted[i],
                 sizes[i]);
        return text;
      }
    unsigned threads = launch->block.x * launch->block.y * launch->block.z;
    if (bound && threads > bound) {
      snprintf(text, sizeof text, "invalid block size: %u threads, __launch_bounds__ allows %u", threads,
               bound);
      return text;
    }
    auto index = [](auto& v) { return reinterpret_cast<Index*>(&v); };
    const Kernel kernel{body,
                        index(threadIdx),
                        index(blockIdx),
                        index(blockDim),
                        index(gridDim),
                        __start_emulated_shared,
                        size_t(__stop_emulated_shared - __start_emulated_shared)};
    return emulator_run(&kernel, launch);
  }
};

// ---- warp primitives --------------------------------------------------------------------------------------
template <class T>
struct Shuffle {
  T value;
  unsigned source;
  T result;
};

template <class T>
inline void shuffle_all(void** records, unsigned mask) {
  for (unsigned lane = 0; lane < 32; lane++) {
    if (!(mask >> lane & 1)) continue;
    auto* mine = static_cast<Shuffle<T>*>(records[lane]);
    if (!(mask >> mine->source & 1))
      emulator_fault("lane %u reads lane %u, which is not in the mask", lane, mine->source);
    mine->result = static_cast<Shuffle<T>*>(records[mine->source])->value;
  }
}

template <class T>
inline T shuffle(unsigned mask, T value, unsigned source, int line) {
  Shuffle<T> record{value, source, value};
  emulator_collective(mask, &record, shuffle_all<T>, line);
  return record.result;
}

struct Vote {
  bool value;
  unsigned ballot;
};

inline void vote_all(void** records, unsigned mask) {
  unsigned ballot = 0;
  for (unsigned lane = 0; lane < 32; lane++)
    if (mask >> lane & 1) ballot |= unsigned(static_cast<Vote*>(records[lane])->value) << lane;
  for (unsigned lane = 0; lane < 32; lane++)
    if (mask >> lane & 1) static_cast<Vote*>(records[lane])->ballot = ballot;
}

template <class T, class F>
inline T update(T* address, F f) {  // threads take turns only where they wait: nothing can come between
  T old = *address;
  *address = f(old);
  return old;
}

}  // namespace emulator

inline void __syncthreads(int line = __builtin_LINE()) { emulator_barrier(line); }
inline void __syncwarp(unsigned mask = 0xffffffffu, int line = __builtin_LINE()) {
  emulator_collective(mask, nullptr, nullptr, line);
}

template <class T>
inline T __shfl_sync(unsigned mask, T value, int source, int width = 32, int line = __builtin_LINE()) {
  unsigned lane = emulator_lane();
  return emulator::shuffle(mask, value, (lane & ~(width - 1)) | (source & (width - 1)), line);
}
template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, int line = __builtin_LINE()) {
  unsigned lane = emulator_lane(), source = lane ^ bits;
  return emulator::shuffle(mask, value, (source & ~(width - 1)) > (lane | (width - 1)) ? lane : source, line);
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                          int line = __builtin_LINE()) {
  unsigned lane = emulator_lane(), source = lane + delta;
  return emulator::shuffle(mask, value, source > (lane | (width - 1)) ? lane : source, line);
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, int line = __builtin_LINE()) {
  unsigned lane = emulator_lane();
  return emulator::shuffle(mask, value, (lane & (width - 1)) < delta ? lane : lane - delta, line);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
  emulator::Vote vote{predicate != 0, 0};
  emulator_collective(mask, &vote, emulator::vote_all, line);
  return vote.ballot;
}
inline int __any_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
  return __ballot_sync(mask, predicate, line) != 0;
}
inline int __all_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
  return __ballot_sync(mask, predicate, line) == mask;
}
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}
inline void __nanosleep(unsigned) {}

// ---- memory -----------------------------------------------------------------------------------------------
#define EMULATED_LOAD(name)   \
  template <class T>          \
  inline T name(const T* p) { \
    return *p;                \
  }
#define EMULATED_STORE(name)                                   \
  template <class T>                                           \
  inline void name(T* p, typename emulator::Same<T>::type v) { \
    *p = v;                                                    \
  }
EMULATED_LOAD(__ldg)
EMULATED_LOAD(__ldca)
EMULATED_LOAD(__ldcg)
EMULATED_LOAD(__ldcs)
EMULATED_LOAD(__ldlu)
EMULATED_LOAD(__ldcv)
EMULATED_STORE(__stwb)
EMULATED_STORE(__stcg)
EMULATED_STORE(__stcs)
EMULATED_STORE(__stwt)
#undef EMULATED_LOAD
#undef EMULATED_STORE

#define EMULATED_ATOMIC(name, expression)                               \
  template <class T>                                                    \
  inline T name(T* p, typename emulator::Same<T>::type v) {             \
    return emulator::update(p, [&](T old) -> T { return expression; }); \
  }
EMULATED_ATOMIC(atomicAdd, old + v)
EMULATED_ATOMIC(atomicSub, old - v)
EMULATED_ATOMIC(atomicMin, v < old ? v : old)
EMULATED_ATOMIC(atomicMax, v > old ? v : old)
EMULATED_ATOMIC(atomicAnd, old& v)
EMULATED_ATOMIC(atomicOr, old | v)
EMULATED_ATOMIC(atomicXor, old ^ v)
EMULATED_ATOMIC(atomicExch, (void(old), v))
#undef EMULATED_ATOMIC
template <class T>
inline T atomicCAS(T* p, typename emulator::Same<T>::type compare, typename emulator::Same<T>::type v) {
  return emulator::update(p, [&](T old) { return old == compare ? v : old; });
}

inline size_t __cvta_generic_to_shared(const void* p) { return emulator_shared_address(p); }
inline size_t __cvta_generic_to_global(const void* p) { return size_t(p); }
inline void* __cvta_shared_to_generic(size_t a) { return emulator_shared_pointer(a); }

// ---- arithmetic -------------------------------------------------------------------------------------------
// CUDA compares different types without a cast, and numbers win over NaN.
template <class A, class B>
inline std::common_type_t<A, B> min(A a, B b) {
  using T = std::common_type_t<A, B>;
  if constexpr (std::is_floating_point_v<T>) return fmin(T(a), T(b));
  return T(b) < T(a) ? T(b) : T(a);
}
template <class A, class B>
inline std::common_type_t<A, B> max(A a, B b) {
  using T = std::common_type_t<A, B>;
  if constexpr (std::is_floating_point_v<T>) return fmax(T(a), T(b));
  return T(a) < T(b) ? T(b) : T(a);
}

inline float __fadd_rn(float a, float b) { return emulator::unfused(a + b); }
inline float __fsub_rn(float a, float b) { return emulator::unfused(a - b); }
inline float __fmul_rn(float a, float b) { return emulator::unfused(a * b); }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __frcp_rn(float a) { return 1 / a; }
inline float __fsqrt_rn(float a) { return sqrtf(a); }
inline double __dadd_rn(double a, double b) { return emulator::unfused(a + b); }
inline double __dsub_rn(double a, double b) { return emulator::unfused(a - b); }
inline double __dmul_rn(double a, double b) { return emulator::unfused(a * b); }
inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __sinf(float x) { return sinf(x); }
inline float __cosf(float x) { return cosf(x); }
inline float __powf(float x, float y) { return powf(x, y); }
inline float __saturatef(float x) { return x > 0 ? x < 1 ? x : 1 : 0; }
// Macros, because newer C libraries declare these names too.
#define rsqrtf(x) (1 / sqrtf(x))
#define rsqrt(x) (1 / sqrt(x))
#define sinpif(x) float(sin(M_PI * double(x)))
#define cospif(x) float(cos(M_PI * double(x)))

inline unsigned __float_as_uint(float v) { return emulator::bits<unsigned>(v); }
inline int __float_as_int(float v) { return emulator::bits<int>(v); }
inline float __uint_as_float(unsigned v) { return emulator::bits<float>(v); }
inline float __int_as_float(int v) { return emulator::bits<float>(v); }
inline long long __double_as_longlong(double v) { return emulator::bits<long long>(v); }
inline double __longlong_as_double(long long v) { return emulator::bits<double>(v); }
inline int __float2int_rn(float v) { return int(rintf(v)); }
inline int __float2int_rz(float v) { return int(v); }
inline int __float2int_rd(float v) { return int(floorf(v)); }
inline float __int2float_rn(int v) { return float(v); }
inline float __uint2float_rn(unsigned v) { return float(v); }
inline float __double2float_rn(double v) { return float(v); }

inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __popcll(unsigned long long v) { return __builtin_popcountll(v); }
inline int __clz(int v) { return v ? __builtin_clz(v) : 32; }
inline int __clzll(long long v) { return v ? __builtin_clzll(v) : 64; }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline int __ffsll(long long v) { return __builtin_ffsll(v); }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(uint64_t(a) * b >> 32); }
inline int __mulhi(int a, int b) { return int(int64_t(a) * b >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return (unsigned long long)((unsigned __int128)a * b >> 64);
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned n) {
  return unsigned(((uint64_t(high) << 32 | low) << (n & 31)) >> 32);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned n) {
  return unsigned((uint64_t(high) << 32 | low) >> (n & 31));
}
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
  uint64_t both = uint64_t(y) << 32 | x;
  unsigned r = 0;
  for (int i = 0; i < 4; i++) r |= unsigned(both >> 8 * (selector >> 4 * i & 7) & 0xff) << 8 * i;
  return r;
}

// The host side of CUDA's headers has no fused operations on halves. A product of two is exact in double.
inline __half __hfma(__half a, __half b, __half c) {
  return __double2half(double(__half2float(a)) * __half2float(b) + __half2float(c));
}
inline __nv_bfloat16 __hfma(__nv_bfloat16 a, __nv_bfloat16 b, __nv_bfloat16 c) {
  return __double2bfloat16(double(__bfloat162float(a)) * __bfloat162float(b) + __bfloat162float(c));
}
inline __half2 __hfma2(__half2 a, __half2 b, __half2 c) {
  return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)};
}
inline __nv_bfloat162 __hfma2(__nv_bfloat162 a, __nv_bfloat162 b, __nv_bfloat162 c) {
  return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)};
}

#include "cuda_mma.h"

#define EMULATED_KERNEL(entry, bound)                                           \
  extern "C" __attribute__((visibility("default"))) const char* gpuconv_launch( \
      const emulator::Launch* launch, const unsigned* sizes, unsigned count) {  \
    return emulator::Entry<&entry>::run(launch, sizes, count, bound);           \
  }
