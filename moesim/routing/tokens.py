"""Sixteen tokens at a time: which are next, and what is written and counted of them.

Arrays [K, 16] hold a figure of each chosen expert and token.
"""

import numpy as np
from numpy.typing import NDArray

from moesim.routing.keys import FLOAT32
from moesim.routing.lanes import LANES, prefetch
from moesim.routing.select import keep_best
from moesim.routing.stage_options import stage


@stage
def fetch_ahead(
    source: NDArray[np.uint16], encoding: int, x: NDArray[np.float32], order: NDArray[np.int64], i: int, end: int
) -> None:
    """Start to read the logits of two tokens that will be needed soon, those at places i and i + 1 of ``order``.

    Memory is read while the stages of a block work, a little at a time: few lines can be on their way at once.
    """
    for j in range(i, min(i + 2, end)):
        if encoding == FLOAT32:
            prefetch(x, order[j])
        else:
            prefetch(source, order[j])


@stage
def next_tokens(
    order: NDArray[np.int64], sequence_ptr: NDArray[np.int64], s: int, i: int, token: NDArray[np.uint32],
    part_end: NDArray[np.int64], ends: NDArray[np.bool_],
) -> tuple[int, int, int]:  # fmt: skip
    """Fill ``token`` with the next tokens, at most sixteen, from place i of sequence s on.

    A sequence is cut after each sixteen of its own tokens and nowhere else, so that sums do not depend on what other
    sequences there are. Part p of a sequence ends before lane ``part_end[p]``, and the sequence with it where
    ``ends[p]``. Returns the number of parts and the new s and i.
    """
    n, parts = 0, 0
    while s < sequence_ptr.shape[0] - 1 and n < LANES:
        left = sequence_ptr[s + 1] - i
        takes = min(left, LANES - n)
        if takes < left and n > 0:
            break
        for j in range(takes):
            token[n + j] = order[i + j]
        n += takes
        i += takes
        part_end[parts], ends[parts] = n, takes == left
        parts += 1
        s += takes == left
    return parts, s, i


@stage
def write_tokens(
    chosen: NDArray[np.uint32], gate: NDArray[np.float64], token: NDArray[np.uint32], n_tokens: int,
    expert_ids: NDArray[np.int32], gates: NDArray[np.float32],
) -> None:  # fmt: skip
    """Write the experts and gates of the first tokens to the answer."""
    for lane in range(n_tokens):
        for k in range(chosen.shape[0]):
            expert_ids[token[lane], k] = chosen[k, lane]
            gates[token[lane], k] = gate[k, lane]


@stage
def count_chosen(chosen: NDArray[np.uint32], n_tokens: int, load: NDArray[np.float64]) -> None:
    """Add the chosen experts of the first tokens to ``load`` [E]."""
    for k in range(chosen.shape[0]):
        for lane in range(n_tokens):
            load[chosen[k, lane]] += 1.0


@stage
def exact_free(
    x: NDArray[np.float32], t: int, lane: int, best: NDArray[np.float64], ids: NDArray[np.int64],
    free: NDArray[np.uint32],
) -> None:  # fmt: skip
    """Write the best experts of the logits ``x[t]`` to ``free`` [K, 16]; ``best`` and ``ids`` [K] are scratch space."""
    filled = 0
    for e in range(x.shape[1]):
        filled = keep_best(best, ids, filled, np.float64(x[t, e]), e)
    for k in range(ids.shape[0]):
        free[k, lane] = ids[k]
