"""Placements compared by the load that they give slots, ranks and nodes."""

import numpy as np
import pytest

from moesim.run.placement_study import compare_placements
from tests.run.small import scenario


def test_eplb_is_never_worse_than_the_fixed_placements_and_replicas_help_the_hottest_slot():
    rows = {row["placement"]: row for row in compare_placements(scenario(), redundant_experts=8)}
    assert rows["contiguous"]["slots"] == 32 and rows["eplb, 8 redundant"]["slots"] == 40
    assert rows["eplb, 0 redundant"]["rank"] <= min(rows["contiguous"]["rank"], rows["round_robin"]["rank"])
    assert rows["eplb, 8 redundant"]["slot"] < rows["contiguous"]["slot"]
    assert all(row["node"] == pytest.approx(1) for row in rows.values())


def test_placements_of_given_experts_are_compared_by_their_counts(tmp_path):
    np.save(tmp_path / "ids.npy", np.tile(np.array([[0, 1, 2, 3]], np.int32), (8, 1)))
    given = scenario(workload={"expert_ids": str(tmp_path / "ids.npy"), "tokens_per_rank": 1})
    rows = {row["placement"]: row for row in compare_placements(given, None)}
    assert rows["contiguous"]["rank"] == 8 and rows["round_robin"]["rank"] == 2
