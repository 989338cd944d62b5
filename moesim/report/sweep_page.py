"""The report of a sweep: the best point in words, the maps to look it up in, and the command that runs any point."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from moesim.report.data_table import Cell, DataTable, Quantity
from moesim.report.named_numbers import in_words
from moesim.report.page import render, script_json, view_of
from moesim.report.quantities import ABSENT
from moesim.report.static import figure_files
from moesim.report.sweep_answer import broken, groups_table, sweep_verdict
from moesim.report.sweep_charts import axis_charts, group_charts, number_charts, pareto_charts, scaling_charts
from moesim.report.sweep_data import RAN, SHOWN, SweepData, short_key
from moesim.report.sweep_maps import HeatMaps, heat_maps, map_files
from moesim.results import DEFINITIONS

# Rows of the table of points; the rest is in points.parquet.
TABLE_ROWS = 1000
_REASONS = 20


class PointRow(NamedTuple):
    """What the table of points has of a point beside its cells: the kind, and ``key=value`` words to filter by."""

    point: int
    kind: str
    words: str


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
    return render(
        "sweep.html.j2",
        title=data.title,
        heading=data.question or f"{'Plan' if data.said else 'Sweep'} of {data.title}",
        varied=any(len(axis.values) > 1 for axis in data.axes),
        chips=_chips(data),
        verdict=sweep_verdict(data),
        what_if=_what_if(data),
        maps=maps,
        word=in_words(data.key),
        better="more is better" if data.larger_is_better else "less is better",
        detail_fields=_detail_fields(data),
        detail=details[chosen],
        chosen=chosen,
        starred=data.starred,
        best=data.best,
        details=Markup(script_json({str(point): row for point, row in details.items()})),  # noqa: S704 - escaped
        axis_charts=[view_of(chart) for chart in axis_charts(data)],
        curves=[(name, held, [view_of(chart) for chart in charts]) for name, held, charts in number_charts(data)],
        effects=_effects(data),
        groups=groups_table(data),
        limited=bool(data.limits),
        group_names=" and ".join(data.axes[a].short for a in data.per),
        group_charts=[view_of(chart) for chart in group_charts(data)],
        pareto=[view_of(chart) for chart in pareto_charts(data)],
        scaling=[view_of(chart) for chart in scaling_charts(data)],
        table=points_table(data, listed, data.numbers),
        rows=[PointRow(point, _kind(data, point), _pairs(data, point)) for point in listed],
        left_out=len(data.status) - len(listed),
        reasons=_reasons(data),
    )


def sweep_figures(data: SweepData) -> dict[str, bytes]:
    """Draw the map and every chart of the page as files: ``figures/<chart>.svg`` and ``.png``."""
    curves = [chart for _, _, charts in number_charts(data) for chart in charts]
    charts = [*axis_charts(data), *group_charts(data), *pareto_charts(data), *scaling_charts(data), *curves]
    return map_files(data) | figure_files(charts)


def _chips(data: SweepData) -> list[str]:
    axes = [f"{axis.short}: {len(axis.values)} values" for axis in data.axes]
    return [
        *([data.title] if data.question else []),
        f"{len(data.status):,} points: {data.counted()}",
        f"objective: {data.objective}",
        *axes,
    ]


def _points_of(maps: HeatMaps) -> Iterable[int]:
    return (cell.point for panel in maps.panels for _, line in panel.rows for cell in line if cell.point >= 0)


def _kind(data: SweepData, point: int) -> str:
    """Best, front, ok, over (breaks a limit), failed or impossible."""
    if point in data.starred:
        return "best"
    if data.status[point] not in RAN:
        return data.status[point]
    if not data.within[point]:
        return "over"
    return "front" if point in data.front else "ok"


def _status(data: SweepData, point: int) -> str:
    kind = _kind(data, point)
    best = "★ best" if point == data.best else "★ best of its kind"
    words = {"best": best, "front": "on the front", "ok": "within the limits" if data.limits else "ok"}
    if kind == "over":
        text = broken(data, point) if np.isfinite(data.cost[point]) else f"no {data.key}"
    else:
        text = words.get(kind, kind)
    if data.status[point] == "estimated":
        text += "; only estimated"
    return f"{text}; what-if" if _is_what_if(data, point) else text


def _is_what_if(data: SweepData, point: int) -> bool:
    """Whether a point's router is not the one that its logits were trained with."""
    return (
        data.status[point] == "ok" and "counterfactual" in data.columns and bool(data.columns["counterfactual"][point])
    )


# Sections of a scenario that decide where tokens go.
_OF_ROUTING = ("routing", "model", "workload", "placement")


def _what_if(data: SweepData) -> str:
    """Say which points are counterfactual, in which numbers, and whether the best is one; empty where none is."""
    ran = [point for point, status in enumerate(data.status) if status == "ok"]
    flags = np.array([_is_what_if(data, point) for point in ran], bool)
    if not flags.any():
        return ""
    what = (
        "a router on logits that were trained with another one. What-if is where tokens go (loads, copies, bytes, gate "
        "mass, losses) and what follows from it for the times"
    )
    if flags.all():
        routed = [axis.short for axis in data.axes if any(key.split(".")[0] in _OF_ROUTING for key in axis.keys)]
        if not routed:
            return f"All points alike: {what}. It is the same at every point, so no difference comes from it."
        return f"All {len(ran)} points: {what}. The answer compares what-ifs."
    whom = f"{int(flags.sum())} of {len(ran)} points"
    for axis, places in zip(data.axes, data.places[ran].T, strict=True):
        of_them = np.unique(places[flags])
        if not np.isin(places[~flags], of_them).any():
            whom += f", those with {' or '.join(axis.named(int(place)) for place in of_them)}"
            break
    best = ""
    if data.best is not None:
        best = f" The best point is {'one of them' if _is_what_if(data, data.best) else 'none of them'}."
    return f"{whom}: {what}.{best}"


def _detail_fields(data: SweepData) -> list[tuple[str, str]]:
    """Heading and meaning of every line of a point's summary."""
    keys = [(key, "axis of the sweep") for axis in data.axes for key in axis.keys]
    return [
        *keys,
        *((in_words(key), DEFINITIONS[key].text) for key in card_keys(data)),
        ("bottleneck", DEFINITIONS["bottleneck"].text),
    ]


def card_keys(data: SweepData) -> list[str]:
    """Numbers of a point's card, the objective first."""
    return [key for key in data.numbers if key in (data.key, *SHOWN)]


def _details(data: SweepData, point: int) -> list[str]:
    """Texts of a point's card: title, status, error, command, then one per field."""
    values = [value for axis, place in zip(data.axes, data.places[point], strict=True) for value in axis.values[place]]
    ok = data.status[point] in RAN
    numbers = [data.cell(key, point).words() for key in card_keys(data)]
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


def points_table(data: SweepData, listed: list[int], numbers: Sequence[str]) -> DataTable:
    """The points in the order given, and these numbers of each."""
    keys = [key for axis in data.axes for key in axis.keys]
    columns = [
        ("point", "number of the point"),
        *((short_key(key), key) for key in keys),
        *((in_words(key), DEFINITIONS[key].text) for key in numbers),
        ("status", "whether it ran and keeps the limits"),
        ("bottleneck", DEFINITIONS["bottleneck"].text),
    ]
    rows: list[tuple[Cell, ...]] = []
    for point in listed:
        axes = [axis.cells(int(place)) for axis, place in zip(data.axes, data.places[point], strict=True)]
        bottleneck = data.columns["bottleneck"][point]
        rows.append((
            point,
            *(cell for cells in axes for cell in cells),
            *(data.cell(key, point) for key in numbers),
            _status(data, point),
            None if bottleneck is None else str(bottleneck),
        ))  # fmt: skip
    return DataTable(tuple(name for name, _ in columns), rows, hints=tuple(hint for _, hint in columns))


def _pairs(data: SweepData, point: int) -> str:
    """Every axis' key with its value, in full, a line each."""
    places = zip(data.axes, data.places[point], strict=True)
    pairs = [pair for axis, place in places for pair in zip(axis.keys, axis.values[place], strict=True)]
    return "\n".join(f"{key}={value}" for key, value in pairs)


def _effects(data: SweepData) -> DataTable:
    told = {axis.name: " + ".join(axis.told_keys) for axis in data.axes}
    rows: list[tuple[Cell, ...]] = [
        (told.get(one.axis, one.axis), *one[1:4], _change(one.at_best), _change(one.marginal)) for one in data.effects
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
    return None if change is None else Quantity(change, "%")


def _reasons(data: SweepData) -> DataTable | None:
    """Why points failed or are impossible, each reason once."""
    seen: dict[tuple[str, str], list[int]] = {}
    for point, status in enumerate(data.status):
        if status not in RAN:
            seen.setdefault((status, str(data.columns["error"][point] or "")), []).append(point)
    if not seen:
        return None
    rows: list[tuple[Cell, ...]] = [
        (status, why, len(points), data.label(points[0])) for (status, why), points in seen.items()
    ]
    left_out = f"And {len(rows) - _REASONS} more reasons: see the table." if len(rows) > _REASONS else ""
    return DataTable(("status", "reason", "points", "such as"), rows[:_REASONS], left_out)
