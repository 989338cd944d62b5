"""From a scenario to its result: every step routed and run on the clock, audited, and made into tables."""

import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim import __version__
from moesim.cluster import beyond_today
from moesim.errors import InputError
from moesim.layer import (
    KernelLedger,
    Parts,
    Workload,
    add_training_rows,
    build_parts,
    counterfactuals,
    opened,
    placed_by_batch,
)
from moesim.measure import (
    GRADIENTS,
    FlowExport,
    RunTerms,
    SummaryBuilder,
    ToleranceLedger,
    TrainingTime,
    add_busy_links,
    add_layer_rows,
    add_migration_rows,
    add_pipeline_rows,
    add_series_rows,
    degraded,
    explanation,
    idle_ranks,
    joint_flows,
    rebalancing,
    rebalancing_notes,
    steps_pay,
)
from moesim.results import Moves, Note, Result, TableBuilder, Tables, intervals, nulls
from moesim.run.audit import audit_terms
from moesim.run.contention import GroupRun, build_groups, with_contention
from moesim.run.fault_costs import BrokenRun, fault_costs, fault_notes
from moesim.run.resimulate import StepTimes, resimulated
from moesim.run.routed_steps import RoutedStep, route_steps
from moesim.run.steps import GroupSteps, TimedLayer, TimedMigration, run_steps_of_groups, simulated_layers
from moesim.scenario import Scenario, to_yaml
from moesim.timeline import LinkSeries
from moesim.traffic import KINDS
from moesim.warm_up import compile_first
from moesim.workload import Batch

# Layers with curves of link utilisation over time; more would swell the result and say the same.
_SERIES_LAYERS = 4
_BY_THE_PAST = "placement.learn_from: first_half places by the past and judges on what follows"

Progress = Callable[[str], None]
Watch = Callable[[str, int, int], None]


def simulate(
    scenario: Scenario, progress: Progress | None = None, exact_bands: bool = False, watch: Watch | None = None
) -> Result:
    """Simulate one scenario (its ``variants`` are ignored).

    Args:
        scenario: from ``moesim.load_scenario``.
        progress: called with a line when a stage begins.
        exact_bands: intervals of the times from the first step simulated again with other constants, not only where
            another link may turn out the busiest.
        watch: called after each layer with what was counted, how many are done, and of how many.

    Returns:
        The result, byte-identical for the same scenario and seed but for its provenance.

    Raises:
        InputError: parts of the scenario do not fit each other, or a file of it cannot be used.
        InvariantError: a law of the simulator was broken; no result is returned.
    """
    try:
        return _simulated(scenario, progress, exact_bands, watch)
    except InputError as error:
        raise scenario.located(error) from None


def _simulated(scenario: Scenario, progress: Progress | None, exact_bands: bool, watch: Watch | None) -> Result:
    began = time.monotonic()
    say = progress or (lambda _: None)
    say("topology, model and kernel tables")
    built = build_groups(scenario) if scenario.groups_at_once > 1 else [build_parts(scenario)]
    if (several := len(built) > 1) and exact_bands:
        raise InputError("intervals of several groups are to first order", "--band", "use auto, or one group")
    groups = [opened(parts) for parts in built]
    for question in beyond_today(built[0].fabric):
        say(question)
    compile_first()  # mistakes are told before
    unseen: Watch = lambda what, done, total: None  # noqa: E731
    runs = [
        _Run(placed, workload, say, exact_bands, unseen if placed.group else watch or unseen, several)
        for placed, workload in groups
    ]
    for number, timed in run_steps_of_groups([run.steps() for run in runs]):
        runs[number].add(timed)
    say("tables")
    if several:
        result = with_contention(scenario, [run.group(scenario) for run in runs], say)
    else:
        result = runs[0].result(scenario)
    if scenario.faults:
        costs = fault_costs(scenario, [run.broken() for run in runs], say)
        notes = (*result.notes, *fault_notes(scenario))
        result = replace(result, explanation=result.explanation | {"faults": costs}, notes=notes)
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
    """Collects the layers of one simulation."""

    def __init__(
        self, parts: Parts, workload: Workload, say: Progress, exact_bands: bool, watch: Watch, of_several: bool
    ) -> None:
        self._parts, self._workload, self._say, self._exact_bands = parts, workload, say, exact_bands
        self._watch, self._done, self._ends_s = watch, 0, 0.0
        self._tables, self._summary = TableBuilder(), SummaryBuilder(parts)
        self._ledger, self._terms = KernelLedger(), RunTerms(parts)
        self._tolerance = ToleranceLedger(parts.tolerance)
        self._batch: Batch | None = None
        self._with_curves: list[TimedLayer] = []
        self._flows = FlowExport(parts.fabric, parts.group)
        self._traffic: dict[str, NDArray[Any]] = {}
        self._step: RoutedStep | None = None
        self._first, self._first_layer, self._large = StepTimes(), StepTimes(), False
        # Of several groups: all steps, and what of gradients was reduced beside the layers. A group's clock run again
        # by itself would not tell how its times move among the others.
        self._moves: Mapping[str, Moves] | None = {} if of_several else None
        self._routed: list[RoutedStep] | None = [] if of_several else None
        self._gradients_s: list[float] = []

    def steps(self) -> GroupSteps:
        return GroupSteps(
            self._parts, self._kept(route_steps(self._parts, self._batches())), self._summary, self._ledger
        )

    def add(self, timed: TimedLayer | TimedMigration | LinkSeries) -> None:
        if isinstance(timed, TimedLayer):
            self._add_layer(timed)
        elif isinstance(timed, TimedMigration) and self._parts.gradients is not None:
            phase = timed.trace.phase
            self._gradients_s.append(float(phase.leave_s.max() - phase.enter_s.min()))
            if timed.step == 0:
                self._flows.add_phase(phase, timed.trace.layer, GRADIENTS)
        elif isinstance(timed, TimedMigration):
            self._terms.add_migration(timed.trace)
            about = (timed.trace, timed.moves, timed.bound_s)
            add_migration_rows(self._tables, timed.step, self._parts.fabric, *about)
        else:
            for layer in self._with_curves:
                add_series_rows(self._tables, layer.where, self._parts.fabric, layer.trace, timed)
            for layer in self._with_curves[:1]:
                add_busy_links(self._tables, layer.where, self._parts.fabric, layer.trace, timed)
            self._with_curves.clear()
            if isinstance(self._summary.step, TrainingTime):
                add_pipeline_rows(self._tables, len(self._summary.step_s) - 1, self._summary.step.ran)
            self._terms.end_step()
            if self._moves is None:
                self._moves = self._moves_again()

    def group(self, scenario: Scenario) -> GroupRun:
        """What is compared with the other groups on the cluster."""
        routed = (self._parts, self._routed or [])
        return GroupRun(routed, self._summary, self.result(scenario), self._flows, self._gradients_s)

    def broken(self) -> BrokenRun:
        """What is compared with the run without its faults."""
        return BrokenRun(self._parts, self._summary, self._routed_again)

    def _kept(self, steps: Iterator[RoutedStep]) -> Iterator[RoutedStep]:
        for step in steps:
            self._step = step
            if self._routed is not None:
                self._routed.append(step)
            yield step

    def _moves_again(self) -> Mapping[str, Moves]:
        """The moves of the times by kinds of constants whose first order would not do, from clocks run again."""
        moved, step = self._summary.moved, self._step
        if step is None or (self._parts.inference is not None and not self._exact_bands):
            return {}
        if self._exact_bands:
            self._say(f"first step again, with other constants: {', '.join(KINDS)}")
            return resimulated(self._parts, step, self._first, KINDS, moved.widen)
        # Phases so large that steps pay: a few more clocks of one layer take longer than all the rest.
        kinds = [] if self._large else moved.contended()
        if not kinds:
            return {}
        self._say(f"first layer again, with other constants: {', '.join(kinds)}")
        alone = replace(self._parts, workload=self._parts.workload.model_copy(update={"layers_simulated": 1}))
        return resimulated(alone, step, self._first_layer, kinds, moved.widen)

    def _batches(self) -> Iterator[Batch]:
        for index in range(self._parts.workload.steps):
            self._say(f"step {index}: routing and timeline")
            batch = self._workload.batch(index)
            self._batch = self._batch or batch
            yield batch

    def _routed_again(self, parts: Parts) -> Iterable[RoutedStep]:
        """The run's steps for parts with other faults; kept where the same tokens go to the same ranks."""
        if self._parts.workload.steps == 1 and self._step is not None and parts.gone == self._parts.gone:
            return [self._step]
        return route_steps(parts, (self._workload.batch(index) for index in range(parts.workload.steps)))

    def _add_layer(self, timed: TimedLayer) -> None:
        load, trace = timed.load, timed.trace
        section, self._done = self._parts.workload, self._done + 1
        self._ends_s = max(self._ends_s, trace.ends_s)
        cuts = 1 if self._parts.inference is None else self._parts.inference.passes
        layers = cuts * simulated_layers(self._parts, len(self._batch.layers) if self._batch else 0)
        self._watch("layers", self._done, section.steps * layers)
        add_layer_rows(self._tables, timed.where, self._parts.fabric, load, trace, timed.wire)
        self._terms.add_layer(load, trace, timed.wire, timed.critical, self._summary.bounds[-1])
        self._tolerance.add_layer(trace)
        columns: dict[str, Any] = {key: nulls(1) if value is None else [value] for key, value in timed.row.items()}
        named = {"critical_rank": [timed.critical.rank], "recorded_layer": timed.recorded}
        self._tables.add("steps", **timed.where, **named, **columns)
        if timed.step == 0:
            self._first.add(timed)
            if not self._first_layer.ranks:
                self._first_layer.add(timed)
            self._large |= steps_pay(load.flows)
            if trace.layer < _SERIES_LAYERS:
                self._with_curves.append(timed)
            self._flows.add_layer(trace)
            for name in ("selections", "rank_copies", "node_copies") if load.copies is not None else ():
                self._traffic.setdefault(f"{name}_layer{timed.recorded}", getattr(load.copies, name))

    def result(self, scenario: Scenario) -> Result:
        parts, batch = self._parts, self._batch
        assert batch is not None  # noqa: S101 - the schema asks for at least one step
        recording = self._workload.recording
        different = counterfactuals(parts, recording.router) if recording is not None else ()
        if recording is not None:
            add_training_rows(self._tables, recording, batch.layers)
        summary = self._summary.build(self._ledger.shares(), bool(different))
        notes = [Note("counterfactual", text) for text in different]
        notes += [Note("info", text) for text in batch.notes]
        notes += [Note("estimated", text) for text in batch.estimated]
        if placed_by_batch(parts):
            policy = parts.placement.policy
            notes.append(Note("info", f"{policy} places by the very batch that it is judged on; {_BY_THE_PAST}"))
        notes += degraded(parts, self._ledger, self._tolerance, batch)
        placed = (
            {said for layer in self._step.layers.values() for said in layer.placement.oddities()} if self._step else ()
        )
        notes += [Note("degraded", text) for text in sorted(placed)]
        notes += idle_ranks(self._step.layers) if self._step else ()
        exported, note = joint_flows([self._flows])
        notes += note
        notes += self._summary.moved.notes()
        terms = self._terms.build(summary, self._summary.bottleneck()[1], self._ledger)
        if self._summary.step is not None:
            terms |= self._summary.step.terms(summary)
            notes += self._summary.step.notes()
        audit_terms(summary, terms, self._ends_s)
        explained = explanation(parts, self._summary, terms, self._ledger, batch)
        explained["band"] = band = self._summary.moved.band(summary, self._moves or {})
        if isinstance(self._summary.step, TrainingTime):
            explained["training"] = self._summary.step.explained()
        if (asked := parts.placement.rebalance) is not None:
            explained["rebalance"] = rebalancing(parts, asked, len(scenario.model_spec().moe_layer_ids))
            notes += rebalancing_notes(parts, asked)
        if self._tolerance.stepped:
            explained["tolerance"] = self._tolerance.explanation()
        return Result(
            summary=summary,
            tables=Tables(self._tables.build()),
            notes=tuple(notes),
            explanation=explained,
            flows=exported,
            traffic=self._traffic,
            scenario_yaml=to_yaml(scenario),
            intervals=intervals(summary, band),
        )
