"""A run before its clock: tokens, where each layer's routing sends them, what that asks of the cluster."""

from moesim.layer.destinations import PORTS_NOTE, replica_seed, uses_ports
from moesim.layer.inference import Inference
from moesim.layer.kernel_seconds import KernelLedger, PricedKernel, layer_kernels
from moesim.layer.learning import (
    Seen,
    first_bias,
    placed_by_batch,
    see,
    what_follows,
    window,
    with_learnt_placement,
)
from moesim.layer.parts import Parts, build_fabric, build_parts, counterfactuals, place, with_effects
from moesim.layer.routed_layer import LayerLoad, RoutedLayer, layer_load, route_layer
from moesim.layer.token_batches import Workload, add_training_rows, open_workload, trace_of

__all__ = [
    "PORTS_NOTE",
    "Inference",
    "KernelLedger",
    "LayerLoad",
    "Parts",
    "PricedKernel",
    "RoutedLayer",
    "Seen",
    "Workload",
    "add_training_rows",
    "build_fabric",
    "build_parts",
    "counterfactuals",
    "first_bias",
    "layer_kernels",
    "layer_load",
    "open_workload",
    "place",
    "placed_by_batch",
    "replica_seed",
    "route_layer",
    "see",
    "trace_of",
    "uses_ports",
    "what_follows",
    "window",
    "with_effects",
    "with_learnt_placement",
]
