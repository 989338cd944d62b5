"""What is printed: nothing steers the terminal, and who reads no longer does not stop the work."""

import json
import os
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from moesim.cli.outlet import harmless

ROOT = Path(__file__).parents[2]
HOSTILE = "\x1b]0;pwn\a\x9b31m\x08\r\u202egnp\u2066\u200f\u2028\ud800\x7f"


def test_what_steers_is_shown_as_a_question_mark_and_the_rest_as_it_is():
    for code in range(sys.maxunicode + 1):
        letter = chr(code)
        steers = unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp") and letter not in "\n\t"
        assert harmless(letter) == ("?" if steers else letter), hex(code)
    assert harmless("\x1b[31mred\x1b[0m \x1b]0;t\a", colours=True) == "\x1b[31mred\x1b[0m ?]0;t?"


def clean(text):
    return not any(
        unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp") for letter in text if letter not in "\n\t"
    )


@pytest.fixture
def hostile(run_folder, tmp_path):
    """A received folder with texts that steer a terminal wherever it has text."""
    folder = tmp_path / "received"
    shutil.copytree(run_folder, folder)

    def spoil(value):
        if isinstance(value, dict):
            return {key: spoil(one) for key, one in value.items()}
        if isinstance(value, list):
            return [spoil(one) for one in value]
        return value + HOSTILE if isinstance(value, str) and value not in KEPT else value

    for name, key in (("summary", "summary"), ("notes", "notes"), ("explanation", "explanation")):
        content = json.loads((folder / f"{name}.json").read_text())
        content[key] = spoil(content[key])
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


KEPT = {"sum", "ratio", "product", "max", "mean", "nccl-direct", "fp8", "bf16"}


@pytest.mark.parametrize("command", ["explain", "number", "bottleneck", "compare", "json", "mistake", "trace"])
def test_a_received_folder_does_not_steer_the_terminal(moesim, hostile, run_folder, here, command):
    done = {
        "explain": lambda: moesim("explain", hostile),
        "number": lambda: moesim("explain", hostile, "layer_time_s"),
        "bottleneck": lambda: moesim("explain", hostile, "bottleneck"),
        "compare": lambda: moesim("compare", run_folder, hostile),
        "json": lambda: moesim("compare", run_folder, hostile, "--json"),
        "mistake": lambda: moesim("explain", hostile, f"layer{HOSTILE}"),
        "trace": lambda: moesim("trace", hostile, "--out", "trace\x1b]0;pwn\a.json"),
    }[command]()
    assert done.code in (0, 2) and done.out + done.err and clean(done.out) and clean(done.err)


@pytest.mark.parametrize("lines", [0, 3])
def test_a_reader_that_goes_away_does_not_cost_the_result(here, lines):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "moesim", "run", "small.yaml", "--no-report", "--out", "out"]
    process = subprocess.Popen(
        command, cwd=here, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    for _ in range(lines):
        process.stdout.readline()
    process.stdout.close()
    said = process.stderr.read()
    assert process.wait() == 0 and "roken pipe" not in said and "rror" not in said
    assert (here / "out/summary.json").is_file() and sorted(os.listdir(here)) == ["out", "small.yaml"]
