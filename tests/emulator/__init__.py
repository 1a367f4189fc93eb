"""CUDA kernels without a GPU: an emulator that runs their sources, a gate that compiles them for devices."""

from .build import CompileError, missing
from .device import ORDERS, CudaFault, Emulator
from .memory import guarded

__all__ = ["ORDERS", "CompileError", "CudaFault", "Emulator", "guarded", "missing"]
