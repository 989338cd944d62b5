"""What a scenario becomes where it says little."""

import subprocess
import sys

import pytest

from moesim.routing import RouterSpec
from moesim.scenario import load_scenario
from moesim.scenario.defaults import KINDS

CLUSTER = {"cluster": {"topology": "h800-8x8-rail"}}


def routing(model=None, **keys):
    scenario = load_scenario({**CLUSTER, "model": model or {}, "routing": keys})
    return scenario.routing


def test_only_the_cluster_has_to_be_named():
    scenario = load_scenario(CLUSTER)
    assert scenario.model.preset == "deepseek-v3"
    assert (scenario.model.n_experts, scenario.model.hidden, scenario.model.expert_hidden) == (256, 7168, 2048)
    assert scenario.workload.recording.name == "tiny-v3"
    assert scenario.alltoall.algorithm == "deepep-normal"
    assert scenario.parallel.ep is None


def test_the_router_is_by_default_the_one_the_model_was_published_with():
    v3 = routing()
    assert (v3.kind, v3.top_k, v3.groups, v3.top_groups, v3.scale) == ("v3", 8, 8, 4, 2.5)
    v2 = routing({"preset": "deepseek-v2"})
    assert (v2.kind, v2.top_k, v2.groups, v2.top_groups, v2.group_score, v2.scale) == ("v2", 6, 8, 3, "max", 16.0)
    mixtral = routing({"preset": "mixtral-8x7b"})
    assert (mixtral.kind, mixtral.top_k, mixtral.groups, mixtral.normalize) == ("v1", 2, 1, True)


def test_another_kind_than_the_published_one_starts_from_that_kinds_own_knobs():
    v1 = routing(kind="v1")
    assert (v1.top_k, v1.groups, v1.top_groups, v1.score, v1.normalize, v1.scale) == (8, 1, 1, "softmax", False, 1.0)


def test_naming_what_the_groups_are_keeps_the_published_limit():
    assert routing(groups="node").top_groups == 4
    assert routing(groups=1).top_groups == 1


def test_an_explicit_knob_wins_over_its_kind():
    v3 = routing(kind="v3", score="softmax", normalize=False, scale=1, group_score="topk_over_m")
    assert (v3.score, v3.normalize, v3.scale, v3.group_score) == ("softmax", False, 1.0, "topk_over_m")


@pytest.mark.parametrize("kind", ["v1", "v2", "v3"])
def test_the_knobs_of_a_kind_are_those_of_the_router(kind):
    spec = RouterSpec(kind=kind, n_experts=16, top_k=4)
    assert {name: getattr(spec, name) for name in KINDS[kind]} == KINDS[kind]


def test_each_kind_of_router_reads_its_own_recording_unless_told_otherwise():
    for kind in KINDS:
        keys = {"kind": kind, "groups": 1}
        assert load_scenario({**CLUSTER, "routing": keys}).workload.recording.name == f"tiny-{kind}"


def test_the_recorded_bias_is_used_for_v3_on_a_recording_only():
    assert routing(kind="v3").bias == "recorded"
    assert routing(kind="v1").bias == "zero"
    synthetic = load_scenario({**CLUSTER, "workload": {"synthetic": {"kind": "uniform"}}})
    assert synthetic.routing.bias == "zero"


def test_null_means_not_given():
    scenario = load_scenario({**CLUSTER, "model": {"hidden": None}, "workload": {"recording": None, "counts": None}})
    assert scenario.model.hidden == 7168
    assert scenario.workload.recording.name == "tiny-v3"


def test_sizes_given_win_over_the_preset_and_reach_the_model():
    scenario = load_scenario({**CLUSTER, "model": {"preset": "deepseek-v3", "n_experts": 64, "layers": 4}})
    assert scenario.model.n_experts == 64
    spec = scenario.model_spec()
    assert (spec.n_experts, spec.layers, spec.hidden, spec.router.top_k) == (64, 4, 7168, 8)
    assert spec.total_parameters < 30e9


def test_a_released_configuration_beside_the_scenario_is_a_model(tmp_path):
    (tmp_path / "config.json").write_text(
        '{"hidden_size": 512, "num_hidden_layers": 4, "moe_intermediate_size": 256, "num_experts": 32,'
        '"num_experts_per_tok": 4, "vocab_size": 1000, "num_attention_heads": 8}'
    )
    (tmp_path / "own.yaml").write_text("cluster: {topology: hgx-h800}\nmodel: {preset: ./config.json}\n")
    scenario = load_scenario(tmp_path / "own.yaml")
    assert (scenario.name, scenario.model.n_experts, scenario.routing.top_k) == ("own", 32, 4)
    (tmp_path / "config.json").unlink()
    assert load_scenario(scenario.resolved() | {"model": scenario.resolved()["model"] | {"preset": "deepseek-v3"}})


def test_a_scenario_is_refused_before_anything_heavy_is_imported(tmp_path):
    (tmp_path / "bad.yaml").write_text("cluster: {topology: hgx-h800}\nrouting: {top_k: 999}\n")
    code = (
        "import sys, moesim\n"
        f"try: moesim.load_scenario({str(tmp_path / 'bad.yaml')!r})\n"
        "except moesim.InputError as error: print(error)\n"
        "print([x for x in ('numpy', 'numba', 'pandas', 'networkx', 'matplotlib', 'pyarrow') if x in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    told, heavy = done.stdout.splitlines()
    assert "bad.yaml:2:18: routing.top_k: 999 experts per token, but only 256 experts" in told
    assert heavy == "[]"
