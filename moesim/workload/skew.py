"""Skew by its result: the spread of popularity at which the drawn tokens have the load that was asked for.

The noise of the tokens is drawn once; the spread sigma of the log-normal popularity is then bisected against the router
itself, so the figure holds on these very tokens, group limits and repeated tokens included. What no spread gives is
refused: less than the same tokens have without any skew, more than the router allows, or between two values that so
few tokens can have.

A target of the experts gives each expert its own popularity. A target of the ranks gives the experts of a rank one and
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
_CLOSE_ENOUGH = 0.002
_ROUNDS = 40
_MOST_SIGMA = 64.0


@dataclass(frozen=True)
class Target:
    """What the drawn tokens are to have.

    Attributes:
        name: ``max_violation`` (of the experts, maximum / mean - 1), ``rank_load_max_over_mean``, or ``balancedness``
            (mean / maximum over ranks, as engines log it).
        value: of it.
    """

    NAMES: ClassVar[tuple[str, ...]] = ("max_violation", "balancedness", "rank_load_max_over_mean")
    name: str
    value: float

    @property
    def by_rank(self) -> bool:
        """Whether it is about ranks and not about experts."""
        return self.name != "max_violation"

    def figure(self, ids: NDArray[np.int32], weight: Floats, rank: NDArray[np.int64]) -> float:
        """Return the figure of selections [D, K], token d counted ``weight[d]`` times; ``rank`` [E] of each expert."""
        loads = expert_loads(ids, len(rank), weight)
        if not self.by_rank:
            return max_over_mean(loads) - 1
        ratio = max_over_mean(np.bincount(rank, weights=loads).astype(np.float64))
        return 1 / ratio if self.name == "balancedness" else ratio


def skewed(
    target: Target, noise: NDArray[np.float32], z: Floats, n_ranks: int, select: Select, weight: Floats
) -> tuple[NDArray[np.float32], float, float]:
    """Return logits [D, E] with the target, the sigma that gives it, and the figure reached.

    Args:
        target: the figure and its value.
        noise: of the tokens, [D, E].
        z: standard normal numbers, [E] for a target of experts, [ranks] for one of ranks.
        n_ranks: of the contiguous placement.
        select: the router.
        weight: how often each token occurs, [D].

    Raises:
        InputError: no sigma gives it on these tokens; says what is possible.
    """
    n_experts, where = noise.shape[1], f"workload.synthetic.{target.name}"
    rank, bias = group_of_expert(n_experts, n_ranks, n_ranks), np.zeros(n_experts, np.float32)
    shape = (z[rank] if target.by_rank else z).astype(np.float32)
    downwards = target.name == "balancedness"

    def reached(sigma: float) -> float:
        return target.figure(select(noise + np.float32(sigma) * shape, bias), weight, rank)

    def off(value: float) -> float:
        return abs(value / target.value - 1)

    def short(value: float) -> bool:
        return value > target.value if downwards else value < target.value

    low, high, at_low = 0.0, 1.0, reached(0.0)
    if off(at_low) <= _CLOSE_ENOUGH:
        return noise, 0.0, at_low
    if not short(at_low):
        what = f"{weight.sum():,.0f} tokens ({len(noise):,} distinct) have {at_low:.3g} without any skew"
        raise InputError(f"{what}, {target.value:g} is asked for", where, "ask for more skew, or give more tokens")
    at_high = reached(high)
    while short(at_high) and high < _MOST_SIGMA:
        low, high = high, 2 * high
        at_high = reached(high)
    if short(at_high) and off(at_high) > TOLERANCE:
        what = f"the router gives {at_high:.3g} with popularity as uneven as can be"
        raise InputError(f"{what}, {target.value:g} is asked for", where, "ask for less skew")
    best, sigma = at_high, high
    for _ in range(_ROUNDS):
        if off(best) <= _CLOSE_ENOUGH:
            break
        middle = (low + high) / 2
        figure = reached(middle)
        low, high = (middle, high) if short(figure) else (low, middle)
        if off(figure) < off(best):
            best, sigma = figure, middle
    if off(best) > TOLERANCE:
        what = f"{weight.sum():,.0f} tokens are too few for {target.value:g}: {best:.3g} is the nearest"
        raise InputError(what, where, "give more tokens, or ask for that")
    return noise + np.float32(sigma) * shape, sigma, best
