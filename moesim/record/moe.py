"""Router, routed experts and shared experts of the small model.

The router is one set of knobs (those of ``moesim.routing.RouterSpec``); V1, V2 and V3 differ in their values.
While evaluating, logits are rounded to float16 first and selection runs in float64: what is recorded is
exactly what routed, and ``moesim.routing.route`` on the recorded logits finds the same experts. Tokens are sorted
by expert and every expert multiplies its own rows. Not modelled: capacity limits and token dropping.
"""

# torch's classes are Any where it is not installed, some of its functions untyped where it is.
# mypy: allow-subclassing-any, allow-untyped-calls

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Router:
    """Knobs of a router; experts form ``n_groups`` equal, contiguous groups, ``top_groups`` may be used."""

    kind: Literal["v1", "v2", "v3"]
    score: Literal["softmax", "sigmoid"]
    top_k: int = 8
    n_groups: int = 1
    top_groups: int = 1
    group_score: Literal["max", "top2"] = "max"
    normalize: bool = False
    scale: float = 1.0


V1 = Router("v1", "softmax")
V2 = Router("v2", "softmax", n_groups=8, top_groups=3)
V3 = Router("v3", "sigmoid", n_groups=8, top_groups=4, group_score="top2", normalize=True, scale=2.5)


def affinity(logits: Tensor, router: Router) -> Tensor:
    """Return the unbiased scores of logits[tokens, experts]."""
    return torch.sigmoid(logits) if router.score == "sigmoid" else torch.softmax(logits, dim=-1)


def select(scores: Tensor, bias: Tensor, router: Router) -> Tensor:
    """Return ids[tokens, top_k] of the experts with the highest scores + bias within the best groups.

    Ties go to the lowest id; a masked group stays out whatever the sign of the bias.
    """
    biased = scores + bias
    if router.top_groups < router.n_groups:
        grouped = biased.unflatten(-1, (router.n_groups, -1))
        best = grouped.topk(2 if router.group_score == "top2" else 1, dim=-1).values.sum(-1)
        chosen = best.sort(dim=-1, descending=True, stable=True).indices[:, : router.top_groups]
        open_group = torch.zeros_like(best, dtype=torch.bool).scatter_(1, chosen, True)
        biased = grouped.masked_fill(~open_group[..., None], -torch.inf).flatten(1)
    return biased.sort(dim=-1, descending=True, stable=True).indices[:, : router.top_k]


class GroupedMatmul(torch.autograd.Function):
    """rows[n, a] @ weight[experts, a, b], where expert e owns the next ``counts[e]`` rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, counts: list[int]) -> Tensor:
        """Return float[n, b]."""
        ctx.save_for_backward(rows, weight)
        ctx.counts = counts
        out = rows.new_empty(rows.shape[0], weight.shape[2])
        for expert, (part, part_out) in enumerate(zip(rows.split(counts), out.split(counts), strict=True)):
            torch.mm(part, weight[expert], out=part_out)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        """Return the gradients of rows and weight."""
        rows, weight = ctx.saved_tensors
        rows_grad, weight_grad = torch.empty_like(rows), torch.empty_like(weight)
        parts = zip(rows.split(ctx.counts), grad.split(ctx.counts), rows_grad.split(ctx.counts), strict=True)
        for expert, (part, part_grad, part_rows_grad) in enumerate(parts):
            torch.mm(part_grad, weight[expert].t(), out=part_rows_grad)
            torch.mm(part.t(), part_grad, out=weight_grad[expert])
        return rows_grad, weight_grad, None


class Experts(nn.Module):
    """SwiGLU experts, each with its own weights: hidden -> expert_hidden -> hidden."""

    def __init__(self, n_experts: int, hidden: int, expert_hidden: int) -> None:
        super().__init__()
        self.into = nn.Parameter(torch.randn(n_experts, hidden, 2 * expert_hidden) * hidden**-0.5)
        self.out = nn.Parameter(torch.randn(n_experts, expert_hidden, hidden) * expert_hidden**-0.5)

    def forward(self, tokens: Tensor, ids: Tensor, gates: Tensor) -> Tensor:
        """Return the gated sum of the selected experts' outputs, float[tokens, hidden]."""
        n_tokens, top_k = ids.shape
        order = ids.flatten().argsort(stable=True)
        back = torch.empty_like(order)
        back[order] = torch.arange(order.numel(), device=order.device)
        counts = torch.bincount(ids.flatten(), minlength=self.into.shape[0]).tolist()
        rows = tokens.index_select(0, order // top_k)
        gate, up = GroupedMatmul.apply(rows, self.into, counts).chunk(2, dim=-1)
        rows = GroupedMatmul.apply(functional.silu(gate) * up, self.out, counts)
        rows = rows.index_select(0, back).view(n_tokens, top_k, -1)
        return torch.bmm(gates[:, None], rows).squeeze(1)


class SwiGLU(nn.Module):
    """Dense gated feed-forward block, also the shared experts (n of them are one of n times the width)."""

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.into = nn.Linear(hidden, 2 * width, bias=False)
        self.out = nn.Linear(width, hidden, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return float[..., hidden]."""
        gate, up = self.into(tokens).chunk(2, dim=-1)
        out: Tensor = self.out(functional.silu(gate) * up)
        return out


@dataclass(frozen=True)
class Routed:
    """What one MoE layer decided on a batch: logits[tokens, experts], scores, ids[tokens, top_k]."""

    logits: Tensor
    scores: Tensor
    ids: Tensor


class MoE(nn.Module):
    """Shared experts plus routed ones; ``bias`` steers selection only and is moved by ``update_bias``."""

    bias: Tensor

    def __init__(self, router: Router, n_experts: int, hidden: int, expert_hidden: int, n_shared: int) -> None:
        super().__init__()
        self.router = router
        self.centroids = nn.Parameter(torch.randn(n_experts, hidden) * 0.02)
        self.experts = Experts(n_experts, hidden, expert_hidden)
        self.shared = SwiGLU(hidden, n_shared * expert_hidden)
        self.register_buffer("bias", torch.zeros(n_experts))

    def forward(self, tokens: Tensor) -> tuple[Tensor, Routed]:
        """Return the block's output float[tokens, hidden] and how it routed."""
        logits = functional.linear(tokens, self.centroids)
        if not self.training:
            logits = logits.half().double()
        scores = affinity(logits, self.router)
        with torch.no_grad():
            ids = select(scores, self.bias, self.router)
        gates = scores.gather(1, ids)
        if self.router.normalize:
            gates = gates / gates.sum(-1, keepdim=True)
        gates = (gates * self.router.scale).to(tokens.dtype)
        return self.shared(tokens) + self.experts(tokens, ids, gates), Routed(logits, scores, ids)

    def update_bias(self, ids: Tensor, rate: float) -> None:
        """Raise the bias of experts that got less than the mean load, lower the others' (V3, loss-free)."""
        load = torch.bincount(ids.flatten(), minlength=len(self.bias)).to(self.bias.dtype)
        self.bias += rate * torch.sign(load.mean() - load)
