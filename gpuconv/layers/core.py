"""The layers without parameters: Input, Activation, Dropout."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, TypeAlias

import numpy as np

from gpuconv import activations
from gpuconv._typing import Array, Shape
from gpuconv.geometry import as_shape, integer
from gpuconv.layers.base import Layer
from gpuconv.layers.base_conv import shape_after
from gpuconv.namespace import array_namespace, is_traced, like

__all__ = ["Activation", "Dropout", "Input"]

_Pullback: TypeAlias = Callable[[Array], tuple[Array, dict[str, Array]]]


class Input(Layer):
    """The shape of what a `Sequential` is given; passes its input on.

    Source of the definition: ``keras.Input`` and ``keras.layers.InputLayer``.

    Parameters
    ----------
    shape : sequence of int or None, optional
        Without the samples axis; None for a length that is not known.
    batch_size : int, optional
        Number of samples.
    dtype : str, optional
        Type that the input is cast to, ``"float32"`` by default.
    batch_shape : sequence of int or None, optional
        With the samples axis, in place of `shape` and `batch_size`.
    name : str, optional
        As in `gpuconv.layers.Layer`.

    Raises
    ------
    ValueError
        If neither or both of `shape` and `batch_shape` are given.

    Examples
    --------
    >>> from gpuconv.layers import Conv1DTranspose, Input, Sequential
    >>> model = Sequential([Input((10, 128)), Conv1DTranspose(32, 3, 2)])
    >>> model.output_shape
    (None, 21, 32)
    """

    _shown = ("batch_input_shape",)

    def __init__(
        self,
        shape: Sequence[int | None] | None = None,
        batch_size: int | None = None,
        dtype: Any = None,
        batch_shape: Sequence[int | None] | None = None,
        name: str | None = None,
    ) -> None:
        if shape is None and batch_shape is None:
            raise ValueError("Expected shape or batch_shape. Received neither.")
        super().__init__(
            input_shape=shape, batch_size=batch_size, batch_input_shape=batch_shape, dtype=dtype, name=name
        )
        self.built = True

    def call(self, inputs: Array) -> Array:
        """Pass the input on."""
        return inputs

    def call_vjp(self, inputs: Array) -> tuple[Array, _Pullback]:
        """Pass the input on, and its cotangent back."""
        return inputs, lambda dy: (dy, {})

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this layer again, as Keras 3 writes them."""
        return {"batch_shape": self.batch_input_shape, "dtype": self.dtype, "name": self.name}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Make an Input from a config of ours, of Keras 3 or of TensorFlow 2.9.

        Raises
        ------
        NotImplementedError
            If it wants sparse, ragged or optional input.
        """
        config = dict(config["config"] if "class_name" in config else config)
        wanted = [kind for kind in ("sparse", "ragged", "optional") if config.pop(kind, None)]
        if wanted:
            raise NotImplementedError(f"Expected a dense input. Received {wanted[0]}=True: use Keras for it.")
        if "batch_input_shape" in config:  # TensorFlow 2.9's name
            config["batch_shape"] = config.pop("batch_input_shape")
        return cls(**config)


class Activation(Layer):
    """An activation on its own.

    Source of the definition: ``keras.layers.Activation``.

    Parameters
    ----------
    activation : str, dict, callable or None
        Of `gpuconv.activations`.
    **options
        As in `gpuconv.layers.Layer`.

    Raises
    ------
    ValueError, TypeError
        If there is no such activation.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.layers import Activation
    >>> Activation("relu")(np.array([-3.0, -1.0, 0.0, 2.0]))
    array([0., 0., 0., 2.], dtype=float32)
    """

    _shown = ("activation",)

    def __init__(self, activation: Any, **options: Any) -> None:
        super().__init__(**options)
        self.activation = activations.get(activation)

    def call(self, inputs: Array) -> Array:
        """Apply the activation."""
        return self.activation(inputs)

    def call_vjp(self, inputs: Array) -> tuple[Array, _Pullback]:
        """Apply the activation, and return its pullback."""
        outputs = self.activation(inputs)
        return outputs, lambda dy: (activations.pullback(self.activation, inputs, outputs, dy), {})

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> Shape:
        """Shape of the output: that of the input, halved by glu."""
        return shape_after(self.activation, tuple(input_shape))

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this layer again, as Keras 3 writes them."""
        return {**super().get_config(), "activation": activations.serialize(self.activation)}


class Dropout(Layer):
    """Zeroes a random part of its input in training and scales the rest by 1 / (1 - rate).

    Source of the definition: ``keras.layers.Dropout``. What is dropped is drawn by NumPy, so it is the same
    whichever library the input is from.

    Parameters
    ----------
    rate : float
        The part that is zeroed, from 0 to 1.
    noise_shape : sequence of int or None, optional
        Shape of what is drawn, broadcast over the input; None for the input's own length.
    seed : int, optional
        Makes the draws repeat from layer to layer; every call draws anew.
    **options
        As in `gpuconv.layers.Layer`.

    Raises
    ------
    ValueError, TypeError
        If `rate` is not a number from 0 to 1, or `noise_shape` no shape.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.layers import Dropout
    >>> layer = Dropout(0.5, seed=0)
    >>> layer(np.ones(4), training=True)
    array([2., 0., 0., 0.], dtype=float32)
    >>> layer(np.ones(4))
    array([1., 1., 1., 1.], dtype=float32)
    """

    _shown = ("rate", "noise_shape")

    def __init__(
        self,
        rate: Any,
        noise_shape: Sequence[int | None] | None = None,
        seed: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if isinstance(rate, bool) or not isinstance(rate, numbers.Real):
            raise TypeError(f"Expected rate to be a number. Received {rate=}.")
        if not 0 <= float(rate) <= 1:
            raise ValueError(f"Expected rate from 0 to 1. Received {rate=}.")
        self.rate = float(rate)
        self.noise_shape = None if noise_shape is None else as_shape("noise_shape", noise_shape)
        self.seed = None if seed is None else integer("seed", seed, 0)
        self._generator = np.random.default_rng(self.seed)

    def call(self, inputs: Array, training: bool = False) -> Array:
        """Drop in training, else pass the input on."""
        return self.call_vjp(inputs, training)[0]

    def call_vjp(self, inputs: Array, training: bool = False) -> tuple[Array, _Pullback]:
        """Drop, and return the pullback, which drops the same."""
        if not training or self.rate == 0:
            return inputs, lambda dy: (dy, {})
        if is_traced(inputs):
            raise NotImplementedError(
                "Expected an array with values. Received one that JAX traces: what is drawn once would be "
                "dropped in every call. Train outside of jax.jit."
            )
        xp = array_namespace(inputs=inputs)
        drawn = self._generator.random(self._drawn_shape(tuple(inputs.shape)))
        kept = like(drawn >= self.rate, inputs)
        scale = 0.0 if self.rate == 1 else 1 / (1 - self.rate)

        def drop(array: Array) -> Array:
            return xp.where(kept, array * scale, xp.zeros_like(array))

        return drop(inputs), lambda dy: (drop(dy), {})

    def _drawn_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if self.noise_shape is None:
            return shape
        noise = self.noise_shape
        if len(noise) != len(shape) or any(n not in (None, 1, s) for n, s in zip(noise, shape, strict=False)):
            raise ValueError(
                f"Expected noise_shape to broadcast to the input. Received noise_shape={noise} for an input "
                f"of shape {shape}."
            )
        return tuple(s if n is None else n for n, s in zip(noise, shape, strict=True))

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this layer again, as Keras 3 writes them."""
        return {
            **super().get_config(),
            "rate": self.rate,
            "seed": self.seed,
            "noise_shape": self.noise_shape,
        }
