"""What `import gpuconv` costs over `import numpy`, each in a process of its own.

    python benchmarks/import_time.py

Prints the median of interleaved runs, in milliseconds.
"""

import statistics
import subprocess
import sys
import time

RUNS = 41
CODES = {"nothing": "pass", "numpy": "import numpy", "gpuconv": "import gpuconv"}


def seconds(code: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - start


def main() -> None:
    for code in CODES.values():  # fill the file cache and write the bytecode
        seconds(code)
    taken: dict[str, list[float]] = {name: [] for name in CODES}
    for _ in range(RUNS):
        for name, code in CODES.items():
            taken[name].append(seconds(code))
    medians = {name: 1e3 * statistics.median(times) for name, times in taken.items()}
    for name, median in medians.items():
        print(f"{name:8} {median:6.1f} ms")
    print(f"gpuconv over numpy: {medians['gpuconv'] - medians['numpy']:.1f} ms")


if __name__ == "__main__":
    main()
