"""What calibrate says of a user's rows: which constants moved and what the rows leave open."""

import math
import re
from dataclasses import replace

import pytest

from moesim.traffic import value_at, with_value
from moesim.traffic.constant_sets import find_set, read_set
from moesim.validate.fit_constants import Free, fit
from moesim.validate.published_row import TIME, Row, key
from moesim.validate.refit import refit_measured
from moesim.validate.row_simulation import constants_from, simulate_row
from moesim.validate.set_file import spell_set
from moesim.validate.told_apart import Moved, left_open, moved

# Fits and runs of many layers.
pytestmark = pytest.mark.jit


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


def opened(rows, free, begin):
    fitted = fit(begin, free, rows, simulate_row, constants_from, row_spread=0.04)
    return left_open(fitted, free, rows, 0.04)


def free_rates(begin):
    across = [("across", phase) for phase in begin.across]
    blocks = [*((phase,) for phase in begin.phases), *across]
    return [
        Free(tuple((*block, term) for block in blocks), spread=spread, kind=kind)
        for term, spread, kind in (
            ("nic_rate", 0.25, "nic"), ("nvlink_rate", 0.05, "nvlink"), ("setup_inter_node_s", 0.3, "setup"),
        )
    ]  # fmt: skip


def normal(begin, *settings):
    """Rows as the set itself gives them, of (phase, nodes, tokens)."""
    rows = []
    for op, nodes, tokens in settings:
        row = replace(nccl(8 * nodes, nodes, tokens), library="deepep-v1", op=op, sms=24)
        row = replace(row, dtype="fp8" if op == "dispatch" else "bf16")
        rows.append(replace(row, published=simulate_row(row, constants_from(begin, row))))
    return rows


@pytest.mark.jit
def test_rows_that_wait_for_the_nic_alone_say_so_and_name_the_row_that_shows_nvlink():
    begin = find_set("deepep-normal", "h100", "deepep-normal-h100").with_ports(450e9, 12.5e9)
    free = free_rates(begin)
    said = opened(normal(begin, ("dispatch", 4, 4096), ("combine", 4, 4096)), free, begin)
    (line,) = [line for line in said if "nvlink_rate" in line]
    assert line.startswith("no row answers to nvlink_rate")
    assert "8 ranks of one node" in line
    assert not any("nic_rate" in line for line in said)
    # with that row nothing of it is left to say
    rows = normal(begin, ("dispatch", 4, 4096), ("dispatch", 1, 4096), ("dispatch", 4, 64))
    assert [line.split(":")[0] for line in opened(rows, free, begin)] == ["combine was not measured"]


@pytest.mark.jit
def test_set_up_and_rate_of_one_size_are_not_told_apart_and_another_size_would_tell():
    """Of 128 bytes per rank and byte of the NIC half the time each: one size cannot tell them apart."""
    begin = find_set("nccl-direct", "h100", "nccl-direct-h100")
    places = tuple((phase, one.name) for phase in begin.phases for one in begin.phases[phase]["protocols"])
    free = [
        Free((("dispatch", "nic_rate"), ("combine", "nic_rate")), spread=0.25, kind="nic"),
        Free(tuple((*place, "setup_inter_node_s") for place in places), spread=0.3, kind="setup"),
    ]
    row = nccl(16, 2, 1 << 23)
    one = [replace(row, published=simulate_row(row, constants_from(begin, row)))]
    (line,) = [line for line in opened(one, free, begin) if "told apart" in line]
    assert "nic_rate" in line and "setup_inter_node" in line
    assert "set-up moves first" in line
    assert re.search(r"a row of alltoall, (524288|134217728) bytes, 16 ranks of 2 nodes would tell", line)
    other = replace(row, tokens=1 << 27)
    two = [*one, replace(other, published=simulate_row(other, constants_from(begin, other)))]
    assert not any("told apart" in line for line in opened(two, free, begin))


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
