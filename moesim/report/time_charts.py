"""Where the time goes: the parts of a layer, the ranks' timeline, who waits for whom, links over time."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from moesim import stages
from moesim.report.charts import BarChart, Gantt, HeatMap, LineChart, Mark, Part, Series, StackedBars, worded
from moesim.report.columns import (
    RANK_PAIR_LIMIT,
    Columns,
    columns_of,
    first_layer,
    first_layer_name,
    layers_in,
    node_of_rank,
    pick,
    ranks_per_node,
    rows_in,
    sum_over_layers,
)
from moesim.report.comparison import critical_words, subjects_of
from moesim.report.palette import LINK_WORDS, PHASES, WEIGHTS, link_colour
from moesim.report.quantities import Floats, axis_scale, filled
from moesim.results import COMPONENTS, SUMMARY, Result

# More rows than this make a timeline unreadable: the slowest ranks are shown.
_TIMELINE_RANKS = 64
# Ranks named in the note of a wait; of more the number.
_MOST_NAMES = 4

_KIND_OF = {
    **dict.fromkeys(stages.KERNEL_COMPONENTS, "compute"),
    **dict.fromkeys(stages.PHASES, "transfer"),
    **dict.fromkeys(("arrival", "wait"), "wait"),
}
_BESIDE = [stage.label for stage in stages.STAGES if stage.beside]


def time_chart(runs: Sequence[tuple[str, Result]]) -> StackedBars:
    """Parts of the layer time, one bar per run: compute first, then transfer, then wait."""
    times = np.array([[float(run.summary[key] or 0.0) for key in COMPONENTS] for _, run in runs])
    scale, unit = axis_scale(times.sum(axis=1), "s")
    parts = []
    for name, kind in _KIND_OF.items():
        key = f"{name}_time_s"
        values = times[:, COMPONENTS.index(key)] / scale
        parts.append(Part(name.replace("_", " "), kind, PHASES[name], values, SUMMARY[key].text))
    bounds = [run.summary["lower_bound_s"] for _, run in runs]
    critical = {name: critical_words(subjects_of(run).critical_ranks) for name, run in runs}
    moved = len({subjects_of(run).critical_ranks for _, run in runs}) > 1
    return StackedBars(
        **worded("time", unit=unit),
        caption="Parts of the time of the critical rank, the last to end; they add up to the layer time, in order of "
        "kind, not of time: blue computes, orange moves bytes, grey waits. The black line is the lower bound."
        + (" Another rank is critical in another run: its parts may differ where no rank's do." if moved else ""),
        rows=tuple(f"{name}, {critical[name]}" if moved else name for name, _ in runs),
        parts=tuple(parts),
        bounds=np.array([np.nan if bound is None else bound / scale for bound in bounds]),
        flagged=tuple(bool(run.summary["counterfactual"]) for _, run in runs),
    )


def timeline_chart(result: Result) -> Gantt | None:
    """What each rank does in the first layer, ranks as rows."""
    spans = first_layer(columns_of(result, "spans"))
    if not rows_in(spans):
        return None
    spans = pick(spans, ~np.isin(np.asarray(spans["phase"]), [stage.label for stage in stages.STEP]))
    ranks, chosen, caption = _timeline_ranks(spans)
    begin = float(np.asarray(spans["start_s"]).min())
    scale, unit = axis_scale(np.asarray(spans["end_s"]) - begin, "s")
    spans = dict(spans, note=np.full(rows_in(spans), "", object))
    for i, culprits in _waits(spans):
        spans["note"][i] = f"waits {spans['wait_s'][i] / scale:.4g} {unit} for {_named(culprits)}"
    spans = pick(spans, np.isin(np.asarray(spans["rank"]), chosen))
    start, end = np.asarray(spans["start_s"]) - begin, np.asarray(spans["end_s"]) - begin
    row = np.searchsorted(chosen, np.asarray(spans["rank"]))
    wait, notes = filled(spans["wait_s"]), spans["note"]
    phase, slim = [str(name) for name in spans["phase"]], np.isin(spans["phase"], [*_BESIDE, stages.BESIDE.label])
    waits = np.flatnonzero(wait > 0)
    shown = np.flatnonzero(end - wait > start)
    grid = ranks_per_node(result)
    return Gantt(
        **worded("timeline", unit=unit),
        title=f"Timeline of the ranks, {first_layer_name(result)}",
        caption=caption + " The thin lower bar is the shared expert, which runs beside dispatch. "
        "Wait is drawn at the beginning of its phase.",
        rows=tuple(str(rank) for rank in chosen),
        row=np.concatenate([row[shown], row[waits]]),
        start=np.concatenate([(start + wait)[shown], start[waits]]) / scale,
        end=np.concatenate([end[shown], (start + wait)[waits]]) / scale,
        phase=tuple(phase[i] for i in shown) + ("wait",) * len(waits),
        slim=np.concatenate([slim[shown], slim[waits]]),
        note=tuple(notes[i] for i in shown) + tuple(notes[i] for i in waits),
        colours=PHASES | {name: colour for name, colour in WEIGHTS.items() if name in phase},
        grid_every=grid if len(chosen) == len(ranks) else 0,
    )


def _timeline_ranks(spans: Columns) -> tuple[np.ndarray, np.ndarray, str]:
    """All ranks, or those that end last where there are too many; both in ascending order."""
    rank, end = np.asarray(spans["rank"]), np.asarray(spans["end_s"])
    ranks = np.unique(rank)
    if len(ranks) <= _TIMELINE_RANKS:
        return ranks, ranks, "Lines separate the nodes."
    last = np.zeros(int(ranks.max()) + 1)
    np.maximum.at(last, rank, end)
    slowest = np.argsort(-last, kind="stable")[:_TIMELINE_RANKS]
    return ranks, np.sort(slowest), f"The {_TIMELINE_RANKS} of {len(ranks)} ranks that end last."


def _waits(spans: Columns) -> list[tuple[int, tuple[int, ...]]]:
    """Each span that waited, and for whom: every rank that entered the phase with the one that came last."""
    keys = np.stack([np.unique(np.asarray(spans[key]), return_inverse=True)[1]
                     for key in ("step", "layer", "micro_batch", "phase")])  # fmt: skip
    group = np.unique(keys, axis=1, return_inverse=True)[1].ravel()
    rank, start, blamed = np.asarray(spans["rank"]), np.asarray(spans["start_s"]), filled(spans["waited_on"])
    order = np.argsort(group, kind="stable")
    first = np.searchsorted(group[order], np.arange(group.max() + 2))
    last: dict[tuple[int, int], NDArray[np.int64]] = {}
    waits = []
    for i in np.flatnonzero((filled(spans["wait_s"]) > 0) & (blamed >= 0)).tolist():
        key = (int(group[i]), int(blamed[i]))
        if key not in last:
            members = order[first[key[0]] : first[key[0] + 1]]
            entered = start[members[rank[members] == key[1]]]
            last[key] = np.sort(rank[members[np.isclose(start[members], entered[:1], rtol=1e-9, atol=0.0)]])
        waits.append((i, tuple(int(one) for one in last[key] if one != rank[i])))
    return waits


def _named(ranks: tuple[int, ...]) -> str:
    """``rank 3``, ``ranks 0, 3 and 5``, ``ranks 0, 3, 5 and 9 more``."""
    more = [f"{len(ranks) - _MOST_NAMES} more"] if len(ranks) > _MOST_NAMES else []
    *most, last = [*map(str, ranks[:_MOST_NAMES]), *more]
    return f"ranks {', '.join(most)} and {last}" if most else f"rank {last}"


def wait_chart(result: Result) -> HeatMap | None:
    """Who waits for whom: seconds per layer of each rank (row), by the rank it waits for (column)."""
    spans = columns_of(result, "spans")
    if not rows_in(spans):
        return None
    waits = _waits(spans)
    if not waits:
        return None
    node = node_of_rank(result)
    per_node = len(node) > RANK_PAIR_LIMIT
    place = node if per_node else np.arange(len(node))
    size = int(place.max()) + 1
    matrix = np.zeros((size, size))
    wait, rank = filled(spans["wait_s"]) / layers_in(spans), np.asarray(spans["rank"])
    for i, culprits in waits:
        np.add.at(matrix[place[rank[i]]], place[list(culprits)], wait[i] / len(culprits))
    scale, unit = axis_scale(matrix, "s")
    noun = "node" if per_node else "rank"
    return HeatMap(
        **worded("wait", noun=noun, unit=unit),
        caption=f"Time per layer that the ranks{' of a node' if per_node else ''} (rows) wait in dispatch and combine "
        f"because the {noun} of the column has not entered yet. A filled column is a straggler that delays many; ranks "
        "that entered at the same instant share what they caused.",
        matrices={"": matrix / scale},
        grid_every=0 if per_node else ranks_per_node(result),
    )


def rank_wait_chart(result: Result) -> BarChart | None:
    """Wait of each rank per layer."""
    table = columns_of(result, "ranks")
    ranks, wait = sum_over_layers(table, "rank", "wait_s")
    if not (wait > 0).any():
        return None
    scale, unit = axis_scale(wait, "s")
    details = {}
    for name, key in (("compute", "compute_s"), ("transfer", "transfer_s")):
        details[f"{name} ({unit})"] = tuple(
            float(f"{value:.5g}") for value in sum_over_layers(table, "rank", key)[1] / scale
        )
    return BarChart(
        **worded("rank_wait", unit=unit),
        labels=tuple(str(rank) for rank in ranks),
        values=wait / scale,
        marks=(Mark("mean", float(wait.mean() / scale)),),
        details=details,
        colour=PHASES["wait"],
    )


def link_series_chart(result: Result) -> LineChart | None:
    """Utilisation of each link class over the first layer: mean and busiest link."""
    table = first_layer(columns_of(result, "link_series"))
    if not rows_in(table):
        return None
    spans = first_layer(columns_of(result, "spans"))
    begin = float(np.asarray(spans["start_s"]).min()) if rows_in(spans) else 0.0
    time = np.asarray(table["time_s"]) - begin
    scale, unit = axis_scale(time, "s")
    classes = np.asarray(table["link_class"])
    series = []
    for position, name in enumerate(dict.fromkeys(classes.tolist())):
        rows = pick(table, classes == name)
        x = time[classes == name] / scale
        colour, word = link_colour(name, position), LINK_WORDS.get(name, name)
        for label, column, style in (("busiest", "utilisation_max", "line"), ("mean", "utilisation_mean", "dashed")):
            xs, ys = _broken(x, np.asarray(rows["phase"]), 100 * filled(rows[column]))
            series.append(Series(f"{word} {label}", xs, ys, colour, style))  # type: ignore[arg-type]
    return LineChart(
        **worded("link_utilisation", unit=unit),
        title=f"Link utilisation over time, {first_layer_name(result)}",
        series=tuple(series),
        zero=True,
    )


def _broken(x: Floats, phase: np.ndarray, y: Floats) -> tuple[Floats, Floats]:
    """Break a curve between the phases."""
    breaks = np.flatnonzero(phase[1:] != phase[:-1]) + 1
    return np.insert(x, breaks, x[breaks - 1]), np.insert(y, breaks, np.nan)
