"""PyTorch's parameters from .safetensors files: arrays, weight normalisation, models that are filled."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gpuconv
from gpuconv.layers import Activation, Conv1D, Conv1DTranspose, Conv2DTranspose, Input, Layer, Sequential
from gpuconv.weights import safetensors
from tests.bounds import chain_bound
from tests.mutations import check_refusals, filling, mutated, refusal

FOLDER = Path(__file__).parent / "data" / "weights"
PREDICTIONS = np.load(FOLDER / "predictions.npz")
FIRST = {"data_format": "channels_first"}


def plain(**names):
    """The model of plain.safetensors; PyTorch's modules are numbered from 0."""
    return Sequential(
        [
            Input((2, None)),
            Conv1D(4, 3, padding=1, groups=2, activation="tanh", **FIRST),
            Conv1DTranspose(4, 4, 2, 1, groups=2, activation="tanh", **FIRST),
            *(Activation("tanh") for _ in range(6)),
            Conv1D(3, 2, use_bias=False, **FIRST),
        ]
    )


def normalised():
    leaky = Activation({"class_name": "leaky_relu", "config": {"negative_slope": 0.1}})
    up, again = Conv1DTranspose(3, 4, 2, 0, **FIRST), Conv1DTranspose(2, 3, **FIRST)
    return Sequential([Input((2, None)), up, leaky, again, Conv1D(2, 3, **FIRST)])


def half():
    layer = Conv2DTranspose(3, (2, 3), (2, 1), 0, dtype="bfloat16", **FIRST)
    return Sequential([Input((2, None, None), dtype="bfloat16"), layer])


def written(path, header, data=b"", length=None):
    """A file with this header, which may lie."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def file_of(path, **arrays):
    """A sound file of float32 arrays, with dots for double underscores in the names."""
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, array in arrays.items():
        array = np.asarray(array, "float32")
        offsets = [len(data), len(data) + array.nbytes]
        entry = {"dtype": "F32", "shape": list(array.shape), "data_offsets": offsets}
        header[name.replace("__", ".")] = entry
        data += array.tobytes()
    return written(path, header, data)


# --- models --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "make", "dtype"),
    [
        ("plain", plain, "float32"),
        ("weight_norm_1", normalised, "float32"),
        ("weight_norm_2", normalised, "float32"),
        ("bfloat16", half, "bfloat16"),
    ],
)
def test_a_model_predicts_what_torch_did(name, make, dtype):
    pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed: pip install gpuconv[test]")
    name = f"{name}.safetensors"
    model = make()
    assert gpuconv.load(FOLDER / name, into=model) is model
    x, expected = PREDICTIONS[f"{name}:x"], PREDICTIONS[f"{name}:y"]
    y = model(x)
    assert y.dtype.name == dtype
    assert y.shape == expected.shape
    assert np.all(np.abs(y.astype(np.float64) - expected) <= chain_bound(model, x, dtype))


def test_names_decide_where_layers_have_them(tmp_path):
    """The order of these names is not that of the layers."""
    arrays = {"encoder__weight": np.full((1, 1, 1), 2), "decoder__weight": np.full((1, 1, 1), 3)}
    path = file_of(tmp_path / "a.safetensors", **arrays)

    def model(first, second):
        kinds = (Conv1D(1, 1, use_bias=False, name=name, **FIRST) for name in (first, second))
        return Sequential([Input((1, None)), *kinds])

    filled = gpuconv.load(path, into=model("encoder", "decoder"))
    assert [weight.item() for weight in filled.weights] == [2, 3]
    message = refusal(lambda path: gpuconv.load(path, into=model("first", "second")), path)
    assert (
        "The model's layers ['first', 'second'] are neither named like these (['decoder', 'encoder'])"
        in message
    )
    assert "encoder.weight (1, 1, 1)" in message


def test_names_in_messages_can_be_written(tmp_path):
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    path = written(tmp_path / "a.safetensors", {"\ud800\x1b[2J": entry})
    model = Sequential([Input((2, None)), Conv1D(3, 4, **FIRST)])
    message = refusal(lambda path: gpuconv.load(path, into=model), path)
    assert r"is given \ud800\x1b[2J (0,)" in message or r"it has \ud800\x1b[2J (0,)" in message
    assert message.isprintable()


def test_models_in_models_and_a_module_at_the_top(tmp_path):
    path = file_of(tmp_path / "a.safetensors", weight=np.ones((3, 2, 4)), bias=np.ones(3))
    model = Sequential([Input((2, None)), Sequential([Conv1D(3, 4, **FIRST)])])
    gpuconv.load(path, into=model)
    assert model.weights[0].flags.c_contiguous
    assert all((weight == 1).all() for weight in model.weights)


class Gain(Layer):
    def build(self, input_shape):
        self.add_weight("gain", (1,))
        super().build(input_shape)


CASES = {
    "another shape": (
        {"a__weight": np.ones((3, 2, 5))},
        "has a kernel (and a bias) of [(4, 2, 3)] and is given a.weight (3, 2, 5), a kernel of (5, 2, 3)",
    ),
    "a bias too many": (
        {"a__weight": np.ones((3, 2, 4)), "a__bias": np.ones(3)},
        "layer 'first' needs ['weight'] and is given a.weight (3, 2, 4), a.bias (3,)",
    ),
    "no convolution": ({"a__weight": np.ones((3, 2))}, "needs ['weight'] and is given a.weight (3, 2)"),
    "a layer too many": (
        {"a1__weight": np.ones((3, 2, 4)), "a2__weight": np.ones((3, 2, 4))}, "nor as many as these",
    ),
    "nothing": ({}, "it has nothing. The model's layers ['first'] are neither"),
}  # fmt: skip


@pytest.mark.parametrize("case", list(CASES))
def test_arrays_that_do_not_fit_leave_the_model_alone(tmp_path, case):
    arrays, message = CASES[case]
    path = file_of(tmp_path / "a.safetensors", **arrays)
    model = Sequential([Input((2, None)), Conv1D(3, 4, use_bias=False, name="first", **FIRST)])
    before = model.get_weights()
    found = refusal(lambda path: gpuconv.load(path, into=model), path)
    assert found.startswith(f"Expected a .safetensors file that fits the model. Received {path}: ")
    assert message in found
    np.testing.assert_array_equal(model.weights[0], before[0])


def test_calls_that_cannot_be(tmp_path):
    path = FOLDER / "plain.safetensors"
    message = refusal(gpuconv.load, path)
    assert message.startswith(
        f"Expected a file with a model. Received {path}: a .safetensors file has weights alone."
    )
    model = Sequential([Input((2, 3)), Gain(name="own")])
    assert "layer 'own' is no convolution" in refusal(lambda path: gpuconv.load(path, into=model), path)
    for array, message in (
        (np.ones(3), r"over 1 to 3 axes\. Received shape=\(3,\)"),
        (np.ones((1,) * 6), "shape"),
    ):
        with pytest.raises(ValueError, match=message):
            safetensors.to_kernel(array)
    with pytest.raises(TypeError, match="weight: Expected an array"):
        safetensors.to_kernel([1, 2])


# --- arrays --------------------------------------------------------------------------------------


def test_all_types_are_read(tmp_path):
    package = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")
    rng = np.random.default_rng(0)
    kinds = [f"{kind}{bits}" for kind in ("uint", "int") for bits in (8, 16, 32, 64)]
    kinds += ["bool", "float16", "float32", "float64", "complex64"]
    arrays = {f"{kind}.{i}": rng.integers(0, 2, (i, 3)).astype(kind) for kind in kinds for i in range(3)}
    arrays["scalar"] = np.full((), 3.0)
    path = tmp_path / "all.safetensors"
    package.save_file(arrays, path, {"key": "value"})
    found = safetensors.read(str(path))
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array, strict=True)
        assert found[name].flags.writeable


def test_weight_norm_is_folded():
    first, second = (safetensors.read(FOLDER / f"weight_norm_{version}.safetensors") for version in (1, 2))
    assert sorted(first) == sorted(f"{i}.{kind}" for i in (0, 2, 3) for kind in ("weight", "bias"))
    assert sorted(second) == sorted(first)
    assert first["0.weight"].dtype == np.float32


def test_what_only_looks_like_weight_norm_stays(tmp_path):
    """Spectral normalisation has a weight_v, too."""
    ones = np.ones((2, 3, 4))
    path = file_of(tmp_path / "a.safetensors", a__weight_orig=ones, a__weight_v=ones, b__weight_g=ones)
    assert list(safetensors.read(path)) == ["a.weight_orig", "a.weight_v", "b.weight_g"]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a__weight": np.ones((2, 3, 4))}, "it has 'a.weight' twice, once in two parts"),
        ({"a__weight_g": np.ones((3, 1, 1))}, "'a.weight' is made of lengths of shape (3, 1, 1), float32"),
        ({"a__weight_g": np.ones((2, 1))}, "'a.weight' is made of lengths of shape (2, 1)"),
    ],
)
def test_weight_norm_that_cannot_be(tmp_path, arrays, message):
    arrays = {"a__weight_g": np.ones((2, 1, 1)), "a__weight_v": np.ones((2, 3, 4)), **arrays}
    assert message in refusal(safetensors.read, file_of(tmp_path / "a.safetensors", **arrays))


def test_a_direction_of_length_0_is_not_a_number(tmp_path):
    path = file_of(tmp_path / "a.safetensors", weight_g=np.ones((2, 1, 1)), weight_v=np.zeros((2, 3, 4)))
    assert np.isnan(safetensors.read(path)["weight"]).all()


def entry(dtype="F32", shape=(1,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


LYING = {
    "no header": (b"", b"", 100, "its header should take 100 bytes, and 0 follow"),
    "a huge header": (b"{}", b"", 2**63, "its header should take 9223372036854775808 bytes"),
    "no JSON": (b"{x}", b"", None, "its header is no JSON"),
    "a list": (b"[]", b"", None, "its header is no JSON object"),
    "a deep header": (b'{"a":' * 10**5, b"", None, "its header is"),
    "no object": ({"a": 1}, b"", None, "'a' is 1, not an object"),
    "no shape": ({"a": {"dtype": "F32"}}, b"", None, "'a' has shape=None, not a list"),
    "another type": ({"a": entry("F8_E4M3")}, bytes(4), None, "'a' has dtype='F8_E4M3', not one of BOOL"),
    "a negative length": ({"a": entry(shape=(-1, -1))}, bytes(4), None, "'a' has shape=[-1, -1]"),
    "a truth as length": ({"a": entry(shape=(True,))}, bytes(4), None, "'a' has shape=[True]"),
    "too many axes": ({"a": entry(shape=(1,) * 33)}, bytes(4), None, "'a' has shape=[1, 1, 1"),
    "one offset": ({"a": entry(offsets=(0,))}, bytes(4), None, "data_offsets=[0]"),
    "a huge shape": ({"a": entry(shape=(2**40, 2**40))}, bytes(4), None, "takes 4 bytes, and its shape 48"),
    "beyond the end": ({"a": entry(shape=(2**40,), offsets=(0, 2**42))}, bytes(4), None, "'a' ends at 43980"),
    "a huge nothing": ({"a": entry(shape=(0, 10**30), offsets=(0, 0))}, b"", None, "dimension exceeded"),
    "a hole": ({"a": entry(offsets=(4, 8))}, bytes(8), None, "'a' begins at 4, where 0 is expected"),
    "an overlap": ({"a": entry(), "b": entry()}, bytes(4), None, "'b' begins at 0, where 4 is expected"),
    "a rest": ({"a": entry()}, bytes(6), None, "2 bytes belong to no array"),
    "cut off": ({"a": entry()}, bytes(3), None, "'a' ends at 4, and 3 bytes follow the header"),
}  # fmt: skip


@pytest.mark.parametrize("case", list(LYING))
def test_headers_that_lie(tmp_path, case):
    header, data, length, message = LYING[case]
    path = written(tmp_path / "lying.safetensors", header, data, length)
    found = refusal(safetensors.read, path)
    assert found.startswith(f"Expected a .safetensors file. Received {path}: ")
    assert message in found


def test_a_header_that_is_too_long(tmp_path):
    path = written(tmp_path / "long.safetensors", b"{" + b" " * 2**24 + b"}")
    assert "its header takes 16777218 bytes, and at most 16777216 are read" in refusal(safetensors.read, path)


def test_an_array_of_nothing_beside_another(tmp_path):
    path = file_of(tmp_path / "a.safetensors", z=np.ones(2), a=np.ones((0, 3)), b=np.ones(1))
    assert {name: array.shape for name, array in safetensors.read(path).items()} == {
        "z": (2,),
        "a": (0, 3),
        "b": (1,),
    }


@pytest.mark.parametrize("name", ["plain", "weight_norm_2"])
def test_damaged_files_fill_all_or_nothing(tmp_path, deep, name):
    model, seeds = (plain if name == "plain" else normalised)(), range(5000 if deep else 80)
    data = (FOLDER / f"{name}.safetensors").read_bytes()
    sound = check_refusals(filling(model), tmp_path / "a.safetensors", mutated, data, seeds)
    assert 0 < sound < len(seeds)


def test_no_package_is_needed():
    code = (
        "import sys; from gpuconv.weights import safetensors; safetensors.read(sys.argv[1]); "
        "assert not {'safetensors', 'ml_dtypes', 'h5py', 'onnx'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code, str(FOLDER / "plain.safetensors")], check=True)


def test_ml_dtypes_is_named_when_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(ImportError, match=re.escape('pip install "gpuconv[weights]"')):
        safetensors.read(FOLDER / "bfloat16.safetensors")


# --- PyTorch itself ------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning")
@pytest.mark.parametrize("ndim", [1, 2, 3])
@pytest.mark.parametrize("transposed", [True, False], ids=["conv_transpose", "conv"])
def test_what_torch_writes_now(tmp_path, ndim, transposed):
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install gpuconv[peers]")
    package = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
    kind = getattr(torch.nn, f"Conv{'Transpose' if transposed else ''}{ndim}d")
    ours = getattr(gpuconv.layers, f"Conv{ndim}D{'Transpose' if transposed else ''}")
    path = tmp_path / "torch.safetensors"
    norms = [None, torch.nn.utils.weight_norm, torch.nn.utils.parametrizations.weight_norm]
    for norm in norms:
        for dim in (0, 1, None):
            module = kind(4, 6, (3, 2, 1)[:ndim], groups=2, dtype=torch.float32)
            module = module if norm is None else norm(module, dim=dim)
            x = torch.randn(2, 4, *(5, 4, 3)[:ndim])
            package.save_file(module.state_dict(), path)
            model = Sequential(
                [Input((4, *(None,) * ndim)), ours(6, (3, 2, 1)[:ndim], padding=0, groups=2, **FIRST)]
            )
            gpuconv.load(path, into=model)
            with torch.no_grad():
                expected = module(x).numpy()
                weight = safetensors.to_kernel(module.weight).numpy()
            # The weight itself: a norm of 12 squares, a quotient and a product, in float32.
            np.testing.assert_allclose(model.weights[0], weight, rtol=16 * 2.0**-23)
            bound = chain_bound(model, x.numpy()) * (1 if norm is None else 2)
            assert np.all(np.abs(model(x.numpy()) - expected) <= bound)
