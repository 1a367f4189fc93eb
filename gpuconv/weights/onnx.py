"""ONNX files whose graph is a chain of convolutions and activations, as a `Sequential`.

Source of the definition: ``onnx.proto`` of the ONNX project.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np

from gpuconv import layers
from gpuconv.layers import Layer, Sequential
from gpuconv.namespace import HALF_DTYPES, dtype_named
from gpuconv.weights._files import LAYER_LIMIT, RANK_LIMIT, needed, reading
from gpuconv.weights._onnx_nodes import SUPPORTED, Call, layer_of

__all__ = ["load_onnx"]

#: Bytes of a file that protobuf reads.
_SIZE_LIMIT = 2**31 - 1
#: Types of elements by their number: those that a layer computes in, and those of flags and bounds.
_FLOATS = {1: "float32", 10: "float16", 11: "float64", 16: "bfloat16"}
_DTYPES = {**_FLOATS, 6: "int32", 7: "int64", 9: "bool"}
#: Where a tensor keeps elements that it does not keep as bytes. Half types are integers there, of their bits.
_FIELDS = {"float32": "float_data", "float64": "double_data", "int64": "int64_data"}
#: Where an attribute keeps a value of each type that a supported node has.
_VALUES = {1: "f", 2: "i", 3: "s", 6: "floats", 7: "ints"}
_DOMAINS = ("", "ai.onnx")
_EXTERNAL = 1


def load_onnx(path: Path, into: Sequential | None) -> Sequential:
    """The model of an ``.onnx`` file, in the layout channels_first, or `into` with its weights.

    Raises
    ------
    ValueError
        If the file is damaged or larger than 2 GiB, keeps weights in other files, or its graph is no chain
        of nodes that are supported.
    ImportError
        If onnx, or ml_dtypes for bfloat16, is not installed.
    """
    onnx, protobuf = needed("onnx"), needed("google.protobuf.message")
    with reading("an .onnx file", path, protobuf.DecodeError):
        if path.stat().st_size > _SIZE_LIMIT:
            raise ValueError(f"it is larger than the {_SIZE_LIMIT} bytes that protobuf reads")
        model = _model(onnx.load_model_from_string(path.read_bytes()))
        if into is None:
            return model
        into.set_weights(model.weights)
        return into


def _model(proto: Any) -> Sequential:
    graph = proto.graph
    versions = [entry.version for entry in proto.opset_import if entry.domain in _DOMAINS]
    if len(versions) != 1:
        raise ValueError("it does not say which version of ONNX's operators it uses")
    if any(function.domain in _DOMAINS for function in proto.functions):
        raise ValueError("it has functions in the place of ONNX's operators")
    if len(graph.node) > LAYER_LIMIT:
        raise ValueError(f"it has {len(graph.node)} nodes; {LAYER_LIMIT} are read at most")
    constants = _constants(graph)
    _check_names(graph, constants)
    # Before version 4 of the format the weights were listed as inputs, too.
    inputs = [entry for entry in graph.input if entry.name not in constants]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise ValueError(f"it has {len(inputs)} inputs and {len(graph.output)} outputs, not one each")
    dtype, shape = _described(inputs[0])
    model = Sequential(name=_name(graph.name, "model", set()))
    model.add(layers.Input(batch_shape=shape, dtype=dtype, name=_name(inputs[0].name, "input", set())))
    current = inputs[0].name
    for node in graph.node:
        if _is_constant(node):
            continue
        try:
            taken = {layer.name for layer in model.layers}
            options = {"name": _name(node.name, node.op_type.lower(), taken), "dtype": dtype}
            model.add(_layer(node, current, constants, versions[0], options))
        except (ValueError, TypeError, OverflowError, NotImplementedError) as error:
            raise ValueError(f"node {node.name!r:.80} ({node.op_type:.80}): {error}") from error
        current = node.output[0]
    if current != graph.output[0].name:
        raise ValueError(f"its output {graph.output[0].name!r:.80} is not what its last node makes")
    return model


def _is_constant(node: Any) -> bool:
    return node.op_type == "Constant" and node.domain in _DOMAINS


def _constants(graph: Any) -> dict[str, Any]:
    """The tensors that the file holds, by name."""
    pairs = [(tensor.name, tensor) for tensor in graph.initializer]
    for node in filter(_is_constant, graph.node):
        values = [attribute.t for attribute in node.attribute if attribute.name == "value"]
        if len(values) != 1 or len(node.output) != 1:
            raise ValueError(f"node {node.name!r:.80} (Constant) does not hold a tensor")
        pairs.append((node.output[0], values[0]))
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("it gives two constants one name")
    return found


def _check_names(graph: Any, constants: dict[str, Any]) -> None:
    """Refuse a graph that gives two values one name: which of them a node is given would be a guess."""
    taken = {*constants, *(entry.name for entry in graph.input)}
    for node in itertools.filterfalse(_is_constant, graph.node):
        for name in filter(None, node.output):
            if name in taken:
                raise ValueError(f"it gives the name {name!r:.80} twice")
            taken.add(name)


def _described(entry: Any) -> tuple[str, tuple[int | None, ...]]:
    """Type and shape of the graph's input."""
    described = entry.type.tensor_type
    dtype = _FLOATS.get(described.elem_type)
    if dtype is None:
        raise ValueError(f"its input is not of {', '.join(_FLOATS.values())}")
    if dtype == "bfloat16":
        needed("ml_dtypes")
    if not described.HasField("shape"):
        raise ValueError("it does not say the shape of its input: export it with at least the channels")
    sizes = described.shape.dim
    return dtype, tuple(size.dim_value if size.HasField("dim_value") else None for size in sizes)


def _name(name: str, default: str, taken: set[str]) -> str:
    """`name` as that of a layer: without slashes, and not one of those `taken`."""
    first = name.strip("/").replace("/", ".") or default or "node"
    numbered = (f"{first}_{number}" for number in itertools.count(1))
    return next(name for name in itertools.chain([first], numbered) if name not in taken)


def _layer(
    node: Any, current: str, constants: dict[str, Any], version: int, options: dict[str, Any]
) -> Layer:
    """The layer of a node that is given what the one before it made, and constants."""
    if node.domain not in _DOMAINS or node.op_type not in SUPPORTED:
        raise ValueError(f"it is not supported. Supported are {', '.join(SUPPORTED)}")
    others = list(node.input[1:])
    unknown = [name for name in others if name and name not in constants]
    alone = node.output and node.input and node.input[0] == current
    schema = _schema(node.op_type, version)
    if not alone or unknown or len(node.input) > schema.max_input:
        raise ValueError(
            f"it is given {list(node.input)!r:.200}; {current!r:.80} and constants of the file, each used "
            "once, are supported"
        )
    arrays = tuple(_array(constants[name]) if name else None for name in others)
    for name, array in zip(others, arrays, strict=True):
        if array is not None and array.size > 1:
            # Layers have weights of their own: a small file could ask for many copies.
            constants.pop(name, None)
    attributes = {attribute.name: _value(attribute, schema) for attribute in node.attribute}
    return layer_of(node.op_type, Call(attributes, arrays, version, options))


def _schema(op: str, version: int) -> Any:
    """What ONNX says of the operator `op` as it was in `version`."""
    defs = needed("onnx").defs
    try:
        return defs.get_schema(op, version)
    except (defs.SchemaError, TypeError) as error:  # the second for a version of more than 32 bits
        raise ValueError(f"version {version} of ONNX's operators has no {op}") from error


def _value(attribute: Any, schema: Any) -> Any:
    known = schema.attributes.get(attribute.name)
    if known is None or known.type.value != attribute.type or attribute.type not in _VALUES:
        raise ValueError(f"its {attribute.name!r:.80} is no attribute of the operator, or of another type")
    value = getattr(attribute, _VALUES[attribute.type])
    if isinstance(value, bytes):
        return value.decode()
    return value if isinstance(value, int | float) else list(value)


def _array(tensor: Any) -> np.ndarray:
    """The numbers of a tensor, whose shape is held against what is there."""
    name = _DTYPES.get(tensor.data_type)
    if tensor.data_location == _EXTERNAL or tensor.external_data:
        raise ValueError(f"its {tensor.name!r:.80} is in another file: save the model as one file")
    if name is None:
        raise ValueError(f"its {tensor.name!r:.80} is not of {', '.join(_DTYPES.values())}")
    if name == "bfloat16":
        needed("ml_dtypes")
    dtype = np.dtype(dtype_named(np, name))
    raw = tensor.HasField("raw_data")
    stored = tensor.raw_data if raw else getattr(tensor, _FIELDS.get(name, "int32_data"))
    shape = list(tensor.dims)
    possible = len(shape) <= RANK_LIMIT and min(shape, default=0) >= 0
    if not possible or len(stored) != math.prod(shape) * (dtype.itemsize if raw else 1):
        unit = "bytes" if raw else "numbers"
        raise ValueError(f"its {tensor.name!r:.80} has {len(stored)} {unit} for the shape {shape!r:.200}")
    if raw:
        return np.frombuffer(stored, dtype).reshape(shape)
    values = np.array(stored)
    half = name in HALF_DTYPES
    return (values.astype(np.uint16).view(dtype) if half else values.astype(dtype)).reshape(shape)
