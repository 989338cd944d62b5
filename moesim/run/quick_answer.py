"""A first answer without the event engine: the first step, every operation in closed form."""

from moesim.errors import InputError
from moesim.layer import build_parts, counterfactuals, opened
from moesim.measure import ToleranceLedger, degraded
from moesim.results import Note, Result, Tables, intervals
from moesim.run.routed_steps import route_steps
from moesim.run.steps import summed_up
from moesim.scenario import Scenario

QUICK = "quick answer, no event engine: links end with their last byte; how far off that is: docs/plan.md"


def quick_answer(scenario: Scenario) -> Result:
    """Return the summary of a scenario's first step, and nothing else of its result (``variants`` are ignored).

    Raises:
        InputError: parts of the scenario do not fit each other, a file of it cannot be used, or several groups run.
        InvariantError: a law of the simulator was broken.
    """
    if scenario.groups_at_once > 1:
        raise InputError("groups that share links need the event engine", "parallel.dp", "leave --quick away")
    parts, workload = opened(build_parts(scenario))
    batch = workload.batch(0)
    builder, ledger = summed_up(parts, route_steps(parts, [batch]), quick=True)
    different = counterfactuals(parts, workload.recording.router) if workload.recording is not None else ()
    summary, notes = builder.build(ledger.shares(), bool(different)), []
    notes += [Note("counterfactual", text) for text in different]
    notes += [Note("info", text) for text in batch.notes]
    notes += [Note("estimated", text) for text in batch.estimated]
    notes += degraded(parts, ledger, ToleranceLedger(0.0), batch)
    notes += builder.moved.notes()
    notes += builder.step.notes() if builder.step is not None else ()
    notes.append(Note("quick", QUICK))
    if parts.workload.steps > 1:
        notes.append(Note("quick", f"the first of {parts.workload.steps} steps"))
    moves = intervals(summary, builder.moved.band(summary))
    return Result(summary, Tables({}), tuple(notes), {}, {}, {}, "", intervals=moves)
