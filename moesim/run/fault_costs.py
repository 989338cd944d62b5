"""What the faults of a run cost: its batches again on the healthy cluster and, of several, with each alone.

That is a second run of the clock, and one more for each of several faults up to ``MOST_ALONE``; tokens are routed again
where there is more than one step or a rank is dead, else once.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from moesim.fault_kinds import FAULT_KINDS, NOTICED_S, RETRIES
from moesim.layer import KernelLedger, Parts, build_fabric, with_effects
from moesim.measure import SummaryBuilder
from moesim.results import Note
from moesim.run.steps import RoutedStep, run_steps
from moesim.scenario import Fault, Scenario
from moesim.units import format_duration

MOST_ALONE = 8
"""Faults of one scenario that are also simulated alone: the first ones."""
# One bucket over everything: nobody looks at the links' use over time.
_NO_CURVES_S = 1e9

StepsOf = Callable[[Parts], Iterable[RoutedStep]]


def fault_costs(
    parts: Parts, scenario: Scenario, broken: SummaryBuilder, steps_of: StepsOf, say: Callable[[str], None]
) -> dict[str, Any]:
    """Return what the faults cost, as a JSON-able value.

    Args:
        parts: of the run, faults included.
        scenario: with faults.
        broken: what the run gave.
        steps_of: the run's batches, routed.
        say: called with a line when a clock begins.
    """

    def again(faults: tuple[Fault, ...]) -> SummaryBuilder:
        other = scenario.model_copy(update={"faults": faults})
        fabric = build_fabric(other)
        its = with_effects(replace(parts, fabric=fabric), other)
        builder = SummaryBuilder(its)
        deque(run_steps(its, steps_of(its), builder, KernelLedger(), _NO_CURVES_S), maxlen=0)
        return builder

    say("the same without faults")
    healthy, several = again(()), len(scenario.faults) > 1
    each = []
    for i, fault in enumerate(scenario.faults):
        alone = None
        if several and i < MOST_ALONE:
            say(f"with fault {i + 1} of {len(scenario.faults)} alone")
            alone = _times(again((fault,)))
        each.append(fault.model_dump(mode="json", exclude_defaults=True, by_alias=True) | {"alone": alone})
    return {"with": _times(broken), "without": _times(healthy), "each": each}


def _times(builder: SummaryBuilder) -> dict[str, Any]:
    """Layer and step, what held the critical ranks, and whom all ranks waited for most, mean over the layers."""
    layers, names = len(builder.layers), builder.parts.fabric.rank_names
    last = int(np.argmax(builder.waited_on_s))
    waits = float(builder.waited_on_s[last]) / layers
    return {
        "layer_time_s": float(np.mean([row["layer_time_s"] for row in builder.layers])),
        "step_time_s": float(np.mean(builder.step_s)),
        "bottleneck": builder.bottleneck()[0],
        "waited_on": names[last] if waits > 0 else None,
        "waited_on_s": waits / len(names),
    }


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
