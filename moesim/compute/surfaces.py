"""The expert MLP of a measured table: T(tokens per expert, experts), balanced, and what skew adds.

An exact balanced hit is returned as it stands (`measured`). Between rows the time is interpolated
(`moesim.compute.interpolate`). Uneven loads m_1 .. m_E cost

- where the table has skewed rows: T(mean m, E) times a factor over max/mean that those rows give;
- else the mean over their experts of T(m_e, E), which is exact for balanced loads and for a kernel whose time is
  a constant plus a sum over experts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from moesim.compute.gpus import Gpu
from moesim.compute.interpolate import Curve, Grid
from moesim.compute.roofline import Floats, gemm_work


class Shape(NamedTuple):
    """What one surface of a table is for."""

    kernel: str
    dtype: str
    hidden: int
    inter: int


@dataclass(frozen=True)
class Skew:
    """What uneven loads cost over balanced ones of the same total: one curve over tokens per expert at each max/mean.

    ``ratios[curves]`` ascending, above 1; the curves' values are factors. Balanced loads have the factor 1, past
    the largest ratio its factor is held.
    """

    ratios: Floats
    curves: tuple[Curve, ...]

    def factor(self, tokens: float, ratio: float) -> tuple[float, bool]:
        """Return the factor at mean ``tokens`` per expert and max/mean ``ratio``, and whether rows span the ratio."""
        at = np.log(tokens)
        factors = [float(np.interp(at, np.log(curve.x), curve.y)) for curve in self.curves]
        x = np.log(np.concatenate([[1.0], self.ratios]))
        return float(np.interp(np.log(ratio), x, [1.0, *factors])), bool(ratio <= self.ratios[-1])


@dataclass(frozen=True)
class Surface:
    """Times of the expert MLP of one shape; ``grid`` has experts outside and tokens per expert inside."""

    grid: Grid
    skew: Skew | None = None

    @property
    def error(self) -> float | None:
        """Return the median leave-one-out error, None where no point has neighbours on both sides."""
        return self.grid.error

    def exact(self, loads: NDArray[np.int64]) -> float | None:
        """Return the measured time when ``loads`` (hit experts only) is a row of the table, else None.

        Rows are balanced as well as whole tokens allow: 1.5 tokens per expert are one on half of them, two on half.
        """
        if loads.max() - loads.min() > 1:
            return None
        return self.grid.exact(len(loads), float(loads.mean()))

    def seconds_at(self, loads: NDArray[np.int64]) -> tuple[float, bool]:
        """Return the time of ``loads`` (rows of each hit expert) and whether it lies inside the table."""
        experts, mean = len(loads), float(loads.mean())
        if self.skew is None:
            seconds, inside = self.grid.at(experts, loads.astype(np.float64))
            return float(seconds.mean()), bool(inside.all())
        seconds, inside = self.grid.at(experts, np.array([mean]))
        factor, spanned = self.skew.factor(mean, float(loads.max()) / mean)
        return float(seconds[0]) * factor, bool(inside[0]) and spanned


def mlp_floor(gpu: Gpu, loads: NDArray[np.int64] | Floats, hidden: int, inter: int, dtype: str) -> Floats:
    """Return the floor of up + down GEMM for ``loads[..., slots]`` in seconds[...].

    The two GEMMs run one after the other, so their floors add up; the activation between them is left out.
    """
    total: Floats = np.zeros(loads.shape[:-1])
    for n, k in ((2 * inter, hidden), (hidden, inter)):
        work = gemm_work(loads, n, k, dtype)
        flops, moved = work.flops.sum(axis=-1), work.moved.sum(axis=-1)
        total = total + np.maximum(flops / gpu.flops(dtype), moved / gpu.hbm_bandwidth)
    return total
