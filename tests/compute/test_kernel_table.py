"""What every kernel time obeys: floors, order, sources, one rank as many, refusals in one line."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.compute import SOURCES, KernelTable, gpus, load_gpu
from moesim.errors import InputError
from tests.reference.expert_time import roofline_gemm_seconds

V3 = {"hidden": 7168, "inter": 2048}
LITE = {"hidden": 2048, "inter": 1408}
loads = st.lists(st.integers(0, 20_000), min_size=1, max_size=10)
gpu_names = st.sampled_from(sorted(gpus()))
dtypes = st.sampled_from(["bf16", "fp8"])
sizes = st.sampled_from([V3, LITE, {"hidden": 100, "inter": 7}])


def expert_time(gpu, dtype, tokens, size):
    return KernelTable.load(gpu).time(f"grouped_gemm_{dtype}", tokens_per_expert=tokens, **size)


@settings(max_examples=80, deadline=None)
@given(gpu_names, dtypes, loads, sizes)
def test_nothing_is_faster_than_the_peaks_allow(gpu, dtype, tokens, size):
    peak, bandwidth = load_gpu(gpu).flops(dtype), load_gpu(gpu).hbm_bandwidth
    b = {"bf16": 2, "fp8": 1}[dtype]
    floor = 0.0
    for n, k in ((2 * size["inter"], size["hidden"]), (size["hidden"], size["inter"])):
        flops = sum(2 * m * n * k for m in tokens)
        moved = sum((m > 0) * n * k * b + m * (k * b + 2 * n) for m in tokens)
        floor += max(flops / peak, moved / bandwidth)
    time = expert_time(gpu, dtype, tokens, size)
    assert time.seconds >= floor > -1
    assert KernelTable.load(gpu).expert_floor_s(dtype, tokens, **size)[0] == pytest.approx(floor)


@settings(max_examples=80, deadline=None)
@given(gpu_names, dtypes, loads, st.integers(0, 9), st.integers(1, 3000), sizes)
def test_more_tokens_never_take_less_time(gpu, dtype, tokens, slot, more, size):
    before = expert_time(gpu, dtype, tokens, size).seconds
    grown = list(tokens)
    grown[slot % len(grown)] += more
    assert expert_time(gpu, dtype, grown, size).seconds >= before * (1 - 1e-12)


@settings(max_examples=40, deadline=None)
@given(gpu_names, dtypes, loads, sizes)
def test_the_shares_of_the_sources_sum_to_one_and_name_the_largest(gpu, dtype, tokens, size):
    time = expert_time(gpu, dtype, tokens, size)
    assert sum(time.shares.values()) == pytest.approx(1)
    assert set(time.shares) <= set(SOURCES)
    assert time.shares[time.source] == max(time.shares.values())


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 20_000), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_the_order_of_the_slots_does_not_matter(tokens, random):
    shuffled = list(tokens)
    random.shuffle(shuffled)
    one, two = (expert_time("h800", "fp8", t, V3).seconds for t in (tokens, shuffled))
    assert one == pytest.approx(two, rel=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 5000), min_size=1, max_size=6), st.sampled_from(["h100", "h20"]), dtypes)
def test_the_roofline_of_a_gemm_is_its_formula(rows, gpu, dtype):
    peaks = load_gpu(gpu)
    expected = roofline_gemm_seconds(
        rows, 2816, 2048, peaks.flops(dtype), peaks.hbm_bandwidth, {"bf16": 2, "fp8": 1}[dtype]
    )
    time = KernelTable.load(gpu).time(f"gemm_{dtype}", rows=rows, n=2816, k=2048)
    assert time.seconds == pytest.approx(expected, rel=1e-12)
    assert time.source == "estimated" and time.error is None


def test_one_token_past_a_tile_costs_a_tile():
    even, uneven = (expert_time("h800", "fp8", t, V3).seconds for t in ([1024, 1024], [1025, 1023]))
    assert uneven > even * 1.03
    full, one_less = (expert_time("h800", "fp8", t, V3).seconds for t in ([1024, 1024], [1023, 1023]))
    assert full == pytest.approx(one_less, rel=0.002)  # the tiles are the same, SwiGLU is not


def test_skew_inside_a_rank_costs_little_but_a_fuller_rank_costs_in_proportion():
    even = expert_time("h800", "fp8", [4096] * 4, V3).seconds
    skewed = expert_time("h800", "fp8", [8192, 4096, 2048, 2048], V3).seconds
    twice = expert_time("h800", "fp8", [8192] * 4, V3).seconds
    assert skewed == pytest.approx(even, rel=0.05)
    assert twice == pytest.approx(2 * even, rel=0.02)


def test_at_few_tokens_the_experts_hit_cost_their_weights():
    one, eight = (expert_time("h800", "fp8", t, V3).seconds for t in ([8] + [0] * 7, [1] * 8))
    weights = 3 * 7168 * 2048
    assert 1 < (eight - one) / (7 * weights / 3.35e12) < 1.2


def test_a_rank_without_tokens_still_launches_three_kernels():
    for gpu in gpus():
        assert expert_time(gpu, "fp8", [0] * 4, V3).seconds == pytest.approx(7.5e-6)
        assert expert_time(gpu, "fp8", [], V3).seconds == pytest.approx(7.5e-6)


def test_loads_outside_the_published_rows_are_called_extrapolated():
    small = expert_time("h800", "fp8", [3] * 32, V3)
    large = expert_time("h800", "fp8", [10_000] * 4, V3)
    assert small.source == large.source == "extrapolated"
    assert small.error is None and "outside 64 to 8192 rows" in small.note
    assert expert_time("h800", "fp8", [100, 5000, 700, 0], V3).source == "interpolated"


def test_past_the_last_row_its_efficiency_is_held():
    at, past = (KernelTable.load("h800").time("gemm_fp8", rows=[m], n=4096, k=7168).seconds for m in (8192, 65536))
    assert past / at == pytest.approx(8, rel=0.02)


def test_only_the_h800_in_fp8_with_published_shapes_is_more_than_an_estimate():
    for gpu in gpus():
        for dtype in ("bf16", "fp8"):
            for size in (V3, LITE):
                source = expert_time(gpu, dtype, [512] * 4, size).source
                assert source == ("interpolated" if (gpu, dtype, size) == ("h800", "fp8", V3) else "estimated")


def test_an_estimate_on_the_h800_in_fp8_carries_the_roofline_error_and_others_none():
    assert 0 < expert_time("h800", "fp8", [512] * 4, LITE).error < 0.05
    assert expert_time("h800", "bf16", [512] * 4, LITE).error is None
    assert expert_time("h200", "fp8", [512] * 4, LITE).error is None


def test_more_bandwidth_helps_small_batches_and_not_large_ones():
    small, large = ([expert_time(g, "bf16", t, V3).seconds for g in ("h100", "h200")] for t in ([4] * 8, [8192] * 8))
    assert small[0] / small[1] > 1.2
    assert large[0] / large[1] < 1.03


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 9000), min_size=1, max_size=5), min_size=1, max_size=6),
    st.sampled_from(["h800", "h200"]),
)
def test_many_ranks_at_once_are_each_rank_alone(ranks, gpu):
    table = KernelTable.load(gpu)
    flat = [m for rank in ranks for m in rank]
    ptr = np.cumsum([0] + [len(rank) for rank in ranks])
    together = table.grouped_gemm("fp8", flat, 7168, 2048, rank_ptr=ptr)
    alone = [expert_time(gpu, "fp8", rank, V3).seconds for rank in ranks]
    assert together.seconds == pytest.approx(alone, rel=1e-12)


def test_a_matrix_of_loads_gives_a_time_for_each_rank():
    table = KernelTable.load("h800")
    loads = np.array([[256] * 4, [0] * 4, [100, 200, 300, 9000]])
    times = table.grouped_gemm("fp8", loads, 7168, 2048)
    assert times.seconds.shape == (3,)
    assert times.seconds == pytest.approx([expert_time("h800", "fp8", rank, V3).seconds for rank in loads])
    assert set(times.shares) == {"measured", "interpolated", "extrapolated", "estimated"}
    same = table.times("grouped_gemm_fp8", tokens_per_expert=loads, **V3)
    assert (same.seconds == times.seconds).all()


def test_a_shared_expert_takes_the_published_dense_row():
    table = KernelTable.load("h800")
    time = table.time("dense_mlp_fp8", tokens=4096, **V3)
    gemms = 2 * 4096 * 4096 * 7168 / 1410e12 + 2 * 4096 * 7168 * 2048 / 1168e12
    swiglu = 2.5e-6 + 4096 * 2048 * (5 + 1 / 32) / 3000e9
    assert time.seconds == pytest.approx(gemms + swiglu)
    many = table.times("dense_mlp_fp8", tokens=[4096, 100, 0], **V3)
    assert many.seconds[0] == pytest.approx(time.seconds)
    assert many.seconds[2] == pytest.approx(7.5e-6)


def test_permuting_moves_each_row_in_and_out():
    time = KernelTable.load("h800").time("permute", rows=100_000, row_bytes=7168)
    assert time.seconds == pytest.approx(2.5e-6 + 100_000 * (2 * 7168 + 4) / 3000e9)
    assert time.source == "estimated" and time.error is None


def test_unpermuting_reads_top_k_rows_for_each_one_written():
    table = KernelTable.load("h800")
    time = table.time("unpermute", rows=4096, row_bytes=14336, top_k=8)
    assert time.seconds == pytest.approx(2.5e-6 + 4096 * (9 * 14336 + 64) / 3000e9)
    fraction = table.time("unpermute", rows=4096, row_bytes=14336, top_k=1.3).seconds
    assert table.time("unpermute", rows=4096, row_bytes=14336).seconds < fraction < time.seconds


def test_quantising_reads_two_bytes_and_writes_one_and_a_scale():
    time = KernelTable.load("h800").time("quantize_fp8", tokens=4096, hidden=7168)
    assert time.seconds == pytest.approx(2.5e-6 + 4096 * 7168 * (3 + 4 / 128) / 3000e9)


def test_the_gate_reads_the_tokens_and_its_weights():
    table = KernelTable.load("h800")
    router = {"hidden": 7168, "n_experts": 256, "top_k": 8}
    moved = 4096 * 7168 * 2 + 256 * 7168 * 2 + 2 * 4096 * 256 * 4 + 4096 * 8 * 8
    assert table.time("router", tokens=4096, **router).seconds == pytest.approx(5e-6 + moved / 3000e9)
    assert table.time("router", tokens=0, **router).seconds == pytest.approx(5e-6)
    assert table.times("router", tokens=[0, 10, 4096], **router).seconds.shape == (3,)


def test_mla_decode_is_compute_bound_at_128_heads_and_memory_bound_at_16():
    table = KernelTable.load("h800")
    many = table.time("mla_decode", batch=128, kv_len=4096).seconds
    few = table.time("mla_decode", batch=128, kv_len=4096, heads=16).seconds
    assert many == pytest.approx(2.5e-6 + 2 * 128 * 128 * 4096 * 1088 / 660e12, rel=1e-6)
    cache = 128 * 4096 * 576 * 2
    assert few == pytest.approx(2.5e-6 + cache / 3000e9, rel=0.02)


def test_mla_prefill_halves_the_square_and_a_prefix_does_not():
    table = KernelTable.load("h800")
    whole = table.time("mla_prefill", tokens=4096, kv_len=4096).seconds
    pairs = 4096 * 4097 / 2
    assert whole == pytest.approx(2.5e-6 + 2 * pairs * 128 * 320 / 640e12, rel=1e-6)
    split = table.time("mla_prefill", tokens=4096, kv_len=1024, sequences=4).seconds
    suffix = table.time("mla_prefill", tokens=1024, kv_len=4096).seconds
    assert split < suffix < whole


def test_a_gpu_with_published_prefill_takes_its_own_rate():
    time = KernelTable.load("b200").time("mla_prefill", tokens=8192, kv_len=8192)
    assert time.seconds == pytest.approx(2.5e-6 + 8192 * 8193 * 128 * 320 / 1460e12, rel=1e-6)
    assert "b200" in time.note
    assert "h800" in KernelTable.load("h20").time("mla_prefill", tokens=64, kv_len=64).note


@pytest.mark.parametrize(
    ("name", "shape", "says"),
    [
        ("grouped_gem_fp8", {}, "did you mean grouped_gemm_fp8"),
        ("attention", {}, "one of:"),
        ("permute", {"rows": 4, "row_byte": 2}, "did you mean row_bytes"),
        ("permute", {"rows": 4}, "needs 'row_bytes'"),
        ("permute", {"rows": [4, 5], "row_bytes": 2}, "use times()"),
        ("permute", {"rows": -1, "row_bytes": 2}, "rows is -1"),
        ("permute", {"rows": 0.5, "row_bytes": 2}, "expected a whole number of at least 0"),
        ("permute", {"rows": float("nan"), "row_bytes": 2}, "rows is nan"),
        ("permute", {"rows": "many", "row_bytes": 2}, "expected numbers"),
        ("gemm_fp8", {"rows": [4], "n": 0, "k": 2}, "n is 0"),
        ("gemm_fp8", {"rows": [4], "n": [1, 2], "k": 2}, "expected one size"),
        ("gemm_fp8", {"rows": [4], "n": 4, "k": 2, "layout": "sparse"}, "one of: grouped, dense"),
        ("gemm_fp8", {"rows": [[[4]]], "n": 4, "k": 2}, "expected [slots] or [ranks, slots]"),
        ("grouped_gemm_bf16", {"tokens_per_expert": [float("inf")], **V3}, "is inf"),
        ("grouped_gemm_bf16", {"tokens_per_expert": np.zeros((0, 4)), **V3}, "no rank"),
        ("mla_prefill", {"tokens": 64, "kv_len": 32}, "kv_len is shorter"),
    ],
)
def test_a_wrong_shape_is_refused_in_one_line(name, shape, says):
    with pytest.raises(InputError) as refused:
        KernelTable.load("h800").time(name, **shape)
    assert says in str(refused.value) and "\n" not in str(refused.value)


def test_slots_that_do_not_fit_their_ranks_are_refused():
    table = KernelTable.load("h800")
    for ptr in ([0, 2], [1, 3], [0, 2, 1, 3], [0], [[0, 3]]):
        with pytest.raises(InputError, match="rank_ptr"):
            table.grouped_gemm("fp8", [1, 2, 3], 7168, 2048, rank_ptr=ptr)
    with pytest.raises(InputError, match="did you mean fp8"):
        table.grouped_gemm("fp8_e4m3", [1, 2, 3], 7168, 2048)


def test_tables_are_found_by_the_gpu_that_a_topology_names():
    assert KernelTable.load("auto", gpu="H20").gpu.name == "h20"
    assert KernelTable.load("H200").name == "h200"
    for name, says in (("h80", "did you mean h800"), ("mi300x", "one of: auto"), ("auto", "needs to know")):
        with pytest.raises(InputError, match=says):
            KernelTable.load(name)
    with pytest.raises(InputError, match="unknown GPU 'tpu'"):
        KernelTable.load("auto", gpu="tpu")


def test_every_gpu_has_twice_the_rate_in_fp8_and_says_where_its_figures_come_from():
    for gpu in gpus().values():
        assert gpu.fp8_flops / gpu.bf16_flops == pytest.approx(2, rel=0.001)
        assert 1e12 < gpu.hbm_bandwidth < 1e13 and gpu.memory_bytes > 7e10
        assert len(gpu.source) > 20


def test_the_listing_names_every_kernel_and_every_source():
    table = KernelTable.load("h800")
    rows = {row["kernel"]: row for row in table.describe()}
    assert set(rows) == set(table.kernels)
    assert rows["grouped_gemm_fp8"]["source"] == "interpolated"
    assert "64 to 8192 rows" in rows["dense_mlp_fp8"]["range"]
    assert rows["grouped_gemm_fp8"]["error"].endswith("% (median, leave one out)")
    assert rows["grouped_gemm_bf16"]["source"] == "estimated"
    cited = " ".join(row["source"] for row in table.sources())
    assert "DeepGEMM" in cited and "FlashMLA" in cited
    assert len(KernelTable.load("h20").sources()) == len(table.sources()) - 1
