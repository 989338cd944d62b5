"""The gradient of balance losses by the experts' embeddings, token by token: the second pass behind the router's.

A loss that is linear in the affinities, ``sum_i c_i p_ti`` summed over tokens, has the slope ``p_j (c_j - c.p)`` on a
softmax router and ``p_j (1 - s_j) (c_j - c.p)`` on one whose sigmoids s are divided by their sum. Coefficients are made
of counts of the whole batch, so that they are known only after routing; then every such loss is one pass, whatever
their number. Float64 throughout; sums are in halves of halves, the same on every machine.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.compiling import njit
from moesim.routing.affinities import TOGETHER
from moesim.routing.exponential import exponential_64
from moesim.routing.stage_options import stage

Floats = NDArray[np.float64]
# Below it all sigmoids of a token together are the softmax times a constant.
_VANISHED = 1e-290


@stage
def total_of(values: Floats, part: Floats) -> float:
    """Sum numbers [E]; ``part`` is as long and is changed."""
    n = values.shape[0]
    for e in range(n):
        part[e] = values[e]
    while n > 8:
        half = n >> 1
        for e in range(half):
            part[e] += part[n - half + e]
        n -= half
    total = 0.0
    for e in range(n):
        total += part[e]
    return total


@stage
def shifted_exponentials(x: Floats, top: float, p: Floats) -> None:
    """Fill ``p`` with exp(x - top), [E]."""
    for e in range(x.shape[0]):
        p[e] = exponential_64(x[e] - top)


@stage
def sigmoids(x: Floats, p: Floats, rest: Floats) -> None:
    """Fill ``p`` with the sigmoids of the logits, ``rest`` with one minus them, [E]."""
    for e in range(x.shape[0]):
        small = exponential_64(-abs(x[e]))
        high = 1.0 / (1.0 + small)
        low = small * high
        p[e] = high if x[e] >= 0.0 else low
        rest[e] = low if x[e] >= 0.0 else high


@stage
def largest_of(x: Floats) -> float:
    """Return the largest of the logits [E]."""
    top = -math.inf
    for e in range(x.shape[0]):
        top = max(top, x[e])
    return top


@stage
def slopes_of_token(
    share: float, per_total: float, c: Floats, p: Floats, rest: Floats, part: Floats, affinity: Floats, slope: Floats
) -> float:  # fmt: skip
    """Add a token's slopes and affinities, whose sum is 1 / ``per_total``; return c.p, all [E]."""
    for e in range(p.shape[0]):
        p[e] *= per_total
        affinity[e] += share * p[e]
        part[e] = c[e] * p[e]
    mean = total_of(part, part)
    for e in range(p.shape[0]):
        slope[e] += share * p[e] * rest[e] * (c[e] - mean)
    return mean


@stage
def add_products(slope: Floats, tokens: Floats, first: int, grad: Floats) -> None:
    """Add ``tokens[first + l, h] * slope[l, e]`` of four tokens to ``grad`` [H, E]."""
    for h in range(grad.shape[0]):
        a, b, c, d = tokens[first, h], tokens[first + 1, h], tokens[first + 2, h], tokens[first + 3, h]
        for e in range(grad.shape[1]):
            grad[h, e] += (a * slope[0, e] + b * slope[1, e]) + (c * slope[2, e] + d * slope[3, e])


@njit(cache=True, nogil=True, error_model="numpy")
def add_gradient(
    logits: NDArray[Any], use_sigmoid: bool, tokens: Floats, row: NDArray[np.int64], coefficients: Floats,
    share: Floats, z: float, affinity: Floats, grad: Floats,
) -> tuple[float, float]:  # fmt: skip
    """Add a block's gradient by the experts' embeddings; return the sums of shares times c.p and times logsumexp^2.

    Args:
        logits: [T, E] of any float type; the first sum is NaN unless they are finite.
        use_sigmoid: affinities are sigmoids divided by their sum, not a softmax.
        tokens: [T, H], what the router multiplies with the embeddings.
        row: [T], which coefficients a token takes; ``coefficients`` [R, E].
        share: [T], how much each token weighs.
        z: factor of the router z-loss; 0 for none.
        affinity: [E], the sum of shares times affinities is added.
        grad: [H, E], the derivative of the sum of both losses is added.
    """
    n_experts, n_tokens = logits.shape[1], logits.shape[0]
    x, p, rest, part = np.empty(n_experts), np.empty(n_experts), np.ones(n_experts), np.empty(n_experts)
    slope, last = np.zeros((TOGETHER, n_experts)), np.zeros((TOGETHER, tokens.shape[1]))
    product, squared = 0.0, 0.0
    for t in range(n_tokens):
        own = slope[t % TOGETHER]
        own[:] = 0.0
        for e in range(n_experts):
            x[e] = logits[t, e]
        product += 0.0 * total_of(x, part)  # NaN where a logit is not finite
        total = 0.0
        if z != 0.0 or not use_sigmoid:
            top = largest_of(x)
            shifted_exponentials(x, top, p)
            total = total_of(p, part)
            if z != 0.0:
                logsumexp = top + math.log(total)
                squared += share[t] * logsumexp * logsumexp
                pull = share[t] * z * 2.0 * logsumexp / total
                for e in range(n_experts):
                    own[e] = pull * p[e]
        if use_sigmoid:
            sigmoids(x, p, rest)
            total = total_of(p, part)
            if total < _VANISHED:
                shifted_exponentials(x, largest_of(x), p)
                total = total_of(p, part)
        product += share[t] * slopes_of_token(
            share[t], 1.0 / total, coefficients[row[t]], p, rest, part, affinity, own
        )  # fmt: skip
        if t % TOGETHER == TOGETHER - 1:
            add_products(slope, tokens, t - TOGETHER + 1, grad)
    left = n_tokens % TOGETHER
    if left:
        slope[left:] = 0.0
        last[:left] = tokens[n_tokens - left :]
        add_products(slope, last, 0, grad)
    return product, squared
