"""Synthetic router logits: uniform, Zipf, log-normal, one hot rank.

The logit of expert i in a token is log(popularity_i) + g with g standard Gumbel noise. The top-K of such
logits is a sample of K experts without replacement with probabilities proportional to the popularities
(the Gumbel-max trick), so a router without groups reproduces the popularity, and a router with groups
shows what its limit costs. Which expert is how popular is permuted per layer.

Tokens of one sequence may share part of their noise. With correlation r the noise is
a * (g + log S), a = sqrt(1 - r), where g is a token's own Gumbel noise and S a positive a-stable variable
of its sequence: exactly Gumbel again, with correlation r between tokens of a sequence (Gumbel's logistic
copula, as in nested-logit models; S by Kanter 1975). So correlation changes the imbalance of a sequence and
leaves every expert's expected load alone.

Not modelled: correlation between experts, between layers, or drift.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from moesim.errors import InputError
from moesim.workload.batch import Batch
from moesim.workload.token_draw import draw_tokens, tokens_of_ranks

KINDS = ("uniform", "zipf", "lognormal", "one_hot_rank")
MAX_DISTINCT = 16_384
"""Distinct tokens of a batch; more tokens repeat whole sequences, as with a recording of that size."""
MAX_BYTES = 256 << 20
"""Logits of all layers together; many layers get fewer distinct tokens each."""
DEFAULT_TOKENS_PER_RANK = 4096
_PARAMETER = {
    "zipf": ("exponent", 0.0, 10.0),
    "lognormal": ("sigma", 0.0, 10.0),
    "one_hot_rank": ("ratio", 0.0, 1e3),
}


def synthetic_batch(
    kind: str,
    *,
    layers: Sequence[int],
    n_experts: int,
    top_k: int,
    n_ranks: int,
    rng: np.random.Generator,
    tokens_per_rank: int | Sequence[int] | None = DEFAULT_TOKENS_PER_RANK,
    exponent: float = 1.0,
    sigma: float = 0.6,
    ratio: float = 2.0,
    hot_rank: int = 0,
    correlation: float = 0.0,
    sequence_length: int = 256,
    max_distinct: int = MAX_DISTINCT,
    assign: str = "by_sequence",
    popularity_rng: np.random.Generator | None = None,
) -> Batch:
    """Return a batch of synthetic logits for ``layers``.

    ``kind``: ``uniform``; ``zipf``, popularity proportional to place ** -``exponent``; ``lognormal``, log
    popularity normal with standard deviation ``sigma``; ``one_hot_rank``, the experts that a contiguous
    placement puts on ``hot_rank`` receive ``ratio`` times the mean load under a top-``top_k`` router
    without groups, the others share the rest (the hot rank of DeepEP's own tests).
    ``correlation`` in [0, 1): of the noise of two tokens of one sequence of ``sequence_length`` tokens.
    ``popularity_rng`` draws which expert is how popular, ``rng`` all else: with the same one, several batches
    come from the same experts; by default it is ``rng``.

    Raises InputError for an unknown kind, a parameter out of range, or a hot rank that would need more
    than every token.
    """
    if kind not in KINDS:
        raise InputError(
            f"unknown synthetic kind {kind!r}", where="workload.synthetic.kind", fix=f"use {', '.join(KINDS)}"
        )
    parameter = {"exponent": exponent, "sigma": sigma, "ratio": ratio}
    _check(kind, parameter, layers, n_experts, top_k, correlation, sequence_length, max_distinct)
    counts = tokens_of_ranks(
        DEFAULT_TOKENS_PER_RANK if tokens_per_rank is None else tokens_per_rank, n_ranks, available=0
    )
    wanted = int(counts.sum())
    distinct = _distinct_tokens(wanted, max_distinct, len(layers) * n_experts * 4, sequence_length)
    sequence = (np.arange(distinct) // sequence_length).astype(np.int32)
    drawn = draw_tokens(sequence, counts, assign, rng)

    chooser = rng if popularity_rng is None else popularity_rng
    logits: dict[int, NDArray[np.float32]] = {}
    for layer in dict.fromkeys(int(layer) for layer in layers):
        if kind == "one_hot_rank":
            popularity = _hot_rank_log_popularity(n_experts, top_k, n_ranks, hot_rank, ratio)
        else:
            popularity = chooser.permutation(_log_popularity(kind, n_experts, exponent, sigma, chooser))
        noise = _gumbel_noise(sequence, n_experts, correlation, rng)
        noise += popularity.astype(np.float32)
        logits[layer] = noise[drawn.rows] if len(drawn.rows) < distinct else noise

    described = f"synthetic logits ({kind}"
    if kind in _PARAMETER:
        described += f", {_PARAMETER[kind][0]} {parameter[_PARAMETER[kind][0]]:g}"
    described += f", correlation {correlation:g})" if correlation else ")"
    notes = [f"{wanted:,} tokens of {described}, {len(drawn.rows):,} distinct"]
    if drawn.bootstrapped:
        notes[0] += " (block bootstrap: whole sequences drawn with replacement)"
    return Batch(
        logits=logits,
        bias={layer: np.zeros(n_experts, np.float32) for layer in logits},
        expert_ids=None,
        token_index=drawn.token_index,
        token_rank=drawn.token_rank,
        sequence=drawn.sequence,
        domain=np.zeros(wanted, np.int8),
        domain_names=("synthetic",),
        distinct_tokens=len(drawn.rows),
        notes=tuple(notes),
    )


def _distinct_tokens(wanted: int, max_distinct: int, bytes_per_token: int, sequence_length: int) -> int:
    """Tokens that get logits of their own: all, or as many whole sequences as the two bounds allow."""
    bound = min(max_distinct, MAX_BYTES // bytes_per_token)
    if wanted <= bound:
        return wanted
    return max(bound // sequence_length, 1) * sequence_length


def _log_popularity(
    kind: str, n_experts: int, exponent: float, sigma: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    if kind == "zipf":
        return -exponent * np.log(np.arange(1, n_experts + 1))
    if kind == "lognormal":
        return sigma * rng.standard_normal(n_experts)
    return np.zeros(n_experts)


def _hot_rank_log_popularity(
    n_experts: int, top_k: int, n_ranks: int, hot_rank: int, ratio: float
) -> NDArray[np.float64]:
    """Log popularity at which the hot rank gets ``ratio`` times the mean load (within 1 %, E >= 100)."""
    where = "workload.synthetic"
    if not 0 <= hot_rank < n_ranks:
        raise InputError(f"rank {hot_rank} is none of 0 to {n_ranks - 1}", where=f"{where}.hot_rank")
    hot = np.array_split(np.arange(n_experts), n_ranks)[hot_rank]
    chance = np.full(n_experts, top_k / n_experts)
    chance[hot] *= ratio
    cold = np.ones(n_experts, bool)
    cold[hot] = False
    if cold.any():
        chance[cold] = (top_k - chance[hot].sum()) / cold.sum()
    if len(hot) == 0 or abs(chance.sum() - top_k) > 1e-9 or chance.max() >= 1 or chance.min() <= 0:
        raise InputError(
            f"rank {hot_rank} with {len(hot)} of {n_experts} experts cannot take {ratio:g} times "
            f"the mean load of top-{top_k}",
            where=f"{where}.ratio",
            fix="each expert is chosen at most once per token, so choose a smaller ratio or more ranks",
        )
    # K draws without replacement choose i with probability 1 - exp(-t p_i) for one common t, closely.
    log_popularity: NDArray[np.float64] = np.log(-np.log1p(-chance))
    return log_popularity


def _gumbel_noise(
    sequence: NDArray[np.int32], n_experts: int, correlation: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Standard Gumbel noise [tokens, experts], correlated within sequences."""
    noise = rng.standard_exponential((len(sequence), n_experts), dtype=np.float32)
    # A float32 exponential may round to 0, whose logarithm is not a logit.
    np.log(np.maximum(noise, np.float32(1e-30), out=noise), out=noise)
    np.negative(noise, out=noise)
    if correlation == 0.0:
        return noise
    a = np.sqrt(1.0 - correlation)
    shape = (int(sequence[-1]) + 1, n_experts)
    angle = np.pi * rng.uniform(1e-12, 1.0, shape)
    log_stable = np.log(np.sin(a * angle)) - np.log(np.sin(angle)) / a
    log_stable += (1 - a) / a * np.log(np.sin((1 - a) * angle) / rng.standard_exponential(shape))
    noise += log_stable.astype(np.float32)[sequence]
    noise *= np.float32(a)
    return noise


def _check(
    kind: str,
    parameter: dict[str, float],
    layers: Sequence[int],
    n_experts: int,
    top_k: int,
    correlation: float,
    sequence_length: int,
    max_distinct: int,
) -> None:
    where = "workload.synthetic"
    if not layers:
        raise InputError("no layer is requested", where=f"{where}.layers")
    if not 1 <= top_k <= n_experts:
        raise InputError(f"top-{top_k} of {n_experts} experts", where="routing.top_k", fix="1 <= top_k <= n_experts")
    if kind in _PARAMETER:
        name, low, high = _PARAMETER[kind]
        if not low <= parameter[name] <= high:
            raise InputError(
                f"{name} is {parameter[name]}",
                where=f"{where}.{name}",
                fix=f"{low:g} to {high:g} is possible",
            )
    if not 0 <= correlation < 1:
        raise InputError(f"correlation is {correlation}", where=f"{where}.correlation", fix="0 <= correlation < 1")
    if sequence_length < 1 or max_distinct < 1:
        raise InputError(
            f"{sequence_length} tokens per sequence, {max_distinct} distinct tokens",
            where=where,
            fix="both must be at least 1",
        )
