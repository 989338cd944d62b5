"""The families of kernels that have a model, as a fit sees them: coefficients, rows, and bar.

A family's rows are prepared once (what does not depend on a coefficient) and then priced for any coefficients.
Times are in seconds, shares without unit; a coefficient at its bound is one that the rows do not determine.
"""

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.compute.fitted import attention, experts, gemm, tiles
from moesim.compute.fitted.models import mean_rows
from moesim.compute.gpus import Gpu
from moesim.compute.roofline import Floats, mla_prefill_work
from refit import draws, fused_moe
from refit.timed_rows import Rows

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

    ``prepare(gpu, rows)`` is what `seconds` prices, for rows of one variant; ``axes(rows)`` the values whose range is
    stated, [rows] each; ``bar`` the median and 90th percentile of the relative error that held-out rows are to keep.
    ``drawn(rows)`` says which rows of uneven loads are judged.
    """

    name: str
    prepare: Callable[[Gpu, Rows], Any]
    seconds: Callable[[Gpu, str, Coefficients, Any], Floats]
    axes: Callable[[Rows], dict[str, Floats]]
    bar: tuple[float, float]
    drawn: Callable[[Rows], NDArray[np.bool_]] | None = None


def parameters(family: str, variant: str) -> tuple[Parameter, ...]:
    """Return the coefficients of a family's variant, from ``data/parameters.csv``."""
    with (Path(__file__).parent / "data" / "parameters.csv").open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    return tuple(
        Parameter(row["name"], *(float(row[column]) for column in ("start", "low", "high")))
        for row in rows
        if row["family"] == family and row["variant"] in ("", variant)
    )


def _real(values: Ints) -> Floats:
    return values.astype(np.float64)


def _nominal(rows: Rows) -> tuple[Ints, Ints]:
    # The benchmark told the library the nominal rows, not the mean of those that it drew.
    return np.maximum(rows.ints["nominal"], 1), rows.ints["experts"]


def _padded(rows: Rows) -> tuple[Ints, Ints]:
    return gemm.contiguous_groups(rows.loads)


def _single(rows: Rows) -> tuple[Ints, Ints]:
    return rows.loads[:, 0], np.ones(len(rows), dtype=np.int64)


def _gemm_family(
    name: str,
    layout: tiles.Layout,
    expected: Callable[[Rows], tuple[Ints, Ints]],
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

    return Family(name, prepare, seconds, axes, bar)


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
        return experts.prepare(gpu, layout, rows.loads, slots, hidden, inter, "fp8")

    return prepare


def _collected(gpu: Gpu, rows: Rows) -> tuple[experts.Mlp, Floats, Floats]:
    """The MLP after a normal dispatch, the width of its rows, and the tokens of all ranks."""
    return _mlp(tiles.CONTIGUOUS_NARROW)(gpu, rows), _real(rows.ints["hidden"]), _real(rows.ints["tokens"])


def _collected_seconds(gpu: Gpu, c: Coefficients, mlp: experts.Mlp, hidden: Floats, tokens: Floats) -> Floats:
    """The time after a normal dispatch as the collector took it, (th^f + g^f)^(1/f), [ranks].

    th is the time of the host (its profiler ran); g the MLP, 3 H M / B for gathering rows into expert order and back,
    and 3 H N / (ct B): the collector hands every rank the N tokens of all of them.
    """
    device = experts.context_mlp_seconds(gpu, "fp8", c, mlp)
    device = device + 3.0 * hidden * (mlp.rows + tokens / c["ct"]) / gpu.hbm_bandwidth
    return gemm.hide(np.full_like(device, c["th"]), device, c["f"])


def _fused(gpu: Gpu, rows: Rows) -> fused_moe.Fused:
    return fused_moe.prepare_fused(*(rows.ints[c] for c in ("tokens", "ranks", "top_k", "experts", "hidden", "inter")))


def _attention_axes(rows: Rows) -> dict[str, Floats]:
    return {name: _real(rows.ints[name]) for name in ("batch", "kv_len", "heads")}


def _cut(prepare: Callable[..., attention.Attention], length: str, *sizes: int) -> Callable[[Gpu, Rows], Any]:
    """Cut attention as ``prepare`` does, over sequences whose length is the column of that name."""
    return lambda gpu, rows: prepare(gpu, rows.ints["batch"], rows.ints[length], int(rows.ints["heads"][0]), *sizes)


def _mha(gpu: Gpu, rows: Rows) -> Floats:
    length = rows.ints["q_len"]
    return mla_prefill_work(length, length, 128, 1, 192, 128).flops / gpu.bf16_flops


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        _gemm_family("grouped_masked", tiles.MASKED, _nominal, (0.06, 0.18)),
        _gemm_family("grouped_contiguous", tiles.CONTIGUOUS, _padded, (0.06, 0.18)),
        _gemm_family("dense_gemm", tiles.DENSE, _single, (0.09, 0.21)),
        Family(
            "deepep_generation",
            _mlp(tiles.MASKED_LOW),
            lambda gpu, _, c, work: experts.generation_seconds(gpu, "fp8", c, work),
            _mlp_axes,
            (0.06, 0.18),
            lambda rows: rows.ints["tokens"] * rows.ints["top_k"] > rows.ints["experts"],
        ),
        Family(
            "deepep_context",
            _collected,
            lambda gpu, _, c, work: _collected_seconds(gpu, c, *work),
            _mlp_axes,
            (0.06, 0.18),
            lambda rows: rows.ints["tokens"] >= 16384,
        ),
        Family(
            "mla_decode",
            _cut(attention.prepare_decode, "kv_len", 1, LATENT, ROPE),
            attention.decode_seconds,
            _attention_axes,
            (0.06, 0.22),
        ),
        Family(
            "flashmla_decode",
            _cut(attention.prepare_dealt, "kv_len", 1, LATENT, ROPE),
            lambda gpu, _, c, work: attention.dealt_seconds(gpu, c, work),
            _attention_axes,
            (0.13, 0.17),
        ),
        Family(
            "mla_prefill",
            _cut(attention.prepare_prefill, "q_len", LATENT, ROPE),
            lambda gpu, _, c, work: attention.prefill_seconds(gpu, c, work),
            _attention_axes,
            (0.06, 0.18),
        ),
        Family(
            "mha_prefill",
            _mha,
            lambda gpu, _, c, at_peak: c["t0"] + at_peak / c["e"],
            _attention_axes,
            (0.06, 0.18),
        ),
        Family(
            "fused_moe",
            _fused,
            lambda gpu, variant, c, work: fused_moe.fused_seconds(gpu, variant.split()[0], c, work),
            lambda rows: {"tokens": _real(rows.ints["tokens"])},
            (0.07, 0.17),
        ),
    )
}
