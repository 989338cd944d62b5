"""Limits of finish times that must hold for exact max-min sharing, whatever the network: never violated, often met."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks import workloads
from moesim.network import solve_flows, solve_within
from moesim.network.stepped.bounds import links_done, longest_time, shortest_time
from tests.reference.max_min import csr, finish_times

quick = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=80)


@st.composite
def nets(draw):
    n_links, n_flows = draw(st.integers(1, 4)), draw(st.integers(1, 7))
    route = st.lists(
        st.tuples(st.integers(0, n_links - 1), st.sampled_from([1.0, 1.0, 0.5, 3.0, 0.0])), min_size=0, max_size=3
    )
    each = {"min_size": n_flows, "max_size": n_flows}
    return {
        "capacity": [draw(st.integers(1, 20)) / 2 for _ in range(n_links)],
        "routes": draw(st.lists(route, **each)),
        "size": draw(st.lists(st.sampled_from([0, 1, 2, 3, 5, 50, 1000]).map(float), **each)),
        "start": draw(st.lists(st.one_of(st.just(0.0), st.integers(0, 40).map(lambda i: i / 4)), **each)),
        "cap": draw(st.lists(st.one_of(st.just(np.inf), st.integers(1, 8).map(float)), **each)),
    }


@quick
@given(nets())
def test_exact_rational_finish_times_lie_within_the_limits(net):
    want = finish_times(net["capacity"], net["routes"], net["size"], net["start"], net["cap"])
    arrays = csr(net["routes"])
    got = solve_within(
        net["capacity"], arrays["route_ptr"], arrays["route_links"], net["size"], net["start"], 0.1,
        arrays["weight"], net["cap"],
    )  # fmt: skip
    for flow, exact in enumerate(want):
        assert got.not_before[flow] <= exact * (1 + Fraction(1, 10**12))
        assert exact <= Fraction(got.not_after[flow]) * (1 + Fraction(1, 10**12))
    earliest, latest = got.last_proven
    assert earliest <= max(want) * (1 + Fraction(1, 10**12))
    assert max(want) <= Fraction(latest) * (1 + Fraction(1, 10**12))
    np.testing.assert_allclose(got.finish, [float(time) for time in want], rtol=1e-9)  # few flows: every event


@pytest.mark.parametrize("seed", range(6))
def test_skewed_exchanges_with_late_flows_lie_within_the_limits(seed):
    rng = np.random.default_rng(seed)
    n = 12
    source, target = np.nonzero(np.ones((n, n)) - np.eye(n))
    links = np.column_stack([source, n + target, rng.integers(2 * n, 2 * n + 3, len(source))]).ravel()
    size = rng.pareto(1.1, len(source)) + 0.01
    arguments = {
        "capacity": rng.choice([1.0, 3.0, 8.0], 2 * n + 3),
        "route_ptr": np.arange(len(source) + 1) * 3,
        "route_links": links,
        "size": size,
        "start": rng.exponential(2.0, len(source)) * (seed % 2),
        "weight": rng.choice([1.0, 0.25], len(links)),
        "rate_cap": np.where(rng.random(len(source)) < 0.2, 0.5, np.inf),
    }
    exact = solve_flows(latency=np.zeros(2 * n + 3), **arguments)
    got = solve_within(tolerance=0.01, **arguments)
    assert (got.not_before <= exact).all() and (exact <= got.not_after).all()
    assert got.last_proven[0] <= exact.max() <= got.last_proven[1]
    done = links_done(*(arguments[k] for k in ("capacity", "route_ptr", "route_links", "weight", "size", "start")))
    last = np.full(2 * n + 3, -np.inf)
    np.maximum.at(last, links, np.repeat(exact, 3))
    assert (done <= last * (1 + 1e-12)).all()


def test_on_one_link_the_latest_end_is_the_end():
    size, capacity = np.array([3.0, 1.0, 2.0, 6.0]), 2.0
    # t_k = t_{k-1} + (n - k + 1) (b_k - b_{k-1}) / C
    want = np.empty(4)
    want[[1, 2, 0, 3]] = np.cumsum([4 * 1, 3 * 1, 2 * 1, 1 * 3]) / capacity
    ptr, links = np.arange(5), np.zeros(4, np.int32)
    got = longest_time(np.array([capacity]), ptr, links, np.ones(4), size, np.full(4, np.inf))
    np.testing.assert_allclose(got, want, rtol=2e-3)
    assert (got >= want).all()


@pytest.mark.parametrize("n", [2, 8, 16])
def test_for_equal_messages_both_limits_are_the_bound(n):
    flows = workloads.switch(n, "equal")
    arguments = flows.arguments()
    del arguments["latency"]
    got = solve_within(tolerance=0.01, **arguments)
    np.testing.assert_allclose(got.last_proven, flows.bound(), rtol=1e-9)


@pytest.mark.parametrize(
    ("matrix", "takes"),
    [([[2, 1, 3], [5, 0, 3], [1, 3, 2]], 28 / 3), ([[2, 5, 3], [2, 0, 3], [3, 5, 0]], 10.0)],
)
def test_exchanges_that_are_slower_than_their_busiest_port_stay_within_the_limits(matrix, takes):
    matrix = np.array(matrix, float)
    source, target = np.nonzero(matrix)
    got = solve_within(
        np.ones(6), np.arange(len(source) + 1) * 2, np.column_stack([source, 3 + target]).ravel(),
        matrix[source, target], np.zeros(len(source)), 0.1,
    )  # fmt: skip
    assert got.last_proven[0] == pytest.approx(max(matrix.sum(0).max(), matrix.sum(1).max()))
    assert got.last_proven[0] <= takes <= got.last_proven[1] <= 1.4 * takes


def test_a_cap_is_a_limit_on_both_sides_for_a_flow_alone():
    arguments = (np.array([4.0]), np.array([0, 1]), np.zeros(1, np.int32), np.ones(1), np.array([6.0]), np.array([3.0]))
    np.testing.assert_allclose(longest_time(*arguments), 2.0)
    np.testing.assert_allclose(shortest_time(*arguments), 2.0)


@pytest.mark.jit
@pytest.mark.parametrize(
    ("flows", "at_most"), [(lambda: workloads.pairs(64), 1.25), (lambda: workloads.trees(256), 1.02)]
)
def test_the_limits_of_a_dispatch_are_not_far_apart(flows, at_most):
    flows = flows()
    arguments = flows.arguments()
    exact = solve_flows(**arguments).max()
    del arguments["latency"]
    earliest, latest = solve_within(tolerance=0.01, **arguments).last_proven
    assert 0.999 * exact <= earliest <= exact <= latest <= at_most * exact
