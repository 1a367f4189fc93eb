"""The emulator and the compile gate themselves: right numbers from right kernels, planted faults caught."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from .emulator import ORDERS, CompileError, CudaFault, Emulator, compile_gate, missing
from .emulator.translate import INSTRUCTIONS, translate

ml_dtypes = pytest.importorskip("ml_dtypes")
emulated = pytest.mark.skipif(missing() is not None, reason=str(missing()))
compiled = pytest.mark.skipif(compile_gate.missing() is not None, reason=str(compile_gate.missing()))

I32 = np.int32
BF16 = np.dtype(ml_dtypes.bfloat16)
RNG = np.random.default_rng(7)

GOOD = r"""
#include <cuda_fp16.h>
#include <cuda_bf16.h>
struct Sizes { int n; float scale; long long shift; };

extern "C" __global__ void __launch_bounds__(128) scale(const float* x, float* y, int n, float a) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = a * x[i];
}
extern "C" __global__ void reverse(const float* x, float* y) {
  extern __shared__ __align__(16) float s[];
  s[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  y[threadIdx.x] = s[blockDim.x - 1 - threadIdx.x];
}
extern "C" __global__ void row_sum(const float* x, float* y, int n) {
  float sum = 0;
  for (int i = threadIdx.x; i < n; i += 32) sum += x[blockIdx.x * n + i];
  #pragma unroll
  for (int d = 16; d; d >>= 1) sum += __shfl_down_sync(0xffffffffu, sum, d);
  if (threadIdx.x == 0) y[blockIdx.x] = sum;
}
extern "C" __global__ void by_value(const Sizes sizes, long long* y) {
  if (threadIdx.x < sizes.n) y[threadIdx.x] = (long long)(threadIdx.x * sizes.scale) + sizes.shift;
}
extern "C" __global__ void halves(const __half* x, const __nv_bfloat16* b, __half* y, __nv_bfloat16* z) {
  int i = threadIdx.x;
  y[i] = __hadd(x[i], __float2half_rn(1.5f));
  z[i] = __float2bfloat16_rn(__bfloat162float(b[i]) * 3.0f);
}
extern "C" __global__ void histogram(const int* x, int* y, int n) {
  __shared__ int bins[16];
  if (threadIdx.x < 16) bins[threadIdx.x] = 0;
  __syncthreads();
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
    atomicAdd(&bins[x[i]], 1);
  __syncthreads();
  if (threadIdx.x < 16) atomicAdd(y + threadIdx.x, bins[threadIdx.x]);
}
extern "C" __global__ void subsets(unsigned* y) {  // the lower half of a warp meets once more than the upper
  unsigned lane = threadIdx.x, v = lane;
  if (lane < 16) v = __shfl_xor_sync(0xffffu, v, 1);
  v = __shfl_sync(0xffffffffu, v, 31 - lane);
  unsigned odd = __ballot_sync(0xffffffffu, lane % 2);
  y[lane] = v + 100 * (odd == 0xaaaaaaaau) + 1000 * __any_sync(~0u, lane == 9);
}
"""


def run(source, entry, grid, block, args, *, order="forward", options=(), shared=0, **settings):
    device = Emulator(order, **settings)
    device.function(source, entry, ("-std=c++17", *options))(grid, block, args, shared_memory=shared)
    return device


def poison(shape, dtype="f4"):
    return Emulator().empty(shape, dtype)


def alive():
    """The next launch works: the process and the emulator survived."""
    y = poison(32)
    run(GOOD, "reverse", (1,), (32,), (np.arange(32, dtype="f4"), y), shared=128)
    assert (y == np.arange(32)[::-1]).all()


def caught(match, source, entry, grid, block, args, **settings):
    with pytest.raises(CudaFault, match=match):
        run(source, entry, grid, block, args, **settings)
    alive()


# ---- right kernels -----------------------------------------------------------------------------------------


@emulated
@pytest.mark.parametrize("front", [False, True])
@pytest.mark.parametrize("order", ORDERS)
def test_elementwise_with_a_tail(order, front):
    device = Emulator(order, front=front)
    x = device.guarded(RNG.standard_normal(1001).astype("f4"), front)
    y = device.empty(1001, "f4")
    assert np.isnan(y).all()
    device.function(GOOD, "scale")((8,), (128,), (x, y, I32(1001), np.float32(2)))
    assert (y == 2 * x).all()
    assert (device.launches, device.switches) == (1, 0)  # nobody waits: one fiber serves all


@emulated
@pytest.mark.parametrize("order", ORDERS)
def test_shared_memory_in_two_dimensions_of_threads(order):
    source = GOOD.replace("threadIdx.x", "(threadIdx.z * 4 + threadIdx.y * 2 + threadIdx.x)").replace(
        "blockDim.x - 1", "7"
    )
    x, y = np.arange(8, dtype="f4"), poison(8)
    run(source, "reverse", (1, 1, 1), (2, 2, 2), (x, y), order=order, shared=32)
    assert (y == x[::-1]).all()


@emulated
def test_warp_shuffles_add_a_row_alike_in_every_order():
    x = RNG.standard_normal((5, 77)).astype("f4")
    found = []
    for order in ORDERS:
        y = poison(5)
        run(GOOD, "row_sum", (5,), (32,), (x, y, I32(77)), order=order)
        found.append(y.tobytes())
    np.testing.assert_allclose(y, x.sum(1, dtype="f8"), rtol=0, atol=1e-5)
    assert len(set(found)) == 1


@emulated
@pytest.mark.parametrize("order", ORDERS)
def test_parts_of_a_warp_meet_on_their_own(order):
    y = poison(32, "u4")
    run(GOOD, "subsets", (1,), (32,), (y,), order=order)
    lanes = np.where(np.arange(32) < 16, np.arange(32) ^ 1, np.arange(32))
    assert (y == lanes[::-1] + 1100).all()


@emulated
def test_struct_by_value():
    sizes = np.zeros((), np.dtype([("n", "i4"), ("scale", "f4"), ("shift", "i8")], align=True))
    sizes[()] = (5, 3.0, 2**40)
    y = poison(5, "i8")
    run(GOOD, "by_value", (1,), (8,), (sizes[()], y))
    assert (y == 3 * np.arange(5) + 2**40).all()


@emulated
def test_half_arrays():
    x = RNG.standard_normal(64).astype("f2")
    b = RNG.standard_normal(64).astype(BF16)
    y, z = poison(64, "f2"), poison(64, BF16)
    run(GOOD, "halves", (1,), (64,), (x, b, y, z))
    assert (y == x + np.float16(1.5)).all()
    assert (z == (b.astype("f4") * 3).astype(BF16)).all()


@emulated
def test_a_view_is_a_pointer_to_its_first_element():
    device = Emulator()
    whole = device.guarded(np.arange(100, dtype="f4"))
    y = device.empty(100, "f4")
    device.function(GOOD, "scale")((1,), (32,), (whole[90:], y[5:15], I32(10), np.float32(1)))
    assert (y[5:15] == np.arange(90, 100)).all()
    assert np.isnan(y[:5]).all()
    assert np.isnan(y[15:]).all()


@emulated
@pytest.mark.parametrize("shape", [(), (0, 3), 5, (2, 3), np.int64(4)])
@pytest.mark.parametrize("dtype", ["f4", "c16", "u1", BF16, [("a", "i4"), ("b", "f8")]])
def test_arrays_of_any_shape_and_type(shape, dtype):
    for array in (poison(shape, dtype), Emulator(front=True).empty(shape, dtype)):
        assert (array.shape, array.dtype) == (np.empty(shape, dtype).shape, np.dtype(dtype))
        assert array.tobytes() == b"\xff" * array.nbytes
        copy = Emulator().guarded(np.zeros(shape, dtype))
        assert copy.tobytes() == bytes(array.nbytes)
        run('extern "C" __global__ void f(void* a, void* b) {}', "f", (1,), (1,), (array, copy))


@emulated
@pytest.mark.parametrize("order", ORDERS)
def test_atomics(order):
    x = RNG.integers(0, 16, 5000).astype("i4")
    y = np.zeros(16, "i4")
    run(GOOD, "histogram", (7,), (96,), (x, y, I32(5000)), order=order)
    assert (y == np.bincount(x, minlength=16)).all()


@emulated
@pytest.mark.parametrize("order", ORDERS)
def test_every_block_runs_once(order):
    source = """extern "C" __global__ void f(int* y) {
      y[(blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x] += 1; }"""
    for grid in [(1,), (2,), (97,), (6, 5, 4), (98, 2)]:
        y = np.zeros(np.prod(grid), "i4")
        run(source, "f", grid, (1,), (y,), order=order)
        assert (y == 1).all()


@emulated
def test_arguments_travel_as_cupy_packs_them():
    source = """extern "C" __global__ void f(double* y, long long i, double d, bool b, void* p, double2 c) {
      y[0] = i; y[1] = d; y[2] = b; y[3] = p == 0; y[4] = c.y; }"""
    y = poison(5, "f8")
    run(source, "f", (1,), (1,), (y, 7, 2.5, True, None, 1 + 4j))
    assert list(y) == [7, 2.5, 1, 1, 4]
    with pytest.raises(TypeError, match="unsupported type"):
        run(source, "f", (1,), (1,), (y, "7", 2.5, True, None, 1j))


@emulated
def test_definitions_and_the_architecture_reach_the_source():
    source = """extern "C" __global__ void f(int* y) { y[0] = GPUCONV_STRIDE; y[1] = __CUDA_ARCH__; }"""
    y = poison(2, "i4")
    run(
        source, "f", (1,), (1,), (y,), options=("-DGPUCONV_STRIDE=8", "--ptxas-options=-v"), capability=(7, 5)
    )
    assert list(y) == [8, 750]


@emulated
def test_the_limits_are_those_of_the_device():
    assert [Emulator(capability=c).shared_memory for c in ((7, 5), (8, 0), (9, 0))] == [65536, 166912, 232448]
    assert Emulator(multiprocessors=2, shared_memory=49152).multiprocessors == 2
    assert Emulator(capability=(8, 7)).shared_memory == 101376  # what is not listed is taken to be its elder
    for order in (0, 1, "sideways"):
        with pytest.raises(ValueError, match="order"):
            Emulator(order)


# ---- tensor cores and PTX ----------------------------------------------------------------------------------

# D[16, 8] = A[16, K] B[K, 8] by one warp, written as for a real device.
PRODUCT = r"""
#include <cuda_fp16.h>
#include <cuda_bf16.h>
__device__ unsigned operand(const float* p, int step) {
  unsigned r;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(p[threadIdx.x % 4 * step]));
  return r;
}
template <class Half> __device__ unsigned operand(const Half* p, int step) {
  const unsigned short* u = (const unsigned short*)p + threadIdx.x % 4 * 2 * step;
  return u[0] | (unsigned)u[step] << 16;
}
extern "C" __global__ void product(const ELEMENT* A, const ELEMENT* B, float* D, int K) {
  int g = threadIdx.x / 4, t = threadIdx.x % 4;
  float d[4] = {0.f, 0.f, 0.f, 0.f};
  for (int k = 0; k < K; k += STEP) {
    unsigned a[4], b[2];
    for (int r = 0; r < NA; r++) a[r] = operand(A + (g + r % 2 * 8) * K + k + r / 2 * (STEP / 2), 1);
    for (int r = 0; r < NA / 2; r++) b[r] = operand(B + (k + r * (STEP / 2)) * 8 + g, 8);
    asm volatile(
        "mma.sync.aligned.SHAPE.row.col.f32.KIND.KIND.f32 {%0, %1, %2, %3}, OPERANDS, "
        "{%0, %1, %2, %3};\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
  for (int i = 0; i < 4; i++) D[(g + i / 2 * 8) * 8 + t * 2 + i % 2] = d[i];
}
"""
KINDS = {
    "f16": ("__half", "m16n8k16", "f2"),
    "bf16": ("__nv_bfloat16", "m16n8k16", BF16),
    "tf32": ("float", "m16n8k8", "f4"),
    "f16 k8": ("__half", "m16n8k8", "f2"),
    "bf16 k8": ("__nv_bfloat16", "m16n8k8", BF16),
}


def product_source(kind):
    element, shape, _ = KINDS[kind]
    half = kind.endswith("k8")  # as many registers
    words = {
        "ELEMENT": element,
        "STEP": shape.partition("k")[2],
        "SHAPE": shape,
        "KIND": kind.split()[0],
        "NA": "2" if half else "4",
        "OPERANDS": "{%4, %5}, {%8}" if half else "{%4, %5, %6, %7}, {%8, %9}",
    }
    return re.sub(r"ELEMENT|STEP|SHAPE|KIND|\bNA\b|OPERANDS", lambda word: words[word[0]], PRODUCT)


def product(kind, A, B, **settings):
    D = poison((16, 8))
    run(product_source(kind), "product", (1,), (32,), (A, B, D, I32(A.shape[1])), **settings)
    return D


def rounded_to_tf32(x):
    return ((x.view("u4") + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view("f4")


@emulated
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", KINDS)
def test_mma_equals_numpy_exactly_on_small_integers(kind, order):
    A, B = (RNG.integers(-8, 9, s).astype(KINDS[kind][2]) for s in ((16, 48), (48, 8)))
    assert (product(kind, A, B, order=order) == A.astype("f8") @ B.astype("f8")).all()


@emulated
@pytest.mark.parametrize("kind", KINDS)
def test_mma_equals_numpy(kind):
    A, B = (RNG.standard_normal(s).astype("f4").astype(KINDS[kind][2]) for s in ((16, 256), (256, 8)))
    D = product(kind, A, B)
    if kind == "tf32":
        A, B = rounded_to_tf32(A), rounded_to_tf32(B)
    A, B = A.astype("f8"), B.astype("f8")
    assert (abs(D - A @ B) <= 256 * 2.0**-24 * (abs(A) @ abs(B))).all()


@emulated
@pytest.mark.parametrize("kind", KINDS)
def test_mma_needs_a_device_that_has_it(kind):
    A, B = (np.zeros(s, KINDS[kind][2]) for s in ((16, 16), (16, 8)))
    if kind == "f16 k8":
        assert not product(kind, A, B, capability=(7, 5)).any()
        return
    with pytest.raises(CudaFault, match=r"needs sm_80 \(line \d+\)"):
        product(kind, A, B, capability=(7, 5))
    alive()


@emulated
@pytest.mark.parametrize("turned", ["", ".trans"])
@pytest.mark.parametrize("order", ORDERS)
def test_ldmatrix(order, turned):
    source = """extern "C" __global__ void f(const unsigned short* x, unsigned* y) {
      __shared__ __align__(16) unsigned short s[32 * 8];
      for (int i = threadIdx.x; i < 256; i += 32) s[i] = x[i];
      __syncthreads();
      unsigned at = static_cast<unsigned>(__cvta_generic_to_shared(s + threadIdx.x * 8)), r[4];
      asm volatile("ldmatrix.sync.aligned.m8n8.x4TURNED.shared.b16 {%0, %1, %2, %3}, [%4];"
                   : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at));
      for (int m = 0; m < 4; m++) y[m * 32 + threadIdx.x] = r[m]; }"""
    x = RNG.integers(0, 2**16, (4, 8, 8)).astype("u2")
    y = poison((4, 32), "u4")
    run(source.replace("TURNED", turned), "f", (1,), (32,), (x, y), order=order)
    # Lane l has elements 2 (l % 4) and the next of row l // 4.
    assert (y.view("u2").reshape(4, 8, 8) == (x.transpose(0, 2, 1) if turned else x)).all()


COPY = r"""
#include <cuda_pipeline_primitives.h>
extern "C" __global__ void intrinsics(const float* x, float* y) {
  __shared__ float s[32];
  __pipeline_memcpy_async(s + threadIdx.x, x + threadIdx.x, 4);
  __pipeline_commit();
  __pipeline_wait_prior(0);
  __syncthreads();
  y[threadIdx.x] = s[threadIdx.x ^ 1];
}
extern "C" __global__ void ptx(const float* x, float* y) {
  extern __shared__ float4 s[];
  int t = threadIdx.x;
  unsigned at = (unsigned)__cvta_generic_to_shared(s + t);
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" :: "r"(at), "l"(x + 4 * t), "r"(t ? 16 : 4));
  asm volatile("cp.async.commit_group;" ::: "memory");
  asm volatile("cp.async.wait_group %0;" :: "n"(0));
  __syncthreads();
  for (int i = 0; i < 4; i++) y[4 * t + i] = ((const float*)s)[(4 * t + i) ^ 1];
}
"""


@emulated
@pytest.mark.parametrize("order", ORDERS)
def test_asynchronous_copies(order):
    x = RNG.standard_normal(128).astype("f4")
    y, z = poison(32), poison(128)
    run(COPY, "intrinsics", (1,), (32,), (x, y), order=order)
    assert (y == x[:32][np.arange(32) ^ 1]).all()
    run(COPY, "ptx", (1,), (32,), (x, z), order=order, shared=512)
    x[1:4] = 0  # only four of the first sixteen bytes were asked for
    assert (z == x[np.arange(128) ^ 1]).all()


@emulated
@pytest.mark.parametrize("entry", ["intrinsics", "ptx"])
def test_caught_a_missing_wait_for_an_asynchronous_copy(entry):
    waits = ("__pipeline_wait_prior(0);", 'asm volatile("cp.async.wait_group %0;" :: "n"(0));')
    source = COPY.replace(waits[0], "").replace(waits[1], "")
    y = np.zeros(128, "f4")
    run(source, entry, (1,), (32,), (np.ones(128, "f4"), y), shared=512)
    assert np.isnan(y[: 32 if entry == "intrinsics" else 128]).all()
    alive()


def test_translation_keeps_the_numbers_of_lines():
    source = 'int a; // asm("x")\nasm volatile("mov.b32 %0,\\n"\n "%1;"\n: "=r"(a) : "r"(b)\n); int last;\n'
    text = translate(source, "f", 900).split('"kernel.cu"\n')[1]
    assert text.splitlines()[4].endswith("int last;")
    assert text.startswith('int a; // asm("x")\n')
    assert 'PTX that is not emulated: %s", __LINE__, "mov.b32 %0, %1")' in text


def test_every_instruction_has_its_function():
    header = Path(__file__).with_name("emulator") / "cuda_mma.h"
    for function in INSTRUCTIONS.values():
        assert f"inline void {function.split('<')[0]}(" in header.read_text()


# ---- planted faults ----------------------------------------------------------------------------------------


def by_order(source, entry, *args, block=64, shared=0):
    """What each order makes of the last argument."""
    found = []
    for order in ORDERS:
        y = poison(block)
        run(source, entry, (1,), (block,), (*args, y), order=order, shared=shared)
        found.append(y.tobytes())
    return set(found)


@emulated
def test_caught_a_removed_barrier():
    x = np.arange(64, dtype="f4")
    assert len(by_order(GOOD, "reverse", x, shared=256)) == 1
    assert len(by_order(GOOD.replace("__syncthreads();", ""), "reverse", x, shared=256)) > 1
    alive()


@emulated
def test_caught_a_removed_barrier_behind_the_read():
    source = """extern "C" __global__ void f(float* y) {
      __shared__ float s[64];
      for (int k = 0; k < 2; k++) {
        s[threadIdx.x] = threadIdx.x + 100 * k;
        __syncthreads();
        y[threadIdx.x] = s[threadIdx.x ^ 1];
        BARRIER
      } }"""
    assert len(by_order(source.replace("BARRIER", "__syncthreads();"), "f")) == 1
    source = source.replace("y[threadIdx.x] = s", "if (!k) y[threadIdx.x] = s").replace("BARRIER", "")
    assert len(by_order(source, "f")) > 1
    alive()


@emulated
@pytest.mark.parametrize("declared", ["__shared__ float s[32];", "extern __shared__ float s[];"])
def test_caught_unwritten_shared_memory(declared):
    source = f"""extern "C" __global__ void f(float* y) {{
      {declared}
      if (threadIdx.x != blockIdx.x) s[threadIdx.x] = 1.f;
      __syncthreads();
      y[blockIdx.x * 32 + threadIdx.x] = s[threadIdx.x]; }}"""
    y = np.zeros((2, 32), "f4")
    run(source, "f", (2,), (32,), (y,), shared=128)
    # Nor does a block find what the one before has left.
    assert (np.isnan(y) == (np.arange(2)[:, None] == np.arange(32))).all()
    alive()


@emulated
def test_caught_a_local_variable_that_is_not_set():
    source = """extern "C" __global__ void f(float* y) {
      float a[4]; a[0] = 1.f; y[0] = a[0] + a[y[0] != 0.f ? 3 : 0]; }"""
    y = poison(1)
    run(source, "f", (1,), (1,), (y,))
    assert abs(y[0]) > 1e38
    alive()


FAULTS = r"""
extern "C" __global__ void divergent(float* y) {
  if (threadIdx.x < 7) { __syncthreads(); }
  else { y[0] = 1.f;
    __syncthreads(); }
}
extern "C" __global__ void half_warp(float* y) {
  if (threadIdx.x < 16) y[threadIdx.x] = __shfl_sync(0xffffffffu, 1.f, 0);
}
extern "C" __global__ void barrier_against_warp(float* y) {
  if (threadIdx.x < 16) __syncwarp(); else __syncthreads();
}
extern "C" __global__ void outside_of_mask(float* y) { __syncwarp(0xffffu); }
extern "C" __global__ void reads_outside_of_mask(float* y) {
  if (threadIdx.x < 16) y[threadIdx.x] = __shfl_sync(0xffffu, 1.f, 20);
}
extern "C" __global__ void mixed_primitives(float* y) {
  if (threadIdx.x < 16) y[threadIdx.x] = __shfl_sync(0xffffffffu, 1.f, 0);
  else y[threadIdx.x] = __any_sync(0xffffffffu, 1);
}
extern "C" __global__ void dynamic_overrun(float* y) {
  extern __shared__ float s[];
  s[threadIdx.x + 1] = 1.f;
  __syncthreads();
  y[threadIdx.x] = s[threadIdx.x + 1];
}
extern "C" __global__ void dynamic_underrun(float* y) {
  extern __shared__ float s[];
  s[(int)threadIdx.x - 1] = 1.f;
}
extern "C" __global__ void static_overrun(float* y) {
  __shared__ float s[32];
  s[threadIdx.x + (y != nullptr)] = 1.f;
  y[threadIdx.x] = s[threadIdx.x];
}
extern "C" __global__ void write_next(float* y) { y[threadIdx.x + 1] = 1.f; }
extern "C" __global__ void write_before(float* y) { y[(int)threadIdx.x - 1] = 1.f; }
extern "C" __global__ void read_next(float* y) { y[threadIdx.x] = y[threadIdx.x + 1]; }
extern "C" __global__ void misaligned(float* y) {
  *(float4*)(y + threadIdx.x) = make_float4(1.f, 2.f, 3.f, 4.f);
}
extern "C" __global__ void divides(int* y) { y[0] = 7 / (y[0] + 1); }
extern "C" __global__ void asserts(float* y) { assert(threadIdx.x < 31); }
extern "C" __global__ void hangs(volatile int* y) { while (y[0] != 5) y[1] = y[0]; }
extern "C" __global__ void traps(float* y) { if (y) __trap(); }
extern "C" __global__ void outgrows(float* y) {
  volatile float a[65536];
  for (int i = 0; i < 65536; i++) a[i] = i;
  y[0] = a[threadIdx.x];
}
extern "C" __global__ void unknown_ptx(float* y, int go) {
  if (go) asm volatile("nanosleep.u32 %0;" :: "r"(go));
}
extern "C" __global__ void not_shared(float* y) { y[0] = __cvta_generic_to_shared(y); }
extern "C" __global__ void bounded(float* y) __attribute__((unused));
extern "C" __global__ void __launch_bounds__(32 * (1 + 1), 2) bounded(float* y) { y[threadIdx.x] = 1.f; }
"""


@emulated
@pytest.mark.parametrize("order", ORDERS)
def test_caught_a_divergent_barrier(order):
    caught(
        r"divergent barrier.*line \d+.*line \d+", FAULTS, "divergent", (1,), (32,), (poison(32),), order=order
    )


@emulated
@pytest.mark.parametrize("order", ORDERS)
def test_caught_half_a_warp_in_a_shuffle(order):
    match = r"deadlock: .*mask 0xffffffff, lanes 0xffff0000 never come"
    caught(match, FAULTS, "half_warp", (1,), (32,), (poison(32),), order=order)


@emulated
@pytest.mark.parametrize("order", ORDERS)
def test_caught_a_barrier_against_a_warp_primitive(order):
    match = "of 32 live threads 16 wait at __syncthreads"
    caught(match, FAULTS, "barrier_against_warp", (1,), (32,), (poison(32),), order=order)


@emulated
def test_caught_a_lane_outside_of_its_mask():
    caught("lane 16 is not in its own warp mask", FAULTS, "outside_of_mask", (1,), (32,), (poison(32),))


@emulated
def test_caught_a_shuffle_from_outside_of_its_mask():
    caught("reads lane 20", FAULTS, "reads_outside_of_mask", (1,), (32,), (poison(32),))


@emulated
def test_caught_two_primitives_that_meet():
    caught("different primitives", FAULTS, "mixed_primitives", (1,), (32,), (poison(32),))


@emulated
def test_caught_an_overrun_of_dynamic_shared_memory():
    match = (
        r"block \(0, 0, 0\) thread \(31, 0, 0\): illegal \w+ 0 bytes past the end of dynamic shared memory"
    )
    caught(match, FAULTS, "dynamic_overrun", (1,), (32,), (poison(32),), shared=128)


@emulated
def test_caught_an_overrun_of_dynamic_shared_memory_that_ends_between_16_bytes():
    match = "wrote 0 bytes past the end of dynamic shared memory"
    caught(match, FAULTS, "dynamic_overrun", (2,), (31,), (poison(32),), shared=124)


@emulated
def test_caught_an_underrun_of_dynamic_shared_memory():
    match = "bytes before dynamic shared memory"
    caught(match, FAULTS, "dynamic_underrun", (1,), (32,), (poison(32),), shared=128)


@emulated
def test_caught_an_index_outside_of_static_shared_memory():
    caught(r"kernel.cu:\d+: index 32 is outside of", FAULTS, "static_overrun", (1,), (32,), (poison(32),))


@emulated
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("entry", ["write_next", "read_next"])
def test_caught_a_global_overrun_by_one_element(entry, order):
    match = r"thread \(32, 0, 0\): illegal \w+ at .*\(0 bytes past the end of argument 0, float32"
    y = Emulator().guarded(np.zeros(33, "f4"))
    caught(match, FAULTS, entry, (1,), (33,), (y,), order=order)


@emulated
@pytest.mark.parametrize("order", ORDERS)
def test_caught_a_global_underrun_by_one_element(order):
    match = r"thread \(0, 0, 0\): illegal \w+ at .*\(4 bytes before the start of argument 0, float32"
    y = Emulator().guarded(np.zeros(33, "f4"), front=True)
    caught(match, FAULTS, "write_before", (1,), (33,), (y,), order=order)


@emulated
@pytest.mark.parametrize(
    ("entry", "side"), [("write_next", "past the end"), ("write_before", "before the start")]
)
def test_caught_a_write_beside_an_array_that_is_aligned(entry, side):
    # Empty arrays are aligned to 16 bytes: up to 15 behind them are no guard page.
    for front in (False, True):
        with pytest.raises(CudaFault, match=f"{side} of argument 0, float32"):
            run(FAULTS, entry, (1,), (33,), (Emulator(front=front).empty(33, "f4"),))
    alive()


@emulated
def test_caught_a_misaligned_vector_access():
    match = r"thread \(1, 0, 0\): kernel.cu:\d+: misaligned address .* a multiple of 16"
    caught(match, FAULTS, "misaligned", (1,), (2,), (Emulator().empty(8, "f4"),))


@emulated
@pytest.mark.parametrize(
    ("entry", "match"),
    [
        ("divides", "division by zero"),
        ("asserts", r"thread \(31, 0, 0\): assertion of line \d+ failed: threadIdx.x < 31"),
        ("traps", "__trap"),
        ("outgrows", "outgrow a stack"),
        ("not_shared", "not an address of shared memory"),
    ],
)
def test_caught_what_stops_a_thread(entry, match):
    caught(match, FAULTS, entry, (1,), (32,), (poison(32, "i4"),))


@emulated
def test_caught_a_thread_that_hangs():
    caught("still running after 1 s", FAULTS, "hangs", (1,), (32,), (poison(2, "i4"),), timeout=1)


@emulated
def test_caught_ptx_that_is_not_emulated_where_it_runs():
    run(FAULTS, "unknown_ptx", (1,), (1,), (poison(1), I32(0)))
    caught("PTX that is not emulated: nanosleep.u32", FAULTS, "unknown_ptx", (1,), (1,), (poison(1), I32(1)))


@emulated
@pytest.mark.parametrize(
    ("args", "match"),
    [
        ((1001, np.float32(2)), "argument 2: the kernel wants 4 bytes, got 8"),
        ((I32(1001), 2.0), "argument 3: the kernel wants 4 bytes, got 8"),
        ((I32(1001),), "takes 4 arguments, got 3"),
        ((I32(1001), np.float32(2), I32(0)), "takes 4 arguments, got 5"),
    ],
    ids=["Python integer", "Python float", "too few", "too many"],
)
def test_caught_arguments_of_the_wrong_size_or_number(args, match):
    caught(match, GOOD, "scale", (8,), (128,), (poison(1001), poison(1001), *args))


@emulated
def test_caught_a_missing_kernel():
    with pytest.raises(CudaFault, match="no kernel 'scales'"):
        Emulator().function(GOOD, "scales")
    with pytest.raises(CompileError, match=r"kernel.cu:1:.*oops"):
        Emulator().function('extern "C" __global__ void f() { oops(); }', "f")
    alive()


@emulated
@pytest.mark.parametrize("block", [(0,), (1025,), (32, 33), (1, 1, 65), (-1,), (1, 1, 1, 1)])
def test_caught_an_invalid_block_size(block):
    caught("invalid block size", FAULTS, "traps", (1,), block, (poison(1),))


@emulated
@pytest.mark.parametrize("grid", [(0,), (1, 65536), (1, 1, 65536), (2**31,), (2**32,), ()])
def test_caught_an_invalid_grid_size(grid):
    caught("invalid grid size", FAULTS, "traps", grid, (1,), (poison(1),))


@emulated
def test_caught_a_block_above_its_launch_bounds():
    run(FAULTS, "bounded", (1,), (64,), (poison(65),))
    caught("65 threads, __launch_bounds__ allows 64", FAULTS, "bounded", (1,), (65,), (poison(65),))


@emulated
@pytest.mark.parametrize("capability", [(7, 5), (8, 0), (9, 0)])
def test_caught_too_much_shared_memory(capability):
    most = Emulator(capability=capability).shared_memory
    args = (np.zeros(32, "f4"), poison(32))
    run(GOOD, "reverse", (1,), (32,), args, shared=most - 16, capability=capability)
    caught(
        "too much shared memory", GOOD, "reverse", (1,), (32,), args, shared=most + 1, capability=capability
    )


@emulated
def test_caught_too_much_static_shared_memory():
    source = (
        'extern "C" __global__ void f(float* y) { __shared__ float s[12289]; s[y[0] > 0] = 1; y[0] = s[0]; }'
    )
    caught("static shared memory: at most 49152", source, "f", (1,), (1,), (poison(1),))


@emulated
def test_threads_switch_without_assembly_too():
    # What processors other than x86-64 take.
    program = """if True:
        import numpy as np
        from tests.emulator import Emulator, CudaFault
        from tests.test_emulator import FAULTS, GOOD, alive
        alive()
        try:
            Emulator().function(FAULTS, "half_warp")((1,), (32,), (np.zeros(32, "f4"),))
        except CudaFault as fault:
            print(fault)
        alive()
    """
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "EMULATOR_FLAGS": "-DEMULATOR_UCONTEXT"},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "deadlock" in done.stdout


# ---- the compile gate --------------------------------------------------------------------------------------

ARCHITECTURES = ("sm_75", "sm_80", "sm_90")


@compiled
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_kernel_and_what_it_uses(arch):
    usage = compile_gate.compile_cubin(GOOD, "histogram", ("-std=c++17", "-arch=sm_60"), arch)
    assert (usage.spill_stores, usage.spill_loads, usage.stack) == (0, 0, 0)
    assert (usage.shared, usage.barriers) == (64, 1)
    assert 8 <= usage.registers <= 64
    assert usage.cubin > 1000
    assert f"'histogram' for '{arch}'" in usage.log


@compiled
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_spill_is_reported(arch):
    source = """extern "C" __global__ void __launch_bounds__(1024, 1) f(const float* x, float* y) {
      float a[128];
      #pragma unroll
      for (int i = 0; i < 128; i++) a[i] = x[i * 1024 + threadIdx.x];
      __syncthreads();
      #pragma unroll
      for (int i = 0; i < 128; i++) y[i * 1024 + threadIdx.x] = a[i] * a[127 - i]; }"""
    usage = compile_gate.compile_cubin(source, "f", (), arch)
    assert usage.registers == 64
    assert usage.spill_stores > 0
    assert usage.spill_loads > 0


@compiled
def test_an_error_gives_the_log():
    with pytest.raises(CompileError, match=r'kernel.cu\(2\): error: identifier "oops" is undefined'):
        compile_gate.compile_cubin('extern "C" __global__ void f() {\n oops(); }', "f")
    with pytest.raises(CompileError, match="no kernel 'scales'"):
        compile_gate.compile_cubin(GOOD, "scales")


@compiled
@pytest.mark.parametrize("kind", KINDS)
def test_mma_is_guarded_for_devices_without_it(kind):
    source = product_source(kind)
    for arch in ("sm_80", "sm_90"):
        assert compile_gate.compile_cubin(source, "product", (), arch).registers > 8
    if kind == "f16 k8":
        assert compile_gate.compile_cubin(source, "product", (), "sm_75").registers > 8
        return
    with pytest.raises(CompileError, match=r"sm_80 or higher"):
        compile_gate.compile_cubin(source, "product", (), "sm_75")
    guarded = "#if __CUDA_ARCH__ >= 800\n" + source + "#else\n" + GOOD + "#endif\n"
    assert compile_gate.compile_cubin(guarded, "scale", (), "sm_75").registers > 0


@compiled
@pytest.mark.parametrize("entry", ["intrinsics", "ptx"])
def test_what_the_emulator_runs_compiles_for_a_device(entry):
    assert compile_gate.compile_cubin(COPY, entry, ("-std=c++17",), "sm_80").spill_stores == 0
