"""One output element per thread: any type, 1 to 3 axes, any strides. Runs what nothing else runs."""

from __future__ import annotations

import math

import numpy as np

from gpuconv._typing import Array
from gpuconv.backends.cuda.call import (
    Algorithm,
    Arrays,
    Call,
    Work,
    congruence,
    is_wide,
    options_of,
    steps_of,
)
from gpuconv.backends.cuda.device import Device, Launch, source_of

__all__ = ["DIRECT", "problem_of"]

_AXIS = np.dtype(
    [
        (name, np.int64)
        for name in (
            *("kernel", "stride", "dilation", "crop_left", "in_length", "out_length"),
            *("common", "period", "inverse", "x_step", "y_step", "w_step"),
        )
    ]
)
_PROBLEM = np.dtype(
    [
        *((name, np.int64) for name in ("samples", "groups", "width", "depth", "x_sample", "x_channel")),
        *((name, np.int64) for name in ("y_sample", "y_channel", "w_filter", "w_channel")),
        ("axis", _AXIS, 3),
    ]
)
_THREADS = 256


def _work(call: Call) -> Work:
    elements = math.prod(call.shape)
    taps = math.prod(
        -(-axis.kernel // congruence(axis)[1]) if call.transposed else axis.kernel
        for axis in call.geometry.axes
    )
    return Work(elements * taps * call.depth, call.bytes_moved, -(-elements // _THREADS), 1)


def _function(device: Device, call: Call, wide: bool) -> Launch:
    options = options_of(call.dtype, call.fused, call.channels_last, call.transposed, wide)
    entry = "direct_conv_transpose" if call.transposed else "direct_conv"
    return device.function(source_of("direct.cu"), entry, options)


def _launch(device: Device, call: Call, arrays: Arrays) -> None:
    x, kernel, bias, result = arrays[:4]
    inputs, outputs = (x, result) if call.transposed else (result, x)
    problem = problem_of(call, inputs, outputs, kernel)
    count = math.prod(result.shape)
    blocks = min(-(-count // _THREADS), 2**20)
    launch = _function(device, call, is_wide(call, x, kernel, result))
    launch((blocks,), (_THREADS,), (x, kernel, bias, result, problem, np.int64(count)))


def problem_of(call: Call, x: Array, y: Array, kernel: Array) -> np.void:
    """The struct Problem of common.cuh; axes that are not there have one sample and one tap."""
    geometry = call.geometry
    problem = np.zeros(1, _PROBLEM)[0]
    x_steps, y_steps, w_steps = steps_of(x), steps_of(y), steps_of(kernel)
    ndim = len(geometry.axes)
    spatial = slice(1, ndim + 1) if call.channels_last else slice(2, ndim + 2)
    channel = -1 if call.channels_last else 1
    problem["samples"], problem["groups"] = x.shape[0], geometry.groups
    problem["width"] = geometry.filters // geometry.groups
    problem["depth"] = geometry.in_channels // geometry.groups
    problem["x_sample"], problem["x_channel"] = x_steps[0], x_steps[channel]
    problem["y_sample"], problem["y_channel"] = y_steps[0], y_steps[channel]
    problem["w_filter"], problem["w_channel"] = w_steps[-2:]
    missing = 3 - ndim
    for number in range(missing):
        problem["axis"][number] = (1, 1, 1, 0, 1, 1, 1, 1, 0, 0, 0, 0)
    each = zip(geometry.axes, x_steps[spatial], y_steps[spatial], w_steps, strict=False)
    for number, (axis, x_step, y_step, w_step) in enumerate(each, start=missing):
        common, period, inverse = congruence(axis)
        problem["axis"][number] = (
            *(axis.kernel, axis.stride, axis.dilation, axis.crop_left, axis.in_length, axis.out_length),
            *(common, period, inverse, x_step, y_step, w_step),
        )
    return problem


DIRECT = Algorithm("direct", lambda *_: "", _work, _function, _launch)
