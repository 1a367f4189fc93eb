"""MATLAB's words: formats, the function, the layer and the updates, against loops written here.

There is no MATLAB to compare with. Lengths and crops are written again below, sums are the oracle's.
"""

import copy
import itertools
import math
import pickle
import random

import numpy as np
import pytest

from gpuconv import initializers
from gpuconv.dialects.matlab import (
    adamupdate,
    dlarray,
    dltranspconv,
    sgdmupdate,
    transposedConv1dLayer,
)
from gpuconv.namespace import to_numpy
from tests import oracle
from tests.test_bad_calls import ones_of, refuses, table


def integers(seed, *shape):
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(np.float64)


def axis_of(length, k, stride, dilation, crop):
    """Output length and left crop, in MATLAB's words."""
    reach = (k - 1) * dilation + 1
    if crop == "same":
        return length * stride, max(0, (reach - stride) // 2)
    return (length - 1) * stride + reach - crop[0] - crop[1], crop[0]


def expected(x, labels, weights, bias, convolved, strides, dilations, crops):
    """The result by loops; `x` in the order of `labels`, weights taps... x F / g x C / g x g."""
    rest = [axis for axis, label in enumerate(labels) if label != "C" and label not in convolved]
    axes = [axis for c in dict.fromkeys(convolved) for axis, label in enumerate(labels) if label == c]
    order = [*rest, *axes, labels.index("C")]
    moved = np.transpose(x, order)
    flat = moved.reshape(-1, *moved.shape[len(rest) :])
    groups = weights.shape[-1]
    kernel = np.concatenate([weights[..., g] for g in range(groups)], axis=-1)
    sizes = zip(flat.shape[1:-1], kernel.shape, strides, dilations, crops, strict=False)
    lengths, left = zip(*itertools.starmap(axis_of, sizes), strict=True)
    y = oracle.conv_transpose(flat, kernel, strides, dilations, left, lengths, groups) + bias
    y = y.reshape(*moved.shape[: len(rest)], *y.shape[1:])
    return np.transpose(y, np.argsort(order))


# --- dlarray -------------------------------------------------------------------------------------


def test_dimensions_are_stored_in_matlabs_order():
    x = integers(0, 5, 4, 3, 2)
    X = dlarray(x, "TSSU")  # the example of MATLAB's page of finddim
    assert X.dims() == "SSTU"
    assert X.finddim("T") == (3,)
    assert X.finddim("S") == (1, 2)
    assert X.finddim("B") == ()
    assert X.size(X.finddim("S")) == (4, 3)
    np.testing.assert_array_equal(X.extractdata(), np.transpose(x, (1, 2, 0, 3)))


def test_size():
    X = dlarray(np.zeros((3, 2, 10)), "CBT")
    assert X.size() == (3, 2, 10)
    assert X.size(3) == 10
    assert X.size(4) == 1
    assert X.size(1, 3) == X.size([1, 3]) == (3, 10)


@pytest.mark.parametrize(
    ("shape", "fmt", "shown"),
    [
        ((3, 2, 10), "CBT", "3(C) x 2(B) x 10(T) dlarray"),
        ((3, 2, 1, 2), "SSTU", "3(S) x 2(S) x 1(T) x 2(U) dlarray"),  # MATLAB's page of stripdims
        ((3, 2, 1, 2), "", "3x2x1x2 dlarray"),
        ((5,), "C", "5(C) x 1(U) dlarray"),
        ((5,), "", "5x1 dlarray"),
        ((), "", "1x1 dlarray"),
    ],
)
def test_a_dlarray_is_shown_as_in_matlab(shape, fmt, shown):
    assert repr(dlarray(np.zeros(shape), fmt)) == shown
    assert repr(dlarray(np.zeros(shape, np.float32), fmt)) == shown.replace("dlarray", "single dlarray")
    assert repr(dlarray(np.zeros(shape, bool), fmt)) == shown.replace("dlarray", "logical dlarray")


def test_formats_longer_and_shorter():
    assert dlarray(np.zeros((3, 2)), "CBT").size() == (3, 2, 1)
    # A U of length 1 at the end goes from the third dimension on.
    assert dlarray(np.zeros((3, 2, 1, 1)), "SCUU").dims() == "SC"
    assert dlarray(np.zeros((3, 1)), "SU").dims() == "SU"
    assert dlarray(np.zeros((3, 1, 4)), "SUU").dims() == "SUU"


def test_labels_replaced_and_stripped():
    x = integers(1, 3, 2, 5)
    X = dlarray(x, "CBT")
    assert dlarray(X).dims() == "CBT"
    assert dlarray(X, "SCB").dims() == "SCB"
    assert X.stripdims().dims() == ""
    assert X.stripdims().stripdims("TBC").size() == (3, 2, 5)  # nothing to order by
    np.testing.assert_array_equal(X.stripdims("TCSB").extractdata(), x.transpose(2, 0, 1)[:, :, None])


def test_numbers_are_doubles():
    assert dlarray([[1, 2], [3, 4]], "CB").extractdata().dtype == np.float64
    assert dlarray(np.float32(3)).extractdata().dtype == np.float32


def test_nothing_is_copied():
    x = np.zeros((3, 2))
    assert np.shares_memory(dlarray(x, "BC").extractdata(), x)


# --- dltranspconv --------------------------------------------------------------------------------

FORMATS = ["CBT", "SCB", "SCBT", "SSCB", "CSS", "SSSC", "SSCU", "BSTC", "UCS"]


@pytest.mark.parametrize("labels", FORMATS)
@pytest.mark.parametrize("groups", [1, 2])
def test_the_function_sums_what_the_loops_sum(labels, groups):
    rng = np.random.default_rng(len(labels) * 7 + groups)
    convolved = "S" * labels.count("S") or "T"
    n = len(convolved)
    for crop in ("same", 0, 1, "pairs"):
        x = integers(3, *(2 * groups if label == "C" else int(rng.integers(2, 5)) for label in labels))
        taps = tuple(rng.integers(3 if n < 3 else 2, 5, n))
        weights = integers(4, *taps, 3, 2, groups)
        bias = integers(5, 3 * groups)
        strides, dilations = tuple(rng.integers(1, 4, n)), tuple(rng.integers(1, 3, n))
        pairs = [(1, 0), (0, 1), (1, 1)][:n]
        crops = pairs if crop == "pairs" else [crop if crop == "same" else (crop, crop)] * n
        y = dltranspconv(
            x,
            weights if groups > 1 else weights[..., 0],
            bias,
            Stride=[int(s) for s in strides],
            DilationFactor=dilations,
            Cropping=[list(ends) for ends in zip(*pairs, strict=True)] if crop == "pairs" else crop,
            DataFormat=labels,
            WeightsFormat=convolved + "CUU"[: 1 + min(groups, 2)],
        )
        exact = expected(x, labels, weights, bias, convolved, strides, dilations, crops)
        np.testing.assert_array_equal(y, exact)


def test_time_is_convolved_where_the_weights_have_it():
    x, weights = integers(0, 4, 3, 2, 5), integers(1, 3, 2, 6, 3)
    X = dlarray(x, "SCBT")
    y = dltranspconv(X, weights, 0, Stride=(1, 2), WeightsFormat="STCU")
    exact = expected(x, "SCBT", weights[..., None], 0, "ST", (1, 2), (1, 1), [(0, 0)] * 2)
    assert y.dims() == "SCBT"
    np.testing.assert_array_equal(y.extractdata(), exact)
    only_space = dltranspconv(X, weights[:, 0], 0, Stride=2)
    exact = expected(x, "SCBT", weights[:, 0, ..., None], 0, "S", (2,), (1,), [(0, 0)])
    np.testing.assert_array_equal(only_space.extractdata(), exact)


def test_weights_go_by_their_labels():
    X, weights = dlarray(integers(0, 3, 2, 5), "CBT"), integers(1, 4, 6, 3)
    exact = dltranspconv(X, weights, 0, WeightsFormat="TCU").extractdata()
    swapped = dlarray(weights.transpose(1, 2, 0), "CUT")
    np.testing.assert_array_equal(dltranspconv(X, swapped, 0).extractdata(), exact)
    other = dltranspconv(X, weights.transpose(2, 1, 0), 0, WeightsFormat="UCT")
    np.testing.assert_array_equal(other.extractdata(), exact)


def test_weights_may_lack_lengths_of_1_at_the_end():
    x = integers(0, 1, 5)
    full = dltranspconv(x, integers(1, 4, 6, 1), 0, DataFormat="CS")
    np.testing.assert_array_equal(dltranspconv(x, integers(1, 4, 6), 0, DataFormat="CS"), full)
    labelled = dlarray(integers(1, 4, 6, 1), "SCU")  # whose U was dropped
    np.testing.assert_array_equal(dltranspconv(x, labelled, 0, DataFormat="CS"), full)


def test_the_result_is_of_the_kind_of_the_input():
    x, weights = integers(0, 2, 5, 3), integers(1, 4, 6, 3)
    plain = dltranspconv(x, weights, 0, DataFormat="BTC", WeightsFormat="TCU")
    assert plain.shape == (2, 8, 6)
    bare = dltranspconv(dlarray(x), weights, 0, DataFormat="BTC", WeightsFormat="TCU")
    assert bare.dims() == ""
    np.testing.assert_array_equal(bare.extractdata(), plain)
    formatted = dltranspconv(dlarray(x, "BTC"), weights, 0, WeightsFormat="TCU")
    assert formatted.dims() == "CBT"
    np.testing.assert_array_equal(formatted.extractdata(), plain.transpose(2, 0, 1))


def test_what_a_bias_may_be():
    x, weights, b = integers(0, 3, 5), integers(1, 4, 2, 3), np.array([1.0, -2.0])

    def run(bias):
        return dltranspconv(x, weights, bias, DataFormat="CS")

    without = run(None)
    np.testing.assert_array_equal(run(0), without)
    for one in (3, 3.0, np.float64(3), np.array(3.0), np.array([[3.0]]), dlarray(np.array([3.0]))):
        np.testing.assert_array_equal(run(one), without + 3)
    for each in (b, [1, -2], b[None], b[:, None, None], dlarray(b, "C"), dlarray(b[None], "UC")):
        np.testing.assert_array_equal(run(each), without + b[:, None])


@pytest.mark.parametrize("single", range(3))
def test_single_with_double_makes_single(single):
    arrays = [integers(0, 3, 5), integers(1, 4, 2, 3), integers(2, 2)]
    assert dltranspconv(*arrays, DataFormat="CS").dtype == np.float64
    arrays[single] = arrays[single].astype(np.float32)
    assert dltranspconv(*arrays, DataFormat="CS").dtype == np.float32


def test_short_filters_make_no_zeros_at_the_end():
    """Keras' "valid" appends zeros where the stride is longer than the filter; MATLAB does not."""
    y = dltranspconv(np.ones((1, 3)), np.ones(2), 0, Stride=4, DataFormat="CS")
    np.testing.assert_array_equal(y, [[1, 1, 0, 0, 1, 1, 0, 0, 1, 1]])


def test_what_a_cropping_may_be():
    x, weights = integers(0, 3, 6), integers(1, 5, 2, 3)
    full = dltranspconv(x, weights, 0, DataFormat="CS")
    for crop in ([1, 2], (1, 2), [[1], [2]], np.array([1, 2]), np.array([[1, 2]]), [1.0, 2.0]):
        y = dltranspconv(x, weights, 0, Cropping=crop, DataFormat="CS")
        np.testing.assert_array_equal(y, full[:, 1:-2])
    np.testing.assert_array_equal(dltranspconv(x, weights, 0, Cropping=[2], DataFormat="CS"), full[:, 2:-2])
    x, weights = integers(0, 3, 6, 7), integers(1, 5, 5, 2, 3)
    full = dltranspconv(x, weights, 0, DataFormat="CSS")
    y = dltranspconv(x, weights, 0, Cropping=[1, 2], DataFormat="CSS")  # one for each dimension
    np.testing.assert_array_equal(y, full[:, 1:-1, 2:-2])
    y = dltranspconv(x, weights, 0, Cropping=[[1, 2], [0, 3]], DataFormat="CSS")  # first ends, last ends
    np.testing.assert_array_equal(y, full[:, 1:, 2:-3])


# --- every library -------------------------------------------------------------------------------


def test_every_library(xp):
    x, weights, bias = integers(0, 3, 2, 5), integers(1, 4, 6, 3), integers(2, 6)
    exact = expected(x, "CBT", weights[..., None], bias, "T", (2,), (1,), [(0, 0)])
    X = dlarray(xp.asarray(x.transpose(2, 1, 0)), "TBC")
    y = dltranspconv(X, xp.asarray(weights), xp.asarray(bias), Stride=2, WeightsFormat="TCU")
    assert type(y.extractdata()) is type(X.extractdata())
    np.testing.assert_array_equal(to_numpy(y.extractdata()), exact)
    scalar = dltranspconv(X, xp.asarray(weights), 2.0, Stride=2, WeightsFormat="TCU")
    np.testing.assert_array_equal(to_numpy(scalar.extractdata()), exact - bias[:, None, None] + 2)
    # A layer's own weights follow its input.
    layer = transposedConv1dLayer(4, 6, Stride=2, Weights=weights, Bias=bias)
    np.testing.assert_array_equal(to_numpy(layer.predict(X).extractdata()), exact)
    assert type(layer.Weights) is type(X.extractdata())
    drawn = transposedConv1dLayer(4, 6)
    assert repr(drawn(X)) == "6(C) x 2(B) x 8(T) single dlarray"


def test_every_library_updates(xp):
    w, g = np.array([[1.0, -2.0]], np.float32), np.array([[4.0, 8.0]])
    params, vel = sgdmupdate(xp.asarray(w), xp.asarray(g), None, 0.5, 0.5)
    params, vel = sgdmupdate(params, xp.asarray(g), vel, 0.5, 0.5)
    assert type(params) is type(xp.asarray(w))
    np.testing.assert_array_equal(to_numpy(params), w - np.float32(0.5) * g - 0.75 * g)
    assert to_numpy(params).dtype == np.float32
    params, *_ = adamupdate(xp.asarray(w), xp.asarray(g), None, None, 1, 0.5)
    np.testing.assert_allclose(to_numpy(params), w - 0.5 * np.sign(g), rtol=1e-6)


def test_jax_traces_a_layer():
    jax = pytest.importorskip("jax", reason="jax is not installed: pip install gpuconv[peers]")
    layer = transposedConv1dLayer(3, 2, WeightsInitializer=lambda sz: integers(0, *sz).astype(np.float32))
    x = jax.numpy.ones((4, 5), "float32")
    traced = jax.jit(lambda x: layer.predict(x, "CT"))(x)
    assert isinstance(layer.Weights, np.ndarray)  # what belongs to the trace was not kept
    np.testing.assert_array_equal(traced, layer.predict(x, "CT"))


def test_torch_differentiates_through_a_layer():
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install gpuconv[peers]")
    weights = torch.ones((3, 2, 4), requires_grad=True)
    layer = transposedConv1dLayer(3, 2, Weights=weights)
    y = layer.predict(torch.ones((4, 5)), "CT")
    y.sum().backward()
    np.testing.assert_array_equal(weights.grad, np.full((3, 2, 4), 5))
    updated, _ = sgdmupdate(layer, {"Weights": weights.grad, "Bias": torch.zeros(2)}, L2Regularization=0)
    assert not updated.Weights.requires_grad
    np.testing.assert_allclose(updated.Weights, 0.95, rtol=1e-6)


# --- the layer -----------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", ["CBT", "SCB", "SCBT", "CT", "SC", "SCT"])
def test_the_layer_sums_what_the_loops_sum(labels):
    x = integers(0, *({"S": 5, "C": 3, "B": 2, "T": 4}[label] for label in labels))
    weights, bias = integers(1, 5, 2, 3), integers(2, 1, 2)
    for stride, crop in itertools.product((1, 3, 7), ("same", (0, 0), (2, 1))):
        layer = transposedConv1dLayer(5, 2, Stride=stride, Cropping=crop, Weights=weights, Bias=bias)
        y = layer(dlarray(x, labels))
        convolved = "S" if "S" in labels else "T"
        exact = expected(x, labels, weights[..., None], bias, convolved, (stride,), (1,), [crop])
        assert y.dims() == labels
        np.testing.assert_array_equal(y.extractdata(), exact)
        backwards = layer.predict(x.transpose(), labels[::-1])
        np.testing.assert_array_equal(backwards.transpose(), exact)


def test_the_kernel_is_the_array_that_our_ops_take():
    import gpuconv

    kernel, x = integers(0, 4, 6, 3), integers(1, 2, 5, 3)
    layer = transposedConv1dLayer(4, 6, Stride=2, Weights=kernel, Bias=np.zeros(6))
    y = gpuconv.conv1d_transpose(x, kernel, strides=2, padding=0)
    np.testing.assert_array_equal(layer.predict(x, "BTC"), y)


def test_what_gpuconv_solve_says_in_matlabs_words_is_what_the_layer_takes():
    import gpuconv

    ways = [way.matlab for way in gpuconv.solve(10, 20, kernel_size=4, strides=2) if way.matlab]
    assert {"Cropping": "same"} in ways
    for way in ways:
        layer = transposedConv1dLayer(4, 1, Stride=2, **way)
        assert layer.predict(np.ones((1, 10)), "CT").shape == (1, 20)


def test_the_cropping_of_same_is_shown():
    """From MATLAB's source: floor and ceil of half of FilterSize - Stride, or 0."""
    for size, stride, crop in [
        (4, 2, (1, 1)),
        (5, 2, (1, 2)),
        (11, 4, (3, 4)),
        (2, 5, (0, 0)),
        (3, 3, (0, 0)),
    ]:
        layer = transposedConv1dLayer(size, 1, Stride=stride, Cropping="same")
        assert (layer.CroppingMode, layer.CroppingSize) == ("same", crop)


def test_initializers_have_matlabs_scales():
    """A variance of n draws is within 6 standard errors of what it should be."""
    k, filters, channels = 10, 30, 80
    n = k * filters * channels
    in_, out = k * channels, k * filters

    def drawn(name):
        layer = transposedConv1dLayer(k, filters, WeightsInitializer=name)
        layer.predict(np.zeros((channels, 3), np.float32), "CT")
        assert layer.Weights.dtype == np.float32
        return np.asarray(layer.Weights, np.float64)

    glorot, limit = drawn("glorot"), math.sqrt(6 / (in_ + out))
    assert 0.999 * limit < np.abs(glorot).max() <= np.float32(limit)
    assert abs(np.mean(glorot**2) / (limit**2 / 3) - 1) < 6 * math.sqrt(0.8 / n)
    for name, variance in (("he", 2 / in_), ("narrow-normal", 1e-4), ("narrownormal", 1e-4)):
        values = drawn(name)
        assert abs(np.mean(values**2) / variance - 1) < 6 * math.sqrt(2 / n)
        # Not truncated: 2 of 1000 are beyond 3.09 standard deviations.
        beyond = np.mean(np.abs(values) > 3.0902 * math.sqrt(variance))
        assert abs(beyond - 0.002) < 6 * math.sqrt(0.002 / n)


def test_two_layers_draw_differently_and_a_seed_repeats_them():
    def drawn():
        layer = transposedConv1dLayer(3, 4, BiasInitializer="narrow-normal")
        layer.predict(np.zeros((2, 5)), "CT")
        return layer.Weights, layer.Bias

    random.seed(1)
    first, second = drawn(), drawn()
    random.seed(1)
    again = drawn()
    assert (first[0] != second[0]).any()
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])


def test_what_is_given_decides_the_precision_of_what_is_drawn():
    layer = transposedConv1dLayer(3, 4, Weights=np.ones((3, 4, 2)))
    assert layer.predict(np.ones((2, 5)), "CT").dtype == np.float64
    assert layer.Bias.dtype == np.float64
    assert layer.predict(np.ones((2, 5), np.float32), "CT").dtype == np.float32


def test_an_initializer_of_gpuconv_is_a_function_of_the_size():
    layer = transposedConv1dLayer(3, 4, WeightsInitializer=initializers.Constant(2.0))
    layer.predict(np.ones((2, 5), np.float32), "CT")
    assert (layer.Weights == 2).all()


def test_assigned_properties_are_checked():
    layer = transposedConv1dLayer(3, 4)
    layer.predict(np.ones((2, 5), np.float32), "CT")
    layer.Weights = None
    assert "Weights: []" in repr(layer)
    layer.WeightL2Factor = 3
    assert layer.WeightL2Factor == 3
    refuses(AttributeError, ["FilterSize", "Received"], setattr, layer, "FilterSize", 5)
    refuses(ValueError, ["2", "Received"], setattr, layer, "Weights", np.ones((3, 4, 7)))
    refuses(ValueError, ["Received BiasL2Factor=-1"], setattr, layer, "BiasL2Factor", -1)


def test_weights_are_copied():
    weights = np.ones((3, 4, 2))
    layer = transposedConv1dLayer(3, 4, Weights=weights)
    weights[:] = 0
    assert (layer.Weights == 1).all()


def test_layers_are_copied_and_pickled():
    layer = transposedConv1dLayer(3, 4, Name="up")
    layer.predict(np.ones((2, 5), np.float32), "CT")
    for other in (copy.copy(layer), copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert repr(other) == repr(layer)
        other.Weights = None
        assert layer.Weights is not None


def test_a_refused_input_leaves_the_layer_empty():
    layer = transposedConv1dLayer(3, 4)
    refuses(TypeError, ["Received X of int64"], layer.predict, np.ones((2, 5), int), "CT")
    assert layer.NumChannels == "auto"
    assert layer.Weights is None


def test_a_failed_initializer_leaves_the_layer_empty():
    layer = transposedConv1dLayer(3, 4, WeightsInitializer=lambda _: np.ones(5))
    refuses(ValueError, ["(3, 4, 2)", "Received", "(5,)"], layer.predict, np.ones((2, 5)), "CT")
    assert layer.NumChannels == "auto"
    assert layer.Weights is None


# --- updates -------------------------------------------------------------------------------------


def sgdm(w, grads, rate, momentum, l2):
    """Several steps for one number."""
    v = 0.0
    for g in grads:
        v = momentum * v - rate * (g + l2 * w)
        w = w + v
    return w, v


def adam(w, grads, rate, decay, square_decay, epsilon, l2):
    m = s = 0.0
    for t, g in enumerate(grads, 1):
        g = g + l2 * w
        m = decay * m + (1 - decay) * g
        s = square_decay * s + (1 - square_decay) * g * g
        rate_now = rate * math.sqrt(1 - square_decay**t) / (1 - decay**t)
        w = w - rate_now * m / (math.sqrt(s) + epsilon)
    return w, m, s


GRADS = [0.5, -1.5, 2.0, 0.25]


def test_sgdmupdate_is_the_recurrence():
    w, vel = np.array([1.5]), []
    for g in GRADS:
        w, vel = sgdmupdate(w, np.array([g]), vel)
    np.testing.assert_allclose((w[0], vel[0]), sgdm(1.5, GRADS, 0.01, 0.9, 0.0), rtol=1e-14)


def test_adamupdate_is_the_recurrence():
    w, m, s = np.array([1.5]), [], []
    for t, g in enumerate(GRADS, 1):
        w, m, s = adamupdate(w, np.array([g]), m, s, t, 0.05, 0.75, 0.95, 1e-3)
    exact = adam(1.5, GRADS, 0.05, 0.75, 0.95, 1e-3, 0.0)
    np.testing.assert_allclose((w[0], m[0], s[0]), exact, rtol=1e-14)
    w, m, s = np.array([1.5]), None, None
    for t, g in enumerate(GRADS, 1):
        w, m, s = adamupdate(w, np.array([g]), m, s, t)
    exact = adam(1.5, GRADS, 0.001, 0.9, 0.999, 1e-8, 0.0)
    np.testing.assert_allclose((w[0], m[0], s[0]), exact, rtol=1e-14)


def layer_with_factors(**factors):
    return transposedConv1dLayer(2, 1, Weights=np.full((2, 1, 1), 1.5), Bias=[[-0.5]], **factors)


@pytest.mark.parametrize("regularization", [None, 0, 0.1])
def test_a_layers_factors_multiply_the_global_settings(regularization):
    factors = {
        "WeightLearnRateFactor": 2,
        "BiasLearnRateFactor": 0.5,
        "WeightL2Factor": 3,
        "BiasL2Factor": 4,
    }
    layer, vel, l2 = layer_with_factors(**factors), None, 0.0001 if regularization is None else regularization
    for g in GRADS:
        grads = {"Weights": np.full((2, 1, 1), g), "Bias": np.array([g])}
        layer, vel = sgdmupdate(layer, grads, vel, 0.1, 0.8, L2Regularization=regularization)
    w, v = sgdm(1.5, GRADS, 0.2, 0.8, 3 * l2)
    np.testing.assert_allclose(layer.Weights, np.full((2, 1, 1), w), rtol=1e-14)
    np.testing.assert_allclose(vel["Weights"], np.full((2, 1, 1), v), rtol=1e-14)
    b, v = sgdm(-0.5, GRADS, 0.05, 0.8, 4 * l2)
    np.testing.assert_allclose((layer.Bias, vel["Bias"]), ([[b]], [[v]]), rtol=1e-13)
    assert layer.WeightL2Factor == 3


def test_adam_takes_a_layer_too():
    layer, m, s = layer_with_factors(WeightL2Factor=2), None, None
    for t, g in enumerate(GRADS, 1):
        grads = {"Weights": np.full((2, 1, 1), g), "Bias": np.array([[g]])}
        layer, m, s = adamupdate(layer, grads, m, s, t, 0.1)
    w, *_ = adam(1.5, GRADS, 0.1, 0.9, 0.999, 1e-8, 2 * 0.0001)
    np.testing.assert_allclose(layer.Weights, np.full((2, 1, 1), w), rtol=1e-14)
    b, *_ = adam(-0.5, GRADS, 0.1, 0.9, 0.999, 1e-8, 0.0)
    np.testing.assert_allclose(layer.Bias, [[b]], rtol=1e-14)


def test_a_learning_rate_of_0_leaves_the_state_too():
    layer = layer_with_factors(BiasLearnRateFactor=0)
    grads = {"Weights": np.ones((2, 1, 1)), "Bias": np.ones(1)}
    after, vel = sgdmupdate(layer, grads)
    np.testing.assert_array_equal(after.Bias, layer.Bias)
    np.testing.assert_array_equal(vel["Bias"], [[0]])
    assert (after.Weights != layer.Weights).all()


def test_what_is_passed_stays_as_it_was():
    layer, grads = layer_with_factors(), {"Weights": np.ones((2, 1, 1)), "Bias": np.ones(1)}
    w, g, v = np.ones(2), np.ones(2), np.ones(2)
    sgdmupdate(layer, grads)
    sgdmupdate(w, g, v)
    assert (layer.Weights == 1.5).all()
    assert (w == 1).all()
    assert (g == 1).all()
    assert (v == 1).all()


def test_parameters_of_any_structure():
    x = np.ones(2)
    params = {"a": x, "b": [x, dlarray(x[:, None], "CB")], "c": layer_with_factors()}
    bias = {"Weights": np.ones((2, 1, 1)), "Bias": dlarray(np.ones((1, 1)))}
    grads = {"a": x, "b": (x, dlarray(x[:, None], "CB")), "c": bias}
    updated, vel = sgdmupdate(params, grads, {}, 0.5, L2Regularization=0)
    updated, vel = sgdmupdate(updated, grads, vel, 0.5, 0.5, L2Regularization=0)
    exact = 1 - 0.5 - 0.75
    np.testing.assert_array_equal(updated["a"], [exact] * 2)
    np.testing.assert_array_equal(updated["b"][0], [exact] * 2)
    assert repr(updated["b"][1]) == repr(vel["b"][1]) == "2(C) x 1(B) dlarray"
    np.testing.assert_array_equal(updated["b"][1].extractdata(), [[exact]] * 2)
    np.testing.assert_array_equal(updated["c"].Bias, [[-0.5 - 0.5 - 0.75]])


def test_l2_of_plain_arrays_is_what_is_asked_for():
    w, _ = sgdmupdate(np.array([2.0]), np.array([0.0]), None, 1.0)
    np.testing.assert_array_equal(w, [2.0])
    w, _ = sgdmupdate(np.array([2.0]), np.array([0.0]), None, 1.0, L2Regularization=0.25)
    np.testing.assert_array_equal(w, [1.5])


# --- calls that cannot be right ------------------------------------------------------------------

X = dlarray(np.ones((3, 2, 5)), "CBT")
S = dlarray(np.ones((5, 3, 2)), "SCB")
W = np.ones((4, 6, 3))


def conv(x=S, weights=W, bias=0, **options):
    return lambda: dltranspconv(
        x() if callable(x) else x, weights() if callable(weights) else weights, bias, **options
    )


def layer(*sizes, **options):
    return lambda: transposedConv1dLayer(*(sizes or (3, 4)), **options)


def step(update=sgdmupdate, params=None, grads=None, *rest, **options):
    params = np.ones(2) if params is None else params
    return lambda: update(params, np.ones(2) if grads is None else grads, *rest, **options)


CALLS = [
    ("dlarray of text", lambda: dlarray("abc"), TypeError, ["X='abc'"]),
    ("dlarray of ragged lists", lambda: dlarray([[1], [1, 2]]), TypeError, ["[[1], [1, 2]]"]),
    ("dlarray of None", lambda: dlarray(None), TypeError, ["X=None"]),
    ("fmt of another label", lambda: dlarray(np.ones(2), "X"), ValueError, ["fmt='X'"]),
    ("fmt in lower case", lambda: dlarray(np.ones(2), "c"), ValueError, ["fmt='c'"]),
    ("fmt with two C", lambda: dlarray(np.ones((2, 2)), "CC"), ValueError, ["fmt='CC'", "once"]),
    ("fmt that is too short", lambda: dlarray(np.ones((2, 2)), "C"), ValueError, ["fmt='C'", "(2, 2)"]),
    ("fmt=3", lambda: dlarray(np.ones(2), 3), TypeError, ["fmt=3"]),
    ("finddim('X')", lambda: X.finddim("X"), ValueError, ["label='X'"]),
    ("finddim('CB')", lambda: X.finddim("CB"), ValueError, ["label='CB'"]),
    ("size(0)", lambda: X.size(0), ValueError, ["dim=0"]),
    ("size('C')", lambda: X.size("C"), TypeError, ["dim='C'"]),
    ("stripdims without T", lambda: X.stripdims("CB"), ValueError, ["fmt='CB'", "'CBT'"]),
    ("X without format", conv(np.ones((3, 5))), ValueError, ["DataFormat", "(3, 5)"]),
    ("X of two formats", conv(DataFormat="SCB"), ValueError, ["DataFormat='SCB'", "'SCB'"]),
    ("X without C", conv(np.ones(5), DataFormat="S"), ValueError, ["'S'", "C"]),
    ("DataFormat too short", conv(np.ones((3, 5)), DataFormat="C"), ValueError, ["DataFormat='C'"]),
    ("DataFormat=1", conv(np.ones((3, 5)), DataFormat=1), TypeError, ["DataFormat=1"]),
    ("X without S", conv(X), ValueError, ["'CBT'", "WeightsFormat='TCU'"]),
    ("X of text", conv("abc", DataFormat="CS"), TypeError, ["X='abc'"]),
    ("X of integers", conv(np.ones((3, 5), int), DataFormat="CS"), TypeError, ["X of int64", "Cast"]),
    ("weights of integers", conv(weights=np.ones((4, 6, 3), int)), TypeError, ["weights of int64", "Cast"]),
    ("X of other channels", conv(np.ones((2, 5)), DataFormat="CS"), ValueError, ["3", "(2, 5)"]),
    ("two libraries", conv(ones_of("torch", 5, 3, 2), DataFormat="SCB"), TypeError, ["weights", "torch"]),
    ("weights of 5 dimensions", conv(weights=np.ones((1,) * 5)), ValueError, ["weights", "1, 1"]),
    ("weights with B", conv(WeightsFormat="SCB"), ValueError, ["'SCB'"]),
    ("weights with three U", conv(weights=W[..., None, None], WeightsFormat="SCUUU"), ValueError, ["SCUUU"]),
    ("weights without S or T", conv(WeightsFormat="UCU"), ValueError, ["'UCU'"]),
    ("weights with another S", conv(WeightsFormat="SSC"), ValueError, ["'SSC'", "'SCB'"]),
    ("weights with T, X without", conv(WeightsFormat="STC"), ValueError, ["'STC'", "'SCB'"]),
    ("weights with T, X with S", conv(WeightsFormat="TCU"), ValueError, ["'TCU'", "'SCB'"]),
    (
        "weights of two formats",
        conv(weights=dlarray(W, "SCU"), WeightsFormat="SCU"),
        ValueError,
        ["WeightsFormat='SCU'"],
    ),
    ("bias of another length", conv(bias=np.ones(5)), ValueError, ["6 filters", "(5,)"]),
    ("bias of two dimensions", conv(bias=np.ones((2, 3))), ValueError, ["6 filters", "(2, 3)"]),
    ("bias=True", conv(bias=True), TypeError, ["bias=True"]),
    ("bias='zeros'", conv(bias="zeros"), TypeError, ["bias='zeros'"]),
    ("Stride=0", conv(Stride=0), ValueError, ["Stride=0"]),
    ("Stride of two", conv(Stride=[1, 2]), ValueError, ["Stride=[1, 2]"]),
    ("DilationFactor=1.5", conv(DilationFactor=1.5), ValueError, ["DilationFactor=1.5"]),
    ("Cropping='valid'", conv(Cropping="valid"), ValueError, ["Cropping='valid'"]),
    ("Cropping=-1", conv(Cropping=-1), ValueError, ["Cropping=-1"]),
    ("Cropping of three", conv(Cropping=[1, 2, 3]), ValueError, ["Cropping=[1, 2, 3]", "[l, r]"]),
    ("Cropping of halves", conv(Cropping=[0.5, 1]), ValueError, ["Cropping=[0.5, 1]"]),
    ("Cropping, ragged", conv(Cropping=[[1, 2], 3]), TypeError, ["Cropping=[[1, 2], 3]"]),
    ("Cropping of all", conv(Cropping=9), ValueError, ["Received", "9"]),
    ("filterSize=0", layer(0, 4), ValueError, ["filterSize=0"]),
    ("filterSize=1.5", layer(1.5, 4), ValueError, ["filterSize=1.5"]),
    ("filterSize=[3]", layer([3], 4), TypeError, ["filterSize=[3]"]),
    ("filterSize=True", layer(True, 4), TypeError, ["filterSize=True"]),
    ("numFilters=-1", layer(3, -1), ValueError, ["numFilters=-1"]),
    ("numFilters='4'", layer(3, "4"), TypeError, ["numFilters='4'"]),
    ("layer Stride=0", layer(Stride=0), ValueError, ["Stride=0"]),
    ("layer Stride of two", layer(Stride=[1, 2]), TypeError, ["Stride=[1, 2]"]),
    ("layer Cropping='full'", layer(Cropping="full"), ValueError, ["Cropping='full'"]),
    ("layer Cropping=[1, -1]", layer(Cropping=[1, -1]), ValueError, ["Cropping=[1, -1]"]),
    ("NumChannels=0", layer(NumChannels=0), ValueError, ["NumChannels=0"]),
    ("NumChannels='all'", layer(NumChannels="all"), ValueError, ["NumChannels='all'"]),
    ("WeightsInitializer", layer(WeightsInitializer="orthogonal"), ValueError, ["'orthogonal'", "'glorot'"]),
    ("WeightsInitializer=None", layer(WeightsInitializer=None), ValueError, ["=None"]),
    ("BiasInitializer", layer(BiasInitializer="glorot"), ValueError, ["BiasInitializer='glorot'"]),
    ("Weights of another size", layer(Weights=np.ones((3, 5, 2))), ValueError, ["3 x 4 x auto", "(3, 5, 2)"]),
    (
        "Weights of other channels",
        layer(Weights=np.ones((3, 4, 2)), NumChannels=5),
        ValueError,
        ["3 x 4 x 5", "(3, 4, 2)"],
    ),
    ("Weights of 4 dimensions", layer(Weights=np.ones((3, 4, 1, 1))), ValueError, ["(3, 4, 1, 1)"]),
    ("Weights of integers", layer(Weights=np.ones((3, 4, 2), int)), TypeError, ["int64", "Cast"]),
    ("Weights of text", layer(Weights="ones"), TypeError, ["Weights='ones'"]),
    ("Bias of a column", layer(Bias=np.ones((4, 1))), ValueError, ["1 x 4", "(4, 1)"]),
    ("Bias of another length", layer(Bias=np.ones(3)), ValueError, ["1 x 4", "(3,)"]),
    ("a negative factor", layer(WeightLearnRateFactor=-1), ValueError, ["WeightLearnRateFactor=-1"]),
    ("a factor of NaN", layer(BiasLearnRateFactor=math.nan), ValueError, ["BiasLearnRateFactor=nan"]),
    ("a factor of infinity", layer(WeightL2Factor=math.inf), ValueError, ["WeightL2Factor=inf"]),
    ("a factor of text", layer(BiasL2Factor="1"), TypeError, ["BiasL2Factor='1'"]),
    ("Name=3", layer(Name=3), TypeError, ["Name=3"]),
    (
        "format of images",
        lambda: transposedConv1dLayer(3, 4)(dlarray(np.ones((5, 5, 3, 2)), "SSCB")),
        ValueError,
        ["CBT", "'SSCB'"],
    ),
    ("predict without format", lambda: transposedConv1dLayer(3, 4)(np.ones((5, 3))), ValueError, ["(5, 3)"]),
    (
        "predict other channels",
        lambda: transposedConv1dLayer(3, 4, NumChannels=2)(X),
        ValueError,
        ["NumChannels=2", "3"],
    ),
    ("learnRate=-1", step(sgdmupdate, None, None, None, -1), ValueError, ["learnRate=-1"]),
    ("learnRate='fast'", step(sgdmupdate, None, None, None, "fast"), TypeError, ["learnRate='fast'"]),
    ("momentum=2", step(sgdmupdate, None, None, None, 0.1, 2), ValueError, ["momentum=2", "0 to 1"]),
    ("L2Regularization=-1", step(L2Regularization=-1), ValueError, ["L2Regularization=-1"]),
    ("iteration=0", step(adamupdate, None, None, None, None, 0), ValueError, ["iteration=0"]),
    ("gradDecay=1", step(adamupdate, None, None, [], [], 1, gradDecay=1), ValueError, ["gradDecay=1"]),
    ("sqGradDecay=1", step(adamupdate, None, None, [], [], 1, sqGradDecay=1), ValueError, ["sqGradDecay=1"]),
    ("epsilon=0", step(adamupdate, None, None, [], [], 1, epsilon=0), ValueError, ["epsilon=0"]),
    ("grads of another shape", step(grads=np.ones(3)), ValueError, ["(2,)", "(3,)"]),
    ("grads of integers", step(grads=np.ones(2, int)), TypeError, ["grads", "int64"]),
    ("params of complex numbers", step(params=np.ones(2, complex)), TypeError, ["complex128"]),
    ("grads of other names", step(params={"a": np.ones(2)}, grads={"b": 1}), ValueError, ["'a'", "'b'"]),
    ("too few grads", step(params=[np.ones(2)] * 2, grads=[np.ones(2)]), ValueError, ["[0, 1]", "[0]"]),
    ("one gradient of a dict", step(params={"a": np.ones(2)}), ValueError, ["'a'", "ndarray"]),
    (
        "vel of other names",
        step(sgdmupdate, {"a": 1.0}, {"a": 1.0}, {"b": 1.0}),
        ValueError,
        ["state", "'b'"],
    ),
    ("a layer without weights", step(params=layer()()), ValueError, ["Weights and Bias", "Call it"]),
    (
        "one gradient of a layer",
        step(params=layer_with_factors()),
        ValueError,
        ["'Weights', 'Bias'", "ndarray"],
    ),
]


@pytest.mark.parametrize(("call", "error", "words"), table(CALLS))
def test_calls(call, error, words):
    refuses(error, ["Expected", "Received", *words], call)
