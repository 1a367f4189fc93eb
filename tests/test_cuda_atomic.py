"""The atomic scatter, the baseline of the CUDA kernels, on an emulator: no GPU is needed."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import gpuconv
from gpuconv import activations
from gpuconv.backends import cupy_
from gpuconv.backends.cuda import call as cuda_call
from gpuconv.backends.cuda import planner
from gpuconv.backends.cuda.atomic import ATOMIC
from gpuconv.backends.cuda.call import options_of
from gpuconv.backends.cuda.device import source_of
from gpuconv.backends.cuda.planner import Limits, choose
from gpuconv.namespace import DTYPES
from gpuconv.ops.shapes import geometry_of
from tests import emulator
from tests.bounds import assert_within_bound
from tests.emulator import CudaFault, Emulator, compile_gate
from tests.reference import expected
from tests.strategies import cases
from tests.test_cuda import FIXED, Cupy, Planted, call_of, case_of, numpy_dtype, pretend, run

pytestmark = pytest.mark.skipif(bool(emulator.missing()), reason=emulator.missing() or "")

CASES = [case for case in FIXED if case.transposed]


def scatter(case, device=None, dtype="float32", channels_last=True, **options):
    return run(case, device or Emulator(), dtype, "atomic", channels_last, **options)


# --- sums ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels_last", [True, False], ids=["last", "first"])
def test_every_type_and_layout_is_exact_on_integers(dtype, channels_last):
    for case in CASES:
        wanted = np.asarray(expected(case)).astype(numpy_dtype(dtype))
        y = scatter(case, dtype=dtype, channels_last=channels_last)
        assert y.dtype == wanted.dtype
        np.testing.assert_array_equal(y, wanted)


@given(data=st.data(), channels_last=st.booleans(), order=st.sampled_from(emulator.ORDERS))
def test_geometries_against_the_loops(data, channels_last, order):
    case = data.draw(cases(transposed=(True,)))
    wanted = expected(case)
    assume(wanted is not None)
    y = scatter(case, Emulator(order), channels_last=channels_last)
    assert y.shape == wanted.shape
    np.testing.assert_array_equal(y, wanted)


@pytest.mark.parametrize("dtype", ["float16", "float32", "complex64"])
def test_any_order_of_additions_is_within_the_bound(dtype):
    rng = np.random.default_rng(2)
    case = case_of((2, 70, 32), (9, 20, 32), strides=(4,), padding="same", bias=False)
    for name in ("x", "kernel"):
        values = rng.standard_normal(getattr(case, name).shape)
        setattr(case, name, values.astype(numpy_dtype(dtype)))
    results = [scatter(case, Emulator(order), dtype) for order in emulator.ORDERS]
    exact = expected(case)
    case.x, case.kernel = abs(case.x), abs(case.kernel)
    for y in results:
        assert_within_bound(y, exact, expected(case), 3 * 32, dtype)


def test_the_bias_and_the_activation_follow_the_sum_before_it_is_rounded():
    case = case_of((1, 30, 4), (3, 4, 4), strides=(2,))
    case.x = case.x / 64
    y = scatter(case, dtype="float16", activation=activations.sigmoid)
    wanted = 1 / (1 + np.exp(-expected(case)))
    np.testing.assert_allclose(y.astype(float), wanted, rtol=2**-10.9, atol=2**-24)


@pytest.mark.parametrize("channels_last", [True, False], ids=["last", "first"])
def test_64_bit_indices(channels_last, monkeypatch):
    monkeypatch.setattr(cuda_call, "_WIDE", 0)
    for case in CASES:
        np.testing.assert_array_equal(scatter(case, channels_last=channels_last), expected(case))


def test_crops_beyond_32_bits():
    """The arrays are small, but not what lies between the first input sample and the first output sample."""
    case = case_of((1, 2**17, 1), (1, 1, 1), strides=(2**15,), padding=((2**32 - 2**17, 0),), bias=False)
    wanted = np.zeros((1, 2**17 - 2**15 + 1, 1), np.float32)
    wanted[0, :: 2**15, 0] = case.x[0, -len(wanted[0, :: 2**15]) :, 0] * case.kernel[0, 0, 0]
    for name in ("direct", "tile-64x64", "atomic"):
        np.testing.assert_array_equal(run(case, Emulator(), "float32", name), wanted)


@pytest.mark.parametrize("shape", [(0, 5, 4), (2, 0, 4)], ids=["no samples", "no length"])
def test_nothing_is_launched_for_an_empty_result(shape):
    device = Emulator()
    case = case_of(shape, (3, 2, 4), strides=(2,))
    assert scatter(case, device).shape == expected(case).shape
    assert device.launches == 0


@pytest.mark.parametrize("skew", [0, 1])
def test_any_strides_and_alignment_are_read_and_written_in_place(skew):
    case = case_of((2, 9, 16), (4, 16, 16), strides=(2,))
    x = np.repeat(case.x, 2, axis=1).astype(np.float16)[:, ::2]
    room = np.zeros(case.kernel.size + skew, np.float16)
    kernel = room[skew:].reshape(case.kernel.shape)
    kernel[...] = case.kernel
    out = np.full((2, 40, 32 + skew), np.nan, np.float16)
    place = out[:, :40:2, skew::2]
    geometry = geometry_of(True, 1, x.shape, kernel.shape, True, 1, **case.settings)
    options = {"channels_last": True, "dtype": "float16", "device": Emulator(), "algorithm": "atomic"}
    y = cupy_.conv_transpose(geometry, x, kernel, case.bias.astype(np.float16), None, out=place, **options)
    assert y is place
    np.testing.assert_array_equal(place, expected(case))
    place[...] = np.nan
    assert np.isnan(out).all()


# --- the choice ----------------------------------------------------------------------------------


def test_it_is_never_chosen(monkeypatch):
    rates = planner._all_rates()["assumed"]
    fast = {name: [1e12 if name == "atomic" else 1e-12] * 6 for name in rates["multiply_adds"]}
    monkeypatch.setattr(planner, "_all_rates", lambda: {"assumed": rates | {"multiply_adds": fast}})
    device = Limits("one without rates", (9, 0), 7)
    for case in CASES:
        call = call_of(case)
        assert planner._fastest(planner.ALGORITHMS, call, device) is ATOMIC
        assert choose(call, device) is not ATOMIC
        assert choose(call, device, "atomic") is ATOMIC


def test_a_forward_convolution_is_refused():
    case = next(case for case in FIXED if not case.transposed)
    with pytest.raises(ValueError, match=r"Received algorithm='atomic': a forward convolution is a gather"):
        scatter(case)


def test_the_work_is_counted():
    call = call_of(case_of((3, 10, 6), (4, 5, 6), strides=(2,)), "float16")
    work = ATOMIC.work(call)
    assert work.multiply_adds == 3 * 10 * 4 * 5 * 6
    assert work.blocks == 1
    assert work.launches == 3
    assert work.bytes > call.bytes_moved


def test_a_warm_up_compiles_all_that_a_call_launches(monkeypatch):
    compiled = set()

    class Noting(Emulator):
        def function(self, source, entry, options=()):
            compiled.add((source, entry, options))
            return super().function(source, entry, options)

    call = call_of(CASES[0])
    ATOMIC.function(Noting(), call, call.is_wide)
    warm = set(compiled)
    scatter(CASES[0], Noting())
    assert compiled == warm


# --- the workspace -------------------------------------------------------------------------------


class Sparing(Emulator):
    """An emulator that notes how many bytes it was asked for."""

    asked = ()

    def empty(self, shape, dtype):
        room = super().empty(shape, dtype)
        self.asked = (*self.asked, room.nbytes)
        return room


def test_the_workspace_has_a_number_for_each_element():
    case = CASES[0]
    sizes = {dtype: ATOMIC.workspace(call_of(case, dtype)) for dtype in DTYPES}
    count = expected(case).size
    assert sizes == {dtype: count * size for dtype, size in zip(DTYPES, (4, 4, 4, 8, 8, 16), strict=True)}


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_given_is_used_and_nothing_allocated(dtype):
    case, device = CASES[0], Sparing()
    wanted = expected(case).astype(numpy_dtype(dtype))
    workspace = emulator.guarded((ATOMIC.workspace(call_of(case, dtype)),), np.uint8, align=16)
    out = device.guarded(np.zeros_like(wanted))
    scatter(case, device, dtype, out=out, workspace=workspace)
    np.testing.assert_array_equal(out, wanted)
    assert device.asked == ()


def test_more_bytes_than_needed_may_be_given():
    case = CASES[0]
    workspace = emulator.guarded((2, ATOMIC.workspace(call_of(case))), np.uint8, align=16)
    np.testing.assert_array_equal(scatter(case, workspace=workspace), expected(case))


def test_a_workspace_is_allocated_where_none_is_given():
    case, device = CASES[0], Sparing()
    scatter(case, device)
    assert sorted(device.asked) == [expected(case).size * 4] * 2  # the result, and the sums


@pytest.mark.parametrize(
    ("given_of", "received"),
    [
        (lambda size: np.zeros(size - 1, np.uint8), "7679 bytes"),
        (lambda size: np.zeros(size, np.float32), "an array of float32, not of uint8"),
        (lambda size: np.zeros(2 * size, np.uint8)[::2], "an array that is not in C order"),
        (
            lambda size: emulator.guarded((size + 16,), np.uint8, align=16)[8:-8],
            "an address that is no multiple",
        ),
    ],
    ids=["small", "dtype", "order", "address"],
)
def test_a_workspace_that_does_not_do_is_refused(given_of, received):
    case = case_of((1, 30, 4), (4, 32, 4), strides=(2,), padding="same")
    given_ = given_of(ATOMIC.workspace(call_of(case)))
    message = f"^Expected workspace of at least 7680 bytes. Received {received}"
    with pytest.raises(ValueError, match=message):
        scatter(case, workspace=given_)


def test_a_workspace_that_is_in_use_is_refused():
    case = case_of((1, 30, 4), (4, 32, 4), strides=(2,), padding="same")
    out = emulator.guarded((1, 60, 32), np.float32, align=16)
    with pytest.raises(ValueError, match="Received memory that another array may share"):
        scatter(case, out=out, workspace=out.reshape(-1).view(np.uint8))


# --- planted faults ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [("sums[i] = zero()", ""), ("atomicAdd(place, v)", "*place = v"), ("c < p.depth", "c < p.depth - 1")],
    ids=["zeros", "addition", "channels"],
)
def test_a_changed_sum_is_noticed(old, new):
    y = scatter(CASES[0], Planted(old, new))
    assert not np.array_equal(y, expected(CASES[0]))


def test_an_off_by_one_scatter_is_noticed():
    case = case_of((1, 70, 16), (2, 16, 16), strides=(2,), padding=((0, 1),))
    with pytest.raises(CudaFault, match=r"illegal write|illegal read|wrote past the end"):
        scatter(case, Planted("target < a.out_length", "target <= a.out_length"))


# --- the way to CuPy -----------------------------------------------------------------------------


def test_cupy_arrays_reach_raw_modules(monkeypatch):
    cupy = Cupy()
    pretend(monkeypatch, cupy)
    case = CASES[0]
    x, kernel, bias = (a.view(cupy.ndarray) for a in (case.x, case.kernel, case.bias))
    plan = gpuconv.plan(
        "conv1d_transpose", x.shape, kernel, bias, algorithm="atomic", strides=2, padding="same"
    )
    assert plan.workspace_size == expected(case).nbytes
    np.testing.assert_array_equal(plan(x), expected(case))
    assert cupy.launched == ["atomic_zero", "atomic_scatter", "atomic_finish"]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64", "complex128"])
def test_on_a_gpu(cupy, dtype):
    for case in CASES:
        arrays = (cupy.asarray(a.astype(dtype)) for a in (case.x, case.kernel, case.bias))
        how = {"channels_last": True, "dtype": dtype, "algorithm": "atomic"}
        y = cupy_.conv_transpose(call_of(case).geometry, *arrays, None, **how)
        np.testing.assert_array_equal(y.get(), expected(case).astype(dtype))


# --- the compile gate ----------------------------------------------------------------------------

# Most registers that an instantiation takes, with 32-bit and with 64-bit indices. A block has 256 threads, a
# multiprocessor 65,536 registers: up to 80 leave room for three blocks, more than 128 for one.
CEILINGS = {"atomic_zero": (16, 24), "atomic_scatter": (80, 168), "atomic_finish": (32, 40)}


@pytest.mark.skipif(bool(compile_gate.missing()), reason=compile_gate.missing() or "")
@pytest.mark.parametrize("arch", ["sm_75", "sm_80", "sm_90"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_instantiation_compiles_without_spills(arch, dtype):
    fused = 0 if dtype.startswith("complex") else 5  # tanh is the longest

    def usages_of(choice):
        channels_last, wide = choice
        source, options = source_of("atomic.cu"), options_of(dtype, fused, channels_last, True, wide)
        return [compile_gate.compile_cubin(source, entry, options, arch) for entry in CEILINGS]

    choices = list(itertools.product((True, False), (False, True)))
    with ThreadPoolExecutor() as pool:  # NVRTC computes without Python's lock
        every = list(pool.map(usages_of, choices))
    for (channels_last, wide), usages in zip(choices, every, strict=True):
        for (entry, ceilings), usage in zip(CEILINGS.items(), usages, strict=True):
            assert usage.spill_stores == usage.spill_loads == 0, (entry, channels_last, wide)
            assert usage.registers <= ceilings[wide], (entry, channels_last, wide)
