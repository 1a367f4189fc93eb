"""What a notebook shows: tables in HTML and CSS, without script, and axes to draw on.

Colours are those of the page, or translucent: dark and light themes both stay legible.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, TypeAlias

__all__ = ["Piece", "aligned", "block", "coloured", "ends", "folded", "preformatted", "subplots", "table"]

#: A piece of text and its CSS.
Piece: TypeAlias = tuple[str, str]

_MONOSPACE = "font-family:var(--jp-code-font-family,monospace);font-size:12px;line-height:1.4"
_RULE = "1px solid rgba(128,128,128,.45)"
_CELL = "padding:2px 8px;border:0;background:none;color:inherit;white-space:nowrap"


def ends(items: Sequence[Any], most: int) -> list[Any]:
    """All of `items`, or the first and the last ones, `most` with a None between them."""
    if len(items) <= most:
        return list(items)
    head = most // 2
    return [*items[:head], None, *items[len(items) - (most - head - 1) :]]


def aligned(rows: Sequence[Sequence[str]], *, right: int = 0) -> list[str]:
    """Lines of text with the rows' cells under each other; the last `right` columns are numbers."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    numbers = len(widths) - right
    return [
        "  ".join(
            cell.ljust(width) if place < numbers else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def table(rows: Iterable[Sequence[str]], *, header: Sequence[str] = (), right: int = 0) -> str:
    """An HTML table; the last `right` columns are numbers."""

    def line(tag: str, cells: Sequence[str]) -> str:
        left = len(cells) - right
        aligns = ("right" if place >= left else "left" for place in range(len(cells)))
        made = (
            f'<{tag} style="{_CELL};text-align:{align}">{escape(cell)}</{tag}>'
            for cell, align in zip(cells, aligns, strict=True)
        )
        return f'<tr style="background:none">{"".join(made)}</tr>'

    head = f'<thead style="border-bottom:{_RULE}">{line("th", header)}</thead>' if header else ""
    body = "".join(line("td", cells) for cells in rows)
    style = f"border-collapse:collapse;border:0;margin:4px 0;{_MONOSPACE}"
    return f'<table style="{style}">{head}<tbody>{body}</tbody></table>'


def preformatted(lines: Iterable[str]) -> str:
    """Fixed-width lines."""
    return coloured([(line, "")] for line in lines)


def coloured(lines: Iterable[Iterable[Piece]]) -> str:
    """Fixed-width lines of pieces, each with CSS of its own."""
    text = "\n".join(
        "".join(
            f'<span style="{css}">{escape(piece)}</span>' if css else escape(piece) for piece, css in line
        )
        for line in lines
    )
    return f'<pre style="{_MONOSPACE};margin:4px 0;background:none;color:inherit">{text}</pre>'


def folded(title: str, part: str) -> str:
    """What opens on a click."""
    return f'<details><summary style="cursor:pointer">{escape(title)}</summary>{part}</details>'


def block(title: str, *parts: str) -> str:
    """A title over parts that are HTML."""
    return (
        f'<div style="color:inherit;overflow-x:auto"><div style="font-weight:bold">{escape(title)}</div>'
        f"{''.join(parts)}</div>"
    )


def subplots(rows: int, width: float, height: float) -> Any:
    """New axes of Matplotlib under each other, in inches.

    Raises
    ------
    ModuleNotFoundError
        If Matplotlib is not installed, saying how to install it.
    """
    try:
        from matplotlib import pyplot
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'Expected Matplotlib, for a picture. Received none. Install it: pip install "gpuconv[plot]".',
            name="matplotlib",
        ) from error
    return pyplot.subplots(rows, figsize=(width, height), layout="constrained")[1]
