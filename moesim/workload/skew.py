"""Skew by its result: the spread of popularity at which the drawn tokens have the load that was asked for.

The noise of the tokens is drawn once; the spread sigma of the log-normal popularity is then bisected against the router
itself, so the figure holds on these very tokens, group limits and repeated tokens included. What no spread gives is
refused: less than the same tokens have without any skew, more than the router allows, or between two values that so
few tokens can have.

A figure of the experts gives each expert its own popularity. A figure of the ranks gives the experts of a rank one and
the same; they are those of a contiguous placement, whatever the scenario's, so that placements can be compared on the
same tokens.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from moesim.errors import InputError
from moesim.workload.fidelity import Select, expert_loads, group_of_expert, max_over_mean
from moesim.workload.popularity import Floats

TOLERANCE = 0.01
"""Of the figure asked for, on the drawn batch."""
_CLOSE_ENOUGH, _ROUNDS, _MOST_SIGMA = 0.002, 40, 64.0


@dataclass(frozen=True)
class Target:
    """A figure that the drawn tokens are to have, by name: ``balancedness`` is mean / maximum load of the ranks."""

    NAMES: ClassVar[tuple[str, ...]] = ("max_violation", "balancedness", "rank_load_max_over_mean")
    name: str
    value: float

    @property
    def by_rank(self) -> bool:
        """Whether it is about ranks and not about experts."""
        return self.name != "max_violation"


def skewed(
    target: Target, noise: NDArray[np.float32], z: Floats, n_ranks: int, select: Select, weight: Floats
) -> tuple[NDArray[np.float32], float, float]:
    """Return logits [D, E] with the target, the sigma that gives it, and the figure reached.

    Args:
        target: the figure and its value.
        noise: of the tokens, [D, E].
        z: standard normal numbers, [E] for a figure of experts, [ranks] for one of ranks.
        n_ranks: of the contiguous placement.
        select: the router.
        weight: how often each token occurs, [D].

    Raises:
        InputError: no sigma gives it on these tokens; says what is possible.
    """
    n_experts, where = noise.shape[1], f"workload.synthetic.{target.name}"
    rank, bias = group_of_expert(n_experts, n_ranks, n_ranks), np.zeros(n_experts, np.float32)
    shape = (z[rank] if target.by_rank else z).astype(np.float32)

    def figure(sigma: float) -> float:
        loads = expert_loads(select(noise + np.float32(sigma) * shape, bias), n_experts, weight)
        ratio = max_over_mean(np.bincount(rank, loads, n_ranks).astype(np.float64) if target.by_rank else loads)
        return {"max_violation": ratio - 1, "balancedness": 1 / ratio}.get(target.name, ratio)

    def short(value: float) -> bool:
        return value > target.value if target.name == "balancedness" else value < target.value

    def off(value: float) -> float:
        return abs(value / target.value - 1)

    seen = {0.0: figure(0.0)}
    low, high = 0.0, 1.0
    while short(seen[low]) and high <= _MOST_SIGMA and short(seen.setdefault(high, figure(high))):
        low, high = high, 2 * high
    best = min(seen, key=lambda sigma: off(seen[sigma]))
    for _ in range(_ROUNDS if len(seen) > 1 and high <= _MOST_SIGMA else 0):
        if off(seen[best]) <= _CLOSE_ENOUGH:
            break
        middle = (low + high) / 2
        seen[middle] = figure(middle)
        low, high = (middle, high) if short(seen[middle]) else (low, middle)
        best = min(best, middle, key=lambda sigma: off(seen[sigma]))
    if off(seen[best]) <= TOLERANCE:
        return noise + np.float32(best) * shape, best, seen[best]
    tokens = f"{weight.sum():,.0f} tokens, {len(noise):,} of them distinct,"
    if len(seen) == 1:
        said, fix = f"{tokens} have {seen[0.0]:.3g} without any skew", "ask for more skew, or give more tokens"
    elif high > _MOST_SIGMA:
        said, fix = f"the router gives {seen[low]:.3g} with the most uneven popularity", "ask for less skew"
    else:
        said, fix = f"{tokens} can have {seen[best]:.3g}", "give more tokens, or ask for that"
    raise InputError(f"{said}, {target.value:g} is asked for", where, fix)
