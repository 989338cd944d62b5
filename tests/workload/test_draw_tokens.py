import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.errors import InputError
from moesim.workload import token_draw
from moesim.workload.token_draw import draw_blocks, draw_tokens, tokens_of_ranks

POOL = np.repeat(np.arange(6), [4, 4, 4, 4, 4, 4]).astype(np.int32)


class Drawn:
    """A draw with all its tokens at once, [T] each."""

    def __init__(self, draw):
        self.draw, self.rows, self.bootstrapped = draw, draw.rows, draw.bootstrapped
        self.token_index, self.sequence = draw.part(0, draw.tokens)
        self.token_rank = np.repeat(np.arange(len(draw.rank_tokens)), draw.rank_tokens)


def drawn(counts, pool=POOL, assign="by_sequence", seed=0):
    return Drawn(draw_tokens(pool, np.asarray(counts), assign, np.random.default_rng(seed)))


def test_fewer_tokens_than_recorded_are_taken_once_and_in_recorded_order():
    d = drawn([5, 6])
    assert d.rows[d.token_index].tolist() == list(range(11))
    assert not d.bootstrapped
    assert d.sequence.tolist() == POOL[:11].tolist()
    assert d.token_rank.tolist() == [0] * 5 + [1] * 6


def test_all_recorded_tokens_need_no_bootstrap():
    d = drawn([12, 12])
    assert not d.bootstrapped and len(d.rows) == 24


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=9),
    counts=st.lists(st.integers(0, 30), min_size=1, max_size=6).filter(sum),
    assign=st.sampled_from(["by_sequence", "striped"]),
    seed=st.integers(0, 99),
)
def test_every_rank_gets_its_tokens_and_drawn_sequences_are_whole_but_the_last(lengths, counts, assign, seed):
    pool = np.repeat(np.arange(len(lengths)), lengths).astype(np.int32)
    d = drawn(counts, pool, assign, seed)
    assert np.bincount(d.token_rank, minlength=len(counts)).tolist() == counts
    assert (np.diff(d.token_rank) >= 0).all()
    source = d.rows[d.token_index]
    last = d.sequence.max()
    for occurrence in range(last + 1):
        tokens = np.sort(source[d.sequence == occurrence])
        assert len(set(pool[tokens])) == 1, "one drawn sequence mixes two recorded ones"
        whole = np.flatnonzero(pool == pool[tokens[0]])
        assert tokens.tolist() == whole[: len(tokens)].tolist()
        assert occurrence == last or len(tokens) == len(whole)
    assert np.array_equal(np.unique(d.token_index), np.arange(len(d.rows)))


def dealing_position(counts):
    """Turn at which each token, sorted by rank, is dealt: ranks take turns until they are full."""
    rank = np.repeat(np.arange(len(counts)), counts)
    within = np.concatenate([np.arange(count) for count in counts])
    turn = np.empty(len(rank), np.int64)
    turn[np.lexsort((rank, within))] = np.arange(len(rank))
    return turn


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=9),
    counts=st.lists(st.integers(0, 30), min_size=1, max_size=6).filter(sum),
    part=st.integers(1, 40),
    seed=st.integers(0, 99),
)
def test_tokens_taken_part_by_part_are_those_of_a_draw_all_at_once(lengths, counts, part, seed):
    pool = np.repeat(np.arange(len(lengths)), lengths).astype(np.int32)
    for assign in ("by_sequence", "striped"):
        d, total = drawn(counts, pool, assign, seed), sum(counts)
        parts = [d.draw.part(start, min(start + part, total)) for start in range(0, total, part)]
        rows, sequence = (np.concatenate(column) for column in zip(*parts, strict=True))
        assert np.array_equal(rows, d.token_index) and np.array_equal(sequence, d.sequence)
        assert d.draw.times().tolist() == np.bincount(rows).tolist()
    in_order = drawn(counts, pool, "by_sequence", seed)
    dealt = dealing_position(counts)
    assert np.array_equal(d.rows[d.token_index], in_order.rows[in_order.token_index][dealt])
    assert np.array_equal(d.sequence, in_order.sequence[dealt])


@pytest.mark.parametrize("shortest", [1, 4])
def test_sequences_drawn_a_few_at_a_time_are_those_of_one_draw_and_leave_the_same_chance(monkeypatch, shortest):
    pool = np.repeat(np.arange(3), [4, shortest, 6]).astype(np.int32)
    once, many = np.random.default_rng(5), np.random.default_rng(5)
    whole = draw_tokens(pool, np.array([300]), "by_sequence", once)
    monkeypatch.setattr(token_draw, "_DRAWN_AT_ONCE", 7)
    by_few = draw_tokens(pool, np.array([300]), "by_sequence", many)
    assert np.array_equal(whole.part(0, 300), by_few.part(0, 300))
    assert once.random() == many.random()


def test_the_bootstrap_draws_every_sequence_about_equally_often():
    d = drawn([4 * 6000])
    times = np.bincount(POOL[d.rows[d.token_index]]) / 4
    expected = times.sum() / 6
    chi_square = ((times - expected) ** 2 / expected).sum()
    assert chi_square < 20.5  # 0.1 % point of chi-square with 5 degrees of freedom
    assert d.bootstrapped


def test_striped_tokens_go_to_rank_i_mod_r():
    d = drawn([6, 6, 6, 6], assign="striped")
    rank_of_source = np.empty(24, int)
    rank_of_source[d.rows[d.token_index]] = d.token_rank
    assert rank_of_source.tolist() == (np.arange(24) % 4).tolist()


def test_striping_passes_ranks_that_are_full():
    d = drawn([1, 3, 0, 2], assign="striped")
    rank_of_source = np.empty(6, int)
    rank_of_source[d.rows[d.token_index]] = d.token_rank
    assert rank_of_source.tolist() == [0, 1, 3, 1, 3, 1]


def test_a_sequence_assigned_by_sequence_touches_as_few_ranks_as_its_length_needs():
    d = drawn([8, 8, 8])
    for sequence in range(6):
        assert len(set(d.token_rank[d.sequence == sequence])) == 1


def test_a_draw_depends_on_its_seed_alone():
    a, b, other = drawn([40, 40], seed=3), drawn([40, 40], seed=3), drawn([40, 40], seed=4)
    assert np.array_equal(a.rows[a.token_index], b.rows[b.token_index])
    assert not np.array_equal(a.rows[a.token_index], other.rows[other.token_index])


def test_tokens_per_rank_defaults_to_an_even_share():
    assert tokens_of_ranks(None, 4, 103).tolist() == [25] * 4
    assert tokens_of_ranks(3, 2, 0).tolist() == [3, 3]
    assert tokens_of_ranks([0, 7], 2, 0).tolist() == [0, 7]
    assert tokens_of_ranks([1 << 27, 0], 2, 0).tolist() == [1 << 27, 0]  # 13 bytes each: 1.7 GB


@pytest.mark.parametrize(
    ("tokens", "ranks", "says"),
    [
        ([1, 2, 3], 2, "3 values for 2 ranks"),
        ([4, -1], 2, "rank 1 holds -1"),
        ([0, 0], 2, "a batch of 0 tokens"),
        (1.5, 2, "not a number of tokens"),
        ([[1, 2]], 2, "one per rank"),
        ([1 << 27, 1], 2, "can be simulated at once"),
        (4, 0, "0 ranks"),
        (None, 64, "are fewer than 64 ranks"),
    ],
)
def test_impossible_token_counts_are_refused(tokens, ranks, says):
    with pytest.raises(InputError, match=says):
        tokens_of_ranks(tokens, ranks, available=10)


def test_unknown_assignment_empty_pool_and_empty_blocks_are_refused():
    with pytest.raises(InputError, match="by_sequence or striped"):
        drawn([1], assign="random")
    with pytest.raises(InputError, match="no token to draw from"):
        drawn([1], pool=POOL[:0])
    with pytest.raises(InputError, match="0 tokens per sequence"):
        draw_blocks(8, 0, np.array([4]), "striped", np.random.default_rng(0))
