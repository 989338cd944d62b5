"""A user's own table: exact hits verbatim, log-log between, extrapolation said, mistakes refused by line."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.compute import KernelTable, load_measured
from moesim.compute.curves import measured_points
from moesim.errors import InputError, ResourceError

HEADER = "kernel,dtype,tokens_per_expert,experts,hidden,inter,seconds,gpu"
GOOD = "grouped_gemm,bf16,128,4,2048,1408,100e-6,h200"


def table_of(folder, *rows, header=HEADER, gpu=None):
    path = folder / "kernels.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return KernelTable.load(path, gpu)


def balanced(table, tokens, experts, dtype="bf16"):
    return table.time(f"grouped_gemm_{dtype}", tokens_per_expert=[tokens] * experts, hidden=2048, inter=1408)


@pytest.fixture
def grid(tmp_path):
    rows = [
        f"grouped_gemm,bf16,{tokens},{experts},2048,1408,{(20 + experts * (20 + tokens * 0.1)) * 1e-6},h200"
        for experts in (1, 4, 16)
        for tokens in (64, 128, 512, 2048)
    ]
    return table_of(tmp_path, "# measured on one GPU", *rows, "dense_mlp,bf16,512,1,2048,1408,70e-6,h200")


def test_a_row_that_was_measured_is_returned_as_it_stands(grid):
    time = balanced(grid, 512, 4)
    assert time.seconds == (20 + 4 * (20 + 512 * 0.1)) * 1e-6
    assert time.source == "measured" and time.shares == {"measured": 1.0}
    dense = grid.time("dense_mlp_bf16", tokens=512, hidden=2048, inter=1408)
    assert (dense.seconds, dense.source) == (70e-6, "measured")


def test_slots_without_tokens_do_not_count_as_experts(grid):
    time = grid.time("grouped_gemm_bf16", tokens_per_expert=[512, 0, 512, 0, 512, 512], hidden=2048, inter=1408)
    assert time.source == "measured"


def test_between_few_rows_the_time_is_log_log_linear_in_both_axes(tmp_path):
    # One inner point on each of two curves: too few to choose another curve by.
    rows = [
        f"grouped_gemm,bf16,{tokens},{experts},2048,1408,{(20 + experts * (20 + tokens * 0.1)) * 1e-6},h200"
        for experts in (4, 16)
        for tokens in (128, 512, 2048)
    ]
    few = table_of(tmp_path, *rows)
    t = {(m, e): balanced(few, m, e).seconds for m in (128, 512) for e in (4, 16)}
    middle = balanced(few, 256, 4)
    assert middle.seconds == pytest.approx(np.sqrt(t[128, 4] * t[512, 4]))
    assert middle.source == "interpolated" and 0 < middle.error < 0.3
    assert balanced(few, 128, 8).seconds == pytest.approx(np.sqrt(t[128, 4] * t[128, 16]))
    assert balanced(few, 256, 8).seconds == pytest.approx(np.prod(list(t.values())) ** 0.25)


def test_a_constant_plus_a_slope_is_found_out_and_hit_between_rows(grid):
    # Six inner points lie on straight lines, so lines it is: no error left, on both axes.
    time = balanced(grid, 300, 6)
    assert time.seconds == pytest.approx((20 + 6 * (20 + 300 * 0.1)) * 1e-6)
    assert time.source == "interpolated" and time.error == pytest.approx(0, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from([64, 128, 512, 2048]), min_size=4, max_size=4))
def test_uneven_loads_of_a_constant_plus_a_sum_over_experts_are_priced_exactly(tmp_path_factory, tokens):
    rows = [f"grouped_gemm,bf16,{m},4,2048,1408,{(20 + 4 * (20 + m * 0.1)) * 1e-6},h200" for m in (64, 128, 512, 2048)]
    table = table_of(tmp_path_factory.mktemp("tables"), *rows)
    time = table.time("grouped_gemm_bf16", tokens_per_expert=tokens, hidden=2048, inter=1408)
    assert time.seconds == pytest.approx((20 + sum(20 + m * 0.1 for m in tokens)) * 1e-6)


def floor(tokens):
    """Four experts of the grid on an H200, by hand: both GEMMs, FLOPs at 989 TFLOP/s or bytes at 4.8 TB/s."""
    total = 0.0
    for n, k in ((2816, 2048), (2048, 1408)):
        total += max(4 * 2 * tokens * n * k / 989e12, 4 * 2 * (n * k + tokens * (n + k)) / 4.8e12)
    return total


def test_past_the_ends_the_time_is_extrapolated_and_counted(grid):
    t512, t2048 = (balanced(grid, m, 4).seconds for m in (512, 2048))
    past = balanced(grid, 8192, 4)
    # The grid's best row is the one of 16 experts and 2,048 tokens each; 4 experts grow no cheaper than that.
    best = 4 * floor(2048) / balanced(grid, 2048, 16).seconds
    grown = t2048 + (floor(8192) - floor(2048)) / best
    assert past.seconds == pytest.approx(max(t2048 * t2048 / t512, grown))
    assert past.source == "extrapolated" and past.error is None and "1 ranks outside" in past.note
    assert balanced(grid, 8, 4).source == "extrapolated"
    assert balanced(grid, 8, 4).seconds < balanced(grid, 64, 4).seconds
    more = balanced(grid, 512, 32)
    assert more.source == "extrapolated"
    assert more.seconds == pytest.approx(2 * balanced(grid, 512, 16).seconds)


def test_one_row_scales_with_tokens_above_it_and_holds_below(tmp_path):
    table = table_of(tmp_path, GOOD)
    assert balanced(table, 256, 4).seconds == pytest.approx(200e-6)
    assert balanced(table, 64, 4).seconds == pytest.approx(100e-6)
    assert balanced(table, 256, 4).error is None


def test_an_extrapolated_time_never_beats_the_peaks(tmp_path):
    rows = [f"grouped_gemm,bf16,{m},4,2048,1408,{m * 0.09e-6},h200" for m in (4096, 8192)]
    table = table_of(tmp_path, *rows)  # as many microseconds as tokens: one token would take nothing
    assert balanced(table, 1, 4).seconds == table.expert_floor_s("bf16", [1] * 4, 2048, 1408)[0]
    weights = 4 * 3 * 2048 * 1408 * 2
    assert balanced(table, 1, 4).seconds == pytest.approx(weights / 4.8e12, rel=0.01)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 5000), min_size=1, max_size=6), st.integers(0, 5), st.integers(1, 2000))
def test_more_tokens_never_take_less_time_in_a_rising_table(tmp_path_factory, tokens, slot, more):
    rows = [
        f"grouped_gemm,fp8,{m},{e},2048,1408,{e * (5 + m * 0.06) * 1e-6},h200"
        for e in (1, 2, 8)
        for m in (32, 512, 2048)
    ]
    table = table_of(tmp_path_factory.mktemp("tables"), *rows)
    grown = list(tokens)
    grown[slot % len(grown)] += more
    one, two = (
        table.time("grouped_gemm_fp8", tokens_per_expert=t, hidden=2048, inter=1408).seconds for t in (tokens, grown)
    )
    assert two >= one * (1 - 1e-12)


def test_a_shape_that_is_not_in_the_table_costs_what_it_costs_without_one_and_that_is_said(grid):
    shape = {"tokens_per_expert": [128] * 4, "hidden": 7168, "inter": 2048}
    time = grid.time("grouped_gemm_bf16", **shape)
    without = KernelTable.load("h200").time("grouped_gemm_bf16", **shape)
    assert (time.seconds, time.source) == (without.seconds, without.source)
    assert "not in table" in time.note and "not in table" not in without.note
    assert "measured" not in balanced(grid, 128, 4, dtype="fp8").shares


def test_an_idle_rank_beside_busy_ones_launches_its_kernels(grid):
    times = grid.grouped_gemm("bf16", [[512] * 4, [0] * 4, [200] * 4], 2048, 1408)
    assert times.seconds[1] == pytest.approx(7.5e-6)
    assert set(times.shares) == {"measured", "interpolated", "estimated"}


def test_the_listing_shows_the_table_with_its_digest_and_error(grid):
    rows = {row["kernel"]: row for row in grid.describe()}
    assert rows["grouped_gemm_bf16"]["source"] == "measured"
    assert rows["grouped_gemm_bf16"]["error"].endswith("% (median, leave one out)")
    assert rows["dense_mlp_bf16"]["error"] == "unknown"
    assert any("13 rows, sha256" in row["source"] for row in grid.sources())
    assert grid.name.endswith("kernels.csv") and grid.gpu.name == "h200"


@pytest.mark.parametrize(("column", "value"), [("seconds", "1e-4"), ("time_us", "100"), ("time_ms", "0.1")])
def test_the_unit_is_in_the_name_of_the_time_column(tmp_path, column, value):
    header = HEADER.replace("seconds", column)
    table = table_of(tmp_path, f"grouped_gemm,bf16,128,4,2048,1408,{value},h200", header=header)
    assert balanced(table, 128, 4).seconds == pytest.approx(100e-6)


def test_a_table_without_a_gpu_column_takes_the_gpu_of_the_topology(tmp_path):
    header, row = HEADER[:-4], GOOD[:-5]
    assert table_of(tmp_path, row, header=header, gpu="h100").gpu.name == "h100"
    with pytest.raises(InputError, match="does not say on which GPU"):
        table_of(tmp_path, row, header=header)
    with pytest.raises(InputError, match="measured on h200, but h800 is asked for"):
        table_of(tmp_path, GOOD, gpu="h800")


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (GOOD, "duplicate row; the same shape is in line 2"),
        (GOOD.replace("100e-6", "-1"), "seconds is '-1'"),
        (GOOD.replace("100e-6", "0"), "expected a time above 0, at most 100 s"),
        (GOOD.replace("100e-6", "nan"), "seconds is 'nan'"),
        (GOOD.replace("100e-6", "inf"), "seconds is 'inf'"),
        (GOOD.replace("100e-6", "fast"), "seconds is 'fast'"),
        (GOOD.replace("128,4", "0,4"), "tokens_per_expert is '0'"),
        (GOOD.replace("128,4", "128,four"), "experts is 'four'"),
        (GOOD.replace("128,4", f"128,{10**30}"), "experts is '1000"),
        (GOOD.replace("bf16", "bf8"), "unknown dtype 'bf8'"),
        (GOOD.replace("grouped_gemm", "groupd_gemm"), "did you mean grouped_gemm"),
        (GOOD.replace("grouped_gemm", "dense_mlp"), "experts is 1 for dense_mlp"),
        (GOOD.replace("h200", "h20O"), "did you mean h20"),
        (GOOD.replace("h200", "h100"), "measured on h100, but h200"),
        (GOOD.replace("128,4", "128,4.5"), "experts is '4.5'; expected a whole number"),
        (GOOD + ",7", "9 fields where the header has 8"),
        (GOOD.replace("128,4", "128,5").replace("100e-6", "1e-9"), "faster than h200 can be"),
        (GOOD.replace("h200", '"h200'), "not a CSV file"),
    ],
)
def test_a_malformed_row_is_refused_with_its_line(tmp_path, row, says):
    with pytest.raises(InputError) as refused:
        table_of(tmp_path, GOOD, row)
    assert says in str(refused.value) and "\n" not in str(refused.value)
    assert "kernels.csv:3" in str(refused.value)


@pytest.mark.parametrize(
    ("header", "says"),
    [
        (HEADER.replace("kernel,", ""), "column 'kernel' is missing"),
        (HEADER.replace("hidden", "hiden"), "did you mean hidden"),
        (HEADER.replace("seconds", "time_ns"), "unknown unit in column 'time_ns'"),
        (HEADER.replace("seconds,", ""), "exactly one time column"),
        (HEADER + ",time_us", "exactly one time column"),
        (HEADER + ",gpu", "column 'gpu' appears twice"),
    ],
)
def test_a_malformed_header_is_refused_with_its_line(tmp_path, header, says):
    with pytest.raises(InputError) as refused:
        table_of(tmp_path, GOOD, header=header)
    assert says in str(refused.value) and "kernels.csv:1" in str(refused.value)


def test_a_column_that_a_kernel_needs_is_asked_for_once(tmp_path):
    row = GOOD.replace("128,4", "128")
    with pytest.raises(InputError) as refused:
        table_of(tmp_path, row, row, header=HEADER.replace("experts,", ""))
    assert "kernels.csv:1: column 'experts' is missing; grouped_gemm needs tokens_per_expert, experts" in str(
        refused.value
    )
    assert not refused.value.others


def test_all_mistakes_of_a_table_are_shown_at_once_but_not_without_end(tmp_path):
    bad = [GOOD.replace("128,4", f"{m},4").replace("100e-6", "-1") for m in range(1, 41)]
    with pytest.raises(InputError) as refused:
        table_of(tmp_path, bad[0], GOOD, bad[1])
    assert [e.where[-2:] for e in (refused.value, *refused.value.others)] == [":2", ":4"]
    with pytest.raises(InputError) as refused:
        table_of(tmp_path, *bad)
    assert len(str(refused.value).splitlines()) == 20


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no rows"),
        (HEADER.encode(), "no rows"),
        (b"\xff\xfe\x00k", "not a UTF-8"),
        (HEADER.encode() + b"\n\0", "NUL"),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path, content, says):
    path = tmp_path / "odd.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=says):
        load_measured(path, "h200")


def test_a_table_that_is_not_there_or_a_folder_is_refused(tmp_path):
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(InputError, match="no such kernel table"):
            KernelTable.load(path)


def test_a_huge_table_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "huge.csv"
    with path.open("wb") as file:
        file.truncate((64 << 20) + 1)
    with pytest.raises(InputError, match="larger than 64 MiB"):
        load_measured(path, "h200")


def test_a_table_that_cannot_be_read_is_the_environments_fault(tmp_path, monkeypatch):
    path = tmp_path / "kernels.csv"
    path.write_text(HEADER)

    def refuse(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "read_bytes", refuse)
    with pytest.raises(ResourceError, match="Permission denied"):
        load_measured(path, "h200")


SKEWED = "kernel,dtype,tokens_per_expert,experts,hidden,inter,load_shape,max_over_mean,cache,layout,seconds,gpu"


def test_fractions_of_a_token_are_loads_that_differ_by_one(tmp_path):
    table = table_of(tmp_path, GOOD, GOOD.replace("128,4", "1.5,4"), GOOD.replace("128,4", "1,4"))
    halves = table.time("grouped_gemm_bf16", tokens_per_expert=[1, 2, 2, 1], hidden=2048, inter=1408)
    assert (halves.seconds, halves.source) == (100e-6, "measured")
    uneven = table.time("grouped_gemm_bf16", tokens_per_expert=[1, 3, 1, 1], hidden=2048, inter=1408)
    assert uneven.source == "interpolated"


def skewed_table(folder):
    rows = [f"grouped_gemm,bf16,{m},4,2048,1408,,,,,{100e-6 * m / 128},h200" for m in (128, 256, 512)]
    rows += [
        f"grouped_gemm,bf16,{m},4,2048,1408,zipf1.2,2.0,,,{100e-6 * m / 128 * factor},h200"
        for m, factor in ((128, 1.1), (512, 1.3))
    ]
    return table_of(folder, *rows, header=SKEWED)


def test_skew_costs_what_skewed_rows_say(tmp_path):
    table = skewed_table(tmp_path)

    def time(loads):
        return table.time("grouped_gemm_bf16", tokens_per_expert=loads, hidden=2048, inter=1408)

    assert time([512] * 4).seconds == pytest.approx(400e-6)
    # A mean of 128 and of 512 with the largest at twice the mean: the rows themselves.
    assert time([256, 128, 64, 64]).seconds == pytest.approx(110e-6)
    assert time([1024, 512, 256, 256]).seconds == pytest.approx(520e-6)
    # Between them the factor is linear in the logs, 1.2 at 256 tokens; at sqrt(2) of skew half of it is left.
    assert time([512, 256, 128, 128]).seconds == pytest.approx(200e-6 * 1.2)
    half = time([362, 221, 221, 220])
    assert half.seconds == pytest.approx(200e-6 * 1.1, rel=1e-3) and half.source == "interpolated"
    # Past the largest skew measured its factor is held, and said to be outside.
    assert time([1021, 1, 1, 1]).seconds == pytest.approx(200e-6 * 1.2)
    assert time([1021, 1, 1, 1]).source == "extrapolated"


def test_a_hot_row_prices_nothing_and_may_beat_the_memory_but_not_the_tensor_cores(tmp_path):
    cold, hot = (
        "grouped_gemm,bf16,128,4,2048,1408,,,,,100e-6,h200",
        "grouped_gemm,bf16,128,4,2048,1408,,,hot,,12e-6,h200",
    )
    table = table_of(tmp_path, hot, cold, header=SKEWED)
    assert balanced(table, 128, 4).seconds == 100e-6
    (surface,) = table.measured.hot.values()
    assert surface.grid.exact(4, 128) == 12e-6
    with pytest.raises(InputError, match="faster than h200 can be"):
        table_of(tmp_path, cold.replace("100e-6", "12e-6"), header=SKEWED)  # 69 MB of weights: 14.4 us at 4.8 TB/s
    with pytest.raises(InputError, match="faster than h200 can be"):
        table_of(tmp_path, hot.replace("12e-6", "8e-6"), header=SKEWED)  # 8.86 GFLOP: 8.96 us at 989 TFLOP/s


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("grouped_gemm,bf16,128,4,2048,1408,zipf,,,,1e-3,h200", "max_over_mean is ''"),
        ("grouped_gemm,bf16,128,4,2048,1408,zipf,1,,,1e-3,h200", "an uneven load has more than 1"),
        ("dense_mlp,bf16,128,1,2048,1408,zipf,2,,,1e-3,h200", "only grouped_gemm has loads"),
        ("grouped_gemm,bf16,128,4,2048,1408,,,warm,,1e-3,h200", "unknown cache 'warm'"),
        ("grouped_gemm,bf16,128,4,2048,1408,,,,maskd,1e-3,h200", "did you mean masked"),
        ("grouped_gemm,bf16,128,4,2048,1408,,,,masked,1e-3,h200", "two layouts of one shape"),
    ],
)
def test_a_malformed_load_cache_or_layout_is_refused_with_its_line(tmp_path, row, says):
    first = "grouped_gemm,bf16,64,4,2048,1408,,,,contiguous,1e-3,h200"
    with pytest.raises(InputError) as refused:
        table_of(tmp_path, first, row, header=SKEWED)
    assert says in str(refused.value) and "kernels.csv:3" in str(refused.value)


def test_skewed_rows_without_balanced_ones_are_refused(tmp_path):
    with pytest.raises(InputError, match="skewed rows alone; add its balanced rows"):
        table_of(tmp_path, "grouped_gemm,bf16,128,4,2048,1408,zipf,2,,,1e-3,h200", header=SKEWED)


OTHERS = "kernel,dtype,tokens,rows,row_bytes,batch,kv_len,heads,hidden,n_experts,top_k,n,k,time_us,gpu"
OTHER_ROWS = [
    *(f"mla_decode,bf16,,,,{b},{kv},128,,,,,,{10 + b * kv / 400},h100" for b in (1, 4) for kv in (1024, 4096)),
    *(f"mla_prefill,bf16,,,,1,{s},128,,,,,,{20 + s * s / 4000},h100" for s in (512, 1024)),
    *(f"mla_prefill_absorbed,bf16,,,,1,{s},128,,,,,,{30 + s * s / 1500},h100" for s in (512, 1024)),
    *(f"router,bf16,{t},,,,,,7168,256,8,,,{8 + t / 40},h100" for t in (64, 256)),
    *(f"permute,{d},,{r},7168,,,,,,,,,{3 + r / 90},h100" for d, r in (("bf16", 512), ("fp8", 1024))),
    *(f"gemm,fp8,{m},,,,,,,,,4096,7168,{11 + m / 20},h100" for m in (64, 256)),
    *(f"quantize_fp8,fp8,{t},,,,,,7168,,,,,{3 + t / 40},h100" for t in (64, 256)),
]


@pytest.fixture
def others(tmp_path):
    return table_of(tmp_path, *OTHER_ROWS, header=OTHERS).measured


@pytest.mark.parametrize(
    ("kernel", "shape", "us"),
    [
        ("mla_decode", {"batch": 4, "kv_len": 4096}, 10 + 16384 / 400),
        ("mla_prefill", {"tokens": 1024, "kv_len": 1024}, 20 + 1024**2 / 4000),
        ("mla_prefill", {"tokens": 512, "kv_len": 512, "form": "absorbed"}, 30 + 512**2 / 1500),
        ("router", {"tokens": 64, "hidden": 7168, "n_experts": 256, "top_k": 8}, 8 + 64 / 40),
        ("permute", {"rows": 512, "row_bytes": 7168}, 3 + 512 / 90),
        ("gemm_fp8", {"rows": [256], "n": 4096, "k": 7168, "layout": "dense"}, 11 + 256 / 20),
        ("quantize_fp8", {"tokens": 256, "hidden": 7168}, 3 + 256 / 40),
    ],
)
def test_kernels_beside_the_expert_mlp_have_rows_too(others, kernel, shape, us):
    times = others.times(kernel, shape)
    assert times.seconds == pytest.approx([us * 1e-6]) and times.source == "measured"


def test_ranks_are_priced_one_by_one_and_what_lies_outside_is_counted(others):
    times = others.times("mla_decode", {"batch": np.array([0, 1, 2, 4]), "kv_len": np.array([1024, 1024, 2048, 65536])})
    launch, exact, between, past = times.seconds
    assert exact == pytest.approx((10 + 1024 / 400) * 1e-6) and 0 < launch < exact < between < past
    # Beyond the cache the last slope is held, or the floor's growth: at least the cache over 3.35 TB/s.
    assert past > 4 * 65536 * 576 * 2 / 3.35e12
    assert set(times.shares) == {"measured", "interpolated", "extrapolated", "estimated"}
    assert "1 ranks outside the table" in times.note


@pytest.mark.parametrize(
    ("kernel", "shape"),
    [
        ("mla_decode", {"batch": 4, "kv_len": 4096, "q_tokens": 2}),
        ("mla_decode", {"batch": 4, "kv_len": 4096, "heads": 64}),
        ("mla_prefill", {"tokens": 512, "kv_len": 1024}),
        ("gemm_fp8", {"rows": [64, 64], "n": 4096, "k": 7168, "layout": "dense"}),
        ("gemm_fp8", {"rows": [64], "n": 4096, "k": 7168}),
        ("unpermute", {"rows": 64, "row_bytes": 14336}),
        ("grouped_gemm_fp8", {"tokens_per_expert": [64], "hidden": 7168, "inter": 2048}),
    ],
)
def test_a_call_that_the_rows_are_not_of_gets_no_answer(others, kernel, shape):
    assert others.times(kernel, shape) is None


def test_the_measured_points_of_a_curve_are_the_rows_at_its_sizes(tmp_path, grid):
    (points,) = measured_points(
        grid.measured, "grouped_gemm_bf16", {"hidden": 2048, "inter": 1408, "experts": 4}
    ).values()
    assert points.x.tolist() == [64, 128, 512, 2048]
    assert points.y.tolist() == [(20 + 4 * (20 + tokens * 0.1)) * 1e-6 for tokens in (64, 128, 512, 2048)]
    with pytest.raises(InputError, match="experts 5") as error:
        measured_points(grid.measured, "grouped_gemm_bf16", {"hidden": 2048, "inter": 1408, "experts": 5})
    assert error.value.fix == "experts with rows: 1, 4, 16"
    rows = ("permute,bf16,64,14336,5e-6,h200", "permute,fp8,256,14336,9e-6,h200", "permute,bf16,64,7168,4e-6,h200")
    moved = table_of(tmp_path, *rows, header="kernel,dtype,rows,row_bytes,seconds,gpu").measured
    points = measured_points(moved, "permute", {"row_bytes": 14336})["cold"]
    assert (points.x.tolist(), points.y.tolist()) == ([64, 256], [5e-6, 9e-6])
