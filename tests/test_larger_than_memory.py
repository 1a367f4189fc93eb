"""Signals larger than memory, and processes that are killed: what comes out is what the whole makes.

``pytest --large`` runs all at full size: 8 GB of disk, some minutes. Without, only what takes seconds runs.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import gpuconv

SETTINGS = {"strides": 2, "padding": "same"}
#: Of small integers, as the signals: float32 holds all sums.
KERNEL = np.array([1, -2, 3, 5, -1, 2, 4], np.float32).reshape(7, 1, 1)
RUN = f"""
import sys
import numpy as np
import gpuconv
from gpuconv import _streaming_files

source, target, kernel, chunk, seconds = sys.argv[1:]
_streaming_files._SECONDS = float(seconds)
plan = gpuconv.plan("conv1d_transpose", (1, 4096, 1), np.load(kernel), **{SETTINGS})
gpuconv.process_file(plan, source, target, chunk=int(chunk), progress=False)
with open("/proc/self/status") as status:
    print(next(line.split()[1] for line in status if line.startswith("VmHWM")))
"""
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="processes are killed and measured as Linux does")


def started(folder, chunk, seconds):
    """A process that makes y.npy of x.npy there, and prints how many KiB it has had at most."""
    np.save(folder / "kernel.npy", KERNEL)
    files = [str(folder / name) for name in ("x.npy", "y.npy", "kernel.npy")]
    command = [sys.executable, "-c", RUN, *files, str(chunk), str(seconds)]
    root = Path(gpuconv.__file__).parent.parent
    return subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True)


def write_signal(path, samples, block=2**22):
    """A recording of small integers, written block by block."""
    rng = np.random.default_rng(3)
    about = {"descr": "<f4", "fortran_order": False, "shape": (samples,)}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, about)
        for begin in range(0, samples, block):
            rows = rng.integers(-9, 10, min(block, samples - begin), np.int8)
            file.write(rows.astype(np.float32).tobytes())


def assert_whole(folder, block=2**22):
    """Assert that y.npy is what the op makes of x.npy, block by block, each with rows around it."""
    x, y = (np.load(folder / name, mmap_mode="r") for name in ("x.npy", "y.npy"))
    assert y.shape == (2 * len(x),)
    for begin in range(0, len(x), block):
        first, end = max(0, begin - 8), min(len(x), begin + block)
        rows = np.array(x[first : end + 8])[None, :, None]
        made = gpuconv.conv1d_transpose(rows, KERNEL, **SETTINGS)[0, :, 0]
        wanted = made[2 * (begin - first) : 2 * (end - first)]
        np.testing.assert_array_equal(y[2 * begin : 2 * end], wanted)


@LINUX
@pytest.mark.large
def test_two_gigabytes_need_300_megabytes(tmp_path):
    write_signal(tmp_path / "x.npy", 2**29)
    begun = time.monotonic()
    run = started(tmp_path, 65_536, 1.0)
    printed, _ = run.communicate()
    seconds, peak = time.monotonic() - begun, int(printed) * 1024
    print(f"{seconds:.0f} s, {peak / 1e6:.0f} MB")
    assert run.returncode == 0
    assert peak < 300_000_000
    assert_whole(tmp_path)


@LINUX
@pytest.mark.parametrize(
    ("samples", "chunk", "seconds"),
    [(40_000, 400, 0.0), pytest.param(50_000_000, 65_536, 1.0, marks=pytest.mark.large)],
)
def test_ten_kills(tmp_path, samples, chunk, seconds):
    write_signal(tmp_path / "x.npy", samples)
    source, target, part = (tmp_path / name for name in ("x.npy", "y.npy", "y.npy.part"))
    plan = gpuconv.plan("conv1d_transpose", (1, 4096, 1), KERNEL, **SETTINGS)
    ends = []
    for share in np.random.default_rng(5).uniform(0, 0.9, 10):
        run = started(tmp_path, chunk, seconds)
        while run.poll() is None and not (part.exists() and part.stat().st_size >= share * samples * 8):
            time.sleep(0.0005)
        run.send_signal(signal.SIGKILL)
        run.communicate()
        ends.append(run.returncode)
        assert target.exists() == (run.returncode == 0)
        gpuconv.process_file(plan, source, target, chunk=chunk, progress=False)
        assert_whole(tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["kernel.npy", "x.npy", "y.npy"]
        target.unlink()
    assert -signal.SIGKILL in ends


# --- Dask ----------------------------------------------------------------------------------------


@pytest.fixture
def cluster():
    """Two processes of 500 MB, which are started again when they end, and a client."""
    distributed = pytest.importorskip(
        "distributed", reason="distributed is not installed: pip install gpuconv[peers]"
    )
    options = {"n_workers": 2, "threads_per_worker": 1, "memory_limit": "500MB", "dashboard_address": None}
    with distributed.LocalCluster(**options) as made, distributed.Client(made) as client:
        yield made, client


def lazy_signal(samples, chunk, seconds=0.0):
    """Small integers that tell their place, of shape (1, samples, 1); each chunk takes some time to make."""
    da = pytest.importorskip("dask.array", reason="dask is not installed: pip install gpuconv[dask]")

    def made(places):
        time.sleep(seconds)
        return signal_at(places)

    places = da.arange(samples, chunks=chunk, dtype=np.int64)
    return places.map_blocks(made, dtype=np.float64).reshape(1, samples, 1)


def signal_at(places):
    return places % 19 - (places // 7) % 11.0


def parts_of(y, windows):
    """What is asked of a result: its sum, and some of its windows."""
    return [y.sum(), *(y[0, begin:end, 0] for begin, end in windows)]


def assert_parts(found, samples, windows):
    total, *pieces = found
    blocks = range(0, samples, 2**22)
    exact = sum(signal_at(np.arange(begin, min(samples, begin + 2**22))).sum() for begin in blocks)
    assert total == exact * KERNEL.sum()
    for (begin, end), piece in zip(windows, pieces, strict=True):
        first = max(0, begin // 2 - 8)
        rows = signal_at(np.arange(first, min(samples, end // 2 + 8)))[None, :, None]
        made = gpuconv.conv1d_transpose(rows, KERNEL.astype(float), strides=2)[0, :, 0]
        np.testing.assert_array_equal(piece, made[begin - 2 * first : end - 2 * first])


def peak_of_process():
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


@LINUX
@pytest.mark.large
def test_four_gigabytes_on_two_workers_of_500_megabytes(cluster):
    da = pytest.importorskip("dask.array")
    samples, chunk = 2**29, 2**20
    x = lazy_signal(samples, chunk)
    y = gpuconv.conv1d_transpose(x, da.from_array(KERNEL.astype(float)), strides=2)
    windows = [
        (0, 100),
        *((2 * chunk * n - 50, 2 * chunk * n + 50) for n in (1, 200, 511)),
        (2**30 - 50, 2**30 + 5),
    ]
    _, client = cluster
    begun = time.monotonic()
    found = client.gather(client.compute(parts_of(y, windows)))
    seconds, peaks = time.monotonic() - begun, client.run(peak_of_process).values()
    print(f"{seconds:.0f} s, workers of {', '.join(f'{peak / 1e6:.0f}' for peak in peaks)} MB")
    assert_parts(found, samples, windows)
    assert max(peaks) < 500_000_000


@LINUX
@pytest.mark.parametrize(
    ("samples", "chunk", "seconds"),
    [(60_000, 1000, 0.02), pytest.param(2**29, 2**20, 0.0, marks=pytest.mark.large)],
)
def test_a_worker_is_killed(cluster, samples, chunk, seconds):
    da = pytest.importorskip("dask.array")
    y = gpuconv.conv1d_transpose(
        lazy_signal(samples, chunk, seconds), da.from_array(KERNEL.astype(float)), strides=2
    )
    windows = [(0, 100), (2 * chunk - 50, 2 * chunk + 50), (2 * samples - 50, 2 * samples + 5)]
    made, client = cluster
    victim, _ = client.run(os.getpid).values()
    futures = client.compute(parts_of(y, windows))
    while sum(prefix.state_counts["memory"] for prefix in made.scheduler.task_prefixes.values()) < 20:
        time.sleep(0.01)
    assert not futures[0].done()
    os.kill(victim, signal.SIGKILL)
    found = client.gather(futures)
    assert_parts(found, samples, windows)
