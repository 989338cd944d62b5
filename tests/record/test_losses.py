# ruff: noqa: E402
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from moesim import balance
from moesim.record.moe import V1, V2, V3, Routed, affinity, select
from moesim.record.torch_losses import LOSS_NAMES, N_DEVICES, balance_losses
from moesim.routing import RouterSpec, route

pytestmark = pytest.mark.lab

ROUTERS = {"v1": V1, "v2": V2, "v3": V3}
DEVICE = np.arange(64) // (64 // N_DEVICES)


def routed(logits, router):
    scores = affinity(logits, router)
    return Routed(logits, scores, select(scores, torch.zeros(64), router))


@pytest.mark.parametrize("kind", ROUTERS)
def test_values_and_gradients_are_those_of_the_simulator(kind):
    router = ROUTERS[kind]
    x = np.random.default_rng(8).normal(size=(96, 64))
    logits = torch.from_numpy(x).requires_grad_()
    decided = routed(logits, router)
    losses = balance_losses(decided, router, n_sequences=4)

    spec = RouterSpec(
        kind=kind, n_experts=64, top_k=8, n_groups=router.n_groups, top_groups=router.top_groups,
        score=router.score, group_score=router.group_score, normalize=router.normalize,
    )  # fmt: skip
    ids = decided.ids.numpy().astype(np.int32)
    free = route(x, RouterSpec(kind=kind, n_experts=64, top_k=8, score=router.score)).expert_ids
    expected = {
        "expert": balance.expert_loss(x, ids, spec, alpha=1.0),
        "device": balance.device_loss(x, ids, spec, DEVICE, alpha=1.0),
        "communication": balance.communication_loss(x, ids, spec, DEVICE, alpha=1.0),
        "sequence": balance.sequence_loss(x, free, spec, np.repeat(np.arange(4), 24), alpha=1.0),
        "z": balance.z_loss(x, alpha=1.0),
    }
    assert tuple(losses) == LOSS_NAMES
    for name, loss in losses.items():
        assert loss.item() == pytest.approx(expected[name].value, rel=1e-12), name
        (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
        np.testing.assert_allclose(gradient.numpy(), expected[name].grad, rtol=0, atol=1e-10, err_msg=name)


def test_every_loss_is_one_at_perfect_balance():
    # Token t wants the experts of a block of eight, the blocks in turn: each expert, device and sequence is even.
    logits = torch.zeros(64, 64, dtype=torch.float64)
    for token in range(64):
        logits[token, (torch.arange(8) * 8 + token) % 64] = 3.0
    losses = balance_losses(routed(logits, V1), V1, n_sequences=4)
    for name in ("expert", "device", "communication", "sequence"):
        assert losses[name].item() == pytest.approx(1.0), name
