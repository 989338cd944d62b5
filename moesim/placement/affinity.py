"""Affinity: experts that tokens select together share a node, so that a token goes to fewer nodes.

From greedily balanced nodes, swaps of two experts of different nodes are annealed on the exact objective, tokens times
distinct nodes, while no node may exceed a limit on its load. Inside a node, hot experts get the node's spare slots and
slots are packed onto its ranks. Fewer nodes per token cost balance: ``affinity_frontier`` shows the exchange.

Source: the idea of github.com/sgl-project/sglang/issues/19772 and arXiv:2604.23150; the search is our own.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from moesim import csr
from moesim.errors import InputError
from moesim.placement.few_moves import renumbered
from moesim.placement.fixed import contiguous, in_turn, ranks_of
from moesim.placement.node_swaps import anneal, best_swaps, tokens_on_nodes
from moesim.placement.packing import pack, replicate, rooms
from moesim.placement.slots import Placement

MOST_TOKENS = 8192
"""Tokens that the search looks at, evenly spread over those given."""
SWAPS_PER_EXPERT = 400


def affinity(
    load: NDArray[np.float64],
    expert_ids: NDArray[np.int32],
    n_slots: int,
    n_ranks: int,
    n_nodes: int,
    node_load_limit: float = 1.05,
    seed: int = 0,
    moves: int | None = None,
    start: Placement | None = None,
) -> Placement:
    """Place one layer's experts by what tokens select together.

    Args:
        load: [experts].
        expert_ids: int32[tokens, top_k], -1 for none.
        n_slots, n_ranks, n_nodes: of the layer; every expert's replicas share its node.
        node_load_limit: load of the fullest node over the mean; where even balanced nodes exceed it, what they have.
        seed: of the search.
        moves: experts moved from ``start`` at most; None for a placement made anew.
        start: where the experts are; slot s holds expert s modulo the experts by default.
    """
    if moves is not None:
        begin = in_turn(len(load), n_slots, n_ranks) if start is None else start
        return _moved(load, expert_ids, begin, n_nodes, node_load_limit, moves)
    room, per_node = rooms(n_slots, n_ranks), -(-n_ranks // n_nodes)
    node_of = _search(load, expert_ids, room, n_nodes, node_load_limit, seed)
    plan: list[int] = []
    for node in range(-(-n_ranks // per_node)):
        experts = np.flatnonzero(node_of == node)
        its_room = room[node * per_node : (node + 1) * per_node]
        replicated, shared = replicate(load[experts], sum(its_room))
        for items in pack(shared.tolist(), its_room):
            plan += experts[replicated[items]].tolist()
    made = Placement(np.array(plan, dtype=np.int32), ranks_of(n_slots, n_ranks), n_ranks)
    return made if start is None else renumbered(made, start, n_nodes)


def affinity_frontier(
    load: NDArray[np.float64],
    expert_ids: NDArray[np.int32],
    n_ranks: int,
    n_nodes: int,
    limits: Sequence[float] = (1.0, 1.02, 1.05, 1.1, 1.2, 1.3, 1.5, 2.0),
    seed: int = 0,
) -> list[dict[str, float]]:
    """Return for each limit on node load, ascending: node load max / mean, and nodes per token, on what was seen."""
    rows: list[dict[str, float]] = []
    mean = float(load.sum()) / n_nodes
    for limit in limits:
        node_of = _search(load, expert_ids, rooms(len(load), n_ranks), n_nodes, limit, seed)
        fullest = float(np.bincount(node_of, weights=load, minlength=n_nodes).max())
        reached = (tokens_on_nodes(expert_ids, node_of, n_nodes) > 0).sum() / len(expert_ids)
        row = {"node_load": fullest / mean, "nodes_per_token": float(reached)}
        # What keeps a tighter limit keeps this one.
        tighter = [one for one in rows if one["node_load_limit"] <= limit]
        best = min([*tighter, row], key=lambda one: one["nodes_per_token"])
        rows.append({**best, "node_load_limit": limit})
    return rows


def _search(
    load: NDArray[np.float64], expert_ids: NDArray[np.int32], room: Sequence[int], n_nodes: int, limit: float, seed: int
) -> NDArray[np.int32]:
    """The node of each expert: as many on each as a contiguous placement has there, given the slots of each rank."""
    n_experts, n_ranks, per_node = len(load), len(room), -(-len(room) // n_nodes)
    sizes = np.bincount(contiguous(n_experts, n_ranks).slot_rank // per_node, minlength=n_nodes)
    if n_experts < n_ranks:  # no node with a slot is left without an expert to replicate
        node_room = np.bincount(np.arange(n_ranks) // per_node, weights=room, minlength=n_nodes)
        sizes = np.zeros(n_nodes, dtype=np.int64)
        for _ in range(n_experts):
            sizes[np.argmin(np.where(sizes < node_room, sizes, n_experts))] += 1
    node_of = np.empty(n_experts, dtype=np.int32)
    for node, experts in enumerate(pack(load.tolist(), sizes.tolist())):
        node_of[experts] = node
    if np.count_nonzero(sizes) < 2:
        return node_of
    seen, ptr, token = _sample(expert_ids, n_experts)
    rng = np.random.default_rng(seed)
    pairs = rng.integers(0, n_experts, (SWAPS_PER_EXPERT * n_experts, 2), dtype=np.int32)
    log_chance = np.log1p(-rng.random(len(pairs)))
    node_load = np.bincount(node_of, weights=load, minlength=n_nodes).astype(np.float64)
    # A swap of average experts changes the square root of their tokens' pairs, about.
    hot = max(1.0, 0.5 * np.sqrt(len(token) / n_experts))
    cap = limit * float(load.sum()) / n_nodes
    count = tokens_on_nodes(seen, node_of, n_nodes)
    anneal(pairs, log_chance, node_of, load, node_load, cap, count, ptr, token, hot, 0.05 * hot)
    return node_of


def _moved(
    load: NDArray[np.float64], expert_ids: NDArray[np.int32], start: Placement, n_nodes: int, limit: float, moves: int
) -> Placement:
    """The best swaps, by nodes per token and by the fullest rank alike."""
    per_node = -(-start.n_ranks // n_nodes)
    node_of = (start.home_rank() // per_node).astype(np.int32)
    if (node_of[start.slot_expert] != start.slot_rank // per_node).any() or (start.replicas() > 1).any():
        raise InputError(
            "affinity moves single slots, and this start holds replicas", "placement.moves",
            "leave moves out, or start from a placement without replicas",
        )  # fmt: skip
    seen, ptr, token = _sample(expert_ids, len(load))
    share = load / max(float(load.sum()), 1e-300)
    node_load = np.bincount(node_of, weights=share, minlength=n_nodes).astype(np.float64)
    rank_of = start.home_rank().astype(np.int32)
    rank_load = np.bincount(rank_of, weights=share, minlength=start.n_ranks).astype(np.float64)
    count = tokens_on_nodes(seen, node_of, n_nodes)
    best_swaps(moves, node_of, share, node_load, limit / n_nodes, count, ptr, token, rank_of, rank_load)
    expert = np.argsort(rank_of, kind="stable").astype(np.int32)
    return Placement(expert, rank_of[expert], start.n_ranks)


def _sample(
    expert_ids: NDArray[np.int32], n_experts: int
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int32]]:
    """Tokens for the search, and for each expert the rows of those that select it."""
    stride = -(-len(expert_ids) // MOST_TOKENS)
    seen = np.ascontiguousarray(expert_ids[::stride], dtype=np.int32)
    row = np.repeat(np.arange(len(seen), dtype=np.int32), seen.shape[1])
    taken = seen.ravel() >= 0
    ptr, token = csr.grouped(seen.ravel()[taken], row[taken], n_experts)
    return seen, ptr, token
