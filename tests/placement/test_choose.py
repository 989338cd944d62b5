import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.errors import InputError
from moesim.placement import Placement, contiguous
from tests.reference.replica import hashed, nearest_table, replicas_of

POLICIES = ("same_node", "round_robin", "hash")


@st.composite
def placements(draw):
    """Placements with any number of replicas anywhere, several of one expert on one rank included."""
    n_experts, extra, n_ranks = draw(st.integers(1, 6)), draw(st.integers(0, 10)), draw(st.integers(1, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    slot_expert = np.concatenate([np.arange(n_experts), rng.integers(0, n_experts, extra)])
    return Placement(rng.permutation(slot_expert), rng.integers(0, n_ranks, len(slot_expert)), n_ranks)


def every_source_and_expert(p):
    """One token per rank that selects every expert once."""
    return np.tile(np.arange(p.n_experts), (p.n_ranks, 1)), np.arange(p.n_ranks)


@given(placements(), st.integers(1, 4), st.integers(0, 2**40), st.sampled_from(POLICIES))
@settings(max_examples=60, deadline=None)
def test_a_selection_takes_a_replica_of_its_expert_and_a_dropped_one_stays_dropped(p, per_node, seed, policy):
    rng = np.random.default_rng(1)
    ids = rng.integers(-1, p.n_experts, (20, 3))
    slots = p.choose(ids, rng.integers(0, p.n_ranks, 20), per_node, policy, seed)
    assert slots.dtype == np.int32
    assert slots.shape == ids.shape
    assert (np.where(ids < 0, -1, p.slot_expert[slots]) == ids).all()
    assert (slots[ids < 0] == -1).all()


@given(placements(), st.integers(1, 4), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_same_node_equals_the_plain_reference(p, per_node, seed):
    ids, sources = every_source_and_expert(p)
    table = nearest_table(p.slot_expert.tolist(), p.slot_rank.tolist(), p.n_ranks, per_node, seed)
    got = p.choose(ids, sources, per_node, "same_node", seed)
    want = [[table[rank, expert] for expert in range(p.n_experts)] for rank in range(p.n_ranks)]
    assert got.tolist() == want


@given(placements(), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_same_node_leaves_a_rank_or_a_node_only_if_it_holds_no_replica(p, per_node):
    ids, sources = every_source_and_expert(p)
    got = p.slot_rank[p.choose(ids, sources, per_node)]
    for rank in range(p.n_ranks):
        for expert in range(p.n_experts):
            held_at = p.slot_rank[p.slot_expert == expert]
            if rank in held_at:
                assert got[rank, expert] == rank
            elif rank // per_node in held_at // per_node:
                assert got[rank, expert] // per_node == rank // per_node


@given(placements(), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_a_replica_that_serves_far_ranks_serves_no_more_than_one_above_the_least_busy(p, per_node):
    ids, sources = every_source_and_expert(p)
    chosen = p.choose(ids, sources, per_node)
    for expert in range(p.n_experts):
        replicas = replicas_of(p.slot_expert.tolist(), expert)
        served = {slot: int((chosen[:, expert] == slot).sum()) for slot in replicas}
        nodes = {p.slot_rank[slot] // per_node for slot in replicas}
        far = {int(chosen[r, expert]) for r in range(p.n_ranks) if r // per_node not in nodes}
        assert all(served[slot] <= min(served.values()) + 1 for slot in far)


def test_own_rank_then_own_node_then_elsewhere():
    # expert 0 in slots 0 (rank 0, node 0) and 3 (rank 3, node 1); two ranks a node
    p = Placement(np.array([0, 1, 2, 0]), np.arange(4))
    ids = np.array([[0, 1], [0, 2], [0, -1]])
    assert p.choose(ids, np.array([1, 2, 3]), 2).tolist() == [[0, 1], [3, 2], [3, -1]]


def test_far_ranks_share_the_replicas_of_another_node():
    # expert 0 has both replicas on node 0, which has ranks 0 to 3; the twelve ranks of nodes 1 to 3 are far
    p = Placement(np.array([0, 0, 1]), np.array([0, 1, 2]), n_ranks=16)
    chosen = p.choose(np.zeros((16, 1), int), np.arange(16), 4)[:, 0]
    assert chosen[:2].tolist() == [0, 1]
    assert sorted(chosen[2:4].tolist()) == [0, 1], "the other two ranks of the node take one each"
    assert [(chosen[4 * node : 4 * node + 4] == 0).sum() for node in (1, 2, 3)] == [2, 2, 2]


def test_all_policies_agree_where_no_expert_has_a_second_replica():
    p = contiguous(258, 64)
    rng = np.random.default_rng(0)
    ids, ranks = rng.integers(0, 258, (50, 8)), rng.integers(0, 64, 50)
    for policy in POLICIES:
        assert p.choose(ids, ranks, 8, policy, seed=3).tolist() == ids.tolist()


@pytest.mark.parametrize("n_replicas", [2, 3, 5])
def test_round_robin_gives_every_replica_its_turn(n_replicas):
    p = Placement(np.zeros(n_replicas, int), np.arange(n_replicas))
    slots = p.choose(np.zeros((31, 1), int), np.zeros(31, int), 1, "round_robin", seed=1)[:, 0]
    assert slots.tolist() == [(t + 1) % n_replicas for t in range(31)]
    assert np.ptp(np.bincount(slots, minlength=n_replicas)) <= 1


@given(placements(), st.integers(0, 2**31 - 1), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_hash_equals_the_plain_reference(p, seed, first_token):
    ids = np.tile(np.arange(p.n_experts), (6, 1))
    got = p.choose(ids, np.zeros(6, int), 1, "hash", seed, first_token)
    experts = p.slot_expert.tolist()
    want = [[hashed(experts, e, first_token + t, seed) for e in range(p.n_experts)] for t in range(6)]
    assert got.tolist() == want


@pytest.mark.parametrize("n_replicas", [2, 3, 8])
def test_hash_shares_the_tokens_evenly_and_independently_for_each_expert(n_replicas):
    p = Placement(np.repeat([0, 1], n_replicas), np.zeros(2 * n_replicas, int))
    n_tokens = 4000
    slots = p.choose(np.tile([0, 1], (n_tokens, 1)), np.zeros(n_tokens, int), 1, "hash", seed=11)
    pairs = np.bincount(slots[:, 0] * n_replicas + slots[:, 1] - n_replicas, minlength=n_replicas**2)
    mean = n_tokens / n_replicas**2
    chi_square, freedom = ((pairs - mean) ** 2 / mean).sum(), n_replicas**2 - 1
    assert abs(chi_square - freedom) < 4 * np.sqrt(2 * freedom)


@pytest.mark.parametrize("policy", POLICIES)
def test_the_choice_does_not_depend_on_how_a_batch_is_cut_into_chunks(policy):
    p = Placement(np.array([0, 1, 2, 0, 1, 0]), np.arange(6))
    rng = np.random.default_rng(5)
    ids, ranks = rng.integers(-1, 3, (40, 2)), rng.integers(0, 6, 40)
    whole = p.choose(ids, ranks, 2, policy, seed=9)
    chunks = [p.choose(ids[t : t + 7], ranks[t : t + 7], 2, policy, 9, first_token=t) for t in range(0, 40, 7)]
    assert np.concatenate(chunks).tolist() == whole.tolist()
    assert p.choose(ids[:0], ranks[:0], 2, policy).shape == (0, 2)


@pytest.mark.parametrize("policy", POLICIES)
def test_another_seed_is_another_choice_and_the_same_seed_the_same(policy):
    p = Placement(np.zeros(4, int), np.arange(4), n_ranks=16)
    arguments = (np.zeros((16, 1), int), np.arange(16), 2, policy)
    assert p.choose(*arguments, seed=1).tolist() == p.choose(*arguments, seed=1).tolist()
    assert p.choose(*arguments, seed=1).tolist() != p.choose(*arguments, seed=2).tolist()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"expert_ids": [[0, 1], [3, 1]]}, "token 1 has expert ids [3, 1]"),
        ({"expert_ids": [[-2, 1], [0, 1]]}, "token 0 has expert ids [-2, 1]"),
        ({"expert_ids": [0, 1]}, "expert_ids has shape (2,)"),
        ({"expert_ids": [[0.5, 1], [0, 1]]}, "expert_ids has dtype float64"),
        ({"token_rank": [0, 4]}, "token 1 is on rank 4"),
        ({"token_rank": [0, 1, 2]}, "token_rank (3,)"),
        ({"ranks_per_node": 0}, "ranks_per_node is 0"),
        ({"policy": "random"}, "unknown policy 'random'"),
    ],
)
def test_a_choice_that_cannot_be_made_is_refused_by_name(change, what):
    good = {"expert_ids": [[0, 1], [2, 1]], "token_rank": [0, 1], "ranks_per_node": 2}
    p = Placement(np.array([0, 1, 2, 0]), np.arange(4))
    assert (p.choose(**good) >= 0).all()
    with pytest.raises(InputError) as refused:
        p.choose(**good | change)
    assert what in str(refused.value)


def test_a_placement_of_several_layers_has_no_choice_of_its_own():
    p = Placement(np.array([[0, 1], [1, 0]]), np.arange(2))
    with pytest.raises(InputError, match="2 layers"):
        p.choose([[0]], [0], 1)
    assert p.layer(1).choose([[0]], [0], 1).tolist() == [[1]]
