"""A run before its clock: tokens, where each layer's routing sends them, what that asks of the cluster."""

from moesim.layer.alike_places import Alike, alike_places
from moesim.layer.attention_kinds import CONTEXTS, attention_kinds, least_by_context
from moesim.layer.destinations import PORTS_NOTE, replica_seed, uses_ports
from moesim.layer.faults import effects
from moesim.layer.inference import Inference, Requests, Training, requests_of
from moesim.layer.kernel_seconds import KernelLedger, PricedKernel, layer_kernels
from moesim.layer.learning import (
    Seen,
    opened,
    placed_by_batch,
    see,
    what_follows,
    window,
    with_learnt_placement,
)
from moesim.layer.parts import (
    Parts,
    build_parts,
    check_slots,
    place,
    with_effects,
)
from moesim.layer.recorded_router import counterfactuals, first_bias
from moesim.layer.routed_layer import LayerLoad, RoutedLayer, layer_load, rewired, route_layer
from moesim.layer.scenario_cluster import build_fabric, faulty_cluster, views_of_groups, whole_cluster
from moesim.layer.step_kernels import StepPrices
from moesim.layer.token_batches import Workload, add_training_rows, open_workload, trace_of
from moesim.layer.training_kernels import Passes, dense_layer, output_head, prediction_layer

__all__ = [
    "CONTEXTS",
    "PORTS_NOTE",
    "Alike",
    "Inference",
    "KernelLedger",
    "LayerLoad",
    "Parts",
    "Passes",
    "PricedKernel",
    "Requests",
    "RoutedLayer",
    "Seen",
    "StepPrices",
    "Training",
    "Workload",
    "add_training_rows",
    "alike_places",
    "attention_kinds",
    "build_fabric",
    "build_parts",
    "check_slots",
    "counterfactuals",
    "dense_layer",
    "effects",
    "faulty_cluster",
    "first_bias",
    "layer_kernels",
    "layer_load",
    "least_by_context",
    "open_workload",
    "opened",
    "output_head",
    "place",
    "placed_by_batch",
    "prediction_layer",
    "replica_seed",
    "requests_of",
    "rewired",
    "route_layer",
    "see",
    "trace_of",
    "uses_ports",
    "views_of_groups",
    "what_follows",
    "whole_cluster",
    "window",
    "with_effects",
    "with_learnt_placement",
]
