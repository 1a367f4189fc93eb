"""Which input samples an output sample depends on, through one layer or many."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from fractions import Fraction

from gpuconv import activations
from gpuconv._activations_along_axis import ALONG_AN_AXIS
from gpuconv._display import block, ends, table
from gpuconv.config import image_data_format
from gpuconv.explanation import index
from gpuconv.geometry import integer
from gpuconv.layers import Activation, Dropout, Input, Layer, Sequential
from gpuconv.layers.base_conv import BaseConv
from gpuconv.layers.sequential import leaves

__all__ = ["ENDLESS", "ReceptiveField", "receptive_field"]

#: Samples; geometries are integers, so this costs nothing.
ENDLESS = 2**40


@dataclass(frozen=True, slots=True)
class ReceptiveField:
    """Which input samples an output sample sees, away from the ends; made by `receptive_field`.

    Attributes
    ----------
    title : str
        The layer or the model.
    inputs : tuple of tuple of int
        For output samples 0, 1, ... of one period, the input samples that they depend on, as if there were
        samples before 0. The period is that of the phases of transposed convolutions.
    jump : fractions.Fraction
        Input samples from one output sample to the next, on average.

    Examples
    --------
    >>> from gpuconv import layers, report
    >>> print(report.receptive_field(layers.Conv1DTranspose(1, 3, 2, name="up")))
    up (Conv1DTranspose): receptive field of 2 input samples, jump 1/2, offset -1
    y[2t]     x[t - 1] to x[t]
    y[2t + 1] x[t]
    """

    title: str
    inputs: tuple[tuple[int, ...], ...]
    jump: Fraction

    @property
    def size(self) -> int:
        """Input samples from the first to the last that an output sample sees, the most of all phases."""
        return max((seen[-1] - seen[0] + 1 for seen in self.inputs if seen), default=0)

    @property
    def offset(self) -> int | None:
        """The first input sample that output sample 0 sees, negative in the padding; None if it sees none."""
        return self.inputs[0][0] if self.inputs[0] else None

    def seen(self, n: int) -> tuple[int, ...]:
        """The input samples that output sample `n` sees, some of which may be outside of the input."""
        n = integer("n", n, -sys.maxsize)
        period, phase = divmod(n, len(self.inputs))
        shift = int(period * len(self.inputs) * self.jump)
        return tuple(i + shift for i in self.inputs[phase])

    def _lines(self) -> list[tuple[str, str]]:
        ours = len(self.inputs)
        theirs = int(ours * self.jump)
        lines = []
        for phase in ends(range(ours), 9):
            seen = [] if phase is None else [f"x[{index(theirs, i)}]" for i in self.inputs[phase]]
            text = " to ".join(dict.fromkeys([seen[0], seen[-1]])) if seen else "nothing"
            lines.append(("…", "") if phase is None else (f"y[{index(ours, phase)}]", text))
        return lines

    def _headline(self) -> str:
        return (
            f"{self.title}: receptive field of {self.size} input samples, "
            f"jump {self.jump}, offset {self.offset}"
        )

    def __str__(self) -> str:
        width = max(len(label) for label, _ in self._lines())
        return "\n".join(
            [self._headline(), *(f"{label:{width}} {text}".rstrip() for label, text in self._lines())]
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return block(self._headline(), table(self._lines(), header=("output", "sees")))


def receptive_field(model: Layer, length: int | None = None, axis: int = 0) -> ReceptiveField:
    """Which input samples one output sample of a layer or a `gpuconv.layers.Sequential` depends on.

    Without transposed convolutions an output sample sees ``1 + sum of (k - 1) d times the strides before``
    input samples from the first to the last, and the jump is the product of the strides; a transposed
    convolution divides it by its own, and makes phases that see different numbers of samples.

    Source of the definitions: Araujo, Norris, Sim, "Computing Receptive Fields of Convolutional Neural
    Networks", Distill, 2019.

    Parameters
    ----------
    model : Layer
        Convolutions, activations, dropout, or a Sequential of these.
    length : int, optional
        Input samples along `axis`. Needed for a forward convolution with strides and "same" padding, which
        pads by it, but for a Sequential that knows its input's length.
    axis : int, default 0
        Which spatial axis.

    Returns
    -------
    ReceptiveField

    Raises
    ------
    TypeError
        For a layer of one's own, which may depend on anything.
    ValueError
        If there is no such axis, or `length` is needed or too short, or for an activation that makes a sample
        from others: softmax and the like where channels are first, or a callable of one's own.

    Examples
    --------
    >>> from gpuconv import layers, report
    >>> model = layers.Sequential([layers.Conv1D(8, 5, 2), layers.Conv1D(8, 3), layers.Activation("relu")])
    >>> field = report.receptive_field(model)
    >>> field.size, field.jump, field.offset, field.seen(10)[0]
    (9, Fraction(2, 1), 0, 20)
    """
    axis = integer("axis", axis, 0)
    convolutions = _convolutions(model)
    if length is None and isinstance(model, Sequential) and model.built and convolutions:
        lengths = (
            model.input_shape[1:-1]
            if convolutions[0].data_format == "channels_last"
            else model.input_shape[2:]
        )
        length = lengths[axis] if axis < len(lengths) else None
    steps, reach = [], ENDLESS if length is None else length
    for layer in convolutions:
        named = isinstance(layer.padding, str) and layer.padding.startswith("same")
        explanation = layer.explain(reach, axis)
        if length is None and named and not layer.transposed and explanation.axis.stride > 1:
            raise ValueError(
                f"Expected length for layer {layer.name!r}, which pads by it. Received length=None."
            )
        reach = explanation.out_length
        steps.append(explanation)
    jump, period = Fraction(1), 1
    for step in reversed(steps):
        jump = jump / step.axis.stride if step.transposed else jump * step.axis.stride
        period = math.lcm(period, jump.denominator)
    inputs = []
    for n in range(period):
        seen = {n}
        for step in reversed(steps):
            seen = {i for m in seen for i, _ in step.reads(m)}
        inputs.append(tuple(sorted(seen)))
    return ReceptiveField(f"{model.name} ({type(model).__name__})", tuple(inputs), jump)


def _convolutions(model: Layer) -> list[BaseConv]:
    """The convolutions of a model, whose other layers make each sample from that sample alone."""
    found: list[BaseConv] = []
    for layer in leaves(model):
        if isinstance(layer, BaseConv):
            found.append(layer)
        elif not isinstance(layer, Activation | Dropout | Input):
            raise TypeError(
                "Expected convolutions, Activation, Dropout, Input or a Sequential of these. "
                f"Received {layer!r}."
            )
        if isinstance(layer, BaseConv | Activation):
            _check_activation(layer, found[-1].data_format if found else image_data_format())
    return found


def _check_activation(layer: BaseConv | Activation, data_format: str) -> None:
    """Softmax and the like go along the last axis: over the channels of a sample, or over all samples."""
    over_channels = layer.activation in ALONG_AN_AXIS and data_format == "channels_last"
    if not over_channels and not activations.is_elementwise(layer.activation):
        raise ValueError(
            f"Expected activations that make a sample from that sample. Received {layer!r}, whose activation "
            f"may read others ({data_format}). Leave it out, or put channels last."
        )
