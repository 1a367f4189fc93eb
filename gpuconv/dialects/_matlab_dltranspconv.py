"""MATLAB's transposed convolution as a function, with its order of dimensions and its words for sizes."""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np

from gpuconv import ops
from gpuconv._typing import Array
from gpuconv.dialects._matlab_dlarray import as_array, check_dtype, dlarray, labelled, ordered
from gpuconv.geometry import integer, per_axis
from gpuconv.namespace import array_namespace, astype, device_of, dtype_name

__all__ = ["cropped", "dltranspconv"]

_OPS = {1: ops.conv1d_transpose, 2: ops.conv2d_transpose, 3: ops.conv3d_transpose}
_SINGLE = {"float64": "float32", "complex128": "complex64"}


def dltranspconv(
    X: Any,
    weights: Any,
    bias: Any,
    *,
    Stride: Any = 1,
    DilationFactor: Any = 1,
    Cropping: Any = 0,
    DataFormat: str | None = None,
    WeightsFormat: str | None = None,
) -> Any:
    """Transposed convolution of labelled data. Source of the definition: MATLAB ``dltranspconv``.

    It runs over the one to three S dimensions of `X`, and over T too where the format of the weights has a T.
    All other dimensions but C are samples that do not mix.

    Parameters
    ----------
    X : dlarray or array
        With a C dimension. Of any array-API library; float16, bfloat16, float32, float64, complex64 or
        complex128.
    weights : dlarray or array, filterSize x numFilters x numChannels
        One filterSize per dimension that is convolved over. For grouped convolution filterSize x
        numFiltersPerGroup x numChannelsPerGroup x numGroups. In a format S or T are the filter size, C the
        filters, the first U the channels and the second U the groups; lengths of 1 at the end may be missing.
    bias : number, vector, dlarray or None
        One for all filters, or one for each; any other dimension has length 1. None stands for 0.
    Stride, DilationFactor : int or sequence of int, default 1
        One for all dimensions that are convolved over, or one for each.
    Cropping : "same", int or sequence of int, default 0
        ``"same"`` makes ``L * Stride`` of L samples, with an odd one cropped on the right. A number crops all
        ends. A vector has one crop for both ends of each dimension, a matrix of two rows all first and all
        last ends; for one dimension ``[l, r]`` is such a matrix.
    DataFormat, WeightsFormat : str, optional
        Labels of an `X` and of weights that have none. Weights are taken to be in the order above, S first.

    Returns
    -------
    dlarray or array
        As `X`: with its format, or without one and in the order of DataFormat. A length L becomes
        ``(L - 1) Stride + (filterSize - 1) DilationFactor + 1`` less what is cropped.

    Raises
    ------
    ValueError
        For a value, a format or a shape that does not fit, naming what was received.
    TypeError
        For integers, for arrays of two libraries, for what is no array, no number or no string.

    Notes
    -----
    As everywhere in MATLAB, single with double makes single: the latter is rounded first. The roles of C and
    U in the weights are those that MATLAB's importer for PyTorch writes.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.dialects.matlab import dlarray, dltranspconv
    >>> X = dlarray(np.ones((28, 28, 3, 5)), "SSCB")
    >>> dltranspconv(X, np.ones((4, 4, 8, 3)), np.zeros(8), Stride=2, Cropping="same")
    56(S) x 56(S) x 8(C) x 5(B) dlarray
    >>> series = np.array([[1.0, 2.0, 3.0]])
    >>> dltranspconv(series, np.ones(2), 0, Stride=2, DataFormat="CT", WeightsFormat="T")
    array([[1., 1., 2., 2., 3., 3.]])
    """
    data, labels = labelled("X", X, "DataFormat", DataFormat)
    if "C" not in labels:
        raise ValueError(f"Expected X with a dimension of channels, C. Received X of format {labels!r}.")
    filters, convolved = _filters(weights, WeightsFormat, labels)
    kernel, groups = _kernel(filters)
    channels = data.shape[labels.index("C")]
    if channels != kernel.shape[-1]:
        raise ValueError(
            f"Expected X of {kernel.shape[-1]} channels, those of weights of size {tuple(filters.shape)}. "
            f"Received X of shape {tuple(data.shape)} and format {labels!r}."
        )
    offsets = _bias(bias, kernel.shape[-2] * groups, data)
    arrays = {"X": data, "weights": kernel, **({} if offsets is None else {"bias": offsets})}
    xp = array_namespace(**arrays)
    for name, array in arrays.items():
        check_dtype(name, array)
    data, kernel, *rest = _same_precision(list(arrays.values()))

    samples = "".join(label for label in labels if label != "C" and label not in convolved)
    layout = samples + convolved + "C"
    moved = ordered(data, labels, layout)
    leading, trailing = tuple(moved.shape)[: len(samples)], tuple(moved.shape)[len(samples) :]
    result = _OPS[len(convolved)](
        xp.reshape(moved, (math.prod(leading), *trailing)),
        kernel,
        *rest,
        strides=per_axis("Stride", Stride, len(convolved), 1),
        dilation_rate=per_axis("DilationFactor", DilationFactor, len(convolved), 1),
        padding=cropped(Cropping, len(convolved)),
        groups=groups,
        data_format="channels_last",
    )
    result = ordered(xp.reshape(result, (*leading, *result.shape[1:])), layout, labels)
    if not isinstance(X, dlarray):
        return result
    return dlarray(result, labels if X.dims() else "")


def cropped(Cropping: Any, ndim: int) -> str | tuple[tuple[int, int], ...]:
    """`Cropping` as our padding: ``"same"``, or a (left, right) pair for each of `ndim` dimensions."""
    if isinstance(Cropping, str):
        if Cropping.lower() != "same":
            raise ValueError(f"Expected Cropping to be 'same' or numbers. Received Cropping={Cropping!r}.")
        return "same"
    sizes = np.asarray(Cropping, dtype=object)
    if sizes.ndim == 0:
        firsts = lasts = [Cropping] * ndim
    elif sizes.shape == (2, ndim) or (ndim == 1 and sizes.size == 2):
        firsts, lasts = sizes.reshape(2, ndim).tolist()
    elif sizes.shape == (ndim,):
        firsts = lasts = sizes.tolist()
    else:
        most = "[l, r]" if ndim == 1 else f"{ndim} integers or 2 rows of {ndim}"
        raise ValueError(
            f"Expected Cropping to be 'same', an integer or {most}. Received Cropping={Cropping!r}."
        )
    ends = zip(firsts, lasts, strict=True)
    return tuple((_crop(first, Cropping), _crop(last, Cropping)) for first, last in ends)


def _crop(value: Any, whole: Any) -> int:
    return integer("Cropping", value, 0, whole)


def _filters(weights: Any, fmt: str | None, labels: str) -> tuple[Array, str]:
    """The weights as filterSize x filters x channels x groups, and the labels that they convolve over."""
    if not (isinstance(weights, dlarray) and weights.dims()) and fmt is None:
        array = weights.extractdata() if isinstance(weights, dlarray) else as_array("weights", weights)
        spatial = labels.count("S")
        if not spatial:
            raise ValueError(
                "Expected weights with a format, where X has no S to convolve over. Received X of format "
                f"{labels!r}. To convolve over time, pass WeightsFormat='TCU'."
            )
        fmt = "S" * spatial + ("CUU" if array.ndim == spatial + 3 else "CU")
    array, found = labelled("weights", weights, "WeightsFormat", fmt)
    convolved = "S" * found.count("S") + "T" * found.count("T")
    if "B" in found or found.count("U") > 2 or not 1 <= len(convolved) <= 3:
        raise ValueError(
            "Expected weights of one to three S or T, one C for the filters, one U for the channels and "
            f"another U for the groups. Received weights of format {found!r}."
        )
    if labels.count("S") != found.count("S") or labels.count("T") < found.count("T"):
        raise ValueError(
            "Expected the format of the weights to have every S of X, and a T only where X has one. "
            f"Received weights of format {found!r} for X of format {labels!r}."
        )
    return ordered(array, found, convolved + "CUU"), convolved


def _kernel(filters: Array) -> tuple[Array, int]:
    """The kernel as ops take it, (taps..., filters // groups, channels), and the number of groups."""
    *taps, width, depth, groups = filters.shape
    xp = array_namespace(weights=filters)
    last = filters.ndim - 1
    grouped = xp.permute_dims(filters, (*range(last - 1), last, last - 1))
    return xp.reshape(grouped, (*taps, width, groups * depth)), groups


def _bias(bias: Any, filters: int, data: Array) -> Array | None:
    """The bias as a vector, one for each filter."""
    if bias is None:
        return None
    xp = array_namespace(X=data)
    if isinstance(bias, numbers.Real) and not isinstance(bias, bool):
        return xp.full((filters,), float(bias), dtype=data.dtype, device=device_of(data))
    array = bias.extractdata() if isinstance(bias, dlarray) else as_array("bias", bias)
    array_namespace(X=data, bias=array)
    if array.ndim == 0 or set(array.shape) == {1}:
        ones = xp.ones((filters,), dtype=array.dtype, device=device_of(array))
        return ones * xp.reshape(array, (1,))
    if [length for length in array.shape if length != 1] != [filters]:
        raise ValueError(
            f"Expected bias to be one number, or one for each of {filters} filters along one dimension. "
            f"Received bias of shape {tuple(array.shape)}."
        )
    return xp.reshape(array, (filters,))


def _same_precision(arrays: list[Array]) -> list[Array]:
    """The arrays, in single precision where one of them is: double with single makes single in MATLAB."""
    names = [dtype_name(array.dtype) for array in arrays]
    if not set(names) & set(_SINGLE.values()):
        return arrays
    pairs = zip(arrays, names, strict=True)
    return [astype(array, _SINGLE[name]) if name in _SINGLE else array for array, name in pairs]
