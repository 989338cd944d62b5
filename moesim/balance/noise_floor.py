"""The imbalance that even a perfect router shows: the noise floor of a finite batch.

A router that picks each token's K experts uniformly at random has loads that scatter around T K / E; the
busiest expert lies above the mean by chance alone. An imbalance is worth worrying about as far as it exceeds
this floor. Tokens are taken as independent, which those of one text are not: real floors are higher.
"""

import math

import numpy as np

from moesim.errors import InputError

# Up to this many tokens x experts the batch is drawn out in full.
DRAWN_OUT = 1 << 13
DRAWS = 256


def uniform_router_max_over_mean(n_tokens: int, n_experts: int, top_k: int, rng: np.random.Generator) -> float:
    """Return the expected max/mean expert load of a uniform router.

    Small batches (tokens x experts up to 8192) are averaged over 256 random batches. Larger ones follow from
    the binomial law of one expert's load, X ~ B(T, K/E): if the loads were independent, P(max <= n) would be
    P(X <= n)^E; they sum to T K instead, which gives each pair a correlation of -1/(E - 1), so deviations
    from the mean are wider by sqrt(E / (E - 1)) than those of independent loads from their own mean.

    Args:
        n_tokens: distinct tokens, T; repeated ones do not average out.
        n_experts: E.
        top_k: distinct experts per token, K.
        rng: used for small batches only.

    Raises:
        InputError: no token, or top_k outside 1..E.
    """
    if n_tokens < 1 or not 1 <= top_k <= n_experts:
        raise InputError(
            f"a uniform router with {n_tokens} tokens, {n_experts} experts, top_k {top_k}",
            "uniform_router_max_over_mean",
            "give at least one token and 1 <= top_k <= n_experts",
        )
    if top_k == n_experts:
        return 1.0
    mean = n_tokens * top_k / n_experts
    if n_tokens * n_experts <= DRAWN_OUT:
        return _mean_of_drawn_maxima(n_tokens, n_experts, top_k, rng) / mean
    widening = math.sqrt(n_experts / (n_experts - 1))
    return 1.0 + (_expected_maximum(n_tokens, n_experts, top_k) - mean) * widening / mean


def _mean_of_drawn_maxima(n_tokens: int, n_experts: int, top_k: int, rng: np.random.Generator) -> float:
    keys = rng.random((DRAWS, n_tokens, n_experts), dtype=np.float32)
    ids = np.argpartition(keys, top_k - 1, axis=-1)[..., :top_k].reshape(DRAWS, -1)
    ids += np.arange(DRAWS)[:, None] * n_experts
    load = np.bincount(ids.ravel(), minlength=DRAWS * n_experts).reshape(DRAWS, n_experts)
    return float(load.max(axis=1).mean())


def _expected_maximum(n_tokens: int, n_experts: int, top_k: int) -> float:
    """Return E[max] of independent binomial loads, summed within 14 standard deviations of the mean."""
    p = top_k / n_experts
    mean, deviation = n_tokens * p, math.sqrt(n_tokens * p * (1 - p))
    first = max(0, math.floor(mean - 14 * deviation - 14))
    last = min(n_tokens, math.ceil(mean + 14 * deviation + 14))
    n = np.arange(first, last)
    log_ratio = np.log((n_tokens - n) / (n + 1.0) * (p / (1 - p)))
    log_mass = np.concatenate(([0.0], np.cumsum(log_ratio)))
    mass = np.exp(log_mass - log_mass.max())
    below = np.cumsum(mass) / mass.sum()
    return float(first + np.sum(1.0 - np.minimum(below[:-1], 1.0) ** n_experts))
