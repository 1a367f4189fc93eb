"""``python -m gpuconv demo``: interpolate a recording, check every number, time it, draw it.

Interpolation by r is a transposed convolution with stride r: every sample is replaced by a copy of the
filter, r output samples after the one before.
"""

from __future__ import annotations

import functools
import importlib.util
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gpuconv._demo_files import InputError, Recording, check_size, read_recording, save, write_samples
from gpuconv._demo_picture import write_picture
from gpuconv._typing import Array, Namespace
from gpuconv.doctor import find_gpu
from gpuconv.namespace import to_numpy
from gpuconv.ops import conv1d_transpose

__all__ = ["Agreement", "InputError", "compare", "interpolate", "kaiser_sinc", "missing_packages", "run"]

_REACH = 16  # input samples that an output sample sees on either side
_ATTENUATION = 80.0  # dB, of the images
_MOST_FACTOR = 1024
_BLOCK = 2**15  # input samples that are compared at a time
_NEEDED = {"scipy": "SciPy", "matplotlib": "Matplotlib", "pywt": "PyWavelets"}


class Agreement(NamedTuple):
    """How far a result is from the exact one.

    Attributes
    ----------
    difference : float
        The largest of all samples.
    bound : float
        float32's error bound at the sample that differs most.
    share : float
        The largest part of its own bound that a sample's difference takes up; 1 is the limit.
    """

    difference: float
    bound: float
    share: float


def run(source: Path | None, factor: int, folder: Path) -> int:
    """Interpolate `source` by `factor` on every backend, report, and write the result into `folder`.

    Parameters
    ----------
    source : pathlib.Path or None
        A .wav or .npy file; None is an electrocardiogram.
    factor : int
        Output samples per input sample.
    folder : pathlib.Path
        Made if it is not there. Receives ``NAME-xFACTOR.wav`` or ``.npy``, and ``.png``.

    Returns
    -------
    int
        0, or 1 if a backend's numbers left float32's error bound; then nothing is written.

    Raises
    ------
    InputError
        If an argument cannot be used.
    """
    if not 1 <= factor <= _MOST_FACTOR:
        raise InputError(
            f"Expected factor to be from 1 to {_MOST_FACTOR}. Received factor={factor}. Choose another one."
        )
    recording = read_recording(source)
    check_size(recording, factor)
    kernel = kaiser_sinc(factor)
    _print_shapes(recording, kernel, factor)
    result, good = _run_backends(recording.samples, kernel, factor)
    if not good:
        print(
            "\nThe numbers are wrong: nothing is written. Please report this with `python -m gpuconv doctor`."
        )
        return 1
    stem = f"{recording.name}-x{factor}"
    contents: dict[Path, Callable[..., None]] = {
        folder / f"{stem}{recording.suffix}": functools.partial(
            write_samples, recording=recording, samples=result, factor=factor
        ),
        folder / f"{stem}.png": functools.partial(
            write_picture, recording=recording, interpolated=result, factor=factor
        ),
    }
    save(contents)
    print()
    for path in contents:
        print(f"wrote {path}")
    return 0


def missing_packages(source: Path | None) -> list[str]:
    """Names of the packages that the demo needs to interpolate `source` and that are not installed."""
    needed = [name for name in _NEEDED if name != "pywt" or source is None]
    return [_NEEDED[name] for name in needed if importlib.util.find_spec(name) is None]


def kaiser_sinc(factor: int) -> np.ndarray:
    """The interpolation filter: a sinc of period `factor` under a Kaiser window, float32.

    Its middle is 1 and every `factor` samples from there it is 0, so the curve goes through the samples.

    Examples
    --------
    >>> from gpuconv.demo import kaiser_sinc
    >>> kaiser_sinc(8).shape
    (257,)
    """
    offsets = np.arange(-_REACH * factor, _REACH * factor + 1)
    # Kaiser's own formula for the window that attenuates by more than 50 dB.
    window = np.kaiser(len(offsets), 0.1102 * (_ATTENUATION - 8.7))
    taps = np.sinc(offsets / factor) * window
    # sin(pi n) is not quite 0 in floating point; exact zeros keep the samples as they are.
    taps[::factor] = 0.0
    taps[_REACH * factor] = 1.0
    return taps.astype(np.float32)


def interpolate(x: Array, kernel: Array, factor: int) -> Array:
    """`factor` samples for each of `x`, (channels, length), each input sample where it was in time.

    Channels become samples of the batch: all go through the same filter. The filter's delay is the left
    crop; the right one leaves length * factor samples.
    """
    delay = kernel.shape[0] // 2
    return conv1d_transpose(
        x[:, :, None],
        kernel[:, None, None],
        strides=factor,
        padding=(delay, kernel.shape[0] - delay - factor),
        data_format="channels_last",
    )[:, :, 0]


def compare(x: np.ndarray, y: np.ndarray, kernel: np.ndarray, factor: int) -> Agreement:
    """Hold `y`, interpolated from `x`, against ``scipy.signal.upfirdn`` in float64.

    Both arguments of the exact result are the float32 numbers that `y` was made from, so what is left
    is rounding. In whatever order n products are added, each step rounding by at most u = eps / 2, the
    error is at most n u / (1 - n u) times the sum of the products' magnitudes (Higham, Accuracy and
    Stability of Numerical Algorithms, section 3.1). The bound here is n eps times that sum, c = 1: half
    of it is the theorem's, the rest covers 1 - n u and the reference's own rounding. A product that
    underflows adds at most the smallest subnormal number.
    """
    terms = -(-len(kernel) // factor)
    eps, underflow = np.finfo(np.float32).eps, np.finfo(np.float32).smallest_subnormal
    difference, bound_there, share = -np.inf, 0.0, 0.0
    for channel, first in np.ndindex(len(x), -(-x.shape[1] // _BLOCK)):
        # An output sample sees _REACH input samples on either side; the block is cut out of those.
        start = first * _BLOCK
        before = min(start, _REACH)
        seen = x[channel, start - before : start + _BLOCK + _REACH].astype(np.float64)
        made = y[channel, start * factor : (start + _BLOCK) * factor].astype(np.float64)
        inner = slice(before * factor, before * factor + len(made))
        exact = _reference(seen, kernel, factor)[inner]
        magnitude = _reference(np.abs(seen), np.abs(kernel), factor)[inner]
        error = np.abs(made - exact)
        bound = terms * (float(eps) * magnitude + float(underflow))
        worst = int(np.argmax(error))
        # Not "larger": NaN must be seen too.
        if not error[worst] <= difference:
            difference, bound_there = float(error[worst]), float(bound[worst])
        share = float(np.maximum(share, np.max(error / bound)))
    return Agreement(difference, bound_there, share)


def _reference(x: np.ndarray, kernel: np.ndarray, factor: int) -> np.ndarray:
    from scipy.signal import upfirdn

    delay = len(kernel) // 2
    return upfirdn(kernel.astype(np.float64), x, up=factor)[delay : delay + len(x) * factor]


def _print_shapes(recording: Recording, kernel: np.ndarray, factor: int) -> None:
    channels, length = recording.samples.shape
    before = after = ""
    if recording.rate is not None:
        before, after = f" at {recording.rate} Hz", f" at {recording.rate * factor} Hz"
    print(f"input     {recording.name}: {(channels, length, 1)}{before}")
    print(f"kernel    {(len(kernel), 1, 1)}, strides={factor}: Kaiser-windowed sinc, {_ATTENUATION:.0f} dB")
    print(f"output    {(channels, length * factor, 1)}{after}, float32\n")


def _run_backends(x: np.ndarray, kernel: np.ndarray, factor: int) -> tuple[np.ndarray, bool]:
    """NumPy's result, and whether every backend kept the bound; prints a line for each."""
    print("backend   samples/s   largest difference   bound there   largest share of its bound")
    cupy, finding = find_gpu()
    # Arrays of NumPy are complete when the call returns, those of CuPy when the device is idle.
    backends: list[tuple[Namespace, Callable[[], object]]] = [(np, lambda: None)]
    if cupy is not None:
        backends.append((cupy, lambda: cupy.cuda.Device().synchronize()))
    results, good = [], True
    for xp, wait in backends:
        result, seconds = _timed(xp.asarray(x), xp.asarray(kernel), factor, wait)
        found = compare(x, result, kernel, factor)
        within = found.share <= 1
        print(
            f"{xp.__name__:<10}{result.size / seconds:<12.3g}{found.difference:<21.2e}{found.bound:<14.2e}"
            f"{found.share:.1%}, {'within' if within else 'NOT within'}"
        )
        results.append(result)
        good = good and within
    if cupy is None:
        print(f"{'cupy':<10}{finding.found}")
    return results[0], good


def _timed(x: Array, kernel: Array, factor: int, wait: Callable[[], object]) -> tuple[np.ndarray, float]:
    """The result on the host, and the median time that making it on its own device takes."""
    result = interpolate(x, kernel, factor)
    wait()
    seconds: list[float] = []
    while len(seconds) < 3 or (len(seconds) < 50 and sum(seconds) < 0.5):
        start = time.perf_counter()
        interpolate(x, kernel, factor)
        wait()
        seconds.append(time.perf_counter() - start)
    return to_numpy(result), statistics.median(seconds)
