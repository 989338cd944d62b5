"""Many kills at little cost: ``python many_kills.py FOLDER JOBS|SCHEDULER_FILE SEEDS SWEEPS KILLS``.

Python, moesim and its compiled loops are loaded once; each driver is a fork of this process, and so is each worker of
its pool. Every sweep is killed so many times before it may end. Prints a line of JSON for each.
"""

import json
import os
import random
import shutil
import signal
import sys
import threading
import time
from contextlib import suppress
from multiprocessing.context import ForkContext, ForkProcess
from pathlib import Path

from driver import sweep
from killed import PER_SEED, kill_and_go_on

from moesim.spawn import follow_parent
from moesim.sweeps import workers


class ForkedWorker(ForkProcess):
    def run(self):
        follow_parent()
        super().run()


class ForkedWorkers(ForkContext):
    """Stands in for ``WorkerContext``."""

    def __init__(self):
        super().__init__()
        self.workers = []

    def Process(self, *arguments, **named):
        self.workers.append(ForkedWorker(*arguments, **named))
        return self.workers[-1]

    def kill(self):
        for worker in self.workers:
            worker.kill()


class Forked:
    """A fork of this process that makes the sweep, as ``subprocess.Popen`` would show it."""

    def __init__(self, *arguments):
        self.pid, self.code = os.fork(), None
        if not self.pid:
            code = 1
            try:
                sweep(*arguments)
                code = 0
            finally:
                os._exit(code)

    def poll(self, wait=os.WNOHANG):
        if self.code is None:
            pid, status = os.waitpid(self.pid, wait)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code

    def send_signal(self, number):
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self, _=None):
        return self.poll(0)


def main(folder, where, seeds, sweeps, kills):
    workers.WorkerContext = ForkedWorkers
    os.environ["SWEEP_LOG"] = str(folder / "log")
    Forked(folder / "whole", "1", seeds).wait()
    whole = (folder / "whole/points.parquet").read_bytes()
    sweep(folder / "loaded", "1", 1)  # the loops are in memory from here on
    if not where.isdecimal():
        import distributed  # noqa: F401 - once, for all forks
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    assert threading.active_count() == 1, threading.enumerate()
    for seed in range(sweeps):
        (folder / "log").unlink(missing_ok=True)
        shutil.rmtree(folder / "out", ignore_errors=True)
        began, rng = time.monotonic(), random.Random(seed)
        begin = lambda: Forked(folder / "out", where, seeds)  # noqa: E731
        told = kill_and_go_on(folder / "out", folder / "log", begin, 2, whole, rng, kills, seeds * PER_SEED)
        names = ("kills", "again", "tables")
        print(json.dumps(dict(zip(names, told, strict=True)) | {"s": round(time.monotonic() - began)}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))
