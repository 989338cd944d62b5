"""The page of a balance study: every method's curves over the steps, what was recorded beside what was simulated."""

from collections.abc import Mapping
from statistics import median
from typing import Any, Literal

import numpy as np

from moesim.report.charts import LineChart, Mark, Series, page_words
from moesim.report.data_table import Cell, DataTable
from moesim.report.page import render, view_of
from moesim.report.palette import MARK, series_colour

_FLOORS = {"sequences": "even experts, by sequences", "uniform_router": "uniform router"}


def render_balance(study: Mapping[str, Any]) -> str:
    """Write the page of a balance study, one HTML file.

    Args:
        study: what ``moesim balance --json`` prints.
    """
    charts = {name: [view_of(one) for one in _charts(study, name)] for name in ("balance", "losses", "times")}
    compared = [view_of(one) for one in _comparison_charts(study)]
    return render(
        "balance.html.j2",
        title=f"Balance over training, {study['title']}",
        headline=_headline(study),
        notes=study["notes"],
        charts=charts,
        compared=compared,
        errors=_error_table(study),
        constants=DataTable(
            ("constant", "value", "from"),
            [(name.replace("_", " "), _short(one["value"]), one["source"]) for name, one in study["constants"].items()],
        ),
    )  # fmt: skip


def _headline(study: Mapping[str, Any]) -> str:
    """What each method ends with, in a sentence."""
    last = {row["method"]: row for row in study["rows"]}
    said = [f"{name} ends at max/mean {row['expert_load_max_over_mean']:.2f}" for name, row in last.items()]
    floors = study["floors"]
    return (
        f"{'; '.join(said)}. Even experts would show {floors['sequences']:.2f}, since tokens of a sequence go together "
        f"(a uniform router {floors['uniform_router']:.2f})."
    )


def _charts(study: Mapping[str, Any], section: str) -> list[LineChart]:
    methods = list(dict.fromkeys(row["method"] for row in study["rows"]))
    charts = []
    for words in page_words("curves.toml")[section]:
        column, scale, log, series = words["column"], words.get("scale", 1.0), words.get("log_y", False), list[Series]()
        for position, method in enumerate(methods):
            own = [row for row in study["rows"] if row["method"] == method and row.get(column) is not None]
            x, y = (np.array([float(row[name]) for row in own]) for name in ("step", column))
            if len(own) and (np.ptp(y) > 0 or y[0] not in (0.0, 1.0)):  # a bias that is none, a single node
                drawn: Literal["points", "line"] = "points" if method.endswith(", recorded") else "line"
                series.append(Series(method, x, y * scale, series_colour(position), drawn))
        evaluated = column == "expert_load_max_over_mean"
        marks = tuple(Mark(_FLOORS[name], value) for name, value in study["floors"].items()) if evaluated else ()
        if series:
            caption = "mean over the layers" + ("; logarithmic" if log else "")
            charts.append(
                LineChart(
                    f"balance_{column}", words["title"], f"{caption[0].upper()}{caption[1:]}.", "training step",
                    words["y_label"], tuple(series), marks, log_y=log, source="balance.json",
                )
            )  # fmt: skip
    return charts


def _comparison_charts(study: Mapping[str, Any]) -> list[LineChart]:
    charts = []
    for i, one in enumerate(study["comparisons"]):
        for key, title, recorded, simulated in (
            ("load", "max / mean", one["recorded"], one["simulated"]),
            ("bias", "spread of the bias", one["bias_recorded"], one["bias_simulated"]),
        ):
            if not recorded:
                continue
            x = np.array(one["steps"], float)
            series = [
                Series("recorded", x, np.array(recorded), MARK, "dashed"),
                Series("simulated", x, np.array(simulated), series_colour(i)),
            ]
            fitted = "; constants were fitted on it" if one["fitted"] else "; nothing was fitted on it"
            charts.append(
                LineChart(
                    f"recorded_{key}_{i}", f"{one['name']}: {title}", f"At the snapshots, mean over layers{fitted}.",
                    "training step", title, tuple(series), log_x=True, x_ticks=tuple(x),
                )
            )  # fmt: skip
    return charts


def _error_table(study: Mapping[str, Any]) -> DataTable:
    rows: list[tuple[Cell, ...]] = []
    for one in study["comparisons"]:
        worst = int(np.argmax(one["factors"]))
        null = one["null"]
        guess: tuple[Cell, ...] = (
            (f"as {null} was", median(one["null_factors"]), max(one["null_factors"])) if null else (None, None, None)
        )
        rows.append(
            (
                one["name"], "fitted" if one["fitted"] else "held out", median(one["factors"]), max(one["factors"]),
                f"step {one['steps'][worst]}: {one['simulated'][worst]:.2f} for {one['recorded'][worst]:.2f}",
                *guess,
            )
        )  # fmt: skip
    columns = ("run", "constants", "median factor", "worst factor", "where", "null model", "its median", "its worst")
    return DataTable(columns, rows)


def _short(value: Any) -> str:
    numbers = value if isinstance(value, list | tuple) else [value]
    return ", ".join(f"{number:.4g}" for number in numbers)
