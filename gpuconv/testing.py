"""For tests of operators, yours and ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpuconv._typing import Array
from gpuconv.geometry import as_shape, integer
from gpuconv.namespace import DTYPES, astype, dtype_name, like, to_numpy

__all__ = ["adjoint_check"]

_EPS = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23, "float64": 2.0**-52}
_EPS |= {"complex64": _EPS["float32"], "complex128": _EPS["float64"]}


def adjoint_check(
    op: Callable[[Array], Array],
    adjoint: Callable[[Array], Array],
    x_shape: Sequence[int],
    *,
    dtype: str = "float64",
    reference: Array | None = None,
    rtol: float | None = None,
    trials: int = 3,
    seed: int = 0,
) -> float:
    """Check that ``<y, op(x)> = <adjoint(y), x>``, which makes one linear map the adjoint of the other.

    Source of the definition: the dot-product test of inverse problems (Claerbout, Earth Soundings Analysis).
    ``<a, b>`` is ``sum(conj(a) * b)``. y is ``op(x)`` and as much noise: were it noise alone, both sides
    would be near 0 by chance, and a wrong adjoint not far from a right one.

    Parameters
    ----------
    op, adjoint : callable
        From an array to an array; linear.
    x_shape : sequence of int
        Shape of what `op` takes.
    dtype : str, default "float64"
        Type of the normally distributed numbers that are drawn; complex types too.
    reference : array, optional
        One of the library and on the device that shall compute; NumPy without it.
    rtol : float, optional
        How far the two sides may be apart, as a part of ``|x| |adjoint(y)| + |y| |op(x)|``. By default
        16 times the type's distance from 1 to the next number; sums of very many terms may need more.
    trials : int, default 3
        How many pairs of x and y.
    seed : int, default 0
        Makes the draws repeat.

    Returns
    -------
    float
        The largest difference that was found, as a part of ``|x| |adjoint(y)| + |y| |op(x)|``.

    Raises
    ------
    AssertionError
        If the sides differ by more, or if a shape is not the other's.
    ValueError, TypeError
        For an argument that is none of these.

    Examples
    --------
    >>> import numpy as np
    >>> import gpuconv
    >>> from gpuconv.testing import adjoint_check
    >>> kernel = np.ones((3, 2, 4))
    >>> def up(x):
    ...     return gpuconv.conv1d_transpose(x, kernel, strides=2)
    >>> def down(y):
    ...     return gpuconv.conv1d(y, kernel, strides=2)
    >>> adjoint_check(up, down, (1, 10, 4)) < 1e-14
    True
    >>> adjoint_check(up, lambda y: 2 * down(y), (1, 10, 4))
    Traceback (most recent call last):
    AssertionError: Expected <y, op(x)> = <adjoint(y), x>. Received 16.8174 and 33.6348: \
0.2 apart where 3.6e-15 is allowed.
    """
    if dtype not in DTYPES:
        raise TypeError(f"Expected dtype to be one of {', '.join(DTYPES)}. Received dtype={dtype!r}.")
    shape = as_shape("x_shape", x_shape)
    if None in shape or 0 in shape:
        raise ValueError(f"Expected x_shape to be known, without 0. Received x_shape={x_shape!r}.")
    generator = np.random.default_rng(integer("seed", seed, 0))
    worst = 0.0
    for _ in range(integer("trials", trials, 1)):
        x = _drawn(generator, shape, dtype, reference)
        made = op(x)
        y = _beside(generator, made, reference)
        back = adjoint(y)
        if tuple(back.shape) != shape:
            raise AssertionError(f"Expected adjoint to make shape {shape}. Received {tuple(back.shape)}.")
        x, made, y, back = (_wide(array) for array in (x, made, y, back))
        left, right = np.vdot(y, made), np.vdot(back, x)
        size = np.linalg.norm(x) * np.linalg.norm(back) + np.linalg.norm(y) * np.linalg.norm(made)
        found = abs(left - right) / size if size else 0.0
        allowed = 16 * _EPS[dtype] if rtol is None else rtol
        # Written so that a NaN fails.
        if not found <= allowed:
            raise AssertionError(
                f"Expected <y, op(x)> = <adjoint(y), x>. Received {left:.6g} and {right:.6g}: "
                f"{found:.2g} apart where {allowed:.2g} is allowed."
            )
        worst = max(worst, float(found))
    return worst


def _drawn(generator: np.random.Generator, shape: Any, dtype: str, reference: Array | None) -> Array:
    drawn = generator.standard_normal(shape)
    if dtype.startswith("complex"):
        drawn = drawn + 1j * generator.standard_normal(shape)
    drawn = astype(np.asarray(drawn), dtype)
    return drawn if reference is None else like(drawn, reference)


def _beside(generator: np.random.Generator, made: Array, reference: Array | None) -> Array:
    """`made` and noise, as large as it, of its type; of length 1 together, so that half types hold them."""
    dtype = dtype_name(made.dtype)
    signal = to_numpy(made).astype(np.complex128 if dtype.startswith("complex") else np.float64)
    noise = _wide(_drawn(generator, signal.shape, dtype, None)).reshape(signal.shape)
    parts = [part / (np.linalg.norm(part) or 1.0) for part in (signal, noise)]
    y = astype(np.asarray(parts[0] + parts[1]), dtype)
    return y if reference is None else like(y, reference)


def _wide(array: Array) -> np.ndarray:
    """On the host and in double precision, so that the check adds no error of its own; flat."""
    host = to_numpy(array)
    return np.asarray(host, np.complex128 if host.dtype.kind == "c" else np.float64).reshape(-1)
