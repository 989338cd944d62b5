"""What every kernel time obeys: floors, order, sources, one rank as many, refusals in one line."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.compute import SOURCES, KernelTable, gpus, load_gpu
from moesim.compute.curves import kernel_curve
from moesim.errors import InputError

V3 = {"hidden": 7168, "inter": 2048}
LITE = {"hidden": 2048, "inter": 1408}
loads = st.lists(st.integers(0, 20_000), min_size=1, max_size=10)
gpu_names = st.sampled_from(sorted(gpus()))
dtypes = st.sampled_from(["bf16", "fp8"])
sizes = st.sampled_from([V3, LITE, {"hidden": 100, "inter": 7}])


def models(gpu):
    """The table of a GPU without the measured rows that ship: what the fitted models say."""
    return KernelTable(load_gpu(gpu), published={})


def expert_time(gpu, dtype, tokens, size, **more):
    return models(gpu).time(f"grouped_gemm_{dtype}", tokens_per_expert=tokens, **size, **more)


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
def test_more_tokens_take_no_less_time_in_the_contiguous_layout(gpu, dtype, tokens, slot, more, size):
    # Its tiles are 128 rows whatever the loads; what is left is the choice of their width, worth 1 %. In the masked
    # layout the library picks the tile by the mean load, and a rank may get faster when that grows.
    before = expert_time(gpu, dtype, tokens, size, layout="contiguous").seconds
    grown = list(tokens)
    grown[slot % len(grown)] += more
    assert expert_time(gpu, dtype, grown, size, layout="contiguous").seconds >= before * 0.99


@settings(max_examples=40, deadline=None)
@given(gpu_names, dtypes, st.integers(1, 4000), st.integers(1, 32), sizes)
def test_four_times_the_tokens_of_even_loads_take_no_less_time_masked(gpu, dtype, rows, experts, size):
    one, four = (expert_time(gpu, dtype, [f * rows] * experts, size, layout="masked").seconds for f in (1, 4))
    assert four >= one * 0.99


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


def test_one_token_past_a_tile_costs_a_tile():
    for gpu in ("h800", "h200"):
        full, past, less = (expert_time(gpu, "fp8", [m] * 16, V3).seconds for m in (1024, 1025, 1023))
        assert past > full * 1.08  # 9 tiles of rows in place of 8
        assert full == pytest.approx(less, rel=0.002)  # the tiles are the same, SwiGLU is not


def test_skew_inside_a_rank_costs_little_but_a_fuller_rank_costs_in_proportion():
    for gpu in ("h800", "h100"):
        even = expert_time(gpu, "fp8", [4096] * 4, V3).seconds
        skewed = expert_time(gpu, "fp8", [8192, 4096, 2048, 2048], V3).seconds
        twice = expert_time(gpu, "fp8", [8192] * 4, V3).seconds
        assert even * 0.99 < skewed < even * 1.10
        assert twice == pytest.approx(2 * even, rel=0.03)


def test_at_few_tokens_the_experts_hit_cost_their_weights():
    one, eight = (expert_time("h800", "fp8", t, V3).seconds for t in ([8] + [0] * 7, [8] * 8))
    weights = 3 * 7168 * 2048
    assert 1 < (eight - one) / (7 * weights / 3.35e12) < 1.35


def test_a_rank_without_tokens_still_launches_three_kernels():
    for gpu in gpus():
        for tokens in ([0] * 4, []):
            time = expert_time(gpu, "fp8", tokens, V3)
            assert time.seconds == pytest.approx(7.5e-6) and time.source == "estimated"


def test_a_time_inside_the_fitted_range_carries_its_held_out_error():
    for gpu, bar in (("h800", 0.06), ("h100", 0.06), ("h200", 0.06)):
        for rows in (16, 512):
            time = expert_time(gpu, "fp8", [rows] * 8, V3)
            assert time.source == "fitted" and 0.005 < time.error <= bar
            assert "fitted on" in time.note and " @ " in time.note


def test_outside_the_fitted_range_a_time_is_extrapolated_and_says_why():
    for gpu, tokens, dtype, size, says in (
        ("h800", [100_000] * 4, "fp8", V3, "rows outside"),
        ("h800", [16] * 300, "fp8", V3, "experts outside"),
        ("h800", [512] * 4, "fp8", LITE, "n outside"),
        ("h100", [512] * 4, "fp8", LITE, "hidden outside"),
        ("h20", [512] * 4, "fp8", V3, "k outside"),
        ("h100", [512] * 4, "bf16", V3, "form of FP8 rows"),
        ("b200", [512] * 4, "fp8", V3, "form of the h200's rows at the b200's peaks"),
        ("b300", [512] * 4, "fp8", V3, "form of the h200's rows at the b300's peaks"),
        ("gb300", [512] * 4, "fp8", V3, "form of the h200's rows at the gb300's peaks"),
    ):
        time = expert_time(gpu, dtype, tokens, size)
        assert time.source == "extrapolated" and time.error is None
        assert says in time.note


def test_a_gpu_without_rows_takes_its_relatives_form_with_its_own_peaks():
    # Large GEMMs are compute-bound: the B200's tensor cores are 2.27 times the H200's.
    old, new = (expert_time(gpu, "fp8", [16384] * 8, V3).seconds for gpu in ("h200", "b200"))
    assert old / new == pytest.approx(4500 / 1979, rel=0.1)


def test_the_layout_follows_the_rows_per_expert_unless_the_caller_says():
    few, many = [16] * 8, [512] * 8
    for gpu in ("h800", "h200"):
        assert expert_time(gpu, "fp8", few, V3) == expert_time(gpu, "fp8", few, V3, layout="masked")
        assert expert_time(gpu, "fp8", many, V3) == expert_time(gpu, "fp8", many, V3, layout="contiguous")
        masked, contiguous = (expert_time(gpu, "fp8", many, V3, layout=x).seconds for x in ("masked", "contiguous"))
        assert masked != contiguous
        assert masked == pytest.approx(contiguous, rel=0.2)


def test_more_bandwidth_helps_small_batches_and_not_large_ones():
    small, large = ([expert_time(g, "fp8", t, V3).seconds for g in ("h100", "h200")] for t in ([4] * 8, [8192] * 8))
    assert small[0] / small[1] > 1.2
    assert 1 < large[0] / large[1] < 1.08


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
    alone = [table.time("grouped_gemm_fp8", tokens_per_expert=rank, **V3).seconds for rank in ranks]
    assert together.seconds == pytest.approx(alone, rel=1e-12)


def test_a_matrix_of_loads_gives_a_time_for_each_rank():
    table = models("h800")
    loads = np.array([[256] * 4, [0] * 4, [100, 200, 300, 9000]])
    times = table.grouped_gemm("fp8", loads, 7168, 2048)
    assert times.seconds.shape == (3,)
    assert times.seconds == pytest.approx([expert_time("h800", "fp8", rank, V3).seconds for rank in loads])
    assert set(times.shares) == {"fitted", "estimated"}
    same = table.times("grouped_gemm_fp8", tokens_per_expert=loads, **V3)
    assert (same.seconds == times.seconds).all()


def test_a_shared_expert_is_two_dense_gemms_and_swiglu():
    table = models("h800")
    time = table.time("dense_mlp_fp8", tokens=4096, **V3)
    gemms = [table.time("gemm_fp8", rows=[4096], n=n, k=k, layout="dense") for n, k in ((4096, 7168), (7168, 2048))]
    swiglu = 2.5e-6 + 4096 * 2048 * (5 + 1 / 32) / 3000e9
    assert time.seconds == pytest.approx(sum(gemm.seconds for gemm in gemms) + swiglu)
    assert time.source == "fitted" and time.error == gemms[0].error
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
    table = models("h800")
    many = table.time("mla_decode", batch=128, kv_len=4096)
    few = table.time("mla_decode", batch=128, kv_len=4096, heads=16)
    flops = 2 * 128 * 128 * 4096 * 1088
    assert 0.4 < flops / 989e12 / many.seconds < 0.8
    assert (many.source, few.source) == ("fitted", "extrapolated")
    assert 1.0 < few.seconds / (128 * 4096 * 576 * 2 / 3.35e12) < 1.5


def test_an_fp8_cache_is_cast_before_it_is_read():
    # The kernel that was timed casts the cache to BF16 first: slower than a BF16 cache, by bytes / 0.34 TB/s.
    for gpu in ("h100", "h200"):
        plain, cast = (
            KernelTable.load(gpu).time("mla_decode", batch=64, kv_len=16384, kv_dtype=d).seconds
            for d in ("bf16", "fp8")
        )
        assert cast - plain == pytest.approx(64 * 16384 * 576 / 0.35e12, rel=0.1)


def test_mla_prefill_halves_the_square_and_a_prefix_does_not():
    table = models("h800")
    whole = table.time("mla_prefill", tokens=8192, kv_len=8192)
    twice = table.time("mla_prefill", tokens=16384, kv_len=16384)
    assert twice.seconds / whole.seconds == pytest.approx(4, rel=0.03)
    assert whole.source == "fitted"
    split = table.time("mla_prefill", tokens=4096, kv_len=1024, sequences=4).seconds
    suffix = table.time("mla_prefill", tokens=1024, kv_len=4096)
    assert split < suffix.seconds < whole.seconds
    assert suffix.source == "extrapolated" and "other sizes" in suffix.note


def test_absorbed_prefill_costs_more_than_multi_head_form_and_takes_no_prefix():
    table = models("h200")
    absorbed = table.time("mla_prefill", tokens=4096, kv_len=4096, form="absorbed")
    heads = table.time("mla_prefill", tokens=4096, kv_len=4096)
    assert absorbed.source == "fitted" and heads.source == "extrapolated"
    # 1,088 multiplications for each pair of tokens and head in place of 320.
    assert absorbed.seconds / heads.seconds == pytest.approx(1088 / 320, rel=0.1)
    with pytest.raises(InputError, match="without a prefix"):
        table.time("mla_prefill", tokens=64, kv_len=128, form="absorbed")


def test_a_gpu_with_published_prefill_takes_its_own_rate():
    time = KernelTable.load("b200").time("mla_prefill", tokens=8192, kv_len=8192)
    assert time.seconds == pytest.approx(2.5e-6 + 8192 * 8193 * 128 * 320 / 1460e12, rel=1e-6)
    assert "b200" in time.note and time.source == "estimated"
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
        ("permute", {"rows": 0.5, "row_bytes": 2}, "expected a whole number from 0 to 1099511627776"),
        ("permute", {"rows": float("nan"), "row_bytes": 2}, "rows is nan"),
        ("permute", {"rows": "many", "row_bytes": 2}, "expected numbers"),
        ("gemm_fp8", {"rows": [4], "n": 0, "k": 2}, "n is 0"),
        ("gemm_fp8", {"rows": [4], "n": [1, 2], "k": 2}, "expected one size"),
        ("gemm_fp8", {"rows": [4], "n": 4, "k": 2, "layout": "sparse"}, "one of: grouped, masked"),
        ("grouped_gemm_fp8", {"tokens_per_expert": [4], **V3, "layout": "mask"}, "did you mean masked"),
        ("mla_prefill", {"tokens": 64, "kv_len": 64, "form": "latent"}, "one of: multi-head, absorbed"),
        ("mla_decode", {"batch": 1, "kv_len": 64, "kv_dtype": "int8"}, "unknown dtype"),
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
    for name, says in (("h80", "did you mean h800"), ("rtx4090", "one of: auto"), ("auto", "needs to know")):
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
    table = models("h800")
    rows = {row["kernel"]: row for row in table.describe()}
    assert set(rows) == set(table.kernels)
    assert rows["grouped_gemm_fp8"]["source"] == rows["mla_decode"]["source"] == "fitted"
    assert "rows 16 to 32768" in rows["dense_mlp_fp8"]["range"]
    assert rows["grouped_gemm_fp8"]["error"].endswith("% (median, held-out rows)")
    assert rows["grouped_gemm_bf16"] | {"range": ""} == {
        "kernel": "grouped_gemm_bf16", "source": "extrapolated", "range": "", "error": "unknown"
    }  # fmt: skip
    assert rows["router"]["source"] == "estimated"
    own = {row["kernel"]: row for row in KernelTable.load("h800").describe()}
    assert own["grouped_gemm_fp8"]["source"] == own["dense_mlp_fp8"]["source"] == "measured"
    assert own["grouped_gemm_fp8"]["range"] == "masked: 7168 x 2048; contiguous: 7168 x 2048"
    assert own["grouped_gemm_bf16"] == rows["grouped_gemm_bf16"]
    cited = " ".join(row["source"] for row in table.sources())
    assert "InferSim" in cited and "FlashMLA" in cited
    relatives = KernelTable.load("b200")
    assert all(row["source"] != "fitted" for row in relatives.describe())
    assert sum(", of the h" in row["what"] for row in relatives.sources()) == 6


@pytest.mark.parametrize("x", [None, np.array([3.0, 700.0])])
def test_a_curve_has_the_times_of_its_places_and_the_floor_of_each(x):
    table, gpu = KernelTable.load("h100"), load_gpu("h100")
    curve = kernel_curve(table, "permute", {"row_bytes": 7168}, x)
    if x is None:  # powers of two and three places between, rounded, up to 262,144 rows
        assert curve.x[:5].tolist() == [1, 2, 3, 4, 5] and curve.x[-1] == 2**18
        assert np.isin(2.0 ** np.arange(19), curve.x).all() and (np.diff(curve.x) > 0).all()
    else:
        assert curve.x is x
    assert curve.axis == "rows" and curve.sizes == {"row_bytes": 7168}
    for at, seconds, floor in zip(curve.x, curve.seconds, curve.floor, strict=True):
        assert seconds == table.time("permute", rows=int(at), row_bytes=7168).seconds
        # Each row is moved once at least: the other copy of it may lie in the cache.
        assert floor == pytest.approx(at * 7168 / gpu.hbm_bandwidth, rel=1e-12)
