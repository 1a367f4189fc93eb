"""The gathered product of gather.cuh, 1 axis: with multiply-adds (tile.cu) and on tensor cores (mma.cu)."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from gpuconv.backends.cuda.call import (
    MOST_BLOCKS_Z,
    Algorithm,
    Arrays,
    Call,
    Work,
    congruence,
    is_wide,
    options_of,
    steps_of,
    struct_of,
)
from gpuconv.backends.cuda.device import Device, Launch, source_of
from gpuconv.namespace import HALF_DTYPES
from gpuconv.phases import PhaseGroup, conv_phases, transpose_phases

__all__ = ["MMA", "TILES"]

_GATHER = np.dtype(
    [
        (name, np.int64)
        for name in (
            *("samples", "groups", "rows", "phases", "width", "terms", "depth"),
            *("row_step", "offset", "hop", "in_length", "tap", "tap_step", "period"),
            *("x_sample", "x_row", "x_channel", "w_tap", "w_column", "w_depth"),
            *("y_sample", "y_row", "y_phase", "y_channel"),
        )
    ]
)
_THREADS = 256
# Products of TF32 numbers that make one of float32. ops never ask for "3xtf32": it would be chosen for "ieee"
# where a measurement on a device has shown that it wins, and where no operand is infinite.
_TF32_PRODUCTS = {"tf32": 1, "3xtf32": 3}


class _Tile(NamedTuple):
    """A kernel that runs the struct Gather of gather.cuh, and what one of its blocks makes at a time."""

    source: str
    entry: str
    rows: int
    columns: int
    step: int


def _refuses_axes(call: Call, capability: tuple[int, int]) -> str:
    del capability
    return "for 1 axis only" if len(call.geometry.axes) > 1 else ""


def _refuses_mma(call: Call, capability: tuple[int, int]) -> str:
    if capability < (8, 0):
        return "needs compute capability 8.0"
    if call.dtype == "float32" and call.precision not in _TF32_PRODUCTS:
        return 'rounds float32 to TF32, which precision="tf32" permits'
    if call.dtype != "float32" and call.dtype not in HALF_DTYPES:
        return f"no tensor core sums {call.dtype}"
    return _refuses_axes(call, capability)


def _phases_of(call: Call) -> tuple[PhaseGroup, ...]:
    (axis,) = call.geometry.axes
    return transpose_phases(axis) if call.transposed else conv_phases(axis)


def _grid(tile: _Tile, call: Call, phases: PhaseGroup) -> tuple[int, int, int]:
    return (
        -(-phases.rows // tile.rows),
        -(-phases.count * call.width // tile.columns),
        call.samples * call.geometry.groups,
    )


def _work(tile: _Tile, call: Call) -> Work:
    multiply_adds = blocks = 0
    every = _phases_of(call)
    for phases in every:
        here = int(np.prod(_grid(tile, call, phases), dtype=np.int64))
        terms = -(-phases.terms * call.depth // tile.step) * tile.step
        multiply_adds += here * tile.rows * tile.columns * terms
        blocks += here
    return Work(multiply_adds, call.bytes_moved, blocks, len(every))


def _function(tile: _Tile, device: Device, call: Call, wide: bool) -> Launch:
    options = options_of(call.dtype, call.fused, call.channels_last, call.transposed, wide)
    if tile is _MMA:
        products = _TF32_PRODUCTS[call.precision] if call.dtype == "float32" else 0
        options = (*options, f"-DGPUCONV_TF32={products}")
    return device.function(source_of(tile.source), tile.entry, options)


def _launch(tile: _Tile, device: Device, call: Call, arrays: Arrays) -> None:
    x, kernel, bias, result = arrays[:4]
    launch = _function(tile, device, call, is_wide(call, x, kernel, result))
    for phases in _phases_of(call):
        gather = _gather(call, phases, arrays)
        place = result[:, phases.first :, :] if call.channels_last else result[:, :, phases.first :]
        *rows_and_columns, planes = _grid(tile, call, phases)
        grid = (*rows_and_columns, min(planes, MOST_BLOCKS_Z))
        launch(grid, (_THREADS,), (x, kernel, bias, place, gather))


def _gather(call: Call, phases: PhaseGroup, arrays: Arrays) -> np.void:
    """The struct Gather of gather.cuh."""
    x, kernel, _, result = arrays[:4]
    (axis,) = call.geometry.axes
    w_tap, *w_steps = steps_of(kernel)
    w_column, w_depth = w_steps if call.transposed else reversed(w_steps)
    time, channel = (1, 2) if call.channels_last else (2, 1)
    x_steps, y_steps = steps_of(x), steps_of(result)
    if call.transposed:
        _, period, inverse = congruence(axis)
        # Down the taps of a phase, up the rows; the phases of a group start `inverse` taps apart.
        first, hop, tap = phases.offset, phases.hop, phases.taps[0][-1] if phases.taps else 0
    else:
        # The same order for the forward convolution: down its taps, down the rows.
        period, inverse, tap = 1, 0, 0
        first, hop = phases.offset + (phases.terms - 1) * phases.hop, -phases.hop
    return struct_of(
        _GATHER,
        samples=x.shape[0],
        groups=call.geometry.groups,
        rows=phases.rows,
        phases=phases.count,
        width=call.width,
        terms=phases.terms,
        depth=call.depth,
        row_step=phases.row_step,
        offset=first,
        hop=hop,
        in_length=x.shape[time],
        tap=tap,
        tap_step=inverse,
        period=period,
        x_sample=x_steps[0],
        x_row=x_steps[time],
        x_channel=x_steps[channel],
        w_tap=w_tap,
        w_column=w_column,
        w_depth=w_depth,
        y_sample=y_steps[0],
        y_row=y_steps[time] * phases.out_step,
        y_phase=y_steps[time],
        y_channel=y_steps[channel],
    )


_MMA = _Tile("mma.cu", "mma_gather", 128, 64, 32)
_TILES = (_Tile("tile.cu", "tile_gather", 64, 64, 16),)


def _algorithm(name: str, tile: _Tile) -> Algorithm:
    return Algorithm(
        name,
        _refuses_mma if tile is _MMA else _refuses_axes,
        functools.partial(_work, tile),
        functools.partial(_function, tile),
        functools.partial(_launch, tile),
    )


MMA = _algorithm("mma", _MMA)
TILES = tuple(_algorithm(f"tile-{tile.rows}x{tile.columns}", tile) for tile in _TILES)
