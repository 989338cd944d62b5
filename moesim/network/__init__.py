"""Flows on the fabric's links: exact max-min fair sharing, in time."""

from moesim.network.clock import NetworkClock
from moesim.network.flow_network import FlowNetwork
from moesim.network.solve import solve_flows

__all__ = ["FlowNetwork", "NetworkClock", "solve_flows"]
