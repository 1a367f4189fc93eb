"""Dask arrays: chunks never show in the numbers, nothing is computed early, graphs grow with the chunks."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import gpuconv
from gpuconv import layers, namespace
from gpuconv.backends import dask_
from gpuconv.ops import _select
from tests import emulator
from tests.bounds import assert_within_bound, chain_bound
from tests.reference import expected
from tests.strategies import cases
from tests.test_cuda import Cupy, pretend

dask = pytest.importorskip("dask", reason="dask is not installed: pip install gpuconv[dask]")
da = pytest.importorskip("dask.array", reason="dask is not installed: pip install gpuconv[dask]")


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    with dask.config.set(scheduler="synchronous"):
        yield


@st.composite
def chunkings(draw, shape):
    """Chunks for every axis, empty ones among them."""
    chunks = []
    for length in shape:
        cuts = sorted(draw(st.lists(st.integers(0, length), max_size=4)))
        chunks.append(tuple(np.diff([0, *cuts, length]).tolist()))
    return tuple(chunks)


def chunked(data, array):
    return None if array is None else da.from_array(array, chunks=data.draw(chunkings(array.shape)))


def in_format(case, data_format):
    """Op, arrays and options of the case, in a layout."""
    x = case.x if data_format == "channels_last" else np.moveaxis(case.x, -1, 1)
    options = case.settings | {"groups": case.groups, "data_format": data_format}
    return getattr(gpuconv, case.op), (x, case.kernel, case.bias), options


LAYOUTS = st.sampled_from(["channels_last", "channels_first"])


@settings(max_examples=max(500, settings.default.max_examples))
@given(case=cases(), data=st.data(), layout=LAYOUTS, activation=st.sampled_from([None, "relu", "sigmoid"]))
def test_chunks_never_show(case, data, layout, activation):
    assume(expected(case) is not None)
    op, arrays, options = in_format(case, layout)
    wanted = op(*arrays, activation=activation, **options)
    y = op(*(chunked(data, array) for array in arrays), activation=activation, **options)
    assert isinstance(y, da.Array)
    assert (y.shape, y.dtype) == (wanted.shape, wanted.dtype)
    made = y.compute()
    assert made.shape == wanted.shape
    if activation == "sigmoid":
        np.testing.assert_allclose(made, wanted, rtol=1e-14)
    else:
        np.testing.assert_array_equal(made, wanted)


@given(case=cases(), data=st.data(), layout=LAYOUTS, dtype=st.sampled_from(["float64", "complex128"]))
def test_gradients_of_chunks_are_those_of_the_whole(case, data, layout, dtype):
    assume(expected(case) is not None)
    op, arrays, options = in_format(case, layout)
    arrays = [None if array is None else array.astype(dtype) for array in arrays]
    wanted, pullback = gpuconv.vjp(op, *arrays, **options)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    dy = rng.integers(-4, 5, wanted.shape) * (2 - 1j if dtype == "complex128" else 1.0)
    y, lazy_pullback = gpuconv.vjp(op, *(chunked(data, array) for array in arrays), **options)
    np.testing.assert_array_equal(y.compute(), wanted)
    for lazy, whole in zip(lazy_pullback(chunked(data, dy)), pullback(dy), strict=True):
        if whole is None:
            assert lazy is None
            continue
        assert (lazy.shape, lazy.dtype) == (whole.shape, whole.dtype)
        np.testing.assert_array_equal(lazy.compute(), whole)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "complex64"])
def test_every_dtype_is_within_its_bound(dtype):
    kind = pytest.importorskip("ml_dtypes").bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    rng = np.random.default_rng(3)
    drawn = [rng.standard_normal(shape) for shape in ((2, 40, 4), (9, 3, 4), (3,), (2, 80, 3))]
    drawn = [array * (1 + 1j) for array in drawn] if dtype == "complex64" else drawn
    arrays = [array.astype(kind) for array in drawn]

    def of(x, kernel, bias, dy):
        y, pullback = gpuconv.vjp("conv1d_transpose", x, kernel, bias, strides=2, padding="same")
        return [y, *pullback(dy)]

    exact = of(*(array.astype(np.complex128 if dtype == "complex64" else np.float64) for array in arrays))
    magnitudes = of(*(np.abs(array).astype(np.float64) for array in arrays))
    chunks = [(1, 7, 2), 2, 2, (2, 11, 1)]
    lazy = of(*(da.from_array(array, chunks=some) for array, some in zip(arrays, chunks, strict=True)))
    terms = [5 * 4 + 1, 9 * 3, 2 * 40, 2 * 80]
    for found, right, magnitude, count in zip(lazy, exact, magnitudes, terms, strict=True):
        assert found.dtype == kind
        assert_within_bound(found.compute(), right, magnitude, count, dtype)


CHUNKS = [  # op, chunks of 20 input samples, settings, chunks of the result; the kernel has 6 taps
    ("conv1d_transpose", (5, 5, 10), {"strides": 4, "padding": "same"}, (20, 20, 40)),
    ("conv1d_transpose", (5, 5, 10), {"strides": 4}, (20, 20, 42)),
    ("conv1d_transpose", (10, 9, 1), {"strides": 1, "padding": 3}, (10, 9)),
    ("conv1d_transpose", (5, 0, 15), {"strides": 2, "padding": "same"}, (10, 30)),
    ("conv1d", (5, 5, 10), {"strides": 1, "padding": "causal"}, (5, 5, 10)),
    ("conv1d", (8, 8, 4), {"strides": 4, "padding": "same"}, (2, 2, 1)),
    ("conv1d", (1,) * 20, {"strides": 4, "padding": "same"}, (1,) * 5),
]


@pytest.mark.parametrize(("op", "chunks", "options", "wanted"), CHUNKS)
def test_chunks_of_the_result_are_those_of_the_input_scaled(op, chunks, options, wanted):
    x, kernel = da.ones((3, 20, 2), chunks=((2, 1), chunks, (1, 1))), da.ones((6, 2, 2))
    y = getattr(gpuconv, op)(x, kernel, **options)
    assert y.chunks == ((2, 1), wanted, (2,))
    y.compute_chunk_sizes()
    assert y.chunks == ((2, 1), wanted, (2,))


# --- graphs --------------------------------------------------------------------------------------


def tasks_of(op, axes, chunks, *, gradient):
    """How many tasks a result or its kernel's gradient has, with so many chunks along each of some axes."""
    ndim = int(op[4])
    lengths = [8 * chunks if axis < axes else 8 for axis in range(ndim)]
    x = da.zeros((2, *lengths, 3), chunks=(1, *[8] * ndim, 3))
    kernel = da.zeros((*[5] * ndim, 3, 3))
    y, pullback = gpuconv.vjp(op, x, kernel, strides=2, padding="same")
    return len((pullback(y) if gradient else [None, y])[1].__dask_graph__())


@pytest.mark.parametrize("op", ["conv1d_transpose", "conv1d", "conv2d_transpose"])
@pytest.mark.parametrize("gradient", [False, True])
def test_graphs_grow_as_the_chunks_do(op, gradient):
    few, more, most = (tasks_of(op, 1, chunks, gradient=gradient) for chunks in (20, 40, 80))
    per_chunk = (more - few) / 20
    assert most - more <= 40 * per_chunk * 1.05
    assert per_chunk <= (60 if gradient else 20)


def test_names_tell_what_is_computed():
    x, kernel = da.ones((2, 8, 1), chunks=(1, 4, 1)), da.ones((3, 1, 1))
    names = [
        gpuconv.conv1d_transpose(x, kernel, **options).name
        for options in ({}, {}, {"strides": 2}, {"activation": "relu"}, {"precision": "tf32"})
    ]
    assert names[0] == names[1]
    assert len(set(names)) == 4


def never(shape, chunks):
    """An array that must not be computed."""

    def compute(*_, **__):
        raise AssertionError("computed")

    return da.ones(shape, chunks=chunks).map_blocks(compute, dtype=float, meta=np.empty((0,) * len(shape)))


@pytest.mark.parametrize("activation", [None, "gelu", "softmax"])
def test_nothing_is_computed_when_called(activation):
    x, kernel, bias = never((4, 32, 2), (2, 8, 1)), never((3, 5, 2), 2), never((5,), 5)
    y, pullback = gpuconv.vjp("conv1d_transpose", x, kernel, bias, activation=activation)
    for lazy in (gpuconv.conv1d_transpose(x, kernel, bias, activation=activation), y, *pullback(y)):
        assert isinstance(lazy, da.Array)
        with pytest.raises(AssertionError, match="computed"):
            lazy.compute()


@pytest.mark.parametrize("activation", ["softmax", "glu", "log_softmax", "tanh"])
def test_activations_are_those_of_the_whole(activation):
    rng = np.random.default_rng(5)
    x, kernel = rng.standard_normal((2, 30, 3)), rng.standard_normal((4, 6, 3))
    wanted = gpuconv.conv1d_transpose(x, kernel, strides=3, activation=activation)
    lazy = gpuconv.conv1d_transpose(
        da.from_array(x, chunks=(1, 7, 2)), da.from_array(kernel), strides=3, activation=activation
    )
    np.testing.assert_allclose(lazy.compute(), wanted, rtol=1e-13, atol=1e-15)


# --- around it -----------------------------------------------------------------------------------


def test_a_plan_and_a_layer_run_on_chunks():
    x = np.random.default_rng(1).integers(-4, 5, (3, 20, 2)) * 1.0
    lazy = da.from_array(x, chunks=(2, 6, 1))
    kernel = np.arange(12.0).reshape(3, 2, 2)
    plan = gpuconv.plan("conv1d_transpose", x.shape, da.from_array(kernel), strides=2, activation="relu")
    wanted = gpuconv.conv1d_transpose(x, kernel, strides=2, activation="relu")
    np.testing.assert_array_equal(plan(lazy).compute(), wanted)
    assert "each chunk" in plan.explain()
    model = layers.Sequential(
        [layers.Conv1D(4, 5, 2, "same", seed=0), layers.Conv1DTranspose(1, 4, 2, "same")]
    )
    made = model(lazy)
    assert isinstance(made, da.Array)
    assert np.all(np.abs(made.compute() - model(x)) <= chain_bound(model, x))


@pytest.mark.parametrize("unknown", ["x", "kernel"])
def test_unknown_chunks_are_refused_with_the_remedy(unknown):
    arrays = {"x": da.ones((2, 8, 3)), "kernel": da.ones((8, 2, 3))}
    keep = da.ones(8) > 0
    arrays[unknown] = arrays[unknown][:, keep] if unknown == "x" else arrays[unknown][keep]
    with pytest.raises(ValueError, match=r"compute_chunk_sizes\(\)"):
        gpuconv.conv1d_transpose(**arrays)
    arrays[unknown].compute_chunk_sizes()
    assert gpuconv.conv1d_transpose(**arrays).shape == (2, 15, 2)


def test_a_numpy_kernel_is_refused_as_everywhere():
    with pytest.raises(TypeError, match="x of dask and kernel of numpy"):
        gpuconv.conv1d_transpose(da.ones((1, 8, 3)), np.ones((2, 2, 3)))


def test_blocks_that_would_lose_their_meaning_are_refused():
    masked = da.ma.masked_equal(da.ones((1, 8, 3)), 0)
    with pytest.raises(TypeError, match="x's blocks: Expected a plain array"):
        gpuconv.conv1d_transpose(masked, da.ones((2, 2, 3)))


def test_blocks_of_cupy_stay_on_the_gpu(cupy):
    rng = np.random.default_rng(2)
    x, kernel, bias = (rng.integers(-4, 5, shape) * 1.0 for shape in ((2, 40, 4), (5, 3, 4), (3,)))
    wanted, pullback = gpuconv.vjp("conv1d_transpose", x, kernel, bias, strides=2, activation="relu")
    lazy = [
        da.from_array(cupy.asarray(a), chunks=c, asarray=False)
        for a, c in ((x, (1, 9, 2)), (kernel, 3), (bias, 2))
    ]
    y, lazy_pullback = gpuconv.vjp("conv1d_transpose", *lazy, strides=2, activation="relu")
    assert isinstance(y._meta, cupy.ndarray)
    assert isinstance(y.compute(), cupy.ndarray)
    np.testing.assert_array_equal(y.compute().get(), wanted)
    for found, whole in zip(lazy_pullback(y), pullback(wanted), strict=True):
        np.testing.assert_array_equal(found.compute().get(), whole)
    layer = layers.Conv1D(2, 3, seed=0, dtype="float64")
    np.testing.assert_allclose(layer(lazy[0]).compute().get(), layer(x), rtol=1e-12, atol=1e-12)


@pytest.mark.skipif(bool(emulator.missing()), reason=emulator.missing() or "")
def test_blocks_choose_their_backend(monkeypatch):
    cupy = Cupy()
    pretend(monkeypatch, cupy)
    monkeypatch.setattr(_select, "is_numpy_array", namespace.is_numpy_array)
    monkeypatch.setattr(dask_, "is_numpy_array", lambda array: not isinstance(array, cupy.ndarray))
    monkeypatch.setattr(dask_, "is_cupy_array", lambda array: isinstance(array, cupy.ndarray))
    x, kernel = np.arange(24.0).reshape(1, 12, 2), np.arange(12.0).reshape(2, 3, 2)
    # Without a halo: NumPy joins arrays of a class of its own to plain ones.
    lazy = [
        da.from_array(array.view(cupy.ndarray), chunks=chunks, asarray=False)
        for array, chunks in ((x, (1, 4, 2)), (kernel, -1))
    ]
    y = gpuconv.conv1d_transpose(*lazy, strides=2)
    assert not cupy.launched
    np.testing.assert_array_equal(y.compute(), gpuconv.conv1d_transpose(x, kernel, strides=2))
    assert len(cupy.launched) == 3


@pytest.mark.filterwarnings("default")  # what a cluster says of ports and of its own end
def test_a_cluster_of_processes_gives_the_same():
    distributed = pytest.importorskip(
        "distributed", reason="distributed is not installed: pip install gpuconv[peers]"
    )
    rng = np.random.default_rng(4)
    x, kernel, bias = (rng.integers(-4, 5, shape) * 1.0 for shape in ((4, 2000, 3), (16, 2, 3), (2,)))
    options = {"strides": 8, "padding": "same", "activation": "leaky_relu"}
    wanted, pullback = gpuconv.vjp("conv1d_transpose", x, kernel, bias, **options)
    lazy = [da.from_array(a, chunks=c) for a, c in ((x, (2, 300, 3)), (kernel, -1), (bias, -1))]
    y, lazy_pullback = gpuconv.vjp("conv1d_transpose", *lazy, **options)
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, processes=True
    )
    with cluster, distributed.Client(cluster) as client:
        found = client.gather(client.compute([y, *lazy_pullback(y)]))
    for one, whole in zip(found, (wanted, *pullback(wanted)), strict=True):
        np.testing.assert_allclose(one, whole, rtol=1e-12)


# --- what travels to a worker --------------------------------------------------------------------

COPIES = {"pickle": lambda thing: pickle.loads(pickle.dumps(thing)), "deepcopy": copy.deepcopy}
LAYERS = {
    **{
        f"Conv{ndim}D{end}": lambda kind=f"Conv{ndim}D{end}": getattr(layers, kind)(
            2, 3, activation="relu", kernel_regularizer="l2", kernel_constraint="max_norm", seed=1
        )
        for ndim in (1, 2, 3)
        for end in ("", "Transpose")
    },
    "Dropout": lambda: layers.Dropout(0.5, seed=1),
    "Activation": lambda: layers.Activation("gelu"),
    "Input": lambda: layers.Input((4, 4)),
    "Sequential": lambda: layers.Sequential([layers.Conv1D(4, 3, seed=0), layers.Dropout(0.2)]),
}


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("built", [False, True])
@pytest.mark.parametrize("kind", LAYERS)
def test_layers_travel(kind, built, way):
    layer = LAYERS[kind]()
    ndim = int(kind[4]) if kind.startswith("Conv") else 1
    x = np.random.default_rng(0).standard_normal((2, *[4] * ndim, 4))
    if built:
        layer(x)
    there = COPIES[way](layer)
    assert type(there) is type(layer)
    np.testing.assert_array_equal(there(x), layer(x))
    assert there.get_config() == layer.get_config()


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("module", ["numpy", "dask.array", "torch", "jax.numpy", "array_api_strict"])
def test_plans_travel(module, way):
    xp = pytest.importorskip(module, reason="not installed: pip install gpuconv[peers]")
    kernel, x = xp.asarray(np.arange(12.0, dtype="f4").reshape(3, 2, 2)), xp.asarray(np.ones((1, 9, 2), "f4"))
    plan = gpuconv.plan("conv1d_transpose", x.shape, kernel, strides=2, activation="relu")
    there = COPIES[way](plan)
    there.warmup()
    assert there.explain() == plan.explain()
    np.testing.assert_array_equal(np.asarray(there(x)), np.asarray(plan(x)))


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.skipif(bool(emulator.missing()), reason=emulator.missing() or "")
def test_cuda_plans_travel(monkeypatch, way):
    cupy = Cupy()
    pretend(monkeypatch, cupy)
    x, kernel = (np.ones(shape, np.float32).view(cupy.ndarray) for shape in ((2, 50, 8), (6, 8, 8)))
    plan = gpuconv.plan("conv1d_transpose", x.shape, kernel, strides=2)
    for algorithm in plan.algorithms:
        one = gpuconv.plan("conv1d_transpose", x.shape, kernel, strides=2, algorithm=algorithm)
        there = COPIES[way](one)
        there.warmup()
        assert there.workspace_size == there._prepared.workspace_size(2) == one.workspace_size
        np.testing.assert_array_equal(there(x), one(x))
