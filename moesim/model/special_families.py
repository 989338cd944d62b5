"""What a row of ``data/families.yaml`` cannot say of a family: one short function for each."""

from dataclasses import replace

from moesim.model.config_facts import Facts
from moesim.model.layer_attention import Attention
from moesim.model.model_spec import ModelSpec


def parallel_dense(facts: Facts, model: ModelSpec) -> ModelSpec:
    """A dense FFN beside the experts, which every token passes, as the shared part.

    Gemma 4; Grok-2 (``residual_moe``); Arctic (``use_residual``), as wide as the model.
    """
    if facts.find("use_residual")[0]:
        width = model.hidden if facts.flag("use_residual") else 0
    elif facts.find("enable_moe_block")[0] or facts.flag("residual_moe"):
        width = facts.size("intermediate_size")
    else:
        return model
    return replace(model, n_shared=0, shared_hidden=width)


def ernie(facts: Facts, model: ModelSpec) -> ModelSpec:
    """Experts of its own for the vision part (ERNIE-VL), that no text token takes: lists, the text's number first."""
    count, width = (facts.find(fact)[1] for fact in ("n_experts", "expert_hidden"))
    if not isinstance(width, list) or len(width) != 2:
        return model
    count = count if isinstance(count, list) and len(count) == 2 else [model.n_experts] * 2
    facts.notes.clear()  # that the two differ
    other = model.moe_layers * count[1] * model.ffn_matrices * model.hidden * width[1]
    facts.notes.append(f"{count[1]} experts of width {width[1]} for the vision part are in the total and not simulated")
    return replace(model, n_experts=count[0], expert_hidden=width[0], looked_up=other)


def jetmoe(facts: Facts, model: ModelSpec) -> ModelSpec:
    """Experts in the attention too: each has queries and an output of its own, a token passes ``top_k`` of them."""
    facts.notes.append("the experts of its attention are in the total and not simulated")
    one, top_k = model.attention, model.router.top_k
    each = 2 * model.hidden * one.heads * (one.head_dim or 0)
    idle = len(one.layers) * (model.n_experts - top_k) * each
    return replace(model, attentions=(replace(one, other_weights=(top_k - 1) * each),), looked_up=idle)


def longcat(facts: Facts, model: ModelSpec) -> ModelSpec:
    """Two attentions and two dense FFNs in each layer; tables of n-grams in the Lite model."""
    rows = (facts.maybe("ngram_vocab_size_ratio") or 0) * model.vocab
    tables = (facts.maybe("emb_split_num") or 1) * max((facts.maybe("emb_neighbor_num") or 2) - 1, 1)
    lookups = rows * model.hidden + (model.hidden**2 * tables if rows else 0)
    return replace(model, dense_layers=2 * model.layers, looked_up=lookups)


def deepseek_v4(facts: Facts, model: ModelSpec) -> ModelSpec:
    """One shared key-value head, a window, and behind it entries that stand for 4 (with an indexer) or 128 tokens.

    The output is projected in groups through a low rank.
    """
    heads, head_dim, hidden = facts.size("heads"), facts.size("head_dim"), model.hidden
    rank, queries = facts.size("o_lora_rank"), facts.size("q_lora_rank")
    index_heads, index_dim = facts.maybe("index_n_heads") or 0, facts.maybe("index_head_dim") or 0
    output = heads * head_dim * rank + facts.size("o_groups") * rank * hidden - heads * head_dim * hidden
    # transformers 5 has words for the ratios.
    words = {"compressed_sparse_attention": 4, "heavily_compressed_attention": 128}
    named = [words.get(str(one), 0) for one in facts.per_layer("layer_types", model.layers)]
    ratios = facts.per_layer("compress_ratios", model.layers) or named or [0] * model.layers
    found = []
    for ratio in sorted(set(facts.whole("compress_ratios", one, 0) for one in ratios)):
        overlap = 2 if ratio == 4 else 1
        compressor = 2 * hidden * overlap * head_dim if ratio else 0
        indexed = ratio == 4 and index_heads > 0
        index = queries * index_heads * index_dim + hidden * (index_heads + 2 * overlap * index_dim)
        one = Attention(
            "mqa", heads, 1, head_dim, value_head_dim=0, q_lora_rank=queries, window=facts.size("window"),
            rope_head_dim=facts.maybe("rope_head_dim"), compression=ratio,
            other_weights=output + compressor + (index if indexed else 0),
            layers=tuple(layer for layer, it in enumerate(ratios) if it == ratio),
        )  # fmt: skip
        if indexed:
            top_k = facts.maybe("index_topk") or 0
            one = replace(one, index_heads=index_heads, index_head_dim=index_dim, index_top_k=top_k)
        found.append(one)
    hashed = facts.maybe("num_hash_layers") or facts.per_layer("mlp_layer_types", model.layers).count("hash_moe")
    if hashed:
        facts.notes.append(f"the first {hashed} layers choose by a hash of the token; simulated by logits as the rest")
    return replace(model, attentions=tuple(found))


def encoder_decoder(facts: Facts) -> tuple[int, tuple[int, ...], tuple[Attention, ...]]:
    """Return layers, those with experts and attention of an encoder and a decoder, counted one after the other.

    A layer of the decoder has two attentions; the encoder leaves no KV cache of a generated token.
    """
    sizes = [facts.size("encoder_layers"), facts.size("decoder_layers")]
    ids: list[int] = []
    for name, size, start in zip(("encoder", "decoder"), sizes, (0, sizes[0]), strict=True):
        sparse = facts.maybe(f"num_sparse_{name}_layers")
        step = max(size // sparse, 1) if sparse else facts.maybe(f"{name}_sparse_step") or 1
        ids += [start + layer for layer in range(size) if (layer + 1) % step == 0]
    layers, heads = sum(sizes), facts.size("heads")
    head_dim = facts.maybe("head_dim") or facts.size("hidden") // heads
    facts.notes.append(f"encoder ({sizes[0]} layers) and decoder are one list of layers; the KV cache is that of both")
    twice = tuple(range(layers)) + tuple(range(sizes[0], layers))
    return layers, tuple(ids), (Attention("mha", heads, heads, head_dim, layers=twice),)
