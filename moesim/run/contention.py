"""Several expert-parallel groups on one cluster: what they cost each other, on which link, and placed otherwise.

All groups run on one clock, each with tokens, barriers and exchange of counts of its own; their flows share the links
that they cross. What contention costs is judged by simulation: every group once more alone on the cluster, and all of
them by every other placement of groups. Where no link carries bytes of two groups, each takes alone what it takes
among the others, and no clock runs again.

Of a run of several groups every number is of the slowest group; ranks are numbered within it.
"""

import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from moesim.cluster import Fabric, places_of_group
from moesim.errors import InputError
from moesim.layer import (
    KernelLedger,
    Parts,
    build_fabric,
    build_parts,
    faulty_cluster,
    opened,
    uses_ports,
    views_of_groups,
    whole_cluster,
    with_effects,
)
from moesim.measure import FlowExport, SummaryBuilder, held_seconds, joint_flows
from moesim.placement_policies import GROUP_PLACEMENTS
from moesim.results import Note, Result, TableBuilder, Tables, Term, ratio
from moesim.run.audit import audit_terms
from moesim.run.routed_steps import RoutedStep, route_steps
from moesim.run.steps import GroupSteps, run_steps_of_groups
from moesim.scenario import Scenario
from moesim.stages import PHASES
from moesim.timeline import NO_CURVES_S
from moesim.traffic import Floats, gradient_flows, weight_transfer

# Links that a result names, of those that carry bytes of several groups.
_LINKS = 12
_BYTES = {"bf16": 2, "fp32": 4}
# Numbers of each group's own summary in the table of groups.
_COLUMNS = (
    "layer_time_s", "dispatch_time_s", "combine_time_s", "expert_compute_time_s", "wait_time_s",
    "rank_load_max_over_mean",
)  # fmt: skip
Routed = tuple[Parts, Iterable[RoutedStep]]
"""A group's parts and its steps."""


@dataclass(frozen=True)
class GroupRun:
    """One group after the clock that it shares: what was simulated, its result, and its first step's flows.

    ``gradients_s``: how long each reduction of gradients beside a layer took.
    """

    routed: Routed
    summary: SummaryBuilder
    result: Result
    flows: FlowExport
    gradients_s: Sequence[float]


def build_groups(scenario: Scenario, placement: str | None = None) -> list[Parts]:
    """Resolve a scenario into the parts of each of its groups, by its own placement of groups or another.

    Raises:
        InputError: sections that do not fit each other, or groups that do not fit the cluster.
    """
    cluster = faulty_cluster(scenario)
    views = views_of_groups(scenario, cluster, placement)
    first = build_parts(scenario, views[0])
    if uses_ports(first):
        raise InputError("flows per port know one group", "cluster.flows", "use pairs")
    return _on(scenario, cluster, [replace(first, fabric=view, group=number) for number, view in enumerate(views)])


def with_other_faults(groups: Sequence[Parts], scenario: Scenario) -> list[Parts]:
    """Return the parts of the same groups, or of one alone, on the cluster of a scenario that differs in its faults."""
    if len(groups) == 1:
        return [with_effects(replace(groups[0], fabric=build_fabric(scenario)), scenario)]
    views = views_of_groups(scenario, cluster := faulty_cluster(scenario))
    return _on(scenario, cluster, [replace(parts, fabric=view) for parts, view in zip(groups, views, strict=True)])


def _on(scenario: Scenario, cluster: Fabric, groups: Sequence[Parts]) -> list[Parts]:
    """Groups on their views of the cluster, with the faults of the scenario and the gradients that they send."""
    groups = [with_effects(parts, scenario, cluster) for parts in groups]
    views, first = [parts.fabric for parts in groups], groups[0]
    if scenario.parallel.gradient_dtype is None:
        return groups
    parameters = 3 * first.model.sent * first.model.expert_hidden * first.n_slots / first.fabric.n_ranks
    n_bytes = parameters * _BYTES[scenario.parallel.gradient_dtype] * (len(groups) - 1) / len(groups)
    ranks = [view.in_cluster(np.arange(view.n_ranks)) for view in views]
    transfer = weight_transfer("async")
    return [
        replace(parts, gradients=gradient_flows(cluster, own, following, n_bytes, transfer, parts.ecmp_seed))
        for parts, own, following in zip(groups, ranks, [*ranks[1:], ranks[0]], strict=True)
    ]


def with_contention(scenario: Scenario, groups: Sequence[GroupRun], say: Callable[[str], None]) -> Result:
    """Return the slowest group's result with what all groups on the cluster cost each other.

    Args:
        scenario: of the run.
        groups: after the clock that they share.
        say: called with a line when a stage begins.

    Raises:
        InvariantError: a law of the simulator was broken.
    """
    placement, shared = scenario.parallel.group_placement, _Shared([(one.routed[0], one.summary) for one in groups])
    together = alone = [float(one.result.summary["layer_time_s"]) for one in groups]
    if len(shared.links) or scenario.faults:  # alone, a later step begins at another time of a fault's
        say(f"each of {len(groups)} groups alone")
        alone = [_on_one_clock([one.routed])[0][0] for one in groups]
    slowest, held = int(np.argmax(together)), Counter[str]()
    for one in groups:
        held.update({link: s / len(groups) for link, s in held_seconds(one.result.explanation["terms"]).items()})
    links = shared.rows(held)
    numbers, terms = _numbers(together, alone)
    numbers["contended_link"] = max(shared.names & held.keys(), key=lambda link: (held[link], link), default=None)
    audit_terms(numbers, terms, max(together + alone))
    flows, notes = joint_flows([one.flows for one in groups])
    facts = {
        "links": links,
        "placements": [
            {"placement": placement, **_figures(together, shared)},
            *_other_placements(scenario, [one.routed for one in groups], say),
        ],
        "gradients": _gradients(groups),
    }
    text = f"every number is of group {slowest}, the slowest of {len(groups)}, and ranks are numbered within it; the "
    notes.append(Note("info", text + "groups enter the first layer at once but for schedule.start_offset"))
    result = groups[slowest].result
    tables = {name: result.tables.columns(name) for name in result.tables}
    return replace(
        result,
        summary=result.summary | numbers,
        tables=Tables(tables | {"groups": _table(whole_cluster(scenario), groups, alone)}),
        notes=(*result.notes, *notes),
        explanation=result.explanation | {"groups": facts, "terms": result.explanation["terms"] | terms},
        flows=flows,
    )


def on_one_clock(groups: Sequence[Routed]) -> list[SummaryBuilder]:
    """Put routed groups, one or more, on a clock for their summaries alone."""
    on = [GroupSteps(parts, routed, SummaryBuilder(parts), KernelLedger()) for parts, routed in groups]
    deque(run_steps_of_groups(on, NO_CURVES_S), maxlen=0)
    return [one.summary for one in on]


def _on_one_clock(groups: Sequence[Routed]) -> tuple[list[float], "_Shared"]:
    """Layer time of each group, the mean over its layers, and the links that they share."""
    on = on_one_clock(groups)
    by_layer = [[row["layer_time_s"] or 0.0 for row in summary.layers] for summary in on]
    return [math.fsum(times) / len(times) for times in by_layer], _Shared([(its.parts, its) for its in on])


class _Shared:
    """Links that carry bytes of two groups or more, the busiest first: bytes and seconds of each per layer."""

    def __init__(self, groups: Sequence[tuple[Parts, SummaryBuilder]]) -> None:
        self.fabric = groups[0][0].fabric
        each = [_bytes_and_seconds(parts, summary) for parts, summary in groups]
        self.bytes, seconds = (np.array(column) for column in zip(*each, strict=True))
        self.seconds = seconds.sum(axis=0)
        links = np.flatnonzero((self.bytes > 0).sum(axis=0) >= 2)
        self.links = links[np.argsort(-self.seconds[links], kind="stable")].tolist()
        self.names = {self.fabric.link_names[link] for link in self.links}

    def rows(self, held: Mapping[str, float]) -> list[dict[str, Any]]:
        """Describe the busiest ones; ``held``: for how long each held a group's critical rank in a layer, the mean."""
        return [
            {
                "link": self.fabric.link_names[link],
                "link_class": self.fabric.link_class[link],
                "capacity_bytes_per_s": float(self.fabric.capacity[link]),
                "wire_bytes": self.bytes[:, link].tolist(),
                "seconds_at_full_rate": float(self.seconds[link]),
                "held_s": held.get(self.fabric.link_names[link], 0.0),
            }
            for link in self.links[:_LINKS]
        ]


def _bytes_and_seconds(parts: Parts, summary: SummaryBuilder) -> tuple[Floats, Floats]:
    """Bytes of a group on each link per layer, and what they need at the rate that they reach, [links] each."""
    fabric, layers = parts.fabric, max(len(summary.layers), 1)
    moved, seconds = np.zeros(fabric.n_links), np.zeros(fabric.n_links)
    for phase in PHASES:
        by_class = {name: parts.constants[phase].efficiency(name, fabric.n_ranks) for name in fabric.link_classes}
        reached = np.array([by_class[name] for name in fabric.link_class])
        moved += summary.wire[phase] / layers
        seconds += summary.wire[phase] / layers / (fabric.capacity * reached)
    if (flows := parts.gradients) is not None:
        wire = flows.link_wire_bytes(fabric.n_links)
        moved += wire
        seconds += wire / (fabric.capacity * flows.link_efficiency(fabric.n_links))
    return moved, seconds


def _gradients(groups: Sequence[GroupRun]) -> dict[str, float] | None:
    flows, seconds = groups[0].routed[0].gradients, [s for one in groups for s in one.gradients_s]
    return None if flows is None else {"bytes_per_rank": float(flows.size[0]), "mean_s": float(np.mean(seconds))}


def _figures(layer_s: Sequence[float], shared: _Shared) -> dict[str, Any]:
    busiest = shared.links[0] if shared.links else None
    return {
        "layer_time_mean_s": math.fsum(layer_s) / len(layer_s),
        "layer_time_max_s": max(layer_s),
        "shared_links": len(shared.links),
        "busiest_shared": None if busiest is None else shared.fabric.link_names[busiest],
        "busiest_shared_s": 0.0 if busiest is None else float(shared.seconds[busiest]),
    }


def _other_placements(scenario: Scenario, groups: Sequence[Routed], say: Callable[[str], None]) -> list[dict[str, Any]]:
    """What every other placement of the groups by name gives; one that does not fit says why."""
    found: list[dict[str, Any]] = []
    seen = [[parts.fabric.rank_names for parts, _ in groups]]
    for placement in GROUP_PLACEMENTS:
        try:
            there = build_groups(scenario, placement)
        except InputError as error:
            found.append({"placement": placement, "not": error.what})
            continue
        if (ranks := [parts.fabric.rank_names for parts in there]) in seen:
            continue
        seen.append(ranks)
        say(f"groups placed {placement}")
        # Groups of as many nodes send the same tokens to the same ranks, over other links.
        same_nodes = np.array_equal(there[0].fabric.rank_node, groups[0][0].fabric.rank_node)
        if same_nodes and all(parts.gone == new.gone for (parts, _), new in zip(groups, there, strict=True)):
            placed: list[Routed] = [
                (replace(new, placement_map=parts.placement_map), steps)
                for (parts, steps), new in zip(groups, there, strict=True)
            ]
        else:
            placed = [
                (parts, tuple(route_steps(parts, map(workload.batch, range(parts.workload.steps)))))
                for parts, workload in map(opened, there)
            ]
        found.append({"placement": placement, **_figures(*_on_one_clock(placed))})
    return found


def _numbers(together: Sequence[float], alone: Sequence[float]) -> tuple[dict[str, Any], dict[str, list[Term]]]:
    """The summary's numbers of all groups, and their terms."""
    numbers: dict[str, Any] = {"groups": len(together)}
    terms: dict[str, list[Term]] = {}
    for name, times, how in (("group", together, "among the others"), ("alone", alone, "alone on the cluster")):
        for over, value in (("mean", math.fsum(times) / len(times)), ("max", max(times))):
            numbers[f"{name}_layer_time_{over}_s"] = value
            terms[f"{name}_layer_time_{over}_s"] = [
                Term(name=f"group {i}", value=s, unit="s", formula=f"its layer {how}", source="simulated", combine=over)
                for i, s in enumerate(times)
            ]
    both = ("layer times of all groups together", math.fsum(together)), ("of each alone", math.fsum(alone))
    return numbers | {"contention_cost": both[0][1] / both[1][1]}, terms | {"contention_cost": ratio(*both, "s", "s")}


def _table(cluster: Fabric, groups: Sequence[GroupRun], alone: Sequence[float]) -> dict[str, Any]:
    tables = TableBuilder()
    for number, (one, alone_s) in enumerate(zip(groups, alone, strict=True)):
        summary, where = one.result.summary, {"step": [0], "layer": 0, "micro_batch": 0, "group": number}
        numbers = {key: summary[key] for key in _COLUMNS} | {"alone_layer_time_s": alone_s}
        places, bottleneck = places_of_group(cluster, one.routed[0].fabric), summary["bottleneck"]
        tables.add("groups", **where, places=[places], **numbers, bottleneck=[bottleneck])
    return tables.build()["groups"]
