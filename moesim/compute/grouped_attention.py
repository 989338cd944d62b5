"""Core attention without a fitted model: a GPU's own rows of MHA, GQA and MQA where they reach, else a roofline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from moesim.compute import published_tables
from moesim.compute.gpus import Gpu
from moesim.compute.kernel_table import KernelTable
from moesim.compute.roofline import GEMM_PEAK_SHARE, Work
from moesim.compute.times import Bill, KernelTimes


def grouped_attention(
    table: KernelTable, kernel: str, rows: Mapping[str, Any] | None, work: Work, peak_share: float
) -> KernelTimes:
    """Return the time of ``attn_decode`` or ``attn_prefill``.

    Args:
        table: of the GPU.
        kernel: which of the two.
        rows: the shape as the tables have it; None for one that they cannot have.
        work: what the roofline takes.
        peak_share: of the BF16 peak that it is estimated at.
    """
    if rows is not None:
        own = table.measured.times(kernel, rows) if table.measured else None
        own = published_tables.times(table.published, kernel, rows) if own is None else own
        if own is not None:
            return own
    return roofline_times(table.gpu, work, "core attention estimated by the roofline", peak_share)


def roofline_times(gpu: Gpu, work: Work, note: str, peak_share: float = GEMM_PEAK_SHARE) -> KernelTimes:
    """Return what ``work`` takes at a share of the GPU's peak, estimated; nothing where there is no work."""
    bill = Bill()
    busy = work.flops + work.moved > 0
    bill.add("estimated", np.where(busy, work.estimate(gpu, peak_share), 0.0), None, note)
    return bill.close()
