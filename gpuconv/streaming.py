"""Convolutions of a signal that comes in pieces: what is ready comes out, as if the whole had been there.

Each convolution keeps its halo, the last input rows that future outputs read, and runs its op on the halo
and the chunk with the crops that select the newly complete outputs. An output sample is made once, by one op,
bias and activation included: no sums of outputs are kept.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, TypeAlias

import numpy as np

from gpuconv._streaming_convolution import LONG, Convolution, State, leaves, of_layer, of_plan
from gpuconv._typing import Array
from gpuconv.geometry import integer
from gpuconv.layers import Layer
from gpuconv.namespace import device_of, dtype_name, dtype_named, library, like, to_numpy
from gpuconv.ops import Plan

__all__ = ["Stream", "stream"]

_Parts: TypeAlias = list[Layer | Convolution]


class Stream:
    """A layer, model or plan that takes its input in chunks, made by `stream`. One thread uses it at a time.

    A stream can be pickled and copied, wherever in a signal it is; a deep copy has layers of its own.

    Attributes
    ----------
    rate : fractions.Fraction
        Output samples per input sample.
    latency : int
        In input samples: when input sample ``floor(n / rate) + latency`` was pushed, output sample n is out.
    output_latency : int
        In output samples: of L input samples, at least ``floor(L * rate) - output_latency`` are out.

    Examples
    --------
    >>> import numpy as np
    >>> import gpuconv
    >>> layer = gpuconv.layers.Conv1DTranspose(1, 3, 2, kernel_initializer="ones", dtype="float64")
    >>> stream = gpuconv.stream(layer)
    >>> x = np.array([1.0, 10.0, 100.0, 1000.0]).reshape(1, 4, 1)  # samples, length, channels
    >>> for y in (stream.push(x[:, :3]), stream.push(x[:, 3:]), stream.flush()):
    ...     print(y.ravel())
    [  1.   1.  11.  10. 110. 100.]
    [1100. 1000.]
    [1000.]
    """

    def __init__(self, parts: _Parts, model: Layer | Plan, length: int | None) -> None:
        self._parts = parts
        self._made_by = functools.partial(stream, length=length), (model,)
        self._states: list[State] = []
        self._kind: tuple[Any, ...] | None = None  # of the chunks; None where the next one decides
        self._finished = False
        self._convolutions = [part for part in parts if isinstance(part, Convolution)]
        self._up = math.prod(c.axis.stride for c in self._convolutions if c.transposed)
        self._down = math.prod(c.axis.stride for c in self._convolutions if not c.transposed)
        self.rate = Fraction(self._up, self._down)
        self.reset()

    def push(self, chunk: Array) -> Array:
        """Take the next input samples, and return the output samples that they complete.

        Parameters
        ----------
        chunk : array
            As the layer or plan takes it, of any length, 0 included. All chunks of a signal are alike but for
            their length: in library, device, dtype, samples and channels.

        Returns
        -------
        array
            As the layer or plan makes it; of length 0 where nothing is ready.

        Raises
        ------
        ValueError, TypeError
            If the chunk fits neither the layer nor the chunks before, or after `flush`. Nothing is computed
            then, and the state stays.
        """
        self._check_unfinished("push")
        kind, states = self._kind_of(chunk), self._states
        if self._kind is None:
            states = self._adopted(chunk)
        elif kind != self._kind:
            # Another library or dtype is a wrong type, another device or shape a wrong value.
            raise (TypeError if kind[:2] != self._kind[:2] else ValueError)(
                f"Expected chunks alike but for their length: {_told(self._kind)}. Received {_told(kind)}. "
                "reset() begins another signal."
            )
        y, states = self._through(states, chunk, last=False)
        self._states, self._kind = states, kind
        return y

    def flush(self) -> Array:
        """Return what is left and end the signal; `reset` begins another.

        Returns
        -------
        array
            The tail, without what the right crop takes, with the zeros that are appended.

        Raises
        ------
        ValueError
            If nothing was pushed, if it was flushed before, or if the op refuses a signal of this length. The
            state stays.
        """
        self._check_unfinished("flush")
        first = self._convolutions[0]
        if self._states[0].halo is None:
            raise ValueError(
                "Expected a chunk before flush, which tells library and shape. Received none. Push one, of "
                "length 0 for an empty signal."
            )
        self.output_length(self._states[0].received)  # refuses a length that cannot be
        y, self._states = self._through(self._states, first.cut(self._states[0].halo, 0, 0), last=True)
        self._finished = True
        return y

    def reset(self) -> None:
        """Forget the signal: the next chunk is the first of another."""
        self._states = [State() for _ in self._convolutions]
        self._kind = None
        self._finished = False

    def output_length(self, length: int) -> int:
        """Output samples, the tail included, of a signal of `length` input samples.

        Raises
        ------
        ValueError, TypeError
            As the op, if it refuses the length; if it is not the planned one and is padded otherwise.
        """
        length = integer("length", length, 0)
        for convolution in self._convolutions:
            length = convolution.total(length)
        return length

    @property
    def latency(self) -> int:
        """Input samples between an output sample's time and the one that completes it."""
        worst = 0
        for n in range(self._up):  # after which all repeats
            row = n
            for convolution in reversed(self._convolutions):
                row = convolution.completing(row)
            worst = max(worst, row - n * self._down // self._up)
        return worst

    @property
    def output_latency(self) -> int:
        """Output samples that are held back at most."""
        worst = 0
        for more in range(self._down):  # after which all repeats
            received = made = LONG * self._down + more
            for convolution in self._convolutions:
                # At the start, a padding that lets outputs run ahead of their inputs does not.
                made = min(convolution.ready(made), convolution.ready(made + convolution.lag))
            worst = max(worst, received * self._up // self._down - made)
        return worst

    @property
    def state(self) -> dict[str, Any]:
        """The signal so far, as NumPy arrays and integers, for pickle and `numpy.savez`; without weights.

        Setting it goes on from there, in this stream or another of the same layers, on arrays of any library.

        Raises
        ------
        ValueError, TypeError
            On setting: if it is no state, or that of another geometry. The stream's own state stays.
        """
        state: dict[str, Any] = {"finished": int(self._finished)}
        for number, (part, (received, halo)) in enumerate(zip(self._convolutions, self._states, strict=True)):
            state |= {f"geometry_{number}": part.geometry, f"received_{number}": received}
            if halo is not None:
                state[f"halo_{number}"] = np.array(to_numpy(halo))
        return state

    @state.setter
    def state(self, state: Mapping[str, Any]) -> None:
        if not isinstance(state, Mapping):
            raise TypeError(f"Expected a state, a mapping. Received {type(state).__name__}.")
        names = set(self.state) | {f"halo_{number}" for number in range(len(self._convolutions))}
        least = {name for name in names if not name.startswith("halo")}
        if not least <= set(state) <= names:
            raise ValueError(f"Expected a state with the keys {sorted(names)}. Received {sorted(state)}.")
        states = [_restored(part, number, state) for number, part in enumerate(self._convolutions)]
        if len({kept.halo is None for kept in states}) > 1:
            raise ValueError(f"Expected a halo of every convolution, or none. Received {sorted(state)}.")
        self._finished = bool(integer("finished", np.asarray(state["finished"]).item(), 0))
        self._states, self._kind = states, None

    def __reduce__(self) -> tuple[Any, ...]:
        return *self._made_by, self.state

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.state = state

    def _check_unfinished(self, what: str) -> None:
        if self._finished:
            raise ValueError(f"Expected reset() before {what}. Received a stream that is flushed.")

    def _kind_of(self, chunk: Array) -> tuple[Any, ...]:
        """What the chunks of a signal have in common: library, dtype, device, shape but for the length."""
        owner = library(chunk)
        if chunk.ndim != 3:
            raise ValueError(
                f"Expected a chunk of 3 dimensions, length among them. Received shape {tuple(chunk.shape)}."
            )
        samples, *sizes = chunk.shape
        sizes[self._convolutions[0].time - 1] = "length"
        return owner, dtype_name(chunk.dtype), device_of(chunk), (samples, *sizes)

    def _adopted(self, chunk: Array) -> list[State]:
        """The states, beside the first chunk, after all parts have seen an empty one like it."""
        empty, states = self._convolutions[0].cut(chunk, 0, 0), iter(self._states)
        adopted = []
        for part in self._parts:
            if not isinstance(part, Convolution):
                empty = part(empty)
                continue
            received, halo = next(states)
            if halo is not None:
                if tuple(part.cut(halo, 0, 0).shape) != tuple(empty.shape):
                    raise ValueError(
                        "Expected chunks as before the state was saved: rows like those of shape "
                        f"{tuple(halo.shape)} for a convolution. Received {tuple(empty.shape)}."
                    )
                halo = like(halo, chunk)
            adopted.append(State(received, halo))
            empty = part.accept(empty)
        return adopted

    def _through(self, states: list[State], y: Array, *, last: bool) -> tuple[Array, list[State]]:
        """Give each part what the one before makes."""
        reached, remaining = [], iter(states)
        for part in self._parts:
            if isinstance(part, Convolution):
                y, state = part.step(next(remaining), y, last=last)
                reached.append(state)
            else:
                y = part(y)
        return y, reached


def _told(kind: tuple[Any, ...]) -> str:
    owner, dtype, device, sizes = kind
    return f"{owner} arrays of {dtype} on {device}, of shape ({', '.join(map(str, sizes))})"


def _restored(part: Convolution, number: int, state: Mapping[str, Any]) -> State:
    """What `state` says of a convolution, checked."""
    geometry, received = np.asarray(state[f"geometry_{number}"]), np.asarray(state[f"received_{number}"])
    if not np.array_equal(geometry, part.geometry):
        raise ValueError(
            f"Expected the state of a stream whose convolution {number} has kernel, strides, dilation, crop "
            f"and lag of {part.geometry.tolist()}. Received {geometry.tolist()}."
        )
    count = integer(f"received_{number}", received.item(), 0)
    if f"halo_{number}" not in state:
        if count:
            raise ValueError(f"Expected halo_{number} with received_{number}={count}. Received none.")
        return State()
    halo = np.array(state[f"halo_{number}"])
    if halo.dtype.kind == "V" and part.dtype == "bfloat16" and halo.dtype.itemsize == 2:
        halo = halo.view(dtype_named(np, "bfloat16"))  # numpy.savez forgets which type of two bytes it was
    if dtype_name(halo.dtype) != part.dtype or halo.ndim != 3 or part.length_of(halo) != part.kept(count):
        raise ValueError(
            f"Expected halo_{number} of 3 dimensions and {part.dtype}, of length {part.kept(count)} for "
            f"received_{number}={count}. Received {dtype_name(halo.dtype)} of shape {halo.shape}."
        )
    kernel = part.kernel()
    return State(count, halo if kernel is None else like(halo, kernel))


def stream(model: Layer | Plan, *, length: int | None = None) -> Stream:
    """Prepare a convolution over one axis, time, for an input that comes in chunks.

    What the chunks give, `Stream.flush` included, is together what `model` makes of the whole input.

    Parameters
    ----------
    model : Layer or Plan
        A `gpuconv.layers.Conv1DTranspose` or `gpuconv.layers.Conv1D`, a `gpuconv.layers.Sequential` of these
        with Activation and Dropout between, or a plan of `gpuconv.conv1d_transpose` or `gpuconv.conv1d`. A
        layer is called with the weights that it has when a chunk comes.
    length : int, optional
        Input samples of the whole signal, for a padding that depends on it, as "same" does in most forward
        convolutions with strides. (A plan has the length that it was planned for.) A signal of another
        length with the same padding is taken too; `Stream.flush` refuses others.

    Returns
    -------
    Stream

    Raises
    ------
    NotImplementedError
        For 2 or 3 spatial axes, and for layers of your own: what they keep is not known here.
    ValueError
        For an activation that is not elementwise, a padding that depends on a length that is not given,
        layers of two data formats, and a model without a convolution.
    TypeError
        If it is neither layer nor plan.

    Examples
    --------
    >>> import numpy as np
    >>> import gpuconv
    >>> from gpuconv import layers
    >>> model = layers.Sequential([layers.Conv1D(4, 5, 2, "causal"), layers.Conv1DTranspose(1, 4, 2, 1)])
    >>> stream = gpuconv.stream(model)
    >>> x = np.random.default_rng(0).standard_normal((1, 1000, 1)).astype(np.float32)
    >>> y = [stream.push(x[:, n : n + 64]) for n in range(0, 1000, 64)] + [stream.flush()]
    >>> bool(np.allclose(np.concatenate(y, axis=1), model(x), atol=1e-6)), stream.latency
    (True, 1)
    """
    if length is not None:
        length = integer("length", length, 0)
    if isinstance(model, Plan):
        return Stream([of_plan(model)], model, length)
    if not isinstance(model, Layer):
        raise TypeError(f"Expected a layer, a model or a plan. Received {type(model).__name__}.")
    parts: _Parts = []
    come = length
    for layer in leaves(model):
        part = of_layer(layer, come)
        if isinstance(part, Convolution) and come is not None:
            come = part.total(come)
        parts.append(part)
    convolutions = [part for part in parts if isinstance(part, Convolution)]
    if not convolutions:
        raise ValueError(f"Expected a model with a convolution. Received {model!r}: call it on every chunk.")
    if len({part.time for part in convolutions}) > 1:
        raise ValueError(f"Expected layers of one data_format: time is one axis. Received {model!r}.")
    return Stream(parts, model, length)
