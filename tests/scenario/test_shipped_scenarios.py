"""The scenarios that come with moesim say what their names promise."""

from pathlib import Path

import pytest

from moesim.cluster import load_topology
from moesim.scenario import load_scenario, shipped_names

NAMES = (
    "deepseek-v3-decode-ep128",
    "deepseek-v3-prefill-ep64",
    "document-against-paper-v1",
    "document-against-paper-v2",
    "document-against-paper-v3",
    "document-v1",
    "document-v2",
    "document-v3",
    "out-of-domain",
    "quickstart",
    "v1-v2-v3",
)


def test_the_promised_scenarios_are_there():
    assert set(NAMES) <= set(shipped_names("scenarios"))


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_scenario_loads_with_all_its_variants(name):
    scenario = load_scenario(name)
    assert scenario.name == name
    assert scenario.cluster.topology in shipped_names("topologies")


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_scenario_is_short_and_says_what_it_is(name):
    text = (Path("scenarios") / f"{name}.yaml").read_text()
    assert text.startswith("# ")
    assert len(text.splitlines()) <= 40
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_scenario_fits_on_its_cluster(name):
    scenario = load_scenario(name)
    fabric = load_topology(scenario.source(scenario.cluster.topology))
    for each in (scenario, *scenario.variant_scenarios().values()):
        assert (each.parallel.ep or 0) <= fabric.n_ranks
        groups = {"node": fabric.n_nodes, "rank": fabric.n_ranks}.get(each.routing.groups, each.routing.groups)
        assert each.routing.top_groups <= groups


def test_the_flagship_compares_v2_at_every_limit_and_v3_with_and_without_its_bias():
    variants = load_scenario("v1-v2-v3").variant_scenarios()
    assert [variants[f"v2-m{m}"].routing.top_groups for m in range(1, 9)] == list(range(1, 9))
    assert variants["v3"].routing.bias == "recorded"
    assert variants["v3-bias-zero"].routing.bias == "zero"
    own = {name: variants[name].workload.recording.name for name in ("none", "v1", "v2-m3", "v3")}
    assert own == {"none": "tiny-none", "v1": "tiny-v1", "v2-m3": "tiny-v2", "v3": "tiny-v3"}
    assert variants["v3-logits-through-v2"].workload.recording.name == "tiny-v3"


def test_all_variants_of_the_flagship_share_everything_but_router_and_recording():
    variants = list(load_scenario("v1-v2-v3").variant_scenarios().values())
    for section in ("seed", "cluster", "parallel", "model", "placement", "alltoall", "schedule", "losses"):
        assert all(getattr(variant, section) == getattr(variants[0], section) for variant in variants)
    assert len({variant.workload.tokens_per_rank for variant in variants}) == 1


def test_the_documents_v3_has_258_experts_on_64_ranks():
    scenario = load_scenario("document-v3")
    assert (scenario.model.n_experts, scenario.parallel.ep, scenario.losses.form) == (258, 64, "document")


def test_in_and_out_of_domain_differ_in_the_domain_alone():
    variants = load_scenario("out-of-domain").variant_scenarios()
    for name in ("none", "v1", "v3"):
        inside, outside = variants[f"{name}-in"], variants[f"{name}-out"]
        assert inside.workload.domains is None
        assert outside.workload.domains == ("bytecode",)
        assert inside.routing == outside.routing
