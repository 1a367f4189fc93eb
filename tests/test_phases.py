"""Every output sample belongs to one phase of one group, and its taps are those of the scatter."""

from hypothesis import given
from hypothesis import strategies as st

from gpuconv.geometry import conv_axes, transpose_axes
from gpuconv.phases import conv_phases, rows_outside, transpose_phases

SIZES = st.tuples(
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 6),
    st.integers(1, 4),
    st.integers(0, 3),
    st.integers(0, 3),
)


def read(phases):
    """{output sample: {(input row, tap), ...}}; fails when a sample is made twice."""
    made = {}
    for group in phases:
        for p in range(group.count):
            taps = group.taps[p] if group.taps else ()
            for t in range(group.rows):
                o = group.first + p + t * group.out_step
                assert o not in made
                made[o] = {
                    (group.offset + t * group.row_step + m * group.hop, tap) for m, tap in enumerate(taps)
                }
    return made


@given(SIZES)
def test_transpose_phases(sizes):
    length, k, s, d, left, right = sizes
    if (length - 1) * s + (k - 1) * d + 1 < left + right:
        return
    (axis,) = transpose_axes((length,), k, strides=s, dilation_rate=d, padding=(left, right))
    phases = transpose_phases(axis)
    made = read(phases)
    assert sorted(made) == list(range(axis.out_length))
    for o, pairs in made.items():
        scattered = {(i, j) for i in range(length) for j in range(k) if i * s + j * d - left == o}
        assert {(i, j) for i, j in pairs if 0 <= i < length} == scattered
    if d == 1 and k >= s:
        assert len(phases) <= 4
    before, after = rows_outside(phases, length)
    rows = [i for pairs in made.values() for i, _ in pairs]
    assert before == max([0, *(-i for i in rows)])
    assert after == max([0, *(i - length + 1 for i in rows)])


@given(SIZES)
def test_conv_phases(sizes):
    length, k, s, d, left, right = sizes
    if length + left + right < (k - 1) * d + 1:
        return
    (axis,) = conv_axes((length,), k, strides=s, dilation_rate=d, padding=(left, right))
    made = read(conv_phases(axis))
    assert made == {o: {(o * s + j * d - left, j) for j in range(k)} for o in range(axis.in_length)}


def test_a_stride_beyond_all_memory_is_described_at_once():
    (axis,) = transpose_axes((5,), 3, strides=10**14, padding=(1, 0))
    groups = transpose_phases(axis)
    assert sum(group.count for group in groups) == 10**14
    assert [group.count for group in groups if group.taps] == [2, 1]
