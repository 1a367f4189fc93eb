"""How gradients change parameters. The numbers are Keras 3's.

An optimizer is a setting without state: called with a parameter's value, its gradient and its slots (a
dictionary that starts empty and that the optimizer keeps its averages in), it returns the new value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gpuconv._catalogue import Catalogue, Configured, checked, narrow, non_negative, real, widen
from gpuconv._typing import Array
from gpuconv.namespace import array_namespace, dtype_name

__all__ = ["SGD", "Adam", "Optimizer", "RMSprop", "clipped", "get", "serialize"]


def _part(name: str, value: Any) -> float:
    value = float(real(name, value))
    if not 0 <= value <= 1:
        raise ValueError(f"Expected {name} to be from 0 to 1. Received {name}={value!r}.")
    return value


def _part_below_one(name: str, value: Any) -> float:
    value = _part(name, value)
    if value == 1:
        raise ValueError(f"Expected {name} to be below 1. Received {name}={value!r}.")
    return value


def _positive_or_none(name: str, value: Any) -> float | None:
    if value is None:
        return None
    value = non_negative(name, value)
    if not value:
        raise ValueError(f"Expected {name} to be above 0, or None. Received {name}={value!r}.")
    return value


def _truth(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"Expected {name} to be True or False. Received {name}={value!r}.")
    return value


@dataclass(frozen=True)
class Optimizer(Configured):
    """What all optimizers have.

    Parameters
    ----------
    learning_rate : float
        Size of a step; each parameter's own factor multiplies it.
    clipnorm : float, optional
        Longest L2 norm of one parameter's gradient.
    clipvalue : float, optional
        Largest absolute value of an element of a gradient.
    global_clipnorm : float, optional
        Longest L2 norm of all gradients together.
    l2 : float
        Each gradient grows by ``l2 * factor * value``, factor being the parameter's own, as in MATLAB.
    """

    learning_rate: float = checked(0.001, non_negative)
    clipnorm: float | None = checked(None, _positive_or_none)
    clipvalue: float | None = checked(None, _positive_or_none)
    global_clipnorm: float | None = checked(None, _positive_or_none)
    l2: float = checked(0.0, non_negative)

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [name for name in ("clipnorm", "clipvalue", "global_clipnorm") if getattr(self, name)]
        if len(given) > 1:
            raise ValueError(f"Expected one way to clip. Received {' and '.join(given)}.")

    def __call__(
        self,
        value: Array,
        gradient: Array,
        slots: dict[str, Array],
        iteration: int,
        *,
        learning_rate_factor: float = 1.0,
        l2_factor: float = 1.0,
    ) -> Array:
        """The value after a step; `iteration` counts from 1, the factors are the parameter's own."""
        xp, wide = widen(type(self).__name__, value, accept_complex=True)
        gradient = xp.astype(gradient, wide.dtype, copy=False)
        if self.l2 and l2_factor:
            gradient = gradient + self.l2 * l2_factor * wide
        rate = self.learning_rate * learning_rate_factor
        return narrow(xp, wide - self._step(gradient, slots, iteration, rate), value.dtype)

    def _step(self, gradient: Array, slots: dict[str, Array], iteration: int, rate: float) -> Array:
        """What is taken off the value."""
        raise NotImplementedError(f"Expected {type(self).__name__} to define _step.")


@dataclass(frozen=True)
class SGD(Optimizer):
    """Gradient descent: ``w -= learning_rate * g``; with momentum, ``m = momentum * m - learning_rate * g``.

    Then ``w += m``, or with `nesterov` ``w += momentum * m - learning_rate * g``.

    Source of the definition: Keras 3 ``keras.optimizers.SGD``.

    Parameters
    ----------
    learning_rate, clipnorm, clipvalue, global_clipnorm, l2
        As in `Optimizer`.
    momentum : float
        From 0 to 1.
    nesterov : bool
        Look ahead.

    Raises
    ------
    ValueError, TypeError
        For a number that is out of range or none.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.optimizers import SGD
    >>> SGD(0.5)(np.asarray([1.0, 2.0]), np.asarray([1.0, -1.0]), {}, 1)
    array([0.5, 2.5])
    """

    learning_rate: float = checked(0.01, non_negative)
    momentum: float = checked(0.0, _part)
    nesterov: bool = checked(False, _truth)

    def _step(self, gradient: Array, slots: dict[str, Array], iteration: int, rate: float) -> Array:
        del iteration
        step = rate * gradient
        if not self.momentum:
            return step
        momentum = slots["momentum"] = self.momentum * slots["momentum"] + step if slots else step
        return self.momentum * momentum + step if self.nesterov else momentum


@dataclass(frozen=True)
class Adam(Optimizer):
    """Steps by the gradients' average over the root of their squares' average.

    ``m += (1 - beta_1) (g - m)``, ``v += (1 - beta_2) (|g|**2 - v)``, and with t the iteration
    ``w -= learning_rate * sqrt(1 - beta_2**t) / (1 - beta_1**t) * m / (sqrt(v) + epsilon)``.

    Source of the definition: Keras 3 ``keras.optimizers.Adam``.

    Parameters
    ----------
    learning_rate, clipnorm, clipvalue, global_clipnorm, l2
        As in `Optimizer`.
    beta_1, beta_2 : float
        From 0 to below 1: how long the averages remember.
    epsilon : float
        Keeps small gradients from making large steps.

    Raises
    ------
    ValueError, TypeError
        For a number that is out of range or none.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.optimizers import Adam
    >>> Adam(0.5, epsilon=0.0)(np.asarray([1.0, 2.0]), np.asarray([3.0, -4.0]), {}, 1)
    array([0.5, 2.5])
    """

    beta_1: float = checked(0.9, _part_below_one)
    beta_2: float = checked(0.999, _part_below_one)
    epsilon: float = checked(1e-7, non_negative)

    def _step(self, gradient: Array, slots: dict[str, Array], iteration: int, rate: float) -> Array:
        xp = array_namespace(gradient=gradient)
        square = _square(gradient)
        m = slots.get("mean", xp.zeros_like(gradient))
        v = slots.get("square", xp.zeros_like(square))
        slots["mean"] = m = m + (gradient - m) * (1 - self.beta_1)
        slots["square"] = v = v + (square - v) * (1 - self.beta_2)
        bias = math.sqrt(1 - self.beta_2**iteration) / (1 - self.beta_1**iteration)
        return rate * bias * m / (xp.sqrt(v) + self.epsilon)


@dataclass(frozen=True)
class RMSprop(Optimizer):
    """Steps by the gradient over the root of its squares' average.

    ``v = rho * v + (1 - rho) |g|**2``, ``w -= learning_rate * g / sqrt(v + epsilon)``; centered, v less the
    squared average of g stands under the root; with momentum, the steps accumulate.

    Source of the definition: Keras 3 ``keras.optimizers.RMSprop``.

    Parameters
    ----------
    learning_rate, clipnorm, clipvalue, global_clipnorm, l2
        As in `Optimizer`.
    rho, momentum : float
        From 0 to 1.
    epsilon : float
        Keeps small gradients from making large steps.
    centered : bool
        Estimate the gradients' variance instead of their square.

    Raises
    ------
    ValueError, TypeError
        For a number that is out of range or none.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.optimizers import RMSprop
    >>> RMSprop(0.5, rho=0.0, epsilon=0.0)(np.asarray([1.0, 2.0]), np.asarray([3.0, -4.0]), {}, 1)
    array([0.5, 2.5])
    """

    rho: float = checked(0.9, _part)
    momentum: float = checked(0.0, _part)
    epsilon: float = checked(1e-7, non_negative)
    centered: bool = checked(False, _truth)

    def _step(self, gradient: Array, slots: dict[str, Array], iteration: int, rate: float) -> Array:
        del iteration
        xp = array_namespace(gradient=gradient)
        square = _square(gradient)
        v = slots.get("square", xp.zeros_like(square))
        slots["square"] = v = self.rho * v + (1 - self.rho) * square
        if self.centered:
            mean = slots.get("mean", xp.zeros_like(gradient))
            slots["mean"] = mean = self.rho * mean + (1 - self.rho) * gradient
            v = v - _square(mean)
        step = rate * gradient / xp.sqrt(v + self.epsilon)
        if not self.momentum:
            return step
        slots["momentum"] = self.momentum * slots.get("momentum", xp.zeros_like(step)) + step
        return slots["momentum"]


def clipped(optimizer: Optimizer, gradients: Sequence[Array]) -> list[Array]:
    """The gradients as `optimizer` clips them.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv import optimizers
    >>> optimizers.clipped(optimizers.SGD(clipnorm=1.0), [np.asarray([3.0, 4.0])])
    [array([0.6, 0.8])]
    """
    if optimizer.clipvalue is not None:
        return [_clip_value(gradient, optimizer.clipvalue) for gradient in gradients]
    if optimizer.clipnorm is not None:
        return [_clip_norm(gradient, _square_sum(gradient), optimizer.clipnorm) for gradient in gradients]
    if optimizer.global_clipnorm is not None and gradients:
        total = sum((_square_sum(gradient) for gradient in gradients[1:]), _square_sum(gradients[0]))
        return [_clip_norm(gradient, total, optimizer.global_clipnorm) for gradient in gradients]
    return list(gradients)


def _clip_value(gradient: Array, most: float) -> Array:
    xp = array_namespace(gradient=gradient)
    if dtype_name(gradient.dtype).startswith("complex"):
        raise TypeError("Expected real gradients for clipvalue. Received complex ones. Use clipnorm.")
    return xp.clip(gradient, -most, most)


def _clip_norm(gradient: Array, square: Array, most: float) -> Array:
    """`gradient` scaled as the vector of squared norm `square` must be, to be at most so long."""
    xp = array_namespace(gradient=gradient)
    norm = xp.sqrt(square)
    # No stall of a device on the value: the factor is 1 where the norm is short enough.
    factor = xp.where(norm > most, most / xp.where(norm > most, norm, xp.ones_like(norm)), xp.ones_like(norm))
    return narrow(xp, gradient * factor, gradient.dtype)


def _square(x: Array) -> Array:
    xp = array_namespace(x=x)
    if dtype_name(x.dtype).startswith("complex"):
        return xp.real(x) ** 2 + xp.imag(x) ** 2
    return x * x


def _square_sum(x: Array) -> Array:
    xp, wide = widen("a norm", x, accept_complex=True)
    return xp.sum(_square(wide))


_CATALOGUE = Catalogue("optimizer", {"sgd": SGD, "adam": Adam, "rmsprop": RMSprop})


def get(identifier: Any) -> Any:
    """The optimizer that a name, a config, a class or an instance stands for.

    Raises
    ------
    ValueError
        If the name or a config key is unknown.
    TypeError
        If `identifier` is something else.

    Examples
    --------
    >>> from gpuconv import optimizers
    >>> optimizers.get("adam").learning_rate
    0.001
    """
    return _CATALOGUE.get(identifier)


def serialize(optimizer: Any) -> Any:
    """`optimizer` as a nested dictionary of the form that Keras 3 writes, which `get` reads.

    Examples
    --------
    >>> from gpuconv import optimizers
    >>> optimizers.serialize(optimizers.SGD(0.1))["class_name"]
    'SGD'
    """
    return _CATALOGUE.serialize(optimizer)
