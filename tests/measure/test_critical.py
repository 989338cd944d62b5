"""What held the critical rank back, in words and by link class."""

from pathlib import Path

import numpy as np
import pytest

from moesim.measure.critical import describe_bottleneck
from tests.run.small import run_ids


@pytest.mark.parametrize(
    ("held_by", "said"),
    [
        ({("link", "nic"): 3.0, ("compute", ""): 1.0}, "the NICs: 75 % of the layer time"),
        ({("link", "long-haul"): 3.0}, "long-haul: 75 %"),
        ({("compute", ""): 2.0, ("link", "nvlink"): 1.0}, "compute on the critical rank: 50 %"),
        ({("rank", "7"): 2.0}, "waiting for rank 7: 50 %"),
        ({("arrival", "3"): 2.0}, "late arrival of rank 3: 50 %"),
        ({("setup", ""): 2.0}, "set-up of the all-to-all"),
        ({}, "nothing"),
    ],
)
def test_the_bottleneck_is_what_held_the_critical_rank_longest(held_by, said):
    assert said in describe_bottleneck(held_by, 4.0)[0]


def test_a_cluster_with_a_thin_middle_is_held_back_by_it(tmp_path):
    topology = (Path(__file__).parents[2] / "topologies/two-nodes-explicit.yaml").read_text()
    thin = topology.replace(
        "source: tor-a, target: tor-b, bandwidth: 400Gb/s", "source: tor-a, target: tor-b, bandwidth: 4Gb/s"
    )
    assert thin != topology
    (tmp_path / "thin.yaml").write_text(thin)
    ids = np.tile(np.array([[20, 30]]), (256, 1))  # ranks 2 and 3, on the second node
    # A set without set-up: nothing but the wires can hold.
    cluster, wires = {"topology": str(tmp_path / "thin.yaml")}, {"calibration": "deepep-normal-h800"}
    result = run_ids(tmp_path, ids, [256, 0, 0, 0], cluster=cluster, alltoall=wires)
    assert result.summary["bottleneck"].startswith("long-haul:")
    assert 0.95 < result.summary["bottleneck_utilisation"] <= 1 + 1e-9
