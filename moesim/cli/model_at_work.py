"""What ``moesim model --context`` says: attention beside its other kinds, and what a GPU holds."""

from collections.abc import Iterator
from typing import Any

from rich.console import RenderableType

from moesim.cli.show import Sheet
from moesim.compute import KernelTable, load_gpu
from moesim.layer import Requests, attention_kinds
from moesim.model import ModelSpec, crossover_tokens, held_bytes, rank_memory
from moesim.report.attention_section import crossover_words, held_rows
from moesim.units import format_bytes, format_duration

# More new tokens of a request than this are a prompt, which is not dispatched in low latency.
_MOST_IN_DECODE = 8


def at_work(spec: ModelSpec, gpu: str, load: Requests, *, ep: int, redundant: int, weights: str) -> dict[str, Any]:
    """Return attention of one layer and the memory of one GPU as plain data: FLOPs, bytes, seconds.

    Floor and kernel are of core attention, what lies between latent and heads left out.
    """
    messages = load.requests * load.new if load.new <= _MOST_IN_DECODE else 0
    held = rank_memory(
        spec, ep=ep, total_bytes=load_gpu(gpu).memory_bytes, redundant_experts=redundant, requests=load.requests,
        context=load.context, weight_bytes=1 if weights == "fp8" else 2, message_tokens=messages,
    )  # fmt: skip
    rows = attention_kinds(spec, KernelTable.load(gpu), load)
    return {
        "gpu": gpu, **load._asdict(), "ep": ep, "redundant_experts": redundant, "attention_of_a_layer": rows,
        "crossover_tokens": crossover_tokens(spec.attention), "memory_bytes": held_bytes(held),
    }  # fmt: skip


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
    if said := crossover_words(facts["crossover_tokens"]):
        yield said
    held = facts["memory_bytes"]
    parts = held_rows(held, requests, context)
    yield Sheet(
        f"memory of one of {facts['ep']:,} GPUs, {format_bytes(held['total'])}:",
        ("", ""),
        [(what, f"{size / 1e9:.2f} GB") for what, size in parts],
    )
    yield f"{held['requests_that_fit']:,} requests of {context:,} tokens fit."
