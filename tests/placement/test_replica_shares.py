import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from moesim.errors import InputError
from moesim.placement import Placement, contiguous, eplb, with_lp_shares


def fullest(p, load):
    return np.bincount(p.slot_rank, weights=p.planned_slot_load(load), minlength=p.n_ranks).max()


def dual(p, load):
    """The dual program, solved by itself: prices w of the ranks that sum to 1, each expert at its cheapest rank."""
    n_ranks, n_experts = p.n_ranks, p.n_experts
    rows = np.zeros((p.n_slots, n_ranks + n_experts))
    rows[np.arange(p.n_slots), n_ranks + p.slot_expert] = 1  # y_e <= w_r for every slot of e
    rows[np.arange(p.n_slots), p.slot_rank] = -1
    cost = -np.concatenate([np.zeros(n_ranks), load])
    one = np.concatenate([np.ones(n_ranks), np.zeros(n_experts)])[None]
    found = linprog(
        cost, A_ub=rows, b_ub=np.zeros(p.n_slots), A_eq=one, b_eq=[1],
        bounds=[(0, None)] * n_ranks + [(None, None)] * n_experts, method="highs-ipm",
    )  # fmt: skip
    return -found.fun


def some_placement(rng, n_experts=6, n_ranks=3, extra=6):
    expert = np.concatenate([rng.permutation(n_experts), rng.integers(0, n_experts, extra)])
    return Placement(expert, np.sort(rng.integers(0, n_ranks, n_experts + extra)), n_ranks)


@given(st.integers(0, 10**6), st.integers(2, 24), st.integers(1, 9))
@settings(max_examples=80, deadline=None)
def test_primal_and_dual_solved_apart_agree(seed, n_experts, n_ranks):
    rng = np.random.default_rng(seed)
    p, load = some_placement(rng, n_experts, n_ranks, extra=int(rng.integers(0, 12))), rng.lognormal(size=n_experts)
    found = fullest(with_lp_shares(p, load), load)
    assert found == pytest.approx(dual(p, load), rel=1e-6)
    assert load.sum() / n_ranks * (1 - 1e-9) <= found <= fullest(p, load) * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_the_fullest_rank_is_that_of_the_worst_set_of_ranks_by_brute_force(seed):
    # Hall: what lives on a set of ranks alone has to fit into it; the worst of all sets is the optimum.
    rng = np.random.default_rng(seed)
    p, load = some_placement(rng), rng.integers(1, 50, 6).astype(float)
    homes = [set(p.slot_rank[p.slot_expert == expert].tolist()) for expert in range(6)]
    worst = max(
        sum(load[e] for e in range(6) if homes[e] <= set(ranks)) / len(ranks)
        for size in (1, 2, 3)
        for ranks in itertools.combinations(range(3), size)
    )
    assert fullest(with_lp_shares(p, load), load) == pytest.approx(worst, rel=1e-9)


def test_a_grid_of_shares_finds_nothing_better_on_six_experts_and_three_ranks():
    load = np.array([10.0, 7, 4, 3, 2, 1])
    p = Placement([0, 1, 2, 3, 4, 5, 0, 1], [0, 1, 2, 0, 1, 2, 1, 2], 3)
    best = min(
        max(10 * a + 3, 10 * (1 - a) + 7 * b + 2, 4 + 1 + 7 * (1 - b))
        for a, b in itertools.product(np.linspace(0, 1, 101), repeat=2)
    )
    found = fullest(with_lp_shares(p, load), load)
    assert found <= best and found == pytest.approx(best, abs=0.1)


def test_an_expert_without_load_and_a_load_of_nothing_share_evenly():
    p = Placement([0, 1, 1, 1], [0, 0, 1, 2], 3)
    assert with_lp_shares(p, np.array([5.0, 0])).share.tolist() == pytest.approx([1, 1 / 3, 1 / 3, 1 / 3])
    assert with_lp_shares(contiguous(3, 3), np.zeros(3)).share.tolist() == [1, 1, 1]


def test_tokens_take_replicas_by_their_shares():
    p = Placement([0, 1, 0, 0], [0, 0, 1, 2], 3, share=[0.5, 1, 0.2, 0.3])
    ids = np.tile(np.array([[0, 1], [-1, 0]]), (20_000, 1))
    for policy in ("same_node", "round_robin", "hash"):
        taken = p.choose(ids, np.zeros(len(ids), int), 1, policy, seed=3)
        assert ((taken < 0) == (ids < 0)).all()
        assert (p.slot_expert[taken[ids >= 0]] == ids[ids >= 0]).all()
        part = np.bincount(taken[ids == 0], minlength=4) / (ids == 0).sum()
        assert part == pytest.approx([0.5, 0, 0.2, 0.3], abs=0.01)
    whole = p.choose(ids, np.zeros(len(ids), int), 1, seed=3)
    cut = [p.choose(ids[i : i + 777], np.zeros(len(ids[i : i + 777]), int), 1, seed=3, first_token=i)
           for i in range(0, len(ids), 777)]  # fmt: skip
    assert np.concatenate(cut).tolist() == whole.tolist()


@pytest.mark.parametrize("share", [[0.5, 1, 0.5], [0.5, 1, 0.2, 0.1], [1.5, 1, -0.5, 0]])
def test_shares_that_are_none_are_refused(share):
    with pytest.raises(InputError, match="share"):
        Placement([0, 1, 0, 0], [0, 0, 1, 2], 3, share=share)


def test_shares_follow_their_layer():
    p = Placement([[0, 1, 0], [1, 0, 1]], [0, 1, 2], 3, share=[[0.25, 1, 0.75], [0.5, 1, 0.5]])
    assert p.layer(1).share.tolist() == [0.5, 1, 0.5]
    assert p.layer(0).planned_slot_load([8, 4]).tolist() == [2, 4, 6]


def test_shares_of_one_load_are_no_promise_for_another():
    load = np.array([8.0, 1, 1, 1, 1, 1])
    p = eplb(load, n_slots=9, n_ranks=3, n_nodes=1, n_groups=1)
    other = load[::-1].copy()
    assert fullest(with_lp_shares(p, load), other) >= fullest(with_lp_shares(p, other), other)
