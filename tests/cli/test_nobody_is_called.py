"""A run and a sweep call nobody: no socket is opened, no name looked up."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LISTENER = """
import sys
def heard(event, arguments):
    if event in ("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto", "urllib.Request"):
        print("called", event, arguments, file=sys.stderr)
        sys.exit(99)
sys.addaudithook(heard)
from moesim.cli import main
main()
"""


@pytest.mark.jit
@pytest.mark.parametrize("command", [("run", "small.yaml"), ("sweep", "small.yaml", "-p", "seed=0,1", "--jobs", "1")])
def test_nobody_is_called(here, command):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", LISTENER, *command, "-q", "--out", "out"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
