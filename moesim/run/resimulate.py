"""The moves of a run's times from clocks run again: the first step, with one kind of constants faster, then slower.

Where first order would not do, since another link becomes the busiest before a constant is as far off as it may be.
Each time is that of the rank that was critical, so that both ends tell of the same path.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass, field, replace

from moesim.layer import KernelLedger, Parts
from moesim.measure import SummaryBuilder, spreads
from moesim.results import BANDED, Z80
from moesim.run.routed_steps import RoutedStep
from moesim.run.steps import TimedLayer, run_steps
from moesim.stages import PHASES
from moesim.timeline import NO_CURVES_S
from moesim.traffic import slower


@dataclass
class StepTimes:
    """The times of one step that have a band, summed over its layers.

    Attributes:
        ranks: whose, by layer; of one that is not there, the critical rank's.
        seconds: by the summary's names.
    """

    ranks: dict[int, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(BANDED, 0.0))
    _first_s: float = math.inf
    _last_s: float = 0.0

    def add(self, timed: TimedLayer) -> None:
        """Take in a layer."""
        trace = timed.trace
        rank = self.ranks.setdefault(trace.layer, timed.critical.rank)
        self.seconds["layer_time_s"] += trace.length_s
        for name, phase in trace.phases.items():
            self.seconds[f"{name}_time_s"] += float(timed.critical.of_ranks[f"{name}_time_s"][rank])
            self.seconds[f"{name}_kernel_time_s"] += float(phase.kernel_s[rank])
        self._first_s = min(self._first_s, float(trace.entry_s.min()))
        self._last_s = max(self._last_s, float(trace.end_s_of_layer.max()))
        self.seconds["step_time_s"] = self._last_s - self._first_s


def resimulated(
    parts: Parts, step: RoutedStep, as_simulated: StepTimes, kinds: Collection[str], widen: float
) -> dict[str, dict[str, list[float]]]:
    """Return the moves of every time by kinds of constants.

    Args:
        parts: of the scenario.
        step: the first one, routed.
        as_simulated: its times.
        kinds: which to move; those that are known do not move anything.
        widen: what intervals are multiplied by.

    Returns:
        Changes of the logarithm, faster and slower, as ``moesim.results`` takes them.
    """
    deviations = {phase: spread.deviations for phase, spread in spreads(parts).items()}
    moves: dict[str, dict[str, list[float]]] = {key: {} for key in BANDED}
    for kind in kinds:
        if not any(deviations[phase].get(kind) for phase in PHASES):
            continue
        ends = []
        for sigmas in (-Z80 * widen, Z80 * widen):
            constants = {
                phase: slower(parts.constants[phase], kind, sigmas * deviations[phase].get(kind, 0.0))
                for phase in PHASES
            }
            end = _times(replace(parts, constants=constants), step, as_simulated.ranks)
            ends.append(
                {key: math.log(end[key] / was) / abs(sigmas) for key, was in as_simulated.seconds.items() if was}
            )
        for key in ends[0].keys() & ends[1].keys():
            moves[key][kind] = [ends[0][key], ends[1][key]]
    return moves


def _times(parts: Parts, step: RoutedStep, ranks: dict[int, int]) -> dict[str, float]:
    times = StepTimes(dict(ranks))
    for timed in run_steps(parts, [step], SummaryBuilder(parts), KernelLedger(), NO_CURVES_S):
        if isinstance(timed, TimedLayer):
            times.add(timed)
    return times.seconds
