"""What an installed wheel must do, away from the checkout and without any optional package."""

import importlib.metadata
import importlib.resources
import pkgutil
import subprocess
import sys
import sysconfig

import numpy as np

import gpuconv


def main() -> None:
    assert gpuconv.__file__.startswith(sysconfig.get_paths()["purelib"]), gpuconv.__file__
    assert importlib.metadata.version("gpuconv") == gpuconv.__version__
    assert importlib.resources.files("gpuconv").joinpath("py.typed").is_file()
    assert importlib.resources.files("gpuconv.backends").joinpath("cuda", "common.cuh").is_file()
    required = importlib.metadata.requires("gpuconv") or []
    assert sorted(r for r in required if "extra ==" not in r) == ["array-api-compat>=1.11", "numpy>=2.0"]
    for module in pkgutil.walk_packages(gpuconv.__path__, "gpuconv."):
        if module.name != "gpuconv.__main__":
            __import__(module.name)

    x = np.arange(6.0).reshape(1, 3, 2)
    layer = gpuconv.layers.Conv1DTranspose(4, 3, 2, activation="gelu", kernel_regularizer="l2")
    assert layer(x).shape == (1, 7, 4)
    doctor = subprocess.run(
        [sys.executable, "-m", "gpuconv", "doctor"], capture_output=True, text=True, check=True
    )
    assert gpuconv.__version__ in doctor.stdout
    demo = subprocess.run(
        [sys.executable, "-m", "gpuconv", "demo"], capture_output=True, text=True, check=False
    )
    assert demo.returncode == 1, demo
    assert "pip install" in demo.stderr, demo.stderr
    print("the installed wheel: ok")


if __name__ == "__main__":
    main()
