"""From the sizes of a configuration to one ``Attention`` per kind of layer, with weights and state.

Sources: MiniMax-01 (lightning attention), Gated DeltaNet, Kimi Linear
(KDA), Mamba, Mamba-2, LFM2 (short convolution); the sizes of their projections as transformers 5 has them.
"""

from dataclasses import replace

from moesim.model.config_facts import Facts
from moesim.model.layer_attention import Attention, AttentionKind
from moesim.model.layer_patterns import mixers

# No released model comes near: DeepSeek-V3 has 3.4.
_MOST_OF_HIDDEN = 64


def attentions(facts: Facts, hidden: int, layers: int) -> tuple[Attention, ...]:
    """Return the attention of a model, one value per kind, full attention first.

    Raises:
        InputError: a size that a kind needs is missing or not a whole number.
    """
    of_layer = mixers(facts, layers)
    times = facts.maybe("per_layer") or 1  # LongCat has two in each layer
    found = []
    for kind in ("full", "sliding", "linear", "mamba", "conv"):
        ids = tuple(layer for layer, one in enumerate(of_layer) if one == kind for _ in range(times))
        if ids:
            found.append(replace(_mixer(facts, kind, hidden, ids), layers=ids))
    return tuple(found)


def _mixer(facts: Facts, kind: str, hidden: int, ids: tuple[int, ...]) -> Attention:
    # transformers 5 calls Mamba layers linear attention too.
    if kind == "mamba" or (kind == "linear" and facts.maybe("mamba_state")):
        if facts.maybe("mamba_state") is None:
            facts.notes.append("the sizes of the Mamba layers are not in the file: weights as of attention, no state")
            return Attention("mamba", 0, other_weights=_softmax(facts, "full", hidden, ids).parameters(hidden))
        return _mamba(facts, hidden)
    if kind == "conv":
        width = facts.maybe("conv_L_cache") or 3
        return Attention("conv", 0, other_weights=4 * hidden**2 + hidden * width, state=hidden * (width - 1))
    if kind == "linear":
        return _linear(facts, hidden)
    return _softmax(facts, kind, hidden, ids)


def _softmax(facts: Facts, kind: str, hidden: int, ids: tuple[int, ...]) -> Attention:
    """Attention with a cache. ``kind`` is full or sliding, whose own sizes come before the common ones."""
    window = facts.maybe("window") if kind == "sliding" else None
    if kind == "sliding" and window is None:
        facts.notes.append("sliding_window is not in the file: its layers are taken to see all tokens")
    heads = facts.maybe(f"{kind}_heads") or _heads_of(facts, ids) or facts.size("heads")
    queries = facts.maybe("q_lora_rank")
    if facts.maybe("kv_lora_rank"):
        nope, rope = facts.maybe("nope_head_dim"), facts.maybe("rope_head_dim") or 0
        value = facts.size("value_head_dim")
        index_heads, index_dim, top_k = (facts.maybe(f"index_{name}") or 0 for name in ("n_heads", "head_dim", "topk"))
        return Attention(
            "mla", heads, kv_lora_rank=facts.size("kv_lora_rank"), q_lora_rank=queries, value_head_dim=value,
            nope_head_dim=facts.size("head_dim") - rope if nope is None else nope, rope_head_dim=rope, window=window,
            index_heads=index_heads, index_head_dim=index_dim, index_top_k=top_k,
            other_weights=_gate(facts, hidden, heads, value),
        )  # fmt: skip
    head_dim = facts.maybe(f"{kind}_head_dim") or head_size(facts, hidden)
    values = facts.maybe(f"{kind}_value_head_dim") or facts.maybe("value_head_dim")
    kv_heads = facts.maybe(f"{kind}_kv_heads") or facts.maybe("kv_heads") or heads
    if heads % kv_heads:
        raise facts.error(facts.find("kv_heads")[0] or "heads", f"is {kv_heads}, which does not divide {heads} heads")
    gate = _gate(facts, hidden, heads, values or head_dim)
    if kind == "full" and facts.flag("attention_k_eq_v"):  # Gemma 4: no projection of values
        gate -= hidden * kv_heads * head_dim
    named: AttentionKind = "mha" if kv_heads == heads else "mqa" if kv_heads == 1 else "gqa"
    own = None if values == head_dim else values
    return Attention(
        named, heads, kv_heads, head_dim, value_head_dim=own, q_lora_rank=queries, window=window, other_weights=gate
    )


def head_size(facts: Facts, hidden: int) -> int:
    """Return the size of a head: a key, else the hidden size shared out."""
    stated, heads = facts.maybe("head_dim"), facts.size("heads")
    if stated is None and hidden % heads:
        what = f"of {heads} does not divide the hidden size {hidden}"
        raise facts.error(facts.find("heads")[0], what, "add head_dim")
    size = stated or hidden // heads
    if heads * size > _MOST_OF_HIDDEN * hidden:
        what = f"{heads} of {size} are {heads * size // hidden} times the hidden size {hidden}"
        raise facts.error(facts.find("heads")[0], what, "are the sizes those of one model?")
    return size


def _heads_of(facts: Facts, ids: tuple[int, ...]) -> int | None:
    """The query heads where each layer has its own number (Laguna): that of the first layer of the kind."""
    key, _ = facts.find("heads_per_layer")
    if not key:
        return None
    numbers = facts.per_layer("heads_per_layer", ids[-1] + 1)
    return facts.whole(key, numbers[ids[0]], 1) if numbers else None


def _gate(facts: Facts, hidden: int, heads: int, head_dim: int) -> int:
    """Weights of the gate on the output: one per element, or one per head."""
    gate, stated = facts.given.get("gate"), facts.flag("output_gate")
    if stated is False or (gate is None and not stated):
        return 0
    return hidden * heads * (1 if gate == "headwise" else head_dim)


def _linear(facts: Facts, hidden: int) -> Attention:
    """Linear attention: gated delta net, KDA, or lightning attention as a simpler one of the same projections."""
    kernel = facts.maybe("conv_kernel")
    back = (kernel or 4) - 1
    if facts.maybe("linear_num_value_heads"):
        key_heads, heads = facts.size("linear_num_key_heads"), facts.size("linear_num_value_heads")
        key, value = facts.size("linear_key_head_dim"), facts.size("linear_value_head_dim")
        mixed = 2 * key_heads * key + heads * value
        weights = hidden * (mixed + heads * value + 2 * heads) + heads * value * hidden + mixed * (back + 1)
        state = heads * key * value + mixed * back
        return Attention("linear", heads, head_dim=value, other_weights=weights, state=state)
    heads = facts.maybe("linear_heads") or facts.maybe("num_kv_heads_for_linear_attn") or facts.size("heads")
    # Beside MLA, head_dim is sometimes its rotary part.
    rotary = facts.maybe("kv_lora_rank") and facts.maybe("head_dim") == facts.maybe("rope_head_dim")
    size = facts.maybe("linear_head_dim") or (hidden // heads if rotary else head_size(facts, hidden))
    inner, state = heads * size, heads * size * size
    if facts.given.get("linear") == "kda" and kernel:
        gates = 2 * (hidden * size + size * inner) + hidden * heads
        weights = 4 * hidden * inner + gates + 3 * inner * kernel
        return Attention("linear", heads, head_dim=size, other_weights=weights, state=state + 3 * inner * back)
    if facts.given.get("linear") not in ("lightning", "kda"):
        facts.notes.append("linear attention is taken as lightning attention: query, key, value, output, a gate")
    return Attention("linear", heads, head_dim=size, other_weights=5 * hidden * inner, state=state)


def _mamba(facts: Facts, hidden: int) -> Attention:
    state, kernel = facts.size("mamba_state"), facts.maybe("mamba_kernel") or 4
    heads = facts.maybe("mamba_heads")
    if heads:  # Mamba-2
        key, stated = facts.find("mamba_head_dim")
        auto = stated in (None, "auto")
        size = (facts.maybe("mamba_expand") or 2) * hidden // heads if auto else facts.whole(key, stated, 1)
        inner = heads * size
        mixed = inner + 2 * (facts.maybe("mamba_groups") or 1) * state
        weights = hidden * (inner + mixed + heads) + inner * hidden + mixed * kernel
        kept = inner * state + mixed * (kernel - 1)
        return Attention("mamba", heads, head_dim=size, other_weights=weights, state=kept)
    inner = (facts.maybe("mamba_expand") or 2) * hidden
    key, rank = facts.find("mamba_dt_rank")
    steps = facts.whole(key, rank, 1) if key and rank != "auto" else -(-hidden // 16)
    weights = 2 * hidden * inner + inner * (kernel + 2 * steps + 3 * state) + inner * hidden
    return Attention("mamba", 0, other_weights=weights, state=inner * (state + kernel - 1))
