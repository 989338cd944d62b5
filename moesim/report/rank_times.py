"""Times and rates of the ranks: how they are distributed, and how near the expert GEMMs come to what the GPU can do."""

from collections.abc import Mapping, Sequence

import numpy as np

from moesim import stages
from moesim.report.charts import LineChart, Series, worded
from moesim.report.columns import columns_of, first_layer, rows_in
from moesim.report.palette import MARK, PHASES, series_colour
from moesim.report.quantities import Floats, axis_scale, filled, rounded
from moesim.results import Result

# Curves of distributions that one chart can tell apart.
_MOST_CURVES = 8
# Points of the roofline: beyond this a cloud only gets darker.
_MOST_RANKS = 256


def rank_times_chart(result: Result) -> LineChart | None:
    """How the ranks' own times in expert compute, dispatch and combine are distributed, over the layers."""
    spans = columns_of(result, "spans")
    if not rows_in(spans):
        return None
    took = np.asarray(spans["end_s"]) - np.asarray(spans["start_s"]) - np.nan_to_num(filled(spans["wait_s"]))
    phases = np.asarray(spans["phase"], str)
    times = {name: took[phases == name] for name in stages.OVER_RANKS}
    return _distribution(
        {name.replace("_", " "): (seconds, PHASES[name]) for name, seconds in times.items() if seconds.any()},
        "CDF of the ranks' times",
        "Share of the ranks, in all layers, that are done with a stage after so long, waiting left out. A long tail to "
        "the right is what the others wait for.",
        "spans.parquet",
    )


def rank_times_of_runs(runs: Sequence[tuple[str, Result]]) -> LineChart | None:
    """How the ranks' busy times are distributed, a curve per run."""
    times = {}
    for position, (name, run) in enumerate(runs[:_MOST_CURVES]):
        ranks = columns_of(run, "ranks")
        times[name] = (filled(ranks["compute_s"]) + filled(ranks["transfer_s"]), series_colour(position))
    more = len(runs) - _MOST_CURVES
    return _distribution(
        times,
        "CDF of the ranks' times",
        "Share of the ranks, in all layers, that compute and move bytes for no longer than that; waiting is left out."
        + (f" The first {_MOST_CURVES} of {len(runs)} runs." if more > 0 else ""),
        "ranks.parquet",
    )


def _distribution(times: Mapping[str, tuple[Floats, str]], title: str, caption: str, source: str) -> LineChart | None:
    if not times:
        return None
    scale, unit = axis_scale(np.concatenate([seconds for seconds, _ in times.values()]), "s")
    series = []
    for name, (seconds, colour) in times.items():
        values, count = np.unique(rounded(seconds / scale), return_counts=True)
        share = 100 * np.cumsum(count) / len(seconds)
        series.append(Series(name, np.append(values[0], values), np.append(0.0, share), colour, "steps"))
    return LineChart(
        **worded("rank_times", unit=unit), title=title, caption=caption, series=tuple(series), source=source
    )


def roofline_chart(result: Result) -> LineChart | None:
    """Rate of each rank's expert GEMMs in the first layer over their arithmetic intensity, under the GPU's roofline."""
    ranks, topology = first_layer(columns_of(result, "ranks")), result.explanation["topology"]
    if "expert_flops" not in ranks:
        return None
    flops, moved, seconds = (filled(ranks[f"expert_{name}"]) for name in ("flops", "moved_bytes", "gemm_s"))
    busy = np.flatnonzero((flops > 0) & (seconds > 0))
    if not len(busy):
        return None
    peak, memory = topology["gemm_flops_per_s"], topology["memory_bytes_per_s"]
    kept = busy[np.unique(np.linspace(0, len(busy) - 1, min(len(busy), _MOST_RANKS)).astype(np.int64))]
    intensity, rate = flops[kept] / moved[kept], flops[kept] / seconds[kept]
    ridge = peak / memory
    ends = np.array([min(float(intensity.min()), ridge) / 2, ridge, max(float(intensity.max()), ridge) * 2])
    names = tuple(f"rank {rank}" for rank in np.asarray(ranks["rank"])[kept])
    roof = np.minimum(peak, memory * ends) / 1e12
    kernel = next(row for row in result.explanation["kernels"] if row["kernel"].startswith("grouped_gemm"))
    dtype = str(kernel["kernel"]).rpartition("_")[2].upper()
    return LineChart(
        **worded("roofline", dtype=dtype),
        series=(
            Series("the GPU's peaks", ends, roof, MARK),
            Series("ranks", intensity, rate / 1e12, series_colour(0), "points", hints=names),
        ),
        log_x=True,
        log_y=True,
    )
