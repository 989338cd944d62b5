"""What the faults of a run cost: its batches again on the healthy cluster and, of several, with each alone.

That is a second run of the clock, and one more for each of several faults up to ``MOST_ALONE``; tokens are routed again
where there is more than one step or a rank is dead, else once. Of several expert-parallel groups all are on each clock,
and the slowest one counts.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from moesim.fault_kinds import FAULT_KINDS, NOTICED_S, RETRIES
from moesim.layer import Parts
from moesim.measure import SummaryBuilder
from moesim.results import Note
from moesim.run.contention import on_one_clock, with_other_faults
from moesim.run.routed_steps import RoutedStep
from moesim.scenario import Fault, Scenario
from moesim.units import format_duration

MOST_ALONE = 8
"""Faults of one scenario that are also simulated alone: the first ones."""


class BrokenRun(NamedTuple):
    """A group's run with faults: its parts, what it gave, and its batches routed for parts with other faults."""

    parts: Parts
    summary: SummaryBuilder
    steps_of: Callable[[Parts], Iterable[RoutedStep]]


def fault_costs(scenario: Scenario, runs: Sequence[BrokenRun], say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Return the clocks, JSON-able: the healthy cluster's, each of several faults' alone, the run's.

    Args:
        scenario: with faults.
        runs: of all groups, or of one alone.
        say: called with a line when a clock begins.
    """

    def again(name: str, *faults: Fault) -> dict[str, Any]:
        say(f"once more {name}")
        parts = with_other_faults([run.parts for run in runs], scenario.model_copy(update={"faults": faults}))
        routed = [(its, run.steps_of(its)) for its, run in zip(parts, runs, strict=True)]
        return _clock(name, on_one_clock(routed))

    broken = [run.summary for run in runs]
    clocks, first = [again("without faults")], scenario.faults[0]
    if len(scenario.faults) == 1:
        clocks.append(_clock(f"with {in_words(first)}", broken))
    else:
        clocks += (again(f"with {in_words(fault)} alone", fault) for fault in scenario.faults[:MOST_ALONE])
        clocks.append(_clock("with all", broken))
    # Ranks enter the layers of a whole step as they come, a dead one's at once: there the step says what is lost.
    what = "layer" if runs[0].parts.inference is None else "step"
    usual = clocks[0][f"{what}_time_s"]
    longer = (clock[f"{what}_time_s"] / usual - 1 if usual else 0.0 for clock in clocks)
    return [clock | {"what": what, "longer_by": by} for clock, by in zip(clocks, longer, strict=True)]


def _clock(name: str, groups: Sequence[SummaryBuilder]) -> dict[str, Any]:
    """Layer and step, what held the critical ranks, and whom all ranks waited for most, mean over the layers."""
    of_groups = [float(np.mean([row["layer_time_s"] for row in one.layers])) for one in groups]
    builder = groups[int(np.argmax(of_groups))]
    layers, names = len(builder.layers), builder.parts.fabric.rank_names
    last = int(np.argmax(builder.waited_on_s))
    waits = float(builder.waited_on_s[last]) / layers
    return {
        "name": name,
        "layer_time_s": max(of_groups),
        "step_time_s": float(np.mean(builder.step_s)),
        "bottleneck": builder.bottleneck()[0],
        "waited_on": names[last] if waits > 0 else None,
        "waited_on_s": waits / len(names),
    }


def in_words(fault: Fault) -> str:
    """Return a fault as one would say it: ``slow_nic at n1.gpu2, factor 2, from 100us to 1ms``."""
    given = fault.model_dump(mode="json", exclude_defaults=True, by_alias=True)
    text = f"{fault.kind} at {' and '.join(fault.places)}" if fault.places else str(fault.kind)
    if fault.kind == "rank_death" and fault.mode == "abort":
        text += ", which ends the job"
    for key in [key for key in given if key not in ("kind", "where", "from", "to")]:
        text += f", {key} {f'{given[key]:g}' if isinstance(given[key], float) else given[key]}"
    return text + "".join(f"{mark}{key} {given[key]}" for mark, key in ((", ", "from"), (" ", "to")) if key in given)


def fault_notes(scenario: Scenario) -> Iterator[Note]:
    """Say what the times of a run with faults rest on, and what an end of the job loses."""
    for fault in scenario.faults:
        where = f" at {', '.join(fault.places)}" if fault.places else ""
        if fault.kind == "rank_death" and fault.mode == "abort":
            yield Note(
                "degraded",
                f"rank_death{where}: the job ends {format_duration(fault.from_s)} into the run, and all these times "
                f"are of a run in which it lived. Lost: what was done since the last checkpoint, and about "
                f"{NOTICED_S:g} s until the others notice (DeepEP's time-out)",
            )
        if fault.kind == "flap" and fault.to_s is not None and fault.to_s - fault.from_s > RETRIES * fault.retry_s:
            down = format_duration(fault.to_s - fault.from_s)
            text = f"flap{where}: {down} outlast {RETRIES} retries, after which connections fail and the job ends"
            yield Note("degraded", text)
    for kind in dict.fromkeys(fault.kind for fault in scenario.faults):
        if about := FAULT_KINDS[kind].rests_on:
            yield Note("estimated", f"{kind}: {about}")
