import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_recording import numpy_router, plausible_logits

from moesim.errors import InputError
from moesim.routing import RouterSpec, route
from moesim.workload import resample_experts
from moesim.workload.fidelity import distinct_groups, group_of_expert, steer_loads, with_mean_one
from moesim.workload.refine import parent_of_expert

ROUTERS = {
    "v1": {"score": "logit"},
    "v2": {"score": "logit", "n_groups": 8, "top_groups": 3},
    "v3": {"score": "sigmoid", "n_groups": 8, "top_groups": 4},
}


def router(name, finest=8):
    return numpy_router(**ROUTERS[name], top_k=8, finest=finest)


def test_the_router_of_these_tests_selects_what_moesim_selects():
    x = plausible_logits(64, 64, skew=0.1).astype(np.float32)
    bias = np.linspace(-0.1, 0.1, 64, dtype=np.float32)
    spec = RouterSpec(kind="v3", n_experts=64, top_k=8, n_groups=8, top_groups=4)
    assert np.array_equal(np.sort(router("v3")(x, bias)), np.sort(route(x, spec, bias=bias).expert_ids))


def max_over_mean(ids, n_experts):
    loads = np.bincount(ids.ravel(), minlength=n_experts)
    return loads.max() / loads.mean()


def reached(ids, n_experts, parts):
    """Mean distinct ranks per token, the obvious way, experts contiguous on ``parts`` ranks."""
    rank = np.concatenate([np.full(len(p), i) for i, p in enumerate(np.array_split(np.arange(n_experts), parts))])
    return np.mean([len(set(rank[row])) for row in ids])


@pytest.mark.parametrize("name", ROUTERS)
@pytest.mark.parametrize("n_experts", [256, 258, 160, 128, 65, 48, 32])
def test_load_skew_and_distinct_ranks_stay_within_two_percent(name, n_experts):
    x = plausible_logits(2048, 64, skew=0.1)
    select = router(name)
    bias = np.zeros(64, np.float32)
    new = resample_experts(x, n_experts, select, group_counts=(8,), rng=np.random.default_rng(0), bias=bias)
    before, after = select(x.astype(np.float32), bias), select(new.logits, new.bias)
    assert after.shape == before.shape
    assert reached(after, n_experts, 8) == pytest.approx(reached(before, 64, 8), rel=0.02)
    target = max_over_mean(before, 64)
    if n_experts > 64 or target < 0.8 * n_experts / 8:
        assert max_over_mean(after, n_experts) == pytest.approx(target, rel=0.02)
    assert "off what was recorded" not in new.note


@pytest.mark.parametrize("name", ROUTERS)
def test_ranks_and_nodes_are_kept_together(name):
    x = plausible_logits(2048, 64, skew=0.3)
    new = resample_experts(x, 256, router(name), group_counts=(64, 8, 1), rng=np.random.default_rng(0))
    before = router(name)(x.astype(np.float32), np.zeros(64, np.float32))
    after = router(name)(new.logits, new.bias)
    for parts in (64, 32, 8, 4):
        assert reached(after, 256, parts) == pytest.approx(reached(before, 64, parts), rel=0.02)
    assert set(new.figures) == {
        "model", "knobs", "expert_load_max_over_mean", "distinct_of_8", "distinct_of_64"
    }  # fmt: skip


def test_uneven_expert_counts_keep_ranks_and_nodes_when_groups_follow_the_placement():
    x = plausible_logits(2048, 64, skew=0.1)
    select = router("v3", finest=64)
    new = resample_experts(x, 160, select, group_counts=(64, 8), rng=np.random.default_rng(0))
    for name in ("expert_load_max_over_mean", "distinct_of_64", "distinct_of_8"):
        figure = new.figures[name]
        assert figure["achieved"] == pytest.approx(figure["target"], rel=0.02), name


def balancing_bias(x, select, rate=0.02):
    """Bias after 120 steps of the sign rule with a falling rate."""
    bias = np.zeros(x.shape[1], np.float32)
    for step in range(120):
        loads = np.bincount(select(x.astype(np.float32), bias).ravel(), minlength=x.shape[1])
        bias += np.float32(rate * 0.97**step) * np.sign(loads.mean() - loads).astype(np.float32)
    assert max_over_mean(select(x.astype(np.float32), bias), x.shape[1]) < 1.1
    return bias


def test_a_balanced_router_stays_balanced():
    x = plausible_logits(2048, 64, skew=0.1)
    select = router("v3")
    bias = balancing_bias(x, select)
    for n_experts in (258, 160, 32):
        new = resample_experts(x, n_experts, select, group_counts=(8,), rng=np.random.default_rng(0), bias=bias)
        figure = new.figures["expert_load_max_over_mean"]
        assert figure["achieved"] == pytest.approx(figure["target"], rel=0.02), n_experts


def test_loads_stay_balanced_even_where_the_bias_outweighs_the_affinities():
    x = plausible_logits(2048, 64, skew=0.8) - np.float16(2.5)
    select = router("v3")
    bias = balancing_bias(x, select, rate=0.03)
    new = resample_experts(x, 256, select, group_counts=(8,), rng=np.random.default_rng(0), bias=bias)
    figure = new.figures["expert_load_max_over_mean"]
    assert figure["achieved"] == pytest.approx(figure["target"], rel=0.1)


def test_tokens_count_as_often_as_they_stand_in_the_batch():
    x = plausible_logits(1024, 64, skew=0.1)
    select = router("v1")
    weight = np.random.default_rng(1).poisson(3, 1024 // 32).repeat(32).astype(float)
    new = resample_experts(x, 256, select, group_counts=(8,), rng=np.random.default_rng(0), weight=weight)
    ids = np.repeat(select(new.logits, new.bias), weight.astype(int), axis=0)
    old = np.repeat(select(x.astype(np.float32), np.zeros(64, np.float32)), weight.astype(int), axis=0)
    assert max_over_mean(ids, 256) == pytest.approx(max_over_mean(old, 64), rel=0.02)
    assert reached(ids, 256, 8) == pytest.approx(reached(old, 64, 8), rel=0.02)


def test_a_refined_expert_never_exceeds_its_parent_and_one_child_carries_it():
    x = plausible_logits(512, 64, skew=0.1).astype(np.float32)
    new = resample_experts(x, 256, router("v1"), group_counts=(8,), rng=np.random.default_rng(0))
    children = new.logits.reshape(512, 64, 4)
    assert np.array_equal(children.max(axis=2), x)


def test_tokens_with_equal_logits_go_to_the_same_refined_experts():
    x = np.tile(plausible_logits(256, 64, skew=0.1), (2, 1))
    new = resample_experts(x, 256, router("v1"), group_counts=(8,), rng=np.random.default_rng(0))
    assert np.array_equal(new.logits[:256], new.logits[256:])


def test_the_recorded_number_of_experts_changes_nothing():
    x = plausible_logits(256, 64, skew=0.1)
    new = resample_experts(x, 64, router("v1"), group_counts=(8,), rng=np.random.default_rng(0))
    assert np.array_equal(new.logits, x.astype(np.float32))
    assert new.figures["distinct_of_8"]["achieved"] == new.figures["distinct_of_8"]["target"]


def test_a_skew_that_fewer_experts_cannot_have_is_not_compared():
    x = plausible_logits(512, 64, skew=0.1)
    # 12 experts at top-8: no expert can have more than 1.5 times the mean load.
    new = resample_experts(x, 12, router("v1"), group_counts=(8,), rng=np.random.default_rng(0))
    assert new.figures["expert_load_max_over_mean"]["target"] is None
    assert "not comparable" in new.note and "distinct_of_8" not in new.figures


def test_a_miss_is_named_in_the_note():
    # A bias far above every affinity selects all children of its parents, whatever their logits.
    bias = np.zeros(64, np.float32)
    bias[::8] = 5
    x = plausible_logits(512, 64, skew=0.1)
    new = resample_experts(x, 256, router("v3"), group_counts=(64,), rng=np.random.default_rng(0), bias=bias)
    assert "off what was recorded" in new.note


def test_fewer_experts_than_a_token_selects_are_refused():
    with pytest.raises(InputError, match="7 experts are fewer than the 8"):
        resample_experts(plausible_logits(64, 64, 0.1), 7, router("v1"), group_counts=(), rng=np.random.default_rng(0))


@settings(max_examples=80, deadline=None)
@given(coarse=st.integers(1, 70), extra=st.integers(0, 300), data=st.data())
def test_every_parent_has_children_and_groups_keep_their_own(coarse, extra, data):
    fine = coarse + extra
    groups = data.draw(st.integers(1, coarse))
    parent = parent_of_expert(fine, coarse, groups)
    assert len(parent) == fine and (np.diff(parent) >= 0).all()
    assert np.array_equal(np.unique(parent), np.arange(coarse))
    assert np.array_equal(group_of_expert(coarse, groups, groups)[parent], group_of_expert(fine, groups, groups))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1e4), min_size=2, max_size=40).filter(lambda values: sum(values) > 1))
def test_a_bent_profile_has_mean_one_and_keeps_its_maximum_and_order(loads):
    profile = np.array(loads) / np.mean(loads)
    bent = with_mean_one(profile * np.where(profile == profile.max(), 1, 0.8))
    assert bent.max() == pytest.approx(profile.max())
    assert bent.mean() == pytest.approx(1, rel=1e-6)
    assert (np.diff(bent[np.argsort(profile)]) >= -1e-12).all()


def test_distinct_groups_counts_groups_and_not_experts():
    ids = np.array([[0, 1, 2], [0, 4, 8], [0, 1, 8]], np.int32)
    group = group_of_expert(12, 3, 3)
    assert distinct_groups(ids, group, np.ones(3)) == pytest.approx((1 + 3 + 2) / 3)
    assert distinct_groups(ids, group, np.array([1.0, 0, 0])) == 1


def top_two(x, bias):
    return np.argsort(-(x + bias), axis=1, kind="stable")[:, :2].astype(np.int32)


@pytest.mark.parametrize("target", [np.linspace(2.0, 0.4, 8), np.array([9.0] + [1.0] * 7)], ids=["reached", "beyond"])
def test_steering_loads_depends_on_no_unit_of_the_logits(target):
    # A target above what one expert can have drives its offset as far as offsets go.
    x = np.random.default_rng(1).normal(size=(512, 8)).astype(np.float32)
    bias, weight = np.zeros(8, np.float32), np.ones(512)
    wanted = 512 * 2 / 8 * target
    offset = steer_loads(x, bias, top_two, weight, wanted)
    np.testing.assert_array_equal(steer_loads(4 * x, bias, top_two, weight, wanted), 4 * offset)
    loads = np.bincount(top_two(x + offset, bias).ravel(), minlength=8)
    if target.max() < 4:
        np.testing.assert_allclose(loads, wanted / target.mean(), rtol=0.3)
