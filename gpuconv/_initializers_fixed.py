"""Initializers that draw nothing. `gpuconv.initializers` is their public place."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpuconv._catalogue import Configured, checked, one_of, real
from gpuconv._draws import as_dtype, as_shape, cast, floating

__all__ = ["STFT", "Constant", "Identity", "Ones", "Zeros"]

# Coefficients of 1, -cos(z), cos(2z), ... of the windows that STFT knows by name (SciPy's values).
_WINDOWS = {"boxcar": (1.0,), "hann": (0.5, 0.5), "hamming": (0.54, 0.46), "blackman": (0.42, 0.5, 0.08)}


def _number(name: str, value: Any) -> Any:
    if not isinstance(value, numbers.Number):
        raise TypeError(f"Expected {name} to be a number. Received {name}={value!r}.")
    return value.item() if isinstance(value, np.generic) else value


def _window(name: str, value: Any) -> Any:
    if value is None or isinstance(value, str):
        known = one_of(*_WINDOWS, None)
        try:
            return known(name, value)
        except ValueError as error:
            raise ValueError(f"{error} Pass the values of any other window, one per tap.") from None
    try:
        return tuple(float(real(name, entry)) for entry in value)
    except TypeError:
        raise TypeError(
            f"Expected {name} to be a name, None or a sequence of numbers. Received {name}={value!r}."
        ) from None


@dataclass(frozen=True)
class Zeros(Configured):
    """All 0. Source of the definition: Keras 3 ``keras.initializers.Zeros``.

    Examples
    --------
    >>> from gpuconv.initializers import Zeros
    >>> Zeros()((2,))
    array([0., 0.], dtype=float32)
    """

    def __call__(self, shape: Iterable[int], dtype: Any = "float32") -> np.ndarray:
        """Make an array of `shape` in `dtype`."""
        return np.zeros(as_shape(shape), as_dtype(dtype))


@dataclass(frozen=True)
class Ones(Configured):
    """All 1. Source of the definition: Keras 3 ``keras.initializers.Ones``.

    Examples
    --------
    >>> from gpuconv.initializers import Ones
    >>> Ones()((2,))
    array([1., 1.], dtype=float32)
    """

    def __call__(self, shape: Iterable[int], dtype: Any = "float32") -> np.ndarray:
        """Make an array of `shape` in `dtype`."""
        return np.ones(as_shape(shape), as_dtype(dtype))


@dataclass(frozen=True)
class Constant(Configured):
    """All `value`. Source of the definition: Keras 3 ``keras.initializers.Constant``.

    Raises
    ------
    TypeError
        If `value` is no number, or is complex where a real type is asked for.

    Examples
    --------
    >>> from gpuconv.initializers import Constant
    >>> Constant(0.5)((2,))
    array([0.5, 0.5], dtype=float32)
    """

    value: complex = checked(0.0, _number)

    def __call__(self, shape: Iterable[int], dtype: Any = "float32") -> np.ndarray:
        """Make an array of `shape` in `dtype`."""
        return cast("Constant", np.full(as_shape(shape), self.value), as_dtype(dtype))


@dataclass(frozen=True)
class Identity(Configured):
    """`gain` on the diagonal of a matrix, 0 elsewhere.

    Source of the definition: Keras 3 ``keras.initializers.Identity``.

    Raises
    ------
    ValueError
        If `gain` is not finite or the shape is not of rank 2.
    TypeError
        If `gain` is no real number.

    Examples
    --------
    >>> from gpuconv.initializers import Identity
    >>> Identity(2.0)((2, 3))
    array([[2., 0., 0.], [0., 2., 0.]], dtype=float32)
    """

    gain: float = checked(1.0, real)

    def __call__(self, shape: Iterable[int], dtype: Any = "float32") -> np.ndarray:
        """Make an array of `shape` in `dtype`."""
        lengths = as_shape(shape)
        if len(lengths) != 2:
            raise ValueError(
                f"Expected Identity to be asked for a matrix. Received shape={lengths}. "
                "Use Orthogonal for a kernel."
            )
        return (self.gain * np.eye(*lengths)).astype(as_dtype(dtype))


@dataclass(frozen=True)
class STFT(Configured):
    """One side of a short-time Fourier transform as a kernel (frame, 1, bins).

    ``w[t] * cos(2 pi t f / n)``, or ``-w[t] * sin(2 pi t f / n)``, with n = 2 (bins - 1), divided by
    ``sqrt(sum w**2)`` for "density" or ``sum |w|`` for "spectrum".
    Source of the definition: Keras 3 ``keras.initializers.STFT``, which knows all windows of SciPy.

    Parameters
    ----------
    side : {"real", "imag"}
        The cosines or the sines.
    window : {"hann", "hamming", "blackman", "boxcar"}, sequence of float or None
        One weight per tap. None is no window, and no scaling.
    scaling : {"density", "spectrum"} or None
        What the window is divided by.
    periodic : bool
        Whether a named window is one period of a longer one instead of symmetric.

    Raises
    ------
    ValueError
        If an argument is none of these, or the shape does not fit them.
    TypeError
        If the window is of another kind, or the dtype asked for is of integers.

    Examples
    --------
    >>> from gpuconv.initializers import STFT
    >>> STFT("real", window=None)((4, 1, 3))[:3, 0, 1].round(6)
    array([ 1.,  0., -1.], dtype=float32)
    """

    side: str = checked("real", one_of("real", "imag"))
    window: str | tuple[float, ...] | None = checked("hann", _window)
    scaling: str | None = checked("density", one_of("density", "spectrum", None))
    periodic: bool = False

    def __call__(self, shape: Iterable[int], dtype: Any = "float32") -> np.ndarray:
        """Make an array of `shape` in `dtype`."""
        lengths, found = as_shape(shape), floating("STFT", dtype)
        if len(lengths) != 3 or lengths[1] != 1 or lengths[2] < 2:
            raise ValueError(
                f"Expected STFT to be asked for a kernel (frame, 1, bins) of 2 bins or more. "
                f"Received shape={lengths}."
            )
        frame, _, bins = lengths
        period = 2 * (bins - 1)
        # The product is reduced as an integer, so the angle keeps its digits in long frames.
        angle = 2 * math.pi * (np.outer(np.arange(frame), np.arange(bins)) % period) / period
        kernel = np.cos(angle) if self.side == "real" else -np.sin(angle)
        if self.window is not None:
            weights = self._weights(frame)
            size = {"density": np.sqrt(np.sum(weights**2)), "spectrum": np.sum(np.abs(weights)), None: 1.0}
            kernel = kernel * (weights / size[self.scaling])[:, None]
        return kernel[:, None, :].astype(found)

    def _weights(self, frame: int) -> np.ndarray:
        if isinstance(self.window, tuple):
            if len(self.window) != frame:
                raise ValueError(
                    f"Expected a window of one weight per tap, {frame}. Received {len(self.window)} weights."
                )
            return np.asarray(self.window)
        angle = 2 * math.pi * np.arange(frame) / max(1, frame if self.periodic else frame - 1)
        if frame == 1:
            return np.ones(1)
        waves = [(-1) ** i * c * np.cos(i * angle) for i, c in enumerate(_WINDOWS[str(self.window)])]
        return np.sum(waves, axis=0)
