"""The kernel of few channels, on an emulator; what it shares with the others is in test_cuda_kernels.py."""

import numpy as np
import pytest

from gpuconv import activations
from gpuconv.backends import cupy_
from gpuconv.backends.cuda import planner, polyphase
from gpuconv.backends.cuda.call import Call
from gpuconv.backends.cuda.planner import Limits
from gpuconv.ops.shapes import geometry_of
from tests import emulator
from tests.emulator import CudaFault, Emulator
from tests.reference import expected
from tests.test_cuda import Planted, call_of, case_of, numpy_dtype, run

pytestmark = pytest.mark.skipif(bool(emulator.missing()), reason=emulator.missing() or "")

CASES = {
    "mono": lambda: case_of((3, 301, 1), (16, 1, 1), strides=(8,), padding="same"),
    "mono, odd": lambda: case_of((2, 117, 1), (7, 1, 1), strides=(5,), padding=((2, 2),)),
    "mono, one sample": lambda: case_of((1, 117, 1), (7, 1, 1), strides=(5,), padding=((2, 2),)),
    "stereo": lambda: case_of((2, 150, 2), (16, 2, 2), strides=(8,), padding="same"),
    "three channels": lambda: case_of((1, 80, 3), (5, 3, 3), strides=(3,), output_padding=(2,)),
    "depthwise": lambda: case_of((2, 60, 24), (12, 1, 24), groups=24, strides=(2,), padding=((5, 4),)),
    "ragged depthwise": lambda: case_of((2, 60, 13), (15, 1, 13), groups=13, strides=(4,), padding="same"),
    "dilated": lambda: case_of((2, 60, 16), (4, 1, 16), groups=16, dilation_rate=(3,)),
    "zeros at the end": lambda: case_of((1, 9, 8), (2, 1, 8), groups=8, strides=(5,)),
    "decimated": lambda: case_of((2, 301, 1), (16, 1, 1), transposed=False, strides=(8,), padding="same"),
    "decimated depthwise": lambda: case_of(
        (2, 75, 24),
        (6, 1, 24),
        groups=24,
        transposed=False,
        strides=(3,),
        dilation_rate=(2,),
        padding="causal",
    ),
    "groups": lambda: case_of((1, 70, 12), (4, 2, 12), groups=4, strides=(2,)),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("channels_last", [True, False], ids=["last", "first"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "complex64", "complex128"])
def test_what_it_is_for_is_exact_on_integers(name, channels_last, dtype):
    case = CASES[name]()
    wanted = np.asarray(expected(case)).astype(numpy_dtype(dtype))
    np.testing.assert_array_equal(run(case, Emulator(), dtype, "polyphase", channels_last), wanted)


def test_appended_zeros_have_bias_and_activation():
    case = CASES["zeros at the end"]()
    case.bias = np.linspace(-2, 2, 8)
    y = run(case, Emulator(), "float64", "polyphase", activation=activations.relu)
    np.testing.assert_array_equal(y, np.maximum(expected(case), 0))


@pytest.mark.parametrize("skew", [0, 1, 2])
@pytest.mark.parametrize("step", [1, 2])
def test_any_strides_and_alignment_are_read_and_written_in_place(skew, step):
    case = CASES["depthwise"]()
    x = np.full((2, 60, 24 * step + skew), np.nan, np.float32)[:, :, skew::step]
    room = np.full((2, 122 * step, 24 + skew), np.nan, np.float32)
    wanted = expected(case)
    out = room[:, : wanted.shape[1] * step : step, skew:]
    kernel = np.full(case.kernel.size + skew, np.nan, np.float32)[skew:].reshape(case.kernel.shape)
    x[...], kernel[...] = case.x, case.kernel
    call = call_of(case)
    options = {"channels_last": True, "dtype": "float32", "device": Emulator(), "algorithm": "polyphase"}
    bias = case.bias.astype(np.float32)
    assert cupy_.conv_transpose(call.geometry, x, kernel, bias, None, out=out, **options) is out
    np.testing.assert_array_equal(out, wanted)
    room[:, : wanted.shape[1] * step : step, skew:] = np.nan
    assert np.isnan(room).all(), "nothing else was written"


def test_chunks_are_read_at_once_where_they_are_aligned(monkeypatch):
    asked = []
    compiled = polyphase._compiled

    def noted(device, call, wide, together):
        asked.append(together)
        return compiled(device, call, wide, together)

    monkeypatch.setattr(polyphase, "_compiled", noted)
    run(CASES["depthwise"](), Emulator(), "float32", "polyphase")
    run(CASES["depthwise"](), Emulator(), "float32", "polyphase", channels_last=False)
    run(CASES["ragged depthwise"](), Emulator(), "float32", "polyphase")
    run(CASES["stereo"](), Emulator(), "float32", "polyphase")
    assert asked == [True, False, False, False]


@pytest.mark.parametrize(
    ("x_shape", "kernel_shape", "options"),
    [
        ((1, 262144, 1), (16, 1, 1), {"strides": (8,), "padding": "same"}),
        ((8, 65536, 2), (16, 2, 2), {"strides": (8,), "padding": "same"}),
        ((4, 8192, 96), (12, 1, 96), {"strides": (2,), "groups": 96}),
        ((16, 262144, 2), (16, 1, 2), {"strides": (8,), "groups": 2}),
    ],
    ids=["mono", "stereo", "depthwise", "two channels"],
)
def test_it_is_chosen_for_what_it_is_for(x_shape, kernel_shape, options):
    settings = {"dilation_rate": (1,), "padding": "valid"} | options
    groups = settings.pop("groups", 1)
    geometry = geometry_of(True, 1, x_shape, kernel_shape, True, groups, **settings)
    call = Call(geometry, x_shape[0], True, True, "float32")
    assert planner.choose(call, Limits("any", (9, 0), 132)).name == "polyphase"


def test_what_it_cannot_do_is_refused():
    both = case_of((1, 9, 2), (3, 2, 2), strides=(2,), dilation_rate=(3,))
    with pytest.raises(ValueError, match="for strides or dilation, not both"):
        run(both, Emulator(), "float32", "polyphase")
    with pytest.raises(ValueError, match="for 1 axis only"):
        run(case_of((1, 4, 4, 2), (2, 2, 2, 2)), Emulator(), "float32", "polyphase")


# --- planted faults ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "old", "new", "what"),
    [
        ("mono, one sample", "if (index < all)", "if (index <= all)", r"illegal write|wrote past the end"),
        ("mono, one sample", "begin + SIZE <= all", "begin < all", r"illegal write|wrote past the end"),
        ("mono", "row >= g.in_length", "row > g.in_length", "illegal read"),
        ("ragged depthwise", "tap >= g.kernel", "tap > g.kernel", "illegal read"),
        ("mono, odd", " && (unsigned long long)(line + begin) % sizeof(Chunk) == 0", "", "align"),
    ],
    ids=["store", "last chunk", "row", "tap", "alignment"],
)
def test_a_fault_is_noticed(name, old, new, what):
    with pytest.raises(CudaFault, match=what):
        run(CASES[name](), Planted(old, new), "float32", "polyphase")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("full - row * Index(g.phases)", "0"),
        ("u * Index(g.rows)", "0"),
        ("origin[e / WIDE].channel + e % WIDE", "origin[e / WIDE].channel"),
        ("q * Index(g.hop)", "0"),
    ],
    ids=["phase", "rows of later chunks", "channel of the bias", "hop"],
)
def test_wrong_numbers_are_noticed(old, new):
    wrong = [
        not np.array_equal(run(case, Planted(old, new), "float32", "polyphase"), expected(case))
        for case in (CASES["mono"](), CASES["depthwise"]())
    ]
    assert any(wrong)
