"""Which backend runs an array: the array decides."""

from __future__ import annotations

from types import ModuleType

from gpuconv._typing import Array
from gpuconv.namespace import is_cupy_array, is_dask_array, is_numpy_array

__all__ = ["backend_of"]


def backend_of(array: Array) -> ModuleType:
    """The backend module for `array`, imported on first use."""
    if is_numpy_array(array):
        from gpuconv.backends import numpy_

        return numpy_
    if is_cupy_array(array):
        from gpuconv.backends import cupy_

        return cupy_
    if is_dask_array(array):
        from gpuconv.backends import dask_

        return dask_
    from gpuconv.backends import generic

    return generic
