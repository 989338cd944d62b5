"""Policies that learn from the past and are judged on what follows, in studies and in runs."""

import numpy as np
import pytest

from moesim import simulate
from moesim.dumps import RoutingTrace, write_routing
from moesim.dumps.routing_trace import Source
from moesim.errors import InputError
from moesim.layer import build_parts, replica_seed
from moesim.placement import place, worth
from moesim.placement_policies import POLICIES, SINGLE_SLOT_POLICIES
from moesim.run.placement_study import map_of, study
from tests.run.small import scenario

V1 = {"kind": "v1", "top_k": 4, "groups": 1}


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    """2,048 tokens of 32 experts in two layers; popularity turns in the middle."""
    rng = np.random.default_rng(0)
    popular = rng.standard_normal((2, 2, 1, 32)).repeat(1024, axis=2).reshape(2, 2048, 32)
    ids = np.argsort(-(popular + rng.gumbel(size=popular.shape)), axis=2)[:, :, :4].astype(np.int32)
    path = tmp_path_factory.mktemp("trace") / "trace.npz"
    write_routing(path, RoutingTrace("ids", (1, 2), 32, Source("tests", "by rule"), top_k=4, ids=ids))
    return path, ids


def of(trace, **placement):
    return scenario(workload={"routing": str(trace[0]), "tokens_per_rank": 16}, routing=V1, placement=placement)


def test_every_policy_is_judged_on_every_layer_of_the_half_that_it_has_not_seen(trace):
    rows = study(of(trace))
    assert {row["policy"] for row in rows} == set(POLICIES)
    ids, seed = trace[1], replica_seed(build_parts(of(trace)))
    for row in rows:
        assert [layer["layer"] for layer in row["layers"]] == [1, 2]
        if row["policy"] in ("lp", "per_batch"):
            assert row["batches"] == 2 and row["on_a"] is None
            continue
        on = {"n_experts": 32, "n_slots": row["slots"], "n_ranks": 8, "n_nodes": 1}
        for i, layer in enumerate(row["layers"]):
            if row["policy"] != "random":  # drawn from the scenario's seed
                learnt = place(row["policy"], expert_ids=ids[i, :1024], **on)
                assert row["placement"].layer(i).slot_expert.tolist() == learnt.slot_expert.tolist()
            expected = vars(worth(row["placement"].layer(i), ids[i, 1024:], np.zeros(8, int), seed=seed))
            assert {name: layer[name] for name in expected} == pytest.approx(expected)
        if row["policy"] != "random":
            by_itself = [place(row["policy"], expert_ids=ids[i, 1024:], **on) for i in range(2)]
            ranks = [worth(p, ids[i, 1024:], np.zeros(8, int), seed=seed).rank for i, p in enumerate(by_itself)]
            assert row["on_b_itself"]["rank"] == pytest.approx(np.mean(ranks))


def test_what_was_learnt_before_popularity_turned_looks_good_on_its_own_half_alone(trace):
    row = study(of(trace), policies=["greedy"])[0]
    assert row["on_a"]["rank"] < 1.05 and row["on_b_itself"]["rank"] < 1.05 < 1.3 < row["on_b"]["rank"]
    same = study(of(trace, learn_from="batch"), policies=["greedy"])[0]
    assert same["on_b"] == same["on_a"] == same["on_b_itself"]


def test_slots_and_moves_are_the_callers(trace):
    rows = study(of(trace, moves=2), policies=["eplb", "greedy", "contiguous"], slots=[40, 48])
    assert [(row["policy"], row["slots"]) for row in rows] == [
        ("eplb", 40), ("eplb", 48), ("greedy", 32), ("contiguous", 32)
    ]  # fmt: skip
    assert all(row["moves"] <= 2 for row in rows)
    assert all(row["policy"] in SINGLE_SLOT_POLICIES or row["placement"].n_slots == row["slots"] for row in rows)


def test_a_run_places_by_the_past_and_says_where_it_draws_from(trace):
    result = simulate(of(trace, policy="greedy", learn_from="first_half"))
    _, ids = trace
    expected = place("greedy", expert_ids=ids[0, :1024], n_experts=32, n_slots=32, n_ranks=8, n_nodes=1)
    experts = result.tables["experts"].query("layer == 0").sort_values("slot")
    assert experts["expert"].tolist() == expected.slot_expert.tolist()
    texts = [note.text for note in result.notes]
    assert any("the second half of the recorded tokens" in text for text in texts)
    assert not any("places by the very batch" in text for text in texts)
    by_batch = simulate(of(trace, policy="greedy"))
    assert any("greedy places by the very batch that it is judged on" in note.text for note in by_batch.notes)
    assert by_batch.summary["rank_load_max_over_mean"] < result.summary["rank_load_max_over_mean"]


def test_the_map_of_a_scenario_is_what_its_run_has(trace):
    asked = of(trace, policy="eplb", redundant_experts=8, learn_from="first_half")
    made = map_of(asked)
    experts = simulate(asked).tables["experts"]
    for i in range(2):
        held = experts.query("layer == @i").sort_values("slot")["expert"]
        assert made.layer(i).slot_expert.tolist() == held.tolist()
    with pytest.raises(InputError, match="has no map"):
        map_of(of(trace, policy="per_batch", redundant_experts=8))
