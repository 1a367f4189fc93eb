"""What it costs to convolve in chunks: a stream against one call of the op on the whole.

    python benchmarks/streaming.py [--seconds 1] [--chunk 4096] [--rows mono-x8,hifigan-4]

One sample of each row, as long as it takes to have some chunks. Prints the median times of the whole and of
all chunks, their ratio, and the time of a chunk. Times of chunks include those of the tail.
"""

import argparse
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

SCRIPT = Path(__file__).resolve()
sys.path.insert(0, str(SCRIPT.parent.parent))  # what is measured is this checkout

from _cpu_contestants import draw  # noqa: E402
from _cpu_machine import block, number  # noqa: E402
from _rows import Row, load_rows, settings_of  # noqa: E402

import gpuconv  # noqa: E402

ROWS = ("hifigan-3", "hifigan-4", "encodec-4", "wavegan-5", "stereo-x8", "mono-x8", "longfilter")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=number(float, 0), default=1.0, help="for each of the two (1)")
    parser.add_argument("--chunk", type=number(int, 1), default=4096, help="input samples (4096)")
    parser.add_argument("--length", type=number(int, 1), default=65_536, help="input samples in all (65536)")
    parser.add_argument("--rows", default=",".join(ROWS), help="of workloads.json, with commas between")
    options = parser.parse_args(arguments)
    names = options.rows.split(",")
    rows = [row for row in load_rows(SCRIPT.parent) if row.name in names]
    print(f"{options.length} samples, chunks of {options.chunk}, float32")
    print(f"{'row':12}{'whole ms':>10}{'chunks ms':>10}{'ratio':>7}{'a chunk ms':>12}{'latency':>9}")
    for row in rows:
        print(line_of(row._replace(batch=1, length=options.length), options.chunk, options.seconds))


def line_of(row: Row, chunk: int, seconds: float) -> str:
    x, kernel = draw(row)
    settings = settings_of(row, "ieee", "channels_last")
    plan = gpuconv.plan("conv1d_transpose", x.shape, kernel, **settings)
    stream = gpuconv.stream(plan)

    def in_chunks() -> None:
        stream.reset()
        for begin in range(0, row.length, chunk):
            stream.push(x[:, begin : begin + chunk])
        stream.flush()

    whole = median_ms(lambda: gpuconv.conv1d_transpose(x, kernel, **settings), seconds)
    chunks = median_ms(in_chunks, seconds)
    each = chunks / -(-row.length // chunk)
    ratio = f"{chunks / whole:7.2f}"
    return f"{row.name:12}{whole:10.2f}{chunks:10.2f}{ratio}{each:12.3f}{stream.latency:9}"


def median_ms(call: Callable[[], object], seconds: float) -> float:
    return 1e3 * statistics.median(block(call, seconds))


if __name__ == "__main__":
    main()
