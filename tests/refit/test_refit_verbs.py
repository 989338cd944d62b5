"""``python -m refit``: the shipped constants, fitted again from the command line."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from moesim.traffic.constant_sets import read_set
from refit import __main__ as verbs

ROOT = Path(__file__).resolve().parents[2]


def refit(*arguments):
    return CliRunner().invoke(verbs.app, [str(argument) for argument in arguments])


@pytest.mark.jit
def test_the_shipped_sets_can_be_fitted_again_from_the_command_line(tmp_path):
    done = refit("sets", "--table", "deepep-pcie", "--out", tmp_path)
    assert done.exit_code == 0 and "deepep-v2-direct-h20-pcie: 1 rows, median 0.0%" in done.stdout
    found = read_set(tmp_path / "deepep-v2-direct-h20-pcie.yaml")
    # one row: 53.01 GB/s logical, seven eighths of it on the wire, where a copy is 80 bytes longer
    by_hand = 53.01e9 * 7 / 8 * 7472 / 7392
    assert found.phases["dispatch"]["nic_rate"] == pytest.approx(by_hand, rel=0.02)
    assert np.isfinite(found.error["median"])


def test_a_fit_of_kernels_is_printed_or_written(monkeypatch, tmp_path):
    asked = []

    def fit(reference, families):
        asked.append((str(reference), families))
        return {"models": [{"family": "dense", "coefficients": {"t0": 4.07e-06}}]}

    monkeypatch.setattr(verbs, "fit", fit)
    out = tmp_path / "fitted.yaml"
    assert refit("kernels", "--reference", "rows", "--family", "dense", "--out", out).exit_code == 0
    assert YAML(typ="safe").load(out.read_text())["models"][0]["coefficients"] == {"t0": 4.07e-06}
    assert refit("kernels", "--reference", "rows").stdout == out.read_text().split("\n", 1)[1]
    assert asked == [("rows", ["dense"]), ("rows", None)]


def test_a_check_prints_a_line_of_json_for_each_family(monkeypatch):
    stored = verbs.check(None)
    monkeypatch.setattr(verbs, "check", lambda reference: stored)
    lines = refit("check", "--reference", "rows").stdout.splitlines()
    assert len(lines) == len(stored) and json.loads(lines[0])["family"] == stored[0].family


def test_a_missing_folder_is_one_line(tmp_path):
    command = [sys.executable, "-m", "refit", "check", "--reference", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "no such reference table" in done.stderr
