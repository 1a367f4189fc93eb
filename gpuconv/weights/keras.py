"""Keras' files: ``.keras`` and ``.h5`` with a model, ``.weights.h5`` with weights alone.

Source of the definition: ``keras.saving`` of Keras 3, and ``tf.keras.models.save_model`` of TensorFlow 2.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path

import numpy as np

from gpuconv.layers import Sequential
from gpuconv.weights import _keras_stores
from gpuconv.weights._files import JSON_LIMIT, json_object, reading
from gpuconv.weights._hdf5 import Item, Reader
from gpuconv.weights._keras_config import Node, build, node_of, read_model

__all__ = ["load_hdf5", "load_zip"]

_CONFIG, _WEIGHTS, _METADATA = "config.json", "model.weights.h5", "metadata.json"
#: Keras does not compress; what was compressed afterwards may be so many times larger than the file.
_EXPANSION_LIMIT = 100
# What zipfile raises for archives that are damaged, encrypted or compressed in some other way.
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, OverflowError)


def load_zip(path: Path, into: Sequential | None) -> Sequential:
    """The model of a ``.keras`` file, or `into` with its weights.

    Raises
    ------
    ValueError
        If it is damaged, or holds what is not supported.
    """
    with reading("a .keras file", path, *_ZIP_ERRORS), zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        for wanted in (_CONFIG, _WEIGHTS):
            if names.count(wanted) > 1:
                raise ValueError(f"it holds {names.count(wanted)} members called {wanted}")
            if wanted not in names:
                pickled = any(name.endswith(".pkl") for name in names)
                hint = ", but a pickle, which can run code: save with safetensors instead" if pickled else ""
                raise ValueError(f"it holds no {wanted}{hint}")
        stored = _member(archive, _WEIGHTS, _EXPANSION_LIMIT * path.stat().st_size)
        root = Reader(io.BytesIO(stored), len(stored)).root
        if into is not None:
            return _filled(into, _keras_stores.weights(node_of(into), root))
        config, metadata = (
            json_object(_member(archive, name, JSON_LIMIT), name) if name in names else {}
            for name in (_CONFIG, _METADATA)
        )
        node = read_model(config, str(metadata.get("keras_version")))
        return build(node, _keras_stores.weights(node, root))


def load_hdf5(path: Path, into: Sequential | None) -> Sequential:
    """The model of a legacy ``.h5`` file, or `into` with the weights of any Keras HDF5 file.

    Raises
    ------
    ValueError
        If it is damaged, or holds what is not supported, or holds weights alone and `into` is None.
    """
    with reading("a Keras .h5 file", path), path.open("rb") as file:
        root = Reader(file, path.stat().st_size).root
        if into is not None:
            return _filled(into, _any_weights(node_of(into), root))
        config = root.texts("model_config")
        if config is None:
            raise ValueError(
                "it holds weights alone, no layers. Make the model, build it, and pass it as into=model"
            )
        if len(config) != 1 or len(config[0]) > JSON_LIMIT:
            raise ValueError("its model_config is not one text of a size that a model has")
        version = (root.texts("keras_version") or [""])[0]
        node = read_model(json_object(config[0], "model_config"), version)
        return build(node, _any_weights(node, root))


def _any_weights(node: Node, root: Item) -> list[list[np.ndarray]]:
    if "model_weights" in root:
        return _keras_stores.legacy_weights(node, root["model_weights"])
    if _keras_stores.is_legacy(root):  # tf.keras 2's save_weights
        return _keras_stores.legacy_weights(node, root)
    return _keras_stores.weights(node, root)


def _filled(model: Sequential, arrays: list[list[np.ndarray]]) -> Sequential:
    """`model` with new weights: all of them, or none if a shape differs."""
    model.set_weights([array for leaf in arrays for array in leaf])
    return model


def _member(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """Contents of a member of the archive, which may say that it has at most `limit` bytes."""
    info = archive.getinfo(name)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"its {name} is compressed in a way that Keras does not use")
    if info.file_size > limit:
        raise ValueError(f"its {name} would take {info.file_size} bytes, and at most {limit} are read")
    with archive.open(info) as file:
        data = file.read(info.file_size)
    if len(data) != info.file_size:
        raise ValueError(f"its {name} breaks off")
    return data
