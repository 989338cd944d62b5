"""The router's pass in numpy gives the bytes of the fused kernel, or says that it cannot."""

import numpy as np
import pytest

from moesim import compiling
from moesim.routing import RouterSpec, blocks, fused, plain_pass, route_and_measure

UNEVEN = np.sort(np.random.default_rng(11).integers(0, 12, 258 - 12).tolist() + list(range(12)))
ROUTERS = {
    "v3": RouterSpec("v3", 256, 8, 8, 4, scale=2.5),
    "v3 without groups": RouterSpec("v3", 64, 8),
    "v3 ranked by the best": RouterSpec("v3", 128, 6, 8, 2, group_score="max"),
    "v3, uneven groups out of order": RouterSpec("v3", 258, 8, 12, 5, group_of_expert=UNEVEN[::-1].copy()),
    "v3, top 1": RouterSpec("v3", 100, 1, 5, 2),
    "v3, groups of one and of many": RouterSpec("v3", 77, 4, 4, 3, group_of_expert=[0] + [1] * 3 + [2] * 40 + [3] * 33),
    "v1": RouterSpec("v1", 257, 6),
    "v1 normalised": RouterSpec("v1", 64, 8, normalize=True),
    "v2": RouterSpec("v2", 160, 6, 8, 3),
}
TOKENS = 16 if compiling.interpreted() else 200


def logits_of(rng, spec, form):
    x = rng.normal(size=(TOKENS, spec.n_experts)).astype(np.float32) * np.float32(1.5)
    if form == "ties":
        return np.round(x * 4) / 4
    if form == "float16":
        return x.astype(np.float16)
    if form == "bfloat16":
        return (x.view(np.uint32) >> 16).astype(np.uint16)
    return x


def by_both(monkeypatch, logits, spec, bias, **given):
    answers = []
    for kernel in (fused.route_block, plain_pass.plain_block):
        monkeypatch.setattr(blocks, "route_block", kernel)
        answers.append(route_and_measure(logits, spec, bias, bfloat16=logits.dtype == np.uint16, **given))
    return answers


def assert_same_bytes(one, other):
    for mine, its in zip(one[:2], other[:2], strict=True):
        assert mine.dtype == its.dtype and (mine == its).all()
    sums, others = one[2], other[2]
    for name in ("weight", "load", "affinity", "received", "logsumexp_squared", "gate_mass_lost"):
        assert np.array_equal(getattr(sums, name), getattr(others, name)), name
    for name, values in vars(sums.sequences).items():
        assert np.array_equal(values, getattr(others.sequences, name)), name


@pytest.mark.parametrize("form", ["float32", "ties", "float16", "bfloat16"])
@pytest.mark.parametrize("name", ROUTERS)
def test_numpy_and_the_fused_kernel_agree_to_the_bit(monkeypatch, name, form):
    spec, rng = ROUTERS[name], np.random.default_rng(hash(form) % 1000)
    bias = rng.normal(size=spec.n_experts) * 0.2 if spec.score == "sigmoid" and form != "ties" else None
    given = {
        "weight": rng.integers(0, 4, TOKENS),
        "device_of_expert": rng.permutation(np.arange(spec.n_experts) % 5),
        "sequence_id": rng.integers(-2, 7, TOKENS),
    }
    logits = logits_of(rng, spec, form)
    assert_same_bytes(*by_both(monkeypatch, logits, spec, bias, **given))
    assert_same_bytes(*by_both(monkeypatch, logits, spec, None, **given))


def test_near_ties_of_biased_scores_are_decided_as_the_kernel_does(monkeypatch):
    """One unit in the last place apart, where numpy's exponential and the C library's may differ by more."""
    spec, rng = RouterSpec("v3", 64, 8, 8, 4), np.random.default_rng(5)
    x = np.repeat(rng.normal(size=(TOKENS, 16)), 4, axis=1).astype(np.float32)
    x[:, ::3] = np.nextafter(x[:, ::3], np.float32(9.0))
    bias = np.repeat(rng.normal(size=16) * 0.1, 4)
    assert_same_bytes(*by_both(monkeypatch, x, spec, bias, sequence_id=np.zeros(TOKENS, int)))


def test_logits_beyond_float32_exponentials_take_the_same_way_out(monkeypatch):
    x = np.random.default_rng(1).normal(size=(TOKENS, 64)).astype(np.float32)
    x[::3] -= 100.0
    x[1::3] += 95.0
    assert_same_bytes(*by_both(monkeypatch, x, RouterSpec("v3", 64, 8, 8, 4), None, sequence_id=np.zeros(TOKENS, int)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_the_first_logit_that_is_no_number_is_named(monkeypatch, bad):
    x = np.zeros((8, 64), np.float32)
    x[5, 3] = x[6, 1] = bad
    monkeypatch.setattr(blocks, "route_block", plain_pass.plain_block)
    with pytest.raises(Exception, match="token 5 for expert 3"):
        route_and_measure(x, RouterSpec("v3", 64, 8))


def test_sums_whose_order_shows_are_left_to_the_compiler(monkeypatch):
    """Exponentials of 22 and 0 are 2^32 apart: a float64 sum of float32 numbers then rounds."""
    x = np.zeros((1, 64), np.float32)
    x[0, 5] = 22.0
    monkeypatch.setattr(blocks, "route_block", plain_pass.plain_block)
    route_and_measure(x, RouterSpec("v1", 64, 8))  # uncompiled for good: near enough
    monkeypatch.setattr(compiling, "_chosen", ["interpreted"])
    with pytest.raises(compiling.CompileInsteadError):
        route_and_measure(x, RouterSpec("v1", 64, 8))
    x[0, 5] = 18.0
    route_and_measure(x, RouterSpec("v1", 64, 8))
