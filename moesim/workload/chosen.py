"""Batches in which the experts are given: recorded expert ids, or expert counts alone.

Ids are taken as they are: top-k ids of tokens, as inference engines log them.
Counts say how often each expert was selected and nothing about which experts a token selects together; so
tokens are drawn from a model: independent draws of K different experts. Whatever depends on joint selection
(distinct ranks and nodes per token) is then an estimate. The draw is systematic sampling in random order
(Madow 1949): the probabilities p_i = K count_i / sum are laid end to end in an order drawn anew for each
token, and the experts met at u, u + 1, ..., u + K - 1 are selected, u uniform in (0, 1). That includes expert i
with probability p_i exactly.

Not modelled: gates, which neither file holds, and correlation between tokens of a sequence (counts).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.errors import InputError
from moesim.workload.batch import Batch
from moesim.workload.counts_file import SUFFIXES, read_counts
from moesim.workload.npz_input import number_layers, read_array
from moesim.workload.token_draw import Draw, draw_blocks, tokens_of_ranks

MAX_DISTINCT = 65_536
"""Tokens drawn from counts, per layer; more repeat whole blocks of them."""
MAX_BYTES = 256 << 20
"""Expert ids of all layers together; many layers get fewer distinct tokens each."""
CHUNK_TOKENS = 4096
"""Tokens drawn at a time, so that memory stays at chunk x experts."""
DEFAULT_TOKENS_PER_RANK = 4096


def expert_ids_batch(
    source: str | Path | NDArray[Any],
    *,
    n_experts: int,
    n_ranks: int,
    rng: np.random.Generator,
    layers: Sequence[int] | None = None,
    tokens_per_rank: int | Sequence[int] | None = None,
    sequence_length: int = 256,
    assign: str = "by_sequence",
) -> Batch:
    """Return a batch whose tokens select the given experts.

    ``source``: array ``topk_idx`` [T, K] or [layers, T, K], in memory or in a ``.npy`` or ``.npz`` file.
    ``layers`` numbers the first axis, 0, 1, ... by default. More tokens than given come by block bootstrap
    over blocks of ``sequence_length``.

    Raises InputError, naming layer and token, for ids out of range or repeated within a token, and for
    arrays that are not whole numbers of two or three axes.
    """
    where, raw = _array(source, "topk_idx")
    if raw.ndim not in (2, 3) or 0 in raw.shape:
        raise InputError(f"topk_idx has shape {raw.shape}", where, "[tokens, K] or [layers, tokens, K] is needed")
    ids = _whole_numbers(raw if raw.ndim == 3 else raw[None], where)
    numbers = number_layers(layers, len(ids), where)
    for layer, rows in zip(numbers, ids, strict=True):
        _check_ids(rows, n_experts, f"{where}: layer {layer}")
    tokens = ids.shape[1]
    drawn = draw_blocks(tokens, sequence_length, tokens_of_ranks(tokens_per_rank, n_ranks, tokens), assign, rng)
    note = f"{len(drawn.token_index):,} tokens with given experts, {len(drawn.rows):,} distinct"
    note += " (block bootstrap)" if drawn.bootstrapped else ""
    rows = {layer: ids[i][drawn.rows].astype(np.int32) for i, layer in enumerate(numbers)}
    return _batch(rows, n_experts, drawn, "given", (note,))


def counts_batch(
    source: str | Path | NDArray[Any] | Mapping[int, NDArray[Any]],
    *,
    top_k: int,
    n_ranks: int,
    rng: np.random.Generator,
    n_experts: int | None = None,
    layers: Sequence[int] | None = None,
    tokens_per_rank: int | Sequence[int] | None = DEFAULT_TOKENS_PER_RANK,
    sequence_length: int = 256,
    max_distinct: int = MAX_DISTINCT,
    assign: str = "by_sequence",
) -> Batch:
    """Return a batch whose expected loads are proportional to the given counts.

    ``source``: ``counts`` [E] or [layers, E] in memory, in a ``.npy`` or ``.npz`` file, or a ``.csv`` or
    ``.parquet`` file with the columns layer, expert, count; or a mapping layer -> counts [E]. ``layers`` chooses
    among them. The batch says in ``estimated`` that how experts go together is a model's answer.

    Raises InputError for counts that are negative, not finite, all zero, of another number of experts than
    ``n_experts``, or so skewed that an expert would be selected more than once per token.
    """
    where, counts = _counts(source, layers, n_experts)
    chance = {layer: _inclusion(row, top_k, n_experts, f"{where}: layer {layer}") for layer, row in counts.items()}
    per_rank = tokens_of_ranks(
        DEFAULT_TOKENS_PER_RANK if tokens_per_rank is None else tokens_per_rank, n_ranks, available=0
    )
    bound = min(max_distinct, MAX_BYTES // (4 * top_k * len(chance)))
    distinct = min(int(per_rank.sum()), max(bound, 1))
    drawn = draw_blocks(distinct, sequence_length, per_rank, assign, rng)
    ids = {layer: _systematic_sample(p, top_k, distinct, rng)[drawn.rows] for layer, p in chance.items()}
    notes = [f"{len(drawn.token_index):,} tokens drawn from expert counts, {len(drawn.rows):,} distinct"]
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
    return _batch(ids, width, drawn, "counts", tuple(notes), (model,))


def _batch(
    ids: Mapping[int, NDArray[np.int32]],
    n_experts: int,
    drawn: Draw,
    domain: str,
    notes: tuple[str, ...],
    estimated: tuple[str, ...] = (),
) -> Batch:
    return Batch(
        logits=None,
        bias={layer: np.zeros(n_experts, np.float32) for layer in ids},
        expert_ids=ids,
        token_index=drawn.token_index,
        token_rank=drawn.token_rank,
        sequence=drawn.sequence,
        domain=np.zeros(len(drawn.token_index), np.int8),
        domain_names=(domain,),
        distinct_tokens=len(drawn.rows),
        notes=notes,
        estimated=estimated,
    )


def _array(source: str | Path | NDArray[Any], member: str) -> tuple[str, NDArray[Any]]:
    if isinstance(source, str | Path):
        return str(source), read_array(source, member)
    return member, np.asarray(source)


def _whole_numbers(raw: NDArray[Any], where: str) -> NDArray[Any]:
    if raw.dtype.kind in "iu":
        return raw
    if raw.dtype.kind != "f":
        raise InputError(f"topk_idx is of type {raw.dtype}", where, "whole numbers are needed")
    bad = np.argwhere(~np.isfinite(raw) | (raw != np.rint(raw)))
    if len(bad):
        layer, token, place = bad[0]
        raise InputError(
            f"layer {layer}, token {token}: expert id {raw[layer, token, place]} is not a whole number", where
        )
    return raw


def _check_ids(rows: NDArray[Any], n_experts: int, where: str) -> None:
    outside = np.flatnonzero(((rows < 0) | (rows >= n_experts)).any(axis=1))
    if len(outside):
        raise InputError(f"token {outside[0]} selects {rows[outside[0]].tolist()}, outside 0 to {n_experts - 1}", where)
    ordered = np.sort(rows, axis=1)
    repeated = np.flatnonzero((ordered[:, 1:] == ordered[:, :-1]).any(axis=1))
    if len(repeated):
        raise InputError(f"token {repeated[0]} selects an expert twice: {rows[repeated[0]].tolist()}", where)


def _counts(
    source: str | Path | NDArray[Any] | Mapping[int, NDArray[Any]],
    layers: Sequence[int] | None,
    n_experts: int | None,
) -> tuple[str, dict[int, NDArray[np.float64]]]:
    if isinstance(source, Mapping):
        where, table = "counts", {int(layer): np.asarray(row, np.float64) for layer, row in source.items()}
    elif isinstance(source, str | Path) and Path(source).suffix.lower() in SUFFIXES:
        where, table = str(source), read_counts(source, n_experts)
    else:
        where, raw = _array(source, "counts")
        if raw.dtype.kind not in "iuf" or raw.ndim not in (1, 2) or 0 in raw.shape:
            raise InputError(
                f"counts have shape {raw.shape} of {raw.dtype}",
                where,
                "numbers [experts] or [layers, experts]",
            )
        table = dict(enumerate(np.atleast_2d(raw).astype(np.float64)))
    missing = [layer for layer in layers or () if layer not in table]
    if missing or not table:
        raise InputError(f"no counts of layer {missing[:1] or ''}", where, f"it has the layers {sorted(table)}")
    if len({len(row) for row in table.values()}) > 1:
        raise InputError("layers have different numbers of experts", where)
    return where, {layer: table[layer] for layer in layers or sorted(table)}


def _inclusion(counts: NDArray[np.float64], top_k: int, n_experts: int | None, where: str) -> NDArray[np.float64]:
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
