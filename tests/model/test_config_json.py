"""What a config.json may leave out, say in another way, or have wrong."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.errors import InputError
from moesim.model import load_model
from tests.model.released_configs import RELEASED

MOE = {
    "model_type": "qwen3_moe", "hidden_size": 64, "num_hidden_layers": 12, "vocab_size": 100, "num_experts": 8,
    "num_experts_per_tok": 2, "moe_intermediate_size": 32, "intermediate_size": 128, "num_attention_heads": 4,
    "num_key_value_heads": 2,
}  # fmt: skip
FLAGS = st.lists(st.booleans(), min_size=12, max_size=12).filter(any)


def read(folder, config):
    path = folder / "config.json"
    path.write_text(config if isinstance(config, str) else json.dumps(config, indent=1))
    return load_model(str(path))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("config")
    read(folder, MOE)  # the first file of all reads the families
    return folder


@settings(max_examples=50, deadline=None)
@given(flags=FLAGS)
def test_layers_with_experts_are_the_same_however_they_are_written(folder, flags):
    ids = [layer for layer, flag in enumerate(flags) if flag]
    forms = [
        {"moe_layer_freq": [int(flag) for flag in flags]},
        {"is_moe_layer": flags},
        {"mlp_layer_types": ["sparse" if flag else "dense" for flag in flags] + ["dense"]},  # an MTP layer follows
        {"moe_layers": ids},
        {"num_experts": [8 if flag else 0 for flag in flags]},
        {"moe_layers_enum": ",".join(map(str, ids))},
        {"mlp_only_layers": [layer for layer in range(12) if layer not in ids]},
    ]
    assert {read(folder, MOE | form).moe_layer_ids for form in forms} == {tuple(ids)}
    letters = {"hybrid_override_pattern": "".join("E" if flag else "-" for flag in flags)}
    mixed = read(folder, MOE | letters | {"num_hidden_layers": 12, "layer_types": None, "sliding_window": None})
    assert mixed.moe_layer_ids == tuple(ids) and mixed.dense_layers == 12 - len(ids)


@settings(max_examples=50, deadline=None)
@given(first=st.integers(0, 4), step=st.integers(1, 4))
def test_a_period_and_leading_dense_layers_are_lists_written_short(folder, first, step):
    by_period = read(folder, MOE | {"decoder_sparse_step": step, "first_k_dense_replace": first})
    by_list = read(folder, MOE | {"is_moe_layer": [i >= first and (i + 1) % step == 0 for i in range(12)]})
    ernie = {"moe_layer_start_index": first, "moe_layer_end_index": -1, "moe_layer_interval": step}
    jamba = {"expert_layer_period": step, "expert_layer_offset": step - 1}
    assert by_period.moe_layer_ids == by_list.moe_layer_ids == read(folder, MOE | ernie).moe_layer_ids
    assert by_period.total_parameters == by_list.total_parameters
    if first == 0:
        assert read(folder, MOE | jamba).moe_layer_ids == by_list.moe_layer_ids


@settings(max_examples=50, deadline=None)
@given(full=FLAGS)
def test_layers_of_full_attention_are_the_same_however_they_are_written(folder, full):
    window = {"sliding_window": 16, "model_type": "some_moe"}
    forms = [
        {"layer_types": ["full_attention" if flag else "sliding_attention" for flag in full]},
        {"hybrid_layer_pattern": [0 if flag else 1 for flag in full]},
        {"sliding_window_layout": [0 if flag else 1 for flag in full]},
        {"sliding_window_pattern": "".join("G" if flag else "L" for flag in full)},
        {"local_layer_ids": [layer for layer, flag in enumerate(full) if not flag]},
    ]
    found = [read(folder, MOE | window | form) for form in forms]
    assert len({model.attentions for model in found}) == 1
    of_window = {layer: one.window for one in found[0].attentions for layer in one.layers}
    assert [of_window[layer] for layer in range(12)] == [None if flag else 16 for flag in full]
    sliding = 12 - sum(full)
    cache = found[0].kv_cache_bytes_per_token() - found[0].kv_cache_bytes_per_token(beyond_windows=True)
    assert cache == sliding * 2 * 2 * 16 * 2  # keys and values of 2 heads of 16, BF16


def kinds(model):
    """Each layer's window, or the kind of what has no cache."""
    return {layer: one.window if one.cache_elements else one.kind for one in model.attentions for layer in one.layers}


@settings(max_examples=30, deadline=None)
@given(every=st.integers(1, 6), offset=st.integers(0, 5))
def test_a_period_of_full_attention_is_a_list_written_short(folder, every, offset):
    offset %= every
    last = [(layer + 1) % every == 0 for layer in range(12)]
    window = MOE | {"sliding_window": 16, "model_type": "some_moe"}
    slid = [
        {"global_attn_every_n_layers": every},
        {"sliding_window_pattern": every},
        {"sliding_window_pattern": "L" * (every - 1) + "G"},
        {"no_rope_layers": [int(not flag) for flag in last]},
    ]
    for form in slid:
        assert kinds(read(folder, window | form)) == {i: None if flag else 16 for i, flag in enumerate(last)}
    linear = [
        {"full_attention_interval": every},
        {"attn_type_list": [int(flag) for flag in last]},
        {"gqa_layers": [layer for layer, flag in enumerate(last) if flag]},
        {"linear_attn_config": {"full_attn_layers": [layer + 1 for layer, flag in enumerate(last) if flag]}},
        {"layer_types": ["full_attention" if flag else "linear_attention" for flag in last]},
    ]
    for form in linear:
        found = kinds(read(folder, MOE | {"model_type": "some_moe"} | form))
        assert found == {i: None if flag else "linear" for i, flag in enumerate(last)}
    mamba = {"attn_layer_period": every, "attn_layer_offset": offset, "mamba_d_state": 4, "model_type": "jamba"}
    found = kinds(read(folder, MOE | mamba | {"intermediate_size": 32}))
    assert found == {i: None if i % every == offset else "mamba" for i in range(12)}


def test_layers_after_the_last_whole_group_see_everything(tmp_path):
    model = read(tmp_path, MOE | {"layer_group_size": 5, "model_type": "bailing_moe_linear", "num_attention_heads": 4})
    assert model.attention.layers == (4, 9, 10, 11)
    (linear,) = model.attentions[1:]
    assert linear.parameters(64) == 5 * 64 * 64 and linear.state == 4 * 16 * 16 and linear.cache_elements == 0


def test_mixers_have_the_weights_of_their_projections(tmp_path):
    # Each counted by hand from the shapes of the layers, at sizes small enough to do so.
    mamba2 = {"layer_types": ["mamba"] * 12, "mamba_n_heads": 8, "mamba_d_head": "auto", "mamba_d_state": 4}
    (one,) = read(tmp_path, MOE | {"model_type": "granitemoehybrid", "intermediate_size": 32} | mamba2).attentions
    inner, mixed = 128, 128 + 2 * 4
    assert one.parameters(64) == 64 * (inner + mixed + 8) + inner * 64 + 4 * mixed
    assert one.state == 8 * 16 * 4 + 3 * mixed
    mamba1 = {"layer_types": ["mamba"] * 12, "mamba_d_state": 4, "mamba_dt_rank": 3, "intermediate_size": 32}
    (one,) = read(tmp_path, MOE | {"model_type": "jamba"} | mamba1).attentions
    inner = 2 * 64  # into x and z, the convolution, x to dt, B and C, dt out, A and D, out
    assert one.parameters(64) == 64 * 2 * inner + 4 * inner + inner * (3 + 2 * 4) + 3 * inner + 4 * inner + inner * 64
    automatic = {"model_type": "jamba"} | mamba1 | {"mamba_dt_rank": "auto"}  # a sixteenth of the hidden size
    assert read(tmp_path, MOE | automatic).attention.parameters(64) - one.parameters(64) == 2 * inner
    conv = MOE | {"model_type": "lfm2_moe", "layer_types": ["conv"] * 12, "conv_L_cache": 3}
    assert read(tmp_path, conv).attention.parameters(64) == 64 * 3 * 64 + 3 * 64 + 64 * 64
    delta = {
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
    }
    delta |= {"model_type": "qwen3_next", "layer_types": ["linear_attention"] * 12, "linear_conv_kernel_dim": 4}
    (one,) = read(tmp_path, MOE | delta).attentions
    assert one.parameters(64) == 64 * (16 + 16 + 32 + 32) + 64 * (4 + 4) + (16 + 16 + 32) * 4 + 32 * 64
    assert one.state == 4 * 8 * 8 + 3 * 64
    kda = MOE | {"model_type": "kimi_linear", "layer_types": ["kda"] * 12, "linear_conv_kernel_dim": 4}
    (one,) = read(tmp_path, kda | {"linear_num_heads": 2, "linear_head_dim": 8}).attentions
    assert one.parameters(64) == 4 * 64 * 16 + 3 * 4 * 16 + 2 * (64 * 8 + 8 * 16) + 64 * 2


def test_the_rotary_part_of_mla_is_not_the_head_of_linear_attention(tmp_path):
    mla = {"kv_lora_rank": 8, "qk_nope_head_dim": 12, "qk_rope_head_dim": 4, "v_head_dim": 12, "head_dim": 4}
    types = {"model_type": "bailing_hybrid", "layer_types": ["full_attention", "linear_attention"] * 6}
    full, linear = read(tmp_path, MOE | mla | types).attentions
    assert linear.parameters(64) == 5 * 64 * 64 and linear.state == 4 * 16 * 16  # heads of 64 / 4
    weights = 64 * 4 * 16 + 64 * 12 + 8 + 8 * 4 * (12 + 12) + 4 * 12 * 64
    assert full.parameters(64) == weights
    gated = read(tmp_path, MOE | mla | types | {"mla_use_output_gate": True}).attention
    assert gated.parameters(64) == weights + 64 * 4 * 12
    index = {"index_n_heads": 2, "index_head_dim": 4, "index_topk": 16}
    sparse = read(tmp_path, MOE | mla | {"model_type": "glm_moe_dsa", "q_lora_rank": 6} | index).attention
    queries = 64 * 6 + 6 + 6 * 4 * 16
    assert sparse.parameters(64) == weights - 64 * 4 * 16 + queries + 6 * 2 * 4 + 64 * (2 + 4)


def test_an_encoder_and_a_decoder_are_one_list_of_layers_with_cross_attention(tmp_path):
    switch = {
        "model_type": "switch_transformers", "d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 4, "num_heads": 4,
        "num_decoder_layers": 6, "num_sparse_encoder_layers": 2, "num_sparse_decoder_layers": 2, "num_experts": 8,
        "vocab_size": 100,
    }  # fmt: skip
    model = read(tmp_path, switch)
    assert (model.layers, model.moe_layer_ids, model.dense_layers) == (10, (1, 3, 6, 9), 6)
    assert len(model.attention.layers) == 10 + 6 and model.attention.layers[-1] == 9
    ffns = 2 * 64 * 128 * (6 + 4 * 8) + 4 * 8 * 64
    assert model.total_parameters == 16 * 4 * 64 * 64 + ffns + 100 * 64 + 64 + 10 * 2 * 64


def test_a_score_that_moesim_has_not_is_simulated_as_the_nearest(tmp_path):
    router = read(tmp_path, RELEASED["deepseek-v4-flash"][0]).router
    assert (router.score, router.simulated()["score"]) == ("sqrtsoftplus", "sigmoid")
    assert router.simulated() == vars(router) | {"score": "sigmoid"}
    assert read(tmp_path, MOE).router.simulated()["score"] == "softmax"


def test_gates_and_own_sizes_of_sliding_layers_count(tmp_path):
    types = {"layer_types": ["full_attention", "sliding_attention"] * 6, "sliding_window": 16, "head_dim": 16}
    laguna = MOE | {"model_type": "laguna", "num_attention_heads_per_layer": [4, 6] * 6} | types
    full, slid = read(tmp_path, laguna).attentions
    assert (full.heads, slid.heads) == (4, 6)
    assert slid.parameters(64) == 64 * 16 * (6 + 2 + 2) + 6 * 16 * 64 + 64 * 6  # a gate per head
    mimo = {"v_head_dim": 8, "swa_num_key_value_heads": 1, "swa_v_head_dim": 4, "swa_head_dim": 8}
    full, slid = read(tmp_path, MOE | types | mimo | {"model_type": "mimo_v2_flash"}).attentions
    assert full.parameters(64) == 64 * 16 * (4 + 2) + 64 * 2 * 8 + 4 * 8 * 64
    assert (slid.kind, slid.cache_elements, full.cache_elements) == ("mqa", 8 + 4, 2 * (16 + 8))
    gated = MOE | {"model_type": "afmoe", "head_dim": 16, "sliding_window": 16}
    assert read(tmp_path, gated).attention.parameters(64) == 64 * 16 * (4 + 2 + 2 + 4) + 4 * 16 * 64


def test_one_model_type_can_mean_two_routers(tmp_path):
    bailing = MOE | {"model_type": "bailing_moe", "n_group": 4, "topk_group": 2, "norm_topk_prob": True}
    old = read(tmp_path, bailing | {"architectures": ["BailingMoeForCausalLM"]})
    new = read(tmp_path, bailing | {"architectures": ["BailingMoeV2ForCausalLM"]})
    assert (old.router.kind, old.router.score) == ("v2", "softmax")
    assert (new.router.kind, new.router.score, new.router.group_score) == ("v3", "sigmoid", "top2")
    assert old.uncertain == new.uncertain == ()


def test_an_unknown_family_is_read_by_the_usual_keys_and_each_assumption_is_said(tmp_path):
    model = read(tmp_path, MOE | {"model_type": "unheard_of", "n_special_experts": 3})
    said = "\n".join(model.uncertain)
    assert (model.n_experts, model.moe_layers, model.router.score) == (8, 12, "softmax")
    plain = {key: value for key, value in MOE.items() if key not in ("moe_intermediate_size", "model_type")}
    assert "the width of an expert is taken from intermediate_size" in read(tmp_path, plain).uncertain
    for what in ("model_type unheard_of", "scoring_func", "norm_topk_prob", "which layers", "n_special_experts"):
        assert what in said
    assert read(tmp_path, MOE).uncertain == ()


def test_experts_that_cost_nothing_are_no_weights_but_choices(tmp_path):
    model = read(tmp_path, RELEASED["longcat-flash"][0])
    without = read(tmp_path, RELEASED["longcat-flash"][0] | {"zero_expert_num": 0})
    assert (model.n_experts, model.zero_experts, without.zero_experts) == (512, 256, 0)
    assert model.total_parameters - without.total_parameters == 28 * 256 * (6144 + 1)  # the router's rows and biases
    assert model.active_parameters == pytest.approx(27e9, rel=0.05)  # as the authors state it, 8 of 12 being real
    assert any("cost nothing" in note for note in model.uncertain)


def test_latent_experts_work_at_their_own_width(tmp_path):
    model = read(tmp_path, RELEASED["nemotron-3-ultra-550b"][0])
    assert (model.hidden, model.latent, model.ffn_matrices) == (8192, 2048, 2)
    assert model.expert_parameters == 2 * 2048 * 5120


def test_the_vision_experts_of_ernie_are_weights_that_no_text_token_takes(tmp_path):
    model, text = read(tmp_path, RELEASED["ernie-vl-28b"][0]), read(tmp_path, RELEASED["ernie-4.5-21b-a3b"][0])
    assert model.total_parameters - text.total_parameters == 27 * 64 * 3 * 2560 * 512
    assert model.active_parameters == text.active_parameters


def test_tied_embeddings_count_once_and_the_outer_file_decides(tmp_path):
    loose = read(tmp_path, {"text_config": MOE, "tie_word_embeddings": False})
    tied = read(tmp_path, {"text_config": MOE, "tie_word_embeddings": True})
    assert loose.total_parameters - tied.total_parameters == 100 * 64


def test_compressed_attention_keeps_one_entry_for_several_tokens_behind_its_window(tmp_path):
    config = RELEASED["deepseek-v4-flash"][0]
    model, ratios = read(tmp_path, config), config["compress_ratios"][:43]
    for one in model.attentions:
        assert one.layers == tuple(i for i, ratio in enumerate(ratios) if ratio == one.compression)
        assert (one.window, one.cache_elements, bool(one.index_heads)) == (128, 512, one.compression == 4)
    entries = 21 / 4 + 20 / 128
    assert model.kv_cache_bytes_per_token(beyond_windows=True) == round(entries * 512 * 2)
    assert model.kv_cache_bytes_per_token() == round((43 + entries) * 512 * 2)


def test_an_empty_list_says_nothing_and_the_family_has_its_pattern(tmp_path):
    scout = {key: dict(value) if key == "text_config" else value for key, value in RELEASED["llama-4-scout"][0].items()}
    released = read(tmp_path, scout)
    scout["text_config"]["no_rope_layers"] = []  # as the released file has it
    assert read(tmp_path, scout).attentions == released.attentions
    gpt_oss = {key: value for key, value in RELEASED["gpt-oss-120b"][0].items() if key != "layer_types"}
    assert read(tmp_path, gpt_oss).attentions == read(tmp_path, RELEASED["gpt-oss-120b"][0]).attentions


def test_the_language_model_is_found_in_a_model_of_several_parts(tmp_path):
    other = MOE | {"num_experts": 4}
    for nested in (
        {"text_config": MOE, "vision_config": other},
        {"llm_config": MOE},
        {"talker_config": {"text_config": other}, "thinker_config": {"audio_config": {}, "text_config": MOE}},
    ):
        assert read(tmp_path, {"model_type": "omni"} | nested).n_experts == 8


def test_more_layers_go_on_as_the_last_and_fewer_are_cut(tmp_path):
    model = read(tmp_path, MOE | {"first_k_dense_replace": 3})
    assert (model.resized(layers=20).moe_layers, model.resized(layers=20).dense_layers) == (17, 3)
    assert (model.resized(layers=5).moe_layers, model.resized(layers=5).dense_layers) == (2, 3)
    assert model.resized(layers=12) == model
    assert [len(one.layers) for one in model.resized(layers=20).attentions] == [20]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"hidden_size": "64"}, "config.json:3:17: hidden_size must be a whole number from 1 to 1000000, got '64'"),
        ({"hidden_size": None}, "has no hidden_size or d_model"),
        ({"num_hidden_layers": 10**7}, "num_hidden_layers must be a whole number from 1 to 10000"),
        ({"num_experts": -4}, "num_experts must be a whole number >= 1, got -4"),
        ({"num_experts": 1}, "a dense model: num_experts is 1"),
        ({"num_experts": None}, "about experts it has moe_intermediate_size"),
        ({"num_experts": None, "my_experts": 8}, "moe_intermediate_size, my_experts; give the sizes by hand"),
        ({"num_experts_per_tok": 9}, "num_experts_per_tok is 9 of 8 experts"),
        ({"n_group": 4, "topk_group": 5}, "n_group is 4 with 5 groups per token"),
        ({"n_group": 8, "topk_group": 1}, "config.json:12:13: n_group is 8: 1 groups hold fewer than 2 of 8 experts"),
        ({"first_k_dense_replace": 12}, "first_k_dense_replace leaves none of 12 layers with experts"),
        ({"moe_layers": []}, "moe_layers leaves none"),
        ({"moe_layers": [1, "x"]}, "moe_layers must be a whole number"),
        ({"is_moe_layer": [True]}, "is_moe_layer has 1 entries for 12 layers"),
        ({"is_moe_layer": [2] * 12}, "is_moe_layer must have 0 or 1"),
        ({"layer_types": ["odd"] * 12}, "layer_types has a layer of a kind that moesim does not know: 'odd'"),
        ({"num_attention_heads": 5}, "num_attention_heads of 5 does not divide the hidden size 64"),
        ({"norm_topk_prob": "yes"}, "norm_topk_prob must be true or false"),
        ({"routed_scaling_factor": -1}, "routed_scaling_factor must be a positive number"),
        ({"scoring_func": ["sigmoid"]}, "scoring_func must be a word"),
        ({"vocab_size": 1e3}, "vocab_size must be a whole number"),
    ],
)
def test_a_wrong_or_missing_number_is_one_line_with_its_place(tmp_path, change, says):
    with pytest.raises(InputError) as refused:
        read(tmp_path, MOE | change)
    message = str(refused.value)
    assert says in message and "\n" not in message and len(message) < 600


def test_a_text_that_is_json_and_no_yaml_is_read_and_its_mistakes_are_told(tmp_path):
    text = json.dumps(MOE, indent="\t")
    assert read(tmp_path, text).n_experts == 8
    with pytest.raises(InputError, match="hidden_size must be a whole number"):
        read(tmp_path, text.replace('"hidden_size": 64', '"hidden_size": -64'))


def test_two_names_of_one_size_that_differ_are_a_note(tmp_path):
    model = read(tmp_path, MOE | {"num_local_experts": 16})
    assert model.n_experts == 8
    assert "num_experts and num_local_experts differ: num_experts is used" in model.uncertain


def test_files_that_transformers_5_has_rewritten_are_the_same_models(tmp_path):
    linear, v4, nano = (RELEASED[name][0] for name in ("kimi-linear-48b", "deepseek-v4-flash", "nemotron-3-nano-30b"))
    full = linear["linear_attn_config"]["full_attn_layers"]
    words = {0: "sliding_attention", 4: "compressed_sparse_attention", 128: "heavily_compressed_attention"}
    letters = {"M": "linear_attention", "E": "moe", "*": "full_attention"}
    layers = [letters[letter] for letter in nano["hybrid_override_pattern"]]
    rewritten = {
        "kimi-linear-48b": linear | {
            "linear_attn_config": None, "linear_head_dim": 128, "linear_num_heads": 32, "linear_conv_kernel_dim": 4,
            "layer_types": ["full_attention" if layer + 1 in full else "linear_attention" for layer in range(27)],
            "first_k_dense_replace": None, "mlp_layer_types": ["dense"] + ["sparse"] * 26,
        },
        "deepseek-v4-flash": v4 | {
            "compress_ratios": None, "layer_types": [words[ratio] for ratio in v4["compress_ratios"][:43]],
            "num_hash_layers": None, "mlp_layer_types": ["hash_moe"] * 3 + ["moe"] * 40,
        },
        "nemotron-3-nano-30b": nano | {
            "hybrid_override_pattern": None, "num_hidden_layers": None, "layers_block_type": layers,
        },
    }  # fmt: skip
    for name, config in rewritten.items():
        model, released = read(tmp_path, config), read(tmp_path, RELEASED[name][0])
        assert model.total_parameters == released.total_parameters, name
        assert (model.moe_layer_ids, model.attentions) == (released.moe_layer_ids, released.attentions), name
