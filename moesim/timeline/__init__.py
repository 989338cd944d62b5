"""When each rank does what: per-rank processes on one clock."""

from moesim.timeline.intervals import union_length
from moesim.timeline.link_use import LinkUse, phase_could_carry, phase_use
from moesim.timeline.phase import PhaseTrace
from moesim.timeline.program import Key, Operation, Program, moe_layers, with_migrations
from moesim.timeline.ranks import LayerTrace, LayerWork, LinkSeries, MigrationTrace, run_layers
from moesim.timeline.schedules import SCHEDULES
from moesim.timeline.uniform_alltoall import run_phase

__all__ = [
    "SCHEDULES",
    "Key",
    "LayerTrace",
    "LayerWork",
    "LinkSeries",
    "LinkUse",
    "MigrationTrace",
    "Operation",
    "PhaseTrace",
    "Program",
    "moe_layers",
    "phase_could_carry",
    "phase_use",
    "run_layers",
    "run_phase",
    "union_length",
    "with_migrations",
]
