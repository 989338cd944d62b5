"""The inner loop of copy counting, and the same in numpy where it is not compiled. Arrays and scalars only."""

import numpy as np
from numpy.typing import NDArray

from moesim.compiling import interpreted, njit


@njit(cache=True, nogil=True)
def count_tokens(
    slot_ids: NDArray[np.int32],
    token_rank: NDArray[np.int32],
    slot_rank: NDArray[np.int32],
    ranks_per_node: int,
    selections: NDArray[np.int64],
    rank_copies: NDArray[np.int64],
    node_copies: NDArray[np.int64],
) -> int:
    """Add each token's copies to the three matrices; return the first token with a slot out of range, or -1.

    Ranks must be in range. A rank or node counts once per token: a mark remembers the last token that met it.
    """
    n_tokens, top_k = slot_ids.shape
    n_slots = len(slot_rank)
    rank_mark = np.full(rank_copies.shape[1], -1, np.int64)
    node_mark = np.full(node_copies.shape[1], -1, np.int64)
    slot_node = slot_rank // ranks_per_node
    for t in range(n_tokens):
        source = token_rank[t]
        for k in range(top_k):
            slot = slot_ids[t, k]
            if slot < -1 or slot >= n_slots:
                return t
            if slot == -1:
                continue
            rank, node = slot_rank[slot], slot_node[slot]
            selections[source, rank] += 1
            if rank_mark[rank] != t:
                rank_mark[rank] = t
                rank_copies[source, rank] += 1
            if node_mark[node] != t:
                node_mark[node] = t
                node_copies[source, node] += 1
    return -1


def count_in_numpy(
    slot_ids: NDArray[np.int32],
    token_rank: NDArray[np.int32],
    slot_rank: NDArray[np.int32],
    ranks_per_node: int,
    selections: NDArray[np.int64],
    rank_copies: NDArray[np.int64],
    node_copies: NDArray[np.int64],
) -> int:
    """Do what ``count_tokens`` does."""
    wrong = ((slot_ids < -1) | (slot_ids >= len(slot_rank))).any(axis=1)
    n = int(np.argmax(wrong)) if wrong.any() else len(slot_ids)
    there = slot_ids[:n] >= 0
    rank, source = slot_rank[slot_ids[:n]], np.broadcast_to(token_rank[:n, None], there.shape)
    np.add.at(selections, (source[there], rank[there]), 1)
    for copies, group in ((rank_copies, rank), (node_copies, rank // ranks_per_node)):
        met = np.sort(np.where(there, group, -1), axis=1)  # each group of a token counts where it first appears
        first = (met >= 0) & (np.diff(met, axis=1, prepend=-1) > 0)
        np.add.at(copies, (source[first], met[first]), 1)
    return n if n < len(slot_ids) else -1


if interpreted():
    count_tokens = count_in_numpy
