"""Which groups a token may reach, and the best experts in them, on keys whose chunks are sorted."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from moesim.routing.top_eight import LOWEST, merge_chunk

# Up to so many groups each is compared with each, which takes no branches.
_FEW_GROUPS = 32


@njit(cache=True, nogil=True, error_model="numpy")
def best_two(keys: NDArray[np.int64], first_chunk: int, end_chunk: int) -> tuple[int, int]:
    """Return the two largest keys of a group whose chunks are sorted."""
    first, second = LOWEST, LOWEST
    for i in range(first_chunk, end_chunk):
        for c in range(4):
            second = max(second, min(first, keys[i, c]))
            first = max(first, keys[i, c])
        second = max(second, max(max(keys[i, 4], keys[i, 5]), max(keys[i, 6], keys[i, 7])))
    return first, second


@njit(cache=True, nogil=True)
def nth_largest(value: NDArray[np.float32], n: int) -> np.float32:
    """Return the n-th largest of the values."""
    best = np.full(n, -np.inf, np.float32)
    for own in value:
        if own > best[n - 1]:
            at = n - 1
            while at > 0 and best[at - 1] < own:
                best[at] = best[at - 1]
                at -= 1
            best[at] = own
    return np.float32(best[n - 1])


@njit(cache=True, nogil=True, error_model="numpy")
def keep_groups(value: NDArray[np.float32], margin: float, top_groups: int, ordered: NDArray[np.int64]) -> bool:
    """Write the groups with the highest values, ties to the lowest, in ascending order, and then those left out.

    Returns whether the lowest value kept exceeds the highest left out by more than ``margin``; a negative margin
    stands for values that are exact.
    """
    n_groups, kept, left = value.shape[0], 0, top_groups
    lowest, highest = np.float32(np.inf), np.float32(-np.inf)
    bound = nth_largest(value, top_groups) if n_groups > _FEW_GROUPS else lowest
    ties = 0
    if n_groups > _FEW_GROUPS:
        for g in range(n_groups):
            ties += value[g] > bound
        ties = top_groups - ties
    for g in range(n_groups):
        own = value[g]
        if n_groups > _FEW_GROUPS:
            takes = own > bound or (own == bound and ties > 0)
            ties -= takes and own == bound
        else:
            above = 0
            for h in range(n_groups):
                above += (value[h] > own) | ((value[h] == own) & (h < g))
            takes = above < top_groups
        if takes:
            ordered[kept] = g
            kept += 1
            lowest = min(lowest, own)
        else:
            ordered[left] = g
            left += 1
            highest = max(highest, own)
    return bool(margin < 0.0 or np.float64(lowest) - np.float64(highest) > margin)


@njit(cache=True, nogil=True, error_model="numpy")
def merge_groups(
    keys: NDArray[np.int64], chunk_ptr: NDArray[np.int64], which: NDArray[np.int64], best: NDArray[np.int64]
) -> None:
    """Keep in each column of ``best`` the eight largest keys of its own and of groups whose chunks are sorted."""
    for i in range(which.shape[0]):
        for chunk in range(chunk_ptr[which[i]], chunk_ptr[which[i] + 1]):
            merge_chunk(best, keys, chunk)


@njit(cache=True, nogil=True, error_model="numpy")
def count_from(keys: NDArray[np.int64], chunk_ptr: NDArray[np.int64], which: NDArray[np.int64], lowest: int) -> int:
    """Count the keys of some groups that are at least ``lowest``."""
    count = 0
    for i in range(which.shape[0]):
        for chunk in range(chunk_ptr[which[i]], chunk_ptr[which[i] + 1]):
            for c in range(keys.shape[1]):
                count += keys[chunk, c] >= lowest
    return count
