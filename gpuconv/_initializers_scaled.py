"""Draws whose variance follows the shape of the kernel. `gpuconv.initializers` is their public place."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpuconv._catalogue import Configured, checked, one_of, real
from gpuconv._draws import as_shape, draw, entropy, floating, normal, seed_field, truncated, uniform

__all__ = [
    "GlorotNormal",
    "GlorotUniform",
    "HeNormal",
    "HeUniform",
    "LecunNormal",
    "LecunUniform",
    "VarianceScaling",
    "fans",
]

# Standard deviation of a standard normal cut at 2: the truncated draws are divided by it.
_TRUNCATED_STD = 0.87962566103423978

_MODES = ("fan_in", "fan_out", "fan_avg")
_DISTRIBUTIONS = ("truncated_normal", "untruncated_normal", "uniform")


def fans(
    shape: Iterable[int],
    input_axes: Iterable[int] | None = None,
    output_axes: Iterable[int] | None = None,
) -> tuple[int, int]:
    """Count the inputs and the outputs of one unit, as Keras does: ``(fan_in, fan_out)``.

    Of a kernel (..., a, b), with n = the product of the leading lengths, ``(n * a, n * b)``; of a
    vector its length, of a number 1. For a transposed convolution's (k, filters, in_channels) fan_in
    is therefore ``k * filters``. With both axes given, the products of these lengths.
    Source of the definition: Keras 3 ``keras.src.initializers.random_initializers.compute_fans``.

    Raises
    ------
    TypeError
        If `shape` is not made of integers.
    ValueError
        If a length is negative or an axis is not there.

    Examples
    --------
    >>> from gpuconv.initializers import fans
    >>> fans((5, 32, 64))
    (160, 320)
    """
    lengths = as_shape(shape)
    if input_axes is not None and output_axes is not None:
        return _product(lengths, input_axes), _product(lengths, output_axes)
    if len(lengths) < 2:
        return math.prod(lengths), math.prod(lengths)
    receptive = math.prod(lengths[:-2])
    return receptive * lengths[-2], receptive * lengths[-1]


def _axes(name: str, value: Any) -> tuple[int, ...] | None:
    if value is None:
        return None
    try:
        return tuple(operator.index(axis) for axis in value)
    except TypeError:
        raise TypeError(
            f"Expected {name} to be a sequence of integers or None. Received {name}={value!r}."
        ) from None


def _scale(name: str, value: Any) -> Any:
    if real(name, value) <= 0:
        raise ValueError(f"Expected {name} to be positive. Received {name}={value!r}.")
    return real(name, value)


def _distribution(name: str, value: Any) -> Any:
    word = value.lower() if isinstance(value, str) else value
    return one_of(*_DISTRIBUTIONS)(name, "truncated_normal" if word == "normal" else word)


@dataclass(frozen=True)
class VarianceScaling(Configured):
    """Draws around 0 of variance ``scale / n``, n being the fan that `mode` names (at least 1).

    ``"uniform"`` lies within ``+-sqrt(3 * scale / n)``; ``"truncated_normal"`` (also ``"normal"``) is cut
    at 2 standard deviations of the normal that it is cut from, which is made wider so that the variance
    still holds; ``"untruncated_normal"`` is not cut.
    Source of the definition: Keras 3 ``keras.initializers.VarianceScaling``.

    Parameters
    ----------
    scale : float
        Positive.
    mode : {"fan_in", "fan_out", "fan_avg"}
        Which fan to divide by.
    distribution : {"truncated_normal", "untruncated_normal", "uniform"}
        What to draw from.
    seed : int or None
        None picks one when the object is made; either way every call returns the same values.
    input_axes, output_axes : sequence of int or None
        Axes whose lengths make the fans, if not Keras' usual ones. Both or neither.

    Raises
    ------
    ValueError
        If an argument is out of range.
    TypeError
        If an argument is of another kind, or the dtype asked for is of integers.

    Examples
    --------
    >>> from gpuconv.initializers import VarianceScaling
    >>> draw = VarianceScaling(scale=3.0, distribution="uniform", seed=1)((3, 2, 4))
    >>> draw.shape, bool(abs(draw).max() <= (3 * 3 / 6) ** 0.5)
    ((3, 2, 4), True)
    """

    scale: float = checked(1.0, _scale)
    mode: str = checked("fan_in", one_of(*_MODES))
    distribution: str = checked("truncated_normal", _distribution)
    seed: int | None = seed_field()
    # Keras before 3.15 does not know these two keys: they are written only when they say something.
    input_axes: tuple[int, ...] | None = checked(None, _axes, omit_none=True)
    output_axes: tuple[int, ...] | None = checked(None, _axes, omit_none=True)
    _entropy: int = entropy()

    def __call__(self, shape: Iterable[int], dtype: Any = "float32") -> np.ndarray:
        """Draw an array of `shape` in `dtype`."""
        return _scaled(self, shape, dtype, self.scale, self.mode, self.distribution)


@dataclass(frozen=True)
class GlorotNormal(Configured):
    """Truncated normal draws of standard deviation ``sqrt(2 / (fan_in + fan_out))``.

    Cut at 2 standard deviations of the wider normal that leaves this one.
    Source of the definition: Keras 3 ``keras.initializers.GlorotNormal``; Glorot and Bengio 2010.
    Parameters and errors as for `VarianceScaling`.

    Examples
    --------
    >>> from gpuconv.initializers import GlorotNormal
    >>> GlorotNormal(seed=1)((3, 2, 4), "float64").dtype
    dtype('float64')
    """

    seed: int | None = seed_field()
    input_axes: tuple[int, ...] | None = checked(None, _axes, omit_none=True)
    output_axes: tuple[int, ...] | None = checked(None, _axes, omit_none=True)
    _entropy: int = entropy()

    def __call__(self, shape: Iterable[int], dtype: Any = "float32") -> np.ndarray:
        """Draw an array of `shape` in `dtype`."""
        return _scaled(self, shape, dtype, 1.0, "fan_avg", "truncated_normal")


@dataclass(frozen=True)
class GlorotUniform(Configured):
    """Uniform draws within ``+-sqrt(6 / (fan_in + fan_out))``.

    The kernel_initializer that Keras' layers have unless told otherwise.
    Source of the definition: Keras 3 ``keras.initializers.GlorotUniform``; Glorot and Bengio 2010.
    Parameters and errors as for `VarianceScaling`.

    Examples
    --------
    >>> from gpuconv.initializers import GlorotUniform
    >>> bool(abs(GlorotUniform(seed=1)((3, 2, 4))).max() <= (6 / 18) ** 0.5)
    True
    """

    seed: int | None = seed_field()
    input_axes: tuple[int, ...] | None = checked(None, _axes, omit_none=True)
    output_axes: tuple[int, ...] | None = checked(None, _axes, omit_none=True)
    _entropy: int = entropy()

    def __call__(self, shape: Iterable[int], dtype: Any = "float32") -> np.ndarray:
        """Draw an array of `shape` in `dtype`."""
        return _scaled(self, shape, dtype, 1.0, "fan_avg", "uniform")


@dataclass(frozen=True)
class HeNormal(Configured):
    """Truncated normal draws of standard deviation ``sqrt(2 / fan_in)``.

    Cut at 2 standard deviations of the wider normal that leaves this one.
    Source of the definition: Keras 3 ``keras.initializers.HeNormal``; He et al. 2015.
    Parameters and errors as for `VarianceScaling`.

    Examples
    --------
    >>> from gpuconv.initializers import HeNormal
    >>> HeNormal(seed=1)((3, 2, 4), "float64").dtype
    dtype('float64')
    """

    seed: int | None = seed_field()
    input_axes: tuple[int, ...] | None = checked(None, _axes, omit_none=True)
    output_axes: tuple[int, ...] | None = checked(None, _axes, omit_none=True)
    _entropy: int = entropy()

    def __call__(self, shape: Iterable[int], dtype: Any = "float32") -> np.ndarray:
        """Draw an array of `shape` in `dtype`."""
        return _scaled(self, shape, dtype, 2.0, "fan_in", "truncated_normal")


@dataclass(frozen=True)
class HeUniform(Configured):
    """Uniform draws within ``+-sqrt(6 / fan_in)``.

    Variance as for the normal form.
    Source of the definition: Keras 3 ``keras.initializers.HeUniform``; He et al. 2015.
    Parameters and errors as for `VarianceScaling`.

    Examples
    --------
    >>> from gpuconv.initializers import HeUniform
    >>> bool(abs(HeUniform(seed=1)((3, 2, 4))).max() <= (6 / 6) ** 0.5)
    True
    """

    seed: int | None = seed_field()
    input_axes: tuple[int, ...] | None = checked(None, _axes, omit_none=True)
    output_axes: tuple[int, ...] | None = checked(None, _axes, omit_none=True)
    _entropy: int = entropy()

    def __call__(self, shape: Iterable[int], dtype: Any = "float32") -> np.ndarray:
        """Draw an array of `shape` in `dtype`."""
        return _scaled(self, shape, dtype, 2.0, "fan_in", "uniform")


@dataclass(frozen=True)
class LecunNormal(Configured):
    """Truncated normal draws of standard deviation ``sqrt(1 / fan_in)``.

    Cut at 2 standard deviations of the wider normal that leaves this one.
    Source of the definition: Keras 3 ``keras.initializers.LecunNormal``; LeCun et al. 1998.
    Parameters and errors as for `VarianceScaling`.

    Examples
    --------
    >>> from gpuconv.initializers import LecunNormal
    >>> LecunNormal(seed=1)((3, 2, 4), "float64").dtype
    dtype('float64')
    """

    seed: int | None = seed_field()
    input_axes: tuple[int, ...] | None = checked(None, _axes, omit_none=True)
    output_axes: tuple[int, ...] | None = checked(None, _axes, omit_none=True)
    _entropy: int = entropy()

    def __call__(self, shape: Iterable[int], dtype: Any = "float32") -> np.ndarray:
        """Draw an array of `shape` in `dtype`."""
        return _scaled(self, shape, dtype, 1.0, "fan_in", "truncated_normal")


@dataclass(frozen=True)
class LecunUniform(Configured):
    """Uniform draws within ``+-sqrt(3 / fan_in)``.

    Variance as for the normal form.
    Source of the definition: Keras 3 ``keras.initializers.LecunUniform``; LeCun et al. 1998.
    Parameters and errors as for `VarianceScaling`.

    Examples
    --------
    >>> from gpuconv.initializers import LecunUniform
    >>> bool(abs(LecunUniform(seed=1)((3, 2, 4))).max() <= (3 / 6) ** 0.5)
    True
    """

    seed: int | None = seed_field()
    input_axes: tuple[int, ...] | None = checked(None, _axes, omit_none=True)
    output_axes: tuple[int, ...] | None = checked(None, _axes, omit_none=True)
    _entropy: int = entropy()

    def __call__(self, shape: Iterable[int], dtype: Any = "float32") -> np.ndarray:
        """Draw an array of `shape` in `dtype`."""
        return _scaled(self, shape, dtype, 1.0, "fan_in", "uniform")


def _scaled(
    initializer: Any, shape: Iterable[int], dtype: Any, scale: float, mode: str, distribution: str
) -> np.ndarray:
    lengths, found = as_shape(shape), floating(type(initializer).__name__, dtype)
    fan_in, fan_out = fans(lengths, initializer.input_axes, initializer.output_axes)
    fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[mode]
    deviation = math.sqrt(scale / max(1.0, fan))
    sample, widened = {
        "uniform": (uniform, math.sqrt(3.0)),
        "truncated_normal": (truncated, 1 / _TRUNCATED_STD),
        "untruncated_normal": (normal, 1.0),
    }[distribution]
    return draw(initializer, lengths, found, sample, scale=deviation * widened)


def _product(lengths: tuple[int, ...], axes: Iterable[int]) -> int:
    product = 1
    for axis in axes:
        if not -len(lengths) <= axis < len(lengths):
            raise ValueError(f"Expected axes of shape={lengths}. Received axis={axis}.")
        product *= lengths[axis]
    return product
