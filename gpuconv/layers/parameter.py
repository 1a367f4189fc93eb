"""An array that belongs to a layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gpuconv._catalogue import non_negative
from gpuconv._typing import Array

__all__ = ["Parameter"]


@dataclass
class Parameter:
    """An array that belongs to a layer, and what is done to it in training.

    The factors multiply the optimizer's learning rate and L2 penalty for this parameter.
    """

    value: Array
    regularizer: Callable[[Array], Array] | None
    constraint: Callable[[Array], Array] | None
    learning_rate_factor: float = 1.0
    l2_factor: float = 1.0

    def set_factors(self, learning_rate: float | None, l2: float | None) -> None:
        """Set the factors that are not None; both or, where one cannot be set, neither."""
        rate = self.learning_rate_factor if learning_rate is None else learning_rate
        penalty = self.l2_factor if l2 is None else l2
        checked = non_negative("learning_rate", rate), non_negative("l2", penalty)
        self.learning_rate_factor, self.l2_factor = checked
