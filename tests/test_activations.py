"""Activations: hand formulas in double precision, live Keras, every array library, autodiff, extremes."""

from __future__ import annotations

import functools
import inspect
import json
import math
import os

import numpy as np
import pytest

from gpuconv import activations
from gpuconv._activations_smooth import erfc
from gpuconv.namespace import dtype_name, to_numpy

LIBRARIES = ["numpy", "array_api_strict", "torch", "jax", "dask"]


def sigmoid(t):
    return 1 / (1 + math.exp(-t)) if t > 0 else math.exp(t) / (1 + math.exp(t))


def softplus(t):
    return max(t, 0.0) + math.log1p(math.exp(-abs(t)))


def clip(t, low, high):
    return min(max(t, low), high)


# Written from the definitions, one number at a time.
FORMULAS = {
    "celu": lambda t: max(t, 0.0) + math.expm1(min(t, 0.0)),
    "elu": lambda t: t if t > 0 else math.expm1(t),
    "exponential": lambda t: math.exp(t),
    "gelu": lambda t: t * math.erfc(-t / math.sqrt(2)) / 2,
    "hard_shrink": lambda t: t if abs(t) > 0.5 else 0.0,
    "hard_sigmoid": lambda t: clip(t / 6 + 0.5, 0, 1),
    "hard_silu": lambda t: t * clip(t / 6 + 0.5, 0, 1),
    "hard_tanh": lambda t: clip(t, -1, 1),
    "leaky_relu": lambda t: t if t > 0 else 0.2 * t,
    "linear": lambda t: t,
    "log_sigmoid": lambda t: -softplus(-t),
    "mish": lambda t: t * math.tanh(softplus(t)),
    "relu": lambda t: max(t, 0.0),
    "relu6": lambda t: clip(t, 0, 6),
    "selu": lambda t: 1.0507009873554805 * (t if t > 0 else 1.6732632423543772 * math.expm1(t)),
    "sigmoid": sigmoid,
    "silu": lambda t: t * sigmoid(t),
    "soft_shrink": lambda t: math.copysign(max(abs(t) - 0.5, 0.0), t),
    "softplus": softplus,
    "softsign": lambda t: t / (1 + abs(t)),
    "sparse_plus": lambda t: 0.0 if t <= -1 else t if t >= 1 else (t + 1) ** 2 / 4,
    "sparse_sigmoid": lambda t: clip((t + 1) / 2, 0, 1),
    "squareplus": lambda t: (t + math.hypot(t, 2)) / 2 if t > 0 else 2 / (math.hypot(t, 2) - t),
    "tanh": math.tanh,
    "tanh_shrink": lambda t: t - math.tanh(t),
}
ALONG_AXIS = ["softmax", "log_softmax", "sparsemax", "glu"]
# Every public function with each parameter that it has set to something else than its default.
VARIANTS = [
    *[(name, {}) for name in [*FORMULAS, *ALONG_AXIS]],
    ("relu", {"negative_slope": 0.3}),
    ("relu", {"max_value": 1.5}),
    ("relu", {"max_value": 6}),
    ("relu", {"threshold": 0.7}),
    ("relu", {"threshold": -0.7}),
    ("relu", {"negative_slope": 0.3, "max_value": 1.5, "threshold": 0.7}),
    ("relu", {"negative_slope": 0.3, "max_value": 1.5, "threshold": -0.7}),
    ("leaky_relu", {"negative_slope": 0.01}),
    ("elu", {"alpha": 0.5}),
    ("celu", {"alpha": 2.0}),
    ("gelu", {"approximate": True}),
    ("squareplus", {"b": 0.25}),
    ("soft_shrink", {"threshold": 1.25}),
    ("hard_shrink", {"threshold": 1.25}),
    ("threshold", {"threshold": 0.3, "default_value": -2.0}),
    ("softmax", {"axis": 0}),
    ("log_softmax", {"axis": 1}),
    ("sparsemax", {"axis": 0}),
    ("glu", {"axis": 0}),
]
VARIANT_IDS = [f"{name}-{'-'.join(f'{k}={v}' for k, v in params.items())}" for name, params in VARIANTS]
GRID = np.concatenate([np.linspace(-12, 12, 97), [-1e-3, 1e-3, -1e-8, 1e-8, 0.5, -0.5]])
EXTREMES = {"float16": 6e4, "float32": 3e38, "float64": 1.7e308}


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


@pytest.fixture
def double_in_jax():
    jax = pytest.importorskip("jax", reason="needs JAX")
    with jax.enable_x64(True):
        yield jax


@pytest.fixture(scope="module")
def keras():
    os.environ["KERAS_BACKEND"] = "jax"
    module = pytest.importorskip("keras", reason="needs Keras, with which the numbers are compared")
    if module.backend.backend() != "jax":
        pytest.skip("Keras is already running on another backend than JAX")
    return module


@pytest.mark.parametrize("name", FORMULAS)
def test_equals_the_formula(name):
    expected = np.asarray([FORMULAS[name](t) for t in GRID])
    got = getattr(activations, name)(GRID)
    # A handful of roundings: relative to the value, or to x where the formula itself subtracts from x.
    scale = np.abs(GRID) if name == "tanh_shrink" else np.abs(expected)
    # gelu's tail is exp(-t * t) with t * t = x * x / 2 made of rounded factors: three half units of it.
    bound = (16 + 3 * GRID**2 if name == "gelu" else 8) * 2.0**-53 * scale
    if name in ("sparse_plus", "sparse_sigmoid", "hard_sigmoid", "hard_silu"):
        bound = bound + 2.0**-52  # x + 1 and x + 3 round before they cancel
    assert np.all(np.abs(got - expected) <= bound)


@pytest.mark.parametrize(("name", "params"), VARIANTS, ids=VARIANT_IDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_equals_keras(keras, double_in_jax, name, params, dtype):
    x = np.random.default_rng(7).normal(0, 3, (4, 6)).astype(dtype)
    x[0, :3] = [0.0, 1.0, -1.0]
    if name == "sparsemax":
        # Keras 3.15 sums cumulative sums where it should sum the entries: its result sums to 1 only where
        # one entry is left. Our own is held to the definition in another test.
        x = x * 50
    given = keras.ops.convert_to_tensor(x, dtype=dtype)
    expected = np.asarray(getattr(keras.activations, name)(given, **params))
    got = getattr(activations, name)(x, **params)
    assert got.dtype == x.dtype
    eps = np.finfo(expected.dtype).eps  # Keras' tanh of float64 is float32
    np.testing.assert_allclose(got, expected, rtol=32 * eps, atol=8 * eps)


def test_has_the_functions_parameters_and_defaults_of_keras(keras):
    for name in activations._CATALOGUE.canonical:
        theirs = inspect.signature(getattr(keras.activations, name)).parameters.values()
        ours = inspect.signature(getattr(activations, name)).parameters.values()
        assert [(p.name, p.default) for p in ours] == [(p.name, p.default) for p in theirs]
    from keras.src.activations import ALL_OBJECTS_DICT

    assert set(ALL_OBJECTS_DICT) <= set(activations._CATALOGUE._names)


@pytest.mark.parametrize(("name", "params"), VARIANTS, ids=VARIANT_IDS)
@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_every_library_gives_the_same(library, name, params, dtype, request):
    if library == "jax" and dtype == "float64":
        request.getfixturevalue("double_in_jax")
    if library == "array_api_strict" and dtype == "float16":
        pytest.skip("array_api_strict has no float16")
    x = np.random.default_rng(5).normal(0, 3, (4, 6)).astype(dtype)
    function = functools.partial(getattr(activations, name), **params)
    expected = function(x)
    given = make(library, x)
    got = function(given)
    assert type(got) is type(given)
    assert dtype_name(got.dtype) == dtype
    # float16 is rounded once, from float32: at most one last place apart.
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(to_numpy(got), expected, rtol=16 * eps, atol=4 * eps)
    np.testing.assert_array_equal(to_numpy(given), x)  # the input is left alone


@pytest.mark.parametrize("dtype", EXTREMES)
@pytest.mark.parametrize(("name", "params"), VARIANTS, ids=VARIANT_IDS)
def test_no_warning_and_no_nan_far_from_zero(name, params, dtype):
    # pytest turns NumPy's overflow and invalid-value warnings into errors.
    huge = EXTREMES[dtype]
    x = np.asarray([-huge, -1e4, -700.0, -90.0, -20.0, 0.0, 20.0, 90.0, 700.0, 1e4], dtype)
    if name == "exponential":
        x = np.minimum(x, 11 if dtype == "float16" else 80).astype(dtype)
    if name in ("softmax", "log_softmax", "sparsemax"):
        x = x[1:]  # the difference of the largest two numbers is not one
    if name in FORMULAS or name == "threshold":
        x = np.append(x, np.asarray(huge, dtype) if name != "exponential" else x[:1])
    shape = (-1, 1) if params.get("axis") == 0 else (1, -1)
    if name == "glu":
        x = x[:10]
    got = getattr(activations, name)(x.reshape(shape), **params)
    assert got.dtype == x.dtype
    assert np.all(np.isfinite(got))
    if name in FORMULAS and not params and name != "selu":
        expected = np.asarray([FORMULAS[name](float(t)) for t in x]).reshape(shape)
        eps, tiny = np.finfo(dtype).eps, np.finfo(dtype).tiny
        slack = eps * np.abs(x).reshape(shape) if name == "tanh_shrink" else 0
        # exp(-t * t) in gelu has t * t roundings of its argument.
        relative = 512 * eps if name == "gelu" else 8 * eps
        assert np.all(np.abs(got - expected) <= relative * np.abs(expected) + tiny + slack)


@pytest.mark.parametrize("name", sorted({*FORMULAS, *ALONG_AXIS}))
def test_nan_stays_nan(name):
    got = getattr(activations, name)(np.asarray([np.nan, np.nan]))
    assert np.all(np.isnan(got))


def test_erfc_is_accurate():
    t = np.linspace(0, 6, 20001)
    expected = np.asarray([math.erfc(v) for v in t])
    got = erfc(np, t)
    assert np.max(np.abs(got - expected)) <= 1e-15
    assert np.max(np.abs((1 - got) - [math.erf(v) for v in t])) <= 1e-15
    # Relative to itself: the rounding of t * t, up to 36, is in the exponent.
    assert np.max(np.abs(got - expected) / expected) <= 64 * 2.0**-53
    assert erfc(np, np.asarray([1e300]))[0] == 0


def test_softmax_sums_to_one_and_sparsemax_projects():
    x = np.random.default_rng(3).normal(0, 2, (5, 9))
    np.testing.assert_allclose(activations.softmax(x).sum(-1), 1, rtol=1e-14)
    p = activations.sparsemax(x)
    np.testing.assert_allclose(p.sum(-1), 1, rtol=1e-14)
    assert p.min() == 0
    # The projection's optimality: x - p is one constant on the support and less elsewhere.
    tau = np.max(x - p, axis=-1, keepdims=True)
    np.testing.assert_allclose(np.where(p > 0, x - p - tau, 0), 0, atol=1e-14)
    # A large common shift is no matter.
    np.testing.assert_allclose(activations.sparsemax(x + 2.0**40), p, atol=2.0**-10)


# Where a difference quotient at 0 sees a kink, or a second derivative that jumps.
AT_ZERO = {"relu": 0.0, "relu6": 0.0, "leaky_relu": 1.0, "elu": 1.0, "celu": 1.0, "softsign": 1.0}
SMOOTH = [n for n in FORMULAS if n not in ("hard_shrink", "hard_silu", "hard_sigmoid")]


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("library", ["torch", "jax"])
def test_autodiff(name, library, double_in_jax):
    points = np.asarray([-40.0, -2.3, -0.7, 0.0, 0.2, 0.8, 3.1, 40.0, 800.0])
    if name == "exponential":
        points = points[:-1]
    function = getattr(activations, name)
    step = 1e-6
    expected = (function(points + step) - function(points - step)) / (2 * step)
    if name == "selu":
        expected[3] = 1.0507009873554805 * 1.6732632423543772
    expected[3] = AT_ZERO.get(name, expected[3])
    if library == "torch":
        torch = pytest.importorskip("torch", reason="needs PyTorch")
        x = torch.tensor(points, requires_grad=True)
        got = torch.autograd.grad(function(x).sum(), x)[0].numpy()
    else:
        got = np.asarray(double_in_jax.jit(double_in_jax.grad(lambda v: function(v).sum()))(points))
    np.testing.assert_allclose(got, expected, rtol=1e-8, atol=1e-7)


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "sparsemax", "glu"])
def test_autodiff_along_an_axis(name):
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    x = torch.tensor(np.random.default_rng(2).normal(size=(3, 4)), requires_grad=True)
    assert torch.autograd.gradcheck(getattr(activations, name), (x,))


@pytest.mark.parametrize("name", ["linear", "exponential", "sigmoid", "silu", "tanh", "tanh_shrink"])
@pytest.mark.parametrize("library", ["numpy", "array_api_strict", "torch", "jax"])
@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex(name, library, dtype, request):
    if library == "jax" and dtype == "complex128":
        request.getfixturevalue("double_in_jax")
    rng = np.random.default_rng(11)
    z = (rng.normal(size=20) + 1j * rng.normal(size=20)).astype(dtype)
    w = z.astype(np.complex128)
    expected = {
        "linear": w,
        "exponential": np.exp(w),
        "sigmoid": 1 / (1 + np.exp(-w)),
        "silu": w / (1 + np.exp(-w)),
        "tanh": np.tanh(w),
        "tanh_shrink": w - np.tanh(w),
    }[name]
    function = getattr(activations, name)
    assert activations.supports_complex(function)
    got = function(make(library, z))
    assert dtype_name(got.dtype) == dtype
    np.testing.assert_allclose(to_numpy(got), expected, rtol=64 * np.finfo(dtype).eps)


def test_complex_sigmoid_does_not_overflow():
    z = np.asarray([-1000 + 1j, 1000 + 1j])
    np.testing.assert_allclose(activations.sigmoid(z), [0, 1], atol=1e-300)


def test_complex_and_integers_are_refused_by_name():
    real_only = [f for f in activations._CATALOGUE.canonical.values() if not activations.supports_complex(f)]
    assert len(real_only) == len(activations._CATALOGUE.canonical) - 6
    for function in real_only:
        args = (1.0, 0.0) if function is activations.threshold else ()
        with pytest.raises(
            TypeError, match=rf"Expected {function.__name__} to be .*Received dtype=complex64"
        ):
            function(np.ones(2, np.complex64), *args)
        with pytest.raises(TypeError, match=rf"Expected {function.__name__} to be .*Received dtype=int32"):
            function(np.ones(2, np.int32), *args)
    with pytest.raises(TypeError, match="Expected an array"):
        activations.relu([1.0, 2.0])


@pytest.mark.parametrize("name", ["relu", "gelu", "squareplus", "softmax"])
def test_bfloat16(name):
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="gives NumPy bfloat16")
    x = np.asarray([-2.5, 0.0, 1.5]).astype(ml_dtypes.bfloat16)
    got = getattr(activations, name)(x)
    assert got.dtype == x.dtype
    expected = getattr(activations, name)(x.astype(np.float32)).astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(got, expected)


def test_zero_dimensional_and_empty():
    got = activations.gelu(np.asarray(1.0))
    assert isinstance(got, np.ndarray)
    assert got.shape == ()
    for function in activations._CATALOGUE.canonical.values():
        args = (1.0, 0.0) if function is activations.threshold else ()
        shape = (0, 2 if function is activations.glu else 4)
        assert function(np.zeros(shape), *args).shape in ((0, 4), (0, 1), shape)


def test_blocks_of_an_elementwise_activation_are_the_whole():
    x = np.random.default_rng(1).normal(0, 3, 64)
    for function in activations._CATALOGUE.canonical.values():
        if function is activations.threshold:
            function = functools.partial(function, threshold=0.1, default_value=2.0)
        whole = function(x)
        blocks = np.concatenate([function(x[:32]), function(x[32:])])
        same = whole.shape == blocks.shape and bool(np.all(whole == blocks))
        assert activations.is_elementwise(function) == same


def test_is_elementwise():
    assert activations.is_elementwise(functools.partial(activations.leaky_relu, negative_slope=0.1))
    assert not activations.is_elementwise(functools.partial(activations.softmax, axis=0))
    assert not activations.is_elementwise(np.tanh)
    assert activations.supports_complex(np.tanh)
    assert not activations.supports_complex(functools.partial(activations.elu, alpha=2.0))


def test_get():
    assert activations.get(None) is activations.linear
    assert activations.get("relu") is activations.relu
    assert activations.get("hard_swish") is activations.hard_silu
    assert activations.get(np.tanh) is np.tanh
    assert activations.get({"class_name": "relu", "config": {}}) is activations.relu
    made = activations.get({"class_name": "celu", "config": {"alpha": 2.0}})
    x = np.asarray([-1.0])
    assert made(x) == activations.celu(x, alpha=2.0)


def test_errors():
    with pytest.raises(ValueError, match=r"Received activation='gleu'\. Did you mean 'glu'"):
        activations.get("gleu")
    with pytest.raises(TypeError, match=r"Received activation=3\. Known names: celu, "):
        activations.get(3)
    with pytest.raises(ValueError, match=r"config of elu to have keys among \['alpha'\]\. Received beta=1"):
        activations.get({"class_name": "elu", "config": {"beta": 1}})
    with pytest.raises(ValueError, match=r"even length.*axis=-1 with shape=\(2, 3\)"):
        activations.glu(np.zeros((2, 3)))
    for function in (activations.softmax, activations.log_softmax, activations.sparsemax, activations.glu):
        with pytest.raises(ValueError, match=r"Received axis=2, shape=\(2, 4\)"):
            function(np.zeros((2, 4)), axis=2)
    with pytest.raises(ValueError, match="Received alpha=0"):
        activations.celu(np.zeros(1), alpha=0)
    with pytest.raises(ValueError, match="Received b=-1"):
        activations.squareplus(np.zeros(1), b=-1)
    with pytest.raises(ValueError, match="Define it with def"):
        activations.serialize(lambda x: x)
    with pytest.raises(ValueError, match=r"Expected a functools\.partial that fixes keyword"):
        activations.serialize(functools.partial(np.clip, a_min=0))


def test_serialize():
    for name, function in activations._CATALOGUE.canonical.items():
        assert activations.serialize(function) == name
    celu = functools.partial(activations.celu, alpha=2.0)
    again = activations.get(json.loads(json.dumps(activations.serialize(celu))))
    assert (again.func, again.keywords) == (celu.func, celu.keywords)
    assert activations.serialize(functools.partial(activations.relu)) == "relu"
    assert activations.serialize(sigmoid) == {
        "module": __name__,
        "class_name": "function",
        "config": "sigmoid",
        "registered_name": "sigmoid",
    }


def test_round_trip_through_keras(keras):
    for name, function in activations._CATALOGUE.canonical.items():
        theirs = keras.activations.get(activations.serialize(function))
        assert theirs.__name__ == name
        assert activations.get(keras.activations.serialize(theirs)) is function
        # The dictionary that a saved model holds.
        assert activations.get(keras.saving.serialize_keras_object(theirs)) is function


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("relu", {"negative_slope": 0.25, "max_value": 1.5, "threshold": 0.5}),
        ("leaky_relu", {"negative_slope": 0.1}),
        ("elu", {"alpha": 2.0}),
        ("softmax", {"axis": 0}),
    ],
)
def test_parameters_round_trip_through_keras_layers(keras, name, params):
    ours = functools.partial(getattr(activations, name), **params)
    x = np.random.default_rng(4).normal(size=(3, 4)).astype(np.float32)
    layer = keras.activations.get(activations.serialize(ours))
    np.testing.assert_allclose(np.asarray(layer(x)), ours(x), rtol=1e-6, atol=1e-7)
    back = activations.get(keras.activations.serialize(layer))
    np.testing.assert_array_equal(back(x), ours(x))


def test_keras_leaky_relu_layer_keeps_its_own_default(keras):
    x = np.asarray([-1.0], np.float32)
    config = keras.saving.serialize_keras_object(keras.layers.LeakyReLU())
    del config["config"]["negative_slope"]
    np.testing.assert_allclose(activations.get(config)(x), [-0.3], rtol=1e-6)
