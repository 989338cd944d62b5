"""What a scenario's tokens select, as recorded routing: for benchmarks of engines, and to look at without a run."""

import numpy as np

from moesim.dumps import RoutingTrace, Source
from moesim.layer import build_parts, open_workload
from moesim.routing import route
from moesim.run.routed_steps import initial_state
from moesim.scenario import Scenario


def drawn_routing(scenario: Scenario, step: int = 0) -> RoutingTrace:
    """Return the experts of every token of a step's batch, by the rank it starts on; biases are the first step's.

    Raises:
        InputError: the scenario's parts do not fit each other, or one of its files cannot be used.
    """
    parts = build_parts(scenario)
    batch = open_workload(parts).batch(step)
    rows = dict(batch.expert_ids or {})
    for layer, logits in (batch.logits or {}).items():
        rows[layer] = route(logits, parts.router, initial_state(parts, batch).bias[layer]).expert_ids
    return RoutingTrace(
        "ids", batch.layers, parts.router.n_experts, Source("moesim", f"scenario {scenario.name}"),
        top_k=parts.router.top_k, ids=np.stack([rows[layer][batch.token_index] for layer in batch.layers]),
        rank=batch.token_rank, sequence=batch.sequence, notes=batch.notes,
    )  # fmt: skip
