"""The plain JSON of every kind of chart is what Bokeh's own models say; seen to pass on Bokeh 3.6.0 and 3.9.2.

`pip install --no-deps --target OLD bokeh==3.6.0` and `PYTHONPATH=OLD pytest tests/report/test_bokeh_twin.py` test it on
the oldest one allowed.
"""

import json
from typing import Any

import numpy as np
import pytest

from moesim.report.charts import BarChart, DotChart, Gantt, HeatMap, LineChart, Mark, Series
from moesim.report.comparison_charts import comparison_charts, training_overlays
from moesim.report.interactive import Drawn, documents
from moesim.report.page import script_json
from moesim.report.run_page import _balance_charts, _charts
from moesim.report.sweep_charts import axis_charts, group_charts, pareto_charts, scaling_charts
from moesim.results import Result
from tests.report.bokeh_twin import differences, from_bokeh, read_back
from tests.report.test_sweep_answer import per
from tests.report.test_sweep_page import EXPERTS, GROUPS, NIC, TOP_K, swept

NAN = float("nan")
X = np.array([0.0, 1.0, 2.5, 4.0])


def line_chart(*series: Series, **options: Any) -> LineChart:
    return LineChart("key", "title", "caption", "x (s)", "y (B)", series, **options)


def made_up() -> dict[str, Drawn]:
    rng = np.random.default_rng(3)
    gap = np.array([1.0, NAN, 3.0, 4.0])
    long = np.arange(5000.0)
    bars = rng.uniform(0, 5, 100)
    return {
        "a gap": line_chart(Series("a", X, gap, "#112233"), Series("b", X, X, "#445566", "dashed")),
        "all styles": line_chart(*(Series(style, X, X + i, "#112233", style) for i, style in enumerate(
            ("line", "dashed", "points", "steps")))),  # type: ignore[arg-type]
        "other x": line_chart(Series("a", X, X, "#112233"), Series("b", X[1:], gap[1:], "#445566", "steps")),
        "log axes and levels": line_chart(Series("a", X + 1e-6, np.array([1e-7, 1e-3, 10.0, 0.0]), "#112233", "points"),
            marks=(Mark("p", 3.0), Mark("q", 1e-5), Mark("r", 7.0)), log_x=True, log_y=True),
        "large numbers": line_chart(Series("a", long, 1e5 * np.sin(long), "#112233"), x_ticks=(0.0, 2500.0, 5000.0)),
        "a cloud with hints": line_chart(
            Series("", long[:90], long[:90], "#112233", "points", (), tuple(f"h{i}" for i in range(90)))),
        "names and a star": line_chart(
            Series("m", X, gap, "#112233", "line", ("M = 1", "M = 2", "M = 3 ★", "")),
            Series("best", X, X, "#445566", "points", ("★",) * 4)),
        "nothing": line_chart(Series("a", X, np.full(4, NAN), "#112233")),
        "few bars": BarChart("bars", "t", "c", "rank", "n", ("a", "b"), np.array([1.0, 2.0]), (Mark("mean", 1.5),),
                             {"node": (1, None), "why": ("x", "y")}),
        "many bars": BarChart("bars", "t", "c", "rank", "n", tuple(f"r{i}" for i in range(100)), bars),
        "dots": DotChart("dots", "t", "c", "x", ("a", "b"), {"p": np.array([1.0, NAN]), "q": np.array([2.0, NAN])}),
        "dots with spans and zero": DotChart("dots", "t", "c", "x", ("a", "b"), {"p": np.array([1.0, 2.0])},
                                             {"p": (np.array([0.5, 1.5]), np.array([1.5, 2.5]))}, True),
        "lanes": Gantt("lanes", "t", "c", "x", "rank", tuple(str(i) for i in range(40)), np.arange(40), np.zeros(40),
                       np.arange(40.0) + 1, ("gate", "wait") * 20, np.arange(40) % 2 == 0, ("n",) * 40,
                       {"gate": "#112233", "wait": "#445566", "none": "#778899"}, 8),
        "a linear map with holes": HeatMap("map", "t", "c", "row", "column", "v",
                                           {"": np.array([[1.0, NAN, -3.0], [0.0, 2.0, 4.0]])}, log=False),
        "a log map with zeros": HeatMap("map", "t", "c", "row", "column", "v",
                                        {"a": np.arange(64.0).reshape(8, 8), "b": np.zeros((8, 8))}, 4),
        "one value": HeatMap("map", "t", "c", "row", "column", "v", {"": np.full((1, 1), 5e5)}),
    }  # fmt: skip


def compared(chart: Drawn) -> list[str]:
    roots = [json.loads(script_json(root)) for root in documents(chart).values()]
    twins = from_bokeh(chart)
    assert len(roots) == len(twins)
    return [text for root, twin in zip(roots, twins, strict=True) for text in differences(read_back(root), twin)]


@pytest.mark.parametrize("name", made_up())
def test_each_kind_of_chart_is_what_bokeh_itself_would_write(name: str) -> None:
    assert compared(made_up()[name]) == []


def test_every_chart_of_a_run_is_what_bokeh_would_write(result: Result) -> None:
    charts = [*_charts(result).values(), *_balance_charts(result)]
    assert {chart.key: compared(chart) for chart in charts if isinstance(chart, Drawn)} == {
        chart.key: [] for chart in charts if isinstance(chart, Drawn)
    }


def test_every_chart_of_a_comparison_is_what_bokeh_would_write(variants: list[tuple[str, Result]]) -> None:
    charts = [*comparison_charts(variants).values(), *training_overlays(variants)]
    assert [text for chart in charts if isinstance(chart, Drawn) for text in compared(chart)] == []


def test_every_chart_of_a_sweep_is_what_bokeh_would_write() -> None:
    data = per(swept((EXPERTS, GROUPS, TOP_K, NIC)), 2)
    charts = [*axis_charts(data), *group_charts(data), *pareto_charts(data), *scaling_charts(data)]
    assert len(charts) > 5
    assert [text for chart in charts for text in compared(chart)] == []


def test_the_comparison_with_bokeh_notices_a_wrong_colour_and_a_wrong_reference() -> None:
    chart = made_up()["lanes"]
    root = documents(chart)[""]
    root["attributes"]["renderers"][0]["attributes"]["glyph"]["attributes"]["fill_color"] = "#000000"
    hover = root["attributes"]["toolbar"]["attributes"]["tools"][-1]["attributes"]
    hover["renderers"].reverse()
    found = list(differences(read_back(root), from_bokeh(chart)[0]))
    assert any("fill_color" in text and "#000000" in text and "#112233" in text for text in found)
    assert any(text.endswith("refers to another object") for text in found)
