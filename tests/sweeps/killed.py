"""Start the driver, kill it, go on: what the tests of kills share."""

import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
POINTS = 40
HANGS_S = 240
"""After this a process hangs: far more than any machine, however loaded, takes for what these do."""


def start(out, log, where, monkeypatch):
    monkeypatch.setenv("SWEEP_LOG", str(log))
    monkeypatch.setenv("PYTHONPATH", f"{HERE.parents[1]}:{HERE}")
    return subprocess.Popen([sys.executable, str(HERE / "driver.py"), str(out), str(where)], preexec_fn=interruptible)


def interruptible():
    """Undo what a shell does to what it runs in the background: it ignores SIGINT, and that would be inherited."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def begun(log):
    return len(log.read_text().splitlines()) if log.exists() else 0


def kill_and_go_on(tmp_path, monkeypatch, where, workers, whole, after_points, after_s):
    out, log = tmp_path / "out", tmp_path / "log"
    process = start(out, log, where, monkeypatch)
    while begun(log) < after_points and process.poll() is None:
        time.sleep(0.002)
    time.sleep(after_s)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert start(out, log, where, monkeypatch).wait(HANGS_S) == 0
    assert (out / "points.parquet").read_bytes() == whole
    assert POINTS <= begun(log) <= POINTS + workers


def children(pid):
    """Processes that a process has started, by whichever of its threads."""
    return [int(child) for file in Path(f"/proc/{pid}/task").glob("*/children") for child in file.read_text().split()]
