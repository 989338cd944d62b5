"""Which rank holds which expert, and which of an expert's replicas a token takes."""

from moesim.placement.load_balancer import eplb
from moesim.placement.maps import read_map, write_map
from moesim.placement.migration import (
    Moves,
    break_even_steps,
    busiest_ports,
    expert_bytes,
    migration_bound_s,
    moves_between,
)
from moesim.placement.policies import BY_LOAD, FIXED, contiguous, round_robin
from moesim.placement.slots import Placement

__all__ = [
    "BY_LOAD",
    "FIXED",
    "Moves",
    "Placement",
    "break_even_steps",
    "busiest_ports",
    "contiguous",
    "eplb",
    "expert_bytes",
    "migration_bound_s",
    "moves_between",
    "read_map",
    "round_robin",
    "write_map",
]
