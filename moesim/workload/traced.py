"""Batches from recorded routing: logits go through the router, ids are taken as they are, counts are drawn from.

Tokens are drawn like those of a recording: one draw serves every layer, and more than were recorded repeat whole
sequences (blocks of a stated length where sequences are not marked).

Not modelled: which rank a token was recorded on; the scenario lays tokens on its own ranks.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from moesim.dumps import RoutingTrace
from moesim.errors import InputError
from moesim.workload.batch import Batch, drawn_batch
from moesim.workload.counted import counts_batch
from moesim.workload.token_draw import Draw, Half, draw_blocks, draw_tokens, half_of, tokens_of_ranks


def traced_batch(
    trace: RoutingTrace,
    *,
    n_experts: int,
    top_k: int,
    n_ranks: int,
    rng: np.random.Generator,
    layers: Sequence[int] | None = None,
    tokens_per_rank: int | Sequence[int] | None = None,
    sequence_length: int = 256,
    assign: str = "by_sequence",
    where: str = "routing",
    half: Half | None = None,
    bootstrap: bool = False,
) -> Batch:
    """Return a batch of recorded tokens.

    Args:
        trace: the recording.
        n_experts, top_k: the router's; a trace of others is refused.
        n_ranks: ranks that tokens start on.
        rng: used by counts, and where more tokens are asked for than were recorded.
        layers: which of the trace's; all by default.
        tokens_per_rank: one number or one per rank; by default the recorded tokens shared evenly.
        sequence_length: tokens of a block where sequences are not marked.
        assign: by_sequence or striped.
        where: names the trace in mistakes.
        half: draw from the first or the second half alone.
        bootstrap: draw sequences even where enough tokens were recorded.

    Raises:
        InputError: a layer that was not recorded, or another number of experts.
    """
    chosen = tuple(trace.layers if layers is None else layers)
    unknown = [layer for layer in chosen if layer not in trace.layers]
    if unknown:
        raise InputError(f"no layer {unknown[0]}", where, f"it has {trace.layers[0]} to {trace.layers[-1]}")
    if trace.n_experts != n_experts:
        raise InputError(f"routing of {trace.n_experts} experts", where, f"the model has {n_experts}")
    trace = half_of_trace(trace, half)
    at = [trace.layers.index(layer) for layer in chosen]
    if trace.unit == "counts":
        counts = trace.expert_counts()
        batch = counts_batch(
            {layer: counts[i] for layer, i in zip(chosen, at, strict=True)}, top_k=top_k, n_ranks=n_ranks, rng=rng,
            n_experts=n_experts, tokens_per_rank=tokens_per_rank, sequence_length=sequence_length, assign=assign,
            where=where,
        )  # fmt: skip
        return replace(batch, notes=(*batch.notes, *trace.notes))
    drawn = _drawn(trace, tokens_per_rank, n_ranks, sequence_length, assign, rng, bootstrap)
    kind = "logits" if trace.unit == "logits" else "experts"
    note = f"{drawn.tokens:,} tokens with given {kind}, {len(drawn.rows):,} distinct"
    note += " (block bootstrap over sequences)" if drawn.bootstrapped else ""
    if trace.unit == "ids":
        assert trace.ids is not None  # noqa: S101 - the unit says so
        if trace.top_k != top_k:
            fix = f"set routing.top_k to {trace.top_k}"
            raise InputError(f"{trace.top_k} experts per token, routing.top_k is {top_k}", where, fix)
        rows = {layer: trace.ids[i][drawn.rows] for layer, i in zip(chosen, at, strict=True)}
        return drawn_batch(drawn, n_experts, "given", (note, *trace.notes), expert_ids=rows)
    assert trace.logits is not None  # noqa: S101 - the unit says so
    logits = {layer: trace.logits[i][drawn.rows] for layer, i in zip(chosen, at, strict=True)}
    bias = None if trace.bias is None else {layer: trace.bias[i] for layer, i in zip(chosen, at, strict=True)}
    return drawn_batch(drawn, n_experts, "given", (note, *trace.notes), logits=logits, bias=bias)


def half_of_trace(trace: RoutingTrace, half: Half | None) -> RoutingTrace:
    """Return the first or second half of a trace: of its tokens, or of its steps of counts; one step has no halves."""
    if half is None or (trace.counts is not None and len(trace.counts) < 2):
        return trace
    if trace.counts is not None:
        steps = half_of(None, len(trace.counts), half)
        note = f"the {half} half of the recorded steps"
        return replace(trace, counts=trace.counts[steps], notes=(*trace.notes, note))
    of_token = half_of(trace.sequence if _stand_together(trace.sequence) else None, trace.tokens or 0, half)
    rows = {
        name: value[:, of_token] for name in ("logits", "ids", "gates") if (value := getattr(trace, name)) is not None
    }
    rows |= {
        name: value[of_token] for name in ("step", "rank", "sequence") if (value := getattr(trace, name)) is not None
    }
    return replace(trace, **rows, notes=(*trace.notes, f"the {half} half of the recorded tokens"))


def _stand_together(sequence: NDArray[np.int32] | None) -> bool:
    """Whether sequences are marked, and the tokens of each follow one another."""
    return sequence is not None and len(np.unique(sequence)) == 1 + np.count_nonzero(np.diff(sequence))


def _drawn(
    trace: RoutingTrace, tokens_per_rank: int | Sequence[int] | None, n_ranks: int, sequence_length: int, assign: str,
    rng: np.random.Generator, bootstrap: bool,
) -> Draw:  # fmt: skip
    tokens = trace.tokens or 0
    per_rank = tokens_of_ranks(tokens_per_rank, n_ranks, tokens)
    sequence = trace.sequence
    if sequence is not None and _stand_together(sequence):
        return draw_tokens(sequence, per_rank, assign, rng, bootstrap)
    return draw_blocks(tokens, sequence_length, per_rank, assign, rng, bootstrap)
