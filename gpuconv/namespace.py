"""Which library an array is from. The only importer of array_api_compat.

Nothing here imports an array library: asking "is it CuPy?" looks at the array, so a NumPy user never
pays for, or needs, anything else.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from array_api_compat import array_namespace as _compat_namespace
from array_api_compat import device as device_of
from array_api_compat import (
    is_array_api_obj,
    is_cupy_array,
    is_dask_array,
    is_jax_array,
    is_torch_array,
    is_writeable_array,
)
from array_api_compat import is_numpy_array as _is_numpy_array

from gpuconv._typing import Array, Namespace

__all__ = [
    "DTYPES",
    "HALF_DTYPES",
    "array_namespace",
    "astype",
    "check_devices",
    "check_writeable",
    "detached",
    "device_of",
    "dtype_name",
    "dtype_named",
    "indices",
    "is_cupy_array",
    "is_dask_array",
    "is_numpy_array",
    "is_traced",
    "library",
    "like",
    "may_overlap",
    "own_namespace",
    "to_numpy",
    "zero_padded",
]

#: What is computed in; half types are summed in float32.
DTYPES = ("float16", "bfloat16", "float32", "float64", "complex64", "complex128")
HALF_DTYPES = DTYPES[:2]


def is_numpy_array(array: object) -> bool:
    """Whether `array` is NumPy's; the usual case without the questions."""
    return type(array) is np.ndarray or _is_numpy_array(array)


_TESTS: dict[str, Callable[[object], bool]] = {
    "numpy": is_numpy_array,
    "cupy": is_cupy_array,
    "torch": is_torch_array,
    "jax": is_jax_array,
    "dask": is_dask_array,
}
#: Where a library has its functions, if not at its top.
_MODULES = {"jax": "jax.numpy", "dask": "dask.array"}


def library(array: Array) -> str:
    """Name of the library that `array` belongs to: ``"numpy"``, ``"cupy"``, ``"torch"``, ...

    Raises
    ------
    TypeError
        If `array` is not an array, or is a kind of NumPy array whose extra meaning (a mask, matrix
        products) would be lost.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.namespace import library
    >>> library(np.zeros(3))
    'numpy'
    """
    if type(array) is np.ndarray:  # the usual case, without the questions
        return "numpy"
    if isinstance(array, np.ma.MaskedArray | np.matrix):
        kind = type(array).__name__
        raise TypeError(
            f"Expected a plain array. Received a numpy {kind}. "
            "Fill or convert it first, for example with numpy.asarray."
        )
    if is_torch_array(array) and str(array.layout) != "torch.strided":
        raise TypeError(f"Expected a dense array. Received a torch tensor of {array.layout}. Use to_dense().")
    # NumPy's scalars and the classes of arrays answer like arrays.
    scalar_or_class = isinstance(array, np.generic | type)
    for name, is_member in _TESTS.items():
        if not scalar_or_class and is_member(array):
            return name
    if scalar_or_class or not is_array_api_obj(array):
        on_gpu = hasattr(array, "__cuda_array_interface__")
        way = "cupy.asarray, which shares its memory" if on_gpu else "numpy.asarray"
        raise TypeError(
            f"Expected an array. Received {type(array).__module__}.{type(array).__qualname__}. "
            f"Convert it first, for example with {way}."
        )
    return str(array.__array_namespace__().__name__).partition(".")[0]


def array_namespace(**arrays: Array) -> Namespace:
    """The array-API namespace that all `arrays` share.

    The keywords are the names that an error message gives the arrays.

    Raises
    ------
    TypeError
        If one is not an array, or if they come from two libraries.
    """
    numpy = _owner(arrays) == "numpy"
    return _numpy_namespace() if numpy else _compat_namespace(*arrays.values())


def own_namespace(**arrays: Array) -> Namespace:
    """As `array_namespace`, but NumPy itself for its arrays, which is loaded already.

    It is enough to ask for dtypes; the standard's names are NumPy's from 2.1 on.
    """
    return np if _owner(arrays) == "numpy" else _compat_namespace(*arrays.values())


def _owner(arrays: dict[str, Array]) -> str | None:
    """The library that all `arrays` are from."""
    owner: str | None = None
    first = ""
    for name, array in arrays.items():
        try:
            found = library(array)
        except TypeError as error:
            raise TypeError(f"{name}: {error}") from None
        if owner is None:
            owner, first = found, name
        elif found != owner:
            # NumPy's arrays are what every library takes.
            converted, target = (first, found) if owner == "numpy" else (name, owner)
            raise TypeError(
                f"Expected arrays of one library. Received {first} of {owner} and {name} of {found}. "
                f"Convert one of them, for example {converted} with {_MODULES.get(target, target)}.asarray: "
                "nothing is copied between libraries or devices unasked."
            )
    return owner


@functools.cache
def _numpy_namespace() -> Namespace:
    return _compat_namespace(np.empty(0))


@functools.cache  # NumPy puts the name together anew each time
def _numpy_name(dtype: np.dtype) -> str:
    return dtype.name


def dtype_name(dtype: Any) -> str:
    """`dtype` as a word that means the same in every library: ``"float32"``."""
    if isinstance(dtype, np.dtype):
        return _numpy_name(dtype)
    if isinstance(dtype, type) and issubclass(dtype, np.generic):
        return dtype.__name__
    return str(getattr(dtype, "name", None) or str(dtype).rpartition(".")[2])


def dtype_named(xp: Namespace, name: str) -> Any:
    """The dtype of `xp` called `name`.

    Raises
    ------
    NotImplementedError
        If that library has none.
    """
    if hasattr(xp, name):
        return getattr(xp, name)
    owner = xp.__name__.removeprefix("array_api_compat.").partition(".")[0]
    if owner in ("numpy", "cupy", "dask"):
        # These know NumPy's types by another name than an attribute; bfloat16 comes from ml_dtypes.
        return np.dtype(importlib.import_module("ml_dtypes").bfloat16 if name == "bfloat16" else name)
    raise NotImplementedError(
        f"Expected a dtype that {owner} has. Received {name}. Use float32, or another library's arrays."
    )


def check_devices(given: dict[str, Array]) -> None:
    """Check that all are on one device."""
    if is_numpy_array(next(iter(given.values()))):
        return
    devices = {name: device_of(array) for name, array in given.items()}
    # An array that is being traced is on no device yet.
    if len({device for device in devices.values() if device is not None}) > 1:
        received = ", ".join(f"{name} on {device}" for name, device in devices.items())
        raise ValueError(
            f"Expected arrays on one device. Received {received}. "
            "Move them: nothing is copied between devices unasked."
        )


def check_writeable(name: str, array: Array) -> None:
    """Refuse an array that cannot be written in place.

    Raises
    ------
    NotImplementedError
        If the arrays of its library never can: that is no mistake in the value.
    ValueError
        If this one cannot.
    """
    owner = library(array)
    if owner in ("jax", "dask"):
        raise NotImplementedError(_unwriteable(name, f"{name} of {owner}, whose arrays never are"))
    if not is_writeable_array(array):
        raise ValueError(_unwriteable(name, "a read-only array"))
    if is_torch_array(array):
        if array.requires_grad and array.is_leaf:
            raise ValueError(_unwriteable(name, "a leaf tensor that requires gradients"))
        if any(step == 0 and length > 1 for step, length in zip(array.stride(), array.shape, strict=True)):
            raise ValueError(_unwriteable(name, "a tensor whose elements share memory"))


def may_overlap(first: Array, second: Array) -> bool:
    """Whether writing to one array may change the other while it is read.

    Only backends for NumPy and CuPy write in place; what others make is copied when it is done.
    """
    if is_numpy_array(first):
        return np.may_share_memory(first, second)
    return is_cupy_array(first) and array_namespace(first=first).may_share_memory(first, second)


def _unwriteable(name: str, received: str) -> str:
    return f"Expected {name}= to be writeable. Received {received}. Leave it away and use the result."


def is_traced(array: Array) -> bool:
    """Whether `array` stands for a value that JAX is tracing, and must not be kept."""
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(array, jax.core.Tracer)


def astype(array: Array, dtype: str) -> Array:
    """A copy of `array` as the dtype called `dtype`.

    Raises
    ------
    TypeError
        If the library makes another dtype of it, as JAX does of float64 unless told otherwise.
    """
    if type(array) is np.ndarray:  # the usual case, without the questions
        return array.astype(dtype_named(np, dtype))
    xp = array_namespace(array=array)
    result = xp.astype(array, dtype_named(xp, dtype), copy=True)
    if dtype_name(result.dtype) != dtype:
        raise TypeError(
            f"Expected {library(array)} to hold {dtype}. Received {dtype_name(result.dtype)} from it. "
            "For JAX, call jax.config.update('jax_enable_x64', True) first."
        )
    return result


def like(values: Array, reference: Array) -> Array:
    """`values` as an array of the library and on the device of `reference`, dtype kept."""
    if library(values) == library(reference) and (
        is_traced(reference) or device_of(values) == device_of(reference)
    ):
        return values
    if is_dask_array(reference) and not is_numpy_array(reference._meta):  # where its blocks are
        return array_namespace(reference=reference).from_array(like(values, reference._meta), asarray=False)
    host, dtype = to_numpy(values), dtype_name(values.dtype)
    if dtype == "bfloat16":
        host = host.astype(np.float32)  # which every library reads, and which holds every bfloat16
    xp = array_namespace(reference=reference)
    moved = xp.asarray(host, device=device_of(reference))
    return moved if dtype_name(moved.dtype) == dtype else astype(moved, dtype)


def zero_padded(array: Array, axis: int, before: int, after: int) -> Array:
    """`array` with so many zeros before and after it along `axis`."""
    xp = array_namespace(array=array)
    parts = [array]
    if before:
        shape = (*array.shape[:axis], before, *array.shape[axis + 1 :])
        parts.insert(0, xp.zeros(shape, dtype=array.dtype, device=device_of(array)))
    if after:
        shape = (*array.shape[:axis], after, *array.shape[axis + 1 :])
        parts.append(xp.zeros(shape, dtype=array.dtype, device=device_of(array)))
    return xp.concat(parts, axis=axis) if len(parts) > 1 else array


def indices(values: Sequence[int], reference: Array) -> Array:
    """An index for `take` from `reference`."""
    if is_dask_array(reference):
        return np.asarray(values)  # an index that Dask can look at leaves the chunks known
    return array_namespace(reference=reference).asarray(values, device=device_of(reference))


def to_numpy(array: Array) -> np.ndarray:
    """`array` as a NumPy array on the host, copied only when it lives elsewhere."""
    if is_numpy_array(array):
        return array
    if is_cupy_array(array):
        return array.get()
    if is_torch_array(array):
        host = array.detach().cpu().resolve_conj()
        if dtype_name(array.dtype) == "bfloat16":  # which torch does not hand to NumPy
            return host.float().numpy().astype(dtype_named(np, "bfloat16"))
        return host.numpy()
    if is_dask_array(array):
        return array.compute()
    return np.asarray(array)


def detached(array: Array) -> Array:
    """`array` without what torch's autograd remembers of it."""
    return array.detach() if is_torch_array(array) else array
