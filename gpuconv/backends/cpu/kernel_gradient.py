"""The gradient with respect to the kernel: products of windows and rows, summed over blocks."""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np

from gpuconv.backends.cpu import threads
from gpuconv.backends.cpu.call import Call, blocks
from gpuconv.backends.cpu.gather import channels_apart, windows_of, zero_padded
from gpuconv.phases import conv_phases

__all__ = ["kernel_gradient"]

#: Multiply-adds that are worth a thread's while.
_PART_ADDS = 20_000_000


def kernel_gradient(call: Call, x: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """The kernel's cotangent, in the kernel's shape, when that of the result is `dy`.

    Each tap weighs pairs of what it read and what it made: the windows of the longer of the two, `dy` when
    the convolution is transposed, times the rows of the other. Groups are summed side by side; the products
    of one group are large, and BLAS threads them.
    """
    x = np.conj(x) if call.dtype.kind == "c" else x
    x, dy = (array.astype(call.dtype, copy=False) for array in (x, dy))
    long, short = (
        channels_apart(a, call.channels_last, call.geometry.groups)
        for a in ((dy, x) if call.transposed else (x, dy))
    )
    phases = tuple(map(conv_phases, call.geometry.axes))
    long, starts = zero_padded(long, call.dtype, phases)
    (combination,) = itertools.product(*phases)
    windows = windows_of(long, starts, combination)
    ndim = len(combination)
    taps, (groups, width) = windows.shape[ndim + 1 : -2], windows.shape[-2:]
    total = np.zeros((*taps, groups, width, short.shape[-1]), call.dtype)
    parts = min(threads.MOST_PARTS, groups, 1 + short.size * math.prod(taps) * width // _PART_ADDS)
    if parts == 1:
        _add(windows, short, total)
    else:
        step = -(-groups // parts)
        cuts = [(..., slice(first, first + step), slice(None)) for first in range(0, groups, step)]
        tasks = [
            functools.partial(_add, windows[cut], short[cut], total[(*cut, slice(None))]) for cut in cuts
        ]
        threads.run(tasks, apart=True)
    return np.moveaxis(total, -3, -2).reshape(*taps, width, -1)


def _add(windows: np.ndarray, short: np.ndarray, total: np.ndarray) -> None:
    """Add the products of windows and rows to `total`, (taps..., groups, width, depth), in blocks."""
    rows, (groups, depth) = short.shape[1:-2], short.shape[-2:]
    inner = math.prod(rows[1:])
    per_row = inner * (total.size // depth + groups * depth)
    for samples, some in blocks(len(short), rows[0], per_row, 1, inner=inner) if math.prod(rows) else ():
        window, row = windows[samples, some], short[samples, some]
        count = math.prod(row.shape[:-2])
        gathered = np.moveaxis(window, -2, 0).reshape(groups, count, -1)
        product = gathered.swapaxes(1, 2) @ np.moveaxis(row, -2, 0).reshape(groups, count, depth)
        total += np.moveaxis(product.reshape(groups, *total.shape[:-3], -1, depth), 0, -3)
