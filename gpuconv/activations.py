"""Activation functions on the arrays of any library, through the array API standard alone.

The catalogue, the parameters, their defaults and the formulas are those of Keras 3
(``keras.activations``). Each function keeps shape and dtype. Half types are computed in float32 and
rounded once. No intermediate overflows, so only `exponential`, whose own value can, may warn.
This module holds the catalogue. The functions are written in `gpuconv._activations_kinked`,
`gpuconv._activations_smooth` and `gpuconv._activations_along_axis`, their derivatives in
`gpuconv._activations_pullbacks`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from gpuconv._activations_along_axis import (
    ALONG_AN_AXIS,
    check_axis,
    glu,
    halved,
    log_softmax,
    softmax,
    sparsemax,
)
from gpuconv._activations_kinked import (
    celu,
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
from gpuconv._activations_pullbacks import PULLBACKS
from gpuconv._activations_smooth import (
    exponential,
    gelu,
    log_sigmoid,
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
from gpuconv.namespace import array_namespace, dtype_name

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
    "pullback",
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
    return function in _CATALOGUE.canonical.values() and function not in ALONG_AN_AXIS


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
    if function in ALONG_AN_AXIS:
        axis = getattr(activation, "keywords", {}).get("axis", -1)
        check_axis(shape, axis)
        return halved(shape, axis) if function is glu else shape
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


def pullback(activation: Any, x: Array, y: Array, dy: Array) -> Array:
    """The cotangent of x, where `dy` is that of ``y = activation(x)``: what a training step passes back.

    ``dx[i] = sum(dy[j] * conj(d y[j] / d x[i]) for all j)``. For complex x this is the gradient as torch
    has it: the steepest ascent. At a kink the derivative is that of Keras where its backends agree, so
    relu's at 0 is 0; where they do not and one side is flat, it is 0 too.

    Parameters
    ----------
    activation : str, dict or callable
        Whatever `get` takes. A callable from elsewhere is asked for its own ``pullback(x, y, dy)``.
    x : array
        Floating-point; complex too where `supports_complex`. Half types are computed in float32.
    y, dy : array
        The activation's output and its cotangent, of one shape, and of the library and dtype of x.

    Returns
    -------
    array
        The cotangent of x, of the shape and dtype of x.

    Raises
    ------
    NotImplementedError
        If `activation` is a callable from elsewhere that has no ``pullback``.
    ValueError
        If y or dy is not of the shape that `activation` makes of x, or x has no such axis.
    TypeError
        If x is of no such dtype, or y or dy of another dtype or library than x.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv import activations
    >>> x = np.asarray([-1.0, 0.0, 2.0])
    >>> activations.pullback("relu", x, activations.relu(x), np.ones(3))
    array([0., 0., 1.])
    """
    activation = get(activation)
    function = _function(activation)
    if function not in _CATALOGUE.canonical.values():
        if not hasattr(activation, "pullback"):
            raise NotImplementedError(
                f"Expected an activation whose derivative is known. Received activation={activation!r}. "
                "Name one of the catalogue, or give the callable a method pullback(x, y, dy)."
            )
        return activation.pullback(x, y, dy)
    array_namespace(x=x, y=y, dy=dy)
    name = function.__name__
    xp, wide = widen(name, x, accept_complex=supports_complex(function))
    shape = output_shape(activation, tuple(x.shape))
    for role, array in (("y", y), ("dy", dy)):
        if tuple(array.shape) != shape:
            raise ValueError(f"Expected {role} of shape {shape}. Received {role} of {tuple(array.shape)}.")
        if dtype_name(array.dtype) != dtype_name(x.dtype):
            raise TypeError(
                f"Expected {role} of x's dtype {dtype_name(x.dtype)}. Received {role} of "
                f"{dtype_name(array.dtype)}. Cast it first."
            )
    given = inspect.signature(activation).bind(x)
    given.apply_defaults()
    parameters = dict(list(given.arguments.items())[1:])
    wide_y, wide_dy = (xp.astype(array, wide.dtype, copy=False) for array in (y, dy))
    return narrow(xp, PULLBACKS[name](xp, wide, wide_y, wide_dy, **parameters), x.dtype)


def _function(activation: Any) -> Any:
    return activation.func if isinstance(activation, functools.partial) else activation


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
