"""What a kernel needs at least, and what it takes when it was not measured.

The *floor* is max(FLOPs / peak, bytes / bandwidth): no time that moesim gives lies below it. The *roofline*
adds what kernels reach of the peaks. Kernels that only move data run at FlashMLA's published memory-bound rate, as
a share of the peak of the GPU that it was published for; the gate's GEMM at the share that DeepGEMM reaches. Expert
GEMMs and attention have fitted models (`moesim.compute.fitted`).

Not modelled: FP8 scale tensors of a GEMM, L2 hits, clock throttling.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moesim.compute.gpus import BYTES_PER_ELEMENT, Gpu

Floats = NDArray[np.float64]

LAUNCH_S = 2.5e-6  # fitted on DeepGEMM's published rows (README at a9967bc)
GEMM_PEAK_SHARE = 0.72  # fitted on the same rows (the 1,346 TFLOP/s of the contiguous rows are 0.68 of peak)
STREAM_BANDWIDTH_SHARE = 3000 / 3350  # FlashMLA, memory-bound, of the H800's 3,350 GB/s (c2067be)

BF16 = 2
FP32 = 4
SCALE_GROUP = 128  # one FP32 scale per 128 FP8 values along the hidden dimension (DeepSeek-V3, 3.3.2)


@dataclass(frozen=True)
class Work:
    """What one kernel must do at least: ``flops`` at ``dtype``'s peak, ``moved`` bytes of memory traffic."""

    flops: Floats
    moved: Floats
    dtype: str = "bf16"
    launches: int = 1

    def floor(self, gpu: Gpu) -> Floats:
        """Return max(flops / peak, bytes / bandwidth) in seconds; nothing runs faster."""
        bound: Floats = np.maximum(self.flops / gpu.flops(self.dtype), self.moved / gpu.hbm_bandwidth)
        return bound

    def estimate(self, gpu: Gpu, peak_share: float) -> Floats:
        """Return launches + max(flops at ``peak_share``, bytes at the rate of kernels that move data), in seconds."""
        busy: Floats = np.maximum(
            self.flops / (gpu.flops(self.dtype) * peak_share),
            self.moved / (gpu.hbm_bandwidth * STREAM_BANDWIDTH_SHARE),
        )
        return self.launches * LAUNCH_S + busy


def gemm_work(rows: ArrayLike, n: int, k: int, dtype: str) -> Work:
    """Return the work of C[m, n] = A[m, k] B[n, k]^T for each m of ``rows`` (0 rows: nothing).

    A and B in ``dtype``, C in BF16, each read or written once.
    """
    m = np.asarray(rows, dtype=np.float64)
    b = BYTES_PER_ELEMENT[dtype]
    hit = m > 0
    return Work(flops=2.0 * m * n * k, moved=hit * (float(n) * k * b) + m * (k * b + BF16 * n), dtype=dtype)


def swiglu_work(rows: ArrayLike, inter: int, dtype: str) -> Work:
    """Return the work of SiLU(gate) * up on ``rows`` rows: reads 2 inter BF16, writes inter ``dtype``."""
    m = np.asarray(rows, dtype=np.float64)
    scales = FP32 / SCALE_GROUP if dtype == "fp8" else 0.0
    return Work(flops=np.zeros_like(m), moved=m * inter * (2 * BF16 + BYTES_PER_ELEMENT[dtype] + scales))


def router_work(tokens: ArrayLike, hidden: ArrayLike, n_experts: ArrayLike, top_k: ArrayLike) -> Work:
    """Return the work of the gate: a BF16 GEMM to FP32 logits, then scores and top-k read from memory."""
    t, h, e, k = (np.asarray(value, dtype=np.float64) for value in (tokens, hidden, n_experts, top_k))
    logits = t * e * FP32
    weights = np.where(t > 0, e * h * BF16, 0.0)
    moved = t * h * BF16 + weights + 2 * logits + t * k * (FP32 + FP32)
    return Work(flops=2.0 * t * h * e, moved=moved, launches=2)


def permute_work(rows: ArrayLike, row_bytes: ArrayLike) -> Work:
    """Return the work of gathering ``rows`` rows into expert order: read, written, one int32 index."""
    r, b = np.asarray(rows, dtype=np.float64), np.asarray(row_bytes, dtype=np.float64)
    return Work(flops=np.zeros_like(r * b), moved=r * (2 * b + FP32))


def unpermute_work(rows: ArrayLike, row_bytes: ArrayLike, top_k: ArrayLike) -> Work:
    """Return the work of a weighted sum back to tokens: each of ``rows`` outputs reads ``top_k`` rows."""
    r, b, k = (np.asarray(value, dtype=np.float64) for value in (rows, row_bytes, top_k))
    return Work(flops=2.0 * r * k * b / BF16, moved=r * ((k + 1) * b + 2 * FP32 * k))


def quantize_work(tokens: ArrayLike, hidden: ArrayLike) -> Work:
    """Return the work of BF16 -> FP8 with one FP32 scale per 128 values."""
    t, h = np.asarray(tokens, dtype=np.float64), np.asarray(hidden, dtype=np.float64)
    return Work(flops=np.zeros_like(t * h), moved=t * h * (BF16 + 1 + FP32 / SCALE_GROUP))


def mla_decode_work(
    batch: ArrayLike,
    kv_len: ArrayLike,
    heads: int,
    q_tokens: ArrayLike,
    kv_lora_rank: int,
    rope_head_dim: int,
    cache_dtype: str = "bf16",
) -> Work:
    """Return the work of absorbed MLA decode: every head reads the one latent cache (DeepSeek-V2, 2.1).

    FLOPs 2 B q h kv (2 c + r); bytes: cache (c + r) in ``cache_dtype``, queries (c + r) and outputs c in BF16.
    """
    b, kv = np.asarray(batch, dtype=np.float64), np.asarray(kv_len, dtype=np.float64)
    latent, rope = kv_lora_rank, rope_head_dim
    queries = b * np.asarray(q_tokens, dtype=np.float64) * heads
    moved = BYTES_PER_ELEMENT[cache_dtype] * b * kv * (latent + rope) + BF16 * queries * (2 * latent + rope)
    return Work(flops=2.0 * queries * kv * (2 * latent + rope), moved=moved)


def mla_prefill_work(
    tokens: ArrayLike, kv_len: ArrayLike, heads: int, sequences: ArrayLike, qk_head_dim: int, v_head_dim: int
) -> Work:
    """Return the work of causal prefill attention in multi-head form, queries at the end of the cache."""
    t, kv, s = (np.asarray(value, dtype=np.float64) for value in (tokens, kv_len, sequences))
    q = t / s
    pairs = s * q * (kv - (q - 1) / 2)
    moved = BF16 * heads * (t * (qk_head_dim + v_head_dim) + s * kv * (qk_head_dim + v_head_dim))
    return Work(flops=2.0 * pairs * heads * (qk_head_dim + v_head_dim), moved=moved)
