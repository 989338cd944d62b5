"""Flows on the fabric's links: exact max-min fair sharing, in time."""

from moesim.network.certificate import Unfair
from moesim.network.clock import CapacityEvents, NetworkClock
from moesim.network.exact.flow_network import FlowNetwork
from moesim.network.exact.progress import advance
from moesim.network.flow_batch import FlowBatch
from moesim.network.solve import solve_flows
from moesim.network.stepped.solve_within import WithinTolerance, solve_within
from moesim.network.stepped.stepped_network import SteppedNetwork
from moesim.network.throttle import Throttle, hold, speed_integral

__all__ = [
    "CapacityEvents",
    "FlowBatch",
    "FlowNetwork",
    "NetworkClock",
    "SteppedNetwork",
    "Throttle",
    "Unfair",
    "WithinTolerance",
    "advance",
    "hold",
    "solve_flows",
    "solve_within",
    "speed_integral",
]
