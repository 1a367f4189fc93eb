"""NumPy arrays: BLAS over cache-sized blocks.

Three ways, all of which store each output element once:

* window GEMM: gather the input rows that an output row needs, one matrix product per block;
* overlap-add GEMM: one product makes all taps of a block of input rows, shifted adds place them;
* tap loop: one multiply-add per tap, where a product would have a single channel to sum over.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

import numpy as np
from numpy.lib.stride_tricks import as_strided

from gpuconv._typing import Array
from gpuconv.backends.prepared import Prepared, only
from gpuconv.geometry import ConvGeometry
from gpuconv.namespace import HALF_DTYPES, may_overlap
from gpuconv.phases import PhaseGroup, conv_phases, rows_outside, transpose_phases

__all__ = ["conv", "conv_transpose", "kernel_gradient", "prepare"]

#: Elements of one block's window and result: 1 MiB of float32, half of a common L2 cache.
_BLOCK = 1 << 18
#: Fewest rows of a block: below that, a product spends its time on reading the weights.
_LEAST_ROWS = 256

_Finish: TypeAlias = Callable[[np.ndarray], np.ndarray]


def conv_transpose(
    geometry: ConvGeometry,
    x: np.ndarray,
    kernel: np.ndarray,
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

    `precision` permits a backend to round float32 factors; it does not oblige, and this one never does.
    `algorithm` and `workspace` are what `prepare` gave: here each geometry has one, and needs none.
    """
    del precision, algorithm, workspace
    return _run(geometry, x, kernel, bias, activation, channels_last, dtype, out, transposed=True)


def conv(
    geometry: ConvGeometry,
    x: np.ndarray,
    kernel: np.ndarray,
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
    del precision, algorithm, workspace
    return _run(geometry, x, kernel, bias, activation, channels_last, dtype, out, transposed=False)


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
    """Say how a convolution would be computed; nothing of it depends on more than the geometry."""
    del samples, kernel, activation, channels_last, dtype, precision
    groups = geometry.groups
    depth = (geometry.in_channels if transposed else geometry.filters) // groups
    if transposed and prefers_overlap_add(geometry):
        return only("overlap-add GEMM", "more input channels than a stride's outputs", algorithm)
    if prefers_tap_loop(groups, depth):
        return only("tap loop", "one channel to sum over in each of many groups", algorithm)
    return only("window GEMM", "a matrix product for each block of rows and group of phases", algorithm)


def _run(
    geometry: ConvGeometry,
    x: np.ndarray,
    kernel: np.ndarray,
    bias: np.ndarray | None,
    activation: Callable[[Array], Array] | None,
    channels_last: bool,
    dtype: str,
    out: np.ndarray | None,
    *,
    transposed: bool,
) -> np.ndarray:
    shape = geometry.result_shape(x.shape[0], transposed=transposed, channels_last=channels_last)
    # Half types accumulate in float32 and are rounded once.
    working = np.dtype(np.float32) if dtype in HALF_DTYPES else np.dtype(dtype)
    given = (array for array in (x, kernel, bias) if array is not None)
    overlapping = out is not None and any(may_overlap(out, array) for array in given)
    result = np.empty(shape, np.dtype(dtype)) if out is None or overlapping else out

    def finish(block: np.ndarray) -> np.ndarray:
        if bias is not None:
            block += bias.reshape(geometry.groups, -1)
        return block if activation is None else activation(block)

    if result.size:
        source, target = (_split_channels(array, channels_last, geometry.groups) for array in (x, result))
        weights = _split_channels(kernel.astype(working, copy=False), True, geometry.groups)
        if not transposed:
            _gather(source, weights.swapaxes(-1, -3), finish, target, tuple(map(conv_phases, geometry.axes)))
        elif prefers_overlap_add(geometry):
            _overlap_add(geometry, source, weights, finish, target)
        else:
            _gather(source, weights, finish, target, tuple(map(transpose_phases, geometry.axes)))
    if out is None or result is out:
        return result
    out[...] = result
    return out


def prefers_overlap_add(geometry: ConvGeometry) -> bool:
    """Whether placing columns moves less memory than gathering windows: few filters, many channels."""
    if len(geometry.axes) > 1 or geometry.axes[0].dilation > 1:
        return False
    return geometry.axes[0].stride * geometry.filters < geometry.in_channels


def prefers_tap_loop(groups: int, depth: int) -> bool:
    """Whether to multiply tap by tap: one channel to sum over, and enough groups to fill a vector."""
    return depth == 1 and groups >= 8


def _split_channels(array: np.ndarray, channels_last: bool, groups: int) -> np.ndarray:
    """A view (samples, lengths..., groups, channels per group)."""
    view = array if channels_last else np.moveaxis(array, 1, -1)
    return view.reshape(*view.shape[:-1], groups, view.shape[-1] // groups)


# --- window GEMM and tap loop --------------------------------------------------------------------


def _gather(
    x: np.ndarray,
    weights: np.ndarray,
    finish: _Finish,
    out: np.ndarray,
    phases: tuple[tuple[PhaseGroup, ...], ...],
) -> None:
    """Compute `out` group of phases by group of phases.

    `x` is (samples, lengths..., groups, depth), `out` (samples, lengths..., groups, width), `weights`
    (kernel..., width, groups, depth).
    """
    x, starts = _zero_padded(x, weights.dtype, phases)
    n, groups, depth = x.shape[0], *x.shape[-2:]
    product = _tap_loop if prefers_tap_loop(groups, depth) else _window_gemm
    for combination in itertools.product(*phases):
        windows = _windows(x, starts, combination)
        places = _places(out, combination)
        chosen = _pick_taps(weights, combination)
        rows = tuple(phase.rows for phase in combination)
        reads, makes = math.prod(windows.shape[1:]), math.prod(places.shape[1:])
        for samples, some in _blocks(n, rows, (reads + makes) // math.prod(rows)):
            places[samples, some] = finish(product(windows[samples, some], chosen))


def _windows(x: np.ndarray, starts: tuple[int, ...], combination: tuple[PhaseGroup, ...]) -> np.ndarray:
    """A view (samples, rows..., taps..., groups, depth) of the input rows that every output row reads."""
    ndim = len(combination)
    # A phase without taps reads nothing, wherever it would start.
    corner = (
        slice(start + phase.offset if phase.taps else 0, None)
        for start, phase in zip(starts, combination, strict=True)
    )
    steps = x.strides[1 : 1 + ndim]
    shape = (*(phase.rows for phase in combination), *(phase.terms for phase in combination))
    strides = (
        *(step * phase.row_step for step, phase in zip(steps, combination, strict=True)),
        *(step * phase.hop for step, phase in zip(steps, combination, strict=True)),
    )
    return as_strided(
        x[(slice(None), *corner)],
        (x.shape[0], *shape, *x.shape[-2:]),
        (x.strides[0], *strides, *x.strides[-2:]),
        writeable=False,
    )


def _places(out: np.ndarray, combination: tuple[PhaseGroup, ...]) -> np.ndarray:
    """A view (samples, rows, phases, rows, phases, ..., groups, width) of the output of these phases."""
    steps = out.strides[1 : 1 + len(combination)]
    shape = _interleave((phase.rows for phase in combination), (phase.count for phase in combination))
    row_steps = (step * phase.out_step for step, phase in zip(steps, combination, strict=True))
    return as_strided(
        out[(slice(None), *(slice(phase.first, None) for phase in combination))],
        (out.shape[0], *shape, *out.shape[-2:]),
        (out.strides[0], *_interleave(row_steps, steps), *out.strides[-2:]),
    )


def _zero_padded(
    x: np.ndarray, dtype: np.dtype, phases: tuple[tuple[PhaseGroup, ...], ...]
) -> tuple[np.ndarray, tuple[int, ...]]:
    """`x` with zeros where a phase reads outside, and the index of its first row on each axis."""
    pads = [rows_outside(group, length) for group, length in zip(phases, x.shape[1:], strict=False)]
    starts = tuple(before for before, _ in pads)
    if not any(before or after for before, after in pads):
        return x.astype(dtype, copy=False), starts
    lengths = (length + sum(pad) for length, pad in zip(x.shape[1:], pads, strict=False))
    padded = np.zeros((x.shape[0], *lengths, *x.shape[-2:]), dtype)
    inner = (slice(before, before + length) for (before, _), length in zip(pads, x.shape[1:], strict=False))
    padded[(slice(None), *inner)] = x
    return padded, starts


def _pick_taps(weights: np.ndarray, combination: tuple[PhaseGroup, ...]) -> np.ndarray:
    """The weights of one group of phases, as (groups, taps..., depth, phases..., width)."""
    ndim = len(combination)
    index = []
    for axis, phase in enumerate(combination):
        shape = [1] * (2 * ndim)
        shape[axis], shape[ndim + axis] = phase.terms, phase.count
        taps = np.array(phase.taps, dtype=np.intp).reshape(phase.count, phase.terms)
        index.append(taps.T.reshape(shape))
    picked = weights[tuple(index)]  # (taps..., phases..., width, groups, depth)
    order = (2 * ndim + 1, *range(ndim), 2 * ndim + 2, *range(ndim, 2 * ndim), 2 * ndim)
    return np.ascontiguousarray(picked.transpose(order))


def _window_gemm(windows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    ndim = (windows.ndim - 3) // 2
    groups, phases, width = weights.shape[0], weights.shape[ndim + 2 : -1], weights.shape[-1]
    samples_and_rows = windows.shape[: ndim + 1]
    depth = math.prod(weights.shape[1 : ndim + 2])
    gathered = np.moveaxis(windows, -2, 0).reshape(groups, math.prod(samples_and_rows), depth)
    product = gathered @ weights.reshape(groups, depth, math.prod(phases) * width)
    product = product.reshape(groups, *samples_and_rows, *phases, width)
    order = _interleave(range(2, ndim + 2), range(ndim + 2, 2 * ndim + 2))
    return product.transpose(1, *order, 0, -1)


def _tap_loop(windows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    ndim = (windows.ndim - 3) // 2
    taps, phases = weights.shape[1 : ndim + 1], weights.shape[ndim + 2 : -1]
    groups, width = weights.shape[0], weights.shape[-1]
    rows = windows.shape[1 : ndim + 1]
    total = np.zeros((windows.shape[0], *_interleave(rows, phases), groups, width), weights.dtype)
    term = np.empty_like(total)
    per_tap = (windows.shape[0], *_interleave(rows, (1,) * ndim), groups, 1)
    for tap in np.ndindex(*taps):
        inputs = windows[(slice(None), *(slice(None),) * ndim, *tap)].reshape(per_tap)
        factors = np.moveaxis(weights[(slice(None), *tap, 0)], 0, -2)  # (phases..., groups, width)
        factors = factors.reshape(*_interleave((1,) * ndim, phases), groups, width)
        total += np.multiply(inputs, factors, out=term)
    return total


# --- overlap-add GEMM ----------------------------------------------------------------------------


def _overlap_add(
    geometry: ConvGeometry, x: np.ndarray, weights: np.ndarray, finish: _Finish, out: np.ndarray
) -> None:
    """Compute a 1-D `out` row by row: a row of `stride` samples is done when `overlap` more have passed."""
    (axis,) = geometry.axes
    s, k = axis.stride, axis.kernel
    overlap = -(-k // s) - 1
    n, length, groups, depth = x.shape
    width = out.shape[-1]
    # (groups, depth, k * width): a transposed view of the kernel when there is one group.
    matrix = weights.transpose(2, 0, 1, 3).reshape(groups, k * width, depth).swapaxes(1, 2)

    def store(samples: slice, start: int, full: np.ndarray) -> None:
        """Store the full output's samples from `start` on, as far as the crops leave them."""
        first = max(start, axis.crop_left)
        last = min(start + full.shape[1], axis.crop_left + axis.out_length)
        if first < last:
            kept = finish(full[:, first - start : last - start])
            out[samples, first - axis.crop_left : last - axis.crop_left] = kept

    for samples, blocks in itertools.groupby(
        _blocks(n, (length,), groups * (depth + 2 * k * width)), key=lambda block: block[0]
    ):
        count = samples.stop - samples.start
        carry = np.zeros((count, overlap, s, groups, width), matrix.dtype)
        for _, rows in blocks:
            t = rows.stop - rows.start
            block = x[samples, rows].astype(matrix.dtype, copy=False)
            columns = np.moveaxis(block, 2, 0).reshape(groups, count * t, depth) @ matrix
            columns = columns.reshape(groups, count, t, k, width).transpose(1, 2, 3, 0, 4)
            full = np.zeros((count, t + overlap, s, groups, width), matrix.dtype)
            full[:, :overlap] = carry
            for q in range(overlap + 1):
                part = columns[:, :, q * s : (q + 1) * s]
                full[:, q : q + t, : part.shape[2]] += part
            carry = full[:, t:].copy()
            store(samples, rows.start * s, full[:, :t].reshape(count, t * s, groups, width))
        done = (length + overlap) * s
        store(samples, length * s, carry.reshape(count, overlap * s, groups, width))
        beyond = axis.crop_left + axis.out_length - done
        if beyond > 0:
            store(samples, done, np.zeros((count, beyond, groups, width), matrix.dtype))


# --- the gradient of the kernel ------------------------------------------------------------------


def kernel_gradient(
    geometry: ConvGeometry,
    x: np.ndarray,
    dy: np.ndarray,
    *,
    channels_last: bool,
    dtype: str,
    transposed: bool,
) -> np.ndarray:
    """The kernel's cotangent, in the kernel's shape, when that of the result is `dy`.

    Each tap weighs pairs of what it read and what it made: the windows of the longer of the two, `dy` when
    the convolution is transposed, times the rows of the other.
    """
    working = np.dtype(np.float32) if dtype in HALF_DTYPES else np.dtype(dtype)
    x, dy = (array.astype(working, copy=False) for array in (np.conj(x), dy))
    long, short = (
        _split_channels(a, channels_last, geometry.groups) for a in ((dy, x) if transposed else (x, dy))
    )
    phases = tuple(map(conv_phases, geometry.axes))
    long, starts = _zero_padded(long, working, phases)
    (combination,) = itertools.product(*phases)
    windows = _windows(long, starts, combination)
    n, ndim = short.shape[0], len(combination)
    groups, width, depth = short.shape[-2], long.shape[-1], short.shape[-1]
    taps, rows = windows.shape[ndim + 1 : -2], short.shape[1:-2]
    total = np.zeros((groups, math.prod(taps) * width, depth), working)
    per_row = groups * (math.prod(taps) * width + depth)
    for samples, some in _blocks(n, rows, per_row) if math.prod(rows) else ():
        window, row = windows[samples, some], short[samples, some]
        count = math.prod(row.shape[:-2])
        gathered = np.moveaxis(window, -2, 0).reshape(groups, count, -1)
        total += gathered.swapaxes(1, 2) @ np.moveaxis(row, -2, 0).reshape(groups, count, depth)
    # (groups, taps, width, depth) -> (taps..., width, groups * depth)
    total = total.reshape(groups, *taps, width, depth)
    return np.moveaxis(total, 0, -2).reshape(*taps, width, groups * depth).astype(np.dtype(dtype), copy=False)


# --- small parts ---------------------------------------------------------------------------------


def _blocks(n: int, rows: tuple[int, ...], size: int) -> Iterator[tuple[slice, slice]]:
    """Slices of samples and of first-axis rows; `size` is the elements that one row takes."""
    per_first_row = math.prod(rows[1:])
    most = max(_LEAST_ROWS, _BLOCK // max(1, size))
    step = max(1, most // max(1, per_first_row))
    batch = max(1, step // max(1, rows[0]))
    for i in range(0, n, batch):
        for t in range(0, rows[0], step):
            yield slice(i, min(i + batch, n)), slice(t, min(t + step, rows[0]))


def _interleave(first: Iterable[int], second: Iterable[int]) -> tuple[int, ...]:
    return tuple(itertools.chain.from_iterable(zip(first, second, strict=True)))
