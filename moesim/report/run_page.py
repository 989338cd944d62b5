"""The report of one run: the answer on the first screen, then the evidence, then what it rests on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from moesim.report import attention_section, run_tables
from moesim.report.balance_charts import layer_charts, rebalance_charts, training_charts
from moesim.report.charts import Chart, page_words
from moesim.report.columns import columns_of, rows_in
from moesim.report.group_tables import (
    facts_of,
    group_rows,
    group_sentences,
    groups_chart,
    placements,
    shared_links,
)
from moesim.report.page import render, view_of
from moesim.report.quantities import ABSENT, named_quantity, quantity
from moesim.report.rank_times import rank_times_chart, roofline_chart
from moesim.report.static import figure_files
from moesim.report.step_charts import lanes_chart, pipeline_chart
from moesim.report.time_charts import link_series_chart, rank_wait_chart, time_chart, timeline_chart, wait_chart
from moesim.report.traffic_charts import (
    bandwidth_chart,
    expert_chart,
    hot_experts,
    link_map,
    node_traffic_chart,
    rank_chart,
    top_links,
    traffic_chart,
)
from moesim.results import DEFINITIONS, SOURCES, SUMMARY, Result


@dataclass(frozen=True)
class ThresholdOutcome:
    """One threshold, judged by the caller.

    ``text``: as the scenario states it: ``layer_time_s < 2ms``; ``value``: what the run gave, in SI units; None where
    the number does not apply; ``passed``: whether the limit was kept.
    """

    text: str
    value: float | None
    passed: bool


_NOTE_ORDER = ("counterfactual", "degraded", "estimated", "info")


class Tile(NamedTuple):
    """One headline number with what to compare it with, what it means and the interval that it lies in."""

    label: str
    value: str
    note: str
    definition: str
    interval: str = ""


class Verdict(NamedTuple):
    """The answer in words."""

    headline: str
    text: str


class Source(NamedTuple):
    """Share of compute time whose seconds come from one kind of source."""

    name: str
    share: float
    definition: str


def render_run(result: Result, thresholds: Sequence[ThresholdOutcome] = ()) -> str:
    """Write the report of one run as one HTML page.

    Args:
        result: of a run, in memory or loaded.
        thresholds: the scenario's, judged; shown on the first screen.

    Returns:
        The page: no other file or network needed, the same bytes for the same result.
    """
    charts, facts = _charts(result), result.explanation.get("attention")
    views = {key: view_of(chart) for key, chart in charts.items()}
    summary = result.summary
    groups = facts_of(result)
    notes = sorted(result.notes, key=lambda note: _NOTE_ORDER.index(note.kind) if note.kind in _NOTE_ORDER else 9)
    return render(
        "run.html.j2",
        title=str(summary["name"]),
        name=str(summary["name"]),
        attention=None if facts is None else attention_section.kinds_table(facts),
        attention_words="" if facts is None else attention_section.kinds_words(facts),
        memory=attention_section.memory_table(facts) if facts is not None and "memory_bytes" in facts else None,
        chips=chips(result),
        verdict=verdict(result),
        tiles=_tiles(result),
        outcomes=list(thresholds),
        counterfactuals=[note.text for note in notes if note.kind == "counterfactual"],
        notes=[note for note in notes if note.kind != "counterfactual"],
        sources=_sources(summary),
        kernel_sources=run_tables.kernel_sources(result.explanation),
        facts=_facts(summary),
        charts=views,
        balance=[view_of(chart) for chart in _balance_charts(result)],
        group_sentences=group_sentences(result),
        group_tables={}
        if groups is None
        else {"rows": group_rows(result), "links": shared_links(groups), "placements": placements(groups)},
        links=top_links(result),
        hot=hot_experts(result),
        imbalance=run_tables.imbalance(summary),
        losses=run_tables.losses(result),
        bandwidths=run_tables.bandwidths(result),
        held=run_tables.held(result),
        fault_costs=run_tables.fault_costs(result),
        waits=run_tables.waits(result),
        constants=run_tables.constants(result.explanation),
        kernels=run_tables.kernels(result.explanation),
        busiest=run_tables.busiest(result.explanation),
        terms=run_tables.terms(result.explanation),
        topology=run_tables.topology(result.explanation),
        provenance=run_tables.provenance(result),
        scenario_yaml=result.scenario_yaml,
    )


def run_figures(result: Result) -> dict[str, bytes]:
    """Draw every chart of a run's report as files: ``figures/<chart>.svg`` and ``.png``, the same bytes each time."""
    charts = [chart for chart in _charts(result).values() if chart is not None]
    return figure_files([*charts, *_balance_charts(result)])


def _charts(result: Result) -> dict[str, Chart | None]:
    return {
        "time": time_chart([(str(result.summary["name"]), result)]),
        "groups": groups_chart(result),
        "traffic": traffic_chart(result),
        "link_utilisation": link_series_chart(result),
        "expert_load": expert_chart(result),
        "rank_load": rank_chart(result),
        "pipeline": pipeline_chart(result),
        "step_lanes": lanes_chart(result),
        "attention": attention_section.context_chart(facts) if (facts := result.explanation.get("attention")) else None,
        "timeline": timeline_chart(result),
        "wait": wait_chart(result),
        "rank_wait": rank_wait_chart(result),
        "bandwidth": bandwidth_chart(result),
        "node_traffic": node_traffic_chart(result),
        "link_map": link_map(result),
        "rank_times": rank_times_chart(result),
        "roofline": roofline_chart(result),
    }


def _balance_charts(result: Result) -> list[Chart]:
    return [*rebalance_charts(result), *layer_charts(result), *training_charts(result)]


def chips(result: Result) -> list[str]:
    """What was run, in a few words each: cluster, router, all-to-all, batch."""
    topology, router = result.explanation["topology"], result.explanation["router"]
    phases = result.explanation["alltoall"]
    limit = ""
    if router["top_groups"] < router["n_groups"]:
        groups = {"node": "nodes", "rank": "ranks"}.get(router["groups_are"], "groups")
        limit = f", {router['top_groups']} of {router['n_groups']} {groups}"
    ranks, nodes = int(topology["ranks"]), int(topology["nodes"])
    return [
        f"{topology['name']}: {ranks} × {str(topology['gpu']).upper()} in {nodes} node{'s' if nodes != 1 else ''}",
        f"{str(router['kind']).upper()} router, top {router['top_k']}{limit}",
        f"{phases['dispatch']['algorithm']}, {phases['dispatch']['dtype']} out, {phases['combine']['dtype']} back",
        f"{int(result.summary['tokens']):,} tokens",
    ]


def verdict(result: Result) -> Verdict:
    """Name the bottleneck and say how far the layer is from what no schedule can beat."""
    summary = result.summary
    time, bound = summary["layer_time_s"], summary["lower_bound_s"]
    text = f"The layer takes {quantity(time, 's')}"
    if bound and time:
        left = 1 - bound / time
        text += f", {time / bound:.2f} times its lower bound of {quantity(bound, 's')}: "
        text += f"at most {quantity(left, '%')} is left to win with this routing on these wires."
    else:
        text += "."
    if time and (held := result.explanation["held_longest"]):
        text += f" The link that held the critical rank longest is {held['link']}: {quantity(held['seconds'], 's')}"
        if held["capacity_bytes_per_s"] < held["peers_bytes_per_s"]:
            peak, peers = (quantity(held[name], "B/s") for name in ("capacity_bytes_per_s", "peers_bytes_per_s"))
            text += f" a layer, at a peak of {peak} where most of its class have {peers}."
        else:
            text += " a layer."
    text = " ".join([text, *group_sentences(result)[:1]])
    return Verdict(f"Bottleneck: {str(summary['bottleneck']).replace(': ', ', ', 1)}.", text)


def _tiles(result: Result) -> list[Tile]:
    """Fill in ``templates/tiles.toml``: of a whole step its own tiles first, those of a layer alone are left out."""
    s, steps = result.summary, columns_of(result, "steps")
    n_steps = len(np.unique(np.asarray(steps["step"]))) if rows_in(steps) else 1
    layer_s, bound_s, whole, training = s["layer_time_s"], s["lower_bound_s"], "tokens_per_second" in s, "mfu" in s
    rate = s["tokens"] / n_steps / layer_s / s["ranks"] if layer_s else None
    values = _Words(lambda key: result.value(key).words(lambda number: named_quantity(key, number)))
    values |= {
        "times_bound": f" · {layer_s / bound_s:.2f} ×" if bound_s else "",
        "both": quantity((s["dispatch_time_s"] or 0.0) + (s["combine_time_s"] or 0.0), "s"),
        "expert_share": quantity((s["expert_compute_time_s"] or 0.0) / layer_s, "%") if layer_s else ABSENT,
        "rate": quantity(None if rate is None else float(f"{rate:.4g}"), ""),
    }
    if whole:
        parts = {"per_gpu": "_per_gpu", "per_node": "_per_node", "in_all": ""}
        values |= {name: f"{s[f'tokens_per_second{of}']:,.0f}" for name, of in parts.items()}
        values["model_layers"] = str(s["model_layers"])
        values["per_request"] = f" · {values['tpot_s']} per output token" if s["tpot_s"] is not None else ""
        period = f"one more MoE layer: {values['layer_period_s']}"
        values["per_layer"] = "of dispatch and combine" if training else period
    if training:
        values |= {"teraflops": f"{s['model_flops_per_second_per_gpu'] / 1e12:,.0f}", "gpus": f"{s['gpus']:,}",
                   "tokens_a_day": f"{s['tokens_per_day'] / 1e9:,.1f}"}  # fmt: skip
    meanings, words = _Words(lambda key: DEFINITIONS[key].text), page_words("tiles.toml")
    kinds = ("step", *(["training"] if training else []), "layer") if whole else ("layer", "layer_alone")
    tiles = []
    for one in (one for kind in kinds for one in words[kind]):
        value, note = (one[name].format_map(values) for name in ("value", "note"))
        plain, bracket, interval = value.partition(" (") if one.get("apart") else (value, "", "")
        definition = one["definition"].format_map(meanings)
        tiles.append(Tile(one["label"], plain, note, definition, f"({interval}" if bracket else ""))
    return tiles


class _Words(dict[str, str]):
    """Words by name, those of a number that has none found by its name in the summary."""

    def __init__(self, of: Callable[[str], str]) -> None:
        super().__init__()
        self._of = of

    def __missing__(self, key: str) -> str:
        return self._of(key)


def _sources(summary: dict[str, Any]) -> list[Source]:
    keys = [(name, f"source_{name}_share") for name in SOURCES]
    return [Source(name, float(summary[key] or 0.0), SUMMARY[key].text) for name, key in keys]


def _facts(summary: dict[str, Any]) -> str:
    return (
        f"Seed {summary['seed']} · {summary['distinct_tokens']:,} distinct of {summary['tokens']:,} tokens · "
        f"{summary['layers']} layer{'s' if summary['layers'] != 1 else ''} simulated"
    )
