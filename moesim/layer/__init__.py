"""A run before its clock: tokens, where each layer's routing sends them, what that asks of the cluster."""

from moesim.layer.destinations import PORTS_NOTE, replica_seed, uses_ports
from moesim.layer.inference import Inference
from moesim.layer.kernel_seconds import KernelLedger, PricedKernel, layer_kernels
from moesim.layer.parts import Parts, build_fabric, build_parts, counterfactuals, place, read_bias
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
    "Workload",
    "add_training_rows",
    "build_fabric",
    "build_parts",
    "counterfactuals",
    "layer_kernels",
    "layer_load",
    "open_workload",
    "place",
    "read_bias",
    "replica_seed",
    "route_layer",
    "trace_of",
    "uses_ports",
]
