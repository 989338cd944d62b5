"""Kernels over experts of a measured table: T(tokens per expert, experts), balanced, and what skew adds.

An exact balanced hit is returned as it stands (`measured`), unless the row itself was worked out from others. Between
rows the time is interpolated (`moesim.compute.interpolate`). Uneven loads m_1 .. m_E cost

- where the table has skewed rows that span them: T(mean m, E) times a factor over max/mean that those rows give;
- else the mean over their experts of T(m_e, E), which is exact for balanced loads and for a kernel whose time is
  a constant plus a sum over experts. The error bar then has a second part, `UNEVEN` (1 - mean / max): what the
  measured skewed rows of the H100 and H200 cost over the sum of their own tiles.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from moesim.compute.gpus import Gpu
from moesim.compute.interpolate import Curve, Found, Grid
from moesim.compute.roofline import Floats, Work, gemm_work

# ks of `moesim.compute.fitted.experts`: 0.08 to 0.09 after a normal dispatch, 0.02 after a low-latency one.
UNEVEN = 0.09
STRAY = 0.1  # of the rows may be of experts with more or fewer than any row has
WHOLE_TILE = 64  # rows of the smallest tile of a masked kernel (DeepGEMM)


class Shape(NamedTuple):
    """What one surface of a table is for; of an expert_gemm ``hidden`` and ``inter`` are its n and k."""

    kernel: str
    dtype: str
    hidden: int
    inter: int


class Uneven(NamedTuple):
    """What one uneven load costs over a balanced one of the same total, at one number of experts.

    ``ratio`` is its max/mean, above 1; ``factors`` has them over tokens per expert.
    """

    experts: float
    ratio: float
    factors: Curve


@dataclass(frozen=True)
class Skew:
    """What uneven loads cost over balanced ones of the same total.

    Balanced loads have the factor 1, past the largest ratio its factor is held. Experts between two numbers with rows
    take the factor between them (linear in the logarithm), others that of the nearest.
    """

    loads: tuple[Uneven, ...]

    def factor(self, experts: float, tokens: float, ratio: float, balanced: bool) -> tuple[float, bool]:
        """Return the factor for mean ``tokens`` per expert and max/mean ``ratio``, and whether rows span both.

        ``balanced``: the balanced time lies between rows, so that a small unevenness may be measured from it;
        otherwise the least uneven load decides.
        """
        known = np.array(sorted({load.experts for load in self.loads}))
        right = min(int(np.searchsorted(known, experts)), len(known) - 1)
        left = max(right - 1, 0) if known[right] > experts else right
        ends = [self._at(known[i], tokens, ratio, balanced) for i in (left, right)]
        low, high = np.log(known[[left, right]])
        weight = 0.0 if low == high else float(np.clip((np.log(experts) - low) / (high - low), 0.0, 1.0))
        factor = (1 - weight) * ends[0][0] + weight * ends[1][0]
        between = bool(known[0] <= experts <= known[-1])
        return factor, between and ends[0][1] and ends[1][1]

    def _at(self, experts: float, tokens: float, ratio: float, balanced: bool) -> tuple[float, bool]:
        own = sorted((load for load in self.loads if load.experts == experts), key=lambda load: load.ratio)
        at = np.log(tokens)
        ratios = np.array([load.ratio for load in own])
        factors = [float(np.interp(at, np.log(load.factors.x), load.factors.y)) for load in own]
        spanned = bool(ratio <= ratios[-1])
        if balanced:
            ratios, factors = np.array([1.0, *ratios]), [1.0, *factors]
        else:
            spanned &= any(load.factors.x[0] <= tokens <= load.factors.x[-1] for load in own)
        return float(np.interp(np.log(ratio), np.log(ratios), factors)), spanned


@dataclass(frozen=True)
class Surface:
    """Times of a kernel over experts of one shape; ``grid`` has experts outside and tokens per expert inside.

    ``worked_out`` and ``skew_error``: relative errors of balanced and of skewed rows that were worked out from measured
    ones, None where rows stand as they were measured. ``tile``: each expert's rows are padded to a multiple of it.
    ``drawn``: the rows are of loads that a benchmark drew, so loads in whole tiles, which cost up to a wave less, are
    outside.
    """

    grid: Grid
    skew: Skew | None = None
    worked_out: float | None = None
    skew_error: float | None = None
    tile: int = 1
    drawn: bool = False

    @property
    def error(self) -> float | None:
        """Return the median leave-one-out error or that of the rows, the larger; None where neither is known."""
        known = [error for error in (self.grid.error, self.worked_out) if error is not None]
        return max(known, default=None)

    def look_up(self, loads: NDArray[np.int64], floor: Floats) -> Found:
        """Return the times of ``loads[ranks, slots]``, none below ``floor[ranks]``."""
        seconds, errors = np.zeros((2, len(loads)))
        exact, inside = np.zeros((2, len(loads)), dtype=np.bool_)
        for rank, slots in enumerate(loads):
            hit = slots[slots > 0]
            if len(hit) == 0:
                continue
            row = self.exact(hit)
            if row is not None:
                seconds[rank], exact[rank], inside[rank] = row, self.worked_out is None, self.worked_out is not None
            else:
                time, inside[rank] = self.seconds_at(hit)
                seconds[rank] = max(time, floor[rank])
            errors[rank] = self._error_at(hit)
        return Found(seconds, exact, inside, errors)

    def _error_at(self, loads: NDArray[np.int64]) -> float:
        """Return the relative error of an interpolated time, NaN where none is known."""
        mean, most = float(loads.mean()), float(loads.max())
        known = [e for e in (self.grid.error_near(len(loads), mean), self.worked_out) if e is not None]
        uneven = UNEVEN * (1.0 - mean / most) if self.skew is None else (self.skew_error or 0.0) * (mean < most)
        return float(np.hypot(max(known), uneven)) if known else np.nan

    def exact(self, loads: NDArray[np.int64]) -> float | None:
        """Return the measured time when ``loads`` (hit experts only) is a row of the table, else None.

        Rows are balanced as well as whole tokens allow: 1.5 tokens per expert are one on half of them, two on half.
        """
        if loads.max() - loads.min() > 1:
            return None
        return self.grid.exact(len(loads), float(loads.mean()))

    def seconds_at(self, loads: NDArray[np.int64]) -> tuple[float, bool]:
        """Return the time of ``loads`` (rows of each hit expert) and whether it lies inside the table."""
        loads = -(-loads // self.tile) * self.tile
        experts, mean = len(loads), float(loads.mean())
        spoken_of = not self.drawn or experts == 1 or bool((loads % WHOLE_TILE).any())
        if self.skew is not None:
            at_mean, inside_mean = self.grid.at(experts, np.array([mean]))
            factor, spanned = self.skew.factor(experts, mean, float(loads.max()) / mean, bool(inside_mean[0]))
            if spanned:
                return float(at_mean[0]) * factor, True
        seconds, inside = self.grid.at(experts, loads.astype(np.float64))
        reached = float(loads[~inside].sum()) <= STRAY * float(loads.sum()) and spoken_of
        if self.skew is not None and not reached:
            return float(at_mean[0]) * factor, False
        return float(seconds.mean()), reached


def floor(gpu: Gpu, shape: Shape, loads: NDArray[np.int64] | Floats) -> Floats:
    """Return the floor of a kernel over experts for ``loads[..., slots]`` in seconds[...]."""
    if shape.kernel != "expert_gemm":
        return mlp_floor(gpu, loads, shape.hidden, shape.inter, shape.dtype)
    work = gemm_work(loads, shape.hidden, shape.inter, shape.dtype)
    return Work(work.flops.sum(axis=-1), work.moved.sum(axis=-1), shape.dtype).floor(gpu)


def mlp_floor(gpu: Gpu, loads: NDArray[np.int64] | Floats, hidden: int, inter: int, dtype: str) -> Floats:
    """Return the floor of up + down GEMM for ``loads[..., slots]`` in seconds[...].

    The two GEMMs run one after the other, so their floors add up; the activation between them is left out.
    """
    up, down = mlp_works(loads, hidden, inter, dtype)
    return np.asarray(up.floor(gpu) + down.floor(gpu))


def mlp_works(loads: NDArray[np.int64] | Floats, hidden: int, inter: int, dtype: str) -> tuple[Work, Work]:
    """Return the work of the up and of the down GEMM for ``loads[..., slots]``, summed over the slots, [...]."""
    works = (gemm_work(loads, n, k, dtype) for n, k in ((2 * inter, hidden), (hidden, inter)))
    up, down = (Work(work.flops.sum(axis=-1), work.moved.sum(axis=-1), dtype) for work in works)
    return up, down
