"""The page of a placement verdict: does another placement pay, from when on, for how long, at what price."""

import math
from collections.abc import Iterator

import numpy as np

from moesim.report.charts import Chart, DotChart, LineChart, Mark, Series, worded
from moesim.report.data_table import Cell, DataTable, Quantity
from moesim.report.page import render, view_of
from moesim.report.palette import series_colour
from moesim.report.run_page import Verdict
from moesim.results import PlacementVerdict

_LOADS = {
    "rank": ("ranks, max/mean", "most loaded rank over the mean, on the tokens judged on"),
    "rank_itself": ("on itself", "the same where it is learnt on those very tokens: what is left is no loss"),
    "rank_learnt": ("where learnt", "the same on the tokens that it was learnt from: looks better than it is"),
    "node": ("nodes, max/mean", "most loaded node over the mean, on the tokens judged on"),
    "nodes_per_token": ("nodes per token", "distinct nodes that a token goes to"),
}  # fmt: skip
_CURVES = {
    "none": "present placement",
    "stale": "learnt on the first window",
    "fresh": "learnt on the window before",
    "itself": "learnt on the window itself",
}
_SHORTEST, _LONGEST = 1.0, 1e6
"""Steps between rearrangements that the chart goes over."""


def render_placement(verdict: PlacementVerdict) -> str:
    """Write the page: no other file or network needed, the same bytes for the same verdict."""
    charts = {chart.key: view_of(chart) for chart in placement_charts(verdict)}
    return render(
        "placement.html.j2",
        title=f"Placement of {verdict.scenario}",
        chips=[f"learnt from {verdict.learnt_from}", f"judged on {verdict.judged_on}", verdict.phase],
        verdict=placement_words(verdict),
        same=verdict.same,
        present=verdict.present,
        charts=charts,
        options=options_table(verdict),
        costs=_costs_table(verdict),
        ageing=verdict.ageing.said,
        notes=verdict.notes,
    )


def placement_words(verdict: PlacementVerdict) -> Verdict:
    """The sentence, and what it would take to be true for long."""
    return Verdict(verdict.sentence(), verdict.ageing.said)


def options_table(verdict: PlacementVerdict) -> DataTable:
    """What each placement gives."""
    known = [key for key in _LOADS if any(one.loads.get(key) is not None for one in verdict.options)]
    columns = ("placement", "layer", "MoE layers of a step", "saved", "verdict", *(_LOADS[key][0] for key in known))
    hints = ("", "time of an MoE layer, mean over those simulated", "all MoE layers of the model",
             f"share of the time of {verdict.present}, and the interval of the difference", "",
             *(_LOADS[key][1] for key in known))  # fmt: skip
    rows = []
    for i, one in enumerate(verdict.options):
        judged = "faster" if one.saved.value > 0 else "slower"
        judged = "" if not i else judged if one.apart else "within the model's error"
        saved = None if not i else Quantity(one.saved.value, "%", one.saved.low, one.saved.high)
        times = (Quantity(one.layer_time_s, "s"), Quantity(one.layers_time_s, "s"))
        rows.append((one.name, *times, saved, judged, *(one.loads.get(key) for key in known)))
    return DataTable(columns, rows, hints=hints)


def _costs_table(verdict: PlacementVerdict) -> DataTable:
    """What moving to each placement takes, and when that is paid."""
    columns = ("placement", "moves a layer", "weights", "blocking", "async", "pays after, steps", "async, steps",
               f"with drift of {verdict.drift_steps:,.0f} steps", "memory of a GPU", "in all")  # fmt: skip
    hints = ("", "experts that a rank has to fetch", "all layers", "one rearrangement of all layers, with fixed time",
             "the same beside the tokens, of the fastest placement", "", "",
             "assumed: what is saved falls to 1/e in so many steps", "redundant slots of all layers", "")  # fmt: skip
    rows: list[tuple[Cell, ...]] = [
        (
            one.name,
            one.moves,
            Quantity(one.moved_bytes, "B"),
            *(Quantity(one.migration_s.get(mode), "s") for mode in ("blocking", "async")),
            *(_paid_after(one.break_even_steps.get(mode), one.migration_s.get(mode)) for mode in ("blocking", "async")),
            _paid_after(one.break_even_drifting_steps, one.migration_s.get("blocking")),
            Quantity(one.hbm_bytes_per_rank, "B"),
            Quantity(one.hbm_bytes, "B"),
        )
        for one in verdict.options[1:]
    ]
    return DataTable(columns, rows, hints=hints)


def _paid_after(steps: float | None, cost_s: float | None) -> Quantity:
    """Steps after which a move is paid; nothing where there is none to pay."""
    if steps is not None:
        return Quantity(math.ceil(steps))
    return Quantity(None, text="never" if cost_s is not None else "")


def placement_charts(verdict: PlacementVerdict) -> list[Chart]:
    """Time saved by each placement, what is left of it after moving, ageing, and affinity's frontier."""
    return [*_saved(verdict), *_paid(verdict), *_ageing(verdict), *_frontier(verdict)]


def _saved(verdict: PlacementVerdict) -> Iterator[Chart]:
    others = verdict.options[1:]
    low, value, high = (
        100 * np.array([getattr(one.saved, end) for one in others], float) for end in ("low", "value", "high")
    )
    if others:
        yield DotChart(
            **worded("saved", present=verdict.present),
            rows=tuple(one.name for one in others),
            groups={"saved": value},
            spans={"saved": (low, high)},
            zero=True,
        )


def _paid(verdict: PlacementVerdict) -> Iterator[Chart]:
    best = verdict.best
    if best is None or not best.migration_s:
        return
    steps = np.geomspace(_SHORTEST, _LONGEST, 121)
    before_s = verdict.options[0].layers_time_s
    series = []
    for i, (mode, cost_s) in enumerate(best.migration_s.items()):
        paid = 100 * (best.saved.value - cost_s / steps / before_s)
        drift = verdict.drift_steps
        kept = best.saved.value * drift * -np.expm1(-steps / drift) / steps
        drifting = 100 * (kept - cost_s / steps / before_s)
        for label, y, style in ((mode, paid, "line"), (f"{mode}, with drift", drifting, "dashed")):
            shown = np.where(y < -100 * best.saved.value, np.nan, y)
            series.append(Series(label, steps, shown, series_colour(i), style))  # type: ignore[arg-type]
    yield LineChart(
        **worded("paid", best=best.name, drift=verdict.drift_steps),
        series=tuple(series),
        marks=(Mark("pays", 0.0),),
        log_x=True,
    )


def _ageing(verdict: PlacementVerdict) -> Iterator[Chart]:
    curves = verdict.ageing.curves
    if curves:
        yield LineChart(
            **worded("ageing", said=verdict.ageing.said, tokens=verdict.ageing.window_tokens),
            series=tuple(
                Series(words, np.arange(1.0, 1 + len(curves[key])), np.array(curves[key]), series_colour(i))
                for i, (key, words) in enumerate(_CURVES.items())
                if key in curves
            ),
        )


def _frontier(verdict: PlacementVerdict) -> Iterator[Chart]:
    if len(verdict.frontier) > 1:
        load, nodes = (np.array(column) for column in zip(*verdict.frontier, strict=True))
        yield LineChart(
            **worded("frontier"),
            series=(Series("affinity", load, nodes, series_colour(0), "points"),),
        )
