"""Projections against hand formulas and live Keras, on every array library."""

from __future__ import annotations

import os

import numpy as np
import pytest

from gpuconv.constraints import MaxNorm, MinMaxNorm, NonNeg, UnitNorm, get
from gpuconv.namespace import dtype_name, to_numpy

W = np.random.default_rng(9).normal(0, 2, (5, 3, 2))
ALL = [
    MaxNorm(),
    MaxNorm(1.5, axis=(0, 2)),
    MinMaxNorm(),
    MinMaxNorm(2.0, 3.0, rate=0.25, axis=[0, -1]),
    NonNeg(),
    UnitNorm(),
    UnitNorm(axis=-1),
    UnitNorm(axis=(0, 2)),
]
LIBRARIES = ["numpy", "array_api_strict", "torch", "jax", "dask"]


def make(library, values):
    """`values` as an array of `library`, dtype kept."""
    if library == "numpy":
        return np.array(values)
    if library == "torch":
        return pytest.importorskip("torch", reason="needs PyTorch").tensor(values)
    if library == "jax":
        return pytest.importorskip("jax.numpy", reason="needs JAX").asarray(values)
    if library == "dask":
        return pytest.importorskip("dask.array", reason="needs Dask").from_array(values)
    return pytest.importorskip(library, reason=f"needs {library}").asarray(values)


@pytest.fixture(scope="module")
def keras():
    os.environ["KERAS_BACKEND"] = "jax"
    module = pytest.importorskip("keras", reason="needs Keras, with which the numbers are compared")
    if module.backend.backend() != "jax":
        pytest.skip("Keras is already running on another backend than JAX")
    return module


def norms(w, axis):
    return np.sqrt(np.sum(np.abs(w) ** 2, axis=axis, keepdims=True))


def test_formulas():
    n = norms(W, 0)
    assert n.min() < 4 < n.max()
    np.testing.assert_allclose(MaxNorm(4)(W), W * np.clip(n, 0, 4) / (1e-7 + n), rtol=1e-14)
    np.testing.assert_allclose(UnitNorm()(W), W / (1e-7 + n), rtol=1e-14)
    np.testing.assert_array_equal(NonNeg()(W), np.maximum(W, 0))
    n = norms(W, (0, 2))
    wanted = 0.25 * np.clip(n, 2, 5) + 0.75 * n
    got = MinMaxNorm(2, 5, 0.25, axis=(0, 2))(W)
    np.testing.assert_allclose(got, W * wanted / (1e-7 + n), rtol=1e-14)


def test_what_they_promise():
    assert norms(MaxNorm(1.0)(W), 0).max() <= 1
    np.testing.assert_allclose(norms(UnitNorm((0, 2))(W), (0, 2)), 1, rtol=1e-6)
    tight = norms(MinMaxNorm(0.5, 0.75)(W), 0)
    assert tight.max() <= 0.75
    np.testing.assert_allclose(tight, 0.75, rtol=1e-6)
    np.testing.assert_allclose(norms(MinMaxNorm(50, 60)(W), 0), 50, rtol=1e-6)
    np.testing.assert_array_equal(MaxNorm()(np.zeros((2, 2))), 0)
    # Per-filter norms of a transposed kernel (k, filters, in_channels).
    assert norms(MaxNorm(1.0, axis=(0, 2))(W), (0, 2)).shape == (1, 3, 1)


@pytest.mark.parametrize("constraint", ALL, ids=repr)
def test_equals_keras(keras, constraint):
    w = W.astype(np.float32)
    theirs = getattr(keras.constraints, type(constraint).__name__)(**constraint.get_config())
    np.testing.assert_allclose(constraint(w), np.asarray(theirs(w)), rtol=1e-6)


@pytest.mark.parametrize("constraint", ALL, ids=repr)
@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64"])
def test_every_library(constraint, library, dtype):
    if library == "jax" and dtype == "float64":
        pytest.skip("JAX has float64 only where x64 is enabled")
    if library == "array_api_strict" and dtype == "float16":
        pytest.skip("array_api_strict has no float16")
    if isinstance(constraint, NonNeg) and dtype == "complex64":
        pytest.skip("complex numbers have no order: see test_errors")
    w = W.astype(dtype)
    given = make(library, w)
    got = constraint(given)
    assert type(got) is type(given)
    assert dtype_name(got.dtype) == dtype
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(
        to_numpy(got),
        constraint(w.astype(np.complex128 if dtype[0] == "c" else np.float64)),
        rtol=8 * eps,
        atol=eps * 1e-3,
    )
    np.testing.assert_array_equal(to_numpy(given), w)


def test_complex_norms_are_of_the_moduli():
    z = np.asarray([[3.0], [4j]])
    np.testing.assert_allclose(UnitNorm()(z), [[0.6], [0.8j]], rtol=1e-7)


def test_half_types_do_not_overflow():
    w = np.full((1000,), 300, np.float16)
    np.testing.assert_allclose(UnitNorm()(w), 1000**-0.5, rtol=1e-3)


def test_nan_stays_nan():
    assert np.isnan(NonNeg()(np.asarray([np.nan])))


def test_names():
    assert get("maxnorm") == get("max_norm") == get("MaxNorm") == MaxNorm(2, 0)
    assert get("nonneg") == get("non_neg") == NonNeg()
    assert get("unitnorm") == get("unit_norm") == UnitNorm()
    assert get("min_max_norm") == MinMaxNorm(0, 1, 1, 0)


def test_errors():
    with pytest.raises(TypeError, match=r"Expected NonNeg .* Received dtype=complex64"):
        NonNeg()(np.ones(2, np.complex64))
    for constraint in ALL:
        with pytest.raises(TypeError, match=r"Received dtype=int64. Cast it first"):
            constraint(np.ones((2, 2, 2), np.int64))
    for axis in (3, -4, (0, 3), (0, 0), (0, -3)):
        with pytest.raises(
            ValueError, match=r"different axes of the array. Received axis=.*shape=\(5, 3, 2\)"
        ):
            UnitNorm(axis)(W)
    for axis in ("0", 1.0, None, (0, 1.5)):
        with pytest.raises(TypeError, match="Expected axis to be an integer or a sequence"):
            MaxNorm(axis=axis)
    with pytest.raises(ValueError, match=r"at least one axis. Received axis=\(\)"):
        MaxNorm(axis=())
    with pytest.raises(ValueError, match=r"Received max_value=-1\.0"):
        MaxNorm(-1)
    with pytest.raises(ValueError, match=r"Expected rate to be between 0 and 1. Received rate=1\.5"):
        MinMaxNorm(rate=1.5)
    with pytest.raises(ValueError, match=r"Received min_value=2\.0, max_value=1\.0"):
        MinMaxNorm(2.0)
