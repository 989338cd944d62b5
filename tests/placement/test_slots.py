import numpy as np
import pytest

from moesim.errors import InputError
from moesim.placement import Placement, contiguous, round_robin


@pytest.mark.parametrize("place", [contiguous, round_robin])
@pytest.mark.parametrize(("n_experts", "n_ranks"), [(258, 64), (256, 64), (3, 8), (1, 1), (8, 3)])
def test_every_expert_has_one_slot_and_ranks_differ_by_at_most_one(place, n_experts, n_ranks):
    p = place(n_experts, n_ranks)
    assert (p.n_experts, p.n_slots, p.n_ranks) == (n_experts, n_experts, n_ranks)
    assert sorted(p.slot_expert.tolist()) == list(range(n_experts))
    assert p.replicas().tolist() == [1] * n_experts
    per_rank = np.bincount(p.slot_rank, minlength=n_ranks)
    assert per_rank.shape == (n_ranks,)
    assert np.ptp(per_rank) <= 1
    assert (np.diff(p.slot_rank) >= 0).all()
    assert p.slot_expert.dtype == p.slot_rank.dtype == p.home_rank().dtype == np.int32


def test_contiguous_ranks_hold_what_array_split_gives_them():
    p = contiguous(258, 64)
    for rank, experts in enumerate(np.array_split(np.arange(258), 64)):
        assert p.slot_expert[p.slot_rank == rank].tolist() == experts.tolist()
    assert np.bincount(p.slot_rank).tolist() == [5, 5] + [4] * 62


def test_round_robin_deals_the_experts_out_like_cards():
    p = round_robin(258, 64)
    assert p.home_rank().tolist() == [expert % 64 for expert in range(258)]


def test_the_home_of_an_expert_is_the_rank_of_its_first_slot():
    p = Placement(np.array([2, 0, 1, 0, 2]), np.array([3, 1, 0, 2, 0]))
    assert p.home_rank().tolist() == [1, 0, 3]
    assert p.replicas().tolist() == [2, 1, 2]
    assert p.planned_slot_load([10, 7, 4]).tolist() == [2, 5, 7, 5, 2]


def test_a_layer_of_a_placement_is_a_placement_on_the_same_ranks():
    p = Placement(np.array([[0, 1, 1], [0, 1, 0]]), np.array([0, 0, 1]), n_ranks=4)
    assert (p.n_experts, p.n_slots, p.layer(1).n_ranks) == (2, 3, 4)
    assert p.layer(1).slot_expert.tolist() == [0, 1, 0]
    assert p.layer(1).layer(57).slot_expert.tolist() == [0, 1, 0], "one layer's placement serves every layer"
    with pytest.raises(InputError, match="no layer 2"):
        p.layer(2)
    for one_layer_only in (p.home_rank, p.replicas, lambda: p.planned_slot_load([1, 1])):
        with pytest.raises(InputError, match="2 layers"):
            one_layer_only()


def test_a_placement_cannot_be_changed_through_the_arrays_it_was_made_from():
    slot_expert = np.array([0, 1], np.int32)
    p = Placement(slot_expert, np.array([0, 1], np.int32))
    slot_expert[0] = 1
    assert p.slot_expert.tolist() == [0, 1]
    with pytest.raises(ValueError, match="read-only"):
        p.slot_expert[0] = 1


@pytest.mark.parametrize(
    ("slot_expert", "slot_rank", "n_ranks", "what"),
    [
        ([0, 2, 2], [0, 1, 2], 0, "expert 1 has no slot on layer 0"),
        ([[0, 1, 1], [1, 1, 1]], [0, 1, 2], 0, "expert 0 has no slot on layer 1"),
        ([0, 5], [0, 1], 0, "2 slots cannot hold experts 0 to 5"),
        ([0, -1], [0, 1], 0, "slot_expert holds -1"),
        ([0, 1], [0, -1], 0, "slot 1 is on rank -1"),
        ([0, 1], [0, 4], 4, "slot 1 is on rank 4"),
        ([0, 1], [0], 0, "slot_rank has shape (1,) for 2 slots"),
        ([], [], 0, "slot_expert has dtype float64"),
        (np.zeros((0, 3), int), [0, 1, 2], 0, "slot_expert has shape (0, 3)"),
        ([0.0, 1.0], [0, 1], 0, "slot_expert has dtype float64"),
        ([0, 2**33], [0, 1], 0, "slot_expert does not fit 32 bits"),
    ],
)
def test_a_placement_that_cannot_be_is_refused_by_name(slot_expert, slot_rank, n_ranks, what):
    with pytest.raises(InputError) as refused:
        Placement(np.array(slot_expert), np.array(slot_rank), n_ranks)
    assert what in str(refused.value)


@pytest.mark.parametrize("place", [contiguous, round_robin])
def test_no_experts_or_no_ranks_are_refused(place):
    with pytest.raises(InputError, match="n_experts is 0"):
        place(0, 4)
    with pytest.raises(InputError, match="n_ranks is 0"):
        place(4, 0)


def test_a_load_of_another_number_of_experts_is_refused():
    with pytest.raises(InputError, match="load has shape"):
        contiguous(4, 2).planned_slot_load([1, 2, 3])
