"""The same scenario gives the same bytes, whatever the process's surroundings: gate D1.

A process is one draw of surroundings, in which golden scenarios are run one after the other. In twelve draws each value
of each kind comes up equally often, so that any two of different kinds meet in some. Every file is compared but what a
run says of itself (``provenance.json``) and a sweep's journal.
"""

import csv
import hashlib
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.full_gates import cases

ROOT = Path(__file__).parents[2]
GOLDEN = yaml.safe_load(Path(__file__).with_name("golden_scenarios.yaml").read_text())
SMALL = {"n_experts": 32, "hidden": 1024, "expert_hidden": 256}
OWN_WORDS = ("provenance.json", "journal.sqlite")
FEW = (
    "v3-bias-moves-deepep",
    "nccl-over-spines",
    "faults-that-come-and-go",
    "groups-with-gradients",
    "whole-decode-step",
    "variants-compared",
)
LOCALES = {"de_DE.UTF-8": "de_DE", "tr_TR.UTF-8": "tr_TR"}
USUAL = {
    "hash seed": "0",
    "threads": "1",
    "locale": "C.UTF-8",
    "zone": "UTC",
    "utf8": "1",
    "folder": "own",
    "umask": "022",
    "keys": "as written",
    "jobs": "1",
}
KINDS = {
    "hash seed": ("0", "1", "42", "random"),
    "threads": ("1", "8"),
    "locale": ("C", "C.UTF-8", *LOCALES),
    "zone": ("UTC", "Asia/Kathmandu", "Pacific/Kiritimati"),
    "utf8": ("0", "1"),
    "folder": ("own", "/"),
    "umask": ("022", "077"),
    "keys": ("as written", "shuffled"),
    "jobs": ("1", "2", "4", "8"),
}


def draws(count, seed):
    """Surroundings, each value equally often in a shuffled column of its own."""
    rng = random.Random(seed)
    columns = [rng.sample(list(itertools.islice(itertools.cycle(values), count)), count) for values in KINDS.values()]
    return [dict(zip(KINDS, row, strict=True)) for row in zip(*columns, strict=True)]


def shuffled(value, rng):
    if not isinstance(value, dict):
        return value
    return {key: shuffled(value[key], rng) for key in rng.sample(list(value), len(value))}


def command(name, folder, around):
    """What is typed for a golden scenario, its file written in ``folder``."""
    scenario = dict(GOLDEN[name])
    verb, options, page = (scenario.pop(key, default) for key, default in (("verb", "run"), ("options", []), ("page", False)))
    if scenario.pop("shipped", False):
        scenario = yaml.safe_load((ROOT / f"scenarios/{name}.yaml").read_text())
    elif "model" not in scenario and "recording" not in scenario["workload"]:
        scenario["model"] = SMALL
    scenario = {"name": name} | scenario
    if around["keys"] == "shuffled":
        # Variants are shown in the order of the file.
        scenario = shuffled(scenario, random.Random(name)) | {
            key: scenario[key] for key in ("variants", "sweep") if key in scenario
        }
    folder.mkdir(parents=True)
    path = folder / "scenario.yaml"
    path.write_text(yaml.safe_dump(scenario, sort_keys=False))
    with (folder / "counts.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("layer", "expert", "count"), *((1, i, 100 + 37 * i % 91) for i in range(32))])
    quiet = [] if verb == "balance" else ["-q"]
    jobs = around["jobs"]
    workers = ["--scheduler-file", jobs] if "/" in jobs and verb != "run" else ["--jobs", jobs.replace("/", "")]
    several = verb in ("sweep", "plan", "what-breaks") or "variants" in scenario
    out = folder / ("out.html" if page else "out")
    return [verb, str(path), "--out", str(out), *quiet, *options, *(workers if several else [])]


def digests(folder):
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in OWN_WORDS]
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.name not in ("scenario.yaml", "counts.csv")
    }


def run(names, folder, around):
    """SHA-256 of every file that a process in these surroundings leaves of each golden scenario."""
    folder.mkdir()
    asked = [(command(name, folder / name, around), str(folder / name)) for name in names]
    (folder / "asked.json").write_text(json.dumps(asked))
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "PYTHONHASHSEED": around["hash seed"],
        "PYTHONUTF8": around["utf8"],
        "LC_ALL": around["locale"],
        "TZ": around["zone"],
        **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), around["threads"]),
    }
    if around["locale"] in LOCALES:
        environment["LOCPATH"] = around["locales"]
    begin = time.perf_counter()
    subprocess.run(
        [sys.executable, str(Path(__file__).with_name("golden_driver.py")), str(folder / "asked.json")],
        cwd="/" if around["folder"] == "/" else folder,
        umask=int(around["umask"], 8),
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    print(f"{time.perf_counter() - begin:.1f} s  {around}", file=sys.stderr, flush=True)
    found = {name: digests(folder / name) for name in names}
    shutil.rmtree(folder)
    return found


@pytest.fixture(scope="session")
def locales(tmp_path_factory):
    """A folder with the German and the Turkish locale, made here; empty where the system has no sources of them."""
    folder = tmp_path_factory.mktemp("locales")
    if shutil.which("localedef"):
        for name, source in LOCALES.items():
            subprocess.run(["localedef", "-i", source, "-f", "UTF-8", str(folder / name)], capture_output=True)
    return folder


@pytest.mark.jit
@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_golden_scenarios_give_the_same_bytes_in_any_surroundings(tmp_path, locales):
    names = list(cases(FEW, GOLDEN))
    usual = run(names, tmp_path / "usual", USUAL)
    assert all(len(files) >= 3 for files in usual.values()), {name: len(files) for name, files in usual.items()}
    for i, around in enumerate(draws(12, seed=len(names))):
        if around["locale"] in LOCALES and not (locales / around["locale"]).is_dir():
            around["locale"] = "C.UTF-8"
        again = run(random.Random(i).sample(names, len(names)), tmp_path / str(i), around | {"locales": str(locales)})
        different = {
            name: sorted(key for key in files | again[name] if files.get(key) != again[name].get(key))
            for name, files in usual.items()
            if again[name] != files
        }
        assert not different, f"{around}: {different}"
