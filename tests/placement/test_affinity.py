import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.errors import InputError
from moesim.placement import Placement, affinity_frontier, contiguous, moved_experts, place, worth
from moesim.placement.affinity import _sample
from moesim.placement.node_swaps import change_of_swap, tokens_on_nodes
from tests.placement.recorded import everywhere, halves, needs_recording


def selections(n_experts, top_k, tokens=400, seed=0):
    """Tokens of three topics, each of which prefers some experts."""
    rng = np.random.default_rng(seed)
    topic = rng.integers(0, 3, tokens)
    noise = rng.gumbel(size=(tokens, n_experts)) + 2 * rng.standard_normal((3, n_experts))[topic]
    return np.argsort(-noise, axis=1)[:, :top_k].astype(np.int32)


def pairs(ids, node_of):
    """(Token, node) pairs, one token at a time."""
    return sum(len({node_of[e] for e in row if e >= 0}) for row in ids.tolist())


@given(st.integers(0, 10**6), st.integers(2, 4), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_the_change_of_a_swap_is_that_of_counting_anew(seed, n_nodes, top_k):
    rng = np.random.default_rng(seed)
    ids = selections(8, top_k, 60, seed)
    ids[rng.random(ids.shape) < 0.1] = -1
    node_of = rng.integers(0, n_nodes, 8).astype(np.int32)
    first, second = rng.choice(8, 2, replace=False)
    seen, ptr, token = _sample(ids, 8)
    count = tokens_on_nodes(seen, node_of, n_nodes)
    if node_of[first] == node_of[second]:
        return
    swapped = node_of.copy()
    swapped[[first, second]] = swapped[[second, first]]
    found = change_of_swap(first, second, node_of, count, ptr, token, np.zeros(len(ids), np.int64), 1)
    assert found == pairs(ids, swapped) - pairs(ids, node_of)


@pytest.mark.parametrize("seed", range(4))
def test_the_search_finds_the_best_of_all_splits_of_eight_experts(seed):
    ids = selections(8, 3, seed=seed)
    load = np.bincount(ids.ravel(), minlength=8).astype(float)
    cap = 1.2 * load.sum() / 2
    splits = [set(half) for half in itertools.combinations(range(8), 4) if 0 in half]
    best = min(
        pairs(ids, [e in half for e in range(8)])
        for half in splits
        if max(load[list(half)].sum(), load.sum() - load[list(half)].sum()) <= cap
    )
    p = place("affinity", expert_ids=ids, n_experts=8, n_slots=8, n_ranks=4, n_nodes=2, node_load_limit=1.2)
    assert pairs(ids, p.home_rank() // 2) == best


@given(
    st.integers(0, 10**6), st.integers(1, 4), st.sampled_from([(8, 4, 2), (12, 6, 3), (9, 4, 2), (6, 8, 4), (5, 8, 2)])
)
@settings(max_examples=40, deadline=None)
def test_nodes_per_token_keep_within_what_the_counts_allow(seed, top_k, cluster):
    n_experts, n_ranks, n_nodes = cluster
    ids = selections(n_experts, top_k, 100, seed)
    p = place("affinity", expert_ids=ids, n_experts=n_experts, n_slots=n_experts, n_ranks=n_ranks, n_nodes=n_nodes)
    node = np.arange(n_ranks) // (n_ranks // n_nodes)
    most = np.bincount(node[p.slot_rank]).max()
    found = worth(p, ids, node)
    assert math.ceil(top_k / most) <= found.nodes_per_token <= min(top_k, n_nodes)
    assert found.crossings_per_token <= found.nodes_per_token


def test_experts_that_a_placement_does_not_have_are_refused():
    with pytest.raises(InputError, match="no expert 7"):
        worth(contiguous(7, 2), np.array([[0, 7]], np.int32), np.zeros(2, np.int32))


def test_a_swap_inside_a_node_leaves_nodes_per_token_as_they_are():
    ids = selections(12, 4)
    p, node = contiguous(12, 6), np.arange(6) // 3
    swapped = p.slot_expert.copy()
    swapped[[0, 5]] = swapped[[5, 0]]
    assert worth(Placement(swapped, p.slot_rank), ids, node).nodes_per_token == worth(p, ids, node).nodes_per_token
    swapped[[0, 11]] = swapped[[11, 0]]
    assert worth(Placement(swapped, p.slot_rank), ids, node).nodes_per_token != worth(p, ids, node).nodes_per_token


def test_an_experts_replicas_share_its_node():
    ids = selections(12, 4)
    p = place("affinity", expert_ids=ids, n_experts=12, n_slots=24, n_ranks=6, n_nodes=2)
    node = p.slot_rank // 3
    assert all(len(set(node[p.slot_expert == expert])) == 1 for expert in range(12))
    assert p.replicas().max() > 1


def test_a_higher_limit_on_node_load_buys_fewer_nodes():
    ids = selections(24, 4, 1500)
    load = np.bincount(ids.ravel(), minlength=24).astype(float)
    rows = affinity_frontier(load, ids, n_ranks=8, n_nodes=4, limits=(1.02, 1.2, 2.0))
    nodes = [row["nodes_per_token"] for row in rows]
    assert nodes[0] > nodes[1] > nodes[2]
    for row in rows:
        assert 1 <= row["node_load"] <= row["node_load_limit"] + 1e-9


def test_the_seed_alone_decides():
    ids = selections(24, 4)
    on = {"expert_ids": ids, "n_experts": 24, "n_slots": 24, "n_ranks": 8, "n_nodes": 4}
    assert place("affinity", **on).slot_expert.tolist() == place("affinity", **on).slot_expert.tolist()


@pytest.mark.parametrize("moves", [0, 1, 2, 5, 8])
def test_moves_are_not_more_than_asked_for_and_never_make_it_worse(moves):
    ids = selections(24, 4)
    start, node = contiguous(24, 8), np.arange(8) // 2
    p = place("affinity", expert_ids=ids, n_experts=24, n_slots=24, n_ranks=8, n_nodes=4, moves=moves)
    assert len(moved_experts(start, p)) <= moves
    before, after = worth(start, ids, node), worth(p, ids, node)
    assert after.nodes_per_token * after.rank <= before.nodes_per_token * before.rank * (1 + 1e-9)
    assert moves < 2 or after.nodes_per_token * after.rank < before.nodes_per_token * before.rank


def test_single_moves_from_replicas_are_refused():
    on = {"expert_ids": selections(8, 2), "n_experts": 8, "n_slots": 16, "n_ranks": 4, "n_nodes": 2, "moves": 2}
    with pytest.raises(InputError, match="this start holds replicas"):
        place("affinity", **on)


@needs_recording
@pytest.mark.jit
def test_spare_slots_even_out_the_ranks_of_a_node_and_leave_the_nodes_per_token():
    rank = {64: [], 80: []}
    for name, layer in everywhere():
        before, after = halves(name, layer)
        nodes = []
        for slots, its in rank.items():
            p = place("affinity", expert_ids=before, n_experts=64, n_slots=slots, n_ranks=16, n_nodes=4)
            found = worth(p, after, np.arange(16) // 4)
            its.append(found.rank)
            nodes.append(found.nodes_per_token)
        assert nodes[0] == nodes[1]
    assert np.mean(rank[80]) < 0.9 * np.mean(rank[64])
