"""Names for the types that public signatures use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

#: An array of NumPy, CuPy or any other array-API library. No common base class exists.
Array: TypeAlias = Any
#: The namespace (module) of an array-API library.
Namespace: TypeAlias = Any
#: A shape whose unknown lengths are None.
Shape: TypeAlias = tuple[int | None, ...]
#: One integer for all axes, or one per axis.
PerAxis: TypeAlias = int | Sequence[int]
#: ``"valid"``, ``"same"``, ..., one crop for all axes, one per axis, or a (left, right) pair per axis.
Padding: TypeAlias = str | int | Sequence[int] | Sequence[Sequence[int]]
#: A name of `gpuconv.activations`, a callable from array to array, or None.
Activation: TypeAlias = str | dict[str, Any] | Callable[[Array], Array] | None
