"""Every call that brings something to a disk may fail: exit 3 in one line, what was there before stays whole, and the
same command afterwards gives the same bytes.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
COMPILER = shutil.which("cc")
RUN = ("run", "small.yaml", "-q", "--no-report")
SWEEP = ("sweep", "small.yaml", "-q", "--jobs", "1", "-p", "seed=0..1")


@pytest.fixture(scope="session")
def failing(tmp_path_factory):
    """The library that makes calls fail."""
    if COMPILER is None:
        pytest.skip("needs a C compiler")
    library = tmp_path_factory.mktemp("failing") / "failing.so"
    subprocess.run([COMPILER, "-shared", "-fPIC", "-o", library, HERE / "failing_calls.c", "-ldl"], check=True)
    return library


def outcomes(here, failing, command, calls):
    (here / "below").mkdir()
    environment = os.environ | {
        "LD_PRELOAD": str(failing),
        "FAIL_BELOW": str(here / "below"),
        "FAIL_CALLS": ",".join(map(str, calls)),
        "PYTHONPATH": str(HERE.parents[1]),
    }
    done = subprocess.run(
        [sys.executable, HERE / "failing_driver.py", here / "below", *command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=3000,
    )
    assert done.returncode == 0, done.stderr
    first, *rest = map(json.loads, done.stdout.splitlines())
    assert len(rest) == (len(calls) or first["calls"])
    return rest


def check(ended):
    for one in ended:
        assert one["code"] in (0, 3), one  # SQLite does without some calls
        assert len(one["said"]) == (1 if one["code"] else 0) and one["old"] and not one["hidden"], one
        assert one["again"] == 0 and one["same"], one
    assert any(one["code"] == 3 for one in ended)


@pytest.mark.jit
@pytest.mark.parametrize(("command", "calls"), [(RUN, (2, 73)), (SWEEP, (14,))])
def test_when_a_call_fails_nothing_is_lost(here, failing, command, calls):
    check(outcomes(here, failing, command, calls))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("command", [RUN, SWEEP])
def test_whichever_call_fails_nothing_is_lost(here, failing, command):
    check(outcomes(here, failing, command, ()))
