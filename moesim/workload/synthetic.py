"""Synthetic router logits: uniform, Zipf, log-normal, skewed to a figure, one hot rank or node.

The logit of expert i in a token is log(popularity_i) + g with g standard Gumbel noise. The top-K of such
logits is a sample of K experts without replacement with probabilities proportional to the popularities
(the Gumbel-max trick), so a router without groups reproduces the popularity, and a router with groups
shows what its limit costs.

Tokens of one sequence may share part of their noise. With correlation r the noise is
a * (g + log S), a = sqrt(1 - r), where g is a token's own Gumbel noise and S a positive a-stable variable
of its sequence: exactly Gumbel again, with correlation r between tokens of a sequence (Gumbel's logistic
copula, as in nested-logit models; S by Kanter 1975). So correlation changes the imbalance of a sequence and
leaves every expert's expected load alone. How popularity goes on from layer to layer and from step to step is
in ``popularity``.

``megatron-force-load-balancing`` is what Megatron-Core's option of that name feeds the router: standard normal logits.

Not modelled: experts that are selected together.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from moesim.errors import InputError
from moesim.workload.batch import Batch, drawn_batch
from moesim.workload.fidelity import Select
from moesim.workload.popularity import hot_log_popularity, latent, zipf_log_popularity
from moesim.workload.skew import Target, skewed
from moesim.workload.token_draw import draw_tokens, tokens_of_ranks

MAX_DISTINCT = 16_384
"""Distinct tokens of a batch; more tokens repeat whole sequences, as with a recording of that size."""
MAX_BYTES = 256 << 20
"""Logits of all layers together; many layers get fewer distinct tokens each."""
KINDS = ("uniform", "zipf", "lognormal", "skew", "one_hot_rank", "one_hot_node", "megatron-force-load-balancing")
# What each kind's knob is called, and how much it may be.
_KNOB = {
    "zipf": ("exponent", 10.0), "lognormal": ("sigma", 10.0),
    "one_hot_rank": ("ratio", 1e3), "one_hot_node": ("ratio", 1e3),
}  # fmt: skip


def synthetic_batch(
    kind: str, *, layers: Sequence[int], n_experts: int, top_k: int, n_ranks: int, rng: np.random.Generator,
    tokens_per_rank: int | Sequence[int] | None = None, ranks_per_node: int = 8,
    exponent: float = 1.0, sigma: float = 0.6, ratio: float = 2.0, hot_rank: int = 0, hot_node: int = 0,
    target: Target | None = None, select: Select | None = None,
    correlation: float = 0.0, layer_correlation: float = 0.0, step_correlation: float = 1.0, step: int = 0,
    sequence_length: int = 256, max_distinct: int = MAX_DISTINCT, assign: str = "by_sequence",
    popularity_rng: np.random.Generator | None = None,
) -> Batch:  # fmt: skip
    """Return a batch of synthetic logits for ``layers``.

    ``kind``: ``uniform``; ``zipf``, popularity proportional to place ** -``exponent``; ``lognormal``, log
    popularity normal with standard deviation ``sigma``; ``skew``, log-normal with the sigma that gives the
    ``target`` under the router ``select`` (see ``skew``); ``one_hot_rank``, the experts that a contiguous
    placement puts on ``hot_rank`` receive ``ratio`` times the mean load under a top-``top_k`` router
    without groups, the others share the rest (the hot rank of DeepEP's own tests); ``one_hot_node``, those of
    ``hot_node``, a node being ``ranks_per_node`` ranks; ``megatron-force-load-balancing``.
    ``correlation`` in [0, 1): of the noise of two tokens of one sequence of ``sequence_length`` tokens;
    ``layer_correlation`` and ``step_correlation`` in [0, 1]: of log popularity between neighbouring layers and steps.
    ``popularity_rng`` draws which expert is how popular, ``rng`` all else: with one in the same state, the batches of
    several steps come from the same experts; by default it is ``rng``.

    Raises InputError for an unknown kind, a parameter out of range, a hot rank that would need more
    than every token, or a target that these tokens cannot have.
    """
    where = "workload.synthetic"
    if kind not in KINDS:
        raise InputError(f"unknown synthetic kind {kind!r}", f"{where}.kind", f"use {', '.join(KINDS)}")
    knob, most = _KNOB.get(kind, ("", 0.0))
    value = {"exponent": exponent, "sigma": sigma, "ratio": ratio}.get(knob, 0.0)
    named = {"correlation": correlation, "layer_correlation": layer_correlation, "step_correlation": step_correlation}
    for name, each, high in ((knob, value, most), *((name, each, 1.0) for name, each in named.items())):
        if not 0 <= each <= high or (name == "correlation" and each == 1):
            raise InputError(f"{name} is {each}", f"{where}.{name}", f"0 to {high:g} is possible")
    if not layers or sequence_length < 1 or max_distinct < 1:
        what = f"{len(layers) or 'no'} layers, {sequence_length} tokens per sequence, {max_distinct} distinct tokens"
        raise InputError(what, where, "at least 1 of each is needed")
    if not 1 <= top_k <= n_experts:
        raise InputError(f"top-{top_k} of {n_experts} experts", "routing.top_k", "1 <= top_k <= n_experts")
    counts = tokens_of_ranks(tokens_per_rank, n_ranks)
    layers = tuple(dict.fromkeys(int(layer) for layer in layers))
    wanted = int(counts.sum())
    distinct = _distinct_tokens(wanted, max_distinct, len(layers) * n_experts * 4, sequence_length)
    sequence = (np.arange(distinct) // sequence_length).astype(np.int32)
    drawn = draw_tokens(sequence, counts, assign, rng)
    of_what = n_ranks if target is not None and target.by_rank else n_experts
    z = latent(popularity_rng or rng, len(layers), of_what, step, layer_correlation, step_correlation)
    hot = _hot_experts(kind, n_experts, n_ranks, hot_rank, hot_node, ranks_per_node)

    logits: dict[int, NDArray[np.float32]] = {}
    found = []
    for layer, of_layer in zip(layers, z, strict=True):
        if kind == "megatron-force-load-balancing":
            noise = rng.standard_normal((distinct, n_experts), dtype=np.float32)
        else:
            noise = gumbel_noise(sequence, n_experts, correlation, rng)
        noise = noise[drawn.rows] if len(drawn.rows) < distinct else noise
        if kind == "skew":
            if target is None or select is None:
                raise InputError("skew needs a target and a router", where="workload.synthetic.kind")
            noise, spread, reached = skewed(target, noise, of_layer, n_ranks, select, drawn.times())
            found.append((spread, reached))
        elif kind == "zipf":
            noise += zipf_log_popularity(of_layer, exponent).astype(np.float32)
        elif kind == "lognormal":
            noise += (sigma * of_layer).astype(np.float32)
        elif hot is not None:
            noise += hot_log_popularity(hot, top_k, ratio, kind.removeprefix("one_hot_")).astype(np.float32)
        logits[layer] = noise

    described = f"synthetic logits ({kind}" + (f", {knob} {value:g}" if knob else "")
    described += "".join(f", {name} {each:g}" for name, each in named.items() if each != (name == "step_correlation"))
    described += ")"
    notes = [f"{wanted:,} tokens of {described}, {len(drawn.rows):,} distinct"]
    if drawn.bootstrapped:
        notes[0] += " (block bootstrap: whole sequences drawn with replacement)"
    if target is not None:
        sigmas, figures = (", ".join(f"{each:.4g}" for each in column) for column in zip(*found, strict=True))
        notes.append(
            f"{target.name} {target.value:g} asked for, {figures} on this batch, experts placed contiguously: "
            f"found by bisection of the log-normal sigma, {sigmas}"
        )
    return drawn_batch(drawn, n_experts, "synthetic", tuple(notes), logits=logits)


def _distinct_tokens(wanted: int, max_distinct: int, bytes_per_token: int, sequence_length: int) -> int:
    """Tokens that get logits of their own: all, or as many whole sequences as the two bounds allow."""
    bound = min(max_distinct, MAX_BYTES // bytes_per_token)
    if wanted <= bound:
        return wanted
    return max(bound // sequence_length, 1) * sequence_length


def _hot_experts(
    kind: str, n_experts: int, n_ranks: int, hot_rank: int, hot_node: int, ranks_per_node: int
) -> NDArray[np.bool_] | None:
    """Which experts of a contiguous placement are on the hot rank or node, [E]; None for the other kinds."""
    if not kind.startswith("one_hot_"):
        return None
    of_rank = np.array_split(np.arange(n_experts), n_ranks)
    place, places = (hot_rank, n_ranks) if kind == "one_hot_rank" else (hot_node, math.ceil(n_ranks / ranks_per_node))
    what = kind.removeprefix("one_hot_")
    if not 0 <= place < places:
        raise InputError(f"{what} {place} is none of 0 to {places - 1}", where=f"workload.synthetic.hot_{what}")
    ranks = [place] if what == "rank" else range(n_ranks)[place * ranks_per_node : (place + 1) * ranks_per_node]
    hot = np.zeros(n_experts, np.bool_)
    hot[np.concatenate([of_rank[rank] for rank in ranks])] = True
    return hot


def gumbel_noise(
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
