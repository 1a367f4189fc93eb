"""What the modules of `gpuconv.dialects.pytorch` share: sizes, parameters and state dicts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np

from gpuconv._typing import Array, PerAxis
from gpuconv.dialects._channels_first import convolve, spoken
from gpuconv.dialects._pytorch_functional import WORDS
from gpuconv.geometry import integer, per_axis
from gpuconv.initializers import RandomUniform
from gpuconv.layers import Layer
from gpuconv.namespace import array_namespace, to_numpy

__all__ = ["ConvNd", "IncompatibleKeys"]

# Names of lengths and directions, as `torch.nn.utils.weight_norm` and its parametrization write them.
_WEIGHT_NORMS = (
    ("weight_g", "weight_v"),
    ("parametrizations.weight.original0", "parametrizations.weight.original1"),
)


class IncompatibleKeys(NamedTuple):
    """What `load_state_dict` did not find, and what it did not know."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class _Parameters(Layer):
    """The weight and the bias, which follow the input as those of every layer do."""

    def call(self, inputs: Array, **how: Any) -> Array:
        weight, *bias = (self.weight(name, inputs) for name in self._parameters)
        return convolve(WORDS, x=inputs, weight=weight, bias=bias[0] if bias else None, **how)


class ConvNd:
    """A module over `ndim` spatial axes."""

    ndim: ClassVar[int]
    transposed: ClassVar[bool]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: PerAxis,
        stride: PerAxis,
        padding: str | tuple[int, ...],
        output_padding: PerAxis,
        dilation: PerAxis,
        groups: int,
        bias: bool,
        padding_mode: str,
        dtype: Any,
        seed: int | None,
    ) -> None:
        self.in_channels = integer("in_channels", in_channels, 1)
        self.out_channels = integer("out_channels", out_channels, 1)
        self.kernel_size = per_axis("kernel_size", kernel_size, self.ndim, 1)
        self.stride = per_axis("stride", stride, self.ndim, 1)
        self.padding = padding
        self.output_padding = per_axis("output_padding", output_padding, self.ndim, 0)
        self.dilation = per_axis("dilation", dilation, self.ndim, 1)
        self.groups = integer("groups", groups, 1)
        if self.in_channels % self.groups or self.out_channels % self.groups:
            raise ValueError(
                "Expected groups to divide in_channels and out_channels. "
                f"Received {groups=}, {in_channels=}, {out_channels=}."
            )
        if padding_mode != "zeros":
            raise NotImplementedError(
                f"Expected padding_mode='zeros', the only one there is. Received {padding_mode=}. "
                "Pad the input first, for example with numpy.pad."
            )
        self.padding_mode = padding_mode
        outer, inner = self.out_channels, self.in_channels // self.groups
        if self.transposed:
            outer, inner = self.in_channels, self.out_channels // self.groups
        # PyTorch's fan_in for both layouts, and its default: kaiming_uniform_ with a = sqrt(5).
        bound = 1 / math.sqrt(inner * math.prod(self.kernel_size))
        if seed is not None:
            seed = integer("seed", seed, 0)
        shapes: dict[str, tuple[int, ...]] = {"weight": (outer, inner, *self.kernel_size)}
        if bias:
            shapes["bias"] = (self.out_channels,)
        self._parameters = _Parameters(name=type(self).__name__, dtype=dtype)
        for offset, (name, shape) in enumerate(shapes.items()):
            draw = RandomUniform(-bound, bound, None if seed is None else seed + offset)
            self._parameters.add_weight(name, shape, draw)
        self._parameters.build(())

    @property
    def weight(self) -> Array:
        """The weight, in PyTorch's layout; of the library of the last input."""
        return self.state_dict()["weight"]

    @property
    def bias(self) -> Array | None:
        """The bias, None without one; of the library of the last input."""
        return self.state_dict().get("bias")

    def state_dict(self) -> dict[str, Array]:
        """The parameters under PyTorch's names; the arrays themselves, not copies."""
        return dict(zip(("weight", "bias"), self._parameters.weights, strict=False))

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> IncompatibleKeys:
        """Replace the parameters by copies of arrays of any library.

        In place of the weight, its weight normalization may be given: ``weight_g`` and ``weight_v``, or
        ``parametrizations.weight.original0`` and ``original1``. Their weight is ``g * v / |v|``, the norm
        taken along the axes where g has length 1.

        Parameters
        ----------
        state_dict : mapping from str to array
            As `state_dict` returns it, here or in PyTorch.
        strict : bool, default True
            Refuse names that are missing or unknown, rather than pass over them.

        Returns
        -------
        IncompatibleKeys
            Lists ``missing_keys`` and ``unexpected_keys``.

        Raises
        ------
        ValueError, TypeError
            For such names, for another shape, for complex values of a real module. Then nothing is replaced.
        """
        if not isinstance(state_dict, Mapping):
            kind = type(state_dict).__name__
            raise TypeError(
                f"Expected state_dict to map names to arrays. Received state_dict of type {kind}."
            )
        own, state = self.state_dict(), _folded(state_dict)
        keys = IncompatibleKeys([n for n in own if n not in state], [n for n in state if n not in own])
        if strict and any(keys):
            raise ValueError(
                f"Expected state_dict to have the keys {list(own)}. Received one without {keys.missing_keys} "
                f"and with {keys.unexpected_keys}. Cut off the prefix of a whole model, or pass strict=False."
            )
        self._parameters.set_weights([state.get(name, value) for name, value in own.items()])
        return keys

    def run(self, input: Array, **settings: Any) -> Array:
        """Convolve; `settings` in our words complete those that the module has."""
        settings |= {"strides": self.stride, "padding": self.padding, "dilation_rate": self.dilation}
        with spoken(WORDS):
            return self._parameters(
                input, ndim=self.ndim, transposed=self.transposed, groups=self.groups, **settings
            )

    def __repr__(self) -> str:
        sizes = f"kernel_size={self.kernel_size}, stride={self.stride}"
        parts = [f"{self.in_channels}, {self.out_channels}, {sizes}"]
        zeros, ones = (0,) * self.ndim, (1,) * self.ndim
        usual = {"padding": zeros, "dilation": ones, "output_padding": zeros, "groups": 1}
        parts += [f"{name}={getattr(self, name)}" for name in usual if getattr(self, name) != usual[name]]
        if self.bias is None:
            parts.append("bias=False")
        return f"{type(self).__name__}({', '.join(parts)})"


def _folded(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """`state_dict` with the weight that its weight normalization stands for."""
    state = dict(state_dict)
    for g, v in _WEIGHT_NORMS:
        if g in state and v in state and "weight" not in state:
            array_namespace(**{g: state[g], v: state[v]})  # refuses what is no array
            state["weight"] = _normalised(g, v, _wide(state.pop(g)), _wide(state.pop(v)))
    return state


def _normalised(name: str, other: str, g: np.ndarray, v: np.ndarray) -> np.ndarray:
    """``g * v / |v|``. PyTorch's `dim` shows in the shape of g, () standing for None."""
    slices = [(*(1,) * axis, n, *(1,) * (v.ndim - axis - 1)) for axis, n in enumerate(v.shape)]
    if g.shape not in [(), *slices]:
        raise ValueError(
            f"Expected {name} to have the shape of {other}, {v.shape}, with 1 along all axes but one, or (). "
            f"Received {name} of shape {g.shape}."
        )
    axes = tuple(axis for axis in range(v.ndim) if g.ndim == 0 or g.shape[axis] == 1)
    return v * (g / np.linalg.vector_norm(v, axis=axes, keepdims=True))


def _wide(array: Array) -> np.ndarray:
    host = to_numpy(array)
    return host.astype(np.complex128 if host.dtype.kind == "c" else np.float64)
