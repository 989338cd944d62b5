"""Unions and gaps of time intervals, per group: link busy times and ranks' waits come down to these two.

Intervals of a group lie together (CSR) and are sorted by their start.
"""

import numpy as np
from numpy.typing import NDArray

from moesim.compiling import njit

Floats = NDArray[np.float64]
Ptrs = NDArray[np.int64]


@njit(cache=True)
def union_length(ptr: Ptrs, start: Floats, end: Floats) -> Floats:
    """Length of the union of each group's intervals, [groups], in the unit of the intervals."""
    length = np.zeros(len(ptr) - 1)
    for group in range(len(ptr) - 1):
        covered = -np.inf
        for i in range(ptr[group], ptr[group + 1]):
            begin = max(start[i], covered)
            if end[i] > begin:
                length[group] += end[i] - begin
                covered = end[i]
    return length


@njit(cache=True)
def gaps(
    ptr: Ptrs, start: Floats, end: Floats, opener: NDArray[np.int32], covered_from: Floats
) -> tuple[Floats, NDArray[np.int32]]:
    """Time of each group that none of its intervals covers, and who ended the longest such gap.

    Args:
        ptr: intervals of each group (CSR), sorted by start.
        start, end: the intervals.
        opener: who made the interval start, aligned with the intervals.
        covered_from: from when on the group's time is looked at, [groups].

    Returns:
        Total length of the gaps between ``covered_from`` and the last interval, and the opener of the interval behind
        the longest gap (-1 where there is none), [groups] each.
    """
    total = np.zeros(len(ptr) - 1)
    blamed = np.full(len(ptr) - 1, -1, np.int32)
    for group in range(len(ptr) - 1):
        covered = covered_from[group]
        longest = 0.0
        for i in range(ptr[group], ptr[group + 1]):
            gap = start[i] - covered
            if gap > 0.0:
                total[group] += gap
                if gap > longest:
                    longest = gap
                    blamed[group] = opener[i]
            covered = max(covered, end[i])
    return total, blamed
