"""The report of a sweep: the best point in words, the maps to look it up in, and the command that runs any point."""

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from moesim.report.charts import Cell, DataTable
from moesim.report.embedding import script_json
from moesim.report.page import render, view_of
from moesim.report.quantities import ABSENT, is_share, named_quantity, quantity, rounded
from moesim.report.run_page import Verdict
from moesim.report.sweep_charts import axis_charts, pareto_charts, scaling_charts
from moesim.report.sweep_data import WORDS, SweepData, in_words, short_key
from moesim.report.sweep_maps import HeatMaps, heat_maps
from moesim.results.definitions import SUMMARY

# Rows of the table of points; the rest is in points.parquet.
TABLE_ROWS = 1000
_REASONS = 20

_SECTIONS = [
    ("first", "Result"),
    ("axes", "Axes"),
    ("trade-off", "Trade-offs"),
    ("points", "Points"),
    ("glossary", "Glossary"),
]


class PointRow(NamedTuple):
    """One point in the table: text and sortable value of each cell, and ``key=value`` words to filter by."""

    point: int
    kind: str
    words: str
    cells: list[tuple[str, str]]


class Column(NamedTuple):
    """A column of the table of points: heading, meaning, whether it holds words."""

    name: str
    text: str
    words: bool


def render_sweep(data: SweepData) -> str:
    """Write the page of a finished sweep.

    Args:
        data: axes, points and the answer to the objective.

    Returns:
        The page: no other file or network needed, the same bytes for the same sweep.
    """
    maps = heat_maps(data)
    listed = [int(point) for point in data.order[:TABLE_ROWS]]
    # A point that ran tells more than one that could not, where no point is the best.
    chosen = data.anchor
    shown = {*listed, chosen, *(_points_of(maps) if maps else ())}
    details = {point: _details(data, point) for point in sorted(shown)}
    what_if = sum(_is_what_if(data, point) for point in range(len(data.status)))
    return render(
        "sweep.html.j2",
        title=data.title,
        sections=[one for one in _SECTIONS if one[0] != "axes" or any(len(axis.values) > 1 for axis in data.axes)],
        chips=_chips(data),
        verdict=sweep_verdict(data),
        what_if=what_if,
        best_what_if=data.best is not None and _is_what_if(data, data.best),
        ran=data.status.count("ok"),
        maps=maps,
        word=in_words(data.key),
        better="more is better" if data.larger_is_better else "less is better",
        detail_fields=_detail_fields(data),
        detail=details[chosen],
        chosen=chosen,
        best=data.best,
        details=Markup(script_json({str(point): row for point, row in details.items()})),  # noqa: S704 - escaped
        axis_charts=[view_of(chart) for chart in axis_charts(data)],
        effects=_effects(data),
        pareto=[view_of(chart) for chart in pareto_charts(data)],
        scaling=[view_of(chart) for chart in scaling_charts(data)],
        columns=_columns(data),
        rows=[_row(data, point) for point in listed],
        left_out=len(data.status) - len(listed),
        reasons=_reasons(data),
    )


def sweep_verdict(data: SweepData) -> Verdict:
    """Say which point is best, what the limits cost, and which axis matters most."""
    if not np.isfinite(data.cost).any():
        return Verdict("No point has a result.", f"{_counted(data)}. The reasons are below.")
    parts = []
    if data.best is None:
        nearest = _value(data, data.anchor)
        headline = f"No point keeps the limits of: {data.objective}."
        missed = _broken(data, data.anchor)
        parts.append(
            f"Without them the best is point {data.anchor} ({data.told(data.anchor)}): {nearest}; it {missed}."
        )
    else:
        headline = f"Best: {data.told(data.best)}."
        parts.append(f"{_capital(in_words(data.key))} {_value(data, data.best)}, point {data.best}.")
        parts += _price_of_limits(data)
    strongest = next((effect for effect in data.effects if effect.at_best), None)
    if strongest is not None and strongest.at_best is not None:
        short = next((axis.short for axis in data.axes if axis.name == strongest.axis), strongest.axis)
        held = ", the others as at the best point" if len(data.effects) > 1 else ""
        parts.append(
            f"The strongest axis is {short}: {strongest.most} instead of {strongest.least} is "
            f"{_against(strongest.at_best, data.larger_is_better)}{held}."
        )
    return Verdict(headline, " ".join(parts))


def _against(excess: float, larger_is_better: bool) -> str:
    """Say how the value of most cost compares with that of least."""
    if larger_is_better:
        return f"{quantity(1 - 1 / (1 + excess), '%')} less"
    return f"{1 + excess:.3g} times as much" if excess >= 1 else f"{quantity(excess, '%')} more"


def _price_of_limits(data: SweepData) -> list[str]:
    known = np.isfinite(data.cost)
    if not data.limits:
        return []
    out = int((known & ~data.within).sum())
    limits = " and ".join(data.limits)
    if not out:
        return [f"Every point keeps {limits}."]
    first = min(np.flatnonzero(known), key=lambda point: (data.cost[point], point))
    text = f"{limits} excludes {out:,} of {int(known.sum()):,} points"
    if data.best is None or data.cost[first] >= data.cost[data.best]:
        return [f"{text}, none of them better."]
    return [
        f"{text}; the best of them, point {first} ({data.told(int(first))}), would be {_value(data, int(first))} but "
        f"{_broken(data, int(first))}."
    ]


def _value(data: SweepData, point: int) -> str:
    return named_quantity(data.key, data.column(data.key)[point])


def _broken(data: SweepData, point: int) -> str:
    """Say which limits a point does not keep, and its numbers there."""
    broken = [limit for limit, holds in data.limits.items() if not holds[point]]
    return "breaks " + " and ".join(f"{limit} ({_found(data, limit.split()[0], point)})" for limit in broken)


def _found(data: SweepData, key: str, point: int) -> str:
    """A number as one writes it in a limit: a share as a fraction."""
    value = float(data.column(key)[point])
    if not np.isfinite(value):
        return "does not apply"
    return f"{value:.3g}" if is_share(key) else named_quantity(key, value)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _counted(data: SweepData) -> str:
    counts = Counter(data.status)
    words = {"ok": "ok", "failed": "failed", "impossible": "impossible"}
    return ", ".join(f"{counts[status]:,} {word}" for status, word in words.items() if counts[status])


def _chips(data: SweepData) -> list[str]:
    axes = [f"{axis.short}: {len(axis.values)} values" for axis in data.axes]
    return [f"{len(data.status):,} points: {_counted(data)}", f"objective: {data.objective}", *axes]


def _points_of(maps: HeatMaps) -> Iterable[int]:
    return (cell.point for panel in maps.panels for _, line in panel.rows for cell in line if cell.point >= 0)


def _kind(data: SweepData, point: int) -> str:
    """Best, front, ok, over (breaks a limit), failed or impossible."""
    if point == data.best:
        return "best"
    if data.status[point] != "ok":
        return data.status[point]
    if not data.within[point]:
        return "over"
    return "front" if point in data.front else "ok"


def _status(data: SweepData, point: int) -> str:
    kind = _kind(data, point)
    words = {"best": "★ best", "front": "on the front", "ok": "within the limits" if data.limits else "ok"}
    if kind == "over":
        text = _broken(data, point) if np.isfinite(data.cost[point]) else f"no {data.key}"
    else:
        text = words.get(kind, kind)
    return f"{text}; what-if" if _is_what_if(data, point) else text


def _is_what_if(data: SweepData, point: int) -> bool:
    """Whether a point's router is not the one that its logits were trained with."""
    return (
        data.status[point] == "ok" and "counterfactual" in data.columns and bool(data.columns["counterfactual"][point])
    )


def _detail_fields(data: SweepData) -> list[tuple[str, str]]:
    """Heading and meaning of every line of a point's summary."""
    keys = [(key, "axis of the sweep") for axis in data.axes for key in axis.keys]
    return [
        *keys,
        *((in_words(key), SUMMARY[key].text) for key in _keys(data)),
        ("bottleneck", SUMMARY["bottleneck"].text),
    ]


def _keys(data: SweepData) -> list[str]:
    return [key for key in dict.fromkeys((data.key, *WORDS)) if key in data.columns]


def _details(data: SweepData, point: int) -> list[str]:
    """Texts of a point's card: title, status, error, command, then one per field."""
    values = [value for axis, place in zip(data.axes, data.places[point], strict=True) for value in axis.values[place]]
    ok = data.status[point] == "ok"
    numbers = [named_quantity(key, data.column(key)[point]) for key in _keys(data)]
    bottleneck = str(data.columns["bottleneck"][point]) if ok else ABSENT
    error = data.columns["error"][point]
    command = data.command(point) if data.status[point] != "impossible" else ""
    return [
        f"Point {point}",
        _status(data, point),
        "" if error is None or ok else str(error),
        command,
        *values,
        *numbers,
        bottleneck,
    ]


def _columns(data: SweepData) -> list[Column]:
    axes = [Column(short_key(key), key, axis.numbers is None) for axis in data.axes for key in axis.keys]
    numbers = [Column(in_words(key), SUMMARY[key].text, False) for key in _keys(data)]
    return [
        Column("point", "number of the point", False),
        *axes,
        *numbers,
        Column("status", "whether it ran and keeps the limits", True),
        Column("bottleneck", SUMMARY["bottleneck"].text, True),
    ]


def _row(data: SweepData, point: int) -> PointRow:
    pairs = [
        (key, value)
        for axis, place in zip(data.axes, data.places[point], strict=True)
        for key, value in zip(axis.keys, axis.values[place], strict=True)
    ]
    numbers = [
        (named_quantity(key, value), _plain(value)) for key in _keys(data) for value in (data.column(key)[point],)
    ]
    bottleneck = data.columns["bottleneck"][point]
    status = _status(data, point)
    return PointRow(
        point=point,
        kind=_kind(data, point),
        words="\n".join(f"{key}={value}" for key, value in pairs),
        cells=[
            *((value, value) for _, value in pairs),
            *numbers,
            (status, status),
            (ABSENT if bottleneck is None else str(bottleneck), "" if bottleneck is None else str(bottleneck)),
        ],
    )


def _plain(value: float) -> str:
    """A number as a spreadsheet takes it, in SI units."""
    return f"{float(rounded([value])[0]):.5g}" if np.isfinite(value) else ""


def _effects(data: SweepData) -> DataTable:
    rows: list[tuple[Cell, ...]] = [
        (effect.axis, effect.best, effect.least, effect.most, _change(effect.at_best), _change(effect.marginal))
        for effect in data.effects
    ]
    columns = (
        "axis",
        "at the best point",
        "least cost at",
        "most cost at",
        "increase, others at best",
        "increase of medians",
    )
    return DataTable(columns, rows)


def _change(change: float | None) -> Cell:
    return None if change is None else quantity(change, "%")


def _reasons(data: SweepData) -> DataTable | None:
    """Why points failed or are impossible, each reason once."""
    seen: dict[tuple[str, str], list[int]] = {}
    for point, status in enumerate(data.status):
        if status != "ok":
            seen.setdefault((status, str(data.columns["error"][point] or "")), []).append(point)
    if not seen:
        return None
    rows: list[tuple[Cell, ...]] = [
        (status, why, len(points), data.told(points[0])) for (status, why), points in seen.items()
    ]
    left_out = f"And {len(rows) - _REASONS} more reasons: see the table." if len(rows) > _REASONS else ""
    return DataTable(("status", "reason", "points", "such as"), rows[:_REASONS], left_out)
