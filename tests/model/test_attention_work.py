"""Attention's work against loops over pairs, and MLA's two ways against each other in numbers."""

import dataclasses
import itertools

import numpy as np
import pytest

from moesim.errors import InputError
from moesim.model import (
    Attention,
    attention_work,
    crossover_tokens,
    load_model,
    model_names,
    not_counted,
    other_kinds,
    with_attention,
)
from tests.reference import latent_attention

V3 = load_model("deepseek-v3").attention


def counted(cached, new, window=None):
    """Pairs and keys by a loop over all tokens."""
    pairs, keys = 0, set()
    for query in range(cached, cached + new):
        seen = range(max(0, query + 1 - window) if window else 0, query + 1)
        pairs += len(seen)
        keys |= set(seen)
    return pairs, len(keys)


@pytest.mark.parametrize(
    ("cached", "new", "window"), list(itertools.product((0, 1, 5, 9, 40), (1, 3, 8, 20), (None, 1, 4, 8, 30)))
)
def test_pairs_and_keys_are_those_of_a_causal_mask_with_a_window(cached, new, window):
    pairs, keys = counted(cached, new, window)
    work = attention_work(Attention("gqa", heads=6, kv_heads=2, head_dim=16, window=window), cached, new)
    assert work.pairs_flops == 2 * 6 * (16 + 16) * pairs
    assert work.read_bytes == keys * 2 * (16 + 16) * 2
    assert work.expansion_flops == 0


def test_mla_of_deepseek_v3_costs_what_its_paper_s_sizes_say():
    absorbed, unabsorbed = (attention_work(V3, 4095, 1, form) for form in ("absorbed", "unabsorbed"))
    assert (absorbed.pairs_flops, unabsorbed.pairs_flops) == (4096 * 278_528, 4096 * 81_920)
    assert (absorbed.expansion_flops, unabsorbed.expansion_flops) == (2 * 128 * 512 * 256, 4096 * 2 * 128 * 512 * 256)
    assert absorbed.read_bytes == 4096 * 1_152
    assert unabsorbed.read_bytes == 4096 * 128 * (192 + 128) * 2
    assert absorbed.pairs_flops / absorbed.read_bytes == pytest.approx(241.8, abs=0.05)
    second = attention_work(V3, 4094, 2)
    assert second.pairs_flops / second.read_bytes == pytest.approx(483.5, abs=0.1)


def test_a_prompt_is_cheaper_unabsorbed_and_a_query_absorbed():
    def ratio(cached, new):
        return attention_work(V3, cached, new).flops / attention_work(V3, cached, new, "unabsorbed").flops

    assert (ratio(0, 128), ratio(0, 4096)) == (pytest.approx(1.327, abs=1e-3), pytest.approx(3.0, abs=1e-3))
    assert ratio(4095, 1) < 0.01
    assert crossover_tokens(V3) == pytest.approx(512 * 256 / 768)
    far = 10_000_000
    assert ratio(far, 170) < 1 < ratio(far, 171)
    assert crossover_tokens(Attention("mha", heads=8, kv_heads=8, head_dim=64)) is None


def test_the_other_kinds_of_deepseek_v2_are_those_of_its_table():
    # DeepSeek-V2, table 1: elements per token and layer 2 n_h d_h, 2 n_g d_h, 2 d_h, 9/2 d_h
    elements = {kind: one.cache_elements for kind, one in other_kinds(V3).items()}
    assert elements == {"mha": 2 * 128 * 128, "gqa": 2 * 8 * 128, "mqa": 2 * 128, "mla": 576}
    own = load_model("qwen3-235b-a22b").attention
    assert other_kinds(own)["gqa"] is own
    assert other_kinds(own)["mla"].cache_elements == 4.5 * 128


@pytest.mark.parametrize("name", model_names())
def test_a_token_reads_and_leaves_the_same_cache(name):
    for one in load_model(name).attentions:
        per_layer = one.kv_cache_bytes_per_token(2) / len(one.layers)
        assert attention_work(one, 0, 1).read_bytes == per_layer or one.compression


def test_no_new_token_is_refused():
    with pytest.raises(InputError, match="0 new tokens behind 5"):
        attention_work(V3, 5, 0)


def drawn(rng, tokens, heads, nope, rotary, value, latent):
    return (
        rng.standard_normal((tokens, heads, nope + rotary)),
        rng.standard_normal((tokens, latent)),
        rng.standard_normal((tokens, rotary)),
        rng.standard_normal((heads, nope, latent)),
        rng.standard_normal((heads, value, latent)),
    )


def test_absorbed_and_unabsorbed_attention_are_one_function():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        given = drawn(rng, *rng.integers(1, 9, size=6))
        np.testing.assert_allclose(
            latent_attention.absorbed(*given), latent_attention.unabsorbed(*given), rtol=1e-12, atol=1e-13
        )


def test_rotary_positions_cannot_be_absorbed():
    """The matrix between query and latent changes with the distance of the two tokens, and with it alone."""
    rng = np.random.default_rng(0)
    up_key = rng.standard_normal((8, 16))

    def between(query, key):
        return latent_attention.rotation(query, 8).T @ latent_attention.rotation(key, 8) @ up_key

    np.testing.assert_allclose(between(7, 4), between(103, 100), atol=1e-12)
    changed = np.linalg.norm(between(7, 4) - between(7, 7)) / np.linalg.norm(up_key)
    assert changed > 0.5
    np.testing.assert_allclose(between(7, 7), up_key, atol=1e-12)


def test_every_layer_with_a_cache_changes_and_windows_stay():
    spec = load_model("gpt-oss-120b")
    changed = with_attention(spec, "mha")
    assert {one.kind for one in changed.attentions} == {"mha"}
    assert [one.window for one in changed.attentions] == [one.window for one in spec.attentions]
    assert [len(one.layers) for one in changed.attentions] == [len(one.layers) for one in spec.attentions]
    fewer = with_attention(load_model("deepseek-v3"), heads=64).attention
    assert (fewer.heads, fewer.kv_lora_rank) == (64, 512)
    assert with_attention(spec) == spec


def test_heads_that_groups_do_not_divide_are_refused():
    with pytest.raises(InputError, match="8 KV heads do not divide 60 heads"):
        with_attention(load_model("gpt-oss-120b"), heads=60)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("deepseek-v3", []),
        ("deepseek-v3.2", ["picks 2,048 tokens"]),
        ("mixtral-8x7b", []),
        ("gpt-oss-120b", []),
    ],
)
def test_what_attention_leaves_out_of_a_model_is_said(name, said):
    found = list(not_counted(load_model(name).attentions))
    assert len(found) == len(said) and all(words in text for words, text in zip(said, found, strict=True))


def test_compressed_entries_and_state_that_are_left_out_are_said():
    one = load_model("gpt-oss-120b").attentions[0]
    assert [text for text in not_counted([dataclasses.replace(one, compression=4)]) if "behind the window" in text]
    state = dataclasses.replace(one, kind="mamba")
    assert attention_work(state, 4096, 1).flops == 0
    assert list(not_counted([state])) == ["what mamba layers compute on their state is left out, which is too fast"]
