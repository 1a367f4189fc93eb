"""The CPU benchmark: that everyone computes the same, its clockwork, its tables and its options. No times."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"
if not FOLDER.is_dir():
    pytest.skip("no benchmarks here: they are in the repository only", allow_module_level=True)
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(FOLDER)
    cpu, plot, scaling, signals, contestants, machine, tables, rows = map(
        importlib.import_module,
        ("cpu", "plot", "scaling", "signals", "_cpu_contestants", "_cpu_machine", "_cpu_tables", "_rows"),
    )

CEILINGS = {"gemm_flops": 1e11, "copy_bytes": {"memory": 1e10, "cache": 5e10}}


def shrunk(row):
    """The same geometry with less of everything else."""
    groups = min(row.groups, 4)
    wide = 1 if row.groups > 1 else 8
    return row._replace(
        batch=1,
        length=8,
        in_channels=min(row.in_channels, groups * wide),
        filters=min(row.filters, groups * wide),
        groups=groups,
    )


ROWS = [shrunk(row) for row in cpu.load_rows()]
SMALL = rows.Row("small", "made up", 2, 7, 4, 6, 4, 3, "valid", None, 2)
# Appended zeros, left crops larger and smaller than right ones, and what a peer has no words for.
CROPPED = [
    SMALL._replace(
        name=f"{k}-{s}-{padding}-{extra}", kernel_size=k, strides=s, padding=padding, output_padding=extra
    )
    for k, s, padding, extra in (
        (2, 4, "valid", None),
        (5, 2, "valid", 1),
        (2, 5, "same", None),
        (6, 3, "same", 0),
        (4, 3, (3, 0), None),
        (4, 3, (0, 2), 2),
    )
]


def field_of(row, layout, names=("plan",)):
    x, kernel = contestants.draw(row)
    field = contestants.contestants_of(row, layout, x, kernel, names)
    return field, contestants.truth_of(row, x, kernel)


# --- right or wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", contestants.CONTESTANTS)
@pytest.mark.parametrize("row", [*ROWS, *CROPPED], ids=lambda row: row.name)
def test_everyone_computes_the_same(row, name):
    for module in contestants.NEEDED.get(name, ()):
        pytest.importorskip(module, reason=f"{name} is not installed: pip install gpuconv[peers]")
    # JAX compiles for a while: it takes turns.
    layouts = [rows.LAYOUTS[len(row.name) % 2]] if name == "jax" else rows.LAYOUTS
    for layout in layouts:
        field, truth = field_of(row, layout, (name,))
        assert [fault for each in field if (fault := contestants.fault_of(each, truth, layout))] == []
        turned = name in contestants.TURNING and layout == "channels_last"
        lacking = name == "tensorflow" and (layout == "channels_first" or row.groups > 1)
        assert len(field) == 2 * turned + (not turned and not lacking)


def test_faults_are_found():
    (plan,), truth = field_of(SMALL, "channels_last")
    right = plan.call()
    assert contestants.fault_of(plan, truth, "channels_last") is None
    for wrong, message in (
        (right[:, 1:], "shape (2, 21, 6) where (2, 22, 6) is right"),
        (np.roll(right, 1, axis=1), "264 of 264 numbers are off"),
        (np.where(right == right[0, 3, 2], np.nan, right), "1 of 264 numbers are off"),
    ):
        someone = contestants.Contestant("someone", lambda wrong=wrong: wrong)
        assert f"someone: {message}" in contestants.fault_of(someone, truth, "channels_last")


def test_a_lost_product_is_found_in_a_long_sum():
    row = next(row for row in cpu.load_rows() if row.name == "istft")._replace(batch=1, length=8)
    x, kernel = contestants.draw(row)
    truth = contestants.truth_of(row, x, kernel)
    x[0, 4, 7] = 0  # one product of 4104 in each of 1024 output samples
    (op,) = contestants.contestants_of(row, "channels_last", x, kernel, ("op",))
    assert "are off" in contestants.fault_of(op, truth, "channels_last")


def test_who_is_absent_is_named(monkeypatch):
    monkeypatch.setitem(contestants.NEEDED, "jax", ("no_such_module",))
    assert contestants.absent(("plan", "jax")) == {"jax": "No module named 'no_such_module'"}


# --- clockwork -----------------------------------------------------------------------------------


def test_a_block_has_its_fewest_calls():
    calls = []
    assert len(machine.block(lambda: calls.append(1), 0.0, 7)) == 7
    assert len(calls) == 8  # one to warm up


def test_the_best_of_the_medians_counts(monkeypatch):
    blocks = iter([[3.0, 9.0, 4.0], [1.0, 1.0, 7.0], [2.0, 2.5, 90.0], [8.0, 8.0]])
    monkeypatch.setattr(machine, "block", lambda *_: next(blocks))
    field = [contestants.Contestant(name, lambda: None) for name in ("a", "b")]
    times = machine.race(field, machine.Clock(0.0, 2, 0.0))
    assert times["a"] == {"ms": 2500.0, "rounds_ms": [4000.0, 2500.0], "calls": 6}
    assert times["b"] == {"ms": 1000.0, "rounds_ms": [1000.0, 8000.0], "calls": 5}


def test_the_floor_is_the_longer_time():
    row = next(row for row in cpu.load_rows() if row.name == "demucs-1")
    flops = 2 * 1024 * 1024 * 512 * 8
    assert machine.floor_ms(row, CEILINGS) == (pytest.approx(1e3 * flops / 1e11), "compute")
    row = next(row for row in cpu.load_rows() if row.name == "mono-x8")
    moved = 4 * (262144 * 9 + 16)
    assert machine.floor_ms(row, CEILINGS) == (pytest.approx(1e3 * moved / 1e10), "memory")
    small = row._replace(length=1000)  # which fits in a cache
    assert machine.floor_ms(small, CEILINGS) == (pytest.approx(1e3 * 4 * 9016 / 5e10), "memory")


def test_the_machine_is_described():
    about = machine.describe()
    assert about["cpu"]
    assert about["cores"] >= 1
    assert about["numpy"] == np.__version__
    assert about["blas"]


# --- tables --------------------------------------------------------------------------------------


def entry_of(name, layout="channels_last", **milliseconds):
    times = {key.replace("_", " "): {"ms": time} for key, time in milliseconds.items()}
    return {
        "name": name,
        "layout": layout,
        "floor_ms": 0.5,
        "bound": "memory",
        "status": "timed",
        "times": times,
    }


@pytest.fixture
def document():
    wrong = {"name": "third", "layout": "channels_last", "status": "wrong", "reason": "jax: all is off"}
    return {
        "machine": {"cpu": "Some CPU", "cores": 2, "numpy": "2.0"},
        "measured": {section: {"commit": None, "date": "today"} for section in cpu.SECTIONS},
        "clock": {"seconds": 0.25, "rounds": 3, "pause": 0.05},
        "ceilings": CEILINGS,
        "load": 0.1,
        "left_out": {"tensorflow": "No module named 'tensorflow'"},
        "rows": [
            # Data that must be turned counts for nothing, however fast.
            entry_of("first", plan=1.0, op=2.0, torch=4.0, jax=8.0, torch_from_NWC=0.1),
            entry_of("second", plan=2.0, op=4.0, torch=3.0, jax=1.0),
            wrong,
            entry_of("first", "channels_first", plan=12.34, torch=1234.0),
        ],
    }


def test_ratios_are_of_the_best_peer(document):
    lines = tables.race_tables(document).splitlines()
    assert "| first | 1.00 | 2.00 | 4.00 | 8.00 | 0.100 | 4.00 | 2.00 | 50% | memory |  |" in lines
    assert "| second | 2.00 | 4.00 | 3.00 | 1.00 | - | 0.50 | 0.25 | 25% | memory |  |" in lines
    assert "| first | 12.3 | - | 1234 | 100.00 | - | 4% | memory |  |" in lines


def test_summaries_are_of_each_layout(document):
    lines = tables.race_tables(document).splitlines()
    assert "- best peer / plan: geometric mean 1.41 of 2 rows, 1 at least 1.0, worst second 0.50" in lines
    assert "- best peer / op: geometric mean 0.71 of 2 rows, 1 at least 1.0, worst second 0.25" in lines
    assert "- best peer / plan: geometric mean 100.00 of 1 rows, 1 at least 1.0, worst first 100.00" in lines
    assert "- best peer / op: no row has both" in lines


def test_what_is_wrong_or_left_out_is_said(document):
    text = tables.race_tables(document)
    assert "- third channels_last: wrong, jax: all is off" in text
    assert "tensorflow is left out: No module named 'tensorflow'." in text


def test_rows_have_as_many_cells_as_the_header(document, monkeypatch):
    monkeypatch.setitem(tables.NOTES, "first", "a note for who is slower")
    monkeypatch.setitem(tables.NOTES, "second", "a note")
    document["rows"].append(entry_of("alone", "channels_first", plan=1.0))
    text = tables.race_tables(document)
    assert "| a note |" in text
    assert "slower" not in text
    for part in text.split("## ")[1:]:
        assert len({line.count("|") for line in part.splitlines() if line.startswith("|")}) == 1


def test_a_peer_below_our_floor_is_named(document):
    document["rows"].append(entry_of("close", plan=1.0, jax=0.4))
    floor = "jax is below the floor of 0.500 ms, which is the rate of NumPy's BLAS"
    assert f"| {floor} |" in tables.race_tables(document)


def test_all_sections_are_written(document, tmp_path):
    document["small"] = {"title": "a shape", "times": {"plan": {"ms": 0.0123, "calls": 10000}}}
    document["cold"] = {"ms": {"import numpy": 100.0, "ours": 150.0}, "runs": 15, "ratio": 1.5}
    document["memory"] = [{"name": "first", "result_mib": 8.0, "mib": {"plan": 9.25, "torch": 16.0}}]
    tables.save(document, tmp_path / "cpu.json")
    text = (tmp_path / "cpu.md").read_text(encoding="utf-8")
    assert "# Some CPU, 2 cores" in text
    assert "100 GFLOP/s. Copy, both directions: 10.0 GB/s in memory, 50.0 GB/s in a cache." in text
    assert "| plan | 12.3 | 10000 |" in text
    assert "the median of 15; ratio 1.50." in text
    assert "| first | 8.0 | 9.2 | 16.0 |" in text
    assert json.loads((tmp_path / "cpu.json").read_text(encoding="utf-8")) == document


# --- the scripts ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows", "nothing-like-it"], "no row has one of nothing-like-it in its name"),
        (["--seconds", "-1"], "expected float of at least 0, received '-1'"),
        (["--seconds", "nan"], "expected float of at least 0, received 'nan'"),
        (["--rounds", "0"], "expected int of at least 1, received '0'"),
        (["--rounds", "two"], "expected int of at least 1, received 'two'"),
        (["--contestants", "someone"], "invalid choice: 'someone'"),
        (["--layouts", "NCW"], "invalid choice: 'NCW'"),
        (["--small", "--cold"], "not allowed with argument"),
    ],
)
def test_options_are_refused(arguments, message, capsys):
    with pytest.raises(SystemExit) as refused:
        cpu.options_of(arguments)
    assert refused.value.code == 2
    assert message in capsys.readouterr().err


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """Arguments of a race that takes no time."""
    monkeypatch.setattr(machine, "ceilings", lambda: CEILINGS)
    quickly = ["--seconds=0", "--rounds=1", "--pause=0", f"--output={tmp_path}"]
    return [*quickly, "--contestants", "plan", "op", "--rows", "seed-keras"]


def test_a_race(quick, tmp_path, capsys):
    assert cpu.main(quick) == 0
    document = json.loads((tmp_path / "cpu.json").read_text(encoding="utf-8"))
    assert [entry["layout"] for entry in document["rows"]] == list(rows.LAYOUTS)
    assert all(set(entry["times"]) == {"plan", "op"} for entry in document["rows"])
    assert (tmp_path / "cpu.md").read_text(encoding="utf-8") in capsys.readouterr().out


def test_a_wrong_result_is_not_timed(quick, tmp_path, monkeypatch):
    truth_of = contestants.truth_of
    monkeypatch.setattr(contestants, "truth_of", lambda *given: truth_of(*given)._replace(bound=-1.0))
    assert cpu.main(quick) == 2
    document = json.loads((tmp_path / "cpu.json").read_text(encoding="utf-8"))
    assert [entry["status"] for entry in document["rows"]] == ["wrong", "wrong"]
    assert "plan: 2688 of 2688 numbers are off" in document["rows"][0]["reason"]


def test_a_mode_leaves_the_others_results(quick, tmp_path, monkeypatch):
    monkeypatch.setattr(cpu, "SMALL_CALLS", 2)
    monkeypatch.setattr(cpu, "SMALL_FIELD", ("plan", "op"))
    assert cpu.main(quick) == 0
    assert cpu.main(["--small", *quick]) == 0
    document = json.loads((tmp_path / "cpu.json").read_text(encoding="utf-8"))
    assert {"rows", "small"} <= document.keys()
    assert document["small"]["times"]["op"]["calls"] == 2 * cpu.SMALL_ROUNDS
    document["machine"]["cpu"] = "another CPU"
    (tmp_path / "cpu.json").write_text(json.dumps(document), encoding="utf-8")
    assert "rows" not in cpu.begin(tmp_path / "cpu.json")


def test_a_cold_start(tmp_path, monkeypatch):
    monkeypatch.setattr(cpu, "COLD_RUNS", 1)
    assert cpu.main(["--cold", f"--output={tmp_path}"]) == 0
    document = json.loads((tmp_path / "cpu.json").read_text(encoding="utf-8"))
    assert set(document["cold"]["ms"]) == set(cpu.COLD_CODES)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux only")
def test_a_process_grows_by_its_result(capsys):
    assert cpu.main(["--memory-of", "mono-x8", "plan", "channels_last"]) == 0
    assert int(capsys.readouterr().out) >= 0


def test_sweeps_are_four_decades_of_work():
    for title in scaling.SWEEPS:
        work = [rows.multiply_adds(row) for row, _ in scaling.rows_of(title)]
        assert work == sorted(work)
        assert work[0] < 2e4
        assert work[-1] > 1e8


def test_the_figure_is_drawn(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install gpuconv[plot]")
    points = [
        {"size": size, "multiply_adds": 1000 * size, "ms": size / 10, "floor_ms": size / 99}
        for size in (1, 10, 100)
    ]
    document = {"machine": {"cpu": "Some CPU", "cores": 2}, "sweeps": dict.fromkeys(scaling.SWEEPS, points)}
    scaling.draw_figure(document, tmp_path / "scaling.png")
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("script", [plot, scaling], ids=["plot", "scaling"])
def test_pictures_say_what_they_need(script, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert script.main([]) == 1
    assert 'pip install "gpuconv[plot]"' in capsys.readouterr().err


def test_the_results_are_drawn(tmp_path, capsys):
    """Those that are committed."""
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install gpuconv[plot]")
    for name in ("cpu.json", "avx512/cpu.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((FOLDER / "results" / name).read_bytes())
    assert plot.main([f"--results={tmp_path}"]) == 0
    assert (tmp_path / "cpu.png").read_bytes().startswith(b"\x89PNG")
    assert str(tmp_path / "cpu.png") in capsys.readouterr().out


@pytest.fixture
def few_signals(monkeypatch, tmp_path):
    """Arguments of a race over two signals."""
    pytest.importorskip("scipy", reason="scipy is not installed: pip install gpuconv[test]")
    monkeypatch.setattr(signals, "UPS", (signals.Up((40, 2), 3, 0),))
    monkeypatch.setattr(signals, "SPECTROGRAMS", (signals.Spectrogram((2, 300), 32, 8),))
    return ["--seconds=0", "--rounds=1", "--pause=0", f"--output={tmp_path}"]


def test_signals_are_raced(few_signals, tmp_path):
    assert signals.main(few_signals) == 0
    up, spectrogram = json.loads((tmp_path / "signal.json").read_text(encoding="utf-8"))["rows"]
    assert list(up["times"]) == ["gpuconv", "upfirdn", "resample_poly"]
    assert list(spectrogram["times"])[:2] == ["gpuconv", "ShortTimeFFT"]
    text = (tmp_path / "signal.md").read_text(encoding="utf-8")
    assert f"| {up['title']} |" in text
    assert f"| {spectrogram['title']} |" in text
    assert {line.count("|") for line in text.splitlines() if line.startswith("|")} == {7}


def test_a_missing_peer_leaves_its_column_empty(few_signals, tmp_path, monkeypatch):
    monkeypatch.setattr(signals, "absent", lambda names: dict.fromkeys(names, "not installed"))
    assert signals.main(few_signals) == 0
    last = [
        line for line in (tmp_path / "signal.md").read_text(encoding="utf-8").splitlines() if "n_fft" in line
    ]
    assert [line.count(" - |") for line in last] == [2]


def test_signals_that_differ_are_not_raced(few_signals, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(signals, "upsample", lambda *_, **__: np.ones((120, 2)))
    assert signals.main(few_signals) == 2
    assert "results differ by" in capsys.readouterr().err
    monkeypatch.setattr(signals, "upsample", lambda *_, **__: np.ones((119, 2)))
    assert signals.main(few_signals) == 2
    assert list(tmp_path.iterdir()) == []
