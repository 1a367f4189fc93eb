"""How a model learns: `Trainable`, what `Sequential` is beside a `Layer`."""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from gpuconv import losses, optimizers
from gpuconv._typing import Array
from gpuconv.callbacks import Callback, History
from gpuconv.geometry import integer
from gpuconv.layers.base import Layer
from gpuconv.layers.parameter import Parameter
from gpuconv.namespace import array_namespace, detached, indices, is_traced, library, like

__all__ = ["Trainable"]


class Trainable(Layer):
    """A layer that learns from examples: compile, fit, evaluate, predict.

    Source of the definition: the methods of ``keras.Model``.
    """

    optimizer: Any = None
    loss: Any = None
    stop_training = False

    def compile(self, optimizer: Any = "rmsprop", loss: Any = "mse") -> None:
        """Say how to learn; what was learned stays, what the optimizer remembers is forgotten.

        Parameters
        ----------
        optimizer : str, dict or Optimizer
            Of `gpuconv.optimizers`.
        loss : str or callable
            Of `gpuconv.losses`, or your own with a method ``gradient(y, target)``.

        Raises
        ------
        ValueError, TypeError
            If there is no such optimizer or loss.
        """
        found, measure = optimizers.get(optimizer), losses.get(loss)
        if not isinstance(found, optimizers.Optimizer):
            raise TypeError(f"Expected an optimizer of gpuconv.optimizers. Received {optimizer=}.")
        if measure is None or not losses.has_gradient(measure):
            raise TypeError(
                "Expected a loss of gpuconv.losses, or one with a method gradient(y, target). "
                f"Received {loss=}."
            )
        self.optimizer, self.loss = found, measure
        self.iteration = 0
        self._trained: list[Parameter] = []
        self._slots: list[dict[str, Array]] = []

    def train_on_batch(self, x: Array, y: Array) -> Array:
        """One step on one batch; returns the loss before it, penalties included, as a 0-d array.

        Raises
        ------
        ValueError
            If the model is not compiled, or `y` has not the shape of its output.
        """
        self._check_compiled()
        if is_traced(x) or library(x) == "dask":
            raise NotImplementedError(
                "Expected arrays that hold their values. Received a traced or a lazy one: parameters would "
                "hang on it. Call this outside of jax.jit; compute Dask arrays batch by batch."
            )
        outputs, pullback = self.vjp(x, training=True)
        loss = self._total(outputs, y)
        _, gradients = pullback(losses.gradient(self.loss, outputs, y))
        self._update(gradients)
        return detached(loss)

    def _total(self, outputs: Array, y: Array) -> Array:
        """The loss, penalties included, as a 0-d array."""
        loss = self.loss(outputs, y)
        for penalty in self.losses:
            loss = loss + penalty
        return np.asarray(loss) if isinstance(loss, np.generic) else loss

    def _update(self, gradients: Sequence[Array]) -> None:
        parameters = self._trainable_parameters()
        if not self._trained:
            self._trained, self._slots = parameters, [{} for _ in parameters]
        same = len(self._trained) == len(parameters)
        if not same or any(a is not b for a, b in zip(self._trained, parameters, strict=True)):
            raise ValueError(
                "Expected the trainable parameters of the last step. Received others. Call compile again "
                "after freezing, adding or removing layers."
            )
        # All that may fail comes before anything is kept.
        values, kept = [], []
        clipped = optimizers.clipped(self.optimizer, gradients)
        for p, gradient, before in zip(parameters, clipped, self._slots, strict=True):
            slots = {name: like(slot, gradient) for name, slot in before.items()}
            factors = {"learning_rate_factor": p.learning_rate_factor, "l2_factor": p.l2_factor}
            value = self.optimizer(p.value, gradient, slots, self.iteration + 1, **factors)
            values.append(detached(value if p.constraint is None else p.constraint(value)))
            kept.append({name: detached(slot) for name, slot in slots.items()})
        for parameter, value in zip(parameters, values, strict=True):
            parameter.value = value
        self._slots = kept
        self.iteration += 1

    def fit(
        self,
        x: Array,
        y: Array,
        *,
        epochs: int = 1,
        batch_size: int = 32,
        validation_split: float = 0.0,
        validation_data: tuple[Array, Array] | None = None,
        shuffle: bool = True,
        callbacks: Iterable[Callback] | None = None,
        verbose: int = 1,
        seed: int | None = None,
    ) -> History:
        """Learn from examples.

        Parameters
        ----------
        x, y : array
            Inputs and what they ought to give, samples along the first axis; of any array library, which
            then computes.
        epochs : int
            How often to go through all.
        batch_size : int
            Samples of a step. The last step of an epoch may have fewer.
        validation_split : float
            Part of the samples, the last ones, that are not learned from but measured after every epoch.
        validation_data : (array, array), optional
            What is measured instead.
        shuffle : bool
            Go through the samples in another order in every epoch.
        callbacks : iterable of Callback, optional
            Of `gpuconv.callbacks`.
        verbose : {0, 1, 2}
            0 prints nothing, 2 a line an epoch; 1 a progress bar where tqdm is installed
            (``pip install gpuconv[progress]``), else as 2.
        seed : int, optional
            Makes the orders repeat. (Initial weights and dropout have seeds of their own.)

        Returns
        -------
        History
            The losses of every epoch: the mean over its samples, penalties included.

        Raises
        ------
        ValueError, TypeError
            If the model is not compiled, or an argument does not fit.

        Examples
        --------
        >>> import numpy as np
        >>> from gpuconv import layers, optimizers
        >>> x = np.random.default_rng(0).standard_normal((64, 16, 1)).astype(np.float32)
        >>> model = layers.Sequential([layers.Conv1D(1, 3, padding="same", seed=0)])
        >>> model.compile(optimizers.SGD(0.1))
        >>> history = model.fit(x, -2 * x, epochs=30, verbose=0, seed=0)
        >>> history.history["loss"][-1] < 1e-4
        True
        """
        self._check_compiled()
        epochs, batch_size = integer("epochs", epochs, 0), integer("batch_size", batch_size, 1)
        if verbose not in (0, 1, 2):
            raise ValueError(f"Expected verbose to be 0, 1 or 2. Received {verbose=}.")
        x, y, validation_data = _split(x, y, validation_split, validation_data)
        generator = np.random.default_rng(None if seed is None else integer("seed", seed, 0))
        history = History()
        watchers = [history, *(callbacks or ())]
        self._check_targets(x, y)
        if validation_data is not None:
            self._check_targets(*validation_data)
        elif any(getattr(watcher, "monitor", None) == "val_loss" for watcher in watchers):
            raise ValueError(
                "Expected validation_data or validation_split, whose val_loss a callback monitors. "
                "Received neither."
            )
        self.stop_training = False
        for watcher in watchers:
            watcher.model = self
            watcher.on_train_begin()
        try:
            for epoch in range(epochs):
                order = generator.permutation(x.shape[0]) if shuffle else None
                bar = _Bar(f"epoch {epoch + 1}/{epochs}", math.ceil(x.shape[0] / batch_size), verbose)
                logs = {"loss": self._epoch(_batches(x, y, batch_size, order), bar)}
                if validation_data is not None:
                    logs["val_loss"] = self.evaluate(*validation_data, batch_size=batch_size)
                bar.close(logs)
                for watcher in watchers:
                    watcher.on_epoch_end(epoch, logs)
                if self.stop_training:
                    break
        finally:
            for watcher in watchers:
                watcher.on_train_end()
        return history

    def _epoch(self, batches: Iterator[tuple[Array, Array]], bar: _Bar) -> float:
        """Mean loss of an epoch over its samples."""
        total, samples = 0.0, 0
        for x, y in batches:
            total += float(self.train_on_batch(x, y)) * x.shape[0]
            samples += x.shape[0]
            bar.step(total / samples)
        return total / max(1, samples)

    def evaluate(self, x: Array, y: Array, batch_size: int = 32) -> float:
        """Mean loss over all samples, penalties included, without learning.

        Raises
        ------
        ValueError
            If the model is not compiled, or `x` and `y` differ in their number of samples.
        """
        self._check_compiled()
        _check_pair(x, y)
        total, samples = 0.0, 0
        for inputs, targets in _batches(x, y, integer("batch_size", batch_size, 1), None):
            total += float(self._total(self(inputs), targets)) * inputs.shape[0]
            samples += inputs.shape[0]
        return total / max(1, samples)

    def predict(self, x: Array, batch_size: int = 32) -> Array:
        """The output for all samples, computed batch by batch.

        Parameters
        ----------
        x : array
            Inputs, samples along the first axis.
        batch_size : int
            Samples at a time.

        Returns
        -------
        array
            Of the library of `x`.
        """
        xp = array_namespace(x=x)
        size = integer("batch_size", batch_size, 1)
        parts = [self(x[start : start + size, ...]) for start in range(0, max(1, x.shape[0]), size)]
        return parts[0] if len(parts) == 1 else xp.concat(parts, axis=0)

    def _check_targets(self, x: Array, y: Array) -> None:
        """Build the model, and refuse targets that its output cannot be compared with."""
        if not losses.compares_elements(self.loss):
            return
        self._prepare(x[:1, ...])
        made = self.compute_output_shape(tuple(x.shape))
        if made != tuple(y.shape):
            raise ValueError(f"Expected targets of the predictions' shape {made}. Received {tuple(y.shape)}.")

    def _check_compiled(self) -> None:
        if self.optimizer is None:
            raise ValueError(
                f"Expected model {self.name!r} to be compiled. Received no optimizer yet: call "
                "compile(optimizer, loss)."
            )


def _check_pair(x: Array, y: Array) -> None:
    array_namespace(x=x, y=y)
    if not x.ndim or not y.ndim or not x.shape[0] or x.shape[0] != y.shape[0]:
        raise ValueError(
            "Expected as many x as y, along the first axis, and at least one. Received x of shape "
            f"{tuple(x.shape)} and y of shape {tuple(y.shape)}."
        )


def _split(
    x: Array, y: Array, part: float, data: tuple[Array, Array] | None
) -> tuple[Array, Array, tuple[Array, Array] | None]:
    """What to learn from, and what to measure with."""
    _check_pair(x, y)
    if data is not None:
        if len(data) != 2:
            raise ValueError(f"Expected validation_data=(x, y). Received {len(data)} entries.")
        _check_pair(*data)
        return x, y, data
    if not 0 <= part < 1:
        raise ValueError(f"Expected validation_split from 0 to below 1. Received validation_split={part!r}.")
    kept = int(x.shape[0] * (1 - part))
    if not part:
        return x, y, None
    if kept in (0, x.shape[0]):
        raise ValueError(
            f"Expected validation_split to leave samples on both sides. Received validation_split={part!r} "
            f"of {x.shape[0]} samples."
        )
    return x[:kept, ...], y[:kept, ...], (x[kept:, ...], y[kept:, ...])


def _batches(x: Array, y: Array, size: int, order: np.ndarray | None) -> Iterator[tuple[Array, Array]]:
    xp = array_namespace(x=x, y=y)
    for start in range(0, x.shape[0], size):
        if order is None:
            yield x[start : start + size, ...], y[start : start + size, ...]
        else:
            chosen = indices(order[start : start + size].tolist(), x)
            yield xp.take(x, chosen, axis=0), xp.take(y, chosen, axis=0)


class _Bar:
    """A progress bar where there is tqdm and it is wanted, a line at the end where not."""

    def __init__(self, title: str, steps: int, verbose: int) -> None:
        self._title, self._verbose, self._bar = title, verbose, None
        if verbose == 1 and importlib.util.find_spec("tqdm") is not None:
            self._bar = importlib.import_module("tqdm.auto").tqdm(total=steps, desc=title)

    def step(self, loss: float) -> None:
        if self._bar is not None:
            self._bar.set_postfix(loss=f"{loss:.4g}", refresh=False)
            self._bar.update()

    def close(self, logs: dict[str, float]) -> None:
        values = {name: f"{value:.4g}" for name, value in logs.items()}
        if self._bar is not None:
            self._bar.set_postfix(values)
            self._bar.close()
        elif self._verbose:
            print(self._title, *(f"{name} {value}" for name, value in values.items()), sep="  ")
