"""istft and upsample beside SciPy and PyTorch, on a recording; within the bounds of rounding, or exactly."""

import functools
import warnings

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import signal as peer

import gpuconv
from gpuconv._demo_files import read_recording
from gpuconv.namespace import to_numpy
from gpuconv.signal import _overlap_add, istft, upsample
from tests import emulator
from tests.bounds import assert_within_bound, fft_terms
from tests.test_cuda import Cupy, pretend

HANN = functools.partial(peer.get_window, "hann")
PRECISION = {"complex64": "float32", "complex128": "float64"}


@pytest.fixture(scope="module")
def recording():
    """1024 samples of an electrocardiogram, float32."""
    return read_recording(None).samples[0]


# --- istft ---------------------------------------------------------------------------------------


def frames_of(x, window, hop, n, onesided=True):
    """The spectra of all frames that `x` holds, by the definition; those of PyTorch with center=False."""
    wide = np.zeros(n)
    left = (n - len(window)) // 2
    wide[left : left + len(window)] = window
    pieces = np.lib.stride_tricks.sliding_window_view(x, n, axis=-1)[..., ::hop, :] * wide
    return np.swapaxes((np.fft.rfft if onesided else np.fft.fft)(pieces, axis=-1), -1, -2)


def assert_is_inverse(y, exact, spectra, window, hop, start, *, n, onesided=True, normalized=False):
    """Assert that `y` and `exact`, samples from `start` on, differ by no more than rounding explains.

    The magnitude of a frame's sample is that frame's norm: an FFT's error is a part of it, spread at will.
    """
    inverse = np.fft.irfft if onesided else np.fft.ifft
    frames = inverse(spectra.astype(complex), n=n, axis=-2) * (n**0.5 if normalized else 1)
    norms = np.sqrt(np.sum(np.abs(frames) ** 2, axis=-2)).reshape(-1, spectra.shape[-1], 1)
    wide, left = np.zeros(n), (n - len(window)) // 2
    wide[left : left + len(window)] = window
    add = functools.partial(gpuconv.conv1d_transpose, strides=hop, padding=0, data_format="channels_last")
    size = add(norms, abs(wide)[:, None, None])[..., 0]
    envelope = add(np.ones((1, spectra.shape[-1], 1)), (wide**2)[:, None, None])[0, :, 0]
    length = min(y.shape[-1], size.shape[-1] - start)
    magnitude = np.zeros(y.shape)
    part = slice(start, start + length)
    magnitude[..., :length] = (size[:, part] / envelope[part]).reshape(*spectra.shape[:-2], length)
    # Both sums have a term for each frame that overlaps, the quotient one more, and normalizing another.
    overlap = -(-n // hop)
    assert_within_bound(y, exact, magnitude, fft_terms(n) + 2 * overlap + 2, spectra.dtype.name)


@st.composite
def transforms(draw):
    """n_fft, hop, window, number of frames, and a generator for the rest."""
    n = draw(st.integers(1, 40))
    size = draw(st.integers(1, n))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    # No sample is nearly 0, which no two systems need to agree about.
    window = rng.uniform(0.5, 1.5, size) * rng.choice([-1, 1])
    return n, draw(st.integers(1, size)), window, draw(st.integers(1, 12)), rng


@given(
    transform=transforms(),
    dtype=st.sampled_from(list(PRECISION)),
    onesided=st.booleans(),
    normalized=st.booleans(),
    center=st.booleans(),
    length=st.none() | st.integers(1, 100),
)
def test_istft_is_that_of_torch(transform, dtype, onesided, normalized, center, length):
    """For any spectra, those that no signal has too. Both refuse the same windows."""
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install gpuconv[peers]")
    n, hop, window, count, rng = transform
    window, start = window.astype(PRECISION[dtype]), n // 2 if center else 0
    end, left = n + (count - 1) * hop, (n - len(window)) // 2
    stop = end - start if length is None else start + length
    # It has no result of length 0, and where a frame is one sample it takes its end, -(1 // 2), for sample 0.
    assume(start < stop and (n > 1 or not center or length))
    spectra = rng.standard_normal((2, n // 2 + 1 if onesided else n, count))
    spectra = (spectra + 1j * rng.standard_normal(spectra.shape)).astype(dtype)
    options = {"center": center, "normalized": normalized, "onesided": onesided}
    options |= {"hop_length": hop, "n_fft": n, "length": length}

    def of_torch():
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The length of signal is shorter")  # the zeros that it appends
            return torch.istft(
                torch.from_numpy(spectra),
                window=torch.from_numpy(window),
                win_length=len(window),
                return_complex=not onesided,
                **options,
            ).numpy()

    covered = np.zeros(end, bool)
    for frame in range(count):
        covered[frame * hop + left : frame * hop + left + len(window)] = True
    if not covered[start:stop].all():
        with pytest.raises(ValueError, match="least sum of 0"):
            istft(spectra, window, **options)
        with pytest.raises(RuntimeError, match="window overlap add min"):
            of_torch()
        return
    y, exact = istft(spectra, window, **options), of_torch()
    assert y.dtype == exact.dtype == (PRECISION[dtype] if onesided else dtype)
    about = {"n": n, "onesided": onesided, "normalized": normalized}
    assert_is_inverse(y, exact, spectra, window, hop, start, **about)


@given(transform=transforms(), onesided=st.booleans())
def test_a_signal_comes_back(transform, onesided):
    n, hop, _, count, rng = transform
    window = rng.uniform(0.5, 1.5, n)  # which reaches every sample
    x = rng.standard_normal((3, n + (count - 1) * hop))
    if not onesided:
        x = x + 1j * rng.standard_normal(x.shape)
    spectra = frames_of(x, window, hop, n, onesided)
    y = istft(spectra, window, hop_length=hop, n_fft=n, center=False, onesided=onesided)
    assert_is_inverse(y, x, spectra, window, hop, 0, n=n, onesided=onesided)


@pytest.mark.parametrize(("size", "hop"), [(128, 32), (100, 25), (127, 40), (64, 48)])
@pytest.mark.parametrize("scaling", [None, "magnitude", "psd"])
@pytest.mark.parametrize("phase_shift", [None, 0, 5])
def test_istft_is_that_of_scipy(recording, size, hop, scaling, phase_shift):
    """On spectra that were changed: a band is left out."""
    transform = peer.ShortTimeFFT(HANN(size), hop, 1, scale_to=scaling, phase_shift=phase_shift)
    spectra = transform.stft(recording.astype(float))
    spectra[5:9] = 0
    exact = transform.istft(spectra, k1=len(recording))
    shift = 0 if phase_shift is None else (phase_shift + transform.m_num_mid) % transform.m_num
    turn = np.exp(-2j * np.pi * shift / size * np.arange(len(spectra)))[:, None]
    turned = (spectra * turn)[:, -transform.p_min :]
    y = istft(turned, transform.win, hop_length=hop, n_fft=size, length=len(recording))
    # SciPy sums frames before the first sample, too, which reach so far.
    reach = slice(size, len(recording) - size)
    part = functools.partial(assert_is_inverse, start=size // 2 + size, n=size)
    part(y[reach], exact[reach], turned, transform.win, hop)


def test_scipys_zeros_are_on_the_right(recording):
    transform = peer.ShortTimeFFT(np.hamming(96), 24, 1, mfft=128, phase_shift=None)
    x = recording.astype(float)
    spectra = transform.stft(x)[:, -transform.p_min :]
    window = np.append(transform.win, np.zeros(32))
    y = istft(spectra, window, hop_length=24, length=900)
    begin = transform.mfft // 2 - transform.m_num_mid
    assert_is_inverse(y, x[begin : begin + 900], spectra, window, 24, 64, n=128)


def test_every_library_inverts_spectra_of_its_own(xp, recording):
    x = np.stack([recording[:500], recording[500:1000]]).reshape(2, 1, 500).astype(float)
    window = HANN(60)
    spectra = frames_of(np.pad(x, [(0, 0), (0, 0), (32, 32)]), window, 20, 64)
    y = istft(xp.asarray(spectra), xp.asarray(window), hop_length=20, length=500)
    assert type(y) is type(xp.asarray(x))
    assert_is_inverse(to_numpy(y), x, spectra, window, 20, 32, n=64)
    longer = to_numpy(istft(xp.asarray(spectra), xp.asarray(np.ones(64)), hop_length=20, length=540))
    assert longer.shape == (2, 1, 540)
    assert np.all(longer[..., 532:] == 0)  # where the last frame has ended


def test_memory_order_changes_no_bit(recording):
    spectra = frames_of(recording.astype(float), HANN(64), 16, 64)
    turned = np.ascontiguousarray(spectra.T).T
    same = istft(spectra, HANN(64)), istft(turned, HANN(64)), istft(spectra[None, None], HANN(64))[0, 0]
    assert len({y.tobytes() for y in same}) == 1


@pytest.mark.parametrize(("n", "hop", "count"), [(8, 3, 5), (64, 1, 2), (4, 4, 3), (5, 9, 2)])
def test_frames_are_added_where_they_begin(xp, n, hop, count):
    """By rows in place, where the library's arrays can be written, and by rows put together."""
    pieces = np.random.default_rng(3).integers(-9, 10, (2, count, n)).astype(np.float64)
    exact = np.zeros((2, (count - 1) * hop + -(-n // hop) * hop))
    for frame in range(count):
        exact[:, frame * hop : frame * hop + n] += pieces[:, frame]
    np.testing.assert_array_equal(to_numpy(_overlap_add(xp.asarray(pieces), hop)), exact)


def test_many_turns_write_only_what_they_add(monkeypatch):
    """Not all rows again for each of them."""
    written = []
    monkeypatch.setattr(gpuconv.signal, "zero_padded", lambda *_: written.append("rows"))
    assert _overlap_add(np.ones((1, 2, 4096)), 16).shape == (1, 4112)
    assert not written


def test_defaults_are_those_of_torch(recording):
    spectra = frames_of(recording.astype(float), HANN(64), 16, 64)
    y = istft(spectra, HANN(64))
    options = {"hop_length": 16, "n_fft": 64, "center": True, "normalized": False, "onesided": True}
    np.testing.assert_array_equal(y, istft(spectra, HANN(64), **options))
    assert y.shape == ((spectra.shape[1] - 1) * 16,)


def test_lengths():
    window, spectra = np.ones(8), np.ones((2, 5, 3), complex)
    whole = istft(spectra, window, center=False)
    assert whole.shape == (2, 12)
    longer = istft(spectra, window, center=False, length=15)
    np.testing.assert_array_equal(longer, np.pad(whole, [(0, 0), (0, 3)]))
    assert istft(spectra, window, length=0).shape == (2, 0)
    assert istft(spectra[..., :1], window).shape == (2, 0)  # the two halves of a frame are left out
    assert istft(spectra[:0], window).shape == (0, 4)


def test_torch_differentiates_istft():
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install gpuconv[peers]")
    rng = np.random.default_rng(1)
    spectra = rng.standard_normal((9, 6)) + 1j * rng.standard_normal((9, 6))
    tensors = [torch.from_numpy(a).requires_grad_() for a in (spectra, rng.uniform(0.5, 1.5, 16))]
    assert torch.autograd.gradcheck(lambda *a: istft(*a, hop_length=4), tensors)


def test_jax_traces_both():
    jax = pytest.importorskip("jax", reason="jax is not installed: pip install gpuconv[peers]")
    spectra, window = jax.numpy.ones((9, 6), "complex64"), jax.numpy.ones(16)
    y = jax.jit(lambda *a: istft(*a, hop_length=4))(spectra, window)
    np.testing.assert_allclose(y, istft(spectra, window, hop_length=4), rtol=0, atol=1e-6)
    x = jax.numpy.ones((2, 6))
    y = jax.jit(lambda x: upsample(x, 3))(x)
    np.testing.assert_allclose(y, upsample(x, 3), rtol=0, atol=1e-6)


SPECTRA, ONES, EIGHT = np.ones((5, 3), complex), np.ones(8), {"hop_length": 8}
NEARLY = np.array([2.0, 1e-7, 1, 1, 1, 1, 1, 1])  # with a hop of 8, least and largest are these squared
REFUSED = [
    (TypeError, "spectra of float64", abs(SPECTRA), ONES, {}),
    (TypeError, "spectra of int64", SPECTRA.real.astype(int), ONES, {}),
    (TypeError, "window of complex128", SPECTRA, ONES + 0j, {}),
    (TypeError, "window of int64", SPECTRA, ONES.astype(int), {}),
    (TypeError, "builtins.list", SPECTRA, [1.0] * 8, {}),
    (ValueError, r"of shape \(5,\)", SPECTRA[:, 0], ONES, {}),
    (ValueError, r"of shape \(5, 0\)", SPECTRA[:, :0], ONES, {}),
    (ValueError, r"window of shape \(8, 1\)", SPECTRA, ONES[:, None], {}),
    (ValueError, r"at most n_fft=8.*window of shape \(9,\)", SPECTRA, np.ones(9), {}),
    (ValueError, "6 frequencies for n_fft=10, onesided=True", SPECTRA, ONES, {"n_fft": 10}),
    (ValueError, "8 frequencies for n_fft=8, onesided=False", SPECTRA, ONES, {"n_fft": 8, "onesided": False}),
    (ValueError, r"at least one of each.*shape \(0, 3\)", SPECTRA[:0], ONES, {}),
    (ValueError, r"n_fft=None and spectra of shape \(1, 3\).*Pass n_fft", SPECTRA[:1], ONES, {}),
    (ValueError, "n_fft to be at least 1.*n_fft=0", SPECTRA[:1], ONES, {"n_fft": 0}),
    (ValueError, "hop_length=0", SPECTRA, ONES, {"hop_length": 0}),
    (ValueError, "hop_length=1.5", SPECTRA, ONES, {"hop_length": 1.5}),
    (ValueError, "length=-1", SPECTRA, ONES, {"length": -1}),
    (ValueError, "least sum of 0, hop_length=9", SPECTRA, ONES, {"hop_length": 9}),
    (ValueError, "center=False", SPECTRA, np.hanning(8), {"center": False}),
    (ValueError, "least sum of 0", SPECTRA, np.zeros(8), {}),
    (
        ValueError,
        "more than 1e-11 of.* largest sum of 4 and a least sum of 1e-14",
        SPECTRA,
        NEARLY,
        EIGHT,
    ),
    (ValueError, "least sum of nan", SPECTRA, np.full(8, np.nan), {}),
]


@pytest.mark.parametrize(("error", "words", "spectra", "window", "options"), REFUSED)
def test_istft_refuses(monkeypatch, error, words, spectra, window, options):
    monkeypatch.setattr(gpuconv.signal, "_overlap_add", lambda *_: pytest.fail("something was computed"))
    with pytest.raises(error, match=words):
        istft(spectra, window, **options)


def test_a_gap_outside_of_the_result_is_none():
    y = istft(SPECTRA, np.hanning(8), hop_length=4, length=4)
    assert y.shape == (4,)


def test_devices_and_libraries_are_not_mixed():
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install gpuconv[peers]")
    spectra, window = torch.ones(5, 3, dtype=torch.complex64), torch.ones(8)
    with pytest.raises(ValueError, match="spectra on cpu, window on meta"):
        istft(spectra, window.to("meta"))
    with pytest.raises(TypeError, match="spectra of torch and window of numpy"):
        istft(spectra, ONES)
    with pytest.raises(TypeError, match="x of torch and window of numpy"):
        upsample(window, 2, ONES)


# --- upsample ------------------------------------------------------------------------------------


@given(
    factor=st.integers(2, 9),
    taps=st.integers(1, 30),
    shape=st.lists(st.integers(0, 4), min_size=1, max_size=3),
    length=st.integers(1, 20),
    data=st.data(),
)
def test_upsample_is_resample_poly_exactly_on_integers(factor, taps, shape, length, data):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    shape[axis] = length
    dtype = data.draw(st.sampled_from(["float32", "float64", "complex64", "complex128"]))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    x, window = rng.integers(-4, 5, shape).astype(dtype), rng.integers(-4, 5, taps).astype("float32")
    if dtype.startswith("complex"):
        x = x * (1 + 2j)
    y = upsample(x, factor, window, axis=axis)
    exact = peer.resample_poly(x, factor, 1, axis=axis, window=window)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, exact)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("factor", [2, 3, 8, 100])
@pytest.mark.parametrize("beta", [5.0, 8])
def test_a_recording_is_upsampled_as_by_scipy(recording, dtype, factor, beta):
    x = np.stack([recording, recording[::-1]]).astype(dtype)
    if dtype.startswith("complex"):
        x[1] *= 1j
    y = upsample(x.T, factor, ("kaiser", beta), axis=0).T
    made = peer.resample_poly(x, factor, 1, axis=-1, window=("kaiser", beta))
    assert y.dtype == made.dtype
    h = peer.firwin(20 * factor + 1, 1 / factor, window=("kaiser", beta)) * factor
    size = peer.upfirdn(np.abs(h), np.abs(x), factor)[..., 10 * factor :][..., : made.shape[-1]]
    # Coefficients may be 16 * 2**-52 of the largest one apart, and round to neighbours in float32.
    spread = peer.upfirdn(np.full(len(h), h.max()), np.abs(x), factor)[..., 10 * factor :]
    size = size + spread[..., : made.shape[-1]]
    assert_within_bound(y, made, size, 21 + 16, dtype)


@pytest.mark.parametrize("factor", [2, 3, 7, 8, 50, 147, 160, 1024])
@pytest.mark.parametrize("beta", [0.0, 5.0, 14.0])
def test_coefficients_are_those_of_firwin(factor, beta):
    """What is made of an impulse is the filter.

    NumPy and SciPy both state 5.8e-16, 2.6 * 2**-52, as the largest relative error of I0. Two of them make a
    window's sample, so the two windows differ by at most 10.5 * 2**-52 of it; the sinc and the scale of the
    sum round a few times more.
    """
    x = np.zeros(21)
    x[10] = 1.0
    exact = peer.firwin(20 * factor + 1, 1 / factor, window=("kaiser", beta)) * factor
    made = upsample(x, factor, ("kaiser", beta))[: 20 * factor + 1]
    assert abs(made - exact).max() <= 16 * 2.0**-52 * exact.max()


def test_every_library_upsamples_arrays_of_its_own(xp, recording):
    x = recording.reshape(2, 4, 128)
    wanted = upsample(x, 3, axis=1)
    made = upsample(xp.asarray(x), 3, axis=1)
    assert type(made) is type(xp.asarray(x))
    assert made.dtype == xp.float32
    size = peer.upfirdn(np.full(61, 1.5), np.abs(x), 3, axis=1)[:, 30:42]
    assert_within_bound(to_numpy(made), wanted, size, 21, "float32")
    window = xp.asarray(np.array([1.0, 2.0, 3.0, 2.0], np.float32))
    whole = np.round(x * 64)
    np.testing.assert_array_equal(
        to_numpy(upsample(xp.asarray(whole), 4, window)), upsample(whole, 4, to_numpy(window))
    )


@pytest.mark.parametrize(("name", "eps"), [("float16", 2.0**-10), ("bfloat16", 2.0**-7)])
def test_half_types_are_rounded_once(name, eps):
    dtype = pytest.importorskip("ml_dtypes").bfloat16 if name == "bfloat16" else np.dtype(name)
    wide, window = np.arange(10.0), np.array([1.0, 2.0, 1.0])
    y = upsample(wide.astype(dtype), 4, window.astype(dtype))
    assert y.dtype == dtype
    np.testing.assert_array_equal(y.astype(float), upsample(wide, 4, window))
    made, exact = upsample(wide.astype(dtype), 4), upsample(wide, 4)
    assert made.dtype == dtype
    size = upsample(wide, 4, abs(peer.firwin(81, 1 / 4, window=("kaiser", 5.0))))
    # A coefficient is rounded, and the result, each by half of eps; those below 2**-25 become 0 in float16.
    assert np.all(abs(made.astype(float) - exact) <= eps * size + 4 * 2.0**-25 * wide.sum())


def test_upfirdn_is_conv1d_transpose_without_crops(recording):
    """As the Notes say it."""
    x, h = np.round(recording * 64), np.arange(-3.0, 4).astype(np.float32)
    y = gpuconv.conv1d_transpose(x[None, :, None], h[:, None, None], strides=5, padding=0)[0, :, 0]
    np.testing.assert_array_equal(y, peer.upfirdn(h, x, 5))


def test_a_factor_of_one_is_a_copy():
    x = np.arange(3.0)
    y = upsample(x, 1)
    np.testing.assert_array_equal(y, x)
    assert not np.shares_memory(x, y)
    wide = np.array([9.0])
    np.testing.assert_array_equal(upsample(x, 1, wide), peer.resample_poly(x, 1, 1, window=wide))


def test_nothing_becomes_nothing():
    assert upsample(np.ones((2, 0)), 3).shape == (2, 0)
    assert upsample(np.ones((0, 5)), 3).shape == (0, 15)


@pytest.mark.skipif(bool(emulator.missing()), reason=emulator.missing() or "")
def test_cupy_arrays_are_upsampled_by_kernels(monkeypatch):
    cupy = Cupy()
    x, window = np.arange(-6.0, 6.0).reshape(2, 6), np.array([1.0, 3.0, 2.0, 1.0])
    exact = upsample(x, 3, window)
    pretend(monkeypatch, cupy)
    y = upsample(x.view(cupy.ndarray), 3, window.view(cupy.ndarray))
    assert cupy.launched
    np.testing.assert_array_equal(y, exact)


X = np.ones((2, 5))
UNWANTED = [
    (TypeError, "x of int64", X.astype(int), 2, ("kaiser", 5.0), {}),
    (TypeError, "builtins.list", [1.0], 2, ("kaiser", 5.0), {}),
    (ValueError, "factor=0", X, 0, ("kaiser", 5.0), {}),
    (ValueError, "factor=1.5", X, 1.5, ("kaiser", 5.0), {}),
    (TypeError, "factor=True", X, True, ("kaiser", 5.0), {}),
    (ValueError, r"window=\('kaiser',\)", X, 2, ("kaiser",), {}),
    (ValueError, r"window=\('hann', 1\)", X, 2, ("hann", 1), {}),
    (ValueError, r"window=\('kaiser', 'a'\)", X, 2, ("kaiser", "a"), {}),
    (ValueError, "window='hamming'.*firwin", X, 2, "hamming", {}),
    (TypeError, "window: Expected an array. Received builtins.list", X, 2, [1.0], {}),
    (ValueError, r"window of shape \(5, 1\)", X, 2, np.ones((5, 1)), {}),
    (ValueError, r"window of shape \(0,\)", X, 2, np.ones(0), {}),
    (TypeError, "window of int64", X, 2, np.ones(3, int), {}),
    (ValueError, "axis=2", X, 2, ("kaiser", 5.0), {"axis": 2}),
    (ValueError, "axis=-3", X, 2, ("kaiser", 5.0), {"axis": -3}),
    (ValueError, r"at least one dimension. Received x of shape \(\)", np.ones(()), 2, ("kaiser", 5.0), {}),
]


@pytest.mark.parametrize(("error", "words", "x", "factor", "window", "options"), UNWANTED)
def test_upsample_refuses(error, words, x, factor, window, options):
    with pytest.raises(error, match=words):
        upsample(x, factor, window, **options)


def test_dask_arrays_stay_in_chunks(recording):
    da = pytest.importorskip("dask.array", reason="dask is not installed: pip install gpuconv[dask]")
    spectra, window = frames_of(np.stack([recording, recording]).astype(float), HANN(64), 16, 64), HANN(64)
    y = istft(da.from_array(spectra, chunks=(1, 33, 20)), da.from_array(window))
    assert y.numblocks[0] == 2
    np.testing.assert_allclose(y.compute(), istft(spectra, window), rtol=0, atol=1e-14 * abs(recording).max())
    x = np.round(recording * 64).reshape(2, 512)
    y = upsample(da.from_array(x, chunks=(1, 100)), 3, da.ones(7, dtype="float32"))
    assert y.numblocks == (2, 6)
    np.testing.assert_array_equal(y.compute(), upsample(x, 3, np.ones(7, np.float32)))


def test_lengths_that_dask_does_not_know_are_refused():
    da = pytest.importorskip("dask.array", reason="dask is not installed: pip install gpuconv[dask]")
    x = da.ones(8, chunks=4)
    unknown = x[x > 0]
    with pytest.raises(ValueError, match="compute_chunk_sizes"):
        upsample(unknown, 2)
    with pytest.raises(ValueError, match="compute_chunk_sizes"):
        istft((unknown + 0j)[:, None], x)
