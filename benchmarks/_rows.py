"""The rows of the GPU benchmark: their sizes, what PyTorch calls them, and the least work that they are."""

import json
from pathlib import Path
from typing import Any, NamedTuple

FILES = ("workloads.json", "workloads_gpu.json")
LAYOUTS = ("channels_last", "channels_first")


class Precision(NamedTuple):
    """What is compared with like: element type, and what may be rounded on the way."""

    title: str
    dtype: str
    itemsize: int
    option: str  # our `precision=`; PyTorch's allow_tf32 is whether this is "tf32"


PRECISIONS = {
    "ieee": Precision("float32, ieee", "float32", 4, "ieee"),
    "tf32": Precision("float32, tf32", "float32", 4, "tf32"),
    "bfloat16": Precision("bfloat16", "bfloat16", 2, "ieee"),
    "float16": Precision("float16", "float16", 2, "ieee"),
}


class Row(NamedTuple):
    """One transposed convolution, as a user writes it."""

    name: str
    source: str
    batch: int
    length: int
    in_channels: int
    filters: int
    kernel_size: int
    strides: int
    padding: str | int | tuple[int, int]
    output_padding: int | None
    groups: int


class TorchArguments(NamedTuple):
    """Arguments of `torch.nn.functional.conv_transpose1d`, and what to keep of its result."""

    padding: int
    output_padding: int
    start: int
    stop: int


def load_rows(folder: Path = Path(__file__).parent) -> list[Row]:
    """All rows, those that other benchmarks run too before those that only a GPU is fast enough for."""
    entries = [entry for name in FILES for entry in json.loads((folder / name).read_text(encoding="utf-8"))]
    rows = [row_of(entry) for entry in entries]
    names = [row.name for row in rows]
    if len(set(names)) < len(names):
        raise ValueError(f"Expected every row to have a name of its own. Received {names}.")
    return rows


def row_of(entry: dict[str, Any]) -> Row:
    """A row from its JSON, where a pair is a list; other keys than a row's are ignored."""
    values = {name: entry[name] for name in Row._fields}
    if isinstance(values["padding"], list):
        values["padding"] = tuple(values["padding"])
    return Row(**values)


def settings_of(row: Row, precision: str, data_format: str) -> dict[str, Any]:
    """What `gpuconv.conv1d_transpose` takes besides arrays."""
    return {
        "strides": row.strides,
        "padding": row.padding,
        "output_padding": row.output_padding,
        "groups": row.groups,
        "data_format": data_format,
        "precision": PRECISIONS[precision].option,
    }


def kernel_shape(row: Row) -> tuple[int, int, int]:
    """Our layout of a kernel."""
    return row.kernel_size, row.filters // row.groups, row.in_channels


def shape_of(row: Row, data_format: str) -> tuple[int, int, int]:
    """The input's shape."""
    if data_format == "channels_last":
        return row.batch, row.length, row.in_channels
    return row.batch, row.in_channels, row.length


def result_shape(row: Row, data_format: str) -> tuple[int, int, int]:
    """The output's shape."""
    made = full_length(row) - sum(crops(row))
    if data_format == "channels_last":
        return row.batch, made, row.filters
    return row.batch, row.filters, made


def full_length(row: Row) -> int:
    """Output samples before any is cut off."""
    return (row.length - 1) * row.strides + row.kernel_size


def crops(row: Row) -> tuple[int, int]:
    """Samples cut off the left and the right of the full output; less than 0 appends zeros.

    Written again from the table of `gpuconv.conv1d_transpose`, which is checked with this.
    """
    before, full, extra = (row.length - 1) * row.strides, full_length(row), row.output_padding
    if row.padding == "valid":
        made = before + max(row.kernel_size, row.strides) if extra is None else full + extra
        left = 0
    elif row.padding == "same":
        made = row.length * row.strides if extra is None else before + row.kernel_size % 2 + extra
        left = max(0, (full - made) // 2)
    else:
        left, right = row.padding if isinstance(row.padding, tuple) else (row.padding, row.padding)
        made = full - left - right + (extra or 0)
    return left, full - made - left


def torch_arguments(row: Row) -> TorchArguments:
    """PyTorch crops both ends alike and appends less than a stride: what it can't crop is sliced off."""
    left, right = crops(row)
    if 0 <= left - right < row.strides:
        padding, extra = left, left - right
    else:
        padding, extra = min(left, max(right, 0)), max(0, -right)
    start = left - padding
    return TorchArguments(padding, extra, start, start + full_length(row) - left - right)


def made_by_torch(row: Row) -> int:
    """The length of PyTorch's result, before it is sliced."""
    arguments = torch_arguments(row)
    return full_length(row) - 2 * arguments.padding + arguments.output_padding


def sliced(row: Row, y: Any) -> Any:
    """The part of PyTorch's result, its time axis last, that is the row's: a view, which costs nothing."""
    arguments = torch_arguments(row)
    return y[..., arguments.start : arguments.stop]


def is_inverse_stft(row: Row) -> bool:
    """Whether a matrix product and a fold do the row in two fast steps, as PyTorch users write it."""
    return row.filters == row.groups == 1 and row.kernel_size >= 512


def terms(row: Row) -> int:
    """The most products that one output sample sums."""
    return -(-row.kernel_size // row.strides) * (row.in_channels // row.groups)


def multiply_adds(row: Row) -> int:
    """Those that reach a kept output sample."""
    left, right = crops(row)
    stop = full_length(row) - right
    pairs = 0
    for tap in range(row.kernel_size):
        first = max(0, -(-(left - tap) // row.strides))
        last = min(row.length, -(-(stop - tap) // row.strides))
        pairs += max(0, last - first)
    return pairs * row.batch * row.in_channels * row.filters // row.groups


def least_bytes(row: Row, itemsize: int) -> int:
    """Input, kernel and output, each moved once."""
    taps, width, depth = kernel_shape(row)
    samples, made, filters = result_shape(row, "channels_last")
    elements = row.batch * row.length * row.in_channels + taps * width * depth + samples * made * filters
    return elements * itemsize


def floor_of(row: Row, precision: str, ceilings: dict[str, Any]) -> tuple[float, str]:
    """The least microseconds on a device with these ceilings, and which of them binds."""
    computing = 2 * multiply_adds(row) / ceilings["gemm_flops"][precision]
    moving = least_bytes(row, PRECISIONS[precision].itemsize) / ceilings["copy_bytes"]
    return (1e6 * moving, "memory") if moving >= computing else (1e6 * computing, "compute")
