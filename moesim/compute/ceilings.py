"""Kernels without published times: gate, permutation, quantisation.

Each is priced by its work (`moesim.compute.roofline`) at a published share of the GPU's peaks, plus its launches, and
is `estimated` with unknown error.
"""

from __future__ import annotations

from numpy.typing import ArrayLike

from moesim.compute import roofline, shapes
from moesim.compute.gpus import Gpu
from moesim.compute.roofline import Work
from moesim.compute.times import Bill, KernelTimes

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


def _estimated(gpu: Gpu, work: Work, note: str, peak_share: float = 1.0) -> KernelTimes:
    bill = Bill()
    bill.add("estimated", work.estimate(gpu, peak_share), None, note)
    return bill.close()
