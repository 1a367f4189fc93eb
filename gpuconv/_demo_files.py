"""Recordings in, recordings out: what the demo reads and writes."""

from __future__ import annotations

import secrets
import struct
import sys
import tokenize
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

__all__ = ["InputError", "Recording", "check_size", "read_recording", "save", "write_samples"]

# A sample's weights in the interpolation filter sum to less than 16, so no output overflows float32.
_LARGEST_SAMPLE = float(np.finfo(np.float32).max) / 16
_MOST_OUTPUT = 2**28  # output samples of all channels: 1 GiB of float32
_WAV_SIZES = 2**32  # RIFF counts bytes, and bytes per second, in 32 bits


class InputError(ValueError):
    """What the user gave cannot be used; the message says why and what to do."""


class Recording(NamedTuple):
    """Samples of every channel, and what is known about them.

    Attributes
    ----------
    samples : numpy.ndarray, shape (channels, length)
        float32, finite.
    rate : int or None
        Samples per second; None where the file does not say.
    name : str
        Stem of the names of the files that are written.
    suffix : {".wav", ".npy"}
        Kind of file that the result goes into.
    amplitude : str
        Unit of the samples, as an axis label gives it.
    one_dimensional : bool
        Whether the file held (length,) rather than (length, channels).
    """

    samples: np.ndarray
    rate: int | None
    name: str
    suffix: str
    amplitude: str
    one_dimensional: bool


def read_recording(path: Path | None) -> Recording:
    """The recording in the WAV or NPY file at `path`; None is the electrocardiogram of PyWavelets.

    Raises
    ------
    InputError
        If there is no such file, or none that holds real, finite samples.
    """
    if path is None:
        return _electrocardiogram()
    readers = {".wav": _read_wav, ".npy": _read_npy}
    suffix = path.suffix.lower()
    if suffix not in readers:
        raise InputError(
            f"Expected --input to end in .wav or .npy. Received {path}. Convert the recording first."
        )
    try:
        samples, rate, amplitude = readers[suffix](path)
    except OSError as error:
        raise InputError(
            f"Expected --input to name a file that can be read. Received {path}: {error.strerror}. "
            "Check the path."
        ) from error
    columns = _checked(samples, path)
    return Recording(columns, rate, path.stem, suffix, amplitude, samples.ndim == 1)


def check_size(recording: Recording, factor: int) -> None:
    """Refuse an interpolation whose result would be too large.

    Raises
    ------
    InputError
        If there are too many to hold, or too many for the header of a WAV file.
    """
    size = recording.samples.size * factor
    if size > _MOST_OUTPUT:
        raise InputError(
            f"Expected at most {_MOST_OUTPUT} output samples. Received factor={factor} and "
            f"{recording.samples.size} input samples. Cut the recording or take a smaller factor."
        )
    byte_rate = 4 * (recording.rate or 0) * len(recording.samples) * factor
    if recording.suffix == ".wav" and byte_rate >= _WAV_SIZES:
        raise InputError(
            f"Expected at most {_WAV_SIZES - 1} bytes of WAV per second. Received factor={factor}, which "
            f"makes {byte_rate}. Take a smaller factor or a .npy file."
        )


def write_samples(file: BinaryIO, recording: Recording, samples: np.ndarray, factor: int) -> None:
    """Write `samples`, (channels, length) interpolated from `recording`, as the kind of file it came from."""
    columns = samples[0] if recording.one_dimensional else samples.T
    if recording.suffix == ".npy":
        np.save(file, columns, allow_pickle=False)
        return
    from scipy.io import wavfile

    wavfile.write(file, (recording.rate or 0) * factor, columns)


def save(contents: dict[Path, Callable[[BinaryIO], None]]) -> None:
    """Make every file of `contents` with its function, or none of them.

    Each is written under another name in its own folder and renamed when all are complete.

    Raises
    ------
    InputError
        If the folder cannot be made or written.
    """
    drafts = {path: path.with_name(f".{path.name}.{secrets.token_hex(4)}") for path in contents}
    try:
        for path, write in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with drafts[path].open("xb") as file:
                write(file)
        for path, draft in drafts.items():
            draft.replace(path)
    except OSError as error:
        raise InputError(
            f"Expected --output to name a folder that can be written. Received {path.parent}: "
            f"{error.strerror}. Choose another one."
        ) from error
    finally:
        for draft in drafts.values():
            # After a failure there may be no folder, or a file in its place.
            if draft.exists():
                draft.unlink()


def _electrocardiogram() -> Recording:
    """1024 samples of an electrocardiogram, three beats.

    PyWavelets documents no sampling rate. 360 Hz is inferred: it puts the line in the spectrum at
    0.1667 cycles per sample at the 60 Hz of the mains, and the pulse at 66 beats a minute.
    """
    import pywt

    samples = _checked(pywt.data.ecg(), "pywt.data.ecg()")
    return Recording(samples, 360, "ecg", ".npy", "amplitude (recorder's units)", True)


def _read_wav(path: Path) -> tuple[np.ndarray, int, str]:
    from scipy.io import wavfile

    try:
        with warnings.catch_warnings(record=True) as notes:
            # Said below in one line each, without the source line of SciPy that a warning shows.
            warnings.simplefilter("always", wavfile.WavFileWarning)
            rate, samples = wavfile.read(path)
    # What SciPy raises for a header that is cut short or contradicts itself.
    except (ValueError, EOFError, struct.error, ZeroDivisionError) as error:
        raise _unreadable(path, "WAV", str(error)) from error
    # And its slip where one of the two chunks that it needs is not in the file.
    except UnboundLocalError as error:
        raise _unreadable(path, "WAV", "no fmt or no data chunk") from error
    for note in notes:
        print(f"gpuconv demo: {path}: {note.message}", file=sys.stderr)
    if not rate:
        raise _unreadable(path, "WAV", "its sampling rate is 0")
    return _full_scale(samples), int(rate), "amplitude (full scale = 1)"


def _full_scale(samples: np.ndarray) -> np.ndarray:
    """Samples as floats, integers scaled to [-1, 1); SciPy hands 24 bits over as the upper ones of 32."""
    if samples.dtype.kind == "f":
        return samples
    if samples.dtype == np.uint8:
        # 8-bit WAV alone is unsigned, with silence in the middle.
        return (samples.astype(np.float64) - 128) / 128
    return samples / 2.0 ** (8 * samples.dtype.itemsize - 1)


def _read_npy(path: Path) -> tuple[np.ndarray, None, str]:
    try:
        with path.open("rb") as file:
            samples = np.lib.format.read_array(file, allow_pickle=False)
    # A damaged header need not be Python (TokenError) and can claim any size (MemoryError).
    except (ValueError, EOFError, MemoryError, tokenize.TokenError) as error:
        raise _unreadable(path, "NPY", str(error)) from error
    return samples, None, "amplitude (as stored)"


def _unreadable(path: Path, kind: str, reason: str) -> InputError:
    # NumPy's reasons go on for several lines.
    first, *_ = reason.splitlines() or ["it is damaged"]
    return InputError(
        f"Expected --input to be a complete {kind} file. Received {path}: {first.rstrip('.')}. "
        "Save the recording again."
    )


def _checked(samples: np.ndarray, source: Path | str) -> np.ndarray:
    """`samples`, (length,) or (length, channels), as float32 of (channels, length)."""
    if samples.dtype.kind not in "iuf":
        raise InputError(
            f"Expected real numbers. Received {source} of dtype {samples.dtype}. Save them as float32."
        )
    if samples.ndim not in (1, 2):
        raise InputError(
            f"Expected samples of shape (length,) or (length, channels). Received {source} of shape "
            f"{samples.shape}. Reshape them."
        )
    if not samples.size:
        raise InputError(
            f"Expected at least one sample. Received {source} of shape {samples.shape}. "
            "Take a longer recording."
        )
    # NaN compares false, so it is refused with the infinite and the too large.
    if not np.all(np.abs(samples.astype(np.float64)) < _LARGEST_SAMPLE):
        raise InputError(
            f"Expected finite samples below {_LARGEST_SAMPLE:.1e}. Received {source} with NaN, infinite or "
            "larger ones: each would spoil its neighbours. Replace or scale them."
        )
    columns = samples[:, np.newaxis] if samples.ndim == 1 else samples
    return np.ascontiguousarray(columns.T, dtype=np.float32)
