"""Routing of the libraries' own benchmarks, against closed forms and against tokens walked one by one."""

import numpy as np
import pytest

from moesim.validate.benchmark_routing import balanced_copies, equal_messages, one_seed_copies, random_copies
from tests.reference.copies import expected_distinct


@pytest.mark.parametrize(("ranks", "nodes"), [(8, 1), (16, 2), (32, 4)])
def test_random_scores_reach_as_many_ranks_and_nodes_as_a_uniform_draw(ranks, nodes):
    tokens = 2048
    copies = random_copies(ranks, ranks // nodes, tokens, 256, 8, None)
    assert (copies.selections.sum(axis=1) == 8 * tokens).all()
    for matrix, groups in ((copies.rank_copies, ranks), (copies.node_copies, nodes)):
        expected = expected_distinct(groups, 256, 8)
        # two thousand tokens and more: half a per cent is over four standard deviations of the mean
        assert matrix.sum() / (ranks * tokens) == pytest.approx(expected, rel=5e-3)


def test_a_token_of_deepeps_test_reaches_at_most_four_nodes():
    copies = random_copies(64, 8, 512, 256, 8, 4)
    per_token = copies.node_copies.sum() / (64 * 512)
    assert 3.97 < per_token <= 4.0  # published derivation: 3.983


def test_the_low_latency_test_masks_ten_selections_of_every_rank_some_of_them_twice():
    copies = random_copies(16, 8, 128, 288, 8, masked=True)
    sent = copies.selections.sum(axis=1)
    assert (sent >= 8 * 128 - 10).all()
    assert (sent < 8 * 128).all()
    assert 8 * 128 - 10 <= sent.mean() < 8 * 128 - 9


def test_hybrid_eps_ranks_all_send_the_same():
    copies = one_seed_copies(16, 8, 1024, 128, 8)
    assert (copies.rank_copies == copies.rank_copies[0]).all()
    received = copies.rank_copies.sum(axis=0)
    assert received.max() / received.mean() > 1.03  # the hot rank is hot for everybody; alone it would be 1.01


@pytest.mark.parametrize(("ranks", "tokens"), [(4, 3), (8, 5), (32, 1), (32, 6), (64, 64)])
def test_the_balanced_router_sends_tokens_to_groups_of_eight_ranks_in_turn(ranks, tokens):
    copies = balanced_copies(ranks, tokens, 8)
    selections, distinct = np.zeros(ranks, int), np.zeros(ranks, int)
    for token in range(tokens):
        hit = [(8 * token + step) % ranks for step in range(8)]
        for rank in hit:
            selections[rank] += 1
        for rank in set(hit):
            distinct[rank] += 1
    assert (copies.selections == selections).all()
    assert (copies.rank_copies == distinct).all()
    assert (copies.node_copies == tokens).all()


def test_past_a_large_batch_copies_are_multiples():
    large, small = random_copies(8, 8, 32_768, 64, 4), random_copies(8, 8, 16_384, 64, 4)
    assert (large.rank_copies == 2 * small.rank_copies).all()
    with pytest.raises(ValueError, match="not a multiple"):
        random_copies(8, 8, 20_000, 64, 4)


def test_a_setting_always_draws_the_same():
    random_copies.cache_clear()
    first = random_copies(16, 8, 64, 256, 8, 4).selections.copy()
    random_copies.cache_clear()
    assert (random_copies(16, 8, 64, 256, 8, 4).selections == first).all()


def test_equal_messages():
    copies = equal_messages(4, 10)
    assert (copies.selections == 10).all()
    assert copies.selections.shape == (4, 4)
    assert copies.rank_copies.tolist() == [[10] * 4] * 4 and copies.node_copies.tolist() == [[40]] * 4  # one node
