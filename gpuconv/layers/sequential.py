"""Layers one after another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from gpuconv._typing import Array, Shape
from gpuconv.geometry import as_shape
from gpuconv.layers._arguments import as_truth
from gpuconv.layers.base import Layer, _check_defined_together
from gpuconv.layers.conv import Conv1D, Conv2D, Conv3D
from gpuconv.layers.conv_transpose import Conv1DTranspose, Conv2DTranspose, Conv3DTranspose
from gpuconv.layers.core import Activation, Dropout, Input
from gpuconv.layers.parameter import Parameter
from gpuconv.layers.training import Trainable
from gpuconv.namespace import array_namespace

__all__ = ["Sequential"]


class Sequential(Trainable):
    """A model that gives each layer the output of the one before.

    Source of the definition: ``keras.Sequential``. It is built at once when the first layer is an
    `gpuconv.layers.Input` or has an ``input_shape``, else by its first input.

    Parameters
    ----------
    layers : sequence of Layer, optional
        More can be added.
    name : str, optional
        As in `gpuconv.layers.Layer`.
    trainable : bool, default True
        False freezes all layers.

    Raises
    ------
    TypeError
        If something is no layer.
    ValueError
        If two layers have one name, or an `gpuconv.layers.Input` does not come first.

    Examples
    --------
    >>> from gpuconv.layers import Conv1D, Conv1DTranspose, Input, Sequential
    >>> model = Sequential(
    ...     [
    ...         Input((288, 1), name="signal"),
    ...         Conv1D(32, 7, 2, "same", activation="relu", name="encoder"),
    ...         Conv1DTranspose(1, 7, 2, "same", name="decoder"),
    ...     ],
    ...     name="autoencoder",
    ... )
    >>> model.summary()
    autoencoder (Sequential), input (None, 288, 1)
    ------------------------------------------------------------------------------
    layer    type             output shape     parameters  multiply-adds    memory
    ------------------------------------------------------------------------------
    signal   Input            (None, 288, 1)            0              0   1.1 KiB
    encoder  Conv1D           (None, 144, 32)         256         32,256  18.0 KiB
    decoder  Conv1DTranspose  (None, 288, 1)          225         32,256   1.1 KiB
    ------------------------------------------------------------------------------
    481 parameters (1.9 KiB), 481 trainable, 0 frozen
    for one sample 64,512 multiply-adds, 20.2 KiB of outputs
    """

    def __init__(
        self, layers: Sequence[Layer] | None = None, name: str | None = None, trainable: bool = True
    ) -> None:
        self._layers: list[Layer] = []
        self._input_shape: Shape = ()
        self._output_shape: Shape = ()  # kept, so that adding a layer asks that layer alone
        super().__init__(name=name, trainable=trainable)
        for layer in layers or ():
            self.add(layer)

    @property
    def layers(self) -> list[Layer]:
        """The layers, first to last, an `gpuconv.layers.Input` included."""
        return list(self._layers)

    @property
    def trainable(self) -> bool:
        """Whether training changes the parameters; setting it sets that of every layer."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._trainable = as_truth("trainable", value)
        for layer in self._layers:
            layer.trainable = self._trainable

    def add(self, layer: Layer) -> None:
        """Add `layer` at the end; build it if the shape that it will be given is known.

        Raises
        ------
        TypeError
            If it is no layer.
        ValueError
            If its name is taken, if it is an Input and not the first, or if it does not fit the shape.
        """
        if not isinstance(layer, Layer):
            raise TypeError(f"Expected a layer. Received {layer!r}.")
        if layer is self:
            raise ValueError(f"Expected another layer than the model itself. Received {layer!r}.")
        if layer.name in [known.name for known in self._layers]:
            raise ValueError(f"Expected layers of different names. Received another {layer.name!r}.")
        if not set(map(id, leaves(layer))).isdisjoint(map(id, leaves(self))):
            raise ValueError(f"Expected a layer that is not in the model yet. Received {layer!r} again.")
        if isinstance(layer, Input) and self._layers:
            raise ValueError(f"Expected an Input to come first. Received {layer!r} as a later layer.")
        if not self._layers and layer.batch_input_shape is not None:
            self._output_shape = self._build_layers([layer], layer.batch_input_shape)
            self._input_shape = layer.batch_input_shape
            self.built = True
        elif self.built:
            self._output_shape = self._build_layers([layer], self._output_shape)
        if not self.trainable:
            layer.trainable = False
        self._layers.append(layer)

    def pop(self) -> Layer:
        """Remove the last layer and return it.

        Raises
        ------
        ValueError
            If there is none.
        """
        if not self._layers:
            raise ValueError("Expected a layer to remove. Received a model without layers.")
        layer = self._layers.pop()
        if not self._layers:
            self.built = False
        if self.built:
            self._output_shape = self.output_shape
        return layer

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Build every layer for inputs of this shape."""
        shape = as_shape("input_shape", input_shape)
        self._build_layers(self._layers, shape)
        self._input_shape = (None, *shape[1:])
        self._output_shape = self.compute_output_shape(self._input_shape)
        super().build(input_shape)

    @staticmethod
    def _build_layers(layers: Sequence[Layer], shape: Shape) -> Shape:
        """Build the layers that are given `shape`, and say what they make of it."""
        shapes = [shape]
        for layer in layers:  # all must fit before the first is built
            shapes.append(layer.compute_output_shape(shapes[-1]))
        for layer, given in zip(layers, shapes, strict=False):
            if not layer.built:
                layer._build(given)
        return shapes[-1]

    @property
    def input_shape(self) -> Shape:
        """Shape of the input that the model was built for, None for the samples."""
        self._check_built("input_shape")
        return self._input_shape

    @property
    def output_shape(self) -> Shape:
        """Shape of the output for `input_shape`."""
        return self.compute_output_shape(self.input_shape)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> Shape:
        """Shape of the last layer's output for an input of this shape."""
        shape = as_shape("input_shape", input_shape)
        for layer in self._layers:
            shape = layer.compute_output_shape(shape)
        return shape

    def call(self, inputs: Array, training: bool = False) -> Array:
        """Run the layers; `training` goes to those that know it, such as Dropout."""
        for layer in self._layers:
            inputs = layer(inputs, training=training)
        return inputs

    def vjp(
        self, inputs: Array, **options: Any
    ) -> tuple[Array, Callable[[Array], tuple[Array, list[Array]]]]:
        """Run the layers, and return with the output the function that pulls cotangents back.

        As `gpuconv.layers.Layer.vjp`; ``training=`` goes to the layers that know it.
        """
        _check_defined_together(type(self), "call", "vjp")
        outputs, pulls = self._prepare(inputs), []
        for layer in self._layers:
            outputs, pull = layer.vjp(outputs, **options)
            pulls.append(pull)

        def pullback(dy: Array) -> tuple[Array, list[Array]]:
            gradients: list[Array] = []
            for pull in reversed(pulls):
                dy, found = pull(dy)
                gradients[:0] = found
            return dy, gradients

        return outputs, pullback

    def _cast(self, inputs: Array) -> Array:
        array_namespace(inputs=inputs)  # refuses what is no array
        return inputs  # each layer casts to its own dtype

    def _all_parameters(self) -> list[Parameter]:
        return [parameter for layer in self._layers for parameter in layer._all_parameters()]

    def _trainable_parameters(self) -> list[Parameter]:
        return [parameter for layer in self._layers for parameter in layer._trainable_parameters()]

    @property
    def non_trainable_weights(self) -> list[Array]:
        """The parameters of the frozen layers."""
        return [value for layer in self._layers for value in layer.non_trainable_weights]

    def _activity_losses(self) -> list[Array]:
        return [*super()._activity_losses(), *(v for layer in self._layers for v in layer._activity_losses())]

    def _penalties(self) -> list[Array]:
        return [value for layer in self._layers for value in layer._penalties()]

    def summary(self, print_fn: Callable[[str], object] = print) -> None:
        """Print a table of the layers: name, type, output shape, parameters, work and memory.

        Work is counted in multiply-adds per sample: every tap of every position, as in `gpuconv.plan`, those
        that meet padding or are cropped too; what has no parameters counts as nothing. Memory is that of the
        layer's output, for one sample. What is not known is a question mark.

        Parameters
        ----------
        print_fn : callable, default print
            Is given each line.
        """
        from gpuconv.layers._summary import summary_lines  # a model that only computes needs none

        for line in summary_lines(self, self.layers):
            print_fn(line)

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this model again, as Keras 3 writes them."""
        entries = [_serialized(layer) for layer in self._layers]
        if self._layers and not isinstance(self._layers[0], Input):
            # Keras 3 keeps the input's shape in a layer of its own only.
            shape = entries[0]["config"].pop("batch_input_shape", None)
            if shape is not None:
                entries.insert(0, _serialized(Input(batch_shape=shape, name=f"{self._layers[0].name}_input")))
        config: dict[str, Any] = {"name": self.name, "trainable": self.trainable, "layers": entries}
        if self.built:
            config["build_input_shape"] = self.input_shape
        return config

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], custom_objects: Mapping[str, type[Layer]] | None = None
    ) -> Self:
        """Make a model from what `get_config` returned, here or in Keras.

        Parameters
        ----------
        config : dict
            Nested or not.
        custom_objects : dict of str to Layer, optional
            Layers of your own by the names of their classes.

        Raises
        ------
        NotImplementedError
            If a layer is of a class that is not known here; its name is given.
        ValueError
            If the config is not one of a Sequential.
        """
        if not isinstance(config, Mapping):
            raise TypeError(f"Expected a config, a dictionary. Received {config!r}.")
        if config.get("class_name", "Sequential") != "Sequential":
            raise ValueError(
                f"Expected the config of a Sequential. Received class_name={config['class_name']!r}."
            )
        config = config["config"] if "class_name" in config else config
        if "layers" not in config:
            raise ValueError(f"Expected a config with 'layers'. Received the keys {sorted(config)}.")
        known = {**_known_layers(), **(custom_objects or {})}
        model = cls(name=config.get("name"))
        for entry in config["layers"]:
            if entry["class_name"] not in known:
                raise NotImplementedError(
                    f"Expected layers among {', '.join(sorted(known))}. Received {entry['class_name']!r} "
                    f"(layer {entry.get('config', {}).get('name')!r}). Pass its class in custom_objects."
                )
            model.add(known[entry["class_name"]].from_config(entry["config"]))
        if not config.get("trainable", True):
            model.trainable = False
        if not model.built and config.get("build_input_shape") is not None:
            model.build(config["build_input_shape"])
        return model

    def __repr__(self) -> str:
        return f"Sequential({[layer.name for layer in self._layers]}, name={self.name!r})"

    def _repr_html_(self) -> str:
        from gpuconv.layers._summary import summary_html  # only a notebook needs it

        return summary_html(self, self.layers)


def leaves(layer: Layer) -> list[Layer]:
    """`layer`, or the layers that it is made of."""
    if not isinstance(layer, Sequential):
        return [layer]
    return [leaf for inner in layer.layers for leaf in leaves(inner)]


def _known_layers() -> dict[str, type[Layer]]:
    convolutions = (Conv1D, Conv2D, Conv3D, Conv1DTranspose, Conv2DTranspose, Conv3DTranspose)
    classes: tuple[type[Layer], ...] = (*convolutions, Activation, Dropout, Sequential)
    return {"InputLayer": Input, **{member.__name__: member for member in classes}}


def _serialized(layer: Layer) -> dict[str, Any]:
    return {
        "module": "keras.layers",
        "class_name": "InputLayer" if isinstance(layer, Input) else type(layer).__name__,
        "config": layer.get_config(),
        "registered_name": None,
    }
