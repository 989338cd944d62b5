"""What a run needs beside its router compiled aside: begun once, waited for, and enough."""

import os
import subprocess
import sys

import pytest

from moesim.run import compile_ahead


class Process:
    """Stands for the process that compiles."""

    def __init__(self, arguments, **named):
        self.arguments, self.waited = arguments, 0

    def wait(self):
        self.waited += 1

    def kill(self):
        pass


@pytest.fixture
def begun(monkeypatch):
    """Processes begun, on a machine of two cores that has nothing compiled."""
    processes = []

    def begin(arguments, **named):
        processes.append(Process(arguments, **named))
        return processes[-1]

    monkeypatch.setattr(compile_ahead, "_at_work", [])
    monkeypatch.setattr(compile_ahead, "is_compiled", lambda entry: False)
    monkeypatch.setattr(compile_ahead.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(compile_ahead.subprocess, "Popen", begin)
    return processes


def test_it_begins_once_and_says_so_and_is_waited_for(begun, capsys):
    compile_ahead.compile_ahead()
    compile_ahead.compile_ahead()
    (process,) = begun
    assert process.arguments[0] == sys.executable
    assert capsys.readouterr().err.startswith("compiling the flow engine")
    assert process.waited == 0
    compile_ahead.wait_until_compiled()
    assert process.waited == 1


def test_a_machine_that_has_it_or_only_one_core_begins_nothing(begun, monkeypatch, capsys):
    monkeypatch.setattr(compile_ahead.os, "cpu_count", lambda: 1)
    compile_ahead.compile_ahead()
    monkeypatch.setattr(compile_ahead.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(compile_ahead, "is_compiled", lambda entry: True)
    compile_ahead.compile_ahead()
    assert not begun and not capsys.readouterr().err


def test_where_no_process_can_be_begun_the_run_compiles_itself(begun, monkeypatch):
    def refused(arguments, **named):
        raise OSError

    monkeypatch.setattr(compile_ahead.subprocess, "Popen", refused)
    compile_ahead.compile_ahead()
    compile_ahead.wait_until_compiled()
    assert not begun


@pytest.mark.jit
@pytest.mark.slow
def test_what_it_compiles_is_what_a_run_needs(tmp_path):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", compile_ahead._EXAMPLE], env=environment, check=True)
    count = "print(*(sum(k.stats.cache_misses.values()) for k in (progress.advance, membership.admit, gaps)))"
    again = f"{compile_ahead._EXAMPLE}\nfrom moesim.network.exact import membership, progress\n{count}"
    done = subprocess.run([sys.executable, "-c", again], env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["0", "0", "0"] and not done.stderr


def test_the_example_that_it_runs_can_be_run():
    subprocess.run([sys.executable, "-c", compile_ahead._EXAMPLE], check=True)
