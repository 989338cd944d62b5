"""Charts that set several runs side by side."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from moesim.report.balance_charts import overlaid_training, training_fingerprint
from moesim.report.charts import Chart, DotChart, LineChart, Mark, Series, SmallMultiples
from moesim.report.named_numbers import DRAWN, LOSSES, LOSSES_CAPTION, LOSSES_LABEL, LOSSES_TITLE, Drawn, scaled
from moesim.report.palette import series_colour
from moesim.report.quantities import Floats, axis_scale, filled
from moesim.report.rank_times import rank_times_of_runs
from moesim.report.scenario_diff import recording_name, workload_of
from moesim.report.time_charts import time_chart
from moesim.report.traffic_charts import sorted_expert_load
from moesim.results import Result

# Points closer than this share of the axes have their labels on each other.
_APART = 0.09

Runs = Sequence[tuple[str, Result]]


def comparison_charts(runs: Runs) -> dict[str, Chart | None]:
    """Every chart of a comparing page but the training curves, by its key."""
    return {
        "time": time_chart(runs),
        **{drawn.key: _drawn(runs, drawn) for drawn in DRAWN},
        "losses": _losses(runs),
        "copies": _dots(
            runs,
            "copies",
            "Copies per token",
            "How many selections, distinct ranks and distinct nodes a token has, its own included: the fewer nodes, "
            "the fewer bytes between nodes.",
            "per token",
            {"selections": "copies_per_token", "ranks": "rank_copies_per_token", "nodes": "node_copies_per_token"},
        ),
        "rank_times": rank_times_of_runs(runs),
        "trade_off": _trade_off(runs),
        "expert_loads": SmallMultiples(
            key="expert_loads",
            title="Load of the experts",
            caption="Selections per expert over the mean, most loaded first, all on one scale.",
            x_label="experts, most loaded first",
            y_label="× mean",
            panels={name: sorted_expert_load(run) for name, run in runs},
            mark=Mark("mean", 1.0),
            flagged=tuple(bool(run.summary["counterfactual"]) for _, run in runs),
            source="experts.parquet",
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
    return filled([run.summary[key] for _, run in runs])


def _dots(runs: Runs, key: str, title: str, caption: str, x_label: str, columns: dict[str, str]) -> DotChart:
    return DotChart(
        key=key,
        title=title,
        caption=caption,
        x_label=x_label,
        rows=tuple(name for name, _ in runs),
        groups={label: _values(runs, column) for label, column in columns.items()},
        source="summary.json",
    )


def _drawn(runs: Runs, drawn: Drawn) -> DotChart | None:
    groups, label = scaled(drawn, lambda key: _values(runs, key))
    rows = tuple(name for name, _ in runs)
    return DotChart(drawn.key, drawn.title, drawn.caption, label, rows, groups, "summary.json") if groups else None


def _losses(runs: Runs) -> DotChart | None:
    groups = {}
    for key, words in LOSSES.items():
        even = filled([run.explanation["losses_in_balance"].get(key) or None for _, run in runs])
        values = _values(runs, key) / even
        if np.isfinite(values).any():
            groups[words] = values
    if not groups:
        return None
    groups["perfect balance"] = np.ones(len(runs))
    rows = tuple(name for name, _ in runs)
    return DotChart("losses", LOSSES_TITLE, LOSSES_CAPTION, LOSSES_LABEL, rows, groups, "summary.json")


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
    return LineChart(
        key="trade_off",
        title="What the group limit costs and saves",
        caption="Each point is a variant. To the right, more of the gate mass that a free choice of experts would have "
        "had is lost; lower is faster. A line joins the M (groups a token may reach) of one router on the same logits.",
        x_label="gate mass lost (%)",
        y_label=f"layer time ({unit})",
        series=tuple(series),
        source="summary.json",
    )


def _spread_labels(limits: list[int], x: Floats, y: Floats) -> tuple[str, ...]:
    """Name the points of a line by their M; points that lie on each other share the first one's label."""
    apart = np.hypot(np.diff(x) / max(float(np.ptp(x)), 1e-12), np.diff(y) / max(float(np.ptp(y)), 1e-12)) > _APART
    heads = [0, *(np.flatnonzero(apart) + 1).tolist(), len(limits)]
    labels = [""] * len(limits)
    for first, after in pairwise(heads):
        labels[first] = f"M = {limits[first]}" + (f" to {limits[after - 1]}" if after - first > 1 else "")
    return tuple(labels)
