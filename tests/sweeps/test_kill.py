"""``kill -9`` at any instant and the same command again: the same bytes, nothing finished computed twice."""

import os
import random
import signal
import time
from functools import partial
from pathlib import Path

import pytest
from killed import HANGS_S, begun, children, kill_and_go_on, kill_many_times, start, worker_of


@pytest.mark.parametrize("seed", range(2))
def test_a_sweep_that_was_killed_gives_the_same_bytes(tmp_path, monkeypatch, uninterrupted, seed):
    out, log = tmp_path / "out", tmp_path / "log"
    begin = partial(start, out, log, 1, monkeypatch)
    kill_and_go_on(out, log, begin, 1, uninterrupted, random.Random(seed))


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_pool_that_was_killed_again_and_again_gives_the_same_bytes(tmp_path, capsys):
    kill_many_times(tmp_path, 2, capsys)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_pool_whose_workers_are_killed_gives_the_same_bytes(tmp_path, monkeypatch, uninterrupted):
    out, log = tmp_path / "out", tmp_path / "log"
    process = start(out, log, 2, monkeypatch)
    for points in (10, 20, 30):  # of two workers one each time
        while begun(log) < points and process.poll() is None:
            time.sleep(0.01)
        os.kill(worker_of(process.pid), signal.SIGKILL)
    assert process.wait(HANGS_S) == 0
    assert (out / "points.parquet").read_bytes() == uninterrupted


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, None)])
def test_workers_do_not_outlive_a_killed_driver_or_an_interrupted_one(tmp_path, monkeypatch, sent, code):
    out, log = tmp_path / "out", tmp_path / "log"
    monkeypatch.setenv("SWEEP_HELD", "yes")  # both workers are at a point, and stay there
    process = start(out, log, 2, monkeypatch)
    while begun(log) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    pids = children(process.pid)
    assert len(pids) >= 2
    process.send_signal(sent)
    left = process.wait(HANGS_S)
    assert left == code if code is not None else left != 0
    while any(Path(f"/proc/{pid}").exists() and not zombie(pid) for pid in pids):
        time.sleep(0.05)  # a worker that outlives its driver is ended by the time limit of the test


def zombie(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True
