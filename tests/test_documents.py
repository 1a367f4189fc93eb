"""Every Python block of the README and the docs runs, and prints what is written beside and below it."""

import ast
import contextlib
import importlib.util
import io
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gpuconv

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
DOCS = ROOT / "docs"


def blocks(page):
    """(code, what it prints) of each Python block, None where the page does not say all that is printed."""
    fenced = re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.S | re.M)
    for (language, text), following in itertools.pairwise([*fenced, ("", "")]):
        if language == "python":
            yield text, following[1] if following[0] == "text" else None


def skip_without_packages(code, request):
    for node in ast.walk(ast.parse(code)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) else []
        for package in {name.partition(".")[0] for name in names}:
            if package == "cupy":
                request.getfixturevalue("cupy")
            elif importlib.util.find_spec(package) is None:
                pytest.skip(f"from here on the page needs {package}, which is not installed")


def run(code, names=None):
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(code, "block", "exec"), {"__name__": "__main__"} if names is None else names)
    return output.getvalue()


def run_script(code):
    """Run a block that has workers, which import it: it must be a file, in a folder that may be written."""
    path = Path("block.py")
    path.write_text(code, encoding="utf-8")
    paths = os.environ | {"PYTHONPATH": str(Path(gpuconv.__file__).parent.parent)}
    return subprocess.run(
        [sys.executable, str(path)], env=paths, check=True, timeout=300, stdout=subprocess.PIPE, text=True
    ).stdout


def check(code, printed, names=None):
    output = run_script(code) if "__main__" in code else run(code, names)
    if printed is not None:
        assert output == printed
    lines = iter(output.splitlines())
    for comment in re.findall(r"^print\(.*\)  # (.+)$", code, re.M):
        assert comment in lines  # after those that were found before


@pytest.mark.parametrize(("code", "printed"), list(blocks(README)))
def test_readme_block_runs_by_itself(code, printed, request):
    skip_without_packages(code, request)
    check(code, printed)


PAGES = [page for page in sorted(DOCS.rglob("*.md")) if any(blocks(page))]


# Keras' own, when it saves a model.
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_page_runs_from_top_to_bottom(page, request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    for code, printed in blocks(page):
        skip_without_packages(code, request)
        check(code, printed, names)


def test_the_two_commands_come_first():
    commands = re.findall(r"^```sh\n(.*?)^```$", README.read_text(encoding="utf-8"), re.S | re.M)
    assert [command.count("\n") for command in commands[:2]] == [1, 1]
    assert commands[0].strip().endswith("python -m gpuconv demo")
    assert commands[1].strip().endswith("python -m pytest -q")


def dead_links(text, folder):
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    return [target for target in targets if not (folder / target).exists()]


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_lead_to_files(page):  # those of the docs are checked by Sphinx
    assert dead_links((ROOT / page).read_text(encoding="utf-8"), ROOT) == []


NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def flaws(notebook):
    """What a reader of a stored notebook ought not to meet."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    if [cell["execution_count"] for cell in cells] != list(range(1, len(cells) + 1)):
        yield "not run from top to bottom"
    for output in itertools.chain.from_iterable(cell["outputs"] for cell in cells):
        if output["output_type"] == "error" or output.get("name") == "stderr":
            yield "an error or a warning"
        parts = output.get("data", {}) | {"text/stream": output.get("text", [])}
        shown = "".join("".join(part) for kind, part in parts.items() if kind.startswith("text/"))
        if re.search(r"site-packages|(?<!\w)(/\w+){2}|[A-Z]:\\", shown):
            yield "a path of somebody's machine"
    text = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    yield from (f"a dead link: {target}" for target in dead_links(text, ROOT / "notebooks"))


# That they run is for nbmake to say (.ci/run): in a kernel, with what a notebook displays.
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_stored_as_it_ran(path):
    assert list(flaws(json.loads(path.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize(
    ("cell", "flaw"),
    [
        ({"execution_count": 2}, "not run from top to bottom"),
        ({"outputs": [{"output_type": "error"}]}, "an error or a warning"),
        ({"outputs": [{"output_type": "stream", "name": "stderr", "text": []}]}, "an error or a warning"),
        ({"outputs": [{"output_type": "stream", "text": ["in /usr/lib\n"]}]}, "a path of somebody's machine"),
        (
            {"outputs": [{"output_type": "display_data", "data": {"text/html": ["<b>C:\\x</b>"]}}]},
            "a path of somebody's machine",
        ),
        ({"cell_type": "markdown", "source": ["[next](07.ipynb)"]}, "a dead link: 07.ipynb"),
    ],
)
def test_flaws_of_notebooks_are_found(cell, flaw):
    sound = {"cell_type": "code", "execution_count": 1, "outputs": [], "source": []}
    assert list(flaws({"cells": [sound]})) == []
    assert list(flaws({"cells": [sound | cell]})) == [flaw]
