"""Comparisons as text on a terminal."""

import json
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from moesim.cli.show import console, table, text, with_unit
from moesim.report.comparison import critical_words
from moesim.report.comparison_charts import noise_sentence
from moesim.results.definitions import Value

if TYPE_CHECKING:
    from moesim.report import Comparison
    from moesim.report.compare_sweeps import SweepComparison
    from moesim.report.comparison import Band, ComparisonRow, Interval

_MOST_POINTS = 20


def print_comparison(comparison: "Comparison", as_json: bool) -> None:
    """Print the numbers of two runs that differ, or that vary over the seeds."""
    if as_json:
        print(json.dumps(asdict(comparison), indent=1, allow_nan=False))
        return
    noisy = any(row.a_band is not None for row in comparison.rows)
    shown = [row for row in comparison.rows if (row.a != row.b and row.verdict != "same") or _varies(row)]
    first, second = comparison.labels
    columns = ("number", first, second, "change", "")
    rows = [(row.key, _value(row.key, row.a, row.a_interval), _value(row.key, row.b, row.b_interval),
             _percent(row.delta_percent), row.verdict) for row in shown]  # fmt: skip
    ranks = [critical_words(ranks) for ranks in comparison.critical_ranks]
    console().print(f"critical: {ranks[0]} ({first}), {ranks[1]} ({second})", soft_wrap=True)
    if not noisy:
        console().print(table("", columns, rows))
        return
    console().print(noise_sentence(comparison), soft_wrap=True)
    bands = [(_band(row.key, row.a_band), _band(row.key, row.b_band)) for row in shown]
    wide = [(row[0], row[1], a, row[2], b, *row[3:]) for row, (a, b) in zip(rows, bands, strict=True)]
    seeds = "least .. most (median)"
    console().print(table("", (columns[0], first, seeds, second, seeds, "change", ""), wide))


def _value(key: str, value: float | None, interval: "Interval | None") -> str:
    return Value(value, *(interval or ())).words(lambda number: with_unit(key, number))


def _varies(row: "ComparisonRow") -> bool:
    return any(band is not None and not band.is_one_value for band in (row.a_band, row.b_band))


def _band(key: str, band: "Band | None") -> str:
    if band is None or band.is_one_value:
        return "-"
    return f"{with_unit(key, band.low)} .. {with_unit(key, band.high)} ({with_unit(key, band.median)})"


def _percent(change: float | None) -> str:
    return "-" if change is None else f"{change:+.2f} %"


def values_in_words(values: dict[str, Any]) -> str:
    """Write the values of a point as one would type them."""
    return ", ".join(f"{key}={text(value)}" for key, value in values.items()) or "the one point"


def print_sweep_comparison(comparison: "SweepComparison", as_json: bool) -> None:
    """Print how many points changed in each number, and where the layer time changed most."""
    if as_json:
        print(json.dumps(asdict(comparison), indent=1, allow_nan=False))
        return
    out, (first, second) = console(), comparison.labels
    only = [f"{n} only in {label}" for n, label in zip(comparison.only, comparison.labels, strict=True) if n]
    lost = [f"{len(comparison.lost)} failed in {second}"] if comparison.lost else []
    out.print(", ".join([f"{len(comparison.points)} points in both", *only, *lost]), soft_wrap=True)
    verdicts = ("worse", "better", "traded", "neutral", "within noise")
    counts: dict[str, Counter[str]] = {}
    worst: dict[str, tuple[float, str]] = {}
    for point in comparison.points:
        for row in point.rows:
            if row.a != row.b and row.verdict != "same":
                counts.setdefault(row.key, Counter())[row.verdict] += 1
                change = abs(row.delta_percent or 0.0)
                if change > worst.get(row.key, (-1.0, ""))[0]:
                    worst[row.key] = (change, f"{_percent(row.delta_percent)} at {values_in_words(point.values)}")
    if not counts:
        out.print("no number differs")
        return
    rows = [(key, *(counts[key][verdict] or "-" for verdict in verdicts), worst[key][1]) for key in counts]
    out.print(table("points by what became of a number", ("number", *verdicts, "most changed"), rows))
    times = [(point.values, point.row("layer_time_s")) for point in comparison.points]
    found = [(values, time) for values, time in times if time is not None]
    found.sort(key=lambda one: -abs(one[1].delta_percent or 0.0))
    lines = [
        (
            *(text(value) for value in values.values()),
            with_unit(row.key, row.a),
            with_unit(row.key, row.b),
            _percent(row.delta_percent),
            row.verdict,
        )
        for values, row in found[:_MOST_POINTS]
        if row.a != row.b
    ]
    out.print(table("layer time, most changed first", (*comparison.axes, first, second, "change", ""), lines))
