"""Make tests/data/weights: small models of Keras, PyTorch and ONNX with what their makers compute.

Run it from the checkout, with the extras `peers` and `test`: ``python -m tests.make_weight_files``.
The predictions go to ``predictions.npz``, as ``<file>:x`` and ``<file>:y``.
"""

import os
import warnings
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"

import jax
import keras
import numpy as np
import onnx
import onnxruntime
import safetensors.torch
import torch
from keras import layers as kl
from onnx import TensorProto, helper

FOLDER = Path(__file__).parent / "data" / "weights"


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_enable_x64", True)
    warnings.simplefilter("ignore")
    rng = np.random.default_rng(2026)
    predictions: dict[str, np.ndarray] = {}
    for made in (keras_files(rng), torch_files(rng), onnx_files(rng)):
        for name, x, y in made:
            predictions[f"{name}:x"], predictions[f"{name}:y"] = x, y
            print(name, x.shape, y.shape, y.dtype)
    np.savez_compressed(FOLDER / "predictions.npz", **predictions)
    print(sum(path.stat().st_size for path in FOLDER.iterdir()), "bytes")


# --- Keras ---------------------------------------------------------------------------------------


def keras_models():
    """Name, suffixes, and model."""
    generator = keras.random.SeedGenerator(7)
    glorot = keras.initializers.GlorotUniform(seed=generator)
    one = keras.Sequential(
        [
            kl.Input((12, 2)),
            kl.Conv1D(4, 3, 2, "same", groups=2, activation="gelu", name="down"),
            kl.LeakyReLU(0.1),
            kl.Dropout(0.3, seed=3),
            kl.Conv1DTranspose(4, 3, 2, "same", output_padding=1, use_bias=False, name="up"),
            kl.ReLU(max_value=6.0, negative_slope=0.05, threshold=0.1),
            kl.Conv1D(3, 2, padding="causal", dilation_rate=2, activation="tanh", name="last"),
            kl.ELU(0.7),
            kl.Activation("softplus"),
            kl.Softmax(),
        ],
        name="one_axis",
    )
    yield "one_axis", (".keras", ".h5", ".weights.h5"), one
    signal = keras.Input((5, 6, 2), name="picture")
    inner = kl.Conv2D(3, 2, activation="relu", name="encoder")(signal)
    inner = kl.ReLU(name="rectified")(inner)
    inner = kl.Dropout(0.5, name="dropped")(inner, training=False)
    made = kl.Conv2DTranspose(1, (3, 2), (2, 1), name="decoder")(inner)
    yield "two_axes", (".keras", ".h5"), keras.Model(signal, made, name="functional")
    part = keras.Sequential([kl.Conv3D(2, 2, name="a"), kl.Conv3DTranspose(2, 2, name="b")], name="part")
    part.build((None, 3, 3, 3, 1))
    part.layers[0].trainable = False  # the legacy form keeps what is frozen behind what is not
    three = keras.Sequential([part, kl.Conv3D(1, 1, name="c")], name="three_axes")
    three.build((None, 3, 3, 3, 1))
    yield "three_axes", (".keras", ".h5", ".weights.h5"), three
    adapted = keras.Sequential(
        [
            kl.Input((6, 2)),
            kl.Conv1D(3, 2, kernel_initializer=glorot, name="plain"),
            kl.Conv1D(2, 2, name="adapted"),
            kl.Dropout(0.5),
        ],
        name="adapted",
    )
    adapted.layers[1].enable_lora(1, lora_alpha=3)
    yield "adapted", (".keras", ".h5"), adapted
    for dtype in ("float16", "bfloat16", "float64"):
        layers = [kl.Input((5, 2), dtype=dtype), kl.Conv1DTranspose(3, 3, 2, dtype=dtype, name="up")]
        yield dtype, (".keras",), keras.Sequential(layers, name=dtype)


def keras_files(rng):
    for name, suffixes, model in keras_models():
        # Biases too are to be seen.
        for variable in model.variables:
            if "seed" not in variable.path:
                variable.assign(rng.standard_normal(variable.shape) / 2)
        x = rng.standard_normal((2, *model.input_shape[1:])).astype(model.layers[-1].compute_dtype)
        y = np.asarray(model(x, training=False))
        wide = y.astype("float32") if y.dtype == "bfloat16" else y
        for suffix in suffixes:
            path = FOLDER / f"{name}{suffix}"
            (model.save_weights if suffix == ".weights.h5" else model.save)(path)
            yield path.name, x.astype("float32") if y.dtype == "bfloat16" else x, wide


# --- PyTorch -------------------------------------------------------------------------------------


def torch_models():
    """Name and module; `tests/test_weights_safetensors.py` has the same models of ours."""
    nn = torch.nn
    # Numbered to 10, which comes before 2 in the order of texts.
    numbered = [nn.Conv1d(2, 4, 3, padding=1, groups=2), *(nn.Tanh() for _ in range(1))]
    numbered += [nn.ConvTranspose1d(4, 4, 4, 2, 1, groups=2), *(nn.Tanh() for _ in range(7))]
    numbered += [nn.Conv1d(4, 3, 2, bias=False)]
    yield "plain", nn.Sequential(*numbered)
    old, new = torch.nn.utils.weight_norm, torch.nn.utils.parametrizations.weight_norm
    for version, norm in ((1, old), (2, new)):
        layers = [
            norm(nn.ConvTranspose1d(2, 3, 4, 2)),
            nn.LeakyReLU(0.1),
            norm(nn.ConvTranspose1d(3, 2, 3), dim=1),
            norm(nn.Conv1d(2, 2, 3), dim=None),
        ]
        yield f"weight_norm_{version}", nn.Sequential(*layers)
    yield "bfloat16", nn.Sequential(nn.ConvTranspose2d(2, 3, (2, 3), (2, 1))).to(torch.bfloat16)


def torch_files(rng):
    for name, model in torch_models():
        dtype = next(model.parameters()).dtype
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.asarray(rng.standard_normal(tuple(parameter.shape)) / 2))
            shape = (2, 2, 6, 5)[: next(m.weight.ndim for m in model if hasattr(m, "weight"))]
            x = torch.asarray(rng.standard_normal(shape)).to(dtype)
            y = model(x)
        path = FOLDER / f"{name}.safetensors"
        safetensors.torch.save_file(model.state_dict(), path)
        path.chmod(0o644)  # which safetensors makes its writer's alone
        yield path.name, x.float().numpy(), y.float().numpy()


# --- ONNX ----------------------------------------------------------------------------------------


def onnx_models(rng):
    """Name, nodes, initializers, and shape of the input."""

    def weight(name, *shape, dtype="float32"):
        return onnx.numpy_helper.from_array((rng.standard_normal(shape) / 2).astype(dtype), name)

    number, node = onnx.numpy_helper.from_array, helper.make_node
    yield (
        "chain_1d",
        [
            node("Conv", ["x", "w0", "b0"], ["h0"], "/net/0/Conv", pads=[1, 2], strides=[2], group=2),
            node("LeakyRelu", ["h0"], ["h1"], "/net/1/LeakyRelu", alpha=0.1),
            node("Dropout", ["h1", "ratio"], ["h2", "mask"], "/net/2/Dropout"),
            node(
                "ConvTranspose", ["h2", "w1", "b1"], ["h3"], "/net/3/Conv", pads=[1, 0], strides=[2],
                output_padding=[1], group=2,
            ),
            node("Elu", ["h3"], ["h4"], alpha=0.5),
            node("Conv", ["h4", "w2"], ["h5"], auto_pad="SAME_UPPER", strides=[2], kernel_shape=[4]),
            node("Tanh", ["h5"], ["h6"]),
            node("Conv", ["h6", "w3"], ["h7"], dilations=[2]),
            node("Clip", ["h7", "low", "high"], ["h8"]),
            node("Softmax", ["h8"], ["y"], axis=1),
        ],
        [
            weight("w0", 4, 1, 3), weight("b0", 4), weight("w1", 4, 2, 3), weight("b1", 4),
            weight("w2", 3, 4, 4), weight("w3", 3, 3, 2), number(np.float32(0.25), "ratio"),
            number(np.float32(0), "low"), number(np.float32(6), "high"),
        ],
        ("samples", 2, 9),
    )  # fmt: skip
    activations = ["Celu", "Gelu", "HardSwish", "Identity", "Mish", "Relu", "Selu", "Sigmoid", "Softplus",
                   "Softsign", "Tanh", "ThresholdedRelu", "LogSoftmax"]  # fmt: skip
    nodes = [node("ConvTranspose", ["x", "w0", "b0"], ["h0"], strides=[2, 1], auto_pad="VALID")]
    for i, op in enumerate(activations):
        nodes.append(node(op, [f"h{i}"], [f"h{i + 1}"]))
    nodes.append(node("Conv", [f"h{len(activations)}", "w1"], ["y"], auto_pad="SAME_LOWER"))
    yield (
        "chain_2d",
        nodes,
        [weight("w0", 2, 3, 1, 2), weight("b0", 3), weight("w1", 2, 3, 2, 2)],
        (1, 2, 3, 4),
    )
    nodes = [
        node("Constant", [], ["w0"], value=weight("", 1, 2, 2, 1, 3)),
        node(
            "ConvTranspose",
            ["x", "w0"],
            ["h0"],
            strides=[2, 1, 1],
            auto_pad="SAME_UPPER",
            kernel_shape=[2, 1, 3],
        ),
        node("HardSigmoid", ["h0"], ["h1"], alpha=1 / 6),
        node("Exp", ["h1"], ["h2"]),
        node("Conv", ["h2", "w1", "b1"], ["y"], pads=[0, 1, 0, 1, 0, 1]),
    ]
    yield "chain_3d", nodes, [weight("w1", 2, 2, 2, 2, 2), weight("b1", 2)], (1, 1, 2, 3, 2)


def onnx_files(rng):
    for name, nodes, weights, shape in onnx_models(rng):
        described = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
        made = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * len(shape))
        graph = helper.make_graph(nodes, name, [described], [made], weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
        onnx.checker.check_model(model)
        path = FOLDER / f"{name}.onnx"
        path.write_bytes(model.SerializeToString())
        x = rng.standard_normal([2 if n == "samples" else n for n in shape]).astype("float32")
        yield path.name, x, onnxruntime.InferenceSession(path).run(None, {"x": x})[0]


if __name__ == "__main__":
    main()
