"""Flows on the fabric's links: exact max-min fair sharing, in time."""

from moesim.network.clock import CapacityEvents, NetworkClock
from moesim.network.flow_network import FlowNetwork
from moesim.network.solve import solve_flows
from moesim.network.stepped import WithinTolerance, solve_within
from moesim.network.stepped_network import SteppedNetwork

__all__ = [
    "CapacityEvents",
    "FlowNetwork",
    "NetworkClock",
    "SteppedNetwork",
    "WithinTolerance",
    "solve_flows",
    "solve_within",
]
