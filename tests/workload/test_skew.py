"""Skew by its figure holds on the drawn tokens, under whatever router, and is refused where they cannot have it."""

import numpy as np
import pytest

from moesim import load_scenario, simulate
from moesim.errors import InputError
from moesim.layer import build_parts, open_workload
from moesim.routing import RouterSpec, route
from moesim.workload import Target, synthetic_batch

LIMITED = RouterSpec(kind="v3", n_experts=64, top_k=6, n_groups=8, top_groups=3, score="sigmoid", group_score="top2")
FREE = RouterSpec(kind="v1", n_experts=64, top_k=6)


def drawn(target, spec=FREE, seed=0, layers=(1,), **how):
    how = {"n_ranks": 8, "tokens_per_rank": 512, **how}
    return synthetic_batch(
        "skew", layers=layers, n_experts=spec.n_experts, top_k=spec.top_k, rng=np.random.default_rng(seed),
        target=target, select=lambda logits, bias: route(logits, spec, bias).expert_ids, **how,
    )  # fmt: skip


def loads(batch, spec, layer=1):
    ids = route(batch.logits[layer], spec).expert_ids[batch.token_index]
    return np.bincount(ids.ravel(), minlength=spec.n_experts)


@pytest.mark.parametrize("spec", [FREE, LIMITED], ids=["free", "limited"])
@pytest.mark.parametrize("wanted", [0.3, 1.0, 4.0])
def test_the_fullest_expert_is_as_far_above_the_mean_as_asked(spec, wanted):
    batch = drawn(Target("max_violation", wanted), spec, layers=(1, 2))
    for layer in (1, 2):
        load = loads(batch, spec, layer)
        assert load.max() / load.mean() - 1 == pytest.approx(wanted, rel=0.01)
    assert "max_violation" in batch.notes[1] and "sigma" in batch.notes[1]


@pytest.mark.parametrize("spec", [FREE, LIMITED], ids=["free", "limited"])
@pytest.mark.parametrize(("name", "wanted"), [("rank_load_max_over_mean", 1.8), ("balancedness", 0.55)])
def test_the_fullest_rank_is_as_far_above_the_mean_as_asked(spec, name, wanted):
    by_rank = loads(drawn(Target(name, wanted), spec), spec).reshape(8, 8).sum(axis=1)
    ratio = by_rank.max() / by_rank.mean()
    assert (1 / ratio if name == "balancedness" else ratio) == pytest.approx(wanted, rel=0.01)


def test_tokens_that_repeat_count_as_often_as_they_do():
    batch = drawn(Target("max_violation", 1.0), tokens_per_rank=5000, max_distinct=2048)
    assert batch.distinct_tokens <= 2048 < batch.tokens
    load = loads(batch, FREE)
    assert load.max() / load.mean() == pytest.approx(2.0, rel=0.005)


def test_ranks_without_an_expert_count_for_the_mean():
    few = RouterSpec(kind="v1", n_experts=8, top_k=2)
    load = loads(drawn(Target("rank_load_max_over_mean", 5.0), few, n_ranks=16, tokens_per_rank=64), few)
    assert load.max() / (load.sum() / 16) == pytest.approx(5, rel=0.01)


def test_the_figure_holds_under_the_bias_that_the_run_starts_with(tmp_path):
    (tmp_path / "bias.txt").write_text("\n".join(str(0.02 * (expert % 7)) for expert in range(64)))
    skew = "workload.synthetic={kind: skew, max_violation: 2}"
    result = simulate(
        load_scenario("quickstart", ["workload.recording=null", skew, f"routing.bias={tmp_path}/bias.txt"])
    )
    assert result.summary["max_violation"] == pytest.approx(2, rel=0.01)


def test_the_same_seed_gives_the_same_tokens_and_another_seed_others_with_the_same_figure():
    one, again, other = (drawn(Target("max_violation", 1.0), seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(one.logits[1], again.logits[1]) and not np.array_equal(one.logits[1], other.logits[1])
    assert loads(other, FREE).max() / loads(other, FREE).mean() == pytest.approx(2.0, rel=0.005)


@pytest.mark.parametrize(
    ("target", "how", "says"),
    [
        (Target("max_violation", 0.01), {}, "without any skew, 0.01 is asked for"),
        (Target("balancedness", 0.999), {}, "without any skew"),
        (Target("max_violation", 20.0), {}, "the router gives 9.67 with the most uneven popularity"),
        (Target("rank_load_max_over_mean", 9.0), {}, "the router gives 8 with"),
        (Target("max_violation", 4.5), {"tokens_per_rank": 1}, "8 tokens, 8 of them distinct, can have 4.33"),
    ],
)
def test_what_these_tokens_cannot_have_is_refused_with_what_they_can(target, how, says):
    with pytest.raises(InputError, match=says) as refused:
        drawn(target, **how)
    assert refused.value.where == f"workload.synthetic.{target.name}" and refused.value.fix


def test_a_scenario_has_the_figure_in_every_step_under_its_own_router():
    scenario = load_scenario(
        "quickstart",
        ["workload.recording=null", "workload.synthetic={kind: skew, max_violation: 1.5, step_correlation: 0.5}"],
    )
    parts = build_parts(scenario)
    workload, spec = open_workload(parts), parts.router
    for step in (0, 1):
        load = loads(workload.batch(step), spec, 0)
        assert load.max() / load.mean() == pytest.approx(2.5, rel=0.006)


@pytest.mark.parametrize(
    ("block", "says"),
    [
        ("{kind: skew}", "no figure of the load given; give one of max_violation, balancedness"),
        ("{kind: skew, max_violation: 1, balancedness: 0.5}", "max_violation and balancedness given"),
        ("{kind: skew, balancedness: 1.5}", "balancedness"),
        ("{kind: skew, rank_load_max_over_mean: 1}", "rank_load_max_over_mean"),
        ("{kind: skew, sigma: 1}", "sigma"),
        ("{kind: uniform, step_correlation: 0.5}", "step_correlation"),
        ("{kind: w9-unknown}", "w0-balanced"),
        ("{kind: w1-hot-experts, correlation: 0.5}", "correlation"),
    ],
)
def test_a_block_that_says_too_much_or_too_little_is_refused(block, says):
    with pytest.raises(InputError, match=says):
        load_scenario("quickstart", ["workload.recording=null", f"workload.synthetic={block}"])
