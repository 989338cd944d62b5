"""Affinities of tokens in vectors, their sums and the logsumexp: what statistics and a bias need.

``scores`` has the same in float64 for whole batches.
"""

import math

import numpy as np
from numpy.typing import NDArray

from moesim.routing.exponential import exponential_32, exponential_64
from moesim.routing.select import sigmoid
from moesim.routing.stage_options import stage, summing_stage

_ONE = np.float32(1.0)
# Sums of exponentials between which none that matters is near the limits of float32, exp(-87) and exp(87).
FAR_BELOW, FAR_ABOVE = 1e-30, 1e34
TOGETHER = 4
"""Tokens whose affinities are added up in one go."""


@stage
def scores_of_row(
    x: NDArray[np.float32], t: int, use_sigmoid: bool, score: NDArray[np.float32], lane: int,
    exponential: NDArray[np.float32],
) -> None:  # fmt: skip
    """Fill ``exponential`` [E] with exp(x) of the logits ``x[t]``, and ``score`` with sigmoids or the same again."""
    if use_sigmoid:
        for e in range(x.shape[1]):
            value = exponential_32(x[t, e])
            exponential[e] = value
            score[lane, e] = value / (value + _ONE)
    else:
        for e in range(x.shape[1]):
            value = exponential_32(x[t, e])
            exponential[e] = value
            score[lane, e] = value


@stage
def sum_of_four(a: np.float32, b: np.float32, c: np.float32, d: np.float32) -> np.float32:
    """Sum in this order: apart from ``row_sum``, so that the compiler does not choose another one."""
    return ((a + b) + c) + d


@summing_stage
def row_sum(values: NDArray[np.float32]) -> float:
    """Sum numbers: fours in float32, and those in float64."""
    quarter = values.shape[0] >> 2
    a, b, c, d = values[:quarter], values[quarter:], values[2 * quarter :], values[3 * quarter :]
    total = 0.0
    for e in range(quarter):
        total += np.float64(sum_of_four(a[e], b[e], c[e], d[e]))
    for e in range(quarter, d.shape[0]):
        total += np.float64(d[e])
    return total


@stage
def sums_of_row(
    x: NDArray[np.float32], t: int, use_sigmoid: bool, score: NDArray[np.float32], lane: int,
    exponential: NDArray[np.float32],
) -> tuple[float, float]:  # fmt: skip
    """Return the sum of a token's affinities and its logits' logsumexp.

    The arrays come as ``scores_of_row`` leaves them; ``score`` is made anew where numbers leave the range of float32.
    """
    exponentials = row_sum(exponential)
    # Outside, some exponential that counts may have been cut to the range of float32.
    if not FAR_BELOW < exponentials < FAR_ABOVE:
        return far_affinities(x, t, use_sigmoid, score, lane)
    return row_sum(score[lane]) if use_sigmoid else exponentials, math.log(exponentials)


@stage
def far_affinities(
    x: NDArray[np.float32], t: int, use_sigmoid: bool, score: NDArray[np.float32], lane: int
) -> tuple[float, float]:
    """The same for logits whose exponentials may leave the range of float32; where all sigmoids vanish, softmax."""
    top, total, exponentials = -math.inf, 0.0, 0.0
    for e in range(x.shape[1]):
        top = max(top, np.float64(x[t, e]))
    vanished = sigmoid(top) < 1e-30
    for e in range(x.shape[1]):
        logit = np.float64(x[t, e])
        shifted = math.exp(logit - top)
        value = sigmoid(logit) if use_sigmoid and not vanished else shifted
        score[lane, e] = value
        total += value
        exponentials += shifted
    return total, top + math.log(exponentials)


@stage
def add_affinities(
    score: NDArray[np.float32], first: int, end: int, share: NDArray[np.float32],
    part: NDArray[np.float32], affinity: NDArray[np.float64],
) -> None:  # fmt: skip
    """Add ``share[l] * score[l]`` of the tokens in lanes ``first`` to ``end`` to ``affinity`` [E].

    Sums of a block are in float32, four tokens at a time from the first one; ``share`` and the rows of ``score`` go on
    for three lanes after the last, where shares are 0. ``part`` [E] is scratch space.
    """
    for e in range(part.shape[0]):
        part[e] = 0.0
    for lane in range(first, end, TOGETHER):
        a, b, c, d = share[lane], share[lane + 1], share[lane + 2], share[lane + 3]
        for e in range(part.shape[0]):
            part[e] += (a * score[lane, e] + b * score[lane + 1, e]) + (c * score[lane + 2, e] + d * score[lane + 3, e])
    for e in range(part.shape[0]):
        affinity[e] += np.float64(part[e])


@summing_stage
def softmax_denominator(x: NDArray[np.float32], t: int, shift: float) -> float:
    """Sum exp(x[t] - shift) in float64, for a shift at most 700 below the largest logit."""
    total = 0.0
    for e in range(x.shape[1]):
        total += exponential_64(np.float64(x[t, e]) - shift)
    return total


@stage
def share_lost(
    chosen: NDArray[np.uint32], unrestricted: NDArray[np.uint32], x: NDArray[np.float32], t: int,
    score: NDArray[np.float32], lane: int,
) -> float:  # fmt: skip
    """Return the share of affinity that the chosen experts lack of the unrestricted ones; 0 for equal logits.

    Both are [K, 16], of which column ``lane`` is the token's with the logits ``x[t]``.
    """
    top_k = chosen.shape[0]
    same, higher, taken, possible = 0, 0, 0.0, 0.0
    lowest = np.float32(np.inf)
    for k in range(top_k):
        lowest = min(lowest, x[t, unrestricted[k, lane]])
        possible += np.float64(score[lane, unrestricted[k, lane]])
    for k in range(top_k):
        own, free = x[t, chosen[k, lane]], x[t, unrestricted[k, lane]]
        same += own >= lowest
        # Of several experts with the lowest logit, more may be chosen in the place of a higher one.
        higher += free > lowest
        higher -= own > lowest
        taken += np.float64(score[lane, chosen[k, lane]])
    return 0.0 if same == top_k and higher == 0 else max(0.0, 1.0 - taken / possible)
