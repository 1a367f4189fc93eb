"""The GPU: PyTorch and CuPy on one stream, how long calls take on it, and the most that it can do."""

import contextlib
import itertools
import platform
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from _rows import PRECISIONS

import gpuconv

# A block is long enough for the clock of the events, and has at least this many calls.
FEWEST_CALLS, MOST_CALLS, BLOCK_US = 20, 200, 1000.0
FEWEST_ROUNDS, MOST_ROUNDS = 3, 7
# What takes so many times as long as the best of its side is estimated, not raced: it decides nothing.
SLOW = 5.0
REPLAYS = 3
WAKING_SECONDS = 0.03
COPIED_BYTES = 2**30
GEMM_SIZE = 8192


class Machine(NamedTuple):
    """Both libraries, launching on one stream of the device."""

    torch: Any
    cupy: Any
    stream: Any  # CuPy's, which is PyTorch's current one too, in both threads
    other: ThreadPoolExecutor
    device: str
    failures: tuple[type[Exception], ...]


class Contestant(NamedTuple):
    """A way to compute a row, called with the number of the buffers to use."""

    name: str
    side: str  # "torch", or what of ours is compared with what
    call: Callable[[int], Any]
    result: Callable[[], Any]  # what the last call(0) made, as PyTorch's (samples, channels, length)
    prepare: Callable[[], None] = lambda: None  # sets PyTorch's switches
    elsewhere: bool = False  # in the other thread: see `start`


def start() -> Machine:
    """Import both and put them on one stream.

    cuDNN's choice for a convolution is kept per thread, whether `cudnn.benchmark` made it or not: whichever
    asks first decides for both. So what runs with benchmark=False does it in a thread of its own.
    """
    import cupy
    import torch

    torch.cuda.init()
    # Not the default stream: no graph can be captured on that.
    stream = cupy.cuda.Stream(non_blocking=True)
    stream.use()

    def enter() -> None:
        torch.cuda.set_stream(torch.cuda.ExternalStream(stream.ptr))
        torch.set_grad_enabled(False)

    enter()
    other = ThreadPoolExecutor(1, initializer=enter)
    # What a row may raise, and is reported with it: CompileException is no RuntimeError.
    failures = (
        *(ArithmeticError, AttributeError, ImportError, LookupError, MemoryError, RuntimeError),
        *(TypeError, ValueError, cupy.cuda.compiler.CompileException),
    )
    return Machine(torch, cupy, stream, other, "cuda", failures)


def reason_of(error: BaseException) -> str:
    """An error in one line of a table."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {text}"[:300].replace("|", "/")


def set_switches(machine: Machine, *, tf32: bool, benchmark: bool) -> None:
    """PyTorch's, for convolutions and matrix products."""
    backends = machine.torch.backends
    backends.cudnn.allow_tf32 = backends.cuda.matmul.allow_tf32 = tf32
    backends.cudnn.benchmark = benchmark


@contextlib.contextmanager
def without_cudnn(machine: Machine) -> Iterator[None]:
    """PyTorch's own convolutions: matrix products and sums of columns."""
    cudnn = machine.torch.backends.cudnn
    before, cudnn.enabled = cudnn.enabled, False
    try:
        yield
    finally:
        cudnn.enabled = before


def broken(machine: Machine) -> str | None:
    """Whether the device answers this process no more; memory that nothing uses is given back."""
    try:
        machine.torch.cuda.synchronize()
        machine.torch.cuda.empty_cache()
        machine.cupy.get_default_memory_pool().free_all_blocks()
    except machine.failures as error:
        return reason_of(error)
    return None


# --- time ----------------------------------------------------------------------------------------


def microseconds(machine: Machine, call: Callable[[], Any], calls: int) -> float:
    """Of one call, in a block of them between two events."""
    first, last = (machine.torch.cuda.Event(enable_timing=True) for _ in range(2))
    call()  # so that the device has work while the host gets going
    first.record()
    for _ in range(calls):
        call()
    last.record()
    last.synchronize()
    return 1e3 * first.elapsed_time(last) / calls


def wake(machine: Machine) -> None:
    """Bring an idle device back to its clock."""
    torch = machine.torch
    factor = torch.randn(GEMM_SIZE // 4, GEMM_SIZE // 4, device=machine.device).to(torch.float16)
    until = time.perf_counter() + WAKING_SECONDS
    while time.perf_counter() < until:
        for _ in range(20):
            torch.matmul(factor, factor)
        torch.cuda.synchronize()


def rotating(call: Callable[[int], Any], count: int) -> Callable[[], Any]:
    """`call` with the next of `count` buffers each time, so that none is still in a cache."""
    turns = itertools.cycle(range(count))
    return lambda: call(next(turns))


def in_its_thread(machine: Machine, contestant: Contestant, function: Callable, *arguments: Any) -> Any:
    contestant.prepare()
    if contestant.elsewhere:
        return machine.other.submit(function, *arguments).result()
    return function(*arguments)


def _estimate(machine: Machine, call: Callable[[], Any]) -> float:
    for _ in range(3):
        call()
    first = microseconds(machine, call, 3)
    # A hiccup may take longer than the calls; where it can't, a second look costs more than it shows.
    again = 2 if first < 10 * BLOCK_US else 0
    return max(0.1, min([first, *(microseconds(machine, call, 3) for _ in range(again))]))


def schedule(estimates: dict[str, float], seconds: float) -> tuple[dict[str, int], int]:
    """Calls in a block of each, and rounds of blocks, that fit; a short time costs rounds before calls."""
    calls = {
        name: round(min(MOST_CALLS, max(FEWEST_CALLS, BLOCK_US / estimate)))
        for name, estimate in estimates.items()
    }
    one = sum(1e-6 * estimates[name] * calls[name] for name in calls)
    rounds = int(min(MOST_ROUNDS, max(FEWEST_ROUNDS, seconds / one)))
    excess = rounds * one / seconds
    if excess > 1:
        calls = {name: max(2, int(number / excess)) for name, number in calls.items()}
    return calls, rounds


def race(
    machine: Machine, contestants: Iterable[Contestant], count: int, seconds: float
) -> tuple[dict[str, Any], dict[str, str]]:
    """Times of all, their blocks taking turns, and why others have none."""
    times: dict[str, Any] = {}
    failed: dict[str, str] = {}
    calls_of = {}
    estimates = {}
    field = {contestant.name: contestant for contestant in contestants}
    for name, contestant in field.items():
        calls_of[name] = rotating(contestant.call, count)
        try:
            estimates[name] = in_its_thread(machine, contestant, _estimate, machine, calls_of[name])
        except machine.failures as error:
            failed[name] = reason_of(error)
    best: dict[str, float] = {}
    for name, estimate in estimates.items():
        side = field[name].side
        best[side] = min(estimate, best.get(side, estimate))
    for name, estimate in list(estimates.items()):
        if estimate > max(BLOCK_US, SLOW * best[field[name].side]):
            times[name] = summary([estimates.pop(name)], 3)
    if estimates:
        wake(machine)
        numbers, rounds = schedule(estimates, seconds)
        taken: dict[str, list[float]] = {name: [] for name in estimates}
        for _ in range(rounds):
            for name, number in numbers.items():
                block = in_its_thread(machine, field[name], microseconds, machine, calls_of[name], number)
                taken[name].append(block)
        times.update({name: summary(blocks, numbers[name]) for name, blocks in taken.items()})
    return times, failed


def summary(blocks: list[float], calls: int) -> dict[str, Any]:
    """Microseconds of a call, from those of each block."""
    return {
        "median": statistics.median(blocks),
        "min": min(blocks),
        "max": max(blocks),
        "rounds": len(blocks),
        "calls": calls,
    }


# --- graphs --------------------------------------------------------------------------------------


def replays(
    machine: Machine, contestants: Iterable[Contestant], count: int
) -> tuple[dict[str, Any], dict[str, str]]:
    """Times of a call among many in a captured graph, and why others have none."""
    graphs: dict[str, Callable[[], Any]] = {}
    failed: dict[str, str] = {}
    calls = max(FEWEST_CALLS, count)  # each buffer once, so that a replay too finds none in a cache
    for contestant in contestants:
        capture = _captured_by_torch if contestant.side == "torch" else captured_by_cupy
        contestant.prepare()
        try:
            graphs[contestant.name] = capture(machine, rotating(contestant.call, count), calls)
        except machine.failures as error:
            failed[contestant.name] = reason_of(error)
    wake(machine)
    taken: dict[str, list[float]] = {name: [] for name in graphs}
    for _ in range(MOST_ROUNDS):
        for name, graph in graphs.items():
            taken[name].append(microseconds(machine, graph, REPLAYS) / calls)
    return {name: summary(blocks, REPLAYS * calls) for name, blocks in taken.items()}, failed


def captured_by_cupy(machine: Machine, call: Callable[[], Any], calls: int) -> Callable[[], None]:
    """What launches a graph of so many calls."""
    stream = machine.stream
    stream.synchronize()
    stream.begin_capture()
    try:
        for _ in range(calls):
            call()
    finally:  # a stream that is still capturing can do nothing else
        graph = stream.end_capture()
    return lambda: graph.launch(stream)


def _captured_by_torch(machine: Machine, call: Callable[[], Any], calls: int) -> Callable[[], None]:
    graph = machine.torch.cuda.CUDAGraph()
    with machine.torch.cuda.graph(graph):
        for _ in range(calls):
            call()
    return graph.replay


# --- what the device is, and the most that it can do ---------------------------------------------


def describe(machine: Machine) -> dict[str, Any]:
    """Device and versions."""
    torch, cupy = machine.torch, machine.cupy
    properties = cupy.cuda.runtime.getDeviceProperties(0)
    return {
        "device": properties["name"].decode(),
        "compute_capability": f"{properties['major']}.{properties['minor']}",
        "multiprocessors": properties["multiProcessorCount"],
        "driver": _first_line("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        "cuda_driver": cupy.cuda.runtime.driverGetVersion(),
        "cuda_runtime": cupy.cuda.runtime.runtimeGetVersion(),
        "cupy": cupy.__version__,
        "torch": str(torch.__version__),
        "torch_cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "python": platform.python_version(),
        "gpuconv": gpuconv.__version__,
        "commit": _first_line("git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _first_line(*command: str) -> str | None:
    """Of what a program prints; None where it is missing or fails."""
    if shutil.which(command[0]) is None:
        return None
    run = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    lines = run.stdout.splitlines()
    return lines[0].strip() if run.returncode == 0 and lines else None


def ceilings(machine: Machine) -> dict[str, Any]:
    """Bytes a second of a copy, operations a second of a matrix product, microseconds of a launch."""
    wake(machine)
    return {
        "copy_bytes": _copy_rate(machine),
        "gemm_flops": {name: _gemm_rate(machine, name) for name in PRECISIONS},
        "launch_us": _launches(machine),
    }


def _copy_rate(machine: Machine) -> float:
    size = COPIED_BYTES // 4
    source = machine.torch.randn(size, device=machine.device)
    target = machine.torch.empty_like(source)
    return 2 * 4 * size / (1e-6 * _median(machine, lambda: target.copy_(source)))


def _gemm_rate(machine: Machine, name: str) -> float:
    torch, precision = machine.torch, PRECISIONS[name]
    set_switches(machine, tf32=precision.option == "tf32", benchmark=False)
    dtype = getattr(torch, precision.dtype)
    a, b = (torch.randn(GEMM_SIZE, GEMM_SIZE, device=machine.device).to(dtype) for _ in range(2))
    c = torch.empty_like(a)
    return 2 * GEMM_SIZE**3 / (1e-6 * _median(machine, lambda: torch.matmul(a, b, out=c)))


def _launches(machine: Machine) -> dict[str, float]:
    kernel = machine.cupy.RawKernel('extern "C" __global__ void gpuconv_nothing() {}', "gpuconv_nothing")
    one = machine.torch.zeros(1, device=machine.device)

    def nothing() -> None:
        kernel((1,), (1,), ())

    nothing()  # compiles: nothing may, while a graph is captured
    replay = captured_by_cupy(machine, nothing, MOST_CALLS)
    return {
        "an empty kernel, CuPy": _median(machine, nothing, MOST_CALLS),
        "one element, PyTorch": _median(machine, lambda: one.add_(1), MOST_CALLS),
        "an empty kernel in a graph": _median(machine, replay) / MOST_CALLS,
    }


def _median(machine: Machine, call: Callable[[], Any], calls: int = FEWEST_CALLS) -> float:
    for _ in range(3):
        call()
    return statistics.median(microseconds(machine, call, calls) for _ in range(3))
