"""When each rank does what: per-rank processes on one clock."""

from moesim.timeline.phase import PhaseTrace
from moesim.timeline.program import Operation, Program, moe_layers
from moesim.timeline.ranks import LayerTrace, LayerWork, LinkSeries, run_layers

__all__ = [
    "LayerTrace",
    "LayerWork",
    "LinkSeries",
    "Operation",
    "PhaseTrace",
    "Program",
    "moe_layers",
    "run_layers",
]
