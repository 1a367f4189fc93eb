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
from gpuconv.backends.cpu.call import (
    Algorithm,
    Arrays,
    Call,
    Cost,
    blocks,
    halo_share,
    padded,
)
from gpuconv.backends.cpu.overlap_add import as_transposed, refuses

__all__ = ["ROW_OVERLAP_ADD"]

#: An axis more to go along costs NumPy as much as so many elements, for each stretch of memory.
_STRETCH = 32
#: Elements that lie apart cost so many times as much.
_APART = 5
#: Channels that are first are read and written so many times as slowly.
_TURNING = 3
#: Elements of the products and sums of a row and its halo: 4 megabytes of float32.
_MOST = 1 << 20

_Index: TypeAlias = tuple[slice, ...]
_ALL = slice(None)


class _Axis(NamedTuple):
    """An axis, as that of a transposed convolution."""

    length: int
    """Input samples."""
    makes: int
    """Output samples."""
    stride: int
    crop: int
    taps: int

    @property
    def overlap(self) -> int:
        """How many rows before its own a row of the result is made of."""
        return -(-self.taps // self.stride) - 1

    @property
    def rows(self) -> tuple[int, int]:
        """The first row of the result that no crop takes, and the end of the last: `stride` samples each."""
        return self.crop // self.stride, (self.crop + self.makes - 1) // self.stride + 1


class _Rows(NamedTuple):
    """Some rows of the result. Sums are indexed by row and phase, products by input sample and tap."""

    read: slice
    """Input samples that they are made of."""
    products: tuple[int, int]
    """Shape."""
    sums: tuple[int, int]
    turns: tuple[tuple[_Index, _Index], ...]
    """For each stride of taps, the sums and the products that are added to them."""
    zeros: tuple[_Index, ...]
    """The sums that the first turn leaves out."""
    place: slice
    """Output samples."""
    kept: slice
    """Those of the rows, beside what is cropped."""


class _Block(NamedTuple):
    """The same along all axes, for some samples, which the shapes leave out."""

    read: _Index
    products: tuple[int, ...]
    """Shape: input samples of each axis, taps of each axis."""
    sums: tuple[int, ...]
    """Shape: rows and phases of each axis in turn."""
    turns: tuple[tuple[_Index, _Index], ...]
    zeros: tuple[_Index, ...]
    place: _Index
    made: tuple[int, ...]
    """Shape of the sums: rows of each axis times phases."""
    kept: _Index


def _axes(call: Call) -> list[_Axis]:
    pairs = zip(call.geometry.axes, call.reads, call.makes, strict=True)
    return [_Axis(length, makes, *as_transposed(axis, call.transposed)) for axis, length, makes in pairs]


def _rows(axis: _Axis, start: int, stop: int) -> _Rows:
    """Rows `start` to `stop`, counted from the first before the crop."""
    stride, number = axis.stride, stop - start
    begin = max(0, start - axis.overlap)
    read = max(0, min(axis.length, stop) - begin)
    turns: list[tuple[_Index, _Index]] = []
    for turn in range(axis.overlap + 1):
        # Input sample i is in row i + turn of the result.
        lag = begin + turn - start
        first, last = (min(max(row, 0), number) for row in (lag, lag + read))
        some = slice(turn * stride, min((turn + 1) * stride, axis.taps))
        if first < last or not turn:
            source = slice(first - lag, last - lag) if first < last else slice(0)
            turns.append(((slice(first, last), slice(some.stop - some.start)), (source, some)))
    reached = turns[0][0][0]
    left_out = (slice(0, reached.start), _ALL), (slice(reached.stop, number), _ALL)
    zeros: list[_Index] = [pair for pair in left_out if pair[0].start < pair[0].stop]
    if axis.taps < stride:
        zeros.append((_ALL, slice(axis.taps, stride)))
    place = slice(max(0, start * stride - axis.crop), min(axis.makes, stop * stride - axis.crop))
    skipped = place.start - (start * stride - axis.crop)
    return _Rows(
        slice(begin, begin + read),
        (read, axis.taps),
        (number, stride),
        tuple(turns),
        tuple(zeros),
        place,
        slice(skipped, skipped + place.stop - place.start),
    )


def _block(axes: tuple[_Rows, ...]) -> _Block:
    def joined(pairs: Iterable[_Index]) -> _Index:
        return (_ALL, *itertools.chain.from_iterable(pairs))

    read, products, sums, turns, zeros, place, kept = zip(*axes, strict=True)
    return _Block(
        read,
        (*(shape[0] for shape in products), *(shape[1] for shape in products)),
        (*itertools.chain.from_iterable(sums),),
        tuple(
            (joined(target for target, _ in turn), joined(source for _, source in turn))
            for turn in itertools.product(*turns)
        ),
        tuple(
            joined([*[(_ALL, _ALL)] * number, pair]) for number, pairs in enumerate(zeros) for pair in pairs
        ),
        place,
        tuple(rows * phases for rows, phases in sums),
        (_ALL, *kept),
    )


def _size(call: Call) -> tuple[int, int]:
    """Elements of products and sums for a row of the first axis, and rows of the others."""
    axes = _axes(call)
    inner = math.prod(stop - start for start, stop in (axis.rows for axis in axes[1:]))
    taps, strides = math.prod(axis.taps for axis in axes), math.prod(axis.stride for axis in axes)
    per_row = max(1, inner * call.width * (taps + strides))
    return per_row, inner


@functools.lru_cache(maxsize=64)
def _blocks(call: Call, parts: int) -> tuple[tuple[slice, _Block], ...]:
    """Samples, and what is to be done for them: the same for others and their same rows."""
    axis, *axes = _axes(call)
    others = [_rows(other, *other.rows) for other in axes]
    first, last = axis.rows
    per_row, inner = _size(call)

    @functools.cache
    def block(start: int, stop: int) -> _Block:
        return _block((_rows(axis, first + start, first + stop), *others))

    cut = blocks(call.samples, last - first, per_row, parts, inner=inner, halo=axis.overlap)
    return tuple((samples, block(rows.start, rows.stop)) for samples, rows in cut)


def _pack(call: Call, kernel: np.ndarray) -> np.ndarray:
    """(depth, taps * width): a transposed convolution's kernel as it is, which BLAS reads transposed."""
    weights = call.oriented(kernel)
    if not call.transposed:
        weights = np.flip(weights, tuple(range(len(call.geometry.axes))))
    return weights.reshape(-1, call.depth).T


def _run(call: Call, weights: np.ndarray, arrays: Arrays, parts: int) -> None:
    if not call.channels_last:
        arrays = arrays._replace(x=np.moveaxis(arrays.x, 1, -1), out=np.moveaxis(arrays.out, 1, -1))
    tasks = [functools.partial(_sum, call.width, weights, arrays, *each) for each in _blocks(call, parts)]
    threads.run(tasks, apart=parts > 1)


def _sum(width: int, weights: np.ndarray, arrays: Arrays, samples: slice, block: _Block) -> None:
    x = arrays.x[(samples, *block.read)]
    rows = x.reshape(-1, len(weights)).astype(weights.dtype, copy=False)
    products = np.matmul(rows, weights).reshape(len(x), *block.products, width)
    ndim = len(block.made)
    if ndim > 1:
        order = itertools.chain.from_iterable((axis, axis + ndim) for axis in range(1, ndim + 1))
        products = products.transpose(0, *order, -1)
    sums = np.empty((len(x), *block.sums, width), weights.dtype)
    for index in block.zeros:
        sums[index] = 0
    (target, source), *others = block.turns
    sums[target] = products[source]
    for target, source in others:
        whole = sums[target]
        whole += products[source]
    made = sums.reshape(len(x), *block.made, width)[block.kept]
    arrays.deliver(made, arrays.out[(samples, *block.place)], arrays.bias)


def _cost(call: Call) -> Cost:
    axes = _axes(call)
    per_row, _ = _size(call)
    first, last = axes[0].rows
    again = halo_share(last - first, per_row, axes[0].overlap)
    rows = int(call.samples * math.prod(call.reads) * (1 + again))
    columns = call.width * math.prod(axis.taps for axis in axes)
    made = call.samples * math.prod(call.makes) * call.width
    run = min(axes[-1].stride, axes[-1].taps) * call.width
    copied = rows * columns * (_APART if run == 1 else 1 + len(axes) * _STRETCH // run) + made * 2
    if not call.channels_last:
        copied += _TURNING * (rows * call.depth + made)
    calls = 8 + math.prod(axis.overlap + 1 for axis in axes)
    packed = 0 if call.transposed else call.weights
    return Cost(rows * call.depth * padded(columns), rows * padded(columns), copied, calls, packed)


def _refuses(call: Call) -> str:
    if call.geometry.groups > 1:
        return "for one group"
    if any(axis.dilation > 1 for axis in call.geometry.axes):
        return "without dilation"
    for axis in call.geometry.axes:
        if reason := refuses(axis, call.transposed):
            return reason
    if _size(call)[0] * (1 + _axes(call)[0].overlap) > _MOST:
        return "for rows whose products, and those of their halo, fit a cache"
    return ""


ROW_OVERLAP_ADD = Algorithm(
    "row overlap-add GEMM",
    "one product makes all taps of all rows, sums of whole rows the result",
    _refuses,
    _cost,
    _pack,
    _run,
)
