"""The transposed convolution layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpuconv import ops
from gpuconv._typing import Activation, Padding, PerAxis
from gpuconv.geometry import per_axis
from gpuconv.layers.base_conv import BaseConv

__all__ = ["Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"]


class _ConvTranspose(BaseConv):
    transposed = True
    _shown = ("filters", "kernel_size", "strides", "padding", "dilation_rate", "output_padding", "activation")

    def __init__(
        self,
        filters: int,
        kernel_size: PerAxis,
        strides: PerAxis = 1,
        padding: Padding = "valid",
        output_padding: PerAxis | None = None,
        data_format: str | None = None,
        dilation_rate: PerAxis = 1,
        activation: Activation = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        *,
        groups: int = 1,
        seed: int | None = None,
        input_shape: Sequence[int | None] | None = None,
        batch_input_shape: Sequence[int | None] | None = None,
        batch_size: int | None = None,
        dtype: Any = None,
        name: str | None = None,
        trainable: bool = True,
        weights: Sequence[Any] | None = None,
    ) -> None:
        self.output_padding = None
        if output_padding is not None:
            self.output_padding = per_axis("output_padding", output_padding, self.ndim, 0)
        super().__init__(
            filters,
            kernel_size,
            strides=strides,
            padding=padding,
            data_format=data_format,
            dilation_rate=dilation_rate,
            groups=groups,
            activation=activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            activity_regularizer=activity_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
            seed=seed,
            input_shape=input_shape,
            batch_input_shape=batch_input_shape,
            batch_size=batch_size,
            dtype=dtype,
            name=name,
            trainable=trainable,
            weights=weights,
        )
        extras = self.output_padding or (0,) * self.ndim
        if any(extra >= stride for extra, stride in zip(extras, self.strides, strict=True)):
            raise ValueError(
                "Expected output_padding to be less than strides, as in Keras. Received "
                f"{output_padding=}, {strides=}."
            )

    @property
    def _sizes(self) -> dict[str, Any]:
        return {**super()._sizes, "output_padding": self.output_padding}


class Conv1DTranspose(_ConvTranspose):
    """1-D transposed convolution: (samples, length, channels) to (samples, ..., filters).

    Source of the definition: ``keras.layers.Conv1DTranspose``. The output's lengths are those that
    `gpuconv.conv1d_transpose` documents.

    Parameters
    ----------
    filters : int
        Channels of the output.
    kernel_size : int or tuple of 1 int
        Taps of the kernel.
    strides : int or tuple of 1 int, default 1
        Output samples per input sample. Above 1 it excludes a `dilation_rate` above 1.
    padding : {"valid", "same", "same_lower"} or crops, default "valid"
        As in `gpuconv.conv1d_transpose`; Keras knows the first two. In any case.
    output_padding : int or tuple of 1 int, optional
        Samples added on the right; less than the stride. ``0`` is not None.
    data_format : {"channels_last", "channels_first"}, optional
        None stands for `gpuconv.config.image_data_format`.
    dilation_rate : int or tuple of 1 int, default 1
        Output samples between two taps.
    activation : str, dict, callable or None
        Of `gpuconv.activations`, applied after the bias.
    use_bias : bool, default True
        Whether there is a bias.
    kernel_initializer, bias_initializer : str, dict, array, callable or None
        Of `gpuconv.initializers`. None stands for the default.
    kernel_regularizer, bias_regularizer, activity_regularizer : str, dict, callable or None
        Of `gpuconv.regularizers`: penalties on the parameters and on the output, in `losses`.
    kernel_constraint, bias_constraint : str, dict, callable or None
        Of `gpuconv.constraints`: applied after each update in training, never in a forward pass.
    groups : int, default 1
        Channels and filters are split into so many groups that do not mix.
    seed : int, optional
        From which initializers given by name draw.
    input_shape, batch_input_shape, batch_size, dtype, name, trainable, weights
        As in `gpuconv.layers.Layer`.

    Raises
    ------
    ValueError, TypeError
        For an argument that does not fit, when the layer is made: "causal" padding, an output padding
        that is not less than the stride, strides and dilation both above 1, ...

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.layers import Conv1DTranspose
    >>> x = np.random.default_rng(0).random((4, 10, 128))
    >>> y = Conv1DTranspose(32, 3, 2, activation="relu")(x)
    >>> print(y.shape)
    (4, 21, 32)
    """

    ndim = 1
    op = staticmethod(ops.conv1d_transpose)


class Conv2DTranspose(_ConvTranspose):
    """2-D transposed convolution: (samples, height, width, channels) to (samples, ..., filters).

    Source of the definition: ``keras.layers.Conv2DTranspose``. The output's lengths are those that
    `gpuconv.conv2d_transpose` documents.

    Parameters
    ----------
    filters : int
        Channels of the output.
    kernel_size, strides, output_padding, dilation_rate : int or tuple of 2 ints
        One for all spatial axes or one for each, as in `Conv1DTranspose`.
    padding : str, int, 2 ints or 2 (int, int)
        As in `gpuconv.conv2d_transpose`.
    **options
        All that `Conv1DTranspose` takes, in its order.

    Raises
    ------
    ValueError, TypeError
        For an argument that does not fit, when the layer is made: "causal" padding, an output padding
        that is not less than the stride, strides and dilation both above 1, ...

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.layers import Conv2DTranspose
    >>> Conv2DTranspose(32, 2, 2, activation="relu")(np.zeros((4, 10, 8, 128))).shape
    (4, 20, 16, 32)
    """

    ndim = 2
    op = staticmethod(ops.conv2d_transpose)


class Conv3DTranspose(_ConvTranspose):
    """3-D transposed convolution: (samples, depth, height, width, channels) to (samples, ..., filters).

    Source of the definition: ``keras.layers.Conv3DTranspose``. The output's lengths are those that
    `gpuconv.conv3d_transpose` documents.

    Parameters
    ----------
    filters : int
        Channels of the output.
    kernel_size, strides, output_padding, dilation_rate : int or tuple of 3 ints
        One for all spatial axes or one for each, as in `Conv1DTranspose`.
    padding : str, int, 3 ints or 3 (int, int)
        As in `gpuconv.conv3d_transpose`.
    **options
        All that `Conv1DTranspose` takes, in its order.

    Raises
    ------
    ValueError, TypeError
        For an argument that does not fit, when the layer is made: "causal" padding, an output padding
        that is not less than the stride, strides and dilation both above 1, ...

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.layers import Conv3DTranspose
    >>> Conv3DTranspose(32, 2, 2, activation="relu")(np.zeros((2, 4, 5, 4, 16))).shape
    (2, 8, 10, 8, 32)
    """

    ndim = 3
    op = staticmethod(ops.conv3d_transpose)
