"""Batches drawn from expert counts alone.

Counts say how often each expert was selected and nothing about which experts a token selects together; so
tokens are drawn from a model: independent draws of K different experts. Whatever depends on joint selection
(distinct ranks and nodes per token) is then an estimate. The draw is systematic sampling in random order
(Madow 1949): the probabilities p_i = K count_i / sum are laid end to end in an order drawn anew for each
token, and the experts met at u, u + 1, ..., u + K - 1 are selected, u uniform in (0, 1). That includes expert i
with probability p_i exactly.

Not modelled: gates, which counts do not hold, and correlation between tokens of a sequence.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from moesim.errors import InputError
from moesim.workload.batch import Batch, drawn_batch
from moesim.workload.token_draw import draw_blocks, tokens_of_ranks

MAX_DISTINCT = 65_536
"""Tokens drawn from counts, per layer; more repeat whole blocks of them."""
MAX_BYTES = 256 << 20
"""Expert ids of all layers together; many layers get fewer distinct tokens each."""
CHUNK_TOKENS = 4096
"""Tokens drawn at a time, so that memory stays at chunk x experts."""


def counts_batch(
    counts: Mapping[int, NDArray[np.int64]],
    *,
    top_k: int,
    n_ranks: int,
    rng: np.random.Generator,
    n_experts: int | None = None,
    layers: Sequence[int] | None = None,
    tokens_per_rank: int | Sequence[int] | None = None,
    sequence_length: int = 256,
    max_distinct: int = MAX_DISTINCT,
    assign: str = "by_sequence",
    where: str = "counts",
) -> Batch:
    """Return a batch whose expected loads are proportional to the given counts.

    ``counts``: layer -> counts [E]; ``layers`` chooses among them, ``where`` names them in mistakes. The batch says in
    ``estimated`` that how experts go together is a model's answer.

    Raises InputError for counts that are negative, not finite, all zero, of another number of experts than
    ``n_experts``, or so skewed that an expert would be selected more than once per token.
    """
    missing = [layer for layer in layers or () if layer not in counts]
    if missing or not counts:
        raise InputError(f"no counts of layer {missing[:1] or ''}", where, f"it has the layers {sorted(counts)}")
    chance = {
        layer: _inclusion(counts[layer], top_k, n_experts, f"{where}: layer {layer}")
        for layer in layers or sorted(counts)
    }
    per_rank = tokens_of_ranks(tokens_per_rank, n_ranks)
    bound = min(max_distinct, MAX_BYTES // (4 * top_k * len(chance)))
    distinct = min(int(per_rank.sum()), max(bound, 1))
    drawn = draw_blocks(distinct, sequence_length, per_rank, assign, rng)
    ids = {layer: _systematic_sample(p, top_k, distinct, rng)[drawn.rows] for layer, p in chance.items()}
    notes = [f"{drawn.tokens:,} tokens drawn from expert counts, {len(drawn.rows):,} distinct"]
    if drawn.bootstrapped:
        notes[0] += " (more tokens repeat whole blocks)"
    width = len(next(iter(chance.values())))
    unused = width - np.count_nonzero(sum(chance.values()))
    if unused:
        notes.append(f"{unused} of {width} experts have no count in any layer: are these counts of this model?")
    model = (
        f"counts do not say which experts a token selects together: it selects {top_k} different ones independently, "
        f"in proportion to the counts; distinct ranks and nodes per token follow from that"
    )
    return drawn_batch(drawn, width, "counts", tuple(notes), expert_ids=ids, estimated=(model,))


def _inclusion(counts: NDArray[np.int64], top_k: int, n_experts: int | None, where: str) -> NDArray[np.float64]:
    """Probability that a token selects each expert, [E]."""
    if n_experts is not None and len(counts) != n_experts:
        raise InputError(f"counts of {len(counts)} experts", where, f"the model has {n_experts}")
    if not np.isfinite(counts).all() or counts.min() < 0:
        expert = int(np.flatnonzero(~np.isfinite(counts) | (counts < 0))[0])
        raise InputError(f"expert {expert} has the count {counts[expert]}", where, "counts are 0 or more")
    total = counts.sum()
    if total == 0:
        raise InputError("all counts are 0", where)
    if not 1 <= top_k <= np.count_nonzero(counts):
        raise InputError(
            f"top-{top_k} of {np.count_nonzero(counts)} experts with a count", where, "lower routing.top_k"
        )
    chance: NDArray[np.float64] = counts * (top_k / total)
    if chance.max() > 1 + 1e-9:
        expert = int(chance.argmax())
        raise InputError(
            f"expert {expert} has {counts[expert] / total:.1%} of the selections, more than one per token at "
            f"top-{top_k}",
            where,
            "are these counts of another top_k?",
        )
    return np.minimum(chance, 1.0)


def _systematic_sample(
    chance: NDArray[np.float64], top_k: int, tokens: int, rng: np.random.Generator
) -> NDArray[np.int32]:
    """Expert ids [tokens, K], ascending in each token."""
    ids = np.empty((tokens, top_k), np.int32)
    for start in range(0, tokens, CHUNK_TOKENS):
        rows = ids[start : start + CHUNK_TOKENS]
        order = np.argsort(rng.random((len(rows), len(chance)), dtype=np.float32), axis=1)
        ends = np.cumsum(chance[order], axis=1)
        first = rng.random(len(rows))
        for turn in range(top_k):
            met = (ends < (first + turn)[:, None]).sum(axis=1)
            # Rounding may leave the last end a hair below K.
            rows[:, turn] = order[np.arange(len(rows)), np.minimum(met, len(chance) - 1)]
    ids.sort(axis=1)
    return ids
