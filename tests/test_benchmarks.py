"""Results that the performance page is made from, the page's arithmetic, and the workloads' traffic."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import page, workloads
from benchmarks.machine import RESULTS

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_every_result_has_the_agreed_columns_and_honest_ratios(path):
    result = json.loads(path.read_text())
    assert {"cpu", "cores"} <= set(result["machine"]) and result["rows"]
    for row in result["rows"]:
        assert set(row) == {"case", "n", "seconds", "peer", "peer_seconds", "ratio", "memory_bytes"}
        assert row["n"] > 0 and row["seconds"] > 0
        if row["ratio"] is not None and row["peer_seconds"] is not None:
            # the ratio of medians, or the median of ratios
            assert row["ratio"] == pytest.approx(row["peer_seconds"] / row["seconds"], rel=0.2)


def test_the_page_shows_every_result():
    shown = (ROOT / "docs/performance.md").read_text(encoding="utf-8")
    for path in RESULTS.glob("*.json"):
        assert page.TITLES.get(path.stem, path.stem) in shown


def test_an_exponent_is_the_slope_on_logarithmic_axes():
    rows = [{"case": f"{n} GPUs, x", "n": n, "seconds": 3e-6 * n**1.5} for n in (10, 100, 1000)]
    assert page.exponent(rows) == pytest.approx((1.5, np.log(3e-6)))
    assert list(page.series(rows)) == ["n GPUs, x"]
    assert page.series(rows[:2]) == {}


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(None, "s", "-"), (0.0216, "s", "21.6 ms"), (103.3, "s", "103 s"), (4.2e8, "B", "420 MB"), (1e-6, "s", "1 µs")],
)  # fmt: skip
def test_quantities_have_three_digits_and_a_prefix(value, unit, text):
    assert page.quantity(value, unit) == text


@pytest.mark.parametrize(("seconds", "text"), [(30, "30 s"), (7200, "2 hours"), (90 * 86400, "90 days")])
def test_a_long_time_is_told_in_the_unit_of_a_person(seconds, text):
    assert page.duration(seconds) == text


def test_a_workload_sends_every_token_k_times_and_crosses_the_nic_only_to_other_nodes():
    flows = workloads.pairs(16)
    source, target = flows.ends
    copies = np.zeros(16)
    np.add.at(copies, source, flows.size / workloads.BYTES_PER_COPY)
    own = workloads.rank_copies(16, "zipf", 0).diagonal()
    np.testing.assert_allclose(copies + own, workloads.TOKENS * workloads.TOP_K)
    first = flows.route_links[flows.route_ptr[:-1]]
    far = source // 8 != target // 8
    np.testing.assert_array_equal(first[far], 2 * 16 + source[far])
    np.testing.assert_array_equal(first[~far], source[~far])


def test_a_tree_loads_each_receiver_with_its_share():
    trees, kinds = workloads.trees(16), np.repeat(np.arange(4), 16)
    flow = np.repeat(np.arange(trees.n), np.diff(trees.route_ptr))
    kind = kinds[trees.route_links]
    assert (trees.weight[kind >= 2] == 1).all() and (trees.weight <= 8).all()
    received = np.bincount(flow, weights=np.where(kind == 1, trees.weight, 0.0), minlength=trees.n)
    forwarded = np.bincount(flow, weights=np.where(kind == 0, trees.weight, 0.0), minlength=trees.n)
    np.testing.assert_allclose(received, forwarded)
