"""From a scenario to its result: every step routed and run on the clock, audited, and made into tables."""

import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim import __version__
from moesim.results import Note, Result, TableBuilder, Tables, nulls
from moesim.scenario import Scenario
from moesim.scenario.dump import to_yaml
from moesim.simulation.ahead import compile_ahead, wait_until_compiled
from moesim.simulation.audit import audit_components, audit_layer, audit_terms
from moesim.simulation.batches import Workload, add_training_rows, open_workload
from moesim.simulation.explanation import explanation
from moesim.simulation.flow_export import FlowExport
from moesim.simulation.kernels import KernelLedger
from moesim.simulation.load import LayerLoad
from moesim.simulation.notes import degraded
from moesim.simulation.offsets import start_offsets
from moesim.simulation.parts import Parts, build_parts, counterfactuals
from moesim.simulation.rows import add_layer_rows, add_series_rows
from moesim.simulation.step import OFFSET_STAGE, State, clock_step, initial_state, route_step
from moesim.simulation.summary import SummaryBuilder
from moesim.simulation.terms import RunTerms
from moesim.simulation.tolerance import ToleranceLedger
from moesim.timeline import LayerTrace
from moesim.workload import Batch

# Layers with curves of link utilisation over time; more would swell the result and say the same.
_SERIES_LAYERS = 4

Progress = Callable[[str], None]


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
    compile_ahead()
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
        self._ledger, self._terms = KernelLedger(), RunTerms(parts)
        self._tolerance = ToleranceLedger(parts.scenario.network.tolerance)
        arrivals, rng = parts.scenario.schedule.start_offset, parts.rng(OFFSET_STAGE)
        self._offsets = start_offsets(arrivals, parts.fabric.n_ranks, rng)
        self._state: State | None = None
        self._batch: Batch | None = None
        self._loads: dict[int, LayerLoad] = {}
        self._first_traces: list[LayerTrace] = []
        self._flows = FlowExport(parts.fabric)
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
        wait_until_compiled()
        series = clock_step(parts, routed, self._ledger, self._offsets, collect)
        self._summary.end_step()
        self._terms.end_step()
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
        self._terms.add_layer(load, trace, critical.rank, self._summary.bounds[-1])
        audit_components(critical.components, float(row["layer_time_s"] or 0.0), trace.layer)
        recorded = batch.layers[trace.layer % len(batch.layers)]
        columns: dict[str, Any] = {key: nulls(1) if value is None else [value] for key, value in row.items()}
        self._tables.add("steps", **where, critical_rank=[critical.rank], recorded_layer=recorded, **columns)
        if step_index == 0:
            self._flows.add_layer(trace)
            for name in ("selections", "rank_copies", "node_copies") if load.copies is not None else ():
                self._traffic.setdefault(f"{name}_layer{recorded}", getattr(load.copies, name))

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
        notes += degraded(parts, self._ledger, self._tolerance, batch)
        exported, note = self._flows.arrays()
        notes += note
        terms = self._terms.build(summary)
        audit_terms(summary, terms)
        told = explanation(parts, self._summary, terms, self._ledger, batch)
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
