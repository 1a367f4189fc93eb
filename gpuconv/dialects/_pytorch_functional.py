"""``torch.nn.functional``'s convolutions. `gpuconv.dialects.pytorch` is their public place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpuconv._typing import Array, PerAxis
from gpuconv.dialects._channels_first import convolve
from gpuconv.geometry import per_axis

__all__ = [
    "WORDS",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_padding",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
]

#: What PyTorch calls our arguments.
WORDS = {
    "x": "input",
    "inputs": "input",
    "kernel": "weight",
    "strides": "stride",
    "dilation_rate": "dilation",
}


def conv_transpose1d(
    input: Array,
    weight: Array,
    bias: Array | None = None,
    stride: PerAxis = 1,
    padding: PerAxis = 0,
    output_padding: PerAxis = 0,
    groups: int = 1,
    dilation: PerAxis = 1,
) -> Array:
    """1-D transposed convolution, called as ``torch.nn.functional.conv_transpose1d`` is.

    Parameters
    ----------
    input : array, shape (N, in_channels, L) or (in_channels, L)
        Of any array-API library; float16, bfloat16, float32, float64, complex64 or complex128.
    weight : array, shape (in_channels, out_channels // groups, k)
        Of the same library. Its axes are permuted by a view, which copies nothing.
    bias : array, shape (out_channels,), optional
        Added to every output sample.
    stride : int or 1 int, default 1
        Output samples per input sample.
    padding : int or 1 int, default 0
        Samples cropped from both ends.
    output_padding : int or 1 int, default 0
        Samples added at the end; less than the stride or the dilation.
    groups : int, default 1
        Channels are split into so many groups that do not mix.
    dilation : int or 1 int, default 1
        Output samples between two taps.

    Returns
    -------
    array, shape (N, out_channels, new_length) or (out_channels, new_length)
        ``new_length = (L - 1) stride - 2 padding + dilation (k - 1) + output_padding + 1``.

    Raises
    ------
    ValueError
        For a value or a shape that does not fit, naming what was received.
    TypeError
        For integers, for arrays of two libraries, for something that is no array or no number.

    See Also
    --------
    gpuconv.conv1d_transpose : the same with unequal crops, named paddings and an activation.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.dialects import pytorch as F
    >>> input = np.array([1.0, 2.0, 3.0]).reshape(1, 1, 3)
    >>> weight = np.array([1.0, 10.0, 100.0]).reshape(1, 1, 3)
    >>> F.conv_transpose1d(input, weight, stride=2, padding=1, output_padding=1).ravel()
    array([ 10., 102.,  20., 203.,  30., 300.])
    """
    return _conv_transpose(1, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose2d(
    input: Array,
    weight: Array,
    bias: Array | None = None,
    stride: PerAxis = 1,
    padding: PerAxis = 0,
    output_padding: PerAxis = 0,
    groups: int = 1,
    dilation: PerAxis = 1,
) -> Array:
    """2-D transposed convolution, called as ``torch.nn.functional.conv_transpose2d`` is.

    Parameters, result and errors are those of `conv_transpose1d`, with (N, in_channels, H, W), a weight of
    (in_channels, out_channels // groups, kH, kW), and one integer or 2 for each size.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.dialects import pytorch as F
    >>> F.conv_transpose2d(np.ones((1, 16, 7, 7)), np.ones((16, 8, 4, 4)), stride=2, padding=1).shape
    (1, 8, 14, 14)
    """
    return _conv_transpose(2, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose3d(
    input: Array,
    weight: Array,
    bias: Array | None = None,
    stride: PerAxis = 1,
    padding: PerAxis = 0,
    output_padding: PerAxis = 0,
    groups: int = 1,
    dilation: PerAxis = 1,
) -> Array:
    """3-D transposed convolution, called as ``torch.nn.functional.conv_transpose3d`` is.

    Parameters, result and errors are those of `conv_transpose1d`, with (N, in_channels, D, H, W), a weight
    of (in_channels, out_channels // groups, kD, kH, kW), and one integer or 3 for each size.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.dialects import pytorch as F
    >>> F.conv_transpose3d(np.ones((4, 3, 5, 5)), np.ones((4, 2, 2, 2, 2)), stride=(1, 2, 2)).shape
    (2, 4, 10, 10)
    """
    return _conv_transpose(3, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv1d(
    input: Array,
    weight: Array,
    bias: Array | None = None,
    stride: PerAxis = 1,
    padding: str | PerAxis = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
) -> Array:
    """1-D convolution, called as ``torch.nn.functional.conv1d`` is.

    Parameters
    ----------
    input, bias, groups
        As for `conv_transpose1d`.
    weight : array, shape (out_channels, in_channels // groups, k)
        Of the same library as `input`. Its axes are permuted by a view, which copies nothing.
    stride, dilation : int or 1 int, default 1
        Input samples per output sample, and between two taps.
    padding : int, 1 int, "valid" or "same", default 0
        Zeros put at both ends. "valid" is 0; "same" keeps the length, an odd zero goes to the end, and the
        stride must be 1.

    Returns
    -------
    array, shape (N, out_channels, new_length) or (out_channels, new_length)
        ``new_length = (L + 2 padding - dilation (k - 1) - 1) // stride + 1``.

    Raises
    ------
    ValueError, TypeError
        As `conv_transpose1d` does.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.dialects import pytorch as F
    >>> input = np.arange(1.0, 6.0).reshape(1, 1, 5)
    >>> F.conv1d(input, np.ones((1, 1, 2)), padding="same").ravel()
    array([3., 5., 7., 9., 5.])
    """
    return _conv(1, input, weight, bias, stride, padding, dilation, groups)


def conv2d(
    input: Array,
    weight: Array,
    bias: Array | None = None,
    stride: PerAxis = 1,
    padding: str | PerAxis = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
) -> Array:
    """2-D convolution, called as ``torch.nn.functional.conv2d`` is.

    Parameters, result and errors are those of `conv1d`, with (N, in_channels, H, W), a weight of
    (out_channels, in_channels // groups, kH, kW), and one integer or 2 for each size.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.dialects import pytorch as F
    >>> F.conv2d(np.ones((1, 3, 28, 28)), np.ones((16, 3, 5, 5)), stride=2, padding=2).shape
    (1, 16, 14, 14)
    """
    return _conv(2, input, weight, bias, stride, padding, dilation, groups)


def conv3d(
    input: Array,
    weight: Array,
    bias: Array | None = None,
    stride: PerAxis = 1,
    padding: str | PerAxis = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
) -> Array:
    """3-D convolution, called as ``torch.nn.functional.conv3d`` is.

    Parameters, result and errors are those of `conv1d`, with (N, in_channels, D, H, W), a weight of
    (out_channels, in_channels // groups, kD, kH, kW), and one integer or 3 for each size.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.dialects import pytorch as F
    >>> F.conv3d(np.ones((4, 3, 5, 5)), np.ones((2, 4, 2, 2, 2)), padding=(0, 1, 1)).shape
    (2, 2, 6, 6)
    """
    return _conv(3, input, weight, bias, stride, padding, dilation, groups)


def conv_padding(padding: Any, stride: PerAxis, ndim: int) -> str | tuple[int, ...]:
    """Check the padding of a forward convolution: "valid", "same", or an integer for each axis."""
    if not isinstance(padding, str):
        return per_axis("padding", padding, ndim, 0)
    if padding not in ("valid", "same"):
        raise ValueError(
            f"Expected padding to be 'valid', 'same', one integer or {ndim}. Received {padding=}."
        )
    if padding == "same" and any(s != 1 for s in per_axis("stride", stride, ndim, 1)):
        raise ValueError(
            f"Expected a stride of 1 with padding='same', as in PyTorch. Received {stride=}. "
            f"gpuconv.conv{ndim}d takes both."
        )
    return padding


def _conv_transpose(
    ndim: int,
    input: Array,
    weight: Array,
    bias: Array | None,
    stride: PerAxis,
    padding: PerAxis,
    output_padding: PerAxis,
    groups: int,
    dilation: PerAxis,
) -> Array:
    settings: dict[str, int | Sequence[int]] = {
        "strides": stride,
        "padding": per_axis("padding", padding, ndim, 0),  # a pair would crop unequally
        "output_padding": per_axis("output_padding", output_padding, ndim, 0),  # None means something else
        "dilation_rate": dilation,
    }
    return convolve(WORDS, ndim, True, input, weight, bias, groups, **settings)


def _conv(
    ndim: int,
    input: Array,
    weight: Array,
    bias: Array | None,
    stride: PerAxis,
    padding: str | PerAxis,
    dilation: PerAxis,
    groups: int,
) -> Array:
    settings = {
        "strides": stride,
        "padding": conv_padding(padding, stride, ndim),
        "dilation_rate": dilation,
    }
    return convolve(WORDS, ndim, False, input, weight, bias, groups, **settings)
