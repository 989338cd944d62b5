"""DeepGEMM's published rows: reproduced, a smooth curve between them, the roofline fitted on them."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.compute import KernelTable, load_gpu
from moesim.compute.published import attention_rates, deepgemm_curves, deepgemm_rows, roofline_error
from moesim.compute.roofline import gemm_expert_seconds, gemm_memory_seconds, gemm_work
from tests.reference.expert_time import published_gemm_seconds

H800 = load_gpu("h800")
TABLE = KernelTable.load("h800")
UP, DOWN = (4096, 7168), (7168, 2048)


def test_all_28_rows_of_the_readme_are_there():
    rows = deepgemm_rows()
    assert len(rows) == 28
    assert sum(row.layout == "dense" for row in rows) == 18
    assert max(row.teraflops for row in rows) == 1520


def test_a_published_time_follows_from_its_rate():
    # 4 experts x 256 rows x 4096 x 7168 at 932 TFLOP/s: 64.52 us, as derived by hand.
    row = next(row for row in deepgemm_rows() if (row.groups, row.rows, row.n) == (4, 256, 4096))
    assert row.seconds == pytest.approx(64.52e-6, rel=1e-4)


def test_no_published_row_beats_the_peaks():
    for row in deepgemm_rows():
        work = gemm_work(np.array([row.rows] * row.groups), row.n, row.k, "fp8")
        floor = max(work.flops.sum() / H800.fp8_flops, work.moved.sum() / H800.hbm_bandwidth)
        assert row.seconds >= floor


def test_published_bandwidths_count_the_bytes_that_the_roofline_counts():
    # GB/s as printed = (weights + inputs + outputs) / time, for the masked rows with 4 experts.
    for n, k, printed in ((4096, 7168, 2064e9), (7168, 2048, 2047e9)):
        row = next(r for r in deepgemm_rows() if (r.groups, r.rows, r.n, r.k) == (4, 256, n, k))
        moved = gemm_work(np.array([256] * 4), n, k, "fp8").moved.sum()
        assert moved / row.seconds == pytest.approx(printed, rel=0.002)


@pytest.mark.parametrize("row", [r for r in deepgemm_rows() if (r.n, r.k) in (UP, DOWN)], ids=str)
def test_a_published_row_is_reproduced_verbatim_and_called_measured(row):
    dense = row.layout == "dense"
    time = TABLE.time(
        "gemm_fp8", rows=[row.rows] * row.groups, n=row.n, k=row.k, layout="dense" if dense else "grouped"
    )
    assert time.seconds == pytest.approx(row.seconds, rel=1e-12)
    assert time.source == "measured"
    assert time.shares == {"measured": pytest.approx(1.0)}


def test_deepseek_v3_prefill_of_one_rank_is_the_published_rows_plus_swiglu():
    time = TABLE.time("grouped_gemm_fp8", tokens_per_expert=[8192] * 4, hidden=7168, inter=2048)
    gemms = sum(r.seconds for r in deepgemm_rows() if r.layout == "contiguous" and r.groups == 4)
    rows = 4 * 8192
    swiglu = 2.5e-6 + rows * 2048 * (4 + 1 + 4 / 128) / (3000e9)
    assert time.seconds == pytest.approx(gemms + swiglu, rel=1e-9)
    assert time.source == "measured" and time.error is None
    assert time.shares["measured"] == pytest.approx(gemms / time.seconds)
    assert "DeepGEMM" in time.note and "SwiGLU" in time.note


def test_between_two_rows_the_time_of_an_expert_is_interpolated_log_log():
    # 2048 rows lie half-way between 1024 and 4096 on a log axis.
    launch = 2.5e-6
    low = 48.7662e-6 - launch
    high = (1429.53e-6 - launch) / 8
    time = TABLE.time("gemm_fp8", rows=[2048] * 3, n=4096, k=7168)
    assert time.seconds == pytest.approx(launch + 3 * np.sqrt(low * high), rel=1e-4)
    assert time.source == "interpolated"
    assert 0 < time.error < 0.15


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 8192), min_size=1, max_size=8), st.sampled_from([UP, DOWN]))
def test_uneven_loads_cost_the_sum_of_their_own_tiles(loads, shape):
    n, k = shape
    best = {}
    for row in sorted(deepgemm_rows(), key=lambda row: (row.layout != "dense", row.groups)):
        if (row.n, row.k) == shape:
            memory = float(gemm_memory_seconds(H800, row.rows, n, k, "fp8"))
            best[row.rows] = (row.rows, row.groups, row.seconds, memory)
    expected = published_gemm_seconds(loads, best.values())
    work = gemm_work(np.array(loads), n, k, "fp8")
    floor = max(work.flops.sum() / H800.fp8_flops, work.moved.sum() / H800.hbm_bandwidth)
    assert TABLE.time("gemm_fp8", rows=loads, n=n, k=k).seconds == pytest.approx(max(expected, floor), rel=1e-9)


def test_the_time_of_an_expert_is_one_smooth_rising_curve_over_all_layouts():
    for curve in deepgemm_curves(H800).values():
        assert (np.diff(curve.seconds) > 0).all()
        assert curve.error < 0.12
        efficiency = curve.rows * 2.0 * curve.n * curve.k / curve.seconds / H800.fp8_flops
        assert (efficiency < 0.75).all() and efficiency[-1] > 0.6


def test_the_roofline_misses_the_published_rows_by_a_few_percent():
    assert 0.01 < roofline_error(H800) < 0.05


def test_the_roofline_constants_are_the_best_of_their_neighbourhood_on_the_published_rows():
    rows = deepgemm_rows()
    given = np.array([row.seconds for row in rows])

    def miss(launch, peak, bandwidth, overhead):
        total = 0.0
        for row, seconds in zip(rows, given, strict=True):
            tiles = 2.0 * -(-row.rows // 128) * 128 * -(-row.n // 128) * 128
            compute = tiles * (row.k + overhead) / (H800.fp8_flops * peak)
            memory = float(gemm_work(row.rows, row.n, row.k, "fp8").moved) / (H800.hbm_bandwidth * bandwidth)
            total += abs(np.log((launch + row.groups * np.hypot(compute, memory)) / seconds))
        return total / len(rows)

    chosen = miss(2.5e-6, 0.72, 0.96, 300)
    others = itertools.product((1.5e-6, 3.5e-6), (0.66, 0.78), (0.9, 1.0), (150, 450))
    assert chosen < 0.066
    assert all(miss(*other) > chosen for other in others)
    assert float(gemm_expert_seconds(H800, 4096, 4096, 7168, "fp8")) == pytest.approx(178e-6, rel=0.01)


def test_attention_rates_are_those_of_flashmla():
    rates = attention_rates()
    assert (rates["mla_decode", "h800"].teraflops, rates["mla_decode", "h800"].gigabytes_per_s) == (660, 3000)
    assert rates["mla_prefill", "h800"].gigabytes_per_s is None
    assert rates["mla_prefill", "b200"].teraflops == 1460
