"""A CPU: what it is, how long calls take on it, and the most that it can do."""

import argparse
import importlib
import importlib.metadata
import itertools
import math
import os
import platform
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from _cpu_contestants import NEEDED, Contestant, cores
from _rows import Row, floor_of, least_bytes

import gpuconv
from gpuconv.backends.cpu.threads import blas

FEWEST_CALLS = 3
GEMM_SIZES = (1024, 1536, 2048)
# More than caches hold, and what a core has to itself.
COPIED_BYTES = {"memory": 2**26, "cache": 2**20}
CEILING_SECONDS = 0.3


class Clock(NamedTuple):
    """How long a block of calls is, how many there are, and how long the CPU rests before each."""

    seconds: float
    rounds: int
    pause: float


def block(call: Callable[[], Any], seconds: float, fewest: int = FEWEST_CALLS) -> list[float]:
    """Seconds of each call, one after the other. Making the result and letting go of it both count."""
    call()  # wakes the threads, and fetches what the others pushed out of the caches
    times: list[float] = []
    until = time.perf_counter() + seconds
    while len(times) < fewest or time.perf_counter() < until:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times


def race(field: list[Contestant], clock: Clock) -> dict[str, dict[str, Any]]:
    """Milliseconds of each contestant: the best round, each of which has the median of its calls.

    They take turns, so that what slows the machine for a while slows everyone. Idle threads of one spin for
    some milliseconds and would take the cores from the next: hence the pause.
    """
    medians: dict[str, list[float]] = {contestant.name: [] for contestant in field}
    calls = dict.fromkeys(medians, 0)
    for _, contestant in itertools.product(range(clock.rounds), field):
        time.sleep(clock.pause)
        times = block(contestant.call, clock.seconds)
        medians[contestant.name].append(1e3 * statistics.median(times))
        calls[contestant.name] += len(times)
    return {
        name: {"ms": min(rounds), "rounds_ms": rounds, "calls": calls[name]}
        for name, rounds in medians.items()
    }


def number(kind: type, least: int) -> Callable[[str], Any]:
    """A type of an option, for `argparse`."""

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not least <= value < math.inf:
            raise argparse.ArgumentTypeError(
                f"expected {kind.__name__} of at least {least}, received {text!r}"
            )
        return value

    return parse


def clock_options(description: str) -> argparse.ArgumentParser:
    """A parser of what every measurement is told: its clock, and where results go."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seconds", type=number(float, 0), default=0.25, help="for a block of calls (0.25)")
    parser.add_argument("--rounds", type=number(int, 1), default=3, help="blocks of each contestant (3)")
    results = Path(__file__).resolve().parent / "results"
    parser.add_argument("--output", type=Path, default=results, metavar="DIR")
    return parser


# --- the most that it can do ---------------------------------------------------------------------


def ceilings() -> dict[str, Any]:
    """Operations a second of a float32 matrix product on all cores; bytes a second of NumPy's copy."""
    return {
        "gemm_flops": max(_gemm_rate(size) for size in GEMM_SIZES),
        "copy_bytes": {place: _copy_rate(size) for place, size in COPIED_BYTES.items()},
    }


def _gemm_rate(size: int) -> float:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, size, size), np.float32)
    c = np.empty_like(a)
    return 2 * size**3 / min(block(lambda: np.matmul(a, b, out=c), CEILING_SECONDS))


def _copy_rate(size: int) -> float:
    """Bytes read and bytes written."""
    source, target = np.ones(size // 4, np.float32), np.zeros(size // 4, np.float32)
    return 2 * size / min(block(lambda: np.copyto(target, source), CEILING_SECONDS))


def floor_ms(row: Row, ceiling: dict[str, Any]) -> tuple[float, str]:
    """The least milliseconds that a row takes at the ceilings, and which of them binds."""
    place = "cache" if least_bytes(row, 4) <= 2 * COPIED_BYTES["cache"] else "memory"
    rates = {"gemm_flops": {"ieee": ceiling["gemm_flops"]}, "copy_bytes": ceiling["copy_bytes"][place]}
    microseconds, bound = floor_of(row, "ieee", rates)
    return microseconds / 1e3, bound


# --- what it is ----------------------------------------------------------------------------------


def describe() -> dict[str, Any]:
    """Processor and versions; asked before peers are imported, whose BLAS is not ours."""
    peers = {name: _version(name) for name in NEEDED}
    return {
        "cpu": _cpu_model(),
        "cores": cores(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "blas": _blas(),
        "gpuconv": gpuconv.__version__,
        **{name: version for name, version in peers.items() if version},
    }


def load() -> float | None:
    """Processes that wanted to run in the last minute: others take cores away, from some more than others."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def stamp() -> dict[str, str | None]:
    """When something was measured, and of which commit."""
    commit = None
    if shutil.which("git"):
        command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        run = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
        commit = run.stdout.strip() or None
    return {"commit": commit, "date": datetime.now(UTC).isoformat(timespec="seconds")}


def _version(package: str) -> str | None:
    for name in (package, f"{package}-cpu", f"{package}-gpu"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _cpu_model() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _blas() -> str:
    """NumPy's BLAS, with its kernels and its number of threads where it can be asked."""
    built = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    name = f"{built['name']} {built['version']}"
    library = blas()
    if library is None:
        return name
    return f"{name}, {library.get_corename().decode()} kernels, {library.get_num_threads()} threads"
