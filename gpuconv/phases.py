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

    for every t < rows and p < count. Rows outside the input are zeros. Where no tap falls on the phases,
    `taps` is empty.
    """

    first: int
    count: int
    rows: int
    out_step: int
    row_step: int
    offset: int
    hop: int
    taps: tuple[range, ...]

    @property
    def terms(self) -> int:
        """Number of taps of each phase."""
        return len(self.taps[0]) if self.taps else 0

    @property
    def last_row(self) -> int:
        """The last input row that is read."""
        return self.offset + (self.rows - 1) * self.row_step + (self.terms - 1) * self.hop


@functools.lru_cache(maxsize=64)
def transpose_phases(axis: AxisGeometry) -> tuple[PhaseGroup, ...]:
    """The output phases of `axis`, neighbours that read the same rows in one group: every sample once.

    Without dilation there are at most four groups where the kernel covers the stride: the left crop rotates
    the phases, kernel % stride gives some a tap more, and out_length % stride gives some a row more.
    """
    s, d, k = axis.stride, axis.dilation, axis.kernel
    # Taps that are `period` apart fall on the same phase; below that, each has a phase of its own.
    period = s // math.gcd(s, d)
    first_tap = {(j * d - axis.crop_left) % s: j for j in range(min(k, period))}
    last = min(s, axis.out_length)
    reached = sorted(phase for phase in first_tap if phase < last)

    def taps_of(phase: int) -> range:
        return range(first_tap[phase], k, period)[::-1]  # descending taps read ascending rows

    def offset_of(phase: int) -> int:
        return (phase + axis.crop_left - taps_of(phase)[0] * d) // s

    def rows_of(phase: int) -> int:
        return -(-(axis.out_length - phase) // s)

    def alike(numbered: tuple[int, int]) -> tuple[int, ...]:
        number, phase = numbered
        # Neighbours keep their distance from their number.
        return phase - number, rows_of(phase), offset_of(phase), len(taps_of(phase))

    groups = []
    for (_, rows, offset, _), members in itertools.groupby(enumerate(reached), key=alike):
        phases = [phase for _, phase in members]
        taps = tuple(map(taps_of, phases))
        groups.append(PhaseGroup(phases[0], len(phases), rows, s, 1, offset, period * d // s, taps))
    # What lies between is reached by no tap, however long it is; the phases before `more` have a row more.
    more = axis.out_length % s
    for before, after in itertools.pairwise([-1, *reached, last]):
        cuts = [before + 1, *([more] if before + 1 < more < after else []), after]
        for first, end in itertools.pairwise(cuts):
            if first < end:
                groups.append(PhaseGroup(first, end - first, rows_of(first), s, 1, 0, 1, ()))
    return tuple(sorted(groups, key=lambda group: group.first))


@functools.lru_cache(maxsize=64)
def conv_phases(axis: AxisGeometry) -> tuple[PhaseGroup, ...]:
    """The one phase group of the forward convolution along `axis`."""
    taps = (range(axis.kernel),)
    return (PhaseGroup(0, 1, axis.in_length, 1, axis.stride, -axis.crop_left, axis.dilation, taps),)


def rows_outside(phases: Iterable[PhaseGroup], length: int) -> tuple[int, int]:
    """How many rows the phases read before the first and after the last of `length` input rows."""
    reading = [phase for phase in phases if phase.taps]
    before = max((-phase.offset for phase in reading), default=0)
    after = max((phase.last_row - length + 1 for phase in reading), default=0)
    return max(0, before), max(0, after)
