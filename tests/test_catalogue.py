"""Names, configs, instances, classes and callables become objects, and go back, in all four catalogues."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from gpuconv import activations, constraints, initializers, regularizers
from gpuconv._catalogue import Configured, narrow, non_negative, one_of, real, widen

MODULES = {"initializer": initializers, "regularizer": regularizers, "constraint": constraints}
MEMBERS = [
    (kind, cls)
    for kind, module in MODULES.items()
    for cls in dict.fromkeys(module._CATALOGUE.canonical.values())
]
IDS = [cls.__name__ for _, cls in MEMBERS]


@pytest.fixture(scope="module")
def keras():
    os.environ["KERAS_BACKEND"] = "jax"
    module = pytest.importorskip("keras", reason="needs Keras, which reads and writes the configs")
    if module.backend.backend() != "jax":
        pytest.skip("Keras is already running on another backend than JAX")
    return module


@pytest.mark.parametrize(("kind", "cls"), MEMBERS, ids=IDS)
def test_every_spelling(kind, cls):
    get = MODULES[kind].get
    name = next(n for n, member in MODULES[kind]._CATALOGUE.canonical.items() if member is cls)
    default = cls()
    assert get(name) == get(cls.__name__) == get(cls) == default
    assert get(default) is default
    assert get({"class_name": name, "config": {}}) == default
    assert get({"class_name": cls.__name__}) == default
    assert get({"class_name": cls.__name__, "config": None}) == default
    assert default.get_config() == cls.from_config(default.get_config()).get_config()


@pytest.mark.parametrize(("kind", "cls"), MEMBERS, ids=IDS)
def test_objects_are_frozen(kind, cls):
    default = cls()
    with pytest.raises(AttributeError):
        default.anything = 1


@pytest.mark.parametrize("kind", MODULES)
def test_names_are_those_of_keras(keras, kind):
    import keras.src as source

    theirs = getattr(source, f"{kind}s").ALL_OBJECTS_DICT
    ours = MODULES[kind]._CATALOGUE._names
    # Keras' own abstract class is in its dictionary too.
    wanted = {name: cls.__name__ for name, cls in theirs.items() if name.lower() != kind}
    assert {name: ours[name].__name__ for name in wanted} == wanted


@pytest.mark.parametrize(("kind", "cls"), MEMBERS, ids=IDS)
def test_keras_reads_ours_and_we_read_keras(keras, kind, cls):
    module = MODULES[kind]
    written = json.loads(json.dumps(module.serialize(cls())))
    theirs = getattr(keras, f"{kind}s").get(written)
    assert type(theirs).__name__ == cls.__name__
    assert type(theirs).__module__.startswith("keras.")
    back = json.loads(json.dumps(keras.saving.serialize_keras_object(theirs)))
    assert {key: back[key] for key in ("module", "class_name", "registered_name")} == {
        key: written[key] for key in ("module", "class_name", "registered_name")
    }
    again = module.get(back)
    assert type(again) is cls
    # Keras keeps some factors in float32.
    for name, value in again.get_config().items():
        expected = cls().get_config()[name]
        assert value == (pytest.approx(expected, rel=1e-7) if isinstance(expected, float) else expected)


def test_parameters_survive_the_way_through_keras(keras):
    for kind, member in [
        ("initializer", initializers.VarianceScaling(3.0, "fan_avg", "uniform", seed=5)),
        ("initializer", initializers.GlorotUniform(seed=5, input_axes=(0, 1), output_axes=(2,))),
        ("initializer", initializers.TruncatedNormal(1.0, 0.25, seed=5)),
        ("initializer", initializers.STFT("imag", None, "spectrum", True)),
        ("regularizer", regularizers.L1L2(0.25, 0.5)),
        ("regularizer", regularizers.OrthogonalRegularizer(0.25, "columns")),
        ("constraint", constraints.MinMaxNorm(0.25, 0.5, 0.75, axis=(0, 2))),
    ]:
        module = MODULES[kind]
        theirs = getattr(keras, f"{kind}s").get(module.serialize(member))
        assert module.get(keras.saving.serialize_keras_object(theirs)) == member


@pytest.mark.parametrize("module", [*MODULES.values(), activations])
def test_none(module):
    assert module.get(None) is (activations.linear if module is activations else None)
    assert module.serialize(None) is None


@pytest.mark.parametrize("module", [*MODULES.values(), activations])
def test_callables_pass_through(module):
    def mine(x):
        return x

    assert module.get(mine) is mine
    with pytest.raises(ValueError, match="Define it with def"):
        module.serialize(lambda x: x)


@pytest.mark.parametrize(
    ("kind", "wrong", "message"),
    [
        ("initializer", "he_norml", r"Received initializer='he_norml'\. Did you mean 'he_normal'\?"),
        ("initializer", "he", r"known initializer: constant, glorot_normal, .*Did you mean 'he_normal'\?"),
        ("initializer", "", r"Received initializer=''\. Or pass a callable"),
        ("regularizer", "zzzz", r"Received regularizer='zzzz'\. Or pass a callable as regularizer\."),
        ("regularizer", "l1_l2", r"TensorFlow 2\.9 read this name as L1L2\(l1=0\.01, l2=0\.01\)"),
        ("constraint", "unitnrm", "Did you mean 'unitnorm'"),
        (
            "initializer",
            {"class_name": "HeNormal", "config": {"sed": 1}},
            r"config of HeNormal .*Received sed=1",
        ),
        ("initializer", {"config": {}}, "keys 'class_name' and 'config'"),
        (
            "initializer",
            {"module": "mine", "class_name": "Zeros", "config": {}, "registered_name": "Zeros"},
            r"class_name='Zeros' of module='mine', registered_name='Zeros'\. Pass the object itself",
        ),
        ("constraint", {"class_name": "NonNeg", "registered_name": "mine>NonNeg"}, "mine>NonNeg"),
        ("regularizer", {"class_name": "L1L2", "config": {"l1": -1.0}}, r"at least 0\. Received l1=-1\.0"),
    ],
)
def test_wrong_values(kind, wrong, message):
    with pytest.raises(ValueError, match=message):
        MODULES[kind].get(wrong)


@pytest.mark.parametrize(
    ("kind", "wrong", "message"),
    [
        ("initializer", 3, r"Received initializer=3\. Known names: constant, "),
        ("regularizer", constraints.NonNeg(), r"Received regularizer=NonNeg\(\)"),
        ("constraint", regularizers.L1, r"Received constraint=<class 'gpuconv\.regularizers\.L1'>"),
        ("constraint", {"class_name": "NonNeg", "config": [1]}, r"Received config=\[1\] for 'NonNeg'"),
        ("regularizer", {"class_name": "L1", "config": {"l1": "much"}}, "Received l1='much'"),
    ],
)
def test_wrong_types(kind, wrong, message):
    with pytest.raises(TypeError, match=message):
        MODULES[kind].get(wrong)


def test_own_objects_with_a_config_are_written_as_keras_does(keras):
    class Mine:
        def __call__(self, x):
            return x

        def get_config(self):
            return {"much": 2}

    written = constraints.serialize(Mine())
    assert written == keras.saving.serialize_keras_object(Mine())
    with pytest.raises(ValueError, match="Pass the object itself"):
        constraints.get(written)


def test_checks():
    assert type(real("a", np.float32(0.5))) is float
    assert non_negative("a", np.int64(3)) == 3.0
    for wrong in (True, "1", 1j, None, np.ones(1)):
        with pytest.raises(TypeError, match=r"Expected a to be a real number. Received a="):
            real("a", wrong)
    for wrong in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"Expected a to be finite. Received a="):
            real("a", wrong)
    with pytest.raises(ValueError, match=r"one of \('b', None\)\. Received a=array\(\['b'\]"):
        one_of("b", None)("a", np.asarray(["b"]))


def test_equality_is_that_of_the_configs():
    assert initializers.HeNormal() == initializers.HeNormal()
    assert initializers.HeNormal(seed=1) != initializers.HeNormal(seed=2)
    assert initializers.HeNormal(seed=1) != initializers.HeUniform(seed=1)
    assert hash(constraints.UnitNorm([0, 2])) == hash(constraints.UnitNorm((0, 2)))
    assert issubclass(constraints.UnitNorm, Configured)


def test_widen_and_narrow():
    xp, wide = widen("it", np.ones(2, np.float16))
    assert wide.dtype == np.float32
    assert narrow(xp, wide, np.float16).dtype == np.float16
    assert isinstance(narrow(xp, np.float32(1), np.float32), np.ndarray)
    with pytest.raises(
        TypeError, match=r"Expected it to be given a floating-point array. Received dtype=int8"
    ):
        widen("it", np.ones(2, np.int8))
    with pytest.raises(TypeError, match="or take abs"):
        widen("it", np.ones(2, np.complex64))
    with pytest.raises(TypeError, match=r"floating-point or complex array. Received dtype=bool"):
        widen("it", np.ones(2, bool), accept_complex=True)
