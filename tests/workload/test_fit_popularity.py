"""A fit finds the parameters that routing was drawn with, and says how well it describes other routing."""

import numpy as np
import pytest

from moesim.dumps import RoutingTrace, Source
from moesim.errors import InputError
from moesim.workload import synthetic_batch
from moesim.workload.fit_popularity import fit_popularity

E, K = 128, 6


def trace_of(kind, steps=1, layers=4, tokens=8192, **how):
    drawn, batch = [], None
    for step in range(steps):
        batch = synthetic_batch(
            kind, layers=range(layers), n_experts=E, top_k=K, n_ranks=8, rng=np.random.default_rng(step + 1),
            tokens_per_rank=tokens // 8, step=step, popularity_rng=np.random.default_rng(5), **how,
        )  # fmt: skip
        drawn.append(np.stack([np.argpartition(-batch.logits[i], K - 1, axis=1)[:, :K] for i in range(layers)]))
    return RoutingTrace(
        "ids", tuple(range(layers)), E, Source("test", "ids"), top_k=K, ids=np.concatenate(drawn, axis=1),
        sequence=np.concatenate([batch.sequence + 10_000 * step for step in range(steps)]),
        step=np.repeat(np.arange(steps), tokens).astype(np.int32) if steps > 1 else None,
    )  # fmt: skip


@pytest.mark.parametrize("sigma", [0.3, 0.9])
def test_the_spread_of_log_normal_popularity_is_found(sigma):
    fit = fit_popularity(trace_of("lognormal", sigma=sigma))
    assert fit.block.keys() == {"kind", "sigma"} and fit.block["kind"] == "lognormal"
    assert fit.block["sigma"] == pytest.approx(sigma, rel=4 / np.sqrt(2 * 4 * E))
    recorded, mean, low, high = fit.max_over_mean
    assert low <= mean <= high and recorded == pytest.approx(mean, rel=0.3)
    assert all(row["r2_lognormal"] > 0.95 > row["r2_zipf"] for row in fit.layers)


def test_the_exponent_of_zipf_is_found():
    fit = fit_popularity(trace_of("zipf", exponent=0.7))
    assert fit.block.keys() == {"kind", "exponent"}
    assert fit.block["exponent"] == pytest.approx(0.7, rel=0.05)
    assert fit.max_over_mean[1] == pytest.approx(fit.max_over_mean[0], rel=0.05)


def test_a_uniform_router_is_called_uniform_and_not_fitted_to_its_noise():
    assert fit_popularity(trace_of("uniform")).block == {"kind": "uniform"}


def test_correlation_within_sequences_is_found_and_its_noise_is_not_taken_for_popularity():
    fit = fit_popularity(trace_of("lognormal", sigma=0.5, correlation=0.3, sequence_length=64))
    assert fit.block["correlation"] == pytest.approx(0.3, abs=0.03)
    assert fit.block["sigma"] == pytest.approx(0.5, rel=0.15)
    few = fit_popularity(trace_of("lognormal", sigma=0.3, correlation=0.4, sequence_length=64, tokens=4096))
    assert few.block["sigma"] == pytest.approx(0.3, rel=0.2)  # 0.44 of 64 sequences as they are
    recorded, alone, drawn = fit.shared
    assert drawn == pytest.approx(recorded, rel=0.02) and recorded > 1.5 * alone


def test_correlation_between_layers_and_steps_is_found():
    fit = fit_popularity(trace_of("lognormal", steps=6, sigma=0.6, layer_correlation=0.7, step_correlation=0.6))
    assert fit.block["layer_correlation"] == pytest.approx(0.7, abs=0.15)
    assert fit.block["step_correlation"] == pytest.approx(0.6, abs=0.12)


def test_counts_are_fitted_too_and_what_they_cannot_tell_is_said():
    trace = trace_of("lognormal", sigma=0.6)
    counts = RoutingTrace(
        "counts", trace.layers, E, Source("test", "counts"), top_k=K, counts=trace.expert_counts()[None]
    )
    fit = fit_popularity(counts)
    assert fit.block["sigma"] == pytest.approx(0.6, rel=0.12) and fit.shared is None
    assert "no sequences are marked" in " ".join(fit.notes)
    with pytest.raises(InputError, match="how many experts a token selects"):
        fit_popularity(RoutingTrace("counts", (0,), E, Source("test", "counts"), counts=np.ones((1, 1, E), np.int64)))


def test_what_neither_family_is_like_is_said():
    popularity = np.where(np.arange(E) < 4, 3.0, 0.0)
    noise = np.random.default_rng(0).gumbel(size=(4096, E)) + popularity
    ids = np.argpartition(-noise, K - 1, axis=1)[None, :, :K]
    fit = fit_popularity(RoutingTrace("ids", (0,), E, Source("test", "ids"), top_k=K, ids=ids))
    assert "neither family is close" in fit.notes[0]
