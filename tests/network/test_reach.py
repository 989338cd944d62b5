"""What links reach, kept by counting up and down, against the routes of all flows at every event."""

import numpy as np
import pytest

from moesim.network import FlowBatch, FlowNetwork
from moesim.network.exact import flow_network
from moesim.network.exact.state import LIVE, pays_reach
from tests.reference.max_min import csr


def counted(network, handle, routes):
    """Flows and weights of each pair (bottleneck, other link), from the routes of the flows in progress."""
    flows, weights = {}, {}
    for flow, link in enumerate(network._s.flow.bottleneck[: len(routes)]):
        if network._s.flow.phase[flow] != LIVE:
            continue
        loads = {}
        for other, weight in routes[flow]:
            loads[other] = loads.get(other, 0.0) + weight
        for other, weight in loads.items():
            if other != link:
                flows[link, other] = flows.get((link, other), 0) + 1
                weights[link, other] = weights.get((link, other), 0.0) + weight
    return flows, weights


def assert_table_is(network, flows, weights, caps):
    reach = network._s.reach
    assert len(reach.length) == len(network._s.level)
    got_flows, got_weights = {}, {}
    for link, length in enumerate(reach.length):
        for at in range(length):
            other = int(reach.row.link[link, at])
            assert reach.column[link, other] == at + 1
            if other < caps and link < caps:
                got_flows[link, other] = int(reach.row.flows[link, at])
                got_weights[link, other] = float(reach.row.weight[link, at])
        assert np.count_nonzero(reach.column[link]) == length
    flows = {pair: n for pair, n in flows.items() if pair[0] < caps}
    assert got_flows == flows
    assert got_weights == pytest.approx({pair: weights[pair] for pair in flows}, rel=1e-12)


def random_flows(seed):
    rng = np.random.default_rng(seed)
    routes = []
    for _ in range(40):
        links = rng.choice(8, size=rng.integers(1, 4), replace=False)
        routes.append([(int(link), float(rng.choice([1.0, 1.0, 0.3, 2.0]))) for link in links])
    routes[3] = [(2, 1.0), (2, 0.5), (5, 1.0)]
    size = rng.integers(1, 30, 40).astype(float)
    start = rng.choice([0.0, 0.0, 2.0, 3.5], 40)
    cap = np.where(rng.random(40) < 0.2, 0.5, np.inf)
    return rng, rng.integers(1, 6, 8).astype(float), routes, size, start, cap


@pytest.mark.parametrize("patience", [None, 0, 3])
@pytest.mark.parametrize("seed", range(3))
def test_the_table_follows_the_flows_through_starts_ends_cancels_new_routes_and_capacities(seed, patience):
    rng, capacity, routes, size, start, cap = random_flows(seed)
    network = FlowNetwork(capacity, patience=patience)
    first = network.new_waiters(40)
    handle = network.start(
        FlowBatch(
            size=size,
            start=start,
            rate_cap=cap,
            waiter_ptr=np.arange(41),
            waiter_ids=np.arange(first, first + 40),
            **csr(routes),
        )
    )
    while network.run(np.inf)[0] < np.inf:
        if rng.random() < 0.2:
            network.cancel(handle, int(rng.integers(40)))
        if rng.random() < 0.2:
            network.set_capacity(int(rng.integers(8)), float(rng.integers(1, 6)))
        if rng.random() < 0.2:
            flow, link = int(rng.integers(40)), int(rng.integers(8))
            if network._s.flow.phase[flow] <= LIVE:
                routes[flow] = [(link, 1.0), ((link + 1) % 8, 0.7)]
                network.reroute(handle, flow, *zip(*routes[flow], strict=True))
        network.rates(handle)
        assert_table_is(network, *counted(network, handle, routes), caps=8)
    assert not network._s.reach.length.any()


@pytest.mark.parametrize("seed", range(4))
def test_times_are_the_same_without_a_table(seed, monkeypatch):
    _, capacity, routes, size, start, cap = random_flows(seed)
    finish = []
    for pays in (True, False):
        monkeypatch.setattr(flow_network, "pays_reach", lambda *_, pays=pays: pays)
        network = FlowNetwork(capacity)
        handle = network.start(FlowBatch(size=size, start=start, rate_cap=cap, **csr(routes)))
        network.run(np.inf)
        assert (len(network._s.reach.length) > 0) == pays
        finish.append(network.finish(handle))
    np.testing.assert_allclose(finish[0], finish[1], rtol=1e-12)


def test_a_table_that_later_links_outgrow_is_made_again_in_full():
    network = FlowNetwork(np.full(4, 2.0))
    routes = [[(0, 1.0), (1, 1.0)], [(1, 1.0), (2, 1.0)], [(2, 1.0), (3, 0.5)]]
    handle = network.start(FlowBatch(size=[9.0, 9.0, 9.0], **csr(routes)))
    network.rates(handle)
    before = counted(network, handle, routes)
    network.start(FlowBatch(size=[9.0] * 8, rate_cap=[0.01] * 8, **csr([[(0, 1e-9)]] * 8)))
    assert_table_is(network, *before, caps=4)


@pytest.mark.jit  # interpreted, records are plain objects
def test_a_table_takes_no_memory_where_few_flows_cross_many_links():
    network = FlowNetwork(np.ones(3000))
    network.start(FlowBatch([0, 2], [0, 1], [1.0]))
    assert sum(array.nbytes for array in network._s.reach) == 0
    assert not pays_reach(40_000, 10**11, 2 * 10**11)
    assert pays_reach(4096, 1_000_000, 4_000_000)
    assert not pays_reach(4096, 400_000, 4_000_000)
