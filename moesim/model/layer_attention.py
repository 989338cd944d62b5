"""What mixes the tokens of a layer: attention of every kind, linear attention, Mamba, a short convolution.

One frozen value per kind that a model has, with the layers that have it: its weights, what a token leaves in the
KV cache, what a sequence keeps whatever its length.
"""

from dataclasses import dataclass
from typing import Literal

AttentionKind = Literal["mla", "mha", "gqa", "mqa", "linear", "mamba", "conv"]


@dataclass(frozen=True)
class Attention:
    """The attention of some layers of a model.

    ``mla`` uses the ranks and the nope, rope and value head dimensions (a ``q_lora_rank`` of None means an
    uncompressed query); ``mha``, ``gqa`` and ``mqa`` use ``kv_heads`` and ``head_dim``. ``linear``, ``mamba`` and
    ``conv`` keep a state instead of a cache; all their weights are ``other_weights``.

    Attributes:
        kind: which formula holds.
        heads: query heads (of Mamba-2: state heads; 0 where there are none).
        value_head_dim: size of a head's value where it is not ``head_dim``; 0: the keys are the values.
        window: tokens back that a token sees; None: all of them.
        compression: tokens that share one entry that stays beyond the window (DeepSeek-V4); 0: there is none.
        index_heads, index_head_dim, index_top_k: the indexer that picks the tokens to attend to; 0: none.
        other_weights: weights of one layer that the sizes above do not give: output gate, a whole mixer.
        state: elements that a sequence keeps in each layer, whatever its length.
        layers: the layers that have it, from 0 on; a layer that has it twice is named twice.
    """

    kind: AttentionKind
    heads: int
    kv_heads: int | None = None
    head_dim: int | None = None
    kv_lora_rank: int | None = None
    q_lora_rank: int | None = None
    nope_head_dim: int | None = None
    rope_head_dim: int | None = None
    value_head_dim: int | None = None
    window: int | None = None
    compression: int = 0
    index_heads: int = 0
    index_head_dim: int = 0
    index_top_k: int = 0
    other_weights: int = 0
    state: int = 0
    layers: tuple[int, ...] = ()

    def parameters(self, hidden: int) -> int:
        """Return the weights of one layer's attention (DeepSeek-V2 section 2.1 for MLA, V3.2 for its indexer)."""
        if self.kind in ("linear", "mamba", "conv"):
            return self.other_weights
        if self.kind == "mla":
            rank, nope, rope, value = self.mla_sizes()
            latent = hidden * (rank + rope) + rank
            rest = latent + rank * self.heads * (nope + value) + self.heads * value * hidden
            index = (self.q_lora_rank or hidden) * self.index_heads * self.index_head_dim
            index += hidden * (self.index_heads + self.index_head_dim)
            return self._query(hidden, self.heads * (nope + rope)) + rest + index + self.other_weights
        kv_heads, head_dim, value = self.grouped()
        rest = hidden * kv_heads * (head_dim + value) + self.heads * (value or head_dim) * hidden
        return self._query(hidden, self.heads * head_dim) + rest + self.other_weights

    @property
    def cache_elements(self) -> int:
        """Elements of one entry of the KV cache in one layer; the indexer's own keys are left out."""
        if self.kind in ("linear", "mamba", "conv"):
            return 0
        if self.kind == "mla":
            rank, _, rope, _ = self.mla_sizes()
            return rank + rope
        kv_heads, head_dim, value = self.grouped()
        return kv_heads * (head_dim + value)

    def kv_cache_bytes_per_token(self, bytes_per_element: float, beyond_window: bool = False) -> float:
        """Return what one token leaves in the KV cache of all these layers, bytes; or what stays behind a window."""
        entries = 0.0 if beyond_window and self.window else 1.0
        entries += 1 / self.compression if self.compression else 0.0
        return len(self.layers) * self.cache_elements * bytes_per_element * entries

    def _query(self, hidden: int, width: int) -> int:
        if self.q_lora_rank is None:
            return hidden * width
        return hidden * self.q_lora_rank + self.q_lora_rank + self.q_lora_rank * width

    def grouped(self) -> tuple[int, int, int]:
        """Return KV heads, size of a head's key and of its value."""
        head_dim = self.head_dim or 0
        return self.kv_heads or self.heads, head_dim, head_dim if self.value_head_dim is None else self.value_head_dim

    def mla_sizes(self) -> tuple[int, int, int, int]:
        """Return the latent's size and the nope, rotary and value sizes of a head."""
        ranks = (self.kv_lora_rank, self.nope_head_dim, self.rope_head_dim, self.value_head_dim)
        return tuple(0 if rank is None else rank for rank in ranks)  # type: ignore[return-value]
