"""What a run's traces say: critical rank, bound, summary, tables, and the terms of every number."""

from moesim.measure.critical import CriticalRank
from moesim.measure.explained import explanation, held_seconds
from moesim.measure.flow_export import GRADIENTS, FlowExport, joint_flows
from moesim.measure.inference_step import StepTime
from moesim.measure.layer_tables import (
    add_busy_links,
    add_layer_rows,
    add_migration_rows,
    add_series_rows,
    bucket_width_s,
)
from moesim.measure.lower_bound import LayerBytes
from moesim.measure.notes import ToleranceLedger, degraded, idle_ranks, steps_pay
from moesim.measure.rebalancing import rebalancing, rebalancing_notes, slot_bytes
from moesim.measure.summary import SummaryBuilder
from moesim.measure.terms_of_run import RunTerms
from moesim.measure.times_moved import spreads
from moesim.measure.training_step import TrainingTime, add_pipeline_rows, model_flops

__all__ = [
    "GRADIENTS",
    "CriticalRank",
    "FlowExport",
    "LayerBytes",
    "RunTerms",
    "StepTime",
    "SummaryBuilder",
    "ToleranceLedger",
    "TrainingTime",
    "add_busy_links",
    "add_layer_rows",
    "add_migration_rows",
    "add_pipeline_rows",
    "add_series_rows",
    "bucket_width_s",
    "degraded",
    "explanation",
    "held_seconds",
    "idle_ranks",
    "joint_flows",
    "model_flops",
    "rebalancing",
    "rebalancing_notes",
    "slot_bytes",
    "spreads",
    "steps_pay",
]
