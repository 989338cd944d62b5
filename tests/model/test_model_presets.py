import json
import subprocess
import sys

import pytest

from moesim.errors import InputError
from moesim.model import load_model, model_names


@pytest.mark.parametrize(
    ("name", "total", "active"),
    [
        ("deepseek-v3", 671e9, 37e9),
        ("deepseek-v2", 236e9, 21e9),
        ("deepseek-v1", 16.4e9, 2.8e9),
        ("deepseek-moe-145b", 144.6e9, 22.2e9),
        ("mixtral-8x7b", 46.7e9, 12.9e9),
        ("qwen3-235b-a22b", 235e9, 22e9),
        ("qwen3-30b-a3b", 30.5e9, 3.3e9),
        ("olmoe-1b-7b", 6.9e9, 1.3e9),
        ("gpt-oss-120b", 116.8e9, 5.1e9 + 0.58e9),  # the authors leave the embedding out of the active ones
    ],
)
def test_published_totals_follow_from_the_sizes_alone(name, total, active):
    model = load_model(name)
    assert model.total_parameters == pytest.approx(total, rel=0.01)
    assert model.active_parameters == pytest.approx(active, rel=0.03)


def test_no_preset_is_far_from_what_its_authors_state():
    stated = [load_model(name) for name in model_names() if load_model(name).published_total]
    assert len(stated) >= 9
    for model in stated:
        assert model.total_parameters == pytest.approx(model.published_total, rel=0.02), model.name
        assert model.active_parameters == pytest.approx(model.published_active, rel=0.13), model.name


@pytest.mark.parametrize(
    ("name", "kv_bytes"),
    [("deepseek-v3", 70_272), ("deepseek-v2", 69_120), ("deepseek-v2-lite", 31_104), ("deepseek-v1", 229_376),
     ("glm-5", 89_856), ("glm-4.5", 376_832), ("mixtral-8x7b", 131_072), ("qwen3-235b-a22b", 192_512)],
)  # fmt: skip
def test_kv_cache_per_token_follows_from_the_attention(name, kv_bytes):
    assert load_model(name).kv_cache_bytes_per_token(2) == kv_bytes


def test_the_source_documents_own_figures_are_kept_apart_from_the_papers():
    v1, v2, v3 = (load_model(f"document-v{i}") for i in (1, 2, 3))
    assert (v1.n_experts, v1.router.top_k, v1.n_shared) == (64, 4, 2)
    assert (v2.n_experts, v2.router.top_k, v2.n_shared, v2.router.group_score) == (160, 10, 2, "sum")
    assert (v3.n_experts, v3.router.top_k, v3.n_shared, v3.router.n_groups) == (258, 8, 1, 1)
    papers = [load_model(f"deepseek-v{i}") for i in (1, 2, 3)]
    assert [(p.n_experts, p.router.top_k) for p in papers] == [(64, 6), (160, 6), (256, 8)]
    assert papers[1].router.group_score == "max"


def test_dense_layers_come_first_or_between():
    assert load_model("deepseek-v3").moe_layers == 58
    assert load_model("mixtral-8x7b").moe_layers == 32
    assert load_model("llama-4-maverick").moe_layers == 24  # every second layer


def test_an_expert_of_deepseek_v3_has_44_million_weights():
    assert load_model("deepseek-v3").expert_parameters == 3 * 7168 * 2048


def test_every_preset_names_its_sources():
    for name in model_names():
        model = load_model(name)
        assert model.sources, name
        assert model.router.top_k <= model.n_experts


def test_an_unknown_model_is_refused_with_the_nearest_name():
    with pytest.raises(InputError, match="did you mean 'deepseek-v3'"):
        load_model("deepseek-v33")


def test_models_load_without_numpy():
    code = (
        "import sys, moesim.model as m; m.load_model('deepseek-v3').total_parameters;"
        "print([x for x in ('numpy', 'numba', 'pandas', 'networkx', 'matplotlib') if x in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


V3_CONFIG = {
    "model_type": "deepseek_v3", "hidden_size": 7168, "num_hidden_layers": 61, "first_k_dense_replace": 3,
    "intermediate_size": 18432, "moe_intermediate_size": 2048, "n_routed_experts": 256, "n_shared_experts": 1,
    "num_experts_per_tok": 8, "n_group": 8, "topk_group": 4, "scoring_func": "sigmoid", "norm_topk_prob": True,
    "routed_scaling_factor": 2.5, "vocab_size": 129280, "num_attention_heads": 128, "num_key_value_heads": 128,
    "kv_lora_rank": 512, "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
}  # fmt: skip


def write(tmp_path, config):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config) if isinstance(config, dict) else config)
    return str(path)


def test_a_released_configuration_gives_the_same_model_as_its_preset(tmp_path):
    read, preset = load_model(write(tmp_path, V3_CONFIG)), load_model("deepseek-v3")
    assert read.router == preset.router
    assert read.total_parameters == preset.total_parameters
    assert read.kv_cache_bytes_per_token() == preset.kv_cache_bytes_per_token()


def test_other_families_are_read_under_their_own_names(tmp_path):
    mixtral = {
        "hidden_size": 4096, "num_hidden_layers": 32, "intermediate_size": 14336, "num_local_experts": 8,
        "num_experts_per_tok": 2, "vocab_size": 32000, "num_attention_heads": 32, "num_key_value_heads": 8,
    }  # fmt: skip
    model = load_model(write(tmp_path, {"text_config": mixtral}))
    assert model.total_parameters == load_model("mixtral-8x7b").total_parameters
    assert model.attention.kind == "gqa"
    assert any("norm_topk_prob" in note for note in model.uncertain)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("{", "not valid JSON"),
        ("[1]", "expected a JSON object"),
        ("[" * 100_000, "nested too deeply"),
        ({"hidden_size": 4096}, "a dense model: no key says a number of experts"),
        (V3_CONFIG | {"n_routed_experts": -1}, "n_routed_experts must be a whole number >= 1, got -1"),
        (V3_CONFIG | {"hidden_size": True}, "hidden_size must be a whole number"),
        (V3_CONFIG | {"scoring_func": "tanh"}, "scoring_func must be softmax or sigmoid"),
        (V3_CONFIG | {"routed_scaling_factor": 0}, "routed_scaling_factor must be a positive number"),
    ],
)
def test_a_configuration_that_is_not_one_is_refused_in_one_line(tmp_path, config, says):
    with pytest.raises(InputError) as refused:
        load_model(write(tmp_path, config))
    assert says in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_a_configuration_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="no such file"):
        load_model("nowhere/config.json")
