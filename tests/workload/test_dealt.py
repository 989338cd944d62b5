"""What the suite and the engines deal, against what their rules say in closed form."""

import math
from itertools import pairwise
from statistics import NormalDist
from typing import get_args

import numpy as np
import pytest

from moesim import load_scenario
from moesim.errors import InputError
from moesim.scenario.arrivals import Dealt
from moesim.workload import dealt_batch

KINDS = get_args(Dealt.model_fields["kind"].annotation)
E, K, R, T = 64, 6, 16, 256
WITH_REPEATS = {"vllm-uniform-random", "vllm-normal-routing"}
WITHOUT_CHANCE = {"w0-balanced", "sglang-round-robin", "tensorrt-llm-balanced"}


def deal(kind, seed=0, step=0, **how):
    how = {"layers": [0], "n_experts": E, "top_k": K, "n_ranks": R, "tokens_per_rank": T, "ranks_per_node": 4, **how}
    hot = np.random.default_rng(99)
    return dealt_batch(kind, rng=np.random.default_rng(seed), step=step, popularity_rng=hot, **how)


def ids_of(batch, layer=0):
    return batch.expert_ids[layer][batch.token_index]


def loads(ids, n=E):
    return np.bincount(ids[ids >= 0], minlength=n)


def chi_square(counts, expected):
    return ((counts - expected) ** 2 / expected).sum()


def bound(freedom):
    """The value that one chi-square of a thousand exceeds (Wilson and Hilferty)."""
    return freedom * (1 - 2 / (9 * freedom) + 3.09 * math.sqrt(2 / (9 * freedom))) ** 3


@pytest.mark.parametrize("kind", KINDS)
def test_every_token_gets_k_experts_and_the_same_ones_for_the_same_seed(kind):
    batch = deal(kind, layers=[0, 1])
    ids = ids_of(batch)
    assert ids.shape == (batch.tokens, K) and ids.min() >= -1 and ids.max() < E
    if kind not in WITH_REPEATS | {"deepep-test-low-latency"}:
        assert all(len(set(row)) == K for row in ids)
    assert np.array_equal(ids, ids_of(deal(kind, layers=[0, 1])))
    assert (kind in WITHOUT_CHANCE) == np.array_equal(ids, ids_of(deal(kind, seed=1, layers=[0, 1])))
    assert batch.tokens == R * T and (np.diff(batch.token_rank) >= 0).all()


@pytest.mark.parametrize("kind", sorted(WITHOUT_CHANCE))
def test_what_is_dealt_without_chance_is_exactly_even(kind):
    load = loads(ids_of(deal(kind, tokens_per_rank=2 * E)))
    assert load.max() == load.min()
    tokens = deal(kind, tokens_per_rank=5000)  # more than are kept apart
    assert tokens.distinct_tokens < tokens.tokens
    whole = loads(ids_of(tokens))
    assert whole.max() - whole.min() <= K


@pytest.mark.parametrize("kind", ["w4-ragged-sources", "sglang-uniform", "vllm-uniform-random", "deepep-test-normal"])
def test_what_is_dealt_at_random_loads_every_expert_alike(kind):
    load = loads(ids_of(deal(kind)))
    # Without replacement counts vary less than independent ones, so the bound is on the safe side.
    assert chi_square(load, load.mean()) < bound(E - 1)


@pytest.mark.parametrize(
    ("kind", "hot"),
    [
        ("w2-hot-rank", range(16)),
        ("w3-spread", range(0, 64, 4)),
        ("w1-hot-experts", None),
        ("w6-rotating-hotspot", range(16)),
    ],
)
def test_a_hot_set_takes_three_tokens_of_four(kind, hot):
    load = loads(ids_of(deal(kind)))
    its = np.argsort(-load)[:16]
    if hot is not None:
        assert set(its) == set(hot)
    per_token = np.full(E, K / E / 4)
    per_token[its] += K / 16 * 3 / 4
    assert chi_square(load, per_token * R * T) < bound(E - 1)


def test_heat_is_the_same_on_one_rank_and_spread_and_only_places_differ():
    one, spread = (loads(ids_of(deal(kind))) for kind in ("w2-hot-rank", "w3-spread"))
    assert one.max() / one.mean() == pytest.approx(spread.max() / spread.mean(), rel=0.05)
    ranks = [load.reshape(R, -1).sum(axis=1) for load in (one, spread)]
    assert ranks[0].max() / ranks[0].mean() > 3 and ranks[1].max() / ranks[1].mean() < 1.05


def test_half_of_the_experts_and_their_ranks_get_nothing():
    load = loads(ids_of(deal("w5-zero-load")))
    assert not load[: E // 2].any() and chi_square(load[E // 2 :], load[E // 2 :].mean()) < bound(E // 2 - 1)


def test_sources_are_ragged_from_half_the_mean_to_one_and_a_half():
    per_rank = np.bincount(deal("w4-ragged-sources").token_rank)
    assert per_rank.sum() == R * T and per_rank[0] == T / 2 and per_rank[-1] == 3 * T / 2
    assert all(b > a for a, b in pairwise(per_rank))
    given = list(range(1, R + 1))
    assert np.bincount(deal("w4-ragged-sources", tokens_per_rank=given).token_rank).tolist() == given


def test_the_hotspot_moves_every_three_steps_and_comes_round():
    hottest = [loads(ids_of(deal("w6-rotating-hotspot", step=step))).argmax() // 16 for step in range(13)]
    assert hottest == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 0]


def test_every_fourth_step_is_a_burst():
    skew = [load.max() / load.mean() for load in (loads(ids_of(deal("w7-burst", step=step))) for step in range(8))]
    assert [ratio > 2 for ratio in skew] == [False, False, False, True] * 2


def test_a_drawn_hot_set_stays_from_step_to_step_and_differs_between_layers():
    first, second = (deal("w1-hot-experts", seed=step, step=step, layers=[0, 1]) for step in (0, 1))
    hot = [set(np.argsort(-loads(ids_of(batch, layer)))[:16]) for batch in (first, second) for layer in (0, 1)]
    assert hot[0] == hot[2] and hot[1] == hot[3] and hot[0] != hot[1]


def test_sglang_deals_a_stride_from_a_start_of_each_token():
    ids = ids_of(deal("sglang-round-robin", layers=[3], n_experts=256, top_k=8, tokens_per_rank=2), 3)
    # Token i of rank r is number i R + r, and layer 3 starts three experts on.
    for rank, place in ((0, 0), (5, 0), (5, 1)):
        start = place * R + rank + 3
        assert ids[2 * rank + place].tolist() == sorted((start + 32 * j) % 256 for j in range(8))
    gaps = np.diff(ids_of(deal("sglang-uniform", n_experts=256, top_k=8)), axis=1)
    assert (gaps == 32).all()


def test_sglang_leaves_every_other_rank_idle_with_few_tokens_and_tensorrt_llm_none():
    how = {"n_experts": 256, "top_k": 8, "tokens_per_rank": [1] * 8 + [0] * 8}
    ranks = loads(ids_of(deal("sglang-round-robin", **how)) // 16, 16)
    assert ranks.tolist() == [8, 0] * 8  # sgl-project/sglang pull request 37741 prints this
    assert loads(ids_of(deal("tensorrt-llm-balanced", **how)) // 16, 16).tolist() == [4] * 16


def test_tensorrt_llm_deals_selections_to_the_ranks_in_turn():
    ids = ids_of(deal("tensorrt-llm-balanced", n_experts=32, top_k=4, n_ranks=8, tokens_per_rank=4))
    assert ids[:3].tolist() == [[0, 4, 8, 12], [16, 20, 24, 28], [1, 5, 9, 13]]
    with pytest.raises(InputError, match="64 experts do not divide by 6 ranks"):
        deal("tensorrt-llm-balanced", n_ranks=6)


def test_vllm_draws_with_replacement_so_that_an_expert_may_come_twice():
    ids = ids_of(deal("vllm-uniform-random"))
    distinct = np.mean([len(set(row)) for row in ids])
    assert distinct == pytest.approx(E * (1 - (1 - 1 / E) ** K), abs=0.03)


def test_vllm_maps_a_normal_variable_through_a_sigmoid():
    ids = ids_of(deal("vllm-normal-routing"))
    edges = np.array([-np.inf, *(math.log(e / (E - e)) for e in range(1, E)), np.inf])
    share = np.diff([0.0, *(NormalDist().cdf(edge) for edge in edges[1:-1]), 1.0])
    counts = loads(ids)
    # The outermost experts are hardly ever drawn: pooled, so that each cell expects at least ten.
    cells = share * ids.size >= 10
    pooled = [*counts[cells], counts[~cells].sum()], [*share[cells], share[~cells].sum()]
    assert chi_square(np.array(pooled[0]), np.array(pooled[1]) * ids.size) < bound(cells.sum())


def test_deepep_reaches_four_nodes_in_its_normal_test_and_masks_ten_places_in_the_other():
    ids = ids_of(deal("deepep-test-normal", n_ranks=64, ranks_per_node=8, tokens_per_rank=64))
    nodes = [len(set(row // 8)) for row in ids]
    assert max(nodes) == 4
    free = ids_of(deal("deepep-test-normal", n_ranks=32, ranks_per_node=8, tokens_per_rank=64))
    assert max(len(set(row // 16)) for row in free) == 4  # of 4 nodes: no limit
    masked = deal("deepep-test-low-latency", tokens_per_rank=128)
    gone = np.bincount(masked.token_rank, weights=(ids_of(masked) < 0).sum(axis=1))
    assert gone.max() == 10 and gone.mean() > 9


@pytest.mark.parametrize("kind", ["w5-zero-load", "w0-balanced"])
def test_more_experts_than_are_dealt_are_refused(kind):
    with pytest.raises(InputError, match=r"routing.top_k"):
        deal(kind, n_experts=8, top_k=9 if kind == "w0-balanced" else 5)
    with pytest.raises(InputError, match="no rule 'w8'"):
        deal("w8")


def test_a_scenario_says_where_a_key_has_no_effect():
    dealt = ["workload.recording=null", "workload.synthetic={kind: w0-balanced}"]
    for override in ("workload.assign=striped", "routing.update_bias=true"):
        with pytest.raises(InputError, match=override.split("=")[0]):
            load_scenario("quickstart", [*dealt, override])
