"""Balance: imbalance and losses over the layers of a run and over the steps of the training it was recorded from."""

from collections.abc import Mapping

import numpy as np

from moesim.report.charts import LineChart, Mark, Series, worded
from moesim.report.columns import Columns, columns_of, layer_numbers, mean_by, rows_in
from moesim.report.palette import series_colour
from moesim.report.quantities import filled
from moesim.results import SUMMARY, Result

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
    for key, column, title, y_label, log in (
        ("training_max_over_mean", "expert_load_max_over_mean", "Expert imbalance over training", "max/mean", False),
        (
            "training_sequence",
            "sequence_imbalance_p99",
            "Imbalance within a sequence over training",
            "max/mean, p99",
            False,
        ),
        (
            "training_held_out_sequence",
            "held_out_sequence_imbalance_p99",
            "Imbalance within a sequence of unseen text over training",
            "max/mean, p99",
            False,
        ),
        *(
            (f"training_{loss}", loss, f"{SUMMARY[loss].text.capitalize()} over training", "loss", True)
            for loss in LOSSES
        ),
        ("training_bias", "bias_spread", "Spread of the bias over training", "bias spread", False),
    ):
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
                    key=key,
                    title=title,
                    caption="Each recording's own training, mean over the layers" + ("; logarithmic." if log else "."),
                    x_label="training step",
                    y_label=y_label,
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
