"""The inner loop of copy counting. Arrays and scalars only."""

import numba
import numpy as np
from numpy.typing import NDArray


@numba.njit(cache=True, nogil=True)
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
