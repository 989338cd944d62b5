"""What follows the router, compiled by a process of its own while this one routes: a first run waits half as long.

numba compiles on one core; what another process compiled comes back through its cache.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import subprocess
import sys

from moesim.compiling import is_compiled
from moesim.network import advance

# What a run asks for once it has routed, in small.
_EXAMPLE = """
import numpy as np
from moesim.network import FlowBatch, FlowNetwork
from moesim.timeline.intervals import gaps
from moesim.traffic import count_copies
from moesim.traffic.row_merge import merge_rows
network = FlowNetwork([1.0], log_bottlenecks=True)
network.record_utilisation(1.0, [0])
waiter = network.new_waiters(1)
handle = network.start(FlowBatch([0, 1], [0], [1.0], waiter_ptr=[0, 1], waiter_ids=[waiter]))
network.run(float("inf"))
network.release(handle)
one, none = np.zeros(1, np.int64), np.zeros(1, np.int32)
merge_rows(one, none, np.ones(1), 1, 1)
gaps(np.array([0, 1]), np.zeros(1), np.ones(1), none, np.zeros(1))
count_copies([[0]], [0], [0], 1, 1, "rank")
"""
_at_work: list[subprocess.Popen[bytes]] = []


def compile_ahead() -> None:
    """Let another process compile, unless this machine has everything."""
    alone = multiprocessing.parent_process() is not None or (os.cpu_count() or 1) < 2
    if alone or _at_work or is_compiled(advance):
        return
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        process = subprocess.Popen(  # noqa: S603 - this Python and words of our own
            [sys.executable, "-c", _EXAMPLE],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError:
        return  # then this process compiles when it comes to it
    print("compiling the flow engine aside, once per machine: about 15 s", file=sys.stderr, flush=True)
    atexit.register(process.kill)
    _at_work.append(process)


def wait_until_compiled() -> None:
    """Wait for what ``compile_ahead`` began; its exit status is ignored: this is only an optimisation."""
    for process in _at_work:
        process.wait()
