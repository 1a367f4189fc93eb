"""Derivatives of the activations: difference quotients, autodiff of torch and Keras, kinks, extremes."""

from __future__ import annotations

import functools
import os

import numpy as np
import pytest

from gpuconv import activations
from gpuconv._activations_pullbacks import PULLBACKS
from gpuconv.namespace import dtype_name, to_numpy

# Every elementwise activation with several settings, and where its derivative jumps.
ELEMENTWISE = [
    ("celu", {}, []),
    ("celu", {"alpha": 0.5}, []),
    ("celu", {"alpha": 2.0}, []),
    ("elu", {}, []),
    ("elu", {"alpha": 0.5}, [0]),
    ("elu", {"alpha": -1.5}, [0]),
    ("exponential", {}, []),
    ("gelu", {}, []),
    ("gelu", {"approximate": True}, []),
    ("hard_shrink", {}, [-0.5, 0.5]),
    ("hard_shrink", {"threshold": 1.25}, [-1.25, 1.25]),
    ("hard_sigmoid", {}, [-3, 3]),
    ("hard_silu", {}, [-3, 3]),
    ("hard_tanh", {}, [-1, 1]),
    ("leaky_relu", {}, [0]),
    ("leaky_relu", {"negative_slope": 0.01}, [0]),
    ("leaky_relu", {"negative_slope": -2.0}, [0]),
    ("linear", {}, []),
    ("log_sigmoid", {}, []),
    ("mish", {}, []),
    ("relu", {}, [0]),
    ("relu", {"negative_slope": 0.3}, [0]),
    ("relu", {"max_value": 1.5}, [0, 1.5]),
    ("relu", {"max_value": 6}, [0, 6]),
    ("relu", {"max_value": 0.0}, [0]),
    ("relu", {"threshold": 0.7}, [0.7]),
    ("relu", {"threshold": -0.7}, [-0.7]),
    ("relu", {"max_value": 0.5, "threshold": 0.7}, [0.7]),
    ("relu", {"negative_slope": 0.3, "max_value": 1.5}, [0, 1.5]),
    ("relu", {"negative_slope": 0.3, "threshold": 0.7}, [0.7]),
    ("relu", {"negative_slope": 0.3, "max_value": 1.5, "threshold": 0.7}, [0.7, 1.5]),
    ("relu", {"negative_slope": 0.3, "max_value": 1.5, "threshold": -0.7}, [-0.7, 0, 1.5]),
    ("relu6", {}, [0, 6]),
    ("selu", {}, [0]),
    ("sigmoid", {}, []),
    ("silu", {}, []),
    ("soft_shrink", {}, [-0.5, 0.5]),
    ("soft_shrink", {"threshold": 1.25}, [-1.25, 1.25]),
    ("softplus", {}, []),
    ("softsign", {}, [0]),
    ("sparse_plus", {}, [-1, 1]),
    ("sparse_sigmoid", {}, [-1, 1]),
    ("squareplus", {}, []),
    ("squareplus", {"b": 0.25}, []),
    ("tanh", {}, []),
    ("tanh_shrink", {}, []),
    ("threshold", {"threshold": 0.3, "default_value": -2.0}, [0.3]),
]
ALONG_AXIS = ["glu", "log_softmax", "softmax", "sparsemax"]
ANALYTIC = ["exponential", "linear", "sigmoid", "silu", "tanh", "tanh_shrink"]
IDS = [f"{name}-{'-'.join(f'{k}={v}' for k, v in params.items())}" for name, params, _ in ELEMENTWISE]
elementwise = pytest.mark.parametrize(("name", "params", "kinks"), ELEMENTWISE, ids=IDS)


def made(name, params):
    """The activation as a config makes it."""
    return activations.get({"class_name": name, "config": params})


def derivative(function, x):
    """Derivative of an elementwise activation at `x`."""
    return activations.pullback(function, x, function(x), np.ones_like(x))


def points(name, kinks):
    """A grid with every kink on it."""
    grid = np.concatenate([np.linspace(-8, 8, 41), [-800.0, -40.0, 40.0, 800.0], kinks])
    return grid[grid < 100] if name == "exponential" else grid


@pytest.fixture(scope="module")
def keras():
    os.environ["KERAS_BACKEND"] = "jax"
    module = pytest.importorskip("keras", reason="needs Keras, with which the numbers are compared")
    if module.backend.backend() != "jax":
        pytest.skip("Keras is already running on another backend than JAX")
    return module


@pytest.fixture
def jax():
    module = pytest.importorskip("jax", reason="needs JAX")
    with module.enable_x64(True):
        yield module


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="needs PyTorch")


def test_every_activation_has_a_derivative_and_is_tested():
    names = set(activations._CATALOGUE.canonical)
    assert set(PULLBACKS) == names
    assert {name for name, _, _ in ELEMENTWISE} | set(ALONG_AXIS) == names


@elementwise
def test_equals_the_difference_quotient(name, params, kinks):
    function = made(name, params)
    rng = np.random.default_rng(3)
    x, dy = rng.uniform(-4, 4, 400), rng.normal(size=400)
    x = x[np.all(np.abs(x[:, None] - kinks) > 1e-3, axis=1)]
    dy = dy[: x.size]
    got = activations.pullback(function, x, function(x), dy)
    step = 2.0**-17
    expected = dy * (function(x + step) - function(x - step)) / (2 * step)
    # step**2 / 6 times the third derivative, at most exp(4) < 60, and two roundings of y, < 60, over step.
    error = 60 * (step**2 / 6 + 2 * 2.0**-53 / step)
    assert np.all(np.abs(got - expected) <= error * np.abs(dy))


@pytest.mark.parametrize("name", ALONG_AXIS)
@pytest.mark.parametrize("seed", range(12))
def test_equals_the_difference_quotient_along_any_axis(name, seed):
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in 2 * rng.integers(1, 4, rng.integers(1, 4)))
    axis = int(rng.integers(-len(shape), len(shape)))
    function = made(name, {"axis": axis})
    x = rng.normal(0, 1, shape)
    if name == "sparsemax":
        # Multiples of 1 / 1000 put tau, of at most 6 of them, further from each than the step.
        x = np.round(x, 3) + rng.permutation(x.size).reshape(shape) * 2e-3
    y = function(x)
    dy = rng.normal(size=y.shape)
    got = activations.pullback(function, x, y, dy)
    step = 2.0**-17
    expected = np.empty(shape)
    for index in np.ndindex(shape):
        moved = np.zeros(shape)
        moved[index] = step
        expected[index] = np.sum(dy * (function(x + moved) - function(x - moved))) / (2 * step)
    # As above, with third derivatives and values of at most 6, summed.
    np.testing.assert_allclose(got, expected, rtol=0, atol=6e-9 * np.sum(np.abs(dy)))


@elementwise
def test_equals_autodiff_of_the_activation_on_torch(torch, name, params, kinks):
    function = made(name, params)
    x = points(name, kinks)
    given = torch.tensor(x, requires_grad=True)
    (expected,) = torch.autograd.grad(function(given).sum(), given)
    np.testing.assert_allclose(derivative(function, x), expected.numpy(), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("name", ALONG_AXIS)
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_equals_autodiff_along_an_axis_on_torch(torch, name, axis):
    function = made(name, {"axis": axis})
    rng = np.random.default_rng(5)
    x = rng.normal(0, 2, (4, 6, 8))
    given = torch.tensor(x, requires_grad=True)
    y = function(given)
    dy = rng.normal(size=tuple(y.shape))
    (expected,) = torch.autograd.grad(y, given, torch.tensor(dy))
    got = activations.pullback(function, x, function(x), dy)
    np.testing.assert_allclose(got, expected.numpy(), rtol=1e-13, atol=1e-14)


def test_sparsemax_where_an_entry_just_leaves(torch):
    x = np.asarray([[1.0, 0.0, -1.0], [0.5, 0.5, -0.5], [1.0, 1.0, 0.5], [3.0, 1.0, 0.0]])
    given = torch.tensor(x, requires_grad=True)
    y = activations.sparsemax(given)
    dy = np.random.default_rng(8).normal(size=x.shape)
    (expected,) = torch.autograd.grad(y, given, torch.tensor(dy))
    got = activations.pullback("sparsemax", x, y.detach().numpy(), dy)
    np.testing.assert_allclose(got, expected.numpy(), rtol=1e-14, atol=1e-15)
    np.testing.assert_array_equal(got[y.detach().numpy() == 0], 0)


# torch's own functions. Its leaky_relu has the slope at 0, where Keras on JAX has 1.
TORCH = {
    "celu": lambda f, x: f.celu(x),
    "elu": lambda f, x: f.elu(x),
    "gelu": lambda f, x: f.gelu(x),
    "hard_shrink": lambda f, x: f.hardshrink(x),
    "hard_sigmoid": lambda f, x: f.hardsigmoid(x),
    "hard_silu": lambda f, x: f.hardswish(x),
    "hard_tanh": lambda f, x: f.hardtanh(x),
    "log_sigmoid": lambda f, x: f.logsigmoid(x),
    "mish": lambda f, x: f.mish(x),
    "relu": lambda f, x: f.relu(x),
    "relu6": lambda f, x: f.relu6(x),
    "selu": lambda f, x: f.selu(x),
    "sigmoid": lambda f, x: f.sigmoid(x),
    "silu": lambda f, x: f.silu(x),
    "soft_shrink": lambda f, x: f.softshrink(x),
    "softplus": lambda f, x: f.softplus(x),
    "softsign": lambda f, x: f.softsign(x),
    "tanh": lambda f, x: f.tanh(x),
    "tanh_shrink": lambda f, x: f.tanhshrink(x),
}


@pytest.mark.parametrize("name", TORCH)
def test_equals_torchs_own(torch, name):
    x = points(name, [-3, -1, -0.5, 0, 0.5, 1, 3, 6])
    given = torch.tensor(x, requires_grad=True)
    (expected,) = torch.autograd.grad(TORCH[name](torch.nn.functional, given).sum(), given)
    got = derivative(activations.get(name), x)
    # 1 - y**2, and its like, has lost what y had to round. torch's 1 / 6 is a float32.
    rtol = 1e-7 if name == "hard_sigmoid" else 1e-12
    np.testing.assert_allclose(got, expected.numpy(), rtol=rtol, atol=1e-14)


@elementwise
def test_equals_keras_on_jax(keras, jax, name, params, kinks):
    x = points(name, kinks)
    function = getattr(keras.activations, name)
    expected = np.asarray(jax.vmap(jax.grad(lambda t: function(t, **params)))(x))
    got = derivative(made(name, params), x)
    # Keras on JAX halves the derivative where jnp.clip ends, and has the whole at the ends of hard_tanh;
    # Keras on torch has the whole, and 0, there. Ours is 0, as at the ends of relu6 in both.
    cut = name in ("hard_tanh", "sparse_sigmoid") or params.get("max_value", 6) != 6
    ends = np.isin(x, [k for k in kinks if cut and k != params.get("threshold", 0)])
    assert np.all(got[ends] == 0)
    # Keras computes some in float32, whatever it is given.
    np.testing.assert_allclose(got[~ends], expected[~ends], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["glu", "log_softmax", "softmax"])  # Keras' sparsemax is not the paper's
@pytest.mark.parametrize("axis", [0, -1])
def test_equals_keras_on_jax_along_an_axis(keras, jax, name, axis):
    function = getattr(keras.activations, name)
    x = np.random.default_rng(6).normal(0, 2, (4, 3, 6))
    y, vjp = jax.vjp(functools.partial(function, axis=axis), x)
    dy = np.random.default_rng(7).normal(size=y.shape)
    got = activations.pullback(made(name, {"axis": axis}), x, np.asarray(y), dy)
    np.testing.assert_allclose(got, vjp(dy)[0], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ANALYTIC)
@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_equals_torchs_autograd(torch, name, dtype):
    own = {
        "exponential": torch.exp,
        "linear": lambda z: z,
        "sigmoid": torch.sigmoid,
        "silu": lambda z: z * torch.sigmoid(z),  # its own has no gradient
        "tanh": torch.tanh,
        "tanh_shrink": lambda z: z - torch.tanh(z),
    }[name]
    rng = np.random.default_rng(9)
    z, dy = ((rng.normal(size=30) + 1j * rng.normal(size=30)).astype(dtype) for _ in range(2))
    given = torch.tensor(z, requires_grad=True)
    (expected,) = torch.autograd.grad(own(given), given, torch.tensor(dy))
    function = activations.get(name)
    got = activations.pullback(function, z, function(z), dy)
    assert got.dtype == z.dtype
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(got, expected.numpy(), rtol=64 * eps, atol=64 * eps)


@pytest.mark.parametrize("name", ANALYTIC)
def test_complex_is_the_conjugate_of_the_difference_quotient(name):
    rng = np.random.default_rng(10)
    z, dy = (rng.normal(size=30) + 1j * rng.normal(size=30) for _ in range(2))
    function, step = activations.get(name), 2.0**-17
    quotient = (function(z + step) - function(z - step)) / (2 * step)
    got = activations.pullback(function, z, function(z), dy)
    np.testing.assert_allclose(got, dy * np.conj(quotient), rtol=1e-7, atol=1e-8)


@elementwise
@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_half_types_are_computed_in_float32_and_rounded_once(name, params, kinks, half):
    if half == "bfloat16":
        half = pytest.importorskip("ml_dtypes", reason="gives NumPy bfloat16").bfloat16
    function = made(name, params)
    rng = np.random.default_rng(11)
    x = np.concatenate([rng.uniform(-4, 4, 50), kinks]).astype(half)
    dy = rng.normal(size=x.size).astype(half)
    y = function(x)
    got = activations.pullback(function, x, y, dy)
    assert got.dtype == x.dtype
    wide = activations.pullback(function, *(array.astype(np.float32) for array in (x, y, dy)))
    np.testing.assert_array_equal(got, wide.astype(half))


@pytest.mark.parametrize("name", ALONG_AXIS)
def test_half_types_are_summed_in_float32(name):
    function = activations.get(name)
    x = np.linspace(-1, 1, 4096).astype(np.float16)
    y = function(x)
    dy = np.full(y.shape, 60.0, np.float16)  # of which float16 holds the sum of a thousand
    got = activations.pullback(function, x, y, dy)
    assert got.dtype == np.float16
    wide = activations.pullback(function, *(array.astype(np.float32) for array in (x, y, dy)))
    np.testing.assert_array_equal(got, wide.astype(np.float16))


def array(xp, values):
    """`values` as an array of `xp`, dtype kept."""
    return xp.tensor(values) if xp.__name__ == "torch" else xp.asarray(values)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64"])
def test_every_library_gives_the_same(xp, dtype):
    if xp.__name__ == "array_api_strict" and dtype == "float16":
        pytest.skip("array_api_strict has no float16")
    cases = [(name, params) for name, params, _ in ELEMENTWISE] + [(name, {"axis": 1}) for name in ALONG_AXIS]
    rng = np.random.default_rng(12)
    x = (rng.normal(0, 2, (3, 4, 2)) + (1j if dtype == "complex64" else 0)).astype(dtype)
    for name, params in cases:
        function = made(name, params)
        if dtype == "complex64" and not activations.supports_complex(function):
            continue
        y = function(x)
        dy = rng.normal(size=y.shape).astype(dtype)
        expected = activations.pullback(function, x, y, dy)
        given = [array(xp, values) for values in (x, y, dy)]
        got = activations.pullback(function, *given)
        assert type(got) is type(given[0])
        assert (dtype_name(got.dtype), tuple(got.shape)) == (dtype, x.shape)
        # float16 is rounded once, from float32: at most one last place apart.
        eps = np.finfo(dtype).eps
        np.testing.assert_allclose(to_numpy(got), expected, rtol=16 * eps, atol=16 * eps, err_msg=name)
        for values, before in zip(given, (x, y, dy), strict=True):
            np.testing.assert_array_equal(to_numpy(values), before)  # the arguments are left alone


def test_under_jax_jit(jax):
    x = np.random.default_rng(13).normal(0, 2, (4, 6))
    for name in activations._CATALOGUE.canonical:
        function = made(name, {"threshold": 0.3, "default_value": -2.0} if name == "threshold" else {})
        y = function(x)
        expected = activations.pullback(function, x, y, y)
        got = jax.jit(functools.partial(activations.pullback, function))(x, y, y)
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-14)


# What a derivative tends to at both ends, where it is not 0 and 1.
LIMITS = {
    "hard_shrink": (1, 1),
    "hard_sigmoid": (0, 0),
    "hard_tanh": (0, 0),
    "linear": (1, 1),
    "log_sigmoid": (1, 0),
    "relu6": (0, 0),
    "selu": (0, 1.0507009873554805),
    "sigmoid": (0, 0),
    "soft_shrink": (1, 1),
    "softsign": (0, 0),
    "sparse_sigmoid": (0, 0),
    "tanh": (0, 0),
    "tanh_shrink": (1, 1),
}


@elementwise
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_no_warning_far_from_zero(name, params, kinks, dtype):
    if name == "exponential":
        pytest.skip("is infinite there, and so is its derivative")
    # pytest turns NumPy's overflow and invalid-value warnings into errors.
    huge = np.finfo(dtype).max
    x = np.asarray([-np.inf, -huge, huge, np.inf], dtype)
    function = made(name, params)
    with np.errstate(all="ignore"):  # of which some activations make a NaN
        y = function(x)
    got = activations.pullback(function, x, y, np.ones_like(x))
    below, above = LIMITS.get(name, (0, 1))
    below = params.get("negative_slope", 0.2 if name == "leaky_relu" else below)
    above = 0 if "max_value" in params else above
    np.testing.assert_allclose(got, [below, below, above, above], rtol=np.finfo(dtype).eps, atol=1e-9)


@pytest.mark.parametrize("name", ALONG_AXIS)
def test_no_warning_far_from_zero_along_an_axis(name):
    x = np.asarray([-1e307, -1e4, 0.0, 700.0, 1e4, 1e307])
    y = activations.get(name)(x)
    got = activations.pullback(name, x, y, np.ones_like(y))
    assert np.all(np.isfinite(got))


@elementwise
def test_a_lost_loss_is_not_hidden(name, params, kinks):
    lost = np.full(2, np.nan)
    assert np.all(np.isnan(activations.pullback(made(name, params), lost, lost, lost)))


@pytest.mark.parametrize("name", ALONG_AXIS)
def test_a_lost_loss_is_not_hidden_along_an_axis(name):
    lost = np.full(4, np.nan)
    y = activations.get(name)(lost)
    assert np.all(np.isnan(activations.pullback(name, lost, y, y)))


def test_long_doubles():
    x = np.asarray([-1.0, 2.0], np.longdouble)
    got = derivative(activations.relu6, x)
    assert got.dtype == np.longdouble
    np.testing.assert_array_equal(got, [0, 1])


def test_saturated_elements_pass_nothing_on():
    infinite = np.full(3, np.inf)
    x = np.asarray([-9.0, 0.0, 9.0])
    np.testing.assert_array_equal(activations.pullback("relu6", x, activations.relu6(x), infinite), 0)


def test_small_tails_keep_their_accuracy():
    # Where y itself has rounded to -1, or 1: the derivative is exp(x), twice.
    x = np.asarray([-60.0])
    for name in ("elu", "celu"):
        np.testing.assert_allclose(derivative(activations.get(name), x), np.exp(x), rtol=1e-15)
    np.testing.assert_allclose(derivative(activations.log_sigmoid, -x), np.exp(x), rtol=1e-15)


def test_zero_dimensional_and_empty():
    for name in activations._CATALOGUE.canonical:
        function = made(name, {"threshold": 0.3, "default_value": -2.0} if name == "threshold" else {})
        shapes = [(0, 4), (4, 0)] if name in ALONG_AXIS else [(), (0, 4)]
        for shape in shapes:
            y = function(np.ones(shape))
            got = activations.pullback(function, np.ones(shape), y, np.ones_like(y))
            assert isinstance(got, np.ndarray)
            assert got.shape == shape


def test_takes_whatever_get_takes():
    x, dy = np.asarray([-1.0, 2.0]), np.asarray([3.0, 5.0])
    for given in (None, "linear", activations.linear, functools.partial(activations.linear)):
        np.testing.assert_array_equal(activations.pullback(given, x, x, dy), dy)
    config = {"class_name": "leaky_relu", "config": {"negative_slope": 0.5}}
    np.testing.assert_array_equal(activations.pullback(config, x, x, dy), [1.5, 5.0])
    np.testing.assert_array_equal(activations.pullback("hard_swish", 4 * x, x, dy), [0.0, 5.0])


class Square:
    """A user's activation that knows its derivative."""

    def __call__(self, x):
        return x * x

    def pullback(self, x, y, dy):
        assert np.array_equal(y, x * x)
        return 2 * x * dy


def test_a_callable_from_elsewhere_is_asked_for_its_own():
    x = np.asarray([1.0, -3.0])
    for given in (Square(), Square):
        np.testing.assert_array_equal(activations.pullback(given, x, x * x, np.ones(2)), [2.0, -6.0])


def test_errors():
    x = np.ones((2, 4))
    for unknown in (np.tanh, lambda x: x, functools.partial(np.clip, a_min=0)):
        with pytest.raises(NotImplementedError, match=r"Received activation=.*a method pullback\(x, y, dy\)"):
            activations.pullback(unknown, x, x, x)
    with pytest.raises(ValueError, match="Received activation='relo'"):
        activations.pullback("relo", x, x, x)
    with pytest.raises(ValueError, match=r"Expected y of shape \(2, 4\)\. Received y of \(4,\)"):
        activations.pullback("relu", x, x[0], x)
    with pytest.raises(ValueError, match=r"Expected dy of shape \(2, 2\)\. Received dy of \(2, 4\)"):
        activations.pullback("glu", x, x[:, :2], x)
    with pytest.raises(ValueError, match=r"Received axis=2, shape=\(2, 4\)"):
        activations.pullback(made("softmax", {"axis": 2}), x, x, x)
    with pytest.raises(TypeError, match=r"Expected dy of x's dtype float64\. Received dy of float32\. Cast"):
        activations.pullback("relu", x, x, x.astype(np.float32))
    with pytest.raises(TypeError, match=r"Expected relu to be given a floating-point array.*int64"):
        activations.pullback("relu", *(x.astype(np.int64),) * 3)
    with pytest.raises(TypeError, match=r"Expected gelu to be given a floating-point array.*complex128"):
        activations.pullback("gelu", *(x + 0j,) * 3)
    with pytest.raises(TypeError, match="dy: Expected an array"):
        activations.pullback("relu", x, x, [1.0])


def test_libraries_are_not_mixed():
    strict = pytest.importorskip("array_api_strict", reason="needs array-api-strict")
    x = np.ones(2)
    with pytest.raises(TypeError, match="Received x of numpy and dy of array_api_strict"):
        activations.pullback("relu", x, x, strict.asarray(x))
