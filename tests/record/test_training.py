# ruff: noqa: E402
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from moesim.record.text import DOMAINS, evaluation_text
from moesim.record.training import METHODS, Plan, learning_rate, snapshot_steps, steps_within, train

pytestmark = pytest.mark.lab

PLAN = Plan(steps=30, batch_sequences=8, learning_rate=5e-3)


@pytest.fixture
def text(corpus):
    return evaluation_text(corpus, 8, 32, seed=1)


def test_snapshots_stand_at_thirds_of_thirds_of_the_run():
    assert snapshot_steps(2_000, 6) == [0, 25, 74, 222, 667, 2_000]
    assert snapshot_steps(2, 6) == [0, 1, 2]


def test_the_learning_rate_rises_and_then_decays_to_a_tenth():
    plan = Plan(steps=1_000, learning_rate=1.0)
    rates = [learning_rate(step, plan) for step in range(1_000)]
    assert rates[0] == pytest.approx(1 / 50)
    assert max(rates) == 1.0 == rates[49] == rates[50]
    assert (np.diff(rates[50:]) < 0).all()
    assert rates[-1] == pytest.approx(0.1, abs=1e-3)


@pytest.mark.parametrize("name", METHODS)
def test_the_model_learns_under_every_balancing(name, corpus, sizes, text):
    trained = train(METHODS[name], sizes, PLAN, corpus, text, looks=(0, 30))
    first, last = trained.snapshots
    assert (first.step, last.step) == (0, 30)
    seen = [DOMAINS.index(domain) for domain in corpus.train]
    assert (last.language_loss[seen] < first.language_loss[seen] - 1).all()
    assert last.domain_counts.sum(axis=(1, 2)).tolist() == [text.tokens.size * 8] * 2
    assert len(trained.curve) == 30
    assert trained.curve[-1]["language_loss"] < trained.curve[0]["language_loss"]
    assert (first.bias == 0).all()
    rate = METHODS[name].balancing.bias_rate
    if rate:
        # 30 steps of one rate up or down (a load at the mean moves nothing)
        steps = last.bias / rate
        np.testing.assert_allclose(steps, np.round(steps), atol=1e-3)
        assert 10 < np.abs(steps).max() < 30.5
    else:
        assert (last.bias == 0).all()


def test_the_bias_evens_out_the_load(corpus, sizes, text):
    method = METHODS["v3"]
    quick = replace(method, balancing=replace(method.balancing, bias_rate=0.01))
    without = replace(method, balancing=replace(method.balancing, bias_rate=0.0))
    plan = replace(PLAN, steps=40)
    skew = []
    for each in (quick, without):
        load = train(each, sizes, plan, corpus, text, looks=(40,)).snapshots[0].counts
        skew.append(load.max(axis=1) / load.mean(axis=1))
    assert (skew[0] < skew[1]).all()


def test_equal_steps_and_seed_give_equal_recordings(corpus, sizes, text):
    plan = replace(PLAN, steps=5)
    runs = [train(METHODS["v2"], sizes, plan, corpus, text, looks=(5,)) for _ in range(2)]
    one, two = (run.snapshots[0] for run in runs)
    for layer, logits in one.logits.items():
        np.testing.assert_array_equal(logits, two.logits[layer])
    assert runs[0].curve == runs[1].curve
    other = train(METHODS["v2"], sizes, replace(plan, seed=1), corpus, text, looks=(5,)).snapshots[0]
    assert (other.logits[1] != one.logits[1]).any()


def test_looking_does_not_change_the_training(corpus, sizes, text):
    plan = replace(PLAN, steps=4)
    seldom = train(METHODS["v3"], sizes, plan, corpus, text, looks=(4,)).snapshots[-1]
    often = train(METHODS["v3"], sizes, plan, corpus, text, looks=range(5)).snapshots[-1]
    np.testing.assert_array_equal(seldom.logits[2], often.logits[2])


def test_a_budget_of_seconds_becomes_a_number_of_steps(corpus, sizes, text):
    few = steps_within(0.001, METHODS["v1"], sizes, PLAN, corpus, text)
    many = steps_within(60.0, METHODS["v1"], sizes, PLAN, corpus, text)
    assert few == 1
    assert many > 50
