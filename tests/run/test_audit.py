"""Every law of the audit, broken by hand: the auditor must see it."""

import dataclasses
from dataclasses import replace

import numpy as np
import pytest

from moesim.errors import InvariantError
from moesim.run import audit, simulate, steps
from tests.run.small import TOP_K, scenario


@pytest.fixture(scope="module")
def layer():
    """The arguments with which a small run had its only layer audited."""
    seen = []
    patch = pytest.MonkeyPatch()
    patch.setattr(steps, "audit_layer", lambda *arguments: seen.append(arguments))
    simulate(scenario("cluster.topology=h800-8x8-rail", "parallel.ep=16", "workload.tokens_per_rank=16"))
    patch.undo()
    return seen[0]


def audited(layer, load=None, trace=None, dropped=0):
    fabric, its_load, its_trace, tokens, top_k, _ = layer
    audit.audit_layer(fabric, load or its_load, trace or its_trace, tokens, top_k, dropped)


def with_phase(layer, name, **changes):
    trace = layer[2]
    return replace(trace, phases=trace.phases | {name: replace(trace.phases[name], **changes)})


def test_a_sound_layer_passes(layer):
    audited(layer)
    assert layer[3] * TOP_K == layer[1].copies.selections.sum()


def test_a_selection_that_no_slot_computed_is_seen(layer):
    slots = layer[1].slot_tokens.copy()
    slots[0] += 1
    with pytest.raises(InvariantError, match="computed by the slots"):
        audited(layer, load=replace(layer[1], slot_tokens=slots))


def test_a_lost_selection_is_seen_and_a_declared_drop_is_not_lost(layer):
    load = layer[1]
    selections = load.copies.selections.copy()
    where = np.unravel_index(selections.argmax(), selections.shape)
    selections[where] -= 1
    slots = load.slot_tokens.copy()
    slots[slots.argmax()] -= 1
    fewer = replace(load, slot_tokens=slots, copies=replace(load.copies, selections=selections))
    with pytest.raises(InvariantError, match="selections and dropped ones"):
        audited(layer, load=fewer)
    audited(layer, load=fewer, dropped=1)


def test_more_node_copies_than_rank_copies_are_seen(layer):
    copies = replace(layer[1].copies, node_copies=layer[1].copies.node_copies * 1000)
    with pytest.raises(InvariantError, match="ascending order"):
        audited(layer, load=replace(layer[1], copies=copies))


@pytest.mark.parametrize("name", ["dispatch", "combine"])
def test_a_flow_without_an_end_is_seen(layer, name):
    finish = layer[2].phases[name].finish_s.copy()
    finish[3] = np.nan
    with pytest.raises(InvariantError, match=f"{name}: a finish time is missing"):
        audited(layer, trace=with_phase(layer, name, finish_s=finish))


def test_a_flow_that_ends_before_it_starts_is_seen(layer):
    phase = layer[2].dispatch
    finish = phase.finish_s.copy()
    finish[0] = phase.start_s[0] / 2
    with pytest.raises(InvariantError, match="ends before its first byte"):
        audited(layer, trace=with_phase(layer, "dispatch", finish_s=finish))


def test_a_rank_that_leaves_before_its_flows_end_is_seen(layer):
    leave = layer[2].combine.leave_s.copy()
    leave[5] = layer[2].combine.enter_s[5]
    with pytest.raises(InvariantError, match="rank 5 leaves before its last flow ends"):
        audited(layer, trace=with_phase(layer, "combine", leave_s=leave))


@pytest.mark.parametrize("seconds", [-1e-6, 10.0])
def test_a_wait_longer_than_the_phase_or_negative_is_seen(layer, seconds):
    wait = layer[2].dispatch.wait_s.copy()
    wait[2] = seconds
    with pytest.raises(InvariantError, match="waits longer than it is in the phase"):
        audited(layer, trace=with_phase(layer, "dispatch", wait_s=wait))


def test_a_link_that_carries_more_than_it_can_is_seen_by_name(layer):
    fabric, load, trace, tokens, top_k, _ = layer
    slower = replace(fabric, capacity=fabric.capacity * 0.01)
    with pytest.raises(InvariantError, match=r"link \S+ carried more than its capacity"):
        audit.audit_layer(slower, load, trace, tokens, top_k, 0)


def test_bytes_that_go_out_and_do_not_come_back_are_seen(layer):
    flows = layer[2].combine.flows
    size = flows.size.copy()
    size[size.argmax()] -= 2048
    trace = with_phase(layer, "combine", flows=replace(flows, size=size))
    with pytest.raises(InvariantError, match="copies out and back"):
        audited(layer, trace=trace)


def test_components_that_do_not_sum_or_are_negative_are_seen():
    audit.audit_components({"a": 1.0, "b": 2.0}, 3.0, 0)
    with pytest.raises(InvariantError, match="components sum to"):
        audit.audit_components({"a": 1.0, "b": 2.0}, 3.0 + 1e-8, 0)
    with pytest.raises(InvariantError, match="negative"):
        audit.audit_components({"a": 4.0, "b": -1.0}, 3.0, 0)


def test_a_component_may_be_a_rounding_below_nothing_and_no_more():
    audit.audit_components({"a": 1.0, "b": -1e-12}, 1.0, 0)
    with pytest.raises(InvariantError, match="negative"):
        audit.audit_components({"a": 1.0, "b": -1.1e-12}, 1.0, 0)


def test_a_breach_in_a_run_stops_it(monkeypatch):
    honest = steps.layer_load

    def generous(*arguments):
        load = honest(*arguments)
        return dataclasses.replace(load, slot_tokens=load.slot_tokens + 1)

    monkeypatch.setattr(steps, "layer_load", generous)
    with pytest.raises(InvariantError):
        simulate(scenario())
