"""R's page of layer_conv_1d_transpose, argument by argument from top to bottom.

The page describes R keras 2.13, a wrapper of TensorFlow's Keras 2; what a layer computes is compared with
Keras elsewhere (test_peer_keras.py), here the arguments are.
"""

import inspect

import numpy as np
import pytest

from gpuconv import constraints, initializers, layers, regularizers
from gpuconv.dialects import r
from gpuconv.dialects.r import keras_model_sequential, layer_conv_1d_transpose
from tests import oracle

X = np.random.default_rng(0).standard_normal((4, 10, 3)).astype(np.float32)


def layer_of(**options):
    return layer_conv_1d_transpose(**{"filters": 2, "kernel_size": 3} | options)


def test_usage_has_the_24_arguments_in_order_with_their_defaults():
    arguments = inspect.signature(layer_conv_1d_transpose).parameters
    assert list(arguments) == [
        *("object", "filters", "kernel_size", "strides", "padding", "output_padding", "data_format"),
        *("dilation_rate", "activation", "use_bias", "kernel_initializer", "bias_initializer"),
        *("kernel_regularizer", "bias_regularizer", "activity_regularizer", "kernel_constraint"),
        *("bias_constraint", "input_shape", "batch_input_shape", "batch_size", "dtype", "name"),
        *("trainable", "weights"),
    ]
    said = {"strides": 1, "padding": "valid", "dilation_rate": 1, "use_bias": True}
    said |= {"kernel_initializer": "glorot_uniform", "bias_initializer": "zeros"}
    assert {
        name: argument.default for name, argument in arguments.items() if argument.default is not None
    } == said


# --- object --------------------------------------------------------------------------------------


def test_object_missing_or_null_gives_the_layer():
    assert isinstance(layer_of(), layers.Conv1DTranspose)
    assert isinstance(layer_of(object=None), layers.Conv1DTranspose)


def test_object_a_sequential_model_gives_the_model_with_the_layer():
    model = keras_model_sequential()
    assert layer_conv_1d_transpose(model, 2, 3, input_shape=(10, 3)) is model
    assert layer_conv_1d_transpose(model, 5, 4, strides=2) is model
    assert [layer.filters for layer in model.layers] == [2, 5]
    assert model.output_shape == (None, 26, 5)


def test_object_a_tensor_gives_the_output():
    y = layer_conv_1d_transpose(X, 2, 3, kernel_initializer="ones")
    np.testing.assert_array_equal(y, layer_of(kernel_initializer="ones")(X))


@pytest.mark.parametrize("wrong", [32, "model", [[1.0]], layers.Dropout(0.5)])
def test_object_something_else_is_refused(wrong):
    with pytest.raises(TypeError, match="Expected object to be None, a Sequential or an array"):
        layer_conv_1d_transpose(wrong, 3)


# --- what the layer is ---------------------------------------------------------------------------


def test_filters_is_the_dimensionality_of_the_output_space():
    assert layer_of(filters=7.0)(X).shape == (4, 12, 7)
    assert layer_of(filters=7.0).filters == 7
    with pytest.raises(TypeError, match="Expected filters, which has no default"):
        layer_conv_1d_transpose(kernel_size=3)
    with pytest.raises(ValueError, match="Received filters=2"):
        layer_of(filters=2.5)


@pytest.mark.parametrize("size", [5, 5.0, [5], (5.0,)])
def test_kernel_size_is_an_integer_or_a_list_of_one(size):
    assert layer_of(kernel_size=size)(X).shape == (4, 14, 2)
    with pytest.raises(TypeError, match="Expected kernel_size, which has no default"):
        layer_conv_1d_transpose(filters=3)


@pytest.mark.parametrize("strides", [2, 2.0, [2]])
def test_strides_is_an_integer_or_a_list_of_one(strides):
    assert layer_of(strides=strides)(X).shape == (4, 21, 2)


def test_strides_and_dilation_rate_exclude_each_other():
    with pytest.raises(ValueError, match="strides"):
        layer_of(strides=2, dilation_rate=2)


@pytest.mark.parametrize(("padding", "length"), [("valid", 21), ("same", 20), ("SAME", 20), ("Valid", 21)])
def test_padding_is_valid_or_same_in_any_case(padding, length):
    assert layer_of(padding=padding, strides=2)(X).shape == (4, length, 2)
    with pytest.raises(ValueError, match="causal"):
        layer_of(padding="causal")


@pytest.mark.parametrize("op", [0, 1, 1.0])
def test_output_padding_lengthens_the_output(op):
    # The page's formula, (timesteps - 1) * strides + kernel_size - 2 * padding + output_padding, holds with
    # padding 0 for "valid" and kernel_size // 2 for "same".
    assert layer_of(strides=2, output_padding=op)(X).shape[1] == 9 * 2 + 3 + op
    assert layer_of(strides=2, output_padding=op, padding="same")(X).shape[1] == 9 * 2 + 3 - 2 * 1 + op


def test_output_padding_must_be_lower_than_the_stride_and_null_infers():
    with pytest.raises(ValueError, match="output_padding"):
        layer_of(strides=2, output_padding=2)
    assert layer_of(strides=2, output_padding=None)(X).shape[1] == 21


def test_data_format():
    first = layer_of(data_format="channels_first", kernel_initializer=initializers.Constant(0.5))
    last = layer_of(data_format="channels_last", kernel_initializer=initializers.Constant(0.5))
    np.testing.assert_allclose(np.moveaxis(first(np.moveaxis(X, 2, 1)), 1, 2), last(X), rtol=1e-5, atol=1e-6)
    assert layer_of().data_format == "channels_last"
    with pytest.raises(ValueError, match="data_format"):
        layer_of(data_format="NHWC")


@pytest.mark.parametrize("rate", [3, 3.0, [3]])
def test_dilation_rate_is_an_integer_or_a_list_of_one(rate):
    assert layer_of(dilation_rate=rate)(X).shape == (4, 9 + 7, 2)


def test_activation_is_linear_if_nothing_is_said():
    plain, relu = (layer_of(activation=a, kernel_initializer="ones")(X) for a in (None, "relu"))
    np.testing.assert_array_equal(relu, np.maximum(plain, 0))
    doubled = layer_of(activation=lambda x: 2 * x, kernel_initializer="ones")(X)
    np.testing.assert_array_equal(doubled, 2 * plain)


def test_use_bias():
    assert len(layer_of(use_bias=False, weights=[np.ones((3, 2, 3))])._initial_weights) == 1
    layer = layer_of(use_bias=False)
    layer(X)
    assert layer.bias is None


def test_initializers():
    layer = layer_of(kernel_initializer="ones", bias_initializer=initializers.Constant(3))
    wanted = oracle.conv_transpose(X, np.ones((3, 2, 3)), (1,), (1,), (0,), (12,)) + 3
    np.testing.assert_allclose(layer(X), wanted, rtol=1e-5, atol=1e-5)
    default = layer_of()
    default(X)
    # Glorot: uniform, at most sqrt(6 / (fan_in + fan_out)) with fans of 3 * 2 and 3 * 3.
    assert 0 < abs(default.kernel).max() <= np.sqrt(6 / 15)
    assert not default.bias.any()


def test_regularizers_are_losses():
    layer = layer_of(
        kernel_initializer="ones",
        kernel_regularizer=regularizers.L2(0.5),
        bias_initializer="ones",
        bias_regularizer=lambda w: 0.25 * abs(w).sum(),  # a bare function
        activity_regularizer="l1",
    )
    y = layer(X)
    activity, kernel, bias = map(float, layer.losses)
    assert (kernel, bias) == (0.5 * 18, 0.25 * 2)
    # Keras divides the activity's penalty by the number of samples.
    assert activity == pytest.approx(0.01 * abs(y).sum() / 4, rel=1e-5)


def test_constraints_apply_after_updates_only():
    layer = layer_of(kernel_constraint="non_neg", bias_constraint=lambda w: w * 0, kernel_initializer="ones")
    layer.kernel_initializer = initializers.Constant(-1)
    layer(X)
    assert (layer.kernel == -1).all(), "a forward pass does not project"
    model = layers.Sequential([layer])
    model.compile("sgd")
    model.train_on_batch(X, np.zeros((4, 12, 2), np.float32))
    assert (layer.kernel >= 0).all()
    assert not layer.bias.any()
    assert isinstance(layer_of(kernel_constraint="max_norm").kernel_constraint, constraints.MaxNorm)


# --- the first layer of a model, and the rest ----------------------------------------------------


def test_input_shape_leaves_the_samples_out():
    model = layer_conv_1d_transpose(keras_model_sequential(), 2, 3, input_shape=(128, 3))
    assert model.input_shape == (None, 128, 3)
    assert model.built
    assert layer_conv_1d_transpose(keras_model_sequential(), 2, 3, input_shape=[None, 3.0]).built
    with pytest.raises(ValueError, match="Expected input of 3 dimensions"):
        layer_conv_1d_transpose(keras_model_sequential(), 2, 3, input_shape=784)


def test_batch_input_shape_has_the_samples():
    assert layer_of(batch_input_shape=(10, 32, 3)).batch_input_shape == (10, 32, 3)
    # list(NULL, 32, 3)
    assert layer_of(batch_input_shape=[None, 32, 3]).batch_input_shape == (None, 32, 3)


def test_batch_size_goes_before_input_shape():
    assert layer_of(batch_size=10, input_shape=(32, 3)).batch_input_shape == (10, 32, 3)


def test_dtype():
    layer = layer_of(dtype="float64")
    assert layer(X).dtype == np.float64
    assert layer_of()(X.astype(np.float64)).dtype == np.float32
    # The page lists int32 too. TensorFlow takes it, and then has no kernel for it; here it is refused.
    with pytest.raises(ValueError, match="Received dtype='int32'"):
        layer_of(dtype="int32")


def test_name_is_unique_in_a_model_and_made_up():
    model = layer_conv_1d_transpose(keras_model_sequential(name="m"), 2, 3, name="up")
    assert model.name == "m"
    with pytest.raises(ValueError, match="another 'up'"):
        layer_conv_1d_transpose(model, 2, 3, name="up")
    assert layer_of().name.startswith("conv1d_transpose")


def test_trainable():
    assert layer_of(trainable=None).trainable
    frozen = layer_of(trainable=False)
    frozen(X)
    assert frozen.trainable_weights == []


def test_weights_are_the_initial_ones():
    kernel, bias = np.full((3, 2, 3), 2.0), np.array([5.0, 6.0])
    layer = layer_of(weights=[kernel, bias])
    np.testing.assert_array_equal(layer(np.zeros((1, 4, 3))), np.broadcast_to([5, 6], (1, 6, 2)))
    np.testing.assert_array_equal(layer.get_weights()[0], kernel)
    with pytest.raises(ValueError, match="Expected weights of shapes"):
        layer_of(weights=[kernel])(X)


def test_shapes_of_the_page():
    """3-D tensors: (batch, steps, channels) to (batch, new_steps, filters)."""
    assert layer_of()(X).ndim == 3
    with pytest.raises(ValueError, match="Expected input of 3 dimensions"):
        layer_of()(X[0])


def test_what_the_module_offers():
    assert sorted(r.__all__) == ["keras_model_sequential", "layer_conv_1d_transpose"]
