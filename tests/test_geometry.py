"""Spellings of sizes, the table of output lengths, and what is refused."""

import fractions

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gpuconv
from gpuconv.geometry import AxisGeometry, conv_axes, input_window, transpose_axes
from gpuconv.ops.shapes import geometry_of


def axis(length, k, **settings):
    (found,) = transpose_axes((length,), k, **settings)
    return found


@pytest.mark.parametrize(
    ("settings", "out", "left"),
    [  # L = 10, k = 5, s = 3: N = 32; each row of the design's table
        ({"padding": "valid"}, 32, 0),
        ({"padding": "valid", "output_padding": 2}, 34, 0),
        ({"padding": "same"}, 30, 1),
        ({"padding": "same", "output_padding": 0}, 28, 2),
        ({"padding": "same", "output_padding": 1}, 29, 1),
        ({"padding": "same_lower", "output_padding": 1}, 29, 2),
        ({"padding": 2}, 28, 2),
        ({"padding": (3, 1)}, 28, 3),
        ({"padding": (3, 1), "output_padding": 2}, 30, 3),
        ({"padding": "same", "output_size": 29}, 29, 1),
        ({"padding": 2, "output_size": 30}, 30, 2),
    ],
)
def test_output_lengths(settings, out, left):
    found = axis(10, 5, strides=3, **settings)
    assert (found.out_length, found.crop_left) == (out, left)
    assert found.full_length == 32 == found.crop_left + found.out_length + found.crop_right


def test_a_kernel_shorter_than_the_stride_still_fills_it_when_valid():
    assert axis(4, 2, strides=5).out_length == 20
    assert axis(4, 2, strides=5, output_padding=0).out_length == 17


def test_dilation_lengthens_the_kernel():
    found = axis(4, 3, strides=2, dilation_rate=3)
    assert (found.reach, found.out_length) == (7, 13)


SPELLINGS = [3, 3.0, np.int8(3), np.uint64(3), np.float32(3), (3,), [3], np.array([3]), fractions.Fraction(3)]


@pytest.mark.parametrize("three", SPELLINGS, ids=repr)
def test_integers_of_every_kind(three):
    """R sends doubles, NumPy its own integers, Keras lists of one."""
    wanted = axis(10, 3, strides=3, padding=3)
    assert axis(10, three, strides=three, padding=three) == wanted
    assert isinstance(axis(10, three, strides=three).stride, int)


@pytest.mark.parametrize("spelling", ["SAME", "Same", "sAmE"])
def test_names_in_any_case(spelling):
    assert axis(10, 5, strides=3, padding=spelling) == axis(10, 5, strides=3, padding="same")


@pytest.mark.parametrize(
    ("padding", "crops"),
    [(1, ((1, 1), (1, 1))), ((1, 2), ((1, 1), (2, 2))), (((1, 2), (3, 4)), ((1, 2), (3, 4)))],
)
def test_per_axis_padding(padding, crops):
    axes = transpose_axes((9, 9), (5, 6), strides=(2, 3), padding=padding)
    assert tuple((a.crop_left, a.crop_right) for a in axes) == crops


def test_geometry_is_hashable_and_equal_by_value():
    def build(strides):
        return geometry_of(True, 1, (5, 4, 6), (3, 2, 6), True, 2, strides=strides)

    assert hash(build(2)) == hash(build(2.0))
    assert build(2) == build([2]) != build(3)
    assert build(2).axes == (AxisGeometry(3, 2, 1, 0, 0, 4, 9),)
    assert (build(2).in_channels, build(2).filters, build(2).groups) == (6, 4, 2)


def test_unknown_lengths_stay_unknown_and_settings_are_still_checked():
    assert transpose_axes((None, 4), 3)[0] is None
    with pytest.raises(ValueError, match="strides=0"):
        transpose_axes((None,), 3, strides=0)
    with pytest.raises(ValueError, match="strides=0"):
        conv_axes((None,), 3, strides=0)


# --- windows -------------------------------------------------------------------------------------


def products(axis, sample, transposed):
    """The (input sample, tap) pairs that one sample of the result sums."""
    if transposed:
        read = ((sample + axis.crop_left - j * axis.dilation, j) for j in range(axis.kernel))
        pairs = ((at // axis.stride, j) for at, j in read if at % axis.stride == 0)
    else:
        begin = sample * axis.stride - axis.crop_left
        pairs = ((begin + j * axis.dilation, j) for j in range(axis.kernel))
    length = axis.in_length if transposed else axis.out_length
    return {(i, j) for i, j in pairs if 0 <= i < length}


@st.composite
def blocks(draw):
    """An axis, short and cropped as no call would, and where a block of its result starts and stops."""
    k, s, d, crop = (draw(st.integers(least, 5)) for least in (1, 1, 1, 0))
    short, long = draw(st.integers(1, 6)), draw(st.integers(1, 12))
    right = (short - 1) * s + (k - 1) * d + 1 - crop - long
    transposed = draw(st.booleans())
    made = long if transposed else short
    start = draw(st.integers(0, made))
    stop = draw(st.one_of(st.integers(start, made), st.just(min(start + 1, made))))
    return AxisGeometry(k, s, d, crop, right, short, long), start, stop, transposed


@settings(max_examples=max(1000, settings.default.max_examples))
@given(block_of=blocks())
def test_a_window_makes_its_block(block_of):
    whole, start, stop, transposed = block_of
    window, block = input_window(whole, start, stop, transposed=transposed)
    lengths = (window.stop - window.start, stop - start)
    assert (block.in_length, block.out_length) == (lengths if transposed else lengths[::-1])
    assert block.full_length == block.crop_left + block.out_length + block.crop_right
    assert block.crop_left >= 0
    assert lengths[0] >= min(1, stop - start)
    needed = set()
    for sample in range(start, stop):
        wanted = products(whole, sample, transposed)
        found = products(block, sample - start, transposed)
        assert {(window.start + i, j) for i, j in found} == wanted
        needed |= {i for i, _ in wanted}
    if whole.dilation == 1 and whole.stride <= whole.kernel and start < stop:  # the taps leave no gaps
        assert lengths[0] == (max(needed) - min(needed) + 1 if needed else 1)


# --- the shape functions -------------------------------------------------------------------------


def test_output_shape_of_every_op():
    for ndim in (1, 2, 3):
        lengths = (9, 8, 7)[:ndim]
        for name, kernel in ((f"conv{ndim}d_transpose", (4, 6)), (f"conv{ndim}d", (3, 4))):
            op = getattr(gpuconv, name)
            k = np.zeros((3,) * ndim + kernel)
            for data_format in ("channels_last", "channels_first"):
                last = data_format == "channels_last"
                x = np.zeros((2, *lengths, 6) if last else (2, 6, *lengths))
                options = {"strides": 2, "padding": "same", "groups": 2, "data_format": data_format}
                wanted = op(x, k, **options).shape
                assert gpuconv.output_shape(op, x.shape, k.shape, **options) == wanted
                assert gpuconv.output_shape(name, x.shape, k.shape, **options) == wanted


def test_output_shape_with_unknown_lengths():
    shape = gpuconv.output_shape("conv2d_transpose", (None, None, 5, 3), (2, 2, 4, 3), strides=2)
    assert shape == (None, None, 10, 4)


@pytest.mark.parametrize(("length", "k", "s", "d"), [(10, 4, 2, 1), (7, 5, 3, 1), (6, 2, 4, 1), (9, 3, 1, 2)])
def test_solve_lists_every_way_and_each_way_works(length, k, s, d):
    x, kernel = np.ones((1, length, 1)), np.ones((k, 1, 1))

    def made(**settings):
        try:
            return gpuconv.conv1d_transpose(x, kernel, strides=s, dilation_rate=d, **settings).shape[1]
        except ValueError:
            return None

    extras = (None, *range(max(s, d)))
    spellings = [(name, extra) for name in ("valid", "same", "same_lower") for extra in extras]
    spellings += [(p, extra or None) for p in range(12) for extra in range(max(s, d))]
    pairs = [((a, b), extra) for a in range(24) for b in range(24) for extra in extras]
    lengths = {way: made(padding=way[0], output_padding=way[1]) for way in (*spellings, *pairs)}
    for wanted in range(1, (length - 1) * s + (k - 1) * d + 1 + s):
        found = [(way.padding, way.output_padding) for way in gpuconv.solve(length, wanted, k, s, d)]
        assert len(set(found)) == len(found)
        assert all(made(padding=p, output_padding=extra) == wanted for p, extra in found)
        assert {way for way in spellings if lengths[way] == wanted} <= set(found)
        # Of the pairs, one for every left crop that any pair and output padding reach.
        lefts = {way[0][0] for way in pairs if lengths[way] == wanted}
        listed = {p if isinstance(p, int) else p[0] for p, _ in found if not isinstance(p, str)}
        assert lefts <= listed


def test_solve_speaks_the_dialects():
    same, *_ = gpuconv.solve(10, 20, 4, 2)
    assert (same.keras, same.matlab, same.onnx) == (
        {"padding": "same"},
        {"Cropping": "same"},
        {"pads": [1, 1]},
    )
    by_crop = {way.padding: way for way in gpuconv.solve(10, 20, 3, 2) if way.output_padding is None}
    assert by_crop["same"].pytorch is None  # the left is cropped less than the right
    assert by_crop["same_lower"].pytorch == {"padding": 1, "output_padding": 1}
    assert by_crop["same_lower"].onnx == {"pads": [1, 0]}
    assert by_crop["same_lower"].keras is None
    appended = [way for way in gpuconv.solve(10, 22, 3, 2) if way.padding == "valid"]
    assert appended[0].onnx == {"pads": [0, 0], "output_padding": [1]}
    assert appended[0].matlab is None


def test_solve_finds_nothing_where_nothing_is():
    assert gpuconv.solve(10, 500, 3, 2) == []
