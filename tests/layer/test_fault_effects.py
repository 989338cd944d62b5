"""What each kind of fault does to links, NICs and ranks of a small cluster, value by value."""

import math

import numpy as np
import pytest

from moesim.cluster import load_topology
from moesim.errors import InputError
from moesim.fault_kinds import FAULT_KINDS, NOTICED_S, RETRIES, RETRY_S
from moesim.layer.faults import Gone, effects, for_the_whole_run, gone, on_the_clock
from moesim.network.throttle import Throttle, speed_integral
from moesim.scenario import Fault

GPUS = 8  # two nodes of four


@pytest.fixture(scope="module")
def fabric():
    return load_topology("h800-2x4-rail")


@pytest.fixture(scope="module")
def leaves():
    """Two leaves of two nodes, each with uplinks to several spines."""
    return load_topology("h800-4x4-leaf-spine")


def blame(loc, what, fix):
    return InputError(what, ".".join(map(str, loc)), fix)


def of(fabric, *faults):
    return effects([Fault(**fault) for fault in faults], fabric, blame)


def names(fabric, links):
    return sorted(f"{fabric.link_source[link]}->{fabric.link_target[link]}" for link in np.asarray(links).tolist())


NIC = ["n1.gpu2->rail2.leaf", "rail2.leaf->n1.gpu2"]


def test_a_slow_gpu_has_less_of_its_sms_and_of_those_that_communicate(fabric):
    (effect,) = of(fabric, {"kind": "slow_gpu", "where": "n1.gpu2", "factor": 4, "from": "1ms", "to": "2ms"})
    (one,) = effect.throttles
    assert one.links.tolist() == [fabric.n_links + 6, fabric.n_links + 6 + GPUS]
    assert (one.factor, one.from_s, one.to_s) == (0.25, 1e-3, 2e-3)


@pytest.mark.parametrize(
    ("fault", "links", "factor"),
    [
        ({"kind": "slow_nic", "where": "n1.gpu2", "factor": 4}, NIC, 0.25),
        ({"kind": "half_nic", "where": "n1.gpu2.nic"}, NIC, 0.5),
        ({"kind": "slow_nic", "where": "n1.gpu2.nvlink", "factor": 5},
         ["n1.gpu2->n1.nvswitch", "n1.nvswitch->n1.gpu2"], 0.2),
        ({"kind": "background", "where": "n1.gpu2->rail2.leaf", "share": "30%"}, NIC[:1], 0.7),
        ({"kind": "background", "where": "n1.gpu2.nic", "share": 0}, NIC, 1.0),
    ],
)  # fmt: skip
def test_wires_that_are_slow_for_the_whole_run_are_wires_of_less_capacity(fabric, fault, links, factor):
    found = of(fabric, fault)
    assert names(fabric, found[0].throttles[0].links) == links
    slow = for_the_whole_run(found, fabric)
    ratio = slow.capacity / fabric.capacity
    expected = np.ones(fabric.n_links)
    expected[found[0].throttles[0].links] = factor
    np.testing.assert_allclose(ratio, expected, rtol=1e-15)
    assert on_the_clock(found, fabric) == () and slow.paths is fabric.paths


def test_what_comes_or_goes_and_slow_gpus_stay_for_the_clock(fabric):
    nic = {"kind": "half_nic", "where": "n1.gpu2.nic"}
    found = of(
        fabric, nic | {"from": "1us"}, nic | {"to": "1us"}, {"kind": "slow_gpu", "where": "n0.gpu0", "factor": 2}
    )
    assert len(on_the_clock(found, fabric)) == 3
    assert np.array_equal(for_the_whole_run(found, fabric).capacity, fabric.capacity)


def test_faults_at_one_link_multiply(fabric):
    nic = {"where": "n1.gpu2.nic"}
    found = of(fabric, {"kind": "half_nic"} | nic, {"kind": "slow_nic", "factor": 5} | nic)
    link = found[0].throttles[0].links[0]
    assert for_the_whole_run(found, fabric).capacity[link] == pytest.approx(fabric.capacity[link] / 10, rel=1e-15)


@pytest.mark.parametrize(
    ("begin", "end", "retry", "up"),
    [("0us", "1ms", "2ms", 2e-3), ("0us", "2ms", "2ms", 2e-3), ("0us", "2001us", "2ms", 4e-3),
     ("3ms", "4ms", "2ms", 5e-3), ("100us", "900us", "100us", 900e-6), ("0us", "1ms", None, 4.096e-6 * 2**20)],
)  # fmt: skip
def test_a_flap_ends_at_the_first_attempt_at_which_the_link_is_up(fabric, begin, end, retry, up):
    fault = {"kind": "flap", "where": "n1.gpu2.nic", "from": begin, "to": end} | ({"retry": retry} if retry else {})
    (one,) = of(fabric, fault)[0].throttles
    assert one.factor == 0.0 and names(fabric, one.links) == NIC
    assert one.to_s == pytest.approx(up, rel=1e-12)


def test_dead_nics_rails_and_switches_are_links_that_no_route_takes(fabric, leaves):
    assert names(fabric, of(fabric, {"kind": "dead_nic", "where": "n1.gpu2"})[0].dead) == NIC
    rail = names(fabric, of(fabric, {"kind": "dead_rail", "where": "rail2"})[0].dead)
    assert rail == sorted([*NIC, "n0.gpu2->rail2.leaf", "rail2.leaf->n0.gpu2"])
    spine = names(leaves, of(leaves, {"kind": "dead_leaf", "where": "spine0"})[0].dead)
    assert {"leaf0->spine0", "spine0->leaf0", "leaf1->spine0", "spine0->leaf1"} == set(spine)
    cut = for_the_whole_run(of(fabric, {"kind": "dead_nic", "where": "n1.gpu2"}), fabric)
    ptr, links = cut.routes(np.array([2]), np.array([6]), seed=0)
    assert ptr.tolist() == [0, len(links)] and not set(NIC) & set(names(cut, links))


def test_a_wrong_nic_is_by_default_that_of_the_next_gpu_of_the_node(fabric):
    def taken(**more):
        return of(fabric, {"kind": "wrong_nic", "where": "n1.gpu3"} | more)[0].nic_of

    assert taken() == ((7, 4),) and taken(nic="n1.gpu1") == ((7, 5),) and taken(nic="n1.gpu1.nic") == ((7, 5),)
    assert of(fabric, {"kind": "wrong_nic", "where": "n0"})[0].nic_of == ((0, 1), (1, 2), (2, 3), (3, 0))
    routed = for_the_whole_run(of(fabric, {"kind": "wrong_nic", "where": "n1.gpu3"}), fabric)
    assert "n1.gpu0->rail0.leaf" in names(routed, routed.routes(np.array([7]), np.array([3]), seed=0)[1])
    for nic in ("n0.gpu0", "n1"):
        with pytest.raises(InputError, match=r"is not one GPU of the node of n1.gpu3") as refused:
            taken(nic=nic)
        assert refused.value.where == "0.nic"


def test_a_collision_leaves_each_leaf_one_uplink(fabric, leaves):
    up = [
        link for link in range(leaves.n_links) if leaves.link_source[link] == "leaf0" and leaves.between_switches[link]
    ]
    assert len(up) > 1
    dead = of(leaves, {"kind": "ecmp_collision", "where": "leaf0"})[0].dead
    assert dead.tolist() == up[1:]
    with pytest.raises(InputError, match="flows have no choice of uplinks at 'rail2'") as refused:
        of(fabric, {"kind": "half_nic", "where": "rail2"}, {"kind": "ecmp_collision", "where": "rail2"})
    assert refused.value.where == "1.where"


def test_a_place_without_a_nic_has_none_that_is_dead(fabric):
    with pytest.raises(InputError, match=r"no NIC at 'n1.gpu2.nvlink' in h800-2x4-rail"):
        of(fabric, {"kind": "dead_nic", "where": "n1.gpu2.nvlink"})


def test_late_ranks_are_late_in_steps_that_begin_between(fabric):
    jitter = {"kind": "jitter", "delay": "30us", "where": "n1", "distribution": "fixed", "from": "1ms", "to": "2ms"}
    late = of(fabric, jitter)[0].late
    rng = np.random.default_rng(0)
    shown = [late.drawn(GPUS, begin, rng).tolist() for begin in (0.9e-3, 1e-3, 1.9e-3, 2e-3)]
    assert shown == [[0.0] * 8, [0.0] * 4 + [30e-6] * 4, [0.0] * 4 + [30e-6] * 4, [0.0] * 8]
    every = of(fabric, {"kind": "jitter", "delay": "30us"})[0].late
    assert every.ranks.tolist() == list(range(GPUS)) and every.to_s == math.inf
    drawn = np.concatenate([every.drawn(GPUS, 0.0, rng) for _ in range(2000)])
    assert drawn.mean() == pytest.approx(30e-6, rel=0.03) and drawn.std() == pytest.approx(30e-6, rel=0.05)
    # A step outside the window draws as many, so that those inside do not depend on where it begins.
    first, second = np.random.default_rng(1), np.random.default_rng(1)
    late.drawn(GPUS, 0.0, first), late.drawn(GPUS, 1e-3, second)
    assert first.random() == second.random()


def test_dead_ranks_are_all_masked_or_all_replaced(fabric):
    def death(where, mode):
        return {"kind": "rank_death", "where": where, "mode": mode}

    assert gone(of(fabric, death("n0.gpu1", "abort"))) is None
    assert gone(of(fabric, death("n1.gpu1", "mask"), death("n0", "mask"))) == Gone((0, 1, 2, 3, 5), False)
    assert gone(of(fabric, death("n1.gpu1", "replicas"))) == Gone((5,), True)
    with pytest.raises(InputError, match="dead ranks are masked and replaced in one run; give them one mode"):
        gone(of(fabric, death("n0.gpu1", "mask"), death("n1.gpu1", "replicas")))


def test_what_a_link_could_carry_is_the_integral_of_its_factors():
    throttles = (
        Throttle(np.array([3]), 0.5, 1.0, 3.0),
        Throttle(np.array([3, 4]), 0.25, 2.0),
        Throttle(np.array([5]), 0.0),
    )
    links, begin, end = np.array([3, 4, 5, 6]), np.zeros(4), np.full(4, 4.0)
    # Link 3: one second whole, one at a half, one at an eighth, one at a quarter.
    np.testing.assert_allclose(speed_integral(throttles, links, begin, end), [1.875, 2.5, 0.0, 4.0], rtol=1e-15)
    np.testing.assert_allclose(
        speed_integral(throttles, links, begin + 1.5, end - 1.5), [0.3125, 0.625, 0, 1], rtol=1e-15
    )
    assert throttles[2].whole_run and not throttles[0].whole_run and not throttles[1].whole_run
    moved = throttles[0].since(0.75)
    assert (moved.from_s, moved.to_s) == (0.25, 2.25)


def test_times_out_of_nccl_and_deepep_are_the_published_ones():
    # NCCL_IB_TIMEOUT 20, NCCL_IB_RETRY_CNT 7; NUM_CPU_TIMEOUT_SECS 100 of DeepEP's configs.cuh.
    assert (RETRY_S, RETRIES, NOTICED_S) == (4.294967296, 7, 100.0)
    assert [name for name, kind in FAULT_KINDS.items() if kind.timed] == [
        "slow_gpu", "slow_nic", "half_nic", "flap", "background", "jitter"
    ]  # fmt: skip


@pytest.mark.parametrize(("targets", "more"), [([4], ""), ([4, 5, 6], r" \(and 2 more pairs\)")])
def test_ranks_that_nothing_joins_any_more_are_named(fabric, targets, more):
    cut = for_the_whole_run(of(fabric, {"kind": "dead_nic", "where": "n1"}), fabric)
    with pytest.raises(InputError, match=rf"the faults leave no way from n0\.gpu0 to n1\.gpu0{more}; leave one out"):
        cut.routes(np.zeros(len(targets), int), np.array(targets), seed=0)
    assert len(cut.routes(np.array([0]), np.array([1]), seed=0)[1]) == 2
