"""Published inference steps: read in their sources' words, dealt evenly, held against what is simulated."""

import json

import numpy as np
import pytest

from moesim.errors import InputError
from moesim.validate.published_steps import STEPS, Step, _accepted, read_steps
from moesim.validate.step_rows import Outcome, _with_constant, balanced_ids, judged, simulate_step
from moesim.validate.step_trace import decode_trace

HEAD = (
    "id,kind,source,date,model,gpu,gpus,tp,ep,per_gpu,context,dtype,overlap,routing,redundant,library,metric,value,unit"
)


def one(tmp_path, **changes):
    row = {
        "id": "x1", "kind": "decode", "source": "blog", "date": "2025-05", "model": "DeepSeek-V3", "gpu": "H100",
        "gpus": "72", "tp": "1", "ep": "72", "per_gpu": "128 requests x 2 tokens", "context": '"2000 in, 1000 out"',
        "dtype": "fp8", "overlap": "two-batch overlap", "routing": "real", "redundant": "32",
        "library": "engine 70 % accepted", "metric": "throughput", "value": "100", "unit": "tok/s/GPU",
    } | changes  # fmt: skip
    path = tmp_path / "steps.csv"
    path.write_text(f"{HEAD}\n{','.join(row[name] for name in HEAD.split(','))}\n")
    return read_steps(path)


def test_a_row_says_its_scenario_in_the_words_of_its_source(tmp_path):
    (step,) = one(tmp_path)
    assert not step.refused
    wanted = {
        "workload.requests": 128, "workload.draft_tokens": 1, "workload.acceptance": 0.7, "workload.context": 2500,
        "schedule.overlap": "two-batch", "cluster.topology": "h100-9x8-rail", "placement.redundant_experts": 32,
        "alltoall.algorithm": "deepep-low-latency", "compute.library_date": "2025-05-01",
    }  # fmt: skip
    assert {key: step.settings[key] for key in wanted} == wanted
    assert step.states_all


def test_what_one_row_of_a_source_says_of_its_cluster_holds_for_its_others(tmp_path):
    told = {
        "source": "lmsys blog 2025-09-26 sglang-ant-group",
        "gpu": "H20",
        "ep": "16",
        "dtype": "fp8 attention and KV",
    }
    (step,) = one(tmp_path, **told)
    assert {key: step.settings[key] for key in ("cluster.nodes", "cluster.nics_per_node", "cluster.nic_bandwidth")} == {
        "cluster.nodes": 2, "cluster.nics_per_node": 4, "cluster.nic_bandwidth": "400Gb/s"}  # fmt: skip
    assert step.settings["compute.attention_dtype"] == "fp8"
    assert not any("NICs not stated" in text for text in step.assumptions)


@pytest.mark.parametrize(("drafts", "share"), [(1, 0.85), (2, 0.775), (3, None)])
def test_accepted_lengths_in_a_note_are_the_share_of_the_drafts(drafts, share):
    row = {"note": "accepted length 1.8-1.9 (1 draft), 2.4-2.7 (2)"}
    assert _accepted(row, drafts) == (None if share is None else pytest.approx(share))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"kind": "ratio"}, "not a whole step"),
        ({"kind": "train", "per_gpu": ""}, "global batch or context is not stated"),
        ({"kind": "train", "per_gpu": "micro-batch 1 x 4096 global batch 64", "gpus": "100"}, "no whole groups of 72"),
        ({"gpu": "GB200"}, "no kernels"),
        ({"dtype": "nvfp4"}, "FP4"),
        ({"tp": "8"}, "tensor parallel"),
        ({"model": "Qwen3-8B (dense)"}, "no model"),
        ({"per_gpu": ""}, "requests per GPU are not stated"),
        ({"context": ""}, "context is not stated"),
        ({"unit": "%"}, "a figure in %"),
    ],
)
def test_a_row_that_nothing_can_price_is_refused_and_says_why(tmp_path, changes, why):
    (step,) = one(tmp_path, **changes)
    assert why in step.refused and not step.settings
    assert simulate_step(step) is None


def test_what_a_row_does_not_state_is_assumed_and_told(tmp_path):
    (step,) = one(tmp_path, kind="prefill", per_gpu="", overlap="", redundant="", ep="32")
    text = " ".join(step.assumptions)
    assert "batch not stated" in text and "overlap not stated" in text and "redundant" in text
    assert not step.states_all


def test_a_training_row_says_its_parallelism_and_its_pipeline(tmp_path):
    row = {"kind": "train", "gpus": "256", "ep": "32", "context": "4096", "library": "Megatron"}
    said = {"per_gpu": '"micro-batch 2 x 4,096, global batch 4,096"', "overlap": "1F1B interleaved VP 4"}
    path = tmp_path / "steps.csv"
    base = {name: "" for name in HEAD.split(",")} | {
        "id": "t", "source": "docs", "model": "DeepSeek-V3 without MTP", "gpu": "H100", "tp": "1", "dtype": "fp8",
        "routing": "forced even", "value": "1", "unit": "tok/s/GPU",
    }  # fmt: skip
    values = base | row | said
    path.write_text(f"{HEAD},pp\n{','.join(values[name] for name in HEAD.split(','))},8\n")
    (step,) = read_steps(path)
    wanted = {
        "parallel.ep": 32, "parallel.dp": 32, "parallel.pp": 8, "schedule.pipeline": "1f1b",
        "schedule.micro_batches": 64, "workload.tokens_per_rank": 8192, "schedule.mtp_layers": 0,
    }  # fmt: skip
    assert {key: step.settings[key] for key in wanted} == wanted
    assert any("interleaved" in text for text in step.assumptions) and step.training and not step.named


def test_deepseeks_training_step_has_two_readings_of_its_stages_and_nothing_is_fitted_on_it():
    steps = [step for step in read_steps(STEPS) if step.row["id"] == "s069"]
    assert [step.settings["schedule.stage_layers"] for step in steps] == ["whole", "even"]
    assert steps[0].settings["schedule.micro_batches"] == 120 and all(step.named for step in steps)
    outcomes = [Outcome(step, 18.0) for step in steps]
    assert all(_with_constant(one, outcomes).fitted is None for one in outcomes)
    assert outcomes[0].error == pytest.approx(18 / 19.926 - 1)


def test_a_table_that_is_none_names_what_is_missing(tmp_path):
    (tmp_path / "no.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="no column 'id'"):
        read_steps(tmp_path / "no.csv")
    with pytest.raises(InputError, match="value is 'many'; a number from"):
        one(tmp_path, value="many")


def test_every_shipped_row_is_simulated_or_says_why_not():
    steps = read_steps(STEPS)
    assert len({step.row["id"] for step in steps}) == 98
    assert all(bool(step.refused) != bool(step.settings) for step in steps)
    assert sum(not step.refused for step in steps) == 31  # three rows have two readings


@pytest.mark.parametrize(("tokens", "experts", "top_k"), [(4096, 256, 8), (1000, 60, 4), (77, 10, 3)])
def test_dealt_experts_are_distinct_and_even(tokens, experts, top_k):
    ids = balanced_ids(tokens, experts, top_k, np.random.default_rng(0))
    assert ids.shape == (tokens, top_k) and all(len(set(row)) == top_k for row in ids.tolist())
    if experts % top_k == 0:
        counts = np.bincount(ids.ravel(), minlength=experts)
        assert counts.max() - counts.min() <= 1


def test_a_published_decode_trace_put_together_again_takes_what_it_took():
    published, simulated = decode_trace(read_steps(STEPS))
    assert simulated == pytest.approx(published, rel=0.02)


def test_one_row_of_an_engine_fits_the_others_and_never_itself():
    def made(name, value, simulated):
        row = {"id": name, "source": "s", "model": "m", "gpu": "g", "kind": "decode", "value": str(value)}
        return Outcome(Step(row, {"x": 1}), simulated)

    outcomes = [made("a", 80, 100.0), made("b", 100, 110.0), made("c", 10, None)]
    first, second, third = (_with_constant(outcome, outcomes) for outcome in outcomes)
    assert first.fitted_error is None and third.fitted is None
    assert second.fitted == pytest.approx(88) and second.fitted_error == pytest.approx(-0.12)
    assert judged([first, second, third]) == [second]


@pytest.mark.jit
@pytest.mark.parametrize("name", ["s001", "s002 B"])
def test_the_two_profiles_of_deepseek_are_within_seven_per_cent_and_nothing_is_fitted_for_them(name):
    step = next(step for step in read_steps(STEPS) if step.name == name)
    rate, low, high, *_ = simulate_step(step)
    assert rate == pytest.approx(step.measured, rel=0.07)
    assert low <= rate <= high


@pytest.mark.jit
def test_the_verb_reads_a_table_of_ones_own_and_writes_json(tmp_path, capsys):
    from moesim.cli.validate_steps import validate_steps

    one(tmp_path, ep="16", gpus="16", kind="prefill", per_gpu="4096 tokens", context="2048", redundant="0")
    validate_steps(tmp_path / "steps.csv", True, 1)
    (found,) = json.loads(capsys.readouterr().out)
    assert found["id"] == "x1" and found["measured"] == 100 and found["low"] <= found["simulated"] <= found["high"]
    assert {"metric", "fitted", "assumptions"} <= found.keys()
