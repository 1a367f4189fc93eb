"""First values of weights. The catalogue, the parameters and the formulas are those of Keras 3.

An initializer is called as ``init(shape, dtype="float32")`` and returns a NumPy array. It repeats its
values at every call, whether its seed is an integer or None; None picks a seed when the object is made.
The numbers are not Keras' own, whose generators differ from one of its backends to the next: they are
drawn in float64 by NumPy, so a seed means the same values in every dtype and for every array library.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpuconv._catalogue import Catalogue, Configured, checked, non_negative, real
from gpuconv._draws import (
    as_dtype,
    as_shape,
    cast,
    draw,
    entropy,
    floating,
    normal,
    seed_field,
    truncated,
    uniform,
)
from gpuconv._initializers_fixed import STFT, Constant, Identity, Ones, Zeros
from gpuconv._initializers_scaled import (
    GlorotNormal,
    GlorotUniform,
    HeNormal,
    HeUniform,
    LecunNormal,
    LecunUniform,
    VarianceScaling,
    fans,
)
from gpuconv._typing import Array
from gpuconv.namespace import library, to_numpy

__all__ = [
    "STFT",
    "Constant",
    "GlorotNormal",
    "GlorotUniform",
    "HeNormal",
    "HeUniform",
    "Identity",
    "LecunNormal",
    "LecunUniform",
    "Ones",
    "Orthogonal",
    "RandomNormal",
    "RandomUniform",
    "TruncatedNormal",
    "VarianceScaling",
    "Zeros",
    "fans",
    "get",
    "serialize",
]


@dataclass(frozen=True)
class RandomNormal(Configured):
    """Normal draws. Source of the definition: Keras 3 ``keras.initializers.RandomNormal``.

    A complex draw has a real mean, and `stddev` squared as its total variance.

    Raises
    ------
    ValueError
        If `mean` is not finite, or `stddev` or `seed` is negative.
    TypeError
        If an argument is of another kind, or the dtype asked for is of integers.

    Examples
    --------
    >>> from gpuconv.initializers import RandomNormal
    >>> init = RandomNormal(mean=1.0, stddev=0.5)
    >>> bool((init((3, 2)) == init((3, 2))).all())
    True
    """

    mean: float = checked(0.0, real)
    stddev: float = checked(0.05, non_negative)
    seed: int | None = seed_field()
    _entropy: int = entropy()

    def __call__(self, shape: Iterable[int], dtype: Any = "float32") -> np.ndarray:
        """Draw an array of `shape` in `dtype`."""
        lengths, found = as_shape(shape), floating("RandomNormal", dtype)
        return draw(self, lengths, found, normal, mean=self.mean, scale=self.stddev)


@dataclass(frozen=True)
class TruncatedNormal(Configured):
    """Normal draws, those beyond ``mean +- 2 stddev`` drawn again: their deviation is ``0.8796 stddev``.

    Source of the definition: Keras 3 ``keras.initializers.TruncatedNormal``. Complex draws, parameters
    and errors as for `RandomNormal`.

    Examples
    --------
    >>> from gpuconv.initializers import TruncatedNormal
    >>> bool(abs(TruncatedNormal(stddev=0.5, seed=1)((100,))).max() <= 1)
    True
    """

    mean: float = checked(0.0, real)
    stddev: float = checked(0.05, non_negative)
    seed: int | None = seed_field()
    _entropy: int = entropy()

    def __call__(self, shape: Iterable[int], dtype: Any = "float32") -> np.ndarray:
        """Draw an array of `shape` in `dtype`."""
        lengths, found = as_shape(shape), floating("TruncatedNormal", dtype)
        return draw(self, lengths, found, truncated, mean=self.mean, scale=self.stddev)


@dataclass(frozen=True)
class RandomUniform(Configured):
    """Uniform draws between `minval` and `maxval`.

    Source of the definition: Keras 3 ``keras.initializers.RandomUniform``. A complex draw has the real
    mean and the total variance of a real one.

    Raises
    ------
    ValueError
        If a bound is not finite, `minval` exceeds `maxval`, or `seed` is negative.
    TypeError
        If an argument is of another kind, or the dtype asked for is of integers.

    Examples
    --------
    >>> from gpuconv.initializers import RandomUniform
    >>> draw = RandomUniform(2.0, 3.0, seed=1)((100,))
    >>> bool(draw.min() >= 2 and draw.max() <= 3)
    True
    """

    minval: float = checked(-0.05, real)
    maxval: float = checked(0.05, real)
    seed: int | None = seed_field()
    _entropy: int = entropy()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.minval > self.maxval:
            raise ValueError(
                f"Expected minval to be at most maxval. Received minval={self.minval!r}, "
                f"maxval={self.maxval!r}."
            )

    def __call__(self, shape: Iterable[int], dtype: Any = "float32") -> np.ndarray:
        """Draw an array of `shape` in `dtype`."""
        lengths, found = as_shape(shape), floating("RandomUniform", dtype)
        centre, half = (self.minval + self.maxval) / 2, (self.maxval - self.minval) / 2
        return draw(self, lengths, found, uniform, mean=centre, scale=half)


@dataclass(frozen=True)
class Orthogonal(Configured):
    """`gain` times a matrix of orthonormal columns, or rows if it is wide, uniform among all such.

    A kernel is the matrix of its last axis against all others. Q of a normal matrix' QR, each column
    turned by the phase of R's diagonal; complex: unitary.
    Source of the definition: Keras 3 ``keras.initializers.Orthogonal``; Saxe et al. 2014.

    Raises
    ------
    ValueError
        If `gain` is not finite, `seed` is negative or the shape's rank is below 2.
    TypeError
        If an argument is of another kind, or the dtype asked for is of integers.

    Examples
    --------
    >>> from gpuconv.initializers import Orthogonal
    >>> w = Orthogonal(seed=1)((3, 2, 4), "float64").reshape(6, 4)
    >>> abs(w.T @ w).round(6)
    array([[1., 0., 0., 0.], [0., 1., 0., 0.], [0., 0., 1., 0.], [0., 0., 0., 1.]])
    """

    gain: float = checked(1.0, real)
    seed: int | None = seed_field()
    _entropy: int = entropy()

    def __call__(self, shape: Iterable[int], dtype: Any = "float32") -> np.ndarray:
        """Draw an array of `shape` in `dtype`."""
        lengths, found = as_shape(shape), floating("Orthogonal", dtype)
        if len(lengths) < 2:
            raise ValueError(f"Expected Orthogonal to be asked for rank 2 or more. Received shape={lengths}.")
        rows, columns = math.prod(lengths[:-1]), lengths[-1]
        double = np.dtype(np.complex128 if found.kind == "c" else np.float64)
        tall = draw(self, (max(rows, columns), min(rows, columns)), double, normal)
        q, r = np.linalg.qr(tall)
        diagonal = np.diagonal(r)
        q = q * (diagonal / np.abs(diagonal))
        return (self.gain * (q if rows >= columns else q.T)).reshape(lengths).astype(found)


@dataclass(frozen=True, eq=False)
class _Given:
    """Values that were given as an array."""

    values: np.ndarray

    def __call__(self, shape: Iterable[int], dtype: Any = "float32") -> np.ndarray:
        lengths = as_shape(shape)
        if lengths != self.values.shape:
            raise ValueError(
                f"Expected the array given as initializer to have the shape of the weights, {lengths}. "
                f"Received shape={self.values.shape}. Transpose or reshape it first."
            )
        return cast("the array given as initializer", self.values, as_dtype(dtype))


def get(identifier: Any) -> Callable[..., Array] | None:
    """The initializer that a name, a config, an array, a class, an instance or a callable stands for.

    An array of any library becomes an initializer that returns a copy of it once the shape is checked.
    A callable ``f(shape, dtype)`` is returned as it is, and so is None.

    Raises
    ------
    ValueError
        If the name or a config key is unknown.
    TypeError
        If `identifier` is something else.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv import initializers
    >>> initializers.get("he_normal")
    HeNormal(seed=None, input_axes=None, output_axes=None)
    >>> initializers.get(np.asarray([1, 2]))((2,), "float64")
    array([1., 2.])
    """
    if isinstance(identifier, Mapping) and identifier.get("class_name") in ("__numpy__", "__tensor__"):
        config = identifier["config"]
        return _Given(np.asarray(config["value"]).astype(as_dtype(config["dtype"])))
    if not isinstance(identifier, str | Mapping | Sequence) and _is_array(identifier):
        # A copy: the object's values may not change when the user's array does.
        return _Given(np.array(to_numpy(identifier)))
    found: Callable[..., Array] | None = _CATALOGUE.get(identifier)
    return found


def serialize(initializer: Any) -> Any:
    """`initializer` as the nested dictionary that Keras 3 reads and writes.

    A given array is written as Keras writes arrays, values and all.

    Raises
    ------
    ValueError
        If it is a function without a name.

    Examples
    --------
    >>> from gpuconv import initializers
    >>> initializers.serialize(initializers.Constant(2.0))["config"]
    {'value': 2.0}
    """
    if isinstance(initializer, _Given):
        values = initializer.values
        return {"class_name": "__numpy__", "config": {"value": values.tolist(), "dtype": values.dtype.name}}
    return _CATALOGUE.serialize(initializer)


def _is_array(identifier: Any) -> bool:
    try:
        library(identifier)
    except TypeError:
        return False
    return True


_CATALOGUE = Catalogue(
    "initializer",
    {
        "constant": Constant,
        "identity": Identity,
        "ones": Ones,
        "stft": STFT,
        "zeros": Zeros,
        "glorot_normal": GlorotNormal,
        "glorot_uniform": GlorotUniform,
        "he_normal": HeNormal,
        "he_uniform": HeUniform,
        "lecun_normal": LecunNormal,
        "lecun_uniform": LecunUniform,
        "orthogonal": Orthogonal,
        "random_normal": RandomNormal,
        "random_uniform": RandomUniform,
        "truncated_normal": TruncatedNormal,
        "variance_scaling": VarianceScaling,
    },
    aliases={
        "IdentityInitializer": "identity",
        "OrthogonalInitializer": "orthogonal",
        "STFTInitializer": "stft",
        "normal": "random_normal",
        "one": "ones",
        "uniform": "random_uniform",
        "zero": "zeros",
    },
)
