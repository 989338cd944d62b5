import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.errors import InputError
from moesim.placement import Placement, contiguous, in_turn, moved_experts, place, renumbered


def fullest(p, load):
    return np.bincount(p.slot_rank, weights=p.planned_slot_load(load), minlength=p.n_ranks).max()


def permuted(p, order):
    """The same placement with its ranks named anew."""
    rank = np.asarray(order)[p.slot_rank]
    at = np.argsort(rank, kind="stable")
    return Placement(p.slot_expert[at], rank[at], p.n_ranks)


def test_what_moves_is_what_a_rank_does_not_hold_yet():
    start = Placement([0, 1, 2, 3], [0, 0, 1, 1])
    end = Placement([0, 3, 2, 1], [0, 0, 1, 1])
    assert moved_experts(start, end).tolist() == [[1, 1], [3, 0]]
    assert len(moved_experts(start, start)) == 0


@given(st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_moves_are_the_same_whatever_equal_ranks_are_called(seed):
    rng = np.random.default_rng(seed)
    one, other = (Placement(np.append(rng.permutation(8), rng.integers(0, 8, 4)), np.arange(12) // 3) for _ in range(2))
    order = rng.permutation(4)
    there = len(moved_experts(one, other))
    assert len(moved_experts(permuted(one, order), permuted(other, order))) == there
    assert there == len(set(zip(other.slot_expert.tolist(), other.slot_rank.tolist(), strict=True))
                        - set(zip(one.slot_expert.tolist(), one.slot_rank.tolist(), strict=True)))  # fmt: skip


@given(st.integers(0, 10**6), st.integers(0, 12), st.sampled_from(["greedy", "eplb_global", "eplb_hierarchical", "lp"]))
@settings(max_examples=60, deadline=None)
def test_a_budget_is_kept_and_the_fullest_rank_hardly_rises(seed, moves, policy):
    load = np.random.default_rng(seed).lognormal(sigma=1.2, size=12)
    slots = 12 if policy == "greedy" else 18
    p = place(policy, load=load, n_experts=12, n_slots=slots, n_ranks=6, n_nodes=2, moves=moves)
    start = in_turn(12, slots, 6)
    assert len(moved_experts(start, p)) <= moves
    assert set(p.slot_expert.tolist()) == set(range(12))
    # The eighth norm falls; the largest of six loads is at most that, and at least a sixth of its eighth power.
    assert fullest(p, load) <= fullest(start, load) * 6 ** (1 / 8) * (1 + 1e-9)
    if moves == 0:
        assert fullest(p, load) <= fullest(start, load) * (1 + 1e-9)


def test_one_swap_is_the_best_one():
    load = np.array([10.0, 9, 1, 2])  # ranks hold 19 and 3; 10 against 1 leaves 10 and 12, 9 against 2 leaves 12 and 10
    p = place("greedy", load=load, n_experts=4, n_slots=4, n_ranks=2, n_nodes=1, moves=2)
    assert fullest(p, load) == min(max(load[i] + load[j], load.sum() - load[i] - load[j]) for i, j in ((0, 2), (0, 3)))


def test_one_move_gives_a_spare_slot_to_the_hot_expert():
    load = np.array([12.0, 1, 1, 1])
    start = Placement([0, 1, 2, 3, 1, 2], [0, 0, 1, 1, 2, 2])
    p = place("eplb", load=load, n_experts=4, n_slots=6, n_ranks=3, n_nodes=1, moves=1, start=start)
    assert moved_experts(start, p).tolist() in ([[0, 1]], [[0, 2]])
    assert p.replicas()[0] == 2


@given(st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_a_new_placement_is_numbered_so_that_few_experts_move(seed):
    rng = np.random.default_rng(seed)
    load = rng.lognormal(size=16)
    anew = place("eplb_hierarchical", load=load, n_experts=16, n_slots=24, n_ranks=8, n_nodes=2)
    # Whole nodes and the ranks inside them called otherwise: nothing has to move.
    order = (rng.permutation(2)[:, None] * 4 + np.stack([rng.permutation(4), rng.permutation(4)])).ravel()
    assert len(moved_experts(permuted(anew, order), renumbered(anew, permuted(anew, order), 2))) == 0
    start = contiguous(16, 8)
    again = renumbered(anew, start, 2)
    assert len(moved_experts(start, again)) <= len(moved_experts(start, anew))
    by_rank = [np.sort(np.bincount(p.slot_rank, weights=p.planned_slot_load(load))) for p in (anew, again)]
    assert by_rank[0] == pytest.approx(by_rank[1])
    nodes = [{frozenset(p.slot_expert[p.slot_rank // 4 == n].tolist()) for n in range(2)} for p in (anew, again)]
    assert nodes[0] == nodes[1]


def test_ranks_with_other_numbers_of_slots_keep_their_own():
    start = contiguous(10, 4)
    anew = place("greedy", load=np.arange(10.0), n_experts=10, n_slots=10, n_ranks=4, n_nodes=1, start=start)
    assert np.bincount(anew.slot_rank).tolist() == [3, 3, 2, 2]


def test_a_start_of_other_experts_is_refused():
    with pytest.raises(InputError, match="a start of 4 experts on 2 ranks, not 4 on 4"):
        renumbered(contiguous(4, 4), contiguous(4, 2), 1)
