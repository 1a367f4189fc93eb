"""MATLAB's formats, which name dimensions, and the `dlarray` that carries one."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from gpuconv._display import block, table
from gpuconv._typing import Array
from gpuconv.geometry import integer
from gpuconv.namespace import DTYPES, array_namespace, dtype_name

__all__ = [
    "LABELS",
    "as_array",
    "check_dtype",
    "class_name",
    "dlarray",
    "in_stored_order",
    "labelled",
    "ordered",
    "padded",
]

#: Spatial, channel, batch, time, unspecified: the order in which a dlarray stores its dimensions.
LABELS = "SCBTU"

_MEANINGS = {"S": "S, spatial", "C": "C, channel", "B": "B, batch", "T": "T, time", "U": "U, unspecified"}

_CLASSES = {
    "bool": "logical",
    "float16": "half",
    "float32": "single",
    "float64": "double",
    "complex64": "single",
    "complex128": "double",
}


class dlarray:
    """An array whose dimensions may have labels. Source of the definition: MATLAB ``dlarray``.

    A format has one label per dimension: S (spatial), C (channel), B (batch), T (time) or U (unspecified).
    The dimensions are stored in that order, whatever order they came in.

    Parameters
    ----------
    X : array, dlarray, number or nested sequence of numbers
        Of any array-API library; what is no array becomes NumPy's float64, MATLAB's double. It is not copied.
    fmt : str, optional
        A label for each dimension; C, B and T at most once. Labels beyond the dimensions of `X` make ones of
        length 1. It replaces the format of a dlarray; ``""`` keeps that.

    Raises
    ------
    ValueError
        For other labels, or fewer than `X` has dimensions.
    TypeError
        For what is no array and no string.

    Notes
    -----
    As in MATLAB, a U of length 1 at the end is dropped from the third dimension on. Unlike there, an array
    may have fewer than two dimensions, arithmetic is that of the array (`extractdata`), and nothing is
    recorded for automatic differentiation.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.dialects.matlab import dlarray
    >>> X = dlarray(np.zeros((10, 2, 3), np.float32), "TBC")
    >>> X
    3(C) x 2(B) x 10(T) single dlarray
    >>> X.dims(), X.finddim("T"), X.size(X.finddim("T"))
    ('CBT', (3,), (10,))
    >>> X.extractdata().shape
    (3, 2, 10)
    """

    __slots__ = ("_data", "_labels")

    def __init__(self, X: Any, fmt: str = "") -> None:
        data, labels = (X.extractdata(), X.dims()) if isinstance(X, dlarray) else (as_array("X", X), "")
        if fmt != "":
            labels = _checked("fmt", fmt)
            data = padded("X", data, "fmt", labels)
            data, labels = ordered(data, labels, in_stored_order(labels)), in_stored_order(labels)
            while len(labels) > 2 and labels.endswith("U") and data.shape[-1] == 1:
                data, labels = data[..., 0], labels[:-1]
        self._data, self._labels = data, labels

    def dims(self) -> str:
        """The labels, ``""`` where there are none."""
        return self._labels

    def finddim(self, label: str) -> tuple[int, ...]:
        """The dimensions of that label, counted from 1 as in MATLAB: an axis of the array is one less.

        Raises
        ------
        ValueError
            If there is no such label.
        """
        if not isinstance(label, str) or len(label) != 1 or label not in LABELS:
            raise ValueError(f"Expected label to be one of {', '.join(LABELS)}. Received label={label!r}.")
        return tuple(dim for dim, found in enumerate(self._labels, 1) if found == label)

    def size(self, *dims: Any) -> Any:
        """The lengths of all dimensions or, given dimensions counted from 1, of those.

        One number gives a number; several, or a sequence of them, a tuple. Beyond the last dimension all
        lengths are 1.

        Raises
        ------
        ValueError, TypeError
            If a dimension is no integer of at least 1.
        """
        lengths = tuple(self._data.shape)
        if not dims:
            return lengths
        alone = len(dims) == 1 and not isinstance(dims[0], list | tuple)
        flat = itertools.chain.from_iterable(d if isinstance(d, list | tuple) else (d,) for d in dims)
        wanted = [integer("dim", dim, 1) for dim in flat]
        found = tuple(lengths[dim - 1] if dim <= len(lengths) else 1 for dim in wanted)
        return found[0] if alone else found

    def extractdata(self) -> Array:
        """The array, its dimensions in stored order."""
        return self._data

    def stripdims(self, fmt: str = "") -> dlarray:
        """The same without labels, its dimensions in the order of `fmt`, if that is given.

        `fmt` has all labels of `dims`; further ones make dimensions of length 1.

        Raises
        ------
        ValueError
            If `fmt` is no format, or lacks a label.
        """
        if fmt == "" or not self._labels:
            return dlarray(self._data)
        wanted = _checked("fmt", fmt)
        if any(wanted.count(label) < self._labels.count(label) for label in LABELS):
            raise ValueError(f"Expected fmt to have all labels of {self._labels!r}. Received fmt={fmt!r}.")
        return dlarray(ordered(self._data, self._labels, wanted))

    def __repr__(self) -> str:
        shape = tuple(self._data.shape)
        sizes = [str(length) for length in shape]
        if self._labels:
            sizes = [f"{size}({label})" for size, label in zip(sizes, self._labels, strict=True)]
        # MATLAB shows two dimensions of everything, and does not say double.
        sizes += ["1(U)" if self._labels else "1"] * (2 - len(sizes))
        words = [(" x " if self._labels else "x").join(sizes), class_name(self._data), "dlarray"]
        return " ".join(word for word in words if word != "double")

    def _repr_html_(self) -> str:
        lengths = map(str, self._data.shape)
        labels = [_MEANINGS[label] for label in self._labels] or ["" for _ in self._data.shape]
        rows = [(str(dim), *row) for dim, row in enumerate(zip(labels, lengths, strict=True), 1)]
        return block(repr(self), table(rows, header=("dimension", "label", "size"), right=1))


def class_name(array: Array) -> str:
    """What MATLAB calls the dtype: ``"single"``, ``"double"``, ...; one that it lacks keeps its name."""
    name = dtype_name(array.dtype)
    return _CLASSES.get(name, name)


def as_array(name: str, value: Any) -> Array:
    """`value`, or a NumPy array of the numbers in it: doubles where they are integers, as in MATLAB."""
    if hasattr(value, "shape") and not isinstance(value, np.generic):
        array_namespace(**{name: value})  # refuses what is no array
        return value
    try:
        array = np.asarray(value)
    except ValueError:  # nested sequences of different lengths
        array = np.asarray(None)
    if array.dtype.kind not in "iufc":
        raise TypeError(f"Expected {name} to be an array or numbers. Received {name}={value!r}.")
    return array.astype(np.float64) if array.dtype.kind in "iu" else array


def check_dtype(name: str, array: Array, known: tuple[str, ...] = DTYPES) -> None:
    """Check that the array is of one of the dtypes `known`.

    Raises
    ------
    TypeError
        If it is not.
    """
    if (dtype := dtype_name(array.dtype)) not in known:
        raise TypeError(
            f"Expected {name} of dtype {', '.join(known)}. Received {name} of {dtype}. "
            "Cast it first, for example to float32."
        )


def labelled(name: str, X: Any, option: str, fmt: str | None) -> tuple[Array, str]:
    """The array `X` and its labels: a dlarray's own, or else those that the argument `option` gives.

    Raises
    ------
    ValueError
        If there are none, or both, or fewer than dimensions.
    """
    if isinstance(X, dlarray) and X.dims():
        if fmt is not None:
            raise ValueError(
                f"Expected {option} only where {name} has no format of its own. "
                f"Received {option}={fmt!r} for {name} of format {X.dims()!r}. Leave {option} away."
            )
        return X.extractdata(), X.dims()
    data = X.extractdata() if isinstance(X, dlarray) else as_array(name, X)
    if fmt is None:
        raise ValueError(
            f"Expected {name} with a format. Received {name} of shape {tuple(data.shape)} without one. "
            f"Pass {option}, a label for each dimension, or dlarray({name}, fmt)."
        )
    labels = _checked(option, fmt)
    return padded(name, data, option, labels), labels


def padded(name: str, data: Array, option: str, labels: str) -> Array:
    """`data` with dimensions of length 1 at the end, one for each label that it has no dimension for."""
    shape = tuple(data.shape)
    if len(shape) > len(labels):
        raise ValueError(
            f"Expected {option} to have a label for each dimension of {name}. "
            f"Received {option}={labels!r} for {name} of shape {shape}."
        )
    xp = array_namespace(data=data)
    return data if len(shape) == len(labels) else xp.reshape(data, shape + (1,) * (len(labels) - len(shape)))


def ordered(data: Array, labels: str, wanted: str) -> Array:
    """`data` with its dimensions in the order of `wanted`, which has all of `labels`.

    Of equal labels the first stays the first; one that `labels` lacks makes a dimension of length 1.
    """
    left = list(enumerate(labels))
    axes, missing = [], []
    for place, label in enumerate(wanted):
        found = next((entry for entry in left if entry[1] == label), None)
        if found is None:
            missing.append(place)
        else:
            left.remove(found)
            axes.append(found[0])
    xp = array_namespace(data=data)
    moved = xp.permute_dims(data, tuple(axes))
    for place in missing:
        moved = xp.expand_dims(moved, axis=place)
    return moved


def in_stored_order(labels: str) -> str:
    """`labels` in the order in which a dlarray stores them."""
    return "".join(sorted(labels, key=LABELS.index))


def _checked(option: str, fmt: Any) -> str:
    if not isinstance(fmt, str):
        raise TypeError(f"Expected {option} to be a string such as 'CBT'. Received {option}={fmt!r}.")
    if not fmt or not set(fmt) <= set(LABELS) or any(fmt.count(label) > 1 for label in "CBT"):
        raise ValueError(
            f"Expected {option} to be made of S, C, B, T and U, with C, B and T at most once each. "
            f"Received {option}={fmt!r}."
        )
    return fmt
