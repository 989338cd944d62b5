"""Calibrating on four rows: which are chosen, what they determine, and how far the rest of the source is off then."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from moesim.traffic.calibration import find_set
from moesim.validate.fit import value_at
from moesim.validate.ledger import FIT, read_ledger
from moesim.validate.published import published_rows
from moesim.validate.refit import refit_measured
from moesim.validate.rows import TIME, Row, key
from moesim.validate.simulate import constants_from, simulate_row
from moesim.validate.unseen import corners, unseen


def made(op, ranks, tokens, library="trtllm-one-sided", gpu="gb200", published=1.0, nodes=1):
    return Row(
        table="mine", key=key(op=op, ranks=ranks, tokens=tokens), library=library, release="", gpu=gpu, source="",
        quantity=TIME, published=published, op=op, ranks=ranks, nodes=nodes, tokens=tokens,
    )  # fmt: skip


def test_the_corners_of_ranks_and_messages_are_measured_whatever_the_times_are():
    rows = [made("dispatch", ranks, tokens) for ranks, tokens in product((16, 8, 32), (128, 4, 1024))]
    rows.remove(made("dispatch", 32, 1024))
    wanted = {(8, 4), (8, 1024), (32, 4), (32, 128)}
    assert {(row.ranks, row.tokens) for row in corners(rows)} == wanted
    rng = np.random.default_rng(1)
    measured = [replace(row, published=float(rng.exponential())) for row in rows]
    assert {(row.ranks, row.tokens) for row in corners(measured)} == wanted


def test_each_phase_has_its_corners_and_a_row_is_measured_once():
    rows = [made(op, ranks, 128) for op in ("dispatch", "combine") for ranks in (8, 16, 32)]
    assert [(row.op, row.ranks) for row in corners(rows)] == [
        ("dispatch", 8), ("dispatch", 32), ("combine", 8), ("combine", 32),
    ]  # fmt: skip
    assert corners([]) == []


@pytest.mark.jit
def test_a_set_up_that_grows_with_the_ranks_is_found_from_four_rows_though_the_start_has_none():
    """T = 15 us + 3 us log2(R / 8) + bytes / 500 GB/s; then 16 ranks, which were not measured, are met as well."""
    start = find_set("nvl-one-sided", "gb200", "nvl-one-sided-gb200")
    place = ("dispatch", "setup_rank_doubling_s")
    assert value_at(start, place) == 0

    def truth(ranks, tokens):
        sent = tokens * min(8, ranks) * (ranks - 1) / ranks * 14_336
        return 15 + 3 * np.log2(ranks / 8) + sent / 500e3

    rows = [
        made("dispatch", ranks, tokens, published=truth(ranks, tokens)) for ranks in (8, 32) for tokens in (512, 2048)
    ]
    found = refit_measured(rows, start, "gb200", []).constants
    assert simulate_row(made("dispatch", 16, 1024), constants_from(found, rows[0])) == pytest.approx(
        truth(16, 1024), rel=0.02
    )
    # combine was not measured: its rate moves along, how it grows does not
    assert value_at(found, ("combine", "setup_rank_doubling_s")) == 0
    factor = value_at(found, ("dispatch", "nvlink_rate")) / value_at(start, ("dispatch", "nvlink_rate"))
    combine = min(factor, 1) * value_at(start, ("combine", "nvlink_rate"))
    assert value_at(found, ("combine", "nvlink_rate")) == pytest.approx(combine, rel=1e-3)


def test_what_the_rows_say_nothing_of_stays_and_one_row_is_enough_to_calibrate():
    start = find_set("deepep-low-latency", "h100", "deepep-low-latency-h100")
    row = made("dispatch", 8, 256, "deepep-ll", "h100")
    row = replace(row, published=1.3 * simulate_row(row, constants_from(start, row)))
    found = refit_measured([row], start, "h100", [])
    assert abs(found.fitted.errors[0]) < 0.01
    for phase in ("dispatch", "combine"):
        assert value_at(found.constants, (phase, "nic_rate")) == pytest.approx(value_at(start, (phase, "nic_rate")))
        for term in ("setup_inter_node_s", "setup_node_doubling_s"):
            assert value_at(found.constants, (phase, term)) == pytest.approx(value_at(start, (phase, term)), rel=1e-4)
    # phases that begin apart stay apart: one factor for both
    for term in ("nvlink_rate", "setup_intra_node_s"):
        factors = [
            value_at(found.constants, (phase, term)) / value_at(start, (phase, term))
            for phase in ("dispatch", "combine")
        ]
        assert factors[0] == pytest.approx(factors[1], rel=1e-3)
        assert factors[0] != pytest.approx(1, rel=0.01)


@pytest.mark.jit
def test_a_source_of_eight_rows_is_met_better_after_four_of_them():
    ledger = read_ledger()
    (found,) = unseen([row for row in published_rows() if row.table == "deepep-ll-h100-cx7"], ledger)
    assert all(ledger["deepep-ll-h100-cx7", row].role == FIT for row in found.measured)
    assert (len(found.measured), len(found.before), len(found.after)) == (4, 4, 4)
    before, after = (np.median(np.abs(errors)) for errors in (found.before, found.after))
    assert after <= 0.04 < before


@pytest.mark.slow
def test_one_sided_dispatch_of_another_source_is_inside_the_bars_after_four_rows():
    rows = [row for row in published_rows() if row.table == "nvl72-one-sided-dispatch"]
    (found,) = unseen(rows, read_ledger())
    off = np.abs(found.after)
    assert (len(found.measured), len(off)) == (4, 39)
    assert np.median(off) <= 0.04
    assert np.quantile(off, 0.9) <= 0.10
