"""Poisson arrivals on one link: a queue with processor sharing, whose mean does not see the law of the sizes."""

import numba
import numpy as np
import pytest

from moesim.network import solve_flows

N = 1_440 if numba.config.DISABLE_JIT else 30_000

SIZES = {
    "deterministic": lambda rng, n: np.ones(n),
    "exponential": lambda rng, n: rng.exponential(1.0, n),
    "pareto": lambda rng, n: 0.6 * (1 + rng.pareto(2.5, n)),
}


@pytest.mark.parametrize("load", [0.3, 0.6])
@pytest.mark.parametrize("law", SIZES)
def test_the_mean_time_in_the_system_depends_on_the_mean_size_alone(law, load):
    """M/G/1-PS: E[sojourn] = E[size] / (capacity (1 - load)), here with E[size] = 1 (Kleinrock 1976, 4.4)."""
    rng = np.random.default_rng(11)
    capacity = 50.0
    start = np.cumsum(rng.exponential(1.0 / (load * capacity), N))
    finish = solve_flows([capacity], [0.0], np.arange(N + 1), np.zeros(N, np.int32), SIZES[law](rng, N), start)
    batches = (finish - start)[N // 10 :].reshape(18, -1).mean(1)
    error = batches.std(ddof=1) / np.sqrt(18)
    assert abs(batches.mean() - 1 / (capacity * (1 - load))) < 3.9 * error
    assert error < 0.2 * batches.mean()
