"""One GEMM, or one over many experts, as DeepGEMM runs it.

    t = (c^p + b^p)^(1/p)
    c = W (K + K0) 2 BM BN (1 + u) / (e P / SM)        W waves of BM x BN tiles over SM multiprocessors (`tiles`)
    b = (hit N K w + M (K w + 2 N)) / (em B)           weights of the experts hit, inputs, BF16 outputs

P and B are the GPU's peaks, w the bytes of an element, M the rows and ``hit`` the experts that got one. Coefficients:
e and em, the shares of the peaks that are reached; K0, the filling and draining of a tile's pipeline, in elements of
K; u, what a tile that needs two weight scales costs more (0 for the others); p, how far the two hide each other;
s, the least time of 128 elements of K in a tile, however small it is. The launch t0 is added by the caller.

Not modelled: the L2 cache, power and clocks.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.compute.fitted import tiles
from moesim.compute.gpus import BYTES_PER_ELEMENT, Gpu
from moesim.compute.roofline import BF16, Floats

Ints = NDArray[np.int64]
Coefficients = Mapping[str, float]

STEP = 128  # elements of K that a tile takes at a time


@dataclass(frozen=True)
class Gemm:
    """What a GEMM costs before any coefficient, [ranks] each: waves, tile sizes, K, and bytes moved."""

    waves: Floats
    tile: Floats
    uneven: NDArray[np.bool_]
    k: Floats
    moved: Floats


def prepare(
    gpu: Gpu,
    layout: tiles.Layout,
    loads: Ints,
    n: int | Ints,
    k: int | Ints,
    dtype: str,
    expected_rows: Ints,
    groups: Ints,
) -> Gemm:
    """Cut a GEMM of ``loads[ranks, slots]`` rows x [n, k] (numbers, or one per rank) into tiles.

    ``expected_rows[ranks]`` in each of ``groups[ranks]`` is what the library is told (`tiles.choose`).
    """
    columns = np.broadcast_to(np.asarray(n, dtype=np.int64), len(loads))
    inner = np.broadcast_to(np.asarray(k, dtype=np.float64), len(loads))
    cut = tiles.choose(layout, expected_rows, columns, groups, gpu.sms)
    rows, hit = loads.sum(axis=1), np.count_nonzero(loads, axis=1)
    width = BYTES_PER_ELEMENT[dtype]
    return Gemm(
        waves=tiles.waves(cut, loads, columns),
        tile=(cut.rows * cut.columns).astype(np.float64),
        uneven=cut.uneven(),
        k=inner,
        moved=hit * columns * inner * width + rows * (inner * width + BF16 * columns),
    )


def seconds(gpu: Gpu, dtype: str, c: Coefficients, gemm: Gemm) -> Floats:
    """Return the time of ``gemm`` without its launch, [ranks]."""
    per_sm = gpu.flops(dtype) * c["e"] / gpu.sms
    uneven = c.get("u", 0.0) * gemm.uneven if dtype == "fp8" else 0.0  # BF16 has no scales
    step = 2.0 * STEP * gemm.tile * (1.0 + uneven) / per_sm + c.get("s", 0.0)
    compute = gemm.waves * (gemm.k + c.get("K0", 0.0)) / STEP * step
    memory = gemm.moved / (gpu.hbm_bandwidth * c["em"])
    return hide(compute, memory, c["p"])


def hide(one: Floats, other: Floats, p: float) -> Floats:
    """Return (one^p + other^p)^(1/p): the longer of two that run side by side, a little more where they are alike."""
    longer, shorter = np.maximum(one, other), np.minimum(one, other)
    together: Floats = longer * (1.0 + (shorter / np.where(longer > 0, longer, 1.0)) ** p) ** (1.0 / p)
    return together


def masked_groups(loads: Ints, slots: Ints) -> tuple[Ints, Ints]:
    """Return (expected rows, groups) of the masked layout: the mean over the rank's ``slots[ranks]``, rounded up."""
    mean = -(-loads.sum(axis=1) // np.maximum(slots, 1))
    return np.maximum(mean, 1), slots


def contiguous_groups(loads: Ints) -> tuple[Ints, Ints]:
    """Return (expected rows, groups) of the contiguous layout: one GEMM over rows padded to tiles of 128."""
    rows = (-(-loads // 128) * 128).sum(axis=1)
    return np.maximum(rows, 1), np.ones(len(loads), dtype=np.int64)
