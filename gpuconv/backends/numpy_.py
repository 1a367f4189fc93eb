"""NumPy arrays: BLAS over blocks of the cache's size, on all cores. `gpuconv.backends.cpu` has the ways."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from gpuconv._typing import Array
from gpuconv.backends.cpu import planner
from gpuconv.backends.cpu.call import Algorithm, Arrays, Call
from gpuconv.backends.cpu.kernel_gradient import kernel_gradient as _kernel_gradient
from gpuconv.backends.cpu.threads import MOST_PARTS
from gpuconv.backends.prepared import Prepared, no_warmup, no_workspace
from gpuconv.geometry import ConvGeometry
from gpuconv.namespace import HALF_DTYPES, may_overlap

__all__ = ["conv", "conv_transpose", "kernel_gradient", "prepare"]

#: Nanoseconds of one core that are worth a thread's while.
_PART = 500_000


class _Packed(NamedTuple):
    """A kernel as its algorithm reads it, in place of the kernel."""

    algorithm: str
    weights: Any


class _Way(NamedTuple):
    """What a call comes to, all that its arrays do not decide."""

    call: Call
    algorithm: Algorithm
    parts: int
    shape: tuple[int, ...]
    moved: bool
    """Whether channels, one of each, are taken from the second place to the last."""


def conv_transpose(
    geometry: ConvGeometry,
    x: np.ndarray,
    kernel: np.ndarray | _Packed,
    bias: np.ndarray | None,
    activation: Callable[[Array], Array] | None,
    *,
    channels_last: bool,
    dtype: str,
    out: np.ndarray | None = None,
    precision: str = "ieee",
    algorithm: str | None = None,
    workspace: np.ndarray | None = None,
) -> np.ndarray:
    """Run the transposed convolution; `dtype` names the result's type, and `out`'s.

    `kernel` may be what `prepare` made of it. `precision` permits a backend to round float32 factors; it does
    not oblige, and this one never does. `workspace` is not needed.
    """
    del precision, workspace
    asked = kernel.algorithm if isinstance(kernel, _Packed) else algorithm
    way = _way(geometry, x.shape[0], True, channels_last, dtype, asked)
    return _run(way, x, kernel, bias, activation, dtype, out)


def conv(
    geometry: ConvGeometry,
    x: np.ndarray,
    kernel: np.ndarray | _Packed,
    bias: np.ndarray | None,
    activation: Callable[[Array], Array] | None,
    *,
    channels_last: bool,
    dtype: str,
    out: np.ndarray | None = None,
    precision: str = "ieee",
    algorithm: str | None = None,
    workspace: np.ndarray | None = None,
) -> np.ndarray:
    """Run the forward convolution: `geometry` backwards, from `out_lengths` to `in_lengths`."""
    del precision, workspace
    asked = kernel.algorithm if isinstance(kernel, _Packed) else algorithm
    way = _way(geometry, x.shape[0], False, channels_last, dtype, asked)
    return _run(way, x, kernel, bias, activation, dtype, out)


def prepare(
    geometry: ConvGeometry,
    samples: int,
    kernel: np.ndarray,
    activation: Callable[[Array], Array] | None,
    *,
    transposed: bool,
    channels_last: bool,
    dtype: str,
    precision: str,
    algorithm: str | None,
) -> Prepared:
    """Choose an algorithm and pack the kernel for it."""
    del activation, precision
    call = _layouts_alike(_call(geometry, samples, transposed, channels_last, dtype))
    chosen = planner.choose(call, algorithm)
    able = tuple(other.name for other in planner.able(call) if other is not chosen)
    weights = _Packed(chosen.name, chosen.pack(call, kernel))
    return Prepared(
        chosen.name,
        (chosen.name, *able),
        no_workspace,
        planner.explain(call, chosen),
        no_warmup,
        weights,
    )


def kernel_gradient(
    geometry: ConvGeometry,
    x: np.ndarray,
    dy: np.ndarray,
    *,
    channels_last: bool,
    dtype: str,
    transposed: bool,
) -> np.ndarray:
    """The kernel's cotangent, in the kernel's shape, when that of the result is `dy`."""
    call = _call(geometry, x.shape[0], transposed, channels_last, dtype)
    return _kernel_gradient(call, x, dy).astype(np.dtype(dtype), copy=False)


def _call(geometry: ConvGeometry, samples: int, transposed: bool, channels_last: bool, dtype: str) -> Call:
    # Half types accumulate in float32 and are rounded once.
    working = np.dtype(np.float32) if dtype in HALF_DTYPES else np.dtype(dtype)
    return Call(geometry, samples, transposed, channels_last, working)


def _layouts_alike(call: Call) -> Call:
    """The call as channels_last where arrays have one channel, and both layouts are one."""
    one = call.geometry.in_channels == call.geometry.filters == 1
    return call._replace(channels_last=True) if one and not call.channels_last else call


def _parts(call: Call, algorithm: Algorithm) -> int:
    """The parts to cut the call in."""
    return max(1, min(MOST_PARTS, int(algorithm.cost(call).nanoseconds() / _PART)))


@functools.lru_cache(maxsize=1024)
def _way(
    geometry: ConvGeometry,
    samples: int,
    transposed: bool,
    channels_last: bool,
    dtype: str,
    asked: str | None,
) -> _Way:
    given = _call(geometry, samples, transposed, channels_last, dtype)
    call = _layouts_alike(given)
    algorithm = planner.choose(call, asked, packing=True)
    shape = geometry.result_shape(samples, transposed=transposed, channels_last=channels_last)
    return _Way(call, algorithm, _parts(call, algorithm), shape, call is not given)


def _run(
    way: _Way,
    x: np.ndarray,
    kernel: np.ndarray | _Packed,
    bias: np.ndarray | None,
    activation: Callable[[Array], Array] | None,
    dtype: str,
    out: np.ndarray | None,
) -> np.ndarray:
    call, algorithm, parts, shape, moved = way
    given = (array for array in (x, kernel, bias) if isinstance(array, np.ndarray))
    overlapping = out is not None and any(may_overlap(out, array) for array in given)
    result = np.empty(shape, dtype) if out is None or overlapping else out
    if result.size:
        place = result
        if moved:
            x, place = np.moveaxis(x, 1, -1), np.moveaxis(result, 1, -1)
        weights = kernel.weights if isinstance(kernel, _Packed) else algorithm.pack(call, kernel)
        if bias is not None:
            bias = bias.astype(call.dtype, copy=False)
        algorithm.run(call, weights, Arrays(x, bias, activation, place), parts)
    if out is None or result is out:
        return result
    out[...] = result
    return out
