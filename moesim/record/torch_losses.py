"""The balance losses of DeepSeekMoE, V2 and V3 as differentiable torch, to train with.

The same formulas stand in ``moesim.balance`` with analytic gradients in numpy, and a test compares the two.
Every loss is 1 (times alpha) at perfect balance. Selection counts are constants; gradients flow through the
scores, which for a sigmoid router are first divided by their sum over the experts (V3, eq. 19). The window of
the first three is the whole batch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from moesim.record.moe import Routed, Router, select

LOSS_NAMES = ("expert", "device", "communication", "sequence", "z")
# Factors under which recorded losses are quoted: V2 section 2.2.3, V3 section 4.2, ST-MoE for z.
PUBLISHED_ALPHA = {"expert": 0.003, "device": 0.05, "communication": 0.02, "sequence": 1e-4, "z": 1e-3}
# V2 spreads the experts of a layer over 8 devices.
N_DEVICES = 8


@dataclass(frozen=True)
class Balancing:
    """Factors of the losses that are trained on, by name, and the step of the bias (0: none)."""

    alpha: Mapping[str, float] = field(default_factory=dict)
    bias_rate: float = 0.0


def balance_losses(routed: Routed, router: Router, n_sequences: int) -> dict[str, Tensor]:
    """Return each loss of one layer with factor 1, scalars.

    ``routed`` holds ``n_sequences`` sequences of equal length; experts stand on ``N_DEVICES`` devices.
    """
    scores, ids = routed.scores, routed.ids
    n_tokens, n_experts = scores.shape
    if router.score == "sigmoid":
        scores = scores / scores.sum(-1, keepdim=True)
    selected = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, ids, True)
    frequency = selected.sum(0).to(scores.dtype) * n_experts / (router.top_k * n_tokens)
    probability = scores.mean(0)
    device_probability = probability.view(N_DEVICES, -1).sum(1)
    # A router without a limit may reach every device.
    limit = router.top_groups if router.n_groups > 1 else N_DEVICES
    reached = selected.view(n_tokens, N_DEVICES, -1).any(-1).sum(0).to(scores.dtype)
    reached = reached * N_DEVICES / (limit * n_tokens)

    # Eq. 18 counts the unbiased top-k, without groups.
    free = select(routed.scores, torch.zeros_like(scores[0]), Router(router.kind, router.score, router.top_k))
    free_selected = functional.one_hot(free, n_experts).sum(1).to(scores.dtype).view(n_sequences, -1, n_experts)
    sequence_frequency = free_selected.mean(1) * n_experts / router.top_k
    sequence_probability = scores.view(n_sequences, -1, n_experts).mean(1)
    return {
        "expert": (frequency * probability).sum(),
        "device": (frequency.view(N_DEVICES, -1).mean(1) * device_probability).sum(),
        "communication": (reached * device_probability).sum(),
        "sequence": (sequence_frequency * sequence_probability).sum(1).mean(),
        "z": torch.logsumexp(routed.logits, dim=-1).square().mean(),
    }
