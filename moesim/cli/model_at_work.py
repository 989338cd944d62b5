"""What ``moesim model --context`` says: attention beside its other kinds, and what a GPU holds."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, NamedTuple

from rich.console import RenderableType

from moesim.cli.show import Sheet
from moesim.compute import KernelTable, load_gpu
from moesim.model import (
    Attention,
    ModelSpec,
    attention_work,
    crossover_tokens,
    other_kinds,
    rank_memory,
)
from moesim.model.memory import ACTIVATION_BYTES, RUNTIME_BYTES
from moesim.units import format_bytes, format_duration

# More new tokens of a request than this are a prompt, which is not dispatched in low latency.
_MOST_IN_DECODE = 8
_FORMS = {"mla": ("absorbed", "unabsorbed")}


class Load(NamedTuple):
    """The requests of one GPU: tokens that each keeps, how many there are, new tokens of each in a step."""

    context: int
    requests: int
    new: int


def at_work(spec: ModelSpec, gpu: str, load: Load, *, ep: int, redundant: int, weights: str) -> dict[str, Any]:
    """Return attention of one layer and the memory of one GPU as plain data: FLOPs, bytes, seconds.

    Floor and kernel are of core attention, what lies between latent and heads left out.
    """
    messages = load.requests * load.new if load.new <= _MOST_IN_DECODE else 0
    held = rank_memory(
        spec, ep=ep, total_bytes=load_gpu(gpu).memory_bytes, redundant_experts=redundant, requests=load.requests,
        context=load.context, weight_bytes=1 if weights == "fp8" else 2, message_tokens=messages,
    )  # fmt: skip
    memory = asdict(held) | {
        "runtime_estimated": RUNTIME_BYTES,
        "activations_estimated": ACTIVATION_BYTES,
        "free": held.free,
        "requests_that_fit": held.requests_that_fit,
    }
    kinds = other_kinds(spec.attention) or {spec.attention.kind: spec.attention}
    rows = [row for kind, one in kinds.items() for row in _attention_rows(kind, one, one is spec.attention, gpu, load)]
    return {
        "gpu": gpu, **load._asdict(), "ep": ep, "redundant_experts": redundant, "attention_of_a_layer": rows,
        "crossover_tokens": crossover_tokens(spec.attention), "memory_bytes": memory,
    }  # fmt: skip


def _attention_rows(kind: str, one: Attention, own: bool, gpu: str, load: Load) -> Iterator[dict[str, Any]]:
    peaks, cached = load_gpu(gpu), max(0, load.context - load.new)
    for form in _FORMS.get(kind, ("",)):
        work = attention_work(one, cached, load.new, form or "absorbed")  # type: ignore[arg-type]
        flops, moved = load.requests * work.pairs_flops, load.requests * work.read_bytes
        yield {
            "kind": f"{kind}, {form}" if form else kind,
            "own": own,
            "kv_cache_bytes_per_token": one.kv_cache_bytes_per_token(2),
            "flops": flops,
            "expansion_flops": load.requests * work.expansion_flops,
            "read_bytes": moved,
            "floor_s": max(flops / peaks.flops("bf16"), moved / peaks.hbm_bandwidth),
            **(_priced(one, form, gpu, load) if own else {}),
        }


def _priced(one: Attention, form: str, gpu: str, load: Load) -> dict[str, Any]:
    """Seconds of the kernel that moesim knows: core attention of MLA."""
    if one.kind != "mla" or one.index_top_k:
        return {}
    table = KernelTable.load(gpu)
    if form == "absorbed":
        time = table.time(
            "mla_decode", batch=load.requests, kv_len=load.context, heads=one.heads, q_tokens=load.new,
            kv_lora_rank=one.kv_lora_rank, rope_head_dim=one.rope_head_dim,
        )  # fmt: skip
    else:
        time = table.time(
            "mla_prefill", tokens=load.requests * load.new, kv_len=load.context, heads=one.heads,
            sequences=load.requests, qk_head_dim=(one.nope_head_dim or 0) + (one.rope_head_dim or 0),
            v_head_dim=one.value_head_dim,
        )  # fmt: skip
    return {"kernel_s": time.seconds, "kernel_source": str(time.source)}


def at_work_lines(facts: dict[str, Any]) -> Iterator[RenderableType]:
    """Yield what the screen says of it."""
    requests, new, context = facts["requests"], facts["new"], facts["context"]
    rows: list[tuple[str, ...]] = [
        (
            ("* " if row["own"] else "  ") + row["kind"],
            f"{row['kv_cache_bytes_per_token']:,.0f} B",
            f"{row['flops'] / 1e9:,.4g} GFLOP",
            f"{row['expansion_flops'] / 1e9:,.4g} GFLOP" if row["expansion_flops"] else "",
            format_bytes(row["read_bytes"]),
            format_duration(row["floor_s"]),
            f"{format_duration(row['kernel_s'])} ({row['kernel_source']})" if "kernel_s" in row else "",
        )
        for row in facts["attention_of_a_layer"]
    ]
    yield Sheet(
        f"attention of one layer, {requests:,} requests of {context:,} tokens, {new:,} of them new, on {facts['gpu']}:",
        ("", "KV cache per token", "compute", "latent to heads", "read", "at least", "kernel"),
        rows,
    )
    crossover = facts["crossover_tokens"]
    if crossover is not None:
        yield f"Behind a long context absorbed MLA computes less below {crossover:.1f} new tokens; a prompt never."
    held = facts["memory_bytes"]
    parts = [
        (f"routed experts, {held['slots']} slots of each layer", held["experts"]),
        ("all other weights", held["other_weights"]),
        ("low-latency buffers", held["buffers"]),
        ("runtime and activations, estimated", held["runtime_estimated"] + held["activations_estimated"]),
        (f"KV cache, {requests:,} x {context:,} tokens", held["kv_cache"]),
        ("free" if held["free"] >= 0 else "missing: it does not fit", abs(held["free"])),
    ]
    yield Sheet(
        f"memory of one of {facts['ep']:,} GPUs, {format_bytes(held['total'])}:",
        ("", ""),
        [(what, f"{size / 1e9:.2f} GB") for what, size in parts],
    )
    yield f"{held['requests_that_fit']:,} requests of {context:,} tokens fit."
