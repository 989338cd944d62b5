"""The same scenario gives the same bytes, whatever the process's surroundings; all of it in the full gates."""

import hashlib
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.full_gates import FULL

ROOT = Path(__file__).parents[2]
# In the order of the shipped file unless the setting shuffles it; small ones for every change.
SCENARIOS = {
    "quickstart": ["workload.tokens_per_rank=64"],
    "document-v1": ["workload.tokens_per_rank=64"],
    "deepseek-v3-prefill-ep64": ["workload.tokens_per_rank=256"],
    "deepseek-v3-decode-ep128": [],
    "deepseek-v3-prefill-step": ["workload.tokens_per_rank=4096"],
    "out-of-domain": [],
}
LOCALES = ("de_DE.UTF-8", "tr_TR.UTF-8")
SETTINGS = {
    "hash seed 0": {"PYTHONHASHSEED": "0"},
    "hash seed 42": {"PYTHONHASHSEED": "42"},
    "one thread": {"NUMBA_NUM_THREADS": "1"},
    "two threads": {"NUMBA_NUM_THREADS": "2"},
    "BLAS on one thread": {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    "BLAS on eight threads": {"OMP_NUM_THREADS": "8", "OPENBLAS_NUM_THREADS": "8"},
    "C locale": {"LC_ALL": "C"},
    **{name: {"LC_ALL": name} for name in LOCALES},
    "another time zone": {"TZ": "Asia/Kathmandu"},
    "another folder": {"cwd": "/"},
    "a umask of 077": {"umask": "77"},
    "keys in another order": {"order": "7"},
    "keys in a third order": {"order": "8"},
}
FEW = [
    (scenario, setting)
    for scenario in ("quickstart", "document-v1")
    for setting in ("hash seed 42", "another time zone", "another folder", "keys in another order")
]


def shuffled(value, rng):
    if not isinstance(value, dict):
        return value
    keys = list(value)
    rng.shuffle(keys)
    return {key: shuffled(value[key], rng) for key in keys}


def digests(scenario, folder, *options, **setting):
    """SHA-256 of every file of a run but its provenance."""
    path = ROOT / "scenarios" / f"{scenario}.yaml"
    if order := setting.pop("order", None):
        data = shuffled(yaml.safe_load(path.read_text()), random.Random(int(order)))
        path = folder.with_suffix(".yaml")
        path.write_text(yaml.safe_dump({"name": scenario} | data, sort_keys=False))
    cwd, umask = setting.pop("cwd", str(folder.parent)), int(setting.pop("umask", "22"), 8)
    overrides = [part for text in SCENARIOS.get(scenario, ()) for part in ("-o", text)]
    code = "from moesim.cli import main; main()"
    command = [sys.executable, "-c", code, "run", str(path), "--out", str(folder), "-q", *overrides, *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | setting
    subprocess.run(command, cwd=cwd, umask=umask, env=environment, check=True, capture_output=True)
    files = [one for one in folder.rglob("*") if one.is_file() and one.name != "provenance.json"]
    return {str(one.relative_to(folder)): hashlib.sha256(one.read_bytes()).hexdigest() for one in files}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The digests of a scenario as it is run otherwise, each made once."""
    made = {}

    def of(scenario, *options):
        if (scenario, *options) not in made:
            folder = tmp_path_factory.mktemp("plain") / scenario
            made[scenario, *options] = digests(scenario, folder, *options)
        return made[scenario, *options]

    return of


def same(scenario, name, plain, tmp_path, *options):
    setting = dict(SETTINGS[name])
    if setting.get("LC_ALL") in LOCALES:
        have = subprocess.run(["locale", "-a"], capture_output=True, text=True).stdout.lower().replace("utf8", "utf-8")
        if setting["LC_ALL"].lower() not in have:
            pytest.skip(f"this machine has no locale {setting['LC_ALL']}")
    found = digests(scenario, tmp_path / scenario, *options, **setting)
    assert found == plain(scenario, *options), [key for key, value in found.items() if value != plain(scenario)[key]]
    assert len(found) >= 14


@pytest.mark.jit
@pytest.mark.slow
@pytest.mark.parametrize(("scenario", "name"), FEW)
def test_a_run_gives_the_same_bytes_in_other_surroundings(scenario, name, plain, tmp_path):
    same(scenario, name, plain, tmp_path, "--no-report")


@pytest.mark.jit
@pytest.mark.slow
@pytest.mark.skipif(not FULL, reason="./test.sh --full")
@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_scenario_gives_the_same_bytes_and_page_in_every_setting(scenario, name, plain, tmp_path):
    same(scenario, name, plain, tmp_path)


@pytest.mark.jit
@pytest.mark.slow
def test_variants_give_the_same_bytes_with_any_number_of_processes(tmp_path):
    one, *others = (digests("v1-v2-v3", tmp_path / jobs, "--jobs", jobs) for jobs in ("1", "2", "4"))
    assert all(other == one for other in others) and len(one) > 100
