"""Value and gradient of a loss that is linear in the affinities.

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


def linear_loss(
    logits: ArrayLike,
    spec: RouterSpec,
    coefficients: NDArray[np.float64],
    row: NDArray[np.int64],
    share: NDArray[np.float64],
    with_grad: bool,
) -> Loss:
    """Return ``sum_t share_t sum_i c_i p_ti``, where token t takes row ``row[t]`` of c[R, E].

    The gradient of c.p is ``p_j (c_j - c.p)`` for the softmax p, and ``p_j (1 - s_j) (c_j - c.p)`` for the
    sigmoid s divided by its sum.
    """
    x = np.asarray(logits)
    value, grad = 0.0, np.empty(x.shape) if with_grad else None
    for block, s in affinity_blocks(x, spec):
        p = _sum_to_one(s, x[block]) if spec.score == "sigmoid" else s
        c = coefficients[row[block]]
        mean = np.einsum("te,te->t", c, p)
        value += float(share[block] @ mean)
        if grad is not None:
            slope = p * (1.0 - s) if spec.score == "sigmoid" else p
            grad[block] = share[block, None] * slope * (c - mean[:, None])
    return Loss(value, grad)


def affinity_blocks(logits: NDArray[Any], spec: RouterSpec) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Yield the affinities [t, E] of consecutive blocks of tokens, with the slice that each block is."""
    rows = max(1, LOGITS_PER_BLOCK // spec.n_experts)
    for start in range(0, len(logits), rows):
        block = slice(start, start + rows)
        yield block, affinity(logits[block], spec, token_offset=start)


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
