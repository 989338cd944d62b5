"""Charts as plain values: what is drawn, in which words and units, and the table behind it.

A chart is made once from a result and then painted twice, by Bokeh or HTML on the page and by matplotlib in a file, so
that the two always agree. Axis labels carry the unit; values are already in it.
"""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from moesim.report.data_table import UNIT_AT_END, Cell, DataTable
from moesim.report.quantities import Floats, rounded

# Rows of a chart's data table on the page; the rest is in the run's parquet files.
TABLE_ROWS = 300
# A chart that is wider than this many cells has its table by row totals only.
_MATRIX_COLUMNS = 64


@dataclass(frozen=True)
class Series:
    """One curve or cloud of points, ``x`` and ``y`` of equal length, NaN where a curve is broken.

    ``point_labels`` stand beside the points, ``hints`` appear under the pointer; one for each point, or none.
    """

    label: str
    x: Floats
    y: Floats
    colour: str
    style: Literal["line", "dashed", "points", "steps"] = "line"
    point_labels: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()

    def named(self) -> list[str]:
        """Name of each point; none where points have no names."""
        return [f"{self.label} {name}".strip() for name in self.point_labels or self.hints]


@dataclass(frozen=True)
class Mark:
    """A level to compare with, drawn across the chart."""

    label: str
    value: float

    @property
    def text(self) -> str:
        """Label and value: ``mean: 32,770``."""
        return f"{self.label}: {float(f'{self.value:.4g}'):,.10g}"


@dataclass(frozen=True)
class _Titled:
    """What every chart has; ``source`` is the file with all rows, where the table has not room for all."""

    key: str
    title: str
    caption: str
    source: str = field(default="", kw_only=True)


@dataclass(frozen=True)
class LineChart(_Titled):
    """Curves over a common axis; ``x_ticks`` are the numbers written on it, where they are not just chosen.

    ``zero``: the vertical axis begins there.
    """

    x_label: str
    y_label: str
    series: tuple[Series, ...]
    marks: tuple[Mark, ...] = ()
    log_x: bool = False
    log_y: bool = False
    x_ticks: tuple[float, ...] = ()
    zero: bool = False


@dataclass(frozen=True)
class BarChart(_Titled):
    """One bar per thing, in the order given; ``details`` are further columns of hover text and table."""

    x_label: str
    y_label: str
    labels: tuple[str, ...]
    values: Floats
    marks: tuple[Mark, ...] = ()
    details: Mapping[str, tuple[Cell, ...]] = field(default_factory=dict)
    colour: str = "#0072B2"


@dataclass(frozen=True)
class DotChart(_Titled):
    """Several numbers per row, as dots on a common axis; ``spans`` are error bars, least and most, of some groups.

    ``zero``: it is on the axis, with a line.
    """

    x_label: str
    rows: tuple[str, ...]
    groups: Mapping[str, Floats]
    spans: Mapping[str, tuple[Floats, Floats]] = field(default_factory=dict)
    zero: bool = False


@dataclass(frozen=True)
class HeatMap(_Titled):
    """One or more matrices of the same shape to switch between; zeros and NaN stay blank on a log scale."""

    row_label: str
    column_label: str
    value_label: str
    matrices: Mapping[str, Floats]
    grid_every: int = 0
    log: bool = True


@dataclass(frozen=True)
class Gantt(_Titled):
    """Spans of time on rows; one entry per span in each of the columns.

    Attributes:
        rows: label of each row.
        row: row of each span.
        start: of each span, in the unit of ``x_label``; ``end`` too.
        phase: name of the span, a key of ``colours``.
        slim: whether a span is drawn thin (work on a second lane).
        note: text shown with the span.
        grid_every: rows between separating lines; 0 for none.
    """

    x_label: str
    row_label: str
    rows: tuple[str, ...]
    row: np.ndarray
    start: Floats
    end: Floats
    phase: tuple[str, ...]
    slim: np.ndarray
    note: tuple[str, ...]
    colours: Mapping[str, str]
    grid_every: int = 0


@dataclass(frozen=True)
class Part:
    """One part of every stacked bar."""

    label: str
    kind: str
    colour: str
    values: Floats
    definition: str = ""


@dataclass(frozen=True)
class StackedBars(_Titled):
    """Parts that add up, one bar per row, with a bound drawn on each where there is one."""

    x_label: str
    rows: tuple[str, ...]
    parts: tuple[Part, ...]
    bounds: Floats
    flagged: tuple[bool, ...] = ()

    def totals(self) -> Floats:
        """Length of each bar."""
        total: Floats = np.stack([part.values for part in self.parts]).sum(axis=0)
        return total


@dataclass(frozen=True)
class SmallMultiples(_Titled):
    """The same small bar chart for several things, on one scale; ``mark`` is drawn in each."""

    x_label: str
    y_label: str
    panels: Mapping[str, Floats]
    mark: Mark
    flagged: tuple[bool, ...] = ()

    def top(self) -> float:
        """The common end of the vertical axis."""
        largest = max((float(values.max()) for values in self.panels.values() if len(values)), default=1.0)
        return max(largest, self.mark.value) * 1.05


@cache
def page_words(file: str) -> dict[str, Any]:
    """Read a file of ``templates/`` that holds words of the pages."""
    return tomllib.loads((Path(__file__).parent / "templates" / file).read_text(encoding="utf-8"))


def worded(key: str, **values: Any) -> dict[str, Any]:
    """Return a chart's key and what ``templates/charts.toml`` says of it: title, caption, labels, source.

    ``values`` fill in what stands there in braces.
    """
    words = page_words("charts.toml")[key]
    return {"key": key} | {
        name: text.format(**values) if isinstance(text, str) else text for name, text in words.items()
    }


Chart = LineChart | BarChart | DotChart | HeatMap | Gantt | StackedBars | SmallMultiples


def table_of(chart: Chart) -> DataTable:
    """Return the numbers behind a chart, at most ``TABLE_ROWS`` rows of them."""
    match chart:
        case LineChart():
            columns, rows = _curves(chart)
        case BarChart():
            columns = (chart.x_label, chart.y_label, *chart.details)
            rows = _rows(chart.labels, rounded(chart.values), *chart.details.values())
        case DotChart():
            named = dict(chart.groups)
            for group, (low, high) in chart.spans.items():
                named |= {f"{group}, least": low, f"{group}, most": high}
            columns = ("", *_in_unit(named, chart.x_label))
            rows = _rows(chart.rows, *(rounded(values) for values in named.values()))
        case HeatMap():
            columns, rows = _matrix(chart)
        case Gantt():
            columns = (chart.row_label, "phase", f"start, {chart.x_label}", f"end, {chart.x_label}", "note")
            rows = _rows(
                [chart.rows[row] for row in chart.row],
                chart.phase,
                rounded(chart.start),
                rounded(chart.end),
                chart.note,
            )
        case StackedBars():
            columns = ("", *_in_unit((*(part.label for part in chart.parts), "total", "lower bound"), chart.x_label))
            parts = (rounded(part.values) for part in chart.parts)
            rows = _rows(chart.rows, *parts, rounded(chart.totals()), rounded(chart.bounds))
        case SmallMultiples():
            columns = ("", "highest", "90th percentile", "median", "lowest")
            shares = [
                np.percentile(values, (100, 90, 50, 0)) if len(values) else [0.0] * 4
                for values in chart.panels.values()
            ]
            rows = _rows(chart.panels, *(rounded([share[i] for share in shares]) for i in range(4)))
    if len(rows) <= TABLE_ROWS:
        return DataTable(columns, rows)
    rest = f"The first {TABLE_ROWS:,} of {len(rows):,} rows."
    return DataTable(columns, rows[:TABLE_ROWS], f"{rest} All are in {chart.source}." if chart.source else rest)


def _rows(*columns: Any) -> list[tuple[Cell, ...]]:
    return [tuple(_cell(value) for value in row) for row in zip(*columns, strict=True)]


def _cell(value: Any) -> Cell:
    if isinstance(value, str) or value is None:
        return value
    number = float(value)
    if not np.isfinite(number):
        return None
    return int(number) if number == int(number) and abs(number) < 1e15 else number


def _in_unit(names: Iterable[str], label: str) -> tuple[str, ...]:
    """Column names with the unit at the end of an axis label."""
    unit = UNIT_AT_END.search(label)
    return tuple(f"{name}{unit[0]}" if unit and name and not UNIT_AT_END.search(name) else name for name in names)


def _curves(chart: LineChart) -> tuple[tuple[str, ...], list[tuple[Cell, ...]]]:
    """One column per curve where all share their x, else one row per point with the curve's name."""
    first = chart.series[0].x if chart.series else np.empty(0)
    if any(one.named() for one in chart.series) or any(not np.array_equal(one.x, first) for one in chart.series):
        rows: list[tuple[Cell, ...]] = []
        for one in chart.series:
            names = one.named() or [one.label] * len(one.x)
            rows += _rows(names, rounded(one.x), rounded(one.y))
        return ("series", chart.x_label, chart.y_label), rows
    return (
        (chart.x_label, *_in_unit((one.label for one in chart.series), chart.y_label)),
        _rows(rounded(first), *(rounded(one.y) for one in chart.series)),
    )


def _matrix(chart: HeatMap) -> tuple[tuple[str, ...], list[tuple[Cell, ...]]]:
    """The matrix itself where it is small, else its row and column totals."""
    size = next(iter(chart.matrices.values())).shape[1]
    rows: list[tuple[Cell, ...]] = []
    if size <= _MATRIX_COLUMNS:
        for name, matrix in chart.matrices.items():
            rows += [(name, index, *line) for index, line in enumerate(_rows(*rounded(matrix).T))]
        columns = (f"{chart.row_label} \\ {chart.column_label}", *_in_unit(map(str, range(size)), chart.value_label))
        return _named(columns, rows)
    for name, matrix in chart.matrices.items():
        sums = (rounded(np.nansum(matrix, axis=axis)) for axis in (1, 0))
        rows += [(name, *line) for line in _rows(range(size), *sums)]
    totals = (f"total by {chart.row_label}", f"total by {chart.column_label}")
    return _named(("index", *_in_unit(totals, chart.value_label)), rows)


def _named(columns: tuple[str, ...], rows: list[tuple[Cell, ...]]) -> tuple[tuple[str, ...], list[tuple[Cell, ...]]]:
    """Leave out the first cells of rows, the names of matrices, where there is one without a name."""
    return (("view", *columns), rows) if any(row[0] for row in rows) else (columns, [row[1:] for row in rows])
