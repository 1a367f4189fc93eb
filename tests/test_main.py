"""The command line: what it prints, where, and its exit codes."""

import subprocess
import sys

import pytest

import gpuconv
from gpuconv.__main__ import main


def test_alone_it_prints_help(capsys):
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert "usage: gpuconv" in printed
    assert "interpolate a recording" in printed
    assert "show what is installed" in printed


def test_version(capsys):
    with pytest.raises(SystemExit) as leaving:
        main(["--version"])
    assert leaving.value.code == 0
    assert capsys.readouterr().out == f"gpuconv {gpuconv.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dance"], "invalid choice: 'dance'"),
        (["demo", "--factor", "2.5"], "argument --factor: invalid int value: '2.5'"),
        (["demo", "--input"], "argument --input: expected one argument"),
        (["doctor", "--verbose"], "unrecognized arguments: --verbose"),
    ],
)
def test_arguments_that_do_not_parse(arguments, message, capsys):
    with pytest.raises(SystemExit) as leaving:
        main(arguments)
    assert leaving.value.code == 2
    assert message in capsys.readouterr().err


def test_as_a_module():
    """``python -m gpuconv`` hands main's exit code on, and an error is one line without a traceback."""
    for package in ("scipy", "matplotlib"):
        pytest.importorskip(package, reason="the demo needs gpuconv[demo]")
    command = [sys.executable, "-W", "error", "-m", "gpuconv"]
    doctor = subprocess.run([*command, "doctor"], capture_output=True, text=True, check=False)
    assert (doctor.returncode, doctor.stderr) == (0, "")
    assert "array-api-compat" in doctor.stdout
    demo = subprocess.run(
        [*command, "demo", "--input", "absent.wav"], capture_output=True, text=True, check=False
    )
    assert (demo.returncode, demo.stdout) == (2, "")
    assert demo.stderr == (
        "gpuconv demo: Expected --input to name a file that can be read. Received absent.wav: "
        "No such file or directory. Check the path.\n"
    )
