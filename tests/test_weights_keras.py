"""Keras' files: models and weights, of Keras 3 as it is installed and as it was, and of tf.keras 2."""

import io
import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import gpuconv
from gpuconv.layers import Activation, Conv1D, Conv1DTranspose, Dropout, Input, Sequential
from tests.bounds import chain_bound
from tests.mutations import members_of, zipped

h5py = pytest.importorskip("h5py", reason="h5py is not installed: pip install gpuconv[test]")

FOLDER = Path(__file__).parent / "data" / "weights"
PREDICTIONS = np.load(FOLDER / "predictions.npz")
MODELS = [f"{name}{suffix}" for name in ("one_axis", "two_axes", "three_axes", "adapted")
          for suffix in (".keras", ".h5")]  # fmt: skip


def check_prediction(model, name, dtype="float32"):
    """Compare with what the maker of the file `name` computed."""
    x, expected = PREDICTIONS[f"{name}:x"], PREDICTIONS[f"{name}:y"]
    y = model(x)
    assert y.dtype.name == dtype
    assert y.shape == expected.shape
    assert np.all(np.abs(y.astype(np.float64) - expected) <= chain_bound(model, x, dtype))


# --- models --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_a_model_predicts_what_keras_did(name):
    model = gpuconv.load(FOLDER / name)
    assert type(model) is Sequential
    check_prediction(model, name)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_a_model_keeps_its_dtype(dtype):
    pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed: pip install gpuconv[test]")
    model = gpuconv.load(str(FOLDER / f"{dtype}.keras"))
    assert [weight.dtype.name for weight in model.weights] == [dtype] * 2
    check_prediction(model, f"{dtype}.keras", dtype)


def test_layers_have_the_settings_that_they_had_in_keras():
    model = gpuconv.load(FOLDER / "one_axis.keras")
    assert model.name == "one_axis"
    assert model.input_shape == (None, 12, 2)
    down, up, last = (
        next(layer for layer in model.layers if layer.name == n) for n in ("down", "up", "last")
    )
    assert (down.strides, down.padding, down.groups) == ((2,), "same", 2)
    assert (up.output_padding, up.use_bias) == ((1,), False)
    assert (last.padding, last.dilation_rate) == ("causal", (2,))
    kinds = [type(layer) for layer in model.layers]
    assert kinds == [
        Input,
        Conv1D,
        Activation,
        Dropout,
        Conv1DTranspose,
        Activation,
        Conv1D,
        *[Activation] * 3,
    ]
    rectified = model.layers[5].activation.keywords
    assert rectified == {"max_value": 6.0, "negative_slope": 0.05, "threshold": 0.1}
    assert [layer.rate for layer in model.layers if isinstance(layer, Dropout)] == [0.3]
    again = Sequential.from_config(model.get_config())
    again.set_weights(model.get_weights())
    check_prediction(again, "one_axis.keras")


def test_what_is_frozen_stays_frozen():
    for name in ("three_axes.keras", "three_axes.h5"):
        part = gpuconv.load(FOLDER / name).layers[1]
        assert [layer.trainable for layer in part.layers[-2:]] == [False, True]


def test_initial_weights_are_neither_drawn_nor_made_of_a_shape_that_was_not_given():
    layer = Conv1D(10**7, 3, weights=[np.ones((3, 2, 4)), np.ones(4)], kernel_initializer=None)
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"Expected weights of shapes \[\(3, 2, 10000000\)\]"):
        layer.build((None, None, 2))
    assert tracemalloc.get_traced_memory()[1] < 10**7
    tracemalloc.stop()

    def draw(shape, dtype):
        raise AssertionError("drawn")

    given = Conv1D(4, 3, weights=[np.ones((3, 2, 4)), np.ones(4)], kernel_initializer=draw)
    assert given(np.ones((1, 3, 2)))[0, 0, 0] == 7


# --- weights alone -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["one_axis.weights.h5", "three_axes.weights.h5", "three_axes.keras", "three_axes.h5"]
)
def test_weights_go_into_a_model(name):
    model = gpuconv.load(FOLDER / name.replace(".weights.h5", ".keras"))
    model.set_weights([0 * weight for weight in model.get_weights()])
    assert gpuconv.load(FOLDER / name, into=model) is model
    check_prediction(model, name)


def small(filters=4):
    return Sequential([Input((None, 2)), Conv1D(filters, 3, groups=2), Conv1DTranspose(4, 3, use_bias=False)])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            small,
            r"one_axis\.weights\.h5: it has weights for 'conv1d_1', a layer that the model does not have\.",
        ),
        (
            lambda: Sequential([Input((None, 2)), *(Conv1D(2, 1) for _ in range(3))]),
            r"it has no weights for layer 'conv1d_\d+' \(as 'conv1d_2'\)",
        ),
        (
            lambda: Sequential(
                [Input((12, 2)), Conv1D(4, 3, use_bias=False), Conv1D(1, 1), Conv1DTranspose(1, 1)]
            ),
            "it has 2 weights for layer .*, which has 1",
        ),
        (
            lambda: Sequential(
                [Input((12, 2)), Conv1D(4, 3), Conv1D(3, 2), Conv1DTranspose(4, 3, use_bias=False)]
            ),
            r"Expected weights of shapes \[\(3, 2, 4\), .* Received shapes \[\(3, 1, 4\),",
        ),
    ],
)
def test_weights_that_do_not_fit_leave_the_model_alone(make, message):
    model = make()
    before = model.get_weights()
    with pytest.raises(ValueError, match=message):
        gpuconv.load(FOLDER / "one_axis.weights.h5", into=model)
    for weight, old in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight, old)


# --- tf.keras 2: TensorFlow is not installed, so h5py writes its layout here ----------------------


def legacy_file(path, config, weights, **attributes):
    """A file as tf.keras 2 writes it: ``weights`` has for each layer its arrays by their names."""
    with h5py.File(path, "w") as file:
        group = file
        if config is not None:
            file.attrs["model_config"] = json.dumps(config).encode()
            file.attrs["keras_version"] = np.bytes_("2.9.0")
            file.attrs["training_config"] = b"{}"
            group = file.create_group("model_weights")
        # Fixed-length texts, as h5py made of NumPy's bytes for a long time.
        group.attrs.create("layer_names", np.array([name.encode() for name in weights], "S"))
        for key, value in {"backend": b"tensorflow", "keras_version": b"2.9.0", **attributes}.items():
            group.attrs[key] = value
        for layer, arrays in weights.items():
            inner = group.create_group(layer)
            names = [name.encode() for name in arrays]
            inner.attrs.create("weight_names", np.array(names, "S") if names else np.array([]))
            for name, array in arrays.items():
                inner.create_dataset(name, array.shape, array.dtype)[:] = array
    return path


def layer_2(class_name, name, **config):
    return {
        "class_name": class_name,
        "config": {"name": name, "trainable": True, "dtype": "float32", **config},
    }


ZEROS = {"class_name": "Zeros", "config": {}}
CONV_2 = {"strides": [1], "padding": "valid", "data_format": "channels_last", "dilation_rate": [1],
          "groups": 1,
          "use_bias": True, "bias_initializer": ZEROS,
          "kernel_initializer": {"class_name": "GlorotUniform", "config": {"seed": None}},
          "kernel_regularizer": None, "bias_regularizer": None, "activity_regularizer": None,
          "kernel_constraint": None, "bias_constraint": None}  # fmt: skip


def arrays_2(seed=0):
    rng = np.random.default_rng(seed)
    draw = lambda *shape: rng.standard_normal(shape).astype("float32")  # noqa: E731
    return {
        "down": {"down/kernel:0": draw(3, 2, 4), "down/bias:0": draw(4)},
        "leaky_re_lu": {},
        "up": {"up/kernel:0": draw(3, 2, 4), "up/bias:0": draw(2)},
    }


def layers_2():
    down = layer_2("Conv1D", "down", filters=4, kernel_size=[3], activation="relu", **CONV_2)
    up = layer_2(
        "Conv1DTranspose", "up", filters=2, kernel_size=[3], output_padding=None, activation="linear",
        **{**CONV_2, "strides": [2], "padding": "same"},
    )  # fmt: skip
    return [down, layer_2("LeakyReLU", "leaky_re_lu", alpha=0.30000001192092896), up]


def input_2():
    config = {
        "batch_input_shape": [None, 9, 2],
        "dtype": "float32",
        "sparse": False,
        "ragged": False,
        "name": "x",
    }
    return {"class_name": "InputLayer", "config": config}


def expected_2(x, weights):
    flat = [array for arrays in weights.values() for array in arrays.values()]
    h = gpuconv.conv1d(x, flat[0], flat[1], activation="relu")
    h = gpuconv.activations.leaky_relu(h, np.float32(0.3))
    return gpuconv.conv1d_transpose(h, flat[2], flat[3], strides=2, padding="same")


X = np.random.default_rng(1).standard_normal((2, 9, 2)).astype("float32")


@pytest.mark.parametrize("start", ["InputLayer", "batch_input_shape", "build_input_shape"])
def test_a_sequential_of_tf_keras_2(tmp_path, start):
    weights, entries = arrays_2(), layers_2()
    config = {"name": "sequential", "layers": entries}
    if start == "InputLayer":
        entries.insert(0, input_2())
    elif start == "batch_input_shape":
        entries[0]["config"]["batch_input_shape"] = [None, 9, 2]
    else:
        config["build_input_shape"] = [None, 9, 2]
    path = legacy_file(tmp_path / "model.h5", {"class_name": "Sequential", "config": config}, weights)
    np.testing.assert_array_equal(gpuconv.load(path)(X), expected_2(X, weights))


@pytest.mark.parametrize("class_name", ["Functional", "Model"])
def test_a_functional_model_of_tf_keras_2(tmp_path, class_name):
    entries = [input_2(), *layers_2()]
    for entry, source in zip(entries, [None, "x", "down", "leaky_re_lu"], strict=True):
        entry["name"] = entry["config"]["name"]
        entry["inbound_nodes"] = [[[source, 0, 0, {}]]] if source else []
    config = {
        "name": "f",
        "layers": entries[::-1],
        "input_layers": [["x", 0, 0]],
        "output_layers": [["up", 0, 0]],
    }
    weights = arrays_2()
    path = legacy_file(
        tmp_path / "model.h5", {"class_name": class_name, "config": config}, {"x": {}, **weights}
    )
    np.testing.assert_array_equal(gpuconv.load(path)(X), expected_2(X, weights))


def test_an_activation_that_is_a_layer(tmp_path):
    weights, entries = arrays_2(), [input_2(), *layers_2()]
    entries[1]["config"]["activation"] = layer_2("ReLU", "re_lu", max_value=0.5, threshold=0.0)
    config = {"class_name": "Sequential", "config": {"name": "s", "layers": entries}}
    model = gpuconv.load(legacy_file(tmp_path / "model.h5", config, weights))
    assert model.layers[1].activation.keywords == {"max_value": 0.5, "threshold": 0.0}
    assert model.layers[1](X).max() == 0.5


@pytest.mark.parametrize("version", ["2.9.0", "3.15.1", None])
def test_the_hard_sigmoid_of_tf_keras_2_is_another(tmp_path, version):
    members = members_of((FOLDER / "one_axis.keras").read_bytes())
    config = json.loads(members["config.json"])
    config["config"]["layers"][1]["config"]["activation"] = "hard_sigmoid"
    members |= {"config.json": json.dumps(config), "metadata.json": json.dumps({"keras_version": version})}
    path = tmp_path / "model.keras"
    path.write_bytes(zipped(members))
    if version != "2.9.0":
        assert gpuconv.load(path).layers[1].activation is gpuconv.activations.hard_sigmoid
        return
    entries = [input_2(), *layers_2()]
    entries[1]["config"]["activation"] = "hard_sigmoid"
    config = {"class_name": "Sequential", "config": {"name": "s", "layers": entries}}
    legacy = legacy_file(tmp_path / "model.h5", config, arrays_2())
    for file in (path, legacy):
        with pytest.raises(ValueError, match=r"'down' \(Conv1D\): hard_sigmoid had another .* Keras 2\.9\.0"):
            gpuconv.load(file)


def test_weights_of_functional_models_in_a_model(tmp_path):
    """Ours are Sequential, whatever they were in Keras."""
    path = tmp_path / "model.weights.h5"
    with h5py.File(path, "w") as file:
        for number, name in enumerate(("functional", "functional_1")):
            file[f"layers/{name}/layers/conv1d/vars/0"] = np.full((1, 2, 2), number, "f4")
    parts = [Sequential([Conv1D(2, 1, use_bias=False)]) for _ in range(2)]
    model = gpuconv.load(path, into=Sequential([Input((None, 2)), *parts]))
    assert [weight.mean() for weight in model.weights] == [0, 1]


def test_weights_of_tf_keras_2(tmp_path):
    weights = arrays_2()
    config = {"class_name": "Sequential", "config": {"name": "s", "layers": [input_2(), *layers_2()]}}
    model = gpuconv.load(legacy_file(tmp_path / "model.h5", config, arrays_2(5)))
    gpuconv.load(legacy_file(tmp_path / "weights.h5", None, weights), into=model)
    np.testing.assert_array_equal(model(X), expected_2(X, weights))


def test_names_too_long_for_one_attribute(tmp_path):
    path = legacy_file(tmp_path / "weights.h5", None, {})
    weights = {f"a_name_of_length_{i}": {f"{i}/kernel:0": np.full((1, 2, 2), i, "float32")} for i in range(7)}
    legacy_file(path, None, weights)
    with h5py.File(path, "a") as file:
        names = file.attrs["layer_names"]
        del file.attrs["layer_names"]
        file.attrs["layer_names0"], file.attrs["layer_names1"] = names[:3], names[3:]
    model = Sequential([Input((None, 2)), *(Conv1D(2, 1, use_bias=False) for _ in range(7))])
    gpuconv.load(path, into=model)
    assert [weight.mean() for weight in model.weights] == list(range(7))


@pytest.mark.parametrize("attributes", [{"backend": b"theano"}, {"keras_version": b"1.2.2"}])
def test_files_with_other_kernel_layouts_are_refused(tmp_path, attributes):
    path = legacy_file(tmp_path / "weights.h5", None, arrays_2(), **attributes)
    model = Sequential([Input((None, 2)), Conv1D(4, 3), Conv1DTranspose(2, 3)])
    with pytest.raises(ValueError, match="written by Keras 1 or on Theano"):
        gpuconv.load(path, into=model)


def test_many_layers_in_a_model_in_a_model(tmp_path):
    """Their weights are in one group, which is read once."""
    settings = {**CONV_2, "filters": 1, "kernel_size": [1], "use_bias": False}
    inner = [layer_2("Conv1D", f"layer_{i}", **settings) for i in range(300)]
    entry = {"class_name": "Sequential", "config": {"name": "inner", "layers": inner}}
    start = {"class_name": "InputLayer", "config": {"batch_input_shape": [None, 2, 1], "name": "x"}}
    config = {"class_name": "Sequential", "config": {"name": "outer", "layers": [start, entry]}}
    weights = {f"layer_{i}/kernel:0": np.full((1, 1, 1), i, "f4") for i in range(300)}
    model = gpuconv.load(legacy_file(tmp_path / "model.h5", config, {"inner": weights}))
    assert [weight.item() for weight in model.weights] == list(range(300))


def test_weights_that_do_not_fit_a_layer(tmp_path):
    weights = arrays_2()
    del weights["up"]["up/bias:0"]
    path = legacy_file(tmp_path / "weights.h5", None, weights)
    model = Sequential([Input((None, 2)), Conv1D(4, 3), Conv1DTranspose(2, 3, name="above")])
    with pytest.raises(ValueError, match="it has 1 weights for layer 'above', which has 2"):
        gpuconv.load(path, into=model)


@pytest.mark.parametrize("shapes", [((1, 2, 1), (1, 2)), ((3, 2), (2, 4)), ((1, 2, 10**5), (10**5, 1))])
def test_an_adaptation_of_another_shape(tmp_path, shapes):
    entries = [input_2(), layer_2("Conv1D", "a", filters=4, kernel_size=[3], lora_rank=1, **CONV_2)]
    shapes = [(4,), *shapes, (3, 2, 4)]
    names = [f"a/{name}:0" for name in ("bias", "lora_kernel_a", "lora_kernel_b", "kernel")]
    weights = {"a": {n: np.zeros(shape, "f4") for n, shape in zip(names, shapes, strict=True)}}
    config = {"class_name": "Sequential", "config": {"name": "s", "layers": entries}}
    path = legacy_file(tmp_path / "model.h5", config, weights)
    with pytest.raises(ValueError, match=r"layer 'a' has a kernel of shape \(3, 2, 4\) and an adaptation of"):
        gpuconv.load(path)


def test_a_model_that_is_frozen(tmp_path):
    config = {"name": "s", "trainable": False, "layers": [input_2(), *layers_2()]}
    path = legacy_file(tmp_path / "m.h5", {"class_name": "Sequential", "config": config}, arrays_2())
    assert not any(layer.trainable for layer in gpuconv.load(path).layers)


def test_a_configuration_that_is_several_texts(tmp_path):
    path = legacy_file(tmp_path / "model.h5", None, arrays_2())
    with h5py.File(path, "a") as file:
        file.attrs["model_config"] = ["{}", "{}"]
    with pytest.raises(ValueError, match="its model_config is not one text of a size that a model has"):
        gpuconv.load(path)


def test_a_keras_file_of_tensorflow_2_13(tmp_path):
    """Its layers are in another group."""
    data = io.BytesIO()
    weights = arrays_2()
    with h5py.File(data, "w") as file:
        for name, key in (("conv1d", "down"), ("conv1d_transpose", "up")):
            group = file.create_group(f"_layer_checkpoint_dependencies/{name}/vars")
            for number, array in enumerate(weights[key].values()):
                group[str(number)] = array
    entries = [{"module": "keras.layers", "registered_name": None, **e} for e in (input_2(), *layers_2())]
    config = {"module": "keras", "class_name": "Sequential", "config": {"name": "s", "layers": entries}}
    path = tmp_path / "model.keras"
    path.write_bytes(zipped({"config.json": json.dumps(config), "model.weights.h5": data.getvalue()}))
    np.testing.assert_array_equal(gpuconv.load(path)(X), expected_2(X, weights))


# --- packages ------------------------------------------------------------------------------------


def test_nothing_is_imported_before_it_is_used():
    code = (
        "import sys, gpuconv; assert 'gpuconv.weights' not in sys.modules\n"
        "gpuconv.load(sys.argv[1])\n"
        "assert not {'h5py', 'onnx', 'safetensors', 'ml_dtypes', 'google.protobuf'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code, str(FOLDER / "one_axis.keras")], check=True)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(ImportError, match=r'the package ml_dtypes.* pip install "gpuconv\[weights\]"'):
        gpuconv.load(FOLDER / "bfloat16.keras")


# --- Keras itself --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def keras():
    os.environ["KERAS_BACKEND"] = "jax"
    pytest.importorskip("jax", reason="jax is not installed: pip install gpuconv[peers]")
    module = pytest.importorskip("keras", reason="keras is not installed: pip install gpuconv[peers]")
    if module.backend.backend() != "jax":
        pytest.skip("Keras was imported with another backend than JAX")
    return module


def random_model(keras, rng):
    ndim = int(rng.integers(1, 4))
    pick = lambda *values: values[rng.integers(len(values))]  # noqa: E731
    made = [keras.layers.Input((*rng.integers(5, 8, ndim).tolist(), 2))]
    for _ in range(rng.integers(1, 4)):
        transposed = rng.random() < 0.5
        kind = getattr(keras.layers, f"Conv{ndim}D{'Transpose' if transposed else ''}")
        made.append(
            kind(
                int(rng.integers(1, 4)), rng.integers(1, 4, ndim).tolist(), pick(1, 2) if transposed else 1,
                padding=pick("valid", "same") if transposed else "same",
                activation=pick(None, "relu", "tanh", "gelu"), use_bias=pick(True, False),
                dtype="float32", trainable=pick(True, False),
            )
        )  # fmt: skip
        made.append(
            pick(
                keras.layers.LeakyReLU(),
                keras.layers.ReLU(6.0),
                keras.layers.ELU(),
                keras.layers.Dropout(0.1),
            )
        )
    if rng.random() < 0.5:
        return keras.Sequential(made)
    signal = made[0]
    if rng.random() < 0.5:
        return keras.Sequential([signal, keras.Sequential(made[1:3]), *made[3:]])
    output = signal
    for layer in made[1:]:
        output = layer(output)
    return keras.Model(signal, output)


# Keras' own code, on saving the legacy form.
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_what_keras_writes_now(keras, tmp_path, deep):
    rng = np.random.default_rng(2027)
    for _ in range(300 if deep else 8):
        theirs = random_model(keras, rng)
        for variable in theirs.weights:
            variable.assign(rng.standard_normal(variable.shape))
        x = rng.standard_normal((2, *theirs.input_shape[1:])).astype("float32")
        expected = np.asarray(theirs(x))
        for suffix in (".keras", ".h5"):
            path = tmp_path / f"model{suffix}"
            theirs.save(path)
            ours = gpuconv.load(path)
            assert np.all(np.abs(ours(x) - expected) <= chain_bound(ours, x))
        theirs.save_weights(tmp_path / "model.weights.h5")
        weights = ours.get_weights()
        ours.set_weights([0 * weight for weight in weights])
        gpuconv.load(tmp_path / "model.weights.h5", into=ours)
        for weight, old in zip(ours.weights, weights, strict=True):
            np.testing.assert_array_equal(weight, old)
