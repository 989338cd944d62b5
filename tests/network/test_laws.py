"""Laws that fair sharing keeps, and plausible ones that it breaks, each with its counter-example."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moesim.network import solve_flows
from tests.reference.max_min import csr

quick = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])


def crossbar(matrix, ports=None):
    """Flows of a traffic matrix on unit ports: egress 0..n-1, ingress n..2n-1."""
    n = len(matrix)
    pairs = [(i, j) for i in range(n) for j in range(n) if matrix[i][j]]
    return {
        "capacity": np.ones(2 * n) if ports is None else np.array(ports, float),
        "routes": [[(i, 1), (n + j, 1)] for i, j in pairs],
        "size": np.array([matrix[i][j] for i, j in pairs], float),
    }


def finish(net, start=None):
    return solve_flows(
        net["capacity"],
        np.zeros(len(net["capacity"])),
        size=net["size"],
        start=np.zeros(len(net["size"])) if start is None else start,
        **csr(net["routes"]),
    )


matrices = (
    st.integers(2, 4)
    .flatmap(lambda n: st.lists(st.lists(st.integers(0, 9), min_size=n, max_size=n), min_size=n, max_size=n))
    .filter(lambda matrix: any(map(any, matrix)))
)


@quick
@given(matrices, st.sampled_from([0.25, 2.0, 1024.0]))
def test_more_bytes_on_faster_links_take_the_same_time(matrix, factor):
    net = crossbar(matrix)
    faster = net | {"capacity": net["capacity"] * factor, "size": net["size"] * factor}
    np.testing.assert_array_equal(finish(faster), finish(net))


@quick
@given(matrices)
def test_a_dispatch_and_its_transposed_combine_take_the_same_time(matrix):
    net, back = crossbar(matrix), crossbar(np.transpose(matrix).tolist())
    assert finish(net).max() == pytest.approx(finish(back).max(), rel=1e-12)


@quick
@given(matrices)
def test_no_all_to_all_is_faster_than_its_busiest_port(matrix):
    bound = max(np.sum(matrix, 0).max(), np.sum(matrix, 1).max())
    assert finish(crossbar(matrix)).max() >= bound * (1 - 1e-12)


@quick
@given(matrices, st.randoms(use_true_random=False))
def test_renaming_the_ranks_renames_the_times(matrix, random):
    name = list(range(len(matrix)))
    random.shuffle(name)
    renamed = [[matrix[a][b] for b in name] for a in name]
    times = np.zeros((2, len(name), len(name)))
    for table, m in zip(times, (matrix, renamed), strict=True):
        table[np.nonzero(m)] = finish(crossbar(m))
    np.testing.assert_allclose(times[1], times[0][np.ix_(name, name)], rtol=1e-12)


@quick
@given(matrices, matrices)
def test_traffic_that_shares_no_link_does_not_meet(one, other):
    a, b = crossbar(one), crossbar(other)
    n = len(a["capacity"])
    both = {
        "capacity": np.concatenate([a["capacity"], b["capacity"], [1.0]]),  # and a link that nobody uses
        "routes": a["routes"] + [[(link + n, w) for link, w in route] for route in b["routes"]],
        "size": np.concatenate([a["size"], b["size"]]),
    }
    np.testing.assert_allclose(finish(both), np.concatenate([finish(a), finish(b)]), rtol=1e-12)


def test_a_flow_without_bytes_costs_its_latency_alone_and_disturbs_nobody():
    got = solve_flows(
        np.array([2.0]), np.array([0.5]), np.array([0, 1, 2]), np.array([0, 0]), np.array([8.0, 0.0]), np.zeros(2)
    )
    np.testing.assert_array_equal(got, [4.5, 0.5])


def test_a_faster_link_may_slow_a_flow():
    """B shares L1 with A and L2 with C: with more of L1, B takes more of L2 from C."""
    net = {"routes": [[(0, 1)], [(0, 1), (1, 1)], [(1, 1)]], "size": np.array([5.0, 1.0, 1.0])}
    assert finish(net | {"capacity": np.array([0.5, 1.0])})[2] == pytest.approx(4 / 3)
    assert finish(net | {"capacity": np.array([1.0, 1.0])})[2] == pytest.approx(2.0)


def test_a_faster_port_may_lengthen_an_all_to_all():
    matrix = [[2, 5, 3], [2, 0, 3], [3, 5, 0]]
    assert finish(crossbar(matrix)).max() == pytest.approx(10.0)
    assert finish(crossbar(matrix, ports=[1, 1, 1, 2, 1, 1])).max() == pytest.approx(11.0)


def test_an_all_to_all_may_take_longer_than_its_busiest_port():
    matrix = [[2, 1, 3], [5, 0, 3], [1, 3, 2]]
    assert max(np.sum(matrix, 0).max(), np.sum(matrix, 1).max()) == 8
    assert finish(crossbar(matrix)).max() == pytest.approx(28 / 3)


def test_more_traffic_may_help_somebody():
    net = {"capacity": np.array([1.0, 1.0]), "routes": [[(0, 1)], [(0, 1), (1, 1)], [(1, 1)]]}
    net["size"] = np.array([5.0, 1.0, 1.0])
    more = net | {"routes": net["routes"] + [[(0, 1)]] * 3, "size": np.array([5.0, 1, 1, 5, 5, 5])}
    # B falls from 1/2 to 1/5, so C rises from 1/2 to 4/5
    assert finish(net)[2] == pytest.approx(2.0)
    assert finish(more)[2] == pytest.approx(1.25)


def test_splitting_a_flow_in_two_takes_share_from_others():
    one = {"capacity": np.array([1.0]), "routes": [[(0, 1)]] * 2, "size": np.array([1.0, 1.0])}
    two = {"capacity": np.array([1.0]), "routes": [[(0, 1)]] * 3, "size": np.array([0.5, 0.5, 1.0])}
    assert finish(one)[0] == pytest.approx(2.0)
    assert finish(two)[0] == pytest.approx(1.5)
