import numpy as np
import pytest
from made_up_recording import numpy_router

from moesim.errors import InputError
from moesim.workload import recorded_batch


def batch(recording, seed=0, **how):
    how = {"layers": [2], "n_ranks": 4, **how}
    return recorded_batch(recording, rng=np.random.default_rng(seed), **how)


select = numpy_router("logit", top_k=8)


def test_by_default_the_recorded_in_domain_tokens_are_shared_evenly(recording):
    b = batch(recording)
    assert b.tokens == 2048 * 3 // 4 == b.distinct_tokens
    assert np.bincount(b.token_rank).tolist() == [384] * 4
    assert set(b.domain) == {0, 1, 2}, "the held-out domain was drawn"
    assert b.domain_names == recording.domain_names
    assert "each recorded once" in b.notes[0]
    assert b.layers == (2,) and b.resampled is None


def test_rows_are_the_recorded_logits_of_their_tokens(recording):
    b = batch(recording)
    pool = np.flatnonzero(recording.domain != 3)
    assert np.array_equal(b.logits[2][b.token_index], recording.logits(2)[pool])
    assert np.array_equal(b.domain, recording.domain[pool])
    assert np.array_equal(b.bias[2], recording.bias(2))


def test_one_draw_serves_all_layers(recording):
    b = batch(recording, layers=[1, 2, 3], tokens_per_rank=300)
    where = {row.tobytes(): i for i, row in enumerate(recording.logits(2))}
    tokens = np.array([where[row.tobytes()] for row in b.logits[2]])
    assert tokens.max() < 512, "a token was drawn that layers 1 and 3 do not have"
    for layer in (1, 3):
        assert np.array_equal(b.logits[layer], recording.logits(layer)[tokens])


def test_more_tokens_than_recorded_come_by_block_bootstrap_and_the_note_counts_the_distinct(recording):
    b = batch(recording, layers=[1], tokens_per_rank=1000)
    assert b.tokens == 4000 and b.distinct_tokens == len(b.logits[1]) <= 384
    assert f"4,000 tokens from {b.distinct_tokens} distinct recorded ones" in b.notes[0]
    assert len(set(b.sequence)) == 125, "4,000 tokens are 125 whole sequences of 32"


def test_ragged_batches_leave_ranks_empty_where_asked(recording):
    b = batch(recording, tokens_per_rank=[0, 5, 0, 11])
    assert np.bincount(b.token_rank, minlength=4).tolist() == [0, 5, 0, 11]


def test_a_held_out_domain_is_drawn_when_it_is_named(recording):
    assert set(batch(recording, domains=["names"]).domain) == {3}


def test_an_earlier_training_step_has_its_own_logits_and_bias(recording):
    b = batch(recording, layers=[1, 2], step=0)
    assert b.tokens == 96
    assert np.array_equal(b.logits[2], recording.logits(2, 0)[recording.domain[:128] != 3])
    assert np.array_equal(b.bias[2], recording.bias(2, 0))
    assert any("training step 0" in note for note in b.notes)


def test_a_layer_asked_for_twice_is_given_once(recording):
    assert batch(recording, layers=[3, 1, 3]).layers == (1, 3)


def test_the_same_seed_gives_the_same_batch(recording):
    one, two = (batch(recording, seed=5, tokens_per_rank=900, n_experts=96, select=select) for _ in range(2))
    assert np.array_equal(one.token_index, two.token_index)
    assert np.array_equal(one.logits[2], two.logits[2])


def test_other_expert_counts_are_resampled_for_the_very_tokens_of_the_batch(recording):
    b = batch(recording, tokens_per_rank=1000, n_experts=128, select=select, group_counts=(16, 4))
    assert b.logits[2].shape == (b.distinct_tokens, 128)
    assert b.bias[2].shape == (128,)
    figure = b.resampled["2"]["expert_load_max_over_mean"]
    loads = np.bincount(select(b.logits[2], b.bias[2])[b.token_index].ravel(), minlength=128)
    assert figure["achieved"] == pytest.approx(loads.max() / loads.mean(), rel=1e-12)
    assert figure["achieved"] == pytest.approx(figure["target"], rel=0.02)
    assert any(note.startswith("layer 2: 128 experts from 64 recorded ones") for note in b.notes)


def test_resampling_asks_for_the_router(recording):
    with pytest.raises(InputError, match="64 experts, not 256"):
        batch(recording, n_experts=256)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"layers": [4]}, "no MoE layer 4"),
        ({"layers": []}, "no layer is requested"),
        ({"domains": ["poems"]}, "no domain 'poems'"),
        ({"domains": []}, "no token to draw from"),
        ({"step": 7}, "no snapshot of training step 7"),
        ({"n_ranks": 5000}, "tokens are fewer than 5000 ranks"),
    ],
)
def test_what_was_not_recorded_is_refused(recording, how, says):
    with pytest.raises(InputError, match=says):
        batch(recording, **({"tokens_per_rank": 1} | how if "n_ranks" not in how else how))
