"""Kernels bound by memory: copies, permutation and back, SwiGLU, the cast to FP8; and launches that move nothing.

Each by PyTorch's operators (several passes over memory) or by one Triton kernel.
"""

from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from moesim.profile.kernels import expert_gemm, fp8
from moesim.profile.kernels.case import (
    EXACT,
    FP8,
    FP32,
    FP64,
    ONE_GEMM,
    Case,
    Draw,
    relative_error,
    some_rows,
    swiglu_reference,
)
from moesim.profile.points import Point


def copy(point: Point, draw: Draw) -> Case:
    """Return a device copy of ``tokens`` bytes."""

    def inputs() -> tuple[Tensor, Tensor]:
        source = draw.normal(point.tokens // 2)
        return source, torch.empty_like(source)

    def call(source: Tensor, target: Tensor) -> Tensor:
        return target.copy_(source)

    def error(args: tuple[Any, ...], output: Any) -> float:
        return 0.0 if torch.equal(args[0], output) else float("inf")

    return Case(inputs, call, error, EXACT)


def launch(point: Point, draw: Draw) -> Case:
    """Return ``batch`` kernels in a row that add one to a number each, or do nothing (Triton); eager or as a graph."""
    one: Callable[[Tensor], object] = _add_one
    if point.impl == "triton":
        from moesim.profile.kernels import fused_moe

        one = fused_moe.nothing

    def chain(number: Tensor) -> Tensor:
        for _ in range(point.batch):
            one(number)
        return number

    if point.variant == "graph":
        number = draw.normal(1, dtype=FP32)
        chain(number)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            chain(number)

    def inputs() -> tuple[Tensor]:
        return (draw.normal(1, dtype=FP32),)

    def call(number: Tensor) -> Any:
        return chain(number) if point.variant == "eager" else graph.replay()

    def error(args: tuple[Any, ...], output: Any) -> float:
        return 0.0  # nothing is computed

    return Case(inputs, call, error, EXACT, chained=False)


def _add_one(number: Tensor) -> Tensor:
    return number.add_(1)


def permute(point: Point, draw: Draw) -> Case:
    """Return the gather of tokens into expert order: selection r of the order belongs to token order[r] // top_k."""

    def inputs() -> tuple[Tensor, Tensor]:
        rows = draw.normal(point.tokens, point.hidden)
        rows = rows.to(FP8).view(torch.uint8) if point.dtype == "fp8" else rows
        return rows, draw.permutation(point.tokens * point.topk) // point.topk

    def call(rows: Tensor, source: Tensor) -> Tensor:
        if point.impl == "triton":
            from moesim.profile.kernels import fused_moe

            return fused_moe.permute(rows, source)
        return rows.index_select(0, source)

    def error(args: tuple[Any, ...], output: Any) -> float:
        rows, source = args
        return 0.0 if all(torch.equal(output[r], rows[source[r]]) for r in some_rows(len(source))) else float("inf")

    return Case(inputs, call, error, EXACT)


def unpermute(point: Point, draw: Draw) -> Case:
    """Return the weighted sum back: token t gets sum over k of gates[t, k] * rows[place[t, k]]."""

    def inputs() -> tuple[Tensor, Tensor, Tensor]:
        selections = point.tokens * point.topk
        place = draw.permutation(selections).view(point.tokens, point.topk)
        gates = draw.normal(point.tokens, point.topk, dtype=FP32).abs_()
        return draw.normal(selections, point.hidden), place, gates

    def call(rows: Tensor, place: Tensor, gates: Tensor) -> Tensor:
        if point.impl == "triton":
            from moesim.profile.kernels import fused_moe

            return fused_moe.unpermute(rows, place, gates)
        chosen = rows.index_select(0, place.flatten()).view(*place.shape, -1)
        return torch.bmm(gates[:, None].to(rows.dtype), chosen).squeeze(1)

    def error(args: tuple[Any, ...], output: Any) -> float:
        rows, place, gates = args
        taken = some_rows(point.tokens)
        # The gates that a bf16 product sees are rounded: one rounding each, within the tolerance.
        sums = [
            reduce(torch.add, (gate.to(FP64) * rows[at].to(FP64) for gate, at in zip(gates[t], place[t], strict=True)))
            for t in taken
        ]
        return relative_error(output[taken], torch.stack(sums))

    return Case(inputs, call, error, ONE_GEMM)


# A step of e4m3 is 32 where values reach 448: rounding loses half of it, truncation all.
CAST_ERROR = 0.08


def swiglu(point: Point, draw: Draw) -> Case:
    """Return SiLU(gate) * up over ``tokens`` rows."""

    def inputs() -> tuple[Tensor]:
        return (draw.normal(point.tokens, 2 * point.inter),)

    def call(middle: Tensor) -> Tensor:
        if point.impl == "triton":
            from moesim.profile.kernels import fused_moe

            return fused_moe.swiglu(middle)
        return expert_gemm.swiglu(middle)

    def error(args: tuple[Any, ...], output: Any) -> float:
        taken = some_rows(point.tokens)
        return relative_error(output[taken], swiglu_reference(args[0][taken]))

    return Case(inputs, call, error, ONE_GEMM)


def quantize_fp8(point: Point, draw: Draw) -> Case:
    """Return the cast of ``tokens`` rows with one scale per 128 values."""

    def inputs() -> tuple[Tensor]:
        return (draw.normal(point.tokens, point.hidden),)

    def call(values: Tensor) -> tuple[Tensor, Tensor]:
        if point.impl == "triton":
            from moesim.profile.kernels import fused_moe

            return fused_moe.quantize(values)
        return fp8.block_rows(values)

    def error(args: tuple[Any, ...], output: Any) -> float:
        taken = some_rows(point.tokens)
        values, back = args[0][taken].to(FP64), fp8.block_dequantized(output[0][taken], output[1][taken])
        groups = (values - back).unflatten(-1, (-1, fp8.BLOCK)).abs().amax(-1)
        return float((groups / values.unflatten(-1, (-1, fp8.BLOCK)).abs().amax(-1)).max())

    return Case(inputs, call, error, CAST_ERROR)
