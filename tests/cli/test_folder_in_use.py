"""Several commands that want one folder: one has it, the others end with 3 or wait."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from moesim.output_folder import folder_in_one_piece, held
from moesim.results import load_result
from moesim.sweeps.sweep_run import LOCK_FILE

ROOT = Path(__file__).parents[2]
RUN = ("run", "small.yaml", "--no-report", "-q", "--out", "out")
SWEEP = ("sweep", "small.yaml", "-p", "seed=0..1", "--jobs", "1", "-q", "--out", "out")


def start(here, *command):
    def interruptible():
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell in the background ignores it, and that is inherited

    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True, "preexec_fn": interruptible}
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-m", "moesim", *command], cwd=here, env=environment, **pipes)


def in_use(line):
    return f"out is in use by process {os.getpid()} on " in line


@pytest.mark.jit
@pytest.mark.parametrize("command", [RUN, SWEEP])
def test_who_waits_says_so_once_and_an_interrupt_ends_it(here, command):
    (here / "out").mkdir() if command is SWEEP else None
    holder = held(here / "out", here / "out" / LOCK_FILE) if command is SWEEP else folder_in_one_piece(here / "out")
    with pytest.raises(KeyboardInterrupt), holder:
        waiting = start(here, *command, "--wait")
        said = waiting.stderr.readline()
        assert in_use(said) and said.endswith(": waiting\n")
        waiting.send_signal(signal.SIGINT)
        rest = waiting.stderr.read().splitlines()
        assert (
            waiting.wait() == 130 and rest[-1] == "moesim: interrupted" and len(rest) == (2 if command is SWEEP else 1)
        )
        raise KeyboardInterrupt
    left = {path.relative_to(here).as_posix() for path in here.rglob("*")}
    assert left == {"small.yaml"} | ({"out", f"out/{LOCK_FILE}"} if command is SWEEP else set())


def test_without_waiting_it_ends_with_3_and_the_way_out(here, moesim):
    with pytest.raises(KeyboardInterrupt), folder_in_one_piece(here / "out"):
        done = moesim(*RUN)
        assert done.code == 3 and in_use(done.err) and "give another --out, or --wait" in done.err
        raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("more", [(), ("--wait",)])
def test_of_four_commands_at_once_all_end_as_they_should_and_the_result_is_whole(here, more):
    codes = []
    for _ in range(5):
        commands = [start(here, *RUN, *more) for _ in range(4)]
        for command in commands:
            said = command.communicate()[1]
            codes.append(command.returncode)
            assert command.returncode in ((0,) if more else (0, 3)) and "Traceback" not in said
            assert command.returncode == 0 or any(f"in use by process {one.pid} on " in said for one in commands)
        load_result(here / "out")
        assert {path.name for path in here.iterdir()} == {"small.yaml", "out"}
    assert codes.count(0) >= 5
