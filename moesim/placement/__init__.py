"""Which rank holds which expert, and which of an expert's replicas a token takes."""

from moesim.placement.load_balancer import eplb
from moesim.placement.maps import read_map, write_map
from moesim.placement.policies import BY_LOAD, FIXED, contiguous, round_robin
from moesim.placement.slots import Placement

__all__ = ["BY_LOAD", "FIXED", "Placement", "contiguous", "eplb", "read_map", "round_robin", "write_map"]
