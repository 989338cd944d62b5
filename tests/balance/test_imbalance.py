import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.balance import Imbalance, expert_load, imbalance, max_violation, sequence_imbalance
from moesim.balance.token_weights import sequences
from moesim.errors import InputError
from tests.reference import losses as reference

QUICK = settings(deadline=None, max_examples=40, derandomize=True)


def test_the_three_figures_are_the_same_fact():
    assert imbalance([10, 30, 20, 20]) == Imbalance(1.5, 1 / 1.5, 0.5)
    assert max_violation([10, 30, 20, 20]) == 0.5
    assert imbalance([7.0] * 5) == Imbalance(1.0, 1.0, 0.0)


def test_no_load_at_all_is_balanced():
    assert imbalance([0, 0, 0]) == Imbalance(1.0, 1.0, 0.0)


@pytest.mark.parametrize("load", [[], [[1, 2]], [1, -1], [1, np.inf]])
def test_loads_that_are_no_loads_are_refused(load):
    with pytest.raises(InputError):
        imbalance(load)


def test_published_imbalance_of_2_56_is_a_violation_of_1_56():
    # 31 ranks at the mean of the rest and one hot rank: max/mean 2.56 as published for EP32.
    hot, ranks = 2.56, 32
    load = np.full(ranks, (ranks - hot) / (ranks - 1))
    load[4] = hot
    assert imbalance(load).max_over_mean == pytest.approx(2.56, rel=1e-14)
    assert imbalance(load).max_violation == pytest.approx(1.56, rel=1e-14)


@QUICK
@given(st.integers(0, 2**32), st.integers(0, 12))
def test_loads_and_sequences_count_as_the_batch_written_out(seed, tokens):
    rng = np.random.default_rng(seed)
    ids = rng.integers(-1, 6, size=(tokens, 3))
    sequence = rng.integers(-2, 2, tokens) * 100
    weight = rng.integers(0, 4, tokens)
    out = np.repeat(np.arange(tokens), weight)
    wanted = reference.selections(ids[out].tolist(), 6)
    assert expert_load(ids, 6, weight).tolist() == wanted
    assert expert_load(ids[out], 6).tolist() == wanted
    ratios = reference.sequence_imbalance(ids[out].tolist(), sequence[out].tolist(), 6)
    assert sequence_imbalance(ids, sequence, 6, weight) == pytest.approx(ratios, rel=1e-14)
    assert sequence_imbalance(ids[out], sequence[out], 6) == pytest.approx(ratios, rel=1e-14)


def test_a_sequence_on_one_expert_is_out_of_balance_by_the_number_of_experts():
    ids = np.array([[0], [0], [1], [2], [3], [0]])
    sequence = np.array([5, 5, 9, 9, 9, 9])
    assert sequence_imbalance(ids, sequence, 4).tolist() == [4.0, 1.0]


@pytest.mark.parametrize(
    ("ids", "sequence", "weight", "where"),
    [
        ([[0, 4]], [0], None, "expert_ids"),
        ([[0, -2]], [0], None, "expert_ids"),
        ([0, 1], [0, 0], None, "expert_ids"),
        ([[0.5]], [0], None, "expert_ids"),
        ([[0]], [0, 1], None, "sequence_id"),
        ([[0]], ["a"], None, "sequence_id"),
        ([[0]], [0], [1, 1], "weight"),
        ([[0]], [0], [-1], "weight"),
    ],
)
def test_arrays_that_do_not_describe_one_batch_are_refused(ids, sequence, weight, where):
    with pytest.raises(InputError) as error:
        sequence_imbalance(ids, sequence, 4, weight)
    assert error.value.where == where


def test_sequences_are_numbered_in_their_order_and_a_token_without_copies_is_in_none():
    row, n_sequences = sequences([9, 5, 7, 9, 7], 5, np.array([1.0, 2.0, 0.0, 0.0, 0.0]))
    assert row.tolist() == [1, 0, -1, -1, -1] and n_sequences == 2


def test_a_sequence_whose_copies_were_all_dropped_is_balanced():
    ids = np.array([[0, 1], [-1, -1], [2, 2]], np.int32)
    assert sequence_imbalance(ids, np.array([5, 6, 7]), 4).tolist() == [2.0, 1.0, 4.0]
