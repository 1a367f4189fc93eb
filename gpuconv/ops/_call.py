"""What every convolution does: check everything, build the geometry, pick the backend, run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from gpuconv._typing import Activation, Array, Namespace, Shape
from gpuconv.config import standardize_data_format
from gpuconv.namespace import (
    DTYPES,
    array_namespace,
    check_writeable,
    device_of,
    dtype_name,
    is_numpy_array,
)
from gpuconv.ops._select import backend_of
from gpuconv.ops.shapes import geometry_of

__all__ = ["call"]

_Function: TypeAlias = Callable[[Array], Array]


def call(
    ndim: int,
    x: Array,
    kernel: Array,
    bias: Array | None,
    *,
    transposed: bool,
    data_format: str | None,
    groups: int,
    activation: Activation,
    precision: str,
    out: Array | None,
    **settings: Any,
) -> Array:
    """Run a convolution over `ndim` spatial axes; `settings` are the sizes that `geometry_of` takes."""
    given = {"x": x, "kernel": kernel, **({} if bias is None else {"bias": bias})}
    arrays = given if out is None else {**given, "out": out}
    xp = array_namespace(**arrays)
    channels_last = standardize_data_format(data_format) == "channels_last"
    if precision not in ("ieee", "tf32"):
        raise ValueError(f"Expected precision to be 'ieee' or 'tf32'. Received precision={precision!r}.")
    dtype = _result_dtype(xp, given)
    geometry = geometry_of(transposed, ndim, x.shape, kernel.shape, channels_last, groups, **settings)
    shape = geometry.result_shape(x.shape[0], transposed=transposed, channels_last=channels_last)
    filters = shape[-1 if channels_last else 1]
    if bias is not None and tuple(bias.shape) != (filters,):
        raise ValueError(f"Expected bias of shape ({filters},). Received bias of shape {tuple(bias.shape)}.")
    _check_devices(arrays)
    fused, whole, made = _resolve(activation, dtype, shape)
    if out is not None:
        check_writeable("out", out)
        if made is not None:
            _check_out(out, made, dtype)
    backend = backend_of(x)
    run = backend.conv_transpose if transposed else backend.conv
    how = {"channels_last": channels_last, "dtype": dtype, "precision": precision}
    if whole is None:
        return run(geometry, x, kernel, bias, fused, out=out, **how)
    result = whole(run(geometry, x, kernel, bias, None, **how))
    if out is None:
        return result
    array_namespace(**{"out": out, "the activation's result": result})
    _check_out(out, result.shape, dtype_name(result.dtype))
    out[...] = result
    return out


def _result_dtype(xp: Namespace, given: dict[str, Array]) -> str:
    for name, array in given.items():
        received = dtype_name(array.dtype)
        if received not in DTYPES:
            raise TypeError(
                f"Expected {name} of dtype {', '.join(DTYPES)}. Received {name} of {received}. "
                "Cast it first, for example to float32."
            )
    try:
        return dtype_name(xp.result_type(*(array.dtype for array in given.values())))
    except TypeError as error:
        received = ", ".join(f"{name} of {dtype_name(array.dtype)}" for name, array in given.items())
        raise TypeError(f"Expected dtypes that promote to one. Received {received}. Cast one.") from error


def _resolve(
    activation: Activation, dtype: str, shape: Shape
) -> tuple[_Function | None, _Function | None, Shape | None]:
    """The activation as one that a backend may apply block by block, or else as one for the whole result.

    Softmax and the like need whole axes; glu and the user's own may even change the shape. Last comes the
    shape of what the activation makes, None where only calling it can tell.
    """
    if activation is None:
        return None, None, shape
    from gpuconv import activations  # not read where there is none to apply

    function = activations.get(activation)
    if dtype.startswith("complex") and not activations.supports_complex(function):
        raise TypeError(
            f"Expected an activation that complex numbers have. Received activation={activation!r} for "
            f"{dtype}. Apply it to the real and imaginary parts, or pass a callable of your own."
        )
    if function is activations.linear:
        return None, None, shape
    if activations.is_elementwise(function):
        return function, None, shape
    return None, function, activations.output_shape(function, shape)


def _check_devices(given: dict[str, Array]) -> None:
    if is_numpy_array(given["x"]):
        return
    devices = {name: device_of(array) for name, array in given.items()}
    # An array that is being traced is on no device yet.
    if len({device for device in devices.values() if device is not None}) > 1:
        received = ", ".join(f"{name} on {device}" for name, device in devices.items())
        raise ValueError(
            f"Expected arrays on one device. Received {received}. "
            "Move them: nothing is copied between devices unasked."
        )


def _check_out(out: Array, shape: Shape, dtype: str) -> None:
    if tuple(out.shape) != tuple(shape):
        raise ValueError(f"Expected out of shape {tuple(shape)}. Received out of shape {tuple(out.shape)}.")
    if dtype_name(out.dtype) != dtype:
        raise TypeError(f"Expected out of dtype {dtype}. Received out of {dtype_name(out.dtype)}.")
