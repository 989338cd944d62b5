"""A sweep in a process of its own, for tests that kill it: ``python driver.py OUT JOBS|SCHEDULER_FILE SEEDS``."""

import sys
from pathlib import Path

from small_sweep import AXES, SMALL, noted_time_point

from moesim.scenario import load_scenario
from moesim.sweeps import drive
from moesim.sweeps.space import space_of
from moesim.sweeps.sweep_run import run_sweep
from moesim.sweeps.workers import dask_workers, local_workers


def sweep(out, where, seeds):
    drive.time_point = noted_time_point
    workers = (
        (lambda _: local_workers(int(where))) if where.isdecimal() else (lambda _: dask_workers(None, Path(where)))
    )
    run_sweep(load_scenario(SMALL), space_of(None, {**AXES, "seed": f"0..{seeds - 1}"}), workers, folder=out)


if __name__ == "__main__":
    sweep(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
