"""Laws that fair sharing keeps, and plausible ones that it breaks, each with its counter-example."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moesim.network import FlowBatch, FlowNetwork, solve_flows
from tests.full_gates import cases
from tests.reference.max_min import csr

quick = settings(deadline=None, max_examples=cases(300, 10_000), suppress_health_check=[HealthCheck.too_slow])


def crossbar(matrix, ports=None):
    """Flows of a traffic matrix on unit ports: egress 0..n-1, ingress n..2n-1."""
    n = len(matrix)
    pairs = [(i, j) for i in range(n) for j in range(n) if matrix[i][j]]
    return {
        "capacity": np.ones(2 * n) if ports is None else np.array(ports, float),
        "routes": [[(i, 1), (n + j, 1)] for i, j in pairs],
        "size": np.array([matrix[i][j] for i, j in pairs], float),
    }


def finish(net, start=None, latency=0.0):
    return solve_flows(
        net["capacity"],
        np.full(len(net["capacity"]), latency),
        size=net["size"],
        start=np.zeros(len(net["size"])) if start is None else start,
        **csr(net["routes"]),
    )


def drawn_matrix(seed):
    """A traffic matrix of two to four ranks, full or with holes.

    From one number: to draw it entry by entry takes longer than to solve it.
    """
    rng = np.random.default_rng(seed)
    n = rng.integers(2, 5)
    matrix = rng.integers(0, 10, (n, n)) * (rng.random((n, n)) < rng.choice([0.3, 0.7, 1.0]))
    matrix[rng.integers(n), rng.integers(n)] += not matrix.any()
    return matrix.tolist()


matrices = st.integers(0, 2**63 - 1).map(drawn_matrix)


@quick
@given(matrices, st.sampled_from([0.25, 2.0, 1024.0]))
def test_more_bytes_on_faster_links_take_the_same_time(matrix, factor):
    net = crossbar(matrix)
    faster = net | {"capacity": net["capacity"] * factor, "size": net["size"] * factor}
    np.testing.assert_array_equal(finish(faster), finish(net))


@quick
@given(matrices, st.sampled_from([0.25, 3.0, 1e3]), st.integers(0, 8))
def test_more_bytes_and_more_latency_take_that_much_longer(matrix, factor, latency):
    net = crossbar(matrix)
    longer = finish(net | {"size": net["size"] * factor}, latency=latency * factor)
    np.testing.assert_allclose(longer, finish(net, latency=latency) * factor, rtol=1e-12)


@quick
@given(st.integers(2, 6), st.integers(1, 9), st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_a_uniform_all_to_all_and_flows_of_one_link_take_no_longer_than_their_port(ranks, size, sizes):
    uniform = np.full((ranks, ranks), size) - size * np.eye(ranks, dtype=int)
    assert finish(crossbar(uniform.tolist())).max() == pytest.approx((ranks - 1) * size, rel=1e-12)
    alone = {"capacity": np.array([2.0]), "routes": [[(0, 1)]] * len(sizes), "size": np.array(sizes, float)}
    assert finish(alone).max() == pytest.approx(sum(sizes) / 2, rel=1e-12)


@quick
@given(matrices, st.integers(0, 3))
def test_an_idle_rank_and_a_link_that_nobody_uses_change_nothing(matrix, place):
    place = min(place, len(matrix))
    idle = np.insert(np.insert(matrix, place, 0, axis=0), place, 0, axis=1).tolist()
    np.testing.assert_allclose(finish(crossbar(idle)), finish(crossbar(matrix)), rtol=1e-12)


@quick
@given(matrices, st.integers(1, 8))
def test_flows_without_bytes_cost_their_latency_alone_and_disturb_nobody(matrix, latency):
    net, n = crossbar(matrix), len(matrix)
    more = net | {
        "routes": net["routes"] + [[(i, 1), (2 * n - 1 - i, 1)] for i in range(n)],
        "size": np.concatenate([net["size"], np.zeros(n)]),
    }
    got = finish(more, latency=float(latency))
    np.testing.assert_allclose(got[:-n], finish(net, latency=float(latency)), rtol=1e-12)
    np.testing.assert_allclose(got[-n:], 2.0 * latency, rtol=1e-12)


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


def through_two_links(chunks, size=16.0, each=1.0):
    """When ``size`` bytes in so many chunks are through two links in a row; a chunk costs ``each`` bytes more."""
    network = FlowNetwork([1.0, 1.0])
    first, ended = network.new_waiters(2 * chunks), []
    one = {"size": [size / chunks + each], "waiter_ptr": [0, 1]}
    network.start(FlowBatch(**one, waiter_ids=[first], **csr([[(0, 1)]])))
    sent, forwarded, busy, waiting = 1, 0, False, 0
    while len(ended) < chunks:
        now, done = network.run(np.inf)
        for waiter in sorted(done.tolist()):
            if waiter - first < chunks:
                waiting += 1
                if sent < chunks:
                    network.start(FlowBatch(**one, start=[now], waiter_ids=[first + sent], **csr([[(0, 1)]])))
                    sent += 1
            else:
                ended.append(now)
                busy = False
        if waiting and not busy:
            network.start(FlowBatch(**one, start=[now], waiter_ids=[first + chunks + forwarded], **csr([[(1, 1)]])))
            forwarded, waiting, busy = forwarded + 1, waiting - 1, True
    return ended[-1]


def test_finer_chunks_do_not_always_help():
    """Through two links n chunks take (n + 1) (S / n + c): least at sqrt(S / c), longer again beyond it."""
    assert [through_two_links(n) for n in (1, 4, 16)] == pytest.approx([34.0, 25.0, 34.0])
