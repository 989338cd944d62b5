"""Recorded routing as engines and trainers write it: dumps in, one trace out."""

from moesim.dumps.numpy_file import number_layers, read_array
from moesim.dumps.read_routing import read_routing
from moesim.dumps.routing_trace import RoutingTrace, Source, shortened, top_of_logits
from moesim.dumps.trace_file import write_routing

__all__ = [
    "RoutingTrace", "Source", "number_layers", "read_array", "read_routing", "shortened", "top_of_logits",
    "write_routing",
]  # fmt: skip
