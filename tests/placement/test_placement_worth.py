import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.placement import Placement, contiguous, eplb, with_lp_shares, worth


def counted(p, ids, node, choice, seed, size):
    """The same, a selection at a time."""
    ranks = p.n_ranks
    taken = p.choose(ids, np.arange(len(ids)) % ranks, int(np.bincount(node).max()), choice, seed)
    slot, batches, reached, crossed = np.zeros(p.n_slots), [], 0, 0
    for t, row in enumerate(taken.tolist()):
        if t % size == 0:
            batches.append(np.zeros(ranks))
        places = {int(node[p.slot_rank[s]]) for s in row if s >= 0}
        reached += len(places)
        crossed += len(places - {int(node[t % ranks])})
        for s in row:
            if s >= 0:
                slot[s] += 1
                batches[-1][p.slot_rank[s]] += 1
    full = batches[: len(ids) // size]
    rank = np.bincount(p.slot_rank, weights=slot, minlength=ranks)
    return {
        "slot": ratio(slot), "rank": ratio(rank), "node": ratio(np.bincount(node, weights=rank)),
        "batch": np.mean([ratio(each) for each in full]), "nodes_per_token": reached / len(ids),
        "crossings_per_token": crossed / len(ids),
    }  # fmt: skip


def ratio(load):
    return load.max() / load.mean() if load.sum() else 1.0


@given(st.integers(0, 10**6), st.sampled_from(["same_node", "round_robin", "hash"]), st.integers(0, 4))
@settings(max_examples=40, deadline=None)
def test_figures_are_those_of_following_every_selection(seed, choice, extra):
    rng = np.random.default_rng(seed)
    load = rng.lognormal(size=12)
    ids = np.argsort(-(rng.gumbel(size=(70, 12)) + np.log(load)), axis=1)[:, :3].astype(np.int32)
    ids[rng.random(ids.shape) < 0.1] = -1
    n_ranks = 6
    p = eplb(load, 12 + extra * n_ranks, n_ranks, 1, 1)
    node = np.arange(n_ranks) // int(rng.choice([1, 2, 3]))
    assert vars(worth(p, ids, node, choice, seed=seed, batch_tokens=16)) == pytest.approx(
        counted(p, ids, node, choice, seed, 16)
    )


def test_more_nodes_than_bits_of_a_word_are_counted():
    ids = np.arange(200).reshape(1, 200).repeat(3, axis=0).astype(np.int32)
    found = worth(contiguous(200, 200), ids, np.arange(200))
    assert (found.nodes_per_token, found.crossings_per_token) == (200, 199)


def test_loads_of_shares_are_dealt_out_exactly():
    ids = np.array([[0], [0], [0], [1]] * 16, np.int32)
    load = np.array([48.0, 16])
    p = with_lp_shares(Placement([0, 1, 0], [0, 1, 1]), load)
    found = worth(p, ids, np.zeros(2, int), batch_tokens=8)
    assert found.rank == pytest.approx(1) and found.batch == pytest.approx(1)


@pytest.mark.parametrize("ids", [np.full((5, 2), -1), np.empty((0, 2), int)])
def test_no_selection_is_even(ids):
    found = worth(contiguous(4, 2), ids, np.zeros(2, int))
    assert (found.rank, found.batch, found.nodes_per_token) == (1, 1, 0)


def test_a_rank_without_experts_counts():
    found = worth(contiguous(2, 4), np.array([[0], [1]], np.int32), np.arange(4) // 2)
    assert (found.rank, found.node) == (2, 2)
