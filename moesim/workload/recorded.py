"""Batches from a recording of a trained router.

One draw of sequences serves every layer: token t of layer 1 is token t of layer 2, as in a real forward
pass. Layers of a recording may hold different numbers of tokens, so when several are asked for, only the
tokens recorded for all of them (a common prefix) are drawn from.

Not modelled: drift of the text over time, and attention to what a token's rank happens to hold.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from moesim.errors import InputError
from moesim.recording_format import Recording
from moesim.workload.batch import Batch, Logits
from moesim.workload.fidelity import Select
from moesim.workload.resample import resample_experts
from moesim.workload.token_draw import Half, draw_tokens, half_of, tokens_of_ranks


def recorded_batch(
    recording: Recording,
    *,
    layers: Sequence[int],
    n_ranks: int,
    rng: np.random.Generator,
    step: int | Literal["last"] = "last",
    tokens_per_rank: int | Sequence[int] | None = None,
    assign: str = "by_sequence",
    domains: Sequence[str] | None = None,
    n_experts: int | None = None,
    select: Select | None = None,
    group_counts: Sequence[int] = (),
    half: Half | None = None,
    bootstrap: bool = False,
) -> Batch:
    """Return a batch of recorded tokens for ``layers``, all of one training step (``"last"`` or its number).

    ``tokens_per_rank``: one number or one per rank; by default the recorded tokens shared evenly. More
    than were recorded come by block bootstrap over sequences. ``domains``: names to draw from; by default
    all those that the model was trained on. ``n_experts`` other than the recording's calls
    ``resample_experts``, which needs ``select`` (the router, see there) and ``group_counts``, the numbers of
    ranks, nodes and routing groups (by default the ranks alone). ``half``: the half to draw from.
    ``bootstrap``: draw sequences even where enough tokens were recorded.

    Raises InputError for a layer or domain that was not recorded, and for impossible token counts.
    """
    layers = _known_layers(recording, layers)
    logits = {layer: recording.logits(layer, step) for layer in layers}
    prefix = min(len(rows) for rows in logits.values())
    names = tuple(recording.domain_names)
    pool = np.flatnonzero(np.isin(recording.domain[:prefix], _domain_ids(recording, domains)))
    pool = pool[half_of(recording.sequence[pool], len(pool), half)]
    counts = tokens_of_ranks(tokens_per_rank, n_ranks, len(pool))
    drawn = draw_tokens(recording.sequence[:prefix][pool], counts, assign, rng, bootstrap)
    rows = pool[drawn.rows]
    notes = [_note(recording.name, drawn.bootstrapped, drawn.tokens, len(rows), len(pool))]
    if half is not None:
        notes.append(f"drawn from the {half} half of the recording")
    if step != "last":
        notes.append(f"logits of training step {step}, not of the finished model")

    batch_logits: dict[int, Logits] = {layer: logits[layer][rows] for layer in layers}
    bias = {layer: np.asarray(recording.bias(layer, step), np.float32) for layer in layers}
    resampled: dict[str, Any] | None = None
    if n_experts is not None and n_experts != recording.n_experts:
        if select is None:
            raise InputError(
                f"{recording.name} has {recording.n_experts} experts, not {n_experts}",
                where="model.n_experts",
                fix="give the router (select), so that its loads can be kept while resampling",
            )
        resampled = {}
        times = drawn.times()
        for layer in layers:
            new = resample_experts(
                batch_logits[layer],
                n_experts,
                select,
                group_counts=group_counts or (n_ranks,),
                rng=rng,
                bias=bias[layer],
                weight=times,
            )
            batch_logits[layer], bias[layer] = new.logits, new.bias
            resampled[str(layer)] = new.figures
            notes.append(f"layer {layer}: {new.note}")
    return Batch(
        logits=batch_logits,
        bias=bias,
        expert_ids=None,
        rank_tokens=drawn.rank_tokens,
        part=drawn.part,
        domain=np.asarray(recording.domain[rows], np.int8),
        domain_names=names,
        distinct_tokens=len(rows),
        notes=tuple(notes),
        resampled=resampled,
    )


def _known_layers(recording: Recording, layers: Sequence[int]) -> tuple[int, ...]:
    known = tuple(int(layer) for layer in recording.layers)
    if not layers:
        raise InputError("no layer is requested", where="workload.recording.layers", fix=f"choose among {known}")
    for layer in layers:
        if layer not in known:
            raise InputError(
                f"{recording.name} has no MoE layer {layer}",
                where="workload.recording.layers",
                fix=f"it has {known}",
            )
    return tuple(dict.fromkeys(int(layer) for layer in layers))


def _domain_ids(recording: Recording, domains: Sequence[str] | None) -> list[int]:
    names = list(recording.domain_names)
    if domains is None:
        domains = [name for name in names if name not in recording.held_out]
    for name in domains:
        if name not in names:
            raise InputError(
                f"{recording.name} has no domain {name!r}",
                where="workload.recording.domains",
                fix=f"it has {', '.join(names)}",
            )
    return [names.index(name) for name in domains]


def _note(name: str, bootstrapped: bool, tokens: int, distinct: int, pool: int) -> str:
    if bootstrapped:
        return (
            f"{tokens:,} tokens from {distinct:,} distinct recorded ones of {name} "
            f"(block bootstrap: whole sequences drawn with replacement)"
        )
    return f"{tokens:,} tokens of {name}, each recorded once (of {pool:,} available)"
