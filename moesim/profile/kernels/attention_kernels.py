"""Attention, as filler between MoE layers: MLA in both its forms, MHA and GQA, prefill and decode, bf16.

MLA's sizes are those of DeepSeek-V2 and V3. Absorbed decode works on the latent cache: every head reads the same
576 values per token. Unabsorbed decode rebuilds keys and values of all heads from it first, as prefill does. Fused
backends of PyTorch do not take heads of 576, so the absorbed form is batched GEMM, softmax, batched GEMM.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from moesim.profile.kernels.case import FP64, MLP, Case, Draw, relative_error, some_rows
from moesim.profile.points import Point
from moesim.profile.work import HEAD, KV_HEADS, LATENT, ROPE, VALUE

# Scores of the absorbed form pass through memory as bf16: 8 bits of an exponent's argument.
ABSORBED = 0.05
CHECKED_QUERIES = 4  # heads, and new tokens, that are compared


def attention(point: Point, draw: Draw) -> Case:
    """Return scaled dot product attention: causal over new tokens, or one new token against a cache."""
    kind = point.kernel.partition("_")[0]
    key, value = (HEAD + ROPE, VALUE) if kind == "mla" else (HEAD, HEAD)
    kv_heads = KV_HEADS if kind == "gqa" else point.heads
    causal = point.tokens > 1

    def inputs() -> tuple[Tensor, Tensor, Tensor]:
        batch, cached = point.batch, point.kv_len
        values = draw.normal(batch, kv_heads, cached, value)
        if point.impl == "sdpa-padded":
            values = functional.pad(values, (0, key - value))
        return draw.normal(batch, point.heads, point.tokens, key), draw.normal(batch, kv_heads, cached, key), values

    def call(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        with _fused_backends(queries):
            return functional.scaled_dot_product_attention(
                queries, keys, values, is_causal=causal, enable_gqa=kind == "gqa"
            )[..., :value]

    def error(args: tuple[Any, ...], output: Any) -> float:
        queries, keys, values = args
        heads, rows = _some(point.heads), some_rows(point.tokens)[-CHECKED_QUERIES:]
        worst = 0.0
        for head in heads:
            own = head * kv_heads // point.heads
            for row in rows:
                seen = row + 1 if causal else point.kv_len
                scores = keys[-1, own, :seen].to(FP64) @ queries[-1, head, row].to(FP64)
                reference = torch.softmax(scores * key**-0.5, dim=0) @ values[-1, own, :seen, :value].to(FP64)
                worst = max(worst, relative_error(output[-1, head, row], reference))
        return worst

    return Case(inputs, call, error, MLP)


def mla_decode(point: Point, draw: Draw) -> Case:
    """Return one step of MLA decode against a latent cache, absorbed or not.

    The queries of the absorbed form are already multiplied with the keys' projection, and its output stays latent:
    both projections are GEMMs of the layer, not of attention. The unabsorbed form pays for rebuilding the cache.
    """
    absorbed = point.impl == "absorbed"
    heads, batch, cached = point.heads, point.batch, point.kv_len
    scale = (HEAD + ROPE) ** -0.5

    def inputs() -> tuple[Tensor, ...]:
        cache = draw.normal(batch, cached, LATENT + ROPE)
        if absorbed:  # key projection keeps the variance of a head of 128
            return draw.normal(batch, heads, LATENT + ROPE, scale=0.5), cache
        return (
            draw.normal(batch, heads, 1, HEAD + ROPE),
            cache,
            draw.normal(heads * (HEAD + VALUE), LATENT, scale=LATENT**-0.5),
        )

    def on_latents(queries: Tensor, cache: Tensor) -> Tensor:
        weights = torch.softmax(torch.bmm(queries, cache.transpose(1, 2)) * scale, dim=-1)
        return torch.bmm(weights, cache[..., :LATENT])

    def on_heads(queries: Tensor, cache: Tensor, rebuild: Tensor) -> Tensor:
        latent, rotary = cache.split([LATENT, ROPE], dim=-1)
        rebuilt = functional.linear(latent, rebuild).view(batch, cached, heads, HEAD + VALUE).transpose(1, 2)
        keys, values = rebuilt.split([HEAD, VALUE], dim=-1)
        keys = torch.cat((keys, rotary[:, None].expand(-1, heads, -1, -1)), dim=-1)
        with _fused_backends(queries):
            return functional.scaled_dot_product_attention(queries, keys, values, scale=scale)

    def error(args: tuple[Any, ...], output: Any) -> float:
        queries, cache = args[0][-1].to(FP64), args[1][-1].to(FP64)
        worst = 0.0
        for head in _some(heads):
            keys, values, query = cache, cache[:, :LATENT], queries[head]
            if not absorbed:
                own = args[2].view(heads, HEAD + VALUE, LATENT)[head].to(FP64)
                keys = torch.cat((cache[:, :LATENT] @ own[:HEAD].T, cache[:, LATENT:]), dim=-1)
                values, query = cache[:, :LATENT] @ own[HEAD:].T, query[0]
            reference = torch.softmax(keys @ query * scale, dim=0) @ values
            worst = max(worst, relative_error(output[-1, head].flatten(), reference))
        return worst

    return Case(inputs, on_latents if absorbed else on_heads, error, ABSORBED if absorbed else MLP)


def _some(heads: int) -> list[int]:
    return sorted({0, heads // 3, heads - 1})


def _fused_backends(tensor: Tensor) -> AbstractContextManager[Any]:
    """Keep PyTorch from falling back to a form that writes all scores to memory."""
    if not tensor.is_cuda:
        return nullcontext()
    from torch.nn.attention import SDPBackend, sdpa_kernel

    fused = [SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]
    kernels: AbstractContextManager[Any] = sdpa_kernel(fused)
    return kernels
