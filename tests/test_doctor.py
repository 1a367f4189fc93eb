"""The doctor: every part is named, and what is missing comes with one line of advice."""

import importlib
import importlib.machinery
import importlib.util
import os
import sys
import types
from importlib import metadata

import numpy as np
import pytest

from gpuconv import config, doctor
from gpuconv.__main__ import main
from gpuconv.backends.cpu import threads

# The real ones: a test may pretend anew over what the fixture pretends.
VERSION, FIND_SPEC = metadata.version, importlib.util.find_spec


@pytest.fixture(autouse=True)
def house(tmp_path, monkeypatch):
    """A home folder without keras.json or kernel cache; no CuPy."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.delenv("KERAS_HOME", raising=False)
    monkeypatch.delenv("CUPY_CACHE_DIR", raising=False)
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    install(monkeypatch)
    # The format is remembered by folder; the one read here must not outlive the test.
    config.set_image_data_format(None)
    yield tmp_path
    config.set_image_data_format(None)


def install(monkeypatch, absent=(), **present):
    """Pretend: `absent` distributions are not installed, `present` are, no other CuPy is."""
    present = {name.replace("_", "-"): number for name, number in present.items()}

    def pretend(name):
        if name in present:
            return present[name]
        if name in absent or name.startswith("cupy"):
            raise metadata.PackageNotFoundError(name)
        return VERSION(name)

    hidden = {*absent, *(() if present else ("cupy",))}
    monkeypatch.setattr(metadata, "version", pretend)
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name in hidden else FIND_SPEC(name, *rest)
    )


def pose_as_cupy(monkeypatch, **runtime):
    cupy = types.ModuleType("cupy")
    cupy.__spec__ = importlib.machinery.ModuleSpec("cupy", None)
    cupy.cuda = types.SimpleNamespace(runtime=types.SimpleNamespace(**runtime))
    monkeypatch.setitem(sys.modules, "cupy", cupy)


def findings():
    return {finding.part: finding for group in doctor.examine().values() for finding in group}


def test_every_part_is_there(capsys):
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    for heading in ("Python\n", "\nCPU\n", "\nGPU\n", "\nSettings\n"):
        assert heading in printed
    assert f"  numpy              {np.__version__}\n" in printed
    assert not [line for line in printed.splitlines() if line != line.rstrip()]


def test_columns_are_aligned():
    rows = [
        doctor.Finding("a", "1.0"),
        doctor.Finding("longer", "missing", "install it"),
        doctor.Finding("b", "x" * 40, "read this"),
    ]
    assert doctor.table({"Here": rows, "There": [doctor.Finding("c", "no", "do")]}) == (
        "Here\n"
        "  a       1.0\n"
        "  longer  missing  -> install it\n"
        f"  b       {'x' * 40}\n"
        "          -> read this\n"
        "\n"
        "There\n"
        "  c       no       -> do"
    )


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("scipy", 'pip install "gpuconv[demo]"'),
        ("matplotlib", 'pip install "gpuconv[plot]"'),
        ("PyWavelets", 'pip install "gpuconv[demo]"'),
        ("dask", 'pip install "gpuconv[dask]"'),
        ("torch", "pip install torch"),
        ("jax", "pip install jax"),
        ("ml_dtypes", "pip install ml_dtypes"),
        ("array-api-compat", "pip install array-api-compat"),
    ],
)
def test_a_missing_package_comes_with_advice(name, advice, monkeypatch):
    install(monkeypatch, absent={name})
    assert findings()[name].found == "missing"
    assert findings()[name].advice.endswith(advice)


def test_an_installed_package_needs_no_advice():
    assert findings()["numpy"] == ("numpy", np.__version__, "")


def test_optional_packages_are_not_imported(monkeypatch):
    for name in ("torch", "jax", "dask", "pywt"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    doctor.examine()
    assert not {"torch", "jax", "dask", "pywt"} & set(sys.modules)


def openblas(kernels):
    return threads.Blas(lambda: 3, lambda _: None, lambda: kernels)


def test_blas_is_named(monkeypatch):
    build = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    monkeypatch.setattr(doctor, "blas", lambda: openblas(b"SkylakeX"))
    assert findings()["BLAS"] == ("BLAS", f"{build['name']} {build['version']}, SkylakeX kernels", "")
    assert findings()["BLAS threads"] == ("BLAS threads", "3", "")


@pytest.mark.parametrize("kernels", [b"Haswell", b"Zen"])
def test_kernels_that_leave_half_of_the_processor_idle(kernels, monkeypatch):
    core = importlib.import_module("numpy._core._multiarray_umath")
    monkeypatch.setattr(doctor, "blas", lambda: openblas(kernels))
    monkeypatch.setitem(core.__cpu_features__, "AVX512_SKX", True)
    assert "OPENBLAS_CORETYPE=SkylakeX" in findings()["BLAS"].advice
    monkeypatch.setitem(core.__cpu_features__, "AVX512_SKX", False)
    assert findings()["BLAS"].advice == ""


def test_another_blas(monkeypatch):
    monkeypatch.setattr(doctor, "blas", lambda: None)
    monkeypatch.setattr(np, "show_config", lambda **_: {})
    for name in doctor._THREADS:
        monkeypatch.delenv(name, raising=False)
    assert findings()["BLAS"].found == "unknown"
    assert findings()["BLAS threads"].found == f"not set, {os.cpu_count()} CPUs"
    assert "OpenBLAS" in findings()["BLAS threads"].advice
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    assert findings()["BLAS threads"].found == "OPENBLAS_NUM_THREADS=1, OMP_NUM_THREADS=2"


def test_without_cupy():
    found = findings()
    assert found["cupy"].found == "missing"
    assert 'pip install "gpuconv[cuda12]" or "gpuconv[cuda13]"' in found["cupy"].advice
    assert "GPU" not in found
    assert "CUDA runtime" not in found
    assert doctor.find_gpu()[0] is None
    assert "cupy" not in sys.modules


def test_cupy_that_cannot_be_imported(house, monkeypatch):
    folder = house / "site"
    folder.mkdir()
    (folder / "cupy.py").write_text(
        "raise ImportError('''\n=====\nFailed to import CuPy.\n\nlibnvrtc.so.12: not found\n=====\n''')\n"
    )
    monkeypatch.syspath_prepend(folder)
    install(monkeypatch, cupy_cuda12x="14.0.1")
    found = findings()
    assert found["cupy"].found == "cupy-cuda12x 14.0.1"
    assert found["GPU"].found == "CuPy cannot be imported: Failed to import CuPy."
    assert found["GPU"].advice.startswith("uninstall it, then pip install")


def test_cupy_without_a_driver(monkeypatch):
    def no_driver():
        raise RuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient")

    install(monkeypatch, cupy_cuda13x="14.0.1")
    pose_as_cupy(monkeypatch, getDeviceCount=no_driver)
    assert findings()["GPU"].found.startswith("not usable: cudaErrorInsufficientDriver")
    assert findings()["GPU"].advice.startswith("run nvidia-smi; install an NVIDIA driver")


def test_cupy_without_a_device(monkeypatch):
    install(monkeypatch, cupy="14.0.1")
    pose_as_cupy(monkeypatch, getDeviceCount=lambda: 0)
    assert findings()["GPU"].found == "CUDA reports 0 devices"


def test_two_cupys(monkeypatch):
    install(monkeypatch, cupy_cuda12x="14.0.1", cupy_cuda13x="14.0.1")
    pose_as_cupy(monkeypatch, getDeviceCount=lambda: 0)
    assert findings()["cupy"].found == "cupy-cuda12x 14.0.1, cupy-cuda13x 14.0.1"
    assert "they overwrite each other" in findings()["cupy"].advice


def test_cupy_with_a_gpu(monkeypatch):
    install(monkeypatch, cupy_cuda12x="14.0.1")
    pose_as_cupy(
        monkeypatch,
        getDeviceCount=lambda: 1,
        getDeviceProperties=lambda _: {
            "name": b"NVIDIA X",
            "totalGlobalMem": 3 << 29,
            "major": 9,
            "minor": 0,
        },
        driverGetVersion=lambda: 13000,
        runtimeGetVersion=lambda: 12090,
    )
    found = findings()
    assert found["GPU 0"].found == "NVIDIA X, 1.5 GiB, compute capability 9.0"
    assert found["driver"].found == "supports CUDA 13.0"
    assert found["CUDA runtime"].found == "12.9"
    assert not any(found[part].advice for part in ("cupy", "GPU 0", "driver", "CUDA runtime"))


def test_kernel_cache(house, monkeypatch):
    assert findings()["kernel cache"].found == f"{house / '.cupy' / 'kernel_cache'}: not there yet"
    folder = house / "kernels"
    (folder / "inner").mkdir(parents=True)
    (folder / "a.cubin").write_bytes(bytes(2**20))
    (folder / "inner" / "b.cubin").write_bytes(bytes(2**19))
    monkeypatch.setenv("CUPY_CACHE_DIR", str(folder))
    assert findings()["kernel cache"].found == f"{folder}: 2 files, 1.5 MiB"


def test_data_format(house, monkeypatch):
    path = house / ".keras" / "keras.json"
    assert findings()["image_data_format"].found == f"channels_last (no {path})"
    path = house / "keras.json"
    path.write_text('{"image_data_format": "channels_first"}')
    monkeypatch.setenv("KERAS_HOME", str(house))
    assert findings()["image_data_format"].found == f"channels_first ({path})"


def test_a_broken_keras_json_is_a_finding(house, monkeypatch):
    (house / "keras.json").write_text("{")
    monkeypatch.setenv("KERAS_HOME", str(house))
    finding = findings()["image_data_format"]
    assert finding.found == "unknown"
    assert "Repair or delete the file" in finding.advice
    assert "\n" not in finding.advice


@pytest.mark.parametrize(
    ("answer", "found", "advice"),
    [
        (None, "no NVIDIA driver found", "without a GPU"),
        ((0, 12040), "supports CUDA 12.4", 'pip install "gpuconv[cuda12]"'),
        ((0, 13010), "supports CUDA 13.1", 'pip install "gpuconv[cuda13]"'),
        ((803, 0), "does not answer: CUDA error 803", "run nvidia-smi"),
    ],
)
def test_without_cupy_the_driver_is_asked_itself(answer, found, advice, monkeypatch):
    class Driver:
        def __init__(self, name):
            if answer is None:
                raise OSError(f"{name}: cannot open shared object file")

        def cuDriverGetVersion(self, pointer):  # noqa: N802, CUDA's name
            pointer._obj.value = answer[1]
            return answer[0]

    monkeypatch.setattr(doctor.ctypes, "CDLL", Driver)
    finding = doctor._driver()
    assert finding.found == found
    assert advice in finding.advice


# --- compiling ahead -----------------------------------------------------------------------------


def test_there_must_be_a_gpu_to_compile_for(monkeypatch, capsys):
    def no_driver():
        raise RuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient")

    install(monkeypatch, cupy_cuda13x="14.0.1")
    pose_as_cupy(monkeypatch, getDeviceCount=no_driver)
    assert main(["doctor", "--compile"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("gpuconv doctor: no GPU to compile for: GPU: not usable: cudaErrorInsufficient")
    assert "NumPy arrays need neither" in error


def test_every_kernel_is_compiled_for_the_device(monkeypatch, capsys):
    compiled = []

    class Device:
        name, capability, multiprocessors = "NVIDIA X", (7, 5), 40

        def function(self, source, entry, options):
            compiled.append((source, entry, options))

    install(monkeypatch, cupy_cuda13x="14.0.1")
    properties = {"name": b"NVIDIA X", "totalGlobalMem": 1, "major": 7, "minor": 5}
    versions = {"driverGetVersion": lambda: 13000, "runtimeGetVersion": lambda: 13000}
    pose_as_cupy(monkeypatch, getDeviceCount=lambda: 1, getDeviceProperties=lambda _: properties, **versions)
    monkeypatch.setattr(doctor, "current_device", Device)
    assert main(["doctor", "--compile"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"{len(compiled)} kernels for NVIDIA X in 0 s"
    assert "direct, complex128" in lines
    assert len(set(compiled)) == len(compiled)
    assert not any(entry == "mma_gather" for _, entry, _ in compiled), "that device has no such instructions"
    Device.capability = (9, 0)
    doctor.compile_kernels(lambda _: None)
    assert any(entry == "mma_gather" for _, entry, _ in compiled)
