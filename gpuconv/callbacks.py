"""What watches a training: History, EarlyStopping, and the base of your own. As in Keras 3."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from gpuconv._catalogue import non_negative, one_of
from gpuconv.geometry import integer

__all__ = ["Callback", "EarlyStopping", "History"]


class Callback:
    """The base of all callbacks, and of your own: override what you need.

    `model` is set before the training; setting its ``stop_training`` ends the training after the epoch.
    `logs` has the epoch's ``"loss"`` and, with validation data, its ``"val_loss"``.

    Source of the definition: ``keras.callbacks.Callback``.

    Examples
    --------
    >>> from gpuconv.callbacks import Callback
    >>> class Shout(Callback):
    ...     def on_epoch_end(self, epoch, logs):
    ...         print(f"epoch {epoch + 1}: {logs['loss']:.3g}!")
    >>> Shout().on_epoch_end(0, {"loss": 0.25})
    epoch 1: 0.25!
    """

    model: Any = None

    def on_train_begin(self) -> None:
        """Before the first epoch."""

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float]) -> None:
        """After epoch number `epoch`, counted from 0."""

    def on_train_end(self) -> None:
        """After the last epoch, or when one was interrupted."""


class History(Callback):
    """Every epoch's losses. `fit` returns one.

    Attributes
    ----------
    epoch : list of int
        The epochs, counted from 0.
    history : dict of str to list of float
        ``"loss"`` and, with validation data, ``"val_loss"``.

    Examples
    --------
    >>> from gpuconv.callbacks import History
    >>> history = History()
    >>> history.on_epoch_end(0, {"loss": 0.5})
    >>> history.history
    {'loss': [0.5]}
    """

    def __init__(self) -> None:
        self.epoch: list[int] = []
        self.history: dict[str, list[float]] = {}

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float]) -> None:
        """Note the losses."""
        self.epoch.append(epoch)
        for name, value in logs.items():
            self.history.setdefault(name, []).append(value)

    def __repr__(self) -> str:
        last = ", ".join(f"{name} {values[-1]:.4g}" for name, values in self.history.items())
        return f"<History of {len(self.epoch)} epochs{': ' if last else ''}{last}>"

    def _repr_html_(self) -> str:
        from gpuconv._display import block, ends, table  # only a notebook needs it

        header = ["epoch", *self.history]
        losses = zip(self.epoch, *self.history.values(), strict=True)
        rows = [[str(epoch + 1), *(f"{loss:.4g}" for loss in row)] for epoch, *row in losses]
        rows = [["…"] * len(header) if row is None else row for row in ends(rows, 11)]
        return block(f"History of {len(self.epoch)} epochs", table(rows, header=header, right=len(header)))


class EarlyStopping(Callback):
    """Stops when a loss has not become less for a while.

    Source of the definition: ``keras.callbacks.EarlyStopping``.

    Parameters
    ----------
    monitor : {"val_loss", "loss"}
        Which loss.
    min_delta : float
        What less must be to count.
    patience : int
        Epochs without progress after which to stop.
    restore_best_weights : bool
        End with the weights of the best epoch rather than of the last.

    Raises
    ------
    ValueError, TypeError
        For an argument that is out of range or of another kind.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv import callbacks, layers
    >>> model = layers.Sequential([layers.Conv1D(1, 3, padding="same")])
    >>> model.compile("sgd")
    >>> x = np.zeros((4, 8, 1), np.float32)  # there is nothing to learn
    >>> model.fit(x, x, epochs=9, callbacks=[callbacks.EarlyStopping("loss", patience=2)], verbose=0)
    <History of 3 epochs: loss 0>
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0.0,
        patience: int = 0,
        *,
        restore_best_weights: bool = False,
    ) -> None:
        self.monitor = one_of("val_loss", "loss")("monitor", monitor)
        self.min_delta = non_negative("min_delta", min_delta)
        self.patience = integer("patience", patience, 0)
        self.restore_best_weights = restore_best_weights
        self.on_train_begin()

    def on_train_begin(self) -> None:
        """Forget the last training."""
        self.best, self.best_epoch, self._wait = math.inf, 0, 0
        self.stopped_epoch: int | None = None
        self._best_weights: list[np.ndarray] | None = None

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float]) -> None:
        """Stop, if there has been no progress for too long."""
        if self.monitor not in logs:
            raise ValueError(
                f"Expected {self.monitor} to be measured. Received {', '.join(logs)}. Give fit "
                "validation_data or validation_split, or monitor='loss'."
            )
        self._wait += 1
        better = logs[self.monitor] < self.best - self.min_delta
        if self.restore_best_weights and (better or self._best_weights is None):
            self._best_weights = self.model.get_weights()
        if better:
            self.best, self.best_epoch, self._wait = logs[self.monitor], epoch, 0
        elif self._wait >= self.patience and epoch > 0:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def on_train_end(self) -> None:
        """Set the best weights, if they are wanted."""
        if self._best_weights is not None:
            self.model.set_weights(self._best_weights)
