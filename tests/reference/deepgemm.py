"""DeepGEMM's published rows (README at a9967bc, 2025-04-09, H800, FP8), which no coefficient of the models has seen.

They also fixed the launch and the gate's GEMM share of ``moesim.compute.roofline``. They price nothing: interpolating
between them misses the held-out H800 rows of InferSim by 14 % (masked) and 6 % (contiguous) in the median, where the
fitted models miss them by 3 and 2 %.
"""

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path


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


@cache
def deepgemm_rows() -> tuple[GemmRow, ...]:
    """Return DeepGEMM's published rows for the H800 in FP8."""
    text = Path(__file__).with_name("deepgemm_h800_fp8.csv").read_text(encoding="utf-8")
    return tuple(
        GemmRow(
            layout=row["layout"],
            groups=int(row["groups"]),
            rows=int(row["rows_per_group"]),
            n=int(row["n"]),
            k=int(row["k"]),
            teraflops=float(row["teraflops"]),
        )
        for row in csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
    )
