"""One row in one precision: data, the check against float64, and who races whom."""

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from _gpu_machine import (
    Contestant,
    Machine,
    in_its_thread,
    race,
    reason_of,
    replays,
    set_switches,
    without_cudnn,
)
from _rows import (
    LAYOUTS,
    PRECISIONS,
    Row,
    crops,
    full_length,
    is_inverse_stft,
    kernel_shape,
    made_by_torch,
    result_shape,
    settings_of,
    shape_of,
    sliced,
    terms,
    torch_arguments,
)

import gpuconv

# More than any cache holds. Rows so small that they stop at the count may be found in one, by both sides.
ROTATED_BYTES, MOST_BUFFERS = 2**29, 256
# Where launching a kernel can take longer than running it, the kernel is timed in a graph too.
GRAPH_BELOW_US = 100.0
# PyTorch may round as it likes; it only has to compute the same thing.
SAME = 0.02

# As in tests/bounds.py: the distance from 1 to the next number, and half of the smallest number above 0.
_EPS = {"float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
_HALF_OF_SMALLEST = {"float16": 2.0**-25, "bfloat16": 2.0**-134}
# Both factors of a product are rounded to 11 bits. The errors of many products partly cancel: their sum is
# at most 20 standard deviations.
_TF32, _TF32_LIKELY = 2.0**-10 + 2.0**-22, 2.0**-7


class Buffers(NamedTuple):
    """PyTorch tensors, by layout; only the first inputs hold the same numbers in each."""

    kernel: Any
    weight: Any
    x: dict[str, list[Any]]
    y: dict[str, list[Any]]

    @property
    def count(self) -> int:
        """How many inputs, and outputs, there are in each layout."""
        return len(next(iter(self.x.values())))


class Truth(NamedTuple):
    """In float64, as (samples, filters, length)."""

    exact: Any
    bound: Any


def draw_buffers(machine: Machine, row: Row, precision: str, layouts: tuple[str, ...] = LAYOUTS) -> Buffers:
    """Random numbers, never zeros: those run faster, and hide what is not written."""
    torch, itemsize = machine.torch, PRECISIONS[precision].itemsize
    dtype = getattr(torch, PRECISIONS[precision].dtype)

    def draw(shape: tuple[int, ...]) -> Any:
        return torch.randn(shape, device=machine.device).to(dtype)

    shapes = {layout: (shape_of(row, layout), result_shape(row, layout)) for layout in layouts}
    once = itemsize * sum(math.prod(shape) for shape in shapes[layouts[0]])
    count = min(MOST_BUFFERS, max(2, -(-ROTATED_BYTES // once)))
    x = {layout: [draw(shape) for _ in range(count)] for layout, (shape, _) in shapes.items()}
    for layout in layouts[1:]:
        x[layout][0].copy_(x[layouts[0]][0].transpose(1, 2))
    y = {
        layout: [torch.empty(shape, dtype=dtype, device=machine.device) for _ in range(count)]
        for layout, (_, shape) in shapes.items()
    }
    kernel = draw(kernel_shape(row))
    return Buffers(kernel, kernel.permute(2, 1, 0).contiguous(), x, y)


def shared(machine: Machine, tensor: Any) -> Any:
    """The same memory as a CuPy array."""
    if tensor.dtype is not machine.torch.bfloat16:
        return machine.cupy.from_dlpack(tensor)
    import ml_dtypes

    # CuPy took bfloat16 before it took it by DLPack.
    bits = machine.cupy.from_dlpack(tensor.view(machine.torch.int16))
    return bits.view(np.dtype(ml_dtypes.bfloat16))


# --- right or wrong ------------------------------------------------------------------------------


def truth_of(machine: Machine, row: Row, precision: str, buffers: Buffers) -> Truth:
    """What the first input must become, computed by neither contestant: by float64 products and sums."""
    layout, inputs = next(iter(buffers.x.items()))
    first = inputs[0].transpose(1, 2) if layout == "channels_last" else inputs[0]
    x, weight = first.double(), buffers.weight.double()

    def compute(x: Any, weight: Any) -> Any:
        return sliced(row, _conv_transpose1d(machine, row, x, weight))

    with without_cudnn(machine):
        exact, size, square = compute(x, weight), compute(x.abs(), weight.abs()), compute(x**2, weight**2)
    return Truth(exact, bound_of(precision, exact, size, square.sqrt(), terms(row)))


def bound_of(precision: str, exact: Any, size: Any, spread: Any, count: int) -> Any:
    """How far a sum of `count` products may be off.

    `size` is the sum of the products' absolute values, `spread` the root of the sum of their squares. The
    first bound always holds (tests/bounds.py), but a long sum could lose a product and stay within it. The
    second is for the random numbers drawn here: the partial sums are a few spreads at most, and each rounding
    costs a part of one. Half types are summed in float32 and rounded once.
    """
    dtype = PRECISIONS[precision].dtype
    tf32 = PRECISIONS[precision].option == "tf32"
    always = ((count + 1) * _EPS["float32"] + (_TF32 if tf32 else 0.0)) * size
    likely = ((count + 64) * _EPS["float32"] + (_TF32_LIKELY if tf32 else 0.0)) * spread
    bound = always.minimum(likely)
    if dtype in _HALF_OF_SMALLEST:
        bound = bound + _EPS[dtype] / 2 * (exact.abs() + bound) + _HALF_OF_SMALLEST[dtype]
    return bound


def fault_of(y: Any, truth: Truth) -> str | None:
    """What is wrong with a result of ours; not a number is off too."""
    if y.shape != truth.exact.shape:
        return f"shape {tuple(y.shape)} where {tuple(truth.exact.shape)} is right"
    error = (y.double() - truth.exact).abs()
    off = ~(error <= truth.bound)
    if not off.any():
        return None
    worst = (error[off] / truth.bound[off]).nan_to_num(nan=math.inf).max()
    return (
        f"{int(off.sum())} of {off.numel()} numbers are off, the worst by {float(worst):.3g} times the bound"
    )


def _other_than(y: Any, truth: Truth) -> str | None:
    """Whether PyTorch was asked for something else."""
    if y.shape != truth.exact.shape:
        return f"shape {tuple(y.shape)} where {tuple(truth.exact.shape)} is right"
    distance = float((y.double() - truth.exact).norm() / truth.exact.norm())
    return None if distance <= SAME else f"a distance of {distance:.3g} from the truth"


# --- PyTorch -------------------------------------------------------------------------------------


def _conv_transpose1d(machine: Machine, row: Row, x: Any, weight: Any) -> Any:
    arguments = torch_arguments(row)
    return machine.torch.nn.functional.conv_transpose1d(
        *(x, weight, None, row.strides, arguments.padding, arguments.output_padding, row.groups)
    )


def torch_contestants(machine: Machine, row: Row, precision: str, buffers: Buffers) -> list[Contestant]:
    """PyTorch's ways to the row. A result is held until its turn comes again, so that outputs rotate too."""
    dtype, samples = buffers.weight.dtype, (row.batch, row.filters, made_by_torch(row))
    held = [machine.torch.empty(samples, dtype=dtype, device=machine.device) for _ in range(buffers.count)]
    ways = {
        "NCL": _ncl(machine, row, buffers),
        "channels_last": _nhwc(machine, row, buffers),
        "default": _ncl(machine, row, buffers),
    }
    if is_inverse_stft(row) and min(crops(row)) >= 0:
        ways["matmul + fold"] = _matmul_and_fold(machine, row, buffers)

    def contestant(name: str) -> Contestant:
        compute, finish = ways[name]

        def call(number: int) -> None:
            held[number] = compute(number)

        def prepare() -> None:
            tf32 = PRECISIONS[precision].option == "tf32"
            set_switches(machine, tf32=tf32, benchmark=name != "default")

        return Contestant(
            f"torch {name}", "torch", call, lambda: finish(held[0]), prepare, elsewhere=name == "default"
        )

    return [contestant(name) for name in ways]


_Way = tuple[Callable[[int], Any], Callable[[Any], Any]]  # how it computes, and its result as the row's


def _ncl(machine: Machine, row: Row, buffers: Buffers) -> _Way:
    function = machine.torch.nn.functional.conv_transpose1d
    x, weight, (padding, extra, *_) = buffers.x["channels_first"], buffers.weight, torch_arguments(row)
    strides, groups = row.strides, row.groups
    return (
        lambda number: function(x[number], weight, None, strides, padding, extra, groups),
        lambda y: sliced(row, y),
    )


def _nhwc(machine: Machine, row: Row, buffers: Buffers) -> _Way:
    """As images of height 1, channels last in memory."""
    torch = machine.torch
    function = torch.nn.functional.conv_transpose2d
    x = [tensor.transpose(1, 2).unsqueeze(2) for tensor in buffers.x["channels_last"]]
    weight = buffers.weight.unsqueeze(2).contiguous(memory_format=torch.channels_last)
    padding, extra, *_ = torch_arguments(row)
    sizes = (1, row.strides), (0, padding), (0, extra)
    groups = row.groups
    return (
        lambda number: function(x[number], weight, None, *sizes, groups),
        lambda y: sliced(row, y.squeeze(2)),
    )


def _matmul_and_fold(machine: Machine, row: Row, buffers: Buffers) -> _Way:
    torch = machine.torch
    matmul, fold = torch.matmul, torch.nn.functional.fold
    x, weight = buffers.x["channels_first"], buffers.weight.squeeze(1).t()
    full = full_length(row)
    size, window, hop = (1, full), (1, row.kernel_size), (1, row.strides)
    left, right = crops(row)
    return (
        lambda number: fold(matmul(weight, x[number]), size, window, stride=hop),
        lambda y: y.squeeze(2)[..., left : full - right],
    )


# --- ours ----------------------------------------------------------------------------------------


class Ours(NamedTuple):
    """Our arguments in one layout, as CuPy arrays."""

    row: Row
    layout: str
    settings: dict[str, Any]
    kernel: Any
    x: list[Any]
    y: list[Any]
    written: Any  # the first of `y`, as PyTorch's (samples, channels, length)


def ours_of(machine: Machine, row: Row, precision: str, buffers: Buffers, layout: str) -> Ours:
    written = buffers.y[layout][0]
    return Ours(
        row,
        layout,
        settings_of(row, precision, layout),
        shared(machine, buffers.kernel),
        [shared(machine, tensor) for tensor in buffers.x[layout]],
        [shared(machine, tensor) for tensor in buffers.y[layout]],
        written.transpose(1, 2) if layout == "channels_last" else written,
    )


def plan_of(ours: Ours, **options: Any) -> Any:
    shape = shape_of(ours.row, ours.layout)
    return gpuconv.plan(gpuconv.conv1d_transpose, shape, ours.kernel, **ours.settings, **options)


def _op_contestant(ours: Ours) -> Contestant:
    function, (_, layout, settings, kernel, x, y, written) = gpuconv.conv1d_transpose, ours

    def call(number: int) -> Any:
        return function(x[number], kernel, out=y[number], **settings)

    return Contestant(f"op {layout}", f"ours {layout}", call, lambda: written)


def _plan_contestant(ours: Ours, plan: Any, name: str) -> Contestant:
    x, y, written = ours.x, ours.y, ours.written
    return Contestant(
        name, f"ours {ours.layout}", lambda number: plan(x[number], out=y[number]), lambda: written
    )


def _fault(machine: Machine, contestant: Contestant, truth: Truth) -> str | None:
    """What is wrong with what `contestant` makes of the first input, where nothing was before."""
    ours = contestant.side != "torch"
    if ours:
        contestant.result().fill_(math.nan)
    in_its_thread(machine, contestant, contestant.call, 0)
    return (fault_of if ours else _other_than)(contestant.result(), truth)


def _checked(
    machine: Machine, field: list[Contestant], truth: Truth, failed: dict[str, str]
) -> tuple[list[Contestant], dict[str, str]]:
    """Who is right, and what is wrong with the others; who can't be asked joins `failed`."""
    right, wrong = [], {}
    for contestant in field:
        try:
            fault = _fault(machine, contestant, truth)
        except machine.failures as error:
            failed[contestant.name] = reason_of(error)
            continue
        if fault:
            wrong[contestant.name] = fault
        else:
            right.append(contestant)
    return right, wrong


def _listed(reasons: dict[str, str]) -> str:
    return "; ".join(f"{name}: {reason}" for name, reason in reasons.items())


# --- cells ---------------------------------------------------------------------------------------


def race_cell(machine: Machine, row: Row, precision: str, seconds: float) -> dict[str, Any]:
    """Ours and PyTorch's times for a row, or what is wrong with ours."""
    until = time.monotonic() + seconds
    buffers = draw_buffers(machine, row, precision)
    truth = truth_of(machine, row, precision, buffers)
    failed: dict[str, str] = {}
    entry: dict[str, Any] = {"status": "timed", "algorithm": {}, "explain": {}, "failed": failed}
    field = []
    for layout in LAYOUTS:
        ours = ours_of(machine, row, precision, buffers, layout)
        field.append(_op_contestant(ours))
        try:
            plan = plan_of(ours)
            entry["algorithm"][layout], entry["explain"][layout] = plan.algorithm, plan.explain()
            field.append(_plan_contestant(ours, plan, f"plan {layout}"))
        except machine.failures as error:
            failed[f"plan {layout}"] = reason_of(error)
    right, wrong = _checked(machine, field, truth, failed)
    if wrong:
        return {**entry, "status": "wrong", "reason": _listed(wrong)}
    if not right:
        return {**entry, "status": "not run", "reason": _listed(failed), "failed": {}}
    rivals = torch_contestants(machine, row, precision, buffers)
    rivals, others = _checked(machine, rivals, truth, failed)
    failed.update(others)
    del truth
    return {**entry, **_timed(machine, [*right, *rivals], buffers.count, failed, until)}


def tune_cell(machine: Machine, row: Row, precision: str, layout: str, seconds: float) -> dict[str, Any]:
    """The time of each algorithm that can run a row."""
    until = time.monotonic() + seconds
    buffers = draw_buffers(machine, row, precision, (layout,))
    truth = truth_of(machine, row, precision, buffers)
    ours = ours_of(machine, row, precision, buffers, layout)
    chosen = plan_of(ours)
    failed: dict[str, str] = {}
    field = []
    for name in chosen.algorithms:
        try:
            field.append(_plan_contestant(ours, plan_of(ours, algorithm=name), name))
        except machine.failures as error:
            failed[name] = reason_of(error)
    right, wrong = _checked(machine, field, truth, failed)
    del truth
    entry = {
        "status": "wrong" if wrong else "timed",
        "chosen": chosen.algorithm,
        "algorithms": list(chosen.algorithms),
        "explain": chosen.explain(),
        "wrong": wrong,
        "failed": failed,
        **({"reason": _listed(wrong)} if wrong else {}),
    }
    return {**entry, **_timed(machine, right, buffers.count, failed, until)}


def _timed(
    machine: Machine, field: list[Contestant], count: int, failed: dict[str, str], until: float
) -> dict[str, Any]:
    """Eager times, and replayed ones where a launch may hide the kernel."""
    times, lost = race(machine, field, count, max(0.3, until - time.monotonic()))
    failed.update(lost)
    timed: dict[str, Any] = {"times": times}
    if times and min(time["median"] for time in times.values()) < GRAPH_BELOW_US:
        raced = [c for c in field if not c.elsewhere and times.get(c.name, {}).get("rounds", 0) > 1]
        timed["graph"], lost = replays(machine, raced, count)
        failed.update({f"{name}, in a graph": reason for name, reason in lost.items()})
    return timed
