"""Sixteen tokens side by side: token l of a block is lane l of every vector.

Whatever is done to the tokens of a block alike is then done to whole vectors, with no step that depends on how a
token's own numbers lie in them. What it takes is to turn sixteen rows of keys, one row per token, into columns. The
code for vectors is in ``lanes_compiled``.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

LANES = 16


def turn(rows: NDArray[np.int32], slot: NDArray[np.int64], flat: NDArray[np.int32]) -> None:
    """Write ``flat[slot[e] + l] = rows[l, e]`` for all e.

    Args:
        rows: [16, N], N a multiple of 16.
        slot: [N], where the sixteen values of each column begin in ``flat``.
        flat: written to.
    """
    for e in range(rows.shape[1]):
        for lane in range(LANES):
            flat[slot[e] + lane] = rows[lane, e]


def prefetch(rows: NDArray[Any], t: int) -> None:
    """Start to read ``rows[t]`` into the cache; nothing to do in plain Python."""
