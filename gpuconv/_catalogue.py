"""What the catalogues of initializers, activations, regularizers and constraints share.

Three things: how a name or a config becomes an object and goes back (`Catalogue`), the mixin that
derives a config from a dataclass' fields (`Configured`, `checked`), and the type in which their array
maths is done (`widen`, `narrow`).

Source of the definition: the nested dictionaries of Keras 3's ``keras.saving.serialize_keras_object``
and the flat ``{"class_name", "config"}`` of TensorFlow 2.9.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import math
import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

import numpy as np

from gpuconv._typing import Array, Namespace
from gpuconv.namespace import HALF_DTYPES, array_namespace, dtype_name

__all__ = ["Catalogue", "Configured", "checked", "narrow", "non_negative", "one_of", "real", "widen"]

# Modules whose class names mean what they mean here. Any other module's "Zeros" is somebody else's.
_KNOWN_MODULES = ("keras", "tf_keras", "tensorflow", "builtins", "gpuconv")


@dataclass(frozen=True)
class Configured:
    """Mixin of a frozen dataclass: its config is its fields, each checked when the object is made.

    Two objects are equal when their configs are.

    Examples
    --------
    >>> from gpuconv.constraints import UnitNorm
    >>> UnitNorm(axis=(0, 2)).get_config()
    {'axis': [0, 2]}
    >>> UnitNorm.from_config({"axis": [0, 2]}) == UnitNorm(axis=(0, 2))
    True
    """

    def __post_init__(self) -> None:
        for entry in fields(self):
            check = entry.metadata.get("check")
            if check is not None:
                object.__setattr__(self, entry.name, check(entry.name, getattr(self, entry.name)))

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this object again, as values that JSON knows."""
        config = {}
        for entry in fields(self):
            value = getattr(self, entry.name)
            if entry.init and not (entry.metadata.get("omit_none") and value is None):
                config[entry.name] = list(value) if isinstance(value, tuple) else value
        return config

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Make an object of this class from what `get_config` returned.

        Raises
        ------
        ValueError
            If `config` has a key that is not an argument of this class, or a value out of range.
        """
        _check_keys(cls.__name__, config, [entry.name for entry in fields(cls) if entry.init])
        return cls(**config)


def checked(default: Any, check: Callable[[str, Any], Any], *, omit_none: bool = False) -> Any:
    """A dataclass field that `Configured` passes through ``check(name, value)`` and replaces by the result.

    With `omit_none`, a None is left out of the config: for arguments that older readers do not know.
    """
    return field(default=default, metadata={"check": check, "omit_none": omit_none})


def real(name: str, value: Any) -> Any:
    """`value` as a finite Python number, else a TypeError or a ValueError."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Real):
        raise TypeError(f"Expected {name} to be a real number. Received {name}={value!r}.")
    if not math.isfinite(value):
        raise ValueError(f"Expected {name} to be finite. Received {name}={value!r}.")
    return value.item() if isinstance(value, np.generic) else value


def non_negative(name: str, value: Any) -> float:
    """`value` as a finite float of at least 0, else a TypeError or a ValueError."""
    value = float(real(name, value))
    if value < 0:
        raise ValueError(f"Expected {name} to be at least 0. Received {name}={value!r}.")
    return value


def one_of(*choices: str | None) -> Callable[[str, Any], Any]:
    """A check that passes `choices` and raises a ValueError otherwise."""

    def check(name: str, value: Any) -> Any:
        # The type is asked first: an array compared with a string has no single truth value.
        if not (value is None or isinstance(value, str)) or value not in choices:
            raise ValueError(f"Expected {name} to be one of {choices}. Received {name}={value!r}.")
        return value

    return check


@dataclass(frozen=True)
class Catalogue:
    """Names of one kind of object, and the way from an identifier to the object and back.

    Parameters
    ----------
    kind : str
        What an error message calls a member, for example ``"initializer"``. Keras' module is its plural.
    canonical : mapping of str to class or function
        The names that an error message lists.
    aliases : mapping of str to str
        Further names, each with the canonical one that it stands for.
    hints : mapping of str to str
        Names refused on purpose, each with what to do instead.
    """

    kind: str
    canonical: Mapping[str, Any]
    aliases: Mapping[str, str] = field(default_factory=dict)
    hints: Mapping[str, str] = field(default_factory=dict)

    def find(self, name: str) -> Any:
        """The class or function called `name`, in snake_case, as in Python, or by an alias."""
        found = self._names.get(name)
        if found is None:
            raise ValueError(
                f"Expected the name of a known {self.kind}: {', '.join(sorted(self.canonical))}. "
                f"Received {self.kind}={name!r}. {self._advice(name)}"
            )
        return found

    def get(self, identifier: Any) -> Any:
        """The member that a name, a config, a class, an instance or a callable stands for; None for None.

        Raises
        ------
        ValueError
            If a name or a config key is unknown, or if the config is of a class registered elsewhere.
        TypeError
            If `identifier` is none of these, or is a member of another catalogue.
        """
        if identifier is None:
            return None
        if isinstance(identifier, str):
            return self._make(self.find(identifier), {})
        if isinstance(identifier, Mapping):
            return self._from_dict(identifier)
        if inspect.isclass(identifier) and identifier.__module__ == "builtins":
            raise TypeError(f"Expected an instance as {self.kind}. Received {self.kind}={identifier!r}.")
        owner = identifier if inspect.isclass(identifier) else type(identifier)
        strange = issubclass(owner, Configured) and owner not in self._names.values()
        if strange or not callable(identifier):
            raise TypeError(
                f"Expected a name, a config, a callable or None as {self.kind}. Received "
                f"{self.kind}={identifier!r}. Known names: {', '.join(sorted(self.canonical))}."
            )
        return identifier() if inspect.isclass(identifier) else identifier

    def serialize(self, member: Any) -> Any:
        """`member` as Keras 3 writes it: a nested dictionary; for a function of the catalogue its name.

        Raises
        ------
        ValueError
            If `member` is a lambda or another callable without a name or a config.
        """
        if member is None:
            return None
        if isinstance(member, functools.partial):
            return self._serialize_partial(member)
        owner = type(member)
        if isinstance(member, Configured):
            return _nested(f"keras.{self.kind}s", owner.__name__, member.get_config(), None)
        name = getattr(member, "__name__", None)
        if name in self._names and self._names[name] is member:
            return name
        if hasattr(member, "get_config"):
            return _nested(owner.__module__, owner.__name__, member.get_config(), owner.__name__)
        if name is None or name == "<lambda>":
            raise ValueError(
                f"Expected a named function, or an object with get_config, to serialize. Received "
                f"{self.kind}={member!r}. Define it with def, or give its class a get_config."
            )
        return _nested(member.__module__, "function", name, name)

    @functools.cached_property
    def _names(self) -> dict[str, Any]:
        names = dict(self.canonical)
        names.update({member.__name__: member for member in self.canonical.values()})
        names.update({alias: self.canonical[name] for alias, name in self.aliases.items()})
        return names

    def _advice(self, name: str) -> str:
        if name in self.hints:
            return self.hints[name]
        near = difflib.get_close_matches(name, self._names, n=1) or [
            known for known in sorted(self.canonical) if name and known.startswith(name.lower())
        ]
        return f"Did you mean {near[0]!r}?" if near else f"Or pass a callable as {self.kind}."

    def _from_dict(self, identifier: Mapping[str, Any]) -> Any:
        name, config = identifier.get("class_name"), identifier.get("config", {})
        if not isinstance(name, str):
            raise ValueError(
                f"Expected a config with the keys 'class_name' and 'config'. "
                f"Received {self.kind}={dict(identifier)!r}."
            )
        module = str(identifier.get("module") or "builtins")
        registered = str(identifier.get("registered_name") or "")
        if module.partition(".")[0] not in _KNOWN_MODULES or ">" in registered:
            raise ValueError(
                f"Expected the config of a built-in {self.kind}. Received class_name={name!r} of "
                f"module={module!r}, registered_name={registered!r}. Pass the object itself."
            )
        if name == "function":  # Keras' form of a function: its name is the config
            name, config = config, {}
        if config is not None and not isinstance(config, Mapping):
            raise TypeError(f"Expected config to be a dictionary. Received config={config!r} for {name!r}.")
        return self._make(self.find(name), config or {})

    def _make(self, found: Any, config: Mapping[str, Any]) -> Any:
        if inspect.isclass(found) and issubclass(found, Configured):
            return found.from_config(config)
        # A function's first parameter is the array.
        _check_keys(found.__name__, config, list(inspect.signature(found).parameters)[1:])
        return functools.partial(found, **config) if config else found

    def _serialize_partial(self, member: functools.partial[Any]) -> Any:
        name = self.serialize(member.func)
        if member.args or not isinstance(name, str):
            raise ValueError(
                f"Expected a functools.partial that fixes keyword arguments of a known {self.kind}. "
                f"Received {self.kind}={member!r}. Define a function with def instead."
            )
        if not member.keywords:
            return name
        return _nested(f"gpuconv.{self.kind}s", name, dict(member.keywords), None)


def _nested(module: str, class_name: str, config: Any, registered_name: str | None) -> dict[str, Any]:
    return {
        "module": module,
        "class_name": class_name,
        "config": config,
        "registered_name": registered_name,
    }


def _check_keys(owner: str, config: Mapping[str, Any], known: list[str]) -> None:
    unknown = [key for key in config if key not in known]
    if unknown:
        raise ValueError(
            f"Expected the config of {owner} to have keys among {known}. "
            f"Received {', '.join(f'{key}={config[key]!r}' for key in unknown)}."
        )


def widen(owner: str, x: Array, *, accept_complex: bool = False) -> tuple[Namespace, Array]:
    """The namespace of `x`, and `x` in the type to compute in: half types in float32, others as they are.

    Raises
    ------
    TypeError
        If `x` is no array, or its type is not one that `owner` is defined for.
    """
    xp = array_namespace(x=x)
    name = dtype_name(x.dtype)
    if name in HALF_DTYPES:
        return xp, xp.astype(x, xp.float32)
    if name.startswith("float") or (accept_complex and name.startswith("complex")):
        return xp, x
    wanted = "floating-point" if not accept_complex else "floating-point or complex"
    raise TypeError(
        f"Expected {owner} to be given a {wanted} array. Received dtype={name}. "
        f"Cast it first, for example to float32{'' if not name.startswith('complex') else ', or take abs'}."
    )


def narrow(xp: Namespace, values: Array, dtype: Any) -> Array:
    """`values` as an array of `dtype`: the way back from `widen`."""
    if isinstance(values, np.generic):  # what NumPy makes of a computation on 0-d arrays
        values = xp.asarray(values)
    return values if values.dtype == dtype else xp.astype(values, dtype)
