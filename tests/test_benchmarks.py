"""The GPU benchmark, as far as no GPU is needed: its rows, its check, its clockwork and its tables."""

import contextlib
import importlib
import itertools
import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

import gpuconv

FOLDER = Path(__file__).parent.parent / "benchmarks"
if not FOLDER.is_dir():
    pytest.skip("no benchmarks here: they are in the repository only", allow_module_level=True)
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(FOLDER)
    gpu, cells, machines, rows, tables = map(
        importlib.import_module, ("gpu", "_gpu_cells", "_gpu_machine", "_rows", "_gpu_tables")
    )

ROWS = rows.load_rows()
SMALL = rows.Row("small", "made up", 2, 7, 2, 3, 4, 3, "valid", None, 1)


def shortened(row):
    """The same geometry with less of everything else."""
    groups = min(row.groups, 2)
    return row._replace(batch=2, length=7, in_channels=2 * groups, filters=groups, groups=groups)


# Left crops larger and smaller than right ones, appended zeros, and what PyTorch has no words for.
CROPPED = [
    SMALL._replace(kernel_size=k, strides=s, padding=padding, output_padding=extra)
    for k, s in ((1, 3), (2, 4), (4, 3), (5, 2), (6, 1))
    for padding in ("valid", "same", 1, (0, 2), (3, 0), (1, 0))
    for extra in (None, 0, s - 1)
    if padding in ("valid", "same") or k > 1
]


# --- rows ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [*ROWS, *CROPPED])
def test_sizes_are_those_of_the_op(row):
    for layout in rows.LAYOUTS:
        settings = rows.settings_of(row, "ieee", layout)
        del settings["precision"]
        shape, kernel = rows.shape_of(row, layout), rows.kernel_shape(row)
        wanted = gpuconv.output_shape(gpuconv.conv1d_transpose, shape, kernel, **settings)
        assert rows.result_shape(row, layout) == wanted


def test_rows_say_where_they_are_from():
    assert all(row.source for row in ROWS)
    assert {row.name for row in ROWS if rows.is_inverse_stft(row)} == {"istft", "long-istft"}


def test_names_are_unique(tmp_path):
    entry = json.loads((FOLDER / "workloads.json").read_text(encoding="utf-8"))[:1]
    for name in rows.FILES:
        (tmp_path / name).write_text(json.dumps(entry), encoding="utf-8")
    with pytest.raises(ValueError, match="a name of its own"):
        rows.load_rows(tmp_path)


@pytest.mark.parametrize("row", [*map(shortened, ROWS), *CROPPED])
def test_work_is_what_the_loops_do(row):
    left, _ = rows.crops(row)
    _, made, filters = rows.result_shape(row, "channels_last")
    samples = np.arange(row.length)[:, None] * row.strides + np.arange(row.kernel_size) - left
    reached = np.bincount(samples[(samples >= 0) & (samples < made)].ravel(), minlength=1)
    wide = row.in_channels // row.groups
    assert rows.multiply_adds(row) == reached.sum() * row.batch * filters * wide
    assert rows.terms(row) >= reached.max() * wide


def test_the_larger_of_two_times_is_the_floor():
    row = next(row for row in ROWS if row.name == "long-hifigan-4")
    ceilings = {"copy_bytes": 4.3e12, "gemm_flops": {"ieee": 67e12, "tf32": 495e12}}
    assert rows.floor_of(row, "ieee", ceilings) == (pytest.approx(501, abs=1), "compute")
    assert rows.floor_of(row, "tf32", ceilings) == (pytest.approx(244, abs=1), "memory")


# --- PyTorch's words for a row -------------------------------------------------------------------


@pytest.fixture
def machine():
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install gpuconv[peers]")
    torch.manual_seed(0)
    yield machines.Machine(torch, None, None, None, "cpu", (RuntimeError,))
    machines.set_switches(SimpleNamespace(torch=torch), tf32=True, benchmark=False)


@pytest.fixture
def few_buffers(monkeypatch):
    monkeypatch.setattr(cells, "ROTATED_BYTES", 1)


@pytest.mark.parametrize("row", [*map(shortened, ROWS), *CROPPED])
def test_torch_makes_the_same_numbers(machine, row):
    rng = np.random.default_rng(0)
    x = rng.integers(-4, 5, rows.shape_of(row, "channels_first")).astype(float)
    kernel = rng.integers(-4, 5, rows.kernel_shape(row)).astype(float)
    ours = gpuconv.conv1d_transpose(x, kernel, **rows.settings_of(row, "ieee", "channels_first"))
    tensors = machine.torch.asarray(x), machine.torch.asarray(kernel).permute(2, 1, 0)
    made = cells._conv_transpose1d(machine, row, *tensors)
    assert made.shape[-1] == rows.made_by_torch(row)
    np.testing.assert_array_equal(rows.sliced(row, made).numpy(), ours)


@pytest.mark.parametrize("precision", rows.PRECISIONS)
@pytest.mark.parametrize("name", ["istft", "wavegan-5", "encodec-2", "waveunet", "phasenet-2"])
def test_every_way_of_torch_is_the_row(machine, few_buffers, name, precision):
    row = shortened(next(row for row in ROWS if row.name == name))
    buffers = cells.draw_buffers(machine, row, precision)
    truth = cells.truth_of(machine, row, precision, buffers)
    ways = {way.name: way for way in cells.torch_contestants(machine, row, precision, buffers)}
    named = {"torch NCL", "torch channels_last", "torch default"}
    assert set(ways) == named | ({"torch matmul + fold"} if name == "istft" else set())
    assert [way.elsewhere for way in ways.values()] == [way == "torch default" for way in ways]
    for way in ways.values():
        way.prepare()
        assert machine.torch.backends.cudnn.benchmark == (not way.elsewhere)
        assert machine.torch.backends.cudnn.allow_tf32 == (precision == "tf32")
        way.call(0)
        assert cells._other_than(way.result(), truth) is None
        assert cells._other_than(way.result() + 1, truth) is not None
        assert cells._other_than(way.result()[..., 1:], truth) is not None


@pytest.mark.parametrize("precision", ["ieee", "tf32", "float16"])
@pytest.mark.parametrize("layout", rows.LAYOUTS)
def test_the_check_tells_right_from_wrong(machine, few_buffers, layout, precision):
    row = shortened(next(row for row in ROWS if row.name == "hifigan-1"))._replace(in_channels=300)
    buffers = cells.draw_buffers(machine, row, precision, (layout, *(set(rows.LAYOUTS) - {layout})))
    truth = cells.truth_of(machine, row, precision, buffers)
    x, kernel = buffers.x[layout][0].numpy(), buffers.kernel.numpy()
    y = machine.torch.asarray(gpuconv.conv1d_transpose(x, kernel, **rows.settings_of(row, precision, layout)))
    y = y.transpose(1, 2) if layout == "channels_last" else y
    assert cells.fault_of(y, truth) is None
    assert "shape" in cells.fault_of(y[:1], truth)
    for wrong in (0.0, np.nan, np.inf):
        spoiled = y.clone()
        spoiled[1, 0, 5] = wrong
        assert cells.fault_of(spoiled, truth).startswith(f"1 of {y.numel()} numbers are off")
    # A sum of 600 products that misses one: within the bound that always holds, and noticed.
    missing = y.clone()
    missing[0, 0, 5] -= 0.5
    assert cells.fault_of(missing, truth) is not None


# --- clockwork -----------------------------------------------------------------------------------


def test_a_schedule_fits_its_time():
    estimates = {"fast": 5.0, "slow": 2000.0}
    assert machines.schedule(estimates, 60.0) == ({"fast": 200, "slow": 20}, 7)
    assert machines.schedule(estimates, 0.2)[1] == 4
    calls, rounds = machines.schedule(estimates, 0.01)
    assert rounds == 3
    assert rounds * sum(1e-6 * estimates[name] * calls[name] for name in calls) < 0.02


class Ticks:
    """A device whose contestants take as long as they say, and a record of who ran."""

    def __init__(self):
        self.now, self.ran, self.captured = 0.0, [], []
        self.cuda = SimpleNamespace(
            Event=self.event,
            CUDAGraph=lambda: SimpleNamespace(replay=lambda: self.pass_by("torch's graph", 20.0)),
            graph=lambda _: contextlib.nullcontext(),
        )
        # CuPy's stream
        self.synchronize = self.begin_capture = lambda: None
        self.end_capture = lambda: SimpleNamespace(launch=lambda _: self.pass_by("our graph", 40.0))

    def pass_by(self, name, microseconds):
        self.now += 1e-3 * microseconds
        self.ran.append(name)

    def event(self, *, enable_timing):
        assert enable_timing
        event = SimpleNamespace(at=0.0, synchronize=lambda: None)
        event.record = lambda: setattr(event, "at", self.now)
        event.elapsed_time = lambda later: later.at - event.at
        return event

    def contestant(self, name, side, microseconds):
        def call(number):
            if microseconds is None:
                raise RuntimeError("no engine\nfor this | row")
            self.pass_by(name, microseconds)

        return machines.Contestant(name, side, call, lambda: None)


@pytest.fixture
def ticks(monkeypatch):
    monkeypatch.setattr(machines, "wake", lambda _: None)
    return Ticks()


def test_contestants_take_turns_and_the_hopeless_stay_out(ticks):
    device = machines.Machine(ticks, None, ticks, None, "cpu", (RuntimeError,))
    field = [
        ticks.contestant("op channels_last", "ours channels_last", 100.0),
        ticks.contestant("torch NCL", "torch", 2000.0),
        ticks.contestant("torch channels_last", "torch", 9e5),
        ticks.contestant("torch default", "torch", None),
    ]
    times, failed = machines.race(device, field, 3, 60.0)
    assert failed == {"torch default": "RuntimeError: no engine"}
    assert {name: (time["median"], time["rounds"]) for name, time in times.items()} == {
        "torch channels_last": (pytest.approx(9e5), 1),
        "torch NCL": (pytest.approx(2000), 7),
        "op channels_last": (pytest.approx(100), 7),
    }
    blocks = [name for before, name in itertools.pairwise(ticks.ran) if name != before]
    assert blocks[-8:] == ["op channels_last", "torch NCL"] * 4
    times, failed = machines.replays(device, field, 3)
    assert failed == {"torch default": "RuntimeError: no engine"}
    assert {name: time["median"] for name, time in times.items()} == pytest.approx(
        {"op channels_last": 2.0, "torch NCL": 1.0, "torch channels_last": 1.0}
    )


def test_the_default_has_a_thread_of_its_own():
    field = SimpleNamespace(prepare=lambda: None, elsewhere=False)
    with ThreadPoolExecutor(1) as other:
        device = machines.Machine(None, None, None, other, "cpu", ())
        assert machines.in_its_thread(device, field, threading.get_ident) == threading.get_ident()
        field.elsewhere = True
        theirs = {machines.in_its_thread(device, field, threading.get_ident) for _ in range(3)}
    assert len(theirs) == 1
    assert threading.get_ident() not in theirs


def test_buffers_rotate():
    numbers = []
    call = machines.rotating(numbers.append, 3)
    for _ in range(5):
        call()
    assert numbers == [0, 1, 2, 0, 1]


# --- what is missing, what is lost ---------------------------------------------------------------


def test_without_cupy_it_says_so_in_a_line(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert gpu.main([]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("benchmarks/gpu.py needs CuPy: ")
    assert said.err.count("\n") == 1


def test_without_a_gpu_it_says_so_in_a_line(monkeypatch, capsys):
    cupy = ModuleType("cupy")
    cupy.cuda = SimpleNamespace(is_available=lambda: False)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setitem(sys.modules, "torch", ModuleType("torch"))
    assert gpu.main([]) == 1
    assert capsys.readouterr().err == "benchmarks/gpu.py needs a GPU: CuPy finds none\n"


@pytest.fixture
def supervised(monkeypatch, tmp_path):
    """Run the supervisor over workers that are given as functions of the document."""
    cupy = ModuleType("cupy")
    runtime = SimpleNamespace(getDeviceProperties=lambda _: {"name": b"Some GPU (80 GB)"})
    cupy.cuda = SimpleNamespace(runtime=runtime)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(gpu, "run_tests", lambda _: {"passed": True, "summary": "5 passed"})
    monkeypatch.setattr(gpu, "STARTED", gpu.time.time())

    def run(work, *arguments):
        def watch(path, section, deadline):
            document = json.loads(path.read_text(encoding="utf-8"))
            lost = work(document[section])
            tables.save(document, path)
            return lost

        monkeypatch.setattr(gpu, "watch", watch)
        options = gpu.options_of([f"--output={tmp_path}", *arguments])
        code = gpu.supervise(options)
        path = tmp_path / "gpu-some-gpu-80-gb.json"
        return code, json.loads(path.read_text(encoding="utf-8")), path.with_suffix(".md").read_text("utf-8")

    return run


def test_a_lost_process_costs_one_row(supervised, capsys):
    def work(entries):
        waiting = [entry for entry in entries if entry["status"] == "waiting"]
        for entry, status in zip(waiting, ("wrong", "running"), strict=False):
            entry.update(status=status, **({"reason": "off"} if status == "wrong" else {}))
        return "its process ended with -11"

    code, document, text = supervised(work, "--rows", "seed", "istft", "--precisions", "ieee")
    assert code == 2
    states = {entry["name"]: (entry["status"], entry["reason"]) for entry in document["rows"]}
    lost = ("not run", "its process ended with -11")
    assert states == {
        "seed-keras": ("wrong", "off"),
        "seed-matlab": lost,
        "istft": ("wrong", "off"),
        "long-istft": lost,
    }
    assert "- seed-matlab, long-istft: not run, its process ended with -11" in text
    assert "istft ieee: not run" in capsys.readouterr().out


def test_workers_that_get_nowhere_are_not_started_again(supervised, capsys):
    started = []
    code, document, text = supervised(started.append, "--rows", "seed")
    assert len(started) == 1
    assert code == 0
    assert {entry["status"] for entry in document["rows"]} == {"waiting"}
    assert "- seed-keras, seed-matlab: not run, no time was left" in text
    assert "stopped before a row was done" in capsys.readouterr().out


def test_tuning_leaves_the_race_in_place(supervised):
    def timed(entries):
        for entry in entries:
            entry.update(made_up(entry["name"], entry["precision"]))

    def tuned(entries):
        for entry in entries:
            entry.update(status="timed", chosen="mma", algorithms=["mma"], wrong={}, times={"mma": time(5)})

    narrow = ("--rows", "seed", "--precisions", "ieee")
    supervised(timed, *narrow)
    code, document, text = supervised(tuned, "--tune", *narrow)
    assert code == 0
    assert [entry["layout"] for entry in document["tuning"]] == 2 * list(rows.LAYOUTS)
    assert len(document["rows"]) == 2
    assert "## float32, ieee" in text
    assert "## Tuning: float32, ieee, channels_first\n\n| row | mma |" in text
    assert "| seed-keras | 5.00* |" in text


def test_unknown_rows_are_refused(capsys):
    with pytest.raises(SystemExit):
        gpu.options_of(["--rows", "nosuchrow"])
    assert "no row has one of nosuchrow in its name" in capsys.readouterr().err


# --- tables --------------------------------------------------------------------------------------


def time(median):
    return {"median": median, "min": 0.9 * median, "max": 1.5 * median, "rounds": 7, "calls": 20}


def made_up(name, precision, ours=200.0, floor=150.0, **more):
    """An entry whose best rival takes 300 us."""
    return {
        "name": name,
        "precision": precision,
        "status": "timed",
        "algorithm": {"channels_last": "tile-64x64", "channels_first": "direct"},
        "failed": {},
        "floor_us": floor,
        "bound": "memory",
        "times": {
            "op channels_last": time(1.1 * ours),
            "plan channels_last": time(ours),
            "op channels_first": time(3 * ours),
            "torch NCL": time(300.0),
            "torch default": time(450.0),
        },
        **more,
    }


DOCUMENT = {
    "device": "Some GPU",
    "driver": "580.1",
    "tests": {"passed": True, "summary": "5 passed"},
    "ceilings": {
        "copy_bytes": 4.3e12,
        "gemm_flops": dict.fromkeys(rows.PRECISIONS, 5e14),
        "launch_us": {"an empty kernel in a graph": 1.5},
    },
    "rows": [
        made_up("good", "ieee"),
        made_up("bad", "ieee", ours=600.0, failed={"torch channels_last": "RuntimeError: no engine"}),
        made_up(
            "short",
            "ieee",
            ours=40.0,
            floor=4.5,
            graph={
                "plan channels_last": time(5.0),
                "op channels_first": time(10.0),
                "torch NCL": time(10.0),
            },
        ),
        made_up("tiny", "ieee", floor=1.0),
        {**made_up("off", "ieee"), "status": "wrong", "reason": "plan channels_last: 3 of 8 numbers are off"},
        {"name": "later", "precision": "ieee", "status": "waiting"},
        {"name": "broken", "precision": "float16", "status": "not run", "reason": "ImportError: ml_dtypes"},
    ],
}


def test_tables_say_what_was_timed_and_what_was_not():
    text = tables.markdown(DOCUMENT)
    assert text.startswith("# Some GPU\n\ndriver 580.1\n\nTests: 5 passed\n\nCopy: 4.30 TB/s.")
    lines = text.splitlines()
    good = (
        "| good | tile-64x64 / direct | 300 (270..450) | NCL | 450 | 200 (180..300) | 600 (540..900) "
        "| 1.50 | 0.50 | 150 | memory | 75% | 25% | 50% |"
    )
    assert good in lines
    assert "| off | **wrong** | - | - | - | - | - | - | - | 150 | memory | - | - | - |" in lines
    assert "| later | **not run** | - | - | - | - | - | - | - | - | - | - | - | - |" in lines
    graph = "| short | 10.0 (9.00..15.0) | NCL | 5.00 (4.50..7.50) | 10.0 (9.00..15.0) | 2.00 | 1.00 |"
    assert graph in lines
    assert "- bad: no time of torch channels_last, RuntimeError: no engine" in lines
    assert "- off: wrong, plan channels_last: 3 of 8 numbers are off" in lines
    assert "- later: not run, no time was left" in lines
    assert "- broken: not run, ImportError: ml_dtypes" in lines
    # Every line of a table has as many cells as its head.
    for line, below in itertools.pairwise(lines):
        if line.startswith("|") and below.startswith("|"):
            assert line.count(" | ") == below.count(" | ")


def test_the_summary_comes_last_and_counts():
    text = tables.race_tables(DOCUMENT)
    summary = text[text.index("## Summary") :]
    # Ratios 1.5, 0.5, 7.5 and 1.5; in a graph the third is 2.
    assert "| float32, ieee | channels_last | eager | 4 of 6 | 1.70 | bad 0.50 | 1 |" in summary
    assert "| float32, ieee | channels_last | replayed | 4 of 6 | 1.22 | bad 0.50 | 1 |" in summary
    assert "| float16 | channels_first | replayed | 0 of 1 | - | - | - |" in summary
    # The short row reaches 90 % in a graph; the tiny one's floor is less than an empty kernel's time.
    named = "float32, ieee, channels_last: 2 memory-bound rows below 80% of the copy's bandwidth"
    assert f"{named} (good 75%, bad 25%); 0 compute-bound rows below 70%" in summary


def test_a_row_without_rivals_has_no_ratio():
    entry = made_up("alone", "tf32")
    entry["times"] = {name: entry["times"][name] for name in ("op channels_last", "op channels_first")}
    text = tables.race_tables({"rows": [entry]})
    assert "| alone | tile-64x64 / direct | - | - | - | 220 (198..330) | 600 (540..900) | - | - |" in text
    assert "| float32, tf32 | channels_last | eager | 0 of 1 | - | - | - |" in text


def test_a_line_for_each_row_while_others_run():
    lines = {entry["name"]: tables.outcome(entry) for entry in DOCUMENT["rows"][2:5]}
    assert lines["short"] == "short ieee: plan channels_last 5.00, op channels_first 10.0, torch NCL 10.0"
    assert lines["off"] == "off ieee: wrong, plan channels_last: 3 of 8 numbers are off"


def test_the_tuning_table_marks_the_chosen():
    entry = {
        "name": "row",
        "precision": "float16",
        "layout": "channels_last",
        "status": "wrong",
        "reason": "direct: 1 of 2 numbers are off",
        "chosen": "mma",
        "algorithms": ["mma", "tile", "direct", "atomic"],
        "wrong": {"direct": "1 of 2 numbers are off"},
        "failed": {"atomic": "ValueError: not for halves"},
        "times": {"tile": time(80.0), "mma": time(60.0)},
        "graph": {"mma": time(12.0)},
    }
    text = tables.tuning_tables({"tuning": [entry]})
    assert "| row | mma | tile | direct | atomic |" in text
    assert "| row | 12.0* | 80.0 | wrong | - |" in text
    assert "- row: no time of atomic, ValueError: not for halves" in text
    assert tables.outcome(entry) == "row float16 channels_last: mma 12.0*, tile 80.0, direct wrong, atomic -"


def test_slug():
    assert tables.slug("NVIDIA H100 80GB HBM3 ") == "nvidia-h100-80gb-hbm3"


def test_a_file_is_replaced_in_one_step(monkeypatch, tmp_path):
    path = tmp_path / "results" / "gpu.json"
    tables.save(DOCUMENT, path)
    assert json.loads(path.read_text(encoding="utf-8")) == DOCUMENT
    assert path.with_suffix(".md").read_text(encoding="utf-8") == tables.markdown(DOCUMENT)
    assert sorted(each.name for each in path.parent.iterdir()) == ["gpu.json", "gpu.md"]

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        tables.write(path, "half of a")
    assert json.loads(path.read_text(encoding="utf-8")) == DOCUMENT
