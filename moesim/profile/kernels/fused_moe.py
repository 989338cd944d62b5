"""Triton kernels for what PyTorch does in several passes. Imported where there is a CUDA device and Triton.

Each is one pass over memory, one program per row (and part of a row), float32 inside.
"""

# Triton's decorator and language are untyped.
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

import torch
import triton
import triton.language as tl
from torch import Tensor

from moesim.profile.kernels.case import BF16, FP8, FP8_MAX

GROUP = tl.constexpr(128)
TOP = tl.constexpr(FP8_MAX)


@triton.jit
def _nothing(anything):
    pass


@triton.jit
def _silu_times(gate, up):
    gate = gate.to(tl.float32)
    return gate / (1.0 + tl.exp(-gate)) * up.to(tl.float32)


@triton.jit
def _swiglu(middle, out, inter, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < inter
    gate = tl.load(middle + row * 2 * inter + column, mask=inside)
    up = tl.load(middle + row * 2 * inter + inter + column, mask=inside)
    tl.store(out + row * inter + column, _silu_times(gate, up).to(out.dtype.element_ty), mask=inside)


@triton.jit
def _swiglu_fp8(middle, out, scales, inter, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < inter
    gate = tl.load(middle + row * 2 * inter + column, mask=inside, other=0.0)
    up = tl.load(middle + row * 2 * inter + inter + column, mask=inside, other=0.0)
    values = _silu_times(gate, up)
    scale = tl.maximum(tl.max(tl.abs(values), axis=0), 1e-12) / TOP
    tl.store(out + row * inter + column, (values / scale).to(out.dtype.element_ty), mask=inside)
    tl.store(scales + row, scale)


@triton.jit
def _quantize(values, out, scales, groups, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    group = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    at = (row * groups + group)[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
    inside = group < groups
    loaded = tl.load(values + at, mask=inside[:, None], other=0.0).to(tl.float32)
    scale = tl.maximum(tl.max(tl.abs(loaded), axis=1), 1e-12) / TOP
    tl.store(out + at, (loaded / scale[:, None]).to(out.dtype.element_ty), mask=inside[:, None])
    tl.store(scales + row * groups + group, scale, mask=inside)


@triton.jit
def _gather(values, source, out, hidden, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < hidden
    loaded = tl.load(values + tl.load(source + row) * hidden + column, mask=inside)
    tl.store(out + row * hidden + column, loaded, mask=inside)


@triton.jit
def _weighted_sum(rows, place, gates, out, hidden, TOP_K: tl.constexpr, BLOCK: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < hidden
    total = tl.zeros([BLOCK], dtype=tl.float32)
    for choice in tl.static_range(TOP_K):
        row = tl.load(place + token * TOP_K + choice)
        gate = tl.load(gates + token * TOP_K + choice)
        total += gate * tl.load(rows + row * hidden + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + token * hidden + column, total.to(out.dtype.element_ty), mask=inside)


def nothing(anything: Tensor) -> None:
    """Launch a kernel that does nothing."""
    _nothing[(1,)](anything)


def swiglu(middle: Tensor) -> Tensor:
    """Return SiLU(gate) * up, bf16[rows, inter], of middle[rows, 2 inter]."""
    rows, inter = middle.shape[0], middle.shape[1] // 2
    out = torch.empty(rows, inter, dtype=BF16, device=middle.device)
    _swiglu[(rows, triton.cdiv(inter, 1024))](middle, out, inter, BLOCK=1024)
    return out


def swiglu_fp8(middle: Tensor) -> tuple[Tensor, Tensor]:
    """Return the same cast to fp8, with one float32 scale per row."""
    rows, inter = middle.shape[0], middle.shape[1] // 2
    out = torch.empty(rows, inter, dtype=FP8, device=middle.device)
    scales = torch.empty(rows, dtype=torch.float32, device=middle.device)
    _swiglu_fp8[(rows,)](middle, out, scales, inter, BLOCK=triton.next_power_of_2(inter))
    return out, scales


def quantize(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return fp8[rows, hidden] and float32 scales[rows, hidden / 128]."""
    rows, groups = values.shape[0], values.shape[1] // 128
    out = torch.empty_like(values, dtype=FP8)
    scales = torch.empty(rows, groups, dtype=torch.float32, device=values.device)
    _quantize[(rows, triton.cdiv(groups, 8))](values, out, scales, groups, BLOCK=8)
    return out, scales


def permute(values: Tensor, source: Tensor) -> Tensor:
    """Return values[source]: row r of the result is row source[r]."""
    hidden = values.shape[1]
    out = torch.empty(len(source), hidden, dtype=values.dtype, device=values.device)
    _gather[(len(source), triton.cdiv(hidden, 1024))](values, source, out, hidden, BLOCK=1024)
    return out


def unpermute(rows: Tensor, place: Tensor, gates: Tensor) -> Tensor:
    """Return sum over k of gates[t, k] * rows[place[t, k]], in the type of ``rows``."""
    (tokens, top_k), hidden = place.shape, rows.shape[1]
    out = torch.empty(tokens, hidden, dtype=rows.dtype, device=rows.device)
    _weighted_sum[(tokens, triton.cdiv(hidden, 1024))](rows, place, gates, out, hidden, TOP_K=top_k, BLOCK=1024)
    return out
