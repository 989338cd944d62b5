"""The eight best of many, for sixteen tokens at a time: a sorting network without branches that depend on the data.

Keys come in *chunks* of 32 per token, eight rows of four columns, each column sixteen tokens wide. ``sort_chunks``
orders every column, ``merge_columns`` keeps the eight best of a chunk's four columns and ``merge_chunks`` those of many
chunks. Every step is the same whatever the keys are, so it runs on vectors and no branch is mispredicted.

Source: Batcher, "Sorting networks and their applications" (1968): odd-even merge sort of eight, 19 comparators, and
the bitonic merge.
"""

import numpy as np
from numpy.typing import NDArray

from moesim.routing.lanes import LANES
from moesim.routing.stage_options import stage

Keys = NDArray[np.int32]

ROWS, COLUMNS = 8, 4
CHUNK = ROWS * COLUMNS
ROW = COLUMNS * LANES
"""Keys in a row of a chunk of all tokens; ``PAIR`` in a row of half as many columns."""
PAIR = ROW // 2
LOWEST = np.int32(np.iinfo(np.int32).min)
"""Below every key: fills a chunk that has fewer than 32."""


@stage
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


@stage
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


# The compiler must not see how many columns there are, or it writes them out instead of using vectors.
@stage
def sort_chunks(keys: Keys) -> None:
    """Sort each column of each chunk in ``keys[chunks, 8 * 64]``."""
    for i in range(keys.shape[0]):
        for c in range(keys.shape[1] >> 3):
            (
                keys[i, c], keys[i, c + ROW], keys[i, c + 2 * ROW], keys[i, c + 3 * ROW],
                keys[i, c + 4 * ROW], keys[i, c + 5 * ROW], keys[i, c + 6 * ROW], keys[i, c + 7 * ROW],
            ) = sorted_eight(
                keys[i, c], keys[i, c + ROW], keys[i, c + 2 * ROW], keys[i, c + 3 * ROW],
                keys[i, c + 4 * ROW], keys[i, c + 5 * ROW], keys[i, c + 6 * ROW], keys[i, c + 7 * ROW],
            )  # fmt: skip


@stage
def merge_columns(keys: Keys, pairs: Keys, tops: Keys) -> None:
    """Write the eight best of each chunk, whose columns are sorted, to ``tops[chunks, 8 * 16]``.

    ``pairs`` [8 * 32] is scratch space: the eight best of two columns each.
    """
    for i in range(keys.shape[0]):
        for c in range(pairs.shape[0] >> 3):
            (
                pairs[c], pairs[c + PAIR], pairs[c + 2 * PAIR], pairs[c + 3 * PAIR],
                pairs[c + 4 * PAIR], pairs[c + 5 * PAIR], pairs[c + 6 * PAIR], pairs[c + 7 * PAIR],
            ) = sorted_bitonic(
                max(keys[i, c], keys[i, c + PAIR + 7 * ROW]),
                max(keys[i, c + ROW], keys[i, c + PAIR + 6 * ROW]),
                max(keys[i, c + 2 * ROW], keys[i, c + PAIR + 5 * ROW]),
                max(keys[i, c + 3 * ROW], keys[i, c + PAIR + 4 * ROW]),
                max(keys[i, c + 4 * ROW], keys[i, c + PAIR + 3 * ROW]),
                max(keys[i, c + 5 * ROW], keys[i, c + PAIR + 2 * ROW]),
                max(keys[i, c + 6 * ROW], keys[i, c + PAIR + ROW]),
                max(keys[i, c + 7 * ROW], keys[i, c + PAIR]),
            )  # fmt: skip
        for c in range(tops.shape[1] >> 3):
            (
                tops[i, c], tops[i, c + LANES], tops[i, c + 2 * LANES], tops[i, c + 3 * LANES],
                tops[i, c + 4 * LANES], tops[i, c + 5 * LANES], tops[i, c + 6 * LANES], tops[i, c + 7 * LANES],
            ) = sorted_bitonic(
                max(pairs[c], pairs[c + LANES + 7 * PAIR]),
                max(pairs[c + PAIR], pairs[c + LANES + 6 * PAIR]),
                max(pairs[c + 2 * PAIR], pairs[c + LANES + 5 * PAIR]),
                max(pairs[c + 3 * PAIR], pairs[c + LANES + 4 * PAIR]),
                max(pairs[c + 4 * PAIR], pairs[c + LANES + 3 * PAIR]),
                max(pairs[c + 5 * PAIR], pairs[c + LANES + 2 * PAIR]),
                max(pairs[c + 6 * PAIR], pairs[c + LANES + PAIR]),
                max(pairs[c + 7 * PAIR], pairs[c + LANES]),
            )  # fmt: skip


@stage
def merge_chunks(tops: Keys, best: Keys) -> None:
    """Write the eight best of all chunks to ``best[8 * 16]``."""
    for c in range(best.shape[0]):
        best[c] = tops[0, c]
    for i in range(1, tops.shape[0]):
        for c in range(best.shape[0] >> 3):
            (
                best[c], best[c + LANES], best[c + 2 * LANES], best[c + 3 * LANES],
                best[c + 4 * LANES], best[c + 5 * LANES], best[c + 6 * LANES], best[c + 7 * LANES],
            ) = sorted_bitonic(
                max(best[c], tops[i, c + 7 * LANES]),
                max(best[c + LANES], tops[i, c + 6 * LANES]),
                max(best[c + 2 * LANES], tops[i, c + 5 * LANES]),
                max(best[c + 3 * LANES], tops[i, c + 4 * LANES]),
                max(best[c + 4 * LANES], tops[i, c + 3 * LANES]),
                max(best[c + 5 * LANES], tops[i, c + 2 * LANES]),
                max(best[c + 6 * LANES], tops[i, c + LANES]),
                max(best[c + 7 * LANES], tops[i, c]),
            )  # fmt: skip
