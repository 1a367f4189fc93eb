"""The gradient with respect to the kernel: products of windows and rows, summed over blocks."""

from __future__ import annotations

import itertools
import math

import numpy as np

from gpuconv.backends.cpu.call import Call, blocks
from gpuconv.backends.cpu.gather import channels_apart, windows_of, zero_padded
from gpuconv.phases import conv_phases

__all__ = ["kernel_gradient"]


def kernel_gradient(call: Call, x: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """The kernel's cotangent, in the kernel's shape, when that of the result is `dy`.

    Each tap weighs pairs of what it read and what it made: the windows of the longer of the two, `dy` when
    the convolution is transposed, times the rows of the other.
    """
    x, dy = (array.astype(call.dtype, copy=False) for array in (np.conj(x), dy))
    long, short = (
        channels_apart(a, call.channels_last, call.geometry.groups)
        for a in ((dy, x) if call.transposed else (x, dy))
    )
    phases = tuple(map(conv_phases, call.geometry.axes))
    long, starts = zero_padded(long, call.dtype, phases)
    (combination,) = itertools.product(*phases)
    windows = windows_of(long, starts, combination)
    n, ndim = short.shape[0], len(combination)
    groups, width, depth = short.shape[-2], long.shape[-1], short.shape[-1]
    taps, rows = windows.shape[ndim + 1 : -2], short.shape[1:-2]
    total = np.zeros((groups, math.prod(taps) * width, depth), call.dtype)
    inner = math.prod(rows[1:])
    per_row = inner * groups * (math.prod(taps) * width + depth)
    for samples, some in blocks(n, rows[0], per_row, 1, inner=inner) if math.prod(rows) else ():
        window, row = windows[samples, some], short[samples, some]
        count = math.prod(row.shape[:-2])
        gathered = np.moveaxis(window, -2, 0).reshape(groups, count, -1)
        total += gathered.swapaxes(1, 2) @ np.moveaxis(row, -2, 0).reshape(groups, count, depth)
    # (groups, taps, width, depth) -> (taps..., width, groups * depth)
    total = total.reshape(groups, *taps, width, depth)
    return np.moveaxis(total, 0, -2).reshape(*taps, width, groups * depth)
