"""What a scenario's tokens select, as recorded routing: for benchmarks of engines, and to look at without a run."""

from dataclasses import replace

import numpy as np

from moesim.dumps import RoutingTrace, Source
from moesim.layer import build_parts, open_workload
from moesim.routing import route
from moesim.run.steps import initial_state
from moesim.scenario import Scenario


def drawn_routing(scenario: Scenario, step: int = 0) -> RoutingTrace:
    """Return the experts of every token of a batch, in the order of the ranks that they start on.

    Args:
        scenario: gives tokens, router and cluster; its biases are those of the first step.
        step: number of the batch.

    Raises:
        InputError: the scenario's parts do not fit each other, or one of its files cannot be used.
    """
    parts = build_parts(scenario)
    batch = open_workload(parts).batch(step)
    rows = batch.expert_ids
    if batch.logits is not None:
        bias = initial_state(parts, batch).bias
        rows = {layer: route(own, parts.router, bias[layer]).expert_ids for layer, own in batch.logits.items()}
    assert rows is not None  # noqa: S101 - a batch has logits or experts by construction
    layers = batch.layers
    trace = RoutingTrace(
        "ids", layers, parts.router.n_experts, Source("moesim", f"scenario {scenario.name}"), top_k=parts.router.top_k,
        ids=np.stack([rows[layer][batch.token_index] for layer in layers]), rank=batch.token_rank,
        sequence=batch.sequence, notes=batch.notes,
    )  # fmt: skip
    return replace(trace, step=np.full(batch.tokens, step, np.int32))
