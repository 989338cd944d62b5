"""A whole step in pictures: the two lanes of one rank while passes alternate, and the ranks of a training pipeline."""

import numpy as np

from moesim.report.charts import Gantt, worded
from moesim.report.columns import columns_of, pick, rows_in
from moesim.report.palette import PHASES
from moesim.report.quantities import axis_scale, quantity
from moesim.results import Result
from moesim.stages import LANES

# Layers shown: those in the middle, where the micro-batches are in step.
_LAYERS = 2
# Passes of a pipeline shown at most: more bars than this no screen tells apart.
_PASSES = 6000
_BESIDE = "forward beside backward"
_PASS_NAMES = {
    "forward": "forward",
    "backward": "backward",
    "input": "backward, inputs",
    "weights": "backward, weights",
}
_PASS_COLOURS = {
    "forward": "#56b4e9", _BESIDE: "#0072b2", "backward": "#009e73", "backward, inputs": "#66c2a5",
    "backward, weights": "#b3e2cd",
}  # fmt: skip


def lanes_chart(result: Result) -> Gantt | None:
    """Compute and network of the rank that ends the step, over two layers; None of MoE layers alone."""
    spans = columns_of(result, "spans")
    if "tokens_per_second" not in result.summary or not rows_in(spans):
        return None
    spans = pick(spans, np.asarray(spans["step"]) == np.asarray(spans["step"]).min())
    rank = int(np.asarray(spans["rank"])[np.argmax(np.asarray(spans["end_s"]))])
    layer = np.asarray(spans["layer"])
    first = max((int(layer.max()) - _LAYERS + 1) // 2, 0)
    own = pick(spans, (np.asarray(spans["rank"]) == rank) & (layer >= first) & (layer < first + _LAYERS))
    start, end = np.asarray(own["start_s"]), np.asarray(own["end_s"])
    whole = np.isin(np.asarray(own["phase"]), ("host", "dense_layers", "head"))
    own = pick(own, ~whole & (end > start))
    begin = float(np.asarray(own["start_s"]).min())
    start, end = np.asarray(own["start_s"]) - begin, np.asarray(own["end_s"]) - begin
    scale, unit = axis_scale(end, "s")
    second = "on the way back" if "mfu" in result.summary else "of the second micro-batch"
    lanes, cuts = np.asarray(own["lane"], str), np.asarray(own["micro_batch"])
    return Gantt(
        **worded("step_lanes", rank=rank, first=first, last=first + 1, second=second, unit=unit),
        rows=LANES,
        row=np.array([LANES.index(lane) for lane in lanes.tolist()]),
        start=start / scale,
        end=end / scale,
        phase=tuple(str(name) for name in own["phase"]),
        slim=cuts > 0,
        note=tuple(f"layer {at}, micro-batch {cut}" for at, cut in zip(own["layer"], cuts, strict=True)),
        colours=PHASES,
        grid_every=1,
    )


def pipeline_chart(result: Result) -> Gantt | None:
    """What each rank of a training pipeline does over the first step; None but for training."""
    if "pipeline" not in result.tables:
        return None
    table = result.tables.columns("pipeline")
    kinds, beside = np.asarray(table["kind"], str), np.asarray(table["overlapped"]) > 0
    # Of two passes that overlap one bar.
    shown = (np.asarray(table["step"]) == np.asarray(table["step"]).min()) & ~(beside & (kinds == "backward"))
    chosen = np.flatnonzero(shown)
    chosen = chosen[np.argsort(np.asarray(table["start_s"])[chosen], kind="stable")]
    left_out, chosen = len(chosen) - _PASSES, chosen[:_PASSES]
    own = {name: np.asarray(table[name])[chosen] for name in table}
    (scale, unit), ranks = axis_scale(own["end_s"], "s"), int(own["rank"].max()) + 1
    idle = quantity(result.summary["pipeline_bubble_share"], "%")
    return Gantt(
        **worded("pipeline", ranks=ranks, unit=unit),
        caption=f"What each rank of a pipeline does, a bar for each pass of a micro-batch. White is bubble: the rank "
        f"waits for another one's pass, on the busiest rank {idle} of the step. The optimizer follows."
        + (f" The last {left_out:,} passes are not drawn." if left_out > 0 else ""),
        rows=tuple(map(str, range(ranks))),
        row=own["rank"],
        start=own["start_s"] / scale,
        end=own["end_s"] / scale,
        phase=tuple(
            _BESIDE if both else _PASS_NAMES[kind] for both, kind in zip(own["overlapped"], own["kind"], strict=True)
        ),
        slim=np.zeros(len(chosen), bool),
        note=tuple(f"stage {at}, micro-batch {i}" for at, i in zip(own["stage"], own["micro_batch"], strict=True)),
        colours=_PASS_COLOURS,
        grid_every=1,
    )
