"""Every call that cannot be right: the error's type, what its message names, and that nothing was done.

Each message says what was received. Nothing is computed before everything is checked, and `out` keeps its
bits.
"""

import decimal
import fractions
import math

import numpy as np
import pytest

import gpuconv
from gpuconv import config, layers
from gpuconv.backends import generic, numpy_

NAN, INF = math.nan, math.inf


@pytest.fixture(autouse=True)
def _nothing_is_computed(monkeypatch):
    def computed(*arguments, **options):
        pytest.fail("a backend ran")

    for backend in (numpy_, generic):
        monkeypatch.setattr(backend, "conv_transpose", computed)
        monkeypatch.setattr(backend, "conv", computed)


class Of:
    """An array of another library, made when the test runs."""

    def __init__(self, module, make, package=None):
        self.module, self.make, self.package = module, make, package or module

    def __call__(self):
        reason = f"{self.package} is not installed: pip install gpuconv[peers]"
        return self.make(pytest.importorskip(self.module, reason=reason))


def ones_of(module, *shape):
    return Of(module, lambda xp: xp.ones(shape), module.partition(".")[0])


def dtype_of(module, name, *shape):
    return Of(module, lambda m: np.ones(shape).astype(getattr(m, name)))


def refuses(error, words, function, *arguments, **options):
    with pytest.raises(error) as caught:
        function(*arguments, **options)
    for word in words:
        assert word in str(caught.value)
    return caught


def table(cases):
    """Parameters of a test from (id, ...) tuples, all ids different."""
    names = [name for name, *_ in cases]
    assert len(set(names)) == len(names), [name for name in names if names.count(name) > 1]
    return [pytest.param(*rest, id=name) for name, *rest in cases]


# --- the six convolutions ------------------------------------------------------------------------

T1, T2, T3 = "conv1d_transpose", "conv2d_transpose", "conv3d_transpose"
F1, F2, F3 = "conv1d", "conv2d", "conv3d"
SHAPES = {
    T1: ((2, 5, 3), (4, 2, 3)),
    T2: ((2, 5, 4, 3), (4, 3, 2, 3)),
    T3: ((2, 3, 4, 5, 3), (2, 1, 3, 2, 3)),
    F1: ((2, 5, 3), (4, 3, 2)),
    F2: ((2, 5, 4, 3), (4, 3, 3, 2)),
    F3: ((2, 3, 4, 5, 3), (2, 1, 3, 3, 2)),
}

#: Values that are no size for one axis: (value, error, what the message says of it, or its repr).
NO_SIZES = [
    (True, TypeError),
    (np.True_, TypeError),
    (1.5, ValueError),
    (np.float32(1.5), ValueError, "1.5"),
    (fractions.Fraction(5, 2), ValueError),
    (decimal.Decimal(2), TypeError),
    (NAN, ValueError),
    (INF, ValueError),
    (-INF, ValueError),
    ("2", TypeError),
    (b"2", TypeError),
    (1j, TypeError),
    (-1, ValueError),
    (-2.0, ValueError),
    (np.array(2), TypeError),
    (print, TypeError),
]
#: Values that are no sequence of one size.
NO_SEQUENCES = [
    ((), ValueError),
    ((2, 2), ValueError),
    ([[2]], TypeError, "[2]"),
    ([None], TypeError, "None"),
    (["2"], TypeError, "'2'"),
    ([1.5], ValueError, "1.5"),
    ([-1], ValueError, "-1"),
    ({"stride": 2}, TypeError, "'stride'"),
    ({2: 1}, TypeError),
    ({2}, TypeError),  # a set has no order
    (np.array([True]), TypeError, "True"),
    (np.array([NAN]), ValueError, "nan"),
    (np.ones((1, 1), int), TypeError, "array([[1]])"),
]
ZERO, NONE = [(0, ValueError), ([0], ValueError, "0")], [(None, TypeError)]
NO_PADDINGS = [
    *(("causal", ValueError), ("full", ValueError), ("", ValueError), ("sam e", ValueError)),
    *((("same",), TypeError, "'same'"), ((1, "same"), TypeError, "'same'"), ((1, 2, 3), ValueError)),
    *((((1, 2), (3, 4)), ValueError), (((1, 2, 3),), ValueError, "(1, 2, 3)"), (((1,),), ValueError, "(1,)")),
    *(((-1, 0), ValueError, "-1"), ((0, -1), ValueError, "-1"), ((True, 0), TypeError, "True")),
    *(((0.5, 0), ValueError, "0.5"), ((NAN, 0), ValueError, "nan"), ([(0, None)], TypeError, "None")),
    *((((0, 1), 2), ValueError), (b"same", TypeError)),
]


def size_cases(op, name, values):
    for value, error, *received in values:
        said = received[0] if received else f"{name}={value!r}"
        yield f"{op}({name}={value!r})", op, {name: value}, error, ["Received", name, said]


PAIRS_2D = [
    ((1, 2, 3), ValueError),
    ((1,), ValueError),
    ((1, 0.5), ValueError, "0.5"),
    ((1, -1), ValueError, "-1"),
    ((1, True), TypeError, "True"),
]
SIZES = [
    *size_cases(T1, "strides", NO_SIZES + NO_SEQUENCES + ZERO + NONE),
    *size_cases(T1, "dilation_rate", NO_SIZES + NO_SEQUENCES + ZERO + NONE),
    *size_cases(T1, "output_padding", NO_SIZES + NO_SEQUENCES),
    *size_cases(T1, "output_size", NO_SIZES + NO_SEQUENCES),
    *size_cases(T1, "groups", NO_SIZES + ZERO[:1] + NONE + [([1], TypeError), ((1, 1), TypeError)]),
    *size_cases(
        T1,
        "padding",
        [case for case in NO_SIZES if not isinstance(case[0], str)]
        + NONE
        + NO_PADDINGS
        + [("2", ValueError)],
    ),
    *size_cases(F1, "strides", NO_SIZES[:7] + ZERO + NONE),
    *size_cases(F1, "dilation_rate", NO_SIZES[:7] + ZERO + NONE),
    *size_cases(F1, "groups", NO_SIZES[:7] + ZERO[:1] + NONE),
    *size_cases(F1, "padding", NO_SIZES[:7] + NONE + NO_PADDINGS[1:]),
    *(
        case
        for op in (T2, F2)
        for name in ("strides", "dilation_rate")
        for case in size_cases(op, name, PAIRS_2D)
    ),
    *size_cases(T2, "output_padding", PAIRS_2D),
    *size_cases(T2, "output_size", PAIRS_2D),
    *size_cases(
        T2, "padding", [*PAIRS_2D, (((1, 2), 3), ValueError), (((1, 2), (3, 4, 5)), ValueError, "(3, 4, 5)")]
    ),
    *size_cases(
        T3, "strides", [((1, 2), ValueError), ((1, 1, 1, 1), ValueError), ((1, 1, 0), ValueError, "0")]
    ),
    *size_cases(
        F3, "padding", [((1, 2), ValueError), ("causality", ValueError), ((0, 0, -1), ValueError, "-1")]
    ),
]

COMBINATIONS = [
    (
        "causal says what to do",
        T1,
        {"padding": "Causal"},
        ValueError,
        ["Received padding='Causal'", "crop on the right, with padding=(0, "],
    ),
    (
        "output_padding and output_size",
        T1,
        {"output_padding": 0, "output_size": 8},
        ValueError,
        ["output_padding=0", "output_size=8", "not both"],
    ),
    (
        "output_size below the range",
        T1,
        {"strides": 2, "output_size": 11},
        ValueError,
        ["12 to 13", "Received output_size=11"],
    ),
    (
        "output_size above the range",
        T1,
        {"strides": 2, "output_size": 14},
        ValueError,
        ["12 to 13", "Received output_size=14"],
    ),
    ("output_size not the only one", T1, {"output_size": 9}, ValueError, ["Received output_size=9", "8"]),
    (
        "output_size same",
        T1,
        {"strides": 3, "padding": "same", "output_size": 16},
        ValueError,
        ["13 to 15", "Received output_size=16"],
    ),
    (
        "output_size cropped",
        T1,
        {"strides": 2, "padding": 1, "output_size": 9},
        ValueError,
        ["10 to 11", "Received output_size=9"],
    ),
    (
        "output_size second axis",
        T2,
        {"strides": 2, "output_size": (12, 11)},
        ValueError,
        ["9 to 10", "output_size=11"],
    ),
    ("output_size third axis", T3, {"output_size": (4, 4, 9)}, ValueError, ["7", "output_size=9"]),
    (
        "output_padding of the stride",
        T1,
        {"strides": 2, "output_padding": 2},
        ValueError,
        ["Received output_padding=2", "strides=2"],
    ),
    (
        "output_padding above",
        T1,
        {"strides": 2, "output_padding": 7},
        ValueError,
        ["Received output_padding=7"],
    ),
    ("output_padding without stride", T1, {"output_padding": 1}, ValueError, ["Received output_padding=1"]),
    (
        "output_padding of the dilation",
        T1,
        {"dilation_rate": 3, "output_padding": 3},
        ValueError,
        ["Received output_padding=3", "dilation_rate=3"],
    ),
    (
        "output_padding second axis",
        T2,
        {"strides": (3, 2), "output_padding": 2},
        ValueError,
        ["Received output_padding=2", "strides=(3, 2)"],
    ),
    (
        "crops larger than the output",
        T1,
        {"padding": 5},
        ValueError,
        ["at most the 8", "Received padding=(5, 5)"],
    ),
    ("left crop larger", T1, {"padding": (9, 0)}, ValueError, ["at most the 8", "Received padding=(9, 0)"]),
    ("right crop larger", T1, {"padding": (0, 9)}, ValueError, ["at most the 8", "Received padding=(0, 9)"]),
    (
        "crops larger second axis",
        T2,
        {"padding": ((0, 0), (4, 3))},
        ValueError,
        ["at most the 6", "Received padding=(4, 3)"],
    ),
    (
        "kernel longer than the input",
        F1,
        {"kernel": np.ones((6, 3, 2))},
        ValueError,
        ["at least 6", "Received a length of 5"],
    ),
    ("dilated kernel longer", F1, {"dilation_rate": 2}, ValueError, ["at least 7", "Received a length of 5"]),
    (
        "padded kernel longer",
        F1,
        {"dilation_rate": 3, "padding": 2},
        ValueError,
        ["at least 10", "Received a length of 5"],
    ),
    (
        "kernel longer second axis",
        F2,
        {"kernel": np.ones((4, 5, 3, 2))},
        ValueError,
        ["at least 5", "Received a length of 4"],
    ),
    (
        "kernel longer third axis",
        F3,
        {"kernel": np.ones((1, 1, 6, 3, 2))},
        ValueError,
        ["at least 6", "Received a length of 5"],
    ),
    ("groups against channels", T1, {"groups": 2}, ValueError, ["groups=2", "Received"]),
    (
        "groups against filters",
        F1,
        {"kernel": np.ones((4, 1, 2)), "groups": 3},
        ValueError,
        ["Received groups=3", "2 filters"],
    ),
    ("groups against input", F1, {"groups": 3}, ValueError, ["9 channels", "groups=3", "(2, 5, 3)"]),
    ("more groups than channels", T1, {"groups": 4}, ValueError, ["Received groups=4", "3 channels"]),
    ("strides beyond every length", T1, {"strides": 10**30}, ValueError, ["Received", str(10**30)]),
]

NO_ARRAYS = {
    "a list": ([[[1.0] * 3] * 5] * 2, "list"),
    "a tuple": (((1.0,),), "tuple"),
    "a float": (1.0, "float"),
    "a string": ("ones", "str"),
    "bytes": (b"ones", "bytes"),
    "a NumPy scalar": (np.float64(1), "float64"),
    "a matrix": (np.ones((2, 5)).view(np.matrix), "matrix"),
    "a masked array": (np.ma.masked_equal(np.ones((2, 5, 3)), 0), "MaskedArray"),
    "a memoryview": (memoryview(np.ones(3)), "memoryview"),
    "an object": (print, "builtin_function"),
    "a class": (np.ndarray, "type"),
    "sparse": (Of("scipy.sparse", lambda sparse: sparse.csr_array(np.eye(3))), "sparse"),
}
#: NumPy's name, and ours for it.
NO_DTYPES = dict.fromkeys(("int8", "uint8", "int16", "int32", "int64", "uint64", "bool", "object")) | {
    "longdouble": np.dtype("longdouble").name,
    "clongdouble": np.dtype("clongdouble").name,
    "U4": "str",
    "S4": "bytes",
    "M8[s]": "datetime64",
}
SHAPE_OF = {"x": (2, 5, 3), "kernel": (4, 2, 3), "bias": (2,)}
ARRAYS = [
    *(
        (f"{argument} is {what}", T1, {argument: value}, TypeError, [argument, "Received", word])
        for argument in ("x", "kernel", "bias")
        for what, (value, word) in NO_ARRAYS.items()
    ),
    ("x is None", T1, {"x": None}, TypeError, ["x", "Received", "None"]),
    ("kernel is None", T1, {"kernel": None}, TypeError, ["kernel", "Received", "None"]),
    ("x is None forward", F1, {"x": None}, TypeError, ["x", "Received", "None"]),
    ("kernel is None forward", F1, {"kernel": None}, TypeError, ["kernel", "Received", "None"]),
    *(
        (
            f"{argument} of {name}",
            T1,
            {argument: np.ones(shape).astype(name)},
            TypeError,
            ["Received", argument, dtype or name],
        )
        for argument, shape in SHAPE_OF.items()
        for name, dtype in NO_DTYPES.items()
    ),
    ("x of a record", T1, {"x": np.zeros((2, 5, 3), [("re", "f4")])}, TypeError, ["Received x", "void"]),
    (
        "x of int32 forward",
        F1,
        {"x": np.ones((2, 5, 3), "int32")},
        TypeError,
        ["Received x of int32", "Cast"],
    ),
    (
        "kernel of bool 2-D",
        T2,
        {"kernel": np.ones((4, 3, 2, 3), bool)},
        TypeError,
        ["Received kernel of bool"],
    ),
    (
        "x of float8",
        T1,
        {"x": dtype_of("ml_dtypes", "float8_e4m3fn", 2, 5, 3)},
        TypeError,
        ["Received x", "float8_e4m3fn"],
    ),
    ("x of int4", T1, {"x": dtype_of("ml_dtypes", "int4", 2, 5, 3)}, TypeError, ["Received x of int4"]),
    *(
        (
            f"{op}: x of {rank} dimensions",
            op,
            {"x": np.ones((2,) * rank)},
            ValueError,
            ["Received x of shape", str((2,) * rank)],
        )
        for op in (T1, T2, T3, F1)
        for rank in range(7)
        if rank != len(SHAPES[op][0])
    ),
    *(
        (
            f"{op}: kernel of {rank} dimensions",
            op,
            {"kernel": np.ones((3,) * rank)},
            ValueError,
            ["Received a kernel of shape", str((3,) * rank)],
        )
        for op in (T1, T2, T3, F1)
        for rank in range(7)
        if rank != len(SHAPES[op][1])
    ),
    *(
        (
            f"kernel of shape {shape}",
            T1,
            {"kernel": np.ones(shape)},
            ValueError,
            ["Received a kernel of shape", str(shape)],
        )
        for shape in ((0, 2, 3), (4, 0, 3), (4, 2, 0), (0, 0, 0))
    ),
    (
        "x of other channels",
        T1,
        {"x": np.ones((2, 5, 4))},
        ValueError,
        ["3 channels", "(2, 5, 4)", "(4, 2, 3)"],
    ),
    ("x of no channels", T1, {"x": np.ones((2, 5, 0))}, ValueError, ["3 channels", "(2, 5, 0)"]),
    ("x of other channels 2-D", T2, {"x": np.ones((2, 3, 5, 4))}, ValueError, ["3 channels", "(2, 3, 5, 4)"]),
    ("x of other channels forward", F1, {"x": np.ones((2, 5, 4))}, ValueError, ["3 channels", "(2, 5, 4)"]),
    (
        "x channels_last read as first",
        T1,
        {"data_format": "channels_first"},
        ValueError,
        ["(2, 5, 3)", "(samples, channels, length)"],
    ),
    (
        "x channels_first read as last",
        T1,
        {"x": np.ones((2, 3, 5))},
        ValueError,
        ["(2, 3, 5)", "(samples, length, channels)"],
    ),
    (
        "kernel in the forward layout",
        T1,
        {"kernel": np.ones((4, 3, 2))},
        ValueError,
        ["2 channels", "(4, 3, 2)"],
    ),
    *(
        (
            f"bias of shape {shape}",
            op,
            {"bias": np.ones(shape)},
            ValueError,
            ["(2,)", f"Received bias of shape {shape}"],
        )
        for op, shape in ((T1, ()), (T1, (1,)), (T1, (3,)), (F1, (1, 2)), (T1, (2, 1)), (T1, (0,)))
    ),
    (
        "bias per group",
        T1,
        {"x": np.ones((2, 5, 6)), "kernel": np.ones((4, 2, 6)), "groups": 3, "bias": np.ones(2)},
        ValueError,
        ["(6,)", "(2,)"],
    ),
]

LIBRARIES = ("torch", "jax.numpy", "array_api_strict", "dask.array")
MIXED = [
    *(
        (
            f"{argument} of {module}",
            T1,
            {argument: ones_of(module, *shape)},
            TypeError,
            ["Received x of", argument, module.partition(".")[0], "numpy"],
        )
        for module in LIBRARIES
        for argument, shape in {**SHAPE_OF, "out": (2, 8, 2)}.items()
    ),
    (
        "x of torch forward",
        F1,
        {"x": ones_of("torch", 2, 5, 3)},
        TypeError,
        ["x of torch", "kernel of numpy"],
    ),
    (
        "torch with jax",
        T1,
        {"x": ones_of("torch", 2, 5, 3), "kernel": ones_of("jax.numpy", 4, 2, 3)},
        TypeError,
        ["x of torch", "kernel of jax"],
    ),
    (
        "torch on another device",
        T1,
        {
            "x": ones_of("torch", 2, 5, 3),
            "kernel": Of("torch", lambda torch: torch.ones(4, 2, 3, device="meta")),
        },
        ValueError,
        ["x on cpu", "kernel on meta"],
    ),
    (
        "torch of integers",
        T1,
        {
            "x": Of("torch", lambda torch: torch.ones(2, 5, 3, dtype=torch.int64)),
            "kernel": ones_of("torch", 4, 2, 3),
        },
        TypeError,
        ["Received x of int64"],
    ),
]

UNUSABLE = [
    (
        "sparse x, torch",
        T1,
        {
            "x": Of("torch", lambda torch: torch.ones(2, 5, 3).to_sparse()),
            "kernel": ones_of("torch", 4, 2, 3),
        },
        TypeError,
        ["x", "Received", "sparse"],
    ),
    (
        "x of unknown length, dask",
        T1,
        {
            "x": Of("dask.array", lambda da: da.ones((2, 5, 3))[:, da.ones(5) > 0]),
            "kernel": ones_of("dask.array", 4, 2, 3),
        },
        ValueError,
        ["Received", "nan"],
    ),
    (
        "x of unknown samples, dask",
        T1,
        {
            "x": Of("dask.array", lambda da: da.ones((2, 5, 3))[da.ones(2) > 0]),
            "kernel": ones_of("dask.array", 4, 2, 3),
        },
        ValueError,
        ["Received", "nan"],
    ),
]

JAX_BOTH = {"x": ones_of("jax.numpy", 2, 5, 3), "kernel": ones_of("jax.numpy", 4, 2, 3)}
DASK_BOTH = {"x": ones_of("dask.array", 2, 5, 3), "kernel": ones_of("dask.array", 4, 2, 3)}
TORCH_BOTH = {"x": ones_of("torch", 2, 5, 3), "kernel": ones_of("torch", 4, 2, 3)}


def sentinel(shape=(2, 8, 2), dtype="float64", writeable=True):
    out = np.full(shape, -7, dtype)
    out.flags.writeable = writeable
    return out


OUT = [
    *(
        (
            f"out of shape {shape}",
            T1,
            {"out": sentinel(shape)},
            ValueError,
            ["(2, 8, 2)", f"Received out of shape {shape}"],
        )
        for shape in ((), (2,), (2, 8, 1), (2, 2, 8), (2, 9, 2), (1, 8, 2), (2, 8, 2, 1), (0, 8, 2))
    ),
    *(
        (
            f"out of {dtype}",
            T1,
            {"out": sentinel(dtype=dtype)},
            TypeError,
            ["float64", f"Received out of {dtype}"],
        )
        for dtype in ("float32", "float16", "complex128", "int64", "object")
    ),
    (
        "out of shape forward",
        F1,
        {"out": sentinel()},
        ValueError,
        ["(2, 2, 2)", "Received out of shape (2, 8, 2)"],
    ),
    (
        "out of channels_last",
        T1,
        {"x": np.ones((2, 3, 5)), "data_format": "channels_first", "out": sentinel()},
        ValueError,
        ["(2, 2, 8)", "Received"],
    ),
    (
        "out for complex",
        T1,
        {"x": np.ones((2, 5, 3), complex), "out": sentinel()},
        TypeError,
        ["complex128", "Received out of float64"],
    ),
    (
        "out read-only",
        T1,
        {"out": sentinel(writeable=False)},
        ValueError,
        ["writeable", "Received a read-only"],
    ),
    (
        "out broadcast",
        T1,
        {"out": np.broadcast_to(-7.0, (2, 8, 2))},
        ValueError,
        ["writeable", "Received a read-only"],
    ),
    ("out is a list", T1, {"out": [0.0]}, TypeError, ["out", "Received", "list"]),
    ("out is a tuple of arrays", T1, {"out": (sentinel(),)}, TypeError, ["out", "Received", "tuple"]),
    (
        "out is masked",
        T1,
        {"out": np.ma.masked_equal(sentinel(), 0)},
        TypeError,
        ["out", "Received", "MaskedArray"],
    ),
    (
        "out of jax",
        T1,
        {**JAX_BOTH, "out": ones_of("jax.numpy", 2, 8, 2)},
        NotImplementedError,
        ["Received out of jax"],
    ),
    (
        "out of dask",
        T1,
        {**DASK_BOTH, "out": ones_of("dask.array", 2, 8, 2)},
        NotImplementedError,
        ["Received out of dask"],
    ),
    (
        "out of shape, torch",
        T1,
        {**TORCH_BOTH, "out": ones_of("torch", 2, 8, 3)},
        ValueError,
        ["(2, 8, 2)", "Received out of shape (2, 8, 3)"],
    ),
    (
        "out of dtype, torch",
        T1,
        {**TORCH_BOTH, "out": Of("torch", lambda torch: torch.ones(2, 8, 2).double())},
        TypeError,
        ["Received out of float64"],
    ),
    (
        "out of shape before softmax",
        T1,
        {"out": sentinel((2, 8, 3)), "activation": "softmax"},
        ValueError,
        ["(2, 8, 2)", "Received out of shape (2, 8, 3)"],
    ),
    (
        "out of shape before glu",
        T1,
        {"out": sentinel(), "activation": "glu"},
        ValueError,
        ["(2, 8, 1)", "Received out of shape (2, 8, 2)"],
    ),
]

OUT += [
    (
        "out of one repeated element, torch",
        T1,
        {**TORCH_BOTH, "out": Of("torch", lambda torch: torch.ones(1).expand(2, 8, 2))},
        ValueError,
        ["out", "Received"],
    ),
    (
        "out that needs gradients, torch",
        T1,
        {**TORCH_BOTH, "out": Of("torch", lambda torch: torch.ones(2, 8, 2, requires_grad=True))},
        ValueError,
        ["out", "Received"],
    ),
    (
        "strides beyond every length, torch",
        T1,
        {**TORCH_BOTH, "strides": 10**30},
        ValueError,
        ["Received", str(10**30)],
    ),
]

CHOICES = [
    *(
        (f"activation={name!r}", T1, {"activation": name}, ValueError, ["Received", repr(name), f"'{meant}'"])
        for name, meant in (
            ("rleu", "relu"),
            ("ReLu", "relu"),
            ("tahn", "tanh"),
            ("sigmoidd", "sigmoid"),
            ("leaky-relu", "leaky_relu"),
        )
    ),
    *(
        (f"activation={value!r}", T1, {"activation": value}, error, ["Received", repr(value)])
        for value, error in (
            (3, TypeError),
            ([], TypeError),
            (b"relu", TypeError),
            (1.5, TypeError),
            ("", ValueError),
        )
    ),
    ("activation={}", T1, {"activation": {}}, ValueError, ["Received", "{}"]),
    (
        "activation config unknown",
        T1,
        {"activation": {"class_name": "function", "config": "rleu"}},
        ValueError,
        ["Received", "rleu"],
    ),
    ("activation forward", F1, {"activation": "rleu"}, ValueError, ["Received", "'rleu'", "'relu'"]),
    *(
        (
            f"{op}: {name} of complex",
            op,
            {"x": np.ones((2, 5, 3), complex), "activation": name},
            TypeError,
            [f"Received activation='{name}'", "complex128"],
        )
        for op, name in ((T1, "relu"), (F1, "relu"), (T1, "softmax"), (T1, "gelu"), (T1, "glu"))
    ),
    ("activation=int", T1, {"activation": int}, TypeError, ["Received activation=<class 'int'>"]),
    (
        "half types that do not promote",
        T1,
        {"x": np.ones((2, 5, 3), "float16"), "kernel": dtype_of("ml_dtypes", "bfloat16", 4, 2, 3)},
        TypeError,
        ["Received x of float16, kernel of bfloat16"],
    ),
    (
        "relu by function of complex",
        T1,
        {"kernel": np.ones((4, 2, 3), "complex64"), "activation": gpuconv.activations.relu},
        TypeError,
        ["relu", "complex128"],
    ),
    (
        "glu of odd channels",
        T1,
        {"kernel": np.ones((4, 3, 3)), "activation": "glu"},
        ValueError,
        ["Received", "glu"],
    ),
    *(
        (
            f"data_format={value!r}",
            op,
            {"data_format": value},
            ValueError,
            [f"Received data_format={value!r}"],
        )
        for op, value in (
            *((T1, "NHWC"), (T1, "channels"), (F1, ""), (T1, True), (T1, 1), (F1, b"channels_last")),
            *((T2, "channels last"), (T1, ["channels_last"]), (T1, {})),
        )
    ),
    *(
        (f"precision={value!r}", op, {"precision": value}, ValueError, [f"Received precision={value!r}"])
        for op, value in (
            (T1, "fp16"),
            (T1, None),
            (F1, "highest"),
            (T1, 32),
            (T1, ["ieee"]),
            (T1, ""),
            (T2, b"ieee"),
        )
    ),
]

UNKNOWN_KEYWORDS = [
    *(
        (T1, name)
        for name in (
            "stride",
            "dilation",
            "pad",
            "filters",
            "kernel_size",
            "output_shape",
            "use_bias",
            "name",
            "dtype",
            "rank",
        )
    ),
    *((F1, name) for name in ("output_padding", "output_size", "stride", "transposed")),
    *((T2, name) for name in ("ndim", "channels_last")),
]


@pytest.mark.parametrize(
    ("op", "changes", "error", "words"),
    table(SIZES + COMBINATIONS + ARRAYS + MIXED + UNUSABLE + OUT + CHOICES),
)
def test_convolution(op, changes, error, words):
    arguments = dict(zip(("x", "kernel"), map(np.ones, SHAPES[op]), strict=True)) | changes
    arguments = {name: value() if isinstance(value, Of) else value for name, value in arguments.items()}
    function = getattr(gpuconv, op)
    own = arguments.get("out")
    before = own.tobytes() if isinstance(own, np.ndarray) else None
    refuses(error, words, function, **arguments)
    assert before is None or own.tobytes() == before
    if own is None and isinstance(arguments["x"], np.ndarray):
        made = {T1: (2, 8, 2), F1: (2, 2, 2)}.get(op, (2, 8, 6, 2))
        # Of the right kind for the unchanged call: what is refused is what was changed.
        out = sentinel(made)
        refuses(error, words, function, **arguments, out=out)
        assert out.tobytes() == sentinel(made).tobytes()


@pytest.mark.parametrize(("op", "name"), UNKNOWN_KEYWORDS, ids=lambda value: str(value))
def test_unknown_keyword(op, name):
    refuses(TypeError, [op, f"'{name}'"], getattr(gpuconv, op), *map(np.ones, SHAPES[op]), **{name: 1})


@pytest.mark.parametrize("op", list(SHAPES))
def test_settings_are_keywords(op):
    refuses(TypeError, [op, "positional"], getattr(gpuconv, op), *map(np.ones, SHAPES[op]), None, 2)


@pytest.mark.parametrize("op", list(SHAPES))
def test_missing_kernel(op):
    refuses(TypeError, [op, "'kernel'"], getattr(gpuconv, op), np.ones(SHAPES[op][0]))


# --- shape algebra and settings ------------------------------------------------------------------

OUTPUT_SHAPE = [
    *(
        (
            f"op={op!r}",
            (op, (2, 5, 3), (4, 2, 3)),
            {},
            ValueError,
            [f"Received op={op!r}", "conv1d_transpose"],
        )
        for op in ("conv4d", "", None, "Conv1D", print, 1)
    ),
    ("op=[]", ([], (2, 5, 3), (4, 2, 3)), {}, ValueError, ["Received op=[]"]),
    ("x of 2 dimensions", (T1, (2, 5), (4, 2, 3)), {}, ValueError, ["Received x of shape (2, 5)"]),
    (
        "x of 4 dimensions",
        (F1, (2, 5, 5, 3), (4, 3, 2)),
        {},
        ValueError,
        ["Received x of shape (2, 5, 5, 3)"],
    ),
    ("x_shape=3", (T1, 3, (4, 2, 3)), {}, TypeError, ["Received x_shape=3"]),
    ("kernel_shape=3", (T1, (2, 5, 3), 3), {}, TypeError, ["Received kernel_shape=3"]),
    ("negative length", (T1, (2, -5, 3), (4, 2, 3)), {}, ValueError, ["Received", "-5"]),
    ("negative samples", (T1, (-2, 5, 3), (4, 2, 3)), {}, ValueError, ["Received", "-2"]),
    ("fractional length", (T1, (2, 5.5, 3), (4, 2, 3)), {}, ValueError, ["Received", "5.5"]),
    ("length of text", (T1, (2, "5", 3), (4, 2, 3)), {}, TypeError, ["Received", "'5'"]),
    ("boolean length", (F1, (2, True, 3), (1, 3, 2)), {}, TypeError, ["Received", "True"]),
    (
        "kernel of no taps",
        (T1, (2, 5, 3), (0, 2, 3)),
        {},
        ValueError,
        ["Received a kernel of shape (0, 2, 3)"],
    ),
    ("kernel of negative filters", (T1, (2, 5, 3), (4, -2, 3)), {}, ValueError, ["Received", "-2"]),
    ("kernel of negative taps", (T1, (2, 5, 3), (-4, 2, 3)), {}, ValueError, ["Received", "-4"]),
    (
        "kernel of None",
        (T1, (2, 5, 3), (None, 2, 3)),
        {},
        ValueError,
        ["Received a kernel of shape (None, 2, 3)"],
    ),
    ("kernel of 2.5 taps", (T1, (2, 5, 3), (2.5, 2, 3)), {}, ValueError, ["Received", "2.5"]),
    ("kernel of 2.5 filters", (T1, (2, 5, 3), (4, 2.5, 3)), {}, ValueError, ["Received", "2.5"]),
    ("other channels", (T1, (2, 5, 4), (4, 2, 3)), {}, ValueError, ["3 channels", "(2, 5, 4)"]),
    ("unknown channels", (T1, (2, 5, None), (4, 2, 3)), {}, ValueError, ["3 channels", "(2, 5, None)"]),
    ("strides=0", (T1, (2, 5, 3), (4, 2, 3)), {"strides": 0}, ValueError, ["Received strides=0"]),
    (
        "strides=0, length unknown",
        (T1, (2, None, 3), (4, 2, 3)),
        {"strides": 0},
        ValueError,
        ["Received strides=0"],
    ),
    (
        "padding='causal'",
        (T1, (2, 5, 3), (4, 2, 3)),
        {"padding": "causal"},
        ValueError,
        ["Received padding='causal'"],
    ),
    ("groups=2", (T1, (2, 5, 3), (4, 2, 3)), {"groups": 2}, ValueError, ["groups=2", "Received"]),
    (
        "data_format='NWC'",
        (T1, (2, 5, 3), (4, 2, 3)),
        {"data_format": "NWC"},
        ValueError,
        ["Received data_format='NWC'"],
    ),
    ("stride=2", (T1, (2, 5, 3), (4, 2, 3)), {"stride": 2}, TypeError, ["'stride'"]),
    (
        "output_padding forward",
        (F1, (2, 5, 3), (4, 3, 2)),
        {"output_padding": 1},
        TypeError,
        ["'output_padding'"],
    ),
    (
        "kernel longer than x",
        (F1, (2, 3, 3), (4, 3, 2)),
        {},
        ValueError,
        ["at least 4", "Received a length of 3"],
    ),
    (
        "output_size out of range",
        (T1, (2, 5, 3), (4, 2, 3)),
        {"output_size": 7},
        ValueError,
        ["8", "Received output_size=7"],
    ),
]


@pytest.mark.parametrize(("arguments", "options", "error", "words"), table(OUTPUT_SHAPE))
def test_output_shape(arguments, options, error, words):
    refuses(error, words, gpuconv.output_shape, *arguments, **options)


@pytest.mark.parametrize("name", ["in_length", "out_length", "kernel_size", "strides", "dilation_rate"])
@pytest.mark.parametrize(
    ("value", "error"),
    [*((case[0], case[1]) for case in NO_SIZES), (None, TypeError), ((2,), TypeError)],
    ids=repr,
)
def test_solve(name, value, error):
    arguments = {"in_length": 10, "out_length": 20, "kernel_size": 4, "strides": 2, "dilation_rate": 1}
    refuses(error, [f"Received {name}={value!r}"], gpuconv.solve, **arguments | {name: value})


@pytest.mark.parametrize("name", ["in_length", "kernel_size", "strides", "dilation_rate"])
def test_solve_zero(name):
    arguments = {"in_length": 10, "out_length": 20, "kernel_size": 4, "strides": 2, "dilation_rate": 1}
    refuses(ValueError, [f"Received {name}=0"], gpuconv.solve, **arguments | {name: 0})


@pytest.mark.parametrize("value", ["NHWC", "", 1, True, b"channels_last", ["channels_last"], {}], ids=repr)
def test_set_image_data_format(value):
    refuses(ValueError, [f"Received data_format={value!r}"], config.set_image_data_format, value)
    assert config.image_data_format() == "channels_last"


@pytest.fixture
def keras_home(tmp_path, monkeypatch):
    """A folder for keras.json, read anew."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    config.set_image_data_format(None)
    yield tmp_path
    config.set_image_data_format(None)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        pytest.param("{", "Expecting", id="cut off"),
        pytest.param("", "Expecting", id="empty"),
        pytest.param("[]", "list", id="a list"),
        pytest.param('"channels_last"', "str", id="a string"),
        pytest.param("3", "int", id="a number"),
        pytest.param("null", "None", id="null"),
        pytest.param('{"image_data_format": "NHWC"}', "'NHWC'", id="unknown format"),
        pytest.param('{"image_data_format": null}', "None", id="no format"),
        pytest.param('{"image_data_format": ["channels_last"]}', "['channels_last']", id="list of formats"),
        pytest.param("\xff", "decode", id="not UTF-8"),
    ],
)
def test_keras_json(keras_home, text, word):
    (keras_home / "keras.json").write_text(text, encoding="latin-1")
    words = ["keras.json", "Received", word, "data_format="]
    refuses(ValueError, words, gpuconv.conv1d_transpose, *map(np.ones, SHAPES[T1]))


# --- layers --------------------------------------------------------------------------------------

LAYER = {"filters": 4, "kernel_size": 3}
LAYER_ARGUMENTS = [
    *(
        (f"{name}={case[0]!r}", {name: case[0]}, case[1], ["Received", name, repr(case[0])])
        for name in ("filters", "kernel_size", "strides", "dilation_rate", "groups")
        for case in [*NO_SIZES[:8], NO_SIZES[9], NO_SIZES[12], ZERO[0]]
        if len(case) == 2
    ),
    ("filters=None", {"filters": None}, TypeError, ["Received filters=None"]),
    ("filters=(4,)", {"filters": (4,)}, TypeError, ["Received filters=(4,)"]),
    ("kernel_size=(3, 3)", {"kernel_size": (3, 3)}, ValueError, ["Received kernel_size=(3, 3)"]),
    ("strides=(1, 1)", {"strides": (1, 1)}, ValueError, ["Received strides=(1, 1)"]),
    (
        "strides with dilation",
        {"strides": 2, "dilation_rate": 2},
        ValueError,
        ["Received strides=2", "dilation_rate=2", "gpuconv.conv1d_transpose"],
    ),
    ("output_padding=2", {"strides": 2, "output_padding": 2}, ValueError, ["Received output_padding=", "2"]),
    ("output_padding=1, stride 1", {"output_padding": 1}, ValueError, ["Received output_padding=", "1"]),
    ("output_padding=-1", {"output_padding": -1}, ValueError, ["Received output_padding=-1"]),
    (
        "output_padding below the dilation",
        {"dilation_rate": 3, "output_padding": 2},
        ValueError,
        ["output_padding=2"],
    ),
    (
        "padding='causal'",
        {"padding": "causal"},
        ValueError,
        ["Received padding='causal'", "crop on the right, with padding=(0, "],
    ),
    ("padding='full'", {"padding": "full"}, ValueError, ["Received padding='full'"]),
    ("padding=None", {"padding": None}, TypeError, ["Received padding=None"]),
    ("padding=-1", {"padding": -1}, ValueError, ["Received padding=-1"]),
    ("data_format='NWC'", {"data_format": "NWC"}, ValueError, ["Received data_format='NWC'"]),
    ("groups=3", {"groups": 3}, ValueError, ["groups=3", "filters=4"]),
    ("activation='rleu'", {"activation": "rleu"}, ValueError, ["'rleu'", "'relu'", "Received"]),
    ("activation=3", {"activation": 3}, TypeError, ["Received", "3"]),
    (
        "kernel_initializer='glorot'",
        {"kernel_initializer": "glorot_unifrom"},
        ValueError,
        ["Received", "'glorot_unifrom'", "'glorot_uniform'"],
    ),
    ("kernel_initializer=3", {"kernel_initializer": 3}, TypeError, ["Received", "3"]),
    (
        "bias_initializer='zeroes'",
        {"bias_initializer": "zeroes"},
        ValueError,
        ["Received", "'zeroes'", "'zeros'"],
    ),
    ("kernel_regularizer='l3'", {"kernel_regularizer": "l3"}, ValueError, ["Received", "'l3'"]),
    ("bias_regularizer=0.01", {"bias_regularizer": 0.01}, TypeError, ["Received", "0.01"]),
    ("activity_regularizer='l3'", {"activity_regularizer": "l3"}, ValueError, ["Received", "'l3'"]),
    (
        "kernel_constraint='maxnrom'",
        {"kernel_constraint": "max_nrom"},
        ValueError,
        ["Received", "'max_nrom'", "'max_norm'"],
    ),
    ("bias_constraint=2", {"bias_constraint": 2}, TypeError, ["Received", "2"]),
    ("dtype='int32'", {"dtype": "int32"}, ValueError, ["Received dtype='int32'"]),
    ("dtype='float23'", {"dtype": "float23"}, ValueError, ["Received dtype='float23'"]),
    ("dtype=3", {"dtype": 3}, ValueError, ["Received dtype=3"]),
    ("dtype={}", {"dtype": {}}, ValueError, ["Received dtype={}"]),
    ("dtype=[]", {"dtype": []}, ValueError, ["Received dtype=[]"]),
    ("name=''", {"name": ""}, ValueError, ["Received name=''"]),
    ("name='a/b'", {"name": "a/b"}, ValueError, ["Received name='a/b'"]),
    ("name=3", {"name": 3}, ValueError, ["Received name=3"]),
    ("seed=-1", {"seed": -1}, ValueError, ["Received seed=-1"]),
    ("seed=1.5", {"seed": 1.5}, ValueError, ["Received seed=1.5"]),
    ("seed='a'", {"seed": "a"}, TypeError, ["Received seed='a'"]),
    ("seed unused", {"seed": "a", "kernel_initializer": "zeros"}, TypeError, ["Received seed='a'"]),
    ("input_shape=3", {"input_shape": 3}, TypeError, ["Received input_shape=3"]),
    ("input_shape=(-1, 3)", {"input_shape": (-1, 3)}, ValueError, ["Received input_shape=(-1, 3)"]),
    (
        "both shapes",
        {"input_shape": (5, 3), "batch_input_shape": (2, 5, 3)},
        ValueError,
        ["batch_input_shape=(2, 5, 3)", "input_shape=(5, 3)"],
    ),
    ("batch_size=0", {"batch_size": 0, "input_shape": (5, 3)}, ValueError, ["Received batch_size=0"]),
    ("stride=2", {"stride": 2}, TypeError, ["'stride'"]),
    ("filter=2", {"filter": 2}, TypeError, ["'filter'"]),
    ("rank=1", {"rank": 1}, TypeError, ["'rank'"]),
]


@pytest.mark.parametrize(("changes", "error", "words"), table(LAYER_ARGUMENTS))
def test_layer_arguments(changes, error, words):
    refuses(error, words, layers.Conv1DTranspose, **LAYER | changes)


def layer(kind="Conv1DTranspose", *, built=None, **changes):
    made = getattr(layers, kind)(**LAYER | changes)
    if built is not None:
        made.build(built)
    return made


def weights(*shapes):
    return [np.ones(shape) for shape in shapes]


BUILT = (None, None, 3)
LAYER_CALLS = [
    (
        "causal forward 2-D",
        lambda: layer("Conv2D", padding="causal"),
        ValueError,
        ["Received padding='causal'"],
    ),
    (
        "forward groups",
        lambda: layer("Conv1D", groups=2)(np.ones((2, 5, 3))),
        ValueError,
        ["groups=2", "(2, 5, 3)"],
    ),
    (
        "groups of channels",
        lambda: layer(groups=2)(np.ones((2, 5, 3))),
        ValueError,
        ["groups=2", "(2, 5, 3)"],
    ),
    ("no channels", lambda: layer(built=(None, 5, None)), ValueError, ["Received", "(None, 5, None)"]),
    ("zero channels", lambda: layer(built=(None, 5, 0)), ValueError, ["Received", "(None, 5, 0)"]),
    ("build(2 dimensions)", lambda: layer(built=(5, 3)), ValueError, ["3 dimensions", "(5, 3)"]),
    ("build(3)", lambda: layer(built=3), TypeError, ["Received input_shape=3"]),
    ("build(text)", lambda: layer(built="5,3"), TypeError, ["Received input_shape='5,3'"]),
    ("build(negative)", lambda: layer(built=(2, -5, 3)), ValueError, ["Received input_shape=(2, -5, 3)"]),
    ("call of 2 dimensions", lambda: layer()(np.ones((5, 3))), ValueError, ["3 dimensions", "(5, 3)"]),
    (
        "call of 4 dimensions",
        lambda: layer()(np.ones((2, 5, 5, 3))),
        ValueError,
        ["3 dimensions", "(2, 5, 5, 3)"],
    ),
    (
        "built, call of 2 dimensions",
        lambda: layer(built=BUILT)(np.ones((5, 3))),
        ValueError,
        ["Received", "(5, 3)"],
    ),
    (
        "built for other channels",
        lambda: layer(built=BUILT)(np.ones((2, 5, 4))),
        ValueError,
        ["3 channels", "(2, 5, 4)"],
    ),
    ("call of a list", lambda: layer()([[1.0]]), TypeError, ["inputs", "Received", "list"]),
    ("call of None", lambda: layer()(None), TypeError, ["inputs", "Received", "None"]),
    (
        "call of a masked array",
        lambda: layer()(np.ma.ones((2, 5, 3))),
        TypeError,
        ["Received", "MaskedArray"],
    ),
    ("call of text", lambda: layer()(np.full((2, 5, 3), "a")), TypeError, ["Received", "str"]),
    ("call of digits", lambda: layer()(np.full((2, 5, 3), "1")), TypeError, ["Received", "str"]),
    ("call of dates", lambda: layer()(np.zeros((2, 5, 3), "M8[s]")), TypeError, ["Received", "datetime64"]),
    ("call of objects", lambda: layer()(np.ones((2, 5, 3), object)), TypeError, ["Received", "object"]),
    (
        "call of complex",
        lambda: layer()(np.ones((2, 5, 3), complex)),
        TypeError,
        ["float32", "Received complex128"],
    ),
    ("call without input", lambda: layer()(), TypeError, ["'inputs'"]),
    ("kernel before build", lambda: layer().kernel, AttributeError, ["kernel", "Received"]),
    ("bias before build", lambda: layer().bias, AttributeError, ["bias", "Received"]),
    ("count before build", lambda: layer().count_params(), ValueError, ["count_params", "Received"]),
    ("set before build", lambda: layer().set_weights([]), ValueError, ["set_weights", "Received"]),
    (
        "set of one array",
        lambda: layer(built=BUILT).set_weights(weights((3, 4, 3))),
        ValueError,
        ["Received shapes [(3, 4, 3)]"],
    ),
    (
        "set of three arrays",
        lambda: layer(built=BUILT).set_weights(weights((3, 4, 3), (4,), (4,))),
        ValueError,
        ["Received shapes"],
    ),
    (
        "set of other shapes",
        lambda: layer(built=BUILT).set_weights(weights((3, 3, 4), (4,))),
        ValueError,
        ["(3, 4, 3)", "Received shapes [(3, 3, 4), (4,)]"],
    ),
    ("set of an array", lambda: layer(built=BUILT).set_weights(np.ones(3)), ValueError, ["Received shapes"]),
    ("set of None", lambda: layer(built=BUILT).set_weights(None), TypeError, ["None"]),
    (
        "set of complex",
        lambda: layer(built=BUILT).set_weights([np.ones((3, 4, 3), complex), np.ones(4)]),
        TypeError,
        ["Received complex128"],
    ),
    (
        "weights of other shapes",
        lambda: layer(weights=weights((3, 3, 4), (4,)), built=BUILT),
        ValueError,
        ["Received shapes"],
    ),
    (
        "output shape of 2 dimensions",
        lambda: layer().compute_output_shape((5, 3)),
        ValueError,
        ["3 dimensions", "(5, 3)"],
    ),
    (
        "output shape of no channels",
        lambda: layer().compute_output_shape((2, 5, None)),
        ValueError,
        ["(2, 5, None)"],
    ),
    (
        "output shape negative",
        lambda: layer().compute_output_shape((2, -5, 3)),
        ValueError,
        ["Received", "-5"],
    ),
    (
        "relu of complex",
        lambda: layer(dtype="complex64", activation="relu")(np.ones((2, 5, 3))),
        TypeError,
        ["relu", "complex64"],
    ),
    (
        "crops above the output",
        lambda: layer(padding=9)(np.ones((2, 5, 3))),
        ValueError,
        ["at most the 7", "padding=(9, 9)"],
    ),
    (
        "config of another class",
        lambda: layers.Conv1D.from_config({"class_name": "Conv2D", "config": LAYER}),
        ValueError,
        ["Received class_name='Conv2D'"],
    ),
    (
        "config of unknown settings",
        lambda: layers.Conv1D.from_config({**LAYER, "stride": 2}),
        TypeError,
        ["'stride'"],
    ),
    ("layer without call", lambda: layers.Layer()(np.ones(3)), NotImplementedError, ["call(self, inputs)"]),
    ("Activation('rleu')", lambda: layers.Activation("rleu"), ValueError, ["'rleu'", "'relu'"]),
    ("Dropout(2)", lambda: layers.Dropout(2), ValueError, ["Received rate=2"]),
    ("Dropout(nan)", lambda: layers.Dropout(NAN), ValueError, ["Received rate=nan"]),
    ("Dropout('half')", lambda: layers.Dropout("half"), TypeError, ["Received rate='half'"]),
    ("Dropout(True)", lambda: layers.Dropout(True), TypeError, ["Received rate=True"]),
    (
        "Dropout noise_shape",
        lambda: layers.Dropout(0.5, (3, 1))(np.ones((2, 2)), training=True),
        ValueError,
        ["(3, 1)", "(2, 2)"],
    ),
    ("Input()", lambda: layers.Input(), ValueError, ["Received neither"]),
    (
        "Input of both",
        lambda: layers.Input((5, 3), batch_shape=(2, 5, 3)),
        ValueError,
        ["Received", "(5, 3)"],
    ),
    (
        "Input sparse",
        lambda: layers.Input.from_config({"shape": (5, 3), "sparse": True}),
        NotImplementedError,
        ["Received sparse=True"],
    ),
    ("Sequential of no layer", lambda: layers.Sequential([3]), TypeError, ["Received 3"]),
    ("Sequential of a layer alone", lambda: layers.Sequential(layer()), TypeError, ["Conv1DTranspose"]),
    (
        "Sequential of twins",
        lambda: layers.Sequential([layer(name="a"), layer(name="a")]),
        ValueError,
        ["Received another 'a'"],
    ),
    (
        "Sequential, late Input",
        lambda: layers.Sequential([layer(), layers.Input((5, 3))]),
        ValueError,
        ["Received", "Input"],
    ),
    ("Sequential pop of none", lambda: layers.Sequential().pop(), ValueError, ["Received", "without layers"]),
    (
        "Sequential shape before build",
        lambda: layers.Sequential([layer()]).output_shape,
        ValueError,
        ["Received"],
    ),
    (
        "Sequential of other channels",
        lambda: layers.Sequential([layers.Input((5, 3)), layer(), layer(groups=2, built=(None, 5, 8))]),
        ValueError,
        ["8", "4"],
    ),
]


@pytest.mark.parametrize(("call", "error", "words"), table(LAYER_CALLS))
def test_layer_calls(call, error, words):
    refuses(error, words, call)


def test_refused_weights_replace_nothing():
    built = layer(built=BUILT)
    before = built.get_weights()
    refuses(ValueError, ["Received shapes"], built.set_weights, weights((3, 4, 3), (5,)))
    refuses(TypeError, ["complex"], built.set_weights, [np.ones((3, 4, 3)), np.ones(4, complex)])
    for mine, kept in zip(built.get_weights(), before, strict=True):
        np.testing.assert_array_equal(mine, kept)


def test_backends_are_watched():
    """The guard above is what a right call runs into."""
    with pytest.raises(pytest.fail.Exception, match="a backend ran"):
        gpuconv.conv1d_transpose(*map(np.ones, SHAPES[T1]))
    xp = pytest.importorskip("array_api_strict", reason="array_api_strict is not installed")
    with pytest.raises(pytest.fail.Exception, match="a backend ran"):
        gpuconv.conv1d(*(xp.ones(shape) for shape in SHAPES[F1]))
