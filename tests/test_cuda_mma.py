"""The tensor-core kernel and its choice, on an emulator: no GPU is needed."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import gpuconv
from gpuconv.backends import cupy_
from gpuconv.backends.cuda import call as cuda_call
from gpuconv.backends.cuda import gather
from gpuconv.backends.cuda.call import options_of
from gpuconv.backends.cuda.device import current_device, source_of
from gpuconv.ops.shapes import geometry_of
from tests import emulator
from tests.bounds import assert_within_bound
from tests.emulator import CudaFault, Emulator, compile_gate
from tests.emulator.build import CompileError
from tests.reference import expected
from tests.strategies import cases
from tests.test_cuda import FIXED, Cupy, Planted, case_of, numpy_dtype, pretend, run

pytestmark = pytest.mark.skipif(bool(emulator.missing()), reason=emulator.missing() or "")

# (dtype, precision) of each way to multiply.
WAYS = [("float16", "ieee"), ("bfloat16", "ieee"), ("float32", "tf32"), ("float32", "3xtf32")]
# Besides FIXED: rows and columns above one tile and not a multiple of it, terms that fill whole chunks of 16
# bytes, whole steps, or neither.
RAGGED = [
    case_of((1, 131, 32), (4, 33, 32), strides=(2,)),
    case_of((2, 129, 8), (16, 9, 8), strides=(8,), padding="same"),
    case_of((1, 300, 13), (3, 7, 13), padding="same_lower"),
    case_of((1, 40, 48), (9, 16, 48), groups=2, strides=(3,), dilation_rate=(2,)),
    case_of((1, 140, 16), (3, 16, 70), transposed=False, padding="same"),
    case_of((2, 61, 24), (5, 12, 10), groups=2, transposed=False, strides=(2,), dilation_rate=(3,)),
]
ONE_AXIS = [*(case for case in FIXED if case.ndim == 1), *RAGGED]


def multiply(case, way, device=None, channels_last=True, **options):
    dtype, precision = way
    return run(case, device or Emulator(), dtype, "mma", channels_last, precision=precision, **options)


def random(case, dtype, seed=5):
    """Put normally distributed numbers of the type in place of the case's integers, and return the case."""
    rng = np.random.default_rng(seed)
    for name in ("x", "kernel", "bias"):
        shape = getattr(case, name).shape
        setattr(case, name, rng.standard_normal(shape).astype(numpy_dtype(dtype)).astype(np.float64))
    return case


def magnitude_of(case):
    case.x, case.kernel, case.bias = abs(case.x), abs(case.kernel), abs(case.bias)
    return expected(case)


# --- exactness -----------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS, ids="-".join)
@pytest.mark.parametrize("channels_last", [True, False], ids=["last", "first"])
def test_every_way_and_layout_is_exact_on_integers(way, channels_last):
    for case in ONE_AXIS:
        wanted = np.asarray(expected(case)).astype(numpy_dtype(way[0]))
        y = multiply(case, way, channels_last=channels_last)
        assert y.dtype == wanted.dtype
        np.testing.assert_array_equal(y, wanted)


@given(data=st.data(), way=st.sampled_from(WAYS), channels_last=st.booleans())
def test_geometries_against_the_loops(data, way, channels_last):
    case = data.draw(cases(ndims=(1,), most_depth=9))
    order = data.draw(st.sampled_from(emulator.ORDERS))
    wanted = expected(case)
    assume(wanted is not None)
    y = multiply(case, way, Emulator(order), channels_last)
    np.testing.assert_array_equal(y, wanted.astype(numpy_dtype(way[0])))


@pytest.mark.parametrize("way", [WAYS[0], WAYS[3]], ids="-".join)
def test_64_bit_indices(way, monkeypatch):
    monkeypatch.setattr(cuda_call, "_WIDE", 0)
    for case in RAGGED:
        wanted = expected(case).astype(numpy_dtype(way[0]))
        np.testing.assert_array_equal(multiply(case, way), wanted)


def skewed(skew, device):
    """Multiply arrays that lie `skew` elements off an address that is a multiple of 16."""
    # Channels in chunks of 16 bytes, but rows that are not (x), and an address that is not (kernel).
    case = case_of((2, 20, 16), (4, 16, 16), strides=(2,))
    x = np.zeros((2, 20, 16 + skew), np.float16)[:, :, skew:]
    room = np.zeros(case.kernel.size + skew, np.float16)
    kernel = room[skew:].reshape(case.kernel.shape)
    x[...], kernel[...] = case.x, case.kernel
    out = np.full((2, 84, 32), np.nan, np.float16)
    geometry = geometry_of(True, 1, x.shape, kernel.shape, True, 1, **case.settings)
    options = {"channels_last": True, "dtype": "float16", "device": device, "algorithm": "mma"}
    place = out[:, :84:2, 1::2]
    cupy_.conv_transpose(geometry, x, kernel, case.bias.astype(np.float16), None, out=place, **options)
    np.testing.assert_array_equal(place, expected(case).astype(np.float16))
    assert np.isnan(out[:, :, ::2]).all()
    assert np.isnan(out[:, 1::2]).all()


@pytest.mark.parametrize("skew", [0, 1])
def test_any_strides_and_alignment_are_read_and_written_in_place(skew):
    skewed(skew, Emulator())


def test_activations_follow_the_sum_before_it_is_rounded():
    case = case_of((1, 70, 16), (3, 16, 16), strides=(2,))
    case.x = case.x / 64
    y = multiply(case, WAYS[0], activation=gpuconv.activations.sigmoid)
    wanted = 1 / (1 + np.exp(-expected(case)))
    np.testing.assert_allclose(y.astype(float), wanted, rtol=2**-10.9, atol=2**-24)


# --- rounding ------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS, ids="-".join)
def test_four_thread_orders_give_the_same_bits(way):
    case = random(case_of((2, 140, 24), (9, 20, 24), strides=(4,), padding="same"), way[0])
    results = [multiply(case, way, Emulator(order)) for order in emulator.ORDERS]
    assert len({y.tobytes() for y in results}) == 1


@pytest.mark.parametrize("way", WAYS, ids="-".join)
def test_a_sample_has_the_same_bits_in_any_batch(way):
    case = random(case_of((3, 40, 32), (9, 20, 32), strides=(4,)), way[0])
    whole = multiply(case, way)
    for i in range(3):
        one = case_of((1, 40, 32), (9, 20, 32), strides=(4,))
        one.x, one.kernel, one.bias = case.x[i : i + 1], case.kernel, case.bias
        assert multiply(one, way).tobytes() == whole[i : i + 1].tobytes()


@pytest.mark.parametrize("depth", [16, 512])
@pytest.mark.parametrize("way", [WAYS[0], WAYS[1], WAYS[3]], ids="-".join)
def test_sums_are_as_accurate_as_the_type_promises(way, depth):
    """Products of halves are exact and summed in float32; three TF32 products are within float32's bound."""
    case = random(case_of((1, 30, depth), (4, 16, depth), strides=(2,)), way[0])
    y, exact = multiply(case, way), expected(case)
    assert_within_bound(y, exact, magnitude_of(case), 2 * depth + 1, way[0])


def test_tf32_is_as_accurate_as_its_factors():
    case = random(case_of((1, 30, 512), (4, 16, 512), strides=(2,)), "float32")
    y, exact = multiply(case, WAYS[2]), expected(case)
    size = magnitude_of(case)
    # Each factor is off by 2**-11 of itself, so each product by less than 2**-10; then float32's own sums.
    assert (abs(y - exact) <= (2.0**-10 + 1025 * 2.0**-23) * size).all()
    # It is TF32 that was measured: float32 would be this much closer.
    assert (abs(y - exact) / size).max() > 2.0**-20


# --- the device ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "capability"), [("75", (7, 5)), ("90", (9, 0)), ("120", (12, 0))])
def test_cupy_tells_the_capability(monkeypatch, text, capability):
    pretend(monkeypatch, Cupy(text))
    assert current_device().capability == capability


def test_other_devices_are_refused_in_words():
    with pytest.raises(ValueError, match=r"Received algorithm='mma': needs compute capability 8\.0"):
        multiply(FIXED[0], WAYS[0], Emulator(capability=(7, 5)))


# --- planted faults ------------------------------------------------------------------------------


def test_the_removed_barrier_is_noticed():
    assert source_of("mma.cu").count("__syncthreads();") == 1
    case = FIXED[0]
    devices = [Planted("__syncthreads();", "", order) for order in emulator.ORDERS]
    results = [multiply(case, WAYS[0], device) for device in devices]
    assert not all(np.array_equal(y, expected(case)) for y in results)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("b[j / 2][j % 2], b[j / 2][j % 2 + 2]", "b[j / 2][j % 2 + 2], b[j / 2][j % 2]"),
        ('"r"(a[1]), "r"(a[2])', '"r"(a[2]), "r"(a[1])'),
        ("[i % 2 * 2 + j % 2]", "[i % 2 + j % 2 * 2]"),
        ("for (int word = 0; word < WORDS", "for (int word = 8; word < WORDS"),
        ("<< place % 4 * 8", "<< 0"),
    ],
    ids=["registers of b", "registers of a", "registers of the sums", "half of a step", "halves of a word"],
)
def test_a_swapped_element_is_noticed(old, new):
    case = RAGGED[2]  # its terms travel one by one
    assert not np.array_equal(multiply(case, WAYS[0], Planted(old, new)), expected(case))


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("row >= g.rows", "row > g.rows", r"illegal write|wrote past the end"),
        ("at < g.in_length", "at <= g.in_length", "illegal read"),
        ("brought < all_columns", "brought <= all_columns", "illegal read"),
    ],
    ids=["store", "row", "column"],
)
def test_an_off_by_one_is_noticed(old, new, what):
    # The even samples have a tap more than the odd ones: past their columns lies a tap that is not there.
    with pytest.raises(CudaFault, match=what):
        multiply(case_of((1, 70, 16), (3, 17, 16), strides=(2,)), WAYS[0], Planted(old, new))


def test_a_chunk_at_an_odd_address_is_noticed():
    with pytest.raises(CudaFault, match="align"):
        skewed(1, Planted(" && (unsigned long long)base % 16 == 0", ""))


# --- the compile gate ----------------------------------------------------------------------------

# Most registers that an instantiation takes, in the order of WAYS. Two blocks of 256 threads with 128 each
# share the 65,536 of a multiprocessor; with 64-bit indices one block has them.
CEILINGS = {"int": (128, 128, 128, 128), "long long": (168, 168, 160, 160)}


@pytest.mark.skipif(bool(compile_gate.missing()), reason=compile_gate.missing() or "")
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_every_instantiation_compiles_without_spills(arch):
    def usage_of(choice):
        (dtype, precision), *layout, wide = choice
        products = gather._TF32_PRODUCTS[precision] if dtype == "float32" else 0
        options = options_of(dtype, 5, *layout, wide)  # tanh is the longest
        options = (*options, f"-DGPUCONV_TF32={products}")
        return compile_gate.compile_cubin(source_of("mma.cu"), "mma_gather", options, arch)

    choices = list(itertools.product(WAYS, *[(True, False)] * 3))
    with ThreadPoolExecutor() as pool:  # NVRTC computes without Python's lock
        usages = list(pool.map(usage_of, choices))
    for choice, usage in zip(choices, usages, strict=True):
        assert usage.spill_stores == usage.spill_loads == 0, choice
        ceilings = CEILINGS["long long" if choice[-1] else "int"]
        assert usage.registers <= ceilings[WAYS.index(choice[0])], choice


@pytest.mark.skipif(bool(compile_gate.missing()), reason=compile_gate.missing() or "")
def test_devices_without_the_instructions_are_refused():
    options = (*options_of("float16", 0, True, True, False), "-DGPUCONV_TF32=0")
    with pytest.raises(CompileError, match=r"needs a device of compute capability 8\.0"):
        compile_gate.compile_cubin(source_of("mma.cu"), "mma_gather", options, "sm_75")
