"""Simulate several scenarios, in as many processes as asked for; the results do not depend on how many."""

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from moesim.spawn import WorkerContext

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
    if jobs == 1 or len(scenarios) == 1:
        results = {}
        for name, scenario in scenarios.items():
            say(f"{name}: simulating")
            results[name] = work(scenario)
        return results
    from moesim.warm_up import compile_first

    compile_first()  # not each worker for itself
    with ProcessPoolExecutor(max_workers=min(jobs, len(scenarios)), mp_context=WorkerContext()) as pool:
        futures = {name: pool.submit(work, scenario) for name, scenario in scenarios.items()}
        results = {}
        try:
            for name, future in futures.items():
                results[name] = future.result()
                say(f"{name}: done ({len(results)} of {len(futures)})")
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return results


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
