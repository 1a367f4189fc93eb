"""Penalties on weights and outputs. The numbers are Keras 3's.

Each is called with an array and returns a 0-d array of the same library, in the array's real type;
for half types in float32, because a sum over a kernel leaves float16's range early. The gradients have
the shape and dtype of the array; for complex ones they are as torch has them, the steepest ascent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gpuconv._catalogue import Catalogue, Configured, checked, narrow, non_negative, one_of, widen
from gpuconv._typing import Array, Namespace

__all__ = ["L1", "L1L2", "L2", "OrthogonalRegularizer", "get", "gradient", "serialize"]

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

    def gradient(self, x: Array) -> Array:
        """``l1 * sign(x)``, 0 at 0. Complex x: ``l1 * x / |x|``."""
        return _penalty_gradient("L1", x, self.l1, 0.0)


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

    def gradient(self, x: Array) -> Array:
        """``2 * l2 * x``."""
        return _penalty_gradient("L2", x, 0.0, self.l2)


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

    def gradient(self, x: Array) -> Array:
        """``l1 * sign(x) + 2 * l2 * x``."""
        return _penalty_gradient("L1L2", x, self.l1, self.l2)


@dataclass(frozen=True)
class OrthogonalRegularizer(Configured):
    """``factor`` times the mean of ``|<u, v>|`` over all pairs of different rows u, v, scaled to length 1.

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
        xp, rows, _, _ = self._scaled_rows(x)
        products = xp.abs(rows @ _conj(xp, rows).T)
        # The matrix is symmetric: above its diagonal each pair is once.
        penalty = self.factor * xp.sum(xp.triu(products, k=1)) / _pairs(rows)
        return narrow(xp, penalty, products.dtype)

    def gradient(self, x: Array) -> Array:
        """For row u: ``factor / pairs * sum(sign(u . v) * v)``, less its part along u, over u's length.

        u and v being rows scaled to length 1; the sum is over all other rows v. That part stays where u is
        shorter than 1e-7. A pair that is orthogonal adds nothing.
        """
        xp, rows, lengths, short = self._scaled_rows(x)
        signs = _sign(xp, rows @ _conj(xp, rows).T)
        # A row's sign with itself is 1, but it is no pair.
        pull = self.factor * (signs @ rows - rows) / _pairs(rows)
        products = xp.real(pull * _conj(xp, rows)) if _is_complex(xp, rows) else pull * rows
        along = xp.sum(products, axis=1, keepdims=True)
        pull = (pull - xp.where(short, 0.0, along) * rows) / lengths
        return narrow(xp, pull if self.mode == "rows" else pull.T, x.dtype)

    def _scaled_rows(self, x: Array) -> tuple[Namespace, Array, Array, Array]:
        """The namespace of `x`, its vectors as rows of length 1, what divided them, which were too short."""
        xp, wide = widen("OrthogonalRegularizer", x, accept_complex=True)
        if wide.ndim != 2:
            raise ValueError(
                f"Expected OrthogonalRegularizer to be given an array of rank 2. Received "
                f"shape={tuple(x.shape)}. Reshape the kernel, or use another regularizer."
            )
        rows = wide if self.mode == "rows" else wide.T
        norms = xp.sqrt(_square_sum(xp, rows, axis=1))
        short = norms < _EPSILON
        lengths = xp.where(short, _EPSILON, norms)
        return xp, rows / lengths, lengths, short


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


def gradient(regularizer: Any, x: Array) -> Array:
    """The gradient of the penalty `regularizer` on `x`: an array of the shape and dtype of `x`.

    Raises
    ------
    NotImplementedError
        If `regularizer` is a callable from elsewhere that has no method ``gradient(x)``.
    ValueError, TypeError
        If `x` is no array that the regularizer is defined for.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv import regularizers
    >>> regularizers.gradient("l2", np.asarray([1.0, -3.0]))
    array([ 0.02, -0.06])
    """
    member = get(regularizer)
    if not hasattr(member, "gradient"):
        raise NotImplementedError(
            f"Expected a regularizer whose gradient is known. Received regularizer={regularizer!r}. "
            "Name one of the catalogue, or give the callable a method gradient(x)."
        )
    return member.gradient(x)


def _pairs(rows: Array) -> int:
    """How many pairs of rows there are; 1 for a single row, whose sums over pairs are 0."""
    count = rows.shape[0]
    return max(1, count * (count - 1) // 2)


def _is_complex(xp: Namespace, x: Array) -> bool:
    return xp.isdtype(x.dtype, "complex floating")


def _conj(xp: Namespace, x: Array) -> Array:
    return xp.conj(x) if _is_complex(xp, x) else x


def _sign(xp: Namespace, x: Array) -> Array:
    """``x / |x|``, 0 at 0. array-api-compat's own divides 0 by 0 on the way, where x is complex."""
    if not _is_complex(xp, x):
        return xp.sign(x)
    modulus = xp.abs(x)
    return x / xp.where(modulus == 0, 1.0, modulus)


def _square_sum(xp: Namespace, x: Array, axis: int | None = None) -> Array:
    squares = xp.real(x) ** 2 + xp.imag(x) ** 2 if _is_complex(xp, x) else x * x
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


def _penalty_gradient(owner: str, x: Array, l1: float, l2: float) -> Array:
    xp, wide = widen(owner, x, accept_complex=True)
    terms = [l1 * _sign(xp, wide)] if l1 else []
    if l2:
        terms.append(2 * l2 * wide)
    return narrow(xp, sum(terms[1:], start=terms[0]) if terms else xp.zeros_like(wide), x.dtype)


_CATALOGUE = Catalogue(
    "regularizer",
    {"l1": L1, "l2": L2, "l1l2": L1L2, "orthogonal_regularizer": OrthogonalRegularizer},
    hints={
        "l1_l2": "TensorFlow 2.9 read this name as L1L2(l1=0.01, l2=0.01) and Keras 3 refuses it: "
        "pass that object, or 'l1l2' for factors of 0."
    },
)
