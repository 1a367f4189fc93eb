"""Against ONNX: the node tests of ConvTranspose, and random models run by ONNX Runtime."""

import math
import warnings

import numpy as np
import pytest

import gpuconv
from tests.bounds import assert_within_bound, noting

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install gpuconv[peers]")
#: Our padding and output padding. VALID makes the full output, also for a kernel below the stride.
AUTO_PAD = {"SAME_UPPER": ("same", None), "SAME_LOWER": ("same_lower", None), "VALID": ("valid", 0)}


def node_tests():
    collect = pytest.importorskip("onnx.backend.test.case.node", reason="onnx has no node tests")
    with warnings.catch_warnings():
        # Collecting runs the examples of every operator; those of casts, divisions and logarithms overflow.
        warnings.simplefilter("ignore", RuntimeWarning)
        return collect.collect_testcases("ConvTranspose")


def convolve(x, kernel, bias=None, *, auto_pad="NOTSET", group=1, kernel_shape=None, **attributes):
    """ONNX ConvTranspose (channels_first; kernel of shape (channels, filters // group, k...)) by our op."""
    ndim = x.ndim - 2
    size = kernel.shape[2:]
    assert kernel_shape is None or tuple(kernel_shape) == size
    strides = attributes.get("strides", [1] * ndim)
    dilations = attributes.get("dilations", [1] * ndim)
    extras = attributes.get("output_padding", [0] * ndim)
    pads = attributes.get("pads", [0] * 2 * ndim)
    crops = list(zip(pads[:ndim], pads[ndim:], strict=True))
    if "output_shape" in attributes:
        ends = []
        for n, k, s, d, extra, out in zip(
            x.shape[2:], size, strides, dilations, extras, attributes["output_shape"], strict=True
        ):
            total = (n - 1) * s + (k - 1) * d + 1 + extra - out
            begin = total // 2 if auto_pad == "SAME_UPPER" else total - total // 2
            ends.append((begin, total - begin))
        # A negative end appends zeros.
        extras = [extra + max(0, -right) for extra, (_, right) in zip(extras, ends, strict=True)]
        crops = [(left, max(0, right)) for left, right in ends]
    elif auto_pad in AUTO_PAD:
        crops, extras = AUTO_PAD[auto_pad]
    return getattr(gpuconv, f"conv{ndim}d_transpose")(
        x,
        np.moveaxis(kernel, (0, 1), (-1, -2)),
        bias,
        strides=strides,
        dilation_rate=dilations,
        padding=crops,
        output_padding=extras,
        groups=group,
        data_format="channels_first",
    )


def test_node_tests():
    found = node_tests()
    assert len(found) == 11
    for case in found:
        (node,) = case.model.graph.node
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if "auto_pad" in attributes:
            attributes["auto_pad"] = attributes["auto_pad"].decode()
        for inputs, (expected,) in case.data_sets:
            with noting(f"{case.name}, {attributes}"):
                # Small integers: every system is exact.
                assert all(np.array_equal(array, np.round(array)) for array in inputs)
                y = convolve(*inputs, **attributes)
                assert y.dtype == expected.dtype
                np.testing.assert_array_equal(y, expected, strict=True)


def session(runtime, shapes, attributes):
    """A model of one ConvTranspose node over inputs of these shapes."""
    make, names = onnx.helper, ("x", "w", "b")[: len(shapes)]
    kind = onnx.TensorProto.FLOAT
    graph = make.make_graph(
        [make.make_node("ConvTranspose", names, ["y"], **attributes)],
        "one_node",
        [make.make_tensor_value_info(name, kind, shape) for name, shape in zip(names, shapes, strict=True)],
        [make.make_tensor_value_info("y", kind, None)],
    )
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 11)], ir_version=8)
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3  # errors only
    made = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda *arrays: made.run(None, dict(zip(names, arrays, strict=True)))[0]


def random_model(rng):
    """Attributes of a ConvTranspose node, and the shapes of its inputs."""
    ndim = int(rng.choice([1, 1, 2, 3]))
    integers = lambda low, high: [int(n) for n in rng.integers(low, high, ndim, endpoint=True)]  # noqa: E731
    k, s, d = integers(1, (7, 4, 3)[ndim - 1]), integers(1, 4), integers(1, 3)
    lengths = integers(1, (9, 6, 4)[ndim - 1])
    samples, depth, width, group = (int(n) for n in rng.integers(1, 4, 4))
    attributes = {"strides": s, "dilations": d, "group": group}
    full = [(n - 1) * a + (b - 1) * c + 1 for n, a, b, c in zip(lengths, s, k, d, strict=True)]
    way = rng.choice(["pads", "auto_pad", "output_shape"], p=[0.7, 0.15, 0.15])
    if way == "pads":
        extra = [int(rng.integers(a)) for a in s]  # ONNX Runtime refuses those between stride and dilation
        begin = [int(rng.integers((n + 1) // 2)) for n in full]
        end = [int(rng.integers((n + 1) // 2)) for n in full]
        attributes |= {"output_padding": extra, "pads": begin + end}
    elif way == "auto_pad":
        attributes["auto_pad"] = str(rng.choice(list(AUTO_PAD)))
        # For a kernel that reaches less far than the stride, ONNX Runtime makes less than length * stride
        # of SAME_UPPER and SAME_LOWER, against the specification.
        s[:] = [min(a, (b - 1) * c + 1) for a, b, c in zip(s, k, d, strict=True)]
    else:
        attributes["output_shape"] = [int(rng.integers(1, n, endpoint=True)) for n in full]
    shapes = [(samples, depth * group, *lengths), (depth * group, width, *k), (width * group,)]
    return attributes, shapes[: 2 + int(rng.integers(2))]


def test_equals_onnxruntime(deep):
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    rng = np.random.default_rng(1700)
    for _ in range(1000 if deep else 200):
        attributes, shapes = random_model(rng)
        with noting(f"{attributes}, inputs of shapes {shapes}"):
            run = session(runtime, shapes, attributes)
            arrays = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
            # Both compute in float32; the magnitude does too, its own error is of second order.
            exact, magnitude = run(*arrays), run(*map(np.abs, arrays))
            terms = math.prod(shapes[1][2:]) * shapes[1][0] // attributes["group"] + len(shapes) - 2
            y = convolve(*arrays, **attributes)
            assert y.dtype == np.float32
            assert_within_bound(y, exact, magnitude, terms, "float32")
