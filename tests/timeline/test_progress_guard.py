"""Zeno: time that stands still, or goes on while nothing moves, ends with the flows named and not in an endless run."""

from dataclasses import replace

import numpy as np
import pytest

from moesim.compiling import interpreted
from moesim.errors import InvariantError
from moesim.network import FlowBatch, FlowNetwork
from moesim.network.exact import progress, state
from moesim.timeline import ranks
from tests.reference.max_min import csr
from tests.timeline.test_layers import fabric, run, work  # noqa: F401 - a fixture

in_plain_python = pytest.mark.skipif(not interpreted(), reason="compiled kernels cannot be spoilt: NUMBA_DISABLE_JIT=1")


def stuck_network(monkeypatch, finish_due):
    """A network of one flow on link 1 whose completion is never reached."""
    monkeypatch.setattr(progress, "finish_due", finish_due)
    network = FlowNetwork([1.0, 2.0])
    network.start(FlowBatch(size=[6.0], **csr([[(1, 1)]])))
    return network


@in_plain_python
@pytest.mark.parametrize("most", [0, 50])
def test_events_of_one_instant_are_bounded_and_the_flows_named(monkeypatch, most):
    network = stuck_network(monkeypatch, lambda s: None)
    network._s.tally[state.MOST_AT_ONCE] = most
    with pytest.raises(InvariantError, match=r"nowhere at 3.0 s: 1 flows in progress, flow 0 of batch 0 on link 1"):
        network.run(np.inf)
    assert network._s.tally[state.N_EVENTS] == most + 2


@in_plain_python
def test_events_without_a_start_or_an_end_are_bounded_though_the_clock_goes_on(monkeypatch):
    def later(s):
        first, link = progress.least(s.completion)
        progress.put(s.completion, link, first + 1.0)

    network = stuck_network(monkeypatch, later)
    network._s.tally[state.MOST_IDLE] = 20
    with pytest.raises(InvariantError, match=r"nowhere at 23.0 s: 1 flows in progress"):
        network.run(np.inf)


@pytest.mark.parametrize("limit", [state.MOST_AT_ONCE, state.MOST_IDLE])
def test_the_engine_comes_back_at_either_limit(limit):
    network = FlowNetwork([1.0, 2.0])
    network.start(FlowBatch(size=[6.0, 8.0], **csr([[(1, 1)], [(0, 1)]])))
    network._s.tally[limit] = -1
    with pytest.raises(InvariantError, match=r"nowhere at 3.0 s: 1 flows in progress, flow 1 of batch 0 on link 0"):
        network.run(np.inf)


def test_the_limits_are_a_million_events_at_once_and_a_hundred_thousand_idle_ones():
    tally = FlowNetwork([1.0])._s.tally
    assert (tally[state.MOST_AT_ONCE], tally[state.MOST_IDLE]) == (10**6, 10**5) and ranks._MOST_AT_ONCE == 10**6


def test_achilles_who_halves_his_steps_ends_the_run(fabric, monkeypatch):  # noqa: F811
    def halving(self, rank, seconds):
        while True:
            yield self._env.timeout(seconds)
            seconds /= 2

    monkeypatch.setattr(ranks._Ranks, "_run_kernel", halving)
    monkeypatch.setattr(ranks, "_MOST_AT_ONCE", 1000)
    with pytest.raises(InvariantError, match=r"more than 1,000 events at 9.99\d*e-06 s"):
        run(fabric, [work(fabric, copies=1, gate=5.0)])


def test_a_link_that_carries_nothing_is_named_with_the_flows_that_wait_for_it(fabric):  # noqa: F811
    capacity = fabric.capacity.copy()
    dead = fabric.link_names.index(next(name for name in fabric.link_names if "n0.gpu1" in name))
    capacity[dead] = 0.0
    with pytest.raises(InvariantError, match=r"never gets .* done; \d+ flows have not ended; .*over .*gpu1"):
        run(replace(fabric, capacity=capacity), [work(fabric, copies=1)])
