"""Sweeps on a Dask cluster: a real scheduler and real workers, each a process of its own."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from killed import HANGS_S, begun, children, kill_many_times, start

pytest.importorskip("distributed", reason="needs moesim[dask]")
pytestmark = pytest.mark.slow
HERE = Path(__file__).parent


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A scheduler and two workers under nannies, which put a killed worker back: the scheduler's file, the nannies."""
    monkeypatch.setenv("SWEEP_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("PYTHONPATH", f"{HERE.parents[1]}:{HERE}")
    file = tmp_path / "scheduler.json"
    dask = [sys.executable, "-m", "dask"]
    local = ["--no-dashboard", "--scheduler-file", str(file)]
    commands = [["scheduler", "--host", "127.0.0.1", "--port", "0", *local]]
    commands += [["worker", "--nthreads", "1", "--local-directory", str(tmp_path), *local]] * 2
    processes = [
        subprocess.Popen([*dask, *command], stderr=subprocess.DEVNULL, start_new_session=True) for command in commands
    ]
    yield file, [process.pid for process in processes[1:]]
    for process in processes:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_dask_gives_the_bytes_of_one_process_even_when_workers_are_killed(
    tmp_path,
    monkeypatch,
    cluster,
    uninterrupted,
):
    file, nannies = cluster
    out, log = tmp_path / "out", tmp_path / "log"
    process = start(out, log, file, monkeypatch)
    for points in (5, 15):
        while begun(log) < points and process.poll() is None:
            time.sleep(0.01)
        os.kill(worker_of(random.Random(points).choice(nannies)), signal.SIGKILL)
    assert process.wait(HANGS_S) == 0
    assert (out / "points.parquet").read_bytes() == uninterrupted


def worker_of(nanny):
    """The process that computes for a nanny."""
    began = time.monotonic()
    while time.monotonic() - began < HANGS_S:
        for child in children(nanny):
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                return child
        time.sleep(0.1)
    raise AssertionError("the nanny has put no worker back")


@pytest.mark.timeout(7200)
def test_a_sweep_on_dask_that_was_killed_again_and_again_gives_the_same_bytes(tmp_path, cluster, capsys):
    kill_many_times(tmp_path, cluster[0], capsys)
