"""Any array-API library, by the standard alone.

Nothing is written in place and no value is looked at, so the autodiff and the tracing of torch and JAX pass
through.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable

from gpuconv._typing import Array, Namespace
from gpuconv.backends.prepared import Prepared, only
from gpuconv.geometry import ConvGeometry
from gpuconv.namespace import (
    HALF_DTYPES,
    array_namespace,
    device_of,
    dtype_named,
    indices,
    library,
    zero_padded,
)
from gpuconv.phases import PhaseGroup, conv_phases, rows_outside, transpose_phases

__all__ = ["conv", "conv_transpose", "kernel_gradient", "prepare"]

#: Products sum over this many terms at a time where there are enough taps ...
_TERMS = 256
#: ... from at most this many taps: what a window may cost, in copies of the input.
_COPIES = 16
#: A gradient sums over this many rows at a time.
_ROWS = 1 << 14


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
) -> Array:
    """Run the transposed convolution. Arguments are those of `backends.numpy_.conv_transpose`."""
    del precision, algorithm, workspace  # it permits, it does not oblige; there is one, which needs none
    xp, groups = array_namespace(x=x), geometry.groups
    kernel = xp.reshape(kernel, (*kernel.shape[:-1], groups, geometry.in_channels // groups))
    phases = tuple(map(transpose_phases, geometry.axes))
    result = _run(x, kernel, bias, activation, channels_last, dtype, phases, geometry.out_lengths)
    return _deliver(result, out)


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
) -> Array:
    """Run the forward convolution. Arguments are those of `backends.numpy_.conv`."""
    del precision, algorithm, workspace  # it permits, it does not oblige; there is one, which needs none
    xp, groups = array_namespace(x=x), geometry.groups
    kernel = xp.reshape(kernel, (*kernel.shape[:-1], groups, geometry.in_channels // groups))
    ndim = len(geometry.axes)
    kernel = xp.permute_dims(kernel, (*range(ndim), ndim + 2, ndim + 1, ndim))
    phases = tuple(map(conv_phases, geometry.axes))
    result = _run(x, kernel, bias, activation, channels_last, dtype, phases, geometry.in_lengths)
    return _deliver(result, out)


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
) -> Prepared:
    """Say how a convolution would be computed: there is one way."""
    del geometry, samples, activation, transposed, channels_last, dtype, precision
    return only("array API", f"products and sums of {library(kernel)}'s own", algorithm, kernel)


def kernel_gradient(
    geometry: ConvGeometry,
    x: Array,
    dy: Array,
    *,
    channels_last: bool,
    dtype: str,
    transposed: bool,
) -> Array:
    """The kernel's cotangent. Arguments are those of `backends.numpy_.kernel_gradient`."""
    xp, ndim, groups = array_namespace(x=x), len(geometry.axes), geometry.groups
    working = dtype_named(xp, "float32" if dtype in HALF_DTYPES else dtype)
    if dtype.startswith("complex"):
        x = xp.conj(x)
    split = []
    for array in (dy, x) if transposed else (x, dy):
        last = array if channels_last else xp.permute_dims(array, (0, *range(2, ndim + 2), 1))
        shape = (*last.shape[:-1], groups, last.shape[-1] // groups)
        split.append(xp.astype(xp.reshape(last, shape), working))
    long, short = split
    phases = tuple(map(conv_phases, geometry.axes))
    starts = []
    for axis, axis_phases in enumerate(phases, start=1):
        before, after = rows_outside(axis_phases, long.shape[axis])
        long = zero_padded(long, axis, before, after)
        starts.append(before)
    (chosen,) = itertools.product(*phases)
    count = math.prod(short.shape[:-2])
    width, depth = long.shape[-1], short.shape[-1]
    rows = xp.permute_dims(xp.reshape(short, (count, groups, depth)), (1, 0, 2))
    parts = []
    for tap in itertools.product(*(range(phase.terms) for phase in chosen)):
        read = xp.reshape(_rows_of_tap(long, chosen, starts, tap), (count, groups, width))
        parts.append(_summed_product(xp, xp.permute_dims(read, (1, 2, 0)), rows))
    total = xp.permute_dims(xp.stack(parts), (0, 2, 1, 3))  # (taps, width, groups, depth)
    taps = (axis.kernel for axis in geometry.axes)
    return xp.astype(xp.reshape(total, (*taps, width, groups * depth)), dtype_named(xp, dtype))


def _summed_product(xp: Namespace, first: Array, second: Array) -> Array:
    """The matrix product, its long sums cut in pieces, so that their rounding errors do not pile up."""
    count = second.shape[1]
    starts = range(0, max(1, count), _ROWS)
    pieces = [slice(start, min(start + _ROWS, count)) for start in starts]
    products = [xp.matmul(first[:, :, some], second[:, some, :]) for some in pieces]
    return sum(products[1:], start=products[0])


def _deliver(result: Array, out: Array | None) -> Array:
    if out is None:
        return result
    out[...] = result
    return out


def _run(
    x: Array,
    kernel: Array,
    bias: Array | None,
    activation: Callable[[Array], Array] | None,
    channels_last: bool,
    dtype: str,
    phases: tuple[tuple[PhaseGroup, ...], ...],
    lengths: tuple[int, ...],
) -> Array:
    """`kernel` is (taps..., width, groups, depth), `lengths` are those of the result."""
    xp = array_namespace(x=x)
    ndim = len(lengths)
    width, groups, depth = kernel.shape[ndim:]
    if not channels_last:
        x = xp.permute_dims(x, (0, *range(2, ndim + 2), 1))
    n = x.shape[0]
    working = dtype_named(xp, "float32" if dtype in HALF_DTYPES else dtype)
    x = xp.astype(xp.reshape(x, (*x.shape[:-1], groups, depth)), working)
    kernel = xp.astype(kernel, working)
    if n and all(lengths):
        y = _gather(xp, x, kernel, phases, lengths)
    else:
        y = _zeros(xp, (n, *lengths, groups, width), x, kernel)
    if bias is not None:
        y = y + xp.reshape(xp.astype(bias, working), (groups, width))
    y = xp.reshape(y, (n, *lengths, groups * width))
    if activation is not None:
        y = activation(y)
    y = xp.astype(y, dtype_named(xp, dtype))
    return y if channels_last else xp.permute_dims(y, (0, ndim + 1, *range(1, ndim + 1)))


def _gather(
    xp: Namespace,
    x: Array,
    kernel: Array,
    phases: tuple[tuple[PhaseGroup, ...], ...],
    lengths: tuple[int, ...],
) -> Array:
    """The sums, as (samples, lengths..., groups, width)."""
    n, groups, width, ndim = x.shape[0], x.shape[-2], kernel.shape[-3], len(lengths)
    # Every group of phases gets the rows of the longest, so that they can be joined; the surplus is cut off.
    phases = tuple(
        tuple(dataclasses.replace(phase, rows=axis_phases[0].rows) for phase in axis_phases)
        for axis_phases in phases
    )
    starts = []
    for axis, axis_phases in enumerate(phases, start=1):
        before, after = rows_outside(axis_phases, x.shape[axis])
        x = zero_padded(x, axis, before, after)
        starts.append(before)

    def join(chosen: tuple[PhaseGroup, ...]) -> Array:
        """(samples, rows, phases, rows, phases, ..., groups, width) for all phases of the axes to come."""
        axis = len(chosen)
        if axis == ndim:
            return _product(xp, x, kernel, chosen, starts)
        parts = [join((*chosen, phase)) for phase in phases[axis]]
        return parts[0] if len(parts) == 1 else xp.concat(parts, axis=2 * axis + 2)

    y = join(())
    joined = (y.shape[2 * axis + 1] * y.shape[2 * axis + 2] for axis in range(ndim))
    y = xp.reshape(y, (n, *joined, groups, width))
    return y[(slice(None), *(slice(0, length) for length in lengths), slice(None), slice(None))]


def _product(
    xp: Namespace, x: Array, kernel: Array, chosen: tuple[PhaseGroup, ...], starts: list[int]
) -> Array:
    """The sums of one group of phases, as (samples, rows, phases, rows, phases, ..., groups, width)."""
    n, ndim = x.shape[0], len(chosen)
    width, groups, depth = kernel.shape[-3:]
    rows = tuple(phase.rows for phase in chosen)
    members = tuple(phase.count for phase in chosen)
    taps = tuple(itertools.product(*(range(phase.terms) for phase in chosen)))
    order = tuple(itertools.chain.from_iterable((1 + axis, 2 + ndim + axis) for axis in range(ndim)))
    shape = (n, *rows, groups, *members, width)
    if not taps:
        return _zeros(xp, tuple(shape[axis] for axis in (0, *order, 1 + ndim, 2 + 2 * ndim)), x, kernel)
    weights = _pick_taps(xp, kernel, chosen)
    at_once = max(1, min(_COPIES, _TERMS // depth))
    total = None
    for first in range(0, len(taps), at_once):
        some = taps[first : first + at_once]
        pieces = [_rows_of_tap(x, chosen, starts, tap) for tap in some]
        window = xp.concat(pieces, axis=-1) if len(pieces) > 1 else pieces[0]
        terms = len(some) * depth
        window = xp.permute_dims(xp.reshape(window, (n * math.prod(rows), groups, terms)), (1, 0, 2))
        matrix = xp.reshape(weights[:, first : first + len(some), :, :], (groups, terms, -1))
        product = xp.matmul(window, matrix)
        total = product if total is None else total + product
    total = xp.reshape(xp.permute_dims(total, (1, 0, 2)), shape)
    return xp.permute_dims(total, (0, *order, 1 + ndim, 2 + 2 * ndim))


def _zeros(xp: Namespace, shape: tuple[int, ...], x: Array, kernel: Array) -> Array:
    """Zeros that autodiff can follow to `x` and `kernel`, although they hang on no element of them."""
    return xp.zeros(shape, dtype=x.dtype, device=device_of(x)) + xp.sum(x[:0, ...]) + xp.sum(kernel[:0, ...])


def _rows_of_tap(x: Array, chosen: tuple[PhaseGroup, ...], starts: list[int], tap: tuple[int, ...]) -> Array:
    index = []
    for phase, start, m in zip(chosen, starts, tap, strict=True):
        first = start + phase.offset + m * phase.hop
        index.append(slice(first, first + (phase.rows - 1) * phase.row_step + 1, phase.row_step))
    return x[(slice(None), *index, slice(None), slice(None))]


def _pick_taps(xp: Namespace, kernel: Array, chosen: tuple[PhaseGroup, ...]) -> Array:
    """The weights of one group of phases, as (groups, all taps, depth, all phases * width)."""
    ndim = len(chosen)
    for axis, phase in enumerate(chosen):
        flat = [tap for taps in phase.taps for tap in taps]
        kernel = xp.take(kernel, indices(flat, kernel), axis=axis)
    split = ((phase.count, phase.terms) for phase in chosen)
    width, groups, depth = kernel.shape[ndim:]
    kernel = xp.reshape(kernel, (*itertools.chain.from_iterable(split), width, groups, depth))
    order = (2 * ndim + 1, *range(1, 2 * ndim, 2), 2 * ndim + 2, *range(0, 2 * ndim, 2), 2 * ndim)
    taps = math.prod(phase.terms for phase in chosen)
    return xp.reshape(xp.permute_dims(kernel, order), (groups, taps, depth, -1))
