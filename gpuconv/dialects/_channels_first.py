"""What the dialects of PyTorch and ONNX share: their layouts, and our errors in their words.

Arrays are (N, C, lengths...). The weight of a transposed convolution is (in_channels, out_channels //
groups, k...), that of a forward one (out_channels, in_channels // groups, k...): ours with all of the
channels last, read backwards.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from gpuconv import ops
from gpuconv._typing import Array
from gpuconv.geometry import integer
from gpuconv.namespace import array_namespace

__all__ = ["convolve", "spoken"]

_LENGTHS = ("L", "H, W", "D, H, W")
_TAPS = ("k", "kH, kW", "kD, kH, kW")


def convolve(
    words: Mapping[str, str],
    ndim: int,
    transposed: bool,
    x: Array,
    weight: Array,
    bias: Array | None,
    groups: int,
    **settings: Any,
) -> Array:
    """Run our op on arrays of their layouts; `x` may lack N, and so does the result then.

    `settings` are in our words, and `words` is what an error message calls them.
    """
    arrays = {"x": x, "kernel": weight, **({} if bias is None else {"bias": bias})}
    with spoken(words):
        xp = array_namespace(**arrays)
        _check_shapes(ndim, transposed, tuple(x.shape), tuple(weight.shape), groups)
        kernel = xp.permute_dims(weight, (*range(2, ndim + 2), 1, 0))  # a view
        batch = x if x.ndim == ndim + 2 else x[None, ...]
        op = getattr(ops, f"conv{ndim}d_transpose" if transposed else f"conv{ndim}d")
        result = op(batch, kernel, bias, data_format="channels_first", groups=groups, **settings)
        return result if batch is x else result[0, ...]


@contextlib.contextmanager
def spoken(words: Mapping[str, str]) -> Iterator[None]:
    """Put our errors into the user's words: every check is written once, in ours.

    Whole words are exchanged, those within quotes are values and stay.
    """
    try:
        yield
    except (NotImplementedError, TypeError, ValueError) as error:
        error.args = tuple(
            re.sub(r"(?<!\w)'[^']*'|\w+", lambda word: words.get(word[0], word[0]), said)
            if isinstance(said, str)
            else said
            for said in error.args
        )
        raise


def _check_shapes(
    ndim: int, transposed: bool, x: tuple[int, ...], kernel: tuple[int, ...], groups: Any
) -> None:
    """Check what the op would describe in our layouts."""
    if len(x) not in (ndim + 1, ndim + 2):
        lengths = _LENGTHS[ndim - 1]
        raise ValueError(f"Expected x of shape (N, C, {lengths}) or (C, {lengths}). Received x of shape {x}.")
    if len(kernel) != ndim + 2 or not all(kernel):
        order = "in_channels, out_channels" if transposed else "out_channels, in_channels"
        raise ValueError(
            f"Expected kernel of shape ({order} // groups, {_TAPS[ndim - 1]}), no length being 0. "
            f"Received kernel of shape {kernel}."
        )
    count = integer("groups", groups, 1)
    channels, filters = kernel[0], kernel[1] * count
    if not transposed:
        channels, filters = filters, channels
    if x[-ndim - 1] != channels:
        raise ValueError(
            f"Expected x of {channels} channels, as the kernel of shape {kernel} has with groups={count}. "
            f"Received x of shape {x}."
        )
    if channels % count or filters % count:
        raise ValueError(
            "Expected groups to divide the channels of the input and of the output. "
            f"Received groups={groups!r} for {channels} and {filters} channels."
        )
