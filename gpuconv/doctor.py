"""``python -m gpuconv doctor``: what is installed, what is in force, and what to do about what is not."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import itertools
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from gpuconv import __version__, config
from gpuconv.backends.cpu.threads import blas
from gpuconv.backends.cuda import planner
from gpuconv.backends.cuda.device import current_device

__all__ = ["Finding", "compile_kernels", "examine", "find_gpu", "table"]

# Distribution, and what a user without it should know.
_REQUIRED = {"numpy": "pip install numpy", "array-api-compat": "pip install array-api-compat"}
_OPTIONAL = {
    "scipy": 'for the demo: pip install "gpuconv[demo]"',
    "matplotlib": 'for pictures: pip install "gpuconv[plot]"',
    "PyWavelets": 'for the demo\'s recording: pip install "gpuconv[demo]"',
    "dask": 'for arrays larger than memory: pip install "gpuconv[dask]"',
    "tqdm": 'for progress bars: pip install "gpuconv[progress]"',
    "torch": "for its tensors and autodiff: pip install torch",
    "jax": "for its arrays and autodiff: pip install jax",
    "ml_dtypes": "for bfloat16 in NumPy: pip install ml_dtypes",
}
_CUPY = ("cupy", "cupy-cuda11x", "cupy-cuda12x", "cupy-cuda13x")
_NO_CUPY = 'for an NVIDIA GPU: pip install "gpuconv[cuda12]" or "gpuconv[cuda13]", as its driver supports'
_BROKEN_CUPY = 'uninstall it, then pip install "gpuconv[cuda12]" or "gpuconv[cuda13]"'
_NO_DRIVER = (
    "run nvidia-smi; install an NVIDIA driver, and the CuPy for its CUDA version; "
    "without a GPU: NumPy arrays need neither"
)
_THREADS = (
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "OMP_NUM_THREADS",
)
_AVX2_KERNELS = ("Haswell", "Zen")
_AVX512 = "the processor has AVX-512, which OpenBLAS overlooks: set OPENBLAS_CORETYPE=SkylakeX, then measure"
_OTHER_BLAS = "blocks run on one thread, and BLAS threads them: NumPy's wheels with OpenBLAS are faster here"
_WIDE = 30  # characters of what was found, beside which advice still fits


class Finding(NamedTuple):
    """One line of the table: a part, what was found of it and, where it is missing, what to do."""

    part: str
    found: str
    advice: str = ""


def examine() -> dict[str, list[Finding]]:
    """Everything that the doctor looks at, by heading."""
    return {
        "Python": [
            Finding("python", f"{platform.python_version()}, {platform.system()} {platform.machine()}"),
            Finding("gpuconv", f"{__version__}, {Path(__file__).parent}"),
            *(_distribution(name, advice) for name, advice in (_REQUIRED | _OPTIONAL).items()),
        ],
        "CPU": [_blas(), _threads()],
        "GPU": list(_gpu()),
        "Settings": [_data_format()],
    }


def table(headings: Mapping[str, list[Finding]]) -> str:
    """`headings` as aligned text, one line for each finding.

    Examples
    --------
    >>> from gpuconv.doctor import Finding, table
    >>> print(table({"Python": [Finding("numpy", "2.1.0"), Finding("jax", "missing", "pip install jax")]}))
    Python
      numpy  2.1.0
      jax    missing  -> pip install jax
    """
    findings = [finding for group in headings.values() for finding in group]
    part = max(len(finding.part) for finding in findings)
    advised = [len(finding.found) for finding in findings if finding.advice]
    found = max((length for length in advised if length <= _WIDE), default=0)
    blocks = []
    for heading, group in headings.items():
        lines = [heading]
        for finding in group:
            # Beside a long entry there is no room for the advice.
            gap = "  " if len(finding.found) <= _WIDE else "\n" + " " * (part + 4)
            arrow = f"{gap}-> {finding.advice}" if finding.advice else ""
            lines.append(f"  {finding.part:<{part}}  {finding.found:<{found}}{arrow}".rstrip())
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def find_gpu() -> tuple[ModuleType | None, Finding]:
    """CuPy, if it is installed and sees a GPU, else None; and what was found, in one line.

    CuPy is imported only when it is installed.
    """
    if importlib.util.find_spec("cupy") is None:
        return None, Finding("cupy", "not installed", _NO_CUPY)
    try:
        cupy = importlib.import_module("cupy")
    except ImportError as error:
        return None, Finding("GPU", f"CuPy cannot be imported: {_first_line(error)}", _BROKEN_CUPY)
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    # What every error of CUDA derives from; without a driver there is one already here.
    except RuntimeError as error:
        return None, Finding("GPU", f"not usable: {_first_line(error)}", _NO_DRIVER)
    if not count:
        return None, Finding("GPU", "CUDA reports 0 devices", _NO_DRIVER)
    return cupy, Finding("GPU", f"{count} usable")


def compile_kernels(say: Callable[[str], None]) -> None:
    """Compile the CUDA kernels for the current device of CuPy, which keeps them on disk.

    One module for each algorithm, type, layout and direction. What is compiled on first use all the same:
    activations in a kernel's epilogue, 64-bit indices, and the gradients of kernels.
    """
    device = current_device()
    limits = planner.limits_of(device)
    started, count = time.perf_counter(), 0
    every = planner.instantiations(limits.capability)
    for (name, dtype), group in itertools.groupby(every, key=lambda each: (each[0].name, each[1].dtype)):
        for algorithm, call in group:
            algorithm.function(device, call, False)
            count += 1
        say(f"{name}, {dtype}")
    say(f"{count} kernels for {limits.name} in {time.perf_counter() - started:.0f} s")


def _first_line(error: Exception) -> str:
    # CuPy frames its longer messages with lines of "=".
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" =")]
    return lines[0] if lines else type(error).__name__


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _distribution(name: str, advice: str) -> Finding:
    version = _version(name)
    return Finding(name, "missing", advice) if version is None else Finding(name, version)


def _blas() -> Finding:
    build = np.show_config(mode="dicts").get("Build Dependencies", {}).get("blas", {})
    name = f"{build.get('name', 'unknown')} {build.get('version', '')}".strip()
    library = blas()
    if library is None:
        return Finding("BLAS", name)
    kernels = library.get_corename().decode()
    # NumPy's own list of what the processor has.
    features = getattr(importlib.import_module("numpy._core._multiarray_umath"), "__cpu_features__", {})
    missed = kernels in _AVX2_KERNELS and features.get("AVX512_SKX", False)
    return Finding("BLAS", f"{name}, {kernels} kernels", _AVX512 if missed else "")


def _threads() -> Finding:
    library = blas()
    if library is not None:
        return Finding("BLAS threads", str(library.get_num_threads()))
    set_to = [f"{name}={os.environ[name]}" for name in _THREADS if name in os.environ]
    return Finding("BLAS threads", ", ".join(set_to) or f"not set, {os.cpu_count()} CPUs", _OTHER_BLAS)


def _gpu() -> Iterator[Finding]:
    installed = {name: version for name in _CUPY if (version := _version(name)) is not None}
    if not installed:
        yield Finding("cupy", "missing", _NO_CUPY)
        yield _driver()
        yield _kernel_cache()
        return
    names = ", ".join(f"{name} {version}" for name, version in installed.items())
    advice = "they overwrite each other: uninstall all, then install one" if len(installed) > 1 else ""
    yield Finding("cupy", names, advice)
    cupy, finding = find_gpu()
    if cupy is None:
        yield finding
    else:
        yield from _devices(cupy)
    yield _kernel_cache()


def _driver() -> Finding:
    """The NVIDIA driver, asked itself: there is no CuPy to ask."""
    library = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    version = ctypes.c_int()
    try:
        failed = ctypes.CDLL(library).cuDriverGetVersion(ctypes.byref(version))
    except OSError:
        return Finding(
            "driver", "no NVIDIA driver found", "without a GPU NumPy does all; with one: install it"
        )
    if failed:
        return Finding("driver", f"does not answer: CUDA error {failed}", "run nvidia-smi")
    extra = "cuda13" if version.value >= 13000 else "cuda12"
    supported = f"supports CUDA {_cuda_version(version.value)}"
    return Finding("driver", supported, f'pip install "gpuconv[{extra}]" uses it')


def _devices(cupy: Any) -> Iterator[Finding]:
    runtime = cupy.cuda.runtime
    for index in range(runtime.getDeviceCount()):
        device = runtime.getDeviceProperties(index)
        memory = device["totalGlobalMem"] / 2**30
        name = f"{device['name'].decode()}, {memory:.1f} GiB"
        yield Finding(f"GPU {index}", f"{name}, compute capability {device['major']}.{device['minor']}")
    yield Finding("driver", f"supports CUDA {_cuda_version(runtime.driverGetVersion())}")
    yield Finding("CUDA runtime", _cuda_version(runtime.runtimeGetVersion()))


def _cuda_version(number: int) -> str:
    """CUDA writes 12.4 as 12040."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _kernel_cache() -> Finding:
    """The compiled kernels that CuPy keeps; without them, first calls take seconds longer."""
    folder = Path(os.environ.get("CUPY_CACHE_DIR") or Path.home() / ".cupy" / "kernel_cache")
    if not folder.is_dir():
        return Finding(
            "kernel cache", f"{folder}: not there yet", "the first kernel that CuPy compiles makes it"
        )
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return Finding("kernel cache", f"{folder}: {len(sizes)} files, {sum(sizes) / 2**20:.1f} MiB")


def _data_format() -> Finding:
    try:
        found = config.image_data_format()
    except ValueError as error:
        return Finding("image_data_format", "unknown", str(error))
    path = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "keras.json"
    return Finding("image_data_format", f"{found} ({path if path.is_file() else f'no {path}'})")
