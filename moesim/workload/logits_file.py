"""Router logits of the user's own, as one plain array.

``logits`` [tokens, E] or [layers, tokens, E] of floats in a ``.npy`` or ``.npz`` file: what a forward hook on
the router's linear layer gives. Cut into sequences of a stated length, it is drawn from like a recording.
moesim's own recording format carries more (bias, domains, training steps); ``read_recording`` reads that.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.errors import InputError
from moesim.workload.batch import Batch
from moesim.workload.npz_input import number_layers, read_array
from moesim.workload.token_draw import draw_blocks, tokens_of_ranks


def logits_batch(
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
    """Return a batch with the given router logits; ``layers`` numbers the first axis, 0, 1, ... by default.

    Raises InputError for another number of experts, and for NaN or infinite logits, naming layer and token.
    """
    where = str(source) if isinstance(source, str | Path) else "logits"
    raw = read_array(source, "logits") if isinstance(source, str | Path) else np.asarray(source)
    if raw.dtype.kind != "f" or raw.ndim not in (2, 3) or 0 in raw.shape:
        raise InputError(
            f"logits have shape {raw.shape} of {raw.dtype}",
            where,
            "floats [tokens, E] or [layers, tokens, E]",
        )
    values = raw if raw.ndim == 3 else raw[None]
    if values.shape[2] != n_experts:
        raise InputError(f"logits of {values.shape[2]} experts", where, f"the model has {n_experts}")
    numbers = number_layers(layers, len(values), where)
    for layer, rows in zip(numbers, values, strict=True):
        bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if len(bad):
            raise InputError(f"layer {layer}, token {bad[0]} has a logit that is not finite", where)
    tokens = values.shape[1]
    counts = tokens_of_ranks(tokens_per_rank, n_ranks, tokens)
    drawn = draw_blocks(tokens, sequence_length, counts, assign, rng)
    note = f"{len(drawn.token_index):,} tokens with given logits, {len(drawn.rows):,} distinct"
    return Batch(
        logits={layer: values[i][drawn.rows].astype(np.float32) for i, layer in enumerate(numbers)},
        bias={layer: np.zeros(n_experts, np.float32) for layer in numbers},
        expert_ids=None,
        token_index=drawn.token_index,
        token_rank=drawn.token_rank,
        sequence=drawn.sequence,
        domain=np.zeros(len(drawn.token_index), np.int8),
        domain_names=("given",),
        distinct_tokens=len(drawn.rows),
        notes=(note + (" (block bootstrap over sequences)" if drawn.bootstrapped else ""),),
    )
