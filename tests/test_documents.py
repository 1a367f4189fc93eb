"""Every Python block of the README and the docs runs, and prints what the block after it says."""

import contextlib
import io
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks():
    for page in PAGES:
        fenced = re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.S | re.M)
        for number, (language, text) in enumerate(fenced):
            following = fenced[number + 1] if number + 1 < len(fenced) else ("", "")
            if language == "python":
                printed = following[1] if following[0] == "text" else None
                yield pytest.param(text, printed, id=f"{page.name}-{number}")


def run(code):
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(code, "block", "exec"), {"__name__": "__main__"})
    return output.getvalue()


@pytest.mark.parametrize(("code", "printed"), list(blocks()))
def test_block_runs(code, printed):
    if "import cupy" in code:
        cupy = pytest.importorskip("cupy", reason="CuPy is not installed: pip install gpuconv[cuda13]")
        if not cupy.cuda.is_available():
            pytest.skip("CuPy is installed, but there is no GPU")
    output = run(code)
    if printed is not None:
        assert output == printed
    for comment, line in zip(
        re.findall(r"^print\(.*#\s*(.+)$", code, re.M), output.splitlines(), strict=False
    ):
        assert line == comment


def test_the_two_commands_come_first():
    commands = re.findall(
        r"^```sh\n(.*?)^```$", (ROOT / "README.md").read_text(encoding="utf-8"), re.S | re.M
    )
    assert [command.count("\n") for command in commands[:2]] == [1, 1]
    assert commands[0].strip().endswith("python -m gpuconv demo")
    assert commands[1].strip().endswith("python -m pytest -q")


NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_notebook_runs(path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install gpuconv[test]").use(
        "agg"
    )
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert code
    run("\n".join(code))
