"""A network in steps on SimPy's clock: exact where flows are few, near where they are many, nobody forgotten."""

import numpy as np
import pytest
import simpy

from benchmarks import workloads
from moesim.errors import InputError
from moesim.network import FlowBatch, FlowNetwork, NetworkClock, SteppedNetwork, solve_flows
from moesim.network.stepped import stepping
from tests.reference.max_min import csr


def run_processes(network, kernel_link, seed, n=40):
    """Send flows from processes that each start the next when the last is done; return when each was done."""
    rng = np.random.default_rng(seed)
    env = simpy.Environment()
    clock = NetworkClock(env, network)
    done = []

    def rank(number):
        yield env.timeout(float(rng.random() * 3))
        for _ in range(3):
            first = network.new_waiters(1)
            routes = [[(int(link), 1.0) for link in rng.choice(4, 2, replace=False)] for _ in range(3)]
            start = env.now + rng.choice([0.0, 0.3], 3)
            handle = clock.transfer(FlowBatch(
                size=rng.choice([0.0, 0.5, 2.0], 3), start=start, waiter_ptr=np.arange(4), waiter_ids=[first] * 3,
                **csr(routes),
            ))  # fmt: skip
            yield clock.wait(first)
            assert env.now == network.now
            assert network.finish(handle).max() == pytest.approx(env.now, rel=1e-14)
            done.append((number, env.now))
            network.release(handle)
            handle = clock.transfer(
                FlowBatch([0, 1], [kernel_link + number % 2], [0.25], waiter_ptr=[0, 1], waiter_ids=[first])
            )
            yield clock.wait(first)
            network.release(handle)
            network.release_waiters(first, 1)

    for number in range(n):
        env.process(rank(number))
    env.run()
    assert network.idle
    return sorted(done)


@pytest.mark.parametrize("seed", range(3))
def test_few_flows_run_as_in_the_exact_network(seed):
    capacity = [5.0, 3.0, 4.0, 6.0, 10.0, 20.0]
    want = run_processes(FlowNetwork(capacity), 4, seed)
    got = run_processes(SteppedNetwork(capacity, 0.01, range(4, 6)), 4, seed)
    assert [number for number, _ in got] == [number for number, _ in want]
    np.testing.assert_allclose([time for _, time in got], [time for _, time in want], rtol=1e-10)


def test_many_flows_that_start_batch_by_batch_end_near_their_exact_times(monkeypatch):
    monkeypatch.setattr(stepping, "FEW", 5)
    flows = workloads.switch(16, "zipf")
    n, ranks = flows.n, 16
    begins = np.sort(np.random.default_rng(3).random(ranks)) * 0.1 * flows.bound()
    network = SteppedNetwork(flows.capacity, 0.002, range(0))
    network.record_utilisation(0.01 * flows.bound(), np.arange(2 * ranks))
    first = network.new_waiters(ranks)
    source = flows.ends[0]
    handles, done, start = {}, {}, np.empty(n)
    for rank, begin in enumerate(begins):
        while network.now < begin:
            time, ids = network.run(begin)
            done |= dict.fromkeys(ids.tolist(), time)
        own = np.flatnonzero(source == rank)
        start[own] = begin
        links = flows.route_links.reshape(-1, 2)[own].ravel()
        handles[rank] = network.start(FlowBatch(
            np.arange(len(own) + 1) * 2, links, flows.size[own],
            waiter_ptr=np.arange(len(own) + 1), waiter_ids=np.full(len(own), first + rank),
        ))  # fmt: skip
    while not network.idle:
        time, ids = network.run(np.inf)
        done |= dict.fromkeys(ids.tolist(), time)
    exact = solve_flows(**flows.arguments() | {"start": start})
    finish, off = np.empty((2, n))
    for rank, handle in handles.items():
        own = np.flatnonzero(source == rank)
        finish[own], off[own] = network.finish(handle), network.off(handle)
        assert done[first + rank] == finish[own].max()
        times, flow, link = network.bottleneck_log(handle)
        assert set(flow.tolist()) == set(range(len(own)))
        assert ((times >= begins[rank]) & (times <= finish[own].max())).all()
        routes = flows.route_links.reshape(-1, 2)[own]
        assert (link[:, None] == routes[flow]).any(axis=1).all()  # a bottleneck is a link of the flow's own
    length = exact.max() - begins[0]
    assert np.abs(finish - exact).max() < 0.02 * length
    assert finish.max() == pytest.approx(exact.max(), rel=1e-3)
    assert (np.abs(finish - exact) <= off).mean() > 0.99
    earliest, latest = network.last_proven(list(handles.values()))
    assert earliest <= exact.max() <= latest
    served = network.utilisation()[1].sum(axis=0)
    want = np.bincount(flows.route_links, weights=np.repeat(flows.size, 2))
    np.testing.assert_allclose(served, want, rtol=1e-9)
    for handle in handles.values():
        network.release(handle)
    with pytest.raises(InputError, match="released or never started"):
        network.finish(handles[0])


@pytest.mark.parametrize("few", [stepping.FEW, 0])
def test_what_a_link_carries_is_kept_by_buckets_from_when_that_was_asked_for(few, monkeypatch):
    monkeypatch.setattr(stepping, "FEW", few)
    network = SteppedNetwork([4.0, 2.0], 0.1, range(0))
    handle = network.start(FlowBatch([0, 1], [1], [2.0]))
    network.run(np.inf)  # until 1
    network.release(handle)
    network.record_utilisation(0.5, [1])
    network.start(FlowBatch([0, 2, 3], [0, 1, 1], [1.6, 0.8]))
    while not network.idle:
        network.run(np.inf)
    # Both share the second link until 1.8, then one has it alone until 2.2.
    begins, carried = network.utilisation()
    assert network.now == pytest.approx(2.2) and begins == pytest.approx([1.0, 1.5, 2.0])
    np.testing.assert_allclose(carried, [[1.0], [1.0], [0.4]], rtol=1e-9)


@pytest.mark.parametrize("few", [stepping.FEW, 0])
def test_the_bottleneck_of_a_flow_is_its_slowest_link_or_no_link_where_its_cap_is_lower(few, monkeypatch):
    monkeypatch.setattr(stepping, "FEW", few)
    network = SteppedNetwork([4.0, 2.0], 0.1, range(0))
    handle = network.start(FlowBatch([0, 2, 4], [0, 1, 0, 1], [1.0, 1.0], rate_cap=[np.inf, 0.5]))
    while not network.idle:
        network.run(np.inf)
    _, flow, link = network.bottleneck_log(handle)
    assert flow.tolist() == [0, 1] and link.tolist() == [1, -1]


def test_proven_limits_count_the_flows_that_ran_beside(monkeypatch):
    network = SteppedNetwork([1.0], 0.01, range(0))
    one = network.start(FlowBatch([0, 1], [0], [4.0]))
    network.run(1.0)
    other = network.start(FlowBatch([0, 1], [0], [2.0]))
    network.run(np.inf)
    # Exact: one carries 1 alone, then both 2 each until 5, then one its last byte: 6.
    np.testing.assert_allclose([network.finish(one)[0], network.finish(other)[0]], [6.0, 5.0])
    assert network.last_proven([one]) == pytest.approx((4.0, 6.0), rel=1e-3)
    network.release(one)
    assert network.last_proven([other]) == pytest.approx((3.0, 5.0), rel=1e-3)


def test_what_steps_cannot_do_is_refused():
    network = SteppedNetwork([1.0, 1.0], 0.01, range(1, 2))
    handle = network.start(FlowBatch([0, 1], [0], [1.0]))
    refused = [
        (lambda: network.set_capacity(0, 2.0), "cannot change"),
        (lambda: network.cancel(handle, 0), "cannot be cancelled"),
        (lambda: network.reroute(handle, 0, [1]), "another way"),
        (lambda: network.start(FlowBatch([0, 2], [0, 1], [1.0])), "start them apart"),
        (lambda: network.start(FlowBatch([0, 1], [0], [1.0], waiter_ptr=[0, 1], waiter_ids=[7])), "ids run from"),
        (lambda: network.release(handle), "still in progress"),
        (lambda: SteppedNetwork([0.0], 0.01, range(0)), "link 0 has none"),
        (lambda: SteppedNetwork([1.0], 0.5, range(0)), "at most 0.1"),
    ]
    for act, words in refused:
        with pytest.raises(InputError, match=words):
            act()
    network.set_capacity(1, 0.5)
    kernel = network.start(FlowBatch([0, 1], [1], [1.0]))
    network.run(np.inf)
    assert network.finish(kernel)[0] == 2.0
