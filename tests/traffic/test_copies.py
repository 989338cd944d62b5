import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.errors import InputError
from moesim.traffic import Copies, count_all_copies, count_copies
from tests.full_gates import cases
from tests.reference.copies import count_with_sets, expected_distinct

NOWHERE = np.zeros((0, 4), np.int32)


@st.composite
def batches(draw):
    """Small batches with dropped selections, slots anywhere, a last node that may be short of ranks."""
    n_ranks, ranks_per_node = draw(st.integers(1, 9)), draw(st.integers(1, 5))
    n_slots, n_tokens, top_k = draw(st.integers(1, 20)), draw(st.integers(0, 12)), draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return {
        "slot_ids": rng.integers(-1, n_slots, (n_tokens, top_k)).astype(np.int32),
        "token_rank": rng.integers(0, n_ranks, n_tokens),
        "slot_rank": rng.integers(0, n_ranks, n_slots),
        "n_ranks": n_ranks,
        "ranks_per_node": ranks_per_node,
    }


def as_dict(copies):
    return {"none": copies.selections, "rank": copies.rank_copies, "node": copies.node_copies}


@given(batches())
@settings(max_examples=60, deadline=None)
def test_counting_in_one_pass_equals_counting_with_sets(batch):
    want = count_with_sets(**batch)
    together = as_dict(count_all_copies(**batch))
    for dedup in ("none", "rank", "node"):
        alone = count_copies(**batch, dedup=dedup)
        assert alone.dtype == np.int64
        assert alone.tolist() == together[dedup].tolist() == want[dedup].tolist()


@given(batches())
@settings(max_examples=60, deadline=None)
def test_dedup_never_adds_a_copy_and_every_selection_is_counted_once(batch):
    copies = count_all_copies(**batch)
    assert (copies.rank_copies <= copies.selections).all()
    starts = np.arange(0, batch["n_ranks"], batch["ranks_per_node"])
    assert (copies.node_copies <= np.add.reduceat(copies.rank_copies, starts, axis=1)).all()
    sent = np.zeros(batch["n_ranks"], int)
    np.add.at(sent, batch["token_rank"], (batch["slot_ids"] >= 0).sum(axis=1))
    assert copies.selections.sum(axis=1).tolist() == sent.tolist()
    tokens = np.bincount(batch["token_rank"], minlength=batch["n_ranks"])
    assert (copies.rank_copies <= tokens[:, None]).all()
    assert (copies.node_copies <= tokens[:, None]).all()


@given(batches(), st.integers(0, 12))
@settings(max_examples=40, deadline=None)
def test_chunks_of_a_batch_sum_to_the_batch(batch, cut):
    def part(rows):
        return count_all_copies(
            **batch | {"slot_ids": batch["slot_ids"][rows], "token_rank": batch["token_rank"][rows]}
        )

    summed = part(slice(None, cut)) + part(slice(cut, None))
    assert isinstance(summed, Copies)
    whole = as_dict(part(slice(None)))
    assert all(np.array_equal(counted, whole[dedup]) for dedup, counted in as_dict(summed).items())


@given(batches())
@settings(max_examples=cases(40, 10_000), deadline=None)
def test_merging_identical_tokens_never_adds_a_copy(batch):
    rows = np.unique(np.column_stack([batch["token_rank"], batch["slot_ids"]]), axis=0)
    merged = batch | {"token_rank": rows[:, 0], "slot_ids": rows[:, 1:]}
    for dedup in ("none", "rank", "node"):
        assert (count_copies(**merged, dedup=dedup) <= count_copies(**batch, dedup=dedup)).all()


@given(batches())
@settings(max_examples=40, deadline=None)
def test_the_order_of_tokens_and_of_selections_does_not_matter(batch):
    reversed_batch = batch | {
        "slot_ids": batch["slot_ids"][::-1, ::-1],
        "token_rank": batch["token_rank"][::-1],
    }
    want, got = as_dict(count_all_copies(**batch)), as_dict(count_all_copies(**reversed_batch))
    assert all(np.array_equal(got[dedup], want[dedup]) for dedup in want)


def test_a_token_is_copied_once_per_rank_and_once_per_node():
    # Rank 1 selects slots on ranks 0, 0, 3 and 2; two ranks a node.
    batch = (np.array([[0, 1, 4, 3]]), np.array([1]), np.array([0, 0, 1, 2, 3]))
    assert count_copies(*batch, 4, 2, "none")[1].tolist() == [2, 0, 1, 1]
    assert count_copies(*batch, 4, 2, "rank")[1].tolist() == [1, 0, 1, 1]
    assert count_copies(*batch, 4, 2, "node")[1].tolist() == [1, 1]


def test_a_copy_for_the_own_rank_is_on_the_diagonal():
    token_rank = np.repeat(np.arange(4), 3)
    own = np.column_stack([2 * token_rank, 2 * token_rank + 1])  # each rank holds two slots
    batch = (own, token_rank, np.arange(8) // 2, 4, 2)
    assert count_copies(*batch, "none").tolist() == np.diag([6] * 4).tolist()
    assert count_copies(*batch, "rank").tolist() == np.diag([3] * 4).tolist()
    assert count_copies(*batch, "node").tolist() == [[3, 0], [3, 0], [0, 3], [0, 3]]


def test_a_dropped_token_is_counted_nowhere_and_an_empty_batch_counts_nothing():
    for slot_ids in (np.full((3, 4), -1), NOWHERE):
        counted = count_all_copies(slot_ids, np.zeros(len(slot_ids), int), np.arange(4), 4, 2)
        assert not any(matrix.any() for matrix in as_dict(counted).values())


def test_a_last_node_short_of_ranks_is_a_node():
    assert count_copies(np.array([[4]]), np.array([0]), np.arange(5), 5, 2, "node").tolist()[0] == [0, 0, 1]


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.uint16])
def test_integers_of_any_width_are_ids(dtype):
    slot_ids = np.array([[0, 3], [2, 2]], dtype)
    counted = count_copies(slot_ids, np.array([0, 1], dtype), np.arange(4), 4, 2, "rank")
    assert counted[:2].tolist() == [[1, 0, 0, 1], [0, 0, 1, 0]]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"slot_ids": [[0, 4], [1, 2]]}, "token 0 has slot ids [0, 4]"),
        ({"slot_ids": [[0, 1], [1, -2]]}, "token 1 has slot ids [1, -2]"),
        ({"slot_ids": [[0.0, 1.0], [1.0, 2.0]]}, "slot_ids has dtype float64"),
        ({"slot_ids": [[0, 2**40], [0, 0]]}, "does not fit 32 bits"),
        ({"slot_ids": [0, 1]}, "slot_ids has shape (2,)"),
        ({"token_rank": [0]}, "token_rank (1,)"),
        ({"token_rank": [0, 4]}, "token_rank[1] is 4"),
        ({"slot_rank": [0, 1, -1, 3]}, "slot_rank[2] is -1"),
        ({"slot_rank": [[0, 1, 2, 3]]}, "slot_rank (1, 4)"),
        ({"n_ranks": 0}, "n_ranks is 0"),
        ({"ranks_per_node": 0}, "ranks_per_node is 0"),
        ({"dedup": "gpu"}, "unknown dedup 'gpu'"),
    ],
)
def test_a_batch_that_cannot_be_counted_is_refused_by_name(change, what):
    good = {
        "slot_ids": [[0, 1], [1, 2]],
        "token_rank": [0, 1],
        "slot_rank": [0, 1, 2, 3],
        "n_ranks": 4,
        "ranks_per_node": 2,
        "dedup": "none",
    }
    assert count_copies(**good).sum() == 4
    with pytest.raises(InputError) as refused:
        count_copies(**good | change)
    assert what in str(refused.value)


@pytest.mark.parametrize(
    ("n_groups", "mean"), [(2, 1.993), (16, 6.52), (4, 3.614), (32, 7.27), (8, 5.295), (1, 1), (256, 8)]
)
def test_expected_distinct_gives_the_figures_of_deepseek_v3(n_groups, mean):
    # 2 nodes and 16 ranks of EP16, 4 and 32 of EP32, 8 ranks of EP8; 256 experts, top 8
    assert expected_distinct(n_groups, 256, 8) == pytest.approx(mean, abs=6e-3 if mean > 6 else 6e-4)


@pytest.mark.parametrize(("n_groups", "n_experts", "top_k"), [(2, 16, 4), (8, 64, 8), (7, 26, 4), (12, 9, 3)])
def test_a_uniform_router_makes_as_many_copies_as_expected(n_groups, n_experts, top_k):
    n_tokens = 3000
    rng = np.random.default_rng(n_experts)
    expert_ids = np.argsort(rng.random((n_tokens, n_experts)), axis=1)[:, :top_k]
    group = np.concatenate(
        [np.full(len(part), g) for g, part in enumerate(np.array_split(np.arange(n_experts), n_groups))]
    )
    distinct = np.array([len(set(row)) for row in group[expert_ids].tolist()])
    standard_error = distinct.std() / np.sqrt(n_tokens)
    want = expected_distinct(n_groups, n_experts, top_k)
    assert abs(distinct.mean() - want) <= 4 * standard_error

    token_rank = rng.integers(0, n_groups, n_tokens)
    copies = count_copies(expert_ids, token_rank, group, n_groups, 1, "rank")
    assert copies.sum() == distinct.sum()


def test_distinct_groups_of_uneven_size_sum_over_the_sizes():
    # 5 experts in groups of 3 and 2, 2 drawn: missed with probability 1/10 and 3/10
    assert expected_distinct(2, 5, 2) == pytest.approx(2 - 0.1 - 0.3, rel=1e-15)
    # more groups than experts: each draw is its own group
    assert expected_distinct(9, 5, 3) == pytest.approx(3, rel=1e-15)
