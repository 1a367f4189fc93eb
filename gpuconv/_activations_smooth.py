"""The smooth elementwise activations. `gpuconv.activations` is their public place.

No intermediate overflows. Sides are chosen by ``where`` instead of ``abs``, whose derivative at 0, as
torch's or JAX's autodiff takes it, would make that of the whole function wrong there.
"""

from __future__ import annotations

import math

from gpuconv._activations_kinked import at_least, clip
from gpuconv._catalogue import narrow, widen
from gpuconv._typing import Array, Namespace
from gpuconv.namespace import dtype_name, is_numpy_array

__all__ = [
    "erfc",
    "exponential",
    "gelu",
    "log1p_exp",
    "log_sigmoid",
    "logistic",
    "mish",
    "normal_share",
    "sigmoid",
    "silu",
    "softplus",
    "softsign",
    "squareplus",
    "tanh",
    "tanh_shrink",
]

# (1 + 2t) exp(t^2) erfc(t) for t >= 0 as a polynomial in u = (t - 3) / (t + 3), lowest power first: the
# substitution of Shepherd and Laframboise (Math. Comp. 36, 1981, p. 249). Interpolated at 24 Chebyshev
# nodes in 60 digits; in float64 erfc is then within 6e-16 of its value everywhere, and within 4e-15 of it
# relative to it up to t = 5.
_ERFC = (
    1.2530080582697296,
    -0.1356211061245812,
    -0.047562294353420374,
    0.12964515870276114,
    -0.11927366341675046,
    0.06830802734399061,
    -0.02377051489184099,
    0.002529391815554878,
    0.0018886901015892949,
    -0.00077983226591538,
    -0.000105158337527206,
    0.00012509931451014754,
    4.94421563257682e-06,
    -2.010043291015357e-05,
    -7.189970297322962e-07,
    3.4721167739071527e-06,
    3.369948375266458e-07,
    -6.162381744739555e-07,
    -1.2079770030877706e-07,
    1.0152360079308798e-07,
    2.796657080445322e-08,
    -1.316393422169529e-08,
    -3.206334531799308e-09,
    9.560801855935804e-10,
)


def softplus(x: Array) -> Array:
    """``log(1 + exp(x))``.

    Source of the definition: Keras 3 ``keras.activations.softplus``.

    Raises
    ------
    TypeError
        If x is not floating-point.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.activations import softplus
    >>> softplus(np.asarray([-1.0, 0.0, 1000.0])).round(4)
    array([3.133e-01, 6.931e-01, 1.000e+03])
    """
    xp, wide = widen("softplus", x)
    return narrow(xp, log1p_exp(xp, wide), x.dtype)


def softsign(x: Array) -> Array:
    """``x / (1 + |x|)``.

    Source of the definition: Keras 3 ``keras.activations.softsign``.

    Raises
    ------
    TypeError
        If x is not floating-point.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.activations import softsign
    >>> softsign(np.asarray([-1.0, 3.0]))
    array([-0.5 ,  0.75])
    """
    xp, wide = widen("softsign", x)
    return narrow(xp, wide / (1.0 + xp.abs(wide)), x.dtype)


def squareplus(x: Array, b: float = 4) -> Array:
    """``(x + sqrt(x**2 + b)) / 2``.

    Source of the definition: Keras 3 ``keras.activations.squareplus``; Barron 2021.

    Raises
    ------
    ValueError
        If `b` is not positive.
    TypeError
        If x is not floating-point.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.activations import squareplus
    >>> squareplus(np.asarray([-1.5, 0.0, 1.5]))
    array([0.5, 1. , 2. ])
    """
    if not b > 0:
        raise ValueError(f"Expected b to be positive. Received b={b!r}.")
    xp, wide = widen("squareplus", x)
    # For negative x the sum cancels. The two roots' product is b / 4, so one gives the other.
    positive = wide >= 0
    magnitude = xp.where(positive, wide, -wide)
    larger = 0.5 * magnitude + 0.5 * xp.hypot(magnitude, xp.full_like(magnitude, math.sqrt(b)))
    return narrow(xp, xp.where(positive, larger, (b / 4) / larger), x.dtype)


def tanh_shrink(x: Array) -> Array:
    """``x - tanh(x)``. Complex x too.

    Source of the definition: Keras 3 ``keras.activations.tanh_shrink``.

    Raises
    ------
    TypeError
        If x is not floating-point or complex.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.activations import tanh_shrink
    >>> tanh_shrink(np.asarray([-1.0, 2.0])).round(4)
    array([-0.2384,  1.036 ])
    """
    xp, wide = widen("tanh_shrink", x, accept_complex=True)
    return narrow(xp, wide - xp.tanh(wide), x.dtype)


def tanh(x: Array) -> Array:
    """Hyperbolic tangent. Complex x too.

    Source of the definition: Keras 3 ``keras.activations.tanh``.

    Raises
    ------
    TypeError
        If x is not floating-point or complex.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.activations import tanh
    >>> tanh(np.asarray([-1.0, 0.0])).round(4)
    array([-0.7616,  0.    ])
    """
    xp, wide = widen("tanh", x, accept_complex=True)
    return narrow(xp, xp.tanh(wide), x.dtype)


def sigmoid(x: Array) -> Array:
    """``1 / (1 + exp(-x))``. Complex x too.

    Source of the definition: Keras 3 ``keras.activations.sigmoid``.

    Raises
    ------
    TypeError
        If x is not floating-point or complex.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.activations import sigmoid
    >>> sigmoid(np.asarray([-1000.0, 0.0, 2.0])).round(4)
    array([0.    , 0.5   , 0.8808])
    """
    xp, wide = widen("sigmoid", x, accept_complex=True)
    return narrow(xp, logistic(xp, wide), x.dtype)


def log_sigmoid(x: Array) -> Array:
    """``log(1 / (1 + exp(-x)))``.

    Source of the definition: Keras 3 ``keras.activations.log_sigmoid``.

    Raises
    ------
    TypeError
        If x is not floating-point.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.activations import log_sigmoid
    >>> log_sigmoid(np.asarray([-1000.0, 0.0])).round(4)
    array([-1.000e+03, -6.931e-01])
    """
    xp, wide = widen("log_sigmoid", x)
    return narrow(xp, -log1p_exp(xp, -wide), x.dtype)


def silu(x: Array) -> Array:
    """``x * sigmoid(x)``, also called swish. Complex x too.

    Source of the definition: Keras 3 ``keras.activations.silu``; Ramachandran et al. 2017.

    Raises
    ------
    TypeError
        If x is not floating-point or complex.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.activations import silu
    >>> silu(np.asarray([-1.0, 2.0])).round(4)
    array([-0.2689,  1.7616])
    """
    xp, wide = widen("silu", x, accept_complex=True)
    return narrow(xp, wide * logistic(xp, wide), x.dtype)


def gelu(x: Array, approximate: bool = False) -> Array:
    """``x * P(X <= x)``, X standard normal: ``x * (1 + erf(x / sqrt(2))) / 2``.

    With `approximate`, ``x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3))) / 2``.
    Source of the definition: Keras 3 ``keras.activations.gelu``; Hendrycks and Gimpel 2016.

    Raises
    ------
    TypeError
        If x is not floating-point.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.activations import gelu
    >>> gelu(np.asarray([-1.0, 2.0])).round(4)
    array([-0.1587,  1.9545])
    """
    xp, wide = widen("gelu", x)
    if approximate:
        # (1 + tanh v) / 2 = sigmoid(2 v), which does not cancel; beyond 30 it is 0 or 1 in every type.
        near = clip(xp, wide, -30.0, 30.0)
        share = logistic(xp, 2 * math.sqrt(2 / math.pi) * (near + 0.044715 * near**3))
    else:
        share = normal_share(xp, wide)
    return narrow(xp, wide * share, x.dtype)


def mish(x: Array) -> Array:
    """``x * tanh(softplus(x))``.

    Source of the definition: Keras 3 ``keras.activations.mish``; Misra 2019.

    Raises
    ------
    TypeError
        If x is not floating-point.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.activations import mish
    >>> mish(np.asarray([-1.0, 2.0])).round(4)
    array([-0.3034,  1.944 ])
    """
    xp, wide = widen("mish", x)
    return narrow(xp, wide * xp.tanh(log1p_exp(xp, wide)), x.dtype)


def exponential(x: Array) -> Array:
    """``exp(x)``. Complex x too. Beyond the type's range it is infinite, and NumPy warns.

    Source of the definition: Keras 3 ``keras.activations.exponential``.

    Raises
    ------
    TypeError
        If x is not floating-point or complex.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.activations import exponential
    >>> exponential(np.asarray([0.0, 1.0])).round(4)
    array([1.    , 2.7183])
    """
    xp, wide = widen("exponential", x, accept_complex=True)
    return narrow(xp, xp.exp(wide), x.dtype)


def logistic(xp: Namespace, x: Array) -> Array:
    """``1 / (1 + exp(-x))`` of `x` in its working type."""
    is_complex = dtype_name(x.dtype).startswith("complex")
    if is_numpy_array(x) and not is_complex:  # see at_least: a second exp is cheaper than where
        return xp.exp(xp.minimum(x, 0.0)) / (1.0 + xp.exp(-xp.abs(x)))
    positive = (xp.real(x) if is_complex else x) >= 0
    decay = xp.exp(xp.where(positive, -x, x))
    return xp.where(positive, 1.0, decay) / (1.0 + decay)


def normal_share(xp: Namespace, x: Array) -> Array:
    """``P(X <= x)``, X standard normal."""
    negative = x < 0
    tail = 0.5 * erfc(xp, xp.where(negative, -x, x) * math.sqrt(0.5))
    return xp.where(negative, tail, 1.0 - tail)


def log1p_exp(xp: Namespace, x: Array) -> Array:
    """``log(1 + exp(x))`` of `x` in its working type."""
    # At 0 at_least has derivative 0, so the other term has to come from the left: 1 / 2.
    folded = -xp.abs(x) if is_numpy_array(x) else xp.where(x > 0, -x, x)
    return at_least(xp, x, 0.0) + xp.log1p(xp.exp(folded))


def erfc(xp: Namespace, t: Array) -> Array:
    """The complementary error function of t >= 0, which the standard lacks. See `_ERFC`."""
    t = xp.where(t >= 40, 40.0, t)  # 0 in every type from there on, and t**2 stays finite
    u = (t - 3) / (t + 3)
    p = xp.full_like(t, _ERFC[-1])
    for coefficient in reversed(_ERFC[:-1]):
        p = p * u + coefficient
    return xp.exp(-t * t) * p / (1 + 2 * t)
