"""`gpuconv.dialects.onnx` against ONNX: the node tests of both operators, and models run by ONNX Runtime."""

import functools
import math
import warnings

import numpy as np
import pytest

from gpuconv.dialects.onnx import Conv, ConvTranspose
from tests.bounds import assert_within_bound, noting

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install gpuconv[peers]")
OPERATORS = {"ConvTranspose": ConvTranspose, "Conv": Conv}


@functools.cache
def node_tests():
    """Node tests of all operators: ONNX collects but once in a process."""
    collect = pytest.importorskip("onnx.backend.test.case.node", reason="onnx has no node tests")
    with warnings.catch_warnings():
        # Collecting runs every example; those of casts, divisions and logarithms overflow.
        warnings.simplefilter("ignore", RuntimeWarning)
        return collect.collect_testcases(None)


@pytest.mark.parametrize(("operator", "count"), [("ConvTranspose", 11), ("Conv", 6)])
def test_node_tests(operator, count):
    found = [case for case in node_tests() if [n.op_type for n in case.model.graph.node] == [operator]]
    assert len(found) == count
    for case in found:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in case.model.graph.node[0].attribute}
        if "auto_pad" in attributes:
            attributes["auto_pad"] = attributes["auto_pad"].decode()
        for inputs, (expected,) in case.data_sets:
            with noting(f"{case.name}, {attributes}"):
                # Small integers: every system is exact.
                assert all(np.array_equal(array, np.round(array)) for array in inputs)
                y = OPERATORS[operator](*inputs, **attributes)
                assert y.dtype == expected.dtype
                np.testing.assert_array_equal(y, expected, strict=True)


def session(runtime, operator, shapes, attributes):
    """A model of one node over inputs of these shapes."""
    make, names = onnx.helper, ("x", "w", "b")[: len(shapes)]
    kind = onnx.TensorProto.FLOAT
    graph = make.make_graph(
        [make.make_node(operator, names, ["y"], **attributes)],
        "one_node",
        [make.make_tensor_value_info(name, kind, shape) for name, shape in zip(names, shapes, strict=True)],
        [make.make_tensor_value_info("y", kind, None)],
    )
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 11)], ir_version=8)
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3  # errors only
    made = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda *arrays: made.run(None, dict(zip(names, arrays, strict=True)))[0]


def random_sizes(rng, ndim):
    """Kernel, strides, dilations and lengths; samples, depth, width and group."""
    integers = lambda low, high: [int(n) for n in rng.integers(low, high, ndim, endpoint=True)]  # noqa: E731
    sizes = integers(1, (7, 4, 3)[ndim - 1]), integers(1, 4), integers(1, 3), integers(1, (9, 6, 4)[ndim - 1])
    return *sizes, *(int(n) for n in rng.integers(1, 4, 4))


def random_conv_transpose(rng):
    """Attributes of a ConvTranspose node, and the shapes of its inputs."""
    ndim = int(rng.choice([1, 1, 2, 3]))
    k, s, d, lengths, samples, depth, width, group = random_sizes(rng, ndim)
    attributes = {"strides": s, "dilations": d, "group": group}
    full = [(n - 1) * a + (b - 1) * c + 1 for n, a, b, c in zip(lengths, s, k, d, strict=True)]
    way = rng.choice(["pads", "auto_pad", "output_shape", "both"], p=[0.4, 0.2, 0.2, 0.2])
    if rng.random() < 0.7:
        # ONNX Runtime refuses those between stride and dilation.
        attributes["output_padding"] = [int(rng.integers(a)) for a in s]
    if way == "pads":
        begin = [int(rng.integers((n + 1) // 2)) for n in full]
        end = [int(rng.integers((n + 1) // 2)) for n in full]
        attributes["pads"] = begin + end
    if way in ("auto_pad", "both"):
        attributes["auto_pad"] = str(rng.choice(["SAME_UPPER", "SAME_LOWER", "VALID"]))
    if way in ("output_shape", "both"):
        # ONNX Runtime appends less than a stride.
        attributes["output_shape"] = [int(rng.integers(1, n + a)) for n, a in zip(full, s, strict=True)]
    elif way == "auto_pad":
        # For a kernel that reaches less far than the stride, ONNX Runtime makes less than length * stride
        # of SAME_UPPER and SAME_LOWER, against the specification.
        s[:] = [min(a, (b - 1) * c + 1) for a, b, c in zip(s, k, d, strict=True)]
        if "output_padding" in attributes:
            attributes["output_padding"] = [
                min(extra, a - 1) for extra, a in zip(attributes["output_padding"], s, strict=True)
            ]
    shapes = [(samples, depth * group, *lengths), (depth * group, width, *k), (width * group,)]
    return attributes, shapes[: 2 + int(rng.integers(2))], depth


def random_conv(rng):
    """Attributes of a Conv node, and the shapes of its inputs."""
    ndim = int(rng.choice([1, 1, 2, 3]))
    k, s, d, lengths, samples, depth, width, group = random_sizes(rng, ndim)
    attributes = {"strides": s, "dilations": d, "group": group}
    if rng.random() < 0.6:
        pads = attributes["pads"] = [int(n) for n in rng.integers(0, 4, 2 * ndim)]
    else:
        pads = [0] * 2 * ndim
        attributes["auto_pad"] = str(rng.choice(["SAME_UPPER", "SAME_LOWER", "VALID"]))
        if attributes["auto_pad"] != "VALID":
            # ONNX Runtime has no dilation here, and for a kernel shorter than the stride it may pad less than
            # nothing: it skips samples at both ends.
            d[:] = [1] * ndim
            s[:] = [min(a, b) for a, b in zip(s, k, strict=True)]
    reach = [(a - 1) * b + 1 for a, b in zip(k, d, strict=True)]
    lengths = [max(n, e - p - q) for n, e, p, q in zip(lengths, reach, pads[:ndim], pads[ndim:], strict=True)]
    shapes = [(samples, depth * group, *lengths), (width * group, depth, *k), (width * group,)]
    return attributes, shapes[: 2 + int(rng.integers(2))], depth


@pytest.mark.parametrize("operator", list(OPERATORS))
def test_equals_onnxruntime(deep, operator):
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    rng = np.random.default_rng(1700)
    random_model = random_conv_transpose if operator == "ConvTranspose" else random_conv
    for _ in range(1000 if deep else 200):
        attributes, shapes, depth = random_model(rng)
        with noting(f"{attributes}, inputs of shapes {shapes}"):
            run = session(runtime, operator, shapes, attributes)
            arrays = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
            # Both compute in float32; the magnitude does too, its own error is of second order.
            exact, magnitude = run(*arrays), run(*map(np.abs, arrays))
            terms = math.prod(shapes[1][2:]) * depth + len(shapes) - 2
            y = OPERATORS[operator](*arrays, **attributes)
            assert y.dtype == np.float32
            assert_within_bound(y, exact, magnitude, terms, "float32")
