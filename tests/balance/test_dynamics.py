"""The balance dynamics: laws that both forms keep, and the closed form against tokens."""

from dataclasses import replace

import numpy as np
import pytest

from moesim.balance import (
    NO_LOSS,
    Balancing,
    LossFactors,
    OffsetForm,
    Text,
    TokenForm,
    drop_over_capacity,
    embedding_gradient,
    expert_load,
    loads_of_offsets,
    shipped_constants,
)
from moesim.errors import InputError
from moesim.routing import RouterSpec

EIGHT = np.arange(64) // 8
QUIET = replace(shipped_constants(), early_drift=0.0, late_drift=0.0, weight_decay=0.0, start_spread=0.0)


def balancing(kind="v1", top_k=6, n_experts=64, factors=NO_LOSS, **options):
    return Balancing(
        kind, RouterSpec(kind, n_experts, top_k), np.arange(n_experts) * 8 // n_experts, factors, **options
    )


def test_every_constant_says_what_it_is_from():
    constants = shipped_constants()
    assert all(constants.sources[name] for name in vars(constants) if name != "sources")
    assert [name for name, source in constants.sources.items() if source == "fitted on tiny-v1"] == ["gain"]


def test_the_learning_rate_warms_up_and_decays():
    constants = shipped_constants()
    rates = [constants.rate_at(step, 2000) for step in range(2001)]
    assert rates[0] == pytest.approx(2e-3 / 100) and max(rates) == rates[99] == pytest.approx(2e-3)
    assert rates[1050] == pytest.approx(2e-3 * (0.1 + 0.9 / 2)) and rates[2000] == pytest.approx(2e-4)


@pytest.mark.parametrize("kind", ["v1", "v3"])
def test_loads_of_offsets_are_those_of_drawn_tokens(kind):
    rng = np.random.default_rng(0)
    offset, bias = rng.standard_normal(32), 0.2 * rng.standard_normal(32)
    scores = offset + 0.8 * rng.standard_normal((100_000, 32))
    if kind == "v3":
        scores = 1 / (1 + np.exp(-scores)) + bias
    # Experts above one threshold that lets through top-k on average: what the closed form says of a token's choice.
    threshold = np.quantile(scores, 1 - 4 / 32)
    expected = (scores > threshold).mean(axis=0) * 32 / 4
    found = loads_of_offsets(offset, 0.8, 4, bias if kind == "v3" else None)
    assert found.mean() == pytest.approx(1, rel=1e-6)
    assert found == pytest.approx(expected, abs=0.05)


def test_a_multiplicative_bias_of_one_and_an_additive_one_of_zero_change_nothing():
    offset = np.random.default_rng(1).standard_normal(16)
    plain = loads_of_offsets(offset, 1.0, 3)
    assert loads_of_offsets(offset, 1.0, 3, np.zeros(16)) == pytest.approx(plain, abs=1e-7)
    assert loads_of_offsets(offset, 1.0, 3, np.ones(16), multiplicative=True) == pytest.approx(plain, abs=1e-7)


def test_full_collapse_is_experts_over_top_k():
    offset = np.where(np.arange(64) < 8, 50.0, 0.0)
    assert loads_of_offsets(offset, 1.0, 8).max() == pytest.approx(64 / 8)


@pytest.mark.parametrize(("rate", "sequences"), [(0.001, 8), (0.003, 8), (0.01, 8), (0.001, 1152), (0.01, 1152)])
def test_a_sign_update_ripples_by_its_law(rate, sequences):
    # Offsets that differ, so that experts are at different phases of their steps.
    constants = replace(QUIET, spread=(1.0, 1.0), spread_steps=(0.0, 1e9), start_spread=0.05, learning_rate=0.0)
    form = OffsetForm(constants, balancing("v3", bias_rate=rate), 10**6, (4,), seed=3)
    step = 1e-5
    nudged = loads_of_offsets(np.zeros(64), 1.0, 6, np.eye(64)[0] * step)[0]
    gain = (nudged - 1.0) / step
    assert gain == pytest.approx(10.7, rel=0.02)
    spreads = []
    for i in range(1000):
        form.advance(sequences)
        if i >= 300 and i % 10 == 0:
            spreads.append(form.loads().std(axis=-1) ** 2)
    noise = np.sqrt(constants.sequence_variance / sequences)
    law = np.sqrt(0.63 * rate * gain * noise + (rate * gain) ** 2 / 3)
    assert np.sqrt(np.mean(spreads)) == pytest.approx(law, rel=0.15)


def test_the_bias_spreads_by_at_most_two_steps_a_step_and_by_just_that_at_first():
    form = TokenForm(shipped_constants(), balancing("v3", 8, bias_rate=0.001), 200, Text(8, 32), seed=0)
    for n in range(1, 60):
        form.advance(form.batch())
        assert np.ptp(form.bias) <= 2 * 0.001 * n + 1e-12
    assert np.ptp(form.bias) == pytest.approx(2 * 0.001 * n, rel=0.05)


def test_a_loss_holds_what_the_drift_unbalances():
    ends = {}
    for alpha in (0.0, 0.003, 0.01):
        factors = LossFactors(alpha, 0.0, 0.0, 0.0, 0.0) if alpha else NO_LOSS
        form = OffsetForm(shipped_constants(), balancing(factors=factors), 300, (12,), seed=5)
        for _ in range(300):
            form.advance(8)
        ends[alpha] = form.loads().max(axis=-1).mean() - 1
    assert ends[0.0] > 1.5 * ends[0.003] > 1.5 * ends[0.01]


@pytest.mark.jit
def test_the_closed_form_is_what_tokens_give():
    for factors in (NO_LOSS, LossFactors(0.003, 0.05, 0.0, 0.0, 0.0)):
        method, peaks = balancing(top_k=8, factors=factors), []
        for layer in range(3):
            form = TokenForm(shipped_constants(), method, 200, Text(8, 32), 1, layer)
            while form.step < 80:
                form.advance(form.batch())
            load = expert_load(form.evaluated(400, 16).expert_ids, 64)
            peaks.append(load.max() / load.mean())
        closed = OffsetForm(shipped_constants(), method, 200, (48,), 1)
        while closed.step < 80:
            closed.advance(8)
        assert np.mean(peaks) == pytest.approx(closed.loads().max(axis=-1).mean(), rel=0.25)


@pytest.mark.jit
def test_the_drift_alone_unbalances_and_losses_alone_do_not():
    still = replace(shipped_constants(), early_drift=0.0, late_drift=0.0, start_spread=0.0)
    pulled = balancing(top_k=8, factors=LossFactors(0.003, 0.05, 0.02, 0.0, 0.0))
    form = TokenForm(still, pulled, 100, Text(32, 64), seed=2)
    before = np.ptp(form.experts[:, 0])
    for _ in range(30):
        form.advance(form.batch())
    assert before == 0.0 and np.ptp(form.experts[:, 0]) < 0.3
    assert np.linalg.norm(form.experts[:, 1:], axis=1) == pytest.approx(1.0)


def test_a_training_step_is_the_gradient_of_the_public_losses():
    # One step by hand: embeddings minus rate times gain times experts times G^T X, the drift and decay on the offset.
    constants = replace(shipped_constants(), limit=1e9)
    factors = LossFactors(0.003, 0.05, 0.02, 1e-4, 0.0)
    method = balancing(top_k=4, n_experts=16, factors=factors)
    form = TokenForm(constants, method, 100, Text(4, 16), seed=7)
    drawn, experts, drift = form.batch(), form.experts.copy(), form.drift.copy()
    grad = embedding_gradient(
        drawn.tokens, drawn.logits, drawn.expert_ids, method.spec, method.device, factors, sequence_id=drawn.sequence
    ).grad
    form.advance(drawn)
    rate, pull = constants.rate_at(0, 100), constants.gain * 16 * grad
    offset = experts[:, 0] + rate * (constants.drift_at(0) * drift - pull[:, 0] - 0.1 * experts[:, 0])
    direction = experts[:, 1:] - rate * pull[:, 1:]
    assert form.experts[:, 0] == pytest.approx(offset - offset.mean(), abs=1e-12)
    assert form.experts[:, 1:] == pytest.approx(direction / np.linalg.norm(direction, axis=1)[:, None], abs=1e-12)


def test_methods_are_compared_on_the_same_tokens():
    text = Text(4, 32, domains=3, domain_steps=50.0)
    forms = [
        TokenForm(shipped_constants(), method, 50, text, seed=4)
        for method in (balancing("v1", 8), balancing("v3", 8, bias_rate=0.01))
    ]
    for _ in range(3):
        batches = [form.batch() for form in forms]
        assert (batches[0].tokens == batches[1].tokens).all()
        for form, drawn in zip(forms, batches, strict=True):
            form.advance(drawn)
    assert (batches[0].expert_ids != batches[1].expert_ids).any()


def test_sequences_vary_by_the_variance_that_was_read():
    constants = shipped_constants()
    form = TokenForm(constants, balancing(top_k=8), 2000, Text(1, 1), seed=3)
    form.step = 2000
    form.experts[:, 0] = np.random.default_rng(0).standard_normal(64)
    drawn = form.evaluated(300, 256)
    load = np.stack([expert_load(ids, 64) for ids in drawn.expert_ids.reshape(300, 256, 8)]) / (256 * 8 / 64)
    found = load.var(axis=0).sum() / load.mean(axis=0).sum()
    assert found == pytest.approx(constants.sequence_variance, rel=0.2)


def test_domains_turn_slowly():
    def loads(step, domain_steps):
        form = TokenForm(QUIET, balancing(top_k=8), 2000, Text(4, 64, 1, domain_steps), seed=9)
        form.step = 500
        for _ in range(step):
            form.advance(form.batch())
        form.step = 500
        return expert_load(form.evaluated(64, 64).expert_ids, 64)

    at_rest = np.corrcoef(loads(0, np.inf), loads(40, np.inf))[0, 1]
    soon, late = (np.corrcoef(loads(0, 40.0), loads(step, 40.0))[0, 1] for step in (4, 200))
    assert at_rest > 0.95 and soon > 0.8 and late < 0.6


def test_a_multiplicative_bias_wants_no_groups():
    spec = RouterSpec("v3", 64, 8, 8, 4)
    with pytest.raises(InputError, match="multiplicative"):
        TokenForm(QUIET, Balancing("v3", spec, EIGHT, bias_rate=0.001, multiplicative=True), 10, Text(1, 8), 0)
    with pytest.raises(InputError, match="no groups"):
        OffsetForm(QUIET, Balancing("v2", spec, EIGHT), 10, (1,), 0)


def dropped_by_hand(ids, affinities, device, factor, exempt):
    """Copies one by one, the strongest first, until their device is full."""
    copies = [(t, k) for t in range(len(ids)) for k in range(ids.shape[1]) if ids[t, k] >= 0]
    room = {d: int(np.ceil(factor * len(copies) / len(set(device)))) for d in set(device)}
    kept = ids.copy()
    for t, k in sorted(copies, key=lambda copy: (not exempt[copy[0]], -affinities[copy], copy)):
        own = device[ids[t, k]]
        if not exempt[t] and room[own] <= 0:
            kept[t, k] = -1
        room[own] -= 1
    return kept


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.3])
def test_devices_keep_their_strongest_copies(factor):
    rng = np.random.default_rng(int(10 * factor))
    ids = np.stack([rng.choice(12, 3, replace=False) for _ in range(80)]).astype(np.int32)
    ids[rng.random(ids.shape) < 0.05] = -1
    affinities, device = rng.random(ids.shape), np.arange(12) % 5
    exempt = rng.random(80) < 0.1
    found = drop_over_capacity(ids, affinities, device, factor, exempt)
    assert (found == dropped_by_hand(ids, affinities, device.tolist(), factor, exempt)).all()
    assert (found[exempt] == ids[exempt]).all()


def test_nothing_is_dropped_where_there_is_room():
    ids = np.array([[0, 1], [2, 3], [4, 5], [6, 7]], np.int32)
    assert (drop_over_capacity(ids, np.ones((4, 2)), np.arange(8) // 2, 1.0) == ids).all()
    with pytest.raises(InputError, match="capacity"):
        drop_over_capacity(ids, np.ones((4, 2)), np.arange(8) // 2, 0.0)
