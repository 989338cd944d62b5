"""Batches cut into blocks for the fused kernel, on all cores, without a copy of the logits.

Not every router goes through the kernel, see ``fused_pass_takes``; for the others there is ``select``.
"""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from moesim.compiling import announce, interpreted
from moesim.routing.keys import BFLOAT16, FLOAT16, FLOAT32, Groups, bias_for_keys, last_bits
from moesim.routing.lanes import LANES
from moesim.routing.plain_pass import Sums, plain_block
from moesim.routing.router_spec import RouterSpec, groups_of, kernel_knobs
from moesim.routing.scores import kernel_block, not_finite
from moesim.routing.threads import in_blocks
from moesim.routing.top_eight import CHUNK

BLOCK_TOKENS = 4096
"""Tokens of one call of the kernel; with sequences at least so many, in whole sequences."""
LEAST_EXPERTS = 64
"""With fewer experts a plain scan is as fast."""
MOST_EXPERTS = 1 << 16
"""With more, keys would hold too little of a logit."""
MOST_PER_TOKEN = 8
if interpreted():
    route_block: Any = plain_block
else:
    from moesim.routing.fused import route_block

_ENCODINGS = {"float32": FLOAT32, "float16": FLOAT16, "uint16": BFLOAT16}


class Batch(NamedTuple):
    """What the kernel works on.

    ``logits`` [T, E] as ``checked_logits`` returns them, ``bias`` [E] or empty, ``expert_ids`` and ``gates`` [T, K] to
    be filled, ``weight`` [T] or empty where nothing is measured, ``device`` [E] or empty. With sequences, sequence s is
    ``order[sequence_ptr[s]:sequence_ptr[s + 1]]``. ``token_offset``: number of the first token in error messages.
    """

    logits: NDArray[Any]
    spec: RouterSpec
    bias: NDArray[np.float64]
    expert_ids: NDArray[np.int32]
    gates: NDArray[np.float32]
    weight: NDArray[np.float64]
    device: NDArray[np.int64]
    order: NDArray[np.int64] | None = None
    sequence_ptr: NDArray[np.int64] | None = None
    token_offset: int = 0


_KNOWN = {
    "kind", "n_experts", "top_k", "n_groups", "top_groups", "score", "group_score", "normalize", "scale",
    "group_of_expert",
}  # fmt: skip
"""Knobs that the fused kernel follows, at any value where ``fused_pass_takes`` does not say otherwise."""


def fused_pass_takes(spec: RouterSpec, dtype: np.dtype[Any], biased: bool) -> bool:
    """Whether the fused kernel takes this router and these logits."""
    return (
        all(getattr(spec, knob.name) == knob.default for knob in fields(spec) if knob.name not in _KNOWN)
        and LEAST_EXPERTS <= spec.n_experts <= MOST_EXPERTS
        and spec.top_k <= MOST_PER_TOKEN
        and dtype.name in _ENCODINGS
        and not (biased and spec.score == "softmax")
        and not (spec.limited and spec.scores_per_group > (2 if spec.score == "sigmoid" else 1))
    )


def kernel_groups(spec: RouterSpec) -> Groups:
    """Return the groups that the router is limited by as the kernels read them; one group where there is no limit."""
    group = groups_of(spec) if spec.limited else np.zeros(spec.n_experts, np.int32)
    experts = np.argsort(group, kind="stable").astype(np.int64)
    sizes = np.bincount(group)
    ptr, chunk_ptr = (np.zeros(len(sizes) + 1, np.int64) for _ in range(2))
    np.cumsum(sizes, out=ptr[1:])
    np.cumsum(-(-sizes // CHUNK), out=chunk_ptr[1:])
    # Where the columns begin that round the experts up to sixteen: after all chunks, where nothing is read.
    slot = np.full(-(-spec.n_experts // LANES) * LANES, chunk_ptr[-1] * CHUNK * LANES)
    slot[experts] = (np.arange(spec.n_experts) + np.repeat(chunk_ptr[:-1] * CHUNK - ptr[:-1], sizes)) * LANES
    return Groups(experts, ptr, chunk_ptr, slot)


def zero_sums(batch: Batch) -> Sums:
    """Return the sums of no tokens."""
    experts = batch.spec.n_experts
    n_devices = int(batch.device.max(initial=-1)) + 1
    return Sums(np.zeros(experts), np.zeros(experts if len(batch.weight) else 0), np.zeros(n_devices), np.zeros(3))


def route_in_blocks(batch: Batch) -> Iterator[tuple[Sums, NDArray[np.float64]]]:
    """Route a batch; yields each block's sums and its sequences' rows (see ``route_block``), in order.

    Raises:
        InputError: a NaN or infinite logit; the first such token is named.
    """
    spec, groups, knobs = batch.spec, kernel_groups(batch.spec), kernel_knobs(batch.spec)
    encoding = _ENCODINGS[batch.logits.dtype.name]
    wide = encoding == FLOAT32
    source = np.empty((0, 0), np.uint16) if wide else batch.logits.view(np.uint16)
    order = np.arange(len(batch.logits)) if batch.order is None else batch.order
    last, bias = last_bits(spec.n_experts), bias_for_keys(batch.bias)
    announce(route_block, "the router", 15)
    cuts = _cuts(batch.sequence_ptr, len(batch.logits))

    def work(block: int) -> tuple[Sums, NDArray[np.float64]]:
        if batch.sequence_ptr is None:
            sequence_ptr, per_sequence = cuts[block : block + 2], np.empty((0, 4))
        else:
            sequence_ptr = batch.sequence_ptr[cuts[block] : cuts[block + 1] + 1]
            per_sequence = np.empty((len(sequence_ptr) - 1, 4))
        sums = zero_sums(batch)
        x = batch.logits if wide else np.empty((LANES, spec.n_experts), np.float32)
        bad = route_block(
            LANES, source, encoding, x, last, bias, knobs, groups, batch.expert_ids, batch.gates,
            order, batch.weight, batch.device, sequence_ptr, spec.kind == "v3", per_sequence, sums,
        )  # fmt: skip
        if bad >= 0:
            raise not_finite(kernel_block(batch.logits[bad : bad + 1]), 0, batch.token_offset + bad)
        return sums, per_sequence

    return in_blocks(work, len(cuts) - 1)


def _cuts(sequence_ptr: NDArray[np.int64] | None, n_tokens: int) -> NDArray[np.int64]:
    """Where blocks begin, and the end of the last: numbers of tokens, or of sequences where there are any."""
    if sequence_ptr is None:
        return np.append(np.arange(0, n_tokens, BLOCK_TOKENS), n_tokens)
    at = np.searchsorted(sequence_ptr[:-1], np.arange(0, n_tokens, BLOCK_TOKENS))
    return np.append(np.unique(at), len(sequence_ptr) - 1)
