"""A convolution prepared once, to be run often."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from gpuconv._typing import Array, Shape
from gpuconv.backends.prepared import Prepared
from gpuconv.geometry import as_shape
from gpuconv.namespace import (
    DTYPES,
    array_namespace,
    astype,
    check_devices,
    check_writeable,
    dtype_name,
    dtype_named,
    is_numpy_array,
    may_overlap,
)
from gpuconv.ops._call import Job, check, check_out, made, run
from gpuconv.ops._select import backend_of
from gpuconv.ops.shapes import op_of, options_of

__all__ = ["Plan", "plan"]


def plan(
    op: str | Callable[..., Array],
    x_shape: Sequence[int | None],
    kernel: Array,
    bias: Array | None = None,
    *,
    dtype: str | None = None,
    algorithm: str | None = None,
    **options: Any,
) -> Plan:
    """Prepare a convolution: check it, choose its algorithm and keep its weights, packed for it.

    A plan's algorithm is the one that is fastest with weights that are packed already; the op's may be
    another, and sum in another order. Both are within the rounding bound, and each repeats its bits.

    Parameters
    ----------
    op : callable or str
        One of the six convolutions, such as `gpuconv.conv1d_transpose`, or its name.
    x_shape : sequence of int
        Shape of the inputs to come. The number of samples is what the choice is made for, 1 if None; other
        numbers run too.
    kernel, bias : array
        As `op` takes them. They decide the library and the device, and are copied: what is written to them
        later does not change the plan.
    dtype : str, optional
        Of the inputs and of the result, to which the weights are cast; by default that of the weights.
    algorithm : str, optional
        One of the names that `Plan.algorithms` gives. None lets the backend choose.
    **options
        All else that `op` takes, but ``out``: ``strides``, ``padding``, ``data_format``, ``dilation_rate``,
        ``groups``, ``activation``, ``precision``; ``output_padding`` and ``output_size``.

    Returns
    -------
    Plan
        Call it with an input.

    Raises
    ------
    ValueError, TypeError, NotImplementedError
        As `op` does, and for an `algorithm` that cannot run this.

    Examples
    --------
    >>> import numpy as np
    >>> import gpuconv
    >>> kernel = np.ones((3, 32, 128), np.float32)
    >>> plan = gpuconv.plan(gpuconv.conv1d_transpose, (4, 10, 128), kernel, strides=2)
    >>> plan.output_shape, plan.algorithm
    ((4, 21, 32), 'row overlap-add GEMM')
    >>> plan(np.ones((4, 10, 128), np.float32)).shape
    (4, 21, 32)
    """
    name, ndim, transposed = op_of(op)
    options = options_of(name, transposed, options)
    weights = {"kernel": kernel, **({} if bias is None else {"bias": bias})}
    xp = array_namespace(**weights)
    dtypes = {key: array.dtype for key, array in weights.items()}
    if dtype is not None:
        if dtype_name(dtype) not in DTYPES:
            raise TypeError(f"Expected dtype to be one of {', '.join(DTYPES)}. Received dtype={dtype!r}.")
        received = [dtype_name(kind) for kind in dtypes.values()]
        if any(kind.startswith("complex") for kind in received) and "complex" not in dtype_name(dtype):
            raise TypeError(f"Expected a complex dtype for complex weights. Received dtype={dtype!r}.")
        dtypes = {"dtype": dtype_named(xp, dtype_name(dtype))}
    shape = as_shape("x_shape", x_shape)
    if None in shape[1:]:
        raise ValueError(f"Expected x_shape to be known but for the samples. Received x_shape={x_shape!r}.")
    sizes = tuple(1 if size is None else size for size in shape)
    bias_shape = None if bias is None else tuple(bias.shape)
    job = check(xp, ndim, sizes, kernel.shape, bias_shape, dtypes, transposed=transposed, **options)
    check_devices(weights)
    weights = {key: astype(array, job.dtype) for key, array in weights.items()}
    prepared = backend_of(kernel).prepare(
        job.geometry,
        sizes[0],
        weights["kernel"],
        job.fused,
        transposed=job.transposed,
        channels_last=job.channels_last,
        dtype=job.dtype,
        precision=job.precision,
        algorithm=algorithm,
    )
    return Plan(name, sizes, job, weights, prepared)


class Plan:
    """A prepared convolution, made by `plan`. Several threads may call it at once.

    Attributes
    ----------
    output_shape : tuple of int or None
        Shape of the result for the planned input.
    algorithm : str
        How it is computed.
    algorithms : tuple of str
        All that `plan` would take for this convolution, the chosen one first.
    workspace_size : int
        Bytes that a ``workspace=`` must have for the planned number of samples.
    job : Job
        What was checked: geometry, data format, dtype, activation.
    weights : dict
        The kernel, and the bias where there is one, as they were given, in the plan's dtype.

    Examples
    --------
    >>> import numpy as np
    >>> import gpuconv
    >>> plan = gpuconv.plan("conv1d", (1, 100, 2), np.ones((5, 2, 3)), padding="same", activation="relu")
    >>> out = np.empty(plan.output_shape)
    >>> plan(np.ones((1, 100, 2)), out=out) is out
    True
    >>> for line in plan.explain().splitlines()[:3]:  # what each algorithm would do comes then
    ...     print(line)
    conv1d: (1, 100, 2) -> (1, 100, 3), kernel (5, 2, 3), float64, channels_last
    3e+03 multiply-adds, workspace of 0 bytes
    Toeplitz-block GEMM: products of windows of several strides and a band of weights
    """

    def __init__(
        self, op: str, x_shape: tuple[int, ...], job: Job, weights: dict[str, Array], prepared: Prepared
    ) -> None:
        self._op, self._x_shape, self.job, self.weights = op, x_shape, job, weights
        self._prepared = prepared
        self.output_shape: Shape | None = made(job, x_shape[0])
        self.algorithm = prepared.algorithm
        self.algorithms = prepared.algorithms
        self.workspace_size = prepared.workspace_size(x_shape[0])

    def __call__(self, x: Array, out: Array | None = None, workspace: Array | None = None) -> Array:
        """Run the convolution.

        Parameters
        ----------
        x : array
            Of the planned shape, but for the number of samples; of the library, the device and the dtype of
            the plan.
        out : array, optional
            Written and returned: the shape and dtype of the result. Untouched when an error is raised.
        workspace : array of uint8, optional
            `workspace_size` bytes or more, its contents lost. With it and `out`, a CUDA plan allocates
            nothing, unless its activation is one that no kernel has.

        Returns
        -------
        array

        Raises
        ------
        ValueError, TypeError, NotImplementedError
            For what was not planned; for an `out` or a workspace that does not fit, or that may share memory
            with `x`.
        """
        kernel = self.weights["kernel"]
        # What most calls are: nothing can be wrong with them that needs more than a look.
        alike = type(x) is type(kernel) and x.dtype == kernel.dtype and x.shape[1:] == self._x_shape[1:]
        if not (alike and out is None and workspace is None and is_numpy_array(x)):
            self._check(x, out, workspace)
        weights = self._prepared.kernel, self.weights.get("bias")
        return run(self.job, x, *weights, out, algorithm=self.algorithm, workspace=workspace)

    def _check(self, x: Array, out: Array | None, workspace: Array | None) -> None:
        arrays = {"x": x, **self.weights, **({} if out is None else {"out": out})}
        array_namespace(**arrays)
        if dtype_name(x.dtype) != self.job.dtype:
            raise TypeError(
                f"Expected x of {self.job.dtype}, as planned. Received x of {dtype_name(x.dtype)}. "
                "Cast it, or plan with dtype=."
            )
        if tuple(x.shape[1:]) != self._x_shape[1:] or x.ndim != len(self._x_shape):
            planned = ("samples", *self._x_shape[1:])
            raise ValueError(
                f"Expected x of shape ({', '.join(map(str, planned))}), as planned. "
                f"Received x of shape {tuple(x.shape)}."
            )
        check_devices(arrays)
        if out is not None:
            check_out(self.job, x.shape[0], out)
        if out is not None and may_overlap(out, x):
            raise ValueError(
                "Expected out to share no memory with x. Received an out that may. "
                "Leave it away, or call the op: it computes aside and copies."
            )
        if workspace is not None:
            self._check_workspace(workspace, x, arrays)

    def _check_workspace(self, workspace: Array, x: Array, arrays: dict[str, Array]) -> None:
        array_namespace(**arrays, workspace=workspace)
        check_devices({"x": x, "workspace": workspace})
        check_writeable("workspace", workspace)
        if dtype_name(workspace.dtype) != "uint8" or workspace.ndim != 1:
            raise TypeError(
                "Expected workspace of uint8 and 1 dimension. Received workspace of "
                f"{dtype_name(workspace.dtype)} and shape {tuple(workspace.shape)}."
            )
        size = self._prepared.workspace_size(x.shape[0])
        if workspace.shape[0] < size:
            raise ValueError(
                f"Expected workspace of at least {size} bytes for {x.shape[0]} samples. "
                f"Received workspace of {workspace.shape[0]}."
            )
        if any(may_overlap(workspace, array) for array in arrays.values()):
            raise ValueError(
                "Expected workspace to share no memory with other arrays. Received one that may."
            )

    def explain(self) -> str:
        """What the plan does and why, as text."""
        job = self.job
        geometry = job.geometry
        taps = self._x_shape[0] * math.prod(geometry.in_lengths)
        multiply_adds = taps * math.prod(self.weights["kernel"].shape)
        layout = "channels_last" if job.channels_last else "channels_first"
        kernel = tuple(self.weights["kernel"].shape)
        return (
            f"{self._op}: {self._x_shape} -> {self.output_shape}, kernel {kernel}, {job.dtype}, {layout}\n"
            f"{multiply_adds:.3g} multiply-adds, workspace of {self.workspace_size} bytes\n"
            f"{self._prepared.explanation}"
        )

    def warmup(self) -> None:
        """Do now what the first call would do: compile kernels. Nothing is computed."""
        self._prepared.warmup()

    def _repr_html_(self) -> str:
        from gpuconv._display import block, preformatted, table  # only a notebook needs it

        title, *facts = self.explain().splitlines()
        ways = [line.strip().partition(": ")[::2] for line in facts if line.startswith("  ")]
        parts = [preformatted(line for line in facts if not line.startswith("  "))]
        if ways:
            parts.append(table(ways, header=("algorithm", "what it would do, or why it cannot")))
        return block(title, *parts)

    def __repr__(self) -> str:
        shapes = f"{self._x_shape} -> {self.output_shape}"
        return f"<Plan of {self._op}: {shapes}, {self.job.dtype}, {self.algorithm}>"
