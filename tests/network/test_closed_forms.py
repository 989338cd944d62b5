"""Finish times that can be written down: the closed forms of fluid max-min sharing."""

import numpy as np
import pytest

from moesim.network import FlowBatch, solve_flows
from tests.reference.max_min import csr


def finish(capacity, routes, size, start=None, latency=None, **more):
    return solve_flows(
        np.asarray(capacity, float),
        np.zeros(len(capacity)) if latency is None else latency,
        size=np.asarray(size, float),
        start=np.zeros(len(size)) if start is None else start,
        **csr(routes),
        **more,
    )


def close(got, want):
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=0)


def test_one_flow_takes_its_latency_plus_bytes_over_capacity():
    close(finish([50e9, 50e9], [[(0, 1), (1, 1)]], [7e6], [2.0], np.array([3e-6, 1e-6])), [2.0 + 4e-6 + 7e6 / 50e9])


def test_equal_flows_on_one_link_share_it():
    close(finish([40.0], [[(0, 1)]] * 7, [100.0] * 7), [7 * 100 / 40] * 7)


def test_unequal_flows_on_one_link_leave_one_after_the_other():
    size = np.array([3.0, 5.0, 5.0, 11.0, 20.0])
    want, t, before = [], 0.0, 0.0
    for k, b in enumerate(size):
        t += (len(size) - k) * (b - before) / 4.0
        before = b
        want.append(t)
    close(finish([4.0], [[(0, 1)]] * 5, size), want)


def test_incast_is_bound_by_the_receiving_port():
    n, port = 16, 50e9
    routes = [[(i, 1), (n, 1)] for i in range(n)]
    close(finish([port] * (n + 1), routes, [1e6] * n), [n * 1e6 / port] * n)


def test_a_uniform_all_to_all_on_a_crossbar_takes_the_bytes_of_a_port():
    n = 6
    routes = [[(i, 1), (n + j, 1)] for i in range(n) for j in range(n) if i != j]
    close(finish([8.0] * (2 * n), routes, [2.0] * len(routes)), [(n - 1) * 2.0 / 8.0] * len(routes))


@pytest.mark.parametrize(("nvlink", "nic"), [(160.0, 50.0), (30.0, 50.0)])
def test_hierarchical_dispatch_takes_the_busier_of_nic_and_nvlink(nvlink, nic):
    """One flow per (GPU, other node): NIC once, then half of it over each of two receivers' NVLink."""
    nodes, gpus, size = 3, 2, 600.0
    ranks = nodes * gpus
    routes = []
    for source in range(ranks):
        for node in range(nodes):
            if node != source // gpus:
                forwarder = node * gpus + source % gpus
                fan_out = [(2 * ranks + node * gpus + g, 0.5) for g in range(gpus)]
                routes.append([(source, 1.0), (ranks + forwarder, 1.0), *fan_out])
    capacity = [nic] * (2 * ranks) + [nvlink] * ranks
    port = (nodes - 1) * size / nic
    receiver = (nodes - 1) * gpus * 0.5 * size / nvlink
    close(finish(capacity, routes, [size] * len(routes)), [max(port, receiver)] * len(routes))


@pytest.mark.parametrize("oversubscription", [1, 2, 4])
def test_an_oversubscribed_leaf_slows_what_crosses_it_by_its_ratio(oversubscription):
    hosts = 4  # on each of two leaves; all of host i's bytes go to host i of the other leaf
    routes = [[(i, 1), (2 * hosts, 1), (hosts + i, 1)] for i in range(hosts)]
    capacity = [10.0] * (2 * hosts) + [hosts * 10.0 / oversubscription]
    close(finish(capacity, routes, [70.0] * hosts), [7.0 * oversubscription] * hosts)


def test_on_a_parking_lot_the_long_flow_gets_half_of_every_link():
    length = 5
    routes = [[(link, 1) for link in range(length)], *[[(link, 1)] for link in range(length)]]
    close(finish([2.0] * length, routes, [6.0] * (length + 1)), [6.0] * (length + 1))
    # unequal links: the long flow has 1 on link 0; the others 1, 3 and 7 until it is done at 6, then all
    close(finish([2.0, 4.0, 8.0], [routes[0][:3], *routes[1:4]], [6.0, 6.0, 30.0, 82.0]), [6.0, 6.0, 9.0, 11.0])


def test_of_two_links_in_series_the_narrower_binds():
    close(finish([9.0, 4.0], [[(0, 1), (1, 1)], [(0, 1)]], [20.0, 30.0]), [5.0, 5.0 + 5.0 / 9.0])


def test_a_late_rank_delays_those_behind_the_barrier_by_its_lateness():
    start = np.array([0.0, 0.3, 2.5, 0.1])
    routes = [[(i, 1), (4 + (i + 1) % 4, 1)] for i in range(4)]
    close(finish([5.0] * 8, routes, [10.0] * 4, np.full(4, start.max())), [2.5 + 2.0] * 4)
    # without the barrier each is done on its own
    close(finish([5.0] * 8, routes, [10.0] * 4, start), start + 2.0)


def test_a_flow_that_crosses_a_link_twice_loads_it_twice():
    close(finish([6.0], [[(0, 1), (0, 1)], [(0, 1)]], [4.0, 4.0]), [2.0, 2.0])
    close(finish([6.0], [[(0, 2)]], [4.0]), [4.0 / 3.0])


def test_a_link_of_weight_nothing_is_no_constraint():
    close(finish([6.0, 1e-9], [[(0, 1), (1, 0)]], [12.0]), [2.0])
    close(finish([6.0], [[(0, 0)]], [12.0], [3.0]), [3.0])


def test_a_rate_cap_leaves_the_rest_to_others():
    close(finish([10.0], [[(0, 1)]] * 3, [20.0, 40.0, 80.0], rate_cap=np.array([2.0, np.inf, np.inf])), [10, 10, 14])


def test_a_capacity_that_falls_to_nothing_and_comes_back_stalls_its_flows():
    events = (np.array([4.0, 1.0]), np.array([0, 0]), np.array([5.0, 0.0]))
    close(finish([10.0], [[(0, 1)]], [30.0], capacity_events=events), [4.0 + 20.0 / 5.0])


def test_what_is_almost_equal_is_not_taken_for_equal():
    tiny = 1e-11
    np.testing.assert_allclose(
        finish([1.0, 1.0 + tiny], [[(0, 1)], [(1, 1)]], [1.0, 1.0]), [1.0, 1.0 - tiny], rtol=1e-14, atol=0
    )
    # a flow that takes a share of 1e-11 for one second
    got = finish([1.0], [[(0, 1)], [(0, 1)]], [1.5, tiny], rate_cap=np.array([np.inf, tiny]))
    np.testing.assert_allclose(got, [1.5 + tiny, 1.0], rtol=2e-13, atol=0)
    # and one whose end lets another rise by 1e-11 at once
    got = finish([1.0], [[(0, 1)], [(0, 1)]], [1e4, 0.01 * tiny], rate_cap=np.array([np.inf, tiny]))
    np.testing.assert_allclose(got[0] - 1e4, 0.01 * tiny, atol=4e-12)


def test_equal_flows_are_one_event_however_many():
    from moesim.network import FlowNetwork
    from moesim.network.exact.state import N_EVENTS

    n = 8
    routes = [[(i, 1), (n + j, 1)] for i in range(n) for j in range(n) if i != j]
    network = FlowNetwork([1 / 3] * (2 * n), now=0.7)
    network.start(FlowBatch(size=[0.1] * len(routes), **csr(routes)))
    network.run(np.inf)
    assert network._s.tally[N_EVENTS] == 1
