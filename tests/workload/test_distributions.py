"""Every generator against the distribution that it promises: chi-square and Kolmogorov-Smirnov at 1e-4, fixed seeds."""

import numpy as np
import pytest
from scipy import stats

from moesim.balance.dynamics import turned
from moesim.cluster.paths import ecmp_choice
from moesim.placement.fixed import at_random
from moesim.placement.replica import drawn_replicas
from moesim.run.offsets import start_offsets
from moesim.scenario import ExponentialOffset, LognormalOffset, NormalOffset, UniformOffset
from moesim.sweeps.space import Axis, Space
from moesim.workload import counts_batch, dealt_batch, synthetic_batch
from moesim.workload.popularity import hot_log_popularity, latent, zipf_log_popularity
from moesim.workload.synthetic import gumbel_noise
from moesim.workload.token_draw import draw_blocks, draw_tokens

LEVEL = 1e-4
EXPERTS, TOKENS = 32, 8192


def rng(seed=0):
    return np.random.default_rng([20, seed])


def fits(counts, chances):
    """Whether counts are a draw of these chances (chi-square)."""
    chances = np.asarray(chances, float) / np.sum(chances)
    return stats.chisquare(counts, chances * np.sum(counts)).pvalue > LEVEL


def follows(values, law):
    """Whether values are a draw of a continuous law (Kolmogorov-Smirnov)."""
    return stats.kstest(np.ravel(values), law).pvalue > LEVEL


def correlated(one, other, expected):
    """Whether two normal samples have this correlation: Fisher's z within its 1e-4 interval."""
    found = np.corrcoef(np.ravel(one), np.ravel(other))[0, 1]
    off = (np.arctanh(found) - np.arctanh(expected)) * np.sqrt(np.size(one) - 3)
    return abs(off) < stats.norm.isf(LEVEL / 2)


def test_a_wrong_law_is_noticed():
    assert not fits([1000, 1100, 900, 1000, 1200], np.ones(5))
    assert not follows(rng().normal(0.1, 1.0, 10_000), "norm")
    assert not correlated(rng(1).normal(size=5000), rng(2).normal(size=5000), 0.1)


# -- logits ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.8])
def test_noise_is_gumbel_at_any_correlation(correlation):
    noise = gumbel_noise(np.arange(400, dtype=np.int32), EXPERTS, correlation, rng())
    assert follows(noise, "gumbel_r")


@pytest.mark.parametrize("correlation", [0.3, 0.8])
def test_two_tokens_of_a_sequence_have_the_noise_correlation_and_those_of_two_sequences_none(correlation):
    noise = gumbel_noise(np.repeat(np.arange(2000), 2).astype(np.int32), 8, correlation, rng(1))
    one, other = noise[::2].ravel(), noise[1::2].ravel()
    parts = [np.corrcoef(a, b)[0, 1] for a, b in zip(np.split(one, 20), np.split(other, 20), strict=True)]
    assert stats.ttest_1samp(parts, correlation).pvalue > LEVEL
    assert correlated(noise[::4][:1000], noise[2::4][:1000], 0.0)


def top_1(kind, step=0, **knobs):
    """How often each expert is a token's best, and z of the popularity that the batch was drawn with."""
    batch = synthetic_batch(
        kind, layers=[0], n_experts=EXPERTS, top_k=1, n_ranks=8, rng=rng(3), popularity_rng=rng(4), step=step,
        tokens_per_rank=TOKENS // 8, **knobs,
    )  # fmt: skip
    z = latent(rng(4), 1, EXPERTS, step, 0.0, knobs.get("step_correlation", 1.0))[0]
    return np.bincount(batch.logits[0].argmax(axis=1), minlength=EXPERTS), z


@pytest.mark.parametrize("kind", ["uniform", "megatron-force-load-balancing"])
def test_every_expert_is_as_often_the_best_where_none_is_more_popular(kind):
    assert fits(top_1(kind)[0], np.ones(EXPERTS))


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
def test_experts_are_chosen_by_zipfs_law(exponent):
    counts, z = top_1("zipf", exponent=exponent)
    assert fits(counts, np.exp(zipf_log_popularity(z, exponent)))


@pytest.mark.parametrize("sigma", [0.3, 1.0])
def test_experts_are_chosen_by_log_normal_popularity(sigma):
    counts, z = top_1("lognormal", sigma=sigma)
    assert fits(counts, np.exp(sigma * z))


@pytest.mark.parametrize("step", [1, 3])
def test_popularity_that_turns_is_that_of_its_step(step):
    counts, z = top_1("lognormal", step=step, sigma=0.8, step_correlation=0.7)
    assert fits(counts, np.exp(0.8 * z))


@pytest.mark.parametrize(("kind", "ratio", "hot"), [("one_hot_rank", 3.0, 4), ("one_hot_node", 1.5, 16)])
def test_hot_experts_are_chosen_by_their_popularity(kind, ratio, hot):
    counts, _ = top_1(kind, ratio=ratio, ranks_per_node=4)
    assert fits(counts, np.exp(hot_log_popularity(np.arange(EXPERTS) < hot, 1, ratio, "rank")))


def test_hot_popularity_gives_the_mean_load_times_the_ratio():
    hot = np.arange(128) < 16
    logits = gumbel_noise(np.arange(4096, dtype=np.int32), 128, 0.0, rng(5))
    logits += hot_log_popularity(hot, 8, 2.5, "rank").astype(np.float32)
    chosen = np.argpartition(logits, -8, axis=1)[:, -8:]
    assert hot[chosen].sum() / (8 * 4096) == pytest.approx(2.5 * 16 / 128, rel=0.02)


def test_megatrons_logits_are_standard_normal():
    kind = "megatron-force-load-balancing"
    batch = synthetic_batch(
        kind, layers=[0], n_experts=EXPERTS, top_k=1, n_ranks=1, rng=rng(6), tokens_per_rank=500
    )  # fmt: skip
    assert follows(batch.logits[0], "norm")


def test_latent_popularity_is_standard_normal_in_every_layer_and_step():
    assert follows(latent(rng(7), 40, 64, 3, 0.6, 0.7), "norm")


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
def test_popularity_goes_on_from_layer_to_layer(correlation):
    z = np.concatenate([latent(rng(100 + i), 2, 2000, 0, correlation) for i in range(3)], axis=1)
    assert correlated(z[0], z[1], correlation)


@pytest.mark.parametrize("correlation", [0.2, 0.8])
def test_popularity_goes_on_from_step_to_step(correlation):
    before, after = (latent(rng(8), 1, 5000, step, 0.0, correlation) for step in (2, 3))
    assert correlated(before, after, correlation)


# -- experts dealt or drawn from counts -------------------------------------------------------------------


def dealt(kind, top_k=2, **more):
    batch = dealt_batch(
        kind, layers=[0], n_experts=EXPERTS, top_k=top_k, n_ranks=8, rng=rng(9), popularity_rng=rng(10),
        tokens_per_rank=TOKENS // 8, ranks_per_node=2, **more,
    )  # fmt: skip
    return batch.expert_ids[0]


@pytest.mark.parametrize("kind", ["w4-ragged-sources", "vllm-uniform-random", "sglang-uniform", "w7-burst"])
def test_a_rule_by_chance_deals_every_expert_alike(kind):
    # One place of each token: two experts of a token are no independent draws.
    ids, take = dealt(kind), rng(11).integers(0, 2, TOKENS)
    assert fits(np.bincount(ids[np.arange(TOKENS), take], minlength=EXPERTS), np.ones(EXPERTS))


def test_experts_of_a_token_are_drawn_without_replacement():
    ids = dealt("w4-ragged-sources")
    pairs = np.bincount(ids[:, 0] * EXPERTS + ids[:, 1], minlength=EXPERTS**2).reshape(EXPERTS, EXPERTS)
    assert fits(pairs[np.triu_indices(EXPERTS, 1)], np.ones(EXPERTS * (EXPERTS - 1) // 2))


@pytest.mark.parametrize(("kind", "hot"), [("w2-hot-rank", np.arange(8)), ("w3-spread", np.arange(8) * 4)])
def test_three_tokens_of_four_go_to_hot_experts_and_each_hot_one_takes_as_many(kind, hot):
    ids = dealt(kind, top_k=1)[:, 0]
    eager = ids[np.arange(TOKENS) % 4 != 0]
    assert np.isin(eager, hot).all() and fits(np.bincount(eager, minlength=EXPERTS)[hot], np.ones(8))
    assert fits(np.bincount(ids[::4], minlength=EXPERTS), np.ones(EXPERTS))


def test_a_burst_sends_every_second_token_to_hot_experts():
    ids = dealt("w7-burst", top_k=1, step=3)[:, 0]
    assert fits(np.bincount(ids[1::2], minlength=EXPERTS)[:8], np.ones(8))
    assert fits(np.bincount(ids[::2], minlength=EXPERTS), np.ones(EXPERTS))


def test_vllms_normal_routing_is_a_logistic_of_a_normal():
    ids = dealt("vllm-normal-routing", top_k=1)[:, 0]
    edges = np.arange(1, EXPERTS) / EXPERTS
    chances = np.diff(np.concatenate([[0.0], stats.norm.cdf(np.log(edges / (1 - edges))), [1.0]]))
    assert fits(np.bincount(ids, minlength=EXPERTS), chances)


def test_deepeps_normal_test_deals_all_experts_alike_within_its_nodes():
    ids, take = dealt("deepep-test-normal", top_k=4), rng(12).integers(0, 4, TOKENS)
    assert fits(np.bincount(ids[np.arange(TOKENS), take], minlength=EXPERTS), np.ones(EXPERTS))


@pytest.mark.parametrize("top_k", [1, 3])
def test_tokens_drawn_from_counts_select_each_expert_with_its_chance(top_k):
    counts = rng(13).integers(50, 150, 12)
    batch = counts_batch({0: counts}, top_k=top_k, n_ranks=1, rng=rng(14), tokens_per_rank=20_000)
    found = np.bincount(batch.expert_ids[0].ravel(), minlength=12)
    chance = top_k * counts / counts.sum()
    z = (found - 20_000 * chance) / np.sqrt(20_000 * chance * (1 - chance))
    assert (2 * stats.norm.sf(np.abs(z)) > LEVEL / 12).all()


# -- tokens, replicas, ranks, paths, points ---------------------------------------------------------------


@pytest.mark.parametrize("shortest", [3, 8])
def test_the_block_bootstrap_draws_every_sequence_alike(shortest):
    pool = np.repeat(np.arange(16), [8] * 15 + [shortest]).astype(np.int32)
    drawn = draw_tokens(pool, np.array([40_000]), "by_sequence", rng(15))
    row, number = drawn.part(0, 40_000)
    first = np.unique(number, return_index=True)[1]
    assert fits(np.bincount(pool[drawn.rows[row[first]]], minlength=16), np.ones(16))


def test_one_drawn_sequence_says_nothing_of_the_next():
    row, number = draw_blocks(64, 8, np.array([80_000]), "by_sequence", rng(16)).part(0, 80_000)
    block = row[np.unique(number, return_index=True)[1]] // 8
    assert fits(np.bincount(block[:-1] * 8 + block[1:], minlength=64), np.ones(64))


@pytest.mark.parametrize("replicas", [2, 3, 7])
@pytest.mark.parametrize("seed", [0, 12_345])
def test_hashed_replicas_are_chosen_alike(replicas, seed):
    ids, slots = np.zeros((20_000, 1), np.int32), np.arange(replicas, dtype=np.int32)
    chosen = drawn_replicas(ids, slots, np.array([0, replicas]), np.empty(0), seed, 0)
    assert fits(np.bincount(chosen.ravel(), minlength=replicas), np.ones(replicas))
    pairs = chosen[:-1:2, 0] * replicas + chosen[1::2, 0]  # a token says nothing of the next
    assert fits(np.bincount(pairs, minlength=replicas**2), np.ones(replicas**2))


def test_replicas_drawn_by_share_have_their_shares():
    share, slots = np.array([0.5, 0.3, 0.15, 0.05]), np.arange(4, dtype=np.int32)
    chosen = drawn_replicas(np.zeros((20_000, 1), np.int32), slots, np.array([0, 4]), share, 3, 0)
    assert fits(np.bincount(chosen.ravel(), minlength=4), share)


def test_experts_placed_at_random_are_on_every_rank_alike():
    ranks = np.array(
        [at_random(8, 4, seed).slot_rank[np.argsort(at_random(8, 4, seed).slot_expert)] for seed in range(800)]
    )
    for expert in (0, 5):
        assert fits(np.bincount(ranks[:, expert], minlength=4), np.ones(4))


ARRIVALS = {
    "log-normal": (LognormalOffset(distribution="lognormal", sigma=0.7, scale="2us"), stats.lognorm(0.7, scale=2e-6)),
    "uniform": (UniformOffset(distribution="uniform", scale="5us"), stats.uniform(0, 5e-6)),
    "exponential": (ExponentialOffset(distribution="exponential", scale="3us"), stats.expon(scale=3e-6)),
    "normal": (NormalOffset(distribution="normal", mean="90us", scale="10us"), stats.norm(9e-5, 1e-5)),
}


@pytest.mark.parametrize("name", ARRIVALS)
def test_ranks_arrive_by_the_distribution_named(name):
    offset, law = ARRIVALS[name]
    assert follows(start_offsets(offset, 5000, rng(17)), law.cdf)


def test_a_normal_arrival_below_zero_counts_as_zero():
    offsets = start_offsets(NormalOffset(distribution="normal", mean="0us", scale="1us"), 4000, rng(18))
    assert fits([(offsets == 0).sum(), (offsets > 0).sum()], [1, 1])
    assert follows(offsets[offsets > 0], stats.halfnorm(scale=1e-6).cdf)


@pytest.mark.parametrize("steps", [50.0, 1000.0])
def test_drift_that_turns_stays_standard_normal(steps):
    generator, drift = rng(19), rng(20).standard_normal(4000)
    for _ in range(20):
        drift = turned(drift, steps, generator.standard_normal(4000))
    assert follows(drift, "norm")


@pytest.mark.parametrize("spines", [4, 7])
def test_ecmp_spreads_pairs_of_ranks_over_the_spines_alike(spines):
    source, target = (pair.ravel() for pair in np.meshgrid(np.arange(120), np.arange(120)))
    chosen = ecmp_choice(source, target, np.full(len(source), spines), 1)
    assert fits(np.bincount(chosen, minlength=spines), np.ones(spines))


def test_points_of_a_sweep_are_drawn_alike():
    space = tuple(Axis((key,), tuple((value,) for value in range(4))) for key in ("a", "b"))
    drawn = np.concatenate([Space(space, 3, seed)._cells for seed in range(1500)])
    assert fits(np.bincount(drawn, minlength=16), np.ones(16))
