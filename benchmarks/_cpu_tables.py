"""The CPU benchmark's results as text: what one file holds of them, and its tables."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from _cpu_contestants import NEEDED, TURNED, TURNING
from _rows import LAYOUTS
from _text import NONE, ratio, table, write

# Why a row takes longer than its floor, where a peer is faster.
NOTES = {
    "seed-keras": "half of it is the product, half Python and some ten calls of NumPy",
    "seed-matlab": "products of 9 terms; what they make is copied once more",
    "anomaly-1": "short samples: products of 32 columns, zeros and copies between them",
    "anomaly-2": "short samples: products of 64 columns, zeros and copies between them",
    "anomaly-3": "products of 7 columns, of which BLAS computes 16, added by NumPy in 7 passes",
    "hifigan-1": "products of 256 rows, for which BLAS packs 8 MiB of weights",
    "convtasnet": "products of 16 columns",
    "bigvgan-aa": "2.2 times the multiply-adds, as blocks; channels_last is turned twice",
    "phasenet-2": "short samples: NumPy adds and copies what a product of 44 terms makes",
    "longfilter": "1.1 times the multiply-adds, as blocks; channels_first gathers windows and turns results",
}
_RATIOS = {"plan": "best peer / plan", "op": "best peer / op"}


def save(document: dict[str, Any], path: Path) -> None:
    """The results as JSON, and their tables beside it."""
    write(path, json.dumps(document, indent=1) + "\n")
    write(path.with_suffix(".md"), markdown(document))


def markdown(document: dict[str, Any]) -> str:
    """All tables that there is something for."""
    makers = {"rows": race_tables, "small": _small, "cold": _cold, "memory": _memory}
    parts = [_header(document)]
    for section, make in makers.items():
        if section in document:
            measured = document["measured"][section]
            parts += [
                make(document),
                f"Measured {measured['date']}, commit {measured['commit'] or 'unknown'}.",
            ]
    return "\n\n".join(parts) + "\n"


def outcome(entry: dict[str, Any]) -> str:
    """A row in a line, while others still run."""
    title = f"{entry['name']} {entry['layout']}"
    if entry["status"] != "timed":
        return f"{title}: {entry['status']}, {entry['reason']}"
    return f"{title}: " + ", ".join(f"{name} {_ms(time['ms'])} ms" for name, time in entry["times"].items())


# --- the race ------------------------------------------------------------------------------------


def best_peer(entry: dict[str, Any]) -> str | None:
    """The fastest of those who are compared with ours."""
    peers = [name for name in entry["times"] if name in NEEDED]
    return min(peers, key=lambda name: entry["times"][name]["ms"], default=None)


def ratio_of(entry: dict[str, Any], ours: str) -> float | None:
    """How many times as long as ours the best peer takes."""
    peer = best_peer(entry)
    if peer is None or ours not in entry["times"]:
        return None
    return entry["times"][peer]["ms"] / entry["times"][ours]["ms"]


def race_tables(document: dict[str, Any]) -> str:
    """For each layout its rows, what could not be timed, and the summary."""
    parts = []
    for layout in LAYOUTS:
        entries = [entry for entry in document["rows"] if entry["layout"] == layout]
        if not entries:
            continue
        columns = [*_columns(entries, NEEDED), *_columns(entries, [peer + TURNED for peer in TURNING])]
        head = ("row", "plan", "op", *columns, *_RATIOS.values(), "% of floor", "bound by", "note")
        parts += [f"## {layout}", table(head, [_row(entry, columns) for entry in entries])]
        failed = [f"- {outcome(entry)}" for entry in entries if entry["status"] != "timed"]
        parts += ["\n".join(failed)] if failed else []
        parts.append("\n".join(f"- {_summary(entries, ours, title)}" for ours, title in _RATIOS.items()))
    return "\n\n".join([*parts, _how(document)])


def _columns(entries: list[dict[str, Any]], names: Iterable[str]) -> list[str]:
    """Those of `names` that have a time in any row."""
    return [name for name in names if any(name in entry.get("times", {}) for entry in entries)]


def _row(entry: dict[str, Any], columns: list[str]) -> list[str]:
    note = _note(entry)
    if entry["status"] != "timed":
        return [entry["name"], f"**{entry['status']}**", *[NONE] * (len(columns) + 5), note]
    times = entry["times"]
    plan = times.get("plan")
    return [
        entry["name"],
        *(_ms(times[name]["ms"]) if name in times else NONE for name in ("plan", "op", *columns)),
        *(ratio(ratio_of(entry, ours)) for ours in _RATIOS),
        f"{entry['floor_ms'] / plan['ms']:.0%}" if plan else NONE,
        entry["bound"],
        note,
    ]


def _note(entry: dict[str, Any]) -> str:
    """For a row that a peer is faster in: whether it is below our floor, and what else costs time."""
    value = ratio_of(entry, "plan") if entry["status"] == "timed" else None
    peer = best_peer(entry) if value is not None else None
    if value is None or value >= 1 or peer is None:
        return ""
    below = entry["floor_ms"] >= entry["times"][peer]["ms"]
    floor = f"{peer} is below the floor of {_ms(entry['floor_ms'])} ms, which is the rate of NumPy's BLAS"
    return "; ".join(filter(None, [floor if below else "", NOTES.get(entry["name"], "")]))


def _summary(entries: list[dict[str, Any]], ours: str, title: str) -> str:
    ratios = {
        entry["name"]: value
        for entry in entries
        if entry["status"] == "timed" and (value := ratio_of(entry, ours)) is not None
    }
    if not ratios:
        return f"{title}: no row has both"
    worst = min(ratios, key=lambda name: ratios[name])
    mean = math.exp(math.fsum(map(math.log, ratios.values())) / len(ratios))
    return (
        f"{title}: geometric mean {ratio(mean)} of {len(ratios)} rows, "
        f"{sum(ratio >= 1 for ratio in ratios.values())} at least 1.0, worst {worst} {ratio(ratios[worst])}"
    )


def _how(document: dict[str, Any]) -> str:
    clock = document["clock"]
    how = (
        f"Milliseconds, float32: the best of {clock['rounds']} rounds, each the median of the calls that "
        f"fit in {clock['seconds']:g} s, the contestants taking turns with {clock['pause']:g} s between them."
    )
    layouts = (
        "PyTorch and ONNX Runtime know channels first only. They are compared on data that is in their "
        "layout already, which is what their users pay; columns that end with "
        f'"{TURNED.strip()}" are theirs with channels_last data, which they turn first, and count for '
        "nothing. JAX works in the layout of the table."
    )
    floor = (
        "The floor is the longer of operations over the rate of the matrix product and bytes of input, "
        "kernel and output over the copy's bandwidth: in a cache for what fits there. NumPy copies with "
        "one core."
    )
    lines = [how, layouts, floor]
    if document["load"] is not None:
        lines.append(f"Load of the machine before, which should be near 0: {document['load']:.1f}.")
    for name, reason in document["left_out"].items():
        lines.append(f"{name} is left out: {reason}.")
    return "\n\n".join(lines)


# --- other sections ------------------------------------------------------------------------------


def _small(document: dict[str, Any]) -> str:
    small = document["small"]
    others = [[name, f"{1e3 * time['ms']:.1f}", str(time["calls"])] for name, time in small["times"].items()]
    text = f"## A small call\n\n{small['title']}, channels last: the median of all calls."
    return f"{text}\n\n{table(('', 'microseconds', 'calls'), others)}"


def _cold(document: dict[str, Any]) -> str:
    cold = document["cold"]
    times = [[name, _ms(milliseconds)] for name, milliseconds in cold["ms"].items()]
    text = f"## A cold start\n\nWhole processes, the median of {cold['runs']}; ratio {ratio(cold['ratio'])}."
    return f"{text}\n\n{table(('', 'ms'), times)}"


def _memory(document: dict[str, Any]) -> str:
    memory = document["memory"]
    names = list(dict.fromkeys(name for entry in memory for name in entry["mib"]))
    lines = [
        [
            entry["name"],
            f"{entry['result_mib']:.1f}",
            *(f"{entry['mib'].get(name, math.nan):.1f}" for name in names),
        ]
        for entry in memory
    ]
    text = (
        "## Memory\n\nMiB by which a process grows at most during calls, its input and its weights not "
        "counted, its result counted."
    )
    return f"{text}\n\n{table(('row', 'result', *names), lines)}"


# --- text ----------------------------------------------------------------------------------------


def _header(document: dict[str, Any]) -> str:
    machine = dict(document["machine"])
    lines = [f"# {machine.pop('cpu')}, {machine.pop('cores')} cores"]
    lines.append(", ".join(f"{name} {version}" for name, version in machine.items()))
    if "ceilings" in document:
        copy = document["ceilings"]["copy_bytes"]
        lines.append(
            f"Matrix product: {document['ceilings']['gemm_flops'] / 1e9:.0f} GFLOP/s. "
            f"Copy, both directions: {copy['memory'] / 1e9:.1f} GB/s in memory, "
            f"{copy['cache'] / 1e9:.1f} GB/s in a cache."
        )
    return "\n\n".join(lines)


def _ms(time: float) -> str:
    """Three digits."""
    return (
        f"{time:.3f}"
        if time < 1
        else f"{time:.2f}"
        if time < 10
        else f"{time:.1f}"
        if time < 100
        else f"{time:.0f}"
    )
