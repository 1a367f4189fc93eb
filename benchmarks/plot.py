"""The results of cpu.py as a picture: how many times as fast as the fastest peer, row by row.

    python benchmarks/plot.py

Reads cpu.json in benchmarks/results and in its folder avx512, where there is one, and writes cpu.png there.
Needs matplotlib.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).resolve()
sys.path.insert(0, str(SCRIPT.parent.parent))  # what was measured is this checkout

from _cpu_tables import ratio_of  # noqa: E402
from _rows import LAYOUTS  # noqa: E402

RESULTS = SCRIPT.parent / "results"
# Colours that the colour-blind tell apart, and shapes besides.
MARKERS = {"channels_last": ("o", "#0072b2"), "channels_first": ("s", "#d55e00")}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR")
    folder = parser.parse_args(arguments).results
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        print(f'benchmarks/plot.py needs matplotlib: {error}. pip install "gpuconv[plot]"', file=sys.stderr)
        return 1
    paths = [path for path in (folder / "cpu.json", folder / "avx512" / "cpu.json") if path.exists()]
    documents = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    draw_figure(documents, folder / "cpu.png")
    print(f"written to {folder / 'cpu.png'}")
    return 0


def draw_figure(documents: list[dict[str, Any]], path: Path) -> None:
    """A panel for each document, all with the rows of the first."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(entry["name"] for entry in documents[0]["rows"]))
    figure = Figure(figsize=(1.5 + 4.2 * len(documents), 7), layout="constrained")
    panels = figure.subplots(1, len(documents), sharex=True, sharey=True, squeeze=False)[0]
    for panel, document in zip(panels, documents, strict=True):
        for layout in LAYOUTS:
            entries = [entry for entry in document["rows"] if entry["layout"] == layout]
            ratios = {
                entry["name"]: ratio_of(entry, "plan") for entry in entries if entry["status"] == "timed"
            }
            shown = [(value, names.index(name)) for name, value in ratios.items() if value and name in names]
            marker, colour = MARKERS[layout]
            panel.plot(*zip(*shown, strict=True), marker, color=colour, label=layout, alpha=0.85)
        panel.axvline(1, color="0.4", linewidth=1)
        panel.set_xscale("log", base=2)
        panel.xaxis.set_major_formatter("{x:g}")
        panel.set_xlabel("times as fast as the fastest of the others")
        rate = document["ceilings"]["gemm_flops"] / 1e9
        panel.set_title(f"{document['machine']['blas']}\nmatrix product {rate:.0f} GFLOP/s", fontsize=9)
        panel.grid(alpha=0.3)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].invert_yaxis()
    panels[0].legend(loc="lower right", fontsize=8)
    about = documents[0]["machine"]
    peers = ", ".join(f"{name} {about[name]}" for name in ("torch", "onnxruntime", "jax") if name in about)
    title = f"gpuconv plan beside {peers}\n{about['cpu']}, {about['cores']} cores, float32"
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
