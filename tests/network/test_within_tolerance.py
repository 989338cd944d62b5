"""Steps instead of events: how far from exact, never below the bound of a link, bytes conserved."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks import workloads
from moesim.errors import InputError
from moesim.network import solve_flows, solve_within
from moesim.network.stepped import stepping
from moesim.network.stepped.filling import fill, lift
from tests.reference.max_min import csr, fair_rates

quick = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=60)


def within(flows, tolerance, **changes):
    arguments = flows.arguments() | changes
    del arguments["latency"]
    return solve_within(tolerance=tolerance, **arguments)


@st.composite
def nets(draw):
    n_links, n_flows = draw(st.integers(1, 5)), draw(st.integers(1, 8))
    route = st.lists(
        st.tuples(st.integers(0, n_links - 1), st.sampled_from([1.0, 1.0, 0.5, 3.0])), min_size=1, max_size=3
    )
    each = {"min_size": n_flows, "max_size": n_flows}
    return {
        "capacity": [draw(st.integers(1, 20)) / 2 for _ in range(n_links)],
        "routes": [list(dict(one).items()) for one in draw(st.lists(route, **each))],
        "cap": draw(st.lists(st.one_of(st.just(np.inf), st.integers(1, 8).map(float)), **each)),
        "takes_part": draw(st.lists(st.sampled_from([True, True, False]), **each)),
    }


@quick
@given(nets())
def test_filling_from_scratch_gives_the_exact_rates(net):
    from fractions import Fraction

    arrays = csr(net["routes"])
    n_links, n_flows = len(net["capacity"]), len(net["routes"])
    order = np.argsort(arrays["route_links"], kind="stable")
    flow = np.repeat(np.arange(n_flows), np.diff(arrays["route_ptr"]))[order]
    list_ptr = np.searchsorted(arrays["route_links"][order], np.arange(n_links + 1))
    takes_part = np.array(net["takes_part"])
    rate = np.where(takes_part, -1.0, 0.0)
    level, room, load = np.empty((3, n_links))
    waiting, heap = np.empty((2, n_links), np.int32)
    fill(
        np.array(net["capacity"]), arrays["route_ptr"], arrays["route_links"], arrays["weight"], list_ptr,
        flow.astype(np.int32), np.array(net["cap"]), rate, level, room, load, waiting, heap,
    )  # fmt: skip
    live = np.flatnonzero(takes_part)
    loads = [{link: Fraction(weight) for link, weight in net["routes"][f]} for f in live]
    caps = [None if net["cap"][f] == np.inf else Fraction(net["cap"][f]) for f in live]
    want = fair_rates([Fraction(c) for c in net["capacity"]], loads, caps)
    np.testing.assert_allclose(rate[live], [float(r) for r in want], rtol=1e-12)
    assert (rate[~takes_part] == 0).all()


@pytest.mark.jit
@pytest.mark.parametrize(
    ("flows", "share_of_flows"),
    [(lambda: workloads.pairs(128), 0.999), (lambda: workloads.pairs(128, "uniform"), 0.995),
     (lambda: workloads.leaf_spine(96), 0.999), (lambda: workloads.trees(512), 0.999)],
)  # fmt: skip
def test_a_dispatch_in_steps_is_near_the_exact_one(flows, share_of_flows):
    flows = flows()
    exact = solve_flows(**flows.arguments())
    got = within(flows, 0.005)
    assert got.steps > 20
    assert got.finish.max() == pytest.approx(exact.max(), rel=1e-6)
    assert got.finish.max() >= got.bound * (1 - 1e-12)
    ends = flows.ends if flows.weight is None else flows.ends[:1]  # a tree's other end is a node
    ranks = np.zeros((2, ends.max() + 1))
    for leave, finish in zip(ranks, (exact, got.finish), strict=True):
        for end in ends:
            np.maximum.at(leave, end, finish)
    np.testing.assert_allclose(ranks[1], ranks[0], rtol=1e-3)
    inside = np.abs(got.finish - exact) <= got.off
    assert inside.mean() >= share_of_flows
    assert np.abs(got.finish - exact).max() <= 3 * got.off.max()


def test_no_port_is_done_before_it_can_have_carried_its_bytes(monkeypatch):
    monkeypatch.setattr(stepping, "FEW", 5)
    for seed in range(3):
        flows = workloads.switch(16, "zipf", seed)
        got = within(flows, 0.05)
        flow = np.repeat(np.arange(flows.n), np.diff(flows.route_ptr))
        carried = np.bincount(flows.route_links, weights=flows.size[flow], minlength=len(flows.capacity))
        last = np.zeros(len(flows.capacity))
        np.maximum.at(last, flows.route_links, got.finish[flow])
        assert (last >= carried / flows.capacity * (1 - 1e-12)).all()


def test_equal_messages_end_together_and_on_the_bound(monkeypatch):
    monkeypatch.setattr(stepping, "FEW", 0)
    flows = workloads.switch(16, "equal")
    np.testing.assert_allclose(within(flows, 0.01).finish, flows.bound(), rtol=1e-9)


@pytest.mark.parametrize(("lasts", "lifted"), [([1.0, 0.5, 0.7], 0), ([0.7, 0.5, 1.0], 2), ([0.5, 1.0, 0.7], 1)])
def test_the_last_flow_of_a_link_ends_when_the_link_can_have_carried_all(lasts, lifted):
    everyone, lists = np.ones(3, np.bool_), (np.array([0, 3]), np.arange(3, dtype=np.int32), np.array([1.0, 2.0, 1.0]))
    got = np.array(lasts)
    lift(np.array([2.0]), *lists, everyone, everyone, np.array([1.0, 1.0, 1.0]), 5.0, got)
    want = np.array(lasts)
    want[lifted] = 4 / 2  # 1 + 2 + 1 bytes at 2 bytes/s
    assert got.tolist() == want.tolist()
    lift(np.array([0.1]), *lists, everyone, everyone, np.array([1.0, 1.0, 1.0]), 5.0, got)
    assert got[lifted] == 5.0  # not past the step
    kept = got.copy()
    lift(np.array([1e-3]), *lists, everyone, np.array([True, True, False]), np.array([1.0, 1.0, 1.0]), 50.0, got)
    assert (got == kept).all()  # one goes on: the link is not done


@pytest.mark.parametrize("seed", range(3))
def test_a_link_stays_full_while_flows_that_start_within_a_step_catch_up(seed, monkeypatch):
    monkeypatch.setattr(stepping, "FEW", 5)
    rng, n = np.random.default_rng(seed), 200
    size = rng.random(n) + 0.5
    start = np.where(np.arange(n) < 60, 0.0, rng.random(n) * 0.2 * size.sum())
    one_link = {"capacity": [1.0], "route_ptr": np.arange(n + 1), "route_links": np.zeros(n, int)}
    got = solve_within(tolerance=0.02, size=size, start=start, **one_link)
    assert got.finish.max() == pytest.approx(size.sum(), rel=1e-12)
    exact = solve_flows(latency=[0.0], size=size, start=start, **one_link)
    np.testing.assert_allclose(got.finish, exact, atol=0.0005 * size.sum())


def test_smaller_steps_are_nearer(monkeypatch):
    monkeypatch.setattr(stepping, "FEW", 5)
    monkeypatch.setattr(stepping, "SHARE_PER_STEP", 1.0)
    flows = workloads.pairs(16)
    exact = solve_flows(**flows.arguments())
    far, near = (np.abs(within(flows, tolerance).finish - exact).mean() for tolerance in (0.1, 0.01))
    assert near < far / 4 and near < 1e-3 * exact.max()


def test_staggered_starts_and_caps_stay_within_the_limits(monkeypatch):
    monkeypatch.setattr(stepping, "FEW", 5)
    rng = np.random.default_rng(0)
    flows = workloads.switch(8, "uniform")
    start = rng.random(flows.n) * 0.2 * flows.bound() + 1.0
    cap = np.where(rng.random(flows.n) < 0.1, 1e9, np.inf)
    arguments = flows.arguments() | {"start": start, "rate_cap": cap}
    exact = solve_flows(**arguments)
    got = within(flows, 0.002, start=start, rate_cap=cap)
    assert (np.abs(got.finish - exact) <= got.off).mean() > 0.99
    np.testing.assert_allclose(got.finish - 1.0, exact - 1.0, rtol=0.03)
    np.testing.assert_array_equal(solve_flows(**arguments, tolerance=0.002), got.finish)


def test_what_carries_nothing_ends_at_its_start():
    got = solve_within([1.0], [0, 1, 1, 2], [0, 0], [0.0, 5.0, 2.0], [3.0, 4.0, 1.0], 0.01)
    np.testing.assert_allclose(got.finish, [3.0, 4.0, 3.0])
    assert len(solve_within([1.0], [0], [], [], [], 0.01).finish) == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tolerance": -0.1}, "tolerance"),
        ({"tolerance": 0.2}, "at most 0.1"),
        ({"capacity": [0.0]}, "link 0 has none"),
        ({"rate_cap": [0.0]}, "flow 0 can never finish"),
    ],
)
def test_what_steps_cannot_do_is_refused(changes, words):
    good = {"capacity": [1.0], "route_ptr": [0, 1], "route_links": [0], "size": [1.0], "start": [0.0], "tolerance": 0.1}
    with pytest.raises(InputError, match=words):
        solve_within(**(good | changes))
    with pytest.raises(InputError, match="capacity_events"):
        solve_flows([1.0], [0.0], [0, 1], [0], [1.0], [0.0], capacity_events=([0.5], [0], [2.0]), tolerance=0.1)
