"""MATLAB's page of transposedConv1dLayer, argument by argument from top to bottom.

https://www.mathworks.com/help/deeplearning/ref/transposedconv1dlayer.html. No MATLAB is here: numbers are
those that the page states, or loops' over what it states. Where it contradicts itself, or the toolbox, the
test says which was followed.
"""

import math

import numpy as np
import pytest

from gpuconv.dialects.matlab import (
    TransposedConvolution1DLayer,
    dlarray,
    sgdmupdate,
    transposedConv1dLayer,
)
from tests import oracle

#: The types that the page lists for sizes.
NUMBERS = ["single", "double", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]


def typed(value, name):
    return getattr(np, {"single": "float32", "double": "float64"}.get(name, name))(value)


def full(x, weights, stride):
    """By loops, nothing cropped: x of NumChannels x L, weights of k x NumFilters x NumChannels."""
    length = (x.shape[1] - 1) * stride + len(weights)
    return oracle.conv_transpose(x.T[None], weights, (stride,), (1,), (0,), (length,))[0].T


def data(channels=3, length=10):
    return np.random.default_rng(0).integers(-4, 5, (channels, length)).astype(np.float64)


def made(*sizes, channels=3, **options):
    """A layer with weights of small integers, and these weights."""
    weights = np.random.default_rng(1).integers(-4, 5, (*sizes, channels)).astype(np.float64)
    return transposedConv1dLayer(*sizes, Weights=weights, **options), weights


# --- syntax and examples -------------------------------------------------------------------------

# The words are the page's; what lies between them is not legible there, and is as MATLAB prints other layers.
DISPLAY = """\
  TransposedConvolution1DLayer with properties:

            Name: ''

   Hyperparameters
      FilterSize: 11
     NumChannels: 'auto'
      NumFilters: 96
          Stride: 4
    CroppingMode: 'manual'
    CroppingSize: [0 0]

   Learnable Parameters
         Weights: []
            Bias: []

  Use properties method to see a list of all properties."""


def test_the_example():
    layer = transposedConv1dLayer(11, 96, Stride=4)
    assert repr(layer) == str(layer) == DISPLAY
    assert isinstance(layer, TransposedConvolution1DLayer)
    # With 3 channels and 10 samples: 96 filters, 9 * 4 + 11 samples.
    assert layer.predict(np.ones((3, 10)), "CT").shape == (96, 47)
    learned = DISPLAY.replace("'auto'", "3").replace("Weights: []", "Weights: [11x96x3 single]")
    assert repr(layer) == learned.replace("Bias: []", "Bias: [1x96 single]")


def test_the_list_of_all_properties_that_the_display_speaks_of():
    """The page's copy of the display says this; MATLAB of today has a link, "Show all properties"."""
    assert transposedConv1dLayer(11, 96).properties() == [
        *("Name", "FilterSize", "NumChannels", "NumFilters", "Stride", "CroppingMode", "CroppingSize"),
        *("WeightsInitializer", "BiasInitializer", "Weights", "Bias"),
        *("WeightLearnRateFactor", "BiasLearnRateFactor", "WeightL2Factor", "BiasL2Factor"),
    ]


# --- input arguments -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", NUMBERS)
def test_filter_size_is_a_positive_integer(name):
    layer = transposedConv1dLayer(typed(11, name), 96)
    assert layer.FilterSize == 11
    assert type(layer.FilterSize) is int
    with pytest.raises(ValueError, match="filterSize"):
        transposedConv1dLayer(typed(0, name), 96)


@pytest.mark.parametrize("name", NUMBERS)
def test_num_filters_is_a_positive_integer_and_the_channels_of_the_output(name):
    layer = transposedConv1dLayer(11, typed(96, name))
    assert layer.NumFilters == 96
    assert layer.predict(data(), "CT").shape[0] == 96
    with pytest.raises(ValueError, match="numFilters"):
        transposedConv1dLayer(11, typed(0, name))


# --- name-value arguments ------------------------------------------------------------------------


def test_the_order_of_the_pairs_does_not_matter():
    first = transposedConv1dLayer(11, 96, Stride=4, Name="up")
    assert repr(first) == repr(transposedConv1dLayer(11, 96, Name="up", Stride=4))


@pytest.mark.parametrize("name", NUMBERS)
def test_stride_is_the_upsampling_factor(name):
    assert transposedConv1dLayer(3, 2).Stride == 1
    layer, weights = made(3, 2, Stride=typed(4, name))
    assert layer.Stride == 4
    np.testing.assert_array_equal(layer.predict(data(), "CT"), full(data(), weights, 4))


@pytest.mark.parametrize("length", [1, 2, 10])
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 8, 11])
def test_cropping_same_makes_input_size_times_stride(size, stride, length):
    """An equal amount from both sides; the extra one of an odd amount from the right.

    Where the filter is shorter than the stride there is nothing to crop, and the page is silent: as the
    toolbox computes it, zeros on the right fill up what is missing.
    """
    x = data(3, length)
    layer, weights = made(size, 2, Stride=stride, Cropping="same")
    assert layer.CroppingMode == "same"
    y = layer.predict(x, "CT")
    assert y.shape == (2, length * stride)
    whole, amount = full(x, weights, stride), size - stride
    if amount < 0:
        exact = np.pad(whole, ((0, 0), (0, -amount)))
    else:
        exact = whole[:, amount // 2 : whole.shape[1] - (amount + 1) // 2]
    np.testing.assert_array_equal(y, exact)


@pytest.mark.parametrize("name", NUMBERS)
def test_cropping_by_numbers(name):
    """One number for both edges, or [l r]. CroppingMode becomes 'manual'.

    The page has a "nonnegative integer" in its summary and "a positive integer" below; its default is 0.
    """
    assert transposedConv1dLayer(5, 2).CroppingSize == (0, 0)
    for crop, left, right in [(typed(2, name), 2, 2), ([typed(1, name), typed(3, name)], 1, 3), (0, 0, 0)]:
        layer, weights = made(5, 2, Stride=2, Cropping=crop)
        assert (layer.CroppingMode, layer.CroppingSize) == ("manual", (left, right))
        whole = full(data(), weights, 2)
        y = layer.predict(data(), "CT")
        np.testing.assert_array_equal(y, whole[:, left : whole.shape[1] - right])


def test_num_channels_is_found_from_the_data_or_must_match_it():
    layer = transposedConv1dLayer(11, 96)
    assert layer.NumChannels == "auto"
    layer.predict(data(3), "CT")
    assert layer.NumChannels == 3
    layer = transposedConv1dLayer(11, 96, NumChannels=16)  # after a layer of 16 filters
    assert layer.predict(data(16), "CT").shape[0] == 96
    with pytest.raises(ValueError, match="NumChannels=16"):
        layer.predict(data(3), "CT")


def initialized(**options):
    layer = transposedConv1dLayer(20, 30, **options)
    layer.predict(np.zeros((40, 3), np.float32), "CT")
    return np.asarray(layer.Weights, np.float64), np.asarray(layer.Bias, np.float64)


N, NUM_IN, NUM_OUT = 20 * 30 * 40, 20 * 40, 20 * 30


@pytest.mark.parametrize(
    ("name", "variance", "kurtosis"),
    [
        ("glorot", 2 / (NUM_IN + NUM_OUT), 1.8),
        ("he", 2 / NUM_IN, 3),
        ("narrow-normal", 0.01**2, 3),
        ("narrownormal", 0.01**2, 3),  # as the page has it, which loses hyphens
    ],
)
def test_weights_initializer_draws(name, variance, kurtosis):
    """Mean zero and the stated variance, both within 6 standard errors; glorot uniform, the others normal."""
    weights, _ = initialized(WeightsInitializer=name)
    assert abs(weights.mean()) < 6 * math.sqrt(variance / N)
    assert abs(np.mean(weights**2) / variance - 1) < 6 * math.sqrt((kurtosis - 1) / N)
    fourth = np.mean(weights**4) / np.mean(weights**2) ** 2
    assert abs(fourth - kurtosis) < 6 * math.sqrt(24 / N)


def test_weights_initializer_is_glorot_unless_said():
    assert transposedConv1dLayer(11, 96).WeightsInitializer == "glorot"
    assert np.abs(initialized()[0]).max() <= np.float32(math.sqrt(6 / (NUM_IN + NUM_OUT)))


def test_weights_initializer_of_one_value_or_a_function():
    assert (initialized(WeightsInitializer="zeros")[0] == 0).all()
    assert (initialized(WeightsInitializer="ones")[0] == 1).all()
    sizes = []

    def func(sz):
        sizes.append(sz)
        return np.full(sz, 7.0)

    assert (initialized(WeightsInitializer=func)[0] == 7).all()
    assert sizes == [(20, 30, 40)]


def test_the_layer_only_initializes_weights_that_are_empty():
    def func(sz):
        pytest.fail(f"called for {sz}")

    layer, weights = made(3, 2, WeightsInitializer=func)
    layer.predict(data(), "CT")
    np.testing.assert_array_equal(layer.Weights, weights)


def test_bias_initializer():
    assert transposedConv1dLayer(11, 96).BiasInitializer == "zeros"
    assert (initialized()[1] == 0).all()
    assert (initialized(BiasInitializer="ones")[1] == 1).all()
    layer = transposedConv1dLayer(1, 20_000, BiasInitializer="narrow-normal")
    layer.predict(np.zeros((1, 1), np.float32), "CT")
    assert layer.Bias.shape == (1, 20_000)
    assert abs(np.mean(np.square(layer.Bias, dtype=float)) / 1e-4 - 1) < 6 * math.sqrt(2 / 20_000)
    sizes = []
    initialized(BiasInitializer=lambda sz: (sizes.append(sz), np.zeros(sz))[1])
    assert sizes == [(1, 30)]
    # The page lists neither for a bias.
    for name in ("glorot", "he"):
        with pytest.raises(ValueError, match="BiasInitializer"):
            transposedConv1dLayer(11, 96, BiasInitializer=name)


def test_the_layer_only_initializes_a_bias_that_is_empty():
    layer, _ = made(3, 2, Bias=[[5.0, 6.0]], BiasInitializer="ones")
    layer.predict(data(), "CT")
    np.testing.assert_array_equal(layer.Bias, [[5, 6]])


@pytest.mark.parametrize("name", ["single", "double"])
def test_weights_are_filter_size_by_num_filters_by_num_channels(name):
    weights = np.arange(24).reshape(4, 2, 3).astype(name)
    layer = transposedConv1dLayer(4, 2, Weights=weights)
    assert layer.NumChannels == 3
    assert layer.Weights.dtype == weights.dtype
    np.testing.assert_array_equal(layer.predict(data().astype(name), "CT"), full(data(), weights, 1))
    assert f"Weights: [4x2x3 {name}]" in repr(layer)
    for empty in (None, [], np.zeros((0, 0))):
        assert transposedConv1dLayer(4, 2, Weights=empty).Weights is None


@pytest.mark.parametrize("name", ["single", "double"])
def test_bias_is_1_by_num_filters(name):
    bias = np.array([[100.0, -100.0]], name)
    layer, weights = made(4, 2, Bias=bias)
    y = layer.predict(data().astype(name), "CT")
    np.testing.assert_array_equal(y, full(data(), weights, 1) + bias.T)
    assert f"Bias: [1x2 {name}]" in repr(layer)
    assert transposedConv1dLayer(4, 2, Bias=[]).Bias is None


def stepped(g=0.0, **options):
    """Weights and Bias, all 1, after one step with gradients `g` at a rate of 0.5 and L2 of 0.01."""
    layer = transposedConv1dLayer(2, 1, Weights=np.ones((2, 1, 1)), Bias=np.ones(1), **options)
    grads = {"Weights": np.full((2, 1, 1), g), "Bias": np.full((1, 1), g)}
    layer, _ = sgdmupdate(layer, grads, None, 0.5, L2Regularization=0.01 if g == 0 else 0)
    return layer.Weights[0, 0, 0], layer.Bias[0, 0]


@pytest.mark.parametrize("name", NUMBERS)
def test_learn_rate_factors_multiply_the_global_rate(name):
    """In MATLAB ``trainingOptions`` has the global rate; here it is an argument of the update."""
    assert stepped(0.25) == (1 - 0.125, 1 - 0.125)
    assert stepped(0.25, WeightLearnRateFactor=typed(2, name)) == (1 - 0.25, 1 - 0.125)
    assert stepped(0.25, BiasLearnRateFactor=typed(2, name)) == (1 - 0.125, 1 - 0.25)
    assert stepped(0.25, WeightLearnRateFactor=0, BiasLearnRateFactor=0) == (1, 1)


@pytest.mark.parametrize("name", NUMBERS)
def test_l2_factors_multiply_the_global_regularization(name):
    """In MATLAB ``trainingOptions`` has the global factor. By default 1 for weights and 0 for biases."""
    assert stepped() == pytest.approx((1 - 0.005, 1), rel=1e-15)
    assert stepped(WeightL2Factor=typed(2, name)) == pytest.approx((1 - 0.01, 1), rel=1e-15)
    assert stepped(BiasL2Factor=typed(2, name)) == pytest.approx((1 - 0.005, 1 - 0.01), rel=1e-15)


def test_factors_are_nonnegative_scalars():
    layer = transposedConv1dLayer(11, 96)
    factors = [name for name in layer.properties() if name.endswith("Factor")]
    assert [getattr(layer, name) for name in factors] == [1, 1, 1, 0]
    for name in factors:
        for wrong in (-1, [1, 2], "1"):
            with pytest.raises((TypeError, ValueError), match=f"Received {name}="):
                transposedConv1dLayer(11, 96, **{name: wrong})


def test_name():
    assert transposedConv1dLayer(11, 96).Name == ""
    assert "Name: 'up'" in repr(transposedConv1dLayer(11, 96, Name="up"))


# --- algorithms ----------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_it_is_the_transpose_of_the_matrix_of_a_convolution(stride):
    """The page's ``Y = C' * X + B``, with the rows of C that a convolution of this stride slides over."""
    x, weights = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 10.0, 100.0])
    C = np.zeros((4, 3 * stride + 3))
    for i in range(4):
        C[i, i * stride : i * stride + 3] = weights
    layer = transposedConv1dLayer(3, 1, Stride=stride, Weights=weights, Bias=[[5.0]])
    np.testing.assert_array_equal(layer.predict(x[None], "CT"), (C.T @ x + 5)[None])


def test_it_pads_by_the_filter_size_less_one():
    """The page also describes a sliding over padded input: it is that for a stride of 1, taps reversed."""
    x, weights = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 10.0, 100.0])
    padded = np.pad(x, 2)
    slid = [padded[i : i + 3] @ weights[::-1] for i in range(6)]
    layer = transposedConv1dLayer(3, 1, Weights=weights)
    np.testing.assert_array_equal(layer.predict(x[None], "CT"), [slid])


# The tables of formats lost their cells on the page. Its prose has CBT, SCB and SCBT; the toolbox's exporter
# to TensorFlow lists these and, for dlnetwork, CT, SC and SCT.
@pytest.mark.parametrize(
    ("labels", "upsampled"),
    [("CBT", "T"), ("SCB", "S"), ("SCBT", "S"), ("CT", "T"), ("SC", "S"), ("SCT", "S")],
)
def test_the_dimension_that_is_upsampled_depends_on_the_format(labels, upsampled):
    sizes = {"S": 6, "C": 3, "B": 2, "T": 5}
    X = dlarray(np.ones([sizes[label] for label in labels], np.float32), labels)
    Y = transposedConv1dLayer(4, 7, Stride=2, Cropping="same").predict(X)
    assert Y.dims() == labels
    after = {**sizes, "C": 7, upsampled: 2 * sizes[upsampled]}
    assert Y.size() == tuple(after[label] for label in labels)


@pytest.mark.parametrize("labels", ["SSCB", "SSCBT", "CB", "C", "CU", "SCBU", "T"])
def test_no_other_format_is_taken(labels):
    with pytest.raises(ValueError, match=f"format '{labels}'"):
        transposedConv1dLayer(4, 7).predict(dlarray(np.ones((2,) * len(labels)), labels))


def test_a_format_is_a_string_of_the_five_characters():
    X = dlarray(np.ones((28, 28, 3, 5)), "SSCB")  # the page's batch of images
    assert X.dims() == "SSCB"
    for wrong in ("SSCBX", "sscb", "SCCB"):
        with pytest.raises(ValueError, match=f"fmt='{wrong}'"):
            dlarray(np.ones((28, 28, 3, 5)), wrong)
