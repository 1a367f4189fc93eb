"""The ways of convolving NumPy arrays, each forced, and which is chosen when."""

import json
import math
import os
import subprocess
import sys
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import gpuconv
from gpuconv.backends import numpy_
from gpuconv.backends.cpu import call as cpu_call
from gpuconv.backends.cpu import (
    gather,
    kernel_gradient,
    overlap_add,
    planner,
    row_overlap_add,
    threads,
    toeplitz,
)
from gpuconv.namespace import HALF_DTYPES
from gpuconv.ops.shapes import geometry_of
from tests.bounds import assert_within_bound, noting
from tests.reference import expected, expected_gradient
from tests.strategies import cases

NAMES = [algorithm.name for algorithm in planner.ALGORITHMS]

#: Where each way can run.
ELIGIBLE = {
    "window GEMM": cases(ndims=(1,), most_dilation=1, groups=(1,)),
    "overlap-add GEMM": cases(ndims=(1,), most_dilation=1),
    "row overlap-add GEMM": cases(most_dilation=1, groups=(1,)),
    "Toeplitz-block GEMM": cases(ndims=(1,), most_dilation=1),
    "tap loop": cases(most_depth=1),
    "gather GEMM": cases(),
}


def planned(case, algorithm, x, data_format="channels_last", **options):
    """The plan of a case that a way is asked to run, None where it refuses."""
    options = case.settings | {"groups": case.groups, "data_format": data_format} | options
    try:
        return gpuconv.plan(case.op, x.shape, case.kernel, case.bias, algorithm=algorithm, **options)
    except ValueError as error:
        if "Expected an algorithm that can run this" not in str(error):
            raise
        return None


@pytest.mark.parametrize("algorithm", NAMES)
@given(data=st.data(), rows=st.integers(1, 4), channels_first=st.booleans(), apart=st.booleans())
def test_each_way_equals_the_loops(algorithm, data, rows, channels_first, apart):
    """Forced, on threads or not, in blocks of a few rows, so that every boundary is crossed."""
    case = data.draw(ELIGIBLE[algorithm])
    wanted = expected(case)
    assume(wanted is not None)
    x = case.x
    if channels_first:
        x, wanted = (np.ascontiguousarray(np.moveaxis(a, -1, 1)) for a in (x, wanted))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu_call, "_LEAST_ROWS", rows)
        patch.setattr(cpu_call, "_FEWEST_ROWS", 1)
        patch.setattr(cpu_call, "_MOST_ELEMENTS", 1)
        patch.setattr(cpu_call, "_PER_HALO_ROW", 1)
        patch.setattr(toeplitz, "_MOST", rows)
        patch.setattr(gather, "_MOST_PADDED", 60 * rows)
        patch.setattr(overlap_add, "_MANY_PHASES", rows)
        patch.setattr(numpy_, "_parts", lambda *_: 8 if apart else 1)
        numpy_._way.cache_clear()
        cpu_call.blocks.cache_clear()
        plan = planned(case, algorithm, x, "channels_first" if channels_first else "channels_last")
        assume(plan is not None)
        with noting(case):
            np.testing.assert_array_equal(plan(x), wanted)
            # Not contiguous, neither what is read nor what is written.
            gaps = np.full((*wanted.shape[:-1], 2 * wanted.shape[-1] + 1), np.nan)
            out = gaps[..., : 2 * wanted.shape[-1] : 2]
            assert plan(np.repeat(x, 2, axis=-1)[..., ::2], out=out) is out
            np.testing.assert_array_equal(out, wanted)
            assert np.isnan(gaps[..., 1::2]).all()


@given(case=cases(), parts=st.integers(2, 8))
def test_a_kernel_gradient_in_parts_equals_the_loops(case, parts):
    """Each group, or some, on a thread."""
    assume(expected(case) is not None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel_gradient, "_PART_ADDS", 1)
        patch.setattr(threads, "MOST_PARTS", parts)
        y, pullback = gpuconv.vjp(case.op, case.x, case.kernel, **case.settings, groups=case.groups)
        np.testing.assert_array_equal(pullback(y)[1], expected_gradient(case, y))


@pytest.mark.parametrize("algorithm", NAMES)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1), channels_first=st.booleans())
def test_what_is_not_finite_spreads_no_further_than_its_taps(algorithm, data, seed, channels_first):
    case = data.draw(ELIGIBLE[algorithm])
    rng = np.random.default_rng(seed)
    assume(case.x.size)
    places = rng.integers(case.x.size, size=rng.integers(1, 4))
    case.x.reshape(-1)[places] = rng.choice([np.nan, np.inf, -np.inf], len(places))
    # A kernel without zeros: infinity times 0 is a NaN beside the input, where ways may pad or not.
    case.kernel[case.kernel == 0] = 1
    with np.errstate(invalid="ignore"):
        wanted = expected(case)
    assume(wanted is not None)
    x = np.ascontiguousarray(np.moveaxis(case.x, -1, 1)) if channels_first else case.x
    plan = planned(case, algorithm, x, "channels_first" if channels_first else "channels_last")
    assume(plan is not None)
    with np.errstate(invalid="ignore"):  # as NumPy's products warn of infinity less infinity
        y = plan(x)
    with noting(case):
        np.testing.assert_array_equal(np.moveaxis(y, 1, -1) if channels_first else y, wanted)


def call_of(x_shape, kernel_shape, data_format="channels_last", transposed=True, groups=1, **settings):
    """A call as the planner sees it."""
    channels_last = data_format == "channels_last"
    geometry = geometry_of(
        transposed, len(x_shape) - 2, x_shape, kernel_shape, channels_last, groups, **settings
    )
    return cpu_call.Call(geometry, x_shape[0], transposed, channels_last, np.dtype(np.float32))


FIRST = {"data_format": "channels_first"}
CHOICES = [
    ("window GEMM", (4, 12000, 64), (4, 32, 64), {"strides": 2, "padding": (0, 2)}),
    ("window GEMM", (4, 256, 600), (10, 128, 256), {"strides": 5, **FIRST}),
    ("overlap-add GEMM", (4, 64, 8192), (4, 32, 64), {"strides": 2, "padding": 1, **FIRST}),
    ("overlap-add GEMM", (64, 4096, 64), (25, 1, 64), {"strides": 4}),
    ("row overlap-add GEMM", (2, 4001, 512), (16, 1, 512), {"strides": 8}),
    ("row overlap-add GEMM", (4, 10, 128), (3, 32, 128), {"strides": 2}),
    ("Toeplitz-block GEMM", (1, 262144, 1), (16, 1, 1), {"strides": 8, "padding": "same"}),
    ("Toeplitz-block GEMM", (4, 96, 8192), (12, 1, 96), {"strides": 2, "groups": 96, **FIRST}),
    ("Toeplitz-block GEMM", (4, 2000, 8), (256, 8, 8), {"padding": "same"}),
    (
        "Toeplitz-block GEMM",
        (1, 1024, 4),
        (16384, 4, 4),
        {"strides": 2},
    ),  # blocks would be halo for the most part
    ("tap loop", (4, 50, 40, 64), (3, 3, 1, 64), {"groups": 64}),
    ("row overlap-add GEMM", (1, 64, 64, 64), (3, 3, 1, 64), {}),
    ("gather GEMM", (1, 256, 256, 1), (31, 31, 1, 1), {}),  # a block of rows would be of 252 MB
    ("gather GEMM", (1, 90, 90, 16), (5, 5, 32, 16), {}),
    ("gather GEMM", (1, 100, 64), (7, 32, 64), {"dilation_rate": 2}),
]


@pytest.mark.parametrize("samples", [1, 3000])
@pytest.mark.parametrize(
    ("lengths", "taps"), [((40, 300), (9, 9)), ((20, 30, 40), (3, 3, 3)), ((9000,), (999,))]
)
def test_blocks_of_rows_fit_a_cache_and_are_kept_once(lengths, taps, samples):
    call = call_of((samples, *lengths, 1), (*taps, 1, 1))
    made = row_overlap_add._blocks(call, 8)
    most = max((some.stop - some.start) * math.prod(block.products) for some, block in made)
    assert most <= 3 * row_overlap_add._MOST
    # Samples are many, their rows are alike.
    assert len({id(block) for _, block in made}) <= 2 + max(lengths[0] // 16, 2)


@pytest.mark.parametrize(("name", "x_shape", "kernel_shape", "settings"), CHOICES)
def test_the_planner_chooses_each_way_somewhere(name, x_shape, kernel_shape, settings):
    assert planner.choose(call_of(x_shape, kernel_shape, **settings), None).name == name


def test_ways_that_cannot_run_are_named():
    x, kernel = (1, 9, 9, 8), np.ones((3, 3, 2, 8), np.float32)
    with pytest.raises(ValueError, match=r"Received algorithm='window GEMM': for one axis without dilation"):
        gpuconv.plan("conv2d_transpose", x, kernel, algorithm="window GEMM")
    words = r"Expected algorithm to be None, .*'row overlap-add GEMM'\. Received .*'fft'"
    with pytest.raises(ValueError, match=words):
        gpuconv.plan("conv2d_transpose", x, kernel, algorithm="fft")
    with pytest.raises(ValueError, match="'tap loop': for one channel in each group"):
        gpuconv.plan("conv2d_transpose", x, kernel, algorithm="tap loop")
    with pytest.raises(ValueError, match="'overlap-add GEMM': for a stride of 1"):
        gpuconv.plan("conv1d", (1, 9, 8), np.ones((3, 8, 2)), strides=2, algorithm="overlap-add GEMM")
    with pytest.raises(ValueError, match="'overlap-add GEMM': for paddings that are shorter"):
        gpuconv.plan("conv1d", (1, 9, 8), np.ones((3, 8, 2)), padding=4, algorithm="overlap-add GEMM")


LAYERS = [
    ("window GEMM", (2, 700, 48), (7, 40, 48), {"strides": 3, "padding": "same"}),
    ("overlap-add GEMM", (3, 500, 64), (20, 2, 64), {"strides": 4}),
    ("row overlap-add GEMM", (3, 500, 64), (20, 2, 64), {"strides": 4}),
    ("Toeplitz-block GEMM", (2, 3000, 2), (16, 2, 2), {"strides": 8, "padding": "same"}),
    ("Toeplitz-block GEMM", (2, 900, 24), (12, 1, 24), {"strides": 2, "groups": 24}),
    ("tap loop", (2, 900, 24), (5, 1, 24), {"strides": 2, "groups": 24}),
    ("gather GEMM", (2, 300, 24), (7, 8, 24), {"dilation_rate": 2, "strides": 3}),
]


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "float16", "bfloat16"])
@pytest.mark.parametrize(("name", "x_shape", "kernel_shape", "settings"), LAYERS)
def test_each_way_is_within_the_rounding_bound(name, x_shape, kernel_shape, settings, dtype):
    if dtype in HALF_DTYPES:
        pytest.importorskip("ml_dtypes", reason="not installed: pip install gpuconv[test]")
    rng = np.random.default_rng(1)

    def drawn(shape):
        values = rng.standard_normal(shape)
        return (values + 1j * rng.standard_normal(shape) if "complex" in dtype else values).astype(dtype)

    x, kernel = drawn(x_shape), drawn(kernel_shape)
    bias = drawn(kernel_shape[-2] * settings.get("groups", 1))
    options = {"algorithm": name, "activation": None, **settings}
    plan = gpuconv.plan("conv1d_transpose", x_shape, kernel, bias, **options)
    wide = np.complex128 if "complex" in dtype else np.float64
    exact, size = (
        gpuconv.conv1d_transpose(*(f(a.astype(wide)) for a in (x, kernel, bias)), **settings)
        for f in (lambda a: a, np.abs)
    )
    terms = kernel_shape[0] * x_shape[-1] + 1
    assert_within_bound(plan(x), exact, size, terms, dtype)


@pytest.mark.parametrize(("name", "x_shape", "kernel_shape", "settings"), LAYERS)
@pytest.mark.parametrize("transposed", [True, False])
def test_bits_do_not_depend_on_threads(name, x_shape, kernel_shape, settings, transposed, monkeypatch):
    """One, two and four threads inside a call, and eight callers of one plan at once."""
    rng = np.random.default_rng(2)
    kernel = rng.standard_normal(kernel_shape).astype(np.float32)
    op = "conv1d_transpose"
    if not transposed:
        op, channels = "conv1d", kernel_shape[-2] * settings.get("groups", 1)
        settings = {**settings, "strides": 1} if "overlap-add" in name else settings
        x_shape = (*x_shape[:2], channels)
    x = rng.standard_normal(x_shape).astype(np.float32)
    monkeypatch.setattr(numpy_, "_PART", 1)
    numpy_._way.cache_clear()
    try:
        plan = gpuconv.plan(op, x_shape, kernel, algorithm=name, **settings)
    except ValueError as error:
        assert name == "tap loop"
        pytest.skip(str(error))
    made, blas = set(), threads.blas()
    if blas is not None:
        before = blas.get_num_threads()
        for number in (1, 2, 4):
            blas.set_num_threads(number)
            made.add(plan(x).tobytes())
        blas.set_num_threads(before)
    with ThreadPoolExecutor(8) as pool:
        made.update(y.tobytes() for y in pool.map(plan, [x] * 24))
    numpy_._way.cache_clear()
    assert len(made) == 1


# --- threads -------------------------------------------------------------------------------------


def held():
    """Threads that BLAS has."""
    blas = threads.blas()
    return None if blas is None else blas.get_num_threads()


def test_blas_has_its_threads_back():
    before, inside = held(), []
    threads.run([lambda: inside.append(held())] * 4, apart=True)
    assert held() == before
    assert set(inside) == ({1} if before else {None})


def test_an_error_in_a_part_is_raised_and_ends_the_call():
    before, done = held(), []

    def fails():
        raise ZeroDivisionError("in a part")

    for apart in (False, True):
        with pytest.raises(ZeroDivisionError, match="in a part"):
            threads.run([fails, *[lambda: done.append(1)] * 50], apart=apart)
    assert held() == before
    plan = gpuconv.plan("conv1d_transpose", (1, 20, 2), np.ones((3, 2, 2)))
    assert plan(np.ones((1, 20, 2))).shape == (1, 22, 2)


def test_helpers_have_the_callers_settings():
    def warns():
        time.sleep(0.01)  # long enough for the helpers to take theirs
        np.multiply(np.inf, 0.0)

    with np.errstate(invalid="ignore"):
        threads.run([warns] * 8, apart=True)
    with pytest.warns(RuntimeWarning, match="invalid value"):
        threads.run([warns], apart=False)


def test_without_openblas_parts_run_one_after_the_other(monkeypatch):
    monkeypatch.setattr(threads, "blas", lambda: None)
    seen = set()
    threads.run([lambda: seen.add(threading.get_ident())] * 8, apart=True)
    assert seen == {threading.get_ident()}


def test_a_pool_whose_workers_are_taken_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(threads, "_hold", lambda: 3)
    monkeypatch.setattr(threads, "_release", lambda: None)
    free, seen = threading.Event(), []
    with ThreadPoolExecutor(1) as pool:
        monkeypatch.setattr(threads, "_pool", pool)
        pool.submit(free.wait)
        threads.run([lambda: seen.append(1)] * 5, apart=True)
        free.set()
    assert len(seen) == 5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_computes_too():
    program = """if True:
        import os, numpy as np, gpuconv
        x, kernel = np.ones((8, 4000, 64), np.float32), np.ones((4, 64, 64), np.float32)
        before = gpuconv.conv1d_transpose(x, kernel, strides=2)
        child = os.fork()
        if not child:
            same = np.array_equal(gpuconv.conv1d_transpose(x, kernel, strides=2), before)
            os._exit(0 if same else 1)
        assert os.waitpid(child, 0)[1] == 0
    """
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True, timeout=60)


def test_a_call_while_the_interpreter_ends_is_answered():
    program = """if True:
        import atexit, numpy as np, gpuconv
        x, kernel = np.ones((8, 4000, 64), np.float32), np.ones((4, 64, 64), np.float32)
        atexit.register(lambda: print(gpuconv.conv1d_transpose(x, kernel, strides=2).shape))
    """
    ended = subprocess.run(
        [sys.executable, "-c", program], check=True, timeout=60, capture_output=True, text=True
    )
    assert ended.stdout.strip() == "(8, 8002, 64)"
    assert not ended.stderr


# --- what is done, counted -----------------------------------------------------------------------

ROWS = json.loads((Path(__file__).parents[1] / "benchmarks" / "workloads.json").read_text())
#: For each workload and layout: the way, multiply-adds issued for each needed, MiB a thread has beside the
#: result.
WORK = {
    "seed-keras": (("row overlap-add GEMM", 1.01, 0.5), ("overlap-add GEMM", 1.01, 0.5)),
    "seed-matlab": (("gather GEMM", 1.02, 1.5), ("window GEMM", 1.02, 1.5)),
    "anomaly-1": (("Toeplitz-block GEMM", 1.19, 1.0), ("window GEMM", 1.01, 1.5)),
    "anomaly-2": (("Toeplitz-block GEMM", 1.17, 1.0), ("window GEMM", 1.01, 1.5)),
    "anomaly-3": (("row overlap-add GEMM", 1.01, 1.0), ("overlap-add GEMM", 1.01, 3.5)),
    "hifigan-1": (("gather GEMM", 1.01, 2.0), ("overlap-add GEMM", 1.01, 4.0)),
    "hifigan-2": (("gather GEMM", 1.01, 3.5), ("window GEMM", 1.01, 1.5)),
    "hifigan-3": (("row overlap-add GEMM", 1.01, 1.5), ("overlap-add GEMM", 1.01, 1.5)),
    "hifigan-4": (("row overlap-add GEMM", 1.01, 1.5), ("overlap-add GEMM", 1.01, 1.5)),
    "encodec-2": (("gather GEMM", 1.01, 4.0), ("window GEMM", 1.01, 2.0)),
    "encodec-4": (("window GEMM", 1.01, 0.5), ("window GEMM", 1.01, 1.5)),
    "demucs-1": (("gather GEMM", 1.01, 7.0), ("gather GEMM", 1.01, 7.0)),
    "demucs-last": (("window GEMM", 1.01, 0.5), ("overlap-add GEMM", 1.01, 1.5)),
    "wavegan-5": (("overlap-add GEMM", 1.01, 2.0), ("overlap-add GEMM", 1.01, 3.5)),
    "convtasnet": (("row overlap-add GEMM", 1.01, 0.5), ("overlap-add GEMM", 1.01, 0.5)),
    "istft": (("row overlap-add GEMM", 1.01, 2.0), ("overlap-add GEMM", 1.01, 2.0)),
    "stereo-x8": (("Toeplitz-block GEMM", 2.01, 0.5), ("window GEMM", 1.01, 1.0)),
    "mono-x8": (("Toeplitz-block GEMM", 2.01, 0.5), ("Toeplitz-block GEMM", 2.01, 0.5)),
    "bigvgan-aa": (("Toeplitz-block GEMM", 2.17, 1.5), ("Toeplitz-block GEMM", 2.17, 0.5)),
    "waveunet": (("tap loop", 0.01, 21.0), ("Toeplitz-block GEMM", 2.14, 0.5)),
    "phasenet-2": (("row overlap-add GEMM", 1.01, 1.0), ("overlap-add GEMM", 1.01, 1.0)),
    "longfilter": (("Toeplitz-block GEMM", 1.13, 3.5), ("Toeplitz-block GEMM", 1.13, 1.0)),
}


def workload(row, data_format):
    """Shape of x, kernel's shape, and options of a row of the benchmarks."""
    channels = row["in_channels"]
    x_shape = (row["batch"], row["length"], channels)
    if data_format == "channels_first":
        x_shape = (row["batch"], channels, row["length"])
    padding = tuple(row["padding"]) if isinstance(row["padding"], list) else row["padding"]
    options = {name: row[name] for name in ("strides", "output_padding", "groups")}
    options |= {"padding": padding, "data_format": data_format}
    return x_shape, (row["kernel_size"], row["filters"] // row["groups"], channels), options


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("row", ROWS, ids=[row["name"] for row in ROWS])
def test_work_and_memory_of_the_workloads(row, data_format, monkeypatch):
    """Counts, not times: a change that issues more products or copies more is seen on any machine."""
    x_shape, kernel_shape, options = workload(row, data_format)
    plan = gpuconv.plan("conv1d_transpose", x_shape, np.ones(kernel_shape, np.float32), **options)
    x, out = np.ones(x_shape, np.float32), np.empty(plan.output_shape, np.float32)
    issued, multiply = [], np.matmul

    def counting(a, b, out=None):
        batch = math.prod(np.broadcast_shapes(a.shape[:-2], b.shape[:-2]))
        issued.append(batch * math.prod(a.shape[-2:]) * b.shape[-1])
        return multiply(a, b, out=out)

    plan(x, out=out)  # what is kept for the next call is no part of it
    monkeypatch.setattr(np, "matmul", counting)
    monkeypatch.setattr(threads, "_hold", lambda: 1)
    monkeypatch.setattr(threads, "_release", lambda: None)
    tracemalloc.start()
    plan(x, out=out)
    beside = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    needed = row["batch"] * row["length"] * math.prod(kernel_shape)
    way, most_issued, most_beside = WORK[row["name"]][data_format == "channels_first"]
    assert plan.algorithm == way
    assert sum(issued) / needed <= most_issued
    assert beside <= most_beside
