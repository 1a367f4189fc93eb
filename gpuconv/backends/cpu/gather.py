"""The ways for every geometry: gather the windows of a block, then one product, or one sum over taps.

Any number of axes, dilation with stride, groups and both layouts: each group of phases is a gather.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable
from typing import TypeAlias

import numpy as np
from numpy.lib.stride_tricks import as_strided

from gpuconv.backends.cpu import threads
from gpuconv.backends.cpu.call import Algorithm, Arrays, Call, Cost, blocks, padded
from gpuconv.phases import PhaseGroup, conv_phases, rows_outside, transpose_phases

__all__ = ["GATHER", "TAPS", "channels_apart", "windows_of", "zero_padded"]

_Phases: TypeAlias = tuple[tuple[PhaseGroup, ...], ...]
_Product: TypeAlias = Callable[[np.ndarray, np.ndarray], np.ndarray]

#: Elements of an input that are copied with zeros around them at a time: 32 MiB of float32.
_MOST_PADDED = 1 << 23


def _phases_of(call: Call) -> _Phases:
    return tuple(map(transpose_phases if call.transposed else conv_phases, call.geometry.axes))


def _pack(call: Call, kernel: np.ndarray) -> list[np.ndarray]:
    """For each group of phases (groups, taps..., depth, phases..., width)."""
    weights = call.oriented(kernel)
    return [_pick_taps(weights, combination) for combination in itertools.product(*_phases_of(call))]


def _pick_taps(weights: np.ndarray, combination: tuple[PhaseGroup, ...]) -> np.ndarray:
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


def _run(call: Call, packed: list[np.ndarray], arrays: Arrays, parts: int, *, by_tap: bool) -> None:
    # A copy of the input with zeros around it is kept for so many samples at a time.
    sample = math.prod(call.reads) * call.depth * call.geometry.groups
    together = max(1, _MOST_PADDED // sample) if sample else call.samples
    for first in range(0, call.samples, together):
        some = slice(first, first + together)
        part = arrays._replace(x=arrays.x[some], out=arrays.out[some])
        _run_samples(call, packed, part, parts, _sum_over_taps if by_tap else _gathered_product)


def _run_samples(call: Call, packed: list[np.ndarray], arrays: Arrays, parts: int, product: _Product) -> None:
    phases, groups = _phases_of(call), call.geometry.groups
    x, out = (channels_apart(array, call.channels_last, groups) for array in (arrays.x, arrays.out))
    x, starts = zero_padded(x, call.dtype, phases)
    bias = None if arrays.bias is None else arrays.bias.reshape(groups, -1)
    tasks = []
    for combination, weights in zip(itertools.product(*phases), packed, strict=True):
        windows = windows_of(x, starts, combination)
        places = _places(out, combination)
        rows = tuple(phase.rows for phase in combination)
        reads, makes = math.prod(windows.shape[1:]), math.prod(places.shape[1:])
        # Blocks are of whole rows of the axes after the first.
        per_row = (reads + makes) // rows[0]
        tasks += [
            functools.partial(_block, product, windows[some], weights, bias, arrays, places[some])
            for some in blocks(len(x), rows[0], per_row, parts, inner=math.prod(rows[1:]))
        ]
    threads.run(tasks, apart=parts > 1)


def _block(
    product: _Product,
    windows: np.ndarray,
    weights: np.ndarray,
    bias: np.ndarray | None,
    arrays: Arrays,
    place: np.ndarray,
) -> None:
    arrays.deliver(product(windows, weights), place, bias)


def _gathered_product(windows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    ndim = (windows.ndim - 3) // 2
    groups, phases, width = weights.shape[0], weights.shape[ndim + 2 : -1], weights.shape[-1]
    samples_and_rows = windows.shape[: ndim + 1]
    depth = math.prod(weights.shape[1 : ndim + 2])
    gathered = np.moveaxis(windows, -2, 0).reshape(groups, math.prod(samples_and_rows), depth)
    product = np.matmul(gathered, weights.reshape(groups, depth, math.prod(phases) * width))
    product = product.reshape(groups, *samples_and_rows, *phases, width)
    order = _interleave(range(2, ndim + 2), range(ndim + 2, 2 * ndim + 2))
    return product.transpose(1, *order, 0, -1)


def _sum_over_taps(windows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Multiply-adds along the groups, tap after tap, where there is one channel to sum over."""
    ndim = (windows.ndim - 3) // 2
    phases, groups, width = weights.shape[ndim + 2 : -1], weights.shape[0], weights.shape[-1]
    samples, rows = windows.shape[0], windows.shape[1 : ndim + 1]
    total = np.empty((samples, *_interleave(rows, phases), groups, width), weights.dtype)
    axes = "abc"[:ndim], "ijk"[:ndim]
    sums = f"n{axes[0]}{axes[1]}g,{axes[1]}g->n{axes[0]}g"
    for phase in np.ndindex(*phases):
        index = itertools.chain.from_iterable((slice(None), p) for p in phase)
        place = total[(slice(None), *index)]
        factors = np.moveaxis(weights[(slice(None), *(slice(None),) * ndim, 0, *phase)], 0, -2)
        for filter_ in range(width):
            np.einsum(
                sums, windows[..., 0], np.ascontiguousarray(factors[..., filter_]), out=place[..., filter_]
            )
    return total


def channels_apart(array: np.ndarray, channels_last: bool, groups: int) -> np.ndarray:
    """A view (samples, lengths..., groups, channels per group)."""
    view = array if channels_last else np.moveaxis(array, 1, -1)
    return view.reshape(*view.shape[:-1], groups, view.shape[-1] // groups)


def windows_of(x: np.ndarray, starts: tuple[int, ...], combination: tuple[PhaseGroup, ...]) -> np.ndarray:
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


def zero_padded(x: np.ndarray, dtype: np.dtype, phases: _Phases) -> tuple[np.ndarray, tuple[int, ...]]:
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


def _interleave(first: Iterable[int], second: Iterable[int]) -> tuple[int, ...]:
    return tuple(itertools.chain.from_iterable(zip(first, second, strict=True)))


# --- what it costs -------------------------------------------------------------------------------


def _work(call: Call) -> tuple[int, int, int]:
    """Multiply-adds, elements gathered, and elements made."""
    taps = made = 0
    for combination in itertools.product(*_phases_of(call)):
        rows = call.samples * math.prod(phase.rows for phase in combination)
        count = math.prod(phase.count for phase in combination)
        terms = math.prod(phase.terms for phase in combination)
        taps += rows * terms * call.depth * call.geometry.groups * count * call.width
        made += rows * terms * call.depth * call.geometry.groups
    return taps, made, call.samples * math.prod(call.makes) * call.width * call.geometry.groups


def _gather_cost(call: Call) -> Cost:
    multiply_adds, gathered, made = _work(call)
    columns = call.width * (call.axis.stride if call.transposed else 1)
    narrow = padded(columns) / columns
    read = call.samples * math.prod(call.reads) * call.depth * call.geometry.groups
    turned = 0 if call.channels_last else 2 * (gathered + made)
    copied = 2 * gathered + made + read + turned
    return Cost(int(multiply_adds * narrow), int(made * narrow), copied, 12, call.weights)


def _taps_cost(call: Call) -> Cost:
    multiply_adds, _, made = _work(call)
    # A multiply-add along few groups costs as much as along 64.
    share = max(1, -(-64 // call.geometry.groups))
    # They do not lie beside each other where channels are first.
    share *= 1 if call.channels_last else 4
    phases = math.prod(axis.stride for axis in call.geometry.axes) if call.transposed else 1
    return Cost(0, 0, (multiply_adds * share) // 2 + made, 12 + phases * call.width, call.weights)


GATHER = Algorithm(
    "gather GEMM",
    "windows are copied, then multiplied by the weights of each group of phases",
    lambda _call: "",
    _gather_cost,
    _pack,
    functools.partial(_run, by_tap=False),
)
TAPS = Algorithm(
    "tap loop",
    "a multiply-add along the groups for each tap",
    lambda call: "" if call.depth == 1 else "for one channel in each group",
    _taps_cost,
    _pack,
    functools.partial(_run, by_tap=True),
)
