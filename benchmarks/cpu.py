"""Ours against PyTorch, ONNX Runtime, JAX and TensorFlow on a CPU, row by row, in both layouts.

    python benchmarks/cpu.py                  # the race: some ten minutes
    python benchmarks/cpu.py --small          # what a call costs that has little to compute
    python benchmarks/cpu.py --cold           # what the first call of a process costs
    python benchmarks/cpu.py --memory         # what calls allocate; Linux only

Peers that are not installed are left out. Every result is compared with float64 before it is timed. Results
are in benchmarks/results, as JSON and as Markdown, after every row; each run replaces its own part of them.
Exits with 2 where a result was wrong.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).resolve()
ROOT = SCRIPT.parent.parent
sys.path.insert(0, str(ROOT))  # what is measured is this checkout

import _cpu_contestants as contestants  # noqa: E402
import _cpu_machine as machine  # noqa: E402
from _cpu_tables import outcome, save  # noqa: E402
from _processes import process_ms  # noqa: E402
from _rows import LAYOUTS, Row, result_shape, row_of  # noqa: E402

SECTIONS = ("rows", "small", "cold", "memory")
SMALL_ROW, SMALL_FIELD, SMALL_ROUNDS, SMALL_CALLS = "seed-keras", ("plan", "op", "onnxruntime"), 20, 500
COLD_RUNS = 15
COLD_CODES = {
    "import numpy": "import numpy",
    "import gpuconv, first call": (
        "import numpy, gpuconv; x = numpy.ones((4, 10, 128), numpy.float32); "
        "gpuconv.conv1d_transpose(x, numpy.ones((3, 32, 128), numpy.float32), strides=2)"
    ),
}
MEMORY_ROWS = ("demucs-1", "mono-x8")
MEMORY_FIELD = (
    ("plan", "channels_last"),
    ("plan", "channels_first"),
    ("torch", "channels_first"),
    ("onnxruntime", "channels_first"),
)
MEMORY_CALLS = 3


def main(arguments: list[str] | None = None) -> int:
    options = options_of(arguments)
    if options.memory_of:
        name, contestant, layout = options.memory_of
        print(growth(next(row for row in load_rows() if row.name == name), contestant, layout))
        return 0
    path = options.output / "cpu.json"
    document = begin(path)
    mode: Callable[[dict[str, Any], argparse.Namespace, Path], int] = options.mode
    failed = mode(document, options, path)
    print(path.with_suffix(".md").read_text(encoding="utf-8"))
    print(f"written to {path}")
    return failed


def options_of(arguments: list[str] | None) -> argparse.Namespace:
    parser = machine.clock_options(__doc__.splitlines()[0])
    modes = parser.add_mutually_exclusive_group()
    for flag, mode, text in (
        ("--small", small, "time the smallest row over many thousand calls"),
        ("--cold", cold, "time processes that import and call once"),
        ("--memory", memory, "measure by how much a process grows during calls"),
    ):
        modes.add_argument(flag, dest="mode", action="store_const", const=mode, default=race, help=text)
    parser.add_argument(
        "--pause", type=machine.number(float, 0), default=0.05, help="before a block (0.05 s)"
    )
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="only rows that have this in their name")
    parser.add_argument("--layouts", nargs="+", choices=LAYOUTS, default=LAYOUTS)
    known = contestants.CONTESTANTS
    parser.add_argument("--contestants", nargs="+", choices=known, default=known)
    parser.add_argument("--memory-of", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if not rows_of(options):
        parser.error(f"no row has one of {', '.join(options.rows)} in its name")
    return options


def load_rows() -> list[Row]:
    """Those that a CPU is fast enough for."""
    text = (SCRIPT.parent / "workloads.json").read_text(encoding="utf-8")
    return [row_of(entry) for entry in json.loads(text)]


def rows_of(options: argparse.Namespace) -> list[Row]:
    wanted = options.rows or [""]
    return [row for row in load_rows() if any(name in row.name for name in wanted)]


def begin(path: Path) -> dict[str, Any]:
    """A document with what other modes have measured on this CPU before."""
    document: dict[str, Any] = {"machine": machine.describe(), "measured": {}}
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        if all(before["machine"][key] == document["machine"][key] for key in ("cpu", "cores")):
            document = {**before, "machine": document["machine"]}
    return document


def finish(document: dict[str, Any], section: str, result: Any, path: Path) -> None:
    document[section] = result
    document["measured"][section] = machine.stamp()
    save(document, path)


def complain(reasons: dict[str, str]) -> None:
    for name, reason in reasons.items():
        print(f"{name} is left out: {reason}", flush=True)


# --- modes ---------------------------------------------------------------------------------------


def race(document: dict[str, Any], options: argparse.Namespace, path: Path) -> int:
    """Everyone, on every row, in both layouts."""
    clock = machine.Clock(options.seconds, options.rounds, options.pause)
    document["clock"] = clock._asdict()
    document["load"] = machine.load()
    document["ceilings"] = machine.ceilings()
    document["left_out"] = contestants.absent(options.contestants)
    complain(document["left_out"])
    names = tuple(name for name in options.contestants if name not in document["left_out"])
    entries: list[dict[str, Any]] = []
    for row in rows_of(options):
        x, kernel = contestants.draw(row)
        truth = contestants.truth_of(row, x, kernel)
        for layout in options.layouts:
            floor, bound = machine.floor_ms(row, document["ceilings"])
            entry = {**row._asdict(), "layout": layout, "floor_ms": floor, "bound": bound}
            field = contestants.contestants_of(row, layout, x, kernel, names)
            entries.append({**entry, **_checked_race(field, truth, layout, clock)})
            finish(document, "rows", entries, path)
            print(outcome(entries[-1]), flush=True)
    return 2 if any(entry["status"] == "wrong" for entry in entries) else 0


def _checked_race(
    field: list[contestants.Contestant], truth: contestants.Truth, layout: str, clock: machine.Clock
) -> dict[str, Any]:
    """Times, or what is wrong: a contestant that computes something else cannot be compared."""
    faults = [fault for each in field if (fault := contestants.fault_of(each, truth, layout))]
    if faults:
        return {"status": "wrong", "reason": "; ".join(faults)}
    return {"status": "timed", "times": machine.race(field, clock)}


def small(document: dict[str, Any], options: argparse.Namespace, path: Path) -> int:
    """The median of many thousand calls that take microseconds."""
    row = next(row for row in load_rows() if row.name == SMALL_ROW)
    missing = contestants.absent(SMALL_FIELD)
    complain(missing)
    x, kernel = contestants.draw(row)
    names = tuple(name for name in SMALL_FIELD if name not in missing)
    field = [
        each
        for each in contestants.contestants_of(row, "channels_last", x, kernel, names)
        if each.name in names
    ]
    truth = contestants.truth_of(row, x, kernel)
    faults = [fault for each in field if (fault := contestants.fault_of(each, truth, "channels_last"))]
    if faults:
        print(f"{row.name}: {'; '.join(faults)}", file=sys.stderr)
        return 2
    times: dict[str, list[float]] = {each.name: [] for each in field}
    for _ in range(SMALL_ROUNDS):
        for each in field:
            time.sleep(options.pause)
            times[each.name] += machine.block(each.call, 0, SMALL_CALLS)
    result = {
        "title": f"{x.shape} to {row.filters} filters, kernel {row.kernel_size}, strides {row.strides}",
        "times": {
            name: {"ms": 1e3 * statistics.median(seconds), "calls": len(seconds)}
            for name, seconds in times.items()
        },
    }
    finish(document, "small", result, path)
    return 0


def cold(document: dict[str, Any], options: argparse.Namespace, path: Path) -> int:
    """Whole processes, taking turns."""
    del options
    medians = process_ms(COLD_CODES, COLD_RUNS, ROOT)
    base, ours = medians.values()
    finish(document, "cold", {"ms": medians, "runs": COLD_RUNS, "ratio": ours / base}, path)
    return 0


def memory(document: dict[str, Any], options: argparse.Namespace, path: Path) -> int:
    """Each in a process of its own, which has imported nobody else."""
    del options
    missing = contestants.absent(tuple(name for name, _ in MEMORY_FIELD))
    complain(missing)
    entries = []
    for row in load_rows():
        if row.name not in MEMORY_ROWS:
            continue
        grown = {}
        for name, layout in MEMORY_FIELD:
            if name not in missing:
                command = [sys.executable, str(SCRIPT), "--memory-of", row.name, name, layout]
                run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                grown[f"{name} {layout}"] = int(run.stdout) / 2**20
        result = 4 * math.prod(result_shape(row, "channels_last")) / 2**20
        entries.append({"name": row.name, "result_mib": result, "mib": grown})
        finish(document, "memory", entries, path)
    return 0


def growth(row: Row, name: str, layout: str) -> int:
    """Bytes by which this process grows at most while it computes a row."""
    tiny = row._replace(batch=1, length=8, in_channels=1, filters=1, groups=1)
    for sizes in (tiny, row):  # what a library allocates once, at its first call, is not counted
        (each,) = contestants.contestants_of(sizes, layout, *contestants.draw(sizes), (name,))
        if sizes is tiny:
            each.call()
    # The peak so far has what drawing and turning the arrays took. Linux forgets it when told to.
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _kib("VmRSS")
    for _ in range(MEMORY_CALLS):
        each.call()
    return 1024 * (_kib("VmHWM") - before)


def _kib(word: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{word}:"))


if __name__ == "__main__":
    sys.exit(main())
