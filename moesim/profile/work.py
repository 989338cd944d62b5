"""What a point must do at least, from its sizes alone: FLOPs, bytes across the memory bus, launches; peaks of GPUs.

Each input is read and each output written once; what stays between the kernels of one point (the middle of an
expert MLP) counts as it really passes through memory, since it does not fit on chip. BF16 is 2 bytes, FP8 1 byte
and one FP32 scale per row, which is left out of the GEMMs as negligible and counted in the cast.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from moesim.profile.points import LAYERS, Point

_DATA = Path(__file__).resolve().parent.parent / "data" / "gpus.yaml"
_NAME = re.compile(r"(\w+):\s*$")
_NUMBER = re.compile(r"  (\w+): ([0-9.e+]+)\s*$")
# SXM parts alone: the PCIe and NVL cards of the same name have other peaks.
_DEVICE = re.compile(r"NVIDIA (H100|H800|H200|H20|B200|B300)(?: 80GB HBM3| SXM[0-9]?\b.*)?", re.IGNORECASE)


class Peaks(NamedTuple):
    """Dense FLOP/s of the tensor cores and bytes/s of the memory."""

    bf16_flops: float
    fp8_flops: float
    hbm_bandwidth: float

    def floor_us(self, flops: float, moved: float, dtype: str) -> float:
        """Return max(flops / peak, bytes / bandwidth) in microseconds."""
        peak = self.fp8_flops if dtype == "fp8" else self.bf16_flops
        return 1e6 * max(flops / peak, moved / self.hbm_bandwidth)


def peaks_of(device: str) -> Peaks | None:
    """Return the peaks of the device that calls itself ``device``, None where they are not known."""
    match = _DEVICE.fullmatch(device.strip())
    if match is None:
        return None
    numbers: dict[str, dict[str, float]] = {}
    name = ""
    for line in _DATA.read_text(encoding="utf-8").splitlines():
        if head := _NAME.match(line):
            name = head[1]
            numbers[name] = {}
        elif (pair := _NUMBER.match(line)) and name:
            numbers[name][pair[1]] = float(pair[2])
    return Peaks(*(numbers[match[1].lower()][field] for field in Peaks._fields))


BF16, FP32, INT64 = 2, 4, 8
QUANTIZATION_GROUP = 128  # values per scale of the cast (DeepSeek-V3, section 3.3.2)
LATENT, ROPE, HEAD, VALUE = 512, 64, 128, 128  # MLA of DeepSeek-V2 and V3: kv_lora_rank, rotary, nope, value
KV_HEADS = 8  # of the GQA points


class Work(NamedTuple):
    """FLOPs, bytes, kernel launches, and the type whose peak applies."""

    flops: float
    moved: float
    launches: int
    dtype: str = "bf16"


def work(point: Point) -> Work:
    """Return the work of ``point``."""
    return _WORK[point.kernel](point)


def mla_heads_bytes(point: Point) -> int:
    """Return the bytes of the keys and values that unabsorbed MLA decode rebuilds for all heads."""
    return BF16 * point.batch * point.kv_len * point.heads * (HEAD + VALUE)


def _width(dtype: str) -> int:
    return 1 if dtype == "fp8" else BF16


def _gemm(rows: float, n: int, k: int, hit: int, dtype: str) -> Work:
    width = _width(dtype)
    return Work(2.0 * rows * n * k, hit * n * k * width + rows * (k * width + n * BF16), 1, dtype)


def _hit(point: Point) -> int:
    return sum(load > 0 for load in point.loads()) if point.load_shape else 1


def _up(p: Point) -> Work:
    return _gemm(p.tokens, 2 * p.inter, p.hidden, _hit(p), p.dtype)


def _down(p: Point) -> Work:
    return _gemm(p.tokens, p.hidden, p.inter, _hit(p), p.dtype)


def _between(p: Point) -> Work:
    """SwiGLU, and the cast to the type of the down GEMM."""
    return Work(0.0, p.tokens * p.inter * (2 * BF16 + _width(p.dtype)), 1)


def _mlp(p: Point) -> Work:
    parts = (_up(p), _between(p), _down(p))
    return Work(sum(w.flops for w in parts), sum(w.moved for w in parts), sum(w.launches for w in parts), p.dtype)


def _topk(p: Point) -> Work:
    passes = 2 if LAYERS[p.variant].top_groups < LAYERS[p.variant].n_groups else 1
    moved = p.tokens * (p.experts_local * FP32 + p.topk * (FP32 + INT64))
    return Work(0.0, moved, 4 + 6 * (passes - 1))


def _router(p: Point) -> Work:
    selection = _topk(p)
    logits = p.tokens * p.experts_local * FP32
    moved = BF16 * p.hidden * (p.tokens + p.experts_local) + logits + selection.moved
    return Work(2.0 * p.tokens * p.hidden * p.experts_local, moved, 1 + selection.launches)


def _sort(p: Point) -> Work:
    selections = p.tokens * p.topk
    return Work(0.0, selections * (INT64 + INT64) + p.experts_local * INT64, 6)


def _permute(p: Point) -> Work:
    return Work(0.0, p.tokens * p.topk * (2 * p.hidden * _width(p.dtype) + INT64), 1)


def _unpermute(p: Point) -> Work:
    moved = p.tokens * (p.hidden * BF16 * (p.topk + 1) + p.topk * (INT64 + FP32))
    return Work(2.0 * p.tokens * p.topk * p.hidden, moved, 3 if p.impl == "torch" else 1)


def _swiglu(p: Point) -> Work:
    return Work(0.0, p.tokens * p.inter * 3 * BF16, 2 if p.impl == "torch" else 1)


def _quantize(p: Point) -> Work:
    moved = p.tokens * p.hidden * (BF16 + 1 + FP32 / QUANTIZATION_GROUP)
    return Work(0.0, moved, 6 if p.impl == "torch" else 1)


def _prefill(p: Point, kv_heads: int, key: int, value: int) -> Work:
    pairs = p.batch * p.tokens * (p.kv_len - (p.tokens - 1) / 2)
    flops = 2.0 * pairs * p.heads * (key + value)
    moved = BF16 * p.batch * (p.heads * p.tokens + kv_heads * p.kv_len) * (key + value)
    return Work(flops, moved, 1)


def _mla_decode(p: Point) -> Work:
    cache = BF16 * p.batch * p.kv_len * (LATENT + ROPE)
    queries = p.batch * p.heads
    if p.impl == "absorbed":
        flops = 2.0 * queries * p.kv_len * (2 * LATENT + ROPE)
        scores = BF16 * queries * p.kv_len
        return Work(flops, cache + 4 * scores + BF16 * queries * (2 * LATENT + ROPE), 3)
    rebuilt = mla_heads_bytes(p)
    flops = 2.0 * queries * p.kv_len * (LATENT * (HEAD + VALUE) + HEAD + ROPE + VALUE)
    weights = BF16 * p.heads * LATENT * (HEAD + VALUE)
    return Work(flops, cache + 2 * rebuilt + weights + BF16 * queries * (HEAD + ROPE + VALUE), 5)


_WORK: dict[str, Callable[[Point], Work]] = {
    "anchor_copy": lambda p: Work(0.0, 2.0 * p.tokens, 1),
    "anchor_gemm": lambda p: _gemm(p.tokens, p.tokens, p.tokens, 1, p.dtype),
    "copy": lambda p: Work(0.0, 2.0 * p.tokens, 1),
    "launch": lambda p: Work(0.0, 0.0, p.batch),
    "grouped_gemm_up": _up,
    "grouped_gemm_down": _down,
    "expert_mlp": _mlp,
    "router": _router,
    "router_topk": _topk,
    "sort": _sort,
    "permute": _permute,
    "unpermute": _unpermute,
    "swiglu": _swiglu,
    "quantize_fp8": _quantize,
    "dense_gemm": _up,
    "dense_mlp": _mlp,
    "mla_prefill": lambda p: _prefill(p, p.heads, HEAD + ROPE, VALUE),
    "mla_decode": _mla_decode,
    "mha_prefill": lambda p: _prefill(p, p.heads, HEAD, HEAD),
    "mha_decode": lambda p: _prefill(p, p.heads, HEAD, HEAD),
    "gqa_prefill": lambda p: _prefill(p, KV_HEADS, HEAD, HEAD),
    "gqa_decode": lambda p: _prefill(p, KV_HEADS, HEAD, HEAD),
}
