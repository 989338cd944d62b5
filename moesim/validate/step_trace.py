"""A published trace of a step put together again: its own times of single kernels through the schedule that it ran.

DeepSeek's decode trace gives each kernel of a micro-batch and the time of 61 layers. No model of moesim's prices
anything here: what is tested is the schedule. The trace's transfers hold its sends and receives, so hooks take no time.
"""

from collections.abc import Sequence

import numpy as np

from moesim.cluster import load_topology
from moesim.stages import STAGES, STEP
from moesim.timeline import SCHEDULES, LayerTrace, LayerWork, run_layers
from moesim.validate.published_steps import Step

_LAYERS = 61
_WHOLE = f"time of {_LAYERS} layers"
_STAGE_OF = {
    "q_a and kv_a GEMM": "projections",
    "bmm q x W_UK": "projections",
    "attention core (FlashMLA)": "attention",
    "o_proj GEMM": "attention",
    "gate, norm, top-k": "gate",
    "dispatch in flight": "dispatch",
    "combine in flight": "combine",
    "expert up GEMM": "experts",
    "expert down GEMM": "experts",
    "SwiGLU": "experts",
    "shared expert up": "shared_expert",
}


def decode_trace(steps: Sequence[Step]) -> tuple[float, float] | None:
    """Return published and simulated milliseconds of the trace's layers; None where the table has not all its parts."""
    rows = {step.row["metric"]: step.measured for step in steps if step.row["kind"] == "trace-decode"}
    if _WHOLE not in rows or not rows.keys() >= _STAGE_OF.keys():
        return None
    seconds = dict.fromkeys((stage.name for stage in (*STAGES, *STEP)), np.zeros(1))
    for metric, stage in _STAGE_OF.items():
        seconds[stage] = seconds[stage] + rows[metric] * 1e-6
    program = tuple(
        operation._replace(stage=operation.stage._replace(kind="kernel"))
        for operation in SCHEDULES["decode", "two-batch"](_LAYERS, False)
    )
    fabric = load_topology("hgx-h800").first_ranks(1)
    ran = run_layers(fabric, program, lambda *_: LayerWork(seconds, {}), np.zeros(1))
    traces = [trace for trace in ran if isinstance(trace, LayerTrace)]
    ends = max(float(trace.end_s_of_layer.max()) for trace in traces)
    # Attention of the first micro-batch fills the pipeline, which a trace of layers does not show.
    return rows[_WHOLE], (ends - min(float(trace.entry_s.min()) for trace in traces)) * 1e3
