"""Nodes of ONNX as layers: convolutions with their attributes, activations, dropout.

Source of the definition: the operators' pages at onnx.ai, with the defaults of each version.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from gpuconv import layers
from gpuconv.layers import Layer
from gpuconv.namespace import dtype_name
from gpuconv.weights.safetensors import to_kernel

__all__ = ["SUPPORTED", "Call", "layer_of"]


class Call(NamedTuple):
    """What a node is called with beside the one array that a layer is given."""

    attributes: Mapping[str, Any]
    """Those that are given, each of the type that the operator has."""
    constants: tuple[np.ndarray | None, ...]
    """Its inputs after the first; None for one that is left out."""
    version: int
    """Of ONNX's operators: it decides about defaults."""
    options: Mapping[str, Any]
    """What every layer is made with: its name and its dtype."""

    def constant(self, index: int) -> np.ndarray | None:
        """The input after the first that has this index; None if it is left out."""
        return self.constants[index] if index < len(self.constants) else None

    def scalar(self, index: int) -> float | None:
        """The one number that `constant` holds, or None."""
        found = self.constant(index)
        if found is None:
            return None
        if found.size != 1:
            raise ValueError(f"its input {index + 1} has the shape {found.shape}, and should be one number")
        return float(found.reshape(()))

    def number(self, name: str, default: float) -> float:
        """The attribute `name`, a finite number."""
        value = self.attributes.get(name, default)
        if not math.isfinite(value):
            raise ValueError(f"its {name} is {value}, not a finite number")
        return value

    def integers(self, name: str, default: list[int]) -> list[int]:
        """The attribute `name`, as many integers as `default` has."""
        value = self.attributes.get(name, default)
        if len(value) != len(default):
            raise ValueError(f"its {name} is {value!r:.80}, not {len(default)} integers")
        return value


# --- convolutions --------------------------------------------------------------------------------


def _convolution(ndim: int, transposed: bool, call: Call, weight: np.ndarray) -> Layer:
    bias = call.constant(1)
    size = list(weight.shape[2:])
    if call.integers("kernel_shape", size) != size:
        raise ValueError(f"its kernel_shape is not that of its weight, {weight.shape}")
    own = call.options["dtype"]
    if any(array is not None and dtype_name(array.dtype) != own for array in (weight, bias)):
        raise ValueError(f"its weight or its bias is not of its input's type, {own}")
    groups = int(call.number("group", 1))
    strides, dilations = (call.integers(name, [1] * ndim) for name in ("strides", "dilations"))
    extents = [(n - 1) * rate + 1 for n, rate in zip(size, dilations, strict=True)]
    gaps = transposed and any(step > extent for step, extent in zip(strides, extents, strict=True))
    padding = _padding(ndim, transposed, call)
    if gaps and isinstance(padding["padding"], str):
        # ONNX Runtime makes fewer samples here than the definition says.
        raise ValueError("its auto_pad is SAME, and a stride exceeds the kernel: export it with pads instead")
    kernel = np.ascontiguousarray(to_kernel(weight))
    kind = getattr(layers, f"Conv{ndim}D{'Transpose' if transposed else ''}")
    return kind(
        weight.shape[1] * groups if transposed else weight.shape[0],
        size,
        strides,
        **padding,
        dilation_rate=dilations,
        groups=groups,
        data_format="channels_first",
        use_bias=bias is not None,
        weights=[kernel] if bias is None else [kernel, bias],
        **call.options,
    )


def _padding(ndim: int, transposed: bool, call: Call) -> dict[str, Any]:
    """``padding`` and, of a transposed convolution, ``output_padding``."""
    if call.attributes.get("output_shape"):
        raise ValueError("its output_shape fixes the lengths: export it with pads and output_padding instead")
    automatic = call.attributes.get("auto_pad", "NOTSET")
    pads = call.integers("pads", [0] * 2 * ndim)
    if automatic != "NOTSET" and any(pads):
        raise ValueError(f"it has auto_pad={automatic!r:.80} and pads={pads}, of which one is supported")
    extra = call.integers("output_padding", [0] * ndim)
    if automatic in ("SAME_UPPER", "SAME_LOWER"):
        if any(extra):
            raise ValueError("it has auto_pad and output_padding: export it with pads instead")
        return {"padding": "same" if automatic == "SAME_UPPER" else "same_lower"}
    if automatic not in ("NOTSET", "VALID"):
        raise ValueError(f"its auto_pad is {automatic!r:.80}")
    padding = list(zip(pads[:ndim], pads[ndim:], strict=True))
    return {"padding": padding, "output_padding": extra} if transposed else {"padding": padding}


# --- activations ---------------------------------------------------------------------------------


def _named(name: str, **parameters: tuple[str, float]) -> Callable[[Call], Any]:
    """Our activation `name`; `parameters` are ours, each with ONNX's attribute and its default."""

    def identifier(call: Call) -> Any:
        config = {ours: call.number(*theirs) for ours, theirs in parameters.items()}
        return {"class_name": name, "config": config}

    return identifier


def _along_axis(name: str) -> Callable[[Call], Any]:
    def identifier(call: Call) -> Any:
        if call.version < 13:
            raise ValueError("before version 13 of the operators it flattens its input: convert the model")
        return {"class_name": name, "config": {"axis": int(call.number("axis", -1))}}

    return identifier


def _thresholded_relu(call: Call) -> Any:
    config = {"threshold": call.number("alpha", 1.0), "default_value": 0.0}
    return {"class_name": "threshold", "config": config}


def _gelu(call: Call) -> Any:
    approximate = call.attributes.get("approximate", "none")
    if approximate not in ("none", "tanh"):
        raise ValueError(f"its approximate is {approximate!r:.80}, neither 'none' nor 'tanh'")
    return {"class_name": "gelu", "config": {"approximate": approximate == "tanh"}}


def _selu(call: Call) -> Any:
    for name, wanted in {"alpha": 1.67326319217681884765625, "gamma": 1.05070102214813232421875}.items():
        if np.float32(call.number(name, wanted)) != np.float32(wanted):
            raise ValueError(f"its {name} is {call.attributes[name]:.9g}; {wanted:.9g} is supported")
    return "selu"


def _hard_sigmoid(call: Call) -> Any:
    slope, offset = call.number("alpha", 0.2), call.number("beta", 0.5)
    if np.float32(slope) != np.float32(1 / 6) or offset != 0.5:
        raise ValueError(f"its alpha is {slope:.6g} and its beta {offset:.6g}; 1/6 and 1/2 are supported")
    return "hard_sigmoid"


def _clip(call: Call) -> Any:
    if call.version < 11:
        low, high = call.attributes.get("min"), call.attributes.get("max")
    else:
        low, high = call.scalar(0), call.scalar(1)
    if (low, high) == (-1, 1):
        return "hard_tanh"
    if low == 0 and high is not None and 0 < high < math.inf:
        return {"class_name": "relu", "config": {"max_value": high}}
    raise ValueError(f"its bounds are {low} and {high}; 0 and a number above, or -1 and 1, are supported")


_ACTIVATIONS: dict[str, Callable[[Call], Any]] = {
    "Celu": _named("celu", alpha=("alpha", 1.0)),
    "Clip": _clip,
    "Elu": _named("elu", alpha=("alpha", 1.0)),
    "Exp": _named("exponential"),
    "Gelu": _gelu,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _named("hard_silu"),
    "Identity": _named("linear"),
    "LeakyRelu": _named("leaky_relu", negative_slope=("alpha", 0.01)),
    "LogSoftmax": _along_axis("log_softmax"),
    "Mish": _named("mish"),
    "Relu": _named("relu"),
    "Selu": _selu,
    "Sigmoid": _named("sigmoid"),
    "Softmax": _along_axis("softmax"),
    "Softplus": _named("softplus"),
    "Softsign": _named("softsign"),
    "Tanh": _named("tanh"),
    "ThresholdedRelu": _thresholded_relu,
}
#: What a node may be.
SUPPORTED = sorted((*_ACTIVATIONS, "Conv", "ConvTranspose", "Dropout"))


def layer_of(op: str, call: Call) -> Layer:
    """The layer that computes what a node of type `op`, one of `SUPPORTED`, does in inference.

    Raises
    ------
    ValueError, TypeError
        If an attribute or a constant has a value that no layer has.
    """
    if op == "Dropout":
        if call.scalar(1):
            raise ValueError("it drops in inference too (training_mode)")
        rate = call.scalar(0)
        return layers.Dropout(call.number("ratio", 0.5) if rate is None else rate, **call.options)
    if op in _ACTIVATIONS:
        return layers.Activation(_ACTIVATIONS[op](call), **call.options)
    weight = call.constant(0)
    if weight is None or not 3 <= weight.ndim <= 5:
        raise ValueError("its weight is not a constant of 3 to 5 axes")
    return _convolution(weight.ndim - 2, op == "ConvTranspose", call, weight)
