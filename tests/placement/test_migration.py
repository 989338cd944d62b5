"""What moving from one placement to another takes: moves, sources, bytes, the busiest port and when it has paid."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.errors import InputError
from moesim.placement import (
    Placement,
    break_even_steps,
    contiguous,
    expert_bytes,
    moves_between,
    place,
    round_robin,
)
from tests.reference.ports import busiest_ports, migration_bound_s

RANKS, PER_NODE, EXPERTS = 8, 4, 16
NODE = np.arange(RANKS) // PER_NODE


@st.composite
def placements(draw):
    """A placement of 16 experts on 8 ranks of two nodes, with up to 16 replicas."""
    extra = draw(st.integers(0, 2)) * RANKS
    experts = [*range(EXPERTS), *draw(st.lists(st.integers(0, EXPERTS - 1), min_size=extra, max_size=extra))]
    order = draw(st.permutations(experts))
    ranks = np.repeat(np.arange(RANKS), len(order) // RANKS)
    return Placement(np.array(order, np.int32), ranks.astype(np.int32), RANKS)


def holds(placement):
    return set(zip(placement.slot_rank.tolist(), placement.slot_expert.tolist(), strict=True))


def test_an_expert_of_deepseek_v3_has_44_megabytes_and_one_of_v2_lite_17():
    assert expert_bytes(7168, 2048, "fp8") == 3 * 7168 * 2048 + 3 * 7168 * 2048 // 4096 == 44_050_944
    assert expert_bytes(2048, 1408, "bf16") == 17_301_504
    # A block of scales that is not full has its scale too.
    assert expert_bytes(129, 128, "fp8") == 3 * (129 * 128 + 2 * 4)


@settings(max_examples=60, deadline=None)
@given(placements(), placements())
def test_moves_are_what_the_new_placement_has_and_the_old_lacks_from_ranks_that_held_it(old, new):
    moves = moves_between(old, new, NODE)
    moved = set(zip(moves.target.tolist(), moves.expert.tolist(), strict=True))
    assert len(moved) == len(moves)
    assert moved == holds(new) - holds(old)
    assert holds(new) <= holds(old) | moved
    for expert, source, target in zip(moves.expert, moves.source, moves.target, strict=True):
        assert (source, expert) in holds(old)
        own = {rank for rank, held in holds(old) if held == expert and NODE[rank] == NODE[target]}
        assert not own or source in own  # weights stay on NVLink where they can


@given(placements())
def test_a_placement_that_stays_moves_nothing_in_whatever_slots(placement):
    assert len(moves_between(placement, placement, NODE)) == 0
    shuffled = Placement(
        np.concatenate([row[::-1] for row in placement.slot_expert.reshape(RANKS, -1)]), placement.slot_rank, RANKS
    )
    moves = moves_between(placement, shuffled, NODE)
    assert len(moves) == 0 and migration_bound_s(moves, NODE, 44_050_944, 200e9, 43e9) == 0


@settings(max_examples=60, deadline=None)
@given(placements(), placements(), st.permutations(range(PER_NODE)), st.permutations(range(PER_NODE)), st.booleans())
def test_the_bound_does_not_depend_on_how_equal_ranks_are_numbered(old, new, first, second, swapped):
    nodes = [np.array(first), PER_NODE + np.array(second)]
    renamed = np.concatenate(nodes[::-1] if swapped else nodes)

    def named(placement):
        return Placement(placement.slot_expert, renamed[placement.slot_rank].astype(np.int32), RANKS)

    assert busiest_ports(moves_between(old, new, NODE), NODE) == busiest_ports(
        moves_between(named(old), named(new), NODE), NODE
    )


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=3, unique=True), min_size=1, max_size=6))
def test_no_choice_of_sources_sends_less_from_the_port_that_sends_most(candidates):
    # Experts held by ranks 0 to 3, wanted by ranks 4 and on, one each, in one node.
    ranks = 4 + len(candidates)
    held = [(rank, expert) for expert, ranks_of in enumerate(candidates) for rank in ranks_of]
    new = [*held, *((4 + expert, expert) for expert in range(len(candidates)))]

    def made(pairs):
        return Placement(np.array([e for _, e in pairs]), np.array([r for r, _ in pairs]), ranks)

    moves = moves_between(made(held), made(new), np.zeros(ranks, int))
    best = min(max(map(choice.count, choice)) for choice in itertools.product(*candidates))
    assert max(np.bincount(moves.source)) == best


def test_five_experts_into_every_rank_of_ep64_take_5_milliseconds_a_layer_and_pay_after_17_steps():
    node = np.arange(64) // 8
    old = contiguous(320, 64)
    new = Placement(old.slot_expert, ((old.slot_rank + 8) % 64).astype(np.int32), 64)  # each rank takes another node's
    moves = moves_between(old, new, node)
    assert busiest_ports(moves, node) == (0, 5)
    layer_s = migration_bound_s(moves, node, expert_bytes(7168, 2048, "fp8"), 200e9, 43e9)
    assert layer_s == pytest.approx(5.1e-3, rel=0.01)
    assert 58 * layer_s == pytest.approx(297e-3, rel=0.001)
    assert break_even_steps(58 * layer_s, 58 * 0.3e-3) == pytest.approx(17, abs=0.1)
    assert break_even_steps(58 * layer_s, 58 * 20e-6) == pytest.approx(256, abs=0.5)
    one_s = migration_bound_s(moves, node, 44_050_944, 200e9, 5 * 43e9)  # one each
    assert break_even_steps(58 * one_s, 58 * 0.3e-3) == pytest.approx(3.4, abs=0.05)
    assert break_even_steps(58 * one_s, 58 * 20e-6) == pytest.approx(51, abs=0.5)


def test_what_saves_nothing_never_pays():
    assert break_even_steps(1.0, 0.0) is None and break_even_steps(0.0, -1e-6) is None
    assert break_even_steps(0.0, 1e-6) == 0


def test_few_moves_cost_less_than_a_placement_made_anew():
    rng = np.random.default_rng(0)
    load = rng.lognormal(sigma=1.0, size=64)
    old = contiguous(64, 16)
    common = {"load": load, "n_experts": 64, "n_slots": 64, "n_ranks": 16, "n_nodes": 4, "start": old}
    node = np.arange(16) // 4
    anew, few = (moves_between(old, place("greedy", **common, moves=n), node) for n in (None, 8))
    assert 0 < len(few) <= 8 < len(anew)


def test_placements_of_another_model_are_refused():
    with pytest.raises(InputError, match="16 and 8 experts"):
        moves_between(contiguous(16, 8), contiguous(8, 8), NODE)
    with pytest.raises(InputError, match="8 and 4 ranks"):
        moves_between(contiguous(16, 8), round_robin(16, 4), NODE)
    layered = Placement(np.tile(np.arange(16), (2, 1)), np.repeat(np.arange(8), 2))
    with pytest.raises(InputError, match="2 layers"):
        moves_between(layered, contiguous(16, 8), NODE)
