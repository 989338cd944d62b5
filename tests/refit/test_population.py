"""One fit over clusters: what made the rows is found again, and a cluster left out lies where it says."""

import math
from dataclasses import replace

import numpy as np
import pytest

from moesim.traffic import UNSEEN, find_set, transport_steps, value_at, with_value
from moesim.validate.published_row import TIME, Row
from moesim.validate.row_simulation import constants_from, simulated_seconds
from refit.population import ROW_SPREAD, Column, Constant, Population, as_set, expected, new_spreads, solve
from refit.population_plan import PLANS

# Fits and runs of many layers.
pytestmark = pytest.mark.jit

NIC = Constant((("dispatch", "nic_rate"), ("combine", "nic_rate")), "nic", ("transport",))
SETUP = Constant((("dispatch", "setup_inter_node_s"), ("combine", "setup_inter_node_s")), "setup", ("gpu", "transport"))
START = find_set("deepep-low-latency", "h100", "deepep-low-latency-h100")
SPREADS = {"nvlink": 0.1, "nic": 0.1, "setup": 0.2, "work": 0.3, "fill": 0.3}


def rows_of(cluster: str, nic: float, setup: float, gpu: str = "h100", transport: str = "ibgda") -> list[Row]:
    """Rows of a cluster whose NICs and set-ups are so many times the start's."""
    found = []
    for op in ("dispatch", "combine"):
        for tokens in (4, 128):
            row = Row(
                table="made", key=f"{op} {tokens}", library="deepep-ll", release="", gpu=gpu, source="made",
                quantity=TIME, published=1.0, op=op, ranks=16, nodes=2, tokens=tokens,
                dtype="fp8" if op == "dispatch" else "bf16", cluster=cluster, transport=transport, nic_peak=50e9,
            )  # fmt: skip
            moved = Population(START, (NIC, SETUP), [row]).set_of(row, np.log([nic, setup]))
            found.append(replace(row, published=1e6 * simulated_seconds(row, constants_from(moved, row))))
    return found


def unknown(population: Population, x: np.ndarray, axis: str, level: str, constant: int) -> float:
    return float(np.exp(x[population.columns.index(Column(axis, level, constant))]))


def test_means_are_those_of_the_clusters_and_each_deviates_by_its_own() -> None:
    rows = rows_of("a", 0.8, 1.0) + rows_of("b", 0.88, 1.2) + rows_of("c", 0.84, 1.1)
    population = Population(START, (NIC, SETUP), rows, SPREADS)
    found = solve(population)
    # A NIC's mean is held a little where the plan begins it, at 1.
    assert unknown(population, found.x, "mean", "", 0) == pytest.approx(0.84, rel=0.03)
    assert unknown(population, found.x, "mean", "", 1) == pytest.approx(1.1, rel=0.02)
    assert unknown(population, found.x, "cluster", "a", 0) == pytest.approx(0.8 / 0.84, rel=0.04)
    assert population.log_times(found.x, range(len(rows))) == pytest.approx(population.measured, abs=0.01)


def test_a_transport_is_a_step_and_weighs_as_a_cluster() -> None:
    rows = rows_of("a", 0.9, 1.0) + rows_of("b", 0.9, 1.0) + rows_of("p", 0.45, 3.0, transport="efa-proxy")
    population = Population(START, (NIC, SETUP), rows, SPREADS)
    found = solve(population)
    nic = unknown(population, found.x, "transport", "efa-proxy", 0)
    # The prior of the step against that of the cluster's own deviation: most of it is the step's.
    assert 0.5 <= nic < 0.53
    assert unknown(population, found.x, "mean", "", 0) == pytest.approx(0.9, rel=0.02)
    made = as_set(population, found, "made", "made", 1.0)
    proxy = made.on("h100", ("h100",), ("efa-proxy",), 132)
    assert value_at(proxy, NIC.places[0]) == pytest.approx(0.9 * nic * value_at(START, NIC.places[0]), rel=0.02)
    assert made.clusters == {"a": 4, "b": 4, "p": 4}


def test_racks_are_a_step_beside_their_transport_and_leave_the_mean_to_nodes_of_eight() -> None:
    rows = rows_of("a", 0.9, 1.0) + rows_of("b", 0.9, 1.0) + rows_of("rack", 0.25, 1.0, gpu="gb300")
    population = Population(START, (NIC,), rows, SPREADS)
    found = solve(population)
    assert unknown(population, found.x, "mean", "", 0) == pytest.approx(0.9, rel=0.02)
    made = as_set(population, found, "made", "made", 1.0)
    place, rate = NIC.places[0], value_at(made, NIC.places[0])
    assert value_at(made.on("b300", ("b200", "b300"), transport_steps("b300", "ibgda"), 148), place) == rate
    racks = made.on("gb300", ("b200", "b300"), transport_steps("gb300", "ibgda"), 152)
    assert value_at(racks, place) == pytest.approx(rate * 0.25 / 0.9, rel=0.1)
    assert racks.transport == "ibgda"


def test_an_odd_cluster_does_not_pull_the_mean_of_many() -> None:
    many = [row for name in "abcd" for row in rows_of(name, 0.9, 1.0)]
    population = Population(START, (NIC, SETUP), many + rows_of("odd", 0.3, 1.0), SPREADS)
    found = solve(population)
    assert unknown(population, found.x, "mean", "", 0) == pytest.approx(0.9, rel=0.04)


def test_a_cluster_that_nobody_saw_is_at_the_mean_with_the_spread_of_its_kind() -> None:
    rows = [row for name in "abc" for row in rows_of(name, 0.9, 1.0)]
    population = Population(START, (NIC, SETUP), rows, SPREADS)
    found = solve(population)
    new = rows_of("new", 0.9, 1.0)[1]
    mean, deviation = expected(population, found, new)
    assert mean == pytest.approx(math.log(new.published * 1e-6), abs=0.02)
    slopes = population.row_slopes(new, np.log([0.9, 1.0]))
    least = math.sqrt((slopes[0] * 0.1) ** 2 + (slopes[1] * 0.2) ** 2 + ROW_SPREAD**2)
    assert least < deviation < 1.3 * least
    other = expected(population, found, replace(new, transport="efa-proxy"))[1]
    assert other > math.sqrt((slopes[0] * UNSEEN["transport"]) ** 2 + least**2) * 0.9


def test_spreads_follow_the_clusters() -> None:
    def spread(far: float) -> float:
        factors = np.exp(far * np.array([-1.4, -0.7, 0.0, 0.7, 1.4]))
        rows = [row for name, nic in zip("abcde", factors, strict=True) for row in rows_of(name, 0.7 * nic, 1.0)]
        spreads = dict(SPREADS)
        for _ in range(3):
            population = Population(START, (NIC, SETUP), rows, spreads)
            spreads = new_spreads([(population, solve(population))], spreads)
        return spreads["nic"]

    assert spread(0.15) == pytest.approx(0.15, rel=0.35)
    assert spread(0.0) < 0.05


def test_every_plan_begins_with_its_own_algorithm_and_has_its_constants() -> None:
    for algorithm, plan in PLANS.items():
        begin = plan.begin(algorithm)
        assert begin.algorithm == algorithm
        for constant in plan.constants:
            for place in constant.places:
                assert value_at(begin, place) > 0, place
                assert value_at(with_value(begin, place, 0.5 * value_at(begin, place)), place) > 0
