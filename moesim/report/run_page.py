"""The report of one run: the answer on the first screen, then the evidence, then what it rests on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from moesim.report import attention_section, run_tables
from moesim.report.balance_charts import layer_charts, rebalance_charts, training_charts
from moesim.report.charts import Chart
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
    s = result.summary

    def named(key: str) -> str:
        return result.value(key).words(lambda number: named_quantity(key, number))

    def share(key: str) -> str:
        return quantity((s[key] or 0.0) / s["layer_time_s"], "%") if s["layer_time_s"] else ABSENT

    steps = columns_of(result, "steps")
    n_steps = len(np.unique(np.asarray(steps["step"]))) if rows_in(steps) else 1
    rate = s["tokens"] / n_steps / s["layer_time_s"] / s["ranks"] if s["layer_time_s"] else None
    both = (s["dispatch_time_s"] or 0.0) + (s["combine_time_s"] or 0.0)
    plain, _, interval = named("layer_time_s").partition(" (")
    interval = interval and f"({interval}"
    ratio = f" · {s['layer_time_s'] / s['lower_bound_s']:.2f} ×" if s["lower_bound_s"] else ""
    tiles = [
        Tile("Layer time", plain, f"lower bound {named('lower_bound_s')}{ratio}",
             f"{SUMMARY['layer_time_s'].text}. In brackets: where it lies with a probability of 80 % on a cluster like "
             f"this one. Lower bound: {SUMMARY['lower_bound_s'].text}.", interval),
        Tile("Dispatch + combine", quantity(both, "s"),
             f"{named('dispatch_time_s')} out · {named('combine_time_s')} back",
             f"{SUMMARY['dispatch_time_s'].text}; {SUMMARY['combine_time_s'].text}."),
        Tile("Expert compute", named("expert_compute_time_s"), f"{share('expert_compute_time_s')} of the layer",
             SUMMARY["expert_compute_time_s"].text),
        Tile("Wait, mean over ranks", named("rank_wait_mean_s"),
             f"critical rank {named('wait_time_s')} · arrival {named('arrival_time_s')}",
             f"{SUMMARY['rank_wait_mean_s'].text}. Critical rank: {SUMMARY['wait_time_s'].text}."),
        Tile("Experts, max/mean", named("expert_load_max_over_mean"),
             f"uniform router: {named('uniform_router_expert_max_over_mean')}",
             f"{SUMMARY['expert_load_max_over_mean'].text}. Uniform router: "
             f"{SUMMARY['uniform_router_expert_max_over_mean'].text}."),
        Tile("Ranks, max/mean", named("rank_load_max_over_mean"), f"nodes: {named('node_load_max_over_mean')}",
             f"{SUMMARY['rank_load_max_over_mean'].text}; {SUMMARY['node_load_max_over_mean'].text}."),
        Tile("Bottleneck link", named("bottleneck_utilisation"), f"used · max/mean {named('link_load_max_over_mean')}",
             f"{SUMMARY['bottleneck_utilisation'].text}; {SUMMARY['link_load_max_over_mean'].text}."),
        Tile("Tokens per second and GPU", quantity(None if rate is None else float(f"{rate:.4g}"), ""),
             "through this layer alone", "tokens of a batch over the layer time and the number of ranks: an upper "
             "limit, since a model has many layers and attention besides"),
    ]  # fmt: skip
    if "tokens_per_second" not in s:
        return tiles
    per_request = f" · {named('tpot_s')} per output token" if s["tpot_s"] is not None else ""
    per_gpu, per_node, in_all = (f"{s[f'tokens_per_second{of}']:,.0f}" for of in ("_per_gpu", "_per_node", ""))
    step, _, step_interval = named("step_time_s").partition(" (")
    training = "mfu" in s
    per_layer = "of dispatch and combine" if training else f"one more MoE layer: {named('layer_period_s')}"
    of_step = [
        Tile("Tokens per second and GPU", per_gpu, f"{per_node} a node · {in_all} in all",
             DEFINITIONS["tokens_per_second"].text),
        Tile("Step", step, f"{s['model_layers']} layers{per_request}", SUMMARY["step_time_s"].text,
             step_interval and f"({step_interval}"),
        Tile("Communication hidden", quantity(s["communication_hidden_share"], "%"), per_layer,
             DEFINITIONS["communication_hidden_share"].text),
    ]  # fmt: skip
    if training:
        rate, non_causal = s["model_flops_per_second_per_gpu"] / 1e12, quantity(s["mfu_non_causal"], "%")
        of_step += [
            Tile("MFU, causal", quantity(s["mfu"], "%"), f"{rate:,.0f} TFLOP/s a GPU · non-causal {non_causal}",
                 f"{DEFINITIONS['model_flops_per_second_per_gpu'].text}; {DEFINITIONS['mfu'].text}"),
            Tile("Bubble", quantity(s["pipeline_bubble_share"], "%"),
                 f"{s['gpus']:,} GPUs · {s['tokens_per_day'] / 1e9:,.1f} billion tokens a day",
                 DEFINITIONS["pipeline_bubble_share"].text),
        ]  # fmt: skip
    return [*of_step, *tiles[:-1]]


def _sources(summary: dict[str, Any]) -> list[Source]:
    keys = [(name, f"source_{name}_share") for name in SOURCES]
    return [Source(name, float(summary[key] or 0.0), SUMMARY[key].text) for name, key in keys]


def _facts(summary: dict[str, Any]) -> str:
    return (
        f"Seed {summary['seed']} · {summary['distinct_tokens']:,} distinct of {summary['tokens']:,} tokens · "
        f"{summary['layers']} layer{'s' if summary['layers'] != 1 else ''} simulated"
    )
