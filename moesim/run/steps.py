"""The steps of a run on the clock: each routed batch timed, audited and summed up.

Layers that share a recorded layer share its routing and traffic; only the clock treats them apart.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from moesim.errors import InputError
from moesim.layer import KernelLedger, LayerLoad, Parts, layer_load
from moesim.measure import CriticalRank, SummaryBuilder, TrainingTime, bucket_width_s, slot_bytes, steps_pay
from moesim.placement_policies import FETCHING_POLICIES
from moesim.run.audit import audit_components, audit_layer, audit_migration, audit_together
from moesim.run.offsets import start_offsets
from moesim.run.routed_steps import RoutedStep
from moesim.stages import BESIDE, MIGRATION
from moesim.timeline import (
    BACKWARD,
    NO_CURVES_S,
    SCHEDULES,
    Key,
    LayerTrace,
    LayerWork,
    LinkSeries,
    MigrationTrace,
    Operation,
    PhaseTrace,
    Program,
    RankGroup,
    moe_layers,
    run_groups,
    run_layers,
    run_layers_quickly,
    with_migrations,
)
from moesim.traffic import Floats, PhaseFlows, busiest_link_s, weight_flows, weight_transfer

_OFFSET_STAGE, _JITTER_STAGE = 4, 8
# After that, eleven days, times of microseconds are lost in the clock's rounding.
_LONGEST_S = 1e6
# Layers after which a step repeats itself, filling and emptying of the micro-batches among them.
_FEWEST_LAYERS = 6


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


@dataclass(frozen=True)
class TimedMigration:
    """One layer's move of weights after the clock: of ``step``, so many ``moves``; ``bound_s``: its busiest link's."""

    step: int
    moves: int
    trace: MigrationTrace
    bound_s: float


def run_steps(
    parts: Parts,
    steps: Iterable[RoutedStep],
    summary: SummaryBuilder,
    ledger: KernelLedger,
    bucket_s: float | None = None,
    quick: bool = False,
) -> Iterator[TimedLayer | TimedMigration | LinkSeries]:
    """Put routed steps on the clock, each on one of its own, and audit every layer.

    Args:
        parts: of the scenario.
        steps: from ``route_steps``, or routed before.
        summary: takes in every layer and step.
        ledger: takes the kernels' seconds by source.
        bucket_s: width of the time buckets of the links' use; None for one that shows a dispatch well.
        quick: in closed form, without events.

    Yields:
        Each layer and each move of a layer's weights; behind the last of a step what the links carried over it.

    Raises:
        InvariantError: a law of the simulator was broken.
    """
    together = run_steps_of_groups([GroupSteps(parts, steps, summary, ledger)], bucket_s, quick)
    return (timed for _, timed in together)


def summed_up(parts: Parts, steps: Iterable[RoutedStep], quick: bool = False) -> tuple[SummaryBuilder, KernelLedger]:
    """Put routed steps on the clock for their summary alone; arguments and errors as of ``run_steps``."""
    summary, ledger = SummaryBuilder(parts), KernelLedger()
    deque(run_steps(parts, steps, summary, ledger, NO_CURVES_S, quick), maxlen=0)
    return summary, ledger


@dataclass(frozen=True)
class GroupSteps:
    """What ``run_steps`` takes, of one of several expert-parallel groups on a cluster."""

    parts: Parts
    steps: Iterable[RoutedStep]
    summary: SummaryBuilder
    ledger: KernelLedger

    def arrivals(self) -> Callable[[float], Floats]:
        """When each rank arrives, [ranks], in a step that begins at a time: faults come on top, drawn anew each."""
        parts, n_ranks = self.parts, self.parts.fabric.n_ranks
        usual = start_offsets(parts.schedule.start_offset, n_ranks, parts.own_rng(_OFFSET_STAGE))
        late = parts.own_rng(_JITTER_STAGE)

        def of_step(begin_s: float) -> Floats:
            offsets = usual + sum((one.drawn(n_ranks, begin_s, late) for one in parts.late), 0.0)
            if parts.gone is not None:
                offsets[list(parts.gone.ranks)] = 0.0
            return offsets

        return of_step


def run_steps_of_groups(
    groups: Sequence[GroupSteps], bucket_s: float | None = None, quick: bool = False
) -> Iterator[tuple[int, TimedLayer | TimedMigration | LinkSeries]]:
    """Put the steps of several groups on the clock, all groups at once; with each item the number of its group.

    ``quick``: in closed form, of one group alone.

    Raises:
        InvariantError: a law of the simulator was broken.
    """
    arrivals, begin_s = [group.arrivals() for group in groups], 0.0
    for index, steps in enumerate(zip(*(group.steps for group in groups), strict=True)):
        loads = [_Loads(group.parts, step, group.ledger) for group, step in zip(groups, steps, strict=True)]
        offsets, phases = [of_step(begin_s) for of_step in arrivals], list[PhaseTrace]()
        on = [group.parts for group in groups]
        for number, timed in _on_the_clock(on, loads, offsets, bucket_s, steps, begin_s, quick):
            parts, step, summary = groups[number].parts, steps[number], groups[number].summary
            if len(groups) > 1:
                if isinstance(timed, LinkSeries) and number == 0:
                    audit_together(parts.fabric, phases, timed)
                phases += timed.phases.values() if isinstance(timed, LayerTrace) else ()
                phases += [timed.phase] if isinstance(timed, MigrationTrace) else []
            if isinstance(timed, LayerTrace):
                yield number, _audited(parts, index, step, loads[number], timed, summary)
            elif isinstance(timed, MigrationTrace):
                yield number, _audited_move(parts, index, step, timed, summary)
            else:
                if isinstance(summary.step, TrainingTime) and summary.step.training.overlapped:
                    summary.step.alone = _passes_alone(parts, loads[number], offsets[number])
                if number == 0:  # a step of all groups is over with the last of them
                    begin_s += max(group.summary.last_end_s for group in groups)
                summary.end_step(step.tokens, step.distinct_tokens, len(step.layers))
                yield number, timed


class _Loads:
    """The loads of a step's layers, made when the first rank comes to them; recorded layers are cycled."""

    def __init__(self, parts: Parts, step: RoutedStep, ledger: KernelLedger) -> None:
        self._parts, self._routed, self._ledger = parts, (step.layers, *step.later), ledger
        self._recorded = tuple(step.layers)
        self._made: dict[tuple[int, int], LayerLoad] = {}
        self.n_layers = simulated_layers(parts, len(step.layers))

    def recorded(self, layer: int) -> int:
        """The recorded layer that a simulated one stands for."""
        return self._recorded[layer % len(self._recorded)]

    def of(self, layer: int, micro_batch: int = 0) -> LayerLoad:
        key = self.recorded(layer), micro_batch
        if key not in self._made:
            whole = self._parts.inference
            back = whole is not None and whole.training is not None and micro_batch == BACKWARD
            routed = self._routed[0 if back else micro_batch][key[0]]
            self._made[key] = layer_load(self._parts, routed, self._ledger, back)
        return self._made[key]

    def work(self, layer: int, micro_batch: int) -> LayerWork:
        load = self.of(layer, micro_batch)
        return LayerWork(load.kernels.seconds, load.flows)


def simulated_layers(parts: Parts, recorded: int) -> int:
    """MoE layers on the clock. Of a whole step the first, until they repeat: the rest takes the same period.

    While faults come and go, layers do not repeat.
    """
    if parts.inference is not None and any(not one.whole_run for one in parts.throttles):
        return parts.workload.layers_simulated or parts.inference.moe_layers
    if parts.workload.layers_simulated is not None or parts.inference is None:
        return parts.workload.layers_simulated or recorded
    if (training := parts.inference.training) is not None:  # what a stage has: the ends of a chunk count as there
        return min(_FEWEST_LAYERS, -(-parts.inference.moe_layers // training.stages))
    return min(max(_FEWEST_LAYERS, 2 * recorded), parts.inference.moe_layers)


def _on_the_clock(
    groups: Sequence[Parts],
    loads: Sequence[_Loads],
    offsets: Sequence[Floats],
    bucket_s: float | None,
    steps: Sequence[RoutedStep],
    begin_s: float,
    quick: bool,
) -> Iterator[tuple[int, LayerTrace | MigrationTrace | LinkSeries]]:
    together = [
        _ranks_of(parts, load, start, step, begin_s)
        for parts, load, start, step in zip(groups, loads, offsets, steps, strict=True)
    ]
    if quick:
        (own,) = together
        timed = run_layers_quickly(own.fabric, own.program, own.work_of, own.start_offset_s, own.weights, own.throttles)
        return ((0, one) for one in timed)
    if bucket_s is None:
        bucket_s = max(
            bucket_width_s(own.fabric, load.of(0), float(own.start_offset_s.max()), load.n_layers, own.throttles)
            for own, load in zip(together, loads, strict=True)
        )
    pays = steps_pay(*(load.of(0).flows for load in loads))
    return run_groups(together, bucket_s, groups[0].tolerance if pays else 0.0)


def _ranks_of(parts: Parts, loads: _Loads, start_offset_s: Floats, step: RoutedStep, begin_s: float) -> RankGroup:
    throttles = [one.since(begin_s) for one in parts.throttles if one.to_s > begin_s]
    program, weights = _program(parts, loads.n_layers), _weights(parts, step)
    if weights:
        stops, beside = ([layer for name, layer, _ in weights if name == stage.name] for stage in (MIGRATION, BESIDE))
        mode = parts.placement.rebalance.mode if parts.placement.rebalance else ""
        awaited = parts.placement.policy in FETCHING_POLICIES
        program = with_migrations(program, stops, beside, mode == "blocking", awaited)
    if parts.gradients is not None:
        beside = list(range(loads.n_layers))
        weights |= {(BESIDE.name, layer, 0): parts.gradients for layer in beside}
        program = (*program, *(Operation(BESIDE, layer, after=(("gate", layer, 0),)) for layer in beside))
    return RankGroup(parts.fabric, program, loads.work, start_offset_s, weights, throttles)


def _passes_alone(parts: Parts, loads: _Loads, start_offset_s: Floats) -> list[LayerTrace]:
    """The layers of a step whose passes overlap once more, one pass after the other."""
    program = tuple(SCHEDULES["training", "none"](loads.n_layers, parts.algorithm.permutes_first))
    tolerance = parts.tolerance if steps_pay(loads.of(0).flows) else 0.0
    throttles = [one for one in parts.throttles if one.whole_run]
    ran = run_layers(parts.fabric, program, loads.work, start_offset_s, tolerance=tolerance, throttles=throttles)
    return [trace for trace in ran if isinstance(trace, LayerTrace)]


def _weights(parts: Parts, step: RoutedStep) -> dict[Key, PhaseFlows]:
    """The flows of a step's moves of weights: those that ranks stop for, with the fixed time, and those beside."""
    asked, weights = parts.placement.rebalance, dict[Key, PhaseFlows]()
    transfer = weight_transfer(asked.mode, asked.fixed_time) if asked else weight_transfer("async")
    for move in step.moves:
        ends, stage = (move.moves.source, move.moves.target), BESIDE if move.beside else MIGRATION
        flows = weight_flows(parts.fabric, *ends, slot_bytes(parts), transfer, parts.ecmp_seed)
        weights[stage.name, move.layer, 0] = flows if move.beside else replace(flows, entry_setup_s=transfer.fixed_s)
    return weights


def _audited_move(
    parts: Parts, index: int, step: RoutedStep, trace: MigrationTrace, summary: SummaryBuilder
) -> TimedMigration:
    bound_s = busiest_link_s(parts.fabric, trace.phase.flows)
    if parts.gradients is not None:
        audit_migration(parts.fabric, trace, round(parts.gradients.size.sum()))
        return TimedMigration(index, 0, trace, bound_s)
    of = (trace.layer, trace.beside)
    moves = next(len(move.moves) for move in step.moves if (move.layer, move.beside) == of)
    audit_migration(parts.fabric, trace, moves * slot_bytes(parts))
    summary.add_migration(trace)
    return TimedMigration(index, moves, trace, bound_s)


def _program(parts: Parts, n_layers: int) -> Program:
    step, first = parts.inference, parts.algorithm.permutes_first
    if step is None:
        return moe_layers(n_layers, first, other=parts.schedule.other_time > 0)
    return tuple(SCHEDULES[parts.schedule.phase, step.overlap](n_layers, first))


def _audited(
    parts: Parts, index: int, step: RoutedStep, loads: _Loads, trace: LayerTrace, summary: SummaryBuilder
) -> TimedLayer:
    fabric, top_k, load = parts.fabric, parts.router.top_k, loads.of(trace.layer, trace.micro_batch)
    tokens = int(load.tokens.sum()) if step.later else step.tokens
    loses = step.given or parts.gone is not None
    dropped = tokens * top_k - int(load.totals.selections_sent.sum()) if loses else 0
    if trace.ends_s > _LONGEST_S:
        limit = f"{_LONGEST_S:.0e} s are simulated at most"
        what = f"layer {trace.layer} ends {trace.ends_s:.3g} s after its step began; {limit}"
        raise InputError(what, fix="a link is too slow, or a rank too late")
    audit_layer(fabric, load, trace, tokens, top_k, dropped)
    wire = {name: flows.link_wire_bytes(fabric.n_links) for name, flows in load.flows.items()}
    row = summary.add_layer(load, trace, wire)
    critical = summary.critical[-1]
    audit_components(critical.components, trace.length_s, trace.layer, trace.ends_s)
    return TimedLayer(index, loads.recorded(trace.layer), load, trace, wire, row, critical)
