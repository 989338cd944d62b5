"""Bandwidth table, bias dynamics, comparison of placements, arrivals and the words for a bottleneck."""

from pathlib import Path

import numpy as np
import pytest

from moesim.cluster import load_topology
from moesim.errors import InputError
from moesim.scenario.arrivals import ExponentialOffset, LognormalOffset, NormalOffset, UniformOffset
from moesim.simulation.bandwidth import alltoall_table
from moesim.simulation.critical import describe_bottleneck
from moesim.simulation.dynamics import bias_dynamics
from moesim.simulation.offsets import start_offsets
from moesim.simulation.placements import compare_placements
from tests.simulation.small import recorded, run_ids, scenario, small_recording


def test_a_uniform_all_to_all_in_one_node_takes_setup_plus_bytes_over_rate():
    fabric = load_topology("hgx-h800")
    rows = alltoall_table(fabric, "nccl-direct", [8 << 20, 64 << 20])
    for row in rows:
        assert row.time_s == pytest.approx(24e-6 + row.size / 8 * 7 / 160e9, rel=1e-9)
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


def test_the_bias_by_itself_evens_out_the_load():
    rows = bias_dynamics(
        scenario("losses.bias_rate=0.02", "routing.groups=1", "routing.top_groups=1"), steps=60, from_zero=True
    )
    assert [row["step"] for row in rows] == list(range(61))
    assert rows[0]["bias_spread"] == 0 and rows[0]["gate_mass_lost"] == pytest.approx(0, abs=1e-12)
    assert rows[-1]["max_violation"] < 0.35 * rows[0]["max_violation"]
    assert rows[-1]["gate_mass_lost"] > 0


def test_bias_dynamics_may_begin_with_the_recorded_bias(tmp_path):
    rows = bias_dynamics(recorded(small_recording(tmp_path / "made-up.npz")), steps=1, from_zero=False)
    assert rows[0]["bias_spread"] > 0.1


def test_a_router_without_bias_or_a_workload_without_logits_has_no_bias_dynamics(tmp_path):
    with pytest.raises(InputError, match="v1 router has no bias"):
        bias_dynamics(scenario("routing.kind=v1", "routing.groups=1", "routing.top_groups=1"), 1, True)
    np.save(tmp_path / "ids.npy", np.array([[0, 1, 2, 3]], np.int32))
    given = scenario(workload={"expert_ids": str(tmp_path / "ids.npy"), "tokens_per_rank": 1})
    with pytest.raises(InputError, match="without logits"):
        bias_dynamics(given, 1, True)


def test_eplb_is_never_worse_than_the_fixed_placements_and_replicas_help_the_hottest_slot():
    rows = {row["placement"]: row for row in compare_placements(scenario(), redundant_experts=8)}
    assert rows["contiguous"]["slots"] == 32 and rows["eplb, 8 redundant"]["slots"] == 40
    assert rows["eplb, 0 redundant"]["rank"] <= min(rows["contiguous"]["rank"], rows["round_robin"]["rank"])
    assert rows["eplb, 8 redundant"]["slot"] < rows["contiguous"]["slot"]
    assert all(row["node"] == pytest.approx(1) for row in rows.values())


def test_placements_of_given_experts_are_compared_by_their_counts(tmp_path):
    np.save(tmp_path / "ids.npy", np.tile(np.array([[0, 1, 2, 3]], np.int32), (8, 1)))
    given = scenario(workload={"expert_ids": str(tmp_path / "ids.npy"), "tokens_per_rank": 1})
    rows = {row["placement"]: row for row in compare_placements(given, None)}
    assert rows["contiguous"]["rank"] == 8 and rows["round_robin"]["rank"] == 2


def test_offsets_are_one_number_a_list_or_drawn():
    rng = np.random.default_rng(0)
    assert start_offsets(2e-6, 3, rng).tolist() == [2e-6] * 3
    assert start_offsets((0.0, 1.0), 2, rng).tolist() == [0.0, 1.0]
    with pytest.raises(InputError, match="2 offsets for 3 ranks"):
        start_offsets((0.0, 1.0), 3, rng)


@pytest.mark.parametrize(
    ("offset", "mean", "median"),
    [
        (LognormalOffset(distribution="lognormal", sigma=0.5, scale="50us"), 50e-6 * np.exp(0.125), 50e-6),
        (UniformOffset(distribution="uniform", scale="50us"), 25e-6, 25e-6),
        (NormalOffset(distribution="normal", mean="500us", scale="50us"), 500e-6, 500e-6),
        (ExponentialOffset(distribution="exponential", scale="50us"), 50e-6, 50e-6 * np.log(2)),
    ],
    ids=lambda value: getattr(value, "distribution", ""),
)
def test_drawn_offsets_have_the_distribution_s_mean_and_median(offset, mean, median):
    drawn = start_offsets(offset, 20_000, np.random.default_rng(1))
    assert drawn.min() >= 0
    assert drawn.mean() == pytest.approx(mean, rel=0.03) and np.median(drawn) == pytest.approx(median, rel=0.03)


@pytest.mark.parametrize(
    ("held_by", "said"),
    [
        ({("link", "nic"): 3.0, ("compute", ""): 1.0}, "the NICs: 75 % of the layer time"),
        ({("link", "long-haul"): 3.0}, "long-haul: 75 %"),
        ({("compute", ""): 2.0, ("link", "nvlink"): 1.0}, "compute on the critical rank: 50 %"),
        ({("rank", "7"): 2.0}, "waiting for rank 7: 50 %"),
        ({("arrival", "3"): 2.0}, "late arrival of rank 3: 50 %"),
        ({("setup", ""): 2.0}, "set-up of the all-to-all"),
        ({}, "nothing"),
    ],
)
def test_the_bottleneck_is_what_held_the_critical_rank_longest(held_by, said):
    assert said in describe_bottleneck(held_by, 4.0)[0]


def test_a_cluster_with_a_thin_middle_is_held_back_by_it(tmp_path):
    topology = (Path(__file__).parents[2] / "topologies/two-nodes-explicit.yaml").read_text()
    thin = topology.replace(
        "source: tor-a, target: tor-b, bandwidth: 400Gb/s", "source: tor-a, target: tor-b, bandwidth: 4Gb/s"
    )
    assert thin != topology
    (tmp_path / "thin.yaml").write_text(thin)
    ids = np.tile(np.array([[20, 30]]), (256, 1))  # ranks 2 and 3, on the second node
    result = run_ids(tmp_path, ids, [256, 0, 0, 0], cluster={"topology": str(tmp_path / "thin.yaml")})
    assert result.summary["bottleneck"].startswith("long-haul:")
    assert 0.95 < result.summary["bottleneck_utilisation"] <= 1 + 1e-9
