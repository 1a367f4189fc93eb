"""The table of a model's layers: what each makes, keeps and computes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from gpuconv._display import aligned, block, preformatted, table
from gpuconv._typing import Shape
from gpuconv.layers.base import Layer
from gpuconv.layers.base_conv import BaseConv
from gpuconv.layers.training import Trainable
from gpuconv.namespace import dtype_name

__all__ = ["summary_html", "summary_lines"]

_HEADER = ("layer", "type", "output shape", "parameters", "multiply-adds", "memory")
_NUMBERS = 3  # columns of numbers, at the end


class _Measured(NamedTuple):
    """What a layer makes of an input, and what that takes for one sample; None where it is not known."""

    layer: Layer
    shape: Shape | None
    multiply_adds: int | None
    memory: int | None


def _measured(layers: Sequence[Layer], shape: Shape | None) -> Iterator[_Measured]:
    """Each layer, the first of which is given `shape`."""
    for layer in layers:
        given, shape = shape, None if shape is None else layer.compute_output_shape(shape)
        parts: Any = layer if isinstance(layer, Trainable) else None  # what is trained is a Sequential
        inner = [] if parts is None else list(_measured(parts.layers, given))
        if inner:
            yield _Measured(layer, shape, _total(m.multiply_adds for m in inner), inner[-1].memory)
        else:
            memory = None if shape is None else _product(shape[1:], _bytes(layer.dtype))
            yield _Measured(layer, shape, _multiply_adds(layer, given, shape), memory)


def _multiply_adds(layer: Layer, given: Shape | None, made: Shape | None) -> int | None:
    if not isinstance(layer, BaseConv):
        # What a layer of one's own does with its parameters is not known.
        return 0 if layer.built and not layer.weights else None
    if given is None or made is None:
        return None
    short = given if layer.transposed else made
    lengths = short[1:-1] if layer.data_format == "channels_last" else short[2:]
    return _product(lengths, math.prod(layer._kernel_shape(given)))


def _product(lengths: Sequence[int | None], times: int) -> int | None:
    return None if None in lengths else math.prod(lengths) * times  # type: ignore[arg-type]


def _total(counts: Iterator[int | None]) -> int | None:
    found = list(counts)
    return None if None in found else sum(found)  # type: ignore[arg-type]


def _rows(model: Any, layers: Sequence[Layer]) -> tuple[list[tuple[str, ...]], list[str]]:
    """The table's rows, and what is said below them."""
    found = list(_measured(layers, model.input_shape if model.built else None))
    rows: list[tuple[str, ...]] = []
    for layer, shape, multiply_adds, memory in found:
        rows.append(
            (
                layer.name,
                type(layer).__name__,
                "?" if shape is None else str(shape),
                f"{layer.count_params():,}" if layer.built else "not built",
                "?" if multiply_adds is None else f"{multiply_adds:,}",
                "?" if memory is None else _readable(memory),
            )
        )
    if not model.built:
        return rows, []
    free, frozen = (
        sum(math.prod(value.shape) for value in values)
        for values in (model.trainable_weights, model.non_trainable_weights)
    )
    size = sum(math.prod(value.shape) * _bytes(dtype_name(value.dtype)) for value in model.weights)
    notes = [f"{free + frozen:,} parameters ({_readable(size)}), {free:,} trainable, {frozen:,} frozen"]
    work, memory = _total(m.multiply_adds for m in found), _total(m.memory for m in found)
    if work is not None and memory is not None:
        notes.append(f"for one sample {work:,} multiply-adds, {_readable(memory)} of outputs")
    return rows, notes


def _title(model: Any) -> str:
    return f"{model.name} (Sequential), input {model.input_shape if model.built else 'not known yet'}"


def summary_lines(model: Any, layers: Sequence[Layer]) -> list[str]:
    """The table as text."""
    rows, notes = _rows(model, layers)
    header, *lines = aligned([_HEADER, *rows], right=_NUMBERS)
    rule = "-" * len(header)
    return [_title(model), rule, header, rule, *lines, rule, *notes]


def summary_html(model: Any, layers: Sequence[Layer]) -> str:
    """The table for a notebook."""
    rows, notes = _rows(model, layers)
    return block(_title(model), table(rows, header=_HEADER, right=_NUMBERS), preformatted(notes))


def _bytes(dtype: str) -> int:
    """Bytes of one element; the dtype's name ends in its bits in every library."""
    return int("".join(filter(str.isdigit, dtype))) // 8


def _readable(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
