"""EPLB: replicate the loaded experts, then pack the replicas onto the ranks (DeepSeek's published balancer).

Two greedy procedures do all the work. *Replication*: each further slot goes to the expert with the
highest load per replica, which minimises the hottest slot. *Packing*: items go, heaviest first, to the
lightest bin with room left, and every bin ends with the same number of items. Where the nodes divide the
routing groups (hierarchical), groups are packed to nodes, experts replicated inside their node, replicas
packed to the node's ranks, so that group-limited routing still reaches few nodes; otherwise (global) the
whole cluster counts as one node.

Assumptions: an expert's replicas share its load evenly; load is additive. Greedy packing is not optimal,
and more slots can make the hottest *rank* hotter although the hottest slot never is.

Source: DeepSeek-V3 technical report, section 3.4, and github.com/deepseek-ai/EPLB, which takes equal groups
only and compares loads in float32. Here groups may differ by one expert, as ``numpy.array_split`` makes them,
and loads are float64, ties going to the lowest id.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moesim.errors import InputError
from moesim.placement.fixed import ranks_of
from moesim.placement.packing import pack, replicate
from moesim.placement.slots import Placement


def eplb(load: ArrayLike, n_slots: int, n_ranks: int, n_nodes: int, n_groups: int) -> Placement:
    """Plan a placement with replicas for the given expert load.

    ``load``: [experts] or [layers, experts], any unit, not negative; the placement has the same leading
    axis. ``n_slots``: experts plus redundant ones, a multiple of ``n_ranks``. ``n_groups``: routing
    groups, contiguous in expert id. Slots are numbered by rank. Raises ``InputError`` where the counts do
    not divide or the experts of a node do not fit its slots.
    """
    rows = np.asarray(load, dtype=np.float64)
    if rows.ndim not in (1, 2) or rows.size == 0:
        raise InputError(f"load has shape {rows.shape}", where="eplb", fix="give [experts] or [layers, experts]")
    if not (np.isfinite(rows).all() and (rows >= 0).all()):
        raise InputError("load holds a negative, infinite or missing value", where="eplb", fix="give counts or shares")
    n_experts = rows.shape[-1]
    counts = {"n_slots": n_slots, "n_ranks": n_ranks, "n_nodes": n_nodes, "n_groups": n_groups}
    for name, count in counts.items():
        if count < 1:
            raise InputError(f"{name} is {count}", where="eplb", fix="it must be at least 1")
    if n_groups % n_nodes:
        n_nodes = n_groups = 1  # the nodes do not divide the groups: global policy
    _check_fit(n_experts, n_slots, n_ranks, n_nodes, n_groups)
    groups = np.array_split(np.arange(n_experts), n_groups)
    plans = [_plan_layer(row, groups, n_slots, n_ranks, n_nodes) for row in np.atleast_2d(rows)]
    slot_expert = np.array(plans, dtype=np.int32)
    return Placement(slot_expert[0] if rows.ndim == 1 else slot_expert, ranks_of(n_slots, n_ranks), n_ranks)


def _plan_layer(
    load: NDArray[np.float64], groups: list[NDArray[np.int64]], n_slots: int, n_ranks: int, n_nodes: int
) -> list[int]:
    """Return the expert of each slot, the slots in order of their rank."""
    plan: list[int] = []
    by_group = [float(load[group].sum()) for group in groups]
    for node_groups in pack(by_group, [len(groups) // n_nodes] * n_nodes):
        experts = np.concatenate([groups[g] for g in node_groups])
        replicated, shared_load = replicate(load[experts], n_slots // n_nodes)
        for items in pack(shared_load.tolist(), [n_slots // n_ranks] * (n_ranks // n_nodes)):
            plan += experts[replicated[items]].tolist()
    return plan


def _check_fit(n_experts: int, n_slots: int, n_ranks: int, n_nodes: int, n_groups: int) -> None:
    if n_groups > n_experts:
        raise InputError(
            f"{n_groups} groups of {n_experts} experts", where="eplb", fix="a group has at least one expert"
        )
    if n_ranks % n_nodes:
        raise InputError(
            f"{n_ranks} ranks on {n_nodes} nodes", where="eplb", fix="every node must have the same number of ranks"
        )
    more = -(-max(n_slots, n_experts) // n_ranks) * n_ranks
    if n_slots % n_ranks:
        raise InputError(
            f"{n_slots} slots on {n_ranks} ranks", where="eplb", fix=f"give a multiple, for example {more}"
        )
    # Which groups share a node depends on the load; the largest ones may.
    groups_per_node, longer = n_groups // n_nodes, n_experts % n_groups
    most = n_experts // n_groups * groups_per_node + min(longer, groups_per_node)
    if most > n_slots // n_nodes:
        raise InputError(
            f"a node may hold {most} experts and has {n_slots // n_nodes} slots",
            where="eplb",
            fix="give more slots",
        )
