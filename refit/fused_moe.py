"""SGLang's fused Triton kernel, a model that is checked and prices nothing.

Balanced, N tokens on all ranks, one set of coefficients per model and ranks:

    t = t0 + up + down + ct N k (6 I + 2 H) / B,   tiles of BM rows, BM the power of two from 16 to 64 that holds
    an expert's rows, c = 2 rows N K / (e P)
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.compute.fitted import gemm
from moesim.compute.gpus import BYTES_PER_ELEMENT, Gpu
from moesim.compute.roofline import BF16, Floats

Ints = NDArray[np.int64]
Coefficients = Mapping[str, float]


@dataclass(frozen=True)
class Fused:
    """A fused MoE before any coefficient, [rows] each: experts hit, padded rows, pairs of token and expert, sizes."""

    hit: Floats
    padded: Floats
    pairs: Floats
    all_pairs: Floats
    hidden: Floats
    inter: Floats


def prepare_fused(tokens: Ints, ranks: Ints, top_k: Ints, experts: Ints, hidden: Ints, inter: Ints) -> Fused:
    """Spread ``tokens`` evenly over all experts, of which a rank holds ``experts / ranks``; [rows] each."""
    local = experts // ranks
    hit = np.minimum(local, np.maximum(1, -(-tokens * top_k // ranks)))
    pairs = np.maximum(tokens * top_k / ranks, hit)
    each = pairs / hit
    tile = np.clip(2.0 ** np.ceil(np.log2(each)), 16, 64)
    return Fused(
        hit=hit.astype(np.float64),
        padded=hit * np.ceil(each / tile) * tile,
        pairs=pairs,
        all_pairs=(tokens * top_k).astype(np.float64),
        hidden=hidden.astype(np.float64),
        inter=inter.astype(np.float64),
    )


def fused_seconds(gpu: Gpu, dtype: str, c: Coefficients, moe: Fused) -> Floats:
    """Return the time of the fused MoE kernel, [rows]."""
    width = BYTES_PER_ELEMENT[dtype]
    total: Floats = c["t0"] + c["ct"] * moe.all_pairs * (6.0 * moe.inter + 2.0 * moe.hidden) / gpu.hbm_bandwidth
    for n, k in ((2 * moe.inter, moe.hidden), (moe.hidden, moe.inter)):
        compute = 2.0 * moe.padded * n * k / (gpu.flops(dtype) * c["e"])
        memory = (moe.hit * n * k * width + moe.pairs * (k * width + BF16 * n)) / (gpu.hbm_bandwidth * c["em"])
        total = total + gemm.hide(compute, memory, c["p"])
    return total
