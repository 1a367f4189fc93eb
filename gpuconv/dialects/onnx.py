"""The operators ``ConvTranspose`` and ``Conv`` of ONNX, as functions of arrays.

Attributes are keyword arguments, under the names and with the defaults of the specification.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gpuconv._typing import Array
from gpuconv.dialects._channels_first import convolve
from gpuconv.geometry import as_shape, per_axis
from gpuconv.namespace import array_namespace

__all__ = ["Conv", "ConvTranspose"]

_WORDS = {
    "x": "X",
    "kernel": "W",
    "bias": "B",
    "padding": "pads",
    "dilation_rate": "dilations",
    "groups": "group",
}
_AUTO_PADS = ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")


class _Attributes(NamedTuple):
    """What both operators have, one entry for each axis; `pads` are (begin, end) pairs."""

    kernel_shape: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]


def ConvTranspose(
    X: Array,
    W: Array,
    B: Array | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    output_padding: Sequence[int] | None = None,
    output_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """Transposed convolution over 1 to 3 spatial axes, as ONNX ``ConvTranspose`` defines it.

    Source of the definition: the operator's specification, version 22, and its node tests.

    Parameters
    ----------
    X : array, shape (N, C, D1, ...)
        Of any array-API library; float16, bfloat16, float32, float64, complex64 or complex128.
    W : array, shape (C, M // group, k1, ...)
        Of the same library.
    B : array, shape (M,), optional
        Added to every output sample.
    auto_pad : {"NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"}
        How `pads` are found, below. Excludes `pads`.
    dilations, strides : sequence of int, optional
        One for each spatial axis; 1 by default.
    group : int, default 1
        Channels are split into so many groups that do not mix.
    kernel_shape : sequence of int, optional
        Must be what `W` has.
    output_padding : sequence of int, optional
        One for each spatial axis, less than the stride or the dilation; 0 by default. It lengthens the
        end, unless `output_shape` or SAME decides the length: then more is cropped.
    output_shape : sequence of int, optional
        Wanted lengths, without N and C. `pads` are ignored then.
    pads : sequence of int, optional
        Samples cropped: the begins of all axes, then the ends; 0 by default.

    Returns
    -------
    array, shape (N, M, O1, ...)
        With e = (k - 1) dilation + 1, t = stride (D - 1) + output_padding + e - O, begin and end being
        what is cropped:

        =============  ===========================================  ==========  ==========
        auto_pad       O                                            begin       end
        =============  ===========================================  ==========  ==========
        NOTSET, VALID  stride (D - 1) + output_padding + e - pads   pads, or 0  pads, or 0
        SAME_UPPER     output_shape, or D stride                    t // 2      t - begin
        SAME_LOWER     output_shape, or D stride                    t - end     t // 2
        =============  ===========================================  ==========  ==========

        NOTSET and VALID crop as SAME_LOWER does when `output_shape` is given. Where t is negative nothing is
        cropped, and zeros are appended at the end.

    Raises
    ------
    ValueError
        For attributes that do not fit each other or the arrays, naming what was received.
    TypeError
        For integers, for arrays of two libraries, for something that is no array or no number.

    Notes
    -----
    Where t is negative the specification leaves the rounding open; this is what its node tests and ONNX
    Runtime do. For SAME with e < stride, ONNX Runtime makes less than D stride.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.dialects import onnx
    >>> X = np.array([1.0, 2.0, 3.0]).reshape(1, 1, 3)
    >>> W = np.array([1.0, 10.0, 100.0]).reshape(1, 1, 3)
    >>> onnx.ConvTranspose(X, W, strides=[2], auto_pad="SAME_UPPER").ravel()
    array([  1.,  10., 102.,  20., 203.,  30.])
    >>> onnx.ConvTranspose(X, W, strides=[2], output_shape=[6]).ravel()
    array([ 10., 102.,  20., 203.,  30., 300.])
    """
    size, steps, spacings, cuts = _attributes(X, W, auto_pad, dilations, kernel_shape, pads, strides)
    extras = per_axis("output_padding", 0 if output_padding is None else output_padding, len(size), 0)
    if output_shape is not None or auto_pad.startswith("SAME"):
        wanted: Sequence[int] = [n * s for n, s in zip(X.shape[2:], steps, strict=True)]
        if output_shape is not None:
            wanted = per_axis("output_shape", output_shape, len(size), 0)
        axes = zip(X.shape[2:], size, steps, spacings, extras, wanted, strict=True)
        found = [_crop(*axis, upper=auto_pad == "SAME_UPPER") for axis in axes]
        cuts, extras = tuple((begin, end) for begin, end, _ in found), tuple(extra for *_, extra in found)
    return convolve(
        _WORDS,
        len(size),
        True,
        X,
        W,
        B,
        group,
        strides=steps,
        padding=cuts,
        output_padding=extras,
        dilation_rate=spacings,
    )


def Conv(
    X: Array,
    W: Array,
    B: Array | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Array:
    """Convolution over 1 to 3 spatial axes, as ONNX ``Conv`` defines it.

    Source of the definition: the operator's specification, version 22, and its node tests.

    Parameters
    ----------
    X, B, dilations, group, kernel_shape, strides
        As for `ConvTranspose`.
    W : array, shape (M, C // group, k1, ...)
        Of the same library as `X`.
    auto_pad : {"NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"}
        NOTSET puts `pads` zeros around `X` and VALID none. SAME makes ``ceil(D / stride)`` samples of D; of
        an odd number of zeros, SAME_UPPER puts the last at the end and SAME_LOWER at the beginning.
        (Where no zeros are needed, ONNX Runtime may skip samples at the beginning instead.)
    pads : sequence of int, optional
        Zeros put around `X`: the begins of all axes, then the ends; 0 by default.

    Returns
    -------
    array, shape (N, M, O1, ...)
        ``O = (D + begin + end - e) // stride + 1``, with e = (k - 1) dilation + 1.

    Raises
    ------
    ValueError, TypeError
        As `ConvTranspose` does.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.dialects import onnx
    >>> X, W = np.arange(1.0, 6.0).reshape(1, 1, 5), np.ones((1, 1, 2))
    >>> onnx.Conv(X, W, auto_pad="SAME_UPPER").ravel()
    array([3., 5., 7., 9., 5.])
    >>> onnx.Conv(X, W, auto_pad="SAME_LOWER").ravel()
    array([1., 3., 5., 7., 9.])
    """
    size, steps, spacings, cuts = _attributes(X, W, auto_pad, dilations, kernel_shape, pads, strides)
    padding = {"SAME_UPPER": "same", "SAME_LOWER": "same_lower"}.get(auto_pad, cuts)
    return convolve(
        _WORDS, len(size), False, X, W, B, group, strides=steps, padding=padding, dilation_rate=spacings
    )


def _attributes(
    X: Array,
    W: Array,
    auto_pad: str,
    dilations: Sequence[int] | None,
    kernel_shape: Sequence[int] | None,
    pads: Sequence[int] | None,
    strides: Sequence[int] | None,
) -> _Attributes:
    array_namespace(X=X, W=W)
    ndim = X.ndim - 2
    if not 1 <= ndim <= 3:
        raise ValueError(
            f"Expected X of 3, 4 or 5 dimensions, (N, C, D1, ...). Received X of shape {tuple(X.shape)}."
        )
    size = tuple(W.shape[2:])
    if W.ndim != X.ndim:
        raise ValueError(
            f"Expected W of {X.ndim} dimensions, as many as X. Received W of shape {tuple(W.shape)}."
        )
    if kernel_shape is not None and as_shape("kernel_shape", kernel_shape) != size:
        raise ValueError(f"Expected kernel_shape to be that of W, {size}. Received {kernel_shape=}.")
    if auto_pad not in _AUTO_PADS:
        raise ValueError(
            f"Expected auto_pad to be one of {', '.join(map(repr, _AUTO_PADS))}. Received {auto_pad=}."
        )
    steps = per_axis("strides", 1 if strides is None else strides, ndim, 1)
    spacings = per_axis("dilations", 1 if dilations is None else dilations, ndim, 1)
    if pads is None:
        return _Attributes(size, steps, spacings, ((0, 0),) * ndim)
    if auto_pad != "NOTSET":
        raise ValueError(f"Expected pads or auto_pad, not both. Received {pads=}, {auto_pad=}.")
    if len(as_shape("pads", pads)) != 2 * ndim:
        raise ValueError(
            f"Expected pads of {2 * ndim} integers, the begins of all axes and then the ends. "
            f"Received {pads=}."
        )
    values = per_axis("pads", pads, 2 * ndim, 0)
    return _Attributes(size, steps, spacings, tuple(zip(values[:ndim], values[ndim:], strict=True)))


def _crop(n: int, k: int, s: int, d: int, extra: int, wanted: int, *, upper: bool) -> tuple[int, int, int]:
    """Begin, end and output padding that make `wanted` samples: the specification's ``total_padding``."""
    full = (n - 1) * s + (k - 1) * d + 1
    most = full + max(s, d) - 1 if n else 0
    if wanted > most:
        raise ValueError(
            f"Expected output_shape of at most {most} for an input of length {n}, kernel_shape={k}, "
            f"strides={s}, dilations={d}. Received output_shape={wanted}."
        )
    total = full + extra - wanted
    if total < 0:
        return 0, 0, extra - total
    return (total // 2, total - total // 2, extra) if upper else (total - total // 2, total // 2, extra)
