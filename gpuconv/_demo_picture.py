"""The demo's picture: samples and the curve through them, and their spectra."""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np

from gpuconv._demo_files import Recording

__all__ = ["write_picture"]

_SHOWN = 64  # input samples in the upper panel: enough for a heartbeat's QRS complex, few enough to count
_TRANSFORMED = 4096  # input samples in the lower panel
_FLOOR = -140.0  # dB, just below float32's own noise
_INPUT, _OUTPUT = "#c44e2b", "#1f5fa8"


def write_picture(file: BinaryIO, recording: Recording, interpolated: np.ndarray, factor: int) -> None:
    """Write a PNG of the first channel of `recording` and of `interpolated`, (channels, length * factor)."""
    # The classes themselves rather than pyplot: no backend is chosen for the user's own figures.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 8), layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1)
    channels = len(recording.samples)
    of_many = f", channel 1 of {channels}" if channels > 1 else ""
    figure.suptitle(f"{recording.name}{of_many}: interpolated by {factor} with gpuconv.conv1d_transpose")
    _draw_samples(upper, recording, interpolated[0], factor)
    _draw_spectra(lower, recording, interpolated[0], factor)
    figure.savefig(file, format="png", dpi=150)


def _stretch(x: np.ndarray, length: int) -> slice:
    """At most `length` samples around the one that is farthest from the median."""
    peak = int(np.argmax(np.abs(x - np.median(x))))
    first = max(0, min(peak - length // 2, len(x) - length))
    return slice(first, min(first + length, len(x)))


def _draw_samples(axes: Any, recording: Recording, y: np.ndarray, factor: int) -> None:
    x = recording.samples[0]
    shown = _stretch(x, _SHOWN)
    unit, label = (1.0, "input samples") if recording.rate is None else (1e3 / recording.rate, "ms")
    fine = np.arange(shown.start * factor, shown.stop * factor) / factor
    coarse = np.arange(shown.start, shown.stop)
    axes.plot(
        fine * unit,
        y[shown.start * factor : shown.stop * factor],
        color=_OUTPUT,
        linewidth=1.2,
        marker=".",
        markersize=3,
        label=f"interpolated, {factor} per input sample" if factor > 1 else "interpolated",
        zorder=1,
    )
    axes.plot(
        coarse * unit,
        x[shown],
        color=_INPUT,
        linestyle="none",
        marker="o",
        markersize=6,
        markerfacecolor="none",
        markeredgewidth=1.5,
        label="input samples",
        zorder=2,
    )
    axes.set(xlabel=f"time ({label})", ylabel=recording.amplitude)
    title = f"{len(coarse)} of {len(x)} input samples, around the largest"
    axes.set_title(title if len(coarse) < len(x) else "samples", fontsize="medium")
    # Late in a long recording, Matplotlib would label the ticks as differences from the first.
    axes.ticklabel_format(axis="x", style="plain", useOffset=False)
    axes.grid(alpha=0.3)
    _legend_below(axes)


def _draw_spectra(axes: Any, recording: Recording, y: np.ndarray, factor: int) -> None:
    x = recording.samples[0]
    part = _stretch(x, _TRANSFORMED)
    stuffed = np.zeros((part.stop - part.start) * factor)
    # A gain of factor makes up for the zeros in between.
    stuffed[::factor] = x[part].astype(np.float64) * factor
    # A window that leaves hardly a sample would show itself.
    windowed = part.stop - part.start >= _SHOWN
    before = _magnitude(stuffed, windowed)
    after = _magnitude(y[part.start * factor : part.stop * factor], windowed)
    unit, label = _frequency_unit(recording.rate, factor)
    frequencies = np.fft.rfftfreq(len(stuffed), 1 / factor) * unit
    reference = before.max() or 1.0
    for magnitude, colour, name in (
        (before, _INPUT, "input with zeros in between" if factor > 1 else "input"),
        (after, _OUTPUT, "interpolated"),
    ):
        level = 20 * np.log10(np.maximum(magnitude / reference, 10 ** (_FLOOR / 20)))
        axes.plot(frequencies, level, color=colour, linewidth=0.8, label=name)
    if factor > 1:
        axes.axvline(0.5 * unit, color="black", linestyle="--", linewidth=1, label="Nyquist of the input")
    axes.set(xlabel=f"frequency ({label})", ylabel="level (dB of the largest)")
    axes.set_xlim(0, 0.5 * factor * unit)
    axes.set_ylim(_FLOOR, 10)
    title = "spectrum: the filter suppresses the images" if factor > 1 and windowed else "spectrum"
    axes.set_title(title, fontsize="medium")
    axes.grid(alpha=0.3)
    _legend_below(axes)


def _legend_below(axes: Any) -> None:
    """A legend under the axis label, where no line can run through it."""
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=3, frameon=False)


def _magnitude(samples: np.ndarray, windowed: bool) -> np.ndarray:
    """Magnitude spectrum; this Kaiser window keeps a strong line 100 dB away from weak neighbours."""
    window = np.kaiser(len(samples), 14.0) if windowed else np.ones(len(samples))
    return np.abs(np.fft.rfft(samples * window))


def _frequency_unit(rate: int | None, factor: int) -> tuple[float, str]:
    """What one cycle per input sample is, in the unit of the frequency axis."""
    if rate is None:
        return 1.0, "cycles per input sample"
    return (rate / 1e3, "kHz") if rate * factor >= 20_000 else (float(rate), "Hz")
