"""Each cluster predicted by all others: what ships is what the fit gave, and it is as good as the docs say."""

import csv
import math
import os
from dataclasses import replace

import pytest

from moesim.traffic import find_set
from moesim.validate.cluster_check import expect
from moesim.validate.clusters_left_out import CLUSTERS, LEFT_OUT, LeftOut, expectations, read_left_out
from moesim.validate.published import published_rows
from moesim.validate.published_row import TIME, Row
from moesim.validate.row_simulation import seconds_of
from refit.population import Population, expected, solve
from refit.population_fit import cluster_rows, spell_left_out
from refit.population_plan import PLANS, rows_over_clusters

# Fits and runs of many layers.
pytestmark = pytest.mark.jit


def test_what_is_read_is_what_was_spelt() -> None:
    rows = read_left_out()
    assert spell_left_out(rows) == LEFT_OUT.read_text(encoding="utf-8")
    assert all(one.low_s < one.simulated_s < one.high_s for one in rows)


def test_every_healthy_row_of_the_clusters_is_there_with_its_own_time() -> None:
    measured = {row.key: seconds_of(row) for row in cluster_rows()}
    left_out = {one.row: one for one in read_left_out()}
    assert len(measured) == 118
    for name, seconds in measured.items():
        assert left_out[name].measured_s == pytest.approx(seconds, rel=1e-4), name


def test_unhealthy_rows_are_listed_and_not_used() -> None:
    with CLUSTERS.open(encoding="utf-8", newline="") as file:
        poor = {line["id"] for line in csv.DictReader(file) if line["health"] == "poor"}
    assert len(poor) == 9
    assert not poor & {row.key for row in cluster_rows()}


def test_the_errors_are_those_that_the_docs_quote() -> None:
    every, wired, hopper = expectations(read_left_out())[:3]
    assert (every.rows, every.clusters) == (118, 15)
    assert every.median < 0.09 and every.p90 < 0.40 and abs(every.signed) < 0.05 and 0.7 <= every.covered <= 0.9
    assert wired.median < 0.05 and wired.p90 < 0.58
    assert hopper.median < 0.05 and hopper.p90 < 0.25


def test_expectations_are_medians_and_deciles() -> None:
    names = [row.key for row in cluster_rows()][:4]
    made = [
        LeftOut("a", "c", name, "h100", "ibgda", 2, 1.0, simulated, 0.9, 1.2)
        for name, simulated in zip(names, (1.1, 0.9, 1.3, 1.0), strict=True)
    ]
    found = expectations(made)[0]
    assert found.median == pytest.approx(0.1)
    assert found.p90 == pytest.approx(0.24)
    assert found.signed == pytest.approx(0.05)
    assert found.covered == 1.0


@pytest.mark.skipif("NUMBA_DISABLE_JIT" in os.environ, reason="a fit of some ten seconds")
def test_a_cluster_left_out_again_is_where_the_file_says() -> None:
    """V2's rows ship all, so this fold needs no extract; its spreads are those to begin with, not those found."""
    plan = PLANS["deepep-v2-hybrid"]
    rows = rows_over_clusters([*published_rows(), *cluster_rows()], plan)
    nic = next(one for one in find_set("deepep-v2-hybrid", "h100").uncertain if one.kind == "nic")
    assert 0.02 < nic.deviation < 0.3
    population = Population(plan.begin("deepep-v2-hybrid"), plan.constants, rows)
    without = solve(population, [index for index, row in enumerate(rows) if row.cluster != "b300-a"])
    file = {one.row: one for one in read_left_out()}
    large = [row for row in rows if row.cluster == "b300-a" and row.tokens > 1000]
    assert large
    for row in large:
        mean, _ = expected(population, without, row)
        assert math.exp(mean) == pytest.approx(file[row.key].simulated_s, rel=0.25), row.key


def of_ep(ranks: int, gpu: str) -> Row:
    row = Row(
        table="dip", key="dip", library="deepep-v1", release="", gpu=gpu, source="", quantity=TIME, published=1.0,
        op="dispatch", ranks=ranks, nodes=max(1, ranks // 8), tokens=4096, dtype="fp8", sms=24, nic_peak=50e9,
    )  # fmt: skip
    return replace(row, cluster="dip")


@pytest.mark.parametrize(
    ("gpu", "milliseconds"), [("h800", (1.07, 1.33, 1.86, 2.38)), ("h100", (0.50, 1.22, 1.86, 2.38))]
)
def test_the_dip_at_two_nodes_is_work_of_the_forwarders(gpu: str, milliseconds: tuple[float, ...]) -> None:
    found = [expect(of_ep(ranks, gpu)) for ranks in (8, 16, 32, 64)]
    assert [1e3 * one.simulated for one in found] == pytest.approx(milliseconds, rel=0.01)
    # on the H800 NVLink needs as long
    assert found[1].shares["nvlink" if gpu == "h800" else "work"] > 0.8
    assert found[2].shares["nic"] > 0.9 and found[3].shares["nic"] > 0.9
