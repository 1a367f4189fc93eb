"""The gradient with respect to the kernel: a block for each element, or tiles of a matrix product (1 axis).

Both sum in an order that depends on the shapes alone, and so does the choice between them: bits repeat on
every device and in every layout.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from gpuconv._typing import Array
from gpuconv.backends.cuda.call import MOST_BLOCKS_Z, Call, Work, is_wide, number_of, options_of
from gpuconv.backends.cuda.device import Device, Launch, source_of
from gpuconv.backends.cuda.direct import problem_of

__all__ = ["Gradient", "GradientArrays", "choose_gradient"]

_THREADS = 256
_MOST_BLOCKS = 2**20
_TILE, _STEP = 64, 16
# The terms are cut so that devices are full with about so many blocks; but not in slices of fewer terms than
# these, since the sums of each are written, read and added once more.
_BLOCKS, _LEAST_TERMS = 256, 512
# How many multiply-adds of a tile take as long as one of the direct kernel, which reads both factors from
# memory: counted, not measured.
_DIRECT_COSTS = 4


class GradientArrays(NamedTuple):
    """Of one element type, on the device; but the workspace, which is bytes."""

    x: Array
    dy: Array
    result: Array
    workspace: Array | None


class Gradient(NamedTuple):
    """A way to compute the gradient of a call; the members are those of `Algorithm`."""

    name: str
    refuses: Callable[[Call], str]
    work: Callable[[Call], Work]
    workspace: Callable[[Call], int]
    launch: Callable[[Device, Call, GradientArrays], None]


class _Product(NamedTuple):
    """The matrix product of one group: its sizes, and how its terms are cut."""

    rows: int
    columns: int
    terms: int
    slices: int
    slice_terms: int


def _product_of(call: Call) -> _Product:
    geometry = call.geometry
    rows = math.prod(axis.kernel for axis in geometry.axes) * (geometry.filters // geometry.groups)
    columns = geometry.in_channels // geometry.groups
    terms = call.samples * math.prod(geometry.in_lengths)
    tiles = -(-rows // _TILE) * -(-columns // _TILE) * geometry.groups
    wanted = max(1, min(-(-_BLOCKS // tiles), terms // _LEAST_TERMS))
    slice_terms = max(1, -(-terms // (wanted * _STEP))) * _STEP
    return _Product(rows, columns, terms, max(1, -(-terms // slice_terms)), slice_terms)


def _function(device: Device, call: Call, entry: str, wide: bool) -> Launch:
    options = options_of(call.dtype, 0, call.channels_last, call.transposed, wide)
    return device.function(source_of("kernel_gradient.cu"), entry, options)


def _sides(call: Call, arrays: GradientArrays) -> tuple[Array, Array]:
    """The x and the y of the transposed convolution."""
    return (arrays.x, arrays.dy) if call.transposed else (arrays.dy, arrays.x)


# --- a block for each element --------------------------------------------------------------------


def _direct_work(call: Call) -> Work:
    elements, terms = math.prod(call.kernel_shape), _product_of(call).terms
    return Work(elements * -(-terms // _THREADS) * _THREADS, call.bytes_moved, elements, 1)


def _direct_launch(device: Device, call: Call, arrays: GradientArrays) -> None:
    x, y = _sides(call, arrays)
    count = math.prod(call.kernel_shape)
    launch = _function(device, call, "direct_kernel_gradient", is_wide(call, x, y, arrays.result))
    problem = problem_of(call, x, y, arrays.result)
    launch((min(count, _MOST_BLOCKS),), (_THREADS,), (x, y, arrays.result, problem, np.int64(count)))


# --- tiles ---------------------------------------------------------------------------------------


def _tile_refuses(call: Call) -> str:
    if len(call.geometry.axes) > 1:
        return "for 1 axis only"
    return "" if _product_of(call).terms else "there is nothing to sum"


def _tile_grid(call: Call, product: _Product) -> tuple[int, int, int]:
    groups = call.geometry.groups
    return -(-product.rows // _TILE), -(-product.columns // _TILE), groups * product.slices


def _tile_work(call: Call) -> Work:
    product = _product_of(call)
    blocks = math.prod(_tile_grid(call, product))
    moved = call.bytes_moved + 2 * _tile_workspace(call)
    return Work(blocks * _TILE**2 * product.slice_terms, moved, blocks, 1 + (product.slices > 1))


def _tile_workspace(call: Call) -> int:
    slices = _product_of(call).slices
    return slices * math.prod(call.kernel_shape) * number_of(call.dtype).itemsize if slices > 1 else 0


def _tile_launch(device: Device, call: Call, arrays: GradientArrays) -> None:
    x, y = _sides(call, arrays)
    product, problem = _product_of(call), problem_of(call, x, y, arrays.result)
    wide = is_wide(call, x, y, arrays.result)
    slices, partials = np.int64(product.slices), arrays.workspace if product.slices > 1 else None
    *tiles, planes = _tile_grid(call, product)
    multiply = _function(device, call, "tile_kernel_gradient", wide)
    sizes = problem, slices, np.int64(product.slice_terms)
    multiply((*tiles, min(planes, MOST_BLOCKS_Z)), (_THREADS,), (x, y, arrays.result, partials, *sizes))
    if product.slices > 1:
        count = math.prod(call.kernel_shape)
        add = _function(device, call, "add_kernel_gradient", wide)
        blocks = min(-(-count // _THREADS), _MOST_BLOCKS)
        add((blocks,), (_THREADS,), (partials, arrays.result, problem, slices, np.int64(count)))


# --- the choice ----------------------------------------------------------------------------------

_DIRECT = Gradient("direct", lambda _: "", _direct_work, lambda _: 0, _direct_launch)
_TILES = Gradient("tile", _tile_refuses, _tile_work, _tile_workspace, _tile_launch)


@functools.lru_cache(maxsize=1024)
def choose_gradient(call: Call, name: str | None = None) -> Gradient:
    """The way that is called `name`; without one, tiles where rows, columns and terms fill enough of them.

    Raises
    ------
    ValueError
        If there is no such way, or if it cannot run the call.
    """
    if name is None:
        worth = _DIRECT_COSTS * _direct_work(call).multiply_adds
        return _DIRECT if _tile_refuses(call) or _tile_work(call).multiply_adds > worth else _TILES
    for gradient in (_DIRECT, _TILES):
        if gradient.name == name:
            if refusal := gradient.refuses(call):
                raise ValueError(
                    f"Expected an algorithm that can run this. Received algorithm={name!r}: {refusal}."
                )
            return gradient
    raise ValueError(f"Expected algorithm to be None, 'direct' or 'tile'. Received algorithm={name!r}.")
