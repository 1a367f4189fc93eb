"""Integers only: every spelling of strides, padding, cropping and dilation becomes one frozen geometry.

For a stride s, dilation d and kernel length k the kernel reaches over e = (k - 1) d + 1 samples, and L input
samples make a full output of N = (L - 1) s + e. No kernel is flipped:

    full[i*s + j*d] += x[i] * W[j]

`crop_left` and `crop_right` samples are then cut off; a negative right crop appends zeros. The forward
convolution is the adjoint, so the same geometry describes it, read from the output to the input.

Source of the definitions: the output lengths of ``tf.keras`` 2.9, Keras 3 (JAX backend), PyTorch, ONNX.
"""

from __future__ import annotations

import math
import numbers
import sys
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any

from gpuconv._typing import Shape

__all__ = [
    "AxisGeometry",
    "ConvGeometry",
    "as_shape",
    "conv_axes",
    "crop_options",
    "crops",
    "input_window",
    "integer",
    "per_axis",
    "transpose_axes",
]

_NAMES = ("valid", "same", "same_lower")
_TRANSPOSE_CAUSAL = (
    " A transposed convolution has no causal padding: to keep only what past inputs determine, crop on the "
    "right, with padding=(0, (kernel_size - 1) * dilation_rate + 1 - strides)."
)
_CONV_CAUSAL = " Causal padding is for one axis, time, as in Keras."


@dataclass(frozen=True, slots=True)
class AxisGeometry:
    """One spatial axis of a transposed convolution, from `in_length` to `out_length` samples."""

    kernel: int
    stride: int
    dilation: int
    crop_left: int
    crop_right: int
    in_length: int
    out_length: int

    @property
    def reach(self) -> int:
        """Samples from the first to the last tap: (kernel - 1) * dilation + 1."""
        return (self.kernel - 1) * self.dilation + 1

    @property
    def full_length(self) -> int:
        """Output samples before cropping: (in_length - 1) * stride + reach."""
        return (self.in_length - 1) * self.stride + self.reach

    def _repr_html_(self) -> str:
        return _as_html("AxisGeometry", (self,))


@dataclass(frozen=True, slots=True)
class ConvGeometry:
    """All axes, with the channel counts of the transposed convolution: `in_channels` to `filters`.

    The forward convolution with this geometry goes from `filters` channels to `in_channels`.
    """

    axes: tuple[AxisGeometry, ...]
    in_channels: int
    filters: int
    groups: int

    @property
    def in_lengths(self) -> tuple[int, ...]:
        """Input length of each axis."""
        return tuple(axis.in_length for axis in self.axes)

    @property
    def out_lengths(self) -> tuple[int, ...]:
        """Output length of each axis."""
        return tuple(axis.out_length for axis in self.axes)

    def result_shape(self, samples: int, *, transposed: bool, channels_last: bool) -> tuple[int, ...]:
        """Shape of what the transposed convolution makes, or of what the forward one does."""
        lengths = self.out_lengths if transposed else self.in_lengths
        channels = self.filters if transposed else self.in_channels
        return (samples, *lengths, channels) if channels_last else (samples, channels, *lengths)

    def _repr_html_(self) -> str:
        title = f"ConvGeometry: in_channels={self.in_channels}, filters={self.filters}, groups={self.groups}"
        return _as_html(title, self.axes)


def _as_html(title: str, axes: Sequence[AxisGeometry]) -> str:
    from gpuconv._display import block, table  # only a notebook needs it

    names = [field.name for field in fields(AxisGeometry)]
    rows = [[str(number), *map(str, astuple(axis))] for number, axis in enumerate(axes)]
    return block(title, table(rows, header=["axis", *names], right=len(names)))


def integer(name: str, value: Any, minimum: int, whole: Any = None) -> int:
    """`value` as an int: integers of any library and integral floats (R's numbers) pass.

    `whole` is the sequence that `value` is an entry of, for the message.

    Raises
    ------
    TypeError
        For a boolean, a string or anything else that is no number.
    ValueError
        For a fraction, or for less than `minimum`.
    """
    if type(value) is int and minimum <= value <= sys.maxsize:  # the usual case, without the questions
        return value
    whole = value if whole is None else whole
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"Expected {name} to be an integer. Received {name}={whole!r}.")
    if not isinstance(value, numbers.Integral) and not float(value).is_integer():
        raise ValueError(f"Expected {name} to be an integer. Received {name}={whole!r}.")
    number = int(value) if isinstance(value, numbers.Integral) else int(float(value))
    if not minimum <= number <= sys.maxsize:
        bound = f"at least {minimum}" if number < minimum else f"at most {sys.maxsize}"
        raise ValueError(f"Expected {name} to be {bound}. Received {name}={whole!r}.")
    return number


def per_axis(name: str, value: Any, ndim: int, minimum: int) -> tuple[int, ...]:
    """One integer per spatial axis, from one for all of them or a sequence of `ndim`."""
    if not _is_sequence(value):
        return (integer(name, value, minimum),) * ndim
    entries = tuple(value)
    if len(entries) != ndim:
        raise ValueError(
            f"Expected {name} to be one integer or {ndim}, one per spatial axis. Received {name}={value!r}."
        )
    return tuple(integer(name, entry, minimum, value) for entry in entries)


def crops(
    padding: Any, ndim: int, names: Sequence[str], causal_hint: str = ""
) -> tuple[str | tuple[int, int], ...]:
    """`padding` for each axis: one of `names` in lower case, or a (left, right) pair."""
    if isinstance(padding, str):
        if padding.lower() in names:
            return (padding.lower(),) * ndim
        hint = causal_hint if padding.lower() == "causal" else ""
        raise ValueError(
            f"Expected padding to be one of {', '.join(map(repr, names))}, an integer or a (left, right) "
            f"pair. Received padding={padding!r}.{hint}"
        )
    if not _is_sequence(padding):
        both = integer("padding", padding, 0)
        return ((both, both),) * ndim
    entries = tuple(padding)
    nested = [_is_sequence(entry) for entry in entries]
    if ndim == 1 and len(entries) == 2 and not any(nested):
        return (_pair(entries),)
    if len(entries) != ndim or (any(nested) and not all(nested)):
        spellings = "a (left, right) pair" if ndim == 1 else f"{ndim} integers or {ndim} (left, right) pairs"
        raise ValueError(f"Expected padding to be one integer or {spellings}. Received padding={padding!r}.")
    return tuple(_pair(entry if _is_sequence(entry) else (entry, entry)) for entry in entries)


def _pair(entry: Any) -> tuple[int, int]:
    values = tuple(integer("padding", value, 0, entry) for value in entry)
    if len(values) != 2:
        raise ValueError(f"Expected a (left, right) pair of padding. Received padding={values!r}.")
    return values[0], values[1]


def _is_sequence(value: Any) -> bool:
    # Arrays are no Sequence. What has no order (a set, a dict) or can be read once only is refused.
    if isinstance(value, str | bytes):
        return False
    return isinstance(value, Sequence) or getattr(value, "ndim", 0) > 0


def as_shape(name: str, value: Any) -> Shape:
    """`value` as a shape: a tuple of integers of at least 0 and of Nones.

    Raises
    ------
    TypeError, ValueError
        If it is no sequence, or an entry is neither.
    """
    if not _is_sequence(value):
        raise TypeError(f"Expected {name} to be a sequence of integers and Nones. Received {name}={value!r}.")
    if any(isinstance(entry, float) and math.isnan(entry) for entry in value):
        raise ValueError(
            f"Expected {name} to be known. Received {name}={value!r}. For a Dask array, call its "
            "compute_chunk_sizes() first."
        )
    return tuple(None if entry is None else integer(name, entry, 0, value) for entry in value)


def transpose_axes(
    in_lengths: Sequence[int | None],
    kernel_size: Any,
    *,
    strides: Any = 1,
    padding: Any = "valid",
    output_padding: Any = None,
    output_size: Any = None,
    dilation_rate: Any = 1,
) -> tuple[AxisGeometry | None, ...]:
    """The axes of a transposed convolution; None where the length is None. Everything is validated."""
    ndim = len(in_lengths)
    kernels = per_axis("kernel_size", kernel_size, ndim, 1)
    steps = per_axis("strides", strides, ndim, 1)
    dilations = per_axis("dilation_rate", dilation_rate, ndim, 1)
    cuts = crops(padding, ndim, _NAMES, _TRANSPOSE_CAUSAL)
    extras: tuple[int | None, ...] = (None,) * ndim
    sizes: tuple[int | None, ...] = (None,) * ndim
    if output_padding is not None:
        extras = per_axis("output_padding", output_padding, ndim, 0)
    if output_size is not None:
        sizes = per_axis("output_size", output_size, ndim, 0)
        if output_padding is not None:
            raise ValueError(
                "Expected output_padding or output_size, not both. Received "
                f"output_padding={output_padding!r}, output_size={output_size!r}."
            )
    for extra, s, d in zip(extras, steps, dilations, strict=True):
        if extra is not None and extra >= max(s, d):
            raise ValueError(
                "Expected output_padding to be less than the stride (or the dilation, if larger). Received "
                f"output_padding={output_padding!r}, strides={strides!r}, dilation_rate={dilation_rate!r}."
            )
    settings = zip(kernels, steps, dilations, cuts, extras, sizes, strict=True)
    return tuple(
        None if length is None else _transpose_axis(length, *rest)
        for length, rest in zip(in_lengths, settings, strict=True)
    )


def _transpose_axis(
    length: int, k: int, s: int, d: int, cut: str | tuple[int, int], extra: int | None, size: int | None
) -> AxisGeometry:
    e = (k - 1) * d + 1
    full = (length - 1) * s + e
    lowest = full  # the output length that output_padding=0 gives, for "valid"
    if cut == "valid":
        out = full + extra if extra is not None else (length - 1) * s + max(e, s)
    elif isinstance(cut, str):
        # What "same" means with a size: a forward "same" convolution of `size` samples makes `length`.
        lowest = (length - 1) * s + (1 if size is not None else e % 2)
        out = lowest + extra if extra is not None else length * s
    else:
        lowest = full - sum(cut)
        out = lowest + (extra or 0)
    if length == 0:
        out = lowest = 0
    if size is not None:
        highest = lowest + s - 1 if length else 0
        if not lowest <= size <= highest:
            raise ValueError(
                f"Expected output_size from {lowest} to {highest} for an input of length {length}, "
                f"kernel_size={k}, strides={s}, dilation_rate={d}, padding={cut!r}. "
                f"Received output_size={size}."
            )
        out = size
    if out < 0:
        raise ValueError(
            f"Expected padding to crop at most the {full} samples that an input of length {length} makes. "
            f"Received padding={cut!r}, kernel_size={k}, strides={s}, dilation_rate={d}."
        )
    excess = full - out
    if cut == "valid":
        left = 0
    elif cut == "same":
        left = max(0, excess // 2)
    elif cut == "same_lower":
        left = max(0, excess - excess // 2)
    else:
        left = int(cut[0])
    return AxisGeometry(k, s, d, left, excess - left, length, out)


def crop_options(left: int, right: int) -> dict[str, Any]:
    """The options of a transposed convolution that crop so much; less than 0 on the right appends zeros."""
    return {"padding": (left, max(0, right)), "output_padding": max(0, -right)}


def conv_axes(
    lengths: Sequence[int | None],
    kernel_size: Any,
    *,
    strides: Any = 1,
    padding: Any = "valid",
    dilation_rate: Any = 1,
) -> tuple[AxisGeometry | None, ...]:
    """The axes of a forward convolution of `lengths`, as those of the transposed one that it is adjoint to.

    What the forward convolution reads is `out_length`; what it makes is `in_length`.
    """
    ndim = len(lengths)
    kernels = per_axis("kernel_size", kernel_size, ndim, 1)
    steps = per_axis("strides", strides, ndim, 1)
    dilations = per_axis("dilation_rate", dilation_rate, ndim, 1)
    cuts = crops(padding, ndim, (*_NAMES, "causal") if ndim == 1 else _NAMES, _CONV_CAUSAL)
    settings = zip(kernels, steps, dilations, cuts, strict=True)
    return tuple(
        None if length is None else _conv_axis(length, *rest)
        for length, rest in zip(lengths, settings, strict=True)
    )


def _conv_axis(length: int, k: int, s: int, d: int, cut: str | tuple[int, int]) -> AxisGeometry:
    e = (k - 1) * d + 1
    if cut == "valid":
        left = right = 0
    elif cut == "causal":
        left, right = e - 1, 0
    elif isinstance(cut, str):
        total = max(0, (_ceil_div(length, s) - 1) * s + e - length)
        left = total // 2 if cut == "same" else total - total // 2
        right = total - left
    else:
        left, right = cut
    made = (length + left + right - e) // s + 1
    if length == 0:
        made = 0
    elif made <= 0:
        raise ValueError(
            f"Expected at least {e} samples, padding included, for kernel_size={k}, dilation_rate={d}. "
            f"Received a length of {length} with padding={cut!r}."
        )
    return AxisGeometry(k, s, d, left, (made - 1) * s + e - length - left, made, length)


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def input_window(
    axis: AxisGeometry, start: int, stop: int, *, transposed: bool
) -> tuple[slice, AxisGeometry]:
    """The input samples that result samples `start` to `stop` need, and the geometry of that block.

    `transposed` says which convolution is meant: the forward one reads `axis.out_length` samples and makes
    `axis.in_length`. The block is a convolution like any other: its left crop is at least 0, and it reads one
    sample at least, unless it is empty. For that, and where taps leave gaps, the window may have samples that
    are not needed.
    """
    if start == stop:
        nothing = AxisGeometry(axis.kernel, axis.stride, axis.dilation, 0, axis.reach - axis.stride, 0, 0)
        return slice(0, 0), nothing
    window, left = (_transpose_window if transposed else _conv_window)(axis, start, stop)
    read, made = window.stop - window.start, stop - start
    short, long = (read, made) if transposed else (made, read)
    right = (short - 1) * axis.stride + axis.reach - left - long
    return window, AxisGeometry(axis.kernel, axis.stride, axis.dilation, left, right, short, long)


def _transpose_window(axis: AxisGeometry, start: int, stop: int) -> tuple[slice, int]:
    """The window, and the left crop of what it makes."""
    s, begin, end = axis.stride, start + axis.crop_left, stop + axis.crop_left
    # What no tap reaches, between kernels shorter than the stride, comes after an input sample too.
    oldest = min(_ceil_div(begin - axis.reach + 1, s), begin // s)
    first = max(0, min(oldest, axis.in_length - 1))
    return slice(first, min((end - 1) // s + 1, axis.in_length)), begin - first * s


def _conv_window(axis: AxisGeometry, start: int, stop: int) -> tuple[slice, int]:
    """The window, and the zeros before it."""
    begin = start * axis.stride - axis.crop_left
    end = (stop - 1) * axis.stride - axis.crop_left + axis.reach
    if begin >= axis.out_length or end <= 0:
        return slice(0, 1), end - begin  # reads zeros only: as well those before a sample
    first = max(0, begin)
    return slice(first, min(end, axis.out_length)), first - begin
