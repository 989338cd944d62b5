"""Between measured points: three curves to choose from, and what each misses when a point is left out.

Times of a kernel over its size are a launch, then a slope, with kinks where the kernel changes its tiles. No one
curve suits all: straight lines are best where launch and slope add up (MLA decode over the cache), log-log lines
where the time follows a power, a monotone cubic on logs where it bends slowly (prefill attention). So each grid
takes the one that misses its own inner points least when they are left out one at a time, and that miss is the
error bar. With fewer than ``ENOUGH`` inner points log-log lines are taken.

Past the ends the last log-log slope is held, but what the floor grows by takes its time at the best share of the
peaks that any point of the grid reaches: a kernel whose last rows wait for weights does not go on to reach the peak of
the tensor cores. A slope is at least 0 and at most 1, or as steep as the floor's.

The cubic is Fritsch and Butland's (SIAM J. Sci. Stat. Comput. 5, 300, 1984): it does not rise where the points fall.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ENOUGH = 4


def log_log(x: Floats, y: Floats, at: Floats) -> Floats:
    """Return y at ``at`` on straight lines between (log x, log y)."""
    return np.asarray(np.exp(np.interp(np.log(at), np.log(x), np.log(y))))


def linear(x: Floats, y: Floats, at: Floats) -> Floats:
    """Return y at ``at`` on straight lines between (x, y)."""
    return np.asarray(np.interp(at, x, y))


def cubic(x: Floats, y: Floats, at: Floats) -> Floats:
    """Return y at ``at`` on the monotone cubic through (log x, log y); with two points a log-log line."""
    if len(x) < 3:
        return log_log(x, y, at)
    return np.asarray(np.exp(_pchip(np.log(x), np.log(y), np.log(at))))


def _pchip(x: Floats, y: Floats, at: Floats) -> Floats:
    """Return y at ``at`` on the cubic through three points or more, bit for bit scipy's ``PchipInterpolator``.

    That one takes a quarter of a second to import, a fifth of a small run.
    """
    width = np.diff(x)
    rise = np.diff(y) / width
    bends = (np.sign(rise[1:]) != np.sign(rise[:-1])) | (rise[1:] == 0)
    after, before = 2 * width[1:] + width[:-1], width[1:] + 2 * width[:-1]
    slope = np.zeros(len(x))
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = (after / rise[:-1] + before / rise[1:]) / (after + before)
        slope[1:-1] = np.where(bends, 0.0, 1.0 / mean)
    slope[0] = _slope_at_end(width[0], width[1], rise[0], rise[1])
    slope[-1] = _slope_at_end(width[-1], width[-2], rise[-1], rise[-2])
    t = (slope[:-1] + slope[1:] - 2 * rise) / width
    i = np.clip(np.searchsorted(x, at, side="right") - 1, 0, len(width) - 1)
    s = at - x[i]
    square = s * s
    return np.asarray(
        y[i] + slope[i] * s + ((rise[i] - slope[i]) / width[i] - t[i]) * square + t[i] / width[i] * (square * s)
    )


def _slope_at_end(own: float, next_one: float, rise: float, next_rise: float) -> float:
    """Return the slope at an end from the two intervals there: three-point, kept monotone."""
    slope = ((2 * own + next_one) * rise - own * next_rise) / (own + next_one)
    if np.sign(slope) != np.sign(rise):
        return 0.0
    return 3.0 * rise if np.sign(rise) != np.sign(next_rise) and abs(slope) > 3.0 * abs(rise) else slope


METHODS: dict[str, Callable[[Floats, Floats, Floats], Floats]] = {"log-log": log_log, "linear": linear, "cubic": cubic}
# Between two curves of a grid there are two points and no bend to follow.
OUTER_METHODS = ("log-log", "linear")


@dataclass(frozen=True)
class LeaveOneOut:
    """Relative errors of ``method`` at inner points that were left out, [points]."""

    method: str
    errors: Floats

    @property
    def median(self) -> float | None:
        """Return the median error, None without a point."""
        return float(np.median(self.errors)) if len(self.errors) else None

    @property
    def p90(self) -> float | None:
        """Return the 90th percentile of the errors, None without a point."""
        return float(np.percentile(self.errors, 90)) if len(self.errors) else None


def _chosen(misses: Mapping[str, Sequence[float]]) -> LeaveOneOut:
    """Take the method with the smallest mean miss (log of the ratio, so that half and double weigh the same)."""
    first, *_ = misses
    if len(misses[first]) < ENOUGH:
        name = first
    else:
        name = min(misses, key=lambda one: (float(np.mean(misses[one])), list(misses).index(one)))
    return LeaveOneOut(name, np.expm1(np.asarray(misses[name], dtype=np.float64)))


@dataclass(frozen=True)
class Curve:
    """Seconds over one axis: ``x[points]`` ascending, ``y[points]``."""

    x: Floats
    y: Floats

    def at(self, x: Floats, method: str, steepest: float = 1.0) -> tuple[Floats, NDArray[np.bool_]]:
        """Return y[m] at ``x[m]`` and whether each lies between the ends."""
        inside = (x >= self.x[0]) & (x <= self.x[-1])
        value = METHODS[method](self.x, self.y, np.clip(x, self.x[0], self.x[-1]))
        first, last = 0.0, 1.0
        if len(self.x) > 1:
            first, last = (_slope(self.x[pair], self.y[pair], steepest) for pair in (slice(0, 2), slice(-2, None)))
        below, above = np.minimum(x / self.x[0], 1.0), np.maximum(x / self.x[-1], 1.0)
        return value * below**first * above**last, inside


def _slope(x: Floats, y: Floats, steepest: float) -> float:
    return float(np.clip(np.log(y[1] / y[0]) / np.log(x[1] / x[0]), 0.0, steepest))


@dataclass(frozen=True)
class Found:
    """Times looked up among measured ones, [ranks] each.

    ``seconds`` are 0 on ranks without work; ``exact`` says which are a row verbatim, ``inside`` which lie between
    rows, ``errors`` the relative error of those, NaN where it is not known.
    """

    seconds: Floats
    exact: NDArray[np.bool_]
    inside: NDArray[np.bool_]
    errors: Floats

    @property
    def outside(self) -> NDArray[np.bool_]:
        """Return which ranks have work that lies past the rows."""
        return (self.seconds > 0) & ~self.exact & ~self.inside

    def error(self, of: NDArray[np.bool_]) -> float | None:
        """Return the time-weighted mean error of ranks, None where none is known."""
        known = of & np.isfinite(self.errors)
        weights = self.seconds[known]
        return float((weights * self.errors[known]).sum() / weights.sum()) if known.any() else None


# The seconds that the GPU's peaks allow at one place of the outer axis and inner[m].
Floor = Callable[[float, Floats], Floats]


@dataclass(frozen=True)
class Grid:
    """Seconds over two axes: a curve over the inner axis at each of ``outer[curves]``, ascending.

    Past the ends of the outer axis time is in proportion to it, from the nearest curve. ``inner_error`` and
    ``outer_error`` say which method is used along each axis and what it misses. No time lies below ``floor``;
    ``best`` is the largest share of it that a point reaches; ``missed[curves]`` has the relative error of each point
    when it is left out, NaN at the ends of a curve.
    """

    outer: Floats
    curves: tuple[Curve, ...]
    inner_error: LeaveOneOut
    outer_error: LeaveOneOut
    floor: Floor
    best: float
    missed: tuple[Floats, ...]

    @classmethod
    def of(cls, points: Mapping[tuple[float, float], float], floor: Floor) -> "Grid":
        """Make a grid of ``{(outer, inner): seconds}``."""
        by_outer: dict[float, list[tuple[float, float]]] = {}
        for (outer, inner), seconds in points.items():
            by_outer.setdefault(outer, []).append((inner, seconds))
        outers = sorted(by_outer)
        curves = []
        for outer in outers:
            x, y = np.array(sorted(by_outer[outer])).T
            curves.append(Curve(x, y))
        within = _chosen({name: [m for curve in curves for m in _misses_within(curve, name)] for name in METHODS})
        across = {name: _misses_across(np.array(outers), curves, within.method, name) for name in OUTER_METHODS}
        best = max(float((floor(o, curve.x) / curve.y).max()) for o, curve in zip(outers, curves, strict=True))
        # Points with a hot cache beat the floor.
        missed = tuple(
            np.array([np.nan, *np.expm1(_misses_within(curve, within.method)), np.nan][: len(curve.x)])
            for curve in curves
        )
        return cls(np.array(outers), tuple(curves), within, _chosen(across), floor, min(best, 1.0), missed)

    @property
    def error(self) -> float | None:
        """Return the larger median error of the two axes, None where no point has neighbours on both sides."""
        known = [e for e in (self.inner_error.median, self.outer_error.median) if e is not None]
        return max(known, default=None)

    def error_near(self, outer: float, inner: float) -> float | None:
        """Return the error of an interpolated time: the grid's, or what the points around it miss if larger."""
        right = min(int(np.searchsorted(self.outer, outer)), len(self.outer) - 1)
        around = []
        for i in {right, right if self.outer[right] == outer else max(right - 1, 0)}:
            at = int(np.searchsorted(self.curves[i].x, inner))
            around += [miss for miss in self.missed[i][max(at - 1, 0) : at + 1] if np.isfinite(miss)]
        known = [error for error in (self.error, float(np.mean(around)) if around else None) if error is not None]
        return max(known, default=None)

    @property
    def points(self) -> int:
        """Return the number of measured points."""
        return sum(len(curve.x) for curve in self.curves)

    def exact(self, outer: float, inner: float) -> float | None:
        """Return the measured time of a point of the grid, else None."""
        found = np.flatnonzero(self.outer == outer)
        if len(found) == 0:
            return None
        curve = self.curves[int(found[0])]
        hit = np.flatnonzero(curve.x == inner)
        return float(curve.y[hit[0]]) if len(hit) else None

    def at(self, outer: float, inner: Floats) -> tuple[Floats, NDArray[np.bool_]]:
        """Return seconds[m] at ``outer`` and ``inner[m]``, and whether each lies inside the grid."""
        right = int(np.searchsorted(self.outer, outer))
        low, high = max(right - 1, 0), min(right, len(self.outer) - 1)
        if right < len(self.outer) and self.outer[right] == outer:
            low = right
        value, inside = self._on_curve(low, inner)
        if low == high:
            value, inside = value * (outer / self.outer[low]), inside & bool(outer == self.outer[low])
        else:
            above, inside_above = self._on_curve(high, inner)
            ends = (self.outer[low], self.outer[high])
            value = _between(ends, value, above, outer, self.outer_error.method)
            inside = inside & inside_above
        return np.maximum(value, self.floor(outer, inner)), inside

    def look_up(self, outer: Floats, inner: Floats) -> Found:
        """Return the times at ``outer[ranks]`` and ``inner[ranks]``; no work where either is 0."""
        seconds, errors = np.zeros(len(inner)), np.full(len(inner), np.nan)
        exact, inside = np.zeros((2, len(inner)), dtype=np.bool_)
        for rank in np.flatnonzero(outer * inner):
            row = self.exact(float(outer[rank]), float(inner[rank]))
            if row is not None:
                seconds[rank], exact[rank] = row, True
            else:
                between, within = self.at(float(outer[rank]), inner[[rank]])
                seconds[rank], inside[rank] = between[0], within[0]
                error = self.error_near(float(outer[rank]), float(inner[rank]))
                errors[rank] = np.nan if error is None else error
        return Found(seconds, exact, inside, errors)

    def _on_curve(self, i: int, inner: Floats) -> tuple[Floats, NDArray[np.bool_]]:
        """Return curve i at ``inner[m]``; past its end a time grows at least as the floor does at ``best``."""
        curve, outer = self.curves[i], float(self.outer[i])
        end = curve.x[-1]
        if inner.max() <= end:
            return curve.at(inner, self.inner_error.method)
        at_end, at_twice = self.floor(outer, np.array([end, 2 * end]))
        value, inside = curve.at(inner, self.inner_error.method, max(1.0, float(np.log2(at_twice / at_end))))
        grown = curve.y[-1] + (self.floor(outer, inner) - at_end) / self.best
        return np.where(inner > end, np.maximum(value, grown), value), inside


def _between(ends: tuple[float, float], low: Floats, high: Floats, at: float, method: str) -> Floats:
    """Return the blend of two curves, ``low`` at ``ends[0]`` and ``high`` at ``ends[1]``."""
    if method == "linear":
        weight = (at - ends[0]) / (ends[1] - ends[0])
        return (1 - weight) * low + weight * high
    weight = np.log(at / ends[0]) / np.log(ends[1] / ends[0])
    return np.asarray(low ** (1 - weight) * high**weight)


def _misses_within(curve: Curve, method: str) -> list[float]:
    """Leave out each inner point of a curve; two neighbours on each side decide the guess, so no more are given."""
    misses = []
    for i in range(1, len(curve.x) - 1):
        near = slice(max(i - 2, 0), i + 3)
        x, y = curve.x[near], curve.y[near]
        kept = x != curve.x[i]
        guess = METHODS[method](x[kept], y[kept], curve.x[[i]])
        misses.append(abs(float(np.log(guess[0] / curve.y[i]))))
    return misses


def _misses_across(outer: Floats, curves: Sequence[Curve], inner_method: str, method: str) -> list[float]:
    """Leave out each inner curve and guess its points from the curves on both sides."""
    misses: list[float] = []
    for i in range(1, len(outer) - 1):
        x, y = curves[i].x, curves[i].y
        (low, in_low), (high, in_high) = (curves[j].at(x, inner_method) for j in (i - 1, i + 1))
        guess = _between((outer[i - 1], outer[i + 1]), low, high, outer[i], method)
        misses += list(np.abs(np.log(guess / y))[in_low & in_high])
    return misses
