"""Folders that a release wrote are read by every later one of the same schema, and of the next: these stay as they are.

A change of schema adds folders here; what the ones before it do not have is ``later`` in ``data/result_tables.toml``.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from moesim.errors import InputError
from moesim.report import compare, render_comparison, render_run
from moesim.results import load_result
from moesim.results.explain import explain_lines
from moesim.sweeps.points_table import read_table

GOLDEN = Path(__file__).parent / "golden"


RUNS = ("run-schema-1", "run-schema-2")


@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_read_and_explained(name):
    result = load_result(GOLDEN / name)
    written = json.loads((GOLDEN / name / "summary.json").read_text())
    assert written["schema"] == name[-1] and result.summary == written["summary"]
    assert result.tables["steps"]["layer_time_s"].mean() == pytest.approx(result.summary["layer_time_s"], rel=1e-12)
    sent = sum(array.sum() for name, array in result.traffic.items() if name.startswith("selections"))
    assert sent == result.summary["tokens"] * 4  # top 4
    assert np.isfinite(result.flows["finish"]).all()
    for key in result.summary:
        assert list(explain_lines(result, key))


@pytest.mark.parametrize("name", RUNS)
def test_what_was_read_is_written_as_it_was(tmp_path, name):
    first = load_result(GOLDEN / name)
    first.save(tmp_path / "again")
    for path in (GOLDEN / "run-schema-2").iterdir() if name == "run-schema-2" else ():
        if path.suffix in (".json", ".yaml") and path.name != "provenance.json":
            assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name
    again = load_result(tmp_path / "again")
    for part in ("summary", "notes", "explanation", "scenario_yaml", "provenance", "intervals"):
        assert getattr(again, part) == getattr(first, part)
    assert set(first.tables) == set(again.tables)
    for table in first.tables:
        assert set(again.tables.columns(table)) == set(first.tables.columns(table))
        for column, values in first.tables.columns(table).items():
            np.testing.assert_array_equal(again.tables.columns(table)[column], values)
    for part in ("flows", "traffic"):
        for array, values in getattr(first, part).items():
            np.testing.assert_array_equal(getattr(again, part)[array], values)


def test_what_an_earlier_run_does_not_have_is_said_and_not_made_up():
    result = load_result(GOLDEN / "run-schema-1")
    (said,) = (note.text for note in result.notes if "earlier moesim" in note.text)
    absent = said.rpartition("without ")[2].split(", ")
    now = load_result(GOLDEN / "run-schema-2")
    gone = set(now.summary) - set(result.summary)
    gone |= set(now.tables.columns("ranks")) - set(result.tables.columns("ranks"))
    assert set(absent) == gone | {"intervals"} and not result.intervals
    with pytest.raises(InputError, match="an earlier moesim wrote it; run the scenario again"):
        list(explain_lines(result, "dispatch_nvlink_wire_bytes_per_s"))
    page = render_run(result)
    assert said in page
    assert said in render_comparison([("before", result), ("now", now)], "both")
    rows = {row.key: row for row in compare(result, now, ("before", "now")).rows}
    assert rows["dispatch_nvlink_wire_bytes_per_s"].a is None and rows["layer_time_s"].a_interval is None


def test_a_folder_of_a_later_schema_is_refused(tmp_path):
    shutil.copytree(GOLDEN / "run-schema-2", tmp_path / "run")
    summary = (tmp_path / "run/summary.json").read_text()
    (tmp_path / "run/summary.json").write_text(summary.replace('"schema": "2"', '"schema": "3"'))
    with pytest.raises(InputError, match="schema version 3; this moesim reads versions 1 and 2"):
        load_result(tmp_path / "run")


def test_the_table_of_a_sweep_of_schema_1_is_read():
    axes, columns = read_table(GOLDEN / "sweep-schema-1")
    assert axes == ("seed", "routing.top_k") and columns["status"] == ["ok"] * 4
    assert columns["routing.top_k"] == [2, 4, 2, 4] and min(columns["layer_time_s"]) > 0
