"""Profiles of `moesim profile`: one row per kernel, shape, implementation and cache state (docs/profiling.md).

Rows that were not timed are left out with their status. Of several implementations of one shape the fastest counts,
unless one is asked for: libraries pick among them in the same way.
"""

from collections.abc import Iterator

from moesim.compute.importers.records import Job, Record, Refused
from moesim.compute.table_format import BALANCED, COLD, HOT, Row

NEEDED = ("schema_version", "kernel", "median_us", "status")
IMPL = "impl"
SCHEMA_VERSIONS = ("1",)

# Sizes that the profile fixes for its MHA and GQA kernels.
_HEAD, _KV_HEADS = 128, 8


def rows_of(record: Record, job: Job) -> Iterator[Row]:
    """Yield the table row of a record. Raises Refused."""
    version, status = record.text("schema_version"), record.text("status")
    if version not in SCHEMA_VERSIONS:
        raise Refused(f"schema_version {version or 'is empty'}: this version reads {', '.join(SCHEMA_VERSIONS)}")
    if status != "ok":
        raise Refused(f"not timed: {status.split(':')[0] or 'no status'}")
    kernel, seconds = record.text("kernel"), record.number("median_us") * 1e-6
    cache = record.text("cache") or COLD
    if cache not in (COLD, HOT):
        raise Refused(f"cache {cache}: a table has cold and hot")
    match kernel:
        case "expert_mlp":
            yield _experts(record, seconds, cache)
        case "dense_mlp":
            sizes = (record.whole("hidden"), record.whole("inter"))
            yield Row(kernel, record.dtype("dtype"), sizes, 1, record.whole("tokens"), seconds, cache=cache)
        case "dense_gemm":
            sizes = (2 * record.whole("inter"), record.whole("hidden"))
            yield Row("gemm", record.dtype("dtype"), sizes, 1, record.whole("tokens"), seconds, cache=cache)
        case "router":
            gate = (record.whole("hidden"), record.whole("experts_local"), record.whole("topk"))
            yield Row(kernel, "bf16", gate, 1, record.whole("tokens"), seconds, cache=cache)
        case "permute":
            width = 1 if record.dtype("dtype") == "fp8" else 2
            rows = record.whole("tokens") * record.whole("topk")
            row_bytes = record.whole("hidden") * width
            yield Row(kernel, record.dtype("dtype"), (), row_bytes, rows, seconds, cache=cache)
        case "quantize_fp8":
            yield Row(kernel, "fp8", (record.whole("hidden"),), 1, record.whole("tokens"), seconds, cache=cache)
        case "mla_decode" | "mla_prefill" | "mha_decode" | "mha_prefill" | "gqa_decode" | "gqa_prefill":
            yield _attention(kernel, record, seconds, cache)
        case "grouped_gemm_up" | "grouped_gemm_down" | "swiglu":
            raise Refused(f"{kernel}: a part of expert_mlp, whose rows are taken")
        case _:
            raise Refused(f"kernel {kernel or 'is empty'} is not one that a table has")


def _experts(record: Record, seconds: float, cache: str) -> Row:
    experts, tokens = record.whole("experts_hit"), record.whole("tokens")
    sizes, load = (record.whole("hidden"), record.whole("inter")), record.text("load_shape") or BALANCED
    mean, ratio = tokens / experts, 1.0
    if load != BALANCED:
        ratio = record.whole("largest_load") / mean
        if ratio <= 1:
            raise Refused(f"{load}: one expert has all rows, as in the balanced rows of one expert")
    return Row("grouped_gemm", record.dtype("dtype"), sizes, experts, mean, seconds, load, ratio, cache)


def _attention(kernel: str, record: Record, seconds: float, cache: str) -> Row:
    kind, _, phase = kernel.partition("_")
    heads, dtype = record.whole("heads"), record.dtype("dtype")
    length = record.whole("kv_len")
    if phase == "prefill" and record.whole("tokens") != length:
        raise Refused("prefill behind a cached prefix")
    sizes: tuple[int, ...] = (heads,)
    if kind != "mla":
        kernel, sizes = f"attn_{phase}", (heads, heads if kind == "mha" else _KV_HEADS, _HEAD)
    return Row(kernel, dtype, sizes, record.whole("batch"), length, seconds, cache=cache)
