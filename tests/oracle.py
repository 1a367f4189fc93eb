"""Transposed and forward convolution as plain loops. Imports nothing of the package under test.

Arrays are channels_last: x (samples, lengths..., channels), kernel (k..., filters // groups, channels) for
the transposed convolution and (k..., channels // groups, filters) for the forward one. Sums are exact enough
to stand for the truth: float64 (complex128) arithmetic, whatever comes in.
"""

import itertools

import numpy as np


def _wide(array):
    array = np.asarray(array)
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def conv_transpose(x, kernel, strides, dilations, left, out_lengths, groups=1):
    """Scatter every input sample: out[i*s + j*d - left] += x[i] * kernel[j]."""
    x, kernel = _wide(x), _wide(kernel)
    ndim = x.ndim - 2
    taps, (width, channels) = kernel.shape[:ndim], kernel.shape[ndim:]
    depth = channels // groups
    out = np.zeros((x.shape[0], *out_lengths, width * groups), np.result_type(x, kernel))
    for i in itertools.product(*map(range, x.shape[1:-1])):
        for j in itertools.product(*map(range, taps)):
            o = tuple(a * s + b * d - c for a, b, s, d, c in zip(i, j, strides, dilations, left, strict=True))
            if all(0 <= a < length for a, length in zip(o, out_lengths, strict=True)):
                for g in range(groups):
                    inputs = x[(slice(None), *i, slice(g * depth, (g + 1) * depth))]
                    weights = kernel[(*j, slice(None), slice(g * depth, (g + 1) * depth))]
                    out[(slice(None), *o, slice(g * width, (g + 1) * width))] += inputs @ weights.T
    return out


def conv(x, kernel, strides, dilations, left, out_lengths, groups=1):
    """Gather for every output sample: out[i] += x[i*s + j*d - left] * kernel[j]."""
    x, kernel = _wide(x), _wide(kernel)
    ndim = x.ndim - 2
    taps, (depth, filters) = kernel.shape[:ndim], kernel.shape[ndim:]
    width = filters // groups
    out = np.zeros((x.shape[0], *out_lengths, filters), np.result_type(x, kernel))
    for i in itertools.product(*map(range, out_lengths)):
        for j in itertools.product(*map(range, taps)):
            o = tuple(a * s + b * d - c for a, b, s, d, c in zip(i, j, strides, dilations, left, strict=True))
            if all(0 <= a < length for a, length in zip(o, x.shape[1:-1], strict=True)):
                for g in range(groups):
                    inputs = x[(slice(None), *o, slice(g * depth, (g + 1) * depth))]
                    weights = kernel[(*j, slice(None), slice(g * width, (g + 1) * width))]
                    out[(slice(None), *i, slice(g * width, (g + 1) * width))] += inputs @ weights
    return out


def kernel_gradient(x, dy, taps, strides, dilations, left, groups=1, *, transposed):
    """Sum what each weight multiplied, conjugated, times the gradient of where that went.

    That is kernel[j] += dy[i*s + j*d - left] * conj(x[i]) for the transposed convolution, and with the
    indices exchanged for the forward one: the channels of what i counts come last in both kernels.
    """
    read, pulled = np.conj(_wide(x)), _wide(dy)
    small, large = (read, pulled) if transposed else (pulled, read)
    depth, width = small.shape[-1] // groups, large.shape[-1] // groups
    out = np.zeros((*taps, width, small.shape[-1]), np.result_type(small, large))
    for i in itertools.product(*map(range, small.shape[1:-1])):
        for j in itertools.product(*map(range, taps)):
            o = tuple(a * s + b * d - c for a, b, s, d, c in zip(i, j, strides, dilations, left, strict=True))
            if all(0 <= a < length for a, length in zip(o, large.shape[1:-1], strict=True)):
                for g in range(groups):
                    inner, outer = slice(g * depth, (g + 1) * depth), slice(g * width, (g + 1) * width)
                    products = large[(slice(None), *o, outer)].T @ small[(slice(None), *i, inner)]
                    out[(*j, slice(None), inner)] += products
    return out
