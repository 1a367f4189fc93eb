"""How far predictions are from targets, and which way is less. The numbers are Keras 3's."""

from __future__ import annotations

from typing import Any

from gpuconv._catalogue import Catalogue, narrow, widen
from gpuconv._typing import Array
from gpuconv.namespace import array_namespace, dtype_name

__all__ = ["get", "gradient", "mean_absolute_error", "mean_squared_error"]


def mean_squared_error(y: Array, target: Array) -> Array:
    """``mean(|y - target|**2)`` over all elements, as a 0-d array.

    Source of the definition: Keras 3 ``keras.losses.MeanSquaredError``.

    Parameters
    ----------
    y, target : array
        Predictions and what they ought to be, of one shape and library.

    Raises
    ------
    ValueError, TypeError
        If they are not.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv import losses
    >>> losses.mean_squared_error(np.asarray([1.0, 2.0]), np.asarray([1.0, 4.0]))
    array(2.)
    """
    xp, difference = _difference(y, target)
    return _mean(xp, xp.abs(difference) ** 2)


def mean_absolute_error(y: Array, target: Array) -> Array:
    """``mean(|y - target|)`` over all elements, as a 0-d array.

    Source of the definition: Keras 3 ``keras.losses.MeanAbsoluteError``.

    Parameters
    ----------
    y, target : array
        Predictions and what they ought to be, of one shape and library.

    Raises
    ------
    ValueError, TypeError
        If they are not.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv import losses
    >>> losses.mean_absolute_error(np.asarray([1.0, 2.0]), np.asarray([1.0, 4.0]))
    array(1.)
    """
    xp, difference = _difference(y, target)
    return _mean(xp, xp.abs(difference))


def gradient(loss: Any, y: Array, target: Array) -> Array:
    """The gradient of `loss` with respect to `y`, in the type of `y`.

    Parameters
    ----------
    loss : str or callable
        A loss of this module or its name, or your own with a method ``gradient(y, target)``.
    y, target : array
        As `loss` takes them.

    Raises
    ------
    NotImplementedError
        If the gradient of `loss` is not known.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv import losses
    >>> losses.gradient(losses.mean_squared_error, np.asarray([1.0, 2.0]), np.asarray([1.0, 4.0]))
    array([ 0., -2.])
    """
    loss = get(loss)
    if loss is mean_squared_error:
        xp, difference = _difference(y, target)
        return narrow(xp, difference * (2 / max(1, _size(y))), y.dtype)
    if loss is mean_absolute_error:
        xp, difference = _difference(y, target)
        size = xp.abs(difference)
        # The sign, of complex numbers too, without dividing by 0.
        sign = difference / xp.where(size > 0, size, xp.ones_like(size))
        return narrow(xp, sign / max(1, _size(y)), y.dtype)
    if hasattr(loss, "gradient"):
        return loss.gradient(y, target)
    raise NotImplementedError(
        f"Expected a loss of gpuconv.losses, or one with a method gradient(y, target). Received {loss!r}."
    )


def compares_elements(loss: Any) -> bool:
    """Whether targets must have the predictions' shape; what a loss of one's own wants is not known."""
    return loss in (mean_squared_error, mean_absolute_error)


def has_gradient(loss: Any) -> bool:
    """Whether `gradient` knows that of `loss`."""
    return compares_elements(loss) or hasattr(loss, "gradient")


def _difference(y: Array, target: Array) -> tuple[Any, Array]:
    array_namespace(y=y, target=target)
    if tuple(y.shape) != tuple(target.shape):
        raise ValueError(
            f"Expected targets of the predictions' shape {tuple(y.shape)}. Received {tuple(target.shape)}."
        )
    xp, wide = widen("a loss", y, accept_complex=True)
    if dtype_name(target.dtype).startswith("complex") and not dtype_name(y.dtype).startswith("complex"):
        raise TypeError("Expected real targets for real predictions. Received complex ones.")
    return xp, wide - xp.astype(target, wide.dtype, copy=False)


def _size(y: Array) -> int:
    size = 1
    for length in y.shape:
        size *= length
    return size


def _mean(xp: Any, values: Array) -> Array:
    total = xp.sum(values) / max(1, _size(values))
    return narrow(xp, total, total.dtype)


_CATALOGUE = Catalogue(
    "loss",
    {"mean_squared_error": mean_squared_error, "mean_absolute_error": mean_absolute_error},
    aliases={
        "mse": "mean_squared_error",
        "mae": "mean_absolute_error",
        "MeanSquaredError": "mean_squared_error",
        "MeanAbsoluteError": "mean_absolute_error",
    },
)


def get(identifier: Any) -> Any:
    """The loss that a name or a callable stands for.

    Raises
    ------
    ValueError
        If the name is unknown.
    TypeError
        If `identifier` is something else.

    Examples
    --------
    >>> from gpuconv import losses
    >>> losses.get("mse").__name__
    'mean_squared_error'
    """
    return _CATALOGUE.get(identifier)
