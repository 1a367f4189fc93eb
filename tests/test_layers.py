"""Layers: building, calling, parameters, configs, Sequential."""

import copy
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import gpuconv
from gpuconv import layers
from gpuconv.layers import (
    Activation,
    Conv1D,
    Conv1DTranspose,
    Conv2DTranspose,
    Dropout,
    Input,
    Layer,
    Sequential,
)
from gpuconv.namespace import to_numpy

CONVOLUTIONS = ["Conv1D", "Conv2D", "Conv3D", "Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"]


def samples(*shape):
    return np.random.default_rng(0).standard_normal(shape)


# --- calling -------------------------------------------------------------------------------------


def test_the_example_of_the_keras_page():
    y = Conv1DTranspose(32, 3, 2, activation="relu")(np.random.rand(4, 10, 128))  # noqa: NPY002
    assert y.shape == (4, 21, 32)
    assert y.dtype == np.float32


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_a_layer_is_its_op_with_its_parameters(name, data_format):
    ndim = int(name[4])
    last = data_format == "channels_last"
    x = samples(2, *(5, 6, 7)[:ndim], 4) if last else samples(2, 4, *(5, 6, 7)[:ndim])
    layer = getattr(layers, name)(
        6, 3, 2, "same", data_format=data_format, groups=2, activation="tanh", dtype="float64", seed=1,
        bias_initializer="normal",
    )  # fmt: skip
    y = layer(x)
    op = getattr(gpuconv, f"conv{ndim}d{'_transpose' if 'Transpose' in name else ''}")
    options = {"strides": 2, "padding": "same", "data_format": data_format, "groups": 2}
    np.testing.assert_array_equal(y, op(x, layer.kernel, layer.bias, activation="tanh", **options))
    assert layer.bias.any()
    assert layer.compute_output_shape(x.shape) == y.shape
    unknown = (None,) * (x.ndim - 1)
    free = (*unknown, 4) if last else (None, 4, *unknown[1:])
    wanted = (*unknown, 6) if last else (None, 6, *unknown[1:])
    assert layer.compute_output_shape(free) == wanted
    assert layer.count_params() == layer.kernel.size + 6
    bare = op(x, layer.kernel, **options)
    np.testing.assert_array_equal(layer.convolution_op(x, layer.kernel), bare)


def test_a_layer_without_bias():
    layer = Conv1DTranspose(3, 2, use_bias=False)
    layer.build((None, None, 2))
    assert layer.bias is None
    assert [w.shape for w in layer.weights] == [(2, 3, 2)]


def test_overriding_convolution_op_changes_the_layer():
    class Normalised(Conv1DTranspose):
        def convolution_op(self, inputs, kernel):
            return super().convolution_op(inputs, kernel / abs(kernel).sum())

    for data_format in ("channels_last", "channels_first"):
        x = samples(2, 4, 4)
        options = {"data_format": data_format, "seed": 3, "bias_initializer": "ones", "dtype": "float64"}
        plain, normalised = (kind(5, 3, 2, **options) for kind in (Conv1DTranspose, Normalised))
        plain(x)
        wanted = gpuconv.conv1d_transpose(
            x, plain.kernel / abs(plain.kernel).sum(), plain.bias, strides=2, data_format=data_format
        )
        np.testing.assert_array_equal(normalised(x), wanted)


@pytest.mark.parametrize("dtype", ["int64", "uint8", "float64", "float16", "bool"])
def test_input_is_cast_to_the_layers_dtype(dtype):
    layer = Conv1D(2, 1, kernel_initializer="ones")
    y = layer(np.ones((1, 3, 2), dtype))
    assert y.dtype == np.float32
    assert (y == 2).all()


def test_a_complex_layer_and_complex_input():
    layer = Conv1DTranspose(2, 3, dtype="complex64", seed=0)
    assert layer(samples(1, 4, 2) * 1j).dtype == np.complex64
    with pytest.raises(TypeError, match=r"Expected real input .* Received complex128"):
        Conv1DTranspose(2, 3)(samples(1, 4, 2) * 1j)


def integers(*shape):
    """Small ones: every library sums them exactly, in whatever order."""
    return np.random.default_rng(0).integers(-3, 4, shape).astype(np.float32)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16", "complex64"])
def test_weights_follow_the_input_from_library_to_library(xp, dtype):
    pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed: pip install gpuconv[test]")
    weights = [integers(4, 3, 2), integers(3)]
    layer = Conv1DTranspose(3, 4, 2, dtype=dtype, weights=weights)
    x = integers(2, 6, 2)
    wanted = layer(x)
    if xp.__name__ == "array_api_strict" and "float16" in dtype:
        with pytest.raises(NotImplementedError, match=f"Received {dtype}"):
            layer(xp.asarray(x))
        return
    y = layer(xp.asarray(x))
    assert type(y) is type(xp.asarray(x))
    assert all(type(w) is type(y) for w in layer.weights)
    np.testing.assert_array_equal(to_numpy(y), wanted)
    for got, given in zip(layer.get_weights(), weights, strict=True):
        assert type(got) is np.ndarray
        assert got.dtype.name == dtype
        np.testing.assert_array_equal(got.astype(complex), given)
    np.testing.assert_array_equal(layer(x), wanted)
    assert isinstance(layer.kernel, np.ndarray)


def test_losses_are_of_the_inputs_library(xp):
    weights = [integers(4, 3, 2), integers(3)]
    layer = Conv1DTranspose(3, 4, 2, weights=weights, kernel_regularizer="l1", activity_regularizer="l1")
    y = layer(xp.asarray(integers(2, 6, 2)))
    activity, kernel = layer.losses
    assert type(activity) is type(kernel) is type(y)
    one = np.float32(0.01)  # each sum below is an integer, so that one product is all that rounds
    assert float(kernel) == one * abs(weights[0]).sum()
    assert float(activity) == one * abs(to_numpy(y)).sum() / 2


def test_gradients_of_torch_reach_the_weights():
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install gpuconv[peers]")
    layer = Conv1DTranspose(3, 4, 2, seed=5)
    layer(torch.ones(1, 5, 2))
    layer.kernel.requires_grad_()
    layer(torch.ones(1, 5, 2)).sum().backward()
    assert torch.all(layer.kernel.grad == 5)


def test_a_layer_under_jit_keeps_its_own_weights():
    jax = pytest.importorskip("jax", reason="jax is not installed: pip install gpuconv[peers]")
    layer = Conv1DTranspose(3, 4, 2, weights=[integers(4, 3, 2), integers(3)], activity_regularizer="l1")
    x = integers(2, 6, 2)
    wanted = layer(x)
    loss = layer.losses
    np.testing.assert_array_equal(jax.jit(layer)(x), wanted)
    assert isinstance(layer.kernel, np.ndarray)  # not what only the trace knew
    assert layer.losses == loss
    layer(jax.numpy.asarray(x))  # from here on the weights are JAX's
    np.testing.assert_array_equal(jax.jit(layer)(x), wanted)
    slope = jax.grad(lambda x: layer(x).sum())(jax.numpy.asarray(x))
    assert slope.shape == x.shape


def test_many_threads_may_make_the_first_call():
    given = [np.ones((3, 16, 64)), np.zeros(64)]
    x = np.ones((1, 8, 16))
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(20):
            layer = Conv1D(64, 3, weights=given)
            with ThreadPoolExecutor(8) as pool:
                results = list(pool.map(layer, [x] * 8))
            assert all((y == 48).all() for y in results)
    finally:
        sys.setswitchinterval(switch)


def test_glu_halves_what_the_layers_say_too():
    assert Activation("glu").compute_output_shape((2, 5, 8)) == (2, 5, 4)
    assert Activation("glu").compute_output_shape((None, None)) == (None, None)
    model = Sequential([Input((10, 3)), Conv1D(8, 3, activation="glu"), Conv1D(6, 1), Activation("glu")])
    assert model.output_shape == (None, 8, 3)
    assert model(samples(2, 10, 3)).shape == (2, 8, 3)
    with pytest.raises(ValueError, match="even length"):
        model.add(Activation("glu"))


def test_every_layer_may_be_told_of_training():
    x = samples(1, 5, 2)
    layer = Conv1D(3, 2)
    np.testing.assert_array_equal(layer(x, training=True), layer(x))


# --- building and parameters ---------------------------------------------------------------------


def test_build_makes_keras_shapes():
    layer = Conv2DTranspose(6, (3, 5), groups=3)
    layer.build((None, None, None, 9))
    assert layer.kernel.shape == (3, 5, 2, 9)
    forward = Conv1D(6, 3, groups=3)
    forward.build((None, None, 9))
    assert forward.kernel.shape == (3, 3, 6)


def test_seed_repeats_and_every_parameter_has_its_own():
    def weights(**options):
        layer = Conv1DTranspose(5, 3, bias_initializer="normal", **options)
        layer.build((None, None, 4))
        return layer.get_weights()

    first, again, other = weights(seed=1), weights(seed=1), weights(seed=2)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])
    assert not np.array_equal(weights()[0], weights()[0])
    assert not np.array_equal(first[0].ravel()[:5], first[1])


def test_the_weights_argument_and_set_weights_copy():
    kernel, bias = np.ones((3, 5, 4)), np.arange(5.0)
    layer = Conv1DTranspose(5, 3, weights=[kernel, bias])
    layer.build((None, None, 4))
    kernel[:] = 7
    np.testing.assert_array_equal(layer.kernel, np.ones((3, 5, 4)))
    got = layer.get_weights()
    got[0][:] = 9
    np.testing.assert_array_equal(layer.kernel, np.ones((3, 5, 4)))
    assert layer.kernel.dtype == np.float32
    layer.set_weights([kernel.tolist(), bias])
    assert (layer.kernel == 7).all()


def test_set_weights_replaces_all_or_nothing():
    layer = Conv1DTranspose(5, 3, seed=0)
    with pytest.raises(ValueError, match="to be built before set_weights"):
        layer.set_weights([])
    layer.build((None, None, 4))
    before = layer.get_weights()
    for bad in ([], [np.ones((3, 5, 4))], [np.ones((3, 5, 4)), np.ones(4)]):
        with pytest.raises(ValueError, match=r"Received shapes \["):
            layer.set_weights(bad)
    with pytest.raises(TypeError, match="Received complex128"):
        layer.set_weights([np.ones((3, 5, 4)), np.ones(5) * 1j])
    assert all(np.array_equal(a, b) for a, b in zip(before, layer.get_weights(), strict=True))


def test_a_layer_is_built_once_and_not_by_halves():
    layer = Conv1DTranspose(5, 3, seed=0)
    layer.build((None, None, 4))
    kernel = layer.kernel
    with pytest.raises(ValueError, match="to be built once"):
        layer.build((None, None, 4))
    assert layer.kernel is kernel
    short = Conv1DTranspose(2, 1, weights=[np.ones((1, 2, 3))])  # the bias is missing
    for _ in range(2):
        with pytest.raises(ValueError, match="Received shapes"):
            short(samples(1, 4, 3))
        assert not short.built
    model = Sequential([Conv1D(4, 3), Conv1D(4, 30)])
    with pytest.raises(ValueError, match="Expected at least 30 samples"):
        model(samples(1, 10, 2))
    assert model(samples(1, 50, 3)).shape == (1, 19, 4)  # nothing was built for the 2 channels


def test_losses_and_trainable():
    layer = Conv1DTranspose(
        2, 2, kernel_initializer="ones", bias_initializer="ones", kernel_regularizer="l1",
        bias_regularizer=lambda b: b.sum() * 10, activity_regularizer="l2", dtype="float64",
    )  # fmt: skip
    assert layer.losses == []
    y = layer(np.ones((4, 3, 1)))
    activity, kernel, bias = layer.losses
    assert activity == pytest.approx(0.01 * (y**2).sum() / 4, rel=1e-12)
    assert (kernel, bias) == (pytest.approx(0.04), 20)
    assert len(layer.trainable_weights) == 2
    layer.trainable = False
    assert (len(layer.trainable_weights), len(layer.non_trainable_weights)) == (0, 2)
    assert len(layer.losses) == 1  # a frozen layer's penalties train nothing


def test_names_are_made_of_the_class_and_a_number():
    first, second = Conv1DTranspose(1, 1).name, Conv1DTranspose(1, 1).name
    assert first.startswith("conv1d_transpose")
    assert first != second
    assert Conv1DTranspose(1, 1, name="up").name == "up"


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_keras_second_names(name):
    assert getattr(layers, name.replace("Conv", "Convolution")) is getattr(layers, name)


def test_layers_can_be_copied_and_pickled():
    layer = Conv1DTranspose(3, 4, 2, activation="gelu", kernel_regularizer="l2")
    x = samples(2, 6, 2)
    y = layer(x)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        np.testing.assert_array_equal(twin(x), y)
        assert twin.kernel is not layer.kernel


def test_autograd_stays_out_of_copies():
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install gpuconv[peers]")
    layer = Conv1D(2, 3, activity_regularizer="l2")
    layer(torch.ones(1, 8, 2))
    layer.kernel.requires_grad_()
    layer(torch.ones(1, 8, 2))
    assert layer.losses[0].requires_grad
    twin = copy.deepcopy(layer)
    assert twin.losses == []
    twin.set_weights([torch.nn.Parameter(torch.ones(3, 2, 2)), torch.ones(2)])
    assert not twin.kernel.requires_grad


# --- configs -------------------------------------------------------------------------------------

FULL = {
    "filters": 6,
    "kernel_size": 3,
    "padding": "same",
    "strides": 2,
    "activation": "gelu",
    "use_bias": True,
    "kernel_initializer": {"class_name": "HeNormal", "config": {"seed": 3}},
    "bias_initializer": "ones",
    "kernel_regularizer": "l2",
    "bias_regularizer": {"class_name": "L1", "config": {"l1": 0.5}},
    "activity_regularizer": "l1",
    "kernel_constraint": {"class_name": "MaxNorm", "config": {"max_value": 3, "axis": [0, 2]}},
    "bias_constraint": "non_neg",
    "dtype": "float64",
    "trainable": False,
    "name": "full",
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_config_round_trip(name):
    kind = getattr(layers, name)
    layer = kind(**FULL, groups=2, batch_input_shape=(None,) * (int(name[4]) + 1) + (4,))
    config = layer.get_config()
    twin = kind.from_config(config)
    assert twin.get_config() == config
    nested = kind.from_config({"module": "keras.layers", "class_name": name, "config": config})
    assert nested.get_config() == config
    x = samples(2, *(3,) * int(name[4]), 4)
    np.testing.assert_array_equal(layer(x), twin(x))


def test_from_config_refuses_another_class():
    with pytest.raises(ValueError, match="Received class_name='Dense'"):
        Conv1D.from_config({"class_name": "Dense", "config": {}})


def test_repr_shows_what_matters():
    layer = Conv1DTranspose(32, 3, 2, activation="relu", name="up")
    assert repr(layer) == (
        "Conv1DTranspose(filters=32, kernel_size=(3,), strides=(2,), padding='valid', dilation_rate=(1,), "
        "output_padding=None, activation=relu, name='up')"
    )
    assert "lambda" in repr(Conv1D(1, 1, activation=lambda y: y))


# --- the layers without parameters ---------------------------------------------------------------


def test_dropout_drops_and_scales_in_training_only(xp):
    x = xp.ones((200, 100), dtype=xp.float32)
    layer = Dropout(0.25, seed=4)
    assert to_numpy(layer(x)).all()
    y = to_numpy(layer(x, training=True))
    np.testing.assert_array_equal(np.unique(y), np.float32([0, 1 / 0.75]))
    # 20,000 draws: the share has a standard deviation of 0.0031.
    assert abs((y == 0).mean() - 0.25) < 5 * 0.0031
    assert not np.array_equal(y, to_numpy(layer(x, training=True)))
    np.testing.assert_array_equal(y, Dropout(0.25, seed=4)(np.ones((200, 100)), training=True))


def test_dropout_noise_shape_and_extremes():
    y = Dropout(0.5, noise_shape=(None, 1, None), seed=0)(np.ones((3, 50, 4)), training=True)
    assert (y == y[:, :1]).all()
    assert not Dropout(1.0)(np.full(5, np.nan), training=True).any()
    assert Dropout(0)(np.ones(5), training=True).all()
    with pytest.raises(ValueError, match=r"Received noise_shape=\(2, 3\)"):
        Dropout(0.5, noise_shape=(2, 3))(np.ones((2, 4)), training=True)


def test_activation_layer_and_input():
    np.testing.assert_array_equal(Activation("relu")(np.array([-1.0, 2.0])), [0, 2])
    assert Input((10, 3)).batch_input_shape == (None, 10, 3)
    assert Input((10, 3), batch_size=4).batch_input_shape == (4, 10, 3)
    assert Input(batch_shape=[None, None, 3]).batch_input_shape == (None, None, 3)
    kept = Input.from_config(
        {"batch_input_shape": [None, 5], "dtype": "float32", "sparse": False, "name": "i"}
    )
    assert kept.batch_input_shape == (None, 5)
    with pytest.raises(NotImplementedError, match="Received sparse=True"):
        Input.from_config({"batch_shape": [None, 5], "sparse": True})


# --- Sequential ----------------------------------------------------------------------------------


def autoencoder(**options):
    return Sequential(
        [
            Input((288, 1), name="signal"),
            Conv1D(32, 7, 2, "same", activation="relu", name="down", seed=1),
            Dropout(0.2, seed=2, name="drop"),
            Conv1DTranspose(1, 7, 2, "same", name="up", kernel_regularizer="l2", seed=3),
            Activation("tanh", name="squash"),
        ],
        **options,
    )


def test_sequential_runs_its_layers():
    model = autoencoder(name="anomaly")
    x = samples(3, 288, 1)
    y = model(x)
    _, down, _, up, squash = model.layers
    np.testing.assert_array_equal(y, squash(up(down(x))))
    assert (model.input_shape, model.output_shape) == ((None, 288, 1), (None, 288, 1))
    assert not np.array_equal(y, model(x, training=True))
    assert model.count_params() == 7 * 32 + 32 + 7 * 32 + 1
    assert len(model.losses) == 1
    regularized = Sequential([Conv1D(2, 1, kernel_regularizer="l1", activity_regularizer="l2") for _ in "ab"])
    regularized(x)
    a, b = regularized.layers
    assert regularized.losses == [a.losses[0], b.losses[0], a.losses[1], b.losses[1]]  # in Keras' order
    assert model.compute_output_shape((5, None, 1)) == (5, None, 1)


def test_sequential_weights_are_those_of_its_layers():
    model, other = autoencoder(), autoencoder()
    x = samples(3, 288, 1)
    values = [w + 0.5 for w in model.get_weights()]
    model.set_weights(values)
    other.set_weights(model.weights)
    np.testing.assert_array_equal(model(x), other(x))
    model.layers[1].trainable = False
    assert [w.shape for w in model.trainable_weights] == [(7, 1, 32), (1,)]
    model.trainable = False
    assert model.trainable_weights == []
    assert model.losses == []
    frozen = Sequential([Input((8, 3)), Conv1D(4, 3)], trainable=False)
    assert (frozen.trainable_weights, len(frozen.non_trainable_weights)) == ([], 2)


def test_sequential_builds_when_the_shape_is_known():
    model = Sequential([Conv1D(4, 3, input_shape=(10, 2), batch_size=5)])
    assert model.built
    assert model.input_shape == (5, 10, 2)
    late = Sequential([Conv1D(4, 3)])
    with pytest.raises(ValueError, match="to be built before count_params"):
        late.count_params()
    late(samples(2, 10, 2))
    assert late.input_shape == (None, 10, 2)
    late.add(Conv1D(3, 1))
    assert late.output_shape == (None, 8, 3)
    assert late.pop().filters == 3
    assert late(samples(7, 12, 2)).shape == (7, 10, 4)  # other lengths are as welcome


def test_sequential_refuses_and_stays_as_it_was():
    model = Sequential([Input((10, 3)), Conv1D(4, 3, name="one")])
    for layer, error, message in [
        (Conv1D(4, 3, name="one"), ValueError, "Received another 'one'"),
        (Input((3,)), ValueError, "Expected an Input to come first"),
        ("relu", TypeError, "Expected a layer. Received 'relu'"),
        (model, ValueError, "Expected another layer than the model itself"),
        (Conv2DTranspose(4, 3), ValueError, r"Received input of shape \(None, 8, 4\)"),
        (Conv1D(4, 30), ValueError, "Expected at least 30 samples"),
    ]:
        with pytest.raises(error, match=message):
            model.add(layer)
        assert len(model.layers) == 2
    with pytest.raises(ValueError, match="without layers"):
        Sequential().pop()


@pytest.mark.parametrize("first", ["input", "input_shape", "nothing"])
def test_sequential_config_round_trip(first):
    if first == "input":
        model = autoencoder()
    else:
        options = {"input_shape": (288, 1)} if first == "input_shape" else {}
        model = Sequential([Conv1D(3, 7, 2, **options), Sequential([Activation("relu")], name="inner")])
    x = samples(2, 288, 1)
    model(x)
    twin = Sequential.from_config(model.get_config())
    assert twin.built
    twin.set_weights(model.get_weights())
    np.testing.assert_array_equal(twin(x), model(x))
    assert twin.name == model.name
    nested = {"class_name": "Sequential", "config": model.get_config()}
    assert Sequential.from_config(nested).count_params() == model.count_params()
    frozen = Sequential.from_config({**model.get_config(), "trainable": False})
    assert frozen.trainable_weights == []


def test_from_config_names_the_layer_that_it_does_not_know():
    config = {"name": "m", "layers": [{"class_name": "Dense", "config": {"name": "head", "units": 3}}]}
    with pytest.raises(NotImplementedError, match=r"Received 'Dense' \(layer 'head'\)"):
        Sequential.from_config(config)

    class Dense(Layer):
        def __init__(self, units, **options):
            super().__init__(**options)
            self.units = units

    assert Sequential.from_config(config, custom_objects={"Dense": Dense}).layers[0].units == 3
    for bad, message in [
        ({"class_name": "Functional"}, "class_name='Functional'"),
        ({}, "Received the keys"),
    ]:
        with pytest.raises(ValueError, match=message):
            Sequential.from_config(bad)


def test_summary_before_and_after_building(capsys):
    model = Sequential([Conv1D(4, 3, name="a"), Dropout(0.1, name="drop")], name="m")
    lines = []
    model.summary(print_fn=lines.append)
    assert lines[0] == "m (Sequential), input not known yet"
    assert "not built" in lines[4]
    model.build((None, None, 1_000))
    model.layers[0].trainable = False
    model.summary()
    assert capsys.readouterr().out.splitlines() == [
        "m (Sequential), input (None, None, 1000)",
        "------------------------------------------------------------------",
        "layer  type     output shape     parameters  multiply-adds  memory",
        "------------------------------------------------------------------",
        "a      Conv1D   (None, None, 4)      12,004              ?       ?",
        "drop   Dropout  (None, None, 4)           0              0       ?",
        "------------------------------------------------------------------",
        "12,004 parameters (46.9 KiB), 0 trainable, 12,004 frozen",
    ]


def test_a_build_of_ones_own_need_not_end_with_that_of_layer():
    """As in Keras 3; weights that were handed over count all the same."""

    class Scale(layers.Layer):
        def build(self, input_shape):
            self.add_weight("scale", input_shape[-1:], "ones")

        def call(self, inputs):
            return inputs * self.weight("scale", inputs)

    x = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(Scale()(x), x)
    scale = Scale(weights=[np.array([1.0, 2.0, 3.0])])
    np.testing.assert_array_equal(layers.Sequential([scale])(x), x * [1, 2, 3])
    assert scale.built
