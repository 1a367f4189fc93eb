"""What every way of convolving on a CPU is told, and how it hands its blocks over."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from gpuconv._typing import Array
from gpuconv.geometry import AxisGeometry, ConvGeometry

__all__ = [
    "Algorithm",
    "Arrays",
    "Call",
    "Cost",
    "blocks",
    "halo_share",
    "padded",
    "split_channels",
]


class Call(NamedTuple):
    """A convolution without its arrays; `dtype` is that of the sums."""

    geometry: ConvGeometry
    samples: int
    transposed: bool
    channels_last: bool
    dtype: np.dtype

    @property
    def axis(self) -> AxisGeometry:
        """The first axis: of those that only run one, the only."""
        return self.geometry.axes[0]

    @property
    def depth(self) -> int:
        """Input channels of a group: what a product sums over for each tap."""
        channels = self.geometry.in_channels if self.transposed else self.geometry.filters
        return channels // self.geometry.groups

    @property
    def width(self) -> int:
        """Output channels of a group."""
        channels = self.geometry.filters if self.transposed else self.geometry.in_channels
        return channels // self.geometry.groups

    @property
    def reads(self) -> tuple[int, ...]:
        """Input lengths."""
        return self.geometry.in_lengths if self.transposed else self.geometry.out_lengths

    @property
    def makes(self) -> tuple[int, ...]:
        """Output lengths."""
        return self.geometry.out_lengths if self.transposed else self.geometry.in_lengths

    @property
    def weights(self) -> int:
        """Elements of the kernel."""
        taps = math.prod(axis.kernel for axis in self.geometry.axes)
        return taps * self.width * self.depth * self.geometry.groups

    @property
    def has_one_axis(self) -> bool:
        """Whether there is one axis, without dilation: what the ways for signals are for."""
        return len(self.geometry.axes) == 1 and self.axis.dilation == 1

    def oriented(self, kernel: np.ndarray) -> np.ndarray:
        """The kernel as (taps..., width, groups, depth), in the type of the sums."""
        groups = self.geometry.groups
        view = kernel.astype(self.dtype, copy=False).reshape(*kernel.shape[:-1], groups, -1)
        return view if self.transposed else view.swapaxes(-1, -3)


class Arrays(NamedTuple):
    """Where a call reads and writes; `bias` in the type of the sums."""

    x: np.ndarray
    bias: np.ndarray | None
    activation: Callable[[Array], Array] | None
    out: np.ndarray

    def deliver(self, block: np.ndarray, place: np.ndarray, bias: np.ndarray | None) -> None:
        """Add the bias, apply the activation, put `block` into `place`, which it may be already."""
        if bias is not None:
            np.add(block, bias, out=block)
        if self.activation is not None:
            block = self.activation(block)
        if block is not place:
            place[...] = block.reshape(place.shape)


class Cost(NamedTuple):
    """What a call would do: multiply-adds and results of products, elements copied or added, NumPy calls.

    BLAS computes 16 columns at a time: narrower products count as if they had as many.
    """

    multiply_adds: int
    stored: int
    copied: int
    calls: int
    packed: int = 0
    """Weights that `Algorithm.pack` copies, which a plan does once."""

    def nanoseconds(self, *, packing: bool = False) -> float:
        """On one core."""
        costs = sum(count * rate for count, rate in zip(self, _RATES, strict=False))
        return costs + self.packed * _PACKING if packing else costs


#: Nanoseconds of each, on a core with AVX2, products of float32.
_RATES = (0.023, 0.25, 0.4, 1500.0)
#: Nanoseconds of a weight that is copied to memory of its own.
_PACKING = 2.0


def padded(columns: int) -> int:
    """The columns that BLAS computes."""
    return -(-columns // 16) * 16


class Algorithm(NamedTuple):
    """One way to convolve: what it refuses, what it costs, its weights, and itself."""

    name: str
    reason: str
    refuses: Callable[[Call], str]
    cost: Callable[[Call], Cost]
    pack: Callable[[Call, np.ndarray], Any]
    run: Callable[[Call, Any, Arrays, int], None]
    """Run in about so many parts, each worth a thread's while."""


_Block: TypeAlias = tuple[slice, slice]


#: Fewest rows of a block: below that, a product spends its time on reading the weights.
_LEAST_ROWS = 256
#: Not even to have two blocks.
_FEWEST_ROWS = 64
#: Elements of a block: a megabyte of float32, half of a common L2 cache.
_MOST_ELEMENTS = 1 << 18
#: A block that reads rows of its neighbour has so many times as many of its own, ...
_PER_HALO_ROW = 16
#: ... unless these are of more elements than that.
_MOST_HELD = 1 << 20


def _beside_halo(per_row: int, halo: int) -> int:
    """Rows of so many elements that a block should have where it reads `halo` rows of its neighbour."""
    return _PER_HALO_ROW * min(halo, _MOST_HELD // max(1, per_row) // _PER_HALO_ROW)


def halo_share(rows: int, per_row: int, halo: int) -> float:
    """What `blocks` of so many rows read twice, as a part of what they read once."""
    at_once = max(1, _MOST_ELEMENTS // max(1, per_row), _beside_halo(per_row, halo))
    return halo / at_once if at_once < rows else 0.0


@functools.lru_cache(maxsize=1024)
def blocks(
    samples: int, rows: int, per_row: int, parts: int, *, inner: int = 1, halo: int = 0, least: int = 1
) -> tuple[_Block, ...]:
    """Slices of samples and of their rows, of `per_row` elements and `inner` rows of other axes each.

    Blocks are of `least` times as many rows as others at least, and of many times their halo where memory
    allows. They depend on nothing but the call, so results do not depend on how many threads there are.
    """
    beside_halo = _beside_halo(per_row, halo)
    fewest = max(-(-least * _LEAST_ROWS // inner), beside_halo)
    if parts > 1:
        # Two small blocks keep two cores at work.
        fewest = min(fewest, max(_FEWEST_ROWS, beside_halo, -(-samples * rows // 2)))
    at_once = max(fewest, min(_MOST_ELEMENTS // max(1, per_row), -(-samples * rows // parts)))
    # Samples and rows are shared out evenly, rows among an even number of blocks, as there are of most cores.
    together = max(1, min(samples, at_once // max(1, rows)))
    together = -(-samples // -(-samples // together)) if samples else 1
    number = max(1, -(-rows // at_once))
    number += number % 2 if number > 1 and samples == 1 else 0
    step = max(1, -(-rows // number))
    return tuple(
        (slice(first, min(first + together, samples)), slice(row, min(row + step, rows)))
        for first in range(0, samples, together)
        for row in range(0, rows, step)
    )


def split_channels(array: np.ndarray, channels_last: bool, groups: int) -> np.ndarray:
    """A view (samples, groups, channels per group, lengths...)."""
    view = array.transpose(0, -1, *range(1, array.ndim - 1)) if channels_last else array
    return view.reshape(view.shape[0], groups, view.shape[1] // groups, *view.shape[2:])
