"""Single rows end to end, against arithmetic done here, and the transcribed tables against the bars."""

import math
from dataclasses import replace

import pytest

from moesim.logs import MeasuredRow
from moesim.validate.arithmetic import computed
from moesim.validate.benches import bench_of, is_transfer
from moesim.validate.byte_accounting import account
from moesim.validate.ledger import read_ledger
from moesim.validate.measured_rows import as_row
from moesim.validate.published import published_rows, uccl_rows
from moesim.validate.published_row import NVL, RDMA, TIME, Row, key, rounding
from moesim.validate.row_simulation import constants_of, simulate_row


@pytest.fixture(scope="module")
def rows():
    return {row.name: row for row in published_rows()}


def made(**changes):
    known = {
        "table": "mine", "key": "", "library": "nccl", "release": "", "gpu": "h100", "source": "", "quantity": TIME,
        "published": 1.0,
    }  # fmt: skip
    return Row(**(known | changes))


def test_a_large_all_to_all_takes_set_up_plus_the_bytes_that_leave_a_gpu():
    row = made(op="alltoall", ranks=8, tokens=1 << 28)
    constants = constants_of(row)
    fast = next(one for one in constants.protocols if one.name == "fast")
    sent = (1 << 28) * 7 / 8
    expected = fast.setup_intra_node_s + sent / fast.nvlink_rate
    assert simulate_row(row) == pytest.approx(expected * 1e6, rel=1e-6)


def test_one_sided_dispatch_inside_a_domain_takes_set_up_plus_its_remote_copies():
    row = made(library="trtllm-one-sided", gpu="gb200", op="dispatch", ranks=8, tokens=2048, dtype="bf16")
    constants = constants_of(row)
    remote = 2048 * 7 * 14_336  # each token goes to all eight ranks, seven of them elsewhere
    expected = constants.setup_intra_node_s + remote / constants.nvlink_rate
    assert simulate_row(row) == pytest.approx(expected * 1e6, rel=1e-6)


def test_the_prepare_kernel_is_the_exchange_before_a_dispatch():
    row = made(library="trtllm-two-sided", gpu="gb200", op="prepare", ranks=32, tokens=1024)
    constants = constants_of(row)
    expected = constants.prepare_s + 2 * constants.prepare_rank_doubling_s + 1024 * constants.prepare_token_s
    assert simulate_row(row) == pytest.approx(expected * 1e6, rel=1e-9)


def test_a_logical_bandwidth_counts_copies_that_never_leave_the_node(rows):
    """Two nodes at 43 GB/s logical are 1,403 us for 60.3 MB (SOURCES of the published table)."""
    row = rows["deepep-v1-h800", "op=dispatch ranks=16"]
    bench = bench_of(row)
    counted = bench.copies.node_copies.sum() / 16 * 7392
    assert counted == pytest.approx(60.34e6, rel=2e-3)
    assert simulate_row(row) == pytest.approx(43, rel=0.01)
    inside = rows["deepep-v1-h800", "op=dispatch ranks=8"]
    assert (row.quantity, inside.quantity) == (RDMA, NVL)
    assert simulate_row(inside) == pytest.approx(153, rel=0.01)


@pytest.mark.jit
def measured(**changes):
    known = {
        "id": "1", "library": "deepep-v1", "op": "dispatch", "quantity": TIME, "value": 1400.0, "gpu_moesim": "h800",
        "ranks": 16, "nodes": 2, "tokens": 4096, "dtype": "fp8", "sms": 24,
    }  # fmt: skip
    return as_row(MeasuredRow(**(known | changes)), "mine.csv")


@pytest.mark.parametrize(
    ("changes", "notify"),
    [
        ({"date": "2025-06-26"}, True),
        ({"date": "2025-06-26", "op": "combine", "dtype": "bf16"}, True),
        ({"definition": "event time of the call incl. notify kernel"}, True),
        ({"date": "2025-07-14"}, False),
        ({"date": "2025"}, False),  # may be either
        ({"date": "2025-06-26", "ranks": 8, "nodes": 1}, False),  # always timed with events
        ({"date": "2025-06-26", "library": "uccl-ep"}, False),
    ],
)
def test_a_log_of_early_2025_timed_the_notify_kernel_too(changes, notify):
    row = measured(**changes)
    constants = constants_of(row)
    kernel = simulate_row(replace(row, measure="kernel"))
    across = constants.spanning(row.nodes)
    assert simulate_row(row) - kernel == pytest.approx(1e6 * across.notify_two_nodes_s * notify, abs=1e-9)
    assert not notify or simulate_row(row) - kernel > 30


def test_deepeps_dip_at_two_nodes_is_reproduced(rows):
    """43, 58 and 51 GB/s at two, four and eight nodes: NVLink binds at two."""
    found = [simulate_row(rows["deepep-v1-h800", f"op=dispatch ranks={ranks}"]) for ranks in (16, 32, 64)]
    assert found == pytest.approx([43, 58, 51], rel=0.03)


def test_published_sums_come_out(rows):
    for row in rows.values():
        if row.library == "arithmetic":
            assert computed(row) == pytest.approx(row.published, rel=5e-3)


def test_the_bound_on_time_per_token_is_bytes_over_bandwidth(rows):
    by_hand = 2 * 61 * (1 + 2) * 32 * 9 * 7000 / 50e9 * 1e3
    assert computed(rows["arithmetic", "quantity=tpot_bound case=ib-50GBps"]) == pytest.approx(by_hand, rel=1e-12)


def test_bytes_agree_with_every_row_that_prints_time_and_bandwidth():
    accounted = list(account([*published_rows(), *uccl_rows()]))
    assert len(accounted) == 100
    assert all(one.within for one in accounted)
    assert max(abs(one.error) for one in accounted) < 0.02


def test_rounding_is_half_a_unit_of_each_last_digit():
    assert rounding("50") == pytest.approx(0.01)
    assert rounding("50", "2.5") == pytest.approx(0.01 + 0.05 / 2.5)


def test_keys_leave_out_axes_that_are_not_there():
    assert key(op="dispatch", sms=None, ranks=8) == "op=dispatch ranks=8"


def test_every_row_of_the_tables_has_a_name_of_its_own_and_a_positive_value():
    rows = published_rows()
    assert len({row.name for row in rows}) == len(rows)
    assert all(row.published > 0 and math.isfinite(row.published) for row in rows)


SMALL = [
    row for row in published_rows() if is_transfer(row) and row.ranks <= 36 and row.table != "deepep-v1-h800-first"
]


@pytest.mark.jit
def test_rows_that_were_fitted_are_met_and_those_held_out_nearly_so():
    """Medians over the transcribed rows of up to 36 ranks; the bars are those of the whole ledger."""
    ledger = read_ledger()
    errors = {"fit": [], "held-out": []}
    for row in SMALL:
        if not ledger[row.name].suspect:
            errors[ledger[row.name].role].append(abs(simulate_row(row) / row.published - 1))
    for role, median, decile in (("fit", 0.03, 0.075), ("held-out", 0.04, 0.10)):
        found = sorted(errors[role])
        assert len(found) > 60
        assert found[len(found) // 2] <= median
        assert found[int(0.9 * len(found))] <= decile
