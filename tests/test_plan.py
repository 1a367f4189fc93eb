"""Plans: what they say, what they compute, and what they refuse."""

import threading

import numpy as np
import pytest
from hypothesis import assume, given

import gpuconv
from tests import emulator
from tests.reference import expected
from tests.strategies import cases
from tests.test_cuda import Cupy, pretend

X = (2, 10, 8)
# Integers, so that sums in any order have the same bits.
KERNEL = np.random.default_rng(0).integers(-4, 5, (3, 4, 8)).astype(np.float32)


def made(**options):
    return gpuconv.plan(gpuconv.conv1d_transpose, X, KERNEL, strides=2, **options)


def an_x(*shape, dtype=np.float32):
    return np.random.default_rng(1).integers(-4, 5, shape or X).astype(dtype)


@given(case=cases())
def test_a_plan_computes_what_the_op_computes(case):
    assume(expected(case) is not None)
    name = case.op
    options = case.settings | {"groups": case.groups}
    plan = gpuconv.plan(name, case.x.shape, case.kernel, case.bias, **options)
    y = plan(case.x)
    np.testing.assert_array_equal(y, getattr(gpuconv, name)(case.x, case.kernel, case.bias, **options))
    assert plan.output_shape == y.shape
    out = np.full_like(y, np.nan)
    assert plan(case.x, out=out) is out
    np.testing.assert_array_equal(out, y)


@pytest.mark.parametrize("activation", [None, "relu", "gelu", "softmax", "glu"])
def test_activations_of_every_kind(activation):
    plan = made(activation=activation)
    wanted = gpuconv.conv1d_transpose(an_x(), KERNEL, strides=2, activation=activation)
    np.testing.assert_array_equal(plan(an_x()), wanted)
    assert plan.output_shape == wanted.shape


def test_any_number_of_samples():
    plan, x = made(), an_x(5, 10, 8)
    np.testing.assert_array_equal(plan(x), gpuconv.conv1d_transpose(x, KERNEL, strides=2))
    assert gpuconv.plan("conv1d_transpose", (None, *X[1:]), KERNEL).output_shape == (1, 12, 4)


def test_weights_are_kept_as_they_were():
    kernel = KERNEL.copy()
    plan = gpuconv.plan(gpuconv.conv1d_transpose, X, kernel, strides=2)
    before = plan(an_x())
    kernel[...] = 0
    np.testing.assert_array_equal(plan(an_x()), before)


@pytest.mark.parametrize("dtype", ["float64", np.float64, np.dtype("float64")])
def test_weights_are_cast_to_the_dtype_that_is_asked_for(dtype):
    y = made(dtype=dtype)(an_x(dtype=np.float64))
    wanted = gpuconv.conv1d_transpose(an_x(dtype=np.float64), KERNEL.astype(np.float64), strides=2)
    assert y.dtype == np.float64
    np.testing.assert_array_equal(y, wanted)


def test_threads_share_a_plan():
    plan, x = made(), an_x()
    results = [None] * 8

    def work(number):
        results[number] = [plan(x) for _ in range(20)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({y.tobytes() for each in results for y in each}) == 1


def test_what_a_plan_says():
    plan = made()
    assert plan.algorithms[0] == plan.algorithm == "Toeplitz-block GEMM"
    assert sorted(plan.algorithms[1:]) == [
        "gather GEMM",
        "overlap-add GEMM",
        "row overlap-add GEMM",
        "window GEMM",
    ]
    assert plan.workspace_size == 0
    plan.warmup()
    assert repr(plan) == "<Plan of conv1d_transpose: (2, 10, 8) -> (2, 21, 4), float32, Toeplitz-block GEMM>"
    first, second, third, *counts = plan.explain().splitlines()
    assert [line.split(":")[0].strip() for line in counts] == [*plan.algorithms, "tap loop"]
    assert first == "conv1d_transpose: (2, 10, 8) -> (2, 21, 4), kernel (3, 4, 8), float32, channels_last"
    assert second == "1.92e+03 multiply-adds, workspace of 0 bytes"
    assert third.startswith("Toeplitz-block GEMM: ")


@pytest.mark.parametrize("module", ["torch", "jax.numpy", "array_api_strict", "dask.array"])
def test_other_libraries(module):
    xp = pytest.importorskip(module, reason="not installed: pip install gpuconv[peers]")
    to = xp.asarray
    plan = gpuconv.plan("conv1d_transpose", X, to(KERNEL), strides=2)
    np.testing.assert_allclose(np.asarray(plan(to(an_x()))), made()(an_x()), rtol=1e-4, atol=1e-5)
    assert plan.algorithm == ("blocks" if module == "dask.array" else "array API")
    assert module.partition(".")[0] in plan.explain()


# --- on CUDA -------------------------------------------------------------------------------------

on_cuda = pytest.mark.skipif(bool(emulator.missing()), reason=emulator.missing() or "")


@on_cuda
def test_a_cuda_plan(monkeypatch):
    cupy = Cupy()
    pretend(monkeypatch, cupy)
    x, kernel = an_x().view(cupy.ndarray), KERNEL.view(cupy.ndarray)
    plan = gpuconv.plan("conv1d_transpose", X, kernel, strides=2)
    wanted = gpuconv.conv1d_transpose(x, kernel, strides=2)
    assert cupy.compiled, "the op compiles"
    cupy.compiled.clear()
    assert plan(x).tobytes() == wanted.tobytes()
    for name in plan.algorithms:
        forced = gpuconv.plan("conv1d_transpose", X, kernel, strides=2, algorithm=name)
        assert forced.algorithm == name
        np.testing.assert_allclose(forced(x), wanted, rtol=1e-5, atol=1e-5)
    lines = plan.explain().splitlines()
    assert lines[2] == "emulator: compute capability 9.0, 132 multiprocessors"
    assert sum(line.startswith("* ") for line in lines) == 1
    assert any('precision="tf32"' in line for line in lines)


@on_cuda
def test_warmup_compiles_all_that_the_plan_runs(monkeypatch):
    cupy = Cupy()
    pretend(monkeypatch, cupy)
    kernel = KERNEL.view(cupy.ndarray)
    for name in gpuconv.plan("conv1d_transpose", X, kernel).algorithms:
        plan = gpuconv.plan("conv1d_transpose", X, kernel, activation="tanh", algorithm=name)
        cupy.compiled.clear()
        plan.warmup()
        warm = set(cupy.compiled)
        assert warm
        plan(an_x().view(cupy.ndarray))
        assert set(cupy.compiled) == warm


@on_cuda
def test_nothing_is_allocated_with_out_and_workspace(monkeypatch):
    cupy = Cupy()
    pretend(monkeypatch, cupy)
    x, kernel = an_x().view(cupy.ndarray), KERNEL.view(cupy.ndarray)
    for name in gpuconv.plan("conv1d_transpose", X, kernel).algorithms:
        plan = gpuconv.plan("conv1d_transpose", X, kernel, KERNEL[0, :, 0].view(cupy.ndarray), algorithm=name)
        wanted = plan(x)
        out = cupy.empty(plan.output_shape, np.float32)
        workspace = cupy.empty((plan.workspace_size,), np.uint8)
        monkeypatch.setattr(cupy, "empty", lambda *_: pytest.fail("allocated"))
        assert plan(x, out=out, workspace=workspace) is out
        monkeypatch.undo()
        pretend(monkeypatch, cupy)
        np.testing.assert_allclose(out, wanted, rtol=1e-6)


# --- what is refused -----------------------------------------------------------------------------

BAD_PLANS = {
    "op": (ValueError, "Received op='conv4d'", {"op": "conv4d"}),
    "option": (TypeError, "among strides, padding", {"out": np.ones(3)}),
    "option of another op": (TypeError, "output_padding': 1", {"op": "conv1d", "output_padding": 1}),
    "length": (ValueError, "known but for the samples", {"x_shape": (2, None, 8)}),
    "axes": (ValueError, "Expected x of 3 dimensions", {"x_shape": ()}),
    "channels": (ValueError, "Expected x of 8 channels", {"x_shape": (2, 10, 7)}),
    "dtype": (TypeError, "Received dtype='int32'", {"dtype": "int32"}),
    "no dtype": (TypeError, "Received dtype='double precision'", {"dtype": "double precision"}),
    "algorithm": (ValueError, "Received algorithm='fft'", {"algorithm": "fft"}),
    "bias": (ValueError, "Expected bias of shape (4,)", {"bias": np.ones(5, np.float32)}),
    "two libraries": (TypeError, "bias of array_api_strict", {"bias": "array_api_strict"}),
    "integers": (TypeError, "Received kernel of int64", {"kernel": np.ones((3, 4, 8), np.int64)}),
    "activation": (ValueError, "activation", {"activation": "reluu"}),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_PLANS)
def test_plans_that_cannot_be(name):
    error, words, options = BAD_PLANS[name]
    options = {"op": "conv1d_transpose", "x_shape": X, "kernel": KERNEL} | options
    if isinstance(options.get("bias"), str):
        module = pytest.importorskip(options["bias"], reason="not installed: pip install gpuconv[test]")
        options["bias"] = module.ones(4)
    with pytest.raises(error) as caught:
        gpuconv.plan(**options)
    assert words in str(caught.value)


def overlapping():
    room = np.zeros(2 * 21 * 4 + 2 * 10 * 8, np.float32)
    return {"x": room[:160].reshape(X), "out": room[150 : 150 + 168].reshape(2, 21, 4)}


BAD_CALLS = {
    "dtype": (TypeError, "Expected x of float32, as planned", lambda: {"x": an_x(dtype=np.float64)}),
    "length": (ValueError, "(samples, 10, 8), as planned", lambda: {"x": an_x(2, 11, 8)}),
    "axes": (ValueError, "Received x of shape (2, 10)", lambda: {"x": an_x(2, 10)}),
    "no array": (TypeError, "x: Expected an array", lambda: {"x": [[[1.0]]]}),
    "out's shape": (ValueError, "Expected out of shape (2, 21, 4)", lambda: {"out": np.ones((2, 20, 4))}),
    "out's dtype": (TypeError, "Received out of float64", lambda: {"out": np.ones((2, 21, 4))}),
    "read-only out": (ValueError, "read-only", lambda: {"out": np.broadcast_to(np.float32(0), (2, 21, 4))}),
    "overlap": (ValueError, "share no memory with x", overlapping),
    "workspace's dtype": (TypeError, "Received workspace of float32", lambda: {"workspace": an_x(9)}),
    "no workspace": (TypeError, "workspace: Expected an array", lambda: {"workspace": bytearray(9)}),
    "read-only workspace": (
        ValueError,
        "workspace= to be writeable",
        lambda: {"workspace": np.frombuffer(b"123", np.uint8)},
    ),
    "shared workspace": (
        ValueError,
        "workspace to share no memory",
        lambda: {"x": (x := an_x()), "workspace": x.view(np.uint8).reshape(-1)},
    ),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_calls_that_were_not_planned(name):
    error, words, make = BAD_CALLS[name]
    arguments = {"x": an_x()} | make()
    before = {key: np.array(value) for key, value in arguments.items()}
    with pytest.raises(error) as caught:
        made()(**arguments)
    assert words in str(caught.value)
    for key, value in arguments.items():
        np.testing.assert_array_equal(value, before[key])


def test_arrays_of_two_devices_are_refused():
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install gpuconv[peers]")
    plan = gpuconv.plan("conv1d_transpose", X, torch.ones(3, 4, 8))
    with pytest.raises(ValueError, match="Received x on meta, kernel on cpu"):
        plan(torch.ones(X, device="meta"))
    with pytest.raises(ValueError, match="on one device"):
        gpuconv.plan("conv1d_transpose", X, torch.ones(3, 4, 8), torch.ones(4, device="meta"))
