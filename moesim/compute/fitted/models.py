"""Kernel times from the fitted models: which set of coefficients prices what, and how far it may be trusted.

A GPU with rows of its own is priced by them; one without takes the form of its nearest relative with its own peaks
and SMs in the place of the relative's. Only a number format and sizes that the fitted rows cover are `inside`; the
rest is an extrapolation. No time lies below the roofline: the caller sees to that, since it knows the floor.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from moesim.compute.fitted import attention, experts, gemm, tiles
from moesim.compute.fitted.coefficients import Fitted, fitted
from moesim.compute.gpus import Gpu
from moesim.compute.roofline import LAUNCH_S, Floats, mla_prefill_work

Ints = NDArray[np.int64]

# Whose rows stand in for a GPU's own, nearest first: the same chip, then the same peaks, then the same generation.
RELATIVES = {
    "h800": ("h800", "h100", "h200"),
    "h100": ("h100", "h800", "h200"),
    "h200": ("h200", "h100", "h800"),
    "h20": ("h20", "h800", "h100", "h200"),
}
NEWER = ("h200", "h100", "h800")
MASKED_ROWS = 128  # a rank with more rows per expert hit is taken for prefill where the phase is not given
MLP_LAYOUTS = ("auto", "masked", "contiguous")
TITLES = {
    "grouped_masked": "grouped GEMM, masked (decode)",
    "grouped_contiguous": "grouped GEMM, contiguous (prefill)",
    "dense_gemm": "dense GEMM",
    "deepep_generation": "expert MLP after a low-latency dispatch",
    "deepep_context": "expert MLP after a normal dispatch",
    "mla_decode": "absorbed MLA decode (FlashAttention-3)",
    "flashmla_decode": "absorbed MLA decode (FlashInfer)",
    "mla_prefill": "absorbed MLA prefill (FlashAttention-3)",
    "mha_prefill": "MLA prefill in multi-head form (FlashAttention-3)",
}
"""What the rows of each family were measured on."""


@dataclass(frozen=True)
class Estimate:
    """Times of one kernel: ``seconds[ranks]``, and where they lie ``inside`` the range of the fit, [ranks].

    ``error`` is the median relative error of the model on held-out rows; it holds for the ranks inside alone.
    ``origin`` names the model and its rows, ``beyond`` says what of the others is outside.
    """

    seconds: Floats
    inside: NDArray[np.bool_]
    error: float
    origin: str
    beyond: str


def mean_rows(loads: Ints) -> Floats:
    """Return the mean rows of the experts hit, [ranks]."""
    mean: Floats = loads.sum(axis=1) / np.maximum(np.count_nonzero(loads, axis=1), 1)
    return mean


def find(family: str, gpu: Gpu, variant: str = "") -> Fitted:
    """Return the coefficients of ``family`` for ``gpu``: its own, else its nearest relative's."""
    sets = fitted()
    names = RELATIVES.get(gpu.name, NEWER)
    own = next(name for name in names if (family, name, variant) in sets)
    return sets[family, own, variant]


def _estimate(gpu: Gpu, model: Fitted, dtype: str, seconds: Floats, axes: dict[str, Floats]) -> Estimate:
    """Say where ``seconds`` are inside the range of ``model``; ``dtype`` "" where the variant has it already."""
    title = TITLES[model.family]
    foreign = model.gpu != gpu.name
    reasons = []
    if foreign:
        reasons.append(f"form of the {model.gpu}'s rows at the {gpu.name}'s peaks")
    if dtype == "bf16":
        reasons.append("form of FP8 rows at BF16's peak")
    inside = np.full(len(seconds), not reasons)
    for axis, values in axes.items():
        low, high = model.covered[axis]
        within = (values >= low) & (values <= high)
        if not within.all():
            reasons.append(f"{axis} outside {low:g} to {high:g}")
        inside = inside & within
    return Estimate(seconds, inside, model.held_out.median, f"{title}, fitted on {model.source}", "; ".join(reasons))


def has_whole_mlp(gpu: Gpu) -> bool:
    """Return whether an expert MLP of ``gpu`` is priced as a whole; else by its two GEMMs."""
    priced = {(family, own) for family, own, _ in fitted()}
    kinds = ("deepep_generation", "grouped_masked")
    names = RELATIVES.get(gpu.name, NEWER)
    return kinds[0] == next(kind for name in names for kind in kinds if (kind, name) in priced)


def expert_mlp(gpu: Gpu, dtype: str, loads: Ints, slots: Ints, hidden: int, inter: int, layout: str) -> list[Estimate]:
    """Price whole expert MLPs of ``loads[ranks, slots]`` rows: the estimates are of disjoint ranks and add up.

    ``slots[ranks]`` local experts. ``layout``: masked (after a low-latency dispatch), contiguous (after a normal one)
    or auto, by `MASKED_ROWS`. Ranks without a row are left at 0. The contiguous times have three launches in the
    place of the host's time and leave out the moving of rows, both of which the measured ones hold (`experts`).
    """

    def price(masked: bool, own: Ints, own_slots: Ints) -> tuple[Fitted, Floats]:
        tile_layout = tiles.MASKED_LOW if masked else tiles.CONTIGUOUS_NARROW
        model = find("deepep_generation" if masked else "deepep_context", gpu)
        mlp = experts.prepare(gpu, tile_layout, own, own_slots, hidden, inter, dtype)
        if masked:
            return model, experts.generation_seconds(gpu, dtype, model.coefficients, mlp)
        return model, 3 * LAUNCH_S + experts.context_mlp_seconds(gpu, dtype, model.coefficients, mlp)

    return _by_layout(gpu, dtype, loads, slots, {"hidden": hidden, "inter": inter}, layout, price)


def grouped_gemm(gpu: Gpu, dtype: str, loads: Ints, slots: Ints, n: int, k: int, layout: str) -> list[Estimate]:
    """Price one grouped GEMM of ``loads[ranks, slots]`` rows x [n, k]; otherwise as `expert_mlp`."""

    def price(masked: bool, own: Ints, own_slots: Ints) -> tuple[Fitted, Floats]:
        expected, groups = gemm.masked_groups(own, own_slots) if masked else gemm.contiguous_groups(own)
        model = find("grouped_masked" if masked else "grouped_contiguous", gpu)
        tile_layout = tiles.MASKED if masked else tiles.CONTIGUOUS
        work = gemm.prepare(gpu, tile_layout, own, n, k, dtype, expected, groups)
        return model, model.coefficients["t0"] + gemm.seconds(gpu, dtype, model.coefficients, work)

    return _by_layout(gpu, dtype, loads, slots, {"n": n, "k": k}, layout, price)


def _by_layout(
    gpu: Gpu, dtype: str, loads: Ints, slots: Ints, sizes: dict[str, int], layout: str,
    price: Callable[[bool, Ints, Ints], tuple[Fitted, Floats]],
) -> list[Estimate]:  # fmt: skip
    """Price the ranks of masked kernels, then those of contiguous ones: ``price(masked?, loads, slots)``."""
    parts = []
    for masked, here in layouts(loads, layout):
        model, seconds = price(masked, loads[here], slots[here])
        fixed = {name: np.full(len(seconds), float(size)) for name, size in sizes.items()}
        axes = {"rows": mean_rows(loads[here]), "experts": slots[here] * 1.0, **fixed}
        parts.append(_scatter(_estimate(gpu, model, dtype, seconds, axes), here, len(loads)))
    return parts


def dense_gemm(gpu: Gpu, dtype: str, rows: Ints, n: int, k: int) -> Estimate:
    """Price one dense GEMM of ``rows[ranks]`` x [n, k]; 0 rows take no time."""
    model = find("dense_gemm", gpu)
    hit = rows > 0
    work = gemm.prepare(gpu, tiles.DENSE, rows[:, None], n, k, dtype, np.maximum(rows, 1), np.ones_like(rows))
    seconds = np.where(hit, model.coefficients["t0"] + gemm.seconds(gpu, dtype, model.coefficients, work), 0.0)
    axes = {"rows": rows[hit] * 1.0, "n": np.full(hit.sum(), float(n)), "k": np.full(hit.sum(), float(k))}
    one = _estimate(gpu, model, dtype, seconds[hit], axes)
    return _scatter(one, hit, len(rows))


def layouts(loads: Ints, layout: str) -> list[tuple[bool, NDArray[np.bool_]]]:
    """Return (masked?, ranks) for the ranks that have a row; ``layout`` is one of `MLP_LAYOUTS`."""
    hit = loads.any(axis=1)
    masked = mean_rows(loads) <= MASKED_ROWS if layout == "auto" else np.full(len(loads), layout == "masked")
    return [(kind, here) for kind, here in ((True, hit & masked), (False, hit & ~masked)) if here.any()]


def _scatter(one: Estimate, here: NDArray[np.bool_], ranks: int) -> Estimate:
    seconds, inside = np.zeros(ranks), np.zeros(ranks, dtype=np.bool_)
    seconds[here], inside[here] = one.seconds, one.inside
    return replace(one, seconds=seconds, inside=inside)


def mla_decode(
    gpu: Gpu, batch: Ints, kv_len: Ints, heads: int, q_tokens: int, latent: int, rope: int, kv_dtype: str
) -> Estimate:
    """Price absorbed decode of ``batch[ranks]`` sequences of ``kv_len[ranks]`` cached tokens; ``kv_dtype`` bf16 or fp8.

    GPUs with FlashInfer's rows take FlashInfer's model for a BF16 cache, the others FlashAttention-3's.
    """
    dealt = kv_dtype == "bf16" and ("flashmla_decode", gpu.name, "bf16") in fitted()
    model = find("flashmla_decode" if dealt else "mla_decode", gpu, kv_dtype)
    shape = (batch, kv_len, heads, q_tokens, latent, rope)
    if dealt:
        seconds = attention.dealt_seconds(gpu, model.coefficients, attention.prepare_dealt(gpu, *shape))
    else:
        seconds = attention.decode_seconds(gpu, kv_dtype, model.coefficients, attention.prepare_decode(gpu, *shape))
    return _attention(gpu, model, seconds, batch, kv_len, heads, (q_tokens, latent, rope) == (1, 512, 64))


def mla_prefill(gpu: Gpu, batch: Ints, length: Ints, heads: int, latent: int, rope: int, kv_dtype: str) -> Estimate:
    """Price absorbed causal prefill of ``batch[ranks]`` sequences of ``length[ranks]`` new tokens, no prefix."""
    model = find("mla_prefill", gpu, kv_dtype)
    work = attention.prepare_prefill(gpu, batch, length, heads, latent, rope)
    seconds = attention.prefill_seconds(gpu, model.coefficients, work)
    return _attention(gpu, model, seconds, batch, length, heads, (latent, rope) == (512, 64))


def mha_prefill(
    gpu: Gpu, tokens: Floats, kv_len: Floats, heads: int, sequences: Floats, qk_head_dim: int, v_head_dim: int
) -> Estimate:
    """Price causal prefill in multi-head form, as `roofline.mla_prefill_work` counts it."""
    model = find("mha_prefill", gpu, "bf16")
    work = mla_prefill_work(tokens, kv_len, heads, sequences, qk_head_dim, v_head_dim)
    c = model.coefficients
    seconds: Floats = c["t0"] + work.flops / (gpu.bf16_flops * c["e"])
    alike = bool((kv_len * sequences == tokens).all()) and (qk_head_dim, v_head_dim) == (192, 128)
    return _attention(gpu, model, seconds, sequences, kv_len, heads, alike)


def _attention(
    gpu: Gpu,
    model: Fitted,
    seconds: Floats,
    batch: NDArray[np.generic],
    kv_len: NDArray[np.generic],
    heads: int,
    alike: bool,
) -> Estimate:
    """``alike``: the sizes that no axis states are those of the rows."""
    ranks = len(seconds)
    axes = {
        "batch": np.broadcast_to(np.asarray(batch, dtype=np.float64), ranks),
        "kv_len": np.broadcast_to(np.asarray(kv_len, dtype=np.float64), ranks),
        "heads": np.full(ranks, float(heads)),
    }
    one = _estimate(gpu, model, "", seconds, axes)
    if alike:
        return one
    beyond = "; ".join(filter(None, (one.beyond, "other sizes than the rows'")))
    return replace(one, inside=np.zeros(ranks, dtype=np.bool_), beyond=beyond)
