"""What whole processes take. The standard library only: nothing else is loaded beside them."""

import statistics
import subprocess
import sys
import time
from pathlib import Path


def process_ms(codes: dict[str, str], runs: int, folder: Path | None = None) -> dict[str, float]:
    """Median milliseconds of processes that run the codes, taking turns, by name."""
    for code in codes.values():  # fill the file cache and write the bytecode
        _seconds(code, folder)
    taken: dict[str, list[float]] = {name: [] for name in codes}
    for _ in range(runs):
        for name, code in codes.items():
            taken[name].append(_seconds(code, folder))
    return {name: 1e3 * statistics.median(times) for name, times in taken.items()}


def _seconds(code: str, folder: Path | None) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)
    return time.perf_counter() - start
