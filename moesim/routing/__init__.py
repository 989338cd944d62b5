"""From router logits to each token's experts and gates: V1, V2 and V3 are one function and three presets."""

from moesim.routing.assign import Assignment, route
from moesim.routing.blocks import fused_pass_takes
from moesim.routing.measure import RouterSums, SequenceSums, route_and_measure
from moesim.routing.router_spec import RouterSpec, groups_of
from moesim.routing.scores import affinity, checked_selection, gate_mass_lost
from moesim.routing.slopes import add_gradient
from moesim.routing.threads import in_blocks

__all__ = [
    "Assignment",
    "RouterSpec",
    "RouterSums",
    "SequenceSums",
    "add_gradient",
    "affinity",
    "checked_selection",
    "fused_pass_takes",
    "gate_mass_lost",
    "groups_of",
    "in_blocks",
    "route",
    "route_and_measure",
]
