"""Weights of experts on the wires: published times of one expert, and the bound that a migration cannot beat."""

import numpy as np
import pytest

from moesim.cluster import load_topology
from moesim.placement import contiguous, expert_bytes, moves_between, round_robin
from moesim.timeline import run_phase
from moesim.traffic import busiest_link_s, weight_flows, weight_transfer
from tests.reference.ports import busiest_ports, migration_bound_s

EXPERT = expert_bytes(7168, 2048, "fp8")


def seconds(topology, source, target):
    fabric = load_topology(topology)
    return float(
        run_phase(fabric, weight_flows(fabric, source, target, EXPERT, weight_transfer("blocking"))).leave_s.max()
    )


@pytest.mark.parametrize(("topology", "published_s"), [("hgx-h800", 210e-6), ("hgx-h20", 92e-6)])
def test_an_expert_of_deepseek_v3_takes_over_nvlink_what_was_published(topology, published_s):
    assert seconds(topology, [0], [1]) == pytest.approx(published_s, rel=0.12)


def test_an_expert_of_deepseek_v3_takes_over_the_nic_between_what_was_published():
    assert 0.8e-3 < seconds("h800-8x8-rail", [0], [8]) < 1.7e-3


def test_a_migration_alone_takes_its_busiest_port_and_no_less_on_a_rail():
    fabric = load_topology("h800-8x8-rail")
    old, new = contiguous(256, 64), round_robin(256, 64)
    moves = moves_between(old, new, fabric.rank_node)
    transfer = weight_transfer("blocking")
    flows = weight_flows(fabric, moves.source, moves.target, EXPERT, transfer)
    assert flows.size.sum() == len(moves) * EXPERT
    took = run_phase(fabric, flows)
    rates = 200e9 * transfer.efficiency["nvlink"], 50e9 * transfer.efficiency["nic"]
    bound_s = migration_bound_s(moves, fabric.rank_node, EXPERT, *rates)
    assert busiest_link_s(fabric, flows) >= bound_s * (1 - 1e-12)
    assert bound_s <= took.leave_s.max() < 1.5 * bound_s
    assert busiest_ports(moves, fabric.rank_node)[1] >= 3


def test_the_fixed_time_lies_in_its_published_range_and_gives_way_to_the_scenarios():
    for mode in ("blocking", "layerwise", "async"):
        found = weight_transfer(mode)
        least, most = found.fixed_range_s
        assert least <= found.fixed_s <= most and "vLLM" in found.source
        assert weight_transfer(mode, 3e-3).fixed_s == 3e-3
        assert weight_transfer(mode, 3e-3).source == "scenario"
    assert weight_transfer("async").fixed_s < weight_transfer("blocking").fixed_s


def test_no_moves_are_no_flows():
    fabric = load_topology("hgx-h800")
    flows = weight_flows(fabric, np.zeros(0, int), np.zeros(0, int), EXPERT, weight_transfer("async"))
    assert flows.n_flows == 0 and busiest_link_s(fabric, flows) == 0
    assert (run_phase(fabric, flows).leave_s == 0).all()
