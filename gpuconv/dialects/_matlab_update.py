"""MATLAB's update functions: one step of an optimizer, for parameters of any structure."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from gpuconv._typing import Array
from gpuconv.dialects._matlab_dlarray import as_array, check_dtype, dlarray
from gpuconv.dialects._matlab_layer import TransposedConvolution1DLayer
from gpuconv.dialects._matlab_properties import as_row, is_empty, non_negative
from gpuconv.geometry import integer
from gpuconv.namespace import DTYPES, array_namespace, astype, detached, dtype_name

__all__ = ["adamupdate", "sgdmupdate"]

#: The global L2 regularization of MATLAB's ``trainingOptions``.
_L2 = 0.0001
_REAL = DTYPES[:4]


def sgdmupdate(
    params: Any,
    grads: Any,
    vel: Any = None,
    learnRate: float = 0.01,
    momentum: float = 0.9,
    *,
    L2Regularization: float | None = None,
) -> tuple[Any, Any]:
    """Update parameters by gradient descent with momentum. Source of the definition: MATLAB ``sgdmupdate``.

    ``vel = momentum * vel - learnRate * grads; params = params + vel``. The gradients come from elsewhere.

    Parameters
    ----------
    params : array, dlarray, layer, dict or sequence of such
        A layer stands for its Weights and Bias, which it must have.
    grads : as params
        Gradients of the loss. That of a layer is a dict of "Weights" and "Bias"; the latter may be a vector.
    vel : as grads, optional
        What the last call returned; None or ``[]`` in the first.
    learnRate : float, default 0.01
        The global learning rate. A layer's WeightLearnRateFactor and BiasLearnRateFactor multiply it.
    momentum : float, default 0.9
        From 0 to 1.
    L2Regularization : float, optional
        Global factor of the L2 penalty: ``L2Regularization * params`` is added to the gradients. A layer's
        WeightL2Factor and BiasL2Factor multiply it. By default 0.0001 in a layer, 0 elsewhere.

    Returns
    -------
    params, vel
        New ones, of the structure and dtype of `params`; what was passed stays as it was. Where a learning
        rate is 0 both stay as they are.

    Raises
    ------
    ValueError, TypeError
        For values or structures that do not fit, for arrays of two libraries, for integers and complex
        numbers.

    Notes
    -----
    In MATLAB the global L2 regularization is an option of training (``trainingOptions(...,
    L2Regularization=)`` for ``trainnet``), as are the learning rate and the momentum; its ``sgdmupdate``
    knows the learning rate factors of a network but adds no L2. ``L2Regularization=0`` does the same here.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.dialects.matlab import sgdmupdate
    >>> params, vel = sgdmupdate(np.array([1.0, 2.0]), np.array([10.0, -10.0]), [], 0.05, 0.95)
    >>> params, vel
    (array([0.5, 2.5]), array([-0.5,  0.5]))
    """
    decay = non_negative("momentum", momentum, 1.0)

    def step(rate: float, w: Array, g: Array, v: Array) -> tuple[Array, ...]:
        v = decay * v - rate * g
        return w + v, v

    rule = _Rule.of(step, learnRate, L2Regularization)
    updated, (vel,) = _update(rule, "params", params, grads, (vel,))
    return updated, vel


def adamupdate(
    params: Any,
    grads: Any,
    avg_g: Any,
    avg_sqg: Any,
    iteration: int,
    learnRate: float = 0.001,
    gradDecay: float = 0.9,
    sqGradDecay: float = 0.999,
    epsilon: float = 1e-8,
    *,
    L2Regularization: float | None = None,
) -> tuple[Any, Any, Any]:
    """Update parameters by adaptive moment estimation. Source of the definition: MATLAB ``adamupdate``.

    With t for `iteration`, ``avg_g = gradDecay * avg_g + (1 - gradDecay) * grads``, ``avg_sqg = sqGradDecay *
    avg_sqg + (1 - sqGradDecay) * grads**2`` and ``params = params - learnRate * sqrt(1 - sqGradDecay**t) /
    (1 - gradDecay**t) * avg_g / (sqrt(avg_sqg) + epsilon)``.

    Parameters
    ----------
    params, grads, learnRate, L2Regularization
        As `sgdmupdate` takes them, but for the rate's default of 0.001.
    avg_g, avg_sqg : as grads, or None
        What the last call returned; None or ``[]`` in the first.
    iteration : int
        Number of this call, from 1.
    gradDecay, sqGradDecay : float, default 0.9 and 0.999
        At least 0, less than 1.
    epsilon : float, default 1e-8
        Above 0.

    Returns
    -------
    params, avg_g, avg_sqg
        New ones, as for `sgdmupdate`.

    Raises
    ------
    ValueError, TypeError
        As `sgdmupdate` does.

    Notes
    -----
    As in MATLAB, the bias of the averages is corrected in the learning rate, so `epsilon` is added to the
    uncorrected root. L2 regularization is part of the gradients, also as there.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.dialects.matlab import adamupdate
    >>> params, avg_g, avg_sqg = adamupdate({"w": np.array([1.0])}, {"w": np.array([8.0])}, [], [], 1, 0.5)
    >>> params["w"].round(6), avg_g["w"].round(6)
    (array([0.5]), array([0.8]))
    """
    t, tiny = integer("iteration", iteration, 1), non_negative("epsilon", epsilon)
    mean, square = non_negative("gradDecay", gradDecay, 1.0), non_negative("sqGradDecay", sqGradDecay, 1.0)
    if mean == 1 or square == 1 or tiny == 0:
        raise ValueError(
            "Expected gradDecay and sqGradDecay below 1 and epsilon above 0. "
            f"Received {gradDecay=}, {sqGradDecay=}, {epsilon=}."
        )
    correction = math.sqrt(1 - square**t) / (1 - mean**t)

    def step(rate: float, w: Array, g: Array, m: Array, s: Array) -> tuple[Array, ...]:
        m = mean * m + (1 - mean) * g
        s = square * s + (1 - square) * (g * g)
        return w - rate * correction * (m / (array_namespace(s=s).sqrt(s) + tiny)), m, s

    rule = _Rule.of(step, learnRate, L2Regularization)
    updated, (avg_g, avg_sqg) = _update(rule, "params", params, grads, (avg_g, avg_sqg))
    return updated, avg_g, avg_sqg


class _Rule(NamedTuple):
    """What is done to a part of the parameters; `l2` is None where no factor and no user has set it."""

    step: Callable[..., tuple[Array, ...]]
    rate: float
    l2: float | None

    @classmethod
    def of(cls, step: Callable[..., tuple[Array, ...]], learnRate: Any, l2: Any) -> _Rule:
        """The rule with the user's global settings."""
        regularization = None if l2 is None else non_negative("L2Regularization", l2)
        return cls(step, non_negative("learnRate", learnRate), regularization)

    def times(self, rate_factor: float, l2_factor: float) -> _Rule:
        """The rule for a parameter of a layer."""
        return _Rule(self.step, self.rate * rate_factor, (_L2 if self.l2 is None else self.l2) * l2_factor)


def _update(
    rule: _Rule, where: str, params: Any, grads: Any, states: tuple[Any, ...]
) -> tuple[Any, tuple[Any, ...]]:
    """`params` and `states` after a step; `where` is what messages call this part."""
    parts = _parts(rule, where, params)
    if parts is None:
        return _update_array(rule, where, params, grads, states)
    columns = [_column(f"grads of {where}", params, parts, grads)]
    for state in states:
        kept = dict.fromkeys(parts) if is_empty(state) else _column(f"state of {where}", params, parts, state)
        columns.append(kept)
    after = {
        key: _update(inner, f"{where}[{key!r}]", part, columns[0][key], tuple(c[key] for c in columns[1:]))
        for key, (part, inner) in parts.items()
    }
    made = {key: part for key, (part, _) in after.items()}
    moved = [{key: part[i] for key, (_, part) in after.items()} for i in range(len(states))]
    if isinstance(params, TransposedConvolution1DLayer):
        updated = copy.copy(params)
        updated.Weights, updated.Bias = made["Weights"], made["Bias"]
        return updated, tuple(moved)
    if isinstance(params, Mapping):
        return made, tuple(moved)
    return list(made.values()), tuple(list(column.values()) for column in moved)


def _parts(rule: _Rule, where: str, params: Any) -> dict[Any, tuple[Any, _Rule]] | None:
    """What `params` is made of, with the rule for each part; None for a single array."""
    if isinstance(params, TransposedConvolution1DLayer):
        if params.Weights is None or params.Bias is None:
            raise ValueError(
                f"Expected {where} to have Weights and Bias. Received a layer without. Call it on data first."
            )
        return {
            "Weights": (params.Weights, rule.times(params.WeightLearnRateFactor, params.WeightL2Factor)),
            "Bias": (params.Bias, rule.times(params.BiasLearnRateFactor, params.BiasL2Factor)),
        }
    if isinstance(params, Mapping):
        return {key: (part, rule) for key, part in params.items()}
    if isinstance(params, list | tuple):
        return {place: (part, rule) for place, part in enumerate(params)}
    return None


def _column(name: str, params: Any, parts: dict[Any, Any], values: Any) -> dict[Any, Any]:
    """`values` by the keys of `parts`."""
    found = dict(enumerate(values)) if isinstance(values, list | tuple) else values
    if not isinstance(found, Mapping) or set(found) != set(parts):
        received = list(found) if isinstance(found, Mapping) else type(values).__name__
        raise ValueError(f"Expected {name} to have the parts {list(parts)}. Received {received}.")
    if isinstance(params, TransposedConvolution1DLayer) and not isinstance(found["Bias"], dlarray):
        return {**found, "Bias": as_row(as_array(name, found["Bias"]))}
    return dict(found)


def _update_array(
    rule: _Rule, where: str, param: Any, grad: Any, states: tuple[Any, ...]
) -> tuple[Any, tuple[Any, ...]]:
    given = {where: param, f"grads of {where}": grad}
    given |= {f"state {i} of {where}": s for i, s in enumerate(states, 1) if not is_empty(s)}
    arrays = {
        name: value.extractdata() if isinstance(value, dlarray) else as_array(name, value)
        for name, value in given.items()
    }
    xp = array_namespace(**arrays)
    like = arrays[where]
    for name, array in arrays.items():
        check_dtype(name, array, _REAL)
        if tuple(array.shape) != tuple(like.shape):
            raise ValueError(
                f"Expected {name} of the shape of {where}, {tuple(like.shape)}. "
                f"Received {tuple(array.shape)}."
            )
    w, g, *kept = (detached(_cast(array, dtype_name(like.dtype))) for array in arrays.values())
    left = iter(kept)
    before = [xp.zeros_like(w) if is_empty(state) else next(left) for state in states]
    after: tuple[Array, ...] = (w, *before)
    if rule.rate > 0:  # MATLAB steps over what does not learn: its averages stay too
        after = rule.step(rule.rate, w, g + rule.l2 * w if rule.l2 else g, *before)
    if isinstance(param, dlarray):
        after = tuple(dlarray(array, param.dims()) for array in after)
    return after[0], after[1:]


def _cast(array: Array, dtype: str) -> Array:
    return array if dtype_name(array.dtype) == dtype else astype(array, dtype)
