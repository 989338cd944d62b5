"""``moesim validate`` and ``moesim calibrate`` as a user types them."""

import json
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from moesim import load_scenario, simulate
from moesim.traffic.constant_sets import find_set, read_set
from moesim.validate.clusters_left_out import expectations, read_left_out
from moesim.validate.evaluate_rows import Outcome, evaluate
from moesim.validate.extracts import FILES, extract_rows
from moesim.validate.ledger import Entry, read_ledger
from moesim.validate.listed_clusters import listed_rows
from moesim.validate.published import published_rows
from moesim.validate.published_row import TIME, Row
from moesim.validate.statistics import Spread, counts, fitted, mean_over_tables, misses
from moesim.validate.unseen import Unseen
from moesim.validate.validation_page import page_of
from tests.cli.conftest import moesim as moesim_fixture
from tests.cli.conftest import run_folder as run_folder_fixture

moesim, run_folder = moesim_fixture, run_folder_fixture
REFERENCE = Path(__file__).resolve().parents[3] / "shared" / "reference"
KEYS = {"table", "row", "source", "quantity", "published", "simulated", "error", "role", "suspect", "reason"}


@pytest.mark.jit
def test_the_rows_of_a_table_as_json(moesim):
    done = moesim("validate", "--table", "deepep-v1-h800", "--json", "--jobs", 1)
    assert done.code == 0
    rows = json.loads(done.out)
    assert len(rows) == 16  # both releases
    assert all(set(row) == KEYS for row in rows)
    for row in rows:
        assert row["error"] == pytest.approx(row["simulated"] / row["published"] - 1)
    late = next(row for row in rows if row["table"].endswith("first") and row["row"] == "op=dispatch ranks=32")
    assert "first release" in late["reason"]


@pytest.mark.jit
def test_each_row_and_each_tables_spread_as_text(moesim):
    done = moesim("validate", "-t", "deepep-v2", "-t", "deepep-ll-h20", "-t", "arithmetic", "--jobs", 1)
    assert done.code == 0
    assert "op=dispatch ranks=32 gpu=sm90 sms=6" in done.out
    assert "suspect: its NVLink rate is not an H800's" in done.out
    assert "held out:" in done.out
    assert "bytes: 8 of 8 rows" in done.out


def test_a_table_that_is_not_there_is_refused(moesim):
    done = moesim("validate", "--table", "deepep-v9")
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert "deepep-v2" in done.err


def test_a_reference_folder_without_the_extracts_is_refused(moesim, tmp_path):
    done = moesim("validate", "--reference", tmp_path)
    assert (done.code, done.err.count("\n")) == (2, 1)


@pytest.mark.jit
def test_the_page_stands_on_its_own(moesim, tmp_path):
    page = tmp_path / "pages" / "validation.html"
    done = moesim("validate", "-t", "deepep-v2", "--page", page, "--jobs", 1)
    assert done.code == 0
    text = page.read_text(encoding="utf-8")
    assert text.count('class="canvas"') == 3  # all tables, and the two charts of this one
    assert "default-src &#39;none&#39;" in text
    own = text.split("<script>")[0]
    assert not any(tag in own for tag in ("<link", "<img", "<iframe"))


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen = []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        assert not any(name.startswith("on") for name, _ in attrs)


def test_names_in_the_page_are_text():
    bad = "<script>alert(1)</script>"
    row = Row(bad, bad, "nccl", "", bad, bad, TIME, 2.0, op="alltoall", tokens=4096)
    entry = Entry(bad, bad, "nccl", "", bad, bad, TIME, "held-out", True, bad)
    tags = Tags()
    page = page_of([Outcome(row, entry, 1.0), Outcome(row, entry, 2.0)], [Unseen(bad, bad, (bad,), (0.1,), (0.1,))])
    tags.feed(page)
    assert bad not in page and "&lt;script&gt;alert(1)" in page
    assert tags.seen.count("script") == 2 + 2  # Bokeh and the page's own, and the data of two charts


def test_the_page_leads_with_the_error_on_a_cluster_left_out():
    row = Row("t", "1", "nccl", "", "h100", "somebody", TIME, 2.0, op="alltoall", tokens=4096)
    entry = Entry("t", "1", "nccl", "", "h100", "somebody", TIME, "held-out", False, "")
    page = page_of([Outcome(row, entry, 2.02)], [], clusters=read_left_out())
    every, *cells = expectations(read_left_out())
    led = page.index(f"expect a median error of {100 * every.median:.1f} %")
    assert led < page.index("1 published figures that took no part in any fit")
    assert f"{100 * abs(every.signed):.1f} % too {'fast' if every.signed < 0 else 'slow'}" in page
    for cell in cells:
        assert f">{cell.what}</td>" in page
    for row in listed_rows():  # whence the rows come
        assert row.cluster in page and escape(row.source, quote=False).replace("'", "&#39;") in page
    made = find_set("deepep-normal", "h100")
    counts = len(made.uncertain), sum(made.clusters.values()), len(made.clusters)
    line = "".join(f"<td>{number}</td>" for number in counts)
    assert f">{made.name}</td>{line}" in page
    assert "expect a median error" not in page_of([Outcome(row, entry, 2.02)], [])


def outcome(error, role="held-out", suspect=False, tokens=64, table="t"):
    row = Row(table, f"{error}", "nccl", "", "", "", TIME, 1.0, op="dispatch", tokens=tokens)
    return Outcome(row, Entry(table, f"{error}", "", "", "", "", TIME, role, suspect, ""), 1.0 + error)


def test_suspects_and_fitted_rows_say_nothing_of_the_held_out_ones():
    outcomes = [outcome(0.01), outcome(-0.03), outcome(0.9, suspect=True), outcome(0.5, role="fit")]
    held_out = Spread.of(filter(counts, outcomes))
    assert (held_out.rows, held_out.worst) == (2, pytest.approx(0.03))
    assert held_out.median == pytest.approx(0.02)
    assert Spread.of(filter(fitted, outcomes)).rows == 1
    assert [which for _, which, _ in misses(outcomes)] == ["fitted rows"]
    assert Spread.of([]) is None


def test_the_mean_over_tables_does_not_know_how_long_they_are():
    outcomes = [outcome(0.02, table="short")] + [outcome(0.04, table="long")] * 9
    assert mean_over_tables(outcomes, counts) == pytest.approx((0.03, 0.03))


def test_small_and_large_messages_have_bars_of_their_own():
    outcomes = [outcome(0.045, tokens=8), outcome(0.045, tokens=64)]
    assert [which for _, which, _ in misses(outcomes)] == ["large messages"]


@pytest.mark.slow
def test_any_number_of_jobs_gives_the_same_values():
    rows = [row for row in published_rows() if row.table in ("deepep-v2", "deepep-ll-h20", "deepep-pcie-h20")]
    ledger = read_ledger()
    one, two = (evaluate(rows, ledger, jobs) for jobs in (1, 2))
    assert [outcome.simulated for outcome in one] == [outcome.simulated for outcome in two]


@pytest.mark.slow
@pytest.mark.skipif(not (REFERENCE / "kernels" / FILES[0]).is_file(), reason="the large extracts are not here")
def test_the_whole_ledger_is_inside_its_bars():
    """Held out and not suspect: median at most 4 %, 90th percentile 10 %, pooled and as mean over tables."""
    rows = [*published_rows(), *extract_rows(REFERENCE)]
    outcomes = evaluate(rows, read_ledger(), 2)
    held_out = Spread.of(filter(counts, outcomes))
    assert held_out.rows > 3000
    assert (held_out.median, held_out.p90) <= (0.04, 1.0)
    assert held_out.p90 <= 0.10
    median, decile = mean_over_tables(outcomes, counts)
    assert median <= 0.04
    assert decile <= 0.10
    assert Spread.of(filter(fitted, outcomes)).median <= 0.03


@pytest.mark.jit
def test_a_users_measurements_become_a_file_that_a_scenario_takes(moesim, tmp_path):
    measured = tmp_path / "mine.csv"
    lines = [f"alltoall,8,{1 << shift},{20 + (1 << shift) * 7 / 8 / 150e9 * 1e6:.3f}" for shift in range(20, 29, 2)]
    measured.write_text("op,ranks,tokens,time_us\n" + "\n".join(lines) + "\n")
    out = tmp_path / "my.yaml"
    done = moesim("calibrate", measured, "-a", "nccl-direct", "-g", "h800", "--start", "nccl-direct-h800", "--out", out)
    assert done.code == 0, done.err
    assert "error left" in done.out
    found = read_set(out)
    assert found.phases["dispatch"]["nvlink_rate"] == pytest.approx(150e9, rel=0.01)
    assert found.phases["dispatch"]["setup_intra_node_s"] == pytest.approx(20e-6, rel=0.02)
    assert "measured on your cluster" in found.source


def test_a_gpu_that_nobody_knows_brings_its_ports_along(moesim, tmp_path):
    measured = tmp_path / "mine.csv"
    measured.write_text("op,ranks,tokens,time_us\nalltoall,8,268435456,1500\n")
    out = tmp_path / "my.yaml"
    done = moesim("calibrate", measured, "-a", "nccl-direct", "-g", "x900", "--start", "nccl-direct-h800", "--out", out)
    assert done.code == 0, done.err
    found = read_set(out)
    assert (found.gpu, found.nvlink_peak) == ("x900", 200e9)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "no measurements"),
        (("x.csv",), "which algorithm"),
        (("x.csv", "-a", "nccl-direct", "-g", "h100"), "no such file"),
        (("x.csv", "-a", "nccl-indirect", "-g", "h100"), "nccl-direct"),
        (("x.csv", "--published"), "FILES has no effect with --published"),
    ],
)
def test_what_calibrate_cannot_do_is_one_line(arguments, said, moesim, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = moesim("calibrate", *arguments)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert said in done.err


@pytest.mark.jit
def test_a_log_asks_for_what_it_does_not_hold_and_says_what_was_taken_of_it(moesim):
    log = Path(__file__).parents[1] / "logs" / "samples" / "normal-sums-ray.log"
    done = moesim("calibrate", log, "-a", "deepep-normal", "-g", "h100")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert done.err.endswith("does not say ranks; give --ranks\n")
    done = moesim("calibrate", log, "-a", "deepep-normal", "-g", "h100", "--ranks", 16)
    assert done.code == 0
    assert "DeepEP normal mode, 2 of 4 rows are fitted" in done.err
    assert "how many GPUs a node has is not said: 8, as is usual" in done.err
    assert "2 rows, error left" in done.out


def test_the_shipped_sets_can_be_fitted_again_from_the_command_line(moesim, tmp_path):
    done = moesim("calibrate", "--published", "--table", "deepep-pcie", "--out", tmp_path)
    assert done.code == 0
    found = read_set(tmp_path / "deepep-v2-direct-h20-pcie.yaml")
    # one row: 53.01 GB/s logical, seven eighths of it on the wire, where a copy is 80 bytes longer
    by_hand = 53.01e9 * 7 / 8 * 7472 / 7392
    assert found.phases["dispatch"]["nic_rate"] == pytest.approx(by_hand, rel=0.02)
    assert np.isfinite(found.error["median"])


def test_a_run_names_the_measurement_that_is_nearest_to_it(moesim, run_folder):
    done = moesim("explain", run_folder, "combine_time_s")
    assert done.code == 0
    assert "nearest published: 158 GB/s logical, deepep-v1-h800 op=combine ranks=8" in done.out
    assert "64 tokens per rank instead of 4096" in done.out
    assert "nearest published" in (run_folder / "report.html").read_text(encoding="utf-8")
    assert "nearest published" not in moesim("explain", run_folder, "layer_time_s").out


def test_the_report_of_a_run_that_python_saved_names_it_too(moesim, run_folder, tmp_path):
    simulate(load_scenario(run_folder.parent / "small.yaml")).save(tmp_path / "saved")
    assert moesim("report", tmp_path / "saved").code == 0
    pages = [(folder / "report.html").read_text(encoding="utf-8") for folder in (run_folder, tmp_path / "saved")]
    assert pages[0] == pages[1]
