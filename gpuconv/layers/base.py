"""What every layer has: a name, a dtype, parameters, losses, a config."""

from __future__ import annotations

import inspect
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from gpuconv import constraints, initializers, regularizers
from gpuconv._typing import Array, Shape
from gpuconv.layers._arguments import (
    as_batch_input_shape,
    as_dtype,
    as_name,
    as_truth,
    cast_copy,
    unique_name,
)
from gpuconv.layers.parameter import Parameter
from gpuconv.namespace import (
    array_namespace,
    detached,
    dtype_name,
    is_traced,
    like,
    to_numpy,
)
from gpuconv.ops.gradients import as_given, check_cotangent

__all__ = ["Layer"]

# One for all layers: building is rare, and layers build layers.
_building = threading.RLock()


class Layer:
    """The base of all layers, and of your own: override `call`, and `build` where there are parameters.

    A layer that changes the shape overrides `compute_output_shape` too.

    Source of the definition: ``keras.layers.Layer``.

    Parameters
    ----------
    name : str, optional
        Made of the class's name and a number when not given.
    trainable : bool, default True
        Whether training changes the parameters; a frozen layer has no regularization losses.
    dtype : str, optional
        Type of the parameters and of the computation; input is cast to it. ``"float32"`` by default.
    activity_regularizer : str, dict, callable or None
        Penalty on the output, divided by the number of samples.
    input_shape, batch_input_shape : sequence of int or None, optional
        Shape of the input without and with the samples axis, for a layer that comes first in a
        `Sequential`; None for what is not known.
    batch_size : int, optional
        The number of samples that goes before `input_shape`.
    weights : sequence of arrays, optional
        Values that `set_weights` is given when the parameters are made.

    Raises
    ------
    ValueError, TypeError
        For an argument that is none of these, naming what was received.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.layers import Layer
    >>> class Gain(Layer):
    ...     def build(self, input_shape):
    ...         self.add_weight("gain", input_shape[-1:], "ones")
    ...         super().build(input_shape)
    ...
    ...     def call(self, inputs):
    ...         return inputs * self.weight("gain", inputs)
    >>> layer = Gain()
    >>> layer(np.zeros((2, 5, 3))).dtype, layer.count_params()
    (dtype('float32'), 3)
    """

    #: The attributes that the repr shows, beside the name.
    _shown: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        *,
        name: str | None = None,
        trainable: bool = True,
        dtype: Any = None,
        activity_regularizer: Any = None,
        input_shape: Sequence[int | None] | None = None,
        batch_input_shape: Sequence[int | None] | None = None,
        batch_size: int | None = None,
        weights: Sequence[Any] | None = None,
    ) -> None:
        self.name = unique_name(type(self).__name__) if name is None else as_name(name)
        self.trainable = as_truth("trainable", trainable)
        self.dtype = as_dtype(dtype)
        self.activity_regularizer = regularizers.get(activity_regularizer)
        self.batch_input_shape = as_batch_input_shape(input_shape, batch_input_shape, batch_size)
        self.built = False
        self._initial_weights = weights
        self._parameters: dict[str, Parameter] = {}
        self._activity_loss: Array | None = None

    # --- computing ---

    def __call__(self, inputs: Array, **options: Any) -> Array:
        """Cast `inputs` to the layer's dtype, build the layer if that was not done, and `call` it.

        ``training=`` is passed on to a `call` that takes it, as that of `gpuconv.layers.Dropout`.
        """
        outputs = self.call(self._prepare(inputs), **_known(options, self.call))
        self._note_activity(outputs)
        return outputs

    def vjp(
        self, inputs: Array, **options: Any
    ) -> tuple[Array, Callable[[Array], tuple[Array, list[Array]]]]:
        """Run the layer, and return with its output the function that pulls cotangents back.

        Parameters
        ----------
        inputs : array
            As for a call; so are the options.

        Returns
        -------
        outputs : array
            What a call returns.
        pullback : callable
            ``pullback(dy)`` is ``(dx, gradients)``: the cotangent of `inputs`, and a list with that of each
            of `trainable_weights`. The penalties of the regularizers are part of what is differentiated:
            that of the activity regularizer in both, those of the parameters in `gradients`.

        Raises
        ------
        NotImplementedError
            If the layer defines no `call_vjp`, or the derivative of an activation or a regularizer is not
            known.
        """
        _check_defined_together(type(self), "call", "call_vjp")
        outputs, pull = self.call_vjp(self._prepare(inputs), **_known(options, self.call_vjp))
        self._note_activity(outputs)

        def pullback(dy: Array) -> tuple[Array, list[Array]]:
            check_cotangent(dy, outputs)
            if self.activity_regularizer is not None:
                penalty = regularizers.gradient(self.activity_regularizer, outputs)
                dy = dy + penalty / max(1, outputs.shape[0] if outputs.ndim else 1)
            dx, found = pull(dy)
            if dtype_name(inputs.dtype).startswith(("float", "bfloat", "complex")):
                dx = as_given(dx, inputs)
            return dx, self._gradients(found)

        return outputs, pullback

    def _gradients(self, found: Mapping[str, Array]) -> list[Array]:
        """The gradients of the trainable parameters, those of their regularizers added."""
        gradients = []
        for name, parameter in self._parameters.items() if self.trainable else ():
            gradient = found[name]
            if parameter.regularizer is not None:
                gradient = gradient + regularizers.gradient(parameter.regularizer, parameter.value)
            gradients.append(gradient)
        return gradients

    def _prepare(self, inputs: Array) -> Array:
        """The input in the layer's dtype, and the layer built for it."""
        inputs = self._cast(inputs)
        if not self.built:
            with _building:
                if not self.built:  # another thread may have done it meanwhile
                    self._build(tuple(inputs.shape))
        return inputs

    def _build(self, shape: Sequence[int | None]) -> None:
        """Build, or leave no parameter behind."""
        try:
            self.build(shape)
            if not self.built:  # a build of one's own that did not end so
                Layer.build(self, shape)
        finally:
            if not self.built:
                self._parameters.clear()

    def _note_activity(self, outputs: Array) -> None:
        # What hangs on a trace dies with it.
        if self.activity_regularizer is not None and not is_traced(outputs):
            samples = outputs.shape[0] if outputs.ndim else 1
            loss = self.activity_regularizer(outputs) / max(1, samples)
            # A quotient of 0-d NumPy arrays is no array.
            self._activity_loss = np.asarray(loss) if isinstance(loss, np.generic) else loss

    def call(self, inputs: Array) -> Array:
        """Compute the output. To be overridden."""
        raise NotImplementedError(f"Expected {type(self).__name__} to define call(self, inputs).")

    def call_vjp(self, inputs: Array) -> tuple[Array, Callable[[Array], tuple[Array, dict[str, Array]]]]:
        """Compute the output, and the function from its cotangent to that of `inputs` and of each parameter.

        To be overridden by a layer of your own that is trained: ``pullback(dy)`` returns
        ``(dx, {name: gradient})``.
        """
        raise NotImplementedError(
            f"Expected {type(self).__name__} to define call_vjp(self, inputs), which training needs. It "
            "returns the output and pullback(dy), which returns (dx, {name of a parameter: its gradient})."
        )

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Make the parameters for inputs of this shape; a layer of your own may end with this."""
        del input_shape  # only layers with parameters look at it
        if self._initial_weights is not None:
            try:
                self._assign(self._initial_weights)
            except (TypeError, ValueError):
                self._parameters.clear()
                raise
            self._initial_weights = None
        self.built = True

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> Shape:
        """Shape of the output for an input of this shape; None where `input_shape` has None."""
        return tuple(input_shape)

    def _cast(self, inputs: Array) -> Array:
        array_namespace(inputs=inputs)  # refuses what is no array
        if dtype_name(inputs.dtype) == self.dtype:
            return inputs
        return cast_copy(inputs, self.dtype, f"input of layer {self.name!r}")

    # --- parameters ---

    def add_weight(
        self,
        name: str,
        shape: Sequence[int],
        initializer: Any = "glorot_uniform",
        *,
        regularizer: Any = None,
        constraint: Any = None,
    ) -> None:
        """Make a parameter, a NumPy array until the layer is called with another library's.

        Raises
        ------
        ValueError
            If there is one of this name: a layer is built once.
        """
        if name in self._parameters:
            raise ValueError(
                f"Expected layer {self.name!r} to be built once. Received another {name!r}. "
                "Make a new layer, or call set_weights."
            )
        initialize = initializers.get(initializer)
        if self._initial_weights is not None:
            self._check_initial(tuple(shape))
        if initialize is None or self._initial_weights is not None:  # which `build` puts in its place
            initialize = initializers.Zeros()
        value = initialize(tuple(shape), dtype=self.dtype)
        self._parameters[name] = Parameter(value, regularizers.get(regularizer), constraints.get(constraint))

    def set_factors(self, name: str, *, learning_rate: float | None = None, l2: float | None = None) -> None:
        """Set what multiplies the optimizer's learning rate and L2 penalty for the parameter `name`.

        Raises
        ------
        ValueError, TypeError
            If there is no such parameter, or a factor is negative or no number.
        """
        if name not in self._parameters:
            raise ValueError(
                f"Expected a parameter of layer {self.name!r}, built: {', '.join(self._parameters)}. "
                f"Received {name!r}."
            )
        self._parameters[name].set_factors(learning_rate, l2)

    def weight(self, name: str, inputs: Array) -> Array:
        """The parameter `name`, moved to the library and device of `inputs` if it was elsewhere."""
        parameter = self._parameters[name]
        moved = like(parameter.value, inputs)
        # What is made while JAX traces belongs to the trace; the layer keeps its own.
        if not is_traced(inputs):
            parameter.value = moved
        return moved

    @property
    def weights(self) -> list[Array]:
        """The parameters, in the order in which they were made."""
        return [parameter.value for parameter in self._all_parameters()]

    def _all_parameters(self) -> list[Parameter]:
        return list(self._parameters.values())

    def _trainable_parameters(self) -> list[Parameter]:
        return self._all_parameters() if self.trainable else []

    @property
    def trainable_weights(self) -> list[Array]:
        """The parameters that training changes: all, or none for a frozen layer."""
        return [parameter.value for parameter in self._trainable_parameters()]

    @property
    def non_trainable_weights(self) -> list[Array]:
        """The parameters that training leaves alone."""
        return [] if self.trainable else self.weights

    def get_weights(self) -> list[np.ndarray]:
        """Copies of the parameters, as NumPy arrays."""
        return [np.array(to_numpy(value)) for value in self.weights]

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Replace all parameters by copies of `weights`, arrays of any library in the order of `weights`.

        Raises
        ------
        ValueError
            If the layer is not built, or the number or a shape differs. Then nothing is replaced.
        """
        self._check_built("set_weights")
        self._assign(weights)

    def _check_initial(self, shape: tuple[int, ...]) -> None:
        """Refuse a parameter of `shape` that the layer was given weights of another shape for, unmade."""
        expected = [*(tuple(value.shape) for value in self.weights), shape]
        received = [tuple(np.shape(given)) for given in self._initial_weights or ()]
        if expected != received[: len(expected)]:
            self._parameters.clear()
            raise ValueError(self._other_shapes(expected, received))

    def _assign(self, weights: Sequence[Any]) -> None:
        expected = [tuple(value.shape) for value in self.weights]
        arrays = [given if hasattr(given, "shape") else np.asarray(given) for given in weights]
        received = [tuple(array.shape) for array in arrays]
        if received != expected:
            raise ValueError(self._other_shapes(expected, received))
        parameters = self._all_parameters()
        copies = [
            detached(cast_copy(array, dtype_name(parameter.value.dtype), f"weights of layer {self.name!r}"))
            for array, parameter in zip(arrays, parameters, strict=True)
        ]
        for parameter, value in zip(parameters, copies, strict=True):
            parameter.value = value

    def _other_shapes(self, expected: Sequence[Any], received: Sequence[Any]) -> str:
        return f"Expected weights of shapes {expected} for layer {self.name!r}. Received shapes {received}."

    def count_params(self) -> int:
        """Number of scalars in the parameters.

        Raises
        ------
        ValueError
            If the layer is not built: it does not know its input's channels.
        """
        self._check_built("count_params")
        return sum(math.prod(value.shape) for value in self.weights)

    @property
    def losses(self) -> list[Array]:
        """The penalty on the last output, then those on the trainable parameters, as 0-d arrays."""
        return [*self._activity_losses(), *self._penalties()]

    def _activity_losses(self) -> list[Array]:
        return [] if self._activity_loss is None else [self._activity_loss]

    def _penalties(self) -> list[Array]:
        if not self.trainable:
            return []
        return [p.regularizer(p.value) for p in self._parameters.values() if p.regularizer is not None]

    def _check_built(self, what: str) -> None:
        if not self.built:
            raise ValueError(self._unbuilt(what))

    def _unbuilt(self, what: str) -> str:
        return (
            f"Expected layer {self.name!r} to be built before {what}. "
            "Received none of its input's shape yet: call it on data, or build(input_shape)."
        )

    # --- configuration ---

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this layer again, as Keras 3 writes them."""
        policy = {
            "module": "keras",
            "class_name": "DTypePolicy",
            "config": {"name": self.dtype},
            "registered_name": None,
        }
        config: dict[str, Any] = {"name": self.name, "trainable": self.trainable, "dtype": policy}
        if self.batch_input_shape is not None:
            config["batch_input_shape"] = self.batch_input_shape
        return config

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Make a layer from what `get_config` returned, here or in Keras, nested or not.

        Raises
        ------
        ValueError
            If a nested config is of another class.
        """
        if "class_name" in config:
            if config["class_name"] != cls.__name__:
                raise ValueError(
                    f"Expected the config of a {cls.__name__}. Received class_name={config['class_name']!r}."
                )
            config = config["config"]
        return cls(**config)

    def __getstate__(self) -> dict[str, Any]:
        # A copy has not been called: the penalty on the last output, and its autograd graph, stay behind.
        return {**self.__dict__, "_activity_loss": None}

    def _settings(self) -> dict[str, str]:
        """What the layer was told, as its repr shows it."""
        values = {name: getattr(self, name) for name in self._shown}
        return {name: str(getattr(value, "__name__", repr(value))) for name, value in values.items()}

    def __repr__(self) -> str:
        settings = {**self._settings(), "name": repr(self.name)}
        return f"{type(self).__name__}({', '.join(f'{name}={text}' for name, text in settings.items())})"

    def _repr_html_(self) -> str:
        from gpuconv._display import block, table  # only a notebook needs it

        parameters = [
            (name, f"{tuple(parameter.value.shape)} {dtype_name(parameter.value.dtype)}")
            for name, parameter in self._parameters.items()
        ]
        if not self.built:
            parameters = [("parameters", "not built")]
        elif parameters:
            parameters.append(
                ("parameters", f"{self.count_params():,}{'' if self.trainable else ', frozen'}")
            )
        return block(f"{self.name} ({type(self).__name__})", table([*self._settings().items(), *parameters]))


def _known(options: dict[str, Any], function: Callable[..., Any]) -> dict[str, Any]:
    """The options for `function`: ``training`` is for those that take it."""
    if "training" in options and "training" not in inspect.signature(function).parameters:
        return {name: value for name, value in options.items() if name != "training"}
    return options


def _check_defined_together(kind: type, function: str, pulled: str) -> None:
    """Refuse a class that computes something else than its pullback knows of."""
    computing, pulling = (next(c for c in kind.__mro__ if name in vars(c)) for name in (function, pulled))
    if computing is not pulling and issubclass(computing, pulling) and pulling is not Layer:
        raise NotImplementedError(
            f"Expected {kind.__name__} to define {pulled} too, as it defines {function}: training needs what "
            "its result pulls back."
        )
