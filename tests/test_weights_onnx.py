"""ONNX files: chains of nodes, what is refused, and what damaged files do."""

import sys
from pathlib import Path

import numpy as np
import pytest

import gpuconv
from gpuconv import activations
from gpuconv.layers import Activation, Conv1DTranspose, Dropout, Input, Sequential
from tests.bounds import chain_bound
from tests.mutations import check_refusals, mutated, refusal, run_if_small

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install gpuconv[weights]")
node, tensor = onnx.helper.make_node, onnx.numpy_helper.from_array

FOLDER = Path(__file__).parent / "data" / "weights"
PREDICTIONS = np.load(FOLDER / "predictions.npz")
FLOAT = onnx.TensorProto.FLOAT
W = np.arange(12, dtype="float32").reshape(2, 3, 2) - 5
CONV = node("ConvTranspose", ["x", "w"], ["h"])


def weight(values=W, name="w"):
    return tensor(np.asarray(values), name)


def proto(nodes, weights, *, shape=("n", 2, "t"), kind=FLOAT, version=22, output=None, inputs=(), domains=()):
    """A model of these nodes; the last one's output is the graph's."""
    make = onnx.helper
    made = nodes[-1].output[0] if output is None else output
    graph = make.make_graph(
        nodes,
        "made",
        [make.make_tensor_value_info("x", kind, shape), *inputs],
        [make.make_tensor_value_info(made, kind, None)],
        weights,
    )
    versions = [make.make_opsetid("", version), *(make.make_opsetid(domain, 1) for domain in domains)]
    return make.make_model(graph, opset_imports=versions, ir_version=10)


@pytest.fixture
def file(tmp_path):
    """A function that writes a model and gives its path."""

    def write(model):
        path = tmp_path / "model.onnx"
        path.write_bytes(model.SerializeToString())
        return path

    return write


# --- models --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["chain_1d.onnx", "chain_2d.onnx", "chain_3d.onnx"])
def test_a_model_predicts_what_onnx_runtime_did(name):
    model = gpuconv.load(FOLDER / name)
    x, expected = PREDICTIONS[f"{name}:x"], PREDICTIONS[f"{name}:y"]
    y = model(x)
    assert y.dtype == np.float32
    assert y.shape == expected.shape
    assert np.all(np.abs(y - expected) <= chain_bound(model, x))


def test_names_and_shapes():
    model = gpuconv.load(FOLDER / "chain_1d.onnx")
    assert model.name == "chain_1d"
    assert model.input_shape == (None, 2, 9)
    names = [layer.name for layer in model.layers]
    assert names[:5] == ["x", "net.0.Conv", "net.1.LeakyRelu", "net.2.Dropout", "net.3.Conv"]
    assert names[5:] == ["elu", "conv", "tanh", "conv_1", "clip", "softmax"]
    assert [layer.rate for layer in model.layers if isinstance(layer, Dropout)] == [0.25]
    assert Sequential.from_config(model.get_config()).count_params() == model.count_params()


def test_weights_go_into_a_model():
    model = gpuconv.load(FOLDER / "chain_1d.onnx")
    weights = model.get_weights()
    model.set_weights([0 * weight for weight in weights])
    assert gpuconv.load(FOLDER / "chain_1d.onnx", into=model) is model
    for found, old in zip(model.weights, weights, strict=True):
        np.testing.assert_array_equal(found, old)
    other = Sequential([Input((2, None)), Conv1DTranspose(3, 2, data_format="channels_first")])
    assert "Received shapes [(3, 1, 4)," in refusal(
        lambda p: gpuconv.load(p, into=other), FOLDER / "chain_1d.onnx"
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("raw", [True, False])
def test_other_types(file, dtype, raw):
    ml_dtypes = pytest.importorskip(
        "ml_dtypes", reason="ml_dtypes is not installed: pip install gpuconv[test]"
    )
    found = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    kind = {"float16": 10, "bfloat16": 16, "float64": 11}[dtype]
    values = W.astype(found)
    stored = weight(values) if raw else onnx.TensorProto(name="w", data_type=kind, dims=W.shape)
    if not raw:
        bits = values if dtype == "float64" else values.view(np.uint16)
        getattr(stored, "double_data" if dtype == "float64" else "int32_data").extend(bits.ravel().tolist())
    model = gpuconv.load(file(proto([CONV], [stored], kind=kind)))
    kernel = model.weights[0]
    assert kernel.dtype == found
    np.testing.assert_array_equal(kernel, values.transpose(2, 1, 0))
    assert model(np.ones((1, 2, 3))).dtype == found


def test_float_data_and_old_files(file):
    """Before version 4 of the format the weights were inputs, too; a weight may be no bytes."""
    stored = onnx.TensorProto(name="w", data_type=FLOAT, dims=W.shape)
    stored.float_data.extend(W.ravel().tolist())
    described = onnx.helper.make_tensor_value_info("w", FLOAT, W.shape)
    model = gpuconv.load(file(proto([CONV], [stored], inputs=[described])))
    np.testing.assert_array_equal(model.weights[0], W.transpose(2, 1, 0))


@pytest.mark.parametrize(
    ("made", "version", "constants", "wanted"),
    [
        (node("Clip", ["x"], ["y"], min=0.0, max=2.0), 9, (), {"max_value": 2.0}),
        (node("Clip", ["x", "low", "high"], ["y"]), 13, (-1, 1), activations.hard_tanh),
        (node("Clip", ["x", "low", "high"], ["y"]), 13, (0, 6), {"max_value": 6.0}),
        (node("Elu", ["x"], ["y"], alpha=0.5), 6, (), {"alpha": 0.5}),
        (node("Gelu", ["x"], ["y"], approximate="tanh"), 20, (), {"approximate": True}),
        (node("LeakyRelu", ["x"], ["y"]), 16, (), {"negative_slope": 0.01}),
        (node("ThresholdedRelu", ["x"], ["y"], alpha=2.0), 10, (), {"threshold": 2.0, "default_value": 0.0}),
        (node("LogSoftmax", ["x"], ["y"], axis=1), 13, (), {"axis": 1}),
        (node("Softmax", ["x"], ["y"]), 13, (), {"axis": -1}),
    ],
)
def test_parameters_of_activations(file, made, version, constants, wanted):
    numbers = [
        tensor(np.float32(value), name) for value, name in zip(constants, ("low", "high"), strict=False)
    ]
    model = gpuconv.load(file(proto([made], numbers, version=version)))
    (layer,) = (layer for layer in model.layers if isinstance(layer, Activation))
    if callable(wanted):
        assert layer.activation is wanted
    else:
        assert layer.activation.keywords == pytest.approx(wanted)
    evaluator = pytest.importorskip("onnx.reference").ReferenceEvaluator
    expected = evaluator(proto([made], numbers, version=version))
    x = np.linspace(-3, 7, 24, dtype="float32").reshape(2, 2, 6)
    np.testing.assert_allclose(model(x), expected.run(None, {"x": x})[0], rtol=1e-5, atol=1e-6)


def test_dropout_of_all_versions(file):
    for made, version, rate in (
        (node("Dropout", ["x"], ["y"], ratio=0.25), 10, 0.25),
        (node("Dropout", ["x"], ["y"]), 13, 0.5),
        (node("Dropout", ["x", "", "training"], ["y"]), 13, 0.5),
    ):
        model = gpuconv.load(file(proto([made], [tensor(np.array(False), "training")], version=version)))
        assert model.layers[-1].rate == rate


# --- what is not supported -----------------------------------------------------------------------

X_ALONE = "'x' and constants of the file, each used once, are supported"


def elsewhere(array):
    array.data_location = onnx.TensorProto.EXTERNAL
    array.external_data.add(key="location", value="/etc/passwd")
    return array


def lying(**fields):
    stored = weight()
    for name, value in fields.items():
        if name == "dims":
            del stored.dims[:]
            stored.dims.extend(value)
        else:
            setattr(stored, name, value)
    return stored


def conv(op="ConvTranspose", inputs=("x", "w"), **attributes):
    return node(op, inputs, ["h"], "named", **attributes)


REFUSED = {
    "another operator": (
        proto([node("MaxPool", ["x"], ["y"], "pool", kernel_shape=[2])], []),
        "node 'pool' (MaxPool): it is not supported. Supported are Celu, Clip, Conv, ConvTranspose, ",
    ),
    "another domain": (
        proto([node("Relu", ["x"], ["y"], domain="mine")], [], domains=["mine"]),
        "(Relu): it is not supported",
    ),
    "a branch": (
        proto([node("Relu", ["x"], ["a"]), node("Tanh", ["x"], ["y"])], []),
        "(Tanh): it is given ['x']; 'a' and",
    ),
    "swish": (
        proto([node("Sigmoid", ["x"], ["a"]), node("Mul", ["x", "a"], ["y"], "times")], []),
        "'times' (Mul): it is not",
    ),
    "an unknown weight": (proto([CONV], []), "(ConvTranspose): it is given ['x', 'w']; " + X_ALONE),
    "a weight used twice": (
        proto([CONV, node("Conv", ["h", "w"], ["y"])], [weight()]), "(Conv): it is given ['h', 'w']",
    ),
    "a weight as bias": (
        proto([conv(inputs=("x", "w", "w"))], [weight()]), "Received shapes [(2, 3, 2), (2, 3, 2)]",
    ),
    "too many inputs": (proto([conv(inputs=("x", *"wwww"))], [weight()]), X_ALONE),
    "a weight of nothing": (proto([CONV], [lying(dims=[0, 2**62, 3], raw_data=b"")]), "array is too big"),
    "another output": (
        proto([CONV], [weight()], output="x"), "its output 'x' is not what its last node makes",
    ),
    "two inputs": (
        proto([CONV], [weight()], inputs=[onnx.helper.make_tensor_value_info("z", FLOAT, [1])]),
        "it has 2 inputs",
    ),
    "integer input": (
        proto([node("Relu", ["x"], ["y"])], [], kind=7), "its input is not of float32, float16",
    ),
    "no shape": (proto([CONV], [weight()], shape=None), "it does not say the shape of its input"),
    "no channels": (proto([CONV], [weight()], shape=(1, "c", 5)), "(ConvTranspose): Expected a known number"),
    "other channels": (proto([CONV], [weight()], shape=(1, 3, 5)), "Expected weights of shapes [(2, 3, 3)]"),
    "another rank": (proto([CONV], [weight()], shape=(1, 2, 5, 5)), "Expected input of 3 dimensions"),
    "a matrix": (proto([CONV], [weight(W[0])]), "its weight is not a constant of 3 to 5 axes"),
    "strides and dilation": (
        proto([conv(strides=[2], dilations=[2])], [weight()]),
        "node 'named' (ConvTranspose): Expected strides or dilation_rate above 1, not both",
    ),
    "an output shape": (proto([conv(output_shape=[7])], [weight()]), "its output_shape fixes the lengths"),
    "an automatic output padding": (
        proto([conv(auto_pad="SAME_UPPER", output_padding=[1], strides=[2])], [weight()]),
        "auto_pad and output_pad",
    ),
    "another automatic padding": (proto([conv(auto_pad="BOTH")], [weight()]), "its auto_pad is 'BOTH'"),
    "negative pads": (proto([conv(pads=[-1, 0])], [weight()]), "Expected padding to be at least 0"),
    "pads of another rank": (proto([conv(pads=[1])], [weight()]), "its pads is [1], not 2 integers"),
    "strides of another kind": (proto([conv(strides=2.5)], [weight()]), "its 'strides' is no attribute of"),
    "groups of another kind": (proto([conv(group="x")], [weight()]), "its 'group' is no attribute of"),
    "a fraction of groups": (proto([conv(group=1.5)], [weight()]), "its 'group' is no attribute of the"),
    "a fraction as axis": (
        proto([node("Softmax", ["x"], ["y"], axis=1.5)], []), "its 'axis' is no attribute of the operator",
    ),
    "an attribute of another operator": (
        proto([node("Relu", ["x"], ["y"], alpha=0.5)], []), "its 'alpha' is no attribute of the operator",
    ),
    "an input that is not used": (
        proto([node("Relu", ["x", "w"], ["y"])], [weight()]), "(Relu): it is given ['x', 'w']; " + X_ALONE,
    ),
    "an operator before its time": (
        proto([node("Gelu", ["x"], ["y"])], [], version=19), "version 19 of ONNX's operators has no Gelu",
    ),
    "a version without end": (
        proto([node("Relu", ["x"], ["y"])], [], version=2**40), "of ONNX's operators has no Relu",
    ),
    "two paddings": (
        proto([conv(auto_pad="SAME_UPPER", pads=[1, 0])], [weight()]),
        "it has auto_pad='SAME_UPPER' and pads=[1, 0]",
    ),
    "an automatic padding of gaps": (
        proto([conv(auto_pad="SAME_LOWER", strides=[3])], [weight()]),
        "its auto_pad is SAME, and a stride exceeds",
    ),
    "a weight of another type": (
        proto([CONV], [weight(W.astype("float64"))]), "is not of its input's type, float32",
    ),
    "whole numbers as weight": (
        proto([CONV], [weight(W.astype("int64"))]), "is not of its input's type, float32",
    ),
    "two weights of a name": (proto([CONV], [weight(), weight(2 * W)]), "it gives two constants one name"),
    "a constant of a weight's name": (
        proto([node("Constant", [], ["w"], value=weight(2 * W)), CONV], [weight()]), "two constants one name",
    ),
    "an output of a weight's name": (
        proto([node("Relu", ["x"], ["w"]), CONV], [weight()]), "it gives the name 'w' twice",
    ),
    "no groups": (proto([conv(group=0)], [weight()]), "(ConvTranspose): Expected"),
    "another kernel shape": (
        proto([conv(kernel_shape=[5])], [weight()]), "its kernel_shape is not that of its",
    ),
    "a tensor as attribute": (
        proto([conv(strides=weight())], [weight()]), "its 'strides' is no attribute of the operator, or of",
    ),
    "a slope without end": (
        proto([node("LeakyRelu", ["x"], ["y"], alpha=float("inf"))], []), "its alpha is inf, not a finite",
    ),
    "another selu": (
        proto([node("Selu", ["x"], ["y"], alpha=1.5)], []), "its alpha is 1.5; 1.67326319 is supported",
    ),
    "another hard sigmoid": (
        proto([node("HardSigmoid", ["x"], ["y"])], []), "its alpha is 0.2 and its beta 0.5;",
    ),
    "another clip": (
        proto([node("Clip", ["x"], ["y"])], []), "its bounds are None and None; 0 and a number above",
    ),
    "a clip by an array": (
        proto([node("Clip", ["x", "w"], ["y"])], [weight()]),
        "its input 1 has the shape (2, 3, 2), and should be one",
    ),
    "another gelu": (
        proto([node("Gelu", ["x"], ["y"], approximate="x")], []), "its approximate is 'x', neither",
    ),
    "an old softmax": (proto([node("Softmax", ["x"], ["y"])], [], version=11), "it flattens its input"),
    "dropout in inference": (
        proto([node("Dropout", ["x", "", "t"], ["y"])], [tensor(np.array(True), "t")]),
        "it drops in inference too",
    ),
    "a weight elsewhere": (
        proto([CONV], [elsewhere(weight())]), "its 'w' is in another file: save the model as one file",
    ),
    "an integer weight": (
        proto([CONV], [weight(W.astype("uint8"))]), "its 'w' is not of float32, float16, float64",
    ),
    "a huge weight": (
        proto([CONV], [lying(dims=[2**40, 2**20, 3])]),
        "its 'w' has 48 bytes for the shape [1099511627776, 1048576, 3]",
    ),
    "a negative weight": (
        proto([CONV], [lying(dims=[-2, 3, -2])]), "its 'w' has 48 bytes for the shape [-2, 3, -2]",
    ),
    "too many axes": (proto([CONV], [lying(dims=[1] * 33)]), "its 'w' has 48 bytes for the shape [1, 1,"),
    "a cut off weight": (proto([CONV], [lying(raw_data=bytes(47))]), "its 'w' has 47 bytes"),
    "a constant of no tensor": (
        proto([node("Constant", [], ["w"], "c", value_int=1), CONV], []),
        "node 'c' (Constant) does not hold a tensor",
    ),
    "too many nodes": (
        proto([node("Relu", ["x"], ["x"]) for _ in range(1001)], []),
        "it has 1001 nodes; 1000 are read at most",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", list(REFUSED))
def test_what_is_not_supported_is_named(file, case):
    model, part = REFUSED[case]
    path = file(model)
    message = refusal(gpuconv.load, path)
    assert message.startswith(f"Expected an .onnx file. Received {path}: ")
    assert part in message


def test_versions_that_are_missing(file):
    model = proto([CONV], [weight()])
    del model.opset_import[:]
    assert "does not say which version of ONNX's operators" in refusal(gpuconv.load, file(model))


def test_functions_of_the_file_are_not_operators(file):
    model = proto([node("Relu", ["x"], ["y"])], [])
    model.functions.add(name="Relu", domain="mine", output=["o"])
    assert gpuconv.load(file(model)).layers[-1].name == "relu"
    model.functions.add(name="Relu", output=["o"])
    assert "it has functions in the place of ONNX's operators" in refusal(gpuconv.load, file(model))


def test_a_file_of_something_else(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\xff" * 100)
    assert "Error parsing message" in refusal(gpuconv.load, path)
    with path.open("wb") as file:
        file.truncate(2**31)  # which takes no space
    assert "it is larger than the 2147483647 bytes that protobuf reads" in refusal(gpuconv.load, path)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r'the package onnx.* pip install "gpuconv\[weights\]"'):
        gpuconv.load(FOLDER / "chain_1d.onnx")


# --- damaged files -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["chain_1d.onnx", "chain_2d.onnx", "chain_3d.onnx"])
def test_damaged_files(tmp_path, deep, name):
    seeds = range(5000 if deep else 80)
    runs = lambda path: run_if_small(gpuconv.load(path))  # noqa: E731
    sound = check_refusals(runs, tmp_path / name, mutated, (FOLDER / name).read_bytes(), seeds)
    assert 0 < sound < len(seeds)


# --- ONNX Runtime itself -------------------------------------------------------------------------


def random_chain(rng):
    """Nodes and weights of a chain of convolutions, and a shape that fits."""
    ndim, channels, nodes, weights = int(rng.integers(1, 4)), 2, [], []
    per_axis = lambda low, high: [int(n) for n in rng.integers(low, high, ndim, endpoint=True)]  # noqa: E731
    for i in range(int(rng.integers(1, 4))):
        transposed, group = rng.random() < 0.5, int(rng.choice([1, 2]))
        filters, size = 2 * int(rng.integers(1, 3)), per_axis(1, 3)
        shape = (channels, filters // group, *size) if transposed else (filters, channels // group, *size)
        settings = {"group": group, "pads": [n // 2 for n in size] * 2}
        if transposed:
            settings["strides"] = per_axis(1, 2)
            settings["output_padding"] = [int(rng.integers(n)) for n in settings["strides"]]
        elif rng.random() < 0.5:
            settings = {"group": group, "auto_pad": str(rng.choice(["SAME_UPPER", "SAME_LOWER"]))}
        weights.append(tensor(rng.standard_normal(shape).astype("float32"), f"w{i}"))
        weights.append(tensor(rng.standard_normal(filters).astype("float32"), f"b{i}"))
        inputs = [f"h{i}", f"w{i}", f"b{i}"][: int(rng.integers(2, 4))]
        nodes.append(node("ConvTranspose" if transposed else "Conv", inputs, [f"c{i}"], **settings))
        nodes.append(
            node(
                str(rng.choice(["Relu", "Tanh", "Sigmoid", "Softplus", "Identity"])), [f"c{i}"], [f"h{i + 1}"]
            )
        )
        channels = filters
    nodes[0].input[0] = "x"
    return nodes, weights, (2, 2, *per_axis(5, 7))  # ONNX Runtime makes no empty arrays


def test_what_onnx_runtime_computes_now(file, deep):
    runtime = pytest.importorskip(
        "onnxruntime", reason="onnxruntime is not installed: pip install gpuconv[peers]"
    )
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3  # errors only
    rng = np.random.default_rng(2028)
    for _ in range(500 if deep else 40):
        nodes, weights, shape = random_chain(rng)
        path = file(proto(nodes, weights, shape=shape))
        x = rng.standard_normal(shape).astype("float32")
        session = runtime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
        expected = session.run(None, {"x": x})[0]
        model = gpuconv.load(path)
        y = model(x)
        assert y.shape == expected.shape
        assert np.all(np.abs(y - expected) <= chain_bound(model, x))
