"""Runs within a tolerance: near exact, the limits hold and are told; without one nothing changes."""

from types import SimpleNamespace

import numpy as np
import pytest

import moesim
from moesim.errors import InputError
from moesim.measure import notes
from moesim.network.stepped import stepping
from moesim.results.explain import explain_lines
from tests.run.small import run, scenario

NCCL = "alltoall.algorithm=nccl-direct"
STEPS = "network.tolerance=2%"


@pytest.fixture
def many(monkeypatch):
    """Count the few flows of a small run as many."""
    monkeypatch.setattr(notes, "STEPS_PAY", 1)
    monkeypatch.setattr(stepping, "FEW", 4)


def same(one, other):
    assert one.summary == other.summary
    for name in one.flows:
        np.testing.assert_array_equal(one.flows[name], other.flows[name])


def told(result):
    return [note for note in result.notes if "network.tolerance" in note.text]


def test_without_a_tolerance_nothing_is_told_of_it():
    result = run(NCCL)
    assert not told(result)
    assert "tolerance" not in result.explanation


def test_few_flows_follow_every_event_whatever_the_tolerance():
    result = run(NCCL, STEPS)
    same(result, run(NCCL))
    (note,) = told(result)
    assert note.kind == "info" and "2 % is not used" in note.text and "exactly" in note.text


@pytest.mark.parametrize(
    "overrides",
    [
        (NCCL,),
        ("alltoall.algorithm=deepep-normal", "cluster.topology=h800-8x8-rail", "parallel.ep=16"),
        ("alltoall.algorithm=deepep-low-latency", "schedule.start_offset={distribution: uniform, scale: 20us}"),
        (NCCL, "workload.layers_simulated=3", "schedule.other_time=5us"),
    ],
    ids=["pairs", "trees", "late ranks", "layers"],
)
def test_a_run_in_steps_is_near_the_exact_one_and_its_limits_hold(overrides, many):
    exact, got = run(*overrides), moesim.simulate(scenario(*overrides, STEPS))
    for name in ("layer_time_s", "step_time_s"):
        assert got.summary[name] == pytest.approx(exact.summary[name], rel=0.02)
    for name in ("nvlink_wire_bytes", "nic_wire_bytes", "lower_bound_s"):
        assert got.summary[name] == exact.summary[name]
    np.testing.assert_array_equal(got.flows["size"], exact.flows["size"])
    (note,) = told(got)
    assert note.kind == "estimated"
    limits = got.explanation["tolerance"]
    assert limits["tolerance"] == 0.02
    assert 0 < limits["estimated_error"]["layer"] < 0.2
    for phase, number in (("dispatch", 0), ("combine", 1)):
        assert f"later in {phase}" in note.text
        of_phase = exact.flows["phase"] == number
        ends = [one.flows["finish"][of_phase].max() for one in (got, exact)]
        begin = exact.flows["start"][of_phase].min()
        assert abs(ends[0] - ends[1]) <= limits["estimated_error"][phase] * (ends[1] - begin)
        assert limits["proven_later"][phase] >= 0
        lines = "\n".join(explain_lines(got, f"{phase}_time_s"))
        assert "estimated error" in lines and "proven, given when flows start" in lines
    assert "estimated error" in "\n".join(explain_lines(got, "layer_time_s"))


def test_the_proven_limits_hold_for_the_starts_that_the_run_had(many):
    got = moesim.simulate(scenario(NCCL, STEPS, "schedule.start_offset={distribution: uniform, scale: 20us}"))
    flows, limits = got.flows, got.explanation["tolerance"]
    names = ("capacity", "latency", "route_ptr", "route_links", "weight", "size", "start", "rate_cap")
    exact = moesim.network.solve_flows(**{name: flows[name] for name in names})
    for phase, number in (("dispatch", 0), ("combine", 1)):
        rows = (flows["phase"] == number) & (flows["size"] > 0)
        begin, end = flows["start"][rows].min(), flows["finish"][rows].max()
        off = (exact[rows].max() - end) / (end - begin)
        assert -limits["proven_earlier"][phase] - 1e-9 <= off <= limits["proven_later"][phase] + 1e-9


def test_limits_are_shares_of_the_phases_and_the_layers_length_and_the_widest_count():
    # A dispatch from 1 s to 3 s and a combine from 4 s to 8 s, of a layer of 10 s; the flow of no bytes does not count.
    def phase(start, end, estimated, earliest, latest):
        limits = SimpleNamespace(estimated_s=estimated, earliest_s=earliest, latest_s=latest)
        times = {"start_s": np.array([0.0, start, start + 1]), "finish_s": np.array([90.0, end - 1, end])}
        return SimpleNamespace(limits=limits, flows=SimpleNamespace(size=np.array([0.0, 5.0, 5.0])), **times)

    ledger = notes.ToleranceLedger(0.02)
    for part in (1.0, 0.5):
        dispatch = phase(1.0, 3.0, part * 2.4e-4, 3.0 - part * 0.1, 3.0 + part * 0.02)
        combine = phase(4.0, 8.0, part * 0.2, 8.0 - part * 2.4e-4, 8.0 + part * 1.2)
        ledger.add_layer(SimpleNamespace(phases={"dispatch": dispatch, "combine": combine}, length_s=10.0))
    found = ledger.explanation()
    assert found["estimated_error"] == pytest.approx({"dispatch": 1.2e-4, "combine": 0.05, "layer": 0.020024})
    assert found["proven_earlier"] == pytest.approx({"dispatch": 0.05, "combine": 6e-5})
    assert found["proven_later"] == pytest.approx({"dispatch": 0.01, "combine": 0.3})
    (note,) = ledger.notes()
    assert "to either side: layer 2 %, dispatch 0.012 %, combine 5 %." in note.text
    assert "5 % earlier to 1 % later in dispatch, less than 0.01 % earlier to 30 % later in combine" in note.text


def test_equal_runs_in_steps_are_equal(many):
    same(*(moesim.simulate(scenario(NCCL, STEPS)) for _ in range(2)))


def test_the_tolerance_is_a_percentage_or_a_number():
    for text in ("0.1%", "0.001", "0.10 %"):
        assert scenario(f"network.tolerance={text}").network.tolerance == 0.001


@pytest.mark.parametrize("value", ["20%", "0.001%", "-0.1", "none", "true", "1us"])
def test_other_tolerances_are_refused_where_they_stand(value):
    with pytest.raises(InputError, match=r"network\.tolerance"):
        scenario(f"network.tolerance={value}")
