"""How far a sum of products may be from the truth: the rounding error bound, nothing chosen by hand."""

import contextlib

import numpy as np

#: Unit of the rounding error: the distance from 1 to the next number.
_EPS = {
    "float16": 2.0**-10,
    "bfloat16": 2.0**-7,
    "float32": 2.0**-23,
    "float64": 2.0**-52,
    "complex64": 2.0**-23,
    "complex128": 2.0**-52,
}
#: Half of the smallest number above 0: what rounding to a half type may cost near 0.
_HALF_OF_SMALLEST = {"float16": 2.0**-25, "bfloat16": 2.0**-134}


def assert_within_bound(y, exact, magnitude, terms, dtype):
    """Assert ``|y - exact| <= c * terms * eps * magnitude`` for every element.

    `magnitude` is the same operation on the absolute values of everything, `terms` how many products (and
    biases) one output sums. Summed in any order, the error is at most terms * u / (1 - terms * u) * magnitude
    with u = eps / 2 (Higham, Accuracy and Stability, section 3.1). Where `exact` was itself computed in
    `dtype` it errs as much, hence c = 1. With complex numbers the real and the imaginary part each sum twice
    as many products; both together make 2**0.5 * terms * eps on our side and, from systems that multiply
    with three real products instead of four, 10**0.5 / 2 * terms * eps on the other: c = 4. The slack that
    1 / (1 - terms * u) and a `magnitude` of finite precision need comes from counting one term more.

    Half types are summed in float32 and rounded once.
    """
    y, exact = np.asarray(y), np.asarray(exact)
    assert y.shape == exact.shape
    wide = np.complex128 if dtype.startswith("complex") else np.float64
    c = 4 if dtype.startswith("complex") else 1
    half = dtype in _HALF_OF_SMALLEST
    bound = c * (terms + 1) * _EPS["float32" if half else dtype] * np.asarray(magnitude, np.float64)
    if half:
        bound = bound + _EPS[dtype] / 2 * (np.abs(exact) + bound) + _HALF_OF_SMALLEST[dtype]
    error = np.abs(y.astype(wide) - exact)
    worst = np.max(error - bound, initial=-np.inf)
    assert np.all(error <= bound), f"off by {worst} more than the bound allows"


@contextlib.contextmanager
def noting(configuration):
    """Add `configuration` to the message of whatever fails inside."""
    try:
        yield
    except Exception as error:
        error.add_note(f"with {configuration}")
        raise


#: By how much an activation may enlarge an error; 1 where it is not listed.
_STEEPEST = {"exponential": 3.0, "gelu": 1.2, "hard_silu": 1.5, "log_softmax": 2.0, "mish": 1.2, "selu": 1.8}
_ALONG_AXIS = ("softmax", "log_softmax")


def chain_bound(model, x, dtype="float32"):
    """How far two computations of `model`, a `Sequential` of convolutions and activations, may differ.

    Every layer makes an error of at most its terms * eps * magnitude, and enlarges the error before it as it
    enlarges that layer's magnitude: the errors add up to (the sum of all terms) * eps * (the magnitude at the
    end). An activation is right to 8 * eps of its own magnitude, which is at most that of its input, times
    its steepest slope, and 1. Both sides err: c = 2. `exponential` is given numbers up to 1.

    Half types are summed in float32, and rounded before the bias is added, after it, and by an activation.
    """
    size, terms, roundings = np.abs(np.asarray(x, np.float64)), 0, 0
    for layer in _flat(model):
        if hasattr(layer, "kernel"):
            kernel, bias = (w if w is None else abs(w.astype(float)) for w in (layer.kernel, layer.bias))
            settings = {**layer._sizes, "data_format": layer.data_format, "groups": layer.groups}
            size = layer.op(size, kernel, bias, **settings)
            terms += kernel.size // kernel.shape[-2 if layer.transposed else -1] + 1
            roundings += 2
        activation = getattr(layer, "activation", None)
        name = getattr(getattr(activation, "func", activation), "__name__", "linear")
        if name != "linear":
            size = _STEEPEST.get(name, 1.0) * size + 1
            terms, roundings = terms + 8, roundings + 1
        if name in _ALONG_AXIS:
            size = np.full_like(size, size.max())
    half = dtype in _HALF_OF_SMALLEST
    return 2 * size * (terms * _EPS["float32" if half else dtype] + (roundings * _EPS[dtype] if half else 0))


def _flat(model):
    for layer in model.layers:
        yield from _flat(layer) if hasattr(layer, "layers") else [layer]


def fft_terms(n):
    """How many terms of a sum err as much as an FFT of length `n`, for `assert_within_bound`.

    An FFT that splits by two errs by at most log2(n) * 6.7 * u of the norm of the whole result, u = eps / 2
    (Higham, section 24.1: a butterfly is a complex product and a sum). Where n has a large prime factor it is
    made of three FFTs, of less than 4 * n each (Bluestein): 3 * 6.7 * u * log2(4 * n). Two are compared, and
    twice u is eps.
    """
    return 20 * np.log2(4 * n)
