"""Kernels priced by models, with sources and never under the roofline floor.

Expert MLPs, GEMMs and attention have fitted models. A number inside the range of its model is `fitted` and carries the
model's median error on held-out rows; outside it, in another number format or on a GPU without rows of its own it is
`extrapolated`, and the note says why. Gate, permutation and quantisation have no published times: each is priced by its
work (`moesim.compute.roofline`) at a published share of the GPU's peaks, plus its launches, and is `estimated`.
"""

import csv
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moesim.compute import roofline, shapes
from moesim.compute.fitted import models
from moesim.compute.fitted.models import Estimate
from moesim.compute.gpus import DATA, Gpu
from moesim.compute.roofline import Floats, Work
from moesim.compute.surfaces import mlp_floor
from moesim.compute.times import Bill, KernelTimes
from moesim.errors import InputError

Ints = NDArray[np.int64]

GEMM_LAYOUTS = ("grouped", "masked", "contiguous", "dense")
PREFILL_FORMS = ("multi-head", "absorbed")
AT_MEMORY_SPEED = "estimated at memory speed"


def _add(bill: Bill, estimates: list[Estimate], floor: Floats) -> None:
    """Add ``estimates`` of disjoint ranks; ``floor[ranks]``."""
    for one in estimates:
        seconds = np.where(one.seconds > 0, np.maximum(one.seconds, floor), 0.0)
        fitted = one.inside & (one.seconds > 0)
        bill.add("fitted", np.where(fitted, seconds, 0.0), one.error if fitted.any() else None)
        bill.note(one.origin if seconds.any() else "")
        bill.add("extrapolated", np.where(fitted, 0.0, seconds), None, one.beyond)


def _gemm_floor(gpu: Gpu, dtype: str, loads: Ints, n: int, k: int) -> Floats:
    work = roofline.gemm_work(loads, n, k, dtype)
    return Work(work.flops.sum(axis=1), work.moved.sum(axis=1), dtype).floor(gpu)


def expert_mlp(
    bill: Bill, gpu: Gpu, dtype: str, loads: Ints, slots: Ints, hidden: int, inter: int, layout: str
) -> None:
    """Add routed experts: ``loads[ranks, slots]`` rows, ``slots[ranks]`` of them real (the rest is padding).

    ``layout`` is one of `models.MLP_LAYOUTS`. A rank without rows adds nothing.
    """
    if models.has_whole_mlp(gpu):
        floor = mlp_floor(gpu, loads, hidden, inter, dtype)
        _add(bill, models.expert_mlp(gpu, dtype, loads, slots, hidden, inter, layout), floor)
    else:
        _add_grouped(bill, gpu, dtype, loads, slots, 2 * inter, hidden, layout)
        add_swiglu(bill, gpu, dtype, loads, inter)
        _add_grouped(bill, gpu, dtype, loads, slots, hidden, inter, layout)


def dense_mlp(bill: Bill, gpu: Gpu, dtype: str, rows: Ints, hidden: int, inter: int) -> None:
    """Add a shared expert over ``rows[ranks]``: up GEMM, SwiGLU, down GEMM; a rank without rows adds nothing."""
    _add_dense(bill, gpu, dtype, rows, 2 * inter, hidden)
    add_swiglu(bill, gpu, dtype, rows[:, None], inter)
    _add_dense(bill, gpu, dtype, rows, hidden, inter)


def gemm(bill: Bill, gpu: Gpu, dtype: str, loads: Ints, n: int, k: int, layout: str) -> None:
    """Add one GEMM of ``loads[ranks, experts]`` rows x [n, k]; ``layout`` is dense or one of `models.MLP_LAYOUTS`."""
    if layout == "dense":
        _add_dense(bill, gpu, dtype, loads.sum(axis=1), n, k)
    else:
        _add_grouped(bill, gpu, dtype, loads, np.full(len(loads), loads.shape[1], dtype=np.int64), n, k, layout)


def _add_grouped(bill: Bill, gpu: Gpu, dtype: str, loads: Ints, slots: Ints, n: int, k: int, layout: str) -> None:
    _add(bill, models.grouped_gemm(gpu, dtype, loads, slots, n, k, layout), _gemm_floor(gpu, dtype, loads, n, k))


def _add_dense(bill: Bill, gpu: Gpu, dtype: str, rows: Ints, n: int, k: int) -> None:
    _add(bill, [models.dense_gemm(gpu, dtype, rows, n, k)], _gemm_floor(gpu, dtype, rows[:, None], n, k))


def add_swiglu(bill: Bill, gpu: Gpu, dtype: str, loads: Ints, inter: int) -> None:
    """Add the SwiGLU of ``loads[ranks, slots]`` rows."""
    rows = loads.sum(axis=1)
    seconds = roofline.swiglu_work(rows, inter, dtype).estimate(gpu, peak_share=1.0)
    if rows.any():
        bill.add("estimated", np.where(rows > 0, seconds, 0.0), None, "SwiGLU estimated at memory speed")


def mla_decode(
    gpu: Gpu,
    batch: ArrayLike,
    kv_len: ArrayLike,
    heads: int = 128,
    q_tokens: int = 1,
    kv_lora_rank: int = 512,
    rope_head_dim: int = 64,
    kv_dtype: str = "bf16",
) -> KernelTimes:
    """Return the time of absorbed MLA decode: ``batch`` sequences of ``kv_len`` cached tokens in ``kv_dtype``."""
    sequences, cached = np.broadcast_arrays(
        *(np.atleast_1d(shapes.counts(name, given)) for name, given in (("batch", batch), ("kv_len", kv_len)))
    )
    heads, q_tokens = shapes.size("heads", heads), shapes.size("q_tokens", q_tokens)
    latent, rope = shapes.size("kv_lora_rank", kv_lora_rank), shapes.size("rope_head_dim", rope_head_dim)
    kv_dtype = shapes.dtype_name(kv_dtype)
    whole = (sequences.astype(np.int64), cached.astype(np.int64))
    one = models.mla_decode(gpu, *whole, heads, q_tokens, latent, rope, kv_dtype)
    floor = roofline.mla_decode_work(sequences, cached, heads, q_tokens, latent, rope, kv_dtype).floor(gpu)
    bill = Bill()
    _add(bill, [one], floor)
    return bill.close()


def mla_prefill(
    gpu: Gpu,
    tokens: ArrayLike,
    kv_len: ArrayLike,
    heads: int = 128,
    sequences: ArrayLike = 1,
    qk_head_dim: int = 192,
    v_head_dim: int = 128,
    form: str = "multi-head",
    kv_dtype: str = "bf16",
) -> KernelTimes:
    """Return the time of causal prefill: ``tokens`` new ones in all, ``kv_len`` per sequence with them.

    ``form`` is multi-head (keys of ``qk_head_dim``, values of ``v_head_dim`` per head) or absorbed (512 + 64 values for
    all heads, the cache in ``kv_dtype``, no prefix). A GPU with a published rate of its own and no rows takes that.
    """
    new, cached, split = np.broadcast_arrays(
        np.atleast_1d(shapes.counts("tokens", tokens)),
        np.atleast_1d(shapes.counts("kv_len", kv_len)),
        np.atleast_1d(shapes.counts("sequences", sequences, least=1)),
    )
    if (cached * split < new).any():
        raise InputError("kv_len is shorter than a sequence's own tokens", "kv_len", "it counts them too")
    heads, qk, v = (
        shapes.size(name, given)
        for name, given in (("heads", heads), ("qk_head_dim", qk_head_dim), ("v_head_dim", v_head_dim))
    )
    if form not in PREFILL_FORMS:
        raise InputError(f"unknown form {form!r}", "form", f"one of: {', '.join(PREFILL_FORMS)}")
    bill = Bill()
    if form == "absorbed":
        if (cached * split != new).any():
            raise InputError("absorbed prefill is priced without a prefix", "kv_len", "tokens / sequences")
        whole = (split.astype(np.int64), cached.astype(np.int64))
        one = models.mla_prefill(gpu, *whole, heads, 512, 64, shapes.dtype_name(kv_dtype))
        # The causal half: each query sees (length + 1) / 2 tokens on average.
        work = roofline.mla_decode_work(split, (cached + 1) / 2, heads, cached, 512, 64)
        _add(bill, [one], np.where(cached > 0, work.floor(gpu), 0.0))
        return bill.close()
    work = roofline.mla_prefill_work(new, cached, heads, split, qk, v)
    rate = prefill_rate(gpu)
    if rate is not None:
        seconds = work.estimate(gpu, float(rate["teraflops"]) * 1e12 / gpu.bf16_flops)
        bill.add("estimated", seconds, None, f"estimated at {rate['gpu']}'s share of peak, {citation(rate)}")
    else:
        _add(bill, [models.mha_prefill(gpu, new, cached, heads, split, qk, v)], work.floor(gpu))
    return bill.close()


@cache
def flashmla_rates() -> dict[tuple[str, str], dict[str, str]]:
    """Return FlashMLA's published rates by (kernel, gpu): teraflops, gigabytes_per_s (empty: unknown), setting."""
    with (DATA / "kernels" / "flashmla.csv").open(encoding="utf-8", newline="") as lines:
        rows = csv.DictReader(line for line in lines if not line.startswith("#"))
        return {(row["kernel"], row["gpu"]): row for row in rows}


def prefill_rate(gpu: Gpu) -> dict[str, str] | None:
    """Return the published rate that prices prefill on a GPU without published rows, None where rows do."""
    rate = flashmla_rates().get(("mla_prefill", gpu.name))
    return None if models.find("mha_prefill", gpu, "bf16").gpu == gpu.name else rate


def citation(rate: dict[str, str]) -> str:
    """Return who published a rate, and for what."""
    return f"FlashMLA at {rate['commit']} ({rate['date']}): {rate['setting']}"


def router(gpu: Gpu, tokens: ArrayLike, hidden: int, n_experts: int, top_k: int) -> KernelTimes:
    """Return the time of the gate: logits of ``tokens`` (or tokens[ranks]), scores and top-k."""
    work = roofline.router_work(
        shapes.counts("tokens", tokens),
        shapes.size("hidden", hidden),
        shapes.size("n_experts", n_experts),
        shapes.size("top_k", top_k),
    )
    return _estimated(gpu, work, "estimated from memory and GEMM ceilings", roofline.GEMM_PEAK_SHARE)


def permute(gpu: Gpu, rows: ArrayLike, row_bytes: ArrayLike) -> KernelTimes:
    """Return the time of gathering ``rows`` rows of ``row_bytes`` bytes into expert order."""
    work = roofline.permute_work(shapes.counts("rows", rows), shapes.counts("row_bytes", row_bytes))
    return _estimated(gpu, work, AT_MEMORY_SPEED)


def unpermute(gpu: Gpu, rows: ArrayLike, row_bytes: ArrayLike, top_k: ArrayLike = 1) -> KernelTimes:
    """Return the time of ``rows`` weighted sums, each over ``top_k`` rows (a mean, so a fraction will do)."""
    reads = shapes.counts("top_k", top_k, whole=False)
    work = roofline.unpermute_work(shapes.counts("rows", rows), shapes.counts("row_bytes", row_bytes), reads)
    return _estimated(gpu, work, AT_MEMORY_SPEED)


def quantize_fp8(gpu: Gpu, tokens: ArrayLike, hidden: ArrayLike) -> KernelTimes:
    """Return the time of BF16 -> FP8 with one scale per 128 values."""
    work = roofline.quantize_work(shapes.counts("tokens", tokens), shapes.counts("hidden", hidden))
    return _estimated(gpu, work, AT_MEMORY_SPEED)


def _estimated(gpu: Gpu, work: Work, note: str, peak_share: float = 1.0) -> KernelTimes:
    bill = Bill()
    bill.add("estimated", work.estimate(gpu, peak_share), None, note)
    return bill.close()
