"""The synthetic workload that is like recorded routing: its parameters, each with how well it describes the record.

Popularity of an expert is what would give it its share of the selections in draws without replacement (``popularity``).
What its spread owes to the finite record is taken off: the variance of a share is counted over whole sequences where
they are marked, since tokens of one text go together, else that of independent tokens. The family is the one whose
quantiles the recorded ones follow more closely, R2 of a straight line. Correlations of popularity between neighbouring
layers and steps have the same variance taken off; the correlation within sequences is the one at which two tokens of a
sequence share as many experts as in the record, found by bisection on drawn pairs.

Not fitted: limits on a token's groups, and which experts are selected together.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.dumps import RoutingTrace
from moesim.errors import InputError
from moesim.workload.fidelity import bisected
from moesim.workload.popularity import Floats, latent, log_popularity_of, zipf_log_popularity
from moesim.workload.synthetic import gumbel_noise

_PAIRS, _ROUNDS, _DRAWS, _CLOSE_R2 = 4096, 10, 200, 0.9
_LEAST_SEQUENCES, _MOST_SEQUENCES = 8, 1024


@dataclass(frozen=True)
class Fit:
    """What ``workload.synthetic`` would be like the record.

    Attributes:
        block: its keys and values.
        layers: of each layer sigma, exponent, and R2 of both families.
        max_over_mean: mean over the layers as recorded, then drawn from the fit: mean, tenth and ninetieth percentile.
        shared: experts that two tokens of a sequence share: recorded, by independent tokens, and drawn from the fit;
            None where sequences are not marked.
        notes: what could not be fitted, and why.
    """

    block: dict[str, Any]
    layers: list[dict[str, float]]
    max_over_mean: tuple[float, ...]
    shared: tuple[float, ...] | None
    notes: list[str]


def fit_popularity(trace: RoutingTrace) -> Fit:
    """Fit a synthetic workload to recorded routing.

    Raises:
        InputError: nothing says how many experts a token selects, or an expert is in every token.
    """
    if trace.top_k is None:
        raise InputError("counts alone do not say how many experts a token selects", "--top-k", "give it")
    top_k, counts, ids = trace.top_k, trace.expert_counts(), trace.selected
    tokens = counts.sum(axis=1) / top_k
    popularity, noise = _popularity(counts, tokens, _by_sequence(trace, ids))
    spread = popularity.var(axis=1) - noise
    layers = [
        {"layer": layer, "sigma": math.sqrt(max(own, 0.0))} | _families(row)
        for layer, own, row in zip(trace.layers, spread, popularity, strict=True)
    ]
    mean = {name: float(np.mean([row[name] for row in layers])) for name in layers[0]}
    notes, shared, correlation = [], None, 0.0
    block: dict[str, Any] = {"kind": "lognormal", "sigma": math.sqrt(max(float(spread.mean()), 0.0))}
    flat = float((popularity.var(axis=1) / noise).mean()) < 1 + 3 * math.sqrt(2 / popularity.size)
    if flat:
        block = {"kind": "uniform"}
    elif mean["r2_zipf"] > mean["r2_lognormal"]:
        block = {"kind": "zipf", "exponent": mean["exponent"]}
    if not flat and max(mean["r2_zipf"], mean["r2_lognormal"]) < _CLOSE_R2:
        notes.append("neither family is close: draw from the record itself, workload.routing, where it matters")
    if ids is None or trace.sequence is None or len(np.unique(trace.sequence)) == len(trace.sequence):
        notes.append("correlation within sequences is not fitted: no sequences are marked")
    else:
        correlation, shared = _within_sequences(ids, trace.sequence, popularity, top_k)
    found = {"correlation": correlation}
    if not flat:
        found["layer_correlation"] = _neighbours(popularity[:, None], noise[:, None])
        steps = _steps(trace, ids)
        of_step = np.array([each.sum(axis=1) / top_k for each in steps])
        by_step = np.array([_popularity(*each, None)[0] for each in zip(steps, of_step, strict=True)])
        found["step_correlation"] = _neighbours(by_step, noise * tokens / of_step) if len(steps) > 1 else 1.0
    block |= {name: value for name, value in found.items() if value != (name == "step_correlation")}
    block = {name: value if isinstance(value, str) else float(f"{value:.3g}") for name, value in block.items()}
    recorded = float((counts.max(axis=1) / counts.mean(axis=1)).mean())
    return Fit(block, layers, (recorded, *_drawn_max_over_mean(block, popularity, top_k, tokens)), shared, notes)


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
    if ids is None or trace.sequence is None or len(np.unique(trace.sequence)) < _LEAST_SEQUENCES:
        return None
    number = np.unique(trace.sequence, return_inverse=True)[1] % _MOST_SEQUENCES  # further ones go together
    counts = np.stack(_counts_by(number, ids, trace.n_experts)).astype(np.float64)
    lengths = np.bincount(number)
    off = counts - lengths[:, None, None] * counts.sum(axis=0) / lengths.sum()
    variance: Floats = (off**2).sum(axis=0) / lengths.sum() ** 2
    return variance


def _counts_by(name: NDArray[Any], ids: NDArray[np.int32], n_experts: int) -> list[NDArray[np.int64]]:
    """Counts [L, E] of the tokens of each name."""
    order = np.argsort(name, kind="stable")
    parts = np.split(ids[:, order], np.flatnonzero(np.diff(name[order])) + 1, axis=1)
    return [np.stack([np.bincount(rows[rows >= 0], minlength=n_experts) for rows in part]) for part in parts]


def _steps(trace: RoutingTrace, ids: NDArray[np.int32] | None) -> list[NDArray[np.int64]]:
    """Counts [L, E] of each step; none where steps are not told apart."""
    if trace.counts is not None:
        return list(trace.counts)
    return [] if ids is None or trace.step is None else _counts_by(trace.step, ids, trace.n_experts)


def _families(popularity: Floats) -> dict[str, float]:
    """R2 of either family by the order of an expert's popularity, and Zipf's exponent."""
    ordered, n = np.sort(popularity)[::-1], len(popularity)
    normal = np.array([NormalDist().inv_cdf(1 - (place - 0.375) / (n + 0.25)) for place in range(1, n + 1)])
    place = np.log(np.arange(1, n + 1))
    if n < 2 or ordered[0] == ordered[-1]:
        return {"r2_lognormal": 0.0, "exponent": 0.0, "r2_zipf": 0.0}
    of_normal, of_place = (float(np.corrcoef(line, ordered)[0, 1]) for line in (normal, place))
    exponent = max(-of_place * float(ordered.std() / place.std()), 0.0)
    return {"r2_lognormal": of_normal**2, "exponent": exponent, "r2_zipf": of_place**2}


def _neighbours(popularity: Floats, noise: Floats) -> float:
    """Correlation of rows [rows, layers, E] that follow each other; 0 where it is within chance or cannot be told."""
    spread = popularity.var(axis=2) - noise
    if len(popularity) < 2 or (spread <= 0).any():
        return 0.0
    covariance = (popularity[1:] * popularity[:-1]).mean(axis=2)
    found = float((covariance / np.sqrt(spread[1:] * spread[:-1])).mean())
    return min(found, 1.0) if found > 2 / math.sqrt(covariance.size * popularity.shape[2]) else 0.0


def _within_sequences(
    ids: NDArray[np.int32], sequence: NDArray[np.int32], popularity: Floats, top_k: int
) -> tuple[float, tuple[float, ...]]:
    """Correlation of the noise, and the shared experts of two tokens: recorded, independent, drawn at it."""
    rng, layer = np.random.default_rng(0), len(ids) // 2
    order = rng.permutation(len(sequence))
    order = order[np.argsort(sequence[order], kind="stable")]
    pairs = rng.permutation(np.flatnonzero(np.diff(sequence[order]) == 0))[:_PAIRS]
    of_pair = _shared(ids[layer][order[pairs]], ids[layer][order[pairs + 1]])
    recorded, sure = float(of_pair.mean()), 3 * float(of_pair.std()) / math.sqrt(len(pairs))
    two = np.repeat(np.arange(_PAIRS, dtype=np.int32), 2)

    def drawn(correlation: float) -> float:
        noise = gumbel_noise(two, popularity.shape[1], correlation, np.random.default_rng(1))
        chosen = np.argpartition(-(noise + popularity[layer].astype(np.float32)), top_k - 1, axis=1)[:, :top_k]
        return float(_shared(chosen[::2], chosen[1::2]).mean())

    independent = drawn(0.0)
    if recorded <= independent + sure:
        return 0.0, (recorded, independent, independent)
    low, _ = bisected(lambda correlation: drawn(correlation) < recorded, 0.0, 0.99, _ROUNDS)
    return low, (recorded, independent, drawn(low))


def _shared(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.int64]:
    same: NDArray[np.int64] = ((one[:, :, None] == other[:, None, :]) & (one >= 0)[:, :, None]).sum(axis=(1, 2))
    return same


def _drawn_max_over_mean(block: dict[str, Any], popularity: Floats, top_k: int, tokens: Floats) -> tuple[float, ...]:
    """Max / mean load drawn from the fit, mean of as many layers: mean, tenth and ninetieth percentile."""
    rng, (layers, n) = np.random.default_rng(2), popularity.shape
    drawn = []
    for _ in range(max(1, _DRAWS // layers)):
        z = latent(rng, layers, n, layer_correlation=block.get("layer_correlation", 0.0))
        of_zipf = block["kind"] == "zipf"
        log_w = [zipf_log_popularity(row, block["exponent"]) if of_zipf else block.get("sigma", 0.0) * row for row in z]
        loads = [rng.binomial(int(t), _chance(w, top_k)) for t, w in zip(tokens, log_w, strict=True)]
        drawn.append(np.mean([load.max() / max(load.mean(), 1e-9) for load in loads]))
    return float(np.mean(drawn)), float(np.percentile(drawn, 10)), float(np.percentile(drawn, 90))


def _chance(log_w: Floats, top_k: int) -> Floats:
    """Chance [E] of each expert to be among a token's K, by bisection of the one time that all share."""

    def chance(log_time: float) -> Floats:
        return np.asarray(-np.expm1(-np.exp(log_w + log_time)))

    return chance(bisected(lambda log_time: chance(log_time).sum() < top_k, -50.0, 50.0, 60)[1])
