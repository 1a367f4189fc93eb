"""Activation functions on the arrays of any library, through the array API standard alone.

The catalogue, the parameters, their defaults and the formulas are those of Keras 3
(``keras.activations``). Each function keeps shape and dtype. Half types are computed in float32 and
rounded once. No intermediate overflows, so only `exponential`, whose own value can, may warn.
This module holds the catalogue and the functions along an axis; the elementwise ones are written in
`gpuconv._activations_kinked` and `gpuconv._activations_smooth`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

from gpuconv._activations_kinked import (
    celu,
    clip,
    elu,
    hard_shrink,
    hard_sigmoid,
    hard_silu,
    hard_tanh,
    leaky_relu,
    relu,
    relu6,
    selu,
    soft_shrink,
    sparse_plus,
    sparse_sigmoid,
    threshold,
)
from gpuconv._activations_smooth import (
    exponential,
    gelu,
    log_sigmoid,
    logistic,
    mish,
    sigmoid,
    silu,
    softplus,
    softsign,
    squareplus,
    tanh,
    tanh_shrink,
)
from gpuconv._catalogue import Catalogue, narrow, widen
from gpuconv._typing import Array, Shape

__all__ = [
    "celu",
    "elu",
    "exponential",
    "gelu",
    "get",
    "glu",
    "hard_shrink",
    "hard_sigmoid",
    "hard_silu",
    "hard_swish",
    "hard_tanh",
    "is_elementwise",
    "leaky_relu",
    "linear",
    "log_sigmoid",
    "log_softmax",
    "mish",
    "output_shape",
    "relu",
    "relu6",
    "selu",
    "serialize",
    "sigmoid",
    "silu",
    "soft_shrink",
    "softmax",
    "softplus",
    "softsign",
    "sparse_plus",
    "sparse_sigmoid",
    "sparsemax",
    "squareplus",
    "supports_complex",
    "swish",
    "tanh",
    "tanh_shrink",
    "threshold",
]


def linear(x: Array) -> Array:
    """``x`` itself, untouched.

    Source of the definition: Keras 3 ``keras.activations.linear``.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.activations import linear
    >>> linear(np.asarray([-1.0, 2.0]))
    array([-1.,  2.])
    """
    return x


def softmax(x: Array, axis: int = -1) -> Array:
    """``exp(x) / sum(exp(x))`` along `axis`.

    Source of the definition: Keras 3 ``keras.activations.softmax``. In the channels_first layout the
    default axis is the last spatial one, as in Keras.

    Raises
    ------
    ValueError
        If x has no such axis.
    TypeError
        If x is not floating-point.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.activations import softmax
    >>> softmax(np.log(np.asarray([1.0, 3.0]))).round(4)
    array([0.25, 0.75])
    """
    xp, wide = widen("softmax", x)
    _check_axis(tuple(x.shape), axis)
    powers = xp.exp(wide - xp.max(wide, axis=axis, keepdims=True))
    return narrow(xp, powers / xp.sum(powers, axis=axis, keepdims=True), x.dtype)


def log_softmax(x: Array, axis: int = -1) -> Array:
    """``log(softmax(x))`` along `axis`.

    Source of the definition: Keras 3 ``keras.activations.log_softmax``.

    Raises
    ------
    ValueError
        If x has no such axis.
    TypeError
        If x is not floating-point.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.activations import log_softmax
    >>> log_softmax(np.asarray([0.0, 1000.0]))
    array([-1000.,     0.])
    """
    xp, wide = widen("log_softmax", x)
    _check_axis(tuple(x.shape), axis)
    shifted = wide - xp.max(wide, axis=axis, keepdims=True)
    return narrow(xp, shifted - xp.log(xp.sum(xp.exp(shifted), axis=axis, keepdims=True)), x.dtype)


def sparsemax(x: Array, axis: int = -1) -> Array:
    """``max(x - tau, 0)`` along `axis`, tau such that it sums to 1: x's projection on the simplex.

    Source of the definition: Keras 3 ``keras.activations.sparsemax``; Martins and Astudillo 2016.
    The numbers are the paper's: Keras' own (3.15) sum to 1 only where a single entry is left.

    Raises
    ------
    ValueError
        If x has no such axis.
    TypeError
        If x is not floating-point.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.activations import sparsemax
    >>> sparsemax(np.asarray([1.0, 0.5, -1.0]))
    array([0.75, 0.25, 0.  ])
    """
    xp, wide = widen("sparsemax", x)
    _check_axis(tuple(x.shape), axis)
    # A common shift changes nothing but the size of the sums.
    wide = wide - xp.max(wide, axis=axis, keepdims=True)
    ordered = xp.sort(wide, axis=axis, descending=True)
    sums = xp.cumulative_sum(ordered, axis=axis)
    rank = xp.cumulative_sum(xp.ones_like(ordered), axis=axis)
    inside = rank * ordered > sums - 1
    # The largest is always inside, unless a NaN makes every comparison false.
    size = xp.where(
        xp.any(inside, axis=axis, keepdims=True),
        xp.sum(xp.astype(inside, wide.dtype), axis=axis, keepdims=True),
        1.0,
    )
    tau = (xp.sum(xp.where(inside, ordered, 0.0), axis=axis, keepdims=True) - 1) / size
    return narrow(xp, clip(xp, wide - tau, 0.0, math.inf), x.dtype)


def glu(x: Array, axis: int = -1) -> Array:
    """``a * sigmoid(b)``, a and b being the halves of x along `axis`, which is halved.

    Source of the definition: Keras 3 ``keras.activations.glu``; Dauphin et al. 2017.

    Raises
    ------
    ValueError
        If x has no such axis, or its length is odd.
    TypeError
        If x is not floating-point.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.activations import glu
    >>> glu(np.asarray([3.0, 5.0, 0.0, 0.0]))
    array([1.5, 2.5])
    """
    xp, wide = widen("glu", x)
    half = _halved(tuple(x.shape), axis)[axis]
    before = (slice(None),) * (axis % wide.ndim)
    a, b = wide[(*before, slice(0, half), ...)], wide[(*before, slice(half, None), ...)]
    return narrow(xp, a * logistic(xp, b), x.dtype)


swish = silu
hard_swish = hard_silu


def get(identifier: Any) -> Callable[[Array], Array]:
    """The activation that a name, a config or a callable stands for; `linear` for None.

    A config may carry parameters: ``{"class_name": "leaky_relu", "config": {"negative_slope": 0.1}}``
    becomes a `functools.partial`. So does the config of a Keras layer that is an activation with
    parameters: ReLU, LeakyReLU, ELU, Softmax.

    Raises
    ------
    ValueError
        If the name or a config key is unknown.
    TypeError
        If `identifier` is something else.

    Examples
    --------
    >>> from gpuconv import activations
    >>> activations.get("swish") is activations.silu
    True
    >>> activations.get(None) is activations.linear
    True
    """
    if identifier is None:
        return linear
    if isinstance(identifier, Mapping) and identifier.get("class_name") in _LAYERS:
        name, defaults = _LAYERS[identifier["class_name"]]
        config = {**defaults, **(identifier.get("config") or {})}
        config = {key: value for key, value in config.items() if key not in ("name", "trainable", "dtype")}
        return _CATALOGUE.get({"class_name": name, "config": config})
    return _CATALOGUE.get(identifier)


def serialize(activation: Any) -> Any:
    """`activation` as Keras 3 writes it: the name alone for a function of the catalogue.

    A `functools.partial` of one becomes the config of the Keras layer that has these parameters (ReLU,
    LeakyReLU, ELU, Softmax), or where Keras has none a config that only this package's `get` reads.

    Raises
    ------
    ValueError
        If it is a function without a name.

    Examples
    --------
    >>> from functools import partial
    >>> from gpuconv import activations
    >>> activations.serialize(activations.relu)
    'relu'
    >>> activations.serialize(partial(activations.leaky_relu, negative_slope=0.1))["class_name"]
    'LeakyReLU'
    """
    written = _CATALOGUE.serialize(activation)
    if isinstance(written, dict) and isinstance(activation, functools.partial):
        for layer, (name, _) in _LAYERS.items():
            if name == written["class_name"]:
                return {**written, "module": "keras.layers", "class_name": layer}
    return written


def is_elementwise(activation: Any) -> bool:
    """Whether `activation` is known to treat every element alone, so that it may run block by block.

    True for the functions of the catalogue but softmax, log_softmax, sparsemax and glu, and for a
    `functools.partial` of them. False for every other callable, whatever it does.

    Examples
    --------
    >>> from gpuconv import activations
    >>> activations.is_elementwise(activations.relu), activations.is_elementwise(activations.softmax)
    (True, False)
    """
    function = _function(activation)
    return function in _CATALOGUE.canonical.values() and function not in (
        softmax,
        log_softmax,
        sparsemax,
        glu,
    )


def output_shape(activation: Any, shape: Shape) -> Shape | None:
    """Shape of what `activation` makes of an array of `shape`; None where only calling it can tell.

    A None in `shape`, a length that is not known, stays None.

    Raises
    ------
    ValueError
        If a function of the catalogue cannot be given this shape.

    Examples
    --------
    >>> from gpuconv import activations
    >>> activations.output_shape(activations.glu, (2, 3, 8))
    (2, 3, 4)
    """
    function = _function(activation)
    if function in (softmax, log_softmax, sparsemax, glu):
        axis = getattr(activation, "keywords", {}).get("axis", -1)
        _check_axis(shape, axis)
        return _halved(shape, axis) if function is glu else shape
    return shape if function in _CATALOGUE.canonical.values() else None


def supports_complex(activation: Any) -> bool:
    """Whether `activation` may be given complex arrays.

    True for those of the catalogue that have a meaning there (linear, exponential, sigmoid, silu, tanh,
    tanh_shrink) and for every callable from elsewhere, which answers for itself.

    Examples
    --------
    >>> from gpuconv import activations
    >>> activations.supports_complex(activations.tanh), activations.supports_complex(activations.relu)
    (True, False)
    """
    function = _function(activation)
    analytic = function in (linear, exponential, sigmoid, silu, tanh, tanh_shrink)
    return analytic or function not in _CATALOGUE.canonical.values()


def _function(activation: Any) -> Any:
    return activation.func if isinstance(activation, functools.partial) else activation


def _halved(shape: Shape, axis: int) -> Shape:
    _check_axis(shape, axis)
    length = shape[axis]
    if length is None:
        return shape
    if length % 2:
        raise ValueError(
            f"Expected glu to be given an even length along its axis. Received {axis=} with {shape=}."
        )
    return tuple(length // 2 if i == axis % len(shape) else n for i, n in enumerate(shape))


def _check_axis(shape: Shape, axis: int) -> None:
    if not -len(shape) <= axis < len(shape):
        raise ValueError(f"Expected axis to be one of the array's. Received {axis=}, {shape=}.")


_CATALOGUE = Catalogue(
    "activation",
    {
        function.__name__: function
        for function in (
            *(celu, elu, exponential, gelu, glu, hard_shrink, hard_sigmoid, hard_silu, hard_tanh),
            *(leaky_relu, linear, log_sigmoid, log_softmax, mish, relu, relu6, selu, sigmoid, silu),
            *(soft_shrink, softmax, softplus, softsign, sparse_plus, sparse_sigmoid, sparsemax),
            *(squareplus, tanh, tanh_shrink, threshold),
        )
    },
    aliases={"swish": "silu", "hard_swish": "hard_silu"},
)

# Keras' layers that are an activation with parameters, and where their defaults are not the function's.
_LAYERS: dict[str, tuple[str, dict[str, float]]] = {
    "ELU": ("elu", {}),
    "LeakyReLU": ("leaky_relu", {"negative_slope": 0.3}),
    "ReLU": ("relu", {}),
    "Softmax": ("softmax", {}),
}
