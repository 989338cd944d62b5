"""One step: a batch routed through the layers, then run on the clock.

State (the routers' biases) goes round from step to step; nothing calls back from the right to the left. Layers that
share a recorded layer share its routing and traffic; only the clock treats them apart.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moesim.balance import update_bias
from moesim.simulation.kernels import KernelLedger
from moesim.simulation.load import LayerLoad, RoutedLayer, layer_load, route_layer
from moesim.simulation.parts import Parts, read_bias
from moesim.simulation.rows import bucket_width_s
from moesim.simulation.tolerance import steps_pay
from moesim.timeline import LayerTrace, LayerWork, LinkSeries, run_layers
from moesim.workload import Batch

OFFSET_STAGE = 4


@dataclass(frozen=True)
class State:
    """What one step hands to the next: the bias of each recorded layer, [experts]; None where there is none."""

    bias: dict[int, NDArray[np.float32] | None]


def initial_state(parts: Parts, batch: Batch) -> State:
    """The biases that the scenario asks for: as recorded, none, or from a file."""
    if parts.router.kind != "v3" or parts.scenario.routing.bias == "zero":
        return State(dict.fromkeys(batch.layers))
    if parts.scenario.routing.bias == "recorded":
        return State({layer: batch.bias.get(layer) for layer in batch.layers})
    return State({layer: read_bias(parts) for layer in batch.layers})


def route_step(parts: Parts, state: State, batch: Batch) -> tuple[dict[int, RoutedLayer], State]:
    """Route one batch through the layers that are simulated.

    Returns:
        Each layer's routing, and the state for the next step: the biases moved by this step's loads where the
        scenario asks for it (arXiv:2408.15664, Alg. 1), else as they were.
    """
    layers = batch.layers[: parts.scenario.workload.layers_simulated]
    routed = {layer: route_layer(parts, batch, layer, state.bias[layer]) for layer in layers}
    if not parts.scenario.routing.update_bias:
        return routed, state
    rate, none = parts.scenario.losses.bias_rate, np.zeros(parts.router.n_experts)
    moved: dict[int, NDArray[np.float32] | None] = {}
    for layer in layers:
        bias = state.bias[layer]
        before = none if bias is None else bias
        moved[layer] = update_bias(before, routed[layer].expert_tokens, rate).astype(np.float32)
    return routed, State(state.bias | moved)


def clock_step(
    parts: Parts,
    routed: Mapping[int, RoutedLayer],
    ledger: KernelLedger,
    start_offset_s: NDArray[np.float64],
    collect: Callable[[LayerLoad, LayerTrace], None],
    bucket_s: float | None = None,
) -> LinkSeries:
    """Run one routed batch through all layers on the clock.

    Args:
        parts: of the scenario.
        routed: routing of each recorded layer; they are cycled where more are simulated.
        ledger: takes the kernels' seconds by source.
        start_offset_s: when each rank enters the first layer, [ranks].
        collect: receives each layer as its last rank leaves it.
        bucket_s: width of the time buckets of the links' use; None for one that shows a dispatch well.

    Returns:
        What the links carried over time.
    """
    layers = tuple(routed)
    n_layers = parts.scenario.workload.layers_simulated or len(layers)
    other_time = parts.scenario.schedule.other_time
    loads: dict[int, LayerLoad] = {}

    def load_of(index: int) -> LayerLoad:
        layer = layers[index % len(layers)]
        if layer not in loads:
            loads[layer] = layer_load(parts, routed[layer], ledger)
        return loads[layer]

    def work_of(index: int) -> LayerWork:
        load = load_of(index)
        kernels = load.kernels
        return LayerWork(
            gate_s=kernels.gate_s,
            permute_s=kernels.permute_s,
            shared_expert_s=kernels.shared_expert_s,
            experts_s=kernels.experts_s,
            unpermute_s=kernels.unpermute_s,
            dispatch=load.flows["dispatch"],
            combine=load.flows["combine"],
            permute_first=parts.algorithm.permutes_first,
        )

    if bucket_s is None:
        bucket_s = bucket_width_s(parts.fabric, load_of(0), float(start_offset_s.max()), n_layers, other_time)
    return run_layers(
        parts.fabric,
        n_layers,
        work_of,
        lambda trace: collect(load_of(trace.layer), trace),
        start_offset_s,
        other_time,
        bucket_s,
        parts.scenario.network.tolerance if steps_pay(load_of(0).flows) else 0.0,
    )
