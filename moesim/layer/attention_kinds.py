"""One layer's attention at work beside the other kinds that it could be: cache, FLOPs, bytes, least time, kernel.

Of core attention alone; what MLA computes between latent and heads is a column of its own.
"""

from typing import Any

from moesim.compute import KernelTable
from moesim.layer.inference import Requests
from moesim.model import Attention, ModelSpec, attention_work, other_kinds

CONTEXTS = tuple(1 << power for power in range(10, 18))
_FORMS = {"mla": ("absorbed", "unabsorbed")}


def attention_kinds(spec: ModelSpec, table: KernelTable, load: Requests, priced: bool = True) -> list[dict[str, Any]]:
    """Return a row for each kind and form of attention: FLOPs, bytes, seconds; ``own`` marks the model's.

    ``priced``: with what moesim's kernel tables give for the model's own.
    """
    own, rows = spec.attention, []
    for kind, one in (other_kinds(own) or {own.kind: own}).items():
        for form in _FORMS.get(kind, ("",)):
            row = _row(kind, one, form, table, load) | {"own": one is own}
            rows.append(row | (_priced(one, form, table, load) if row["own"] and priced else {}))
    return rows


def least_by_context(spec: ModelSpec, table: KernelTable, load: Requests) -> dict[str, list[float]]:
    """Return the least seconds of core attention of each kind at every one of ``CONTEXTS``; a prompt is all new."""
    prompt = load.new == load.context
    loads = [load._replace(context=context, new=context if prompt else load.new) for context in CONTEXTS]
    rows = [attention_kinds(spec, table, one, priced=False) for one in loads]
    return {row["kind"]: [one[at]["floor_s"] for one in rows] for at, row in enumerate(rows[0])}


def _row(kind: str, one: Attention, form: str, table: KernelTable, load: Requests) -> dict[str, Any]:
    gpu = table.gpu
    work = attention_work(one, max(0, load.context - load.new), load.new, form or "absorbed")  # type: ignore[arg-type]
    flops, moved = load.requests * work.pairs_flops, load.requests * work.read_bytes
    return {
        "kind": f"{kind}, {form}" if form else kind,
        "kv_cache_bytes_per_token": one.kv_cache_bytes_per_token(2),
        "flops": flops,
        "expansion_flops": load.requests * work.expansion_flops,
        "read_bytes": moved,
        "floor_s": max(flops / gpu.flops("bf16"), moved / gpu.hbm_bandwidth),
    }


def _priced(one: Attention, form: str, table: KernelTable, load: Requests) -> dict[str, Any]:
    """Seconds of the kernel that moesim knows: core attention of MLA."""
    if one.kind != "mla" or one.index_top_k:
        return {}
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
