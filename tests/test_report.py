"""What people see: explanations, checkerboards, receptive fields, summaries, and the HTML of everything."""

import math
import re
import sys
import xml.etree.ElementTree as ElementTree
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given

import gpuconv
from gpuconv import report
from gpuconv.callbacks import History
from gpuconv.dialects.matlab import dlarray
from gpuconv.explanation import Explanation
from gpuconv.geometry import AxisGeometry
from gpuconv.layers import (
    Activation,
    Conv1D,
    Conv1DTranspose,
    Conv2D,
    Conv2DTranspose,
    Dropout,
    Input,
    Layer,
    Sequential,
)
from gpuconv.ops.shapes import geometry_of
from tests import oracle
from tests.strategies import cases


def reached(explanation):
    """Every (output sample, input sample, tap) that an explanation holds."""
    return {(n, *term) for n in range(explanation.out_length) for term in explanation.terms(n)}


def reached_in_loops(explanation):
    """The same, seen in the response to every sample alone of kernels of every tap alone."""
    axis, k = explanation.axis, explanation.axis.kernel
    x = np.eye(explanation.in_length)[..., None]
    taps = np.eye(k)[..., None] if explanation.transposed else np.eye(k)[:, None]
    run = oracle.conv_transpose if explanation.transposed else oracle.conv
    settings = (axis.stride,), (axis.dilation,), (axis.crop_left,), (explanation.out_length,)
    return {(int(n), int(i), int(j)) for i, n, j in np.argwhere(run(x, taps, *settings))}


def explained(case):
    """The explanation of every axis of a call of `tests.strategies`."""
    shapes = case.x.shape, case.kernel.shape
    geometry = geometry_of(case.transposed, case.ndim, *shapes, True, case.groups, **case.settings)
    return [Explanation(axis, case.transposed) for axis in geometry.axes]


def accepted(case):
    try:
        return explained(case)
    except ValueError:  # a kernel that is longer than its input, more cropped than there is
        return []


@given(cases())
def test_terms_are_those_of_the_plain_loops(case):
    for explanation in accepted(case):
        assert reached(explanation) == reached_in_loops(explanation)


@given(cases())
def test_cropped_and_appended_samples_complete_the_full_output(case):
    for explanation in accepted(case):
        before, after = explanation.cropped
        lost = sum(len(explanation.terms(n)) for n in (*before, *after))
        kept = sum(len(explanation.terms(n)) for n in range(explanation.out_length))
        if case.transposed:  # every input sample meets every tap once, somewhere
            assert kept + lost == explanation.in_length * explanation.axis.kernel
        assert not any(explanation.terms(n) for n in explanation.appended)
        for n in (before.start - 1, max(explanation.out_length, after.stop)):
            with pytest.raises(ValueError, match=f"Received n={n}"):
                explanation.terms(n)


def drawn(explanation):
    """What the text's picture shows: (row, column, tap, whether in brackets) by the places of the signs."""
    picture = str(explanation).split("\n\n")[2].splitlines()
    columns = {match.end(): int(match[0]) for match in re.finditer(r"\d+", picture[0])}
    shown = set()
    for line in picture[1:]:
        label = re.match(r" *[xy]\[(\d+)\] ", line)
        for match in re.finditer(r"(\(?)(\d+)", line[label.end() :]) if label else ():
            column = columns.get(match.end() + label.end())
            shown.add((int(label[1]), column, int(match[2]), bool(match[1])))
    return shown


@given(cases(ndims=(1,)))
def test_the_picture_shows_the_terms(case):
    for explanation in accepted(case):
        if explanation.axis.full_length > 20 or explanation.out_length > 25:  # then it is shortened
            continue
        shown = drawn(explanation)
        inside = {(row, column, tap) for row, column, tap, bracketed in shown if not bracketed}
        if case.transposed:
            assert inside == {(i, n, j) for n, i, j in reached(explanation)}
        else:
            assert inside == reached(explanation)
        assert all((column is None) == bracketed for _, column, _, bracketed in shown)


@given(cases())
def test_lines_are_short_and_html_is_well_formed(case):
    for explanation in accepted(case):
        assert max(map(len, str(explanation).splitlines())) <= 100
        parsed(explanation)


LAYERS = [
    Conv1DTranspose(1, 3, 2),
    Conv1DTranspose(1, 3, 2, output_padding=1),
    Conv1DTranspose(1, 2, 5),
    Conv1DTranspose(1, 3, 2, "same"),
    Conv1DTranspose(1, 4, 3, "same", 2),
    Conv1DTranspose(1, 4, 3, "same_lower"),
    Conv1DTranspose(1, 4, 3, "same_lower", 0),
    Conv1DTranspose(1, 5, 3, (1, 2)),
    Conv1DTranspose(1, 5, 3, 2, 1),
    Conv1DTranspose(1, 3, dilation_rate=4),
    Conv1D(1, 4, 3),
    Conv1D(1, 4, 3, "same"),
    Conv1D(1, 4, 3, "same_lower"),
    Conv1D(1, 3, 1, "causal", dilation_rate=2),
    Conv1D(1, 4, 3, (2, 1)),
]


@pytest.mark.parametrize("layer", LAYERS, ids=[f"{layer!r}" for layer in LAYERS])
def test_the_formula_makes_the_length(layer):
    """Both the formula with letters and that with numbers, on lengths that leave every remainder."""
    for length in range(9, 16):
        explanation = layer.explain(length)
        assert explanation.out_length == layer.compute_output_shape((None, length, 1))[1]
        facts = str(explanation).split("\n\n")[1].splitlines()
        formula, numbers, made = re.sub(r'^length +(padding ".*": )?', "", facts[0]).split(" = ")
        letters = {name: int(value) for name, value in re.findall(r"\b([Lsp]) = (\d+)", facts[1])}
        letters["e"] = int(re.search(r"e = .* = (\d+)", facts[1])[1])
        letters |= {"l": explanation.axis.crop_left}
        letters |= {"r": explanation.axis.crop_right + letters.get("p", 0)}
        functions = {"ceil": math.ceil, "max": max}
        assert int(made) == explanation.out_length
        assert eval(formula, functions, letters) == eval(numbers, functions) == explanation.out_length


def test_text_with_crops_on_both_sides():
    assert str(Conv1DTranspose(1, 4, 3, "same", 2, name="up").explain(3)) == (
        """\
up (Conv1DTranspose): 3 -> 8 samples

length  padding "same": (L - 1) * s + e % 2 + p = (3 - 1) * 3 + 4 % 2 + 2 = 8
        L = 3, s = 3 (stride), p = 2 (output_padding), e = (4 - 1) * 1 + 1 = 4 (reach of the taps)
crop    N = (L - 1) * s + e = 10; cropped: 1 on the left, 1 on the right
phases  y[3t]     = x[t]·w[1]
        y[3t + 1] = x[t]·w[2]
        y[3t + 2] = x[t + 1]·w[0] + x[t]·w[3]
        x[i] is 0 outside of 0 <= i < 3

    y     0  1  2  3  4  5  6  7
 x[0] (0) 1  2  3
 x[1]           0  1  2  3
 x[2]                    0  1  2 (3)
terms     1  1  2  1  1  2  1  1
(j stands for w[j], (j) is cropped)

cropped = x[0]·w[0]
y[0]    = x[0]·w[1]
y[1]    = x[0]·w[2]
y[2]    = x[1]·w[0] + x[0]·w[3]
y[3]    = x[1]·w[1]
y[4]    = x[1]·w[2]
y[5]    = x[2]·w[0] + x[1]·w[3]
y[6]    = x[2]·w[1]
y[7]    = x[2]·w[2]
cropped = x[2]·w[3]"""
    )


def test_text_of_gaps_and_appended_zeros():
    text = str(Conv1DTranspose(1, 1, 3, name="up").explain(2))
    assert (
        "\ncrop    N = (L - 1) * s + e = 4; cropped: none\n        2 zeros appended on the right, to" in text
    )
    assert text.endswith(
        """\
    y  0  1  2  3  4  5
 x[0]  0
 x[1]           0
terms  1  0  0  1  0  0
(j stands for w[j])

y[0] = x[0]·w[0]
y[1] = 0
y[2] = 0
y[3] = x[1]·w[0]
y[4] = 0 (appended)
y[5] = 0 (appended)"""
    )


def test_text_of_a_forward_convolution():
    assert str(Conv1D(1, 3, 2, (1, 0), name="down").explain(6)) == (
        """\
down (Conv1D): 6 -> 3 samples

length  (L + l + r - e) // s + 1 = (6 + 1 + 0 - 3) // 2 + 1 = 3
        L = 6, s = 2 (stride), e = (3 - 1) * 1 + 1 = 3 (reach of the taps)
zeros   1 before the first sample, 0 after the last
phases  y[t] = x[2t - 1]·w[0] + x[2t]·w[1] + x[2t + 1]·w[2]
        x[i] is 0 outside of 0 <= i < 6

    x     0  1  2  3  4  5
 y[0] (0) 1  2
 y[1]        0  1  2
 y[2]              0  1  2
(j stands for w[j], (j) meets a zero)

y[0] = 0·w[0] + x[0]·w[1] + x[1]·w[2]
y[1] = x[1]·w[0] + x[2]·w[1] + x[3]·w[2]
y[2] = x[3]·w[0] + x[4]·w[1] + x[5]·w[2]"""
    )
    assert "0 after the last; 1 sample at the end not read" in str(Conv1D(1, 3, 2).explain(6))


def test_long_ones_are_shortened_in_the_middle():
    lines = str(Conv1DTranspose(1, 1024, 256, (10, 3)).explain(480_000)).splitlines()
    assert max(map(len, lines)) <= 100
    assert len(lines) < 60
    phases = lines[
        lines.index("crop    N = (L - 1) * s + e = 122880768; cropped: 10 on the left, 3 on the right") :
    ]
    assert phases[5] == "        …"
    assert "(j stands for w[j], (j) is cropped, after … y counts from the end)" in lines
    assert "…              6 more, every 256 samples alike, as the phases say" in lines
    assert "…              122880740 more, every 256 samples alike, as the phases say" in lines
    assert lines[-4] == "y[122880754] = x[479999]·w[1020]"
    assert len(str(Conv1D(1, 1000, 1, "same").explain(48_000)).splitlines()) < 80
    many = str(Conv1D(1, 9).explain(100)).splitlines()
    assert many[-1] == "y[91] = x[91]·w[0] + x[92]·w[1] + … 6 more … + x[99]·w[8]"
    assert "…       77 more, all alike, as the phases say" in many


def test_columns_after_the_gap_count_from_the_end():
    picture = str(Conv1DTranspose(1, 16, 8, "same").explain(48_000)).split("\n\n")[2]
    assert picture == (
        """\
       y                   0   1   2   3   4   5   6   …  -6  -5  -4  -3  -2  -1
    x[0]  (0) (1) (2) (3)  4   5   6   7   8   9  10
    x[1]                                   0   1   2
       ⋮
x[47998]                                                  14  15
x[47999]                                                   6   7   8   9  10  11 (12)(13)(14)(15)
   terms                   1   1   1   1   2   2   2       2   2   1   1   1   1
(j stands for w[j], (j) is cropped, after … y counts from the end)"""
    )


def test_a_plan_and_an_empty_axis_can_be_explained():
    plan = gpuconv.plan("conv1d_transpose", (1, 5, 1), np.ones((3, 1, 1)), strides=2, padding="same")
    explanation = report.Explanation(plan.job.geometry.axes[0], plan.job.transposed)
    assert reached(explanation) == reached(Conv1DTranspose(1, 3, 2, "same").explain(5))
    assert str(explanation).startswith("transposed convolution: 5 -> 10 samples\n")
    empty = Explanation(AxisGeometry(3, 2, 1, 0, 1, 0, 0), transposed=True)
    assert "0 -> 0 samples" in str(empty)
    assert str(Explanation(AxisGeometry(3, 1, 1, 0, 0, 4, 6), transposed=False)).startswith(
        "convolution: 6 -> 4 samples\n"
    )


def test_an_axis_of_several():
    layer = Conv2DTranspose(1, (3, 4), (2, 3), output_padding=(0, 2), padding="same")
    for axis, alone in enumerate([Conv1DTranspose(1, 3, 2, "same", 0), Conv1DTranspose(1, 4, 3, "same", 2)]):
        headline, facts = str(layer.explain(10, axis)).split("\n", 1)
        assert facts == str(alone.explain(10)).split("\n", 1)[1]
        assert headline.startswith(f"{layer.name} (Conv2DTranspose): 10 -> ")


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((0,), ValueError, "length to be at least 1. Received length=0"),
        (("ten",), TypeError, "Received length='ten'"),
        ((10, 1), ValueError, "axis to be less than 1. Received axis=1"),
        ((10, -1), ValueError, "Received axis=-1"),
    ],
)
def test_explain_refuses(arguments, error, words):
    with pytest.raises(error, match=words):
        Conv1D(1, 3).explain(*arguments)


@pytest.mark.parametrize(("transposed", "padding"), [(True, "causal"), (True, "full"), (False, "full")])
def test_an_explanation_refuses_another_padding(transposed, padding):
    with pytest.raises(ValueError, match=f"crops, same_lower. Received padding='{padding}'"):
        Explanation(AxisGeometry(3, 1, 1, 0, 0, 4, 6), transposed, padding=padding)


def test_explain_refuses_what_the_op_refuses():
    with pytest.raises(ValueError, match="Expected at least 5 samples"):
        Conv1D(1, 5).explain(4)


# --- pictures ---


@pytest.fixture
def pyplot():
    matplotlib = pytest.importorskip(
        "matplotlib", reason="matplotlib is not installed: pip install gpuconv[test]"
    )
    matplotlib.use("agg")
    from matplotlib import pyplot

    yield pyplot
    pyplot.close("all")


@pytest.mark.parametrize("layer", [Conv1DTranspose(1, 4, 3, "same", 2), Conv1D(1, 5, 2, "same")])
def test_plot_draws_every_tap(layer, pyplot):
    ax = layer.explain(10).plot()
    explanation = layer.explain(10)
    rows = explanation.axis.in_length
    assert len(ax.patches) == rows * layer.kernel_size[0]
    assert {ax.get_xlabel(), ax.get_ylabel()} == {"input sample", "output sample"}
    assert [tick.get_text() for tick in ax.get_yticklabels()] == [str(row) for row in range(rows)]
    assert sum(patch.get_hatch() is not None for patch in ax.patches) == 2 + (not layer.transposed)
    assert "10 -> " in ax.get_title()
    ax.figure.canvas.draw()


def test_plot_draws_where_it_is_told(pyplot):
    _, (first, second) = pyplot.subplots(2)
    assert Conv1D(1, 5, 2).explain(1000).plot(second) is second
    assert "⋮" in [tick.get_text() for tick in second.get_yticklabels()]
    assert not first.patches
    made = report.checkerboard(Conv1DTranspose(1, 3, 2)).plot((first, second))
    assert made == (first, second)


def test_checkerboard_plot_has_units(pyplot):
    layer = Conv1DTranspose(3, 5, 4, seed=0)
    layer.build((None, None, 2))
    upper, lower = report.checkerboard(layer, fs=100.0).plot()
    assert upper.get_xlabel() == "phase of the output (sample modulo stride)"
    assert upper.get_ylabel() == "output for a constant 1"
    assert (lower.get_xlabel(), lower.get_ylabel()) == (
        "frequency (unit of fs)",
        "level (dB of the constant)",
    )
    assert (len(upper.patches), len(lower.patches)) == (4, 3)
    assert "median and range" in lower.get_title()
    plain, below = report.checkerboard(Conv1DTranspose(1, 40, 20)).plot()
    assert plain.get_ylabel() == "taps"
    assert [tick.get_text() for tick in plain.get_xticklabels()] == ["0", "19"]
    weights = [np.array([[[1.0], [1]], [[-1], [1]]]), np.zeros(2)]  # no constant, and no line
    layer = Conv1DTranspose(2, 2, 2, weights=weights)
    layer.build((None, None, 1))
    found = report.checkerboard(layer)
    assert found.levels.tolist() == [[math.inf, -math.inf]]
    assert str(found).splitlines()[-1].split()[1:] == ["none", "inf", "dB", "inf", "dB"]
    assert found.plot()[1].get_ylim()[1] > 120
    assert below.get_ylim()[0] == -140  # no line: 20 dB below where the picture ends
    upper.figure.canvas.draw()


def test_plot_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install \"gpuconv\[plot\]\""):
        Conv1D(1, 3).explain(5).plot()


# --- checkerboards ---


def steady(layer, shape):
    """What the layer makes of a constant 1, without the bias, far from the ends."""
    layer.build((None, *shape[1:]))
    layer.set_weights([layer.get_weights()[0], *(0 * bias for bias in layer.get_weights()[1:])])
    y = np.asarray(layer(np.ones(shape)))
    margin = 2 * max(layer.kernel_size)  # input samples, more than what the ends reach
    inner = tuple(
        slice(margin * s, (n - margin) * s) for n, s in zip(shape[1:-1], layer.strides, strict=True)
    )
    return y[(0, *inner)]


@pytest.mark.parametrize(
    "layer",
    [
        Conv1DTranspose(1, 3, 2, kernel_initializer="ones", dtype="float64"),
        Conv1DTranspose(4, 7, 3, "same", seed=1, dtype="float64"),
        Conv1DTranspose(4, 5, 4, (2, 0), seed=2, groups=2, dtype="float64"),
        Conv1DTranspose(2, 6, 6, seed=3, dtype="float64", activation="linear"),
        Conv1DTranspose(2, 2, 5, seed=4, dtype="float64"),
        Conv1DTranspose(2, 3, dilation_rate=2, seed=5, dtype="float64"),
    ],
    ids=repr,
)
def test_checkerboard_lines_are_those_of_a_constant(layer):
    y = steady(layer, (1, 40, 4))
    found = report.checkerboard(layer, fs=50.0)
    s, (length, filters) = found.stride, y.shape
    assert found.gains.shape == (s, filters)
    # Each output sums k * 4 / groups products, each gain the same in another order; the transform of n
    # numbers errs by at most log2(n) * 6 eps of their norm (Higham, Accuracy and Stability, section 24.1).
    size = np.abs(layer.get_weights()[0]).sum()
    bound = np.finfo(float).eps * size * (2 * 4 * layer.kernel_size[0] + 6 * math.log2(length))
    periods = length // s
    assert np.all(np.abs(y - np.tile(found.gains, (periods, 1))) <= bound)
    spectrum = np.abs(np.fft.rfft(y, axis=0)) / periods
    lines = spectrum[periods::periods]
    predicted = 10 ** (found.levels / 20) * np.abs(found.gains.sum(axis=0))
    assert lines.shape == predicted.shape
    assert np.all(np.abs(lines - predicted) <= s * bound)
    elsewhere = np.delete(spectrum, np.arange(0, len(spectrum), periods), axis=0)
    assert np.all(elsewhere <= s * bound)
    assert found.frequencies.tolist() == [50.0 * m for m in range(1, s // 2 + 1)]


def test_checkerboard_of_one_axis_of_two():
    layer = Conv2DTranspose(3, (3, 5), (2, 4), seed=6, dtype="float64")
    y = steady(layer, (1, 30, 34, 2))
    size = np.abs(layer.get_weights()[0]).sum()
    for axis, other in ((0, 1), (1, 0)):
        found = report.checkerboard(layer, axis=axis)
        across = y.mean(axis=other)  # what does not vary along the other axis
        # A gain sums all taps of the other axis; on average over its phases there are 1 / stride of them.
        gains = across[: found.stride] * layer.strides[other]
        assert np.all(np.abs(gains - found.gains) <= 100 * np.finfo(float).eps * size)


def test_checkerboard_counts_taps_before_there_are_weights():
    found = report.checkerboard(Conv1DTranspose(8, 7, 4, "same", name="up"))
    assert found.taps == (2, 2, 1, 2)  # the left crop of 1 rotates 2, 2, 2, 1
    assert found.gains.tolist() == [[2], [2], [1], [2]]
    assert found.uneven
    even = report.checkerboard(Conv1DTranspose(8, 8, 4, name="up"))
    assert not even.uneven
    assert np.all(np.isneginf(even.levels))
    assert str(even).startswith("up (Conv1DTranspose): even overlap, 2 of 8 taps on every phase\n")
    assert str(even).endswith("none")


def test_weights_can_make_an_even_overlap_uneven_and_undo_an_uneven_one():
    hat = Conv1DTranspose(1, 4, 2, use_bias=False, weights=[np.array([1.0, 2, 3, 4]).reshape(4, 1, 1)])
    hat.build((None, None, 1))
    assert not report.checkerboard(hat).uneven
    assert report.checkerboard(hat).levels.item() == pytest.approx(20 * math.log10(2 / 10), abs=1e-12)
    linear = Conv1DTranspose(1, 3, 2, use_bias=False, weights=[np.array([0.5, 1, 0.5]).reshape(3, 1, 1)])
    linear.build((None, None, 1))
    assert report.checkerboard(linear).uneven
    assert np.isneginf(report.checkerboard(linear).levels.item())
    seventh = Conv1DTranspose(1, 7, 7, use_bias=False, dtype="float64", weights=[np.full((7, 1, 1), 0.1)])
    seventh.build((None, None, 1))
    assert np.any(np.abs(np.fft.fft(np.full(7, 0.1))[1:]) > 0)  # what rounding leaves is no line
    assert np.all(np.isneginf(report.checkerboard(seventh).levels))
    alternating = Conv1DTranspose(1, 2, 2, use_bias=False, weights=[np.array([1.0, -1]).reshape(2, 1, 1)])
    alternating.build((None, None, 1))
    assert report.checkerboard(alternating).levels.item() == math.inf  # there is no constant to compare with


def test_checkerboard_text_of_many():
    layer = Conv1DTranspose(3, 64, 32, weights=[np.ones((64, 3, 2)), np.zeros(3)], name="up")
    layer.build((None, None, 2))
    lines = str(report.checkerboard(layer, fs=16_000)).splitlines()
    assert lines[2] == "phase  taps  least gain  median gain  largest gain"
    assert lines[3] == "    0     2           4            4             4"
    assert lines[11] == "    …     …           …            …             …"
    assert lines[-1] == "              256000         none          none           none"
    assert len(str(report.checkerboard(Conv1DTranspose(1, 3))).splitlines()) == 4  # stride 1 has no lines


@pytest.mark.parametrize(
    ("layer", "options", "error", "words"),
    [
        (Conv1D(1, 3), {}, TypeError, "Expected a transposed convolution layer. Received layer=Conv1D"),
        ("up", {}, TypeError, "Received layer='up'"),
        (Conv1DTranspose(1, 3), {"fs": "8 kHz"}, TypeError, "Received fs='8 kHz'"),
        (Conv1DTranspose(1, 3), {"fs": True}, TypeError, "Received fs=True"),
        (Conv1DTranspose(1, 3), {"fs": 0}, ValueError, "positive. Received fs=0"),
        (Conv1DTranspose(1, 3), {"fs": math.nan}, ValueError, "positive. Received fs=nan"),
        (Conv1DTranspose(1, 3), {"axis": 1}, ValueError, "Received axis=1"),
    ],
)
def test_checkerboard_refuses(layer, options, error, words):
    with pytest.raises(error, match=words):
        report.checkerboard(layer, **options)


def test_checkerboard_refuses_complex_weights():
    layer = Conv1DTranspose(1, 3, 2, dtype="complex64", weights=[np.ones((3, 1, 1)), np.zeros(1)])
    layer.build((None, None, 1))
    with pytest.raises(NotImplementedError, match="Expected real weights"):
        report.checkerboard(layer)


# --- receptive fields ---


MODELS = {
    "forward": [Conv1D(1, 5, 2), Conv1D(1, 3, dilation_rate=3), Activation("relu")],
    "same": [Conv1D(1, 4, 2, "same"), Conv1D(1, 3, 3, "same_lower"), Conv1D(1, 2, 1, "causal")],
    "transposed": [Conv1DTranspose(1, 3, 2), Conv1DTranspose(1, 5, 3, "same")],
    "down and up": [Conv1D(1, 5, 2, "same"), Dropout(0.5), Conv1DTranspose(1, 3, 2, "same", 1)],
    "up and down": [Conv1DTranspose(1, 4, 3), Conv1D(1, 2, 2)],
    "gaps": [Conv1DTranspose(1, 2, 4), Conv1D(1, 2, dilation_rate=2), Conv1D(1, 1, 2)],
}


@pytest.mark.parametrize("name", list(MODELS))
def test_receptive_field_is_what_perturbed_inputs_reach(name):
    """Each input sample alone, through plain loops with kernels of ones: nothing cancels."""
    length = 120
    field = report.receptive_field(Sequential(MODELS[name]), length)
    y = np.eye(length)[..., None]
    for layer in MODELS[name]:
        if isinstance(layer, Conv1D | Conv1DTranspose):
            explanation = layer.explain(y.shape[1])
            axis = explanation.axis
            run = oracle.conv_transpose if layer.transposed else oracle.conv
            settings = (axis.stride,), (axis.dilation,), (axis.crop_left,), (explanation.out_length,)
            y = run(y, np.ones((*layer.kernel_size, 1, 1)), *settings)
    inner = [n for n in range(y.shape[1]) if length / 3 <= n * field.jump < length * 2 / 3]
    assert len(inner) >= 2 * len(field.inputs)
    for n in inner:
        assert np.flatnonzero(y[:, n, 0]).tolist() == list(field.seen(n))
    assert field.size == max(seen[-1] - seen[0] + 1 for seen in field.inputs if seen)


def test_receptive_field_by_hand():
    field = report.receptive_field(Sequential(MODELS["forward"]))
    assert (field.size, field.jump, field.offset) == (1 + 4 + 2 * 3 * 2, 2, 0)
    assert field.seen(3) == tuple(sorted({6 + 2 * 3 * m + j for m in range(3) for j in range(5)}))
    up = report.receptive_field(Conv1DTranspose(1, 3, 2, "same", name="up"))
    assert (up.size, up.jump, up.inputs, up.offset) == (2, Fraction(1, 2), ((-1, 0), (0,)), -1)
    assert up.seen(-1) == (-1,)
    nothing = report.receptive_field(Conv1DTranspose(1, 1, 2, (1, 0), name="up"))
    assert (nothing.inputs, nothing.offset, nothing.size) == (((), (1,)), None, 1)
    assert str(nothing).splitlines()[1] == "y[2t]     nothing"
    assert report.receptive_field(Activation("relu")).inputs == ((0,),)
    many = str(report.receptive_field(Conv1DTranspose(1, 20, 20))).splitlines()
    assert (len(many), many[5]) == (10, "…")


def test_receptive_field_takes_the_length_that_the_model_was_built_for():
    for shape, data_format in (((7, 1), "channels_last"), ((1, 7), "channels_first")):
        model = Sequential([Input(shape), Conv1D(1, 4, 3, "same", data_format=data_format)])
        assert report.receptive_field(model).offset == -1  # 7 samples make 3, with 3 zeros
        assert report.receptive_field(model, 9).offset == 0  # 9 make 3, with 1
    picture = Sequential([Input((7, None, 1)), Conv2D(1, 4, 3, "same")])
    assert report.receptive_field(picture).offset == -1
    with pytest.raises(ValueError, match=r"Expected length for layer 'conv2d.*Received length=None"):
        report.receptive_field(picture, axis=1)


def test_receptive_field_refuses():
    class Own(Layer):
        pass

    with pytest.raises(TypeError, match=r"a Sequential of these\. Received Own\(name='own"):
        report.receptive_field(Sequential([Own()]))
    with pytest.raises(ValueError, match="Expected at least 5 samples"):
        report.receptive_field(Conv1D(1, 5), 3)
    with pytest.raises(ValueError, match="axis to be less than 1"):
        report.receptive_field(Sequential([Input((7, 1)), Conv1D(1, 3)]), axis=1)
    with pytest.raises(ValueError, match=r"Received n=0\.5"):
        report.receptive_field(Conv1D(1, 5)).seen(0.5)


@pytest.mark.parametrize("activation", ["softmax", "log_softmax", "sparsemax", "glu"])
def test_receptive_field_knows_which_activations_go_along_time(activation):
    first, last = (Conv1D(4, 3, data_format=f"channels_{where}", name="down") for where in ("first", "last"))
    assert report.receptive_field(Sequential([last, Activation(activation)])).size == 3
    for model in (
        Sequential([first, Activation(activation)]),
        Conv1D(4, 3, data_format="channels_first", activation=activation),
    ):
        with pytest.raises(
            ValueError, match=r"a sample from that sample.*may read others \(channels_first\)"
        ):
            report.receptive_field(model)
    with pytest.raises(ValueError, match="a sample from that sample"):
        report.receptive_field(Conv1D(4, 3, activation=lambda x: x[:, ::-1]))


# --- summaries ---


def summary(model):
    lines = []
    model.summary(print_fn=lines.append)
    return lines


def test_summary_counts_work_and_memory():
    model = Sequential(
        [
            Input((20, 2), name="in"),
            Conv1D(6, 5, 2, "same", groups=2, name="a"),  # 10 positions, 5 taps, 1 channel each, 6 filters
            Dropout(0.5, name="b"),
            Conv1DTranspose(3, 4, 2, "same", name="c", dtype="float64"),  # 10 positions, 4 taps, 6 channels
        ],
        name="m",
    )
    lines = summary(model)
    assert [line.split()[-3:] for line in lines[4:8]] == [
        ["0", "160", "B"],
        ["300", "240", "B"],
        ["0", "240", "B"],
        ["720", "480", "B"],
    ]
    assert lines[-1] == "for one sample 1,020 multiply-adds, 1.1 KiB of outputs"
    outer = Sequential([Input((20, 2)), model, Activation("relu")])
    assert outer.layers[1] is model
    assert summary(outer)[5].split()[-3:] == ["1,020", "480", "B"]


def test_summary_in_channels_first_and_of_layers_of_ones_own():
    class Own(Layer):
        def build(self, input_shape):
            self.add_weight("gain", (1,), "ones")
            super().build(input_shape)

    model = Sequential([Input((2, 20)), Conv1D(3, 5, 2, data_format="channels_first"), Own(name="own")])
    lines = summary(model)
    assert lines[5].split()[-3:] == [str(8 * 5 * 2 * 3), "96", "B"]
    assert lines[6].split()[-3:] == ["?", "96", "B"]
    assert lines[-1] == "34 parameters (136 B), 34 trainable, 0 frozen"


# --- HTML and reprs ---


def parsed(thing):
    """The HTML of `thing`, which is well-formed, without script and without an opaque background."""
    html = thing._repr_html_()
    root = ElementTree.fromstring(html)
    assert not list(root.iter("script"))
    assert not re.search(r"background(-color)?:(?!none|hsla\()", html)
    assert not re.search(r"[;\"]color:(?!inherit)", html)
    return root


def text_of(thing):
    return "\n".join(parsed(thing).itertext())


NASTY = '<script>alert(1) & "it\'s"'


def built(layer, shape):
    layer.build(shape)
    return layer


def shown():
    up = built(Conv1DTranspose(4, 3, 2, name=NASTY), (None, None, 2))
    model = Sequential([Input((8, 2)), up], name=NASTY)
    plan = gpuconv.plan("conv1d", (2, 10, 8), np.ones((3, 8, 4), np.float32))
    history = History()
    for epoch in range(20):
        history.on_epoch_end(epoch, {"loss": 1 / (epoch + 1), "val_loss": 0.5})
    yield from {
        "layer": (up, [NASTY, "filters", "4", "(3, 4, 2) float32", "28"]),
        "unbuilt": (Conv1D(1, 3, name=NASTY), [NASTY, "not built"]),
        "frozen": (built(Conv1D(1, 3, trainable=False), (None, 9, 1)), ["4, frozen"]),
        "dropout": (Dropout(0.25), ["rate", "0.25"]),
        "model": (model, [NASTY, "Conv1DTranspose", "(None, 17, 4)", "192", "28 parameters (112 B)"]),
        "unbuilt model": (Sequential([Conv1D(1, 3)]), ["not known yet", "?"]),
        "plan": (plan, ["(2, 10, 8) -> (2, 8, 4)", *plan.algorithms, "multiply-adds, workspace"]),
        "axis": (plan.job.geometry.axes[0], ["crop_left", "out_length", "10"]),
        "geometry": (plan.job.geometry, ["in_channels=4, filters=8, groups=1", "stride"]),
        "dlarray": (dlarray(np.zeros((3, 2, 10)), "CBT"), ["3(C) x 2(B) x 10(T) dlarray", "T, time", "10"]),
        "unlabelled": (dlarray(np.zeros((3, 2))), ["3x2 dlarray"]),
        "history": (history, ["20 epochs", "val_loss", "20", "0.05", "…"]),
        "empty history": (History(), ["0 epochs"]),
        "explanation": (up.explain(5), [NASTY, "y[2t + 1] = x[t]·w[1]", "every output sample"]),
        "checkerboard": (report.checkerboard(up), [NASTY, "median gain", "largest level"]),
        "receptive field": (report.receptive_field(up), [NASTY, "x[t - 1] to x[t]"]),
    }.items()


@pytest.mark.parametrize(("thing", "words"), [pytest.param(*pair, id=name) for name, pair in shown()])
def test_html_says_what_it_should(thing, words):
    text = text_of(thing)
    for word in words:
        assert word in text
    assert len(thing._repr_html_()) < 10_000


def test_the_explanation_in_html_is_the_text():
    explanation = Conv1DTranspose(1, 4, 3, "same", 2).explain(10)
    pre = ["".join(node.itertext()) for node in parsed(explanation).iter("pre")]
    assert [line.rstrip() for block in pre for line in block.splitlines()] == [
        line for part in str(explanation).split("\n\n")[1:] for line in part.splitlines()
    ]


def test_a_plan_of_another_library_shows_its_one_way():
    xp = pytest.importorskip("array_api_strict", reason="it is not installed: pip install gpuconv[test]")
    plan = gpuconv.plan("conv1d", (2, 10, 1), xp.ones((3, 1, 4)))
    assert "array API" in text_of(plan)
    assert not list(parsed(plan).iter("table"))


def test_plain_reprs_name_the_settings():
    assert repr(Dropout(0.25, name="d")) == "Dropout(rate=0.25, noise_shape=None, name='d')"
    assert repr(Activation("relu", name="a")) == "Activation(activation=relu, name='a')"
    assert repr(Input((10, 2), name="i")) == "Input(batch_input_shape=(None, 10, 2), name='i')"
    assert repr(Layer(name="l")) == "Layer(name='l')"
