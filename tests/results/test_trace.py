"""The trace of a run: whole in the eyes of a viewer, and the same times, bytes and waits as the tables."""

import copy
import gzip
import json
from collections import Counter, defaultdict

import numpy as np
import pytest

from moesim.results import trace
from moesim.results.tables import Tables
from tests.results.trace_checker import faults
from tests.run.small import run

LAYERS = "workload.layers_simulated=2"
LATE = "schedule.start_offset=[0us, 0us, 0us, 0us, 0us, 400us, 0us, 0us]"


def made(*overrides):
    result = run(LAYERS, *overrides)
    return result, trace.chrome_trace(result.tables, result.summary)


@pytest.fixture(scope="module")
def late():
    return made(LATE)


def slices_of(made, *names):
    return [event for event in made["traceEvents"] if event["ph"] == "X" and (not names or event["name"] in names)]


def test_the_file_of_a_run_has_no_fault_and_is_small(tmp_path):
    run(LAYERS, LATE).save(tmp_path / "run")
    data = (tmp_path / "run/trace.json.gz").read_bytes()
    text = gzip.decompress(data)
    assert faults(json.loads(text), size=len(text)) == []
    assert len(data) < len(text) / 5


@pytest.mark.parametrize("overrides", [("workload.steps=2",), ("alltoall.algorithm=nccl-direct",), (LATE,)])
def test_the_trace_of_every_kind_of_run_has_no_fault(overrides):
    assert faults(made(*overrides)[1]) == []


def broken(event_of, **changes):
    def change(events):
        event = next(event for event in events if event_of(event))
        event |= {key: value(event) if callable(value) else value for key, value in changes.items()}

    return change


@pytest.mark.parametrize(
    ("said", "change"),
    [
        ("outlasts it", broken(lambda e: e["name"].startswith("wait"), ts=lambda e: e["ts"] + 0.1, dur=1e9)),
        ("has no name", lambda events: events.remove(next(e for e in events if e["name"] == "thread_name"))),
        ("holds nothing", broken(lambda e: e["name"] == "thread_name", tid=999)),
        ("goes back in time", broken(lambda e: e["ph"] == "s" and e["cat"] == "tokens", ts=1e9)),
        ("touches no slice", broken(lambda e: e["ph"] == "f", ts=1e9)),
        ("goes back", broken(lambda e: e["ph"] == "C", ts=1e9)),
        ("is made of", lambda events: events.remove(next(e for e in events if e["ph"] == "f"))),
        ("lasts 0", broken(lambda e: e["ph"] == "X", dur=0)),
        ("said 2 times", lambda events: events.append(dict(next(e for e in events if e["name"] == "process_name")))),
        ("lacks a field", lambda events: next(e for e in events if e["ph"] == "X").pop("args")),
    ],
)
def test_the_checker_sees_each_kind_of_fault(late, said, change):
    worse = copy.deepcopy(late[1])
    change(worse["traceEvents"])
    assert any(said in fault for fault in faults(worse))


def test_lanes_are_those_of_the_program_and_the_shared_expert_has_its_own(late):
    _, made = late
    names = {(e["pid"], e["tid"]): e["args"]["name"] for e in made["traceEvents"] if e["name"] == "thread_name"}
    assert set(names.values()) == {
        f"rank {rank} {lane}" for rank in range(8) for lane in ("compute", "network", "shared")
    }
    on = defaultdict(set)
    for event in slices_of(made):
        on[names[event["pid"], event["tid"]].split()[-1]].add(event["name"].split(" for ")[0])
    assert on == {
        "compute": {"gate", "permute", "expert_compute", "unpermute"},
        "network": {"dispatch", "combine", "wait"},
        "shared": {"shared_expert"},
    }
    assert [e["args"]["name"] for e in made["traceEvents"] if e["name"] == "process_name"] == ["node 0", "links"]


def test_slices_have_the_times_tokens_and_bytes_of_the_tables(late):
    result, made = late
    assert max(e["ts"] + e["dur"] for e in slices_of(made)) == pytest.approx(
        result.summary["step_time_s"] * 1e6, abs=1e-3
    )
    moved, ranks = result.tables["transfers"], result.tables["ranks"]
    for event in slices_of(made, "dispatch", "combine", "expert_compute"):
        rank, layer = event["tid"] // 3, event["args"]["layer"]
        here = ranks[(ranks["rank"] == rank) & (ranks.layer == layer)].iloc[0]
        assert event["args"]["tokens"] == here.tokens
        if event["name"] == "expert_compute":
            assert event["args"]["selections"] == here.computed_selections
            continue
        phase = moved[(moved.phase == event["name"]) & (moved.layer == layer)]
        assert event["args"]["sent_bytes"] == phase[phase.source_rank == rank].wire_bytes.sum()
        assert event["args"]["received_bytes"] == phase[phase.target_rank == rank].wire_bytes.sum()
    assert sum(e["args"]["sent_bytes"] for e in slices_of(made, "dispatch")) > 0


def test_arrows_lead_from_the_late_rank_to_all_who_wait_for_it(late):
    result, made = late
    spans = result.tables["spans"]
    waits = spans[(spans.layer == 0) & (spans.phase == "dispatch") & (spans.wait_s > 0)]
    assert set(waits.waited_on) == {5} and len(waits) == 7
    arrows = defaultdict(list)
    for event in made["traceEvents"]:
        if event["ph"] in "sf" and event["cat"] == "late":
            arrows[event["id"]].append(event)
    entry = spans[(spans.layer == 0) & (spans.phase == "dispatch") & (spans["rank"] == 5)].start_s.iloc[0]
    first = [(s, f) for s, f in arrows.values() if s["ts"] == pytest.approx(entry * 1e6, abs=1e-3)]
    assert {s["tid"] // 3 for s, _ in first} == {5}
    assert {f["tid"] // 3 for _, f in first} == {0, 1, 2, 3, 4, 6, 7}
    drawn = {e["tid"] // 3: e["dur"] for e in slices_of(made, "wait for rank 5") if e["args"]["layer"] == 0}
    longest = waits.set_index("rank").wait_s * 1e6
    for rank in longest.index:
        assert drawn[rank] == pytest.approx(longest[rank], abs=1e-3)


def test_arrows_follow_the_largest_transfers_of_each_layer_there_and_back(late):
    result, made = late
    moved = result.tables["transfers"]
    arrows = defaultdict(list)
    for event in made["traceEvents"]:
        if event["ph"] in "stf" and event["cat"] == "tokens":
            arrows[event["id"]].append(event)
    assert made["otherData"]["transfers_followed"] == len(arrows)
    for layer in (0, 1):
        followed = [ends for ends in arrows.values() if ends[0]["args"]["layer"] == layer]
        out = moved[(moved.phase == "dispatch") & (moved.layer == layer)].wire_bytes
        assert sorted(ends[0]["args"]["bytes"] for ends in followed) == sorted(out)[-32:]
        for start, expert, end in followed:
            source, target = (start["args"][name] for name in ("source", "target"))
            assert [event["tid"] for event in (start, expert, end)] == [3 * source + 1, 3 * target, 3 * source + 1]


def test_counters_are_the_use_of_each_class_and_fall_to_nothing_between_the_phases(late):
    result, made = late
    counters = [event for event in made["traceEvents"] if event["ph"] == "C"]
    assert {event["name"] for event in counters} == {
        f"{name} utilisation" for name in result.tables["link_series"].link_class.unique()
    }
    assert all(0 <= e["args"]["mean"] <= e["args"]["max"] <= 1.00001 for e in counters)
    last = {event["name"]: event["args"] for event in counters}
    assert all(args == {"mean": 0.0, "max": 0.0} for args in last.values())
    series = result.tables["link_series"]
    for name, rows in series.groupby("link_class"):
        most = max(event["args"]["max"] for event in counters if event["name"] == f"{name} utilisation")
        assert most == pytest.approx(rows.utilisation_max.max(), abs=1e-5)


def test_steps_follow_each_other_with_their_counters():
    _, made_of_two = made("workload.steps=2")
    ends = max(e["ts"] + e["dur"] for e in slices_of(made_of_two) if e["args"]["step"] == 0)
    assert min(e["ts"] for e in slices_of(made_of_two) if e["args"]["step"] == 1) >= ends - 1e-3
    assert max(event["ts"] for event in made_of_two["traceEvents"] if event["ph"] == "C") > ends


def changed(tables, name, **columns):
    return Tables({one: tables.columns(one) for one in tables} | {name: tables.columns(name) | columns})


def test_a_span_that_lasts_no_time_is_no_slice():
    result = run(LAYERS)
    spans = result.tables.columns("spans")
    lasting = np.flatnonzero(np.asarray(spans["end_s"]) - spans["start_s"] > 1e-9)
    end = np.array(spans["end_s"])
    end[lasting[0]] = spans["start_s"][lasting[0]]
    less = trace.chrome_trace(changed(result.tables, "spans", end_s=end), result.summary)
    counts = Counter(event["name"] in set(spans["phase"]) for event in slices_of(less))
    assert counts[True] == len(lasting) - 1
    assert faults(less) == []


def test_past_its_limit_it_says_how_many_slices_are_left_out(monkeypatch):
    monkeypatch.setattr(trace, "_EVENT_LIMIT", 10)
    _, less = made()
    assert sum("wait" not in event["name"] for event in slices_of(less)) == 10
    assert less["otherData"]["slices_left_out"] > 20


def test_above_256_ranks_slices_carry_the_bytes_of_both_phases(monkeypatch):
    monkeypatch.setattr(trace, "_RANK_PAIR_LIMIT", 7)
    result, made_large = made()
    ranks = result.tables["ranks"].set_index(["layer", "rank"])
    for event in slices_of(made_large, "dispatch"):
        there = ranks.loc[event["args"]["layer"], event["tid"] // 3]
        assert event["args"]["layer_sent_bytes"] == there.sent_bytes
    assert made_large["otherData"]["transfers_followed"] == 0 and faults(made_large) == []
