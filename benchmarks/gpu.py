"""Our kernels against PyTorch's on a GPU, row by row, and how far both are from what the device can do.

    python benchmarks/gpu.py                  # the race, in 9 minutes at most
    python benchmarks/gpu.py --tune           # every algorithm of every row, for the planner's rates

It needs CuPy, PyTorch with CUDA, pytest and a GPU. Tests come first, then the rows: each result is compared
with float64 before it is timed. Results are in benchmarks/results, as JSON and as Markdown, after every row.
Exits with 1 where something is missing, with 2 where a test failed or a result was wrong.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from _gpu_tables import WAITING, markdown, outcome, save, slug, tuning_tables
from _rows import LAYOUTS, PRECISIONS, floor_of, load_rows, row_of

SCRIPT = Path(__file__).resolve()
ROOT = SCRIPT.parent.parent
STARTED = time.time()
# A process that stands still for so many seconds is ended; its row is given up, the others go on.
STALLED, MOST_WORKERS = 60.0, 10
TESTING = 120.0
LEAST_SECONDS, MOST_SECONDS = 1.0, 20.0  # for a row


def main(arguments: list[str] | None = None) -> int:
    options = options_of(arguments)
    lacking = missing()
    if lacking:
        print(lacking, file=sys.stderr)
        return 1
    if options.worker:
        return work(options.worker, options.section, options.until)
    return supervise(options)


def options_of(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tune", action="store_true", help="time every algorithm instead of racing")
    parser.add_argument("--output", type=Path, default=SCRIPT.parent / "results", metavar="DIR")
    parser.add_argument("--minutes", type=float, default=9.0, help="when to end, whatever is left (9)")
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="only rows that have this in their name")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--section", help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if not cells_of(options):
        parser.error(f"no row has one of {', '.join(options.rows)} in its name")
    return options


def missing() -> str | None:
    """What keeps this from running, in one line."""
    needed = {"array_api_compat": "array-api-compat", "pytest": "pytest", "cupy": "CuPy", "torch": "PyTorch"}
    for module, name in needed.items():
        try:
            importlib.import_module(module)
        except (ImportError, OSError) as error:
            return f"benchmarks/gpu.py needs {name}: {' '.join(str(error).split())[:200]}"
    if not importlib.import_module("cupy").cuda.is_available():
        return "benchmarks/gpu.py needs a GPU: CuPy finds none"
    if not importlib.import_module("torch").cuda.is_available():
        return "benchmarks/gpu.py needs PyTorch with CUDA: torch.cuda.is_available() is False"
    return None


# --- one process watches -------------------------------------------------------------------------


def supervise(options: argparse.Namespace) -> int:
    """Test, then let a process of its own do the rows, and another one if that is lost."""
    deadline = STARTED + 60 * options.minutes
    section, other = ("tuning", "rows") if options.tune else ("rows", "tuning")
    device = importlib.import_module("cupy").cuda.runtime.getDeviceProperties(0)["name"].decode()
    path = options.output / f"gpu-{slug(device)}.json"
    document = {"device": device, section: cells_of(options)}
    if path.exists():  # the other mode's results stay
        before = json.loads(path.read_text(encoding="utf-8"))
        document.update({key: before[key] for key in (other, "tests", "measured") if key in before})
    if not options.tune:
        document["tests"] = run_tests(min(TESTING, 0.3 * (deadline - time.time())))
        print(f"tests: {document['tests']['summary']}", flush=True)
    save(document, path)
    waiting = len(document[section])
    for _ in range(MOST_WORKERS):
        if not waiting or deadline - time.time() < 20:
            break
        lost = watch(path, section, deadline)
        document = json.loads(path.read_text(encoding="utf-8"))
        for entry in document[section]:
            if entry["status"] == "running":
                entry.update(status="not run", reason=lost)
                print(outcome(entry), flush=True)
        save(document, path)
        before, waiting = waiting, waiting_in(document, section)
        if waiting == before:  # another one would get no further
            print(f"stopped before a row was done: {lost}", flush=True)
            break
    print(tuning_tables(document) if options.tune else markdown({**document, "tuning": []}))
    print(f"written to {path}")
    failed = not options.tune and not document["tests"]["passed"]
    return 2 if failed or any(entry["status"] == "wrong" for entry in document[section]) else 0


def cells_of(options: argparse.Namespace) -> list[dict[str, Any]]:
    """One for each row in each precision, and when tuning in each layout, none of them done."""
    return [
        {**row._asdict(), "precision": precision, **layout, "status": WAITING}
        for precision in options.precisions
        for row in load_rows()
        if options.rows is None or any(name in row.name for name in options.rows)
        for layout in ([{"layout": layout} for layout in LAYOUTS] if options.tune else [{}])
    ]


def waiting_in(document: dict[str, Any], section: str) -> int:
    return sum(entry["status"] == WAITING for entry in document[section])


def run_tests(seconds: float) -> dict[str, Any]:
    """What only a GPU can show, before anything is timed."""
    command = [sys.executable, "-m", "pytest", "--require-gpu", "tests/test_gpu.py", "-q"]
    try:
        run = subprocess.run(
            [*command, "-p", "no:cacheprovider"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"passed": False, "summary": f"not done in {seconds:.0f} s"}
    lines = [line for line in run.stdout.splitlines() if line.strip()] or ["pytest printed nothing"]
    if run.returncode:
        print(run.stdout, flush=True)
    return {"passed": run.returncode == 0, "summary": lines[-1].strip("= ")}


def watch(path: Path, section: str, deadline: float) -> str:
    """Run a worker to its end, or end it; how it ended."""
    until = deadline - 15  # time to finish a row, and to print
    command = [sys.executable, str(SCRIPT), f"--worker={path}", f"--section={section}", f"--until={until}"]
    started = time.time()
    worker = subprocess.Popen(command, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    try:
        while worker.poll() is None:
            time.sleep(0.2)
            if time.time() > deadline - 5:
                return "no time was left"
            if time.time() - max(started, path.stat().st_mtime) > STALLED:
                return f"it stood still for {STALLED:.0f} s"
    finally:
        worker.kill()
        worker.wait()
    return f"its process ended with {worker.returncode}"


# --- another does the rows -----------------------------------------------------------------------


def work(path: Path, section: str, until: float) -> int:
    """Do what waits in the document, one row after the other, and write it down after each."""
    sys.path.insert(0, str(ROOT))  # what is measured is this checkout
    from _gpu_cells import race_cell, tune_cell
    from _gpu_machine import broken, ceilings, describe, reason_of, start

    machine = start()
    document = json.loads(path.read_text(encoding="utf-8"))
    if "ceilings" not in document:
        about = describe(machine)
        document = {**about, "ceilings": ceilings(machine), **document}
        document.setdefault("measured", {})[section] = {key: about[key] for key in ("commit", "date")}
        save(document, path)
    for entry in document[section]:
        if entry["status"] != WAITING:
            continue
        left = until - time.time()
        if left < LEAST_SECONDS:
            break
        seconds = min(MOST_SECONDS, max(LEAST_SECONDS, 1.5 * left / waiting_in(document, section)))
        row, precision = row_of(entry), entry["precision"]
        entry["floor_us"], entry["bound"] = floor_of(row, precision, document["ceilings"])
        entry["status"] = "running"
        save(document, path)
        try:
            if section == "tuning":
                entry.update(tune_cell(machine, row, precision, entry["layout"], seconds))
            else:
                entry.update(race_cell(machine, row, precision, seconds))
        except machine.failures as error:
            entry.update(status="not run", reason=reason_of(error))
        lost = broken(machine)
        if lost:
            entry.update(status="not run", reason=entry.get("reason", lost))
        save(document, path)
        print(outcome(entry), flush=True)
        if lost:
            return 3  # nothing runs in this process any more; the next one goes on
    return 0


if __name__ == "__main__":
    sys.exit(main())
