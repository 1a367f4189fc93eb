"""Transposed convolution (and its forward twin) for the array that you already have.

A NumPy array runs vectorised BLAS, any other array-API array runs through the standard, and what comes back
is of the same kind. `gpuconv.layers` reads like `keras.layers`, and `gpuconv.load` reads files of
Keras, PyTorch and ONNX.
"""

import importlib
from typing import TYPE_CHECKING, Any

from gpuconv import config
from gpuconv.ops import (
    Plan,
    Setting,
    conv1d,
    conv1d_transpose,
    conv2d,
    conv2d_transpose,
    conv3d,
    conv3d_transpose,
    output_shape,
    plan,
    solve,
    vjp,
)

if TYPE_CHECKING:
    from gpuconv import (
        activations,
        callbacks,
        constraints,
        dialects,
        initializers,
        layers,
        losses,
        optimizers,
        regularizers,
        report,
        signal,
        testing,
        weights,
    )
    from gpuconv._streaming_files import process_file
    from gpuconv.streaming import stream
    from gpuconv.weights import load

__version__ = "0.1.0"

__all__ = [
    "Plan",
    "Setting",
    "activations",
    "callbacks",
    "config",
    "constraints",
    "conv1d",
    "conv1d_transpose",
    "conv2d",
    "conv2d_transpose",
    "conv3d",
    "conv3d_transpose",
    "dialects",
    "initializers",
    "layers",
    "load",
    "losses",
    "optimizers",
    "output_shape",
    "plan",
    "process_file",
    "regularizers",
    "report",
    "signal",
    "solve",
    "stream",
    "testing",
    "vjp",
    "weights",
]


_FUNCTIONS = {"load": "weights", "process_file": "_streaming_files", "stream": "streaming"}


def __getattr__(name: str) -> Any:
    # Who only convolves does not wait for the layers, their catalogues and the dialects.
    if name in _FUNCTIONS:
        return getattr(importlib.import_module(f"gpuconv.{_FUNCTIONS[name]}"), name)
    if name in __all__:
        return importlib.import_module(f"gpuconv.{name}")
    raise AttributeError(f"module 'gpuconv' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
