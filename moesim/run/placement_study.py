"""Placements of one scenario's experts compared by the load that they give the hottest slot, rank and node."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.balance import imbalance
from moesim.layer import build_parts, open_workload, replica_seed
from moesim.placement import Placement, contiguous, eplb, round_robin
from moesim.routing import route
from moesim.run.steps import initial_state, route_step
from moesim.scenario import Scenario


def compare_placements(scenario: Scenario, redundant_experts: int | None) -> list[dict[str, Any]]:
    """Compare every placement policy on the first layer's load.

    Args:
        scenario: gives the tokens, the router and the cluster.
        redundant_experts: replicas, where a policy has them; None for as many as fill the ranks evenly, at least one.

    Returns:
        One row per placement: slots, and max / mean load of slots, ranks and nodes, each selection going to the replica
        that the scenario's ``placement.replica_choice`` takes.
    """
    parts = build_parts(scenario)
    batch = open_workload(parts).batch(0)
    layer, fabric, experts = batch.layers[0], parts.fabric, parts.router.n_experts
    if batch.logits is not None:
        ids = route(batch.logits[layer], parts.router, initial_state(parts, batch).bias[layer]).expert_ids
    else:
        ids = (batch.expert_ids or {})[layer]
    ids = ids[batch.token_index]
    load = np.bincount(ids[ids >= 0], minlength=experts)
    ranks = fabric.n_ranks
    extra = redundant_experts if redundant_experts is not None else -experts % ranks or ranks
    placements = {one.__name__: one(experts, ranks) for one in (contiguous, round_robin)}
    for slots in sorted({experts + (-experts % ranks), experts + extra}):
        placements[f"eplb, {slots - experts} redundant"] = eplb(
            load, n_slots=slots, n_ranks=ranks, n_nodes=fabric.n_nodes, n_groups=parts.router.n_groups
        )
    if parts.placement_map is not None:
        placements[f"file {scenario.placement.file}"] = parts.placement_map.for_layer(layer)
    rows = []
    for name, placement in placements.items():
        taken = placement.choose(
            ids, batch.token_rank, fabric.ranks_per_node, parts.placement.replica_choice, replica_seed(parts)
        )
        per_slot = np.bincount(taken[taken >= 0], minlength=placement.n_slots)
        rows.append({"placement": name, **_row(placement, per_slot, fabric.rank_node)})
    return rows


def map_of(scenario: Scenario) -> Placement:
    """Return where the experts of each layer are when the scenario runs: by its policy and the first batch's load."""
    parts = build_parts(scenario)
    batch = open_workload(parts).batch(0)
    step, _ = route_step(parts, initial_state(parts, batch), batch)
    placed = [step.layers[layer].placement for layer in step.layers]
    rows = np.stack([one.slot_expert for one in placed])
    return Placement(rows, placed[0].slot_rank, parts.fabric.n_ranks, tuple(step.layers))


def _row(placement: Placement, per_slot: NDArray[np.int64], rank_node: NDArray[np.int32]) -> dict[str, Any]:
    per_rank = np.bincount(placement.slot_rank, weights=per_slot, minlength=len(rank_node))
    per_node = np.bincount(rank_node, weights=per_rank)
    return {
        "slots": placement.n_slots,
        "slot": imbalance(per_slot).max_over_mean,
        "rank": imbalance(per_rank).max_over_mean,
        "node": imbalance(per_node).max_over_mean,
    }
