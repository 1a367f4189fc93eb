"""Shape algebra: what a convolution makes of a shape, and which settings make a wanted length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from gpuconv._typing import Array, Shape
from gpuconv.config import standardize_data_format
from gpuconv.geometry import AxisGeometry, ConvGeometry, as_shape, conv_axes, integer, transpose_axes

__all__ = ["Setting", "geometry_of", "op_of", "options_of", "output_shape", "solve"]

_OPS = {
    f"conv{ndim}d{suffix}": (ndim, suffix == "_transpose")
    for ndim in (1, 2, 3)
    for suffix in ("", "_transpose")
}


# What an op takes when nothing else is said.
_DEFAULTS: dict[str, Any] = {
    "strides": 1,
    "padding": "valid",
    "data_format": None,
    "dilation_rate": 1,
    "groups": 1,
    "activation": None,
    "precision": "ieee",
}
_SETTINGS = ("strides", "padding", "dilation_rate", "output_padding", "output_size")


def output_shape(
    op: str | Callable[..., Array],
    x_shape: Sequence[int | None],
    kernel_shape: Sequence[int],
    *,
    data_format: str | None = None,
    groups: int = 1,
    **settings: Any,
) -> Shape:
    """Shape of what `op` makes, without computing it.

    Parameters
    ----------
    op : callable or str
        One of the six convolutions, such as `gpuconv.conv1d_transpose`, or its name.
    x_shape : sequence of int or None
        Shape of the input; None for a number of samples or a length that is not known.
    kernel_shape : sequence of int
        Shape of the kernel, as `op` takes it.
    data_format : {"channels_last", "channels_first"}, optional
        Layout of the input and the output.
    groups : int, default 1
        As `op` takes it.
    **settings
        ``strides``, ``padding``, ``dilation_rate`` and, for a transposed convolution, ``output_padding``
        and ``output_size``, as `op` takes them.

    Returns
    -------
    tuple of int or None
        None where `x_shape` has None.

    Raises
    ------
    ValueError, TypeError
        As `op` raises for arrays of these shapes.

    Examples
    --------
    >>> import gpuconv
    >>> gpuconv.output_shape(gpuconv.conv1d_transpose, (4, 10, 128), (3, 32, 128), strides=2)
    (4, 21, 32)
    >>> gpuconv.output_shape("conv2d", (None, None, 28, 3), (5, 5, 3, 16), padding="same")
    (None, None, 28, 16)
    """
    name, ndim, transposed = op_of(op)
    known = _SETTINGS if transposed else _SETTINGS[:3]
    if not set(settings) <= set(known):
        raise TypeError(f"Expected settings of {name} among {', '.join(known)}. Received {settings}.")
    channels_last = standardize_data_format(data_format) == "channels_last"
    shape = as_shape("x_shape", x_shape)
    taps, _, filters, _ = _sizes(transposed, ndim, shape, kernel_shape, channels_last, groups)
    lengths = shape[1:-1] if channels_last else shape[2:]
    if transposed:
        axes = transpose_axes(lengths, taps, **settings)
        made = tuple(None if axis is None else axis.out_length for axis in axes)
    else:
        axes = conv_axes(lengths, taps, **settings)
        made = tuple(None if axis is None else axis.in_length for axis in axes)
    return (shape[0], *made, filters) if channels_last else (shape[0], filters, *made)


def op_of(op: str | Callable[..., Array]) -> tuple[str, int, bool]:
    """Name, number of spatial axes and direction of one of the six convolutions, given itself or by name.

    Raises
    ------
    ValueError
        If it is none of them.
    """
    ours = str(getattr(op, "__module__", "")).startswith("gpuconv.ops.")
    name = op.__name__ if callable(op) and ours else op
    if not isinstance(name, str) or name not in _OPS:
        raise ValueError(f"Expected op to be one of {', '.join(_OPS)}. Received op={op!r}.")
    return (name, *_OPS[name])


def options_of(name: str, transposed: bool, options: dict[str, Any]) -> dict[str, Any]:
    """All options of the op called `name` but ``out``: those given, and what it takes for the others.

    Raises
    ------
    TypeError
        If it has no such option.
    """
    defaults = _DEFAULTS | ({"output_padding": None, "output_size": None} if transposed else {})
    if not set(options) <= set(defaults):
        raise TypeError(f"Expected options of {name} among {', '.join(defaults)}. Received {options}.")
    return defaults | options


def geometry_of(
    transposed: bool,
    ndim: int,
    x_shape: Sequence[int],
    kernel_shape: Sequence[int],
    channels_last: bool,
    groups: Any,
    **settings: Any,
) -> ConvGeometry:
    """The geometry that the shapes of two arrays and the settings of an op make."""
    shape = as_shape("x_shape", x_shape)
    taps, channels, filters, count = _sizes(transposed, ndim, shape, kernel_shape, channels_last, groups)
    lengths = shape[1:-1] if channels_last else shape[2:]
    # An array's lengths are known: there is no None among the axes.
    if transposed:
        axes = cast(tuple[AxisGeometry, ...], transpose_axes(lengths, taps, **settings))
        return ConvGeometry(axes, in_channels=channels, filters=filters, groups=count)
    axes = cast(tuple[AxisGeometry, ...], conv_axes(lengths, taps, **settings))
    return ConvGeometry(axes, in_channels=filters, filters=channels, groups=count)


def _sizes(
    transposed: bool,
    ndim: int,
    x_shape: Shape,
    kernel_shape: Sequence[int],
    channels_last: bool,
    groups: Any,
) -> tuple[tuple[int, ...], int, int, int]:
    """Taps of the kernel, input channels, filters and groups, when the two shapes agree."""
    spatial = ("length", "height, width", "depth, height, width")[ndim - 1]
    layout = f"(samples, {spatial}, channels)" if channels_last else f"(samples, channels, {spatial})"
    if len(x_shape) != ndim + 2:
        raise ValueError(f"Expected x of {ndim + 2} dimensions, {layout}. Received x of shape {x_shape}.")
    order = "filters // groups, channels" if transposed else "channels // groups, filters"
    kernel = as_shape("kernel_shape", kernel_shape)
    if len(kernel) != ndim + 2 or not all(kernel):
        raise ValueError(
            f"Expected a kernel of {ndim + 2} dimensions, none of them 0: ({spatial}, {order}). "
            f"Received a kernel of shape {kernel}."
        )
    *taps, first, last = cast(tuple[int, ...], kernel)
    count = integer("groups", groups, 1)
    channels, filters = (last, first * count) if transposed else (first * count, last)
    received = x_shape[-1 if channels_last else 1]
    if received != channels:
        raise ValueError(
            f"Expected x of {channels} channels, as the kernel of shape {kernel} has with groups={count}. "
            f"Received x of shape {x_shape}, read as {layout}."
        )
    if channels % count or filters % count:
        raise ValueError(
            "Expected groups to divide the channels and the filters. "
            f"Received groups={groups!r} for {channels} channels and {filters} filters."
        )
    return tuple(taps), channels, filters, count


@dataclass(frozen=True)
class Setting:
    """One way to come from a length to another, in everyone's words; None where a system has none.

    Attributes
    ----------
    padding, output_padding
        As `gpuconv.conv1d_transpose` takes them.
    keras, pytorch, onnx, matlab : dict or None
        The arguments of ``keras.layers.Conv1DTranspose``, ``torch.nn.ConvTranspose1d``, ONNX
        ``ConvTranspose`` and ``transposedConv1dLayer``. (R keras takes those of Keras.)
    """

    padding: str | int | tuple[int, int]
    output_padding: int | None
    keras: dict[str, Any] | None
    pytorch: dict[str, Any] | None
    onnx: dict[str, Any] | None
    matlab: dict[str, Any] | None


def solve(
    in_length: int, out_length: int, kernel_size: int, strides: int = 1, dilation_rate: int = 1
) -> list[Setting]:
    """List the paddings that make `out_length` samples of `in_length` in a transposed convolution.

    Named paddings first, then equal crops with every output padding that fits, then every unequal
    (left, right) pair. A pair that crops less on the right and has an output padding instead is left out: it
    is the same. Only where samples are appended does a pair need one.

    Parameters
    ----------
    in_length, out_length : int
        Samples before and after.
    kernel_size, strides, dilation_rate : int
        As `gpuconv.conv1d_transpose` takes them.

    Returns
    -------
    list of Setting
        Empty when nothing joins the two lengths.

    Raises
    ------
    ValueError, TypeError
        If a number is not a positive integer.

    Examples
    --------
    >>> import gpuconv
    >>> for way in gpuconv.solve(10, 20, kernel_size=4, strides=2):
    ...     print(way.padding, way.output_padding, way.pytorch, way.matlab)
    same None {'padding': 1} {'Cropping': 'same'}
    same_lower None {'padding': 1} {'Cropping': [1, 1]}
    1 None {'padding': 1} {'Cropping': [1, 1]}
    (0, 2) None None {'Cropping': [0, 2]}
    (2, 0) None None {'Cropping': [2, 0]}
    (3, 0) 1 None None
    """
    length, wanted = integer("in_length", in_length, 1), integer("out_length", out_length, 0)
    k, s = integer("kernel_size", kernel_size, 1), integer("strides", strides, 1)
    d = integer("dilation_rate", dilation_rate, 1)
    full = (length - 1) * s + (k - 1) * d + 1
    found = []
    for padding, output_padding in _candidates(full - wanted, max(s, d)):
        (axis,) = transpose_axes(
            (length,), k, strides=s, padding=padding, output_padding=output_padding, dilation_rate=d
        )
        if axis is not None and axis.out_length == wanted:
            crop = axis.crop_left, axis.crop_right
            found.append(Setting(padding, output_padding, **_dialects(padding, output_padding, crop, s, d)))
    return found


def _candidates(excess: int, most: int) -> Iterator[tuple[str | int | tuple[int, int], int | None]]:
    """Every (padding, output_padding) that can cut `excess` samples, and some named ones that cannot."""
    for name in ("valid", "same", "same_lower"):
        yield from ((name, extra) for extra in (None, *range(most)))
    for extra in range(most):
        if excess + extra >= 0 and (excess + extra) % 2 == 0:
            yield (excess + extra) // 2, extra or None
    for left in range(max(0, excess) + most):
        right = excess - left
        if right >= 0 and left != right:
            yield (left, right), None
        elif left and -most < right < 0:
            yield (left, 0), -right


def _dialects(
    padding: str | int | tuple[int, int], extra: int | None, crop: tuple[int, int], s: int, d: int
) -> dict[str, dict[str, Any] | None]:
    left, right = crop
    keras = pytorch = onnx = matlab = None
    if padding in ("valid", "same") and (s == 1 or d == 1) and (extra is None or extra < s):
        keras = {"padding": padding} if extra is None else {"padding": padding, "output_padding": extra}
    # PyTorch crops both sides alike, then its output padding gives back on the right.
    back = left - right
    if 0 <= back < max(s, d):
        pytorch = {"padding": left} if back == 0 else {"padding": left, "output_padding": back}
    # ONNX has crops of any size; its output padding is only needed where the right one would be negative.
    if right >= 0:
        onnx = {"pads": [left, right]}
    elif -right < max(s, d):
        onnx = {"pads": [left, 0], "output_padding": [-right]}
    if d == 1 and right >= 0:
        matlab = {"Cropping": "same" if padding == "same" and extra is None else [left, right]}
    return {"keras": keras, "pytorch": pytorch, "onnx": onnx, "matlab": matlab}
