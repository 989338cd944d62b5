"""When each rank does what: per-rank processes on one clock."""

from moesim.timeline.phase import PhaseTrace
from moesim.timeline.ranks import LANE, LayerTrace, LayerWork, LinkSeries, run_layers

__all__ = ["LANE", "LayerTrace", "LayerWork", "LinkSeries", "PhaseTrace", "run_layers"]
