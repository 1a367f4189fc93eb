"""What the six convolution layers share: sizes, kernel and bias, and the one op that each calls."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

from gpuconv import activations, constraints, initializers, ops, regularizers
from gpuconv._typing import Array, Shape
from gpuconv.config import standardize_data_format
from gpuconv.geometry import AxisGeometry, as_shape, conv_axes, integer, per_axis, transpose_axes
from gpuconv.layers.base import Layer

if TYPE_CHECKING:
    from gpuconv.explanation import Explanation

__all__ = ["BaseConv", "shape_after"]


class BaseConv(Layer):
    """A layer with a kernel (and a bias) that runs `op` over `ndim` spatial axes."""

    op: ClassVar[Callable[..., Array]]
    ndim: ClassVar[int]
    transposed: ClassVar[bool]
    _shown: ClassVar[tuple[str, ...]] = (
        "filters",
        "kernel_size",
        "strides",
        "padding",
        "dilation_rate",
        "activation",
    )

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        *,
        strides: Any,
        padding: Any,
        data_format: str | None,
        dilation_rate: Any,
        groups: int,
        activation: Any,
        use_bias: bool,
        kernel_initializer: Any,
        bias_initializer: Any,
        kernel_regularizer: Any,
        bias_regularizer: Any,
        kernel_constraint: Any,
        bias_constraint: Any,
        seed: int | None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.filters = integer("filters", filters, 1)
        self.kernel_size = per_axis("kernel_size", kernel_size, self.ndim, 1)
        self.strides = per_axis("strides", strides, self.ndim, 1)
        self.padding = padding.lower() if isinstance(padding, str) else padding
        self.data_format = standardize_data_format(data_format)
        self.dilation_rate = per_axis("dilation_rate", dilation_rate, self.ndim, 1)
        self.groups = integer("groups", groups, 1)
        if self.filters % self.groups:
            raise ValueError(f"Expected groups to divide filters. Received {groups=}, {filters=}.")
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            raise ValueError(
                "Expected strides or dilation_rate above 1, not both, as in Keras. Received "
                f"{strides=}, {dilation_rate=}. gpuconv.{self.op.__name__} takes both."
            )
        self.activation = activations.get(activation)
        self.use_bias = bool(use_bias)
        if seed is not None:
            seed = integer("seed", seed, 0)
        self.kernel_initializer = _initializer(kernel_initializer, "glorot_uniform", seed, 0)
        self.bias_initializer = _initializer(bias_initializer, "zeros", seed, 1)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.kernel_constraint = constraints.get(kernel_constraint)
        self.bias_constraint = constraints.get(bias_constraint)
        # Every remaining setting is refused here rather than at the first call.
        axes = transpose_axes if self.transposed else conv_axes
        axes((None,) * self.ndim, self.kernel_size, **self._sizes)

    @property
    def _sizes(self) -> dict[str, Any]:
        """The settings that decide the output's lengths."""
        return {"strides": self.strides, "padding": self.padding, "dilation_rate": self.dilation_rate}

    @property
    def kernel(self) -> Array:
        """The kernel, once the layer is built."""
        return self._built_parameter("kernel")

    @property
    def bias(self) -> Array | None:
        """The bias, once the layer is built; None without one."""
        return self._built_parameter("bias") if self.use_bias else None

    def _built_parameter(self, name: str) -> Array:
        if name not in self._parameters:
            raise AttributeError(self._unbuilt(f"its {name} is read"))
        return self._parameters[name].value

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Make the kernel and the bias for the channels of `input_shape`."""
        self.add_weight(
            "kernel",
            self._kernel_shape(input_shape),
            self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        if self.use_bias:
            self.add_weight(
                "bias",
                (self.filters,),
                self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )
        super().build(input_shape)

    def _kernel_shape(self, input_shape: Sequence[int | None]) -> tuple[int, ...]:
        shape = as_shape("input_shape", input_shape)
        if len(shape) != self.ndim + 2:
            raise ValueError(
                f"Expected input of {self.ndim + 2} dimensions for layer {self.name!r} with "
                f"data_format={self.data_format!r}. Received input of shape {shape}."
            )
        channels = shape[-1 if self.data_format == "channels_last" else 1]
        if not channels or channels % self.groups:
            raise ValueError(
                f"Expected a known number of channels that groups={self.groups} divides for layer "
                f"{self.name!r} with data_format={self.data_format!r}. Received input of shape {shape}."
            )
        inner = (self.filters // self.groups, channels)
        if not self.transposed:
            inner = (channels // self.groups, self.filters)
        if self.built and tuple(self.kernel.shape[-2:]) != inner:
            raise ValueError(
                f"Expected input of other channels for layer {self.name!r}, whose kernel has the shape "
                f"{tuple(self.kernel.shape)}. Received input of shape {shape}."
            )
        return (*self.kernel_size, *inner)

    def convolution_op(self, inputs: Array, kernel: Array) -> Array:
        """Convolve without bias and activation. Override it to change what `kernel` is or does.

        Source of the definition: ``tf.keras.layers.Conv1DTranspose.convolution_op``.
        """
        return self._run(inputs, kernel)

    def call(self, inputs: Array) -> Array:
        """Compute ``activation(convolution_op(inputs, kernel) + bias)``, in one op."""
        kernel = self.weight("kernel", inputs)
        bias = self.weight("bias", inputs) if self.use_bias else None
        if type(self).convolution_op is BaseConv.convolution_op:
            return self._run(inputs, kernel, bias, activation=self.activation)
        outputs = self.convolution_op(inputs, kernel)
        if bias is not None:
            last = self.data_format == "channels_last"
            outputs = outputs + (bias if last else bias[(slice(None), *(None,) * self.ndim)])
        return self.activation(outputs)

    def call_vjp(self, inputs: Array) -> tuple[Array, Callable[[Array], tuple[Array, dict[str, Array]]]]:
        """Compute the output and its pullback, with `gpuconv.vjp`."""
        if (type(self).convolution_op, type(self).call) != (BaseConv.convolution_op, BaseConv.call):
            return super().call_vjp(inputs)  # it computes something else, and must say what that pulls back
        kernel = self.weight("kernel", inputs)
        bias = self.weight("bias", inputs) if self.use_bias else None
        outputs, pull = ops.vjp(self.op, inputs, kernel, bias, activation=self.activation, **self._options)

        def pullback(dy: Array) -> tuple[Array, dict[str, Array]]:
            dx, dkernel, dbias = pull(dy)
            return dx, {"kernel": dkernel} | ({} if dbias is None else {"bias": dbias})

        return outputs, pullback

    def _run(self, inputs: Array, kernel: Array, bias: Array | None = None, **options: Any) -> Array:
        return self.op(inputs, kernel, bias, **self._options, **options)

    @property
    def _options(self) -> dict[str, Any]:
        """What the op is called with beside arrays and activation."""
        return {**self._sizes, "data_format": self.data_format, "groups": self.groups}

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> Shape:
        """Shape of the output; a None among the samples or lengths stays None."""
        shape = ops.output_shape(
            self.op,
            tuple(input_shape),
            self._kernel_shape(input_shape),
            data_format=self.data_format,
            groups=self.groups,
            **self._sizes,
        )
        return shape_after(self.activation, shape)

    def explain(self, length: int, axis: int = 0) -> Explanation:
        """Which input samples reach which output samples, through which tap, and why there are so many.

        Parameters
        ----------
        length : int
            Input samples along `axis`.
        axis : int, default 0
            Which spatial axis; along each, the others are alike.

        Returns
        -------
        gpuconv.report.Explanation
            To be printed, shown by a notebook or plotted.

        Raises
        ------
        ValueError, TypeError
            If there is no such axis, or the length is no number of at least 1 that the kernel fits.

        Examples
        --------
        >>> from gpuconv.layers import Conv1DTranspose
        >>> Conv1DTranspose(1, 3, 2).explain(10).terms(2)  # y[2] = x[1]·w[0] + x[0]·w[2]
        ((1, 0), (0, 2))
        """
        from gpuconv.explanation import Explanation  # a layer that only computes needs none

        axis = integer("axis", axis, 0)
        if axis >= self.ndim:
            raise ValueError(f"Expected axis to be less than {self.ndim}. Received axis={axis}.")
        lengths: list[int | None] = [None] * self.ndim
        lengths[axis] = integer("length", length, 1)
        axes = transpose_axes if self.transposed else conv_axes
        geometry = cast(AxisGeometry, axes(lengths, self.kernel_size, **self._sizes)[axis])
        extras = self._sizes.get("output_padding")
        return Explanation(
            geometry,
            self.transposed,
            f"{self.name} ({type(self).__name__})",
            self.padding if isinstance(self.padding, str) else "crops",
            None if extras is None else extras[axis],
        )

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this layer again, as Keras 3 writes them."""
        config = {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            **self._sizes,
            "data_format": self.data_format,
            "activation": activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "kernel_initializer": initializers.serialize(self.kernel_initializer),
            "bias_initializer": initializers.serialize(self.bias_initializer),
            "kernel_regularizer": regularizers.serialize(self.kernel_regularizer),
            "bias_regularizer": regularizers.serialize(self.bias_regularizer),
            "activity_regularizer": regularizers.serialize(self.activity_regularizer),
            "kernel_constraint": constraints.serialize(self.kernel_constraint),
            "bias_constraint": constraints.serialize(self.bias_constraint),
        }
        # Keras' transposed layers have no groups yet: their from_config refuses the key.
        if self.groups > 1 or not self.transposed:
            config["groups"] = self.groups
        return config


def shape_after(activation: Callable[[Array], Array], shape: Shape) -> Shape:
    """Shape of what `activation` makes; one from elsewhere is taken to keep it."""
    return activations.output_shape(activation, shape) or shape


def _initializer(identifier: Any, default: str, seed: int | None, offset: int) -> Any:
    """The initializer; one given by name draws from the layer's seed, each parameter from its own."""
    identifier = default if identifier is None else identifier
    initializer: Any = initializers.get(identifier)
    if seed is None or not isinstance(identifier, str) or not hasattr(initializer, "seed"):
        return initializer
    return dataclasses.replace(initializer, seed=seed + offset)
