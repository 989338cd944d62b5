"""From router logits to each token's experts and gates: V1, V2 and V3 are one function and three presets."""

from moesim.routing.assign import Assignment, route
from moesim.routing.scores import affinity, gate_mass_lost
from moesim.routing.spec import RouterSpec, groups_of

__all__ = ["Assignment", "RouterSpec", "affinity", "gate_mass_lost", "groups_of", "route"]
