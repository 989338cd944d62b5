import numpy as np
import pytest

from moesim.workload import synthetic_batch
from moesim.workload.popularity import hot_log_popularity, latent, log_popularity_of, zipf_log_popularity


def rng(seed=0):
    return np.random.default_rng(seed)


def correlation(one, other):
    return np.corrcoef(one.ravel(), other.ravel())[0, 1]


@pytest.mark.parametrize("wanted", [0.0, 0.6, 1.0])
def test_popularity_goes_on_from_layer_to_layer_as_asked(wanted):
    z = latent(rng(), 6, 4000, layer_correlation=wanted)
    assert z.mean() == pytest.approx(0, abs=0.05) and z.std() == pytest.approx(1, abs=0.03)
    for apart in (1, 2):
        assert correlation(z[apart:], z[:-apart]) == pytest.approx(wanted**apart, abs=4 / np.sqrt(4000 * 4))


@pytest.mark.parametrize("wanted", [0.0, 0.8, 1.0])
def test_popularity_of_a_step_follows_from_that_of_the_step_before(wanted):
    z = np.stack(
        [latent(rng(3), 2, 4000, step=step, layer_correlation=0.5, step_correlation=wanted) for step in range(5)]
    )
    assert z.std() == pytest.approx(1, abs=0.03)
    for apart in (1, 3):
        assert correlation(z[apart:], z[:-apart]) == pytest.approx(wanted**apart, abs=4 / np.sqrt(4000 * 2))
    assert correlation(z[:, 1], z[:, 0]) == pytest.approx(0.5, abs=0.06)


def test_zipf_gives_the_largest_number_the_first_place():
    assert zipf_log_popularity(np.array([0.1, 3.0, -1.0]), 2.0) == pytest.approx(-2 * np.log([2, 1, 3]))


def test_popularity_of_a_chance_gives_that_chance_in_draws_without_replacement():
    chance = np.array([0.5, 0.3, 0.15, 0.05] * 16) * 8 / 16
    noise = rng(1).gumbel(size=(40_000, 64)) + log_popularity_of(chance)
    drawn = np.bincount(np.argpartition(-noise, 7, axis=1)[:, :8].ravel(), minlength=64) / 40_000
    assert drawn == pytest.approx(chance, rel=0.02, abs=4 * np.sqrt(0.25 / 40_000))


@pytest.mark.parametrize(("ratio", "node"), [(0.5, 0), (2.0, 3), (4.0, 7)])
def test_the_hot_node_gets_ratio_times_the_mean_load(ratio, node):
    batch = synthetic_batch(
        "one_hot_node", layers=[1], n_experts=256, top_k=8, n_ranks=64, rng=rng(), tokens_per_rank=256,
        ranks_per_node=8, ratio=ratio, hot_node=node,
    )  # fmt: skip
    ids = np.argpartition(-batch.logits[1], 7, axis=1)[:, :8]
    load = np.bincount(ids.ravel() // 32, minlength=8)
    assert load[node] / load.mean() == pytest.approx(ratio, rel=0.01 + 3 / np.sqrt(16_384 * ratio))
    cold = np.delete(load, node)
    assert cold.max() / cold.mean() < 1.03


def test_hot_experts_and_the_others_share_all_selections():
    w = np.exp(hot_log_popularity(np.arange(128) < 4, 8, 3.0, "it"))
    assert (1 - np.exp(-w)).sum() == pytest.approx(8)
