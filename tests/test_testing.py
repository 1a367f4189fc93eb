"""The public check of adjoints, on operators right and wrong."""

import numpy as np
import pytest

import gpuconv
from gpuconv.namespace import DTYPES
from gpuconv.testing import adjoint_check

KERNEL = np.random.default_rng(0).standard_normal((5, 3, 4))


def up(x):
    kernel = gpuconv.namespace.astype(gpuconv.namespace.like(KERNEL, x), str(x.dtype).rpartition(".")[2])
    return gpuconv.conv1d_transpose(x, kernel, strides=2, padding="same")


def down(y):
    kernel = gpuconv.namespace.astype(gpuconv.namespace.like(KERNEL, y), str(y.dtype).rpartition(".")[2])
    return gpuconv.conv1d(y, kernel, strides=2, padding="same")


@pytest.mark.parametrize("dtype", DTYPES)
def test_ours_are_adjoints_in_every_type(dtype):
    pytest.importorskip("ml_dtypes", reason="not installed: pip install gpuconv[test]")
    assert adjoint_check(up, down, (2, 30, 4), dtype=dtype) > 0


def test_every_library(xp):
    seen = []

    def watched(x):
        seen.append(type(x))
        return up(x)

    reference = xp.zeros(1)
    adjoint_check(watched, down, (2, 30, 4), reference=reference)
    assert set(seen) == {type(reference)}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda y: down(y) * 1.001, "Expected <y, op"),
        (lambda y: down(np.roll(y, 1, axis=1)), "Expected <y, op"),
        (lambda y: down(y) * np.nan, "Expected <y, op"),
        (lambda y: down(y)[:, 1:], r"Expected adjoint to make shape \(2, 30, 4\)"),
        (lambda y: -down(y), "Expected <y, op"),
        (lambda y: 0 * down(y), "Expected <y, op"),
    ],
    ids=["scaled", "shifted", "NaN", "shape", "negated", "zero"],
)
def test_what_is_no_adjoint_is_noticed(wrong, words):
    with pytest.raises(AssertionError, match=words):
        adjoint_check(up, wrong, (2, 30, 4))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("size", [1, 360, 2**20])
@pytest.mark.parametrize("factor", [-1, 0, 3])
def test_a_wrong_adjoint_is_noticed_in_every_type_and_size(dtype, size, factor):
    pytest.importorskip("ml_dtypes", reason="not installed: pip install gpuconv[test]")
    assert adjoint_check(lambda x: x, lambda y: y, (size,), dtype=dtype) < 1e-2
    with pytest.raises(AssertionError):
        adjoint_check(lambda x: x, lambda y: y * y.dtype.type(factor), (size,), dtype=dtype)


def test_complex_operators_need_the_conjugate():
    factor = 2 + 3j
    adjoint_check(lambda x: factor * x, lambda y: factor.conjugate() * y, (7,), dtype="complex128")
    with pytest.raises(AssertionError):
        adjoint_check(lambda x: factor * x, lambda y: factor * y, (7,), dtype="complex128")


def test_the_tolerance_can_be_given():
    with pytest.raises(AssertionError, match="where 0 is allowed"):
        adjoint_check(up, down, (2, 30, 4), rtol=0.0)
    adjoint_check(up, lambda y: down(y) * 1.001, (2, 30, 4), rtol=0.01)


def test_bad_arguments():
    with pytest.raises(TypeError, match="Received dtype='int32'"):
        adjoint_check(up, down, (2, 30, 4), dtype="int32")
    with pytest.raises(ValueError, match="x_shape to be known"):
        adjoint_check(up, down, (2, None, 4))
    with pytest.raises(ValueError, match="without 0"):
        adjoint_check(up, down, (0, 30, 4))
    with pytest.raises(ValueError, match="trials to be at least 1"):
        adjoint_check(up, down, (2, 30, 4), trials=0)
