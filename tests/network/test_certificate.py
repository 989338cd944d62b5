"""The certificate of max-min fair rates: what a run checks of itself, and that it sees wrong rates."""

import numpy as np
import pytest

from moesim.errors import InvariantError
from moesim.network import FlowBatch, FlowNetwork, certificate, solve_within
from moesim.network.exact import flow_network
from moesim.network.stepped import stepping
from moesim.run import simulate
from tests.reference.max_min import csr
from tests.run.small import scenario

# Two flows share link 0, one of them also crosses link 1, where a third has the rest: rates 2, 2 and 3.
ROUTES, CAPACITY, RATES = [[(0, 1)], [(0, 1), (1, 1)], [(1, 1)]], [4.0, 5.0], [2.0, 2.0, 3.0]


def proven(rates, capacity=CAPACITY, cap=None):
    routes = csr(ROUTES)
    ptr, links, weight = (routes[key] for key in ("route_ptr", "route_links", "weight"))
    caps = None if cap is None else np.array(cap)
    certificate.prove(0.0, np.array(capacity), ptr[:-1], np.diff(ptr), links, weight, np.array(rates), caps)


@pytest.mark.parametrize(
    ("rates", "law"),
    [
        ([2.0, 2.0, 3.0 + 1e-7], "link 1 carries 5.0000001 bytes/s of 5$"),
        ([2.0, 2.0, 3.0 - 1e-7], "the flow over links 1 runs at 2.9999999"),  # its link is not full
        ([3.0, 1.0, 4.0], "the flow over links 0, 1 runs at 1 bytes/s"),  # both links are full, others are faster
        ([2.0, 2.0, np.nan], "link 1 carries nan"),
    ],
)
def test_rates_that_are_not_max_min_fair_are_named_by_their_link(rates, law):
    proven(RATES)
    with pytest.raises(InvariantError, match=law):
        proven(rates)


def test_a_flow_at_its_cap_needs_no_full_link():
    with pytest.raises(InvariantError, match="the flow over links 0 runs at 1"):
        proven([1.0, 2.0, 3.0])
    with pytest.raises(InvariantError, match="the flow over links 0, 1"):
        proven([1.0, 2.0, 3.0], cap=[1.0, np.inf, np.inf])  # and what it leaves is for the others
    proven([1.0, 3.0, 2.0], cap=[1.0, np.inf, 2.0])


def port_flows(n):
    """Flows of unlike sizes between all pairs of n ranks, each over two unit ports."""
    pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
    sizes = np.random.default_rng(0).random(len(pairs)) + 0.1
    return np.ones(2 * n), FlowBatch(size=sizes, **csr([[(i, 1), (n + j, 1)] for i, j in pairs]))


def counted(monkeypatch):
    seen, prove = [], certificate.prove
    monkeypatch.setattr(certificate, "prove", lambda now, *others: seen.append(now) or prove(now, *others))
    return seen


def test_the_first_instants_of_a_phase_are_proven_then_one_in_a_hundred(monkeypatch):
    capacity, flows = port_flows(20)  # 380 flows, which end one by one
    network, seen = FlowNetwork(capacity), counted(monkeypatch)
    handle = network.start(flows)
    network.run(np.inf)
    ends = np.unique(network.finish(handle))
    assert len(ends) == 380
    # The start, then 1, 2, 4, ... 64 events after one another, then every hundred.
    assert seen == [0.0, *ends[np.array([1, 3, 7, 15, 31, 63, 127, 227, 327]) - 1]]


def test_a_changed_capacity_of_a_link_with_flows_is_proven_at_once(monkeypatch):
    capacity, flows = port_flows(8)
    network, seen = FlowNetwork(capacity), counted(monkeypatch)
    network.start(flows)
    network.run(0.01)
    before = len(seen)
    network.set_capacity(3, 0.25)
    network.run(0.02)
    assert seen[before] == 0.01


def test_rates_above_what_the_solver_found_end_the_run_of_either_engine(monkeypatch):
    capacity, flows = port_flows(8)
    real = flow_network.advance

    def faster(state, until):
        why = real(state, until)
        state.level[:] *= 1.001
        return why

    monkeypatch.setattr(flow_network, "advance", faster)
    network = FlowNetwork(capacity)
    network.start(flows)
    with pytest.raises(InvariantError, match=r"carries 1\.00"):
        network.run(np.inf)
    fill = stepping.fill

    def slower(*arguments):
        fill(*arguments)
        arguments[7][:] *= 0.999  # the rates

    monkeypatch.undo()
    monkeypatch.setattr(stepping, "fill", slower)
    with pytest.raises(InvariantError, match="none of them is full with nobody faster"):
        solve_within(capacity, flows.route_ptr, flows.route_links, flows.size, np.zeros(len(flows.size)), 0.01)


def test_a_fault_that_the_rates_ignore_ends_the_run_and_names_the_link(monkeypatch):
    def unheard(state, link, value):
        state.link.capacity[link] = value

    overrides = ("cluster.topology=h800-2x8-rail", "alltoall.algorithm=nccl-direct", "workload.tokens_per_rank=512")
    fault = {"kind": "slow_nic", "where": "n0.gpu2.nic", "factor": 3.0, "from": "100us", "to": "1s"}
    point = scenario(*overrides, faults=[fault])
    monkeypatch.setattr(flow_network, "change_capacity", unheard)
    with pytest.raises(InvariantError, match=r"link n0\.gpu2.* carries .* bytes/s of 1"):
        simulate(point)
