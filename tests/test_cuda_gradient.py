"""The kernels for gradients, on an emulator: no GPU is needed."""

import copy
import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import gpuconv
from gpuconv.backends import cupy_
from gpuconv.backends.cuda import call as cuda_call
from gpuconv.backends.cuda import kernel_gradient
from gpuconv.backends.cuda.call import options_of
from gpuconv.backends.cuda.device import source_of
from gpuconv.backends.cuda.kernel_gradient import choose_gradient
from gpuconv.namespace import DTYPES
from tests import emulator
from tests.bounds import assert_within_bound
from tests.emulator import CudaFault, Emulator, compile_gate
from tests.reference import axes_of, expected, expected_gradient
from tests.strategies import cases
from tests.test_cuda import Cupy, Planted, call_of, case_of, numpy_dtype, pretend

emulated = pytest.mark.skipif(bool(emulator.missing()), reason=emulator.missing() or "")
compiled = pytest.mark.skipif(bool(compile_gate.missing()), reason=compile_gate.missing() or "")

WAYS = ["direct", "tile"]
ONE_AXIS = [
    case_of((2, 35, 16), (4, 20, 16), strides=(2,), padding="same"),  # two tiles of rows
    case_of((1, 30, 70), (3, 2, 70), strides=(3,)),  # two tiles of columns
    case_of((3, 20, 18), (7, 6, 18), groups=3, strides=(3,), padding="same_lower"),
    case_of((2, 9, 8), (4, 1, 8), groups=8, strides=(2,)),
    case_of((1, 12, 6), (5, 4, 6), strides=(2,), dilation_rate=(3,), output_padding=(1,)),
    case_of((40, 1, 5), (3, 4, 5), strides=(2,), padding=((1, 0),)),  # more samples than positions
    case_of((2, 33, 10), (3, 10, 18), transposed=False, strides=(2,), padding="same"),
    case_of((1, 40, 12), (5, 4, 15), groups=3, transposed=False, dilation_rate=(2,), padding="causal"),
]
MORE_AXES = [
    case_of((2, 4, 5, 6), (3, 2, 4, 6), strides=(2, 1), padding="same"),
    case_of((1, 3, 2, 4, 4), (2, 2, 3, 3, 4), strides=(2, 1, 2)),
    case_of((1, 3, 4, 4, 4), (2, 2, 3, 4, 3), transposed=False, padding="same"),
]
CASES = [*ONE_AXIS, *MORE_AXES]


@pytest.fixture(params=[512, 16], ids=["few slices", "many slices"])
def slices(request, monkeypatch):
    """Cut the terms as they are cut, or into slices so short that the cases have several."""
    monkeypatch.setattr(kernel_gradient, "_LEAST_TERMS", request.param)


def gradient_of(case, seed=1):
    """A case's dy, of small integers."""
    return np.random.default_rng(seed).integers(-4, 5, call_of(case).shape) * 1.0


def valued(case, dy, dtype, draw):
    """A copy of the case, and a dy, of what `draw` makes of a shape; complex types get imaginary parts."""

    def values(shape):
        drawn = draw(shape) + 1j * draw(shape) if dtype.startswith("complex") else draw(shape)
        return drawn.astype(numpy_dtype(dtype)).astype(drawn.dtype)

    case = copy.copy(case)
    case.x, case.kernel, case.bias = values(case.x.shape), values(case.kernel.shape), None
    return case, values(dy.shape)


def integers(seed=3):
    rng = np.random.default_rng(seed)
    return lambda shape: rng.integers(-4, 5, shape) * 1.0


def normal(seed=5):
    return np.random.default_rng(seed).standard_normal


def pull(case, dy, device=None, dtype="float32", algorithm=None, channels_last=True, **options):
    """What the launch code makes of dy; every array ends at a guard page."""
    device = device or Emulator()
    x, dy = (a if channels_last else np.moveaxis(a, -1, 1) for a in (case.x, dy))
    arrays = (device.guarded(np.ascontiguousarray(a, numpy_dtype(dtype))) for a in (x, dy))
    return cupy_.kernel_gradient(
        call_of(case).geometry, *arrays, channels_last=channels_last, dtype=dtype,
        transposed=case.transposed, algorithm=algorithm, device=device, **options,
    )  # fmt: skip


def able(way, case):
    return not {"direct": kernel_gradient._DIRECT, "tile": kernel_gradient._TILES}[way].refuses(call_of(case))


# --- the oracle ----------------------------------------------------------------------------------


def inner(a, b):
    return np.vdot(a, b)  # the sum over conj(a) * b


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_the_loops_are_the_adjoint_of_the_map_from_kernel_to_result(dtype):
    for case in CASES:
        case, dy = valued(case, gradient_of(case), dtype, integers())
        assert inner(dy, expected(case)) == inner(expected_gradient(case, dy), case.kernel)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_torch_has_the_same_convention(dtype):
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install gpuconv[peers]")
    case, dy = valued(case_of((2, 9, 4), (5, 3, 4), strides=(2,)), np.empty((2, 21, 3)), dtype, integers())
    x, gradient = (torch.from_numpy(np.moveaxis(a, -1, 1)) for a in (case.x, dy))
    weight = torch.from_numpy(case.kernel.transpose(2, 1, 0)).clone().requires_grad_()
    torch.nn.functional.conv_transpose1d(x, weight, stride=2).backward(gradient)
    wanted = weight.grad.resolve_conj().numpy().transpose(2, 1, 0)
    np.testing.assert_array_equal(expected_gradient(case, dy), wanted)


# --- exactness -----------------------------------------------------------------------------------


@emulated
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels_last", [True, False], ids=["last", "first"])
def test_every_type_layout_and_direction_is_exact_on_integers(way, dtype, channels_last, slices):
    for case in CASES:
        if not able(way, case):
            continue
        case, dy = valued(case, gradient_of(case), dtype, integers())
        wanted = expected_gradient(case, dy).astype(numpy_dtype(dtype))
        dkernel = pull(case, dy, None, dtype, way, channels_last)
        assert dkernel.dtype == wanted.dtype
        np.testing.assert_array_equal(dkernel, wanted)


@emulated
@pytest.mark.parametrize("way", WAYS)
@given(data=st.data(), channels_last=st.booleans(), order=st.sampled_from(emulator.ORDERS))
def test_geometries_against_the_loops(way, data, channels_last, order):
    case = data.draw(cases(ndims=(1, 1, 2, 3) if way == "direct" else (1,)))
    assume(axes_of(case) is not None)
    assume(able(way, case))
    dy = gradient_of(case, data.draw(st.integers(0, 9)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel_gradient, "_LEAST_TERMS", 16)
        dkernel = pull(case, dy, Emulator(order), "float32", way, channels_last)
    assert dkernel.shape == case.kernel.shape
    np.testing.assert_array_equal(dkernel, expected_gradient(case, dy))


@emulated
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("channels_last", [True, False], ids=["last", "first"])
def test_64_bit_indices(way, channels_last, monkeypatch):
    monkeypatch.setattr(cuda_call, "_WIDE", 0)
    monkeypatch.setattr(kernel_gradient, "_LEAST_TERMS", 16)
    for case in CASES:
        if able(way, case):
            dy = gradient_of(case)
            wanted = expected_gradient(case, dy)
            np.testing.assert_array_equal(pull(case, dy, None, "float32", way, channels_last), wanted)


@emulated
@pytest.mark.parametrize("transposed", [True, False], ids=["transposed", "forward"])
@pytest.mark.parametrize("shape", [(0, 9, 4), (2, 0, 4)], ids=["no samples", "no length"])
def test_without_terms_the_sums_are_zeros(shape, transposed):
    case = case_of(shape, (3, 2, 4) if transposed else (3, 4, 2), transposed=transposed, padding="same")
    np.testing.assert_array_equal(pull(case, gradient_of(case)), np.zeros(case.kernel.shape))


@emulated
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("skew", [0, 1])
def test_any_strides_and_alignment_are_read_and_written_in_place(way, skew, slices):
    case = case_of((2, 35, 10), (4, 20, 10), strides=(2,))
    dy = gradient_of(case)
    x = np.repeat(case.x, 2, axis=1).astype(np.float16)[:, ::2]
    room = np.zeros(dy.size + skew, np.float16)
    gradient = room[skew:].reshape(dy.shape[::-1]).transpose()
    gradient[...] = dy
    out = np.full((8, 20, 20 + skew), np.nan, np.float16)
    place = out[::-2, :, skew::2]
    options = {"channels_last": True, "dtype": "float16", "transposed": True, "algorithm": way}
    geometry = call_of(case).geometry
    made = cupy_.kernel_gradient(geometry, x, gradient, out=place, device=Emulator(), **options)
    assert made is place
    np.testing.assert_array_equal(place, expected_gradient(case, dy).astype(np.float16))
    place[...] = np.nan
    assert np.isnan(out).all()


@emulated
def test_out_may_overlap_what_is_read():
    case = case_of((1, 6, 4), (6, 1, 4))
    dy = gradient_of(case)
    x = case.x.astype(np.float32)
    options = {"channels_last": True, "dtype": "float32", "transposed": True, "device": Emulator()}
    out = x.reshape(case.kernel.shape)
    made = cupy_.kernel_gradient(call_of(case).geometry, x, dy.astype(np.float32), out=out, **options)
    assert made is out
    np.testing.assert_array_equal(out, expected_gradient(case, dy))


# --- rounding ------------------------------------------------------------------------------------


@emulated
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "complex64"])
def test_four_thread_orders_and_both_layouts_give_the_same_bits_within_the_bound(way, dtype, slices):
    case = case_of((3, 60, 9), (5, 8, 9), strides=(2,), padding="same")
    case, dy = valued(case, gradient_of(case), dtype, normal())
    results = [
        pull(case, dy, Emulator(order), dtype, way, channels_last)
        for order in emulator.ORDERS
        for channels_last in (True, False)
    ]
    assert len({dkernel.tobytes() for dkernel in results}) == 1
    exact = expected_gradient(case, dy)
    case.x = abs(case.x)
    assert_within_bound(results[0], exact, expected_gradient(case, abs(dy)), 3 * 60, dtype)


@emulated
@pytest.mark.parametrize("way", [*WAYS, None])
def test_bits_do_not_depend_on_the_device(way):
    case = case_of((2, 600, 16), (2, 32, 16))
    case, dy = valued(case, gradient_of(case), "float32", normal())
    devices = [Emulator(multiprocessors=1), Emulator(capability=(7, 5)), Emulator(multiprocessors=999)]
    assert len({pull(case, dy, device, algorithm=way).tobytes() for device in devices}) == 1


# --- the input -----------------------------------------------------------------------------------


@emulated
@pytest.mark.parametrize("dtype", ["float32", "complex64", "complex128"])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_the_input_gradient_is_the_adjoint_of_the_map_from_input_to_result(dtype, data_format, monkeypatch):
    cupy = Cupy()
    pretend(monkeypatch, cupy)
    for case in CASES:
        case, dy = valued(case, gradient_of(case), dtype, integers())
        x, kernel, gradient = (np.ascontiguousarray(a, dtype) for a in (case.x, case.kernel, dy))
        if data_format == "channels_first":
            x, gradient = (np.ascontiguousarray(np.moveaxis(a, -1, 1)) for a in (x, gradient))
        x, kernel, gradient = (array.view(cupy.ndarray) for array in (x, kernel, gradient))
        options = case.settings | {"groups": case.groups, "data_format": data_format}
        dx, _, _ = gpuconv.vjp(case.op, x, kernel, **options)[1](gradient)
        dx = dx if data_format == "channels_last" else np.moveaxis(dx, 1, -1)
        assert dx.shape == case.x.shape
        assert inner(dy, expected(case)) == inner(np.asarray(dx, case.x.dtype), case.x)


# --- the choice ----------------------------------------------------------------------------------


def chosen(x_shape, kernel_shape, **options):
    return choose_gradient(call_of(case_of(x_shape, kernel_shape, **options))).name


def test_tiles_are_for_what_fills_them():
    assert chosen((4, 1000, 64), (16, 32, 64), strides=(8,)) == "tile"
    assert chosen((4, 1000, 64), (3, 64, 64), transposed=False) == "tile"
    assert chosen((4, 1000, 64), (16, 1, 64), groups=64, strides=(8,)) == "direct"  # of one column
    assert chosen((4, 1000, 4), (3, 4, 4)) == "direct"
    assert chosen((2, 9, 9, 64), (3, 3, 64, 64)) == "direct"  # of 2 axes


def test_ways_are_asked_for_by_name():
    call = call_of(ONE_AXIS[0])
    assert choose_gradient(call, "direct").name == "direct"
    assert choose_gradient(call, "tile").name == "tile"
    with pytest.raises(ValueError, match=r"None, 'direct' or 'tile'. Received algorithm='fft'"):
        choose_gradient(call, "fft")
    with pytest.raises(ValueError, match=r"Received algorithm='tile': for 1 axis only"):
        choose_gradient(call_of(MORE_AXES[0]), "tile")
    with pytest.raises(ValueError, match=r"Received algorithm='tile': there is nothing to sum"):
        choose_gradient(call._replace(samples=0), "tile")


def test_the_work_is_counted():
    call = call_of(case_of((4, 1000, 64), (16, 32, 64), strides=(8,)))
    direct, tile = (choose_gradient(call, way) for way in WAYS)
    # 512 rows, 64 columns and 4,000 terms: 8 tiles of 7 slices of 576 terms.
    work = tile.work(call)
    assert (work.multiply_adds, work.blocks, work.launches) == (8 * 64 * 64 * 7 * 576, 8 * 7, 2)
    assert tile.workspace(call) == 7 * 512 * 64 * 4
    assert work.bytes == call.bytes_moved + 2 * tile.workspace(call)
    work = direct.work(call)
    assert (work.multiply_adds, work.blocks, work.launches) == (512 * 64 * 4096, 512 * 64, 1)
    assert direct.workspace(call) == 0


# --- the workspace -------------------------------------------------------------------------------


def workspace_of(case, way, dtype="float32"):
    call = call_of(case, dtype=dtype)
    return choose_gradient(call, way).workspace(call)


@emulated
@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_allocated_with_out_and_workspace(way, slices, monkeypatch):
    case, device = ONE_AXIS[0], Emulator()
    dy = gradient_of(case)
    out = device.guarded(np.zeros(case.kernel.shape, np.float32))
    workspace = emulator.guarded((workspace_of(case, way),), np.uint8, align=16)
    monkeypatch.setattr(device, "empty", lambda *_: pytest.fail("allocated"))
    assert pull(case, dy, device, algorithm=way, out=out, workspace=workspace) is out
    np.testing.assert_array_equal(out, expected_gradient(case, dy))


def test_the_workspace_has_a_number_for_each_slice_of_each_element(monkeypatch):
    monkeypatch.setattr(kernel_gradient, "_LEAST_TERMS", 16)
    case = ONE_AXIS[0]  # 70 terms: 4 slices of 32, of which 3 have any
    sizes = [workspace_of(case, "tile", dtype) for dtype in DTYPES]
    assert sizes == [3 * case.kernel.size * size for size in (4, 4, 4, 8, 8, 16)]
    assert workspace_of(case, "direct") == 0


@emulated
def test_a_workspace_that_does_not_do_is_refused(monkeypatch):
    monkeypatch.setattr(kernel_gradient, "_LEAST_TERMS", 16)
    case = ONE_AXIS[0]
    size = workspace_of(case, "tile")
    for given_, received in (
        (np.zeros(size - 1, np.uint8), f"{size - 1} bytes"),
        (np.zeros(size, np.int8), "an array of int8, not of uint8"),
        (emulator.guarded((size + 16,), np.uint8, align=16)[4:], "an address that is no multiple of 16"),
    ):
        message = f"^Expected workspace of at least {size} bytes. Received {received}"
        with pytest.raises(ValueError, match=message):
            pull(case, gradient_of(case), algorithm="tile", workspace=given_)


# --- planted faults ------------------------------------------------------------------------------

MANY = case_of((2, 64, 16), (2, 32, 16))  # rows, terms and columns that fill tiles and slices
RAGGED = case_of((1, 61, 7), (3, 7, 7), strides=(2,), padding=((0, 1),))


def is_noticed(way, old, new, case=MANY, dtype="float32"):
    """Whether a thread order shows the changed source, by other numbers than the loops'."""
    case, dy = valued(case, gradient_of(case), dtype, integers())
    results = [pull(case, dy, Planted(old, new, order), dtype, way) for order in emulator.ORDERS]
    return not all(np.array_equal(made, expected_gradient(case, dy)) for made in results)


@emulated
@pytest.mark.parametrize(
    "before", ["sums[threadIdx.x] = sum;", "sums[threadIdx.x + half]);"], ids=["tree's start", "tree"]
)
def test_a_removed_barrier_of_the_tree_is_noticed(before):
    barrier = source_of("kernel_gradient.cu").partition(before)[2].partition("__syncthreads();")[0]
    assert not barrier.strip()
    assert is_noticed("direct", f"{before}{barrier}__syncthreads();", before)


@emulated
@pytest.mark.parametrize(
    "after", ["\n#pragma unroll\n            for (int k", "\n        }\n#pragma"], ids=["before", "after"]
)
def test_a_removed_barrier_of_the_tile_is_noticed(after):
    assert is_noticed("tile", f"__syncthreads();{after}", after)


@emulated
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("(slice + 1) * slice_terms,", "(slice + 1) * slice_terms + 1,"),
        ("(slice + 1) * slice_terms,", "(slice + 1) * slice_terms - 1,"),
        ("slice = 0; slice < slices", "slice = 1; slice < slices"),
        ("term.sample += term.position / length", "term.sample++"),
    ],
    ids=["a term twice", "a term missed", "a slice missed", "a sample taken for another"],
)
def test_a_wrong_range_is_noticed(old, new, monkeypatch):
    monkeypatch.setattr(kernel_gradient, "_LEAST_TERMS", 32)
    assert is_noticed("tile", old, new, ONE_AXIS[5] if "sample" in old else MANY)


@emulated
@pytest.mark.parametrize("way", WAYS)
def test_an_exchanged_conjugate_is_noticed(way):
    assert is_noticed(
        way, "? conjugate(widen(v)) : widen(v)", "? widen(v) : conjugate(widen(v))", dtype="complex64"
    )


@emulated
@pytest.mark.parametrize(
    ("way", "old", "new", "what"),
    [
        ("tile", "target < Index(axis.out_length)", "target <= Index(axis.out_length)", "illegal read"),
        ("tile", "term0 + k < end", "term0 + k <= end", "illegal read"),
        ("tile", "row >= all_rows ||", "row > all_rows ||", r"illegal write|wrote past the end"),
        ("tile", "slice < slices", "slice <= slices", "illegal read"),
        ("direct", "target >= axis.out_length", "target > axis.out_length", "illegal read"),
        ("direct", "term < terms", "term <= terms", "illegal read"),
    ],
    ids=["tile's y", "tile's x", "tile's store", "slices", "y", "x"],
)
def test_an_off_by_one_is_noticed(way, old, new, what, monkeypatch):
    monkeypatch.setattr(kernel_gradient, "_LEAST_TERMS", 16)
    with pytest.raises(CudaFault, match=what):
        pull(RAGGED, gradient_of(RAGGED), Planted(old, new), "float32", way)


# --- the way to CuPy -----------------------------------------------------------------------------


@emulated
def test_cupy_arrays_reach_raw_modules(monkeypatch):
    cupy = Cupy()
    pretend(monkeypatch, cupy)
    case = case_of((2, 600, 16), (2, 32, 16))
    dy = gradient_of(case)
    arrays = [a.astype(np.float32).view(cupy.ndarray) for a in (case.x, dy)]
    how = {"channels_last": True, "dtype": "float32", "transposed": True}
    dkernel = cupy_.kernel_gradient(call_of(case).geometry, *arrays, **how)
    assert isinstance(dkernel, cupy.ndarray)
    assert cupy.launched == ["tile_kernel_gradient", "add_kernel_gradient"]
    np.testing.assert_array_equal(dkernel, expected_gradient(case, dy))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64", "complex128"])
def test_on_a_gpu(cupy, way, dtype):
    for case in [*CASES, MANY]:
        if able(way, case):
            case, dy = valued(case, gradient_of(case), dtype, integers())
            x, gradient = (cupy.asarray(a.astype(dtype)) for a in (case.x, dy))
            how = {"channels_last": True, "dtype": dtype, "transposed": case.transposed, "algorithm": way}
            dkernel = cupy_.kernel_gradient(call_of(case).geometry, x, gradient, **how)
            np.testing.assert_array_equal(dkernel.get(), expected_gradient(case, dy).astype(dtype))


# --- the compile gate ----------------------------------------------------------------------------

# Most registers that an instantiation takes, by its type in the order of DTYPES, with 32-bit and with 64-bit
# indices. A block has 256 threads, a multiprocessor 65,536 registers: up to 64 leave room for four of them,
# up to 128 for two.
CEILINGS = {
    "direct_kernel_gradient": ((48,) * 6, (56,) * 6),
    "tile_kernel_gradient": ((104, 104, 104, 144, 104, 168), (144, 144, 144, 176, 144, 200)),
    "add_kernel_gradient": ((32, 32, 32, 40, 40, 64), (40, 40, 40, 40, 48, 64)),
}


@compiled
@pytest.mark.parametrize("arch", ["sm_75", "sm_80", "sm_90"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_instantiation_compiles_without_spills(arch, dtype):
    def usages_of(choice):
        source, options = source_of("kernel_gradient.cu"), options_of(dtype, 0, *choice)
        return [compile_gate.compile_cubin(source, entry, options, arch) for entry in CEILINGS]

    # The direction decides what is conjugated, and nothing else.
    directions = (True, False) if dtype.startswith("complex") else (True,)
    choices = list(itertools.product((True, False), directions, (False, True)))
    with ThreadPoolExecutor() as pool:  # NVRTC computes without Python's lock
        every = list(pool.map(usages_of, choices))
    for choice, usages in zip(choices, every, strict=True):
        for (entry, ceilings), usage in zip(CEILINGS.items(), usages, strict=True):
            assert usage.spill_stores == usage.spill_loads == 0, (entry, choice)
            assert usage.registers <= ceilings[choice[-1]][DTYPES.index(dtype)], (entry, choice)
