"""CuPy arrays: our own CUDA kernels, launched on the current stream.

Nothing here synchronises, and nothing is allocated but the result. The device is asked for through a small
interface (`Device`), so that the same launch code runs on a GPU and, in the tests, on an emulator.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import math
import re
from collections.abc import Callable
from importlib import resources
from typing import Any, NamedTuple, Protocol

import numpy as np

from gpuconv import activations
from gpuconv._typing import Array
from gpuconv.geometry import AxisGeometry, ConvGeometry
from gpuconv.namespace import DTYPES, HALF_DTYPES, array_namespace, dtype_named
from gpuconv.phases import PhaseGroup, conv_phases, transpose_phases

__all__ = ["Device", "conv", "conv_transpose", "source_of"]

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
# The numbers are those of activate() in common.cuh.
_FUSED: dict[Callable[..., Array], int] = {
    activations.relu: 1,
    activations.relu6: 2,
    activations.leaky_relu: 3,
    activations.elu: 4,
    activations.tanh: 5,
    activations.sigmoid: 6,
    activations.silu: 7,
    activations.exponential: 8,
}
_THREADS = 256
_MOST_BLOCKS_Z = 65535
# Products of TF32 numbers that make one of float32. ops never ask for "3xtf32": it would be chosen for "ieee"
# where a measurement on a device has shown that it wins, and where no operand is infinite.
_TF32_PRODUCTS = {"tf32": 1, "3xtf32": 3}


class Device(Protocol):
    """What launch code needs of a device: memory and kernels."""

    @property
    def capability(self) -> tuple[int, int]:
        """The compute capability, such as (9, 0)."""

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Memory for an array in C order, its values undefined."""

    def function(self, source: str, entry: str, options: tuple[str, ...]) -> Callable[..., None]:
        """``launch(grid, block, args)`` of the kernel `entry` of the CUDA text `source`."""


class _CupyDevice:
    """The current device of CuPy."""

    def __init__(self) -> None:
        self._cupy = importlib.import_module("cupy")

    @property
    def capability(self) -> tuple[int, int]:
        digits = self._cupy.cuda.Device().compute_capability  # the last one is the minor number
        return int(digits[:-1]), int(digits[-1])

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        return self._cupy.empty(shape, dtype)

    def function(self, source: str, entry: str, options: tuple[str, ...]) -> Callable[..., None]:
        return _cupy_function(source, entry, options, self._cupy.cuda.Device().id)


@functools.lru_cache(maxsize=512)
def _cupy_function(source: str, entry: str, options: tuple[str, ...], device: int) -> Callable[..., None]:
    del device  # part of the key: a module belongs to the device that it was loaded on
    kernel = importlib.import_module("cupy").RawModule(code=source, options=options).get_function(entry)

    def launch(grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...]) -> None:
        # CuPy passes a struct by value when it is given as a NumPy array of one.
        kernel(grid, block, tuple(np.asarray(a).reshape(1) if isinstance(a, np.void) else a for a in args))

    return launch


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
    device: Device | None = None,
) -> Array:
    """Run the transposed convolution; `device` is CuPy unless a test brings its own.

    The other arguments are those of `backends.numpy_.conv_transpose`.
    """
    with x.device if device is None else contextlib.nullcontext():
        call = _Call(device or _CupyDevice(), geometry, channels_last, dtype, precision, transposed=True)
        return _run(call, x, kernel, bias, activation, out)


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
    device: Device | None = None,
) -> Array:
    """Run the forward convolution. Arguments are those of `conv_transpose`."""
    with x.device if device is None else contextlib.nullcontext():
        call = _Call(device or _CupyDevice(), geometry, channels_last, dtype, precision, transposed=False)
        return _run(call, x, kernel, bias, activation, out)


class _Call(NamedTuple):
    """What is asked for, without the arrays."""

    device: Device
    geometry: ConvGeometry
    channels_last: bool
    dtype: str
    precision: str
    transposed: bool


class _Arrays(NamedTuple):
    """Of one element type, on the device."""

    x: Array
    kernel: Array
    bias: Array | None
    result: Array


def _run(
    call: _Call,
    x: Array,
    kernel: Array,
    bias: Array | None,
    activation: Callable[[Array], Array] | None,
    out: Array | None,
) -> Array:
    device, geometry, channels_last, dtype, precision, transposed = call
    xp = array_namespace(x=x)
    element = dtype_named(xp, dtype)
    x, kernel = (array.astype(element, copy=False) for array in (x, kernel))
    bias = None if bias is None else xp.ascontiguousarray(bias.astype(element, copy=False))
    shape = geometry.result_shape(x.shape[0], transposed=transposed, channels_last=channels_last)
    overlapping = out is not None and any(
        xp.may_share_memory(out, array) for array in (x, kernel, bias) if array is not None
    )
    result = device.empty(shape, element) if out is None or overlapping else out
    fused = 0 if activation is None or dtype.startswith("complex") else _FUSED.get(activation, 0)
    if math.prod(shape):
        arrays = _Arrays(x, kernel, bias, result)
        if prefers_tiles(geometry, transposed=transposed):
            gatherer = _MMA if prefers_tensor_cores(device, dtype, precision) else _TILE
            _launch_gather(gatherer, call, arrays, fused)
        else:
            _launch_direct(call, arrays, fused)
    if activation is not None and not fused:
        result[...] = activation(result)
    if out is None or result is out:
        return result
    out[...] = result
    return out


def prefers_tiles(geometry: ConvGeometry, *, transposed: bool) -> bool:
    """Whether a block's tile of sums has enough rows, columns and terms to be worth gathering for."""
    if len(geometry.axes) > 1:
        return False
    (axis,) = geometry.axes
    width, depth = geometry.filters // geometry.groups, geometry.in_channels // geometry.groups
    if not transposed:
        return depth >= 16 and axis.kernel * width >= 16
    return axis.stride * width >= 16 and -(-axis.kernel // axis.stride) * depth >= 16


def prefers_tensor_cores(device: Device, dtype: str, precision: str) -> bool:
    """Whether tiles are for tensor cores: halves lose nothing there, float32 only goes where it may."""
    permitted = dtype in HALF_DTYPES or (dtype == "float32" and precision in _TF32_PRODUCTS)
    return permitted and device.capability >= (8, 0)


# --- kernels and their sources -------------------------------------------------------------------


@functools.cache
def source_of(name: str) -> str:
    """The CUDA text of `name`, with what it includes of ours."""
    folder = resources.files("gpuconv.backends").joinpath("cuda")
    text = folder.joinpath(name).read_text(encoding="utf-8")
    return re.sub(r'#include "(\w+\.cuh)"', lambda found: source_of(found[1]), text)


def options_of(dtype: str, fused: int, channels_last: bool, transposed: bool, wide: bool) -> tuple[str, ...]:
    """NVRTC's options, one fixed tuple per module."""
    return (
        "-std=c++17",
        f"-DGPUCONV_TYPE={DTYPES.index(dtype)}",
        f"-DGPUCONV_ACTIVATION={fused}",
        f"-DGPUCONV_CHANNELS_LAST={int(channels_last)}",
        f"-DGPUCONV_TRANSPOSED={int(transposed)}",
        f"-DGPUCONV_INDEX={'long long' if wide else 'int'}",
    )


def _steps(array: Array) -> tuple[int, ...]:
    """Distance between neighbours along each axis, in elements."""
    return tuple(step // array.itemsize for step in array.strides)


def _is_wide(*arrays: Array) -> bool:
    """Whether an index into one of the arrays, or into its shape and a grid more, may not fit an int."""
    spans = (sum((n - 1) * abs(s) for n, s in zip(a.shape, _steps(a), strict=True)) for a in arrays)
    return max(*spans, *(math.prod(a.shape) for a in arrays)) >= 2**30


# --- direct --------------------------------------------------------------------------------------


def _launch_direct(call: _Call, arrays: _Arrays, fused: int) -> None:
    x, kernel, bias, result = arrays
    geometry, transposed = call.geometry, call.transposed
    inputs, outputs = (x, result) if transposed else (result, x)
    problem = _problem(geometry, inputs, outputs, kernel, call.channels_last)
    wide = _is_wide(x, kernel, result) or max(axis.stride for axis in geometry.axes) > 2**15
    options = options_of(call.dtype, fused, call.channels_last, transposed, wide)
    entry = "direct_conv_transpose" if transposed else "direct_conv"
    count = math.prod(result.shape)
    blocks = min(-(-count // _THREADS), 2**20)
    launch = call.device.function(source_of("direct.cu"), entry, options)
    launch((blocks,), (_THREADS,), (x, kernel, bias, result, problem, np.int64(count)))


def _problem(geometry: ConvGeometry, x: Array, y: Array, kernel: Array, channels_last: bool) -> np.void:
    """The struct Problem of common.cuh; axes that are not there have one sample and one tap."""
    problem = np.zeros(1, _PROBLEM)[0]
    x_steps, y_steps, w_steps = _steps(x), _steps(y), _steps(kernel)
    ndim = len(geometry.axes)
    spatial = slice(1, ndim + 1) if channels_last else slice(2, ndim + 2)
    channel = -1 if channels_last else 1
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
        common, period, inverse = _congruence(axis)
        problem["axis"][number] = (
            *(axis.kernel, axis.stride, axis.dilation, axis.crop_left, axis.in_length, axis.out_length),
            *(common, period, inverse, x_step, y_step, w_step),
        )
    return problem


def _congruence(axis: AxisGeometry) -> tuple[int, int, int]:
    """What solves tap * dilation = sample (mod stride): the gcd, the taps' period, and dilation's inverse."""
    common = math.gcd(axis.stride, axis.dilation)
    period = axis.stride // common
    return common, period, pow(axis.dilation // common, -1, period) if period > 1 else 0


# --- tiles ---------------------------------------------------------------------------------------


class _Gatherer(NamedTuple):
    """A kernel that runs the struct Gather of gather.cuh, and the tile that one of its blocks makes."""

    source: str
    entry: str
    rows: int
    columns: int


_TILE = _Gatherer("tile.cu", "tile_gather", 64, 64)
_MMA = _Gatherer("mma.cu", "mma_gather", 128, 64)


def _launch_gather(gatherer: _Gatherer, call: _Call, arrays: _Arrays, fused: int) -> None:
    x, kernel, bias, result = arrays
    (axis,) = call.geometry.axes
    wide = _is_wide(x, kernel, result)
    options = options_of(call.dtype, fused, call.channels_last, call.transposed, wide)
    if gatherer is _MMA:
        products = _TF32_PRODUCTS[call.precision] if call.dtype == "float32" else 0
        options = (*options, f"-DGPUCONV_TF32={products}")
    launch = call.device.function(source_of(gatherer.source), gatherer.entry, options)
    for phases in transpose_phases(axis) if call.transposed else conv_phases(axis):
        gather = _gather(call, phases, arrays)
        place = result[:, phases.first :, :] if call.channels_last else result[:, :, phases.first :]
        columns = phases.count * int(gather["width"])
        grid = (
            -(-phases.rows // gatherer.rows),
            -(-columns // gatherer.columns),
            min(x.shape[0] * call.geometry.groups, _MOST_BLOCKS_Z),
        )
        launch(grid, (_THREADS,), (x, kernel, bias, place, gather))


def _gather(call: _Call, phases: PhaseGroup, arrays: _Arrays) -> np.void:
    """The struct Gather of gather.cuh."""
    geometry, transposed = call.geometry, call.transposed
    x, kernel, _, result = arrays
    (axis,) = geometry.axes
    gather = np.zeros(1, _GATHER)[0]
    width, depth = geometry.filters // geometry.groups, geometry.in_channels // geometry.groups
    w_tap, w_column, w_depth = _steps(kernel)
    if not transposed:
        width, depth, w_column, w_depth = depth, width, w_depth, w_column
    time, channel = (1, 2) if call.channels_last else (2, 1)
    x_steps, y_steps = _steps(x), _steps(result)
    if transposed:
        _, period, inverse = _congruence(axis)
        # Down the taps of a phase, up the rows; the phases of a group start `inverse` taps apart.
        first, hop, tap = phases.offset, phases.hop, phases.taps[0][-1] if phases.taps else 0
    else:
        # The same order for the forward convolution: down its taps, down the rows.
        period, inverse, tap = 1, 0, 0
        first, hop = phases.offset + (phases.terms - 1) * phases.hop, -phases.hop
    settings = {
        "samples": x.shape[0],
        "groups": geometry.groups,
        "rows": phases.rows,
        "phases": phases.count,
        "width": width,
        "terms": phases.terms,
        "depth": depth,
        "row_step": phases.row_step,
        "offset": first,
        "hop": hop,
        "in_length": x.shape[time],
        "tap": tap,
        "tap_step": inverse,
        "period": period,
        "x_sample": x_steps[0],
        "x_row": x_steps[time],
        "x_channel": x_steps[channel],
        "w_tap": w_tap,
        "w_column": w_column,
        "w_depth": w_depth,
        "y_sample": y_steps[0],
        "y_row": y_steps[time] * phases.out_step,
        "y_phase": y_steps[time],
        "y_channel": y_steps[channel],
    }
    for name, value in settings.items():
        gather[name] = value
    return gather
