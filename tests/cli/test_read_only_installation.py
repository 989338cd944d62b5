"""An installation that cannot be written, for a user without a home, as in a container with a random user id: it runs.

Needs the right to become another user (root) and ``setpriv``.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import moesim

NOBODY = "65534"
FILES = ("summary.json", "steps.parquet", "links.parquet", "flows.npz", "traffic.npz")


@pytest.fixture
def away():
    """A folder that anybody may enter: an installation that nobody but root may write, and a place for results."""
    if os.geteuid() or shutil.which("setpriv") is None:
        pytest.skip("needs root, and setpriv of util-linux")
    folder = Path(tempfile.mkdtemp(prefix="moesim-read-only-"))
    folder.chmod(0o755)
    kept = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(moesim.__file__).parent, folder / "installed/moesim", ignore=kept)
    (folder / "out").mkdir()
    (folder / "out").chmod(0o777)
    yield folder
    shutil.rmtree(folder)


def as_nobody(away, scenario):
    """Run the scenario there as a user who may read everything and write nothing but results; what it said."""
    (away / "small.yaml").write_text(scenario)
    (away / "small.yaml").chmod(0o644)
    reads = (f"--{kind}-caps=+dac_read_search" for kind in ("inh", "ambient"))  # this Python may be in root's home
    user = ("setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", *reads)
    clean = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    clean |= {"HOME": "/nonexistent", "PYTHONPATH": str(away / "installed"), "TMPDIR": str(away / "out")}
    command = (*user, sys.executable, "-m", "moesim", "run", "small.yaml", "-q", "--no-report", "--out", "out/run")
    done = subprocess.run(command, env=clean, cwd=away, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not list((away / "installed").rglob("__pycache__"))
    assert [path.name for path in (away / "out").iterdir()] == ["run"]
    return done.stderr.splitlines()


@pytest.mark.jit
def test_a_small_run_needs_no_compiler_and_gives_the_same_bytes(away, here, moesim):
    scenario = (here / "small.yaml").read_text().replace("n_experts: 32", "n_experts: 64")
    assert as_nobody(away, scenario) == []
    assert moesim("run", away / "small.yaml", "-q", "--no-report", "--out", "run").code == 0
    for name in FILES:
        assert (away / "out/run" / name).read_bytes() == (here / "run" / name).read_bytes()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_another_compiles_what_it_needs_says_once_that_it_is_not_kept_and_gives_the_same_bytes(away, here, run_folder):
    said = as_nobody(away, (here / "small.yaml").read_text())
    (line,) = (line for line in said if "not kept" in line)
    assert "NUMBA_CACHE_DIR=FOLDER" in line and len(said) <= 2, said
    for name in FILES:
        assert (away / "out/run" / name).read_bytes() == (run_folder / name).read_bytes()
