"""What balancers are built of: further replicas of the hottest experts, and items into bins that hold a set number.

Both are greedy. An expert's replicas share its load evenly.
"""

import heapq
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def rooms(n_slots: int, n_ranks: int) -> list[int]:
    """Return the slots of each rank, as even as they can be; the first ranks have one more where they cannot."""
    base, longer = divmod(n_slots, n_ranks)
    return [base + (rank < longer) for rank in range(n_ranks)]


def replicate(load: NDArray[np.float64], n_slots: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the expert of each of ``n_slots`` slots, and the load per slot; ties go to the lowest expert.

    Each further slot goes to the expert with the highest load per replica, which minimises the hottest slot.
    """
    slot_expert = np.arange(n_slots)
    replicas = np.ones(len(load), dtype=np.int64)
    for slot in range(len(load), n_slots):
        slot_expert[slot] = hottest = np.argmax(load / replicas)
        replicas[hottest] += 1
    return slot_expert, (load / replicas)[slot_expert]


def pack(weight: Sequence[float], room: Sequence[int]) -> list[list[int]]:
    """Return the items of each bin, ``room`` of them: heaviest first, each to the lightest bin with room left.

    Ties go to the lowest item and the lowest bin.
    """
    if all(space == 1 for space in room):
        return [[item] for item in range(len(room))]  # nothing to balance: items keep their order
    bins: list[list[int]] = [[] for _ in room]
    lightest = [(0.0, b) for b, space in enumerate(room) if space]
    for item in sorted(range(len(weight)), key=lambda i: -weight[i]):
        total, b = heapq.heappop(lightest)
        bins[b].append(item)
        if len(bins[b]) < room[b]:
            heapq.heappush(lightest, (total + weight[item], b))
    return bins
