"""A point run alone is the point of a sweep, whatever ran before it: draws follow from the scenario, not from when."""

import json
import random

import pandas as pd
from small_sweep import SMALL

import moesim
from moesim.sweeps import sweep
from tests.full_gates import FULL, cases

SLOW_GPU = {"kind": "slow_gpu", "where": "n0.gpu3", "factor": 1.5}
SLOW_NIC = {"kind": "slow_nic", "where": "n0.gpu1.nic", "factor": 2.0, "from": "20us", "to": "90us"}
AXES = {
    "seed": [0, 1, 7],
    "workload.tokens_per_rank": [8, 16, 24],
    "model.n_experts": [16, 32],
    "routing.top_k": [2, 4],
    "routing.top_groups": [2, 4],
    "alltoall.algorithm": ["nccl-direct", "deepep-normal", "deepep-low-latency"],
    "cluster.topology": ["hgx-h800", "h800-2x8-rail"],
    "faults": [[], [SLOW_GPU], [SLOW_NIC]],
    "schedule.start_offset": ["0us", {"distribution": "uniform", "scale": "20us"}],
    "placement.policy": ["contiguous", "random", "greedy"],
}


def at(values):
    """The scenario with the values of a point, as somebody writes who knows of no sweep."""
    blocks = {key: dict(block) if isinstance(block, dict) else block for key, block in SMALL.items()}
    for key, value in values.items():
        *within, last = key.split(".")
        block = blocks.setdefault(within[0], {}) if within else blocks
        block[last] = value
    return moesim.load_scenario(blocks)


def test_a_point_of_a_sweep_is_the_run_of_that_point_alone_in_any_order():
    order = random.Random(3)
    axes = {key: order.sample(values, len(values)) for key, values in AXES.items()}
    points = cases(8, 200)
    frame = sweep(SMALL, axes, random=points, random_seed=5, jobs=2 if FULL else 1)
    assert len(frame) == points and (frame["status"] == "ok").all()
    assert frame["layer_time_s"].nunique() > 0.9 * points
    rows = frame.to_dict("records")
    for row in order.sample(rows, points):
        # A table has lists and blocks as JSON.
        place = {key: json.loads(row[key]) if str(row[key])[0] in "[{" else row[key] for key in axes}
        alone = moesim.simulate(at(place)).summary
        for key in alone.keys() - {"name"}:
            got = row[key]
            assert got == alone[key] or (alone[key] is None and pd.isna(got)), (key, place)
