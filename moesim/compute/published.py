"""Published kernel rows: what DeepGEMM and FlashMLA print for their own kernels.

DeepGEMM's rows fixed the launch and the gate's GEMM share of `moesim.compute.roofline`, and check the fitted GEMM
models from outside. They price nothing themselves: interpolating between them misses the held-out H800 rows of
InferSim by 14 % (masked) and 6 % (contiguous) in the median, where the fitted models miss them by 3 and 2 %.
FlashMLA's rates price prefill on a GPU that nobody has published rows of.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache

from moesim.compute.gpus import DATA

DEEPGEMM = "DeepGEMM README at a9967bc (2025-04-09), H800 FP8"


@dataclass(frozen=True)
class GemmRow:
    """One published GEMM: ``groups`` experts with ``rows`` rows each, times [n, k]; ``seconds`` derived."""

    layout: str  # dense | contiguous | masked
    groups: int
    rows: int
    n: int
    k: int
    teraflops: float

    @property
    def seconds(self) -> float:
        """Return 2 groups rows n k / TFLOP/s."""
        return 2.0 * self.groups * self.rows * self.n * self.k / (self.teraflops * 1e12)


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
def deepgemm_rows() -> tuple[GemmRow, ...]:
    """Return DeepGEMM's published rows for the H800 in FP8."""
    return tuple(
        GemmRow(
            layout=row["layout"],
            groups=int(row["groups"]),
            rows=int(row["rows_per_group"]),
            n=int(row["n"]),
            k=int(row["k"]),
            teraflops=float(row["teraflops"]),
        )
        for row in _read("deepgemm_h800_fp8.csv")
    )


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
