"""Which input samples reach which output samples, through which tap: as data, text, HTML and a picture.

It needs the geometry of an axis and no array, so layers and plans both can have it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from gpuconv._display import Piece, block, coloured, ends, folded, preformatted, subplots
from gpuconv.geometry import AxisGeometry, integer

__all__ = ["Explanation", "index"]

_WIDTH = 100  # characters of a line
_SUM_WIDTH = 76  # of those, what is to the right of the sample's name
_ROWS = 32  # output samples that are listed, rows of the picture
_LONG_ROWS = 16  # of more than that
_CROPS = 5  # cropped samples that are shown at either end

# The names are those of docs/lengths.md.
_TRANSPOSED_LENGTHS = {
    ("valid", False): "(L - 1) * s + max(e, s)",
    ("valid", True): "(L - 1) * s + e + p",
    ("same", False): "L * s",
    ("same", True): "(L - 1) * s + e % 2 + p",
    ("crops", False): "(L - 1) * s + e - l - r",
    ("crops", True): "(L - 1) * s + e - l - r + p",
}
_FORWARD_LENGTHS = {
    "valid": "(L - e) // s + 1",
    "same": "ceil(L / s)",
    "causal": "(L - 1) // s + 1",
    "crops": "(L + l + r - e) // s + 1",
}

_AXIS_LABELS = {"x": "input sample", "y": "output sample"}
# Translucent, so that text on them is legible on a light and on a dark page.
_PHASE_CSS = [f"hsla({hue},70%,50%,.35)" for hue in (210, 30, 120, 280, 0, 170, 60, 330)]


@dataclass(frozen=True, slots=True)
class Explanation:
    """How one axis of a convolution goes from input samples to output samples.

    Print it, let a notebook show it, or `plot` it. A layer makes one with ``layer.explain(length)``; that of
    a plan is ``Explanation(plan.job.geometry.axes[0], plan.job.transposed)``.

    Source of the definitions: `gpuconv.conv1d_transpose` and `gpuconv.conv1d`.

    Parameters
    ----------
    axis : gpuconv.geometry.AxisGeometry
        The axis, of the transposed convolution that it is or that the forward one is adjoint to.
    transposed : bool
        Which of the two is explained.
    title : str, optional
        What the explanation is of.
    padding : {"crops", "valid", "same", "same_lower", "causal"}
        How the length was asked for; it changes the formula that is shown, and nothing else.
    output_padding : int, optional
        As it was asked for.

    Raises
    ------
    ValueError
        If there is no such padding.

    Examples
    --------
    >>> from gpuconv.layers import Conv1DTranspose
    >>> explanation = Conv1DTranspose(1, 3, strides=2, name="up").explain(2)
    >>> explanation.terms(2)  # y[2] = x[1]·w[0] + x[0]·w[2]
    ((1, 0), (0, 2))
    >>> print(explanation)
    up (Conv1DTranspose): 2 -> 5 samples
    <BLANKLINE>
    length  padding "valid": (L - 1) * s + max(e, s) = (2 - 1) * 2 + max(3, 2) = 5
            L = 2, s = 2 (stride), e = (3 - 1) * 1 + 1 = 3 (reach of the taps)
    crop    N = (L - 1) * s + e = 5; cropped: none
    phases  y[2t]     = x[t]·w[0] + x[t - 1]·w[2]
            y[2t + 1] = x[t]·w[1]
            x[i] is 0 outside of 0 <= i < 2
    <BLANKLINE>
        y  0  1  2  3  4
     x[0]  0  1  2
     x[1]        0  1  2
    terms  1  1  2  1  1
    (j stands for w[j])
    <BLANKLINE>
    y[0] = x[0]·w[0]
    y[1] = x[0]·w[1]
    y[2] = x[1]·w[0] + x[0]·w[2]
    y[3] = x[1]·w[1]
    y[4] = x[1]·w[2]
    """

    axis: AxisGeometry
    transposed: bool
    title: str = ""
    padding: str = "crops"
    output_padding: int | None = None

    def __post_init__(self) -> None:
        if not self._formula():
            known = (name for name, _ in _TRANSPOSED_LENGTHS) if self.transposed else _FORWARD_LENGTHS
            raise ValueError(
                f"Expected padding to be one of {', '.join(dict.fromkeys(known))}, same_lower. "
                f"Received padding={self.padding!r}."
            )

    # --- data ---

    @property
    def in_length(self) -> int:
        """Input samples."""
        return self.axis.in_length if self.transposed else self.axis.out_length

    @property
    def out_length(self) -> int:
        """Output samples."""
        return self.axis.out_length if self.transposed else self.axis.in_length

    @property
    def cropped(self) -> tuple[range, range]:
        """What is cropped on the left and on the right, numbered on from the output samples.

        Empty for the forward convolution, which crops nothing.
        """
        if not self.transposed:
            return range(0), range(0)
        end = self.axis.full_length - self.axis.crop_left
        return range(-self.axis.crop_left, 0), range(self.out_length, max(end, self.out_length))

    @property
    def appended(self) -> range:
        """The output samples at the end that come after the full output: zeros, until bias and activation."""
        if not self.transposed:
            return range(0)
        end = max(0, self.axis.full_length - self.axis.crop_left)
        return range(min(end, self.out_length), self.out_length)

    def terms(self, n: int) -> tuple[tuple[int, int], ...]:
        """What output sample `n` sums, as pairs of an input sample and the tap that it is multiplied with.

        By ascending taps. `n` may be one of the `cropped` samples; the zeros that a forward convolution reads
        are left out.

        Raises
        ------
        ValueError
            If there is no such sample.
        """
        n = integer("n", n, -sys.maxsize)
        before, after = self.cropped
        if not -len(before) <= n < self.out_length + len(after):
            last = self.out_length + len(after) - 1
            raise ValueError(f"Expected a sample from {-len(before)} to {last}. Received n={n}.")
        return tuple((i, j) for i, j in self.reads(n) if 0 <= i < self.in_length)

    def reads(self, n: int) -> Iterator[tuple[int, int]]:
        """The terms of sample `n` of an endless input."""
        axis = self.axis
        for j in range(axis.kernel):
            if self.transposed:
                i, rest = divmod(n + axis.crop_left - j * axis.dilation, axis.stride)
                if rest == 0:
                    yield i, j
            else:
                yield n * axis.stride + j * axis.dilation - axis.crop_left, j

    # --- text ---

    def __str__(self) -> str:
        picture = ["".join(piece for piece, _ in line).rstrip() for line in self._pieces()]
        parts = (self._facts(), picture, self._sample_lines())
        return "\n\n".join([self._headline(), *("\n".join(lines) for lines in parts)])

    __repr__ = __str__

    def _headline(self) -> str:
        what = self.title or ("transposed convolution" if self.transposed else "convolution")
        return f"{what}: {self.in_length} -> {self.out_length} samples"

    def _facts(self) -> list[str]:
        """The length and how it came, what is cropped or padded, the phases."""
        axis, p = self.axis, self.output_padding
        known = {"L": self.in_length, "s": axis.stride, "e": axis.reach, "p": p or 0}
        known |= {"l": axis.crop_left, "r": axis.crop_right + (p or 0)}
        formula = self._formula()
        numbers = re.sub(r"\b[Lseplr]\b", lambda name: str(known[name[0]]), formula)
        asked = "" if self.padding == "crops" else f'padding "{self.padding}": '
        extra = "" if p is None else f", p = {p} (output_padding)"
        reach = f"e = ({axis.kernel} - 1) * {axis.dilation} + 1 = {axis.reach} (reach of the taps)"
        lines = [
            f"length  {asked}{formula} = {numbers} = {self.out_length}",
            f"        L = {self.in_length}, s = {axis.stride} (stride){extra}, {reach}",
            *(self._crop_lines() if self.transposed else [self._padding_line()]),
        ]
        phases = [*self._phase_lines(), f"x[i] is 0 outside of 0 <= i < {self.in_length}"]
        return [*lines, *(f"{'' if n else 'phases':8}{line}" for n, line in enumerate(phases))]

    def _formula(self) -> str:
        """The length by the names of docs/lengths.md; empty for a padding that there is not."""
        padding = self.padding.removesuffix("_lower")
        if self.transposed:
            return _TRANSPOSED_LENGTHS.get((padding, self.output_padding is not None), "")
        return _FORWARD_LENGTHS.get(padding, "")

    def _crop_lines(self) -> list[str]:
        before, after = map(len, self.cropped)
        parts = [f"{before} on the left"] * (before > 0) + [f"{after} on the right"] * (after > 0)
        cut = f"cropped: {', '.join(parts) or 'none'}"
        lines = [f"crop    N = (L - 1) * s + e = {self.axis.full_length}; {cut}"]
        if self.appended:
            zeros = _count(len(self.appended), "zero")
            lines.append(f"        {zeros} appended on the right, to get bias and activation as all do")
        return lines

    def _padding_line(self) -> str:
        left, right = self.axis.crop_left, self.axis.crop_right
        line = f"zeros   {left} before the first sample, {max(0, right)} after the last"
        return line if right >= 0 else f"{line}; {_count(-right, 'sample')} at the end not read"

    def _phase_lines(self) -> list[str]:
        """What a sample of each phase sums, far from the ends."""
        ours, theirs = (self.axis.stride, 1) if self.transposed else (1, self.axis.stride)
        shown = ends(range(ours), 8)
        labels = ["…" if phase is None else f"y[{index(ours, phase)}]" for phase in shown]
        width = max(map(len, labels))
        lines = []
        for phase, label in zip(shown, labels, strict=True):
            terms = [] if phase is None else [f"x[{index(theirs, i)}]·w[{j}]" for i, j in self.reads(phase)]
            lines.append(label if phase is None else f"{label:{width}} = {_sum(terms)}")
        return lines

    def _sample_lines(self) -> list[str]:
        """What every output sample sums, the cropped ones too; the middle of many is left out."""
        before, after = self.cropped
        digits = len(str(self.out_length - 1))
        width = max(digits + 3, 7 if before or after else 0)
        period = self.axis.stride if self.transposed else 1
        alike = f"every {period} samples alike" if period > 1 else "all alike"
        lines = []
        most_inside = _ROWS if self.out_length <= _ROWS else _LONG_ROWS
        for samples, most in ((before, _CROPS), (range(self.out_length), most_inside), (after, _CROPS)):
            for n in ends(samples, most):
                if n is None:
                    lines.append(
                        f"{'…':{width}}   {len(samples) - most + 1} more, {alike}, as the phases say"
                    )
                    continue
                label = f"y[{n:{digits}}]" if 0 <= n < self.out_length else "cropped"
                lines.append(
                    f"{label:{width}} = {self._sum_of(n)}{' (appended)' if n in self.appended else ''}"
                )
        return lines

    def _sum_of(self, n: int) -> str:
        inside = range(self.in_length)
        reads = [(i, j) for i, j in self.reads(n) if not self.transposed or i in inside]
        return _sum([f"x[{i}]·w[{j}]" if i in inside else f"0·w[{j}]" for i, j in reads])

    # --- pictures ---

    def _picture(self, most: int) -> tuple[list[int | None], list[int | None]]:
        """Rows and columns of the picture; None stands for those that are left out.

        A row is a sample of the side that has the taps, a column one of the other side: a transposed
        convolution goes from rows to columns, a forward one from columns to rows.
        """
        axis = self.axis
        end = axis.out_length
        before = ends(range(-axis.crop_left, 0), _CROPS)
        after = ends(range(end, max(end, axis.full_length - axis.crop_left)), _CROPS)
        columns = [*before, *ends(range(end), max(3, most - len(before) - len(after))), *after]
        fulls = [c + axis.crop_left for c in columns if c is not None]
        taps = range(0, axis.reach, axis.dilation)
        starts = [divmod(full - tap, axis.stride) for full in fulls for tap in taps]
        found = sorted({row for row, rest in starts if rest == 0 and 0 <= row < axis.in_length})
        rows: list[int | None] = []
        for row in found:
            if rows and rows[-1] != row - 1:
                rows.append(None)
            rows.append(row)
        return ends(rows, _ROWS), columns

    def _tap(self, row: int | None, column: int | None) -> int | None:
        """The tap that joins the two."""
        if row is None or column is None:
            return None
        j, rest = divmod(column + self.axis.crop_left - row * self.axis.stride, self.axis.dilation)
        return j if rest == 0 and 0 <= j < self.axis.kernel else None

    def _inside(self, column: int | None) -> bool:
        return column is not None and 0 <= column < self.axis.out_length

    @property
    def _sides(self) -> tuple[str, str]:
        """What the rows and the columns of the picture are."""
        return ("x", "y") if self.transposed else ("y", "x")

    def _column_label(self, column: int | None, columns: list[int | None]) -> str:
        """The number of a column; after a gap counted from the end, as Python does."""
        if column is None:
            return "…"
        if not self._inside(column):
            return ""
        length = self.axis.out_length
        return str(column - length if self._is_cut(columns) and column > length // 2 else column)

    def _is_cut(self, columns: list[int | None]) -> bool:
        """Whether columns are left out between the ends, cropped ones aside."""
        return sum(map(self._inside, columns)) < self.axis.out_length

    def _pieces(self) -> list[list[Piece]]:
        """The lines of the picture, of pieces with a colour for each phase."""
        of_rows, of_columns = self._sides
        left = max(len(f"{of_rows}[{self.axis.in_length - 1}]"), len("terms")) + 1
        bracketed = len(str(self.axis.kernel - 1)) + 2
        width = max(bracketed, len(str(self.axis.out_length - 1)) + 1)
        rows, columns = self._picture((_WIDTH - left) // width)
        if self._is_cut(columns):  # the numbers then are short ones
            width = max(bracketed, 4)
            rows, columns = self._picture((_WIDTH - left) // width)

        def line(label: str, cells: Iterable[tuple[str, str]]) -> list[Piece]:
            return [(f"{label} ".rjust(left), ""), *((text.rjust(width), css) for text, css in cells)]

        lines = [line(of_columns, ((f"{self._column_label(c, columns)} ", "") for c in columns))]
        for row in rows:
            label = "⋮" if row is None else f"{of_rows}[{row}]"
            lines.append(line(label, [self._cell(row, column) for column in columns]))
        if self.transposed:
            shown = (c if self._inside(c) else None for c in columns)
            counts = ("" if c is None else f"{len(self.terms(c))} " for c in shown)
            lines.append(line("terms", ((count, "") for count in counts)))
        return [*lines, [(f"({self._legend(rows, columns)})", "")]]

    def _cell(self, row: int | None, column: int | None) -> tuple[str, str]:
        tap = self._tap(row, column)
        if tap is None or column is None:
            return "", ""
        if not self._inside(column):
            return f"({tap})", "opacity:.6"
        return f"{tap} ", f"background:{_PHASE_CSS[column % self.axis.stride % len(_PHASE_CSS)]}"

    def _legend(self, rows: list[int | None], columns: list[int | None], lost: str = "(j)") -> str:
        """What the picture's signs mean; `lost` is how it marks a tap that is cropped or reads a zero."""
        legend = ["j stands for w[j]"]
        if any(self._tap(r, c) is not None and not self._inside(c) for r in rows for c in columns):
            legend.append(f"{lost} is cropped" if self.transposed else f"{lost} meets a zero")
        if self._is_cut(columns):
            legend.append(f"after … {self._sides[1]} counts from the end")
        return ", ".join(legend)

    def _repr_html_(self) -> str:
        return block(
            self._headline(),
            preformatted(self._facts()),
            coloured(self._pieces()),
            folded("every output sample", preformatted(self._sample_lines())),
        )

    def plot(self, ax: Any = None) -> Any:
        """Draw the taps: the side that has them upwards, the other to the right, a colour for each phase.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; by default a new figure.

        Returns
        -------
        matplotlib.axes.Axes
            Its figure is ``.figure``.

        Raises
        ------
        ModuleNotFoundError
            If Matplotlib is needed and not installed.
        """
        rows, columns = self._picture(36)
        of_rows, of_columns = (_AXIS_LABELS[side] for side in self._sides)
        if ax is None:
            ax = subplots(1, max(5.0, 1.5 + 0.26 * len(columns)), max(2.5, 1.6 + 0.26 * len(rows)))
        for y, row in enumerate(rows):
            for x, column in enumerate(columns):
                tap = self._tap(row, column)
                if tap is None or column is None:
                    continue
                inside = self._inside(column)
                look = {"facecolor": f"C{column % self.axis.stride % 10}", "alpha": 0.45}
                if not inside:
                    look = {"facecolor": "none", "hatch": "////", "edgecolor": "0.8"}
                ax.add_patch(_square(x, y, look))
                ax.annotate(str(tap), (x, y), ha="center", va="center", fontsize="small")
        ax.set(xlim=(-0.6, len(columns) - 0.4), ylim=(len(rows) - 0.4, -0.6), aspect="equal")
        ax.set_xticks(
            range(len(columns)), [self._column_label(c, columns) for c in columns], fontsize="small"
        )
        ax.set_yticks(range(len(rows)), ["⋮" if r is None else str(r) for r in rows], fontsize="small")
        ax.set(xlabel=of_columns, ylabel=of_rows)
        ax.set_title(f"{self._headline()}\n({self._legend(rows, columns, 'hatched')})", fontsize="medium")
        return ax


def _square(x: int, y: int, look: dict[str, Any]) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x - 0.5, y - 0.5), 1, 1, **look)


def _count(count: int, of: str) -> str:
    return f"{count} {of}{'' if count == 1 else 's'}"


def index(step: int, offset: int) -> str:
    """``"2t + 1"``."""
    t = "t" if step == 1 else f"{step}t"
    return t if offset == 0 else f"{t} {'+' if offset > 0 else '-'} {abs(offset)}"


def _sum(terms: list[str]) -> str:
    text = " + ".join(terms) or "0"
    if len(text) <= _SUM_WIDTH or len(terms) < 4:
        return text
    return " + ".join([*terms[:2], f"… {len(terms) - 3} more …", terms[-1]])
