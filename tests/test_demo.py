"""The demo: its numbers against SciPy's, its files, its messages."""

import importlib.machinery
import importlib.util
import os
import pickle
import re
import struct
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from gpuconv import demo
from gpuconv.__main__ import main

wavfile = pytest.importorskip("scipy.io.wavfile", reason="the demo needs gpuconv[demo]")
signal = pytest.importorskip("scipy.signal", reason="the demo needs gpuconv[demo]")
pytest.importorskip("matplotlib", reason="the demo needs gpuconv[demo]")

EPS = float(np.finfo(np.float32).eps)


@pytest.fixture
def noise():
    return np.random.default_rng(20).uniform(-1, 1, (2, 300)).astype(np.float32)


def run(folder, *arguments):
    return main(["demo", "--output", str(folder), *map(str, arguments)])


def exact(x, factor):
    """SciPy's interpolation of one channel with the filter that the demo documents, and its magnitude."""
    kernel = np.ones(1)
    if factor > 1:
        kernel = factor * signal.firwin(32 * factor + 1, 1 / factor, window=("kaiser", 7.85726), scale=False)
    kernel = np.pad(kernel, 16 * factor - len(kernel) // 2).astype(np.float32).astype(np.float64)
    delay = slice(16 * factor, 16 * factor + len(x) * factor)
    x = x.astype(np.float64)
    return (
        signal.upfirdn(kernel, x, up=factor)[delay],
        signal.upfirdn(np.abs(kernel), np.abs(x), up=factor)[delay],
    )


def assert_interpolated(y, x, factor):
    """33 roundings of the sum and as many of the filter, which SciPy designs with roundings of its own."""
    expected, magnitude = exact(x, factor)
    assert y.dtype == np.float32
    assert y.shape == expected.shape
    assert np.all(np.abs(y - expected) <= 34 * EPS * magnitude + 1e-12)


def write_wav24(path, rate, columns):
    """A WAV file of 24 bits, which SciPy reads but does not write."""
    data = b"".join(struct.pack("<i", int(value))[:3] for value in columns.ravel())
    channels = columns.shape[1]
    form = struct.pack("<HHIIHH", 1, channels, rate, rate * channels * 3, channels * 3, 24)
    body = b"WAVEfmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", len(data)) + data
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)


def test_the_recording_of_pywavelets(tmp_path, capsys):
    pywt = pytest.importorskip("pywt", reason="the default recording is PyWavelets'")
    assert run(tmp_path / "made" / "here") == 0
    folder = tmp_path / "made" / "here"
    assert sorted(path.name for path in folder.iterdir()) == ["ecg-x8.npy", "ecg-x8.png"]
    assert_interpolated(np.load(folder / "ecg-x8.npy"), pywt.data.ecg(), 8)
    printed = capsys.readouterr().out
    assert "(1, 1024, 1) at 360 Hz" in printed
    assert "(1, 8192, 1) at 2880 Hz, float32" in printed
    assert re.search(r"^numpy +[\d.e+]+ +[\d.e-]+ +[\d.e-]+ +[\d.]+%, within$", printed, re.MULTILINE)
    assert printed.endswith(f"wrote {folder / 'ecg-x8.npy'}\nwrote {folder / 'ecg-x8.png'}\n")


@pytest.mark.parametrize("factor", [1, 2, 3, 8])
def test_channels_are_interpolated_one_by_one(factor, noise, tmp_path):
    np.save(tmp_path / "noise.npy", noise.T)
    assert run(tmp_path, "--input", tmp_path / "noise.npy", "--factor", factor) == 0
    made = np.load(tmp_path / f"noise-x{factor}.npy")
    assert made.shape == (300 * factor, 2)
    for channel in (0, 1):
        assert_interpolated(made[:, channel], noise[channel], factor)
        np.testing.assert_array_equal(made[::factor, channel], noise[channel])


@pytest.mark.parametrize("dtype", ["int16", "uint8", "float16", "float64", ">f4"])
def test_npy_of_other_types_is_converted_unscaled(dtype, tmp_path):
    samples = np.array([3, 100, 7, 0, 41]).astype(dtype)
    np.save(tmp_path / "few.npy", samples)
    assert run(tmp_path, "--input", tmp_path / "few.npy", "--factor", "2") == 0
    assert_interpolated(np.load(tmp_path / "few-x2.npy"), samples.astype(np.float32), 2)


@pytest.mark.parametrize("factor", [1, 5])
def test_a_lone_sample(factor, tmp_path):
    np.save(tmp_path / "one.npy", np.array([2.5]))
    assert run(tmp_path, "--input", tmp_path / "one.npy", "--factor", factor) == 0
    assert_interpolated(np.load(tmp_path / f"one-x{factor}.npy"), np.array([2.5]), factor)


def test_silence(tmp_path, capsys):
    """Nothing divides by the error bound of a sum of zeros."""
    np.save(tmp_path / "silence.npy", np.zeros(50))
    assert run(tmp_path, "--input", tmp_path / "silence.npy") == 0
    assert "0.0%, within" in capsys.readouterr().out
    assert not np.load(tmp_path / "silence-x8.npy").any()


@pytest.mark.parametrize(
    ("dtype", "offset", "scale"),
    [("uint8", 128, 2**7), ("int16", 0, 2**15), ("int32", 0, 2**31), ("float32", 0, 1), ("float64", 0, 1)],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_wav_is_scaled_to_one(dtype, offset, scale, channels, noise, tmp_path):
    stored = noise[:channels].T.astype(np.float64) * 0.99 * scale + offset
    stored = (np.rint(stored) if scale > 1 else stored).astype(dtype)
    wavfile.write(tmp_path / "noise.WAV", 8000, stored[:, 0] if channels == 1 else stored)
    assert run(tmp_path / "out", "--input", tmp_path / "noise.WAV", "--factor", "4") == 0
    rate, made = wavfile.read(tmp_path / "out" / "noise-x4.wav")
    assert rate == 32000
    assert made.ndim == channels
    made = made.reshape(-1, channels)
    for channel in range(channels):
        x = ((stored[:, channel].astype(np.float64) - offset) / scale).astype(np.float32)
        assert np.abs(x).max() > 0.9
        assert_interpolated(made[:, channel], x, 4)


def test_wav_of_24_bits(noise, tmp_path):
    stored = np.rint(noise.T.astype(np.float64) * 0.99 * 2**23).astype(np.int32)
    write_wav24(tmp_path / "deep.wav", 96000, stored)
    assert run(tmp_path, "--input", tmp_path / "deep.wav", "--factor", "2") == 0
    rate, made = wavfile.read(tmp_path / "deep-x2.wav")
    assert rate == 192000
    np.testing.assert_array_equal(made[::2], (stored / 2**23).astype(np.float32))


def test_a_wav_with_an_unknown_chunk_is_read_and_said(tmp_path, capsys):
    wavfile.write(tmp_path / "tagged.wav", 8000, np.arange(10, dtype=np.int16))
    with (tmp_path / "tagged.wav").open("ab") as file:
        file.write(b"note" + struct.pack("<I", 4) + b"abcd")
        size = file.tell() - 8
    content = bytearray((tmp_path / "tagged.wav").read_bytes())
    content[4:8] = struct.pack("<I", size)
    (tmp_path / "tagged.wav").write_bytes(content)
    assert run(tmp_path, "--input", tmp_path / "tagged.wav") == 0
    errors = capsys.readouterr().err
    assert errors.startswith(f"gpuconv demo: {tmp_path / 'tagged.wav'}: Chunk (non-data) not understood")


def test_the_picture_is_a_png_and_leaves_matplotlib_alone(noise, tmp_path):
    matplotlib = pytest.importorskip("matplotlib", reason="the demo needs gpuconv[demo]")
    before = dict(matplotlib.rcParams)
    np.save(tmp_path / "noise.npy", noise[0])
    assert run(tmp_path, "--input", tmp_path / "noise.npy") == 0
    picture = (tmp_path / "noise-x8.png").read_bytes()
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", picture[16:24]) == (1350, 1200)
    assert dict(matplotlib.rcParams) == before


def test_files_have_the_permissions_of_any_other(noise, tmp_path):
    np.save(tmp_path / "noise.npy", noise[0])
    assert run(tmp_path, "--input", tmp_path / "noise.npy") == 0
    (tmp_path / "other").touch()
    assert (tmp_path / "noise-x8.npy").stat().st_mode == (tmp_path / "other").stat().st_mode


# The error bound


@pytest.mark.parametrize("length", [10, 100])
def test_compare_finds_what_is_wrong(length, noise, monkeypatch):
    """In blocks or in one, the largest difference is found, and its share of the bound."""
    monkeypatch.setattr(demo, "_BLOCK", 37)
    x, kernel = noise[:, :length], demo.kaiser_sinc(3)
    y = demo.interpolate(x, kernel, 3)
    good = demo.compare(x, y, kernel, 3)
    assert 0 < good.difference <= good.bound
    assert 0 < good.share <= 1
    largest = max(np.max(np.abs(y[n] - reference(x[n], kernel, 3))) for n in (0, 1))
    assert good.difference == pytest.approx(largest, rel=1e-6)
    for place in ((0, 0), (1, 3 * length - 1), (0, min(111, length))):
        wrong = y.copy()
        wrong[place] += 0.01
        found = demo.compare(x, wrong, kernel, 3)
        assert found.difference == pytest.approx(0.01, rel=1e-3)
        assert found.share == pytest.approx(0.01 / found.bound, rel=1e-3)
        assert found.share > 1


def reference(x, kernel, factor):
    """Zeros between the samples, then NumPy's convolution; nothing of the demo's."""
    stuffed = np.zeros(len(x) * factor)
    stuffed[::factor] = x
    return np.convolve(stuffed, kernel.astype(np.float64))[16 * factor :][: len(stuffed)]


def test_compare_sees_nan(noise):
    kernel = demo.kaiser_sinc(2)
    y = demo.interpolate(noise, kernel, 2)
    y[1, 5] = np.nan
    found = demo.compare(noise, y, kernel, 2)
    assert np.isnan(found.difference)
    assert not found.share <= 1


def test_wrong_numbers_are_not_written(noise, tmp_path, monkeypatch, capsys):
    def off_by_a_little(*arrays, **settings):
        return conv1d_transpose(*arrays, **settings) * np.float32(1.00001)

    conv1d_transpose = demo.conv1d_transpose
    monkeypatch.setattr(demo, "conv1d_transpose", off_by_a_little)
    np.save(tmp_path / "noise.npy", noise)
    assert run(tmp_path / "out", "--input", tmp_path / "noise.npy") == 1
    printed = capsys.readouterr().out
    assert "NOT within" in printed
    assert "nothing is written" in printed
    assert not (tmp_path / "out").exists()


def test_a_keras_json_of_channels_first_changes_nothing(noise, tmp_path, monkeypatch):
    (tmp_path / "keras.json").write_text('{"image_data_format": "channels_first"}')
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    np.testing.assert_array_equal(demo.interpolate(noise, demo.kaiser_sinc(2), 2)[:, ::2], noise)


# What cannot be used


def npy(samples):
    return lambda path: np.save(path, samples, allow_pickle=True)


def wav(samples, rate=8000):
    return lambda path: wavfile.write(path, rate, samples)


def raw(content):
    return lambda path: path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("a.npy", None, r"to name a file that can be read\. Received .*a\.npy: No such file or directory"),
        ("a.wav", os.mkdir, r"to name a file that can be read\. Received .*a\.wav: Is a directory"),
        ("a.mp3", raw(b"ID3"), r"to end in \.wav or \.npy\. Received .*a\.mp3\. Convert"),
        ("a.wav", raw(b""), r"to be a complete WAV file\. Received .*a\.wav: File format b'' not understood"),
        ("a.wav", raw(b"RIFF"), r"to be a complete WAV file\. Received .*a\.wav: unpack requires a buffer"),
        (
            "a.wav",
            raw(b"RIFF\x0c\0\0\0WAVEnote\0\0\0\0"),
            r"complete WAV .*a\.wav: no fmt or no data chunk\. Sa",
        ),
        ("a.npy", raw(b"\x93NUMPY\1\0\4\0{'a("), r"to be a complete NPY file\. Received .*a\.npy: "),
        ("a.wav", wav(np.ones(9, "i2"), 0), r"complete WAV file\. .*a\.wav: its sampling rate is 0\. Save"),
        ("a.npy", raw(b""), r"to be a complete NPY file\. Received .*a\.npy: EOF: reading magic string"),
        ("a.npy", raw(b"PK\x03\x04 npz"), r"to be a complete NPY file\. Received .*a\.npy: the magic string"),
        ("a.npy", raw(pickle.dumps([1, 2])), r"to be a complete NPY file\. Received .*a\.npy: "),
        ("a.npy", npy(np.array([{}])), r"to be a complete NPY file\. .*Object arrays cannot be loaded"),
        ("a.npy", npy(np.array(["a"])), r"Expected real numbers\. Received .*a\.npy of dtype <U1\. Save"),
        ("a.npy", npy(np.ones(3, complex)), r"Expected real numbers\. Received .*a\.npy of dtype complex128"),
        (
            "a.npy",
            npy(np.float32(1)),
            r"\(length,\) or \(length, channels\)\. Received .*of shape \(\)\. Resh",
        ),
        ("a.npy", npy(np.ones((2, 2, 2))), r"\(length,\) or .*Received .*a\.npy of shape \(2, 2, 2\)"),
        (
            "a.npy",
            npy(np.ones((0, 2))),
            r"Expected at least one sample\. Received .*a\.npy of shape \(0, 2\)",
        ),
        (
            "a.wav",
            wav(np.zeros(0, np.int16)),
            r"Expected at least one sample\. Received .*a\.wav of shape \(0,",
        ),
        (
            "a.npy",
            npy(np.array([1, np.nan])),
            r"Expected finite samples below 2\.1e\+37\. Received .*a\.npy wi",
        ),
        ("a.npy", npy(np.array([1, -np.inf])), r"Expected finite samples below .*Replace or scale them"),
        ("a.npy", npy(np.array([1e38])), r"Expected finite samples below .*Replace or scale them"),
        ("a.wav", wav(np.float32([np.nan])), r"Expected finite samples below .*Received .*a\.wav with NaN"),
        (
            "a.wav",
            wav(np.ones(9, "i2"), 2**27),
            r"at most 4294967295 bytes of WAV per second\. Received facto",
        ),
    ],
)
def test_input_that_cannot_be_used(name, make, message, tmp_path, capsys):
    path = tmp_path / name
    if make is not None:
        make(path)
    assert run(tmp_path / "out", "--input", path) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("gpuconv demo: Expected ")
    assert re.search(message, printed.err)
    assert printed.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_result_that_is_too_large(tmp_path, capsys):
    np.save(tmp_path / "long.npy", np.zeros(2**18 + 1, np.uint8))
    assert run(tmp_path / "out", "--input", tmp_path / "long.npy", "--factor", "1024") == 2
    assert capsys.readouterr().err == (
        "gpuconv demo: Expected at most 268435456 output samples. Received factor=1024 and 262145 input "
        "samples. Cut the recording or take a smaller factor.\n"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("factor", [-3, 0, 1025])
def test_a_factor_out_of_range(factor, tmp_path, capsys):
    assert run(tmp_path / "out", f"--factor={factor}") == 2
    assert capsys.readouterr().err == (
        f"gpuconv demo: Expected factor to be from 1 to 1024. Received factor={factor}. Choose another one.\n"
    )
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_a_file(noise, tmp_path, capsys):
    np.save(tmp_path / "noise.npy", noise)
    (tmp_path / "out").write_text("mine")
    assert run(tmp_path / "out", "--input", tmp_path / "noise.npy") == 2
    assert re.search(
        r"Expected --output to name a folder that can be written\. Received .*out: File exists\. Choose",
        capsys.readouterr().err,
    )
    assert (tmp_path / "out").read_text() == "mine"


def test_a_disk_that_fills_leaves_nothing(noise, tmp_path, monkeypatch, capsys):
    """The samples are written, the picture fails: neither is there, and what was there stays."""

    def full(file, **_):
        file.write(b"\x89PNG")
        raise OSError(28, "No space left on device")

    np.save(tmp_path / "noise.npy", noise)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "noise-x8.npy").write_text("earlier")
    monkeypatch.setattr(demo, "write_picture", full)
    assert run(tmp_path / "out", "--input", tmp_path / "noise.npy") == 2
    assert "No space left on device" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["noise-x8.npy"]
    assert (tmp_path / "out" / "noise-x8.npy").read_text() == "earlier"


# Packages and backends that are not there


@pytest.mark.parametrize(
    ("absent", "named"), [({"scipy"}, "SciPy"), ({"matplotlib", "pywt"}, "Matplotlib, PyWavelets")]
)
def test_missing_packages_are_named(absent, named, tmp_path, monkeypatch, capsys):
    hide(monkeypatch, absent)
    assert run(tmp_path / "out") == 1
    assert capsys.readouterr() == (
        "",
        f'gpuconv demo: {named} missing. Install what the demo needs: pip install "gpuconv[demo]"\n',
    )
    assert not (tmp_path / "out").exists()


def test_a_recording_of_ones_own_needs_no_pywavelets(noise, tmp_path, monkeypatch):
    hide(monkeypatch, {"pywt"})
    np.save(tmp_path / "noise.npy", noise)
    assert run(tmp_path, "--input", tmp_path / "noise.npy") == 0


def test_without_cupy(noise, tmp_path, monkeypatch, capsys):
    hide(monkeypatch, {"cupy"})
    np.save(tmp_path / "noise.npy", noise)
    assert run(tmp_path, "--input", tmp_path / "noise.npy") == 0
    assert "\ncupy      not installed\n" in capsys.readouterr().out


def test_cupy_without_a_driver(noise, tmp_path, monkeypatch, capsys):
    def no_driver():
        raise RuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient")

    pose_as_cupy(monkeypatch, getDeviceCount=no_driver)
    np.save(tmp_path / "noise.npy", noise)
    assert run(tmp_path, "--input", tmp_path / "noise.npy") == 0
    assert "\ncupy      not usable: cudaErrorInsufficientDriver: CUDA" in capsys.readouterr().out


def test_cupy_with_a_gpu_is_timed_and_checked(noise, tmp_path, monkeypatch, capsys):
    """NumPy poses as CuPy: a line of its own, the device waited for, wrong numbers found."""
    waits = []
    cupy = pose_as_cupy(monkeypatch, getDeviceCount=lambda: 1)
    cupy.cuda.Device = lambda: types.SimpleNamespace(synchronize=lambda: waits.append(1))
    cupy.asarray = np.asarray
    np.save(tmp_path / "noise.npy", noise)
    assert run(tmp_path, "--input", tmp_path / "noise.npy") == 0
    printed = capsys.readouterr().out
    assert re.search(r"^cupy +[\d.e+]+ +[\d.e-]+ +[\d.e-]+ +[\d.]+%, within$", printed, re.MULTILINE)
    assert len(waits) >= 4
    cupy.asarray = lambda array: np.asarray(array) * np.float32(1.00001)
    assert run(tmp_path / "out", "--input", tmp_path / "noise.npy") == 1
    printed = capsys.readouterr().out
    assert re.search("^numpy .*%, within$", printed, re.MULTILINE)
    assert re.search("^cupy .*%, NOT within$", printed, re.MULTILINE)
    assert not (tmp_path / "out").exists()


def test_a_right_backend_does_not_make_up_for_a_wrong_one(noise, tmp_path, monkeypatch, capsys):
    class OnDevice(np.ndarray):
        pass

    def wrong_on_numpy(x, *rest, **settings):
        return conv1d_transpose(x, *rest, **settings) * np.float32(1.00001 if type(x) is np.ndarray else 1)

    conv1d_transpose = demo.conv1d_transpose
    monkeypatch.setattr(demo, "conv1d_transpose", wrong_on_numpy)
    cupy = pose_as_cupy(monkeypatch, getDeviceCount=lambda: 1)
    cupy.cuda.Device = lambda: types.SimpleNamespace(synchronize=lambda: None)
    cupy.asarray = lambda array: np.asarray(array).view(OnDevice)
    np.save(tmp_path / "noise.npy", noise)
    assert run(tmp_path / "out", "--input", tmp_path / "noise.npy") == 1
    printed = capsys.readouterr().out
    assert re.search("^numpy .*%, NOT within$", printed, re.MULTILINE)
    assert re.search("^cupy .*%, within$", printed, re.MULTILINE)


def hide(monkeypatch, names):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name in names else find_spec(name, *rest)
    )


def pose_as_cupy(monkeypatch, **runtime):
    cupy = types.ModuleType("cupy")
    cupy.__spec__ = importlib.machinery.ModuleSpec("cupy", None)
    cupy.ndarray = type("ndarray", (), {})
    cupy.cuda = types.SimpleNamespace(runtime=types.SimpleNamespace(**runtime))
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    return cupy


def test_the_default_folder(tmp_path, noise, monkeypatch):
    np.save(tmp_path / "noise.npy", noise)
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--input", "noise.npy", "--factor", "2"]) == 0
    assert (Path("gpuconv-demo") / "noise-x2.png").is_file()
