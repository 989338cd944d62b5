import numpy as np
import pytest

from moesim import load_scenario
from moesim.dumps import RoutingTrace, write_routing
from moesim.dumps.routing_trace import Source
from moesim.errors import InputError
from moesim.layer import (
    build_parts,
    open_workload,
    place,
    route_layer,
    see,
    what_follows,
    window,
    with_learnt_placement,
)

# 8 sequences of 16 tokens: the first four select experts 0 to 7 alone, the last four 8 to 15 alone.
RNG = np.random.default_rng(0)
EARLY = np.stack([RNG.permutation(8)[:2] for _ in range(64)])
IDS = np.concatenate([EARLY, 8 + EARLY])[None].repeat(2, axis=0).astype(np.int32)
SEQUENCE = np.repeat(np.arange(8), 16).astype(np.int32)


def trace(folder, **changes):
    made = {"ids": IDS, "sequence": SEQUENCE, "top_k": 2} | changes
    write_routing(folder / "trace.npz", RoutingTrace("ids", (3, 4), 16, Source("tests", "by rule"), **made))
    return folder / "trace.npz"


def scenario(file, **placement):
    return load_scenario(
        {
            "cluster": {"topology": "h800-2x8-rail"},
            "parallel": {"ep": 8},
            "model": {"preset": "deepseek-v3", "n_experts": 16, "hidden": 256, "expert_hidden": 128},
            "routing": {"kind": "v1", "top_k": 2, "groups": 1, "top_groups": 1},
            "workload": {"routing": str(file), "tokens_per_rank": 4},
            "placement": placement,
        }
    )


def opened(file, **placement):
    parts = build_parts(scenario(file, **placement))
    return parts, open_workload(parts)


def experts(batch):
    return set(batch.expert_ids[3][batch.token_index].ravel().tolist())


def test_a_run_draws_from_what_its_placement_has_not_learnt(tmp_path):
    parts, workload = opened(trace(tmp_path), policy="eplb", learn_from="first_half")
    assert experts(workload.batch(0)) == set(range(8, 16))
    past = see(window(workload, "first_half"))(3)
    assert past.load.tolist() == np.bincount(EARLY.ravel(), minlength=16).tolist()
    assert len(past.expert_ids) == 64
    future = see(what_follows(workload, "first_half"))(4)
    assert future.load.tolist() == np.bincount(8 + EARLY.ravel(), minlength=16).tolist()
    placed = with_learnt_placement(parts, lambda: workload).placement_map
    assert placed.layers == (3, 4)
    assert placed.layer(0).slot_expert.tolist() == place(parts, past.load, past.expert_ids).slot_expert.tolist()


def test_contiguous_can_be_judged_on_the_same_tokens(tmp_path):
    parts, workload = opened(trace(tmp_path), learn_from="first_half")
    assert experts(workload.batch(0)) == set(range(8, 16))
    assert with_learnt_placement(parts, lambda: workload) is parts


def test_halves_are_cut_between_sequences(tmp_path):
    sequence = np.repeat([0, 1, 2], [40, 30, 58]).astype(np.int32)
    _, workload = opened(trace(tmp_path, sequence=sequence), learn_from="first_half")
    past = see(window(workload, "first_half"))(3).expert_ids
    assert len(past) == 70 // 8 * 8, "70 tokens, and every rank has as many"


def test_tokens_of_mixed_sequences_are_cut_in_the_middle(tmp_path):
    _, workload = opened(trace(tmp_path, sequence=np.arange(128, dtype=np.int32) % 3), learn_from="first_half")
    assert see(window(workload, "first_half"))(3).load[8:].sum() == 0


@pytest.mark.parametrize(("learn_from", "tokens"), [("all", 128), ("first_half", 64)])
def test_all_is_everything_that_was_recorded(tmp_path, learn_from, tokens):
    _, workload = opened(trace(tmp_path), policy="eplb", learn_from=learn_from)
    assert len(see(window(workload, learn_from))(3).expert_ids) == tokens


def test_without_a_window_the_batch_itself_is_learnt_from(tmp_path):
    for learn_from in ({}, {"learn_from": "batch"}):
        parts, workload = opened(trace(tmp_path), policy="greedy", **learn_from)
        assert with_learnt_placement(parts, lambda w=workload: w) is parts
        batch = workload.batch(0)
        routed = route_layer(parts, batch, 3, None)
        by_itself = place(parts, routed.expert_tokens, batch.expert_ids[3])
        assert routed.placement.slot_expert.tolist() == by_itself.slot_expert.tolist()


def test_a_file_can_be_learnt_from(tmp_path):
    (tmp_path / "other").mkdir()
    other = trace(tmp_path / "other", ids=IDS[:, ::-1].copy() * 0 + np.array([5, 6], np.int32))
    parts, workload = opened(trace(tmp_path), policy="replicate_top", redundant_experts=8, learn_from=str(other))
    placed = with_learnt_placement(parts, lambda: workload).placement_map.layer(0)
    assert (placed.replicas()[[5, 6]] > 1).all()
    assert experts(workload.batch(0)) == set(range(8)), "the run's own tokens are all there"


def test_counts_of_steps_have_halves_and_are_learnt_from_exactly(tmp_path):
    counts = np.ones((4, 1, 16), np.int64)
    counts[:2, 0, 3], counts[2:, 0, 9] = 10, 10
    path = tmp_path / "counts.npz"
    write_routing(path, RoutingTrace("counts", (3,), 16, Source("tests", "by rule"), top_k=2, counts=counts))
    _, workload = opened(path, policy="eplb", learn_from="first_half")
    assert see(window(workload, "first_half"))(3).load.argmax() == 3
    assert see(what_follows(workload, "first_half"))(3).load.tolist() == counts[2:, 0].sum(axis=0).tolist()


def test_a_file_without_the_layer_is_refused(tmp_path):
    (tmp_path / "other").mkdir()
    path = tmp_path / "other" / "one.npz"
    write_routing(path, RoutingTrace("ids", (7,), 16, Source("tests", "by rule"), ids=IDS[:1], top_k=2))
    parts, workload = opened(trace(tmp_path), policy="eplb", learn_from=str(path))
    with pytest.raises(InputError, match="no layer 3 to learn from"):
        with_learnt_placement(parts, lambda: workload)


def synthetic(**placement):
    return load_scenario(
        {
            "cluster": {"topology": "h800-2x8-rail"},
            "model": {"preset": "deepseek-v3", "n_experts": 32, "hidden": 256, "expert_hidden": 128},
            "routing": {"kind": "v1", "top_k": 4, "groups": 1, "top_groups": 1},
            "workload": {"synthetic": {"kind": "lognormal", "sigma": 1.0}, "tokens_per_rank": 64},
            "placement": placement,
        }
    )


def test_of_synthetic_tokens_others_of_the_same_popularity_are_learnt_from():
    parts = build_parts(synthetic(policy="eplb", learn_from="first_half"))
    workload = open_workload(parts)
    batch = workload.batch(0)
    past = see(window(workload, "first_half"))(0)
    own = see(workload)(0)
    assert np.array_equal(batch.logits[0], open_workload(build_parts(synthetic())).batch(0).logits[0])
    assert not np.array_equal(past.load, own.load)
    assert np.corrcoef(past.load, own.load)[0, 1] > 0.95


@pytest.mark.parametrize("policy", ["lp", "per_batch"])
def test_policies_that_look_at_every_batch_even_out_what_they_see(policy):
    parts = build_parts(synthetic(policy=policy, redundant_experts=16, learn_from="first_half"))
    workload = open_workload(parts)
    parts = with_learnt_placement(parts, lambda: workload)
    batch = workload.batch(0)
    known = None if parts.placement_map is None else parts.placement_map.for_layer(0)
    assert (known is None) == (policy == "per_batch")
    routed = route_layer(parts, batch, 0, None, known)
    planned = np.bincount(
        routed.placement.slot_rank, routed.placement.planned_slot_load(routed.expert_tokens), minlength=16
    )
    without = place(build_parts(synthetic(policy="greedy")), routed.expert_tokens, np.zeros((1, 4), np.int32))
    greedy = np.bincount(without.slot_rank, routed.expert_tokens[without.slot_expert], minlength=16)
    assert planned.max() <= greedy.max() * (1 + 1e-9)
    assert routed.slot_tokens.sum() == routed.expert_tokens.sum()
