"""One convolution of a stream: which rows it keeps, which outputs they make, and how its op makes them.

With stride s, reach e = (kernel - 1) * dilation + 1 and left crop l, output n of a transposed convolution
reads the input rows (n + l - e + 1) / s to (n + l) / s, that of a forward one n*s - l to n*s + e - 1 - l.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from gpuconv import activations
from gpuconv._typing import Array
from gpuconv.geometry import AxisGeometry, conv_axes, crop_options, transpose_axes
from gpuconv.layers import Activation, Dropout, Input, Layer, Sequential
from gpuconv.layers.base_conv import BaseConv
from gpuconv.namespace import (
    array_namespace,
    astype,
    detached,
    device_of,
    dtype_name,
    dtype_named,
    zero_padded,
)
from gpuconv.ops import Plan, conv1d, conv1d_transpose
from gpuconv.ops import plan as prepare

__all__ = ["LONG", "Convolution", "State", "leaves", "of_layer", "of_plan"]

#: So many strides that crops never take all of them: what holds for every length is read off here.
LONG = 2**40
#: Plans that a stream of a plan keeps: chunks of one size have few shapes once the signal is under way.
_PLANS = 4
#: As many, for each phase that a stride may begin in.
_TURNS = 256


class State(NamedTuple):
    """Of one convolution: how many input rows there were, and the last of them; None before the first."""

    received: int = 0
    halo: Array | None = None


class Turn(NamedTuple):
    """What a convolution does with a chunk: integers, alike for chunks alike.

    Of the halo, the chunk and as many `zeros`, the op reads `begin` to `end` with these crops; the next halo
    begins at `kept`.
    """

    begin: int
    end: int
    zeros: int
    crops: dict[str, Any]
    kept: int


@dataclass(frozen=True)
class Convolution:
    """One convolution, as far as it stays the same while rows come in.

    `make` runs the op on rows with other crops; `accept` refuses what the layer or plan does not take, given
    an empty array; `kernel` is None until the layer is built.
    `planned` is a length whose crops are those of `sizes`, None where they are those of every length.
    """

    transposed: bool
    make: Callable[..., Array]
    sizes: dict[str, Any]
    options: dict[str, Any]
    dtype: str
    accept: Callable[[Array], Array]
    kernel: Callable[[], Array | None]
    weights: Callable[[Array], tuple[Array, Array | None]]
    planned: int | None = None

    @functools.cached_property
    def axis(self) -> AxisGeometry:
        """The geometry but for its lengths, and but for the right crop of a forward convolution."""
        return self.axis_for(LONG * self.sizes["strides"] if self.planned is None else self.planned)

    def axis_for(self, length: int) -> AxisGeometry:
        """The geometry for so many input rows in all."""
        if self.planned is not None and length and (length - self.planned) % self.sizes["strides"]:
            raise ValueError(
                f"Expected a signal of {self.planned} samples, as planned, or of a multiple of "
                f"strides={self.sizes['strides']} more or fewer: others are padded otherwise. "
                f"Received {length} samples."
            )
        return _axis(self.transposed, length, self.sizes)

    def total(self, length: int) -> int:
        """Output samples that `length` input rows make in all."""
        axis = self.axis_for(length)
        return axis.out_length if self.transposed else axis.in_length

    @functools.cached_property
    def lag(self) -> int:
        """What is held back: output samples of a transposed convolution, else input rows."""
        axis = self.axis
        if self.transposed:  # what lies left of output 0 is never made, and what the right crop may yet take
            return axis.crop_left + max(0, axis.stride - axis.reach + axis.crop_right)
        return axis.reach - 1 - axis.crop_left

    def ready(self, received: int) -> int:
        """Output samples that no later row changes, and that no end of the signal takes away."""
        if not received:
            return 0
        if self.transposed:
            return max(0, received * self.axis.stride - self.lag)
        return max(0, (received - 1 - self.lag) // self.axis.stride + 1)

    def completing(self, n: int) -> int:
        """The input row that completes output `n`."""
        if self.transposed:
            return (n + self.lag) // self.axis.stride
        return n * self.axis.stride + max(0, self.lag)

    def first_row(self, n: int, received: int) -> int:
        """The first row that output `n` reads, of those that there are.

        The rows of a forward convolution are counted from the zeros on the left. A transposed one keeps a row
        at least: outputs that no row reaches are made beside one.
        """
        axis = self.axis
        if not self.transposed:
            return min(n * axis.stride, received + axis.crop_left)
        full = n + axis.crop_left
        return max(0, min(-((axis.reach - 1 - full) // axis.stride), full // axis.stride, received - 1))

    def kept(self, received: int) -> int:
        """Rows of the halo."""
        zeros = 0 if self.transposed else self.axis.crop_left
        return zeros + received - self.first_row(self.ready(received), received)

    def step(self, state: State, chunk: Array, *, last: bool) -> tuple[Array, State]:
        """Take a chunk and make what becomes ready, or all that is left."""
        chunk = chunk if dtype_name(chunk.dtype) == self.dtype else astype(chunk, self.dtype)
        halo = self.zeros(chunk, self.kept(0)) if state.halo is None else state.halo
        rows = self.joined(halo, chunk) if self.length_of(halo) else chunk
        received, length = state.received, self.length_of(chunk)
        turn = self.turn(received, length, last=True) if last else self.remembered(received, length)
        read = zero_padded(rows, self.time, 0, turn.zeros) if turn.zeros else rows
        y = self.make(self.cut(read, turn.begin, turn.end), **turn.crops)
        # A copy: the caller may write into the chunk, and a slice would keep all of it alive, as would what
        # torch remembers of it.
        kept = detached(astype(self.cut(rows, turn.kept, None), self.dtype))
        return y, State(received + length, kept)

    def turn(self, received: int, length: int, *, last: bool = False) -> Turn:
        """What is done when `length` rows come after `received`."""
        made, after = self.ready(received), received + length
        until = self.total(after) if last else self.ready(after)
        first = self.first_row(made, received)
        kept = self.first_row(self.ready(after), after) - first
        if until == made:
            return Turn(0, 0, 0, {"padding": 0}, kept)
        axis = self.axis
        if not self.transposed:
            begin, end = made * axis.stride, (until - 1) * axis.stride + axis.reach
            zeros = max(0, end - after - axis.crop_left)
            return Turn(begin - first, end - first, zeros, {"padding": 0}, kept)
        begin = self.first_row(made, after)
        end = min(after, (until - 1 + axis.crop_left) // axis.stride + 1)
        left = made + axis.crop_left - begin * axis.stride
        right = (end - begin - 1) * axis.stride + axis.reach - left - (until - made)
        return Turn(begin - first, end - first, 0, crop_options(left, right), kept)

    def remembered(self, received: int, length: int) -> Turn:
        """`turn`, which repeats once the signal is under way: then only the phase of the stride counts."""
        settled, period = self.settled
        return self.turns(min(received, settled + (received - settled) % period), length)

    @functools.cached_property
    def settled(self) -> tuple[int, int]:
        """So many rows that the signal's start is far, and after how many more all is alike."""
        return abs(self.lag) + self.axis.reach, 1 if self.transposed else self.axis.stride

    @functools.cached_property
    def turns(self) -> Callable[[int, int], Turn]:
        return functools.lru_cache(maxsize=_TURNS)(self.turn)

    @property
    def time(self) -> int:
        """The axis that is time."""
        return 1 if self.options["data_format"] == "channels_last" else 2

    def length_of(self, rows: Array) -> int:
        return int(rows.shape[self.time])

    def cut(self, rows: Array, begin: int, end: int | None) -> Array:
        return rows[:, begin:end, ...] if self.time == 1 else rows[..., begin:end]

    def joined(self, before: Array, after: Array) -> Array:
        return array_namespace(rows=before).concat([before, after], axis=self.time)

    def zeros(self, rows: Array, number: int) -> Array:
        """So many rows beside `rows`."""
        shape = list(rows.shape)
        shape[self.time] = number
        xp = array_namespace(rows=rows)
        return xp.zeros(tuple(shape), dtype=dtype_named(xp, self.dtype), device=device_of(rows))

    @property
    def geometry(self) -> np.ndarray:
        """What a saved state has in common with the stream that it is restored to."""
        axis = self.axis
        return np.array([self.transposed, axis.kernel, axis.stride, axis.dilation, axis.crop_left, self.lag])


def _axis(transposed: bool, length: int, sizes: dict[str, Any]) -> AxisGeometry:
    (axis,) = (transpose_axes if transposed else conv_axes)((length,), **sizes)
    assert axis is not None  # which it is for a length of None alone
    return axis


def leaves(model: Layer) -> Iterator[Layer]:
    """The layers of a model in their order."""
    if not isinstance(model, Sequential):
        yield model
    elif type(model).call is not Sequential.call:
        raise NotImplementedError(_foreign(model))
    else:
        for layer in model.layers:
            yield from leaves(layer)


def _foreign(layer: Layer) -> str:
    return (
        f"Expected Conv1DTranspose, Conv1D, Activation, Dropout or a Sequential of them. Received {layer!r}: "
        "which inputs it must keep is not known here. Stream the layers before and after it."
    )


def of_layer(layer: Layer, length: int | None) -> Layer | Convolution:
    """What a stream makes of a layer in a signal of `length`: itself where it treats every element alone."""
    if isinstance(layer, BaseConv) and layer.ndim > 1:
        raise NotImplementedError(_one_axis(repr(layer), layer.ndim))
    overridden = isinstance(layer, BaseConv) and (type(layer).call, type(layer).convolution_op) != (
        BaseConv.call,
        BaseConv.convolution_op,
    )
    if overridden or not (isinstance(layer, BaseConv) or type(layer) in (Activation, Dropout, Input)):
        raise NotImplementedError(_foreign(layer))
    activation = getattr(layer, "activation", None)
    if activation is not None and not activations.is_elementwise(activation):
        raise ValueError(_not_elementwise(activation))
    if not isinstance(layer, BaseConv):
        return layer
    sizes: dict[str, Any] = {
        "kernel_size": layer.kernel_size[0],
        "strides": layer.strides[0],
        "padding": layer.padding,
        "dilation_rate": layer.dilation_rate[0],
    }
    if layer.transposed:
        sizes["output_padding"] = layer.output_padding  # type: ignore[attr-defined]
    options = {"data_format": layer.data_format, "groups": layer.groups, "activation": activation}
    steps = {"strides": layer.strides, "dilation_rate": layer.dilation_rate}
    op: Callable[..., Array] = conv1d_transpose if layer.transposed else conv1d
    convolution = layer

    def make(rows: Array, **crops: Any) -> Array:
        return op(rows, *weights(rows), **options, **steps, **crops)

    def weights(rows: Array) -> tuple[Array, Array | None]:
        bias = convolution.weight("bias", rows) if convolution.use_bias else None
        return convolution.weight("kernel", rows), bias

    return Convolution(
        layer.transposed,
        make,
        sizes,
        options,
        layer.dtype,
        layer,
        lambda: convolution.kernel if convolution.built else None,
        weights,
        _length_that_decides(layer, sizes, length),
    )


def _length_that_decides(layer: BaseConv, sizes: dict[str, Any], length: int | None) -> int | None:
    """`length` where the left crop depends on it, else None."""
    stride = sizes["strides"]
    # The padding of "same" is smallest for a length of whole strides, and largest for one of a sample more.
    shortest, longest = (_axis(layer.transposed, LONG * stride + more, sizes) for more in (0, 1))
    if shortest.crop_left == longest.crop_left:
        return None
    if length is None:
        raise ValueError(
            f"Expected a padding that the length of the signal does not decide. Received {layer!r}. Pass "
            "length=, or a layer with padding='causal', 'valid' or a (left, right) pair."
        )
    return length


def of_plan(plan: Plan) -> Convolution:
    """The plan's op with the crops of its geometry, for every length that has them."""
    job, weights = plan.job, plan.weights
    if len(job.geometry.axes) > 1:
        raise NotImplementedError(_one_axis(repr(plan), len(job.geometry.axes)))
    if job.whole is not None:
        raise ValueError(_not_elementwise(job.whole))
    (axis,) = job.geometry.axes
    length = axis.in_length if job.transposed else axis.out_length
    if not length:
        raise ValueError(f"Expected a plan for an input that is not empty. Received {plan!r}.")
    sizes: dict[str, Any] = {
        "kernel_size": axis.kernel,
        "strides": axis.stride,
        "dilation_rate": axis.dilation,
    }
    if job.transposed:
        sizes |= crop_options(axis.crop_left, axis.crop_right)
    else:
        # It may leave the last samples unread, which counts as less than no padding.
        sizes["padding"] = (axis.crop_left, max(0, axis.crop_right))
    options: dict[str, Any] = {
        "data_format": "channels_last" if job.channels_last else "channels_first",
        "groups": job.geometry.groups,
        "activation": job.fused,
        "precision": job.precision,
    }
    steps: dict[str, Any] = {"strides": axis.stride, "dilation_rate": axis.dilation}
    op: Callable[..., Array] = conv1d_transpose if job.transposed else conv1d
    held: Any = weights["kernel"], weights.get("bias")

    def accept(empty: Array) -> Array:
        if dtype_name(empty.dtype) != job.dtype:
            raise TypeError(
                f"Expected chunks of {job.dtype}, as planned. Received {dtype_name(empty.dtype)}."
            )
        return op(empty, *held, **options, **steps)

    @functools.lru_cache(maxsize=_PLANS)
    def prepared(shape: tuple[int, ...], **crops: Any) -> Plan:
        return prepare(op, shape, held[0], bias=held[1], **options, **steps, **crops)

    def make(rows: Array, **crops: Any) -> Array:
        return prepared(tuple(rows.shape), **crops)(rows)

    planned = None if job.transposed or axis.stride == 1 else length
    return Convolution(
        job.transposed, make, sizes, options, job.dtype, accept, lambda: held[0], lambda _: held, planned
    )


def _one_axis(received: str, ndim: int) -> str:
    return f"Expected a convolution along one axis, time. Received {received}, along {ndim}: run it whole."


def _not_elementwise(activation: Any) -> str:
    return (
        "Expected an activation of gpuconv.activations that treats every element alone. Received "
        f"{getattr(activation, '__name__', activation)!r}. Leave it away, and apply it to what comes out."
    )
