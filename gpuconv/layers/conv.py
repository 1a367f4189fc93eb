"""The forward convolution layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpuconv import ops
from gpuconv._typing import Activation, Padding, PerAxis
from gpuconv.layers.base_conv import BaseConv

__all__ = ["Conv1D", "Conv2D", "Conv3D"]


class _Conv(BaseConv):
    transposed = False

    def __init__(
        self,
        filters: int,
        kernel_size: PerAxis,
        strides: PerAxis = 1,
        padding: Padding = "valid",
        data_format: str | None = None,
        dilation_rate: PerAxis = 1,
        groups: int = 1,
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
        seed: int | None = None,
        input_shape: Sequence[int | None] | None = None,
        batch_input_shape: Sequence[int | None] | None = None,
        batch_size: int | None = None,
        dtype: Any = None,
        name: str | None = None,
        trainable: bool = True,
        weights: Sequence[Any] | None = None,
    ) -> None:
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


class Conv1D(_Conv):
    """1-D convolution: (samples, length, channels) to (samples, ..., filters).

    Source of the definition: ``keras.layers.Conv1D``. The output's lengths are those that
    `gpuconv.conv1d` documents.

    Parameters
    ----------
    filters : int
        Channels of the output.
    kernel_size : int or tuple of 1 int
        Taps of the kernel.
    strides : int or tuple of 1 int, default 1
        Input samples per output sample. Above 1 it excludes a `dilation_rate` above 1.
    padding : {"valid", "same", "same_lower", "causal"} or zeros, default "valid"
        As in `gpuconv.conv1d`. In any case.
    data_format : {"channels_last", "channels_first"}, optional
        None stands for `gpuconv.config.image_data_format`.
    dilation_rate : int or tuple of 1 int, default 1
        Input samples between two taps.
    groups : int, default 1
        Channels and filters are split into so many groups that do not mix.
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
    seed : int, optional
        From which initializers given by name draw.
    input_shape, batch_input_shape, batch_size, dtype, name, trainable, weights
        As in `gpuconv.layers.Layer`.

    Raises
    ------
    ValueError, TypeError
        For an argument that does not fit, when the layer is made.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.layers import Conv1D
    >>> Conv1D(32, 3, padding="causal", activation="relu")(np.zeros((4, 10, 128))).shape
    (4, 10, 32)
    """

    ndim = 1
    op = staticmethod(ops.conv1d)


class Conv2D(_Conv):
    """2-D convolution: (samples, height, width, channels) to (samples, ..., filters).

    Source of the definition: ``keras.layers.Conv2D``. The output's lengths are those that
    `gpuconv.conv2d` documents.

    Parameters
    ----------
    filters : int
        Channels of the output.
    kernel_size, strides, dilation_rate : int or tuple of 2 ints
        One for all spatial axes or one for each, as in `Conv1D`.
    padding : str, int, 2 ints or 2 (int, int)
        As in `gpuconv.conv2d`.
    **options
        All that `Conv1D` takes, in its order.

    Raises
    ------
    ValueError, TypeError
        For an argument that does not fit, when the layer is made.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.layers import Conv2D
    >>> Conv2D(2, 3, activation="relu")(np.zeros((4, 10, 10, 128))).shape
    (4, 8, 8, 2)
    """

    ndim = 2
    op = staticmethod(ops.conv2d)


class Conv3D(_Conv):
    """3-D convolution: (samples, depth, height, width, channels) to (samples, ..., filters).

    Source of the definition: ``keras.layers.Conv3D``. The output's lengths are those that
    `gpuconv.conv3d` documents.

    Parameters
    ----------
    filters : int
        Channels of the output.
    kernel_size, strides, dilation_rate : int or tuple of 3 ints
        One for all spatial axes or one for each, as in `Conv1D`.
    padding : str, int, 3 ints or 3 (int, int)
        As in `gpuconv.conv3d`.
    **options
        All that `Conv1D` takes, in its order.

    Raises
    ------
    ValueError, TypeError
        For an argument that does not fit, when the layer is made.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.layers import Conv3D
    >>> Conv3D(32, 3, activation="relu")(np.zeros((4, 10, 10, 10, 16))).shape
    (4, 8, 8, 8, 32)
    """

    ndim = 3
    op = staticmethod(ops.conv3d)
