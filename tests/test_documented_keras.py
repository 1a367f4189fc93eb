"""The page of keras.layers.Conv1DTranspose (Keras 3), from top to bottom.

Each argument's cases are what Keras did with them on JAX (tests/make_documented.py); ours must do the same.
Where it does something else on purpose, DIFFERING says why, and a test what happens instead. Where page and
system contradict each other, a comment says which was followed.
"""

import inspect
import json

import numpy as np
import pytest

import gpuconv
from gpuconv import activations, constraints, initializers, layers, regularizers
from gpuconv.layers import Conv1DTranspose, Sequential
from tests.bounds import assert_within_bound
from tests.documented import Record, values
from tests.make_documented import (
    ACTIVATIONS,
    EXTRA,
    FIRST,
    LENGTHS,
    SHAPE,
    USUAL,
    keras_3,
    methods,
    observe,
    signature,
)
from tests.reference import transposed_axis

NUMBER = "no number at all is a TypeError with us, there a ValueError"
WHOLE = "integers of NumPy and integral floats, R's numbers, are integers"
KIND = "a TypeError with us, as everything of a wrong kind"
OLDER = "a name of TensorFlow 2.9, known here too"
KEYWORD = "a keyword that is not there is a TypeError, as of any function"
DIFFERING = {
    "filters": {"4.0": WHOLE, "None": NUMBER},
    "kernel_size": {"3.0": WHOLE, "numpy": WHOLE, "None": NUMBER},
    "strides": {"2.0": WHOLE, "numpy": WHOLE, "None": NUMBER},
    "padding": {
        "None": "an AttributeError of a method that None has not",
        "1": "crops of any size are more than the page has",
        "a-pair": "likewise; there it fails at the call",
    },
    "output_padding": {"wrong-1.0": WHOLE, "numpy": WHOLE},
    "dilation_rate": {"2.0": WHOLE, "None": NUMBER},
    "activation": {
        "a-number": KIND,
        "glu": "halves the filters, which Keras' compute_output_shape does not know",
        "sparsemax": "the paper's numbers, which sum to 1 where Keras' do not",
    },
    "kernel_initializer": {"constant": "a KeyError there, for want of a value; ours is 0", "a-number": KIND},
    "bias_initializer": {
        "constant": "likewise",
        "a-number": KIND,
        "None": "draws from glorot_uniform there; the page's zeros were followed",
    },
    "kernel_constraint": dict.fromkeys(["maxnorm", "nonneg", "unitnorm"], OLDER),
    "bias_constraint": dict.fromkeys(["maxnorm", "nonneg", "unitnorm"], OLDER),
    "kwargs": {
        "batch_size": "a keyword of TensorFlow 2.9",
        "batch_size-alone": "likewise",
        "batch_input_shape": "likewise",
        "input_dim": "one more spelling of input_shape, which makes no sense for two axes",
        "name-empty": "no name at all",
        "dtype-mixed_float16": "half types are summed in float32 as they are",
        "weights": "a keyword of TensorFlow 2.9",
        "weights-without-bias": "likewise",
        "groups": "Keras' transposed layers have none yet",
        "groups-1": "likewise",
        "autocast": "input is always cast",
        "implementation": KEYWORD,
        "unknown": KEYWORD,
    },
    "input shape": {
        "(2, 0, 3)": "a length of 0 makes a length of 0",
        "(2, 2, 4, 3)": "an IndexError there",
    },
}
KERAS = Record("keras.json", DIFFERING)
WALKED = []


def cases_of(section):
    """Parametrize a test with the cases of `section` in which we do as Keras does."""
    WALKED.append(section)
    return pytest.mark.parametrize("call", KERAS.agreeing(section))


def make(**settings):
    return Conv1DTranspose(**{**USUAL, **settings})


def built(shape=SHAPE, **settings):
    layer = make(**settings)
    layer.build(shape)
    return layer


def x_of(shape=SHAPE):
    return KERAS.array("x", shape).astype(np.float32)


def refused(error=ValueError, **settings):
    """The message with which the constructor refuses."""
    with pytest.raises(error) as caught:
        make(**settings)
    return str(caught.value)


# --- the signature -------------------------------------------------------------------------------

#: "Abstract Signature", the names; the defaults are those of keras.layers.
SIGNATURE = {
    "filters": "required",
    "kernel_size": "required",
    "strides": 1,
    "padding": "valid",
    "output_padding": None,
    "data_format": None,
    "dilation_rate": 1,
    "activation": None,
    "use_bias": True,
    "kernel_initializer": "glorot_uniform",
    "bias_initializer": "zeros",
    "kernel_regularizer": None,
    "bias_regularizer": None,
    "activity_regularizer": None,
    "kernel_constraint": None,
    "bias_constraint": None,
}


def test_the_signature_is_that_of_the_page():
    assert signature(Conv1DTranspose) == [list(item) for item in SIGNATURE.items()]
    assert KERAS.signature == SIGNATURE


def test_what_the_page_calls_kwargs_is_given_by_name():
    others = list(inspect.signature(Conv1DTranspose).parameters.values())[len(SIGNATURE) :]
    assert {p.name for p in others} >= {"name", "trainable", "dtype", "input_shape"}
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in others)


def test_arguments_may_be_given_in_the_order_of_the_page():
    layer = Conv1DTranspose(
        4, 3, 2, "same", 1, "channels_first", 1, "relu", False, "ones", "ones", "l1", "l2", "l1", "non_neg",
        "unit_norm",
    )  # fmt: skip
    config = layer.get_config()
    wanted = [4, (3,), (2,), "same", (1,), "channels_first", (1,), "relu", False]
    assert [config[name] for name in list(SIGNATURE)[:9]] == wanted
    classes = ["Ones", "Ones", "L1", "L2", "L1", "NonNeg", "UnitNorm"]
    assert [config[name]["class_name"] for name in list(SIGNATURE)[9:]] == classes


def test_it_goes_in_the_opposite_direction_of_a_convolution():
    # "from something that has the shape of the output of some convolution to something that has the shape of
    # its input", "a connectivity pattern that is compatible": <conv(x), y> = <x, transposed(y)>.
    x, y, kernel = KERAS.array("x", (3, 8, 2)), np.zeros((3, 3, 4)), np.zeros((4, 2, 4))
    y[...], kernel[...] = np.sin(np.arange(36)).reshape(y.shape), np.cos(np.arange(32)).reshape(kernel.shape)
    forward = gpuconv.conv1d(x, kernel, strides=2)
    layer = Conv1DTranspose(2, 4, 2, use_bias=False, weights=[kernel], dtype="float64")
    assert forward.shape == y.shape
    assert layer(y).shape == x.shape
    assert (forward * y).sum() == pytest.approx((x * layer(y)).sum(), rel=1e-12)


# --- filters -------------------------------------------------------------------------------------


@cases_of("filters")
def test_filters(call):
    KERAS.check(call)


@pytest.mark.parametrize("filters", [1, 5, 5.0, np.int64(5)])
def test_filters_is_the_dimension_of_the_output_space(filters):
    layer = built(filters=filters)
    assert layer(x_of()).shape == (2, 6, filters)
    assert (layer.kernel.shape, layer.bias.shape) == ((3, filters, 3), (filters,))


@pytest.mark.parametrize(
    ("filters", "error"),
    [(0, ValueError), (-1, ValueError), (2.5, ValueError), ("4", TypeError), (None, TypeError)],
)
def test_filters_of_another_kind_are_refused_when_the_layer_is_made(filters, error):
    # Keras keeps 2.5, 4.0 and None, and fails when it builds.
    assert f"Received filters={filters!r}" in refused(error, filters=filters)


# --- kernel_size ---------------------------------------------------------------------------------


@cases_of("kernel_size")
def test_kernel_size(call):
    KERAS.check(call)


# "int or tuple/list of 1 integer"
@pytest.mark.parametrize("size", [2, (2,), [2], 2.0, np.int64(2), np.array([2])])
@pytest.mark.parametrize("name", ["kernel_size", "strides", "output_padding", "dilation_rate"])
def test_a_size_is_an_integer_or_one_in_a_tuple_or_a_list(name, size):
    layer = make(**{"strides": 3 if name == "output_padding" else 1, name: size})
    assert getattr(layer, name) == (2,)


@pytest.mark.parametrize(
    ("size", "error"),
    [((2, 2), ValueError), ([], ValueError), (2.5, ValueError), (-1, ValueError), ("2", TypeError)],
)
@pytest.mark.parametrize("name", ["kernel_size", "strides", "output_padding", "dilation_rate"])
def test_other_sizes_are_refused(name, size, error):
    assert f"Received {name}={size!r}" in refused(error, **{name: size})


@pytest.mark.parametrize("name", ["kernel_size", "strides", "dilation_rate"])
def test_a_size_is_there_and_positive(name):
    assert KERAS.seen(name, "None")["raises"] == ["ValueError", "making"]
    assert f"Received {name}=None" in refused(TypeError, **{name: None})
    assert f"Received {name}=0" in refused(**{name: 0})


# --- strides -------------------------------------------------------------------------------------


@cases_of("strides")
def test_strides(call):
    KERAS.check(call)


def test_strides_put_input_samples_so_far_apart():
    layer = make(filters=1, kernel_size=1, strides=3, weights=[np.ones((1, 1, 1)), [0.0]])
    y = layer(np.arange(1.0, 4).reshape(1, 3, 1))
    np.testing.assert_array_equal(y.ravel(), [1, 0, 0, 2, 0, 0, 3, 0, 0])


# --- padding -------------------------------------------------------------------------------------


@cases_of("padding")
def test_padding(call):
    KERAS.check(call)


@pytest.mark.parametrize(("k", "s"), LENGTHS)
def test_valid_means_no_padding(k, s):
    # The page says no more. Keras appends zeros where the kernel is shorter than the stride; so do we.
    layer = make(kernel_size=k, strides=s)
    assert layer.compute_output_shape((None, 10, 3)) == (None, 10 * s + max(k - s, 0), 2)


@pytest.mark.parametrize(("k", "s"), LENGTHS)
def test_same_makes_the_input_times_the_stride(k, s):
    # The page: "the same height/width dimension as the input". That is so with strides=1 only; Keras, which
    # was followed, makes length * strides.
    layer = make(kernel_size=k, strides=s, padding="same")
    assert layer.compute_output_shape((None, 10, 3)) == (None, 10 * s, 2)


@pytest.mark.parametrize(("k", "left"), [(3, 1), (4, 1), (5, 2), (6, 2)])
def test_same_pads_evenly_to_the_left_and_right(k, left):
    # "Padding" of a transposed convolution is cropping; what does not divide evenly goes on the right.
    valid, same = built(kernel_size=k, seed=1), built(kernel_size=k, seed=1, padding="same")
    # Integers: each padding sums in an order of its own.
    x = np.round(8 * x_of())
    for layer in (valid, same):
        layer.set_weights([np.round(8 * weight) for weight in layer.get_weights()])
    np.testing.assert_array_equal(same(x), valid(x)[:, left : left + 4])


@pytest.mark.parametrize("word", ["valid", "VALID", "Valid", "same", "SAME", "sAmE"])
def test_padding_is_case_insensitive(word):
    assert make(padding=word).padding == word.lower()


@pytest.mark.parametrize("word", ["causal", "CAUSAL", "full", "", "reflect"])
def test_other_words_are_refused(word):
    assert f"Received padding='{word.lower()}'" in refused(padding=word)


def test_padding_may_be_crops():
    assert KERAS.seen("padding", "a-pair")["raises"] == ["AttributeError", "calling"]
    assert make(padding=1).compute_output_shape(SHAPE) == (2, 4, 2)
    cropped, valid = built(padding=(0, 2), seed=1), built(seed=1)
    np.testing.assert_array_equal(cropped(x_of()), valid(x_of())[:, :-2])
    refused(TypeError, padding=None)


# --- output_padding ------------------------------------------------------------------------------


@cases_of("output_padding")
def test_output_padding(call):
    KERAS.check(call)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(("k", "s", "p"), EXTRA)
def test_output_padding_is_added_to_the_time_dimension(k, s, p, padding):
    # Keras' formula: (length - 1) * strides + kernel_size - 2 * pad + output_padding, pad = kernel_size // 2
    # of "same".
    pad = 0 if padding == "valid" else k // 2
    layer = make(kernel_size=k, strides=s, output_padding=p, padding=padding)
    for length in (1, 3, 10):
        new = (length - 1) * s + k - 2 * pad + p
        assert layer.compute_output_shape((None, length, 3)) == (None, new, 2)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(("k", "s", "p"), EXTRA)
def test_output_padding_moves_nothing(k, s, p, padding):
    # What is cropped on the left is half of all that is cropped, rounded down.
    full = values(KERAS.seen("padding", f"valid-k{k}-s{s}")["output"]) if (k, s) in LENGTHS else None
    call = KERAS.cases["output_padding"][f"{padding}-k{k}-s{s}-p{p}"]
    y = values(KERAS.ours(call)["output"])
    length, left = transposed_axis(3, k, s, 1, padding, p)
    assert y.shape[1] == length
    if full is not None:
        kept = full[:, left : left + length]
        magnitude, terms = KERAS.magnitude(call)
        assert_within_bound(y[:, : kept.shape[1]], kept, magnitude[:, : kept.shape[1]], terms, "float32")


def test_the_shape_is_inferred_when_it_is_none():
    for padding, inferred, none in [("valid", 21, 21), ("same", 20, 19)]:
        layers_of = [make(strides=2, padding=padding, output_padding=p) for p in (None, 0, 1)]
        lengths = [layer.compute_output_shape((1, 10, 3))[1] for layer in layers_of]
        assert lengths == [inferred, none, none + 1]  # 0 is not None


@pytest.mark.parametrize(("strides", "p"), [(1, 1), (2, 2), (2, 5), (3, (3,))])
def test_output_padding_is_lower_than_the_stride(strides, p):
    assert "Expected output_padding to be less than" in refused(strides=strides, output_padding=p)
    # A larger dilation allows it to the op, as in PyTorch; to the layer it does not.
    assert "as in Keras" in refused(dilation_rate=2, output_padding=1)


# --- data_format ---------------------------------------------------------------------------------


@cases_of("data_format")
def test_data_format(call):
    KERAS.check(call)


def test_channels_first_is_the_same_with_the_axes_exchanged():
    first = built(strides=2, data_format="channels_first", seed=1, shape=FIRST)
    last = built(strides=2, seed=1)
    assert first.kernel.shape == last.kernel.shape
    # Integers: each layout sums in an order of its own.
    x = np.round(8 * x_of())
    for layer in (first, last):
        layer.set_weights([np.round(8 * weight) for weight in layer.get_weights()])
    y = first(np.swapaxes(x, 1, 2))
    assert y.shape == (2, 2, 9)
    np.testing.assert_array_equal(np.swapaxes(y, 1, 2), last(x))


@pytest.fixture
def keras_home(tmp_path, monkeypatch):
    """An empty ~/.keras."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    gpuconv.config.set_image_data_format(None)
    yield tmp_path
    gpuconv.config.set_image_data_format(None)


def test_it_defaults_to_what_keras_json_says(keras_home):
    (keras_home / "keras.json").write_text(json.dumps({"image_data_format": "channels_first"}))
    assert make().data_format == "channels_first"
    assert make(data_format="channels_last").data_format == "channels_last"
    gpuconv.config.set_image_data_format("channels_last")
    assert make().data_format == "channels_last"


def test_if_you_never_set_it_it_is_channels_last(keras_home):
    assert make().data_format == "channels_last"
    (keras_home / "keras.json").write_text(json.dumps({"floatx": "float32"}))
    gpuconv.config.set_image_data_format(None)  # reads it again
    assert make().data_format == "channels_last"


@pytest.mark.parametrize("data_format", ["NWC", "channels_middle", "", 3])
def test_other_data_formats_are_refused(data_format):
    assert f"Received data_format={data_format!r}" in refused(data_format=data_format)


# --- dilation_rate -------------------------------------------------------------------------------


@cases_of("dilation_rate")
def test_dilation_rate(call):
    # The page: "dilation rate larger than 1 is not currently supported". Keras computes it; its numbers were
    # followed.
    KERAS.check(call)


def test_dilation_puts_taps_so_far_apart():
    layer = make(filters=1, dilation_rate=3, weights=[np.ones((3, 1, 1)), [0.0]])
    np.testing.assert_array_equal(layer(np.ones((1, 1, 1))).ravel(), [1, 0, 0, 1, 0, 0, 1])


@pytest.mark.parametrize(("strides", "dilation_rate"), [(1, 1), (2, 1), (1, 2)])
def test_strides_or_dilation_may_be_above_1(strides, dilation_rate):
    layer = make(strides=strides, dilation_rate=dilation_rate)
    assert layer.compute_output_shape((1, 4, 3)) == (1, 3 * strides + 2 * dilation_rate + 1, 2)


# --- activation ----------------------------------------------------------------------------------


@cases_of("activation")
def test_activation(call):
    KERAS.check(call)


@pytest.mark.parametrize("name", [name for name in ACTIVATIONS if name not in ("glu", "threshold")])
def test_every_activation_is_applied_after_the_bias(name):
    weights = [KERAS.array("weight", (3, 2, 3)), KERAS.array("weight", (2,))]
    layer, plain = built(activation=name, weights=weights), built(weights=weights)
    np.testing.assert_array_equal(layer(x_of()), activations.get(name)(plain(x_of())))


def test_none_is_no_activation():
    layer, linear = built(activation=None, seed=1), built(activation="linear", seed=1)
    assert layer.activation is linear.activation is activations.linear
    np.testing.assert_array_equal(layer(x_of()), linear(x_of()))


def test_activation_may_be_a_function_or_a_config():
    plain = built(seed=1)(x_of())
    np.testing.assert_array_equal(built(activation=lambda y: 3 * y, seed=1)(x_of()), 3 * plain)
    config = {"class_name": "LeakyReLU", "config": {"negative_slope": 0.5, "name": "of a layer"}}
    np.testing.assert_array_equal(
        built(activation=config, seed=1)(x_of()), np.where(plain > 0, plain, plain / 2)
    )


def test_glu_halves_the_filters():
    call = KERAS.cases["activation"]["glu"]
    assert call["seen"]["shapes"] == [[None, None, 2], [7, 13, 2]]
    assert call["seen"]["output"]["shape"] == [1, 5, 1]
    ours = KERAS.ours(call)
    assert ours["shapes"] == [(None, None, 1), (7, 13, 1)]
    np.testing.assert_allclose(values(ours["output"]), values(call["seen"]["output"]), rtol=1e-5)


def test_sparsemax_sums_to_1():
    call = KERAS.cases["activation"]["sparsemax"]
    assert abs(values(call["seen"]["output"]).sum(-1) - 1).max() > 0.1
    np.testing.assert_allclose(values(KERAS.ours(call)["output"]).sum(-1), 1, rtol=1e-6)


def test_an_activation_that_is_none_is_refused():
    assert "Received activation='reluu'" in refused(activation="reluu")
    assert "Received activation=3" in refused(TypeError, activation=3)


# --- use_bias ------------------------------------------------------------------------------------


@cases_of("use_bias")
def test_use_bias(call):
    KERAS.check(call)


def test_a_bias_is_added_to_the_output():
    bare = built(use_bias=False, seed=1)
    assert bare.bias is None
    assert [weight.shape for weight in bare.weights] == [(3, 2, 3)]
    layer = built(weights=[bare.kernel, [1.0, -2.0]])
    np.testing.assert_array_equal(layer(x_of()), bare(x_of()) + np.float32([1, -2]))


def test_samples_that_are_appended_get_it_too():
    layer = make(filters=1, kernel_size=1, strides=3, weights=[np.ones((1, 1, 1)), [5.0]], activation="relu")
    np.testing.assert_array_equal(layer(np.ones((1, 1, 1))).ravel(), [6, 5, 5])


# --- kernel_initializer, bias_initializer --------------------------------------------------------


@cases_of("kernel_initializer")
def test_kernel_initializer(call):
    KERAS.check(call)


@cases_of("bias_initializer")
def test_bias_initializer(call):
    KERAS.check(call)


FAN_IN, FAN_OUT = 5 * 32, 5 * 64  # of filters, the last axis but one, and of channels
LIMITS = {
    "glorot_uniform": (6 / (FAN_IN + FAN_OUT)) ** 0.5,
    "he_uniform": (6 / FAN_IN) ** 0.5,
    "lecun_uniform": (3 / FAN_IN) ** 0.5,
    "random_uniform": 0.05,
    "truncated_normal": 0.1,
    "glorot_normal": 2 * (2 / (FAN_IN + FAN_OUT)) ** 0.5 / 0.87962566103423978,
    "he_normal": 2 * (2 / FAN_IN) ** 0.5 / 0.87962566103423978,
    "lecun_normal": 2 * (1 / FAN_IN) ** 0.5 / 0.87962566103423978,
}


@pytest.mark.parametrize("name", LIMITS)
def test_draws_stay_within_the_limits_of_keras(name):
    drawn = KERAS.seen("kernel_initializer", name)["drawn"][0]
    kernel = built(filters=32, kernel_size=5, shape=(1, 2, 64), kernel_initializer=name).kernel
    for most in (drawn["most"], -drawn["least"], kernel.max(), -kernel.min()):
        assert 0.97 * LIMITS[name] < most <= 1.001 * LIMITS[name]  # the file has four digits


def test_none_stands_for_the_default_initializers():
    # "If None, the default initializer (zeros) will be used": Keras 3.15 draws a bias from glorot_uniform
    # then, as any weight without an initializer. Followed: the page.
    assert KERAS.seen("bias_initializer", "None")["drawn"][1]["deviation"] > 0
    layer = make(kernel_initializer=None, bias_initializer=None)
    assert isinstance(layer.kernel_initializer, initializers.GlorotUniform)
    assert isinstance(layer.bias_initializer, initializers.Zeros)
    assert not built(bias_initializer=None).bias.any()


def test_an_initializer_may_be_an_object_a_class_a_function_or_an_array():
    def count(shape, dtype):
        return np.arange(np.prod(shape), dtype=dtype).reshape(shape)

    given = np.arange(18.0).reshape(3, 2, 3)
    for kernel in (count, given):
        np.testing.assert_array_equal(built(kernel_initializer=kernel).kernel, given)
    for bias in (initializers.Ones(), initializers.Ones, "Ones", {"class_name": "Ones", "config": {}}):
        np.testing.assert_array_equal(built(bias_initializer=bias).bias, [1, 1])
    with pytest.raises(ValueError, match="to have the shape of the weights"):
        built(kernel_initializer=given[:2])


def test_constant_is_0_unless_it_is_told():
    assert KERAS.seen("bias_initializer", "constant")["raises"] == ["KeyError", "making"]
    assert not built(bias_initializer="constant").bias.any()


# --- kernel_regularizer, bias_regularizer, activity_regularizer ----------------------------------


@cases_of("kernel_regularizer")
def test_kernel_regularizer(call):
    KERAS.check(call)


@cases_of("bias_regularizer")
def test_bias_regularizer(call):
    KERAS.check(call)


@cases_of("activity_regularizer")
def test_activity_regularizer(call):
    KERAS.check(call)


def test_a_penalty_is_of_the_weights_or_of_the_output():
    kernel, bias = KERAS.array("weight", (3, 2, 3)), KERAS.array("weight", (2,))
    layer = built(
        weights=[kernel, bias], dtype="float64", kernel_regularizer="l1", bias_regularizer="l2",
        activity_regularizer=regularizers.L2(0.5), activation="relu",
    )  # fmt: skip
    y = layer(x_of())
    # The one of the output comes first, and is divided by the number of samples.
    wanted = [0.5 * (y**2).sum() / 2, 0.01 * abs(kernel).sum(), 0.01 * (bias**2).sum()]
    np.testing.assert_allclose(layer.losses, wanted, rtol=1e-13)


def test_a_regularizer_may_be_a_function():
    layer = built(kernel_regularizer=lambda kernel: 10 * kernel.sum(), kernel_initializer="ones")
    assert layer.losses == [180]


@pytest.mark.parametrize("name", ["kernel_regularizer", "bias_regularizer", "activity_regularizer"])
def test_other_regularizers_are_refused(name):
    assert "TensorFlow 2.9 read this name as L1L2(l1=0.01, l2=0.01)" in refused(**{name: "l1_l2"})
    assert "Received regularizer='l3'" in refused(**{name: "l3"})
    assert "Received regularizer=3" in refused(TypeError, **{name: 3})


# --- kernel_constraint, bias_constraint ----------------------------------------------------------


@cases_of("kernel_constraint")
def test_kernel_constraint(call):
    KERAS.check(call)


@cases_of("bias_constraint")
def test_bias_constraint(call):
    KERAS.check(call)


def test_a_constraint_is_applied_after_an_update():
    # There is no optimizer here yet. What Keras' made is what the constraint makes of the new kernel.
    kernel, gradient, updated = (values(KERAS.update[name]) for name in ("kernel", "gradient", "updated"))
    layer = built(kernel_constraint=KERAS.update["constraint"])
    stepped = kernel - np.float32(KERAS.update["rate"]) * gradient
    assert_within_bound(layer.kernel_constraint(stepped), updated, abs(updated), 3 + 6, "float32")


def test_a_constraint_is_a_function_of_the_unprojected_weight():
    # "must take as input the unprojected variable and must return the projected variable"; no forward pass
    # and no assignment applies it.
    def halved(weight):
        return weight / 2

    weights = [KERAS.array("weight", (3, 2, 3)), KERAS.array("weight", (2,))]
    free = built(weights=weights)
    held = built(weights=weights, kernel_constraint=halved, bias_constraint="non_neg")
    assert held.kernel_constraint is halved
    np.testing.assert_array_equal(held(x_of()), free(x_of()))
    np.testing.assert_array_equal(held.kernel, free.kernel)
    np.testing.assert_array_equal(held.kernel_constraint(held.kernel), free.kernel / 2)
    assert held.bias_constraint == constraints.NonNeg()


@pytest.mark.parametrize(
    ("old", "new"), [("maxnorm", "MaxNorm"), ("nonneg", "NonNeg"), ("unitnorm", "UnitNorm")]
)
def test_the_older_names_of_constraints_are_known(old, new):
    assert KERAS.seen("kernel_constraint", old)["raises"] == ["ValueError", "making"]
    assert make(kernel_constraint=old).kernel_constraint == getattr(constraints, new)()


# --- kwargs --------------------------------------------------------------------------------------


@cases_of("kwargs")
def test_kwargs(call):
    KERAS.check(call)


def test_a_model_takes_the_shape_of_its_first_layer():
    model = Sequential([make(input_shape=(None, 3), strides=2)])
    assert (model.input_shape, model.output_shape) == ((None, None, 3), (None, None, 2))
    # Keras 3 has given up these; TensorFlow's page has them.
    for settings in ({"input_shape": (4, 3), "batch_size": 2}, {"batch_input_shape": (2, 4, 3)}):
        assert Sequential([make(**settings)]).output_shape == (2, 6, 2)


def test_a_policy_is_a_dtype():
    policy = {"module": "keras", "class_name": "DTypePolicy", "config": {"name": "float64"}}
    assert make(dtype=policy).dtype == "float64"
    for mixed in ("mixed_float16", {**policy, "config": {"name": "mixed_float16"}}):
        assert "Half types are summed in float32" in refused(dtype=mixed)


@pytest.mark.parametrize("name", ["", "up/down", 3])
def test_a_name_is_a_word_without_a_slash(name):
    assert f"Received name={name!r}" in refused(name=name)


def test_a_name_is_made_of_the_class_when_none_is_given():
    first, second = make().name, make().name
    assert first.startswith("conv1d_transpose")
    assert second.startswith("conv1d_transpose_")


def test_weights_are_the_first_values():
    kernel = KERAS.array("weight", (3, 2, 3))
    layer = make(weights=[kernel], use_bias=False)
    layer(x_of())
    np.testing.assert_array_equal(layer.kernel, kernel.astype("float32"))


@pytest.mark.parametrize("name", ["input_dim", "autocast", "implementation", "colour"])
def test_other_keywords_are_refused(name):
    assert f"unexpected keyword argument '{name}'" in refused(TypeError, **{name: 1})


def test_groups_are_ours():
    assert KERAS.seen("kwargs", "groups")["raises"] == ["ValueError", "making"]
    layer = built(groups=2, filters=4, shape=(2, 4, 4))
    assert layer.kernel.shape == (3, 2, 4)
    assert "groups" not in make().get_config()  # Keras' from_config would refuse it
    assert layer.get_config()["groups"] == 2


# --- input and output shape ----------------------------------------------------------------------


@cases_of("input shape")
def test_input_shape(call):
    KERAS.check(call)


@cases_of("output shape")
def test_output_shape(call):
    KERAS.check(call)


@pytest.mark.parametrize("steps", [4, None])
@pytest.mark.parametrize("samples", [7, None])
def test_shapes_in_both_formats(samples, steps):
    new_steps = None if steps is None else 9
    last, first = make(strides=2), make(strides=2, data_format="channels_first")
    assert last.compute_output_shape((samples, steps, 3)) == (samples, new_steps, 2)
    assert first.compute_output_shape((samples, 3, steps)) == (samples, 2, new_steps)


def test_input_is_a_3d_tensor():
    # Keras finds out at the call, and of four axes by an IndexError.
    for shape in [(4, 3), (3,), (2, 2, 4, 3)]:
        assert KERAS.seen("input shape", str(shape))["raises"][1] == "calling"
        for use in (make().build, make().compute_output_shape, lambda shape: make()(np.ones(shape))):
            with pytest.raises(ValueError, match="dimensions"):
                use(shape)


def test_the_number_of_channels_is_known():
    for shape, data_format in [((2, 4, None), "channels_last"), ((2, None, 4), "channels_first")]:
        layer = make(data_format=data_format)
        for use in (layer.build, layer.compute_output_shape):
            with pytest.raises(ValueError, match="Expected a known number of channels"):
                use(shape)


def test_no_steps_make_no_steps():
    # By the formulas, 0 steps make kernel_size - strides. There is nothing that they could come from.
    assert KERAS.seen("input shape", "(2, 0, 3)")["output"]["shape"] == [2, 2, 2]
    assert make().compute_output_shape((2, 0, 3)) == (2, 0, 2)
    assert built()(np.ones((2, 0, 3))).shape == (2, 0, 2)


# --- returns, raises, example --------------------------------------------------------------------


def test_it_returns_activation_of_convolution_plus_bias():
    layer = built(strides=2, activation="tanh", bias_initializer="ones")
    y = layer(x_of())
    assert y.ndim == 3
    bare = gpuconv.conv1d_transpose(x_of(), layer.kernel, strides=2)
    np.testing.assert_array_equal(y, np.tanh(bare + layer.bias))


def test_strides_and_dilation_are_not_both_above_1():
    assert KERAS.seen("dilation_rate", "with-strides")["raises"] == ["ValueError", "making"]
    assert "Received strides=2, dilation_rate=3" in refused(strides=2, dilation_rate=3)


def test_the_example_of_the_page(capsys):
    x = np.random.default_rng(0).random((4, 10, 128))
    y = layers.Conv1DTranspose(32, 3, 2, activation="relu")(x)
    print(y.shape)
    assert capsys.readouterr().out == "(4, 21, 32)\n"
    assert KERAS.seen("output shape", "example")["output"] == [4, 21, 32]


# --- methods and attributes ----------------------------------------------------------------------

#: What Keras' own answer is not ours, and why.
OTHER_METHODS = {
    "set_weights of lists": "lists are taken for arrays",
    "convolution_op": "TensorFlow's page has it; Keras' transposed layers have not",
    "call on four axes": "an IndexError there",
    "call on integers": "there they reach an operation that has none",
    "call on lists": "not a tensor there, no array here",
}


@pytest.mark.parametrize("name", [name for name in KERAS.methods if name not in OTHER_METHODS])
def test_methods_do_as_those_of_keras(name):
    assert methods(gpuconv)[name] == KERAS.methods[name]


def test_methods_that_do_otherwise():
    ours = methods(gpuconv)
    assert {name: ours[name] for name in OTHER_METHODS} == {
        "set_weights of lists": {"returns": "[(3, 2, 3), (2,)]"},
        "convolution_op": {"returns": "(2, 6, 2)"},
        "call on four axes": {"raises": "ValueError"},
        "call on integers": {"returns": "'float32'"},
        "call on lists": {"raises": "TypeError"},
    }
    assert all(ours[name] != KERAS.methods[name] for name in OTHER_METHODS)


@pytest.mark.parametrize("entry", KERAS.configs, ids=[entry["settings"]["name"] for entry in KERAS.configs])
def test_get_config_is_that_of_keras(entry):
    made = Conv1DTranspose(**entry["settings"]).get_config()
    read = Conv1DTranspose.from_config(entry["config"]).get_config()
    assert made == read
    assert without_new_keys(made) == without_new_keys(entry["config"])
    assert list(made)[:3] == list(entry["config"])[:3] == ["name", "trainable", "dtype"]


def without_new_keys(config):
    """`config` without what only Keras since 3.15 knows, and we write where it says something."""
    if not isinstance(config, dict):
        return config
    fans = ("input_axes", "output_axes")
    return {name: without_new_keys(value) for name, value in config.items() if name not in fans}


def test_weights_are_the_kernel_and_the_bias():
    layer = built(seed=1)
    assert [w is p for w, p in zip(layer.weights, (layer.kernel, layer.bias), strict=True)] == [True, True]
    assert layer.count_params() == 3 * 2 * 3 + 2
    before = layer.get_weights()
    layer.set_weights([weight + 1 for weight in before])
    for now, then in zip(layer.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then + 1)


#: Public attributes that Keras' layer has and ours has not.
ABSENT = {
    "of graphs, which are not made here": [
        "input",
        "output",
        "symbolic_call",
        "compute_output_spec",
        "input_spec",
    ],
    "of variables: weights are arrays": [
        *("variables", "trainable_variables", "non_trainable_variables", "metrics_variables", "add_variable"),
        *("variable_dtype", "path", "stateless_call"),
    ],
    "of training: there is none yet": ["add_loss", "add_metric", "metrics", "rematerialized_call"],
    "of masks": ["compute_mask", "supports_masking"],
    "of policies: there is one dtype": ["autocast", "compute_dtype", "dtype_policy", "input_dtype"],
    "of quantization": ["quantization_mode", "quantize", "quantized_build", "quantized_call"],
    "of saving": ["build_from_config", "get_build_config", "load_own_variables", "save_own_variables"],
    "of compilers and signatures": ["call_signature_parameters", "supports_jit"],
    "called ndim": ["rank"],
}


def test_which_attributes_are_not_there():
    absent = {name for names in ABSENT.values() for name in names}
    assert set(KERAS.public) - set(dir(built())) == absent
    for name in absent:
        assert not hasattr(built(), name)


# --- the file ------------------------------------------------------------------------------------


def test_the_walk_was_in_the_order_of_the_page():
    assert list(KERAS.cases) == WALKED
    assert WALKED[: len(SIGNATURE)] == list(SIGNATURE)


@pytest.mark.parametrize("call", KERAS.differences())
def test_what_differs_on_purpose_differs_still(call):
    with pytest.raises(AssertionError):
        KERAS.check(call)


@pytest.fixture(scope="module")
def keras():
    found = keras_3()
    if found is None:
        pytest.skip("Keras 3 and JAX are not installed, its results are read from a file: gpuconv[peers]")
    if found[0].backend.backend() != "jax":
        pytest.skip("Keras is already running on another backend than JAX")
    return found[0]


@pytest.mark.parametrize(
    ("section", "name"),
    [
        ("padding", "same-k3-s2"),
        ("output_padding", "valid-k5-s3-p2"),
        ("dilation_rate", "same-k4-d2"),
        ("activation", "gelu"),
        ("activity_regularizer", "all-three"),
        ("kernel_size", "(3, 3)"),
    ],
)
def test_the_file_is_what_keras_does(keras, section, name):
    call = KERAS.cases[section][name]
    KERAS.compare(observe(keras, call, KERAS.array), call)
