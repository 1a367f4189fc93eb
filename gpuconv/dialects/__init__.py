"""The words of other systems: their names, argument orders and layouts, run by our ops.

Each module is loaded when it is first named.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpuconv.dialects import matlab, onnx, pytorch, r

__all__ = ["matlab", "onnx", "pytorch", "r"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return importlib.import_module(f"gpuconv.dialects.{name}")
    raise AttributeError(f"module 'gpuconv.dialects' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
