"""When each rank does what: per-rank processes on one clock."""

from moesim.timeline.intervals import union_length
from moesim.timeline.link_use import LinkUse, phase_could_carry, phase_use
from moesim.timeline.phase import PhaseTrace
from moesim.timeline.pipeline import Ran, run_pipeline
from moesim.timeline.pipelines import PIPELINES
from moesim.timeline.pipelines.passes import Pass, Task
from moesim.timeline.program import Key, Operation, Program, moe_layers, with_migrations
from moesim.timeline.quick_clock import run_layers_quickly
from moesim.timeline.ranks import (
    NO_CURVES_S,
    LayerTrace,
    LayerWork,
    LinkSeries,
    MigrationTrace,
    RankGroup,
    run_groups,
    run_layers,
)
from moesim.timeline.schedules import BACKWARD, FORWARD, SCHEDULES, WEIGHTS
from moesim.timeline.uniform_alltoall import run_phase

__all__ = [
    "BACKWARD",
    "FORWARD",
    "NO_CURVES_S",
    "PIPELINES",
    "SCHEDULES",
    "WEIGHTS",
    "Key",
    "LayerTrace",
    "LayerWork",
    "LinkSeries",
    "LinkUse",
    "MigrationTrace",
    "Operation",
    "Pass",
    "PhaseTrace",
    "Program",
    "Ran",
    "RankGroup",
    "Task",
    "moe_layers",
    "phase_could_carry",
    "phase_use",
    "run_groups",
    "run_layers",
    "run_layers_quickly",
    "run_phase",
    "run_pipeline",
    "union_length",
    "with_migrations",
]
