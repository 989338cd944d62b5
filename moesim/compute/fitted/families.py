"""The families of kernels that have a model: its coefficients with their bounds, its rows, and its bar.

A family's rows are prepared once (what does not depend on a coefficient) and then priced for any coefficients.
Times are in seconds, shares without unit; a coefficient at its bound is one that the rows do not determine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.compute.fitted import attention, draws, experts, gemm, tiles
from moesim.compute.fitted.timed_rows import Rows
from moesim.compute.gpus import Gpu
from moesim.compute.roofline import Floats, mla_prefill_work

Ints = NDArray[np.int64]
Coefficients = Mapping[str, float]

LATENT, ROPE = 512, 64  # of DeepSeek-V2 and V3, in all attention rows
DRAW_SEED = 20260714


@dataclass(frozen=True)
class Parameter:
    """A coefficient: where the search starts and between which bounds it stays."""

    name: str
    start: float
    low: float
    high: float


@dataclass(frozen=True)
class Family:
    """A model of one kind of kernel.

    ``parameters(variant)`` are its coefficients; ``prepare(gpu, rows)`` what `seconds` prices, for rows of one
    variant; ``axes(rows)`` the values whose range is stated, [rows] each; ``bar`` the median and 90th percentile of
    the relative error that held-out rows are to keep. ``drawn(rows)`` says which rows of uneven loads are judged.
    """

    name: str
    title: str
    parameters: Callable[[str], tuple[Parameter, ...]]
    prepare: Callable[[Gpu, Rows], Any]
    seconds: Callable[[Gpu, str, Coefficients, Any], Floats]
    axes: Callable[[Rows], dict[str, Floats]]
    bar: tuple[float, float]
    drawn: Callable[[Rows], NDArray[np.bool_]] | None = None


def _launch(start: float) -> Parameter:
    return Parameter("t0", start, 0.0, 60e-6)


E = Parameter("e", 0.8, 0.05, 1.0)
EM = Parameter("em", 0.85, 0.2, 1.0)
P = Parameter("p", 2.5, 1.0, 12.0)
K0 = Parameter("K0", 200.0, 0.0, 1500.0)
U = Parameter("u", 0.1, 0.0, 1.0)
STEP = Parameter("s", 50e-9, 0.0, 200e-9)
PER_EXPERT = Parameter("tE", 0.6e-6, 0.0, 8e-6)
SKEW = Parameter("ks", 0.03, -0.3, 0.5)


def _real(values: Ints) -> Floats:
    return values.astype(np.float64)


def mean_rows(loads: Ints) -> Floats:
    """Return the mean rows of the experts hit, [ranks]."""
    mean: Floats = loads.sum(axis=1) / np.maximum(np.count_nonzero(loads, axis=1), 1)
    return mean


def _nominal(rows: Rows) -> tuple[Ints, Ints]:
    # The benchmark told the library the nominal rows, not the mean of those that it drew.
    return np.maximum(rows.ints["nominal"], 1), rows.ints["experts"]


def _padded(rows: Rows) -> tuple[Ints, Ints]:
    return gemm.contiguous_groups(rows.loads)


def _single(rows: Rows) -> tuple[Ints, Ints]:
    return rows.loads[:, 0], np.ones(len(rows), dtype=np.int64)


def _gemm_family(
    name: str,
    title: str,
    layout: tiles.Layout,
    expected: Callable[[Rows], tuple[Ints, Ints]],
    own: tuple[Parameter, ...],
    bar: tuple[float, float],
) -> Family:
    """``expected(rows)`` gives the rows that the library expects in each group, and the groups (`tiles.choose`)."""

    def prepare(gpu: Gpu, rows: Rows) -> gemm.Gemm:
        return gemm.prepare(gpu, layout, rows.loads, rows.ints["n"], rows.ints["k"], "fp8", *expected(rows))

    def seconds(gpu: Gpu, variant: str, c: Coefficients, work: gemm.Gemm) -> Floats:
        total: Floats = c["t0"] + gemm.seconds(gpu, "fp8", c, work)
        return total

    def axes(rows: Rows) -> dict[str, Floats]:
        found = {"rows": mean_rows(rows.loads), "n": _real(rows.ints["n"]), "k": _real(rows.ints["k"])}
        if "experts" in rows.ints:
            found["experts"] = _real(rows.ints["experts"])
        return found

    return Family(name, title, lambda _: own, prepare, seconds, axes, bar)


@lru_cache(maxsize=4096)
def drawn_loads(tokens: int, n_experts: int, top_k: int, ranks: int, exponent: float, number: int) -> Ints:
    """Return ``number`` seeded draws for one row of the tables, [draws, local experts]."""
    rng = np.random.default_rng([DRAW_SEED, tokens, ranks, round(100 * exponent)])
    return draws.loads(rng, tokens, n_experts, top_k, ranks, exponent, number)


def with_draws(rows: Rows, number: int) -> Rows:
    """Return ``rows`` with ``number`` drawn loads for each, one after the other."""
    at = np.repeat(np.arange(len(rows)), number)
    ints = {name: values[at] for name, values in rows.ints.items()}
    loads = np.zeros((len(at), rows.loads.shape[1]), dtype=np.int64)
    names = ("tokens", "experts", "top_k", "ranks")
    for row in range(len(rows)):
        tokens, n_experts, top_k, ranks = (int(rows.ints[name][row]) for name in names)
        drawn = drawn_loads(tokens, n_experts, top_k, ranks, float(rows.exponent[row]), number)
        loads[row * number : (row + 1) * number, : drawn.shape[1]] = drawn
    shape, variant = [rows.shape[i] for i in at], [rows.variant[i] for i in at]
    return Rows(rows.family, rows.gpu, rows.source, shape, variant, rows.seconds[at], ints, loads, rows.exponent[at])


def _mlp_axes(rows: Rows) -> dict[str, Floats]:
    return {
        "rows": mean_rows(rows.loads),
        "experts": rows.ints["experts"] / rows.ints["ranks"],
        "hidden": _real(rows.ints["hidden"]),
        "inter": _real(rows.ints["inter"]),
    }


def _mlp(layout: tiles.Layout) -> Callable[[Gpu, Rows], experts.Mlp]:
    def prepare(gpu: Gpu, rows: Rows) -> experts.Mlp:
        slots = rows.ints["experts"] // rows.ints["ranks"]
        hidden, inter = rows.ints["hidden"], rows.ints["inter"]
        return experts.prepare(gpu, layout, rows.loads, slots, hidden, inter, "fp8", rows.ints["tokens"])

    return prepare


def _fused(gpu: Gpu, rows: Rows) -> experts.Fused:
    return experts.prepare_fused(*(rows.ints[c] for c in ("tokens", "ranks", "top_k", "experts", "hidden", "inter")))


def _attention_axes(rows: Rows) -> dict[str, Floats]:
    return {name: _real(rows.ints[name]) for name in ("batch", "kv_len", "heads")}


def _decode_parameters(variant: str) -> tuple[Parameter, ...]:
    own = (
        _launch(6e-6),
        Parameter("a", 4.5e-6, 0.0, 20e-6),
        E,
        EM,
        P,
        Parameter("tc", 3e-6, 0.0, 20e-6),
        Parameter("ts", 1.0, 0.0, 20.0),
    )
    cast = (Parameter("tq", 3e-6, 0.0, 15e-6), Parameter("Rq", 3.4e11, 1e11, 2e12))
    return (*own, *cast) if variant == "fp8" else own


def _mha(gpu: Gpu, rows: Rows) -> Floats:
    length = rows.ints["q_len"]
    return mla_prefill_work(length, length, 128, 1, 192, 128).flops / gpu.bf16_flops


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        _gemm_family(
            "grouped_masked",
            "grouped GEMM, masked (decode)",
            tiles.MASKED,
            _nominal,
            (_launch(6e-6), E, EM, P, K0, U),
            (0.06, 0.18),
        ),
        _gemm_family(
            "grouped_contiguous",
            "grouped GEMM, contiguous (prefill)",
            tiles.CONTIGUOUS,
            _padded,
            (_launch(8e-6), E, EM, P, K0, U),
            (0.06, 0.18),
        ),
        _gemm_family(
            "dense_gemm", "dense GEMM", tiles.DENSE, _single, (_launch(5e-6), E, EM, P, K0, U, STEP), (0.09, 0.21)
        ),
        Family(
            "deepep_generation",
            "expert MLP after a low-latency dispatch",
            lambda _: (_launch(20e-6), PER_EXPERT, E, EM, P, K0, U, SKEW),
            _mlp(tiles.MASKED_LOW),
            lambda gpu, _, c, work: experts.generation_seconds(gpu, "fp8", c, work),
            _mlp_axes,
            (0.06, 0.18),
            lambda rows: rows.ints["tokens"] * rows.ints["top_k"] > rows.ints["experts"],
        ),
        Family(
            "deepep_context",
            "expert MLP after a normal dispatch",
            lambda _: (
                Parameter("th", 380e-6, 100e-6, 600e-6),
                Parameter("f", 2.0, 1.0, 12.0),
                Parameter("ct", 0.7, 0.1, 1.0),
                PER_EXPERT,
                E,
                EM,
                P,
                SKEW,
            ),
            _mlp(tiles.CONTIGUOUS_NARROW),
            lambda gpu, _, c, work: experts.context_seconds(gpu, "fp8", c, work),
            _mlp_axes,
            (0.06, 0.18),
            lambda rows: rows.ints["tokens"] >= 16384,
        ),
        Family(
            "mla_decode",
            "absorbed MLA decode (FlashAttention-3)",
            _decode_parameters,
            lambda gpu, rows: attention.prepare_decode(
                gpu, rows.ints["batch"], rows.ints["kv_len"], int(rows.ints["heads"][0]), 1, LATENT, ROPE
            ),
            attention.decode_seconds,
            _attention_axes,
            (0.06, 0.22),
        ),
        Family(
            "flashmla_decode",
            "absorbed MLA decode (FlashInfer)",
            lambda _: (_launch(8e-6), Parameter("a", 4e-6, 0.0, 20e-6), E, EM, P, Parameter("tc", 4e-6, 0.0, 20e-6)),
            lambda gpu, rows: attention.prepare_dealt(
                gpu, rows.ints["batch"], rows.ints["kv_len"], int(rows.ints["heads"][0]), 1, LATENT, ROPE
            ),
            lambda gpu, _, c, work: attention.dealt_seconds(gpu, c, work),
            _attention_axes,
            (0.13, 0.17),
        ),
        Family(
            "mla_prefill",
            "absorbed MLA prefill (FlashAttention-3)",
            lambda _: (_launch(7e-6), Parameter("a", 3e-6, 0.0, 20e-6), E, EM, P),
            lambda gpu, rows: attention.prepare_prefill(
                gpu, rows.ints["batch"], rows.ints["q_len"], int(rows.ints["heads"][0]), LATENT, ROPE
            ),
            lambda gpu, _, c, work: attention.prefill_seconds(gpu, c, work),
            _attention_axes,
            (0.06, 0.18),
        ),
        Family(
            "mha_prefill",
            "MLA prefill in multi-head form (FlashAttention-3)",
            lambda _: (_launch(30e-6), Parameter("e", 0.6, 0.05, 1.0)),
            _mha,
            lambda gpu, _, c, at_peak: c["t0"] + at_peak / c["e"],
            _attention_axes,
            (0.06, 0.18),
        ),
        Family(
            "fused_moe",
            "SGLang's fused Triton MoE, even loads",
            lambda _: (
                Parameter("t0", 20e-6, 0.0, 150e-6),
                Parameter("e", 0.4, 0.02, 1.0),
                EM,
                P,
                Parameter("ct", 2.5, 0.0, 20.0),
            ),
            _fused,
            lambda gpu, variant, c, work: experts.fused_seconds(gpu, variant.split()[0], c, work),
            lambda rows: {"tokens": _real(rows.ints["tokens"])},
            (0.07, 0.17),
        ),
    )
}
