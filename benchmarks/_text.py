"""Files and tables of results, of all benchmarks."""

from collections.abc import Iterable
from pathlib import Path

NONE = "-"


def write(path: Path, text: str) -> None:
    """Replace a file in one step: whoever stops us leaves the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def table(columns: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    rows = [list(columns), *map(list, lines)]
    rows.insert(1, ["---"] * len(rows[0]))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def ratio(value: float | None) -> str:
    """A ratio with two digits."""
    return NONE if value is None else f"{value:.2f}"
