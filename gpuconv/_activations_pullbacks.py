"""The derivatives of the activations. `gpuconv.activations.pullback` is their public place.

Each function here takes the namespace, the input x, the output y and its cotangent dy, all in the type
to compute in, and every parameter of its activation by keyword; it returns the cotangent of x. No
intermediate overflows, and an infinite x has the derivative that its neighbours tend to.

At a kink the derivative is the one that torch's and JAX's autodiff find for the activations of this
package, which is Keras' wherever its backends agree: 0 for relu at 0. Where these do not, a side that is
flat counts: 0 for hard_tanh at 1, where Keras has 1 on JAX and 0 on torch. A NaN in x lets dy through, so
that the NaN that the loss has become is not hidden.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from gpuconv._activations_kinked import SELU_ALPHA, SELU_SCALE, clip
from gpuconv._activations_smooth import log1p_exp, logistic, normal_share
from gpuconv._typing import Array, Namespace
from gpuconv.namespace import is_numpy_array

__all__ = ["PULLBACKS"]

# Beyond it exp(x) and x * exp(x) are 0 for negative x in every type, and x + exp(-x) is x for positive x.
_FAR = 1000.0


def _linear(_xp: Namespace, _x: Array, _y: Array, dy: Array) -> Array:
    return dy


def _relu(
    xp: Namespace,
    x: Array,
    y: Array,
    dy: Array,
    *,
    negative_slope: float,
    max_value: float | None,
    threshold: float,
) -> Array:
    if negative_slope and max_value is None and threshold == 0:
        return _leaky_relu(xp, x, y, dy, negative_slope=negative_slope)
    if max_value is None:
        dx = _where(xp, x <= threshold, 0.0, dy)
    else:  # which cuts at 0 too, when the threshold lies below
        dx = _between(xp, x, dy, max(threshold, 0.0), max_value)
    if negative_slope:
        dx = dx + _where(xp, xp.logical_not(x < threshold), 0.0, negative_slope * dy)
    return dx


def _leaky_relu(xp: Namespace, x: Array, _y: Array, dy: Array, *, negative_slope: float) -> Array:
    # At 0 the derivative is 1, as in Keras on JAX. torch's own leaky_relu has the slope there.
    return _where(xp, x >= 0, dy, negative_slope * dy)


def _relu6(xp: Namespace, x: Array, _y: Array, dy: Array) -> Array:
    return _between(xp, x, dy, 0.0, 6.0)


def _hard_tanh(xp: Namespace, x: Array, _y: Array, dy: Array) -> Array:
    return _between(xp, x, dy, -1.0, 1.0)


def _sparse_sigmoid(xp: Namespace, x: Array, _y: Array, dy: Array) -> Array:
    return _between(xp, x, 0.5 * dy, -1.0, 1.0)


def _hard_sigmoid(xp: Namespace, x: Array, _y: Array, dy: Array) -> Array:
    return _between(xp, x, dy / 6, -3.0, 3.0)


def _hard_silu(xp: Namespace, x: Array, _y: Array, dy: Array) -> Array:
    # At 3 the slope from the left is 3 / 2. That from the right counts, 1: hard_sigmoid is flat there.
    rising = clip(xp, x, -3.0, 3.0) / 3 + 0.5
    return dy * _where(xp, x >= 3, 1.0, _where(xp, x <= -3, 0.0, rising))


def _sparse_plus(xp: Namespace, x: Array, _y: Array, dy: Array) -> Array:
    return dy * (0.5 * (clip(xp, x, -1.0, 1.0) + 1))


def _shrink(xp: Namespace, x: Array, _y: Array, dy: Array, *, threshold: float) -> Array:
    return _where(xp, xp.abs(x) <= threshold, 0.0, dy)


def _threshold(
    xp: Namespace, x: Array, _y: Array, dy: Array, *, threshold: float, default_value: float
) -> Array:
    del default_value  # a constant has no derivative
    return _where(xp, x <= threshold, 0.0, dy)


def _elu(xp: Namespace, x: Array, _y: Array, dy: Array, *, alpha: float) -> Array:
    return dy * _where(xp, x > 0, 1.0, alpha * _decay(xp, x, 1.0))


def _celu(xp: Namespace, x: Array, _y: Array, dy: Array, *, alpha: float) -> Array:
    return dy * _where(xp, x > 0, 1.0, _decay(xp, x, alpha))


def _selu(xp: Namespace, x: Array, _y: Array, dy: Array) -> Array:
    return SELU_SCALE * dy * _where(xp, x > 0, 1.0, SELU_ALPHA * _decay(xp, x, 1.0))


def _exponential(xp: Namespace, _x: Array, y: Array, dy: Array) -> Array:
    return dy * _conj(xp, y)


def _sigmoid(xp: Namespace, _x: Array, y: Array, dy: Array) -> Array:
    return dy * _conj(xp, y * (1 - y))


def _tanh(xp: Namespace, _x: Array, y: Array, dy: Array) -> Array:
    return dy * _conj(xp, 1 - y * y)


def _tanh_shrink(xp: Namespace, x: Array, _y: Array, dy: Array) -> Array:
    t = xp.tanh(x)  # x - y would cancel
    return dy * _conj(xp, t * t)


def _silu(xp: Namespace, x: Array, _y: Array, dy: Array) -> Array:
    near = x if xp.isdtype(x.dtype, "complex floating") else clip(xp, x, -_FAR, _FAR)
    s = logistic(xp, near)
    return dy * _conj(xp, s * (1 + near * (1 - s)))


def _log_sigmoid(xp: Namespace, x: Array, _y: Array, dy: Array) -> Array:
    return dy * logistic(xp, -x)


def _softplus(xp: Namespace, x: Array, _y: Array, dy: Array) -> Array:
    return dy * logistic(xp, x)


def _softsign(xp: Namespace, x: Array, _y: Array, dy: Array) -> Array:
    share = 1 / (1 + xp.abs(x))
    return dy * (share * share)


def _squareplus(xp: Namespace, x: Array, y: Array, dy: Array, *, b: float) -> Array:
    # (1 + x / h) / 2, h = hypot(x, sqrt(b)), is y / h, which does not cancel. It is 0 or 1 beyond 1e30.
    near = clip(xp, x, -1e30, 1e30)
    return dy * (clip(xp, y, 0.0, 1e30) / xp.hypot(near, xp.full_like(near, math.sqrt(b))))


def _mish(xp: Namespace, x: Array, _y: Array, dy: Array) -> Array:
    near = clip(xp, x, -_FAR, _FAR)
    t = xp.tanh(log1p_exp(xp, near))
    return dy * (t + near * (1 - t * t) * logistic(xp, near))


def _gelu(xp: Namespace, x: Array, _y: Array, dy: Array, *, approximate: bool) -> Array:
    if approximate:
        near = clip(xp, x, -30.0, 30.0)  # as in gelu
        scale = 2 * math.sqrt(2 / math.pi)
        share = logistic(xp, scale * (near + 0.044715 * near**3))
        density = share * (1 - share) * (scale * (1 + 3 * 0.044715 * near * near))
    else:
        near = clip(xp, x, -40.0, 40.0)  # where the density is 0 in every type
        share = normal_share(xp, near)
        density = xp.exp(-0.5 * near * near) / math.sqrt(2 * math.pi)
    return dy * (share + near * density)


def _softmax(xp: Namespace, _x: Array, y: Array, dy: Array, *, axis: int) -> Array:
    return y * (dy - xp.sum(dy * y, axis=axis, keepdims=True))


def _log_softmax(xp: Namespace, _x: Array, y: Array, dy: Array, *, axis: int) -> Array:
    return dy - xp.exp(y) * xp.sum(dy, axis=axis, keepdims=True)


def _sparsemax(xp: Namespace, _x: Array, y: Array, dy: Array, *, axis: int) -> Array:
    if not y.shape[axis]:
        return dy
    outside = y <= 0  # asked this way round, a row of NaN is not an empty one
    size = xp.sum(xp.astype(xp.logical_not(outside), y.dtype), axis=axis, keepdims=True)
    mean = xp.sum(_where(xp, outside, 0.0, dy), axis=axis, keepdims=True) / size
    return _where(xp, outside, 0.0, dy - mean)


def _glu(xp: Namespace, x: Array, _y: Array, dy: Array, *, axis: int) -> Array:
    half = x.shape[axis] // 2
    before = (slice(None),) * (axis % x.ndim)
    a, b = x[(*before, slice(0, half), ...)], x[(*before, slice(half, None), ...)]
    s = logistic(xp, b)
    return xp.concat([dy * s, dy * (a * (s * (1 - s)))], axis=axis)


def _between(xp: Namespace, x: Array, values: Array, low: float, high: float) -> Array:
    """`values` where x lies between `low` and `high`, or is NaN; 0 elsewhere and at both ends."""
    return _where(xp, (x <= low) | (x >= high), 0.0, values)


def _where(xp: Namespace, condition: Array, chosen: Array | float, values: Array) -> Array:
    """``xp.where``. NumPy's own waits for every branch that it guessed wrong; bits need no branch."""
    if not is_numpy_array(values) or values.dtype.itemsize > 8:
        return xp.where(condition, chosen, values)
    bits = f"i{values.dtype.itemsize}"
    flipped = xp.asarray(chosen, dtype=values.dtype).view(bits) ^ values.view(bits)
    return (values.view(bits) ^ (flipped & -condition.astype(bits))).view(values.dtype)


def _decay(xp: Namespace, x: Array, divisor: float) -> Array:
    """``exp(x / divisor)``, 1 for positive x."""
    return xp.exp(clip(xp, x, -_FAR * divisor, 0.0) / divisor)


def _conj(xp: Namespace, derivative: Array) -> Array:
    return xp.conj(derivative) if xp.isdtype(derivative.dtype, "complex floating") else derivative


#: From the name of an activation to its derivative.
PULLBACKS: dict[str, Callable[..., Array]] = {
    "celu": _celu,
    "elu": _elu,
    "exponential": _exponential,
    "gelu": _gelu,
    "glu": _glu,
    "hard_shrink": _shrink,
    "hard_sigmoid": _hard_sigmoid,
    "hard_silu": _hard_silu,
    "hard_tanh": _hard_tanh,
    "leaky_relu": _leaky_relu,
    "linear": _linear,
    "log_sigmoid": _log_sigmoid,
    "log_softmax": _log_softmax,
    "mish": _mish,
    "relu": _relu,
    "relu6": _relu6,
    "selu": _selu,
    "sigmoid": _sigmoid,
    "silu": _silu,
    "soft_shrink": _shrink,
    "softmax": _softmax,
    "softplus": _softplus,
    "softsign": _softsign,
    "sparse_plus": _sparse_plus,
    "sparse_sigmoid": _sparse_sigmoid,
    "sparsemax": _sparsemax,
    "squareplus": _squareplus,
    "tanh": _tanh,
    "tanh_shrink": _tanh_shrink,
    "threshold": _threshold,
}
