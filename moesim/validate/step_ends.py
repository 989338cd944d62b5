"""A published step with each free constant at both ends of its range.

The step is simulated once; then one rank's program runs again with the mean times of its all-to-alls, and what a
constant changes of that carries over. Even loads make the ranks alike.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from moesim.cluster import load_topology
from moesim.compute import free_constants
from moesim.layer import Inference, KernelLedger, Parts, RoutedLayer, build_parts, layer_kernels, open_workload
from moesim.measure import StepTime, SummaryBuilder, TrainingTime
from moesim.run import TimedLayer, initial_state, route_step, run_steps, simulated_layers
from moesim.stages import PHASES
from moesim.timeline import BACKWARD, NO_CURVES_S, SCHEDULES, LayerTrace, LayerWork, run_layers
from moesim.validate.published_steps import Step
from moesim.validate.step_rows import scenario_of

_LAYERS = 6


class Ends(NamedTuple):
    """By what factor throughput changes with a constant at the low and at the high end of its range."""

    constant: str
    low: float
    high: float


def constants_at_ends(step: Step) -> list[Ends]:
    """Return the ends of every free constant, those that change nothing left out."""
    with tempfile.TemporaryDirectory() as folder:
        parts = build_parts(scenario_of(step, Path(folder)))
        batch = open_workload(parts).batch(0)
        routed, _ = route_step(parts, initial_state(parts, batch), batch)
    timed = [one for one in run_steps(parts, [routed], SummaryBuilder(parts), KernelLedger(), NO_CURVES_S)
             if isinstance(one, TimedLayer)]  # fmt: skip
    inference = parts.inference
    assert inference is not None  # noqa: S101 - every row is a whole step
    cuts = [next(iter(layers.values())) for layers in (routed.layers, *routed.later)]
    if inference.training is not None:  # the way back takes the same tokens
        cuts *= 2
    phases = {
        name: float(np.mean([(one.trace.phases[name].leave_s - one.trace.phases[name].enter_s) for one in timed]))
        for name in PHASES
    }
    now = _step_s(parts, inference, cuts, phases)
    found = []
    for name, constant in free_constants().items():
        ends = []
        for value in (constant.low, constant.high):
            moved = replace(inference, constants=inference.constants.moved(**{name: value}))
            in_situ = value / constant.value if name == "in_situ" else 1.0
            ends.append(now / _step_s(parts, moved, cuts, {phase: s * in_situ for phase, s in phases.items()}))
        if max(abs(end - 1.0) for end in ends) > 1e-6:
            found.append(Ends(name, *ends))
    return found


def _step_s(parts: Parts, step: Inference, cuts: list[RoutedLayer], phases: Mapping[str, float]) -> float:
    """Seconds of a step of one rank, its all-to-alls of fixed time."""
    own, training = replace(parts, inference=step), step.training
    fixed = {name: np.full(1, seconds) for name, seconds in phases.items()}
    work = [
        LayerWork(_mean(own, routed, bool(training) and cut == BACKWARD) | fixed, {}) for cut, routed in enumerate(cuts)
    ]
    one_rank = load_topology("hgx-h800").first_ranks(1)

    def traces(overlap: str) -> list[LayerTrace]:
        layers = _LAYERS if training is None else simulated_layers(own, 1)
        program = tuple(
            operation._replace(stage=operation.stage._replace(kind="kernel"))
            for operation in SCHEDULES[parts.schedule.phase, overlap](layers, parts.algorithm.permutes_first)
        )
        ran = run_layers(one_rank, program, lambda _, cut: work[cut], np.zeros(1))
        return [trace for trace in ran if isinstance(trace, LayerTrace)]

    clock: StepTime | TrainingTime = StepTime(own, step)
    if training is not None:
        clock = TrainingTime(own, step, training, tokens=cuts[0].tokens, alone=traces("none"))
    for trace in traces(step.overlap):
        clock.add_layer(trace)
    return clock.end_step(1)


def _mean(parts: Parts, routed: RoutedLayer, backward: bool) -> dict[str, NDArray[np.float64]]:
    slot_rank, ledger = np.asarray(routed.placement.slot_rank), KernelLedger()
    kernels = layer_kernels(parts, routed.tokens, routed.slot_tokens, slot_rank, routed.totals, ledger, backward)
    return {name: seconds.mean(keepdims=True) for name, seconds in kernels.seconds.items()}
