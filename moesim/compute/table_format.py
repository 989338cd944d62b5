"""The file format of a measured kernel table: a CSV file with a header; lines that start with ``#`` are comments.

Columns that every table has:

    kernel, dtype      what was timed: see ``AXES``; bf16 | fp8 (of the cache for MLA, of the weights for GEMMs)
    seconds            median time (or time_us, time_ms: the unit is in the name)
    gpu                optional: the GPU's name, the same in every row

and those that its kernels need; the others of a row stay empty:

    grouped_gemm       tokens_per_expert, experts, hidden, inter: routed experts, up + SwiGLU + down
    dense_mlp          the same with experts = 1: a shared expert
    expert_gemm        tokens_per_expert, experts, n, k: one grouped GEMM, the up or the down half of grouped_gemm
    gemm               tokens, n, k: one dense GEMM
    router             tokens, hidden, n_experts, top_k: logits, scores and top-k
    permute            rows, row_bytes: gathered into expert order
    quantize_fp8       tokens, hidden: BF16 to FP8 with one scale per 128 values
    mla_decode         batch, kv_len, heads: absorbed, one query token per sequence, 512 + 64 wide
    mla_prefill        batch, kv_len, heads: causal, all of kv_len new, keys of 192 and values of 128 per head
    mla_prefill_absorbed   the same on the 512 + 64 values that all heads share
    attn_decode, attn_prefill   the same of MHA and GQA: batch, kv_len, heads, kv_heads, head_dim

``experts`` counts the experts of one GPU that got a token and ``tokens_per_expert`` is the mean of their rows.
Optional columns of a row:

    load_shape         balanced (default), a name of the uneven load, or drawn: a benchmark drew each expert's rows
                       around their mean; such rows need no balanced ones and price loads that fill no whole tiles
    max_over_mean      of an uneven load: rows of its largest expert over the mean
    cache              cold (default): inputs and weights come from memory; hot: they may lie in the L2 cache
    layout             masked or contiguous grouped GEMM; the same for all rows of a shape
    error              of a time that was worked out from measured ones: its relative error; it is never `measured`
"""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from moesim.compute import roofline
from moesim.compute.gpus import BYTES_PER_ELEMENT, Gpu
from moesim.compute.roofline import Floats, Work
from moesim.compute.surfaces import mlp_floor


class Axes(NamedTuple):
    """Columns of a kernel: ``fixed`` must be the same to be comparable, ``outer`` and ``inner`` span the grid."""

    fixed: tuple[str, ...]
    inner: str
    outer: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Return every column that a row of the kernel needs."""
        return (self.inner, *((self.outer,) if self.outer else ()), *self.fixed)


AXES = {
    "grouped_gemm": Axes(("hidden", "inter"), "tokens_per_expert", "experts"),
    "dense_mlp": Axes(("hidden", "inter"), "tokens_per_expert", "experts"),
    "expert_gemm": Axes(("n", "k"), "tokens_per_expert", "experts"),
    "gemm": Axes(("n", "k"), "tokens"),
    "router": Axes(("hidden", "n_experts", "top_k"), "tokens"),
    "permute": Axes((), "rows", "row_bytes"),
    "quantize_fp8": Axes(("hidden",), "tokens"),
    "mla_decode": Axes(("heads",), "kv_len", "batch"),
    "mla_prefill": Axes(("heads",), "kv_len", "batch"),
    "mla_prefill_absorbed": Axes(("heads",), "kv_len", "batch"),
    "attn_decode": Axes(("heads", "kv_heads", "head_dim"), "kv_len", "batch"),
    "attn_prefill": Axes(("heads", "kv_heads", "head_dim"), "kv_len", "batch"),
}
MLP = ("grouped_gemm", "dense_mlp")
OVER_EXPERTS = (*MLP, "expert_gemm")  # their rows are of experts, whose loads may differ
MLA_LATENT, MLA_ROPE, MLA_QK, MLA_V = 512, 64, 192, 128  # DeepSeek-V2 and V3

UNITS = {"seconds": 1.0, "time_ms": 1e-3, "time_us": 1e-6}
BALANCED, DRAWN, COLD, HOT = "balanced", "drawn", "cold", "hot"
CHOICES = {"dtype": tuple(BYTES_PER_ELEMENT), "cache": (COLD, HOT), "layout": ("masked", "contiguous")}
_SHAPE_COLUMNS = tuple(dict.fromkeys(column for axes in AXES.values() for column in axes.columns))
KNOWN_COLUMNS = ("kernel", "dtype", *_SHAPE_COLUMNS, "load_shape", "max_over_mean", "cache", "layout", "error", *UNITS,
                 "gpu")  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One measured time. ``fixed`` in the order of the kernel's ``AXES``; ``outer`` is 1 where there is none."""

    kernel: str
    dtype: str
    fixed: tuple[int, ...]
    outer: float
    inner: float
    seconds: float
    load_shape: str = BALANCED
    max_over_mean: float = 1.0
    cache: str = COLD
    layout: str = ""
    error: float | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """Return what no two rows of a table have in common."""
        # Moving bytes costs the same whatever they mean.
        dtype = "" if self.kernel == "permute" else self.dtype
        return (self.kernel, dtype, self.fixed, self.outer, self.inner, self.load_shape, self.cache)


def kernel_work(kernel: str, dtype: str, fixed: Sequence[int], outer: float, inner: float | Floats) -> Work:
    """Return the least work of a kernel other than the expert MLP, at one ``inner`` or at inner[m]."""
    match kernel:
        case "gemm":
            return roofline.gemm_work(inner, fixed[0], fixed[1], dtype)
        case "expert_gemm":
            one = roofline.gemm_work(inner, fixed[0], fixed[1], dtype)
            return Work(outer * one.flops, outer * one.moved, dtype)
        case "router":
            return roofline.router_work(inner, *fixed)
        case "permute":  # every row is written; those read more than once may come from the cache
            return Work(np.zeros(()), np.asarray(inner * outer, dtype=np.float64))
        case "quantize_fp8":
            return roofline.quantize_work(inner, fixed[0])
        case "mla_decode":
            work = roofline.mla_decode_work(outer, inner, fixed[0], 1, MLA_LATENT, MLA_ROPE, dtype)
            return Work(work.flops, work.moved, dtype)
        case "mla_prefill_absorbed":  # a query sees half of the prompt on average
            seen = (inner + 1) / 2
            work = roofline.mla_decode_work(outer, seen, fixed[0], inner, MLA_LATENT, MLA_ROPE, dtype)
            return Work(work.flops, work.moved, dtype)
        case "mla_prefill":
            work = roofline.mla_prefill_work(outer * inner, inner, fixed[0], outer, MLA_QK, MLA_V)
            return Work(work.flops, work.moved, dtype)
        case _:
            heads, kv_heads, head = fixed
            queries: float | Floats = inner if kernel == "attn_prefill" else 1.0
            pairs = queries * (inner - (queries - 1) / 2)
            width = 2 * head * BYTES_PER_ELEMENT[dtype]  # of queries and outputs, of keys and values
            moved = outer * (queries * heads + inner * kv_heads) * width
            return Work(np.asarray(4.0 * outer * pairs * heads * head), np.asarray(moved), dtype)


def floor_seconds(gpu: Gpu, row: Row) -> float:
    """Return the time that the GPU's peaks allow for a row; for a hot one that of its FLOPs alone."""
    if row.kernel in MLP:
        # One expert times their number: no array as long as a mistyped number of experts.
        hidden, inter = row.fixed
        if row.cache == HOT:
            return row.outer * row.inner * 6.0 * hidden * inter / gpu.flops(row.dtype)
        one = mlp_floor(gpu, np.array([row.inner]), hidden, inter, row.dtype)
        return row.outer * float(one)
    work = kernel_work(row.kernel, row.dtype, row.fixed, row.outer, row.inner)
    if row.cache == HOT:
        return float(work.flops) / gpu.flops(work.dtype)
    return float(work.floor(gpu))


def table_text(rows: Iterable[Row], gpu: Gpu, comments: Iterable[str] = ()) -> str:
    """Return a table as a CSV file with the columns that its rows use."""
    order = sorted(
        rows, key=lambda row: (row.kernel, row.dtype, row.fixed, row.outer, row.inner, row.load_shape, row.cache)
    )
    records = [_record(row, gpu) for row in order]
    used = [column for column in KNOWN_COLUMNS if any(record.get(column) for record in records)]
    out = io.StringIO()
    for comment in comments:
        out.write(f"# {comment}\n")
    writer = csv.DictWriter(out, used, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return out.getvalue()


def _record(row: Row, gpu: Gpu) -> dict[str, str]:
    axes = AXES[row.kernel]
    record = {"kernel": row.kernel, "dtype": row.dtype, axes.inner: f"{row.inner:.12g}"}
    record |= {column: str(size) for column, size in zip(axes.fixed, row.fixed, strict=True)}
    if axes.outer:
        record[axes.outer] = f"{row.outer:.12g}"
    if row.load_shape != BALANCED:
        record |= {"load_shape": row.load_shape, "max_over_mean": f"{row.max_over_mean:.6g}"}
    return record | {
        "cache": HOT if row.cache == HOT else "",
        "layout": row.layout,
        "error": "" if row.error is None else f"{row.error:.3g}",
        "seconds": f"{row.seconds:.12g}",
        "gpu": gpu.name,
    }
