"""Toeplitz-block GEMM: windows that make several strides of output at once.

Taps become the band of a matrix whose other entries are zeros: more multiply-adds, but of products large
enough for BLAS, where a tap alone would be a product with hardly a channel to sum over. Where channels are
last and in one group it is the window GEMM with longer windows; here is the rest.
"""

from __future__ import annotations

import functools
from typing import TypeAlias

import numpy as np

from gpuconv.backends.cpu import threads, window
from gpuconv.backends.cpu.call import Algorithm, Arrays, Call, Cost, padded, split_channels
from gpuconv.backends.cpu.window import (
    Band,
    Weights,
    all_finite,
    bands_of,
    fill_band,
    sum_apart,
    taps_of,
    turns_of,
)

__all__ = ["TOEPLITZ"]

#: Strides that a matrix may make at once.
_BLOCKS = (1, 2, 4, 8, 16, 32, 64)
#: Elements that a block reads and makes: a megabyte of float32.
_MOST = 1 << 18

#: Beginning a stretch costs NumPy as much as so many of its elements.
_STRETCH = 32

_Packed: TypeAlias = tuple[Weights, ...]


def _best_block(call: Call) -> int:
    return min(_BLOCKS, key=lambda block: _cost_of(call, block).nanoseconds())


def _cost_of(call: Call, block: int) -> Cost:
    if _is_window(call):
        return window.cost(call, block)
    adds = stored = copied = calls = packed = 0
    groups = call.geometry.groups
    # Of gathered windows one product makes all filters, of windows as they lie each filter has its own.
    together = call.width if call.depth > 1 else 1
    for band in bands_of(call.axis, call.transposed, block):
        products = call.samples * groups * call.width // together
        rows, terms = products * band.rows, band.span * call.depth
        columns = padded(band.outputs * together)
        adds += rows * terms * columns
        packed += 2 * groups * terms * band.outputs * call.width
        stored += rows * columns
        read = band.step * call.depth
        if call.depth > 1:
            # Gathered in stretches of a window and a channel, turned in those of a row and a filter.
            read += terms + _STRETCH * (call.depth + call.width)
        # What is made is turned where it does not lie as it is to be, and twice where channels are last.
        made = band.outputs * call.width * (call.channels_last + (together > 1))
        copied += call.samples * groups * band.rows * (read + made) + rows * terms
        calls += 8 + products // 2
    return Cost(adds, stored, copied, calls, packed)


def _pack(call: Call, kernel: np.ndarray) -> _Packed:
    block = _best_block(call)
    if _is_window(call):
        return window.pack(call, kernel, block)
    weights = call.oriented(kernel)  # (taps, width, groups, depth)
    _, width, groups, depth = weights.shape
    packed: list[Weights] = []
    for band in bands_of(call.axis, call.transposed, block):
        matrix = np.zeros((band.outputs, band.span, width, groups, depth), call.dtype)
        fill_band(band, call.axis, call.transposed, weights, matrix)
        matrix = np.ascontiguousarray(matrix.transpose(3, 4, 1, 2, 0))
        taps = np.tile(taps_of(band, call).T, (depth, 1))
        packed.append(Weights(band, matrix.reshape(groups, depth * band.span, width, band.outputs), taps))
    return tuple(packed)


def _run(call: Call, packed: _Packed, arrays: Arrays, parts: int) -> None:
    if _is_window(call):
        window.run(call, packed, arrays, parts)
        return
    groups = call.geometry.groups
    x, out = (split_channels(array, call.channels_last, groups) for array in (arrays.x, arrays.out))
    bias = None if arrays.bias is None else arrays.bias.reshape(groups, -1, 1, 1)
    tasks = []
    for band, matrix, taps in packed:
        # Where channels are last, blocks are of all of them: what is written together lies together.
        all_at_once = groups if call.channels_last else 1
        per_row = band.outputs * call.width + call.depth * (band.span if call.depth > 1 else band.step)
        rows = min(band.rows, max(1, _MOST // (per_row * all_at_once)))
        together = max(1, _MOST // (rows * per_row))
        by_group = min(groups, together)
        by_sample = max(1, together // groups)
        for sample in range(0, call.samples, by_sample):
            for group in range(0, groups, by_group):
                some = slice(sample, sample + by_sample), slice(group, group + by_group)
                part = arrays._replace(x=x[some], out=out[some], bias=None if bias is None else bias[some[1]])
                for row in range(0, band.rows, rows):
                    block = slice(row, min(row + rows, band.rows))
                    tasks.append(functools.partial(_block, Weights(band, matrix[some[1]], taps), part, block))
    threads.run(tasks, apart=parts > 1)


def _block(weights: Weights, arrays: Arrays, rows: slice) -> None:
    band, matrix, taps = weights
    x, out = arrays.x, arrays.out
    samples, groups, depth, length = x.shape
    number = rows.stop - rows.start
    begin = band.offset + rows.start * band.step
    end = begin + (number - 1) * band.step + band.span
    source = np.zeros((samples, groups, depth, end - begin), matrix.dtype)
    inside = slice(min(max(0, begin), length), min(max(0, end), length))
    source[..., inside.start - begin : inside.stop - begin] = x[..., inside]
    start = band.first + rows.start * band.pitch
    place = out[..., start : start + number * band.outputs]
    # As rows: a view, for out's samples are spaced evenly.
    place = np.lib.stride_tricks.as_strided(
        place,
        (*place.shape[:-1], number, band.outputs),
        (*place.strides[:-1], band.outputs * place.strides[-1], place.strides[-1]),
    )
    straight = out.dtype == matrix.dtype and out.strides[-1] == out.itemsize
    result = place if straight else np.empty(place.shape, matrix.dtype)
    if taps is not None and not all_finite(source):
        gathered = _gathered(source, band, number)
        for sample, group, filter_ in np.ndindex(result.shape[:3]):
            part = result[sample, group, filter_]
            sum_apart(gathered[sample, group], matrix[group, :, filter_], taps, part)
    elif depth == 1:
        _multiply(source[:, :, 0], band, number, matrix, result)
    else:
        made = np.matmul(_gathered(source, band, number), matrix.reshape(*matrix.shape[:2], -1))
        result[...] = made.reshape(*made.shape[:3], *matrix.shape[2:]).swapaxes(2, 3)
    arrays.deliver(result, place, arrays.bias)


def _gathered(source: np.ndarray, band: Band, number: int) -> np.ndarray:
    """The windows of all channels, (samples, groups, windows, depth * span)."""
    samples, groups, depth, _ = source.shape
    windows = _windows(source, band.step, number, band.span).transpose(0, 1, 3, 2, 4)
    return windows.reshape(samples, groups, number, depth * band.span)


def _multiply(source: np.ndarray, band: Band, number: int, matrix: np.ndarray, result: np.ndarray) -> None:
    """Products of every n-th window, which do not overlap: nothing is gathered."""
    turns = turns_of(band)
    for turn in range(min(turns, number)):
        some = -(-(number - turn) // turns)
        windows = _windows(source[..., turn * band.step :], turns * band.step, some, band.span)
        for filter_ in range(matrix.shape[2]):
            np.matmul(windows, matrix[:, :, filter_], out=result[:, :, filter_, turn::turns])


def _windows(source: np.ndarray, step: int, number: int, span: int) -> np.ndarray:
    """A view (..., windows, span) along the last axis."""
    item = source.strides[-1]
    shape, strides = (*source.shape[:-1], number, span), (*source.strides[:-1], step * item, item)
    return np.lib.stride_tricks.as_strided(source, shape, strides, writeable=False)


def _refuses(call: Call) -> str:
    if not call.has_one_axis:
        return "for one axis without dilation"
    return ""


def _is_window(call: Call) -> bool:
    """Whether rows of channels lie one after the other, as the window GEMM reads and writes them."""
    return call.channels_last and call.geometry.groups == 1


TOEPLITZ = Algorithm(
    "Toeplitz-block GEMM",
    "products of windows of several strides and a band of weights",
    _refuses,
    lambda call: _cost_of(call, _best_block(call)),
    _pack,
    _run,
)
