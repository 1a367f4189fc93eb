"""Keras' files that are not loaded: calls that cannot be, what is not supported, damaged and lying files."""

import json
import zipfile
from pathlib import Path

import pytest

import gpuconv
from gpuconv.layers import Conv1D, Sequential
from tests.mutations import (
    check_refusals,
    filling,
    members_of,
    mutated,
    refusal,
    run_if_small,
    zip_mutated,
    zipped,
)

FOLDER = Path(__file__).parent / "data" / "weights"


def test_calls_that_cannot_be():
    name = FOLDER / "one_axis.weights.h5"
    with pytest.raises(ValueError, match=r"weights\.h5: it holds weights alone, no layers\. .* into=model"):
        gpuconv.load(name)
    with pytest.raises(ValueError, match="Expected into to be built"):
        gpuconv.load(name, into=Sequential([Conv1D(2, 3)]))
    with pytest.raises(TypeError, match="Expected into to be a Sequential"):
        gpuconv.load(name, into=Conv1D(2, 3))
    with pytest.raises(FileNotFoundError):
        gpuconv.load(FOLDER / "none.keras")
    with pytest.raises(ValueError, match="which is a directory or a device"):
        gpuconv.load(FOLDER)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        (
            "x.txt",
            b"some text",
            r"one of the kinds \.keras, \.h5, \.safetensors, \.onnx\. Received .*x\.txt\.",
        ),
        ("x.pt", b"", "a pickle, which can run code: save with safetensors instead"),
        ("x", b"\x80\x04pickled", "a pickle"),
        ("x.keras", b"", r"Expected a \.keras file\. Received .*: File is not a zip file\."),
        ("x.h5", b"", r"Expected a Keras \.h5 file\. Received .*: it breaks off"),
        ("x.hdf5", b"", r"Expected a Keras \.h5 file"),
        ("x.pth", zipped({"archive/data.pkl": b"\x80"}), "no config.json, but a pickle"),
    ],
)
def test_files_of_no_known_kind(tmp_path, name, data, message):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message):
        gpuconv.load(path)


# --- what is not supported -----------------------------------------------------------------------


def changed(tmp_path, name, change):
    """A copy of a .keras file with its configuration changed."""
    members = members_of((FOLDER / name).read_bytes())
    config = json.loads(members["config.json"])
    change(config)
    path = tmp_path / "model.keras"
    path.write_bytes(zipped({**members, "config.json": json.dumps(config)}))
    return path


def layer(index, **values):
    """A change of a configuration: of what it says of the layer `index`."""
    return lambda config: config["config"]["layers"][index].update(values)


def settings(index, **values):
    """A change of the layer's own configuration."""
    return lambda config: config["config"]["layers"][index]["config"].update(values)


def model(**values):
    return lambda config: config["config"].update(values)


def call(index, **values):
    """A change of how the layer is called in a functional model."""
    return lambda config: config["config"]["layers"][index]["inbound_nodes"][0].update(values)


def tensor(*history):
    """An argument: the output of a layer."""
    return {"class_name": "__keras_tensor__", "config": {"keras_history": list(history)}}


def calls(index, number):
    def change(config):
        config["config"]["layers"][index]["inbound_nodes"] *= number

    return change


def unbuilt(config):
    del config["config"]["layers"][0], config["config"]["build_input_shape"], config["build_config"]


def policy(name, class_name="DTypePolicy"):
    return {"module": "keras", "class_name": class_name, "config": {"name": name}, "registered_name": None}


ONE, TWO = "one_axis.keras", "two_axes.keras"
SUPPORTED = (
    "which is not supported. Supported are Activation, Conv1D, Conv1DTranspose, Conv2D, Conv2DTranspose, "
    "Conv3D, Conv3DTranspose, Dropout, ELU, Functional, InputLayer, LeakyReLU, ReLU, Sequential, Softmax."
)
MIXED = (
    "layer 'down' (Conv1D): it has the policy 'mixed_bfloat16', which computes in another type than its "
    "weights have. Set its dtype to 'float32' in Keras, and save it again."
)
MINE = {"module": "builtins", "class_name": "function", "config": "mine"}
LAMBDA = {"class_name": "__lambda__", "config": {"value": "4wEA"}}
#: A file, what is changed in its configuration, and parts of the message.
REFUSED = {
    "another layer": (
        ONE, layer(3, class_name="SpatialDropout1D"),
        "layer 'dropout' is of the class 'SpatialDropout1D', " + SUPPORTED,
    ),
    "a lambda": (ONE, layer(2, class_name="Lambda"), "layer 'leaky_re_lu' is of the class 'Lambda', "),
    "a class from elsewhere": (ONE, layer(1, module="mine"), "'down' is of the class 'Conv1D' of 'mine'"),
    "a registered class": (ONE, layer(1, registered_name="mine>X"), "'down' is of the class 'Conv1D' of"),
    "an activation from elsewhere": (
        ONE, settings(1, activation=MINE), "layer 'down' (Conv1D): Expected the name of a known activation"
    ),
    "a serialized lambda": (ONE, settings(1, activation=LAMBDA), "layer 'down' (Conv1D)", "value='4wEA'"),
    "a regularizer from elsewhere": (
        ONE, settings(1, kernel_regularizer={"module": "mine", "class_name": "L2", "config": {}}),
        "layer 'down' (Conv1D): Expected the config of a built-in regularizer",
    ),
    "a mixed policy": (ONE, settings(1, dtype=policy("mixed_bfloat16")), MIXED),
    "a quantized policy": (
        ONE, settings(1, dtype=policy("int8_from_float32", "QuantizedDTypePolicy")),
        "layer 'down' (Conv1D): it has the dtype", "not one of float32, float16, bfloat16, float64",
    ),
    "a map of policies": (ONE, settings(1, dtype=policy(None, "DTypePolicyMap")), "DTypePolicyMap"),
    "a mixed model": (ONE, model(dtype="mixed_float16"), "layer 'one_axis' (Sequential): it has the policy"),
    "integer input": (ONE, settings(0, dtype="int32"), "(InputLayer): it has the dtype 'int32'"),
    "sparse input": (ONE, settings(0, sparse=True), "Received sparse=True"),
    "an unknown setting": (ONE, settings(1, magic=1), "layer 'down' (Conv1D)", "'magic'"),
    "a huge setting": (ONE, settings(1, padding="x" * 10**6), "more than 100000 characters"),
    "a huge name": (ONE, layer(1, class_name="x" * 10**6), "is of the class 'xxx"),
    "no filters": (ONE, settings(1, filters=0), "layer 'down' (Conv1D): Expected filters to be at least 1"),
    "too many filters": (
        ONE, settings(1, filters=10**15),
        "Expected weights of shapes [(3, 1, 1000000000000000)]", "Received shapes [(3, 1, 4), (4,)]",
    ),
    "a number as padding": (ONE, settings(1, padding=2**40), "it has padding=1099511627776, not a text"),
    "a text as slope": (ONE, settings(2, negative_slope="x"), "layer 'leaky_re_lu' (LeakyReLU)", "='x'"),
    "a fraction as axis": (ONE, settings(9, axis=0.5), "'softmax' (Softmax): Expected axis to be an int"),
    "an axis too many": (ONE, settings(9, axis=7), "layer 'softmax' (Softmax): Expected axis"),
    "a huge rate": (ONE, settings(3, rate=10**400), "layer 'dropout' (Dropout)"),
    "a text as trainable": (ONE, model(trainable="no"), "(Sequential): it has trainable='no', not True or"),
    "a text as use_bias": (ONE, settings(4, use_bias="no"), "it has use_bias='no', not True or False"),
    "an activation layer from elsewhere": (
        ONE, settings(1, activation={"module": "mine", "class_name": "ELU", "config": {"name": "e"}}),
        "layer 'down' (Conv1D): its activation is a ELU of 'mine'",
    ),
    "an activation of another dtype": (
        ONE, settings(1, activation={"class_name": "ELU", "config": {"name": "e", "dtype": "float16"}}),
        "layer 'down' (Conv1D): its activation, a ELU, has another dtype than its own",
    ),
    "one bias more": (ONE, settings(4, use_bias=True), "it has 1 weights for layer 'up', which has 2"),
    "two layers of a name": (ONE, settings(6, name="up"), "Expected layers of different names"),
    "not built": (ONE, unbuilt, "model 'one_axis' was saved before it was built, so it has no weights"),
    "a number as layer": (ONE, model(layers=[1]), "a layer is 1, not an object"),
    "a number in a graph": (TWO, model(layers=[1]), "layer 'functional' (Functional): a layer is 1, not"),
    "too many layers": (ONE, model(layers=[{}] * 1010), "it has 1010 layers; 1000 are read at most"),
    "no model": (ONE, lambda c: c.update(c["config"]["layers"][1]), "it holds a Conv1D, not a model"),
    "no adaptation": ("adapted.keras", settings(2, lora_rank=-1), "'adapted' (Conv1D): it has lora_rank=-1"),
    "a shared layer": (
        TWO, calls(2, 2), "layer 'functional' (Functional): it is no plain chain of layers, and only such",
        "models are supported: 'rectified' is called 2 times",
    ),
    "a fork": (TWO, call(3, args=[tensor("encoder", 0, 0)]), "'encoder' feeds two layers"),
    "two inputs": (TWO, calls(3, 0), "it has two inputs"),
    "a merge": (TWO, call(3, args=[tensor("encoder", 0, 0)] * 2), "'dropped' does not have one input"),
    "a loose end": (TWO, model(output_layers=["rectified", 0, 0]), "are not connected one after another"),
    "two outputs": (TWO, model(output_layers=[["decoder", 0, 0]] * 2), "one input and one output"),
    "dropout in inference": (TWO, call(3, kwargs={"training": True}), "called with {'training': True}"),
    "a second output": (TWO, call(2, args=[tensor("encoder", 0, 1)]), "the first output of 'encoder'"),
    "a cycle": (TWO, call(1, args=[tensor("decoder", 0, 0)]), "are not connected one after another"),
}  # fmt: skip


@pytest.mark.parametrize("case", list(REFUSED))
def test_what_is_not_supported_is_named(tmp_path, case):
    name, change, *parts = REFUSED[case]
    path = changed(tmp_path, name, change)
    message = refusal(gpuconv.load, path, most=2 * 10**7)
    assert message.startswith(f"Expected a .keras file. Received {path}: ")
    for part in parts:
        assert part in message
    assert len(message) < 2500


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"config.json": None}, "it holds no config.json"),
        ({"model.weights.h5": None}, "it holds no model.weights.h5"),
        ({"config.json": b"[]"}, "its config.json is no JSON object"),
        ({"config.json": b"{"}, r"its config.json is no JSON \("),
        ({"config.json": b'{"a":' * 10**5}, "its config.json is "),
        ({"config.json": b'{"a":' * 70 + b"1" + b"}" * 70}, "nested more than 64 deep"),
        ({"config.json": b" " * (2**24 + 1)}, "would take 16777217 bytes, and at most 16777216 are read"),
        ({"model.weights.h5": b"PK\x03\x04"}, "it breaks off"),
        ({"model.weights.h5": bytes(96)}, "it does not begin as HDF5 does"),
    ],
)
def test_members_of_the_archive_that_are_not_what_they_should_be(tmp_path, members, message):
    found = {**members_of((FOLDER / ONE).read_bytes()), **members}
    path = tmp_path / "model.keras"
    path.write_bytes(zipped({name: data for name, data in found.items() if data is not None}))
    with pytest.raises(ValueError, match=message):
        gpuconv.load(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["config.json", "model.weights.h5"])
def test_members_of_one_name(tmp_path, name):
    """Which of them is meant would be a guess."""
    path = tmp_path / "model.keras"
    path.write_bytes((FOLDER / ONE).read_bytes())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, b"{}")
    with pytest.raises(ValueError, match=f"it holds 2 members called {name}"):
        gpuconv.load(path)


def test_zip_bombs(tmp_path):
    members = members_of((FOLDER / ONE).read_bytes())
    path = tmp_path / "model.keras"
    path.write_bytes(zipped(members, zipfile.ZIP_DEFLATED))  # compressed, but honest
    assert gpuconv.load(path).count_params() > 0
    bomb = zipped({**members, "model.weights.h5": bytes(10**7)}, zipfile.ZIP_DEFLATED)
    path.write_bytes(bomb)
    assert "model.weights.h5 would take 10000000 bytes, and at most " in refusal(gpuconv.load, path)
    # One that says a smaller size than its contents have.
    path.write_bytes(bomb.replace((10**7).to_bytes(4, "little"), (1000).to_bytes(4, "little")))
    assert "Bad CRC-32" in refusal(gpuconv.load, path)
    # And one that says a larger size.
    size = len(members["model.weights.h5"])
    honest = zipped(members, zipfile.ZIP_DEFLATED)
    path.write_bytes(honest.replace(size.to_bytes(4, "little"), (size + 1).to_bytes(4, "little")))
    assert "its model.weights.h5 breaks off" in refusal(gpuconv.load, path)
    path.write_bytes(zipped(members, zipfile.ZIP_BZIP2))
    assert "compressed in a way that Keras does not use" in refusal(gpuconv.load, path)


# --- damaged files -------------------------------------------------------------------------------


def runs(path):
    run_if_small(gpuconv.load(path))


@pytest.mark.parametrize("name", ["one_axis.keras", "two_axes.keras", "adapted.keras"])
def test_damaged_keras_files(tmp_path, deep, name):
    seeds = range(5000 if deep else 80)
    sound = check_refusals(runs, tmp_path / name, zip_mutated, (FOLDER / name).read_bytes(), seeds)
    assert 0 < sound < len(seeds)


@pytest.mark.parametrize("name", ["one_axis.h5", "three_axes.h5"])
def test_damaged_legacy_files(tmp_path, deep, name):
    seeds = range(5000 if deep else 80)
    sound = check_refusals(runs, tmp_path / name, mutated, (FOLDER / name).read_bytes(), seeds)
    assert 0 < sound < len(seeds)


def test_damaged_weights_fill_all_or_nothing(tmp_path, deep):
    name, seeds = "one_axis.weights.h5", range(5000 if deep else 80)
    model = gpuconv.load(FOLDER / "one_axis.keras")
    sound = check_refusals(filling(model), tmp_path / name, mutated, (FOLDER / name).read_bytes(), seeds)
    assert 0 < sound < len(seeds)
