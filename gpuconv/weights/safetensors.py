"""PyTorch's parameters from ``.safetensors`` files: names and arrays, without the layers.

The format is small enough to be read here: a length, a JSON header, numbers. No package is needed, save
ml_dtypes for bfloat16.

Source of the definition: the safetensors format's page (github.com/huggingface/safetensors); the layouts
of ``torch.nn.Conv1d`` ... ``ConvTranspose3d``; ``torch.nn.utils.weight_norm`` and
``torch.nn.utils.parametrizations.weight_norm``.
"""

from __future__ import annotations

import io
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gpuconv._typing import Array
from gpuconv.layers import Layer, Sequential
from gpuconv.layers.base_conv import BaseConv
from gpuconv.namespace import array_namespace, dtype_name, dtype_named
from gpuconv.weights._files import JSON_LIMIT, RANK_LIMIT, entry_of, json_object, needed, reading

__all__ = ["read", "to_kernel"]

_DTYPES = {
    "BOOL": "bool",
    "U8": "uint8", "U16": "uint16", "U32": "uint32", "U64": "uint64",
    "I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64",
    "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64",
    "C64": "complex64",
}  # fmt: skip
#: The two halves of a normalised weight, length and direction, as PyTorch's two versions call them.
_WEIGHT_NORM = (
    ("weight_g", "weight_v"),
    ("parametrizations.weight.original0", "parametrizations.weight.original1"),
)


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of a ``.safetensors`` file by their names, weight normalisation folded into the weights.

    The pair ``x.weight_g``, ``x.weight_v`` (and ``x.parametrizations.weight.original0``, ``.original1``)
    becomes one ``x.weight``, ``g * v / |v|``, the norm taken over the axes along which g has length 1. It is
    computed in float64 and rounded once.

    Parameters
    ----------
    path : path
        Of the file. Nothing in it is run. Its header may take 16 MiB.

    Returns
    -------
    dict of str to numpy.ndarray
        In the order of the file's header.

    Raises
    ------
    ValueError
        If the file is damaged, or its header contradicts it.
    ImportError
        If there are bfloat16 numbers and ml_dtypes is not installed.

    Examples
    --------
    >>> import json, pathlib, tempfile
    >>> import numpy as np
    >>> from gpuconv.weights import safetensors
    >>> header = json.dumps({"up.weight": {"dtype": "F32", "shape": [2, 1, 3], "data_offsets": [0, 24]}})
    >>> path = pathlib.Path(tempfile.mkdtemp(), "up.safetensors")
    >>> _ = path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + bytes(24))
    >>> arrays = safetensors.read(path)
    >>> arrays["up.weight"].shape, safetensors.to_kernel(arrays["up.weight"]).shape
    ((2, 1, 3), (3, 1, 2))
    """
    path = Path(path)
    with reading("a .safetensors file", path), path.open("rb") as file:
        return _folded(_arrays(file, path.stat().st_size))


def to_kernel(weight: Array) -> Array:
    """The weight of a PyTorch (or ONNX) convolution, transposed or not, as the kernel of ours.

    PyTorch keeps (channels, filters // groups, taps...) for transposed convolutions and (filters,
    channels // groups, taps...) for the others; ours are (taps..., filters // groups, channels) and (taps...,
    channels // groups, filters). Either way the first two axes go to the end, in reverse.

    Parameters
    ----------
    weight : array
        Of any library, with 3 to 5 axes.

    Returns
    -------
    array
        A view where the library has views.

    Raises
    ------
    TypeError
        If it is no array.
    ValueError
        If it has another number of axes.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.weights.safetensors import to_kernel
    >>> weight = np.zeros((128, 32, 7))  # torch.nn.ConvTranspose1d(128, 32, 7).weight
    >>> to_kernel(weight).shape
    (7, 32, 128)
    """
    xp = array_namespace(weight=weight)
    if not 3 <= weight.ndim <= 5:
        raise ValueError(
            f"Expected the weight of a convolution over 1 to 3 axes. Received shape={tuple(weight.shape)}."
        )
    return xp.permute_dims(weight, (*range(2, weight.ndim), 1, 0))


def _load_into(path: Path, model: Sequential) -> Sequential:
    """`model` with the parameters of a file, matched by name or by order; none are set if one does not fit.

    Raises
    ------
    ValueError
        If the file is damaged, or its arrays are not those of the model's layers.
    """
    arrays = read(path)
    with reading("a .safetensors file that fits the model", path):
        model.set_weights(_matched(arrays, _convolutions(model)))
    return model


class _Entry(NamedTuple):
    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    begin: int
    end: int


def _arrays(file: io.BufferedReader, size: int) -> dict[str, np.ndarray]:
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > size - 8:
        raise ValueError(f"its header should take {length} bytes, and {max(0, size - 8)} follow")
    if length > JSON_LIMIT:
        raise ValueError(f"its header takes {length} bytes, and at most {JSON_LIMIT} are read")
    header = json_object(file.read(length), "header")
    header.pop("__metadata__", None)
    entries = sorted((_entry(name, value) for name, value in header.items()), key=lambda e: (e.begin, e.end))
    at, found = 0, {}
    for entry in entries:
        # All numbers belong to one array: none is read twice, and nothing hides between them.
        if entry.begin != at:
            raise ValueError(f"{entry.name!r} begins at {entry.begin}, where {at} is expected")
        at = entry.end
        if at > size - 8 - length:
            raise ValueError(f"{entry.name!r} ends at {at}, and {size - 8 - length} bytes follow the header")
        found[entry.name] = array = np.empty(entry.shape, entry.dtype)
        if file.readinto(array.reshape(-1).view(np.uint8).data) != array.nbytes:
            raise ValueError("it became shorter while it was read")
    if at != size - 8 - length:
        raise ValueError(f"{size - 8 - length - at} bytes belong to no array")
    return {name: found[name] for name in header}


def _entry(name: str, value: Any) -> _Entry:
    if not isinstance(value, dict):
        raise ValueError(f"{name!r} is {value!r:.80}, not an object")
    form = entry_of(value, "dtype", str, repr(name))
    shape = entry_of(value, "shape", list, repr(name))
    offsets = entry_of(value, "data_offsets", list, repr(name))
    if form not in _DTYPES:
        raise ValueError(f"{name!r} has dtype={form!r:.80}, not one of {', '.join(_DTYPES)}")
    sizes = [*shape, *offsets]
    if len(shape) > RANK_LIMIT or len(offsets) != 2 or any(type(n) is not int or n < 0 for n in sizes):
        raise ValueError(f"{name!r} has shape={shape!r:.80}, data_offsets={offsets!r:.80}")
    if form == "BF16":
        needed("ml_dtypes")
    dtype = np.dtype(dtype_named(np, _DTYPES[form]))
    wanted = math.prod(shape) * dtype.itemsize
    if offsets[1] - offsets[0] != wanted:
        raise ValueError(f"{name!r} takes {offsets[1] - offsets[0]} bytes, and its shape {wanted}")
    return _Entry(name, dtype, tuple(shape), *offsets)


def _folded(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`arrays` with each pair of a length and a direction replaced by the weight that they make."""
    pairs = {}
    for scale, direction in _WEIGHT_NORM:
        for name in arrays:
            stem = name.removesuffix(direction)
            if stem != name and stem + scale in arrays:
                pairs[name] = (stem + scale, f"{stem}weight")
    lengths = {scale for scale, _ in pairs.values()}
    found: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        if name in pairs:
            scale, whole = pairs[name]
            if whole in arrays or whole in found:
                raise ValueError(f"it has {whole!r} twice, once in two parts")
            found[whole] = _weight(whole, arrays[scale], array)
        elif name not in lengths:
            found[name] = array
    return found


def _weight(name: str, scale: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """``g * v / |v|``."""
    # PyTorch's dim=None gives one length, without axes, for all.
    shape = scale.shape or (1,) * direction.ndim
    fits = len(shape) == direction.ndim
    fits = fits and all(n in (1, m) for n, m in zip(shape, direction.shape, strict=True))
    if not fits or any("float" not in dtype_name(part.dtype) for part in (scale, direction)):
        raise ValueError(
            f"{name!r} is made of lengths of shape {scale.shape}, {dtype_name(scale.dtype)}, and directions "
            f"of shape {direction.shape}, {dtype_name(direction.dtype)}"
        )
    over = tuple(axis for axis, n in enumerate(shape) if n == 1)
    with np.errstate(all="ignore"):  # 0 / 0 is a NaN, as in PyTorch
        wide = direction.astype(np.float64)
        norm = np.sqrt((wide * wide).sum(axis=over, keepdims=True))
        return (scale.reshape(shape).astype(np.float64) / norm * wide).astype(direction.dtype)


# --- into a model --------------------------------------------------------------------------------


def _convolutions(model: Sequential) -> list[BaseConv]:
    """The layers with parameters, those of the models inside the model included."""
    found: list[BaseConv] = []
    for layer in model.layers:
        if isinstance(layer, Sequential):
            found += _convolutions(layer)
        elif isinstance(layer, BaseConv):
            found.append(layer)
        elif layer.weights:
            raise ValueError(f"layer {layer.name!r} is no convolution: read the file and set its weights")
    return found


def _matched(arrays: Mapping[str, np.ndarray], convolutions: Sequence[Layer]) -> list[np.ndarray]:
    """The kernels and biases in the order of the layers.

    A layer's name decides where all layers are named like modules of the file; else the order of the
    modules, which must be numbered then: the order of names alone ("decoder", "encoder") says nothing.
    """
    modules = sorted({name.rpartition(".")[0] for name in arrays}, key=_in_order)
    names = [layer.name for layer in convolutions]
    if sorted(names) != sorted(modules):
        numbered = {re.sub(r"\d+", "#", module) for module in modules}
        if len(modules) != len(names) or len(numbered) > 1:
            raise ValueError(
                f"it has {_listed(arrays)}. The model's layers {names} are neither named like these "
                f"({modules}), nor as many as these and these numbered from first to last. Name the layers "
                "so, or read the file with gpuconv.weights.safetensors.read and call set_weights"
            )
        names = modules
    found = []
    for name, layer in zip(names, convolutions, strict=True):
        stem = f"{name}." if name else ""
        own = {key: array for key, array in arrays.items() if key.rpartition(".")[0] == name}
        expected = ["weight", "bias"][: len(layer.weights)]
        weight = own.get(f"{stem}weight", np.empty(0))
        if sorted(own) != sorted(stem + key for key in expected) or not 3 <= weight.ndim <= 5:
            raise ValueError(f"layer {layer.name!r} needs {expected} and is given {_listed(own)}")
        pair = [np.ascontiguousarray(to_kernel(weight)), *(own[stem + key] for key in expected[1:])]
        shapes = [tuple(value.shape) for value in layer.weights]
        if [array.shape for array in pair] != shapes:
            raise ValueError(
                f"layer {layer.name!r} has a kernel (and a bias) of {shapes} and is given {_listed(own)}, a "
                f"kernel of {pair[0].shape}"
            )
        found += pair
    return found


def _in_order(name: str) -> list[tuple[int, str]]:
    """A key that puts ``"net.2"`` before ``"net.10"``."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name)]


def _listed(arrays: Mapping[str, np.ndarray]) -> str:
    listed = [f"{name} {array.shape}" for name, array in list(arrays.items())[:20]]
    return ", ".join(listed) + (f" and {len(arrays) - 20} more" if len(arrays) > 20 else "") or "nothing"
