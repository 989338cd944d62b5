"""A small run is interpreted and gives the very bytes of a compiled one; a large one is compiled."""

import hashlib
import math
import os
import subprocess
import sys

import pytest

from moesim import load_scenario
from moesim.cli.first_run import seconds_interpreted

SMALL = ("quickstart", "document-v1", "sweep-expert-granularity")
LARGER = (
    "deepseek-v3-prefill-ep64", "document-v3", "sweep-clusters", "sweep-m-by-k", "sweep-nic-speed",
    "sweep-training-step",
)  # fmt: skip


def run(scenario, folder, **variables):
    """Run the command line as a user does, numba's cache being what it is; returns whether numba was imported."""
    code = "import sys\nfrom moesim.cli import main\ntry:\n    main()\nfinally:\n    print('numba' in sys.modules)"
    command = [sys.executable, "-c", code, "run", scenario, "--no-report", "--out", str(folder)]
    environment = {name: value for name, value in os.environ.items() if name != "MOESIM_INTERPRET"} | variables
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1] == "True"


def digests(folder):
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.name != "provenance.json"
    }


def assert_same_bytes(scenario, tmp_path):
    empty = tmp_path / "no-cache"
    empty.mkdir()
    assert not run(scenario, tmp_path / "interpreted", NUMBA_CACHE_DIR=str(empty))
    assert run(scenario, tmp_path / "compiled", MOESIM_INTERPRET="0")
    assert digests(tmp_path / "interpreted") == digests(tmp_path / "compiled")
    assert not list(empty.rglob("*.nbc"))


@pytest.mark.jit
@pytest.mark.parametrize("scenario", SMALL)
def test_a_small_run_gives_the_very_bytes_of_the_compiled_one(scenario, tmp_path):
    assert_same_bytes(scenario, tmp_path)


@pytest.mark.jit
@pytest.mark.slow
@pytest.mark.parametrize("scenario", LARGER)
def test_a_first_run_gives_the_very_bytes_of_the_compiled_one(scenario, tmp_path):
    assert_same_bytes(scenario, tmp_path)


def test_every_shipped_scenario_that_is_interpreted_is_tested():
    names = [path.stem for path in (load_scenario("quickstart").base_dir).glob("*.yaml")]
    small = {name for name in names if seconds_interpreted(load_scenario(name)) < 8}
    assert small == {*SMALL, *LARGER}
    at_any_time = {name for name in small if seconds_interpreted(load_scenario(name)) < 0.7}
    assert at_any_time <= set(SMALL) and "quickstart" in at_any_time


@pytest.mark.parametrize(
    ("name", "override"),
    [
        ("document-v2", "routing.scale=1.0"),  # ten experts per token
        ("v1-v2-v3", "seed=1"),  # variants, in processes of their own
        ("quickstart", "model.n_experts=32"),
        ("quickstart", "cluster.flows=ports"),
    ],
)
def test_what_has_no_fast_form_is_never_interpreted(name, override):
    assert seconds_interpreted(load_scenario(name, overrides=[override])) == math.inf


def test_pairs_of_many_ranks_take_minutes():
    assert seconds_interpreted(load_scenario("deepseek-v3-decode-ep128")) > 60


@pytest.mark.jit
def test_a_run_whose_sums_depend_on_their_order_begins_again_compiled(tmp_path):
    (tmp_path / "far.yaml").write_text(
        "cluster: {topology: hgx-h800}\n"
        "model: {preset: deepseek-v3, n_experts: 64, hidden: 1024, expert_hidden: 256}\n"
        "routing: {kind: v1, top_k: 8}\n"
        "workload: {synthetic: {kind: lognormal, sigma: 10.0}, tokens_per_rank: 16}\n"
    )
    assert run(str(tmp_path / "far.yaml"), tmp_path / "run")  # numba is there in the end
    assert (tmp_path / "run/summary.json").is_file()
