"""Which rank holds which expert, and which of an expert's replicas a token takes."""

from moesim.placement.affinity import affinity_frontier
from moesim.placement.few_moves import moved_experts, renumbered
from moesim.placement.fixed import contiguous, in_turn, round_robin
from moesim.placement.load_balancer import eplb
from moesim.placement.maps import map_kind, read_map, write_map
from moesim.placement.migration import Moves, break_even_steps, expert_bytes, moves_between
from moesim.placement.placement_worth import BATCH_TOKENS, Worth, worth
from moesim.placement.policies import place
from moesim.placement.replica_shares import with_lp_shares
from moesim.placement.slots import Placement

__all__ = [
    "BATCH_TOKENS",
    "Moves",
    "Placement",
    "Worth",
    "affinity_frontier",
    "break_even_steps",
    "contiguous",
    "eplb",
    "expert_bytes",
    "in_turn",
    "map_kind",
    "moved_experts",
    "moves_between",
    "place",
    "read_map",
    "renumbered",
    "round_robin",
    "with_lp_shares",
    "worth",
    "write_map",
]
