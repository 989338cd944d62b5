"""Simulate several scenarios, in as many processes as asked for; the results do not depend on how many."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from moesim.spawn import map_in_processes

if TYPE_CHECKING:
    from moesim.results import Result
    from moesim.scenario import Scenario

T = TypeVar("T")


def simulate_all(
    scenarios: "dict[str, Scenario]", jobs: int, say: Callable[[str], None], exact_bands: bool = False
) -> "dict[str, Result]":
    """Simulate each scenario; the results come in the order of the scenarios. ``exact_bands``: see ``simulate``."""
    return _each(functools.partial(_simulate, exact_bands), scenarios, jobs, say)


def summarise_all(scenarios: "dict[str, Scenario]", jobs: int, say: Callable[[str], None]) -> dict[str, dict[str, Any]]:
    """Simulate each scenario for its summary alone."""
    return _each(_summarise, scenarios, jobs, say)


def _each(
    work: "Callable[[Scenario], T]", scenarios: "dict[str, Scenario]", jobs: int, say: Callable[[str], None]
) -> dict[str, T]:
    names, alone = list(scenarios), jobs == 1 or len(scenarios) == 1

    def progress(done: int) -> None:
        if alone and done < len(names):
            say(f"{names[done]}: simulating")
        elif done and not alone:
            say(f"{names[done - 1]}: done ({done} of {len(names)})")

    return dict(zip(names, map_in_processes(work, list(scenarios.values()), jobs, progress), strict=True))


def _simulate(exact_bands: bool, scenario: "Scenario") -> "Result":
    from moesim.run import simulate

    with _named(scenario):
        return simulate(scenario, exact_bands=exact_bands)


def _summarise(scenario: "Scenario") -> dict[str, Any]:
    from moesim.sweeps.evaluate_points import parts_of, recording_of, route, summarise

    with _named(scenario):
        parts = parts_of(scenario)
        return summarise(parts, route(scenario, parts, recording_of(scenario)))


@contextmanager
def _named(scenario: "Scenario") -> Iterator[None]:
    """Name the scenario of a mistake that does not name its own."""
    from moesim.errors import InputError

    try:
        yield
    except InputError as error:
        if ":" in error.where:  # a place in a file says enough
            raise
        where = f"{scenario.name}: {error.where}" if error.where else scenario.name
        raise InputError(error.what, where, error.fix, error.others) from None
