"""``moesim run``: what it prints, writes and returns."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.run.small import run as simulated
from tests.run.small import small_recording
from tests.sweeps.killed import interruptible

ROOT = str(Path(__file__).parents[2])
VARIANTS = """
thresholds: ["layer_time_s < 1s"]
variants:
  two: {routing.top_k: 2, routing.top_groups: 2}
  v1: {routing: {kind: v1, top_k: 4}}
"""


def payload(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "provenance.json"
    }


def test_a_run_prints_the_verdict_the_parts_of_the_time_and_where_the_report_is(moesim, here):
    done = moesim("run", "small.yaml", "--out", "a run")
    assert done.code == 0
    for words in (
        "small: set-up of the all-to-all",
        "dispatch",
        "lower bound",
        "estimated: ",
        "report: a run/report.html",
    ):
        assert words in done.out
    assert "topology, model and kernel tables" in done.err.splitlines()  # after what a new machine compiles
    assert (here / "a run/report.html").stat().st_size > 10_000
    assert "\x1b" not in done.out  # no colour into a pipe


def test_json_is_the_summary_with_its_intervals_and_nothing_else(moesim, here, no_pages):
    done = moesim("run", "small.yaml", "--json", "-q", "--out", "run")
    assert (done.code, done.err) == (0, "")
    found, expected = json.loads(done.out), simulated()
    intervals = {key: tuple(ends) for key, ends in found.pop("intervals").items()}
    assert (found, intervals) == (expected.summary, expected.intervals)
    low, high = intervals["layer_time_s"]
    assert low < found["layer_time_s"] < high


def test_without_out_the_folder_is_named_for_the_scenario_and_latest_points_to_it(moesim, here, no_pages):
    for override in ("seed=1", "seed=2"):
        assert moesim("run", "small.yaml", "-q", "-o", override, "-o", "name=study/one").code == 0
    latest = here / "results/latest"
    folders = sorted(path.name for path in (here / "results").iterdir() if path.name != "latest")
    assert len(folders) == 2 and all(name.startswith("study-one-") for name in folders)
    assert json.loads((latest / "summary.json").read_text())["summary"]["seed"] == 2


def test_a_file_system_without_links_goes_without_latest(moesim, here, no_pages, monkeypatch):
    def refuse(*_, **__):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("pathlib.Path.symlink_to", refuse)
    assert moesim("run", "small.yaml", "-q").code == 0
    assert len(list((here / "results").iterdir())) == 1


def test_overrides_and_the_seed_option_reach_the_run(moesim, here, no_pages):
    done = moesim("run", "small.yaml", "-o", "routing.top_k=2", "--seed", 7, "--json", "-q", "--out", "run")
    summary = json.loads(done.out)
    assert (summary["copies_per_token"], summary["seed"]) == (2, 7)


def test_equal_runs_write_equal_bytes_but_for_their_provenance(moesim, here, run_folder):
    assert moesim("run", "small.yaml", "-q", "--out", "again").code == 0
    assert payload(here / "again") == payload(run_folder)


def test_variants_write_a_folder_each_and_one_comparing_report_whatever_the_number_of_processes(moesim, here):
    (here / "small.yaml").write_text((here / "small.yaml").read_text() + VARIANTS)
    alone = moesim("run", "small.yaml", "--jobs", 1, "--out", "alone")
    both = moesim("run", "small.yaml", "--jobs", 2, "--out", "both", "--json", "-q")
    assert alone.code == both.code == 0
    assert alone.err.splitlines() == ["two: simulating", "v1: simulating"]
    assert payload(here / "alone") == payload(here / "both")
    assert sorted(path.name for path in (here / "alone").iterdir()) == ["report.html", "two", "v1", "variants.json"]
    summaries = json.loads(both.out)
    assert list(summaries) == ["two", "v1"] and summaries["two"]["copies_per_token"] == 2
    assert summaries["two"]["name"] == "small/two"
    assert (here / "alone/two/report.html").is_file()


def test_variants_replace_variants_and_never_a_folder_of_something_else(moesim, here, no_pages):
    (here / "small.yaml").write_text((here / "small.yaml").read_text() + VARIANTS)
    for _ in range(2):
        assert moesim("run", "small.yaml", "--jobs", 1, "--out", "alone", "-q").code == 0
    (here / "web").mkdir()
    (here / "web/report.html").write_text("mine")
    assert moesim("run", "small.yaml", "--jobs", 1, "--out", "web", "-q").code == 3
    assert (here / "web/report.html").read_text() == "mine"


def test_a_missed_threshold_is_exit_4_and_the_result_is_written(moesim, here):
    limits = '\nthresholds: ["layer_time_s < 1us", "layer_time_s < 1s", "dispatch_deepep_rdma_bytes_per_s > 1GB/s"]\n'
    (here / "small.yaml").write_text((here / "small.yaml").read_text() + limits)
    done = moesim("run", "small.yaml", "-q", "--out", "run")
    assert done.code == 4
    first, second = done.err.splitlines()
    assert first.startswith("threshold missed: small: layer_time_s < 1us (is 0.000")
    assert second == "threshold missed: small: dispatch_deepep_rdma_bytes_per_s > 1GB/s (does not apply)"
    assert "layer_time_s &lt; 1us" in (here / "run/report.html").read_text()
    assert moesim("report", "run", "--out", "page.html").code == 0
    assert "layer_time_s &lt; 1us" in (here / "page.html").read_text()


def test_figures_are_written_beside_the_report(moesim, here):
    assert moesim("run", "small.yaml", "-q", "--figures", "--out", "run").code == 0
    kinds = {path.suffix for path in (here / "run").rglob("*")}
    assert {".svg", ".png"} <= kinds


def test_an_existing_folder_that_is_no_result_is_exit_3_in_one_line(moesim, here, no_pages):
    (here / "thesis").mkdir()
    (here / "thesis/summary.json").write_text("not ours")
    done = moesim("run", "small.yaml", "-q", "--out", "thesis")
    assert done.code == 3 and len(done.err.splitlines()) == 1 and "not a result" in done.err
    assert [path.name for path in (here / "thesis").iterdir()] == ["summary.json"]


def test_a_full_disk_is_exit_3_and_leaves_nothing(moesim, here, no_pages, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    done = moesim("run", "small.yaml", "-q", "--out", "out/run")
    assert done.code == 3 and "No space left on device" in done.err and len(done.err.splitlines()) == 1
    assert not (here / "out").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_without_permission_is_exit_3(moesim, here, no_pages):
    (here / "locked").mkdir(mode=0o500)
    assert moesim("run", "small.yaml", "-q", "--out", "locked/run").code == 3


def test_an_interrupt_is_exit_130_without_a_traceback_and_nothing_is_written(moesim, here, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("moesim.run.simulate", interrupted)
    done = moesim("run", "small.yaml", "--out", "run")
    assert done.code == 130 and done.err.splitlines()[-1] == "moesim: interrupted"
    assert not (here / "run").exists()


def test_a_broken_invariant_is_exit_70_and_nothing_is_written(moesim, here, monkeypatch):
    from moesim.errors import InvariantError

    def broken(*_, **__):
        raise InvariantError("layer 0: a byte is missing")

    monkeypatch.setattr("moesim.run.simulate", broken)
    done = moesim("run", "small.yaml", "-q", "--out", "run")
    assert (done.code, done.err) == (70, "moesim: layer 0: a byte is missing\n")
    assert not (here / "run").exists()


def test_a_bug_is_exit_70_in_one_line_and_debug_alone_shows_the_traceback(moesim, here, monkeypatch):
    def bug(*_, **__):
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("moesim.run.simulate", bug)
    done = moesim("run", "small.yaml", "-q")
    assert done.code == 70 and len(done.err.splitlines()) == 1 and "ZeroDivisionError" in done.err
    assert "Traceback" in moesim("run", "small.yaml", "-q", "--debug").err


def test_names_from_a_file_are_printed_as_they_are_whatever_brackets_they_hold(moesim, here, no_pages):
    small_recording(here / "odd.npz", name="odd [/] [red]name")
    workload = "workload={recording: {name: odd.npz}, tokens_per_rank: 4}"
    done = moesim("run", "small.yaml", "-o", workload, "-q", "--out", "run")
    assert done.code == 0, done.err
    assert "odd [/] [red]name" in done.out


def test_ctrl_c_stops_a_long_run_at_once_and_leaves_nothing(here):
    command = "from moesim.cli import main; main()"
    arguments = ["run", "small.yaml", "-o", "workload.steps=100000", "--out", "run"]
    process = subprocess.Popen(
        [sys.executable, "-c", command, *arguments],
        env=os.environ | {"PYTHONPATH": ROOT},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=interruptible,
    )
    for line in process.stderr:
        if line.startswith("step 1:"):
            break
    process.send_signal(signal.SIGINT)
    left = process.stderr.read().splitlines()
    assert process.wait() == 130
    assert left[-1] == "moesim: interrupted" and not any("Traceback" in line for line in left)
    assert [path.name for path in here.iterdir()] == ["small.yaml"]


def test_a_variant_that_fails_in_another_process_is_told_like_any_other(moesim, here):
    variants = "variants:\n  too-many: {parallel.ep: 9}\n  fine: {routing.top_k: 2}\n"
    (here / "small.yaml").write_text((here / "small.yaml").read_text() + variants)
    done = moesim("run", "small.yaml", "--jobs", 2, "--out", "run", "-q")
    assert done.code == 2 and "small.yaml:9:27: parallel.ep: ep is 9 " in done.err and len(done.err.splitlines()) == 1
    assert not (here / "run").exists()
