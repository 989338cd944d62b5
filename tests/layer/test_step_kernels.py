"""Kernels of an inference step against published times of a trace, and sums written down by hand."""

import numpy as np
import pytest

from moesim.compute import free_constants, load_gpu, most_flops, release_factor, step_constants
from moesim.layer import KernelLedger, build_parts, layer_kernels, open_workload, route_layer
from moesim.scenario import load_scenario
from moesim.workload import micro_batches

DECODE = {
    "cluster": {"topology": "hgx-h800"},
    "workload": {"synthetic": {"kind": "uniform"}, "requests": 128, "context": 4096, "draft_tokens": 1},
    "alltoall": {"algorithm": "deepep-low-latency"},
    "compute": {"library_date": "2025-03-01"},
    "schedule": {"phase": "decode", "overlap": "two-batch"},
}
PREFILL = {
    "cluster": {"topology": "hgx-h800"},
    "workload": {"synthetic": {"kind": "uniform"}, "tokens_per_rank": 8192, "sequence_length": 4096},
    "alltoall": {"sms": 24},
    "schedule": {"phase": "prefill", "overlap": "two-batch"},
}


def kernels_of(scenario, *overrides):
    """Microseconds of the first rank by stage and kernel, of the first micro-batch; several of one name in a list."""
    parts = build_parts(load_scenario(scenario, overrides))
    batch = micro_batches(open_workload(parts).batch(0), parts.inference.micro_batches)[0]
    routed = route_layer(parts, batch, batch.layers[0], None)
    slot_rank = np.asarray(routed.placement.slot_rank)
    found = layer_kernels(parts, routed.tokens, routed.slot_tokens, slot_rank, routed.totals, KernelLedger())
    return {
        stage: [(kernel.kernel, 1e6 * float(kernel.seconds[0])) for kernel in kernels]
        for stage, kernels in found.kernels.items()
    }, {stage: 1e6 * float(seconds[0]) for stage, seconds in found.seconds.items()}


@pytest.fixture(scope="module")
def decode():
    return kernels_of(DECODE)


def named(stage, name):
    return [seconds for kernel, seconds in stage if kernel == name]


def test_a_decode_micro_batch_of_deepseek_takes_what_its_trace_shows(decode):
    """64 requests of 4,096 tokens with two query tokens each: DeepSeek's own trace, as one reader tabulated it."""
    kernels, _ = decode
    down, up = named(kernels["projections"], "gemm_fp8")
    assert down == pytest.approx(13, rel=0.10)
    assert named(kernels["projections"], "absorb queries") == [pytest.approx(16, rel=0.10)]
    assert named(kernels["attention"], "mla_decode") == [pytest.approx(255, rel=0.02)]
    assert named(kernels["attention"], "gemm_fp8") == [pytest.approx(50, rel=0.15)]
    assert sum(seconds for _, seconds in kernels["gate"]) == pytest.approx(19, rel=0.02)
    assert up > down


def test_several_query_tokens_reach_at_most_what_flashmla_publishes():
    h800 = load_gpu("h800")
    assert most_flops(h800, "2025-03-01") == 580e12
    assert most_flops(h800, None) == 660e12
    assert most_flops(load_gpu("h20"), None) == pytest.approx(660e12 * 148 / 989.5, rel=0.01)
    kernels, _ = kernels_of(DECODE, "compute.library_date=null")
    work = 2 * 64 * 2 * 128 * 4096 * (2 * 512 + 64)
    assert named(kernels["attention"], "mla_decode") == [pytest.approx(1e6 * work / 660e12, rel=1e-9)]


def test_a_prefill_of_two_micro_batches_has_its_grids_made_for_the_sms_that_communication_leaves():
    in_turn = ("schedule.overlap=none", "workload.tokens_per_rank=4096")
    shared, alone = (kernels_of(PREFILL, *one)[0] for one in ((), in_turn))
    stretch = 132 / (132 - 24)
    for stage, name in (("attention", "mla_prefill"), ("attention", "gemm_fp8"), ("experts", "grouped_gemm_fp8")):
        ratio = named(shared[stage], name)[0] / named(alone[stage], name)[0]
        assert ratio == pytest.approx(stretch, rel=0.05 if stage == "experts" else 1e-9), name
    small = "norms, casts, RoPE"
    assert named(shared["projections"], small) == named(alone["projections"], small)


def test_small_kernels_of_mla_are_so_many_bytes_at_a_share_of_the_memory():
    kernels, _ = kernels_of(PREFILL)
    per_token = 22 * 7168 + 10 * (1536 + 512) + 4 * 128 * 64 + 2 * 128 * (2 * 128 + 64) + 7 * 128 * 128
    want = 1e6 * 4096 * per_token / (load_gpu("h800").hbm_bandwidth * step_constants().attention_memory_share)
    assert named(kernels["projections"], "norms, casts, RoPE") == [pytest.approx(want)]


def test_an_early_release_slows_gemms_of_a_prefill_and_nothing_of_a_decode():
    assert release_factor("gemm_fp8", "2025-03-01") == 1.15
    assert release_factor("gemm_fp8", "2025-04-18") == release_factor("mla_prefill", "2025-03-01") == 1.0
    now, then = kernels_of(PREFILL)[0], kernels_of(PREFILL, "compute.library_date=2025-03-01")[0]
    assert named(then["attention"], "gemm_fp8")[0] == pytest.approx(1.15 * named(now["attention"], "gemm_fp8")[0])
    early, late = (named(one["experts"], "grouped_gemm_fp8")[0] for one in (then, now))
    assert early == pytest.approx(1.04 * late)
    assert named(then["attention"], "mla_prefill") == named(now["attention"], "mla_prefill")


def test_single_batch_overlap_leaves_a_third_of_the_experts_to_the_down_gemm():
    whole, cut = (kernels_of(DECODE, f"schedule.overlap={overlap}")[1] for overlap in ("hooks", "single-batch"))
    assert cut["experts"] == pytest.approx(2 * cut["experts_down"])
    assert cut["experts"] + cut["experts_down"] == pytest.approx(whole["experts"])


def test_dense_layers_are_attention_and_a_wide_ffn(decode):
    kernels, seconds = decode
    ffn = sum(named(kernels["dense_layers"], "dense_mlp_fp8"))
    gaps = sum(named(kernels[stage], "launch gaps")[0] for stage in ("projections", "attention"))
    attention = seconds["projections"] + seconds["attention"] - gaps
    assert seconds["dense_layers"] == pytest.approx(3 * attention + ffn)


@pytest.mark.parametrize("model", ["qwen3-30b-a3b", "mixtral-8x7b", "kimi-k2"])
@pytest.mark.parametrize("base", [DECODE, PREFILL])
def test_every_kind_of_attention_has_a_price(model, base):
    scenario = {**base, "model": {"preset": model}}
    _, seconds = kernels_of(scenario)
    assert seconds["attention"] > 0 and seconds["projections"] > 0 and all(np.isfinite(list(seconds.values())))


def test_the_value_of_a_constant_lies_in_its_range_and_has_a_source():
    for name, constant in free_constants().items():
        assert constant.low <= constant.value <= constant.high and constant.source, name


def test_micro_batches_share_every_ranks_tokens():
    parts = build_parts(load_scenario(DECODE, ["workload.requests=7"]))
    batch = open_workload(parts).batch(0)
    first, second = micro_batches(batch, 2)
    layer = batch.layers[0]
    for rank in range(8):
        pieces = [part.logits[layer][part.token_index[part.token_rank == rank]] for part in (first, second)]
        own = batch.logits[layer][batch.token_index[batch.token_rank == rank]]
        np.testing.assert_array_equal(np.concatenate(pieces), own)
        assert [len(piece) for piece in pieces] == [7, 7]
    assert micro_batches(batch, 1) == (batch,)


def test_attention_in_fp8_takes_its_published_share_of_bf16_and_nothing_else_changes(decode):
    kernels, _ = decode
    in_fp8, _ = kernels_of(DECODE, "compute.attention_dtype=fp8")
    (before,), (after,) = (named(found["attention"], "mla_decode") for found in (kernels, in_fp8))
    assert before / after == pytest.approx(1.7)
    others = [
        {stage: [k for k in of if k[0] != "mla_decode"] for stage, of in found.items()} for found in (kernels, in_fp8)
    ]
    assert others[0] == others[1]
