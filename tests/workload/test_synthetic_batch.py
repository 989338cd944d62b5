import numpy as np
import pytest

from moesim.errors import InputError
from moesim.workload import synthetic, synthetic_batch


def batch(kind, seed=0, **how):
    how = {"layers": [1], "n_experts": 64, "top_k": 4, "n_ranks": 8, "tokens_per_rank": 1024, **how}
    return synthetic_batch(kind, rng=np.random.default_rng(seed), **how)


def loads(b, layer=1, k=4):
    x = b.logits[layer]
    return np.bincount(np.argpartition(-x, k - 1, axis=1)[:, :k].ravel(), minlength=x.shape[1])


def test_uniform_logits_load_every_expert_alike():
    got = loads(batch("uniform"))
    expected = got.mean()
    # Draws without replacement vary less than independent ones, so the chi-square bound is on the safe side.
    assert ((got - expected) ** 2 / expected).sum() < 104  # 0.1 % point, 63 degrees of freedom
    assert got.std() > 0


def test_logits_are_log_popularity_plus_standard_gumbel_noise():
    x = np.sort(batch("uniform", tokens_per_rank=256).logits[1].ravel().astype(float))
    cdf = np.exp(-np.exp(-x))
    distance = np.abs(cdf - (np.arange(len(x)) + 0.5) / len(x)).max()
    assert distance < 1.95 / np.sqrt(len(x))  # Kolmogorov-Smirnov, 0.1 %


def test_zipf_top_1_follows_the_power_law():
    got = np.sort(loads(batch("zipf", exponent=1.0, top_k=1), k=1))[::-1]
    share = 1 / np.arange(1, 65)
    expected = share / share.sum() * got.sum()
    assert ((got - expected) ** 2 / expected).sum() < 104


def test_a_steeper_zipf_is_more_skewed():
    skew = [loads(batch("zipf", exponent=e)).max() for e in (0.0, 0.5, 1.5)]
    assert skew[0] < skew[1] < skew[2]


def test_lognormal_popularity_has_the_spread_asked_for():
    b = batch("lognormal", sigma=0.8, n_experts=1024, tokens_per_rank=256)
    log_popularity = b.logits[1].mean(axis=0, dtype=float) - np.euler_gamma
    assert log_popularity.mean() == pytest.approx(0, abs=4 * 0.8 / 32)
    assert log_popularity.std() == pytest.approx(0.8, rel=4 / np.sqrt(2 * 1024))


@pytest.mark.parametrize(("ratio", "hot_rank"), [(0.5, 0), (2.0, 3), (4.0, 63)])
def test_the_hot_rank_gets_ratio_times_the_mean_load(ratio, hot_rank):
    b = batch("one_hot_rank", n_experts=256, top_k=8, n_ranks=64, tokens_per_rank=256, ratio=ratio, hot_rank=hot_rank)
    rank_load = loads(b, k=8).reshape(64, 4).sum(axis=1)
    # 16,384 tokens: the load of one rank is known to about 1 / sqrt(2048 * ratio).
    assert rank_load[hot_rank] / rank_load.mean() == pytest.approx(ratio, rel=0.01 + 3 / np.sqrt(2048 * ratio))
    cold = np.delete(rank_load, hot_rank)
    assert cold.max() / cold.mean() < 1.1


def test_popular_experts_stand_anywhere_and_differ_between_layers():
    b = batch("zipf", layers=[1, 2, 3], exponent=1.5)
    assert b.layers == (1, 2, 3)
    hottest = {int(loads(b, layer).argmax()) for layer in (1, 2, 3)}
    assert len(hottest) > 1 and hottest != {0}


def test_correlation_changes_a_sequence_and_leaves_the_marginal_alone():
    r = 0.6
    b = batch("uniform", correlation=r, sequence_length=2, n_experts=256, top_k=8)
    x = b.logits[1].astype(float)
    first, second = x[0::2].ravel(), x[1::2].ravel()
    assert np.corrcoef(first, second)[0, 1] == pytest.approx(r, abs=0.02)
    assert x.mean() == pytest.approx(np.euler_gamma, abs=0.01)
    assert x.var() == pytest.approx(np.pi**2 / 6, rel=0.02)
    assert abs(np.corrcoef(x[1:-1:2].ravel(), x[2::2].ravel())[0, 1]) < 0.01, "sequences are correlated"


def test_distinct_tokens_are_bounded_and_the_note_says_so():
    b = batch("uniform", tokens_per_rank=4096, max_distinct=1000, sequence_length=100)
    assert b.tokens == 32768
    assert b.distinct_tokens == len(b.logits[1]) <= 1000
    assert "block bootstrap" in b.notes[0] and "distinct" in b.notes[0]


def test_many_layers_share_the_memory(monkeypatch):
    monkeypatch.setattr(synthetic, "MAX_BYTES", 4 * 64 * 4 * 512)
    b = batch("uniform", layers=[1, 2, 3, 4], sequence_length=128)
    assert sum(rows.nbytes for rows in b.logits.values()) <= 4 * 64 * 4 * 512
    assert b.distinct_tokens <= 512


def test_the_same_seed_gives_the_same_logits():
    a, b, c = (batch("lognormal", seed=s, tokens_per_rank=16) for s in (1, 1, 2))
    assert np.array_equal(a.logits[1], b.logits[1]) and not np.array_equal(a.logits[1], c.logits[1])


def test_batches_that_share_the_popularity_have_the_same_hot_experts_and_other_tokens():
    one, two = (batch("zipf", seed=seed, exponent=1.5, popularity_rng=np.random.default_rng(9)) for seed in (1, 2))
    assert loads(one).argmax() == loads(two).argmax()
    assert not np.array_equal(one.logits[1], two.logits[1])


@pytest.mark.parametrize(
    ("kind", "how", "says"),
    [
        ("gaussian", {}, "unknown synthetic kind"),
        ("zipf", {"exponent": -1.0}, "exponent is -1"),
        ("lognormal", {"sigma": float("nan")}, "sigma is nan"),
        ("one_hot_rank", {"ratio": 17.0}, "cannot take 17 times the mean"),
        ("one_hot_rank", {"ratio": 0.0}, "cannot take 0 times"),
        ("one_hot_rank", {"hot_rank": 8}, "rank 8 is none of 0 to 7"),
        ("uniform", {"top_k": 65}, "top-65 of 64 experts"),
        ("uniform", {"layers": []}, "no layer"),
        ("uniform", {"correlation": 1.0}, "correlation is 1"),
        ("uniform", {"sequence_length": 0}, "at least 1"),
    ],
)
def test_parameters_out_of_range_are_refused(kind, how, says):
    with pytest.raises(InputError, match=says):
        batch(kind, **how)
