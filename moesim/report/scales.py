"""Axes as numbers: the range of a chart's values, and the place where the name of each named point finds room."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from moesim.report.charts import LineChart
from moesim.report.quantities import Floats

_LETTER = 0.012
"""Width of a letter of a name, in parts of the width of a chart."""
_LINE = 0.06
"""Height of a name, in parts of the height of a chart."""
_CORNERS = ((1, 1), (-1, 1), (1, -1), (-1, -1), (0, 1), (0, -1))
"""Where a name may stand, seen from its point, the best first: right of it, left or across, above or below it."""
_STEPS = 12
"""Places on a piece of a curve, and along a name, that are looked at."""
BEST = "★"
"""In a point's name: this one is the best. The star is drawn as the point's marker, not as text beside it."""


@dataclass(frozen=True)
class Scale:
    """The numbers from ``low`` to ``high`` on a line, evenly or by their logarithms."""

    low: float
    high: float
    log: bool = False

    def place(self, values: Any) -> Floats:
        """Where values lie: 0 at ``low``, 1 at ``high``; NaN for what a logarithmic line has no place for."""
        given = np.asarray(values, np.float64)
        ends = np.array([self.low, self.high])
        if self.log:
            given, ends = np.log(np.where(given > 0, given, np.nan)), np.log(ends)
        return np.asarray((given - ends[0]) / (ends[1] - ends[0]))


def scale_of(values: Iterable[Floats], log: bool = False, room: float = 0.05, zero: bool = False) -> Scale:
    """Choose the range that holds all values with some room around them, from zero on if asked."""
    every = np.concatenate([np.zeros(0), *(np.ravel(one) for one in values)])
    known = every[np.isfinite(every) & (every > 0)] if log else every[np.isfinite(every)]
    if not known.size:
        return Scale(1.0, 10.0, True) if log else Scale(0.0, 1.0)
    low, high = float(known.min()), float(known.max())
    if log:
        factor = max((high / low) ** room, 1.1)
        return Scale(low / factor, high * factor, True)
    low = min(low, 0.0) if zero else low
    # What differs by rounding alone is the same: no axis is that fine.
    apart = high - low if high - low > 1e-9 * max(abs(low), abs(high)) else 0.0
    around = room * apart or 0.1 * abs(high) or 1.0
    return Scale(low if zero else low - around, high + around)


def line_scales(chart: LineChart) -> tuple[Scale, Scale]:
    """Range of both axes of a chart of curves, over its marks too, with room for the names of its points."""
    named = any(one.point_labels for one in chart.series)
    levels = np.array([mark.value for mark in chart.marks])
    x = scale_of((one.x for one in chart.series), chart.log_x, 0.14 if named else 0.03)
    return x, scale_of((*(one.y for one in chart.series), levels), chart.log_y, 0.1 if named else 0.05, chart.zero)


@dataclass(frozen=True)
class PointName:
    """A name at ``x``, ``y``: right (1) or left (-1) of its point or across it (0), and above (1) or below (-1) it."""

    text: str
    x: float
    y: float
    right: int
    above: int


def point_names(chart: LineChart) -> list[PointName]:
    """Place the names of points so that each covers no point, no other name and, if it can, no curve.

    A name that finds no such place is left out, unless its point is the best.
    """
    x, y = line_scales(chart)
    at = [np.column_stack([x.place(one.x), y.place(one.y)]) for one in chart.series]
    steps = np.linspace(0, 1, _STEPS)[:, None, None]
    curves = [(places[:-1] + steps * np.diff(places, axis=0)).reshape(-1, 2)
              for one, places in zip(chart.series, at, strict=True) if one.style != "points"]  # fmt: skip
    avoided, covered = np.concatenate([np.empty((0, 2)), *at]), np.concatenate([np.empty((0, 2)), *curves])
    names = []
    for one, places in zip(chart.series, at, strict=True):
        for i, label in enumerate(one.point_labels):
            text = label.replace(BEST, "").strip()
            if not text or not np.isfinite(places[i]).all():
                continue
            boxes = [_box(places[i], right, above, text) for right, above in _CORNERS]
            costs = [_inside(box, avoided) + bool((box < 0).any() or (box > 1).any()) for box in boxes]
            corner = min(range(len(boxes)), key=lambda k: (costs[k], _inside(boxes[k], covered), k))
            if costs[corner] == 0 or BEST in label:
                avoided = np.concatenate([avoided, boxes[corner]])
                names.append(PointName(text, float(one.x[i]), float(one.y[i]), *_CORNERS[corner]))
    return names


def _box(at: Floats, right: int, above: int, text: str) -> Floats:
    """Points all over a name beside a point, its corners among them."""
    width = _LETTER * len(text)
    left = at[0] + (_LETTER if right > 0 else -0.5 * width if right == 0 else -width - _LETTER)
    bottom = at[1] + (0.2 * _LINE if above > 0 else -1.2 * _LINE)
    across, up = np.meshgrid(left + width * np.linspace(0, 1, _STEPS), bottom + _LINE * np.linspace(0, 1, 3))
    return np.column_stack([across.ravel(), up.ravel()])


def _inside(box: Floats, points: Floats) -> int:
    """How many points a name covers."""
    return int(((points >= box.min(axis=0)) & (points <= box.max(axis=0))).all(axis=1).sum())
