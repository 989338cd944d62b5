"""The names of the placements that a scenario can ask for, for the scenario, which imports no arrays.

``moesim.placement.policies`` has the function of each name.
"""

FIXED_POLICIES = ("contiguous", "round_robin", "random")
"""Known before the first token, whatever the load."""

LOAD_POLICIES = ("greedy", "eplb", "eplb_hierarchical", "eplb_global", "lp", "affinity", "replicate_top", "per_batch")
"""Follow the experts' load; affinity follows which experts a token selects together."""

BATCH_POLICIES = ("lp", "per_batch")
"""Look at every batch once more before it runs: lp shares out the load of replicas, per_batch moves weights."""

SINGLE_SLOT_POLICIES = (*FIXED_POLICIES, "greedy")
"""Place every expert once: they have no use for redundant slots."""

LEARN_FROM = ("first_half", "all", "batch")
"""What a policy may learn from beside a file: half of the recording, all of it, or the very batch that it places."""

POLICIES = (*FIXED_POLICIES, *LOAD_POLICIES)

REBALANCE_POLICIES = ("greedy", "eplb", "eplb_hierarchical", "eplb_global", "replicate_top")
"""Place by the load alone and then let it be, so that they can do it again and again while a model runs."""

FETCHING_POLICIES = ("per_batch",)
"""Fetch weights for every batch: these travel beside its tokens, and its experts wait for them."""

GROUP_PLACEMENTS = ("packed", "striped", "rails", "random")
"""Where expert-parallel groups are on a cluster."""
