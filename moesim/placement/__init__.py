"""Which rank holds which expert, and which of an expert's replicas a token takes."""

from moesim.placement.even import contiguous, round_robin
from moesim.placement.load_balancer import eplb
from moesim.placement.slots import Placement

__all__ = ["Placement", "contiguous", "eplb", "round_robin"]
