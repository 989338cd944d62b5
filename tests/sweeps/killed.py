"""Start the driver, kill it, go on: what the tests of kills share."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

HERE = Path(__file__).parent
PER_SEED = 8
POINTS = 40
HANGS_S = 240
"""After this a process hangs: far more than any machine, however loaded, takes for what these do."""


def start(out, log, where, monkeypatch):
    monkeypatch.setenv("SWEEP_LOG", str(log))
    monkeypatch.setenv("PYTHONPATH", f"{HERE.parents[1]}:{HERE}")
    command = [sys.executable, str(HERE / "driver.py"), str(out), str(where), str(POINTS // PER_SEED)]
    return subprocess.Popen(command, preexec_fn=interruptible)


def interruptible():
    """Undo what a shell does to what it runs in the background: it ignores SIGINT, and that would be inherited."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def lines(log):
    return log.read_text().splitlines() if log.exists() else []


def begun(log):
    return len(lines(log))


def finished(out):
    """How many points are in the journal."""
    if not (out / "journal.sqlite").exists():
        return 0
    with closing(sqlite3.connect(out / "journal.sqlite")) as journal:
        there = journal.execute("SELECT count(*) FROM sqlite_master WHERE name = 'points'").fetchone()[0]
        return journal.execute("SELECT count(*) FROM points").fetchone()[0] if there else 0


def kill_and_go_on(out, log, begin, workers, whole, rng, kills=1, points=POINTS):
    """Kill the sweep that ``begin`` starts again and again, each time after some more points, then let it end.

    Returns how many kills met it alive, how many points were computed again, and after how many the table was there.
    """
    killed, lost, tables = 0, [0], 0  # lost: points that were begun and are not in the journal, and those begun again
    for _ in range(kills):
        process = begin()
        until, after_s = begun(log) + rng.randrange(2 * points // (kills + 1)), rng.uniform(0, 0.05)
        while begun(log) < min(until, points) and process.poll() is None:
            time.sleep(0.002)
        time.sleep(after_s)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        lost.append(begun(log) - finished(out))
        assert lost[-1] <= workers * killed
        if (out / "points.parquet").exists():
            tables += 1
            assert (out / "points.parquet").read_bytes() == whole
    assert begin().wait(HANGS_S) == 0
    assert (out / "points.parquet").read_bytes() == whole
    assert len(set(lines(log))) == finished(out) == points and begun(log) <= points + workers * killed
    return killed, begun(log) - points, tables


def kill_many_times(folder, where, capsys):
    """A sweep of 504 points on two workers that is killed 110 times (``many_kills.py``); prints what it cost."""
    command = [sys.executable, str(HERE / "many_kills.py"), str(folder), str(where), "63", "1", "110"]
    with capsys.disabled():
        print(f"\n{where}: ", end="", flush=True)
        subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": str(HERE.parents[1])})


def children(pid):
    """Processes that a process has started, by whichever of its threads."""
    return [int(child) for file in Path(f"/proc/{pid}/task").glob("*/children") for child in file.read_text().split()]


def worker_of(pid):
    """A process that computes for a pool or a nanny, once there is one."""
    began = time.monotonic()
    while time.monotonic() - began < HANGS_S:
        for child in children(pid):
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                return child
        time.sleep(0.1)
    raise AssertionError("no worker is put back")
