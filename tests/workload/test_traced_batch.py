import numpy as np
import pytest

from moesim.dumps import RoutingTrace, Source
from moesim.errors import InputError
from moesim.workload import counts_batch, read_routing, traced_batch

IDS = np.array([[0, 1], [2, 3], [3, 0], [1, 2]], np.int32)


def rng():
    return np.random.default_rng(0)


def ids_batch(ids, layers=(0,), sequence=None, **how):
    ids = np.asarray(ids)
    trace = RoutingTrace(
        "ids", tuple(layers), 4, Source("test", "ids"), top_k=ids.shape[-1], ids=ids.reshape(-1, *ids.shape[-2:]),
        sequence=sequence,
    )  # fmt: skip
    return traced_batch(trace, **{"n_experts": 4, "top_k": 2, "n_ranks": 2, "rng": rng(), **how})


def logits_batch(logits, layers=(0,), bias=None, **how):
    trace = RoutingTrace("logits", tuple(layers), 4, Source("test", "logits"), logits=logits, bias=bias)
    return traced_batch(trace, **{"n_experts": 4, "top_k": 2, "n_ranks": 2, "rng": rng(), **how})


def counts(table, **how):
    rows = table if isinstance(table, dict) else dict(enumerate(np.atleast_2d(table)))
    return counts_batch(rows, **{"top_k": 2, "n_ranks": 2, "rng": rng(), **how})


def test_given_experts_reach_their_tokens_unchanged():
    b = ids_batch(IDS)
    assert np.array_equal(b.expert_ids[0][b.token_index], IDS)
    assert b.logits is None and b.token_rank.tolist() == [0, 0, 1, 1] and b.layers == (0,)
    assert b.bias[0].tolist() == [0] * 4
    b = ids_batch(np.stack([IDS, IDS[::-1]]), layers=(3, 5))
    assert np.array_equal(b.expert_ids[5][b.token_index], IDS[::-1])


def test_a_token_without_an_expert_keeps_its_place():
    masked = IDS.copy()
    masked[1, 0] = -1
    b = ids_batch(masked)
    assert np.array_equal(b.expert_ids[0][b.token_index], masked)


def test_given_experts_are_repeated_by_block_bootstrap():
    b = ids_batch(IDS, tokens_per_rank=50, sequence_length=2)
    assert b.tokens == 100 and b.distinct_tokens == 4
    assert "100 tokens with given experts, 4 distinct (block bootstrap" in b.notes[0]


def test_marked_sequences_stay_whole_when_they_are_repeated():
    b = ids_batch(IDS, sequence=np.array([0, 1, 1, 1], np.int32), tokens_per_rank=30)
    # A token of the long sequence is followed by its next, or by the first of another.
    after = {(int(a), int(c)) for a, c in zip(b.token_index[:-1], b.token_index[1:], strict=True)}
    assert after <= {(0, 0), (0, 1), (1, 2), (2, 3), (3, 0), (3, 1)}


def test_sequences_that_come_in_turns_are_cut_into_blocks():
    assert ids_batch(IDS, sequence=np.array([0, 1, 0, 1], np.int32), tokens_per_rank=8).distinct_tokens == 4


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"top_k": 3}, "2 experts per token, routing.top_k is 3; set routing.top_k to 2"),
        ({"n_experts": 8}, "routing of 4 experts; the model has 8"),
        ({"sequence_length": 0}, "0 tokens per sequence"),
    ],
)
def test_routing_of_another_router_is_refused(how, says):
    with pytest.raises(InputError, match=says):
        ids_batch(IDS, **how)


def test_a_layer_that_was_not_recorded_is_refused():
    trace = RoutingTrace("ids", (3, 5), 4, Source("test", "ids"), top_k=2, ids=np.stack([IDS, IDS]))
    with pytest.raises(InputError, match="no layer 4; it has 3 to 5"):
        traced_batch(trace, n_experts=4, top_k=2, n_ranks=2, rng=rng(), layers=[3, 4])
    chosen = traced_batch(trace, n_experts=4, top_k=2, n_ranks=2, rng=rng(), layers=[5])
    assert chosen.layers == (5,)


def test_tokens_drawn_from_counts_load_the_experts_in_proportion():
    given = np.array([400, 10, 50, 100, 200, 0, 30, 210])
    b = counts(given, top_k=2, tokens_per_rank=20_000)
    ids = b.expert_ids[0]
    assert (np.diff(ids, axis=1) > 0).all(), "a token selects an expert twice"
    got = np.bincount(ids.ravel(), minlength=8)
    expected = given / given.sum() * ids.size
    assert got[5] == 0
    # Four standard deviations of 40,000 tokens, each of which has the expert or not.
    assert (np.abs(got - expected) <= 4 * np.sqrt(np.maximum(expected, 0))).all()
    assert "20,000 distinct" not in b.notes[0] and "40,000 tokens drawn from expert counts" in b.notes[0]
    assert b.notes[1] == "1 of 8 experts have no count in any layer: are these counts of this model?"


def test_how_the_experts_of_a_token_go_together_is_told_to_be_estimated():
    b = counts({1: np.array([1, 2, 0, 1]), 2: np.array([0, 1, 1, 1])}, tokens_per_rank=3)
    (said,) = b.estimated
    assert "it selects 2 different ones independently" in said
    assert len(b.notes) == 1, "every expert has a count in some layer"
    assert ids_batch(IDS).estimated == ()


def test_counts_of_an_expert_in_every_token_put_it_into_every_token():
    ids = counts(np.array([100, 60, 40]), top_k=2, tokens_per_rank=500).expert_ids[0]
    assert (ids == 0).any(axis=1).all()


def test_when_all_experts_are_selected_every_token_has_them_all():
    assert counts(np.array([5, 5]), tokens_per_rank=3).expert_ids[0].tolist() == [[0, 1]] * 6


def test_more_tokens_than_are_drawn_repeat_blocks():
    b = counts(np.ones(8), tokens_per_rank=1000, max_distinct=64, sequence_length=16)
    assert b.distinct_tokens <= 64 and "repeat whole blocks" in b.notes[0]


def test_a_trace_of_counts_is_drawn_from_as_the_counts_are(tmp_path):
    table = np.array([[1, 2, 3, 4], [4, 3, 2, 1]])
    np.savez(tmp_path / "c.npz", counts=table)
    trace = read_routing(tmp_path / "c.npz")
    b = traced_batch(trace, n_experts=4, top_k=2, n_ranks=2, rng=rng(), layers=[1], tokens_per_rank=8)
    assert b.layers == (1,)
    assert np.array_equal(b.expert_ids[1], counts(table, layers=[1], tokens_per_rank=8, n_experts=4).expert_ids[1])


@pytest.mark.parametrize(
    ("table", "how", "says"),
    [
        (np.array([1.0, np.nan]), {}, "expert 1 has the count nan"),
        (np.array([1, -1, 3]), {}, "expert 1 has the count -1"),
        (np.zeros(4), {}, "all counts are 0"),
        (np.array([9, 1, 1]), {}, "expert 0 has 81.8% of the selections, more than one per token"),
        (np.array([5, 0, 0]), {}, "top-2 of 1 experts with a count"),
        (np.ones(4), {"n_experts": 8}, "counts of 4 experts; the model has 8"),
        ({}, {}, "no counts of layer"),
        (np.ones(4), {"layers": [3]}, r"no counts of layer \[3\]"),
    ],
)
def test_impossible_counts_are_refused(table, how, says):
    with pytest.raises(InputError, match=says):
        counts(table, **how)


def test_given_logits_are_batched_like_a_recording():
    x = np.random.default_rng(1).normal(size=(2, 12, 4)).astype(np.float32)
    bias = np.arange(8, dtype=np.float32).reshape(2, 4)
    b = logits_batch(x, layers=(1, 2), bias=bias, n_ranks=3, sequence_length=4)
    assert np.array_equal(b.logits[2][b.token_index], x[1]) and np.array_equal(b.bias[2], bias[1])
    assert b.sequence.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    more = logits_batch(x[:1], n_ranks=1, tokens_per_rank=40, sequence_length=4)
    assert "40 tokens with given logits" in more.notes[0] and "bootstrap" in more.notes[0]
    assert not more.bias[0].any()
