"""A run before its clock: tokens, where each layer's routing sends them, what that asks of the cluster."""

from moesim.layer.alike_places import Alike, alike_places
from moesim.layer.attention_kinds import CONTEXTS, attention_kinds, least_by_context
from moesim.layer.destinations import PORTS_NOTE, replica_seed, uses_ports
from moesim.layer.faults import effects
from moesim.layer.inference import Inference, Requests, requests_of
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
    "CONTEXTS",
    "PORTS_NOTE",
    "Alike",
    "Inference",
    "KernelLedger",
    "LayerLoad",
    "Parts",
    "PricedKernel",
    "Requests",
    "RoutedLayer",
    "Seen",
    "Workload",
    "add_training_rows",
    "alike_places",
    "attention_kinds",
    "build_fabric",
    "build_parts",
    "counterfactuals",
    "effects",
    "first_bias",
    "layer_kernels",
    "layer_load",
    "least_by_context",
    "open_workload",
    "place",
    "placed_by_batch",
    "replica_seed",
    "requests_of",
    "route_layer",
    "see",
    "trace_of",
    "uses_ports",
    "what_follows",
    "window",
    "with_effects",
    "with_learnt_placement",
]
