"""Overlap-add GEMM: one product makes every tap of every input row, shifted sums put them together.

The products are of taps by rows, (taps * width, depth) times (depth, rows): each tap's samples lie one after
the other, and are added so, until each phase is put between the others.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
from numpy.lib.stride_tricks import as_strided

from gpuconv.backends.cpu import threads
from gpuconv.backends.cpu.call import (
    Algorithm,
    Arrays,
    Call,
    Cost,
    blocks,
    halo_share,
    padded,
    split_channels,
)
from gpuconv.geometry import AxisGeometry

__all__ = ["OVERLAP_ADD", "as_transposed", "refuses"]


#: Taps times width: products of so few are made row by row.
_FEW_TAPS = 32
#: So many phases are put between each other in one go, fewer one by one: NumPy copies the longer runs faster.
_MANY_PHASES = 16


def _pack(call: Call, kernel: np.ndarray) -> np.ndarray:
    """(groups, taps * width, depth), of the convolution that is transposed."""
    weights = call.oriented(kernel)
    weights = weights if call.transposed else weights[::-1]
    taps, width, groups, depth = weights.shape
    return np.ascontiguousarray(weights.transpose(2, 0, 1, 3)).reshape(groups, taps * width, depth)


def _run(call: Call, weights: np.ndarray, arrays: Arrays, parts: int) -> None:
    stride, crop, taps = as_transposed(call.axis, call.transposed)
    groups = call.geometry.groups
    x, out = (split_channels(array, call.channels_last, groups) for array in (arrays.x, arrays.out))
    bias = None if arrays.bias is None else arrays.bias.reshape(groups, -1, 1)
    overlap = -(-taps // stride) - 1
    first, last = crop // stride, (crop + out.shape[-1] - 1) // stride
    per_row = groups * call.width * (taps + stride)
    tasks = []
    for samples, rows in blocks(call.samples, last - first + 1, per_row, parts, halo=overlap):
        rows = slice(first + rows.start, first + rows.stop)
        some = arrays._replace(x=x[samples], bias=bias, out=out[samples])
        tasks.append(functools.partial(_block, weights, some, rows, stride, crop))
    threads.run(tasks, apart=parts > 1)


def as_transposed(axis: AxisGeometry, transposed: bool) -> tuple[int, int, int]:
    """Stride, left crop and taps. A forward convolution of stride 1 is a transposed one, taps reversed."""
    crop = axis.crop_left if transposed else axis.kernel - 1 - axis.crop_left
    return axis.stride, crop, axis.kernel


def _block(weights: np.ndarray, arrays: Arrays, rows: slice, stride: int, crop: int) -> None:
    """Make the rows, of `stride` samples each, counted from the first before the crop."""
    x, out = arrays.x, arrays.out
    n, groups, _, length = x.shape
    width, made = out.shape[2], rows.stop - rows.start
    taps = weights.shape[1] // width
    overlap = -(-taps // stride) - 1
    begin, end = max(0, rows.start - overlap), min(length, rows.stop)
    read = max(0, end - begin)
    columns = _product(weights, x[..., begin : begin + read].astype(weights.dtype, copy=False))
    columns = columns.reshape(n, groups, taps, width, read)
    sums = np.empty((n, groups, stride, width, made), weights.dtype)
    if taps < stride:
        sums[:, :, taps:] = 0
    for turn in range(overlap + 1):
        some = columns[:, :, turn * stride : (turn + 1) * stride]
        # Input row i is in row i + turn of the result.
        start = min(max(begin + turn, rows.start), rows.stop)
        stop = max(start, min(begin + read + turn, rows.stop))
        part = some[..., start - begin - turn : stop - begin - turn] if stop > start else some[..., :0]
        whole = sums[:, :, : some.shape[2], :, start - rows.start : stop - rows.start]
        if turn:
            whole += part
        else:
            sums[..., : start - rows.start] = 0
            sums[..., stop - rows.start :] = 0
            whole[...] = part
    for block, place in _places(sums, rows, out, stride, crop):
        bias = arrays.bias
        arrays.deliver(block, place, bias if bias is None or place.ndim == 4 else bias[..., None])


def _places(
    sums: np.ndarray, rows: slice, out: np.ndarray, stride: int, crop: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """What of `sums`, (samples, groups, phases, width, rows), the crops leave, and where it belongs."""
    length, step = out.shape[-1], out.strides[-1]
    done = rows.start
    if stride >= _MANY_PHASES:
        # Rows that no crop meets are turned at once; one of the others may be left at each end.
        first = max(rows.start, -(-crop // stride))
        last = min(rows.stop, (length + crop) // stride)
        if first < last:
            whole = sums[..., first - rows.start : last - rows.start].transpose(0, 1, 3, 4, 2)
            strides = (*out.strides[:-1], stride * step, step)
            yield whole, as_strided(out[..., first * stride - crop :], whole.shape, strides)
            yield from _by_phase(sums, slice(rows.start, first), rows.start, out, stride, crop)
            done = last
    yield from _by_phase(sums, slice(done, rows.stop), rows.start, out, stride, crop)


def _by_phase(
    sums: np.ndarray, rows: slice, origin: int, out: np.ndarray, stride: int, crop: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The same for some rows, phase by phase; the first of `sums` is row `origin`."""
    for phase in range(stride if rows.start < rows.stop else 0):
        # Sample t * stride + phase of row t, as far as the crops leave it.
        t = max(rows.start, -((phase - crop) // stride))
        stop = min(rows.stop, -((phase - crop - out.shape[-1]) // stride))
        if t < stop:
            place = out[..., t * stride + phase - crop : (stop - 1) * stride + phase - crop + 1 : stride]
            yield sums[:, :, phase, :, t - origin : stop - origin], place


def _product(weights: np.ndarray, x: np.ndarray) -> np.ndarray:
    """(samples, groups, taps * width, rows): all taps of `x`, of (samples, groups, depth, rows)."""
    n, groups, depth, rows = x.shape
    by_row = x.transpose(0, 3, 1, 2)  # channels_last
    last = by_row.flags.c_contiguous
    if groups > 1 or (n == 1 and not last):
        return np.matmul(weights, x)
    if not last:
        # Channels are first: the rows of all samples beside each other, for one product.
        columns = np.ascontiguousarray(x[:, 0].swapaxes(0, 1)).reshape(depth, n * rows)
        product = np.matmul(weights[0], columns)
        return product.reshape(weights.shape[1], n, rows).swapaxes(0, 1)[:, None]
    # The rows of all samples in one product, turned afterwards where that is less to turn than BLAS would.
    by_row = by_row.reshape(n * rows, depth)
    if weights.shape[1] <= _FEW_TAPS:
        product = np.ascontiguousarray(np.matmul(by_row, np.ascontiguousarray(weights[0].T)).T)
    else:
        product = np.matmul(weights[0], by_row.T)
    return product.reshape(weights.shape[1], n, rows).swapaxes(0, 1)[:, None]


def _cost(call: Call) -> Cost:
    stride, _, taps = as_transposed(call.axis, call.transposed)
    per_row = call.geometry.groups * call.width * (taps + stride)
    overlap = -(-taps // stride) - 1
    again = halo_share(-(-call.makes[0] // stride), per_row, overlap)
    rows = int(call.samples * call.reads[0] * (1 + again))
    columns = rows * call.geometry.groups * taps * call.width
    made = call.samples * call.makes[0] * call.geometry.groups * call.width
    parts = call.samples if call.samples > 1 and call.reads[0] < 256 else 1
    # The kernel of one group is read as it is.
    packed = 0 if call.transposed and call.geometry.groups == 1 else call.weights
    calls = 7 + 2 * stride + overlap + parts // 2
    computed = columns * padded(taps * call.width) // (taps * call.width)
    copied = columns + made * 2 + rows * call.depth * call.geometry.groups
    return Cost(computed * call.depth, computed, copied, calls, packed)


def refuses(axis: AxisGeometry, transposed: bool) -> str:
    """What keeps a convolution along an axis from being a transposed one, empty where nothing does."""
    if not transposed and axis.stride > 1:
        return "for a stride of 1, where it is not transposed"
    if as_transposed(axis, transposed)[1] < 0:
        return "for paddings that are shorter than the kernel"
    return ""


def _refuses(call: Call) -> str:
    return refuses(call.axis, call.transposed) if call.has_one_axis else "for one axis without dilation"


OVERLAP_ADD = Algorithm(
    "overlap-add GEMM",
    "one product makes all taps of all rows, shifted sums the result",
    _refuses,
    _cost,
    _pack,
    _run,
)
