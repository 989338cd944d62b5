"""Whole inference steps of a small model: rates from their definitions, layers beyond the clock, what adds up."""

import functools

import pytest

import moesim
from moesim.errors import InputError

SMALL = {
    "cluster": {"topology": "hgx-h800"},
    "model": {"preset": "deepseek-v3", "n_experts": 32, "hidden": 1024, "expert_hidden": 256, "layers": 23},
    "routing": {"kind": "v3", "top_k": 4, "groups": 8, "top_groups": 4},
    "workload": {"synthetic": {"kind": "uniform"}},
}
PREFILL = ("workload.tokens_per_rank=512", "workload.sequence_length=256")
DECODE = (
    "schedule.phase=decode",
    "workload.requests=32",
    "workload.context=1024",
    "alltoall.algorithm=deepep-low-latency",
)


@functools.cache
def summary(*overrides):
    return run(*overrides).summary


@functools.cache
def run(*overrides):
    return moesim.simulate(moesim.load_scenario(SMALL, list(overrides)))


@pytest.mark.parametrize("overlap", ["none", "two-batch", "single-batch", "hooks"])
def test_layers_beyond_the_clock_take_the_period_of_those_on_it(overlap):
    given = (*DECODE, f"schedule.overlap={overlap}")
    few, all_of_them = summary(*given), summary(*given, "workload.layers_simulated=20")
    assert (few["layers"], all_of_them["layers"], few["model_layers"]) == (6, 20, 23)
    assert few["step_time_s"] == pytest.approx(all_of_them["step_time_s"], rel=1e-3)
    assert few["communication_hidden_share"] == pytest.approx(all_of_them["communication_hidden_share"], abs=0.01)


@pytest.mark.parametrize("overlap", ["none", "two-batch"])
def test_two_layers_on_the_clock_show_the_period_and_one_does_not(overlap):
    given = (*DECODE, f"schedule.overlap={overlap}")
    two = summary(*given, "workload.layers_simulated=2")
    assert two["step_time_s"] == pytest.approx(summary(*given)["step_time_s"], rel=0.02)
    with pytest.raises(InputError, match="between two layers"):
        moesim.load_scenario(SMALL, [*given, "workload.layers_simulated=1"])


def test_a_model_of_one_layer_of_experts_is_that_layer():
    found = run(*DECODE, "model.layers=4")
    assert (found.summary["layers"], found.summary["model_layers"]) == (1, 4)
    assert found.summary["step_time_s"] < summary(*DECODE, "model.layers=5")["step_time_s"]


def test_rates_are_tokens_over_the_time_of_the_step():
    found = summary(*PREFILL, "schedule.overlap=two-batch")
    assert found["tokens_per_second"] == pytest.approx(8 * 512 / found["step_time_s"])
    assert found["tokens_per_second_per_gpu"] * 8 == pytest.approx(found["tokens_per_second"])
    assert found["tokens_per_second_per_node"] == pytest.approx(found["tokens_per_second"])
    assert found["tpot_s"] is None


def test_time_per_output_token_and_rate_give_the_requests():
    found = summary(*DECODE)
    assert found["tpot_s"] * found["tokens_per_second"] == pytest.approx(32 * 8)
    assert found["tpot_s"] == pytest.approx(found["step_time_s"])


def test_accepted_drafts_are_tokens_of_the_same_step():
    drafts = (*DECODE, "workload.draft_tokens=1")
    none, half, every = (summary(*drafts, f"workload.acceptance={share}") for share in (0.0, 0.5, 1.0))
    assert none["step_time_s"] == half["step_time_s"] == every["step_time_s"]
    assert half["tokens_per_second"] == pytest.approx(1.5 * none["tokens_per_second"])
    assert every["tpot_s"] == pytest.approx(none["tpot_s"] / 2)
    assert none["model_layers"] == summary(*DECODE)["model_layers"] + 1


def test_without_overlap_no_communication_but_beside_the_shared_expert_is_hidden():
    in_turn, overlapped = (summary(*PREFILL, f"schedule.overlap={name}") for name in ("none", "two-batch"))
    assert in_turn["communication_hidden_share"] < overlapped["communication_hidden_share"]


def test_other_time_is_in_every_moe_layer():
    without, with_it = summary(*DECODE), summary(*DECODE, "schedule.other_time=50us")
    assert with_it["step_time_s"] - without["step_time_s"] == pytest.approx(20 * 50e-6, rel=1e-6)


def test_longer_contexts_and_mixed_ones_by_their_mean():
    short, long, mixed = (summary(*DECODE, f"workload.context={c}") for c in ("1024", "16384", "[512, 1536]"))
    assert long["step_time_s"] > short["step_time_s"] == mixed["step_time_s"]


def test_the_parts_of_a_step_add_up_and_name_what_is_computed():
    result = run(*DECODE, "schedule.overlap=two-batch")
    terms = result.explanation["terms"]
    parts = {term["name"]: term["value"] for term in terms["step_time_s"]}
    assert sum(parts.values()) == pytest.approx(result.summary["step_time_s"], rel=1e-12)
    assert parts["host"] == pytest.approx(1e-3)
    assert {"attention", "projections", "dense_layers", "head", "send_dispatch"} <= parts.keys()
    rate = terms["tokens_per_second"]
    assert rate[0]["value"] / rate[1]["value"] == pytest.approx(result.summary["tokens_per_second"])
    spans = result.tables["spans"]
    assert {"attention", "receive_combine"} <= set(spans["phase"]) and set(spans["micro_batch"]) == {0, 1}


def test_ranks_without_tokens_take_part():
    found = summary("workload.tokens_per_rank=[0, 512, 256, 512, 512, 512, 512, 512]", PREFILL[1])
    assert found["step_time_s"] > 0


@pytest.mark.parametrize(
    ("overrides", "kind", "cache"),
    [
        ((), "mla", 576), (("model.kv_lora_rank=256",), "mla", 320), (("model.attention=gqa",), "gqa", 2 * 8 * 128),
        (("model.attention=gqa", "model.heads=64", "model.kv_heads=4"), "gqa", 2 * 4 * 128),
        (("model.attention=mqa",), "mqa", 2 * 128), (("model.attention=mha", "model.heads=64"), "mha", 2 * 64 * 128),
    ],
)  # fmt: skip
def test_another_attention_is_an_axis_and_its_cache_is_that_of_its_sizes(overrides, kind, cache):
    found = run(*DECODE, *overrides).explanation["attention"]
    own = [row for row in found["kinds"] if row["own"]]
    assert {row["kind"].split(",")[0] for row in own} == {kind}
    assert {row["kv_cache_bytes_per_token"] for row in own} == {2.0 * cache * 23}
    assert found["memory_bytes"]["kv_cache"] == pytest.approx(32 * 1024 * 2.0 * cache * 24, rel=1e-12)  # one is MTP's
    assert found["load"] == {"context": 1024, "requests": 32, "new": 1}


def test_a_longer_context_more_requests_and_more_heads_each_take_longer():
    base = summary(*DECODE)["step_time_s"]
    longer = ("workload.context=8192", "workload.requests=64", "model.heads=256", "model.attention=mha")
    assert all(summary(*DECODE, one)["step_time_s"] > base for one in longer)
    assert summary(*DECODE, "compute.attention_dtype=fp8")["step_time_s"] < base


def test_a_step_whose_requests_do_not_fit_says_how_many_would():
    (note,) = (note for note in run(*DECODE, "workload.context=8000000").notes if "does not fit" in note.text)
    held = run(*DECODE, "workload.context=8000000").explanation["attention"]["memory_bytes"]
    assert f"{held['kv_cache'] / 1e9:.1f} GB of KV cache" in note.text
    assert f"{held['requests_that_fit']} requests fit" in note.text and held["requests_that_fit"] < 32
    assert not any("does not fit" in note.text for note in run(*DECODE).notes)


def test_a_run_of_moe_layers_alone_has_none_of_these_numbers():
    assert "tokens_per_second" not in summary("workload.tokens_per_rank=64")
    assert "attention" not in run("workload.tokens_per_rank=64").explanation


def test_a_sweep_of_steps_is_to_be_best_at_their_tokens_and_one_of_layers_at_their_time():
    of = {(): "layer_time_s", PREFILL: "max tokens_per_second_per_gpu", DECODE: "max tokens_per_second_per_gpu"}
    assert {given: moesim.load_scenario(SMALL, list(given)).objective for given in of} == of
    said = {**SMALL, "sweep": {"axes": {"routing.top_k": [2, 4]}, "objective": "step_time_s"}}
    assert moesim.load_scenario(said, list(DECODE)).objective == "step_time_s"


WRONG = {
    ("schedule.overlap=two-batch",): "overlap needs attention",
    ("workload.context=4096",): "context is not of a prefill",
    ("schedule.phase=decode", "workload.context=4096"): "belong together",
    ("schedule.phase=decode", "workload.sequence_length=4096"): "sequence_length is not of a decode",
    (*DECODE, "workload.tokens_per_rank=31"): "32 requests of 1 tokens are not tokens_per_rank = 31",
    (*DECODE, "workload.acceptance=0.5"): "nothing is drafted",
    (*PREFILL, "schedule.overlap=hooks"): "hooks is of a decode",
    (*DECODE, "schedule.overlap=two-batch", "alltoall.receive_hook=false"): "needs a receive hook",
    ("compute.library_date=2025-03-01",): "read for whole steps alone",
    (*PREFILL, "compute.library_date=March"): "library_date",
    ("compute.attention_dtype=fp8",): "read for whole steps alone",
    ("model.attention=gqa",): "read for whole steps alone",
    (*DECODE, "model.kv_heads=8"): "mla has no kv_heads",
    (*DECODE, "model.attention=mha", "model.kv_lora_rank=256"): "mha has no kv_lora_rank",
    (*DECODE, "model.attention=gqa", "model.kv_heads=7"): "7 KV heads do not divide 128 heads",
    (*DECODE, "model.attention=linear"): "attention",
}


@pytest.mark.parametrize("overrides", WRONG)
def test_what_is_no_step_is_refused_in_words(overrides):
    with pytest.raises(InputError, match=WRONG[overrides]):
        moesim.load_scenario(SMALL, list(overrides))


def test_a_folder_of_a_step_that_does_not_fit_is_read_again(tmp_path):
    too_much = run(*DECODE, "workload.context=8000000")
    assert too_much.summary["memory_free_bytes"] < 0
    again = moesim.load_result(too_much.save(tmp_path / "run"))
    assert again.summary["memory_free_bytes"] == too_much.summary["memory_free_bytes"]


def test_attention_that_takes_most_of_a_step_is_its_bottleneck():
    long = run(*DECODE, "workload.context=1048576", "workload.requests=64", "model.attention=mha")
    found, parts = long.summary, {term["name"]: term["value"] for term in long.explanation["terms"]["step_time_s"]}
    on_the_clock = parts["attention"] / found["layers"]
    moe = long.explanation["terms"]["model_layers"][0]["value"]
    share = on_the_clock * moe / found["step_time_s"]
    assert 0.5 < share < 1
    assert found["bottleneck"].startswith(f"attention: {100 * share:.0f} % of the step; in its MoE layers ")
    assert not summary(*DECODE)["bottleneck"].startswith("attention")
