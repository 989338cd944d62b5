"""Faults of the simulated cluster against closed forms: every rank sends one stream to its twin on the other node."""

import json

import numpy as np
import pytest

import moesim
from moesim.errors import InputError
from moesim.fault_kinds import FAULT_KINDS, RETRY_S
from moesim.layer.faults import KINDS
from moesim.network import solve_flows
from moesim.report import render_run
from moesim.results.explain import explain_lines
from moesim.units import format_duration
from tests.run.small import SMALL, run, run_ids, scenario

# Constants without set-up and kernel work: what is slow is a wire.
RAIL = ("cluster.topology=h800-2x8-rail", "alltoall.calibration=deepep-normal-h800")
TOKENS = 2048
TWINS = np.repeat((2 * np.arange(16) + 16) % 32, TOKENS)[:, None]
US = 1e-6


@pytest.fixture(scope="module")
def twins(tmp_path_factory):
    """Run the stream with faults, as the scenario lists them; the result and where dispatch starts and ends."""
    folder, made = tmp_path_factory.mktemp("twins"), {}

    def with_faults(*faults, **blocks):
        key = json.dumps([faults, blocks])
        if key not in made:
            made[key] = run_ids(folder, TWINS, TOKENS, *RAIL, faults=list(faults), **blocks)
        return made[key]

    return with_faults


def finish(result, source, phase=0):
    """When the flow that a rank sends over its NIC, or gets back, ends."""
    flows = result.flows
    end = "source" if phase == 0 else "target"
    mine = (flows["phase"] == phase) & (flows[end] == source) & (flows["size"] > 0) & (flows["layer"] == 0)
    return float(flows["finish"][mine].max()), float(flows["start"][mine].min())


def at(start, after, until):
    """A window, so many seconds after a start, as the scenario has it."""
    return {"from": f"{start + after!r}s", "to": f"{start + until!r}s"}


def solved_again(result):
    names = ("capacity", "latency", "route_ptr", "route_links", "size", "start", "weight", "rate_cap")
    flows = {name: result.flows[name] for name in names if name in result.flows}
    events = [result.flows[f"event_{name}"] for name in ("time", "link", "capacity") if f"event_{name}" in result.flows]
    return solve_flows(**flows, capacity_events=tuple(events) or None)


def test_every_kind_has_a_row_and_a_function():
    assert list(KINDS) == list(FAULT_KINDS)


@pytest.mark.parametrize(("kind", "factor"), [("half_nic", 2.0), ("slow_nic", 5.0)])
def test_a_nic_at_a_share_of_its_rate_from_t1_to_t2_loses_that_share_of_the_time_between(twins, kind, factor):
    end, start = finish(twins(), 2)
    window = at(start, 10 * US, 40 * US)
    given = {"factor": factor} if kind == "slow_nic" else {}
    slow = twins({"kind": kind, "where": "n0.gpu2.nic", **window, **given})
    assert end - start > 40 * US
    got, _ = finish(slow, 2)
    assert got - end == pytest.approx(30 * US * (1 - 1 / factor), rel=1e-9)
    assert finish(slow, 5)[0] == pytest.approx(end, rel=1e-12)
    assert slow.summary["dispatch_time_s"] - twins().summary["dispatch_time_s"] == pytest.approx(got - end, rel=1e-9)
    n_flows = len(slow.flows["size"])
    np.testing.assert_allclose(solved_again(slow), slow.flows["finish"], rtol=1e-12)
    # Its use counts what it could carry over the phase, not its peak.
    flows = {name: column[slow.flows["layer"] == 0] for name, column in slow.flows.items() if len(column) == n_flows}
    moves = (flows["phase"] == 0) & (flows["size"] > 0)
    phase_s = flows["finish"][moves].max() - flows["start"][flows["phase"] == 0].min()
    rate = 50e9 * slow.explanation["alltoall"]["dispatch"]["nic_efficiency"]
    could = rate * (phase_s - 30 * US * (1 - 1 / factor))
    links = slow.tables["links"].query("layer == 0 and phase == 'dispatch' and link == 'n0.gpu2->rail2.leaf'")
    assert links.utilisation.iloc[0] == pytest.approx(float(links.wire_bytes.iloc[0]) / could, rel=1e-9)


def test_a_flap_stops_its_link_until_the_first_retry_that_finds_it_up(twins):
    end, start = finish(twins(), 2)
    flap = {"kind": "flap", "where": "n0.gpu2.nic", **at(start, 20 * US, 90 * US)}
    # Down for 70 us: attempts after 50 us and 100 us, or after 70 us itself.
    for retry, stalled in (("50us", 100 * US), ("70us", 70 * US), ("1ms", 1e-3)):
        got = finish(twins({**flap, "retry": retry}), 2)[0]
        assert got - end == pytest.approx(stalled, rel=1e-9)
    assert finish(twins(flap), 2)[0] - end == pytest.approx(RETRY_S, rel=1e-9)


def test_the_time_that_a_link_is_down_is_a_term_of_its_own_and_known_exactly(twins):
    _, start = finish(twins(), 2)
    down = twins({"kind": "flap", "where": "n0.gpu2.nic", **at(start, 20 * US, 90 * US), "retry": "1ms"})
    of = {term["name"]: term for term in down.explanation["terms"]["dispatch_time_s"]}
    assert of["NIC down"]["value"] == pytest.approx(1e-3, rel=1e-9)
    rate = 50e9 * down.explanation["alltoall"]["dispatch"]["nic_efficiency"]
    assert all(held["bytes_per_s"] == pytest.approx(rate, rel=1e-9) for held in of["held by NIC"]["of"])
    # How fast the NICs really are moves what they carry, as without the flap, and not the outage.
    for key in ("layer_time_s", "dispatch_time_s", "dispatch_kernel_time_s"):
        (low, high), (least, most) = down.intervals[key], twins().intervals[key]
        assert high - low == pytest.approx(most - least, rel=0.02)
    assert down.intervals["layer_time_s"][0] > 1e-3
    (link, seconds), usual = (down.explanation["faults"][1][key] for key in ("held_by", "held_s")), twins()
    assert link == "n0.gpu2->rail2.leaf"
    assert seconds == pytest.approx(1e-3 + finish(usual, 2)[0] - start, rel=1e-9)


def test_a_dead_rail_goes_over_the_next_one_which_then_carries_both(twins):
    end, start = finish(twins(), 3)
    dead = twins({"kind": "dead_rail", "where": "rail2"})
    (two, _), (three, began) = finish(dead, 2), finish(dead, 3)
    assert three - began == pytest.approx(2 * (end - start), rel=0.1)
    # Both share one NIC from the later start on; then whoever is left has it alone.
    size = dead.flows["size"][(dead.flows["phase"] == 0) & (dead.flows["source"] == 3)].max()
    rate = 50e9 * dead.explanation["alltoall"]["dispatch"]["nic_efficiency"]
    starts = sorted((finish(dead, 2)[1], began))
    alone = (starts[1] - starts[0]) * rate
    assert max(two, three) == pytest.approx(starts[1] + (2 * size - alone) / rate, rel=1e-9)
    assert finish(dead, 4)[0] == pytest.approx(finish(twins(), 4)[0], rel=1e-12)
    wire = dead.tables["links"].query("layer == 0 and phase == 'dispatch'").set_index("link").wire_bytes
    assert wire.get("n0.gpu2->rail2.leaf", 0.0) == 0.0
    assert wire["n0.gpu3->rail3.leaf"] == pytest.approx(2 * size)
    assert wire["n0.gpu2->n0.nvswitch"] == wire["n0.nvswitch->n0.gpu3"] == pytest.approx(size)
    # A rail is its leaf.
    assert twins({"kind": "dead_leaf", "where": "leaf2"}).summary == dead.summary


def test_a_dead_nic_takes_the_next_gpu_on_its_own_node_and_arrives_on_that_rail(twins):
    dead = twins({"kind": "dead_nic", "where": ["n0.gpu2.nic", "n0.gpu3.nic"]})
    wire = dead.tables["links"].query("layer == 0 and phase == 'dispatch'").set_index("link").wire_bytes
    one = wire["n0.gpu0->rail0.leaf"]
    assert wire["n0.gpu4->rail4.leaf"] == pytest.approx(3 * one)
    assert wire["rail4.leaf->n1.gpu4"] == pytest.approx(3 * one)
    assert wire["n1.nvswitch->n1.gpu2"] == wire["n1.nvswitch->n1.gpu3"] == pytest.approx(one)
    assert not any(wire.get(f"rail{i}.leaf->n1.gpu{i}", 0.0) for i in (2, 3))


def test_a_wrong_nic_is_shared_with_its_owner_and_crosses_rails(twins):
    wrong = twins({"kind": "wrong_nic", "where": "n0.gpu2", "nic": "n0.gpu5"})
    wire = wrong.tables["links"].query("layer == 0 and phase == 'dispatch'").set_index("link").wire_bytes
    one = wire["n0.gpu0->rail0.leaf"]
    assert wire["n0.gpu5->rail5.leaf"] == pytest.approx(2 * one)
    assert wire["rail5.leaf->spines"] == wire["spines->rail2.leaf"] == pytest.approx(one)
    assert wire["rail2.leaf->n1.gpu2"] == pytest.approx(one)


def test_what_lasts_all_run_is_the_same_as_a_window_around_it(twins):
    always = twins({"kind": "slow_nic", "where": "n0.gpu2", "factor": 3})
    window = twins({"kind": "slow_nic", "where": "n0.gpu2", "factor": 3, "to": "1s"})
    for key in ("layer_time_s", "dispatch_time_s", "combine_time_s"):
        assert window.summary[key] == pytest.approx(always.summary[key], rel=1e-12)
    assert always.explanation["topology"]["peak_bytes_per_s"]["nic"] == [50e9 / 3, 50e9]


def test_background_takes_its_share_and_a_gpu_twice_as_slow_computes_twice_as_long(twins):
    end, start = finish(twins(), 2)
    busy = twins({"kind": "background", "where": "rail2.leaf->n1.gpu2", "share": "60%"})
    assert (finish(busy, 2)[0] - start) == pytest.approx((end - start) / 0.4, rel=1e-9)
    slow = twins({"kind": "slow_gpu", "where": "n1.gpu2", "factor": 2})
    spans = [
        run.tables["spans"].query("layer == 0 and rank == 10 and phase == 'expert_compute'") for run in (twins(), slow)
    ]
    before, after = (float((one.end_s - one.start_s).sum()) for one in spans)
    assert after == pytest.approx(2 * before, rel=1e-9)
    terms = {one["name"]: one["value"] for one in slow.explanation["terms"]["expert_compute_time_max_s"]}
    assert terms["a slow GPU"] == pytest.approx(before, rel=0.2)


def test_faults_at_one_link_multiply_and_their_order_does_not_matter(twins):
    end, start = finish(twins(), 2)
    one = {"kind": "half_nic", "where": "n0.gpu2", **at(start, 10 * US, 60 * US)}
    other = {"kind": "slow_nic", "where": "n0.gpu2", "factor": 5, **at(start, 40 * US, 90 * US)}
    lost = (30 * 0.5 + 20 * 0.9 + 30 * 0.8) * US
    for both in ((one, other), (other, one)):
        assert finish(twins(*both), 2)[0] - end == pytest.approx(lost, rel=1e-9)


def test_each_fault_is_also_priced_alone_and_without(twins):
    nic = {"kind": "slow_nic", "where": "n0.gpu2", "factor": 2}
    late = {"kind": "jitter", "where": "n1.gpu3", "delay": "80us", "distribution": "fixed"}
    both = twins(nic, late)
    without, *alone, all_of_them = both.explanation["faults"]
    assert without["layer_time_s"] == pytest.approx(twins().summary["layer_time_s"], rel=1e-12)
    assert all_of_them["layer_time_s"] == both.summary["layer_time_s"]
    for one, fault in zip(alone, (nic, late), strict=True):
        assert one["layer_time_s"] == pytest.approx(twins(fault).summary["layer_time_s"], rel=1e-12)
        assert one["longer_by"] == pytest.approx(one["layer_time_s"] / without["layer_time_s"] - 1, rel=1e-9)
    assert [one["name"] for one in alone] == [
        "with slow_nic at n0.gpu2, factor 2 alone",
        "with jitter at n1.gpu3, delay 80us, distribution fixed alone",
    ]
    # The late rank is who all others wait for.
    assert all_of_them["waited_on"] == alone[1]["waited_on"] == "n1.gpu3"
    assert alone[1]["waited_on_s"] == pytest.approx(80 * US * 15 / 16, rel=0.05)


def test_the_page_and_explain_list_what_each_costs_and_whom_ranks_wait_for(twins):
    nic = {"kind": "slow_nic", "where": "n0.gpu2", "factor": 2}
    late = {"kind": "jitter", "where": "n1.gpu3", "delay": "80us", "distribution": "fixed"}
    page = render_run(twins(nic, late)).replace("<wbr>", "")
    lines = list(explain_lines(twins(nic, late), "layer_time_s"))
    assert "What the faults cost" in page and "What the faults cost" not in render_run(twins())
    for one in twins(nic, late).explanation["faults"]:
        assert one["name"] in page
        (line,) = [line for line in lines if line.startswith(f"  {one['name']}: ")]
        assert f"a layer of {format_duration(one['layer_time_s'])}" in line and one["bottleneck"] in line
    assert any(line.endswith("each and layer for n1.gpu3") for line in lines)
    # Who is late and what holds the others up are two things: the table has both, for the runs that have the fault.
    assert [one["held_by"] is not None for one in twins(nic, late).explanation["faults"]] == [False, True, False, True]
    assert "rail2.leaf->n0.gpu2 holds a flow for" in next(line for line in lines if line.startswith("  with slow_nic"))


def test_windows_are_on_the_clock_of_the_whole_run():
    steps = ("workload.steps=3", "alltoall.calibration=deepep-normal-h800")
    plain = run(*steps).tables["steps"].layer_time_s.tolist()
    begin = plain[0] * 1.02
    fault = f"{{kind: slow_gpu, where: n0.gpu1, factor: 4, from: {begin!r}s, to: {begin + plain[1] / 2!r}s}}"
    slow = run(*steps, f"faults=[{fault}]").tables["steps"].layer_time_s.to_numpy()
    assert slow[1] > 1.02 * plain[1]
    assert slow[[0, 2]] == pytest.approx([plain[0], plain[2]], rel=1e-9)


def test_jitter_is_drawn_by_the_seed_with_the_delay_as_its_mean():
    draw = [run("workload.steps=12", "faults=[{kind: jitter, delay: 30us}]", f"seed={seed}") for seed in (0, 1)]
    enter = [one.tables["spans"].query("phase == 'gate'").start_s.to_numpy() for one in draw]
    assert len(np.unique(enter[0])) == 12 * 8 and (enter[0] != enter[1]).all()
    assert enter[0].mean() == pytest.approx(30 * US, rel=4 / np.sqrt(len(enter[0])))


DIRECT = ("alltoall.algorithm=deepep-low-latency", "cluster.topology=h800-2x8-rail")


def test_a_masked_rank_has_no_tokens_and_gets_none():
    alive, masked = run(*DIRECT), run(*DIRECT, "faults=[{kind: rank_death, where: n0.gpu3, mode: mask}]")
    ranks = masked.tables["ranks"]
    dead = ranks.query("rank == 3")
    assert dead[["tokens", "sent_copies", "received_copies"]].to_numpy().sum() == 0
    # The other ranks' copies are those of before, but for the dead rank's experts.
    before = np.add.reduceat(alive.traffic["selections_layer0"], [0, 3, 4], axis=1)[:, [0, 2]]
    after = np.add.reduceat(masked.traffic["selections_layer0"], [0, 3, 4], axis=1)[:, [0, 2]]
    kept = np.arange(16) != 3
    np.testing.assert_array_equal(after[kept], before[kept])
    assert masked.summary["tokens"] == alive.summary["tokens"] * 15 // 16
    assert masked.summary["copies_per_token"] < 4


def test_replicas_take_over_the_experts_of_a_dead_rank_or_it_is_said_which_has_none():
    fault = "faults=[{kind: rank_death, where: n0.gpu3, mode: replicas}]"
    twice = ("placement.policy=eplb", "placement.redundant_experts=96")
    replaced = run(*DIRECT, *twice, fault)
    assert replaced.summary["copies_per_token"] == 4  # nothing is dropped
    experts = replaced.tables["experts"]
    assert experts.query("rank == 3").tokens.sum() == 0
    assert experts.tokens.sum() == 4 * replaced.summary["tokens"]
    with pytest.raises(InputError, match="no replica on a living rank"):
        run(*DIRECT, fault)


def test_an_aborted_job_says_what_is_lost(twins):
    lost = twins({"kind": "rank_death", "where": "n0.gpu3", "from": "100us"})
    said = next(note.text for note in lost.notes if note.kind == "degraded" and "rank_death" in note.text)
    assert "100 us into the run" in said and "100 s until the others notice" in said
    assert lost.summary["layer_time_s"] == twins().summary["layer_time_s"]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("{kind: slow_nic, where: n9, factor: 2}", "no place 'n9'"),
        ("{kind: slow_gpu, where: rail2.leaf, factor: 2}", "no GPU at"),
        ("{kind: dead_nic, where: [n0.nic]}", "leave no way from n0.gpu0 to n1.gpu0"),
        ("{kind: dead_nic, where: n0.gpu1.nvlink}", "no NIC at 'n0.gpu1.nvlink'"),
        ("{kind: ecmp_collision, where: leaf0}", "no choice of uplinks"),
        ("{kind: wrong_nic, where: n0.gpu1, nic: n1.gpu2}", "not one GPU of the node"),
        ("{kind: rank_death, where: n0.gpu1, mode: mask}", "sends over the GPUs of the same index"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(fault, said):
    with pytest.raises(InputError, match=said):
        run(*RAIL, f"faults=[{fault}]")


def test_collisions_put_all_of_a_leaf_on_one_uplink_and_a_dead_spine_on_the_others():
    wide = ("cluster.topology=h100-8x8-leaf-spine", "parallel.ep=32", "alltoall.algorithm=nccl-direct")

    def uplinks(*faults):
        links = run(*wide, f"faults=[{', '.join(faults)}]").tables["links"].query("layer == 0 and phase == 'dispatch'")
        up = links[links.link.str.startswith("leaf0->spine")].set_index("link").wire_bytes
        return up.to_dict(), links.query("link_class == 'leaf-spine'").wire_bytes.sum()

    (usual, total), (collided, same) = uplinks(), uplinks("{kind: ecmp_collision, where: leaf0}")
    assert min(usual.values()) > 0 and len(usual) == 4
    assert collided["leaf0->spine0"] == sum(usual.values()) and total == same
    dead, same = uplinks("{kind: dead_leaf, where: spine1}")
    assert dead["leaf0->spine1"] == 0 and total == same
    assert all(dead[name] > usual[name] for name in usual if name != "leaf0->spine1")


def test_whole_steps_with_faults_that_come_and_go_have_all_their_layers_on_the_clock():
    step = {"schedule": {"phase": "prefill", "overlap": "two-batch"}}
    workload = {**SMALL["workload"], "sequence_length": 16}
    model = {**SMALL["model"], "layers": 12}
    fault = {"kind": "slow_gpu", "where": "n0.gpu1", "factor": 3, "from": "100us", "to": "400us"}
    runs = [
        moesim.simulate(scenario(workload=workload, model=model, **step, faults=faults))
        for faults in ([], [fault], [{"kind": "slow_gpu", "where": "n0.gpu1", "factor": 3}])
    ]
    usual, some, always = (one.summary["step_time_s"] for one in runs)
    assert runs[1].summary["layers"] > runs[0].summary["layers"]
    assert usual < some < always


@pytest.mark.jit
def test_a_fault_while_experts_move_slows_the_move():
    moves = ("workload.steps=4", "placement.policy=eplb", "placement.redundant_experts=8",
             "placement.rebalance={every: 2, policy: eplb, mode: blocking}")  # fmt: skip
    fault = "faults=[{kind: slow_nic, where: n0.gpu1.nvlink, factor: 20}]"
    plain, slow = run(*moves), run(*moves, fault)
    assert slow.summary["step_time_s"] > plain.summary["step_time_s"]
