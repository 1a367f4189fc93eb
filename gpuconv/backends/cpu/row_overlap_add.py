"""Overlap-add GEMM by rows: one product makes every tap of every input row, taps of a row beside each other.

A row of products, (taps * width), is added to the rows of the result that its taps reach, a stride at a time:
each sum is of long stretches of memory. It takes few calls of NumPy, and pays where samples are short.
"""

from __future__ import annotations

import functools

import numpy as np

from gpuconv.backends.cpu import threads
from gpuconv.backends.cpu.call import Algorithm, Arrays, Call, Cost, blocks, padded
from gpuconv.backends.cpu.overlap_add import as_transposed, refuses

__all__ = ["ROW_OVERLAP_ADD"]

#: NumPy adds stretches shorter than this, in elements, ...
_SHORTEST = 16
#: ... so many times as slowly.
_SHORT = 4


def _pack(call: Call, kernel: np.ndarray) -> np.ndarray:
    """(depth, taps * width): a transposed convolution's kernel as it is, which BLAS reads transposed."""
    weights = call.oriented(kernel)
    return (weights if call.transposed else weights[::-1]).reshape(-1, call.depth).T


def _run(call: Call, weights: np.ndarray, arrays: Arrays, parts: int) -> None:
    stride, crop, taps = as_transposed(call)
    first, last = crop // stride, (crop + call.makes[0] - 1) // stride
    overlap = -(-taps // stride) - 1
    tasks = []
    for samples, rows in blocks(
        call.samples, last - first + 1, call.width * (taps + stride), parts, halo=overlap
    ):
        rows = slice(first + rows.start, first + rows.stop)
        some = arrays._replace(x=arrays.x[samples], out=arrays.out[samples])
        tasks.append(functools.partial(_block, weights, some, rows, stride, crop))
    threads.run(tasks, apart=parts > 1)


def _block(weights: np.ndarray, arrays: Arrays, rows: slice, stride: int, crop: int) -> None:
    """Make the rows, of `stride` samples each, counted from the first before the crop."""
    x, out = arrays.x, arrays.out
    n, length, depth = x.shape
    width, taps = out.shape[2], weights.shape[1]
    row = stride * width
    overlap = -(-taps // row) - 1
    begin = max(0, rows.start - overlap)
    read = max(0, min(length, rows.stop) - begin)
    source = x[:, begin : begin + read].astype(weights.dtype, copy=False)
    products = np.matmul(source.reshape(n * read, depth), weights).reshape(n, read, taps)
    sums = np.empty((n, rows.stop - rows.start, row), weights.dtype)
    if taps < row:
        sums[..., taps:] = 0
    for turn in range(overlap + 1):
        # Input row i is in row i + turn of the result.
        first, last = begin + turn - rows.start, begin + turn + read - rows.start
        first, last = min(max(first, 0), sums.shape[1]), min(max(last, 0), sums.shape[1])
        skipped = first + rows.start - begin - turn
        part = products[:, skipped : skipped + last - first, turn * row : (turn + 1) * row]
        whole = sums[:, first:last, : part.shape[2]]
        if turn:
            whole += part
        else:
            whole[...] = part
            sums[:, :first] = 0
            sums[:, last:] = 0
    start = rows.start * stride - crop
    place = out[:, max(0, start) : rows.stop * stride - crop]
    made = sums.reshape(n, -1, width)[:, max(0, -start) :]
    arrays.deliver(made[:, : place.shape[1]], place, arrays.bias)


def _cost(call: Call) -> Cost:
    stride, _, taps = as_transposed(call)
    rows, columns = call.samples * call.reads[0], taps * call.width
    made = call.samples * call.makes[0] * call.width
    added = rows * columns * (_SHORT if 1 < stride * call.width < _SHORTEST else 1)
    packed = 0 if call.transposed else call.weights
    return Cost(rows * call.depth * padded(columns), rows * padded(columns), added + made * 2, 8, packed)


def _refuses(call: Call) -> str:
    if call.geometry.groups > 1 or not call.channels_last:
        return "for one group, channels last"
    return refuses(call)


ROW_OVERLAP_ADD = Algorithm(
    "row overlap-add GEMM",
    "one product makes all taps of all rows, sums of whole rows the result",
    _refuses,
    _cost,
    _pack,
    _run,
)
