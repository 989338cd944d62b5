"""Placements by name: one call for every policy, one layer or many.

A policy sees the load, or the selections, of a window of the past; what it is good for shows on what follows.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moesim.errors import InputError
from moesim.placement.affinity import affinity
from moesim.placement.few_moves import fewer_moves, renumbered
from moesim.placement.fixed import at_random, contiguous, in_turn, ranks_of, round_robin
from moesim.placement.load_balancer import eplb
from moesim.placement.packing import pack, rooms
from moesim.placement.prefetch import prefetched
from moesim.placement.replica_shares import with_lp_shares
from moesim.placement.slots import Placement
from moesim.placement_policies import FIXED_POLICIES, POLICIES, SINGLE_SLOT_POLICIES


@dataclass(frozen=True)
class Cluster:
    """What a layer is laid on: slots spread evenly over ranks, ranks over nodes; the experts' routing groups."""

    n_experts: int
    n_slots: int
    n_ranks: int
    n_nodes: int
    n_groups: int
    node_load_limit: float
    seed: int


def place(
    policy: str,
    *,
    load: ArrayLike | None = None,
    expert_ids: ArrayLike | None = None,
    n_experts: int,
    n_slots: int,
    n_ranks: int,
    n_nodes: int,
    n_groups: int = 1,
    node_load_limit: float = 1.05,
    moves: int | None = None,
    start: Placement | None = None,
    seed: int = 0,
) -> Placement:
    """Place experts on ranks by a policy.

    Args:
        policy: contiguous, round_robin, random, greedy, eplb, eplb_hierarchical, eplb_global, lp, affinity,
            replicate_top or per_batch.
        load: [experts] or [layers, experts], counts or shares of a window of the past; counted from ``expert_ids``
            where it is not given.
        expert_ids: int [tokens, top_k] or [layers, tokens, top_k], -1 for none; affinity needs them.
        n_experts, n_slots, n_ranks, n_nodes: of a layer; ``n_slots`` above ``n_experts`` are room for replicas.
        n_groups: routing groups, contiguous in expert id; hierarchical EPLB keeps each on one node.
        node_load_limit: of affinity: the fullest node's load over the mean.
        moves: at most so many experts are moved from ``start``; None for a placement made anew.
        start: where the experts are now. With it, a placement made anew has its nodes and ranks numbered so that few
            experts move. By default ``moves`` counts from slot s holding expert s modulo ``n_experts``.
        seed: of random and of affinity's search.

    Returns:
        The placement, with a row per layer where load or ids have layers. That of lp and of per_batch says what
        share of its expert's load each replica takes.

    Raises:
        InputError: an unknown policy, counts that do not fit, or a policy without what it has to see.
    """
    if policy not in POLICIES:
        raise InputError(f"no policy {policy!r}", "placement", f"there are {', '.join(POLICIES)}")
    if n_slots < n_experts:
        raise InputError(f"{n_slots} slots for {n_experts} experts", "placement", "every expert needs one")
    if n_slots > n_experts and policy in SINGLE_SLOT_POLICIES:
        raise InputError(f"{policy} places no replicas", "placement", f"n_slots={n_experts}")
    if moves is not None and policy in FIXED_POLICIES:
        raise InputError(f"{policy} knows no load to choose moves by", "placement", "moves=None")
    on = Cluster(n_experts, n_slots, n_ranks, n_nodes, n_groups, node_load_limit, seed)
    loads, ids = _seen(policy, load, expert_ids, n_experts)
    n_layers = max(len(loads), len(ids))
    layered = (load is not None and np.ndim(load) == 2) or (expert_ids is not None and np.ndim(expert_ids) == 3)
    if layered and policy == "per_batch":
        raise InputError("per_batch plans one layer at a time", "placement", "give the load of one layer")
    made = []
    for layer in range(max(n_layers, 1)):
        begin = None if start is None else start.layer(layer)
        its_load = loads[layer] if len(loads) else np.ones(n_experts)
        its_ids = ids[layer] if len(ids) else None
        made.append(_one(policy, on, its_load, its_ids, moves, begin))
    if not layered:
        return made[0]
    shares = [one.share for one in made if one.share is not None]
    return Placement(
        np.stack([one.slot_expert for one in made]),
        made[0].slot_rank,
        n_ranks,
        share=np.stack(shares) if shares else None,
    )


def _one(
    policy: str, on: Cluster, load: NDArray[np.float64], ids: NDArray[np.int32] | None, moves: int | None,
    start: Placement | None,
) -> Placement:  # fmt: skip
    if policy == "per_batch":
        return prefetched(load, start or contiguous(on.n_experts, on.n_ranks), on.n_slots, moves)
    if policy == "affinity":
        assert ids is not None  # noqa: S101 - _seen asks for them
        return affinity(load, ids, on.n_slots, on.n_ranks, on.n_nodes, on.node_load_limit, on.seed, moves, start)
    if moves is None:
        made = _ANEW[policy](load, on)
        if start is not None and policy not in FIXED_POLICIES:
            made = renumbered(made, start, on.n_nodes)
    else:
        begin = start or in_turn(on.n_experts, on.n_slots, on.n_ranks)
        within = on.n_nodes if policy == "eplb_hierarchical" else 1
        made = fewer_moves(load, begin, moves, within)
    return with_lp_shares(made, load) if policy == "lp" else made


def _seen(
    policy: str, load: ArrayLike | None, expert_ids: ArrayLike | None, n_experts: int
) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Loads [layers, experts] and selections [layers, tokens, top_k], no layers where there is nothing to see."""
    ids: NDArray[Any] = np.empty((0, 0, 1), np.int32) if expert_ids is None else np.asarray(expert_ids)
    if ids.dtype.kind not in "iu" or ids.ndim not in (2, 3) or (ids.size and ids.max() >= n_experts):
        raise InputError(
            f"expert_ids has shape {ids.shape} and type {ids.dtype}", "placement",
            f"give whole numbers below {n_experts}, [tokens, top_k] or [layers, tokens, top_k]",
        )  # fmt: skip
    ids = ids if ids.ndim == 3 else ids[None]
    if policy == "affinity" and not ids.size:
        raise InputError("affinity needs to see which experts a token selects together", "placement", "expert_ids=ids")
    if load is None:
        loads = np.array([np.bincount(row[row >= 0], minlength=n_experts) for row in ids], dtype=np.float64)
    else:
        loads = np.atleast_2d(np.asarray(load, dtype=np.float64))
    if not loads.size and policy not in FIXED_POLICIES:
        raise InputError(f"{policy} needs to see a load", "placement", "load=counts or expert_ids=ids")
    loads = loads.reshape(-1, n_experts) if not loads.size else loads
    if loads.ndim != 2 or loads.shape[1] != n_experts or not (np.isfinite(loads).all() and (loads >= 0).all()):
        raise InputError(
            f"load has shape {loads.shape}, or a value below 0 or missing", "placement",
            f"give counts or shares of {n_experts} experts, with or without a layer axis",
        )  # fmt: skip
    if loads.size and ids.size and len(loads) != len(ids):
        raise InputError(f"loads of {len(loads)} layers, selections of {len(ids)}", "placement", "give the same layers")
    return loads, ids.astype(np.int32, copy=False)


def _greedy(load: NDArray[np.float64], on: Cluster) -> Placement:
    """The heaviest expert first, each to the least loaded rank with a slot left."""
    bins = pack(load.tolist(), rooms(on.n_slots, on.n_ranks))
    return Placement(np.concatenate(bins).astype(np.int32), ranks_of(on.n_slots, on.n_ranks), on.n_ranks)


def _replicate_top(load: NDArray[np.float64], on: Cluster) -> Placement:
    """Experts contiguous; the hottest get one replica each, hottest first, on the least loaded rank without it."""
    base = contiguous(on.n_experts, on.n_ranks)
    held: list[list[int]] = [base.slot_expert[base.slot_rank == rank].tolist() for rank in range(on.n_ranks)]
    room = rooms(on.n_slots, on.n_ranks)
    by_rank = np.bincount(base.slot_rank, weights=load[base.slot_expert], minlength=on.n_ranks)
    hottest = np.argsort(-load, kind="stable")
    for turn in range(on.n_slots - on.n_experts):
        expert = int(hottest[turn % on.n_experts])
        free = [rank for rank in range(on.n_ranks) if len(held[rank]) < room[rank]]
        to = min(free, key=lambda rank: (expert in held[rank], by_rank[rank]))
        holders = [rank for rank in range(on.n_ranks) if expert in held[rank]]
        for rank in holders:
            by_rank[rank] -= load[expert] / len(holders) - load[expert] / (len(holders) + 1)
        by_rank[to] += load[expert] / (len(holders) + 1)
        held[to].append(expert)
    return Placement(np.concatenate(held).astype(np.int32), ranks_of(on.n_slots, on.n_ranks), on.n_ranks)


def _eplb(load: NDArray[np.float64], on: Cluster) -> Placement:
    return eplb(load, on.n_slots, on.n_ranks, on.n_nodes, on.n_groups)


def _eplb_hierarchical(load: NDArray[np.float64], on: Cluster) -> Placement:
    """Groups to nodes first; where the nodes do not divide the groups, every expert is a group of its own."""
    if on.n_groups % on.n_nodes or on.n_groups < on.n_nodes:
        return eplb(load, on.n_slots, on.n_ranks, on.n_nodes, max(on.n_experts // on.n_nodes * on.n_nodes, 1))
    return _eplb(load, on)


def _eplb_global(load: NDArray[np.float64], on: Cluster) -> Placement:
    return eplb(load, on.n_slots, on.n_ranks, 1, 1)


_ANEW: Mapping[str, Callable[[NDArray[np.float64], Cluster], Placement]] = {
    "contiguous": lambda load, on: contiguous(on.n_experts, on.n_ranks),
    "round_robin": lambda load, on: round_robin(on.n_experts, on.n_ranks),
    "random": lambda load, on: at_random(on.n_experts, on.n_ranks, on.seed),
    "greedy": _greedy,
    "replicate_top": _replicate_top,
    "eplb": _eplb,
    "eplb_hierarchical": _eplb_hierarchical,
    "eplb_global": _eplb_global,
    "lp": _eplb_global,
}
