"""What breaks: every single fault against a run with it, faults that are alike, the bound's ranking, the map."""

import functools
import itertools
import json
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex

import moesim
from moesim import InputError
from moesim.cluster import Heat, draw, find_topology, read_topology
from moesim.report import faults_table, render_what_breaks
from moesim.results import PairCost, RankedFault, WhatBreaks
from moesim.sweeps import what_breaks as search
from moesim.sweeps.evaluate_points import parts_of, recording_of, route
from moesim.sweeps.single_faults import Severities, single_faults
from moesim.sweeps.workers import Workers

BASE = {
    "cluster": {"topology": "h200-2x4-rail"},
    "model": {"preset": "deepseek-v3", "n_experts": 64},
    "routing": {"kind": "v3", "top_k": 8, "groups": "node", "top_groups": 2},
    "workload": {"synthetic": {"kind": "w1-hot-experts"}, "tokens_per_rank": 256},
}
UNIFORM = "workload.synthetic={kind: w0-balanced}"
TWO_LEAVES = "cluster.topology=h200-2x4-leaf-spine"
FOUR_GPUS = ("cluster.topology=h200-2x2-rail", "workload.tokens_per_rank=512")


@contextmanager
def here(points):
    with ThreadPoolExecutor(1) as executor:
        yield Workers(executor, lambda: 1)


def scenario(*overrides):
    return moesim.load_scenario(BASE, overrides=list(overrides))


@functools.cache
def found(*overrides):
    return search.what_breaks(scenario(*overrides), here, typed=["base.yaml"])


def with_faults(*entries, overrides=()):
    run = moesim.simulate(scenario(*overrides, f"faults={json.dumps(list(map(dict, entries)))}"))
    return run.summary["step_time_s"]


def faults_of(*overrides):
    parts = parts_of(scenario(*overrides))
    return single_faults(parts.fabric, np.ones(parts.fabric.n_links, bool), Severities())


def test_every_fault_takes_what_a_run_with_it_takes_and_the_worst_is_first():
    ranked, entry = found(*FOUR_GPUS), {(one.what, one.place): one.entry for one in faults_of(*FOUR_GPUS)}
    assert ranked.base_s == with_faults(overrides=FOUR_GPUS)
    assert ranked.n_faults == sum(len(one.places) for one in ranked.faults) == ranked.n_simulated
    for one in ranked.faults:
        if one.how == "stops":  # DeepEP's normal mode cannot leave out a GPU
            assert one.what == "dead GPU" and len(one.places) == 4
            with pytest.raises(InputError, match=re.escape(one.error[:40])):
                with_faults(entry["dead GPU", one.places[-1]], overrides=FOUR_GPUS)
            continue
        assert one.time_s == with_faults(one.entry, overrides=FOUR_GPUS) and one.cost_s == one.time_s - ranked.base_s
    costs = [one.cost_s for one in ranked.known]
    assert costs == sorted(costs, reverse=True) and costs[0] > 0.02 * ranked.base_s
    worst = ranked.known[0]
    assert worst.place in ranked.sentence() and json.dumps([dict(worst.entry)]) in ranked.command


def test_all_gpus_nics_nvlinks_and_rails_are_among_the_faults_and_idle_links_are_not():
    ranked, gpus = found(), {f"n{node}.gpu{gpu}" for node in range(2) for gpu in range(4)}
    places = {}
    for one in ranked.faults:
        places.setdefault(one.what, set()).update(one.places)
    for what in ("GPU 1.5 x slower", "dead GPU", "NIC at half rate", "dead NIC", "NVLink at half rate"):
        assert places[what] == gpus
    assert places["dead rail"] == {f"rail{rail}" for rail in range(4)}
    assert len(places) == 6
    # On rails no byte of DeepEP's crosses a spine: the four uplinks carry nothing.
    assert ranked.idle == 4 and any("4 faults are left out" in note for note in ranked.notes)


def test_places_that_even_traffic_does_not_tell_apart_cost_the_same_each():
    overrides = (UNIFORM, "alltoall.algorithm=deepep-low-latency")
    ranked, entry = found(*overrides), {(one.what, one.place): one.entry for one in faults_of(*overrides)}
    assert len(ranked.faults) < ranked.n_faults / 4 and ranked.n_simulated <= 2 * len(ranked.faults)
    assert {one.what for one in ranked.known if len(one.places) == 8} >= {"GPU 1.5 x slower", "dead GPU", "dead NIC"}
    for one in ranked.faults:
        assert one.how == ("alike" if len(one.places) > 2 else "simulated")
        for place in one.places[::3]:
            assert with_faults(entry[one.what, place], overrides=overrides) == pytest.approx(one.time_s, rel=1e-9)


def test_a_rank_with_one_token_more_is_told_apart():
    tokens = "workload.tokens_per_rank=[256,256,256,256,256,256,256,264]"
    alone = [one for one in found(UNIFORM, tokens).faults if one.places == ("n1.gpu3",)]
    assert {one.what for one in alone} >= {"GPU 1.5 x slower", "NVLink at half rate"}


def test_faults_come_on_top_of_those_that_the_scenario_has():
    own = {"kind": "slow_nic", "where": "n0.gpu1.nic", "factor": 4}
    ranked = found(f"faults=[{json.dumps(own)}]")
    assert ranked.base_s == with_faults(own) > found().base_s
    for one in ranked.known[:3]:
        assert one.time_s == with_faults(own, one.entry)


@pytest.mark.parametrize(
    "overrides",
    [
        ("workload.layers_simulated=3",),
        ("alltoall.algorithm=deepep-low-latency",),
        ("schedule.start_offset={distribution: exponential, scale: 50us}",),
        pytest.param(
            ("workload.sequence_length=256", "schedule.overlap=two-batch", "schedule.phase=prefill"),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_several_layers_other_algorithms_arrivals_and_whole_steps_are_ranked_too(overrides):
    overrides = (*overrides, "cluster.topology=h200-2x2-rail")
    ranked = found(*overrides)
    assert ranked.base_s == with_faults(overrides=overrides)
    assert ranked.known[0].time_s == with_faults(ranked.known[0].entry, overrides=overrides) > ranked.base_s
    of = {"workload.layers_simulated=3": "the step of 3 layers", "workload.sequence_length=256": "the whole step"}
    assert ranked.subject == of.get(overrides[0], "the layer")


def test_a_switch_without_which_nothing_runs_comes_before_all_else():
    ranked = found(TWO_LEAVES)
    stops = [one for one in ranked.faults if one.how == "stops"]
    assert stops and tuple(ranked.faults[: len(stops)]) == tuple(stops)
    assert all(one.time_s is None for one in stops)
    assert all("leave no way" in one.error for one in stops if one.what == "dead switch")
    assert ranked.sentence().startswith(f"Nothing runs any more with a {stops[0].what} ({stops[0].place})")
    leaves = {place for one in stops if one.what == "dead switch" for place in one.places}
    assert leaves and all(ranked.heat()[leaf] == np.inf for leaf in leaves)
    plain = json.loads(json.dumps(ranked.to_json(), allow_nan=False))
    assert all(plain["map"][leaf] is None for leaf in leaves) and plain["faults"][0]["how"] == "stops"


def test_where_faults_are_too_many_the_bound_ranks_them_and_says_so(monkeypatch):
    monkeypatch.setattr(search, "_WORTH_S", 0.0)
    monkeypatch.setattr(search, "_FEWEST", 3)
    ranked = search.what_breaks(scenario(), here, share=0.25)
    kinds = {one.what for one in ranked.faults}
    # A quarter, and the first of each kind that is not among these.
    assert 0 <= ranked.n_simulated - np.ceil(0.25 * ranked.n_faults) <= len(kinds)
    assert {one.what for one in ranked.faults if one.how != "bound only"} == kinds
    left = [one for one in ranked.faults if one.how == "bound only"]
    stops = [place for one in ranked.faults if one.how == "stops" for place in one.places]
    assert len(stops) == 8 and all(one.cost_s is None for one in left)
    assert len(left) == ranked.n_faults - ranked.n_simulated - len(stops)
    assert ranked.faults[-len(left) :] == tuple(left)
    share = f"{100 * ranked.n_simulated / ranked.n_faults:.1f} %"
    assert any(share in note for note in ranked.notes) and any("were not simulated" in note for note in ranked.notes)
    for what in kinds:
        known, rest = ([one.bound_change_s for one in some if one.what == what] for some in (ranked.known, left))
        assert None in known + rest or not known or max(rest, default=0) <= min(known)
    assert "bound only" in render_what_breaks(ranked) and "bound rises" in faults_table(ranked).columns


@pytest.mark.slow
def test_the_bound_finds_the_costliest_faults_more_often_than_chance(record_property):
    kinds = ("w1-hot-experts", "w5-zero-load")
    hits, worst_found = [], 0
    for kind, algorithm in itertools.product(kinds, ("deepep-normal", "deepep-low-latency")):
        overrides = (f"workload.synthetic={{kind: {kind}}}", f"alltoall.algorithm={algorithm}")
        loaded = scenario(*overrides)
        parts = parts_of(loaded)
        routed = route(loaded, parts, recording_of(loaded))
        times = {(one.what, place): one.time_s for one in found(*overrides).faults for place in one.places}
        faults = [one for one in faults_of(*overrides) if times.get((one.what, one.place))]
        rises = search.bound_rises(loaded, parts, routed, search.loads_of(parts, routed), faults, len(faults))
        cost = np.array([times[one.what, one.place] for one in faults])
        by_bound = sorted(range(len(faults)), key=lambda i: rises[i], reverse=True)[: len(faults) // 5]
        costliest = cost >= np.sort(cost)[-len(by_bound)]
        hits.append(costliest[by_bound].mean())
        worst_found += cost[by_bound].max() >= cost.max() * (1 - 1e-9)
    text = (
        f"of the costliest fifth the bound's first has {np.mean(hits):.0%}; the worst in {worst_found} of {len(hits)}"
    )
    record_property("hit_rate", text)
    print(text)
    assert np.mean(hits) > 0.4 and worst_found >= len(hits) / 2  # a fifth by chance


def test_dead_gpus_that_stop_all_are_known_without_a_clock():
    loaded = scenario()
    parts = parts_of(loaded)
    routed = route(loaded, parts, recording_of(loaded))
    dead = [one for one in faults_of() if one.what in ("dead GPU", "dead NIC", "dead rail")]
    rises = search.bound_rises(loaded, parts, routed, search.loads_of(parts, routed), dead, 5)
    assert all("same index in every node" in rise.error for rise in rises[:8])
    # Rails are made anew first, then the NIC whose bytes raise the bound most; the rest is as if at half rate.
    assert [one.what for one, rise in zip(dead, rises, strict=True) if not rise.error and not rise.guessed] == [
        "dead NIC",
        *["dead rail"] * 4,
    ]
    slow = [one for one in faults_of() if one.what == "NIC at half rate"]
    halved = search.bound_rises(loaded, parts, routed, search.loads_of(parts, routed), slow, 0)
    for one, other in zip(rises[8:16], halved, strict=True):
        assert not one.guessed or one[:2] == other[:2]


def test_of_several_groups_the_faults_are_not_ranked_and_one_line_says_so():
    with pytest.raises(InputError, match="ranked for one expert-parallel group"):
        search.what_breaks(scenario("parallel={ep: 4, dp: 8}"), here)


def test_the_worst_pair_of_all_is_among_those_that_are_tried():
    ranked, faults = found(*FOUR_GPUS), faults_of(*FOUR_GPUS)
    some = [one for one in faults if one.what in ("NIC at half rate", "GPU 1.5 x slower", "NVLink at half rate")]
    costs = {
        (one.what, one.place, other.what, other.place): with_faults(one.entry, other.entry, overrides=FOUR_GPUS)
        for one, other in itertools.combinations(some, 2)
        if search._apart(one, other)
    }
    assert ranked.pairs[0].time_s >= max(costs.values()) * (1 - 1e-9)


def test_pairs_are_all_those_among_the_worst_and_take_what_runs_with_both_take():
    ranked = found()
    entry = {f"{one.what} at {one.place}": one.entry for one in faults_of()}
    for pair in ranked.pairs[::5]:
        assert pair.time_s == with_faults(entry[pair.first], entry[pair.second])
    costs = [pair.cost_s for pair in ranked.pairs]
    assert costs == sorted(costs, reverse=True) and costs[0] >= ranked.known[0].cost_s
    singles = [one for one in ranked.known for _ in one.places][: search._WORST]
    assert {pair.first for pair in ranked.pairs} | {pair.second for pair in ranked.pairs} <= {
        f"{one.what} at {place}" for one in singles for place in one.places
    }
    assert any("greedy" in note for note in ranked.notes)


def test_the_map_has_the_colour_of_the_worst_fault_at_every_box_and_line(tmp_path):
    ranked = found()
    heat = {name: 100 * share for name, share in ranked.heat().items()}
    text = draw(
        read_topology(find_topology("h200-2x4-rail")), tmp_path / "map.svg", heat=Heat(heat, "%", "nothing runs")
    ).read_text()
    top = max(heat.values())
    for one in ranked.known:
        for mark in one.marks[0]:
            share = 100 * max(
                other.cost_s / ranked.base_s for other in ranked.known if any(mark in marks for marks in other.marks)
            )
            colour = to_hex(matplotlib.colormaps["cividis"](max(share, 0) / top))
            if "->" not in mark:
                assert re.search(rf'id="{re.escape(mark)}">\s*<path[^>]*fill: {colour}', text), mark
            elif "rail" in mark:
                low, high = sorted(mark.split("->"))
                assert re.search(rf'id="{re.escape(f"{low} - {high}")}">\s*<path[^>]*stroke: {colour}', text), mark
    assert re.search(rf'id="spines">\s*<path[^>]*fill: {Heat.UNKNOWN}', text)


def test_a_box_that_stands_for_a_node_has_the_worst_of_its_gpus(tmp_path):
    heat = Heat({"n0.gpu3": 1.0, "n0.gpu4": 8.0, "n19.gpu0": np.inf, "n1.gpu0": 5.0}, "%", "nothing runs")
    text = draw(read_topology(find_topology("h200-20x8-rail")), tmp_path / "map.svg", heat=heat).read_text()
    for node, colour in ((0, to_hex(matplotlib.colormaps["cividis"](1.0))), (19, Heat.BEYOND), (2, Heat.UNKNOWN)):
        assert re.search(rf'id="node {node}">\s*<path[^>]*fill: {colour}', text)
    assert "nothing runs" in text


def test_of_many_nodes_the_map_has_those_with_the_worst_faults(tmp_path):
    heat = Heat({"n7.gpu0": 3.0, "n12.gpu5->rail5.leaf": 9.0, "n17.gpu1": np.inf, "n2.gpu0": 0.0}, "%", "nothing runs")
    text = draw(read_topology(find_topology("h200-20x8-rail")), tmp_path / "map.svg", heat=heat).read_text()
    assert [int(node) for node in re.findall(r'id="node ([0-9]+)"', text)] == [0, 1, 2, 7, 12, 17, 19]
    assert [int(more) for more in re.findall(r"\.\.\. ([0-9]+) more", text)] == [4, 4, 4, 1]


def cost(what, places, how="simulated", time_s=None, bound=None, error=""):
    return RankedFault(
        what, places, {}, how, time_s, time_s and time_s - 1.0, None, bound, "", error, ((),) * len(places)
    )


def test_the_sentence_says_when_nothing_costs_anything_and_when_nothing_was_simulated():
    def of(*faults, pairs=()):
        return WhatBreaks("s", "the layer", 1.0, faults, len(faults), 1, 0, pairs, "", (), "").sentence()

    assert of(cost("dead NIC", ("n0.gpu0",), time_s=1.0001)) == (
        "No single fault that was simulated makes the layer 0.1 % longer."
    )
    assert of(cost("dead NIC", ("n0.gpu0",), "stops", error="x")).startswith("Nothing runs any more with a dead NIC")
    pair = PairCost("dead NIC at a", "dead NIC at b", 3.0, 2.0, 1.0, "")
    said = of(cost("dead NIC", ("a", "b", "c"), "alike", 1.5), cost("slow", ("d",), time_s=1.05), pairs=(pair,))
    assert "dead NIC at a and 2 alike, the layer 50.0 % longer" in said and "3 of 4 single faults cost 10 %" in said
    assert "Worst pair tried: dead NIC at a and dead NIC at b, 200.0 % longer" in said
