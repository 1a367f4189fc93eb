"""How the initializers of `gpuconv.initializers` draw: their shapes, types and seeds.

Draws are made in float64 by `numpy.random.Generator` and rounded once to the type asked for, so one
seed gives one draw whichever type or library a layer then runs in. A complex draw is
``mean + (a + ib) / sqrt(2)``, a and b being two independent real draws less their mean: it has the
mean and the total variance of a real one.
"""

from __future__ import annotations

import dataclasses
import math
import operator
import random
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from gpuconv._catalogue import checked

__all__ = [
    "as_dtype",
    "as_shape",
    "cast",
    "draw",
    "entropy",
    "floating",
    "normal",
    "seed_field",
    "truncated",
    "uniform",
]

Sampler = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def as_shape(shape: Iterable[int] | int) -> tuple[int, ...]:
    """`shape` as a tuple of integers of at least 0, else a TypeError or a ValueError."""
    try:
        lengths = tuple(operator.index(n) for n in (shape if isinstance(shape, Iterable) else (shape,)))
    except TypeError:
        raise TypeError(f"Expected shape to be a sequence of integers. Received shape={shape!r}.") from None
    if any(n < 0 for n in lengths):
        raise ValueError(f"Expected shape to have no negative lengths. Received shape={lengths}.")
    return lengths


def as_dtype(dtype: Any) -> np.dtype:
    """`dtype` as NumPy's. None is float32, as in Keras; ``"bfloat16"`` needs the package ml_dtypes."""
    if dtype is None:
        return np.dtype(np.float32)
    if isinstance(dtype, str) and dtype == "bfloat16":
        try:
            import ml_dtypes
        except ImportError:
            raise ImportError(
                "Expected the package ml_dtypes, which gives NumPy the type. Received dtype='bfloat16'. "
                "Install it with: pip install ml_dtypes"
            ) from None
        return np.dtype(ml_dtypes.bfloat16)
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = np.dtype(object)
    if found.kind not in "biufc" and found.name != "bfloat16":
        raise TypeError(f"Expected dtype to be a type of numbers. Received dtype={dtype!r}.")
    return found


def floating(owner: str, dtype: Any) -> np.dtype:
    """`as_dtype`, and a TypeError for types that `owner`'s fractions do not fit in."""
    found = as_dtype(dtype)
    if found.kind not in "fc" and found.name != "bfloat16":
        raise TypeError(
            f"Expected {owner} to be asked for a floating-point or complex type. "
            f"Received dtype={found.name}. Draw in float32 and convert the result."
        )
    return found


def cast(owner: str, values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """A copy of `values` in `dtype`, and a TypeError instead of a lost imaginary part."""
    if values.dtype.kind == "c" and dtype.kind != "c":
        raise TypeError(
            f"Expected {owner}, whose values are complex, to be asked for a complex type. "
            f"Received dtype={dtype.name}. Pass dtype='complex64', or real values."
        )
    return values.astype(dtype)


def seed_field() -> Any:
    """The field of a seed: an integer of at least 0, or None, for which `entropy` stands in."""
    return checked(None, _seed)


def entropy() -> Any:
    """The field of what an object without a seed draws from, chosen when the object is made.

    It comes from Python's own `random`, so ``random.seed`` makes a whole script repeatable, as
    ``keras.utils.set_random_seed`` does. It is no part of the config.
    """
    return dataclasses.field(
        default_factory=lambda: random.getrandbits(32), init=False, repr=False, compare=False
    )


def draw(
    initializer: Any,
    shape: tuple[int, ...],
    dtype: np.dtype,
    sample: Sampler,
    *,
    mean: float = 0.0,
    scale: float = 1.0,
) -> np.ndarray:
    """``mean + scale * sample``, the same at every call; `sample` draws around 0."""
    seed = initializer._entropy if initializer.seed is None else initializer.seed
    generator = np.random.default_rng(seed)
    values = sample(generator, shape)
    if dtype.kind == "c":
        values = (values + 1j * sample(generator, shape)) / math.sqrt(2)
    return np.asarray(mean + scale * values).astype(dtype)


def normal(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal."""
    return generator.standard_normal(shape)


def truncated(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal with everything beyond 2 drawn again. Its standard deviation is 0.8796..."""
    values = generator.standard_normal(math.prod(shape))
    while (beyond := np.flatnonzero(np.abs(values) > 2)).size:
        values[beyond] = generator.standard_normal(beyond.size)
    return values.reshape(shape)


def uniform(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform between -1 and 1."""
    return generator.uniform(-1.0, 1.0, shape)


def _seed(name: str, value: Any) -> int | None:
    if value is None:
        return None
    try:
        seed = operator.index(value)
    except TypeError:
        raise TypeError(f"Expected {name} to be an integer or None. Received {name}={value!r}.") from None
    if seed < 0:
        raise ValueError(f"Expected {name} to be at least 0. Received {name}={value!r}.")
    return seed
