"""A kernel ready to be checked and timed, random inputs, and the error of a result."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

BF16, FP32, FP64, FP8 = torch.bfloat16, torch.float32, torch.float64, torch.float8_e4m3fn
CHECKED_ROWS = 48
# Largest error against a float64 reference that starts from the same (rounded) inputs, relative to the largest value.
# A wrong kernel is off by about 1. Rounding: bf16 outputs 0.004, partial sums of split K the same once more; fp8
# sums on Hopper about 0.02 at K = 4096 (DeepSeek-V3, 3.3.2); an MLP casts its middle too, to 3 bits of mantissa.
EXACT, ONE_GEMM, ONE_FP8_GEMM, MLP, FP8_MLP = 0.0, 0.02, 0.05, 0.03, 0.1


@dataclass(frozen=True)
class Case:
    """``call(*inputs())`` runs the kernel; ``error(inputs, output)`` may be at most ``tolerance``.

    ``chained`` is false where launching is itself what is measured, so that no graph may hide it.
    """

    inputs: Callable[[], tuple[Any, ...]]
    call: Callable[..., Any]
    error: Callable[[tuple[Any, ...], Any], float]
    tolerance: float
    chained: bool = True


class Draw:
    """Seeded random tensors on a device. Never zeros: they run faster than data does."""

    def __init__(self, device: str, seed: int) -> None:
        self.device = device
        self.generator = torch.Generator(device).manual_seed(seed)

    def normal(self, *shape: int, scale: float = 1.0, dtype: torch.dtype = BF16) -> Tensor:
        """Return ``scale`` times standard normal values."""
        values = torch.randn(*shape, generator=self.generator, device=self.device, dtype=dtype)
        return values.mul_(scale) if scale != 1.0 else values

    def fp8(self, *shape: int, scale: float = 1.0) -> tuple[Tensor, Tensor]:
        """Return normal values cast to fp8 with one scale per row, and the scales."""
        return rowwise(self.normal(*shape, scale=scale))

    def integers(self, high: int, *shape: int) -> Tensor:
        """Return int64 values in [0, high)."""
        return torch.randint(high, shape, generator=self.generator, device=self.device)

    def permutation(self, count: int) -> Tensor:
        """Return 0 .. count - 1 in random order."""
        return torch.randperm(count, generator=self.generator, device=self.device)


FP8_MAX = 448.0  # largest finite e4m3 value


def rowwise(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return fp8 values and float32 scales[...], one per last-dimension row: values = fp8 * scale."""
    scale = values.abs().amax(dim=-1).float().clamp(min=1e-12) / FP8_MAX
    return (values / scale[..., None]).to(FP8), scale


def dequantized(values: Tensor, scale: Tensor) -> Tensor:
    """Return float64 values of what `rowwise` gave."""
    return values.to(FP64) * scale.to(FP64)[..., None]


def some_rows(count: int) -> list[int]:
    """Return up to 48 rows spread evenly over ``count``, first and last among them."""
    taken = min(count, CHECKED_ROWS)
    return sorted({round(i * (count - 1) / max(taken - 1, 1)) for i in range(taken)})


def relative_error(output: Tensor, reference: Tensor) -> float:
    """Return max |output - reference| / max |reference|, infinite for anything that is not finite."""
    worst = (output.to(FP64) - reference.to(FP64)).abs().max().item()
    largest = reference.to(FP64).abs().max().item()
    error = worst / largest if largest > 0 else worst
    return error if error == error else float("inf")


def swiglu_reference(middle: Tensor) -> Tensor:
    """Return SiLU(gate) * up in float64 of middle[..., 2 inter], gates first."""
    gate, up = middle.to(FP64).chunk(2, dim=-1)
    return gate / (1 + torch.exp(-gate)) * up
