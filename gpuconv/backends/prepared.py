"""What a backend says of a convolution before it runs one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from gpuconv._typing import Array

__all__ = ["Prepared", "no_warmup", "no_workspace", "only"]


class Prepared(NamedTuple):
    """A choice of how to run a convolution, and the reasons.

    Its functions are those of modules, or partial ones: a plan can be pickled.
    """

    algorithm: str
    algorithms: tuple[str, ...]
    """All that can run it, the chosen one first."""
    workspace_size: Callable[[int], int]
    """Bytes that so many samples need beside the result."""
    explanation: str
    warmup: Callable[[], None]
    """Do what the first call would otherwise wait for."""
    kernel: Any
    """What to hand over in place of the kernel."""


def no_workspace(samples: int) -> int:
    """What a way needs that needs none, for any number of samples."""
    del samples
    return 0


def no_warmup() -> None:
    """What the first call would otherwise wait for, where that is nothing."""


def only(algorithm: str, reason: str, asked: str | None, kernel: Array) -> Prepared:
    """What a backend prepares that has one way to run a convolution; `asked` may name it.

    Raises
    ------
    ValueError
        If `asked` is another one.
    """
    if asked not in (None, algorithm):
        raise ValueError(f"Expected algorithm to be None or {algorithm!r}. Received algorithm={asked!r}.")
    return Prepared(algorithm, (algorithm,), no_workspace, f"{algorithm}: {reason}", no_warmup, kernel)
