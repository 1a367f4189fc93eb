"""The configuration of a Keras model as a tree of layers, and the `Sequential` that the tree describes.

Source of the definition: what ``keras.saving`` of Keras 3 and of tf.keras 2 writes. Nothing is looked up
by a name that the file gives: its classes are those listed here, so it cannot run code.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpuconv import layers
from gpuconv.layers import Layer, Sequential
from gpuconv.weights._files import LAYER_LIMIT, entry_of

__all__ = ["Node", "build", "leaves", "node_of", "read_model"]

_CONVOLUTIONS = ("Conv1D", "Conv1DTranspose", "Conv2D", "Conv2DTranspose", "Conv3D", "Conv3DTranspose")
#: Layers that are an activation with parameters; tf.keras 2 has another name for one of these.
_ACTIVATIONS = {
    "ELU": {"alpha": "alpha"},
    "LeakyReLU": {"alpha": "negative_slope", "negative_slope": "negative_slope"},
    "ReLU": {"max_value": "max_value", "negative_slope": "negative_slope", "threshold": "threshold"},
    "Softmax": {"axis": "axis"},
}
_GRAPHS = ("Functional", "Model")  # the second is what tf.keras called it at first
_SUPPORTED = sorted(
    (*_CONVOLUTIONS, *_ACTIVATIONS, "Activation", "Dropout", "Functional", "InputLayer", "Sequential")
)
#: How a first weight was drawn does not matter once it is read.
_NOT_READ = ("kernel_initializer", "bias_initializer", "lora_rank", "lora_alpha")
_CONFIG_LIMIT = 100_000  # characters, where a layer has about 1,000
_POLICIES = ("float32", "float16", "bfloat16", "float64")


@dataclass(frozen=True)
class Node:
    """A layer, or a model of layers, as a file names it."""

    class_name: str
    name: str
    trainable: bool = True
    arrays: int = 0
    """How many weights it has."""
    children: tuple[Node, ...] | None = None
    """The layers of a model; None for a layer."""
    config: dict[str, Any] = field(default_factory=dict)
    """Arguments of our layer."""
    lora_scale: float | None = None
    """What its low-rank adaptation is multiplied with; None without one."""
    input_shape: Any = None
    """What a model was built for, where no layer says it."""


def leaves(node: Node) -> Iterator[Node]:
    """The layers of the tree, first to last."""
    if node.children is None:
        yield node
    else:
        for child in node.children:
            yield from leaves(child)


def node_of(layer: Layer) -> Node:
    """The tree of one of our own, built, layers."""
    children = None
    if isinstance(layer, Sequential):
        children = tuple(map(node_of, layer.layers))
    name = "InputLayer" if isinstance(layer, layers.Input) else type(layer).__name__
    return Node(name, layer.name, layer.trainable, len(layer.weights), children)


# --- from a configuration to a tree --------------------------------------------------------------


def read_model(entry: dict[str, Any], version: str) -> Node:
    """The tree of the model whose configuration is `entry`, written by Keras of this version.

    Raises
    ------
    ValueError, TypeError
        If a layer is not supported, naming it, or the layers are no chain, or an entry is of another type.
    """
    node = _node(entry)
    if node.children is None:
        raise ValueError(f"it holds a {node.class_name}, not a model")
    found = list(leaves(node))
    _check_count(len(found))
    for leaf in found:
        if version.startswith("2") and "hard_sigmoid" in str(leaf.config.get("activation")):
            problem = f"hard_sigmoid had another slope in Keras {version:.80}, and is not supported"
            raise ValueError(_named(leaf.name, leaf.class_name, problem))
    return node


def _check_count(count: int) -> None:
    if count > LAYER_LIMIT:
        raise ValueError(f"it has {count} layers; {LAYER_LIMIT} are read at most")


def _node(entry: Any) -> Node:
    if not isinstance(entry, dict):
        raise ValueError(f"a layer is {entry!r:.80}, not an object")
    class_name = entry_of(entry, "class_name", str, "a layer")
    config = entry_of(entry, "config", dict, f"a layer of the class {class_name!r}")
    name = entry_of(config, "name", str, f"a layer of the class {class_name!r}")
    foreign = _is_foreign(entry)
    if foreign or class_name not in (*_SUPPORTED, *_GRAPHS):
        whose = f" of {entry.get('module')!r:.80}" if foreign else ""
        raise ValueError(
            f"layer {name!r} is of the class {class_name!r}{whose}, which is not supported. "
            f"Supported are {', '.join(_SUPPORTED)}"
        )
    for key in ("trainable", "use_bias"):
        if not isinstance(config.get(key, True), bool):
            problem = f"it has {key}={config[key]!r:.80}, not True or False"
            raise ValueError(_named(name, class_name, problem))
    is_model = class_name == "Sequential" or class_name in _GRAPHS
    try:
        own = (_of_model if is_model else _of_layer)(entry, config)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(_named(name, class_name, error)) from error
    if is_model:
        own["children"] = tuple(map(_node, own["children"]))
    return Node(class_name, name, config.get("trainable", True), **own)


def _is_foreign(entry: dict[str, Any]) -> bool:
    """Whether the class of `entry` is from elsewhere, whatever its name."""
    module = str(entry.get("module") or "keras").partition(".")[0]
    return module not in ("keras", "tf_keras", "tensorflow") or ">" in str(entry.get("registered_name"))


def _named(name: str, class_name: str, error: object) -> str:
    return f"layer {name!r} ({class_name}): {error}"


def _of_model(entry: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """What the node of a model has: its layers, as the file has them, and the shape that it was built for."""
    entries = entry_of(config, "layers", list, "it")
    _check_count(len(entries))
    _policy(config.get("dtype"))
    if entry["class_name"] in _GRAPHS:
        entries = _chain(config, entries)
    built = entry.get("build_config")
    shape = config.get("build_input_shape") or (built.get("input_shape") if isinstance(built, dict) else None)
    return {"children": entries, "input_shape": shape}


def _of_layer(entry: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """What the node of a layer has: the number of its weights, and the arguments of ours."""
    if len(str(config)) > _CONFIG_LIMIT:
        raise ValueError(f"it has a configuration of more than {_CONFIG_LIMIT} characters")
    class_name = entry["class_name"]
    found = {key: value for key, value in config.items() if key not in _NOT_READ}
    found["dtype"] = _policy(config.get("dtype"))
    if class_name in _ACTIVATIONS:
        found["activation"] = _identifier(class_name, found)
        found = {key: value for key, value in found.items() if key not in _ACTIVATIONS[class_name]}
    if class_name == "Dropout" and not isinstance(found.get("seed"), int):
        found["seed"] = None  # a generator of Keras' own, whose draws are not ours in any case
    if not isinstance(found.get("padding", ""), str):  # ours take numbers, too, of any size
        raise ValueError(f"it has padding={found['padding']!r:.80}, not a text")
    activation = found.get("activation")
    if isinstance(activation, dict) and isinstance(activation.get("config"), dict):
        inner, settings = activation.get("class_name"), activation["config"]
        if inner in tuple(_ACTIVATIONS) and "name" in settings:  # a layer in the place of a function
            if _is_foreign(activation):
                raise ValueError(f"its activation is a {inner} of {activation.get('module')!r:.80}")
            if _policy(settings.get("dtype")) != found["dtype"]:
                raise ValueError(f"its activation, a {inner}, has another dtype than its own")
            found["activation"] = _identifier(inner, settings)
        for key, value in found["activation"]["config"].items():
            _check_parameter(key, value)
    arrays = 1 + config.get("use_bias", True) if class_name in _CONVOLUTIONS else 0
    return {"arrays": arrays, "config": found, "lora_scale": _lora_scale(config)}


def _identifier(class_name: str, config: dict[str, Any]) -> dict[str, Any]:
    """The activation that a layer of `_ACTIVATIONS` with this configuration computes."""
    names = _ACTIVATIONS[class_name]
    parameters = {names[key]: value for key, value in config.items() if key in names}
    return {"class_name": class_name, "config": parameters}


def _check_parameter(key: str, value: Any) -> None:
    """Refuse a parameter of an activation that a call would stumble over."""
    if key == "axis" and type(value) is not int:
        raise ValueError(f"Expected axis to be an integer. Received axis={value!r:.80}.")
    if not isinstance(value, bool) and not (key == "max_value" and value is None):
        _number(key, value)


def _number(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"Expected {key} to be a number. Received {key}={value!r:.80}.")
    return float(value)


def _policy(policy: Any) -> str:
    """The one type of a dtype policy, which may be left out."""
    found = "float32" if policy is None else policy
    if isinstance(policy, dict):
        settings = policy.get("config")
        found = settings.get("name") if isinstance(settings, dict) else None
    if isinstance(found, str) and found.startswith("mixed_"):
        raise ValueError(
            f"it has the policy {found!r}, which computes in another type than its weights have. Set its "
            "dtype to 'float32' in Keras, and save it again"
        )
    if not isinstance(found, str) or found not in _POLICIES:
        raise ValueError(f"it has the dtype {policy!r:.200}, not one of {', '.join(_POLICIES)}")
    return found


def _lora_scale(config: dict[str, Any]) -> float | None:
    rank = config.get("lora_rank")
    if not rank:
        return None
    if _number("lora_rank", rank) <= 0:
        raise ValueError(f"it has lora_rank={rank!r}, which should be above 0")
    return _number("lora_alpha", config.get("lora_alpha") or rank) / rank


# --- the graph of a functional model, which must be a chain --------------------------------------


def _chain(config: dict[str, Any], entries: list[Any]) -> list[dict[str, Any]]:
    """The layers of a functional model, from its input to its output."""
    after: dict[str | None, dict[str, Any]] = {}
    for entry in entries:
        if not isinstance(entry, dict):
            raise ValueError(f"a layer is {entry!r:.80}, not an object")
        source = _source(entry)
        if source in after:
            raise ValueError(_no_chain(f"{source!r} feeds two layers" if source else "it has two inputs"))
        after[source] = entry
    ordered: list[dict[str, Any]] = []
    name = None
    while name in after and len(ordered) < len(entries):
        ordered.append(after[name])
        name = _name(after[name])
    ends = [_name(entry) for entry in (ordered[:1] + ordered[-1:])]
    if len(ordered) != len(entries) or ends != [
        _end(config.get(f"{end}_layers")) for end in ("input", "output")
    ]:
        raise ValueError(_no_chain("its layers are not connected one after another"))
    return ordered


def _name(entry: dict[str, Any]) -> str:
    return str(entry_of(entry, "name", str, "a layer"))


def _source(entry: dict[str, Any]) -> str | None:
    """Name of the layer whose output `entry` is given; None for the input."""
    name = _name(entry)
    calls = entry_of(entry, "inbound_nodes", list, f"layer {name!r}")
    if not calls:
        return None
    if len(calls) > 1:
        raise ValueError(_no_chain(f"{name!r} is called {len(calls)} times"))
    call = calls[0]
    if isinstance(call, dict):  # Keras 3
        inputs, options = call.get("args"), call.get("kwargs")
        tensor = inputs[0] if isinstance(inputs, list) and len(inputs) == 1 else None
        settings = tensor.get("config") if isinstance(tensor, dict) else None
        history = settings.get("keras_history") if isinstance(settings, dict) else None
    else:  # tf.keras 2: [[name, call, output, options]]
        history = call[0] if isinstance(call, list) and len(call) == 1 else None
        options = history[3] if isinstance(history, list) and len(history) > 3 else None
    if isinstance(options, dict) and any(value not in (None, False) for value in options.values()):
        raise ValueError(_no_chain(f"{name!r} is called with {options!r:.80}"))
    if not isinstance(history, list) or not history or not isinstance(history[0], str):
        raise ValueError(_no_chain(f"{name!r} does not have one input"))
    if history[1:3] != [0, 0]:
        raise ValueError(_no_chain(f"{name!r} is not given the first output of {history[0]!r}"))
    return history[0]


def _end(value: Any) -> str:
    """The name in ``["name", 0, 0]`` or in ``[["name", 0, 0]]``."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, list) or len(value) != 3 or not isinstance(value[0], str):
        raise ValueError(_no_chain("it does not have one input and one output"))
    return value[0]


def _no_chain(why: str) -> str:
    return f"it is no plain chain of layers, and only such models are supported: {why}"


# --- from a tree to layers -----------------------------------------------------------------------


def build(node: Node, arrays: Sequence[list[np.ndarray]]) -> Sequential:
    """The model that `node` describes, with the weights that each of its `leaves` has in `arrays`.

    Raises
    ------
    ValueError
        If a layer cannot be made, or its weights have other shapes, naming it.
    """
    model = _model(node, iter(arrays))
    if not model.built:
        if node.input_shape is None:
            raise ValueError(f"model {node.name!r} was saved before it was built, so it has no weights")
        model.build(node.input_shape)
    return model


def _model(node: Node, arrays: Iterator[list[np.ndarray]]) -> Sequential:
    model = Sequential(name=node.name)
    for child in node.children or ():
        try:
            model.add(_layer(child, arrays))
        except (ValueError, TypeError, OverflowError, NotImplementedError) as error:
            raise ValueError(_named(child.name, child.class_name, error)) from error
    if not node.trainable:
        model.trainable = False
    return model


def _layer(node: Node, arrays: Iterator[list[np.ndarray]]) -> Layer:
    if node.children is not None:
        return _model(node, arrays)
    given = next(arrays)
    if node.class_name == "InputLayer":
        return layers.Input.from_config(node.config)
    if node.class_name in _ACTIVATIONS:
        return layers.Activation(**node.config)
    if node.arrays:
        return getattr(layers, node.class_name)(**node.config, weights=given)
    return getattr(layers, node.class_name)(**node.config)
