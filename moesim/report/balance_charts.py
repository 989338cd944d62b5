"""Balance: imbalance and losses over the layers of a run and over the steps of the training it was recorded from."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moesim.report.charts import LineChart, Mark, Series, page_words, worded
from moesim.report.columns import Columns, columns_of, layer_numbers, mean_by, rows_in
from moesim.report.palette import series_colour
from moesim.report.quantities import Floats, axis_scale, filled, quantity
from moesim.results import Result
from moesim.stages import MIGRATION

LOSSES = ("expert_loss", "device_loss", "communication_loss", "sequence_loss", "z_loss")
# Layers whose numbers are all written on an axis.
_MOST_TICKS = 12
_IMBALANCE = {
    "expert_load_max_over_mean": "experts, max/mean",
    "rank_load_max_over_mean": "ranks, max/mean",
    "node_load_max_over_mean": "nodes, max/mean",
    "sequence_imbalance_p50": "within a sequence, median",
    "sequence_imbalance_p99": "within a sequence, 99th percentile",
}

_IMBALANCE_IN_TRAINING = _IMBALANCE | {
    "held_out_expert_load_max_over_mean": "experts on unseen text, max/mean",
    "held_out_sequence_imbalance_p99": "within a sequence of unseen text, 99th percentile",
}


def rebalance_charts(result: Result) -> list[LineChart]:
    """Load, layer time and migration over the steps of a run whose experts were placed anew; nothing elsewhere."""
    moved = columns_of(result, "migrations") if "migrations" in result.tables else {}
    if not rows_in(moved) or "rebalance" not in result.explanation:
        return []
    steps, about = columns_of(result, "steps"), result.explanation["rebalance"]
    x, layer_s = mean_by(steps, "step", "layer_time_s")
    stops_s, stored = np.zeros(len(x)), np.zeros(len(x))
    length = filled(moved["end_s"]) - filled(moved["start_s"])
    at, stopped = np.searchsorted(x, np.asarray(moved["step"])), np.asarray(moved["lane"]) == MIGRATION.lane
    np.add.at(stops_s, at[stopped], length[stopped])
    np.add.at(stored, at, filled(moved["wire_bytes"]))
    anew = f"every {about['every']} steps by {about['policy']}, {about['mode']}"
    least, most = (quantity(value, "s") for value in about["fixed_range_s"])
    charts = []
    for key, title, caption, y_label, series in (
        ("step_load", "Load over the steps", f"Most loaded over mean, mean over the layers; placed anew {anew}.",
         "max/mean", _series(steps, "step", dict([*_IMBALANCE.items()][:3]))),
        ("step_time", "Layer time over the steps", "Mean over the layers. Late ranks and contention with weights "
         "are in it, stops for weights are not.", *_scaled(x, layer_s, "s", "layer time")),
        ("step_stops", "Stops for weights over the steps",
         f"From the first rank that stops to the last that goes on, sum over the layers; "
         f"{quantity(about['fixed_s'], 's')} of each layer's are the fixed time (published {least} to {most}).",
         *_scaled(x, stops_s, "s", "stop")),
        ("step_weights", "Weights moved over the steps",
         f"An expert has {quantity(about['expert_bytes'], 'B')}. Redundant slots hold "
         f"{quantity(about['redundant_bytes_per_rank'], 'B')} of each GPU's memory, "
         f"{quantity(about['redundant_bytes'], 'B')} in all, in all layers of the model.",
         *_scaled(x, stored, "B", "weights moved")),
    ):  # fmt: skip
        charts.append(LineChart(key, title, caption, "step", y_label, series, source="migrations.parquet"))
    return charts


def _scaled(x: NDArray[Any], y: Floats, unit: str, word: str) -> tuple[str, tuple[Series, ...]]:
    """Label of the axis and the one curve, in a unit that suits it."""
    scale, name = axis_scale(y, unit)
    return f"{word} ({name})", (Series(word, x.astype(np.float64), y / scale, series_colour(0)),)


def layer_charts(result: Result) -> list[LineChart]:
    """Imbalance and losses over the layers; nothing where a single layer was simulated."""
    steps = columns_of(result, "steps")
    if len(np.unique(np.asarray(steps["layer"]))) < 2:
        return []
    word, numbers = layer_numbers(result)
    steps = dict(steps, layer=[numbers[layer] for layer in np.asarray(steps["layer"]).tolist()])
    floor = result.summary["uniform_router_expert_max_over_mean"]
    ticks = tuple(float(number) for number in sorted(numbers.values())) if len(numbers) <= _MOST_TICKS else ()
    marks = (Mark("experts under a uniform router", float(floor)),) if floor is not None else ()
    charts = [
        LineChart(
            **worded("layer_imbalance"),
            x_label=word,
            series=_series(steps, "layer", _IMBALANCE),
            marks=marks,
            x_ticks=ticks,
        ),
        LineChart(
            **worded("layer_losses"),
            x_label=word,
            series=_series(_in_balance(steps, result), "layer", _loss_columns(steps)),
            marks=(Mark("perfect balance", 1.0),),
            x_ticks=ticks,
        ),
    ]
    return [chart for chart in charts if chart.series]


def _in_balance(columns: Columns, result: Result) -> Columns:
    """Divide the losses by their values in perfect balance; those that have none are left out."""
    even = result.explanation["losses_in_balance"]
    divided = {name: filled(columns[name]) / even[name] for name in LOSSES if name in columns and even.get(name)}
    return {name: column for name, column in columns.items() if name not in LOSSES} | divided


def training_charts(result: Result) -> list[LineChart]:
    """Balance over the recorded training steps, mean over the layers; nothing without a training history."""
    training = columns_of(result, "training")
    if not rows_in(training) or len(np.unique(np.asarray(training["training_step"]))) < 2:
        return []
    wanted = {key: words for key, words in _IMBALANCE_IN_TRAINING.items() if key in training}
    charts = [
        LineChart(**worded("training_imbalance"), series=_series(training, "training_step", wanted)),
        LineChart(
            **worded("training_losses"), series=_series(training, "training_step", _loss_columns(training)), log_y=True
        ),
    ]
    if "bias_spread" in training and np.nanmax(filled(training["bias_spread"])) > 0:
        charts.append(
            LineChart(
                **worded("training_bias"), series=_series(training, "training_step", {"bias_spread": "bias spread"})
            )
        )
    return [chart for chart in charts if chart.series]


def overlaid_training(runs: Mapping[str, Result]) -> list[LineChart]:
    """Training curves of several recordings over each other, each recording once.

    Args:
        runs: by the name under which each curve is to appear.
    """
    charts = []
    for words in page_words("curves.toml")["overlaid"]:
        column, log = words["column"], words.get("log_y", False)
        series: list[Series] = []
        for position, (name, result) in enumerate(runs.items()):
            training = columns_of(result, "training")
            if column not in training or len(np.unique(np.asarray(training["training_step"]))) < 2:
                continue
            x, y = mean_by(training, "training_step", column)
            if np.isfinite(y).any() and np.nanmax(np.abs(y)) > 0:
                series.append(Series(name, x.astype(np.float64), y, series_colour(position)))
        if series:
            charts.append(
                LineChart(
                    key=words["key"],
                    title=words["title"],
                    caption="Each recording's own training, mean over the layers" + ("; logarithmic." if log else "."),
                    x_label="training step",
                    y_label=words["y_label"],
                    series=tuple(series),
                    log_y=log,
                    source="training.parquet",
                )
            )
    return charts


def training_fingerprint(result: Result) -> bytes:
    """Equal for runs of the same recording; empty where there is no training history."""
    training = columns_of(result, "training")
    wanted = ("layer", "training_step", "expert_load_max_over_mean")
    return b"".join(filled(training[name]).tobytes() for name in wanted) if rows_in(training) else b""


def _series(columns: Columns, x: str, wanted: Mapping[str, str]) -> tuple[Series, ...]:
    series = []
    for position, (column, label) in enumerate(wanted.items()):
        if column not in columns:
            continue
        keys, values = mean_by(columns, x, column)
        if np.isfinite(values).any():
            series.append(Series(label, keys.astype(np.float64), values, series_colour(position)))
    return tuple(series)


def _loss_columns(columns: Columns) -> dict[str, str]:
    """The losses that are not zero throughout, by column, in words."""
    found = {}
    for loss in LOSSES:
        if loss in columns and np.nan_to_num(filled(columns[loss])).any():
            found[loss] = loss.removesuffix("_loss").replace("z", "router z")
    return found
