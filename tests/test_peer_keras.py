"""Against Keras on JAX: `keras.ops.conv_transpose`, `keras.ops.conv`, the layers, and JAX's own autodiff.

Keras computes in float64 and stands for the truth; we compute in float32 and float64.
"""

import math
import os

import numpy as np
import pytest

import gpuconv
from tests.bounds import assert_within_bound, noting

os.environ["KERAS_BACKEND"] = "jax"
jax = pytest.importorskip("jax", reason="jax is not installed: pip install gpuconv[peers]")
keras = pytest.importorskip("keras", reason="keras is not installed: pip install gpuconv[peers]")
jax.config.update("jax_enable_x64", True)

#: XLA's algebraic simplifier ends the process on some strided 3-D shapes: it swaps input and kernel, and then
#: finds that the window does not match. Without that pass the sums are the same.
UNSIMPLIFIED = {"xla_disable_hlo_passes": "algsimp"}
FORMATS = ("channels_last", "channels_first")


@pytest.fixture(scope="module", autouse=True)
def _on_jax():
    if keras.backend.backend() != "jax":
        pytest.skip("Keras was imported with another backend than JAX")


def op(name, ndim):
    return getattr(gpuconv, name.format(ndim))


def pick(rng, values):
    """One of `values`, which may be of different types."""
    return values[rng.integers(len(values))]


def mixed_case(rng, name):
    return "".join(rng.permutation([letter.lower(), letter.upper()])[0] for letter in name)


def per_axis(rng, low, high, ndim):
    return tuple(int(size) for size in rng.integers(low, high, ndim, endpoint=True))


def array(rng, samples, lengths, channels, data_format):
    shape = (samples, *lengths, channels) if data_format == "channels_last" else (samples, channels, *lengths)
    return rng.standard_normal(shape)


def settings_of(rng, ndim):
    """What the transposed and the forward convolution have in common."""
    longest = (9, 6, 4)[ndim - 1]
    return {
        "kernel_size": per_axis(rng, 1, (7, 4, 3)[ndim - 1], ndim),
        "strides": per_axis(rng, 1, 4, ndim),
        "dilation_rate": per_axis(rng, 1, 3, ndim) if rng.random() < 0.5 else (1,) * ndim,
        "data_format": pick(rng, FORMATS),
    }, {"samples": int(rng.integers(1, 3)), "lengths": per_axis(rng, 1, longest, ndim)}


def compare(ours, peer, x, kernel, terms):
    """Compare two functions of (x, kernel) in shape and, at both precisions, in value."""
    peer = jax.jit(peer, compiler_options=UNSIMPLIFIED)
    for dtype in ("float64", "float32"):
        x, kernel = x.astype(dtype), kernel.astype(dtype)
        exact = np.asarray(peer(x.astype("float64"), kernel.astype("float64")))
        magnitude = np.asarray(peer(np.abs(x.astype("float64")), np.abs(kernel.astype("float64"))))
        y = ours(x, kernel)
        assert type(y) is np.ndarray
        assert y.dtype == dtype
        assert_within_bound(y, exact, magnitude, terms, dtype)


def times(count):
    """Count to `count`; JAX drops its compiled programs on the way, which would pile up otherwise."""
    for i in range(count):
        if i % 100 == 99:
            jax.clear_caches()
        yield i


def random_ndim(rng):
    return pick(rng, (1, 1, 1, 2, 3))


def test_conv_transpose_equals_keras_ops(deep):
    rng = np.random.default_rng(2022)
    for _ in times(3000 if deep else 40):
        ndim = random_ndim(rng)
        settings, sizes = settings_of(rng, ndim)
        kernel_size = settings.pop("kernel_size")
        settings["padding"] = mixed_case(rng, pick(rng, ("valid", "same")))
        if rng.random() < 0.5:
            settings["output_padding"] = tuple(int(rng.integers(s)) for s in settings["strides"])
        channels, filters = (int(n) for n in rng.integers(1, 5, 2))
        x = array(rng, **sizes, channels=channels, data_format=settings["data_format"])
        kernel = rng.standard_normal((*kernel_size, filters, channels))
        with noting(f"x of shape {x.shape}, kernel of shape {kernel.shape}, {settings}"):
            compare(
                lambda x, kernel: op("conv{}d_transpose", ndim)(x, kernel, **settings),  # noqa: B023
                lambda x, kernel: keras.ops.conv_transpose(x, kernel, **settings),  # noqa: B023
                x,
                kernel,
                terms=math.prod(kernel_size) * channels,
            )


def test_conv_equals_keras_ops(deep):
    rng = np.random.default_rng(1989)
    for _ in times(800 if deep else 16):
        ndim = random_ndim(rng)
        settings, sizes = settings_of(rng, ndim)
        kernel_size = settings.pop("kernel_size")
        reach = [(k - 1) * d + 1 for k, d in zip(kernel_size, settings["dilation_rate"], strict=True)]
        settings["padding"] = mixed_case(rng, pick(rng, ("valid", "same")))
        if settings["padding"].lower() == "valid":
            sizes["lengths"] = tuple(map(max, sizes["lengths"], reach))
        depth, width, groups = (int(n) for n in rng.integers(1, 4, 3))
        x = array(rng, **sizes, channels=depth * groups, data_format=settings["data_format"])
        kernel = rng.standard_normal((*kernel_size, depth, width * groups))
        with noting(f"x of shape {x.shape}, kernel of shape {kernel.shape}, {groups} groups, {settings}"):
            compare(
                lambda x, kernel: op("conv{}d", ndim)(x, kernel, groups=groups, **settings),  # noqa: B023
                lambda x, kernel: keras.ops.conv(x, kernel, **settings),  # noqa: B023
                x,
                kernel,
                terms=math.prod(kernel_size) * depth,
            )


def keras_layer(kind, *arguments, kernel, bias, x, **settings):
    """A Keras layer of `kind` with these weights, and what it makes of |x|, |kernel|, |bias| (linear)."""
    kind = getattr(keras.layers, kind)
    weights = [kernel] if bias is None else [kernel, bias]
    layer = kind(*arguments, **settings, dtype="float64", use_bias=bias is not None)
    layer.build(x.shape)
    layer.set_weights(weights)
    twin = kind(*arguments, **settings | {"activation": None}, dtype="float64", use_bias=bias is not None)
    twin.build(x.shape)
    twin.set_weights([np.abs(weight) for weight in weights])
    return layer, np.asarray(twin(np.abs(x)))


EXPLAINED = [
    ("Conv1DTranspose", 3, 2, {}),
    ("Conv1DTranspose", 3, 2, {"padding": "same"}),
    ("Conv1DTranspose", 4, 3, {"padding": "same", "output_padding": 2}),
    ("Conv1DTranspose", 4, 3, {"padding": "valid", "output_padding": 2}),
    ("Conv1DTranspose", 2, 4, {}),
    ("Conv1DTranspose", 3, 1, {"padding": "same", "dilation_rate": 2}),
    ("Conv1D", 4, 2, {"padding": "same"}),
    ("Conv1D", 3, 4, {}),
    ("Conv1D", 3, 1, {"padding": "causal", "dilation_rate": 2}),
]


@pytest.mark.parametrize(("kind", "taps", "strides", "settings"), EXPLAINED)
def test_explanations_hold_what_keras_computes(kind, taps, strides, settings):
    """Every input sample alone meets a kernel of every tap alone: Keras gives 1 where the two reach."""
    explanation = getattr(gpuconv.layers, kind)(1, taps, strides, **settings).explain(10)
    layer = getattr(keras.layers, kind)(taps, taps, strides, use_bias=False, **settings)
    layer.build((None, 10, 1))
    kernel = np.eye(taps)
    layer.set_weights([kernel[..., None] if kind == "Conv1DTranspose" else kernel[:, None]])
    y = np.asarray(layer(np.eye(10)[..., None]))
    assert y.shape[1] == explanation.out_length
    assert set(np.unique(y)) <= {0, 1}
    held = [set(explanation.terms(n)) for n in range(explanation.out_length)]
    assert held == [set(zip(*map(list, np.nonzero(y[:, n])), strict=True)) for n in range(y.shape[1])]


def test_causal_conv_equals_keras_layer(deep):
    rng = np.random.default_rng(16)
    for _ in times(100 if deep else 4):
        k, s, d = (int(n) for n in rng.integers(1, 5, 3))
        s = s if d == 1 else 1  # the Keras layer takes no stride together with a dilation
        depth, width, groups = (int(n) for n in rng.integers(1, 4, 3))
        x = rng.standard_normal((2, int(rng.integers(1, 12)), depth * groups))
        kernel, bias = rng.standard_normal((k, depth, width * groups)), rng.standard_normal(width * groups)
        settings = {"strides": s, "padding": "causal", "dilation_rate": d, "groups": groups}
        with noting(f"x of shape {x.shape}, kernel of shape {kernel.shape}, {settings}"):
            layer, magnitude = keras_layer(
                "Conv1D", width * groups, k, kernel=kernel, bias=bias, x=x, **settings
            )
            y = gpuconv.conv1d(x, kernel, bias, **settings)
            assert_within_bound(y, layer(x), magnitude, k * depth + 1, "float64")


def random_layer(rng, ndim):
    """Arguments of a Keras layer, x, kernel and bias."""
    settings, sizes = settings_of(rng, ndim)
    settings["filters"] = filters = int(rng.integers(1, 5))
    if max(settings["strides"]) > 1:
        settings["dilation_rate"] = (1,) * ndim
    settings["padding"] = pick(rng, ("valid", "same"))
    if rng.random() < 0.5:
        settings["output_padding"] = tuple(int(rng.integers(s)) for s in settings["strides"])
    # These have a slope of at most 1 and round nothing: the bound of the sum holds for them too.
    settings["activation"] = pick(rng, (None, "linear", "relu", "relu6"))
    channels = int(rng.integers(1, 5))
    x = array(rng, **sizes, channels=channels, data_format=settings["data_format"])
    kernel = rng.standard_normal((*settings["kernel_size"], filters, channels))
    return settings, x, kernel, rng.standard_normal(filters) if rng.random() < 0.7 else None


# --- our layers ----------------------------------------------------------------------------------


def our_layer(ndim):
    return getattr(gpuconv.layers, f"Conv{ndim}DTranspose")


def their_layer(ndim):
    return getattr(keras.layers, f"Conv{ndim}DTranspose")


def test_layer_and_op_equal_keras_layer(deep):
    rng = np.random.default_rng(38)
    for _ in times(3000 if deep else 12):
        ndim = random_ndim(rng)
        settings, x, kernel, bias = random_layer(rng, ndim)
        weights = [kernel] if bias is None else [kernel, bias]
        sizes = {
            name: settings[name] for name in settings if name not in ("filters", "kernel_size", "activation")
        }
        with noting(f"x of shape {x.shape}, {settings}, bias={bias is not None}"):
            theirs = their_layer(ndim)(**settings, use_bias=bias is not None, dtype="float64")
            theirs.build(x.shape)

            def exact_and_magnitude(x, weights, theirs=theirs, sizes=sizes):
                made, _ = theirs.stateless_call(weights, [], x)
                size = keras.ops.conv_transpose(abs(x), abs(weights[0]), **sizes)
                return made, size + abs(weights[1]).max() if weights[1:] else size

            exact, magnitude = jax.jit(exact_and_magnitude, compiler_options=UNSIMPLIFIED)(x, weights)
            ours = our_layer(ndim)(**settings, use_bias=bias is not None, dtype="float64")
            ours.build(x.shape)
            ours.set_weights(weights)
            y = ours(x)
            terms = math.prod(kernel.shape) // kernel.shape[-2] + 1
            assert_within_bound(y, exact, magnitude, terms, "float64")
            assert tuple(ours.compute_output_shape(x.shape)) == y.shape
            assert ours.count_params() == theirs.count_params()
            made = op("conv{}d_transpose", ndim)(x, kernel, bias, **sizes, activation=settings["activation"])
            np.testing.assert_array_equal(made, y)


# Keras' get_weights leaves NumPy 2's `copy` out of __array__.
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_weights_go_both_ways(ndim):
    rng = np.random.default_rng(ndim)
    ours, theirs = our_layer(ndim)(4, 3, strides=2), their_layer(ndim)(4, 3, strides=2)
    shape = (2, *(5,) * ndim, 3)
    ours.build(shape)
    theirs.build(shape)
    drawn = [rng.standard_normal(weight.shape).astype("float32") for weight in theirs.get_weights()]
    theirs.set_weights(drawn)
    ours.set_weights(theirs.get_weights())
    for mine, expected in zip(ours.get_weights(), drawn, strict=True):
        np.testing.assert_array_equal(mine, expected)
    theirs.set_weights([0 * weight for weight in drawn])
    theirs.set_weights(ours.get_weights())
    for weight, expected in zip(theirs.get_weights(), drawn, strict=True):
        np.testing.assert_array_equal(weight, expected)


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("unknown", [(0,), (1,), (0, 2), (0, 1, 2)])
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("output_padding", [None, 0, 1])
def test_compute_output_shape_equals_keras(data_format, unknown, padding, output_padding):
    settings = {"strides": 2, "padding": padding, "data_format": data_format}
    settings["output_padding"] = output_padding
    shape = [6, 7, 9, 3] if data_format == "channels_last" else [6, 3, 7, 9]
    for axis in unknown:
        shape[axis if data_format == "channels_last" or axis == 0 else axis + 1] = None
    expected = their_layer(2)(4, (5, 1), **settings).compute_output_shape(tuple(shape))
    assert tuple(our_layer(2)(4, (5, 1), **settings).compute_output_shape(tuple(shape))) == tuple(expected)


CONFIGURATIONS = [
    {"filters": 4, "kernel_size": 3},
    {"filters": 4, "kernel_size": 3, "strides": 2, "padding": "same", "output_padding": 1, "name": "up"},
    {"filters": 1, "kernel_size": 2, "dilation_rate": 2, "activation": "relu", "use_bias": False},
    {"filters": 2, "kernel_size": 5, "data_format": "channels_first", "dtype": "float64", "trainable": False},
    {"filters": 2, "kernel_size": 5, "kernel_initializer": "he_normal", "bias_initializer": "ones"},
    {"filters": 2, "kernel_size": 5, "kernel_regularizer": "l2", "bias_regularizer": "l1"},
    {"filters": 2, "kernel_size": 5, "kernel_constraint": "max_norm", "bias_constraint": "non_neg"},
    {"filters": 2, "kernel_size": 5, "activity_regularizer": "l2", "activation": "leaky_relu"},
]
#: What both configurations must agree on after a round trip; names and dtypes included.
SHARED = (
    *("filters", "kernel_size", "strides", "padding", "output_padding", "data_format", "dilation_rate"),
    *("use_bias", "name", "trainable"),
)


def as_tuples(config):
    return {name: tuple(config[name]) if isinstance(config[name], list) else config[name] for name in SHARED}


def names_in(config):
    """The class or function name of everything in `config` that has one."""
    found = {}
    for name, value in config.items():
        if isinstance(value, dict) and name != "dtype":
            value = value["class_name"]
        if name.endswith(("initializer", "regularizer", "constraint", "activation")):
            found[name] = value
    return found


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=str)
def test_keras_reads_our_config(ndim, configuration):
    ours = our_layer(ndim)(**configuration)
    theirs = their_layer(ndim).from_config(ours.get_config())
    assert as_tuples(theirs.get_config()) == as_tuples(ours.get_config())
    assert names_in(theirs.get_config()) == names_in(their_layer(ndim)(**configuration).get_config())
    assert theirs.dtype_policy.name == configuration.get("dtype", "float32")


@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=str)
def test_we_read_keras_config(ndim, configuration):
    theirs = their_layer(ndim)(**configuration)
    ours = our_layer(ndim).from_config(theirs.get_config())
    assert as_tuples(ours.get_config()) == as_tuples(theirs.get_config())
    again = their_layer(ndim).from_config(ours.get_config())
    assert as_tuples(again.get_config()) == as_tuples(theirs.get_config())
    assert names_in(again.get_config()) == names_in(theirs.get_config())


# --- JAX itself ----------------------------------------------------------------------------------

JAX_CASES = [
    # kernel, stride, dilation, padding, groups
    pytest.param(5, 2, 1, (1, 2), 1, id="stride"),
    pytest.param(3, 1, 3, (0, 0), 1, id="dilation"),
    pytest.param(3, 3, 2, (2, 0), 2, id="stride-dilation-groups"),
]


def lax_conv_transpose(k, s, d, padding, groups):
    """What our op says, as a JAX expression of (x, kernel)."""
    e = (k - 1) * d + 1
    left, right = padding

    def function(x, kernel):
        # (k, filters // groups, channels) -> flipped (k, channels // groups, filters)
        split = kernel[::-1].reshape(k, kernel.shape[1], groups, -1)
        flipped = split.transpose(0, 3, 2, 1).reshape(k, kernel.shape[2] // groups, -1)
        return jax.lax.conv_general_dilated(
            x,
            flipped,
            (1,),
            [(e - 1 - left, e - 1 - right)],
            lhs_dilation=(s,),
            rhs_dilation=(d,),
            dimension_numbers=("NHC", "HIO", "NHC"),
            feature_group_count=groups,
        )

    return function


def lax_conv(k, s, d, padding, groups):
    def function(x, kernel):
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (s,),
            [padding],
            rhs_dilation=(d,),
            dimension_numbers=("NHC", "HIO", "NHC"),
            feature_group_count=groups,
        )

    return function


@pytest.mark.parametrize(("k", "s", "d", "padding", "groups"), JAX_CASES)
@pytest.mark.parametrize("name", ["conv1d_transpose", "conv1d"])
def test_jax_autodiff_and_jit_go_through(name, k, s, d, padding, groups):
    rng = np.random.default_rng(k)
    x = jax.numpy.asarray(rng.standard_normal((2, 9, 2 * groups)))
    last = (3, 2 * groups) if name == "conv1d_transpose" else (2, 3 * groups)
    kernel = jax.numpy.asarray(rng.standard_normal((k, *last)))
    peer = (lax_conv_transpose if name == "conv1d_transpose" else lax_conv)(k, s, d, padding, groups)

    def ours(x, kernel):
        return op(name, 1)(x, kernel, strides=s, dilation_rate=d, padding=padding, groups=groups)

    # Everything runs jitted, which is also what is quick: eager JAX compiles every step on its own.
    run = jax.jit(peer)
    y, magnitude = run(x, kernel), run(abs(x), abs(kernel))
    assert_within_bound(jax.jit(ours)(x, kernel), y, magnitude, k * 2, "float64")

    dy = jax.numpy.asarray(rng.standard_normal(y.shape))

    def gradients(function):
        def loss(x, kernel, dy):
            return (function(x, kernel) * dy).sum()

        return jax.jit(jax.grad(loss, argnums=(0, 1)))

    found, run = gradients(ours)(x, kernel, dy), gradients(peer)
    # An input element meets every tap and filter once, a weight every sample and position of x or y.
    counts = (k * 3, 2 * min(x.shape[1], y.shape[1]))
    everything = zip(found, run(x, kernel, dy), run(abs(x), abs(kernel), abs(dy)), counts, strict=True)
    for mine, exact, magnitude, terms in everything:
        assert isinstance(mine, jax.Array)
        assert_within_bound(mine, exact, magnitude, terms, "float64")
