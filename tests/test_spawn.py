"""Workers of every pool: none outlives its driver, whatever it is doing."""

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from moesim.spawn import map_in_processes

DRIVER = """
import os, sys, time
from concurrent.futures import ProcessPoolExecutor
from moesim.spawn import WorkerContext
if __name__ == "__main__":
    with ProcessPoolExecutor(2, mp_context=WorkerContext()) as pool:
        # One is at work, one has more to say than its pipe holds: nobody will read it.
        given = pool.submit(time.sleep, 1000), pool.submit(bytes, 10**8)
        while len(pool._processes) < 2:
            time.sleep(0.01)
        print(*pool._processes, flush=True)
        time.sleep(1000)
"""


def alive(pid):
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def test_workers_end_with_a_driver_that_is_killed(tmp_path):
    (tmp_path / "driver.py").write_text(DRIVER)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    pipes = {"stdout": subprocess.PIPE, "text": True, "env": environment}
    driver = subprocess.Popen([sys.executable, tmp_path / "driver.py"], **pipes)
    pids = [int(word) for word in driver.stdout.readline().split()]
    assert len(pids) == 2 and all(map(alive, pids))
    driver.send_signal(signal.SIGKILL)
    driver.communicate()
    while any(map(alive, pids)):
        time.sleep(0.05)  # a worker that stays is ended by the time limit of the test


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_map_keeps_its_order_and_tells_how_far_it_is(jobs):
    told = []
    assert map_in_processes(math.factorial, [20, 3, 0], jobs, told.append) == [math.factorial(20), 6, 1]
    assert told == [0, 1, 2, 3]


def test_a_map_whose_work_fails_does_not_wait_for_the_rest_of_it():
    began = time.monotonic()
    with pytest.raises(TypeError):
        map_in_processes(time.sleep, ["no number", 1000], 2, lambda done: None)
    assert time.monotonic() - began < 200
