"""One layer's router: the experts of each distinct token, and the figures that follow from router and logits alone.

Logits that the fused kernel takes are routed and measured in one pass; the others by ``route`` and the losses one by
one, which is slower and says the same.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.balance import (
    LossFactors,
    communication_loss,
    device_loss,
    expert_loss,
    losses_of_sums,
    sequence_imbalance,
    sequence_loss,
    z_loss,
)
from moesim.balance.losses import device_numbers
from moesim.routing import RouterSpec, fits, gate_mass_lost, route, route_and_measure
from moesim.simulation.parts import Parts
from moesim.workload import Batch

_NAMES = ("expert_loss", "device_loss", "communication_loss", "sequence_loss", "z_loss", "gate_mass_lost")


@dataclass(frozen=True)
class Selection:
    """What the router decided for the distinct tokens.

    Attributes:
        expert_ids: int32 [D, K].
        gates: [D, K]; None where the workload gives the experts.
        figures: losses, gate mass lost and imbalance within sequences by name; None where they do not apply.
    """

    expert_ids: NDArray[np.int32]
    gates: NDArray[Any] | None
    figures: dict[str, float | None]


def select_experts(
    parts: Parts, batch: Batch, layer: int, bias: NDArray[np.float32] | None, weight: NDArray[np.int64]
) -> Selection:
    """Route one layer's distinct tokens.

    Args:
        parts: of the scenario.
        batch: the tokens.
        layer: which of the batch's layers.
        bias: of the V3 router, [experts]; None for none.
        weight: how many simulated tokens each distinct one stands for, [D].
    """
    spec = parts.router
    sequence = np.full(batch.distinct_tokens, np.iinfo(np.int32).max, np.int32)
    np.minimum.at(sequence, batch.token_index, batch.sequence)
    if batch.logits is None:
        assert batch.expert_ids is not None  # noqa: S101 - a batch has one or the other by construction
        ids = batch.expert_ids[layer]
        within = sequence_imbalance(ids, sequence, spec.n_experts)
        return Selection(ids, None, _within(within) | dict.fromkeys(_NAMES))
    logits = batch.logits[layer]
    if fits(spec, logits.dtype, bias is not None and bool(np.any(bias))):
        return _in_one_pass(parts, logits, bias, weight, sequence)
    return _one_by_one(parts, logits, bias, weight, sequence)


def _in_one_pass(
    parts: Parts,
    logits: NDArray[Any],
    bias: NDArray[np.float32] | None,
    weight: NDArray[np.int64],
    sequence: NDArray[np.int32],
) -> Selection:
    losses = parts.losses
    ids, gates, sums = route_and_measure(
        logits,
        parts.router,
        bias,
        weight=weight,
        device_of_expert=device_numbers(parts.loss_device, parts.router),
        sequence_id=sequence,
    )
    assert sums.sequences is not None  # noqa: S101 - they were given
    factors = LossFactors(
        losses.expert, losses.device, losses.communication, losses.sequence, losses.z, form=losses.form
    )
    figures: dict[str, float | None] = {
        **_within(sums.sequences.max_over_mean),
        **losses_of_sums(sums, parts.router, parts.loss_device, factors),
        "gate_mass_lost": sums.gate_mass_lost / sums.weight,
    }
    return Selection(ids, gates, figures)


def _one_by_one(
    parts: Parts,
    logits: NDArray[Any],
    bias: NDArray[np.float32] | None,
    weight: NDArray[np.int64],
    sequence: NDArray[np.int32],
) -> Selection:
    spec, losses = parts.router, parts.losses
    assignment = route(logits, spec, bias)
    ids = assignment.expert_ids
    common: dict[str, Any] = {"weight": weight, "with_grad": False}
    device, form = parts.loss_device, losses.form
    # DeepSeek-V3 eq. 18 counts the top-k of the unbiased scores, whatever the token's experts were in the end.
    of_sequence = ids
    if spec.kind == "v3" and (spec.limited or bias is not None):
        of_sequence = route(logits, unrestricted(spec)).expert_ids
    lost = gate_mass_lost(logits, spec, ids)
    figures: dict[str, float | None] = {
        **_within(sequence_imbalance(ids, sequence, spec.n_experts)),
        "expert_loss": expert_loss(logits, ids, spec, alpha=losses.expert, form=form, **common).value,
        "device_loss": device_loss(logits, ids, spec, device, alpha=losses.device, **common).value,
        "communication_loss": communication_loss(
            logits, ids, spec, device, alpha=losses.communication, form=form, **common
        ).value,
        "sequence_loss": sequence_loss(logits, of_sequence, spec, sequence, alpha=losses.sequence, **common).value,
        "z_loss": z_loss(logits, alpha=losses.z, **common).value,
        "gate_mass_lost": float(np.average(lost, weights=weight)),
    }
    return Selection(ids, assignment.gates, figures)


def unrestricted(spec: RouterSpec) -> RouterSpec:
    """The same router without its group limit."""
    return replace(spec, n_groups=1, top_groups=1, group_of_expert=None)


def _within(max_over_mean: NDArray[np.float64]) -> dict[str, float | None]:
    return {
        "sequence_imbalance_p50": float(np.percentile(max_over_mean, 50)),
        "sequence_imbalance_p99": float(np.percentile(max_over_mean, 99)),
    }
