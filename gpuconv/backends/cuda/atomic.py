"""A scatter by atomic additions: the plain baseline that other kernels are measured against."""

from __future__ import annotations

import math

import numpy as np

from gpuconv._typing import Array
from gpuconv.backends.cuda.call import (
    Algorithm,
    Arrays,
    Call,
    Work,
    is_wide,
    number_of,
    options_of,
)
from gpuconv.backends.cuda.device import Device, Launch, source_of
from gpuconv.backends.cuda.direct import problem_of

__all__ = ["ATOMIC"]

_ENTRIES = ("atomic_zero", "atomic_scatter", "atomic_finish")
_THREADS = 256
_MOST_BLOCKS = 2**20


def _refuses(call: Call, capability: tuple[int, int]) -> str:
    del capability
    return "" if call.transposed else "a forward convolution is a gather, and this scatters"


def _scatterers(call: Call) -> int:
    """Threads that the scatter takes: one per input sample and filter."""
    return call.samples * math.prod(call.geometry.in_lengths) * call.geometry.filters


def _work(call: Call) -> Work:
    sums = math.prod(call.shape)
    additions = _scatterers(call) * math.prod(axis.kernel for axis in call.geometry.axes)
    # The sums are written once, read and written by every addition, and read once.
    moved = call.bytes_moved + (2 * sums + 2 * additions) * number_of(call.dtype).itemsize
    return Work(additions * call.depth, moved, -(-_scatterers(call) // _THREADS), len(_ENTRIES))


def _workspace(call: Call) -> int:
    return math.prod(call.shape) * number_of(call.dtype).itemsize


def _sums_in(workspace: Array, call: Call) -> Array:
    return workspace[: _workspace(call)].view(number_of(call.dtype)).reshape(call.shape)


def _functions(device: Device, call: Call, wide: bool) -> list[Launch]:
    options = options_of(call.dtype, call.fused, call.channels_last, call.transposed, wide)
    return [device.function(source_of("atomic.cu"), entry, options) for entry in _ENTRIES]


def _function(device: Device, call: Call, wide: bool) -> Launch:
    # All are compiled: after a warm-up, nothing is left to do.
    return _functions(device, call, wide)[1]


def _launch(device: Device, call: Call, arrays: Arrays) -> None:
    x, kernel, bias, result, workspace = arrays
    sums = _sums_in(workspace, call)
    zero, scatter, finish = _functions(device, call, is_wide(call, x, kernel, result))

    def launch(function: Launch, count: int, *args: Array | np.void | None) -> None:
        blocks = min(-(-count // _THREADS), _MOST_BLOCKS)
        function((blocks,), (_THREADS,), (*args, np.int64(count)))

    launch(zero, sums.size, sums)
    launch(scatter, _scatterers(call), x, kernel, sums, problem_of(call, x, sums, kernel))
    launch(finish, sums.size, sums, bias, result, problem_of(call, x, result, kernel))


ATOMIC = Algorithm("atomic", _refuses, _work, _function, _launch, _workspace)
