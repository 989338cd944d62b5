"""Placements learnt from the past and judged by the load that they give slots, ranks and nodes later."""

import numpy as np

from moesim.run.placement_study import study
from tests.run.small import scenario


def rows_of(found):
    return {(row["policy"], row["slots"]): row for row in found}


def test_a_placement_learnt_on_what_it_is_judged_on_is_never_worse_and_replicas_help_the_hottest_slot():
    rows = rows_of(study(scenario(), ["contiguous", "round_robin", "eplb"], [32, 40]))
    itself = {name: row["on_b_itself"] for name, row in rows.items()}
    fixed = min(itself["contiguous", 32]["rank"], itself["round_robin", 32]["rank"])
    assert itself["eplb", 32]["rank"] <= min(fixed, rows["eplb", 32]["on_b"]["rank"] + 1e-12)
    assert itself["eplb", 40]["slot"] < itself["contiguous", 32]["slot"]
    assert rows["eplb", 32]["on_a"]["rank"] < rows["contiguous", 32]["on_a"]["rank"]


def test_placements_of_given_experts_are_judged_by_their_counts(tmp_path):
    np.save(tmp_path / "ids.npy", np.tile(np.array([[0, 1, 2, 3]], np.int32), (32, 1)))
    given = scenario(workload={"expert_ids": str(tmp_path / "ids.npy"), "tokens_per_rank": 2})
    rows = rows_of(study(given, ["contiguous", "round_robin"]))
    assert rows["contiguous", 32]["on_b"]["rank"] == 8 and rows["round_robin", 32]["on_b"]["rank"] == 2
