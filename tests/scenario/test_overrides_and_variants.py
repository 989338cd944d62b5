import pytest

from moesim.errors import InputError
from moesim.scenario import load_scenario, parse_axis, parse_override

BASE = """\
cluster: {topology: h800-8x8-rail}
routing: {kind: v3, top_k: 8, groups: node, top_groups: 4}
workload: {recording: {name: tiny-v3, layers: [2]}, tokens_per_rank: 64}
variants:
  one-key: {routing.top_k: 4}
  block: {routing: {kind: v1, top_k: 6}, workload.recording.name: tiny-v1}
  both: {routing.top_k: 2, routing: {kind: v1}}
  other-model: {model.preset: deepseek-v2, routing: {}}
  same: {}
"""


@pytest.fixture
def base(tmp_path):
    path = tmp_path / "base.yaml"
    path.write_text(BASE)
    return path


def test_a_dotted_key_sets_one_value_and_keeps_the_rest(base):
    variant = load_scenario(base).variant_scenarios()["one-key"]
    assert (variant.routing.kind, variant.routing.top_k, variant.routing.top_groups) == ("v3", 4, 4)


def test_a_block_replaces_the_whole_block(base):
    variant = load_scenario(base).variant_scenarios()["block"]
    assert (variant.routing.kind, variant.routing.groups, variant.routing.score) == ("v1", 1, "softmax")
    assert variant.workload.recording.name == "tiny-v1"
    assert variant.workload.recording.layers == (2,)
    assert variant.workload.tokens_per_rank == 64


def test_within_a_variant_blocks_come_before_single_values(base):
    variant = load_scenario(base).variant_scenarios()["both"]
    assert (variant.routing.kind, variant.routing.top_k) == ("v1", 2)


def test_a_variants_own_model_brings_its_own_sizes_and_router(base):
    variant = load_scenario(base).variant_scenarios()["other-model"]
    assert (variant.model.n_experts, variant.model.hidden) == (160, 5120)
    assert (variant.routing.kind, variant.routing.top_k, variant.routing.top_groups) == ("v2", 6, 3)


def test_a_variant_is_a_whole_scenario_named_after_its_base(base):
    scenario = load_scenario(base)
    variants = scenario.variant_scenarios()
    assert list(variants) == ["one-key", "block", "both", "other-model", "same"]
    assert [variant.name for variant in variants.values()][:2] == ["base/one-key", "base/block"]
    assert variants["same"].resolved() == scenario.resolved() | {"name": "base/same", "variants": {}}
    assert variants["same"].variant_scenarios() == {}
    assert variants["block"].base_dir == base.parent


def test_an_override_holds_in_the_base_and_in_every_variant(base):
    scenario = load_scenario(base, ["routing.top_k=3", "seed=7"])
    everyone = [scenario, *scenario.variant_scenarios().values()]
    assert {each.routing.top_k for each in everyone} == {3}
    assert {each.seed for each in everyone} == {7}


def test_an_override_can_add_to_the_variants(base):
    scenario = load_scenario(base, ["variants={fast: {alltoall.cached_handle: true}}"])
    assert [v.alltoall.cached_handle for v in scenario.variant_scenarios().values()] == [True]


def test_an_override_can_exchange_the_source_of_the_tokens(base):
    overrides = ["workload.recording=null", "workload.synthetic={kind: zipf, exponent: 1.2}", "variants=null"]
    scenario = load_scenario(base, overrides)
    assert scenario.workload.synthetic.exponent == 1.2
    assert scenario.routing.bias == "zero"


def test_a_relative_path_in_an_override_starts_from_the_current_folder(base, tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    (here / "t.csv").write_text("x")
    monkeypatch.chdir(here)
    scenario = load_scenario(base, ["compute.table=t.csv"])
    assert scenario.compute.table == str(here / "t.csv")
    (tmp_path / "sibling").mkdir()
    monkeypatch.chdir(tmp_path / "sibling")
    assert load_scenario(base, ["compute.table=../here/t.csv"]).source("quick") == "quick"


def test_a_relative_path_in_a_scenario_starts_from_its_folder(tmp_path):
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "t.csv").write_text("x")
    (tmp_path / "s.yaml").write_text("cluster: {topology: hgx-h800}\ncompute: {table: tables/t.csv}\n")
    scenario = load_scenario(tmp_path / "s.yaml")
    assert scenario.source(scenario.compute.table) == str(tmp_path / "tables" / "t.csv")
    assert scenario.source(scenario.cluster.topology) == "hgx-h800"


@pytest.mark.parametrize(
    ("text", "loc", "value"),
    [
        ("routing.top_k=6", ("routing", "top_k"), 6),
        ("a.b=[1, 2]", ("a", "b"), [1, 2]),
        ("a=no", ("a",), "no"),
        ("a = 2us ", ("a",), "2us"),
        ("a=null", ("a",), None),
        ("a={b: x=y}", ("a",), {"b": "x=y"}),
    ],
)
def test_the_value_of_an_override_is_yaml(text, loc, value):
    override = parse_override(text)
    assert (override.loc, override.value) == (loc, value)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1..4", (1, 2, 3, 4)),
        ("3..3", (3,)),
        ("2,4,8", (2, 4, 8)),
        ([2, 4], (2, 4)),
        ("v1, v2", ("v1", "v2")),
        ("0.5", (0.5,)),
        ("400Gb/s,800Gb/s", ("400Gb/s", "800Gb/s")),
        (7, (7,)),
    ],
)
def test_an_axis_is_a_list_a_range_or_values_between_commas(text, values):
    assert parse_axis(text) == values


@pytest.mark.parametrize("text", ["4..1", "0..99999", "", [], "[1"])
def test_an_axis_without_values_or_with_too_many_is_refused(text):
    with pytest.raises(InputError):
        parse_axis(text)
