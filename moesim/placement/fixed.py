"""Placements that know nothing about the load: one slot per expert, dealt evenly to the ranks.

Expert counts that the ranks do not divide are normal: 258 experts on 64 ranks put five on the first two
ranks and four on the others. With fewer experts than ranks, the last ranks hold none.
"""

import numpy as np

from moesim.errors import InputError
from moesim.placement.packing import rooms
from moesim.placement.slots import Placement


def contiguous(n_experts: int, n_ranks: int) -> Placement:
    """Place neighbouring experts on the same rank, as ``numpy.array_split(range(n_experts), n_ranks)`` does.

    Raises ``InputError`` unless both counts are at least 1.
    """
    return in_turn(n_experts, n_experts, n_ranks)


def in_turn(n_experts: int, n_slots: int, n_ranks: int) -> Placement:
    """Place expert ``s % n_experts`` in slot ``s``, slots by rank: what engines start from.

    Raises ``InputError`` unless all counts are at least 1.
    """
    _check(n_experts, n_ranks)
    slot = np.arange(n_slots, dtype=np.int32)
    return Placement(slot % n_experts, ranks_of(n_slots, n_ranks), n_ranks)


def round_robin(n_experts: int, n_ranks: int) -> Placement:
    """Place expert ``e`` on rank ``e % n_ranks``; the slots are numbered by rank, then by expert.

    Raises ``InputError`` unless both counts are at least 1.
    """
    _check(n_experts, n_ranks)
    rank = np.arange(n_experts, dtype=np.int32) % n_ranks
    expert = np.argsort(rank, kind="stable").astype(np.int32)
    return Placement(expert, rank[expert], n_ranks)


def at_random(n_experts: int, n_ranks: int, seed: int) -> Placement:
    """Place the experts in an order drawn from ``seed``."""
    _check(n_experts, n_ranks)
    order = np.random.default_rng(seed).permutation(n_experts).astype(np.int32)
    return Placement(order, ranks_of(n_experts, n_ranks), n_ranks)


def ranks_of(n_slots: int, n_ranks: int) -> np.ndarray:
    """Return the rank of each slot, int32[slots], slots as even over the ranks as they can be."""
    return np.repeat(np.arange(n_ranks, dtype=np.int32), rooms(n_slots, n_ranks))


def _check(n_experts: int, n_ranks: int) -> None:
    for name, count in (("n_experts", n_experts), ("n_ranks", n_ranks)):
        if count < 1:
            raise InputError(f"{name} is {count}", where="placement", fix="it must be at least 1")
