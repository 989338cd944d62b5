"""Tables in the layout of Vidur's profiles: ``mlp.csv`` (a gated MLP) and ``attention.csv`` (MHA and GQA).

Times are medians in milliseconds over kernels of FP16, which cost what BF16 does; sizes are those of one
tensor-parallel worker.
"""

from collections.abc import Iterator

from moesim.compute.importers.records import Job, Record, Refused
from moesim.compute.table_format import Row

NEEDED = ("num_tensor_parallel_workers", "n_embd")
IMPL = "attention_backend"


def rows_of(record: Record, job: Job) -> Iterator[Row]:
    """Yield the table row of a record. Raises Refused."""
    yield _attention(record) if "is_prefill" in record.fields else _mlp(record)
    job.note("kernels of FP16, priced as BF16: both have two bytes per value and the same peak")


def _mlp(record: Record) -> Row:
    if record.text("use_gated_mlp").lower() not in ("true", "1"):
        raise Refused("an MLP without a gate")
    inter = _share(record, "n_expanded_embd")
    seconds = sum(_median(record, part) for part in ("mlp_up_proj", "mlp_act", "mlp_down_proj"))
    return Row("dense_mlp", "bf16", (record.whole("n_embd"), inter), 1, record.whole("num_tokens"), seconds)


def _attention(record: Record) -> Row:
    heads, kv_heads = _share(record, "n_q_head"), _share(record, "n_kv_head")
    fixed = (heads, kv_heads, record.whole("n_embd") // record.whole("n_q_head"))
    cached, batch = int(float(record.text("kv_cache_size") or 0)), record.whole("batch_size")
    if record.text("is_prefill").lower() in ("true", "1"):
        if cached:
            raise Refused("prefill behind a cached prefix")
        length = record.whole("prefill_chunk_size")
        return Row("attn_prefill", "bf16", fixed, batch, length, _median(record, "attn_prefill"))
    if not cached:
        raise Refused("decode without a cache")
    return Row("attn_decode", "bf16", fixed, batch, cached, _median(record, "attn_decode"))


def _share(record: Record, column: str) -> int:
    size, workers = record.whole(column), record.whole("num_tensor_parallel_workers")
    if size % workers:
        raise Refused(f"{column} does not divide among the tensor-parallel workers")
    return size // workers


def _median(record: Record, part: str) -> float:
    return record.number(f"time_stats.{part}.median") * 1e-3
