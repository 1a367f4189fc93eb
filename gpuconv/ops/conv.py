"""The forward convolution, for 1, 2 and 3 spatial axes: the adjoint of the transposed one."""

from __future__ import annotations

from gpuconv._typing import Activation, Array, Padding, PerAxis
from gpuconv.ops._call import call

__all__ = ["conv1d", "conv2d", "conv3d"]


def conv1d(
    x: Array,
    kernel: Array,
    bias: Array | None = None,
    *,
    strides: PerAxis = 1,
    padding: Padding = "valid",
    data_format: str | None = None,
    dilation_rate: PerAxis = 1,
    groups: int = 1,
    activation: Activation = None,
    precision: str = "ieee",
    out: Array | None = None,
) -> Array:
    """1-D convolution, as neural networks mean it: a correlation, the kernel is not flipped.

    ``y[n, i, f] = sum over j, c of x[n, i*s + j*d - left, c] * kernel[j, c, f]``, with stride s and
    dilation d, zeros outside `x`, then the bias, then the activation. With the same kernel array and the
    same crops it is the adjoint of `conv1d_transpose`.

    Parameters
    ----------
    x : array, shape (samples, length, channels)
        Or (samples, channels, length) with ``data_format="channels_first"``. Of any array-API library;
        float16, bfloat16, float32, float64, complex64 or complex128.
    kernel : array, shape (k, channels // groups, filters)
        Of the same library. Keras' layout in both data formats.
    bias : array, shape (filters,), optional
        Added to every output sample.
    strides : int, default 1
        Input samples per output sample.
    padding : {"valid", "same", "same_lower", "causal"}, int or (int, int), default "valid"
        Zeros put around `x`, below. A number pads both ends; a pair is (left, right). Names in any case.
    data_format : {"channels_last", "channels_first"}, optional
        None stands for `gpuconv.config.image_data_format`.
    dilation_rate : int, default 1
        Input samples between two taps.
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
        and `bias`. With e = (k - 1) d + 1:

        =============  ================================  ===========================================
        padding        new_length                        zeros on the left
        =============  ================================  ===========================================
        "valid"        (length - e) // s + 1             0
        "same"         ceil(length / s)                  P // 2, P = max(0, (new_length - 1) s + e
                                                         - length)
        "causal"       (length - 1) // s + 1             e - 1
        l or (l, r)    (length + l + r - e) // s + 1     l
        =============  ================================  ===========================================

        "same_lower" puts an odd zero on the left. A length of 0 makes a length of 0.

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
    conv1d_transpose : its adjoint.

    Notes
    -----
    The numbers are those of ``keras.ops.conv`` and ``torch.nn.functional.conv1d``.

    Examples
    --------
    >>> import numpy as np
    >>> import gpuconv
    >>> x = np.arange(6.0).reshape(1, 6, 1)
    >>> kernel = np.array([1.0, 1.0, 1.0]).reshape(3, 1, 1)
    >>> gpuconv.conv1d(x, kernel).ravel()
    array([ 3.,  6.,  9., 12.])
    >>> gpuconv.conv1d(x, kernel, padding="causal").ravel()
    array([ 0.,  1.,  3.,  6.,  9., 12.])
    """
    return call(
        1,
        x,
        kernel,
        bias,
        transposed=False,
        strides=strides,
        padding=padding,
        data_format=data_format,
        dilation_rate=dilation_rate,
        groups=groups,
        activation=activation,
        precision=precision,
        out=out,
    )


def conv2d(
    x: Array,
    kernel: Array,
    bias: Array | None = None,
    *,
    strides: PerAxis = 1,
    padding: Padding = "valid",
    data_format: str | None = None,
    dilation_rate: PerAxis = 1,
    groups: int = 1,
    activation: Activation = None,
    precision: str = "ieee",
    out: Array | None = None,
) -> Array:
    """2-D convolution, as neural networks mean it: a correlation, the kernel is not flipped.

    Parameters
    ----------
    x : array, shape (samples, height, width, channels)
        Or (samples, channels, height, width) with ``data_format="channels_first"``.
    kernel : array, shape (k_height, k_width, channels // groups, filters)
        Of the same library.
    bias : array, shape (filters,), optional
        Added to every output sample.
    strides, dilation_rate : int or 2 ints
        One for all spatial axes or one for each, as for `conv1d`.
    padding : str, int, 2 ints or 2 (int, int)
        A name for all axes, one for both ends of every axis, one for both ends of each axis, or a
        (left, right) pair for each.
    data_format, groups, activation, precision, out
        As for `conv1d`.

    Returns
    -------
    array, shape (samples, new_height, new_width, filters)
        Each axis has the length that `conv1d` gives it.

    Raises
    ------
    ValueError, TypeError, NotImplementedError
        As `conv1d` does.

    Examples
    --------
    >>> import numpy as np
    >>> import gpuconv
    >>> x, kernel = np.ones((1, 28, 28, 3)), np.ones((5, 5, 3, 16))
    >>> gpuconv.conv2d(x, kernel, strides=2, padding="same").shape
    (1, 14, 14, 16)
    """
    return call(
        2,
        x,
        kernel,
        bias,
        transposed=False,
        strides=strides,
        padding=padding,
        data_format=data_format,
        dilation_rate=dilation_rate,
        groups=groups,
        activation=activation,
        precision=precision,
        out=out,
    )


def conv3d(
    x: Array,
    kernel: Array,
    bias: Array | None = None,
    *,
    strides: PerAxis = 1,
    padding: Padding = "valid",
    data_format: str | None = None,
    dilation_rate: PerAxis = 1,
    groups: int = 1,
    activation: Activation = None,
    precision: str = "ieee",
    out: Array | None = None,
) -> Array:
    """3-D convolution, as neural networks mean it: a correlation, the kernel is not flipped.

    Parameters
    ----------
    x : array, shape (samples, depth, height, width, channels)
        Or (samples, channels, depth, height, width) with ``data_format="channels_first"``.
    kernel : array, shape (k_depth, k_height, k_width, channels // groups, filters)
        Of the same library.
    bias : array, shape (filters,), optional
        Added to every output sample.
    strides, dilation_rate : int or 3 ints
        One for all spatial axes or one for each, as for `conv1d`.
    padding : str, int, 3 ints or 3 (int, int)
        A name for all axes, one for both ends of every axis, one for both ends of each axis, or a
        (left, right) pair for each.
    data_format, groups, activation, precision, out
        As for `conv1d`.

    Returns
    -------
    array, shape (samples, new_depth, new_height, new_width, filters)
        Each axis has the length that `conv1d` gives it.

    Raises
    ------
    ValueError, TypeError, NotImplementedError
        As `conv1d` does.

    Examples
    --------
    >>> import numpy as np
    >>> import gpuconv
    >>> x, kernel = np.ones((1, 8, 16, 16, 1)), np.ones((3, 3, 3, 1, 4))
    >>> gpuconv.conv3d(x, kernel, padding=(0, 1, 1)).shape
    (1, 6, 16, 16, 4)
    """
    return call(
        3,
        x,
        kernel,
        bias,
        transposed=False,
        strides=strides,
        padding=padding,
        data_format=data_format,
        dilation_rate=dilation_rate,
        groups=groups,
        activation=activation,
        precision=precision,
        out=out,
    )
