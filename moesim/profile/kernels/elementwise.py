"""SwiGLU and the cast to fp8, by PyTorch's operators (several passes over memory) or one Triton kernel."""

from typing import Any

from torch import Tensor

from moesim.profile.kernels import experts, fp8
from moesim.profile.kernels.case import (
    FP64,
    ONE_GEMM,
    Case,
    Draw,
    relative_error,
    some_rows,
    swiglu_reference,
)
from moesim.profile.points import Point

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
        return experts.swiglu(middle)

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
