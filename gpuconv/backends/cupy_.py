"""CuPy arrays: our own CUDA kernels, launched on the current stream.

Nothing here synchronises, and nothing is allocated but the result and the workspace that a kernel may need.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from gpuconv._typing import Array
from gpuconv.backends.cuda.call import FUSED, Algorithm, Arrays, Call, address_of
from gpuconv.backends.cuda.device import Device, current_device
from gpuconv.backends.cuda.kernel_gradient import GradientArrays, choose_gradient
from gpuconv.backends.cuda.planner import ALGORITHMS, choose, explain, limits_of
from gpuconv.backends.prepared import Prepared
from gpuconv.geometry import ConvGeometry
from gpuconv.namespace import array_namespace, dtype_name, dtype_named, may_overlap

__all__ = [
    "conv",
    "conv_transpose",
    "kernel_gradient",
    "prepare",
]


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

    `algorithm` is one of the planner's names, None for its choice. `workspace` is what that algorithm needs:
    bytes in C order, the first at a multiple of 16. The other arguments are those of
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
    return Prepared(
        chosen.name,
        (chosen.name, *able),
        functools.partial(_workspace_size, chosen.name, call),
        explain(call, limits, chosen.name),
        functools.partial(_warmup, chosen.name, call, kernel, device),
        kernel,
    )


def _named(name: str) -> Algorithm:
    """The algorithm of that name: its name can be pickled, its functions cannot."""
    return next(algorithm for algorithm in ALGORITHMS if algorithm.name == name)


def _workspace_size(name: str, call: Call, samples: int) -> int:
    return _named(name).workspace(call._replace(samples=samples))


def _warmup(name: str, call: Call, kernel: Array, device: Device | None) -> None:
    with _on_device_of(kernel, device) as ours:
        _named(name).function(ours, call, call.is_wide)


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
        given = [array for array in (x, kernel, bias) if array is not None]
        result = _room(ours, call.shape, element, given, out)
        if math.prod(call.shape):
            chosen = choose(call, limits_of(ours), algorithm)
            workspace = _workspace(ours, chosen.workspace(call), [*given, result], workspace)
            chosen.launch(ours, call, Arrays(x, kernel, bias, result, workspace))
        if activation is not None and not call.fused:
            result[...] = activation(result)
        return _delivered(result, out)


def kernel_gradient(
    geometry: ConvGeometry,
    x: Array,
    dy: Array,
    *,
    channels_last: bool,
    dtype: str,
    transposed: bool,
    out: Array | None = None,
    algorithm: str | None = None,
    workspace: Array | None = None,
    device: Device | None = None,
) -> Array:
    """Pull `dy`, the gradient of what the convolution of `x` made, back to the kernel; bits repeat.

    It is the adjoint of the linear map from kernel to result: the sum over `dy` times the conjugate of `x`.
    `algorithm` is "direct", "tile" or None for a choice. The other arguments are those of `conv_transpose`.
    """
    call = Call(geometry, x.shape[0], transposed, channels_last, dtype)
    element = dtype_named(array_namespace(x=x), dtype)
    with _on_device_of(x, device) as ours:
        x, dy = (array.astype(element, copy=False) for array in (x, dy))
        result = _room(ours, call.kernel_shape, element, [x, dy], out)
        chosen = choose_gradient(call, algorithm)
        workspace = _workspace(ours, chosen.workspace(call), [x, dy, result], workspace)
        chosen.launch(ours, call, GradientArrays(x, dy, result, workspace))
        return _delivered(result, out)


def _room(
    device: Device, shape: tuple[int, ...], element: Any, read: Sequence[Array], out: Array | None
) -> Array:
    """Where a kernel writes: `out`, unless that could change what it reads."""
    if out is None or any(may_overlap(out, array) for array in read):
        return device.empty(shape, element)
    return out


def _delivered(result: Array, out: Array | None) -> Array:
    if out is None or result is out:
        return result
    out[...] = result
    return out


def _workspace(device: Device, size: int, used: Sequence[Array], given: Array | None) -> Array | None:
    """So many bytes that no array of `used` shares: those that were given, or else the device's."""
    if given is None:
        return device.empty((size,), "uint8") if size else None
    if dtype_name(given.dtype) != "uint8":
        received = f"an array of {dtype_name(given.dtype)}, not of uint8"
    elif not given.flags.c_contiguous:
        received = "an array that is not in C order"
    elif given.size < size:
        received = f"{given.size} bytes"
    elif address_of(given) % 16:
        received = "an address that is no multiple of 16"
    elif any(may_overlap(given, array) for array in used):
        received = "memory that another array may share"
    else:
        return given.reshape(-1)[:size]
    raise ValueError(f"Expected workspace of at least {size} bytes. Received {received}.")
