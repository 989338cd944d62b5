"""The table of uniform all-to-alls: set-up, bytes over rates, sizes that do not divide."""

import pytest

from moesim.cluster import load_topology
from moesim.timeline.uniform_alltoall import alltoall_table
from moesim.traffic import calibration


def quickest(gpu, sent, message, peers):
    """Of NCCL's protocols the one that ends first: set-up, then bytes at its rate, at most so many per pair."""
    times = []
    for one in calibration("nccl-direct", gpu).protocols:
        moving = max(
            sent / one.nvlink_rate if one.nvlink_rate else 0.0, message / one.pair_rate if one.pair_rate else 0.0
        )
        times.append(max(one.floor_s, one.setup_intra_node_s + one.setup_peer_s * (peers - 1) + moving))
    return min(times)


def test_a_uniform_all_to_all_in_one_node_takes_setup_plus_bytes_over_rate():
    fabric = load_topology("hgx-h800")
    rows = alltoall_table(fabric, "nccl-direct", [8 << 20, 64 << 20])
    for row in rows:
        assert row.time_s == pytest.approx(quickest("h800", row.size / 8 * 7, row.size / 8, 7), rel=1e-9)
        assert row.algbw == pytest.approx(row.size / row.time_s) and row.busbw == pytest.approx(row.algbw * 7 / 8)
        assert row.nvlink == pytest.approx(row.busbw) and row.nic is None
    assert rows[1].busbw > rows[0].busbw


def test_across_nodes_the_nic_carries_what_leaves_the_node():
    fabric = load_topology("h800-8x8-rail").first_ranks(16)
    (row,) = alltoall_table(fabric, "nccl-direct", [256 << 20])
    assert row.nic == pytest.approx(row.size / 2 / row.time_s, rel=1e-9)
    assert row.nic <= 48e9


def test_sizes_that_do_not_divide_by_the_ranks_are_cut_to_what_is_sent():
    (row,) = alltoall_table(load_topology("hgx-h800"), "nccl-direct", [1_000_003])
    assert row.size == 1_000_000
