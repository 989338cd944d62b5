"""A model from its released ``config.json`` (the file beside a checkpoint).

Read as facts only: sizes, router and attention. A family of ``data/families.yaml`` says what its file leaves to the
code; a file of no known family is read by the usual keys, and each thing that no key says is a note in ``uncertain``.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from moesim.bounded_text import read_json
from moesim.broken_files import content, reading
from moesim.errors import InputError
from moesim.mistakes import Loc
from moesim.model import special_families
from moesim.model.config_facts import BY_HAND, Facts
from moesim.model.config_router import published_router
from moesim.model.layer_patterns import MOE_FACTS, block_types, layer_count, moe_layer_ids
from moesim.model.mixers import attentions
from moesim.model.model_families import Family, family_of, harmless, known_keys, names_for
from moesim.model.model_spec import ModelSpec

MAX_BYTES = 10 * 10**6
# Where a model of several parts keeps its language model, the most usual first.
_NESTED = ("text_config", "llm_config", "language_config", "thinker_config", "language_model", "llm", "text", "model")


def read_config_json(path: str | Path) -> ModelSpec:
    """Read the sizes of a model from a released ``config.json``.

    Raises:
        InputError: not a readable JSON object of at most 10 MB, not an MoE model, or a size that is missing or out of
            bounds; with the line of the key where it can be found.
    """
    where = str(path)
    config, text = _read(path, where)
    at, block = _language_model(config, where)
    architectures = [name for part in (block, config) for name in _listed(part.get("architectures"))]
    types = [part.get("model_type") for part in (block, config)]
    wrong = next((one for one in types if one is not None and not (isinstance(one, str) and len(one) <= 100)), None)
    if wrong is not None:
        raise InputError(f"model_type is {wrong!r:.40}", where, "a word of at most 100 letters is needed")
    family = family_of(architectures, types)
    facts = Facts(block, at, names_for(family), family.given if family else {}, where, text)
    kind = next((" ".join(one.split()) for one in types if isinstance(one, str)), None)  # a name is one line
    if family is None:
        named = f"model_type {kind:.60}" if kind else "no model_type"
        facts.notes.append(f"{named}: no family known to moesim, read by the usual keys")
    outer = config.get("tie_word_embeddings")  # the file around a language model decides where it says so
    tied = outer if facts.names["tied"] and isinstance(outer, bool) else bool(facts.flag("tied"))
    model = replace(_model(facts, family, kind or Path(where).stem), tied=tied)
    facts.notes += family.notes if family else ()
    unread = [key for key in facts.unread(harmless()) if key not in known_keys()]
    if unread:
        facts.notes.append(f"keys about experts that were not read: {', '.join(f'{key:.40}' for key in unread[:8])}")
    return replace(model, uncertain=tuple(dict.fromkeys(facts.notes)))


def _model(facts: Facts, family: Family | None, title: str) -> ModelSpec:
    special = family.special if family else None
    hidden = facts.size("hidden")
    if special == "encoder_decoder":
        layers, moe, mixed = special_families.encoder_decoder(facts)
    else:
        layers = layer_count(facts)
        # DeepSeek-V4 has its own attention, which the usual keys do not describe.
        mixed = () if special == "deepseek_v4" else attentions(facts, hidden, layers)
        moe = moe_layer_ids(facts, layers)
    router = published_router(facts, family)
    experts, zero = facts.size("n_experts"), facts.maybe("zero_experts") or 0
    expert_hidden = facts.maybe("expert_hidden")
    if expert_hidden is None:
        expert_hidden = facts.size("any_hidden")
        facts.notes.append(f"the width of an expert is taken from {facts.find('any_hidden')[0]}")
    n_shared, shared = _shared(facts, expert_hidden)
    if family is None and not any(facts.find(fact)[0] for fact in MOE_FACTS):
        facts.notes.append("no key says which layers have experts: all are taken to")
    # In a stack of single blocks an FFN without experts is a block of its own.
    blocks = block_types(facts, layers)
    dense = sum(word in ("mlp", "-") for word in blocks) if blocks else layers - len(moe)
    model = ModelSpec(
        name=facts.where, title=title, sources=(facts.where,), uncertain=(), published_total=None,
        published_active=None, hidden=hidden, layers=layers, vocab=facts.size("vocab"), moe_layer_ids=moe,
        dense_layers=dense, dense_hidden=facts.maybe("dense_hidden"), n_experts=experts, zero_experts=zero,
        n_shared=n_shared, shared_hidden=shared, expert_hidden=expert_hidden, latent=facts.maybe("latent"),
        ffn_matrices=int(facts.given.get("ffn_matrices", 3)), router=router, attentions=mixed,
        mtp_layers=facts.maybe("mtp_layers") or 0,
    )  # fmt: skip
    if zero:
        facts.notes.append(f"{zero} of the router's {experts + zero} choices cost nothing; simulated without them")
    if model.ffn_matrices == 2:
        facts.notes.append("FFNs have two matrices, without a gate; their time is taken as that of three")
    if facts.at_key("use_cla") or facts.at_key("num_kv_shared_layers"):
        facts.notes.append("layers share keys and values with others; the KV cache counts each layer's")
    if model.latent:
        facts.notes.append(f"experts take tokens of {model.latent} elements; the projections there are not timed")
    if special and special != "encoder_decoder":
        model = getattr(special_families, special)(facts, model)
    return model


def _shared(facts: Facts, expert_hidden: int) -> tuple[int, int]:
    """The number of shared experts, and their width together."""
    count, width = facts.maybe("n_shared"), facts.maybe("shared_hidden")
    if width is not None:
        return (1 if count is None else count), width
    if facts.find("shared_hidden")[0] and not facts.find("n_shared")[0]:
        return 0, 0  # a width of 0 says that there is none
    return count or 0, (count or 0) * expert_hidden


def _language_model(config: Mapping[str, Any], where: str) -> tuple[Loc, Mapping[str, Any]]:
    """The block with the language model: the file itself, or the first one inside that has experts.

    Raises:
        InputError: no block has experts.
    """
    keys = names_for(None)
    blocks = [(at, block, Facts(block, at, keys, {}, where)) for at, block in _blocks(config, (), 3)]
    dense = ""
    for at, block, facts in blocks:
        key, count = facts.find("n_experts")
        if key and ((count in (0, 1) and not isinstance(count, bool)) or block.get("enable_moe_block") is False):
            dense = dense or f"{key} is {count!r:.20}"
        elif key:
            return at, block
    names = f"{', '.join(keys['n_experts'][:5])}, ..."
    about = [key for _, _, facts in blocks for key in facts.unread(harmless())]
    if about and not dense:
        there = ", ".join(f"{key:.40}" for key in about[:12])
        what = f"no number of experts under a key that moesim knows ({names}); about experts it has {there}"
        raise InputError(what, where, BY_HAND)
    if not any(key in block for _, block, _ in blocks for key in keys["hidden"]):
        found = ", ".join(f"{key:.40}" for key in list(config)[:12]) or "no keys"
        fix = "give the config.json that lies beside the weights"
        raise InputError(f"no configuration of a language model: it has {found}", where, fix)
    why = dense or f"no key says a number of experts ({names})"
    raise InputError(f"a dense model: {why}", where, "moesim simulates layers with experts")


def _blocks(block: Mapping[str, Any], at: Loc, depth: int) -> Iterator[tuple[Loc, Mapping[str, Any]]]:
    yield at, block
    if depth:
        for name in _NESTED:
            if isinstance(block.get(name), dict):
                yield from _blocks(block[name], (*at, name), depth - 1)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _read(path: str | Path, where: str) -> tuple[dict[str, Any], str]:
    with reading(path, "", "not valid JSON"):
        text = content(path, MAX_BYTES).decode("utf-8-sig")
        config = read_json(text, where, infinite=True)  # time_step_limit of Mamba's layers is [0, Infinity]
    if not isinstance(config, dict):
        raise InputError("expected a JSON object", where)
    return config, text
