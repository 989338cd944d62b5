"""Two sweeps side by side, point by point: points are the same where their axes have equal values.

An axis ``seed`` is not an axis of the comparison: points that differ only in it are one point with a band, whose
numbers are the medians over the seeds.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moesim.errors import InputError
from moesim.report.comparison import ComparisonRow, bands_over, compare_summaries
from moesim.results import SUMMARY

_SEED = "seed"


@dataclass(frozen=True)
class SweepTable:
    """The points of a sweep.

    Attributes:
        name: of the sweep's folder, for messages.
        axes: keys of its axes.
        columns: one entry per point in each: the axes, ``status`` and the numbers of the summary.
    """

    name: str
    axes: tuple[str, ...]
    columns: Mapping[str, Sequence[Any]]

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the points."""
        names = list(self.columns)
        for values in zip(*self.columns.values(), strict=True):
            yield dict(zip(names, values, strict=True))


@dataclass(frozen=True)
class PointComparison:
    """One point of both sweeps: its values and its numbers."""

    values: dict[str, Any]
    rows: tuple[ComparisonRow, ...]

    def row(self, key: str) -> ComparisonRow | None:
        """The comparison of one number."""
        return next((row for row in self.rows if row.key == key), None)


@dataclass(frozen=True)
class SweepComparison:
    """Two sweeps compared.

    Attributes:
        labels: names of the two.
        axes: keys whose values identify the points.
        points: those with numbers in both.
        only: how many points with numbers only the first has, only the second.
        lost: values of the points that have numbers in the first and failed in the second.
    """

    labels: tuple[str, str]
    axes: tuple[str, ...]
    points: tuple[PointComparison, ...]
    only: tuple[int, int]
    lost: tuple[dict[str, Any], ...]

    def worst_regression(self, percent: float = 0.0) -> tuple[PointComparison, ComparisonRow] | None:
        """The number that got worse most, and where, if by more than ``percent``."""
        every = [(point, row) for point in self.points for row in point.rows]
        worst = max(every, key=lambda one: one[1].regression_percent(), default=None)
        return worst if worst is not None and worst[1].regression_percent() > percent else None


def compare_sweeps(a: SweepTable, b: SweepTable, labels: Sequence[str]) -> SweepComparison:
    """Compare two sweeps point by point.

    Raises:
        InputError: they vary other keys, or have no point with numbers in common.
    """
    axes = tuple(key for key in a.axes if key != _SEED)
    differing = set(axes) ^ {key for key in b.axes if key != _SEED}
    if differing:
        raise InputError(
            f"{a.name} and {b.name} do not vary the same keys: {', '.join(sorted(differing))}",
            fix="compare sweeps over the same axes; a seed axis may be in one of them alone",
        )
    left, right = _runs(a, axes), _runs(b, axes)
    seeds = _SEED in a.axes or _SEED in b.axes
    shared = [place for place in left if place in right]
    if not shared:
        raise InputError(f"no point has numbers in both {a.name} and {b.name}", fix="compare sweeps of the same values")
    points = []
    for place in shared:
        bands = (bands_over(left[place]), bands_over(right[place])) if seeds else None
        rows = compare_summaries(_medians(left[place]), _medians(right[place]), bands)
        points.append(PointComparison(dict(zip(axes, place, strict=True)), rows))
    failed = _runs(b, axes, "failed")
    lost = [dict(zip(axes, place, strict=True)) for place in left if place in failed]
    only = (len(left) - len(shared), len(right) - len(shared))
    return SweepComparison((labels[0], labels[1]), axes, tuple(points), only, tuple(lost))


def _runs(table: SweepTable, axes: tuple[str, ...], status: str = "ok") -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    """Rows of one status by their values, several where they differ in the seed."""
    runs: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in table.rows():
        if row["status"] == status:
            runs.setdefault(tuple(row[key] for key in axes), []).append(row)
    return runs


def _medians(rows: list[dict[str, Any]]) -> dict[str, Any]:
    if len(rows) == 1:
        return rows[0]
    bands = bands_over(rows)
    return {key: bands[key].median if key in bands else None for key in SUMMARY}
