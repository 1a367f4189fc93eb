"""How far a sum of products may be from the truth: the rounding error bound, nothing chosen by hand."""

import contextlib

import numpy as np

#: Unit of the rounding error: the distance from 1 to the next number.
_EPS = {
    "float16": 2.0**-10,
    "bfloat16": 2.0**-7,
    "float32": 2.0**-23,
    "float64": 2.0**-52,
    "complex64": 2.0**-23,
    "complex128": 2.0**-52,
}
#: Half of the smallest number above 0: what rounding to a half type may cost near 0.
_HALF_OF_SMALLEST = {"float16": 2.0**-25, "bfloat16": 2.0**-134}


def assert_within_bound(y, exact, magnitude, terms, dtype):
    """Assert ``|y - exact| <= c * terms * eps * magnitude`` for every element.

    `magnitude` is the same operation on the absolute values of everything, `terms` how many products (and
    biases) one output sums. Summed in any order, the error is at most terms * u / (1 - terms * u) * magnitude
    with u = eps / 2 (Higham, Accuracy and Stability, section 3.1). Where `exact` was itself computed in
    `dtype` it errs as much, hence c = 1. With complex numbers the real and the imaginary part each sum twice
    as many products; both together make 2**0.5 * terms * eps on our side and, from systems that multiply
    with three real products instead of four, 10**0.5 / 2 * terms * eps on the other: c = 4. The slack that
    1 / (1 - terms * u) and a `magnitude` of finite precision need comes from counting one term more.

    Half types are summed in float32 and rounded once.
    """
    y, exact = np.asarray(y), np.asarray(exact)
    assert y.shape == exact.shape
    wide = np.complex128 if dtype.startswith("complex") else np.float64
    c = 4 if dtype.startswith("complex") else 1
    half = dtype in _HALF_OF_SMALLEST
    bound = c * (terms + 1) * _EPS["float32" if half else dtype] * np.asarray(magnitude, np.float64)
    if half:
        bound = bound + _EPS[dtype] / 2 * (np.abs(exact) + bound) + _HALF_OF_SMALLEST[dtype]
    error = np.abs(y.astype(wide) - exact)
    worst = np.max(error - bound, initial=-np.inf)
    assert np.all(error <= bound), f"off by {worst} more than the bound allows"


@contextlib.contextmanager
def noting(configuration):
    """Add `configuration` to the message of whatever fails inside."""
    try:
        yield
    except Exception as error:
        error.add_note(f"with {configuration}")
        raise
