# ruff: noqa: E402
"""The lab model's attention, routers, MoE layers and whole blocks are those of transformers' DeepSeek V2 and V3.

Random weights, copied over. What differs by convention and not by function: DeepSeek keeps the two coordinates of a
rotary pair side by side, the lab model half the vector apart, so rows are reordered; the norms' epsilon (1e-6 there).
"""

import copy
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from transformers import DeepseekV2Config, DeepseekV3Config
from transformers.models.deepseek_v2 import modeling_deepseek_v2 as v2
from transformers.models.deepseek_v3 import modeling_deepseek_v3 as v3

from moesim.record.model import Attention, Block
from moesim.record.moe import V1, V2, V3, MoE, select

pytestmark = pytest.mark.lab

EPSILON = torch.finfo(torch.float32).eps
ROUTERS = {"v1": V1, "v2": replace(V2, scale=16.0), "v3": V3}


def config_of(sizes, router, q_lora_rank=8):
    common = {
        "hidden_size": sizes.hidden, "intermediate_size": sizes.dense_hidden, "num_attention_heads": sizes.heads,
        "num_key_value_heads": sizes.heads, "qk_nope_head_dim": sizes.nope_dim, "qk_rope_head_dim": sizes.rope_dim,
        "v_head_dim": sizes.value_dim, "kv_lora_rank": sizes.kv_lora_rank, "q_lora_rank": q_lora_rank or None,
        "n_routed_experts": sizes.n_experts, "n_shared_experts": sizes.n_shared, "num_experts_per_tok": router.top_k,
        "moe_intermediate_size": sizes.expert_hidden, "n_group": router.n_groups, "topk_group": router.top_groups,
        "routed_scaling_factor": router.scale, "first_k_dense_replace": 1, "num_hidden_layers": 3,
        "rms_norm_eps": EPSILON, "norm_topk_prob": router.normalize, "attn_implementation": "eager",
    }  # fmt: skip
    if router.kind == "v3":
        return DeepseekV3Config(**common)
    method = "group_limited_greedy" if router.top_groups < router.n_groups else "greedy"
    return DeepseekV2Config(**common, topk_method=method)


def randomised(module):
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    for part in module.modules():
        if hasattr(part, "variance_epsilon"):
            part.variance_epsilon = EPSILON
    return module


def halves(weight, blocks, kept, turned):
    """Reorder the last ``turned`` rows of each of ``blocks`` blocks from pairs to halves."""
    rows = weight.view(blocks, kept + turned, -1)
    pairs = rows[:, kept:].reshape(blocks, turned // 2, 2, -1).transpose(1, 2).reshape(blocks, turned, -1)
    return torch.cat([rows[:, :kept], pairs], dim=1).reshape_as(weight)


def take_attention(mine, theirs, sizes):
    query = theirs.q_b_proj if theirs.q_lora_rank else theirs.q_proj
    own = mine.query[2] if theirs.q_lora_rank else mine.query
    own.weight.copy_(halves(query.weight, sizes.heads, sizes.nope_dim, sizes.rope_dim))
    if theirs.q_lora_rank:
        mine.query[0].weight.copy_(theirs.q_a_proj.weight)
        mine.query[1].weight.copy_(theirs.q_a_layernorm.weight)
    mine.compress.weight.copy_(halves(theirs.kv_a_proj_with_mqa.weight, 1, sizes.kv_lora_rank, sizes.rope_dim))
    mine.latent_norm.weight.copy_(theirs.kv_a_layernorm.weight)
    mine.expand.weight.copy_(theirs.kv_b_proj.weight)
    mine.out.weight.copy_(theirs.o_proj.weight)


def take_dense(mine, theirs):
    mine.into.weight.copy_(torch.cat([theirs.gate_proj.weight, theirs.up_proj.weight]))
    mine.out.weight.copy_(theirs.down_proj.weight)


def take_moe(mine, theirs):
    mine.centroids.copy_(theirs.gate.weight)
    mine.experts.into.copy_(theirs.experts.gate_up_proj.transpose(1, 2))
    mine.experts.out.copy_(theirs.experts.down_proj.transpose(1, 2))
    take_dense(mine.shared, theirs.shared_experts)
    if hasattr(theirs.gate, "e_score_correction_bias"):
        mine.bias.copy_(theirs.gate.e_score_correction_bias)


def moe_of(theirs, router, sizes):
    mine = MoE(router, sizes.n_experts, sizes.hidden, sizes.expert_hidden, sizes.n_shared)
    take_moe(mine, theirs)
    return mine  # training: logits are not rounded for the record


def moe_class(kind):
    return v3.DeepseekV3MoE if kind == "v3" else v2.DeepseekV2Moe


def positions(kind, config, hidden):
    make = v3.DeepseekV3RotaryEmbedding if kind == "v3" else v2.DeepseekV2RotaryEmbedding
    return make(config)(hidden, torch.arange(hidden.shape[1])[None])


def causal(length):
    return torch.full((length, length), -torch.inf).triu(1)[None, None]


@torch.no_grad()
@pytest.mark.parametrize("q_lora_rank", [0, 8])
@pytest.mark.parametrize("kind", ["v2", "v3"])
def test_attention_is_theirs(sizes, kind, q_lora_rank):
    torch.manual_seed(0)
    config = config_of(sizes, ROUTERS[kind], q_lora_rank)
    make = v3.DeepseekV3Attention if kind == "v3" else v2.DeepseekV2Attention
    theirs = randomised(make(config, 0)).eval()
    mine = Attention(replace(sizes, q_lora_rank=q_lora_rank))
    take_attention(mine, theirs, sizes)
    hidden = torch.randn(3, 17, sizes.hidden)
    expected, _ = theirs(
        hidden_states=hidden, attention_mask=causal(17), position_embeddings=positions(kind, config, hidden)
    )
    torch.testing.assert_close(mine(hidden), expected, rtol=2e-5, atol=2e-5 * float(expected.abs().max()))


@torch.no_grad()
@pytest.mark.parametrize("kind", ROUTERS)
def test_the_router_selects_their_experts_with_their_gates(sizes, kind):
    torch.manual_seed(1)
    router = ROUTERS[kind]
    theirs = randomised(moe_class(kind)(config_of(sizes, router)))
    if kind == "v3":
        theirs.gate.e_score_correction_bias.normal_(std=0.2)
    mine = moe_of(theirs, router, sizes)
    tokens = torch.randn(4096, sizes.hidden)
    logits, gates, ids = theirs.gate(tokens)
    _, routed = mine(tokens)
    torch.testing.assert_close(routed.logits, logits, rtol=1e-5, atol=1e-5)
    order = ids.argsort(dim=-1)
    theirs_ids, mine_ids = ids.gather(1, order), routed.ids.sort(dim=-1).values
    same = (theirs_ids == mine_ids).all(dim=-1)
    assert same.float().mean() > 0.999  # float32 ties may fall either way
    scores = routed.scores.gather(1, mine_ids)
    own = scores / scores.sum(-1, keepdim=True) if router.normalize else scores
    torch.testing.assert_close((own * router.scale)[same], gates.gather(1, order)[same], rtol=1e-5, atol=1e-6)
    assert torch.equal(select(routed.scores, mine.bias, router), routed.ids)


@torch.no_grad()
@pytest.mark.parametrize("kind", ROUTERS)
def test_the_moe_layer_is_theirs(sizes, kind):
    torch.manual_seed(2)
    router = ROUTERS[kind]
    theirs = randomised(moe_class(kind)(config_of(sizes, router)))
    if kind == "v3":
        theirs.gate.e_score_correction_bias.normal_(std=0.2)
    tokens = torch.randn(2, 100, sizes.hidden)
    mixed, _ = moe_of(theirs, router, sizes)(tokens.flatten(0, 1))
    expected = theirs(tokens).flatten(0, 1)
    torch.testing.assert_close(mixed, expected, rtol=2e-5, atol=2e-5 * float(expected.abs().max()))


@torch.no_grad()
@pytest.mark.parametrize("layer", [0, 1], ids=["dense", "moe"])
@pytest.mark.parametrize("kind", ["v2", "v3"])
def test_a_whole_block_is_their_decoder_layer(sizes, kind, layer):
    torch.manual_seed(3)
    router, config = ROUTERS[kind], config_of(sizes, ROUTERS[kind])
    make = v3.DeepseekV3DecoderLayer if kind == "v3" else v2.DeepseekV2DecoderLayer
    theirs = randomised(make(config, layer)).eval()
    mine = Block(sizes, router if layer else None)
    mine.attention_norm.weight.copy_(theirs.input_layernorm.weight)
    mine.feed_forward_norm.weight.copy_(theirs.post_attention_layernorm.weight)
    take_attention(mine.attention, theirs.self_attn, sizes)
    (take_moe if layer else take_dense)(mine.feed_forward, theirs.mlp)
    hidden = torch.randn(2, 23, sizes.hidden)
    expected = theirs(hidden, attention_mask=causal(23), position_embeddings=positions(kind, config, hidden))
    expected = expected[0] if isinstance(expected, tuple) else expected
    out, _ = mine(hidden)
    torch.testing.assert_close(out, expected, rtol=5e-5, atol=5e-5 * float(expected.abs().max()))


@torch.no_grad()
def test_parity_would_notice_another_router(sizes):
    torch.manual_seed(4)
    theirs = randomised(v3.DeepseekV3MoE(config_of(sizes, V3)))
    tokens = torch.randn(200, sizes.hidden)
    other = moe_of(theirs, replace(V3, group_score="max"), sizes)
    unlimited = copy.deepcopy(other)
    unlimited.router = replace(V3, top_groups=V3.n_groups)
    for wrong in (other, unlimited):
        assert not torch.allclose(wrong(tokens)[0], theirs(tokens[None])[0], rtol=1e-2)
