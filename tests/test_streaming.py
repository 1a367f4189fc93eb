"""Streams: chunks of any size make what the op makes of the whole, and files are processed alike."""

import errno
import functools
import importlib
import itertools
import os
import pickle
import struct
import sys
import tracemalloc
import types
import wave
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import gpuconv
from gpuconv import layers
from tests import emulator
from tests.bounds import assert_within_bound, noting
from tests.reference import expected
from tests.strategies import cases
from tests.test_cuda import Cupy, pretend


def options_of(case, data_format="channels_last"):
    return case.settings | {"groups": case.groups, "data_format": data_format}


def plan_of(case, planned, data_format="channels_last", **options):
    """The case as a plan for `planned` samples."""
    samples, _, channels = case.x.shape
    shape = (samples, planned, channels) if data_format == "channels_last" else (samples, channels, planned)
    options = options_of(case, data_format) | options
    return gpuconv.plan(case.op, shape, case.kernel, case.bias, **options)


def layer_of(case, data_format="channels_last", **options):
    """The case as a layer, or None where Keras' layers refuse it."""
    given = options_of(case, data_format) | {"dtype": "float64", "use_bias": case.bias is not None} | options
    kind = layers.Conv1DTranspose if case.transposed else layers.Conv1D
    filters = case.kernel.shape[1] * case.groups if case.transposed else case.kernel.shape[2]
    try:
        layer = kind(filters, case.kernel.shape[0], **given)
    except ValueError:
        return None
    weights = [case.kernel] if case.bias is None else [case.kernel, case.bias]
    layer.build(
        (None, None, case.x.shape[2]) if data_format == "channels_last" else (None, case.x.shape[2], None)
    )
    layer.set_weights(weights)
    return layer


@st.composite
def partitions(draw, length):
    """Where to cut so many samples; chunks of 0 and 1 among them."""
    cuts = draw(st.lists(st.integers(0, length), max_size=6))
    return draw(st.sampled_from([[0, *sorted(cuts), length], [0, *range(length + 1)]]))


def pieces(stream, x, cuts, time=1):
    """What a stream makes of `x` in chunks, flushed."""
    chunks = [np.take(x, np.arange(*ends), axis=time) for ends in itertools.pairwise(cuts)]
    return [*map(stream.push, chunks), stream.flush()]


ACTIVATIONS = st.sampled_from([None, "relu", "hard_sigmoid"])


@settings(max_examples=max(2000, settings.default.max_examples))
@given(case=cases(ndims=(1,)), data=st.data(), activation=ACTIVATIONS)
def test_chunks_make_what_the_whole_makes(case, data, activation):
    exact = expected(case)
    assume(exact is not None)
    length = case.x.shape[1]
    cuts = data.draw(partitions(length), label="cuts")
    data_format = data.draw(st.sampled_from(["channels_first", "channels_last"]))
    first = data_format == "channels_first"
    x, exact = (np.moveaxis(a, -1, 1) if first else a for a in (case.x, exact))
    with noting((case, cuts, data_format)):
        model = layer_of(case, data_format, activation=activation) if data.draw(st.booleans()) else None
        if model is None:
            assume(length)
            # A plan for another length with the same crops does too.
            planned = length + case.strides[0] * data.draw(st.integers(0, 2))
            model = plan_of(case, planned, data_format, activation=activation)
        stream = gpuconv.stream(model, length=length)
        time = 2 if first else 1
        made = pieces(stream, x, cuts, time)
        result = np.concatenate(made, axis=time)
        whole = gpuconv.activations.get(activation)(exact)
        assert result.dtype == np.float64
        if activation is None:
            np.testing.assert_array_equal(result, exact)
        else:
            np.testing.assert_allclose(result, whole, rtol=1e-15, atol=0)
        assert stream.output_length(length) == whole.shape[time]
        come = np.cumsum([piece.shape[time] for piece in made[:-1]])
        for received, out in zip(cuts[1:], come, strict=True):
            assert out >= received * stream.rate // 1 - stream.output_latency
            for n in range(whole.shape[time]):
                assert n < out or n // stream.rate + stream.latency >= received


@given(case=cases(ndims=(1,)), data=st.data(), dtype=st.sampled_from(["float32", "complex64", "float16"]))
def test_rounding_stays_within_the_bound(case, data, dtype):
    assume(expected(case) is not None and case.x.shape[1])
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))

    def drawn(array):
        values = rng.standard_normal(array.shape)
        return (values + 1j * rng.standard_normal(array.shape) if dtype == "complex64" else values).astype(
            dtype
        )

    x, kernel = drawn(case.x), drawn(case.kernel)
    bias = None if case.bias is None else drawn(case.bias)
    plan = gpuconv.plan(case.op, x.shape, kernel, bias, **options_of(case))
    made = np.concatenate(pieces(gpuconv.stream(plan), x, data.draw(partitions(x.shape[1]))), axis=1)
    wide = "complex128" if dtype == "complex64" else "float64"
    op, options = getattr(gpuconv, case.op), options_of(case)
    exact = op(*(a if a is None else a.astype(wide) for a in (x, kernel, bias)), **options)
    size = op(*(a if a is None else abs(a.astype(wide)) for a in (x, kernel, bias)), **options)
    assert made.dtype == dtype
    assert_within_bound(made, exact, size, kernel[..., 0].size + 1, dtype)


def conv_layers(rng, data_format):
    """Some layers of 2 channels, of every kind that streams."""
    options = {"data_format": data_format, "dtype": "float64"}
    options |= {"kernel_initializer": lambda shape, dtype: rng.integers(-2, 3, shape).astype(dtype)}
    options |= {"bias_initializer": lambda shape, dtype: rng.integers(-2, 3, shape).astype(dtype)}
    return [
        lambda: layers.Conv1D(2, 3, 2, "causal" if rng.random() < 0.5 else (3, 1), **options),
        lambda: layers.Conv1D(2, 2, 2, "same", **options),
        lambda: layers.Conv1D(2, 3, 1, "same", dilation_rate=2, activation="relu", **options),
        lambda: layers.Conv1D(2, 1, 3, 5, **options),
        lambda: layers.Conv1DTranspose(2, 5, 3, "same", **options),
        lambda: layers.Conv1DTranspose(2, 4, 2, (3, 1), activation="relu", **options),
        lambda: layers.Conv1DTranspose(2, 2, 5, 0, output_padding=4, groups=2, **options),
        lambda: layers.Activation("relu", dtype="float64"),
        lambda: layers.Dropout(0.5, dtype="float64"),
    ]


@st.composite
def models(draw):
    """A Sequential of integers, its input's data format."""
    data_format = draw(st.sampled_from(["channels_first", "channels_last"]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kinds = conv_layers(rng, data_format)
    chosen = draw(st.lists(st.sampled_from(range(len(kinds))), min_size=1, max_size=4))
    assume(min(chosen) < 7)
    inner = [kinds[number]() for number in chosen]
    if draw(st.booleans()):
        shape = (None, 2) if data_format == "channels_last" else (2, None)
        inner = [layers.Input(shape, dtype="float64"), inner[0], layers.Sequential(inner[1:])]
    return layers.Sequential(inner), data_format


def whole_of(model, x):
    """What a model makes of `x`, or None where that is too short."""
    try:
        return model(x)
    except ValueError:
        return None


@settings(max_examples=max(300, settings.default.max_examples))
@given(drawn=models(), length=st.integers(0, 30), data=st.data())
def test_models_stream(drawn, length, data):
    model, data_format = drawn
    time = 1 if data_format == "channels_last" else 2
    x = np.arange(2 * length).reshape((1, length, 2) if time == 1 else (1, 2, length)) % 5 - 2.0
    cuts = data.draw(partitions(length))
    with noting((model.layers, cuts)):
        stream = gpuconv.stream(model)
        exact = whole_of(model, x)
        if exact is None:
            with pytest.raises(ValueError, match="Expected"):
                pieces(stream, x, cuts, time)
            return
        made = pieces(stream, x, cuts, time)
        np.testing.assert_array_equal(np.concatenate(made, axis=time), exact)
        come = np.cumsum([piece.shape[time] for piece in made[:-1]])
        for received, out in zip(cuts[1:], come, strict=True):
            assert out >= received * stream.rate // 1 - stream.output_latency
            assert all(n // stream.rate + stream.latency >= received for n in range(out, exact.shape[time]))


def saved(state, tmp_path, how):
    """`state` written and read."""
    if how == "pickle":
        return pickle.loads(pickle.dumps(state))
    np.savez(tmp_path / "state.npz", **state)
    with np.load(tmp_path / "state.npz", allow_pickle=False) as read:
        return dict(read)


@settings(max_examples=60)
@given(drawn=models(), data=st.data(), how=st.sampled_from(["pickle", "npz"]))
def test_a_state_goes_on_in_another_stream(tmp_path_factory, drawn, data, how):
    model, data_format = drawn
    time = 1 if data_format == "channels_last" else 2
    x = np.arange(48).reshape((1, 24, 2) if time == 1 else (1, 2, 24)) % 5 - 2.0
    exact = whole_of(model, x)
    assume(exact is not None)
    cut = data.draw(st.integers(0, 24))
    before, after = np.split(x, [cut], axis=time)
    stream, other = gpuconv.stream(model), gpuconv.stream(model)
    begun = stream.push(before)
    other.state = saved(stream.state, tmp_path_factory.getbasetemp(), how)
    parts = [begun, other.push(after)] if data.draw(st.booleans()) or cut < 24 else [begun]
    np.testing.assert_array_equal(np.concatenate([*parts, other.flush()], axis=time), exact)
    # The first one does not know of it, and neither do the arrays that it gave away.
    stream.state["halo_0"][...] = 99
    np.testing.assert_array_equal(
        np.concatenate([begun, stream.push(after), stream.flush()], axis=time), exact
    )


def test_a_finished_and_an_unbegun_stream_are_states_too():
    layer = layers.Conv1D(2, 3, padding="causal")
    stream = gpuconv.stream(layer)
    fresh = stream.state
    stream.push(np.ones((1, 4, 2), np.float32))
    stream.flush()
    other = gpuconv.stream(layer)
    other.state = stream.state
    with pytest.raises(ValueError, match=r"Expected reset\(\) before push"):
        other.push(np.ones((1, 4, 2), np.float32))
    other.state = fresh
    assert other.push(np.ones((2, 4, 2), np.float32)).shape == (2, 4, 2)


def test_bfloat16_survives_savez(tmp_path):
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="not installed: pip install gpuconv[test]")
    x = np.ones((1, 9, 1), ml_dtypes.bfloat16)
    layer = layers.Conv1D(1, 3, padding="causal", dtype="bfloat16")
    stream = gpuconv.stream(layer)
    begun = stream.push(x[:, :5])
    stream.state = saved(stream.state, tmp_path, "npz")
    made = [begun, stream.push(x[:, 5:]), stream.flush()]
    np.testing.assert_array_equal(np.concatenate(made, axis=1).astype(float), layer(x).astype(float))


@given(case=cases(ndims=(1,)), received=st.integers(0, 200), chunk=st.integers(0, 40))
def test_what_is_remembered_of_a_chunk_is_what_the_next_one_needs(case, received, chunk):
    assume(case.x.shape[1] and expected(case) is not None)
    convolution = gpuconv.stream(plan_of(case, case.x.shape[1]))._convolutions[0]
    with noting((case, received, chunk)):
        assert convolution.remembered(received, chunk) == convolution.turn(received, chunk)


def test_a_stream_is_not_disturbed_by_what_becomes_of_its_chunks():
    layer = layers.Conv1D(1, 3, kernel_initializer="ones", padding="causal")
    stream, chunk, made = gpuconv.stream(layer), np.empty((1, 2, 1), np.float32), []
    for first in (1, 3, 5):
        chunk[...] = np.array([first, first + 1]).reshape(1, 2, 1)
        made += stream.push(chunk).ravel().tolist()
    assert made == [1, 3, 6, 9, 12, 15]
    assert stream.flush().shape == (1, 0, 1)


@pytest.mark.parametrize(
    ("kind", "arguments", "latency", "output_latency"),
    [
        (layers.Conv1DTranspose, (3, 2), 0, 0),
        (layers.Conv1DTranspose, (16, 8, "same"), 1, 4),
        (layers.Conv1DTranspose, (16, 8, (0, 8)), 0, 0),
        (layers.Conv1DTranspose, (16, 8, (0, 9)), 1, 1),
        (layers.Conv1D, (5,), 4, 4),
        (layers.Conv1D, (5, 1, "same"), 2, 2),
        (layers.Conv1D, (5, 2, "causal"), 0, 0),
        (layers.Conv1D, (5, 4, "valid"), 4, 1),
        (layers.Conv1D, (3, 1, (9, 0)), 0, 0),
    ],
)
def test_latency(kind, arguments, latency, output_latency):
    stream = gpuconv.stream(kind(1, *arguments))
    assert (stream.latency, stream.output_latency) == (latency, output_latency)


# --- other libraries -----------------------------------------------------------------------------


def library_chunks(model, x, convert):
    """The pieces of a stream that is saved, and moved to another stream, in the middle."""
    stream, moved = gpuconv.stream(model), gpuconv.stream(model)
    made = [stream.push(convert(x[:, :5])), stream.push(convert(x[:, 5:6]))]
    moved.state = stream.state
    return [*made, moved.push(convert(x[:, 6:])), moved.flush()]


def test_every_library_streams(xp):
    rng = np.random.default_rng(4)
    x = rng.integers(-4, 5, (2, 20, 4)).astype(np.float32)
    model = layers.Sequential(
        [
            layers.Conv1D(4, 3, 2, "causal", groups=2),
            layers.Conv1DTranspose(2, 5, 3, "same", activation="relu"),
        ]
    )
    model.build(x.shape)
    model.set_weights([rng.integers(-3, 4, w.shape).astype(np.float32) for w in model.weights])
    exact = model(x)
    made = library_chunks(model, x, xp.asarray)
    assert {type(piece) for piece in made[:3]} == {type(xp.asarray(x))}
    np.testing.assert_array_equal(
        np.concatenate([gpuconv.namespace.to_numpy(p) for p in made], axis=1), exact
    )


def test_torch_remembers_no_chunk_before_this_one():
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install gpuconv[peers]")
    layer = layers.Conv1D(1, 3, kernel_initializer="ones", padding="causal")
    stream = gpuconv.stream(layer)
    first, second = (torch.ones((1, 4, 1), requires_grad=True) for _ in range(2))
    stream.push(first)
    stream.push(second).sum().backward()
    assert first.grad is None
    assert second.grad.ravel().tolist() == [3, 3, 2, 1]


@pytest.mark.skipif(bool(emulator.missing()), reason=emulator.missing() or "")
def test_cupy_arrays_stream_through_kernels(monkeypatch):
    cupy = Cupy()
    # CuPy's concat gives CuPy arrays; NumPy's does of a subclass that asks for it.
    monkeypatch.setattr(cupy.ndarray, "__array_priority__", 1.0, raising=False)
    rng = np.random.default_rng(6)
    for op, kernel_shape in (("conv1d_transpose", (5, 4, 6)), ("conv1d", (5, 3, 8))):
        x, kernel, bias = (
            rng.integers(-4, 5, shape).astype(np.float32) for shape in ((2, 9, 6), kernel_shape, (8,))
        )
        options = {"strides": 2, "padding": "same", "groups": 2}
        exact = getattr(gpuconv, op)(x, kernel, bias, **options)
        with pytest.MonkeyPatch.context() as patch:
            pretend(patch, cupy)
            x, kernel, bias = (a.view(cupy.ndarray) for a in (x, kernel, bias))
            stream = gpuconv.stream(gpuconv.plan(op, x.shape, kernel, bias, **options))
            made = pieces(stream, x, [0, 1, 1, 6, 9])
        assert all(isinstance(piece, cupy.ndarray) for piece in made)
        np.testing.assert_array_equal(np.concatenate(made, axis=1), exact)
    assert cupy.launched


# --- refusals ------------------------------------------------------------------------------------


def own(call):
    return type("Own", (layers.Conv1D,), {"call": call})(2, 3)


def kernel_of(ndim):
    return np.ones((*[3] * ndim, 1, 1))


REFUSED = {
    "two axes": (lambda: layers.Conv2D(2, 3), NotImplementedError, "Expected a convolution along one axis"),
    "three axes": (lambda: layers.Conv3DTranspose(2, 3), NotImplementedError, "along 3: run it whole"),
    "a plan of two axes": (
        lambda: gpuconv.plan("conv2d", (1, 9, 9, 1), kernel_of(2)),
        NotImplementedError,
        "<Plan of conv2d",
    ),
    "a layer of one's own": (
        lambda: own(lambda _, inputs: inputs),
        NotImplementedError,
        "which inputs it must keep is not known",
    ),
    "another layer": (lambda: layers.Sequential([layers.Layer()]), NotImplementedError, "Stream the layers"),
    "a model of one's own": (
        lambda: type("Own", (layers.Sequential,), {"call": lambda _, inputs: inputs})([layers.Conv1D(1, 1)]),
        NotImplementedError,
        "Received Sequential",
    ),
    "softmax": (lambda: layers.Conv1D(2, 3, activation="softmax"), ValueError, "Received 'softmax'"),
    "a function": (lambda: layers.Activation(np.tanh), ValueError, "Received 'tanh'. Leave it away"),
    "a plan with softmax": (
        lambda: gpuconv.plan("conv1d", (1, 9, 1), kernel_of(1), activation="softmax"),
        ValueError,
        "treats every element alone",
    ),
    "same with strides": (lambda: layers.Conv1D(2, 3, 2, "same"), ValueError, "Pass length="),
    "same_lower with strides": (lambda: layers.Conv1D(2, 4, 2, "same_lower"), ValueError, "Pass length="),
    "no convolution": (lambda: layers.Dropout(0.5), ValueError, "Expected a model with a convolution"),
    "no layers": (lambda: layers.Sequential(), ValueError, "Expected a model with a convolution"),
    "two formats": (
        lambda: layers.Sequential([layers.Conv1D(1, 1), layers.Conv1D(1, 1, data_format="channels_first")]),
        ValueError,
        "layers of one data_format",
    ),
    "an empty plan": (lambda: gpuconv.plan("conv1d", (1, 0, 1), kernel_of(1)), ValueError, "not empty"),
    "an op": (lambda: gpuconv.conv1d, TypeError, "Expected a layer, a model or a plan. Received function"),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_does_not_stream_is_refused(name):
    make, error, words = REFUSED[name]
    with pytest.raises(error, match=words):
        gpuconv.stream(make())


def test_a_length_must_be_one():
    with pytest.raises(ValueError, match="Expected length to be at least 0"):
        gpuconv.stream(layers.Conv1D(1, 1), length=-1)


def test_a_signal_of_another_length_than_planned_is_refused_at_its_end():
    stream = gpuconv.stream(layers.Conv1D(1, 3, 2, "same"), length=9)
    stream.push(np.ones((1, 10, 1), np.float32))
    before = stream.state
    with pytest.raises(ValueError, match=r"signal of 9 samples.*or of a multiple of strides=2.*Received 10"):
        stream.flush()
    same(stream.state, before)
    stream.push(np.ones((1, 1, 1), np.float32))
    assert stream.flush().shape == (1, 1, 1)


def same(state, other):
    assert state.keys() == other.keys()
    for name, value in state.items():
        np.testing.assert_array_equal(value, other[name])


CHUNKS = {
    "no array": ([[[1.0]]], TypeError, "Expected an array. Received builtins.list"),
    "other dimensions": (np.ones((4, 2), np.float32), ValueError, "Expected a chunk of 3 dimensions"),
    "other channels": (
        np.ones((1, 4, 3), np.float32),
        ValueError,
        r"of shape \(1, length, 2\)\. Received .*3\)",
    ),
    "other samples": (np.ones((2, 4, 2), np.float32), ValueError, "begins another signal"),
    "another dtype": (np.ones((1, 4, 2)), TypeError, "arrays of float32.*Received numpy arrays of float64"),
}


@pytest.mark.parametrize("name", list(CHUNKS))
def test_a_refused_chunk_changes_nothing(name):
    chunk, error, words = CHUNKS[name]
    layer = layers.Conv1D(2, 3, seed=0)
    stream, x = gpuconv.stream(layer), np.arange(20, dtype=np.float32).reshape(1, 10, 2)
    begun, before = stream.push(x[:, :5]), stream.state
    with pytest.raises(error, match=words):
        stream.push(chunk)
    same(stream.state, before)
    made = [begun, stream.push(x[:, 5:]), stream.flush()]
    # Sums of 6 products, in two orders: at most 14 roundings of what is at most 6 * 19 here.
    np.testing.assert_allclose(np.concatenate(made, axis=1), layer(x), rtol=0, atol=14 * 114 * 2.0**-24)


def test_a_chunk_of_another_library_is_refused():
    strict = pytest.importorskip("array_api_strict", reason="not installed: pip install gpuconv[test]")
    stream = gpuconv.stream(layers.Conv1D(2, 3))
    stream.push(np.ones((1, 5, 2), np.float32))
    with pytest.raises(TypeError, match=r"Expected chunks alike.*Received array_api_strict arrays"):
        stream.push(strict.ones((1, 5, 2), dtype=strict.float32))


def test_what_the_model_refuses_is_refused_before_it_begins():
    plan = gpuconv.plan("conv1d", (1, 9, 2), np.ones((3, 2, 2)))
    stream = gpuconv.stream(plan)
    with pytest.raises(TypeError, match=r"Expected chunks of float64, as planned\. Received float32"):
        stream.push(np.ones((1, 9, 2), np.float32))
    with pytest.raises(ValueError, match="Expected x of 2 channels"):
        stream.push(np.ones((1, 9, 3)))
    model = layers.Sequential([layers.Conv1D(4, 3), layers.Conv1D(4, 3, groups=4)])
    stream = gpuconv.stream(model)
    with pytest.raises(TypeError, match="Expected real input"):
        stream.push(np.ones((1, 9, 2), np.complex64))
    assert stream.push(np.ones((1, 9, 2), np.float32)).shape == (1, 5, 4)


def test_an_error_in_the_middle_of_a_model_changes_nothing(monkeypatch):
    model = layers.Sequential([layers.Conv1D(2, 3, seed=0), layers.Activation("relu")])
    stream, x = gpuconv.stream(model), np.ones((1, 9, 2), np.float32)
    begun, before = stream.push(x[:, :4]), stream.state
    with monkeypatch.context() as patch:
        patch.setattr(layers.Activation, "call", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            stream.push(x[:, 4:])
        same(stream.state, before)
        with pytest.raises(ZeroDivisionError):
            stream.flush()
        same(stream.state, before)
    np.testing.assert_array_equal(
        np.concatenate([begun, stream.push(x[:, 4:]), stream.flush()], axis=1), model(x)
    )


def test_the_ends_of_a_stream():
    stream = gpuconv.stream(layers.Conv1DTranspose(1, 3, padding=(9, 9)))
    with pytest.raises(ValueError, match="Expected a chunk before flush"):
        stream.flush()
    stream.push(np.ones((1, 4, 1), np.float32))
    with pytest.raises(ValueError, match="Expected padding to crop at most the 6 samples"):
        stream.flush()
    stream.push(np.ones((1, 20, 1), np.float32))
    assert stream.flush().shape == (1, 0, 1)
    for again in (stream.flush, lambda: stream.push(np.ones((1, 4, 1), np.float32))):
        with pytest.raises(ValueError, match=r"Expected reset\(\) before .* a stream that is flushed"):
            again()
    stream.reset()
    assert stream.push(np.ones((2, 24, 1), np.float32)).shape == (2, 8, 1)


STATES = {
    "no mapping": (lambda _: 3, TypeError, "Expected a state, a mapping"),
    "no keys": (lambda _: {}, ValueError, "Expected a state with the keys"),
    "more keys": (lambda state: state | {"halo_7": 1}, ValueError, "Expected a state with the keys"),
    "another geometry": (
        lambda state: state | {"geometry_0": state["geometry_1"]},
        ValueError,
        "Expected the state of a stream whose convolution 0",
    ),
    "a count": (lambda state: state | {"received_1": -1}, ValueError, "Expected received_1 to be at least 0"),
    "another count": (lambda state: state | {"received_0": 1}, ValueError, "of length 1 for received_0=1"),
    "a dtype": (
        lambda state: state | {"halo_0": state["halo_0"].astype(float)},
        ValueError,
        "Received float64 of shape",
    ),
    "no halo": (
        lambda state: {name: value for name, value in state.items() if name != "halo_0"},
        ValueError,
        "Expected halo_0 with received_0=5",
    ),
    "one halo": (
        lambda state: {k: v for k, v in state.items() if k != "halo_0"} | {"received_0": 0},
        ValueError,
        "Expected a halo of every convolution, or none",
    ),
}


@pytest.mark.parametrize("name", list(STATES))
def test_a_refused_state_changes_nothing(name):
    change, error, words = STATES[name]
    stream = gpuconv.stream(layers.Sequential([layers.Conv1D(2, 3), layers.Conv1DTranspose(2, 3, 2)]))
    stream.push(np.ones((1, 5, 2), np.float32))
    before = stream.state
    with pytest.raises(error, match=words):
        stream.state = change(stream.state)
    same(stream.state, before)


def test_a_restored_stream_refuses_another_shape():
    layer = layers.Conv1D(2, 3)
    stream = gpuconv.stream(layer)
    stream.push(np.ones((1, 5, 2), np.float32))
    stream.state = stream.state
    with pytest.raises(ValueError, match="Expected chunks as before the state was saved"):
        stream.push(np.ones((3, 5, 2), np.float32))
    assert stream.push(np.ones((1, 5, 2), np.float32)).shape == (1, 5, 2)


# --- files ---------------------------------------------------------------------------------------


class KilledError(Exception):
    """What stands for the end of a process."""


def upsampler(filters=1, **options):
    """A model that makes three samples of two, of integers where its input is."""
    rng = np.random.default_rng(9)
    first = layers.Conv1D(2, 5, 2, (3, 1), activation="relu", dtype="float64", **options)
    second = layers.Conv1DTranspose(filters, 7, 3, "same", dtype="float64", **options)
    model = layers.Sequential([first, layers.Dropout(0.5, dtype="float64"), second])
    channels = 1
    model.build((1, None, channels))
    model.set_weights([rng.integers(-3, 4, weight.shape) for weight in model.weights])
    return model


def signal(length=203):
    return np.random.default_rng(8).integers(-9, 10, length).astype(np.float64)


@pytest.fixture
def recorded(monkeypatch):
    """A record of the progress after every chunk."""
    files = importlib.import_module("gpuconv._streaming_files")
    monkeypatch.setattr(files, "_SECONDS", 0.0)
    return files


def left_over(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("length", [0, 1, 2, 203])
@pytest.mark.parametrize("chunk", [1, 7, 1000])
@pytest.mark.parametrize("dtype", ["float64", "int16", ">f4"])
def test_a_file_is_processed_as_the_whole(tmp_path, length, chunk, dtype):
    x, model = signal(length), upsampler()
    np.save(tmp_path / "x.npy", x.astype(dtype))
    target = gpuconv.process_file(
        model, tmp_path / "x.npy", str(tmp_path / "y.npy"), chunk=chunk, progress=False
    )
    made = np.load(target)
    assert made.dtype == np.float64
    np.testing.assert_array_equal(made, model(x[None, :, None])[0, :, 0])
    assert left_over(tmp_path) == ["x.npy", "y.npy"]


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_channels_stay_beside_time(tmp_path, data_format):
    x = np.asfortranarray(np.random.default_rng(1).integers(-9, 10, (50, 3)).astype(np.float32))
    np.save(tmp_path / "x.npy", x)
    layer = layers.Conv1D(4, 3, 2, "same", data_format=data_format)  # a file's length is known
    made = np.load(gpuconv.process_file(layer, tmp_path / "x.npy", tmp_path / "y.npy", chunk=11))
    whole = layer(x[None] if data_format == "channels_last" else x.T[None])[0]
    np.testing.assert_allclose(
        made, whole if data_format == "channels_last" else whole.T, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("axis", [1, -1])
@pytest.mark.parametrize("filters", [1, 4])
@pytest.mark.parametrize("order", ["C", "F"])
def test_time_may_be_the_last_axis(tmp_path, recorded, monkeypatch, axis, filters, order):
    x = np.random.default_rng(1).integers(-9, 10, (3, 50)).astype(np.float64, order=order)
    np.save(tmp_path / "x.npy", x)
    kernel = np.random.default_rng(2).integers(-9, 10, (5, filters, 3)) * 1.0
    plan = gpuconv.plan("conv1d_transpose", (1, 9, 3), kernel, strides=2)
    arguments = plan, tmp_path / "x.npy", tmp_path / "y.npy"
    killed(recorded, monkeypatch, 2, *arguments, axis=axis, chunk=11)
    made = np.load(gpuconv.process_file(*arguments, axis=axis, chunk=11, progress=False))
    np.testing.assert_array_equal(made, gpuconv.conv1d_transpose(x.T[None], kernel, strides=2)[0].T)


def test_two_runs_do_not_write_one_file(tmp_path, monkeypatch):
    files = importlib.import_module("gpuconv._streaming_files")
    fcntl = pytest.importorskip("fcntl", reason="this system has no locks of files that end with a process")
    source, target, x = tmp_path / "x.npy", tmp_path / "y.npy", signal(20)
    np.save(source, x)
    run = functools.partial(gpuconv.process_file, upsampler(), source, target, progress=False)
    first, written = files._run, []

    def with_a_second(*arguments):
        with monkeypatch.context() as patch:
            patch.setattr(files, "_run", lambda *_: written.append("second"))
            with pytest.raises(BlockingIOError, match=r"no other run writes.*y\.npy"):
                run()
        first(*arguments)

    monkeypatch.setattr(files, "_run", with_a_second)
    run()
    whole = upsampler()(x[None, :, None])[0, :, 0]
    np.testing.assert_array_equal(np.load(target), whole)

    # One that waits for the part while another renames it must not write into what that has made.
    monkeypatch.setattr(files, "_run", lambda *_: written.append("late"))
    for ended in (lambda part: part.replace(target), lambda part: part.replace(target) and part.touch()):
        with monkeypatch.context() as patch:
            patch.setattr(fcntl, "flock", lambda *_, ended=ended: ended(tmp_path / "y.npy.part"))
            with pytest.raises(BlockingIOError):
                run()
    assert not written


@pytest.mark.parametrize("system", ["win32", sys.platform])
def test_files_are_written_where_there_are_no_locks(tmp_path, monkeypatch, system):
    files = importlib.import_module("gpuconv._streaming_files")
    fcntl = pytest.importorskip("fcntl", reason="this system has no locks of files that end with a process")

    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(files, "sys", types.SimpleNamespace(platform=system))
    np.save(tmp_path / "x.npy", signal(9))
    made = np.load(gpuconv.process_file(upsampler(), tmp_path / "x.npy", tmp_path / "y.npy", progress=False))
    np.testing.assert_array_equal(made, upsampler()(signal(9)[None, :, None])[0, :, 0])


def test_a_file_needs_the_memory_of_a_chunk(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros(1_000_000, np.float32))
    plan = gpuconv.plan("conv1d_transpose", (1, 4096, 1), np.ones((16, 1, 1), np.float32), strides=8)
    tracemalloc.start()
    try:
        target = gpuconv.process_file(
            plan, tmp_path / "x.npy", tmp_path / "y.npy", chunk=4096, progress=False
        )
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert target.stat().st_size > 32_000_000
    assert peak < 4_000_000  # an output chunk is 131,072 bytes, and exists a few times; code is read, too


def test_plans_and_streams_process_files(tmp_path):
    x, kernel = signal(64), np.ones((5, 2, 1))
    np.save(tmp_path / "x.npy", x)
    plan = gpuconv.plan("conv1d_transpose", (1, 9, 1), kernel, strides=3)
    running = gpuconv.stream(plan)
    running.push(np.ones((1, 3, 1)))
    for model in (plan, running, running):
        made = np.load(gpuconv.process_file(model, tmp_path / "x.npy", tmp_path / "y.npy", chunk=10))
        np.testing.assert_array_equal(made, gpuconv.conv1d_transpose(x[None, :, None], kernel, strides=3)[0])


@given(data=st.data(), chunk=st.integers(1, 40))
@settings(max_examples=40)
def test_what_was_killed_goes_on(tmp_path_factory, data, chunk):
    files = importlib.import_module("gpuconv._streaming_files")
    folder = tmp_path_factory.mktemp("killed")
    source, target, model, x = folder / "x.npy", folder / "y.npy", upsampler(), signal()
    np.save(source, x)
    whole = model(x[None, :, None])[0, :, 0]
    # Writing, recording and renaming are where it can end.
    names = ["_encoded", "_write_record", "_sync", "_chunk_of"]
    for name in data.draw(st.lists(st.sampled_from(names), max_size=5)):
        left = data.draw(st.integers(0, 30))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(files, "_SECONDS", data.draw(st.sampled_from([0.0, 0.0, 1e9])))
            patch.setattr(files, name, dying(getattr(files, name), left, data.draw(st.booleans())))
            try:
                gpuconv.process_file(model, source, target, chunk=chunk, progress=False)
            except KilledError:
                assert not target.exists()
            else:
                np.testing.assert_array_equal(np.load(target), whole)
                target.unlink()
    gpuconv.process_file(model, source, target, chunk=chunk, progress=False)
    np.testing.assert_array_equal(np.load(target), whole)
    assert left_over(folder) == ["x.npy", "y.npy"]


def dying(function, left, before):
    """`function`, which ends with `KilledError` after so many calls, before or after it did its work."""
    calls = itertools.count()

    def call(*arguments):
        number = next(calls)
        if number == left and before:
            raise KilledError
        result = function(*arguments)
        if number == left:
            raise KilledError
        return result

    return call


def chunks_read(recorded, monkeypatch, *arguments, **options):
    """How many chunks a run reads, the empty one aside."""
    calls = []
    with monkeypatch.context() as patch:
        original = recorded._chunk_of
        patch.setattr(recorded, "_chunk_of", lambda *given: calls.append(given) or original(*given))
        gpuconv.process_file(*arguments, **options, progress=False)
    return len(calls) - 1


def killed(recorded, monkeypatch, after, *arguments, **options):
    with monkeypatch.context() as patch:
        patch.setattr(recorded, "_encoded", dying(recorded._encoded, after, True))
        with pytest.raises(KilledError):
            gpuconv.process_file(*arguments, **options, progress=False)


def test_only_what_is_missing_is_done_again(tmp_path, recorded, monkeypatch):
    source, target = tmp_path / "x.npy", tmp_path / "y.npy"
    np.save(source, signal(100))
    killed(recorded, monkeypatch, 7, upsampler(), source, target, chunk=10)
    assert left_over(tmp_path) == ["x.npy", "y.npy.part", "y.npy.progress"]
    assert chunks_read(recorded, monkeypatch, upsampler(), source, target, chunk=10) == 3


def test_another_run_starts_again(tmp_path, recorded, monkeypatch):
    source, target, x = tmp_path / "x.npy", tmp_path / "y.npy", signal(100)
    other = upsampler()
    other.set_weights([weight + 1 for weight in other.get_weights()])
    steeper = upsampler()
    steeper.layers[0].activation = gpuconv.activations.get("hard_tanh")

    def damage(name, content):
        (tmp_path / name).write_bytes(content)

    def damage_zip(byte, value):
        """Change a byte of what the record's archive says of its first member."""
        content = bytearray((tmp_path / "y.npy.progress").read_bytes())
        content[content.index(b"PK\x01\x02") + byte] = value
        damage("y.npy.progress", content)

    def replace_source():
        """Another file of the same size and time."""
        about = source.stat()
        np.save(tmp_path / "other.npy", x + 1)
        os.utime(tmp_path / "other.npy", ns=(about.st_atime_ns, about.st_mtime_ns))
        (tmp_path / "other.npy").replace(source)

    def rewrite_source():
        """The same file, of the same size and time."""
        about = source.stat()
        np.save(source, x + 1)
        while source.stat().st_ctime_ns == about.st_ctime_ns:  # until the system's clock has moved
            os.utime(source, ns=(about.st_atime_ns, about.st_mtime_ns))
        os.utime(source, ns=(about.st_atime_ns, about.st_mtime_ns))

    changes = {
        "weights": lambda: {"model": other},
        "activation": lambda: {"model": steeper},
        "chunk": lambda: {"chunk": 20},
        "source": lambda: np.save(source, x + 1),
        "another source": replace_source,
        "a source rewritten": rewrite_source,
        "no part": lambda: (tmp_path / "y.npy.part").unlink(),
        "a short part": lambda: damage("y.npy.part", (tmp_path / "y.npy.part").read_bytes()[:200]),
        "no record": lambda: (tmp_path / "y.npy.progress").unlink(),
        "an empty record": lambda: damage("y.npy.progress", b""),
        "a damaged record": lambda: damage("y.npy.progress", b"PK" + bytes(99)),
        "a version of the archive": lambda: damage_zip(6, 106),
        "an encrypted record": lambda: damage_zip(8, 1),
        "a compression": lambda: damage_zip(10, 99),
        "another record": lambda: (
            np.save(tmp_path / "y.npy.progress", x)
            or (tmp_path / "y.npy.progress.npy").replace(tmp_path / "y.npy.progress")
        ),
    }
    for name, change in changes.items():
        np.save(source, x)
        killed(recorded, monkeypatch, 7, upsampler(), source, target, chunk=10)
        changed = change()
        options = {"model": upsampler(), "chunk": 10} | (changed if isinstance(changed, dict) else {})
        model, chunk = options["model"], options["chunk"]
        assert chunks_read(recorded, monkeypatch, model, source, target, chunk=chunk) == 100 // chunk, name
        given = np.load(source)
        np.testing.assert_array_equal(np.load(target), model(given[None, :, None])[0, :, 0])
        target.unlink()


def test_a_model_of_another_order_starts_again(tmp_path, recorded, monkeypatch):
    source, target, x = tmp_path / "x.npy", tmp_path / "y.npy", signal(100)
    np.save(source, x)

    def model(*order):
        parts = {kind: layers.Activation(kind, dtype="float64") for kind in ("relu", "sigmoid")}
        parts |= {w: layers.Conv1D(1, 1, dtype="float64", use_bias=False) for w in (1, -1)}
        made = layers.Sequential([parts[name] for name in order])
        made.build((None, None, 1))
        made.set_weights([np.full((1, 1, 1), w) for w in order if isinstance(w, int)])
        return made

    other = model(1, -1, "relu", "sigmoid")
    killed(recorded, monkeypatch, 7, model(1, "relu", -1, "sigmoid"), source, target, chunk=10)
    assert chunks_read(recorded, monkeypatch, other, source, target, chunk=10) == 10
    np.testing.assert_array_equal(np.load(target), other(x[None, :, None])[0, :, 0])


def test_a_state_of_another_version_is_none(tmp_path, recorded, monkeypatch):
    source, target, x = tmp_path / "x.npy", tmp_path / "y.npy", signal(100)
    np.save(source, x)
    write = recorded._write_record
    with monkeypatch.context() as patch:
        unlike = types.SimpleNamespace(state={"another": 1})
        patch.setattr(recorded, "_write_record", lambda kept, _, done: write(kept, unlike, done))
        killed(recorded, monkeypatch, 7, upsampler(), source, target, chunk=10)
    assert chunks_read(recorded, monkeypatch, upsampler(), source, target, chunk=10) == 10
    np.testing.assert_array_equal(np.load(target), upsampler()(x[None, :, None])[0, :, 0])


def test_a_record_that_was_begun_is_removed(tmp_path, recorded, monkeypatch):
    source, target = tmp_path / "x.npy", tmp_path / "y.npy"
    np.save(source, signal(100))
    with monkeypatch.context() as patch:
        # The third time, what is written is a record.
        patch.setattr(recorded, "_sync", dying(recorded._sync, 3, True))
        with pytest.raises(KilledError):
            gpuconv.process_file(upsampler(), source, target, chunk=10, progress=False)
    assert "y.npy.progress.new" in left_over(tmp_path)
    monkeypatch.setattr(recorded, "_SECONDS", 1e9)
    gpuconv.process_file(upsampler(), source, target, chunk=10, progress=False)
    assert left_over(tmp_path) == ["x.npy", "y.npy"]


@pytest.mark.parametrize("earlier", [False, True])
def test_a_source_that_is_written_meanwhile_makes_no_target(tmp_path, monkeypatch, recorded, earlier):
    source, target, x = tmp_path / "x.npy", tmp_path / "y.npy", signal(100)
    np.save(source, x)
    os.utime(source, (0, 0))  # long ago, for the system's clock ticks slowly
    if earlier:
        target.write_bytes(b"of an earlier run")
    encoded, calls = recorded._encoded, itertools.count()

    def overwriting(*arguments):
        if next(calls) == 3:
            with source.open("r+b") as file:
                file.seek(128)
                file.write((x + 1).tobytes())
        return encoded(*arguments)

    monkeypatch.setattr(recorded, "_encoded", overwriting)
    with pytest.raises(OSError, match=r"source that stays as it is.*x\.npy.*Call again"):
        gpuconv.process_file(upsampler(), source, target, chunk=10, progress=False)
    assert left_over(tmp_path) == ["x.npy", "y.npy"][: 1 + earlier]
    assert not earlier or target.read_bytes() == b"of an earlier run"


def test_a_source_is_what_was_opened(tmp_path, monkeypatch):
    """Another file that takes its name is not read, not even in part."""
    files = importlib.import_module("gpuconv._streaming_files")
    source, target, x = tmp_path / "x.npy", tmp_path / "y.npy", signal(100)
    np.save(source, x)
    np.save(tmp_path / "other.npy", np.ones((30, 1), np.int16))
    read = files.read_npy

    def replaced(*arguments):
        (tmp_path / "other.npy").replace(source)
        return read(*arguments)

    monkeypatch.setattr(files, "read_npy", replaced)
    made = np.load(gpuconv.process_file(upsampler(), source, target, progress=False))
    np.testing.assert_array_equal(made, upsampler()(x[None, :, None])[0, :, 0])


def test_headers_of_version_2_are_read(tmp_path):
    x = signal(30)
    with (tmp_path / "x.npy").open("wb") as file:
        np.lib.format.write_array(file, x, version=(2, 0))
    made = np.load(gpuconv.process_file(upsampler(), tmp_path / "x.npy", tmp_path / "y.npy"))
    np.testing.assert_array_equal(made, upsampler()(x[None, :, None])[0, :, 0])


def write_wav(path, samples, rate):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())


def test_integers_of_wav_are_fractions_rounded_and_clipped(tmp_path):
    samples = np.random.default_rng(2).integers(-32768, 32768, (999, 2))
    write_wav(tmp_path / "x.wav", samples, 8000)
    layer = layers.Conv1DTranspose(2, 6, 3, "same", seed=0)
    target = gpuconv.process_file(layer, tmp_path / "x.wav", tmp_path / "y.wav", chunk=100)
    whole = layer((samples / 32768).astype(np.float32)[None])[0] * 32768
    assert (abs(whole) > 32768).any()
    with wave.open(str(target)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (2, 2, 24000)
        assert file.getnframes() == 2997
        made = np.frombuffer(file.readframes(2997), "<i2").reshape(-1, 2)
    assert abs(made - np.clip(whole, -32768, 32767)).max() <= 0.5 + 0.01


def test_integers_of_wav_are_no_nan(tmp_path):
    write_wav(tmp_path / "x.wav", np.array([[-9], [9]]), 8000)
    layer = layers.Conv1D(1, 1, use_bias=False)
    layer.build((None, None, 1))
    arguments = layer, tmp_path / "x.wav", tmp_path / "y.wav"
    layer.set_weights([np.full((1, 1, 1), np.nan)])
    with pytest.raises(ValueError, match=r"Received a NaN from the model\. Convert .* to \.npy"):
        gpuconv.process_file(*arguments, progress=False)
    assert not (tmp_path / "y.wav").exists()
    layer.set_weights([np.full((1, 1, 1), np.inf)])
    with wave.open(str(gpuconv.process_file(*arguments, progress=False))) as file:
        np.testing.assert_array_equal(np.frombuffer(file.readframes(2), "<i2"), [-32768, 32767])


def test_floats_of_wav_stay_what_they_are(tmp_path):
    wavfile = pytest.importorskip(
        "scipy.io.wavfile", reason="scipy is not installed: pip install gpuconv[demo]"
    )
    x = np.random.default_rng(2).standard_normal((500, 1)).astype(np.float32)
    wavfile.write(tmp_path / "x.wav", 8000, x)
    layer = layers.Conv1D(2, 3, 2, "causal", seed=0)
    target = gpuconv.process_file(layer, tmp_path / "x.wav", tmp_path / "y.wav", chunk=64)
    rate, made = wavfile.read(target)
    assert (rate, made.dtype) == (4000, np.float32)
    np.testing.assert_allclose(made, layer(x[None])[0], rtol=1e-5, atol=1e-6)
    assert gpuconv.process_file(layers.Conv1D(1, 1), target.with_name("x.wav"), target, chunk=64) == target


def test_extensible_wav_with_other_chunks_is_read(tmp_path):
    samples = np.arange(6, dtype="<i2") * 4096
    about = (
        struct.pack("<HHIIHH", 0xFFFE, 1, 100, 200, 2, 16) + struct.pack("<HHIH", 22, 16, 0, 1) + bytes(14)
    )
    chunks = [(b"LIST", b"odd"), (b"fmt ", about), (b"data", samples.tobytes())]
    body = b"".join(n + struct.pack("<I", len(c)) + c + bytes(len(c) % 2) for n, c in chunks)
    (tmp_path / "x.wav").write_bytes(b"RIFF" + struct.pack("<I", len(body) + 4) + b"WAVE" + body)
    layer = layers.Conv1D(1, 1, kernel_initializer="ones")
    target = gpuconv.process_file(layer, tmp_path / "x.wav", tmp_path / "y.wav")
    with wave.open(str(target)) as file:
        np.testing.assert_array_equal(np.frombuffer(file.readframes(6), "<i2"), samples)


def test_an_empty_wav_is_processed(tmp_path):
    write_wav(tmp_path / "x.wav", np.zeros((0, 1)), 100)
    with wave.open(
        str(gpuconv.process_file(layers.Conv1D(1, 3), tmp_path / "x.wav", tmp_path / "y.wav"))
    ) as file:
        assert file.getnframes() == 0


def test_files_that_cannot_be_are_refused(tmp_path):
    np.save(tmp_path / "x.npy", signal(9))
    write_wav(tmp_path / "x.wav", np.zeros((9, 1)), 25)
    (tmp_path / "no.wav").write_bytes(b"RIFF\0\0\0\0WAVE")
    (tmp_path / "no.npy").write_bytes(b"nothing")
    (tmp_path / "bits.wav").write_bytes(
        (tmp_path / "x.wav").read_bytes().replace(b"\x10\0data", b"\x18\0data")
    )
    np.save(tmp_path / "cube.npy", np.zeros((2, 3, 4)))
    np.save(tmp_path / "words.npy", np.array(["a"]))
    np.save(tmp_path / "complex.npy", np.zeros(5, complex))
    np.save(tmp_path / "short.npy", np.zeros(2))
    whole = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "cut.npy").write_bytes(whole[:-8])
    (tmp_path / "new.npy").write_bytes(whole[:6] + b"\4" + whole[7:])
    np.save(tmp_path / "objects.npy", np.array([None]))
    (tmp_path / "folder.npy").mkdir()
    before = left_over(tmp_path)
    wide, layer = layers.Conv1D(1, 3, dtype="complex64"), layers.Conv1D(1, 3)
    for model, source, target, error, words in (
        (layer, "x.mp3", "y.mp3", ValueError, "two .npy or two .wav files"),
        (layer, "x.npy", "y.wav", ValueError, "two .npy or two .wav files"),
        (layer, "x.npy", "x.npy", ValueError, "Expected another file as target"),
        (layer, "absent.npy", "y.npy", FileNotFoundError, "absent"),
        (layer, "absent.wav", "y.wav", FileNotFoundError, "absent"),
        (layer, "x.npy", "folder.npy", IsADirectoryError, "Expected a file as target.*folder"),
        (layer, "no.npy", "y.npy", ValueError, "Expected a .npy file of numbers"),
        (layer, "cut.npy", "y.npy", ValueError, r"all samples of its shape, \(9,\)"),
        (layer, "new.npy", "y.npy", ValueError, r"Expected a .npy file of numbers.*format is \(4, 0\)"),
        (layer, "objects.npy", "y.npy", ValueError, "Received .*: object of shape"),
        (layer, "no.wav", "y.wav", ValueError, "no format and no samples"),
        (layer, "bits.wav", "y.wav", ValueError, "Received .*format 1, 24 bits, 1 channels"),
        (layer, "cube.npy", "y.npy", ValueError, "of numbers, of 1 or 2 dimensions"),
        (layer, "words.npy", "y.npy", ValueError, "of numbers, of 1 or 2 dimensions"),
        (layer, "complex.npy", "y.npy", TypeError, "Expected a real recording"),
        (layer, "short.npy", "y.npy", ValueError, "Expected at least 3 samples"),
        (gpuconv.plan("conv1d", (1, 9, 2), np.ones((3, 2, 1))), "x.npy", "y.npy", ValueError, "channels"),
        (wide, "x.wav", "y.wav", TypeError, "that makes real samples"),
        (layers.Conv1D(1, 3, 2), "x.wav", "y.wav", ValueError, "whose rate stays an integer"),
        (layers.Conv1DTranspose(1, 1, 2**28), "x.wav", "y.wav", ValueError, "less than 4 GiB"),
        (layers.Conv2D(1, 3), "x.npy", "y.npy", NotImplementedError, "along one axis"),
    ):
        with noting((model, source)), pytest.raises(error, match=words):
            gpuconv.process_file(model, tmp_path / source, tmp_path / target)
    for source, options, words in (
        ("x.npy", {"chunk": 0}, "Expected chunk to be at least 1"),
        ("x.npy", {"axis": 1}, r"Expected axis to be one of .*, of shape \(9,\)\. Received axis=1"),
        ("x.wav", {"axis": 1}, "Expected axis=0 for a .wav file"),
    ):
        with pytest.raises(ValueError, match=words):
            gpuconv.process_file(layer, tmp_path / source, tmp_path / f"y{source[1:]}", **options)
    assert left_over(tmp_path) == before


def test_a_bar_is_shown_where_tqdm_is_installed(tmp_path, monkeypatch, capsys):
    np.save(tmp_path / "x.npy", signal(9))
    arguments = layers.Conv1D(1, 3), tmp_path / "x.npy", tmp_path / "y.npy"
    monkeypatch.setitem(sys.modules, "tqdm", None)
    gpuconv.process_file(*arguments)
    assert capsys.readouterr().err == ""
    monkeypatch.delitem(sys.modules, "tqdm")
    pytest.importorskip("tqdm", reason="tqdm is not installed: pip install gpuconv[progress]")
    gpuconv.process_file(*arguments, progress=False)
    assert capsys.readouterr().err == ""
    gpuconv.process_file(*arguments, chunk=2)
    assert "9.00/9.00" in capsys.readouterr().err


# --- the benchmark -------------------------------------------------------------------------------


def test_the_benchmark_runs(monkeypatch, capsys):
    folder = Path(__file__).parent.parent / "benchmarks"
    if not folder.is_dir():
        pytest.skip("no benchmarks here: they are in the repository only")
    monkeypatch.syspath_prepend(folder)
    benchmark = importlib.import_module("streaming")
    benchmark.main(["--seconds", "0", "--rows", "mono-x8", "--length", "5000", "--chunk", "2048"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("mono-x8")
