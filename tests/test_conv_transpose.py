"""Both convolutions against the plain loops of oracle.py, over everything that can be asked for."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import gpuconv
from gpuconv import ops
from gpuconv.backends import generic
from gpuconv.namespace import astype, dtype_name, like, to_numpy
from gpuconv.ops.shapes import geometry_of
from tests import oracle
from tests.reference import expected
from tests.strategies import cases

DTYPES = ["float16", "bfloat16", "float32", "float64", "complex64", "complex128"]


def op_of(case):
    return getattr(gpuconv, case.op)


def channels_first(array):
    return np.moveaxis(array, -1, 1)


def run(case, data_format="channels_last", dtype=np.float64, to=np.asarray, **options):
    """Call the op on the case's arrays as `to` makes them, and give back a channels_last NumPy array."""
    x = case.x if data_format == "channels_last" else channels_first(case.x)
    arrays = [None if a is None else to(np.array(a, dtype)) for a in (x, case.kernel, case.bias)]
    y = op_of(case)(*arrays, data_format=data_format, groups=case.groups, **case.settings, **options)
    return y if data_format == "channels_last" else np.moveaxis(np.asarray(y), 1, -1)


@given(case=cases(), data_format=st.sampled_from(["channels_last", "channels_first"]))
def test_equals_the_loops_exactly_on_integers(case, data_format):
    wanted = expected(case)
    if wanted is None:
        with pytest.raises(ValueError, match="Received"):
            run(case, data_format)
        return
    y = run(case, data_format)
    assert y.shape == wanted.shape
    np.testing.assert_array_equal(y, wanted)


@given(case=cases(), name=st.sampled_from(DTYPES))
def test_every_dtype_is_exact_on_integers(case, name):
    dtype = pytest.importorskip("ml_dtypes").bfloat16 if name == "bfloat16" else np.dtype(name)
    if name.startswith("complex"):
        case.x = case.x * (1 + 2j)
    wanted = expected(case)
    assume(wanted is not None)
    y = run(case, dtype=dtype)
    assert y.dtype == dtype
    # bfloat16 holds integers up to 256: rounding the exact value once is all that may happen.
    np.testing.assert_array_equal(y, np.asarray(wanted).astype(dtype))


@given(case=cases(), copies=st.sampled_from([1, 2, 16]))
def test_the_generic_backend_equals_the_loops(case, copies):
    """The path of torch and JAX, here driven with NumPy's own namespace for speed."""
    wanted = expected(case)
    assume(wanted is not None)
    geometry = geometry_of(
        case.transposed, case.ndim, case.x.shape, case.kernel.shape, True, case.groups, **case.settings
    )
    function = generic.conv_transpose if case.transposed else generic.conv
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generic, "_COPIES", copies)  # taps that are gathered at once
        y = function(geometry, case.x, case.kernel, case.bias, None, channels_last=True, dtype="float64")
    assert y.shape == wanted.shape
    np.testing.assert_array_equal(y, wanted)


FIXED = [  # ndim, x, kernel, groups, settings of a transposed convolution
    (1, (2, 5, 4), (3, 6, 4), 1, {"strides": 2}),
    (1, (2, 5, 8), (4, 1, 8), 8, {"strides": 3, "padding": "same"}),
    (1, (2, 5, 4), (5, 3, 4), 2, {"strides": 2, "dilation_rate": 3, "output_padding": 2}),
    (1, (1, 7, 64), (9, 1, 64), 1, {"strides": 4, "padding": (3, 1)}),
    (2, (1, 3, 4, 2), (3, 2, 5, 2), 1, {"strides": (2, 1), "padding": "same_lower"}),
    (3, (1, 2, 2, 3, 2), (2, 2, 2, 3, 2), 1, {"strides": 2, "padding": "same"}),
    (1, (0, 5, 4), (3, 6, 4), 1, {"strides": 2}),
    (1, (2, 0, 4), (3, 6, 4), 1, {"strides": 2}),
]


@pytest.mark.parametrize(("ndim", "x_shape", "kernel_shape", "groups", "settings"), FIXED)
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_every_library_gives_its_own_kind_and_the_same_numbers(
    xp, ndim, x_shape, kernel_shape, groups, settings, data_format
):
    rng = np.random.default_rng(7)
    x, kernel = rng.integers(-4, 5, x_shape) * 1.0, rng.integers(-4, 5, kernel_shape) * 1.0
    bias = rng.integers(-4, 5, kernel_shape[-2] * groups) * 1.0
    if data_format == "channels_first":
        x = channels_first(x)
    options = {"groups": groups, "data_format": data_format, "activation": "relu", **settings}
    wanted = getattr(gpuconv, f"conv{ndim}d_transpose")(x, kernel, bias, **options)
    arrays = [xp.asarray(np.ascontiguousarray(a)) for a in (x, kernel, bias)]
    y = getattr(gpuconv, f"conv{ndim}d_transpose")(*arrays, **options)
    assert type(y) is type(arrays[0])
    np.testing.assert_array_equal(to_numpy(y), wanted)
    back = getattr(gpuconv, f"conv{ndim}d")(y, arrays[1], groups=groups, data_format=data_format)
    assert type(back) is type(arrays[0])


@given(case=cases(ndims=(1, 2), transposed=(True,)))
def test_adjoint(case):
    """<conv_transpose(x), y> = <x, conv(y)> with the same kernel, strides, dilation and crops."""
    case.settings = {
        "strides": case.strides,
        "dilation_rate": case.dilations,
        "padding": [(1, 0)] * case.ndim,
    }
    case.bias = None
    case.x = case.x + 1j * case.x[::-1]
    wanted = expected(case)
    assume(wanted is not None and wanted.size)
    y = run(case, dtype=complex)
    rng = np.random.default_rng(0)
    dual = rng.integers(-4, 5, y.shape) + 1j * rng.integers(-4, 5, y.shape)
    forward = getattr(gpuconv, f"conv{case.ndim}d")
    back = forward(dual, case.kernel, groups=case.groups, **case.settings)
    assert np.vdot(y, dual) == np.vdot(case.x, back)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize(
    ("x_shape", "kernel_shape", "groups", "strides"),
    [
        ((2, 300, 64), (16, 32, 64), 1, 8),
        ((2, 300, 128), (25, 1, 128), 1, 4),
        ((2, 300, 16), (12, 1, 16), 16, 2),
    ],
)
def test_error_bound(dtype, x_shape, kernel_shape, groups, strides):
    """|y - exact| <= terms * eps * (|x| conv_transpose |W|), plus one rounding to a half type."""
    rng = np.random.default_rng(3)
    x, kernel = rng.standard_normal(x_shape), rng.standard_normal(kernel_shape)
    if dtype.startswith("complex"):
        x = x + 1j * rng.standard_normal(x_shape)
    x, kernel = x.astype(dtype), kernel.astype(dtype)
    y = gpuconv.conv1d_transpose(x, kernel, strides=strides, groups=groups)
    exact = oracle.conv_transpose(x, kernel, (strides,), (1,), (0,), y.shape[1:2], groups)
    size = oracle.conv_transpose(abs(x), abs(kernel), (strides,), (1,), (0,), y.shape[1:2], groups)
    terms = -(-kernel_shape[0] // strides) * x_shape[-1] // groups
    working = {"float16": "float32"}.get(dtype, dtype)
    # A complex product costs three more roundings than a real one.
    bound = (terms + 4) * np.finfo(working).eps * size
    if dtype == "float16":
        bound += np.finfo(dtype).eps / 2 * abs(exact) * (1 + 1e-3) + np.finfo(dtype).smallest_subnormal
    assert np.all(abs(y - exact) <= bound)


def test_jax_traces_one_array_and_not_the_other():
    jax = pytest.importorskip("jax", reason="jax is not installed: pip install gpuconv[peers]")
    x, kernel = jax.numpy.ones((2, 10, 3)), jax.numpy.ones((3, 4, 3))
    wanted = gpuconv.conv1d_transpose(x, kernel)
    for made in (
        jax.jit(lambda x: gpuconv.conv1d_transpose(x, kernel))(x),
        jax.jit(lambda kernel: gpuconv.conv1d_transpose(x, kernel))(kernel),
        jax.vmap(lambda sample: gpuconv.conv1d_transpose(sample[None], kernel)[0])(x),
    ):
        np.testing.assert_array_equal(made, wanted)
    slope = jax.grad(lambda kernel: gpuconv.conv1d_transpose(x, kernel).sum())(kernel)
    np.testing.assert_array_equal(slope, np.full((3, 4, 3), 20.0))


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_half_types_of_other_libraries(xp, name):
    pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed: pip install gpuconv[test]")
    x, kernel = (like(astype(np.ones(shape), "float32"), xp.zeros(1)) for shape in ((1, 5, 2), (3, 4, 2)))
    if xp.__name__ == "array_api_strict":
        with pytest.raises(NotImplementedError, match=f"Received {name}"):
            astype(x, name)
        return
    x, kernel = astype(x, name), astype(kernel, name)
    y = gpuconv.conv1d_transpose(x, kernel)
    assert dtype_name(y.dtype) == name
    np.testing.assert_array_equal(to_numpy(y)[0, :, 0].astype(float), [2, 4, 6, 6, 6, 4, 2])


def test_same_arrays_same_bits():
    """Wherever they lie in memory: at another address, with other strides."""
    rng = np.random.default_rng(5)
    x, kernel = rng.standard_normal((3, 1000, 48)), rng.standard_normal((11, 20, 48))
    results = set()
    for shift in range(4):
        room = np.empty(x.size + 8)
        moved = room[shift : shift + x.size].reshape(x.shape)
        moved[...] = x
        spread = np.repeat(x, 2 + shift, axis=1)[:, :: 2 + shift]
        results |= {gpuconv.conv1d_transpose(a, kernel, strides=4).tobytes() for a in (moved, spread)}
    assert len(results) == 1


@pytest.mark.parametrize("make", ["slices", "transposed", "read-only", "reversed", "big-endian", "fortran"])
def test_any_memory_layout_of_the_input(make):
    rng = np.random.default_rng(1)
    x, kernel = rng.integers(-4, 5, (2, 6, 3)) * 1.0, rng.integers(-4, 5, (3, 4, 3)) * 1.0
    wanted = gpuconv.conv1d_transpose(x, kernel, strides=2)
    layouts = {
        "slices": lambda a: np.repeat(np.repeat(a, 2, 0), 2, 2)[::2, :, ::2],
        "transposed": lambda a: np.ascontiguousarray(a.T).T,
        "reversed": lambda a: a[::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1],
        "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
        "fortran": np.asfortranarray,
        "read-only": np.copy,
    }
    x, kernel = layouts[make](x), layouts[make](kernel)
    x.flags.writeable = kernel.flags.writeable = False
    y = gpuconv.conv1d_transpose(x, kernel, strides=2)
    np.testing.assert_array_equal(y, wanted)
    assert y.dtype == np.dtype("=f8")
    assert y.flags.writeable


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("activation", [None, "relu", "softmax", np.negative])
@pytest.mark.parametrize("strided", [False, True])
def test_out_is_written_and_returned(data_format, activation, strided):
    rng = np.random.default_rng(2)
    x = rng.standard_normal((2, 7, 7)).astype(np.float32)
    kernel = rng.standard_normal((3, 5, 7)).astype(np.float32)
    options = {"strides": 2, "data_format": data_format, "activation": activation}
    wanted = gpuconv.conv1d_transpose(x, kernel, **options)
    memory = np.full((wanted.shape[0], wanted.shape[1], 2 * wanted.shape[2]), np.nan, np.float32)
    out = memory[..., ::2] if strided else np.full_like(wanted, np.nan)
    assert gpuconv.conv1d_transpose(x, kernel, out=out, **options) is out
    np.testing.assert_array_equal(out, wanted)
    assert np.isnan(memory[..., 1::2]).all()


def test_out_may_overlap_the_input():
    x = np.random.default_rng(4).standard_normal((1, 8, 3))
    kernel = np.random.default_rng(5).standard_normal((3, 3, 3))
    wanted = gpuconv.conv1d_transpose(x, kernel, padding="same")
    assert gpuconv.conv1d_transpose(x, kernel, padding="same", out=x) is x
    np.testing.assert_array_equal(x, wanted)


def test_appended_samples_get_bias_and_activation():
    """Where the right crop is negative the output is as long as asked, for every algorithm."""
    for channels, filters in [(1, 1), (64, 1)]:
        x, kernel = np.ones((1, 2, channels)), np.ones((2, filters, channels))
        y = gpuconv.conv1d_transpose(x, kernel, np.full(filters, -3.0), strides=4, activation="exponential")
        assert y.shape == (1, 8, filters)
        np.testing.assert_array_equal(y[0, [2, 3, 6, 7]], np.exp(np.full((4, filters), -3.0)))


@pytest.mark.parametrize(
    ("x", "kernel", "bias", "wanted"),
    [
        ("float32", "float64", None, "float64"),
        ("float16", "float32", None, "float32"),
        ("float32", "complex64", None, "complex64"),
        ("float64", "complex64", None, "complex128"),
        ("float32", "float32", "float64", "float64"),
        ("float16", "float16", "float16", "float16"),
    ],
)
def test_dtypes_are_promoted_as_the_standard_says(x, kernel, bias, wanted):
    y = gpuconv.conv1d_transpose(
        np.ones((1, 3, 2), x), np.ones((2, 2, 2), kernel), None if bias is None else np.ones(2, bias)
    )
    assert y.dtype == wanted


@pytest.mark.parametrize("op", ["conv1d_transpose", "conv1d"])
def test_half_types_are_summed_in_float32(op):
    """4096 ones and then one more: float16 alone would stop counting at 2048."""
    x, kernel = np.ones((1, 1, 4097), np.float16), np.ones((1, 1, 4097), np.float16)
    if op == "conv1d":
        kernel = kernel.transpose(0, 2, 1)
    assert getattr(gpuconv, op)(x, kernel)[0, 0, 0] == np.float16(4097)


def accepts(x, kernel, padding, size):
    try:
        y = gpuconv.conv1d_transpose(x, kernel, strides=3, padding=padding, output_size=size)
    except ValueError:
        return False
    return y.shape == (1, size, 1)


def test_output_size_is_a_length_that_the_forward_convolution_takes_back():
    x, kernel = np.ones((1, 5, 1)), np.ones((4, 1, 1))
    for padding in ("valid", "same", "same_lower", 1, (0, 2)):
        accepted = [size for size in range(40) if accepts(x, kernel, padding, size)]
        back = [
            gpuconv.conv1d(np.ones((1, n, 1)), kernel, strides=3, padding=padding).shape[1] for n in accepted
        ]
        assert back == [5, 5, 5]


def test_softmax_runs_over_the_last_axis_whatever_it_holds():
    x = np.random.default_rng(0).standard_normal((2, 3, 4))
    first = gpuconv.conv1d_transpose(
        x, np.ones((2, 5, 3)), data_format="channels_first", activation="softmax"
    )
    np.testing.assert_allclose(first.sum(-1), 1, rtol=1e-14)  # time, as in Keras
    last = gpuconv.conv1d_transpose(x, np.ones((2, 5, 4)), activation="softmax")
    np.testing.assert_allclose(last.sum(-1), 1, rtol=1e-14)


def test_an_activation_may_change_the_shape():
    x, kernel = np.ones((1, 3, 2)), np.ones((1, 6, 2))
    assert gpuconv.conv1d_transpose(x, kernel, activation="glu").shape == (1, 3, 3)
    out = np.empty((1, 3, 3))
    assert gpuconv.conv1d_transpose(x, kernel, activation="glu", out=out) is out


def test_names_of_the_ops_are_exported_once():
    assert {name for name in ops.__all__ if name.startswith("conv")} == {
        f"conv{n}d{suffix}" for n in (1, 2, 3) for suffix in ("", "_transpose")
    }


def test_a_right_call_does_not_make_a_wrong_one_right():
    """A call that was checked is not checked again; True is equal to 1, and hashes alike."""
    x, kernel = np.zeros((1, 5, 2), np.float32), np.zeros((3, 4, 2), np.float32)
    for right, wrong in ((1, True), ((1,), (True,)), (((1, 1),), ((True, 1),))):
        name = "padding" if isinstance(right, tuple) and isinstance(right[0], tuple) else "strides"
        gpuconv.conv1d_transpose(x, kernel, **{name: right})
        with pytest.raises(TypeError, match=r"Received .*True"):
            gpuconv.conv1d_transpose(x, kernel, **{name: wrong})
    wide = gpuconv.conv1d_transpose(x.astype(np.float64), kernel)
    assert wide.dtype == np.float64
    with pytest.raises(TypeError, match="Cast it first"):
        gpuconv.conv1d_transpose(x.astype(np.int32), kernel)
