"""Dask arrays: every chunk of the result is a convolution of its own, of the input window that it needs.

The result's chunks are the input's, scaled by the stride; the last one ends where the result does. A window
is what a chunk reads: a chunk of the input with its halo, cut out of the chunks around it. Channels are one
chunk. The blocks are NumPy's or CuPy's, and their own backend runs them.
"""

from __future__ import annotations

import bisect
import dataclasses
import functools
import itertools
import operator
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any, NamedTuple, TypeAlias

from gpuconv._typing import Array
from gpuconv.backends import generic, numpy_
from gpuconv.backends.prepared import Prepared, only
from gpuconv.geometry import AxisGeometry, ConvGeometry, input_window
from gpuconv.namespace import (
    HALF_DTYPES,
    array_namespace,
    astype,
    dtype_named,
    is_cupy_array,
    is_numpy_array,
)

__all__ = ["conv", "conv_transpose", "kernel_gradient", "prepare"]

_Chunks: TypeAlias = tuple[int, ...]

#: Gradients of so many blocks are added at a time.
_AT_ONCE = 8


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
    """Describe the transposed convolution. Arguments are those of `backends.numpy_.conv_transpose`."""
    del out, algorithm, workspace  # a Dask array is never written; each block chooses for itself
    call = _Call(geometry, True, channels_last, dtype)
    return _convolution(call, x, kernel, bias, activation, precision)


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
    """Describe the forward convolution. Arguments are those of `backends.numpy_.conv`."""
    del out, algorithm, workspace  # a Dask array is never written; each block chooses for itself
    call = _Call(geometry, False, channels_last, dtype)
    return _convolution(call, x, kernel, bias, activation, precision)


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
    return only("blocks", "a convolution for each chunk of the dask result", algorithm, kernel)


def kernel_gradient(
    geometry: ConvGeometry,
    x: Array,
    dy: Array,
    *,
    channels_last: bool,
    dtype: str,
    transposed: bool,
) -> Array:
    """The kernel's cotangent, a sum over blocks. Arguments are those of `backends.numpy_.kernel_gradient`."""
    _check_blocks(x=x, dy=dy)
    # The sum of the blocks is rounded once.
    working = "float32" if dtype in HALF_DTYPES else dtype
    call = _Call(geometry, transposed, channels_last, working)
    split = _split(call, x)
    dy = dy.rechunk(split.chunks)
    tasks: dict[Any, Any] = {}
    name = f"kernel-gradient-{_token(split.windows, dy, call)}"
    taps = (axis.kernel for axis in geometry.axes)
    shape = (*taps, geometry.filters // geometry.groups, geometry.in_channels)
    for number, (block, block_geometry) in enumerate(split.blocks()):
        run = functools.partial(_block_gradient, call._replace(geometry=block_geometry))
        key = (name, number, *(0 for _ in shape))
        tasks[key] = (run, (split.windows.name, *block), (dy.name, *block))
    chunks = ((1,) * len(tasks), *((length,) for length in shape))
    parts = _array(tasks, name, chunks, working, [split.windows, dy])
    total = parts.sum(axis=0, split_every=_AT_ONCE)
    return total if working == dtype else astype(total, dtype)


class _Call(NamedTuple):
    """A convolution without its arrays."""

    geometry: ConvGeometry
    transposed: bool
    channels_last: bool
    dtype: str

    def arranged(self, samples: Any, spatial: Sequence[Any], channels: Any) -> tuple[Any, ...]:
        """What belongs to the axes of an array, in their order."""
        return (samples, *spatial, channels) if self.channels_last else (samples, channels, *spatial)

    def spatial(self, per_axis: Sequence[Any]) -> Sequence[Any]:
        """What belongs to the spatial ones of an array's axes."""
        return per_axis[1:-1] if self.channels_last else per_axis[2:]


class _Split(NamedTuple):
    """A convolution cut into blocks; block (i, j, ...) of the result is made of that block of `windows`."""

    call: _Call
    windows: Array
    chunks: tuple[_Chunks, ...]
    """Those of the result."""
    geometries: list[list[AxisGeometry]]
    """For each spatial axis, one for each chunk."""

    def blocks(self) -> Iterator[tuple[tuple[int, ...], ConvGeometry]]:
        """Number and geometry of every block."""
        for block in itertools.product(*(range(len(lengths)) for lengths in self.chunks)):
            numbered = zip(self.geometries, self.call.spatial(block), strict=True)
            axes = tuple(along[number] for along, number in numbered)
            yield block, dataclasses.replace(self.call.geometry, axes=axes)


def _convolution(
    call: _Call,
    x: Array,
    kernel: Array,
    bias: Array | None,
    activation: Callable[[Array], Array] | None,
    precision: str,
) -> Array:
    """The convolution as a Dask array, of which nothing is computed yet."""
    weights = {"kernel": kernel, **({} if bias is None else {"bias": bias})}
    _check_blocks(x=x, **weights)
    whole = [array.rechunk(-1) for array in weights.values()]
    keys = [(array.name, *(0 for _ in array.shape)) for array in whole]
    split = _split(call, x)
    tasks: dict[Any, Any] = {}
    token = _token(split.windows, *whole, call, activation, precision)
    name = f"{'conv-transpose' if call.transposed else 'conv'}-{token}"
    for block, block_geometry in split.blocks():
        run = functools.partial(_block, call._replace(geometry=block_geometry), activation, precision)
        tasks[(name, *block)] = (run, (split.windows.name, *block), *keys)
    return _array(tasks, name, split.chunks, call.dtype, [split.windows, *whole])


def _block(
    call: _Call,
    activation: Callable[[Array], Array] | None,
    precision: str,
    x: Array,
    kernel: Array,
    bias: Array | None = None,
) -> Array:
    """Convolve one block."""
    backend = _backend_of(x)
    run = backend.conv_transpose if call.transposed else backend.conv
    settings = {"channels_last": call.channels_last, "dtype": call.dtype, "precision": precision}
    return run(call.geometry, x, kernel, bias, activation, **settings)


def _block_gradient(call: _Call, x: Array, dy: Array) -> Array:
    """The kernel's cotangent of one block, with an axis for the blocks in front."""
    settings = {"channels_last": call.channels_last, "dtype": call.dtype, "transposed": call.transposed}
    return _backend_of(x).kernel_gradient(call.geometry, x, dy, **settings)[None, ...]


def _backend_of(block: Array) -> ModuleType:
    if is_numpy_array(block):
        return numpy_
    if is_cupy_array(block):
        from gpuconv.backends import cupy_

        return cupy_
    return generic


def _check_blocks(**arrays: Array) -> None:
    """Refuse blocks of two libraries, as arrays of two libraries are, before they meet in a worker."""
    array_namespace(**{f"{name}'s blocks": array._meta for name, array in arrays.items()})


def _split(call: _Call, x: Array) -> _Split:
    x = x.rechunk({x.ndim - 1 if call.channels_last else 1: -1})
    windows: list[list[slice]] = []
    geometries: list[list[AxisGeometry]] = []
    for axis, chunks in zip(call.geometry.axes, call.spatial(x.chunks), strict=True):
        bounds = _bounds(axis, chunks, call.transposed)
        blocks = [input_window(axis, *bound, transposed=call.transposed) for bound in bounds]
        windows.append([window for window, _ in blocks])
        geometries.append([block for _, block in blocks])
    made = [tuple(a.out_length if call.transposed else a.in_length for a in along) for along in geometries]
    width = call.geometry.filters if call.transposed else call.geometry.in_channels
    channels = slice(0, x.shape[-1 if call.channels_last else 1])
    cut = call.arranged(_slices(x.chunks[0]), windows, [channels])
    return _Split(call, _windows(x, cut), call.arranged(x.chunks[0], made, (width,)), geometries)


def _bounds(axis: AxisGeometry, chunks: _Chunks, transposed: bool) -> list[tuple[int, int]]:
    """Where the chunks of the result start and stop: none is empty, unless all of it is."""
    made = axis.out_length if transposed else axis.in_length
    inner = itertools.accumulate(chunks[:-1])
    scaled = (end * axis.stride if transposed else -(-end // axis.stride) for end in inner)
    cuts = sorted({0, made, *(cut for cut in scaled if cut < made)})
    return list(itertools.pairwise(cuts)) or [(0, 0)]


def _slices(chunks: _Chunks) -> list[slice]:
    ends = itertools.accumulate(chunks)
    return [slice(end - length, end) for end, length in zip(ends, chunks, strict=True)]


def _windows(x: Array, cut: Sequence[list[slice]]) -> Array:
    """An array whose blocks are those slices of `x`, along each of its axes; they may overlap."""
    from dask.array.core import concatenate3

    name = f"window-{_token(x, cut)}"
    tasks: dict[Any, Any] = {}
    pieces = [_pieces(chunks, windows) for chunks, windows in zip(x.chunks, cut, strict=True)]
    for block in itertools.product(*(range(len(windows)) for windows in cut)):
        along = [pieces[axis][number] for axis, number in enumerate(block)]
        whole = all(len(some) == 1 for some in along)
        key = (name, *block) if whole else (f"piece-{name}", *block)
        for piece in itertools.product(*along):
            source, inside = zip(*piece, strict=True)
            tasks[key if whole else (*key, *source)] = (operator.getitem, (x.name, *source), inside)
        if not whole:
            numbers = [[number for number, _ in some] for some in along]
            tasks[(name, *block)] = (concatenate3, _nested(numbers, key))
    lengths = tuple(tuple(window.stop - window.start for window in windows) for windows in cut)
    return _array(tasks, name, lengths, x.dtype, [x])


def _pieces(chunks: _Chunks, windows: Sequence[slice]) -> list[list[tuple[int, slice]]]:
    """For each window the numbers of the chunks that it meets, and what it takes of each."""
    slices = _slices(chunks)
    ends = [chunk.stop for chunk in slices]
    found = []
    for window in windows:
        pieces = []
        # From the first chunk that ends behind the window's start to the first that starts behind its end.
        for number in range(bisect.bisect_right(ends, window.start), len(slices)):
            chunk = slices[number]
            if chunk.start >= window.stop:
                break
            inside = slice(max(window.start - chunk.start, 0), min(window.stop, chunk.stop) - chunk.start)
            pieces.append((number, inside))
        found.append([piece for piece in pieces if chunks[piece[0]]] or [(0, slice(0, 0))])
    return found


def _nested(numbers: Sequence[Sequence[int]], key: tuple[Any, ...]) -> Any:
    """The keys of all pieces, nested as their axes are."""
    if not numbers:
        return key
    return [_nested(numbers[1:], (*key, number)) for number in numbers[0]]


def _token(*parts: Any) -> str:
    from dask.base import tokenize

    return str(tokenize(*parts))


def _array(
    tasks: dict[Any, Any], name: str, chunks: tuple[_Chunks, ...], dtype: Any, read: Sequence[Array]
) -> Array:
    """The Dask array of these tasks, with blocks of the library of `read`."""
    import dask.array as da
    from dask.array.utils import meta_from_array
    from dask.highlevelgraph import HighLevelGraph

    element = dtype_named(da, dtype) if isinstance(dtype, str) else dtype
    meta = meta_from_array(read[0]._meta, ndim=len(chunks), dtype=element)
    graph = HighLevelGraph.from_collections(name, tasks, dependencies=read)
    return da.Array(graph, name, chunks, meta=meta)
