"""What the arguments of every layer become."""

from __future__ import annotations

import collections
import itertools
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from gpuconv._typing import Array, Shape
from gpuconv.geometry import as_shape, integer
from gpuconv.namespace import DTYPES, astype, dtype_name

__all__ = [
    "as_batch_input_shape",
    "as_dtype",
    "as_name",
    "as_truth",
    "cast_copy",
    "snake_case",
    "unique_name",
]

_counters: dict[str, itertools.count[int]] = collections.defaultdict(itertools.count)


def cast_copy(array: Array, dtype: str, what: str) -> Array:
    """A copy of `array` as `dtype`; complex numbers do not become real ones."""
    received = dtype_name(array.dtype)
    if not received.startswith(("bool", "int", "uint", "float", "bfloat", "complex")):
        raise TypeError(f"Expected {what} to be numbers. Received {received}.")
    if received.startswith("complex") and not dtype.startswith("complex"):
        raise TypeError(
            f"Expected real {what}, which is of dtype={dtype!r}. Received {received}. "
            "Make the layer with dtype='complex64', or pass the real and imaginary parts apart."
        )
    return astype(array, dtype)


def as_batch_input_shape(input_shape: Any, batch_input_shape: Any, batch_size: Any) -> Shape | None:
    """The shape of the input, samples included, from either way to give it."""
    if batch_input_shape is not None:
        if input_shape is not None or batch_size is not None:
            raise ValueError(
                "Expected batch_input_shape alone, or input_shape with or without batch_size. Received "
                f"{batch_input_shape=}, {input_shape=}, {batch_size=}."
            )
        return as_shape("batch_input_shape", batch_input_shape)
    samples = None if batch_size is None else integer("batch_size", batch_size, 1)
    return None if input_shape is None else (samples, *as_shape("input_shape", input_shape))


def as_dtype(dtype: Any) -> str:
    """The name of a dtype, given as one, as a type of any library, or as a policy of Keras 3."""
    if dtype is None:
        return "float32"
    found = dtype
    if isinstance(found, Mapping):  # Keras 3 writes a policy: {"class_name": ..., "config": {"name": ...}}
        settings = found.get("config")
        found = settings.get("name") if isinstance(settings, Mapping) else None
    if isinstance(found, type):
        found = np.dtype(found)
    found = found if isinstance(found, str) else dtype_name(found)
    if found not in DTYPES:
        raise ValueError(
            f"Expected dtype to be one of {', '.join(DTYPES)} or None. Received {dtype=}. (Half types are "
            "summed in float32 as they are.)"
        )
    return found


def as_truth(name: str, value: Any) -> bool:
    """`value`, if it is True or False."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"Expected {name} to be True or False. Received {name}={value!r}.")
    return bool(value)


def as_name(name: Any) -> str:
    """`name`, if it can be one."""
    if not isinstance(name, str) or not name or "/" in name:
        raise ValueError(f"Expected name to be a string without '/'. Received {name=}.")
    return name


def snake_case(class_name: str) -> str:
    """The words of a class's name, as in Keras: ``"Conv1DTranspose"`` is ``"conv1d_transpose"``."""
    return re.sub("([a-z])([A-Z])", r"\1_\2", re.sub("(.)([A-Z][a-z]+)", r"\1_\2", class_name)).lower()


def unique_name(class_name: str) -> str:
    """A name that no other layer was given: that of the class, in Keras' spelling, and a number."""
    words = snake_case(class_name)
    number = next(_counters[words])
    return f"{words}_{number}" if number else words
