"""``moesim compare``: the noise of seeds, two sweeps, exit codes."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

import moesim as package
from tests.cli.conftest import SCENARIO

FAR = "schedule.start_offset=[0us,0us,0us,0us,0us,0us,0us,1ms]"
SIDES = {"base": [], "near": ["seed=1000"], "far": [FAR]}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Runs of one scenario: as it is, with a far-off seed alone, and with a rank that comes a millisecond late."""
    folder = tmp_path_factory.mktemp("compared")
    (folder / "small.yaml").write_text(SCENARIO)
    for name, overrides in SIDES.items():
        package.simulate(package.load_scenario(folder / "small.yaml", overrides)).save(folder / name)
    return folder


def seeded(folder, overrides, seeds):
    """Layer times over seeds, each by a run of its own."""
    runs = [package.load_scenario(folder / "small.yaml", [*overrides, f"seed={seed}"]) for seed in seeds]
    return [package.simulate(run).summary["layer_time_s"] for run in runs]


def test_another_seed_is_within_the_noise_and_a_late_rank_is_not(moesim, folders):
    near = moesim(
        "compare", folders / "base", folders / "near", "--seeds", "2", "--jobs", "1", "--fail-over", "0%", "-q"
    )
    assert "within the noise of 3 seeds" in near.out and near.err == ""
    assert near.code == 0
    far = moesim("compare", folders / "base", folders / "far", "--seeds", "2", "--jobs", "1", "--fail-over", "5%")
    assert "outside the noise of 3 seeds" in far.out and "least .. most (median)" in far.out
    assert re.search(r"\w+ is worse by \d+\.\d %, more than 5 % and outside the noise of 3 seeds\n$", far.err)
    assert far.code == 4


def test_the_band_is_that_of_runs_with_the_next_seeds(moesim, folders):
    done = moesim("compare", folders / "base", folders / "near", "--seeds", "2", "--jobs", "1", "--json", "-q")
    row = next(row for row in json.loads(done.out)["rows"] if row["key"] == "layer_time_s")
    for side, overrides, seeds in (("a", [], [0, 1, 2]), ("b", [], [1000, 1001, 1002])):
        found = seeded(folders, overrides, seeds)
        assert row[side] == found[0]
        assert row[f"{side}_band"] == {"low": min(found), "median": sorted(found)[1], "high": max(found), "runs": 3}


def test_processes_change_no_number(moesim, folders):
    arguments = ("compare", folders / "base", folders / "near", "--seeds", "1", "--json")
    one, two = (moesim(*arguments, "--jobs", jobs) for jobs in (1, 2))
    assert one.out == two.out and one.code == two.code == 0
    assert "A, seed 0" in two.err


def test_the_page_shows_the_bands(moesim, folders, here):
    done = moesim(
        "compare", folders / "base", folders / "base", "--seeds", "1", "--jobs", "1", "--out", "p/ab.html", "-q"
    )
    assert done.code == 0 and "report: p/ab.html" in done.out
    text = (here / "p/ab.html").read_text()
    assert "Differences and noise" in text and "base (A)" in text and "base (B)" in text


def test_a_folder_that_its_scenario_does_not_give_any_more_has_no_noise(moesim, folders, here):
    shutil.copytree(folders / "base", here / "old")
    summary = json.loads((here / "old/summary.json").read_text())
    summary["summary"]["layer_time_s"] *= 1.01
    (here / "old/summary.json").write_text(json.dumps(summary))
    done = moesim("compare", "old", folders / "far", "--seeds", "1", "--jobs", "1", "-q")
    assert done.code == 2 and "no longer gives its numbers (layer_time_s" in done.err
    assert len(done.err.splitlines()) == 1
    assert moesim("compare", "old", folders / "far").code == 0


NIC = "{source: b.gpu1, target: tor-b, bandwidth: 400Gb/s"


@pytest.fixture(scope="module")
def one_slow_nic(tmp_path_factory):
    """Runs on two nodes of two GPUs that differ in one NIC at half rate; every rank computes the same on both."""
    folder = tmp_path_factory.mktemp("nic")
    shipped = (Path(__file__).parents[2] / "topologies/two-nodes-explicit.yaml").read_text()
    assert NIC in shipped
    for name, bandwidth in (("whole", "400Gb/s"), ("half", "200Gb/s")):
        (folder / f"{name}.yaml").write_text(shipped.replace(NIC, NIC.replace("400Gb/s", bandwidth)))
        for algorithm in ("nccl-direct", "deepep-low-latency", "deepep-normal", "deepep-v2-hybrid"):
            blocks = {
                "cluster": {"topology": str(folder / f"{name}.yaml")},
                "model": {"preset": "deepseek-v3", "n_experts": 16, "hidden": 2048, "expert_hidden": 512},
                "routing": {"kind": "v1", "top_k": 4, "groups": 1},
                "workload": {
                    "synthetic": {"kind": "lognormal", "sigma": 0.8, "sequence_length": 16},
                    "tokens_per_rank": 2048,
                },
                "alltoall": {"algorithm": algorithm},
            }
            package.simulate(package.load_scenario({"name": algorithm, **blocks})).save(folder / f"{name}-{algorithm}")
    return folder


@pytest.mark.parametrize(
    ("algorithm", "layer"),
    [
        ("nccl-direct", "worse"),
        ("deepep-low-latency", "worse"),
        # The kernel's work on the copies takes longer than a NIC of half the rate: a hundred-thousandth more.
        ("deepep-normal", "within the model's error"),
        ("deepep-v2-hybrid", "same"),
    ],
)
def test_nothing_is_better_with_one_nic_at_half_rate(moesim, one_slow_nic, algorithm, layer):
    folders = [one_slow_nic / f"{name}-{algorithm}" for name in ("whole", "half")]
    done = moesim("compare", *folders, "--json")
    rows = {row["key"]: row for row in json.loads(done.out)["rows"]}
    assert "better" not in {row["verdict"] for row in rows.values()}
    assert rows["layer_time_s"]["verdict"] == layer
    for over in ("mean", "max"):
        row = rows[f"expert_compute_time_{over}_s"]
        assert row["a"] == pytest.approx(row["b"], rel=1e-12) and row["verdict"] == "same"


def test_the_critical_rank_is_told_where_it_changes_hands(moesim, one_slow_nic):
    """Rank 0 computes a fifth less than rank 1, which was the last before: compute has not become faster."""
    folders = [one_slow_nic / f"{name}-nccl-direct" for name in ("whole", "half")]
    done = moesim("compare", *folders)
    assert done.out.startswith("critical: rank 1 (whole-nccl-direct), rank 0 (half-nccl-direct)\n")
    assert re.search(r"expert_compute_time_s .* -19\.\d+ % +other rank", done.out)
    assert "expert_compute_time_max_s" not in done.out
    ranks = [pd.read_parquet(folder / "steps.parquet")["critical_rank"].tolist() for folder in folders]
    found = json.loads(moesim("compare", *folders, "--json").out)
    assert found["critical_ranks"] == ranks == [[1], [0]]


def swept(here, name, **axes):
    package.sweep(here / "small.yaml", {"routing.top_k": [2, 4], **axes}, out=here / name)


@pytest.fixture
def sweeps(here):
    swept(here, "a")
    swept(here, "b", **{"routing.top_k": [4, 2], "alltoall.sms": [4]})
    swept(here, "seeds", seed="0..2")
    return here


def test_two_sweeps_are_compared_point_by_point(moesim, sweeps):
    swept(sweeps, "c", **{"routing.top_k": [4, 8]})
    done = moesim("compare", "a", "c")
    assert (
        done.code == 0 and "1 points in both, 1 only in a, 1 only in c" in done.out and "no number differs" in done.out
    )
    table, seeds = (pd.read_parquet(sweeps / name / "points.parquet") for name in ("a", "seeds"))
    done = moesim("compare", "seeds", "a", "--json")
    points = {point["values"]["routing.top_k"]: point["rows"] for point in json.loads(done.out)["points"]}
    for top_k, rows in points.items():
        row = next(row for row in rows if row["key"] == "layer_time_s")
        expected = seeds[seeds["routing.top_k"] == top_k]["layer_time_s"]
        assert (row["a"], row["a_band"]["low"]) == (expected.median(), expected.min())
        assert row["b"] == table[table["routing.top_k"] == top_k]["layer_time_s"].item()
        assert row["verdict"] in ("within noise", "same")  # seed 0 is one of the three
    assert moesim("compare", "seeds", "a", "--fail-over", "0%").code == 0


def test_a_sweep_that_got_worse_is_exit_4_and_says_where(moesim, sweeps):
    package.sweep(sweeps / "small.yaml", {"routing.top_k": [2, 4]}, out=sweeps / "late")
    table = pd.read_parquet(sweeps / "late/points.parquet")
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pq.read_schema(sweeps / "late/points.parquet")
    table.loc[1, "layer_time_s"] *= 1.5
    pq.write_table(pa.Table.from_pandas(table, schema), sweeps / "late/points.parquet")
    done = moesim("compare", "a", "late", "--fail-over", "5%")
    assert done.code == 4 and done.err == "layer_time_s is worse by 50.0 %, more than 5 %, at routing.top_k=4\n"
    assert "+50.00 % at routing.top_k=4" in done.out
    assert moesim("compare", "a", "late", "--fail-over", "60%").code == 0
    table.loc[0, "status"] = "failed"
    pq.write_table(pa.Table.from_pandas(table, schema), sweeps / "late/points.parquet")
    done = moesim("compare", "a", "late", "--fail-over", "60%")
    assert done.code == 4 and done.err == "1 points of a failed in late\n" and "1 failed in late" in done.out


def test_what_cannot_be_compared_is_refused_in_one_line(moesim, sweeps, folders):
    (sweeps / "begun").mkdir()
    (sweeps / "begun/journal.sqlite").touch()
    (sweeps / "torn").mkdir()
    (sweeps / "torn/journal.sqlite").touch()
    (sweeps / "torn/points.parquet").write_bytes(b"PAR1")
    for arguments, said in (
        (("a", folders / "base"), "a is a sweep and the other is not"),
        (("a", "seeds", "--seeds", "3"), "--seeds is for two runs"),
        (("a", "seeds", "--out", "x.html"), "--out is for two runs"),
        (("a", "b"), "do not vary the same keys: alltoall.sms"),
        (("a", "begun"), "begun: the sweep is not finished"),
        (("a", "torn"), "points.parquet: not readable"),
    ):
        done = moesim("compare", *arguments)
        assert done.code == 2 and said in done.err and len(done.err.splitlines()) == 1, done
