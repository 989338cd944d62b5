"""Whether another placement pays: judged on other tokens than it learnt from, moving priced."""

import functools
import json
import math

import numpy as np
import pytest

import moesim
from moesim.errors import InputError
from moesim.layer.parts import build_parts
from moesim.placement import break_even_steps, contiguous, expert_bytes, moves_between
from moesim.results import told_apart, whole
from moesim.run.placement_clock import blocking_s, drifting
from moesim.run.placement_verdict import place_verdict
from tests.run.small import EXPERTS, RANKS, scenario, small_recording

EXPERT = expert_bytes(1024, 256, "fp8")


@functools.cache
def verdict(*overrides, redundant=(0, 8)):
    return place_verdict(scenario(*overrides), redundant)


def options(found):
    return {one.name: one for one in found.options}


def test_every_policy_is_set_against_the_present_placement():
    found = options(verdict())
    assert next(iter(found)) == "contiguous" and found["contiguous"].saved.value == 0 and not found["contiguous"].apart
    assert set(found) == {
        "contiguous", "round_robin", "greedy", "eplb_global", "eplb_global, 8 redundant", "lp, 8 redundant",
        "replicate_top, 8 redundant", "per_batch, 8 redundant",
    }  # fmt: skip
    for one in verdict().options[1:]:
        assert one.saved.value == pytest.approx(1 - one.layer_time_s / found["contiguous"].layer_time_s)
        assert one.saved.low <= one.saved.value <= one.saved.high
        assert one.apart == (not one.saved.low <= 0 <= one.saved.high and abs(one.saved.value) > 1e-4)
        assert one.layers_time_s == pytest.approx(58 * one.layer_time_s)
        assert {"rank", "rank_itself", "rank_learnt", "node", "nodes_per_token"} == set(one.loads)


def test_a_run_of_the_learnt_placement_takes_what_the_verdict_says():
    learnt = ("placement.policy=eplb_global", "placement.learn_from=first_half")
    run = moesim.simulate(scenario(*learnt))
    one = options(verdict())["eplb_global"]
    # The verdict numbers the ranks so that few experts move, which changes no load and, on one node, no time.
    assert one.loads["rank"] == pytest.approx(run.summary["rank_load_max_over_mean"])
    assert one.layer_time_s == pytest.approx(run.summary["layer_time_s"], rel=0.02)


def test_the_interval_is_that_of_the_difference_between_two_runs_of_one_cluster():
    runs = [moesim.simulate(scenario(*more)) for more in ((), ("placement.policy=round_robin",))]
    one = options(verdict())["round_robin"]
    bands = [run.explanation["band"] for run in runs]
    ratio = runs[1].summary["layer_time_s"] / runs[0].summary["layer_time_s"]
    # The verdict numbers the ranks so that few experts move.
    assert one.saved.value == pytest.approx(1 - ratio, abs=5e-4)
    assert one.apart == (told_apart(*bands, "layer_time_s", 1 - one.saved.value) and abs(one.saved.value) > 1e-4)
    alone = runs[1].intervals["layer_time_s"]
    assert one.saved.high - one.saved.low < (alone[1] - alone[0]) / runs[0].summary["layer_time_s"]


def test_moving_costs_the_fixed_time_and_the_bytes_and_is_paid_by_what_is_saved():
    before = options(verdict())["contiguous"]
    for one in verdict().options[1:]:
        if one.policy == "per_batch":
            assert one.moves == 0 and not one.migration_s  # nothing moves for good
            continue
        assert one.moved_bytes == pytest.approx(58 * one.moves * EXPERT)
        assert 58 * 10e-3 < one.migration_s["blocking"] < 58 * (10e-3 + one.moves * EXPERT / 200e9 + 10e-6)
        saved_s = before.layers_time_s - one.layers_time_s
        steps = break_even_steps(one.migration_s["blocking"], saved_s)
        assert one.break_even_steps["blocking"] == (steps and pytest.approx(steps))
        assert (steps is None) == (one.saved.value <= 0)
    moving = [one for one in verdict().options[1:] if one.migration_s]
    fastest = min(moving, key=lambda one: one.layer_time_s)
    assert [one for one in moving if "async" in one.migration_s] == [fastest]
    assert fastest.migration_s["async"] >= 58 * 1.5e-3 * (1 - 1e-9)


def test_break_even_by_hand_is_that_of_the_simulated_migration():
    parts = build_parts(moesim.load_scenario("deepseek-v3-prefill-ep64"))
    old = contiguous(320, 64)
    new = type(old)(old.slot_expert, ((old.slot_rank + 8) % 64).astype(np.int32), 64)
    moves = moves_between(old, new, parts.fabric.rank_node)
    layer_s = blocking_s(parts, moves, fixed_s=0.0)
    assert layer_s == pytest.approx(5.1e-3, rel=0.02)  # five experts into every rank at 43 GB/s
    assert break_even_steps(58 * layer_s, 58 * 0.3e-3) == pytest.approx(17, rel=0.02)
    assert blocking_s(parts, moves) == pytest.approx(10e-3 + layer_s)
    assert blocking_s(parts, moves_between(old, old, parts.fabric.rank_node)) == 0


def test_a_load_that_drifts_pays_later_or_never():
    cost, saved, drift = 0.3, 1e-3, 1000.0
    steps = drifting(cost, saved, drift)
    assert steps > break_even_steps(cost, saved)
    at = np.arange(int(steps) + 1)
    assert saved * np.exp(-(at + 0.5) / drift).sum() == pytest.approx(cost, rel=0.01)
    assert drifting(1.0, saved, drift) is None  # all that is ever saved is 1 s
    assert drifting(cost, saved, 1e9) == pytest.approx(300, rel=1e-3)
    assert drifting(cost, -saved, drift) is None


def test_redundant_slots_are_paid_on_every_gpu_in_every_layer():
    found = options(verdict())
    assert found["eplb_global"].hbm_bytes == 0
    assert found["eplb_global, 8 redundant"].hbm_bytes == 8 * EXPERT * 58
    assert found["eplb_global, 8 redundant"].hbm_bytes_per_rank == 8 * EXPERT * 58 / RANKS
    assert found["per_batch, 8 redundant"].hbm_bytes == 8 * EXPERT  # room for one layer's


def test_weights_fetched_for_a_batch_are_waited_for():
    slow = options(verdict("model.expert_hidden=4096"))
    assert slow["per_batch, 8 redundant"].loads["rank"] < slow["contiguous"].loads["rank"]
    fetched = moesim.simulate(scenario("placement.policy=per_batch", "placement.redundant_experts=8"))
    moved = fetched.tables["migrations"]
    assert (moved.lane == "weights").all() and (moved.wire_bytes == moved.moves * EXPERT).all()
    spans = fetched.tables["spans"]
    for layer, of_layer in spans.groupby("layer"):
        there = of_layer[of_layer.phase == "weights"].set_index("rank").end_s
        begun = of_layer[of_layer.phase == "expert_compute"].set_index("rank").start_s
        gate = of_layer[of_layer.phase == "gate"].set_index("rank").end_s
        left = of_layer[of_layer.phase == "weights"].set_index("rank").start_s
        assert (begun >= there - 1e-12).all() and (left >= gate - 1e-12).all(), layer


def test_the_same_tokens_for_both_are_marked_in_the_verdict():
    same = verdict("placement.learn_from=batch")
    assert same.same and same.sentence().startswith("Learnt and judged on the same tokens, so at most: ")
    assert not verdict().same and not verdict().sentence().startswith("Learnt")
    for one in same.options[1:]:
        if one.policy == "eplb_global":
            assert one.loads["rank"] <= options(verdict())[one.name].loads["rank"] + 0.02


def test_a_recording_is_learnt_from_its_first_half_and_judged_on_the_second(tmp_path):
    path = small_recording(tmp_path / "small.npz")
    found = place_verdict(scenario(workload={"recording": {"name": str(path)}, "tokens_per_rank": 8}), [0])
    assert found.learnt_from == "the first half of the recorded tokens" and found.judged_on == "the second half"
    assert found.ageing.said.startswith("How long a placement stays good is not known") and not found.ageing.curves
    assert found.drift_steps == 1000 and any("synthetic drift" in note for note in found.notes)


def test_counts_of_one_step_have_no_halves(tmp_path):
    rows = ["layer,expert,count", *(f"0,{expert},{100 + 40 * expert}" for expert in range(EXPERTS))]
    (tmp_path / "counts.csv").write_text("\n".join(rows))
    counted = scenario(
        workload={"counts": str(tmp_path / "counts.csv"), "tokens_per_rank": 64}, routing={"groups": 1, "top_k": 4}
    )
    found = place_verdict(counted, [0])
    assert found.same and "no halves" in found.learnt_from
    assert options(found)["greedy"].loads["rank"] < options(found)["contiguous"].loads["rank"]


def test_affinity_and_its_frontier_are_there_on_several_nodes():
    found = verdict("cluster.topology=h800-8x8-rail", "parallel.ep=16", redundant=(0,))
    assert "affinity" in options(found)
    load, nodes = map(np.array, zip(*found.frontier, strict=True))
    assert nodes[-1] <= nodes[0] and load[0] <= load[-1] and (nodes >= 1).all() and (nodes <= 2).all()
    assert not verdict().frontier


def test_the_verdict_is_plain_data_and_says_the_same_again():
    again = place_verdict(scenario(), (0, 8))
    text = json.dumps(again.to_json(), allow_nan=False)
    assert json.loads(text) == json.loads(json.dumps(verdict().to_json()))
    best = verdict().best
    assert json.loads(text)["best"] == (best and best.name)


def test_steps_are_said_so_that_what_is_said_holds():
    for steps in (0.3, 1.0, 7.2, 17.01, 256.4, 2941.0, 123_456.0):
        said = float(whole(steps).replace(",", ""))
        assert steps <= said <= max(1.11 * steps, math.ceil(steps))


def test_slots_that_the_ranks_do_not_divide_are_refused():
    with pytest.raises(InputError, match=r"35 slots .* over 8 ranks"):
        place_verdict(scenario(), [3])
