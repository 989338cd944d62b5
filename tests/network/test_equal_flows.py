"""Equal flows are solved as one, and nothing but the time it takes tells."""

import numpy as np
import pytest

from moesim.network import FlowBatch, FlowNetwork, solve_flows
from moesim.network.solve import classes_of_equal
from tests.reference.max_min import csr, finish_times


def several_of_each(seed, copies):
    """Flows on five links, each several times, in random order."""
    rng = np.random.default_rng(seed)
    routes = [[(int(link), float(rng.choice([1.0, 0.5]))) for link in rng.choice(5, 2, False)] for _ in range(4)]
    size, start = rng.integers(1, 9, 4).astype(float), rng.integers(0, 2, 4).astype(float)
    cap = rng.choice([np.inf, 1.0], 4)
    order = rng.permutation(np.repeat(np.arange(4), copies))
    return {
        "routes": [routes[i] for i in order],
        "size": size[order],
        "start": start[order],
        "rate_cap": cap[order],
    }, order


@pytest.mark.parametrize("seed", range(6))
def test_flows_that_come_several_times_end_when_exact_arithmetic_says(seed):
    net, order = several_of_each(seed, 3)
    capacity = [3.0, 2.0, 5.0, 1.5, 4.0]
    more = {name: net[name] for name in ("size", "start", "rate_cap")}
    got = solve_flows(capacity, np.zeros(5), **csr(net["routes"]), **more)
    want = finish_times(capacity, net["routes"], **more)
    np.testing.assert_allclose(got, [float(t) for t in want], rtol=1e-12)
    arrays = csr(net["routes"])
    found = classes_of_equal(arrays["route_ptr"], arrays["route_links"], arrays["weight"], *more.values())
    assert found is not None
    first, which = found
    assert len(first) == len(set(order.tolist()))
    assert all(len(set(order[which == each].tolist())) == 1 for each in range(len(first)))


def test_whatever_differs_keeps_flows_apart():
    route = {"ptr": np.array([0, 2, 4]), "links": np.array([0, 1, 0, 1], np.int32), "weight": np.ones(4)}
    same = {"size": np.ones(2), "start": np.zeros(2), "cap": np.full(2, np.inf)}
    assert classes_of_equal(**route, **same) is not None
    for name, value in {
        "links": np.array([0, 1, 1, 0], np.int32),
        "weight": np.array([1.0, 1.0, 1.0, 2.0]),
        "size": np.array([1.0, 1.0 + 1e-15]),
        "start": np.array([0.0, 1e-300]),
        "cap": np.array([np.inf, 1e300]),
    }.items():
        assert classes_of_equal(**(route | same | {name: value})) is None
    assert classes_of_equal(np.array([0, 1, 3]), np.array([0, 0, 0], np.int32), np.ones(3), **same) is None


def test_two_hashes_that_agree_by_chance_merge_nobody(monkeypatch):
    from moesim.network import solve

    monkeypatch.setattr(solve, "_mixed", lambda values: values * np.uint64(0))
    net, _ = several_of_each(0, 2)
    more = {name: net[name] for name in ("size", "start", "rate_cap")}
    want = finish_times([3.0] * 5, net["routes"], **more)
    got = solve_flows([3.0] * 5, np.zeros(5), **csr(net["routes"]), **more)
    np.testing.assert_allclose(got, [float(t) for t in want], rtol=1e-12)


def test_a_stalled_flow_of_a_class_is_named_by_its_own_number():
    with pytest.raises(Exception, match="flow 1 can never finish: capacity 0 of link 1"):
        solve_flows([1.0, 0.0], [0.0, 0.0], [0, 1, 2, 3], [0, 1, 1], [1.0, 2.0, 2.0], [0.0, 0.0, 0.0])


def test_the_network_itself_takes_equal_flows_one_by_one():
    network = FlowNetwork([2.0])
    handle = network.start(FlowBatch([0, 1, 2], [0, 0], [1.0, 1.0]))
    network.run(np.inf)
    np.testing.assert_allclose(network.finish(handle), [1.0, 1.0])
