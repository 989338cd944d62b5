"""Laws that every run keeps, whatever was simulated."""

import json
import math

import numpy as np
import pytest

from moesim.network import solve_flows
from moesim.results.definitions import COMPONENTS, DEFINITIONS, SOURCES, SUMMARY
from moesim.scenario import SUMMARY_KEYS
from tests.run.small import EXPERTS, TOP_K, run

NO_GROUPS = ("routing.groups=1", "routing.top_groups=1")
RAIL = "cluster.topology=h800-8x8-rail"
LATE = "schedule.start_offset=[0us, 1us, 40us, 3us, 0us, 5us, 6us, 300us]"
SITUATIONS = {
    "one node, normal mode": (),
    "direct": ("alltoall.algorithm=nccl-direct",),
    "decode in low-latency mode": ("alltoall.algorithm=deepep-low-latency", "schedule.phase=decode"),
    "V1": ("routing.kind=v1", *NO_GROUPS),
    "V2 limited to ranks": ("routing.kind=v2", "routing.groups=rank", "routing.top_groups=2"),
    "two nodes, nodes as groups": (RAIL, "parallel.ep=16", "routing.groups=node", "routing.top_groups=1"),
    "the last node is half empty": (RAIL, "parallel.ep=12", *NO_GROUPS),
    "more ranks than experts": (RAIL, "parallel.ep=40", "workload.tokens_per_rank=8", *NO_GROUPS),
    "one rank": ("parallel.ep=1", *NO_GROUPS),
    "one rank, direct": ("parallel.ep=1", "alltoall.algorithm=nccl-direct", *NO_GROUPS),
    "an explicit topology": ("cluster.topology=two-nodes-explicit",),
    "ragged batches": ("workload.tokens_per_rank=[0, 5, 64, 1, 0, 3, 2, 9]",),
    "a single token": ("workload.tokens_per_rank=[0, 0, 1, 0, 0, 0, 0, 0]",),
    "replicas": ("placement.policy=eplb", "placement.redundant_experts=8"),
    "late ranks": (LATE,),
    "late ranks, cached layout": (LATE, "alltoall.cached_handle=true", "workload.layers_simulated=3"),
    "late ranks, direct": (LATE, "alltoall.algorithm=nccl-direct", "workload.layers_simulated=2"),
    "three layers with attention": ("workload.layers_simulated=3", "schedule.other_time=30us"),
    "two steps of two layers": ("workload.layers_simulated=2", "workload.steps=2"),
    "BF16 both ways": ("alltoall.dispatch_dtype=bf16",),
}
LOSSES = ("expert_loss", "device_loss", "communication_loss", "sequence_loss", "z_loss")
COLUMNS = {
    "steps": ("layer_time_s", *COMPONENTS, *LOSSES, "expert_load_max_over_mean", "max_violation", "gate_mass_lost"),
    "ranks": (
        *("rank", "node", "tokens", "sent_copies", "received_copies", "sent_bytes", "received_bytes"),
        *("compute_s", "transfer_s", "wait_s", "finish_s"),
    ),
    "experts": ("expert", "slot", "rank", "tokens", "gate_mass"),
    "links": (
        *("phase", "link", "link_class", "source", "target", "capacity_bytes_per_s", "wire_bytes"),
        *("busy_s", "utilisation"),
    ),
    "busy_links": ("link", "link_class", "time_s", "utilisation"),
    "link_series": ("time_s", "link_class", "utilisation_mean", "utilisation_max"),
    "transfers": ("phase", "source_rank", "target_rank", "copies", "wire_bytes", "start_s", "finish_s"),
    "spans": ("rank", "lane", "phase", "start_s", "end_s", "waited_on"),
}


@pytest.fixture(params=SITUATIONS.values(), ids=SITUATIONS.keys(), scope="module")
def result(request):
    return run(*request.param)


def test_the_summary_has_every_number_and_none_is_nan(result):
    assert list(result.summary) == list(SUMMARY)
    json.dumps(result.summary, allow_nan=False)
    for key, value in result.summary.items():
        assert value is None or isinstance(value, str | bool | int) or math.isfinite(value), key


def test_tables_begin_with_step_layer_and_micro_batch_and_hold_finite_numbers(result):
    assert set(result.tables) == set(COLUMNS)
    for name, columns in COLUMNS.items():
        frame = result.tables[name]
        assert list(frame.columns[:3]) == ["step", "layer", "micro_batch"]
        assert not set(columns) - set(frame.columns), name
        for column in frame.columns.drop("waited_on", errors="ignore"):
            values = frame[column]
            if values.dtype.kind == "f":
                assert np.isfinite(values).all(), f"{name}.{column}"


def test_components_sum_to_the_layer_time(result):
    parts = sum(result.summary[name] for name in COMPONENTS)
    assert parts == pytest.approx(result.summary["layer_time_s"], rel=1e-9)
    steps = result.tables["steps"]
    np.testing.assert_allclose(steps[list(COMPONENTS)].sum(axis=1), steps["layer_time_s"], rtol=1e-9)
    assert (steps[list(COMPONENTS)] >= -1e-15).all(axis=None)


def test_mean_and_slowest_rank_of_a_part_are_those_of_the_ranks_spans(result):
    spans = result.tables["spans"]
    own = spans.end_s - spans.start_s - spans.wait_s
    # What of the shared expert outlasts dispatch delays the routed experts.
    dispatched = spans[spans.phase == "dispatch"].set_index(["step", "layer", "rank"]).end_s
    shared = spans[spans.phase == "shared_expert"].set_index(["step", "layer", "rank"]).end_s
    exposed = (shared - dispatched).clip(lower=0)
    for phase in ("dispatch", "expert_compute", "combine"):
        of_ranks = own[spans.phase == phase].set_axis(exposed.index)
        of_ranks = of_ranks + exposed if phase == "expert_compute" else of_ranks
        by_layer = of_ranks.groupby(["step", "layer"])
        steps = result.tables["steps"]
        for over, want in (("mean", by_layer.mean()), ("max", by_layer.max())):
            key = f"{phase}_time_{over}_s"
            np.testing.assert_allclose(steps[key], want, rtol=1e-9)
            assert result.summary[key] == pytest.approx(want.mean(), rel=1e-9)
        of_critical = of_ranks.loc[list(zip(steps.step, steps.layer, steps.critical_rank, strict=True))]
        np.testing.assert_allclose(steps[f"{phase}_time_s"], of_critical, rtol=1e-9, atol=1e-15)
        assert (steps[f"{phase}_time_max_s"] >= steps[f"{phase}_time_s"] * (1 - 1e-12)).all()


def test_no_layer_beats_its_lower_bound(result):
    steps = result.tables["steps"]
    assert (steps["lower_bound_s"] > 0).all()
    assert (steps["lower_bound_s"] <= steps["layer_time_s"]).all()


def test_the_summary_averages_the_layers(result):
    steps = result.tables["steps"]
    for key in set(steps.columns) & set(SUMMARY):
        if result.summary[key] is not None:
            assert result.summary[key] == pytest.approx(steps[key].mean(), rel=1e-9), key


def test_shares_of_compute_time_by_source_sum_to_one(result):
    assert sum(result.summary[f"source_{source}_share"] for source in SOURCES) == pytest.approx(1, abs=1e-12)


def test_no_link_carries_more_than_its_capacity(result):
    links = result.tables["links"]
    assert (links.wire_bytes <= links.capacity_bytes_per_s * links.busy_s * (1 + 1e-9)).all()
    assert (links.utilisation <= 1 + 1e-9).all()
    assert (result.tables["link_series"].utilisation_max <= 1 + 1e-6).all()


def test_every_selection_is_computed_and_every_copy_comes_back(result):
    copies = result.summary["tokens"] * TOP_K
    for _, slots in result.tables["experts"].groupby(["step", "layer"]):
        assert slots.tokens.sum() == copies
        assert set(slots.expert) == set(range(EXPERTS))
    for _, ranks in result.tables["ranks"].groupby(["step", "layer"]):
        assert ranks.tokens.sum() == result.summary["tokens"]
        assert ranks.computed_selections.sum() == copies
        assert ranks.sent_copies.sum() == ranks.received_copies.sum()
    transfers = result.tables["transfers"]
    there, back = (transfers[transfers.phase == phase] for phase in ("dispatch", "combine"))
    key = ["step", "layer"]
    out = there.groupby([*key, "source_rank", "target_rank"]).copies.sum()
    home = back.groupby([*key, "target_rank", "source_rank"]).copies.sum()
    assert out.to_dict() == home.to_dict()


def test_bytes_on_sender_ports_add_up_to_the_summary(result):
    links = result.tables["links"]
    ranks = result.tables["ranks"]
    from_gpus = links[links.source.str.contains("gpu")]
    for link_class in ("nvlink", "nic"):
        per_layer = from_gpus[from_gpus.link_class == link_class].wire_bytes.sum() / result.summary["layers"]
        assert per_layer == pytest.approx(result.summary[f"{link_class}_wire_bytes"], rel=1e-9, abs=1e-6)
    assert ranks.sent_bytes.sum() == pytest.approx(from_gpus.wire_bytes.sum(), rel=1e-9, abs=1e-6)


def test_a_lane_does_one_thing_at_a_time_and_a_layer_after_the_other(result):
    spans = result.tables["spans"]
    assert (spans.end_s >= spans.start_s).all()
    for _, lane in spans.groupby(["step", "rank", "lane"]):
        ordered = lane.sort_values(["layer", "start_s", "end_s"])
        assert (ordered.start_s.to_numpy()[1:] >= ordered.end_s.to_numpy()[:-1]).all()


def test_waits_are_within_their_phase_and_name_another_rank(result):
    spans = result.tables["spans"]
    assert (spans.wait_s <= (spans.end_s - spans.start_s) * (1 + 1e-9)).all()
    waiting = spans[spans.wait_s > 0]
    assert waiting.waited_on.notna().all()
    assert (waiting.waited_on != waiting["rank"]).all()


def test_the_layer_runs_from_the_first_entry_to_the_last_end(result):
    spans = result.tables["spans"]
    steps = result.tables["steps"].set_index(["step", "layer"])
    for which, of_layer in spans.groupby(["step", "layer"]):
        row = steps.loc[which]
        assert row.layer_time_s == pytest.approx(of_layer.end_s.max() - of_layer.start_s.min(), rel=1e-12)
        last = of_layer.groupby("rank").end_s.max()
        assert last[row.critical_rank] == last.max()


def test_solving_the_exported_flows_again_gives_the_finish_times_of_the_run(result):
    flows = result.flows
    names = ("capacity", "latency", "route_ptr", "route_links", "size", "start", "weight", "rate_cap")
    again = solve_flows(**{name: flows[name] for name in names if name in flows})
    np.testing.assert_allclose(again, flows["finish"], rtol=1e-9)


NOT_LIMITED = ("name", "bottleneck", "seed", "counterfactual", "model_layers", "groups", "contended_link")
"""What of a summary says which run it was, not how it went."""


def test_thresholds_know_the_numbers_of_the_summary():
    numbers = {key for key in DEFINITIONS if key not in NOT_LIMITED}
    assert set(SUMMARY_KEYS) == numbers
    units = {"B/s": "_bytes_per_s", "s": "_s", "B": "_bytes"}
    for key, definition in DEFINITIONS.items():
        suffix = next((end for end in ("_bytes_per_s", "_s", "_bytes") if key.endswith(end)), "")
        assert units.get(definition.unit, "") == suffix, key
