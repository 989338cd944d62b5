# ruff: noqa: E402
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from moesim.record.model import Attention, LanguageModel, rotate
from moesim.record.moe import V1, V2, V3

pytestmark = pytest.mark.lab


def test_rotary_scores_depend_on_the_distance_alone():
    torch.manual_seed(0)
    query, key = torch.randn(16, dtype=torch.float64), torch.randn(16, dtype=torch.float64)
    scores = rotate(query.expand(40, 16)) @ rotate(key.expand(40, 16)).T
    for distance in (0, 3, 17):
        along = scores.diagonal(-distance)
        torch.testing.assert_close(along, along[:1].expand_as(along), rtol=0, atol=1e-5)
    assert (scores[0, 0] - scores[5, 0]).abs() > 0.1


def test_rotation_keeps_lengths_and_leaves_the_first_position_alone():
    vectors = torch.randn(2, 9, 8)
    turned = rotate(vectors)
    torch.testing.assert_close(turned.norm(dim=-1), vectors.norm(dim=-1))
    torch.testing.assert_close(turned[:, 0], vectors[:, 0])


@pytest.mark.parametrize("q_lora_rank", [0, 8])
def test_gradients_flow_through_both_compressions(sizes, q_lora_rank):
    torch.manual_seed(1)
    attention = Attention(replace(sizes, q_lora_rank=q_lora_rank))
    attention(torch.randn(2, 12, sizes.hidden)).square().sum().backward()
    for name, parameter in attention.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


def test_what_a_token_leaves_in_the_cache_is_one_latent_and_one_rotary_key(sizes):
    attention = Attention(sizes)
    per_token = attention.compress(torch.randn(1, 1, sizes.hidden)).numel()
    assert per_token == sizes.kv_lora_rank + sizes.rope_dim
    assert per_token < 2 * sizes.heads * sizes.value_dim


@pytest.mark.parametrize("router", [V1, V2, V3])
def test_no_token_sees_a_later_one(sizes, router):
    torch.manual_seed(2)
    model = LanguageModel(sizes, router).eval()
    text = torch.randint(256, (1, 20))
    changed = text.clone()
    changed[0, 12] = (changed[0, 12] + 1) % 256
    with torch.no_grad():
        before, after = model(text)[0], model(changed)[0]
    torch.testing.assert_close(before[:, :12], after[:, :12])
    assert not torch.allclose(before[:, 12:], after[:, 12:])


def test_the_first_layer_is_dense_and_the_others_route(sizes):
    model = LanguageModel(sizes, V1)
    out, routing = model(torch.randint(256, (2, 10)))
    assert out.shape == (2, 10, 256)
    assert list(routing) == [1, 2] == list(model.moe_layers())
    assert routing[1].logits.shape == (20, sizes.n_experts)
    assert routing[1].ids.shape == (20, 8)


def test_the_order_of_words_matters_to_attention(sizes):
    torch.manual_seed(3)
    attention = Attention(sizes)
    hidden = torch.randn(1, 6, sizes.hidden)
    swapped = hidden[:, [1, 0, 2, 3, 4, 5]]
    assert not torch.allclose(attention(hidden)[:, 5], attention(swapped)[:, 5], atol=1e-6)
