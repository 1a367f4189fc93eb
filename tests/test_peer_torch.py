"""Against PyTorch: `torch.nn.functional.conv_transpose1d` ... `conv3d`, its modules and its autograd.

PyTorch computes in float64 or complex128 and stands for the truth. Its layouts are (samples, channels,
lengths...) and, for weights, (channels, filters // groups, k...) transposed, (filters, channels // groups,
k...) forward.
"""

import math

import numpy as np
import pytest

import gpuconv
from tests.bounds import assert_within_bound, noting

torch = pytest.importorskip("torch", reason="torch is not installed: pip install gpuconv[peers]")

DTYPES = ("float64", "float32", "float16", "bfloat16", "complex128", "complex64")


def random_case(rng, ndim, transposed):
    """Settings in our words, and x, kernel and bias as tensors in our layout (channels_first)."""
    integers = lambda low, high: tuple(int(n) for n in rng.integers(low, high, ndim, endpoint=True))  # noqa: E731
    k, s = integers(1, (7, 4, 3)[ndim - 1]), integers(1, 4)
    d = integers(1, 3) if rng.random() < 0.5 else (1,) * ndim
    lengths = integers(1, (9, 6, 4)[ndim - 1])
    samples, depth, width, groups = (int(n) for n in rng.integers(1, 4, 4))
    settings = {"strides": s, "dilation_rate": d, "groups": groups}
    reach = [(a - 1) * b + 1 for a, b in zip(k, d, strict=True)]
    if transposed:
        extra = [int(rng.integers(max(a, b))) for a, b in zip(s, d, strict=True)]
        settings["output_padding"] = tuple(extra)
        full = [(n - 1) * a + e + o for n, a, e, o in zip(lengths, s, reach, extra, strict=True)]
        # PyTorch makes no empty output.
        settings["padding"] = tuple(int(rng.integers((n - 1) // 2 + 1)) for n in full)
    else:
        settings["padding"] = padding = integers(0, 4)
        lengths = tuple(max(n, e - 2 * p) for n, e, p in zip(lengths, reach, padding, strict=True))
    dtype = DTYPES[rng.integers(len(DTYPES))]
    last = (width, depth * groups) if transposed else (depth, width * groups)
    draw = lambda *shape: torch.asarray(rng.standard_normal(shape))  # noqa: E731
    if dtype.startswith("complex"):
        draw = lambda *shape: torch.asarray(rng.standard_normal(shape) + 1j * rng.standard_normal(shape))  # noqa: E731
    x, kernel, bias = draw(samples, depth * groups, *lengths), draw(*k, *last), draw(width * groups)
    bias = bias if rng.random() < 0.5 else None
    arrays = [None if a is None else a.to(getattr(torch, dtype)) for a in (x, kernel, bias)]
    return settings, dtype, arrays, math.prod(k) * depth + (bias is not None)


def ours(ndim, transposed, x, kernel, bias, **settings):
    function = getattr(gpuconv, f"conv{ndim}d{'_transpose' if transposed else ''}")
    return function(x, kernel, bias, data_format="channels_first", **settings)


def theirs(ndim, transposed, x, kernel, bias, strides, dilation_rate, **settings):
    function = getattr(torch.nn.functional, f"conv{'_transpose' if transposed else ''}{ndim}d")
    weight = kernel.permute(ndim + 1, ndim, *range(ndim))
    return function(x, weight, bias, stride=strides, dilation=dilation_rate, **settings)


def wide(tensor):
    """In the precision that the truth is computed in."""
    return tensor if tensor is None else tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)


def magnitudes(*tensors):
    return [None if tensor is None else wide(tensor).abs() for tensor in tensors]


def to_numpy(tensor):
    """The same numbers; NumPy needs help with bfloat16."""
    if tensor is None or tensor.dtype != torch.bfloat16:
        return None if tensor is None else tensor.numpy()
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)


@pytest.mark.parametrize("transposed", [True, False], ids=["conv_transpose", "conv"])
@pytest.mark.parametrize(("ndim", "share"), [(1, 3), (2, 1), (3, 1)])
def test_equals_torch(deep, transposed, ndim, share):
    rng = np.random.default_rng(10 * ndim + transposed)
    for _ in range(share * (600 if deep else 30)):
        settings, dtype, tensors, terms = random_case(rng, ndim, transposed)
        with noting(f"{dtype}, {[None if t is None else tuple(t.shape) for t in tensors]}, {settings}"):
            exact = theirs(ndim, transposed, *map(wide, tensors), **settings)
            magnitude = theirs(ndim, transposed, *magnitudes(*tensors), **settings)
            y = ours(ndim, transposed, *map(to_numpy, tensors), **settings)
            assert type(y) is np.ndarray
            assert y.dtype.name == dtype
            assert_within_bound(y, exact, magnitude, terms, dtype)
            y = ours(ndim, transposed, *tensors, **settings)
            assert type(y) is torch.Tensor
            assert y.dtype == getattr(torch, dtype)
            assert_within_bound(wide(y), exact, magnitude, terms, dtype)


@pytest.mark.parametrize("transposed", [True, False], ids=["conv_transpose", "conv"])
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_autograd_goes_through(deep, transposed, ndim):
    rng = np.random.default_rng(20 * ndim + transposed)
    for _ in range(100 if deep else 10):
        settings, dtype, tensors, _ = random_case(rng, ndim, transposed)
        if dtype.startswith("complex"):
            continue  # below: PyTorch's own complex gradients sum in more steps than the bound counts
        tensors = [wide(tensor) for tensor in tensors if tensor is not None]
        if len(tensors) < 3:
            tensors.append(torch.zeros(ours(ndim, transposed, *tensors, None, **settings).shape[1]).double())
        with noting(f"{[tuple(tensor.shape) for tensor in tensors]}, {settings}"):
            dy = torch.asarray(rng.standard_normal(theirs(ndim, transposed, *tensors, **settings).shape))

            def gradients(function, tensors, dy):
                leaves = [tensor.clone().requires_grad_() for tensor in tensors]
                y = function(ndim, transposed, *leaves, **settings)  # noqa: B023
                return torch.autograd.grad(y, leaves, dy, materialize_grads=True)

            found, exact = gradients(ours, tensors, dy), gradients(theirs, tensors, dy)
            bounds = gradients(theirs, magnitudes(*tensors), dy.abs())
            filters, positions = dy.shape[1] // settings["groups"], dy.numel() // dy.shape[1]
            counts = (tensors[1][..., 0, 0].numel() * filters, positions, positions)
            for mine, true, magnitude, terms in zip(found, exact, bounds, counts, strict=True):
                assert_within_bound(mine, true, magnitude, terms, "float64")


def test_autograd_where_no_output_sample_reads_the_input():
    """Crops may leave zeros alone; the gradients are zeros then, as PyTorch's own are."""
    tensors = [torch.ones(shape, dtype=torch.float64, requires_grad=True) for shape in ((1, 1, 2), (1, 1, 1))]
    for function in (theirs, ours):
        y = function(1, True, *tensors, None, strides=(2,), dilation_rate=(1,), padding=(1,))
        gradients = torch.autograd.grad(y, tensors, torch.ones(1, 1, 1, dtype=torch.float64))
        assert not any(gradient.any() for gradient in gradients)


@pytest.mark.parametrize("transposed", [True, False], ids=["conv_transpose", "conv"])
def test_complex_autograd_is_the_conjugate_adjoint(transposed):
    """PyTorch's rule for holomorphic functions: the gradient meets the conjugate of the other factor."""
    rng = np.random.default_rng(5)
    draw = lambda *shape: torch.asarray(rng.standard_normal(shape) + 1j * rng.standard_normal(shape))  # noqa: E731
    x, kernel = draw(2, 4, 9), draw(5, *((3, 4) if transposed else (4, 3)))
    settings = {"strides": (2,), "dilation_rate": (1,), "padding": (1,)}
    dy = draw(*theirs(1, transposed, x, kernel, None, **settings).shape)

    def gradients(function, x, kernel, dy):
        leaves = x.clone().requires_grad_(), kernel.clone().requires_grad_()
        return torch.autograd.grad(function(1, transposed, *leaves, None, **settings), leaves, dy)

    found, exact = gradients(ours, x, kernel, dy), gradients(theirs, x, kernel, dy)
    counts = (5 * 3, 2 * dy.shape[2])
    for mine, true, magnitude, terms in zip(
        found, exact, gradients(theirs, x.abs(), kernel.abs(), dy.abs()), counts, strict=True
    ):
        assert_within_bound(mine, true, magnitude, terms, "complex128")


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_output_size_equals_torch(deep, ndim):
    rng = np.random.default_rng(30 + ndim)
    for _ in range(200 if deep else 15):
        k, s, d, length = (tuple(int(n) for n in rng.integers(1, 5, ndim)) for _ in range(4))
        least = [(n - 1) * a + (b - 1) * c + 1 for n, a, b, c in zip(length, s, k, d, strict=True)]
        p = tuple(int(rng.integers((n - 1) // 2 + 1)) for n in least)
        # PyTorch refuses what its output_padding could not make.
        size = [n - 2 * q + int(rng.integers(a)) for n, q, a in zip(least, p, s, strict=True)]
        module = getattr(torch.nn, f"ConvTranspose{ndim}d")(2, 3, k, s, p, dilation=d, dtype=torch.float64)
        x = torch.asarray(rng.standard_normal((2, 2, *length)))
        with noting(f"{module}, x of shape {tuple(x.shape)}, output_size={size}"), torch.no_grad():
            kernel = module.weight.permute(*range(2, ndim + 2), 1, 0)
            exact = module(x, output_size=size)
            y = ours(
                ndim, True, x, kernel, module.bias, strides=s, padding=p, dilation_rate=d, output_size=size
            )
            for parameter in module.parameters():
                parameter.abs_()
            magnitude = module(x.abs(), output_size=size)
            assert_within_bound(y, exact, magnitude, math.prod(k) * 2 + 1, "float64")
