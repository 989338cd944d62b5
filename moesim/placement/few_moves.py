"""From one placement to another with few experts moved: a budget of moves, ranks numbered so that most stay.

A *move* is an expert on a rank that did not hold it. Balance needs few of them: the best swaps of the fullest rank do
about as well as a placement made anew, which moves most experts.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from moesim.errors import InputError
from moesim.placement.slots import Placement


def moved_experts(start: Placement, end: Placement) -> NDArray[np.int32]:
    """Return int32[moves, 2], (expert, rank): what ``end`` holds on a rank that does not hold it in ``start``.

    One layer each. That is what has to travel; what is dropped costs nothing.
    """
    before, after = (np.unique(one.slot_expert.astype(np.int64) * one.n_ranks + one.slot_rank) for one in (start, end))
    new = after[~np.isin(after, before)]
    return np.stack([new // end.n_ranks, new % end.n_ranks], axis=1).astype(np.int32)


def fewer_moves(load: NDArray[np.float64], start: Placement, moves: int, n_nodes: int = 1) -> Placement:
    """Return ``start`` after the changes that relieve its fullest rank most, ``moves`` experts moved at most.

    A change swaps two slots (two moves), or gives a spare replica's slot to another expert (one move), inside a node
    where ``n_nodes`` is above 1. It ends earlier where no change lowers the fullest rank.
    """
    if len(load) != start.n_experts:
        raise InputError(f"a start of {start.n_experts} experts, a load of {len(load)}", "placement.start")
    expert, rank = start.slot_expert.astype(np.int64), start.slot_rank
    per_node = -(-start.n_ranks // n_nodes)
    node = rank // per_node
    left = moves
    while left > 0:
        replicas = np.bincount(expert, minlength=start.n_experts)
        slot_load = (load / replicas)[expert]
        by_rank = np.bincount(rank, weights=slot_load, minlength=start.n_ranks)
        full = int(by_rank.argmax())
        held = np.zeros((start.n_ranks, start.n_experts), dtype=bool)
        held[rank, expert] = True
        best = (float(by_rank[full]) * (1 - 1e-12), 0, -1, -1)
        others = np.flatnonzero((rank != full) & (node == full // per_node))
        for slot in np.flatnonzero(rank == full).tolist():
            mine = expert[slot]
            fits = others[~held[rank[others], mine]]
            if left >= 2:
                free = fits[~held[full, expert[fits]]]
                gain = slot_load[slot] - slot_load[free]
                after = np.maximum(by_rank[full] - gain, by_rank[rank[free]] + gain)
                if free.size and after.min() < best[0]:
                    best = (float(after.min()), 2, slot, int(free[after.argmin()]))
            for spare in fits[replicas[expert[fits]] > 1].tolist():
                trial = expert.copy()
                trial[spare] = mine
                after_one = _fullest(load, trial, rank, start.n_ranks)
                if after_one < best[0]:
                    best = (after_one, 1, slot, spare)
        _, cost, slot, other = best
        if cost == 0:
            break
        left -= cost
        expert[other], expert[slot] = expert[slot], expert[other if cost == 2 else slot]
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
    held = np.zeros((2, n_ranks, placement.n_experts))
    for side, one in enumerate((placement, start)):
        held[side, one.slot_rank, one.slot_expert] = 1
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


def _fullest(load: NDArray[np.float64], expert: NDArray[np.int64], rank: NDArray[np.int32], n_ranks: int) -> float:
    shared = (load / np.bincount(expert, minlength=len(load)))[expert]
    return float(np.bincount(rank, weights=shared, minlength=n_ranks).max())
