"""Profiles, and the array libraries that every backend test runs on."""

import importlib

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

# A script, which imports every peer.
collect_ignore = ["make_weight_files.py"]

# How long a machine takes to draw or to run an example says nothing about the code.
_UNTIMED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("default", max_examples=150, **_UNTIMED)
settings.register_profile("deep", max_examples=20_000, **_UNTIMED)


def pytest_addoption(parser):
    parser.addoption("--require-gpu", action="store_true", help="fail, rather than skip, what needs a GPU")
    parser.addoption("--large", action="store_true", help="run what takes gigabytes and minutes")


def pytest_configure(config):
    config.addinivalue_line("markers", "large: takes gigabytes and minutes, and runs with --large only")


def pytest_runtest_setup(item):
    if item.get_closest_marker("large") and not item.config.getoption("--large"):
        pytest.skip("takes gigabytes and minutes: pytest --large")


@pytest.fixture(scope="session")
def deep():
    """Whether this is the long run: ``pytest --hypothesis-profile=deep``."""
    return settings.get_current_profile_name() == "deep"


def _jax():
    jax = importlib.import_module("jax")
    jax.config.update("jax_enable_x64", True)
    return jax.numpy


LIBRARIES = {
    "numpy": lambda: np,
    "array_api_strict": lambda: importlib.import_module("array_api_strict"),
    "torch": lambda: importlib.import_module("torch"),
    "jax": _jax,
    "dask": lambda: importlib.import_module("dask.array"),
}


@pytest.fixture(scope="session")
def cupy(request):
    """CuPy, where there is a GPU."""
    try:
        module = importlib.import_module("cupy")
        if not module.cuda.is_available():
            raise ImportError("CuPy finds no GPU")
    except ImportError as error:
        if request.config.getoption("--require-gpu"):
            pytest.fail(f"--require-gpu, but {error}")
        pytest.skip(f"no GPU: {error}")
    return module


@pytest.fixture(params=["cupy", *LIBRARIES])
def xp(request):
    """The namespace of each array library that is installed."""
    if request.param == "cupy":
        return request.getfixturevalue("cupy")
    try:
        return LIBRARIES[request.param]()
    except ImportError:
        pytest.skip(f"{request.param} is not installed: pip install gpuconv[peers]")
