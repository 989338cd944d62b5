"""What a change of the number of experts must leave alone, and how loads are steered to it.

Two kinds of figures describe what a router does to a cluster: how uneven the experts' loads are
(max / mean), and on how many of X equal, contiguous groups of experts (ranks, nodes) a token's experts lie.
Both are counted over the selections of the router itself, which arrives here as a function.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Select = Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.int32]]
"""The router: (logits[D, E], bias[E]) -> expert ids[D, K], for whatever E the logits have."""

CLOSE_ENOUGH = 0.002
"""Relative error of the loads at which steering them stops."""
MAX_OFFSET = 10.0
"""In standard deviations of the logits: an expert that needs more cannot have its target."""


def expert_loads(expert_ids: NDArray[np.int32], n_experts: int, weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Tokens that select each expert, [E]; token d of ``expert_ids`` [D, K] counts ``weight[d]`` times."""
    weights = np.repeat(weight, expert_ids.shape[1])
    loads = np.bincount(expert_ids.ravel(), weights=weights, minlength=n_experts)
    return loads.astype(np.float64)


def max_over_mean(loads: NDArray[np.float64]) -> float:
    """Load of the busiest expert over the mean load."""
    return float(loads.max() / loads.mean())


def group_of_expert(n_experts: int, n_groups: int, finest: int) -> NDArray[np.int64]:
    """Group of each contiguous expert: ``finest`` nearly equal parts (ranks), joined to ``n_groups``."""
    sizes = [len(part) for part in np.array_split(np.arange(n_experts), finest)]
    return np.repeat(np.arange(finest) * n_groups // finest, sizes)


def distinct_groups(expert_ids: NDArray[np.int32], group: NDArray[np.int64], weight: NDArray[np.float64]) -> float:
    """Mean over tokens, weighted, of the number of groups among a token's experts; ``group`` [E]."""
    reached = np.sort(group.astype(np.int16)[expert_ids], axis=1)
    return float(np.average(1 + (reached[:, 1:] != reached[:, :-1]).sum(axis=1), weights=weight))


def with_mean_one(profile: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bend a load profile (load / mean) until its mean is 1, keeping its maximum (1 or more) and its order.

    The bent profile is max * (profile / max) ** g with the g >= 0 that does it.
    """
    top = profile.max()
    relative = np.maximum(profile / top, 1e-9)
    bent: NDArray[np.float64] = top * relative ** bisected(lambda g: top * (relative**g).mean() > 1, 0.0, 64.0, 60)[1]
    return bent


def bisected(below: Callable[[float], bool], low: float, high: float, rounds: int) -> tuple[float, float]:
    """Halve an interval so many times around the point up to which ``below`` holds; return its ends."""
    for _ in range(rounds):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) else (low, middle)
    return low, high


def steer_loads(
    logits: NDArray[np.float32],
    bias: NDArray[np.float32],
    select: Select,
    weight: NDArray[np.float64],
    target: NDArray[np.float64],
    start: NDArray[np.float32] | None = None,
    rounds: int = 40,
) -> NDArray[np.float32]:
    """Return the offset per expert [E] that, added to the logits, brings the loads close to ``target``.

    A damped fixed-point iteration in the logarithm of the load; the best offset seen is returned, so a
    target that cannot be reached (an expert in more than every token) only costs rounds.
    """
    offset = np.zeros(logits.shape[1], np.float32) if start is None else start.copy()
    spread = float(logits.std(axis=0).mean()) or 1.0
    gain = np.full(logits.shape[1], 0.5)
    best, best_error, last = offset, np.inf, np.zeros(logits.shape[1])
    for _ in range(rounds):
        loads = expert_loads(select(logits + offset, bias), logits.shape[1], weight)
        error = np.log((target + 1) / (loads + 1))
        # The hottest experts decide max / mean, so they weigh as much as they carry.
        size = float(np.abs(error * target).max() / target.max())
        if size < best_error:
            best, best_error = offset, size
        if size < CLOSE_ENOUGH:
            break
        # An expert that overshot takes smaller steps from here on, the others dare a little more.
        gain = np.clip(np.where(error * last < 0, 0.6 * gain, 1.1 * gain), 0.02, 1.0)
        last = error
        offset = offset + gain * spread * np.clip(error, -2, 2)
        offset = np.clip(offset, -MAX_OFFSET * spread, MAX_OFFSET * spread).astype(np.float32)
    return best
