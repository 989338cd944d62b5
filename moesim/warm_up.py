"""A machine's first run: what it needs is compiled by processes of their own, router and flow engine side by side.

numba compiles on one core; what another process compiled comes back through its cache. A large run waits for them under
a bar that names what is compiled; beside a small one, which is interpreted, they work on their own.
"""

import contextlib
import fcntl
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from moesim.compiling import any_place, cache_folders, cached_files, in_cache, interpreted

# What a run asks for, in small; functions that numba compiles for it, about; and the one compiled last.
PARTS = {
    "router": (("routing/fused.py", "route_block"), 130, """
import numpy as np
from moesim.routing import RouterSpec, route_and_measure
spec = RouterSpec("v3", n_experts=64, top_k=8, n_groups=8, top_groups=4)
route_and_measure(np.zeros((1, 64), np.float32), spec, device_of_expert=[0] * 64, sequence_id=[0])
"""),
    "flow engine": (("network/exact/progress.py", "advance"), 130, """
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
"""),
}  # fmt: skip
_ABOUT_S = 30
_LONGEST_ASIDE_S = 120
_aside: list[subprocess.Popen[bytes]] = []


def missing() -> list[str]:
    """Parts that this machine has not compiled yet."""
    return [part for part, ((module, function), *_) in PARTS.items() if not in_cache(module, function)]


def compile_first() -> None:
    """Compile what is missing, all parts at once, and return when it is there; kernels then come from the cache.

    Where this cannot be done (one core, a worker of a pool) nothing is, and kernels compile when they are called.
    """
    alone = multiprocessing.parent_process() is not None or (os.cpu_count() or 1) < 2
    parts = [] if alone or interpreted() else missing()
    if not parts:
        return
    with contextlib.ExitStack() as ending:
        try:
            processes = [_begin(part, stdout=subprocess.PIPE) for part in parts]
        except OSError:
            return
        for process in processes:
            ending.callback(process.kill)
        with _bar(parts) as compiled:
            readers = [threading.Thread(target=_follow, args=(process, compiled)) for process in processes]
            for reader in readers:
                reader.start()
            for reader in readers:
                reader.join()


def compile_aside() -> None:
    """Let a process go on without this one and compile what is missing, two minutes at most; ``end_aside`` ends it.

    None in CI (the variable ``CI``) or with ``MOESIM_BACKGROUND=0``.
    """
    if os.environ.get("MOESIM_BACKGROUND") == "0" or os.environ.get("CI") or not any_place():
        return
    with contextlib.suppress(OSError):  # then the first large run compiles
        _aside.extend(_begin(part, stdout=subprocess.DEVNULL, aside=True) for part in missing())


def end_aside() -> None:
    """End what ``compile_aside`` began: the user wants this machine for something else."""
    for process in _aside:
        process.kill()


def _begin(part: str, stdout: int, aside: bool = False) -> subprocess.Popen[bytes]:
    code = f"from moesim.warm_up import fill; fill({part!r}, {aside})"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(  # noqa: S603 - this Python and words of our own
        [sys.executable, "-c", code],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def fill(part: str, aside: bool) -> None:
    """Compile a part and print the name of each function before; in a process of its own."""
    if aside:
        os.nice(15)
        signal.alarm(_LONGEST_ASIDE_S)
        lock = open(_lock_file(part), "w")  # noqa: SIM115 - held until the process ends
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return  # another process is at it
    from numba.core import event

    class Names(event.Listener):
        def on_start(self, what: Any) -> None:
            print(what.data["dispatcher"].__name__, flush=True)

        def on_end(self, what: Any) -> None:
            pass

    register: Any = event.register
    register("numba:compile", Names())
    exec(PARTS[part][2], {})  # noqa: S102 - words of our own
    for path in cached_files(*PARTS[part][0]):
        os.utime(path)  # numba goes by a source's content: what it took from the cache is up to date too


def _lock_file(part: str) -> Path:
    folder = next(iter(cache_folders(PARTS[part][0][0])))
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"compiling-{part.replace(' ', '-')}.lock"


def _follow(process: subprocess.Popen[bytes], compiled: Callable[[str], None]) -> None:
    for line in process.stdout or ():
        compiled(line.decode().strip())
    process.wait()


@contextlib.contextmanager
def _bar(parts: list[str]) -> Iterator[Callable[[str], None]]:
    """What takes the name of each function: it moves a bar on a terminal; else one line says how long it takes."""
    what = f"compiling the {' and the '.join(parts)}, once per machine"
    if not sys.stderr.isatty():
        print(f"{what}: about {_ABOUT_S} s", file=sys.stderr, flush=True)
        yield lambda name: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.fields[name]}"))
    terminal = Console(file=getattr(sys.stderr, "styled", sys.stderr))  # past the filter of the command line
    with Progress(*columns, console=terminal, transient=True) as progress:
        task = progress.add_task(what, total=sum(PARTS[part][1] for part in parts), name="")
        yield lambda name: progress.update(task, advance=1, name=name)
