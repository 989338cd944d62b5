"""The GPUs that a scenario runs on: the whole cluster, what its faults leave of it, and the view of each group."""

import numpy as np

from moesim.cluster import Fabric, group_fabrics, load_topology, overridden
from moesim.errors import InputError
from moesim.layer.faults import Effect, effects, for_the_whole_run
from moesim.mistakes import Loc
from moesim.scenario import Scenario


def whole_cluster(scenario: Scenario) -> Fabric:
    """Build all GPUs of the cluster, overrides applied.

    Raises:
        InputError: overrides of links that are not there.
    """
    cluster = scenario.cluster
    return overridden(
        load_topology(scenario.source(cluster.name), nic_bandwidth=cluster.nic_bandwidth),
        [(override.where, override.bandwidth) for override in cluster.overrides],
        lambda loc, what, fix: scenario.error(("cluster", "overrides", *loc), what, fix),
    )


def faulty_cluster(scenario: Scenario) -> Fabric:
    """Return all GPUs of the cluster on the wires and routes that its faults leave for the whole run."""
    cluster = whole_cluster(scenario)
    return for_the_whole_run(effects_on(scenario, cluster), cluster) if scenario.faults else cluster


def views_of_groups(scenario: Scenario, cluster: Fabric, placement: str | None = None) -> list[Fabric]:
    """Return each expert-parallel group's view of the whole cluster, by the scenario's placement or another one.

    Raises:
        InputError: the groups do not fit the cluster, or no GPU at a fault is theirs.
    """
    parallel = scenario.parallel
    assert parallel.ep is not None  # noqa: S101 - several groups are of a given size
    placed = scenario.source(placement or parallel.group_placement)
    views = group_fabrics(cluster, placed, parallel.groups, parallel.ep, scenario.seed)
    for i, effect in enumerate(effects_on(scenario, cluster)):
        if effect.acts and not any(effect.of_group(cluster, view).acts for view in views):
            raise scenario.error(("faults", i, "where"), "no group has a GPU there", "name GPUs of a group")
    return views


def build_fabric(scenario: Scenario) -> Fabric:
    """Build the ranks that the scenario runs on, those of the first group where there are several.

    Raises:
        InputError: overrides of links that are not there, fewer GPUs than ranks, or nodes of different size.
    """
    if scenario.groups_at_once > 1 or scenario.parallel.group_placement != "packed":
        return views_of_groups(scenario, faulty_cluster(scenario))[0]
    fabric = whole_cluster(scenario)
    if scenario.parallel.ep is not None:
        if scenario.parallel.ep > fabric.n_ranks:
            raise InputError(
                f"ep is {scenario.parallel.ep} but {fabric.name} has {fabric.n_ranks} GPUs",
                where="parallel.ep",
                fix="lower ep or choose a larger topology",
            )
        fabric = fabric.first_ranks(scenario.parallel.ep)
    if (fabric.rank_node != np.arange(fabric.n_ranks) // fabric.ranks_per_node).any():
        raise InputError(
            f"the nodes of {fabric.name} hold different numbers of GPUs",
            where="cluster.topology",
            fix="use a topology with equally large nodes (the last may be smaller)",
        )
    return for_the_whole_run(effects_on(scenario, fabric), fabric) if scenario.faults else fabric


def effects_on(scenario: Scenario, fabric: Fabric) -> tuple[Effect, ...]:
    """Return what the scenario's faults do to a cluster, one by one."""

    def blame(loc: Loc, what: str, fix: str) -> InputError:
        return scenario.error(("faults", *loc), what, fix)

    return effects(scenario.faults, fabric, blame)
