"""Hypothesis strategies: everything that a convolution can be asked for, in small sizes."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

_MOST = {1: (12, 7), 2: (5, 4), 3: (3, 3)}  # longest length and kernel for so many axes


@dataclass
class Case:
    """One call: `settings` as the op takes them; arrays channels_last, of small integers."""

    transposed: bool
    ndim: int
    x: np.ndarray
    kernel: np.ndarray
    bias: np.ndarray | None
    groups: int
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def strides(self):
        return self.settings["strides"]

    @property
    def dilations(self):
        return self.settings["dilation_rate"]


@st.composite
def paddings(draw, ndim, transposed):
    names = ["valid", "same", "same_lower", "SAME"]
    if ndim == 1 and not transposed:
        names.append("causal")
    pair = st.tuples(st.integers(0, 4), st.integers(0, 4))
    options = [st.sampled_from(names), st.integers(0, 3), st.tuples(*[pair] * ndim)]
    options.append(pair if ndim == 1 else st.tuples(*[st.integers(0, 3)] * ndim))
    return draw(st.one_of(options))


@st.composite
def cases(draw, ndims=(1, 1, 2, 3), values=4):
    """A call whose exact result is an integer that every dtype of the design holds."""
    ndim = draw(st.sampled_from(ndims))
    transposed = draw(st.booleans())
    longest, widest = _MOST[ndim]
    groups = draw(st.sampled_from([1, 1, 2, 3, 8]))
    width, depth = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    lengths = draw(st.tuples(*[st.integers(0, longest)] * ndim))
    taps = draw(st.tuples(*[st.integers(1, widest)] * ndim))
    strides = draw(st.tuples(*[st.integers(1, 5)] * ndim))
    dilations = draw(st.tuples(*[st.integers(1, 3)] * ndim))
    settings = {
        "strides": strides,
        "dilation_rate": dilations,
        "padding": draw(paddings(ndim, transposed)),
    }
    if transposed and draw(st.booleans()):
        extras = [st.integers(0, max(s, d) - 1) for s, d in zip(strides, dilations, strict=True)]
        settings["output_padding"] = draw(st.tuples(*extras))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    inner = (width, depth * groups) if transposed else (depth, width * groups)

    def integers(*shape):
        return rng.integers(-values, values + 1, shape).astype(np.float64)

    return Case(
        transposed,
        ndim,
        integers(draw(st.integers(0, 3)), *lengths, depth * groups),
        integers(*taps, *inner),
        integers(width * groups) if draw(st.booleans()) else None,
        groups,
        settings,
    )
