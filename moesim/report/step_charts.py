"""A whole inference step in pictures: what the two lanes of one rank do while the micro-batches alternate."""

import numpy as np

from moesim.report.charts import Gantt
from moesim.report.columns import columns_of, pick, rows_in
from moesim.report.palette import PHASES
from moesim.report.quantities import axis_scale
from moesim.results import Result
from moesim.stages import LANES

# Layers shown: those in the middle, where the micro-batches are in step.
_LAYERS = 2


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
    lanes, cuts = np.asarray(own["lane"], str), np.asarray(own["micro_batch"])
    return Gantt(
        key="step_lanes",
        title=f"The lanes of rank {rank}, layers {first} and {first + 1}",
        caption="Each lane does one thing at a time; thin bars are of the second micro-batch. Where the compute lane "
        "is empty, communication shows.",
        x_label=f"time ({unit})",
        row_label="lane",
        rows=LANES,
        row=np.array([LANES.index(lane) for lane in lanes.tolist()]),
        start=start / scale,
        end=end / scale,
        phase=tuple(str(name) for name in own["phase"]),
        slim=cuts > 0,
        note=tuple(f"layer {at}, micro-batch {cut}" for at, cut in zip(own["layer"], cuts, strict=True)),
        colours=PHASES,
        grid_every=1,
        source="spans.parquet",
    )
