"""A page of the comparison: what was simulated against what was published, one self-contained HTML file.

How far every table is off, what misses its bar, what to expect on a cluster that was not calibrated; then two charts
for each table, simulated against published and the error over the message, with every row behind them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from moesim.report import Cell, ChartView, DataTable, DotChart, LineChart, Mark, Quantity, Series, render, view_of
from moesim.validate import clusters_section, statistics
from moesim.validate.causes import cause_after_four, cause_of, reason
from moesim.validate.clusters_left_out import LeftOut
from moesim.validate.error_spread import Spread
from moesim.validate.evaluate_rows import Outcome
from moesim.validate.ledger import FIT
from moesim.validate.published_row import NVL, RDMA, TIME
from moesim.validate.statistics import POOLED_BAR, by_table, counts, fitted
from moesim.validate.unseen import Unseen

_SUSPECT = "suspect"
_KINDS = {"held-out": ("held out", "#0072B2"), FIT: ("fitted", "#D55E00"), _SUSPECT: ("suspect", "#8a8a8a")}
_UNITS = {TIME: "us", RDMA: "GB/s, logical", NVL: "GB/s, logical"}
# The same in SI units, for tables.
_SI = {TIME: (1e-6, "s"), RDMA: (1e9, "B/s"), NVL: (1e9, "B/s")}


@dataclass(frozen=True)
class TableView:
    """A published table on the page: its charts, None where nothing can be drawn, and its rows."""

    name: str
    source: str
    against: ChartView | None
    over: ChartView | None
    rows: DataTable


def page_of(
    outcomes: Sequence[Outcome], elsewhere: Sequence[Unseen], left_out: int = 0, clusters: Sequence[LeftOut] = ()
) -> str:
    """Return the page.

    Args:
        outcomes: rows and what was simulated.
        elsewhere: tables predicted with another source's constants.
        left_out: rows of the ledger that were not read.
        clusters: each predicted by all others; the page leads with them where there are any.
    """
    tables = by_table(outcomes)
    missed: list[tuple[Cell, ...]] = [
        (name, which, _share(spread.median), _share(spread.p90), cause_of(name))
        for name, which, spread in statistics.misses(outcomes)
    ]
    headline, text = _verdict(outcomes, left_out)
    if clusters:
        first, rests_on = clusters_section.verdict(clusters)
        headline, text = first, f"{rests_on}{headline} {text}"
    return render(
        "validation.html.j2",
        title="Published against simulated",
        headline=headline,
        text=text,
        expected=clusters_section.expected_chart(clusters) if clusters else None,
        clusters=clusters_section.clusters_tables(clusters) if clusters else [],
        overview=_overview(tables),
        spreads=_spreads(tables),
        misses=DataTable(("table", "rows", "median", "90th percentile", "cause"), missed),
        unseen=_unseen(elsewhere),
        tables=[_table(f"t{i}", name, rows) for i, (name, rows) in enumerate(tables.items())],
    )


def _verdict(outcomes: Sequence[Outcome], left_out: int) -> tuple[str, str]:
    headline, text = "No row that counts was simulated.", ""
    spread, mean = Spread.of(filter(counts, outcomes)), statistics.mean_over_tables(outcomes, counts)
    if spread is not None and mean is not None:
        headline = (
            f"{spread.rows:,} published figures that took no part in any fit are met within a median of "
            f"{_percent(spread.median)} %; nine in ten within {_percent(spread.p90)} %."
        )
        text = f"Mean over tables {_percent(mean[0])} and {_percent(mean[1])} %, worst row {_percent(spread.worst)} %. "
    spread = Spread.of(filter(fitted, outcomes))
    if spread is not None:
        text += (
            f"Constants were fitted on {spread.rows:,} others, which are off by {_percent(spread.median)} and "
            f"{_percent(spread.p90)} %. "
        )
    text += "Each row is a benchmark simulated end to end, as its author ran it."
    if left_out:
        text += f" {left_out:,} rows of the ledger belong to extracts that were not read for this page."
    return headline, text


def _overview(tables: dict[str, list[Outcome]]) -> ChartView | None:
    spreads = {name: Spread.of(filter(counts, rows)) for name, rows in tables.items()}
    known = {name: spread for name, spread in spreads.items() if spread is not None}
    if not known:
        return None
    return view_of(
        DotChart(
            "overview",
            "How far each table is off",
            "Absolute error of the rows that were held out and are not suspect; aimed at: a median of 4 %, and 10 % "
            "at the 90th percentile.",
            "absolute error (%)",
            tuple(known),
            {
                "median": np.array([100 * spread.median for spread in known.values()]),
                "90th percentile": np.array([100 * spread.p90 for spread in known.values()]),
            },
        )
    )


def _spreads(tables: dict[str, list[Outcome]]) -> DataTable:
    columns = ["table"]
    for name in ("fitted", "large", "small", "suspect"):
        columns += [name, f"{name}, median", f"{name}, 90th percentile"]
    lines = []
    for name, rows in tables.items():
        cells: list[Cell] = [name]
        for group in statistics.groups(rows).values():
            spread = Spread.of(group)
            cells += [len(group), *((None, None) if spread is None else (_share(spread.median), _share(spread.p90)))]
        lines.append(tuple(cells))
    return DataTable(tuple(columns), lines)


def _unseen(elsewhere: Sequence[Unseen]) -> DataTable:
    lines: list[tuple[Cell, ...]] = []
    for one in elsewhere:
        before, after = Spread.of_errors(one.before), Spread.of_errors(one.after)
        lines.append(
            (
                one.what,
                one.calibration,
                before.rows,
                _share(before.median),
                _signed(min(one.before)),
                _signed(max(one.before)),
                len(one.measured),
                _share(after.median),
                _share(after.p90),
                "met" if after.within(POOLED_BAR) else f"missed: {cause_after_four(one.what)}",
            )
        )
    return DataTable(
        (
            "table", "constants", "rows", "median", "least", "most", "calibrated on", "then median",
            "90th percentile", "bar of 4 and 10 %",
        ),
        lines,
    )  # fmt: skip


def _table(key: str, name: str, rows: Sequence[Outcome]) -> TableView:
    first = rows[0].row
    lines: list[tuple[Cell, ...]] = [
        (
            outcome.row.key,
            outcome.row.quantity,
            _in_si(outcome.row.published, outcome.row.quantity),
            _in_si(outcome.simulated, outcome.row.quantity),
            None if outcome.error is None else _signed(outcome.error),
            _kind(outcome),
            reason(outcome),
        )
        for outcome in rows
    ]
    table = DataTable(("row", "quantity", "published", "simulated", "error", "role", "reason"), lines)
    drawn = [outcome for outcome in rows if outcome.simulated is not None and outcome.simulated > 0]
    against = view_of(_against(key, drawn)) if len(drawn) > 1 else None
    return TableView(
        name,
        f"{first.source}, {first.gpu}",
        None if against is None else replace(against, table=table),
        view_of(_over(key, drawn)) if len(drawn) > 1 else None,
        table,
    )


def _against(key: str, rows: Sequence[Outcome]) -> LineChart:
    values = [value for outcome in rows for value in (outcome.row.published, outcome.simulated or 0.0)]
    ends = np.array([min(values), max(values)])
    unit = ", ".join(dict.fromkeys(_UNITS.get(outcome.row.quantity, outcome.row.quantity) for outcome in rows))
    clouds = _clouds(rows, [outcome.row.published for outcome in rows], [outcome.simulated or 0.0 for outcome in rows])
    return LineChart(
        f"{key}-against",
        "Simulated against published",
        "On the dashed line the error is 0.",
        f"published, {unit}",
        f"simulated, {unit}",
        (*clouds, Series("no error", ends, ends, "#8a8a8a", "dashed")),
        log_x=True,
        log_y=True,
    )


def _over(key: str, rows: Sequence[Outcome]) -> LineChart:
    tokens, ranks = ([getattr(outcome.row, name) for outcome in rows] for name in ("tokens", "ranks"))
    over_ranks = len(set(ranks)) > len(set(tokens))
    size = "ranks" if over_ranks else "bytes per rank" if rows[0].row.op == "alltoall" else "tokens per rank"
    errors = [100 * (outcome.error or 0.0) for outcome in rows]
    return LineChart(
        f"{key}-over",
        f"Error over {size}",
        "Above 0 the simulation is slower than the measurement where a time was published, faster where a bandwidth "
        "was.",
        size,
        "error (%)",
        _clouds(rows, [max(value, 1) for value in (ranks if over_ranks else tokens)], errors),
        marks=(Mark("-10 %", -10.0), Mark("+10 %", 10.0)),
        log_x=True,
    )


def _clouds(rows: Sequence[Outcome], x: Sequence[float], y: Sequence[float]) -> tuple[Series, ...]:
    """The points, one series for each role that rows have."""
    clouds = []
    for kind, (label, colour) in _KINDS.items():
        chosen = [i for i, outcome in enumerate(rows) if _kind(outcome) == kind]
        if chosen:
            places = np.array([[x[i], y[i]] for i in chosen], dtype=np.float64)
            hints = tuple(rows[i].row.key for i in chosen)
            clouds.append(Series(label, places[:, 0], places[:, 1], colour, "points", hints=hints))
    return tuple(clouds)


def _kind(outcome: Outcome) -> str:
    return _SUSPECT if outcome.entry.suspect else outcome.entry.role


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _share(value: float) -> Quantity:
    return Quantity(value, "%", text=f"{_percent(value)} %")


def _signed(value: float) -> Quantity:
    return Quantity(value, "%", text=f"{100 * value:+.1f} %")


def _in_si(value: float | None, quantity: str) -> Quantity:
    factor, unit = _SI.get(quantity, (1.0, ""))
    return Quantity(None if value is None else value * factor, unit)
