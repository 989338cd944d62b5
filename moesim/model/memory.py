"""What a rank of an expert-parallel group holds in its memory, and how many requests fit beside it.

Attention is data parallel: every rank holds all of it and the KV cache of its own requests. Routed experts are spread
over the ranks, with redundant slots; shared experts, dense layers, embedding and output matrix are on every rank.

Not modelled: fragmentation, paging waste, CUDA graphs beyond the flat share, tensor and pipeline parallelism.
"""

import math
from dataclasses import asdict, dataclass

from moesim.errors import InputError
from moesim.model.model_spec import ModelSpec

RUNTIME_BYTES = 6e9
"""Context, libraries, graphs and what an allocator keeps; estimated (seen: 4 to 9 GB)."""
ACTIVATION_BYTES = 1.6e9
"""Activations of a batch; estimated (seen: 1 to 3 GB)."""


@dataclass(frozen=True)
class RankMemory:
    """Bytes on one rank.

    Attributes:
        experts: routed experts in its slots, redundant ones with them, of all layers.
        other_weights: attention, shared experts, dense FFNs, embedding, output matrix, routers, norms.
        buffers: of the low-latency all-to-all.
        kv_cache: of its requests.
        total: what the GPU has.
    """

    slots: int
    experts: float
    other_weights: float
    buffers: float
    kv_cache: float
    bytes_per_request: float
    total: float

    @property
    def free(self) -> float:
        """What is left beside an estimated share for runtime and activations; negative where it does not fit."""
        return self.total - self.fixed - self.kv_cache

    @property
    def fixed(self) -> float:
        """All but the KV cache."""
        return self.experts + self.other_weights + self.buffers + RUNTIME_BYTES + ACTIVATION_BYTES

    def parts(self) -> dict[str, float]:
        """What the GPU has, and what takes of it, below 0: they sum to ``free``."""
        return {
            "memory of the GPU": self.total,
            f"routed experts, {self.slots} slots of each layer": -self.experts,
            "all other weights": -self.other_weights,
            "low-latency buffers": -self.buffers,
            "runtime and activations, estimated": -(RUNTIME_BYTES + ACTIVATION_BYTES),
            "KV cache": -self.kv_cache,
        }

    def in_words(self) -> str:
        """Name what is held, and of how much."""
        cache = f" and {self.kv_cache / 1e9:.1f} GB of KV cache" if self.kv_cache else ""
        weights = (self.experts + self.other_weights) / 1e9
        on = f"on each GPU of {self.total / 1e9:.0f} GB, and runtime and activations beside them"
        return f"{weights:.1f} GB of weights{cache} {on}"

    @property
    def requests_that_fit(self) -> int:
        """Requests of the same context; 0 where the weights alone do not fit."""
        if not self.bytes_per_request:
            return 0
        return max(0, math.floor((self.total - self.fixed) / self.bytes_per_request))


def rank_memory(
    spec: ModelSpec,
    *,
    ep: int,
    total_bytes: float,
    redundant_experts: int = 0,
    requests: int = 0,
    context: int = 0,
    weight_bytes: float = 1,
    cache_bytes: float = 2,
    message_tokens: int = 0,
) -> RankMemory:
    """Return what the fullest rank holds.

    Args:
        spec: the model.
        ep: ranks that share the routed experts.
        total_bytes: memory of the GPU.
        redundant_experts: slots of a layer beyond one for each expert.
        requests, context: of one rank, and the tokens that each of them keeps.
        weight_bytes: of an element of the linear layers, 1 for FP8; embedding, output matrix and router are in BF16.
        cache_bytes: of an element of the KV cache.
        message_tokens: most tokens that a rank dispatches at once in low latency; 0: no such buffers.

    Raises:
        InputError: no rank, or a count below 0.
    """
    if ep < 1 or min(redundant_experts, requests, context, message_tokens) < 0:
        raise InputError(
            "ranks, requests and tokens are counts", "memory", "give ep of at least 1, the others 0 or more"
        )
    moe, hidden = spec.moe_layers + spec.mtp_layers, spec.hidden
    slots = math.ceil((spec.n_experts + redundant_experts) / ep)
    mixers = [(one.parameters(hidden), len(one.layers)) for one in spec.attentions]
    # A multi-token-prediction layer has an attention, experts, and a projection of two tokens to one.
    attention = sum(weights * layers for weights, layers in mixers) + spec.mtp_layers * (mixers[0][0] + 2 * hidden**2)
    shared = moe * spec.ffn_matrices * hidden * spec.shared_hidden
    latent = moe * 2 * hidden * (spec.latent or 0)
    dense_width = spec.dense_hidden or spec.router.top_k * spec.expert_hidden + spec.shared_hidden
    dense = spec.dense_layers * spec.ffn_matrices * hidden * dense_width
    vocabulary = (1 if spec.tied else 2) * spec.vocab * hidden
    routers = moe * (spec.n_experts + spec.zero_experts) * hidden
    one = spec.attention
    mtp_cache = spec.mtp_layers * one.cache_elements * cache_bytes
    inside = min((kind.window for kind in spec.attentions if kind.window), default=context)
    first, later = (spec.kv_cache_bytes_per_token(cache_bytes, beyond) + mtp_cache for beyond in (False, True))
    states = cache_bytes * sum(kind.state * len(kind.layers) for kind in spec.attentions)
    per_request = min(context, inside) * first + max(0, context - inside) * later + states
    return RankMemory(
        slots=slots,
        experts=moe * slots * spec.expert_parameters * weight_bytes,
        other_weights=(attention + shared + latent + dense) * weight_bytes + 2 * (vocabulary + routers),
        buffers=low_latency_buffer_bytes(spec, message_tokens),
        kv_cache=requests * per_request,
        bytes_per_request=per_request,
        total=total_bytes,
    )


def held_bytes(held: RankMemory) -> dict[str, float]:
    """Return all of it as plain data, what is estimated, what is free and how many requests fit with it."""
    return asdict(held) | {
        "runtime_estimated": RUNTIME_BYTES,
        "activations_estimated": ACTIVATION_BYTES,
        "free": held.free,
        "requests_that_fit": held.requests_that_fit,
    }


def low_latency_buffer_bytes(spec: ModelSpec, message_tokens: int) -> float:
    """Return DeepEP's low-latency buffers: two, to send and to receive, a slot for each expert and token in BF16."""
    return 2.0 * 2 * spec.n_experts * message_tokens * (2 * (spec.latent or spec.hidden) + 16)
