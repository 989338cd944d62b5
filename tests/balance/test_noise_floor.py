import numpy as np
import pytest

from moesim.balance import uniform_router_max_over_mean
from moesim.errors import InputError


def drawn(n_tokens, n_experts, top_k, batches, seed):
    """Return mean and standard error of max/mean over uniform batches drawn out in full."""
    rng = np.random.default_rng(seed)
    ratios = []
    for _ in range(batches):
        keys = rng.random((n_tokens, n_experts), dtype=np.float32)
        ids = np.argpartition(keys, top_k - 1, axis=1)[:, :top_k]
        load = np.bincount(ids.ravel(), minlength=n_experts)
        ratios.append(load.max() / load.mean())
    return np.mean(ratios), np.std(ratios) / np.sqrt(batches)


@pytest.mark.parametrize(
    ("n_tokens", "n_experts", "top_k", "batches"),
    [
        (16, 64, 6, 300),
        (200, 64, 8, 300),
        (64, 256, 8, 200),
        (1025, 8, 2, 300),
        (3000, 4, 1, 300),
        (9000, 2, 1, 300),
    ],
)
def test_the_noise_floor_is_the_mean_over_drawn_uniform_batches(n_tokens, n_experts, top_k, batches):
    mean, error = drawn(n_tokens, n_experts, top_k, batches, seed=1)
    floor = uniform_router_max_over_mean(n_tokens, n_experts, top_k, np.random.default_rng(2))
    assert abs(floor - mean) < 4 * error + 0.002 * mean


@pytest.mark.parametrize(("n_tokens", "floor"), [(32_768, 1.09), (131_072, 1.04)])
def test_published_floors_of_256_experts_and_top_8(n_tokens, floor):
    got = uniform_router_max_over_mean(n_tokens, 256, 8, np.random.default_rng(0))
    assert got == pytest.approx(floor, abs=0.005)


def test_the_floor_falls_with_the_square_root_of_the_tokens():
    rng = np.random.default_rng(0)
    excess = [uniform_router_max_over_mean(n, 64, 8, rng) - 1 for n in (10**6, 4 * 10**6, 10**8)]
    assert excess[0] / excess[1] == pytest.approx(2, rel=0.01)
    assert excess[0] / excess[2] == pytest.approx(10, rel=0.01)


def test_one_token_loads_k_of_e_experts_once():
    assert uniform_router_max_over_mean(1, 8, 2, np.random.default_rng(0)) == 4.0


def test_a_router_that_takes_every_expert_is_balanced():
    assert uniform_router_max_over_mean(10, 8, 8, np.random.default_rng(0)) == 1.0


def test_the_same_generator_state_gives_the_same_floor():
    one, two = (uniform_router_max_over_mean(20, 64, 8, np.random.default_rng(5)) for _ in range(2))
    assert one == two


@pytest.mark.parametrize(("n_tokens", "n_experts", "top_k"), [(0, 8, 2), (5, 8, 0), (5, 8, 9)])
def test_a_router_without_tokens_or_experts_is_refused(n_tokens, n_experts, top_k):
    with pytest.raises(InputError):
        uniform_router_max_over_mean(n_tokens, n_experts, top_k, np.random.default_rng(0))
