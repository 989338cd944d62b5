"""Faults where several expert-parallel groups are on one cluster, against closed forms and runs of one group."""

import json

import numpy as np
import pytest

import moesim
from moesim.errors import InputError
from moesim.sweeps import sweep
from tests.run.small import SMALL
from tests.run.test_faults import TOKENS, TWINS, US, at, finish, solved_again

# Of four nodes every group has two, in turns: n0 and n2, n1 and n3. Each rank of the first group streams to its twin on
# the other node; the second group draws tokens of its own from these.
TWO = {
    "parallel": {"ep": 16, "dp": 32, "group_placement": "striped"},
    "cluster": {"topology": "h800-4x8-rail"},
    "alltoall": {"calibration": "deepep-normal-h800"},
}
LATE = {"kind": "jitter", "where": "n3.gpu5", "delay": "900us", "distribution": "fixed"}


@pytest.fixture(scope="module")
def twins(tmp_path_factory):
    """Run both groups' streams with faults, and some blocks of the scenario replaced."""
    ids, made = tmp_path_factory.mktemp("groups") / "ids.npy", {}
    np.save(ids, TWINS.astype(np.int32))
    workload = {"expert_ids": str(ids), "tokens_per_rank": TOKENS}
    blocks = {**SMALL, **TWO, "workload": workload, "routing": {"kind": "v1", "top_k": 1, "groups": 1}}

    def with_faults(*faults, **others):
        key = json.dumps([faults, others])
        if key not in made:
            made[key] = moesim.simulate(moesim.load_scenario({**blocks, "faults": list(faults), **others}))
        return made[key]

    return with_faults


def of_group(result, number):
    """The flows of one group, as a run of it alone has them."""
    mine = result.flows["group"] == number
    names = ("layer", "phase", "source", "target", "size", "start", "finish")
    return type("OfGroup", (), {"flows": {name: result.flows[name][mine] for name in names}})


def test_a_nic_at_half_rate_for_a_while_delays_its_group_by_half_of_that_and_the_other_not_at_all(twins):
    usual, (end, start) = twins(), finish(of_group(twins(), 1), 2)
    slow = twins({"kind": "half_nic", "where": "n1.gpu2", **at(start, 10 * US, 40 * US)})
    assert finish(of_group(slow, 1), 2)[0] - end == pytest.approx(15 * US, rel=1e-9)
    assert finish(of_group(slow, 0), 2)[0] == pytest.approx(finish(of_group(usual, 0), 2)[0], rel=1e-12)


def test_an_uplink_that_others_take_half_of_for_a_while_delays_all_groups_on_it_by_half_of_that(tmp_path):
    # Two equal groups: every token goes to their ranks 0 and 2, of which the first are below leaf0.
    np.save(tmp_path / "ids.npy", np.tile(np.array([0, 16], np.int32), (4 * TOKENS, 1)))
    blocks = {
        **SMALL,
        "parallel": {"ep": 4, "dp": 8, "group_placement": "striped"},
        "cluster": {"topology": "h100-8x2-leaf-spine-8to1"},
        "routing": {"kind": "v1", "top_k": 2, "groups": 1},
        "workload": {"expert_ids": str(tmp_path / "ids.npy"), "tokens_per_rank": TOKENS},
        "alltoall": {"algorithm": "nccl-direct"},
    }
    usual = moesim.simulate(moesim.load_scenario(blocks))
    leaf0 = [f"leaf0->spine{i}" for i in range(4)]
    window = {"from": "200us", "to": "800us"}
    fault = {"kind": "background", "where": leaf0, "share": "50%", **window}
    busy = moesim.simulate(moesim.load_scenario({**blocks, "faults": [fault]}))
    moves, below = (usual.flows["phase"] == 0) & (usual.flows["size"] > 0), usual.flows["source"] < 2
    crosses = below != (usual.flows["target"] < 2)
    up, down, later = moves & crosses & below, moves & crosses & ~below, busy.flows["finish"] - usual.flows["finish"]
    assert usual.flows["group"][up].tolist() == [0, 0, 1, 1]
    assert (usual.flows["start"][up] < 200 * US).all() and (usual.flows["finish"][up] > 800 * US).all()
    np.testing.assert_allclose(later[up], 300 * US, rtol=1e-9)
    np.testing.assert_allclose(later[down], 0.0, atol=1e-15)
    np.testing.assert_allclose(solved_again(busy), busy.flows["finish"], rtol=1e-9)


def test_a_slow_gpu_is_slow_in_its_own_group_alone(twins):
    # The late rank makes the second group the slowest, whose tables these are.
    usual, slow = twins(LATE), twins(LATE, {"kind": "slow_gpu", "where": "n3.gpu2", "factor": 2})
    before_s, after_s = (run.tables["groups"].layer_time_s.to_numpy() for run in (usual, slow))
    assert before_s[0] == after_s[0] < before_s[1] < after_s[1] == slow.summary["layer_time_s"]
    before, after = (
        float((one.end_s - one.start_s).sum())
        for one in (
            run.tables["spans"].query("layer == 0 and rank == 10 and phase == 'expert_compute'")
            for run in (usual, slow)
        )
    )
    assert after == pytest.approx(2 * before, rel=1e-9)


def test_the_costs_name_the_slowest_group_s_late_rank_and_add_nothing_of_their_own(twins):
    nic = {"kind": "slow_nic", "where": "n0.gpu2.nic", "factor": 2}
    without, one, other, both = twins(nic, LATE).explanation["faults"]
    assert without["layer_time_s"] == pytest.approx(twins().summary["layer_time_s"], rel=1e-12)
    assert one["layer_time_s"] == pytest.approx(twins(nic).summary["layer_time_s"], rel=1e-12)
    assert other["layer_time_s"] == pytest.approx(twins(LATE).summary["layer_time_s"], rel=1e-12)
    assert both["layer_time_s"] == twins(nic, LATE).summary["layer_time_s"]
    assert both["waited_on"] == "n3.gpu5" and both["waited_on_s"] == pytest.approx(900 * US * 15 / 16, rel=0.05)


def test_the_cost_of_faults_is_found_among_all_placements_and_for_one_group_that_is_placed(twins, tmp_path):
    slow = {"kind": "slow_gpu", "where": "n2.gpu5", "factor": 3}
    result, packed = twins(slow), twins(slow, parallel={**TWO["parallel"], "group_placement": "packed"})
    placed = {one["placement"]: one for one in result.explanation["groups"]["placements"]}
    assert placed["packed"]["layer_time_mean_s"] == pytest.approx(packed.summary["group_layer_time_mean_s"], rel=1e-9)
    (tmp_path / "one.txt").write_text("n0 n2\n")
    alone = twins(slow, parallel={"ep": 16, "group_placement": str(tmp_path / "one.txt")})
    assert alone.summary["layer_time_s"] == pytest.approx(result.tables["groups"].alone_layer_time_s[0], rel=1e-9)
    assert alone.explanation["faults"][0]["layer_time_s"] == pytest.approx(twins().summary["layer_time_s"], rel=1e-9)
    with pytest.raises(InputError, match="no group has a GPU there"):
        twins({**slow, "where": "n1"}, parallel={"ep": 16, "group_placement": str(tmp_path / "one.txt")})


def test_while_a_group_waits_for_the_others_step_its_faults_cost_nothing(twins):
    two_steps = {"workload": {**SMALL["workload"], "steps": 2}, "routing": SMALL["routing"]}
    late = {"kind": "jitter", "where": "n1", "delay": "500us", "distribution": "fixed", "to": "100us"}
    first, last = twins(late, **two_steps).tables["groups"].layer_time_s.tolist()
    begins = float(twins(late, **two_steps).tables["steps"].layer_time_s[0])  # the late group's first step
    assert begins > first * 1.1
    between = {"kind": "slow_gpu", "where": "n0.gpu0", "factor": 9, "from": f"{first * 1.05!r}s", "to": f"{begins!r}s"}
    assert twins(late, between, **two_steps).tables["groups"].layer_time_s.tolist() == pytest.approx([first, last])
    after = {**between, "from": f"{begins!r}s", "to": "1s"}
    assert twins(late, after, **two_steps).tables["groups"].layer_time_s[0] > first


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "dead_nic", "where": "n1.gpu2"},
        {"kind": "dead_rail", "where": "rail2"},
        {"kind": "wrong_nic", "where": "n1.gpu2", "nic": "n1.gpu5"},
        {"kind": "flap", "where": "n1.gpu2", "from": "100us", "to": "200us", "retry": "50us"},
        {"kind": "rank_death", "where": "n1.gpu2"},
    ],
)
def test_other_kinds_cost_a_group_what_they_cost_it_alone_where_no_link_is_shared(twins, fault):
    of, usual = twins(fault).tables["groups"], twins().tables["groups"]
    assert of.layer_time_s.tolist() == pytest.approx(of.alone_layer_time_s.tolist(), rel=1e-9)
    longer = (of.layer_time_s / usual.layer_time_s - 1).tolist()
    assert (abs(longer[0]) > 1e-9) == (fault["kind"] == "dead_rail")
    assert (abs(longer[1]) > 1e-9) == (fault["kind"] != "rank_death")


def test_a_dead_rank_has_no_tokens_in_its_own_group_alone(twins):
    direct = {"alltoall": {"algorithm": "deepep-low-latency"}}
    dead = {"kind": "rank_death", "where": "n1.gpu2", "mode": "mask"}
    of_other, of_own = twins(dead, {**LATE, "where": "n2"}, **direct), twins(dead, LATE, **direct)
    assert (of_other.tables["ranks"].tokens == TOKENS).all()
    assert of_own.tables["ranks"].tokens.tolist() == [TOKENS] * 2 + [0] + [TOKENS] * 13


def test_a_sweep_of_faults_and_placements_has_the_numbers_of_its_runs(twins, tmp_path):
    slow = {"kind": "slow_gpu", "where": "n1.gpu2", "factor": 3}
    result = twins(slow)
    (tmp_path / "base.yaml").write_text(result.scenario_yaml)
    base = moesim.load_scenario(tmp_path / "base.yaml")
    axes = {"faults": [[], [slow]], "parallel.group_placement": ["striped", "packed"]}
    found = sweep(base, axes, jobs=1, out=tmp_path / "sweep")
    assert found.status.eq("ok").all()
    assert found.layer_time_s[0] == twins().summary["layer_time_s"]
    assert found.layer_time_s[2] == result.summary["layer_time_s"] > found.layer_time_s[0]
