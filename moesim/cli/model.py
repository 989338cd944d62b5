"""``moesim model``: sizes, router, attention and KV cache of a published model or of a released config.json."""

import json
from typing import TYPE_CHECKING, Any, Literal

import typer

if TYPE_CHECKING:
    from moesim.model import Attention, ModelSpec

Weights = Literal["fp8", "bf16"]
_UNITS = {"T": 1e12, "B": 1e9, "M": 1e6, "K": 1e3}


def model(
    name: str | None = typer.Argument(None, help="A published model by name, or a config.json; without it the names."),
    context: int | None = typer.Option(
        None, "--context", min=1, help="Tokens that each request keeps: attention's work, and what a GPU holds."
    ),
    requests: int = typer.Option(1, "--requests", min=1, help="Requests of a GPU."),
    new: int = typer.Option(1, "--new", min=1, help="New tokens of a request: 1 in decode, the prompt in prefill."),
    gpu: str = typer.Option("h800", "--gpu", help="GPU whose memory and peaks are meant."),
    ep: int = typer.Option(1, "--ep", min=1, help="Ranks of expert parallelism; attention is data parallel."),
    redundant: int = typer.Option(0, "--redundant", min=0, help="Redundant experts of a layer."),
    weights: Weights = typer.Option("fp8", "--weights", help="Type of the linear layers' weights."),
    as_json: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> None:
    """Print what moesim reads of a model: parameters, experts, router, attention, KV cache, and what it assumed.

    With --context also what attention computes and reads, beside other kinds of attention, and what a GPU holds.

    Example: moesim model deepseek-v3 --context 4096 --requests 128 --ep 144 --redundant 32
    """
    from moesim.cli.model_at_work import at_work, at_work_lines
    from moesim.cli.show import console
    from moesim.layer import Requests
    from moesim.model import load_model, model_names

    if name is None:
        typer.echo(json.dumps(model_names()) if as_json else "\n".join(model_names()))
        return
    spec = load_model(name)
    facts = None
    if context is not None:
        facts = at_work(spec, gpu, Requests(context, requests, new), ep=ep, redundant=redundant, weights=weights)
    if as_json:
        typer.echo(json.dumps(facts_of(spec) | (facts or {}), indent=1))
        return
    published = f"; published {_many(spec.published_total)}" if spec.published_total else ""
    total, active = _many(spec.total_parameters), _many(spec.active_parameters)
    typer.echo(f"{spec.title}: {total} parameters, {active} active{published}")
    for what, text in _lines(spec):
        typer.echo(f"  {what:<13} {text}")
    for line in at_work_lines(facts) if facts else ():
        console().print(line)
    for note in spec.uncertain:
        typer.echo(f"note: {note}")


def facts_of(spec: "ModelSpec") -> dict[str, Any]:
    """Return all that is known of a model as plain data; parameters in units, the KV cache in bytes (BF16)."""
    plain = ("name", "title", "hidden", "layers", "vocab", "tied", "published_total", "published_active", "n_experts",
             "zero_experts", "expert_hidden", "ffn_matrices", "latent", "n_shared", "shared_hidden", "moe_layers",
             "moe_layer_ids", "dense_layers", "dense_hidden", "mtp_layers", "total_parameters", "active_parameters",
             "expert_parameters")  # fmt: skip
    return {
        **{name: getattr(spec, name) for name in plain},
        "top_k": spec.router.top_k,
        "router": vars(spec.router) | {"selection_bias": spec.router.kind == "v3"},
        "attention": [_attention_facts(one, spec.hidden) for one in spec.attentions],
        "kv_cache_bytes_per_token": spec.kv_cache_bytes_per_token(),
        "kv_cache_bytes_per_token_beyond_windows": spec.kv_cache_bytes_per_token(beyond_windows=True),
        "notes": spec.uncertain,
        "sources": spec.sources,
    }


def _attention_facts(one: "Attention", hidden: int) -> dict[str, Any]:
    return {name: value for name, value in vars(one).items() if value is not None} | {
        "n_layers": len(one.layers),
        "parameters": one.parameters(hidden),
        "kv_cache_bytes_per_token": one.kv_cache_bytes_per_token(2),
        "state_bytes_per_sequence": 2 * one.state * len(one.layers),
    }


def _lines(spec: "ModelSpec") -> list[tuple[str, str]]:
    """What the screen says of a model, one line for each part."""
    router, ids = spec.router, spec.moe_layer_ids
    head = "one matrix for embedding and output" if spec.tied else "an embedding and an output matrix"
    experts = f"{spec.moe_layers} layers ({ids[0]} to {ids[-1]}): {spec.n_experts}"
    experts += f" and {spec.zero_experts} that cost nothing" if spec.zero_experts else ""
    experts += f", width {spec.expert_hidden:,}" + (f" on {spec.latent:,} elements" if spec.latent else "")
    kind = f"{spec.n_shared}, together" if spec.n_shared else "a dense FFN beside the experts,"
    dense = f" of width {spec.dense_hidden:,}" if spec.dense_hidden else ""
    choice = f"{router.kind}: top {router.top_k} by {router.score}{' + bias' if router.kind == 'v3' else ''}, "
    if router.n_groups > 1:
        choice += f"in {router.top_groups} of {router.n_groups} groups ({router.group_score}), "
    choice += f"gates {'' if router.normalize else 'not '}normalised" + (f", x {router.scale:g}" * (router.scale != 1))
    cache, beyond = (spec.kv_cache_bytes_per_token(beyond_windows=it) for it in (False, True))
    later = f", {beyond:,} beyond the windows" if beyond != cache else ""
    return [
        ("sizes", f"hidden {spec.hidden:,}, {spec.layers} layers, vocabulary {spec.vocab:,}, {head}"),
        ("experts", f"{experts}, {_many(spec.expert_parameters)} weights each"),
        ("shared", f"{kind} of width {spec.shared_hidden:,}" if spec.shared_hidden else "none"),
        ("dense FFNs", f"{spec.dense_layers}{dense}" if spec.dense_layers else "none"),
        ("router", choice),
        *(("attention", _attention_words(one)) for one in spec.attentions),
        ("KV cache", f"{cache:,} bytes per token in BF16{later}"),
        *([("MTP", f"{spec.mtp_layers} more layers, in no number here")] if spec.mtp_layers else ()),
    ]


def _attention_words(one: "Attention") -> str:
    ranks = f"of {one.nope_head_dim} + {one.rope_head_dim} rotary, values of {one.value_head_dim}, latent "
    values = f" (values {one.value_head_dim})" if one.value_head_dim else ""
    words = {
        f"{one.heads} heads": one.heads,
        f"{ranks}{one.kv_lora_rank}": one.kv_lora_rank,
        f"{one.kv_heads} KV heads of {one.head_dim}{values}": one.kv_heads,
        f"window of {one.window or 0:,} tokens": one.window,
        f"one entry for {one.compression} tokens behind it": one.compression,
        f"indexer of {one.index_heads} heads picks {one.index_top_k:,}": one.index_heads,
        f"state of {one.state:,} elements": one.state,
    }
    return ", ".join([f"{len(one.layers)} x {one.kind}", *(text for text, there in words.items() if there)])


def _many(number: float) -> str:
    """A number of weights in the words of the field: 671 B, 44.04 M."""
    letter = next((one for one in _UNITS if number >= _UNITS[one]), "K")
    return f"{number / _UNITS[letter]:.4g} {letter}"
