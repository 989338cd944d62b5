"""FlashMLA's published rates: they price prefill on a GPU without published rows."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache

from moesim.compute.gpus import DATA


@dataclass(frozen=True)
class AttentionRate:
    """A published attention figure: TFLOP/s when compute-bound, GB/s when memory-bound (None: unknown)."""

    kernel: str
    gpu: str
    teraflops: float
    gigabytes_per_s: float | None
    citation: str


def _read(name: str) -> list[dict[str, str]]:
    with (DATA / "kernels" / name).open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(line for line in lines if not line.startswith("#")))


@cache
def attention_rates() -> dict[tuple[str, str], AttentionRate]:
    """Return FlashMLA's published rates by (kernel, gpu)."""
    return {
        (row["kernel"], row["gpu"]): AttentionRate(
            kernel=row["kernel"],
            gpu=row["gpu"],
            teraflops=float(row["teraflops"]),
            gigabytes_per_s=float(row["gigabytes_per_s"]) if row["gigabytes_per_s"] else None,
            citation=f"FlashMLA at {row['commit']} ({row['date']}): {row['setting']}",
        )
        for row in _read("flashmla.csv")
    }
