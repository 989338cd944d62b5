"""Worker processes that leave Ctrl-C to their driver from the very first instruction.

A terminal sends SIGINT to the whole group of processes. A worker that is still importing has had no chance to ignore
it and would die with a traceback; so the signal is blocked in the child before it exists, by inheritance.
"""

import signal
from multiprocessing.context import SpawnContext, SpawnProcess


class _Worker(SpawnProcess):
    def start(self) -> None:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


class WorkerContext(SpawnContext):
    """The ``spawn`` start method, with SIGINT blocked in every child."""

    Process = _Worker
