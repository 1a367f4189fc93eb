"""Our CUDA kernels and the code that launches them, on an emulator: no GPU is needed."""

import contextlib
import sys
import types

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import gpuconv
from gpuconv import activations, namespace
from gpuconv.backends import cupy_
from gpuconv.backends.cuda import call as cuda_call
from gpuconv.backends.cuda import device as cuda_device
from gpuconv.backends.cuda import planner
from gpuconv.backends.cuda.call import FUSED, Call, is_wide
from gpuconv.namespace import DTYPES
from gpuconv.ops import _select
from gpuconv.ops.shapes import geometry_of
from tests import emulator
from tests.emulator import CudaFault, Emulator
from tests.reference import expected
from tests.strategies import Case, cases

ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed: pip install gpuconv[test]")
pytestmark = pytest.mark.skipif(bool(emulator.missing()), reason=emulator.missing() or "")

KERNELS = ["direct", "polyphase", "tile-64x64"]


def numpy_dtype(name):
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


class Planted(Emulator):
    """An emulator that reads `new` for every `old` in a kernel's text."""

    def __init__(self, old, new, order="forward"):
        super().__init__(order)
        self.old, self.new = old, new

    def function(self, source, entry, options=()):
        assert self.old in source
        return super().function(source.replace(self.old, self.new), entry, options)


def call_of(case, dtype="float32", channels_last=True, precision="ieee"):
    """The case as kernels are chosen by."""
    x = case.x if channels_last else np.moveaxis(case.x, -1, 1)
    shapes = x.shape, case.kernel.shape
    geometry = geometry_of(case.transposed, case.ndim, *shapes, channels_last, case.groups, **case.settings)
    return Call(geometry, x.shape[0], case.transposed, channels_last, dtype, precision)


def refuses(name, case):
    """Why a kernel cannot run the case, or nothing."""
    (algorithm,) = (a for a in planner.ALGORITHMS if a.name == name)
    return algorithm.refuses(call_of(case), (9, 0))


def run(case, device, dtype="float32", algorithm=None, channels_last=True, **options):
    """What the launch code makes of the case on `device`, channels_last; every array ends at a guard page."""
    x = case.x if channels_last else np.moveaxis(case.x, -1, 1)
    arrays = [
        None if a is None else device.guarded(np.ascontiguousarray(a, numpy_dtype(dtype)))
        for a in (x, case.kernel, case.bias)
    ]
    function = cupy_.conv_transpose if case.transposed else cupy_.conv
    y = function(
        call_of(case, dtype, channels_last).geometry, *arrays, options.pop("activation", None),
        channels_last=channels_last, dtype=dtype, device=device, algorithm=algorithm, **options,
    )  # fmt: skip
    return y if channels_last else np.moveaxis(y, 1, -1)


def case_of(x_shape, kernel_shape, groups=1, transposed=True, bias=True, seed=0, **settings):
    """A case with small integers, of any size."""
    rng = np.random.default_rng(seed)
    filters = kernel_shape[-2] * groups if transposed else kernel_shape[-1]
    x, kernel, b = (rng.integers(-4, 5, shape) * 1.0 for shape in (x_shape, kernel_shape, (filters,)))
    ndim = len(x_shape) - 2
    settings = {"strides": (1,) * ndim, "dilation_rate": (1,) * ndim, "padding": "valid", **settings}
    return Case(transposed, ndim, x, kernel, b if bias else None, groups, settings)


def fixed():
    """Cases that reach every branch of the kernels."""
    return [
        case_of((2, 70, 16), (4, 32, 16), strides=(2,), padding="same"),
        case_of((1, 150, 24), (16, 5, 24), strides=(8,), padding=((4, 4),)),
        case_of((3, 20, 36), (7, 6, 36), groups=3, strides=(3,), padding="same_lower"),
        case_of((2, 9, 8), (4, 1, 8), groups=8, strides=(2,)),
        case_of((1, 12, 6), (5, 4, 6), strides=(2,), dilation_rate=(3,), output_padding=(1,)),
        case_of((2, 33, 20), (3, 20, 18), transposed=False, strides=(2,), padding="same"),
        case_of((1, 40, 12), (5, 4, 30), groups=3, transposed=False, dilation_rate=(2,), padding="causal"),
        case_of((2, 4, 5, 6), (3, 2, 4, 6), strides=(2, 1), padding="same"),
        case_of((1, 3, 2, 4, 4), (2, 2, 3, 3, 4), strides=(2, 1, 2)),
        case_of((1, 3, 4, 4, 4), (2, 2, 3, 4, 3), transposed=False, padding="same"),
    ]


FIXED = fixed()


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels_last", [True, False], ids=["last", "first"])
def test_every_kernel_type_and_layout_is_exact_on_integers(kernels, dtype, channels_last):
    for case in FIXED:
        if refuses(kernels, case):
            continue
        wanted = np.asarray(expected(case)).astype(numpy_dtype(dtype))
        y = run(case, Emulator(), dtype, kernels, channels_last)
        assert y.dtype == wanted.dtype
        np.testing.assert_array_equal(y, wanted)


@pytest.mark.parametrize("kernels", KERNELS)
@given(data=st.data(), channels_last=st.booleans(), order=st.sampled_from(emulator.ORDERS))
def test_geometries_against_the_loops(kernels, data, channels_last, order):
    case = data.draw(cases(ndims=(1, 1, 2, 3) if kernels == "direct" else (1,)))
    wanted = expected(case)
    assume(wanted is not None and not refuses(kernels, case))
    y = run(case, Emulator(order), "float32", kernels, channels_last)
    assert y.shape == wanted.shape
    np.testing.assert_array_equal(y, wanted)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "complex64"])
def test_four_thread_orders_give_the_same_bits_within_the_bound(kernels, dtype):
    rng = np.random.default_rng(2)
    case = case_of((2, 70, 32), (9, 20, 32), strides=(4,), padding="same", bias=False)
    case.x, case.kernel = (
        rng.standard_normal(a.shape).astype(numpy_dtype(dtype)) for a in (case.x, case.kernel)
    )
    results = [run(case, Emulator(order), dtype, kernels) for order in emulator.ORDERS]
    assert len({y.tobytes() for y in results}) == 1
    exact = expected(case)
    case.x, case.kernel = abs(case.x), abs(case.kernel)
    size, terms = abs(expected(case)), 3 * 32
    bound = (terms + 4) * np.finfo(np.float32).eps * size
    if dtype == "float16":
        bound += np.finfo(dtype).eps / 2 * (abs(exact) + bound) + np.finfo(dtype).smallest_subnormal
    assert (abs(results[0] - exact) <= bound).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_which_kernel_ran_never_shows(dtype):
    rng = np.random.default_rng(4)
    for case in fixed():
        case.x, case.kernel = rng.standard_normal(case.x.shape), rng.standard_normal(case.kernel.shape)
        able = [a.name for a in planner.ALIKE if not a.refuses(call_of(case, dtype), (9, 0))]
        results = [run(case, Emulator(), dtype, name) for name in able]
        assert len({y.tobytes() for y in results}) == 1


@pytest.mark.parametrize("kernels", KERNELS)
def test_a_sample_has_the_same_bits_in_any_batch(kernels):
    rng = np.random.default_rng(3)
    case = case_of((5, 40, 32), (9, 20, 32), strides=(4,))
    case.x, case.kernel = rng.standard_normal(case.x.shape), rng.standard_normal(case.kernel.shape)
    whole = run(case, Emulator(), "float32", kernels)
    for i in range(5):
        one = case_of((1, 40, 32), (9, 20, 32), strides=(4,))
        one.x, one.kernel, one.bias = case.x[i : i + 1], case.kernel, case.bias
        assert run(one, Emulator(), "float32", kernels).tobytes() == whole[i : i + 1].tobytes()


@pytest.mark.parametrize("name", [*(f.__name__ for f in FUSED), "gelu", "softplus"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_activations_in_the_epilogue(name, dtype):
    function = getattr(activations, name)
    case = case_of((1, 30, 4), (3, 4, 4), strides=(2,))
    case.x = case.x / 8
    y = run(case, Emulator(), dtype, "direct", activation=function)
    exact = expected(case)
    if function in FUSED:
        wanted = function(exact.astype("float32" if dtype == "float16" else dtype))
    else:  # applied to the rounded sums
        wanted = function(exact.astype(dtype))
    # The sums are exact; what differs is the last bits of exp and tanh, and one rounding.
    np.testing.assert_allclose(
        y.astype(float), wanted, rtol=4 * np.finfo(dtype).eps, atol=np.finfo(dtype).tiny
    )


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("channels_last", [True, False], ids=["last", "first"])
def test_64_bit_indices(kernels, channels_last, monkeypatch):
    monkeypatch.setattr(cuda_call, "_WIDE", 0)
    for case in FIXED[:7]:
        if refuses(kernels, case):
            continue
        np.testing.assert_array_equal(
            run(case, Emulator(), "float32", kernels, channels_last), expected(case)
        )


def test_arrays_beyond_32_bits_are_recognised():
    small, far = np.empty((2, 3)), np.lib.stride_tricks.as_strided(np.empty(1), (2, 2), (2**34, 8))
    call = call_of(FIXED[0])
    assert not is_wide(call, small)
    assert is_wide(call, small, far)
    assert is_wide(call._replace(samples=2**20), small)


def test_non_contiguous_arrays_are_read_and_written_in_place():
    case = case_of((2, 9, 16), (4, 16, 16), strides=(2,))
    wanted = expected(case).astype(np.float32)
    x = np.repeat(case.x, 2, axis=1).astype(np.float32)[:, ::2]
    kernel = np.asfortranarray(case.kernel.astype(np.float32))
    room = np.full((2, 40, 32), np.nan, np.float32)
    geometry = geometry_of(True, 1, x.shape, kernel.shape, True, 1, **case.settings)
    for kernels in KERNELS:
        out = room[:, :40:2, 1::2]
        options = {"channels_last": True, "dtype": "float32", "device": Emulator(), "algorithm": kernels}
        bias = case.bias.astype(np.float32)
        y = cupy_.conv_transpose(geometry, x, kernel, bias, None, out=out, **options)
        assert y is out
        np.testing.assert_array_equal(out, wanted)
        assert np.isnan(room[:, :, ::2]).all()
        assert np.isnan(room[:, 1::2]).all()


def test_out_may_overlap_the_input():
    case = case_of((1, 8, 4), (3, 4, 4), padding="same", bias=False)
    x = case.x.astype(np.float32)
    geometry = geometry_of(True, 1, x.shape, case.kernel.shape, True, 1, **case.settings)
    options = {"channels_last": True, "dtype": "float32", "device": Emulator()}
    y = cupy_.conv_transpose(geometry, x, case.kernel.astype(np.float32), None, None, out=x, **options)
    assert y is x
    np.testing.assert_array_equal(x, expected(case))


def test_mixed_types_are_promoted():
    case = case_of((1, 8, 4), (3, 4, 4))
    geometry = geometry_of(True, 1, case.x.shape, case.kernel.shape, True, 1, **case.settings)
    arrays = case.x.astype(np.float16), case.kernel.astype(np.float32), case.bias
    y = cupy_.conv_transpose(geometry, *arrays, None, channels_last=True, dtype="float64", device=Emulator())
    np.testing.assert_array_equal(y, expected(case))


# --- planted faults ------------------------------------------------------------------------------


def test_a_removed_barrier_is_noticed():
    case = FIXED[0]
    devices = [Planted("__syncthreads();", "", order) for order in emulator.ORDERS]
    results = [run(case, device, "float32", "tile-64x64") for device in devices]
    assert not all(np.array_equal(y, expected(case)) for y in results)


def test_an_off_by_one_store_is_noticed():
    device = Planted("row >= g.rows ||", "row > g.rows ||")
    with pytest.raises(CudaFault, match=r"illegal write|wrote past the end"):
        run(case_of((1, 70, 16), (2, 16, 16), strides=(2,)), device, "float32", "tile-64x64")


def test_an_off_by_one_load_is_noticed():
    device = Planted("at < g.in_length", "at <= g.in_length")
    with pytest.raises(CudaFault, match="illegal read"):
        run(case_of((1, 70, 16), (2, 16, 16), strides=(1,)), device, "float32", "tile-64x64")


# --- the way to CuPy -----------------------------------------------------------------------------


class Cupy(types.ModuleType):
    """As much of CuPy as the launch code calls, made of NumPy and the emulator: the way, not the numbers."""

    class ndarray(np.ndarray):  # noqa: N801, CuPy's name
        device = contextlib.nullcontext()

    def __init__(self, capability="90"):
        super().__init__("cupy")
        self.launched, self.compiled = [], []
        device = types.SimpleNamespace(id=0, compute_capability=capability)
        properties = {"name": b"emulator", "multiProcessorCount": 132}
        runtime = types.SimpleNamespace(getDeviceProperties=lambda _: properties)
        self.cuda = types.SimpleNamespace(Device=lambda: device, runtime=runtime)

    def __getattr__(self, name):
        return getattr(np, name)

    def empty(self, shape, dtype):
        room = np.empty(shape, dtype).view(self.ndarray)
        room.view(np.uint8)[...] = 255
        return room

    def RawModule(self, *, code, options):  # noqa: N802, CuPy's name
        def function(entry):
            self.compiled.append((code, entry, options))

            def kernel(grid, block, args):
                self.launched.append(entry)
                # CuPy takes a struct as a NumPy array of one; all other arrays here are the device's.
                structs = [isinstance(a, np.ndarray) and a.dtype.names is not None for a in args]
                packed = [a[0] if struct else a for a, struct in zip(args, structs, strict=True)]
                Emulator().function(code, entry, options)(grid, block, tuple(packed))

            return kernel

        return types.SimpleNamespace(get_function=function)


def pretend(monkeypatch, cupy):
    """Let the launch code take `cupy` for CuPy."""
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(namespace, "_compat_namespace", lambda *_: np)
    for name in ("_cupy_function", "_cupy_module", "_cupy_properties"):
        monkeypatch.setattr(cuda_device, name, getattr(cuda_device, name).__wrapped__)
    monkeypatch.setattr(_select, "is_numpy_array", lambda array: not isinstance(array, cupy.ndarray))
    monkeypatch.setattr(_select, "is_cupy_array", lambda array: isinstance(array, cupy.ndarray))


def test_cupy_arrays_reach_raw_modules(monkeypatch):
    cupy = Cupy()
    pretend(monkeypatch, cupy)
    for case, entry in (
        (case_of((8, 1000, 32), (2, 64, 32), strides=(2,)), "tile_gather"),
        (FIXED[3], "direct_conv_transpose"),
        (FIXED[-1], "direct_conv"),
    ):
        x, kernel, bias = (a.view(cupy.ndarray) for a in (case.x, case.kernel, case.bias))
        op = getattr(gpuconv, case.op)
        y = op(x, kernel, bias, groups=case.groups, **case.settings)
        assert isinstance(y, cupy.ndarray)
        assert cupy.launched[-1] == entry
        np.testing.assert_array_equal(y, expected(case))
