"""Runs whose tokens are followed in chunks, whose router is measured in one pass, whose flows are per port."""

from dataclasses import replace

import numpy as np
import pytest

import moesim
from moesim.errors import InputError
from moesim.layer import destinations, selection
from moesim.layer.parts import build_parts
from moesim.layer.routed_layer import route_layer
from moesim.layer.token_batches import open_workload
from moesim.routing import RouterSpec, gate_mass_lost, threads
from moesim.workload import listed
from tests.run.small import RANKS, run, scenario

TWO_NODES = {
    "cluster": {"topology": "h800-8x8-rail"},
    "parallel": {"ep": 16},
    "alltoall": {"algorithm": "deepep-normal"},
}


def routed(scene):
    parts = build_parts(scene)
    batch = open_workload(parts).batch(0)
    return route_layer(parts, batch, batch.layers[0], None)


@pytest.mark.parametrize("ragged", [False, True])
def test_chunks_and_threads_change_nothing(monkeypatch, ragged):
    counts = [0, 70, 1, 0, 33, 64, 5, 0] if ragged else 64
    synthetic = {"kind": "lognormal", "sigma": 0.8, "sequence_length": 16}
    # Which replica a token takes hangs on its number in the batch, not in its chunk.
    replicas = ("placement.policy=eplb", "placement.redundant_experts=8", "placement.replica_choice=hash")
    scene = scenario(*replicas, workload={"synthetic": synthetic, "tokens_per_rank": counts})
    results = []
    for chunk, cores in ((1 << 16, 1), (1, 1), (40, 3), (100, 2)):
        monkeypatch.setattr(destinations, "CHUNK_TOKENS", chunk)
        monkeypatch.setattr(threads, "n_threads", lambda cores=cores: cores)
        results.append(routed(scene))
    for other in results[1:]:
        for name in ("selections", "rank_copies", "node_copies"):
            assert (getattr(other.copies, name) == getattr(results[0].copies, name)).all()
        assert (other.slot_tokens == results[0].slot_tokens).all()
        assert other.slot_gate_mass == pytest.approx(results[0].slot_gate_mass, rel=1e-12)
        assert other.figures == results[0].figures
    assert results[0].copies.selections.sum() == 4 * (sum(counts) if ragged else 64 * RANKS)


def test_threads_change_no_bit_of_the_gate_mass(monkeypatch):
    monkeypatch.setattr(destinations, "CHUNK_TOKENS", 40)
    masses = []
    for cores in (1, 4):
        monkeypatch.setattr(threads, "n_threads", lambda cores=cores: cores)
        masses.append(routed(scenario()).slot_gate_mass)
    assert (masses[0] == masses[1]).all()


@pytest.mark.jit
@pytest.mark.parametrize("bias", [None, 0.05])
@pytest.mark.parametrize("kind", ["v2", "v3"])
def test_routing_and_measuring_apart_gives_the_figures_of_one_pass(kind, bias, monkeypatch):
    parts = build_parts(scenario("model.n_experts=64", f"routing.kind={kind}", "routing.top_groups=2"))
    batch = open_workload(parts).batch(0)
    distinct = batch.distinct_tokens
    # Distinct tokens of several copies each: an average over tokens differs from one over distinct tokens.
    weight = np.random.default_rng(2).integers(1, 9, distinct)
    rows = np.repeat(np.arange(distinct, dtype=np.int32), weight)
    batch = replace(batch, rank_tokens=np.array([len(rows)]), part=listed(rows, rows // 32))
    if bias is not None:
        bias = (bias * np.random.default_rng(1).normal(size=64)).astype(np.float32)
    if kind == "v2":
        bias = None
    fast = selection.select_experts(parts, batch, 0, bias)
    monkeypatch.setattr(selection, "fused_pass_takes", lambda *_: False)
    slow = selection.select_experts(parts, batch, 0, bias)
    assert (fast.expert_ids == slow.expert_ids).all() and (fast.gates == slow.gates).all()
    assert fast.figures == pytest.approx(slow.figures, rel=1e-6, abs=1e-9)
    lost = gate_mass_lost(batch.logits[0], parts.router, slow.expert_ids)
    assert slow.figures["gate_mass_lost"] == pytest.approx((lost @ weight) / weight.sum(), rel=1e-12)
    assert slow.figures["gate_mass_lost"] > 0.01
    assert fast.figures["expert_loss"] != slow.figures["expert_loss"], "float32 in one pass, float64 apart"


def test_flows_per_port_carry_the_same_bytes_and_say_that_they_are_an_estimate():
    pairs = moesim.simulate(scenario("cluster.flows=pairs", **TWO_NODES))
    ports = moesim.simulate(scenario("cluster.flows=ports", **TWO_NODES))
    for name in ("nvlink_wire_bytes", "nic_wire_bytes", "lower_bound_s", "rank_copies_per_token", "expert_loss"):
        assert ports.summary[name] == pytest.approx(pairs.summary[name], rel=1e-12)
    assert ports.summary["layer_time_s"] == pytest.approx(pairs.summary["layer_time_s"], rel=0.1)
    columns = ["sent_copies", "received_copies", "computed_selections", "sent_bytes", "received_bytes"]
    assert np.allclose(ports.tables["ranks"][columns], pairs.tables["ranks"][columns], rtol=1e-12)
    assert any(note.kind == "estimated" and "per port" in note.text for note in ports.notes)
    assert not any("per port" in note.text for note in pairs.notes)
    assert not ports.traffic and not len(ports.tables["transfers"])
    assert pairs.traffic and len(pairs.tables["transfers"])


def test_ports_are_taken_by_themselves_above_the_stated_number_of_ranks(monkeypatch):
    assert not destinations.uses_ports(build_parts(scenario()))
    monkeypatch.setattr(destinations, "MOST_PAIR_RANKS", 7)
    assert destinations.uses_ports(build_parts(scenario()))
    assert not destinations.uses_ports(build_parts(scenario("cluster.flows=pairs")))


def test_ports_of_an_irregular_cluster_are_refused():
    with pytest.raises(InputError, match="has no regular ports"):
        moesim.simulate(scenario("cluster.flows=ports", cluster={"topology": "two-nodes-explicit"}))


def test_a_result_with_flows_per_port_is_saved_and_read_back(tmp_path):
    result = moesim.simulate(scenario("cluster.flows=ports", **TWO_NODES))
    again = moesim.load_result(result.save(tmp_path / "out"))
    assert again.summary == result.summary and len(again.tables["transfers"]) == 0


def test_small_runs_are_routed_by_the_plain_scan():
    assert not selection.fused_pass_takes(RouterSpec("v3", 32, 4), np.dtype(np.float32), False)
    assert run().summary["gate_mass_lost"] >= 0
