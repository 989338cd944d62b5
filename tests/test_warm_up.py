"""What a first run compiles: side by side and waited for, or aside and forgotten; not where it is unwanted."""

import fcntl
import io
import os
import subprocess
import sys

import pytest

from moesim import warm_up


class Process:
    """Stands for a process that compiles three functions."""

    def __init__(self, arguments, **named):
        self.arguments, self.named, self.killed, self.waited = arguments, named, 0, 0
        self.stdout = io.BytesIO(b"one\ntwo\nthree\n") if named["stdout"] == subprocess.PIPE else None

    def wait(self):
        self.waited += 1

    def kill(self):
        self.killed += 1


@pytest.fixture
def begun(monkeypatch):
    """Processes begun, on a machine of two cores that has nothing compiled."""
    processes = []

    def begin(arguments, **named):
        processes.append(Process(arguments, **named))
        return processes[-1]

    monkeypatch.setattr(warm_up, "_aside", [])
    monkeypatch.setattr(warm_up, "in_cache", lambda *_: False)
    monkeypatch.setattr(warm_up, "interpreted", lambda: False)
    monkeypatch.setattr(warm_up.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(warm_up.subprocess, "Popen", begin)
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.delenv("MOESIM_BACKGROUND", raising=False)
    return processes


def test_router_and_engine_are_compiled_side_by_side_and_waited_for(begun, capsys):
    warm_up.compile_first()
    assert [process.arguments[0] for process in begun] == [sys.executable] * 2
    assert [process.waited for process in begun] == [1, 1]
    assert capsys.readouterr().err == "compiling the router and the flow engine, once per machine: about 30 s\n"


def test_only_what_is_missing_is_compiled(begun, monkeypatch, capsys):
    monkeypatch.setattr(warm_up, "in_cache", lambda module, function: function == "advance")
    warm_up.compile_first()
    assert len(begun) == 1 and "router" in begun[0].arguments[-1]
    monkeypatch.setattr(warm_up, "in_cache", lambda *_: True)
    capsys.readouterr()
    warm_up.compile_first()
    warm_up.compile_aside()
    assert len(begun) == 1 and not capsys.readouterr().err


def test_a_bar_on_a_terminal_names_what_is_compiled(begun, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    warm_up.compile_first()
    assert "compiling the router and the flow engine" in terminal.getvalue() and "three" in terminal.getvalue()


def test_one_core_and_interpreted_kernels_begin_nothing(begun, monkeypatch):
    monkeypatch.setattr(warm_up.os, "cpu_count", lambda: 1)
    warm_up.compile_first()
    monkeypatch.setattr(warm_up.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(warm_up, "interpreted", lambda: True)
    warm_up.compile_first()
    assert not begun


@pytest.mark.parametrize(("variable", "value"), [("CI", "true"), ("MOESIM_BACKGROUND", "0")])
def test_nothing_goes_on_behind_a_run_in_ci_or_where_it_is_forbidden(begun, monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    warm_up.compile_aside()
    assert not begun


def test_what_goes_on_behind_a_run_ends_with_ctrl_c(begun):
    warm_up.compile_aside()
    assert [process.killed for process in begun] == [0, 0] and all(process.waited == 0 for process in begun)
    assert all(process.named["start_new_session"] for process in begun)
    warm_up.end_aside()
    assert [process.killed for process in begun] == [1, 1]


def test_where_no_process_can_be_begun_the_run_compiles_itself(begun, monkeypatch):
    def refused(arguments, **named):
        raise OSError

    monkeypatch.setattr(warm_up.subprocess, "Popen", refused)
    warm_up.compile_first()
    warm_up.compile_aside()
    assert not begun


def test_behind_a_run_one_process_compiles_a_part_for_two_minutes_at_most(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(warm_up.os, "nice", lambda by: calls.append(("nice", by)))
    monkeypatch.setattr(warm_up.signal, "alarm", lambda seconds: calls.append(("alarm", seconds)))
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.setitem(warm_up.PARTS, "router", (("routing/fused.py", "route_block"), 1, "raise ZeroDivisionError"))
    with open(tmp_path / "compiling-router.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        warm_up.fill("router", aside=True)  # another one is at it
    assert calls == [("nice", 15), ("alarm", 120)]
    with pytest.raises(ZeroDivisionError):
        warm_up.fill("router", aside=True)


@pytest.mark.parametrize("part", warm_up.PARTS)
def test_the_examples_can_be_run(part):
    subprocess.run([sys.executable, "-c", warm_up.PARTS[part][2]], check=True)


@pytest.mark.jit
@pytest.mark.slow
def test_what_is_compiled_is_what_a_run_needs(tmp_path):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    for part in warm_up.PARTS:
        code = f"from moesim.warm_up import fill; fill({part!r}, False)"
        subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    count = (
        "import moesim\nfrom numba.core import event\nnames = []\n"
        "class Names(event.Listener):\n"
        "    def on_start(self, what): names.append(what.data['dispatcher'].__name__)\n"
        "    def on_end(self, what): pass\n"
        "event.register('numba:compile', Names())\n"
        "moesim.simulate(moesim.load_scenario('quickstart'))\nprint(len(names), *names)"
    )
    done = subprocess.run([sys.executable, "-c", count], env=environment, check=True, capture_output=True, text=True)
    assert int(done.stdout.split()[0]) <= 6, done.stdout  # such as the placement's, a second together
    assert not done.stderr
