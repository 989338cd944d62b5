"""Multi-head latent attention (MLA), absorbed: every head reads the one latent cache of 512 + 64 values per token.

A tile is 64 of the B q h query rows against a stretch of the cache; a wave is a tile on each SM.

Decode, FlashAttention-3 (what SGLang ran on the H100 and H200), blocks of 80 cached tokens:

    t = t0 + a W + [split] (tc + ts S B) + hide(compute, memory) + [fp8] max(tq, bytes of the cache / Rq)
    compute = W ceil(blocks / S) 80 x 64 x 2 (2 c + r) / (e P / SM),  memory = bytes / (em B),  W = ceil(tiles S / SM)

S is the number of parts that a sequence is split into: 1 where the tiles alone fill 0.8 of the SMs or the cache is
4 blocks or less, otherwise the least that keeps the last wave at 0.85 of the best. The FP8 variant casts the cache
to BF16 first, by a kernel that reads Rq bytes/s.

Decode, FlashInfer (the H800 and H20 rows): 128 query rows to a team of two SMs (up to 64 rows to one), sequences cut at
the mean load of a team (rounded up to 256) and dealt out greedily, the least loaded team first; the fullest team sets
the time:

    t = t0 + a n + [cut] tc + hide(L 64 x 2 (2 c + r) / (e P / SM), memory)     L tokens in n parts on that team

Prefill, absorbed (FlashAttention-3, no prefix): 2 B S tiles of 64 rows, the one of token t reads ceil((t + 1) / 64)
blocks: t = t0 + a W + hide(mean blocks W ..., memory), W = max(1, tiles / SM). Prefill in multi-head form, one
sequence on the H800: t = t0 + FLOPs / (e P).
"""

import heapq
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from moesim.compute.fitted.gemm import hide
from moesim.compute.gpus import Gpu
from moesim.compute.roofline import BF16, FP32, Floats

Ints = NDArray[np.int64]
Coefficients = Mapping[str, float]

TILE = 64
DECODE_BLOCK = 80  # FlashAttention-3 on the fit rows: 64 to 112 differ by little, 128 is worse
PREFILL_BLOCK = 64
FILLED, BEST = 0.8, 0.85  # FlashAttention-3's rule for splitting a sequence
MOST_SPLITS = 128


@dataclass(frozen=True)
class Attention:
    """An attention kernel before any coefficient, [ranks] each.

    ``waves`` of tiles (or parts on the fullest team), ``flops`` of one SM's share, ``moved`` bytes, ``splits`` of a
    sequence (1: none), ``merged`` bytes of partial outputs, ``cache`` values in the latent cache.
    """

    waves: Floats
    flops: Floats
    moved: Floats
    splits: Floats
    merged: Floats
    cache: Floats


def _moved(batch: Floats, kv: Floats, rows: Floats, latent: int, rope: int) -> Floats:
    moved: Floats = BF16 * (batch * kv * (latent + rope) + rows * (2 * latent + rope))
    return moved


def _splits(tiles: Ints, blocks: Ints, sms: int) -> Ints:
    """Return the parts that each sequence is split into, [ranks]."""
    tried = np.arange(1, min(MOST_SPLITS, sms) + 1)
    load = tiles[:, None] * tried / sms
    full = load / np.maximum(np.ceil(load), 1.0)
    full = np.where(tried <= np.maximum(blocks, 1)[:, None], full, 0.0)
    least = np.argmax(full >= BEST * full.max(axis=1)[:, None], axis=1) + 1
    return np.where((tiles >= FILLED * sms) | (blocks <= 4), 1, least)


def prepare_decode(gpu: Gpu, batch: Ints, kv_len: Ints, heads: int, q_tokens: int, latent: int, rope: int) -> Attention:
    """Cut decode of ``batch[ranks]`` sequences of ``kv_len[ranks]`` cached tokens as FlashAttention-3 does."""
    tiles = batch * -(-heads * q_tokens // TILE)
    blocks = -(-kv_len // DECODE_BLOCK)
    splits = _splits(tiles, blocks, gpu.sms)
    waves = np.ceil(tiles * splits / gpu.sms)
    rows = batch.astype(np.float64) * heads * q_tokens
    return Attention(
        waves=waves,
        flops=waves * -(-blocks // splits) * DECODE_BLOCK * TILE * 2.0 * (2 * latent + rope),
        moved=_moved(batch.astype(np.float64), kv_len.astype(np.float64), rows, latent, rope),
        splits=splits.astype(np.float64),
        merged=2.0 * FP32 * splits * rows * latent,
        cache=(batch * kv_len * (latent + rope)).astype(np.float64),
    )


def decode_seconds(gpu: Gpu, cache_dtype: str, c: Coefficients, work: Attention) -> Floats:
    """Return the time of FlashAttention-3's decode, [ranks]; ``cache_dtype`` bf16 or fp8."""
    merge = np.where(work.splits > 1, c["tc"] + c["ts"] * work.merged / gpu.hbm_bandwidth, 0.0)
    total: Floats = c["t0"] + c["a"] * work.waves + merge + _both(gpu, c, work)
    if cache_dtype == "fp8":
        total = total + np.maximum(c["tq"], work.cache / c["Rq"])
    return total


def _both(gpu: Gpu, c: Coefficients, work: Attention) -> Floats:
    return hide(work.flops / (gpu.bf16_flops * c["e"] / gpu.sms), work.moved / (gpu.hbm_bandwidth * c["em"]), c["p"])


@lru_cache(maxsize=4096)
def deal(batch: int, kv_len: int, teams: int, tiles: int, rows: int) -> tuple[int, int, bool]:
    """Deal ``batch`` sequences of ``kv_len`` tokens (``tiles`` of ``rows`` query rows each) to ``teams`` of SMs.

    Returns the tokens on the fullest team in blocks of 64, its parts, and whether sequences were cut.
    """
    mean = max(-(-batch * tiles * kv_len // teams), 1)
    limit = next(
        (cut for most, cut in ((8, 32), (16, 64), (32, 128), (64, 192)) if mean <= most), -(-mean // 256) * 256
    )
    heap = [(0, team) for team in range(teams)]
    tokens, parts = [0] * teams, [0] * teams
    for _ in range(batch * tiles):
        for start in range(0, max(kv_len, 1), limit):
            part = min(kv_len - start, limit)
            cost, team = heap[0]
            heapq.heapreplace(heap, (cost + 2 * rows + part, team))
            tokens[team] += -(-part // TILE) * TILE
            parts[team] += 1
    fullest = max(range(teams), key=lambda team: (tokens[team], parts[team]))
    return tokens[fullest], parts[fullest], kv_len > limit


def prepare_dealt(gpu: Gpu, batch: Ints, kv_len: Ints, heads: int, q_tokens: int, latent: int, rope: int) -> Attention:
    """Cut decode of ``batch[ranks]`` sequences of ``kv_len[ranks]`` cached tokens as FlashInfer does."""
    team = 2 if heads * q_tokens > TILE else 1  # SMs that share a sequence's cache, a tile of query rows each
    tiles = -(-heads * q_tokens // (team * TILE))
    dealt = [deal(int(b), int(kv), gpu.sms // team, tiles, team * TILE) for b, kv in zip(batch, kv_len, strict=True)]
    tokens, parts, cut = (np.array([one[i] for one in dealt], dtype=np.float64) for i in range(3))
    rows = batch.astype(np.float64) * heads * q_tokens
    return Attention(
        waves=parts,
        flops=tokens * TILE * 2.0 * (2 * latent + rope),
        moved=_moved(batch.astype(np.float64), kv_len.astype(np.float64), rows, latent, rope),
        splits=1.0 + cut,
        merged=np.zeros(len(batch)),
        cache=(batch * kv_len * (latent + rope)).astype(np.float64),
    )


def dealt_seconds(gpu: Gpu, c: Coefficients, work: Attention) -> Floats:
    """Return the time of FlashInfer's decode, [ranks]."""
    total: Floats = c["t0"] + c["a"] * work.waves + c["tc"] * (work.splits > 1) + _both(gpu, c, work)
    return total


def prepare_prefill(gpu: Gpu, batch: Ints, length: Ints, heads: int, latent: int, rope: int) -> Attention:
    """Cut absorbed causal prefill of ``batch[ranks]`` sequences of ``length[ranks]`` tokens, no prefix."""
    rows = batch.astype(np.float64) * length * heads
    waves = np.maximum(1.0, batch * length * (heads / TILE) / gpu.sms)
    # The mean of ceil((t + 1) / block) over t = 0 .. length - 1, in closed form.
    whole, rest = np.divmod(length, PREFILL_BLOCK)
    blocks = (PREFILL_BLOCK * whole * (whole + 1) / 2 + rest * (whole + 1)) / np.maximum(length, 1)
    return Attention(
        waves=waves,
        flops=waves * blocks * PREFILL_BLOCK * TILE * 2.0 * (2 * latent + rope),
        moved=_moved(batch.astype(np.float64), length.astype(np.float64), rows, latent, rope),
        splits=np.ones(len(batch)),
        merged=np.zeros(len(batch)),
        cache=(batch * length * (latent + rope)).astype(np.float64),
    )


def prefill_seconds(gpu: Gpu, c: Coefficients, work: Attention) -> Floats:
    """Return the time of absorbed prefill, [ranks]."""
    total: Floats = c["t0"] + c["a"] * work.waves + _both(gpu, c, work)
    return total
