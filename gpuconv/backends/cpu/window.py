"""Window GEMM: the input rows that an output row reads, as a matrix, times the weights.

Rows of channels_last arrays lie one after the other, so a window is a stretch of memory. BLAS takes matrices
whose rows do not overlap; every n-th window, n being as many steps as a window is long, is such a matrix, and
n products make what one over gathered windows would, with nothing gathered. Where a block has few rows and
many columns, gathering costs less than handing the weights to BLAS n times.
"""

from __future__ import annotations

import functools
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.lib.stride_tricks import as_strided

from gpuconv.backends.cpu import threads
from gpuconv.backends.cpu.call import Algorithm, Arrays, Call, Cost, blocks, padded
from gpuconv.geometry import AxisGeometry
from gpuconv.phases import conv_phases, transpose_phases

__all__ = [
    "WINDOW",
    "Band",
    "Weights",
    "all_finite",
    "bands_of",
    "cost",
    "fill_band",
    "pack",
    "run",
    "sum_apart",
    "taps_of",
    "turns_of",
]


#: Weights that leave the cache when they are handed to BLAS.
_MANY_WEIGHTS = 1 << 18


class Band(NamedTuple):
    """Output samples of one matrix: each row reads `span` input samples and makes `count` output samples.

    Row r reads from offset + r * step on and makes what lies from first + r * pitch on.
    """

    offset: int
    step: int
    span: int
    rows: int
    first: int
    pitch: int
    outputs: int


class Weights(NamedTuple):
    """A band's matrix, (..., terms, columns), and where it has taps: None where that is everywhere.

    What lies beside the taps is 0, which makes nothing of a number, but NaN of an infinity: rows that read
    what is not finite are summed apart, over the taps alone.
    """

    band: Band
    matrix: np.ndarray
    taps: np.ndarray | None


_Packed: TypeAlias = tuple[Weights, ...]


@functools.lru_cache(maxsize=256)
def bands_of(axis: AxisGeometry, transposed: bool, block: int) -> tuple[Band, ...]:
    """The bands of an axis without dilation: one for each group of phases, or of `block` strides for all.

    A group of phases reads no row in vain. Bands of `block` strides make consecutive output samples, of
    which the last row's may be fewer.
    """
    if not block:
        phases = transpose_phases(axis) if transposed else conv_phases(axis)
        return tuple(
            Band(p.offset, p.row_step, p.terms, p.rows, p.first, p.out_step, p.count) for p in phases
        )
    if transposed:
        makes, step, count = axis.out_length, block, block * axis.stride
        first_read = -((axis.kernel - 1 - axis.crop_left) // axis.stride)
        span = (count - 1 + axis.crop_left) // axis.stride - first_read + 1
    else:
        makes, step, count = axis.in_length, block * axis.stride, block
        first_read = -axis.crop_left
        span = (block - 1) * axis.stride + axis.kernel
    full, rest = divmod(makes, count)
    whole = Band(first_read, step, span, full, 0, count, count)
    last = Band(first_read + full * step, step, span, 1, full * count, count, rest)
    return (*((whole,) if full else ()), *((last,) if rest else ()))


def fill_band(
    band: Band, axis: AxisGeometry, transposed: bool, weights: np.ndarray, matrix: np.ndarray
) -> None:
    """Write the taps into `matrix`, zeros of (count, span, ...); `weights` is (taps, ...)."""
    s, k = axis.stride, axis.kernel
    for column in range(band.outputs):
        if transposed:
            # Input sample u of the window meets tap `reached` - u * s.
            reached = band.first + column + axis.crop_left - band.offset * s
            first = max(0, -((k - 1 - reached) // s))
            number = min(band.span, reached // s + 1) - first
            taps = slice(reached - first * s, None, -s)
        else:
            first = (band.first + column) * s - axis.crop_left - band.offset
            number, taps = k, slice(None)
        if number > 0:
            matrix[column, first : first + number] = weights[taps][:number]


def pack(call: Call, kernel: np.ndarray, block: int) -> _Packed:
    """The matrices, (span * depth, outputs * width)."""
    weights = call.oriented(kernel)[:, :, 0]  # (taps, width, depth)
    width, depth = weights.shape[1:]
    packed: list[Weights] = []
    for band in bands_of(call.axis, call.transposed, block):
        matrix = np.zeros((band.outputs, width, band.span, depth), call.dtype)
        fill_band(band, call.axis, call.transposed, weights, matrix.swapaxes(1, 2))
        taps = None
        if block:
            taps = taps_of(band, call)[:, None, :, None].repeat(width, 1).repeat(depth, 3)
            taps = taps.reshape(band.outputs * width, band.span * depth).T
        # BLAS reads the transposed matrix as well as another.
        packed.append(Weights(band, matrix.reshape(band.outputs * width, band.span * depth).T, taps))
    return tuple(packed)


def taps_of(band: Band, call: Call) -> np.ndarray:
    """Where the band has taps: (outputs, span)."""
    taps = np.zeros((band.outputs, band.span), bool)
    fill_band(band, call.axis, call.transposed, np.ones(call.axis.kernel, bool), taps)
    return taps


def run(call: Call, packed: _Packed, arrays: Arrays, parts: int) -> None:
    """Multiply the windows of every band by its matrix."""
    block = _block
    if call.channels_last:
        arrays = arrays._replace(x=np.ascontiguousarray(arrays.x, call.dtype))
    else:
        block = _block_of_channels
    tasks = []
    for weights in packed:
        band, matrix, _ = weights
        bias = None if arrays.bias is None else np.tile(arrays.bias, band.outputs)
        # Each block hands all weights to BLAS: many of them are handed over seldom.
        least = 1 if matrix.size <= _MANY_WEIGHTS else 2
        for samples, rows in blocks(call.samples, band.rows, sum(matrix.shape), parts, least=least):
            tasks.append(functools.partial(block, weights, bias, arrays, samples, rows))
    threads.run(tasks, apart=parts > 1)


def _block(weights: Weights, bias: np.ndarray | None, arrays: Arrays, samples: slice, rows: slice) -> None:
    band, matrix, _ = weights
    x, place = arrays.x[samples], _places(arrays.out[samples], band, rows)
    n, length, depth = x.shape
    number = rows.stop - rows.start
    begin = band.offset + rows.start * band.step
    end = begin + (number - 1) * band.step + band.span
    if n == 1 and begin >= 0 and end <= length:
        source, pitch = x[0, begin:end], number
    else:
        # Zeros where the windows leave the input, and as many as make samples whole numbers of steps.
        pitch = max(number, -(-(end - begin) // band.step))
        source = np.zeros((n * pitch * band.step + band.span, depth), x.dtype)
        inside = slice(min(max(0, begin), length), min(max(0, end), length))
        target = source[: n * pitch * band.step].reshape(n, pitch * band.step, depth)
        target[:, inside.start - begin : inside.stop - begin] = x[:, inside]
    # One sample's windows run on into the next's: the rows between are of neither.
    total = (n - 1) * pitch + number
    if n == 1 and place.ndim == 3 and place.dtype == x.dtype:
        _product(source, total, weights, place[0])
        arrays.deliver(place[0], place[0], bias)
    else:
        result = np.empty((n * pitch, matrix.shape[1]), x.dtype)
        _product(source, total, weights, result[:total])
        arrays.deliver(result.reshape(n, pitch, -1)[:, :number], place, bias)


def _block_of_channels(
    weights: Weights, bias: np.ndarray | None, arrays: Arrays, samples: slice, rows: slice
) -> None:
    """The same where channels are first: windows are columns, and are gathered."""
    band, matrix, _ = weights
    x, out = arrays.x[samples], arrays.out[samples]
    n, depth, length = x.shape
    number = rows.stop - rows.start
    windows = np.empty((band.span, depth, n, number), matrix.dtype)
    for tap in range(band.span):
        # Row r reads at begin + r * step.
        begin = band.offset + rows.start * band.step + tap
        first = min(number, max(0, -(begin // band.step)))
        last = max(first, min(number, -((begin - length) // band.step)))
        windows[tap, ..., :first] = 0
        windows[tap, ..., last:] = 0
        if first < last:
            inside = slice(begin + first * band.step, begin + (last - 1) * band.step + 1, band.step)
            windows[tap, ..., first:last] = x[:, :, inside].swapaxes(0, 1)
    product = np.matmul(matrix.T, windows.reshape(band.span * depth, n * number))
    made = product.reshape(band.outputs, -1, n, number)
    if bias is not None:
        bias = bias.reshape(band.outputs, -1, 1)[0]
    for output in range(band.outputs):
        start = band.first + output + rows.start * band.pitch
        place = out[:, :, start : start + (number - 1) * band.pitch + 1 : band.pitch]
        arrays.deliver(made[output].swapaxes(0, 1), place, bias)


def _places(out: np.ndarray, band: Band, rows: slice) -> np.ndarray:
    """A view (samples, rows, columns) of what the rows make; of (..., count, width) where out has gaps."""
    n, length, width = out.shape
    start = band.first + rows.start * band.pitch
    number = rows.stop - rows.start
    if out.flags.c_contiguous:
        row, item = width * out.itemsize, out.itemsize
        strides = (length * row, band.pitch * row, item)
        return np.ndarray((n, number, band.outputs * width), out.dtype, out, start * row, strides)
    sample, row, item = out.strides
    shape = (n, number, band.outputs, width)
    return as_strided(out[:, start:], shape, (sample, band.pitch * row, row, item))


def _product(source: np.ndarray, rows: int, weights: Weights, result: np.ndarray) -> None:
    """So many windows of `source` times the weights, into `result`."""
    band, matrix, taps = weights
    turns = turns_of(band)
    depth, item = source.shape[1], source.itemsize
    step = band.step * depth * item
    terms = matrix.shape[0]
    windows = np.ndarray((rows, terms), source.dtype, source, 0, (step, item))
    if taps is not None and not all_finite(source):
        sum_apart(windows, matrix, taps, result)
    elif gathers(turns, rows, matrix.shape[1]):
        np.matmul(np.ascontiguousarray(windows), matrix, out=result)
    else:
        for turn in range(min(turns, rows)):
            # Every n-th window: none overlaps the next.
            np.matmul(windows[turn::turns], matrix, out=result[turn::turns])


def all_finite(source: np.ndarray) -> bool:
    """Whether no element is infinite or NaN, nor so large that its square is."""
    flat = source.reshape(-1)
    return bool(np.isfinite(np.vdot(flat, flat)))


def sum_apart(windows: np.ndarray, matrix: np.ndarray, taps: np.ndarray, result: np.ndarray) -> None:
    """Multiply windows of which some are not finite: those rows by row, over the taps alone."""
    finite = np.isfinite(windows)
    np.matmul(np.where(finite, windows, 0), matrix, out=result)
    # Infinity times 0 is a NaN, as in any product; BLAS does not warn of it either.
    with np.errstate(invalid="ignore", over="ignore"):
        for row in np.flatnonzero(~finite.all(axis=1)):
            result[row] = np.where(taps, windows[row][:, None] * matrix, 0).sum(axis=0)


def turns_of(band: Band) -> int:
    """How many steps a window is long: so many products have windows that do not overlap."""
    return max(1, -(-band.span // band.step))


def gathers(turns: int, rows: int, columns: int) -> bool:
    """Whether to copy windows: `turns` times the input, instead of packing the weights so often."""
    return (turns - 1) * columns > rows


# --- what it costs -------------------------------------------------------------------------------


def cost(call: Call, block: int) -> Cost:
    """What bands of `block` strides would cost."""
    adds = stored = copied = calls = packed = 0
    padding = call.samples * call.reads[0] * call.depth
    for band in bands_of(call.axis, call.transposed, block):
        rows, terms = call.samples * band.rows, band.span * call.depth
        columns = band.outputs * call.width
        adds += rows * terms * padded(columns)
        packed += terms * columns
        stored += rows * padded(columns)
        turns = turns_of(band)
        gathered = not call.channels_last or gathers(turns, min(rows, 256), columns)
        # BLAS has a copy of its own of what it multiplies, and of the weights for each product.
        handed = max(1, rows // 256) * (1 if gathered else turns) * terms * columns
        copied += rows * terms * (2 if gathered else 1) + handed
        if not call.channels_last:
            copied += rows * columns
        elif band.rows < 256:  # a block of several samples
            copied += padding + rows * columns
        calls += 4 + (turns if call.channels_last else band.span + band.outputs)
    return Cost(adds, stored, copied, calls, packed)


def _refuses(call: Call) -> str:
    if not call.has_one_axis:
        return "for one axis without dilation"
    if call.geometry.groups > 1:
        return "for one group"
    return ""


WINDOW = Algorithm(
    "window GEMM",
    "a product of windows and weights for each group of phases, nothing copied",
    _refuses,
    lambda call: cost(call, 0),
    lambda call, kernel: pack(call, kernel, 0),
    run,
)
