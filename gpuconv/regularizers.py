"""Penalties on weights and outputs. The numbers are Keras 3's.

Each is called with an array and returns a 0-d array of the same library, in the array's real type;
for half types in float32, because a sum over a kernel leaves float16's range early.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gpuconv._catalogue import Catalogue, Configured, checked, narrow, non_negative, one_of, widen
from gpuconv._typing import Array

__all__ = ["L1", "L1L2", "L2", "OrthogonalRegularizer", "get", "serialize"]

# Keras' backend.epsilon(): the shortest row that is still scaled to length 1.
_EPSILON = 1e-7


def _factor(default: float) -> Any:
    """A factor's field. None stands for the default, as in Keras."""
    return checked(default, lambda name, value: non_negative(name, default if value is None else value))


@dataclass(frozen=True)
class L1(Configured):
    """``l1 * sum(|x|)``.

    Source of the definition: Keras 3 ``keras.regularizers.L1``. Complex x: the modulus.

    Parameters
    ----------
    l1 : float
        Finite, at least 0.

    Raises
    ------
    ValueError
        If the factor is negative or not finite.
    TypeError
        If the factor is no number, or the array's type is not floating-point or complex.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.regularizers import L1
    >>> L1(0.5)(np.asarray([1.0, -3.0]))
    array(2.)
    """

    l1: float = _factor(0.01)

    def __call__(self, x: Array) -> Array:
        """Penalty of `x`, as a 0-d array."""
        return _penalty("L1", x, self.l1, 0.0)


@dataclass(frozen=True)
class L2(Configured):
    """``l2 * sum(|x|**2)``.

    Source of the definition: Keras 3 ``keras.regularizers.L2``. Complex x: the squared modulus.

    Parameters
    ----------
    l2 : float
        Finite, at least 0.

    Raises
    ------
    ValueError
        If the factor is negative or not finite.
    TypeError
        If the factor is no number, or the array's type is not floating-point or complex.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.regularizers import L2
    >>> L2(0.5)(np.asarray([1.0, -3.0]))
    array(5.)
    """

    l2: float = _factor(0.01)

    def __call__(self, x: Array) -> Array:
        """Penalty of `x`, as a 0-d array."""
        return _penalty("L2", x, 0.0, self.l2)


@dataclass(frozen=True)
class L1L2(Configured):
    """``l1 * sum(|x|) + l2 * sum(|x|**2)``. Both factors are 0 by default, as in Keras.

    Source of the definition: Keras 3 ``keras.regularizers.L1L2``.

    Parameters
    ----------
    l1, l2 : float
        Finite, at least 0.

    Raises
    ------
    ValueError
        If a factor is negative or not finite.
    TypeError
        If a factor is no number, or the array's type is not floating-point or complex.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.regularizers import L1L2
    >>> L1L2(l1=1.0, l2=0.5)(np.asarray([1.0, -3.0]))
    array(9.)
    """

    l1: float = _factor(0.0)
    l2: float = _factor(0.0)

    def __call__(self, x: Array) -> Array:
        """Penalty of `x`, as a 0-d array."""
        return _penalty("L1L2", x, self.l1, self.l2)


@dataclass(frozen=True)
class OrthogonalRegularizer(Configured):
    """``factor`` times the mean of ``|u . v|`` over all pairs of different rows u, v, scaled to length 1.

    Source of the definition: Keras 3 ``keras.regularizers.OrthogonalRegularizer``. Rows shorter than
    1e-7 are divided by 1e-7. Of a single row, which has no pairs, the penalty is 0 (Keras: NaN).

    Parameters
    ----------
    factor : float
        Finite, at least 0.
    mode : {"rows", "columns"}
        Which vectors of the matrix ought to be orthogonal.

    Raises
    ------
    ValueError
        If the factor is out of range, the mode unknown, or the array is not of rank 2.
    TypeError
        If the factor is no number, or the array's type is not floating-point or complex.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.regularizers import OrthogonalRegularizer
    >>> float(OrthogonalRegularizer(0.5)(np.asarray([[3.0, 0.0], [0.0, 2.0]])))
    0.0
    >>> float(OrthogonalRegularizer(0.5)(np.asarray([[3.0, 0.0], [2.0, 0.0]])))
    0.5
    """

    factor: float = _factor(0.01)
    mode: str = checked("rows", one_of("rows", "columns"))

    def __call__(self, x: Array) -> Array:
        """Penalty of `x`, as a 0-d array."""
        xp, wide = widen("OrthogonalRegularizer", x, accept_complex=True)
        if wide.ndim != 2:
            raise ValueError(
                f"Expected OrthogonalRegularizer to be given an array of rank 2. Received "
                f"shape={tuple(x.shape)}. Reshape the kernel, or use another regularizer."
            )
        rows = wide if self.mode == "rows" else wide.T
        norms = xp.sqrt(_square_sum(xp, rows, axis=1))
        rows = rows / xp.where(norms < _EPSILON, _EPSILON, norms)
        conjugate = xp.conj(rows) if xp.isdtype(rows.dtype, "complex floating") else rows
        products = xp.abs(rows @ conjugate.T)
        count = rows.shape[0]
        # The matrix is symmetric: above its diagonal each pair is once.
        penalty = self.factor * xp.sum(xp.triu(products, k=1)) / max(1, count * (count - 1) // 2)
        return narrow(xp, penalty, products.dtype)


def get(identifier: Any) -> Any:
    """The regularizer that a name, a config, a class, an instance or a callable stands for; None for None.

    Raises
    ------
    ValueError
        If the name or a config key is unknown. So is ``"l1_l2"``, as in Keras 3.
    TypeError
        If `identifier` is something else.

    Examples
    --------
    >>> from gpuconv import regularizers
    >>> regularizers.get("l2")
    L2(l2=0.01)
    >>> regularizers.get({"class_name": "L1", "config": {"l1": 0.5}})
    L1(l1=0.5)
    """
    return _CATALOGUE.get(identifier)


def serialize(regularizer: Any) -> Any:
    """`regularizer` as the nested dictionary that Keras 3 reads and writes.

    Raises
    ------
    ValueError
        If it is a function without a name.

    Examples
    --------
    >>> from gpuconv import regularizers
    >>> regularizers.serialize(regularizers.L2(0.5))["config"]
    {'l2': 0.5}
    """
    return _CATALOGUE.serialize(regularizer)


def _square_sum(xp: Any, x: Array, axis: int | None = None) -> Array:
    squares = xp.real(x) ** 2 + xp.imag(x) ** 2 if xp.isdtype(x.dtype, "complex floating") else x * x
    return xp.sum(squares, axis=axis, keepdims=axis is not None)


def _penalty(owner: str, x: Array, l1: float, l2: float) -> Array:
    xp, wide = widen(owner, x, accept_complex=True)
    # A factor of 0 skips its sum: 0 * inf would be NaN.
    terms = []
    if l1:
        terms.append(l1 * xp.sum(xp.abs(wide)))
    if l2:
        terms.append(l2 * _square_sum(xp, wide))
    total = sum(terms[1:], start=terms[0]) if terms else xp.sum(xp.zeros_like(xp.abs(wide)))
    return narrow(xp, total, total.dtype)


_CATALOGUE = Catalogue(
    "regularizer",
    {"l1": L1, "l2": L2, "l1l2": L1L2, "orthogonal_regularizer": OrthogonalRegularizer},
    hints={
        "l1_l2": "TensorFlow 2.9 read this name as L1L2(l1=0.01, l2=0.01) and Keras 3 refuses it: "
        "pass that object, or 'l1l2' for factors of 0."
    },
)
