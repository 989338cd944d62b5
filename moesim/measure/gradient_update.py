"""What a training step does after its last gradient: reduce gradients, update weights, gather them (ZeRO-1).

Gradients are summed in FP32 over all copies of a weight and scattered, each rank updates its part, and BF16 weights are
gathered. Experts have a copy in every expert-parallel group of a stage, what is no expert on every GPU of it; DualPipe
doubles both. Ranks of a node share what leaves it. Nothing hides these transfers, and groups do not meet on links.
"""

from collections.abc import Sequence

import numpy as np

from moesim.cluster import Fabric
from moesim.layer import Inference, Parts, Training
from moesim.measure.pipeline_stages import Stage

_GRADIENT_BYTES, _WEIGHT_BYTES = 4.0, 2.0


def update_seconds(
    parts: Parts, step: Inference, training: Training, stages: Sequence[Stage], embeddings: float
) -> dict[str, float]:
    """Return the seconds of each part, in the order of time, on a rank that holds ``stages`` and so many embeddings."""
    spec, constants, fabric = step.spec, step.constants, parts.fabric
    copies = 2 if training.pipeline == "dualpipe" else 1
    near, group = fabric.ranks_per_node, fabric.n_ranks * training.groups
    experts = parts.n_slots / fabric.n_ranks * spec.expert_parameters * sum(stage.moe for stage in stages)
    plain = _plain_parameters(step) * sum(stage.moe + stage.dense for stage in stages)
    # Multi-token prediction shares the head that it is counted with.
    heads = sum(stage.heads for stage in stages) + (0.0 if spec.tied else embeddings)
    plain += spec.vocab * spec.hidden * heads
    reduced = gathered = updated = 0.0
    for parameters, ranks, in_node in (
        (plain, group * copies, min(near, group)),
        (experts, training.groups * copies, max(min(near // fabric.n_ranks, training.groups), 1)),
    ):
        seconds = collective_seconds(fabric, parameters, ranks, in_node) / constants.collective_share
        reduced, gathered = reduced + seconds * _GRADIENT_BYTES, gathered + seconds * _WEIGHT_BYTES
        updated += parameters / ranks
    memory = parts.kernels.gpu.hbm_bandwidth * constants.attention_memory_share
    return {
        "gradients reduced": reduced,
        "optimizer": updated * constants.optimizer_bytes / memory,
        "weights gathered": gathered,
    }


def collective_seconds(fabric: Fabric, moved_bytes: float, ranks: int, in_node: int) -> float:
    """Return what a reduce-scatter or all-gather takes at the peak, in rings through every NIC of a node.

    Every NVLink port carries (n - 1) / n of the bytes of n ranks, every NIC its share of (N - 1) / N for N nodes.

    Args:
        fabric: of the cluster.
        moved_bytes: that each rank holds.
        ranks: that take part; ``in_node``: so many in each node, which share the node's NICs.
    """
    nodes = -(-ranks // in_node)
    inside = moved_bytes * (ranks - 1) / ranks / port_rate(fabric, "nvlink") if in_node > 1 else 0.0
    between = moved_bytes * (nodes - 1) / nodes / in_node / port_rate(fabric, "nic") if nodes > 1 else 0.0
    return max(inside, between)


def port_rate(fabric: Fabric, link_class: str) -> float:
    """Return bytes/s of a GPU over a class of links, its share of its node's; where there is none, over any."""
    ports = np.flatnonzero(fabric.is_class(link_class) & fabric.sender_port)
    node = fabric.rank_names[0].partition(".")[0] + "."
    own = [float(fabric.capacity[port]) for port in ports if fabric.link_source[port].startswith(node)]
    if own:
        return sum(own) / fabric.ranks_per_node
    return float(fabric.capacity[ports].max() if len(ports) else fabric.capacity.max())


def _plain_parameters(step: Inference) -> float:
    """Weights of a layer that are no routed expert's."""
    spec = step.spec
    experts = spec.moe_layers * spec.n_experts * spec.expert_parameters
    tables = (1 if spec.tied else 2) * spec.vocab * spec.hidden
    return (spec.total_parameters - spec.looked_up - experts - tables) / spec.layers
