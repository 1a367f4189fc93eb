"""What the properties of MATLAB's layer may be: each is checked whenever it is assigned."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping
from typing import Any

from gpuconv._typing import Array
from gpuconv.dialects._matlab_dlarray import as_array, check_dtype, dlarray
from gpuconv.namespace import array_namespace, astype, dtype_name

__all__ = [
    "Property",
    "as_row",
    "bias",
    "factor",
    "initializer",
    "is_empty",
    "name_of_layer",
    "non_negative",
    "weights",
]


class Property:
    """A property of a layer: checked whenever it is assigned, or never assigned."""

    # `check` takes the layer, the name and the value, and returns what is kept.
    def __init__(self, check: Callable[[Any, str, Any], Any] | None = None) -> None:
        self._check = check

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, layer: Any, owner: type | None = None) -> Any:
        return self if layer is None else vars(layer)[self._name]

    def __set__(self, layer: Any, value: Any) -> None:
        if self._check is None:
            raise AttributeError(
                f"Expected {self._name} to stay what the layer was made with. "
                f"Received {self._name}={value!r}. Make a new layer."
            )
        vars(layer)[self._name] = self._check(layer, self._name, value)


def factor(layer: Any, name: str, value: Any) -> float:
    """A factor of a global setting."""
    del layer
    return non_negative(name, value)


def name_of_layer(layer: Any, name: str, value: Any) -> str:
    """Any string."""
    del layer
    if not isinstance(value, str):
        raise TypeError(f"Expected {name} to be a string. Received {name}={value!r}.")
    return value


def initializer(*known: str) -> Callable[[Any, str, Any], Any]:
    """The check of an initializer: one of the names `known`, or a function."""

    def check(layer: Any, name: str, value: Any) -> Any:
        del layer
        if callable(value):
            return value
        word = value.lower() if isinstance(value, str) else ""
        # The hyphen gets lost on the way through web pages.
        word = "narrow-normal" if word == "narrownormal" else word
        if word not in known:
            raise ValueError(
                f"Expected {name} to be one of {', '.join(map(repr, known))} or a function of the size. "
                f"Received {name}={value!r}."
            )
        return word

    return check


def weights(layer: Any, name: str, value: Any) -> Array | None:
    """A copy, FilterSize x NumFilters x NumChannels, or None where it is empty."""
    if (array := _copied(name, value)) is None:
        return None
    shape = tuple(array.shape) + (1,) * (3 - array.ndim)
    channels = shape[-1] if layer.NumChannels == "auto" else layer.NumChannels
    if shape != (layer.FilterSize, layer.NumFilters, channels):
        raise ValueError(
            f"Expected {name} of FilterSize x NumFilters x NumChannels, which is {layer.FilterSize} x "
            f"{layer.NumFilters} x {layer.NumChannels}. Received {name} of shape {tuple(array.shape)}."
        )
    vars(layer)["NumChannels"] = channels  # they decide it where it was "auto"
    return array_namespace(array=array).reshape(array, shape)


def bias(layer: Any, name: str, value: Any) -> Array | None:
    """A copy, 1 x NumFilters, or None where it is empty."""
    if (array := _copied(name, value)) is None:
        return None
    if tuple(as_row(array).shape) != (1, layer.NumFilters):
        raise ValueError(
            f"Expected {name} of 1 x NumFilters, which is 1 x {layer.NumFilters}. "
            f"Received {name} of shape {tuple(array.shape)}."
        )
    return as_row(array)


def _copied(name: str, value: Any) -> Array | None:
    if is_empty(value):
        return None
    array = value.extractdata() if isinstance(value, dlarray) else as_array(name, value)
    check_dtype(name, array)
    return astype(array, dtype_name(array.dtype))


def is_empty(value: Any) -> bool:
    """Whether `value` is what MATLAB writes ``[]``: None, or something of no elements."""
    if value is None:
        return True
    if hasattr(value, "shape"):
        return 0 in value.shape
    return isinstance(value, list | tuple | Mapping) and not value


def as_row(array: Array) -> Array:
    """A vector or a number as one row, MATLAB's 1 x n; all else as it is."""
    if array.ndim > 1:
        return array
    return array_namespace(array=array).reshape(array, (1, math.prod(array.shape)))


def non_negative(name: str, value: Any, most: float = math.inf) -> float:
    """`value` as a finite float from 0 to `most`.

    Raises
    ------
    TypeError
        If it is no real number.
    ValueError
        If it is out of range.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"Expected {name} to be a number. Received {name}={value!r}.")
    # A NumPy scalar would decide the dtype of what it multiplies.
    number = float(value)
    if not 0 <= number <= most or math.isinf(number):
        bound = "at least 0 and finite" if math.isinf(most) else f"from 0 to {most:g}"
        raise ValueError(f"Expected {name} to be {bound}. Received {name}={value!r}.")
    return number
