"""Every single finish time against exact rational arithmetic, and the certificate of max-min fairness."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moesim.network import FlowBatch, FlowNetwork, certificate, solve_flows
from tests.full_gates import cases
from tests.reference.max_min import csr, finish_times

quick = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@pytest.fixture(autouse=True, scope="module")
def every_event_is_proven():
    patch = pytest.MonkeyPatch()
    patch.setattr(certificate, "EVERY", 1)
    yield
    patch.undo()


@st.composite
def nets(draw, least_capacity=1):
    """Small networks with ties, weights, caps, staggered starts and changing capacities."""
    n_links, n_flows = draw(st.integers(1, 5)), draw(st.integers(1, 8))
    link = st.integers(0, n_links - 1)
    weight = st.sampled_from([1.0, 1.0, 1.0, 0.5, 2.0, 0.3, 0.0])
    size = st.one_of(st.integers(0, 40).map(float), st.floats(0.1, 100.0))
    time = st.one_of(st.sampled_from([0.0, 0.0, 1.0]), st.floats(0.0, 10.0))
    cap = st.one_of(st.just(np.inf), st.just(np.inf), st.integers(1, 9).map(float))
    each = {"min_size": n_flows, "max_size": n_flows}
    return {
        "capacity": [draw(st.integers(least_capacity, 30)) / 2 for _ in range(n_links)],
        "routes": draw(st.lists(st.lists(st.tuples(link, weight), max_size=4), **each)),
        "size": draw(st.lists(size, **each)),
        "start": draw(st.lists(time, **each)),
        "rate_cap": draw(st.lists(cap, **each)),
        "capacity_events": draw(st.lists(st.tuples(time, link, st.integers(1, 30).map(float)), max_size=3)),
    }


def solved(net, **changes):
    net = net | changes
    events = net["capacity_events"]
    return solve_flows(
        net["capacity"],
        np.zeros(len(net["capacity"])),
        size=net["size"],
        start=net["start"],
        rate_cap=net["rate_cap"],
        capacity_events=tuple(np.array(column) for column in zip(*events, strict=True)) if events else None,
        **csr(net["routes"]),
    )


@settings(quick, max_examples=cases(500, 10_000))
@given(nets())
def test_every_finish_time_equals_the_exact_one(net):
    np.testing.assert_allclose(solved(net), [float(t) for t in finish_times(**net)], rtol=1e-12, atol=1e-13)


@settings(quick, max_examples=cases(40, 1_000))
@given(nets(), st.randoms(use_true_random=False))
def test_the_order_in_which_flows_are_named_changes_no_time(net, random):
    order = list(range(len(net["size"])))
    random.shuffle(order)
    shuffled = {key: [net[key][i] for i in order] for key in ("routes", "size", "start", "rate_cap")}
    np.testing.assert_allclose(solved(net | shuffled), solved(net)[order], rtol=1e-12, atol=1e-13)


def assert_max_min_fair(network, handle, capacity, routes, rate_cap):
    """Bertsekas and Gallager: each flow has a saturated link on which no other flow is faster."""
    rate, bottleneck = network.rates(handle), network.bottlenecks(handle)
    load = np.zeros(len(capacity))
    fastest = np.zeros(len(capacity))
    for flow, route in enumerate(routes):
        for link, weight in route:
            load[link] += weight * rate[flow]
            if weight:
                fastest[link] = max(fastest[link], rate[flow])
    assert (load <= np.array(capacity) * (1 + 1e-12)).all()
    np.testing.assert_allclose(network.link_rate(), load, rtol=1e-12, atol=1e-12)
    for flow in np.flatnonzero(bottleneck > -2):
        link = bottleneck[flow]
        if link == -1:
            assert rate[flow] == rate_cap[flow]
        else:
            assert load[link] >= capacity[link] * (1 - 1e-12)
            assert rate[flow] >= fastest[link] * (1 - 1e-12)


@settings(quick, max_examples=cases(60, 10_000))
@given(nets(least_capacity=0))
def test_at_every_event_each_flow_has_a_saturated_link_on_which_nobody_is_faster(net):
    capacity = list(net["capacity"])
    network = FlowNetwork(capacity)
    n = len(net["size"])
    first = network.new_waiters(n)
    handle = network.start(
        FlowBatch(
            size=net["size"],
            start=net["start"],
            rate_cap=net["rate_cap"],
            waiter_ptr=np.arange(n + 1),
            waiter_ids=np.arange(first, first + n),
            **csr(net["routes"]),
        )
    )
    stops = [(time, None, None) for time in net["start"]] + list(net["capacity_events"]) + [(np.inf, None, None)]
    for time, link, value in sorted(stops, key=lambda stop: stop[0]):
        while True:
            now, done = network.run(until=time)
            assert_max_min_fair(network, handle, capacity, net["routes"], net["rate_cap"])
            if len(done) == 0:
                break
            assert (network.finish(handle)[done - first] == now).all()
        if link is not None:
            network.set_capacity(link, value)
            capacity[link] = value
            assert_max_min_fair(network, handle, capacity, net["routes"], net["rate_cap"])


def skewed_all_to_all(n, seed):
    """Unequal sizes, weights and starts on a crossbar with a shared spine for half of the pairs."""
    rng = np.random.default_rng(seed)
    routes, size = [], []
    for i in range(n):
        for j in range(n):
            if i != j:
                spine = [(2 * n + (i + j) % 2, 0.5)] if i // 2 != j // 2 else []
                routes.append([(i, 1.0), *spine, (n + j, rng.choice([1.0, 1.5]))])
                size.append(rng.pareto(1.5) + 0.1)
    capacity = [1.0] * (2 * n) + [n / 6, n / 7]
    return capacity, routes, np.array(size), np.round(rng.random(len(size)), 1)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("patience", [0, 1, 5])
def test_resolving_only_what_changed_equals_solving_everything_at_every_event(seed, patience):
    capacity, routes, size, start = skewed_all_to_all(6, seed)
    finish = []
    for looks in (10**6, patience):
        network = FlowNetwork(capacity, patience=looks)
        handle = network.start(FlowBatch(size=size, start=start, **csr(routes)))
        network.run(np.inf)
        finish.append(network.finish(handle))
    np.testing.assert_allclose(finish[0], finish[1], rtol=1e-12)
