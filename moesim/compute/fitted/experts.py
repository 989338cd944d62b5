"""A whole expert MLP on one GPU: up GEMM, SwiGLU, quantisation, down GEMM.

After a low-latency dispatch (*generation*, masked layout), on the fullest rank:

    t = t0 + tE E + (up + down) (1 + ks (1 - mean / max)) + M I (5 + 1 / 32) / B

E local experts, M their rows, mean and max the rows of the experts hit; up and down as in `gemm`. One skew
coefficient, ks; the tiles of uneven loads are counted expert by expert already. After a normal dispatch (*context*,
contiguous layout):

    t = tE E + (up + down) (1 + ks (1 - mean / max)) + 6 M I / B

What was measured holds the host's time and the moving of rows too (`refit.families`), which other kernels are priced
for.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.compute.fitted import gemm, tiles
from moesim.compute.gpus import BYTES_PER_ELEMENT, Gpu
from moesim.compute.roofline import BF16, FP32, SCALE_GROUP, Floats

Ints = NDArray[np.int64]
Coefficients = Mapping[str, float]


@dataclass(frozen=True)
class Mlp:
    """An expert MLP before any coefficient, [ranks] each."""

    up: gemm.Gemm
    down: gemm.Gemm
    slots: Floats
    rows: Floats
    skew: Floats
    inter: Floats


def skew(loads: Ints) -> Floats:
    """Return 1 - mean / max over the experts hit, [ranks]: 0 for even loads."""
    most = loads.max(axis=1, initial=0)
    mean = loads.sum(axis=1) / np.maximum(np.count_nonzero(loads, axis=1), 1)
    uneven: Floats = np.where(most > 0, 1.0 - mean / np.maximum(most, 1), 0.0)
    return uneven


def prepare(
    gpu: Gpu, layout: tiles.Layout, loads: Ints, slots: Ints, hidden: int | Ints, inter: int | Ints, dtype: str
) -> Mlp:
    """Cut the MLP of ``loads[ranks, slots]`` rows; ``slots[ranks]`` local experts, with rows or without."""
    contiguous = layout.rows == (128,)
    expected, groups = gemm.contiguous_groups(loads) if contiguous else gemm.masked_groups(loads, slots)
    h, i = np.asarray(hidden, dtype=np.int64), np.asarray(inter, dtype=np.int64)
    return Mlp(
        up=gemm.prepare(gpu, layout, loads, 2 * i, h, dtype, expected, groups),
        down=gemm.prepare(gpu, layout, loads, h, i, dtype, expected, groups),
        slots=slots.astype(np.float64),
        rows=loads.sum(axis=1).astype(np.float64),
        skew=skew(loads),
        inter=np.broadcast_to(i.astype(np.float64), len(loads)),
    )


def _gemms(gpu: Gpu, dtype: str, c: Coefficients, mlp: Mlp) -> Floats:
    both = gemm.seconds(gpu, dtype, c, mlp.up) + gemm.seconds(gpu, dtype, c, mlp.down)
    total: Floats = both * (1.0 + c["ks"] * mlp.skew) + c["tE"] * mlp.slots
    return total


def generation_seconds(gpu: Gpu, dtype: str, c: Coefficients, mlp: Mlp) -> Floats:
    """Return the time of the expert MLP after a low-latency dispatch, [ranks]."""
    written = mlp.inter * (2 * BF16 + BYTES_PER_ELEMENT[dtype] + FP32 / SCALE_GROUP)
    total: Floats = c["t0"] + _gemms(gpu, dtype, c, mlp) + mlp.rows * written / gpu.hbm_bandwidth
    return total


def context_mlp_seconds(gpu: Gpu, dtype: str, c: Coefficients, mlp: Mlp) -> Floats:
    """Return the time of the expert MLP's three kernels after a normal dispatch, [ranks]."""
    total: Floats = _gemms(gpu, dtype, c, mlp) + mlp.rows * 6.0 * mlp.inter / gpu.hbm_bandwidth
    return total
