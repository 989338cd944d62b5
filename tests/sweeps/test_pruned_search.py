"""A plan's search against simulating every point: the same answer, fewer points, whatever the estimates are off by."""

import random

import pytest

import moesim
from moesim.errors import InputError
from moesim.scenario import parse_threshold
from moesim.sweeps.answers import pareto
from moesim.sweeps.deployments import RATE, deployments, kind_of
from moesim.sweeps.journal import Outcome
from moesim.sweeps.plan_answer import plan_answer
from moesim.sweeps.pruned_search import MARGIN, Search, search
from moesim.sweeps.report import command_for
from moesim.sweeps.workers import local_workers

SMALL = {
    "name": "small",
    "cluster": {"topology": "h200-2x4-rail"},
    "model": {"preset": "deepseek-v3", "n_experts": 32, "hidden": 1024, "expert_hidden": 256, "layers": 8},
    "routing": {"kind": "v3", "top_k": 4, "groups": 4, "top_groups": 2},
    "workload": {
        "synthetic": {"kind": "zipf", "exponent": 0.5},
        "requests": 32,
        "context": 1024,
        "layers_simulated": 2,
    },
    "placement": {"learn_from": "first_half"},
    "alltoall": {"algorithm": "deepep-low-latency"},
    "schedule": {"phase": "decode"},
}


def summary(rate, latency, step=None):
    return {RATE: rate, "tpot_s": latency, "step_time_s": latency if step is None else step, "memory_free_bytes": 1e9}


def pretended(rng, n=150, least=-MARGIN / 2):
    """Points whose simulated step takes from ``least`` less to 12 % longer than the estimate says."""
    points = {}
    for point in range(n):
        batch, good = rng.choice((16, 32, 64, 128)), rng.uniform(0.7, 1.3)
        time = (0.01 + batch * 2e-4) / good
        exact = time * (1 + rng.uniform(least, 0.12))
        points[point] = [summary(batch / t, t) for t in (time, exact)]
    return points


def run(points, limits):
    found = Search(limits, "tpot_s", lambda point: point % 5, {p: both[0] for p, both in points.items()})
    while asked := found.next():
        assert not set(asked) & found.simulated.keys()
        for point in asked:
            before, after = points[point]
            found.add(point, Outcome("ok", None, after | {"estimated_step_time_s": before["step_time_s"]}))
    return found


def everything(points, limits):
    found = Search(limits, "tpot_s", lambda point: point % 5, {p: both[0] for p, both in points.items()})
    found.simulated = {point: both[1] for point, both in points.items()}
    return found


def front(found):
    kept = sorted(found.within())
    return {kept[i] for i in pareto([(-found.simulated[p][RATE], found.simulated[p]["tpot_s"]) for p in kept])}


@pytest.mark.parametrize("limit", ["", "tpot_s < 25ms", "tokens_per_second_per_gpu > 2000", "tpot_s < 1ms"])
@pytest.mark.parametrize("seed", range(25))
def test_the_search_finds_what_simulating_every_point_finds(seed, limit):
    points = pretended(random.Random(seed))
    limits = (parse_threshold(limit),) if limit else ()
    found, whole = run(points, limits), everything(points, limits)
    assert found.best() == whole.best() and found.second() == whole.second()
    assert front(found) == front(whole)
    assert len(found.simulated) < 0.8 * len(points)


def test_an_estimate_found_too_slow_widens_the_margin_and_what_was_left_out_is_judged_anew():
    points = {0: [summary(100, 0.01), summary(125, 0.008)], 1: [summary(95, 0.0105), summary(130, 0.0077)]}
    found = run(points, ())
    assert found.margin == pytest.approx(2 * found.worst) and found.worst >= 0.2
    assert found.best() == 1


def test_a_limit_on_memory_is_known_before_anything_runs():
    points = pretended(random.Random(1), 20)
    for both in points.values():
        both[0]["memory_free_bytes"] = 3e9
    assert run(points, (parse_threshold("memory_free_bytes > 4GB"),)).simulated == {}


def test_deployments_are_derived_from_cluster_model_and_load():
    scenario = moesim.load_scenario(SMALL)
    space = deployments(scenario, None, {})
    points = [space.values(point) for point in range(len(space))]
    assert {point["parallel.ep"] for point in points} == {1, 2, 4, 8}
    assert {point["workload.requests"] for point in points} >= {4, 32, 64}
    by_ep = {(p["parallel.ep"], p["placement.redundant_experts"]) for p in points if p["placement.policy"] == "eplb"}
    assert by_ep == {(ep, extra * ep) for ep in (1, 2, 4, 8) for extra in (0, 1)}
    overlaps = {(p["alltoall.algorithm"], p["schedule.overlap"]) for p in points}
    assert ("deepep-low-latency", "two-batch") in overlaps and ("nccl-direct", "two-batch") not in overlaps
    fewer = deployments(scenario, 4, {"workload.requests": [8], "cluster.nic_bandwidth": ["200Gb/s", "400Gb/s"]})
    values = [fewer.values(point) for point in range(len(fewer))]
    assert {p["parallel.ep"] for p in values} == {1, 2, 4} and {p["workload.requests"] for p in values} == {8}
    assert {p["cluster.nic_bandwidth"] for p in values} == {"200Gb/s", "400Gb/s"}


def test_a_plan_has_the_whole_cluster_whatever_ep_the_scenario_has():
    space = deployments(moesim.load_scenario(SMALL, ["parallel.ep=4"]), None, {})
    assert {space.values(point)["parallel.ep"] for point in range(len(space))} == {1, 2, 4, 8}


def test_two_deployments_are_of_one_kind_whatever_the_batch_and_the_placement():
    space = deployments(moesim.load_scenario(SMALL), None, {})
    kinds = {kind_of(space.values(point), "decode") for point in range(len(space))}
    assert len(kinds) == 4 * 5


@pytest.mark.parametrize(
    ("changes", "gpus", "given", "said"),
    [
        (["workload.requests=null", "workload.context=null", "schedule.overlap=none"], None, {}, "whole steps"),
        ([], 16, {}, "16 GPUs of 8"),
        ([], None, {"parallel.ep": [3]}, "no groups of 3"),
    ],
)
def test_what_is_no_plan_is_told(changes, gpus, given, said):
    with pytest.raises(InputError, match=said):
        deployments(moesim.load_scenario(SMALL, changes), gpus, given)


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """A small plan that simulated everything, the same again by search, and its folder."""
    scenario = moesim.load_scenario(SMALL)
    given = {"parallel.ep": [4, 8], "workload.requests": [8, 16, 32], "placement.policy": ["eplb"]}
    space = deployments(scenario, None, given)
    limits = (parse_threshold("tpot_s < 100ms"),)
    folder = tmp_path_factory.mktemp("plan") / "out"
    whole, _ = search(scenario, space, limits, lambda _: local_workers(2), every=True)
    found, swept = search(scenario, space, limits, lambda _: local_workers(2), folder=folder)
    return scenario, space, limits, whole, found, swept, folder


@pytest.mark.jit
def test_a_search_of_real_points_agrees_with_all_of_them_and_leaves_some_out(planned):
    *_, whole, found, swept, _ = planned
    assert found.best() == whole.best() and front(found) == front(whole) and found.second() == whole.second()
    assert len(found.simulated) < len(whole.simulated)
    assert all(found.simulated[point] == pytest.approx(whole.simulated[point]) for point in found.simulated)
    assert swept.counts["ok"] == len(found.simulated)


@pytest.mark.jit
def test_a_search_done_before_runs_nothing_again(planned):
    scenario, space, limits, _, found, swept, folder = planned

    def nobody(_):
        raise AssertionError("nothing is left to do but this asks for workers")

    again, table = search(scenario, space, limits, lambda _: local_workers(1), folder=folder)
    assert again.simulated == found.simulated and again.worst == found.worst
    assert table.table.equals(swept.table)


@pytest.mark.jit
def test_the_answer_names_the_best_what_binds_it_and_the_best_of_another_kind(planned):
    scenario, space, limits, _, found, swept, _ = planned
    made = plan_answer(scenario, space, limits, found, swept.table, command_for(scenario, "small", [], space))
    headline, text = made.data.said
    assert headline.startswith("Best is EP") and "bound by" in headline
    assert "another kind" in text and "points were simulated" in text
    plain = made.to_json(space, swept.table)
    assert plain["best"]["point"] == found.best() and plain["best_of_another_kind"]["point"] == found.second()
    assert {row["point"] for row in plain["front"]} == front(found)
    best = found.simulated[found.best()][RATE]
    assert all(found.simulated[point][RATE] >= 0.95 * best for point in plain["equal"])


def test_what_no_gpu_has_memory_for_is_impossible_and_says_so():
    big = SMALL | {"model": {"preset": "deepseek-v3"}, "routing": {"kind": "v3"}}
    scenario = moesim.load_scenario(big)
    space = deployments(scenario, None, {"parallel.ep": [1, 8], "workload.requests": [2048]})
    found, swept = search(scenario, space, (), lambda _: local_workers(1))
    assert swept.counts == {"impossible": len(space)} and not found.estimated
    assert all("it does not fit" in why and "KV cache" in why for why in swept.table["error"].to_pylist())
