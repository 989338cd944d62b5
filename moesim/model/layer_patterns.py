"""Which layers of a configuration have experts, and what mixes the tokens in each.

Releases say it as one word, number or letter per layer, as a list of layers, or as a period. Layers count from 0.
"""

import re

from moesim.model.config_facts import Facts

# Facts any of which says which layers have experts.
MOE_FACTS = (
    "block_types", "moe_flags", "moe_list", "moe_layer_start_index", "moe_layer_end_index", "expert_layer_period",
    "first_dense", "moe_step", "moe_period", "mlp_only_layers",
)  # fmt: skip
# One word or letter per layer: of the FFN ...
_SPARSE = {"sparse": True, "moe": True, "hash_moe": True, "e": True, "dense": False, "mlp": False}
# ... and of what mixes tokens, by the first that is in the word; None is a layer without.
_MIXERS: tuple[tuple[str, str | None], ...] = (
    ("^(moe|mlp|e|-)$", None), ("mamba|^m$", "mamba"), ("conv", "conv"), ("linear|kda|delta|lightning", "linear"),
    ("sliding|chunked|local|^l$", "sliding"), ("attention|full|global|hybrid|sparse|mhsa|^[*g]$", "full"),
)  # fmt: skip


def layer_count(facts: Facts) -> int:
    """Return the number of layers: a key, or as many as the list of blocks has."""
    key, blocks = facts.find("block_types")
    if not facts.find("layers")[0] and isinstance(blocks, list | str) and blocks:
        return facts.whole(key, len(blocks), 1, 10_000)
    return facts.size("layers")


def block_types(facts: Facts, layers: int) -> list[str]:
    """Return the one block that each layer is, where a layer is not a mixer and an FFN (Nemotron-H); else nothing."""
    words = _words(facts, "block_types", layers)
    return words if None in _by_word(facts, layers) else []


def moe_layer_ids(facts: Facts, layers: int) -> tuple[int, ...]:
    """Return the layers with experts.

    Raises:
        InputError: a key of the wrong type or length, or one that leaves no layer with experts.
    """
    ids, key = _moe_layers(facts, layers)
    found = tuple(layer for layer in ids if 0 <= layer < layers)
    if not found:
        raise facts.error(key, f"leaves none of {layers} layers with experts")
    return found


def _moe_layers(facts: Facts, layers: int) -> tuple[list[int], str]:
    blocks = block_types(facts, layers)
    if blocks:
        return [layer for layer, word in enumerate(blocks) if _SPARSE.get(word, False)], facts.find("block_types")[0]
    key, _ = facts.find("moe_flags")
    flags = facts.per_layer("moe_flags", layers)
    if flags:
        return [layer for layer, one in enumerate(flags) if _on(facts, key, one)], key
    key, counts = facts.find("n_experts")
    if isinstance(counts, list) and len(counts) >= layers and not all(counts):
        return [layer for layer, count in enumerate(counts[:layers]) if count], key
    listed = facts.ids("moe_list", layers)
    if listed is not None:
        return listed, facts.find("moe_list")[0]
    start, end = facts.maybe("moe_layer_start_index"), facts.at_key("moe_layer_end_index")
    if start is not None or end is not None:  # ERNIE: both ends included, -1 is the last layer
        end = end[0] if isinstance(end, list) and end else end
        last = layers - 1 if end in (None, -1) else facts.whole("moe_layer_end_index", end, 0)
        between = facts.maybe("moe_layer_interval") or 1
        found = range(start or 0, min(last, layers - 1) + 1)
        return [layer for layer in found if (layer + 1) % between == 0], "moe_layer_start_index"
    period = facts.maybe("expert_layer_period")
    if period is not None:  # Jamba
        offset = facts.maybe("expert_layer_offset") or 0
        return [layer for layer in range(layers) if layer % period == offset], "expert_layer_period"
    first, step, every = facts.maybe("first_dense"), facts.maybe("moe_step"), facts.maybe("moe_period")
    dense = set(facts.ids("mlp_only_layers", layers) or ())
    ids = [i for i in range(first or 0, layers) if (i + 1) % (step or 1) == 0 and i % (every or 1) == 0]
    keys = [facts.find(fact)[0] for fact in ("first_dense", "moe_step", "moe_period")]
    return [i for i in ids if i not in dense], next(filter(None, keys), "mlp_only_layers")


def mixers(facts: Facts, layers: int) -> list[str | None]:
    """Return what mixes tokens in each layer: full, sliding, linear, mamba, conv, or None where nothing does."""
    for rule in (_by_word, _by_list, _by_flag, _by_period):
        found = rule(facts, layers)
        if found:
            return found
    window = facts.maybe("window")
    longest = facts.maybe("max_position_embeddings")
    seen_whole = facts.flag("use_sliding_window") is False or (window and longest and window >= longest)
    return ["full" if window is None or seen_whole else "sliding"] * layers


def _by_word(facts: Facts, layers: int) -> list[str | None]:
    words = (_words(facts, fact, layers) for fact in ("block_types", "layer_types"))
    return next(([_mixer_of(word) for word in one] for one in words if one), [])


def _mixer_of(word: str) -> str | None:
    return next((kind for pattern, kind in _MIXERS if re.search(pattern, word)), "unknown")


def _by_list(facts: Facts, layers: int) -> list[str | None]:
    """Lists of the layers of one kind: Kimi-Linear counts from 1, the others from 0."""
    for key, first, there, elsewhere in (
        ("linear_attn_config.full_attn_layers", 1, "full", "linear"),
        ("gqa_layers", 0, "full", "linear"),
        ("local_layer_ids", 0, "sliding", "full"),
    ):
        ids = facts.ids(key, layers, first)
        if ids is not None:
            return [there if layer in ids else elsewhere for layer in range(layers)]
    return []


def _by_flag(facts: Facts, layers: int) -> list[str | None]:
    """One number per layer: MiniMax has 1 for full attention and 0 for linear, MiMo 1 for sliding and 0 for full."""
    for fact, off, on in (
        ("attn_type_list", "linear", "full"),
        ("sliding_flags", "full", "sliding"),
        ("no_rope_layers", "full", "sliding"),  # Llama 4: 1 with rotary keys, in chunks; 0 without, over everything
    ):
        key, _ = facts.find(fact)
        flags = facts.per_layer(fact, layers)
        if flags:
            return [on if _on(facts, key, one) else off for one in flags]
    return []


def _by_period(facts: Facts, layers: int) -> list[str | None]:
    """A period of full attention; what the other layers are follows from the key."""
    period = facts.maybe("attn_layer_period")
    if period:  # Jamba
        offset = facts.maybe("attn_layer_offset") or 0
        return ["full" if layer % period == offset else "mamba" for layer in range(layers)]
    every = facts.maybe("full_every")
    if every:  # layers after the last whole group see everything too (Ling 2.5)
        tail = layers // every * every if facts.find("layer_group_size")[0] else layers
        return ["full" if (layer + 1) % every == 0 or layer >= tail else "linear" for layer in range(layers)]
    key, letters = facts.find("sliding_window_pattern")
    if isinstance(letters, str) and letters:
        pattern = [_mixer_of(letter) for letter in letters.lower()]
        if set(pattern) - {"full", "sliding"}:
            raise facts.error(key, f"must be letters L and G or a number, got {letters!r:.60}")
        return [pattern[layer % len(pattern)] for layer in range(layers)]
    chunks = 4 if facts.at_key("attention_chunk_size") and not facts.at_key("sliding_window") else None  # Llama 4
    every = facts.maybe("global_every") or chunks
    return ["full" if (layer + 1) % every == 0 else "sliding" for layer in range(layers)] if every else []


def _words(facts: Facts, fact: str, layers: int) -> list[str]:
    listed = facts.per_layer(fact, layers)
    words = [one.lower() if isinstance(one, str) else "" for one in listed]
    odd = [one for one, word in zip(listed, words, strict=True) if _mixer_of(word) == "unknown"]
    if odd:
        raise facts.error(facts.find(fact)[0], f"has a layer of a kind that moesim does not know: {odd[0]!r:.40}")
    return words


def _on(facts: Facts, key: str, one: object) -> bool:
    if isinstance(one, str) and one.lower() in _SPARSE:
        return _SPARSE[one.lower()]
    if not isinstance(one, int) or one not in (0, 1):
        raise facts.error(key, f"must have 0 or 1, or dense or sparse, for each layer, got {one!r:.40}")
    return bool(one)
