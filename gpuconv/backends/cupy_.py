"""CuPy arrays: our own CUDA kernels, launched on the current stream.

Nothing here synchronises, and nothing is allocated but the result.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator

from gpuconv._typing import Array
from gpuconv.backends.cuda.call import FUSED, Arrays, Call
from gpuconv.backends.cuda.device import Device, current_device
from gpuconv.backends.cuda.planner import ALGORITHMS, choose, explain, limits_of
from gpuconv.backends.prepared import Prepared
from gpuconv.geometry import ConvGeometry
from gpuconv.namespace import array_namespace, dtype_named, may_overlap

__all__ = ["conv", "conv_transpose", "prepare"]


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
    workspace: Array | None = None,
    device: Device | None = None,
) -> Array:
    """Run the transposed convolution; `device` is CuPy unless a test brings its own.

    `algorithm` is one of the planner's names, None for its choice. The other arguments are those of
    `backends.numpy_.conv_transpose`.
    """
    call = Call(geometry, x.shape[0], True, channels_last, dtype, precision, _fused(activation, dtype))
    return _run(call, x, kernel, bias, activation, out, algorithm, workspace, device)


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
    workspace: Array | None = None,
    device: Device | None = None,
) -> Array:
    """Run the forward convolution. Arguments are those of `conv_transpose`."""
    call = Call(geometry, x.shape[0], False, channels_last, dtype, precision, _fused(activation, dtype))
    return _run(call, x, kernel, bias, activation, out, algorithm, workspace, device)


def prepare(
    geometry: ConvGeometry,
    samples: int,
    kernel: Array,
    activation: Callable[[Array], Array] | None,
    *,
    transposed: bool,
    channels_last: bool,
    dtype: str,
    precision: str,
    algorithm: str | None,
    device: Device | None = None,
) -> Prepared:
    """Choose an algorithm; the kernel's device is the one that it is chosen for."""
    fused = _fused(activation, dtype)
    call = Call(geometry, samples, transposed, channels_last, dtype, precision, fused)
    with _on_device_of(kernel, device) as ours:
        limits = limits_of(ours)
    chosen = choose(call, limits, algorithm)
    able = (a.name for a in ALGORITHMS if a is not chosen and not a.refuses(call, limits.capability))

    def warmup() -> None:
        with _on_device_of(kernel, device) as ours:
            chosen.function(ours, call, call.is_wide)

    return Prepared(
        chosen.name,
        (chosen.name, *able),
        lambda n: chosen.workspace(call._replace(samples=n)),
        explain(call, limits, chosen.name),
        warmup,
    )


@contextlib.contextmanager
def _on_device_of(array: Array, device: Device | None) -> Iterator[Device]:
    """Make the device of `array` the current one, unless a test brings its own."""
    if device is not None:
        yield device
        return
    with array.device:
        yield current_device()


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
    workspace: Array | None,
    device: Device | None,
) -> Array:
    xp = array_namespace(x=x)
    element = dtype_named(xp, call.dtype)
    with _on_device_of(x, device) as ours:
        x, kernel = (array.astype(element, copy=False) for array in (x, kernel))
        bias = None if bias is None else xp.ascontiguousarray(bias.astype(element, copy=False))
        given = (array for array in (x, kernel, bias) if array is not None)
        overlapping = out is not None and any(may_overlap(out, array) for array in given)
        result = ours.empty(call.shape, element) if out is None or overlapping else out
        if math.prod(call.shape):
            chosen = choose(call, limits_of(ours), algorithm)
            size = chosen.workspace(call)
            if workspace is None and size:
                workspace = ours.empty((size,), "uint8")
            chosen.launch(ours, call, Arrays(x, kernel, bias, result, workspace))
        if activation is not None and not call.fused:
            result[...] = activation(result)
        if out is None or result is out:
            return result
        out[...] = result
        return out
