"""The inner loops that give each selection its replica; callers have checked the ranges.

Replicas of expert ``e`` are ``slots[first[e]:first[e + 1]]``, lowest slot first.
"""

import numpy as np
from numpy.typing import NDArray

from moesim.compiling import njit

_OWN_RANK, _OWN_NODE, _ANYWHERE = 0, 1, 2


@njit(cache=True)
def nearest_replicas(
    slots: NDArray[np.int32],
    first: NDArray[np.int64],
    slot_rank: NDArray[np.int32],
    n_ranks: int,
    ranks_per_node: int,
    seed: int,
) -> NDArray[np.int32]:
    """Return the slot that each source rank uses for each expert: int32[ranks, experts].

    Ranks that hold a replica use it, then ranks on a node that holds one, then all others. Among equally
    near replicas a rank takes the one with the fewest source ranks so far; ties start at a replica that
    differs from expert to expert, so that the first rank does not find all its experts in first replicas.
    """
    n_experts = len(first) - 1
    nearest = np.full((n_ranks, n_experts), -1, np.int32)
    served = np.zeros(len(slots), np.int64)
    for expert in range(n_experts):
        begin, n_replicas = first[expert], first[expert + 1] - first[expert]
        if n_replicas == 1:
            nearest[:, expert] = slots[begin]
            continue
        for reach in (_OWN_RANK, _OWN_NODE, _ANYWHERE):
            for rank in range(n_ranks):
                if nearest[rank, expert] >= 0:
                    continue
                best = -1
                for turn in range(n_replicas):
                    slot = slots[begin + (turn + expert + seed) % n_replicas]
                    at = slot_rank[slot]
                    if reach == _OWN_RANK and at != rank:
                        continue
                    if reach == _OWN_NODE and at // ranks_per_node != rank // ranks_per_node:
                        continue
                    if best < 0 or served[slot] < served[best]:
                        best = slot
                if best >= 0:
                    nearest[rank, expert] = best
                    served[best] += 1
    return nearest


def take_nearest(
    expert_ids: NDArray[np.int32], token_rank: NDArray[np.int32], nearest: NDArray[np.int32]
) -> NDArray[np.int32]:
    """Look the selections up in the table of ``nearest_replicas``: int32[tokens, top_k]."""
    return np.where(expert_ids >= 0, nearest[token_rank[:, None], expert_ids], np.int32(-1))


@njit(cache=True)
def take_turns(
    expert_ids: NDArray[np.int32],
    slots: NDArray[np.int32],
    first: NDArray[np.int64],
    seed: int,
    first_token: int,
) -> NDArray[np.int32]:
    """Give token t replica number (t + expert + seed) modulo the expert's replicas: int32[tokens, top_k]."""
    n_tokens, top_k = expert_ids.shape
    chosen = np.full((n_tokens, top_k), -1, np.int32)
    for t in range(n_tokens):
        for k in range(top_k):
            expert = expert_ids[t, k]
            if expert >= 0:
                # With the expert in it, a token's replicated experts are not all at the same turn.
                turn = (first_token + t + expert + seed) % (first[expert + 1] - first[expert])
                chosen[t, k] = slots[first[expert] + turn]
    return chosen


@njit(cache=True)
def drawn_replicas(
    expert_ids: NDArray[np.int32],
    slots: NDArray[np.int32],
    first: NDArray[np.int64],
    share: NDArray[np.float64],
    seed: int,
    first_token: int,
) -> NDArray[np.int32]:
    """Draw a replica from a hash of seed (31 bits), token and expert: int32[tokens, top_k].

    ``share``: that of each replica, in the order of ``slots``; empty where all are as likely.
    """
    n_tokens, top_k = expert_ids.shape
    chosen = np.full((n_tokens, top_k), -1, np.int32)
    start = _mix(seed)
    for t in range(n_tokens):
        token = _mix(start ^ ((first_token + t) % 2147483648))
        for k in range(top_k):
            expert = expert_ids[t, k]
            if expert >= 0:
                # Widened, because the products in the hash need 61 bits also where numba is off.
                draw, at, end = _mix(token ^ int(expert)), first[expert], first[expert + 1]
                if len(share) == 0:
                    at += draw % (end - at)
                else:
                    left = draw / 2147483648.0
                    while at + 1 < end and left >= share[at]:
                        left -= share[at]
                        at += 1
                chosen[t, k] = slots[at]
    return chosen


@njit(cache=True)
def _mix(value: int) -> int:
    """Scramble the low 31 bits of a non-negative integer, one to one.

    Odd multipliers and right shifts are invertible modulo 2^31; 31 bits keep every product inside int64,
    so that plain Python integers give the same value.
    """
    value = (value ^ (value >> 16)) * 0x45D9F3B % 2147483648
    value = (value ^ (value >> 15)) * 0x2C1B3C6D % 2147483648
    return value ^ (value >> 16)
