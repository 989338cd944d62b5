"""Search for nodes that hold the experts that tokens select together: two experts of different nodes swap places.

What is minimised is the number of (token, node) pairs with an expert of the token on the node. Kernels only.
"""

import math

import numpy as np
from numpy.typing import NDArray

from moesim.compiling import njit


@njit(cache=True, nogil=True)
def tokens_on_nodes(ids: NDArray[np.int32], node_of: NDArray[np.int32], n_nodes: int) -> NDArray[np.int16]:
    """Count each token's experts on each node: int16[tokens, nodes]."""
    count = np.zeros((len(ids), n_nodes), np.int16)
    for t in range(len(ids)):
        for k in range(ids.shape[1]):
            if ids[t, k] >= 0:
                count[t, node_of[ids[t, k]]] += 1
    return count


@njit(cache=True, nogil=True)
def change_of_swap(
    first: int, second: int, node_of: NDArray[np.int32], count: NDArray[np.int16], ptr: NDArray[np.int64],
    token: NDArray[np.int32], mark: NDArray[np.int64], stamp: int,
) -> int:  # fmt: skip
    """Return by how much (token, node) pairs change if two experts swap nodes; tokens that select both do not.

    ``token[ptr[e]:ptr[e + 1]]`` select expert e; ``mark`` [tokens] is scratch that holds neither ``stamp`` nor -stamp.
    """
    a, b = node_of[first], node_of[second]
    change = 0
    for i in range(ptr[second], ptr[second + 1]):
        mark[token[i]] = stamp
    for i in range(ptr[first], ptr[first + 1]):
        t = token[i]
        if mark[t] == stamp:
            mark[t] = -stamp
        else:
            change += int(count[t, b] == 0) - int(count[t, a] == 1)
    for i in range(ptr[second], ptr[second + 1]):
        t = token[i]
        if mark[t] == stamp:
            change += int(count[t, a] == 0) - int(count[t, b] == 1)
    return change


@njit(cache=True, nogil=True)
def swap(
    first: int, second: int, node_of: NDArray[np.int32], load: NDArray[np.float64], node_load: NDArray[np.float64],
    count: NDArray[np.int16], ptr: NDArray[np.int64], token: NDArray[np.int32],
) -> None:  # fmt: skip
    """Let two experts swap nodes; every argument but the lists of tokens and the load is updated."""
    a, b = node_of[first], node_of[second]
    for i in range(ptr[first], ptr[first + 1]):
        count[token[i], a] -= 1
        count[token[i], b] += 1
    for i in range(ptr[second], ptr[second + 1]):
        count[token[i], b] -= 1
        count[token[i], a] += 1
    node_load[a] += load[second] - load[first]
    node_load[b] += load[first] - load[second]
    node_of[first], node_of[second] = b, a


@njit(cache=True, nogil=True)
def allowed(
    first: int, second: int, node_of: NDArray[np.int32], load: NDArray[np.float64], node_load: NDArray[np.float64],
    cap: float,
) -> bool:  # fmt: skip
    """Whether no node exceeds the cap after a swap, or the fuller of the two that did is relieved."""
    a, b = node_of[first], node_of[second]
    if a == b:
        return False
    gain = load[second] - load[first]
    fullest = max(node_load[a] + gain, node_load[b] - gain)
    return bool(fullest <= max(cap, max(node_load[a], node_load[b])))


@njit(cache=True, nogil=True)
def anneal(
    pairs: NDArray[np.int32], log_chance: NDArray[np.float64], node_of: NDArray[np.int32], load: NDArray[np.float64],
    node_load: NDArray[np.float64], cap: float, count: NDArray[np.int16], ptr: NDArray[np.int64],
    token: NDArray[np.int32], hot: float, cold: float,
) -> None:  # fmt: skip
    """Try the swaps of ``pairs`` [n, 2] in order; take one that adds pairs c with probability exp(-c / temperature).

    The temperature falls from ``hot`` to ``cold`` in equal ratios. ``log_chance`` [n]: logarithms of uniform numbers.
    """
    mark = np.zeros(len(count), np.int64)
    for step in range(len(pairs)):
        first, second = pairs[step]
        if not allowed(first, second, node_of, load, node_load, cap):
            continue
        change = change_of_swap(first, second, node_of, count, ptr, token, mark, step + 1)
        temperature = hot * math.exp(math.log(cold / hot) * step / len(pairs))
        if change <= 0 or log_chance[step] < -change / temperature:
            swap(first, second, node_of, load, node_load, count, ptr, token)


@njit(cache=True, nogil=True)
def best_swaps(
    moves: int, node_of: NDArray[np.int32], load: NDArray[np.float64], node_load: NDArray[np.float64], cap: float,
    count: NDArray[np.int16], ptr: NDArray[np.int64], token: NDArray[np.int32], rank_of: NDArray[np.int32],
    rank_load: NDArray[np.float64],
) -> None:  # fmt: skip
    """Take the best swap of two ranks' experts, again and again, until ``moves`` experts are not where they were.

    The best one leaves the least product of (token, node) pairs and of the ranks' loads in the eighth norm, nearly the
    fullest rank's. ``node_of`` and ``rank_of`` [experts] and all loads are updated.
    """
    home = rank_of.copy()
    mark = np.zeros(len(count), np.int64)
    stamp, pairs, moved = 0, float((count > 0).sum()), 0
    while True:
        power = (rank_load**8).sum()
        best, one, other, its_pairs, its_moved = pairs**8 * power * (1 - 1e-9), -1, -1, pairs, moved
        for first in range(len(load)):
            for second in range(first + 1, len(load)):
                p, q = rank_of[first], rank_of[second]
                away = moved + int(home[first] != q) + int(home[second] != p)
                away -= int(home[first] != p) + int(home[second] != q)
                if p == q or away > moves:
                    continue
                change = 0
                if node_of[first] != node_of[second]:
                    if not allowed(first, second, node_of, load, node_load, cap):
                        continue
                    stamp += 1
                    change = change_of_swap(first, second, node_of, count, ptr, token, mark, stamp)
                gain = load[second] - load[first]
                after = power - rank_load[p] ** 8 - rank_load[q] ** 8
                after += (rank_load[p] + gain) ** 8 + (rank_load[q] - gain) ** 8
                merit = (pairs + change) ** 8 * after
                if merit < best:
                    best, one, other, its_pairs, its_moved = merit, first, second, pairs + change, away
        if one < 0:
            return
        if node_of[one] != node_of[other]:
            swap(one, other, node_of, load, node_load, count, ptr, token)
        p, q = rank_of[one], rank_of[other]
        rank_load[p] += load[other] - load[one]
        rank_load[q] += load[one] - load[other]
        rank_of[one], rank_of[other] = q, p
        pairs, moved = its_pairs, its_moved
