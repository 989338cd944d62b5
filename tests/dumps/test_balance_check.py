import numpy as np
import pytest

from moesim.dumps import RoutingTrace
from moesim.dumps.balance_check import check_balance
from moesim.dumps.routing_trace import Source
from moesim.errors import InputError

HERE = Source("tests", "by rule")


def of_ids(ids, sequence=None, n_experts=8):
    ids = np.asarray(ids, np.int32)
    return RoutingTrace("ids", tuple(range(len(ids))), n_experts, HERE, top_k=ids.shape[2], ids=ids, sequence=sequence)


def of_counts(counts):
    counts = np.asarray(counts, np.int64)
    return RoutingTrace("counts", tuple(range(counts.shape[1])), counts.shape[2], HERE, counts=counts)


def drawn(seed, skew=0.0, tokens=4096, n_experts=8, layers=2):
    rng = np.random.default_rng(seed)
    noise = rng.gumbel(size=(layers, tokens, n_experts)) - skew * np.arange(n_experts)
    return of_ids(np.argsort(-noise, axis=2)[:, :, :2])


def figures(rows):
    return {row.name: row for row in rows}


def test_the_figures_by_hand_in_moesims_and_the_engines_definitions():
    # Two layers, four experts on two ranks of a node each. Ranks get 6 and 2, then 3 and 5.
    now = of_counts([[[5, 1, 1, 1], [2, 1, 1, 4]]])
    even = of_counts([[[2, 2, 2, 2], [2, 2, 2, 2]]])
    found = figures(check_balance(now, even, n_ranks=2, ranks_per_node=1))
    by_hand = {
        "expert_load_max_over_mean": (5 / 2 + 4 / 2) / 2,
        "rank_load_max_over_mean": (6 / 4 + 5 / 4) / 2,
        "node_load_max_over_mean": (6 / 4 + 5 / 4) / 2,
        "max_violation": (3 / 2 + 2 / 2) / 2,
        "sglang_utilization": (4 / 6 + 4 / 5) / 2,
        "vllm_balancedness": (4 + 4) / (6 + 5),
    }
    assert {name: row.value for name, row in found.items()} == pytest.approx(by_hand)
    assert found["vllm_balancedness"].baseline == 1 and found["vllm_balancedness"].worse == pytest.approx(11 / 8 - 1)
    assert all(row.noise is None for row in found.values()), "one step says nothing about noise"


def test_copies_of_a_token_by_hand():
    ids = of_ids([[[0, 1], [0, 7], [2, -1]]])  # four ranks of two experts, two nodes: 1, 2 and 1 places
    found = figures(check_balance(ids, ids, n_ranks=4, ranks_per_node=2))
    assert found["rank_copies_per_token"].value == pytest.approx(4 / 3)
    assert found["node_copies_per_token"].value == pytest.approx(4 / 3)


def test_more_ranks_than_bits_of_a_word_are_counted():
    ids = of_ids(np.arange(200).reshape(1, 1, 200), n_experts=200)
    found = figures(check_balance(ids, ids, n_ranks=200, ranks_per_node=2))
    assert found["rank_copies_per_token"].value == 200 and found["node_copies_per_token"].value == 100


def test_other_tokens_of_the_same_router_do_not_fail_and_a_skewed_router_does():
    limits = {"rank_load_max_over_mean": 0.02, "sglang_utilization": 0.02, "vllm_balancedness": 0.02}
    base = drawn(0, skew=0.1)
    alarms = sum(
        row.fails(limits[row.name])
        for seed in range(1, 21)
        for row in check_balance(drawn(seed, skew=0.1), base, 4, 2)
        if row.name in limits
    )
    assert alarms == 0
    skewed = figures(check_balance(drawn(1, skew=0.2), base, 4, 2))
    assert all(skewed[name].fails(limit) for name, limit in limits.items())
    better = figures(check_balance(base, drawn(1, skew=0.2), 4, 2))
    assert not any(better[name].fails(limit) for name, limit in limits.items())


def test_the_noise_is_the_spread_of_the_figure_over_other_tokens():
    base = drawn(0, skew=0.1)
    values = [figures(check_balance(drawn(seed, 0.1), base, 4, 2))["vllm_balancedness"].value for seed in range(40)]
    noise = figures(check_balance(drawn(1, 0.1), base, 4, 2))["vllm_balancedness"].noise
    assert noise == pytest.approx(np.expm1(1.96 * np.sqrt(2) * np.log(values).std()), rel=0.5)


def test_tokens_of_a_sequence_count_as_one_draw():
    # Each sequence selects one pair of experts: 32 sequences of 128 tokens are 32 draws, not 4,096.
    rng = np.random.default_rng(0)
    pairs = np.array([rng.permutation(8)[:2] for _ in range(32)], np.int32)
    ids, sequence = np.repeat(pairs, 128, axis=0)[None], np.repeat(np.arange(32), 128).astype(np.int32)
    apart = np.random.default_rng(1).permutation(4096)
    of_sequences = figures(check_balance(of_ids(ids, sequence), of_ids(ids, sequence), 4, 2))
    of_tokens = figures(check_balance(of_ids(ids[:, apart]), of_ids(ids[:, apart]), 4, 2))
    name = "expert_load_max_over_mean"
    assert of_sequences[name].value == of_tokens[name].value
    assert of_sequences[name].noise > 4 * of_tokens[name].noise


def test_steps_of_counts_are_the_draws_of_counts():
    rng = np.random.default_rng(0)
    counts = rng.poisson(50, (20, 2, 8))
    assert figures(check_balance(of_counts(counts), of_counts(counts), 4, 2))["max_violation"].noise > 0


@pytest.mark.parametrize(
    ("other", "ranks", "what"),
    [
        (of_counts(np.ones((1, 1, 8))), 2, "2 layers of 8 experts, the baseline has 1 of 8"),
        (of_counts(np.ones((1, 2, 4))), 2, "the baseline has 2 of 4"),
        (of_counts(np.ones((1, 2, 8))), 9, "9 ranks for 8 experts"),
    ],
)
def test_what_cannot_be_compared_is_refused(other, ranks, what):
    with pytest.raises(InputError, match=what):
        check_balance(of_counts(np.ones((1, 2, 8))), other, ranks, 2)
