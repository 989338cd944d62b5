"""What a model is to moesim: sizes, a router and an attention, all plain numbers.

Parameters follow from the sizes alone: embedding and output head (not tied), attention projections, RMS
norms, dense and expert FFNs of three matrices (SwiGLU), the router. Biases of linear layers, the
multi-token-prediction layers and sparse-attention indexers are left out; they are below one percent.
"""

from dataclasses import dataclass
from typing import Literal

from moesim.model.kv_cache import kv_cache_bytes


@dataclass(frozen=True)
class Attention:
    """The attention of one layer.

    ``mla`` uses the ranks and the nope, rope and value head dimensions (a ``q_lora_rank`` of None means an
    uncompressed query); ``mha``, ``gqa`` and ``mqa`` use ``kv_heads`` and ``head_dim``.
    """

    kind: Literal["mla", "mha", "gqa", "mqa"]
    heads: int
    kv_heads: int | None = None
    head_dim: int | None = None
    kv_lora_rank: int | None = None
    q_lora_rank: int | None = None
    nope_head_dim: int | None = None
    rope_head_dim: int | None = None
    value_head_dim: int | None = None

    def parameters(self, hidden: int) -> int:
        """Return the weights of one layer's attention (DeepSeek-V2 section 2.1 for MLA)."""
        if self.kind == "mla":
            rank, nope, rope, value = self._mla()
            query = self.heads * (nope + rope)
            if self.q_lora_rank is None:
                queries = hidden * query
            else:
                queries = hidden * self.q_lora_rank + self.q_lora_rank + self.q_lora_rank * query
            latent = hidden * (rank + rope) + rank
            return queries + latent + rank * self.heads * (nope + value) + self.heads * value * hidden
        kv_heads, head_dim = self.kv_heads or self.heads, self.head_dim or hidden // self.heads
        return 2 * hidden * head_dim * (self.heads + kv_heads)

    def kv_cache_bytes_per_token(self, layers: int, bytes_per_element: float) -> int:
        """Return the KV cache of one token over ``layers`` layers, bytes."""
        if self.kind == "mla":
            rank, _, rope, _ = self._mla()
            return kv_cache_bytes(
                kind="mla",
                layers=layers,
                kv_lora_rank=rank,
                rope_head_dim=rope,
                bytes_per_element=bytes_per_element,
            )
        return kv_cache_bytes(
            kind="gqa",
            layers=layers,
            kv_heads=self.kv_heads,
            head_dim=self.head_dim,
            bytes_per_element=bytes_per_element,
        )

    def _mla(self) -> tuple[int, int, int, int]:
        ranks = (self.kv_lora_rank, self.nope_head_dim, self.rope_head_dim, self.value_head_dim)
        return tuple(0 if rank is None else rank for rank in ranks)  # type: ignore[return-value]


@dataclass(frozen=True)
class PublishedRouter:
    """The router that a model was published with: the knobs of ``moesim.routing.RouterSpec``."""

    kind: Literal["v1", "v2", "v3"]
    top_k: int
    n_groups: int
    top_groups: int
    score: Literal["softmax", "sigmoid"]
    group_score: Literal["max", "sum", "top2", "topk_over_m"]
    normalize: bool
    scale: float


@dataclass(frozen=True)
class ModelSpec:
    """A published (or own) Mixture-of-Experts model.

    ``published_total`` and ``published_active`` are what the authors state (None where they state nothing);
    ``total_parameters`` and ``active_parameters`` follow from the sizes. ``uncertain`` says which figures are
    not stated by the sources and where they come from instead.
    """

    name: str
    title: str
    hidden: int
    layers: int
    first_k_dense: int
    moe_layer_step: int
    dense_hidden: int | None
    vocab: int
    n_experts: int
    n_shared: int
    expert_hidden: int
    router: PublishedRouter
    attention: Attention
    published_total: float | None
    published_active: float | None
    sources: tuple[str, ...]
    uncertain: tuple[str, ...]

    @property
    def moe_layers(self) -> int:
        """Number of layers with experts."""
        return len(range(self.first_k_dense + self.moe_layer_step - 1, self.layers, self.moe_layer_step))

    @property
    def expert_parameters(self) -> int:
        """Weights of one expert: gate, up and down projection."""
        return 3 * self.hidden * self.expert_hidden

    def kv_cache_bytes_per_token(self, bytes_per_element: float = 2) -> int:
        """Return the KV cache of one token over all layers, bytes."""
        return self.attention.kv_cache_bytes_per_token(self.layers, bytes_per_element)

    @property
    def total_parameters(self) -> int:
        """All weights, every expert counted."""
        return self._parameters(self.n_experts + self.n_shared)

    @property
    def active_parameters(self) -> int:
        """Weights that one token passes through, the embedding and the output head counted whole."""
        return self._parameters(self.router.top_k + self.n_shared)

    def _parameters(self, experts_counted: int) -> int:
        embedding_and_head = 2 * self.vocab * self.hidden
        norms = 2 * self.hidden
        router = self.n_experts * self.hidden + (self.n_experts if self.router.kind == "v3" else 0)
        moe_layer = experts_counted * self.expert_parameters + router
        dense_layers = self.layers - self.moe_layers
        dense_layer = 3 * self.hidden * (self.dense_hidden or self._expert_sized_dense())
        every_layer = self.attention.parameters(self.hidden) + norms
        return (
            embedding_and_head
            + self.hidden
            + self.layers * every_layer
            + self.moe_layers * moe_layer
            + dense_layers * dense_layer
        )

    def _expert_sized_dense(self) -> int:
        """Width of a dense FFN whose size no source states: as wide as the experts that a token passes."""
        return (self.router.top_k + self.n_shared) * self.expert_hidden
