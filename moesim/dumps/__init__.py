"""Recorded routing as engines and trainers write it: dumps in, one trace out."""

from moesim.dumps.read_routing import read_routing
from moesim.dumps.routing_trace import RoutingTrace, Source, shortened
from moesim.dumps.trace_file import TRACE, write_routing

__all__ = ["TRACE", "RoutingTrace", "Source", "read_routing", "shortened", "write_routing"]
