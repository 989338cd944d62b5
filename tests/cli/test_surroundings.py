"""The same scenario gives the same bytes, whatever the process's surroundings: gate D1.

A process is one draw of surroundings, in which golden scenarios are run one after the other. In twelve draws each value
of each kind comes up equally often, so that any two of different kinds meet in some. Every file is compared but what a
run says of itself (``provenance.json``) and a sweep's journal.
"""

import hashlib
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.full_gates import FULL

ROOT = Path(__file__).parents[2]
GOLDEN = yaml.safe_load(Path(__file__).with_name("golden_scenarios.yaml").read_text())
SMALL = {"n_experts": 32, "hidden": 1024, "expert_hidden": 256}
OWN_WORDS = ("provenance.json", "journal.sqlite", ".lock")
COUNTS = "layer,expert,count\n" + "".join(f"1,{i},{100 + 37 * i % 91}\n" for i in range(32))
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
    verb, options, page = (
        scenario.pop(key, usual) for key, usual in (("verb", "run"), ("options", []), ("page", False))
    )
    if scenario.pop("shipped", False):
        scenario = yaml.safe_load((ROOT / f"scenarios/{name}.yaml").read_text())
    elif "model" not in scenario and "recording" not in scenario["workload"]:
        scenario["model"] = SMALL
    in_order = {key: scenario[key] for key in ("variants", "sweep") if key in scenario}  # shown as the file has them
    scenario = {"name": name} | scenario
    if around["keys"] == "shuffled":
        scenario = shuffled(scenario, random.Random(name)) | in_order
    folder.mkdir(parents=True)
    # What is typed is on pages, as the command that runs a point: it is the same in all surroundings.
    typed_in = folder.parents[1] / "typed" / name
    typed_in.mkdir(parents=True, exist_ok=True)
    path = typed_in / "scenario.yaml"
    path.write_text(yaml.safe_dump(scenario, sort_keys=False))
    (typed_in / "counts.csv").write_text(COUNTS)
    typed = [verb, str(path), "--out", str(folder / ("out.html" if page else "out")), *options]
    typed += [] if verb == "balance" else ["-q"]
    typed += ["--no-report"] if verb == "run" and around["pages"] == "left out" else []
    several, jobs = verb in ("sweep", "plan", "what-breaks"), around["jobs"]
    if several and jobs.endswith(".json"):
        return [*typed, "--scheduler-file", jobs]
    return [*typed, "--jobs", jobs] if several or "variants" in scenario else typed


def digests(folder):
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in OWN_WORDS]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


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
        "LOCPATH": str(around.get("locales", "")),
        **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), around["threads"]),
    }
    if around["locale"] not in LOCALES:
        del environment["LOCPATH"]
    subprocess.run(
        [sys.executable, str(Path(__file__).with_name("golden_driver.py")), str(folder / "asked.json")],
        cwd="/" if around["folder"] == "/" else folder,
        umask=int(around["umask"], 8),
        env=environment,
        check=True,
    )
    found = {name: digests(folder / name) for name in names}
    shutil.rmtree(folder)
    return found


@pytest.fixture(scope="module")
def locales(tmp_path_factory):
    """A folder with the German and the Turkish locale, made here; empty where the system has no sources of them."""
    folder = tmp_path_factory.mktemp("locales")
    if shutil.which("localedef"):
        for name, source in LOCALES.items():
            subprocess.run(["localedef", "-i", source, "-f", "UTF-8", str(folder / name)], capture_output=True)
    return folder


def differing(first, second):
    """Which files of which scenarios are not the same in both."""
    return {
        name: changed
        for name, files in first.items()
        if (changed := [key for key in files | second[name] if files.get(key) != second[name].get(key)])
    }


def check(names, folder, locales, pages, count):
    usual = run(names, folder / "usual", USUAL | {"pages": pages})
    assert all(len(files) >= 2 for files in usual.values()), {name: len(files) for name, files in usual.items()}
    for i, around in enumerate(draws(count, seed=len(names))):
        if around["locale"] in LOCALES and not (locales / around["locale"]).is_dir():
            around["locale"] = "C.UTF-8"
        around |= {"pages": pages, "locales": locales}
        again = run(random.Random(i).sample(names, len(names)), folder / str(i), around)
        assert not differing(usual, again), f"{around}: {differing(usual, again)}"


@pytest.mark.jit
def test_six_scenarios_give_the_same_bytes_in_six_surroundings(tmp_path, locales):
    check(list(FEW), tmp_path, locales, "left out", 6)


@pytest.mark.jit
@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.skipif(not FULL, reason="./test.sh --full")
def test_all_golden_scenarios_give_the_same_bytes_and_pages_in_twelve_surroundings(tmp_path, locales):
    check(list(GOLDEN), tmp_path, locales, "drawn", 12)


@pytest.mark.jit
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_dask_cluster_gives_the_bytes_of_one_process(tmp_path):
    pytest.importorskip("distributed", reason="needs moesim[dask]")
    file = tmp_path / "scheduler.json"
    local = ["--no-dashboard", "--scheduler-file", str(file)]
    asked = [["scheduler", "--host", "127.0.0.1", "--port", "0", *local]]
    asked += [["worker", "--nthreads", "1", "--local-directory", str(tmp_path), *local]] * 2
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    cluster = [
        subprocess.Popen(
            [sys.executable, "-m", "dask", *one], env=environment, stderr=subprocess.DEVNULL, start_new_session=True
        )
        for one in asked
    ]
    try:
        names = [name for name, golden in GOLDEN.items() if golden.get("verb") in ("sweep", "plan", "what-breaks")]
        around = USUAL | {"pages": "drawn"}
        alone = run(names, tmp_path / "alone", around)
        assert not differing(alone, run(names, tmp_path / "together", around | {"jobs": str(file)}))
    finally:
        for process in cluster:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
