"""What a finished sweep prints: the points of the front, and how many of them did not fit."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from ruamel.yaml import YAML

from moesim.cli.sweep import workers_for
from moesim.cli.sweep_show import print_lost, print_sweep
from moesim.scenario import load_scenario, parse_objective
from moesim.sweeps.report import answered
from moesim.sweeps.space import space_of
from tests.cli.conftest import SCENARIO


def printed(n_points, capsys):
    """What is printed of a sweep over seeds of which no point beats another: a slower one loses less gate mass."""
    seeds = np.arange(n_points)
    columns = {
        "point": seeds,
        "seed": seeds,
        "status": ["ok"] * n_points,
        "error": [None] * n_points,
        "layer_time_s": 1e-3 + 1e-6 * seeds,
        # As of points that were computed before times had intervals.
        "layer_time_s_low": pa.nulls(n_points, pa.float64()),
        "layer_time_s_high": pa.nulls(n_points, pa.float64()),
        "gate_mass_lost": 0.5 - 0.01 * seeds,
        "rank_load_max_over_mean": np.full(n_points, 1.25),
        "tokens": np.full(n_points, 512),
        "ranks": np.full(n_points, 8),
        "counterfactual": np.zeros(n_points, bool),
        "bottleneck": ["the NICs"] * n_points,
    }
    scenario = load_scenario(YAML(typ="safe").load(SCENARIO))
    space = space_of(None, {"seed": seeds.tolist()}, [], None)
    points = pa.table(columns)
    found, data = answered(scenario, space, parse_objective("layer_time_s"), points, (), str)
    print_sweep(space, found, data, points, Path("out"))
    return capsys.readouterr().out


def test_a_front_longer_than_twenty_points_is_cut_and_the_rest_is_counted(capsys):
    for n_points, left in ((20, []), (21, ["and 1 more on the front"]), (24, ["and 4 more on the front"])):
        out = printed(n_points, capsys)
        rows = re.findall(r"^([* ]) (\d+) +(\d+) ", out, re.MULTILINE)  # star, point, seed
        assert rows == [(" " if seed else "*", str(seed), str(seed)) for seed in range(20)]
        assert [line for line in out.splitlines() if "more on the front" in line] == left


def test_lost_points_are_named_with_their_errors_and_those_beyond_ten_are_counted(capsys):
    status = ["ok", *["failed"] * 11]
    points = pa.table({"point": range(12), "status": status, "error": [None, *(f"why {i}" for i in range(1, 12))]})
    print_lost(points, "failed")
    lines = capsys.readouterr().err.splitlines()
    assert lines[:10] == [f"point {i} failed: why {i}" for i in range(1, 11)]
    assert lines[10:] == ["and 1 more: see the table's column error"]
    print_lost(points.slice(0, 11), "failed")
    assert len(capsys.readouterr().err.splitlines()) == 10


@pytest.mark.parametrize(
    ("cores", "jobs", "points", "processes"), [(None, 0, 9, 1), (4, 0, 9, 4), (4, 6, 9, 6), (4, 0, 3, 3)]
)
def test_a_sweep_takes_a_process_per_core_or_as_many_as_asked_for_and_no_more_than_points(
    monkeypatch, cores, jobs, points, processes
):
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    monkeypatch.setattr("moesim.sweeps.workers.local_workers", lambda number: number)
    assert workers_for(points, jobs, None, None) == processes
