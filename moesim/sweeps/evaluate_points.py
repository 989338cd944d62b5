"""What a worker does for a sweep: route a batch of tokens, then put points that share it on the clock.

Two pure functions, so that it does not matter which worker runs which, or how often. ``route_point`` gives the small
values that everything downstream follows from (copies per pair of ranks, loads, figures); ``time_point`` needs no token
any more. Points that differ only in wires, kernels or timing therefore share one routing, whoever computed it.

A worker keeps what it has read or built lately (recordings, batches, fabrics), found by the digest of what it was made
from.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from moesim.cluster import Fabric
from moesim.errors import InputError, ResourceError
from moesim.layer import (
    Parts,
    Workload,
    build_fabric,
    build_parts,
    counterfactuals,
    open_workload,
    trace_of,
    with_learnt_placement,
)
from moesim.recording_format import Recording, is_recording, read_recording, recording_path
from moesim.results import ENDS, intervals
from moesim.run import RoutedStep, route_steps, simulate, summed_up
from moesim.scenario import Scenario, ScenarioTemplate
from moesim.sweeps.digests import batch_digest, fabric_digest, file_digest, file_digests
from moesim.sweeps.journal import Outcome
from moesim.workload import Batch, RoutingTrace

T = TypeVar("T")

_LONGEST_ERROR = 500


class Recent(Generic[T]):
    """The few last values that were asked for, by key."""

    def __init__(self, size: int) -> None:
        self._size, self._values = size, OrderedDict[Hashable, T]()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return the value of a key, made where it is not kept any more."""
        if key not in self._values:
            self._values[key] = make()
        self._values.move_to_end(key)
        while len(self._values) > self._size:
            self._values.popitem(last=False)
        return self._values[key]


_recordings: Recent[Recording] = Recent(4)
_batches: Recent[Batch] = Recent(4)
_traces: Recent[RoutingTrace | None] = Recent(4)
_fabrics: Recent[Fabric] = Recent(64)


@dataclass(frozen=True)
class Routed:
    """Every batch of a point after routing, and whether its router is another than the logits were trained with."""

    steps: tuple[RoutedStep, ...]
    counterfactual: bool


def parts_of(scenario: Scenario) -> Parts:
    """Build the parts of a scenario on a fabric that may be kept from before.

    Raises:
        InputError: sections that do not fit each other.
    """
    return build_parts(scenario, _fabrics.get(fabric_digest(scenario), lambda: build_fabric(scenario)))


def recording_of(scenario: Scenario) -> Recording | None:
    """Return the recording that a scenario's tokens come from, None where they do not come from one of moesim's own.

    Raises:
        InputError: it cannot be read.
    """
    source = scenario.workload.recording
    if source is None:
        return None
    path = recording_path(scenario.source(source.name))
    if not is_recording(path):
        return None
    return _recordings.get((str(path), file_digest(path)), lambda: read_recording(path))


def route(scenario: Scenario, parts: Parts, recording: Recording | None) -> Routed:
    """Route every batch of a scenario; those of several groups, which are on one clock, when it runs."""
    if scenario.groups_at_once > 1:
        return Routed((), False)
    tokens = batch_digest(scenario, parts, recording)
    files = tuple(sorted(item for item in file_digests(scenario).items() if item[0].startswith("workload.")))

    def opened() -> Workload:
        # The scenario names one file at most, and the key is what is read of it.
        key = (files, parts.router.n_experts, parts.workload.recording)
        return open_workload(parts, lambda: _traces.get(key, lambda: trace_of(parts)), recording)

    placed = with_learnt_placement(parts, opened)
    batches = (
        _batches.get((tokens, index), lambda index=index: opened().batch(index))  # type: ignore[misc]
        for index in range(parts.workload.steps)
    )
    steps = tuple(route_steps(placed, batches))
    different = counterfactuals(parts, recording.router) if recording is not None else ()
    return Routed(steps, bool(different))


def summarise(parts: Parts, routed: Routed) -> dict[str, Any]:
    """Put routed batches on the clock.

    Returns:
        The summary that ``moesim.simulate`` gives for this scenario, and nothing else of its result.

    Raises:
        InvariantError: a law of the simulator was broken.
    """
    return _on_the_clock(parts, routed)[0]


def _on_the_clock(parts: Parts, routed: Routed, quick: bool = False) -> tuple[dict[str, Any], dict[str, float]]:
    """The summary, and the ends of its intervals to first order by the names of the table's columns."""
    builder, ledger = summed_up(parts, routed.steps, quick)
    summary = builder.build(ledger.shares(), routed.counterfactual)
    return summary, _ends(intervals(summary, builder.moved.band(summary)))


def _ends(of: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    return {f"{key}_{end}": value for key, both in of.items() for end, value in zip(ENDS, both, strict=True)}


def route_point(template: ScenarioTemplate, values: Mapping[str, Any]) -> Routed | str:
    """Route a point's batches; the text of what went wrong where that cannot be done."""
    try:
        scenario = template.scenario(values)
        return route(scenario, parts_of(scenario), recording_of(scenario))
    except Exception as error:  # the sweep continues: the point's row says what happened
        return one_line(error)


def time_point(
    template: ScenarioTemplate, values: Mapping[str, Any], routed: Routed, estimate: bool = False
) -> Outcome:
    """Put a routed point on the clock, or estimate it without events; a failed outcome where that cannot be done."""
    try:
        scenario = template.scenario(values)
        if scenario.groups_at_once > 1 and not estimate:
            result = simulate(scenario)
            return Outcome("ok", None, result.summary | _ends(result.intervals))
        summary, ends = _on_the_clock(parts_of(scenario), routed, estimate)
        return Outcome("estimated" if estimate else "ok", None, summary | ends)
    except Exception as error:  # as above
        return Outcome("failed", one_line(error))


def one_line(error: Exception) -> str:
    """Return an error in one line."""
    if isinstance(error, InputError):
        text = "; ".join(single.line() for single in (error, *error.others))
    elif isinstance(error, ResourceError):
        text = str(error)
    else:
        text = f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:_LONGEST_ERROR]
