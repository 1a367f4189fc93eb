"""The page of tf.keras.layers.Conv1DTranspose (2.9, and the later page of TensorFlow 2), from top to bottom.

Each argument's cases are what tf_keras did with them (tests/make_documented.py); ours must do the same. Where
it does something else on purpose, DIFFERING says why, and a test what happens instead. Where page and system
contradict each other, a comment says which was followed.
"""

import inspect
import json

import numpy as np
import pytest

import gpuconv
from gpuconv import constraints, initializers, layers, regularizers
from gpuconv.layers import Conv1DTranspose, Layer, Sequential
from tests.bounds import assert_within_bound
from tests.documented import Record, values
from tests.make_documented import (
    ACTIVATIONS,
    EXTRA,
    LENGTHS,
    SHAPE,
    USUAL,
    keras_2,
    methods,
    observe,
    signature,
)
from tests.reference import transposed_axis

NUMBER = "no number at all is a TypeError with us, there a ValueError"
WHOLE = "integers of NumPy and integral floats, R's numbers, are integers"
LATER = "of Keras 3, which this Keras does not know yet"
DIFFERING = {
    "filters": {"2.5": "TensorFlow cuts it to 2"},
    "kernel_size": {"3.0": WHOLE, "numpy": WHOLE, "None": NUMBER},
    "strides": {"2.0": WHOLE, "numpy": WHOLE, "None": NUMBER},
    "padding": {
        "'causal'": "an AssertionError at the call; the page's ValueError was followed",
        "'Causal'": "likewise",
        "None": "an AttributeError of a method that None has not",
        "1": "crops of any size are more than the page has",
        "a-pair": "likewise; there it fails at the call",
    },
    "output_padding": {
        "wrong-1.0": WHOLE,
        "numpy": WHOLE,
        "same-k4-s2-p0": "TensorFlow's own operation refuses the length that its layer asks it for",
    },
    "data_format": {"3": "an AttributeError of a method that 3 has not"},
    "dilation_rate": {"2.0": WHOLE, "None": NUMBER},
    "activation": {
        "hard_sigmoid": "clip(0.2 x + 0.5, 0, 1) there; Keras 3's relu6(x + 3) / 6 was followed",
        "threshold": "an activation here too, but one that needs its numbers",
        **dict.fromkeys(["celu", "glu", "hard_shrink", "hard_silu", "hard_swish", "hard_tanh"], LATER),
        **dict.fromkeys(["log_sigmoid", "soft_shrink", "sparse_plus", "sparse_sigmoid", "sparsemax"], LATER),
        **dict.fromkeys(["squareplus", "tanh_shrink"], LATER),
    },
    "kernel_initializer": {"a-number": "a TypeError with us, as everything of a wrong kind"},
    "bias_initializer": {
        "a-number": "likewise",
        "None": "draws from glorot_uniform there; the page has no None, Keras 3's page says zeros",
    },
    **{
        f"{what}_regularizer": {
            "l1_l2": "L1L2(0.01, 0.01) there; Keras 3 refuses the name, and so do we",
            "l1l2": "a TypeError at the call, 2.12 a ValueError; Keras 3's factors of 0 were followed",
            "l3": "a TypeError at the call, 2.12 a ValueError, which was followed",
        }
        for what in ("kernel", "bias", "activity")
    },
    "kwargs": {
        "batch_input_shape-and-input_shape": "the former wins there, whatever the latter says",
        "input_dim": "one more spelling of input_shape, which makes no sense for two axes",
        "name-with-slash": "a scope of names there; Keras 3 refuses it",
        "name-empty": "no name at all",
        "name-number": "a TypeError there, a ValueError in Keras 3, which was followed",
        "dtype-mixed_float16": "half types are summed in float32 as they are",
        "dtype-flt": "a TypeError there, a ValueError in Keras 3, which was followed",
        "trainable-False": "a frozen layer has losses there; Keras 3's empty list was followed",
        "groups": "accepted there and ignored by build",
        "autocast": "input is always cast",
        "implementation": "of other layers",
    },
    "input shape": {"(2, 0, 3)": "a length of 0 makes a length of 0"},
}
DIFFERING["activity_regularizer"]["all-three-frozen"] = DIFFERING["kwargs"]["trainable-False"]
TF = Record("tf.json", DIFFERING)


def make(**settings):
    return Conv1DTranspose(**{**USUAL, **settings})


def built(shape=SHAPE, **settings):
    layer = make(**settings)
    layer.build(shape)
    return layer


def x_of(shape=SHAPE):
    return TF.array("x", shape).astype(np.float32)


def refused(error=ValueError, **settings):
    """The message with which the constructor refuses."""
    with pytest.raises(error) as caught:
        make(**settings)
    return str(caught.value)


WALKED = []


def cases_of(section):
    """Parametrize a test with the cases of `section` in which we do as TensorFlow does."""
    WALKED.append(section)
    return pytest.mark.parametrize("call", TF.agreeing(section))


# --- the signature -------------------------------------------------------------------------------

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
    assert TF.signature == SIGNATURE


def test_what_the_page_hides_behind_kwargs_is_given_by_name():
    others = list(inspect.signature(Conv1DTranspose).parameters.values())[len(SIGNATURE) :]
    assert {p.name for p in others} >= {"input_shape", "batch_input_shape", "batch_size", "dtype", "name"}
    assert {p.name for p in others} >= {"trainable", "weights", "groups"}
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


def test_it_has_the_second_name_of_the_page():
    assert layers.Convolution1DTranspose is Conv1DTranspose
    assert TF.methods["second name"] == {"returns": "True"}


def test_it_is_a_layer_and_no_forward_convolution():
    # "Inherits From: Conv1D, Layer, Module". From Conv1D it has groups that it ignores, and a convolution_op
    # that runs the wrong way; ours has what both layers share from a base of both.
    assert issubclass(Conv1DTranspose, Layer)
    assert not issubclass(Conv1DTranspose, layers.Conv1D)


# --- filters -------------------------------------------------------------------------------------


@cases_of("filters")
def test_filters(call):
    TF.check(call)


@pytest.mark.parametrize("filters", [1, 5])
def test_filters_is_the_dimension_of_the_output_space(filters):
    layer = built(filters=filters)
    assert layer(x_of()).shape == (2, 6, filters)
    assert (layer.kernel.shape, layer.bias.shape) == ((3, filters, 3), (filters,))


def test_a_fraction_of_filters_is_refused():
    # TensorFlow makes an int of any float. 4.0 is 4 here too, 2.5 a mistake.
    assert TF.seen("filters", "2.5")["attributes"] == {"filters": 2}
    assert make(filters=4.0).filters == 4
    assert "Received filters=2.5" in refused(filters=2.5)


# --- kernel_size ---------------------------------------------------------------------------------


@cases_of("kernel_size")
def test_kernel_size(call):
    TF.check(call)


# "An integer length of the 1D convolution window": a tuple or a list of one is taken as well, here and there.
@pytest.mark.parametrize("kernel_size", [4, 4.0, (4,), [4], np.int64(4), np.array([4])])
def test_kernel_size_is_the_length_of_the_window(kernel_size):
    layer = built(kernel_size=kernel_size)
    assert layer.kernel_size == (4,)
    assert layer.kernel.shape == (4, 2, 3)


@pytest.mark.parametrize("name", ["kernel_size", "strides", "dilation_rate"])
def test_sizes_of_another_kind_are_refused(name):
    assert TF.seen(name, "None")["raises"] == ["ValueError", "making"]
    assert f"Received {name}=None" in refused(TypeError, **{name: None})
    assert f"Received {name}='2'" in refused(TypeError, **{name: "2"})
    assert f"Received {name}=2.5" in refused(**{name: 2.5})


# --- strides -------------------------------------------------------------------------------------


@cases_of("strides")
def test_strides(call):
    TF.check(call)


def test_strides_is_1_unless_given():
    assert make().strides == (1,)


def test_strides_put_input_samples_so_far_apart():
    layer = built(kernel_size=1, strides=3, weights=[np.ones((1, 1, 1)), [0.0]], filters=1, shape=(1, 4, 1))
    np.testing.assert_array_equal(
        layer(np.arange(1.0, 4).reshape(1, 3, 1)).ravel(), [1, 0, 0, 2, 0, 0, 3, 0, 0]
    )


# --- padding -------------------------------------------------------------------------------------


@cases_of("padding")
def test_padding(call):
    TF.check(call)


@pytest.mark.parametrize(("k", "s"), LENGTHS)
def test_valid_means_no_padding(k, s):
    # The page says no more. TensorFlow appends zeros where the kernel is shorter than the stride; so do we.
    layer = make(kernel_size=k, strides=s)
    assert layer.compute_output_shape((None, 10, 3)) == (None, 10 * s + max(k - s, 0), 2)


@pytest.mark.parametrize(("k", "s"), LENGTHS)
def test_same_makes_the_input_times_the_stride(k, s):
    # The page: "the same height/width dimension as the input". That is so with strides=1 only; TensorFlow,
    # which was followed, makes length * strides.
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


@pytest.mark.parametrize("padding", ["causal", "Causal"])
def test_causal_padding_is_refused_when_the_layer_is_made(padding):
    # The page says ValueError, the code raises an AssertionError, and at the call only. Followed: the page.
    assert TF.seen("padding", repr(padding))["raises"] == ["AssertionError", "calling"]
    assert "Received padding='causal'" in refused(padding=padding)


def test_padding_may_be_crops():
    assert make(padding=1).compute_output_shape(SHAPE) == (2, 4, 2)
    cropped, valid = built(padding=(0, 2), seed=1), built(seed=1)
    np.testing.assert_array_equal(cropped(x_of()), valid(x_of())[:, :-2])
    refused(TypeError, padding=None)


# --- output_padding ------------------------------------------------------------------------------


@cases_of("output_padding")
def test_output_padding(call):
    TF.check(call)


@pytest.mark.parametrize(("k", "s", "p"), EXTRA)
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_the_length_is_the_formula_of_the_page(k, s, p, padding):
    # new_timesteps = ((timesteps - 1) * strides + kernel_size - 2 * padding + output_padding). For the
    # padding of "same" TensorFlow takes kernel_size // 2.
    pad = 0 if padding == "valid" else k // 2
    layer = built(kernel_size=k, strides=s, padding=padding, output_padding=p)
    for steps in (1, 3, 10):
        new_steps = (steps - 1) * s + k - 2 * pad + p
        assert layer.compute_output_shape((None, steps, 3)) == (None, new_steps, 2)
        assert layer(np.zeros((1, steps, 3))).shape == (1, new_steps, 2)


def test_output_padding_of_none_infers_the_length():
    for padding, inferred, none in [("valid", 21, 21), ("same", 20, 19)]:
        lengths = [
            make(strides=2, padding=padding, output_padding=p).compute_output_shape((1, 10, 3))[1]
            for p in (None, 0, 1)
        ]
        assert lengths == [inferred, none, none + 1]  # 0 is not None


@pytest.mark.parametrize(("strides", "p"), [(1, 1), (2, 2), (2, 5), (3, 3)])
def test_output_padding_is_lower_than_the_stride(strides, p):
    assert "Expected output_padding to be less than the stride" in refused(strides=strides, output_padding=p)


def test_a_length_that_tensorflow_does_not_compute():
    # An even kernel with "same" and output_padding=0: the layer says 4 samples, its operation wants 5 or 6.
    call = TF.cases["output_padding"]["same-k4-s2-p0"]
    assert call["seen"]["raises"][1] == "calling"
    assert call["seen"]["shapes"] == [[None, None, 2], [7, 20, 2]]
    ours = TF.ours(call)
    assert [list(shape) for shape in ours["shapes"]] == call["seen"]["shapes"]
    full = values(TF.seen("padding", "valid-k4-s2")["output"])
    length, left = transposed_axis(3, 4, 2, 1, "same", 0)
    magnitude, terms = TF.magnitude(call)
    y = values(ours["output"])
    assert_within_bound(y, full[:, left : left + length], magnitude, terms, "float32")


# --- data_format ---------------------------------------------------------------------------------


@cases_of("data_format")
def test_data_format(call):
    TF.check(call)


def test_channels_first_is_the_same_with_the_axes_exchanged():
    # TensorFlow computes it on a CPU where oneDNN does (x86); ours everywhere.
    first = built(strides=2, data_format="channels_first", seed=1, shape=(2, 3, 4))
    last = built(strides=2, seed=1)
    assert first.kernel.shape == last.kernel.shape
    # Integers: each layout sums in an order of its own.
    x = np.round(8 * x_of())
    for layer in (first, last):
        layer.set_weights([np.round(8 * weight) for weight in layer.get_weights()])
    y = first(np.swapaxes(x, 1, 2))
    assert y.shape == (2, 2, 9)
    np.testing.assert_array_equal(np.swapaxes(y, 1, 2), last(x))


def test_data_format_is_read_from_keras_json_when_it_is_not_given(tmp_path, monkeypatch):
    # "channels_last (default)": TensorFlow's own default is None, which reads this file; so does ours.
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    assert make().data_format == "channels_last"
    (tmp_path / "keras.json").write_text(json.dumps({"image_data_format": "channels_first"}))
    gpuconv.config.set_image_data_format(None)  # reads it again
    assert make().data_format == "channels_first"
    assert make(data_format="channels_last").data_format == "channels_last"


@pytest.mark.parametrize("data_format", ["NWC", "channels_middle", "", 3])
def test_other_data_formats_are_refused(data_format):
    assert f"Received data_format={data_format!r}" in refused(data_format=data_format)


# --- dilation_rate -------------------------------------------------------------------------------


@cases_of("dilation_rate")
def test_dilation_rate(call):
    # "Larger than 1 is not currently supported": TensorFlow computes it where oneDNN or a GPU does. Followed:
    # its numbers.
    TF.check(call)


def test_dilation_puts_taps_so_far_apart():
    dilated = built(dilation_rate=3, weights=[np.ones((3, 1, 1)), [0.0]], filters=1, shape=(1, 4, 1))
    np.testing.assert_array_equal(dilated(np.ones((1, 1, 1))).ravel(), [1, 0, 0, 1, 0, 0, 1])


@pytest.mark.parametrize(("strides", "dilation_rate"), [(2, 1), (1, 2), (1, 1)])
def test_strides_or_dilation_may_be_above_1(strides, dilation_rate):
    layer = make(strides=strides, dilation_rate=dilation_rate)
    reach = 2 * dilation_rate + 1  # the page's formula has kernel_size here, and so no dilation
    assert layer.compute_output_shape((1, 4, 3)) == (1, 3 * strides + reach, 2)


# --- activation ----------------------------------------------------------------------------------

#: Those that the page's keras.activations has.
DOCUMENTED = [
    *(
        "elu",
        "exponential",
        "gelu",
        "hard_sigmoid",
        "linear",
        "relu",
        "selu",
        "sigmoid",
        "softmax",
        "softplus",
    ),
    *("softsign", "swish", "tanh"),
]


@cases_of("activation")
def test_activation(call):
    TF.check(call)


@pytest.mark.parametrize("name", DOCUMENTED)
def test_every_documented_activation_is_applied_after_the_bias(name):
    assert "raises" not in TF.seen("activation", name)
    weights = [TF.array("weight", (3, 2, 3)), TF.array("weight", (2,))]
    layer, plain = built(activation=name, weights=weights), built(weights=weights, use_bias=True)
    np.testing.assert_array_equal(layer(x_of()), gpuconv.activations.get(name)(plain(x_of())))


def test_nothing_is_applied_when_nothing_is_said():
    for activation in (None, "linear"):
        layer, wanted = built(activation=activation, seed=1), built(seed=1)
        np.testing.assert_array_equal(layer(x_of()), wanted(x_of()))


def test_activation_may_be_a_function():
    layer, plain = built(activation=lambda y: 3 * y, seed=1), built(seed=1)
    np.testing.assert_array_equal(layer(x_of()), 3 * plain(x_of()))


def test_hard_sigmoid_is_that_of_keras_3():
    y = values(TF.seen("activation", "None")["output"])
    theirs = values(TF.seen("activation", "hard_sigmoid")["output"])
    np.testing.assert_allclose(theirs, np.clip(0.2 * y + 0.5, 0, 1), rtol=1e-6)
    mine = values(TF.ours(TF.cases["activation"]["hard_sigmoid"])["output"])
    np.testing.assert_allclose(mine, np.clip(y / 6 + 0.5, 0, 1), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", [name for name, why in DIFFERING["activation"].items() if why == LATER])
def test_later_activations_are_known_too(name):
    assert name in ACTIVATIONS
    assert TF.seen("activation", name)["raises"] == ["ValueError", "making"]
    assert np.isfinite(built(activation=name)(x_of())).all()


def test_an_activation_that_is_none_is_refused():
    assert "Received activation='reluu'" in refused(activation="reluu")
    assert "Received activation=3" in refused(TypeError, activation=3)


# --- use_bias ------------------------------------------------------------------------------------


@cases_of("use_bias")
def test_use_bias(call):
    TF.check(call)


def test_without_a_bias_there_is_none():
    layer = built(use_bias=False)
    assert layer.bias is None
    assert [w.shape for w in layer.weights] == [(3, 2, 3)]
    with_bias = built(weights=[layer.kernel, [1.0, -2.0]])
    np.testing.assert_array_equal(with_bias(x_of()), layer(x_of()) + np.float32([1, -2]))


# --- kernel_initializer, bias_initializer --------------------------------------------------------


@cases_of("kernel_initializer")
def test_kernel_initializer(call):
    TF.check(call)


@cases_of("bias_initializer")
def test_bias_initializer(call):
    TF.check(call)


def test_a_kernel_is_drawn_from_glorot_uniform_and_a_bias_is_zeros():
    layer = built(filters=32, kernel_size=5, shape=(1, 2, 64))
    limit = np.sqrt(6 / (5 * 32 + 5 * 64))  # fan_in is of the filters, the last axis but one, as there
    drawn = TF.seen("kernel_initializer", "glorot_uniform")["drawn"][0]
    for most, least in [(layer.kernel.max(), layer.kernel.min()), (drawn["most"], drawn["least"])]:
        assert 0.99 * limit < most <= 1.001 * limit
        assert -1.001 * limit <= least < -0.99 * limit
    assert not layer.bias.any()


def test_none_stands_for_the_default_initializers():
    # The page has no None. For a bias TensorFlow then draws from glorot_uniform: any weight's default there.
    assert TF.seen("bias_initializer", "None")["drawn"][1]["deviation"] > 0
    layer = make(kernel_initializer=None, bias_initializer=None)
    assert isinstance(layer.kernel_initializer, initializers.GlorotUniform)
    assert isinstance(layer.bias_initializer, initializers.Zeros)


def test_an_initializer_may_be_an_object_a_function_or_an_array():
    def count(shape, dtype):
        return np.arange(np.prod(shape), dtype=dtype).reshape(shape)

    given = np.arange(18.0).reshape(3, 2, 3)
    for kernel in (count, given, initializers.get(given)):
        np.testing.assert_array_equal(built(kernel_initializer=kernel).kernel, given)
    constant = initializers.Constant(2.0)
    np.testing.assert_array_equal(built(bias_initializer=constant).bias, [2, 2])


# --- kernel_regularizer, bias_regularizer, activity_regularizer ----------------------------------


@cases_of("kernel_regularizer")
def test_kernel_regularizer(call):
    TF.check(call)


@cases_of("bias_regularizer")
def test_bias_regularizer(call):
    TF.check(call)


@cases_of("activity_regularizer")
def test_activity_regularizer(call):
    TF.check(call)


def test_a_penalty_is_of_the_weights_or_of_the_output():
    kernel, bias = TF.array("weight", (3, 2, 3)), TF.array("weight", (2,))
    layer = built(
        weights=[kernel, bias], dtype="float64", kernel_regularizer="l1", bias_regularizer="l2",
        activity_regularizer=regularizers.L2(0.5), activation="relu",
    )  # fmt: skip
    y = layer(x_of())
    wanted = [0.5 * (y**2).sum() / 2, 0.01 * abs(kernel).sum(), 0.01 * (bias**2).sum()]
    np.testing.assert_allclose(layer.losses, wanted, rtol=1e-13)


def test_the_activity_penalty_is_divided_by_the_samples():
    # Not on the page; both systems do it.
    for samples in (1, 4):
        layer = built(activity_regularizer="l1", kernel_initializer="ones", filters=1)
        layer(np.ones((samples, 1, 3)))
        assert float(layer.losses[0]) == pytest.approx(0.01 * 9, rel=1e-6)


def test_a_regularizer_may_be_a_function():
    layer = built(kernel_regularizer=lambda kernel: 10 * kernel.sum(), kernel_initializer="ones")
    assert layer.losses == [180]


def test_the_name_of_two_penalties_at_once_is_refused():
    # TensorFlow reads L1L2(l1=0.01, l2=0.01); Keras 3 has no such name, and we follow it.
    kernel = TF.array("weight", (3, 2, 3))
    (theirs,) = TF.seen("kernel_regularizer", "l1_l2")["losses"]
    both = regularizers.L1L2(l1=0.01, l2=0.01)
    assert values(theirs) == pytest.approx(float(both(kernel)), rel=1e-6)
    message = refused(kernel_regularizer="l1_l2")
    assert "L1L2(l1=0.01, l2=0.01)" in message
    assert built(kernel_regularizer=both, weights=[kernel, [0.0, 0.0]]).losses == [
        pytest.approx(float(both(kernel)), rel=1e-6)
    ]


def test_the_name_without_a_line_has_factors_of_0():
    assert TF.seen("kernel_regularizer", "l1l2")["raises"][0] in ("TypeError", "ValueError")
    assert built(kernel_regularizer="l1l2").losses == [0]
    assert "Received regularizer='l3'" in refused(bias_regularizer="l3")


# --- kernel_constraint, bias_constraint ----------------------------------------------------------


@cases_of("kernel_constraint")
def test_kernel_constraint(call):
    TF.check(call)


@cases_of("bias_constraint")
def test_bias_constraint(call):
    TF.check(call)


def test_a_constraint_is_applied_after_an_update():
    # There is no optimizer here yet. What TensorFlow's made is what the constraint makes of the new kernel.
    kernel, gradient, updated = (values(TF.update[name]) for name in ("kernel", "gradient", "updated"))
    layer = built(kernel_constraint=TF.update["constraint"])
    stepped = kernel - np.float32(TF.update["rate"]) * gradient
    assert_within_bound(layer.kernel_constraint(stepped), updated, abs(updated), 3 + 6, "float32")


def test_a_constraint_changes_no_forward_pass():
    weights = [TF.array("weight", (3, 2, 3)), TF.array("weight", (2,))]
    free = built(weights=weights)
    held = built(weights=weights, kernel_constraint="non_neg", bias_constraint=lambda bias: 0 * bias)
    np.testing.assert_array_equal(held(x_of()), free(x_of()))
    np.testing.assert_array_equal(held.kernel, free.kernel)
    assert not held.bias_constraint(held.bias).any()


@pytest.mark.parametrize(
    ("old", "new"), [("maxnorm", "MaxNorm"), ("nonneg", "NonNeg"), ("unitnorm", "UnitNorm")]
)
def test_the_older_names_of_constraints_are_known(old, new):
    assert make(kernel_constraint=old).kernel_constraint == getattr(constraints, new)()


# --- **kwargs ------------------------------------------------------------------------------------


@cases_of("kwargs")
def test_kwargs(call):
    TF.check(call)


def test_input_shape_is_for_the_first_layer_of_a_model():
    # "e.g. input_shape=(128, 3) for data with 128 time steps and 3 channels"
    model = Sequential([make(input_shape=(128, 3), strides=2)])
    assert model.built
    assert (model.input_shape, model.output_shape) == ((None, 128, 3), (None, 257, 2))
    assert not Sequential([make()]).built
    free = Sequential([make(input_shape=(None, 3))])
    assert (free.output_shape, free.count_params()) == ((None, None, 2), 20)


def test_the_shape_may_hold_the_samples():
    assert make(input_shape=(4, 3), batch_size=2).batch_input_shape == (2, 4, 3)
    assert make(batch_input_shape=[2, 4, 3]).batch_input_shape == (2, 4, 3)
    assert make(batch_size=2).batch_input_shape is None  # of what?


def test_two_shapes_at_once_are_refused():
    seen = TF.seen("kwargs", "batch_input_shape-and-input_shape")
    assert seen["model"][0] == [2, 4, 3]
    message = refused(batch_input_shape=(2, 4, 3), input_shape=(7, 3))
    assert "batch_input_shape=(2, 4, 3), input_shape=(7, 3)" in message


def test_a_name_is_made_of_the_class_when_none_is_given():
    first, second = make().name, make().name
    assert first.startswith("conv1d_transpose")
    assert second.startswith("conv1d_transpose_")
    for name in ("up/down", "", 3):
        assert f"Received name={name!r}" in refused(name=name)


def test_weights_are_the_first_values():
    kernel, bias = TF.array("weight", (3, 2, 3)), TF.array("weight", (2,))
    layer = make(weights=[kernel, bias])
    layer(x_of())
    np.testing.assert_array_equal(layer.kernel, kernel.astype("float32"))
    np.testing.assert_array_equal(layer.bias, bias.astype("float32"))
    with pytest.raises(ValueError, match="Received shapes"):
        built(weights=[kernel])


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", np.float64, np.dtype("float16")])
def test_dtype_is_of_the_weights_and_of_the_output(dtype):
    layer = built(dtype=dtype)
    assert layer.dtype == np.dtype(dtype).name
    assert {w.dtype for w in layer.weights} | {layer(x_of()).dtype} == {np.dtype(dtype)}


@pytest.mark.parametrize("dtype", ["int32", "mixed_float16", "flt"])
def test_other_dtypes_are_refused(dtype):
    assert f"Received dtype='{dtype}'" in refused(dtype=dtype)


def test_a_frozen_layer_has_no_losses():
    # TensorFlow's has; Keras 3's has not.
    assert len(TF.seen("kwargs", "trainable-False")["losses"]) == 1
    layer = built(trainable=False, kernel_regularizer="l2")
    assert (layer.losses, layer.trainable_weights, len(layer.non_trainable_weights)) == ([], [], 2)


def test_groups_do_split_the_channels():
    # TensorFlow takes the argument for Conv1D's sake and builds a kernel for all channels. Followed: nobody.
    assert TF.seen("kwargs", "groups")["weights"] == [[3, 4, 4], [4]]
    layer = built(groups=2, filters=4, shape=(2, 4, 4))
    assert layer.kernel.shape == (3, 2, 4)
    x = x_of((2, 4, 4))
    one = np.concatenate([x[..., :2], np.zeros_like(x[..., 2:])], axis=-1)
    assert not layer(one)[..., 2:].any()


@pytest.mark.parametrize("name", ["input_dim", "autocast", "implementation", "colour"])
def test_other_keywords_are_refused(name):
    assert f"unexpected keyword argument '{name}'" in refused(TypeError, **{name: 1})


# --- input and output shape ----------------------------------------------------------------------


@cases_of("input shape")
def test_input_shape(call):
    TF.check(call)


@cases_of("output shape")
def test_output_shape(call):
    TF.check(call)


def test_input_is_samples_steps_and_channels():
    for shape in [(4, 3), (3,), (2, 2, 4, 3)]:
        for use in (make().build, make().compute_output_shape, lambda shape: make()(np.ones(shape))):
            with pytest.raises(ValueError, match="dimensions"):
                use(shape)


@pytest.mark.parametrize(
    ("shape", "data_format"), [((2, 4, None), "channels_last"), ((2, None, 4), "channels_first")]
)
def test_the_number_of_channels_is_known(shape, data_format):
    layer = make(data_format=data_format)
    for use in (layer.build, layer.compute_output_shape):
        with pytest.raises(ValueError, match="Expected a known number of channels"):
            use(shape)


def test_no_steps_make_no_steps():
    # By the formulas, 0 steps make kernel_size - strides. There is nothing that they could come from.
    assert TF.seen("input shape", "(2, 0, 3)")["output"]["shape"] == [2, 2, 2]
    assert make().compute_output_shape((2, 0, 3)) == (2, 0, 2)
    assert built()(np.ones((2, 0, 3))).shape == (2, 0, 2)


# --- returns -------------------------------------------------------------------------------------


def test_it_returns_activation_of_convolution_plus_bias():
    layer = built(strides=2, activation="tanh", bias_initializer="ones")
    y = layer(x_of())
    assert y.ndim == 3
    bare = layer.convolution_op(x_of(), layer.kernel)
    np.testing.assert_array_equal(y, np.tanh(bare + layer.bias))


# --- raises --------------------------------------------------------------------------------------


def test_both_errors_of_the_page():
    assert "Received padding='causal'" in refused(padding="causal")
    # 2.9 computed this, or failed in its operation; 2.12 and later do as the page says, and so do we.
    assert TF.seen("dilation_rate", "with-strides")["raises"] == ["ValueError", "making"]
    assert "Received strides=2, dilation_rate=3" in refused(strides=2, dilation_rate=3)


# --- methods and attributes ----------------------------------------------------------------------

#: What TensorFlow's own answer is not ours, and why.
OTHER_METHODS = {
    "set_weights of lists": "lists are taken for arrays",
    "build twice": "there it makes new weights beside the old ones",
    "convolution_op": "there a forward convolution, which this kernel does not fit",
    "call on integers": "there they reach an operation that has none",
    "call on lists": "there a list of inputs; an array is asked for",
}


@pytest.mark.parametrize("name", [name for name in TF.methods if name not in OTHER_METHODS])
def test_methods_do_as_those_of_tensorflow(name):
    assert methods(gpuconv)[name] == TF.methods[name]


def test_methods_that_do_otherwise():
    ours = methods(gpuconv)
    assert {name: ours[name] for name in OTHER_METHODS} == {
        "set_weights of lists": {"returns": "[(3, 2, 3), (2,)]"},
        "build twice": {"raises": "ValueError"},
        "convolution_op": {"returns": "(2, 6, 2)"},
        "call on integers": {"returns": "'float32'"},
        "call on lists": {"raises": "TypeError"},
    }
    assert all(ours[name] != TF.methods[name] for name in OTHER_METHODS)


def test_convolution_op_is_there_to_be_overridden():
    # The page lists it among the methods and says nothing of it. Conv1D's, which it is, runs forward.
    class Doubled(Conv1DTranspose):
        def convolution_op(self, inputs, kernel):
            return super().convolution_op(inputs, 2 * kernel)

    plain, doubled = built(seed=1), Doubled(**USUAL, seed=1)
    np.testing.assert_array_equal(doubled(x_of()), 2 * plain(x_of()))


def test_convolution_op_takes_the_settings_of_the_layer():
    kernel, x = TF.array("weight", (3, 2, 3)), TF.array("x", SHAPE)
    for settings in ({"strides": 2, "padding": "same", "output_padding": 1}, {"dilation_rate": 2}):
        y = make(**settings).convolution_op(x, kernel)
        np.testing.assert_array_equal(y, gpuconv.conv1d_transpose(x, kernel, **settings))


def test_weights_are_the_kernel_and_the_bias():
    layer = built(seed=1)
    assert [w is p for w, p in zip(layer.weights, (layer.kernel, layer.bias), strict=True)] == [True, True]
    assert layer.count_params() == 3 * 2 * 3 + 2
    before = layer.get_weights()
    layer.set_weights([weight + 1 for weight in before])
    for now, then in zip(layer.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then + 1)


@pytest.mark.parametrize("entry", TF.configs, ids=[entry["settings"]["name"] for entry in TF.configs])
def test_we_read_the_config_of_tensorflow(entry):
    theirs = entry["config"]
    ours = Conv1DTranspose.from_config(theirs).get_config()
    assert set(theirs) - set(ours) == {"groups"}  # written when there are more than one
    # A policy in words of Keras 3; numbers that went through a float32; classes in words of Keras 3.
    assert ours.pop("dtype")["config"]["name"] == theirs["dtype"]
    for name, value in ours.items():
        assert simplified(value) == simplified(theirs[name]), name
    assert Conv1DTranspose(**entry["settings"]).get_config()["name"] == theirs["name"]
    made = Conv1DTranspose(**entry["settings"]).get_config()
    assert {name: simplified(value) for name, value in made.items() if name != "dtype"} == {
        name: simplified(value) for name, value in ours.items()
    }


def simplified(value):
    """A config without what the two versions write differently."""
    if isinstance(value, dict) and "class_name" in value:
        settings = {name: simplified(entry) for name, entry in value["config"].items()}
        return value["class_name"], settings
    return float(np.float32(value)) if isinstance(value, float) else value


#: Public attributes that TensorFlow's layer has and ours has not.
ABSENT = {
    "of graphs, which are not made here": [
        *("inbound_nodes", "outbound_nodes", "input", "input_mask", "input_shape", "output", "output_mask"),
        *("output_shape", "get_input_at", "get_input_mask_at", "get_input_shape_at", "get_output_at"),
        *("get_output_mask_at", "get_output_shape_at", "dynamic", "input_spec", "compute_output_signature"),
    ],
    "of variables: weights are arrays": [
        *("variables", "trainable_variables", "non_trainable_variables", "add_variable", "variable_dtype"),
        *("submodules", "name_scope", "with_name_scope"),
    ],
    "of training: there is none yet": [
        "add_loss",
        "add_metric",
        "add_update",
        "metrics",
        "updates",
        "stateful",
    ],
    "of masks": ["compute_mask", "supports_masking"],
    "of policies: there is one dtype": ["compute_dtype", "dtype_policy"],
    "of saving": [
        *(
            "build_from_config",
            "get_build_config",
            "load_own_variables",
            "save_own_variables",
            "finalize_state",
        ),
    ],
    "called ndim": ["rank"],
}


def test_which_attributes_are_not_there():
    absent = {name for names in ABSENT.values() for name in names}
    assert set(TF.public) - set(dir(built())) == absent
    for name in absent:
        assert not hasattr(built(), name)


# --- the file ------------------------------------------------------------------------------------


def test_the_walk_was_in_the_order_of_the_page():
    assert list(TF.cases) == WALKED
    assert WALKED[: len(SIGNATURE)] == list(SIGNATURE)


@pytest.mark.parametrize("call", TF.differences())
def test_what_differs_on_purpose_differs_still(call):
    with pytest.raises((AssertionError, KeyError)):  # a KeyError for weights of other shapes
        TF.check(call)


@pytest.fixture(scope="module")
def tensorflow():
    found = keras_2()
    if found is None:
        pytest.skip("TensorFlow and tf_keras are not installed, their results are read from a file")
    return found[0]


@pytest.mark.parametrize(
    ("section", "name"),
    [
        ("padding", "same-k3-s2"),
        ("output_padding", "valid-k5-s3-p2"),
        ("activation", "gelu"),
        ("activity_regularizer", "all-three"),
        ("kernel_size", "(3, 3)"),
    ],
)
def test_the_file_is_what_tensorflow_does(tensorflow, section, name):
    call = TF.cases[section][name]
    TF.compare(observe(tensorflow, call, TF.array), call)
