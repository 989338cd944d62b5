"""Uneven loads as the collector of the DeepEP-MoE tables drew them: synthetic, not recorded traffic.

For N tokens of all ranks, top-k and E experts: x_e by the inverse CDF of x^-a on [1, 0.8 N] (on [0.01, 2] where
N k <= E), scaled to N k pairs and rounded; no expert takes more than N. What is over, and what rounding left short,
goes to the ranks in turn, each time to the rank's least loaded expert; what rounding left in excess is taken from
the ranks in turn, each time from the rank's most loaded expert. The rank with the most pairs is timed. Each row of
the tables is the mean over five such draws.

Source: aiconfigurator, collector/helper.py at 095f58a. An older release handed the surplus to the least loaded experts
of all ranks, which leaves more experts with a token when there are few: the H200 rows at up to one token per expert
look like that.
"""

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

DRAWS_PER_ROW = 5


def fullest_rank(
    rng: np.random.Generator, tokens: int, n_experts: int, top_k: int, ranks: int, exponent: float
) -> Ints:
    """Return the tokens of each expert, [n_experts / ranks], on the rank with the most of them in one draw."""
    pairs = tokens * top_k
    low, high = (1.0, 0.8 * tokens) if pairs > n_experts else (0.01, 2.0)
    a = 1.0 - exponent
    drawn = ((high**a - low**a) * rng.random(n_experts) + low**a) ** (1.0 / a)
    counts = np.rint(drawn / drawn.sum() * pairs).astype(np.int64)
    over = int(np.maximum(counts - tokens, 0).sum())
    by_rank = np.minimum(counts, tokens).reshape(ranks, -1)
    by_rank = _hand_out(by_rank, over, tokens)
    missing = pairs - int(by_rank.sum())
    by_rank = _hand_out(by_rank, missing, tokens) if missing >= 0 else -_hand_out(-by_rank, -missing, 0)
    fullest: Ints = by_rank[int(by_rank.sum(axis=1).argmax())]
    return fullest


def _hand_out(by_rank: Ints, units: int, most: int) -> Ints:
    """Give ``units`` to ranks in turn, each to its least expert, none above ``most``."""
    room = (most - by_rank).sum(axis=1)
    share = np.zeros(len(by_rank), dtype=np.int64)
    while units > 0 and (open_ := np.flatnonzero(share < room)).size:
        each = units // len(open_)
        given = (
            np.minimum(each, room[open_] - share[open_]) if each else (np.arange(len(open_)) < units).astype(np.int64)
        )
        share[open_] += given
        units -= int(given.sum())
    filled = by_rank.copy()
    for rank in np.flatnonzero(share):
        filled[rank] = _raise_the_least(by_rank[rank], int(share[rank]), most)
    return filled


def _raise_the_least(counts: Ints, units: int, most: int) -> Ints:
    """Add ``units`` one at a time, each to the least of ``counts`` (the first of equals), none above ``most``."""
    raised = counts.copy()
    order = np.argsort(raised, kind="stable")
    ascending = raised[order]
    # The level to which the first i + 1 counts can be raised by the units; the last i where that level is not above
    # the next count says how many take part.
    spent = np.arange(1, len(order) + 1) * ascending - np.cumsum(ascending)
    part = int(np.searchsorted(spent, units, side="right"))
    level, rest = divmod(units + int(ascending[:part].sum()), part)
    lowest = np.sort(order[:part])
    raised[lowest] = level
    raised[lowest[:rest]] += 1
    return np.minimum(raised, most)


def loads(
    rng: np.random.Generator, tokens: int, n_experts: int, top_k: int, ranks: int, exponent: float, draws: int
) -> Ints:
    """Return ``draws`` independent draws of `fullest_rank`, [draws, n_experts / ranks]."""
    return np.stack([fullest_rank(rng, tokens, n_experts, top_k, ranks, exponent) for _ in range(draws)])
