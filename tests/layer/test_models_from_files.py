"""A released config.json in a scenario: its router, its shared part, its latent experts, and what it leaves open."""

import json

import pytest

from moesim.layer import build_parts
from moesim.scenario import load_scenario
from tests.model.released_configs import RELEASED

SHIPPED = {
    "llama-4-scout": "llama-4-scout",
    "glm-5": "glm-5",
    "deepseek-v2": "deepseek-v2",
    "olmoe-1b-7b": "olmoe-1b-7b",
}


@pytest.fixture
def scenario(tmp_path):
    def made(config, **model):
        if isinstance(config, dict):
            (tmp_path / "config.json").write_text(json.dumps(config))
            config = str(tmp_path / "config.json")
        topology = {"topology": "h800-8x8-rail"}
        workload = {"synthetic": {"kind": "uniform"}, "tokens_per_rank": 8}
        return load_scenario({"cluster": topology, "model": {"preset": config, **model}, "workload": workload})

    return made


@pytest.mark.parametrize("name", SHIPPED)
def test_a_file_and_its_preset_make_the_same_scenario(scenario, name):
    by_file, by_name = scenario(RELEASED[name][0]), scenario(SHIPPED[name])
    assert by_file.routing == by_name.routing
    assert by_file.model.model_dump(exclude={"preset"}) == by_name.model.model_dump(exclude={"preset"})
    assert build_parts(by_file).wire_bytes == build_parts(by_name).wire_bytes


def test_a_shared_expert_given_as_a_width_is_that_wide_in_a_run(scenario):
    wide = scenario(RELEASED["qwen2-57b-a14b"][0])
    assert (wide.model.n_shared, wide.model.expert_hidden, wide.model.shared_width) == (1, 2560, 20480)
    beside = scenario(RELEASED["gemma-4-26b-a4b"][0])
    assert (beside.model.n_shared, beside.model.shared_width) == (0, 2112)
    assert scenario(RELEASED["qwen2-57b-a14b"][0], n_shared=2).model.shared_width == 2 * 2560
    assert scenario(RELEASED["qwen2-57b-a14b"][0], shared_hidden=0).model.shared_width == 0
    assert "shared_hidden" not in scenario("deepseek-v3").resolved()["model"]


def test_latent_experts_are_sent_tokens_of_their_own_width(scenario):
    latent = scenario(RELEASED["nemotron-3-ultra-550b"][0])
    assert (latent.model.hidden, latent.model.latent, latent.model.sent) == (8192, 2048, 2048)
    narrow = scenario(RELEASED["nemotron-3-ultra-550b"][0], hidden=2048)
    assert narrow.model.latent is None  # of another model than the file's
    assert build_parts(latent).wire_bytes == build_parts(narrow).wire_bytes
    assert load_scenario(latent.resolved()).model.sent == 2048


@pytest.mark.parametrize(
    ("name", "kind", "score"),
    [("ernie-4.5-21b-a3b", "v3", "softmax"), ("deepseek-v4-flash", "v3", "sigmoid"), ("glm-4.7", "v3", "sigmoid")],
)
def test_the_router_of_a_file_is_the_router_of_the_scenario(scenario, name, kind, score):
    one = scenario(RELEASED[name][0])
    assert (one.routing.kind, one.routing.score, one.routing.normalize) == (kind, score, True)
    assert build_parts(one).router.score == score


def test_what_a_file_leaves_open_comes_along_as_notes(scenario):
    unknown = RELEASED["qwen3-235b-a22b"][0] | {"model_type": "unheard_of", "architectures": ["UnheardOfForCausalLM"]}
    notes = build_parts(scenario(unknown)).model_notes
    assert any("unheard_of" in note for note in notes) and any("scoring_func" in note for note in notes)
    assert build_parts(scenario(RELEASED["qwen3-235b-a22b"][0])).model_notes == ()
    assert build_parts(scenario("deepseek-v2")).model_notes == ()
