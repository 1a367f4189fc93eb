"""The activations along an axis. `gpuconv.activations` is their public place."""

from __future__ import annotations

import math

from gpuconv._activations_kinked import clip
from gpuconv._activations_smooth import logistic
from gpuconv._catalogue import narrow, widen
from gpuconv._typing import Array, Shape

__all__ = ["ALONG_AN_AXIS", "check_axis", "glu", "halved", "log_softmax", "softmax", "sparsemax"]


def softmax(x: Array, axis: int = -1) -> Array:
    """``exp(x) / sum(exp(x))`` along `axis`.

    Source of the definition: Keras 3 ``keras.activations.softmax``. In the channels_first layout the
    default axis is the last spatial one, as in Keras.

    Raises
    ------
    ValueError
        If x has no such axis.
    TypeError
        If x is not floating-point.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.activations import softmax
    >>> softmax(np.log(np.asarray([1.0, 3.0]))).round(4)
    array([0.25, 0.75])
    """
    xp, wide = widen("softmax", x)
    check_axis(tuple(x.shape), axis)
    if not x.shape[axis]:
        return x  # nothing has no maximum
    powers = xp.exp(wide - xp.max(wide, axis=axis, keepdims=True))
    return narrow(xp, powers / xp.sum(powers, axis=axis, keepdims=True), x.dtype)


def log_softmax(x: Array, axis: int = -1) -> Array:
    """``log(softmax(x))`` along `axis`.

    Source of the definition: Keras 3 ``keras.activations.log_softmax``.

    Raises
    ------
    ValueError
        If x has no such axis.
    TypeError
        If x is not floating-point.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.activations import log_softmax
    >>> log_softmax(np.asarray([0.0, 1000.0]))
    array([-1000.,     0.])
    """
    xp, wide = widen("log_softmax", x)
    check_axis(tuple(x.shape), axis)
    if not x.shape[axis]:
        return x  # nothing has no maximum
    shifted = wide - xp.max(wide, axis=axis, keepdims=True)
    return narrow(xp, shifted - xp.log(xp.sum(xp.exp(shifted), axis=axis, keepdims=True)), x.dtype)


def sparsemax(x: Array, axis: int = -1) -> Array:
    """``max(x - tau, 0)`` along `axis`, tau such that it sums to 1: x's projection on the simplex.

    Source of the definition: Keras 3 ``keras.activations.sparsemax``; Martins and Astudillo 2016.
    The numbers are the paper's: Keras' own (3.15) sum to 1 only where a single entry is left.

    Raises
    ------
    ValueError
        If x has no such axis.
    TypeError
        If x is not floating-point.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.activations import sparsemax
    >>> sparsemax(np.asarray([1.0, 0.5, -1.0]))
    array([0.75, 0.25, 0.  ])
    """
    xp, wide = widen("sparsemax", x)
    check_axis(tuple(x.shape), axis)
    if not x.shape[axis]:
        return x  # nothing has no maximum
    # A common shift changes nothing but the size of the sums.
    wide = wide - xp.max(wide, axis=axis, keepdims=True)
    ordered = xp.sort(wide, axis=axis, descending=True)
    sums = xp.cumulative_sum(ordered, axis=axis)
    rank = xp.cumulative_sum(xp.ones_like(ordered), axis=axis)
    inside = rank * ordered > sums - 1
    # The largest is always inside, unless a NaN makes every comparison false.
    size = xp.where(
        xp.any(inside, axis=axis, keepdims=True),
        xp.sum(xp.astype(inside, wide.dtype), axis=axis, keepdims=True),
        1.0,
    )
    tau = (xp.sum(xp.where(inside, ordered, 0.0), axis=axis, keepdims=True) - 1) / size
    return narrow(xp, clip(xp, wide - tau, 0.0, math.inf), x.dtype)


def glu(x: Array, axis: int = -1) -> Array:
    """``a * sigmoid(b)``, a and b being the halves of x along `axis`, which is halved.

    Source of the definition: Keras 3 ``keras.activations.glu``; Dauphin et al. 2017.

    Raises
    ------
    ValueError
        If x has no such axis, or its length is odd.
    TypeError
        If x is not floating-point.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.activations import glu
    >>> glu(np.asarray([3.0, 5.0, 0.0, 0.0]))
    array([1.5, 2.5])
    """
    xp, wide = widen("glu", x)
    half = halved(tuple(x.shape), axis)[axis]
    before = (slice(None),) * (axis % wide.ndim)
    a, b = wide[(*before, slice(0, half), ...)], wide[(*before, slice(half, None), ...)]
    return narrow(xp, a * logistic(xp, b), x.dtype)


def halved(shape: Shape, axis: int) -> Shape:
    """Shape of what glu makes of an array of `shape`. A length that is None, not known, stays None."""
    check_axis(shape, axis)
    length = shape[axis]
    if length is None:
        return shape
    if length % 2:
        raise ValueError(
            f"Expected glu to be given an even length along its axis. Received {axis=} with {shape=}."
        )
    return tuple(length // 2 if i == axis % len(shape) else n for i, n in enumerate(shape))


def check_axis(shape: Shape, axis: int) -> None:
    """Refuse an axis that an array of `shape` does not have."""
    if not -len(shape) <= axis < len(shape):
        raise ValueError(f"Expected axis to be one of the array's. Received {axis=}, {shape=}.")


#: Those of the catalogue that make an element from others.
ALONG_AN_AXIS = (softmax, log_softmax, sparsemax, glu)
