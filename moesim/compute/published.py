"""Published kernel rows: what DeepGEMM and FlashMLA print for their own kernels.

DeepGEMM prints TFLOP/s for groups x rows x n x k. A row's time splits into launch + groups x g(rows), and
g, the time of one expert, turns out to be one smooth curve over all layouts (dense rows, masked decode rows
of 1 to 4 experts, contiguous prefill rows of 4 and 8): so g is interpolated log-log over the expert's rows
and a rank's GEMM is the launch plus the sum of g over the experts that got a token. A kernel works in tiles
of 128 rows, so an expert's rows are rounded up to whole tiles first (up to 64 count as 64, the smallest row
published). Only shapes with grouped rows get a curve: the others have nothing between 128 and 4,096 rows.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from moesim.compute.gpus import DATA, Gpu
from moesim.compute.roofline import LAUNCH_S, TILE, Floats, gemm_expert_seconds, gemm_memory_seconds

DEEPGEMM = "DeepGEMM README at a9967bc (2025-04-09), H800 FP8"
DEEPGEMM_GPU = "h800"
SMALLEST_ROWS = 64


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


def attention_rate(kernel: str, gpu: str) -> AttentionRate:
    """Return the rate published for ``gpu``, or the H800's where there is none."""
    rates = attention_rates()
    return rates.get((kernel, gpu)) or rates[kernel, DEEPGEMM_GPU]


@dataclass(frozen=True)
class LoadCurve:
    """Time of one expert's GEMM against its rows, for one [n, k], read from published rows.

    ``rows`` and ``seconds`` are the points; ``by_tile[i]`` is the time at i whole tiles (0: up to 64 rows),
    ``launch_by_tile[i]`` the launch that goes with it. ``exact`` holds the (rows, groups) pairs published.
    """

    rows: NDArray[np.int64]
    seconds: Floats
    launch: Floats
    by_tile: Floats
    launch_by_tile: Floats
    exact: frozenset[tuple[int, int]]
    error: float

    n: int
    k: int

    def price(self, gpu: Gpu, loads: NDArray[np.int64]) -> tuple[Floats, Floats, NDArray[np.bool_], NDArray[np.bool_]]:
        """Price ``loads[ranks, slots]``.

        Returns each expert's seconds[ranks, slots], the launch[ranks], whether a rank is a published row
        [ranks], and whether an expert lies between the smallest and largest published rows [ranks, slots].
        """
        tile = np.where(loads <= SMALLEST_ROWS, 0, -(-loads // TILE))
        known = np.minimum(tile, len(self.by_tile) - 1)
        expert = np.where(loads > 0, self.by_tile[known], 0.0)
        if (tile > known).any():  # past the last row: its efficiency is held
            share = gemm_expert_seconds(gpu, loads, self.n, self.k, "fp8") / gemm_expert_seconds(
                gpu, self.rows[-1], self.n, self.k, "fp8"
            )
            expert = np.where(tile > known, expert * share, expert)
        hits = (loads > 0).sum(axis=1)
        launches = np.where(loads > 0, self.launch_by_tile[known], 0.0).sum(axis=1)
        launch = np.where(hits > 0, launches / np.maximum(hits, 1), LAUNCH_S)
        most = loads.max(axis=1, initial=0)
        balanced = ((loads == 0) | (loads == most[:, None])).all(axis=1)
        published = np.zeros(len(loads), dtype=np.bool_)
        for rows, groups in self.exact:
            published |= balanced & (most == rows) & (hits == groups)
        inside = (loads >= self.rows[0]) & (loads <= self.rows[-1])
        return expert, launch, published, inside


def _log_log(at: Floats, rows: NDArray[np.int64], seconds: Floats) -> Floats:
    return np.exp(np.interp(np.log(at), np.log(rows), np.log(seconds)))


def leave_one_out(rows: NDArray[np.int64], seconds: Floats) -> float:
    """Return the median relative error at the inner points when each is interpolated from its neighbours."""
    kept = np.arange(len(rows))
    errors = [
        abs(_log_log(rows[[i]].astype(np.float64), rows[kept != i], seconds[kept != i])[0] / seconds[i] - 1)
        for i in range(1, len(rows) - 1)
    ]
    return float(np.median(errors))


def _curve(gpu: Gpu, rows: list[GemmRow]) -> LoadCurve:
    rows = sorted(rows, key=lambda row: row.rows)
    n, k = rows[0].n, rows[0].k
    points = np.array([row.rows for row in rows], dtype=np.int64)
    groups = np.array([row.groups for row in rows])
    total = np.array([row.seconds for row in rows])
    # A single small GEMM can have launched faster than the fitted launch; the expert's part must not drop
    # below its own memory traffic for that, or many experts together would beat the bandwidth.
    memory = gemm_memory_seconds(gpu, points, n, k, "fp8")
    expert = np.maximum((total - LAUNCH_S) / groups, np.minimum(memory, total / groups))
    launch = total - groups * expert
    tiles = np.arange(points[-1] // TILE + 1) * TILE
    at = np.maximum(tiles, SMALLEST_ROWS).astype(np.float64)
    return LoadCurve(
        rows=points,
        seconds=expert,
        launch=launch,
        by_tile=np.maximum.accumulate(_log_log(at, points, expert)),
        launch_by_tile=np.interp(np.log(at), np.log(points), launch),
        exact=frozenset((row.rows, row.groups) for row in rows),
        error=leave_one_out(points, expert),
        n=n,
        k=k,
    )


@cache
def deepgemm_curves(gpu: Gpu) -> dict[tuple[str, int, int], LoadCurve]:
    """Return the curves by (dense | grouped, n, k) for shapes with grouped rows.

    Where a number of rows was published both dense and grouped, each curve takes its own kind; where two
    grouped rows share it, the one with more groups.
    """
    rows = deepgemm_rows()
    curves = {}
    for n, k in sorted({(row.n, row.k) for row in rows if row.layout != "dense"}):
        same = [row for row in rows if (row.n, row.k) == (n, k)]
        for kind in ("dense", "grouped"):
            order = sorted(same, key=lambda row: ((row.layout == "dense") == (kind == "dense"), row.groups))
            curves[kind, n, k] = _curve(gpu, list({row.rows: row for row in order}.values()))
    return curves


@cache
def roofline_error(gpu: Gpu) -> float:
    """Return the median relative error of the roofline over all published rows (H800, FP8)."""
    rows = deepgemm_rows()
    given = np.array([row.seconds for row in rows])
    model = np.array(
        [LAUNCH_S + row.groups * float(gemm_expert_seconds(gpu, row.rows, row.n, row.k, "fp8")) for row in rows]
    )
    return float(np.median(np.abs(model / given - 1)))
