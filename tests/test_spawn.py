"""Worker processes and Ctrl-C."""

import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor

import pytest

from moesim.spawn import WorkerContext


def _blocked() -> bool:
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, set())


def test_a_worker_never_sees_ctrl_c_and_its_driver_still_does():
    with ProcessPoolExecutor(1, WorkerContext()) as pool:
        assert pool.submit(_blocked).result()
        assert not _blocked()
        (worker,) = pool._processes
        os.kill(worker, signal.SIGINT)
        assert pool.submit(os.getpid).result() == worker


def test_an_interrupt_during_the_start_of_a_worker_comes_after_it(monkeypatch):
    process = WorkerContext().Process(target=os.getpid)
    started = type(process).__mro__[1].start

    def interrupted_start(self):
        # In a thread that does not block it, as when a terminal's signal happens to be delivered there.
        def interrupt():
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            signal.raise_signal(signal.SIGINT)

        sender = threading.Thread(target=interrupt)
        sender.start()
        sender.join()
        started(self)

    monkeypatch.setattr(type(process).__mro__[1], "start", interrupted_start)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell runs the tests aside
    try:
        with pytest.raises(KeyboardInterrupt):
            process.start()
    finally:
        signal.signal(signal.SIGINT, before)
    process.join()
    assert process.exitcode == 0
