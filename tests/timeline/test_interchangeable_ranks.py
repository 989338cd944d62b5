"""All-to-alls among interchangeable ranks: a few classes give what every single flow gives."""

from dataclasses import replace

import numpy as np
import pytest

from moesim.cluster import build_fabric, load_topology
from moesim.cluster.topology_spec import LeafSpineTopology
from moesim.timeline.interchangeable_ranks import ranks_are_alike, refined, solve_alike
from moesim.timeline.uniform_alltoall import alltoall_table, run_phase
from moesim.traffic import calibration
from moesim.traffic.alltoall import phase_flows
from moesim.traffic.copies import Copies
from moesim.traffic.exchange import Exchange
from tests.reference.alltoall_constants import plain
from tests.reference.small_rail import small_rail


def one_leaf(nodes, gpus):
    """All NICs on one switch."""
    spec = LeafSpineTopology(
        kind="leaf-spine",
        gpu="h800",
        nodes=nodes,
        gpus_per_node=gpus,
        nodes_per_leaf=nodes,
        nvlink={"bandwidth": "200GB/s"},
        nic={"bandwidth": "50GB/s"},
        leaf_spine={"spines": 1},
    )
    return build_fabric(spec, "one switch")


def both_ways(fabric, sent, colour, algorithm, tokens=None):
    """Finish times and departures, by classes and with every pair a flow."""
    constants = plain(algorithm, fabric.gpu)
    copies = Copies(sent, sent, np.zeros((fabric.n_ranks, fabric.n_nodes), np.int64))
    flows = phase_flows(fabric, copies, constants, "dispatch", 1, tokens=tokens)
    trace = run_phase(fabric, flows)
    exchange = Exchange(fabric, copies, constants.spanning(fabric.n_nodes), "dispatch", 1, True, 0, tokens, 0)
    alike = solve_alike(exchange, sent, colour)
    at = {pair: i for i, pair in enumerate(zip(flows.source.tolist(), flows.target.tolist(), strict=True))}
    same = [at[pair] for pair in zip(alike.flows.source.tolist(), alike.flows.target.tolist(), strict=True)]
    return alike, trace, trace.finish_s[same]


@pytest.mark.parametrize("algorithm", ["nccl-direct", "deepep-low-latency", "deepep-low-latency-nic"])
def test_a_uniform_all_to_all_is_a_few_classes_and_loses_nothing(algorithm):
    fabric = one_leaf(3, 4)
    sent = np.full((12, 12), 50_000)
    alike, trace, finish = both_ways(fabric, sent, np.zeros(12, np.int64), algorithm)
    assert len(alike.finish_s) == 11
    np.testing.assert_allclose(alike.finish_s, finish, rtol=1e-12)
    np.testing.assert_allclose(alike.leave_s, trace.leave_s, rtol=1e-12)
    wire = trace.flows.link_wire_bytes(fabric.n_links)
    assert alike.port_bytes.max() == wire.max()


@pytest.mark.parametrize(("source", "target"), [(0, 1), (2, 9), (11, 0)])
@pytest.mark.parametrize("factor", [0, 3, 40])
def test_one_message_of_another_size_is_exact_too(source, target, factor):
    fabric = one_leaf(3, 4)
    sent = np.full((12, 12), 100_000)
    sent[source, target] *= factor
    colour = np.zeros(12, np.int64)
    colour[source], colour[target] = 1, 2
    alike, trace, finish = both_ways(fabric, sent, colour, "nccl-direct")
    np.testing.assert_allclose(alike.finish_s, finish, rtol=1e-12)
    np.testing.assert_allclose(alike.leave_s, trace.leave_s, rtol=1e-12)
    assert len(set(np.round(finish, 12))) > 2


@pytest.mark.parametrize("algorithm", ["nccl-direct", "deepep-low-latency", "deepep-low-latency-nic"])
def test_ranks_of_three_colours_scattered_over_nodes_are_exact(algorithm):
    rng = np.random.default_rng(3)
    fabric = one_leaf(4, 4)
    for _ in range(5):
        colour = rng.integers(0, 3, 16)
        by_colour = rng.integers(1, 9, (3, 3)) * 10_000
        colour[:3] = [0, 1, 2]
        alike, trace, finish = both_ways(fabric, by_colour[colour][:, colour], colour, algorithm)
        np.testing.assert_allclose(alike.finish_s, finish, rtol=1e-12)
        np.testing.assert_allclose(alike.leave_s, trace.leave_s, rtol=1e-12)


def test_who_shares_a_node_with_another_colour_is_of_another_colour():
    colour = np.array([0, 0, 0, 0, 1, 0])
    got = refined(one_leaf(3, 2), colour)
    assert got[0] == got[1] == got[2] == got[3] and len({got[0], got[4], got[5]}) == 3


def test_spines_planes_and_unequal_ports_tell_ranks_apart():
    assert ranks_are_alike(load_topology("hgx-h800")) and ranks_are_alike(one_leaf(3, 4))
    assert not ranks_are_alike(small_rail(2, 2))
    assert not ranks_are_alike(one_leaf(3, 4).first_ranks(10))
    fabric = one_leaf(2, 2)
    capacity = fabric.capacity.copy()
    capacity[fabric.paths.nic_in[3]] /= 2
    assert not ranks_are_alike(replace(fabric, capacity=capacity))
    assert not ranks_are_alike(load_topology("two-nodes-explicit"))


def test_four_thousand_ranks_take_the_bytes_of_a_port():
    (row,) = alltoall_table(one_leaf(512, 8), "nccl-direct", [1 << 32])
    across = (4096 - 8) * ((1 << 32) // 4096)
    assert row.nic == pytest.approx(across / row.time_s)
    rate = max(one.nic_rate for one in calibration("nccl-direct", "h800").protocols)
    assert row.time_s == pytest.approx(across / rate, rel=4e-3)
