"""Models and weights from the files of other systems: Keras, PyTorch (safetensors), ONNX.

`load` knows a file by its contents (ONNX, which has no mark, by its name). The files may come from
anywhere: nothing in them is run, no pickle is ever read, and every size is held against the file before
anything of that size is made. The limits:

- configurations and headers take 16 MiB and are nested 64 deep; models have 1,000 layers;
- a compressed ``.keras`` file may expand a hundredfold; HDF5's structure takes 64 MiB beside the arrays;
- ONNX files take 2 GiB.

No package is needed but onnx for ONNX files, and ml_dtypes for bfloat16.
"""

from __future__ import annotations

import os
from pathlib import Path

from gpuconv.layers import Sequential
from gpuconv.weights import keras, onnx, safetensors
from gpuconv.weights._hdf5 import SIGNATURE

__all__ = ["load", "safetensors"]

_FORMATS = ".keras, .h5, .safetensors, .onnx"


def load(path: str | os.PathLike[str], *, into: Sequential | None = None) -> Sequential:
    """The model that a file holds, or `into` with the weights that it holds.

    =================  ==============================================================================
    ``.keras``         Keras 3's models (and tf.keras 2's in this form)
    ``.h5``            the legacy form of Keras 3 and tf.keras 2
    ``.weights.h5``    weights alone: `into` is needed
    ``.safetensors``   weights alone, of PyTorch: `into` is needed; or `gpuconv.weights.safetensors.read`
    ``.onnx``          a graph; it becomes a model with ``data_format="channels_first"``
    =================  ==============================================================================

    The model must be a chain of layers that `gpuconv.layers` has: convolutions, transposed or not,
    activations (those that are layers in Keras too: ReLU, LeakyReLU, ELU, Softmax), Dropout, and models of
    these. Initializers are not read, and low-rank adaptations are added to their kernels.

    There is one function for both uses, as a file of weights differs from a file of a model in what it
    lacks, not in what is wanted of it, and `into` may be given with a file of a model, too.

    Parameters
    ----------
    path : path
        Of the file. Nothing in it is run.
    into : Sequential, optional
        A built model. Its weights become those of the file: of Keras files by the order of the layers of
        each class, as in Keras (the legacy form has those of frozen layers last in an inner model: freeze the
        same ones); of .safetensors files by name where the names agree, else by order; of ONNX
        files by order. All shapes are checked before the first is set.

    Returns
    -------
    Sequential
        A new one, or `into`.

    Raises
    ------
    ValueError
        If the file is damaged, contradicts itself or a limit of this module, or holds what is not supported,
        naming it; or if it does not fit `into`, which is left as it was.
    TypeError
        If `into` is no Sequential.
    ImportError
        If a package is missing that the file needs, onnx or ml_dtypes: ``pip install "gpuconv[weights]"``.
    OSError
        If there is no such file, or it may not be read.

    Examples
    --------
    >>> import json, pathlib, tempfile
    >>> import gpuconv
    >>> from gpuconv.layers import Conv1DTranspose, Input, Sequential
    >>> header = json.dumps({"up.weight": {"dtype": "F32", "shape": [2, 1, 3], "data_offsets": [0, 24]}})
    >>> path = pathlib.Path(tempfile.mkdtemp(), "up.safetensors")
    >>> _ = path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + bytes(24))
    >>> model = Sequential([Input((None, 2)), Conv1DTranspose(1, 3, 2, use_bias=False, name="up")])
    >>> gpuconv.load(path, into=model).get_weights()[0].ravel()
    array([0., 0., 0., 0., 0., 0.], dtype=float32)
    """
    path = Path(path)
    if into is not None and not isinstance(into, Sequential):
        raise TypeError(f"Expected into to be a Sequential. Received {into=}.")
    if into is not None and not into.built:
        raise ValueError(f"Expected into to be built: start it with an Input. Received {into=}.")
    kind = _kind(path)
    if kind == "keras":
        return keras.load_zip(path, into)
    if kind == "h5":
        return keras.load_hdf5(path, into)
    if kind == "onnx":
        return onnx.load_onnx(path, into)
    if into is None:
        raise ValueError(
            f"Expected a file with a model. Received {path}: a .safetensors file has weights alone. Make the "
            "model, build it, and pass it as into=model, or call gpuconv.weights.safetensors.read"
        )
    return safetensors._load_into(path, into)


def _kind(path: Path) -> str:
    """The format of the file: what its first bytes say; where they say nothing, what its name does."""
    if path.exists() and not path.is_file():
        raise ValueError(f"Expected a file. Received {path}, which is a directory or a device.")
    with path.open("rb") as file:
        start = file.read(16)
    for signature, kind in ((b"PK\x03\x04", "keras"), (SIGNATURE, "h5")):
        if start.startswith(signature):
            return kind
    suffix = path.suffix.lower().removeprefix(".")
    if start[8:9] == b"{" and suffix != "onnx":  # after the header's length
        return "safetensors"
    if suffix in ("keras", "h5", "safetensors", "onnx"):
        return suffix
    if suffix == "hdf5":
        return "h5"
    pickled = start[:1] == b"\x80" or suffix in ("pt", "pth", "pkl")
    raise ValueError(
        f"Expected a file of one of the kinds {_FORMATS}. Received {path}"
        + (", a pickle, which can run code: save with safetensors instead." if pickled else ".")
    )
