# ruff: noqa: E402
import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

torch = pytest.importorskip("torch")

from moesim.errors import InputError, ResourceError
from moesim.profile import timing_session
from moesim.profile.__main__ import main
from moesim.profile.command import run
from moesim.profile.csv_columns import COLUMNS, KEY_COLUMNS
from moesim.profile.grid import cpu_sizes
from moesim.profile.kernels.case import Draw
from moesim.profile.point_measurement import row as row_of

pytestmark = pytest.mark.lab
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def quick(monkeypatch, one_thread):
    monkeypatch.setattr("moesim.profile.timing.CPU_SECONDS", 0.0)


@pytest.fixture
def clock(monkeypatch):
    """A clock of the session that only measuring a point moves, by a second each."""
    now = [0.0]
    measured = []

    def rows(point, device, name, cache_bytes, timer, peaks):
        now[0] += 1.0
        measured.append(point)
        return [row_of(point, state, name, peaks, "ok") for state in timing_session.caches(point, cache_bytes)]

    monkeypatch.setattr(timing_session, "rows_of", rows)
    monkeypatch.setattr(timing_session.time, "monotonic", lambda: now[0])
    return measured


def meta(path):
    return json.loads(path.with_suffix(".meta.json").read_text())


def test_a_quick_run_on_the_cpu_goes_the_whole_way(tmp_path, capsys):
    path = tmp_path / "cpu.csv"
    assert main(["--device", "cpu", "--quick", "--out", str(path)]) == 0
    out, err = capsys.readouterr()
    assert "finished, 0 points left" in out
    assert "anchors moved by" in out
    assert "attention, level 0" in err
    table = pd.read_csv(path)
    assert tuple(table.columns) == COLUMNS
    statuses = table["status"].str.partition(":")[0].value_counts()
    assert statuses["ok"] > 100
    assert set(statuses.index) == {"ok", "unsupported"}
    timed = table[table["status"] == "ok"]
    assert (timed["median_us"] > 0).all()
    assert (timed["p20_us"] <= timed["median_us"]).all()
    assert (timed["median_us"] <= timed["p80_us"]).all()
    assert timed["max_rel_err"].max() < 0.1
    assert set(timed.loc[timed["load_shape"].notna(), "load_shape"]) == {"balanced", "zipf1.2", "one-hot"}
    assert len(set(table["device"])) == 1
    found = meta(path)
    data = path.read_bytes()
    assert found["table"] == {
        "name": "cpu.csv", "rows": len(table), "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(),
    }  # fmt: skip
    assert found["sessions"][0]["command"] == "moesim profile --device cpu --budget 480 --out cpu.csv --quick"
    assert found["sessions"][0]["ended"] == "finished"
    assert set(found["anchors_us"]["anchor_gemm"]) == {"start-1", "middle-1", "end-1"}
    assert str(tmp_path) not in path.with_suffix(".meta.json").read_text()
    assert sorted(os.listdir(tmp_path)) == ["cpu.csv", "cpu.meta.json"]


def test_a_run_goes_on_where_the_budget_ended_it(tmp_path, clock):
    path = tmp_path / "cpu.csv"
    assert "budget, " in run(path, "cpu", budget=100.0, families="grouped,router", quiet=True)
    first = len(clock)
    assert 90 < first <= 101
    ended = run(path, "cpu", budget=1000.0, families="grouped,router", quiet=True)
    assert "finished, 0 points left" in ended
    points = [point for point in clock if point.family != "anchor"]
    assert len(points) == len(set(points))
    variants = [point.variant for point in clock if point.kernel == "anchor_gemm"]
    assert variants == [f"{when}-{number}" for number in (1, 2) for when in ("start", "middle", "end")]
    assert [one["ended"] for one in meta(path)["sessions"]] == ["budget", "finished"]
    done = len(clock)
    assert "finished" in run(path, "cpu", quick=True, families="grouped", quiet=True)
    assert len(clock) == done  # nothing left: not even anchors
    assert len(meta(path)["sessions"]) == 2


def test_the_first_points_of_a_cut_run_are_the_coarse_ones(tmp_path, clock):
    run(tmp_path / "cpu.csv", "cpu", budget=60.0, quiet=True)
    assert {point.level for point in clock} == {0}


def test_a_run_that_was_killed_goes_on_after_its_last_whole_row(tmp_path, clock, monkeypatch):
    path = tmp_path / "cpu.csv"
    append = timing_session.Journal.append

    def dies(journal, row):
        append(journal, row)
        if len(journal.rows) == 40:
            with open(path, "ab") as file:
                file.write(b"1,expert_ml")
            raise SystemExit(137)

    monkeypatch.setattr(timing_session.Journal, "append", dies)
    with pytest.raises(SystemExit):
        run(path, "cpu", families="grouped", quiet=True)
    assert meta(path)["sessions"][0]["ended"] == "cut off"
    monkeypatch.setattr(timing_session.Journal, "append", append)
    run(path, "cpu", families="grouped", quiet=True)
    table = pd.read_csv(path)
    assert len(table) > 40
    assert not table.duplicated(list(KEY_COLUMNS)).any()


def test_a_point_that_kills_the_process_is_given_up_after_two_deaths(tmp_path, clock, monkeypatch):
    path = tmp_path / "cpu.csv"
    survives = timing_session.rows_of

    def rows(point, *given):
        if point.kernel == "launch" and point.batch == 10:
            os._exit(9)
        return survives(point, *given)

    monkeypatch.setattr(timing_session, "rows_of", rows)

    def child():
        pid = os.fork()
        if pid == 0:
            try:
                run(path, "cpu", families="copy", quiet=True)
                os._exit(0)
            finally:  # whatever happens, one process goes on with the tests
                os._exit(1)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    # Ten launches, eager and in a graph: two points, each of which dies twice.
    assert [child() for _ in range(5)] == [9, 9, 9, 9, 0]
    table = pd.read_csv(path)
    assert (table["status"] == "failed: the process died here").sum() == 2
    assert not path.with_suffix(".at").exists()


def test_a_table_of_another_device_is_refused_and_stays_as_it_is(tmp_path, clock, monkeypatch):
    path = tmp_path / "cpu.csv"
    run(path, "cpu", families="copy", quiet=True)
    before = path.read_bytes()
    monkeypatch.setattr("moesim.profile.machine._cpu_name", lambda: "another CPU")
    with pytest.raises(InputError, match=r"was measured with device .*, here is another CPU; give another --out"):
        run(path, "cpu", quiet=True)
    assert path.read_bytes() == before


def test_a_device_that_fails_for_good_ends_the_run_with_its_row_written(tmp_path, monkeypatch):
    path = tmp_path / "cpu.csv"
    monkeypatch.setattr("moesim.profile.machine.Machine.context_works", lambda machine: False)
    with pytest.raises(ResourceError, match=r"failed for good in launch .* it goes on after this point"):
        run(path, "cpu", families="copy", quiet=True)
    assert pd.read_csv(path)["status"].iloc[-1].startswith("unsupported")
    assert meta(path)["sessions"][0]["ended"] == "cut off"


def test_an_interrupt_is_code_130_and_leaves_a_table(tmp_path, clock, monkeypatch, capsys):
    path = tmp_path / "cpu.csv"

    def interrupted(machine):
        raise KeyboardInterrupt

    monkeypatch.setattr("moesim.profile.machine.Machine.reading", interrupted)
    assert main(["--device", "cpu", "--out", str(path)]) == 130
    assert "it goes on from here" in capsys.readouterr().err
    assert len(pd.read_csv(path)) == meta(path)["table"]["rows"] > 0


def test_the_threads_of_torch_are_left_as_they_were(tmp_path, clock):
    before = torch.get_num_threads()
    run(tmp_path / "cpu.csv", "cpu", families="copy", quiet=True)
    assert torch.get_num_threads() == before


def test_pytorch_alone_is_enough(tmp_path):
    absent = ("numpy", "pydantic", "typer", "rich", "pandas", "ruamel", "numba", "scipy", "networkx", "simpy")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({absent}))\n"
        "from moesim.profile.__main__ import main\n"
        "sys.exit(main(['--device', 'cpu', '--families', 'copy,router', '--quick', '--out', sys.argv[1]]))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.csv")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (pd.read_csv(tmp_path / "a.csv")["status"] == "ok").sum() > 10


def test_a_gpu_that_is_known_gets_an_expectation_readings_and_peaks(tmp_path, monkeypatch, capsys):
    """The way of a GPU with everything made up but the kernels, which run on the CPU; Triton is not installed."""
    reading = {"sm_mhz": 1980.0, "memory_mhz": 2619.0, "power_w": 120.0, "temperature_c": 34.0}
    machine = SimpleNamespace(
        kind="cuda", name="NVIDIA H100 80GB HBM3", triton=False, cache_bytes=2 << 20, identity={"device": "H100"},
        facts={"sms": 132}, reading=lambda: reading, context_works=lambda: True,
    )  # fmt: skip
    monkeypatch.setattr(timing_session, "Machine", lambda device: machine)
    monkeypatch.setattr(timing_session, "CudaTimer", lambda cache_bytes: timing_session.ClockTimer())
    monkeypatch.setattr(timing_session.grids, "gpu_sizes", lambda triton: replace(cpu_sizes(), fused=True))
    monkeypatch.setattr("moesim.profile.point_measurement.Draw", lambda device, seed: Draw("cpu", seed))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setitem(sys.modules, "triton", None)
    path = tmp_path / "h100.csv"
    run(path, "cuda", quick=True, families="elementwise,permute")
    assert " s expected" in capsys.readouterr().err
    table = pd.read_csv(path)
    fused = table["impl"] == "triton"
    assert table.loc[fused, "status"].str.startswith("unsupported: ModuleNotFoundError").all()
    assert (table.loc[~fused, "status"] == "ok").all()
    assert (table["device"] == machine.name).all()
    np.testing.assert_allclose(
        table["sol_us"], np.maximum(table["flops"].fillna(0) / 989e12, table["bytes"] / 3.35e12) * 1e6, rtol=1e-5
    )
    readings = meta(path)["sessions"][0]["readings"]
    families = ("permute", "elementwise")
    assert [one["when"] for one in readings] == [f"{at} {f}, level 0" for f in families for at in ("before", "after")]
    assert readings[0].items() >= reading.items()
