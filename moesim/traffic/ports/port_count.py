"""The inner loop that counts copies at the ports of ranks, without a matrix of pairs. Arrays and scalars only."""

import numpy as np
from numpy.typing import NDArray

from moesim.compiling import njit

# Rows of the counts; ports first in dispatch, then, BACK rows on, in combine.
(
    SELECTIONS_SENT, SELECTIONS_RECEIVED, SELECTIONS_OWN, RANKS_SENT, RANKS_RECEIVED, RANKS_OWN, NODES_SENT, FORWARDED,
    NIC_OUT, NIC_IN, NVLINK_OUT, NVLINK_IN,
) = range(12)  # fmt: skip
BACK = 4
N_ROWS = 16
PER_SELECTION, PER_RANK, PER_NODE, PER_SELECTION_BY_NIC = range(4)


@njit(cache=True, nogil=True)
def cross(
    counts: NDArray[np.int64], source: int, target: int, same_node: bool, planes: int, rank_leaf: NDArray[np.int64],
    uplinks: NDArray[np.int64], by_plane: NDArray[np.int64], back: int,
) -> None:  # fmt: skip
    """Count one copy on the ports of its way; with planes it leaves by the GPU of the target's plane."""
    row = back * BACK
    if same_node:
        counts[row + NVLINK_OUT, source] += 1
        counts[row + NVLINK_IN, target] += 1
        return
    sender = source
    if planes:
        sender = source - source % planes + target % planes
        by_plane[back, source, target % planes] += 1
    else:
        counts[row + NIC_OUT, source] += 1
    counts[row + NIC_IN, target] += 1
    if rank_leaf[sender] != rank_leaf[target]:
        uplinks[2 * back, rank_leaf[sender]] += 1
        uplinks[2 * back + 1, rank_leaf[target]] += 1


@njit(cache=True, nogil=True)
def cross_both_ways(
    counts: NDArray[np.int64], source: int, target: int, same_node: bool, planes: int, rank_leaf: NDArray[np.int64],
    uplinks: NDArray[np.int64], by_plane: NDArray[np.int64],
) -> None:  # fmt: skip
    """Count a copy on its way in dispatch and on its way back in combine."""
    cross(counts, source, target, same_node, planes, rank_leaf, uplinks, by_plane, 0)
    cross(counts, target, source, same_node, planes, rank_leaf, uplinks, by_plane, 1)


@njit(cache=True, nogil=True)
def count_ports(
    slot_ids: NDArray[np.int32], token_rank: NDArray[np.int32], slot_rank: NDArray[np.int32], n_ranks: int,
    ranks_per_node: int, travels: int, planes: int, rank_leaf: NDArray[np.int64], counts: NDArray[np.int64],
    uplinks: NDArray[np.int64], by_plane: NDArray[np.int64],
) -> int:  # fmt: skip
    """Add each token's copies to ``counts[N_ROWS, ranks]``; return the first token with a slot out of range, or -1.

    ``travels``: what crosses wires, a copy ``PER_SELECTION``, ``PER_RANK``, ``PER_NODE`` (from the GPU of the same
    index there to each rank) or ``PER_SELECTION_BY_NIC``. ``FORWARDED`` counts the copies to ranks by the GPU of the
    source's index on their node, its own included. ``planes``: networks that no link joins, one per GPU of a node; 0
    for one network. ``uplinks[4, leaves]``: copies that climb from a leaf to the spines and that come down to it, in
    dispatch and in combine. ``by_plane[2, ranks, planes]``: copies by the plane that they leave by; with planes
    these stand for ``NIC_OUT``.
    """
    n_tokens, top_k = slot_ids.shape
    rank_mark = np.full(n_ranks, -1, np.int64)
    node_mark = np.full(-(-n_ranks // ranks_per_node), -1, np.int64)
    for t in range(n_tokens):
        source = token_rank[t]
        home, index = source // ranks_per_node, source % ranks_per_node
        for k in range(top_k):
            slot = slot_ids[t, k]
            if slot < -1 or slot >= slot_rank.shape[0]:
                return t
            if slot == -1:
                continue
            rank = slot_rank[slot]
            node = rank // ranks_per_node
            counts[SELECTIONS_SENT, source] += 1
            counts[SELECTIONS_RECEIVED, rank] += 1
            counts[SELECTIONS_OWN, source] += rank == source
            if travels in (PER_SELECTION, PER_SELECTION_BY_NIC) and rank != source:
                inside = node == home and travels == PER_SELECTION
                cross_both_ways(counts, source, rank, inside, planes, rank_leaf, uplinks, by_plane)
            size = min(ranks_per_node, n_ranks - node * ranks_per_node)
            forwarder = node * ranks_per_node + index % size
            if node_mark[node] != t:
                node_mark[node] = t
                counts[NODES_SENT, source] += 1
                if travels == PER_NODE and node != home:
                    cross_both_ways(counts, source, forwarder, False, planes, rank_leaf, uplinks, by_plane)
            if rank_mark[rank] != t:
                rank_mark[rank] = t
                counts[RANKS_SENT, source] += 1
                counts[RANKS_RECEIVED, rank] += 1
                counts[RANKS_OWN, source] += rank == source
                counts[FORWARDED, forwarder] += 1
                if travels == PER_NODE and rank != forwarder:
                    cross_both_ways(counts, forwarder, rank, True, planes, rank_leaf, uplinks, by_plane)
                elif travels == PER_RANK and rank != source:
                    cross_both_ways(counts, source, rank, node == home, planes, rank_leaf, uplinks, by_plane)
    return -1
