"""Projections of weights, applied after an optimizer's update. The numbers are Keras 3's.

In a kernel (k, filters, in_channels) of a transposed convolution, axis 0 is the taps alone; the norm of
everything that makes one output channel is over axes (0, 2).
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

from gpuconv._catalogue import Catalogue, Configured, checked, narrow, non_negative, widen
from gpuconv._typing import Array

__all__ = ["MaxNorm", "MinMaxNorm", "NonNeg", "UnitNorm", "get", "serialize"]

# Keras' backend.epsilon(), added to every norm that is divided by.
_EPSILON = 1e-7


def _axes(name: str, value: Any) -> int | tuple[int, ...]:
    """`value` as an integer or a tuple of at least one."""
    try:
        return operator.index(value)
    except TypeError:
        pass
    try:
        axes = tuple(operator.index(axis) for axis in value)
    except TypeError:
        raise TypeError(
            f"Expected {name} to be an integer or a sequence of integers. Received {name}={value!r}."
        ) from None
    if not axes:
        raise ValueError(f"Expected {name} to name at least one axis. Received {name}={value!r}.")
    return axes


@dataclass(frozen=True)
class MaxNorm(Configured):
    """``w * min(n, max_value) / (1e-7 + n)``, n being the L2 norm over `axis`.

    Source of the definition: Keras 3 ``keras.constraints.MaxNorm``. Complex w: the norm of the moduli.

    Parameters
    ----------
    max_value : float
        Longest norm allowed.
    axis : int or sequence of int
        Axes that one norm is taken over.

    Raises
    ------
    ValueError
        If `max_value` is negative or not finite, or if the array lacks an axis.
    TypeError
        If an argument is of another kind, or the array's type is not floating-point or complex.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.constraints import MaxNorm
    >>> MaxNorm(1.0)(np.asarray([[3.0, 0.25], [4.0, 0.0]])).round(6)
    array([[0.6 , 0.25], [0.8 , 0.  ]])
    """

    max_value: float = checked(2.0, non_negative)
    axis: int | tuple[int, ...] = checked(0, _axes)

    def __call__(self, w: Array) -> Array:
        """Project `w` into a new array."""
        xp, wide, norm = _norms("MaxNorm", w, self.axis)
        wanted = xp.where(norm > self.max_value, self.max_value, norm)
        return narrow(xp, wide * (wanted / (_EPSILON + norm)), w.dtype)


@dataclass(frozen=True)
class MinMaxNorm(Configured):
    """``w * (rate * clip(n, min_value, max_value) + (1 - rate) * n) / (1e-7 + n)``, n the norm over `axis`.

    Source of the definition: Keras 3 ``keras.constraints.MinMaxNorm``. Complex w: the norm of the moduli.

    Parameters
    ----------
    min_value, max_value : float
        Shortest and longest norm wanted.
    rate : float
        Between 0, no change, and 1, the whole way at once.
    axis : int or sequence of int
        Axes that one norm is taken over.

    Raises
    ------
    ValueError
        If a number is out of range, `min_value` exceeds `max_value`, or the array lacks an axis.
    TypeError
        If an argument is of another kind, or the array's type is not floating-point or complex.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.constraints import MinMaxNorm
    >>> MinMaxNorm(0.5, 1.0, rate=0.5)(np.asarray([[3.0, 0.25], [4.0, 0.0]])).round(6)
    array([[1.8 , 0.375], [2.4 , 0.   ]])
    """

    min_value: float = checked(0.0, non_negative)
    max_value: float = checked(1.0, non_negative)
    rate: float = checked(1.0, non_negative)
    axis: int | tuple[int, ...] = checked(0, _axes)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rate > 1:
            raise ValueError(f"Expected rate to be between 0 and 1. Received rate={self.rate!r}.")
        if self.min_value > self.max_value:
            raise ValueError(
                f"Expected min_value to be at most max_value. Received min_value={self.min_value!r}, "
                f"max_value={self.max_value!r}."
            )

    def __call__(self, w: Array) -> Array:
        """Project `w` into a new array."""
        xp, wide, norm = _norms("MinMaxNorm", w, self.axis)
        clipped = xp.where(norm > self.max_value, self.max_value, norm)
        clipped = xp.where(clipped < self.min_value, self.min_value, clipped)
        wanted = self.rate * clipped + (1 - self.rate) * norm
        return narrow(xp, wide * (wanted / (_EPSILON + norm)), w.dtype)


@dataclass(frozen=True)
class NonNeg(Configured):
    """``max(w, 0)``.

    Source of the definition: Keras 3 ``keras.constraints.NonNeg``.

    Raises
    ------
    TypeError
        If the array's type is not floating-point: complex numbers have no order.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.constraints import NonNeg
    >>> NonNeg()(np.asarray([-1.0, 2.0]))
    array([0., 2.])
    """

    def __call__(self, w: Array) -> Array:
        """Project `w` into a new array."""
        xp, wide = widen("NonNeg", w)
        return narrow(xp, xp.where(wide <= 0, 0.0, wide), w.dtype)


@dataclass(frozen=True)
class UnitNorm(Configured):
    """``w / (1e-7 + n)``, n being the L2 norm over `axis`.

    Source of the definition: Keras 3 ``keras.constraints.UnitNorm``. Complex w: the norm of the moduli.

    Parameters
    ----------
    axis : int or sequence of int
        Axes that one norm is taken over.

    Raises
    ------
    ValueError
        If the array lacks an axis.
    TypeError
        If `axis` is no integer, or the array's type is not floating-point or complex.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.constraints import UnitNorm
    >>> UnitNorm()(np.asarray([[3.0], [4.0]])).round(6)
    array([[0.6], [0.8]])
    """

    axis: int | tuple[int, ...] = checked(0, _axes)

    def __call__(self, w: Array) -> Array:
        """Project `w` into a new array."""
        xp, wide, norm = _norms("UnitNorm", w, self.axis)
        return narrow(xp, wide / (_EPSILON + norm), w.dtype)


def get(identifier: Any) -> Any:
    """The constraint that a name, a config, a class, an instance or a callable stands for; None for None.

    Raises
    ------
    ValueError
        If the name or a config key is unknown.
    TypeError
        If `identifier` is something else.

    Examples
    --------
    >>> from gpuconv import constraints
    >>> constraints.get("unit_norm")
    UnitNorm(axis=0)
    >>> constraints.get({"class_name": "MaxNorm", "config": {"max_value": 3, "axis": [0, 2]}})
    MaxNorm(max_value=3.0, axis=(0, 2))
    """
    return _CATALOGUE.get(identifier)


def serialize(constraint: Any) -> Any:
    """`constraint` as the nested dictionary that Keras 3 reads and writes.

    Raises
    ------
    ValueError
        If it is a function without a name.

    Examples
    --------
    >>> from gpuconv import constraints
    >>> constraints.serialize(constraints.UnitNorm((0, 2)))["config"]
    {'axis': [0, 2]}
    """
    return _CATALOGUE.serialize(constraint)


def _norms(owner: str, w: Array, axis: int | tuple[int, ...]) -> tuple[Any, Array, Array]:
    """The namespace, `w` in its working type, and its norms over `axis`, of length 1 there."""
    xp, wide = widen(owner, w, accept_complex=True)
    axes = (axis,) if isinstance(axis, int) else axis
    inside = [a for a in axes if -wide.ndim <= a < wide.ndim]
    if len(inside) < len(axes) or len({a % wide.ndim for a in inside}) < len(axes):
        raise ValueError(
            f"Expected the axes of {owner} to be different axes of the array. "
            f"Received axis={axis!r} with shape={tuple(w.shape)}."
        )
    modulus = xp.abs(wide)
    return xp, wide, xp.sqrt(xp.sum(modulus * modulus, axis=axes, keepdims=True))


_CATALOGUE = Catalogue(
    "constraint",
    {"max_norm": MaxNorm, "min_max_norm": MinMaxNorm, "non_neg": NonNeg, "unit_norm": UnitNorm},
    # TensorFlow 2.9's further spellings.
    aliases={"maxnorm": "max_norm", "nonneg": "non_neg", "unitnorm": "unit_norm"},
)
