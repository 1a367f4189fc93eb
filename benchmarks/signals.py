"""`gpuconv.signal` against SciPy and PyTorch on a CPU: upsample and istft, on NumPy arrays of float32.

    python benchmarks/signals.py [--seconds 0.25] [--rounds 3]

Every result is compared with the others before it is timed. Results are in benchmarks/results, as JSON and as
Markdown. Needs SciPy; without PyTorch its column is left out. Exits with 2 where two results differ.
"""

import functools
import importlib.metadata
import json
import math
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

SCRIPT = Path(__file__).resolve()
sys.path.insert(0, str(SCRIPT.parent.parent))  # what is measured is this checkout

import _cpu_machine as machine  # noqa: E402
from _cpu_contestants import Contestant, absent, cores  # noqa: E402
from _text import NONE, ratio, table, write  # noqa: E402

from gpuconv.signal import istft, upsample  # noqa: E402

OURS = "gpuconv"
# Rounding is a few times 1e-7 of the largest sample; what else is computed is as far away as it is large.
MOST_DIFFERENCE = 1e-5


class Up(NamedTuple):
    """A signal, the axis of time, and how many samples each becomes."""

    shape: tuple[int, ...]
    factor: int
    axis: int = -1


class Spectrogram(NamedTuple):
    """What an STFT makes of a signal, with a Hann window of `n_fft` samples."""

    shape: tuple[int, ...]
    n_fft: int
    hop: int


UPS = (
    Up((100,), 2),
    Up((1024,), 8),
    Up((48_000,), 2),
    Up((48_000,), 160),
    Up((480_000,), 8),
    Up((2, 480_000), 4),
    Up((480_000, 2), 4, 0),
    Up((64, 10_000), 3),
    Up((1000, 100), 10),
)
SPECTROGRAMS = (
    Spectrogram((2048,), 256, 64),
    Spectrogram((22_050,), 400, 160),
    Spectrogram((32, 16_000), 512, 128),
    Spectrogram((8, 110_250), 1024, 256),
    Spectrogram((60 * 22_050,), 1024, 256),
)


def main(arguments: list[str] | None = None) -> int:
    parser = machine.clock_options(__doc__.splitlines()[0])
    parser.add_argument(
        "--pause", type=machine.number(float, 0), default=0.05, help="before a block (0.05 s)"
    )
    options = parser.parse_args(arguments)
    clock = machine.Clock(options.seconds, options.rounds, options.pause)
    document: dict[str, Any] = {
        "machine": {**machine.describe(), "scipy": importlib.metadata.version("scipy")},
        "measured": machine.stamp(),
        "clock": clock._asdict(),
        "load": machine.load(),
        "rows": [],
    }
    for row in (*UPS, *SPECTROGRAMS):
        field = up_field(row) if isinstance(row, Up) else spectrogram_field(row)
        apart = difference(field)
        if not apart <= MOST_DIFFERENCE:
            print(f"{title_of(row)}: results differ by {apart:.1e} of the largest sample", file=sys.stderr)
            return 2
        times = machine.race(field, clock)
        document["rows"].append({"kind": type(row).__name__, "title": title_of(row), "times": times})
        print(f"{title_of(row)}: " + ", ".join(f"{name} {time['ms']:.3g} ms" for name, time in times.items()))
    path = options.output / "signal.json"
    write(path, json.dumps(document, indent=1) + "\n")
    write(path.with_suffix(".md"), markdown(document))
    print(f"written to {path}")
    return 0


def title_of(row: Up | Spectrogram) -> str:
    if isinstance(row, Up):
        return f"{row.shape} x {row.factor}" + (f", axis {row.axis}" if row.axis != -1 else "")
    return f"{row.shape}, n_fft {row.n_fft}, hop {row.hop}"


# --- contestants ---------------------------------------------------------------------------------


def up_field(row: Up) -> list[Contestant]:
    from scipy import signal

    x = np.random.default_rng(0).standard_normal(row.shape, np.float32)
    h = signal.firwin(20 * row.factor + 1, 1 / row.factor, window=("kaiser", 5.0)).astype(np.float32)
    h *= row.factor

    def middle(y: np.ndarray) -> np.ndarray:
        """What `resample_poly` keeps of it."""
        kept = range(10 * row.factor, (10 + x.shape[row.axis]) * row.factor)
        return y.take(kept, axis=row.axis)

    return [
        Contestant(OURS, functools.partial(upsample, x, row.factor, axis=row.axis)),
        Contestant("upfirdn", functools.partial(signal.upfirdn, h, x, row.factor, axis=row.axis), middle),
        Contestant("resample_poly", functools.partial(signal.resample_poly, x, row.factor, 1, axis=row.axis)),
    ]


def spectrogram_field(row: Spectrogram) -> list[Contestant]:
    from scipy import signal

    length, settings = row.shape[-1], {"hop_length": row.hop, "n_fft": row.n_fft, "length": row.shape[-1]}
    x = np.random.default_rng(0).standard_normal(row.shape, np.float32)
    window = signal.get_window("hann", row.n_fft).astype(np.float32)
    transform = signal.ShortTimeFFT(window.copy(), row.hop, 1, phase_shift=None)
    whole = transform.stft(x).astype(np.complex64)
    spectra = np.ascontiguousarray(whole[..., -transform.p_min :])
    field = [
        Contestant(OURS, functools.partial(istft, spectra, window, **settings)),
        Contestant("ShortTimeFFT", functools.partial(transform.istft, whole, k1=length)),
    ]
    if not absent(("torch",)):
        import torch

        torch.set_num_threads(cores())
        tensor, weights = torch.from_numpy(spectra), torch.from_numpy(window)
        field.append(Contestant("torch", functools.partial(torch.istft, tensor, window=weights, **settings)))
    return field


def difference(field: list[Contestant]) -> float:
    """The most that any result is from the first, as a part of its largest sample."""
    first, *others = (np.asarray(each.finish(each.call())) for each in field)
    if any(other.shape != first.shape for other in others):
        return math.inf
    return max(float(np.abs(other - first).max() / np.abs(first).max()) for other in others)


# --- text ----------------------------------------------------------------------------------------


def markdown(document: dict[str, Any]) -> str:
    about, clock = dict(document["machine"]), document["clock"]
    parts = [f"# gpuconv.signal on {about.pop('cpu')}, {about.pop('cores')} cores"]
    parts.append(", ".join(f"{name} {version}" for name, version in about.items()))
    parts += ["## upsample", of_kind(document, "Up", ("upfirdn", "resample_poly"))]
    parts.append(
        "upfirdn is given its filter. resample_poly designs it in every call, upsample in the first one with "
        "a shape, which is not timed."
    )
    parts += ["## istft", of_kind(document, "Spectrogram", ("ShortTimeFFT", "torch"))]
    parts.append(
        f"Milliseconds, float32: the best of {clock['rounds']} rounds, each the median of the calls that fit "
        f"in {clock['seconds']:g} s, taking turns with {clock['pause']:g} s between them. Ratios above 1 "
        "are in our favour. PyTorch has tensors of its own and all cores, NumPy's FFT has one."
    )
    if document["load"] is not None:
        parts.append(f"Load of the machine before, which should be near 0: {document['load']:.1f}.")
    measured = document["measured"]
    parts.append(f"Measured {measured['date']}, commit {measured['commit'] or 'unknown'}.")
    return "\n\n".join(parts) + "\n"


def of_kind(document: dict[str, Any], kind: str, peers: tuple[str, ...]) -> str:
    lines = []
    for row in document["rows"]:
        if row["kind"] == kind:
            ms = {name: time["ms"] for name, time in row["times"].items()}
            cells = [f"{ms[name]:.3g}" if name in ms else NONE for name in (OURS, *peers)]
            ratios = [ratio(ms[name] / ms[OURS] if name in ms else None) for name in peers]
            lines.append([row["title"], *cells, *ratios])
    return table(("", OURS, *peers, *(f"{name} / ours" for name in peers)), lines)


if __name__ == "__main__":
    sys.exit(main())
