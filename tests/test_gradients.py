"""`vjp`: adjoint identities, finite differences, and the numbers of torch and JAX."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import gpuconv
from gpuconv import activations, regularizers
from tests import emulator
from tests.bounds import noting
from tests.reference import expected
from tests.strategies import cases
from tests.test_activation_pullbacks import ALONG_AXIS, ELEMENTWISE, made
from tests.test_cuda import Cupy, pretend


def options_of(case):
    return case.settings | {"groups": case.groups}


def inner(a, b):
    """<a, b> = sum(conj(a) * b), exact on small integers."""
    return np.vdot(np.asarray(a), np.asarray(b))


def integers(rng, shape, dtype):
    drawn = rng.integers(-4, 5, shape)
    return (drawn + 1j * rng.integers(-4, 5, shape) if dtype == "complex128" else drawn).astype(dtype)


@given(case=cases(), data=st.data(), dtype=st.sampled_from(["float64", "complex128"]))
def test_pullbacks_are_the_adjoints_of_linear_maps(case, data, dtype):
    """Exactly, on integers: <dy, A dx'> = <dx, dx'>, and so for the kernel and the bias."""
    assume(expected(case) is not None)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    x, kernel = (integers(rng, a.shape, dtype) for a in (case.x, case.kernel))
    bias = None if case.bias is None else integers(rng, case.bias.shape, dtype)
    channels_first = data.draw(st.booleans())
    options = options_of(case) | {"data_format": "channels_first" if channels_first else "channels_last"}
    x = np.moveaxis(x, -1, 1) if channels_first else x
    op = getattr(gpuconv, case.op)
    y, pullback = gpuconv.vjp(op, x, kernel, bias, **options)
    np.testing.assert_array_equal(y, op(x, kernel, bias, **options))
    dy = integers(rng, y.shape, dtype)
    dx, dkernel, dbias = pullback(dy)
    other_x, other_kernel = integers(rng, x.shape, dtype), integers(rng, kernel.shape, dtype)
    assert (dx.shape, dkernel.shape) == (x.shape, kernel.shape)
    assert dx.dtype == dkernel.dtype == dtype
    assert inner(dx, other_x) == inner(dy, op(other_x, kernel, **options))
    assert inner(dkernel, other_kernel) == inner(dy, op(x, other_kernel, **options))
    if bias is None:
        assert dbias is None
    else:
        other_bias = integers(rng, bias.shape, dtype)
        made = op(np.zeros_like(x), kernel, other_bias, **options)
        assert inner(dbias, other_bias) == inner(dy, made)


ACTIVATIONS = [None, *(made(*entry[:2]) for entry in ELEMENTWISE), *map(activations.get, ALONG_AXIS)]
REGULARIZERS = [None, regularizers.L1(0.3), regularizers.L2(0.2), regularizers.L1L2(0.3, 0.2)]


@settings(max_examples=max(1000, settings.default.max_examples))
@given(
    case=cases(),
    activation=st.sampled_from(ACTIVATIONS),
    penalties=st.tuples(*[st.sampled_from(REGULARIZERS)] * 3),
    data_format=st.sampled_from(["channels_first", "channels_last"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_gradients_are_finite_differences(case, activation, penalties, data_format, seed):
    """Of <weights, y> and what regularizers add for y, the kernel and the bias, along a random direction."""
    assume(expected(case) is not None)
    rng = np.random.default_rng(seed)
    shape = case.x.shape if data_format == "channels_last" else np.moveaxis(case.x, -1, 1).shape
    shapes = (shape, case.kernel.shape, *(() if case.bias is None else (case.bias.shape,)))
    arrays, direction = ([rng.standard_normal(shape) for shape in shapes] for _ in range(2))
    options = options_of(case) | {"data_format": data_format}
    op = getattr(gpuconv, case.op)
    plain = op(*arrays, **options)
    assume(plain.size)
    assume(activation is not activations.glu or plain.shape[-1] % 2 == 0)
    options["activation"] = activation
    y, pullback = gpuconv.vjp(op, *arrays, **options)
    weights = rng.standard_normal(y.shape)

    def terms(step):
        moved = [array + step * along for array, along in zip(arrays, direction, strict=True)]
        made = op(*moved, **options)
        paid = [function(a) for function, a in zip(penalties, (made, *moved[1:]), strict=False) if function]
        return np.concatenate([(weights * made).ravel(), np.array(paid)])

    def penalty(function, array):
        return 0 if function is None else regularizers.gradient(function, array)

    gradients = list(pullback(weights + penalty(penalties[0], y)))[: len(arrays)]
    for place, function in enumerate(penalties[1 : len(arrays)], start=1):
        gradients[place] = gradients[place] + penalty(function, arrays[place])
    ours = sum(np.vdot(gradient, along) for gradient, along in zip(gradients, direction, strict=True))
    step = 1e-6
    before, here, after = terms(-step), terms(0), terms(step)
    backward, forward = (here - before).sum() / step, (after - here).sum() / step
    # The derivative is a one-sided difference on the side that has no kink, but for a curvature that both
    # show; and each term is rounded, after sums of some hundred roundings.
    rounding = 256 * np.finfo(float).eps * abs(here).sum() / step
    with noting((case, activation, penalties)):
        assert abs(ours - (backward + forward) / 2) <= abs(forward - backward) + rounding


def test_every_library_agrees_with_numpy(xp):
    rng = np.random.default_rng(3)
    for op, kernel_shape in (("conv1d_transpose", (5, 4, 6)), ("conv1d", (5, 3, 8))):
        x, kernel = integers(rng, (2, 9, 6), "float32"), integers(rng, kernel_shape, "float32")
        bias = integers(rng, (8,), "float32")
        options = {"strides": 2, "padding": "same", "groups": 2}
        y, pullback = gpuconv.vjp(op, x, kernel, bias, **options)
        dy = integers(rng, y.shape, "float32")
        theirs, pull_theirs = gpuconv.vjp(op, *map(xp.asarray, (x, kernel, bias)), **options)
        for a, b in zip((y, *pullback(dy)), (theirs, *pull_theirs(xp.asarray(dy))), strict=True):
            b = b.get() if hasattr(b, "get") else np.asarray(b)
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_halves_are_summed_in_float32_and_rounded_once(dtype):
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="not installed: pip install gpuconv[test]")
    kind = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    x, kernel, bias = np.ones((3, 700, 2), kind), np.ones((4, 3, 2), kind), np.zeros(3, kind)
    y, pullback = gpuconv.vjp("conv1d_transpose", x, kernel, bias, strides=4)
    dx, dkernel, dbias = pullback(np.ones_like(y))
    assert dx.dtype == dkernel.dtype == dbias.dtype == kind
    assert (dkernel == np.asarray(2100, kind)).all()
    assert (dbias == np.asarray(8400, kind)).all()


def test_each_gradient_has_the_type_of_what_it_belongs_to():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 6, 3)).astype(np.float32)
    kernel = rng.standard_normal((3, 2, 3)) + 1j * rng.standard_normal((3, 2, 3))
    y, pullback = gpuconv.vjp("conv1d_transpose", x, kernel)
    dx, dkernel, _ = pullback(y)
    assert (y.dtype, dx.dtype, dkernel.dtype) == (np.complex128, np.float32, np.complex128)
    wide, pull_wide = gpuconv.vjp("conv1d_transpose", x.astype(np.complex128), kernel)
    np.testing.assert_allclose(dx, pull_wide(wide)[0].real, rtol=1e-6)


@given(case=cases())
def test_torch_has_the_same_gradients(case):
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install gpuconv[peers]")
    assume(expected(case) is not None)
    arrays = case.x, case.kernel, case.bias
    leaves = [None if a is None else torch.tensor(a, requires_grad=True) for a in arrays]
    y = getattr(gpuconv, case.op)(*leaves, **options_of(case))  # its own autodiff, through the standard
    dy = np.random.default_rng(0).integers(-3, 4, tuple(y.shape)).astype(np.float64)
    y.backward(torch.tensor(dy))
    _, pullback = gpuconv.vjp(case.op, case.x, case.kernel, case.bias, **options_of(case))
    with noting(case):
        for ours, theirs in zip(pullback(dy), leaves, strict=True):
            if theirs is not None:
                np.testing.assert_array_equal(ours, theirs.grad.numpy())


@settings(max_examples=settings.default.max_examples // 15)  # JAX compiles every step of every shape
@given(case=cases(), dtype=st.sampled_from(["float64", "complex128"]))
def test_jax_has_the_same_gradients_but_for_the_conjugation(case, dtype):
    jax = pytest.importorskip("jax", reason="jax is not installed: pip install gpuconv[peers]")
    jax.config.update("jax_enable_x64", True)
    assume(expected(case) is not None)
    rng = np.random.default_rng(5)
    arrays = [integers(rng, a.shape, dtype) for a in (case.x, case.kernel, case.bias) if a is not None]
    op, options = getattr(gpuconv, case.op), options_of(case)
    y, pullback = gpuconv.vjp(op, *arrays, **options)
    dy = integers(rng, y.shape, dtype)
    _, theirs = jax.vjp(lambda *given: op(*given, **options), *map(jax.numpy.asarray, arrays))
    with noting(case):
        for ours, other in zip(pullback(dy), theirs(jax.numpy.asarray(dy.conj())), strict=False):
            np.testing.assert_array_equal(ours, np.asarray(other).conj())


@pytest.mark.skipif(bool(emulator.missing()), reason=emulator.missing() or "")
def test_cupy_arrays_are_pulled_back_by_kernels(monkeypatch):
    cupy = Cupy()
    pretend(monkeypatch, cupy)
    rng = np.random.default_rng(6)
    for op, kernel_shape in (("conv1d_transpose", (5, 4, 6)), ("conv1d", (5, 3, 8))):
        arrays = [integers(rng, shape, "complex128") for shape in ((2, 9, 6), kernel_shape, (8,))]
        options = {"strides": 2, "padding": "same", "groups": 2}
        y, pullback = gpuconv.vjp(op, *arrays, **options)
        theirs, pull_theirs = gpuconv.vjp(op, *(array.view(cupy.ndarray) for array in arrays), **options)
        cupy.launched.clear()
        for ours, other in zip(pullback(y), pull_theirs(theirs), strict=True):
            np.testing.assert_array_equal(ours, other)
        assert "direct_kernel_gradient" in cupy.launched


def test_cotangents_that_do_not_fit_are_refused():
    y, pullback = gpuconv.vjp("conv1d", np.ones((1, 5, 2)), np.ones((3, 2, 4)))
    with pytest.raises(ValueError, match=r"Expected dy of shape \(1, 3, 4\)\. Received dy of shape \(1, 3\)"):
        pullback(np.ones((1, 3)))
    with pytest.raises(TypeError, match=r"Expected dy of float64\. Received dy of float32"):
        pullback(y.astype(np.float32))
    with pytest.raises(TypeError, match="dy: Expected an array"):
        pullback([[[1.0]]])
    with pytest.raises(TypeError, match="among strides, padding"):
        gpuconv.vjp("conv1d", np.ones((1, 5, 2)), np.ones((3, 2, 4)), out=y)


def test_empty_arrays_have_empty_gradients_or_zeros():
    y, pullback = gpuconv.vjp("conv1d_transpose", np.ones((0, 5, 2)), np.ones((3, 4, 2)), np.ones(4))
    dx, dkernel, dbias = pullback(y)
    assert dx.shape == (0, 5, 2)
    assert not dkernel.any()
    assert not dbias.any()
