"""Balancing of each batch: weights of overloaded ranks' experts are fetched into spare slots of ranks with time left.

Repeatedly the fullest rank hands load of its hottest expert to the emptiest rank, until both are at the mean or one of
slots and moves is used up. With slots enough every rank ends at the mean, with at most one move per rank and one per
expert handed on. With fewer, the linear program over replicas shares the load out as well as these replicas allow;
which replicas are best is not searched for beyond the greedy order.

Source: the idea of MoonEP (exactly even ranks) and of LLEP (least-loaded expert parallelism, bounded).
"""

import numpy as np
from numpy.typing import NDArray

from moesim.placement.packing import rooms
from moesim.placement.replica_shares import with_lp_shares
from moesim.placement.slots import Placement


def prefetched(load: NDArray[np.float64], base: Placement, n_slots: int, moves: int | None = None) -> Placement:
    """Return the placement for one batch of one layer.

    Args:
        load: [experts] of this very batch.
        base: where the experts are; they stay.
        n_slots: of the layer, spread evenly; those that ``base`` does not use are spare.
        moves: weights fetched at most.

    Returns:
        ``base`` and the replicas fetched, with the share of each; spare slots that stay empty are left out.
        ``moved_experts(base, it)`` are the weights that travel.
    """
    n_ranks, target = base.n_ranks, float(load.sum()) / base.n_ranks
    # served[r, e]: load of expert e that rank r takes.
    served = np.zeros((n_ranks, base.n_experts))
    np.add.at(served, (base.slot_rank, base.slot_expert), base.planned_slot_load(load))
    holds = base.holds()
    room = np.array(rooms(n_slots, n_ranks)) - np.bincount(base.slot_rank, minlength=n_ranks)
    left = n_slots if moves is None else moves
    fetched: list[tuple[int, int]] = []
    small = 1e-9 * max(target, 1e-300)
    by_rank = served.sum(axis=1)
    while True:
        full = int(by_rank.argmax())
        expert = int(served[full].argmax())
        can = np.where(holds[:, expert] | ((room > 0) & (left > 0)), by_rank, np.inf)
        to = int(can.argmin())
        amount = min(by_rank[full] - target, target - by_rank[to], served[full, expert])
        if not np.isfinite(can[to]) or amount <= small:
            break
        if not holds[to, expert]:
            holds[to, expert] = True
            room[to] -= 1
            left -= 1
            fetched.append((to, expert))
        served[full, expert] -= amount
        served[to, expert] += amount
        by_rank[full] -= amount
        by_rank[to] += amount
    rank, expert_of = (np.array([pair[i] for pair in fetched], dtype=np.int32) for i in (0, 1))
    made = Placement(np.concatenate([base.slot_expert, expert_of]), np.concatenate([base.slot_rank, rank]), n_ranks)
    return with_lp_shares(made, load)
