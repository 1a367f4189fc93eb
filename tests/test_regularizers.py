"""Penalties against hand sums and live Keras, on every array library."""

from __future__ import annotations

import math
import os

import numpy as np
import pytest

from gpuconv.namespace import dtype_name, to_numpy
from gpuconv.regularizers import L1, L1L2, L2, OrthogonalRegularizer, get, gradient

X = np.asarray([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]])
ALL = [
    L1(0.5),
    L2(0.25),
    L1L2(0.5, 0.25),
    L1L2(),
    OrthogonalRegularizer(0.5),
    OrthogonalRegularizer(0.5, "columns"),
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


def test_sums():
    assert L1(0.5)(X) == 0.5 * 7.5
    assert L2(0.25)(X) == 0.25 * 15.25
    assert L1L2(0.5, 0.25)(X) == 0.5 * 7.5 + 0.25 * 15.25
    assert L1L2()(X) == 0


def test_defaults_are_those_of_keras():
    assert L1() == L1(0.01) == L1(None)
    assert L2() == L2(0.01) == L2(None)
    assert L1L2() == L1L2(0.0, 0.0) == L1L2(None, None) == get("l1l2")
    assert OrthogonalRegularizer() == OrthogonalRegularizer(0.01, "rows")


def test_orthogonal_is_the_mean_over_pairs():
    total = 0.0
    columns = X.T
    for i in range(3):
        for j in range(i):
            u, v = columns[i], columns[j]
            total += abs(u @ v) / math.sqrt((u @ u) * (v @ v))
    np.testing.assert_allclose(OrthogonalRegularizer(0.5, "columns")(X), 0.5 * total / 3, rtol=1e-14)
    np.testing.assert_allclose(OrthogonalRegularizer(0.5)(X.T), 0.5 * total / 3, rtol=1e-14)


def test_orthogonal_edge_cases():
    assert OrthogonalRegularizer()(X[:1]) == 0  # one row has no pairs
    assert OrthogonalRegularizer(1.0)(np.zeros((3, 4))) == 0
    assert OrthogonalRegularizer(1.0)(np.asarray([[1e-9, 0.0], [1.0, 0.0]])) == pytest.approx(1e-2)


@pytest.mark.parametrize("regularizer", ALL, ids=repr)
def test_equals_keras(keras, regularizer):
    x = np.random.default_rng(3).normal(size=(5, 4)).astype(np.float32)
    theirs = getattr(keras.regularizers, type(regularizer).__name__)(**regularizer.get_config())
    expected = float(theirs(keras.ops.convert_to_tensor(x)))
    np.testing.assert_allclose(regularizer(x), expected, rtol=1e-6)


@pytest.mark.parametrize("regularizer", ALL, ids=repr)
@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
def test_every_library(regularizer, library, dtype):
    if library == "jax" and dtype == "float64":
        pytest.skip("JAX has float64 only where x64 is enabled")
    x = X.astype(dtype)
    given = make(library, x)
    got = regularizer(given)
    assert type(got) is type(given)
    assert got.shape == ()
    assert dtype_name(got.dtype) == ("float32" if dtype == "complex64" else dtype)
    np.testing.assert_allclose(to_numpy(got), regularizer(X), rtol=1e-6 if dtype != "float64" else 1e-14)


def test_complex_is_by_the_modulus():
    z = np.asarray([[3 + 4j, 0], [1j, 0]])
    assert L1(1.0)(z) == 6
    assert L2(1.0)(z) == 26
    np.testing.assert_allclose(OrthogonalRegularizer(1.0)(z), 1, rtol=1e-15)
    # (1, i) and (1, -i) are orthogonal under the conjugate product alone.
    np.testing.assert_allclose(OrthogonalRegularizer(1.0)(np.asarray([[1, 1j], [1, -1j]])), 0, atol=1e-15)


@pytest.mark.parametrize("regularizer", ALL[:4], ids=repr)
def test_half_types_do_not_overflow(regularizer):
    x = np.full((300, 300), 200, np.float16)
    got = regularizer(x)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, regularizer(x.astype(np.float64)), rtol=1e-4)


def test_autodiff():
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    x = torch.tensor(X, requires_grad=True)
    (grad,) = torch.autograd.grad(L1L2(0.5, 0.25)(x), x)
    np.testing.assert_allclose(grad.numpy(), 0.5 * np.sign(X) + 0.5 * X)
    x = torch.tensor(np.random.default_rng(1).normal(size=(3, 4)), requires_grad=True)
    assert torch.autograd.gradcheck(OrthogonalRegularizer(0.5), (x,))


def test_empty():
    assert L1L2(0.5, 0.5)(np.zeros((0, 3))) == 0
    assert L1L2(0.5, 0.5).gradient(np.zeros((0, 3))).shape == (0, 3)


@pytest.mark.parametrize("regularizer", ALL, ids=repr)
@pytest.mark.parametrize("kind", ["real", "complex"])
def test_gradient_equals_the_difference_quotient(regularizer, kind):
    rng = np.random.default_rng(4)
    for shape in ((2, 3), (5, 4), (1, 3), (4, 1)):
        x = rng.normal(size=shape) + (1j * rng.normal(size=shape) if kind == "complex" else 0)
        got = regularizer.gradient(x)
        assert (got.shape, got.dtype) == (x.shape, x.dtype)
        step = 2.0**-17
        for index in np.ndindex(shape):
            for way, part in ((1, np.real), (1j, np.imag))[: 1 + (kind == "complex")]:
                moved = np.zeros_like(x)
                moved[index] = way * step
                expected = (regularizer(x + moved) - regularizer(x - moved)) / (2 * step)
                # step**2 = 6e-11 times a third derivative, and roundings of a penalty below 30 over step.
                np.testing.assert_allclose(part(got[index]), expected, rtol=1e-7, atol=2e-8)


def test_gradient_by_hand():
    np.testing.assert_array_equal(L1(0.5).gradient(X), 0.5 * np.sign(X))  # 0 at 0
    np.testing.assert_array_equal(L2(0.25).gradient(X), 0.5 * X)
    np.testing.assert_array_equal(L1L2(0.5, 0.25).gradient(X), 0.5 * np.sign(X) + 0.5 * X)
    np.testing.assert_array_equal(L1L2().gradient(X), 0 * X)
    np.testing.assert_allclose(L1(1.0).gradient(np.asarray([3 + 4j, 0])), [0.6 + 0.8j, 0], rtol=1e-15)
    # An infinite weight has no say in a sum that is not taken.
    np.testing.assert_array_equal(L1L2(l1=0.5).gradient(np.asarray([np.inf, -np.inf])), [0.5, -0.5])


def test_orthogonal_gradient_edge_cases():
    assert np.all(OrthogonalRegularizer().gradient(X[:1]) == 0)  # one row has no pairs
    assert np.all(OrthogonalRegularizer().gradient(np.eye(3)) == 0)
    assert np.all(OrthogonalRegularizer(1.0).gradient(np.zeros((3, 4))) == 0)
    # A row shorter than 1e-7 is divided by 1e-7, which does not depend on it.
    got = OrthogonalRegularizer(1.0).gradient(np.asarray([[1e-9, 0.0], [1.0, 0.0]], np.float32))
    np.testing.assert_allclose(got, [[1e7, 0], [0, 0]], rtol=1e-6)


@pytest.mark.parametrize("regularizer", ALL, ids=repr)
def test_gradient_equals_keras(keras, regularizer):
    jax = pytest.importorskip("jax", reason="needs JAX")
    x = np.random.default_rng(3).normal(size=(5, 4)).astype(np.float32)
    theirs = getattr(keras.regularizers, type(regularizer).__name__)(**regularizer.get_config())
    expected = np.asarray(jax.grad(theirs)(jax.numpy.asarray(x)))
    np.testing.assert_allclose(regularizer.gradient(x), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("regularizer", [r for r in ALL if r != L1L2()], ids=repr)
@pytest.mark.parametrize("kind", ["real", "complex"])
def test_gradient_equals_torchs_autograd(regularizer, kind):
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    rng = np.random.default_rng(5)
    x = rng.normal(size=(5, 4)) + (1j * rng.normal(size=(5, 4)) if kind == "complex" else 0)
    x[1, 2] = 0
    given = torch.tensor(x, requires_grad=True)
    (expected,) = torch.autograd.grad(regularizer(given), given)
    np.testing.assert_allclose(regularizer.gradient(x), expected.numpy(), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
def test_gradient_in_every_library(xp, dtype):
    x = X.astype(dtype)
    given = xp.tensor(x) if xp.__name__ == "torch" else xp.asarray(x)
    for regularizer in ALL:
        got = gradient(regularizer, given)
        assert type(got) is type(given)
        assert (dtype_name(got.dtype), tuple(got.shape)) == (dtype, X.shape)
        eps = np.finfo(dtype).eps
        np.testing.assert_allclose(to_numpy(got), regularizer.gradient(X), rtol=8 * eps, atol=8 * eps)


@pytest.mark.parametrize("regularizer", ALL, ids=repr)
def test_gradient_of_half_types_is_computed_in_float32(regularizer):
    x = np.random.default_rng(6).normal(0, 200, (30, 40)).astype(np.float16)  # whose squares overflow
    got = regularizer.gradient(x)
    assert got.dtype == np.float16
    np.testing.assert_array_equal(got, regularizer.gradient(x.astype(np.float32)).astype(np.float16))


def test_gradient_of_a_callable_from_elsewhere():
    class Squares:
        def __call__(self, x):
            return (x * x).sum()

        def gradient(self, x):
            return 2 * x

    np.testing.assert_array_equal(gradient(Squares(), X), 2 * X)
    np.testing.assert_array_equal(gradient({"class_name": "L2", "config": {"l2": 0.5}}, X), X)
    with pytest.raises(NotImplementedError, match=r"Received regularizer=.*a method gradient\(x\)"):
        gradient(lambda x: x.sum(), X)


@pytest.mark.parametrize("cls", [L1, L2, L1L2, OrthogonalRegularizer])
def test_factors_are_finite_and_not_negative(cls):
    for wrong in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"Received (l1|l2|factor)="):
            cls(wrong)
    for wrong in ("1", True, 1j, X):
        with pytest.raises(TypeError, match=r"Expected (l1|l2|factor) to be a real number"):
            cls(wrong)


def test_errors():
    with pytest.raises(
        ValueError, match=r"Expected mode to be one of \('rows', 'columns'\).*mode='diagonal'"
    ):
        OrthogonalRegularizer(mode="diagonal")
    with pytest.raises(ValueError, match=r"array of rank 2. Received shape=\(2, 2, 2\)"):
        OrthogonalRegularizer()(np.zeros((2, 2, 2)))
    for regularizer in ALL:
        for function in (regularizer, regularizer.gradient):
            with pytest.raises(TypeError, match=r"Received dtype=int64. Cast it first"):
                function(np.ones((2, 2), np.int64))
