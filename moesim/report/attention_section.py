"""Attention of a whole step: the model's own beside the other kinds, along the context, and what a GPU holds."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from moesim.report.charts import LineChart, Series, worded
from moesim.report.data_table import Cell, DataTable, Quantity
from moesim.report.palette import series_colour
from moesim.report.quantities import axis_scale


def kinds_table(facts: Mapping[str, Any]) -> DataTable:
    """Cache, FLOPs, bytes and times of each kind, for one layer and the requests of one GPU."""
    rows: list[tuple[Cell, ...]] = [
        (
            row["kind"] + (" (this model)" if row["own"] else ""),
            Quantity(row["kv_cache_bytes_per_token"], "B"),
            Quantity(row["flops"] / 1e9),
            Quantity(row["expansion_flops"] / 1e9 or None),
            Quantity(row["read_bytes"], "B"),
            Quantity(row["floor_s"], "s"),
            Quantity(row.get("kernel_s"), "s"),
            row.get("kernel_source", ""),
        )
        for row in facts["kinds"]
    ]  # fmt: skip
    heads = ("kind", "KV cache per token", "compute (GFLOP)", "latent to heads (GFLOP)", "read", "at least", "kernel",
             "its source")  # fmt: skip
    return DataTable(heads, rows)


def kinds_words(facts: Mapping[str, Any]) -> str:
    """What the table is of, and where the two forms of MLA cross."""
    load, crossover = facts["load"], facts["crossover_tokens"]
    text = f"Core attention of one layer, {load['requests']:,} requests of {load['context']:,} tokens on each GPU, "
    text += f"{load['new']:,} of them new. At least: FLOPs over peak or bytes over memory bandwidth, the larger. "
    return text + crossover_words(crossover)


def crossover_words(tokens: float | None) -> str:
    """Where the two forms of MLA cross; empty where a model has no latent."""
    if tokens is None:
        return ""
    return f"Behind a long context absorbed MLA computes less below {tokens:.1f} new tokens; a prompt never."


def context_chart(facts: Mapping[str, Any]) -> LineChart:
    """The least time of core attention of each kind along the context."""
    contexts, curves = np.array(facts["contexts"], float), facts["least_by_context_s"]
    scale, unit = axis_scale(np.concatenate([np.array(curve) for curve in curves.values()]), "s")
    own = {row["kind"] for row in facts["kinds"] if row["own"]}
    return LineChart(
        **worded("attention_by_context", unit=unit),
        series=tuple(
            Series(kind, contexts, np.array(curve) / scale, series_colour(at), "line" if kind in own else "dashed")
            for at, (kind, curve) in enumerate(curves.items())
        ),
        log_x=True,
        log_y=True,
    )


def held_rows(held: Mapping[str, Any], requests: int, context: int) -> list[tuple[str, float]]:
    """What one GPU holds, part by part, in bytes, and what is free."""
    return [
        (f"routed experts, {held['slots']} slots of each layer", held["experts"]),
        ("all other weights", held["other_weights"]),
        ("low-latency buffers", held["buffers"]),
        ("runtime and activations, estimated", held["runtime_estimated"] + held["activations_estimated"]),
        (f"KV cache, {requests:,} x {context:,} tokens", held["kv_cache"]),
        ("free" if held["free"] >= 0 else "missing: it does not fit", abs(held["free"])),
    ]


def memory_table(facts: Mapping[str, Any]) -> DataTable:
    """What one GPU holds."""
    held, load = facts["memory_bytes"], facts["load"]
    parts = held_rows(held, load["requests"], load["context"])
    rows: list[tuple[Cell, ...]] = [
        (what, Quantity(size, "B"), Quantity(size / held["total"], "%")) for what, size in parts
    ]
    return DataTable(
        ("of one GPU", "bytes", "share"), rows, f"{held['requests_that_fit']:,} requests of this length fit."
    )
