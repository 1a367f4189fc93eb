"""Where Keras keeps the weights of each layer in an HDF5 file: the form of Keras 3, and the legacy one."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterator
from typing import TypeAlias

import numpy as np

from gpuconv.layers._arguments import snake_case
from gpuconv.weights._hdf5 import Item
from gpuconv.weights._keras_config import Node, leaves

__all__ = ["is_legacy", "legacy_weights", "weights"]

# Keras 3's name for the layers of a model, and that of TensorFlow 2.13.
_CONTAINERS = ("layers", "_layer_checkpoint_dependencies")


def weights(node: Node, group: Item) -> list[list[np.ndarray]]:
    """The weights of each leaf of the model `node`, from the form of ``model.weights.h5``.

    Layers are found by their class and number, as Keras finds them: their names vary from run to run.

    Raises
    ------
    ValueError
        If a layer has none there, or another number, or if there are some that no layer has.
    """
    kept = next((group[name] for name in _CONTAINERS if name in group), None)
    names = {} if kept is None else kept.children
    counts: collections.Counter[str] = collections.Counter()
    found: list[list[np.ndarray]] = []
    used = set()
    for child in node.children or ():
        kind = snake_case(child.class_name)
        if child.children is not None and kind not in names and "functional" in names:
            kind = "functional"  # of which ours are Sequential, too
        number, counts[kind] = counts[kind], counts[kind] + 1
        name = f"{kind}_{number}" if number else kind
        used.add(name)
        if not any(leaf.arrays for leaf in leaves(child)):
            found += [[] for _ in leaves(child)]
        elif kept is None or name not in names:
            raise ValueError(f"it has no weights for layer {child.name!r} (as {name!r})")
        elif child.children is not None:
            found += weights(child, kept[name])
        else:
            found.append(_variables(child, kept[name]))
    for name in names.keys() - used:
        if kept is not None and _count(kept[name]):
            raise ValueError(f"it has weights for {name!r}, a layer that the model does not have")
    return found


def _count(group: Item) -> int:
    return len(group["vars"].children) if "vars" in group else 0


def _variables(leaf: Node, group: Item) -> list[np.ndarray]:
    names = group["vars"].children if "vars" in group else {}
    wanted = [str(number) for number in range(leaf.arrays)]
    if sorted(names) != sorted(wanted):
        raise ValueError(f"it has {len(names)} weights for layer {leaf.name!r}, which has {leaf.arrays}")
    return [group[f"vars/{name}"].array() for name in wanted]


#: One weight of one leaf: the leaf's number, and the weight's among the leaf's own. Those of a low-rank
#: adaptation are counted after these.
_Slot: TypeAlias = tuple[int, int]


def is_legacy(group: Item) -> bool:
    """Whether `group` is what `legacy_weights` reads."""
    return bool(_names(group, "layer_names"))


def legacy_weights(node: Node, group: Item) -> list[list[np.ndarray]]:
    """The weights of each leaf of the model `node`, from the group ``model_weights``, by their order.

    Raises
    ------
    ValueError
        If the number of layers with weights, or of the weights of one, is another.
    """
    version = group.texts("keras_version") or ["1"]
    if version[0].startswith("1") or group.texts("backend") == ["theano"]:
        raise ValueError("it was written by Keras 1 or on Theano, whose kernels have another layout")
    names = [name for name in _names(group, "layer_names") if _names(group[name], "weight_names")]
    children = [child for child in node.children or () if any(leaf.arrays for leaf in leaves(child))]
    if len(names) != len(children):
        raise ValueError(
            f"it has weights for {len(names)} layers ({', '.join(map(repr, names))}), and the model has "
            f"{len(children)} with weights ({', '.join(repr(child.name) for child in children)})"
        )
    stored = iter(names)
    found: list[list[np.ndarray]] = []
    for child in node.children or ():
        members = list(leaves(child))
        if any(leaf.arrays for leaf in members):
            found += _of_layer(child, members, group[next(stored)])
        else:
            found += [[] for _ in members]
    return found


def _of_layer(child: Node, members: list[Node], group: Item) -> list[list[np.ndarray]]:
    """The weights of one layer of the top, which may be a model itself."""
    trained, frozen = _slots(child, itertools.count(), frozen=False)
    slots, paths = [*trained, *frozen], _names(group, "weight_names")
    if len(paths) != len(slots):
        raise ValueError(f"it has {len(paths)} weights for layer {child.name!r}, which has {len(slots)}")
    stored = {slot: group[path].array() for slot, path in zip(slots, paths, strict=True)}
    found = []
    for index, leaf in enumerate(members):
        arrays = [stored[index, place] for place in range(leaf.arrays)]
        if leaf.lora_scale is not None:
            first, second = (stored[index, leaf.arrays + place] for place in (0, 1))
            arrays[0] = _adapted(leaf.name, arrays[0], leaf.lora_scale, first, second)
        found.append(arrays)
    return found


def _slots(node: Node, numbers: Iterator[int], frozen: bool) -> tuple[list[_Slot], list[_Slot]]:
    """The order in which Keras wrote the weights: those that training changes first."""
    frozen = frozen or not node.trainable
    if node.children is not None:
        pairs = [_slots(child, numbers, frozen) for child in node.children]
        return [slot for pair in pairs for slot in pair[0]], [slot for pair in pairs for slot in pair[1]]
    index = next(numbers)
    own = [(index, place) for place in range(node.arrays)]
    extra = [(index, node.arrays + place) for place in (0, 1)] if node.lora_scale is not None else []
    if frozen:
        return [], own + extra
    # An adaptation is trained in place of the kernel.
    return ([*own[1:], *extra], own[:1]) if extra else (own, [])


def _adapted(
    name: str, kernel: np.ndarray, scale: float, first: np.ndarray, second: np.ndarray
) -> np.ndarray:
    """The kernel with its low-rank adaptation, ``kernel + scale * first @ second``."""
    fits = 0 < first.ndim == kernel.ndim and second.ndim == 2 and first.shape[-1] == second.shape[0]
    # Small factors may make a large product.
    if not fits or (*first.shape[:-1], second.shape[1]) != kernel.shape:
        raise ValueError(
            f"layer {name!r} has a kernel of shape {kernel.shape} and an adaptation of {first.shape} and "
            f"{second.shape}"
        )
    return (kernel + scale * (first.astype(np.float64) @ second)).astype(kernel.dtype)


def _names(group: Item, attribute: str) -> list[str]:
    """A list of names; one that is too long for HDF5 is kept as attribute0, attribute1, ..."""
    whole = group.texts(attribute)
    if whole is not None:
        return whole
    numbers = itertools.count()
    parts = iter(lambda: group.texts(f"{attribute}{next(numbers)}"), None)
    return [name for part in parts for name in part]
