import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.errors import InputError
from moesim.placement import contiguous, moved_experts, place, worth
from moesim.placement_policies import BATCH_POLICIES, FIXED_POLICIES, POLICIES, SINGLE_SLOT_POLICIES
from tests.placement.recorded import LAYERS, TASKS, everywhere, halves, needs_recording, task
from tests.reference.eplb import published

REPLICATING = [policy for policy in POLICIES if policy not in SINGLE_SLOT_POLICIES]


def selections(n_experts, top_k=2, tokens=300, seed=0):
    rng = np.random.default_rng(seed)
    noise = rng.gumbel(size=(tokens, n_experts)) + rng.standard_normal(n_experts)
    return np.argsort(-noise, axis=1)[:, :top_k].astype(np.int32)


def rank_load(p, load):
    return np.bincount(p.slot_rank, weights=p.planned_slot_load(load), minlength=p.n_ranks)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(
    ("n_experts", "n_ranks", "n_nodes"), [(12, 4, 2), (13, 4, 2), (6, 8, 2), (10, 3, 1), (9, 6, 3)]
)
def test_every_policy_gives_every_expert_a_slot_and_ranks_as_many_slots(policy, n_experts, n_ranks, n_nodes):
    n_slots = n_experts if policy in SINGLE_SLOT_POLICIES else -(-n_experts // n_ranks) * n_ranks + n_ranks
    p = place(
        policy, expert_ids=selections(n_experts), n_experts=n_experts, n_slots=n_slots, n_ranks=n_ranks, n_nodes=n_nodes
    )
    assert set(p.slot_expert.tolist()) == set(range(n_experts))
    assert p.n_ranks == n_ranks
    if policy != "per_batch":  # what it does not fetch it does not place
        assert p.n_slots == n_slots
        assert np.ptp(np.bincount(p.slot_rank, minlength=n_ranks)) <= 1


@pytest.mark.parametrize("policy", [policy for policy in POLICIES if policy != "per_batch"])
def test_layers_are_placed_one_by_one(policy):
    ids = np.stack([selections(16, seed=seed) for seed in range(3)])
    on = {"n_experts": 16, "n_slots": 16 if policy in SINGLE_SLOT_POLICIES else 24, "n_ranks": 8, "n_nodes": 2}
    p = place(policy, expert_ids=ids, **on)
    for layer in range(3):
        alone = place(policy, expert_ids=ids[layer], **on)
        assert p.layer(layer).slot_expert.tolist() == alone.slot_expert.tolist()
        load = np.bincount(ids[layer].ravel(), minlength=16)
        assert rank_load(p.layer(layer), load) == pytest.approx(rank_load(alone, load))


@pytest.mark.parametrize("policy", [policy for policy in POLICIES if policy not in FIXED_POLICIES])
def test_a_policy_says_in_one_line_what_it_has_to_see(policy):
    with pytest.raises(InputError, match=f"{policy} needs to see") as refused:
        place(policy, n_experts=8, n_slots=8, n_ranks=4, n_nodes=2)
    assert "\n" not in refused.value.line()


def test_affinity_is_not_made_of_counts():
    with pytest.raises(InputError, match="affinity needs to see which experts a token selects together"):
        place("affinity", load=np.ones(8), n_experts=8, n_slots=8, n_ranks=4, n_nodes=2)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"policy": "best"}, "no policy 'best'"),
        ({"n_slots": 7}, "7 slots for 8 experts"),
        ({"policy": "greedy", "n_slots": 12}, "greedy places no replicas"),
        ({"policy": "contiguous", "moves": 4}, "contiguous knows no load to choose moves by"),
        ({"load": np.ones(7)}, "load has shape"),
        ({"load": -np.ones(8)}, "a value below 0"),
        ({"expert_ids": np.array([[0, 9]])}, "expert_ids has shape"),
        ({"expert_ids": np.array([[0.0, 1.0]])}, "expert_ids has shape"),
        ({"load": np.ones((2, 8)), "expert_ids": np.zeros((3, 1, 1), int)}, "loads of 2 layers, selections of 3"),
        ({"policy": "per_batch", "load": np.ones((2, 8))}, "per_batch plans one layer at a time"),
        ({"start": contiguous(4, 4)}, "a start of 4 experts on 4 ranks, not 8 on 4"),
        ({"start": contiguous(4, 4), "moves": 2}, "a start of 4 experts, a load of 8"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(change, what):
    good = {"policy": "eplb", "load": np.ones(8), "n_experts": 8, "n_slots": 8, "n_ranks": 4, "n_nodes": 2}
    with pytest.raises(InputError) as refused:
        place(**good | change)
    assert what in str(refused.value)


def test_the_hottest_experts_get_the_replicas_and_the_others_stay():
    load = np.array([1.0, 9, 2, 3, 8, 1, 1, 1])
    p = place("replicate_top", load=load, n_experts=8, n_slots=12, n_ranks=4, n_nodes=1)
    assert np.flatnonzero(p.replicas() == 2).tolist() == [1, 2, 3, 4]
    home = contiguous(8, 4)
    held = set(zip(p.slot_expert.tolist(), p.slot_rank.tolist(), strict=True))
    assert set(zip(home.slot_expert.tolist(), home.slot_rank.tolist(), strict=True)) <= held
    assert (9 / 2, 3) in [(9 / 2, rank) for expert, rank in held if expert == 1], "rank 3 had least"


def test_hierarchical_eplb_without_groups_takes_every_expert_for_a_group():
    load = np.random.default_rng(0).lognormal(size=16)
    on = {"load": load, "n_experts": 16, "n_slots": 24, "n_ranks": 8, "n_nodes": 2}
    assert place("eplb", **on).slot_expert.tolist() == place("eplb_global", **on).slot_expert.tolist()
    p = place("eplb_hierarchical", **on)
    node = p.slot_rank // 4
    assert all(len(set(node[p.slot_expert == expert])) == 1 for expert in range(16))
    assert (
        place("eplb", **on, n_groups=4).slot_expert.tolist()
        == place("eplb_hierarchical", **on, n_groups=4).slot_expert.tolist()
    )


def _inputs(rng):
    """A random or skewed load on a cluster whose counts divide."""
    n_nodes, per_node = rng.integers(1, 5, 2)
    n_ranks = int(n_nodes * per_node)
    n_groups = int(rng.integers(1, 5) * n_nodes if rng.random() < 0.7 else rng.integers(1, 9))
    n_experts = n_groups * int(rng.integers(1, 9))
    n_slots = -(-n_experts // n_ranks) * n_ranks + n_ranks * int(rng.integers(0, 4))
    skewed = (
        rng.random(n_experts), rng.lognormal(0, 1.5, n_experts), rng.integers(0, 100, n_experts),
        1 / rng.permutation(np.arange(1, n_experts + 1)), rng.pareto(1, n_experts) * 1e5,
    )  # fmt: skip
    return skewed[rng.integers(5)], n_slots, n_ranks, int(n_nodes), n_groups


@pytest.mark.parametrize("number", [400, pytest.param(10_000, marks=pytest.mark.slow)])
def test_eplb_never_has_a_fuller_rank_than_the_published_procedure(number):
    rng = np.random.default_rng(number)
    compared = 0
    for _ in range(number):
        load, n_slots, n_ranks, n_nodes, n_groups = _inputs(rng)
        if n_groups % n_nodes == 0 and len(load) // n_nodes > n_slots // n_nodes:
            continue
        theirs = np.array(published(load, n_slots, n_ranks, n_nodes, n_groups))
        shared = (load / np.bincount(theirs, minlength=len(load)))[theirs].reshape(n_ranks, -1).sum(axis=1)
        on = {"n_experts": len(load), "n_slots": n_slots, "n_ranks": n_ranks, "n_nodes": n_nodes, "n_groups": n_groups}
        ours = rank_load(place("eplb", load=load, **on), load).max()
        assert ours <= shared.max() * (1 + 1e-9)
        compared += 1
    assert compared > 0.9 * number


@given(st.integers(0, 10**6), st.sampled_from([p for p in REPLICATING if p != "per_batch"]))
@settings(max_examples=60, deadline=None)
def test_no_placement_beats_the_mean_and_shares_beat_even_ones(seed, policy):
    rng = np.random.default_rng(seed)
    load = rng.lognormal(sigma=1.5, size=12)
    ids = np.argsort(-(rng.gumbel(size=(200, 12)) + np.log(load)), axis=1)[:, :3].astype(np.int32)
    p = place(policy, load=load, expert_ids=ids, n_experts=12, n_slots=18, n_ranks=6, n_nodes=2)
    assert rank_load(p, load).max() >= load.sum() / 6 * (1 - 1e-9)
    assert rank_load(p, load).sum() == pytest.approx(load.sum())


def mean_worth(places, n_ranks, n_nodes, slots=64):
    """Worth on the second half of every task and layer of what ``places(task, layer, first half)`` gives."""
    node = np.arange(n_ranks) // (n_ranks // n_nodes)
    found = []
    for name, layer in everywhere():
        before, after = halves(name, layer)
        made = worth(places(name, layer, before), after, node)
        found.append([made.rank, made.batch, made.nodes_per_token])
    return np.mean(found, axis=0)


def on(n_ranks, n_nodes, slots=64):
    return {"n_experts": 64, "n_slots": slots, "n_ranks": n_ranks, "n_nodes": n_nodes}


@needs_recording
@pytest.mark.jit
@pytest.mark.parametrize(
    ("n_ranks", "n_nodes", "policy", "rank", "nodes"),
    [
        (16, 4, "contiguous", 1.86, 3.38),
        (16, 4, "greedy", 1.31, 3.36),
        (8, 2, "contiguous", 1.48, 1.98),
        (8, 2, "greedy", 1.09, 1.98),
    ],
)
def test_what_is_learnt_on_one_half_of_real_tasks_does_on_the_other_what_trials_gave(
    n_ranks, n_nodes, policy, rank, nodes
):
    found = mean_worth(
        lambda name, layer, before: place(policy, expert_ids=before, **on(n_ranks, n_nodes)), n_ranks, n_nodes
    )
    assert found[0] == pytest.approx(rank, rel=0.01) and found[2] == pytest.approx(nodes, rel=0.01)


@needs_recording
@pytest.mark.jit
@pytest.mark.parametrize(("n_ranks", "n_nodes", "less"), [(16, 4, 0.22), (8, 2, 0.14)])
def test_affinity_saves_nodes_per_token_on_tokens_that_it_has_not_seen(n_ranks, n_nodes, less):
    def affinity(name, layer, before):
        p = place("affinity", expert_ids=before, **on(n_ranks, n_nodes))
        load = np.bincount(before.ravel(), minlength=64)
        by_node = rank_load(p, load).reshape(n_nodes, -1).sum(axis=1)
        assert by_node.max() <= 1.05 * by_node.mean() * (1 + 1e-9)
        return p

    before = mean_worth(lambda *_: contiguous(64, n_ranks), n_ranks, n_nodes)[2]
    assert mean_worth(affinity, n_ranks, n_nodes)[2] <= (1 - less) * before


def others(name, layer):
    return np.concatenate([task(other, layer) for other in TASKS if other != name])


@needs_recording
@pytest.mark.jit
def test_balance_learnt_from_other_tasks_is_worth_no_more_than_none():
    stale = mean_worth(lambda name, layer, _: place("greedy", expert_ids=others(name, layer), **on(16, 4)), 16, 4)
    assert stale[0] == pytest.approx(1.90, rel=0.05)
    assert mean_worth(lambda *_: contiguous(64, 16), 16, 4)[0] == pytest.approx(1.86, rel=0.05)


@needs_recording
@pytest.mark.jit
@pytest.mark.parametrize(("policy", "rank", "nodes"), [("greedy", 1.02, None), ("affinity", 1.02, 1.02)])
def test_sixteen_moves_do_as_well_as_a_new_placement_when_the_task_changes(policy, rank, nodes):
    start = {(name, layer): place(policy, expert_ids=others(name, layer), **on(16, 4)) for name, layer in everywhere()}
    moved = []

    def few(name, layer, before):
        p = place(policy, expert_ids=before, moves=16, start=start[name, layer], **on(16, 4))
        moved.append(len(moved_experts(start[name, layer], p)))
        return p

    anew = mean_worth(lambda name, layer, before: place(policy, expert_ids=before, **on(16, 4)), 16, 4)
    found = mean_worth(few, 16, 4)
    assert max(moved) <= 16 and len(moved) == len(TASKS) * len(LAYERS)
    assert found[0] <= rank * anew[0]
    assert nodes is None or found[2] <= nodes * anew[2]


def test_the_policies_that_look_at_every_batch_are_policies():
    assert set(BATCH_POLICIES) <= set(REPLICATING)
