"""FP8 GEMMs of PyTorch: one scale per row, or one per 1 x 128 inputs and 128 x 128 weights (DeepSeek-V3, 3.3.2).

Names differ between versions: since 2.10 `torch.nn.functional.scaled_mm` and `scaled_grouped_mm` take a recipe,
before there are the private ones. What a version or device refuses raises, and becomes a row that says so.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from moesim.profile.kernels.case import BF16, FP8, FP8_MAX, FP64

BLOCK = 128


def scaled_mm(rows: Tensor, scale: Tensor, weight: Tensor, weight_scale: Tensor) -> Tensor:
    """Return bf16[m, n] of fp8 rows[m, k] and weight[n, k] with scale[m] and weight_scale[n]."""
    scale, weight_scale = scale[:, None], weight_scale[None]
    if hasattr(functional, "scaled_mm"):
        recipe = functional.ScalingType.RowWise
        return functional.scaled_mm(
            rows, weight.t(), scale, recipe, weight_scale, recipe, output_dtype=BF16, use_fast_accum=True
        )
    return torch._scaled_mm(rows, weight.t(), scale, weight_scale, out_dtype=BF16, use_fast_accum=True)


def scaled_grouped_mm(rows: Tensor, scale: Tensor, weight: Tensor, weight_scale: Tensor, ends: Tensor) -> Tensor:
    """Return bf16[m, n] of fp8 rows[m, k], weight[experts, n, k], scale[m], weight_scale[experts, n].

    ``ends[experts]`` (int32) are the ends of the experts' rows.
    """
    weight = weight.transpose(-2, -1)
    if hasattr(functional, "scaled_grouped_mm"):
        recipe = functional.ScalingType.RowWise
        return functional.scaled_grouped_mm(
            rows, weight, scale, recipe, weight_scale, recipe, offs=ends, output_dtype=BF16, use_fast_accum=True
        )
    return torch._scaled_grouped_mm(rows, weight, scale, weight_scale, offs=ends, out_dtype=BF16, use_fast_accum=True)


def block_rows(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return fp8[m, k] and float32 scales[m, k / 128] of groups of 128 along a row.

    The scales are stored column by column: those of one group of 128 lie side by side, as the GEMMs want them.
    """
    groups = values.unflatten(-1, (-1, BLOCK))
    scale = groups.abs().amax(dim=-1).float().clamp(min=1e-12) / FP8_MAX
    return (groups / scale[..., None]).to(FP8).flatten(-2), scale.t().contiguous().t()


def block_weights(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return fp8[..., n, k] and float32 scales[..., n / 128, k / 128] of tiles of 128 x 128."""
    tiles = values.unflatten(-1, (-1, BLOCK)).unflatten(-3, (-1, BLOCK))
    scale = tiles.abs().amax(dim=(-3, -1)).float().clamp(min=1e-12) / FP8_MAX
    cast = (tiles / scale[..., :, None, :, None]).to(FP8)
    return cast.flatten(-2).flatten(-3, -2), scale


def block_dequantized(values: Tensor, scale: Tensor) -> Tensor:
    """Return float64 of ``values`` whose last dimensions hold 128 (or 128 x 128) per scale."""
    wide = scale.to(FP64).repeat_interleave(BLOCK, dim=-1)
    if wide.shape != values.shape:
        wide = wide.repeat_interleave(BLOCK, dim=-2)
    return values.to(FP64) * wide


def block_scaled_mm(rows: Tensor, scale: Tensor, weight: Tensor, weight_scale: Tensor, ends: Tensor | None) -> Tensor:
    """Return bf16[m, n] in the block recipe; ``ends`` makes it a grouped GEMM."""
    by_row, by_tile = functional.ScalingType.BlockWise1x128, functional.ScalingType.BlockWise128x128
    more: dict[str, Any] = {} if ends is None else {"offs": ends}
    product = functional.scaled_mm if ends is None else functional.scaled_grouped_mm
    return product(
        rows, weight.transpose(-2, -1), scale, by_row, weight_scale.transpose(-2, -1), by_tile,
        output_dtype=BF16, **more,
    )  # fmt: skip
