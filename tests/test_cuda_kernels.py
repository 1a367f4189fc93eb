"""Every kernel that there is, in every type and layout, beside the float64 oracle; on the emulator.

What each kernel's own tests add is in test_cuda_*.py.
"""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gpuconv.backends.cuda.planner import ALGORITHMS
from gpuconv.namespace import DTYPES
from tests import emulator
from tests.bounds import assert_within_bound, noting
from tests.emulator import Emulator
from tests.reference import expected
from tests.strategies import cases
from tests.test_cuda import call_of, case_of, numpy_dtype, run

pytestmark = pytest.mark.skipif(bool(emulator.missing()), reason=emulator.missing() or "")

NAMES = [algorithm.name for algorithm in ALGORITHMS]
BY_NAME = {algorithm.name: algorithm for algorithm in ALGORITHMS}


def make_random(case, dtype, seed):
    """Put normally distributed numbers of the type in place of the case's integers."""
    rng = np.random.default_rng(seed)
    for name in ("x", "kernel", "bias"):
        if getattr(case, name) is not None:
            drawn = rng.standard_normal(getattr(case, name).shape)
            if dtype.startswith("complex"):
                drawn = drawn + 1j * rng.standard_normal(drawn.shape)
            wide = np.complex128 if dtype.startswith("complex") else np.float64
            setattr(case, name, drawn.astype(numpy_dtype(dtype)).astype(wide))


def magnitude_of(case):
    """The same sums of absolute values."""
    case.x, case.kernel = abs(case.x), abs(case.kernel)
    case.bias = None if case.bias is None else abs(case.bias)
    return expected(case)


def terms_of(case):
    """At most so many products make an element, and a bias."""
    return int(np.prod(case.kernel.shape[: case.ndim])) * case.x.shape[-1] + 1


def check(case, name, dtype, channels_last):
    """Four orders of threads give the same bits, and these are as near to the truth as the type allows."""
    exact = expected(case)
    orders = emulator.ORDERS if name != "atomic" else emulator.ORDERS[:1]  # whose bits are left to chance
    results = [run(case, Emulator(order), dtype, name, channels_last) for order in orders]
    assert len({y.tobytes() for y in results}) == 1
    assert_within_bound(results[0], exact, magnitude_of(case), terms_of(case), dtype)


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data(), dtype=st.sampled_from(DTYPES), channels_last=st.booleans())
def test_random_geometries_are_within_the_bound_in_four_thread_orders(name, data, dtype, channels_last):
    ndims = (1, 1, 2, 3) if name in ("direct", "atomic") else (1,)
    case = data.draw(cases(ndims=ndims, most_depth=9))
    assume(expected(case) is not None)
    assume(not BY_NAME[name].refuses(call_of(case, dtype, channels_last), (9, 0)))
    make_random(case, dtype, data.draw(st.integers(0, 2**32 - 1)))
    with noting(case):
        check(case, name, dtype, channels_last)


LARGER = {
    "transposed": lambda: case_of((2, 150, 24), (9, 20, 24), strides=(4,), padding="same"),
    "forward": lambda: case_of((2, 300, 20), (7, 20, 36), transposed=False, strides=(3,), padding="same"),
    "groups": lambda: case_of((1, 90, 48), (5, 12, 48), groups=4, strides=(2,), padding="same_lower"),
    "depthwise": lambda: case_of((2, 70, 40), (12, 1, 40), groups=40, strides=(2,), padding=((5, 5),)),
    "one channel": lambda: case_of((1, 700, 1), (16, 1, 1), strides=(8,), padding="same"),
    "few filters": lambda: case_of((1, 200, 64), (25, 1, 64), strides=(4,), padding="same"),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels_last", [True, False], ids=["last", "first"])
@pytest.mark.parametrize("kind", LARGER)
def test_larger_ones_than_a_tile_are_within_the_bound(name, dtype, channels_last, kind):
    case = LARGER[kind]()
    if refusal := BY_NAME[name].refuses(call_of(case, dtype, channels_last), (9, 0)):
        pytest.skip(f"{name}: {refusal}")
    make_random(case, dtype, 7)
    check(case, name, dtype, channels_last)
