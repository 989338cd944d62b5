"""Sweeps on a Dask cluster: a real scheduler and real workers, each a process of its own."""

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from killed import HANGS_S, begun, kill_many_times, start, worker_of
from small_sweep import SMALL, deadly_time_point

from moesim.scenario import load_scenario
from moesim.sweeps import drive, sweep
from moesim.sweeps.space import space_of
from moesim.sweeps.sweep_run import run_sweep
from moesim.sweeps.workers import dask_workers

pytest.importorskip("distributed", reason="needs moesim[dask]")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
HERE = Path(__file__).parent


@contextmanager
def running(tmp_path, monkeypatch, workers, threads):
    """A scheduler and workers under nannies, which put a killed worker back: the scheduler's file, the nannies."""
    monkeypatch.setenv("SWEEP_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("PYTHONPATH", f"{HERE.parents[1]}:{HERE}")
    file = tmp_path / "scheduler.json"
    dask = [sys.executable, "-m", "dask"]
    local = ["--no-dashboard", "--scheduler-file", str(file)]
    commands = [["scheduler", "--host", "127.0.0.1", "--port", "0", *local]]
    commands += [["worker", "--nthreads", str(threads), "--local-directory", str(tmp_path), *local]] * workers
    processes = [
        subprocess.Popen([*dask, *command], stderr=subprocess.DEVNULL, start_new_session=True) for command in commands
    ]
    while not (file.exists() and file.stat().st_size):
        time.sleep(0.1)
    try:
        yield file, [process.pid for process in processes[1:]]
    finally:
        for process in processes:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    with running(tmp_path, monkeypatch, workers=2, threads=1) as made:
        yield made


def test_dask_gives_the_bytes_of_one_process_even_when_workers_are_killed(
    tmp_path,
    monkeypatch,
    cluster,
    uninterrupted,
):
    file, nannies = cluster
    out, log = tmp_path / "out", tmp_path / "log"
    process = start(out, log, file, monkeypatch)
    for points in (10, 20, 30):  # of two workers one each time
        while begun(log) < points and process.poll() is None:
            time.sleep(0.01)
        os.kill(worker_of(random.Random(points).choice(nannies)), signal.SIGKILL)
    assert process.wait(HANGS_S) == 0
    assert (out / "points.parquet").read_bytes() == uninterrupted


@pytest.mark.timeout(7200)
def test_a_sweep_on_dask_that_was_killed_again_and_again_gives_the_same_bytes(tmp_path, cluster, capsys):
    kill_many_times(tmp_path, cluster[0], capsys)


def test_a_point_that_kills_its_workers_is_failed_and_those_beside_it_are_not(tmp_path, monkeypatch):
    """One process of four threads: each death takes the points beside it too, and Dask gives them up with it."""
    monkeypatch.setattr(drive, "time_point", deadly_time_point)
    space = space_of(None, {"seed": "0..5"})
    with running(tmp_path, monkeypatch, workers=1, threads=4) as (file, _):
        run = partial(dask_workers, None, file)
        swept = run_sweep(load_scenario(SMALL), space, lambda _: run(), folder=tmp_path / "out")
    frame = swept.table.to_pandas()
    assert list(frame["status"]) == ["ok", "ok", "ok", "failed", "ok", "ok"]
    assert frame["error"][3] == "its workers died"
    monkeypatch.undo()
    honest = sweep(SMALL, {"seed": "0..5"})
    pd.testing.assert_frame_equal(frame.drop(index=3), honest.drop(index=3), check_dtype=False)
