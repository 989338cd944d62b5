"""Charts that set several runs side by side, and what differs between two beyond the noise of their seeds."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from moesim.report.balance_charts import overlaid_training, training_fingerprint
from moesim.report.charts import Chart, DotChart, LineChart, Mark, Series, SmallMultiples, worded
from moesim.report.comparison import Band, Comparison, ComparisonRow
from moesim.report.data_table import Cell, DataTable, Quantity
from moesim.report.named_numbers import DRAWN, LOSSES, Drawn, scaled
from moesim.report.palette import series_colour
from moesim.report.quantities import Floats, axis_scale, filled, quantity
from moesim.report.rank_times import rank_times_of_runs
from moesim.report.time_charts import time_chart
from moesim.report.traffic_charts import sorted_expert_load
from moesim.results import Result


def changed_keys(scenario: str, other: str) -> list[tuple[str, str, str]]:
    """Compare two resolved scenarios.

    ``scenario``: YAML of the run to compare with; ``other``: YAML of the run in question. Returns ``(dotted key, value,
    other value)`` of each key that differs, ``-`` where a scenario lacks it; the name is left out.
    """
    left, right = dict(_leaves(_read(scenario), "")), dict(_leaves(_read(other), ""))
    keys = sorted({*left, *right} - {"name"})
    return [(key, left.get(key, "-"), right.get(key, "-")) for key in keys if left.get(key) != right.get(key)]


def recording_name(scenario: str) -> str:
    """Name of the recording that a resolved scenario draws its logits from; empty where it has none."""
    workload = _read(scenario).get("workload") or {}
    recording = workload.get("recording") or {}
    return str(recording.get("name", ""))


def workload_of(scenario: str) -> str:
    """The workload section of a resolved scenario as text: equal for runs on the same tokens."""
    return repr(list(_leaves(_read(scenario).get("workload"), "")))


def _read(text: str) -> dict[str, Any]:
    from ruamel.yaml import YAML

    content = YAML(typ="safe", pure=True).load(text)
    return content if isinstance(content, dict) else {}


def _leaves(value: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for name, entry in value.items():
            yield from _leaves(entry, f"{key}.{name}" if key else str(name))
    else:
        yield key, str(value)


# Points closer than this share of the axes have their labels on each other.
_APART = 0.09

Runs = Sequence[tuple[str, Result]]


def comparison_charts(runs: Runs) -> dict[str, Chart | None]:
    """Every chart of a comparing page but the training curves, by its key."""
    return {
        "time": time_chart(runs),
        **{drawn.key: _drawn(runs, drawn) for drawn in DRAWN},
        "losses": _losses(runs),
        "copies": DotChart(
            **worded("copies"),
            rows=tuple(name for name, _ in runs),
            groups={
                name: _values(runs, key)
                for name, key in (
                    ("selections", "copies_per_token"),
                    ("ranks", "rank_copies_per_token"),
                    ("nodes", "node_copies_per_token"),
                )
            },
        ),
        "rank_times": rank_times_of_runs(runs),
        "trade_off": _trade_off(runs),
        "expert_loads": SmallMultiples(
            **worded("expert_loads"),
            panels={name: sorted_expert_load(run) for name, run in runs},
            mark=Mark("mean", 1.0),
            flagged=tuple(bool(run.summary["counterfactual"]) for _, run in runs),
        ),
    }


def same_in_all(chart: Chart | None) -> bool:
    """Whether a chart shows the same numbers for each of several runs, up to rounding."""
    match chart:
        case DotChart():
            values = [v for v in chart.groups.values() if np.isfinite(v).all()]
            return len(chart.rows) > 1 and len(values) == len(chart.groups) and all(map(_is_one_value, values))
        case SmallMultiples():
            panels = list(chart.panels.values())
            alike = len({len(panel) for panel in panels}) == 1
            return len(panels) > 1 and alike and all(map(_is_one_value, np.array(panels).T))
        case _:
            return False


def _is_one_value(values: Floats) -> bool:
    return bool(np.ptp(values) <= 1e-9 * np.abs(values).max())


def training_overlays(runs: Runs) -> list[LineChart]:
    """Training curves, one per recording: variants of the same recording share theirs."""
    chosen: dict[bytes, list[tuple[str, Result]]] = {}
    for name, run in runs:
        fingerprint = training_fingerprint(run)
        if fingerprint:
            chosen.setdefault(fingerprint, []).append((name, run))
    named = {}
    for group in chosen.values():
        name, run = next((one for one in group if not one[1].summary["counterfactual"]), group[0])
        named[recording_name(run.scenario_yaml) or name] = run
    return overlaid_training(named)


def _values(runs: Runs, key: str) -> Floats:
    return filled([run.summary.get(key) for _, run in runs])


def _drawn(runs: Runs, drawn: Drawn) -> DotChart | None:
    groups, label = scaled(drawn, lambda key: _values(runs, key))
    return _dots(runs, drawn, label, groups) if groups else None


def _dots(runs: Runs, drawn: Drawn, label: str, groups: dict[str, Floats]) -> DotChart:
    rows = tuple(name for name, _ in runs)
    return DotChart(drawn.key, drawn.title, drawn.caption, label, rows, groups, source="summary.json")


def _losses(runs: Runs) -> DotChart | None:
    groups = {}
    for key, words in LOSSES.numbers.items():
        even = filled([run.explanation["losses_in_balance"].get(key) or None for _, run in runs])
        values = _values(runs, key) / even
        if np.isfinite(values).any():
            groups[words] = values
    if not groups:
        return None
    groups["perfect balance"] = np.ones(len(runs))
    return _dots(runs, LOSSES, LOSSES.label, groups)


def _trade_off(runs: Runs) -> LineChart | None:
    """Layer time against what the group limit costs, the M of one router joined by a line."""
    families: dict[tuple[str, str, int], list[tuple[int, str, Result]]] = {}
    for name, run in runs:
        router = run.explanation["router"]
        if run.summary["gate_mass_lost"] is None:
            continue
        family = (str(router["kind"]), workload_of(run.scenario_yaml), int(router["n_groups"]))
        families.setdefault(family, []).append((int(router["top_groups"]), name, run))
    if not any(len({limit for limit, *_ in members}) > 1 for members in families.values()):
        return None
    times = np.array([float(run.summary["layer_time_s"]) for _, run in runs])
    scale, unit = axis_scale(times, "s")
    series = []
    for position, ((kind, _, _), unsorted) in enumerate(families.items()):
        members = sorted(unsorted, key=lambda member: member[:2])
        limits = {limit for limit, *_ in members}
        lost = np.array([100 * float(run.summary["gate_mass_lost"]) for *_, run in members])
        time = np.array([float(run.summary["layer_time_s"]) / scale for *_, run in members])
        swept = len(limits) > 1 and len(limits) == len(members)
        labels = _spread_labels([limit for limit, *_ in members], lost, time)
        label = f"{kind.upper()}, by M" if swept else ", ".join(name for _, name, _ in members)
        series.append(
            Series(label, lost, time, series_colour(position), "line" if swept else "points", labels if swept else ())
        )
    return LineChart(**worded("trade_off", unit=unit), series=tuple(series))


def _spread_labels(limits: list[int], x: Floats, y: Floats) -> tuple[str, ...]:
    """Name the points of a line by their M; points that lie on each other share the first one's label."""
    apart = np.hypot(np.diff(x) / max(float(np.ptp(x)), 1e-12), np.diff(y) / max(float(np.ptp(y)), 1e-12)) > _APART
    heads = [0, *(np.flatnonzero(apart) + 1).tolist(), len(limits)]
    labels = [""] * len(limits)
    for first, after in pairwise(heads):
        labels[first] = f"M = {limits[first]}" + (f" to {limits[after - 1]}" if after - first > 1 else "")
    return tuple(labels)


_HEADLINE = "layer_time_s"


def noise_sentence(comparison: Comparison) -> str:
    """State whether the layer time changed by more than the noise of the seeds."""
    row = next(row for row in comparison.rows if row.key == _HEADLINE)
    first, second = comparison.labels
    if row.a_band is None or row.b_band is None:
        return f"The layer time of {second} has no noise band."
    noise = (
        f"the noise of {row.a_band.runs} seeds ({first} {_span(row, row.a_band)}, {second} {_span(row, row.b_band)})"
    )
    if row.a == row.b:
        return f"The layer time of {second} is that of {first}: {quantity(row.b, row.unit)}; {noise}."
    change = f"The layer time of {second} is {_change(row)} than that of {first}"
    return f"{change}, within {noise}." if row.verdict == "within noise" else f"{change}, outside {noise}."


def _change(row: ComparisonRow) -> str:
    if row.delta_percent is None:
        return "different"
    return f"{abs(row.delta_percent):.3g} % {'more' if row.delta_percent > 0 else 'less'}"


def _span(row: ComparisonRow, band: Band) -> str:
    return f"{quantity(band.low, row.unit)} to {quantity(band.high, row.unit)}"


def noise_chart(comparison: Comparison, words: Mapping[str, str]) -> DotChart | None:
    """Draw both runs' medians with their bands, against the first's median; None where nothing varies or differs.

    ``comparison``: of two runs with bands; ``words``: the numbers to draw and their names.
    """
    shown = [
        (row, row.a_band, row.b_band)
        for row in comparison.rows
        if row.key in words and row.a_band is not None and row.b_band is not None and row.a_band.median != 0
        and not (row.a_band.is_one_value and row.b_band.is_one_value and row.verdict == "same")
    ]  # fmt: skip
    if not shown:
        return None
    sides = [np.array([[band.low, band.median, band.high] for band in bands]) for bands in (
        [a for _, a, _ in shown], [b for _, _, b in shown])]  # fmt: skip
    reference = sides[0][:, 1:2]
    low, middle, high = np.moveaxis(100 * (np.stack(sides) - reference) / np.abs(reference), 2, 0)
    groups = {label: middle[i] for i, label in enumerate(comparison.labels)}
    return DotChart(
        **worded("noise"),
        x_label=f"change against the median of {comparison.labels[0]} (%)",
        rows=tuple(words[row.key] for row, _, _ in shown),
        groups=groups,
        spans={label: (low[i], high[i]) for i, label in enumerate(comparison.labels)},
    )


def numbers_table(comparison: Comparison) -> DataTable:
    """Every number of both runs with its band, what changed and what that means."""
    first, second = comparison.labels
    columns = ("number", first, f"{first} over seeds", second, f"{second} over seeds", "change", "verdict")
    rows: list[tuple[Cell, ...]] = []
    for row in comparison.rows:
        change = None
        if row.delta_percent is not None:
            change = Quantity(row.delta_percent / 100, "%", text=f"{row.delta_percent:+.3g} %".replace("-", "−"))
        sides = ((row.a, row.a_band), (row.b, row.b_band))
        cells = [cell for value, band in sides for cell in (Quantity(value, row.unit), _band_cell(row, band))]
        rows.append((row.key, *cells, change, row.verdict))
    return DataTable(columns, rows)


def _band_cell(row: ComparisonRow, band: Band | None) -> Quantity | None:
    """Write a band: ``4.1 ms to 4.4 ms (4.2 ms)``, least, most and median; one value where all are the same."""
    if band is None:
        return None
    if band.is_one_value:
        return Quantity(band.median, row.unit)
    text = f"{_span(row, band)} ({quantity(band.median, row.unit)})"
    return Quantity(band.median, row.unit, band.low, band.high, text)
