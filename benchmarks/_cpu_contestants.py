"""Who races on a CPU: ours and its peers, each on data in the layout it likes; and the check of results."""

import importlib
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from _rows import Row, crops, full_length, result_shape, shape_of, sliced, terms, torch_arguments

import gpuconv

OURS = ("plan", "op")
# What must be importable for each peer.
NEEDED = {
    "torch": ("torch",),
    "onnxruntime": ("onnx", "onnxruntime"),
    "jax": ("jax",),
    "tensorflow": ("tensorflow",),
}
CONTESTANTS = (*OURS, *NEEDED)
# Peers that know channels first only. Their numbers with channels_last data, which they must turn first, are
# shown beside those on data that is already as they like it, and are compared with nothing.
TURNED = " from NWC"
TURNING = ("torch", "onnxruntime")
# The distance from 1 to the next float32.
_EPS = 2.0**-23


class Contestant(NamedTuple):
    """A way to compute a row: what is timed, and how its result becomes a NumPy array of the row's layout."""

    name: str
    call: Callable[[], Any]
    finish: Callable[[Any], np.ndarray] = np.asarray


class Truth(NamedTuple):
    """In float64, channels last: the result, and how far from it a sum in float32 may be."""

    exact: np.ndarray
    bound: np.ndarray


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def absent(names: tuple[str, ...]) -> dict[str, str]:
    """The peers among `names` that cannot run here, and why."""
    reasons = {}
    for name in names:
        for module in NEEDED.get(name, ()):
            try:
                importlib.import_module(module)
            except (ImportError, OSError) as error:
                reasons.setdefault(name, " ".join(str(error).split())[:200])
    return reasons


def draw(row: Row, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Input, channels last, and kernel: random numbers, since zeros would hide what is not computed."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape_of(row, "channels_last"), np.float32)
    depth = row.filters // row.groups
    return x, rng.standard_normal((row.kernel_size, depth, row.in_channels), np.float32)


def contestants_of(
    row: Row, layout: str, x: np.ndarray, kernel: np.ndarray, names: tuple[str, ...] = CONTESTANTS
) -> list[Contestant]:
    """Everyone of `names` who knows the row; `x` is channels last, whatever the layout."""
    # As a peer's own user would have them: contiguous in its layout, ahead of time.
    arrays = {"channels_last": x, "channels_first": np.ascontiguousarray(x.transpose(0, 2, 1))}
    makers = {"torch": _torch, "onnxruntime": _onnxruntime, "jax": _jax, "tensorflow": _tensorflow}
    field = []
    if "plan" in names:
        plan = plan_of(row, layout, kernel)
        field.append(Contestant("plan", lambda: plan(arrays[layout])))
    if "op" in names:
        settings = _settings(row, layout)
        field.append(Contestant("op", lambda: gpuconv.conv1d_transpose(arrays[layout], kernel, **settings)))
    for name in names:
        if name in makers:
            field += makers[name](row, layout, arrays, kernel)
    return field


def _settings(row: Row, layout: str) -> dict[str, Any]:
    return {
        "strides": row.strides,
        "padding": row.padding,
        "output_padding": row.output_padding,
        "groups": row.groups,
        "data_format": layout,
    }


def plan_of(row: Row, layout: str, kernel: np.ndarray) -> gpuconv.Plan:
    shape = shape_of(row, layout)
    return gpuconv.plan(gpuconv.conv1d_transpose, shape, kernel, bias=None, **_settings(row, layout))


# --- peers ---------------------------------------------------------------------------------------


def _torch(row: Row, layout: str, arrays: dict[str, np.ndarray], kernel: np.ndarray) -> list[Contestant]:
    import torch

    torch.set_num_threads(cores())
    function, (padding, extra, *_) = torch.nn.functional.conv_transpose1d, torch_arguments(row)
    weight = torch.from_numpy(np.ascontiguousarray(kernel.transpose(2, 1, 0)))

    def caller(x: Any) -> Callable[[], Any]:
        def call() -> Any:
            with torch.inference_mode():
                return function(x, weight, None, row.strides, padding, extra, row.groups)

        return call

    def finish(y: Any) -> np.ndarray:
        return _turned(sliced(row, y.numpy()), layout)

    field = [Contestant("torch", caller(torch.from_numpy(arrays["channels_first"])), finish)]
    if layout == "channels_last":
        turned = torch.from_numpy(arrays["channels_last"]).transpose(1, 2)  # a view: torch copies it or not
        field.append(Contestant(f"torch{TURNED}", caller(turned), finish))
    return field


def _onnxruntime(
    row: Row, layout: str, arrays: dict[str, np.ndarray], kernel: np.ndarray
) -> list[Contestant]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = cores(), 3  # errors only
    session = onnxruntime.InferenceSession(
        _onnx_model(row, kernel), options, providers=["CPUExecutionProvider"]
    )
    first, last = arrays["channels_first"], arrays["channels_last"]

    def finish(y: np.ndarray) -> np.ndarray:
        return _turned(y, layout)

    field = [Contestant("onnxruntime", lambda: session.run(None, {"x": first})[0], finish)]
    if layout == "channels_last":

        def call() -> np.ndarray:
            return session.run(None, {"x": np.ascontiguousarray(last.transpose(0, 2, 1))})[0]

        field.append(Contestant(f"onnxruntime{TURNED}", call, finish))
    return field


def _onnx_model(row: Row, kernel: np.ndarray) -> bytes:
    """One ConvTranspose node with its weights; it can crop both ends as it likes."""
    import onnx

    left, right = crops(row)
    make, kind = onnx.helper, onnx.TensorProto.FLOAT
    node = make.make_node(
        "ConvTranspose",
        ["x", "w"],
        ["y"],
        strides=[row.strides],
        pads=[left, max(right, 0)],
        output_padding=[max(-right, 0)],
        group=row.groups,
    )
    weight = onnx.numpy_helper.from_array(np.ascontiguousarray(kernel.transpose(2, 1, 0)), "w")
    x = make.make_tensor_value_info("x", kind, shape_of(row, "channels_first"))
    y = make.make_tensor_value_info("y", kind, result_shape(row, "channels_first"))
    graph = make.make_graph([node], "one_node", [x], [y], [weight])
    opset = [make.make_opsetid("", 11)]
    return make.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()


def _jax(row: Row, layout: str, arrays: dict[str, np.ndarray], kernel: np.ndarray) -> list[Contestant]:
    """The forward convolution of the input with zeros between its samples, as JAX writes it."""
    import jax

    left, right = crops(row)
    taps, depth, channels = kernel.shape
    wide = channels // row.groups
    flipped = kernel[::-1].reshape(taps, depth, row.groups, wide)
    weight = flipped.transpose(0, 3, 2, 1).reshape(taps, wide, row.filters)
    words = ("NWC", "WIO", "NWC")
    if layout == "channels_first":
        weight, words = weight.transpose(2, 1, 0), ("NCW", "OIW", "NCW")

    @jax.jit
    def convolve(x: Any, weight: Any) -> Any:
        return jax.lax.conv_general_dilated(
            x,
            weight,
            window_strides=(1,),
            padding=[(taps - 1 - left, taps - 1 - right)],
            lhs_dilation=(row.strides,),
            dimension_numbers=words,
            feature_group_count=row.groups,
        )

    cpu = jax.devices("cpu")[0]
    x, weight = jax.device_put((arrays[layout], np.ascontiguousarray(weight)), cpu)
    return [Contestant("jax", lambda: convolve(x, weight).block_until_ready())]


def _tensorflow(row: Row, layout: str, arrays: dict[str, np.ndarray], kernel: np.ndarray) -> list[Contestant]:
    """On a CPU it knows neither groups nor channels first, and no crops but those of "same"."""
    if layout == "channels_first" or row.groups > 1:
        return []
    import tensorflow as tf

    left, _ = crops(row)
    _, made, _ = result_shape(row, layout)
    if row.padding == "same" and row.output_padding is None:
        start, length, padding = 0, made, "SAME"
    else:
        start, length, padding = left, max(full_length(row), left + made), "VALID"
    shape = (row.batch, length, row.filters)
    with tf.device("CPU:0"):
        x, weight = tf.constant(arrays[layout]), tf.constant(kernel)

    @tf.function
    def convolve(x: Any, weight: Any) -> Any:
        return tf.nn.conv_transpose(x, weight, shape, row.strides, padding, "NWC")

    def finish(y: Any) -> np.ndarray:
        return y.numpy()[:, start : start + made]

    return [Contestant("tensorflow", lambda: convolve(x, weight), finish)]


def _turned(y: np.ndarray, layout: str) -> np.ndarray:
    """A result that is channels first, in `layout`."""
    return y.transpose(0, 2, 1) if layout == "channels_last" else y


# --- right or wrong ------------------------------------------------------------------------------


def truth_of(row: Row, x: np.ndarray, kernel: np.ndarray) -> Truth:
    """What a row must become, by a matrix product for each sample and one shifted sum for each tap.

    The bound is the lesser of two: (terms + 1) * eps * the sum of the products' absolute values always holds
    (tests/bounds.py), but a long sum could lose a product and stay within it. For the random numbers drawn
    here the partial sums are a few times the root of the sum of the squares, and each rounding costs a part.
    """
    x, kernel = x.astype(np.float64), kernel.astype(np.float64)
    size = _scatter(row, abs(x), abs(kernel))
    spread = np.sqrt(_scatter(row, x**2, kernel**2))
    count = terms(row)
    bound = np.minimum((count + 1) * _EPS * size, (count + 64) * _EPS * spread)
    return Truth(_scatter(row, x, kernel), bound)


def _scatter(row: Row, x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    taps, depth, _ = kernel.shape
    groups, length = row.groups, row.length
    left, _ = crops(row)
    _, made, _ = result_shape(row, "channels_last")
    full = np.zeros((row.batch, max(full_length(row), left + made), groups, depth))
    factors = kernel.reshape(taps, depth, groups, -1).transpose(2, 3, 0, 1).reshape(groups, -1, taps * depth)
    for sample, result in zip(x, full, strict=True):
        products = sample.reshape(length, groups, -1).transpose(1, 0, 2) @ factors
        products = products.reshape(groups, length, taps, depth)
        for tap in range(taps):
            stop = tap + (length - 1) * row.strides + 1
            result[tap : stop : row.strides] += products[:, :, tap].transpose(1, 0, 2)
    return full.reshape(row.batch, -1, row.filters)[:, left : left + made]


def fault_of(contestant: Contestant, truth: Truth, layout: str) -> str | None:
    """What is wrong with a contestant's result; not a number is off too."""
    y = contestant.finish(contestant.call())
    y = y.transpose(0, 2, 1) if layout == "channels_first" else y
    if y.shape != truth.exact.shape:
        return f"{contestant.name}: shape {y.shape} where {truth.exact.shape} is right, channels last"
    error = abs(y - truth.exact)
    off = ~(error <= truth.bound)
    if not off.any():
        return None
    return f"{contestant.name}: {off.sum()} of {off.size} numbers are off, the worst by {error.max():.3g}"
