"""The elementwise activations made of pieces. `gpuconv.activations` is their public place.

Pieces are chosen by ``where`` on both sides of a kink instead of by ``maximum`` or ``abs``, and no
discarded piece is infinite: so a NaN stays a NaN, and the derivative that torch's or JAX's autodiff
finds at a kink is Keras' (0 for relu at 0) instead of the mean of both sides.
"""

from __future__ import annotations

from gpuconv._catalogue import narrow, widen
from gpuconv._typing import Array, Namespace
from gpuconv.namespace import is_numpy_array

__all__ = [
    "SELU_ALPHA",
    "SELU_SCALE",
    "at_least",
    "celu",
    "clip",
    "elu",
    "hard_shrink",
    "hard_sigmoid",
    "hard_silu",
    "hard_tanh",
    "leaky_relu",
    "relu",
    "relu6",
    "selu",
    "soft_shrink",
    "sparse_plus",
    "sparse_sigmoid",
    "threshold",
]

# Klambauer et al. 2017: the fixed point at mean 0 and variance 1.
SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805


def relu(
    x: Array, negative_slope: float = 0.0, max_value: float | None = None, threshold: float = 0.0
) -> Array:
    """``max(x, 0)``; in general `max_value` above itself, x above `threshold`, else a slope.

    ``min(x if x > threshold else 0, max_value) - negative_slope * max(threshold - x, 0)``.
    Source of the definition: Keras 3 ``keras.activations.relu``.

    Raises
    ------
    TypeError
        If x is not floating-point.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.activations import relu
    >>> relu(np.asarray([-4.0, 0.5, 9.0]), negative_slope=0.25, max_value=6.0)
    array([-1. ,  0.5,  6. ])
    """
    if negative_slope and max_value is None and threshold == 0:
        return leaky_relu(x, negative_slope)  # as in Keras: so the derivative at 0 is 1 here too
    xp, wide = widen("relu", x)
    y = at_least(xp, wide, 0.0) if threshold == 0 else xp.where(wide <= threshold, 0.0, wide)
    if max_value is not None:
        y = clip(xp, y, 0.0, max_value)
    if negative_slope:
        y = y - negative_slope * xp.where(wide < threshold, threshold - wide, 0.0)
    return narrow(xp, y, x.dtype)


def leaky_relu(x: Array, negative_slope: float = 0.2) -> Array:
    """``x`` where it is at least 0, else ``negative_slope * x``.

    Source of the definition: Keras 3 ``keras.activations.leaky_relu``; Maas et al. 2013.

    Raises
    ------
    TypeError
        If x is not floating-point.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.activations import leaky_relu
    >>> leaky_relu(np.asarray([-1.0, 2.0]))
    array([-0.2,  2. ])
    """
    xp, wide = widen("leaky_relu", x)
    if is_numpy_array(wide) and 0 < negative_slope <= 1:  # see at_least
        return narrow(xp, xp.maximum(wide, negative_slope * wide), x.dtype)
    return narrow(xp, xp.where(wide >= 0, wide, negative_slope * wide), x.dtype)


def relu6(x: Array) -> Array:
    """``min(max(x, 0), 6)``.

    Source of the definition: Keras 3 ``keras.activations.relu6``.

    Raises
    ------
    TypeError
        If x is not floating-point.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.activations import relu6
    >>> relu6(np.asarray([-1.0, 2.0, 9.0]))
    array([0., 2., 6.])
    """
    xp, wide = widen("relu6", x)
    return narrow(xp, clip(xp, wide, 0.0, 6.0), x.dtype)


def elu(x: Array, alpha: float = 1.0) -> Array:
    """``x`` where it is positive, else ``alpha * (exp(x) - 1)``.

    Source of the definition: Keras 3 ``keras.activations.elu``; Clevert et al. 2016.

    Raises
    ------
    TypeError
        If x is not floating-point.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.activations import elu
    >>> elu(np.asarray([-1.0, 2.0])).round(4)
    array([-0.6321,  2.    ])
    """
    xp, wide = widen("elu", x)
    return narrow(xp, _elu(xp, wide, alpha, 1.0), x.dtype)


def celu(x: Array, alpha: float = 1.0) -> Array:
    """``x`` where it is positive, else ``alpha * (exp(x / alpha) - 1)``.

    Source of the definition: Keras 3 ``keras.activations.celu``; Barron 2017.

    Raises
    ------
    ValueError
        If `alpha` is not positive.
    TypeError
        If x is not floating-point.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.activations import celu
    >>> celu(np.asarray([-1.0, 2.0]), alpha=2.0).round(4)
    array([-0.7869,  2.    ])
    """
    if not alpha > 0:
        raise ValueError(f"Expected alpha to be positive. Received alpha={alpha!r}.")
    xp, wide = widen("celu", x)
    return narrow(xp, _elu(xp, wide, alpha, alpha), x.dtype)


def selu(x: Array) -> Array:
    """``1.05070098 * elu(x, alpha=1.67326324)``.

    Source of the definition: Keras 3 ``keras.activations.selu``; Klambauer et al. 2017.

    Raises
    ------
    TypeError
        If x is not floating-point.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.activations import selu
    >>> selu(np.asarray([-1.0, 2.0])).round(4)
    array([-1.1113,  2.1014])
    """
    xp, wide = widen("selu", x)
    return narrow(xp, SELU_SCALE * _elu(xp, wide, SELU_ALPHA, 1.0), x.dtype)


def sparse_plus(x: Array) -> Array:
    """0 up to -1, ``(x + 1)**2 / 4`` up to 1, x above.

    Source of the definition: Keras 3 ``keras.activations.sparse_plus``.

    Raises
    ------
    TypeError
        If x is not floating-point.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.activations import sparse_plus
    >>> sparse_plus(np.asarray([-2.0, 0.0, 2.0]))
    array([0.  , 0.25, 2.  ])
    """
    xp, wide = widen("sparse_plus", x)
    return narrow(xp, xp.where(wide >= 1, wide, (clip(xp, wide, -1.0, 1.0) + 1) ** 2 / 4), x.dtype)


def soft_shrink(x: Array, threshold: float = 0.5) -> Array:
    """Move x towards 0 by `threshold`; 0 where it would pass 0.

    Source of the definition: Keras 3 ``keras.activations.soft_shrink``.

    Raises
    ------
    TypeError
        If x is not floating-point.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.activations import soft_shrink
    >>> soft_shrink(np.asarray([-2.0, 0.25, 2.0]))
    array([-1.5,  0. ,  1.5])
    """
    xp, wide = widen("soft_shrink", x)
    moved = xp.where(wide > threshold, wide - threshold, wide + threshold)
    return narrow(xp, xp.where(xp.abs(wide) <= threshold, 0.0, moved), x.dtype)


def hard_shrink(x: Array, threshold: float = 0.5) -> Array:
    """``x`` where ``|x| > threshold``, else 0.

    Source of the definition: Keras 3 ``keras.activations.hard_shrink``.

    Raises
    ------
    TypeError
        If x is not floating-point.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.activations import hard_shrink
    >>> hard_shrink(np.asarray([-2.0, 0.25, 2.0]))
    array([-2.,  0.,  2.])
    """
    xp, wide = widen("hard_shrink", x)
    return narrow(xp, xp.where(xp.abs(wide) <= threshold, 0.0, wide), x.dtype)


def hard_tanh(x: Array) -> Array:
    """``min(max(x, -1), 1)``.

    Source of the definition: Keras 3 ``keras.activations.hard_tanh``.

    Raises
    ------
    TypeError
        If x is not floating-point.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.activations import hard_tanh
    >>> hard_tanh(np.asarray([-2.0, 0.5]))
    array([-1. ,  0.5])
    """
    xp, wide = widen("hard_tanh", x)
    return narrow(xp, clip(xp, wide, -1.0, 1.0), x.dtype)


def sparse_sigmoid(x: Array) -> Array:
    """``(x + 1) / 2`` cut to between 0 and 1.

    Source of the definition: Keras 3 ``keras.activations.sparse_sigmoid``; Blondel et al. 2019.

    Raises
    ------
    TypeError
        If x is not floating-point.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.activations import sparse_sigmoid
    >>> sparse_sigmoid(np.asarray([-2.0, 0.5, 2.0]))
    array([0.  , 0.75, 1.  ])
    """
    xp, wide = widen("sparse_sigmoid", x)
    return narrow(xp, 0.5 * (clip(xp, wide, -1.0, 1.0) + 1), x.dtype)


def hard_sigmoid(x: Array) -> Array:
    """``x / 6 + 1 / 2`` cut to between 0 and 1. TensorFlow 2.9 used ``0.2 x + 1 / 2``.

    Source of the definition: Keras 3 ``keras.activations.hard_sigmoid``.

    Raises
    ------
    TypeError
        If x is not floating-point.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.activations import hard_sigmoid
    >>> hard_sigmoid(np.asarray([-4.0, 1.5, 4.0]))
    array([0.  , 0.75, 1.  ])
    """
    xp, wide = widen("hard_sigmoid", x)
    return narrow(xp, _hard_sigmoid(xp, wide), x.dtype)


def hard_silu(x: Array) -> Array:
    """``x * hard_sigmoid(x)``, also called hard swish.

    Source of the definition: Keras 3 ``keras.activations.hard_silu``; Howard et al. 2019.

    Raises
    ------
    TypeError
        If x is not floating-point.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.activations import hard_silu
    >>> hard_silu(np.asarray([-4.0, 1.5, 4.0]))
    array([-0.   ,  1.125,  4.   ])
    """
    xp, wide = widen("hard_silu", x)
    return narrow(xp, wide * _hard_sigmoid(xp, wide), x.dtype)


def threshold(x: Array, threshold: float, default_value: float) -> Array:
    """``x`` where it is above `threshold`, else `default_value`.

    Source of the definition: Keras 3 ``keras.activations.threshold``.

    Raises
    ------
    TypeError
        If x is not floating-point.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.activations import threshold
    >>> threshold(np.asarray([0.5, 2.0]), 1.0, -7.0)
    array([-7.,  2.])
    """
    xp, wide = widen("threshold", x)
    return narrow(xp, xp.where(wide <= threshold, default_value, wide), x.dtype)


def at_least(xp: Namespace, x: Array, low: float) -> Array:
    """``max(x, low)``, with derivative 0 at `low`."""
    # NumPy has no autodiff to mislead, and is ten times faster at maximum than at where.
    return xp.maximum(x, low) if is_numpy_array(x) else xp.where(x <= low, low, x)


def clip(xp: Namespace, x: Array, low: float, high: float) -> Array:
    """`x` cut to between `low` and `high`, with derivative 0 at both ends."""
    raised = at_least(xp, x, low)
    return xp.minimum(raised, high) if is_numpy_array(x) else xp.where(raised >= high, high, raised)


def _elu(xp: Namespace, x: Array, factor: float, divisor: float) -> Array:
    """``factor * expm1(x / divisor)`` below 0, x above; expm1 never sees a positive x."""
    return xp.where(x > 0, x, factor * xp.expm1(xp.where(x > 0, 0.0, x) / divisor))


def _hard_sigmoid(xp: Namespace, x: Array) -> Array:
    return (clip(xp, x, -3.0, 3.0) + 3) / 6
