"""The house: imports run one way, optional packages stay out, the public names are the real ones."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import gpuconv

ROOT = Path(gpuconv.__file__).parent

# From the ground up. A module imports only from those before it.
ORDER = [
    # 1: integers, libraries, settings
    "_typing",
    "config",
    "_display",
    "geometry",
    "explanation",
    "phases",
    "namespace",
    # 2: array maths through the array's own namespace
    "_catalogue",
    "_draws",
    "_initializers_fixed",
    "_initializers_scaled",
    "initializers",
    "_activations_kinked",
    "_activations_smooth",
    "_activations_along_axis",
    "_activations_pullbacks",
    "activations",
    "regularizers",
    "constraints",
    "optimizers",
    "losses",
    "callbacks",
    # 3: one way to run a geometry on one kind of array
    "backends",
    "backends.prepared",
    "backends.cpu",
    "backends.cpu.threads",
    "backends.cpu.call",
    "backends.cpu.window",
    "backends.cpu.toeplitz",
    "backends.cpu.overlap_add",
    "backends.cpu.row_overlap_add",
    "backends.cpu.gather",
    "backends.cpu.kernel_gradient",
    "backends.cpu.planner",
    "backends.numpy_",
    "backends.cuda",
    "backends.cuda.device",
    "backends.cuda.call",
    "backends.cuda.direct",
    "backends.cuda.gather",
    "backends.cuda.polyphase",
    "backends.cuda.atomic",
    "backends.cuda.kernel_gradient",
    "backends.cuda.planner",
    "backends.cupy_",
    "backends.generic",
    "backends.dask_",
    # 4: the public functions
    "ops._select",
    "ops.shapes",
    "ops._call",
    "ops.conv",
    "ops.conv_transpose",
    "ops.plan",
    "ops.gradients",
    "ops",
    # 5: state
    "layers._arguments",
    "layers.parameter",
    "layers.base",
    "layers.base_conv",
    "layers.conv",
    "layers.conv_transpose",
    "layers.core",
    "layers.training",
    "layers._summary",
    "layers.sequential",
    "layers",
    # 6: files of other systems
    "weights._files",
    "weights._hdf5",
    "weights._keras_config",
    "weights._keras_stores",
    "weights.keras",
    "weights.safetensors",
    "weights._onnx_nodes",
    "weights.onnx",
    "weights",
    # 6: what drives the others
    "_streaming_convolution",
    "streaming",
    "_streaming_formats",
    "_streaming_files",
    "signal",
    "_receptive_field",
    "report",
    "testing",
    # 7: other systems' words
    "dialects._matlab_dlarray",
    "dialects._matlab_dltranspconv",
    "dialects._matlab_properties",
    "dialects._matlab_layer",
    "dialects._matlab_update",
    "dialects.matlab",
    "dialects.r",
    "dialects._channels_first",
    "dialects.onnx",
    "dialects._pytorch_functional",
    "dialects._pytorch_base",
    "dialects._pytorch_modules",
    "dialects.pytorch",
    "dialects",
    # 7: for people
    "",
    "doctor",
    "_demo_files",
    "_demo_picture",
    "demo",
    "__main__",
]


def modules():
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imported(path):
    """(module, line) of every import, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            for alias in node.names:
                deeper = ROOT.parent.joinpath(*node.module.split("."), alias.name)
                is_module = deeper.with_suffix(".py").exists() or deeper.is_dir()
                yield (f"{node.module}.{alias.name}" if is_module else node.module), node.lineno


def test_the_order_names_every_module_once():
    assert sorted(ORDER) == sorted(name for name, _ in modules())


@pytest.mark.parametrize(("name", "path"), [m for m in modules() if m[0]])
def test_imports_run_one_way(name, path):
    for target, line in imported(path):
        if target.partition(".")[0] == "gpuconv":
            inner = target.partition(".")[2]
            assert ORDER.index(inner) < ORDER.index(name), f"{path}:{line}: {name} imports {inner}"


@pytest.mark.parametrize(("name", "path"), list(modules()))
def test_only_namespace_knows_array_api_compat(name, path):
    assert name == "namespace" or all(t.partition(".")[0] != "array_api_compat" for t, _ in imported(path))


@pytest.mark.parametrize(("name", "path"), list(modules()))
def test_optional_packages_are_imported_where_they_are_used(name, path):
    needed = {"numpy", "array_api_compat", "gpuconv", *sys.stdlib_module_names}
    top = ast.parse(path.read_text(encoding="utf-8")).body
    for node in top:
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) else []
        assert all(found.partition(".")[0] in needed for found in names), f"{path}:{node.lineno}"


USES = {
    "import": "import gpuconv",
    "convolve": "import numpy as n, gpuconv; gpuconv.conv1d_transpose(n.ones((1, 3, 2)), n.ones((2, 4, 2)))",
    "upsample": "import numpy as n, gpuconv; gpuconv.signal.upsample(n.ones(3), 2)",
    "layer": "import numpy as n, gpuconv; gpuconv.layers.Conv1D(2, 3, activation='gelu')(n.ones((1, 3, 2)))",
}


OPTIONAL = {
    "cupy",
    "dask",
    "distributed",
    "h5py",
    "hypothesis",
    "jax",
    "keras",
    "matplotlib",
    "ml_dtypes",
    "onnx",
    "onnxruntime",
    "pytest",
    "pywt",
    "safetensors",
    "scipy",
    "tensorflow",
    "threadpoolctl",
    "torch",
    "tqdm",
    "xarray",
}


@pytest.mark.parametrize("use", list(USES))
def test_a_numpy_user_loads_no_optional_package(use):
    code = f"{USES[use]}; import sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    assert {"gpuconv", "numpy", "array_api_compat"} <= loaded
    assert loaded.isdisjoint(OPTIONAL)


def test_importing_the_package_loads_no_dialect():
    code = (
        "import gpuconv, sys; print(*(name for name in sys.modules if name.startswith('gpuconv.dialects')))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []


PUBLIC = ["", "ops", "layers", "activations", "initializers", "regularizers", "constraints", "optimizers"]
PUBLIC += ["losses", "callbacks", "config", "signal", "report", "testing", "dialects"]
PUBLIC += [
    "dialects.matlab",
    "dialects.onnx",
    "dialects.pytorch",
    "dialects.r",
    "weights",
    "weights.safetensors",
    "streaming",
]


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_exist_and_are_documented(name):
    module = importlib.import_module(f"gpuconv.{name}".rstrip("."))
    assert len(set(module.__all__)) == len(module.__all__)
    for public in module.__all__:
        thing = getattr(module, public)
        assert thing.__doc__, public
        if callable(thing) and public not in SHOWN_ELSEWHERE:
            assert ">>>" in thing.__doc__, public


# Their use is in the example of solve, of image_data_format and of SGD.
SHOWN_ELSEWHERE = ("Setting", "Optimizer", "set_image_data_format", "standardize_data_format")


def test_dir_lists_what_is_loaded_on_demand():
    assert set(gpuconv.__all__) <= set(dir(gpuconv))
    with pytest.raises(AttributeError, match="no attribute 'conv4d'"):
        gpuconv.conv4d  # noqa: B018
