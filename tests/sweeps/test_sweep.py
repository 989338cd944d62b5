"""Sweeps from outside: rows are what single runs give, whoever computes them, in whatever order."""

import json
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from small_sweep import AXES, SMALL, failing_time_point

import moesim
from moesim.errors import InputError, ResourceError
from moesim.scenario import load_scenario
from moesim.sweeps import drive, sweep
from moesim.sweeps.evaluate_points import Recent, parts_of, recording_of, route, summarise
from moesim.sweeps.journal import JOURNAL_FILE
from moesim.sweeps.space import space_of
from moesim.sweeps.sweep_run import run_sweep
from moesim.sweeps.workers import local_workers

SCENARIOS = {
    "one layer": [],
    "direct copies": ["alltoall.algorithm=nccl-direct"],
    "low latency, late ranks": ["alltoall.algorithm=deepep-low-latency", "schedule.start_offset=UNIFORM"],
    "three layers, one of them twice": ["workload.layers_simulated=3"],
    "a bias that moves from step to step": ["routing.update_bias=true", "workload.steps=3"],
    "replicas": ["placement.policy=eplb", "placement.redundant_experts=8"],
    "no router": ["workload=IDS", "routing.top_k=4"],
    "flows per port": ["cluster.flows=ports", "alltoall={algorithm: nccl-direct, calibration: nccl-direct-h800}"],
    "sixteen ranks on two nodes": ["cluster.topology=h800-8x8-rail", "parallel.ep=16", "schedule.other_time=20us"],
}


def by_hand(*overrides, ids=""):
    texts = [
        text.replace("UNIFORM", "{distribution: uniform, scale: 20us}").replace(
            "IDS", f"{{expert_ids: {ids}, tokens_per_rank: 16}}"
        )
        for text in overrides
    ]
    return load_scenario(SMALL, texts)


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_point_has_the_very_summary_of_a_run_of_its_own(name, tmp_path):
    rng = np.random.default_rng(1)
    np.save(tmp_path / "ids.npy", np.array([rng.permutation(16)[:4] for _ in range(64)], np.int32))
    scenario = by_hand(*SCENARIOS[name], ids=tmp_path / "ids.npy")
    parts = parts_of(scenario)
    assert summarise(parts, route(scenario, parts, recording_of(scenario))) == moesim.simulate(scenario).summary


@pytest.fixture(scope="module")
def frame():
    """The sweep of AXES over SMALL in this process; do not change it."""
    return sweep(SMALL, AXES)


def test_a_sweep_is_a_tidy_table_with_a_row_per_point(frame):
    assert list(frame.columns[:6]) == ["point", *AXES, "status", "error"]
    assert list(frame["point"]) == list(range(8))
    assert (frame["status"] == "ok").all() and frame["error"].isna().all()
    row = frame[
        (frame["routing.top_k"] == 2)
        & (frame["routing.top_groups"] == 4)
        & (frame["alltoall.algorithm"] == "nccl-direct")
    ].iloc[0]
    alone = moesim.simulate(by_hand("routing.top_k=2", "routing.top_groups=4", "alltoall.algorithm=nccl-direct"))
    for key, value in alone.summary.items():
        if key != "name":
            assert row[key] == value or (value is None and pd.isna(row[key])), key


def test_neither_executor_nor_number_of_workers_changes_a_byte(frame, tmp_path):
    with ThreadPoolExecutor(3) as threads:
        assert sweep(SMALL, AXES, threads, jobs=3, out=tmp_path / "threads").equals(frame)
    assert sweep(SMALL, AXES, out=tmp_path / "here").equals(frame)
    assert sweep(SMALL, AXES, jobs=2, out=tmp_path / "processes").equals(frame)
    tables = {(tmp_path / name / "points.parquet").read_bytes() for name in ("threads", "here", "processes")}
    assert len(tables) == 1


def test_points_that_differ_in_the_wires_alone_share_one_routing(monkeypatch, frame):
    routed, timed = [], []
    route_point, time_point = drive.route_point, drive.time_point
    monkeypatch.setattr(drive, "route_point", lambda *task: routed.append(task) or route_point(*task))
    monkeypatch.setattr(drive, "time_point", lambda *task: timed.append(task) or time_point(*task))
    assert sweep(SMALL, AXES).equals(frame)
    assert (len(routed), len(timed)) == (4, 8)  # M x K, and for each two all-to-alls


def test_impossible_points_are_refused_before_the_first_runs_all_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(drive, "route_point", None)  # nothing may run
    with pytest.raises(InputError) as refused:
        sweep(SMALL, {"routing.top_k": [2, 4], "routing.top_groups": [1, 9]}, out=tmp_path / "out")
    lines = str(refused.value).splitlines()
    assert [line.split(":")[0] for line in lines[:-1]] == [
        "point 1 (routing.top_k=2, routing.top_groups=9)",
        "point 2 (routing.top_k=4, routing.top_groups=1)",
        "point 3 (routing.top_k=4, routing.top_groups=9)",
    ]
    assert "there are 8" in lines[0] and "only 2 of 16 experts" in lines[1]
    assert lines[-1].startswith("3 of 4 points are impossible and none was run")
    assert not (tmp_path / "out").exists()


def test_impossible_points_may_be_rows_that_say_why():
    frame = sweep(SMALL, {"routing.top_groups": [1, 4]}, impossible="skip")
    assert list(frame["status"]) == ["impossible", "ok"]
    assert "only 2 of 16 experts" in frame["error"][0]
    assert pd.isna(frame["layer_time_s"][0])


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"parallel.ep": [8, 9]}, "ep is 9 but hgx-h800 has 8 GPUs"),
        ({"routing.groups": ["node"]}, "top_groups is 4 but there are 1 groups"),
        ({"placement.redundant_experts": [3], "placement.policy": ["eplb"]}, "do not spread evenly"),
        ({"cluster.topology": ["hgx-h900"]}, "no topology"),
        ({"workload.recording": [{"name": "none-such.npz"}], "workload.synthetic": [None]}, "no such file"),
    ],
)
def test_what_only_the_cluster_makes_impossible_is_seen_before_the_first_point_too(axes, message, monkeypatch):
    monkeypatch.setattr(drive, "route_point", None)
    with pytest.raises(InputError, match=message):
        sweep(SMALL, axes)


def test_a_failed_point_is_a_row_with_its_error_and_the_rest_go_on(monkeypatch, tmp_path):
    monkeypatch.setattr(drive, "time_point", failing_time_point)
    frame = sweep(SMALL, {"seed": "0..3"}, out=tmp_path)
    assert list(frame["status"]) == ["ok", "ok", "failed", "ok"]
    assert frame["error"][2].startswith("AttributeError: ") and pd.isna(frame["layer_time_s"][2])
    monkeypatch.undo()
    assert list(sweep(SMALL, {"seed": "0..3"}, out=tmp_path)["status"]) == ["ok", "ok", "failed", "ok"]
    again = run_sweep(load_scenario(SMALL), space_of(None, {"seed": "0..3"}), here, folder=tmp_path, retry_failed=True)
    assert again.counts == {"ok": 4}


def test_a_routing_that_fails_fails_every_point_that_shares_it(tmp_path):
    np.save(tmp_path / "ids.npy", np.zeros((64, 2), np.int32))  # the same expert twice for one token
    workload = {"expert_ids": str(tmp_path / "ids.npy"), "tokens_per_rank": 8}
    axes = {"alltoall.algorithm": ["nccl-direct", "deepep-normal"], "workload": [workload, SMALL["workload"]]}
    frame = sweep(SMALL, axes, impossible="skip")
    assert list(frame["status"]) == ["failed", "ok"] * 2
    assert frame["error"][0] == frame["error"][2] and "ids.npy" in frame["error"][0]


def here(_):
    from moesim.sweeps import _given

    return _given(None, 1)


def test_an_interrupted_sweep_goes_on_where_it_was(frame, tmp_path, monkeypatch):
    def interrupt(what, done, total):
        if what == "points" and done >= 3:
            raise KeyboardInterrupt

    scenario, space = load_scenario(SMALL), space_of(None, AXES)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(scenario, space, here, folder=tmp_path, watch=interrupt)
    assert not (tmp_path / "points.parquet").exists()
    timed = []
    time_point = drive.time_point
    monkeypatch.setattr(drive, "time_point", lambda *task: timed.append(task) or time_point(*task))
    swept = run_sweep(scenario, space, here, folder=tmp_path)
    assert len(timed) == 5
    assert swept.table.to_pandas().equals(frame)


def test_a_finished_sweep_run_again_does_nothing(tmp_path, monkeypatch):
    first = sweep(SMALL, {"seed": [0, 1]}, out=tmp_path)
    before = (tmp_path / "points.parquet").read_bytes()
    monkeypatch.setattr(drive, "route_point", None)
    assert sweep(SMALL, {"seed": [0, 1]}, out=tmp_path).equals(first)
    assert (tmp_path / "points.parquet").read_bytes() == before


def test_a_folder_of_another_sweep_is_refused_with_what_differs(tmp_path):
    sweep(SMALL, {"seed": [0]}, out=tmp_path)
    changed = {**SMALL, "routing": {**SMALL["routing"], "top_k": 2}}
    with pytest.raises(InputError, match=r"scenario\.routing\.top_k: 4 before, 2 now"):
        sweep(changed, {"seed": [0]}, out=tmp_path)
    with pytest.raises(InputError, match=r"sweep\.axes: "):
        sweep(SMALL, {"seed": [0, 1]}, out=tmp_path)


def test_a_file_whose_content_changed_makes_another_sweep(tmp_path):
    ids = np.array([np.random.default_rng(1).permutation(16)[:4] for _ in range(64)], np.int32)
    np.save(tmp_path / "ids.npy", ids)
    scenario = {**SMALL, "workload": {"expert_ids": str(tmp_path / "ids.npy"), "tokens_per_rank": 8}}
    sweep(scenario, {"seed": [0]}, out=tmp_path / "out")
    np.save(tmp_path / "ids.npy", ids[:32])
    with pytest.raises(InputError, match=r"files\.ids\.npy: "):
        sweep(scenario, {"seed": [0]}, out=tmp_path / "out")


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ResourceError, match="not a sweep"):
        sweep(SMALL, {"seed": [0]}, out=tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_default_that_depends_on_an_axis_follows_it():
    scenario = load_scenario({**SMALL, "routing": {"kind": "v3", "top_k": 4, "groups": 8, "top_groups": 4}})
    frame = sweep(scenario, {"routing.kind": ["v1", "v3"]})
    alone = [moesim.simulate(by_hand(f"routing.kind={kind}")).summary["gate_mass_lost"] for kind in ("v1", "v3")]
    assert list(frame["gate_mass_lost"]) == alone and alone[0] != alone[1]


def test_a_scenario_built_by_hand_can_be_swept():
    scenario = moesim.Scenario.model_validate(SMALL)
    assert sweep(scenario, {"seed": [0]})["layer_time_s"][0] == moesim.simulate(scenario).summary["layer_time_s"]


def test_the_block_of_the_scenario_is_the_sweep(tmp_path):
    finer = {"model.n_experts": [16, 32], "model.expert_hidden": [256, 128]}
    block = {"axes": {"routing.top_k": [2, 4]}, "zip": [finer]}
    frame = sweep({**SMALL, "sweep": block})
    assert frame[["routing.top_k", "model.n_experts", "model.expert_hidden"]].to_numpy().tolist() == [
        [2, 16, 256],
        [2, 32, 128],
        [4, 16, 256],
        [4, 32, 128],
    ]
    drawn = sweep({**SMALL, "sweep": block}, random=2, random_seed=3)
    assert len(drawn) == 2
    assert set(drawn["layer_time_s"]) <= set(frame["layer_time_s"])


def test_a_worker_keeps_the_few_last_things_it_made():
    made, recent = [], Recent(2)
    for key in "abacab":
        assert recent.get(key, lambda key=key: made.append(key) or key) == key
    assert made == ["a", "b", "c", "b"]


def test_the_journal_holds_what_the_sweep_is(tmp_path):
    from moesim.sweeps.journal import open_journal

    sweep(SMALL, {"seed": [0]}, out=tmp_path)
    assert (tmp_path / JOURNAL_FILE).is_file()
    with open_journal(tmp_path) as journal:
        about = journal.identity()
    assert about["scenario"] == json.loads(json.dumps(SMALL))
    assert about["sweep"]["axes"] == [{"seed": [0]}]
    assert set(about["files"]) == {"hgx-h800.yaml"}


def test_a_worker_that_dies_is_replaced_and_a_point_that_kills_three_is_failed(tmp_path, monkeypatch):
    import small_sweep

    monkeypatch.setenv("SWEEP_LOG", str(tmp_path / "died-once"))
    monkeypatch.setattr(drive, "time_point", small_sweep.deadly_time_point)
    space = space_of(None, {"seed": "0..5"})
    swept = run_sweep(load_scenario(SMALL), space, lambda _: local_workers(2), folder=tmp_path / "out")
    frame = swept.table.to_pandas()
    assert list(frame["status"]) == ["ok", "ok", "ok", "failed", "ok", "ok"]
    assert frame["error"][3] == "its worker died 3 times"
    monkeypatch.undo()
    honest = sweep(SMALL, {"seed": "0..5"})
    pd.testing.assert_frame_equal(frame.drop(index=3), honest.drop(index=3), check_dtype=False)


def test_workers_that_have_gone_away_stop_the_sweep_and_nothing_is_lost(tmp_path):
    class Gone(ThreadPoolExecutor):
        left = 4

        def submit(self, function, *arguments):
            self.left -= 1
            if self.left >= 0:
                return super().submit(function, *arguments)
            future = Future()
            future.set_exception(CancelledError())
            return future

    with Gone(1) as executor, pytest.raises(ResourceError, match="workers are gone"):
        sweep(SMALL, AXES, executor, out=tmp_path)
    from moesim.sweeps.journal import open_journal

    with open_journal(tmp_path) as journal:
        assert journal.counts() == {"ok": 2}  # of the four tasks two were routings


def test_an_executor_that_breaks_or_is_shut_down_stops_the_sweep():
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    with pytest.raises(ResourceError, match="workers are gone"):
        sweep(SMALL, {"seed": [0]}, executor)

    class Broken(Executor):
        def submit(self, function, *arguments):
            future = Future()
            future.set_exception(BrokenExecutor())
            return future

    with pytest.raises(ResourceError, match="workers are gone"):
        sweep(SMALL, {"seed": [0]}, Broken())


def test_an_error_that_cannot_be_told_apart_from_the_point_fails_the_point():
    class Torn(ThreadPoolExecutor):
        def submit(self, function, *arguments):
            return super().submit(_torn, function, *arguments)

    with Torn(1) as executor:
        frame = sweep(SMALL, {"seed": [0, 1]}, executor)
    assert list(frame["status"]) == ["failed", "ok"]
    assert frame["error"][0] == "OSError: torn"


def _torn(function, template, values, *routed):
    if values["seed"] == 0 and routed:
        raise OSError("torn")
    return function(template, values, *routed)
