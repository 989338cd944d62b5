"""Placements by name, and those that know nothing about the load: one slot per expert, dealt evenly to the ranks.

Expert counts that the ranks do not divide are normal: 258 experts on 64 ranks put five on the first two
ranks and four on the others. With fewer experts than ranks, the last ranks hold none.
"""

from collections.abc import Callable, Mapping

import numpy as np

from moesim.errors import InputError
from moesim.placement.load_balancer import eplb
from moesim.placement.slots import Placement


def contiguous(n_experts: int, n_ranks: int) -> Placement:
    """Place neighbouring experts on the same rank, as ``numpy.array_split(range(n_experts), n_ranks)`` does.

    Raises ``InputError`` unless both counts are at least 1.
    """
    _check(n_experts, n_ranks)
    base, longer = divmod(n_experts, n_ranks)
    held = np.full(n_ranks, base)
    held[:longer] += 1
    rank = np.repeat(np.arange(n_ranks, dtype=np.int32), held)
    return Placement(np.arange(n_experts, dtype=np.int32), rank, n_ranks)


def round_robin(n_experts: int, n_ranks: int) -> Placement:
    """Place expert ``e`` on rank ``e % n_ranks``; the slots are numbered by rank, then by expert.

    Raises ``InputError`` unless both counts are at least 1.
    """
    _check(n_experts, n_ranks)
    rank = np.arange(n_experts, dtype=np.int32) % n_ranks
    expert = np.argsort(rank, kind="stable").astype(np.int32)
    return Placement(expert, rank[expert], n_ranks)


def _check(n_experts: int, n_ranks: int) -> None:
    for name, count in (("n_experts", n_experts), ("n_ranks", n_ranks)):
        if count < 1:
            raise InputError(f"{name} is {count}", where="placement", fix="it must be at least 1")


FIXED: Mapping[str, Callable[[int, int], Placement]] = {"contiguous": contiguous, "round_robin": round_robin}
"""By name, what places ``n_experts`` on ``n_ranks``."""

BY_LOAD: Mapping[str, Callable[..., Placement]] = {"eplb": eplb}
"""By name, what places by the experts' load, with the arguments of ``eplb``."""
