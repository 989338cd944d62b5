"""The eight best of many: a sorting network over columns of keys, without branches that depend on the data.

A key is one int64: the logit's bits in an order that integers keep, above the expert's id turned round. So keys are
all different, a larger key is a higher logit, and among equal logits the lower id wins.

Keys come in *chunks* of 32, eight rows of four columns. ``sort_chunks`` orders every column, ``merge_chunk`` keeps
column by column the eight best of two chunks, ``finish`` keeps those of a chunk's four columns. Every step is the same
whatever the keys are, so it runs on vectors and no branch is mispredicted.

Source: Batcher, "Sorting networks and their applications" (1968): odd-even merge sort of eight, 19 comparators, and
the bitonic merge.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

Keys = NDArray[np.int64]

ROWS, COLUMNS = 8, 4
CHUNK = ROWS * COLUMNS
ID_MASK = 0x7FFFFFFF
LOWEST = np.iinfo(np.int64).min
"""Below every key: fills a chunk that has fewer than 32."""


@njit(cache=True, nogil=True)
def sorted_eight(
    a: int, b: int, c: int, d: int, e: int, f: int, g: int, h: int
) -> tuple[int, int, int, int, int, int, int, int]:
    """Sort eight keys, the largest first."""
    a, b, c, d = max(a, b), min(a, b), max(c, d), min(c, d)
    e, f, g, h = max(e, f), min(e, f), max(g, h), min(g, h)
    a, c, b, d = max(a, c), min(a, c), max(b, d), min(b, d)
    e, g, f, h = max(e, g), min(e, g), max(f, h), min(f, h)
    b, c, f, g = max(b, c), min(b, c), max(f, g), min(f, g)
    a, e, b, f = max(a, e), min(a, e), max(b, f), min(b, f)
    c, g, d, h = max(c, g), min(c, g), max(d, h), min(d, h)
    c, e, d, f = max(c, e), min(c, e), max(d, f), min(d, f)
    b, c, d, e, f, g = max(b, c), min(b, c), max(d, e), min(d, e), max(f, g), min(f, g)
    return a, b, c, d, e, f, g, h


@njit(cache=True, nogil=True)
def sorted_bitonic(
    a: int, b: int, c: int, d: int, e: int, f: int, g: int, h: int
) -> tuple[int, int, int, int, int, int, int, int]:
    """Sort eight keys that first rise and then fall (or the other way round), the largest first."""
    a, e, b, f = max(a, e), min(a, e), max(b, f), min(b, f)
    c, g, d, h = max(c, g), min(c, g), max(d, h), min(d, h)
    a, c, b, d = max(a, c), min(a, c), max(b, d), min(b, d)
    e, g, f, h = max(e, g), min(e, g), max(f, h), min(f, h)
    a, b, c, d = max(a, b), min(a, b), max(c, d), min(c, d)
    e, f, g, h = max(e, f), min(e, f), max(g, h), min(g, h)
    return a, b, c, d, e, f, g, h


# Whole arrays with an index are handed on below, not slices: each slice would be counted in and out, atomically.
@njit(cache=True, nogil=True)
def sort_chunks(keys: Keys) -> None:
    """Sort each column of each chunk in ``keys[chunks, 32]``."""
    for i in range(keys.shape[0]):
        # The compiler must not see that there are four columns, or it writes them out instead of using vectors.
        for c in range(keys.shape[1] >> 3):
            (
                keys[i, c], keys[i, c + 4], keys[i, c + 8], keys[i, c + 12],
                keys[i, c + 16], keys[i, c + 20], keys[i, c + 24], keys[i, c + 28],
            ) = sorted_eight(
                keys[i, c], keys[i, c + 4], keys[i, c + 8], keys[i, c + 12],
                keys[i, c + 16], keys[i, c + 20], keys[i, c + 24], keys[i, c + 28],
            )  # fmt: skip


@njit(cache=True, nogil=True)
def merge_chunk(best: Keys, keys: Keys, i: int) -> None:
    """Keep in each column of ``best[32]`` the eight largest of its own and those of the sorted chunk ``keys[i]``."""
    for c in range(keys.shape[1] >> 3):
        best[c], best[c + 4], best[c + 8], best[c + 12], best[c + 16], best[c + 20], best[c + 24], best[c + 28] = (
            sorted_bitonic(
                max(best[c], keys[i, c + 28]),
                max(best[c + 4], keys[i, c + 24]),
                max(best[c + 8], keys[i, c + 20]),
                max(best[c + 12], keys[i, c + 16]),
                max(best[c + 16], keys[i, c + 12]),
                max(best[c + 20], keys[i, c + 8]),
                max(best[c + 24], keys[i, c + 4]),
                max(best[c + 28], keys[i, c]),
            )
        )


@njit(cache=True, nogil=True)
def finish(best: Keys, half: Keys, top: Keys) -> None:
    """Write the eight largest of a chunk with sorted columns to ``top[8]``, the largest first.

    ``half`` [16] is scratch space.
    """
    for c in range(2):
        half[c], half[c + 2], half[c + 4], half[c + 6], half[c + 8], half[c + 10], half[c + 12], half[c + 14] = (
            sorted_bitonic(
                max(best[c], best[c + 30]),
                max(best[c + 4], best[c + 26]),
                max(best[c + 8], best[c + 22]),
                max(best[c + 12], best[c + 18]),
                max(best[c + 16], best[c + 14]),
                max(best[c + 20], best[c + 10]),
                max(best[c + 24], best[c + 6]),
                max(best[c + 28], best[c + 2]),
            )
        )
    top[0], top[1], top[2], top[3], top[4], top[5], top[6], top[7] = sorted_bitonic(
        max(half[0], half[15]),
        max(half[2], half[13]),
        max(half[4], half[11]),
        max(half[6], half[9]),
        max(half[8], half[7]),
        max(half[10], half[5]),
        max(half[12], half[3]),
        max(half[14], half[1]),
    )
