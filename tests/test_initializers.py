"""Initializers: definitions, repeatability, the laws of the draws, live Keras' scales, errors."""

from __future__ import annotations

import json
import math
import os
import pickle
import random
import sys

import numpy as np
import pytest

from gpuconv import initializers
from gpuconv.initializers import (
    STFT,
    Constant,
    GlorotNormal,
    GlorotUniform,
    HeNormal,
    HeUniform,
    Identity,
    LecunNormal,
    LecunUniform,
    Ones,
    Orthogonal,
    RandomNormal,
    RandomUniform,
    TruncatedNormal,
    VarianceScaling,
    Zeros,
    fans,
    get,
    serialize,
)

RANDOM = [
    *(RandomNormal, TruncatedNormal, RandomUniform, VarianceScaling, Orthogonal),
    *(GlorotNormal, GlorotUniform, HeNormal, HeUniform, LecunNormal, LecunUniform),
]
SHAPE = (5, 40, 60)  # 12000 draws; fan_in 200, fan_out 300
# What each draw's standard deviation has to be.
DEVIATIONS = [
    (RandomNormal(0.0, 0.3, seed=1), 0.3),
    (TruncatedNormal(0.0, 0.3, seed=1), 0.3 * 0.87962566103423978),
    (RandomUniform(-0.3, 0.3, seed=1), 0.3 / math.sqrt(3)),
    (GlorotNormal(seed=1), math.sqrt(2 / 500)),
    (GlorotUniform(seed=1), math.sqrt(2 / 500)),
    (HeNormal(seed=1), math.sqrt(2 / 200)),
    (HeUniform(seed=1), math.sqrt(2 / 200)),
    (LecunNormal(seed=1), math.sqrt(1 / 200)),
    (LecunUniform(seed=1), math.sqrt(1 / 200)),
    (VarianceScaling(3.0, "fan_out", "untruncated_normal", seed=1), math.sqrt(3 / 300)),
    (VarianceScaling(3.0, "fan_avg", "normal", seed=1), math.sqrt(3 / 250)),
    (VarianceScaling(3.0, "fan_in", "UNIFORM", seed=1, input_axes=[1], output_axes=[2]), math.sqrt(3 / 40)),
    (Orthogonal(2.0, seed=1), 2 / math.sqrt(200)),
]
DEVIATION_IDS = [type(initializer).__name__ for initializer, _ in DEVIATIONS]


@pytest.fixture(scope="module")
def keras():
    os.environ["KERAS_BACKEND"] = "jax"
    module = pytest.importorskip("keras", reason="needs Keras, with which the values are compared")
    if module.backend.backend() != "jax":
        pytest.skip("Keras is already running on another backend than JAX")
    return module


def test_fans():
    assert fans(()) == (1, 1)
    assert fans((7,)) == (7, 7)
    assert fans((3, 4)) == (3, 4)
    assert fans((5, 3, 4)) == (15, 20)
    assert fans((2, 5, 3, 4)) == (30, 40)
    assert fans((5, 3, 4), [0, 2], [-2]) == (20, 3)
    assert fans((5, 0, 4)) == (0, 20)


def test_fans_are_those_of_keras(keras):
    from keras.src.initializers.random_initializers import compute_fans

    for shape in [(), (7,), (3, 4), (5, 3, 4), (2, 5, 3, 4)]:
        assert fans(shape) == compute_fans(shape)
    assert fans((5, 3, 4), [0, 2], [1]) == compute_fans((5, 3, 4), [0, 2], [1])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64", "int32"])
def test_fixed_values(dtype):
    for initializer, expected in [
        (Zeros(), np.zeros((2, 3))),
        (Ones(), np.ones((2, 3))),
        (Constant(2), np.full((2, 3), 2)),
        (Identity(2), [[2, 0, 0], [0, 2, 0]]),
    ]:
        got = initializer((2, 3), dtype)
        assert got.dtype == dtype
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("cls", RANDOM)
def test_repeats_itself(cls):
    for initializer in (cls(), cls(seed=3)):
        first = initializer((4, 5, 6))
        np.testing.assert_array_equal(initializer((4, 5, 6)), first)
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(initializer))((4, 5, 6)), first)
    np.testing.assert_array_equal(cls(seed=3)((4, 5, 6)), cls(seed=np.int64(3))((4, 5, 6)))
    assert np.any(cls(seed=3)((4, 5, 6)) != cls(seed=4)((4, 5, 6)))
    assert np.any(cls()((4, 5, 6)) != cls()((4, 5, 6)))
    # The config of an object without a seed says so, as Keras' does: its clone draws anew.
    assert cls().get_config()["seed"] is None


def test_pythons_seed_makes_unseeded_initializers_repeatable():
    state = random.getstate()
    try:
        random.seed(5)
        first = HeNormal()((3, 4))
        random.seed(5)
        np.testing.assert_array_equal(HeNormal()((3, 4)), first)
    finally:
        random.setstate(state)


@pytest.mark.parametrize("cls", RANDOM)
def test_one_seed_is_one_draw_in_every_dtype(cls):
    double = cls(seed=3)((4, 5, 6), "float64")
    for dtype in ("float16", "float32"):
        got = cls(seed=3)((4, 5, 6), dtype)
        assert got.dtype == dtype
        np.testing.assert_array_equal(got, double.astype(dtype))
    assert cls(seed=3)((4, 5, 6)).dtype == np.float32
    assert cls(seed=3)((4, 5, 6), None).dtype == np.float32


@pytest.mark.parametrize(("initializer", "deviation"), DEVIATIONS, ids=DEVIATION_IDS)
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_mean_and_variance(initializer, deviation, dtype):
    draws = initializer(SHAPE, dtype).ravel()
    assert draws.dtype == dtype
    # The mean of N draws has deviation sigma / sqrt(N), and their mean square relative deviation
    # sqrt((kurtosis - 1) / N), at most sqrt(2 / N), a normal's: five deviations of each. The seed is fixed.
    n = draws.size
    assert abs(np.mean(draws)) <= 5 * deviation / math.sqrt(n)
    assert abs(np.mean(np.abs(draws) ** 2) / deviation**2 - 1) <= 5 * math.sqrt(2 / n)
    if dtype == "complex128":
        # Circular: both parts alike and uncorrelated.
        assert abs(np.mean(draws**2)) / deviation**2 <= 5 * math.sqrt(2 / n)


@pytest.mark.parametrize(
    ("initializer", "deviation"), [d for d in DEVIATIONS if not isinstance(d[0], Orthogonal)]
)
def test_distribution(initializer, deviation):
    stats = pytest.importorskip("scipy.stats", reason="SciPy has the distributions' functions")
    kind = getattr(initializer, "distribution", type(initializer).__name__).lower()
    if "uniform" in kind:
        limit = deviation * math.sqrt(3)
        law = stats.uniform(-limit, 2 * limit)
    elif "untruncated" in kind or isinstance(initializer, RandomNormal):
        law = stats.norm(0, deviation)
    else:
        law = stats.truncnorm(-2, 2, scale=deviation / 0.87962566103423978)
    draws = initializer(SHAPE, "float64").ravel()
    # Kolmogorov-Smirnov: below 1.95 / sqrt(N) in 999 of 1000 seeds; this one is fixed.
    assert stats.kstest(draws, law.cdf).statistic <= 1.95 / math.sqrt(draws.size)
    low, high = law.support()
    assert low <= draws.min()
    assert draws.max() <= high


def test_bounds_are_reached_for():
    draws = RandomUniform(2.0, 5.0, seed=1)(SHAPE, "float64")
    assert 2 <= draws.min() < 2.01
    assert 4.99 < draws.max() <= 5
    draws = TruncatedNormal(1.0, 0.5, seed=1)(SHAPE, "float64")
    assert 0 <= draws.min() < 0.01
    assert 1.99 < draws.max() <= 2
    assert abs(draws.mean() - 1) <= 5 * 0.44 / math.sqrt(draws.size)


@pytest.mark.parametrize(
    "name", ["GlorotUniform", "HeNormal", "LecunUniform", "TruncatedNormal", "RandomNormal"]
)
def test_same_spread_as_keras(keras, name):
    ours = get(name)(SHAPE, "float64")
    theirs = np.asarray(getattr(keras.initializers, name)(seed=2)(SHAPE))
    # Both are samples: five deviations of the ratio of two mean squares.
    assert abs(np.mean(ours**2) / np.mean(theirs**2) - 1) <= 5 * math.sqrt(4 / ours.size)


@pytest.mark.parametrize("shape", [(4, 4), (3, 2, 4), (2, 2, 9), (6, 1), (1, 6)])
@pytest.mark.parametrize("dtype", ["float64", "complex128", "float32"])
def test_orthogonal(shape, dtype):
    got = Orthogonal(2.0, seed=1)(shape, dtype)
    assert got.dtype == dtype
    matrix = got.reshape(-1, shape[-1])
    if matrix.shape[0] < matrix.shape[1]:
        matrix = matrix.T
    np.testing.assert_allclose(
        matrix.conj().T @ matrix, 4 * np.eye(matrix.shape[1]), atol=64 * np.finfo(dtype).eps
    )


def test_orthogonal_is_uniform():
    # Without the turn by R's signs the first entry would have one sign in every draw.
    signs = {float(np.sign(Orthogonal(seed=seed)((3, 3))[0, 0])) for seed in range(12)}
    assert signs == {-1.0, 1.0}


@pytest.mark.parametrize("side", ["real", "imag"])
@pytest.mark.parametrize("window", ["hann", "hamming", "blackman", "boxcar", None])
@pytest.mark.parametrize("scaling", ["density", "spectrum", None])
@pytest.mark.parametrize("periodic", [False, True])
def test_stft_equals_keras(keras, side, window, scaling, periodic):
    pytest.importorskip("scipy", reason="Keras takes its windows from SciPy")
    expected = np.asarray(keras.initializers.STFT(side, window, scaling, periodic)((20, 1, 17)))
    got = STFT(side, window, scaling, periodic)((20, 1, 17))
    assert got.dtype == np.float32
    # Keras' angles, up to 60, are rounded in float32.
    np.testing.assert_allclose(got, expected, atol=60 * 2.0**-23)


def test_stft_windows_by_value():
    window = np.hanning(20)
    np.testing.assert_allclose(
        STFT(window=window)((20, 1, 9), "float64"), STFT()((20, 1, 9), "float64"), atol=1e-15
    )
    assert json.loads(json.dumps(STFT(window=[1.0, 0.5]).get_config()))["window"] == [1.0, 0.5]
    assert STFT.from_config(STFT(window=[1.0, 0.5]).get_config()) == STFT(window=(1.0, 0.5))
    assert STFT(window="hann")((1, 1, 3)).shape == (1, 1, 3)


@pytest.mark.parametrize("library", ["numpy", "torch", "jax.numpy", "array_api_strict"])
def test_arrays(library):
    xp = pytest.importorskip(library, reason=f"needs {library}")
    values = xp.asarray([[1.0, 2.0], [3.0, 4.0]])
    initializer = get(values)
    got = initializer((2, 2), "float64")
    assert isinstance(got, np.ndarray)
    assert got.dtype == np.float64
    np.testing.assert_array_equal(got, [[1, 2], [3, 4]])
    got[0, 0] = 9
    np.testing.assert_array_equal(initializer((2, 2)), [[1, 2], [3, 4]])
    again = get(json.loads(json.dumps(serialize(initializer))))
    np.testing.assert_array_equal(again((2, 2)), [[1, 2], [3, 4]])
    with pytest.raises(ValueError, match=r"shape of the weights, \(4,\)\. Received shape=\(2, 2\)"):
        initializer((4,))


def test_a_given_array_is_copied():
    values = np.ones(2)
    initializer = get(values)
    values[0] = 5
    np.testing.assert_array_equal(initializer((2,)), [1, 1])
    with pytest.raises(TypeError, match=r"values are complex.*Received dtype=float32"):
        get(np.ones(2, complex))((2,))


def test_callables_pass_through():
    def mine(shape, dtype=None):
        return np.full(shape, 3, dtype)

    assert get(mine) is mine
    assert serialize(mine)["config"] == "mine"
    assert get(None) is None


def test_config_of_arguments_that_older_keras_lacks():
    assert GlorotUniform(seed=1).get_config() == {"seed": 1}
    assert GlorotUniform(input_axes=(0,), output_axes=(1,)).get_config() == {
        "seed": None,
        "input_axes": [0],
        "output_axes": [1],
    }


def test_empty_and_scalar_shapes():
    for cls in RANDOM:
        assert cls(seed=1)((3, 0, 2)).shape == (3, 0, 2)
        assert cls(seed=1)((3, 2, 0)).shape == (3, 2, 0)
        if cls is not Orthogonal:
            assert cls(seed=1)(()).shape == ()
            assert cls(seed=1)(7).shape == (7,)


@pytest.mark.parametrize("initializer", [Ones(), HeNormal(seed=1), Orthogonal(seed=1), STFT()], ids=repr)
def test_bfloat16(initializer):
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="gives NumPy bfloat16")
    got = initializer((4, 1, 3), "bfloat16")
    assert got.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(got, initializer((4, 1, 3), "float64").astype(ml_dtypes.bfloat16))
    assert initializer((4, 1, 3), ml_dtypes.bfloat16).dtype == got.dtype


def test_bfloat16_without_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(ImportError, match="pip install ml_dtypes"):
        Zeros()((2,), "bfloat16")


@pytest.mark.parametrize("cls", [*RANDOM, STFT])
def test_integers_are_refused_by_name(cls):
    for dtype in ("int32", "bool"):
        with pytest.raises(TypeError, match=rf"Expected {cls.__name__} to be asked .*Received dtype={dtype}"):
            cls()((4, 1, 3), dtype)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HeNormal(seed=-1), r"at least 0\. Received seed=-1"),
        (lambda: RandomNormal(stddev=-1), r"Received stddev=-1\.0"),
        (lambda: RandomNormal(mean=math.nan), "Received mean=nan"),
        (lambda: RandomUniform(1, 0), "Received minval=1, maxval=0"),
        (lambda: VarianceScaling(0), "positive. Received scale=0"),
        (lambda: VarianceScaling(mode="fan"), r"\('fan_in', 'fan_out', 'fan_avg'\)\. Received mode='fan'"),
        (lambda: VarianceScaling(distribution="cauchy"), "Received distribution='cauchy'"),
        (
            lambda: VarianceScaling(input_axes=[3], output_axes=[0])((2, 2)),
            r"shape=\(2, 2\)\. Received axis=3",
        ),
        (lambda: Identity()((2, 2, 2)), r"matrix\. Received shape=\(2, 2, 2\)"),
        (lambda: Orthogonal()((2,)), r"rank 2 or more\. Received shape=\(2,\)"),
        (lambda: STFT("both"), "Received side='both'"),
        (lambda: STFT(window="kaiser"), r"Received window='kaiser'\. Pass the values of any other window"),
        (lambda: STFT(scaling="sum"), "Received scaling='sum'"),
        (lambda: STFT()((4, 2, 3)), r"kernel \(frame, 1, bins\).*Received shape=\(4, 2, 3\)"),
        (lambda: STFT(window=[1.0])((4, 1, 3)), r"one weight per tap, 4\. Received 1 weights"),
        (lambda: Zeros()((2, -1)), r"no negative lengths\. Received shape=\(2, -1\)"),
    ],
)
def test_wrong_values(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HeNormal(seed=1.5), r"integer or None\. Received seed=1\.5"),
        (lambda: RandomNormal(mean="0"), "Received mean='0'"),
        (lambda: Constant("0"), "Received value='0'"),
        (lambda: Constant(1j)((2,)), "Constant, whose values are complex"),
        (lambda: VarianceScaling(input_axes=1), "Received input_axes=1"),
        (lambda: STFT(window=3), "Received window=3"),
        (lambda: Zeros()((2, None)), r"sequence of integers\. Received shape=\(2, None\)"),
        (lambda: Zeros()((2,), "str"), "type of numbers. Received dtype='str'"),
        (lambda: Zeros()((2,), "float31"), "type of numbers. Received dtype='float31'"),
        (lambda: initializers.get([1.0, 2.0]), r"Received initializer=\[1\.0, 2\.0\]"),
    ],
)
def test_wrong_types(make, message):
    with pytest.raises(TypeError, match=message):
        make()
