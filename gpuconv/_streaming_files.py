"""Files through a stream: memory-mapped in, written piece by piece, gone on with after an interruption.

While it runs, what is written lies in ``<target>.part``, and ``<target>.progress`` says how far it is: the
stream's state, and how many rows were read and written. What lies in the first beyond that is written again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib
import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from gpuconv import activations
from gpuconv._streaming_convolution import Convolution
from gpuconv._streaming_formats import Recording, npy_header, read_npy, read_wav, wav_header
from gpuconv.geometry import integer
from gpuconv.layers import Layer
from gpuconv.namespace import dtype_name, dtype_named, like, to_numpy
from gpuconv.ops import Plan
from gpuconv.streaming import Stream, stream

__all__ = ["process_file"]

#: Between two records of the progress: what an interruption costs at most, beside the chunk.
_SECONDS = 1.0


class _Progress(NamedTuple):
    """Rows that were read and written."""

    read: int
    written: int


class _Kept(NamedTuple):
    """What an interruption leaves beside the target, and the digest of the run that it is of."""

    part: Path
    record: Path
    digest: str

    def seal(self, body: bytes) -> bytes:
        """What precedes a record: of no other run, and of no other bytes."""
        return hashlib.sha256(self.digest.encode() + body).digest()

    @property
    def aside(self) -> Path:
        """Where a record is written before it replaces the last one."""
        return self.record.with_name(self.record.name + ".new")

    def forget(self) -> None:
        """Remove the records."""
        self.record.unlink(missing_ok=True)
        self.aside.unlink(missing_ok=True)


class _Output(NamedTuple):
    """The target: what precedes its rows, their dtype, and how many there are of how many channels."""

    header: bytes
    dtype: np.dtype
    length: int
    channels: int

    def offset(self, rows: int) -> int:
        """Bytes before row `rows`."""
        return len(self.header) + rows * self.channels * self.dtype.itemsize


def process_file(
    model: Layer | Plan | Stream,
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    axis: int = 0,
    chunk: int = 65_536,
    progress: bool = True,
) -> Path:
    """Run a layer, model or plan over a recording that need not fit into memory.

    The target is complete or absent; one of an earlier run stays whole until it is replaced. Called again
    after an interruption, it goes on where it was, if source, model and `chunk` are as before; else it starts
    again.

    Parameters
    ----------
    model : Layer, Plan or Stream
        As `gpuconv.stream` takes it, or what that returned, which is reset.
    source : str or path
        A ``.npy`` file of shape (length,) or (length, channels), or a ``.wav`` file of 16-bit integers or
        32-bit floats. Integers of a ``.wav`` file are divided by 32768, those of a ``.npy`` file are not.
    target : str or path
        Of the same kind. A ``.npy`` file has the dtype of the model, float32 for bfloat16, its axes as in the
        source, and the shape (length,) if the source has and there is one channel. A ``.wav`` file has the
        sample type of the source, integers rounded and clipped, and its rate times the stream's.
    axis : int, default 0
        Which axis of a ``.npy`` file is time: 1 for the shape (channels, length), whatever the data format
        of the model.
    chunk : int, default 65536
        Input samples at a time.
    progress : bool, default True
        Whether to show a bar, where tqdm is installed: ``pip install gpuconv[progress]``.

    Returns
    -------
    pathlib.Path
        The target.

    Raises
    ------
    ValueError, TypeError, NotImplementedError
        For a file that is not of these kinds, for a model that cannot be streamed or does not take the
        recording's length or channels. Nothing is written then.
    ValueError
        Where the model makes a NaN, which the integers of a ``.wav`` file cannot be. The target stays as it
        was.
    BlockingIOError
        If another run is writing the target, as far as the system and the file system have locks: Windows is
        not asked.
    OSError
        If a file cannot be read or written, and if the source was written meanwhile. The target stays as it
        was.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import numpy as np
    >>> import gpuconv
    >>> layer = gpuconv.layers.Conv1DTranspose(1, 4, 2, "same", kernel_initializer="ones")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     source, target = pathlib.Path(folder, "in.npy"), pathlib.Path(folder, "out.npy")
    ...     np.save(source, np.arange(5.0))
    ...     np.load(gpuconv.process_file(layer, source, target, chunk=2, progress=False))
    array([0., 1., 1., 3., 3., 5., 5., 7., 7., 4.], dtype=float32)
    """
    source, target = Path(source), Path(target)
    axis, chunk = integer("axis", axis, -2), integer("chunk", chunk, 1)
    readers = {".npy": read_npy, ".wav": read_wav}
    suffix = source.suffix.lower()
    if suffix not in readers or target.suffix.lower() != suffix:
        raise ValueError(
            "Expected source and target to be two .npy or two .wav files. "
            f"Received source={str(source)!r}, target={str(target)!r}."
        )
    if target.exists() and target.samefile(source):
        raise ValueError(f"Expected another file as target than the source. Received {str(target)!r}.")
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "Expected a file as target. Received a directory", str(target))
    part, record = (target.with_name(target.name + end) for end in (".part", ".progress"))
    with source.open("rb") as file:
        before = os.fstat(file.fileno())
        recording = readers[suffix](source, file, axis)
        running = model if isinstance(model, Stream) else stream(model, length=recording.length)
        running.reset()
        # An empty chunk builds the layers and refuses what they do not take.
        empty = _rows_of(running, running.push(_chunk_of(running, recording.rows(0, 0))))
        output = _output_of(recording, running, empty)
        kept = _Kept(part, record, _digest(running, before, chunk, output))
        with _alone(part, target):
            done = _resumed(running, kept, output)
            with _bar(recording.length, done.read, progress) as advance:
                _run(running, recording, chunk, output, kept, done, advance)
            after = os.fstat(file.fileno())
            # Not the time of the inode, which a new name or mode changes too.
            if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
                part.unlink()
                kept.forget()
                raise OSError(
                    "Expected a source that stays as it is meanwhile. Received one that was written: "
                    f"{str(source)!r}. Call again when it is complete."
                )
            part.replace(target)
            kept.forget()
    return target


@contextlib.contextmanager
def _alone(part: Path, target: Path) -> Iterator[None]:
    """Keep other runs from the part by a lock, which ends with the process, however that ends."""
    if sys.platform == "win32":
        yield
        return
    import fcntl

    with part.open("ab") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            alone = os.path.samestat(os.fstat(held.fileno()), part.stat())  # and not renamed just now
        except (BlockingIOError, FileNotFoundError):
            alone = False
        except OSError:
            alone = True  # as far as can be told: this file system has no locks
        if not alone:
            raise BlockingIOError(
                errno.EWOULDBLOCK,
                "Expected a target that no other run writes. Wait for that run, or choose another target. "
                "Received",
                str(target),
            )
        yield


def _run(
    running: Stream,
    recording: Recording,
    chunk: int,
    output: _Output,
    kept: _Kept,
    done: _Progress,
    advance: Callable[[int], object],
) -> None:
    """Write the part from where it was `done` to its end."""
    with kept.part.open("r+b" if done.read else "wb") as file:
        if not done.read:
            file.write(output.header)
        file.seek(output.offset(done.written))
        recorded = time.monotonic()
        for begin in range(done.read, recording.length, chunk):
            rows = recording.rows(begin, begin + chunk)
            made = _rows_of(running, running.push(_chunk_of(running, rows)))
            file.write(_encoded(made, output.dtype))
            advance(len(rows))
            done = _Progress(begin + len(rows), done.written + len(made))
            if time.monotonic() - recorded >= _SECONDS:
                _sync(file)  # the record is of what is on the disk
                _write_record(kept, running, done)
                recorded = time.monotonic()
        file.write(_encoded(_rows_of(running, running.flush()), output.dtype))
        _sync(file)


@contextlib.contextmanager
def _bar(length: int, read: int, wanted: bool) -> Iterator[Callable[[int], object]]:
    """What is told of every chunk: a bar of tqdm, where it is installed."""
    try:
        tqdm = importlib.import_module("tqdm") if wanted else None
    except ImportError:
        tqdm = None
    if tqdm is None:
        yield lambda _: None
    else:
        with tqdm.tqdm(total=length, initial=read, unit=" samples", unit_scale=True) as bar:
            yield bar.update


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


# --- samples -------------------------------------------------------------------------------------


def _chunk_of(running: Stream, rows: np.ndarray) -> Any:
    """Rows (length, channels) as a chunk, in the library of the weights."""
    first = running._convolutions[0]
    if rows.dtype.kind == "c" and not first.dtype.startswith("complex"):
        raise TypeError(f"Expected a real recording for a model of {first.dtype}. Received {rows.dtype}.")
    columns = rows.astype(dtype_named(np, first.dtype))[np.newaxis]
    chunk = columns if first.time == 1 else np.ascontiguousarray(columns.swapaxes(1, 2))
    kernel = first.kernel()
    return chunk if kernel is None else like(chunk, kernel)


def _rows_of(running: Stream, made: Any) -> np.ndarray:
    """What came out as rows (length, channels)."""
    result = to_numpy(made)[0]
    return result if running._convolutions[0].time == 1 else result.T


def _encoded(rows: np.ndarray, dtype: np.dtype) -> bytes:
    if dtype.kind == "i":
        rows = rows.astype(np.float64)
        if np.isnan(rows).any():
            raise ValueError(
                "Expected numbers for a .wav file of integers. Received a NaN from the model. Convert the "
                "recording to 32-bit floats or to .npy, which hold it."
            )
        rows = np.clip(np.rint(rows * 32768), -32768, 32767)
    return rows.astype(dtype).tobytes()


# --- progress ------------------------------------------------------------------------------------


def _digest(running: Stream, source: os.stat_result, chunk: int, output: _Output) -> str:
    """A hash of what the target depends on: which file the source is and when it changed, model and chunk."""
    digest = hashlib.sha256(output.header)
    settings: list[Any] = [source.st_ino, source.st_size, source.st_mtime_ns, source.st_ctime_ns]
    settings += [chunk, output.dtype.str]
    states = iter(running._states)
    for part in running._parts:  # in their order
        if not isinstance(part, Convolution):
            settings.append([type(part).__name__, _activation(getattr(part, "activation", None))])
            continue
        options = part.options | {"activation": _activation(part.options["activation"])}
        settings.append([part.sizes, options, part.planned])
        for weight in part.weights(next(states).halo):
            if weight is not None:
                settings.append(list(weight.shape))
                digest.update(to_numpy(weight).tobytes())
    digest.update(json.dumps(settings, default=repr).encode())
    return digest.hexdigest()


def _activation(activation: Any) -> Any:
    """What JSON holds of an activation."""
    return activations.serialize(activations.get(activation))


def _write_record(kept: _Kept, running: Stream, done: _Progress) -> None:
    body = io.BytesIO()
    np.savez(body, **done._asdict(), **running.state)
    with kept.aside.open("wb") as file:
        file.write(kept.seal(body.getvalue()) + body.getvalue())
        _sync(file)
    kept.aside.replace(kept.record)


def _resumed(running: Stream, kept: _Kept, output: _Output) -> _Progress:
    """How far an interrupted run came, with its state in `running`; nothing if it was not of this run."""
    try:
        content = kept.record.read_bytes()
        body = content[hashlib.sha256().digest_size :]
        # Nothing is read of what is damaged: there is no end to the errors that it could raise.
        if content == kept.seal(body) + body:
            with np.load(io.BytesIO(body), allow_pickle=False) as saved:
                state = {name: saved[name] for name in saved.files}
            done = _Progress(*(state.pop(name).item() for name in _Progress._fields))
            with kept.part.open("rb") as file:
                header = file.read(len(output.header))
            if header == output.header and kept.part.stat().st_size >= output.offset(done.written):
                running.state = state
                return done
    except (OSError, ValueError):
        pass  # none there, or the state of another version: start again
    return _Progress(0, 0)


# --- the target ----------------------------------------------------------------------------------


def _output_of(recording: Recording, running: Stream, empty: np.ndarray) -> _Output:
    """The target for a stream that makes rows like `empty`."""
    length, channels = running.output_length(recording.length), empty.shape[1]
    if recording.rate is None:
        dtype = np.dtype(np.float32) if dtype_name(empty.dtype) == "bfloat16" else empty.dtype
        flat = len(recording.shape) == 1 and channels == 1
        shape = (length,) if flat else (channels, length) if recording.axis else (length, channels)
        # Written by time, it is in Fortran's order where time is the last axis.
        header = npy_header(shape, dtype, fortran=recording.axis == 1)
        return _Output(header, dtype, length, channels)
    if empty.dtype.kind == "c":
        raise TypeError(f"Expected a model that makes real samples for a .wav file. Received {empty.dtype}.")
    rate = recording.rate * running.rate
    if rate.denominator > 1:
        raise ValueError(
            f"Expected a .wav file whose rate stays an integer. Received {recording.rate} per second, of "
            f"which the model makes {running.rate} times as many. Use .npy files."
        )
    header = wav_header(length, channels, int(rate), recording.dtype)
    return _Output(header, recording.dtype, length, channels)
