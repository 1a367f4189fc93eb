"""Settings that outlive a call. There is one: which axis holds the channels.

Source of the definition: Keras' configuration file, ``~/.keras/keras.json`` or
``$KERAS_HOME/keras.json``, key ``image_data_format``.
"""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path

__all__ = ["image_data_format", "set_image_data_format", "standardize_data_format"]

_FORMATS = ("channels_last", "channels_first")
_chosen: str | None = None


def image_data_format() -> str:
    """The layout that ``data_format=None`` stands for.

    What `set_image_data_format` was given, else what the user's keras.json says, else
    ``"channels_last"``.

    Raises
    ------
    ValueError
        If keras.json cannot be read as JSON or names no known layout.

    Examples
    --------
    >>> import gpuconv
    >>> gpuconv.config.set_image_data_format("channels_first")
    >>> gpuconv.config.image_data_format()
    'channels_first'
    >>> gpuconv.config.set_image_data_format(None)
    """
    return _chosen or _from_keras_json(os.environ.get("KERAS_HOME"))


def set_image_data_format(data_format: str | None) -> None:
    """Set what ``data_format=None`` stands for, in this process.

    Parameters
    ----------
    data_format : {"channels_last", "channels_first"} or None
        None goes back to keras.json, which is then read again.

    Raises
    ------
    ValueError
        If it is none of these.
    """
    global _chosen
    if data_format is None:
        _from_keras_json.cache_clear()
        _chosen = None
    else:
        _chosen = standardize_data_format(data_format)


def standardize_data_format(data_format: str | None) -> str:
    """`data_format` in lower case, None resolved, anything else refused with a ValueError."""
    if data_format is None:
        return image_data_format()
    if isinstance(data_format, str) and data_format.lower() in _FORMATS:
        return data_format.lower()
    raise ValueError(
        "Expected data_format to be 'channels_last', 'channels_first' or None. "
        f"Received data_format={data_format!r}."
    )


@functools.cache
def _from_keras_json(keras_home: str | None) -> str:
    path = Path(keras_home or Path.home() / ".keras") / "keras.json"
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        data_format = settings.get("image_data_format", "channels_last")
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return "channels_last"
    except (ValueError, AttributeError) as error:
        raise ValueError(
            f"Expected {path} to hold a JSON object. Received: {error}. Repair or delete the file, "
            "or pass data_format= explicitly."
        ) from error
    if data_format not in _FORMATS:
        raise ValueError(
            f"Expected image_data_format in {path} to be one of {_FORMATS}. "
            f"Received {data_format!r}. Repair the file, or pass data_format= explicitly."
        )
    return str(data_format)
