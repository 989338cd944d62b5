"""The part of a run's page about several expert-parallel groups: what contention costs, where, and placed otherwise."""

from collections.abc import Mapping
from typing import Any

from moesim.report.charts import DotChart, worded
from moesim.report.columns import columns_of
from moesim.report.data_table import Cell, DataTable, Quantity
from moesim.report.palette import LINK_WORDS
from moesim.report.quantities import axis_scale, filled, quantity
from moesim.results import Result

# Times that differ by less are called the same.
_ALIKE = 5e-4
_OF_A_PLACEMENT = ("layer_time_mean_s", "layer_time_max_s", "busiest_shared_s")


def facts_of(result: Result) -> Mapping[str, Any] | None:
    """What the result says of its groups; None where it has one."""
    found: Mapping[str, Any] | None = result.explanation.get("groups")
    return found


def group_sentences(result: Result) -> list[str]:
    """Say what contention costs, which link it is, and what another placement of the groups gives."""
    facts, s = facts_of(result), result.summary
    if facts is None:
        return []
    among, alone = (quantity(s[f"{key}_layer_time_mean_s"], "s") for key in ("group", "alone"))
    cost, link = s["contention_cost"] - 1, s["contended_link"]
    if not facts["links"]:
        said = [f"The {s['groups']} groups share no link: each takes {among}, as it would alone."]
    elif cost < _ALIKE:
        said = [f"The {s['groups']} groups share links and cost each other nothing: a layer takes {among} as alone."]
    else:
        held = f" The shared link that held the groups longest is {link}." if link else ""
        costs = f"Contention costs {quantity(cost, '%')}: a layer takes {among}"
        said = [f"{costs} among {s['groups']} groups, {alone} alone.{held}"]
    if (its := facts["gradients"]) is not None:
        moved, took = quantity(its["bytes_per_rank"], "B"), quantity(its["mean_s"], "s")
        said.append(f"Beside each layer every rank passes {moved} of gradients on to the next group, in {took}.")
    own, *others = facts["placements"]
    ranked = sorted((one["layer_time_mean_s"], one["placement"]) for one in others if "not" not in one)
    if not ranked:
        return [*said, "No other placement of the groups fits this cluster."]
    (least_s, best), (most_s, worst) = ranked[0], ranked[-1]
    less, more = 1 - least_s / own["layer_time_mean_s"], most_s / own["layer_time_mean_s"] - 1
    if less > _ALIKE:
        return [*said, f"Placed {best} they would take {quantity(less, '%')} less: {quantity(least_s, 's')} a layer."]
    if more <= _ALIKE:
        return [*said, "Every other placement of the groups takes the same."]
    slower = f"{worst} takes {quantity(more, '%')} more: {quantity(most_s, 's')} a layer"
    return [*said, f"No other placement by name is faster; {slower}."]


def group_rows(result: Result) -> DataTable:
    """A row per group: where it is, its times among the others and alone."""
    its = columns_of(result, "groups")
    times = zip(*(filled(its[key]) for key in ("layer_time_s", "alone_layer_time_s")), strict=True)
    rows: list[tuple[Cell, ...]] = [
        (
            str(its["group"][i]),
            str(its["places"][i]),
            Quantity(among, "s"),
            Quantity(alone, "s"),
            Quantity(among / alone),
            *(Quantity(float(its[f"{name}_time_s"][i]), "s") for name in ("dispatch", "combine", "expert_compute")),
            str(its["bottleneck"][i]),
        )
        for i, (among, alone) in enumerate(times)
    ]
    names = ("group", "where", "layer", "layer alone", "ratio", "dispatch", "combine", "experts", "bottleneck")
    return DataTable(names, rows)


def shared_links(facts: Mapping[str, Any]) -> DataTable:
    """The links that carry bytes of several groups, the busiest first."""
    rows: list[tuple[Cell, ...]] = [
        (
            one["link"],
            LINK_WORDS.get(one["link_class"], one["link_class"]),
            ", ".join(str(group) for group, moved in enumerate(one["wire_bytes"]) if moved > 0),
            Quantity(sum(one["wire_bytes"]), "B"),
            Quantity(one["capacity_bytes_per_s"], "B/s"),
            Quantity(one["seconds_at_full_rate"], "s"),
            Quantity(one["held_s"], "s"),
        )
        for one in facts["links"]
    ]
    return DataTable(("link", "class", "groups", "bytes a layer", "peak", "at full rate", "held, mean group"), rows)


def placements(facts: Mapping[str, Any]) -> DataTable:
    """What every placement of the groups by name gives; the run's own first."""
    own_s = facts["placements"][0]["layer_time_mean_s"]
    rows: list[tuple[Cell, ...]] = []
    for i, one in enumerate(facts["placements"]):
        name, its = one["placement"] + " (this run)" * (i == 0), one.get
        mean, slowest, full = (Quantity(its(key), "s") for key in _OF_A_PLACEMENT)
        ratio = Quantity(None if "not" in one else one["layer_time_mean_s"] / own_s)
        busiest = its("not") or its("busiest_shared") or "none"
        rows.append((name, mean, slowest, ratio, its("shared_links"), busiest, full))
    names = (
        "placement",
        "layer, mean group",
        "slowest group",
        "to this run",
        "shared links",
        "busiest",
        "at full rate",
    )
    return DataTable(names, rows)


def groups_chart(result: Result) -> DotChart | None:
    """Layer time of every group among the others and alone."""
    if facts_of(result) is None:
        return None
    its = columns_of(result, "groups")
    among, alone = (filled(its[key]) for key in ("layer_time_s", "alone_layer_time_s"))
    divisor, unit = axis_scale(among, "s")
    rows = tuple(f"group {number}" for number in its["group"])
    groups = {"among the others": among / divisor, "alone": alone / divisor}
    return DotChart(**worded("groups", unit=unit), rows=rows, groups=groups)
