"""Ctrl-C at any instant: one line and exit 130 soon, no process left, and a folder that is whole or not there."""

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from moesim.results import load_result

ROOT = Path(__file__).parents[2]
RUN = ("run", "small.yaml", "--no-report", "--out", "out")
SWEEP = ("sweep", "small.yaml", "-p", "seed=0..3", "--jobs", "2", "--out", "out")


def start(here, command):
    def interruptible():
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell in the background ignores it, and that is inherited

    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "moesim", *command, "-q"]
    return subprocess.Popen(
        command, cwd=here, env=environment, start_new_session=True, preexec_fn=interruptible, **pipes
    )


def interrupt(here, command, after_s, once_there=None):
    """Interrupt the command's whole group as a terminal does; return its code and the seconds until it had ended.

    ``after_s`` counts from the start, or from when the file ``once_there`` is in the folder.
    """
    process = start(here, command)
    while once_there is not None and not (here / once_there).exists() and process.poll() is None:
        time.sleep(0.01)
    time.sleep(after_s)
    began = time.monotonic()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=120)[1].splitlines()
    took = time.monotonic() - began
    assert not any("Traceback" in line for line in said), said
    if process.returncode in (130, 0):
        assert len(said) <= 2, said
    else:
        assert (process.returncode, said) == (-signal.SIGINT, [])  # while Python or the parser is loaded
    with pytest.raises(ProcessLookupError):
        # 5 s of a machine that has a core for it; as many times longer as there are processes for each.
        until = time.monotonic() + 5 * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
        while time.monotonic() < until:
            os.killpg(process.pid, 0)
            time.sleep(0.05)
    return process.returncode, took


def check(here, command):
    left = sorted(path.name for path in here.iterdir())
    if command is RUN:
        assert left in (["small.yaml"], ["out", "small.yaml"])
        if "out" in left:
            load_result(here / "out")


def test_an_interrupt_of_a_text_that_runs_as_code_exits_130_too(tmp_path):
    code = """
import moesim.cli.app as app
def stopped(**_):
    exec("raise KeyboardInterrupt")  # as dataclasses do while a library is loaded
app.program = lambda *_: stopped
app.main()
"""
    (tmp_path / "stopped.py").write_text(code)
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{tmp_path}"}
    command = [sys.executable, "-m", "stopped"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "moesim: interrupted\n")


@pytest.mark.jit
@pytest.mark.parametrize(("command", "lock"), [(RUN, ".out.moesim-lock"), (SWEEP, "out/.lock")])
def test_an_interrupt_leaves_nothing_half_done(here, command, lock):
    code, _ = interrupt(here, command, 0.3, once_there=lock)
    assert code in (130, 0)
    check(here, command)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("command", "times"), [(RUN, 60), (SWEEP, 40)])
def test_an_interrupt_at_any_instant_leaves_nothing_half_done(here, capsys, command, times):
    began = time.monotonic()
    assert start(here, command).wait(300) == 0
    whole_s, rng, ends = time.monotonic() - began, random.Random(times), []
    table = (here / "out/points.parquet").read_bytes() if command is SWEEP else b""
    for _ in range(times):
        subprocess.run(["rm", "-rf", "out"], cwd=here, check=True)
        ends.append(interrupt(here, command, rng.uniform(0, whole_s)))
        check(here, command)
    if command is SWEEP:
        assert start(here, command).wait(300) == 0 and (here / "out/points.parquet").read_bytes() == table
    took = sorted(seconds for _, seconds in ends)
    codes = {code: sum(one == code for one, _ in ends) for code in sorted({code for code, _ in ends})}
    with capsys.disabled():
        print(f"\n{command[0]}: {times} interrupts over {whole_s:.1f} s, codes {codes}, ", end="")
        print(
            f"ended after {took[len(took) // 2]:.2f} s in the median, {took[int(0.95 * len(took))]:.2f} s in 95 of 100"
        )
