"""Kernels that nobody has published times of: gate, permutation, quantisation, attention.

Each is priced by its work (`moesim.compute.roofline`) at a published share of the GPU's peaks, plus its
launches, and is `estimated` with unknown error. Attention takes FlashMLA's own rates: 660 TFLOP/s and 3,000
GB/s for decode on the H800, 640 TFLOP/s for (sparse) prefill, and what NVIDIA reports for prefill on the
B200; other GPUs get the H800's share of their own peaks. Not modelled: splitting one sequence's cache over
the SMs, whose overhead makes decode with few sequences slower than this.
"""

from __future__ import annotations

from numpy.typing import ArrayLike

from moesim.compute import published, roofline, shapes
from moesim.compute.gpus import Gpu, load_gpu
from moesim.compute.roofline import Work
from moesim.compute.times import Bill, KernelTimes
from moesim.errors import InputError

AT_MEMORY_SPEED = "estimated at memory speed"


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


def mla_decode(
    gpu: Gpu,
    batch: ArrayLike,
    kv_len: ArrayLike,
    heads: int = 128,
    q_tokens: int = 1,
    kv_lora_rank: int = 512,
    rope_head_dim: int = 64,
) -> KernelTimes:
    """Return the time of absorbed MLA decode: ``batch`` sequences of ``kv_len`` cached tokens, BF16 cache."""
    work = roofline.mla_decode_work(
        shapes.counts("batch", batch),
        shapes.counts("kv_len", kv_len),
        shapes.size("heads", heads),
        shapes.size("q_tokens", q_tokens),
        shapes.size("kv_lora_rank", kv_lora_rank),
        shapes.size("rope_head_dim", rope_head_dim),
    )
    return _attention(gpu, "mla_decode", work)


def mla_prefill(
    gpu: Gpu,
    tokens: ArrayLike,
    kv_len: ArrayLike,
    heads: int = 128,
    sequences: ArrayLike = 1,
    qk_head_dim: int = 192,
    v_head_dim: int = 128,
) -> KernelTimes:
    """Return the time of causal prefill: ``tokens`` new ones in all, ``kv_len`` per sequence with them."""
    new, cached = shapes.counts("tokens", tokens), shapes.counts("kv_len", kv_len)
    split = shapes.counts("sequences", sequences, least=1)
    if (cached * split < new).any():
        raise InputError("kv_len is shorter than a sequence's own tokens", "kv_len", "it counts them too")
    work = roofline.mla_prefill_work(
        new,
        cached,
        shapes.size("heads", heads),
        split,
        shapes.size("qk_head_dim", qk_head_dim),
        shapes.size("v_head_dim", v_head_dim),
    )
    return _attention(gpu, "mla_prefill", work)


def _estimated(
    gpu: Gpu,
    work: Work,
    note: str,
    peak_share: float = 1.0,
    bandwidth_share: float = roofline.STREAM_BANDWIDTH_SHARE,
) -> KernelTimes:
    bill = Bill()
    bill.add("estimated", work.estimate(gpu, peak_share, bandwidth_share), None, note)
    return bill.close()


def _attention(gpu: Gpu, kernel: str, work: Work) -> KernelTimes:
    rate = published.attention_rate(kernel, gpu.name)
    peaks = load_gpu(rate.gpu)
    note = f"estimated at {rate.gpu}'s share of peak, {rate.citation}"
    share = rate.teraflops * 1e12 / peaks.bf16_flops
    if rate.gigabytes_per_s is None:
        return _estimated(gpu, work, note, share)
    return _estimated(gpu, work, note, share, rate.gigabytes_per_s * 1e9 / peaks.hbm_bandwidth)
