"""What the readers of files share: the one error, the package that one needs, JSON of bounded depth."""

from __future__ import annotations

import contextlib
import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["JSON_LIMIT", "LAYER_LIMIT", "RANK_LIMIT", "entry_of", "json_object", "needed", "reading"]

#: Bytes of a configuration or a header. Keras' configurations take about 1 KiB a layer.
JSON_LIMIT = 16 * 2**20
#: Layers of a model, those of the models inside it counted.
LAYER_LIMIT = 1000
#: Axes of an array; convolutions have 5 at most.
RANK_LIMIT = 32
_DEPTH_LIMIT = 64
_MESSAGE_LIMIT = 2000


@contextlib.contextmanager
def reading(what: str, path: Path, *errors: type[Exception]) -> Iterator[None]:
    """Make of a ValueError or a TypeError, and of the parser's own `errors`, the one that names the file."""
    caught: tuple[type[Exception], ...] = (ValueError, TypeError, *errors)
    try:
        yield
    except caught as error:
        # Which may quote the file, whose names may be long, steer a terminal, or be text that none can write.
        quoted = str(error)[:_MESSAGE_LIMIT].rstrip(".")
        problem = "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in quoted)
        raise ValueError(f"Expected {what}. Received {path}: {problem}.") from error


def needed(package: str) -> Any:
    """The module called `package`, imported where it is used.

    Raises
    ------
    ImportError
        If it is not installed, with the command that installs it.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(
            f"Expected the package {package}, which this file needs. Received: {error}. "
            'Install it with: pip install "gpuconv[weights]"'
        ) from error


def json_object(text: bytes | str, what: str) -> dict[str, Any]:
    """The JSON object that `text` holds; a ValueError if it holds none, or one nested too deeply."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its {what} is no JSON ({error})") from error
    if not isinstance(value, dict):
        raise ValueError(f"its {what} is no JSON object")
    level: list[Any] = [value]
    for _ in range(_DEPTH_LIMIT):
        inner = [entry for outer in level for entry in (outer.values() if isinstance(outer, dict) else outer)]
        level = [entry for entry in inner if isinstance(entry, dict | list)]
    if level:
        raise ValueError(f"its {what} is nested more than {_DEPTH_LIMIT} deep")
    return value


def entry_of(mapping: dict[str, Any], key: str, kind: type, what: str) -> Any:
    """``mapping[key]``, which must be of the type `kind`."""
    value = mapping.get(key)
    if not isinstance(value, kind):
        raise ValueError(f"{what} has {key}={value!r:.80}, not a {kind.__name__}")
    return value
