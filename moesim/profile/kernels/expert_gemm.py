"""GEMMs of routed and shared experts, by themselves and as a whole MLP, in bf16 and fp8.

Weights are [experts, n, k], as checkpoints have them. Every point is compared with float64 products of the very
inputs on up to 48 rows spread over the experts. In the fp8 MLP the middle is cast with one scale per row.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from moesim.profile.kernels import fp8
from moesim.profile.kernels.case import (
    FP8_MLP,
    FP64,
    MLP,
    ONE_FP8_GEMM,
    ONE_GEMM,
    Case,
    Draw,
    dequantized,
    relative_error,
    rowwise,
    some_rows,
    swiglu_reference,
)
from moesim.profile.points import Point

Weights = tuple[Tensor, ...]


def gemm(point: Point, draw: Draw) -> Case:
    """Return one GEMM: grouped_gemm_up, grouped_gemm_down, or the up GEMM of a dense MLP."""
    n, k = (point.hidden, point.inter) if point.kernel == "grouped_gemm_down" else (2 * point.inter, point.hidden)
    loads = _loads(point)
    ends = _ends(loads, draw)
    experts = len(loads) if point.load_shape else 0
    blocks = point.impl == "torch-block"

    def inputs() -> tuple[Any, ...]:
        rows, weight = draw.normal(point.tokens, k), _weight(draw, experts, n, k)
        if point.dtype == "bf16":
            return rows, weight
        if blocks:
            return (*fp8.block_rows(rows), *fp8.block_weights(weight))
        return (*rowwise(rows), *rowwise(weight))

    def call(*args: Tensor) -> Tensor:
        if blocks:
            rows, scale, weight, weight_scale = args
            return fp8.block_scaled_mm(rows, scale, weight, weight_scale, ends if experts else None)
        return _product(args[: len(args) // 2], args[len(args) // 2 :], ends)

    def error(args: tuple[Any, ...], output: Any) -> float:
        taken = some_rows(point.tokens)
        rows, weight = args[: len(args) // 2], args[len(args) // 2 :]
        exact = fp8.block_dequantized if blocks else dequantized
        return relative_error(output[taken], _reference(_exact(_part(rows, taken), exact), weight, loads, taken, exact))

    return Case(inputs, call, error, ONE_GEMM if point.dtype == "bf16" else ONE_FP8_GEMM)


def square(point: Point, draw: Draw) -> Case:
    """Return a square bf16 GEMM of side ``tokens``, the anchor."""
    side = point.tokens
    return gemm(replace(point, kernel="grouped_gemm_down", hidden=side, inter=side), draw)


def mlp(point: Point, draw: Draw) -> Case:
    """Return up, SwiGLU, down of routed experts or, without ``load_shape``, of a dense MLP."""
    loads = _loads(point)
    ends = _ends(loads, draw)
    experts = len(loads) if point.load_shape else 0
    between = _between(point)

    def inputs() -> tuple[Any, ...]:
        cast = rowwise if point.dtype == "fp8" else _alone
        drawn = (
            draw.normal(point.tokens, point.hidden),
            _weight(draw, experts, 2 * point.inter, point.hidden),
            _weight(draw, experts, point.hidden, point.inter),
        )
        return tuple(cast(tensor) for tensor in drawn)

    def call(rows: Weights, up: Weights, down: Weights) -> Tensor:
        return _product(between(_product(rows, up, ends)), down, ends)

    def error(args: tuple[Any, ...], output: Any) -> float:
        taken = some_rows(point.tokens)
        rows, up, down = args
        middle = _reference(_exact(_part(rows, taken), dequantized), up, loads, taken, dequantized)
        reference = _reference(swiglu_reference(middle), down, loads, taken, dequantized)
        return relative_error(output[taken], reference)

    return Case(inputs, call, error, MLP if point.dtype == "bf16" else FP8_MLP)


def _loads(point: Point) -> list[int]:
    return point.loads() if point.load_shape else [point.tokens]


def _ends(loads: Sequence[int], draw: Draw) -> Tensor:
    return torch.tensor(list(accumulate(loads)), dtype=torch.int32, device=draw.device)


def _weight(draw: Draw, experts: int, n: int, k: int) -> Tensor:
    """Return weight[experts, n, k], or [n, k] without experts, that keeps the variance of its inputs."""
    shape = (experts, n, k) if experts else (n, k)
    return draw.normal(*shape, scale=k**-0.5)


def _alone(tensor: Tensor) -> tuple[Tensor]:
    return (tensor,)


def _product(rows: Weights, weight: Weights, ends: Tensor) -> Tensor:
    """Multiply: (values,) in bf16 or (values, scales) in fp8; a weight of three axes makes it grouped."""
    grouped = weight[0].dim() == 3
    if len(rows) == 1:
        if grouped:
            return functional.grouped_mm(rows[0], weight[0].transpose(-2, -1), offs=ends)
        return torch.mm(rows[0], weight[0].t())
    (values, scale), (weights, weight_scale) = rows, weight
    if grouped:
        return fp8.scaled_grouped_mm(values, scale, weights, weight_scale, ends)
    return fp8.scaled_mm(values, scale, weights, weight_scale)


def _between(point: Point) -> Callable[[Tensor], Weights]:
    """Return what runs between the GEMMs: SwiGLU, for fp8 with the cast."""
    if point.impl == "torch+triton":
        from moesim.profile.kernels import fused_moe

        return fused_moe.swiglu_fp8 if point.dtype == "fp8" else lambda middle: (fused_moe.swiglu(middle),)
    if point.dtype == "fp8":
        return lambda middle: rowwise(swiglu(middle))
    return lambda middle: (swiglu(middle),)


def swiglu(middle: Tensor) -> Tensor:
    """Return SiLU(gate) * up by PyTorch's operators."""
    gate, up = middle.chunk(2, dim=-1)
    return functional.silu(gate) * up


def _part(tensors: Weights, taken: list[int]) -> Weights:
    return tuple(tensor[taken] for tensor in tensors)


def _exact(tensors: Weights, dequantize: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    return dequantize(*tensors) if len(tensors) == 2 else tensors[0].to(FP64)


def _reference(
    rows: Tensor, weight: Weights, loads: list[int], taken: list[int], dequantize: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Return float64 products of rows[taken] with the weight of the expert that owns each, one expert at a time."""
    parts = []
    end_of_rows = first = 0
    for expert, load in enumerate(loads):
        end_of_rows += load
        last = first
        while last < len(taken) and taken[last] < end_of_rows:
            last += 1
        if last > first:
            own = tuple(tensor[expert] for tensor in weight) if weight[0].dim() == 3 else weight
            parts.append(rows[first:last] @ _exact(own, dequantize).T)
        first = last
    return torch.cat(parts)
