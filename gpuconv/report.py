"""What a layer or a model does to signals, told before any is run: checkerboards, receptive fields.

Everything is computed from geometries and weights. An object that is returned here prints as text, shows as a
table in a notebook, and some have a ``plot``, which needs Matplotlib (the extra ``plot``).
"""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpuconv._display import aligned, block, ends, subplots, table
from gpuconv._receptive_field import ENDLESS, ReceptiveField, receptive_field
from gpuconv.explanation import Explanation
from gpuconv.layers import Layer
from gpuconv.layers.base_conv import BaseConv
from gpuconv.namespace import to_numpy

__all__ = ["Checkerboard", "Explanation", "ReceptiveField", "checkerboard", "receptive_field"]

_FLOOR = -120.0  # dB, where a picture ends; it ends above where the constant is that far below a line


@dataclass(frozen=True, slots=True, eq=False)
class Checkerboard:
    """What a transposed convolution makes of a constant input, made by `checkerboard`.

    Attributes
    ----------
    title : str
        The layer.
    kernel, stride : int
        Taps and stride along the axis.
    taps : tuple of int
        How many taps fall on each phase of the output.
    gains : array, shape (stride, filters)
        What each phase sums: that many taps where the layer has no weights yet (one column), else its output
        for a constant 1 in every channel, without bias and activation.
    frequencies : array, shape (stride // 2,)
        Of the lines, in the unit of ``fs``.
    levels : array, shape (stride // 2, filters)
        Of the lines, in dB relative to the constant; -inf where there is none.
    fs : float
        Sampling rate of the input.

    Examples
    --------
    >>> from gpuconv import layers, report
    >>> print(report.checkerboard(layers.Conv1DTranspose(1, 3, 2, name="up")))
    up (Conv1DTranspose): uneven overlap, the stride 2 does not divide the kernel's 3 taps
    <BLANKLINE>
    phase  taps  gain
        0     2     2
        1     1     1
    <BLANKLINE>
    line at (unit of fs)     level
                       1  -9.54 dB
    """

    title: str
    kernel: int
    stride: int
    taps: tuple[int, ...]
    gains: np.ndarray
    frequencies: np.ndarray
    levels: np.ndarray
    fs: float

    @property
    def uneven(self) -> bool:
        """Whether some output samples sum more taps than others."""
        return len(set(self.taps)) > 1

    def _verdict(self) -> str:
        if self.uneven:
            return f"uneven overlap, the stride {self.stride} does not divide the kernel's {self.kernel} taps"
        return f"even overlap, {self.taps[0]} of {self.kernel} taps on every phase"

    def _headline(self) -> str:
        return f"{self.title}: {self._verdict()}"

    def _tables(self) -> list[list[list[str]]]:
        """The phases and the lines, each with a header; of many filters the spread."""
        phases = [
            [str(p), str(self.taps[p]), *(f"{gain:.4g}" for gain in _spread(self.gains[p]))]
            for p in range(self.stride)
        ]
        lines = [
            [f"{f:.6g}", *map(_decibels, _spread(level))]
            for f, level in zip(self.frequencies, self.levels, strict=True)
        ]
        tables = (
            [["phase", "taps", *self._spread_header("gain")], *phases],
            [
                ["line at (unit of fs)", *self._spread_header("level")],
                *lines,
            ],
        )
        return [[["…"] * len(rows[0]) if row is None else row for row in ends(rows, 18)] for rows in tables]

    def _spread_header(self, what: str) -> list[str]:
        one = self.gains.shape[1] == 1
        return [what] if one else [f"least {what}", f"median {what}", f"largest {what}"]

    def __str__(self) -> str:
        tables = ("\n".join(aligned(rows, right=len(rows[0]))) for rows in self._tables() if len(rows) > 1)
        return "\n\n".join([self._headline(), *tables])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        tables = (table(rows, header=header, right=len(header)) for header, *rows in self._tables() if rows)
        return block(self._headline(), *tables)

    def plot(self, axes: Any = None) -> Any:
        """Draw the gains of the phases and, below, the lines; of several filters the median and the spread.

        Parameters
        ----------
        axes : sequence of 2 matplotlib.axes.Axes, optional
            Where to draw; by default a new figure.

        Returns
        -------
        array of 2 matplotlib.axes.Axes

        Raises
        ------
        ModuleNotFoundError
            If Matplotlib is needed and not installed.
        """
        upper, lower = axes = subplots(2, 7.0, 5.5) if axes is None else axes
        several = self.gains.shape[1] > 1
        constant = np.zeros((1, self.gains.shape[1]))
        levels = np.clip(np.concatenate([constant, self.levels]), _FLOOR, -_FLOOR)
        floor = levels.min() - 20
        for ax, x, y, bottom, width in (
            (upper, np.arange(self.stride), self.gains, 0.0, 0.6),
            (lower, np.arange(self.stride // 2 + 1) * self.fs, levels, floor, 0.15 * self.fs),
        ):
            middle = np.median(y, axis=1)
            ax.bar(x, middle - bottom, width, bottom, color="C0", alpha=0.6)
            if several:
                spread = np.abs([y.min(axis=1) - middle, y.max(axis=1) - middle])
                ax.errorbar(x, middle, spread, fmt="none", ecolor="0.4", capsize=3)
            ax.grid(axis="y", alpha=0.3)
        of = "median and range over filters" if several else "one filter"
        gain = "taps" if self.taps == tuple(self.gains[:, 0]) else "output for a constant 1"
        upper.set(xlabel="phase of the output (sample modulo stride)", ylabel=gain)
        upper.set_xticks(np.arange(self.stride) if self.stride <= 16 else [0, self.stride - 1])
        upper.set_title(f"{self.title}\n{self._verdict()}", fontsize="medium")
        lower.set(xlabel="frequency (unit of fs)", ylabel="level (dB of the constant)")
        lower.set(xlim=(-0.2 * self.fs, (self.stride // 2 + 0.2) * self.fs), ylim=(floor, None))
        lower.set_title(f"lines that a constant input makes, {of}", fontsize="medium")
        return axes


def checkerboard(layer: Layer, fs: float = 1.0, axis: int = 0) -> Checkerboard:
    """How unevenly a transposed convolution treats its phases, and the lines that a constant input gets.

    Output sample s t + p, of phase p, sums the taps j with (j d - left crop) % s = p. For a constant 1 in
    every channel it is therefore a gain g[p], whatever t, and the output has a line at every multiple m of
    the input's sampling rate, whose level is ``20 log10 |G[m] / G[0]|`` with the Fourier transform
    ``G[m] = sum over p of g[p] exp(-2 pi i m p / s)``. That is exact, away from the ends and before the bias
    and the activation. Equal gains make no line. Where the overlap is uneven, only the weights can make the
    gains equal.

    Source of the definition of uneven overlap: Odena, Dumoulin, Olah, "Deconvolution and Checkerboard
    Artifacts", Distill, 2016.

    Parameters
    ----------
    layer : Layer
        A transposed convolution layer. One that is built is judged by its weights, one that is not by how
        many taps its phases have.
    fs : float, default 1.0
        Sampling rate of the input; the output's is `fs` times the stride.
    axis : int, default 0
        Which spatial axis; along the others the taps are summed, as for a line that does not vary there.

    Returns
    -------
    Checkerboard

    Raises
    ------
    TypeError
        If it is another layer, or `fs` no number.
    ValueError
        If `fs` is not positive, or there is no such axis.
    NotImplementedError
        If the weights are complex.

    Examples
    --------
    >>> from gpuconv import layers, report
    >>> found = report.checkerboard(layers.Conv1DTranspose(1, 3, 2), fs=8000.0)
    >>> found.uneven, found.taps, found.frequencies.tolist(), found.levels.round(2).tolist()
    (True, (2, 1), [8000.0], [[-9.54]])
    """
    if not isinstance(layer, BaseConv) or not layer.transposed:
        raise TypeError(f"Expected a transposed convolution layer. Received layer={layer!r}.")
    if isinstance(fs, bool) or not isinstance(fs, numbers.Real):
        raise TypeError(f"Expected fs to be a number. Received fs={fs!r}.")
    if not 0 < fs < math.inf:
        raise ValueError(f"Expected fs to be positive. Received fs={fs!r}.")
    geometry = layer.explain(ENDLESS, axis).axis
    k, s = geometry.kernel, geometry.stride
    phase = (np.arange(k) * geometry.dilation - geometry.crop_left) % s
    taps = _per_phase(phase, np.ones((k, 1)), s)
    weights, terms = _constant_response(layer, axis) if layer.built else (np.ones((k, 1)), 1)
    gains = _per_phase(phase, weights, s)
    spectrum = np.abs(np.fft.fft(gains, axis=0))[: s // 2 + 1]
    # What rounding alone may leave of a sum that is 0: (terms + s) * eps / 2 of the sum of the magnitudes.
    spectrum[spectrum <= (terms * k + s) * np.finfo(float).eps * np.abs(weights).sum(axis=0)] = 0
    with np.errstate(divide="ignore", invalid="ignore"):  # of 0
        levels = np.where(spectrum[1:] == 0, -np.inf, 20 * np.log10(spectrum[1:] / spectrum[0]))
    return Checkerboard(
        f"{layer.name} ({type(layer).__name__})",
        k,
        s,
        tuple(int(count) for count in taps[:, 0]),
        gains,
        np.arange(1, s // 2 + 1) * float(fs),
        levels,
        float(fs),
    )


def _per_phase(phase: np.ndarray, values: np.ndarray, s: int) -> np.ndarray:
    """The sum of the taps' `values`, (k, filters), on each of the `s` phases."""
    sums = np.zeros((s, values.shape[1]))
    np.add.at(sums, phase, values)
    return sums


def _constant_response(layer: BaseConv, axis: int) -> tuple[np.ndarray, int]:
    """What each tap along `axis` makes of ones, (k, filters), and how many weights that sums."""
    kernel = to_numpy(layer.kernel)
    if kernel.dtype.kind == "c":
        raise NotImplementedError("Expected real weights. Received complex ones: their lines have no pairs.")
    kernel = np.moveaxis(kernel.astype(np.float64), axis, 0)
    k, (width, channels) = kernel.shape[0], kernel.shape[-2:]
    grouped = kernel.reshape(k, -1, width, layer.groups, channels // layer.groups).sum(axis=(1, 4))
    return grouped.transpose(0, 2, 1).reshape(k, layer.filters), kernel.size // (k * layer.filters)


def _spread(values: np.ndarray) -> list[float]:
    """Least, median and largest, or the only one."""
    if len(values) == 1:
        return [values[0]]
    # Between infinities there is no mean: of two in the middle the upper one then.
    middle = np.median(values) if np.isfinite(values).all() else np.sort(values)[len(values) // 2]
    return [values.min(), middle, values.max()]


def _decibels(level: float) -> str:
    return "none" if level == -math.inf else f"{level:.2f} dB"
