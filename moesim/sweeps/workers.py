"""What computes: processes of this machine, a Dask cluster, or any ``concurrent.futures.Executor``.

The drive loop knows nothing but ``Workers``: an executor, how many tasks it can run at once, and what to do when one of
its workers dies.
"""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from moesim import __version__
from moesim.errors import ResourceError
from moesim.spawn import WorkerContext

# Time for the thread of a pool whose processes are dead to end.
_LEAVE_S = 2.0
# Time for a Dask scheduler to answer, and for its first worker to join.
_JOIN_S = 30
# Dask workers come and go; asking for their number at every task would slow the sweep.
_ASK_AGAIN_S = 5.0


@dataclass
class Workers:
    """An executor and how it behaves.

    Attributes:
        executor: runs the tasks.
        slots: how many tasks it can run at once, now.
        deaths: exceptions that mean that a worker died, not that the task is wrong.
        tries: how often a task whose worker died is run in all.
        renew: makes a new executor after a death; None where the old one continues.
    """

    executor: Executor
    slots: Callable[[], int]
    deaths: tuple[type[BaseException], ...] = ()
    tries: int = 1
    renew: Callable[[], Executor] | None = None


@contextmanager
def local_workers(jobs: int) -> Iterator[Workers]:
    """Give this many processes of this machine; none remains after the block, however it ends."""
    pool = _Pool(jobs)
    try:
        yield Workers(pool.start(), lambda: jobs, (BrokenExecutor,), tries=3, renew=pool.start)
    finally:
        pool.stop()


@dataclass
class _Pool:
    jobs: int
    context: WorkerContext = field(default_factory=WorkerContext)
    pool: ProcessPoolExecutor | None = None

    def start(self) -> Executor:
        self.stop()
        self.context = WorkerContext()
        self.pool = ProcessPoolExecutor(self.jobs, self.context)
        return self.pool

    def stop(self) -> None:
        """End the processes at once: what they are computing is lost, what they have computed is not."""
        # The processes first: a shut pool unlinks its semaphores, and a child that is still starting would miss them.
        self.context.kill()
        if self.pool is not None:
            # Python's own handler at exit writes to the pool's pipe, which the pool's thread may be closing: let that
            # thread end first. With a limit, for one that is writing a large task to a dead worker never ends.
            shutdown = threading.Thread(target=self.pool.shutdown, kwargs={"cancel_futures": True}, daemon=True)
            shutdown.start()
            shutdown.join(_LEAVE_S)
            self.pool = None


@contextmanager
def dask_workers(address: str | None, scheduler_file: Path | None) -> Iterator[Workers]:
    """Give the workers of a running Dask cluster.

    Raises:
        ResourceError: distributed is not installed, no scheduler answers, it has no workers, or they have another
            moesim.
    """
    try:
        distributed: Any = import_module("distributed")
    except ImportError as error:
        raise ResourceError("Dask is not installed: pip install 'moesim[dask]'") from error
    where = address or str(scheduler_file)
    if scheduler_file is not None and not scheduler_file.is_file():
        raise ResourceError(f"no such scheduler file: {scheduler_file}")
    try:
        client = distributed.Client(
            address, scheduler_file=None if scheduler_file is None else str(scheduler_file), timeout=_JOIN_S
        )
    except (OSError, ValueError) as error:
        raise ResourceError(f"no Dask scheduler at {where}: {error}") from error
    try:
        try:
            client.wait_for_workers(1, timeout=_JOIN_S)
            versions = set(client.run(_version).values())
        except (OSError, ImportError) as error:
            raise ResourceError(f"the Dask workers at {where} cannot be used: {error}") from error
        if versions != {__version__}:
            raise ResourceError(f"the Dask workers have moesim {', '.join(sorted(versions))}, not {__version__}")
        counted = [0.0, 0.0]

        def threads() -> int:
            if time.monotonic() >= counted[1]:
                counted[:] = sum(client.nthreads().values()), time.monotonic() + _ASK_AGAIN_S
            return max(int(counted[0]), 1)

        # Dask itself runs a task again whose worker died, three times by default, and then gives it up; with it what
        # the same workers had in other threads. So each is tried once more, alone.
        yield Workers(client.get_executor(pure=False), threads, (distributed.scheduler.KilledWorker,), tries=2)
    finally:
        client.close()


def _version() -> str:
    return __version__
