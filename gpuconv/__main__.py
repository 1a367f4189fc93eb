"""The command line: ``python -m gpuconv demo``, ``python -m gpuconv doctor``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; `argv` is what follows the program's name.

    Returns
    -------
    int
        The exit code: 0; 1 if a package or a GPU is missing or numbers are wrong; 2 for arguments that
        cannot be used.
    """
    parser = _parser()
    options = parser.parse_args(argv)
    if options.command == "demo":
        return _demo(options)
    if options.command == "doctor":
        return _doctor(options.compile)
    parser.print_help()
    return 0


def _parser() -> argparse.ArgumentParser:
    from gpuconv import __version__

    parser = argparse.ArgumentParser(
        prog="gpuconv", description="Transposed convolution for the array that you already have."
    )
    parser.add_argument("--version", action="version", version=f"gpuconv {__version__}")
    commands = parser.add_subparsers(dest="command", title="commands", metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="interpolate a recording, check every number, time it, draw it",
        description="Interpolate a recording with a transposed convolution. Every number is checked against "
        "scipy.signal.upfirdn, every backend is timed, the result and a picture are written.",
    )
    demo.add_argument(
        "--input", type=Path, metavar="FILE", help=".wav or .npy; default: an electrocardiogram"
    )
    demo.add_argument(
        "--factor", type=int, default=8, metavar="N", help="output samples per input sample; default: 8"
    )
    demo.add_argument(
        "--output",
        type=Path,
        default=Path("gpuconv-demo"),
        metavar="DIR",
        help="folder for the result and the picture; default: gpuconv-demo",
    )
    doctor = commands.add_parser(
        "doctor",
        help="show what is installed, and what to do about what is not",
        description="Show versions, BLAS, GPU and settings, and what to do about each part that is missing.",
    )
    doctor.add_argument(
        "--compile",
        action="store_true",
        help="also compile the CUDA kernels for this GPU, so that first calls need not wait for it",
    )
    return parser


def _demo(options: argparse.Namespace) -> int:
    from gpuconv import demo

    missing = demo.missing_packages(options.input)
    if missing:
        print(
            f"gpuconv demo: {', '.join(missing)} missing. Install what the demo needs: "
            'pip install "gpuconv[demo]"',
            file=sys.stderr,
        )
        return 1
    try:
        return demo.run(options.input, options.factor, options.output)
    except demo.InputError as error:
        print(f"gpuconv demo: {error}", file=sys.stderr)
        return 2


def _doctor(compiling: bool) -> int:
    from gpuconv import doctor

    print(doctor.table(doctor.examine()))
    if compiling:
        cupy, finding = doctor.find_gpu()
        if cupy is None:
            print(
                f"gpuconv doctor: no GPU to compile for: {finding.part}: {finding.found} -> {finding.advice}",
                file=sys.stderr,
            )
            return 1
        print()
        doctor.compile_kernels(print)
    return 0


if __name__ == "__main__":
    sys.exit(main())
