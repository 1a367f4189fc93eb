"""The GPU benchmark's results as text: what one file holds of them, and its tables."""

import json
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from _rows import LAYOUTS, PRECISIONS
from _text import NONE, ratio, table, write

WAITING = "waiting"
# Below these shares of a ceiling a row is named in the summary.
LEAST_SHARE = {"memory": 0.8, "compute": 0.7}
CLOCKS = ("eager", "replayed")


def save(document: dict[str, Any], path: Path) -> None:
    """The results as JSON, and their tables beside it."""
    write(path, json.dumps(document, indent=1) + "\n")
    write(path.with_suffix(".md"), markdown(document))


def slug(device: str) -> str:
    """A device's name as part of a file's."""
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")


def outcome(entry: dict[str, Any]) -> str:
    """A row in a line, while others still run."""
    title = " ".join(entry[key] for key in ("name", "precision", "layout") if key in entry)
    if "chosen" in entry:
        return f"{title}: {', '.join(f'{name} {text}' for name, text in _tuned(entry).items())}"
    if entry["status"] != "timed":
        return f"{title}: {entry['status']}, {entry['reason']}"
    times = clocked(entry, "replayed")
    each = (f"{name} {_us(time['median'])}" for name, time in times.items())
    return f"{title}: {', '.join(each)}"


def markdown(document: dict[str, Any]) -> str:
    """All tables."""
    parts = [_header(document), race_tables(document), tuning_tables(document)]
    return "\n\n".join(part for part in parts if part) + "\n"


# --- times ---------------------------------------------------------------------------------------


def clocked(entry: dict[str, Any], clock: str) -> dict[str, Any]:
    """A row's times: of eager calls, or of calls in a graph where both sides have such times."""
    graph = entry.get("graph", {})
    if clock == "replayed" and best_of_torch(graph) and all(ours_of(graph, each) for each in LAYOUTS):
        return graph
    return entry["times"]


def best_of_torch(times: dict[str, Any]) -> str | None:
    """The fastest of PyTorch's ways."""
    ways = [name for name in times if name.startswith("torch ")]
    return min(ways, key=lambda name: times[name]["median"], default=None)


def ours_of(times: dict[str, Any], layout: str) -> str | None:
    """Our way: the plan, or the plain op where no plan could be made."""
    return next((name for name in (f"plan {layout}", f"op {layout}") if name in times), None)


def ratio_of(times: dict[str, Any], layout: str) -> float | None:
    """How many times as long as ours PyTorch's best takes."""
    theirs, ours = best_of_torch(times), ours_of(times, layout)
    return times[theirs]["median"] / times[ours]["median"] if theirs and ours else None


def share_of(entry: dict[str, Any], name: str | None) -> float | None:
    """The floor over the time: 1 is the best that can be."""
    times = clocked(entry, "replayed")
    return entry["floor_us"] / times[name]["median"] if name in times else None


# --- one table for each precision ----------------------------------------------------------------


def race_tables(document: dict[str, Any]) -> str:
    """Every row, then what could not be timed, then the summary."""
    entries = document.get("rows", [])
    if not entries:
        return ""
    parts = []
    for precision, its in _by_precision(entries):
        timed = [entry for entry in its if entry["status"] == "timed"]
        parts += [f"## {PRECISIONS[precision].title}", table(_COLUMNS, [_row(entry) for entry in its])]
        short = [entry for entry in timed if entry.get("graph")]
        if short:
            parts += ["In a graph:", table(_GRAPH_COLUMNS, [_graph_row(entry) for entry in short])]
        parts += _reasons(its)
    return "\n\n".join([*parts, "## Summary", _summary(document, entries)])


_COLUMNS = (
    *("row", "algorithm", "PyTorch's best", "its way", "its default"),
    *("ours, channels_last", "ours, channels_first", "ratio, last", "ratio, first"),
    *("floor", "bound by", "% of floor, last", "first", "PyTorch"),
)
_GRAPH_COLUMNS = (
    *("row", "PyTorch's best", "its way", "ours, channels_last", "ours, channels_first"),
    *("ratio, last", "ratio, first"),
)


def _row(entry: dict[str, Any]) -> list[str]:
    floor = [_us(entry.get("floor_us")), entry.get("bound", NONE)]
    if entry["status"] != "timed":
        said = "wrong" if entry["status"] == "wrong" else "not run"
        return [entry["name"], f"**{said}**", *[NONE] * 7, *floor, *[NONE] * 3]
    times = entry["times"]
    theirs, ours = best_of_torch(times), [ours_of(times, layout) for layout in LAYOUTS]
    replayed = clocked(entry, "replayed")
    names = [ours_of(replayed, layout) for layout in LAYOUTS]
    return [
        entry["name"],
        _algorithms(entry),
        _spread(times.get(theirs)),
        theirs.removeprefix("torch ") if theirs else NONE,
        _us(times.get("torch default", {}).get("median")),
        *(_spread(times.get(name)) for name in ours),
        *(ratio(ratio_of(times, layout)) for layout in LAYOUTS),
        *floor,
        *(_percent(share_of(entry, name)) for name in (*names, best_of_torch(replayed))),
    ]


def _graph_row(entry: dict[str, Any]) -> list[str]:
    graph = entry["graph"]
    theirs = best_of_torch(graph)
    return [
        entry["name"],
        _spread(graph.get(theirs)),
        theirs.removeprefix("torch ") if theirs else NONE,
        *(_spread(graph.get(ours_of(graph, layout))) for layout in LAYOUTS),
        *(ratio(ratio_of(graph, layout)) for layout in LAYOUTS),
    ]


def _algorithms(entry: dict[str, Any]) -> str:
    """What the plans chose, once where both layouts have the same."""
    chosen = [entry.get("algorithm", {}).get(layout, NONE) for layout in LAYOUTS]
    return " / ".join(dict.fromkeys(chosen))


def _reasons(entries: list[dict[str, Any]]) -> list[str]:
    """What is wrong, or was not run, and why; rows with one reason share a line."""
    named: dict[str, list[str]] = {}
    for entry in entries:
        if entry["status"] == WAITING:
            named.setdefault("not run, no time was left", []).append(entry["name"])
        elif entry["status"] != "timed":
            reason = entry.get("reason", "not done yet")
            named.setdefault(f"{entry['status']}, {reason}", []).append(entry["name"])
        for name, reason in entry.get("failed", {}).items():
            named.setdefault(f"no time of {name}, {reason}", []).append(entry["name"])
    lines = [f"- {', '.join(names)}: {reason}" for reason, names in named.items()]
    return ["\n".join(lines)] if lines else []


# --- summary -------------------------------------------------------------------------------------


def _summary(document: dict[str, Any], entries: list[dict[str, Any]]) -> str:
    launch = document.get("ceilings", {}).get("launch_us", {}).get("an empty kernel in a graph", 0.0)
    lines = [
        _summary_row(precision, its, layout, clock)
        for precision, its in _by_precision(entries)
        for layout in LAYOUTS
        for clock in CLOCKS
    ]
    columns = ("precision", "layout", "clock", "rows", "geometric mean", "worst", "rows under 1.0")
    parts = [table(columns, lines)]
    for precision, its in _by_precision(entries):
        for layout in LAYOUTS:
            named = _below(its, layout, launch)
            parts += [f"{PRECISIONS[precision].title}, {layout}: {named}"]
    parts.append(
        "A ratio is the time of PyTorch's best way over ours; its own layout is channels first. Short rows "
        "are timed in a graph too, and count with that time where it says replayed, and for their share of "
        "the floor, which is bytes over the copy's bandwidth or operations over the matrix product's rate. "
        f"Rows whose floor is less than an empty kernel takes in a graph, {_us(launch)} us, are not named."
    )
    return "\n\n".join(parts)


def _summary_row(precision: str, entries: list[dict[str, Any]], layout: str, clock: str) -> list[str]:
    ratios = {
        entry["name"]: value
        for entry in entries
        if entry["status"] == "timed" and (value := ratio_of(clocked(entry, clock), layout)) is not None
    }
    head = [PRECISIONS[precision].title, layout, clock, f"{len(ratios)} of {len(entries)}"]
    if not ratios:
        return [*head, *[NONE] * 3]
    mean = math.exp(math.fsum(map(math.log, ratios.values())) / len(ratios))
    worst = min(ratios, key=lambda name: ratios[name])
    under = sum(ratio < 1 for ratio in ratios.values())
    return [*head, ratio(mean), f"{worst} {ratio(ratios[worst])}", str(under)]


def _below(entries: list[dict[str, Any]], layout: str, launch: float) -> str:
    """The rows that reach too little of their ceiling."""
    named: dict[str, list[str]] = {bound: [] for bound in LEAST_SHARE}
    for entry in entries:
        if entry["status"] != "timed" or entry["floor_us"] < launch:
            continue
        share = share_of(entry, ours_of(clocked(entry, "replayed"), layout))
        if share is not None and share < LEAST_SHARE[entry["bound"]]:
            named[entry["bound"]].append(f"{entry['name']} {_percent(share)}")
    ceilings = {"memory": "the copy's bandwidth", "compute": "the matrix product's rate"}
    return "; ".join(
        f"{len(rows)} {bound}-bound rows below {LEAST_SHARE[bound]:.0%} of {ceilings[bound]}"
        + (f" ({', '.join(rows)})" if rows else "")
        for bound, rows in named.items()
    )


# --- tuning --------------------------------------------------------------------------------------


def tuning_tables(document: dict[str, Any]) -> str:
    """Row by algorithm, in microseconds, for each precision and layout; the chosen one is marked."""
    parts = []
    for precision, of_precision in _by_precision(document.get("tuning", [])):
        for layout in LAYOUTS:
            its = [entry for entry in of_precision if entry["layout"] == layout]
            if not its:
                continue
            names = list(dict.fromkeys(name for entry in its for name in _tuned(entry)))
            lines = [[entry["name"], *(_tuned(entry).get(name, "") for name in names)] for entry in its]
            parts += [f"## Tuning: {PRECISIONS[precision].title}, {layout}", table(("row", *names), lines)]
            parts += _reasons(its)
    return "\n\n".join(parts)


def _tuned(entry: dict[str, Any]) -> dict[str, str]:
    """What to print for each algorithm of a row."""
    times = {**entry.get("times", {}), **entry.get("graph", {})}
    cells = {}
    for name in entry.get("algorithms", []):
        text = _us(times[name]["median"]) if name in times else NONE
        text = "wrong" if name in entry["wrong"] else text
        cells[name] = f"{text}*" if name == entry["chosen"] else text
    return cells


# --- text ----------------------------------------------------------------------------------------


def _header(document: dict[str, Any]) -> str:
    known = {key: value for key, value in document.items() if isinstance(value, str | int)}
    lines = [f"# {known.pop('device', 'GPU')}"]
    if known:
        lines.append(", ".join(f"{key} {value}" for key, value in known.items()))
    if "tests" in document:
        lines.append(f"Tests: {document['tests']['summary']}")
    if "ceilings" in document:
        ceilings = document["ceilings"]
        rates = [f"{name} {rate / 1e12:.0f}" for name, rate in ceilings["gemm_flops"].items()]
        launches = [f"{name} {_us(time)}" for name, time in ceilings["launch_us"].items()]
        copy = f"{ceilings['copy_bytes'] / 1e12:.2f} TB/s"
        lines.append(f"Copy: {copy}. Matrix products, in TFLOP/s: {', '.join(rates)}.")
        lines.append(f"Launches, in microseconds: {', '.join(launches)}.")
    lines.append("Times are microseconds, medians of interleaved blocks of calls (least..most).")
    return "\n\n".join(lines)


def _by_precision(entries: list[dict[str, Any]]) -> Iterable[tuple[str, list[dict[str, Any]]]]:
    for precision in PRECISIONS:
        its = [entry for entry in entries if entry["precision"] == precision]
        if its:
            yield precision, its


def _us(time: float | None) -> str:
    if time is None:
        return NONE
    return f"{time:.2f}" if time < 10 else f"{time:.1f}" if time < 100 else f"{time:.0f}"


def _spread(time: dict[str, Any] | None) -> str:
    return NONE if time is None else f"{_us(time['median'])} ({_us(time['min'])}..{_us(time['max'])})"


def _percent(share: float | None) -> str:
    return NONE if share is None else f"{share:.0%}"
