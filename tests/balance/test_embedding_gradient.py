"""All losses at once, with their gradient by the experts' embeddings, against the losses one by one and autograd."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.balance import (
    LossFactors,
    communication_loss,
    device_loss,
    embedding_gradient,
    expert_loss,
    sequence_loss,
    z_loss,
)
from moesim.errors import InputError
from moesim.routing import RouterSpec, route

FACTORS = LossFactors(expert=0.003, device=0.05, communication=0.02, sequence=1e-4, z=1e-3)


def batch(kind, n_tokens, n_experts, seed, spread=1.0, top_k=3):
    rng = np.random.default_rng(seed)
    tokens = rng.standard_normal((n_tokens, 5))
    weights = spread * rng.standard_normal((n_experts, 5))
    spec = RouterSpec(kind, n_experts=n_experts, top_k=top_k, n_groups=1, top_groups=1)
    logits = tokens @ weights.T
    return tokens, weights, logits, spec, route(logits, spec).expert_ids, rng


def one_by_one(logits, ids, spec, device, factors, sequence, weight=None):
    given = {"form": factors.form, "weight": weight}
    plain = {"weight": weight}
    return {
        "expert_loss": expert_loss(logits, ids, spec, alpha=factors.expert, **given),
        "device_loss": device_loss(logits, ids, spec, device, alpha=factors.device, **plain),
        "communication_loss": communication_loss(logits, ids, spec, device, alpha=factors.communication, **given),
        "sequence_loss": sequence_loss(logits, ids, spec, sequence, alpha=factors.sequence, **plain),
        "z_loss": z_loss(logits, alpha=factors.z, **plain),
    }


@settings(max_examples=30, deadline=None)
@given(
    kind=st.sampled_from(["v1", "v3"]),
    n_tokens=st.integers(1, 60),
    n_experts=st.integers(4, 40),
    form=st.sampled_from(["paper", "document"]),
    weighted=st.booleans(),
    spread=st.sampled_from([0.1, 3.0, 300.0]),
    seed=st.integers(0, 999),
)
def test_the_pull_on_embeddings_is_the_losses_gradients_times_the_tokens(
    kind, n_tokens, n_experts, form, weighted, spread, seed
):
    tokens, _, logits, spec, ids, rng = batch(kind, n_tokens, n_experts, seed, spread)
    device, sequence = rng.integers(0, 3, n_experts), rng.integers(0, 4, n_tokens)
    weight = rng.integers(0, 3, n_tokens) if weighted else None
    if weighted:
        weight[0] = 1
    factors = LossFactors(0.003, 0.05, 0.02, 1e-4, 1e-3, form)
    pull = embedding_gradient(tokens, logits, ids, spec, device, factors, sequence_id=sequence, weight=weight)
    single = one_by_one(logits, ids, spec, device, factors, sequence, weight)
    for name, loss in single.items():
        assert pull.values[name] == pytest.approx(loss.value, rel=1e-11, abs=1e-15)
    expected = sum(loss.grad for loss in single.values()).T @ tokens
    assert pull.grad == pytest.approx(expected, rel=1e-10, abs=1e-14 * max(1.0, np.abs(expected).max()))


def test_blocks_of_tokens_add_up_in_any_float_type():
    tokens, _, logits, spec, ids, _ = batch("v1", 5000, 64, 3, 0.4, top_k=8)
    device, sequence = np.arange(64) // 8, np.arange(5000) // 250
    expected = one_by_one(logits.astype(np.float32), ids, spec, device, FACTORS, sequence)
    pull = embedding_gradient(tokens, logits.astype(np.float32), ids, spec, device, FACTORS, sequence_id=sequence)
    assert pull.grad == pytest.approx(sum(one.grad for one in expected.values()).T @ tokens, rel=1e-9, abs=1e-14)


def test_a_step_against_the_pull_evens_out_affinities():
    tokens, weights, logits, spec, ids, _ = batch("v1", 4000, 16, 1, 0.5)
    device = np.arange(16) // 4
    only = LossFactors(1.0, 0.0, 0.0, 0.0, 0.0)
    pull = embedding_gradient(tokens, logits, ids, spec, device, only)
    after = tokens @ (weights - 0.5 * pull.grad).T
    assert expert_loss(after, ids, spec, alpha=1.0, with_grad=False).value < pull.values["expert_loss"]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_logit_that_is_not_finite_is_named(value):
    tokens, _, logits, spec, ids, _ = batch("v1", 20, 8, 0)
    logits[7, 3] = value
    with pytest.raises(InputError, match="token 7"):
        embedding_gradient(tokens, logits, ids, spec, np.zeros(8, int), LossFactors(1, 0, 0, 0, 0))


def test_a_sequence_loss_needs_sequences():
    tokens, _, logits, spec, ids, _ = batch("v3", 20, 8, 0)
    with pytest.raises(InputError, match="without sequences"):
        embedding_gradient(tokens, logits, ids, spec, np.zeros(8, int), FACTORS)


@pytest.mark.lab
@pytest.mark.parametrize("kind", ["v1", "v3"])
def test_the_pull_is_what_autograd_finds(kind):
    torch = pytest.importorskip("torch")
    tokens, weights, logits, spec, ids, _ = batch(kind, 48, 16, 5)
    device = np.arange(16) // 4
    sequence = np.repeat(np.arange(3), 16)
    pull = embedding_gradient(tokens, logits, ids, spec, device, FACTORS, sequence_id=sequence)
    w = torch.tensor(weights, requires_grad=True)
    x = torch.tensor(tokens) @ w.T
    s = torch.sigmoid(x) if kind == "v3" else torch.softmax(x, dim=1)
    p = s / s.sum(dim=1, keepdim=True)
    chosen = torch.zeros_like(p).scatter_(1, torch.tensor(ids, dtype=torch.int64), 1.0)
    f = chosen.mean(0) * 16 / 3
    reached = (chosen.view(48, 4, 4).sum(2) > 0).double().mean(0) * 4 / 3  # M = min(K, D) = 3 without groups
    per_device = p.mean(0).view(4, 4).sum(1)
    own_f, own_p = chosen.view(3, 16, 16).mean(1) * 16 / 3, p.view(3, 16, 16).mean(1)
    loss = (
        0.003 * (f * p.mean(0)).sum()
        + 0.05 * (f.view(4, 4).mean(1) * per_device).sum()
        + 0.02 * (reached * per_device).sum()
        + 1e-4 * (own_f * own_p).sum(1).mean()
        + 1e-3 * torch.logsumexp(x, dim=1).square().mean()
    )
    loss.backward()
    assert sum(pull.values.values()) == pytest.approx(loss.item(), rel=1e-12)
    assert pull.grad == pytest.approx(w.grad.numpy(), rel=1e-10, abs=1e-14)
