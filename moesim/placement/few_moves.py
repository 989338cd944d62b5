"""From one placement to another with few experts moved: a budget of moves, ranks numbered so that most stay.

A *move* is an expert on a rank that did not hold it. Balance needs few of them: the best swaps of the fullest rank do
about as well as a placement made anew, which moves most experts.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from moesim.errors import InputError
from moesim.placement.slots import Placement

_NORM = 8
# Changes are chosen by the sum of this power of the ranks' loads: nearly the fullest rank's, yet where several are as
# full it sees each of them. On V2-Lite's routing 16 moves then come within 0.5 % of a new placement, by the fullest
# rank alone within 2 %.


def moved_experts(start: Placement, end: Placement) -> NDArray[np.int32]:
    """Return int32[moves, 2], (expert, rank): what ``end`` holds on a rank that does not hold it in ``start``.

    One layer each. That is what has to travel; what is dropped costs nothing.
    """
    return np.argwhere((end.holds() & ~start.holds()).T).astype(np.int32)


def fewer_moves(load: NDArray[np.float64], start: Placement, moves: int, n_nodes: int = 1) -> Placement:
    """Return ``start`` after the changes that even out its ranks most, ``moves`` experts moved at most.

    A change swaps two slots, or gives a spare replica's slot to an expert of the fullest rank, inside a node where
    ``n_nodes`` is above 1. It ends where no change within the budget helps.
    """
    if len(load) != start.n_experts:
        raise InputError(f"a start of {start.n_experts} experts, a load of {len(load)}", "placement.start")
    expert, rank, n_ranks = start.slot_expert.astype(np.int64), start.slot_rank, start.n_ranks
    node = rank // -(-n_ranks // n_nodes)
    at_home = start.holds()
    while load.sum() > 0:
        held = np.zeros_like(at_home)
        held[rank, expert] = True
        spent = int((held & ~at_home).sum())
        replicas = np.bincount(expert, minlength=len(load))
        slot_load = (load / replicas)[expert] * n_ranks / load.sum()
        by_rank = np.bincount(rank, weights=slot_load, minlength=n_ranks)
        fits = ~held[rank[None], expert[:, None]] & (node[:, None] == node)  # expert of slot i on the rank of slot j
        away = (~at_home[rank[None], expert[:, None]]).astype(np.int64)
        own = np.diag(away)
        affordable = spent - own[:, None] - own + away + away.T <= moves
        gain = slot_load[:, None] - slot_load
        change = (by_rank[rank][:, None] - gain) ** _NORM + (by_rank[rank] + gain) ** _NORM
        change -= by_rank[rank][:, None] ** _NORM + by_rank[rank] ** _NORM
        change[~(fits & fits.T & affordable)] = np.inf
        first, second = np.unravel_index(change.argmin(), change.shape)
        best, found = change[first, second], expert.copy()
        found[[first, second]] = found[[second, first]]
        unevenness = (by_rank**_NORM).sum()
        for slot in np.flatnonzero(rank == by_rank.argmax()).tolist():
            spare = fits[slot] & (replicas[expert] > 1) & (spent - own + away[slot] <= moves)
            for other in np.flatnonzero(spare).tolist():
                trial = expert.copy()
                trial[other] = expert[slot]
                shared = (load / np.bincount(trial, minlength=len(load)))[trial] * n_ranks / load.sum()
                after = (np.bincount(rank, weights=shared, minlength=n_ranks) ** _NORM).sum() - unevenness
                if after < best:
                    best, found = after, trial
        if not best < -1e-9 * unevenness:
            break
        expert = found
    return replace(start, slot_expert=expert.astype(np.int32), share=None)


def renumbered(placement: Placement, start: Placement, n_nodes: int) -> Placement:
    """Return the placement with its nodes, and the ranks inside them, numbered so that most experts stay.

    Loads and nodes per token do not change: equal ranks change names. One layer each.
    """
    n_ranks = placement.n_ranks
    if start.n_ranks != n_ranks or start.n_experts != placement.n_experts:
        raise InputError(
            f"a start of {start.n_experts} experts on {start.n_ranks} ranks, not {placement.n_experts} on {n_ranks}",
            "placement.start",
        )
    from scipy.optimize import linear_sum_assignment  # takes longer to load than most placements to be made

    held = [one.holds().astype(np.float64) for one in (placement, start)]
    room = np.bincount(placement.slot_rank, minlength=n_ranks)
    stays = held[0] @ held[1].T - 1e6 * (room[:, None] != room[None])
    per_node = -(-n_ranks // n_nodes)
    nodes = [np.arange(first, min(first + per_node, n_ranks)) for first in range(0, n_ranks, per_node)]
    value = np.full((len(nodes), len(nodes)), -1e9)
    names: dict[tuple[int, int], NDArray[np.int64]] = {}
    for i, mine in enumerate(nodes):
        for j, theirs in enumerate(nodes):
            if len(mine) == len(theirs):
                block = stays[np.ix_(mine, theirs)]
                names[i, j] = linear_sum_assignment(block, maximize=True)[1]
                value[i, j] = block[np.arange(len(mine)), names[i, j]].sum()
    new_rank = np.empty(n_ranks, dtype=np.int64)
    for i, j in zip(*linear_sum_assignment(value, maximize=True), strict=True):
        new_rank[nodes[i]] = nodes[j][names[i, j]]
    order = np.argsort(new_rank[placement.slot_rank], kind="stable")
    return replace(
        placement,
        slot_expert=placement.slot_expert[order],
        slot_rank=new_rank[placement.slot_rank][order].astype(np.int32),
        share=None if placement.share is None else placement.share[order],
    )
