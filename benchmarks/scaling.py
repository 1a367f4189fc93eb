"""How the time of a plan grows with length, batch, channels and kernel, over four decades of work.

    python benchmarks/scaling.py

Writes the times as JSON and a figure of four panels as PNG to benchmarks/results. Needs matplotlib.
Exits with 1 where that is missing.
"""

import json
import sys
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).resolve()
sys.path.insert(0, str(SCRIPT.parent.parent))  # what is measured is this checkout

import _cpu_contestants as contestants  # noqa: E402
import _cpu_machine as machine  # noqa: E402
from _rows import Row, multiply_adds  # noqa: E402
from _text import write  # noqa: E402

BASE = Row("scaling", "made up", 1, 64, 16, 16, 16, 8, "valid", None, 1)
# What grows, from which row, to which sizes: about 1e4 to 3e8 multiply-adds in each panel.
SWEEPS: dict[str, tuple[Row, tuple[str, ...], list[int]]] = {
    "length in samples": (BASE, ("length",), [4 * 4**n for n in range(8)]),
    "batch": (BASE._replace(length=4), ("batch",), [4**n for n in range(8)]),
    "input channels = filters": (BASE, ("in_channels", "filters"), [4 * 2**n for n in range(8)]),
    "kernel length in taps": (
        BASE._replace(length=1024, in_channels=4, filters=4, strides=2),
        ("kernel_size",),
        [4**n for n in range(8)],
    ),
}


def main(arguments: list[str] | None = None) -> int:
    options = machine.clock_options(__doc__.splitlines()[0]).parse_args(arguments)
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        print(
            f'benchmarks/scaling.py needs matplotlib: {error}. pip install "gpuconv[plot]"', file=sys.stderr
        )
        return 1
    document: dict[str, Any] = {"machine": machine.describe(), "measured": machine.stamp()}
    document["ceilings"] = machine.ceilings()
    clock = machine.Clock(options.seconds, options.rounds, 0.0)
    document["sweeps"] = {
        title: [point_of(row, sizes, document["ceilings"], clock) for row, sizes in rows_of(title)]
        for title in SWEEPS
    }
    path = options.output / "scaling.json"
    write(path, json.dumps(document, indent=1) + "\n")
    draw_figure(document, path.with_suffix(".png"))
    print(f"written to {path} and {path.with_suffix('.png')}")
    return 0


def rows_of(title: str) -> list[tuple[Row, int]]:
    """The rows of a panel, and the size of each."""
    row, fields, sizes = SWEEPS[title]
    return [(row._replace(**dict.fromkeys(fields, size)), size) for size in sizes]


def point_of(row: Row, size: int, ceilings: dict[str, Any], clock: machine.Clock) -> dict[str, Any]:
    (plan,) = contestants.contestants_of(row, "channels_last", *contestants.draw(row), ("plan",))
    floor, _ = machine.floor_ms(row, ceilings)
    time = machine.race([plan], clock)["plan"]
    return {"size": size, "multiply_adds": multiply_adds(row), "floor_ms": floor, **time}


def draw_figure(document: dict[str, Any], path: Path) -> None:
    """Four panels on logarithmic axes, each with the floor below the times."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7.5), layout="constrained")
    panels = figure.subplots(2, 2, sharey=True)
    for panel, (title, points) in zip(panels.flat, document["sweeps"].items(), strict=True):
        row, fields, _ = SWEEPS[title]
        sizes = [point["size"] for point in points]
        panel.loglog(sizes, [point["ms"] for point in points], "o-", label="plan")
        panel.loglog(sizes, [point["floor_ms"] for point in points], "--", color="gray", label="floor")
        least, most = points[0]["multiply_adds"], points[-1]["multiply_adds"]
        panel.set_title(f"{_fixed(row, fields)}\n{least:.0e} to {most:.0e} multiply-adds", fontsize=9)
        panel.set_xlabel(title)
        panel.set_ylabel("time of a call in ms")
        panel.grid(alpha=0.3)
    panels[0, 0].legend()
    about = document["machine"]
    figure.suptitle(f"conv1d_transpose, float32, {about['cpu']}, {about['cores']} cores")
    figure.savefig(path, dpi=120)


def _fixed(row: Row, fields: tuple[str, ...]) -> str:
    """The sizes that stay."""
    names = ("batch", "length", "in_channels", "filters", "kernel_size", "strides")
    return ", ".join(f"{name.replace('_', ' ')} {getattr(row, name)}" for name in names if name not in fields)


if __name__ == "__main__":
    sys.exit(main())
