"""What signals need transposed convolutions for: the inverse short-time Fourier transform, and more samples.

Both are transposed convolutions, with the hop or the factor as stride. SciPy is not needed.
"""

from __future__ import annotations

import functools
import math
import numbers
from typing import Any

import numpy as np

from gpuconv._typing import Array
from gpuconv.geometry import as_shape, crop_options, integer
from gpuconv.namespace import (
    DTYPES,
    array_namespace,
    astype,
    check_devices,
    device_of,
    dtype_name,
    dtype_named,
    is_numpy_array,
    is_traced,
    library,
    like,
    to_numpy,
    zero_padded,
)
from gpuconv.ops import Plan, conv1d_transpose, plan

__all__ = ["istft", "upsample"]

_COMPLEX, _REAL = ("complex64", "complex128"), ("float32", "float64")
#: The least that the envelope may be, as a part of its largest value. (PyTorch's number, there absolute.)
_LEAST = 1e-11


def istft(
    spectra: Array,
    window: Array,
    *,
    hop_length: int | None = None,
    n_fft: int | None = None,
    center: bool = True,
    normalized: bool = False,
    onesided: bool = True,
    length: int | None = None,
) -> Array:
    """Inverse short-time Fourier transform: the signal that has these spectra.

    With ``frame[t]`` the inverse DFT of spectrum t, window w and hop h, and sums over all frames t::

        y[n] = sum of w[n - t*h] * frame[t, n - t*h]  /  sum of w[n - t*h]**2

    which is the least-squares estimate (Griffin and Lim, Signal estimation from modified short-time Fourier
    transform, 1984). Both sums are transposed convolutions of stride h: the kernel of the upper one is the
    inverse DFT times the window, that of the lower one the squared window.

    Parameters
    ----------
    spectra : array, shape (..., frequencies, frames)
        complex64 or complex128, of any array-API library.
    window : array, shape (m,)
        The window that the spectra were made with: float32 or float64, of the same library. One that is
        shorter than `n_fft` gets zeros on both sides, on the right the odd one.
    hop_length : int, optional
        Samples from one frame to the next, by default ``n_fft // 4``.
    n_fft : int, optional
        Samples of a frame. By default ``2 * (frequencies - 1)`` if `onesided`, where an odd number must be
        given, else the number of frequencies.
    center : bool, default True
        Whether frame t has its middle at sample ``t * hop_length``: the first ``n_fft // 2`` samples are left
        out and, without `length`, as many at the end. Otherwise that is where frame t begins.
    normalized : bool, default False
        Whether the spectra were divided by ``n_fft ** 0.5``.
    onesided : bool, default True
        Whether the spectra are those of a real signal, of ``n_fft // 2 + 1`` frequencies.
    length : int, optional
        Samples of the result: where frames end before, zeros follow.

    Returns
    -------
    array, shape (..., length)
        Real if `onesided`, complex otherwise, in the precision that `spectra` and `window` promote to.

    Raises
    ------
    ValueError
        For a shape or a value that does not fit, and where the sum of the squared windows comes to less than
        1e-11 of its largest value within the result: no frame tells what the signal is there.
    TypeError
        For spectra that are not complex, a window that is not real, arrays of two libraries.

    See Also
    --------
    gpuconv.conv1d_transpose : the operation, for other kernels than the DFT.

    Notes
    -----
    The arguments mean what they mean to ``torch.istft``. The inverse DFT is the library's own FFT. The check
    of the lower sum waits for the device; where JAX traces, it is left out.

    The example inverts the spectra of ``scipy.signal.ShortTimeFFT``. That begins with ``-p_min`` frames whose
    middle is before the first sample, and counts the phase from the middle of the window unless it was made
    with ``phase_shift=None``. Its ``win`` has its scaling, its ``dual_win`` is ``win`` over the lower sum.
    Spectra that were changed give SciPy's signal too, but for the samples that those frames reach. Where
    ``mfft`` is larger than the window, SciPy has all zeros on the right: append them to `window`. The result
    then begins at sample ``mfft // 2 - m_num_mid``.

    Examples
    --------
    >>> import numpy as np
    >>> import gpuconv
    >>> from scipy.signal import ShortTimeFFT
    >>> x = np.sin(0.01 * np.arange(1000) ** 1.2)
    >>> transform = ShortTimeFFT(np.hanning(128), hop=32, fs=1)
    >>> spectra = transform.stft(x)[:, -transform.p_min :]
    >>> turn = 2 * np.pi * transform.m_num_mid / transform.mfft
    >>> spectra = spectra * np.exp(-1j * turn * np.arange(transform.f_pts))[:, None]
    >>> y = gpuconv.signal.istft(spectra, transform.win, hop_length=transform.hop, length=len(x))
    >>> bool(abs(y - x).max() < 1e-14)
    True
    """
    xp = array_namespace(spectra=spectra, window=window)
    *batch, frequencies, frames = _checked_shape(spectra, window)
    if n_fft is None:
        if onesided and frequencies == 1:
            raise ValueError(
                "Expected n_fft for spectra of one frequency. Received n_fft=None and spectra of shape "
                f"{tuple(spectra.shape)}, read as (..., frequencies, frames). Pass n_fft=1 if that is right."
            )
        n_fft = 2 * (frequencies - 1) if onesided else frequencies
    n = integer("n_fft", n_fft, 1)
    hop = integer("hop_length", max(1, n // 4) if hop_length is None else hop_length, 1)
    if frequencies != (n // 2 + 1 if onesided else n):
        raise ValueError(
            f"Expected spectra of {n // 2 + 1 if onesided else n} frequencies for n_fft={n}, "
            f"onesided={onesided}. Received spectra of shape {tuple(spectra.shape)}, read as "
            "(..., frequencies, frames). Pass the n_fft that they were made with."
        )
    lacking = n - window.shape[0]
    if lacking < 0:
        raise ValueError(
            f"Expected window of at most n_fft={n} samples. Received window of shape {tuple(window.shape)}. "
            "Pass the n_fft that the spectra were made with."
        )
    end = n + (frames - 1) * hop
    start = n // 2 if center else 0
    stop = end - start if length is None else start + integer("length", length, 0)
    kept = slice(start, min(stop, end))
    check_devices({"spectra": spectra, "window": window})
    window = zero_padded(window, 0, lacking // 2, lacking - lacking // 2)
    envelope = _envelope(window, frames, hop)[kept]
    if kept.start < kept.stop and not is_traced(envelope):
        _check_envelope(envelope, hop, center)
    inverse = xp.fft.irfft if onesided else xp.fft.ifft
    shape = (math.prod(batch), frequencies, frames)
    # Flat in between, so that a frame's samples lie together: NumPy's FFT and sums keep the order in memory.
    flat = xp.reshape(xp.permute_dims(xp.reshape(spectra, shape), (0, 2, 1)), (math.prod(shape),))
    rows = xp.reshape(flat, (shape[0], frames, frequencies))
    pieces = inverse(rows, n=n, axis=-1, norm="ortho" if normalized else "backward") * window
    y = _overlap_add(pieces, hop)[:, kept] / envelope
    y = zero_padded(y, 1, 0, max(0, stop - end))
    return xp.reshape(y, (*batch, y.shape[1]))


def _checked_shape(spectra: Array, window: Array) -> tuple[int, ...]:
    """The shape of `spectra`, after both arrays were found to be of a kind and a rank that can be."""
    _check_dtype("spectra", spectra, _COMPLEX)
    _check_dtype("window", window, _REAL)
    shape = as_shape("spectra's shape", tuple(spectra.shape))
    if len(shape) < 2 or 0 in shape[-2:]:
        raise ValueError(
            "Expected spectra of shape (..., frequencies, frames), with at least one of each. Received "
            f"spectra of shape {shape}."
        )
    if window.ndim != 1:
        raise ValueError(f"Expected window of one dimension. Received window of shape {tuple(window.shape)}.")
    return shape  # type: ignore[return-value]  # an array's lengths are known


def _check_dtype(name: str, array: Array, known: tuple[str, ...]) -> None:
    received = dtype_name(array.dtype)
    if received not in known:
        raise TypeError(
            f"Expected {name} of dtype {', '.join(known)}. Received {name} of {received}. Cast it first, for "
            f"example to {known[-1]}."
        )


def _overlap_add(pieces: Array, hop: int) -> Array:
    """The sum of all pieces, (samples, pieces, n), piece t beginning at sample t * hop.

    This is a transposed convolution of stride `hop` whose kernel is the unit matrix: nearly all its factors
    are 0, so adding alone is faster than the op.
    """
    samples, count, n = pieces.shape
    overlap = -(-n // hop) - 1
    xp, shape = array_namespace(pieces=pieces), (samples, count + overlap, hop)
    in_place = library(pieces) in ("numpy", "cupy")
    rows: Any = xp.zeros(shape, dtype=pieces.dtype, device=device_of(pieces)) if in_place else None
    for turn in range(overlap + 1):
        # The samples that come `turn` hops after the beginning of their piece.
        some = pieces[:, :, turn * hop : min((turn + 1) * hop, n)]
        if in_place:  # else all rows are added again for every turn
            rows[:, turn : turn + count, : some.shape[2]] += some
        else:
            some = zero_padded(zero_padded(some, 2, 0, hop - some.shape[2]), 1, turn, overlap - turn)
            rows = some if rows is None else rows + some
    return xp.reshape(rows, (samples, (count + overlap) * hop))


def _envelope(window: Array, frames: int, hop: int) -> Array:
    """The sum of the squared windows of all frames."""
    xp = array_namespace(window=window)
    ones = xp.ones((1, frames, 1), dtype=window.dtype, device=device_of(window))
    square = (window * window)[:, None, None]
    return conv1d_transpose(ones, square, strides=hop, padding=0, data_format="channels_last")[0, :, 0]


def _check_envelope(envelope: Array, hop: int, center: bool) -> None:
    xp = array_namespace(envelope=envelope)
    least, most = (float(to_numpy(extreme(envelope))) for extreme in (xp.min, xp.max))
    # Written so that a NaN is refused.
    if not least > _LEAST * most:
        raise ValueError(
            f"Expected windows whose squares sum to more than {_LEAST} of the largest sum in every sample of "
            f"the result. Received a window with a largest sum of {most:.2g} and a least sum of {least:.2g}, "
            f"hop_length={hop}, center={center}. Take a smaller hop_length, center=True or a length that "
            "ends before."
        )


def upsample(x: Array, factor: int, window: Any = ("kaiser", 5.0), *, axis: int = -1) -> Array:
    """Put `factor` samples in place of each, by zeros between them and a low-pass filter.

    With the filter's coefficients h, of which there are k, and the sums over all samples i of `x`::

        y[n] = sum of x[i] * factor * h[n + (k - 1) // 2 - i * factor]

    Sample i of `x` is where sample ``i * factor`` of the result is; beyond its ends `x` is 0.

    Parameters
    ----------
    x : array
        Of any array-API library: float16, bfloat16, float32, float64, complex64 or complex128.
    factor : int
        Samples per sample; 1 gives a copy.
    window : ("kaiser", float) or array, shape (k,)
        A Kaiser window's beta, for a sinc of ``20 * factor + 1`` coefficients that cuts off at half the
        sampling rate of `x`; or the coefficients, of the same library, as ``scipy.signal.firwin`` makes them.
        Not applied where `factor` is 1.
    axis : int, default -1
        The axis of time; all others are signals of their own.

    Returns
    -------
    array
        `axis` is `factor` times as long. Of the dtype of `x`, or what that and coefficients promote to. A
        copy of `x` where `factor` is 1, whatever the window, as in SciPy.

    Raises
    ------
    ValueError, TypeError
        For an argument that is none of these, naming what was received.

    See Also
    --------
    gpuconv.conv1d_transpose : other crops.
    gpuconv.stream : the same on a signal that comes in chunks.

    Notes
    -----
    The numbers are those of ``scipy.signal.resample_poly(x, factor, 1, axis, window)``. The coefficients that
    a Kaiser window makes differ from SciPy's by rounding: by at most 16 * 2**-52 of the largest one. What
    ``scipy.signal.upfirdn(h, x, up)`` makes of a signal, nothing cropped, is
    ``conv1d_transpose(x[None, :, None], h[:, None, None], strides=up, padding=0)[0, :, 0]``.

    Examples
    --------
    >>> import numpy as np
    >>> import gpuconv
    >>> x = np.array([0.0, 1.0, 4.0, 1.0, 0.0])
    >>> gpuconv.signal.upsample(x, 2, np.array([0.25, 0.5, 0.25]))  # linear interpolation
    array([0. , 0.5, 1. , 2.5, 4. , 2.5, 1. , 0.5, 0. , 0. ])
    >>> gpuconv.signal.upsample(x, 2).round(2)
    array([-0.  , -0.06,  1.  ,  2.97,  4.  ,  2.97,  1.  , -0.06, -0.  , 0.17])
    """
    xp = array_namespace(x=x)
    _check_dtype("x", x, DTYPES)
    as_shape("x's shape", tuple(x.shape))  # Dask's arrays may have unknown lengths
    if not x.ndim:
        raise ValueError("Expected x of at least one dimension. Received x of shape ().")
    factor = integer("factor", factor, 1)
    axis = integer("axis", axis, -x.ndim)
    if axis >= x.ndim:
        raise ValueError(f"Expected axis to be less than {x.ndim}. Received axis={axis}.")
    beta = _beta(x, window)
    if factor == 1:
        return astype(x, dtype_name(x.dtype))
    signals = xp.moveaxis(x, axis, -1)
    *batch, length = signals.shape
    signals = xp.reshape(signals, (math.prod(batch), length, 1))
    if beta is None:
        y = conv1d_transpose(signals, (window * factor)[:, None, None], **_settings(window.shape[0], factor))
    elif is_numpy_array(x):
        y = _plan_of(signals.shape, factor, beta, dtype_name(x.dtype))(signals)
    else:
        kernel = _kaiser_kernel(x, factor, beta)
        y = conv1d_transpose(signals, kernel, **_settings(kernel.shape[0], factor))
    return xp.moveaxis(xp.reshape(y, (*batch, length * factor)), -1, axis)


def _beta(x: Array, window: Any) -> float | None:
    """Beta of a Kaiser window, None for coefficients."""
    if not isinstance(window, tuple | str):
        array_namespace(x=x, window=window)
        _check_dtype("window", window, DTYPES)
        if window.ndim != 1 or not window.shape[0]:
            raise ValueError(
                "Expected window of one dimension, with a coefficient at least. Received window of shape "
                f"{tuple(window.shape)}."
            )
        return None
    if len(window) != 2 or window[0] != "kaiser" or not isinstance(window[1], numbers.Real):
        raise ValueError(
            "Expected window to be ('kaiser', beta) or an array of coefficients. Received "
            f"window={window!r}. Make the coefficients with scipy.signal.firwin."
        )
    return float(window[1])


# To design a filter, choose an algorithm and pack takes longer than to filter a short signal.
@functools.lru_cache(maxsize=8)
def _plan_of(shape: tuple[int, ...], factor: int, beta: float, dtype: str) -> Plan:
    """The plan for NumPy arrays of that shape and dtype."""
    kernel = _kaiser_kernel(np.empty(0, dtype_named(np, dtype)), factor, beta)
    return plan(conv1d_transpose, shape, kernel, **_settings(kernel.shape[0], factor))


def _settings(taps: int, factor: int) -> dict[str, Any]:
    """What makes `factor` samples for each, the middle tap on the first of them."""
    left = (taps - 1) // 2
    right = taps - left - factor  # less than 0 where the filter ends before the next sample
    return {"strides": factor, "data_format": "channels_last", **crop_options(left, right)}


def _kaiser_kernel(reference: Array, factor: int, beta: float) -> Array:
    """A sinc under a Kaiser window, as ``scipy.signal.firwin(20 * factor + 1, 1 / factor)`` makes it."""
    offsets = np.arange(-10 * factor, 10 * factor + 1)
    taps = np.sinc(offsets / factor) * np.kaiser(len(offsets), beta)
    dtype = dtype_name(reference.dtype)
    # Rounded on the host: not every library has float64.
    taps = (taps / np.sum(taps)).astype("float64" if dtype in ("float64", "complex128") else "float32")
    return astype(like(taps, reference), dtype)[:, None, None] * factor
