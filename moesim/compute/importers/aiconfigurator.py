"""Tables in the layout of aiconfigurator's collector: MoE layers, dense GEMMs and attention, CSV or parquet.

What its columns mean was established on its tables, see docs/kernel-tables.md: ``num_tokens`` counts the tokens of
all ranks, the time is that of the fullest rank, whose loads ``balanced`` and ``uniform`` rows alone give away, and
``latency`` is in milliseconds.
"""

from collections.abc import Iterator

from moesim.compute.importers.records import Job, Record, Refused
from moesim.compute.table_format import Row

NEEDED = ("op_name", "kernel_source", "latency")
IMPL = "kernel_source"
NOTES = {
    "moe": "fused MoE rows time the whole kernel: up, activation, down and its own sorting",
    "moe_generation": "generation rows are of the masked grouped GEMM of low-latency mode",
    "moe_context": "context rows hold about 0.4 ms of host time, and move the tokens of all ranks on one",
}

# A uniform context row gives whole blocks of 128 rows to some experts and nothing to the rest.
_BLOCK = 128


def rows_of(record: Record, job: Job) -> Iterator[Row]:
    """Yield the table row of a record. Raises Refused."""
    operation = record.text("op_name")
    if operation in ("moe", "moe_generation", "moe_context"):
        yield _moe(operation, record)
    elif operation in ("mla_generation", "mla_context"):
        yield _mla(operation, record)
    elif operation == "gemm":
        if record.text("gemm_dtype") == "fp8":
            raise Refused("gemm_dtype fp8: one scale per tensor, where experts have one per block (fp8_block)")
        fixed = (record.whole("n"), record.whole("k"))
        yield Row("gemm", record.dtype("gemm_dtype"), fixed, 1, record.whole("m"), _seconds(record))
    elif operation in ("generation_attention", "context_attention"):
        yield _attention(operation, record)
    else:
        raise Refused(f"op_name {operation or 'is empty'} is not a kernel of a table")
    job.note(NOTES.get(operation, ""))


def _moe(operation: str, record: Record) -> Row:
    dtype = record.dtype("moe_dtype")
    distribution = record.text("distribution")
    if distribution not in ("balanced", "uniform"):
        raise Refused(f"distribution {distribution or 'is empty'}: the loads behind the time are not in the file")
    n_experts, ranks = record.whole("num_experts"), record.whole("moe_ep_size")
    inter, shards = record.whole("inter_size"), record.whole("moe_tp_size")
    if n_experts % ranks or inter % shards:
        raise Refused("the experts or their width do not divide among the ranks")
    tokens = record.whole("num_tokens") * record.whole("topk") / n_experts
    if tokens < 1:
        raise Refused("under one token per expert: how many experts got one is not in the file")
    if operation == "moe_context" and tokens < _BLOCK:
        raise Refused(f"context under {_BLOCK} tokens per expert: only some of the experts are used")
    layout = {"moe_generation": "masked", "moe_context": "contiguous"}.get(operation, "")
    fixed = (record.whole("hidden_size"), inter // shards)
    return Row("grouped_gemm", dtype, fixed, n_experts // ranks, tokens, _seconds(record), layout=layout)


def _mla(operation: str, record: Record) -> Row:
    if record.text("gemm_type") or record.text("architecture"):
        raise Refused("times a whole attention module, not the kernel alone")
    dtype, heads = record.dtype("kv_cache_dtype"), (record.whole("num_heads"),)
    step = int(float(record.text("step") or 0))
    length = record.whole("isl") + step
    if operation == "mla_context" and step:
        raise Refused("prefill behind a cached prefix")
    kernel = "mla_decode" if operation == "mla_generation" else "mla_prefill_absorbed"
    return Row(kernel, dtype, heads, record.whole("batch_size"), length, _seconds(record))


def _attention(operation: str, record: Record) -> Row:
    step = int(float(record.text("step") or 0))
    if float(record.text("window_size") or 0):
        raise Refused("attention in a sliding window")
    if operation == "context_attention" and step:
        raise Refused("prefill behind a cached prefix")
    fixed = (record.whole("num_heads"), record.whole("num_key_value_heads"), record.whole("head_dim"))
    kernel = "attn_decode" if operation == "generation_attention" else "attn_prefill"
    length = record.whole("isl") + step
    return Row(kernel, record.dtype("kv_cache_dtype"), fixed, record.whole("batch_size"), length, _seconds(record))


def _seconds(record: Record) -> float:
    return record.number("latency") * 1e-3
