"""What was computed is found again by the digest of what it was made from: honest, field by field."""

import importlib.util
import json
import types
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import numpy as np
import pytest
from pydantic import BaseModel

from moesim.layer.parts import build_parts
from moesim.layer.token_batches import open_workload
from moesim.placement import contiguous, round_robin, write_map
from moesim.scenario import Scenario, load_scenario
from moesim.sweeps.digests import batch_digest, digest, fabric_digest, file_digests, routing_digest
from moesim.sweeps.evaluate_points import route

BASE = {
    "name": "base",
    "cluster": {"topology": "h800-8x8-rail"},
    "parallel": {"ep": 16},
    "model": {"preset": "deepseek-v3", "n_experts": 32, "hidden": 1024, "expert_hidden": 256},
    "routing": {"kind": "v3", "top_k": 4, "groups": 8, "top_groups": 4},
    "workload": {"synthetic": {"kind": "lognormal", "sigma": 0.8, "sequence_length": 16}, "tokens_per_rank": 16},
}
EPLB = {"placement.policy": "eplb"}
ANEW = {"placement.rebalance": {"every": 2}}
BIAS = {"routing.update_bias": True, "workload.steps": 2}

PROMPTS = {"workload.sequence_length": 16}
DECODE = {"workload.requests": 16, "workload.context": 64, "schedule.phase": "decode", "workload.tokens_per_rank": None}
TRAINING = PROMPTS | {"schedule.phase": "training", "schedule.micro_batches": 8}
PIPELINE = TRAINING | {"schedule.pipeline": "1f1b", "parallel.pp": 2}

BATCH = "batch routing"  # what the tokens follow from, the routing follows from
# Every field that a scenario can hold: another value, what that value needs beside it, and the digests that change.
FIELDS: dict[str, tuple[object, dict[str, object], str]] = {
    "name": ("other", {}, ""),
    "seed": (1, {}, BATCH),
    "cluster.topology": ("h100-8x8-leaf-spine", {}, "fabric"),
    "cluster.gpu": ("h200", {}, "fabric"),
    "cluster.nodes": (4, {}, "fabric"),
    "cluster.gpus_per_node": (4, {}, f"fabric {BATCH}"),
    "cluster.fabric": ("leaf-spine", {}, "fabric"),
    "cluster.oversubscription": (2, {}, "fabric"),
    "cluster.nics_per_node": (4, {}, "fabric"),
    "cluster.nic_bandwidth": ("200Gb/s", {}, "fabric"),
    "cluster.overrides": ([{"where": "n0.gpu2.nic", "bandwidth": "200Gb/s"}], {}, "fabric"),
    "cluster.ecmp_seed": (1, {}, ""),
    "cluster.flows": ("ports", {}, "routing"),
    "parallel.ep": (8, {}, f"fabric {BATCH}"),
    "parallel.dp": (32, {}, "fabric routing"),
    "parallel.tp": (2, {}, ""),
    "parallel.pp": (4, PIPELINE, ""),
    "parallel.group_placement": ("striped", {"parallel.dp": 32}, "fabric"),
    "parallel.gradient_dtype": ("fp32", {"parallel.dp": 32}, ""),
    "model.preset": ("deepseek-r1", {}, ""),
    "model.n_experts": (64, {}, BATCH),
    "model.hidden": (512, {}, ""),
    "model.expert_hidden": (128, {}, ""),
    "model.n_shared": (2, {}, ""),
    "model.shared_hidden": (512, {}, ""),
    "model.latent": (128, {}, ""),
    "model.layers": (60, {}, ""),
    "routing.kind": ("v2", {}, BATCH),
    "routing.top_k": (2, {}, BATCH),
    "routing.groups": (4, {}, BATCH),
    "routing.top_groups": (3, {}, BATCH),
    "routing.score": ("softmax", {}, BATCH),
    "routing.group_score": ("sum", {}, BATCH),
    "routing.normalize": (False, {}, BATCH),
    "routing.scale": (1.0, {}, BATCH),
    "routing.bias": ("BIAS", {}, "routing"),
    "routing.update_bias": (True, {}, "routing"),
    "workload.recording.name": ("RECORDING", {"workload.synthetic": None}, BATCH),
    "workload.recording.layers": ([2], {"workload.synthetic": None, "workload.recording.name": "RECORDING"}, BATCH),
    "workload.recording.step": (10, {"workload.synthetic": None, "workload.recording.name": "RECORDING"}, BATCH),
    "workload.synthetic.kind": ("uniform", {"workload.synthetic": {"sequence_length": 16}}, BATCH),
    "workload.synthetic.correlation": (0.5, {}, BATCH),
    "workload.synthetic.sequence_length": (8, {}, BATCH),
    "workload.synthetic.exponent": (2.0, {"workload.synthetic": {"kind": "zipf"}}, BATCH),
    "workload.synthetic.sigma": (0.4, {}, BATCH),
    "workload.synthetic.ratio": (3.0, {"workload.synthetic": {"kind": "one_hot_rank"}}, BATCH),
    "workload.synthetic.hot_rank": (3, {"workload.synthetic": {"kind": "one_hot_rank"}}, BATCH),
    "workload.synthetic.hot_node": (1, {"workload.synthetic": {"kind": "one_hot_node"}}, BATCH),
    "workload.synthetic.layer_correlation": (0.5, {}, BATCH),
    "workload.synthetic.step_correlation": (0.5, {}, BATCH),
    "workload.synthetic.max_violation": (2.0, {"workload.synthetic": {"kind": "skew", "max_violation": 3.0}}, BATCH),
    "workload.synthetic.balancedness": (0.3, {"workload.synthetic": {"kind": "skew", "balancedness": 0.4}}, BATCH),
    "workload.synthetic.rank_load_max_over_mean": (
        3.0,
        {"workload.synthetic": {"kind": "skew", "rank_load_max_over_mean": 4.0}},
        BATCH,
    ),
    "workload.routing.file": ("LAYERS", {"workload.synthetic": None}, BATCH),
    "workload.routing.layers": ([1], {"workload.synthetic": None, "workload.routing.file": "LAYERS"}, BATCH),
    "workload.expert_ids": ("IDS", {"workload.synthetic": None}, BATCH),
    "workload.counts": ("COUNTS", {"workload.synthetic": None}, BATCH),
    "workload.tokens_per_rank": (8, {}, BATCH),
    "workload.requests": (8, DECODE, BATCH),
    "workload.context": (128, DECODE, BATCH),
    "workload.sequence_length": (16, {}, BATCH),
    "workload.draft_tokens": (1, DECODE, BATCH),
    "workload.acceptance": (0.8, DECODE | {"workload.draft_tokens": 1}, BATCH),
    "workload.assign": ("striped", {}, BATCH),
    "workload.domains": (["code"], {"workload.synthetic": None, "workload.recording.name": "RECORDING"}, BATCH),
    "workload.layers_simulated": (2, {}, BATCH),
    "workload.steps": (2, {}, BATCH),
    "placement.policy": ("round_robin", {}, "routing"),
    "placement.file": ("MAP", {}, "routing"),
    "placement.redundant_experts": (16, EPLB, "routing"),
    "placement.replica_choice": ("hash", EPLB, "routing"),
    "placement.rebalance.every": (3, ANEW, "routing"),
    "placement.rebalance.policy": ("greedy", ANEW, "routing"),
    "placement.rebalance.mode": ("async", ANEW, "routing"),
    "placement.rebalance.fixed_time": ("20ms", ANEW, "routing"),
    "placement.learn_from": ("first_half", EPLB, "routing"),
    "placement.moves": (2, EPLB, "routing"),
    "placement.node_load_limit": (4.0, {"placement.policy": "affinity"}, "routing"),
    "alltoall.algorithm": ("nccl-direct", {}, ""),
    "alltoall.dispatch_dtype": ("bf16", {}, ""),
    "alltoall.combine_dtype": ("fp8", {}, ""),
    "alltoall.cached_handle": (True, {}, ""),
    "alltoall.sms": (24, {}, ""),
    "alltoall.calibration": ("deepep-normal-h800", {}, ""),
    "alltoall.transport": ("efa-proxy", {}, ""),
    "alltoall.receive_hook": (False, {"alltoall.algorithm": "deepep-low-latency"}, ""),
    "network.tolerance": ("0.1%", {}, ""),
    "compute.table": ("h100", {}, ""),
    "compute.library_date": ("2025-03-01", PROMPTS, ""),
    "compute.attention_dtype": ("fp8", PROMPTS, ""),
    "model.attention": ("mha", PROMPTS, ""),
    "model.heads": (64, PROMPTS, ""),
    "model.kv_heads": (4, PROMPTS | {"model.attention": "gqa"}, ""),
    "model.kv_lora_rank": (256, PROMPTS, ""),
    "schedule.phase": ("decode", {}, ""),
    "schedule.overlap": ("two-batch", PROMPTS, "routing"),
    "schedule.pipeline": ("zb1p", PIPELINE, ""),
    "schedule.micro_batches": (4, TRAINING, ""),
    "schedule.stage_layers": ("even", PIPELINE, ""),
    "schedule.mtp_layers": (2, TRAINING, ""),
    "schedule.recompute": ("selective", TRAINING, ""),
    "schedule.start_offset": ("5us", {}, ""),
    "schedule.start_offset.distribution": ("exponential", {}, ""),
    "schedule.start_offset.scale": ("7us", {}, ""),
    "schedule.start_offset.sigma": (0.5, {}, ""),
    "schedule.start_offset.mean": ("7us", {}, ""),
    "schedule.other_time": ("100us", {}, ""),
    "losses.form": ("document", {}, "routing"),
    "losses.expert": (0.01, {}, "routing"),
    "losses.device": (0.01, {}, "routing"),
    "losses.communication": (0.01, {}, "routing"),
    "losses.sequence": (0.01, {}, "routing"),
    "losses.z": (0.01, {}, "routing"),
    "losses.bias_rate": (0.01, BIAS, "routing"),
    "faults": ([{"kind": "dead_nic", "where": "n0.gpu1"}], {}, "fabric"),
    "thresholds": (["layer_time_s < 2ms"], {}, ""),
}
# Fields of a distribution of arrivals: one block each, nothing of them reaches tokens or fabric.
UNIFORM = {"distribution": "uniform", "scale": "5us"}
OFFSETS = {
    "schedule.start_offset.distribution": {"schedule.start_offset": UNIFORM},
    "schedule.start_offset.scale": {"schedule.start_offset": UNIFORM},
    "schedule.start_offset.sigma": {
        "schedule.start_offset": {"distribution": "lognormal", "sigma": 0.1, "scale": "5us"}
    },
    "schedule.start_offset.mean": {"schedule.start_offset": {"distribution": "normal", "mean": "5us", "scale": "5us"}},
}
SOURCES = (
    "workload.synthetic.kind", "workload.recording.name", "workload.routing.file", "workload.expert_ids",
    "workload.counts",
)  # fmt: skip
NOT_OF_A_POINT = {"workload.sampling", "variants"}


def leaves(annotation: Any, path: str = "") -> set[str]:
    origin = get_origin(annotation)
    if origin is Annotated:
        return leaves(get_args(annotation)[0], path)
    if origin in (Union, types.UnionType):
        return set().union(*(leaves(each, path) for each in get_args(annotation) if each is not type(None)))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = annotation.model_fields.items()
        return set().union(*(leaves(info.annotation, f"{path}.{name}" if path else name) for name, info in fields))
    return {path}


def test_every_field_of_a_scenario_is_looked_at():
    known = {field for field in leaves(Scenario) if not field.startswith("sweep")}
    assert known == set(FIELDS) | NOT_OF_A_POINT


def _of_simulation():
    """The helpers of the tests of whole runs: they make a recording by rule."""
    path = Path(__file__).parents[1] / "run" / "small.py"
    spec = importlib.util.spec_from_file_location("small_runs", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    np.save(folder / "bias.npy", np.linspace(-1, 1, 32).astype(np.float32))
    ids = np.array([np.random.default_rng(token).permutation(32)[:4] for token in range(256)], np.int32)
    np.save(folder / "ids.npy", ids)
    counts = "\n".join(f"0,{expert},{10 + expert}" for expert in range(32))
    (folder / "counts.csv").write_text(f"layer,expert,count\n{counts}\n")
    _of_simulation().small_recording(folder / "recording.npz")
    np.savez(folder / "layers.npz", topk_idx=np.stack([ids, ids[::-1]]))
    write_map(folder / "map.json", round_robin(32, 16), layers=(0, 1, 2, 3))
    names = {"BIAS": "bias.npy", "IDS": "ids.npy", "COUNTS": "counts.csv", "RECORDING": "recording.npz"}
    return names | {"LAYERS": "layers.npz", "MAP": "map.json", "": folder}


def made(files, settings):
    data = {**BASE, **{section: dict(BASE[section]) for section in ("cluster", "model", "routing", "workload")}}
    data["schedule"], data["placement"], data["losses"] = {}, {}, {}
    overrides = []
    for key, value in settings.items():
        if isinstance(value, str) and value in files:
            value = str(files[""] / files[value])
        if isinstance(value, dict) or value is None:
            section, name = key.split(".")
            data[section] = {**data[section], name: value}
        else:
            overrides.append(f"{key}={json.dumps(value)}")
    return load_scenario(data, overrides)


def stages(scenario):
    parts = build_parts(scenario)
    recording = open_workload(parts).recording
    found = {
        "fabric": fabric_digest(scenario),
        "batch": batch_digest(scenario, parts, recording),
        "routing": routing_digest(scenario, parts, recording),
    }
    return found, scenario, parts, recording


def routed(scenario, parts, recording):
    """Everything that routing hands on, as one digest."""
    result = route(scenario, parts, recording)
    placements = [
        (layer.placement.slot_expert, layer.placement.slot_rank)
        for step in result.steps
        for layer in step.layers.values()
    ]
    rest = [
        {name: value for name, value in vars(layer).items() if name != "placement"}
        for step in result.steps
        for layer in step.layers.values()
    ]
    sizes = [(tuple(step.layers), step.tokens, step.distinct_tokens, step.given) for step in result.steps]
    return digest(placements, rest, sizes, result.counterfactual)


@pytest.mark.parametrize("field", FIELDS)
def test_a_change_of_a_field_changes_the_digests_of_what_reads_it_and_no_other(files, field):
    value, beside, expected = FIELDS[field]
    after = made(files, {**beside, **OFFSETS.get(field, {}), field: value})
    # Where a source of tokens comes instead of another, the other is what stood there before.
    before = made(files, {} if field in SOURCES else {**beside, **OFFSETS.get(field, {})})
    assert before.digest() != after.digest()
    (one, *parts), (other, *parts_after) = stages(before), stages(after)
    changed = {stage for stage in one if one[stage] != other[stage]}
    assert changed == set(expected.split())
    if "routing" not in changed:  # the digest says that nothing of the routing can have changed
        assert routed(*parts) == routed(*parts_after)


def test_the_router_is_no_part_of_recorded_tokens_so_that_a_sweep_of_m_and_k_reads_them_once(files):
    recorded = {"workload.synthetic": None, "workload.recording.name": "RECORDING"}
    base, *others = (
        stages(made(files, {**recorded, **change}))[0]
        for change in ({}, {"routing.top_k": 2}, {"routing.top_groups": 2}, {"placement.policy": "round_robin"})
    )
    assert all(other["batch"] == base["batch"] and other["routing"] != base["routing"] for other in others)


@pytest.mark.parametrize("change", [{"alltoall.algorithm": "nccl-direct"}, {"cluster.topology": "h100-8x8-leaf-spine"}])
def test_copies_counted_at_ports_are_those_of_one_all_to_all_on_one_fabric(files, change):
    by_pair, by_port = ({"cluster.flows": flows, "parallel.ep": 16} for flows in ("pairs", "ports"))
    pairs, ports = (
        [stages(made(files, {**settings, **more}))[0]["routing"] for more in ({}, change)]
        for settings in (by_pair, by_port)
    )
    assert ports[0] != ports[1] and pairs[0] == pairs[1] and pairs[0] not in ports


def test_the_content_of_a_file_counts_and_not_its_name(files, tmp_path):
    settings = {"workload.synthetic": None, "workload.expert_ids": "IDS"}
    before = stages(made(files, settings))[0]
    copy = tmp_path / "ids.npy"
    ids = np.load(files[""] / files["IDS"])
    np.save(copy, ids)
    same = file_digests(made({**files, "IDS": "ids.npy", "": tmp_path}, settings))
    assert same["workload.expert_ids"] == file_digests(made(files, settings))["workload.expert_ids"]
    np.save(copy, ids[::-1])
    assert stages(made({**files, "": tmp_path}, settings))[0]["routing"] != before["routing"]


def test_the_content_of_a_placement_map_counts(files, tmp_path):
    found = []
    for place in (round_robin, contiguous):
        write_map(tmp_path / "map.json", place(32, 16), layers=(0,))
        found.append(stages(made({**files, "": tmp_path}, {"placement.file": "MAP"}))[0])
    assert found[0]["routing"] != found[1]["routing"] and found[0]["batch"] == found[1]["batch"]


def test_values_of_other_type_or_shape_have_other_digests():
    values = [
        1, True, 1.0, "1", None, [1], [[1]], {"a": 1}, {"a": 1.0}, {"b": 1}, [], {}, "", np.int64(1),
        np.array([1]), np.array([1], np.int32), np.array([[1]]), np.array([1.0]), [1, 2], [[1], 2], ["ab"], ["a", "b"],
    ]  # fmt: skip
    assert len({digest(value) for value in values}) == len(values)
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    with pytest.raises(TypeError):
        digest(object())
