"""The public contract, checked by the script that came with it, where that stands beside the checkout."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CHECK = ROOT.parent / "shared" / "contract_check.py"
RECORDING = ROOT / "moesim" / "data" / "recordings" / "tiny-v3.npz"


@pytest.mark.skipif(not CHECK.is_file(), reason="no contract_check.py beside the checkout")
@pytest.mark.skipif(not RECORDING.is_file(), reason="the recording of the quickstart is not there")
def test_the_public_contract_is_kept():
    done = subprocess.run([sys.executable, CHECK], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ok ") == len(done.stdout.splitlines())
