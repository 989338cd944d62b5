"""The plan of a sweep before its first point runs: its points, the impossible ones, and which share their tokens."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim import __version__
from moesim.errors import InputError
from moesim.layer import place
from moesim.scenario import PATH_FIELDS, Scenario, ScenarioTemplate
from moesim.sweeps.digests import file_digest, input_files, routing_digest
from moesim.sweeps.evaluate_points import Routed, one_line, parts_of, recording_of
from moesim.sweeps.space import Space, axis_label


@dataclass(frozen=True)
class Plan:
    """The points of a sweep.

    Attributes:
        possible: point -> digest of its routing; points with the same digest share it.
        impossible: point -> why no scenario can be made of it.
        estimate: time the points without the event engine.
        routed: routings by digest, kept from one drive to the next; None to drop what no point needs any more.
    """

    template: ScenarioTemplate
    space: Space
    possible: dict[int, str]
    impossible: dict[int, str]
    estimate: bool = False
    routed: dict[str, Routed] | None = None


def make_plan(
    template: ScenarioTemplate,
    space: Space,
    points: Iterable[int],
    say: Callable[[int], None] = lambda _: None,
    fits: Callable[[Scenario], None] = lambda _: None,
    gpu_memory: bool = False,
) -> Plan:
    """Make the scenario of every point, check that its parts fit each other, and find out what it shares.

    Args:
        template: what the points have in common.
        space: all points.
        points: those to plan.
        say: called with the number of points looked at, now and then.
        fits: raises InputError for a scenario that this machine cannot run.
        gpu_memory: what a GPU has no memory for is impossible.
    """
    possible: dict[int, str] = {}
    impossible: dict[int, str] = {}
    for seen, point in enumerate(points):
        try:
            scenario = template.scenario(space.values(point))
            fits(scenario)
            parts = parts_of(scenario)
            if gpu_memory and parts.memory is not None and parts.memory.free < 0:
                raise InputError(f"it does not fit: {parts.memory.in_words()}", "memory")
            place(parts, np.ones(parts.router.n_experts, np.int64), partial(_some_experts, parts.router.top_k))
            possible[point] = routing_digest(scenario, parts, recording_of(scenario))
        except InputError as error:
            impossible[point] = one_line(error)
        if seen % 100 == 99:
            say(seen + 1)
    return Plan(template, space, possible, impossible)


def _some_experts(top_k: int) -> NDArray[np.int32]:
    """One token's selections, whichever."""
    return np.arange(top_k, dtype=np.int32)[None]


def refusal(plan: Plan) -> InputError:
    """Return the error that lists every impossible point, one line each."""
    lines = [
        InputError(why, where=f"point {point} ({values_in_words(plan.space.values(point))})")
        for point, why in plan.impossible.items()
    ]
    last = InputError(
        f"{len(lines)} of {len(plan.space)} points are impossible and none was run",
        fix="change the axes, or leave these points out with --impossible skip",
    )
    return InputError(lines[0].what, lines[0].where, "", (*lines[1:], last))


def values_in_words(values: dict[str, Any]) -> str:
    """Return the values of a point as one would type them."""
    return ", ".join(f"{key}={axis_label(value)}" for key, value in values.items())


def identity(scenario: Scenario, template: ScenarioTemplate, space: Space) -> dict[str, Any]:
    """Return what a sweep is, as plain data: two sweeps with the same identity have the same rows."""
    return {
        "scenario": template.written() | {"name": scenario.name},
        "sweep": space.described(),
        "files": _files(scenario, template, space),
        "moesim": __version__,
    }


def _files(scenario: Scenario, template: ScenarioTemplate, space: Space) -> dict[str, str]:
    """Digests of the files that the points read, those that an axis names included."""
    fields = {".".join(loc) for loc in PATH_FIELDS}
    scenarios = [scenario]
    for axis in space.axes:
        if any(field == key or field.startswith(f"{key}.") for field in fields for key in axis.keys):
            for row in axis.values:
                try:
                    scenarios.append(template.scenario(dict(zip(axis.keys, row, strict=True))))
                except InputError:  # possible together with the other axes at best
                    continue
    digests: dict[str, str] = {}
    for path in (path for each in scenarios for path in input_files(each).values()):
        sha = file_digest(path)
        digests[path.name if digests.get(path.name, sha) == sha else str(path)] = sha
    return digests
