"""Rebalancing in a run: when experts are placed anew, whose weights move, what that costs, and that nothing is lost."""

import functools

import pytest

import moesim
from moesim.errors import InputError
from moesim.layer.parts import build_parts
from moesim.layer.token_batches import open_workload
from moesim.placement import expert_bytes, moves_between
from moesim.run.routed_steps import route_steps
from tests.run.small import EXPERTS, RANKS, scenario

EXPERT = expert_bytes(1024, 256, "fp8")
STEPS = 7


def overrides(mode, *more, every=2, fixed="20us"):
    rebalance = f"{{every: {every}, policy: eplb_global, mode: {mode}, fixed_time: {fixed}}}"
    drifting = ("workload.steps=7", "workload.layers_simulated=3", "placement.policy=eplb_global")
    return (*drifting, "placement.redundant_experts=8", f"placement.rebalance={rebalance}", *more)


@functools.cache
def run(mode, *more):
    return moesim.simulate(scenario(*overrides(mode, *more)))


@functools.cache
def routed(mode, *more):
    parts = build_parts(scenario(*overrides(mode, *more)))
    return parts, list(route_steps(parts, map(open_workload(parts).batch, range(STEPS))))


def table(result, name="migrations"):
    return result.tables[name]


@pytest.mark.parametrize("mode", ["blocking", "layerwise"])
def test_experts_are_placed_by_the_load_seen_and_all_weights_move_in_the_step_that_first_uses_them(mode):
    parts, steps = routed(mode)
    for index, step in enumerate(steps):
        anew = index > 0 and index % 2 == 0
        assert bool(step.moves) == anew
        for layer, one in step.layers.items():
            before = steps[index - 1].layers[layer].placement if index else one.placement
            if not anew:
                assert one.placement is before
                continue
            missing = moves_between(before, one.placement, parts.fabric.rank_node)
            for simulated in range(3):
                if list(step.layers)[simulated % len(step.layers)] == layer and len(missing):
                    moved = next(move for move in step.moves if move.layer == simulated)
                    assert (moved.moves.expert == missing.expert).all() and not moved.beside


def test_an_asynchronous_layer_keeps_its_placement_until_its_weights_are_there():
    _, steps = routed("async")
    travelled = set()
    for index, step in enumerate(steps):
        beside = [move for move in step.moves if move.beside]
        stops = [move for move in step.moves if not move.beside]
        assert len(beside) <= 1 and all(len(move.moves) == 0 for move in stops)
        if index:
            gone = [move.layer for move in steps[index - 1].moves if move.beside]
            assert [move.layer for move in stops] == gone  # what came in the last step is taken over in this
            travelled |= set(gone)
        for layer, one in step.layers.items():
            if index and one.placement is not steps[index - 1].layers[layer].placement:
                stands_for = {i for i in range(3) if list(step.layers)[i % len(step.layers)] == layer}
                assert stands_for <= travelled
    assert travelled


@pytest.mark.parametrize("mode", ["blocking", "layerwise", "async"])
def test_the_bytes_moved_are_those_of_the_experts_moved(mode):
    moved = table(run(mode))
    assert len(moved) and (moved.wire_bytes == moved.moves * EXPERT).all()
    assert (moved.nvlink_wire_bytes == moved.wire_bytes).all() and (moved.nic_wire_bytes == 0).all()
    assert (moved.end_s - moved.start_s >= moved.lower_bound_s + moved.fixed_s - 1e-12).all()
    assert run(mode).explanation["rebalance"]["expert_bytes"] == EXPERT
    memory = run(mode).explanation["rebalance"]
    assert memory["redundant_bytes"] == 8 * EXPERT * 58 == RANKS * memory["redundant_bytes_per_rank"]


def test_blocking_moves_all_layers_before_the_first_and_layerwise_each_before_its_own():
    for mode in ("blocking", "layerwise"):
        result = run(mode)
        moved, spans = table(result), table(result, "spans")
        for row in moved.itertuples():
            here = spans[(spans.step == row.step) & ~spans.phase.isin(["migration", "weights"])]
            layer = 0 if mode == "blocking" else row.layer
            assert row.end_s <= here[here.layer == layer].groupby("rank").start_s.min().max() + 1e-12
            if mode == "layerwise" and row.layer:
                before = here[here.layer == row.layer - 1]
                assert row.start_s >= before.groupby("rank").end_s.max().min() - 1e-12


def test_what_a_migration_takes_is_in_the_step_and_in_its_terms():
    for mode in ("blocking", "layerwise"):
        result = run(mode)
        terms = {term["name"]: term for term in result.explanation["terms"]["step_time_s"]}
        parts = {term["name"]: term["value"] for term in terms["migration"]["terms"]}
        moved = table(result)
        assert sum(parts.values()) == pytest.approx(terms["migration"]["value"], rel=1e-9)
        assert parts["fixed time"] == pytest.approx(moved.fixed_s.sum() / STEPS)
        assert parts["weights on the wires"] > 0
        assert sum(term["value"] for term in terms.values()) == pytest.approx(result.summary["step_time_s"], rel=1e-9)
        assert (
            result.summary["step_time_s"]
            > moesim.simulate(scenario(*overrides(mode, every=STEPS))).summary["step_time_s"]
            + 0.9 * moved.fixed_s.sum() / STEPS
        )


def test_weights_beside_the_tokens_slow_them_down_and_stop_nobody_but_for_the_fixed_time():
    # Late weights of a large expert: bytes that take as long as a layer.
    big = ("model.expert_hidden=8192", "workload.layers_simulated=6")
    beside, stopped = run("async", *big), run("blocking", *big)
    moved = table(beside)
    steps = table(beside, "steps").groupby("step").layer_time_s.mean()
    quiet = table(moesim.simulate(scenario(*overrides("async", *big, every=STEPS))), "steps")
    same = quiet.groupby("step").layer_time_s.mean()
    first = int(moved[moved.lane == "weights"].step.min())
    assert steps[first - 1] == same[first - 1] and steps[first] > same[first]  # the placement is still the old one
    assert beside.summary["step_time_s"] < stopped.summary["step_time_s"]
    terms = {term["name"]: term for term in beside.explanation["terms"]["step_time_s"]}
    inside = {term["name"]: term["value"] for term in terms["migration"]["terms"]}
    assert inside["weights on the wires"] == pytest.approx(0.0, abs=1e-12)


def test_a_migration_simulated_takes_what_the_closed_form_says_so_it_pays_after_as_many_steps():
    result = run("blocking")
    moved = table(result)
    # On one node with nothing else on the wires: the fixed time, the busiest port's bytes, and the route's latency.
    first = moved[moved.layer == moved.layer.min()]
    took = (first.end_s - first.start_s - first.fixed_s).to_numpy()
    late = took - first.lower_bound_s
    assert (late > 0).all() and (late < 5e-6).all()


def test_without_a_rebalance_that_falls_due_nothing_moves_and_that_is_said():
    quiet = moesim.simulate(scenario(*overrides("blocking", every=STEPS)))
    assert "migrations" not in quiet.tables
    assert any("nothing moves" in note.text for note in quiet.notes)
    assert not any(term["name"] == "migration" for term in quiet.explanation["terms"]["step_time_s"])


def test_the_fixed_time_is_said_with_its_published_range():
    (said,) = [note for note in run("blocking").notes if "a rearrangement takes" in note.text]
    assert said.kind == "estimated" and "20 us" in said.text and "1 ms to 1 s" in said.text


def test_the_same_seed_gives_the_same_migrations():
    again = moesim.simulate(scenario(*overrides("async")))
    assert again.tables["migrations"].equals(run("async").tables["migrations"])


def test_slots_that_the_ranks_do_not_divide_are_refused_before_the_first_step():
    with pytest.raises(InputError, match=r"35 slots .* over 8 ranks"):
        moesim.simulate(scenario("placement.redundant_experts=3", "placement.rebalance={every: 2}", "workload.steps=3"))
    assert EXPERTS == 32
