"""CuPy arrays: our own CUDA kernels, launched on the current stream.

Nothing here synchronises, and nothing is allocated but the result.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable

from gpuconv._typing import Array
from gpuconv.backends.cuda.call import FUSED, Arrays, Call
from gpuconv.backends.cuda.device import Device, current_device
from gpuconv.backends.cuda.planner import choose, limits_of
from gpuconv.geometry import ConvGeometry
from gpuconv.namespace import array_namespace, dtype_named

__all__ = ["conv", "conv_transpose"]


def conv_transpose(
    geometry: ConvGeometry,
    x: Array,
    kernel: Array,
    bias: Array | None,
    activation: Callable[[Array], Array] | None,
    *,
    channels_last: bool,
    dtype: str,
    out: Array | None = None,
    precision: str = "ieee",
    algorithm: str | None = None,
    device: Device | None = None,
) -> Array:
    """Run the transposed convolution; `device` is CuPy unless a test brings its own.

    `algorithm` is one of the planner's names, None for its choice. The other arguments are those of
    `backends.numpy_.conv_transpose`.
    """
    call = Call(geometry, x.shape[0], True, channels_last, dtype, precision, _fused(activation, dtype))
    return _run(call, x, kernel, bias, activation, out, algorithm, device)


def conv(
    geometry: ConvGeometry,
    x: Array,
    kernel: Array,
    bias: Array | None,
    activation: Callable[[Array], Array] | None,
    *,
    channels_last: bool,
    dtype: str,
    out: Array | None = None,
    precision: str = "ieee",
    algorithm: str | None = None,
    device: Device | None = None,
) -> Array:
    """Run the forward convolution. Arguments are those of `conv_transpose`."""
    call = Call(geometry, x.shape[0], False, channels_last, dtype, precision, _fused(activation, dtype))
    return _run(call, x, kernel, bias, activation, out, algorithm, device)


def _fused(activation: Callable[[Array], Array] | None, dtype: str) -> int:
    return 0 if activation is None or dtype.startswith("complex") else FUSED.get(activation, 0)


def _run(
    call: Call,
    x: Array,
    kernel: Array,
    bias: Array | None,
    activation: Callable[[Array], Array] | None,
    out: Array | None,
    algorithm: str | None,
    device: Device | None,
) -> Array:
    xp = array_namespace(x=x)
    element = dtype_named(xp, call.dtype)
    with x.device if device is None else contextlib.nullcontext():
        device = device or current_device()
        x, kernel = (array.astype(element, copy=False) for array in (x, kernel))
        bias = None if bias is None else xp.ascontiguousarray(bias.astype(element, copy=False))
        overlapping = out is not None and any(
            xp.may_share_memory(out, array) for array in (x, kernel, bias) if array is not None
        )
        result = device.empty(call.shape, element) if out is None or overlapping else out
        if math.prod(call.shape):
            chosen = choose(call, limits_of(device), algorithm)
            chosen.launch(device, call, Arrays(x, kernel, bias, result))
        if activation is not None and not call.fused:
            result[...] = activation(result)
        if out is None or result is out:
            return result
        out[...] = result
        return out
