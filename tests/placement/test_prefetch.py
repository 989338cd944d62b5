import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.placement import contiguous, moved_experts, place


def by_rank(p, load):
    return np.bincount(p.slot_rank, weights=p.planned_slot_load(load), minlength=p.n_ranks)


def fetched(load, n_slots, moves=None, n_ranks=4):
    return place("per_batch", load=load, n_experts=len(load), n_slots=n_slots, n_ranks=n_ranks, n_nodes=1, moves=moves)


@given(st.integers(0, 10**6), st.sampled_from([(8, 4), (16, 8), (9, 4), (6, 8)]))
@settings(max_examples=50, deadline=None)
def test_with_slots_enough_every_rank_ends_at_the_mean(seed, shape):
    n_experts, n_ranks = shape
    load = np.random.default_rng(seed).lognormal(sigma=1.5, size=n_experts)
    p = fetched(load, n_slots=n_ranks * n_experts, n_ranks=n_ranks)
    assert by_rank(p, load) == pytest.approx(np.full(n_ranks, load.sum() / n_ranks), rel=1e-6)
    assert len(moved_experts(contiguous(n_experts, n_ranks), p)) <= n_experts + n_ranks


@given(st.integers(0, 10**6), st.integers(0, 6), st.integers(0, 2))
@settings(max_examples=50, deadline=None)
def test_slots_and_moves_are_not_exceeded_and_more_of_them_do_no_harm(seed, moves, spare):
    load = np.random.default_rng(seed).lognormal(sigma=1.5, size=8)
    base = contiguous(8, 4)
    p = fetched(load, 8 + 4 * spare, moves)
    new = moved_experts(base, p)
    assert len(new) <= moves
    assert np.bincount(p.slot_rank, minlength=4).max() <= 2 + spare
    held = set(zip(p.slot_expert.tolist(), p.slot_rank.tolist(), strict=True))
    assert set(zip(base.slot_expert.tolist(), base.slot_rank.tolist(), strict=True)) <= held, "nothing leaves its home"
    assert by_rank(p, load).max() <= by_rank(base, load).max() * (1 + 1e-9)
    if moves:
        assert by_rank(p, load).max() <= by_rank(fetched(load, 8 + 4 * spare, moves - 1), load).max() * (1 + 1e-9)


def test_the_hottest_expert_of_the_fullest_rank_goes_to_the_emptiest():
    load = np.array([9.0, 3, 2, 2, 2, 2, 1, 1])
    p = fetched(load, 12, moves=1)
    assert moved_experts(contiguous(8, 4), p).tolist() == [[0, 3]]
    assert by_rank(p, load) == pytest.approx([7, 4, 4, 7])


def test_a_batch_that_is_even_moves_nothing():
    assert fetched(np.ones(8), 12).n_slots == 8
    assert fetched(np.zeros(8), 12).n_slots == 8
