"""A byte-level language model with the architecture of DeepSeek-V2 and V3 in small.

Pre-norm transformer; multi-head latent attention: keys and values come from one compressed vector per token,
position from a few rotary dimensions kept apart and shared by all heads; the first layers are dense, the
others mixtures of experts. Not modelled: multi-token prediction, YaRN, weight absorption (a matter of inference).
"""

# torch's classes are Any where it is not installed, some of its functions untyped where it is.
# mypy: allow-subclassing-any, allow-untyped-calls

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from moesim.record.moe import MoE, Routed, Router, SwiGLU

VOCABULARY = 256
ROPE_BASE = 10_000.0


@dataclass(frozen=True)
class Sizes:
    """Sizes of the model; ``q_lora_rank`` 0 projects queries directly."""

    layers: int = 4
    dense_layers: int = 1
    hidden: int = 128
    dense_hidden: int = 384
    heads: int = 4
    nope_dim: int = 16
    rope_dim: int = 16
    value_dim: int = 32
    kv_lora_rank: int = 48
    q_lora_rank: int = 64
    n_experts: int = 64
    expert_hidden: int = 32
    n_shared: int = 2


class Attention(nn.Module):
    """Multi-head latent attention (DeepSeek-V2, eq. 9-19)."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        head_dim = sizes.nope_dim + sizes.rope_dim
        self.query: nn.Module
        if sizes.q_lora_rank:
            self.query = nn.Sequential(
                nn.Linear(sizes.hidden, sizes.q_lora_rank, bias=False),
                nn.RMSNorm(sizes.q_lora_rank),
                nn.Linear(sizes.q_lora_rank, sizes.heads * head_dim, bias=False),
            )
        else:
            self.query = nn.Linear(sizes.hidden, sizes.heads * head_dim, bias=False)
        self.compress = nn.Linear(sizes.hidden, sizes.kv_lora_rank + sizes.rope_dim, bias=False)
        self.latent_norm = nn.RMSNorm(sizes.kv_lora_rank)
        self.expand = nn.Linear(sizes.kv_lora_rank, sizes.heads * (sizes.nope_dim + sizes.value_dim), bias=False)
        self.out = nn.Linear(sizes.heads * sizes.value_dim, sizes.hidden, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """Attend causally within each sequence: hidden[sequences, length, hidden] to the same shape."""
        sizes, (sequences, length, _) = self.sizes, hidden.shape
        query = self.query(hidden).view(sequences, length, sizes.heads, -1).transpose(1, 2)
        query_nope, query_rope = query.split([sizes.nope_dim, sizes.rope_dim], dim=-1)
        latent, key_rope = self.compress(hidden).split([sizes.kv_lora_rank, sizes.rope_dim], dim=-1)
        expanded = self.expand(self.latent_norm(latent)).view(sequences, length, sizes.heads, -1).transpose(1, 2)
        key_nope, value = expanded.split([sizes.nope_dim, sizes.value_dim], dim=-1)
        key_rope = rotate(key_rope)[:, None].expand(-1, sizes.heads, -1, -1)
        attended = functional.scaled_dot_product_attention(
            torch.cat([query_nope, rotate(query_rope)], dim=-1),
            torch.cat([key_nope, key_rope], dim=-1),
            value,
            is_causal=True,
        )
        out: Tensor = self.out(attended.transpose(1, 2).flatten(2))
        return out


def rotate(vectors: Tensor) -> Tensor:
    """Apply rotary position embedding to vectors[..., length, even dim]: scores see distances only."""
    length, dim = vectors.shape[-2:]
    frequency = ROPE_BASE ** (-torch.arange(0, dim, 2, device=vectors.device, dtype=torch.float32) / dim)
    angle = torch.arange(length, device=vectors.device, dtype=torch.float32)[:, None] * frequency
    cosine, sine = angle.cos().to(vectors.dtype), angle.sin().to(vectors.dtype)
    first, second = vectors.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], dim=-1)


class Block(nn.Module):
    """Attention and a feed-forward block, dense or MoE, each behind a norm and beside a residual."""

    def __init__(self, sizes: Sizes, router: Router | None) -> None:
        super().__init__()
        self.attention_norm, self.attention = nn.RMSNorm(sizes.hidden), Attention(sizes)
        self.feed_forward_norm = nn.RMSNorm(sizes.hidden)
        self.feed_forward: MoE | SwiGLU
        if router is None:
            self.feed_forward = SwiGLU(sizes.hidden, sizes.dense_hidden)
        else:
            self.feed_forward = MoE(router, sizes.n_experts, sizes.hidden, sizes.expert_hidden, sizes.n_shared)

    def forward(self, hidden: Tensor) -> tuple[Tensor, Routed | None]:
        """Return hidden[sequences, length, hidden] and, from an MoE block, how it routed."""
        hidden = hidden + self.attention(self.attention_norm(hidden))
        tokens = self.feed_forward_norm(hidden).flatten(0, 1)
        if isinstance(self.feed_forward, SwiGLU):
            return hidden + self.feed_forward(tokens).view_as(hidden), None
        mixed, routed = self.feed_forward(tokens)
        return hidden + mixed.view_as(hidden), routed


class LanguageModel(nn.Module):
    """Bytes in, logits of the next byte out, and the routing of every MoE layer."""

    def __init__(self, sizes: Sizes, router: Router) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, sizes.hidden)
        self.blocks = nn.ModuleList(
            Block(sizes, None if layer < sizes.dense_layers else router) for layer in range(sizes.layers)
        )
        self.norm = nn.RMSNorm(sizes.hidden)
        self.head = nn.Linear(sizes.hidden, VOCABULARY, bias=False)
        nn.init.normal_(self.embedding.weight, std=1.0)
        nn.init.normal_(self.head.weight, std=0.02)

    def forward(self, tokens: Tensor) -> tuple[Tensor, dict[int, Routed]]:
        """Return next-byte logits[sequences, length, 256] and per MoE layer number how it routed."""
        hidden = self.embedding(tokens)
        routing = {}
        for layer, block in enumerate(self.blocks):
            hidden, routed = block(hidden)
            if routed is not None:
                routing[layer] = routed
        return self.head(self.norm(hidden)), routing

    def moe_layers(self) -> dict[int, MoE]:
        """Return the MoE blocks by layer number."""
        found = {layer: block.feed_forward for layer, block in enumerate(self.blocks)}
        return {layer: block for layer, block in found.items() if isinstance(block, MoE)}
