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
    def op(self):
        return f"conv{self.ndim}d{'_transpose' if self.transposed else ''}"

    @property
    def strides(self):
        return self.settings["strides"]

    @property
    def dilations(self):
        return self.settings["dilation_rate"]


def mostly(strategy, rarely):
    """One of `rarely` in about one draw of twenty."""
    return st.integers(0, 19).flatmap(lambda n: rarely if n == 7 else strategy)


@st.composite
def paddings(draw, ndim, transposed):
    names = ["valid", "same", "same_lower", "SAME"]
    if ndim == 1 and not transposed:
        names.append("causal")
    crop = mostly(st.integers(0, 1), st.integers(2, 5))
    pair = st.tuples(crop, crop)
    options = [st.sampled_from(names), st.sampled_from(names), crop, st.tuples(*[pair] * ndim)]
    options.append(pair if ndim == 1 else st.tuples(*[crop] * ndim))
    return draw(st.one_of(options))


@st.composite
def cases(
    draw, ndims=(1, 1, 2, 3), transposed=(True, False), most_dilation=3, most_depth=3, groups=(1, 1, 2, 3, 8)
):
    """A call whose exact result is of integers that every dtype of the design holds."""
    ndim = draw(st.sampled_from(ndims))
    transposed = draw(st.sampled_from(transposed))
    longest, widest = _MOST[ndim]
    groups = draw(st.sampled_from(groups))
    width, depth = draw(st.integers(1, 3)), draw(st.integers(1, most_depth))
    taps = draw(st.tuples(*[st.integers(1, widest)] * ndim))
    strides = draw(st.tuples(*[st.integers(1, 5)] * ndim))
    dilations = draw(st.tuples(*[st.integers(1, most_dilation)] * ndim))
    # A forward kernel that is longer than its input is refused: rarely worth a draw.
    least = [1 if transposed else (k - 1) * d + 1 for k, d in zip(taps, dilations, strict=True)]
    lengths = draw(
        st.tuples(*(mostly(st.integers(n, max(n, longest)), st.integers(0, longest)) for n in least))
    )
    samples = draw(mostly(st.integers(1, 3), st.just(0)))
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
        return rng.integers(-4, 5, shape).astype(np.float64)

    return Case(
        transposed,
        ndim,
        integers(samples, *lengths, depth * groups),
        integers(*taps, *inner),
        integers(width * groups) if draw(st.booleans()) else None,
        groups,
        settings,
    )
