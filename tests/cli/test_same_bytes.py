"""The same scenario and seed give the same bytes, whatever the process around them is like; and nobody is called."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
SETTINGS = {
    "hash seed 1, Berlin": {"PYTHONHASHSEED": "1", "TZ": "Europe/Berlin", "LC_ALL": "de_DE.UTF-8"},
    "hash seed 2, plain C": {"PYTHONHASHSEED": "2", "TZ": "Pacific/Kiritimati", "LC_ALL": "C", "PYTHONUTF8": "0"},
    "one thread, compiled": {"NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MOESIM_INTERPRET": "0"},
    "many threads, Turkish": {"OMP_NUM_THREADS": "8", "OPENBLAS_NUM_THREADS": "8", "LC_ALL": "tr_TR.UTF-8"},
}


def digests(folder):
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "provenance.json"
    }


def run(folder, scenario, setting, umask=0o022):
    folder.mkdir()
    command = [sys.executable, "-m", "moesim", "run", str(scenario), "-q", "--out", str(folder / "out")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | setting
    subprocess.run(command, check=True, cwd=folder, env=environment, umask=umask, capture_output=True)
    return digests(folder / "out")


def backwards(value):
    return {key: backwards(value[key]) for key in reversed(value)} if isinstance(value, dict) else value


@pytest.mark.jit
def test_locale_zone_umask_folder_threads_and_order_of_keys_change_no_byte(here, tmp_path):
    first = run(tmp_path / "first", here / "small.yaml", {"PYTHONHASHSEED": "0"})
    (here / "other").mkdir()
    shuffled = here / "other/small.yaml"
    shuffled.write_text(json.dumps(backwards(YAML(typ="safe").load(here / "small.yaml"))))
    for i, (name, setting) in enumerate(SETTINGS.items()):
        again = run(tmp_path / str(i), shuffled, setting, umask=0o077)
        assert again == first, name


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
