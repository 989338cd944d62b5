"""DeepSeek-V2-Lite's published routing (four tasks, 26 layers) through run, sweep, place and the pages."""

from pathlib import Path

import numpy as np
import pytest

import moesim
from moesim.report import render_run
from moesim.run.placement_verdict import place_verdict
from moesim.workload import read_routing

FOLDER = Path(__file__).parents[3] / "shared" / "reference" / "expert_load"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="the published routing is not beside the project")


@pytest.fixture(scope="module")
def scenario(tmp_path_factory):
    path = tmp_path_factory.mktemp("lite") / "intent.npy"
    np.save(path, np.load(FOLDER / "dsv2lite_esft_token_topk.npz")["intent_topk"].transpose(1, 0, 2))
    return {
        "name": "lite",
        "cluster": {"topology": "hgx-h800"},
        "model": {"preset": "deepseek-v2-lite"},
        "workload": {"expert_ids": str(path), "tokens_per_rank": 256, "layers_simulated": 2},
    }


def test_counts_of_all_tasks_are_summed():
    trace = read_routing(FOLDER / "dsv2lite_esft_expert_counts.csv")
    assert trace.layers == tuple(range(1, 27)) and trace.n_experts == 64
    rows = np.genfromtxt(FOLDER / "dsv2lite_esft_expert_counts.csv", delimiter=",", skip_header=1, usecols=(1, 2, 3))
    for layer in (1, 26):
        of_layer = rows[rows[:, 0] == layer]
        assert (
            trace.expert_counts()[layer - 1].tolist()
            == np.bincount(of_layer[:, 1].astype(int), of_layer[:, 2]).tolist()
        )


def test_the_recorded_tokens_load_their_experts_and_the_page_shows_it(scenario):
    result = moesim.simulate(moesim.load_scenario(scenario))
    ids = np.load(FOLDER / "dsv2lite_esft_token_topk.npz")["intent_topk"][:2048, 0]
    tokens = result.tables["experts"].query("layer == 0").groupby("expert")["tokens"].sum()
    assert tokens.to_list() == np.bincount(ids.ravel(), minlength=64).tolist()
    assert "lite" in render_run(result)


def test_placements_and_a_sweep_run_on_it(scenario):
    verdict = place_verdict(moesim.load_scenario(scenario), [8])
    loads = {one.name: one.loads["rank"] for one in verdict.options}
    assert loads["eplb_global, 8 redundant"] < loads["contiguous"]
    assert not verdict.same and verdict.judged_on == "the second half"
    frame = moesim.sweep(scenario, {"placement.policy": ["contiguous", "eplb"]})
    assert list(frame["status"]) == ["ok", "ok"]
    assert frame["rank_load_max_over_mean"][1] < frame["rank_load_max_over_mean"][0]
