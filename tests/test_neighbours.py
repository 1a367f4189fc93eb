"""Beside others: tensors lent by DLPack, objects of a GPU, loaders, labelled arrays, processes."""

import concurrent.futures
import copy
import multiprocessing
import pickle

import numpy as np
import pytest

import gpuconv
from gpuconv import layers

RNG = np.random.default_rng(7)
X, KERNEL = (RNG.standard_normal(shape).astype(np.float32) for shape in ((1, 200, 2), (8, 3, 2)))
OPTIONS = {"strides": 4, "padding": "same"}
PLAN = gpuconv.plan("conv1d_transpose", X.shape, KERNEL, **OPTIONS)


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="torch is not installed: pip install gpuconv[peers]")


def test_dlpack_lends_the_memory_of_torch(torch):
    x, y = torch.from_numpy(X.copy()), torch.zeros(1, 800, 3)
    lent, out = np.from_dlpack(x), np.from_dlpack(y)
    assert (lent.ctypes.data, out.ctypes.data) == (x.data_ptr(), y.data_ptr())
    result = gpuconv.conv1d_transpose(lent, KERNEL, out=out, **OPTIONS)
    back = torch.from_dlpack(result)
    assert back.data_ptr() == y.data_ptr()
    np.testing.assert_array_equal(y, gpuconv.conv1d_transpose(X, KERNEL, **OPTIONS))


def test_another_library_s_kernel_is_refused_with_the_way(torch):
    x, kernel = torch.from_numpy(X), torch.from_numpy(KERNEL)
    for given, named, way in (
        ((x, KERNEL), "x of torch and kernel of numpy", "kernel with torch.asarray"),
        ((X, kernel), "x of numpy and kernel of torch", "x with torch.asarray"),
    ):
        with pytest.raises(TypeError, match=f"Received {named}. Convert one of them, for example {way}:"):
            gpuconv.conv1d_transpose(*given)
    y = gpuconv.conv1d_transpose(x, torch.asarray(KERNEL), **OPTIONS)
    assert torch.asarray(KERNEL).data_ptr() == KERNEL.ctypes.data
    assert isinstance(y, torch.Tensor)


@pytest.mark.parametrize("module", ["jax.numpy", "dask.array"])
def test_the_way_is_one_that_runs(module):
    xp = pytest.importorskip(module, reason="not installed: pip install gpuconv[peers]")
    with pytest.raises(TypeError, match=f"for example kernel with {module}.asarray:"):
        gpuconv.conv1d_transpose(xp.asarray(X), KERNEL)
    assert gpuconv.conv1d_transpose(xp.asarray(X), xp.asarray(KERNEL)).shape == (1, 207, 3)


class OnGpu:
    """What Numba and others hand over: no array, but memory of a GPU."""

    shape, dtype, ndim = (1, 200, 2), np.dtype("float32"), 3
    __cuda_array_interface__ = {"shape": shape, "typestr": "<f4", "data": (0, False), "version": 3}  # noqa: RUF012


@pytest.mark.parametrize(
    "call",
    [lambda x: gpuconv.conv1d_transpose(x, KERNEL), PLAN, layers.Conv1D(1, 3), gpuconv.stream(PLAN).push],
    ids=["op", "plan", "layer", "stream"],
)
def test_objects_of_a_gpu_are_refused_with_the_way(call):
    words = r"Received .*OnGpu\. Convert it first, for example with cupy\.asarray, which shares its memory"
    with pytest.raises(TypeError, match=words):
        call(OnGpu())


# --- copies --------------------------------------------------------------------------------------

COPIES = {"pickle": lambda thing: pickle.loads(pickle.dumps(thing)), "deepcopy": copy.deepcopy}
STREAMS = {
    "plan": lambda: (PLAN, None),
    "layer": lambda: (layers.Conv1D(2, 3, 2, "same", seed=0), 200),
    "model": lambda: (
        layers.Sequential([layers.Conv1D(4, 3, 2, "causal"), layers.Conv1DTranspose(2, 4, 2, "same")]),
        None,
    ),
}


@pytest.mark.parametrize("way", [*COPIES, "copy"])
@pytest.mark.parametrize("kind", STREAMS)
def test_streams_travel(kind, way):
    model, length = STREAMS[kind]()
    stream = gpuconv.stream(model, length=length)
    begun = stream.push(X[:, :70])
    there = {**COPIES, "copy": copy.copy}[way](stream)
    ends = [[running.push(X[:, 70:]), running.flush()] for running in (there, stream)]
    for made, wanted in zip(*ends, strict=True):
        np.testing.assert_array_equal(made, wanted)
    assert begun.shape[1] + sum(made.shape[1] for made in ends[0]) == stream.output_length(200)
    with pytest.raises(ValueError, match=r"Expected reset\(\) before push"):
        COPIES["pickle"](there).push(X)


def test_a_deep_copy_of_a_stream_has_layers_of_its_own():
    layer = layers.Conv1D(2, 3, seed=0)
    stream = gpuconv.stream(layer)
    stream.push(X[:, :50])
    there = copy.deepcopy(stream)
    layer.set_weights([weight * 0 for weight in layer.get_weights()])
    assert not np.any(stream.push(X[:, 50:]))
    assert np.any(there.push(X[:, 50:]))


def test_a_compiled_model_travels_with_its_optimizer():
    model = layers.Sequential([layers.Conv1D(2, 3, padding="same", seed=0), layers.Dropout(0.1, seed=1)])
    model.compile("adam", "mse")
    model.fit(X, X, verbose=0, seed=0)
    there = [copies(model) for copies in COPIES.values()]
    for one in there:
        one.fit(X, X, verbose=0, seed=0)
    np.testing.assert_array_equal(there[0](X), there[1](X))
    assert not np.array_equal(there[0](X), model(X))


def test_a_plan_gives_the_same_bits_in_a_spawned_process():
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        np.testing.assert_array_equal(pool.submit(PLAN, X).result(), PLAN(X))


# --- labelled arrays: docs/pipelines.md has this, and a loader with workers ------------------------

BLOCKS = {"dask_gufunc_kwargs": {"output_sizes": {"time": 400}}, "output_dtypes": [float]}


@pytest.mark.parametrize(("dask", "options"), [("parallelized", BLOCKS), ("allowed", {})])
def test_labelled_arrays_of_chunks(dask, options):
    xarray = pytest.importorskip("xarray", reason="xarray is not installed: pip install gpuconv[peers]")
    da = pytest.importorskip("dask.array", reason="dask is not installed: pip install gpuconv[dask]")
    x, kernel = RNG.integers(-9, 10, (6, 100)) * 1.0, RNG.integers(-9, 10, (8, 1, 1)) * 1.0
    whole = dask == "parallelized"  # each block has all of the time, and is NumPy's
    given = kernel if whole else da.from_array(kernel)

    def upsample(values):
        rows = values.reshape(-1, values.shape[-1], 1)
        return gpuconv.conv1d_transpose(rows, given, **OPTIONS).reshape(*values.shape[:-1], -1)

    made = xarray.apply_ufunc(
        upsample,
        xarray.DataArray(x, dims=("station", "time")).chunk(station=2, time=100 if whole else 30),
        input_core_dims=[["time"]],
        output_core_dims=[["time"]],
        exclude_dims={"time"},
        dask=dask,
        **options,
    )
    assert isinstance(made.data, da.Array)
    np.testing.assert_array_equal(made, gpuconv.conv1d_transpose(x[..., None], kernel, **OPTIONS)[..., 0])
