"""Simulate the variants of a scenario, in as many processes as asked for; the results do not depend on how many."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moesim.results import Result
    from moesim.scenario import Scenario


def simulate_all(scenarios: "dict[str, Scenario]", jobs: int, say: Callable[[str], None]) -> "dict[str, Result]":
    """Simulate each scenario; the results come in the order of the scenarios."""
    if jobs == 1 or len(scenarios) == 1:
        from moesim.simulation import simulate

        results = {}
        for name, scenario in scenarios.items():
            say(f"{name}: simulating")
            results[name] = simulate(scenario)
        return results
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=min(jobs, len(scenarios)), mp_context=context) as pool:
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
    from moesim.simulation import simulate

    return simulate(scenario)
