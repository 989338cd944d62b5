"""What attention computes and reads: one layer, one sequence, some new tokens behind a cached context.

MLA can be computed in two ways with one result (DeepSeek-V2, section 2.1). *Absorbed*: the query is multiplied into the
latent space and scores against the cached latents themselves, one key for all heads. *Unabsorbed*: keys and values of
every head are made from the latents first. The first costs more for each pair of tokens, the second for each cached
token, so few queries take the first and a prompt the second. The rotary part cannot be absorbed: its rotation depends
on the distance of the two tokens and stands between the two matrices; hence one small rotated key beside the latent.

Not modelled (``not_counted`` says so of a model): the indexer of sparse attention, whose layers count as full attention
here; entries compressed behind a window; the state of linear layers.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from moesim.errors import InputError
from moesim.model.layer_attention import Attention
from moesim.model.model_spec import ModelSpec

Form = Literal["absorbed", "unabsorbed"]


@dataclass(frozen=True)
class AttentionWork:
    """Of one layer and one sequence.

    Attributes:
        pairs_flops: scores and weighted values of every (query, key) pair that the causal mask leaves.
        expansion_flops: between latent and heads, of each query (absorbed) or each key (unabsorbed); 0 but for MLA.
        read_bytes: what core attention reads: the KV cache with the new entries; of MLA unabsorbed keys and values of
            all heads.
    """

    pairs_flops: float
    expansion_flops: float
    read_bytes: float

    @property
    def flops(self) -> float:
        """All of them."""
        return self.pairs_flops + self.expansion_flops


def attention_work(
    attention: Attention, cached: int, new: int, form: Form = "absorbed", bytes_per_element: float = 2
) -> AttentionWork:
    """Return what ``new`` tokens cost behind ``cached`` ones; ``form`` tells MLA's two ways apart.

    Raises:
        InputError: a negative context, or no new token.
    """
    if cached < 0 or new < 1:
        raise InputError(f"{new} new tokens behind {cached}", "attention_work", "give at least 1 behind 0 or more")
    if not attention.cache_elements:
        return AttentionWork(0.0, 0.0, 0.0)
    # Token i sees the cache, the new ones before it and itself, no more than its window.
    ramp = max(0, min(new, attention.window - cached)) if attention.window else new
    pairs = cached * ramp + ramp * (ramp + 1) // 2 + (new - ramp) * (attention.window or 0)
    keys = new + (min(cached, attention.window - 1) if attention.window else cached)
    read = keys * attention.cache_elements * bytes_per_element
    if attention.kind != "mla":
        _, head, value = attention.grouped()
        return AttentionWork(2.0 * attention.heads * (head + (value or head)) * pairs, 0.0, read)
    absorbed, unabsorbed, between = _mla_flops(attention)
    if form == "absorbed":
        return AttentionWork(absorbed * pairs, between * new, read)
    made = keys * unabsorbed / 2 * bytes_per_element
    return AttentionWork(unabsorbed * pairs, between * keys, made)


def not_counted(attentions: Iterable[Attention]) -> Iterator[str]:
    """Say what of a model's layers ``attention_work`` leaves out, and which way that is off."""
    found = list(attentions)
    for top_k in sorted({one.index_top_k for one in found if one.index_top_k and not one.compression}):
        yield f"an indexer, left out, picks {top_k:,} tokens; core attention is counted over all: too slow behind more"
    if any(one.compression for one in found):
        yield "entries that stand for the tokens behind the window are left out of core attention, which is too fast"
    if kinds := sorted({one.kind for one in found if not one.cache_elements}):
        yield f"what {' and '.join(kinds)} layers compute on their state is left out, which is too fast"


def crossover_tokens(attention: Attention) -> float | None:
    """Return the new tokens below which absorbed MLA computes less, behind a long context; None but for MLA.

    c (nope + v) / (2 c - nope - v), whatever the number of heads: 170.7 for DeepSeek-V2 and V3.
    """
    if attention.kind != "mla":
        return None
    absorbed, unabsorbed, between = _mla_flops(attention)
    return between / (absorbed - unabsorbed) if absorbed > unabsorbed else float("inf")


def other_kinds(attention: Attention) -> dict[str, Attention]:
    """Return the attention beside what else it could be, with as many heads of the same size: MHA, GQA, MQA, MLA.

    GQA has 8 KV heads unless the model has its own number, MLA a latent of 4 heads' size and half a head of rotary
    positions (DeepSeek-V2, table 1).
    """
    mla = attention.kind == "mla"
    head = attention.value_head_dim if mla else attention.head_dim
    if not head or attention.kind not in ("mla", "mha", "gqa", "mqa"):
        return {}
    plain = Attention("mha", attention.heads, attention.heads, head, layers=attention.layers)
    groups = attention.kv_heads if attention.kind == "gqa" else min(8, attention.heads)
    latent = Attention("mla", attention.heads, kv_lora_rank=4 * head, nope_head_dim=head, rope_head_dim=head // 2,
                       value_head_dim=head, layers=attention.layers)  # fmt: skip
    kinds = {
        "mha": plain,
        "gqa": replace(plain, kind="gqa", kv_heads=groups),
        "mqa": replace(plain, kind="mqa", kv_heads=1),
        "mla": latent,
    }
    return kinds | {attention.kind: attention}


def with_attention(spec: ModelSpec, kind: str | None = None, **sizes: int) -> ModelSpec:
    """Return the model with another kind of attention, or other ``heads``, ``kv_heads`` or ``kv_lora_rank``.

    Every kind that the model has changes alike; layers that keep a state instead of a cache stay.

    Raises:
        InputError: there is no such attention of the model's sizes, or it has no such size.
    """
    return replace(
        spec, attentions=tuple(_asked(one, kind, sizes) if one.cache_elements else one for one in spec.attentions)
    )


def _asked(one: Attention, kind: str | None, sizes: Mapping[str, int]) -> Attention:
    if kind not in (None, one.kind):
        kinds = other_kinds(one)
        if kind not in kinds:
            what = f"attention of kind {one.kind} has no {kind} of the same size"
            raise InputError(what, "model.attention", "leave it out")
        one = replace(kinds[kind], window=one.window)
    has = {"mla": ("heads", "kv_lora_rank"), "gqa": ("heads", "kv_heads")}.get(one.kind, ("heads",))
    for name in sizes:
        if name not in has:
            raise InputError(f"{one.kind} has no {name}", f"model.{name}", f"it has {' and '.join(has)}")
    heads = {"kv_heads": sizes["heads"]} if one.kind == "mha" and sizes else {}
    changes: dict[str, Any] = {**sizes, **heads}
    one = replace(one, **changes)
    if one.heads % (one.kv_heads or 1):
        what = f"{one.kv_heads} KV heads do not divide {one.heads} heads"
        raise InputError(what, "model.kv_heads", "give a divisor of heads")
    return one


def _mla_flops(attention: Attention) -> tuple[float, float, float]:
    """FLOPs of a pair absorbed and unabsorbed, and of a token between latent and heads."""
    latent, nope, rope, value = attention.mla_sizes()
    heads = 2.0 * attention.heads
    return heads * (2 * latent + rope), heads * (nope + rope + value), heads * latent * (nope + value)
