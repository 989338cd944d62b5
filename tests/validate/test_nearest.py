"""The published row beside a simulated time."""

from dataclasses import replace

import pytest

from moesim.validate.nearest import Setting, nearest

SETTING = Setting("deepep-normal", "h800", "dispatch", 32, 4, 4096, "fp8", 7168, 8)


def test_the_very_setting_of_a_published_row_is_found_in_its_last_release():
    near = nearest(SETTING)
    assert near.distance == 0
    assert near.row.name == ("deepep-v1-h800", "op=dispatch ranks=32")
    assert near.line().endswith("; the same setting")


@pytest.mark.parametrize(
    ("change", "distance", "said"),
    [
        ({"tokens": 8192}, 1, "8192 tokens per rank instead of 4096"),
        ({"tokens": 1024}, 2, "1024 tokens per rank instead of 4096"),
        ({"dtype": "bf16"}, 1, "bf16 instead of fp8"),
        ({"gpu": "h900"}, 3, "h900 instead of h800"),
        ({"ranks": 48, "nodes": 6}, pytest.approx(0.83, abs=0.01), "48 ranks instead of 64"),
    ],
)
def test_what_differs_is_counted_in_doublings_and_said(change, distance, said):
    near = nearest(replace(SETTING, **change))
    assert near.distance == distance
    assert said in near.line()


def test_a_suspect_row_stands_beside_nothing():
    """H100 has no other normal-mode row that ships than a table that does not fit its neighbours."""
    near = nearest(replace(SETTING, gpu="h100", ranks=64, nodes=8))
    assert near.row.table == "deepep-v1-h800"
    assert near.distance == 3


def test_nothing_is_near_where_nothing_was_published():
    assert nearest(replace(SETTING, algorithm="allgather-reduce-scatter")) is None
    assert nearest(replace(SETTING, algorithm="nccl-direct")) is None  # its tables are all-to-alls of equal messages
