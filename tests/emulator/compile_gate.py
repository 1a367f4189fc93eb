"""Compile kernels for real devices and read what they use: NVRTC's wheel needs no GPU and no driver."""

import ctypes
import functools
import re
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from .build import EXTRA, CompileError, headers

_USAGE = re.compile(
    r"(?P<stack>\d+) bytes stack frame, (?P<spill_stores>\d+) bytes spill stores, "
    r"(?P<spill_loads>\d+) bytes spill loads\s*(?P<used>[^\n]*Used \d+ registers[^\n]*)"
)


@dataclass(frozen=True)
class Usage:
    """What one thread (registers, and bytes of stack and spills) and one block (bytes) of a kernel take."""

    registers: int
    spill_stores: int
    spill_loads: int
    stack: int
    shared: int
    constant: int
    barriers: int
    cubin: int
    log: str


def _load(name, version):
    wheel = Path(sysconfig.get_paths()["purelib"], "nvidia", "cu13", "lib", f"{name}.{version}")
    return ctypes.CDLL(
        str(wheel) if wheel.exists() else wheel.name
    )  # else a toolkit's, where the linker looks


@functools.cache
def nvrtc():
    """The library, or OSError where there is none."""
    _load("libnvrtc-builtins.so", "13.0")  # which NVRTC asks for by name only, in no folder of its own
    library = _load("libnvrtc.so", "13")
    library.nvrtcGetErrorString.restype = ctypes.c_char_p
    return library


def missing():
    """What the gate lacks here, in words, or None."""
    if not (headers() / "cuda_fp16.h").exists():
        return f"the compile gate needs CUDA's headers, and they are not in {headers()}: {EXTRA}"
    try:
        nvrtc()
    except OSError as reason:
        return f"the compile gate needs NVRTC: {EXTRA} ({reason})"
    return None


def _check(code):
    if code:
        raise CompileError(nvrtc().nvrtcGetErrorString(code).decode())


def _bytes(program, name):
    """The ``ProgramLog`` or the ``CUBIN``."""
    size = ctypes.c_size_t()
    _check(getattr(nvrtc(), f"nvrtcGet{name}Size")(program, ctypes.byref(size)))
    text = ctypes.create_string_buffer(size.value)
    _check(getattr(nvrtc(), f"nvrtcGet{name}")(program, text))
    return text.raw


@functools.lru_cache(maxsize=8)
def _compile(source, options):
    """The binary and the log; kept for a moment, since a source may have several kernels to ask about."""
    program = ctypes.c_void_p()
    _check(nvrtc().nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None))
    try:
        given = (ctypes.c_char_p * len(options))(*(o.encode() for o in options))
        code = nvrtc().nvrtcCompileProgram(program, len(options), given)
        log = _bytes(program, "ProgramLog").rstrip(b"\0").decode(errors="replace")
        if code:
            raise CompileError(f"{nvrtc().nvrtcGetErrorString(code).decode()}\n{log}")
        return _bytes(program, "CUBIN"), log
    finally:
        nvrtc().nvrtcDestroyProgram(ctypes.byref(program))


def _number(pattern, text):
    return sum(int(n) for n in re.findall(pattern, text))


def compile_cubin(source, entry, options=(), arch="sm_90"):
    """
    Compile a kernel as CuPy would for a device of ``arch``.

    Parameters
    ----------
    source : str
        CUDA C++.
    entry : str
        The name of an ``extern "C" __global__`` function.
    options : tuple of str
        NVRTC's, as the backend gives them.
    arch : str
        A real architecture, such as "sm_75".

    Returns
    -------
    Usage

    Raises
    ------
    CompileError
        With the compiler's log.
    """
    kept = [o for o in options if not re.match(r"--?(gpu-arch|arch)", o)]
    # What CuPy adds: denormal float32 numbers are zero, and functions without a keyword are for the device.
    added = ["-ftz=true", "--device-as-default-execution-space", f"-I{headers()}", f"-I{headers() / 'cccl'}"]
    cubin, log = _compile(source, (f"-arch={arch}", "--ptxas-options=-v", *added, *kept))
    # A log has a part for each kernel, which the line "Compiling entry function 'name' for ..." begins.
    part = re.search(rf"Compiling entry function '{re.escape(entry)}'(.*?)(?=Compiling entry|\Z)", log, re.S)
    found = _USAGE.search(part[1]) if part else None
    if not found:
        raise CompileError(f"no kernel {entry!r} in what was compiled:\n{log}")
    used = found["used"]
    return Usage(
        registers=_number(r"Used (\d+) registers", used),
        spill_stores=int(found["spill_stores"]),
        spill_loads=int(found["spill_loads"]),
        stack=int(found["stack"]),
        shared=_number(r"(\d+) bytes smem", used),
        constant=_number(r"(\d+) bytes cmem", used),
        barriers=_number(r"used (\d+) barriers", used),
        cubin=len(cubin),
        log=log,
    )
