"""The output lengths and crops of the design's table, written again, and the oracle run with them."""

import numpy as np

from tests import oracle


def _pairs(padding, ndim):
    if isinstance(padding, str):
        return [padding.lower()] * ndim
    if isinstance(padding, int):
        return [(padding, padding)] * ndim
    if ndim == 1 and not isinstance(padding[0], tuple):
        return [tuple(padding)]
    return [entry if isinstance(entry, tuple) else (entry, entry) for entry in padding]


def transposed_axis(length, k, s, d, padding, extra):
    """Output length and left crop, or None where the crops take more than there is."""
    e = (k - 1) * d + 1
    full = (length - 1) * s + e
    if padding == "valid":
        out = (length - 1) * s + max(e, s) if extra is None else full + extra
    elif padding in ("same", "same_lower"):
        out = length * s if extra is None else (length - 1) * s + e % 2 + extra
    else:
        out = full - sum(padding) + (extra or 0)
    if length == 0:
        out = 0
    if out < 0:
        return None
    cut = full - out
    left = {"valid": 0, "same": max(0, cut // 2), "same_lower": max(0, (cut + 1) // 2)}
    return out, left[padding] if isinstance(padding, str) else padding[0]


def forward_axis(length, k, s, d, padding):
    """Output length and zeros on the left, or None where the kernel does not fit."""
    e = (k - 1) * d + 1
    if padding in ("same", "same_lower"):
        out = -(-length // s)
        cut = max(0, (out - 1) * s + e - length)
        return out, cut // 2 if padding == "same" else (cut + 1) // 2
    left, right = {"valid": (0, 0), "causal": (e - 1, 0)}.get(padding, padding)
    if length == 0:
        return 0, left
    out = (length + left + right - e) // s + 1
    return (out, left) if out > 0 else None


def axes_of(case):
    """Output lengths and left crops, or None where the case must be refused."""
    extras = case.settings.get("output_padding") or (None,) * case.ndim
    sizes = zip(
        case.x.shape[1:-1],
        case.kernel.shape,
        case.strides,
        case.dilations,
        _pairs(case.settings["padding"], case.ndim),
        extras,
        strict=False,
    )
    axes = [transposed_axis(*size) if case.transposed else forward_axis(*size[:-1]) for size in sizes]
    return None if None in axes else tuple(zip(*axes, strict=True))


def expected(case):
    """What the case must give, channels_last, or None where it must be refused."""
    axes = axes_of(case)
    if axes is None:
        return None
    lengths, left = axes
    run = oracle.conv_transpose if case.transposed else oracle.conv
    # Without samples or input there is nothing to loop over; the shape is what counts.
    y = run(case.x, case.kernel, case.strides, case.dilations, left, lengths, case.groups)
    return y if case.bias is None else y + np.asarray(case.bias, y.dtype)


def expected_gradient(case, dy):
    """What the pullback to the kernel must give of `dy`, channels_last."""
    _, left = axes_of(case)
    taps = case.kernel.shape[: case.ndim]
    sizes = case.strides, case.dilations, left, case.groups
    return oracle.kernel_gradient(case.x, dy, taps, *sizes, transposed=case.transposed)
