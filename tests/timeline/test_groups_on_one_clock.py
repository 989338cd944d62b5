"""Several groups of ranks on one clock: closed forms, SimGrid's finish times, and the engine asked once more."""

from pathlib import Path

import numpy as np
import pytest

from moesim.cluster import group_fabrics, load_topology
from moesim.network import solve_flows
from moesim.stages import STAGES
from moesim.timeline import LayerWork, RankGroup, moe_layers
from moesim.traffic import weight_flows, weight_transfer
from tests.reference import group_nets

RECORDED = Path(__file__).parents[1] / "network" / "data" / "simgrid_groups.npz"
MB = 10**6


def crossing(view, n_bytes):
    """A group whose ranks of its first node each send so many bytes to the same rank of its second, and back."""
    half = view.n_ranks // 2
    there, back = np.arange(half), np.arange(half) + half
    transfer = weight_transfer("async")
    flows = {
        "dispatch": weight_flows(view, there, back, n_bytes, transfer),
        "combine": weight_flows(view, back, there, n_bytes, transfer),
    }
    work = LayerWork({stage.name: np.zeros(view.n_ranks) for stage in STAGES if stage.kind == "kernel"}, flows)
    return RankGroup(view, moe_layers(1, False), lambda *_: work, np.zeros(view.n_ranks))


def lengths(groups):
    """Seconds that bytes are on the wires in dispatch, of each group."""
    traces = group_nets.on_one_clock(groups)
    return [float((trace.dispatch.finish_s - trace.dispatch.start_s).max()) for trace in traces]


def packed():
    return group_fabrics(load_topology("h100-8x2-leaf-spine-2to1"), "packed", 2, 8)


def on_one_uplink(sizes):
    """Two groups of two ranks whose dispatches of these sizes cross one uplink of half a NIC; its rate for them."""
    cluster, transfer = load_topology("h100-4x1-leaf-spine-4to1"), weight_transfer("async")
    views = [cluster.some_ranks(np.array(ranks)) for ranks in ([0, 2], [1, 3])]

    def uplinks(seed):
        return {int(view.routes([0], [1], seed)[1][1]) for view in views}

    seed = next(seed for seed in range(200) if len(uplinks(seed)) == 1)  # a hash that sends both over one spine
    groups = []
    for view, n_bytes in zip(views, sizes, strict=True):
        flows = {name: weight_flows(view, [0], [1], n_bytes, transfer, seed) for name in ("dispatch", "combine")}
        work = LayerWork({stage.name: np.zeros(2) for stage in STAGES if stage.kind == "kernel"}, flows)
        groups.append(RankGroup(view, moe_layers(1, False), lambda *_, work=work: work, np.zeros(2)))
    capacity = cluster.capacity[uplinks(seed).pop()]
    assert capacity < cluster.capacity[cluster.is_class("nic")].min()
    return groups, capacity * transfer.efficiency["nic"]


def test_two_equal_groups_on_one_full_uplink_take_twice_as_long():
    groups, rate = on_one_uplink((50 * MB, 50 * MB))
    alone = [lengths([group])[0] for group in groups]
    np.testing.assert_allclose(alone, 50 * MB / rate, rtol=1e-9)
    np.testing.assert_allclose(lengths(groups), 2 * np.array(alone), rtol=1e-9)


def test_the_smaller_of_two_groups_on_one_uplink_takes_twice_its_bytes():
    # Unequal flows on one link: t1 = n b1 / C.
    groups, rate = on_one_uplink((10 * MB, 35 * MB))
    np.testing.assert_allclose(lengths(groups)[0], 2 * 10 * MB / rate, rtol=1e-9)


def test_groups_that_share_no_link_take_as_long_as_alone():
    groups = [crossing(view, 20 * MB) for view in packed()]
    np.testing.assert_allclose(lengths(groups), [lengths([group])[0] for group in groups], rtol=1e-12)


def test_a_group_waits_for_its_own_ranks_only():
    first, second = (crossing(view, 20 * MB) for view in packed())
    late = RankGroup(second.fabric, second.program, second.work_of, np.full(8, 10e-3))
    early, after = group_nets.on_one_clock([first, late])
    assert early.end_s_of_layer.max() < 10e-3 <= after.entry_s.min()


@pytest.mark.jit
def test_on_twenty_clusters_with_groups_every_flow_ends_when_simgrid_says():
    rng = np.random.default_rng(group_nets.SEED)
    with np.load(RECORDED) as file:
        recorded = np.split(file["finish"], np.cumsum(file["n_flows"])[:-1])
    contended = 0
    for finish in recorded:
        groups = group_nets.random_groups(rng)
        flows, got = group_nets.flows_between(groups, group_nets.on_one_clock(groups))
        np.testing.assert_allclose(got, finish, rtol=1e-9)
        np.testing.assert_allclose(solve_flows(**flows.arguments()), finish, rtol=1e-9)
        links = [set(group.work_of(0, 0).flows["dispatch"].route_links.tolist()) for group in groups]
        contended += any(a & b for i, a in enumerate(links) for b in links[:i])
    assert len(recorded) == group_nets.N_NETS and contended >= 10
