"""Few channels, or each on its own, 1 axis: lanes that write up to 16 bytes at a time, bound by memory."""

from __future__ import annotations

import math

import numpy as np

from gpuconv._typing import Array
from gpuconv.backends.cuda.call import (
    Algorithm,
    Arrays,
    Call,
    Work,
    address_of,
    is_wide,
    options_of,
    steps_of,
    struct_of,
)
from gpuconv.backends.cuda.device import Device, Launch, source_of
from gpuconv.namespace import DTYPES

__all__ = ["POLYPHASE"]

_LINES = np.dtype(
    [
        (name, np.int64)
        for name in (
            *("planes", "filters", "length", "channels", "apart", "tiles"),
            *("row_step", "shift", "phases", "hop", "terms", "rows", "in_length", "kernel", "width", "depth"),
            *("x_sample", "x_row", "x_channel", "w_tap", "w_filter", "w_channel"),
            *("y_sample", "y_row", "y_channel", "contiguous"),
        )
    ]
)
_THREADS, _WARP = 256, 32
_MOST_BLOCKS = 2**20


def _refuses(call: Call, capability: tuple[int, int]) -> str:
    del capability
    if len(call.geometry.axes) > 1:
        return "for 1 axis only"
    (axis,) = call.geometry.axes
    if call.transposed and axis.stride > 1 and axis.dilation > 1:
        return "for strides or dilation, not both"
    return ""


def _is_channelwise(call: Call) -> bool:
    """Whether chunks are of neighbouring channels that do not mix."""
    filters = call.width * call.geometry.groups
    return call.channels_last and call.width == call.depth == 1 and filters % _size(call, True) == 0


def _size(call: Call, together: bool) -> int:
    """Elements of a chunk: 16 bytes, but half of that for half types whose elements lie apart."""
    return (8 if together else 4, 8 if together else 4, 4, 2, 2, 1)[DTYPES.index(call.dtype)]


def _chunks(size: int) -> int:
    """Chunks that a lane makes."""
    return 2 if size > 4 else 4


def _shape(call: Call, size: int) -> dict[str, int]:
    """The numbers of the struct Lines that need no array, for chunks of `size` elements."""
    (axis,) = call.geometry.axes
    filters = call.width * call.geometry.groups
    channels = filters if call.channels_last else 1
    length = axis.out_length if call.transposed else axis.in_length
    phases = axis.stride if call.transposed else 1
    period = math.lcm(phases * channels, size) // size
    # The lanes of a warp write neighbours: as many periods as it takes to fill one.
    apart = period * -(-_WARP // period)
    line = -(-length * channels // size)
    row_step = 1 if call.transposed else axis.stride
    return {
        "planes": call.samples if call.channels_last else call.samples * filters,
        "filters": filters,
        "length": length,
        "channels": channels,
        "apart": apart,
        "tiles": -(-line // (apart * _chunks(size))),
        "row_step": row_step,
        "shift": axis.crop_left if call.transposed else -axis.crop_left,
        "phases": phases,
        "hop": -axis.dilation if call.transposed else axis.dilation,
        "terms": -(-axis.kernel // phases),
        "rows": apart * size // channels * row_step // phases,
        "in_length": axis.in_length if call.transposed else axis.out_length,
        "kernel": axis.kernel,
        "width": call.width,
        "depth": call.depth,
    }


def _lanes(shape: dict[str, int]) -> int:
    return shape["planes"] * shape["tiles"] * shape["apart"]


def _work(call: Call) -> Work:
    size = _size(call, _is_channelwise(call))
    shape = _shape(call, size)
    lanes = _lanes(shape)
    made = lanes * _chunks(size) * size
    return Work(made * shape["terms"] * call.depth, call.bytes_moved, -(-lanes // _THREADS), 1)


def _function(device: Device, call: Call, wide: bool) -> Launch:
    return _compiled(device, call, wide, _is_channelwise(call))


def _compiled(device: Device, call: Call, wide: bool, together: bool) -> Launch:
    layout = call.channels_last, call.transposed
    options = options_of(call.dtype, call.fused, *layout, wide, together=int(together))
    return device.function(source_of("polyphase.cu"), "polyphase", options)


def _is_aligned(call: Call, array: Array) -> bool:
    """Whether chunks of the last axis are 16 aligned bytes."""
    *steps, last = steps_of(array)
    apart = (step for step, length in zip(steps, array.shape, strict=False) if length > 1)
    return last == 1 and all(step % _size(call, True) == 0 for step in apart) and address_of(array) % 16 == 0


def _launch(device: Device, call: Call, arrays: Arrays) -> None:
    x, kernel, bias, result = arrays[:4]
    together = _is_channelwise(call) and _is_aligned(call, x) and _is_aligned(call, kernel)
    shape = _shape(call, _size(call, together))
    time, channel = (1, 2) if call.channels_last else (2, 1)
    x_steps, y_steps = steps_of(x), steps_of(result)
    w_tap, *w_steps = steps_of(kernel)
    w_filter, w_channel = w_steps if call.transposed else reversed(w_steps)
    lines = struct_of(
        _LINES,
        **shape,
        x_sample=x_steps[0],
        x_row=x_steps[time],
        x_channel=x_steps[channel],
        w_tap=w_tap,
        w_filter=w_filter,
        w_channel=w_channel,
        y_sample=y_steps[0],
        y_row=y_steps[time],
        y_channel=y_steps[channel],
        contiguous=y_steps[time] == shape["channels"] and y_steps[-1] == 1,
    )
    launch = _compiled(device, call, is_wide(call, x, kernel, result), together)
    lanes = _lanes(shape)
    blocks = min(-(-lanes // _THREADS), _MOST_BLOCKS)
    launch((blocks,), (_THREADS,), (x, kernel, bias, result, lines, np.int64(lanes)))


POLYPHASE = Algorithm("polyphase", _refuses, _work, _function, _launch)
