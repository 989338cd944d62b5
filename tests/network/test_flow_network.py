"""The life of a network: flows start, are waited for, change their way, end, and leave their storage."""

import numpy as np
import pytest

from moesim.errors import InputError, InvariantError
from moesim.network import FlowBatch, FlowNetwork
from tests.reference.max_min import csr

ONE = csr([[(0, 1)]])


def waiting(network, groups):
    """Waiter arguments: flow f is waited for by waiters groups[f]."""
    first = network.new_waiters(1 + max(w for group in groups for w in group))
    return {
        "waiter_ptr": np.cumsum([0] + [len(group) for group in groups]),
        "waiter_ids": np.array([first + w for group in groups for w in group], np.int32),
    }


def test_a_waiter_is_done_when_the_last_of_its_flows_is():
    network = FlowNetwork([1.0, 1.0])
    routes = csr([[(0, 1)], [(1, 1)], [(1, 1)]])
    network.start(FlowBatch(size=[3.0, 1.0, 2.0], **routes, **waiting(network, [[0], [0, 1], [2]])))
    assert network.outstanding(0) == 2
    now, done = network.run(np.inf)
    assert (now, done.tolist()) == (2.0, [1])
    now, done = network.run(np.inf)
    assert (now, sorted(done.tolist())) == (3.0, [0, 2])
    assert network.run(np.inf)[0] == np.inf
    assert network.now == 3.0
    assert network.idle


def test_running_to_a_time_stops_there():
    network = FlowNetwork([1.0])
    handle = network.start(FlowBatch(size=[3.0], **ONE))
    assert network.run(2.0)[0] == 2.0
    assert network.now == 2.0
    assert np.isnan(network.finish(handle)).all()
    assert network.run(7.0)[0] == 7.0
    assert network.finish(handle) == 3.0


def test_starting_at_one_instant_in_several_calls_is_starting_in_one():
    together, apart = FlowNetwork([3.0, 2.0]), FlowNetwork([3.0, 2.0])
    routes = [[(0, 1)], [(0, 1), (1, 1)], [(1, 1)]]
    together.run(0.7)
    apart.run(0.7)
    handle = together.start(FlowBatch(size=[5.0, 1.0, 2.0], **csr(routes)))
    handles = [apart.start(FlowBatch(size=[s], **csr([r]))) for s, r in zip([5.0, 1.0, 2.0], routes, strict=True)]
    together.run(np.inf)
    apart.run(np.inf)
    assert together.finish(handle).tolist() == [apart.finish(h)[0] for h in handles]


def test_a_cancelled_flow_leaves_its_share_to_the_others_and_frees_its_waiters():
    network = FlowNetwork([2.0])
    handle = network.start(
        FlowBatch(
            size=[6.0, 6.0, 6.0], start=[0.0, 0.0, 9.0], **csr([[(0, 1)]] * 3), **waiting(network, [[0], [1], [2]])
        )
    )
    network.run(2.0)
    network.cancel(handle, 0)
    network.cancel(handle, 2)  # before it has begun
    now, done = network.run(np.inf)
    assert (now, sorted(done.tolist())) == (2.0, [0, 2])
    assert network.run(np.inf)[0] == 4.0
    assert np.isnan(network.finish(handle)[[0, 2]]).all()
    network.cancel(handle, 1)  # a flow that has finished stays so
    assert network.finish(handle)[1] == 4.0
    assert network.idle


def test_a_rerouted_flow_takes_what_is_left_over_the_new_links():
    network = FlowNetwork([1.0, 4.0, 5.0], log_bottlenecks=True)
    caps = [np.inf, 3.0, np.inf]
    handle = network.start(FlowBatch(size=[6.0, 8.0, 1.0], start=[0, 0, 6], rate_cap=caps, **csr([[(0, 1)]] * 3)))
    network.run(2.0)  # each has sent 1
    network.reroute(handle, 0, [1, 2], [1.0, 0.0])
    network.reroute(handle, 1, [2, 2], [1.0, 1.0])  # twice over link 2: 2.5, below its cap of 3
    network.reroute(handle, 2, [1])
    assert network.rates(handle).tolist() == [4.0, 2.5, 0.0]
    network.run(np.inf)
    np.testing.assert_allclose(network.finish(handle), [2 + 5 / 4, 2 + 7 / 2.5, 6.25], rtol=1e-14)
    network.reroute(handle, 0, [0])  # too late to matter
    time, flow, link = network.bottleneck_log(handle)
    assert list(zip(time, flow, link, strict=True)) == [(0, 0, 0), (0, 1, 0), (2, 0, 1), (2, 1, 2), (6, 2, 1)]


def test_a_flow_rerouted_to_nowhere_is_done():
    network = FlowNetwork([1.0])
    handle = network.start(FlowBatch(size=[6.0], **ONE, **waiting(network, [[0]])))
    network.run(2.0)
    network.reroute(handle, 0, np.zeros(0, np.int32))
    assert network.run(np.inf)[0] == 2.0
    assert network.finish(handle) == 2.0


def test_a_link_of_no_capacity_stalls_its_flows_until_it_has_some():
    network = FlowNetwork([2.0, 9.0])
    handle = network.start(FlowBatch(size=[6.0, 8.0], **csr([[(0, 1), (1, 1)], [(1, 1)]])))
    network.run(1.0)
    network.set_capacity(0, 0.0)
    assert network.rates(handle).tolist() == [0.0, 9.0]
    assert network.run(np.inf)[0] == np.inf
    assert network.bottlenecks(handle).tolist() == [0, -2]
    assert not network.idle
    network.run(10.0)
    network.set_capacity(0, 1.0)
    network.run(np.inf)
    assert network.finish(handle)[0] == 14.0


def test_a_flow_whose_share_stays_the_same_when_another_ends_still_ends_itself():
    network = FlowNetwork([2.0])
    handle = network.start(FlowBatch(size=[1.0, 5.0], **csr([[(0, 1)]] * 2), **waiting(network, [[0], [1]])))
    assert network.run(np.inf)[0] == 1.0
    network.set_capacity(0, 1.0)
    assert network.rates(handle).tolist() == [0.0, 1.0]
    assert network.run(np.inf)[0] == 5.0


def test_the_log_of_bottlenecks_tells_what_held_each_flow_and_when():
    network = FlowNetwork([10.0, 4.0], log_bottlenecks=True)
    routes = csr([[(0, 1)], [(0, 1), (1, 1)], [(1, 1)]])
    handle = network.start(FlowBatch(size=[60.0, 10.0, 30.0], rate_cap=[9.0, np.inf, np.inf], **routes))
    network.run(np.inf)
    # 8, 2, 2 until 5 s; then flow 0 rises to its cap of 9 and flow 2 to 4
    time, flow, link = network.bottleneck_log(handle)
    assert list(zip(time, flow, link, strict=True)) == [(0, 0, 0), (0, 1, 1), (0, 2, 1), (5, 0, -1)]


def test_a_network_that_does_not_log_has_an_empty_log():
    network = FlowNetwork([1.0])
    assert [len(column) for column in network.bottleneck_log(network.start(FlowBatch(size=[1.0], **ONE)))] == [0, 0, 0]


def test_a_log_longer_than_its_buffer_loses_nothing():
    network = FlowNetwork([1.0, 1.0], log_bottlenecks=True)
    routes = csr([[(0, 1), (1, 1)]])
    handle = network.start(FlowBatch(size=[1e9], **routes))
    n = 700
    for _ in range(n):
        for link in (0, 1):
            network.set_capacity(link, 0.5)
            network.run(network.now + 1.0)
            network.set_capacity(link, 1.0)
    time, flow, link = network.bottleneck_log(handle)
    assert (np.diff(time) >= 0).all()
    assert (flow == 0).all()
    assert link.tolist() == [0, 1] * n


def random_traffic(network, rng, n=30):
    n_links = len(network.link_rate())
    routes = [[(int(link), float(rng.choice([0.5, 1, 2]))) for link in rng.integers(0, n_links, 3)] for _ in range(n)]
    size = rng.random(n) * 10
    start = network.now + rng.random(n)
    handle = network.start(FlowBatch(size=size, start=start, rate_cap=rng.choice([0.7, np.inf], n), **csr(routes)))
    load = np.zeros(n_links)
    for route, s in zip(routes, size, strict=True):
        for link, weight in route:
            load[link] += weight * s
    return handle, load


def test_what_the_links_carried_is_what_the_flows_sent():
    rng = np.random.default_rng(3)
    network = FlowNetwork(1 + rng.random(6))
    network.record_utilisation(0.37)
    total = np.zeros(6)
    for _ in range(3):
        total += random_traffic(network, rng)[1]
        network.run(network.now + 5.0)
    network.run(np.inf)
    np.testing.assert_allclose(network.served(), total, rtol=1e-12)
    time, served = network.utilisation()
    np.testing.assert_allclose(served.sum(0), total, rtol=1e-12)
    np.testing.assert_allclose(time, 0.37 * np.arange(len(time)))
    assert time[-1] < network.now <= time[-1] + 0.37
    capacity = network._s.link.capacity[:6]
    assert (served <= capacity * 0.37 * (1 + 1e-12)).all()
    assert (network.busy() <= network.now).all()
    assert (network.served() <= capacity * network.busy() * (1 + 1e-12)).all()


def test_the_buckets_hold_what_was_carried_in_their_time():
    network = FlowNetwork([4.0, 1.0])
    network.start(FlowBatch(size=[20.0, 3.0], **csr([[(0, 1)], [(0, 1), (1, 1)]])))
    network.run(1.5)
    network.record_utilisation(1.0, links=[1, 0])  # buckets begin at 1.5
    network.run(np.inf)
    # 3 and 1 until 3 s, then 4 until 5.75
    time, served = network.utilisation()
    np.testing.assert_allclose(time, [1.5, 2.5, 3.5, 4.5, 5.5])
    np.testing.assert_allclose(served, [[1, 4], [0.5, 4], [0, 4], [0, 4], [0, 1]], atol=1e-14)
    np.testing.assert_allclose(network.busy(), [5.75, 3.0])


def test_a_stalled_network_needs_no_buckets():
    network = FlowNetwork([0.0])
    network.record_utilisation(1e-9)
    network.start(FlowBatch(size=[1.0], **ONE))
    network.run(1e6)
    assert network._s.bucket_served.nbytes == 0


@pytest.mark.jit  # interpreted, records are plain objects
def test_released_batches_leave_their_storage_to_new_ones():
    rng = np.random.default_rng(1)
    network = FlowNetwork(np.ones(5), log_bottlenecks=True)
    sizes = set()
    for _ in range(12):
        handles = [random_traffic(network, rng, 5)[0] for _ in range(2)]
        waiters = network.new_waiters(7)
        network.run(np.inf)
        for handle in handles:
            assert not np.isnan(network.finish(handle)).any()
            network.release(handle)
        network.release_waiters(waiters, 7)
        sizes.add(sum(array.nbytes for part in network._s for array in (part if isinstance(part, tuple) else [part])))
    assert len(sizes) <= 6
    assert max(sizes) < 60_000


def test_intervals_of_slots_are_joined_when_they_come_back():
    from moesim.network.exact.state import Slots

    slots = Slots(10)
    first = [slots.take(n) for n in (3, 2, 4, 1)]
    assert first == [10, 13, 15, 19]
    slots.give_back(13, 2)
    assert slots.take(3) == 20
    assert slots.take(1) == 13
    slots.give_back(10, 3)
    slots.give_back(15, 4)
    slots.give_back(13, 1)  # joins 10..12 before and 14 after it with 15..18
    assert slots.take(9) == 10
    slots.give_back(20, 3)
    slots.give_back(19, 1)
    assert slots.end == 19
    slots.give_back(0, 0)
    assert slots.take(1) == 19


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"route_ptr": [0, 2]}, "size"),
        ({"route_ptr": [0, 1, 1]}, "route_ptr"),
        ({"route_ptr": [0, 2, 1]}, "route_ptr"),
        ({"route_ptr": [0.0, 1.0, 2.0]}, "route_ptr"),
        ({"route_links": [0, 2]}, "entry 1 is 2"),
        ({"route_links": [-1, 0]}, "entry 0 is -1"),
        ({"route_links": [0.5, 0]}, "route_links"),
        ({"route_links": [[0, 0]]}, "route_links"),
        ({"weight": [1.0, np.nan]}, "route entry 1 has nan"),
        ({"weight": [1.0]}, "weight"),
        ({"size": [1.0, np.nan]}, "flow 1 has nan"),
        ({"size": [-1.0, 1.0]}, "flow 0 has -1"),
        ({"size": [1.0, np.inf]}, "flow 1 has inf"),
        ({"size": ["many", 1.0]}, "size"),
        ({"start": [0.0, 1.0]}, "flow 0 has 0.0"),
        ({"start": [2.0, np.inf]}, "flow 1 has inf"),
        ({"rate_cap": [1.0, np.nan]}, "flow 1 has nan"),
        ({"rate_cap": [1.0, -1.0]}, "flow 1 has -1"),
        ({"waiter_ptr": [0, 1], "waiter_ids": [0]}, "waiter_ptr"),
        ({"waiter_ptr": [0, 1, 2], "waiter_ids": [0, 1]}, "waiter_ids"),
        ({"waiter_ids": [0]}, "waiter_ptr"),
    ],
)
def test_flows_that_make_no_sense_are_refused_by_name_and_change_nothing(change, named):
    network = FlowNetwork([1.0, 1.0])
    network.new_waiters(1)
    network.run(1.0)
    flows = {"route_ptr": [0, 1, 2], "route_links": [0, 1], "weight": None, "size": [1.0, 1.0]}
    with pytest.raises(InputError, match=named):
        network.start(FlowBatch(**(flows | change)))
    assert network.idle
    network.start(FlowBatch(**flows))
    assert network.run(2.0)[0] == 2.0


def test_what_cannot_be_is_refused():
    for capacity in ([-1.0], [np.nan], [np.inf]):
        with pytest.raises(InputError, match="link 0"):
            FlowNetwork(capacity)
    network = FlowNetwork([1.0], now=5.0)
    handle = network.start(FlowBatch(size=[1.0], **ONE, **waiting(network, [[0]])))
    with pytest.raises(InputError, match="still wait"):
        network.release_waiters(0, 1)
    with pytest.raises(InputError, match="in progress"):
        network.release(handle)
    with pytest.raises(InputError, match="already shows"):
        network.run(4.0)
    with pytest.raises(InputError, match="cannot run to nan"):
        network.run(np.nan)
    with pytest.raises(InputError, match="unknown batch 7"):
        network.finish(7)
    with pytest.raises(InputError, match="no flow 1"):
        network.cancel(handle, 1)
    with pytest.raises(InputError, match="capacity"):
        network.set_capacity(0, -1.0)
    with pytest.raises(InputError, match="link"):
        network.set_capacity(1, 1.0)
    with pytest.raises(InputError, match="bucket_s"):
        network.record_utilisation(0.0)


def test_rates_that_never_settle_are_reported_as_a_bug_of_ours(monkeypatch):
    from moesim.network.exact import flow_network

    network = FlowNetwork([1.0])
    handle = network.start(FlowBatch(size=[1.0], **ONE))
    monkeypatch.setattr(flow_network, "settle_rates", lambda state: False)
    with pytest.raises(InvariantError):
        network.rates(handle)
    monkeypatch.setattr(flow_network, "advance", lambda state, until: -1)
    with pytest.raises(InvariantError):
        network.run(1.0)
