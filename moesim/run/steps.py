"""The steps of a run: each batch routed, put on the clock, audited and summed up.

State (the routers' biases, placements that stay) goes round from step to step. Layers that share a recorded layer share
its routing and traffic; only the clock treats them apart.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from moesim.balance import update_bias
from moesim.layer import KernelLedger, LayerLoad, Parts, RoutedLayer, first_bias, layer_load, route_layer
from moesim.measure import CriticalRank, SummaryBuilder, bucket_width_s, steps_pay
from moesim.placement import Placement
from moesim.run.audit import audit_components, audit_layer
from moesim.run.offsets import start_offsets
from moesim.timeline import LayerTrace, LayerWork, LinkSeries, moe_layers, run_layers
from moesim.traffic import Floats
from moesim.workload import Batch

_OFFSET_STAGE = 4


@dataclass(frozen=True)
class State:
    """What one step hands to the next.

    Attributes:
        bias: of each recorded layer's router, [experts]; None where there is none.
        placement: of the recorded layers whose experts stay where they are; the others' are placed by the step's load.
    """

    bias: Mapping[int, NDArray[np.float32] | None]
    placement: Mapping[int, Placement] = field(default_factory=dict)


@dataclass(frozen=True)
class RoutedStep:
    """One batch after routing: of each recorded layer, where its tokens go.

    Attributes:
        given: the experts came with the workload, no router ran; some tokens may have fewer than top-k.
    """

    layers: dict[int, RoutedLayer]
    tokens: int
    distinct_tokens: int
    given: bool


@dataclass(frozen=True)
class TimedLayer:
    """One layer after the clock.

    Attributes:
        step: which of the run's.
        recorded: the recorded layer that it stands for.
        wire: bytes on each link by phase, [links].
        row: its figures by the names of the ``steps`` table; None where one does not apply.
    """

    step: int
    recorded: int
    load: LayerLoad
    trace: LayerTrace
    wire: dict[str, Floats]
    row: dict[str, float | None]
    critical: CriticalRank

    @property
    def where(self) -> dict[str, int]:
        """The first columns of its rows in every table."""
        return {"step": self.step, "layer": self.trace.layer, "micro_batch": self.trace.micro_batch}


def initial_state(parts: Parts, batch: Batch) -> State:
    """The biases that the scenario asks for, as recorded, none, or from a file; the placement, if a file gives it."""
    placed = parts.placement_map
    placement = {} if placed is None else {layer: placed.for_layer(layer) for layer in batch.layers}
    return State(first_bias(parts, batch), placement)


def route_steps(parts: Parts, batches: Iterable[Batch]) -> Iterator[RoutedStep]:
    """Route one batch after the other, the state of each step coming from the one before."""
    state: State | None = None
    for batch in batches:
        step, state = route_step(parts, state or initial_state(parts, batch), batch)
        yield step


def route_step(parts: Parts, state: State, batch: Batch) -> tuple[RoutedStep, State]:
    """Route one batch through the layers that are simulated.

    Returns:
        Its routing, and the state for the next step: the biases moved by this step's loads where the scenario asks for
        it (arXiv:2408.15664, Alg. 1), else as they were.
    """
    layers = batch.layers[: parts.workload.layers_simulated]
    routed = {
        layer: route_layer(parts, batch, layer, state.bias[layer], state.placement.get(layer)) for layer in layers
    }
    step = RoutedStep(routed, batch.tokens, batch.distinct_tokens, given=batch.logits is None)
    if not parts.update_bias:
        return step, state
    rate, none = parts.losses.bias_rate, np.zeros(parts.router.n_experts)
    moved: dict[int, NDArray[np.float32] | None] = {}
    for layer in layers:
        bias = state.bias[layer]
        before = none if bias is None else bias
        moved[layer] = update_bias(before, routed[layer].expert_tokens, rate).astype(np.float32)
    return step, replace(state, bias={**state.bias, **moved})


def run_steps(
    parts: Parts,
    steps: Iterable[RoutedStep],
    summary: SummaryBuilder,
    ledger: KernelLedger,
    bucket_s: float | None = None,
) -> Iterator[TimedLayer | LinkSeries]:
    """Put routed steps on the clock, each on one of its own, and audit every layer.

    Args:
        parts: of the scenario.
        steps: from ``route_steps``, or routed before.
        summary: takes in every layer and step.
        ledger: takes the kernels' seconds by source.
        bucket_s: width of the time buckets of the links' use; None for one that shows a dispatch well.

    Yields:
        Each layer, and behind the last one of a step what the links carried over that step.

    Raises:
        InvariantError: a law of the simulator was broken.
    """
    arrivals, rng = parts.schedule.start_offset, parts.rng(_OFFSET_STAGE)
    offsets = start_offsets(arrivals, parts.fabric.n_ranks, rng)
    for index, step in enumerate(steps):
        loads = _Loads(parts, step, ledger)
        for timed in _on_the_clock(parts, loads, offsets, bucket_s):
            if isinstance(timed, LayerTrace):
                yield _audited(parts, index, step, loads, timed, summary)
            else:
                summary.end_step(step.tokens, step.distinct_tokens)
                yield timed


class _Loads:
    """The loads of a step's layers, made when the first rank comes to them; recorded layers are cycled."""

    def __init__(self, parts: Parts, step: RoutedStep, ledger: KernelLedger) -> None:
        self._parts, self._routed, self._ledger = parts, step.layers, ledger
        self._recorded = tuple(step.layers)
        self._made: dict[int, LayerLoad] = {}
        self.n_layers = parts.workload.layers_simulated or len(step.layers)

    def recorded(self, layer: int) -> int:
        """The recorded layer that a simulated one stands for."""
        return self._recorded[layer % len(self._recorded)]

    def of(self, layer: int) -> LayerLoad:
        recorded = self.recorded(layer)
        if recorded not in self._made:
            self._made[recorded] = layer_load(self._parts, self._routed[recorded], self._ledger)
        return self._made[recorded]


def _on_the_clock(
    parts: Parts, loads: _Loads, start_offset_s: Floats, bucket_s: float | None
) -> Iterator[LayerTrace | LinkSeries]:
    def work_of(layer: int, _: int) -> LayerWork:
        load = loads.of(layer)
        return LayerWork(load.kernels.seconds, load.flows)

    if bucket_s is None:
        bucket_s = bucket_width_s(parts.fabric, loads.of(0), float(start_offset_s.max()), loads.n_layers)
    return run_layers(
        parts.fabric,
        moe_layers(loads.n_layers, parts.algorithm.permutes_first, other=parts.schedule.other_time > 0),
        work_of,
        start_offset_s,
        bucket_s,
        parts.tolerance if steps_pay(loads.of(0).flows) else 0.0,
    )


def _audited(
    parts: Parts, index: int, step: RoutedStep, loads: _Loads, trace: LayerTrace, summary: SummaryBuilder
) -> TimedLayer:
    fabric, top_k, load = parts.fabric, parts.router.top_k, loads.of(trace.layer)
    dropped = step.tokens * top_k - int(load.totals.selections_sent.sum()) if step.given else 0
    audit_layer(fabric, load, trace, step.tokens, top_k, dropped)
    wire = {name: flows.link_wire_bytes(fabric.n_links) for name, flows in load.flows.items()}
    row = summary.add_layer(load, trace, wire)
    critical = summary.critical[-1]
    audit_components(critical.components, trace.length_s, trace.layer)
    return TimedLayer(index, loads.recorded(trace.layer), load, trace, wire, row, critical)
