"""g++ and a cache of what it made."""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
# Fused multiply-add by default, as NVRTC does. The checks name the line of an index outside of an array whose
# size is known, and of a vector access that is not aligned; they make a kernel up to twice as slow.
FLAGS = (
    *("-std=c++17", "-O3", "-fPIC", "-w", "-fno-strict-aliasing", "-fvisibility=hidden"),
    *("-ffp-contract=fast", "-fstack-clash-protection"),
    *("-fsanitize=bounds,alignment", "-fno-sanitize-recover=all"),
)
EXTRA = "pip install gpuconv[cuda-test]"


class CompileError(RuntimeError):
    """A kernel that does not compile; the message is the compiler's."""


def headers():
    """The folder of CUDA's headers: the one in ``CUDA_INCLUDE``, else of NVIDIA's wheels."""
    named = os.environ.get("CUDA_INCLUDE")
    return Path(named) if named else Path(sysconfig.get_paths()["purelib"], "nvidia", "cu13", "include")


def missing():
    """What the emulator lacks here, in words, or None."""
    if os.name != "posix":
        return "the CUDA emulator needs POSIX signals and mmap"
    if not shutil.which(_compiler()):
        return "the CUDA emulator needs g++"
    for name in ("cuda_fp16.h", "cuda_bf16.h", "vector_types.h", "crt/host_defines.h", "nv/target"):
        if not any((headers() / at / name).exists() for at in (".", "cccl")):
            return f"the CUDA emulator needs CUDA's headers, and {name} is not in {headers()}: {EXTRA}"
    return None


@functools.cache
def cache():
    """The folder of compiled kernels: this user's own, since what is in it is run."""
    folder = Path(tempfile.gettempdir(), f"gpuconv-emulator-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to another user: set TMPDIR")
    return folder


def _compiler():
    return os.environ.get("CXX", "g++")


def _version(option):
    return subprocess.run([_compiler(), option], capture_output=True, text=True, check=True).stdout


@functools.cache
def _machine_flags():
    """What most processors have; not all that this one has, so that bits do not change with the machine."""
    cpu = Path("/proc/cpuinfo")
    has = set(cpu.read_text().split()) if cpu.exists() else set()
    fast = platform.machine() == "x86_64" and {"avx2", "bmi2", "fma", "f16c", "movbe"} <= has
    # Local variables that are not set hold a pattern, as registers hold anything.
    new = int(_version("-dumpversion").split(".")[0]) >= 12
    return ("-march=x86-64-v3",) * fast + ("-ftrivial-auto-var-init=pattern",) * new


@functools.cache
def _foundation():
    """What every key depends on: the compiler's version, our headers, the flags, and CUDA's version."""
    ours = [p.read_text() for p in sorted(HERE.glob("*.h")) + sorted(HERE.glob("*.cpp"))]
    cuda = (headers() / "cuda_fp16.h").stat()
    return repr(
        (_version("--version"), ours, FLAGS, _machine_flags(), str(headers()), cuda.st_size, cuda.st_mtime_ns)
    )


def _key(*parts):
    return hashlib.sha256(repr((_foundation(), *parts)).encode()).hexdigest()[:24]


def _run(arguments, text=None):
    done = subprocess.run([_compiler(), *arguments], input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CompileError(done.stderr[:6000])


def _make(target, arguments, text=None):
    """Compile to a name of our own first: other processes may want the same file at the same time."""
    if not target.exists():
        own = target.with_suffix(f".{os.getpid()}{target.suffix}")
        try:
            _run([*arguments, "-o", str(own)], text)
            os.replace(own, target)  # noqa: PTH105
        finally:
            own.unlink(missing_ok=True)
    return target


def _common():
    return [*FLAGS, *_machine_flags(), "-isystem", str(headers()), "-isystem", str(headers() / "cccl")]


@functools.cache
def _header():
    """cuda_cpu.h, precompiled: reading it takes longer than most kernels do."""
    folder = cache() / f"headers-{_key()}"
    folder.mkdir(exist_ok=True)
    for path in HERE.glob("*.h"):
        own = folder / f"{path.name}.{os.getpid()}"
        own.write_text(path.read_text())
        if not (folder / path.name).exists():
            os.replace(own, folder / path.name)  # noqa: PTH105
        own.unlink(missing_ok=True)
    _make(folder / "cuda_cpu.h.gch", [*_common(), "-x", "c++-header", str(folder / "cuda_cpu.h")])
    return folder / "cuda_cpu.h"


@functools.cache
def runtime():
    """The scheduler, as a library whose functions the kernels find."""
    reason = missing()
    if reason:
        raise RuntimeError(reason)
    flags = ["-std=c++17", "-O2", "-fPIC", "-shared", *os.environ.get("EMULATOR_FLAGS", "").split()]
    made = _make(cache() / f"runtime-{_key(flags)}.so", [*flags, str(HERE / "runtime.cpp")])
    library = ctypes.PyDLL(str(made), ctypes.RTLD_GLOBAL)
    library.emulator_switches.restype = ctypes.c_ulonglong
    library.emulator_fault_address.restype = ctypes.c_void_p
    return library


@functools.lru_cache(maxsize=4096)
def library(text, defines):
    """Load the library of a translated kernel, compiled if no one has before."""
    runtime()
    target = cache() / f"kernel-{_key(text, defines)}.so"
    # No default libraries: the sanitizer's own would be among them, and runtime.cpp has what it is asked for.
    ends = ["-x", "c++", "-shared", "-nodefaultlibs", "-", "-lm", "-lc", "-lgcc"]
    _make(target, [*_common(), *defines, "-include", str(_header()), *ends], text)
    # Not CDLL: the scheduler has one state, so a launch must keep Python's lock.
    return ctypes.PyDLL(str(target))
