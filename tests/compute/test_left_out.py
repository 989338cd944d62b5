"""Leaving a series out: nothing of it may be left when its rows are priced."""

import pytest

from moesim.compute import load_gpu
from moesim.compute.left_out import _check, check_series, loads_of
from moesim.compute.table_format import Row

GPU = load_gpu("h200")


def mla(batch, kv_len, seconds):
    return Row("mla_decode", "bf16", (128,), batch, kv_len, seconds)


def test_a_row_is_priced_from_the_series_beside_it_and_not_from_its_own():
    # Time in proportion to batch and length, but for the middle batch, which is twice as slow: without its series the
    # neighbours say half of it, whatever its own rows say of each other.
    rows = [
        mla(batch, kv_len, batch * kv_len * (2e-8 if batch == 4 else 1e-8))
        for batch in (2, 4, 8)
        for kv_len in (1024, 2048, 4096, 8192)
    ]
    (middle,) = (line for line in _check(GPU, "attention", rows) if line.source == "interpolated")
    assert (middle.kernel, middle.rows, middle.series) == ("mla_decode bf16", 4, 1)
    assert middle.median == pytest.approx(0.5, rel=1e-3) and middle.p90 == pytest.approx(0.5, rel=1e-3)


def test_an_outer_series_and_a_kernel_of_one_axis_are_left_to_a_model():
    rows = [Row("gemm", "fp8", (4096, 7168), 1, m, 1e-4 + m * 1e-7) for m in (64, 256, 1024)]
    (line,) = _check(GPU, "dense", rows)
    assert (line.source, line.rows, line.series) == ("extrapolated", 3, 1)


def test_rows_worked_out_together_are_left_out_together():
    # Both numbers of experts come from one difference: one cannot vouch for the other.
    rows = [
        Row("grouped_gemm", "fp8", (7168, 2048), experts, m, experts * m * 8e-8, layout="contiguous", error=0.05)
        for experts in (2, 4, 8)
        for m in (4096, 8192, 16384)
    ]
    (line,) = (one for one in _check(GPU, "contiguous", rows) if one.source == "interpolated")
    assert (line.rows, line.series) == (3, 1)


def test_the_loads_of_a_row_have_its_mean_and_its_skew():
    for experts, mean, ratio in ((4, 100.0, 1.5), (8, 64.0, 3.0), (1, 7.0, 1.0), (4, 1.5, 1.0)):
        load = "drawn" if ratio > 1 else "balanced"
        loads = loads_of(Row("expert_gemm", "fp8", (8, 8), experts, mean, 1.0, load, ratio))
        assert len(loads) == experts and sum(loads) == pytest.approx(mean * experts, rel=0.02)
        assert max(loads) / mean == pytest.approx(ratio, rel=0.05) or mean < 2


def test_series_of_the_shipped_tables_are_met_by_those_beside_them():
    lines = check_series(["h200"])
    between = {line.kernel: line for line in lines if line.source == "interpolated"}
    assert {"grouped_gemm fp8 masked", "mla_decode bf16", "attn_decode bf16"} <= set(between)
    for line in between.values():
        assert line.median < 0.05 and line.p90 < 0.15
    assert not any(line.source == "measured" for line in lines)
