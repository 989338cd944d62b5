"""Folders that a release wrote are read by every later one of the same schema: these were written once and stay.

A change of schema adds folders here, with a reader for the ones before it.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from moesim.results import SCHEMA_VERSION, load_result
from moesim.results.explain import explain_lines
from moesim.sweeps.points_table import read_table

GOLDEN = Path(__file__).parent / "golden"


def test_a_run_of_schema_2_is_read_and_explained():
    result = load_result(GOLDEN / "run-schema-2")
    written = json.loads((GOLDEN / "run-schema-2/summary.json").read_text())
    assert written["schema"] == SCHEMA_VERSION and result.summary == written["summary"]
    assert result.tables["steps"]["layer_time_s"].mean() == pytest.approx(result.summary["layer_time_s"], rel=1e-12)
    sent = sum(array.sum() for name, array in result.traffic.items() if name.startswith("selections"))
    assert sent == result.summary["tokens"] * 4  # top 4
    assert np.isfinite(result.flows["finish"]).all()
    for key in result.summary:
        assert list(explain_lines(result, key))


def test_what_was_read_is_written_as_it_was(tmp_path):
    load_result(GOLDEN / "run-schema-2").save(tmp_path / "again")
    for path in (GOLDEN / "run-schema-2").iterdir():
        if path.suffix in (".json", ".yaml") and path.name != "provenance.json":
            assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name
    first, again = load_result(GOLDEN / "run-schema-2"), load_result(tmp_path / "again")
    for name in first.tables:
        for column, values in first.tables.columns(name).items():
            np.testing.assert_array_equal(again.tables.columns(name)[column], values)


def test_the_table_of_a_sweep_of_schema_1_is_read():
    axes, columns = read_table(GOLDEN / "sweep-schema-1")
    assert axes == ("seed", "routing.top_k") and columns["status"] == ["ok"] * 4
    assert columns["routing.top_k"] == [2, 4, 2, 4] and min(columns["layer_time_s"]) > 0
