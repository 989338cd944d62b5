"""What a placement is worth on given selections, without a network: load of slots, ranks and nodes, nodes per token.

Tokens start evenly spread: token t on rank t modulo the ranks. Each selection goes to the replica that ``choose`` gives
it, as in a run; where a placement has shares, loads are those of the shares, which a balancer deals out exactly.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim import csr
from moesim.compiling import njit
from moesim.errors import InputError
from moesim.placement.replica import nearest_replicas
from moesim.placement.slots import Placement, ReplicaChoice

BATCH_TOKENS = 512


@dataclass(frozen=True)
class Worth:
    """Max / mean load of slots, ranks and nodes; of the ranks batch by batch, the mean over the batches.

    ``nodes_per_token``: different nodes that hold a token's experts. ``crossings_per_token``: those besides its own.
    """

    slot: float
    rank: float
    node: float
    batch: float
    nodes_per_token: float
    crossings_per_token: float


def worth(
    placement: Placement,
    expert_ids: NDArray[np.int32],
    rank_node: NDArray[np.int32],
    replica_choice: ReplicaChoice = "same_node",
    seed: int = 0,
    batch_tokens: int = BATCH_TOKENS,
) -> Worth:
    """Judge the placement of one layer on every selection, exactly.

    Args:
        placement: of the layer.
        expert_ids: int32[tokens, top_k], -1 for none.
        rank_node: node of each rank, int32[ranks].
        replica_choice: which replica a token takes.
        seed: of that choice.
        batch_tokens: tokens of a batch; a last one that is not full is left out unless it is the only one.

    Raises:
        InputError: a token selects an expert that the placement does not have.
    """
    if expert_ids.size and expert_ids.max() >= placement.n_experts:
        raise InputError(f"no expert {expert_ids.max()}", "worth", f"the placement has {placement.n_experts}")
    n_ranks, n_nodes = placement.n_ranks, int(rank_node.max()) + 1
    slot = np.arange(placement.n_slots, dtype=np.int32)
    first, slots = csr.grouped(placement.slot_expert, slot, placement.n_experts)
    visited, table = np.ascontiguousarray(expert_ids, dtype=np.int32), slots[first[:-1]][None]
    if placement.n_slots > placement.n_experts:
        per_node = int(np.bincount(rank_node).max())
        if replica_choice == "same_node" and placement.share is None:
            table = nearest_replicas(slots, first, placement.slot_rank, n_ranks, per_node, seed % 2**31)
        else:
            source = np.arange(len(visited), dtype=np.int32) % n_ranks
            visited, table = placement.choose(visited, source, per_node, replica_choice, seed), slot[None]
    size = max(1, min(batch_tokens, len(visited)))
    slot_tokens, fullest, nodes, crossings = _visit(
        visited, table, placement.slot_rank, rank_node.astype(np.int32), n_ranks, n_nodes, size
    )
    slot_load: NDArray[np.float64] = slot_tokens.astype(np.float64)
    if placement.share is not None:
        slot_load = placement.planned_slot_load(np.bincount(placement.slot_expert, slot_load))
        fullest = _planned_fullest(placement, expert_ids, size)
    by_rank = np.bincount(placement.slot_rank, weights=slot_load, minlength=n_ranks)
    tokens = max(1, len(visited))
    return Worth(
        slot=_over_mean(slot_load),
        rank=_over_mean(by_rank),
        node=_over_mean(np.bincount(rank_node, weights=by_rank)),
        batch=float(fullest.mean()) if fullest.size else 1.0,
        nodes_per_token=nodes / tokens,
        crossings_per_token=crossings / tokens,
    )


def _planned_fullest(placement: Placement, expert_ids: NDArray[np.int32], size: int) -> NDArray[np.float64]:
    """The fullest rank of each batch over the mean, by the placement's shares."""
    assert placement.share is not None  # noqa: S101 - asked by the caller
    to_rank = np.zeros((placement.n_experts, placement.n_ranks))
    np.add.at(to_rank, (placement.slot_expert, placement.slot_rank), placement.share)
    found = []
    for begin in range(0, len(expert_ids) - size + 1, size):
        ids = expert_ids[begin : begin + size]
        found.append(_over_mean(np.bincount(ids[ids >= 0], minlength=placement.n_experts) @ to_rank))
    return np.array(found)


def _over_mean(load: NDArray[Any]) -> float:
    return float(load.max() / load.mean()) if load.sum() else 1.0


@njit(cache=True, nogil=True)
def _visit(
    ids: NDArray[np.int32], table: NDArray[np.int32], slot_rank: NDArray[np.int32], rank_node: NDArray[np.int32],
    n_ranks: int, n_nodes: int, size: int,
) -> tuple[NDArray[np.int64], NDArray[np.float64], int, int]:  # fmt: skip
    """Follow every selection: slot ``table[source, id]``, or of row 0 where the source does not matter.

    Returns selections [slots], max / mean of the ranks [batches], (token, node) pairs, and those of other nodes.
    """
    slot_tokens = np.zeros(len(slot_rank), np.int64)
    fullest = np.ones(len(ids) // size)
    in_batch, by_rank = np.zeros(len(slot_rank), np.int64), np.zeros(n_ranks, np.int64)
    # The nodes that a token reaches are bits, 62 to a word.
    reached = np.zeros(n_nodes // 62 + 1, np.int64)
    word = (rank_node[slot_rank] // 62).astype(np.int64)
    bit = np.left_shift(np.int64(1), (rank_node[slot_rank] % 62).astype(np.int64))
    nodes, crossings, source = 0, 0, 0
    for t in range(len(ids)):
        row = source if len(table) > 1 else 0
        for k in range(ids.shape[1]):
            if ids[t, k] >= 0:
                slot = table[row, ids[t, k]]
                in_batch[slot] += 1
                reached[word[slot]] |= bit[slot]
        own = rank_node[source]
        crossings -= (reached[own // 62] >> (own % 62)) & 1
        for w in range(len(reached)):
            while reached[w]:
                reached[w] &= reached[w] - 1
                nodes += 1
        source = source + 1 if source + 1 < n_ranks else 0
        if (t + 1) % size == 0 or t + 1 == len(ids):
            by_rank[:] = 0
            for slot in range(len(in_batch)):
                slot_tokens[slot] += in_batch[slot]
                by_rank[slot_rank[slot]] += in_batch[slot]
            in_batch[:] = 0
            if by_rank.any() and (t + 1) % size == 0:
                fullest[t // size] = by_rank.max() * n_ranks / by_rank.sum()
    return slot_tokens, fullest, nodes, nodes + crossings
