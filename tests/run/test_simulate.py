"""What the keys of a scenario do to a run, checked against closed forms and brute force."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import moesim
from moesim.errors import InputError
from moesim.network import FlowNetwork
from tests.run.small import EXPERTS, RANKS, SMALL, TOP_K, recorded, run, run_ids, scenario, small_recording

NO_GROUPS = ("routing.groups=1", "routing.top_groups=1")
RAIL = "cluster.topology=h800-8x8-rail"
DIRECT = "alltoall.algorithm=nccl-direct"
LATE_LAST = "schedule.start_offset=[0us, 0us, 0us, 0us, 0us, 0us, 0us, 500us]"


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    return small_recording(tmp_path_factory.mktemp("recording") / "made-up.npz")


# ---- the same again ----


def test_one_scenario_simulated_twice_gives_the_same_summary_and_another_seed_another():
    first, second = (json.dumps(moesim.simulate(scenario()).summary) for _ in range(2))
    assert first == second
    other = run("seed=1").summary
    assert other["expert_load_max_over_mean"] != json.loads(first)["expert_load_max_over_mean"]


# ---- copies ----


def test_copies_on_a_tiny_workload_agree_with_counting_by_hand(tmp_path):
    rng = np.random.default_rng(3)
    ranks, per_node = 16, 8
    ids = np.array([rng.permutation(EXPERTS)[:3] for _ in range(32)])
    result = run_ids(tmp_path, ids, 2, RAIL, "parallel.ep=16", DIRECT)
    home = np.arange(EXPERTS) // (EXPERTS // ranks)
    selections, distinct_ranks, distinct_nodes = (
        np.zeros((ranks, ranks)),
        np.zeros((ranks, ranks)),
        np.zeros((ranks, 2)),
    )
    for token, row in enumerate(ids):
        for expert in row:
            selections[token // 2, home[expert]] += 1
        for rank in {home[expert] for expert in row}:
            distinct_ranks[token // 2, rank] += 1
        for node in {home[expert] // per_node for expert in row}:
            distinct_nodes[token // 2, node] += 1
    assert (result.traffic["selections_layer0"] == selections).all()
    assert (result.traffic["rank_copies_layer0"] == distinct_ranks).all()
    assert (result.traffic["node_copies_layer0"] == distinct_nodes).all()
    assert result.summary["copies_per_token"] == 3
    assert result.summary["rank_copies_per_token"] == distinct_ranks.sum() / 32
    assert result.summary["node_copies_per_token"] == distinct_nodes.sum() / 32
    sent = result.tables["transfers"].query("phase == 'dispatch'")
    for row in sent.itertuples():
        assert row.copies == selections[row.source_rank, row.target_rank]
    assert sent.copies.sum() == selections.sum() - np.trace(selections)
    loads = np.bincount(ids.ravel(), minlength=EXPERTS)
    assert (result.tables["experts"].tokens == loads).all()
    assert result.summary["expert_load_max_over_mean"] == pytest.approx(loads.max() / loads.mean())
    per_rank = np.bincount(home, weights=loads)
    assert result.summary["rank_load_max_over_mean"] == pytest.approx(per_rank.max() / per_rank.mean())


def test_normal_mode_sends_a_token_once_per_node_over_the_nic_and_direct_once_per_selection(tmp_path):
    # every token starts on node 0 and selects 3 experts of rank 8, on node 1
    ids = np.tile(np.array([16, 17, 0]), (16, 1))
    tokens = [4, 4, 4, 4, *([0] * 12)]
    normal = run_ids(tmp_path, ids, tokens, RAIL, "parallel.ep=16")
    direct = run_ids(tmp_path, ids, tokens, RAIL, "parallel.ep=16", DIRECT)
    out, back = 1024 + 4 * 8, 2 * 1024  # FP8 with its scales, BF16
    normal_out, normal_back = (-(-(payload + 8 + 8 * 3) // 16) * 16 for payload in (out, back))
    assert normal.summary["nic_wire_bytes"] == 16 * (normal_out + normal_back)
    assert direct.summary["nic_wire_bytes"] == 2 * 16 * (out + back)


def test_a_direct_transfer_takes_setup_plus_bytes_over_the_algorithm_s_rate(tmp_path):
    ids = np.tile(np.array([16, 17]), (64, 1))  # 2 ranks of 16 experts: all of rank 0's tokens go to rank 1
    result = run_ids(tmp_path, ids, [64, 0], DIRECT, "parallel.ep=2", "alltoall.calibration=nccl-direct-h800")
    there, back = (result.tables["transfers"].query(f"phase == '{phase}'").iloc[0] for phase in ("dispatch", "combine"))
    assert (there.copies, there.source_rank, there.target_rank) == (128, 0, 1)
    assert there.finish_s - there.start_s == pytest.approx(128 * (1024 + 32) / 160e9, rel=1e-9)
    assert back.finish_s - back.start_s == pytest.approx(128 * 2048 / 160e9, rel=1e-9)
    entered = result.tables["spans"].query("phase == 'dispatch'").start_s.max()
    assert there.start_s - entered == pytest.approx(24e-6, rel=1e-9)


# ---- routing ----


def test_v3_with_zero_bias_and_no_groups_selects_exactly_v1_s_experts():
    v3, v1 = run("routing.bias=zero", *NO_GROUPS), run("routing.kind=v1", *NO_GROUPS)
    assert (v3.tables["experts"].tokens == v1.tables["experts"].tokens).all()
    assert (v3.traffic["selections_layer0"] == v1.traffic["selections_layer0"]).all()
    for key in v1.summary:
        if "load" in key or "copies" in key or "imbalance" in key or key == "layer_time_s":
            assert v3.summary[key] == v1.summary[key], key


@pytest.mark.parametrize("top_groups", [1, 2, 3])
def test_node_groups_bound_the_nodes_and_rank_groups_the_ranks_that_a_token_reaches(top_groups):
    where = (
        RAIL,
        "parallel.ep=32",
        "workload.tokens_per_rank=16",
        f"routing.top_groups={top_groups}",
        "routing.top_k=1",
    )
    nodes = run(*where, "routing.groups=node", "model.n_experts=64", "routing.top_k=4")
    assert (nodes.traffic["node_copies_layer0"].sum(axis=1) <= 16 * top_groups).all()
    assert nodes.explanation["router"]["groups_are"] == "node"
    ranks = run(*where, "routing.groups=rank", "model.n_experts=128", f"routing.top_k={2 * top_groups}")
    assert (ranks.traffic["rank_copies_layer0"].sum(axis=1) <= 16 * top_groups).all()
    assert nodes.summary["gate_mass_lost"] > 0 and ranks.summary["gate_mass_lost"] > 0


def test_node_groups_follow_a_round_robin_placement():
    result = run(RAIL, "parallel.ep=16", "routing.groups=node", "routing.top_groups=1", "placement.policy=round_robin")
    experts = result.tables["experts"]
    assert (experts["rank"] == experts.expert % 16).all()
    assert result.summary["node_copies_per_token"] == 1


def test_the_bias_is_zero_recorded_or_from_a_file(recording, tmp_path):
    bias = moesim.recording_format.read_recording(recording).bias(2)
    one_layer = {"workload": {"recording": {"name": str(recording), "layers": [2]}, "tokens_per_rank": 16}}
    loads = {}
    np.save(tmp_path / "bias.npy", bias)
    (tmp_path / "bias.txt").write_text("\n".join(str(float(value)) for value in bias))
    np.save(tmp_path / "hot.npy", np.eye(1, EXPERTS, 9)[0] * 100)
    for name in ("recorded", "zero", "bias.npy", "bias.txt", "hot.npy"):
        source = str(tmp_path / name) if "." in name else name
        result = moesim.simulate(scenario(f"routing.bias={source}", *NO_GROUPS, **one_layer))
        loads[name] = result.tables["experts"].tokens.tolist()
    assert loads["recorded"] == loads["bias.npy"] == loads["bias.txt"] != loads["zero"]
    assert loads["hot.npy"][9] == 16 * RANKS


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("1 2 3", "give 32 finite numbers"),
        ("one two", "not readable as numbers"),
        (" ".join(["nan"] * EXPERTS), "finite"),
        ("", "give 32"),
    ],
)
def test_a_bias_file_of_the_wrong_kind_is_refused(tmp_path, content, said):
    (tmp_path / "bias.txt").write_text(content)
    with pytest.raises(InputError, match=said):
        moesim.simulate(scenario(f"routing.bias={tmp_path / 'bias.txt'}"))


def test_a_truncated_bias_array_is_refused(tmp_path):
    np.save(tmp_path / "bias.npy", np.zeros(EXPERTS))
    whole = (tmp_path / "bias.npy").read_bytes()
    for length in (0, 5, 60, len(whole) - 1):
        (tmp_path / "bias.npy").write_bytes(whole[:length])
        with pytest.raises(InputError):
            moesim.simulate(scenario(f"routing.bias={tmp_path / 'bias.npy'}"))


# ---- models and placements ----


def test_258_experts_on_64_ranks_are_placed_four_or_five_to_a_rank():
    blocks = {"model": {"preset": "document-v3"}, "routing": {"kind": "v3"}, "cluster": {"topology": "h800-8x8-rail"}}
    workload = {"synthetic": {"kind": "uniform"}, "tokens_per_rank": 2}
    result = moesim.simulate(scenario(workload=workload, losses={"form": "document"}, **blocks))
    per_rank = np.bincount(result.tables["experts"]["rank"], minlength=64)
    assert sorted(set(per_rank)) == [4, 5] and (per_rank == 5).sum() == 2
    assert result.summary["copies_per_token"] == 8 and result.summary["ranks"] == 64


@pytest.mark.parametrize(("preset", "kind", "top_k"), [("document-v1", "v1", 4), ("document-v2", "v2", 10)])
def test_the_document_s_models_run_with_their_own_top_k(preset, kind, top_k):
    workload = {"synthetic": {"kind": "uniform"}, "tokens_per_rank": 2}
    blocks = {"model": {"preset": preset}, "routing": {"kind": kind}, "cluster": {"topology": "h800-8x8-rail"}}
    result = moesim.simulate(scenario(workload=workload, **blocks))
    assert result.summary["copies_per_token"] == top_k


def test_replicas_even_out_the_ranks_and_every_expert_keeps_its_tokens():
    plain = run()
    spread = run("placement.policy=eplb", "placement.redundant_experts=8")
    slots = spread.tables["experts"]
    assert len(slots) == EXPERTS + 8 and (np.bincount(slots["rank"]) == 5).all()
    tokens = slots.groupby("expert").tokens.sum()
    assert (tokens.to_numpy() == plain.tables["experts"].tokens.to_numpy()).all()
    assert spread.summary["rank_load_max_over_mean"] < plain.summary["rank_load_max_over_mean"]
    assert spread.summary["expert_load_max_over_mean"] == plain.summary["expert_load_max_over_mean"]


def test_slots_that_do_not_fill_the_ranks_evenly_are_refused_with_the_number_that_does():
    with pytest.raises(InputError, match="use 0 redundant experts, or that plus a multiple of 8"):
        run("placement.policy=eplb", "placement.redundant_experts=3")


def test_with_one_expert_per_rank_the_rank_load_is_the_expert_load():
    summary = run("model.n_experts=8", "routing.groups=8", "routing.top_k=2", "routing.top_groups=2").summary
    assert summary["rank_load_max_over_mean"] == summary["expert_load_max_over_mean"]


def test_ranks_beyond_the_experts_receive_nothing():
    ranks = run(RAIL, "parallel.ep=40", "workload.tokens_per_rank=8", *NO_GROUPS).tables["ranks"]
    assert (ranks.received_copies[EXPERTS:] == 0).all() and (ranks.computed_selections[EXPERTS:] == 0).all()
    assert (ranks.received_copies[:EXPERTS] > 0).all()


def test_a_single_rank_keeps_its_tokens_at_home():
    summary = run("parallel.ep=1", *NO_GROUPS).summary
    assert summary["nvlink_wire_bytes"] == summary["nic_wire_bytes"] == 0
    assert summary["rank_copies_per_token"] == summary["node_copies_per_token"] == 1
    assert summary["dispatch_algbw_bytes_per_s"] is None and summary["bottleneck_utilisation"] is None
    assert summary["combine_time_s"] == summary["wait_time_s"] == 0


def test_fewer_ranks_than_the_cluster_use_the_first_gpus():
    ranks = run(RAIL, "parallel.ep=12", *NO_GROUPS).tables["ranks"]
    assert ranks["rank"].tolist() == list(range(12)) and ranks.node.tolist() == [0] * 8 + [1] * 4


# ---- algorithms ----


def test_direct_permutes_before_dispatch_and_deepep_after_it():
    for result, first, second in ((run(DIRECT), "permute", "dispatch"), (run(), "dispatch", "permute")):
        spans = result.tables["spans"].query("rank == 0").set_index("phase")
        assert spans.end_s[first] <= spans.start_s[second]


def test_low_latency_mode_has_no_permute_and_no_layout():
    low = run("alltoall.algorithm=deepep-low-latency", "schedule.phase=decode").summary
    assert low["permute_time_s"] == low["unpermute_time_s"] == 0
    assert low["dispatch_time_s"] == pytest.approx(low["dispatch_kernel_time_s"], rel=1e-9)
    assert low["dispatch_deepep_rdma_bytes_per_s"] > 0 and low["dispatch_deepep_nvl_bytes_per_s"] is None


TWO_NODES = (RAIL, "parallel.ep=16", "workload.layers_simulated=2", *NO_GROUPS)


def test_wire_bandwidth_is_bytes_on_the_busiest_link_from_the_first_byte_to_the_last():
    result = run(*TWO_NODES)
    links, transfers = result.tables["links"], result.tables["transfers"]
    for phase in ("dispatch", "combine"):
        for name in ("nvlink", "nic"):
            rates = []
            for layer, moved in transfers[transfers.phase == phase].groupby("layer"):
                wires = links[(links.phase == phase) & (links.layer == layer) & (links.link_class == name)]
                rates.append(wires.wire_bytes.max() / (moved.finish_s.max() - moved.start_s.min()))
            assert result.summary[f"{phase}_{name}_wire_bytes_per_s"] == pytest.approx(np.mean(rates))
            assert np.mean(rates) < wires.capacity_bytes_per_s.max()
    assert run().summary["dispatch_nic_wire_bytes_per_s"] is None  # one node


def test_no_rank_computes_faster_than_the_roofline():
    result = run(*TWO_NODES)
    ranks, peaks = result.tables["ranks"], result.explanation["topology"]
    # Up and down GEMM of 3 x 1,024 x 256 weights: two FLOPs each for every selection.
    assert ranks.expert_flops.to_numpy() == pytest.approx(2 * 3 * 1024 * 256 * ranks.computed_selections.to_numpy())
    at_peak = ranks.expert_flops / peaks["gemm_flops_per_s"]
    from_memory = ranks.expert_moved_bytes / peaks["memory_bytes_per_s"]
    assert (ranks.expert_gemm_s >= np.maximum(at_peak, from_memory)).all() and (from_memory > 0).all()


def test_the_busiest_links_over_time_are_as_busy_as_their_class_at_its_busiest():
    result = run(*TWO_NODES)
    busy, series = result.tables["busy_links"], result.tables["link_series"]
    assert set(busy.layer) == {0} and busy.utilisation.between(0, 1 + 1e-9).all()
    of_class = series[series.layer == 0].groupby(["link_class", "time_s"]).utilisation_max.max()
    most = busy.groupby(["link_class", "time_s"]).utilisation.max()
    assert most[of_class.index].max() == pytest.approx(of_class.max())
    assert (most[of_class.index] <= of_class + 1e-9).all()


def test_an_uncached_dispatch_pays_layout_notify_and_cpu_and_a_cached_one_does_not():
    fresh, cached = run().summary, run("alltoall.cached_handle=true").summary
    overhead = fresh["dispatch_time_s"] - fresh["dispatch_kernel_time_s"]
    assert overhead == pytest.approx(50e-6 + 32e-6 + 100e-6, rel=1e-9)
    assert cached["dispatch_time_s"] == pytest.approx(cached["dispatch_kernel_time_s"], rel=1e-9)


def test_bf16_dispatch_moves_more_bytes_than_fp8():
    assert run("alltoall.dispatch_dtype=bf16").summary["nvlink_wire_bytes"] > run().summary["nvlink_wire_bytes"]


# ---- when ranks arrive ----


def test_everybody_waits_for_a_late_rank():
    on_time, late = run(), run(LATE_LAST)
    # All flows of an uncached normal-mode dispatch start when the last rank is in: the layer ends that much later.
    entries = on_time.tables["spans"].query("phase == 'dispatch'").start_s
    slack = entries.max() - entries[entries.index[-1]]
    assert late.summary["layer_time_s"] == pytest.approx(on_time.summary["layer_time_s"] + 500e-6 - slack, rel=1e-6)
    waits = late.tables["spans"].query("phase == 'dispatch' and rank < 7")
    assert (waits.waited_on == 7).all() and (waits.wait_s > 480e-6).all()
    assert late.tables["spans"].query("phase == 'dispatch' and rank == 7").wait_s.iloc[0] == pytest.approx(0, abs=1e-12)


def test_one_offset_for_all_changes_nothing_but_the_clock():
    assert run("schedule.start_offset=10us").summary["layer_time_s"] == pytest.approx(
        run().summary["layer_time_s"], rel=1e-9
    )


def test_scattered_arrivals_follow_the_seed():
    scattered = "schedule.start_offset={distribution: lognormal, sigma: 0.5, scale: 50us}"
    entry = [
        run(scattered, f"seed={seed}").tables["spans"].query("phase == 'gate'").start_s.to_numpy() for seed in (0, 1)
    ]
    assert len(set(entry[0])) == RANKS and not np.allclose(entry[0], entry[1])
    assert np.exp(np.log(entry[0]).mean()) == pytest.approx(50e-6, rel=0.6)


def test_a_list_of_offsets_of_another_length_is_refused():
    with pytest.raises(InputError, match="2 offsets for 8 ranks"):
        run("schedule.start_offset=[0us, 1us]")


def test_other_work_between_layers_delays_the_step_by_just_that():
    three = run("workload.layers_simulated=3").summary
    with_attention = run("workload.layers_simulated=3", "schedule.other_time=30us").summary
    assert with_attention["step_time_s"] - three["step_time_s"] == pytest.approx(2 * 30e-6, rel=1e-6)
    assert with_attention["layer_time_s"] == pytest.approx(three["layer_time_s"], rel=1e-9)


def test_a_step_is_as_long_as_its_first_entry_to_its_last_end():
    result = run("workload.layers_simulated=3")
    spans = result.tables["spans"]
    assert result.summary["step_time_s"] == pytest.approx(spans.end_s.max() - spans.start_s.min(), rel=1e-12)


@pytest.mark.parametrize(
    "long",
    [
        ("schedule.start_offset=[0us, 0us, 0us, 0us, 0us, 0us, 0us, 10s]",),
        ("schedule.other_time=1s", "workload.layers_simulated=4"),
    ],
)
def test_a_long_run_keeps_its_curves_within_memory(monkeypatch, long):
    kept = []
    record = FlowNetwork.record_utilisation

    def recorded_width(network, bucket_s, links):
        kept.append((bucket_s, len(links)))
        record(network, bucket_s, links)

    monkeypatch.setattr(FlowNetwork, "record_utilisation", recorded_width)
    result = moesim.simulate(scenario(*long))
    # The first is the run itself; those after it are its first step again, with other constants.
    assert len(kept) > 0
    assert all(result.summary["step_time_s"] / bucket_s * links < 10_000_000 for bucket_s, links in kept)
    assert len(result.tables["link_series"]) > 0


def test_curves_of_link_use_hold_the_bytes_of_the_links_table():
    result = run("workload.tokens_per_rank=2048", "model.hidden=4096")
    alltoall, links = result.explanation["alltoall"], result.tables["links"]
    for phase in ("dispatch", "combine"):
        curve = result.tables["link_series"].query("phase == @phase and link_class == 'nvlink'")
        assert len(curve) > 20
        of_class = links.query("phase == @phase and link_class == 'nvlink'")
        width = np.diff(curve.time_s).mean()
        carried = curve.utilisation_mean.sum() * width * of_class.capacity_bytes_per_s.sum()
        expected = of_class.wire_bytes.sum() / alltoall[phase]["nvlink_efficiency"]
        assert carried == pytest.approx(expected, rel=1e-6)


def test_transfers_of_large_clusters_are_kept_per_node_pair(monkeypatch):
    where = (RAIL, "parallel.ep=24", "workload.tokens_per_rank=8", *NO_GROUPS)
    pairs = run(*where).tables["transfers"]
    monkeypatch.setattr("moesim.measure.layer_tables.RANK_PAIR_LIMIT", 16)
    nodes = moesim.simulate(scenario(*where)).tables["transfers"]
    for phase in ("dispatch", "combine"):
        fine, coarse = pairs[pairs.phase == phase], nodes[nodes.phase == phase]
        by_node = fine.groupby([fine.source_rank // 8, fine.target_rank // 8])
        expected = by_node.copies.sum()
        found = coarse.set_index(["source_rank", "target_rank"])
        assert found.copies.to_dict() == expected.to_dict() and len(coarse) == 9
        assert found.start_s.to_dict() == by_node.start_s.min().to_dict()
        assert found.finish_s.to_dict() == by_node.finish_s.max().to_dict()


# ---- tokens ----


def test_a_rank_without_tokens_sends_nothing_and_computes_for_the_others():
    result = run("workload.tokens_per_rank=[0, 5, 64, 1, 0, 3, 2, 9]")
    ranks = result.tables["ranks"].set_index("rank")
    assert ranks.tokens.tolist() == [0, 5, 64, 1, 0, 3, 2, 9]
    assert ranks.sent_copies[0] == ranks.sent_copies[4] == 0
    assert ranks.received_copies[0] > 0 and result.summary["tokens"] == 84


def test_steps_are_different_batches_and_averages_go_over_all_their_layers():
    result, first = run("workload.steps=2", "workload.layers_simulated=2"), run("workload.layers_simulated=2")
    steps = result.tables["steps"]
    assert steps[["step", "layer"]].to_numpy().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert steps.expert_load_max_over_mean.nunique() == 4
    assert result.summary["tokens"] == first.summary["tokens"] and result.summary["layers"] == 4
    spans = result.tables["spans"].groupby("step")
    assert result.summary["step_time_s"] == pytest.approx((spans.end_s.max() - spans.start_s.min()).mean(), rel=1e-12)
    assert spans.get_group(0).end_s.max() == first.tables["spans"].end_s.max()


def test_given_experts_have_loads_but_no_losses(tmp_path):
    ids = np.array([np.random.default_rng(i).permutation(EXPERTS)[:2] for i in range(16)])
    result = run_ids(tmp_path, ids, 2)
    losses = ("expert_loss", "device_loss", "communication_loss", "sequence_loss", "z_loss", "gate_mass_lost")
    assert all(result.summary[name] is None for name in losses)
    assert result.tables["experts"].gate_mass.isna().all() and result.tables["steps"].z_loss.isna().all()
    assert result.summary["expert_load_max_over_mean"] > 1


def test_given_experts_of_another_width_than_top_k_are_refused(tmp_path):
    np.save(tmp_path / "ids.npy", np.array([[0, 1, 2]]))
    with pytest.raises(InputError, match=f"3 experts per token, routing.top_k is {TOP_K}"):
        moesim.simulate(scenario(workload={"expert_ids": str(tmp_path / "ids.npy"), "tokens_per_rank": 1}))


def test_counts_give_loads_in_their_proportion(tmp_path):
    counts = np.linspace(1, 5, EXPERTS)
    rows = "".join(f"0,{expert},{count}\n" for expert, count in enumerate(counts))
    (tmp_path / "counts.csv").write_text("layer,expert,count\n" + rows)
    result = moesim.simulate(scenario(workload={"counts": str(tmp_path / "counts.csv"), "tokens_per_rank": 512}))
    loads = result.tables["experts"].tokens / (512 * RANKS * TOP_K / EXPERTS)
    np.testing.assert_allclose(loads, counts / counts.mean(), atol=0.12)
    assert result.summary["z_loss"] is None and any("estimated" in note.text for note in result.notes)


def test_the_bias_moves_from_step_to_step_where_it_is_asked_for():
    steps = ("workload.steps=20", "losses.bias_rate=0.03", "parallel.ep=2", *NO_GROUPS)
    moving = run(*steps, "routing.update_bias=true").tables["steps"].max_violation
    still = run(*steps).tables["steps"].max_violation
    assert moving[0] == still[0] and moving[1:].ne(still[1:]).all()
    assert moving[-5:].mean() < 0.6 * still[-5:].mean()


# ---- recordings ----


def test_recorded_layers_are_cycled_and_it_is_said(recording):
    result = moesim.simulate(recorded(recording, "workload.layers_simulated=5"))
    assert result.tables["steps"].recorded_layer.tolist() == [1, 2, 1, 2, 1]
    assert any("5 layers simulated by cycling 2 recorded ones" in note.text for note in result.notes)
    first, third = (result.tables["experts"].query(f"layer == {layer}").tokens for layer in (0, 2))
    assert first.tolist() == third.tolist()


def test_a_recording_brings_a_row_per_training_step_and_layer(recording):
    result = moesim.simulate(recorded(recording))
    training = result.tables["training"]
    assert training.training_step.tolist() == [0, 0, 10, 10, 20, 20] and training.layer.tolist() == [1, 2] * 3
    source = moesim.recording_format.read_recording(recording)
    load = source.counts[2, 1]
    assert training.expert_load_max_over_mean.iloc[-1] == pytest.approx(load.max() / load.mean())
    np.testing.assert_allclose(training.expert_loss, source.losses[:, :, 0].ravel())
    assert (training.bias_spread[:2] == 0).all() and (training.bias_spread[2:] > 0).all()


def test_the_recorded_router_is_no_counterfactual_and_any_other_is(recording):
    own = moesim.simulate(recorded(recording))
    assert own.summary["counterfactual"] is False
    assert not [note for note in own.notes if note.kind == "counterfactual"]
    for change, said in (
        (("routing.bias=zero",), "bias off"),
        (("routing.kind=v1", *NO_GROUPS), "kind v1 on logits trained with v3"),
        (("routing.top_k=2",), "top_k 2"),
        (("routing.top_groups=8",), "no group limit on logits trained with 4 of 8 groups"),
    ):
        other = moesim.simulate(recorded(recording, *change))
        assert other.summary["counterfactual"] is True
        assert any(said in note.text for note in other.notes if note.kind == "counterfactual"), change


def test_an_earlier_training_step_has_its_own_logits(recording):
    source = {"recording": {"name": str(recording), "step": 10}, "tokens_per_rank": 4}
    result = moesim.simulate(recorded(recording, workload=source))
    assert any("training step 10" in note.text for note in result.notes)


def test_more_tokens_than_recorded_come_by_block_bootstrap(recording):
    workload = {"recording": {"name": str(recording), "layers": [2]}, "tokens_per_rank": 100, "domains": "all"}
    result = moesim.simulate(recorded(recording, workload=workload))
    assert result.summary["tokens"] == 800 and result.summary["distinct_tokens"] <= 256
    assert any("block bootstrap" in note.text for note in result.notes)


def test_a_recording_of_other_experts_is_resampled_and_it_is_said(recording):
    sizes = {"model": {"preset": "deepseek-v3", "n_experts": 64, "hidden": 1024, "expert_hidden": 256}}
    result = moesim.simulate(recorded(recording, **sizes))
    assert len(result.tables["experts"].query("layer == 0")) == 64
    assert set(result.explanation["workload"]["resampled"]) == {"1", "2"}
    fewer = {"model": {"preset": "deepseek-v3", "n_experts": 16, "hidden": 1024, "expert_hidden": 256}}
    assert moesim.simulate(recorded(recording, **fewer)).summary["copies_per_token"] == TOP_K


def test_a_plain_file_of_logits_is_routed_as_it_is(tmp_path):
    logits = np.random.default_rng(0).normal(size=(2, 64, EXPERTS)).astype(np.float32)
    np.savez(tmp_path / "mine.npz", logits=logits)
    np.save(tmp_path / "mine.npy", logits[0])
    workload = {"recording": {"name": str(tmp_path / "mine.npz")}, "tokens_per_rank": 8}
    result = moesim.simulate(scenario("routing.bias=zero", *NO_GROUPS, workload=workload))
    for layer in (0, 1):
        ids = np.argsort(-logits[layer], axis=1)[:, :TOP_K]
        loads = result.tables["experts"].query(f"layer == {layer}").tokens
        assert (loads.to_numpy() == np.bincount(ids.ravel(), minlength=EXPERTS)).all()
    workload["recording"] = {"name": str(tmp_path / "mine.npy")}
    alone = moesim.simulate(scenario("routing.bias=zero", *NO_GROUPS, workload=workload))
    assert alone.summary["layers"] == 1 and "training" not in alone.tables and not alone.summary["counterfactual"]


# ---- parts that do not fit ----


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("parallel.ep=9",), "ep is 9 but .* has 8 GPUs"),
        (("routing.groups=node", "routing.top_groups=2"), "top_groups is 2 but there are 1 groups"),
        (("workload.tokens_per_rank=[1, 2]",), "2 values for 8 ranks"),
        (("compute.table=b400",), "b400"),
    ],
)
def test_parts_that_do_not_fit_the_cluster_are_refused_by_name(overrides, said):
    with pytest.raises(InputError, match=said):
        run(*overrides)


def test_nodes_of_different_sizes_are_refused(tmp_path):
    whole = (Path(__file__).parents[2] / "topologies/two-nodes-explicit.yaml").read_text()
    (tmp_path / "uneven.yaml").write_text("".join(line for line in whole.splitlines(True) if "a.gpu1" not in line))
    with pytest.raises(InputError, match="different numbers of GPUs"):
        moesim.simulate(scenario(*NO_GROUPS, cluster={"topology": str(tmp_path / "uneven.yaml")}))


def test_groups_too_small_for_top_k_are_refused_once_their_number_is_known():
    with pytest.raises(InputError, match=r"routing\.top_groups"):
        run("cluster.topology=h800-8x8-rail", "routing.groups=node", "routing.top_groups=1", "routing.top_k=12")


def test_more_flows_than_a_file_should_hold_are_left_out_and_it_is_said(monkeypatch):
    monkeypatch.setattr(sys.modules["moesim.measure.flow_export"], "_FLOW_LIMIT", 20)
    result = moesim.simulate(scenario("workload.layers_simulated=2"))
    assert result.flows == {} and any("32 flows are too many to export" in note.text for note in result.notes)


def test_a_model_without_shared_experts_has_none_to_hide():
    sizes = {"preset": "deepseek-v3", "n_experts": EXPERTS, "hidden": 1024, "expert_hidden": 256, "n_shared": 0}
    result = moesim.simulate(scenario(model=sizes))
    shared = result.tables["spans"].query("phase == 'shared_expert'")
    assert (shared.start_s == shared.end_s).all()


def test_all_to_all_rates_are_labelled_as_nobody_s_measurement_of_this_cluster():
    notes = run().notes
    assert any(note.kind == "estimated" and "all-to-all rates are" in note.text for note in notes)
    assert any("not of your cluster" in note.text for note in notes)


def test_weights_that_do_not_fit_a_gpu_are_said():
    whole = {"preset": "deepseek-v3", "n_experts": 256}  # 102.6 GB on each of 8 GPUs of 80 GB
    said = [note for note in moesim.simulate(scenario(model=whole)).notes if "does not fit: 102.6 GB" in note.text]
    assert [note.kind for note in said] == ["degraded"]
    assert not any("does not fit" in note.text for note in run().notes)


def test_the_resolved_scenario_of_a_result_gives_the_result_again(tmp_path):
    first = run("workload.layers_simulated=2")
    (tmp_path / "again.yaml").write_text(first.scenario_yaml)
    assert moesim.simulate(moesim.load_scenario(tmp_path / "again.yaml")).summary == first.summary


def test_variants_are_left_to_the_command_line():
    with_variants = moesim.load_scenario({**SMALL, "variants": {"v1": {"routing": {"kind": "v1", "top_k": 2}}}})
    assert moesim.simulate(with_variants).summary == run().summary
