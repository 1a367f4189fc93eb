"""Polyphase form: which input rows and which taps make which output samples.

With stride s, the output samples t*s + p of one phase p all use the same taps on consecutive input rows, so a
transposed convolution is a few gathers, one per group of phases, and a forward convolution is one.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

from gpuconv.geometry import AxisGeometry

__all__ = ["PhaseGroup", "conv_phases", "rows_outside", "transpose_phases"]


@dataclass(frozen=True, slots=True)
class PhaseGroup:
    """Neighbouring phases of an output axis that read the same input rows.

    y[first + p + t*out_step] = sum over m of x[offset + t*row_step + m*hop] * W[taps[p][m]]

    for every t < rows and p < len(taps). Rows outside the input are zeros.
    """

    first: int
    rows: int
    out_step: int
    row_step: int
    offset: int
    hop: int
    taps: tuple[tuple[int, ...], ...]

    @property
    def last_row(self) -> int:
        """The last input row that is read."""
        return self.offset + (self.rows - 1) * self.row_step + (len(self.taps[0]) - 1) * self.hop


@functools.lru_cache(maxsize=1024)
def transpose_phases(axis: AxisGeometry) -> tuple[PhaseGroup, ...]:
    """The output phases of `axis`, neighbours that read the same rows in one group: every sample once.

    Without dilation there are at most four groups: the left crop rotates the phases, kernel % stride gives
    some a tap more, and out_length % stride gives some a row more.
    """
    s, d, k = axis.stride, axis.dilation, axis.kernel
    # Taps that are `period` apart fall on the same phase; below that, each has a phase of its own.
    period = s // math.gcd(s, d)
    first_tap = {j * d % s: j for j in range(min(k, period))}

    def taps_of(phase: int) -> tuple[int, ...]:
        start = first_tap.get((phase + axis.crop_left) % s, k)
        return tuple(range(start, k, period))[::-1]  # descending taps read ascending rows

    def reads(phase: int) -> tuple[int, int, int]:
        taps = taps_of(phase)
        offset = (phase + axis.crop_left - taps[0] * d) // s if taps else 0
        return -(-(axis.out_length - phase) // s), offset, len(taps)

    groups = []
    for (rows, offset, _), phases in itertools.groupby(range(min(s, axis.out_length)), key=reads):
        members = tuple(phases)
        taps = tuple(map(taps_of, members))
        groups.append(PhaseGroup(members[0], rows, s, 1, offset, period * d // s, taps))
    return tuple(groups)


@functools.lru_cache(maxsize=1024)
def conv_phases(axis: AxisGeometry) -> tuple[PhaseGroup, ...]:
    """The one phase group of the forward convolution along `axis`."""
    taps = (tuple(range(axis.kernel)),)
    return (PhaseGroup(0, axis.in_length, 1, axis.stride, -axis.crop_left, axis.dilation, taps),)


def rows_outside(phases: Iterable[PhaseGroup], length: int) -> tuple[int, int]:
    """How many rows the phases read before the first and after the last of `length` input rows."""
    reading = [phase for phase in phases if phase.taps[0]]
    before = max((-phase.offset for phase in reading), default=0)
    after = max((phase.last_row - length + 1 for phase in reading), default=0)
    return max(0, before), max(0, after)
