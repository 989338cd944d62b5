"""What calibrate says of a user's rows: which constants moved and what the rows leave open."""

import math
from dataclasses import replace

import pytest

from moesim.traffic import value_at, with_value
from moesim.traffic.constant_sets import find_set, read_set
from moesim.validate.calibration_words import Moved, left_open, moved
from moesim.validate.fit_constants import Free
from moesim.validate.published_row import TIME, Row, key
from moesim.validate.refit import refit_measured
from moesim.validate.row_simulation import constants_from, simulate_row
from moesim.validate.set_file import spell_set


def nccl(ranks, nodes, size, published=1.0):
    return Row(
        table="mine", key=key(ranks=ranks, bytes=size), library="nccl", release="", gpu="h100", source="",
        quantity=TIME, published=published, op="alltoall", ranks=ranks, nodes=nodes, tokens=size,
    )  # fmt: skip


@pytest.mark.jit
def test_set_ups_across_nodes_that_protocols_share_are_found_together():
    """150 us + bytes over the NIC: with one protocol's set-up alone nothing would change, another would be taken."""
    start = find_set("nccl-direct", "h100", "nccl-direct-h100")
    sizes = [1 << 16, 1 << 20, 1 << 24, 1 << 28]
    rows = [nccl(16, 2, size, 150 + size / 2 / 25e9 * 1e6) for size in sizes]
    found = refit_measured(rows, start, "h100", [])
    assert abs(found.fitted.errors).max() < 0.05
    names = [one.name for one in start.phases["dispatch"]["protocols"]]
    setups = [value_at(found.constants, ("dispatch", name, "setup_inter_node_s")) for name in names]
    assert setups == pytest.approx([150e-6] * 3, rel=0.02)
    assert value_at(found.constants, ("combine", "nic_rate")) == pytest.approx(25e9, rel=0.02)
    assert [(one.constant, one.of) for one in found.moved] == [
        ("nic_rate", "dispatch, combine"), ("setup_inter_node", "ll, slow, fast"),
    ]  # fmt: skip


def test_what_moved_is_named_once_with_its_units():
    before = find_set("deepep-normal", "h100", "deepep-normal-h100")
    places = (("dispatch", "setup_intra_node_s"), ("across", "dispatch", "nic_rate"), ("combine", "floor_s"))
    after = before
    for place, factor in zip(places, (2, 0.5, 1), strict=True):
        after = with_value(after, place, factor * value_at(before, place))
    assert moved(before, after, [Free((place,)) for place in places]) == [
        Moved("setup_intra_node", "dispatch", "32.015us", "64.03us"),
        Moved("nic_rate", "dispatch across nodes", "47.965GB/s", "23.983GB/s"),
    ]
    grown = with_value(before, ("combine", "floor_s"), 5e-6)
    assert moved(before, grown, [Free((("combine", "floor_s"),))]) == [Moved("floor", "combine", "-", "5us")]


def test_what_rows_leave_open_is_said():
    one = [nccl(8, 1, 1 << 20)]
    assert [line.split(":")[0] for line in left_open(one, "that-set")] == [
        "nothing was measured across nodes", "only 8 ranks were measured", "messages of about one size were measured",
        "few rows",
    ]  # fmt: skip
    assert all("that-set" in line for line in left_open(one, "that-set")[:2])
    many = [nccl(8 * nodes, nodes, 1 << shift) for nodes in (1, 2, 4) for shift in (12, 16, 20, 24)]
    assert left_open(many, "that-set") == []
    assert left_open([row for row in many if row.nodes > 1], "that-set")[0].startswith("nothing was measured inside")


def test_a_phase_that_was_not_measured_is_said_and_one_domain_has_no_other_nodes():
    rows = [replace(nccl(ranks, 1, 64), library="trtllm-one-sided", op="combine") for ranks in (8, 16)]
    said = left_open(rows, "that-set")
    assert said[0].startswith("dispatch was not measured")
    assert not any("across nodes" in line for line in said)
    assert left_open([*rows, replace(rows[0], op="dispatch")], "that-set")[0].startswith("messages of about one size")


def test_a_time_that_a_fit_let_go_to_nothing_is_written_as_nothing(tmp_path):
    start = find_set("nvl-one-sided", "gb200", "nvl-one-sided-gb200")
    gone = with_value(start, ("combine", "floor_rank_doubling_s"), 8e-18)
    path = tmp_path / "gone.yaml"
    path.write_text(spell_set(gone))
    assert "e-" not in path.read_text().split("combine:")[-1]
    assert value_at(read_set(path), ("combine", "floor_rank_doubling_s")) == 0


@pytest.mark.jit
def test_a_floor_for_few_ranks_is_found_where_the_start_has_none():
    """14 us at two ranks, 20 at 16: the set's own floor grows with the ranks, one of few ranks stands by itself."""
    start = find_set("nvl-one-sided", "gb200", "nvl-one-sided-gb200")
    assert value_at(start, ("dispatch", "floor_few_ranks_s")) == 0
    template = replace(nccl(2, 1, 8), library="trtllm-one-sided", gpu="gb200", op="dispatch")
    rows = [replace(template, ranks=ranks, published=us) for ranks, us in ((2, 14.0), (16, 20.0))]
    found = refit_measured(rows, start, "gb200", []).constants
    made = constants_from(found, template)
    assert [made.least_s(ranks) * 1e6 for ranks in (2, 4)] == pytest.approx([14, 14], rel=0.02)
    assert simulate_row(replace(template, ranks=16), made) == pytest.approx(20, rel=0.02)
    assert math.isclose(made.least_s(2), made.floor_few_ranks_s)
