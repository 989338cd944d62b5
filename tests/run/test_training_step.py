"""Whole training steps of a small model: what the pipelines' forms ask, what adds up, and a published step."""

import functools

import numpy as np
import pytest

import moesim
from moesim.errors import InputError
from moesim.validate.published_steps import read_steps
from moesim.validate.step_rows import simulate_step
from moesim.validate.training_trace import training_trace

SMALL = {
    "cluster": {"topology": "hgx-h800"},
    "parallel": {"ep": 8},
    "model": {"preset": "deepseek-v3", "n_experts": 32, "hidden": 1024, "expert_hidden": 256, "layers": 23},
    "routing": {"kind": "v3", "top_k": 4, "groups": 8, "top_groups": 4},
    "workload": {"synthetic": {"kind": "uniform"}, "tokens_per_rank": 512, "sequence_length": 256},
    "schedule": {"phase": "training", "micro_batches": 8, "stage_layers": "even"},
}


@functools.cache
def run(*overrides):
    return moesim.simulate(moesim.load_scenario(SMALL, list(overrides)))


def piped(name, ranks=4, *more):
    return run(f"schedule.pipeline={name}", f"parallel.pp={ranks}", *more)


def terms(result):
    return {term["name"]: term["value"] for term in result.explanation["terms"]["step_time_s"]}


UPDATE = ("gradients reduced", "optimizer", "weights gathered")


def test_the_parts_of_a_step_add_up_to_its_time():
    for result in (run(), piped("1f1b"), piped("zb1p"), piped("dualpipe"), piped("dualpipev", 2)):
        assert sum(terms(result).values()) == pytest.approx(result.summary["step_time_s"], rel=1e-12)
        assert set(UPDATE) < set(terms(result))
        assert 0 <= result.summary["pipeline_bubble_share"] < 1


def test_without_a_pipeline_a_step_is_its_micro_batches_one_after_the_other():
    result, once = run(), run("schedule.micro_batches=1")
    update = sum(terms(once)[name] for name in UPDATE)
    assert result.summary["pipeline_bubble_share"] == 0
    passes = once.summary["step_time_s"] - update
    assert result.summary["step_time_s"] == pytest.approx(8 * passes + update)
    assert result.summary["communication_hidden_share"] == once.summary["communication_hidden_share"]


def test_even_stages_of_1f1b_have_the_bubble_of_its_form():
    """(p - 1)(F + B), and no more beside it than a send on the way of every pass."""
    result = piped("1f1b")
    spent = terms(result)
    each = (spent["forward"] + spent["backward"]) / 8
    send = result.explanation["training"]["send_s"]
    assert 3 * each + 6 * send <= spent["bubble"] <= 3 * each + 2 * (3 + 8) * send


def test_zb1p_has_less_bubble_than_1f1b_by_twice_the_weights():
    plain, zero = piped("1f1b"), piped("zb1p")
    weights = terms(zero)["backward, weights"] / 8
    assert terms(plain)["bubble"] - terms(zero)["bubble"] > 1.5 * 3 * weights
    assert terms(plain)["backward"] == pytest.approx(terms(zero)["backward, inputs"] + 8 * weights)


def test_dualpipe_hides_communication_that_shows_without_it():
    alone, both = piped("1f1b"), piped("dualpipe")
    assert both.summary["communication_hidden_share"] > alone.summary["communication_hidden_share"] + 0.2
    assert both.explanation["training"]["pair_hidden_share"] > both.summary["communication_hidden_share"]
    assert alone.explanation["training"]["pair_s"] is None


def test_rates_follow_from_the_step():
    found = piped("1f1b", 4, "parallel.dp=16").summary
    assert found["gpus"] == 8 * 2 * 4
    assert found["step_tokens"] == 8 * 512 * 8 * 2
    assert found["tokens_per_second"] * found["step_time_s"] == pytest.approx(found["step_tokens"])
    assert found["tokens_per_day"] == pytest.approx(86400 * found["tokens_per_second"])
    assert found["tokens_per_second_per_gpu"] * found["gpus"] == pytest.approx(found["tokens_per_second"])
    assert found["mfu"] == pytest.approx(found["model_flops_per_second_per_gpu"] / 989e12)
    assert found["mfu_non_causal"] > found["mfu"]


def test_more_groups_share_the_optimizer_and_reduce_the_experts_too():
    one, two = terms(piped("1f1b", 4)), terms(piped("1f1b", 4, "parallel.dp=16"))
    assert two["optimizer"] == pytest.approx(one["optimizer"] / 2)
    assert two["gradients reduced"] > one["gradients reduced"]  # experts have a copy now
    assert two["forward"] == one["forward"]


def test_a_slow_gpu_makes_both_kinds_of_passes_longer():
    slow = piped("dualpipe", 4, "faults=[{kind: slow_gpu, where: n0.gpu0, factor: 2}]").explanation["training"]
    well = piped("dualpipe").explanation["training"]
    assert slow["pair_s"] > 1.3 * well["pair_s"] and slow["chunk_s"]["weights"] > 1.3 * well["chunk_s"]["weights"]


def test_the_pipeline_table_has_every_pass_once():
    table = piped("dualpipe").tables["pipeline"]
    assert len(table[table["kind"] == "forward"]) == 4 * 8
    assert sorted(set(table["rank"])) == [0, 1, 2, 3]
    assert (table["end_s"] > table["start_s"]).all()


def test_a_saved_training_step_is_read_again_with_its_pipeline(tmp_path):
    piped("dualpipe").save(tmp_path / "run")
    again = moesim.load_result(tmp_path / "run")
    assert np.array_equal(again.tables["pipeline"]["end_s"], piped("dualpipe").tables["pipeline"]["end_s"])
    assert again.summary == piped("dualpipe").summary


def test_a_step_is_the_same_every_time():
    again = moesim.simulate(moesim.load_scenario(SMALL, ["schedule.pipeline=dualpipe", "parallel.pp=4"]))
    assert again.summary == piped("dualpipe").summary
    assert np.array_equal(again.tables["pipeline"]["end_s"], piped("dualpipe").tables["pipeline"]["end_s"])


@pytest.mark.parametrize(
    ("overrides", "what"),
    [
        (("schedule.pipeline=1f1b",), "pipeline 1f1b with pp = 1"),
        (("parallel.pp=4",), "pipeline none with pp = 4"),
        (("parallel.pp=3", "schedule.pipeline=dualpipe"), "enters at both ends of 3"),
        (
            ("parallel.pp=4", "schedule.pipeline=dualpipe", "schedule.micro_batches=6"),
            "6 micro-batches through dualpipe",
        ),
        (("parallel.pp=4", "schedule.pipeline=1f1b", "schedule.stage_layers=[6,6,6]"), "3 stages of 18 layers"),
        (("parallel.pp=24", "schedule.pipeline=1f1b"), "24 stages for 23 layers"),
        (("schedule.micro_batches=null",), "needs its micro-batches"),
        (("workload.sequence_length=null",), "needs the length of its sequences"),
        (("schedule.overlap=two-batch",), "the pipeline says what overlaps"),
        (("parallel.dp=12",), "no whole groups of ep = 8"),
        (("parallel.tp=2",), "tensor parallel"),
        (("faults=[{kind: slow_gpu, where: n0.gpu0, factor: 2, to: 1ms}]",), "faults of the whole run alone"),
        (("schedule.phase=prefill",), "has 1 at a time"),
        (("schedule.phase=prefill", "schedule.micro_batches=null"), "stage_layers is not of a prefill"),
        (("workload.requests=4",), "not of a training"),
    ],
)
def test_what_makes_no_training_step_is_refused(overrides, what):
    with pytest.raises(InputError) as error:
        moesim.load_scenario(SMALL, list(overrides))
    assert what in "\n".join([error.value.what, *(other.what for other in error.value.others)])


@pytest.mark.jit
@pytest.mark.parametrize("reading", ["4 layers", "61/16"])
def test_deepseek_v3s_step_is_within_twelve_per_cent_on_both_readings_of_its_stages(reading):
    step = next(one for one in read_steps() if one.name == f"s069 {reading}")
    found = simulate_step(step)
    assert found.simulated == pytest.approx(step.measured, rel=0.12)


@pytest.mark.jit
def test_the_training_trace_hides_what_the_published_one_does():
    compared = {one.metric: one for one in training_trace(read_steps())}
    hidden = compared["dispatch and combine kernels hidden behind compute"]
    assert hidden.simulated == pytest.approx(hidden.published, abs=5)
    span = compared["4 layers forward + 4 backward, span"]
    assert span.simulated == pytest.approx(span.published, rel=0.12)
