"""One layer's router: the experts of each distinct token, and the figures that follow from router and logits alone.

Logits that the fused kernel takes are routed and measured in one pass; the others are routed, then measured in NumPy,
which is slower and gives the same sums.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.balance import device_numbers, loss_products, measure, sequence_imbalance
from moesim.layer.parts import Parts
from moesim.routing import RouterSpec, RouterSums, fused_pass_takes, route, route_and_measure
from moesim.workload import Batch

_NAMES = ("expert_loss", "device_loss", "communication_loss", "sequence_loss", "z_loss", "gate_mass_lost")


@dataclass(frozen=True)
class Selection:
    """What the router decided for the distinct tokens.

    Attributes:
        expert_ids: int32 [D, K].
        gates: [D, K]; None where the workload gives the experts.
        figures: losses, gate mass lost and imbalance within sequences by name; None where they do not apply.
        loss_products: what each loss is the product of; nothing where no router runs.
    """

    expert_ids: NDArray[np.int32]
    gates: NDArray[Any] | None
    figures: dict[str, float | None]
    loss_products: dict[str, dict[str, float]] = field(default_factory=dict)


def select_experts(parts: Parts, batch: Batch, layer: int, bias: NDArray[np.float32] | None) -> Selection:
    """Route one layer's distinct tokens.

    Args:
        parts: of the scenario.
        batch: the tokens.
        layer: which of the batch's layers.
        bias: of the V3 router, [experts]; None for none.
    """
    spec, (weight, sequence) = parts.router, batch.of_rows
    if batch.logits is None:
        assert batch.expert_ids is not None  # noqa: S101 - a batch has one or the other by construction
        ids = batch.expert_ids[layer]
        within = sequence_imbalance(ids, sequence, spec.n_experts)
        return Selection(ids, None, _within(within) | dict.fromkeys(_NAMES))
    logits = batch.logits[layer]
    biased = bias is not None and bool(np.any(bias))
    measured = route_and_measure if fused_pass_takes(spec, logits.dtype, biased) else route_then_measure
    ids, gates, sums = measured(
        logits,
        spec,
        bias,
        weight=weight,
        device_of_expert=device_numbers(parts.loss_device, spec),
        sequence_id=sequence,
    )
    assert sums.sequences is not None  # noqa: S101 - they were given
    products = loss_products(sums, spec, parts.loss_device, parts.loss_factors)
    figures: dict[str, float | None] = {
        **_within(sums.sequences.max_over_mean),
        **{name: math.prod(product.values()) for name, product in products.items()},
        "gate_mass_lost": sums.gate_mass_lost / sums.weight,
    }
    return Selection(ids, gates, figures, products)


def route_then_measure(
    logits: NDArray[Any], spec: RouterSpec, bias: NDArray[np.float32] | None, **given: NDArray[Any]
) -> tuple[NDArray[np.int32], NDArray[Any], RouterSums]:
    """Do what ``route_and_measure`` does, for the routers and logits that it does not take."""
    assignment = route(logits, spec, bias)
    counted = assignment.expert_ids
    if spec.kind == "v3" and (spec.limited or bias is not None):
        # DeepSeek-V3 eq. 18 counts the top-k of the unbiased scores, whatever the token's experts were in the end.
        counted = route(logits, unrestricted(spec)).expert_ids
    sums = measure(logits, assignment.expert_ids, spec, counted_ids=counted, **given)
    return assignment.expert_ids, assignment.gates, sums


def unrestricted(spec: RouterSpec) -> RouterSpec:
    """The same router without its group limit."""
    return replace(spec, n_groups=1, top_groups=1, group_of_expert=None)


def _within(max_over_mean: NDArray[np.float64]) -> dict[str, float | None]:
    return {
        "sequence_imbalance_p50": float(np.percentile(max_over_mean, 50)),
        "sequence_imbalance_p99": float(np.percentile(max_over_mean, 99)),
    }
