"""The example in the documentation runs from its first cell to its last, and leaves what it says."""

import runpy
from pathlib import Path

import pandas as pd

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "sweep.py"


def test_the_example_runs_and_leaves_its_report_and_its_picture(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    left = runpy.run_path(str(EXAMPLE), run_name="__main__")
    out = tmp_path / "results" / "example"
    assert {"report.html", "answer.json", "points.parquet", "groups.svg"} <= {path.name for path in out.iterdir()}
    table = pd.read_parquet(out / "points.parquet")
    assert list(table["status"]).count("ok") == 7
    assert left["best"]["routing.top_k"].tolist() == [2, 4]
    assert left["result"].summary["layer_time_s"] in set(table["layer_time_s"])  # the base scenario is a point
    assert "report: results/example/report.html" in capsys.readouterr().out
    cells = EXAMPLE.read_text(encoding="utf-8").split("# %%")
    assert len(cells) > 8
