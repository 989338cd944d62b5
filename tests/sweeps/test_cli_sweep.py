"""``moesim sweep`` as a user types it."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
from killed import HANGS_S, interruptible
from small_sweep import SMALL_YAML

from moesim.cli import main
from moesim.sweeps import drive
from moesim.sweeps.journal import Journal

ONE = "--jobs=1"


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "small.yaml").write_text(SMALL_YAML)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def moesim(monkeypatch, capsys):
    """Call the command line in this process, with this process as the one worker."""
    from moesim.cli import sweep as verb
    from moesim.sweeps import _given

    monkeypatch.setattr(verb, "workers_for", lambda *_: _given(None, 1))
    monkeypatch.setenv("COLUMNS", "240")

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["moesim", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capsys.readouterr()
        return left.value.code, out, err

    return call


def test_a_sweep_prints_the_best_point_the_front_and_the_effect_of_each_axis(here, moesim):
    code, out, err = moesim(
        "sweep", "small.yaml", "-p", "routing.top_k=2,4", "-p", "routing.top_groups=1..4", "--impossible", "skip",
        "--objective", "layer_time_s where gate_mass_lost < 20%", "--out", "out",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert "small: 8 points: 7 ok, 1 impossible" in out
    table = pd.read_parquet(here / "out" / "points.parquet")
    within = table[table["gate_mass_lost"] < 0.2]
    best = within.loc[within["layer_time_s"].idxmin()]
    line = next(line for line in out.splitlines() if line.startswith("* "))
    assert line.split()[1:4] == [str(best["point"]), str(best["routing.top_k"]), str(best["routing.top_groups"])]
    assert "least to most" in out and "routing.top_groups" in out
    assert "out/points.parquet" in out


def test_json_holds_the_same_answer(here, moesim):
    code, out, _ = moesim("sweep", "small.yaml", "-p", "seed=0..2", "--json", "--out", "out")
    answer = json.loads(out)
    assert code == 0
    table = pd.read_parquet(here / "out" / "points.parquet")
    assert answer["best"]["summary"]["layer_time_s"] == table["layer_time_s"].min()
    assert answer["counts"] == {"ok": 3} and answer["points"] == 3
    assert answer["effects"][0]["axis"] == "seed"
    assert answer["best"] in answer["front"]


def test_the_same_command_finds_its_folder_again(here, moesim, monkeypatch):
    first = moesim("sweep", "small.yaml", "-p", "seed=0,1")
    monkeypatch.setattr(drive, "route_point", None)
    assert moesim("sweep", "small.yaml", "-p", "seed=0,1") == first
    assert len(list((here / "results").iterdir())) == 1


def test_a_failed_point_is_exit_4_and_named(here, moesim, monkeypatch):
    import small_sweep

    monkeypatch.setattr(drive, "time_point", small_sweep.failing_time_point)
    code, out, err = moesim("sweep", "small.yaml", "-p", "seed=0..3", "--out", "out")
    assert code == 4
    assert "3 ok, 1 failed" in out
    assert err.startswith("point 2 failed: AttributeError")
    monkeypatch.undo()


def test_keys_that_move_together_and_draws_come_from_the_command_line(here, moesim):
    zipped = "model.n_experts=16,32; model.expert_hidden=256,128"
    code, _, _ = moesim("sweep", "small.yaml", "--zip", zipped, "-p", "seed=0..9", "--random", "3", "--out", "out")
    table = pd.read_parquet(here / "out" / "points.parquet")
    assert code == 0 and len(table) == 3
    assert (table["model.n_experts"] * table["model.expert_hidden"] == 4096).all()


def test_variants_of_the_scenario_are_said_to_be_left_out(here, moesim):
    with (here / "small.yaml").open("a") as file:
        file.write("variants: {other: {seed: 3}}\n")
    code, _, err = moesim("sweep", "small.yaml", "-p", "routing.top_k=2", "--out", "out")
    assert (code, err.count("variants are left out")) == (0, 1)


WRONG = {
    "no axis": ([], "nothing to sweep over"),
    "an axis without values": (["-p", "seed"], "-p seed: 'seed' is not an axis"),
    "an unknown key": (["-p", "routing.topk=1"], "did you mean 'top_k'"),
    "an unknown number": (["-p", "seed=1", "--objective", "layer_tme_s"], "--objective: no number 'layer_tme_s'"),
    "another policy": (["-p", "seed=1", "--impossible", "ignore"], "'ignore' is not a policy; use refuse or skip"),
    "two clusters": (["-p", "seed=1", "--dask", "tcp://a:1", "--scheduler-file", "f"], "no effect with --dask"),
    "impossible points": (["-p", "routing.top_groups=4,9"], "1 of 2 points are impossible and none was run"),
    "a wrong override": (["-p", "seed=1", "-o", "seed=x"], "-o seed=x"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_one_line_and_exit_2_and_leaves_nothing(here, moesim, name):
    arguments, message = WRONG[name]
    code, out, err = moesim("sweep", "small.yaml", *arguments, "--out", "out")
    assert (code, out) == (2, "")
    assert message in err and "Traceback" not in err
    assert not (here / "out").exists()


def test_another_sweep_in_the_folder_is_exit_2_with_a_diff(here, moesim):
    assert moesim("sweep", "small.yaml", "-p", "seed=0", "--out", "out")[0] == 0
    code, _, err = moesim("sweep", "small.yaml", "-p", "seed=0", "-o", "routing.top_k=2", "--out", "out")
    assert code == 2
    assert "scenario.routing.top_k: 4 before, 2 now" in err


def test_a_folder_in_use_is_exit_3_and_names_the_process(here, moesim):
    from moesim.output_folder import held
    from moesim.sweeps.sweep_run import LOCK_FILE

    (here / "out").mkdir()
    with held(here / "out", here / "out" / LOCK_FILE):
        code, _, err = moesim("sweep", "small.yaml", "-p", "seed=0", "--out", "out")
    assert code == 3
    assert f"process {os.getpid()} on " in err


def test_dask_that_is_not_installed_or_not_there_is_exit_3(here, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["moesim", "sweep", "small.yaml", "-p", "seed=0", "--scheduler-file", "none.json"])
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 3
    assert "pip install 'moesim[dask]'" in capsys.readouterr().err
    pytest.importorskip("dask")
    monkeypatch.delitem(sys.modules, "distributed")
    pytest.importorskip("distributed")
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 3
    assert "no such scheduler file" in capsys.readouterr().err


def interrupted(here, sent):
    """A signal to a sweep on a terminal and its whole group of processes.

    Returns:
        Its exit code, what it showed, and the seconds until it ended.
    """
    arguments = ["sweep", "small.yaml", "-p", "seed=0..499", "--jobs", "2"]
    command = [sys.executable, "-c", "from moesim.cli import main; main()", *arguments]
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=terminal, start_new_session=True, preexec_fn=interruptible
    )
    os.close(terminal)
    seen = b""
    while not re.search(rb"points.*?/s", seen, re.DOTALL):  # a first point is done; an end would raise here
        seen += os.read(controller, 65536)
    os.killpg(process.pid, sent)
    began = time.monotonic()
    while True:
        try:
            seen += (more := os.read(controller, 65536))
        except OSError:  # the terminal's other end is closed
            break
        if not more:
            break
    code = process.wait(HANGS_S)
    took = time.monotonic() - began
    process.stdout.close()
    os.close(controller)
    return code, seen.decode(), took


@pytest.mark.parametrize(
    ("sent", "code", "last"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_ctrl_c_and_sigterm_stop_and_print_the_command_that_goes_on(here, sent, code, last):
    left, text, _ = interrupted(here, sent)
    assert left == code, text
    folder = next((here / "results").iterdir())
    assert f"to resume: moesim sweep small.yaml -p seed=0..499 --jobs 2 --out results/{folder.name}" in text
    assert text.rstrip().endswith(last)
    assert "Traceback" not in text
    assert "points" in text and "/500" in text


def test_sigterm_keeps_what_is_finished_and_the_same_command_goes_on(here, moesim, monkeypatch):
    """Between two points here; in the test above a process gets the signal at any instant."""

    def terminating(journal, outcomes):
        add(journal, outcomes)
        if any(point == 2 for point, _ in outcomes):
            signal.raise_signal(signal.SIGTERM)

    before, add = signal.getsignal(signal.SIGTERM), Journal.add
    arguments = ("sweep", "small.yaml", "-p", "seed=0..9", "--out", "out")
    monkeypatch.setattr(Journal, "add", terminating)
    code, out, err = moesim(*arguments)
    assert (code, out) == (143, "")
    assert err.splitlines() == [
        f"finished points are kept; to resume: moesim {' '.join(arguments)}",
        "moesim: terminated",
    ]
    assert signal.getsignal(signal.SIGTERM) == before
    assert not (here / "out" / "points.parquet").exists()
    again = []
    monkeypatch.setattr(Journal, "add", lambda journal, outcomes: (again.extend(outcomes), add(journal, outcomes)))
    assert moesim(*arguments)[0] == 0
    assert sorted(point for point, _ in again) == [3, 4, 5, 6, 7, 8, 9]
    assert list(pd.read_parquet(here / "out" / "points.parquet")["status"]) == ["ok"] * 10


def test_a_start_of_workers_is_not_torn_by_sigterm():
    from moesim.spawn import _interrupts_afterwards

    came = []
    before = signal.signal(signal.SIGTERM, lambda *_: came.append("afterwards"))
    try:
        with _interrupts_afterwards():
            signal.raise_signal(signal.SIGTERM)
            assert came == []
        assert came == ["afterwards"]
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.slow
def test_ctrl_c_stops_within_two_seconds(here):
    """Marked slow not for its length: the bound holds for a machine that does nothing else."""
    assert interrupted(here, signal.SIGINT)[2] < 2
