"""Recordings in files: read piece by piece, and what precedes the samples of those that are written."""

from __future__ import annotations

import io
import math
import os
import struct
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

__all__ = ["Recording", "npy_header", "read_npy", "read_wav", "wav_header"]

#: Sample types of WAV files by (format tag, bits).
_WAV_DTYPES: dict[tuple[int, int], np.dtype[Any]] = {(1, 16): np.dtype("<i2"), (3, 32): np.dtype("<f4")}
_WAV_EXTENSIBLE = 0xFFFE
#: What reads the header of a NPY file by its version. (Version 3 is for names of fields.)
_NPY_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_WAV_SIZES = 2**32


class Recording(NamedTuple):
    """Samples in an open file, from byte `offset` on; `rate` per second, None where none is known."""

    file: BinaryIO
    offset: int
    dtype: np.dtype
    shape: tuple[int, ...]
    fortran: bool
    axis: int
    """The one that is time."""
    rate: int | None
    full_scale: int = 1
    """The sample that stands for 1."""

    @property
    def length(self) -> int:
        """Samples of each channel."""
        return self.shape[self.axis]

    def rows(self, begin: int, end: int) -> np.ndarray:
        """Some of them, of shape (length, channels), as fractions of full scale."""
        # A map for each piece: the pages of one that stays count as memory of the process.
        order: Any = "F" if self.fortran else "C"
        samples = np.asarray(np.memmap(self.file, self.dtype, "r", self.offset, self.shape, order))
        columns = samples[:, np.newaxis] if samples.ndim == 1 else np.moveaxis(samples, self.axis, 0)
        rows = columns[begin:end]
        return rows if self.full_scale == 1 else rows / np.float32(self.full_scale)


def npy_header(shape: tuple[int, ...], dtype: np.dtype, *, fortran: bool) -> bytes:
    """Everything before the samples of a NPY file."""
    file = io.BytesIO()
    about = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": fortran, "shape": shape}
    np.lib.format.write_array_header_1_0(file, about)
    return file.getvalue()


def read_npy(path: Path, file: BinaryIO, axis: int) -> Recording:
    """The recording in a NPY file, of which `axis` is time."""
    # Not by open_memmap, which takes a path: another file may be there by now.
    try:
        version = np.lib.format.read_magic(file)
        if version not in _NPY_HEADERS:
            raise ValueError(f"its format is {version}")
        shape, fortran, dtype = _NPY_HEADERS[version](file)
    except ValueError as error:
        raise ValueError(f"Expected a .npy file of numbers. Received {path}: {error}.") from error
    if dtype.kind not in "iufc" or len(shape) not in (1, 2):
        raise ValueError(
            f"Expected a .npy file of numbers, of 1 or 2 dimensions. Received {path}: "
            f"{dtype} of shape {shape}."
        )
    if not -len(shape) <= axis < len(shape):
        raise ValueError(f"Expected axis to be one of {path}, of shape {shape}. Received {axis=}.")
    begin, size = file.tell(), os.fstat(file.fileno()).st_size
    if size < begin + math.prod(shape) * dtype.itemsize:
        raise ValueError(
            f"Expected a .npy file with all samples of its shape, {shape}. Received {path}, of {size} bytes."
        )
    return Recording(file, begin, dtype, shape, fortran, axis % len(shape), None)


def wav_header(length: int, channels: int, rate: int, dtype: np.dtype) -> bytes:
    """Everything before the samples of a WAV file."""
    tag = 1 if dtype.kind == "i" else 3
    frame = channels * dtype.itemsize
    if 64 + length * frame >= _WAV_SIZES or rate * frame >= _WAV_SIZES:
        raise ValueError(
            f"Expected a .wav file of less than 4 GiB. Received {length} samples of {channels} channels, "
            f"{rate} per second. Use .npy files."
        )
    about = struct.pack("<HHIIHH", tag, channels, rate, rate * frame, frame, 8 * dtype.itemsize)
    chunks = [(b"fmt ", about)]
    if tag == 3:  # what is not PCM says that nothing else follows, and how long it is
        chunks = [(b"fmt ", about + b"\0\0"), (b"fact", struct.pack("<I", length))]
    body = b"".join(name + struct.pack("<I", len(content)) + content for name, content in chunks)
    body = b"WAVE" + body + b"data" + struct.pack("<I", length * frame)
    return b"RIFF" + struct.pack("<I", len(body) + length * frame) + body


def read_wav(path: Path, file: BinaryIO, axis: int) -> Recording:
    """The recording in a WAV file, whose first axis is time."""
    if axis:
        raise ValueError(f"Expected axis=0 for a .wav file, which has no other order. Received {axis=}.")
    about, begin, size = _wav_chunks(path, file)
    tag, channels, rate, _, _, bits = struct.unpack("<HHIIHH", about[:16])
    if tag == _WAV_EXTENSIBLE and len(about) >= 26:
        (tag,) = struct.unpack("<H", about[24:26])
    if (tag, bits) not in _WAV_DTYPES or not channels:
        raise ValueError(
            f"Expected a .wav file of 16-bit integers or 32-bit floats. Received {path}: format {tag}, "
            f"{bits} bits, {channels} channels. Convert it first."
        )
    dtype = _WAV_DTYPES[tag, bits]
    # A file that was written as a stream says a size that it does not have.
    length = min(size, os.fstat(file.fileno()).st_size - begin) // (channels * dtype.itemsize)
    full_scale = 2**15 if dtype.kind == "i" else 1
    return Recording(file, begin, dtype, (length, channels), False, 0, rate, full_scale)


def _wav_chunks(path: Path, file: BinaryIO) -> tuple[bytes, int, int]:
    """The format chunk of a WAV file, and where its samples begin and how many bytes they are."""
    about = b""
    start = file.read(12)
    while start[:4] == b"RIFF" and start[8:] == b"WAVE":
        head = file.read(8)
        if len(head) < 8:
            break
        name, size = struct.unpack("<4sI", head)
        if name == b"fmt ":
            about = file.read(size)
        if name == b"data" and len(about) >= 16:
            return about, file.tell(), size
        # Chunks have even lengths.
        file.seek(size % 2 if name == b"fmt " else size + size % 2, os.SEEK_CUR)
    raise ValueError(f"Expected a .wav file. Received {path}, in which no format and no samples were found.")
