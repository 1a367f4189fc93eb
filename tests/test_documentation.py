"""The docs name what there is: public names in the reference, arguments in the tables of dialects."""

import importlib
import inspect
import operator
import os
import re
from pathlib import Path

import pytest

import gpuconv
from gpuconv.dialects import matlab, onnx, pytorch, r
from tests.test_structure import PUBLIC

DOCS = Path(__file__).parent.parent / "docs"


def referenced():
    """All objects that the lists of the reference name."""
    for page in sorted((DOCS / "reference").glob("*.rst")):
        module = None
        for line in page.read_text(encoding="utf-8").splitlines():
            if line.startswith(".. currentmodule:: "):
                module = importlib.import_module(line.split()[-1])
            elif module is not None and (name := re.fullmatch(r" {3}([\w.]+)", line)):
                yield operator.attrgetter(name[1])(module)


@pytest.mark.parametrize("name", [*PUBLIC, "doctor"])
def test_the_reference_has_every_public_name(name):
    module = importlib.import_module(f"gpuconv.{name}".rstrip("."))
    public = {name: getattr(module, name) for name in module.__all__}
    there = set(map(id, referenced()))
    assert not [
        name for name, thing in public.items() if not inspect.ismodule(thing) and id(thing) not in there
    ]


def words_of(system):
    """The words in the column of a system, in all tables that have one row for each argument."""
    text = (DOCS / "dialects.md").read_text(encoding="utf-8")
    words = []
    for table in re.findall(r"(?:^\|.*\n)+", text, re.M):
        rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
        if rows[0][:2] == ["What", "gpuconv, operation"]:
            column = rows[0].index(system)
            words += [word for row in rows[2:] for word in re.findall(r"`(\w+)`", row[column])]
    return set(words)


def arguments(*functions):
    return {name for function in functions for name in inspect.signature(function).parameters} - {
        "self",
        "kwargs",
    }


TORCH = (pytorch.ConvTranspose1d, pytorch.ConvTranspose1d.__call__, pytorch.conv_transpose1d)
OURS = {
    "gpuconv, operation": arguments(gpuconv.conv1d_transpose),
    "gpuconv, layer": arguments(gpuconv.layers.Conv1DTranspose),
    "R keras": arguments(r.layer_conv_1d_transpose),
    "MATLAB": arguments(matlab.transposedConv1dLayer, matlab.dltranspconv),
    "PyTorch": arguments(*TORCH) - {"seed"},  # which PyTorch has not
    "ONNX": arguments(onnx.ConvTranspose),
}


@pytest.mark.parametrize("system", OURS)
def test_the_tables_have_the_arguments_of_our_dialects(system):
    assert words_of(system) == OURS[system]


def test_the_tables_have_the_arguments_of_pytorch():
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install gpuconv[peers]")
    theirs = torch.nn.ConvTranspose1d
    assert arguments(theirs, theirs.forward) <= words_of("PyTorch")


def test_the_tables_have_the_arguments_of_keras():
    os.environ["KERAS_BACKEND"] = "jax"
    keras = pytest.importorskip("keras", reason="keras is not installed: pip install gpuconv[peers]")
    theirs = arguments(keras.layers.Conv1DTranspose.__init__, keras.layers.Layer.__init__)
    assert theirs | {"input_shape"} == words_of("Keras 3")  # which is taken, but not in a signature


def test_the_tables_have_the_arguments_of_tensorflow():
    reason = "tensorflow is not installed: pip install tensorflow"
    tensorflow = pytest.importorskip("tensorflow", reason=reason)
    assert arguments(tensorflow.keras.layers.Conv1DTranspose) <= words_of("tf.keras")


def test_the_tables_have_the_arguments_of_onnx():
    defs = pytest.importorskip("onnx.defs", reason="onnx is not installed: pip install gpuconv[peers]")
    schema = defs.get_schema("ConvTranspose")
    assert {*schema.attributes, *(given.name for given in schema.inputs)} == words_of("ONNX")
