"""What `import gpuconv` costs over `import numpy`, each in a process of its own.

    python benchmarks/import_time.py

Prints the median of interleaved runs, in milliseconds.
"""

from _processes import process_ms

RUNS = 41
CODES = {"nothing": "pass", "numpy": "import numpy", "gpuconv": "import gpuconv"}


def main() -> None:
    medians = process_ms(CODES, RUNS)
    for name, median in medians.items():
        print(f"{name:8} {median:6.1f} ms")
    print(f"gpuconv over numpy: {medians['gpuconv'] - medians['numpy']:.1f} ms")


if __name__ == "__main__":
    main()
