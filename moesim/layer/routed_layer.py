"""One MoE layer: routed (who receives what, and how even that is), then laid on the cluster (flows, kernel seconds)."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.balance import expert_load, imbalance, uniform_router_max_over_mean
from moesim.layer.destinations import Followed, follow_tokens, totals_of
from moesim.layer.kernel_seconds import KernelLedger, LayerKernels, layer_kernels
from moesim.layer.parts import Parts, place
from moesim.layer.selection import select_experts
from moesim.layer.step_kernels import StepPrices
from moesim.layer.token_laws import audit_tokens
from moesim.placement import Placement
from moesim.placement_policies import BATCH_POLICIES
from moesim.stages import PHASES
from moesim.traffic import Copies, CopyTotals, PhaseFlows, PortCopies, phase_flows, port_flows
from moesim.workload import WITH_REPLACEMENT, Batch

_FLOOR_STAGE = 3


@dataclass(frozen=True)
class RoutedLayer:
    """Where one layer's tokens go: follows from tokens, router and placement alone, whatever the wires and kernels.

    Attributes:
        expert_tokens: selections of each expert, [experts].
        placement: of this layer; ``slot_tokens`` and ``slot_gate_mass`` are by its slots.
        tokens: tokens that start on each rank, [ranks].
        copies: by pair; None where they are counted at the ``ports``, which are None otherwise.
        figures: balance figures and losses by the names of the ``steps`` table; None where they do not apply.
        loss_products: what each loss is the product of.
    """

    expert_tokens: NDArray[np.int64]
    placement: Placement
    slot_tokens: NDArray[np.int64]
    slot_gate_mass: NDArray[np.float64] | None
    tokens: NDArray[np.int64]
    copies: Copies | None
    ports: PortCopies | None
    figures: dict[str, float | None]
    loss_products: dict[str, dict[str, float]]

    @property
    def totals(self) -> CopyTotals:
        """Copies by source and by destination."""
        return totals_of(self.copies, self.ports)


def route_layer(
    parts: Parts, batch: Batch, layer: int, bias: NDArray[np.float32] | None, placement: Placement | None = None
) -> RoutedLayer:
    """Route one layer's logits and follow the tokens to their ranks.

    Args:
        parts: of the scenario.
        batch: tokens; only its distinct rows are routed, their answers gathered.
        layer: which of the batch's layers.
        bias: of the V3 router, [experts]; None for none.
        placement: where the experts are; None to place them by this very load. Policies that look at every batch
            start from it.
    """
    spec = parts.router
    selection = select_experts(parts, batch, layer, bias)
    rule = parts.workload.synthetic.kind if parts.workload.synthetic else None
    audit_tokens(f"layer {layer}", selection.expert_ids, selection.gates, spec, repeats=rule in WITH_REPLACEMENT)
    expert_tokens = expert_load(selection.expert_ids, spec.n_experts, batch.of_rows[0]).astype(np.int64)
    if placement is None or parts.placement.policy in BATCH_POLICIES:
        placement = place(parts, expert_tokens, lambda: selection.expert_ids[batch.token_index], placement)
    followed = follow_tokens(parts, batch, placement, selection)
    figures = _load_figures(parts, batch, expert_tokens, placement, followed)
    return RoutedLayer(
        expert_tokens=expert_tokens,
        placement=placement,
        slot_tokens=followed.slot_tokens,
        slot_gate_mass=followed.slot_gate_mass,
        tokens=batch.rank_tokens,
        copies=followed.copies,
        ports=followed.ports,
        figures=figures | selection.figures,
        loss_products=selection.loss_products,
    )


def _load_figures(
    parts: Parts, batch: Batch, expert_tokens: NDArray[np.int64], placement: Placement, followed: Followed
) -> dict[str, float | None]:
    fabric, totals = parts.fabric, totals_of(followed.copies, followed.ports)
    rank_tokens = np.bincount(np.asarray(placement.slot_rank), weights=followed.slot_tokens, minlength=fabric.n_ranks)
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
    for name, sent in (
        ("copies_per_token", totals.selections_sent),
        ("rank_copies_per_token", totals.ranks_sent),
        ("node_copies_per_token", totals.nodes_sent),
    ):
        figures[name] = float(sent.sum()) / batch.tokens
    figures["uniform_router_expert_max_over_mean"] = uniform_router_max_over_mean(
        batch.distinct_tokens, parts.router.n_experts, parts.router.top_k, parts.rng(_FLOOR_STAGE)
    )
    return figures


@dataclass(frozen=True)
class LayerLoad(RoutedLayer):
    """What one layer of logits asks of the cluster: its routing, the flows that carry it and the kernels' seconds.

    ``hierarchical``: copies travel per distinct node or rank rather than per selection.
    """

    flows: dict[str, PhaseFlows]
    bytes_per_copy: dict[str, int]
    hierarchical: bool
    kernels: LayerKernels


def layer_load(parts: Parts, routed: RoutedLayer, ledger: KernelLedger, backward: bool = False) -> LayerLoad:
    """Lay a routed layer on the wires and the kernels.

    ``parts``: of the scenario; ``routed``: where the tokens go; ``ledger``: takes the kernels' seconds by source;
    ``backward``: gradients go the same ways, and where they go is known already.
    """
    slot_rank = np.asarray(routed.placement.slot_rank)
    cached = parts.cached_handle or (backward and parts.algorithm.handle)
    flows = {phase: _flows(parts, routed, phase, cached) for phase in PHASES}
    if parts.inference is not None and StepPrices(parts, parts.inference).stretch > 1.0:
        # The kernels' own times have the SMs that communication holds in them.
        flows = {phase: replace(one, sms=0) for phase, one in flows.items()}
    return LayerLoad(
        **vars(routed),
        flows=flows,
        bytes_per_copy=parts.wire_bytes,
        hierarchical=parts.algorithm.copies in ("rank", "node"),
        kernels=layer_kernels(parts, routed.tokens, routed.slot_tokens, slot_rank, routed.totals, ledger, backward),
    )


def rewired(parts: Parts, load: LayerLoad) -> LayerLoad:
    """Return a load with flows on the wires and routes of other parts; where its tokens go stays, and so do kernels."""
    return replace(load, flows={phase: _flows(parts, load, phase, parts.cached_handle) for phase in PHASES})


def _flows(parts: Parts, routed: RoutedLayer, phase: str, cached: bool) -> PhaseFlows:
    common: dict[str, Any] = {
        "constants": parts.constants[phase],
        "phase": phase,
        "bytes_per_copy": parts.wire_bytes[phase],
        "cached_handle": cached,
        "tokens": routed.tokens,
        "n_experts": parts.n_slots,
    }
    if routed.ports is not None:
        return port_flows(parts.fabric, routed.ports, **common)
    assert routed.copies is not None  # noqa: S101 - one or the other by construction
    return phase_flows(parts.fabric, routed.copies, ecmp_seed=parts.ecmp_seed, **common)
