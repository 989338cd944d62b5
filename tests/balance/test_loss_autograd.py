"""The analytic gradients against torch's autograd, both in float64."""

import numpy as np
import pytest

from moesim.balance import communication_loss, device_loss, expert_loss, sequence_loss, z_loss
from moesim.routing import RouterSpec, route

pytestmark = pytest.mark.lab
torch = pytest.importorskip("torch")

TOKENS, EXPERTS, TOP_K, DEVICES, REACH = 60, 32, 4, 5, 3


def affinities(logits, score):
    if score == "softmax":
        return logits.softmax(-1)
    s = logits.sigmoid()
    return s / s.sum(-1, keepdim=True)


def selected(ids):
    return torch.nn.functional.one_hot(torch.as_tensor(ids, dtype=torch.long), EXPERTS).sum(1).double()


def torch_losses(logits, ids, score, device, sequence, weight):
    p = affinities(logits, score)
    chosen = selected(ids)
    w = weight / weight.sum()
    f = EXPERTS / TOP_K * (w[:, None] * chosen).sum(0)
    mean = (w[:, None] * p).sum(0)
    belongs = torch.nn.functional.one_hot(device, DEVICES).double()
    received = ((chosen @ belongs) > 0).double()
    losses = {
        "expert": (f * mean).sum(),
        "device": ((f @ belongs) / belongs.sum(0) * (mean @ belongs)).sum(),
        "communication": (DEVICES / REACH * (w[:, None] * received).sum(0) * (mean @ belongs)).sum(),
        "z": (w * logits.logsumexp(-1) ** 2).sum(),
    }
    per_sequence, times = [], []
    for s in sequence.unique():
        inside = sequence == s
        v = weight[inside] / weight[inside].sum()
        f_s = EXPERTS / TOP_K * (v[:, None] * chosen[inside]).sum(0)
        per_sequence.append((f_s * (v[:, None] * p[inside]).sum(0)).sum())
        times.append(weight[inside].mean())
    times = torch.stack(times)
    losses["sequence"] = (torch.stack(per_sequence) * times).sum() / times.sum()
    return losses


@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["expert", "device", "communication", "sequence", "z"])
def test_value_and_gradient_are_those_of_autograd(name, seed, score):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(TOKENS, EXPERTS)) * 4
    spec = RouterSpec("v2", EXPERTS, TOP_K, n_groups=DEVICES, top_groups=REACH, score=score)
    device = rng.permutation(np.arange(EXPERTS) % DEVICES)
    sequence = rng.integers(0, 6, TOKENS)
    weight = rng.integers(1, 5, TOKENS)
    ids = route(x, spec).expert_ids
    options = {"alpha": 0.7, "weight": weight}
    got = {
        "expert": lambda: expert_loss(x, ids, spec, **options),
        "device": lambda: device_loss(x, ids, spec, device, **options),
        "communication": lambda: communication_loss(x, ids, spec, device, **options),
        "sequence": lambda: sequence_loss(x, ids, spec, sequence, **options),
        "z": lambda: z_loss(x, **options),
    }[name]()
    logits = torch.tensor(x, requires_grad=True)
    wanted = torch_losses(
        logits, ids, score, torch.tensor(device), torch.tensor(sequence), torch.tensor(weight).double()
    )[name]
    (0.7 * wanted).backward()
    assert got.value == pytest.approx(0.7 * wanted.item(), rel=1e-12)
    scale = logits.grad.abs().max().item()
    assert np.abs(got.grad - logits.grad.numpy()).max() < 1e-10 * scale
