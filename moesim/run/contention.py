"""Several expert-parallel groups on one cluster: what they cost each other, on which link, and placed otherwise.

All groups run on one clock, each with tokens, barriers and exchange of counts of its own; their flows share the links
that they cross. What contention costs is judged by simulation: every group once more alone on the cluster, and all of
them by every other placement of groups. Where no link carries bytes of two groups, each takes alone what it takes
among the others, and no clock runs again.

Of a run of several groups every number is of the slowest group; ranks are numbered within it.
"""

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from moesim.cluster import Fabric, places_of_group
from moesim.errors import InputError
from moesim.layer import (
    KernelLedger,
    Parts,
    Workload,
    build_parts,
    open_workload,
    uses_ports,
    views_of_groups,
    whole_cluster,
    with_learnt_placement,
)
from moesim.measure import FlowExport, SummaryBuilder, held_seconds, joint_flows
from moesim.placement_policies import GROUP_PLACEMENTS
from moesim.results import Note, Result, TableBuilder, Tables, Term, ratio
from moesim.run.audit import audit_terms
from moesim.run.steps import GroupSteps, RoutedStep, route_steps, run_steps_of_groups
from moesim.scenario import Scenario
from moesim.stages import PHASES
from moesim.traffic import Floats, gradient_flows, weight_transfer

# One bucket over everything: nobody looks at the links' use over time.
_NO_CURVES_S = 1e9
# Links that a result names, of those that carry bytes of several groups.
_LINKS = 12
_BYTES = {"bf16": 2, "fp32": 4}
# Numbers of each group's own summary in the table of groups.
_COLUMNS = (
    "layer_time_s", "dispatch_time_s", "combine_time_s", "expert_compute_time_s", "wait_time_s",
    "rank_load_max_over_mean",
)  # fmt: skip


@dataclass(frozen=True)
class GroupRun:
    """One group after the clock that it shares with the others.

    Attributes:
        parts: of the group.
        routed: its steps.
        summary: what its layers were summed up in.
        result: of this group.
        flows: those of its first step.
        gradients_s: how long each reduction of gradients beside a layer took.
    """

    parts: Parts
    routed: tuple[RoutedStep, ...]
    summary: SummaryBuilder
    result: Result
    flows: FlowExport
    gradients_s: Sequence[float]

    @property
    def layer_s(self) -> float:
        """Its layer time, mean over the layers."""
        return float(self.result.summary["layer_time_s"])


def build_groups(scenario: Scenario, placement: str | None = None, cluster: Fabric | None = None) -> list[Parts]:
    """Resolve a scenario into the parts of each of its groups, by its own placement of groups or another.

    ``cluster``: its ``whole_cluster``, where that is at hand already.

    Raises:
        InputError: sections that do not fit each other, or groups that do not fit the cluster.
    """
    cluster = cluster or whole_cluster(scenario)
    views = views_of_groups(scenario, cluster, placement)
    first = build_parts(scenario, views[0])
    if uses_ports(first):
        raise InputError("flows per port know one group", "cluster.flows", "use pairs")
    parts = [replace(first, fabric=view, group=number) for number, view in enumerate(views)]
    return _with_gradients(scenario.parallel.gradient_dtype, cluster, parts)


def _with_gradients(dtype: str | None, cluster: Fabric, groups: list[Parts]) -> list[Parts]:
    if dtype is None:
        return groups
    first, n_groups, transfer = groups[0], len(groups), weight_transfer("async")
    parameters = 3 * first.model.sent * first.model.expert_hidden * first.n_slots / first.fabric.n_ranks
    n_bytes = parameters * _BYTES[dtype] * (n_groups - 1) / n_groups
    ranks = [parts.fabric.in_cluster(np.arange(parts.fabric.n_ranks)) for parts in groups]
    return [
        replace(parts, gradients=gradient_flows(cluster, own, following, n_bytes, transfer, parts.ecmp_seed))
        for parts, own, following in zip(groups, ranks, [*ranks[1:], ranks[0]], strict=True)
    ]


def opened(parts: Parts) -> tuple[Parts, Workload]:
    """Return the parts with the placement of experts that they learn, and their tokens."""
    workload = open_workload(parts)
    return with_learnt_placement(parts, lambda: workload), workload


def route_groups(groups: Sequence[Parts]) -> list[tuple[Parts, tuple[RoutedStep, ...]]]:
    """Route the batches of every group; the parts come back with the placements that they have learnt."""
    found = []
    for parts in groups:
        placed, workload = opened(parts)
        batches = (workload.batch(index) for index in range(placed.workload.steps))
        found.append((placed, tuple(route_steps(placed, batches))))
    return found


def summed_up(groups: Sequence[tuple[Parts, tuple[RoutedStep, ...]]]) -> list[SummaryBuilder]:
    """Put routed groups on one clock; return what each one's layers sum up to."""
    on = [GroupSteps(parts, routed, SummaryBuilder(parts), KernelLedger()) for parts, routed in groups]
    deque(run_steps_of_groups(on, _NO_CURVES_S), maxlen=0)
    return [group.summary for group in on]


def with_contention(scenario: Scenario, groups: Sequence[GroupRun], say: Callable[[str], None]) -> Result:
    """Return the slowest group's result with what all groups on the cluster cost each other.

    Args:
        scenario: of the run.
        groups: after the clock that they share.
        say: called with a line when a stage begins.

    Raises:
        InvariantError: a law of the simulator was broken.
    """
    shared = _SharedLinks([(group.parts, group.summary) for group in groups])
    cluster = whole_cluster(scenario)
    together = [group.layer_s for group in groups]
    alone = list(together)
    if shared.names:
        say(f"each of {len(groups)} groups alone")
        alone = [layer_s for group in groups for layer_s in _layer_s(summed_up([(group.parts, group.routed)]))]
    slowest = int(np.argmax(together))
    result = groups[slowest].result
    held: dict[str, float] = {}
    for group in groups:
        for link, seconds in held_seconds(group.result.explanation["terms"]).items():
            held[link] = held.get(link, 0.0) + seconds / len(groups)
    contended = max(
        (link for link in shared.names if held.get(link)), key=lambda link: (held[link], link), default=None
    )
    numbers = {
        "groups": len(groups),
        "group_layer_time_mean_s": math.fsum(together) / len(groups),
        "group_layer_time_max_s": max(together),
        "alone_layer_time_mean_s": math.fsum(alone) / len(groups),
        "alone_layer_time_max_s": max(alone),
        "contention_cost": sum(together) / sum(alone),
        "contended_link": contended,
    }
    terms = _terms(together, alone)
    audit_terms(numbers, terms)
    facts = {
        "placement": scenario.parallel.group_placement,
        "slowest": slowest,
        "links": shared.rows(held),
        "placements": [
            {"placement": scenario.parallel.group_placement, **_figures(together, shared)},
            *_other_placements(scenario, cluster, groups, say),
        ],
        "gradients": _gradients(groups),
    }
    exported, notes = joint_flows([group.flows for group in groups])
    return replace(
        result,
        summary=result.summary | numbers,
        tables=Tables(
            {**{name: result.tables.columns(name) for name in result.tables}, "groups": _table(cluster, groups, alone)}
        ),
        notes=(*result.notes, *notes, *_notes(groups, slowest)),
        explanation=result.explanation | {"groups": facts, "terms": result.explanation["terms"] | terms},
        flows=exported,
    )


class _SharedLinks:
    """Links that carry bytes of two groups or more, per layer."""

    def __init__(self, groups: Sequence[tuple[Parts, SummaryBuilder]]) -> None:
        self._fabric, self._n_groups = groups[0][0].fabric, len(groups)
        each = [_bytes_and_seconds(parts, summary) for parts, summary in groups]
        self._bytes, self._seconds = (np.array(column) for column in zip(*each, strict=True))
        links = np.flatnonzero((self._bytes > 0).sum(axis=0) >= 2)
        total = self._seconds.sum(axis=0)
        self._links = links[np.argsort(-total[links], kind="stable")]
        self.names = {self._fabric.link_names[link] for link in links.tolist()}

    @property
    def busiest_s(self) -> float:
        """What the busiest of them needs for a layer's bytes of all groups; 0 without any."""
        return float(self._seconds.sum(axis=0)[self._links].max(initial=0.0))

    @property
    def busiest(self) -> str | None:
        """The busiest of them by name."""
        return self._fabric.link_names[self._links[0]] if len(self._links) else None

    def rows(self, held: Mapping[str, float]) -> list[dict[str, Any]]:
        """Describe the busiest ones; ``held``: for how long each held a group's critical rank in a layer, the mean."""
        fabric = self._fabric
        return [
            {
                "link": fabric.link_names[link],
                "link_class": fabric.link_class[link],
                "capacity_bytes_per_s": float(fabric.capacity[link]),
                "wire_bytes": self._bytes[:, link].tolist(),
                "seconds_at_full_rate": float(self._seconds[:, link].sum()),
                "held_s": held.get(fabric.link_names[link], 0.0),
            }
            for link in self._links[:_LINKS].tolist()
        ]


def _bytes_and_seconds(parts: Parts, summary: SummaryBuilder) -> tuple[Floats, Floats]:
    """Bytes of a group on each link per layer, and what they need at the rate that they reach, [links] each."""
    fabric, layers = parts.fabric, max(len(summary.layers), 1)
    moved, seconds = np.zeros(fabric.n_links), np.zeros(fabric.n_links)
    for phase in PHASES:
        by_class = {name: parts.constants[phase].efficiency(name, fabric.n_ranks) for name in fabric.link_classes}
        rate = fabric.capacity * np.array([by_class[name] for name in fabric.link_class])
        moved += summary.wire[phase] / layers
        seconds += summary.wire[phase] / layers / rate
    if (flows := parts.gradients) is not None:
        wire = flows.link_wire_bytes(fabric.n_links)
        moved += wire
        seconds += wire / (fabric.capacity * flows.link_efficiency(fabric.n_links))
    return moved, seconds


def _layer_s(summaries: Sequence[SummaryBuilder]) -> list[float]:
    return [math.fsum(row["layer_time_s"] or 0.0 for row in one.layers) / len(one.layers) for one in summaries]


def _figures(layer_s: Sequence[float], shared: _SharedLinks) -> dict[str, Any]:
    return {
        "layer_time_mean_s": math.fsum(layer_s) / len(layer_s),
        "layer_time_max_s": max(layer_s),
        "shared_links": len(shared.names),
        "busiest_shared": shared.busiest,
        "busiest_shared_s": shared.busiest_s,
    }


def _other_placements(
    scenario: Scenario, cluster: Fabric, groups: Sequence[GroupRun], say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """What every other placement of the groups by name gives; one that does not fit says why."""
    found: list[dict[str, Any]] = []
    seen = [_ranks([group.parts for group in groups])]
    for placement in GROUP_PLACEMENTS:
        if placement == scenario.parallel.group_placement:
            continue
        try:
            parts = build_groups(scenario, placement, cluster)
        except InputError as error:
            found.append({"placement": placement, "not": error.what})
            continue
        if (ranks := _ranks(parts)) in seen:
            continue
        seen.append(ranks)
        say(f"groups placed {placement}")
        # Groups of as many nodes send the same tokens to the same ranks, over other links.
        if np.array_equal(parts[0].fabric.rank_node, groups[0].parts.fabric.rank_node):
            routed = [
                (replace(group.parts, fabric=there.fabric, gradients=there.gradients), group.routed)
                for group, there in zip(groups, parts, strict=True)
            ]
        else:
            routed = route_groups(parts)
        summaries = summed_up(routed)
        shared = _SharedLinks([(of, one) for (of, _), one in zip(routed, summaries, strict=True)])
        found.append({"placement": placement, **_figures(_layer_s(summaries), shared)})
    return found


def _ranks(groups: Sequence[Parts]) -> list[tuple[str, ...]]:
    return [parts.fabric.rank_names for parts in groups]


def _gradients(groups: Sequence[GroupRun]) -> dict[str, float] | None:
    flows = groups[0].parts.gradients
    if flows is None:
        return None
    seconds = [one for group in groups for one in group.gradients_s]
    return {"bytes_per_rank": float(flows.size[0]), "mean_s": math.fsum(seconds) / len(seconds), "max_s": max(seconds)}


def _terms(together: Sequence[float], alone: Sequence[float]) -> dict[str, list[Term]]:
    def over(seconds: Sequence[float], combine: str, formula: str) -> list[Term]:
        return [
            Term(name=f"group {number}", value=one, unit="s", formula=formula, source="simulated", combine=combine)
            for number, one in enumerate(seconds)
        ]

    among, by_itself = "its layer time among the others", "its layer time alone on the cluster"
    cost = ratio(("layer times of all groups together", sum(together)), ("of each alone", sum(alone)), "s", "s")
    return {
        "group_layer_time_mean_s": over(together, "mean", among),
        "group_layer_time_max_s": over(together, "max", among),
        "alone_layer_time_mean_s": over(alone, "mean", by_itself),
        "alone_layer_time_max_s": over(alone, "max", by_itself),
        "contention_cost": cost,
    }


def _table(cluster: Fabric, groups: Sequence[GroupRun], alone: Sequence[float]) -> dict[str, Any]:
    tables = TableBuilder()
    for number, (group, alone_s) in enumerate(zip(groups, alone, strict=True)):
        summary = group.result.summary
        tables.add(
            "groups",
            step=[0],
            layer=0,
            micro_batch=0,
            group=number,
            places=[places_of_group(cluster, group.parts.fabric)],
            alone_layer_time_s=alone_s,
            **{key: summary[key] for key in _COLUMNS},
            bottleneck=[summary["bottleneck"]],
        )
    return tables.build()["groups"]


def _notes(groups: Sequence[GroupRun], slowest: int) -> list[Note]:
    first = groups[0].routed[0].layers
    notes = [
        Note(
            "info",
            f"every number is of group {slowest}, the slowest of {len(groups)}, and ranks are numbered within it; the "
            "groups enter the first layer at once but for schedule.start_offset",
        )
    ]
    alike = (
        np.array_equal(group.routed[0].layers[layer].expert_tokens, of.expert_tokens)
        for group in groups[1:]
        for layer, of in first.items()
    )
    if all(alike):
        notes.append(Note("info", "all groups have the same tokens: the workload holds no others to draw"))
    return notes
