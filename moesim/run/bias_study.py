"""The bias update by itself: logits fixed, bias moving, load evening out (arXiv:2408.15664, Alg. 1)."""

from typing import Any

import numpy as np

from moesim.balance import expert_load, max_violation, update_bias
from moesim.errors import InputError
from moesim.layer import build_parts, open_workload
from moesim.routing import gate_mass_lost, route
from moesim.scenario import Scenario


def bias_dynamics(scenario: Scenario, steps: int, from_zero: bool) -> list[dict[str, Any]]:
    """Update the bias step by step on one batch's logits.

    Args:
        scenario: with a V3 router and logits; ``losses.bias_rate`` is the step of the update.
        steps: updates.
        from_zero: start without a bias rather than with the recorded one.

    Returns:
        One row per step: MaxVio, max / mean, spread of the bias and the gate mass lost, before that step's update.

    Raises:
        InputError: the router has no bias, or the workload no logits.
    """
    parts = build_parts(scenario)
    if parts.router.kind != "v3":
        raise InputError(f"a {parts.router.kind} router has no bias", where="routing.kind", fix="use v3")
    batch = open_workload(parts).batch(0)
    if batch.logits is None:
        raise InputError("these tokens come without logits", where="workload", fix="use a recording or synthetic")
    layer, spec = batch.layers[0], parts.router
    logits, weight = batch.logits[layer], batch.of_rows[0]
    bias = np.zeros(spec.n_experts) if from_zero else batch.bias[layer].astype(np.float64)
    rows = []
    for step in range(steps + 1):
        ids = route(logits, spec, bias).expert_ids
        load = expert_load(ids, spec.n_experts, weight)
        rows.append(
            {
                "step": step,
                "max_violation": max_violation(load),
                "expert_load_max_over_mean": 1 + max_violation(load),
                "bias_spread": float(bias.max() - bias.min()),
                "gate_mass_lost": float(np.average(gate_mass_lost(logits, spec, ids), weights=weight)),
            }
        )
        bias = update_bias(bias, load, rate=parts.losses.bias_rate)
    return rows
