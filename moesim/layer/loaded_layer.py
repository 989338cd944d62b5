"""One routed layer laid on the cluster: the flows that carry it and the seconds of its kernels."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from moesim.layer.kernel_seconds import KernelLedger, LayerKernels, layer_kernels
from moesim.layer.parts import Parts
from moesim.layer.routed_layer import RoutedLayer
from moesim.layer.step_kernels import StepPrices
from moesim.stages import PHASES
from moesim.traffic import PhaseFlows, phase_flows, port_flows


@dataclass(frozen=True)
class LayerLoad(RoutedLayer):
    """What one layer of logits asks of the cluster: its routing, the flows that carry it and the kernels' seconds.

    Attributes:
        hierarchical: copies travel per distinct node or rank rather than per selection.
    """

    flows: dict[str, PhaseFlows]
    bytes_per_copy: dict[str, int]
    hierarchical: bool
    kernels: LayerKernels


def layer_load(parts: Parts, routed: RoutedLayer, ledger: KernelLedger) -> LayerLoad:
    """Lay a routed layer on the wires and the kernels.

    Args:
        parts: of the scenario.
        routed: where the tokens go.
        ledger: takes the kernels' seconds by source.
    """
    slot_rank = np.asarray(routed.placement.slot_rank)
    flows = {phase: _flows(parts, routed, phase) for phase in PHASES}
    if parts.inference is not None and StepPrices(parts, parts.inference).stretch > 1.0:
        # The kernels' own times have the SMs that communication holds in them.
        flows = {phase: replace(one, sms=0) for phase, one in flows.items()}
    return LayerLoad(
        **vars(routed),
        flows=flows,
        bytes_per_copy=parts.wire_bytes,
        hierarchical=parts.algorithm.copies in ("rank", "node"),
        kernels=layer_kernels(parts, routed.tokens, routed.slot_tokens, slot_rank, routed.totals, ledger),
    )


def _flows(parts: Parts, routed: RoutedLayer, phase: str) -> PhaseFlows:
    common: dict[str, Any] = {
        "constants": parts.constants[phase],
        "phase": phase,
        "bytes_per_copy": parts.wire_bytes[phase],
        "cached_handle": parts.cached_handle,
        "tokens": routed.tokens,
        "n_experts": parts.n_slots,
    }
    if routed.ports is not None:
        return port_flows(parts.fabric, routed.ports, **common)
    assert routed.copies is not None  # noqa: S101 - one or the other by construction
    return phase_flows(parts.fabric, routed.copies, ecmp_seed=parts.ecmp_seed, **common)
