"""What a change of the result means for the input, the kernel and the bias."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from gpuconv._typing import Array
from gpuconv.namespace import (
    HALF_DTYPES,
    array_namespace,
    astype,
    check_devices,
    dtype_name,
    dtype_named,
    library,
)
from gpuconv.ops._call import Job, check_call, run
from gpuconv.ops._select import backend_of
from gpuconv.ops.shapes import op_of, options_of

__all__ = ["Pullback", "as_given", "check_cotangent", "vjp"]

#: From the result's cotangent to those of input, kernel and bias (None where there is none).
Pullback: TypeAlias = Callable[[Array], tuple[Array, Array, Array | None]]


def vjp(
    op: str | Callable[..., Array], x: Array, kernel: Array, bias: Array | None = None, **options: Any
) -> tuple[Array, Pullback]:
    """Run a convolution, and return with its result the function that pulls cotangents back.

    Parameters
    ----------
    op : callable or str
        One of the six convolutions, such as `gpuconv.conv1d_transpose`, or its name.
    x, kernel, bias : array
        As `op` takes them.
    **options
        All else that `op` takes, but ``out``.

    Returns
    -------
    y : array
        What `op` makes.
    pullback : callable
        ``pullback(dy)`` is ``(dx, dkernel, dbias)``, each of the shape and dtype of what it belongs to;
        `dbias` is None without a bias. `dy` has the shape and dtype of `y`.

    Raises
    ------
    ValueError, TypeError, NotImplementedError
        As `op` does; for a `dy` that does not fit; for an activation whose derivative is not known.

    Notes
    -----
    The input's cotangent is the adjoint's result: with A the convolution without bias and activation,
    ``<dy, A x> = <dx, x>``. For complex numbers ``<a, b>`` is ``sum(conj(a) * b)``, so that the kernel is
    conjugated, as in PyTorch; JAX leaves the conjugation to its caller. Until the pullback has run, `x`,
    `kernel` and `y` must not be written.

    Examples
    --------
    >>> import numpy as np
    >>> import gpuconv
    >>> x, kernel = np.arange(4.0).reshape(1, 4, 1), np.array([1.0, 2.0, 3.0]).reshape(3, 1, 1)
    >>> y, pullback = gpuconv.vjp(gpuconv.conv1d_transpose, x, kernel, strides=2)
    >>> dx, dkernel, dbias = pullback(np.ones_like(y))
    >>> dx.ravel(), dkernel.ravel(), dbias
    (array([6., 6., 6., 6.]), array([6., 6., 6.]), None)
    """
    name, ndim, transposed = op_of(op)
    options = options_of(name, transposed, options)
    activation = options.pop("activation")
    job = check_call(ndim, x, kernel, bias, transposed=transposed, activation=activation, **options)
    function = job.fused or job.whole
    linear = job._replace(fused=None, whole=None)
    if function is not None and job.dtype in HALF_DTYPES:
        linear = linear._replace(dtype="float32")  # rounded once, after the activation, as the op does
    z = run(linear, x, kernel, bias, None)
    a = z if function is None else function(z)
    y = _as(a, job.dtype)

    def pullback(dy: Array) -> tuple[Array, Array, Array | None]:
        check_cotangent(dy, y)
        dz = _as(dy, dtype_name(a.dtype))
        if function is not None:
            from gpuconv import activations

            dz = activations.pullback(function, z, a, dz)
        return (
            as_given(_input_gradient(linear, dz, kernel), x),
            as_given(_kernel_gradient(linear, x, dz), kernel),
            None if bias is None else as_given(_bias_gradient(linear, dz), bias),
        )

    return y, pullback


def check_cotangent(dy: Array, y: Array) -> None:
    """Refuse a cotangent that is not of the shape, type, library and device of `y`."""
    array_namespace(y=y, dy=dy)
    check_devices({"y": y, "dy": dy})
    if tuple(dy.shape) != tuple(y.shape):
        raise ValueError(f"Expected dy of shape {tuple(y.shape)}. Received dy of shape {tuple(dy.shape)}.")
    if dy.dtype != y.dtype:
        raise TypeError(
            f"Expected dy of {dtype_name(y.dtype)}. Received dy of {dtype_name(dy.dtype)}. Cast it first."
        )


def _how(job: Job) -> dict[str, Any]:
    return {"channels_last": job.channels_last, "dtype": job.dtype}


def _input_gradient(job: Job, dz: Array, kernel: Array) -> Array:
    if dtype_name(kernel.dtype).startswith("complex"):
        kernel = array_namespace(kernel=kernel).conj(kernel)
    backend = backend_of(dz)
    adjoint = backend.conv if job.transposed else backend.conv_transpose
    return adjoint(job.geometry, dz, kernel, None, None, precision=job.precision, **_how(job))


def _kernel_gradient(job: Job, x: Array, dz: Array) -> Array:
    gradient = backend_of(dz).kernel_gradient
    return gradient(job.geometry, x, dz, transposed=job.transposed, **_how(job))


def _bias_gradient(job: Job, dz: Array) -> Array:
    xp = array_namespace(dz=dz)
    channel = dz.ndim - 1 if job.channels_last else 1
    working = dtype_named(xp, "float32" if job.dtype in HALF_DTYPES else job.dtype)
    if library(dz) == "dask":  # which would have to join chunks to reshape them; it sums by chunks
        return xp.sum(dz, axis=_first(channel, dz.ndim)[1:], dtype=working)
    # Along the last axis libraries sum by halves, whose error does not grow with the length.
    rows = xp.reshape(xp.permute_dims(dz, _first(channel, dz.ndim)), (dz.shape[channel], -1))
    return xp.sum(rows, axis=1, dtype=working)


def _first(axis: int, ndim: int) -> tuple[int, ...]:
    return (axis, *(other for other in range(ndim) if other != axis))


def _as(array: Array, dtype: str) -> Array:
    return array if dtype_name(array.dtype) == dtype else astype(array, dtype)


def as_given(gradient: Array, given: Array) -> Array:
    """The gradient in the type of what it belongs to; real numbers have none along the imaginary axis."""
    xp = array_namespace(gradient=gradient)
    complex_one = dtype_name(gradient.dtype).startswith("complex")
    if complex_one and not dtype_name(given.dtype).startswith("complex"):
        gradient = xp.real(gradient)
    return xp.astype(gradient, given.dtype, copy=False)
