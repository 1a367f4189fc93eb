"""The transposed convolution, for 1, 2 and 3 spatial axes."""

from __future__ import annotations

from gpuconv._typing import Activation, Array, Padding, PerAxis
from gpuconv.ops._call import call

__all__ = ["conv1d_transpose", "conv2d_transpose", "conv3d_transpose"]


def conv1d_transpose(
    x: Array,
    kernel: Array,
    bias: Array | None = None,
    *,
    strides: PerAxis = 1,
    padding: Padding = "valid",
    output_padding: PerAxis | None = None,
    output_size: PerAxis | None = None,
    data_format: str | None = None,
    dilation_rate: PerAxis = 1,
    groups: int = 1,
    activation: Activation = None,
    precision: str = "ieee",
    out: Array | None = None,
) -> Array:
    """1-D transposed convolution: scatter every input sample, weighted by the kernel.

    ``full[n, i*s + j*d, f] += sum over c of x[n, i, c] * kernel[j, f, c]``, with stride s and dilation d,
    cropped as `padding` says, then the bias, then the activation. The kernel is not flipped.

    Parameters
    ----------
    x : array, shape (samples, length, channels)
        Or (samples, channels, length) with ``data_format="channels_first"``. Of any array-API library;
        float16, bfloat16, float32, float64, complex64 or complex128.
    kernel : array, shape (k, filters // groups, channels)
        Of the same library. Keras' layout in both data formats.
    bias : array, shape (filters,), optional
        Added to every output sample, those that padding appends too.
    strides : int, default 1
        Output samples per input sample.
    padding : {"valid", "same", "same_lower"}, int or (int, int), default "valid"
        What is cropped, below. A number crops both ends; a pair is (left, right). Names in any case.
    output_padding : int, optional
        Samples added on the right; less than the stride or the dilation. ``0`` is not None: see below.
    output_size : int, optional
        Wanted output length, in place of `output_padding`: one of those that a forward convolution with
        the same settings takes back to `length`.
    data_format : {"channels_last", "channels_first"}, optional
        None stands for `gpuconv.config.image_data_format`.
    dilation_rate : int, default 1
        Output samples between two taps. May go with a stride.
    groups : int, default 1
        Channels and filters are split into so many groups that do not mix.
    activation : str, callable or None
        A name of `gpuconv.activations` or a function of the result.
    precision : {"ieee", "tf32"}, default "ieee"
        "tf32" permits a GPU to round float32 factors to TF32; elsewhere it changes nothing.
    out : array, optional
        Written and returned: the shape and dtype of the result. Untouched when an error is raised.

    Returns
    -------
    array, shape (samples, new_length, filters)
        Of the library, device and layout of `x`; the dtype is the promotion of those of `x`, `kernel`
        and `bias`. Half types are summed in float32. With e = (k - 1) d + 1 and N = (length - 1) s + e:

        ====================================  ============================  ==================
        padding                               new_length                    left crop
        ====================================  ============================  ==================
        "valid"                               (length - 1) s + max(e, s)    0
        "valid", output_padding=p             N + p                         0
        "same"                                length * s                    max(0, T // 2)
        "same", output_padding=p              (length - 1) s + e % 2 + p    max(0, T // 2)
        l or (l, r)                           N - l - r + p                 l
        ====================================  ============================  ==================

        T = N - new_length is what is cropped in all; "same_lower" crops an odd sample on the left. A
        length of 0 makes a length of 0.

    Raises
    ------
    ValueError
        For a value or a shape that does not fit, naming what was received.
    TypeError
        For integers, for arrays of two libraries, for something that is no array or no number.
    NotImplementedError
        For ``out=`` of a library whose arrays cannot be written.

    See Also
    --------
    conv1d : the forward convolution, its adjoint.
    gpuconv.output_shape : the shape without the computation.
    gpuconv.layers.Conv1DTranspose : the layer.

    Notes
    -----
    The numbers are those of ``keras.ops.conv_transpose`` (JAX backend), ``torch.nn.functional.
    conv_transpose1d`` and ONNX ``ConvTranspose``; the same arrays give the same bits. Beyond its ends `x` is
    zeros, and those times an infinity or a NaN of the kernel may be a NaN: not every way of computing
    multiplies them.

    Examples
    --------
    >>> import numpy as np
    >>> import gpuconv
    >>> x = np.array([1.0, 2.0, 3.0]).reshape(1, 3, 1)
    >>> kernel = np.array([1.0, 10.0, 100.0]).reshape(3, 1, 1)
    >>> gpuconv.conv1d_transpose(x, kernel, strides=2).ravel()
    array([  1.,  10., 102.,  20., 203.,  30., 300.])
    >>> gpuconv.conv1d_transpose(x, kernel, strides=2, padding="same").ravel()
    array([  1.,  10., 102.,  20., 203.,  30.])
    """
    return call(
        1,
        x,
        kernel,
        bias,
        transposed=True,
        strides=strides,
        padding=padding,
        output_padding=output_padding,
        output_size=output_size,
        data_format=data_format,
        dilation_rate=dilation_rate,
        groups=groups,
        activation=activation,
        precision=precision,
        out=out,
    )


def conv2d_transpose(
    x: Array,
    kernel: Array,
    bias: Array | None = None,
    *,
    strides: PerAxis = 1,
    padding: Padding = "valid",
    output_padding: PerAxis | None = None,
    output_size: PerAxis | None = None,
    data_format: str | None = None,
    dilation_rate: PerAxis = 1,
    groups: int = 1,
    activation: Activation = None,
    precision: str = "ieee",
    out: Array | None = None,
) -> Array:
    """2-D transposed convolution: scatter every input sample, weighted by the kernel.

    Parameters
    ----------
    x : array, shape (samples, height, width, channels)
        Or (samples, channels, height, width) with ``data_format="channels_first"``.
    kernel : array, shape (k_height, k_width, filters // groups, channels)
        Of the same library.
    bias : array, shape (filters,), optional
        Added to every output sample.
    strides, output_padding, output_size, dilation_rate : int or 2 ints
        One for all spatial axes or one for each, as for `conv1d_transpose`.
    padding : str, int, 2 ints or 2 (int, int)
        A name for all axes, one crop for both ends of every axis, one for both ends of each axis, or a
        (left, right) pair for each.
    data_format, groups, activation, precision, out
        As for `conv1d_transpose`.

    Returns
    -------
    array, shape (samples, new_height, new_width, filters)
        Each axis has the length that `conv1d_transpose` gives it.

    Raises
    ------
    ValueError, TypeError, NotImplementedError
        As `conv1d_transpose` does.

    Examples
    --------
    >>> import numpy as np
    >>> import gpuconv
    >>> x, kernel = np.ones((1, 7, 7, 16)), np.ones((4, 4, 8, 16))
    >>> gpuconv.conv2d_transpose(x, kernel, strides=2, padding="same").shape
    (1, 14, 14, 8)
    """
    return call(
        2,
        x,
        kernel,
        bias,
        transposed=True,
        strides=strides,
        padding=padding,
        output_padding=output_padding,
        output_size=output_size,
        data_format=data_format,
        dilation_rate=dilation_rate,
        groups=groups,
        activation=activation,
        precision=precision,
        out=out,
    )


def conv3d_transpose(
    x: Array,
    kernel: Array,
    bias: Array | None = None,
    *,
    strides: PerAxis = 1,
    padding: Padding = "valid",
    output_padding: PerAxis | None = None,
    output_size: PerAxis | None = None,
    data_format: str | None = None,
    dilation_rate: PerAxis = 1,
    groups: int = 1,
    activation: Activation = None,
    precision: str = "ieee",
    out: Array | None = None,
) -> Array:
    """3-D transposed convolution: scatter every input sample, weighted by the kernel.

    Parameters
    ----------
    x : array, shape (samples, depth, height, width, channels)
        Or (samples, channels, depth, height, width) with ``data_format="channels_first"``.
    kernel : array, shape (k_depth, k_height, k_width, filters // groups, channels)
        Of the same library.
    bias : array, shape (filters,), optional
        Added to every output sample.
    strides, output_padding, output_size, dilation_rate : int or 3 ints
        One for all spatial axes or one for each, as for `conv1d_transpose`.
    padding : str, int, 3 ints or 3 (int, int)
        A name for all axes, one crop for both ends of every axis, one for both ends of each axis, or a
        (left, right) pair for each.
    data_format, groups, activation, precision, out
        As for `conv1d_transpose`.

    Returns
    -------
    array, shape (samples, new_depth, new_height, new_width, filters)
        Each axis has the length that `conv1d_transpose` gives it.

    Raises
    ------
    ValueError, TypeError, NotImplementedError
        As `conv1d_transpose` does.

    Examples
    --------
    >>> import numpy as np
    >>> import gpuconv
    >>> x, kernel = np.ones((1, 2, 4, 4, 16)), np.ones((1, 3, 3, 8, 16))
    >>> gpuconv.conv3d_transpose(x, kernel, strides=(1, 2, 2)).shape
    (1, 2, 9, 9, 8)
    """
    return call(
        3,
        x,
        kernel,
        bias,
        transposed=True,
        strides=strides,
        padding=padding,
        output_padding=output_padding,
        output_size=output_size,
        data_format=data_format,
        dilation_rate=dilation_rate,
        groups=groups,
        activation=activation,
        precision=precision,
        out=out,
    )
