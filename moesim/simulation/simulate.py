"""From a scenario to its result: the only place that knows every stage.

State (the routers' biases) goes round from step to step; nothing calls back from the right to the left. Layers that
share a recorded layer share its routing and traffic; only the clock treats them apart.
"""

import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim import __version__
from moesim.balance import update_bias
from moesim.results import Note, Result, TableBuilder, Tables, nulls
from moesim.scenario import Scenario
from moesim.scenario.dump import to_yaml
from moesim.simulation.audit import audit_components, audit_layer
from moesim.simulation.batches import Workload, add_training_rows, open_workload
from moesim.simulation.explanation import explanation
from moesim.simulation.following import PORTS_NOTE, uses_ports
from moesim.simulation.kernels import KernelLedger
from moesim.simulation.load import LayerLoad, RoutedLayer, layer_load, route_layer
from moesim.simulation.offsets import start_offsets
from moesim.simulation.parts import PHASES, Parts, build_parts, counterfactuals, read_bias
from moesim.simulation.rows import RANK_PAIR_LIMIT, add_layer_rows, add_series_rows, bucket_width_s
from moesim.simulation.summary import SummaryBuilder
from moesim.simulation.tolerance import ToleranceLedger, steps_pay
from moesim.timeline import LayerTrace, LayerWork, LinkSeries, run_layers
from moesim.workload import Batch

OFFSET_STAGE = 4
# Layers with curves of link utilisation over time; more would swell the result and say the same.
_SERIES_LAYERS = 4
# Flows kept for ``flows.npz``; past this the file would outgrow everything else.
_FLOW_LIMIT = 2_000_000

Progress = Callable[[str], None]


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


def simulate(scenario: Scenario, progress: Progress | None = None) -> Result:
    """Simulate one scenario (its ``variants`` are ignored).

    Args:
        scenario: from ``moesim.load_scenario``.
        progress: called with a line when a stage begins.

    Returns:
        The result, byte-identical for the same scenario and seed but for its provenance.

    Raises:
        InputError: parts of the scenario do not fit each other, or a file of it cannot be used.
        InvariantError: a law of the simulator was broken; no result is returned.
    """
    began = time.monotonic()
    say = progress or (lambda _: None)
    say("topology, model and kernel tables")
    parts = build_parts(scenario)
    workload = open_workload(parts)
    run = _Run(parts, workload)
    for index in range(scenario.workload.steps):
        say(f"step {index}: routing and timeline")
        run.step(index)
    say("tables")
    result = run.result()
    result.provenance.update(
        {
            "moesim": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "machine": platform.machine(),
            "utc": datetime.now(UTC).isoformat(timespec="seconds"),
            "wall_s": round(time.monotonic() - began, 3),
            "scenario_sha256": scenario.digest(),
        }
    )
    return result


class _Run:
    """Collects the steps of one simulation."""

    def __init__(self, parts: Parts, workload: Workload) -> None:
        self._parts, self._workload = parts, workload
        self._tables, self._summary = TableBuilder(), SummaryBuilder(parts)
        self._ledger = KernelLedger()
        self._tolerance = ToleranceLedger(parts.scenario.network.tolerance)
        arrivals, rng = parts.scenario.schedule.start_offset, parts.rng(OFFSET_STAGE)
        self._offsets = start_offsets(arrivals, parts.fabric.n_ranks, rng)
        self._state: State | None = None
        self._batch: Batch | None = None
        self._loads: dict[int, LayerLoad] = {}
        self._first_traces: list[LayerTrace] = []
        self._flows: list[dict[str, NDArray[Any]]] = []
        self._n_flows = 0
        self._traffic: dict[str, NDArray[Any]] = {}
        self._tokens = self._distinct = 0

    def step(self, index: int) -> None:
        parts = self._parts
        batch = self._workload.batch(index)
        self._state = self._state or initial_state(parts, batch)
        self._batch = self._batch or batch
        self._tokens = max(self._tokens, batch.tokens)
        self._distinct = max(self._distinct, batch.distinct_tokens)
        collected: dict[int, tuple[LayerLoad, LayerTrace]] = {}
        rows_from = len(self._summary.layers)

        def collect(load: LayerLoad, trace: LayerTrace) -> None:
            collected[trace.layer] = (load, trace)
            ready = len(self._summary.layers) - rows_from
            while ready in collected:
                self._add_layer(index, batch, *collected.pop(ready))
                ready += 1

        routed, self._state = route_step(parts, self._state, batch)
        series = clock_step(parts, routed, self._ledger, self._offsets, collect)
        self._summary.end_step()
        for trace in self._first_traces:
            where = {"step": index, "layer": trace.layer, "micro_batch": 0}
            add_series_rows(self._tables, where, parts.fabric, trace, series)
        self._first_traces.clear()

    def _add_layer(self, step_index: int, batch: Batch, load: LayerLoad, trace: LayerTrace) -> None:
        parts = self._parts
        asked, dropped = batch.tokens * parts.router.top_k, 0
        if batch.logits is None:
            dropped = asked - int(load.totals.selections_sent.sum())
        audit_layer(parts.fabric, load, trace, batch.tokens, parts.router.top_k, dropped)
        where = {"step": step_index, "layer": trace.layer, "micro_batch": 0}
        if step_index == 0 and trace.layer < _SERIES_LAYERS:
            self._first_traces.append(trace)
        wire = add_layer_rows(self._tables, where, parts.fabric, load, trace)
        row = self._summary.add_layer(load, trace, wire)
        self._tolerance.add_layer(trace)
        critical = self._summary.critical[-1]
        audit_components(critical.components, float(row["layer_time_s"] or 0.0), trace.layer)
        recorded = batch.layers[trace.layer % len(batch.layers)]
        columns: dict[str, Any] = {key: nulls(1) if value is None else [value] for key, value in row.items()}
        self._tables.add("steps", **where, critical_rank=[critical.rank], recorded_layer=recorded, **columns)
        if step_index == 0:
            self._keep_flows(trace)
            for name in ("selections", "rank_copies", "node_copies") if load.copies is not None else ():
                self._traffic.setdefault(f"{name}_layer{recorded}", getattr(load.copies, name))

    def _keep_flows(self, trace: LayerTrace) -> None:
        self._n_flows += trace.dispatch.flows.n_flows + trace.combine.flows.n_flows
        if self._n_flows > _FLOW_LIMIT:
            self._flows.clear()
            return
        for index, name in enumerate(PHASES):
            phase = trace.dispatch if name == "dispatch" else trace.combine
            flows = phase.flows
            # Kernels of ranks, where flows need them, stand behind the wires.
            ptr, links, weight = flows.resources(self._parts.fabric.n_links)
            self._flows.append(
                {
                    "lengths": np.diff(ptr),
                    "route_links": links,
                    "weight": weight,
                    "size": flows.size,
                    "rate_cap": np.full(flows.n_flows, np.inf) if flows.rate_cap is None else flows.rate_cap,
                    "start": phase.start_s,
                    "finish": phase.finish_s,
                    "layer": np.full(flows.n_flows, trace.layer, np.int32),
                    "phase": np.full(flows.n_flows, index, np.int8),
                    "source": flows.source,
                    "target": flows.target,
                }
            )

    def result(self) -> Result:
        parts, batch = self._parts, self._batch
        assert batch is not None  # noqa: S101 - the schema asks for at least one step
        recording = self._workload.recording
        different = counterfactuals(parts, recording.router) if recording is not None else ()
        if recording is not None:
            add_training_rows(self._tables, recording, batch.layers)
        summary = self._summary.build(self._ledger.shares(), self._tokens, self._distinct, bool(different))
        notes = [Note("counterfactual", text) for text in different]
        notes += [Note("info", text) for text in batch.notes]
        notes += [Note("estimated", text) for text in batch.estimated]
        notes += self._degraded()
        exported, note = self._exported_flows()
        notes += note
        told = explanation(parts, self._summary, self._ledger, batch)
        if self._tolerance.stepped:
            told["tolerance"] = self._tolerance.explanation()
        return Result(
            summary=summary,
            tables=Tables(self._tables.build()),
            notes=tuple(notes),
            explanation=told,
            flows=exported,
            traffic=self._traffic,
            scenario_yaml=to_yaml(parts.scenario),
        )

    def _degraded(self) -> list[Note]:
        """What the reader must not take at face value, most important first."""
        parts, notes = self._parts, []
        shares = self._ledger.shares()
        for source in ("extrapolated", "estimated"):
            if shares.get(source, 0.0) > 0:
                kernels = sorted({row["kernel"] for row in self._ledger.rows() if row["source"] == source})
                text = f"{100 * shares[source]:.0f} % of compute time is {source}: {', '.join(kernels)}"
                notes.append(Note("degraded" if source == "extrapolated" else "estimated", text))
        constants = parts.constants["dispatch"]
        own = Path(parts.scenario.alltoall.calibration)
        if own.suffix in (".yaml", ".yml"):
            rates = f"those of your file {own.name}"
        else:
            rates = f"fitted on {len(constants.rows)} published figures" if constants.rows else "defaults"
            if held_out := dict(constants.held_out):
                rates += f" ({held_out['rows']:.0f} others are {100 * held_out['median']:.1f} % off in the median)"
            rates += ", not of your cluster"
        notes.append(Note("estimated", f"all-to-all rates are {rates}: {constants.source}"))
        notes += self._tolerance.notes()
        if uses_ports(parts):
            notes.append(Note("estimated", PORTS_NOTE))
        elif parts.fabric.n_ranks > RANK_PAIR_LIMIT:
            notes.append(Note("info", f"more than {RANK_PAIR_LIMIT} ranks: the transfers table is per node pair"))
        layers = parts.scenario.workload.layers_simulated
        if layers and self._batch is not None and layers > len(self._batch.layers):
            notes.append(Note("info", f"{layers} layers simulated by cycling {len(self._batch.layers)} recorded ones"))
        return notes

    def _exported_flows(self) -> tuple[dict[str, NDArray[Any]], list[Note]]:
        """All flows of step 0 as the arguments of ``solve_flows``; latencies are already in ``start``."""
        if self._n_flows > _FLOW_LIMIT:
            return {}, [Note("info", f"{self._n_flows:,} flows are too many to export: flows.npz is empty")]
        joined = {name: np.concatenate([piece[name] for piece in self._flows]) for name in self._flows[0]}
        lengths = joined.pop("lengths")
        route_ptr = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(lengths, out=route_ptr[1:])
        if np.isinf(joined["rate_cap"]).all():
            del joined["rate_cap"]
        fabric, highest = self._parts.fabric, int(joined["route_links"].max(initial=-1))
        kernels = np.ones(fabric.n_ranks if highest >= fabric.n_links else 0)
        capacity = np.concatenate([fabric.capacity, kernels])
        return {"capacity": capacity, "latency": np.zeros(len(capacity)), "route_ptr": route_ptr, **joined}, []
