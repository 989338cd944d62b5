"""What a loss that is linear in the affinities needs: the affinities, block by block, and its gradient.

Affinities are those whose sum over the experts is 1: the softmax, or, on a sigmoid router, the sigmoid scores
divided by their sum (DeepSeek-V3 eq. 19), in every loss alike. With them a perfectly balanced batch has the
loss alpha whatever the affinities are.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moesim.routing import RouterSpec, affinity

# Affinities are made for about this many logits at a time, so that a loss without its gradient needs no array
# of tokens x experts.
LOGITS_PER_BLOCK = 1 << 20


@dataclass(frozen=True, eq=False)
class Loss:
    """A loss and its gradient with respect to the logits, float64 [T, E]; None when it was not asked for."""

    value: float
    grad: NDArray[np.float64] | None


def weighted_affinities(
    logits: ArrayLike,
    spec: RouterSpec,
    coefficients: NDArray[np.float64],
    row: NDArray[np.int64],
    slope: NDArray[np.float64] | None,
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Return ``sum_i c_i p_ti`` of each token [T], where token t takes row ``row[t]`` of c[R, E].

    With ``slope`` [T], the derivative of a loss by those sums, also the loss's gradient [T, E]. That of c.p is
    ``p_j (c_j - c.p)`` for the softmax p, and ``p_j (1 - s_j) (c_j - c.p)`` for the sigmoid s divided by its sum.
    """
    x = np.asarray(logits)
    sums, grad = np.empty(len(x)), None if slope is None else np.empty(x.shape)
    for block, s, p in affinity_blocks(x, spec):
        c = coefficients[row[block]]
        sums[block] = np.einsum("te,te->t", c, p)
        if slope is not None and grad is not None:
            by_logit = p * (1.0 - s) if spec.score == "sigmoid" else p
            grad[block] = slope[block, None] * by_logit * (c - sums[block, None])
    return sums, grad


def affinity_blocks(
    logits: NDArray[Any], spec: RouterSpec
) -> Iterator[tuple[slice, NDArray[np.float64], NDArray[np.float64]]]:
    """Yield consecutive blocks of tokens: its slice, the scores s [t, E], and the affinities p [t, E]."""
    rows = max(1, LOGITS_PER_BLOCK // spec.n_experts)
    for start in range(0, len(logits), rows):
        block = slice(start, start + rows)
        s = affinity(logits[block], spec, token_offset=start)
        yield block, s, _sum_to_one(s, logits[block]) if spec.score == "sigmoid" else s


def logsumexp(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Return the logarithm of each token's summed exponentials, float64 [T]."""
    x = logits.astype(np.float64)
    top = x.max(axis=1)
    return np.asarray(top + np.log(np.exp(x - top[:, None]).sum(axis=1)), dtype=np.float64)


def _sum_to_one(s: NDArray[np.float64], logits: NDArray[Any]) -> NDArray[np.float64]:
    """Divide sigmoid scores by their sum; where all of them underflow, their limit is the softmax."""
    total = s.sum(axis=1, keepdims=True)
    vanished = total[:, 0] < 1e-290
    p = s / np.where(vanished[:, None], 1.0, total)
    if vanished.any():
        low = logits[vanished].astype(np.float64)
        p[vanished] = np.exp(low - low.max(axis=1, keepdims=True))
        p[vanished] /= p[vanished].sum(axis=1, keepdims=True)
    return p
