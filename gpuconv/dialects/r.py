"""R keras' words: `layer_conv_1d_transpose` with its arguments, composing as R composes.

NULL is None, TRUE is True, ``list(NULL, 32)`` is ``(None, 32)``; R's numbers are doubles, so that 3.0 is
an integer.

Source of the definitions: the reference of R's keras package.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpuconv._typing import Activation, Array
from gpuconv.layers import Conv1DTranspose, Layer, Sequential
from gpuconv.namespace import library

__all__ = ["keras_model_sequential", "layer_conv_1d_transpose"]


def keras_model_sequential(layers: Sequence[Layer] | None = None, name: str | None = None) -> Sequential:
    """Make a model of layers one after another.

    Parameters
    ----------
    layers : sequence of Layer, optional
        More can be added.
    name : str, optional
        Made up when not given.

    Returns
    -------
    Sequential

    Raises
    ------
    TypeError, ValueError
        As `gpuconv.layers.Sequential` does.

    Examples
    --------
    >>> from gpuconv.dialects import r
    >>> model = r.keras_model_sequential(name="upsampler")
    >>> model = r.layer_conv_1d_transpose(model, filters=8, kernel_size=4, strides=2, input_shape=(128, 3))
    >>> model.output_shape
    (None, 258, 8)
    """
    return Sequential(layers, name)


def layer_conv_1d_transpose(
    object: Sequential | Array | None = None,  # noqa: A002, R's name
    filters: Any = None,
    kernel_size: Any = None,
    strides: Any = 1,
    padding: str = "valid",
    output_padding: Any = None,
    data_format: str | None = None,
    dilation_rate: Any = 1,
    activation: Activation = None,
    use_bias: bool = True,
    kernel_initializer: Any = "glorot_uniform",
    bias_initializer: Any = "zeros",
    kernel_regularizer: Any = None,
    bias_regularizer: Any = None,
    activity_regularizer: Any = None,
    kernel_constraint: Any = None,
    bias_constraint: Any = None,
    input_shape: Any = None,
    batch_input_shape: Any = None,
    batch_size: Any = None,
    dtype: str | None = None,
    name: str | None = None,
    trainable: bool | None = None,
    weights: Sequence[Any] | None = None,
) -> Any:
    """Transposed 1-D convolution, given to what it is composed with.

    Parameters
    ----------
    object : None, Sequential or array
        What to compose the layer with.
    filters, kernel_size, strides, padding, output_padding, data_format, dilation_rate
        As `gpuconv.layers.Conv1DTranspose` takes them, doubles without a fraction too.
    activation, use_bias, kernel_initializer, bias_initializer
        Likewise.
    kernel_regularizer, bias_regularizer, activity_regularizer, kernel_constraint, bias_constraint
        Likewise; a bare function will do.
    input_shape, batch_input_shape : sequence of int or None, optional
        Shape of the input without and with the samples, for the first layer of a model. A number alone is
        a shape of one length.
    batch_size : int, optional
        The number of samples that goes before `input_shape`.
    dtype : str, optional
        ``"float32"`` by default. Not an integer type: a convolution of integers would not train.
    name : str, optional
        Made up when not given.
    trainable : bool, optional
        None is True.
    weights : sequence of arrays, optional
        The kernel (kernel_size, filters, channels) and the bias (filters,).

    Returns
    -------
    Conv1DTranspose, Sequential or array
        For no `object` the layer; for a model that model, the layer added; for an array the output.

    Raises
    ------
    TypeError
        If `object` is something else, or `filters` or `kernel_size` is missing.
    ValueError
        As `gpuconv.layers.Conv1DTranspose` does.

    Examples
    --------
    >>> import numpy as np
    >>> from gpuconv.dialects import r
    >>> r.layer_conv_1d_transpose(np.ones((4, 10, 128)), 32.0, 3.0, strides=2.0).shape
    (4, 21, 32)
    >>> r.layer_conv_1d_transpose(filters=32, kernel_size=3, name="up")
    Conv1DTranspose(filters=32, kernel_size=(3,), strides=(1,), padding='valid', dilation_rate=(1,), \
output_padding=None, activation=linear, name='up')
    """
    if object is not None and not isinstance(object, Sequential):
        _check_tensor(object)
    for argument, value in (("filters", filters), ("kernel_size", kernel_size)):
        if value is None:
            raise TypeError(f"Expected {argument}, which has no default. Received {argument}=None (NULL).")
    layer = Conv1DTranspose(
        filters,
        kernel_size,
        strides,
        padding,
        output_padding,
        data_format,
        dilation_rate,
        activation,
        use_bias,
        kernel_initializer,
        bias_initializer,
        kernel_regularizer,
        bias_regularizer,
        activity_regularizer,
        kernel_constraint,
        bias_constraint,
        input_shape=_as_shape(input_shape),
        batch_input_shape=_as_shape(batch_input_shape),
        batch_size=batch_size,
        dtype=dtype,
        name=name,
        trainable=True if trainable is None else trainable,
        weights=weights,
    )
    if object is None:
        return layer
    if isinstance(object, Sequential):
        object.add(layer)
        return object
    return layer(object)


def _check_tensor(given: Any) -> None:
    try:
        library(given)
    except TypeError as error:
        raise TypeError(
            f"Expected object to be None, a Sequential or an array. {error} In R the layer's other arguments "
            "follow the object: name them, filters=32, where there is none."
        ) from None


def _as_shape(value: Any) -> Any:
    """A vector of R: a number alone is one of length 1."""
    return (value,) if isinstance(value, int | float) else value
