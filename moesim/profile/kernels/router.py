"""The router of each variant, and the sort of its selections by expert. Nothing here waits for the device.

Logits are float32, as the GEMM leaves them. Selection is compared with a float64 one by sorting, on the kernel's
own logits, so that rounding of the GEMM cannot hide or fake a wrong choice.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from moesim.profile.kernels.case import (
    EXACT,
    FP32,
    FP64,
    ONE_GEMM,
    Case,
    Draw,
    relative_error,
    some_rows,
)
from moesim.profile.points import LAYERS, Layer, Point


def router(point: Point, draw: Draw) -> Case:
    """Return logits, scores, (group) top-k and gates; router_topk starts from given logits."""
    layer = LAYERS[point.variant]
    bias = draw.normal(layer.n_experts, scale=0.01, dtype=FP32)
    whole = point.kernel == "router"

    def inputs() -> tuple[Tensor, ...]:
        if not whole:
            return (draw.normal(point.tokens, layer.n_experts, dtype=FP32),)
        return draw.normal(point.tokens, point.hidden), draw.normal(
            layer.n_experts, point.hidden, scale=point.hidden**-0.5
        )

    def call(rows: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        logits = rows if weight is None else logits_of(rows, weight)
        return (logits, *select(logits, bias, layer))

    def error(args: tuple[Any, ...], output: Any) -> float:
        taken = some_rows(point.tokens)
        logits, ids, gates = (part[taken] for part in output)
        chosen = reference_gates(logits, bias, layer)
        worst = relative_error(gates.sort(dim=-1).values, chosen)
        if (ids.sort(dim=-1).values.diff(dim=-1) <= 0).any():
            return float("inf")  # an expert chosen twice
        if whole:
            worst = max(worst, relative_error(logits, args[0][taken].to(FP64) @ args[1].to(FP64).T))
        return worst

    return Case(inputs, call, error, ONE_GEMM if whole else 1e-5)


def logits_of(rows: Tensor, weight: Tensor) -> Tensor:
    """Return float32 logits[tokens, experts] of bf16 rows and weight[experts, hidden]."""
    if rows.is_cuda:
        return torch.mm(rows, weight.t(), out_dtype=FP32)
    return rows.float() @ weight.float().t()


def select(logits: Tensor, bias: Tensor, layer: Layer) -> tuple[Tensor, Tensor]:
    """Return ids[tokens, top_k] and gates as the layer's router defines them."""
    scores = torch.sigmoid(logits) if layer.score == "sigmoid" else torch.softmax(logits, dim=-1)
    keys = scores + bias if layer.score == "sigmoid" else scores
    if layer.top_groups < layer.n_groups:
        grouped = keys.unflatten(-1, (layer.n_groups, -1))
        best = grouped.topk(2, dim=-1).values.sum(-1) if layer.score == "sigmoid" else grouped.amax(-1)
        groups = best.topk(layer.top_groups, dim=-1, sorted=False).indices
        closed = torch.ones_like(best, dtype=torch.bool).scatter_(1, groups, False)
        keys = grouped.masked_fill(closed[..., None], -torch.inf).flatten(1)
    ids = keys.topk(layer.top_k, dim=-1, sorted=False).indices
    gates = scores.gather(1, ids)
    if layer.score == "sigmoid":
        gates = gates / gates.sum(-1, keepdim=True)
    return ids, gates * layer.scale


def reference_gates(logits: Tensor, bias: Tensor, layer: Layer) -> Tensor:
    """Return the gates in ascending order, in float64, one token and one group after the other."""
    gates = []
    sigmoid = layer.score == "sigmoid"
    for row in logits.to(FP64).cpu():
        scores = (1 / (1 + torch.exp(-row)) if sigmoid else torch.exp(row) / torch.exp(row).sum()).tolist()
        keys = [score + (offset if sigmoid else 0.0) for score, offset in zip(scores, bias.tolist(), strict=True)]
        size = len(keys) // layer.n_groups
        groups = [range(group * size, (group + 1) * size) for group in range(layer.n_groups)]
        values = [sum(sorted((keys[e] for e in group), reverse=True)[: 2 if sigmoid else 1]) for group in groups]
        best = _largest(values, range(layer.n_groups), layer.top_groups)
        ids = _largest(keys, [expert for group in best for expert in groups[group]], layer.top_k)
        total = sum(scores[expert] for expert in ids) if sigmoid else 1.0
        gates.append(sorted(layer.scale * scores[expert] / total for expert in ids))
    return torch.tensor(gates, dtype=FP64, device=logits.device)


def _largest(values: Sequence[float], among: Sequence[int], count: int) -> list[int]:
    return sorted(among, key=lambda index: -values[index])[:count]


def sort(point: Point, draw: Draw) -> Case:
    """Return rows per expert and the stable order of selections by expert."""
    experts = point.experts_local

    def inputs() -> tuple[Tensor, Tensor]:
        ids = draw.integers(experts, point.tokens * point.topk)
        return ids, torch.ones_like(ids)

    def call(ids: Tensor, ones: Tensor) -> tuple[Tensor, Tensor]:
        # bincount would wait for the device to learn its length.
        counts = torch.zeros(experts, dtype=ids.dtype, device=ids.device).scatter_add_(0, ids, ones)
        return counts, ids.argsort(stable=True)

    def error(args: tuple[Any, ...], output: Any) -> float:
        ids = args[0].tolist()
        counts, order = output[0].tolist(), output[1].tolist()
        number = Counter(ids)
        right = counts == [number[expert] for expert in range(experts)]
        return 0.0 if right and order == sorted(range(len(ids)), key=ids.__getitem__) else float("inf")

    return Case(inputs, call, error, EXACT)
