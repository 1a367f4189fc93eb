"""What every convolution does: check everything, build the geometry, pick the backend, run."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from gpuconv._typing import Activation, Array, Namespace, Shape
from gpuconv.config import standardize_data_format
from gpuconv.geometry import ConvGeometry
from gpuconv.namespace import (
    DTYPES,
    array_namespace,
    check_devices,
    check_writeable,
    dtype_name,
    is_numpy_array,
    own_namespace,
)
from gpuconv.ops._select import backend_of
from gpuconv.ops.shapes import geometry_of

__all__ = ["Job", "call", "check", "check_call", "check_out", "made", "run"]

_Function: TypeAlias = Callable[[Array], Array]


class Job(NamedTuple):
    """A convolution that has been checked, without its arrays; `dtype` is the result's.

    A backend may apply `fused` block by block; `whole` needs the whole result, and may change its shape.
    """

    geometry: ConvGeometry
    transposed: bool
    channels_last: bool
    dtype: str
    precision: str
    fused: _Function | None
    whole: _Function | None

    def shape(self, samples: int) -> tuple[int, ...]:
        """Shape before the activation."""
        return self.geometry.result_shape(
            samples, transposed=self.transposed, channels_last=self.channels_last
        )


def call(
    ndim: int, x: Array, kernel: Array, bias: Array | None, *, out: Array | None, **options: Any
) -> Array:
    """Run a convolution over `ndim` spatial axes; `options` are those of `check`."""
    job = check_call(ndim, x, kernel, bias, out, **options)
    return run(job, x, kernel, bias, out)


def check_call(
    ndim: int, x: Array, kernel: Array, bias: Array | None, out: Array | None = None, **options: Any
) -> Job:
    """Check all of a call; `options` are those of `check`."""
    given = {"x": x, "kernel": kernel, **({} if bias is None else {"bias": bias})}
    arrays = given if out is None else {**given, "out": out}
    xp = own_namespace(**arrays)
    shapes = tuple([tuple(array.shape) for array in given.values()])
    dtypes = tuple([array.dtype for array in given.values()])
    options["data_format"] = standardize_data_format(options["data_format"])
    if is_numpy_array(x) and all(map(_is_plain, options.values())):
        job = _check_once(ndim, shapes, dtypes, **options)
    else:
        job = _check_shapes(xp, ndim, shapes, dtypes, **options)
        check_devices(arrays)
    if out is not None:
        check_out(job, x.shape[0], out)
    return job


def _is_plain(option: Any) -> bool:
    """Whether what is equal to `option`, and of its type, is the same: (1,) is equal to (True,)."""
    if type(option) is tuple:
        return all(type(entry) is int or (type(entry) is tuple and _is_plain(entry)) for entry in option)
    return option is None or type(option) in (int, bool, str)


_Sizes: TypeAlias = tuple[tuple[int, ...], ...]


@functools.lru_cache(maxsize=1024, typed=True)
def _check_once(ndim: int, shapes: _Sizes, dtypes: tuple[Any, ...], **options: Any) -> Job:
    """The same call is right or wrong each time; what is wrong is not remembered."""
    return _check_shapes(np, ndim, shapes, dtypes, **options)


def _check_shapes(xp: Namespace, ndim: int, shapes: _Sizes, dtypes: tuple[Any, ...], **options: Any) -> Job:
    """Check what x, kernel and, where there is one, bias come to."""
    bias_shape = shapes[2] if len(shapes) > 2 else None
    named = dict(zip(("x", "kernel", "bias")[: len(dtypes)], dtypes, strict=True))
    return check(xp, ndim, shapes[0], shapes[1], bias_shape, named, **options)


def check(
    xp: Namespace,
    ndim: int,
    x_shape: Sequence[int],
    kernel_shape: Sequence[int],
    bias_shape: tuple[int, ...] | None,
    dtypes: dict[str, Any],
    *,
    transposed: bool,
    data_format: str | None,
    groups: int,
    activation: Activation,
    precision: str,
    **settings: Any,
) -> Job:
    """Check all that needs no array; `settings` are the sizes that `geometry_of` takes."""
    channels_last = standardize_data_format(data_format) == "channels_last"
    if precision not in ("ieee", "tf32"):
        raise ValueError(f"Expected precision to be 'ieee' or 'tf32'. Received precision={precision!r}.")
    dtype = _result_dtype(xp, dtypes)
    geometry = geometry_of(transposed, ndim, x_shape, kernel_shape, channels_last, groups, **settings)
    job = Job(geometry, transposed, channels_last, dtype, precision, None, None)
    filters = job.shape(1)[-1 if channels_last else 1]
    if bias_shape is not None and bias_shape != (filters,):
        raise ValueError(f"Expected bias of shape ({filters},). Received bias of shape {bias_shape}.")
    fused, whole = _resolve(activation, dtype)
    if whole is not None:
        made(job._replace(whole=whole), x_shape[0])
    return job._replace(fused=fused, whole=whole)


def check_out(job: Job, samples: int, out: Array) -> None:
    """Check `out` as far as its shape can be told before the activation is called."""
    check_writeable("out", out)
    shape = made(job, samples)
    if shape is not None:
        _check_out(out, shape, job.dtype)


def run(
    job: Job,
    x: Array,
    kernel: Array,
    bias: Array | None,
    out: Array | None,
    **how: Any,
) -> Array:
    """Run what has been checked; `how` goes to the backend."""
    backend = backend_of(x)
    convolve = backend.conv_transpose if job.transposed else backend.conv
    how |= {"channels_last": job.channels_last, "dtype": job.dtype, "precision": job.precision}
    if job.whole is None:
        return convolve(job.geometry, x, kernel, bias, job.fused, out=out, **how)
    result = job.whole(convolve(job.geometry, x, kernel, bias, None, **how))
    if out is None:
        return result
    array_namespace(**{"out": out, "the activation's result": result})
    _check_out(out, result.shape, dtype_name(result.dtype))
    out[...] = result
    return out


def _result_dtype(xp: Namespace, dtypes: dict[str, Any]) -> str:
    for name, dtype in dtypes.items():
        received = dtype_name(dtype)
        if received not in DTYPES:
            raise TypeError(
                f"Expected {name} of dtype {', '.join(DTYPES)}. Received {name} of {received}. "
                "Cast it first, for example to float32."
            )
    try:
        return dtype_name(xp.result_type(*dtypes.values()))
    except TypeError as error:
        received = ", ".join(f"{name} of {dtype_name(dtype)}" for name, dtype in dtypes.items())
        raise TypeError(f"Expected dtypes that promote to one. Received {received}. Cast one.") from error


def _resolve(activation: Activation, dtype: str) -> tuple[_Function | None, _Function | None]:
    """The activation as one that a backend may apply block by block, or else as one for the whole result.

    Softmax and the like need whole axes; glu and the user's own may even change the shape.
    """
    if activation is None:
        return None, None
    from gpuconv import activations  # not read where there is none to apply

    function = activations.get(activation)
    if dtype.startswith("complex") and not activations.supports_complex(function):
        raise TypeError(
            f"Expected an activation that complex numbers have. Received activation={activation!r} for "
            f"{dtype}. Apply it to the real and imaginary parts, or pass a callable of your own."
        )
    if function is activations.linear:
        return None, None
    if activations.is_elementwise(function):
        return function, None
    return None, function


def made(job: Job, samples: int) -> Shape | None:
    """Shape of what the activation makes, None where only calling it can tell."""
    if job.whole is None:
        return job.shape(samples)
    from gpuconv import activations

    return activations.output_shape(job.whole, job.shape(samples))


def _check_out(out: Array, shape: Shape, dtype: str) -> None:
    if tuple(out.shape) != tuple(shape):
        raise ValueError(f"Expected out of shape {tuple(shape)}. Received out of shape {tuple(out.shape)}.")
    if dtype_name(out.dtype) != dtype:
        raise TypeError(f"Expected out of dtype {dtype}. Received out of {dtype_name(out.dtype)}.")
