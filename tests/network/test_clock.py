"""A flow network on SimPy's clock: one pending event, exact times, no matter who acts first."""

import numpy as np
import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.errors import InputError, InvariantError
from moesim.network import FlowBatch, FlowNetwork, NetworkClock, SteppedNetwork, solve_flows
from tests.reference.max_min import csr


class Ranks:
    """Processes that send one flow each and note when it is done."""

    def __init__(self, capacity, now=0.0):
        self.env = simpy.Environment(now)
        self.network = FlowNetwork(capacity, now=now)
        self.clock = NetworkClock(self.env, self.network)
        self.done = {}

    def send(self, name, at, route, size):
        def process():
            yield self.env.timeout(at)
            waiter = self.network.new_waiters(1)
            assert self.network.now <= self.env.now
            self.clock.transfer(FlowBatch(size=[size], waiter_ptr=[0, 1], waiter_ids=[waiter], **csr([route])))
            assert self.network.now == self.env.now
            yield self.clock.wait(waiter)
            assert self.network.now == self.env.now
            self.done[name] = self.env.now

        self.env.process(process())


def test_a_late_starter_slows_those_who_share_a_link_with_it_from_then_on():
    ranks = Ranks([10.0, 10.0])
    ranks.send("early", 0.0, [(0, 1)], 60.0)
    ranks.send("late", 2.0, [(0, 1)], 20.0)
    ranks.send("elsewhere", 0.0, [(1, 1)], 70.0)
    ranks.env.run()
    assert ranks.done == {"late": 6.0, "elsewhere": 7.0, "early": 8.0}


@pytest.mark.parametrize("order", [1, -1])
def test_processes_that_start_flows_at_one_instant_act_as_one(order):
    ranks = Ranks([3.0, 2.0])
    routes, size = [[(0, 1)], [(0, 1), (1, 1)], [(1, 1)]], [5.0, 1.0, 2.0]
    for i in (0, 1, 2)[::order]:
        ranks.send(i, 0.7, routes[i], size[i])
    ranks.env.run()
    want = solve_flows([3.0, 2.0], [0, 0], size=size, start=[0.7] * 3, **csr(routes))
    np.testing.assert_allclose([ranks.done[i] for i in range(3)], want, rtol=1e-15)


def test_random_processes_see_the_times_of_one_solve():
    rng = np.random.default_rng(5)
    capacity = rng.random(4) + 0.1
    routes = [[(int(link), 1) for link in rng.choice(4, 2, replace=False)] for _ in range(25)]
    size, start = rng.random(25), rng.random(25) * 20
    ranks = Ranks(capacity, now=3.1)
    for i in range(25):
        ranks.send(i, start[i], routes[i], size[i])
    ranks.env.run()
    want = solve_flows(capacity, np.zeros(4), size=size, start=3.1 + start, **csr(routes))
    np.testing.assert_allclose([ranks.done[i] for i in range(25)], want, rtol=1e-14)


def test_a_capacity_that_changes_in_mid_flight_counts_from_then_on():
    ranks = Ranks([10.0])
    ranks.send("flow", 0.0, [(0, 1)], 60.0)

    def degrade():
        yield ranks.env.timeout(2.0)
        ranks.clock.scale(0, "fault", 0.1)
        yield ranks.env.timeout(3.0)
        ranks.clock.scale(0, "fault", 0.0)
        yield ranks.env.timeout(5.0)
        ranks.clock.scale(0, "fault", 3.7)

    ranks.env.process(degrade())
    ranks.env.run()
    assert ranks.done == {"flow": 11.0}


def test_a_stalled_flow_goes_on_when_somebody_repairs_its_link_much_later():
    ranks = Ranks([3.0])
    ranks.clock.scale(0, "cut", 0.0)
    ranks.send("flow", 0.0, [(0, 1)], 6.0)
    ranks.env.run()
    assert ranks.done == {}
    ranks.env.run(until=100.0)
    ranks.clock.scale(0, "cut", 1.0)
    ranks.env.run()
    assert ranks.done == {"flow": 102.0}


def test_owners_of_a_link_multiply_and_whoever_lets_go_leaves_the_others_share():
    ranks = Ranks([10.0])
    ranks.send("flow", 0.0, [(0, 1)], 60.0)
    capacity = []

    def change():
        for owner, factor in (("kernel", 0.3), ("fault", 0.5), ("kernel", 0.2), ("kernel", 1.0), ("fault", 1.0)):
            yield ranks.env.timeout(1.0)
            ranks.clock.scale(0, owner, factor)
            capacity.append(ranks.network.capacity(0))

    ranks.env.process(change())
    ranks.env.run()
    # One owner alone has the very product, and nobody leaves a rounding behind.
    assert capacity == [10.0 * 0.3, 10.0 * (0.3 * 0.5), 10.0 * (0.5 * 0.2), 10.0 * 0.5, 10.0]
    # In the five seconds: 10, 3, 1.5, 1 and 5 bytes; then 10 a second.
    assert ranks.done["flow"] == pytest.approx(5.0 + (60.0 - 20.5) / 10.0, rel=1e-14)


@settings(max_examples=50, deadline=None)
@given(
    changes=st.lists(st.tuples(st.integers(0, 2), st.sampled_from("abc"), st.sampled_from([0.0, 0.3, 0.7, 1.0, 2.0])))
)
def test_capacity_is_nominal_times_the_factors_that_are_held(changes):
    nominal = np.array([3.0, 7.0, 11.0])
    ranks, held = Ranks(nominal), {}
    for link, owner, factor in changes:
        ranks.clock.scale(link, owner, factor)
        held[link, owner] = factor
    for link in range(3):
        factors = [factor for (at, _), factor in held.items() if at == link]
        assert ranks.network.capacity(link) == pytest.approx(nominal[link] * np.prod(factors), rel=1e-14)


def test_the_clock_keeps_what_changed_and_solving_with_it_gives_the_same_times():
    rng = np.random.default_rng(3)
    capacity, size, start = rng.random(3) + 0.5, rng.random(12) + 0.5, rng.random(12) * 4
    routes = [[(int(link), 1) for link in rng.choice(3, 2, replace=False)] for _ in range(12)]
    ranks = Ranks(capacity, now=0.7)
    for i in range(12):
        ranks.send(i, start[i], routes[i], size[i])

    def change():
        for link, owner, factor in ((0, "a", 0.2), (2, "b", 0.5), (0, "b", 0.5), (2, "b", 0.5), (0, "a", 1.0)):
            yield ranks.env.timeout(1.1)
            ranks.clock.scale(link, owner, factor)

    ranks.env.process(change())
    ranks.env.run()
    events = ranks.clock.capacity_events()
    # The fourth changes nothing.
    np.testing.assert_allclose(events.time, 0.7 + 1.1 * np.array([1, 2, 3, 5]), rtol=1e-15)
    assert events.link.tolist() == [0, 2, 0, 0]
    assert events.capacity.tolist() == (capacity[[0, 2, 0, 0]] * [0.2, 0.5, 0.2 * 0.5, 0.5]).tolist()
    solved = {"latency": np.zeros(3), "size": size, "start": 0.7 + start, **csr(routes)}
    done = [ranks.done[i] for i in range(12)]
    np.testing.assert_allclose(done, solve_flows(capacity, capacity_events=events, **solved), rtol=1e-13)
    assert np.abs(done - solve_flows(capacity, **solved)).max() > 0.1


@pytest.mark.parametrize("factor", [-0.1, np.nan, np.inf])
def test_a_factor_that_no_link_can_have_is_refused(factor):
    ranks = Ranks([1.0])
    with pytest.raises(InputError, match="of its capacity; give 0 or more"):
        ranks.clock.scale(0, "fault", factor)
    assert ranks.network.capacity(0) == 1.0


def test_a_wire_whose_flows_take_steps_keeps_its_capacity():
    network = SteppedNetwork([1.0, 1.0], 0.01, range(1, 2))
    clock = NetworkClock(simpy.Environment(), network)
    with pytest.raises(InputError, match=r"network\.tolerance: .* link 0 .*; it must be 0"):
        clock.scale(0, "fault", 0.5)
    clock.scale(1, "kernel", 0.5)
    assert [network.capacity(link) for link in (0, 1)] == [1.0, 0.5]
    assert clock.capacity_events().link.tolist() == [1]


def test_a_flow_that_is_taken_away_or_sent_elsewhere_ends_its_wait():
    ranks = Ranks([1.0, 100.0])
    waiter = ranks.network.new_waiters(2)
    handle = ranks.clock.transfer(
        FlowBatch(size=[50.0, 50.0], waiter_ptr=[0, 1, 2], waiter_ids=[waiter, waiter + 1], **csr([[(0, 1)], [(0, 1)]]))
    )
    ends = []

    def wait(which):
        yield ranks.clock.wait(which)
        ends.append((ranks.env.now, which - waiter))

    def change():
        yield ranks.env.timeout(2.0)
        ranks.clock.cancel(handle, 0)
        ranks.clock.reroute(handle, 1, [1])

    for process in (wait(waiter), wait(waiter + 1), wait(waiter), change()):
        ranks.env.process(process)
    ranks.env.run()
    assert ends == [(2.0, 0), (2.0, 0), (2.49, 1)]


def test_nothing_outstanding_is_no_wait():
    ranks = Ranks([1.0])
    waiter = ranks.network.new_waiters(1)
    event = ranks.clock.wait(waiter)
    assert event.triggered


def test_those_who_wait_for_nothing_are_not_woken():
    ranks = Ranks([1.0])
    waiters = ranks.network.new_waiters(3)
    ranks.clock.transfer(
        FlowBatch(
            size=[1.0, 2.0, 3.0], waiter_ptr=[0, 1, 2, 3], waiter_ids=np.arange(3) + waiters, **csr([[(0, 1)]] * 3)
        )
    )
    ranks.env.run(until=ranks.clock.wait(waiters + 2))
    assert ranks.env.now == 6.0


def test_flows_that_start_in_the_future_wait_for_their_time():
    ranks = Ranks([1.0])
    waiter = ranks.network.new_waiters(1)
    ranks.clock.transfer(FlowBatch(size=[2.0], start=[5.0], waiter_ptr=[0, 1], waiter_ids=[waiter], **csr([[(0, 1)]])))
    ranks.env.run(until=ranks.clock.wait(waiter))
    assert ranks.env.now == 7.0


def test_sequential_phases_end_where_the_sum_of_their_times_is():
    ranks = Ranks([3.0, 7.0])
    ends = []

    def rank(link, size):
        for _ in range(150):
            waiter = ranks.network.new_waiters(1)
            handle = ranks.clock.transfer(
                FlowBatch(size=[size], waiter_ptr=[0, 1], waiter_ids=[waiter], **csr([[(link, 1)]]))
            )
            yield ranks.clock.wait(waiter)
            assert ranks.network.finish(handle)[0] == ranks.env.now == ranks.network.now
            ranks.network.release(handle)
            ranks.network.release_waiters(waiter, 1)
            yield ranks.env.timeout(0.1)
        ends.append(ranks.env.now)

    ranks.env.process(rank(0, 1.0))
    ranks.env.process(rank(1, 0.3))
    ranks.env.run()
    np.testing.assert_allclose(sorted(ends), sorted([150 * (1 / 3 + 0.1), 150 * (0.3 / 7 + 0.1)]), rtol=1e-12)


def test_a_time_that_the_environment_cannot_add_up_to_is_reached_all_the_same():
    """SimPy adds a delay to its time, and now + (t - now) need not be t: here it is above, then below."""
    rng = np.random.default_rng(0)
    missed = set()
    for first, end in rng.random((300, 2)) * [0.1, 1.0] + [0.0, 0.2]:
        missed.add(np.sign(first + (end - first) - end))
        ranks = Ranks([1.0, 1.0])
        ranks.send("flow", 0.0, [(0, 1)], end)
        ranks.send("other", first, [(1, 1)], 5.0)
        ranks.env.run(until=4.0)
        assert ranks.done == {"flow": end}
        assert ranks.network.now == 4.0
    assert missed == {-1.0, 0.0, 1.0}


def test_a_network_in_front_of_its_environment_is_refused():
    ranks = Ranks([1.0])
    ranks.network.run(3.0)
    with pytest.raises(InvariantError):
        ranks.clock.scale(0, "fault", 2.0)
