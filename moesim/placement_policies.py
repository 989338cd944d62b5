"""The names of the placements that a scenario can ask for, for the scenario, which imports no arrays.

``moesim.placement.policies`` has the function of each name.
"""

FIXED_POLICIES = ("contiguous", "round_robin")
"""One slot per expert, whatever the load; the placement is known before the first token."""

LOAD_POLICIES = ("eplb",)
"""Follow the experts' load, and may hold replicas."""

REBALANCE_POLICIES = ("eplb",)
"""Place by the load alone, so that they can do it again and again while a model runs."""
