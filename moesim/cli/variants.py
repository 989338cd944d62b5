"""Simulate the variants of a scenario, in as many processes as asked for; the results do not depend on how many."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

from moesim.spawn import WorkerContext

if TYPE_CHECKING:
    from moesim.results import Result
    from moesim.scenario import Scenario


def simulate_all(scenarios: "dict[str, Scenario]", jobs: int, say: Callable[[str], None]) -> "dict[str, Result]":
    """Simulate each scenario; the results come in the order of the scenarios."""
    if jobs == 1 or len(scenarios) == 1:
        results = {}
        for name, scenario in scenarios.items():
            say(f"{name}: simulating")
            results[name] = _simulate(scenario)
        return results
    with ProcessPoolExecutor(max_workers=min(jobs, len(scenarios)), mp_context=WorkerContext()) as pool:
        futures = {name: pool.submit(_simulate, scenario) for name, scenario in scenarios.items()}
        results = {}
        try:
            for name, future in futures.items():
                results[name] = future.result()
                say(f"{name}: done ({len(results)} of {len(futures)})")
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return results


def _simulate(scenario: "Scenario") -> "Result":
    from moesim.errors import InputError
    from moesim.simulation import simulate

    try:
        return simulate(scenario)
    except InputError as error:
        if ":" in error.where:  # a place in a file says enough
            raise
        where = f"{scenario.name}: {error.where}" if error.where else scenario.name
        raise InputError(error.what, where, error.fix, error.others) from None
