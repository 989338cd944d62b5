"""The sweeps that ship: every point is possible or said to be skipped, and they vary what they say."""

import pytest

from moesim.recording_format import read_recording
from moesim.scenario import ScenarioTemplate, load_scenario, shipped_names
from moesim.sweeps.point_plan import make_plan
from moesim.sweeps.space import space_of

POINTS = {
    "sweep-clusters": 12,
    "sweep-ep-scaling": 18,
    "sweep-expert-granularity": 7,
    "sweep-m-by-k": 96,
    "sweep-nic-speed": 30,
    "sweep-training-step": 24,
}


def test_the_promised_sweeps_are_there():
    assert {name for name in shipped_names("scenarios") if name.startswith("sweep-")} == set(POINTS)


@pytest.mark.parametrize("name", POINTS)
def test_a_shipped_sweep_asks_its_question_and_has_no_impossible_point(name):
    scenario = load_scenario(name)
    space = space_of(scenario.sweep)
    assert len(space) == POINTS[name]
    some = range(0, len(space), 5)
    assert make_plan(ScenarioTemplate.of(scenario), space, some).impossible == {}
    assert scenario.sweep.question.endswith("?")


def test_the_device_limit_is_answered_for_each_k_and_number_of_experts():
    assert load_scenario("sweep-m-by-k").sweep.per == ("model.n_experts", "routing.top_k")


def test_experts_of_any_number_have_the_same_total_and_active_parameters():
    space = space_of(load_scenario("sweep-expert-granularity").sweep)
    points = [space.values(point) for point in range(len(space))]
    assert {values["model.n_experts"] for values in points} == {8, 16, 32, 64, 128, 256, 512}
    assert len({values["model.n_experts"] * values["model.expert_hidden"] for values in points}) == 1
    assert len({values["routing.top_k"] * values["model.expert_hidden"] for values in points}) == 1


def test_the_training_steps_are_those_that_were_recorded_and_each_recording_has_its_own_router():
    space = space_of(load_scenario("sweep-training-step").sweep)
    for point in range(len(space)):
        values = space.values(point)
        recording = read_recording(values["workload.recording.name"])
        assert values["workload.recording.step"] in recording.steps
        assert values["routing.kind"] == recording.router["kind"]
        assert values["routing.top_groups"] == recording.router["top_groups"]


def test_nics_and_ranks_cover_what_the_sweeps_promise():
    nic, ep = space_of(load_scenario("sweep-nic-speed").sweep), space_of(load_scenario("sweep-ep-scaling").sweep)
    rates = {nic.values(point)["cluster.nic_bandwidth"] for point in range(len(nic))}
    assert {"100Gb/s", "1600Gb/s"} <= rates
    ranks = {ep.values(point)["parallel.ep"] for point in range(len(ep))}
    assert (min(ranks), max(ranks)) == (8, 160) and {64, 128} <= ranks


def test_every_model_comes_with_its_own_router_and_no_point_is_a_what_if():
    space = space_of(load_scenario("sweep-clusters").sweep)
    points = [space.values(point) for point in range(len(space))]
    assert {point["cluster.topology"] for point in points} >= {"h800-8x8-rail", "gb200-nvl72"}
    for point in points:
        recording = read_recording(point["workload.recording.name"])
        assert (recording.router["kind"], recording.router["top_k"]) == (point["routing.kind"], 8)
        assert recording.router["top_groups"] == point["routing.top_groups"]
        published = load_scenario("sweep-clusters", [f"model={{preset: {point['model.preset']}}}"])
        assert published.model.n_experts > 8
