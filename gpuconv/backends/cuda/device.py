"""What launch code needs of a device, and CuPy's current device as one.

The same launch code runs on a GPU and, in the tests, on an emulator.
"""

from __future__ import annotations

import functools
import importlib
import re
from collections.abc import Callable
from importlib import resources
from typing import Any, Protocol, TypeAlias

import numpy as np

from gpuconv._typing import Array

__all__ = ["Device", "Launch", "current_device", "source_of"]

#: ``launch(grid, block, args)``; a struct among `args` is a ``np.void``.
Launch: TypeAlias = Callable[[tuple[int, ...], tuple[int, ...], tuple[Any, ...]], None]


class Device(Protocol):
    """Memory, kernels, and the limits that a planner asks for."""

    @property
    def name(self) -> str:
        """What its maker calls it."""

    @property
    def capability(self) -> tuple[int, int]:
        """The compute capability, such as (9, 0)."""

    @property
    def multiprocessors(self) -> int:
        """How many blocks run side by side at least."""

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Memory for an array in C order, its values undefined."""

    def function(self, source: str, entry: str, options: tuple[str, ...]) -> Launch:
        """The kernel `entry` of the CUDA text `source`, compiled."""


class _CupyDevice:
    def __init__(self) -> None:
        self._cupy = importlib.import_module("cupy")
        self._device = self._cupy.cuda.Device()

    @property
    def name(self) -> str:
        return _cupy_properties(self._device.id)[0]

    @property
    def capability(self) -> tuple[int, int]:
        digits = self._device.compute_capability  # the last one is the minor number
        return int(digits[:-1]), int(digits[-1])

    @property
    def multiprocessors(self) -> int:
        return _cupy_properties(self._device.id)[1]

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        return self._cupy.empty(shape, dtype)

    def function(self, source: str, entry: str, options: tuple[str, ...]) -> Launch:
        return _cupy_function(source, entry, options, self._device.id)


def current_device() -> Device:
    """The current device of CuPy."""
    return _CupyDevice()


@functools.cache
def _cupy_properties(device: int) -> tuple[str, int]:
    properties = importlib.import_module("cupy").cuda.runtime.getDeviceProperties(device)
    return properties["name"].decode(), properties["multiProcessorCount"]


@functools.lru_cache(maxsize=512)
def _cupy_module(source: str, options: tuple[str, ...], device: int) -> Any:
    del device  # part of the key: a module belongs to the device that it was loaded on
    return importlib.import_module("cupy").RawModule(code=source, options=options)


@functools.lru_cache(maxsize=1024)
def _cupy_function(source: str, entry: str, options: tuple[str, ...], device: int) -> Launch:
    kernel = _cupy_module(source, options, device).get_function(entry)

    def launch(grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...]) -> None:
        # CuPy passes a struct by value when it is given as a NumPy array of one.
        kernel(grid, block, tuple(np.asarray(a).reshape(1) if isinstance(a, np.void) else a for a in args))

    return launch


@functools.cache
def source_of(name: str) -> str:
    """The CUDA text of `name`, with what it includes of ours."""
    text = resources.files("gpuconv.backends.cuda").joinpath(name).read_text(encoding="utf-8")
    return re.sub(r'#include "(\w+\.cuh)"', lambda found: source_of(found[1]), text)
