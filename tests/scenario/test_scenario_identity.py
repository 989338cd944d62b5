"""A scenario resolves, reloads and is told apart: no field may change without its digest changing."""

import pickle
import types
from copy import deepcopy
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
from pydantic import BaseModel

from moesim.scenario import Scenario, json_schema, load_scenario, shipped_names
from moesim.scenario.named_files import shipped_scenario
from moesim.scenario.schema import to_yaml

BASE = {
    "cluster": {"topology": "h800-8x8-rail"},
    "variants": {"v": {"routing": {"kind": "v1"}}},
    "sweep": {"axes": {"seed": [1]}},
}

UNIFORM = {"distribution": "uniform", "scale": "5us"}
LOGNORMAL = {"distribution": "lognormal", "sigma": 0.1, "scale": "5us"}
NORMAL = {"distribution": "normal", "mean": "5us", "scale": "5us"}
RECORDING = {"workload.recording.name": "tiny-v3"}
DECODE = {"workload.requests": 32, "workload.context": 4096, "schedule.phase": "decode"}
ZIPF = {"workload.synthetic.kind": "zipf"}
TRAINING = {"workload.sequence_length": 4096, "schedule": {"phase": "training", "micro_batches": 4}}
PIPELINE = {
    "workload.sequence_length": 4096,
    "schedule": {"phase": "training", "pipeline": "1f1b", "micro_batches": 4},
    "parallel": {"ep": 32, "dp": 32, "pp": 2},
}

# Every field of a scenario with another value than BASE resolves to, and what else that value needs.
REBALANCE = {"placement": {"rebalance": {"every": 2}}}
CHANGES: dict[str, tuple[object, dict[str, object]]] = {
    "name": ("other", {}),
    "seed": (1, {}),
    "cluster.topology": ("h800-16x8-rail", {}),
    "cluster.gpu": ("h200", {}),
    "cluster.nodes": (16, {}),
    "cluster.gpus_per_node": (16, {}),
    "cluster.fabric": ("leaf-spine", {}),
    "cluster.oversubscription": (2, {}),
    "cluster.nics_per_node": (4, {}),
    "cluster.nic_bandwidth": ("200Gb/s", {}),
    "cluster.overrides": ([{"where": "n0.gpu2.nic", "bandwidth": "200Gb/s"}], {}),
    "cluster.ecmp_seed": (1, {}),
    "cluster.flows": ("ports", {}),
    "parallel.ep": (32, {}),
    "parallel.dp": (128, {"parallel.ep": 64}),
    "parallel.tp": (2, {"parallel.ep": 64}),
    "parallel.pp": (4, PIPELINE),
    "parallel.group_placement": ("striped", {"parallel.ep": 32}),
    "parallel.gradient_dtype": ("fp32", {"parallel.ep": 32, "parallel.dp": 64}),
    "model.preset": ("deepseek-r1", {}),
    "model.n_experts": (128, {}),
    "model.hidden": (4096, {}),
    "model.expert_hidden": (1024, {}),
    "model.n_shared": (2, {}),
    "model.shared_hidden": (512, {}),
    "model.latent": (1024, {}),
    "model.layers": (60, {}),
    "routing.kind": ("v2", {}),
    "routing.top_k": (6, {}),
    "routing.groups": ("node", {}),
    "routing.top_groups": (3, {}),
    "routing.score": ("softmax", {}),
    "routing.group_score": ("sum", {}),
    "routing.normalize": (False, {}),
    "routing.scale": (1.0, {}),
    "routing.bias": ("zero", {}),
    "routing.update_bias": (True, {}),
    "workload.recording.name": ("tiny-v1", {}),
    "workload.recording.layers": ([2], RECORDING),
    "workload.recording.step": (100, RECORDING),
    "workload.synthetic.kind": ("uniform", ZIPF),
    "workload.synthetic.correlation": (0.5, ZIPF),
    "workload.synthetic.sequence_length": (64, ZIPF),
    "workload.synthetic.exponent": (2.0, ZIPF),
    "workload.synthetic.sigma": (2.0, {"workload.synthetic.kind": "lognormal"}),
    "workload.synthetic.ratio": (3.0, {"workload.synthetic.kind": "one_hot_rank"}),
    "workload.synthetic.hot_rank": (3, {"workload.synthetic.kind": "one_hot_rank"}),
    "workload.synthetic.hot_node": (3, {"workload.synthetic.kind": "one_hot_node"}),
    "workload.synthetic.layer_correlation": (0.5, ZIPF),
    "workload.synthetic.step_correlation": (0.5, ZIPF),
    "workload.synthetic.max_violation": (2.0, {"workload.synthetic": {"kind": "skew", "max_violation": 1.0}}),
    "workload.synthetic.balancedness": (0.6, {"workload.synthetic": {"kind": "skew", "balancedness": 0.7}}),
    "workload.synthetic.rank_load_max_over_mean": (
        1.5,
        {"workload.synthetic": {"kind": "skew", "rank_load_max_over_mean": 2.0}},
    ),
    "placement.file": ("FILE", {}),
    "workload.routing.file": ("FILE", {}),
    "workload.routing.layers": ([3], {"workload.routing.file": "FILE"}),
    "workload.expert_ids": ("FILE", {}),
    "workload.counts": ("FILE", {}),
    "workload.tokens_per_rank": (64, {}),
    "workload.assign": ("striped", {}),
    "workload.domains": (["python"], {}),
    "workload.layers_simulated": (58, {}),
    "workload.steps": (2, {}),
    "workload.requests": (64, DECODE),
    "workload.context": (8192, DECODE),
    "workload.sequence_length": (4096, {}),
    "workload.draft_tokens": (1, DECODE),
    "workload.acceptance": (0.8, DECODE | {"workload.draft_tokens": 1}),
    "placement.policy": ("round_robin", {}),
    "placement.redundant_experts": (32, {"placement.policy": "eplb"}),
    "placement.replica_choice": ("hash", {}),
    "placement.learn_from": ("first_half", {}),
    "placement.moves": (8, {"placement.policy": "eplb"}),
    "placement.node_load_limit": (1.2, {}),
    "placement.rebalance.every": (3, REBALANCE),
    "placement.rebalance.policy": ("greedy", REBALANCE),
    "placement.rebalance.mode": ("async", REBALANCE),
    "placement.rebalance.fixed_time": ("20ms", REBALANCE),
    "alltoall.algorithm": ("nccl-direct", {}),
    "alltoall.dispatch_dtype": ("bf16", {}),
    "alltoall.combine_dtype": ("fp8", {}),
    "alltoall.cached_handle": (True, {}),
    "alltoall.calibration": ("deepep-normal-h100", {}),
    "alltoall.transport": ("proxy", {}),
    "alltoall.receive_hook": (False, {"alltoall": {"algorithm": "deepep-low-latency"}}),
    "alltoall.sms": (24, {}),
    "network.tolerance": ("0.1%", {}),
    "compute.table": ("h100", {}),
    "compute.library_date": ("2025-03-01", {"workload.sequence_length": 4096}),
    "compute.attention_dtype": ("fp8", {"workload.sequence_length": 4096}),
    "model.attention": ("mha", {"workload.sequence_length": 4096}),
    "model.heads": (64, {"workload.sequence_length": 4096}),
    "model.kv_heads": (4, {"workload.sequence_length": 4096, "model.attention": "gqa"}),
    "model.kv_lora_rank": (256, {"workload.sequence_length": 4096}),
    "schedule.phase": ("decode", {}),
    "schedule.overlap": ("two-batch", {"workload.sequence_length": 4096}),
    "schedule.pipeline": ("zb1p", PIPELINE),
    "schedule.micro_batches": (8, TRAINING),
    "schedule.stage_layers": ("even", PIPELINE),
    "schedule.mtp_layers": (2, TRAINING),
    "schedule.recompute": ("selective", TRAINING),
    "schedule.start_offset": ("5us", {}),
    "schedule.start_offset.distribution": ("exponential", {"schedule.start_offset": UNIFORM}),
    "schedule.start_offset.scale": ("7us", {"schedule.start_offset": UNIFORM}),
    "schedule.start_offset.sigma": (0.5, {"schedule.start_offset": LOGNORMAL}),
    "schedule.start_offset.mean": ("7us", {"schedule.start_offset": NORMAL}),
    "schedule.other_time": ("100us", {}),
    "losses.form": ("document", {}),
    "losses.expert": (0.01, {}),
    "losses.device": (0.01, {}),
    "losses.communication": (0.01, {}),
    "losses.sequence": (0.01, {}),
    "losses.z": (0.01, {}),
    "losses.bias_rate": (0.01, {}),
    "faults": ([{"kind": "slow_nic", "where": "n0", "factor": 2, "from": "1us", "to": "1ms"}], {}),
    "thresholds": (["layer_time_s < 2ms"], {}),
    "variants": ({"v": {"routing": {"kind": "v1", "top_k": 4}}}, {}),
    "sweep.question": ("Which seed?", {}),
    "sweep.axes": ({"seed": [1, 2]}, {}),
    "sweep.zip": ([{"model.n_experts": [64, 128], "model.expert_hidden": [2048, 1024]}], {}),
    "sweep.random.points": (1, {"sweep.random": {"points": 2}}),
    "sweep.random.seed": (1, {"sweep.random": {"points": 2}}),
    "sweep.objective": ("step_time_s", {}),
    "sweep.per": (["seed"], {}),
    "sweep.impossible": ("skip", {}),
}
WITH_ONE_VALUE_ONLY = {"workload.sampling"}


def leaves(annotation: Any, path: str = "") -> set[str]:
    """Return the dotted paths of all fields below a model that hold values."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return leaves(get_args(annotation)[0], path)
    if origin in (Union, types.UnionType):
        return set().union(*(leaves(each, path) for each in get_args(annotation) if each is not type(None)))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = annotation.model_fields.items()
        return set().union(*(leaves(info.annotation, f"{path}.{name}".lstrip(".")) for name, info in fields))
    return {path}


def with_changes(changes: dict[str, object], folder) -> Scenario:
    (folder / "file.npy").write_bytes(b"x")
    data: dict[str, Any] = deepcopy(BASE)
    for dotted_key, value in changes.items():
        *above, last = dotted_key.split(".")
        block = data
        for step in above:
            block = block.setdefault(step, {})
        block[last] = str(folder / "file.npy") if value == "FILE" else deepcopy(value)
    return load_scenario(data)


def test_the_list_of_changes_names_every_field_of_the_schema():
    assert leaves(Scenario) == set(CHANGES) | WITH_ONE_VALUE_ONLY


@pytest.mark.parametrize("field", CHANGES)
def test_the_digest_changes_with_every_field(field, tmp_path):
    value, needed = CHANGES[field]
    without = with_changes(needed, tmp_path)
    changed = with_changes({**needed, field: value}, tmp_path)
    assert changed.digest() != without.digest()
    section = field.split(".")[0]
    assert changed.resolved().get(section) != without.resolved().get(section)
    again = load_scenario(changed.resolved())
    assert again == changed
    assert again.digest() == changed.digest()


@pytest.mark.parametrize("name", shipped_names("scenarios"))
def test_a_shipped_scenario_resolves_to_text_that_loads_to_the_same_scenario(name, tmp_path):
    scenario = load_scenario(name)
    (tmp_path / "again.yaml").write_text(to_yaml(scenario))
    again = load_scenario(tmp_path / "again.yaml")
    assert again == scenario
    assert again.digest() == scenario.digest()
    assert again.variant_scenarios() == scenario.variant_scenarios()


@pytest.mark.parametrize("value", ["1e3", "no", "010", "null", "true", "0x1F", "x: y", "1.5"])
def test_text_that_looks_like_another_value_survives_writing_and_reading(value, tmp_path):
    scenario = load_scenario(BASE | {"workload": {"domains": [value]}})
    (tmp_path / "again.yaml").write_text(to_yaml(scenario))
    assert load_scenario(tmp_path / "again.yaml").workload.domains == (value,)


def test_floats_survive_writing_and_reading_to_the_last_bit(tmp_path):
    third = 1 / 3
    scenario = load_scenario(BASE | {"losses": {"expert": third}, "schedule": {"other_time": f"{third}us"}})
    (tmp_path / "again.yaml").write_text(to_yaml(scenario))
    again = load_scenario(tmp_path / "again.yaml")
    assert again.losses.expert == third
    assert again.schedule.other_time == scenario.schedule.other_time


def test_the_order_of_keys_and_the_way_units_are_written_do_not_matter():
    one = load_scenario({"seed": 1, "cluster": {"topology": "hgx-h800", "nic_bandwidth": "400Gb/s"}})
    two = load_scenario({"cluster": {"nic_bandwidth": "50GB/s", "topology": "hgx-h800"}, "seed": 1})
    assert one == two
    assert len({one, two}) == 1


def test_what_is_the_default_and_what_is_written_out_are_the_same_scenario():
    assert load_scenario(BASE) == load_scenario(BASE | {"routing": {"kind": "v3", "top_k": 8, "top_groups": 4}})


def test_a_scenario_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        load_scenario(BASE).seed = 3


def test_a_scenario_travels_to_another_process_with_its_variants():
    scenario = load_scenario("v1-v2-v3")
    copy = pickle.loads(pickle.dumps(scenario))  # noqa: S301
    assert copy == scenario
    assert copy.variant_scenarios() == scenario.variant_scenarios()
    assert copy.base_dir == scenario.base_dir


def test_the_json_schema_documents_every_field():
    schema = json_schema()
    assert schema["required"] == ["cluster"]
    blocks = [schema, *schema["$defs"].values()]
    undocumented = [
        (block.get("title"), name)
        for block in blocks
        for name, field in block.get("properties", {}).items()
        if "description" not in (field | schema["$defs"].get(field.get("$ref", "").split("/")[-1], {}))
    ]
    assert undocumented == []
    assert schema["$defs"]["Cluster"]["properties"]["nic_bandwidth"]["anyOf"][0]["examples"] == ["400Gb/s"]
    assert all(block.get("additionalProperties") is False for block in blocks if "properties" in block)


def test_a_shipped_scenario_is_found_by_bare_name_and_by_path():
    path = shipped_scenario("quickstart")
    assert path is not None
    assert load_scenario("quickstart") == load_scenario(path)
    assert load_scenario("quickstart").base_dir == path.parent
