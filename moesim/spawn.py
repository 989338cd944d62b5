"""Processes that work for this one: a list is mapped over them, or a driver hands out tasks (``moesim.sweeps``).

Workers leave Ctrl-C to their driver from the very first instruction, and do not outlive it. A terminal sends SIGINT to
the whole group of processes. A worker that is still importing has had no chance to ignore it and would die with a
traceback; so the signal is blocked in the child before it exists, by inheritance.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any, TypeVar

from moesim.warm_up import compile_first

Item = TypeVar("Item")
Made = TypeVar("Made")


def follow_parent() -> None:
    """End this process once the one that started it has ended, however it ended."""
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


class _Worker(SpawnProcess):
    def run(self) -> None:
        follow_parent()
        super().run()

    def start(self) -> None:
        with _interrupts_afterwards():
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                super().start()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _interrupts_afterwards() -> Iterator[None]:
    """Hold SIGINT and SIGTERM back until the block ends: a child whose parent stops while starting it dies noisily.

    Blocking the signal in this thread is not enough: another thread can take it, and Python then interrupts the main
    thread wherever that is. Only the main thread can be interrupted, and only it can change handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: came.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        signal.raise_signal(came[0])


class WorkerContext(SpawnContext):
    """The ``spawn`` start method, with SIGINT blocked in every child, which ends when this process does.

    Attributes:
        workers: every child of this context, also one whose start was the last thing before an interrupt.
    """

    def __init__(self) -> None:
        super().__init__()
        self.workers: list[_Worker] = []

    def Process(self, *arguments: Any, **named: Any) -> _Worker:  # type: ignore[override]
        """Make a child, not yet started."""
        worker = _Worker(*arguments, **named)
        self.workers.append(worker)
        return worker

    def kill(self) -> None:
        """End every child at once."""
        for worker in self.workers:
            if worker.pid is not None:
                worker.kill()


def map_in_processes(
    work: Callable[[Item], Made], items: Sequence[Item], jobs: int, progress: Callable[[int], None]
) -> list[Made]:
    """Map a function over items in as many processes as asked for, in this one where one is enough.

    Args:
        work: a function of a module, or a ``partial`` of one.
        items: in the order of the results.
        jobs: processes at most.
        progress: told how many items are done, from 0 on, in their order.
    """
    made: list[Made] = []
    progress(0)
    if jobs == 1 or len(items) <= 1:
        for number, item in enumerate(items, 1):
            made.append(work(item))
            progress(number)
        return made
    compile_first()  # not each worker for itself
    context = WorkerContext()
    with ProcessPoolExecutor(min(jobs, len(items)), mp_context=context) as pool:
        try:
            for one in pool.map(work, items):
                made.append(one)
                progress(len(made))
        except BaseException:
            context.kill()
            raise
    return made
