"""What one convolution asks for, and what every kernel's launch needs of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from gpuconv import activations
from gpuconv._typing import Array
from gpuconv.backends.cuda.device import Device, Launch
from gpuconv.geometry import AxisGeometry, ConvGeometry
from gpuconv.namespace import DTYPES, HALF_DTYPES

__all__ = [
    "FUSED",
    "MOST_BLOCKS_Z",
    "Algorithm",
    "Arrays",
    "Call",
    "Work",
    "address_of",
    "congruence",
    "is_wide",
    "number_of",
    "options_of",
    "steps_of",
    "struct_of",
]

# The numbers are those of activate() in common.cuh.
FUSED: dict[Callable[..., Array], int] = {
    activations.relu: 1,
    activations.relu6: 2,
    activations.leaky_relu: 3,
    activations.elu: 4,
    activations.tanh: 5,
    activations.sigmoid: 6,
    activations.silu: 7,
    activations.exponential: 8,
}
MOST_BLOCKS_Z = 65535
# Elements from which on indices have 64 bits: half of what an int holds, for a grid's overhang.
_WIDE = 2**30
_SIZES = (2, 2, 4, 8, 8, 16)  # bytes, in the order of DTYPES


class Call(NamedTuple):
    """A convolution without its arrays: what a kernel is chosen by."""

    geometry: ConvGeometry
    samples: int
    transposed: bool
    channels_last: bool
    dtype: str
    precision: str = "ieee"
    fused: int = 0

    @property
    def width(self) -> int:
        """Channels of the result in a group."""
        geometry = self.geometry
        return (geometry.filters if self.transposed else geometry.in_channels) // geometry.groups

    @property
    def depth(self) -> int:
        """Channels of the input in a group."""
        geometry = self.geometry
        return (geometry.in_channels if self.transposed else geometry.filters) // geometry.groups

    @property
    def x_shape(self) -> tuple[int, ...]:
        """Shape of the input."""
        return self._shape(transposed=not self.transposed)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the result."""
        return self._shape(transposed=self.transposed)

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """Shape of the kernel: the last two lengths change places with the direction."""
        inner = (self.width, self.depth * self.geometry.groups)
        if not self.transposed:
            inner = (self.depth, self.width * self.geometry.groups)
        return (*(axis.kernel for axis in self.geometry.axes), *inner)

    @property
    def bytes_moved(self) -> int:
        """Bytes of input, kernel and result, each once."""
        elements = (math.prod(shape) for shape in (self.x_shape, self.shape, self.kernel_shape))
        return _SIZES[DTYPES.index(self.dtype)] * sum(elements)

    @property
    def is_wide(self) -> bool:
        """Whether an index into contiguous arrays, or one product of the geometry's, may not fit an int."""
        sizes = (math.prod(shape) for shape in (self.x_shape, self.shape, self.kernel_shape))
        axes = self.geometry.axes
        longest = max(*sizes, *(axis.full_length for axis in axes))  # which crops may cut to less
        return longest >= _WIDE or max(axis.stride for axis in axes) > 2**15

    def _shape(self, *, transposed: bool) -> tuple[int, ...]:
        return self.geometry.result_shape(
            self.samples, transposed=transposed, channels_last=self.channels_last
        )


class Arrays(NamedTuple):
    """Of one element type, on the device; but the workspace, which is bytes."""

    x: Array
    kernel: Array
    bias: Array | None
    result: Array
    workspace: Array | None = None


class Work(NamedTuple):
    """Work of an algorithm: what it issues, needless parts of tiles included, and what it moves."""

    multiply_adds: int
    bytes: int
    blocks: int
    launches: int


class Algorithm(NamedTuple):
    """A way to run a call.

    `refuses` says why it cannot run the call on a device of a compute capability, or nothing. `function`
    compiles the kernel, for 64-bit indices if its last argument says so; `launch` runs it. `workspace` is the
    bytes that it needs beside the result.
    """

    name: str
    refuses: Callable[[Call, tuple[int, int]], str]
    work: Callable[[Call], Work]
    function: Callable[[Device, Call, bool], Launch]
    launch: Callable[[Device, Call, Arrays], None]
    workspace: Callable[[Call], int] = lambda _: 0


def options_of(
    dtype: str, fused: int, channels_last: bool, transposed: bool, wide: bool, **more: int
) -> tuple[str, ...]:
    """NVRTC's options, one fixed tuple per module; `more` are macros of one source."""
    return (
        "-std=c++17",
        f"-DGPUCONV_TYPE={DTYPES.index(dtype)}",
        f"-DGPUCONV_ACTIVATION={fused}",
        f"-DGPUCONV_CHANNELS_LAST={int(channels_last)}",
        f"-DGPUCONV_TRANSPOSED={int(transposed)}",
        f"-DGPUCONV_INDEX={'long long' if wide else 'int'}",
        *(f"-DGPUCONV_{name.upper()}={value}" for name, value in more.items()),
    )


def number_of(dtype: str) -> np.dtype:
    """What a kernel sums elements of `dtype` in: `Number` of common.cuh."""
    return np.dtype("float32" if dtype in HALF_DTYPES else dtype)


def struct_of(dtype: np.dtype, **members: Any) -> np.void:
    """A struct for a kernel; it has these members and no others."""
    struct = np.zeros(1, dtype)[0]
    for name in dtype.names or ():
        struct[name] = members.pop(name)
    if members:
        raise TypeError(f"the struct has no {', '.join(members)}")
    return struct


def address_of(array: Array) -> int:
    """Where the first element is."""
    interface = getattr(array, "__cuda_array_interface__", None) or array.__array_interface__
    return int(interface["data"][0])


def steps_of(array: Array) -> tuple[int, ...]:
    """Distance between neighbours along each axis, in elements."""
    return tuple(step // array.itemsize for step in array.strides)


def is_wide(call: Call, *arrays: Array) -> bool:
    """Whether an index into one of the arrays, as they lie in memory, may not fit an int."""
    spans = (sum((n - 1) * abs(s) for n, s in zip(a.shape, steps_of(a), strict=True)) for a in arrays)
    return call.is_wide or max(spans) >= _WIDE


def congruence(axis: AxisGeometry) -> tuple[int, int, int]:
    """What solves tap * dilation = sample (mod stride): the gcd, the taps' period, and dilation's inverse."""
    common = math.gcd(axis.stride, axis.dilation)
    period = axis.stride // common
    return common, period, pow(axis.dilation // common, -1, period) if period > 1 else 0
