import numpy as np
import pytest

from moesim.compute import load_gpu, roofline
from moesim.profile.budget import caches, call_seconds, chain_length, point_seconds, samples, total_seconds
from moesim.profile.grid import gpu_sizes, grid
from moesim.profile.points import Point
from moesim.profile.work import peaks_of, work

H100 = "NVIDIA H100 80GB HBM3"
L2 = 50 << 20


@pytest.mark.parametrize(
    ("device", "name"),
    [(H100, "h100"), ("NVIDIA H200", "h200"), ("NVIDIA H800", "h800"), ("NVIDIA H20", "h20"), ("NVIDIA B200", "b200")],
)
def test_peaks_are_those_of_the_gpus_that_ship(device, name):
    gpu = load_gpu(name)
    assert peaks_of(device) == (gpu.bf16_flops, gpu.fp8_flops, gpu.hbm_bandwidth)


@pytest.mark.parametrize(
    "device", ["NVIDIA H100 PCIe", "NVIDIA H100 NVL", "NVIDIA GH200 480GB", "NVIDIA A100-SXM4-80GB", "AMD EPYC", ""]
)
def test_other_devices_have_no_known_peaks(device):
    assert peaks_of(device) is None


def test_the_full_grid_fits_its_budget_on_an_h100_and_the_quick_one_about_a_minute():
    # Under the assumptions of moesim/profile/budget.py; nobody has measured it.
    peaks = peaks_of(H100)
    full, quick = (grid(gpu_sizes(True), quick=quick) for quick in (False, True))
    assert total_seconds(full, peaks, L2) < 0.75 * 480
    assert total_seconds(quick, peaks, L2) < 75
    coarse = [point for point in full if point.level == 0]
    assert total_seconds(coarse, peaks, L2) < 0.4 * 480


def test_a_point_costs_at_least_its_samples():
    point = Point("anchor_gemm", tokens=8192)
    peaks = peaks_of(H100)
    call = call_seconds(work(point), peaks)
    assert call == pytest.approx(2 * 8192**3 / (0.6 * 989e12) + 3e-6)
    assert point_seconds(point, peaks, L2) > samples(call) * call


def test_short_calls_are_chained_and_long_ones_sampled_less():
    assert [chain_length(us * 1e-6) for us in (1, 50, 300, 600, 5000)] == [20, 20, 3, 1, 1]
    assert [samples(s) for s in (1e-6, 1e-3, 1e-2)] == [50, 30, 7]


def test_hot_is_asked_for_only_where_the_cache_holds_it_twice():
    small, large = (Point("copy", dtype="", tokens=size) for size in (4096, 1 << 30))
    assert caches(small, L2) == ("cold", "hot")
    assert caches(large, L2) == ("cold",)
    assert caches(Point("launch", batch=1), L2) == ("hot",)


@pytest.mark.parametrize("dtype", ["bf16", "fp8"])
@pytest.mark.parametrize("shape", ["balanced", "zipf1.2", "one-hot"])
def test_gemm_work_agrees_with_the_roofline(dtype, shape):
    point = Point("grouped_gemm_up", "torch", dtype, "v3", 96, 8, 7168, 2048, load_shape=shape)
    theirs = roofline.gemm_work(point.loads(), 4096, 7168, dtype)
    assert work(point).flops == theirs.flops.sum()
    assert work(point).moved == theirs.moved.sum()


def test_an_mlp_is_its_two_gemms_and_what_lies_between():
    shape = {"tokens": 96, "experts_local": 8, "hidden": 7168, "inter": 2048, "load_shape": "balanced"}
    mlp, up, down = (work(Point(name, **shape)) for name in ("expert_mlp", "grouped_gemm_up", "grouped_gemm_down"))
    between = roofline.swiglu_work(96, 2048, "bf16").moved
    assert mlp.flops == up.flops + down.flops
    assert mlp.moved == up.moved + down.moved + between


def test_attention_work_agrees_with_the_roofline():
    decode = work(Point("mla_decode", "absorbed", batch=4, kv_len=4096, heads=128, tokens=1))
    theirs = roofline.mla_decode_work(4, 4096, 128, 1, 512, 64)
    assert decode.flops == theirs.flops
    scores = 4 * 2 * 4 * 128 * 4096  # written, read, written, read in bf16: the unfused form
    assert decode.moved == theirs.moved + scores
    prefill = work(Point("mla_prefill", "sdpa", batch=1, tokens=512, kv_len=512, heads=128))
    theirs = roofline.mla_prefill_work(512, 512, 128, 1, 192, 128)
    assert (prefill.flops, prefill.moved) == (theirs.flops, theirs.moved)


def test_rebuilding_the_cache_costs_more_flops_per_head_than_reading_it_once():
    sizes = {"batch": 4, "kv_len": 4096, "heads": 128, "tokens": 1}
    absorbed, unabsorbed = (work(Point("mla_decode", impl, **sizes)) for impl in ("absorbed", "unabsorbed"))
    assert unabsorbed.flops / absorbed.flops == pytest.approx((512 * 256 + 320) / 1088)


def test_moving_kernels_count_what_they_read_and_write():
    permute = work(Point("permute", tokens=10, topk=8, hidden=7168)).moved
    assert permute == pytest.approx(float(roofline.permute_work(80, 2 * 7168).moved), rel=1e-3)
    cast = work(Point("quantize_fp8", tokens=10, hidden=7168)).moved
    assert cast == float(roofline.quantize_work(10, 7168).moved)
    assert work(Point("swiglu", tokens=10, inter=2048)).moved == float(np.asarray(10 * 2048 * 6))
