"""One MoE layer before the clock starts: who receives what, how even it is, what it costs, which flows carry it."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.balance import (
    communication_loss,
    device_loss,
    expert_loss,
    imbalance,
    sequence_imbalance,
    sequence_loss,
    uniform_router_max_over_mean,
    z_loss,
)
from moesim.placement import Placement
from moesim.routing import RouterSpec, gate_mass_lost, route
from moesim.simulation.kernels import KernelLedger, LayerKernels, layer_kernels
from moesim.simulation.parts import PHASES, Parts, place
from moesim.traffic.alltoall import phase_flows
from moesim.traffic.copies import Copies, count_all_copies
from moesim.traffic.flows import PhaseFlows
from moesim.workload import Batch

_PLACEMENT_STAGE, _FLOOR_STAGE = 2, 3


@dataclass(frozen=True)
class RoutedLayer:
    """Where one layer's tokens go: follows from tokens, router and placement alone, whatever the wires and kernels.

    Attributes:
        expert_tokens: selections of each expert, [experts].
        placement: of this layer; ``slot_tokens`` and ``slot_gate_mass`` are by its slots.
        tokens: tokens that start on each rank, [ranks].
        figures: balance figures and losses by the names of the ``steps`` table; None where they do not apply.
    """

    expert_tokens: NDArray[np.int64]
    placement: Placement
    slot_tokens: NDArray[np.int64]
    slot_gate_mass: NDArray[np.float64] | None
    tokens: NDArray[np.int64]
    copies: Copies
    figures: dict[str, float | None]


@dataclass(frozen=True)
class LayerLoad(RoutedLayer):
    """What one layer of logits asks of the cluster: its routing, the flows that carry it and the kernels' seconds.

    Attributes:
        hierarchical: copies travel per distinct node and rank rather than per selection.
    """

    flows: dict[str, PhaseFlows]
    bytes_per_copy: dict[str, int]
    hierarchical: bool
    kernels: LayerKernels


def unrestricted(spec: RouterSpec) -> RouterSpec:
    """The same router without its group limit."""
    return replace(spec, n_groups=1, top_groups=1, group_of_expert=None)


def route_layer(parts: Parts, batch: Batch, layer: int, bias: NDArray[np.float32] | None) -> RoutedLayer:
    """Route one layer's logits and follow the tokens to their ranks.

    Args:
        parts: of the scenario.
        batch: tokens; only its distinct rows are routed, their answers gathered.
        layer: which of the batch's layers.
        bias: of the V3 router, [experts]; None for none.
    """
    fabric, spec = parts.fabric, parts.router
    gates: NDArray[Any] | None = None
    if batch.logits is not None:
        assignment = route(batch.logits[layer], spec, bias)
        distinct_ids, gates = assignment.expert_ids, assignment.gates[batch.token_index]
    else:
        assert batch.expert_ids is not None  # noqa: S101 - a batch has one or the other by construction
        distinct_ids = batch.expert_ids[layer]
    expert_ids = distinct_ids[batch.token_index]
    expert_tokens = np.bincount(expert_ids[expert_ids >= 0], minlength=spec.n_experts)

    placement = place(parts, expert_tokens)
    slots = placement.choose(
        expert_ids,
        batch.token_rank,
        fabric.ranks_per_node,
        policy=parts.scenario.placement.replica_choice,
        seed=int(parts.rng(_PLACEMENT_STAGE).integers(1 << 31)),
    )
    slot_rank = np.asarray(placement.slot_rank)
    kept = slots >= 0
    slot_tokens = np.bincount(slots[kept], minlength=placement.n_slots)
    gate_mass: NDArray[np.float64] | None = None
    if gates is not None:
        mass = np.bincount(slots[kept], weights=gates[kept], minlength=placement.n_slots)
        gate_mass = mass.astype(np.float64)
    copies = count_all_copies(slots, batch.token_rank, slot_rank, fabric.n_ranks, fabric.ranks_per_node)
    tokens = np.bincount(batch.token_rank, minlength=fabric.n_ranks)
    figures = _load_figures(parts, batch, expert_tokens, slot_tokens, slot_rank, copies)
    figures |= _router_figures(parts, batch, layer, distinct_ids, bias)
    return RoutedLayer(
        expert_tokens=expert_tokens,
        placement=placement,
        slot_tokens=slot_tokens,
        slot_gate_mass=gate_mass,
        tokens=tokens,
        copies=copies,
        figures=figures,
    )


def layer_load(parts: Parts, routed: RoutedLayer, ledger: KernelLedger) -> LayerLoad:
    """Lay a routed layer on the wires and the kernels.

    Args:
        parts: of the scenario.
        routed: where the tokens go.
        ledger: takes the kernels' seconds by source.
    """
    slot_rank = np.asarray(routed.placement.slot_rank)
    flows = {
        phase: phase_flows(
            parts.fabric,
            routed.copies,
            parts.constants[phase],
            phase,
            parts.wire_bytes[phase],
            cached_handle=parts.scenario.alltoall.cached_handle,
            ecmp_seed=parts.scenario.cluster.ecmp_seed,
        )
        for phase in PHASES
    }
    return LayerLoad(
        **vars(routed),
        flows=flows,
        bytes_per_copy=parts.wire_bytes,
        hierarchical=parts.scenario.alltoall.algorithm == "deepep-normal",
        kernels=layer_kernels(parts, routed.tokens, routed.slot_tokens, slot_rank, routed.copies, ledger),
    )


def _load_figures(
    parts: Parts,
    batch: Batch,
    expert_tokens: NDArray[np.int64],
    slot_tokens: NDArray[np.int64],
    slot_rank: NDArray[np.int32],
    copies: Copies,
) -> dict[str, float | None]:
    fabric = parts.fabric
    rank_tokens = np.bincount(slot_rank, weights=slot_tokens, minlength=fabric.n_ranks)
    experts = imbalance(expert_tokens)
    figures: dict[str, float | None] = {
        "expert_load_max_over_mean": experts.max_over_mean,
        "expert_load_mean_over_max": experts.mean_over_max,
        "max_violation": experts.max_violation,
    }
    for name, load in (("rank", rank_tokens), ("node", np.bincount(fabric.rank_node, weights=rank_tokens))):
        spread = imbalance(load)
        figures[f"{name}_load_max_over_mean"] = spread.max_over_mean
        figures[f"{name}_load_mean_over_max"] = spread.mean_over_max
        figures[f"{name}_max_violation"] = spread.max_violation
    for name, matrix in (
        ("copies_per_token", copies.selections),
        ("rank_copies_per_token", copies.rank_copies),
        ("node_copies_per_token", copies.node_copies),
    ):
        figures[name] = float(matrix.sum()) / batch.tokens
    figures["uniform_router_expert_max_over_mean"] = uniform_router_max_over_mean(
        batch.distinct_tokens, parts.router.n_experts, parts.router.top_k, parts.rng(_FLOOR_STAGE)
    )
    return figures


def _router_figures(
    parts: Parts, batch: Batch, layer: int, ids: NDArray[np.int32], bias: NDArray[np.float32] | None
) -> dict[str, float | None]:
    """Losses, gate mass lost and imbalance within sequences, over the distinct tokens weighted by their copies."""
    spec, losses = parts.router, parts.scenario.losses
    weight = np.bincount(batch.token_index, minlength=batch.distinct_tokens)
    row_sequence = np.full(batch.distinct_tokens, np.iinfo(np.int32).max, np.int32)
    np.minimum.at(row_sequence, batch.token_index, batch.sequence)
    within = sequence_imbalance(ids, row_sequence, spec.n_experts)
    figures: dict[str, float | None] = {
        "sequence_imbalance_p50": float(np.percentile(within, 50)),
        "sequence_imbalance_p99": float(np.percentile(within, 99)),
    }
    names = ("expert_loss", "device_loss", "communication_loss", "sequence_loss", "z_loss", "gate_mass_lost")
    if batch.logits is None:
        return figures | dict.fromkeys(names)
    logits = batch.logits[layer]
    common: dict[str, Any] = {"weight": weight, "with_grad": False}
    device, form = parts.loss_device, losses.form
    # DeepSeek-V3 eq. 18 counts the top-k of the unbiased scores, whatever the token's experts were in the end.
    of_sequence = ids
    if spec.kind == "v3" and (spec.limited or bias is not None):
        of_sequence = route(logits, unrestricted(spec)).expert_ids
    lost = gate_mass_lost(logits, spec, ids)
    return figures | {
        "expert_loss": expert_loss(logits, ids, spec, alpha=losses.expert, form=form, **common).value,
        "device_loss": device_loss(logits, ids, spec, device, alpha=losses.device, **common).value,
        "communication_loss": communication_loss(
            logits, ids, spec, device, alpha=losses.communication, form=form, **common
        ).value,
        "sequence_loss": sequence_loss(logits, of_sequence, spec, row_sequence, alpha=losses.sequence, **common).value,
        "z_loss": z_loss(logits, alpha=losses.z, **common).value,
        "gate_mass_lost": float(np.average(lost, weights=weight)),
    }
