"""The synthetic workload that is like recorded routing: its parameters, each with how well it describes the record.

Popularity of an expert is what would give it its share of the selections in draws without replacement (``popularity``).
What its spread owes to the finite record is taken off: the variance of a share is counted over whole sequences where they
are marked, since tokens of one text go together, else that of independent tokens. The family is the one whose
quantiles the recorded ones follow more closely, R2 of a straight line. Correlations of popularity between neighbouring
layers and steps have the same variance taken off; the correlation within sequences is the one at which two tokens of a
sequence share as many experts as in the record, found by bisection on drawn pairs.

Not fitted: limits on a token's groups, and which experts are selected together.
"""

import math
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.dumps import RoutingTrace
from moesim.dumps.routing_trace import top_of_logits
from moesim.errors import InputError
from moesim.workload.popularity import Floats, latent, log_popularity_of, zipf_log_popularity
from moesim.workload.synthetic import gumbel_noise

_PAIRS, _ROUNDS, _DRAWS, _LEAST_SEQUENCES = 4096, 10, 200, 8


@dataclass(frozen=True)
class Fit:
    """What ``workload.synthetic`` would be like the record.

    Attributes:
        block: its keys and values.
        layers: of each layer sigma, exponent, R2 of both families, and max / mean load as recorded.
        max_over_mean: mean over the layers as recorded, and as drawn from the fit: mean, tenth and ninetieth percentile.
        shared: experts that two tokens of a sequence share: recorded, by independent tokens, and drawn from the fit;
            None where sequences are not marked.
        notes: what could not be fitted, and why.
    """

    block: dict[str, Any]
    layers: list[dict[str, float]]
    max_over_mean: tuple[float, float, float, float]
    shared: tuple[float, float, float] | None
    notes: list[str] = field(default_factory=list)


def fit_popularity(trace: RoutingTrace) -> Fit:
    """Fit a synthetic workload to recorded routing.

    Raises:
        InputError: nothing says how many experts a token selects, or an expert is in every token.
    """
    if trace.top_k is None:
        raise InputError("counts alone do not say how many experts a token selects", "--top-k", "give it")
    top_k, counts = trace.top_k, trace.expert_counts()
    tokens = counts.sum(axis=1) / top_k
    ids = trace.ids
    if ids is None and trace.logits is not None:
        ids = top_of_logits(trace.logits, top_k, trace.bias)
    popularity, noise = _popularity(counts, tokens, _by_sequence(trace, ids))
    spread = popularity.var(axis=1) - noise
    rows = [
        {"layer": layer, "sigma": math.sqrt(max(own, 0.0)), "max_over_mean": float(load.max() / load.mean())} | families
        for layer, own, load, families in zip(trace.layers, spread, counts, map(_families, popularity), strict=True)
    ]
    freedom = popularity.size - len(popularity)
    flat = float((popularity.var(axis=1) / noise).mean()) < 1 + 3 * math.sqrt(2 / freedom)
    by_normal = np.mean([row["r2_lognormal"] for row in rows]) >= np.mean([row["r2_zipf"] for row in rows])
    if flat:
        block: dict[str, Any] = {"kind": "uniform"}
    elif by_normal:
        block = {"kind": "lognormal", "sigma": _rounded(math.sqrt(max(float(spread.mean()), 0.0)))}
    else:
        block = {"kind": "zipf", "exponent": _rounded(float(np.mean([row["exponent"] for row in rows])))}
    notes: list[str] = []
    shared = None
    if ids is not None and trace.sequence is not None and len(np.unique(trace.sequence)) < len(trace.sequence):
        correlation, shared = _within_sequences(ids, trace.sequence, popularity, top_k)
        if correlation:
            block["correlation"] = _rounded(correlation)
    else:
        notes.append("correlation within sequences is not fitted: no sequences are marked")
    if not flat:
        block |= _neighbours("layer_correlation", popularity[:, None], noise[:, None], notes)
        steps = _steps(trace, ids)
        if len(steps) > 1:
            of_step = np.stack([each.sum(axis=1) / top_k for each in steps])
            stacked = np.stack([_popularity(*each, None)[0] for each in zip(steps, of_step, strict=True)])
            block |= _neighbours("step_correlation", stacked, noise * tokens / of_step, notes)
    recorded = float(np.mean([row["max_over_mean"] for row in rows]))
    return Fit(block, rows, (recorded, *_drawn_max_over_mean(block, popularity, top_k, tokens)), shared, notes)


def _popularity(counts: NDArray[np.int64], tokens: Floats, variance: Floats | None) -> tuple[Floats, Floats]:
    """Log popularity [L, E], its mean taken off, and the mean variance [L] that the finite record gives it."""
    chance = (counts + 0.5) / (tokens[:, None] + 1)
    if chance.max() >= 1:
        raise InputError("an expert is in every token: no popularity gives that", fix="is top_k right?")
    log_popularity = log_popularity_of(chance)
    of_chance = chance * (1 - chance) / tokens[:, None] if variance is None else variance
    noise = of_chance / ((1 - chance) * np.log1p(-chance)) ** 2
    return log_popularity - log_popularity.mean(axis=1, keepdims=True), noise.mean(axis=1)


def _by_sequence(trace: RoutingTrace, ids: NDArray[np.int32] | None) -> Floats | None:
    """Variance [L, E] of each expert's chance over whole sequences; None where they are too few or not marked."""
    if ids is None or trace.sequence is None:
        return None
    names, number = np.unique(trace.sequence, return_inverse=True)
    if len(names) < _LEAST_SEQUENCES:
        return None
    lengths, variance = np.bincount(number).astype(np.float64), np.empty((len(ids), trace.n_experts))
    for layer, rows in enumerate(ids):
        taken = rows >= 0
        flat = np.broadcast_to(number[:, None], rows.shape)[taken] * trace.n_experts + rows[taken]
        counts = np.bincount(flat, minlength=len(names) * trace.n_experts).reshape(len(names), -1)
        off = counts - lengths[:, None] * counts.sum(axis=0) / lengths.sum()
        variance[layer] = (off**2).sum(axis=0) / lengths.sum() ** 2
    return variance


def _families(popularity: Floats) -> dict[str, float]:
    """Zipf's exponent, and R2 of either family, by the order of an expert's popularity."""
    ordered, n = np.sort(popularity)[::-1], len(popularity)
    normal = np.array([NormalDist().inv_cdf(1 - (place - 0.375) / (n + 0.25)) for place in range(1, n + 1)])
    place = np.log(np.arange(1, n + 1))
    slope = float(np.cov(place, ordered)[0, 1] / place.var(ddof=1))
    fits = {"r2_lognormal": normal, "r2_zipf": place}
    return {"exponent": max(-slope, 0.0)} | {
        name: float(np.corrcoef(line, ordered)[0, 1] ** 2) if ordered[0] > ordered[-1] else 0.0
        for name, line in fits.items()
    }


def _neighbours(name: str, popularity: Floats, noise: Floats, notes: list[str]) -> dict[str, float]:
    """Correlation between rows that follow each other along axis 0, [rows, layers, E]; nothing where it is within chance.

    The default of layers is 0 and of steps 1; what is fitted as the default is left out.
    """
    if len(popularity) < 2:
        return {}
    spread = popularity.var(axis=2) - noise
    if (spread <= 0).any():
        notes.append(f"{name} is not fitted: too few selections of each")
        return {}
    covariance = (popularity[1:] * popularity[:-1]).mean(axis=2)
    found = float((covariance / np.sqrt(spread[1:] * spread[:-1])).mean())
    chance = 2 / math.sqrt(covariance.size * popularity.shape[2])
    value = 0.0 if abs(found) < chance else min(max(found, 0.0), 1.0)
    default = 0.0 if name == "layer_correlation" else 1.0
    return {} if _rounded(value) == default else {name: _rounded(value)}


def _steps(trace: RoutingTrace, ids: NDArray[np.int32] | None) -> list[NDArray[np.int64]]:
    """Counts [L, E] of each step; none where steps are not told apart."""
    if trace.counts is not None:
        return list(trace.counts)
    if ids is None or trace.step is None:
        return []
    return [
        np.stack([np.bincount(rows[rows >= 0], minlength=trace.n_experts) for rows in ids[:, trace.step == step]])
        for step in np.unique(trace.step)
    ]


def _within_sequences(
    ids: NDArray[np.int32], sequence: NDArray[np.int32], popularity: Floats, top_k: int
) -> tuple[float, tuple[float, float, float]]:
    """Correlation of the noise, and the shared experts of two tokens: recorded, independent, drawn at it."""
    rng = np.random.default_rng(0)
    order = rng.permutation(len(sequence))
    order = order[np.argsort(sequence[order], kind="stable")]
    pairs = np.flatnonzero(np.diff(sequence[order]) == 0)
    pairs = rng.permutation(pairs)[:_PAIRS]
    layer = len(ids) // 2
    recorded = _shared(ids[layer][order[pairs]], ids[layer][order[pairs + 1]])
    two = np.repeat(np.arange(_PAIRS, dtype=np.int32), 2)
    w = popularity[layer].astype(np.float32)

    def drawn(correlation: float) -> float:
        noise = gumbel_noise(two, len(w), correlation, np.random.default_rng(1))
        chosen = np.argpartition(-(noise + w), top_k - 1, axis=1)[:, :top_k]
        return _shared(chosen[::2], chosen[1::2])

    independent = drawn(0.0)
    low, high, reached = 0.0, 0.99, independent
    for _ in range(_ROUNDS if recorded > 1.02 * independent else 0):
        middle = (low + high) / 2
        reached = drawn(middle)
        low, high = (middle, high) if reached < recorded else (low, middle)
    return (low + high) / 2 if reached != independent else 0.0, (recorded, independent, reached)


def _shared(one: NDArray[Any], other: NDArray[Any]) -> float:
    return float(((one[:, :, None] == other[:, None, :]) & (one >= 0)[:, :, None]).sum() / len(one))


def _drawn_max_over_mean(block: dict[str, Any], popularity: Floats, top_k: int, tokens: Floats) -> Any:
    """Max / mean load drawn from the fit: mean, tenth and ninetieth percentile of a mean over as many layers."""
    rng, (layers, n) = np.random.default_rng(2), popularity.shape
    drawn = []
    for _ in range(max(1, _DRAWS // layers)):
        z = latent(rng, layers, n, layer_correlation=block.get("layer_correlation", 0.0))
        ratios = []
        for row, count in zip(z, tokens, strict=True):
            log_w = block.get("sigma", 0.0) * row
            if block["kind"] == "zipf":
                log_w = zipf_log_popularity(row, block["exponent"])
            load = rng.binomial(max(int(count), 1), _chance(log_w, top_k))
            ratios.append(load.max() / max(load.mean(), 1e-9))
        drawn.append(np.mean(ratios))
    return float(np.mean(drawn)), float(np.percentile(drawn, 10)), float(np.percentile(drawn, 90))


def _chance(log_w: Floats, top_k: int) -> Floats:
    """Chance [E] of each expert to be among a token's K."""
    w = np.exp(log_w - log_w.max())
    low, high = 0.0, 1e12
    for _ in range(100):
        t = math.sqrt((low + 1e-9) * high)
        low, high = (t, high) if -np.expm1(-t * w).sum() < top_k else (low, t)
    chance: Floats = -np.expm1(-high * w)
    return np.minimum(chance, 1.0)


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")
