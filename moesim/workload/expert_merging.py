"""Fewer experts than were recorded: contiguous experts are merged into one.

A merged expert has the highest logit of its members, their mean bias, and the rank, node and group of its
members. Merging alone would spread a token's K experts over more ranks than were recorded (two selected
members become one, and the freed place goes elsewhere). So at each number of groups that can be compared
(ranks, nodes) the experts of a group share a *pull*, a multiple of the group's highest logit in the token:
the more of it, the fewer groups a token reaches. Offsets per expert keep the recorded profile of loads. Both
are found by iteration against the router itself.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from moesim.workload.fidelity import Select, distinct_groups, expert_loads, steer_loads, with_mean_one

# How much of its group's highest logit an expert gets; bisected to about 0.01.
PULL_RANGE = (-2.0, 4.0)
PULL_ROUNDS = 10
CLOSE_ENOUGH = 0.001
"""Relative miss of a figure at which its pull is left alone."""
LAST_ROUNDS = 200
SWEEPS = 3
"""A pull at one number of groups moves the figure at the others, so several are found in turns."""


def merge(
    logits: NDArray[np.float32],
    bias: NDArray[np.float32],
    merged_into: NDArray[np.int64],
    select: Select,
    weight: NDArray[np.float64],
    highest_max_over_mean: float,
    distinct_target: Mapping[int, tuple[NDArray[np.int64], float]],
) -> tuple[NDArray[np.float32], NDArray[np.float32], dict[int, float]]:
    """Return logits [D, E'], bias [E'] and the pull per number of groups.

    ``merged_into`` [E]: the new expert of each recorded one, non-decreasing. ``highest_max_over_mean``:
    what E' experts can have at most. ``distinct_target``: number of groups -> (group of each new expert
    [E'], mean distinct groups per token to be kept).
    """
    recorded, n_experts = logits.shape[1], int(merged_into[-1]) + 1
    first = np.searchsorted(merged_into, np.arange(n_experts))
    merged = np.maximum.reduceat(logits, first, axis=1)
    merged_bias = (np.add.reduceat(bias, first) / np.diff(first, append=recorded)).astype(np.float32)

    loads = expert_loads(select(merged, merged_bias), n_experts, weight)
    recorded_loads = expert_loads(select(logits, bias), recorded, weight)
    target = loads.mean() * _load_profile(recorded_loads, loads, highest_max_over_mean)
    offset = steer_loads(merged, merged_bias, select, weight, target)
    pulls = dict.fromkeys(distinct_target, 0.0)
    for _ in range(SWEEPS if len(distinct_target) > 1 else 1):
        for n_groups, (group, distinct) in sorted(distinct_target.items()):
            shared = _group_highest(merged, group)
            (low, high), pull = PULL_RANGE, 0.0
            for _ in range(PULL_ROUNDS):
                trial = merged + np.float32(pull) * shared
                offset = steer_loads(trial, merged_bias, select, weight, target, start=offset, rounds=6)
                achieved = distinct_groups(select(trial + offset, merged_bias), group, weight)
                if abs(achieved / distinct - 1) < CLOSE_ENOUGH:
                    break
                low, high = (pull, high) if achieved > distinct else (low, pull)
                pull = (low + high) / 2
            pulls[n_groups] += pull
            merged = merged + np.float32(pull) * shared
    offset = steer_loads(merged, merged_bias, select, weight, target, start=offset, rounds=LAST_ROUNDS)
    return merged + offset, merged_bias, pulls


def _load_profile(recorded: NDArray[np.float64], merged: NDArray[np.float64], highest: float) -> NDArray[np.float64]:
    """Profile (load / mean) of the recorded loads at E' quantiles, in the order of the merged ones."""
    ordered = np.sort(recorded / recorded.mean())
    sampled = np.interp(np.linspace(0, 1, len(merged)), np.linspace(0, 1, len(ordered)), ordered)
    profile = np.empty(len(merged))
    profile[np.argsort(merged, kind="stable")] = np.minimum(sampled, highest)
    return with_mean_one(profile)


def _group_highest(logits: NDArray[np.float32], group: NDArray[np.int64]) -> NDArray[np.float32]:
    """Highest logit of each expert's group in each token, less its mean over tokens, [D, E]."""
    first = np.flatnonzero(np.diff(group, prepend=-1))
    highest = np.maximum.reduceat(logits, first, axis=1)
    highest -= highest.mean(axis=0)
    shared: NDArray[np.float32] = np.repeat(highest, np.diff(first, append=len(group)), axis=1)
    return shared
