"""`gpuconv.dialects.onnx` where it needs no ONNX: lengths, which samples are cropped, calls that are wrong.

`tests.test_peer_onnx` compares its numbers.
"""

import itertools

import numpy as np
import pytest

from gpuconv.dialects.onnx import Conv, ConvTranspose
from tests.bounds import noting


def ones(*shape):
    return np.ones(shape)


# Two samples, stride 3 and four taps make seven, whose sums tell which of them is left.
SIGNAL = np.array([1.0, 2.0]).reshape(1, 1, 2)
TAPS = np.array([1.0, 10.0, 100.0, 1000.0]).reshape(1, 1, 4)
FULL = [1, 10, 100, 1002, 20, 200, 2000]

TRANSPOSED = [
    ({}, FULL),
    ({"auto_pad": "VALID"}, FULL),
    ({"pads": [1, 2]}, FULL[1:5]),
    ({"pads": [1, 2], "output_padding": [2]}, FULL[1:7]),
    ({"output_padding": [2]}, [*FULL, 0, 0]),
    ({"auto_pad": "VALID", "output_padding": [1]}, [*FULL, 0]),
    ({"auto_pad": "SAME_UPPER"}, FULL[:6]),
    ({"auto_pad": "SAME_LOWER"}, FULL[1:]),
    # Output padding crops more, it does not lengthen.
    ({"auto_pad": "SAME_UPPER", "output_padding": [1]}, FULL[1:]),
    ({"auto_pad": "SAME_LOWER", "output_padding": [2]}, [*FULL[2:], 0]),
    # An odd sample more is cropped at the beginning, but for SAME_UPPER.
    ({"output_shape": [4]}, FULL[2:6]),
    ({"output_shape": [4], "auto_pad": "VALID"}, FULL[2:6]),
    ({"output_shape": [4], "auto_pad": "SAME_LOWER"}, FULL[2:6]),
    ({"output_shape": [4], "auto_pad": "SAME_UPPER"}, FULL[1:5]),
    ({"output_shape": [4], "output_padding": [1], "auto_pad": "SAME_UPPER"}, FULL[2:6]),
    ({"output_shape": [4], "pads": [3, 0]}, FULL[2:6]),
    ({"output_shape": [0]}, []),
    # What there is not is appended at the end.
    ({"output_shape": [9]}, [*FULL, 0, 0]),
    ({"output_shape": [9], "auto_pad": "SAME_UPPER"}, [*FULL, 0, 0]),
    ({"output_shape": [9], "output_padding": [2]}, [*FULL, 0, 0]),
]


@pytest.mark.parametrize(("attributes", "expected"), TRANSPOSED, ids=[str(case[0]) for case in TRANSPOSED])
def test_what_is_cropped(attributes, expected):
    y = ConvTranspose(SIGNAL, TAPS, np.array([0.5]), strides=[3], **attributes)
    np.testing.assert_array_equal(y, np.reshape(expected, (1, 1, -1)) + 0.5, strict=True)


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("extra", [0, 1, 2])
def test_same_makes_length_times_stride(auto_pad, extra):
    """Of a kernel that reaches less far than the stride too, and of nothing."""
    for n, k, s, d in itertools.product((0, 1, 4), (1, 2, 5), (3, 4), (1, 2)):
        with noting(f"length {n}, kernel {k}, stride {s}, dilation {d}"):
            y = ConvTranspose(
                ones(2, 3, n),
                ones(3, 1, k),
                auto_pad=auto_pad,
                strides=[s],
                dilations=[d],
                output_padding=[extra],
            )
            assert y.shape == (2, 1, n * s)


FORWARD = [
    ({}, [3, 5, 7]),
    ({"auto_pad": "VALID"}, [3, 5, 7]),
    ({"pads": [0, 1]}, [3, 5, 7, 4]),
    ({"pads": [2, 0]}, [0, 1, 3, 5, 7]),
    ({"auto_pad": "SAME_UPPER"}, [3, 5, 7, 4]),
    ({"auto_pad": "SAME_LOWER"}, [1, 3, 5, 7]),
    ({"auto_pad": "SAME_UPPER", "strides": [3]}, [3, 4]),
    ({"auto_pad": "SAME_LOWER", "strides": [3]}, [1, 7]),
    ({"auto_pad": "SAME_UPPER", "dilations": [2]}, [2, 4, 6, 3]),
    ({"auto_pad": "SAME_LOWER", "dilations": [3]}, [2, 3, 5, 2]),
    ({"strides": [2], "kernel_shape": (2,)}, [3, 7]),
]


@pytest.mark.parametrize(("attributes", "expected"), FORWARD, ids=[str(case[0]) for case in FORWARD])
def test_what_is_padded(attributes, expected):
    y = Conv(np.arange(1.0, 5).reshape(1, 1, 4), ones(1, 1, 2), **attributes)
    np.testing.assert_array_equal(y, np.reshape(expected, (1, 1, -1)).astype(float), strict=True)


def test_begins_come_before_ends():
    x, w = ones(1, 2, 3, 4, 5), ones(2, 3, 2, 2, 2)
    assert ConvTranspose(x, w, pads=[0, 1, 2, 3, 0, 1]).shape == (1, 3, 1, 4, 3)
    assert ConvTranspose(x, w, output_shape=[4, 5, 1], strides=[1, 1, 2]).shape == (1, 3, 4, 5, 1)
    assert Conv(x, ones(3, 2, 2, 2, 2), pads=[0, 1, 2, 3, 0, 1]).shape == (1, 3, 5, 4, 7)


def test_any_library(xp):
    """The same numbers for arrays of every library, exactly on small integers."""
    rng = np.random.default_rng(6)
    x, w, b = (rng.integers(-4, 5, shape).astype(np.float32) for shape in ((2, 4, 5, 3), (4, 3, 3, 2), (6,)))
    attributes = {"group": 2, "strides": [2, 1], "pads": [1, 0, 0, 1], "dilations": [1, 2]}
    exact = ConvTranspose(x, w, b, **attributes)
    found = ConvTranspose(*map(xp.asarray, (x, w, b)), **attributes)
    assert type(found) is type(xp.asarray(x))
    host = found.get() if hasattr(found, "get") else np.asarray(found)
    np.testing.assert_array_equal(host, exact, strict=True)


X, W, V = ones(2, 3, 5), ones(3, 4, 3), ones(4, 3, 3)

BAD_CALLS = [
    (lambda: ConvTranspose([1.0], W), TypeError, "X: Expected an array. Received builtins.list"),
    (lambda: ConvTranspose(X, [1.0]), TypeError, "W: Expected an array"),
    (lambda: ConvTranspose(X, W, [1.0]), TypeError, "B: Expected an array"),
    (
        lambda: ConvTranspose(X, W.astype(int)),
        TypeError,
        "Expected W of dtype .* Received W of int64. Cast it",
    ),
    (
        lambda: ConvTranspose(X[0], W),
        ValueError,
        r"X of 3, 4 or 5 dimensions, .* Received X of shape \(3, 5\)",
    ),
    (lambda: Conv(ones(1, 1, 1, 1, 1, 1), W), ValueError, r"Received X of shape \(1, 1, 1, 1, 1, 1\)"),
    (lambda: Conv(X, W[0]), ValueError, r"W of 3 dimensions, as many as X. Received W of shape \(4, 3\)"),
    (
        lambda: ConvTranspose(X, W[:, :, :0]),
        ValueError,
        r"\(in_channels, out_channels // group, k\), no length",
    ),
    (
        lambda: ConvTranspose(X[:, :2], W),
        ValueError,
        r"Expected X of 3 channels, as the W of shape \(3, 4, 3\) has",
    ),
    (lambda: Conv(X, V[:, :2], group=2), ValueError, "Expected X of 4 channels, .* with group=2"),
    (
        lambda: ConvTranspose(X, W, group=2),
        ValueError,
        "Expected group to divide .* Received group=2 for 3 and 8",
    ),
    (lambda: Conv(X, V[:, :1], group=3), ValueError, "Received group=3 for 3 and 4 channels"),
    (lambda: Conv(X, V, group=0), ValueError, "Expected group to be at least 1. Received group=0"),
    (lambda: Conv(X, V, ones(3)), ValueError, r"Expected B of shape \(4,\). Received B of shape \(3,\)"),
    (
        lambda: ConvTranspose(X, W, auto_pad="same"),
        ValueError,
        "Expected auto_pad .* Received auto_pad='same'",
    ),
    (lambda: Conv(X, V, auto_pad=b"VALID"), ValueError, "Received auto_pad=b'VALID'"),
    (
        lambda: ConvTranspose(X, W, auto_pad="VALID", pads=[0, 0]),
        ValueError,
        r"Expected pads or auto_pad, not both. Received pads=\[0, 0\], auto_pad='VALID'",
    ),
    (
        lambda: Conv(X, V, auto_pad="SAME_UPPER", pads=[1, 1]),
        ValueError,
        "Expected pads or auto_pad, not both",
    ),
    (
        lambda: ConvTranspose(X, W, kernel_shape=[2]),
        ValueError,
        r"that of W, \(3,\). Received kernel_shape=\[2\]",
    ),
    (lambda: Conv(X, V, kernel_shape=[3, 3]), ValueError, r"Received kernel_shape=\[3, 3\]"),
    (lambda: Conv(X, V, kernel_shape=3), TypeError, "Received kernel_shape=3"),
    (
        lambda: ConvTranspose(X, W, strides=[1, 1]),
        ValueError,
        r"Expected strides .* Received strides=\[1, 1\]",
    ),
    (lambda: Conv(X, V, strides=[0]), ValueError, "Expected strides to be at least 1"),
    (lambda: Conv(X, V, dilations=[1, 1]), ValueError, r"Received dilations=\[1, 1\]"),
    (lambda: ConvTranspose(X, W, dilations=["a"]), TypeError, r"Received dilations=\['a'\]"),
    (
        lambda: ConvTranspose(X, W, pads=[1]),
        ValueError,
        r"Expected pads of 2 integers, .* Received pads=\[1\]",
    ),
    (lambda: Conv(X, V, pads=1), TypeError, "Expected pads to be a sequence"),
    (lambda: Conv(X, V, pads=[-1, 0]), ValueError, r"at least 0. Received pads=\[-1, 0\]"),
    (lambda: Conv(X, V, pads=[None, 0]), TypeError, r"Received pads=\[None, 0\]"),
    (
        lambda: ConvTranspose(X, W, pads=[9, 9]),
        ValueError,
        r"Expected pads to crop at most the 7 .* dilations=1",
    ),
    (
        lambda: ConvTranspose(X, W, output_padding=[1]),
        ValueError,
        r"less than the stride .* dilations=\(1,\)",
    ),
    (lambda: ConvTranspose(X, W, output_padding=[0, 0]), ValueError, r"Received output_padding=\[0, 0\]"),
    (
        lambda: ConvTranspose(X, W, output_padding=[1], output_shape=[3]),
        ValueError,
        "output_padding to be less",
    ),
    (
        lambda: ConvTranspose(X, W, output_shape=[18], strides=[2], dilations=[3]),
        ValueError,
        "at most 17 for .* length 5, kernel_shape=3, strides=2, dilations=3. Received output_shape=18",
    ),
    (lambda: ConvTranspose(X, W, output_shape=[2, 4, 7]), ValueError, r"Received output_shape=\[2, 4, 7\]"),
    (lambda: ConvTranspose(X, W, output_shape=[-1]), ValueError, "Expected output_shape to be at least 0"),
    (
        lambda: ConvTranspose(X[:, :, :0], W, output_shape=[1]),
        ValueError,
        "of at most 0 for an input of length 0",
    ),
    (
        lambda: Conv(X, ones(4, 3, 9)),
        ValueError,
        "Expected at least 9 samples, .* dilations=1. Received a length",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD_CALLS, ids=itertools.count())
def test_bad_calls(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_arrays_of_two_libraries():
    xp = pytest.importorskip("array_api_strict", reason="array_api_strict is not installed")
    with pytest.raises(TypeError, match="Received X of numpy and W of array_api_strict"):
        Conv(X, xp.ones((4, 3, 3)))
