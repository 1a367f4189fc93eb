"""Overlap-add GEMM by rows: one product makes every tap of every input row, taps of a row beside each other.

A row of products, (taps * width), is added to the rows of the result that its taps reach, a stride at a time:
each sum is of long stretches of memory. It takes few calls of NumPy, pays where samples are short or filters
few, and is the same along several axes.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

import numpy as np

from gpuconv.backends.cpu import threads
from gpuconv.backends.cpu.call import Algorithm, Arrays, Call, Cost, blocks, padded
from gpuconv.backends.cpu.overlap_add import as_transposed

__all__ = ["ROW_OVERLAP_ADD"]

#: NumPy adds stretches shorter than this, in elements, ...
_SHORTEST = 16
#: ... so many times as slowly.
_SHORT = 4
#: Channels that are first are read and written so many times as slowly.
_TURNING = 3

_Index: TypeAlias = tuple[slice, ...]
_ALL = slice(None)


class _Rows(NamedTuple):
    """Rows of the result along an axis, of `stride` samples each, counted from the first before the crop.

    Sums are indexed by row and phase, products by input sample and tap.
    """

    read: slice
    """Input samples that they are made of."""
    rows: int
    stride: int
    taps: int
    turns: tuple[tuple[_Index, _Index], ...]
    """For each stride of taps, the sums and the products that are added to them."""
    zeros: tuple[_Index, ...]
    """The sums that the first turn leaves out."""
    place: slice
    """Output samples."""
    kept: slice
    """Those of the rows, beside what is cropped."""


class _Block(NamedTuple):
    """The same along all axes, samples before them."""

    read: _Index
    products: tuple[int, ...]
    """Shape: samples, input samples of each axis, taps of each axis."""
    sums: tuple[int, ...]
    """Shape: samples, rows and phases of each axis in turn."""
    turns: tuple[tuple[_Index, _Index], ...]
    zeros: tuple[_Index, ...]
    place: _Index
    made: tuple[int, ...]
    """Shape of the sums: samples, rows of each axis times phases."""
    kept: _Index


def _rows(length: int, made: int, axis: tuple[int, int, int], start: int, stop: int) -> _Rows:
    """Rows `start` to `stop` of an axis of `length` input and `made` output samples."""
    stride, crop, taps = axis
    overlap, number = -(-taps // stride) - 1, stop - start
    begin = max(0, start - overlap)
    read = max(0, min(length, stop) - begin)
    turns = []
    for turn in range(overlap + 1):
        # Input sample i is in row i + turn of the result.
        lag = begin + turn - start
        first, last = (min(max(row, 0), number) for row in (lag, lag + read))
        some = slice(turn * stride, min((turn + 1) * stride, taps))
        source = slice(first - lag, last - lag) if first < last else slice(0, 0)
        turns.append(((slice(first, last), slice(some.stop - some.start)), (source, some)))
    reached = turns[0][0][0]
    left_out = (slice(0, reached.start), _ALL), (slice(reached.stop, number), _ALL)
    zeros = [pair for pair in left_out if pair[0].start < pair[0].stop]
    if taps < stride:
        zeros.append((_ALL, slice(taps, stride)))
    place = slice(max(0, start * stride - crop), min(made, stop * stride - crop))
    skipped = place.start - (start * stride - crop)
    kept = slice(skipped, skipped + place.stop - place.start)
    return _Rows(slice(begin, begin + read), number, stride, taps, tuple(turns), tuple(zeros), place, kept)


def _block(samples: slice, axes: list[_Rows]) -> _Block:
    def joined(pairs: Iterable[_Index]) -> _Index:
        return (_ALL, *itertools.chain.from_iterable(pairs))

    n = samples.stop - samples.start
    reads = (axis.read.stop - axis.read.start for axis in axes)
    turns = tuple(
        (joined(sums for sums, _ in turn), joined(products for _, products in turn))
        for turn in itertools.product(*(axis.turns for axis in axes))
    )
    zeros = tuple(
        joined([*[(_ALL, _ALL)] * number, pair]) for number, axis in enumerate(axes) for pair in axis.zeros
    )
    return _Block(
        (samples, *(axis.read for axis in axes)),
        (n, *reads, *(axis.taps for axis in axes)),
        (n, *itertools.chain.from_iterable((axis.rows, axis.stride) for axis in axes)),
        turns,
        zeros,
        (samples, *(axis.place for axis in axes)),
        (n, *(axis.rows * axis.stride for axis in axes)),
        (_ALL, *(axis.kept for axis in axes)),
    )


@functools.lru_cache(maxsize=256)
def _blocks(call: Call, parts: int) -> tuple[_Block, ...]:
    axes = [as_transposed(axis, call.transposed) for axis in call.geometry.axes]
    bounds = [
        (crop // stride, (crop + made - 1) // stride + 1)
        for (stride, crop, _), made in zip(axes, call.makes, strict=True)
    ]
    inner = math.prod(stop - start for start, stop in bounds[1:])
    per_row = inner * call.width * (math.prod(axis[2] for axis in axes) + math.prod(axis[0] for axis in axes))
    (first, last), (stride, _, taps) = bounds[0], axes[0]
    sizes = list(zip(call.reads, call.makes, axes, strict=True))
    others = [_rows(*size, *bound) for size, bound in zip(sizes[1:], bounds[1:], strict=True)]
    halo = -(-taps // stride) - 1
    return tuple(
        _block(samples, [_rows(*sizes[0], first + rows.start, first + rows.stop), *others])
        for samples, rows in blocks(call.samples, last - first, per_row, parts, inner=inner, halo=halo)
    )


def _pack(call: Call, kernel: np.ndarray) -> np.ndarray:
    """(depth, taps * width): a transposed convolution's kernel as it is, which BLAS reads transposed."""
    weights = call.oriented(kernel)
    if not call.transposed:
        weights = np.flip(weights, tuple(range(len(call.geometry.axes))))
    return weights.reshape(-1, call.depth).T


def _run(call: Call, weights: np.ndarray, arrays: Arrays, parts: int) -> None:
    if not call.channels_last:
        arrays = arrays._replace(x=np.moveaxis(arrays.x, 1, -1), out=np.moveaxis(arrays.out, 1, -1))
    tasks = [functools.partial(_sum, call.width, weights, arrays, block) for block in _blocks(call, parts)]
    threads.run(tasks, apart=parts > 1)


def _sum(width: int, weights: np.ndarray, arrays: Arrays, block: _Block) -> None:
    rows = arrays.x[block.read].reshape(-1, len(weights)).astype(weights.dtype, copy=False)
    products = np.matmul(rows, weights).reshape(*block.products, width)
    ndim = len(block.made) - 1
    if ndim > 1:
        order = itertools.chain.from_iterable((axis, axis + ndim) for axis in range(1, ndim + 1))
        products = products.transpose(0, *order, -1)
    sums = np.empty((*block.sums, width), weights.dtype)
    for index in block.zeros:
        sums[index] = 0
    (target, source), *others = block.turns
    sums[target] = products[source]
    for target, source in others:
        whole = sums[target]
        whole += products[source]
    arrays.deliver(sums.reshape(*block.made, width)[block.kept], arrays.out[block.place], arrays.bias)


def _cost(call: Call) -> Cost:
    axes = [as_transposed(axis, call.transposed) for axis in call.geometry.axes]
    rows, columns = call.samples * math.prod(call.reads), call.width * math.prod(axis[2] for axis in axes)
    made = call.samples * math.prod(call.makes) * call.width
    added = rows * columns * (_SHORT if 1 < axes[-1][0] * call.width < _SHORTEST else 1)
    if not call.channels_last:
        added += _TURNING * (rows * call.depth + made)
    packed = 0 if call.transposed else call.weights
    return Cost(rows * call.depth * padded(columns), rows * padded(columns), added + made * 2, 8, packed)


def _refuses(call: Call) -> str:
    if call.geometry.groups > 1:
        return "for one group"
    if any(axis.dilation > 1 for axis in call.geometry.axes):
        return "without dilation"
    if not call.transposed and any(axis.stride > 1 for axis in call.geometry.axes):
        return "for a stride of 1, where it is not transposed"
    if any(as_transposed(axis, call.transposed)[1] < 0 for axis in call.geometry.axes):
        return "for paddings that are shorter than the kernel"
    return ""


ROW_OVERLAP_ADD = Algorithm(
    "row overlap-add GEMM",
    "one product makes all taps of all rows, sums of whole rows the result",
    _refuses,
    _cost,
    _pack,
    _run,
)
